"""Damaged image files end in a `DataError` that names the file, or in the right pixels.

The long form: python3 course.py test -m slow tests/course_utils/data/test_fuzzed_images.py

Formats without a checksum of what is damaged can give other pixels; of these the shape and the type must be right:

* the pixel data of plain and LZW TIFF, BMP, GIF and JPEG, and palettes (BMP, GIF);
* JPEG: its tables, and its markers (a shorter height or other sampling is a valid file);
* LZW in a TIFF has no length of its own: a smaller width or height, or another compression (1 bit makes PackBits of
  LZW), can give a valid file too. At most a third less: the compressed bytes cannot be 1.5 times the pixels.

What no reader can see in a TIFF, with a checksum or without: that zeros are white (PhotometricInterpretation), that
numbers are differences (Predictor), signed or real (SampleFormat), that a channel is alpha (ExtraSamples). Such fields
are listed in `MEANING`, and their other results are counted. Bytes inserted before pixel data without a checksum move
them; a TIFF may have bytes that nothing points to.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from course_utils.data import DataError
from course_utils.data.decoding import decode_file
from course_utils.data.headers import check_tiff
from course_utils.data.layouts import read_samples

ROOT = Path(__file__).parents[3]
GIGABYTE = 2**30
MAX_SECONDS, MAX_MEMORY = 2, 3 * GIGABYTE  # for one file: seconds of the processor, address space beside the modules
EXTREMES = (0, 1, 2**31, 2**32 - 1)
# Tags of TIFF that say what numbers mean, and Orientation and the like, which are not read.
MEANING = {262: "PhotometricInterpretation", 317: "Predictor", 339: "SampleFormat", 338: "ExtraSamples"}


@dataclass(frozen=True)
class Whole:
    """A file before damage.

    `soft` are ranges of bytes in which damage cannot be seen. From `shifts` on, bytes inserted or deleted only move the
    pixel data. `fields` are the tags of a TIFF: where the count is, and bytes of a number.
    """

    name: str
    data: bytes
    pixels: np.ndarray
    soft: list[tuple[int, int]] = field(default_factory=list)
    any_shape: bool = False  # the sizes are in the soft ranges
    fields: dict[int, tuple[int, int]] = field(default_factory=dict)
    shifts: int = 2**40

    def allows(self, data: bytes, start: int) -> bool:
        """Whether the damage outside of the soft ranges does no harm.

        If bytes were inserted or deleted, `start` (where) is compared, else the soft ranges are mended and decoded.
        """
        if len(data) != len(self.data):
            return any(low <= start < high for low, high in [*self.soft, (self.shifts, len(self.data))])
        mended = bytearray(data)
        for low, high in self.soft:
            mended[low:high] = self.data[low:high]
        try:
            return np.array_equal(decode_file(self.name, bytes(mended), self.name), self.pixels)
        except DataError:
            return False


def tiff(name: str, pixels: np.ndarray, checked: bool = False, data: bytes | None = None, **options) -> Whole:
    if data is None:
        tifffile.imwrite(file := io.BytesIO(), pixels, **options)
        data = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page, size = opened.pages[0], 20 if opened.is_bigtiff else 12
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        entries = {tag.code: tag.offset for tag in page.tags}
    soft = [] if checked else [(start, start + n) for start, n in places]
    loose = MEANING if checked or page.compression == 1 else {*MEANING, 256, 257, 259}  # sizes and compression of LZW
    soft += [(at, at + size) for tag, at in entries.items() if tag in loose]
    fields = {tag: (at + 4, 8 if size == 20 else 4) for tag, at in entries.items()}
    shifts = 2**40 if checked else max(entries.values()) + size
    return Whole(f"{name}.tif", data, pixels, soft, name == "lzw", fields, shifts)


def picture(name: str, pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, **options)
    return file.getvalue()


def whole_files() -> list[Whole]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :80]
    blobs = sum(((y - r) ** 2 + (x - c) ** 2 < 90) * (40 + 5 * r) for r, c in ((20, 20), (50, 55), (70, 20)))
    grey = (rng.integers(0, 20, blobs.shape) + np.minimum(blobs, 200)).astype(np.uint8)
    deep = (grey.astype(np.uint16) * 200 + 7).astype(np.uint16)
    lzw, bmp, gif, jpeg = (
        picture("TIFF", grey, compression="tiff_lzw"), picture("BMP", grey), picture("GIF", grey), picture("JPEG", grey)
    )
    return [
        Whole("png8.png", picture("PNG", grey), grey),
        Whole("png16.png", picture("PNG", deep), deep),
        tiff("plain", deep, rowsperstrip=16),
        tiff("lzw", grey, data=lzw),
        tiff("deflate", deep, checked=True, compression="zlib", rowsperstrip=32),
        tiff("predicted", deep, checked=True, compression="zlib", predictor=True),
        tiff("tiled", grey, tile=(32, 32)),
        tiff("big-endian", deep, byteorder=">"),
        tiff("bigtiff", grey, bigtiff=True, rowsperstrip=40),
        Whole("grey.bmp", bmp, grey, [(54, len(bmp))], any_shape=True),  # palettes of grey and of colours
        Whole("grey.gif", gif, grey, [(10, len(gif))], any_shape=True),
        Whole("grey.jpg", jpeg, decode_file("grey.jpg", jpeg, "grey.jpg"), [(2, len(jpeg))], any_shape=True),
    ]


KINDS = ("flip", "flip 8", "truncate", "zeros", "insert", "delete", "swap", "header", "field", "field")


def damaged(whole: Whole, kind: str, rng: np.random.Generator) -> tuple[bytes, int, int, str]:
    """The damaged bytes, the range of the whole file that changed, and what was done, for messages."""
    data, n = bytearray(whole.data), len(whole.data)
    at = int(rng.integers(0, min(n, 300) if rng.random() < 0.5 else n))  # half of the damage lies in headers
    length = int(rng.integers(1, 64))
    if kind == "field" and not whole.fields:
        kind = "header"
    if kind.startswith("flip"):
        places = [at, *(int(one) for one in rng.integers(0, n, 7))][: 8 if "8" in kind else 1]
        for place in places:
            data[place] ^= 1 << int(rng.integers(0, 8))
        return bytes(data), min(places), max(places) + 1, f"{kind} {places}"
    if kind == "truncate":
        return bytes(data[:at]), -1, -1, f"{kind} at {at}"
    if kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
        return bytes(data), at, min(at + length, n), f"{kind} {at} {length}"
    if kind == "insert":
        data[at:at] = rng.bytes(length)
        return bytes(data), at, at + 1, f"{kind} {at} {length}"
    if kind == "delete":
        del data[at : at + length]
        return bytes(data), at, min(at + length, n), f"{kind} {at} {length}"
    if kind == "swap":
        other = int(rng.integers(0, n - 2 * length))
        first, second = sorted((min(at, n - length), other))
        second = max(second, first + length)
        one, two = data[first : first + length], data[second : second + length]
        data[first : first + len(two)], data[second : second + len(two)] = two, one[: len(two)]
        return bytes(data), first, second + length, f"{kind} {first} {second} {length}"
    extreme = int(rng.choice(EXTREMES))
    if kind == "header":
        at = int(rng.integers(0, 56))
        width = int(rng.choice([2, 4]))
        data[at : at + width] = (extreme % 256**width).to_bytes(width, "little")
        return bytes(data), at, at + width, f"{kind} {at}: {width} bytes {extreme}"
    tag = int(rng.choice(list(whole.fields)))
    return with_field(whole, tag, bool(rng.integers(2)), extreme)


def with_field(whole: Whole, tag: int, value: bool, number: int) -> tuple[bytes, int, int, str]:
    """A TIFF whose count (or value or offset) of a tag is another number."""
    data = bytearray(whole.data)
    at, size = whole.fields[tag]
    at += size * value
    data[at : at + size] = number.to_bytes(size, "big" if data[:2] == b"MM" else "little")
    return bytes(data), at, at + size, f"tag {tag} {'value' if value else 'count'} {number}"


def judge(whole: Whole, data: bytes, start: int, end: int) -> tuple[str, str]:
    """What became of a file ("error", "right", "other pixels", "other shape" or "fault"), and the words of a fault."""
    began = time.process_time()
    try:
        found = decode_file(whole.name, data, f"folder/{whole.name}")
    except DataError as error:
        text = str(error)
        verdict = ("error", "") if text.startswith(f"folder/{whole.name} ") else ("fault", f"no name: {text}")
    except BaseException as error:
        verdict = "fault", f"{type(error).__name__}: {error}"
    else:
        same = found.shape == whole.pixels.shape and found.dtype == whole.pixels.dtype
        if same and np.array_equal(found, whole.pixels):
            verdict = "right", ""
        elif whole.allows(data, start) and (same or whole.any_shape):
            verdict = "other pixels" if same else "other shape", ""
        else:
            verdict = "fault", f"{found.shape} {found.dtype} with other pixels, bytes {start} to {end}"
    seconds = time.process_time() - began
    return ("fault", f"{seconds:.1f} s") if seconds > MAX_SECONDS else verdict


def cases(files: list[Whole], first: int, last: int, every_field: bool):
    """Each damaged file: its whole one, and what `damaged` returns."""
    for one in files if every_field else []:
        for tag, value, number in itertools.product(one.fields, (False, True), EXTREMES):
            yield one, with_field(one, tag, value, number)
    for number in range(first, last):
        one = files[number % len(files)]
        yield one, damaged(one, KINDS[number // len(files) % len(KINDS)], np.random.default_rng(number))


def work(first: int, last: int, every_field: bool) -> dict:
    """In a process of its own, whose memory is limited: judge the damaged files with these numbers."""
    files = whole_files()
    for one in files:
        assert judge(one, one.data, -1, -1) == ("right", ""), one.name
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, -1))
    resource.setrlimit(resource.RLIMIT_CPU, (1200, -1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, faults, slowest = Counter(), [], 0.0
    for one, (data, start, end, what) in cases(files, first, last, every_field):
        began = time.process_time()
        verdict, words = judge(one, data, start, end)
        slowest = max(slowest, time.process_time() - began)
        counts[f"{one.name}: {verdict}"] += 1
        faults += [f"{one.name}, {what}: {words}"] if verdict == "fault" else []
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"counts": counts, "faults": faults, "slowest": slowest, "grown_kb": grown}


def run(first: int, last: int, every_field: bool = False) -> dict:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(first), str(last), str(int(every_field))]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3000)
    assert process.returncode == 0, f"{process.returncode}: {process.stderr[-3000:]}"
    return json.loads(process.stdout.splitlines()[-1])


def test_damaged_files_end_in_words_or_right_pixels():
    result = run(0, 960)
    assert result["faults"] == []
    assert sum(result["counts"].values()) == 960
    assert result["grown_kb"] < MAX_MEMORY / 1024


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chunk", range(6))
def test_many_damaged_files_and_every_field(chunk):
    result = run(chunk * 20_000, (chunk + 1) * 20_000, every_field=chunk == 0)
    print(result["counts"], result["slowest"], result["grown_kb"])
    assert result["faults"] == []


@pytest.mark.parametrize("name", ["png8.png", "plain.tif", "lzw.tif", "deflate.tif", "bigtiff.tif", "grey.bmp"])
def test_every_bit_of_the_header(name):
    """Of a TIFF: of its directory. No verdict depends on chance here."""
    (whole,) = [one for one in whole_files() if one.name == name]
    places = range(len(whole.data))[:54]
    if whole.fields:
        entries = [at - 4 for at, _ in whole.fields.values()]
        places = [*range(8), *range(min(entries) - 2, min(max(entries) + 24, len(whole.data)))]
    faults = []
    for place in places:
        for bit in range(8):
            data = bytearray(whole.data)
            data[place] ^= 1 << bit
            verdict, words = judge(whole, bytes(data), place, place + 1)
            faults += [f"byte {place} bit {bit}: {words}"] if verdict == "fault" else []
    assert faults == []


# headers that claim what cannot be


def directory(*changes: tuple[int, int, tuple[int, ...]], pixels: bytes = bytes(64 * 64), following: int = 0) -> bytes:
    """A TIFF of 64 x 64 zeros, one strip; `changes` are tags: (tag, type, values)."""
    tags = {256: (4, (64,)), 257: (4, (64,)), 258: (3, (8,)), 259: (3, (1,)), 262: (3, (1,)), 273: (4, (8,))}
    tags |= {277: (3, (1,)), 278: (4, (64,)), 279: (4, (len(pixels),))} | {tag: one for tag, *one in changes}
    start = 8 + len(pixels)
    behind, entries = start + 2 + 12 * len(tags) + 4, b""
    values = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{ {2: 'B', 3: 'H', 4: 'I'}[kind]}", *numbers)
        if len(packed) > 4:
            values, packed = values + packed, struct.pack("<I", behind + len(values))
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start) + pixels + struct.pack("<H", len(tags))
    return head + entries + struct.pack("<I", following) + values


def text(words: str) -> tuple[int, int, tuple[int, ...]]:
    return 270, 2, tuple(words.encode() + b"\0")


def chain(n: int) -> bytes:
    one = directory()
    length = len(one) - 8
    pages = [one[8:-4] + struct.pack("<I", 8 + length * (i + 1) + 64 * 64 if i + 1 < n else 0) for i in range(n)]
    return b"II*\0" + struct.pack("<I", 8 + 64 * 64) + b"".join(pages)


def bmp(at: int, number: int, size: int = 4) -> bytes:
    data = bytearray(picture("BMP", np.zeros((64, 64), np.uint8)))
    data[at : at + size] = number.to_bytes(size, "little")
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(picture("GIF", np.zeros((8, 8), np.uint8)))
    sizes = struct.pack("<HH", width, height)
    at = data.index(b"\x2c\0\0\0\0") + 5
    data[6:10] = data[at : at + 4] = sizes
    return bytes(data)


ABSURD = {
    "wide.tif": directory((256, 4, (2**32 - 1,))),
    "wide-lzw.tif": directory((256, 4, (2**32 - 1,)), (259, 3, (5,))),
    "large-lzw.tif": directory((256, 4, (20_000,)), (257, 4, (20_000,)), (278, 4, (20_000,)), (259, 3, (5,))),
    "large-deflate.tif": directory((256, 4, (20_000,)), (257, 4, (20_000,)), (278, 4, (20_000,)), (259, 3, (8,))),
    "zero.tif": directory((257, 4, (0,))),
    "deep.tif": directory((32997, 4, (2**31,))),
    "bits.tif": directory((258, 3, (60_000,))),
    "no-bits.tif": directory((258, 3, (0,))),
    "uneven-bits.tif": directory((258, 3, (8, 16, 8)), (277, 3, (3,))),
    "samples.tif": directory((277, 4, (2**32 - 1,))),
    "circle.tif": directory(following=8 + 64 * 64),
    "next-outside.tif": directory(following=2**31),
    "pages.tif": chain(5000),
    "outside.tif": directory((273, 4, (2**31,))),
    "long.tif": directory((279, 4, (2**32 - 1,))),
    "short.tif": directory((279, 4, (64 * 64 - 1,))),
    "empty-strip.tif": directory((279, 4, (0,)), (259, 3, (5,))),
    "strips.tif": directory((278, 4, (1,))),
    "no-rows.tif": directory((278, 4, (0,))),
    "same-strip.tif": directory(
        (278, 4, (32,)), (273, 4, (8, 8)), (279, 4, (2048, 2048)), pixels=bytes(range(256)) * 16
    ),
    "on-header.tif": directory((273, 4, (2,))),
    "tiles.tif": directory((322, 4, (2**31,)), (323, 4, (2**31,)), (324, 4, (8,)), (325, 4, (4096,))),
    "no-tiles.tif": directory((322, 4, (0,)), (323, 4, (0,)), (324, 4, (8,)), (325, 4, (4096,))),
    "bomb.tif": directory((259, 3, (8,)), pixels=zlib.compress(bytes(300_000_000), 9)),
    "half.tif": directory((259, 3, (8,)), pixels=zlib.compress(bytes(2048))),
    "tags.tif": b"II*\0\x08\0\0\0\xff\xff" + bytes(800_000),
    "shared-tags.tif": b"II*\0\x08\0\0\0\x00\x10" + struct.pack("<HHII", 65000, 1, 2**20, 8) * 4096 + bytes(2**20),
    "version.tif": b"II\x2a\x01\x08\0\0\0" + bytes(100),
    "only-header.tif": b"II*\0\x08\0\0\0",
    "two-bytes.tif": b"MM",
    "empty.tif": b"",
    "empty.png": b"",
    "text.png": b"no image at all",
    "large.gif": gif_of(9_000, 9_000),
    "larger.gif": gif_of(65_535, 65_535),
    "tall.bmp": bmp(22, 65),
    "low.bmp": bmp(22, 63),
    "huge.bmp": bmp(22, 2**31 - 1),
    "wide.bmp": bmp(18, 100_000),
    "colours.bmp": bmp(46, 2),
    "bits.bmp": bmp(28, 4, 2),
    "offset.bmp": bmp(10, 2**32 - 1),
    "short.bmp": picture("BMP", np.zeros((64, 64), np.uint8))[:-1],
    "short.jpg": picture("JPEG", np.arange(4096, dtype=np.uint8).reshape(64, 64))[:-200],
    "scans.jpg": picture("JPEG", np.zeros((64, 64), np.uint8))[:-2] + b"\xff\xda\0\x08\1\1\0\0\0\0" * 600 + b"\xff\xd9",
    "short.gif": picture("GIF", np.arange(4096, dtype=np.uint8).reshape(64, 64))[:-200],
}


@pytest.mark.parametrize("name", ABSURD)
def test_claims_that_cannot_be_are_refused_at_once(name, tmp_path):
    from course_utils.own_images import read_image  # loads torch, which the other process does not need

    for read in (lambda: decode_file(name, ABSURD[name], f"folder/{name}"), lambda: read_image(tmp_path / name)):
        (tmp_path / name).write_bytes(ABSURD[name])
        began = time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=name):
                read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.process_time() - began < MAX_SECONDS
        assert peak < 100_000_000


@pytest.mark.parametrize("shape", ["[1000000, 64, 64]", "[3, 64, 64]", "[128, 32]", "[32, 64]", "[0]", "[64, 64, 1e9]"])
def test_a_text_does_not_change_the_shape(shape):
    """ImageJ and tifffile write the size of a stack into a text."""
    n = shape.split(",")[0].strip("[]")
    for words in (f"ImageJ=1.53\nimages={n}\nslices={n}\n", f'{{"shape": {shape}}}'):
        verdict = judge(Whole("a.tif", b"", np.zeros((64, 64), np.uint8)), directory(text(words)), -1, -1)
        assert verdict[0] in ("right", "error"), verdict


def test_what_the_checks_let_pass():
    """Files as programs write them: every compression, padded rows, pages, and an image of 4 million zeros."""
    zeros = np.zeros((2000, 2000), np.uint8)
    for options in ({"compression": "zlib"}, {"tile": (256, 256)}, {"bigtiff": True}, {"rowsperstrip": 7}):
        tifffile.imwrite(file := io.BytesIO(), zeros, **options)
        assert np.array_equal(decode_file("a.tif", file.getvalue(), "a.tif"), zeros)
    assert np.array_equal(decode_file("a.tif", picture("TIFF", zeros, compression="tiff_lzw"), "a.tif"), zeros)
    for name in ("PNG", "GIF", "BMP", "JPEG"):
        assert np.array_equal(decode_file("a", picture(name, zeros), "a"), zeros)
    tifffile.imwrite(file := io.BytesIO(), np.zeros((1000, 4, 4), np.uint8), photometric="minisblack")
    check_tiff(file.getvalue())
    odd = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert np.array_equal(decode_file("a.bmp", picture("BMP", odd), "a.bmp"), odd)


@pytest.mark.parametrize("name", ["outside.tif", "circle.tif", "tall.bmp", "large.gif", "empty.png", "text.png"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_data_set_names_its_damaged_file(name, kind, tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[20:30, 20:30] = 200
    for split, number in (("train", 0), ("train", 1), ("test", 2)):
        for folder in ("images", "masks"):
            path = tmp_path / split / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture("PNG", pixels if folder == "images" else pixels // 200))
    assert len(read_samples(tmp_path).train) == 2
    broken = tmp_path / "train" / kind / f"1{Path(name).suffix}"
    broken.with_suffix(".png").unlink()
    broken.write_bytes(ABSURD[name])
    with pytest.raises(DataError, match=f"{kind}.1{Path(name).suffix} cannot be decoded"):
        read_samples(tmp_path)


if __name__ == "__main__":
    print(json.dumps(work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1")))
