"""A call of the student's object: asked by the judge (`Calls`), made in the box (`answer`).

The box trusts the judge, so arguments are pickled. What comes back are plain values (`values`): the result, what the
call did to its arguments and to the random states, what was printed, or the exception with the line of the student's
code. In the judge it all looks as if the call had been made there, so that the checks of the course and
their messages need not know.

The answer is a dict with

    "value"      the packed result; or
    "error"      {"exception", "line", "function", "text" (of the line), "stub" (it says that the exercise is to do)}
    "timeout"    the text of the `CheckTimeout`, and "waited"
    "after"      {number of a part of the arguments: packed content}, of those that were changed
    "random"     the random states, if they were changed
    "printed", "seconds" (of processor time), "cold" (modules were imported), "peak" (bytes, if memory is traced)
"""

from __future__ import annotations

import contextlib
import io
import linecache
import pickle
import random
import sys
import time
import tracemalloc
import types
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from course_utils.exercises import sandbox
from course_utils.exercises.feedback import CheckFailed
from course_utils.exercises.sandbox import TIME_LIMIT, CheckTimeout
from workshop.grade.judge.values import is_tensor, pack, unpack

ATOMS = (type(None), bool, int, float, complex, str, bytes, type, np.generic)
MAX_LINE = 100_000
MAX_TEXT = 300  # characters
MAX_PEAK = 2**31
MAX_PRINTED = 2000  # characters


def parts_of(arguments: Any) -> list[Any]:
    """The objects inside these arguments that have an identity: containers, arrays, tensors, generators, others.

    The order is the same for a copy that was made by pickling.
    """
    found: dict[int, Any] = {}

    def walk(value: Any) -> None:
        if isinstance(value, ATOMS) or id(value) in found:
            return
        if type(value) is not tuple:
            found[id(value)] = value
        if isinstance(value, (list, tuple)):
            inside = value
        elif isinstance(value, dict):
            inside = [*value.values()]
        else:
            inside = vars(value).values() if isinstance(value, SimpleNamespace) else ()
        for one in inside:
            walk(one)

    walk(arguments)
    return list(found.values())


def content_of(part: Any) -> Any:
    """What can change inside one of the `parts_of` arguments, as a value that can be packed."""
    if isinstance(part, (list, set)):
        return [*part]
    if isinstance(part, dict):
        return [*part.items()]
    if isinstance(part, np.ndarray):
        return part[...]
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    if is_tensor(part):
        return part.detach()
    return [*vars(part).items()] if isinstance(part, SimpleNamespace) else None


def restore(part: Any, content: Any) -> None:
    """Give a part the content that its copy has. Raises `ValueError` if that does not fit."""
    try:
        if isinstance(part, list):
            part[:] = content
        elif isinstance(part, (set, dict, SimpleNamespace)):
            inside = vars(part) if isinstance(part, SimpleNamespace) else part
            inside.clear()
            inside.update(content)
        elif isinstance(part, np.ndarray):
            if part.shape != content.shape:
                part.shape = content.shape
            if part.dtype != content.dtype:
                part.dtype = content.dtype
            part[...] = content
        elif isinstance(part, np.random.Generator):
            part.bit_generator.state = content
        elif is_tensor(part):
            part.data = content
    except Exception as error:
        raise ValueError(f"This is not the content of {type(part).__name__}: {error}"[:MAX_TEXT]) from None


# In the box


def answer(function: Callable, message: dict) -> dict:
    """Make the call that `Calls` asks for, within its time; never raises."""
    arguments, options, states = pickle.loads(message["call"])
    if states is not None:
        set_random_states(states)
    known = parts_of((arguments, options))
    before, states, modules = _packed(known), random_states(), len(sys.modules)
    seconds, printed, found, peak = message["seconds"], io.StringIO(), {}, [0]
    started, used = _THREAD_TIME(), 0.0
    try:
        with (sandbox.silence() as printed, _traced(message["traced"]) as peak,
              sandbox.time_limit(seconds, 10 * TIME_LIMIT)):  # fmt: skip
            started = _THREAD_TIME()  # some checks compare times below a millisecond
            try:
                value = function(*arguments, **options)
            finally:
                used = _THREAD_TIME() - started
    except CheckTimeout as error:
        text = str(error).replace(f"after {seconds:g} seconds", f"after {TIME_LIMIT:g} seconds", 1)
        found = {"timeout": text, "waited": error.waited}
    except BaseException as error:  # SystemExit included
        found = {"error": _described(error)}
    used = used or _THREAD_TIME() - started
    try:
        after = {} if "timeout" in found else _packed(known)
        found = found or {"value": pack(value, known)}
    except Exception as error:
        after, found = {}, {"error": _described(ValueError(f"The result cannot be compared: {error}"))}
    now = random_states()
    return {
        **found, "printed": printed.getvalue()[-MAX_PRINTED:], "seconds": used, "cold": len(sys.modules) > modules,
        "after": {number: content for number, content in after.items() if content != before[number]},
        "random": None if _same_states(now, states) else now, "peak": peak[0],
    }  # fmt: skip


def _packed(known: list) -> dict[int, bytes]:
    return {number: pack(content_of(part), known) for number, part in enumerate(known)}


@contextlib.contextmanager
def _traced(wanted: bool) -> Iterator[list[int]]:
    """Yield a list that afterwards contains the peak of the bytes that were allocated inside, if that is wanted."""
    peak = [0]
    if wanted:
        tracemalloc.start()
    try:
        yield peak
    finally:
        if wanted:
            peak[0] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


def _described(error: BaseException) -> dict:
    """What the judge needs to raise this exception as it was raised here."""
    described = {"exception": error, "line": 0, "function": "", "text": "", "stub": sandbox._is_stub(error)}
    if place := sandbox.students_line(error):
        line, function, text = place
        described |= {"line": line, "function": function, "text": text[:MAX_PRINTED]}
    return described


# In the judge


class Calls:
    """Calls of one object during one check, as if it was here."""

    def __init__(self, ask: Callable[[dict], dict]):
        self.ask, self.lines, self.sent = ask, set(), None
        self.begin()

    def begin(self) -> None:
        """The check begins (again): its time counts from here."""
        self.seconds, self.clock, self.cold, self.timed = 0.0, 0.0, False, False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The result of the student's object. Raises what it raised, `CheckTimeout`, or what `ask` raises."""
        entered = _THREAD_TIME() if self.timed else 0.0
        arguments = tuple(_resendable(one) for one in arguments)
        known, states = parts_of((arguments, options)), random_states()
        changed = self.sent is None or not _same_states(states, self.sent)
        message = {
            "call": pickle.dumps((arguments, options, states if changed else None), protocol=5),
            "seconds": max(TIME_LIMIT - self.seconds, 0.01), "traced": tracemalloc.is_tracing(),
        }  # fmt: skip
        reply = self.ask(message)
        if "after" not in reply:  # its cell has ended meanwhile
            raise CheckFailed(str(reply.get("error") or "Answers: the code did not answer a call.")[:MAX_PRINTED])
        self.sent = states
        if reply.get("random") is not None:
            set_random_states(reply["random"])
            self.sent = random_states()
        for number, content in dict(reply["after"]).items():
            restore(known[number], unpack(content, known))
        if message["traced"]:
            np.empty(min(int(reply["peak"]), MAX_PEAK), dtype=np.uint8)  # for the peak that the check measures
        print(str(reply["printed"])[:MAX_PRINTED], end="")
        used = min(max(float(reply["seconds"]), 0.0), 100.0)
        self.cold |= bool(reply["cold"])
        self.seconds += 0 if reply["cold"] else used  # imports on first use are free
        value = unpack(reply["value"], known) if "value" in reply else None
        if self.timed:
            self.clock += used - (_THREAD_TIME() - entered)
        if "timeout" in reply:
            timeout = CheckTimeout(str(reply["timeout"])[:MAX_PRINTED])
            timeout.waited = bool(reply["waited"])
            raise timeout
        if "error" in reply:
            self._raise(**reply["error"])
        return value

    @contextlib.contextmanager
    def clocks(self) -> Iterator[None]:
        """Inside, `time.thread_time` counts what the object computes in the box, and not what is needed to ask it."""

        def thread_time() -> float:
            self.timed = True
            return _THREAD_TIME() + self.clock

        time.thread_time = thread_time
        try:
            yield
        finally:
            time.thread_time = _THREAD_TIME
            for file in self.lines:
                linecache.cache.pop(file, None)

    def _raise(self, exception: BaseException, line: int, function: str, text: str, stub: bool) -> None:
        """Raise an exception from a line that has the number, the function and the text of the student's."""
        if not isinstance(exception, BaseException):
            raise ValueError("not an exception")
        if not 0 < line < MAX_LINE:
            raise exception
        file = f"<student {line} {text}>"
        linecache.cache[file] = (len(text), None, [*[""] * (line - 1), f"{text}\n"], file)
        self.lines.add(file)
        code = (_raising if stub else _calling).__code__
        code = code.replace(co_filename=file, co_name=function, co_qualname=function, co_firstlineno=line - 1)
        types.FunctionType(code, {"_raising": _raising})(exception)


def _raising(error):
    raise error


def _calling(error):
    _raising(error)


def _resendable(argument: Any) -> Any:
    """An iterator over the same items that can be pickled, in place of a generator."""
    return iter([*argument]) if isinstance(argument, types.GeneratorType) else argument


# On both sides

_THREAD_TIME = time.thread_time


def random_states() -> tuple:
    """The states of the global generators of Python, NumPy and torch."""
    torch = sys.modules.get("torch")
    state = b"" if torch is None else torch.get_rng_state().numpy().tobytes()
    return random.getstate(), np.random.get_state(), state  # noqa: NPY002 (students' code may use it)


def set_random_states(states: tuple) -> None:
    python, numpy, state = states
    try:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if state and "torch" in sys.modules:
            torch = sys.modules["torch"]
            torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    except Exception as error:
        raise ValueError(f"These are not random states: {error}") from None


def _same_states(first: tuple, second: tuple) -> bool:
    numpy, other = ((states[1][0], states[1][1].tobytes(), *states[1][2:]) for states in (first, second))
    return first[0] == second[0] and first[2] == second[2] and numpy == other
