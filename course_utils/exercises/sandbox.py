"""A safe place to run a student's code.

A check is a function that takes the student's object, tries it out, and raises `CheckFailed` for the first property
that is wrong. `run_check` runs it: prints are swallowed, random state and torch's modes are restored, an exception in
the student's code becomes a message that quotes its line, and an endless loop is stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import io
import itertools
import linecache
import os
import random
import signal
import sys
import textwrap
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from course_utils.exercises.advice import advice
from course_utils.exercises.feedback import CheckFailed, CheckResult, _parts
from course_utils.exercises.pictures import KINDS

TIME_LIMIT = 1.6  # seconds of processor time; with the overhead a check stays under two
TICK = 0.02  # seconds between two looks at the clock
# The work of these modules is done once, on first use. They are on the stack as long as it takes.
COMPILERS = ("numba.", "torch._dynamo.convert_frame.", "torch._inductor.compile_fx.")
COMPUTED = "Expected: well under a second of processor time."
LOOPS = "Look for a loop that does not end, or one over all pixels."
WAITED = "Look for what sleeps or waits: time.sleep, input, a lock, another process."
PACKAGE = Path(__file__).parents[1]


class CheckTimeout(BaseException):
    """Not an `Exception`, so that an `except Exception` in the student's code does not swallow it.

    `waited` if the code slept or waited, instead of computing for too long.
    """

    waited = False


def run_check(
    exercise_id: str, check: Callable[[Any], None], submission: Any, seconds: float | None = TIME_LIMIT
) -> CheckResult:
    """Run one check on a student's object. It prints nothing, and no exception of the student's code gets out.

    What fails gets a second try if the first may have paid in time or memory for what is done once: imports,
    compilation, setting up a GPU.
    """
    result, may_be_cold = _run_once(exercise_id, check, submission, seconds)
    return _run_once(exercise_id, check, submission, seconds)[0] if may_be_cold else result


def _run_once(
    exercise_id: str, check: Callable[[Any], None], submission: Any, seconds: float | None
) -> tuple[CheckResult, bool]:
    """The result, and whether it may be another one the next time."""
    modules, failure = len(sys.modules), None
    _slow_parts.clear()
    _parts.clear()
    try:
        with noted_interrupts() as interrupted, preserved_state(), silence() as printed, time_limit(seconds):
            check(submission)
    except BaseException as error:  # SystemExit included, and a KeyboardInterrupt that the code raises itself
        if isinstance(error, KeyboardInterrupt) and interrupted():
            raise
        failure = error
    right, of = (_parts.count(None), len(_parts) or 1) if failure is None else (0, 1)  # parts behind it are unknown
    error = next(filter(None, _parts), failure)  # the first one
    if error is None:
        return CheckResult(exercise_id, "passed", ("Right.",), parts=(of, of)), False
    if isinstance(error, CheckTimeout):
        text = f"Time: your code was {error}".replace(LOOPS, [LOOPS, *_slow_parts][-1])
        return CheckResult(exercise_id, "failed", (text,), timed_out=True), not error.waited
    if _is_stub(error):
        return CheckResult(exercise_id, "todo", (_text(error) or "Not written yet.",)), False
    message = str(error) if isinstance(error, CheckFailed) else describe_exception(error)
    message = with_advice(message, error, submission, printed)
    messages = (message, *[f"{right} of {of} parts of the check {'is' if right == 1 else 'are'} right."] * (right > 0))
    picture = vars(error).get("picture")
    picture = picture if type(picture) in KINDS.values() else None
    result = CheckResult(exercise_id, "failed", messages, parts=(right, of), picture=picture)
    return result, len(sys.modules) > modules


_slow_parts: list[str] = []  # advice of the parts of a check that are running or have been stopped


@contextlib.contextmanager
def on_timeout(look: str) -> Iterator[None]:
    """Say where to look if the time limit stops the code inside."""
    _slow_parts.append(look)
    yield
    _slow_parts.pop()  # not after an exception: `_run_once` may need it


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether somebody really pressed Ctrl-C or the stop button."""
    pressed = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread gets signals
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
    text = _text(error).split(", but expected one of:")[0]  # torch lists all it could have been given
    text = f"{type(error).__name__}: {textwrap.shorten(text, 300, placeholder=' ...')}".removesuffix(": ").rstrip(".")
    if place := students_line(error):
        return f"Error: your code raised {text}. Look at line {place[0]} of your cell, in {place[1]}: `{place[2]}`."
    return f"Error: calling your code raised {text}. Compare its arguments with the task."


def students_line(error: BaseException) -> tuple[int, str, str] | None:
    """The last line of the student's code that led to an error: its number, function and text."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_students(frame.filename):
            line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            return frame.lineno or 0, frame.name.strip("<>"), line
    return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # an exception class that the student wrote may fail here
        return ""


def _is_stub(error: BaseException) -> bool:
    """Whether a `raise` statement of the student's own code made this `NotImplementedError`.

    Libraries raise it, too: torch for what a dtype or device cannot do, in C and therefore at the student's line.
    There the last instruction of the student's code is a call or an operator. Passing such an error on with another
    `raise` leaves the end of its traceback as it is.
    """
    if not isinstance(error, NotImplementedError):
        return False
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    code = last.tb_frame.f_code
    return _is_students(code.co_filename) and code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _is_students(file: str) -> bool:
    """Whether a file's code is the student's, so neither this package's, nor an installed one's, nor Python's."""
    path = Path(file)
    ours = (PACKAGE, PACKAGE.with_name("workshop"), Path(contextlib.__file__).parent)
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
    """Restore global random states and torch's modes, whatever the code inside does to them.

    Inside, torch computes in one thread: two that wait for each other take many times as long on a busy machine.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (students' code may use it)
    torch = sys.modules.get("torch")
    if torch is not None:
        state, grad, dtype, threads = (
            torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(),
        )  # fmt: skip
        deterministic, device = torch.are_deterministic_algorithms_enabled(), torch.get_default_device()
        torch.set_num_threads(1)
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


class _Clock:
    """Says when the code that the current thread is about to run has had its time.

    Counted is the processor time of this one thread: it stands still while other programs run, and other threads of
    the kernel are not charged to the student. (Where a thread's time cannot be read from another one, on Windows and
    macOS, the watching thread counts that of the whole process.) Imports and compilers are not counted, up to 20 times
    the limit.

    Code that waits uses no processor time. It may do so for 10 times the limit, and 50 seconds for each second that it
    computes: this much a machine may be overloaded.
    """

    def __init__(self, seconds: float, waiting: float | None, processor_time: Callable[[], float]):
        self.seconds, self.waiting, self.processor_time = seconds, waiting or 10 * seconds, processor_time
        self.outside = sys._getframe(1)
        while self.outside.f_code.co_filename in (__file__, contextlib.__file__) and self.outside.f_back:
            self.outside = self.outside.f_back
        self.started, self.begin, self.counted = time.monotonic(), processor_time(), 0.0
        self.last = self.begin
        self.timeout: CheckTimeout | None = None

    def is_up(self, frame: types.FrameType | None) -> bool:
        """Whether time is up, now that the thread is in this frame. Once it is up, it stays so."""
        now = self.processor_time()
        if not self._is_first_use(frame):
            self.counted += now - self.last
        self.last, used, passed = now, now - self.begin, time.monotonic() - self.started
        if self.timeout is None:
            if self.counted > self.seconds:
                self.timeout = CheckTimeout(f"stopped after {self.seconds:g} seconds. {COMPUTED} {LOOPS}")
            elif used > 20 * self.seconds:
                self.timeout = CheckTimeout(f"stopped after {used:.0f} seconds of imports and compilation.")
            elif passed > self.waiting + 50 * used:
                text = f"stopped after {passed:.0f} seconds, of which it computed for {used:.1f}. {WAITED}{_busy()}"
                self.timeout = CheckTimeout(text)
                self.timeout.waited = True
        return self.timeout is not None

    def _is_first_use(self, frame: types.FrameType | None) -> bool:
        while frame is not None and frame is not self.outside:
            module = str(frame.f_globals.get("__name__"))
            if frame.f_code.co_filename.startswith("<frozen importlib") or f"{module}.".startswith(COMPILERS):
                return True
            frame = frame.f_back
        return False


def _busy() -> str:
    """A remark if more programs want to compute than there are processors."""
    load, processors = getattr(os, "getloadavg", lambda: (0.0,))()[0], os.cpu_count() or 1
    if load < 1.5 * processors:
        return ""
    return f" This machine is busy (load {load:.0f}, processors: {processors}): if yours waits for nothing, try later."


@contextlib.contextmanager
def time_limit(seconds: float | None, waiting: float | None = None) -> Iterator[None]:
    """Raise `CheckTimeout` in this thread if the code inside takes longer, again and again until it ends.

    Its text, such as "stopped after 1.6 seconds.", goes on with what to look for.

    Args:
        seconds: of processor time, without imports and compilation on first use; None if somebody else counts them.
        waiting: seconds that it may sleep or wait, about; None for 10 times the other.

    Where there are signals (main thread, on Linux and macOS) an alarm interrupts even a sleeping thread. Elsewhere a
    second thread sends the exception, which arrives at the next line of Python: it ends a loop, but not always one
    that catches everything. Neither ends a loop that runs in C without a line of Python, such as
    `sum(itertools.count())`: stop the kernel then (`course.py grade` ends the process).
    """
    if seconds is None:
        yield
        return
    alarm = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    processor_time = time.thread_time
    if not alarm:
        processor_time = time.process_time
        if hasattr(time, "pthread_getcpuclockid"):
            processor_time = partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))
    clock = _Clock(seconds, waiting, processor_time)
    try:
        with _alarm(clock) if alarm else _watching_thread(clock):
            yield
    except Exception:
        if clock.timeout is None:
            raise
    except CheckTimeout:
        pass
    else:
        return
    raise clock.timeout  # whatever the code made of the exceptions that it got


@contextlib.contextmanager
def _alarm(clock: _Clock) -> Iterator[None]:
    count = itertools.count()
    pauses = itertools.cycle([5e-6, 1e-5, 2e-5, 4e-5, 8e-5])
    running = True

    def is_ours(frame):  # this module must restore everything before it is stopped
        return not running or frame is None or frame.f_code.co_filename in (__file__, contextlib.__file__)

    def stop(number, frame):
        if is_ours(frame) or not clock.is_up(frame):
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
            signal.setitimer(signal.ITIMER_REAL, next(pauses), TICK)
            raise CheckTimeout
        return stop_at_line

    started, tracing = time.monotonic(), sys.gettrace()
    previous = signal.signal(signal.SIGALRM, stop)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, min(TICK, clock.seconds), TICK)
    try:
        yield
    finally:
        running = False
        sys.settrace(tracing)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if waiting:  # an alarm that was set before
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, waiting - (time.monotonic() - started)), interval)


@contextlib.contextmanager
def _watching_thread(clock: _Clock) -> Iterator[None]:
    thread, done = threading.get_ident(), threading.Event()
    # Uneven pauses do not fall into step with a loop, so that one exception may come while another is handled.
    pauses = [0, 0.05, *[2e-4, 7e-4, 3e-4, 1.1e-3, 5e-4] * 200]

    def watch():
        while not done.wait(min(TICK, clock.seconds)):
            if clock.is_up(sys._current_frames().get(thread)):
                break
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
