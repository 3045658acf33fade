"""Whatever a student's code does: it gets a result, prints nothing, and leaves the global state as it was."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings

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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # endless_generator ignores its end, too
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs the alarm signal of Linux and macOS")
@pytest.mark.parametrize(
    "endless",
    [
        loop, loop_that_catches_all, loop_that_ends_its_try_with_continue, sleep, sleep_and_catch_all,
        catch_all_around_catch_all, endless_generator, matrix_products,
    ],
)  # fmt: skip
def test_endless_loops_are_stopped(endless):
    for _ in range(3):
        start = time.perf_counter()
        result = run_check("9.9", call, endless, 0.1)
        assert time.perf_counter() - start < 2.0  # 0.13 s on an idle machine
        assert (result.status, result.timed_out) == ("failed", True)
        assert result.messages[0].startswith("Time: your code was stopped after 0.1 seconds.")


@pytest.mark.parametrize("endless", [loop, matrix_products])
def test_endless_loops_are_stopped_in_another_thread(endless):
    found = []
    thread = threading.Thread(target=lambda: found.append(run_check("9.9", call, endless, 0.1)), daemon=True)
    thread.start()
    thread.join(5)
    assert found and found[0].timed_out


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
        (BreaksInInit, call, "TypeError", 'of __init__: self.layer = nn.Linear(2, "three")'),
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


def test_only_the_students_own_not_implemented_error_means_todo():
    def stub():
        raise NotImplementedError("Exercise 9.9: write it.")

    assert verdict(stub) == ("todo", "Exercise 9.9: write it.")
    # torch raises this one for a module without a forward method: such a module is a failed attempt, not a stub
    assert "NotImplementedError" in failure(nn.Module(), lambda module: module(1))


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
        (lambda: expect_close("it", [1.0, np.nan], [1.0, 2.0]), "Value of it at (1,): found nan, expected 2.0."),
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
