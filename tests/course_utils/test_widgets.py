"""Interactive figures: a changed control changes the picture."""

from __future__ import annotations

import html
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ipywidgets import HTML, IntSlider, VBox

from course_utils import plotting
from course_utils.data import Sample
from course_utils.widgets import browse_images, explore_iou, explore_threshold, explore_watershed, redraw_on_change


def parts(box: VBox) -> tuple[dict, HTML]:
    """The controls by name, and the picture."""
    assert isinstance(box, VBox)
    *controls, picture = box.children
    assert isinstance(picture, HTML)
    return {control.description: control for control in controls}, picture


def description(picture: HTML) -> str:
    """The alternative text."""
    assert picture.value.startswith('<img src="data:image/png;base64,')
    return html.unescape(re.search('alt="([^"]*)"', picture.value).group(1))


@pytest.fixture
def cells() -> tuple[list, list, list]:
    """Two images, the probabilities of a network that joins two nuclei at low thresholds, and the truth."""
    truth = np.zeros((24, 40), np.int32)
    truth[4:16, 4:16], truth[4:16, 17:30] = 1, 2
    probability = 0.9 * (truth > 0)
    probability[4:16, 16] = 0.6  # a bridge
    return [100.0 * probability, 50.0 * probability], [probability, 0 * probability], [truth, truth]


def test_the_figure_is_drawn_at_once_and_again_when_a_control_changes():
    drawn, before_it = [], plt.get_fignums()  # of other tests

    def draw(number):
        drawn.append(number)
        figure, axes = plotting.grid(1, 1, width=1)
        axes[0, 0].set_title(str(number))
        return figure, f"The number {number}."

    controls, picture = parts(redraw_on_change(draw, number=IntSlider(3, description="number")))
    before = picture.value
    controls["number"].value = 5
    assert drawn == [3, 5]
    assert description(picture) == "The number 5." and picture.value != before
    assert plt.get_fignums() == before_it  # nothing is left open


def test_browsing_shows_image_mask_size_and_number_of_nuclei():
    masks = [np.zeros((9, 12), int), np.array([[1, 0, 7], [0, 0, 0]])]
    samples = [Sample(f"name{i}", mask.astype(np.uint8), mask) for i, mask in enumerate(masks)]
    controls, picture = parts(browse_images(samples))
    assert description(picture) == "Image 0 of 9 x 12 pixels and its mask with 0 nuclei."
    controls["image"].value = 1
    assert description(picture) == "Image 1 of 2 x 3 pixels and its mask with 2 nuclei."
    controls["image"].value = 99
    assert controls["image"].value == 1  # a slider cannot leave the images


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("control", "value", "found"),
    [
        ("threshold", 0.7, "Image 0: 2 instances found, F1 1.000 at an IoU threshold of 0.50."),  # cuts the bridge
        ("threshold", 0.95, "Image 0: 0 instances found, F1 0.000 at an IoU threshold of 0.50."),
        ("iou_threshold", 0.9, "Image 0: 1 instances found, F1 0.000 at an IoU threshold of 0.90."),
        ("image", 1, "Image 1: 0 instances found, F1 0.000 at an IoU threshold of 0.50."),
    ],
)
def test_each_control_changes_what_its_name_says(cells, control, value, found):
    controls, picture = parts(explore_threshold(*cells))
    assert set(controls) == {"image", "threshold", "iou_threshold"}
    assert description(picture) == "Image 0: 1 instances found, F1 0.667 at an IoU threshold of 0.50."
    controls[control].value = value
    assert description(picture) == found
    assert not any(controls[name].continuous_update for name in ("threshold", "iou_threshold"))  # too slow to follow


def test_the_watershed_needs_seeds_above_the_threshold(cells):
    images, foregrounds, truths = cells
    boundaries = [np.zeros_like(foreground) for foreground in foregrounds]
    boundaries[0][4:16, 16] = 0.4
    controls, picture = parts(explore_watershed(images, foregrounds, boundaries, truths))
    assert description(picture) == "Image 0: 2 instances found, F1 1.000 at an IoU threshold of 0.50."
    controls["threshold"].value = 0.1
    assert "1 instances found" in description(picture)
    controls["threshold"].value = 0.95
    assert "0 instances found" in description(picture)


@pytest.mark.parametrize("name", ["cost_$5_and_$6.tif", r"$\frac{$", '<img src="x">&'])
def test_a_file_name_is_a_name(name):
    sample = Sample(name, np.eye(8), np.eye(8, dtype=np.int32))
    _, picture = parts(browse_images([sample]))
    assert "<img" not in picture.value[4:] and "1 nuclei" in description(picture)


@pytest.mark.parametrize(
    ("show", "message"),
    [
        (lambda: browse_images([]), "no images"),
        (lambda: explore_threshold([], [], []), "images must hold at least 1"),
        (lambda: explore_threshold([np.eye(3)], [np.eye(3)[None]], [np.eye(3, dtype=int)]), r"probabilities\[0\]"),
        (lambda: explore_watershed([np.eye(3)], [np.eye(3)], [], [np.eye(3, dtype=int)]), "boundaries must hold"),
    ],
)
def test_nothing_to_show_is_an_error(show, message):
    with pytest.raises(ValueError, match=message):
        show()


def test_the_two_discs_are_a_page_that_knows_the_threshold_and_needs_no_kernel():
    page = explore_iou(0.75).data
    assert '{"threshold": 0.75}' in page and "<script>" in page
    with pytest.raises(ValueError, match="iou_threshold"):
        explore_iou(1.5)
