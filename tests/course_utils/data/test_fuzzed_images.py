"""Damaged image files end in a `DataError` that names the file, or in the right pixels.

The long form: python3 course.py test -m slow tests/course_utils/data/test_fuzzed_images.py

Formats without a checksum of what is damaged can give other pixels; of these the shape and the type must be right:

* the pixel data of plain and LZW TIFF, BMP, GIF and JPEG, and palettes (BMP, GIF);
* JPEG: its tables, and its markers (a shorter height or other sampling is a valid file);
* LZW in a TIFF has no length of its own: fewer bits or a smaller width are a valid file too.

What no reader can see in a TIFF, with a checksum or without: that zeros are white (PhotometricInterpretation), that
numbers are differences (Predictor), signed or real (SampleFormat), that a channel is alpha (ExtraSamples), that rows
are as many as a shorter file has. Such fields are listed in `MEANING`, and their other results are counted.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
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
    soft += [(at, at + size) for tag, at in entries.items() if tag in MEANING]
    fields = {tag: (at + 4, 8 if size == 20 else 4) for tag, at in entries.items()}
    return Whole(f"{name}.tif", data, pixels, soft, False, fields, 2**40 if checked else max(entries.values()) + size)


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


def work(first: int, last: int, every_field: bool) -> dict:
    """In a process of its own, whose memory is limited: judge the damaged files with these numbers."""
    files = whole_files()
    for one in files:
        assert judge(one, one.data, -1, -1) == ("right", ""), one.name
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, -1))
    resource.setrlimit(resource.RLIMIT_CPU, (300, -1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, faults, slowest = Counter(), [], 0.0
    cases = [
        (one, *with_field(one, tag, value, number))
        for one in files
        for tag in one.fields
        for value in (False, True)
        for number in EXTREMES
    ] if every_field else []
    for number in range(first, last):
        one, rng = files[number % len(files)], np.random.default_rng(number)
        cases.append((one, *damaged(one, KINDS[number // len(files) % len(KINDS)], rng)))
    for one, data, start, end, what in cases:
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
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert process.returncode == 0, f"{process.returncode}: {process.stderr[-3000:]}"
    return json.loads(process.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1")))
