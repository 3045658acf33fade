"""Decode one file to an array, and judge whether images and masks are what the course needs.

A TIFF is decoded by tifffile. For the compressions that tifffile leaves to the package imagecodecs (LZW, JPEG, CCITT,
Zstandard) and for all other formats there is Pillow: matplotlib, imageio and scikit-image need it anyway, while
imagecodecs would be one more package of 15 MB that Kaggle does not have.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from course_utils.data.headers import PALETTE, check_bmp, check_claim, check_tiff
from course_utils.data.reading import Unusable, decode_pillow, first_image, pixels_of_page

MINISWHITE = 0  # value of the TIFF tag PhotometricInterpretation
ALPHA = (1, 2)  # values of the TIFF tag ExtraSamples

LABEL_IMAGE = "a label image (H, W) of integers, 0 for background and one id for each nucleus"
LABEL_IT = (
    "Use the file that has one id for each nucleus, or make the ids: skimage.measure.label(mask > 0), where nuclei do "
    "not touch"
)
NEAREST = "Resize or turn label images with nearest neighbour (order 0), and save them as TIFF or PNG"


class DataError(ValueError):
    """A data source is missing, unreadable or inconsistent; the message names the file and what to do."""


class OnlyAlpha(Unusable):
    """The colours are the same everywhere: what there is to see is in the alpha channel."""


# --- bytes to arrays --------------------------------------------------------------------------------------------------


def decode(data: bytes, suffix: str, is_mask: bool = False) -> np.ndarray:
    """Decode a TIFF, PNG, BMP, GIF or JPEG file to a writable array in native byte order.

    The content decides the format, not the suffix. The array is (H, W) where that is unambiguous: axes of length one,
    alpha, channels that are equal and channels that are zero are dropped; grey palettes become grey values. Of a mask
    with a colour palette the indices are the ids; those of an image are intensities if they go from dark to bright.
    Images whose zeros are white (MINISWHITE) are inverted.

    Raises:
        Unusable: a mask in JPEG, an animation, 16 bits in several channels, content in the alpha channel only.
        Exception: damaged data; decoders raise many kinds.
    """
    if is_mask and data[:2] == b"\xff\xd8":
        raise Unusable("is a JPEG file, whose compression changes ids: use the label image in TIFF or PNG.")
    array = _decode_tiff(data, is_mask) if data[:2] in (b"II", b"MM") else _decode_picture(data, suffix, is_mask)
    return np.require(_one_channel(array), array.dtype.newbyteorder("="), ["C", "W", "O"])


def decode_file(name: str, data: bytes, where: str, is_mask: bool = False) -> np.ndarray:
    """`decode` the bytes of a file; every problem becomes a `DataError` that begins with `where`."""
    try:
        return decode(data, posixpath.splitext(name)[1], is_mask)
    except Unusable as error:
        raise DataError(f"{where} {error}") from error
    except Exception as error:  # decoders raise many kinds of errors; the student needs the name of the file
        raise DataError(
            f"{where} cannot be decoded: {reason(error)}. The file is damaged or in an unusual format: "
            "copy it again, or save it as uncompressed TIFF."
        ) from error


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _decode_tiff(data: bytes, is_mask: bool) -> np.ndarray:
    """From some truncated files tifffile returns what is left (an empty array if the directory at the end is missing,
    tiles cut short), and damaged directories can claim anything. So `check_tiff` goes first.
    """
    import tifffile

    check_tiff(data)
    with io.BytesIO(data) as file, tifffile.TiffFile(file) as tiff:  # a TiffFile is in a cycle, and keeps its file
        page, source = first_image(tiff)
        if is_mask and "JPEG" in page.compression.name:
            raise Unusable("has JPEG compression, which changes ids: use the label image without it.")
        check_claim(source.size, source.nbytes, len(data))  # the text in a file can claim another shape
        too_large = source.size > page.size * len(tiff.pages) and source.nbytes > len(data)
        if too_large or not {page.imagelength, page.imagewidth} - {1} <= set(source.shape):
            raise ValueError(f"the text in the file claims the shape {source.shape}, its tags {page.shape}")
        inverted = False
        try:
            array, axes = source.asarray(), source.axes
        except (ValueError, ImportError, NotImplementedError) as error:
            missing = isinstance(error, ImportError) or "imagecodecs" in str(error)
            if not missing or (source is not page and len(source.pages) > 1):
                raise
            array, axes, inverted = pixels_of_page(data, page, is_mask)
        if not array.size:
            raise ValueError("no pixels can be read from it")
        if page.photometric == PALETTE and array.ndim == 2 and page.colormap is not None:
            return _from_palette(array, (page.colormap >> 8).T[array].astype(np.uint8), is_mask)
        if axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        if page.extrasamples and page.extrasamples[-1] in ALPHA and axes in ("YXS", "SYX"):
            array = _without_alpha(array)
        if page.photometric == MINISWHITE and array.dtype in (bool, np.uint8, np.uint16):
            full = array.dtype.type((1 << page.bitspersample) - 1)
            stored = full ^ array if inverted else array
            # The ids of a mask are the stored numbers, unless 0 is rare in them: then background was stored as white.
            as_stored = is_mask and np.count_nonzero(stored == 0) >= np.count_nonzero(stored == full)
            return stored if as_stored else full ^ stored
        return array


def _decode_picture(data: bytes, suffix: str, is_mask: bool) -> np.ndarray:
    if data[:4] == b"\x89PNG" and data[24:25] == b"\x10" and data[25:26] in b"\x02\x04\x06":
        raise Unusable("has 16 bits in several channels, of which only 8 can be read: save one channel of it.")
    if data[:2] == b"BM":
        check_bmp(data)
    array, mode, colours = decode_pillow(data, suffix, ("PNG", "BMP", "GIF", "JPEG"))
    if mode == "P":
        return _from_palette(array, colours, is_mask)
    return _without_alpha(array) if mode in ("LA", "RGBA") else array


def _from_palette(index: np.ndarray, colours: np.ndarray, is_mask: bool) -> np.ndarray:
    used, first = np.unique(index, return_index=True)
    grey, brightness = _one_channel(colours), colours.reshape(-1, 3)[first].sum(axis=1, dtype=int)
    if grey.ndim == 2 and (not is_mask or len(np.unique(grey)) == len(used)):
        return grey
    return index if is_mask or (np.diff(brightness) >= 0).all() else colours


def _without_alpha(array: np.ndarray) -> np.ndarray:
    colours, alpha = array[..., :-1], array[..., -1]
    if (colours == colours[:1, :1]).all() and (alpha != alpha[:1, :1]).any():
        raise OnlyAlpha("has one colour everywhere and its content in the alpha channel: save that channel alone.")
    return colours


def _one_channel(array: np.ndarray) -> np.ndarray:
    """(H, W) if axes of length one, channels that are zero and equal channels can be dropped; else unchanged."""
    if array.ndim < 3:
        return array
    if array.squeeze().ndim == 2:
        return array.squeeze()
    if array.ndim > 3 or array.shape[2] > 4:
        return array
    channels = [channel for channel in np.moveaxis(array, 2, 0) if channel.any()] or [array[..., 0]]
    return channels[0] if all(np.array_equal(channels[0], other) for other in channels[1:]) else array


# --- one image, one mask ----------------------------------------------------------------------------------------------


def check_image(image: np.ndarray, where: str) -> None:
    """Raise `DataError` unless an image is (H, W) uint8 or uint16; `where` is the file, for the message."""
    if image.ndim != 2:
        raise DataError(f"{where} has shape {image.shape}; expected a grey image (H, W): save one channel of it.")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{where} has dtype {image.dtype}; expected uint8 or uint16: save it with 8 or 16 bits.")


def check_mask(mask: np.ndarray, where: str) -> None:
    """Raise `DataError` unless a mask is (H, W) integer without negative ids; `where` is the file, for the message."""
    if mask.dtype == bool:
        raise DataError(f"{where} has dtype bool, which cannot tell nuclei apart; expected {LABEL_IMAGE}.")
    if not np.issubdtype(mask.dtype, np.integer):
        raise DataError(f"{where} has dtype {mask.dtype}; expected {LABEL_IMAGE}: save it as uint16.")
    if mask.ndim != 2:
        raise DataError(
            f"{where} has shape {mask.shape}; expected {LABEL_IMAGE}: save the one plane that holds the ids."
        )
    if mask.size and (mask.min() < 0 or mask.max() > np.iinfo(np.int32).max):
        raise DataError(
            f"{where} has ids from {mask.min()} to {mask.max()}; expected {LABEL_IMAGE}, from 0 to 2147483647: number "
            "the nuclei from 1 on, for example with skimage.segmentation.relabel_sequential."
        )


def has_dark_nuclei(image: np.ndarray, mask: np.ndarray) -> bool:
    """Whether nuclei are darker than the background, as in stained tissue and brightfield images.

    By more than a quarter of the image's standard deviation: masks that have nothing to do with brightness stay below
    that, and the nuclei of DSB2018 are brighter by at least 0.9 of it. Fewer than 50 pixels on either side say nothing.
    """
    contrast = None
    for step in (8, 1):  # every 8th row is enough where nuclei are bright
        rows, nuclei = image[::step], mask[::step] > 0
        n_nuclei = np.count_nonzero(nuclei)
        if min(n_nuclei, rows.size - n_nuclei) >= 50:
            contrast = rows[nuclei].mean() - rows[~nuclei].mean()
            if contrast > 0:
                return False
    return contrast is not None and bool(contrast < -0.25 * image.std())


def merge_masks(files: Iterable[tuple[str, bytes, str]], shape: tuple[int, ...]) -> tuple[np.ndarray, str, int]:
    """Draw a label image from mask files with one nucleus each: (name, bytes, where), in order of name.

    They get the ids 1, 2, ..., and a pixel of two nuclei belongs to the first. A file that covers the whole image is
    left out if there are others. Returns the mask (H, W) int32, in words what was lost, and the number of pixels in
    more than one file.
    """
    nuclei, lost, n_files = {}, [], 0
    for n_files, (name, data, where) in enumerate(files, start=1):
        try:
            one = decode_file(name, data, where, is_mask=True)
        except DataError as error:
            if not isinstance(error.__cause__, OnlyAlpha):
                raise
            lost.append(f"{name} has its nucleus in the alpha channel")
            continue
        if one.shape != shape:
            found = "several channels that differ" if one.ndim == 3 else f"shape {one.shape}"
            raise DataError(f"{where} has {found}; expected one channel of its image's shape {shape}.")
        nuclei[n_files] = name, np.flatnonzero(one)
    mask, times = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    for number, (name, pixels) in reversed(nuclei.items()):  # so that the first file has the last word
        if len(pixels) > 0.95 * mask.size and n_files > 1:
            lost.append(f"{name} covers the whole image")
        else:
            mask.flat[pixels] = number
            times.flat[pixels] += 1
    left = set(np.unique(mask).tolist()) - {0}
    for number, (name, pixels) in nuclei.items():
        if number not in left and len(pixels) <= 0.95 * mask.size:
            lost.append(f"{name} is covered by others" if len(pixels) else f"{name} is empty")
    more = ", ..." if len(lost) > 3 else ""
    what = f"{len(left)} of {n_files} nuclei left: {', '.join(lost[:3])}{more}" if lost else ""
    return mask, what, int(np.count_nonzero(times > 1))


# --- masks that are not label images ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MaskFeatures:
    """What tells a label image from a binary mask, a class map and damaged ids; `where` is the file, for messages.

    `values` and their `counts` include 0. `shared` counts regions beyond the first of each id, of comparable size; it
    is measured only where ids are few, or many in 8 bits. `lone` counts pixels of an id that differ from all four
    neighbours, one of which has another id.
    """

    where: str
    mask: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    shared: int
    lone: int

    @classmethod
    def of(cls, mask: np.ndarray, where: str) -> MaskFeatures:
        """Measure a mask (H, W) of integers."""
        lone = _lone_pixels(mask)
        values, counts = np.unique(mask[::4], return_counts=True)  # enough where ids are many and nothing is odd
        if lone or not 11 < len(values) <= 200 or values[0] != 0:
            values, counts = np.unique(mask, return_counts=True)
        # 8 bits hold 255 ids: with more nuclei than that some share one.
        measure = len(values) <= 11 or (len(values) > 200 and values[-1] == 255)
        return cls(where, mask, values, counts, _shared_regions(mask, values) if measure else 0, lone)

    @property
    def ids(self) -> list[int]:
        """The values without 0."""
        return self.values[self.values != 0].tolist()


def _shared_regions(mask: np.ndarray, values: np.ndarray) -> int:
    from scipy.ndimage import find_objects, label

    numbers = np.searchsorted(values, mask) + (values[0] != 0)
    shared = 0
    for number, box in enumerate(find_objects(numbers), start=1):
        regions, _ = label(numbers[box] == number, np.ones((3, 3)))
        areas = np.bincount(regions.ravel())[1:]
        shared += np.count_nonzero(areas >= areas.max() / 10) - 1  # specks do not count
    return shared


def _lone_pixels(mask: np.ndarray) -> int:
    above, here, below = (mask[row::8][: len(mask[2::8])] for row in range(3))
    if not ((here != above) & (here != below) & (here > 0)).any():
        return 0  # nothing in every 8th row: this is quick, and damaged masks have lone pixels everywhere
    lone = mask > 0
    vertical, horizontal = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    lone[1:] &= vertical
    lone[:-1] &= vertical
    lone[:, 1:] &= horizontal
    lone[:, :-1] &= horizontal
    if not lone.any():
        return 0
    rows, columns = np.divmod(np.flatnonzero(lone), mask.shape[1])
    padded = np.pad(mask, 1)
    around = [padded[rows + down, columns + right] for down, right in ((0, 1), (1, 0), (1, 2), (2, 1))]
    return np.count_nonzero(np.max(around, axis=0) > 0)


def check_label_images(masks: list[MaskFeatures], each: bool = True) -> None:
    """Raise `DataError` if the masks of a data set, or (with `each`) single ones among them, are not label images.

    The thresholds lie between what damage gives and what was found in the 497 masks of DSB2018 and the embedded ones,
    in crops of them, and in copies turned or downscaled with nearest neighbour:

    * background with an id: more than half of the masks have no 0, or an id on more than half of the image beside two
      others (nuclei cover at most 43 %); in one file: no 0, more than 3 ids, and one of them on all four sides;
    * ids shared by nuclei: 1 shared region for 2 ids in the set; in one file at least 3, and as many as ids, or 1 for 8
      of more than 200 (a nucleus may lie in two pieces);
    * the 0/1/2 map of background, interior and boundary, even if each image holds one nucleus;
    * ids interpolated or compressed: in one file at least 8 lone pixels, and 2 for 3 ids (after interpolation or JPEG
      at least 0.77 for an id; in true masks up to 0.3, if downscaled 8 times 0.6).
    """
    filled = [one for one in masks if one.ids]

    def refuse(found: list[MaskFeatures], what: str, to_do: str) -> None:
        raise DataError(
            f"{found[0].where} is not a label image: {what} ({len(found)} of {len(masks)} masks are like this). "
            f"Expected {LABEL_IMAGE}. {to_do}."
        )

    noisy = [one for one in filled if each and one.lone >= max(8, len(one.ids) * 2 / 3)]
    if found := [one for one in noisy if len(one.ids) > 10]:
        what = f"{len(found[0].ids)} ids, {found[0].lone} single pixels between other ids, as after interpolation or "
        refuse(found, f"{what}JPEG compression, or in a picture", f"Use the original file. {NEAREST}")
    no_zero = [one for one in masks if one.values[0] != 0]
    giant = [one for one in filled if len(one.ids) > 2 and one.counts[one.values != 0].max() > one.mask.size / 2]
    framed = [one for one in no_zero if each and len(one.ids) > 3 and _on_all_sides(one.mask)]
    for found in (no_zero, giant, framed):
        if len(found) > len(masks) / 2 or (found and found is framed):
            values, counts = found[0].values, found[0].counts
            number, share = values[counts.argmax()], counts.max() / counts.sum()
            what = f"the number {number} covers {share:.0%} of it, as the background does"
            what += ", and no pixel is 0" if values[0] != 0 else ""
            to_do = f"Set the number of the background to 0, for example: mask[mask == {number}] = 0"
            if share < 0.05:  # nuclei from border to border, as in tissue
                what, to_do = "no pixel is 0", "Set what is no nucleus to 0, if only a line between those that touch"
            refuse(found, what, to_do)

    shared = [one for one in filled if one.shared]
    odd = [one for one in shared if each and one.shared >= max(3, len(one.ids) / (1 if len(one.ids) < 11 else 8))]
    if odd or 2 * sum(one.shared for one in shared) > sum(len(one.ids) for one in filled):
        found = sorted(odd or shared, key=lambda one: -one.shared)
        ids, kind = found[0].ids, "in a binary mask" if len(found[0].ids) == 1 else "in a class map"
        kind += " or after interpolation" if found[0] in noisy else ""
        what = f"only {ids} as ids of {len(ids) + found[0].shared} separate regions, as {kind}"
        many = f"{found[0].shared} nuclei share an id with others, and no id is above 255"
        refuse(found, what if len(ids) < 11 else many, f"{LABEL_IT}. {NEAREST}")
    if filled and all(one.ids in ([1], [2], [1, 2]) for one in filled):
        from course_utils.targets import looks_like_boundary_target  # loads torch: only where there is a suspicion

        if all(looks_like_boundary_target(one.mask) for one in filled):
            refuse(filled, "1 and 2 are the classes interior and boundary, not ids", LABEL_IT)
    if noisy:
        what = f"{noisy[0].lone} single pixels lie between other ids, as after interpolation or JPEG compression"
        refuse(noisy, what, f"Use the original file. {NEAREST}")


def _on_all_sides(mask: np.ndarray) -> bool:
    return bool(set.intersection(*(set(side.tolist()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))))
