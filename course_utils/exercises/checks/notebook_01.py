"""The checks of notebook 01."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.special import chdtri
from torch.utils.data import DataLoader, Dataset

from course_utils.exercises.feedback import (
    check_part,
    diagnosis,
    expect_all_close,
    expect_callable,
    expect_close,
    expect_dtype,
    expect_error,
    expect_pair,
    expect_python_float,
    expect_shape,
    expect_type,
    fail,
    shown,
    untouched,
)
from course_utils.exercises.pictures import Panel, Panels, compared


def check_count_shapes(count_shapes) -> None:
    expect_callable(count_shapes, "count_shapes")
    expected = {(2, 3): 3, (4, 4): 1, (3, 2): 1, (260, 347): 2, (1, 5): 300}
    images = [np.zeros(shape, np.uint8) for shape, n in expected.items() for _ in range(n)]
    images = [*images[1::2], *images[::2]]
    with untouched(images=images):
        found = count_shapes(images)
    expect_type("the result", found, dict, "Return a dict {(H, W): number of images}.")
    keys = [key for key in found if not isinstance(key, tuple) or len(key) != 2]
    if keys:
        fail("Keys of the dict", shown(keys[0]), "tuples (H, W)", "image.shape is such a tuple.")
    if found == {shape[::-1]: n for shape, n in expected.items()}:
        fail("Keys of the dict", "(W, H)", "(H, W)", "The height comes first.")
    if found and found == dict.fromkeys([images[0].shape], 1):
        fail("Number of images that are counted", 1, len(images), "Does `return` stand behind the loop, not in it?")
    for shape, number in expected.items():
        look = "Each image adds one, the first of its shape included."
        if found.get(shape, found.get(shape[::-1])) == number + expected.get(shape[::-1], 0) != number:
            look = "Shapes (2, 3) and (3, 2) are different: height first."
        if shape == (1, 5):
            look = "Does your type for counts hold such a number?"
        if found.get(shape) != number:
            fail(f"Number of images of shape {shape}", shown(found[shape]) if shape in found else "none", number, look)
    extra = [key for key in found if key not in expected]
    if extra:
        fail("Number of shapes in the dict", len(found), len(expected), f"No image has the shape {extra[0]}.")
    nothing = count_shapes([])
    if nothing != {}:
        fail("Result for no images", nothing, {})


def check_intensity_statistics(intensity_statistics) -> None:
    expect_callable(intensity_statistics, "intensity_statistics")
    rng = np.random.default_rng(0)
    small, large = rng.integers(0, 10, (3, 4)).astype(np.float64), rng.integers(10, 40, (7, 5)).astype(np.float64)
    plain = "std is the square root of the mean squared distance from the mean; the mean divides the sum by the number."
    overflow = "{} holds 0 to {}: what happens to its sums, squares and differences?"
    cases = [
        ("one image", [large], plain),
        ("images of different sizes", [small, large, small + 5], "Every pixel has the same weight, not every image."),
        ("two images of one size", [large, large[::-1] ** 1.5], "One mean and one std for the pixels of all images."),
        (
            "8-bit images",
            [rng.integers(0, 256, (20, 30), dtype=np.uint8), rng.integers(150, 256, (9, 8), dtype=np.uint8)],
            overflow.format("A uint8", 255),
        ),
        ("16-bit images", [rng.integers(9, 65536, (9, n), dtype=np.uint16) for n in (8, 30)],
         overflow.format("A uint16", 65535)),
        (
            "float32 images with values near 3000",
            [rng.normal(3000, 1, shape).astype(np.float32) for shape in [(40, 50), (30, 20)]],
            "float32 has seven digits: add in float64.",
        ),
    ]  # fmt: skip
    whats, looks = [case[0] for case in cases], [case[2] for case in cases]
    found = []
    for _, images, _ in cases:
        with untouched(images=images):
            result = intensity_statistics(images)
        expect_pair("the result", result, "(mean, std)")
        for name, value in zip(("mean", "std"), result, strict=True):
            expect_python_float(name, value)
        found.append(result)

    flat = [[image.astype(np.float64).ravel() for image in images] for _, images, _ in cases]
    exact = [(images, np.concatenate(images)) for images in flat]  # of each case: images, all their pixels
    means, stds = [float(pixels.mean()) for _, pixels in exact], [float(pixels.std()) for _, pixels in exact]
    of_means, of_stds = [value for value, _ in found], [value for _, value in found]
    exchanged = "The mean comes first, then std."
    weights = "Every pixel has the same weight, not every image: divide once, by the number of all pixels."
    # float32 itself is not wrong, since seven digits are enough; what it loses by cancellation is wrong.
    expect_all_close([f"the mean of {what}" for what in whats], of_means, means, {
        exchanged: stds,
        weights: lambda images, _: np.mean([image.mean() for image in images]),
        **{f"Do not round to {digits} digits.": np.round(means, digits) for digits in range(2)},
        "That is the median.": lambda _, pixels: np.median(pixels),
        "That is the sum: divide by the number of pixels.": lambda _, pixels: pixels.sum(),
    }, looks, 1e-6, exact)  # fmt: skip
    expect_all_close([f"the std of {what}" for what in whats], of_stds, stds, {
        "That is the variance: std is its square root.": np.square(stds),
        "std divides by the number of pixels, not by that minus 1.": lambda _, pixels: pixels.std(ddof=1),
        weights: lambda images, _: np.mean([image.std() for image in images]),
        "Measure distances from the mean of all pixels, not from that of each image.":
            lambda images, _: np.concatenate([image - image.mean() for image in images]).std(),
        "Subtract the mean before you square.": lambda _, pixels: np.sqrt(np.square(pixels).mean()),
        "That is the mean distance: square it before the mean, and take the root after it.":
            lambda _, pixels: np.abs(pixels - pixels.mean()).mean(),
        "Divide the sum of squares by the number of pixels.": lambda _, pixels: np.sqrt(pixels.size) * pixels.std(),
    }, looks, 1e-3, exact)  # fmt: skip


def check_standardize(standardize) -> None:
    expect_callable(standardize, "standardize")
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 256, (4, 6), dtype=np.uint8)
    wraps = "{} cannot be negative: convert the image before you subtract."
    cases = [
        ("a float32 image and Python floats", rng.random((5, 3)).astype(np.float32), 0.25, 0.5, ""),
        ("a float32 image and np.float64 numbers", rng.random((5, 3), np.float32), np.float64(3), np.float64(4), ""),
        ("a float64 image", rng.random((2, 7)), -1.0, 0.1, ""),
        ("a uint8 image", bright, 100.0, 2.5, wraps.format("A uint8")),
        ("a uint8 image and np.float64 numbers", bright, np.float64(30.5), np.float64(20), wraps.format("A uint8")),
        ("a uint16 image and whole numbers", bright.astype(np.uint16) * 200, 30_000, 7, wraps.format("A uint16")),
    ]
    results = []
    for name, image, mean, std, _ in cases:
        with untouched(image=image):
            found = standardize(image, mean, std)
            what = f"the result for {name}"
            expect_type(what, found, np.ndarray, "Return an array.")
            expect_shape(what, found, image.shape)
            look = "The network needs float32."
            if isinstance(mean, np.float64):
                look = "Since NumPy 2, a float32 array minus an np.float64 number is a float64 array."
            expect_dtype(what, found, np.float32, look)
            results.append(found.copy())

    right = "First subtract the mean, then divide by std."
    exact = [(image.astype(np.float64), float(mean), float(std)) for _, image, mean, std, _ in cases]
    expected = [(image - mean) / std for image, mean, std in exact]
    expect_all_close([f"the result for {case[0]}" for case in cases], results, expected, {
        f"{right} Without brackets, the division comes first.": lambda image, mean, std: image - mean / std,
        right: lambda image, mean, std: image / std - mean,
        "Divide by std, not by its square.": lambda image, mean, std: (image - mean) / std**2,
        "Divide by std, do not multiply.": lambda image, mean, std: (image - mean) * std,
        "Divide by std, too.": lambda image, mean, std: image - mean,
        "Take the mean and std that are given, not those of this image.":
            lambda image, mean, std: (image - image.mean()) / image.std(),
        "Negative values stay negative: nothing is cut off.": lambda image, mean, std: ((image - mean) / std).clip(0),
        "The result is not limited to 0 to 1: nothing is cut off.":
            lambda image, mean, std: ((image - mean) / std).clip(0, 1),
    }, [case[4] or right for case in cases], 1e-4, exact)  # fmt: skip
    names = standardize(image=bright, mean=1.0, std=2.0)
    expect_close("the result with arguments by name", names, (bright.astype(float) - 1) / 2, tolerance=1e-4)


def check_split_train_val(split_train_val) -> None:
    expect_callable(split_train_val, "split_train_val")
    # Samples that are equal or cannot be compared: only its place identifies a sample.
    samples = [SimpleNamespace(image=np.full((2, 2), index % 3)) for index in range(63)]
    runs = []
    for every, n in [(None, 63), (None, 20), (5, 63), (2, 63), (1, 63), (100, 63), (7, 6)]:
        given = samples[:n]
        found = split_train_val(given) if every is None else split_train_val(given, every=every)
        what = f"{n} samples, " + ("every left out" if every is None else f"every={every}")
        expect_pair("the result", found, "(train, val)")
        for name, part in zip(("train", "val"), found, strict=True):
            expect_type(name, part, (list, tuple), "Return two lists.")
        if len(given) != n or any(a is not b for a, b in zip(given, samples[:n], strict=True)):
            fail("Mutation: samples after your code ran", f"{len(given)} samples or another order",
                 "the list as it was", "Build new lists.")  # fmt: skip
        runs.append((what, n, every or 20, *([_place(sample, samples) for sample in part] for part in found)))
    rights = [list(range(every - 1, n, every)) for _, n, every, _, _ in runs]
    if [run[3] for run in runs] == rights:
        fail("Order of the result", "(val, train)", "(train, val)")
    advice = diagnosis([run[4] for run in runs], rights, {
        "Counting starts at 0: the 20th sample has index 19.":
            [list(range(0, n, every)) for _, n, every, _, _ in runs],
        "Counting starts at 0: the sample at index 20 is the 21st.":
            [list(range(every, n, every)) for _, n, every, _, _ in runs],
        "Use the argument `every`, not the number 20.": [list(range(19, n, 20)) for _, n, _, _, _ in runs],
    })  # fmt: skip
    if runs[0][4] != rights[0] and [run[4] for run in runs[2:]] == rights[2:]:
        advice = "The default of every is 20."
    for (what, n, every, train, val), right in zip(runs, rights, strict=True):
        look = advice or f"Here the indices {every - 1}, {2 * every - 1}, ... go to val, as far as they exist."
        if -1 in train + val:
            fail(f"Samples in the result ({what})", "some that were not given", "those of the list")
        for name, indices, expected in (("val", val, right), ("train", train, sorted({*range(n)} - {*right}))):
            if name == "train" and (both := sorted({*train} & {*val})):
                fail(f"Indices in train and in val, too ({what})", both, "none",
                     "A network must not be validated on what it was trained on: leave them out of train.")  # fmt: skip
            look = look if name == "val" else "All samples that are not in val go to train."
            if len(indices) != len(expected):
                fail(f"Length of {name} ({what})", len(indices), len(expected), look)
            if sorted(indices) != expected:
                fail(f"Indices of the samples in {name} ({what})", indices, expected, look)
            if indices != expected:
                fail(f"Order of the samples in {name} ({what})", indices, expected, "Keep the order of the samples.")
    found = split_train_val([])
    if [list(part) for part in found] != [[], []]:
        fail("Result for no samples", found, ([], []))


def _place(sample: object, samples: list) -> int:
    """The index of a sample in the list, by identity; -1 if it is not there."""
    return next((index for index, other in enumerate(samples) if other is sample), -1)


def check_random_crop(random_crop) -> None:
    expect_callable(random_crop, "random_crop")
    _check_one_crop(random_crop)
    _check_crop_too_large(random_crop)
    # few places, drawn often enough to see their shares, and places beyond 255
    for height, width, size, n_draws in [(5, 7, 3, 2000), (9, 700, 8, 200), (700, 9, 8, 200)]:
        image, mask = _positions((height, width), np.float32)
        starts = []
        with untouched(image=image, mask=mask):
            rng = np.random.default_rng(0)
            for _ in range(n_draws):
                window, mask_window = random_crop(image, mask, size, rng)
                start = _start(mask_window, mask)
                if start is None or not np.array_equal(window, _image_of(mask_window)):
                    fail("Value of the crop", "pixels from different places", "one window of image and mask",
                         picture=lambda: _pair_picture(_crops_of_scene(random_crop)))  # fmt: skip
                starts.append(start)
        if size == 3:
            _expect_all_starts(starts, n_rows=3, n_columns=5)
        _expect_equal_shares(starts, height - size + 1, width - size + 1)
    image, mask = _positions((5, 7), np.float32)
    draws = {}
    for noise in (1, 2):  # global random states must not matter
        _seed_globally(noise)
        rng = np.random.default_rng(5)
        draws[f"run {noise}"] = [random_crop(image, mask, 3, rng)[1] for _ in range(10)]
    if not np.array_equal(*draws.values()):
        fail("Randomness", "other windows for two generators with the same seed", "the same windows",
             "Draw every random number from rng.", partial(_draws_picture, draws, "the same in both"))  # fmt: skip


def _expect_equal_shares(starts: list[tuple[int, int]], n_rows: int, n_columns: int) -> None:
    """Every place is equally likely: chi-squared tests that fail for one of 10^12 right solutions."""
    rows, columns = np.transpose(starts)
    places = rows * n_columns + columns
    for name, found, n in (("first row", rows, n_rows), ("first column", columns, n_columns),
                           ("place", places, n_rows * n_columns)):  # fmt: skip
        if n > len(starts) / 20:  # too many to count each
            found, n, name = found * 5 // n, 5, f"fifth of all {name}s"
        counts, share = np.bincount(found, minlength=n), len(starts) / n
        picture = _counts_picture(starts, n_rows, n_columns) if n_rows * n_columns < 20 else None
        if np.square(counts - share).sum() / share > chdtri(n - 1, 1e-12):
            fail(f"Randomness: how often each {name} was drawn, from the first to the last", counts.tolist(),
                 f"about {share:.0f} each", "Every place is equally likely: rng.integers(n) draws each of n numbers "
                 "alike; rounding, adding or clipping draws does not.", picture)  # fmt: skip


def _check_one_crop(random_crop) -> None:
    """Type, shape, dtype and values of crops of images that fit in few places."""
    for shape, size in [((6, 9), 4), ((4, 9), 4), ((9, 4), 4), ((5, 5), 5)]:
        for image_dtype, mask_dtype in [(np.float32, np.int32), (np.uint8, np.uint16)]:
            image, mask = _positions(shape, image_dtype, mask_dtype, first_id=65_400)
            with untouched(image=image, mask=mask):
                found = random_crop(image, mask, size, np.random.default_rng(3))
                expect_pair("the result", found, "(image window, mask window)")
                for name, part, whole in (("image", found[0], image), ("mask", found[1], mask)):
                    what = f"the {name} window of a {shape[0]} x {shape[1]} image"
                    expect_type(what, part, np.ndarray)
                    expect_shape(what, part, (size, size), "Height and width of the image may differ.")
                    expect_dtype(what, part, whole.dtype, "A window keeps the dtype.")
                starts = [_start(found[0], image), _start(found[1], mask)]
            if None in starts:
                which = starts.index(None)
                name, whole, (y, x) = ("image", "mask")[which], (image, mask)[which], starts[1 - which] or (0, 0)
                fail(f"Value of the {name} window", "pixels that are not a window of it", f"a window of the {name}",
                     "Are rows and columns mixed up, or image and mask?",
                     compared(f"the {name} window", found[which], whole[y : y + size, x : x + size]))  # fmt: skip
            if starts[0] != starts[1]:
                fail("Value of the crop", f"the image from {starts[0]}, the mask from {starts[1]}", "the same window",
                     "Are rows and columns mixed up?" if starts[0] == starts[1][::-1] else
                     "Draw the window once and cut it from both.",
                     lambda: _pair_picture(_crops_of_scene(random_crop)))  # fmt: skip


def _check_crop_too_large(random_crop) -> None:
    """An image that is too small raises an error with its size and the crop's, whichever side is short."""
    look = "Name the size of the image and the size of the crop."
    for height, width, size in [(23, 301, 57), (301, 23, 57), (19, 23, 84)]:
        image = np.zeros((height, width), dtype=np.float32)
        short = (height, width) if max(height, width) < size else (min(height, width),)
        expect_error(
            f"a crop of {size} x {size} from a {height} x {width} image",
            lambda image=image, size=size: random_crop(image, image.astype(np.int32), size, np.random.default_rng(0)),
            tuple(str(number) for number in (*short, size)),
            look,
        )


def check_binary_target(binary_target) -> None:
    expect_callable(binary_target, "binary_target")
    ids = np.array([[0, 1, 2, 0, 255], [0, 7, 7, 256, 0], [300, 0, 0, 32768, 65535], [0, 128, 0, 0, 9]])
    masks = [
        ("an int32 mask", ids.astype(np.int32)),
        ("a uint16 mask", ids.astype(np.uint16)),
        ("an int64 mask with large ids", ids * 32768),
        ("a uint8 mask", (ids % 256).astype(np.uint8)),
        ("a mask without nuclei", np.zeros((3, 2), dtype=np.int32)),
        ("a mask that is one nucleus", np.full((2, 3), 4, dtype=np.int32)),
    ]
    found = []
    for what, mask in masks:
        with untouched(mask=mask):
            target = binary_target(mask)
            what = f"the target of {what}"
            expect_type(what, target, torch.Tensor, "Return a torch tensor.")
            expect_shape(
                what, target, (1, *mask.shape), "Like the output of a network it has a channel axis: (1, H, W)."
            )
            expect_dtype(what, target, torch.float32, "Losses on probabilities need float32.")
            found.append(target.detach().clone())
    suspects = {
        "It is the other way round: 1 on the nuclei, 0 on the background.": [(mask == 0)[None] for _, mask in masks],
        "Each nucleus has its own id, not only 1.": [(mask == 1)[None] for _, mask in masks],
        "The id 1 is a nucleus, too.": [(mask > 1)[None] for _, mask in masks],
        "Every nucleus becomes 1, whatever its id.": [mask[None].astype(np.float32) for _, mask in masks],
    }
    advice = diagnosis(found, [(mask > 0)[None] for _, mask in masks], suspects)
    for (what, mask), target in zip(masks, found, strict=True):
        wrong = np.argwhere(target[0].numpy() != (mask > 0))
        if len(wrong):
            place = tuple(int(index) for index in wrong[0])
            look = advice or "1 on every nucleus, whatever its id; else 0."
            if not advice and mask[place] > 127 and not target[0][place]:
                look = "Does the id fit into the type that you convert the mask to?"
            fail(f"Value of the target of {what} where the id is {mask[place]}", target[0][place].item(),
                 float(mask[place] > 0), look,
                 compared(f"the target of {what}", target[0], mask > 0, mask, input_kind="labels"))  # fmt: skip


# NucleiDataset

CROP = 6
SHAPES = [(8, 9), (7, 12), (8, 7)]


def check_NucleiDataset(NucleiDataset) -> None:
    expect_callable(NucleiDataset, "NucleiDataset")
    dtypes = (np.float32, np.float64, np.float32)
    pairs = [_positions(SHAPES[i], dtypes[i], first_id=1 + 40_000 * i) for i in range(len(SHAPES))]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]

    def make(transform=_float_target, noise=0, **options):
        """A data set made with torch's seed 0, and with other global random states for another `noise`."""
        torch.manual_seed(0)
        _seed_globally(noise)
        return NucleiDataset(images, masks, transform, **{"crop_size": CROP} | options)

    with untouched(images=images, masks=masks):  # first, since a changed image would spoil what follows
        dataset = make()
        for index in range(len(images)):
            dataset[index]
    with untouched(images=images, masks=masks):
        _check_items(NucleiDataset, make, masks)
        dataset = make()
        _expect_all_starts([_start(_ids(dataset[2][0])[0], masks[2]) for _ in range(150)], n_rows=3, n_columns=2)
        _check_reproducible(make)
        _check_workers(make, NucleiDataset)
        _check_defaults(NucleiDataset, make)
    _check_choice(NucleiDataset)
    _check_augmentation(NucleiDataset)


def _float_target(mask: np.ndarray) -> torch.Tensor:
    """A target with a channel axis, `(1, H, W)` float32, pixel by pixel: the crop can come before or after it."""
    _expect_mask(mask)
    return torch.from_numpy(np.array(mask, dtype=np.float32) * 2)[None]


def _class_target(mask: np.ndarray) -> torch.Tensor:
    """A target without a channel axis, `(H, W)` int64."""
    _expect_mask(mask)
    return torch.from_numpy(np.array(mask, dtype=np.int64) * 2)


def _expect_mask(mask: np.ndarray) -> None:
    expect_type("the argument of target_transform", mask, np.ndarray, "It turns a mask, a NumPy array, into a tensor.")
    if mask.ndim != 2:
        fail("Shape of the argument of target_transform", mask.shape, "a mask (H, W)")


@check_part()
def _check_items(NucleiDataset, make, masks) -> None:
    """Length, and type, shape, dtype and pixels of the items without augmentation."""
    dataset = make()
    expect_type("the data set", dataset, Dataset, "Derive NucleiDataset from torch.utils.data.Dataset.")
    if len(dataset) != len(masks):
        fail("Length of the data set", len(dataset), len(masks), "One item for each image.")
    for transform, shape, dtype in ((_float_target, (1, CROP, CROP), torch.float32),
                                    (_class_target, (CROP, CROP), torch.int64)):  # fmt: skip
        dataset = make(transform)
        for index in [0, 1, 2] * 3:
            expect_pair(f"item {index}", dataset[index], "(image, target)")
            image, target = dataset[index]
            expect_type("the image of an item", image, torch.Tensor)
            expect_shape("the image of an item", image, (1, CROP, CROP), f"crop_size is {CROP} here.")
            look = "The network needs float32, whatever the dtype of the image."
            expect_dtype("the image of an item", image, torch.float32, look)
            expect_type("the target of an item", target, torch.Tensor, "It is the result of target_transform.")
            look = "The target is the result of target_transform for the mask, cut to the crop."
            expect_shape("the target of an item", target, shape, look)
            expect_dtype("the target of an item", target, dtype, look)
            _expect_same_pixels(image, target, lambda: _pair_picture(_items_of_scene(NucleiDataset, 16)))
            if _start(_ids(image)[0], masks[index]) is None:
                fail(f"Value of item {index}", "pixels that are not one window of its image",
                     f"a window of image {index}, unchanged",
                     picture=partial(_items_picture, NucleiDataset, "the image as it is", augment=False))  # fmt: skip


def _check_defaults(NucleiDataset, make) -> None:
    image, mask = _positions((256, 256), np.float32)
    torch.manual_seed(0)
    found, _ = NucleiDataset([image], [mask], _float_target)[0]
    expect_shape("an item with crop_size left out", found, (1, 256, 256))
    if not _same_draws(_draw(make()), _draw(make(seed=0))):
        fail("Randomness with seed left out", "other crops than with seed=0", "the same crops", "Its default is 0.")


@check_part()
def _check_reproducible(make) -> None:
    """New crops at each access, which depend on the seed and torch's seed alone."""
    for augment in (False, True):
        first, again = _draw(make(augment=augment, noise=1)), _draw(make(augment=augment, noise=2))
        if not _same_draws(first, again):
            fail("Randomness", "other crops with the same seed and the same torch.manual_seed", "the same crops",
                 "Numbers from random, np.random or an unseeded generator do not depend on torch's seed.",
                 _draws_picture({"run 1": first, "run 2": again}, "the same crops in both"))  # fmt: skip
    if _same_draws(first := _draw(make(seed=0)), other := _draw(make(seed=1))):
        fail("Randomness", "the same crops with seed=0 and seed=1", "other crops for another seed",
             "The choice of the window must depend on seed.",
             _draws_picture({"seed=0": first, "seed=1": other}, "other crops for another seed"))  # fmt: skip


@check_part()
def _check_workers(make, NucleiDataset) -> None:
    """A loader's workers get copies of one data set, and each copy must draw other crops."""
    for what, one, first, second in _draws_in_workers(make, _draw):
        if _same_draws(first, second):
            if _right_in_real_workers(NucleiDataset):
                return
            both, expected = {f"{one} 1": first, f"{one} 2": second}, f"other crops in each {one}"
            fail(what, f"the same crops in two {one}s", expected, COPIED, _draws_picture(both, expected))


COPIED = (
    "A random generator kept in the data set is copied with its state into every worker. Torch's seed differs in each "
    "worker and epoch."
)


def _draws_in_workers(make, draw: Callable) -> Iterator[tuple[str, str, Any, Any]]:
    """The situation, "worker" or "epoch", and what two of them draw from copies of one data set."""
    for used in (False, True):
        draws = {}
        for number, epoch_seed in [(0, 1000), (1, 1000), (0, 2000)]:
            dataset = make()
            if used:  # like a notebook that shows an item before it starts a loader
                draw(dataset, 3)
            with _in_worker(number, epoch_seed, dataset):
                draws[number, epoch_seed] = draw(dataset)
        what = "Randomness in loader workers" + (" that start after an item was drawn" if used else "")
        for one, other in (("worker", (1, 1000)), ("epoch", (0, 2000))):
            yield what, one, draws[0, 1000], draws[other]


def _right_in_real_workers(NucleiDataset) -> bool:
    """Whether crops differ between real processes, which may share memory, and between epochs, but not between runs."""
    image, mask = _positions((20, 20), np.float32)

    def run(n_epochs: int) -> list[list[list]]:
        """The windows of each worker in each epoch, all of one image."""
        torch.manual_seed(0)
        dataset = NucleiDataset([image], [mask], _float_target, crop_size=CROP)
        dataset[0]
        # Only forked processes know a class of a notebook.
        loader = DataLoader(dataset, 16, sampler=[0] * 32, num_workers=2, multiprocessing_context="fork", timeout=20)
        return [[images[:, 0, 0, 0].tolist() for images, _ in loader] for _ in range(n_epochs)]

    try:
        first, second = run(2)
        [again] = run(1)
    except Exception:
        return False
    # Processes that share a counter may get its numbers in another order, but they are the same numbers.
    repeated = Counter(chain(*first)) & Counter(chain(*again))
    return first[0] != first[1] and first[0] != second[0] and first[1] != second[1] and repeated.total() >= 16


@contextlib.contextmanager
def _in_worker(number: int, epoch_seed: int, dataset: Dataset) -> Iterator[None]:
    """Seeds and worker info as torch sets them in a loader's worker, without a process."""
    torch.manual_seed(epoch_seed + number)
    _seed_globally(epoch_seed + number)
    info = SimpleNamespace(id=number, num_workers=2, seed=epoch_seed + number, dataset=dataset)
    with mock.patch.object(torch.utils.data._utils.worker, "_worker_info", info):
        yield


@check_part()
def _check_choice(NucleiDataset) -> None:
    """All places can be drawn: 200 draws from 225 places give about 132 different ones, always (but for 1e-9) 104."""
    image, mask = _positions((20, 20), np.float32)
    dataset = NucleiDataset([image], [mask], _float_target, crop_size=CROP)
    starts = [_start(_ids(dataset[0][0])[0], mask) for _ in range(200)]
    if (n := len({*starts})) < 104:
        fail("Randomness: different crops among 200 of an image with 225 places", n, "about 132",
             "Some places are drawn far too often: from how many seeds do you draw?",
             partial(_counts_picture, starts, 15, 15))  # fmt: skip


@check_part()
def _check_augmentation(NucleiDataset) -> None:
    """Image and target are flipped and turned together, in different ways."""
    size = 64  # large enough that a rotation by one degree moves pixels
    image, mask = _positions((size + 1, size + 2), np.float32, first_id=70_001)
    transforms = (_float_target, _class_target)
    datasets = [NucleiDataset([image], [mask], transform, crop_size=size, augment=True) for transform in transforms]
    orientations, missing = set(), ""
    for number in range(120):
        dataset, transform = datasets[number % 2], transforms[number % 2]
        found, target = dataset[0]
        expect_shape("the image of an augmented item", found, (1, size, size))
        expect_dtype("the image of an augmented item", found, torch.float32)
        expect_shape("the target of an augmented item", target, (*transform(mask).shape[:-2], size, size))
        expect_dtype("the target of an augmented item", target, transform(mask).dtype)
        turned = partial(_items_picture, NucleiDataset, "the image flipped, and turned by multiples of 90 degrees")
        _expect_quarter_turns(found, target, mask, turned)
        _expect_same_pixels(found, target, lambda: _pair_picture(_items_of_scene(NucleiDataset, 16, augment=True)),
                            "Flip and rotate image and mask alike, by multiples of 90 degrees.")  # fmt: skip
        orientation = _orientation(_ids(found)[0], mask)
        if orientation is None:
            fail("Value of an augmented item", "pixels that are not a flipped or rotated window", QUARTERS,
                 picture=turned)  # fmt: skip
        orientations.add(orientation)
        missing = next((kind for kind, some in ONLY.items() if orientations <= some), "")
        if number >= 40 and not missing:
            return
    missing = "only one orientation" if len(orientations) == 1 else missing
    fail("Randomness of the augmentation", f"{missing} among {number + 1} items", "flips and quarter turns",
         "With augment=True crops are flipped, and rotated by multiples of 90 degrees, at random.", turned)  # fmt: skip


# Sets of orientations, numbered as in `_orientation`, which do not generate all eight.
ONLY = {
    "no flips": {0, 1, 2, 3},
    "no quarter turns": {0, 2, 5, 7},
    "only transposed crops": {0, 2, 4, 6},
}
QUARTERS = "a window of the image, flipped or rotated by a multiple of 90 degrees"


def _expect_quarter_turns(image: torch.Tensor, target: torch.Tensor, mask: np.ndarray, picture: Callable) -> None:
    """Name the transform if image and target went through the same one, but not a flip or a quarter turn."""
    ids, target_ids = _ids(image)[0], target.reshape(image.shape[1:]).numpy() / 2
    known = (target_ids == np.round(target_ids)) & (target_ids >= mask[0, 0]) & (target_ids <= mask[-1, -1])
    if np.mean(known) < 0.3:
        return
    # the linear map from the pixels of the item to their places in the mask
    pixels = np.stack([*np.nonzero(known), np.ones(known.sum())], axis=1)
    sources = np.stack(np.divmod(target_ids[known] - mask[0, 0], mask.shape[1]), axis=1)
    fit, *_ = np.linalg.lstsq(pixels, sources, rcond=None)
    rows, columns = (pixels @ fit).T
    is_linear = np.median(np.abs(pixels @ fit - sources)) <= 1
    of_image = np.abs(ids[known] - (rows * mask.shape[1] + columns + mask[0, 0]))
    if not is_linear or np.median(of_image) > mask.shape[1]:  # more than a row off: the image shows another place
        return
    (a, b), (c, d) = fit[:2] if np.linalg.det(fit[:2]) > 0 else fit[:2] * [[1], [-1]]  # without the flip
    angle = np.degrees(np.arctan2(b - c, a + d)) % 360
    large, small = np.linalg.svd(fit[:2], compute_uv=False)
    what = "Value of an augmented item"
    if large > 1.02 * small:
        fail(what, "image and target stretched or sheared", QUARTERS, picture=picture)
    if abs(large - 1) > 0.02:
        fail(what, f"image and target at about {1 / large:.2f} times their size", QUARTERS, picture=picture)
    if abs((angle + 45) % 90 - 45) > 0.5:
        fail(what, f"image and target rotated by about {min(angle, 360 - angle):.0f} degrees", QUARTERS,
             "At other angles values are interpolated or repeated, and corners remain empty.", picture)  # fmt: skip
    if np.mean(np.abs(ids[known] - np.round(ids[known])) > 0.01) > 0.2:
        fail(what, "an image of interpolated values", QUARTERS, "Those only change the order of the pixels.", picture)


def _draw(dataset: Dataset, n: int = 16) -> list[torch.Tensor]:
    return [torch.as_tensor(dataset[0][0]) for _ in range(n)]


def _same_draws(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _expect_same_pixels(image: torch.Tensor, target: torch.Tensor, picture: Any = None, look: str = "") -> None:
    """Image and target of an item show the same pixels; the values tell where each comes from."""
    target = target.reshape(image.shape[1:])
    if np.array_equal(_ids(image)[0] * 2, target.numpy()):
        return
    if np.array_equal(_ids(image)[0], target.numpy()):
        fail("Value of the target", "the mask itself", "the result of target_transform")
    lost = _ids(image)[0] * 2 - target.numpy()
    if lost.any() and not (lost % 512).any():
        fail("Value of the target", f"the id {int(target.max() / 2)}", f"the id {int(_ids(image).max())}",
             "The type that you convert the mask to is too small for its ids.")  # fmt: skip
    look = look or "Cut the same window from the image and its mask, and keep the values of the image."
    fail("Value of an item", "an image and a target of different pixels", "the same window of both", look, picture)


# Images whose values tell where each pixel comes from


def _positions(shape: tuple[int, int], image_dtype, mask_dtype=np.int32, first_id: int = 1):
    """An image and a mask without equal pixels. The values of a float image are exact, and some are negative."""
    mask = np.arange(first_id, first_id + shape[0] * shape[1]).reshape(shape).astype(mask_dtype)
    image = _image_of(mask) if np.dtype(image_dtype).kind == "f" else mask - mask.min()
    return image.astype(image_dtype), mask


def _image_of(mask: np.ndarray) -> np.ndarray:
    return mask / 64 - 3


def _ids(image: torch.Tensor) -> np.ndarray:
    """The ids of the mask that belong to an image of `_positions`."""
    return (image.detach().double().numpy() + 3) * 64


def _start(window: np.ndarray, whole: np.ndarray) -> tuple[int, int] | None:
    """Where a window was cut from an image without equal pixels; None if it is not a window of it."""
    found = np.argwhere(whole == window.flat[0])
    if len(found) == 0:
        return None
    row, column = (int(number) for number in found[0])
    same = whole[row : row + window.shape[0], column : column + window.shape[1]]
    return (row, column) if np.array_equal(same, window) else None


def _orientation(window: np.ndarray, whole: np.ndarray) -> int | None:
    """Which of the eight flips and quarter turns made this of a window of `whole`; None if none of them."""
    turned = [np.rot90(side, turns) for side in (window, window.T) for turns in range(4)]
    return next((number for number, candidate in enumerate(turned) if _start(candidate, whole)), None)


def _expect_all_starts(starts: list, n_rows: int, n_columns: int) -> None:
    """Every place where the window fits was drawn, including the first and the last."""
    picture = _counts_picture(starts, n_rows, n_columns)
    if len(set(starts)) == 1:
        fail("Randomness", f"the same window {len(starts)} times", "another one at each call",
             "Draw the window anew each time.", picture)  # fmt: skip
    for axis, name, n in ((0, "first row", n_rows), (1, "first column", n_columns)):
        found = sorted({start[axis] for start in starts})
        if found != list(range(n)):
            fail(f"Range of the {name} of the crops", found, list(range(n)),
                 "Every place where the crop fits is possible, including the first and the last.", picture)  # fmt: skip
    if len(set(starts)) != n_rows * n_columns:
        fail("Range of the crops", f"{len(set(starts))} different places", n_rows * n_columns,
             "Draw row and column independently.", picture)  # fmt: skip


# Pictures


def _scene() -> tuple[np.ndarray, np.ndarray]:
    """An image of 24 x 24 pixels with bright nuclei, so that every window of 16 has some, and its mask."""
    rows, columns = np.mgrid[:24, :24]
    mask = np.zeros((24, 24), dtype=np.int32)
    for id_, (row, column, height, width) in enumerate([(5, 5, 4, 3), (7, 12, 3, 4), (16, 6, 5, 3), (4, 20, 2, 3),
                                                        (15, 16, 3, 6), (21, 21, 2, 2)], start=1):  # fmt: skip
        mask[((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1] = id_
    return np.where(mask > 0, 0.8, 0.1).astype(np.float32), mask


def _crops_of_scene(random_crop: Callable) -> Callable:
    rng = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        window, mask = random_crop(*_scene(), 16, rng)
        return window, mask > 0

    return draw


def _items_of_scene(NucleiDataset, size: int, **options) -> Callable:
    image, mask = _scene()
    images, masks = [image, image.T.copy(), image], [mask, mask.T.copy(), mask]
    dataset = NucleiDataset(images, masks, lambda mask: torch.from_numpy((mask > 0) * 1.0)[None], size, **options)
    return lambda: dataset[0]


def _pair_picture(draw: Callable) -> Panels | None:
    """An image window and the foreground of its mask, as soon as they do not fit each other; None if they always do."""
    for _ in range(20):
        image, found = (np.array(part, dtype=np.float64).reshape(np.shape(part)[-2:]) for part in draw())
        expected = (image > (image.min() + image.max()) / 2) * 1.0
        if (picture := compared("the mask beside an image window", found, expected, image, input_kind="image")) is None:
            continue
        titles = ("your image and mask", "your mask", "the mask that fits", "difference")
        image, *rest = [replace(panel, title=title) for panel, title in zip(picture.panels, titles, strict=True)]
        image = replace(image, outline=found, mark=None)
        return Panels((image, *rest), f"{picture.alt} The outline of your mask is not that of the nuclei in the image.")
    return None


def _counts_picture(starts: list[tuple[int, int]], n_rows: int, n_columns: int) -> Panels | None:
    counts, share = np.zeros((n_rows, n_columns)), len(starts) / n_rows / n_columns
    for start in starts:
        counts[start] += 1
    wrong = np.where((counts == 0) & (share > 5), np.inf, np.abs(counts - share))  # first what was never drawn
    worst = tuple(int(place) for place in np.unravel_index(np.argmax(wrong), counts.shape))
    return Panels(
        (Panel("yours: times drawn", counts, mark=worst),
         Panel("expected, about", np.full(counts.shape, round(share, 1)), mark=worst)),
        f"How often the window started at each row and column: found {counts[worst]:.0f} times at {worst}, which is "
        f"marked, expected about {share:.3g} times everywhere. Places never drawn: {(counts == 0).sum()}.",
    )  # fmt: skip


def _draws_picture(draws: dict[str, list], expected: str) -> Panels:
    """The first three crops of two series, as the ids of their pixels."""
    panels = [Panel(f"{name}: crop {number + 1}", crop if crop.ndim == 2 else np.round(_ids(crop)[0]).astype(int))
              for name, crops in draws.items() for number, crop in enumerate(crops[:3])]  # fmt: skip
    found = [", ".join(str(int(panel.array[0, 0])) for panel in half) for half in (panels[:3], panels[3:])]
    one, other = draws
    return Panels(tuple(panels), f"Three crops of {one} and three of {other}; the number of a pixel says where in the "
                  f"image it lies. First pixels of the crops: found {found[0]} in {one} and {found[1]} in {other}, "
                  f"expected {expected}.")  # fmt: skip


def _items_picture(NucleiDataset, expected: str, augment: bool = True) -> Panels | None:
    """Some items of an image that is as large as the crop: they show how it was turned."""
    image, draw = _scene()[0], _items_of_scene(NucleiDataset, 24, augment=augment)
    items = [np.array(draw()[0], dtype=np.float64)[0] for _ in range(5)]
    if not augment and all(np.array_equal(item, image) for item in items):
        return None
    turned = [np.rot90(side, turns) for side in (image, image.T) for turns in range(4)]
    names = ["as it is", *(f"turned by {angle} degrees" for angle in (90, 180, 270)), *["flipped"] * 4]
    words = [next((f"{number} {name}" for name, one in zip(names, turned, strict=True) if np.array_equal(item, one)),
                  f"{number} changed in another way") for number, item in enumerate(items, start=1)]  # fmt: skip
    panels = [Panel("the image", image, "image")]
    panels += [Panel(f"your item {number}", item, "image") for number, item in enumerate(items, start=1)]
    return Panels(tuple(panels), f"An image that is as large as the crop, and five items of it: found item "
                  f"{', '.join(words)}, expected {expected}.")  # fmt: skip


def _seed_globally(seed: int) -> None:
    """Seed Python's and NumPy's global generators, on which no right solution depends."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
