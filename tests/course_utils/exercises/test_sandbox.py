"""Whatever a student's code does: it gets a result, prints nothing, and leaves the global state as it was."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import threading
import time
import warnings
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.exercises import evaluate, list_exercises
from course_utils.exercises.feedback import (
    CheckFailed,
    expect_callable,
    expect_close,
    expect_dtype,
    expect_error,
    expect_shape,
    expect_type,
    untouched,
)
from course_utils.exercises.sandbox import CheckTimeout, preserved_state, run_check, time_limit


def call(submission):
    submission()


def verdict(submission, check=call, seconds=1.0):
    result = run_check("9.9", check, submission, seconds)
    assert result.exercise_id == "9.9"
    return result.status, result.messages[0]


def failure(submission, check=call):
    """The message of a check that fails, and not because of the time limit."""
    result = run_check("9.9", check, submission, 1.0)
    assert (result.status, result.timed_out) == ("failed", False)
    return result.messages[0]


# Endless loops


def loop():
    while True:
        pass


def loop_that_catches_all():
    while True:
        try:
            sum(range(100))
        except:  # noqa: E722
            pass


def loop_that_ends_its_try_with_continue():
    while True:
        try:
            sum(range(100))
        finally:
            continue  # noqa: B012


def sleep():
    time.sleep(1000)


def sleep_and_catch_all():
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            continue


def catch_all_around_catch_all():
    while True:
        try:
            sleep_and_catch_all()
        except BaseException:
            continue


def endless_generator():
    def numbers():
        while True:
            try:
                yield 1
            except BaseException:
                pass

    for _ in numbers():
        pass


def matrix_products():
    a = np.ones((200, 200))
    while True:
        a = a @ a / 200


def wait_for_an_answer():
    reading, _ = os.pipe()
    os.read(reading, 1)


def swallow_and_complain():
    try:
        loop()
    except BaseException:
        raise ValueError("out of patience") from None


COMPUTING = [
    loop, loop_that_catches_all, loop_that_ends_its_try_with_continue, endless_generator, matrix_products,
    swallow_and_complain,
]  # fmt: skip
WAITING = [sleep, sleep_and_catch_all, catch_all_around_catch_all, wait_for_an_answer]
alarm_only = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs the alarm signal of Linux and macOS"
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # endless_generator ignores its end, too
@alarm_only
@pytest.mark.parametrize("endless", [*COMPUTING, *WAITING])
def test_endless_loops_are_stopped(endless):
    for _ in range(3):
        start = time.thread_time()
        result = run_check("9.9", call, endless, 0.05)
        assert time.thread_time() - start < 1.0  # 0.1 s on an idle machine: computing gets a second try
        assert (result.status, result.timed_out) == ("failed", True)
        computing = r"0.05 seconds\. Expected: .* processor time"
        pattern = computing if endless in COMPUTING else r"\d+ seconds, of which it computed for 0.0\. .*input"
        assert re.match(f"Time: your code was stopped after {pattern}", result.messages[0])


def in_another_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(60)
    assert found
    return found[0]


@pytest.mark.parametrize("endless", [loop, matrix_products, swallow_and_complain])
@pytest.mark.parametrize("clock", ["of the thread", "of the process"])
def test_endless_loops_are_stopped_in_another_thread(endless, clock, monkeypatch):
    if clock == "of the process":  # as on Windows and macOS
        monkeypatch.delattr(time, "pthread_getcpuclockid", raising=False)
    assert in_another_thread(lambda: run_check("9.9", call, endless, 0.1)).timed_out


# What the time limit does not count


def compute(seconds):
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def threads_of_the_kernel():
    """They compute while this one waits."""
    others = [threading.Thread(target=compute, args=(0.15,)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()


def slow_import():
    import_module("imports_for_long")


def import_that_imports():
    import_module("imports_another")


COMPILER = {"__name__": "numba.core.dispatcher", "compute": compute}
exec("def compile_for_long(): compute(0.4)", COMPILER)


def first_use():
    if not os.environ.get("COURSE_TEST_USED"):
        os.environ["COURSE_TEST_USED"] = "yes"
        compute(0.4)


def import_and_be_wrong():
    """As a check of the memory finds that what the import allocates is too much."""
    if "imports_for_long" not in sys.modules:
        slow_import()
        raise CheckFailed("Memory: found 2.9 MB, expected a few kB.")


@pytest.fixture
def slow_modules(tmp_path, monkeypatch):
    (tmp_path / "imports_for_long.py").write_text("import time\nstart = time.thread_time()\n"
                                                  "while time.thread_time() - start < 0.4: pass\n")  # fmt: skip
    (tmp_path / "imports_another.py").write_text("import imports_for_long\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COURSE_TEST_USED", "")
    yield
    for name in ("imports_for_long", "imports_another"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("where", [lambda function: function(), in_another_thread], ids=["here", "in a thread"])
@pytest.mark.parametrize(
    "right",
    [
        lambda: time.sleep(0.4), threads_of_the_kernel, slow_import, import_that_imports, COMPILER["compile_for_long"],
        first_use, import_and_be_wrong,
    ],
)  # fmt: skip
def test_only_what_the_code_itself_computes_each_time_is_counted(right, where, slow_modules):
    result = where(lambda: run_check("9.9", call, right, 0.2))
    assert result.status == "passed", result.messages


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (lambda: None, 1), (lambda: 1 / 0, 1), (loop, 2), (pytest.param(sleep, 1, marks=alarm_only)), (slow_import, 1),
        (lambda: (slow_import(), 1 / 0), 2),
    ],
)  # fmt: skip
def test_a_second_try_is_for_what_may_be_faster_or_smaller_then(answer, tries, slow_modules):
    calls = []
    run_check("9.9", lambda submission: (calls.append(1), submission()), answer, 0.05)
    assert len(calls) == tries


def test_imports_that_do_not_end_are_stopped(slow_modules):
    result = run_check("9.9", call, slow_import, 0.01)
    assert result.timed_out and "of imports and compilation" in result.messages[0]


def test_whether_the_machine_is_busy_is_said_where_code_waits(monkeypatch):
    for load, said in ((0.1, False), (8.0 * os.cpu_count(), True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0), raising=False)
        message = in_another_thread(lambda: run_check("9.9", call, lambda: [time.sleep(0.01) for _ in range(99)], 0.01))
        assert ("This machine is busy (load" in message.messages[0]) == said


def test_nothing_is_stopped_after_the_verdict():
    before = signal.getsignal(signal.SIGALRM), sys.gettrace()
    for _ in range(5):
        verdict(catch_all_around_catch_all, seconds=0.02)
    assert (signal.getsignal(signal.SIGALRM), sys.gettrace()) == before
    time.sleep(0.1)  # a remaining alarm would go off here


def test_an_alarm_that_was_set_before_still_goes_off():
    rings = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: rings.append(number))
    waiting, _ = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        assert verdict(lambda: None)[0] == "passed"
        time.sleep(0.3)
        assert rings
    finally:
        signal.setitimer(signal.ITIMER_REAL, waiting)
        signal.signal(signal.SIGALRM, previous)


def test_the_limit_does_not_disturb_quick_code():
    with time_limit(5):
        assert sum(range(10)) == 45
    with pytest.raises(CheckTimeout), time_limit(0.05):
        loop()


# Exceptions


class BreaksInInit(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, "three")


class BreaksInForward(nn.Module):
    def forward(self, x):
        return x @ torch.ones(7, 7)


@pytest.mark.parametrize(
    ("submission", "check", "error", "line"),
    [
        (lambda: 1 / 0, call, "ZeroDivisionError: division by zero", "1 / 0"),
        (BreaksInInit, call, "TypeError", 'in __init__: `self.layer = nn.Linear(2, "three")`.'),
        (BreaksInForward, lambda cls: cls()(torch.ones(2, 3)), "RuntimeError", "return x @ torch.ones(7, 7)"),
    ],
)  # fmt: skip
def test_an_exception_is_quoted_with_the_students_line(submission, check, error, line):
    message = failure(submission, check)
    assert message.startswith(f"Error: your code raised {error}") and line in message


def stop_python():
    sys.exit(3)


def recurse():
    recurse()


class OwnError(BaseException):
    pass


def raise_own_error():
    raise OwnError


def raise_interrupt():
    raise KeyboardInterrupt


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def raise_speechless():
    raise Speechless


@pytest.mark.parametrize(
    ("submission", "words"),
    [
        (stop_python, "SystemExit: 3"), (recurse, "RecursionError"), (raise_own_error, "OwnError. Look at line"),
        (raise_interrupt, "KeyboardInterrupt"), (raise_speechless, "your code raised Speechless"),
        (lambda one, two: None, "TypeError"),
    ],
)  # fmt: skip
def test_no_exception_gets_out(submission, words):
    assert words in failure(submission)


def test_the_user_can_still_interrupt():
    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        verdict(interrupted)
    assert signal.getsignal(signal.SIGINT) is before


class Later(NotImplementedError):
    pass


def stub():
    raise NotImplementedError("Exercise 9.9: write it.")


def stub_without_words():
    raise NotImplementedError


def own_kind_of_stub():
    raise Later("Exercise 9.9: write it.")


def half_written():
    with torch.no_grad():
        try:
            return [stub() for _ in range(3)][0]
        finally:
            compute(0)


def passed_on():
    try:
        stub()
    except NotImplementedError as error:
        raise error


class StubOfAMethod(nn.Module):
    def forward(self, x):
        raise NotImplementedError("Exercise 9.9: write it.")


def call_module(cls):
    cls()(torch.ones(1))


@pytest.mark.parametrize(
    ("submission", "check", "message"),
    [
        (stub, call, "Exercise 9.9: write it."), (stub_without_words, call, "Not written yet."),
        (own_kind_of_stub, call, "Exercise 9.9: write it."), (half_written, call, "Exercise 9.9: write it."),
        (passed_on, call, "Exercise 9.9: write it."), (StubOfAMethod, call_module, "Exercise 9.9: write it."),
    ],
)  # fmt: skip
def test_the_students_own_not_implemented_error_means_todo(submission, check, message):
    assert verdict(submission, check) == ("todo", message)


def compare_unsigned():
    return torch.ones(3, dtype=torch.uint16) > 0


def compare_unsigned_and_pass_on():
    try:
        return compare_unsigned()
    except NotImplementedError as error:
        print("that was wrong")
        raise error


def compare_unsigned_and_raise():
    try:
        return compare_unsigned()
    except NotImplementedError:
        raise


class NoForward(nn.Module):
    pass


def copy_from_meta():
    return torch.ones(3, device="meta").numpy()


@pytest.mark.parametrize(
    ("submission", "check"),
    [
        (compare_unsigned, call), (compare_unsigned_and_pass_on, call), (compare_unsigned_and_raise, call),
        (lambda: [compare_unsigned() for _ in range(3)], call), (NoForward, call_module),
        (lambda: torch.ones(2, device="meta").cpu(), call), (lambda: int.__new__(NotImplementedError), call),
    ],
)  # fmt: skip
def test_the_one_of_a_library_does_not(submission, check):
    message = failure(submission, check)
    assert message.startswith("Error: your code raised ") or "NotImplementedError" in message


def test_a_foreground_of_unsigned_labels_is_a_failed_attempt():
    message = evaluate("1.6", lambda mask: (torch.from_numpy(mask.astype(np.uint16)) > 0)[None].float()).messages[0]
    assert message.startswith("Error: your code raised NotImplementedError") and "uint16" in message
    assert "Look at line" in message and "torch.from_numpy" in message
    status = evaluate("1.6", lambda mask: NotImplemented).status
    assert status == "failed"


# Noise and state


def test_prints_and_warnings_are_swallowed(capsys, recwarn):
    def noisy():
        print("hello")
        print("trouble", file=sys.stderr)
        warnings.warn("careful", stacklevel=1)
        np.float32(1) / np.float32(0)

    warnings.simplefilter("always")
    assert verdict(noisy)[0] == "passed"
    captured = capsys.readouterr()
    assert (captured.out, captured.err, list(recwarn)) == ("", "", [])


def global_state():
    return (
        random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.is_grad_enabled(),  # noqa: NPY002
        torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(),
        np.geterr(), list(warnings.filters), torch.get_default_device(),
    )  # fmt: skip


def test_global_state_is_put_back_even_after_an_error():
    def careless():
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(torch.get_num_threads() + 1)
        np.seterr(all="raise")
        warnings.simplefilter("error")
        raise ValueError("and out")

    torch.use_deterministic_algorithms(False)  # imports a lot the first time: not to be stopped in the middle
    before = global_state()
    assert verdict(careless)[0] == "failed"
    assert global_state() == before


def test_random_numbers_go_on_as_if_no_check_had_run():
    with preserved_state():
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        for exercise in list_exercises()[:7]:
            evaluate(exercise.id, exercise.reference)
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.append(1),
        lambda given: given.pop(),
        lambda given: given[0].__setitem__(0, 9),
        lambda given: given[1].__iadd__(1),
        lambda given: given.reverse(),
        lambda given: given.__setitem__(0, given[0].astype(np.float32)),
    ],
)
def test_changed_arguments_are_named(change):
    given = [np.array([1.0, np.nan]), torch.ones(2)]
    with pytest.raises(CheckFailed, match="^Mutation: your code changed its argument images"), untouched(images=given):
        change(given)


def test_unchanged_arguments_are_fine():
    given = [np.array([1.0, np.nan]), torch.ones(2)]
    with untouched(images=given, name="x", numbers=(1, 2)):
        given[0] + given[1].numpy()


# Words


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (lambda: expect_callable(3, "f"), "Kind of f: found int, expected a function."),
        (lambda: expect_shape("it", np.ones(3), (2,)), "Shape of it: found (3,), expected (2,)."),
        (lambda: expect_shape("it", 5, (2,)), "Shape of it: found (), expected (2,)."),
        (lambda: expect_type("it", [1], (tuple, dict)), "Type of it: found list, expected tuple or dict."),
        (lambda: expect_dtype("x", torch.ones(1), torch.int64),
         "dtype of x: found torch.float32, expected torch.int64."),
        (lambda: expect_dtype("it", np.ones(1), np.float32), "dtype of it: found float64, expected float32."),
        (lambda: expect_close("it", 1.5, 1.0, "Look."), "Value of it: found 1.5, expected 1.0. Look."),
        (lambda: expect_close("it", [1.0, np.nan], [1.0, 2.0]), "Value of it at (1,): found nan, expected 2."),
        (lambda: expect_close("it", [1.0], [1.0, 2.0]), "Shape of it: found (1,), expected (2,)."),
        (lambda: expect_error("a bad call", lambda: 1), "a bad call: found no error, expected a ValueError."),
    ],
)  # fmt: skip
def test_words_say_what_was_found_and_expected(word, message):
    with pytest.raises(CheckFailed) as caught:
        word()
    assert str(caught.value).startswith(message)


def test_words_accept_what_is_right():
    expect_callable(len, "f")
    expect_callable(int, "C")
    expect_close("it", torch.ones(2, requires_grad=True), [1.0, 1.0 + 1e-7])
    expect_close("it", torch.tensor([1, 2]), np.array([1, 2]))

    def refuse():
        raise ValueError("found 3, expected 4")

    expect_error("a bad call", refuse, names=("3", "4"))
    with pytest.raises(CheckFailed, match="^Error message for a bad call: .* names 5"):
        expect_error("a bad call", refuse, names=("3", "5"))
