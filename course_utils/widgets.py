"""Interactive cells: each stands beside a static figure that shows the same for a few values.

All need ipywidgets and a running kernel. In a notebook that is only read, or in an HTML page, they show nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import BoundedIntText, FloatSlider, IntSlider, Widget, interactive

from course_utils import plotting
from course_utils.data import Sample
from course_utils.metrics import f1_score
from course_utils.segmentation import connected_components, watershed_instances


def browse_images(samples: Sequence[Sample]) -> Widget:
    """A slider through images with their masks, their sizes and their numbers of nuclei."""

    def draw(index):
        sample = samples[index]
        figure, axes = plotting.grid(1, 2, width=4)
        height, width = sample.image.shape
        plotting.draw_image(axes[0, 0], sample.image, f"{sample.name[:24]}, {height} x {width}")
        plotting.draw_labels(axes[0, 1], sample.mask, f"{np.count_nonzero(np.unique(sample.mask))} nuclei")
        plt.show()

    return interactive(draw, index=IntSlider(0, 0, len(samples) - 1, description="image", continuous_update=False))


def explore_threshold(images: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> Widget:
    """Sliders for image, `threshold` and `iou_threshold`: components, errors and the F1 of one image.

    Args:
        images, truths: arrays `(H, W)`.
        probabilities: foreground probabilities `(H, W)`.
    """

    def draw(index, threshold, iou_threshold):
        prediction = connected_components(probabilities[index], threshold)
        _draw_result(images[index], prediction, truths[index], iou_threshold)

    return interactive(
        draw,
        index=_image_choice(len(images)),
        threshold=_slider(0.5, "threshold"),
        iou_threshold=_slider(0.5, "iou_threshold"),
    )


def explore_watershed(
    images: Sequence[np.ndarray],
    foregrounds: Sequence[np.ndarray],
    boundaries: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> Widget:
    """The same for `watershed_instances`: sliders for the seeds' `threshold` and for `iou_threshold`."""

    def draw(index, threshold, iou_threshold):
        prediction = watershed_instances(foregrounds[index], boundaries[index], threshold)
        _draw_result(images[index], prediction, truths[index], iou_threshold)

    return interactive(
        draw,
        index=_image_choice(len(images)),
        threshold=_slider(0.5, "threshold"),
        iou_threshold=_slider(0.5, "iou_threshold"),
    )


def _draw_result(image, prediction, truth, iou_threshold):
    figure, axes = plotting.grid(1, 3, width=3.6)
    plotting.draw_labels(axes[0, 0], plotting.same_colours(prediction, truth), f"prediction, {prediction.max()} instances")
    plotting.draw_labels(axes[0, 1], truth, "truth")
    score = f1_score(prediction, truth, iou_threshold)
    plotting.draw_errors(axes[0, 2], image, prediction, truth, iou_threshold, f"F1 = {score:.3f}")
    plt.show()


def _slider(value: float, description: str) -> FloatSlider:
    return FloatSlider(
        value, min=0.05, max=0.95, step=0.05, description=description, continuous_update=False, style={"description_width": "7em"}
    )


def _image_choice(n_images: int) -> BoundedIntText:
    return BoundedIntText(0, min=0, max=n_images - 1, description="image", style={"description_width": "7em"})
