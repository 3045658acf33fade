"""Valid files, in rare forms, give their pixels, or a refusal in words; never other pixels."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from course_utils.data import DataError
from course_utils.data.decoding import decode_file
from course_utils.own_images import read_image

GREY = (np.arange(67 * 53).reshape(67, 53) * 37 % 251).astype(np.uint8)


def tiff(pixels: np.ndarray, **options) -> bytes:
    with tifffile.TiffWriter(file := io.BytesIO(), byteorder=options.pop("byteorder", "<")) as writer:
        writer.write(pixels, **options)
    return file.getvalue()


def decoded(data: bytes, is_mask: bool = False) -> np.ndarray:
    return decode_file("a.tif", data, "a.tif", is_mask)


def lzw(data: bytes) -> bytes:
    """Codes of 9 bits: after 250 bytes the table is emptied."""
    codes = [code for i, byte in enumerate(data) for code in ([256] * (i % 250 == 0) + [byte])] + [257]
    return np.packbits([code >> bit & 1 for code in codes for bit in range(8, -1, -1)]).tobytes()


def patched(data: bytes, changes: dict[int, tuple[int, ...]], more: bytes = b"") -> bytes:
    """A TIFF whose tags have other numbers (as many as before), with more bytes at its end."""
    copy = bytearray(data + more)
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        for tag, values in changes.items():
            one = opened.pages[0].tags[tag]
            layout = f"{opened.byteorder}{one.count}{ {3: 'H', 4: 'I'}[one.dtype] }"
            struct.pack_into(layout, copy, one.valueoffset, *values)
    return bytes(copy)


def with_lzw(data: bytes) -> bytes:
    """A TIFF with deflate, whose pieces get LZW instead."""
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages[0]
        places = zip(page.dataoffsets, page.databytecounts, strict=True)
        pieces = [lzw(zlib.decompress(data[start : start + count])) for start, count in places]
        tags = (324, 325) if page.is_tiled else (273, 279)
    ends = np.cumsum([len(data), *map(len, pieces)]).tolist()
    changes = {259: (5,), tags[0]: ends[:-1], tags[1]: [*map(len, pieces)]}
    return patched(data, changes, b"".join(pieces))


FORMS = {
    "strips": {"rowsperstrip": 10},
    "differences": {"rowsperstrip": 10, "predictor": True},
    "tiles": {"tile": (32, 32)},
    "planes": {"planarconfig": "separate"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_lzw_gives_the_pixels_of_the_uncompressed_file(dtype, order, form):
    real = dtype.startswith("float")
    highest = 1.0 if real else float(np.iinfo(dtype).max)
    grey = np.linspace(0 if dtype[0] == "u" else -highest, highest * 0.999, 35 * 33).reshape(35, 33).astype(dtype)
    colours = np.stack([grey, grey[::-1], grey // 2 if not real else grey / 2], axis=-1)
    for pixels, photometric in ((grey, "minisblack"), (colours, "rgb"), (np.dstack([grey] * 3), "rgb")):
        options = dict(FORMS[form])
        if pixels.ndim == 2 or options.get("planarconfig"):
            pixels = pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
            options = options if pixels.ndim == 3 else {k: v for k, v in options.items() if k != "planarconfig"}
        options |= {"photometric": photometric, "byteorder": order}
        if real and options.get("predictor"):
            continue
        expected = decoded(tiff(pixels, **{k: v for k, v in options.items() if k != "predictor"}))
        found = decoded(with_lzw(tiff(pixels, **options, compression="zlib")))
        assert found.dtype == expected.dtype == np.dtype(dtype)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("order", "<>")
def test_ids_of_an_lzw_mask_are_the_stored_ones(order):
    for dtype in ("uint16", "int32", "uint32"):
        ids = (np.arange(67 * 53).reshape(67, 53) // 7).astype(dtype)
        data = with_lzw(tiff(ids, byteorder=order, compression="zlib"))
        assert np.array_equal(decoded(data, is_mask=True), ids)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "zstd", "tiff_adobe_deflate"])
def test_alpha_is_dropped_whatever_the_compression(mode, compression):
    picture = Image.fromarray(GREY).convert(mode)
    picture.putalpha(Image.fromarray(255 - GREY))
    picture.save(file := io.BytesIO(), "TIFF", compression=compression)
    assert np.array_equal(decoded(file.getvalue()), GREY)


def packed(pixels: np.ndarray, bits: int) -> bytes:
    """Rows of numbers with fewer bits than their bytes have, in a TIFF."""
    rows = ["".join(f"{value:0{bits}b}" for value in row) for row in pixels.tolist()]
    rows = [row.ljust(-(-len(row) // 8) * 8, "0") for row in rows]
    data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    whole = tiff(np.zeros((67, len(data) // 67), np.uint8))
    return patched(whole, {256: (53,), 258: (bits,), 273: (len(whole),), 279: (len(data),)}, data)


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_packed_bits_are_the_stored_numbers(bits):
    pixels = (np.arange(67 * 53).reshape(67, 53) * 37 % (1 << bits)).astype(np.uint16)
    for is_mask in (False, True):
        assert np.array_equal(decoded(packed(pixels, bits), is_mask), pixels)


def test_a_preview_before_the_image_is_not_the_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY[::4, ::4], subfiletype=1)
        writer.write(GREY)
    assert np.array_equal(decoded((tmp_path / "a.tif").read_bytes()), GREY)
    assert np.array_equal(read_image(tmp_path / "a.tif"), GREY)


PIXELS = '<Pixels DimensionOrder="XYZCT" ID="P" SizeC="{c}" SizeT="{t}" SizeX="53" SizeY="67" SizeZ="1" Type="uint8">'
PIXELS += '<Channel ID="C" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="{n}">{u}</TiffData></Pixels>'


def ome(c: int = 1, t: int = 1, n: int = 1, u: str = "", head: str = "") -> bytes:
    pixels = PIXELS.format(c=c, t=t, n=n, u=u)
    name = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f'<?xml version="1.0"?>{head}<OME xmlns="{name}" UUID="urn:a"><Image ID="I">{pixels}</Image></OME>'
    return tiff(GREY, description=text, metadata=None)


@pytest.mark.parametrize("number", [0, 1])
def test_one_file_of_an_image_in_several_gives_its_page(number, tmp_path):
    (tmp_path / "a.tif").write_bytes(ome(c=2, u='<UUID FileName="b.tif">urn:b</UUID>' * number))
    assert np.array_equal(decoded((tmp_path / "a.tif").read_bytes()), GREY)
    assert np.array_equal(read_image(tmp_path / "a.tif"), GREY)


DEFAULTS = '<!DOCTYPE OME [<!ATTLIST Channel SizeT CDATA "200000000">]>'


@pytest.mark.parametrize("claim", [{"t": 200_000_000}, {"c": 10**30}, {"n": 200_000_000}, {"head": DEFAULTS}])
def test_planes_without_end_are_refused_before_lists_are_made(claim, tmp_path):
    (tmp_path / "a.tif").write_bytes(ome(**claim))
    for read in (lambda: decoded((tmp_path / "a.tif").read_bytes()), lambda: read_image(tmp_path / "a.tif")):
        began = time.process_time()
        with pytest.raises(DataError, match="a.tif .* claims more than 1000000 planes"):
            read()
        assert time.process_time() - began < 1


# more bytes than needed


def test_strips_that_are_filled_up_counted_too_long_or_shared_are_read():
    padded = tiff(np.vstack([GREY, np.zeros((3, 53), np.uint8)]), rowsperstrip=10)
    blank = tiff(np.zeros((60, 53), np.uint8), rowsperstrip=10)
    whole = tiff(GREY)
    zipped = tiff(np.vstack([GREY, np.zeros((3, 53), np.uint8)]), rowsperstrip=10, compression="zlib")
    with tifffile.TiffFile(io.BytesIO(blank)) as opened:
        start = opened.pages[0].dataoffsets[0]
    with tifffile.TiffFile(io.BytesIO(whole)) as opened:
        count = opened.pages[0].tags[279]
    unknown = bytearray(whole)
    struct.pack_into("<H", unknown, count.offset, 280)  # MinSampleValue
    for data in (
        patched(padded, {257: (67,)}),
        patched(zipped, {257: (67,)}),
        patched(whole, {279: (67 * 53 + 9,)}, bytes(9)),
        bytes(unknown),
        patched(blank, {273: (start,) * 6}),
    ):
        assert np.array_equal(decoded(data), tifffile.imread(io.BytesIO(data)))
    for data in (patched(whole, {279: (67 * 53 - 1,)}), patched(zipped, {257: (64,)})[:-20]):
        with pytest.raises(DataError, match="a.tif"):
            decoded(data)


def test_tiles_that_are_left_out_are_zero():
    tile = GREY[:16, :16].copy()
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(iter([tile, None, tile, None]), shape=(32, 32), dtype="uint8", tile=(16, 16))
    assert np.array_equal(decoded(file.getvalue()), tifffile.imread(io.BytesIO(file.getvalue())))
    assert decoded(file.getvalue()).any()


@pytest.mark.parametrize("size", ["image size", "file size"])
def test_bmp_with_bytes_after_or_before_its_rows(size):
    Image.fromarray(GREY).save(file := io.BytesIO(), "BMP")
    data = bytearray(file.getvalue())
    if size == "file size":
        data[34:38] = bytes(4)
    assert np.array_equal(decoded(bytes(data) + bytes(100)), GREY)
    struct.pack_into("<I", data, 10, 1078 + 6)
    struct.pack_into("<I", data, 2, len(data) + 6)
    assert np.array_equal(decoded(bytes(data[:1078]) + bytes(6) + bytes(data[1078:])), GREY)


def png(pixels: bytes, colours: int = 0, laced: int = 0, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    header = struct.pack(">IIBBBBB", 53, 67, 8, colours, 0, 0, laced)
    chunks = ((b"IHDR", header), *more, (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one)) for kind, one in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_png_with_right_checksums_must_have_all_pixels_one_header_and_all_colours():
    rows = b"".join(b"\0" + row.tobytes() for row in GREY)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    laced = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in GREY[y::dy, x::dx])
    for pixels, how in ((rows, 0), (laced, 1)):
        assert np.array_equal(decoded(png(pixels, laced=how)), GREY)
        for cut in (1, 54, len(pixels) - 10):
            with pytest.raises(DataError, match="pixel data have"):
                decoded(png(pixels[:-cut], laced=how))
    second = (b"IHDR", struct.pack(">IIBBBBB", 53, 30, 8, 0, 0, 0, 0))
    with pytest.raises(DataError, match="header"):
        decoded(png(rows, more=(second,)))
    for n_colours in (251, 250):
        data = png(rows, 3, more=((b"PLTE", np.repeat(np.arange(n_colours), 3).astype(np.uint8).tobytes()),))
        if n_colours == 251:
            assert np.array_equal(decoded(data), GREY)
        else:
            with pytest.raises(DataError, match="colour 250"):
                decoded(data)


def test_a_png_of_ninety_million_pixels_is_read():
    Image.fromarray(np.zeros((9500, 9500), np.uint8)).save(file := io.BytesIO(), "PNG")
    assert decoded(file.getvalue()).shape == (9500, 9500)
