"""Diagrams of wrong answers: shapes along the drawing of the U-Net, matches between instances, curves.

As in `pictures`, a check only makes the data, with the same things said in words (`alt`), and `figure` draws them. Data
may come from another process: what is not as described raises an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEHIND = "–"  # found at a stage behind the first wrong one: not reached, or not compared
MAX_INSTANCES = 12  # on each side: more lines cannot be told apart
BOX, GREY = 1.3, "#595959"  # width of a box, in columns
COLOURS = {"encoder": "#cfe8f7", "bottleneck": "#d9d9d9", "decoder": "#fbe3b5"}  # as in `plotting.plot_unet`


@dataclass(frozen=True)
class Stage:
    """What one place of a network gave and what it should give, as texts such as "(2, 8, 4, 6)".

    `part` is "encoder", "bottleneck" or "decoder"; level 0 has the full resolution.
    """

    part: str
    level: int
    name: str
    found: str
    expected: str


@dataclass(frozen=True)
class UNetShapes:
    """The stages of a student's network, in the order of the computation, along the drawing of the U-Net."""

    stages: tuple[Stage, ...]
    alt: str

    def figure(self) -> Figure:
        """The encoder goes down, the decoder up. The first wrong stage has a red frame, a cross and the right value."""
        expect_drawable(0 < len(self.stages) < 60, "stages")
        stacks: dict[tuple[str, int], list[Stage]] = {}
        for stage in self.stages:
            expect_drawable(stage.part in COLOURS and stage.level in range(9), "a place in the network")
            stacks.setdefault((stage.part, stage.level), []).append(stage)
        wrong = next((stage for stage in self.stages if stage.found not in (stage.expected, BEHIND)), None)
        depth = max(level for _, level in stacks)
        heights = {place: len(stack) + (wrong in stack) for place, stack in stacks.items()}
        tops = [0, *accumulate(0.8 + max(height for place, height in heights.items() if place[1] == level)
                               for level in range(depth + 1))]  # fmt: skip
        columns = 2 * depth + 1
        width = min(9, max(3.4, 2.2 * depth + 1.8))
        (axes,) = _axes(width, 0.4 + 0.26 * tops[-1])
        edges, joined = {}, {}
        for (part, level), stack in stacks.items():
            x = {"encoder": level, "bottleneck": depth, "decoder": 2 * depth - level}[part]
            y = tops[level] if part != "decoder" else tops[level + 1] - 0.8 - heights[part, level]
            edges[part, level] = x, y, y + heights[part, level]
            for stage in stack[::-1] if part == "decoder" else stack:
                _draw_stage(axes, stage, x, y, stage is wrong, int(26 * width / (columns + 0.8)))
                if stage.name == "joined":
                    joined[level] = x - (BOX + 0.4 * (stage is wrong)) / 2, y + 0.5
                y += 1 + (stage is wrong)

        def arrow(start: tuple, end: tuple, style: str = "-") -> None:
            look = {"arrowstyle": "-|>", "color": GREY, "linestyle": style, "linewidth": 1.3}
            axes.annotate("", end, start, arrowprops=look | {"shrinkA": 0, "shrinkB": 0})

        for (part, level), (x, _, low) in edges.items():
            below = edges.get((part, level + 1)) or edges.get(("bottleneck", level + 1))
            if below and part == "encoder" and stacks[part, level][0].name != "skip":
                arrow((x + 0.1, low), (x + 0.5, below[1]))
            elif below and part == "decoder":
                arrow((x - 0.5, below[1]), (x - 0.1, low))
        for level, end in joined.items():
            start = level + BOX / 2 + 0.2 * (stacks["encoder", level][0] is wrong), edges["encoder", level][1] + 0.5
            arrow(start, end, "--")
            x, y = (0.7 * first + 0.3 * last for first, last in zip(start, end, strict=True))
            axes.text(x, y - 0.1, "skip", fontsize=8, color=GREY)
        behind = f". {BEHIND}: behind the first error" if BEHIND in [stage.found for stage in self.stages] else ""
        axes.set_title(f"Your network: (batch, channels, height, width){behind}", fontsize=8.5)
        axes.set(xlim=(-0.9, columns - 0.1), ylim=(tops[-1] - 0.6, -0.2))
        return axes.figure


def _draw_stage(axes: Any, stage: Stage, x: float, y: float, wrong: bool, letters: int) -> None:
    from matplotlib.patches import Rectangle

    from course_utils.plotting import RED

    text, width, height = f"{stage.name}: {stage.found}"[:80], BOX + 0.4 * wrong, 1 + wrong
    look = {"facecolor": COLOURS[stage.part], "edgecolor": "#444444", "linewidth": 0.8}
    if wrong:
        lines = f"✘\xa0{text}", f"expected: {stage.expected}"[:90]
        text = "\n".join(fill(re.sub(r"(\d), (?=\d)", "\\1,\xa0", line), letters) for line in lines)
        look = {"facecolor": "white", "edgecolor": RED, "linewidth": 2.5}
    elif stage.found == BEHIND:
        look = {"facecolor": "white", "edgecolor": GREY, "linewidth": 0.8, "linestyle": ":"}
    axes.add_patch(Rectangle((x - width / 2, y), width, height, zorder=3 + wrong, **look))
    look = {"color": GREY if stage.found == BEHIND else "black", "fontsize": 7.5, "linespacing": 1.1}
    axes.text(x, y + height / 2, text, ha="center", va="center", zorder=3 + wrong, parse_math=False, **look)


@dataclass(frozen=True)
class Matches:
    """Predictions and true nuclei, and which of them match.

    Args:
        iou: matrix `(n_pred, n_true)`.
        pairs: (row, column) of the pairs that match, one to one.
        possible: (row, column) of other pairs that reach the threshold.
        labels: the two label images, the prediction first, whose ids in ascending order are the rows and the columns;
            without them the rows and columns of the matrix are drawn.
    """

    iou: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    possible: tuple[tuple[int, int], ...]
    labels: tuple[np.ndarray, ...]
    title: str
    alt: str

    def figure(self) -> Figure:
        """The prediction above, the truth below, a line for each pair; what has no partner has a sign and a word."""
        from matplotlib.patheffects import withStroke

        from course_utils.plotting import ERROR_COLOURS, centre_pixels, label_colours

        expect_drawable(type(self.iou) is np.ndarray and self.iou.dtype.kind == "f" and self.iou.ndim == 2, "a matrix")
        expect_drawable(max(self.iou.shape) <= MAX_INSTANCES, f"at most {MAX_INSTANCES} instances")
        for labels in self.labels:
            small = type(labels) is np.ndarray and labels.ndim == 2 and labels.size < 10_000
            expect_drawable(small, "small label images")
            expect_drawable(np.unique(labels).size <= MAX_INSTANCES + 1, f"at most {MAX_INSTANCES} instances")
        width, far = 2 * max(1, *self.iou.shape), 2 + 0.6 * max(self.iou.shape)
        places, height = [[(2 * i + width / 2 - n, 0) for i in range(n)] for n in self.iou.shape], 1
        if self.labels:
            height, width = self.labels[0].shape
            places = [[(x, y) for y, x in centre_pixels(labels).values()] for labels in self.labels]
            far = 1.6 * height + 1.4
        places = [[(x, y + far * side) for x, y in instances] for side, instances in enumerate(places)]
        scale = min(6 / (width + 4), 2.8 / (far + height + 2))  # inches for a pixel
        (axes,) = _axes(max(4.2, scale * (width + 4)), 0.7 + scale * (far + height + 2))
        axes.set_title(self.title[:120], fontsize=9, parse_math=False)

        def write(x: float, y: float, text: str, **look: Any) -> None:
            axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 8} | look)

        halo = [[withStroke(linewidth=width, foreground="black")] for width in (2.5, 4.5)]
        for number, pair in enumerate(sorted({*self.pairs, *self.possible})):
            shift, share = 0.9 * (number % 3 - 1) * (height > 1), (0.3, 0.42, 0.66)[number % 3]  # keep lines apart
            (x0, y0), (x1, y1) = ((places[side][index] + np.array([shift, 0])) for side, index in enumerate(pair))
            look = {"linestyle": ":", "color": GREY, "linewidth": 1}
            if pair in self.pairs:
                look = {"marker": "o", "color": "white", "markersize": 4, "path_effects": halo[1]}
            axes.plot([x0, x1], [y0, y1], **look)
            box = {"facecolor": "white", "edgecolor": GREY, "pad": 1}
            write(x0 + share * (x1 - x0), y0 + share * (y1 - y0), f"{self.iou[pair]:.2f}", fontsize=7, bbox=box)
        for side, sign in enumerate(("× FP", "o FN")):
            kinds = [("prediction", "truth"), ("rows", "columns")][not self.labels]
            write(-1, far * side + (height - 1) / 2, kinds[side], ha="right")
            if self.labels:
                extent = (-0.5, width - 0.5, far * side + height - 0.5, far * side - 0.5)
                large = self.labels[side].repeat(8, axis=0).repeat(8, axis=1)  # thin lines between those that touch
                axes.imshow(label_colours(large), interpolation="nearest", extent=extent)
            look = {"weight": "bold", "path_effects": halo[0], "color": [*ERROR_COLOURS.values()][[1, 3][side]]}
            for index, (x, y) in enumerate(places[side]):
                if not self.labels:
                    write(x, y - 0.7 + 1.4 * side, str(index))
                if index not in [pair[side] for pair in self.pairs]:
                    write(x, y, *[(sign,), ("no pair",)][not self.labels], **look if self.labels else {})
        axes.set(xlim=(-4, width), ylim=(far + height + 0.3, -1.2), aspect="equal")
        return axes.figure


@dataclass(frozen=True)
class Curves:
    """The student's curves beside the expected ones: panels `(title, yours, expected)` over the same `x`."""

    x: np.ndarray
    panels: tuple[tuple[str, np.ndarray, np.ndarray], ...]
    xlabel: str
    alt: str

    def figure(self) -> Figure:
        """Yours is dashed and orange, with crosses at the lower edge where it is no finite number."""
        from course_utils.plotting import BLUE, RED

        expect_drawable(0 < len(self.panels) < 4 and self.x.size < 1000, "few curves")
        panels = _axes(max(3.6, 3 * len(self.panels)), 2.7, len(self.panels))
        for axes, (title, yours, expected) in zip(panels, self.panels, strict=True):
            axes.axis("on")
            odd = ~np.isfinite(yours)
            axes.plot(self.x, expected, color=BLUE, linewidth=4, alpha=0.5, label="expected")
            axes.plot(self.x, np.where(odd, np.nan, yours), "--", color=RED, label="yours")
            if odd.any():
                lowest = np.full(odd.sum(), min(expected.min(), yours[~odd].min(initial=np.inf)))
                axes.plot(self.x[odd], lowest, "x", color=RED, label="yours: no finite number")
            axes.set_title(title[:60], fontsize=9, parse_math=False)
            axes.set_xlabel(self.xlabel[:60], fontsize=8, parse_math=False)
            axes.tick_params(labelsize=8)
        handles, labels = max((axes.get_legend_handles_labels() for axes in panels), key=lambda found: len(found[1]))
        panels[0].figure.legend(handles, labels, fontsize=8, ncols=3, loc="outside lower center", frameon=False)
        return panels[0].figure


def _axes(width: float, height: float, columns: int = 1) -> Any:
    """The axes of a new figure, side by side."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=130, facecolor="white", layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for panel in panels:
        panel.axis("off")
    return panels


def expect_drawable(condition: bool, what: str) -> None:
    """Raise `ValueError` where a picture lacks what drawing it needs: it may come from code that nobody trusts."""
    if not condition:
        raise ValueError(f"a picture needs {what}")
