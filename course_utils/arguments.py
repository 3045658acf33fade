"""What the arguments of the course's functions must be: a name means the same in every function.

`check_arguments(image=image, size=size)` raises a `ValueError` unless `image` is what an image must be, and `size` what
a size must be. The message says which argument is wrong, what it must be, and what was found.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection

import numpy as np

# names, what they must be, the kinds of dtype of an array or the type of a number, and which values are right
_TABLE = (
    ("image probability foreground boundary", "an array of numbers", "biuf", lambda v: True),
    ("mask", "a label image of integers, with 0 on the background and no negative ids", "biu", lambda v: v >= 0),
    ("labels prediction truth", "a label image of integers, with 0 on the background and no negative ids", "iu",
     lambda v: v >= 0),
    ("iou", "a matrix of overlaps from 0 to 1", "f", lambda v: (v >= 0) & (v <= 1)),
    ("size crop_size multiple every tile min_distance", "a whole number of at least 1", numbers.Integral,
     lambda v: v >= 1),
    ("margin min_area depth", "a whole number of at least 0", numbers.Integral, lambda v: v >= 0),
    ("percentile", "a number from 0 to 100", numbers.Real, lambda v: 0 <= v <= 100),
    ("threshold mean", "a finite number", numbers.Real, np.isfinite),
    ("std", "a finite number above 0", numbers.Real, lambda v: 0 < v < np.inf),
    ("sigma", "a finite number of at least 0", numbers.Real, lambda v: 0 <= v < np.inf),
    ("iou_threshold", "a number above 0 and at most 1", numbers.Real, lambda v: 0 < v <= 1),
    ("mode", "'inner', 'outer' or 'thick'", str, lambda v: v in ("inner", "outer", "thick")),
    ("model", "a torch.nn.Module with parameters", object,
     lambda v: hasattr(v, "parameters") and len(list(v.parameters())) > 0),
    ("rng", "a generator of random numbers, as from np.random.default_rng(0)", np.random.Generator, lambda v: True),
)  # fmt: skip
_RULES = {name: rule for names, *rule in _TABLE for name in names.split()}
_SINGULAR = {name[:-1] + "ies" if name.endswith("y") else name + "s": name for name in _RULES}


def check_arguments(*, ndim: int | None = 2, values: bool = True, **arguments) -> None:
    """Check that arguments are what their names say.

    Args:
        ndim: dimensions of each array; None for any.
        values: whether dtype and values of arrays must be those of the name, all of them finite. If not, any numbers
            are allowed, which takes no time to check.
        arguments: by name. Arrays must have the same shape. With a name in the plural, a list of such arguments; lists
            of arrays must have the same length.

    Raises:
        ValueError: an argument is something else; the message says which and what was found.

    >>> check_arguments(prediction=np.array([[0.2]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: prediction must be a label image of integers, ... but has dtype float64: label it first.
    """
    shapes, lengths = {}, {}
    for name, value in arguments.items():
        if name in _SINGULAR:
            if not isinstance(value, Collection) or getattr(value, "ndim", 1) == 0:  # an iterator can be read only once
                raise ValueError(f"{name} must be a list, but is of type {type(value).__name__}.")
            for index, one in enumerate(value):
                _check(f"{name}[{index}]", one, _RULES[_SINGULAR[name]], ndim, values)
            if isinstance(_RULES[_SINGULAR[name]][1], str):
                lengths[name] = len(value)
        else:
            _check(name, value, _RULES[name], ndim, values)
            if isinstance(_RULES[name][1], str):  # an array
                shapes[name] = value.shape
    for what, sizes in (("shape", shapes), ("length", lengths)):
        if len(set(sizes.values())) > 1:
            found = " and ".join(map(str, sizes.values()))
            raise ValueError(f"{' and '.join(sizes)} must have the same {what}, but have {found}.")


def _check(name: str, value, rule: list, ndim: int | None, values: bool) -> None:
    what, kinds, is_right = rule
    found = None
    if not isinstance(kinds, str):
        number = value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value
        if isinstance(number, bool) or not isinstance(number, kinds) or not is_right(number):
            found = f"is {value!r}"
    elif not isinstance(value, np.ndarray):
        found = f"is of type {type(value).__name__}: make it a NumPy array first"
    elif ndim is not None and value.ndim != ndim:
        found = f"has shape {value.shape}, which is not {ndim}-dimensional"
    elif value.dtype.kind not in (kinds if values else "biuf"):
        found = f"has dtype {value.dtype}" + (": label it first" if what.startswith("a label") else "")
    elif value.size == 0 and ndim == 2 and "b" in kinds:  # images and their masks
        found = f"has shape {value.shape}: no pixels"
    elif not values:
        return
    elif value.dtype.kind == "f" and (n := np.count_nonzero(~np.isfinite(value))):
        found = f"has {n} values that are NaN or infinite"
    elif not np.all(is_right(value)):
        found = f"has values from {value.min()} to {value.max()}"
    if found:
        raise ValueError(f"{name} must be {what}, but {found}.")
