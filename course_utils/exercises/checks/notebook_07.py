"""The checks of notebook 07."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import erf
from torch.utils.data import Dataset

from course_utils.exercises.checks.notebook_01 import (
    COPIED,
    _draws_in_workers,
    _expect_all_starts,
    _orientation,
    _right_in_real_workers,
    _seed_globally,
    _start,
)
from course_utils.exercises.feedback import (
    check_part,
    expect_all_close,
    expect_callable,
    expect_close,
    expect_dtype,
    expect_float,
    expect_pair,
    expect_shape,
    expect_type,
    fail,
    untouched,
)
from course_utils.exercises.pictures import Panel, Panels

# add_noise

LEVELS = {"a black": 0.0, "a grey": 0.5, "a white": 1.0}
NOT_CLIPPED = "Do not clip: values below 0 and above 1 belong to noise of mean 0."
CERTAIN = 6  # standard errors: what is right fails once in a billion runs


def check_add_noise(add_noise) -> None:
    expect_callable(add_noise, "add_noise")
    rng = np.random.default_rng(0)
    for name, image, sigma in [("a float32 image", rng.random((9, 14), np.float32), 0.1),
                               ("a float64 image", rng.random((14, 9)), np.float64(0.3)),
                               ("an image of one row", rng.random((1, 5)), 0.2)]:  # fmt: skip
        with untouched(image=image):
            found = add_noise(image, sigma, np.random.default_rng(1))
            what = f"the result for {name}"
            expect_type(what, found, np.ndarray, "Return an array.")
            expect_shape(what, found, image.shape)
            expect_dtype(what, found, np.float32, "NumPy's normal numbers are float64: convert the result.")
    _check_source_of_noise(add_noise)
    _check_noise_values(add_noise)
    image = rng.random((6, 7))
    found = add_noise(image=image, sigma=0.0, rng=np.random.default_rng(2))
    expect_close("the result without noise (sigma = 0)", found, image, "It is the image itself.", input=image)
    if float(add_noise(np.full((1, 1), 0.5), 0.1, np.random.default_rng(3))[0, 0]) == 0.5:
        fail("Value of the noise of a single pixel", 0, "a number from rng", "The mean is 0 over many images: do not "
             "subtract the mean of the numbers that were drawn.")  # fmt: skip


@check_part()
def _check_source_of_noise(add_noise) -> None:
    """The numbers come from `rng`, and each call takes new ones."""
    image = np.full((12, 12), 0.5)

    def draw(rng: np.random.Generator, other: int = 0) -> np.ndarray:
        _seed_globally(other)
        torch.manual_seed(other)
        return add_noise(image, 0.1, rng).copy()

    first, again = draw(np.random.default_rng(3), 1), draw(np.random.default_rng(3), 2)
    if not np.array_equal(first, again):
        fail("Randomness", "other noise from two generators with the same seed", "the same noise",
             "Take all numbers from rng: np.random and torch have states of their own.",
             _side_by_side({"yours, first run": first, "yours, second run": again}, "twice the same"))  # fmt: skip
    rng = np.random.default_rng(3)
    for look, other in (("Draw from rng, not from a generator that you make anew.", np.random.default_rng(4)),
                        ("Draw from rng itself: its next numbers are others.", rng)):  # fmt: skip
        first, second = draw(rng), draw(other)
        if np.array_equal(first, second):
            fail("Randomness", "the same noise in two calls", "other noise in each call", look,
                 _side_by_side({"yours, first call": first, "yours, second call": second}, "other noise"))  # fmt: skip


@check_part()
def _check_noise_values(add_noise) -> None:
    """Every grey level gets Gaussian noise of mean 0 and the same deviation, another number at every pixel."""
    shape = (80, 100)
    rng = np.random.default_rng(5)
    for sigma in (0.1, 0.3):
        for name, level in LEVELS.items():
            image = np.full(shape, level)
            found = np.asarray(add_noise(image, sigma, rng), dtype=np.float64)
            expected = image + np.random.default_rng(6).normal(0, sigma, shape)
            picture = partial(_noise_picture, image, found, expected)
            _expect_gaussian(f"the noise on {name} image with sigma = {sigma}", found - level, level, sigma, picture)
    ramp = np.linspace(0, 1, shape[1]) * np.ones((shape[0], 1))
    noise = np.asarray(add_noise(ramp, 0.1, rng), dtype=np.float64) - ramp
    _expect_gaussian("the noise on an image that gets brighter from left to right", noise, 0.5, 0.1, None)


def _expect_gaussian(what: str, noise: np.ndarray, level: float, sigma: float, picture: Callable | None) -> None:
    n = noise.size
    if not np.isfinite(noise).all():
        fail(f"Value of {what}", "NaN or infinite values", "finite ones", picture=picture)
    if np.ptp(noise) < 1e-6:
        if abs(noise.mean()) < 1e-6:
            look = "Noise is added to black pixels, too: it does not scale the image." if level == 0 else ""
            fail(f"Value of {what}", "no noise", "another number at every pixel", look, picture)
        fail(f"Value of {what}", f"{noise.flat[0]:.4g} at every pixel", "another number at every pixel",
             "Draw as many numbers as pixels.", picture)  # fmt: skip
    for beyond, side, at in ((noise < 0, "below 0", 0), (noise > 0, "above 1", 1)):
        if level == at and not beyond.any() and np.mean(noise == 0) > 0.2:  # cut off, so half of the pixels
            fail(f"Range of {what}", f"no value {side}", "half of them", NOT_CLIPPED, picture)
    deviations = noise.std(axis=0).max(), noise.std(axis=1).max()
    if min(deviations) < 1e-6 * sigma:
        line = "row" if deviations[0] < deviations[1] else "column"
        fail(f"Value of {what}", f"the same numbers in every {line}", "another number at every pixel",
             "Draw as many numbers as pixels.", picture)  # fmt: skip
    mean, deviation, error = noise.mean(), noise.std(), CERTAIN * sigma / np.sqrt(n)
    suspects = {
        "Add the noise to the image.": (-level, sigma),
        "sigma is the standard deviation, not the variance.": (0, np.sqrt(sigma)),
        "sigma is the standard deviation: do not square it.": (0, sigma**2),
        "Standard normal numbers have a deviation of 1: multiply them by sigma.": (0, 1.0),
        "The image and sigma are in the same unit: divide nothing by 255.": (0, sigma / 255),
        "The image and sigma are in the same unit: multiply nothing by 255.": (0, sigma * 255),
        "Uniform numbers from 0 to sigma have another mean and deviation: draw normal ones.":
            (sigma / 2, sigma / np.sqrt(12)),
        "Uniform numbers from -sigma to sigma have another deviation: draw normal ones.": (0, sigma / np.sqrt(3)),
        "The first argument of rng.normal is the mean, the second the deviation.": (sigma, 1.0),
        "The absolute value of noise has no mean of 0.": (sigma * np.sqrt(2 / np.pi), sigma * np.sqrt(1 - 2 / np.pi)),
        "The noise is added; it does not scale the image.": (0, level * sigma),
    }  # fmt: skip
    advice = next((text for text, (m, s) in suspects.items()
                   if abs(mean - m) < CERTAIN * s / np.sqrt(n) + 1e-6 and abs(deviation / max(s, 1e-9) - 1) < 0.05
                   and not (abs(m) < error and abs(s / sigma - 1) < 0.05)), "")  # fmt: skip
    if not abs(mean) < CERTAIN * max(sigma, deviation) / np.sqrt(n):
        fail(f"Mean of {what}", f"{mean:.4g}", "0 up to chance", advice or "Positive and negative noise cancel out.",
             picture)  # fmt: skip
    if not abs(deviation / sigma - 1) < CERTAIN / np.sqrt(2 * n):
        fail(f"Standard deviation of {what}", f"{deviation:.4g}", f"{sigma:.4g} up to chance",
             advice or "It is sigma at every grey level.", picture)  # fmt: skip
    halves = np.array_split(noise, 2, axis=1)
    if not abs(halves[0].std() - halves[1].std()) < 2 * error:
        fail(f"Standard deviation of {what}", f"{halves[0].std():.4g} on the left, {halves[1].std():.4g} on the right",
             f"{sigma:.4g} everywhere", "The noise does not depend on the grey level.", picture)  # fmt: skip
    for width in (1, 2):
        share, right = (np.abs(noise) < width * sigma).mean(), erf(width / np.sqrt(2))
        if not abs(share - right) < CERTAIN * np.sqrt(right * (1 - right) / n):
            fail(f"Distribution of {what}", f"{share:.1%} within {width} sigma", f"{right:.1%}, as Gaussian noise has",
                 "Draw normal numbers, and neither round nor clip them.", picture)  # fmt: skip
    if len(np.unique(noise.round(7))) < n / 4:
        fail(f"Value of {what}", f"{len(np.unique(noise.round(7)))} different numbers", f"about {n}",
             "Do not round, and draw another number for every pixel.", picture)  # fmt: skip
    for axis, line in ((0, "row"), (1, "column")):
        shifted = (noise * np.roll(noise, 1, axis)).mean() / deviation**2
        if abs(shifted) > CERTAIN / np.sqrt(n):
            fail(f"Independence of {what}", f"a correlation of {shifted:.2f} from one {line} to the next", "0",
                 "Every pixel gets a number of its own.", picture)  # fmt: skip


def _noise_picture(image: np.ndarray, found: np.ndarray, expected: np.ndarray) -> Panels:
    parts = [array[:24, :24] for array in (image, found, expected)]
    titles = "image", "yours", "expected, for example"
    panels = [Panel(title, part) for title, part in zip(titles, parts, strict=True)]
    low, high = (f"{array.min():.3g} to {array.max():.3g}" for array in (found, expected))
    means = [f"{array.mean():.3g}" for array in (found, expected)]
    return Panels(tuple(panels), f"A corner of an image of grey value {image.flat[0]:g}, with noise: found values from "
                  f"{low} and a mean of {means[0]}, expected about {high} and a mean of {means[1]}.")  # fmt: skip


def _side_by_side(arrays: dict[str, np.ndarray], expected: str) -> Panels:
    panels = tuple(Panel(title, np.array(array, dtype=np.float64)) for title, array in arrays.items())
    found = [f"{panel.array.flat[0]:.4g}" for panel in panels]
    return Panels(panels, f"{', '.join(arrays)}: found {', '.join(found)} at the first pixel, expected {expected}.")


# psnr


def check_psnr(psnr) -> None:
    expect_callable(psnr, "psnr")
    rng = np.random.default_rng(0)
    dim = rng.random((6, 8)) * 0.4 + 0.1
    noisy = dim + rng.normal(0.05, 0.2, dim.shape)
    bright, other = rng.integers(0, 256, (2, 7, 5), dtype=np.uint8)
    cases = [
        ("images in [0, 1]", dim, noisy, 1.0),
        ("images of float32", dim.astype(np.float32), (dim * 0.8).astype(np.float32), 1.0),
        ("data_range = 0.4", noisy, dim, 0.4),
        ("uint8 images and data_range = 255", bright, other, 255),
        ("uint8 images of which one is darker everywhere", bright // 2 + 100, bright // 4, 255.0),
        ("images that differ at one pixel", dim, np.where(np.arange(48).reshape(6, 8) == 20, 0.9, dim), 1.0),
    ]
    found = []
    for name, reference, image, data_range in cases:
        with untouched(reference=reference, image=image), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(psnr(reference, image, data_range))
        expect_float(f"the result for {name}", found[-1])
    _check_psnr_values(cases, found)
    default = psnr(dim, noisy)
    expect_float("the result with data_range left out", default)
    look = "Its default is 1."
    expect_close("the result with data_range left out", default, _psnr(dim, noisy), look, tolerance=1e-4)
    _check_identical(psnr, dim, bright)
    named = psnr(data_range=0.5, image=noisy, reference=dim)
    expect_close("the result with arguments by name", named, _psnr(dim, noisy, 0.5), tolerance=1e-4)


def _psnr(reference: np.ndarray, image: np.ndarray, data_range: float = 1.0) -> float:
    return 10 * np.log10(data_range**2 / np.mean((reference.astype(float) - image) ** 2))


@check_part()
def _check_psnr_values(cases: list[tuple], found: list[float]) -> None:
    def with_error(error: Callable, power: float = 2, times: float = 10) -> Callable:
        return lambda a, b, peak: times * np.log10(float(peak) ** power / error(a.astype(float) - b))

    def with_peak(peak_of: Callable) -> Callable:
        return lambda a, b, peak: _psnr(a, b, float(peak_of(a, b)))

    def wrapped(a: np.ndarray, b: np.ndarray, peak: float) -> float:
        return 10 * np.log10(float(peak) ** 2 / np.mean((a - b) ** 2))

    def wrapped_square(a: np.ndarray, b: np.ndarray, peak: float) -> float:
        return 10 * np.log10(float(peak) ** 2 / np.mean(np.square((a.astype(np.int16) - b).astype(a.dtype))))

    def square(difference: np.ndarray) -> float:
        return np.mean(difference**2)

    def by_rows(axis: int | None) -> Callable:
        def mean_of_psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
            with np.errstate(divide="ignore"):
                return np.mean(10 * np.log10(float(peak) ** 2 / ((a.astype(float) - b) ** 2).mean(axis=axis)))

        return mean_of_psnr

    suspects = {
        "The difference of two uint8 values cannot be negative: convert the images to float first.": wrapped,
        "Squares of uint8 values above 15 do not fit: convert the images to float first.": wrapped_square,
        "10 log10 of the ratio of squares, or 20 log10 of the ratio of their roots: not 20 log10 of squares.":
            with_error(square, times=20),
        "10 belongs to squares: data_range is not squared here, or the error's root is taken.":
            with_error(lambda d: np.sqrt(square(d)), power=1),
        "Square data_range, too.": with_error(square, power=1),
        "Take the root of the mean squared error for 20 log10, and data_range without a square.":
            with_error(square, power=1, times=20),
        "The logarithm has the base 10: np.log10, not np.log.":
            lambda a, b, peak: _psnr(a, b, peak) * np.log(10),
        "The logarithm has the base 10: np.log10, not np.log2.":
            lambda a, b, peak: _psnr(a, b, peak) * np.log2(10),
        "In decibels: 10 times the logarithm.": lambda a, b, peak: _psnr(a, b, peak) / 10,
        "The peak stands above the fraction line: a small error gives a large PSNR.":
            lambda a, b, peak: -_psnr(a, b, peak),
        "Take the mean of the squares, not their sum.": with_error(lambda d: np.sum(d**2)),
        "Take the mean of squares, not of absolute values.": with_error(lambda d: np.mean(np.abs(d)) ** 2),
        "Square the differences, do not take their absolute values.": with_error(lambda d: np.mean(np.abs(d))),
        "An offset is an error, too: take the mean of the squares, not the variance.": with_error(np.var),
        "Take the mean, not the median.": with_error(lambda d: np.median(d**2)),
        "Use data_range for the peak, not the largest value of the reference.": with_peak(lambda a, b: a.max()),
        "Use data_range for the peak, not the largest value of the image.": with_peak(lambda a, b: b.max()),
        "Use data_range for the peak, not largest minus smallest value of the reference.":
            with_peak(lambda a, b: np.ptp(a)),
        "Use data_range for the peak, not largest minus smallest value of the image.":
            with_peak(lambda a, b: np.ptp(b)),
        "Use data_range, not always 1.": with_peak(lambda a, b: 1),
        "Use data_range, not always 255.": with_peak(lambda a, b: 255),
        "The peak is data_range, not the mean square of the reference (that is the SNR).":
            with_peak(lambda a, b: np.sqrt(square(a.astype(float)))),
        "The values of noisy images may lie outside of the range: do not clip them.":
            lambda a, b, peak: _psnr(a.clip(0, peak), b.clip(0, peak), peak),
        "The values of a noisy image may lie outside of the range: do not clip it.":
            lambda a, b, peak: _psnr(a, b.clip(0, peak), peak),
        "Do not round the result.": lambda a, b, peak: np.round(_psnr(a, b, peak), 1),
        "Do not round the result. ": lambda a, b, peak: np.round(_psnr(a, b, peak), 2),
        "Take the mean of the squares over the whole image, then one logarithm: not the mean over columns.": by_rows(0),
        "Take the mean of the squares over the whole image, then one logarithm: not the mean over rows.": by_rows(1),
        "Take the mean of the squares over the whole image, then the logarithm.": by_rows(()),
        "This is the mean squared error: the PSNR is 10 log10(data_range**2 / error).":
            lambda a, b, peak: square(a.astype(float) - b),
    }  # fmt: skip
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        right = "10 log10(data_range**2 / mean squared error), over all pixels."
        bytes_first = f"{right} Convert uint8 images to float first."
        looks = [bytes_first if case[1].dtype == np.uint8 else right for case in cases]
        expected = [_psnr(*case[1:]) for case in cases]
        expect_all_close([f"the result for {case[0]}" for case in cases], found, expected, suspects, looks, 1e-4,
                         [case[1:] for case in cases])  # fmt: skip


@check_part()
def _check_identical(psnr, dim: np.ndarray, bright: np.ndarray) -> None:
    for name, image in (("images in [0, 1]", dim), ("uint8 images", bright), ("black images", np.zeros((3, 3)))):
        what, look = f"Value for identical {name}", "The mean squared error is 0: return float('inf')."
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = psnr(image, image.copy())
        except (ZeroDivisionError, ValueError, FloatingPointError) as error:
            fail(what, f"{type(error).__name__}: {error}", "inf", look)
        expect_float(f"the result for identical {name}", found)
        if found != np.inf:
            fail(what, found, "inf", look)
    nearly = np.ones((4, 4)), np.full((4, 4), 1 - 9e-6)
    look = "Only identical images give inf, and nothing is added to the error."
    expect_close("the result for images that are nearly equal", psnr(*nearly), _psnr(*nearly), look, tolerance=0.01)


# NoisyPairDataset

CROP, SIGMA = 6, 0.0005
STEP = 0.01  # between the grey values of an image without equal pixels: 20 times sigma, so that each can be told
SHAPES = [(8, 9), (7, 12), (8, 7)]


def check_NoisyPairDataset(NoisyPairDataset) -> None:
    expect_callable(NoisyPairDataset, "NoisyPairDataset")
    images = [_without_equal_pixels(shape, dtype) for shape, dtype in zip(SHAPES, ("f4", "f8", "f4"), strict=True)]

    def make(noise=0, **options) -> Dataset:
        """A data set made with torch's seed 0, and with other global random states for another `noise`."""
        torch.manual_seed(0)
        _seed_globally(noise)
        return NoisyPairDataset(images, **{"sigma": SIGMA, "crop_size": CROP, "clean_target": False} | options)

    with untouched(images=images):
        for clean in (False, True):
            dataset = make(clean_target=clean)
            for index in range(len(images)):
                dataset[index]
    _check_pairs(make, images)
    for clean in (False, True):
        _check_noise_of_pairs(NoisyPairDataset, clean)
    for clean in (False, True):
        _check_windows(make, images, clean)
    _check_fresh_noise(NoisyPairDataset)
    _check_reproducible(make)
    _check_workers(make, NoisyPairDataset)
    _check_defaults(NoisyPairDataset, make)


def _without_equal_pixels(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    return (np.arange(shape[0] * shape[1]).reshape(shape) * STEP + STEP / 2).astype(dtype)


def _numbers(view: torch.Tensor) -> np.ndarray:
    """Which pixels of an image of `_without_equal_pixels` a view shows."""
    return np.floor(view.detach().double().numpy()[0] / STEP).astype(int)


@check_part()
def _check_pairs(make, images: list[np.ndarray]) -> None:
    """Length, and type, shape and dtype of the items."""
    for clean in (False, True):
        dataset = make(clean_target=clean)
        expect_type("the data set", dataset, Dataset, "Derive NoisyPairDataset from torch.utils.data.Dataset.")
        if len(dataset) != len(images):
            fail("Length of the data set", len(dataset), len(images), "One item for each image.")
        for index in range(len(images)):
            expect_pair(f"item {index}", dataset[index], "(input, target)")
            for name, view in zip(("input", "target"), dataset[index], strict=True):
                what = f"the {name} of an item"
                expect_type(what, view, torch.Tensor, "torch.from_numpy makes a tensor of an array.")
                expect_shape(what, view, (1, CROP, CROP), f"One channel; crop_size is {CROP} here.")
                expect_dtype(what, view, torch.float32, "The network needs float32, whatever the dtype of the image.")


@check_part()
def _check_noise_of_pairs(NoisyPairDataset, clean: bool) -> None:
    """Gaussian noise of mean 0 in both views, or in the input alone; the two views are independent."""
    side, sigma = 60, 0.1
    option = f"with clean_target={clean}"
    for name, level in LEVELS.items():
        image = np.full((side, side), level, np.float32)
        item = NoisyPairDataset([image], sigma, crop_size=side, clean_target=clean)[0]
        input, target = (np.asarray(view.detach(), dtype=np.float64)[0] - level for view in item)
        picture = partial(_pair_picture, image, input + level, target + level, clean)
        if clean and target.any():
            found = "the same noise as in the input" if np.array_equal(input, target) else "noise"
            if not input.any():
                found = "noise, and none in the input"
            fail(f"Value of the target {option}", found, "the clean crop", "Input first: (noisy, clean).", picture)
        for view, noise in (("input", input),) if clean else (("input", input), ("target", target)):
            if not noise.any():
                look = "Both views are noisy." if not clean else "The network gets the noisy view."
                fail(f"Value of the {view} {option}", "no noise", "noise of deviation sigma", look, picture)
        if not clean:
            if np.array_equal(input, target):
                fail(f"Independence of the two views {option}", "the same noise twice", "other noise in each",
                     "Add noise twice, with new numbers. Else the network learns to keep it.", picture)  # fmt: skip
            correlation = np.corrcoef(input.ravel(), target.ravel())[0, 1] if input.std() and target.std() else 0
            if abs(correlation) > CERTAIN / side:
                fail(f"Independence of the two views {option}", f"a correlation of {correlation:.2f}", "0",
                     "Both views start from the clean crop, and each gets its own noise.", picture)  # fmt: skip
        for view, noise in (("input", input),) if clean else (("input", input), ("target", target)):
            _expect_gaussian(f"the noise of the {view} {option} on {name} image", noise, level, sigma, picture)


@check_part()
def _check_windows(make, images: list[np.ndarray], clean: bool) -> None:
    """Both views show the same window, every window can come, and a clean target is exact."""
    dataset = make(clean_target=clean)
    windows = [np.floor(image.astype(np.float64) / STEP).astype(int) for image in images]
    starts = []
    for index in [0, 1, *[2] * 150]:
        input, target = dataset[index]
        start, other = (_start(_numbers(view), windows[index]) for view in (input, target))
        if start is None or other is None or start != other:
            turned = [_orientation(_numbers(view), windows[index]) for view in (input, target)]
            found, expected = "two views of different pixels", "the same window in both"
            look = "Cut the window once, then make both views of it."
            if start is None and other is None and np.array_equal(_numbers(input), _numbers(target)):
                found, expected, look = "pixels that are not one window of its image", f"a window of image {index}", ""
            elif None not in turned and turned[0] != turned[1]:
                found, look = "two views turned or flipped differently", "Do the same to both, or to neither."
            fail(f"Value of item {index}", found, expected, look, _pair_picture(
                images[index], input.detach().numpy()[0], target.detach().numpy()[0], clean))  # fmt: skip
        if clean:
            row, column = other
            right = images[index][row : row + CROP, column : column + CROP].astype(np.float32)
            expect_close("the target with clean_target=True", target[0], right, "It is the crop itself.", 1e-6)
        if index == 2:
            starts.append(start)
    _expect_all_starts(starts, n_rows=3, n_columns=2)


@check_part()
def _check_fresh_noise(NoisyPairDataset) -> None:
    """Each access gives other noise, also where only one window fits."""
    image = np.full((CROP, CROP), 0.5)
    for clean in (False, True):
        dataset = NoisyPairDataset([image, image], 0.1, crop_size=CROP, clean_target=clean)
        views = [view.detach().numpy()[0].copy() for _ in range(40) for index in (0, 1)
                 for view in dataset[index][: 1 if clean else 2]]  # fmt: skip
        if len({view.tobytes() for view in views}) < len(views):
            seen: dict[bytes, int] = {}
            first, again = next((seen[key], n) for n, view in enumerate(views)
                                if (key := view.tobytes()) in seen or seen.update({key: n}))  # fmt: skip
            fail("Randomness of the noise", "the same noise in two views", "new noise at each access",
                 "Draw the noise in __getitem__, not once for each image, and not from a few seeds.",
                 _side_by_side({"yours, one view": views[first], "yours, another view": views[again]}, "other noise"),
                 )  # fmt: skip


def _draw(dataset: Dataset, n: int = 16) -> list[np.ndarray]:
    """The windows of some items of one image, the noise of their inputs, and that of their targets."""
    items = [[view.detach().double().numpy()[0] for view in dataset[0]] for _ in range(n)]
    windows = [[np.floor(view / STEP) for view in item] for item in items]
    noise = np.array(items) - np.array(windows) * STEP
    return [np.array(windows)[:, 0], noise[:, 0], noise[:, 1]]


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.allclose(first, second, rtol=0, atol=SIGMA / 100)  # float32 rounds differently at other grey values


PARTS = "crops", "noise in the input", "noise in the target"


@check_part()
def _check_reproducible(make) -> None:
    """Windows and noise depend on the seed and on torch's seed alone."""
    for clean in (False, True):
        draws = [_draw(make(noise=noise, clean_target=clean)) for noise in (1, 2)]
        for part, first, again in zip(PARTS, *draws, strict=True):
            if not _same(first, again):
                fail("Randomness", f"other {part} with the same seed and torch.manual_seed", f"the same {part}",
                     "random, np.random and unseeded generators do not depend on torch's seed.")  # fmt: skip
    for part, first, other in zip(PARTS, _draw(make(seed=0)), _draw(make(seed=1)), strict=True):
        if _same(first, other):
            fail("Randomness", f"the same {part} with seed=0 and seed=1", "others for another seed",
                 "Crops and noise must depend on seed.")  # fmt: skip


@check_part()
def _check_workers(make, NoisyPairDataset) -> None:
    """A loader's workers get copies of one data set, and each copy must draw other crops and other noise."""

    def only_crops(images, masks, transform, crop_size):
        return NoisyPairDataset([(image - image.min()) / np.ptp(image) for image in images], 0.0, crop_size=crop_size)

    def only_noise(images, masks, transform, crop_size):
        return NoisyPairDataset([np.full(image.shape, 0.5) for image in images], SIGMA, crop_size=crop_size)

    for what, one, *both in _draws_in_workers(make, _draw):
        for part, first, second in zip(PARTS, *both, strict=True):
            if _same(first, second):
                if _right_in_real_workers(only_crops) and _right_in_real_workers(only_noise):
                    return
                fail(what, f"the same {part} in two {one}s", f"other {part} in each {one}", COPIED)


def _check_defaults(NoisyPairDataset, make) -> None:
    torch.manual_seed(0)
    input, target = NoisyPairDataset([np.full((256, 256), 0.5, np.float32)], 0.1)[0]
    expect_shape("an item with crop_size left out", input, (1, 256, 256))
    if float(target.std()) < 1e-6:
        fail("Value of the target with clean_target left out", "a clean crop", "a noisy one", "Its default is False.")
    if not all(map(_same, _draw(make()), _draw(make(seed=0)))):
        fail("Randomness with seed left out", "other crops than with seed=0", "the same crops", "Its default is 0.")


def _pair_picture(image: np.ndarray, input: np.ndarray, target: np.ndarray, clean: bool) -> Panels:
    parts = [np.asarray(array, dtype=np.float64)[:24, :24] for array in (image, input, target, input - target)]
    titles = "the image", "your input", "your target", "your input minus your target"
    panels = [Panel(title, part, "difference" if "minus" in title else "values")
              for title, part in zip(titles, parts, strict=True)]  # fmt: skip
    expected = "a noisy and the clean view" if clean else "two noisy views"
    found = [f"{part.std():.4g}" for part in parts[1:]]
    return Panels(tuple(panels), f"Input and target of one item: found standard deviations of {found[0]} and "
                  f"{found[1]}, of their difference {found[2]}; expected {expected} of the same pixels.")  # fmt: skip
