"""Interactive figures; in the notebooks each follows a static figure that shows the same for a few values.

They need ipywidgets and a running kernel. In an HTML page, or in a notebook without a kernel, they show nothing.

The figure is drawn into an HTML widget rather than captured from the output of the cell: it is replaced without
flicker, has an alternative text, and does not depend on how a front end captures output.
Nothing to show is a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ipywidgets import HTML, BoundedIntText, FloatSlider, IntSlider, VBox, Widget
from matplotlib.figure import Figure

from course_utils import display, plotting
from course_utils.arguments import check_arguments
from course_utils.data import Sample
from course_utils.metrics import f1_score
from course_utils.segmentation import connected_components, watershed_instances

WIDE = {"description_width": "7em"}
# Draw when the slider is released: computing every step on the way would be too slow.
# The default handle is white, and invisible on a white page.
SLIDER = {"style": WIDE | {"handle_color": plotting.BLUE}, "continuous_update": False}


def redraw_on_change(draw: Callable[..., tuple[Figure, str]], **controls: Widget) -> VBox:
    """Controls above a figure that is redrawn when one of them changes.

    Args:
        draw: takes the value of each control by its name, and returns the figure and its alternative text.
        controls: widgets with a `value`.
    """
    picture = HTML()

    def update(change=None):
        figure, description = draw(**{name: control.value for name, control in controls.items()})
        picture.value = display.figure_as_html(figure, description)

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return VBox([*controls.values(), picture])


def browse_images(samples: Sequence[Sample]) -> VBox:
    """A slider through images, their masks, sizes and numbers of nuclei; `ValueError` without any."""
    if len(samples) == 0:
        raise ValueError("There are no images to browse.")

    def draw(index):
        sample = samples[index]
        height, width = sample.image.shape
        n_nuclei = np.count_nonzero(np.unique(sample.mask))
        figure, axes = plotting.grid(1, 2, width=4)
        plotting.draw_image(axes[0, 0], sample.image, f"{sample.name[:24]}, {height} x {width}")
        plotting.draw_labels(axes[0, 1], sample.mask, f"{n_nuclei} nuclei")
        return figure, f"Image {index} of {height} x {width} pixels and its mask with {n_nuclei} nuclei."

    return redraw_on_change(draw, index=IntSlider(0, 0, len(samples) - 1, description="image", **SLIDER))


def explore_threshold(
    images: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray]
) -> VBox:
    """Components, errors and F1 of one image, with controls for the image, `threshold` and `iou_threshold`.

    Args:
        images, truths: images and label images `(H, W)`.
        probabilities: foreground probabilities `(H, W)` of each image.
    """
    check_arguments(images=images, probabilities=probabilities, truths=truths, least=1)
    return _explore(images, truths, lambda index, threshold: connected_components(probabilities[index], threshold))


def explore_watershed(
    images: Sequence[np.ndarray],
    foregrounds: Sequence[np.ndarray],
    boundaries: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> VBox:
    """`explore_threshold` for `watershed_instances`; `threshold` is that of the seeds."""
    check_arguments(images=images, foregrounds=foregrounds, boundaries=boundaries, truths=truths, least=1)
    return _explore(
        images, truths, lambda index, threshold: watershed_instances(foregrounds[index], boundaries[index], threshold)
    )


def _explore(images, truths, segment: Callable[[int, float], np.ndarray]) -> VBox:
    def draw(index, threshold, iou_threshold):
        image, truth, prediction = images[index], truths[index], segment(index, threshold)
        score = f1_score(prediction, truth, iou_threshold)
        n_found = np.count_nonzero(np.unique(prediction))
        figure, axes = plotting.grid(1, 3, width=3.6, height=4.3)
        plotting.draw_labels(
            axes[0, 0], plotting.with_matching_ids(prediction, truth), f"prediction, {n_found} instances"
        )
        plotting.draw_labels(axes[0, 1], truth, "truth")
        plotting.draw_errors(axes[0, 2], image, prediction, truth, iou_threshold, f"F1 = {score:.3f}")
        found = f"{n_found} instances found, F1 {score:.3f} at an IoU threshold of {iou_threshold:.2f}"
        return figure, f"Image {index}: {found}."

    return redraw_on_change(
        draw,
        index=BoundedIntText(0, min=0, max=len(images) - 1, description="image", style=WIDE),
        threshold=FloatSlider(0.5, min=0.05, max=0.95, step=0.05, description="threshold", **SLIDER),
        iou_threshold=FloatSlider(0.5, min=0.05, max=0.95, step=0.05, description="iou_threshold", **SLIDER),
    )
