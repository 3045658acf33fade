"""The picture at the top of the README: one real test image, its truth, and what notebook 05 makes of it.

    python -m benchmarks.readme_picture --data path/to/dsb2018.zip

Nobody picks the image: of the square ones of 256 pixels in which ten or more nuclei touch another, it is the one whose
F1 is closest to the means over all test images, of components and watershed together. Enlarged is the place where the
components took the most nuclei for one. Network and thresholds are those of notebook 05 with the pretrained network.

Writes docs/result.png, four panels wide, and docs/result-narrow.png, two panels wide, for telephones. Images, truth and
network are CC0; the same data and packages give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from skimage.measure import find_contours

from benchmarks.page import ROOT, read
from benchmarks.quality import cleaned, components, watershed
from course_utils import get_profile, load_data, plotting, predict
from course_utils.data import Sample
from course_utils.metrics import classify_errors, f1_score, overlapping_pairs, touching_ids
from course_utils.networks import boundary_model, normalized_arrays

SIDE, MIN_TOUCHING = 256, 10
CROP = 56  # side of the enlarged window
PICTURES = {"result.png": (4, 160), "result-narrow.png": (2, 100)}  # columns, and pixels to the inch
KEY = """Outlined: wrong at IoU 0.5.
+ several nuclei taken for one    ÷ one cut up
o missed    × another shape, or none"""


@dataclass(frozen=True)
class Shown:
    """A test image with the label images of both methods."""

    sample: Sample
    components: np.ndarray
    watershed: np.ndarray

    def scores(self) -> np.ndarray:
        return np.array([f1_score(found, self.sample.mask) for found in (self.components, self.watershed)])


def typical(results: list[Shown]) -> Shown:
    """The image whose scores are closest to the means over all of them, as the module says."""
    means = np.mean([one.scores() for one in results], axis=0)
    square = [one for one in results if one.sample.mask.shape == (SIDE, SIDE)]
    crowded = [one for one in square if len(touching_ids(one.sample.mask)) >= MIN_TOUCHING]
    return min(crowded or square, key=lambda one: np.abs(one.scores() - means).sum())


def window(shown: Shown) -> tuple[slice, slice]:
    """Around the nuclei that the components took for one: the most of them, and where as many, the first."""
    truth, overlaps = shown.sample.mask, overlapping_pairs(shown.components, shown.sample.mask)
    covered = overlaps.shared > 0.5 * overlaps.true_area
    counts = np.bincount(overlaps.pred_index[covered], minlength=len(overlaps.pred_ids))
    rows, columns = np.nonzero(shown.components == overlaps.pred_ids[np.argmax(counts)])
    middle = [(places.min() + places.max()) // 2 - CROP // 2 for places in (rows, columns)]
    starts = [min(max(start, 0), side - CROP) for start, side in zip(middle, truth.shape, strict=True)]
    return tuple(slice(start, start + CROP) for start in starts)


def draw_found(axes, found: np.ndarray, truth: np.ndarray, size: float) -> None:
    """Instances in the colours of the nuclei that they match; the wrong ones have an outline and a sign."""
    plotting.draw_labels(axes, plotting.with_matching_ids(found, truth))
    errors = classify_errors(found, truth)
    wrong = [(found, one, "+" if one in errors.merged else "×") for one in errors.false_positive]
    wrong += [(truth, one, "÷") for one in errors.split]
    seen = np.isin(found, errors.false_positive)  # a missed nucleus inside a wrong instance is told by that one
    wrong += [(truth, one, "o") for one in errors.missed if one not in errors.split and not seen[truth == one].any()]
    for labels, instance, sign in wrong:
        for contour in find_contours(np.pad(labels == instance, 1).astype(float), 0.5):
            axes.plot(*(contour[:, ::-1] - 1).T, color="white", linewidth=size / 8)
        rows, columns = np.nonzero(labels == instance)
        place = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        x, y = (np.clip(c[place], 5, side - 6) for c, side in zip((columns, rows), truth.shape[::-1], strict=True))
        axes.text(x, y, sign, color="white", fontsize=size, weight="bold", ha="center", va="center", clip_on=True,
                  path_effects=[withStroke(linewidth=size / 5, foreground="black")])  # fmt: skip


def draw(shown: Shown, columns: int) -> Figure:
    """The four panels of the whole image, then the same four enlarged, in a grid of eight, 8.2 inches wide."""
    truth, crop, letters = shown.sample.mask, window(shown), 5 + 32 / columns
    before, after = shown.scores()
    panels: list[tuple[str, Callable]] = [
        ("microscope image", lambda axes, _: plotting.draw_image(axes, shown.sample.image)),
        (f"truth: {len(np.unique(truth)) - 1} nuclei", lambda axes, _: plotting.draw_labels(axes, truth)),
        (f"components: F1 {before:.2f}", lambda axes, sign: draw_found(axes, shown.components, truth, sign)),
        (f"watershed: F1 {after:.2f}", lambda axes, sign: draw_found(axes, shown.watershed, truth, sign)),
    ]
    width = 8.2 / columns
    figure, axes = plotting.grid(8 // columns, columns, width, width + letters / 45)
    figure.set_facecolor(plotting.BACKGROUND)
    top, left = (one.start - 0.5 for one in crop)
    for place, panel in enumerate(axes.flat):
        title, draw_panel = panels[place % 4]
        draw_panel(panel, (8 if place < 4 else 20) * width / 2)
        panel.add_patch(Rectangle((left, top), CROP, CROP, fill=False, edgecolor=plotting.ORANGE, linewidth=2))
        if place >= 4:
            title = "the frame, enlarged" if place == 4 else ""
            panel.set(xlim=(left, left + CROP), ylim=(top + CROP, top))
        panel.set_title(title, color="white", fontsize=letters)
    figure.supxlabel(KEY if columns == 2 else KEY.replace("\n", "    ", 1), color="white", fontsize=letters)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="dsb2018, or the path of dsb2018.zip")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures (default docs)")
    options = parser.parse_args()
    plotting.use_course_style()
    data = load_data(options.data)
    model = boundary_model(data, get_profile("laptop"), 0, ROOT / "build" / "readme")
    predictions = [predict(model, image) for image in normalized_arrays(data.test)[0]]
    chosen = next(one["scores"] for one in read("notebooks")["notebooks"] if one["notebook"].startswith("05"))
    both = [
        cleaned(components, predictions, chosen["component_threshold"]),
        cleaned(watershed, predictions, chosen["threshold"]),
    ]
    shown = typical([Shown(*one) for one in zip(data.test, *both, strict=True)])
    print(f"{shown.sample.name}: F1 {shown.scores()}, {classify_errors(shown.watershed, shown.sample.mask)}")
    for name, (columns, dpi) in PICTURES.items():
        figure = draw(shown, columns)
        figure.savefig(options.out / name, dpi=dpi, metadata={"Software": None}, facecolor=figure.get_facecolor())
        print(f"Wrote {options.out / name}")


if __name__ == "__main__":
    main()
