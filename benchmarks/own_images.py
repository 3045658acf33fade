"""Own images: nuclei of another size, the time of a folder, and the memory of a large image."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.measuring import course_network, forget_peak_memory, in_child, mean_f1, peak_memory_mb
from benchmarks.robustness import scaled
from course_utils.data import CourseData
from course_utils.exploration import split_train_val
from course_utils.own_images import DSB2018_SIZES, TrainedSizes, segment_image

THRESHOLD = 0.8  # the best one on the validation images, see `quality`
FACTORS = (1.0, 0.5, 2.0)


def other_sizes(data: CourseData, sizes: TrainedSizes, quick: bool) -> list[dict]:
    """Mean F1 of validation and test images at half and twice the size, without and with `diameter`."""
    model = course_network()
    rows, at_size_1 = [], [0.0]
    for split, samples in (("validation", split_train_val(data.train, 8)[1]), ("test", data.test)):
        for factor in FACTORS:
            pairs = [scaled(sample, factor) for sample in (samples[:3] if quick else samples)]
            for diameter in (None,) if factor == 1 else (None, sizes.median * factor):
                found = [segment_image(model, image, diameter, THRESHOLD, sizes, compare_views=False).labels
                         for image, _ in pairs]  # fmt: skip
                f1 = mean_f1(found, [mask for _, mask in pairs])
                at_size_1 = f1 if factor == 1 else at_size_1
                given = "-" if diameter is None else f"{diameter:.1f}"
                rows.append({
                    "images": split, "size": f"x {factor:g}", "diameter": given, "F1 at IoU 0.5": f1[0],
                    "0.75": f1[1], "0.9": f1[2], "lost at 0.5": round(at_size_1[0] - f1[0], 4),
                })  # fmt: skip
    return rows


def segment(images: list[np.ndarray]) -> dict:
    """The command on a folder of these images, in a process that does not hold them."""
    height, width, bits = *images[0].shape, images[0].dtype.itemsize * 8
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        for number, image in enumerate(images):
            tifffile.imwrite(folder / f"{number:03d}.tif", image)
        used = in_child(segment_files, folder, Path(place) / "results")
    return {"images": f"{len(images)} of {height} x {width}, {bits} bits", **used}


def segment_files(folder: Path, out: Path) -> dict:
    """The command; call it in a process of its own."""
    from workshop.segment import Options, segment_folder

    forget_peak_memory()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        segment_folder(folder, out, Options())
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), "peak of the process, MB": round(peak_memory_mb())}


def large(data: CourseData, side: int) -> np.ndarray:
    """A 16-bit image of this side, patched together from the largest images."""
    shape = max(sample.image.shape for sample in data.train)
    images = [sample.image for sample in data.train if sample.image.shape == shape]
    image = np.zeros((side, side), dtype=np.uint16)
    for number, row in enumerate(range(0, side, shape[0])):
        for column in range(0, side, shape[1]):
            part = images[(number + column) % len(images)].astype(np.uint16) * 200
            image[row : row + shape[0], column : column + shape[1]] = part[: side - row, : side - column]
    return image


def measure(data: CourseData, quick: bool) -> dict:
    """What other sizes cost with and without `diameter`; the time of 100 images; the memory of a large one."""
    sizes = TrainedSizes.of([sample.mask for sample in data.train])
    wanted = [sample.image for sample in data.train + data.test if sample.image.shape == (520, 696)]
    wanted = [wanted[number % len(wanted)] for number in range(3 if quick else 100)] if wanted else []
    side = 1024 if quick else 8192
    return {
        "title": "Own images: nuclei of another size, time, memory",
        "median diameter of the training nuclei": sizes.median,
        "medians of the training images, 1 to 99 %": f"{sizes.smallest} to {sizes.largest}",
        "the constant in the package is the same": sizes == DSB2018_SIZES or data.source == "embedded",
        "sizes": other_sizes(data, sizes, quick),
        "speed": [segment(images) for images in (wanted or [data.test[0].image], [large(data, side)])],
    }
