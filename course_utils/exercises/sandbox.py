"""A safe place to run a student's code.

A check is a function that takes the student's object, tries it out, and raises `CheckFailed` for the first property
that is wrong. `run_check` runs it: prints are swallowed, random state and torch's modes are restored, an exception in
the student's code becomes a message that quotes its line, and an endless loop is stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import linecache
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from course_utils.exercises.advice import advice
from course_utils.exercises.feedback import CheckFailed, CheckResult

TIME_LIMIT = 1.6  # seconds; with the overhead a check stays under two
PACKAGE = Path(__file__).parents[1]


class CheckTimeout(BaseException):
    """Not an `Exception`, so that an `except Exception` in the student's code does not swallow it."""


def run_check(
    exercise_id: str, check: Callable[[Any], None], submission: Any, seconds: float = TIME_LIMIT
) -> CheckResult:
    """Run one check on a student's object. It prints nothing, and no exception of the student's code gets out."""
    try:
        with noted_interrupts() as interrupted, preserved_state(), silence() as printed, time_limit(seconds):
            check(submission)
    except CheckFailed as error:
        return CheckResult(exercise_id, "failed", (with_advice(str(error), error, submission, printed),))
    except CheckTimeout:
        message = (
            f"Time: your code was stopped after {seconds:g} seconds. Expected: well under a second. "
            "Look for a loop that does not end, or one over all pixels."
        )
        return CheckResult(exercise_id, "failed", (message,), timed_out=True)
    except BaseException as error:  # SystemExit included, and a KeyboardInterrupt that the code raises itself
        if isinstance(error, KeyboardInterrupt) and interrupted():
            raise
        if isinstance(error, NotImplementedError) and _is_students(traceback.extract_tb(error.__traceback__)[-1]):
            return CheckResult(exercise_id, "todo", (str(error) or "Not written yet.",))
        message = with_advice(describe_exception(error), error, submission, printed)
        return CheckResult(exercise_id, "failed", (message,))
    return CheckResult(exercise_id, "passed", ("Right.",))


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether somebody really pressed Ctrl-C or the stop button."""
    pressed = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: True  # only the main thread gets signals; if in doubt, stop
        return

    def note(number, frame):
        pressed.append(number)
        if callable(previous):
            previous(number, frame)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, previous)


def with_advice(message: str, error: BaseException, submission: Any, printed: io.StringIO) -> str:
    with contextlib.suppress(Exception):  # what the student made may be as strange as it likes
        return f"{message} {advice(error, submission, printed.getvalue())}".strip()
    return message


def describe_exception(error: BaseException) -> str:
    """An error as a sentence: its type, its text, and the last line of the student's code that led to it."""
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # an exception class that the student wrote may fail here
        text = type(error).__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_students(frame):
            line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            return f"Error: your code raised {text}. Look at line {frame.lineno} of {frame.name}: {line}"
    return f"Error: calling your code raised {text}. Compare its arguments with the task."


def _is_students(frame: traceback.FrameSummary) -> bool:
    """Whether a line is the student's, so neither this package's, nor an installed one's, nor Python's."""
    path = Path(frame.filename)
    ours = (PACKAGE, Path(contextlib.__file__).parent)
    return not (
        any(folder in path.parents for folder in ours)
        or path.parts[:1] == ("<frozen",)
        or "site-packages" in path.parts
        or path.suffix in (".pyx", ".pxd")  # sources of compiled libraries
    )


@contextlib.contextmanager
def silence() -> Iterator[io.StringIO]:
    """Swallow prints and warnings; yields what is printed."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield printed


@contextlib.contextmanager
def preserved_state() -> Iterator[None]:
    """Restore global random states and torch's modes, whatever the code inside does to them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (students' code may use it)
    torch = sys.modules.get("torch")
    if torch is not None:
        state, grad, dtype, threads = (
            torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(),
        )  # fmt: skip
        deterministic, device = torch.are_deterministic_algorithms_enabled(), torch.get_default_device()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(state)
            torch.set_grad_enabled(grad)
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:
                torch.set_default_device(device)
            if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call takes seconds the first time
                torch.use_deterministic_algorithms(deterministic)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `CheckTimeout` in this thread if the code inside takes longer, again and again until it ends.

    Where there are signals (main thread, on Linux and macOS) an alarm interrupts even a sleeping thread. Elsewhere a
    second thread sends the exception, which arrives at the next line of Python: it ends a loop, but not always one
    that catches everything. Neither ends a loop that runs in C without a line of Python, such as
    `sum(itertools.count())`: stop the kernel then (`course.py grade` ends the process).
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        yield from _limit_by_alarm(seconds)
    else:
        yield from _limit_by_thread(seconds)


def _limit_by_alarm(seconds: float) -> Iterator[None]:
    count = itertools.count()
    pauses = itertools.cycle([5e-6, 1e-5, 2e-5, 4e-5, 8e-5])
    running = True

    def is_ours(frame):  # this module must restore everything before it is stopped
        return not running or frame is None or frame.f_code.co_filename in (__file__, contextlib.__file__)

    def stop(number, frame):
        if is_ours(frame):
            return
        if next(count) > 0:
            # The first exception was swallowed: raise again at the first line of the handler that swallows this one.
            sys.settrace(stop_at_line)
            while not is_ours(frame):
                frame.f_trace, frame = stop_at_line, frame.f_back
        raise CheckTimeout

    def stop_at_line(frame, event, argument):
        if event == "line" and not is_ours(frame):
            # A loop around this loop may swallow that, too: the next alarm comes at once and may find it there.
            signal.setitimer(signal.ITIMER_REAL, next(pauses), 0.02)
            raise CheckTimeout
        return stop_at_line

    started, tracing = time.monotonic(), sys.gettrace()
    previous = signal.signal(signal.SIGALRM, stop)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)
    try:
        yield
    finally:
        running = False
        sys.settrace(tracing)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if waiting:  # an alarm that was set before
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, waiting - (time.monotonic() - started)), interval)


def _limit_by_thread(seconds: float) -> Iterator[None]:
    thread, done = threading.get_ident(), threading.Event()
    # Uneven pauses do not fall into step with a loop, so that one exception may come while another is handled.
    pauses = [seconds, 0.05, *[2e-4, 7e-4, 3e-4, 1.1e-3, 5e-4] * 200]

    def watch():
        for pause in pauses:
            if done.wait(pause):
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(CheckTimeout))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        for _ in range(2):  # one more exception may arrive right here
            with contextlib.suppress(CheckTimeout):
                done.set()
                watcher.join()
