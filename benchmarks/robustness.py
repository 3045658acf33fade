"""How much worse is the network of notebook 05 on images that are not like those it was trained on?

Validation images are altered in one way at a time and segmented as `course.py segment` does, without being told of the
alteration. Mean, median and pooled F1 are given, since they disagree: a few crowded images hold most of the nuclei. The
loss is that of the mean F1, image by image, with a bootstrap interval over the images.

`course.py bench --only robustness` measures the pretrained network. Another file, for example that before it:

    git show COMMIT:data/checkpoints/boundary_dsb2018.pt > build/before.pt
    python -m benchmarks.robustness --data path/to/dsb2018.zip --network build/before.pt --name robustness_before
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from benchmarks.measuring import course_network, format_table, write
from course_utils.data import CourseData, Sample, load_data
from course_utils.exploration import split_train_val
from course_utils.metrics import Matches, match_instances
from course_utils.own_images import segment_image
from course_utils.results import COUNTS, paired_bootstrap

SCALES = (0.5, 0.7, 1.4, 2.0)


def scaled(sample: Sample, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask with more or fewer pixels, as another magnification would give."""
    shape = tuple(round(side * factor) for side in sample.image.shape)
    image = resize(sample.image.astype(float), shape, order=1, anti_aliasing=factor < 1, preserve_range=True)
    mask = resize(sample.mask, shape, order=0, anti_aliasing=False, preserve_range=True)
    return to_grey_levels(image), mask.astype(int)


def to_grey_levels(image: np.ndarray) -> np.ndarray:
    """Rounded to 8 bits, as a camera would."""
    return np.rint(image).clip(0, 255).astype(np.uint8)


def brighter_to_the_right(image: np.ndarray) -> np.ndarray:
    """Light that falls to a third from the right edge to the left one."""
    return image * np.linspace(1 / 3, 1, image.shape[1])


def noisy(image: np.ndarray) -> np.ndarray:
    """Gaussian noise of a twentieth of the image's range, the same in every run."""
    return image + np.random.default_rng(0).normal(0, np.ptp(image) / 20, image.shape)


def gamma(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    """Another contrast: dim nuclei come closer to the bright ones (exponent below 1) or to the background (above)."""
    return lambda image: 255 * (image / 255) ** exponent


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur, sigma 1 px": lambda image: gaussian_filter(image, 1),
    "blur, sigma 2 px": lambda image: gaussian_filter(image, 2),
    "noise, a twentieth of the range": noisy,
    "light falling to a third at the left": brighter_to_the_right,
    "a quarter of the light": lambda image: image / 4,
    "contrast, gamma 0.5": gamma(0.5),
    "contrast, gamma 2": gamma(2.0),
}


def ways() -> dict[str, Callable[[Sample], tuple[np.ndarray, np.ndarray]]]:
    """Name of each alteration -> a function that gives image and mask of a sample."""
    found: dict[str, Callable] = {"none": lambda sample: (sample.image, sample.mask)}
    for factor in SCALES:
        found[f"scale {factor:g}"] = lambda sample, factor=factor: scaled(sample, factor)
    for name, alter in ALTERED.items():
        found[name] = lambda sample, alter=alter: (to_grey_levels(alter(sample.image.astype(float))), sample.mask)
    return found


def measure(data: CourseData, quick: bool) -> dict:
    """A row for each alteration, with the pretrained network."""
    return altered(course_network(), split_train_val(data.train, 8)[1][: 3 if quick else None])


def altered(model: torch.nn.Module, samples: list[Sample], **options) -> dict:
    """A row for each alteration; `options` are those of `segment_image`."""
    rows, unaltered, scores = [], [], {}
    for name, alter in ways().items():
        counts = []
        for image, mask in map(alter, samples):
            found = segment_image(model, image, compare_views=False, **options).labels
            counts += match_instances(found, mask, [0.5])
        f1 = [one.f1 for one in counts]
        scores[name] = [round(one, 4) for one in f1]
        unaltered = unaltered or f1
        lost, low, high = paired_bootstrap(unaltered, f1, np.random.default_rng(0))
        pooled = Matches(0.5, *(sum(getattr(one, part) for one in counts) for part in COUNTS)).f1
        rows.append({
            "images": name, "mean F1": round(float(np.mean(f1)), 4), "median": round(float(np.median(f1)), 4),
            "pooled": round(pooled, 4), "lost by the mean": round(lost, 4),
            "95 % interval": "" if name == "none" else f"{low:+.3f} to {high:+.3f}",
        })  # fmt: skip
    return {"title": f"Altered images, {len(samples)} validation images, F1 at IoU 0.5", "rows": rows, "F1": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="dsb2018, or the path of dsb2018.zip")
    parser.add_argument("--network", type=Path, required=True, help="file of a network like that of notebook 05")
    parser.add_argument("--threshold", type=float, default=0.8, help="of the seeds, chosen for this network")
    parser.add_argument("--name", required=True, help="name of the result file")
    options = parser.parse_args()
    val = split_train_val(load_data(options.data).train, 8)[1]
    result = altered(course_network(options.network), val, threshold=options.threshold)
    shown = f"--network {options.network.name} --threshold {options.threshold:g} --name {options.name}"
    command = f"python -m benchmarks.robustness --data dsb2018 {shown}"
    print(format_table(result["rows"]))
    write(options.name, {"command": command, "data": "dsb2018", "quick": False} | result)


if __name__ == "__main__":
    main()
