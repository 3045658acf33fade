"""Figures: fixed colours, counts in legends, and no warning for any image."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from course_utils import plotting
from course_utils.plotting import BACKGROUND, label_colours, with_matching_ids
from course_utils.targets import boundary_target
from course_utils.training import EpochResult

IDS = st.sampled_from([0, 1, 2, 3, 17, 70_000])
LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=IDS)


@pytest.fixture(autouse=True)
def closed_figures():
    with plt.rc_context():
        plotting.use_course_style()
        yield
    plt.close("all")


def pixels(figure) -> np.ndarray:
    """The figure as an image. Drawing it raises the warnings that it has."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGBA"))


def is_background(colours: np.ndarray) -> np.ndarray:
    return np.isclose(colours, BACKGROUND).all(axis=-1)


# label colours


@given(LABELS)
def test_the_colour_of_a_pixel_depends_only_on_its_id(labels):
    colours = label_colours(labels)
    assert colours.shape == (*labels.shape, 3) and colours.min() >= 0 and colours.max() <= 1
    for i in np.unique(labels):
        drawn = colours[(labels == i) & ~is_background(colours)]
        if len(drawn):
            alone = label_colours(np.array([[i]]))[0, 0]
            assert np.allclose(drawn, alone)
    assert is_background(colours[labels == 0]).all()


@given(LABELS)
def test_between_touching_nuclei_there_is_a_dark_pixel(labels):
    dark = is_background(label_colours(labels))
    beside = (labels[:, :-1] != labels[:, 1:]) & (labels[:, :-1] > 0) & (labels[:, 1:] > 0)
    below = (labels[:-1] != labels[1:]) & (labels[:-1] > 0) & (labels[1:] > 0)
    assert (dark[:, :-1] | dark[:, 1:])[beside].all()
    assert (dark[:-1] | dark[1:])[below].all()
    inside = labels > 0
    inside[:, :-1] &= ~beside
    inside[:-1] &= ~below
    assert not dark[inside].any()  # and nowhere else


def test_nearby_ids_have_different_colours():
    ids = np.arange(1, 400)
    colours = label_colours(np.stack([ids, np.zeros_like(ids)]).T.reshape(1, -1))[0, ::2]  # background between them
    assert np.abs(colours[1:] - colours[:-1]).max(axis=-1).min() > 0.25
    assert np.abs(colours - BACKGROUND).max(axis=-1).min() > 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_labels_of_every_integer_dtype_have_the_same_colours(dtype):
    labels = np.array([[0, 3, 3], [200, 0, 7]])
    other = labels.astype(dtype)
    other.flags.writeable = False
    assert np.allclose(label_colours(other), label_colours(labels))
    assert np.array_equal(with_matching_ids(other, other), labels)


# with_matching_ids


def test_a_matched_instance_gets_the_id_of_its_nucleus_and_the_others_get_new_ids():
    truth = np.array([[7, 7, 7, 0, 3, 3, 0, 0, 0]])
    prediction = np.array([[1, 1, 1, 0, 2, 2, 0, 3, 9]])
    result = with_matching_ids(prediction, truth)
    assert result[0, :6].tolist() == [7, 7, 7, 0, 3, 3]
    assert result[0, 6] == 0 and len({*result[0, 7:].tolist()} - {0, 3, 7}) == 2


@given(LABELS.flatmap(lambda truth: st.tuples(hnp.arrays(np.int32, truth.shape, elements=IDS), st.just(truth))))
def test_matching_ids_rename_instances_without_joining_or_losing_any(pair):
    prediction, truth = pair
    result = with_matching_ids(prediction, truth)
    names = {(int(old), int(new)) for old, new in zip(prediction.ravel(), result.ravel(), strict=True)}
    assert len(names) == len({old for old, _ in names}) == len({new for _, new in names})
    assert np.array_equal(result == 0, prediction == 0)


# every picture of every image

ODD_IMAGES = {
    "one pixel": np.full((1, 1), 7, np.uint8),
    "one row": np.arange(30, dtype=np.uint16)[None],
    "constant": np.full((20, 30), 128, np.uint8),
    "black": np.zeros((20, 30), np.float32),
    "ordinary": np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "touching") for name in ODD_IMAGES), ("one pixel", "empty"), ("ordinary", "empty"), ("ordinary", "one")],
)
def test_every_drawing_works_for_every_image_and_label_image(name, kind):
    image = ODD_IMAGES[name]
    labels = np.zeros(image.shape, np.int32)
    if kind != "empty":
        labels[: 1 + image.shape[0] // 2] = 4
    if kind == "touching":
        labels[:, image.shape[1] // 2 :] = 900
    figure, axes = plotting.grid(2, 4)
    plotting.draw_image(axes[0, 0], image, "image")
    plotting.draw_probability(axes[0, 1], image / 255, "probability", colorbar=True)
    plotting.draw_labels(axes[0, 2], labels, "labels")
    plotting.draw_classes(axes[0, 3], boundary_target(labels), "classes", legend=True)
    plotting.draw_outlines(axes[1, 0], image, labels, "outlines")
    plotting.draw_errors(axes[1, 1], image, labels, labels, title="right")
    plotting.draw_errors(axes[1, 2], image, np.zeros_like(labels), labels, title="missed")
    plotting.draw_errors(axes[1, 3], image, labels, np.zeros_like(labels), title="invented")
    assert pixels(figure).std() > 0


def test_grid_gives_a_table_of_axes_also_for_one():
    figure, axes = plotting.grid(1, 1)
    assert axes.shape == (1, 1)
    figure, axes = plotting.grid(2, 3, width=2, height=1)
    assert axes.shape == (2, 3) and figure.get_size_inches().tolist() == [6, 2]


def test_a_dim_image_is_stretched_and_probabilities_have_a_fixed_scale():
    figure, axes = plotting.grid(1, 1)
    plotting.draw_image(axes[0, 0], np.tile(np.arange(10, dtype=np.uint8), (10, 1)))
    assert axes[0, 0].images[0].get_clim() == pytest.approx((0, 9), abs=0.1)
    plotting.draw_probability(axes[0, 0], np.full((4, 4), 0.3))
    assert axes[0, 0].images[1].get_clim() == (0, 1)


def test_the_legend_counts_each_kind_of_error():
    truth = np.zeros((10, 40), np.int32)
    truth[2:8, 2:8], truth[2:8, 10:14], truth[2:8, 14:18], truth[2:8, 20:30], truth[2:8, 33:37] = 1, 2, 3, 4, 5
    prediction = np.zeros_like(truth)
    prediction[2:8, 2:8], prediction[2:8, 10:18], prediction[2:8, 20:25], prediction[2:8, 25:30] = 1, 2, 3, 4
    prediction[0, 39] = 9
    figure, axes = plotting.grid(1, 1)
    plotting.draw_errors(axes[0, 0], np.zeros(truth.shape), prediction, truth, iou_threshold=0.6)
    counts = {text.get_text() for text in axes[0, 0].get_legend().get_texts()}
    # the two halves of nucleus 4 and the lone pixel match nothing; 2 and 3 are hidden under one merge
    assert counts == {"matched 1", "× false positive 3", "+ merged 1", "o missed 3", "÷ split 1"}


def test_the_three_classes_keep_their_colours_when_one_is_absent():
    figure, axes = plotting.grid(1, 2)
    plotting.draw_classes(axes[0, 0], np.array([[0, 1, 2]]))
    plotting.draw_classes(axes[0, 1], torch.tensor([[2, 2]]))
    first, second = (panel.images[0].get_array() for panel in axes[0])
    assert np.array_equal(second[0, 0], first[0, 2])
    assert len({tuple(colour) for colour in first[0].tolist()}) == 3


# curves and the drawing of the network


def results(n: int, metric=True) -> list[EpochResult]:
    train_metric, validation_metric = (0.5, 0.6) if metric else (None, None)
    return [EpochResult(i + 1, 1 / (i + 1), train_metric, 0.9, validation_metric, seconds=1) for i in range(n)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 30])
def test_curves_of_a_training_of_any_length(n):
    figure = plotting.plot_training(results(n), "hard Dice", epochs=30)
    loss, metric = figure.axes
    assert (loss.get_ylabel(), metric.get_ylabel()) == ("loss", "hard Dice")
    assert metric.get_legend().get_texts()[1].get_text() == "validation, now 0.600"
    assert loss.lines[0].get_linestyle() == "--" and loss.lines[1].get_linestyle() == "-"
    assert pixels(figure).std() > 0


def test_curves_of_a_long_training_begin_after_the_first_fall():
    loss, _ = plotting.plot_training(results(135)).axes
    assert loss.get_xlabel() == "epoch (the first 13 are not shown)"
    assert loss.lines[0].get_xdata()[0] == 14 and loss.lines[0].get_xdata()[-1] == 135
    assert loss.get_xlim() == pytest.approx((13.8, 135.2))
    assert len(plotting.plot_training(results(3, metric=False)).axes) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_epochs, n_steps", [(0, 1), (0, 7), (2, 20), (2, 25), (60, 605)])
def test_curves_of_a_training_that_is_still_running_show_every_step_and_the_prediction(n_epochs, n_steps):
    losses, prediction = np.linspace(1, 0, n_steps).tolist(), np.array([[0.2, 0.7]])
    figure = plotting.plot_training(results(n_epochs), "soft Dice", 70, losses, 10, prediction)
    loss, metric, picture = figure.axes
    places, values = loss.lines[0].get_data()
    assert places[-1] == n_steps / 10 and values[-1] == losses[-1]  # in epochs, as the other curves
    assert loss.get_xlim()[0] == metric.get_xlim()[0] == places[0] - 0.1 == (6 if n_epochs == 60 else 0)
    assert picture.get_title() == "prediction now" and np.array_equal(picture.images[0].get_array(), prediction)
    assert pixels(figure).std() > 0


@pytest.mark.filterwarnings("error")
def test_each_method_has_its_own_line_style():
    figure = plotting.plot_f1_curves({f"method {i}": {0.5: 0.9, 0.75: 0.5, 0.9: 0.1 * i} for i in range(4)})
    lines = figure.axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 4
    assert figure.axes[0].get_ylim()[0] == 0
    pixels(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("base_channels", "depth"), [(64, 4), (8, 1), (16, 3)])
def test_in_the_drawing_of_the_network_a_box_is_as_wide_as_its_channels_and_as_high_as_its_maps(base_channels, depth):
    axes = plotting.plot_unet(base_channels, depth, side=256).axes[0]
    texts, boxes = [text.get_text() for text in axes.texts], axes.patches
    for level in range(depth + 1):
        name = f"{base_channels * 2**level}\n{256 // 2**level}²"
        assert texts.count(name) == (1 if level == depth else 2)
    sizes = {(box.get_width() / boxes[0].get_width(), box.get_height() / boxes[0].get_height()) for box in boxes}
    assert sizes == {(2**level, 1 / 2**level) for level in range(depth + 1)} and len(boxes) == 2 * depth + 1
    pixels(axes.figure)


def test_the_colours_of_errors_and_classes_differ():
    for colours in (plotting.ERROR_COLOURS, plotting.CLASS_COLOURS):
        assert len(set(colours.values())) == len(colours)


# names are names, and wrong arrays are errors

NAMES = ["cost_$5_and_$6.tif", "$", "a$b", r"$\frac{$", r"C:\new\alpha_1", "<b>&amp;", "x_1^{2}", "_hidden", "*bold*"]


@pytest.mark.parametrize(
    "draw",
    [plotting.draw_image, plotting.draw_probability, plotting.draw_labels, plotting.draw_classes,
     lambda axes, image, title: plotting.draw_outlines(axes, image, image, title),
     lambda axes, image, title: plotting.draw_errors(axes, image, image, image, title=title)],
)  # fmt: skip
def test_a_title_is_text_and_no_formula(draw):
    figure, axes = plotting.grid(1, len(NAMES), width=1)
    for panel, name in zip(axes[0], NAMES, strict=True):
        draw(panel, np.eye(3, dtype=int), title=name)
        assert panel.title.get_text() == name
        assert not panel.title._preprocess_math(name)[1]  # what matplotlib asks before it draws
    figure.set_layout_engine("none")
    pixels(figure)


def test_a_table_shows_a_dollar_as_it_is():
    assert "mathjax_ignore" in pd.DataFrame({"image": NAMES}).to_html()
    assert "&lt;b&gt;" in pd.DataFrame({"image": NAMES}).to_html()


def test_no_method_is_left_out_of_the_curves():
    figure = plotting.plot_f1_curves({f"method {number}": {0.5: 0.1 * number} for number in range(9)})
    assert len(figure.axes[0].get_legend().get_texts()) == 9


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda axes: plotting.draw_image(axes, np.full((3, 3), np.nan)), "9 values that are NaN"),
        (lambda axes: plotting.draw_image(axes, np.zeros((3, 3, 3))), "not 2-dimensional"),
        (lambda axes: plotting.draw_labels(axes, np.full((3, 3), 0.5)), "dtype float64: label it first"),
        (lambda axes: plotting.draw_classes(axes, np.full((3, 3), 7)), "classes 0, 1, 2, but has values from 7 to 7"),
        (lambda axes: plotting.draw_outlines(axes, np.eye(3), np.eye(4, dtype=int)), r"have \(3, 3\) and \(4, 4\)"),
        (lambda axes: plotting.plot_training([]), "no results"),
        (lambda axes: plotting.grid(0, 1), "rows must be"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_that_says_what_was_found(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(plotting.grid(1, 1)[1][0, 0])
