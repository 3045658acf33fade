"""Slips that students make in any exercise: a sentence about each, to go behind the message of a check."""

from __future__ import annotations

import inspect
import re
import traceback
from difflib import SequenceMatcher
from typing import Any

LIBRARIES = ("builtins", "torch", "typing", "abc")
NO_SUPER = r"before Module\.__init__\(\) call|no attribute '_(parameters|buffers|modules|\w+_hooks)'"
OF_LIBRARIES = {  # what their errors say, and what to do in an exercise
    r"not implemented for 'UInt\d+'":
        "Torch can do little with unsigned integers: compare in NumPy, or convert to int64 first.",
    r"inhomogeneous shape": "Images of different sizes do not fit into one array: go through them one by one.",
    r"truth value of an array":
        "`if`, `in` and `not` need one truth value, and a comparison of arrays gives one for each element.",
    r"^(high <= 0|low >= high)": "`rng.integers(low, high)` never draws `high`. How many positions are there?",
    r"^division by zero$": "Which case makes the denominator 0? The task says what the result is then.",
    r"should implement __getitem__": "The class needs a method __getitem__, indented as far as __init__ is.",
    r"^tuple index out of range$": "A shape has one number for each axis, and not every array has as many axes.",
    r"'generator' (object )?has no": "The loader may be any iterable, even one without a length: count in the loop.",
    r"NVIDIA|CUDA": "Not every computer has a GPU: use the device of the model's parameters.",
    r"(got|found) \(?(ReLU|Sigmoid|MaxPool2d|AvgPool2d|Conv2d|ConvTranspose2d)\b|^(ReLU|Sigmoid)\.__init__\(\) takes":
        "A layer is made first, and then called with its input: two pairs of brackets.",
    r"on Tensor that requires grad": "No gradients are needed: let the model work inside `with torch.no_grad():`.",
}  # fmt: skip
NO_RETURN = "A function returns None if it ends without `return`; `print` only shows a value."


def advice(error: BaseException, submission: Any, printed: str) -> str:
    """What probably led to the failure of a check, or an empty text.

    Args:
        error: the exception that ended the check.
        submission: the student's object.
        printed: what the student's code printed during the check.
    """
    text = str(error)
    no_forward = 'missing the required "forward" function' in text
    kind = submission
    if no_forward:  # of this class or of another one that it uses
        frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
        kind = type(frame.f_locals.get("self"))
    methods = _own_methods(kind) if isinstance(kind, type) else {}
    for name, right in _misspelt(kind, methods):
        return f"The class {kind.__name__} has a method {name}: is {right} meant?"
    if no_forward:
        return f"The class {kind.__name__} needs a method forward, indented as far as __init__ is."
    if re.search(NO_SUPER, text):
        return "Call super().__init__() in the first line of __init__."
    if named := re.search(r"(\w+)\(\) takes \d+ positional arguments? but", text):
        firsts = {name: m.__code__.co_varnames[:1] for name, m in methods.items() if inspect.isfunction(m)}
        first = firsts.pop(named[1], ("self",))
        if first != ("self",) and first not in firsts.values():
            return f"The first parameter of the method {named[1]} is self."
    if getattr(error, "found_none", False) and printed.strip():
        shown = " ".join(printed.split())
        shown = shown if len(shown) <= 80 else "..." + shown[-77:]
        return f'Your code printed "{shown}": `print` only shows a value, `return` hands it over.'
    if getattr(error, "found_none", False) or (isinstance(error, (TypeError, AttributeError)) and "NoneType" in text):
        return NO_RETURN
    return next((sentence for pattern, sentence in OF_LIBRARIES.items() if re.search(pattern, text)), "")


def _own_methods(kind: type) -> dict[str, Any]:
    """What the student's classes define, without what they inherit from a library."""
    own = [vars(parent) for parent in reversed(kind.__mro__) if not parent.__module__.startswith(LIBRARIES)]
    return {name: value for names in own for name, value in names.items()}


def _misspelt(kind: Any, methods: dict[str, Any]) -> list[tuple[str, str]]:
    """Names that are nearly those of methods which torch calls and the class lacks, with the right names."""
    parents = {parent.__name__ for parent in kind.__mro__} if methods else set()
    names = ["__init__", *["forward"] * ("Module" in parents), *["__len__", "__getitem__"] * ("Dataset" in parents)]
    return [
        (name, right)
        for right in names if right not in methods
        for name, value in methods.items()
        if inspect.isfunction(value)
        and SequenceMatcher(None, name.strip("_").lower(), right.strip("_")).ratio() > 0.8
    ]  # fmt: skip
