"""Figures of the course. Functions take arrays and draw on the axes they are given, or return a new figure.

The colours are those of Okabe and Ito, which colour-blind people can tell apart; a line style, a symbol or a word
always says the same as the colour. The background of a figure is white and opaque, so it is readable in a dark theme.
An array of another kind than described is a `ValueError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from course_utils.arguments import check_arguments

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
BACKGROUND = to_rgb("#1b1f27")  # of label images, in every figure
CLASS_COLOURS = {"background": "#1b1f27", "interior": SKY, "boundary": ORANGE}
ERROR_COLOURS = {"matched": GREEN, "false positive": RED, "merged": PURPLE, "missed": YELLOW, "split": SKY}
ERROR_SIGNS = {"matched": "", "false positive": "×", "merged": "+", "missed": "o", "split": "÷"}


def use_course_style() -> None:
    """Set fonts, colours and sizes for all figures that follow, and show a $ in tables as it is."""
    import pandas as pd

    pd.set_option("display.html.use_mathjax", False)
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK]),
            "image.interpolation": "nearest",
            "figure.constrained_layout.use": True,
        }
    )


def grid(rows: int, columns: int, width: float = 3.0, height: float | None = None) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` axes, each `width` inches wide; the axes are always a 2-D array."""
    check_arguments(rows=rows, columns=columns)
    height = width + 0.3 if height is None else height
    return plt.subplots(rows, columns, figsize=(columns * width, rows * height), squeeze=False)


def draw_image(axes, image: np.ndarray, title: str = "") -> None:
    """Draw an image in grey, stretched from its 1st to its 99.8th percentile, so that dim images are visible."""
    check_arguments(image=image)
    low, high = np.percentile(image.astype(float), [1, 99.8])
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    _finish(axes, title)


def _finish(axes, title: str) -> None:
    axes.set_title(title, parse_math=False)  # a $ in the name of a file begins no formula
    axes.axis("off")


def draw_probability(axes, probability: np.ndarray, title: str = "", colorbar: bool = False) -> None:
    """Draw a map of values from 0 to 1 on a fixed colour scale."""
    check_arguments(probability=probability)
    drawn = axes.imshow(probability, cmap="cividis", vmin=0, vmax=1)
    _finish(axes, title)
    if colorbar:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.7, label="probability")


def label_colours(labels: np.ndarray) -> np.ndarray:
    """Colour a label image `(H, W)`; returns a float array `(H, W, 3)` in [0, 1].

    The colour depends only on the id, so the same id has the same colour in every panel. The background is always the
    same dark blue, and a dark line separates touching nuclei.

    >>> label_colours(np.array([[0, 7]])).shape
    (1, 2, 3)
    """
    check_arguments(labels=labels)
    ids, index = np.unique(labels, return_inverse=True)
    hue = ids * 0.618034 % 1  # steps of the golden ratio spread the hues of nearby ids
    saturation = 0.45 + 0.35 * (ids % 3) / 2
    value = 0.8 + 0.2 * (ids % 2)
    colours = hsv_to_rgb(np.stack([hue, saturation, value], axis=-1))
    colours[ids == 0] = BACKGROUND
    picture = colours[index].reshape(*labels.shape, 3)
    below = (labels[:-1] != labels[1:]) & (labels[:-1] > 0) & (labels[1:] > 0)
    beside = (labels[:, :-1] != labels[:, 1:]) & (labels[:, :-1] > 0) & (labels[:, 1:] > 0)
    picture[:-1][below] = BACKGROUND
    picture[:, :-1][beside] = BACKGROUND
    return picture


def draw_labels(axes, labels: np.ndarray, title: str = "") -> None:
    """Draw a label image in the fixed colours of `label_colours`."""
    check_arguments(image=labels)  # an empty one cannot be drawn
    axes.imshow(label_colours(labels))
    _finish(axes, title)


def draw_classes(axes, target: np.ndarray, title: str = "", legend: bool = False) -> None:
    """Draw a target with the classes 0 background, 1 interior, 2 boundary."""
    classes = target.numpy() if hasattr(target, "numpy") else target  # a tensor is an array, too
    check_arguments(classes=classes)
    colours = np.array([to_rgb(colour) for colour in CLASS_COLOURS.values()])
    axes.imshow(colours[classes.astype(int)])
    _finish(axes, title)
    if legend:
        handles = [Patch(facecolor=colour, label=name) for name, colour in CLASS_COLOURS.items()]
        _legend_below(axes, handles, columns=3)


def draw_tint(axes, strength: np.ndarray, colour: str) -> None:
    """Lay a colour over what is drawn, for each pixel as strong as its value from 0 to 1."""
    check_arguments(probability=strength)
    tint = np.zeros((*strength.shape, 4))
    tint[..., :3], tint[..., 3] = to_rgb(colour), strength
    axes.imshow(tint)


def draw_outlines(axes, image: np.ndarray, labels: np.ndarray, title: str = "", colour: str = ORANGE) -> None:
    """Draw an image with a line around each instance, along the edges of its pixels."""
    check_arguments(image=image, labels=labels)
    draw_image(axes, image, title)
    draw_edges(axes, labels, colour)


def draw_edges(axes, labels: np.ndarray, colour: str = ORANGE, width: float = 1.8) -> None:
    """Draw a line between neighbouring pixels whose ids differ; beyond the border of the image there is background."""
    check_arguments(labels=labels)
    inside = np.pad(labels, 1)
    rows, columns = np.nonzero(inside[1:] != inside[:-1])  # an edge below and above each other's pixel
    across = np.stack([columns - 1.5, rows - 0.5, columns - 0.5, rows - 0.5], axis=-1)
    rows, columns = np.nonzero(inside[:, 1:] != inside[:, :-1])
    down = np.stack([columns - 0.5, rows - 1.5, columns - 0.5, rows - 0.5], axis=-1)
    edges = np.concatenate([across, down]).reshape(-1, 2, 2)
    axes.add_collection(LineCollection(edges, colors=colour, linewidths=width, capstyle="round"), autolim=False)


def centre_pixels(labels: np.ndarray) -> dict[int, tuple[int, int]]:
    """Row and column of each instance's pixel nearest to its centre, by id in ascending order.

    >>> centre_pixels(np.array([[0, 7, 7, 7, 3]]))
    {3: (0, 4), 7: (0, 2)}
    """
    check_arguments(labels=labels)
    inside = labels != 0
    order = np.argsort(labels[inside], kind="stable")
    ids, starts = np.unique(labels[inside][order], return_index=True)
    parts = np.split(np.argwhere(inside)[order], starts[1:])  # one, and empty, if there is no instance
    nearest = [part[((part - part.mean(axis=0)) ** 2).sum(axis=1).argmin()] for part in parts if len(part)]
    return {int(id_): (int(row), int(column)) for id_, (row, column) in zip(ids, nearest, strict=True)}


def draw_line(axes, start: Sequence[float], end: Sequence[float]) -> None:
    """Draw a line from a (row, column) to another, with A and B at its ends."""
    edge = [withStroke(linewidth=2.5, foreground="black")]
    axes.plot([start[1], end[1]], [start[0], end[0]], color="white", linewidth=1, path_effects=edge)
    for name, (row, column) in {"A": start, "B": end}.items():
        axes.text(column, row, name, color="white", size=12, weight="bold", ha="center", va="center", path_effects=edge)


def draw_errors(
    axes, image: np.ndarray, prediction: np.ndarray, truth: np.ndarray, iou_threshold: float = 0.5, title: str = ""
) -> None:
    """Colour each instance by its kind: matched, false positive, merged, missed, split; the legend has the counts."""
    from course_utils.metrics import classify_errors

    check_arguments(image=image, prediction=prediction, truth=truth, iou_threshold=iou_threshold)
    errors = classify_errors(prediction, truth, iou_threshold)
    missed = [instance for instance in errors.missed if instance not in errors.split]
    false_positive = [instance for instance in errors.false_positive if instance not in errors.merged]
    kinds = {  # each instance once, by its most specific kind; later kinds cover earlier ones
        "matched": (prediction, list(errors.matched)),
        "missed": (truth, missed),
        "split": (truth, errors.split),
        "false positive": (prediction, false_positive),
        "merged": (prediction, errors.merged),
    }
    draw_image(axes, image, title)
    tint = np.zeros((*image.shape, 4))
    for kind, (labels, ids) in kinds.items():
        shown = np.where(np.isin(labels, ids), labels, 0)
        tint[shown != 0] = (*to_rgb(ERROR_COLOURS[kind]), 0.55)
        for row, column in centre_pixels(shown).values() if ERROR_SIGNS[kind] else ():
            axes.text(
                column, row, ERROR_SIGNS[kind], color="white", fontsize=7, ha="center", va="center", clip_on=True,
                path_effects=[withStroke(linewidth=1.5, foreground="black")],
            )  # fmt: skip
    axes.imshow(tint)
    handles = [
        Patch(facecolor=colour, label=f"{ERROR_SIGNS[kind]} {kind} {len(kinds[kind][1])}".strip())
        for kind, colour in ERROR_COLOURS.items()
    ]
    _legend_below(axes, handles, columns=2)


def _legend_below(axes, handles: list, columns: int) -> None:
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02)}
    axes.legend(handles=handles, **place, ncols=columns, fontsize=8, frameon=False)


def with_matching_ids(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Give predicted instances the ids of the nuclei they match (IoU from 0.5), so that both have the same colour.

    Instances without a match get ids above all others. Arguments and result are label images `(H, W)`.

    >>> with_matching_ids(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 0, 0]]))
    array([[ 7,  7,  0, 10]])
    """
    from course_utils.metrics import classify_errors

    matched = classify_errors(prediction, truth, 0.5).matched
    ids, index = np.unique(prediction, return_inverse=True)
    first_free = int(max(truth.max(initial=0), 0)) + 1
    new_ids = [0 if i == 0 else matched.get(int(i), first_free + position) for position, i in enumerate(ids)]
    return np.array(new_ids)[index].reshape(prediction.shape)


def plot_training(
    results: Sequence,
    metric_name: str = "Dice",
    epochs: int | None = None,
    losses: Sequence[float] = (),
    steps: int = 1,
    prediction: np.ndarray | None = None,
) -> Figure:
    """Curves of loss and metric over the epochs, for training (dashed) and validation (solid).

    Args:
        results: from `training.fit`. Without a metric in them only the loss is drawn.
        metric_name: label of the metric's axis.
        epochs: length of the axis, if training is not finished.
        losses: of every single step so far, drawn as a thin line; with some, the first epoch may still be running.
        steps: how many of them an epoch has.
        prediction: probability `(H, W)`, drawn beside the curves.

    With more than 40 epochs the first tenth is left out, and the axis says so: its steep fall would flatten the rest.
    """
    if len(results) == 0 and len(losses) == 0:
        raise ValueError("There are no results to plot: train for at least one epoch first.")
    shown = list(results[len(results) // 10 :] if len(results) > 40 else results)
    curves = [("loss", [r.train_loss for r in shown], [r.validation_loss for r in shown])]
    if not shown or shown[-1].validation_metric is not None:
        curves.append((metric_name, [r.train_metric for r in shown], [r.validation_metric for r in shown]))
    numbers = [result.epoch for result in shown]
    first, last = (numbers[0], epochs or numbers[-1]) if numbers else (1, epochs or 1)
    extra = prediction is not None
    figure, axes = grid(1, len(curves) + extra, width=3.6 if extra else 4.5, height=3.2)
    if len(losses) > 0:
        left_out = (first - 1) * steps
        places = np.arange(left_out + 1, len(losses) + 1) / steps
        axes[0, 0].plot(places, losses[left_out:], color="#999999", linewidth=0.7, label="each step")
    for panel, (name, training, validation) in zip(axes[0], curves, strict=False):
        style = {"markersize": 4, "markevery": 1 + len(numbers) // 30}
        now = f", now {validation[-1]:.3f}" if validation else ""
        panel.plot(numbers, training, "--o", label="training", **style)
        panel.plot(numbers, validation, "-s", label=f"validation{now}", **style)
        start = first - 1 if len(losses) > 0 else first - 0.2
        panel.set(xlabel="epoch" if first == 1 else f"epoch (the first {first - 1} are not shown)", ylabel=name)
        panel.set_xlim(start, last + 0.2)
        if len(losses) > 0:  # axes that stay as they are while curves grow
            panel.set_ylim(0, None if name == "loss" else 1)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(frameon=False)
    if prediction is not None:
        draw_probability(axes[0, -1], prediction, "prediction now")
    return figure


def plot_f1_curves(curves: dict[str, dict[float, float]]) -> Figure:
    """Mean F1 against the IoU threshold, a line for each method.

    Args:
        curves: `{name of the method: {IoU threshold: mean F1}}`.
    """
    figure, axes = grid(1, 1, width=6, height=3.8)
    styles = itertools.cycle(["-o", "--s", ":^", "-.D", "-v", "--P"])
    for (name, f1), style in zip(curves.items(), styles, strict=False):
        axes[0, 0].plot(list(f1), list(f1.values()), style, markersize=5, label=name)
    axes[0, 0].set(xlabel="IoU threshold", ylabel="mean F1 over images", ylim=(0, 1.02))
    axes[0, 0].grid(alpha=0.3)
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure


def plot_unet(base_channels: int = 64, depth: int = 4, side: int = 256) -> Figure:
    """A drawing of the U-Net as in the paper: a box is as wide as its block has channels, and as high as its maps."""
    check_arguments(base_channels=base_channels, depth=depth, side=side)
    figure, axes = plt.subplots(figsize=(7.2, 0.5 * depth + 3.3))
    gap_x, gap_y = 0.62, 0.6
    width = [1.5 / 2 ** (depth - level) for level in range(depth + 1)]
    height = [1.6 / 2**level for level in range(depth + 1)]
    left, middle = [0.0], [-height[0] / 2]
    for level in range(depth):
        left.append(left[-1] + width[level] + gap_x)
        middle.append(middle[-1] - height[level] / 2 - gap_y - height[level + 1] / 2)
    right = 2 * left[-1] + width[-1]  # of the whole drawing, whose halves mirror each other

    def box(level, x, colour):
        y = middle[level] - height[level] / 2
        axes.add_patch(plt.Rectangle((x, y), width[level], height[level], fc=colour, ec="black", lw=0.8))
        name = f"{base_channels * 2**level}\n{side // 2**level}²"
        axes.text(x + width[level] / 2, y + height[level] + 0.04, name, ha="center", va="bottom", fontsize=9)

    def arrow(start, end, colour, style="-", bend=""):
        properties = dict(arrowstyle="-|>", color=colour, linewidth=1.6, linestyle=style, shrinkA=0, shrinkB=0)
        axes.annotate("", xy=end, xytext=start, arrowprops=properties | ({"connectionstyle": bend} if bend else {}))

    for level in range(depth):
        box(level, left[level], "#cfe8f7")
        box(level, right - left[level] - width[level], "#fbe3b5")
        start, bottom = left[level] + width[level] / 2, middle[level] - height[level] / 2
        below = middle[level + 1]
        arrow((start, bottom), (left[level + 1], below), RED, bend="angle,angleA=90,angleB=0,rad=0")  # down
        arrow((right - left[level + 1], below), (right - start, bottom), GREEN, bend="angle,angleA=0,angleB=90,rad=0")
        ends = left[level] + width[level], right - left[level] - width[level]
        arrow((ends[0], middle[level]), (ends[1], middle[level]), "#777777", "--")  # skip
    box(depth, left[depth], "#d9d9d9")
    arrow((-0.5, middle[0]), (0, middle[0]), BLACK)
    arrow((right, middle[0]), (right + 0.5, middle[0]), BLUE)
    axes.text(-0.55, middle[0], "image", ha="right", va="center", fontsize=9)
    axes.text(right + 0.55, middle[0], "logits", ha="left", va="center", fontsize=9)

    handles = [
        Patch(facecolor="#cfe8f7", edgecolor="black", label="ConvBlock of the encoder"),
        Patch(facecolor="#d9d9d9", edgecolor="black", label="ConvBlock: the bottleneck"),
        Patch(facecolor="#fbe3b5", edgecolor="black", label="ConvBlock of the decoder"),
        plt.Line2D([], [], color="#777777", linestyle="--", label="skip connection (concatenate)"),
        plt.Line2D([], [], color=RED, label="2x2 max pooling (down)"),
        plt.Line2D([], [], color=GREEN, label="2x2 transposed convolution (up)"),
        plt.Line2D([], [], color=BLUE, label="1x1 convolution"),
    ]
    axes.set_xlim(-1.15, right + 1.15)
    axes.set_ylim(middle[-1] - height[-1] / 2 - 0.1, 0.55)
    _legend_below(axes, handles, columns=2)
    axes.axis("off")
    return figure
