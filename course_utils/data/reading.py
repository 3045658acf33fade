"""Pixels by Pillow, for what tifffile leaves to the package imagecodecs, and the page of a TIFF that is its image."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from math import prod
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from course_utils.data.headers import DEFLATE, LZW, PALETTE, check_claim, check_jpeg, check_png

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

MAX_PLANES = 1_000_000  # that the text of an OME-TIFF may describe; they can be in other files
ZSTANDARD = 50000  # value of the TIFF tag Compression


class Unusable(ValueError):
    """A file can be decoded, but not used; the message is the end of a sentence that begins with the file name."""


def first_image(tiff: TiffFile) -> tuple[TiffPage, TiffPageSeries | TiffPage]:
    """The first page that is not a preview, and what to read: its series, or the page if the others are elsewhere."""
    page = next((page for page in tiff.pages if not page.subfiletype & 1), tiff.pages[0])
    if tiff.is_ome:
        _check_planes(tiff.ome_metadata)
        if len(tiff.pages) == 1:  # of several files, one for each channel
            return page, page
    return page, next((one for one in tiff.series if one.keyframe.index == page.index), page)


def _check_planes(text: str) -> None:
    """tifffile makes lists as long as the numbers in this text."""
    try:
        elements = list(ElementTree.fromstring(text).iter())
    except ElementTree.ParseError:
        return  # tifffile does not read it, either
    n_planes = 0.0
    for one in elements:
        n_planes += max(prod(max(0, int(one.get(f"Size{axis}", 1))) for axis in "CTZ"), 1)
        n_planes += max(int(one.get(name, 0)) for name in ("PlaneCount", "NumPlanes"))
        if one.tag[:-1].endswith("Along") and "Start" in one.attrib:
            n_planes += abs(float(one.get("End", 0)) - float(one.get("Start"))) / abs(float(one.get("Step", 1)))
    if not n_planes <= MAX_PLANES + len(elements):
        raise ValueError(f"the text in the file claims more than {MAX_PLANES} planes")


def pixels_of_page(data: bytes, page: TiffPage, is_mask: bool) -> tuple[np.ndarray, str, bool]:
    """The array of a page, its axes ("" if unknown), and whether zeros that are white (MINISWHITE) were inverted.

    Pillow confuses byte orders and signs, and reads 8 of 16 bits in several channels. So of LZW and Zstandard it only
    unpacks the bytes, as if they were grey pixels; what they mean says tifffile.
    """
    if (
        page.compression in (LZW, ZSTANDARD)
        and page.bitspersample in (1, 8, 16, 32, 64)
        and page.photometric in (0, 1, 2, 3)
        and (page.predictor, page.fillorder, page.imagedepth) in ((1, 1, 1), (2, 1, 1))
    ):
        return _unpacked(data, page), page.axes, False
    array, bits = decode_pillow(data, ".tif", ("TIFF",))[0], page.bitspersample
    foreign = array.itemsize > 1 and page.parent.byteorder == ">"
    if foreign or array.dtype != page.dtype or array.shape[:2] != (page.imagelength, page.imagewidth):
        raise Unusable(f"has {page.dtype} in an unusual form ({page.compression.name}): save it as uncompressed TIFF.")
    if bits in (2, 4) and page.photometric != PALETTE:  # Pillow scales them to 8 bits
        array = array // (255 // ((1 << bits) - 1))
    return array, "", array.dtype in (bool, np.uint8)  # Pillow mends MINISWHITE, but only for these


def _unpacked(data: bytes, page: TiffPage) -> np.ndarray:
    """The array of a page, whose pieces are appended to the file without their compression."""
    from tifffile import TiffFile

    length = page.imagelength
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip or length, length)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    width = ((page.tilewidth if page.is_tiled else page.imagewidth) * samples * page.bitspersample + 7) // 8
    pieces, places = [data], []
    end = len(data)
    for number, (start, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        if not count:  # a tile of zeros
            places.append((0, 0))
            continue
        n_rows = rows if page.is_tiled else min(rows, length - number % -(-length // rows) * rows)
        # A TIFF of this piece alone: sizes, 8 bits, compression, grey, where it is, 1 sample, rows, bytes.
        tags = (256, width), (257, n_rows), (258, 8), (259, page.compression), (262, 1), (273, 122), (277, 1)
        entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (278, n_rows), (279, count))]
        head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
        plain = decode_pillow(head + data[start : start + count], ".tif", ("TIFF",))[0]
        pieces.append(zlib.compress(plain, 0))  # tifffile stumbles over differences without any compression
        places.append((end, len(pieces[-1])))
        end += len(pieces[-1])
    with io.BytesIO(b"".join(pieces)) as file, TiffFile(file) as tiff:
        copy = tiff.pages[page.index]
        copy.compression = DEFLATE[0]
        copy.dataoffsets, copy.databytecounts = zip(*places, strict=True)
        return copy.asarray()


def decode_pillow(data: bytes, suffix: str, formats: tuple[str, ...]) -> tuple[np.ndarray, str, np.ndarray | None]:
    """The array, Pillow's name of its mode, and the colours if it has a palette."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ValueError("the file is empty")
    check_jpeg(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged metadata, which does not concern the pixels
        try:
            picture = Image.open(io.BytesIO(data), formats=formats)
            check_claim(*2 * (picture.width * picture.height * len(picture.getbands()),), len(data))
            if picture.format == "PNG":  # reading the pixels compares no checksums; `verify` uses the image up
                picture.verify()
                check_png(data)
                picture = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            raise ValueError(f"its content is not that of a {suffix} file") from None
        if picture.format == "GIF" and picture.tile[0][1] != (0, 0, *picture.size):
            raise ValueError("its frame does not cover the image")
        if getattr(picture, "n_frames", 1) > 1:
            raise Unusable(f"holds {picture.n_frames} images: save the one that belongs here.")
        if picture.mode == "P":
            index = np.asarray(picture)
            if picture.format == "PNG" and index.max() >= len(picture.getpalette() or ()) // 3:
                raise ValueError(f"it has pixels of colour {index.max()}, which its palette lacks")
            return index, "P", np.asarray(picture.convert("RGB"))
        if picture.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and not picture.mode.startswith("I"):
            picture = picture.convert("RGBA" if "A" in picture.mode.upper().replace("LAB", "") else "RGB")
        return np.asarray(picture), picture.mode, None
