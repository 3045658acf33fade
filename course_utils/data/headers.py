"""Compare what a file claims about its image with the bytes it has, before a decoder reserves memory or fills gaps.

Decoders trust headers: tifffile follows a chain of pages in a circle, and Pillow fills what is missing. Here every
number that leads to memory, time or pixels is compared with another one, above all with the length of the file.
"""

from __future__ import annotations

import struct
import zlib
from math import ceil, prod
from typing import NamedTuple

# A damaged header can claim any size: do not reserve memory for more values than a whole slide has.
MAX_PIXELS = 500_000_000
# No compression that is used for images makes more of a byte than about 1400 (LZW).
MAX_RATIO, FREE_BYTES = 3000, 64_000_000
MAX_PAGES = 1000
UNCOMPRESSED, LZW, DEFLATE = 1, 5, (8, 32946)  # values of the TIFF tag Compression
PALETTE, YCBCR = 3, 6  # values of PhotometricInterpretation

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SAMPLES, ROWS, PLANAR, TILE_WIDTH, TILE_LENGTH, DEPTH = 277, 278, 284, 322, 323, 32997
STRIPS, TILES = (273, 279), (324, 325)  # offsets and counts of bytes
STRUCTURE = {WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, 317, 320, 338, 339}
STRUCTURE |= {SAMPLES, ROWS, PLANAR, TILE_WIDTH, TILE_LENGTH, DEPTH, *STRIPS, *TILES}
# Bytes and letters of `struct` for the types of TIFF; only the whole numbers are read here.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


def check_claim(n_values: int, n_bytes: int, length: int) -> None:
    """Raise `ValueError` if an image of so many values or decoded bytes cannot come from a file of `length` bytes."""
    if n_values > MAX_PIXELS:
        raise ValueError(f"the file claims to hold {n_values} values; at most {MAX_PIXELS} are read")
    if n_bytes > max(FREE_BYTES, MAX_RATIO * length):
        raise ValueError(f"the file claims to hold {n_bytes} bytes of pixels, but has only {length} bytes")


class _Directory(NamedTuple):
    """A page of a TIFF: numbers by tag, where its own bytes are, and where the next page is."""

    tags: dict[int, tuple[int, ...]]
    used: list[tuple[int, int]]
    following: int


def check_tiff(data: bytes, pixels: bool = True) -> None:
    """Raise `ValueError` unless the directories of a TIFF or BigTIFF agree with each other and with the file.

    Pages must be at most 1000 and not in a circle, strips or tiles as many as the sizes need, inside the file and not
    one on the other. Without compression their bytes must be as many as the sizes need, or less than a row more; what
    deflate (which has a checksum) compressed must decode to as many; without `pixels` it is not decoded. The last strip
    may be filled up, tiles of zeros may be missing, and strips of one value may share their bytes.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (version,) = _unpack(order + "H", data, 2)
    if version not in (42, 43):
        raise ValueError(f"its version of TIFF is {version}; known are 42 and 43")
    (offset,) = _unpack(order + ("Q" if version == 43 else "I"), data, 8 if version == 43 else 4)
    pages: dict[int, _Directory] = {}
    n_tag_bytes = n_values = n_bytes = 0
    while offset:
        if offset in pages:
            raise ValueError("its list of pages goes in a circle")
        if len(pages) == MAX_PAGES:
            raise ValueError(f"the file claims to hold more than {MAX_PAGES} images: save the one that belongs here")
        pages[offset] = _read_directory(data, order, version == 43, offset)
        n_tag_bytes += sum(end - start for start, end in pages[offset].used)
        if n_tag_bytes > len(data):
            raise ValueError("its tags claim more bytes than the file has")
        more_values, more_bytes = _check_page(data, pages[offset], pixels)
        n_values, n_bytes = n_values + more_values, n_bytes + more_bytes
        check_claim(n_values, n_bytes, len(data))
        offset = pages[offset].following
    if not pages:
        raise ValueError("the file ends before the description of its image")
    used = [(0, 16 if version == 43 else 8)] + [part for page in pages.values() for part in page.used]
    pieces = [
        (start, start + n) for page in pages.values() for start, n in zip(*_pieces(page.tags)[1:], strict=True) if n
    ]
    among = set(pieces)
    if len(among) < len(pieces):  # some programs write blank pieces once
        blank = [part for part in among if len(set(data[slice(*part)])) == 1]
        pieces = [*blank, *(part for part in pieces if part not in set(blank))]
    last = (0, 0)
    for part in sorted([*used, *pieces]):
        if part[0] < last[1] and (part in among or last in among):
            raise ValueError("its pixel data overlap with other data of the file")
        last = max(last, part, key=lambda one: one[1])


def _unpack(layout: str, data: bytes, offset: int) -> tuple:
    if offset + struct.calcsize(layout) > len(data):
        raise ValueError(f"the file is truncated: it ends after {len(data)} bytes, before the data at {offset}")
    return struct.unpack_from(layout, data, offset)


def _read_directory(data: bytes, order: str, big: bool, offset: int) -> _Directory:
    (n_tags,) = _unpack(order + ("Q" if big else "H"), data, offset)
    if n_tags > 4096:
        raise ValueError(f"a page claims to have {n_tags} tags")
    start, entry, room = offset + (8 if big else 2), order + ("HHQ" if big else "HHI"), 8 if big else 4
    step = struct.calcsize(entry) + room
    end = start + n_tags * step
    tags: dict[int, tuple[int, ...]] = {}
    used = [(offset, end + room)]
    for position in range(start, end, step):
        tag, kind, count = _unpack(entry, data, position)
        n_bytes, value = count * SIZES.get(kind, 0), position + step - room
        if n_bytes > room:
            (value,) = _unpack(order + ("Q" if big else "I"), data, value)
            if value + n_bytes <= len(data):
                used.append((value, value + n_bytes))
        if not kind:
            raise ValueError(f"its tag {tag} is damaged (type 0)")
        if tag not in STRUCTURE:
            continue
        if tag in tags or kind not in LETTERS or not count:
            raise ValueError(f"its tag {tag} is damaged (type {kind}, {count} values)")
        if value + n_bytes > len(data):
            raise ValueError(f"the file is truncated: it ends after {len(data)} bytes, before the values of tag {tag}")
        tags[tag] = _unpack(f"{order}{count}{LETTERS[kind]}", data, value)
    # Some programs leave the offset of the next page out at the end of the file.
    following = _unpack(order + ("Q" if big else "I"), data, end)[0] if end + room <= len(data) else 0
    return _Directory(tags, used, following)


def _pieces(tags: dict[int, tuple[int, ...]]) -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
    """Whether there are tiles, and offsets and counts of bytes of the strips or tiles."""
    tiled = TILES[0] in tags
    offsets, counts = (tags.get(tag, ()) for tag in (TILES if tiled else STRIPS))
    if tiled and any(counts):  # tiles of zeros may be left out: place 0, 0 bytes
        there = [pair for pair in zip(offsets, counts, strict=False) if pair != (0, 0)]
    else:
        there = [*zip(offsets, counts, strict=False)]
    if not there or len(offsets) != len(counts) or min(map(min, there)) < 1:
        raise ValueError("the places of its pixel data are missing or damaged")
    return tiled, offsets, counts


def _check_page(data: bytes, page: _Directory, pixels: bool) -> tuple[int, int]:
    """Values and bytes of the decoded image."""
    tags = page.tags

    def one(tag: int, default: int = 0) -> int:
        return tags.get(tag, (default,))[0]

    width, length, depth, samples = one(WIDTH), one(LENGTH), one(DEPTH, 1), one(SAMPLES, 1)
    bits = tags.get(BITS, (1,))
    if min(width, length, depth, samples) < 1:
        raise ValueError(f"the file claims to hold an image of {width} x {length} x {depth} pixels")
    n_values = width * length * depth * samples
    if not (1 <= bits[0] <= 16 or bits[0] in (24, 32, 64)) or len(set(bits)) > 1 or len(bits) not in (1, samples):
        raise ValueError(f"its {samples} channels have {', '.join(map(str, bits[:5]))} bits")
    check_claim(n_values, ceil(n_values * bits[0] / 8), len(data))
    for tag in (WIDTH, LENGTH, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANAR, TILE_WIDTH, TILE_LENGTH):
        if len(tags.get(tag, (1,))) > 1:
            raise ValueError(f"its tag {tag} has {len(tags[tag])} values instead of one")
    if one(PLANAR, 1) not in (1, 2):
        raise ValueError(f"its order of channels is {one(PLANAR)}; known are 1 and 2")
    if STRIPS[0] in tags and one(COMPRESSION, 1) == UNCOMPRESSED and bits[0] % 8 == 0 and len(tags[STRIPS[0]]) == 1:
        tags.setdefault(STRIPS[1], (n_values * bits[0] // 8,))
    tiled, offsets, counts = _pieces(tags)
    if max(offset + count for offset, count in zip(offsets, counts, strict=True)) > len(data):
        raise ValueError(f"the file is truncated: it ends after {len(data)} bytes, in the pixel data")
    planes = samples if one(PLANAR, 1) == 2 else 1
    columns, rows = one(TILE_WIDTH) if tiled else width, one(TILE_LENGTH) if tiled else one(ROWS, length)
    rows = rows if tiled else min(rows, length)
    if min(columns, rows) < 1:
        raise ValueError(f"its pixel data are in pieces of {columns} x {rows} pixels")
    grid = depth * planes, ceil(length / rows), ceil(width / columns)
    if prod(grid) != len(offsets):
        raise ValueError(f"its pixel data are in {len(offsets)} pieces instead of {prod(grid)}")
    row_bytes = ceil(columns * samples // planes * bits[0] / 8)
    n_bytes = row_bytes * rows * len(offsets)
    check_claim(n_values, n_bytes, len(data))
    compression = one(COMPRESSION, 1)
    if compression == LZW and max(counts) > 1.5 * row_bytes * rows + 16:  # 12 bits for each byte, at the worst
        raise ValueError(f"its compressed pixel data have {max(counts)} bytes for {row_bytes * rows}")
    if PHOTOMETRIC not in tags:
        raise ValueError(f"it does not say whether zeros are black or white (tag {PHOTOMETRIC})")
    if compression in (UNCOMPRESSED, *DEFLATE * pixels) and one(PHOTOMETRIC) != YCBCR:
        for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
            if not count:
                continue
            row, full = number // grid[2] % grid[1], row_bytes * rows
            expected = full if tiled else min(full, row_bytes * (length - row * rows))
            found = count if compression == UNCOMPRESSED else _inflated(data[offset : offset + count], expected, full)
            # Some programs fill the last strip up, or count a few bytes too many; a row too many is damage.
            filled = compression == UNCOMPRESSED and 0 <= found - expected < row_bytes
            if found not in (expected, full) and not filled:
                raise ValueError(f"a piece of its pixel data has {found} bytes instead of {expected}")
    return n_values, n_bytes


def _inflated(data: bytes, expected: int, most: int) -> int:
    """Number of decoded bytes, at most one more than `most`; the checksum is compared."""
    decoder = zlib.decompressobj()
    found = len(decoder.decompress(data, most + 1))
    if found in (expected, most) and not decoder.eof:
        raise ValueError("the file is truncated: its compressed pixel data have no end")
    return found


def check_bmp(data: bytes) -> None:
    """Raise `ValueError` unless the rows of an uncompressed BMP end where its file does."""
    offset, header = _unpack("<II", data, 10)
    old = header == 12
    width, height, planes, bits = _unpack("<HHHH" if old else "<iiHH", data, 18)
    compression, n_colours = (0, 0) if old else _unpack("<I12xI", data, 30)
    height = abs(height)
    if min(width, height) < 1 or planes != 1:
        raise ValueError(f"the file claims to hold an image of {width} x {height} pixels in {planes} planes")
    rows = (width * bits + 31) // 32 * 4 * height
    check_claim(width * height, rows, len(data))
    palette = (3 if old else 4) * (n_colours or 1 << bits) if bits <= 8 else 0
    gap = offset - 14 - header - palette
    if bits <= 8 and not (0 <= gap < 4 or (gap > 0 and n_colours in (0, 1 << bits))):
        raise ValueError("its colours do not end where its pixel data begin")
    # Up to 3 bytes fill the file up; newer headers have a colour profile after the rows, and anything may follow if the
    # header says in a second place where they end.
    stated = not old and (rows == _unpack("<I", data, 34)[0] or offset + rows == _unpack("<I", data, 2)[0])
    most = 3 if header < 108 and not stated else len(data)
    if compression in (0, 3) and not 0 <= len(data) - offset - rows <= most:
        raise ValueError(f"its rows need {rows} bytes, but {len(data) - offset} follow its header")


def check_jpeg(data: bytes) -> None:
    """Raise `ValueError` if a JPEG has far more scans than its coefficients can need: each takes time."""
    if data[:2] == b"\xff\xd8" and (n_scans := data.count(b"\xff\xda")) > 100:
        raise ValueError(f"its pixels come in {n_scans} scans; at most 100 are read")


def check_png(data: bytes) -> None:
    """Raise `ValueError` unless a PNG, whose checksums are right, has one header and as many bytes as that needs."""
    at, kinds, parts = 8, [], []
    while at + 8 <= len(data) and kinds[-1:] != [b"IEND"]:
        n_bytes, kind = _unpack(">I4s", data, at)
        kinds.append(kind)
        parts += [data[at + 8 : at + 8 + n_bytes]] if kind == b"IDAT" else []
        at += 12 + n_bytes
    if kinds[:1] != [b"IHDR"] or kinds.count(b"IHDR") > 1:
        raise ValueError("it must begin with its only header")
    width, height, bits, colours, _, _, laced = _unpack(">IIBBBBB", data, 16)
    steps = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))
    expected = 0
    for step_x, step_y, x, y in steps if laced else ((1, 1, 0, 0),):
        columns, rows = ceil((width - x) / step_x), ceil((height - y) / step_y)
        row_bytes = 1 + ceil(columns * bits * {2: 3, 4: 2, 6: 4}.get(colours, 1) / 8)
        expected += rows * row_bytes if min(columns, rows) > 0 else 0
    decoder, found, rest = zlib.decompressobj(), 0, b"".join(parts)
    while rest and not decoder.eof and found < expected:
        found += len(decoder.decompress(rest, 1_000_000))
        rest = decoder.unconsumed_tail
    if found < expected:
        raise ValueError(f"its pixel data have {found} bytes instead of {expected}")
