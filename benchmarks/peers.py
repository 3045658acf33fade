"""The first table and the first picture of docs/results.md: the course beside what others published.

Only the rows of the course are measured, with the pretrained network on the 50 test images; the others are quoted, with
their source. Who publishes AP is compared by AP: it is not the same as F1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from course_utils.plotting import BLUE, ORANGE


@dataclass(frozen=True)
class Peer:
    """A published result on these 50 test images; None or an empty text for what is not said."""

    name: str
    ap: tuple[float, ...] = ()  # at IoU 0.5, 0.75, 0.9, as far as published
    msa: float | None = None
    parameters: str = ""
    licence: str = ""
    trained_on: str = "this training split"


PEERS = (
    Peer("StarDist in PyTorch [1]", (0.870, 0.634, 0.193), licence="not said"),
    Peer("StarDist in Keras [1]", (0.873, 0.598, 0.188), licence="BSD-3-Clause"),
    Peer("EmbedSeg, test-time augmentation [2]", (0.887,), licence="CC BY-NC 4.0"),
    Peer("micro-SAM APG [3]", (), 0.665, "", "MIT"),
    Peer("micro-SAM AIS [3]", (), 0.654, "", "MIT"),
    Peer("Cellpose-SAM [3]", (), 0.656, "about 312 million", "BSD-3-Clause", "other images"),
    Peer("CellSAM [3]", (), 0.634, "", "modified Apache 2.0, non-commercial", "other images"),
    Peer("Cellpose 3 [3]", (), 0.484, "", "BSD-3-Clause", "other images"),
)
SOURCES = (
    "[1] README of an unofficial port of StarDist to PyTorch; how it averages is not said.",
    "[2] Lalit, Tomancak and Jug, EmbedSeg, Medical Image Analysis 2022.",
    "[3] `scripts/apg_experiments` in the repository of micro-sam. Those of other images were trained on many; whether "
    "images of the Data Science Bowl are among them is not said there.",
)


def own_rows(result: dict, parameters: int) -> list[dict]:
    """The rows of the course: name, scores and intervals."""
    rows = []
    for views in ("one view", "eight views"):
        test = result[views]["watershed"]["test"]
        rows.append({
            "name": f"this course, {views}", "ap": list(test["mean_ap"].values()), "msa": [*test["msa"].values()][0],
            "interval": test.get("interval", {}), "parameters": f"{parameters / 1e6:.1f} million",
        })  # fmt: skip
    return rows


def peers_rows(result: dict, parameters: int) -> list[dict]:
    """The table: the course first, then the others from the best to the worst of what they publish."""

    def between(row: dict, score: str) -> str:
        low, high = row["interval"].get(score, (None, None))
        return "" if low is None else f" ({low:.3f} to {high:.3f})"

    rows = []
    for row in own_rows(result, parameters):
        rows.append({
            "mean over the 50 test images": f"**{row['name']}**",
            "AP at IoU 0.5 (95 % interval)": f"{row['ap'][0]:.3f}{between(row, 'AP at 0.5')}",
            "0.75": f"{row['ap'][1]:.3f}", "0.9": f"{row['ap'][2]:.3f}",
            "mSA (95 % interval)": f"{row['msa']:.3f}{between(row, 'mSA')}",
            "parameters": row["parameters"], "licence": "MIT; the network CC0", "trained on": "this training split",
        })  # fmt: skip
    for peer in PEERS:
        ap = [f"{value:.3f}" for value in peer.ap] + [""] * (3 - len(peer.ap))
        msa = "" if peer.msa is None else f"{peer.msa:.3f}"
        cells = (peer.name, *ap, msa, peer.parameters, peer.licence, peer.trained_on)
        rows.append(dict(zip(rows[0], cells, strict=True)))
    return rows


def peers_figure(result: dict, parameters: int) -> Figure:
    """Two panels, AP at IoU 0.5 and mSA: a point for each method, for the course with its 95 % interval."""
    own = own_rows(result, parameters)
    panels = (
        ("AP at IoU 0.5", "AP at 0.5", [(row["name"], row["ap"][0]) for row in own],
         [(peer.name, peer.ap[0]) for peer in PEERS if peer.ap]),
        ("mSA", "mSA", [(row["name"], row["msa"]) for row in own],
         [(peer.name, peer.msa) for peer in PEERS if peer.msa is not None]),
    )  # fmt: skip
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for panel, (title, score, ours, others) in zip(axes, panels, strict=True):
        rows = sorted([(value, name, True) for name, value in ours] + [(value, name, False) for name, value in others])
        panel.set_yticks(range(len(rows)), [name for _, name, _ in rows])
        for y, (value, name, is_own) in enumerate(rows):
            colour = BLUE if is_own else ORANGE
            if is_own and (ends := next(row["interval"].get(score) for row in own if row["name"] == name)):
                panel.plot(ends, [y, y], color=colour, linewidth=2)
            panel.plot(value, y, "o" if is_own else "D", color=colour, markersize=8)
            place = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            panel.annotate(f"{value:.3f}", (value, y), **place)
        panel.set_title(title)
        panel.margins(x=0.12)  # room for the numbers above the outermost points
        panel.set_ylim(-0.6, len(rows) - 0.2)
        panel.grid(axis="x", alpha=0.4)
    return figure


def save(figure: Figure, path: Path) -> None:
    """The picture as a file whose bytes depend on the picture alone."""
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
