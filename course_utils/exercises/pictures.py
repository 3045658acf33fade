"""Pictures of wrong answers: plain data that a check attaches to its message, and how it is drawn.

A check only makes the data, since drawing takes time. It is drawn where it is shown: below the message in a notebook,
and on the pages of grading. Each kind of picture is a frozen dataclass with the same things said in words (`alt`) and a
method `figure`, which loads matplotlib and raises an error for what cannot be drawn.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from course_utils.display import figure_as_html
from course_utils.exercises.diagrams import Curves, Matches, Stage, UNetShapes, expect_drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_WHOLE, MAX_SIDE = 36, 24  # pixels: of an array with a longer side, a window around the first difference is drawn
MAX_NUMBERS = 12  # rows and columns of an array whose numbers are written into its cells
MAX_PIXELS, MAX_PANELS, MAX_TEXT = 4_000_000, 6, 1000
WIDTH, DPI = 2.2, 130  # of a panel, in inches


@dataclass(frozen=True)
class Panel:
    """An array `(H, W)` and how it is drawn.

    `kind` is "image", "labels", "probability", "classes" (0, 1, 2), "values" or "difference" (yours minus expected, or
    where they differ). `outline` is a mask whose outline is drawn over it, `mark` the row and column of a pixel that is
    framed, `corner` those of the first pixel in the array that this one was cut from.
    """

    title: str
    array: np.ndarray
    kind: str = "values"
    outline: np.ndarray | None = None
    mark: tuple[int, int] | None = None
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Panels:
    """Up to six panels side by side. `alt` says the same in words: found, expected, where they first differ."""

    panels: tuple[Panel, ...]
    alt: str

    def figure(self) -> Figure:
        from matplotlib.figure import Figure

        height = max(_plane(panel.array).shape[0] / panel.array.shape[1] for panel in self.panels)
        lines = max(len(panel.title) // 20 for panel in self.panels)
        size = (WIDTH * len(self.panels), WIDTH * min(max(height, 0.2), 2) + 0.7 + 0.2 * lines)
        figure = Figure(size, dpi=DPI, facecolor="white", layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(self.panels), squeeze=False)[0], self.panels, strict=True):
            _draw(axes, panel)
        return figure


# what may come from another process
KINDS = {kind.__name__: kind for kind in (Panel, Panels, Stage, UNetShapes, Matches, Curves)}


def draw(picture: Any) -> Figure:
    """The picture as one figure. Raises an error (of any type) if it cannot be drawn."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a letter that the font lacks, for example
        return picture.figure()


def as_html(picture: Any) -> str:
    """The picture as `img` elements with its text, panels below each other where it is narrow; "" if there is none."""
    try:
        alt = _text(picture.alt, MAX_TEXT)
        if not isinstance(picture, Panels):
            pixels = (figure := draw(picture)).get_figwidth() * DPI  # it shrinks as long as its text can be read
            style = f"width: min({pixels:.0f}px, max(100%, {0.62 * pixels:.0f}px)); max-width: none"
            image = figure_as_html(figure, alt).replace("max-width: 100%", style)
            return f'<div tabindex="0" style="overflow-x: auto;">{image}</div>'
        expect_drawable(0 < len(picture.panels) <= MAX_PANELS, "panels")
        parts = [Panels((panel,), panel.title) for panel in picture.panels]
        images = [figure_as_html(draw(part), part.alt if part is not parts[0] else alt) for part in parts]
        row = 4 if len(parts) == 4 else 3  # of panels, two on a phone
        style = f"width: {94 / row}%; min-width: 150px; height: auto; margin: 2px; vertical-align: bottom"
        images = [image.replace("max-width: 100%", style) for image in images]
        if len(images) == 5:  # two inputs, then yours, expected and difference
            images.insert(2, "<br>")
        return f'<div style="max-width: {245 * row}px">{"".join(images)}</div>'
    except Exception:  # a picture that cannot be drawn is none
        return ""


def compared(
    what: str, found: Any, expected: Any, input: Any = None, kind: str = "values", input_kind: str = "values",
    tolerance: float = 1e-5,
) -> Panels | None:
    """Input, yours, expected and difference, in a window around the first difference; None if they cannot be drawn.

    Arrays of one shape, or tensors. Of more than two axes the plane with the first difference is drawn. Several inputs
    are given as {title: array}.
    """
    with contextlib.suppress(Exception), np.errstate(all="ignore"):  # whatever the student's code returned
        planes = [np.squeeze(_numbers(array)) for array in (found, expected)]
        expect_drawable(planes[0].shape == planes[1].shape and planes[0].ndim > 1, "arrays of one shape")
        wrong = planes[0] != planes[1]
        if {planes[0].dtype.kind, planes[1].dtype.kind} & {*"f"}:
            wrong = ~np.isclose(*planes, rtol=tolerance, atol=tolerance, equal_nan=True)
        first = tuple(int(index) for index in np.argwhere(wrong)[0])
        n_wrong, n, shown = int(wrong.sum()), wrong.size, [plane[first].item() for plane in planes]
        planes, wrong = [plane[first[:-2]] for plane in planes], wrong[first[:-2]]
        signed = kind in ("values", "image", "probability") and planes[0].dtype.kind != "b"
        difference = wrong
        if signed:  # what rounding alone changes is no difference
            difference = np.where(wrong, np.subtract(*(plane.astype(np.float64) for plane in planes)), 0)
        place = first[-2:]
        panels = [_cut("yours", planes[0], kind, place), _cut("expected", planes[1], kind, place)]
        panels.append(_cut("difference", difference, "difference", place))
        given = input if isinstance(input, dict) else {"input": input} if input is not None else {}
        for title, array in reversed(given.items()):
            with contextlib.suppress(Exception):  # an input that cannot be drawn is left out
                same = (array := np.squeeze(_numbers(array))).shape == wrong.shape
                panels.insert(0, _cut(title, _plane(array), input_kind, place if same else None))
        part = f" Drawn is the part around row {place[0]}, column {place[1]}." if panels[-1].array.size < n else ""
        alt = (f"{what}: found {shown[0]:.6g}, expected {shown[1]:.6g} at row {place[0]}, column {place[1]}, which is "
               f"marked. {n_wrong} of {n} values differ.{part}")  # fmt: skip
        return Panels(tuple(panels), alt[0].upper() + alt[1:])
    return None


def _cut(title: str, array: np.ndarray, kind: str, place: tuple[int, int] | None) -> Panel:
    """A panel of an array, or of the part around a place."""
    size = MAX_SIDE if max(array.shape) > MAX_WHOLE else MAX_WHOLE
    top, left = (min(max(middle - size // 2, 0), max(side - size, 0))
                 for middle, side in zip(place or (0, 0), array.shape, strict=True))  # fmt: skip
    part = array[top : top + size, left : left + size].copy()
    return Panel(title, part, kind, mark=place and (place[0] - top, place[1] - left), corner=(top, left))


# drawing


def _text(value: Any, length: int) -> str:
    expect_drawable(type(value) is str, "text")
    return value if len(value) <= length else value[: length - 3] + "..."


def _numbers(array: Any) -> np.ndarray:
    """A copy of an array or a tensor of numbers."""
    array = np.array(array.detach().cpu().numpy() if hasattr(array, "detach") else array)
    expect_drawable(array.dtype.kind in "biuf" and array.size <= MAX_PIXELS, "numbers")
    return array


def _plane(array: Any) -> np.ndarray:
    plane = type(array) is np.ndarray and array.ndim == 2 and array.dtype.kind in "biuf"
    expect_drawable(plane and 0 < array.size <= MAX_PIXELS, "an array (H, W) of numbers")
    return array


def _draw(axes: Any, panel: Panel) -> None:
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    from course_utils import plotting

    array, title = _plane(panel.array), fill(_text(panel.title, 80), 24)
    step = -(-max(array.shape) // 600)
    axes.set_title(title, fontsize=12, parse_math=False)
    try:
        note = _paint(axes, array[::step, ::step], panel.kind)
    except ValueError:  # classes that are none, negative ids
        note = _paint(axes, array[::step, ::step], "values")
    axes.set_xlabel(fill(note, 30), fontsize=10)
    axes.tick_params(labelsize=9, length=2)
    halo = [withStroke(linewidth=3, foreground="white")]
    for axis, first in zip((axes.yaxis, axes.xaxis), panel.corner, strict=True):
        axis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        axis.set_major_formatter(lambda value, _, first=first: f"{first + value:.0f}")
    if panel.outline is not None:
        for colour, width in (("black", 4), (plotting.ORANGE, 2.2)):
            plotting.draw_edges(axes, _plane(panel.outline).astype(np.int64).clip(0), colour, width)
    if panel.mark is not None:
        row, column = map(int, panel.mark)
        x, y = column + np.array([-0.5, 0.5, 0.5, -0.5, -0.5]), row + np.array([-0.5, -0.5, 0.5, 0.5, -0.5])
        axes.plot(x, y, color="black", linewidth=1.6, path_effects=halo)
        if max(array.shape) > MAX_NUMBERS:  # else the frame is large enough
            away = np.where(np.array([column, row]) < np.array(array.shape[::-1]) / 2, 1, -1)
            arrow = {"arrowstyle": "-|>", "linewidth": 1.6, "color": "black", "path_effects": halo, "shrinkB": 0}
            axes.annotate("", (column, row) + 0.5 * away, (column, row) + 5 * away, arrowprops=arrow)


def _paint(axes: Any, array: np.ndarray, kind: str) -> str:
    """Draw the array; the result is a line that says how to read it."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    from course_utils import plotting

    number = array.astype(np.float64)
    finite = number[np.isfinite(number)]
    odd = f", {number.size - finite.size} not finite (yellow)" if finite.size < number.size else ""
    numbers, note = array, ""
    if kind == "labels":
        zoom = max(1, 200 // max(array.shape))  # the dark line between touching ids is thin
        large = array.astype(np.int64).repeat(zoom, axis=0).repeat(zoom, axis=1)
        height, width = array.shape
        axes.imshow(plotting.label_colours(large), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        ids = np.unique(array[array != 0])
        note = f"{len(ids)} {'id' if len(ids) == 1 else 'ids'}"
        if max(array.shape) > MAX_NUMBERS and len(ids) <= MAX_NUMBERS:
            for id_, place in plotting.centre_pixels(array.astype(np.int64)).items():
                _write(axes, *place, str(id_), 8)
    elif kind == "classes":
        colours = np.array([to_rgb(colour) for colour in plotting.CLASS_COLOURS.values()])
        plotting.check_arguments(classes=array)
        axes.imshow(colours[array.astype(int)])
        note = "0 dark, 1 blue, 2 orange"
    elif kind == "difference" and array.dtype.kind == "b":
        axes.imshow(np.where(array[..., None], to_rgb(plotting.RED), 1.0))
        note, numbers = f"{int(array.sum())} pixels differ (orange)", None
    elif kind == "difference":
        colours = LinearSegmentedColormap.from_list("", [plotting.BLUE, "white", plotting.RED])
        colours = colours.with_extremes(bad=plotting.YELLOW)
        largest = np.abs(finite).max(initial=0) or 1
        axes.imshow(number, cmap=colours, vmin=-largest, vmax=largest)
        signs = {"orange: larger": (number > 0).any(), "blue: smaller": (number < 0).any()}
        note = ", ".join(sign for sign, seen in signs.items() if seen) + odd
    else:
        known = kind == "probability" or not finite.size
        low, high = (0, 1) if known else np.percentile(finite, [1, 99.8] if kind == "image" else [0, 100])
        low, high = (low, high) if high > low else (low - 1, high + 1)
        colours = colormaps["cividis" if kind == "probability" else "gray"].with_extremes(bad=plotting.YELLOW)
        axes.imshow(np.where(np.isfinite(number), number, np.nan), cmap=colours, vmin=low, vmax=high)
        digits = 4 if array.dtype.kind == "f" else 12
        ends = sorted({f"{end:.{digits}g}" for end in (finite.min(), finite.max())}, key=float) if finite.size else []
        note = " to ".join(ends) + odd
        numbers = None if kind == "image" else array
    if numbers is not None and max(array.shape) <= MAX_NUMBERS:  # as far as they can be read
        few, many = ([_short(value, digits) for value in numbers.ravel().tolist()] for digits in (3, 6))
        texts = few if len({*few}) > len({*many}) / 2 else many  # else different numbers would look alike
        size = min(11.0, 190 / max(array.shape[1], array.shape[0] / 2) / max(map(len, texts)))
        brightness = axes.images[0].make_image(None, unsampled=True)[0][..., :3].mean(axis=-1)
        brightness = brightness[(zoom := len(brightness) // len(array)) // 2 :: zoom, zoom // 2 :: zoom]
        for place, text in zip(np.ndindex(array.shape), texts, strict=True) if size > 4.5 else ():
            _write(axes, *place, text, size, dark=brightness[place] < 110)
    return note


def _short(value: float, digits: int) -> str:
    """The number in at most about seven characters."""
    text = f"{value:.{digits}g}" if isinstance(value, float) else str(int(value))
    return text if len(text) <= 7 else f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-")


def _write(axes: Any, row: float, column: float, text: str, size: float, dark: bool = False) -> None:
    from matplotlib.patheffects import withStroke

    colour, around = ("white", "black") if dark else ("black", "white")
    halo = [withStroke(linewidth=1.5, foreground=around)]
    axes.text(column, row, text, fontsize=size, ha="center", va="center", color=colour, path_effects=halo)
