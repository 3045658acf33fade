"""What the arguments of the course's functions must be: a name means the same in every function.

`check_arguments(image=image, size=size)` raises a `ValueError` unless `image` is what an image must be, and `size` what
a size must be. The message says which argument is wrong, what it must be, and what was found.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_WHOLE = (int, np.int32, np.int64)  # with other dtypes, 500 - np.uint8(4) overflows
# names, what they must be, the kinds of dtype of an array or the type of a number, and which values are right
_TABLE = (
    ("image grey reference probability foreground boundary", "an array of numbers", "biuf", lambda v: True),
    ("mask", "a label image of integers, with 0 on the background and no negative ids", "biu",
     lambda v: np.asarray(v).min(initial=0) >= 0),
    ("labels prediction truth", "a label image of integers, with 0 on the background and no negative ids", "iu",
     lambda v: np.asarray(v).min(initial=0) >= 0),
    ("iou", "a matrix of overlaps from 0 to 1", "f", lambda v: (v >= 0) & (v <= 1 + 1e-6)),
    ("classes", "a target of the classes 0, 1, 2", "biu", lambda v: (v >= 0) & (v <= 2)),
    ("size crop_size min_size multiple every tile min_distance in_channels out_channels base_channels batch_size side "
     "crops_per_epoch epochs rows columns n_classes repeats", "a whole number of at least 1", _WHOLE,
     lambda v: 1 <= v < 2**31),
    ("margin min_area depth workers seed", "a whole number of at least 0", _WHOLE, lambda v: 0 <= v < 2**31),
    ("percentile", "a number from 0 to 100", numbers.Real, lambda v: 0 <= v <= 100),
    ("threshold mean score other_score", "a finite number", numbers.Real, math.isfinite),
    ("pixel_size", "a number above 0 and at most 1000000", numbers.Real, lambda v: 0 < v <= 1e6),
    ("std learning_rate diameter data_range factor", "a finite number above 0", numbers.Real,
     lambda v: 0 < v < np.inf),
    ("zoom", "a number from 1 to 16", numbers.Real, lambda v: 1 <= v <= 16),
    ("sigma", "a number from 0 to 1000", numbers.Real, lambda v: 0 <= v <= 1000),
    ("iou_threshold level", "a number above 0 and at most 1", numbers.Real, lambda v: 0 < v <= 1),
    ("mode", "'inner', 'outer' or 'thick'", str, lambda v: v in ("inner", "outer", "thick")),
    ("model", "a torch.nn.Module with parameters", object,
     lambda v: hasattr(v, "parameters") and len(list(v.parameters())) > 0),
    ("rng", "a generator of random numbers, as from np.random.default_rng(0)", np.random.Generator, lambda v: True),
)  # fmt: skip
_RULES = {name: rule for names, *rule in _TABLE for name in names.split()}
_SINGULAR = {name[:-1] + "ies" if name.endswith("y") else name + "s": name for name in _RULES}


def check_arguments(*, ndim: int | None = 2, values: bool = True, least: int = 0, **arguments) -> None:
    """Check that arguments are what their names say.

    Args:
        ndim: dimensions of each array; None for any.
        values: whether dtype and values of arrays must be those of the name, all of them finite. If not, any numbers
            are allowed, which takes no time to check.
        least: how many items a list must have at least.
        arguments: by name. Arrays must have the same shape. A name in the plural is a list of such arguments; several
            lists must have the same length, and their first arrays the same shape, and their second.

    Raises:
        ValueError: an argument is something else; the message says which and what was found.

    >>> check_arguments(prediction=np.array([[0.2]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: prediction must be a label image of integers, ... but has dtype float64: label it first.
    """
    lists = {name: value for name, value in arguments.items() if name in _SINGULAR}
    for name, value in lists.items():
        if not isinstance(value, Collection) or getattr(value, "ndim", 1) == 0:  # an iterator can be read only once
            raise ValueError(f"{name} must be a list, but is of type {type(value).__name__}.")
        if len(value) < least:
            raise ValueError(f"{name} must hold at least {least}, but is empty.")
    _check_equal("length", {name: len(value) for name, value in lists.items()})
    # what belongs together: the name to show, the one in the table, the value
    groups = [[(name, name, value) for name, value in arguments.items() if name not in lists]]
    for index, values_here in enumerate(zip(*lists.values(), strict=True)):
        names = zip(lists, values_here, strict=True)
        groups.append([(f"{name}[{index}]", _SINGULAR[name], value) for name, value in names])
    for group in groups:
        for shown, name, value in group:
            _check(shown, value, _RULES[name], ndim, values)
        _check_equal("shape", {shown: value.shape for shown, name, value in group if isinstance(_RULES[name][1], str)})


def as_list(**argument) -> list:
    """The items of one argument, given by its name, as a list: a generator can be read only once.

    Raises:
        ValueError: it cannot be read.

    >>> as_list(images=(i for i in range(3)))
    [0, 1, 2]
    """
    ((name, value),) = argument.items()
    if not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise ValueError(f"{name} must be a list, but is of type {type(value).__name__}.")
    return list(value)


def check_crop_fits(images: list[np.ndarray], crop_size: int) -> None:
    """Check that no image `(H, W)` is smaller than a square crop.

    Raises:
        ValueError: one is; the message names it and both sizes.
    """
    for index, image in enumerate(images):
        if min(image.shape) < crop_size:
            height, width = image.shape
            raise ValueError(
                f"Image {index} is {height} x {width} pixels, smaller than the crop of {crop_size} x {crop_size}. "
                "Choose a smaller crop_size or pad the image first."
            )


def _check_equal(what: str, found: dict[str, object]) -> None:
    if len(set(found.values())) > 1:
        differing = " and ".join(map(str, found.values()))
        raise ValueError(f"{' and '.join(found)} must have the same {what}, but have {differing}.")


def _check(name: str, value, rule: list, ndim: int | None, values: bool) -> None:
    what, kinds, is_right = rule
    found = None
    if not isinstance(kinds, str):
        statistic = name in ("mean", "std") and isinstance(value, np.ndarray) and value.ndim == 0
        number = value.item() if statistic else value
        if isinstance(number, bool) or not isinstance(number, kinds) or not is_right(number):
            found = f"is {value!r}" + (": make it an int first" if isinstance(value, np.integer) else "")
    elif not isinstance(value, np.ndarray) or isinstance(value, (np.ma.MaskedArray, np.matrix)):
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


def check_logits(logits: Tensor, target: Tensor, ndim: int | None = None, largest: int = 1) -> None:
    """Check that a loss or score gets float logits, and a target with values from 0 to `largest`.

    On a GPU the values are looked at where no gradient is computed only: training would have to wait for them.

    Raises:
        ValueError: they are something else, or hold nothing, or the logits do not have `ndim` dimensions.
    """
    import torch  # only who has tensors has loaded it

    if not (torch.is_tensor(logits) and logits.is_floating_point() and torch.is_tensor(target)) or target.is_complex():
        found = " and ".join(str(getattr(value, "dtype", type(value).__name__)) for value in (logits, target))
        raise ValueError(f"logits must be a tensor of floats, and target a tensor of numbers, but they are {found}.")
    if ndim not in (None, logits.ndim) or logits.numel() == 0 or target.numel() == 0:
        shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
        raise ValueError(f"logits and target must have {ndim or 'any'} dimensions and hold pixels, but have {shapes}.")
    if target.device.type == "cpu" or not torch.is_grad_enabled():
        _check_values(target, largest)


def _check_values(target: Tensor, largest: int) -> None:
    values = target if target.is_floating_point() else target.long()  # uint16 has no minimum
    low, high = values.min().item(), values.max().item()
    if not 0 <= low <= high <= largest:
        raise ValueError(f"target must have values from 0 to {largest}, but they are from {low} to {high}.")


def check_finite(value: float, what: str, look: str = "the images and targets of a batch") -> None:
    """Stop a training whose loss, or something else that is named, is no number any more.

    Raises:
        FloatingPointError: the value is NaN or infinite.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f"The training stopped: in {what} is {value}. Try a lower learning rate first; then look at {look}, for "
            "NaN and huge values; at the loss function, for a logarithm or a division that meets 0; or train with "
            "precision=torch.float32."
        )


def check_targets(targets: list[Tensor], n_classes: int) -> None:
    """Check that targets are tensors of integers from 0 to `n_classes` - 1, at least one pixel.

    Raises:
        ValueError: they are something else, or `n_classes` is no number of classes.
    """
    check_arguments(n_classes=n_classes)
    for target in targets:
        found = getattr(target, "dtype", type(target).__name__)
        if not hasattr(target, "is_floating_point") or target.is_floating_point() or target.is_complex():
            raise ValueError(f"targets must be tensors of integers, but one is of {found}.")
        if target.numel():
            _check_values(target, n_classes - 1)
    if not any(target.numel() for target in targets):
        raise ValueError("targets hold no pixels: pass at least one target.")


def check_class_logits(logits: Tensor, target: Tensor, n_classes: int | None = 3) -> None:
    """`check_logits` for logits `(N, C, H, W)` and a target `(N, H, W)` of the classes 0 to C - 1; else a `ValueError`.

    Args:
        n_classes: the number of classes C; None for any from 2.
    """
    if n_classes is None:
        n_classes = max(2, logits.shape[1]) if getattr(logits, "ndim", 0) == 4 else 2
    check_logits(logits, target, ndim=4, largest=n_classes - 1)
    if logits.shape != (*target.shape[:1], n_classes, *target.shape[1:]) or target.is_floating_point():
        shapes = f"{tuple(logits.shape)} and {tuple(target.shape)} of {target.dtype}"
        raise ValueError(f"logits (N, {n_classes}, H, W) and target (N, H, W) of integers must fit, but have {shapes}.")
