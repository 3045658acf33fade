"""Images of one's own: from any image to a label image, with warnings where it should not be believed (notebook 08).

A network is at its best on images like those it was trained on. `segment_image` makes an image like them, as far as
that goes: one channel, intensities by percentiles, nuclei of the trained size. It works in tiles: besides the image and
its label image, memory does not grow with the number of pixels. What it cannot mend it says, as `ImageWarning`s. An
argument that is not what its description says is a `ValueError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy import ndimage

from course_utils.arguments import check_arguments
from course_utils.data import DataError
from course_utils.data.decoding import decode_file
from course_utils.data.headers import check_tiff
from course_utils.data.reading import first_image
from course_utils.exploration import nucleus_areas, standardize
from course_utils.measurements import median_diameter
from course_utils.metrics import count_matches, iou_matrix
from course_utils.tiles import tiles_of

MAX_CHANNELS = 5  # more planes are rather a stack
# Limits of the warnings. The 497 images of DSB2018 and the 119 embedded ones stay on the right side of all of them.
MAX_MEDIAN = 0.6  # of the median on the scale of the percentiles: there at most 0.19, in the inverted images from 0.81
MIN_LEVELS = 8  # grey levels between the percentiles: there at least 23
MIN_CONTRAST = 10  # distance of the percentiles in standard deviations of the noise: there at least 22, of noise 5.2
MAX_UNEVEN = 0.3  # of the background, on the scale of the percentiles: there at most 0.23
MAX_SATURATED = 0.02  # share of the pixels with the largest value: there at most 0.01
MIN_AGREEMENT = 0.8  # F1 between the label images of two views


@dataclass(frozen=True)
class ImageWarning:
    """A reason not to believe a segmentation: a short `kind` to sort by, and a `text` for people."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TrainedSizes:
    """The nuclei that a network was trained on, as diameters of circles of equal area in pixels.

    `median` is that of all nuclei; `smallest` and `largest` are the 1st and 99th percentile of the images' medians.
    """

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, masks: Sequence[np.ndarray]) -> TrainedSizes:
        """Measure the masks of a training set.

        >>> TrainedSizes.of([np.ones((10, 10), dtype=int)]).median
        11.3
        """
        check_arguments(masks=masks, least=1)
        diameters = [2 * np.sqrt(nucleus_areas(mask) / np.pi) for mask in masks if mask.any()]
        medians = [np.median(found) for found in diameters]
        values = np.median(np.concatenate(diameters)), *np.percentile(medians, [1, 99])
        return cls(*(round(float(value), 1) for value in values))


# `TrainedSizes.of` the training masks, which are not in the repository; `benchmarks.own_images` measures them again.
DSB2018_SIZES = TrainedSizes(median=21.1, smallest=8.8, largest=51.8)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What `segment_image` found.

    Args:
        labels: int32 `(H, W)`, ids 1, 2, ... without gaps.
        grey: `(H, W)`, the channel that was segmented, not normalised.
        agreement: F1 at IoU 0.5 between the label images of the image and of its mirror image; nan if not compared.
        warnings: reasons not to believe it; empty if none is known.
    """

    labels: np.ndarray
    grey: np.ndarray
    agreement: float
    warnings: tuple[ImageWarning, ...]


def segment_image(
    model: torch.nn.Module,
    image: np.ndarray,
    diameter: float | None = None,
    threshold: float = 0.8,
    sizes: TrainedSizes = DSB2018_SIZES,
    channel: int | None = None,
    compare_views: bool = True,
    tile: int | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Segment an image of any size, with the network of notebook 05.

    Args:
        model: as for `predict`, with the classes background, interior, boundary.
        image: as for `to_grey`; it is not changed.
        diameter: of your nuclei, in pixels, if they are not of the trained size: the image is scaled by
            `sizes.median / diameter` before the network sees it, and the labels back. Use one value for all images
            that were taken alike.
        threshold: of `watershed_instances`; the default is the best one on DSB2018's validation images.
        sizes: the nuclei that the model was trained on.
        channel: as for `to_grey`.
        compare_views: whether to segment the mirror image, too, for `agreement`. It doubles the time. If the views
            disagree, half and a quarter of the size are tried on the middle of the image.
        tile: side of a tile in pixels of the scaled image; by default 1024, or 512 for images above 4096 x 4096. Each
            is predicted and segmented with a margin, and keeps the instances whose centroid is in it.
        on_tile: called after each tile with the number of finished ones and of all.

    Returns:
        A `Segmentation`, without specks below 10 pixels (after the scaling) and without instances that the network
        doubts (`remove_uncertain`). Its labels are those of the whole image segmented at once up to their ids, and up
        to the rounding of the network; with instance normalisation each tile is normalised on its own, as a smaller
        image would be. Only objects that reach over the margin may be cut; a warning says so.

    Raises:
        ValueError: as for `to_grey`, or an argument is not what it must be.

    >>> model = torch.nn.Conv2d(1, 3, 1)
    >>> [str(warning) for warning in segment_image(model, np.zeros((20, 30))).warnings][0]
    'All pixels have the value 0.'
    """
    tile = (1024 if np.size(image) <= 4096**2 else 512) if tile is None else tile
    check_arguments(model=model, threshold=threshold, tile=tile)
    check_diameter(diameter, sizes)
    scale = 1.0 if diameter is None else sizes.median / diameter
    grey, warnings = to_grey(image, channel)
    del image  # all its channels
    low, high = percentile_range(grey)
    warnings += _warnings_before(grey, low, high)
    if high == low:
        return Segmentation(np.zeros(grey.shape, dtype=np.int32), grey, math.nan, tuple(warnings))

    def at(scale: float, grey: np.ndarray, views: bool, on_tile: Callable[[int, int], None] | None = None):
        return _segment(model, grey, low, high, scale, threshold, views, tile, on_tile)

    labels, n_cut, agreement = at(scale, grey, compare_views, on_tile)
    warnings += _warnings_after(labels, agreement, sizes, scale, n_cut)
    if agreement < MIN_AGREEMENT:
        side = int(1024 / scale)
        middle = grey[tuple(slice(max(0, (length - side) // 2), (length + side) // 2) for length in grey.shape)]
        for smaller in (scale / 2, scale / 4):
            seen, _, again = at(smaller, middle, True)
            if seen.any() and again > max(MIN_AGREEMENT, agreement + 0.1):
                better = median_diameter(seen)
                text = f"Seen at a smaller scale the views agree (F1 {again:.2f}): try the diameter {better:.0f}."
                warnings.append(ImageWarning("size", text))
                break
    return Segmentation(labels, grey, agreement, tuple(warnings))


def check_diameter(diameter: float | None, sizes: TrainedSizes = DSB2018_SIZES) -> None:
    """Raise a `ValueError` for a diameter to which no image can sensibly be scaled."""
    if diameter is None:
        return
    check_arguments(diameter=diameter)
    least, most = sizes.median / 8, sizes.median * 20
    if not least <= diameter <= most:
        raise ValueError(f"diameter must be a number of pixels from {least:.1f} to {most:.0f}, but is {diameter!r}.")


def _segment(
    model: torch.nn.Module, grey: np.ndarray, low: float, high: float, scale: float, threshold: float, views: bool,
    tile: int, on_tile: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, int, float]:  # fmt: skip
    """The label image, the number of cut objects, and the agreement of the views."""
    labels = np.zeros(grey.shape, dtype=np.int32)
    n_found = n_cut = n_matched = n_compared = 0
    tiles = tiles_of(grey.shape, scale, tile)
    for number, one in enumerate(tiles, start=1):
        piece = standardize(one.cut(grey), mean=low, std=high - low)
        found = one.instances(model, piece, threshold, mirrored=False)
        own = one.owned(found)
        n_cut += len(np.intersect1d(own, one.at_seams(found)))
        if views:
            other = one.instances(model, piece, threshold, mirrored=True)
            n_compared += len(own) + len(one.owned(other))
            n_matched += count_matches(iou_matrix(np.where(np.isin(found, own), found, 0), other))
        n_found = one.paint(labels, found, own, n_found)
        if len(tiles) > 1:  # glibc keeps what is free, after ten tiles 750 MB
            with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems have no such function
                ctypes.CDLL(None).malloc_trim(0)
        if on_tile:
            on_tile(number, len(tiles))
    agreement = min(1.0, 2 * n_matched / n_compared) if n_compared else 1.0
    return labels, n_cut, agreement if views else math.nan


def to_grey(image: np.ndarray, channel: int | None = None) -> tuple[np.ndarray, list[ImageWarning]]:
    """One channel of an image, and a warning if there was a choice.

    Args:
        image: `(H, W)`; or `(H, W, C)` with up to 4 channels, as red, green, blue and perhaps alpha; or `(C, H, W)`
            with up to 5, as in a TIFF of a microscope. Axes of length 1 are dropped. Any real dtype, finite.
        channel: which one, from 1 on; then there may be more. Without it the colours of an 8-bit image are averaged,
            and of other channels the first is taken.

    Returns:
        `(H, W)`, the dtype of the image or float32, and the warnings.

    Raises:
        ValueError: it is something else, such as a stack or a time series, or has not that many channels.

    >>> grey, warnings = to_grey(np.array([[[0, 0, 9]]], dtype=np.uint8))
    >>> grey.tolist(), [warning.kind for warning in warnings]
    ([[3.0]], ['colour'])
    """
    check_arguments(image=image, ndim=None)
    image = image.astype(np.uint8) if image.dtype == bool else image
    shape = image.shape
    while image.ndim > 3 and 1 in image.shape:
        image = image.squeeze(image.shape.index(1))
    if image.ndim == 3 and image.shape[2] > 4 and (image.shape[0] <= MAX_CHANNELS or channel is not None):
        image = np.moveaxis(image, 0, -1)
    elif image.ndim != 2 and not (image.ndim == 3 and image.shape[2] <= 4):
        raise ValueError(
            f"An image must be (H, W), (H, W, C) with up to 4 channels, or (C, H, W) with up to {MAX_CHANNELS}, but "
            f"has the shape {shape}. Of a stack or a time series, save each plane, or their maximum, as an image."
        )
    n_channels = image.shape[2] if image.ndim == 3 else 1
    if channel is not None and not 1 <= channel <= n_channels:
        raise ValueError(f"There is no channel {channel}: the image has {n_channels}. The first is 1.")
    if n_channels == 1:
        image = image.reshape(image.shape[:2])
        check_arguments(image=image)
        return image, []
    if channel is not None:
        return np.ascontiguousarray(image[..., channel - 1]), []
    example = min(3, n_channels)
    choose = f"choose it by its number (`channel={example}`, in the command `--channel {example}`)"
    if n_channels > 4 or n_channels == 2 or image.dtype != np.uint8:
        text = f"Channel 1 of {n_channels} was segmented; if the nuclei are in another one, {choose}."
        return np.ascontiguousarray(image[..., 0]), [ImageWarning("channel", text)]
    colours = [image[..., at] for at in range(3)]
    if all(np.array_equal(colours[0], other) for other in colours[1:]):
        return np.ascontiguousarray(colours[0]), []
    grey = np.zeros(colours[0].shape, dtype=np.float32)
    for colour in colours:
        grey += colour
    grey /= 3
    text = "A colour image: the mean of red, green and blue was segmented; if the nuclei are in one of them, "
    text += f"{choose}."
    return grey, [ImageWarning("colour", text)]


def read_image(path: str | Path) -> np.ndarray:
    """Read a TIFF, PNG, BMP, GIF or JPEG file for `to_grey`: `(H, W)`, `(H, W, C)` or `(C, H, W)`.

    Raises:
        DataError: it is damaged, an animation, a stack, a time series, several images, or no image, or has NaN or
            infinite values; the message begins with its name.
        OSError: it cannot be read.
    """
    path = Path(path)
    data, sizes = path.read_bytes(), {}
    if data[:2] in (b"II", b"MM"):
        with contextlib.suppress(Exception), io.BytesIO(data) as file:  # `decode_file` says what is wrong
            check_tiff(data, pixels=False)
            tiff = tifffile.TiffFile(file)
            page, source = first_image(tiff)
            sizes = dict(zip(source.axes, source.shape, strict=True))
            if source is not page:
                sizes["images"] = sum(series.shape == source.shape for series in tiff.series)  # others: previews
    for axis, kind in (("Z", "planes of a stack"), ("T", "points in time"), ("images", "images")):
        if sizes.get(axis, 1) > 1:
            raise DataError(f"{path.name} holds {sizes[axis]} {kind}: save each, or their maximum, as an image.")
    image = decode_file(path.name, data, path.name)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DataError(f"{path.name} has NaN or infinite values: save it again without them (numpy: nan_to_num).")
    return image


def percentile_range(grey: np.ndarray) -> tuple[float, float]:
    """What `normalize_percentiles` maps to 0 and 1, found with less memory.

    >>> percentile_range(np.array([[0, 10]], dtype=np.uint8))
    (0.1, 9.98)
    """
    check_arguments(grey=grey)
    grey = grey.astype(np.uint8) if grey.dtype == bool else grey
    low, high = (float(value) for value in np.percentile(grey, [1.0, 99.8]))
    return (low, high) if high > low else (float(grey.min()), float(grey.max()))


def subtract_background(image: np.ndarray, size: int = 101) -> np.ndarray:
    """Remove uneven light: subtract what is left of an image after a smoothed morphological opening.

    Args:
        image: `(H, W)`, with bright nuclei.
        size: side in pixels of the square whose darkest pixel counts; larger than the nuclei and than what they touch.

    Returns:
        float32 `(H, W)`, not below 0.

    >>> subtract_background(np.full((5, 5), 7)).max()
    np.float32(0.0)
    """
    check_arguments(image=image, size=size)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 2)
    opened = ndimage.grey_opening(smooth, (size, size))
    return np.maximum(image - ndimage.gaussian_filter(opened, size / 4), 0).astype(np.float32)


# --- warnings ---------------------------------------------------------------------------------------------------------


def _warnings_before(grey: np.ndarray, low: float, high: float) -> list[ImageWarning]:
    """What can be seen in the image itself."""
    lowest, highest = float(grey.min()), float(grey.max())
    if lowest == highest:
        return [ImageWarning("empty", f"All pixels have the value {lowest:g}.")]
    found = []
    some = grey[:: max(1, len(grey) // 500)].astype(np.float64)
    noise = np.median(np.abs(np.diff(some, axis=1))) / 0.954 if some.shape[1] > 1 else 0.0
    if grey.dtype.kind in "iu" and high - low < MIN_LEVELS:
        text = "Nearly all pixels lie within {:.0f} grey level{}: use a longer exposure, or more bits."
        text = text.format(high - low, "" if round(high - low) == 1 else "s")
        found.append(ImageWarning("low contrast", text))
    elif high - low < MIN_CONTRAST * noise:
        text = f"Its contrast is only {(high - low) / noise:.0f} times its noise: there may be nothing in it."
        found.append(ImageWarning("low contrast", text))
    if (np.median(some) - low) / (high - low) > MAX_MEDIAN:
        text = "Dark nuclei on bright ground? The network knows bright ones on dark ground: invert the image."
        found.append(ImageWarning("inverted", text))
    elif _unevenness(grey) > MAX_UNEVEN * (high - low):
        text = "The background is brighter on one side than on the other: subtract it first."
        found.append(ImageWarning("uneven", text))
    share = np.count_nonzero(grey == highest) / grey.size
    if share > MAX_SATURATED:
        text = f"{share:.0%} of the pixels have the largest value, {highest:g}: saturated, intensities are wrong."
        found.append(ImageWarning("saturated", text))
    return found


def _unevenness(grey: np.ndarray) -> float:
    """How much the background differs between 16 parts of an image: the 10th percentile of each stands for it."""
    some = grey[tuple(slice(None, None, max(1, side // 512)) for side in grey.shape)]
    parts = [part for rows in np.array_split(some, 4) for part in np.array_split(rows, 4, axis=1) if part.size]
    return float(np.ptp(np.percentile([np.percentile(part, 10) for part in parts], [10, 90])))


def _warnings_after(
    labels: np.ndarray, agreement: float, sizes: TrainedSizes, scale: float, n_cut: int
) -> list[ImageWarning]:
    """What can be seen in the result."""
    if not labels.any():
        return [ImageWarning("empty", "No nucleus was found.")]
    found = []
    median = median_diameter(labels)
    if not sizes.smallest <= median * scale <= sizes.largest:
        text = (
            f"The nuclei have a median diameter of {median:.1f} pixels, those of the training images at this scale "
            f"from {sizes.smallest / scale:.1f} to {sizes.largest / scale:.1f}: try the diameter {median:.0f}."
        )
        found.append(ImageWarning("size", text))
    if n_cut:
        text = f"{n_cut} objects reach over the margin of a tile and may be cut: they are larger than nuclei."
        found.append(ImageWarning("cut", text))
    if agreement < MIN_AGREEMENT:
        text = f"The image and its mirror image give different nuclei (F1 {agreement:.2f}): look at the outlines."
        found.append(ImageWarning("views", text))
    return found
