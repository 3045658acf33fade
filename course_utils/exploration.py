"""Look at the data before learning from it (notebook 01): sizes, intensities, splits, crops.

Images are 2-D NumPy arrays `(H, W)`; masks are label images of the same shape: 0 is background, every other
value is the id of one nucleus, in no particular order and possibly with gaps.
An argument that is something else is a `ValueError`, which says what was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from course_utils.arguments import as_list, check_arguments


def count_shapes(images: Iterable[np.ndarray]) -> dict[tuple[int, int], int]:
    """Count how many images there are of each size.

    Args:
        images: 2-D arrays.

    Returns:
        `{(H, W): number of images}`; an empty dict for no images.

    >>> count_shapes([np.zeros((2, 3)), np.zeros((4, 4)), np.zeros((2, 3))])
    {(2, 3): 2, (4, 4): 1}
    """
    images = as_list(images=images)
    check_arguments(images=images, values=False)
    return dict(Counter(image.shape for image in images))


def intensity_statistics(images: Iterable[np.ndarray]) -> tuple[float, float]:
    """Mean and standard deviation over all pixels of all images.

    Every pixel has the same weight, so a large image has more weight than a small one.

    Args:
        images: arrays `(H, W)` of integers or floats, with at least one pixel in total; sizes may differ.

    Returns:
        `(mean, std)` as Python floats; `std` is the population standard deviation (division by the number of pixels).

    Raises:
        ValueError: there are no pixels.

    >>> intensity_statistics([np.array([[0, 0]]), np.array([[3]])])
    (1.0, 1.4142135623730951)
    """
    images = as_list(images=images)
    check_arguments(images=images, ndim=None)
    n_pixels = sum(image.size for image in images)
    if n_pixels == 0:
        raise ValueError("intensity_statistics needs at least one pixel, but found none.")
    mean = sum(image.sum(dtype=np.float64) for image in images) / n_pixels
    variance = sum(((image - mean) ** 2).sum(dtype=np.float64) for image in images) / n_pixels
    return float(mean), float(np.sqrt(variance))


def standardize(image: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Shift and scale intensities: `(image - mean) / std`, as float32.

    The result is float32 even if `mean` and `std` are NumPy float64 scalars: since NumPy 2 (NEP 50) those would turn
    a float32 image into a float64 one, which a float32 network does not accept.

    Args:
        image: array `(H, W)` of integers or floats; it is not changed.
        mean, std: finite numbers, as from `intensity_statistics`; `std` is above 0.

    Returns:
        A new float32 array of the same shape.

    >>> standardize(np.array([[0, 4]], dtype=np.uint8), mean=2.0, std=np.float64(2.0))
    array([[-1.,  1.]], dtype=float32)
    """
    check_arguments(image=image, mean=mean, std=std, ndim=None)
    # subtract in float64: float32 has 24 bits, too few for small differences between large numbers
    return ((image.astype(np.float64) - mean) / std).astype(np.float32)


def normalize_percentiles(image: np.ndarray, low: float = 1.0, high: float = 99.8) -> np.ndarray:
    """Scale one image so that its `low` percentile becomes 0 and its `high` percentile becomes 1.

    Each image is scaled by its own percentiles, so dim and bright images use the same range of values. Values are not
    clipped. The percentiles are those of StarDist (Schmidt et al., MICCAI 2018).

    Args:
        image: array of integers or floats; it is not changed.
        low, high: percentiles, 0 to 100, the lower one first.

    Returns:
        A new float32 array of the same shape; all zeros for a constant image.

    >>> normalize_percentiles(np.arange(1001).reshape(7, 143), low=0, high=100).max()
    np.float32(1.0)
    """
    check_arguments(image=image, percentiles=[low, high])
    if low >= high:
        raise ValueError(f"The percentile low must be below high, but they are {low} and {high}.")
    bottom, top = np.percentile(image.astype(np.float64), [low, high])
    if top <= bottom:  # nearly all pixels are equal: use the full range
        bottom, top = image.min(), image.max()
    span = float(top) - float(bottom)
    return standardize(image, mean=float(bottom), std=span if span > 0 else 1.0)


def split_train_val(samples: Iterable, every: int = 20) -> tuple[list, list]:
    """Set aside every `every`-th sample for validation.

    Args:
        samples: a list; it is not changed.
        every: 1 or more; with 20, the samples at indices 19, 39, 59, ... go to validation.

    Returns:
        `(train, val)`: two lists in the original order that together hold every sample once.

    Raises:
        ValueError: `every` is below 1.

    >>> split_train_val(list("abcdefg"), every=3)
    (['a', 'b', 'd', 'e', 'g'], ['c', 'f'])
    """
    check_arguments(every=every)
    samples = as_list(samples=samples)
    train = [sample for index, sample in enumerate(samples) if (index + 1) % every != 0]
    val = [sample for index, sample in enumerate(samples) if (index + 1) % every == 0]
    return train, val


def pad_to_size(image: np.ndarray, size: int) -> np.ndarray:
    """Pad an image by reflection at the bottom and at the right until no side is shorter than `size` pixels.

    Raises:
        ValueError: `image` is not an image, or `size` not a whole number of at least 1.
    """
    check_arguments(image=image, size=size, values=False)
    if min(image.shape) >= size:
        return image
    return np.pad(image, [(0, max(0, size - side)) for side in image.shape], mode="reflect")


def random_crop(
    image: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same randomly placed square window out of an image and its mask.

    Args:
        image, mask: 2-D arrays of the same shape `(H, W)`, of integers or floats; they are not changed.
        size: side of the window in pixels.
        rng: source of randomness. All positions, including the first and the last, are equally likely.

    Returns:
        `(image window, mask window)`, both `(size, size)`, dtypes kept.

    Raises:
        ValueError: the shapes differ, or the image is smaller than the window; the message names both sizes.

    >>> image = np.arange(16).reshape(4, 4)
    >>> window, same_window = random_crop(image, image, size=2, rng=np.random.default_rng(0))
    >>> window.shape, bool((window == same_window).all())
    ((2, 2), True)
    """
    check_arguments(image=image, mask=mask, size=size, rng=rng, values=False)
    height, width = image.shape
    if height < size or width < size:
        raise ValueError(
            f"The image is {height} x {width} pixels, smaller than the crop of {size} x {size}. "
            "Choose a smaller crop or pad the image first."
        )
    top = rng.integers(0, height - size + 1)  # the upper bound is exclusive: + 1 makes the last start possible
    left = rng.integers(0, width - size + 1)
    window = slice(top, top + size), slice(left, left + size)
    return image[window], mask[window]


def nucleus_areas(mask: np.ndarray) -> np.ndarray:
    """Area of each nucleus in pixels, in ascending order of the ids, without the background.

    >>> nucleus_areas(np.array([[0, 7, 7], [0, 0, 2]]))
    array([1, 2])
    """
    check_arguments(mask=mask)
    ids, areas = np.unique(mask, return_counts=True)
    return areas[ids != 0]


def touching_ids(mask: np.ndarray) -> np.ndarray:
    """Ids of the nuclei that touch another nucleus, sorted.

    Two nuclei touch if a pixel of one is one of the eight neighbours of a pixel of the other.

    Args:
        mask: label image `(H, W)`.

    Returns:
        1-D array of ids; empty if no nuclei touch.

    >>> touching_ids(np.array([[1, 1, 5], [0, 0, 0], [9, 0, 0]]))
    array([1, 5])
    """
    check_arguments(mask=mask)
    neighbours = [
        (mask[:, :-1], mask[:, 1:]),  # left and right
        (mask[:-1, :], mask[1:, :]),  # above and below
        (mask[:-1, :-1], mask[1:, 1:]),  # the two diagonals
        (mask[:-1, 1:], mask[1:, :-1]),
    ]
    found = []
    for a, b in neighbours:
        touching = (a != b) & (a != 0) & (b != 0)
        found += [a[touching], b[touching]]
    return np.unique(np.concatenate(found))
