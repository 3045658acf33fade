"""The picture of docs/results.md that shows where the scores are lost: the worst validation images.

    python -m benchmarks.hard_images --data path/to/dsb2018.zip

Nobody picks the images: they are the validation images with the lowest AP at IoU 0.5 of notebook 05's network, with the
threshold that is best on all of them. Writes docs/hard_images.png. Images, truth and network are CC0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.measuring import course_network
from benchmarks.page import ROOT
from benchmarks.quality import choose, cleaned, watershed
from course_utils import load_data, plotting
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.metrics import average_precision, classify_errors
from course_utils.segmentation import predict

N_IMAGES = 6
SIDE = 256  # of what is shown of an image: the window with most of the pixels of missed nuclei and wrong predictions


def busiest(wrong: np.ndarray) -> tuple[slice, slice]:
    """The window of at most `SIDE` pixels a side, on a grid of 64, that holds the most wrong pixels."""
    starts = [range(0, max(1, side - SIDE + 1), 64) for side in wrong.shape]
    windows = [(slice(y, y + SIDE), slice(x, x + SIDE)) for y in starts[0] for x in starts[1]]
    return max(windows, key=lambda window: np.count_nonzero(wrong[window]))


def draw(images: list[np.ndarray], found: list[np.ndarray], truths: list[np.ndarray]) -> Figure:
    """The worst images, with the kind of error of each instance."""
    scores = [average_precision(one, truth, [0.5])[0] for one, truth in zip(found, truths, strict=True)]
    figure, axes = plotting.grid(2, N_IMAGES // 2, width=3.6, height=5.4)
    for panel, index in zip(axes.flat, np.argsort(scores, kind="stable")[:N_IMAGES], strict=False):
        errors = classify_errors(found[index], truths[index])
        wrong = np.isin(truths[index], errors.missed) | np.isin(found[index], errors.false_positive)
        window = busiest(wrong)
        shown = (np.ascontiguousarray(part[index][window]) for part in (images, found, truths))
        plotting.draw_errors(panel, *shown, title=f"AP {scores[index]:.2f}")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="dsb2018, or the path of dsb2018.zip")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "hard_images.png")
    options = parser.parse_args()
    plotting.use_course_style()
    model = course_network()
    val = split_train_val(load_data(options.data).train, 8)[1]
    images = [normalize_percentiles(sample.image) for sample in val]
    predictions = [predict(model, image) for image in images]
    threshold = choose(watershed, predictions, val)["best"]["threshold"]
    found = cleaned(watershed, predictions, threshold)
    figure = draw(images, found, [sample.mask for sample in val])
    figure.savefig(options.out, dpi=80, metadata={"Software": None}, bbox_inches="tight")
    print(f"Wrote {options.out}")


if __name__ == "__main__":
    main()
