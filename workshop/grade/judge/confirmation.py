"""Whether what was observed of a solution is right: decided where no student code ever ran.

    text = confirm("count_shapes", found, seed)    # `found` as from `observations.observe`; empty if it is right

Any right solution agrees with the reference on any seed, whatever the contract leaves to chance or to taste: then there
are several references (`REFERENCES`), instances are numbered anew (`LABEL_IMAGES`), or `expect_...` decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from skimage.measure import label
from torch import nn

from course_utils.exercises.checks import notebook_01, notebook_05, notebook_07
from course_utils.exercises.checks.notebook_06 import EACH_IMAGE, exact_loss
from course_utils.exercises.feedback import CheckFailed, shown
from course_utils.exercises.registry import list_exercises
from course_utils.targets import boundary_target
from course_utils.unet import UNet
from workshop.grade.judge.inputs import (
    EACH,
    LARGER,
    TRANSFORMS,
    bootstrap_inputs,
    crop_inputs,
    dataset_inputs,
    noise_inputs,
    pair_inputs,
)
from workshop.grade.judge.observations import observe

OTHER_INPUTS = "With other inputs than those of the check your code gives other results than it should:"
LOOK = "A solution works for every input, not only for those that the check happens to use."
TOLERANCE = 1e-3, 1e-4  # relative and absolute: float32 after a few operations
HALF_PRECISION = {"predict": (0.01, 0.01)}
LABEL_IMAGES = ("connected_components", "watershed_instances")  # ids may come in any order


def confirm(name: str, found: Any, seed: int) -> str:
    """Whether what `observe` found with this seed is right: empty, or a sentence with what was found and expected.

    Args:
        name: of the exercise's object, as "count_shapes".
        found: plain values from where the student's code ran; nothing in them is believed.
        seed: new in each run.
    """
    try:
        expect = globals().get(f"expect_{name}")
        if expect is not None:
            different = expect(found, np.random.default_rng(seed))
        else:
            number = _in_order if name in LABEL_IMAGES else lambda value: value
            reference = next(one.reference for one in list_exercises() if one.name == name)
            rights = (number(observe(name, right, seed)) for right in (reference, *REFERENCES.get(name, ())))
            texts = [same(number(found), right, *HALF_PRECISION.get(name, TOLERANCE)) for right in rights]
            different = "" if "" in texts else texts[0]
    except CheckFailed as error:
        different = error.finding
    except Exception:  # it has not even the form of a right answer
        different = f"found {shown(found)}, expected values of another form."
    return f"{OTHER_INPUTS} {different} {LOOK}" if different else ""


def same(found: Any, expected: Any, relative: float = TOLERANCE[0], absolute: float = TOLERANCE[1]) -> str:
    """Empty if two plain values are equal up to rounding, else what was found and what was expected.

    Arrays and tensors are of the same kind, shape and dtype, but any floats do where float64 is expected, any
    number does for an equal int, and a list for a tuple.
    """
    look_at, look_for = found, expected
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)) and len(found) == len(expected):
        texts = (same(*pair, relative, absolute) for pair in zip(found, expected, strict=True))
        return next(filter(None, texts), "")
    if isinstance(expected, (np.ndarray, torch.Tensor)):
        if torch.is_tensor(found) != torch.is_tensor(expected) or not hasattr(found, "shape"):
            return f"found {type(found).__name__}, expected {type(expected).__name__}."
        found, expected = (value.numpy(force=True) if torch.is_tensor(value) else value for value in (found, expected))
        if found.dtype != expected.dtype and (found.dtype.kind, expected.dtype) != ("f", np.float64):
            return f"found dtype {found.dtype}, expected {expected.dtype}."
        if found.shape != expected.shape:
            return f"found shape {found.shape}, expected {expected.shape}."
        close = found == expected
        if found.dtype.kind == "f":
            close = np.isclose(found, expected, relative, absolute, equal_nan=True)
        if not np.all(close):
            look_at, look_for = found[~close][0].item(), expected[~close][0].item()
    elif type(expected) in (int, float):
        number = found
        if type(expected) is int:  # checks that ask for no more than an equal count take any number
            number = found.item() if getattr(found, "shape", None) == () else found
            relative = absolute = 0
        close = isinstance(number, (int, float)) and type(number) is not bool
        close = close and np.isclose(number, expected, relative, absolute, equal_nan=True)
    else:
        close = type(found) is type(expected) and found == expected
    return "" if np.all(close) else f"found {shown(look_at)}, expected {shown(look_for)}."


exactly = partial(same, relative=0, absolute=0)


def _in_order(value: Any) -> Any:
    """Each label image numbered in the order of the first pixels of its instances."""
    if isinstance(value, (list, tuple)):
        return [_in_order(item) for item in value]
    is_label_image = isinstance(value, np.ndarray) and value.dtype.kind in "iu"
    return notebook_05._in_order(value).astype(np.int64) if is_label_image else value


def _unet_that_halves_by(pool: nn.Module, **options: int) -> nn.Module:
    model = UNet(**options)
    model.pool = pool
    return model


# Tasks leave open how the resolution is halved, and which pixels are neighbours. In mode "outer" scikit-image finds
# more boundaries if ids are int64.
REFERENCES: dict[str, list[Callable]] = {
    "UNet": [partial(_unet_that_halves_by, pool) for pool in (nn.AvgPool2d(2), nn.MaxPool2d(1, stride=2))],
    "connected_components": [lambda probability, threshold=0.5: label(probability > threshold, connectivity=1)],
    "boundary_target": [lambda mask, mode="inner": boundary_target(mask.astype(np.int64), mode)],
    "multiclass_dice_loss": [partial(exact_loss, axes=EACH_IMAGE)],
}


def expect_random_crop(found: Any, rng: np.random.Generator) -> str:
    for (image, mask, size, n), (runs, after, errors) in zip(crop_inputs(rng), found, strict=True):
        starts = [notebook_01._start(window, mask) or (0, 0) for window in runs[0][1]]
        places = [(slice(row, row + size), slice(column, column + size)) for row, column in starts]
        right = [np.stack([part[place] for place in places]) for part in (image, mask)]
        again = [part[: n // 10 + 1] for part in right]
        if different := exactly([runs, after, len(starts)], [[right, again], [image, mask], n]):
            return different
        for side, text in zip(mask.shape, errors, strict=True):
            if not all(re.search(rf"(?<!\d){word}(?!\d)", text) for word in ("ValueError", side, side + 1)):
                return f"found {shown(text)} for a crop larger than its image, expected a ValueError with both sizes."
        rows, columns = (side - size + 1 for side in mask.shape)
        if n > 1:
            notebook_01._expect_equal_shares(starts, rows, columns)
        if rows * columns < 20 and len({*starts}) != rows * columns:
            return f"found {len({*starts})} different crops, expected {rows * columns}."
    return ""


def expect_NucleiDataset(found: Any, rng: np.random.Generator) -> str:
    images, masks, size = dataset_inputs(rng)
    image, mask = notebook_01._positions((256, 256), np.float32)
    cropped, augmented, again, other, after, default = found
    right = [augmented[0], images, masks, [torch.from_numpy(image)[None], TRANSFORMS[0](mask)]]
    if different := exactly([again, *after, default], right):
        return different
    if not exactly(other, cropped[0]):
        return "found the same crops with seed=0 and seed=1, expected others."
    for run, indices, n_places in ((cropped, EACH, 9), (augmented, LARGER, 6)):
        for (length, items), transform in zip(run, TRANSFORMS, strict=True):
            places, orientations = set(), set()
            for (window, target), index in zip(items, indices, strict=True):
                right = [4, torch.zeros(1, size, size), transform(masks[index])[..., :size, :size] * 0]
                if different := exactly([length, window * 0, target * 0], right):
                    return different
                notebook_01._expect_same_pixels(window, target)
                ids = notebook_01._ids(window)[0]
                orientations.add(notebook_01._orientation(ids, masks[index]))
                places.add((index, ids.min()))
            if None in orientations or (run is cropped and orientations != {0}):
                return "found pixels in another order, expected those of a window of the image."
            if len(places) != n_places:
                return f"found {len(places)} different crops, expected {n_places}."
            missing = [kind for kind, some in notebook_01.ONLY.items() if orientations <= some]
            if run is augmented and missing:
                return f"found {missing[0]}, expected flips and quarter turns."
    return ""


def expect_paired_bootstrap(found: Any, rng: np.random.Generator) -> str:
    runs, errors = found
    for (pair, _, options), (first, again, other) in zip(bootstrap_inputs(rng), runs, strict=True):
        n, (repeats, level) = len(pair[0]), options or (2000, 0.95)
        types, (mean, low, high), after = first
        right = [["float"] * 3, float(np.subtract(*pair).mean()), list(pair), [types, [mean, low, high], after]]
        if different := same([types, mean, after, again], right, relative=1e-9, absolute=1e-9):
            return different
        draws = np.random.default_rng(0).choice(np.subtract(*pair), (20_000, n)).mean(axis=1)
        outside = (1 - level) / 2
        tolerance = 6 * (outside * (1 - outside) * (1 / repeats + 1 / 20_000)) ** 0.5
        shares = np.array([np.mean(draws < low), np.mean(draws > high)])
        if not (low <= high and np.all(abs(shares - outside) < tolerance)):
            return f"found {low:.4f} to {high:.4f}, expected about {np.quantile(draws, [outside, 1 - outside])}."
        if other[1] == first[1]:
            return "found the same interval for generators with different seeds, expected others."
    return exactly(errors, ["ValueError"] * 4)


def expect_add_noise(found: Any, rng: np.random.Generator) -> str:
    for (image, sigma, _), ([first, second, again], after) in zip(noise_inputs(rng), found, strict=True):
        if different := exactly([after, again, first * 0], [image, first, image.astype(np.float32) * 0]):
            return different
        if np.array_equal(first, second):
            return "found the same noise in two calls, expected other noise in each."
        for noisy in (first, second):
            notebook_07._expect_gaussian("the noise", noisy.astype(np.float64) - image, float("nan"), sigma, None)
    return ""


def expect_NoisyPairDataset(found: Any, rng: np.random.Generator) -> str:
    images, size, sigma = pair_inputs(rng)
    (noisy, again, clean, other), after, level = found
    if different := exactly([after, again], [images, noisy]):
        return different
    if not exactly(other, noisy):
        return "found the same pairs with seed=0 and seed=1, expected others."
    blank = torch.zeros(1, size, size)
    numbers = [np.floor(image / notebook_07.STEP) for image in images]
    for (length, items), is_clean in ((noisy, False), (clean, True)):
        places, noise = set(), []
        for number, views in enumerate(items):
            if different := exactly([length, *(view * 0 for view in views)], [2, blank, blank]):
                return different
            windows = [notebook_07._numbers(view) for view in views]
            if not np.array_equal(*windows) or notebook_01._start(windows[0], numbers[number % 2]) is None:
                return "found two views that are not the same window of the image, expected the same window."
            places.add((number % 2, windows[0].min()))
            noise.append([view[0].double().numpy() - notebook_07.STEP * (window + 0.5)
                          for view, window in zip(views, windows, strict=True)])  # fmt: skip
        if len(places) != 6:
            return f"found {len(places)} different crops, expected 6."
        random_ones = [one.round(8).tobytes() for pair in noise for one in pair[: 2 - is_clean]]
        if len({*random_ones}) != len(random_ones):
            return "found the same noise in two items, expected other noise at each access."
        first, second = (np.concatenate(part) for part in zip(*noise, strict=True))
        if is_clean and np.abs(second).max() > 1e-6:
            return "found noise in the target with clean_target=True, expected the clean crop."
        for one in (first,) if is_clean else (first, second, (first + second) / np.sqrt(2)):
            notebook_07._expect_gaussian("the noise", one, float("nan"), sigma, None)
    for view in level:
        notebook_07._expect_gaussian("the noise", view[0].double().numpy() - np.float32(0.02), float("nan"), 0.1, None)
    return exactly([view * 0 for view in level], [torch.zeros(1, 256, 256)] * 2)
