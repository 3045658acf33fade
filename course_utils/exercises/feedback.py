"""What a check says: its result, how the result looks in a notebook, and the words for what is wrong."""

from __future__ import annotations

import contextlib
import copy
import html
import io
import numbers
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from course_utils.display import framed, in_notebook, show_box
from course_utils.exercises.comparison import comparison, with_code
from course_utils.exercises.pictures import as_html, compared
from course_utils.exercises.registry import Exercise


@dataclass(frozen=True)
class CheckResult:
    """What a check found. The first message names the wrong property; `timed_out` if it took too long."""

    exercise_id: str
    status: Literal["passed", "failed", "todo"]
    messages: tuple[str, ...] = ()
    timed_out: bool = False
    parts: tuple[int, int] = (0, 1)  # how many parts of the check are right, and of how many
    picture: Any = field(default=None, compare=False, repr=False)  # of what is wrong, see `pictures`


class CheckFailed(Exception):
    """A property of the student's object is wrong; the text says which, what was found and what was expected."""

    finding = ""  # without advice
    found_none = False  # the student's code returned nothing
    picture = None


@contextlib.contextmanager
def check_part() -> Iterator[None]:
    """A part of a check: if it fails, the parts behind it run all the same, and the check fails at its end."""
    _parts.append(None)
    try:
        yield
    except Exception as error:  # not `CheckTimeout`, which ends the check
        _parts[-1] = error


_parts: list[Exception | None] = []  # how each part of the running check ended
# A symbol, a word and a colour each (Okabe and Ito's, dark enough for text on a light and on a dark page).
LOOKS = {
    "passed": ("✔", "passed", "#009E73"),
    "failed": ("✘", "not right yet", "#D55E00"),
    "todo": ("○", "to do", "#0072B2"),
}


def show_result(exercise: Exercise, result: CheckResult, kept: str = "", submission: Any = None) -> None:
    """Show the result of a check: a box in a notebook, plain text elsewhere.

    `kept` is the name under which the notebook keeps the student's object, if it does. A `submission` that passed can
    be compared with the course's code in the box.
    """
    symbol, word, colour = LOOKS[result.status]
    title = f"{symbol} Exercise {exercise.id}, {exercise.name}: {word}"
    messages = []
    if result.status != "passed":
        start = "Write yours" if result.status == "todo" else f"Yours is kept as `{kept}`; edit your cell"
        what_next = f"{start if kept else 'Edit your cell'}, run it, then run this check again."
        messages = [*result.messages, f"From here on the notebook uses the reference `{exercise.name}`. {what_next}"]
    content = (
        f"<strong>{html.escape(title)}</strong>"
        + "".join(f"<div>{with_code(message)}</div>" for message in messages)
        + (as_html(result.picture) if result.picture is not None and in_notebook() else "")
        + (comparison(exercise, submission) if result.status == "passed" and in_notebook() else "")
    )
    if result.picture is not None:
        messages.append(f"Picture: {result.picture.alt}")
    show_box(framed(content, colour, 'role="status"'), "\n  ".join([title, *messages]))


def fail(what: str, found: Any, expected: Any, look: str = "", picture: Any = None) -> None:
    """Raise `CheckFailed` with a text such as "Shape of the result: found (3,), expected (2,). Look here.".

    `picture` is one of those of `pictures`, or a function that makes it: what that raises means no picture.
    """
    found_text, expected_text = (value if isinstance(value, str) else shown(value) for value in (found, expected))
    finding = f"{what}: found {found_text}, expected {expected_text}."
    error = CheckFailed(f"{finding} {look}".strip())
    error.finding, error.found_none = finding, found is None
    with contextlib.suppress(Exception):
        error.picture = picture() if callable(picture) else picture
    raise error


def kind_of(value: Any) -> str | None:
    return None if value is None else type(value).__name__


def shown(value: Any) -> str:
    """A value of the student's as Python writes it, in at most 160 characters: a string has its quotes."""
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= 160 else text[:157] + "..."


def diagnosis(
    found: Sequence, expected: Sequence, suspects: dict[str, Any], rtol: float = 1e-4, cases: Sequence[Sequence] = ()
) -> str:
    """The advice of a suspected mistake, or an empty text.

    Args:
        found, expected: the student's value and the right one, in each of several cases.
        suspects: advice -> the value that this mistake gives in each case, or the function of a case that makes this
            mistake. One value that coincides proves nothing: all must be those found, and at least two of them wrong.
        cases: the arguments of such functions in each case.
    """
    for advice, values in suspects.items():
        values = [values(*case) for case in cases] if callable(values) else values
        pairs = list(zip(found, expected, values, strict=True))
        n_wrong = sum(not _equal(right, value, rtol) for _, right, value in pairs)
        if n_wrong > 1 and all(_equal(value, own, rtol) for own, _, value in pairs):
            return advice
    return ""


def expect_all_close(
    whats: Sequence[str], found: Sequence, expected: Sequence, suspects: dict[str, Any],
    looks: Sequence[str], tolerance: float = 1e-5, cases: Sequence[Sequence] = (),
) -> None:  # fmt: skip
    """The values of several cases are right; else the advice is that of a suspect, or what fits to the first case."""
    advice = diagnosis(found, expected, suspects, cases=cases)
    for number, (what, value, right, look) in enumerate(zip(whats, found, expected, looks, strict=True)):
        expect_close(what, value, right, advice or look, tolerance, input=cases[number][0] if cases else None)


def advice_for(found: Any, suspects: dict[str, Any], otherwise: str, tolerance: float = 1e-5) -> str:
    """The advice of the first mistake whose one value, advice -> value, is the one found."""
    return next((advice for advice, value in suspects.items() if _equal(found, value, 0, tolerance)), otherwise)


def _equal(a: Any, b: Any, rtol: float, atol: float = 1e-8) -> bool:
    a, b = _array(a), _array(b)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=atol))


def expect_callable(submission: Any, name: str) -> None:
    """The submission is a function or a class."""
    if not callable(submission):
        fail(f"Kind of {name}", type(submission).__name__, "a function", f"Pass {name} itself, not its result.")


def expect_shape(what: str, value: Any, expected: tuple, look: str = "") -> None:
    if value is None:
        fail(f"Value of {what}", None, f"an array of shape {tuple(expected)}")
    found = tuple(getattr(value, "shape", ()))
    if found != tuple(expected):
        fail(f"Shape of {what}", found, tuple(expected), look)


def expect_type(what: str, value: Any, expected: type | tuple[type, ...], look: str = "") -> None:
    if not isinstance(value, expected):
        kinds = expected if isinstance(expected, tuple) else (expected,)
        fail(f"Type of {what}", kind_of(value), " or ".join(kind.__name__ for kind in kinds), look)


def expect_float(what: str, value: Any, expected: str = "float") -> None:
    """A Python float. NumPy's float64 is one, its float32 and a tensor are not."""
    if not isinstance(value, float):
        kind = type(value)
        owner = "NumPy's" if kind.__module__ == "numpy" else "torch's"
        look = f"{owner} {kind.__name__} is not one: convert it with float(...) or .item()."
        look = look if getattr(value, "shape", None) == () else ""
        fail(f"Type of {what}", kind_of(value), expected, look)


def expect_python_float(name: str, value: Any) -> None:
    """A float that is not one of NumPy's: its float64 is a subclass."""
    if type(value) is not float:
        full_name = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        fail(f"Type of the {name}", full_name, "a Python float", "Convert the number at the end.")


def expect_whole_number(what: str, value: Any) -> None:
    """An int, or a whole number of one of NumPy's types."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        fail(f"Type of {what}", kind_of(value), "int", "Return one whole number, as int(...) makes it.")


def expect_pair(what: str, value: Any, names: str) -> None:
    """A tuple or a list of two things, whose `names` are given as in "(mean, std)"."""
    if not isinstance(value, (tuple, list)):
        fail(f"Type of {what}", kind_of(value), f"a tuple {names}")
    if len(value) != 2:
        fail(f"Type of {what}", f"{kind_of(value)} of {len(value)}", f"a tuple {names}")


def expect_dtype(what: str, value: Any, expected: Any, look: str = "") -> None:
    if value.dtype != expected:
        fail(f"dtype of {what}", str(value.dtype), getattr(expected, "__name__", str(expected)), look)


def expect_close(
    what: str, value: Any, expected: Any, look: str = "", tolerance: float = 1e-5,
    picture: Any = None, input: Any = None,
) -> None:  # fmt: skip
    """Numbers or arrays are equal up to rounding; the message names the first place where they differ.

    Without another `picture` arrays are drawn beside the `input`, if it is given.
    """
    if value is None:
        fail(f"Value of {what}", None, expected, look)
    found_array, expected_array = _array(value), _array(expected)
    if found_array.shape != expected_array.shape:
        fail(f"Shape of {what}", found_array.shape, expected_array.shape, look)
    close = np.isclose(found_array, expected_array, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return
    if close.ndim == 0:
        fail(f"Value of {what}", round(float(found_array), 6), round(float(expected_array), 6), look)
    place = tuple(int(index) for index in np.argwhere(~close)[0])
    picture = picture or compared(what, found_array, expected_array, input, tolerance=tolerance)
    found, right = (f"{array[place]:.6g}" if array.dtype.kind == "f" else array[place].item()
                    for array in (found_array, expected_array))  # fmt: skip
    fail(f"Value of {what} at {place}", found, right, look, picture)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().float() if value.dtype.is_floating_point else value.detach().cpu()
    return np.asarray(value)


def expect_error(
    what: str, call: Callable[[], Any], names: tuple[str, ...] = (), look: str = "", expected: str = "a ValueError"
) -> str:
    """The call raises a `ValueError` whose text contains all of `names`; returns the text."""
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            result = call()
    except ValueError as error:
        missing = [name for name in names if name not in str(error)]
        if missing:
            fail(f"Error message for {what}", repr(str(error)), f"a text that names {' and '.join(missing)}", look)
        return str(error)
    except NotImplementedError:
        raise
    except AssertionError as error:
        found = " ".join(f"AssertionError: {error}".split()).rstrip(":.")
        look = "An `assert` is not enough: python -O leaves it out. Write `if ...: raise ValueError(...)`."
    except Exception as error:
        found = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":.")[:160]
    else:
        found = "no error"
        if isinstance(result, Exception):
            found, look = f"the error {shown(result)} as a result", "Write `raise` in place of `return`."
        elif printed := output.getvalue().strip():
            found = f'no error, but "{printed[:80]}" printed'
            look = "`print` does not stop the program: `raise ValueError(...)` does."
    fail(what, found, expected, look)


@contextlib.contextmanager
def untouched(**arguments: Any) -> Iterator[None]:
    """The code inside leaves its arguments (arrays, tensors, lists of them) as they were."""
    before = copy.deepcopy(arguments)
    yield
    for name, value in arguments.items():
        if not _same(value, before[name]):
            raise CheckFailed(f"Mutation: your code changed its argument {name}, which must not change. Use a copy.")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "shape"):
        floats = _array(a).dtype.kind == "f"
        return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(_array(a), _array(b), equal_nan=floats)
    return a == b


def expect_label_image(what: str, value: Any, shape: tuple[int, int]) -> None:
    """An integer array of this shape without negative numbers."""
    look = "Return the label image alone." if isinstance(value, tuple) else ""
    if isinstance(value, (int, np.integer)):
        look = "Return the label image, not the number of its instances."
    expect_type(what, value, np.ndarray, look)
    expect_shape(what, value, shape)
    if value.dtype.kind not in "iu":
        look = "A mask is not yet labelled: each region needs an id." if value.dtype == bool else ""
        fail(f"dtype of {what}", str(value.dtype), "an integer type", look)
    if value.size and value.min() < 0:
        fail(f"Range of {what}", f"the id {value.min()}", "0 for the background and ids above it")


def expect_room_for_ids(what: str, labels: Any, number: int) -> None:
    """The type of a label image has room for this number of ids."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and np.iinfo(labels.dtype).max < number:
        look = f"{labels.dtype} has no ids above {np.iinfo(labels.dtype).max}: leave the type as the library gives it."
        fail(what, len(np.unique(labels[labels != 0])), number, look)
