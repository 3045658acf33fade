"""How fast is the scoring of label images, and how does its cost grow?"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.optimize import nnls

from benchmarks.measuring import in_turn
from course_utils.data import CourseData
from course_utils.metrics import count_matches, iou_matrix, match_instances, overlapping_pairs
from course_utils.segmentation import otsu_watershed

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def many_labels(side: int, n_labels: int, seed: int, shifted: bool = False) -> np.ndarray:
    """A label image of rectangles on a grid: about `n_labels` of them, with shuffled ids and gaps among the ids.

    Shifted by half a cell, nearly every rectangle overlaps several of an image that is not shifted.
    """
    rng = np.random.default_rng(seed)
    per_side = round(n_labels**0.5)
    ids = rng.permutation(2 * per_side**2)[: per_side**2] + 1
    cell = side // per_side
    labels = np.zeros((side, side), dtype=np.int32)
    for number, name in enumerate(ids):
        row, column = divmod(number, per_side)
        height, width = rng.integers(cell // 2, cell, 2)
        labels[row * cell : row * cell + height, column * cell : column * cell + width] = name
    return np.roll(labels, cell // 2, axis=(0, 1)) if shifted else labels


def growth(quick: bool) -> list[dict]:
    """Seconds of `match_instances` for more pixels with the same labels, more labels, and more pairs of each."""
    cases = [(512, 484, 484, False), (1024, 484, 484, False), (1024, 3136, 3136, True)]
    if not quick:
        cases += [(2048, 484, 484, False), (4096, 484, 484, False)]
        cases += [(4096, 5041, 5041, False), (4096, 20164, 20164, False), (4096, 50176, 50176, False)]
        cases += [(4096, 5041, 5041, True), (4096, 50176, 50176, True), (4096, 484, 50176, False)]
    rows = []
    for side, true_labels, predicted_labels, shifted in cases:
        truth, prediction = many_labels(side, true_labels, 0), many_labels(side, predicted_labels, 1, shifted)
        overlaps = overlapping_pairs(prediction, truth)
        [seconds] = in_turn({"": partial(match_instances, prediction, truth, [0.5])}, 1 if quick else 5).values()
        rows.append(
            {
                "image": f"{side} x {side}",
                "million pixels": side**2 / 1e6,
                "true labels": len(overlaps.true_ids),
                "predicted labels": len(overlaps.pred_ids),
                "overlapping pairs": len(overlaps.shared),
                "seconds": seconds,
            }
        )
    return rows


def straight_line(rows: list[dict]) -> dict[str, float]:
    """The seconds as a cost for each pixel, label and overlapping pair (least relative squares, no cost below zero).

    Adds to each row how the measured seconds compare with that straight line.
    """
    sizes = np.array(
        [
            [
                row["million pixels"],
                (row["true labels"] + row["predicted labels"]) / 10_000,
                row["overlapping pairs"] / 10_000,
            ]
            for row in rows
        ]
    )
    seconds = np.array([row["seconds"] for row in rows])
    costs, _ = nnls(sizes / seconds[:, None], np.ones(len(rows)))
    for row, fitted in zip(rows, sizes @ costs, strict=True):
        row["measured / straight line"] = row["seconds"] / float(fitted)
    units = ("million pixels", "ten thousand labels", "ten thousand overlapping pairs")
    return {f"straight line, seconds for each {unit}": float(cost) for unit, cost in zip(units, costs, strict=True)}


def measure(data: CourseData, quick: bool) -> dict:
    """Scoring the test images at ten thresholds: the exercises' functions, StarDist and `match_instances`, in turn."""
    from stardist.matching import matching

    samples = data.test[:10] if quick else data.test
    truths = [sample.mask.astype(np.int32) for sample in samples]
    predictions = [otsu_watershed(sample.image).astype(np.int32) for sample in samples]
    pairs = list(zip(predictions, truths, strict=True))
    counts: dict[str, list[tuple[int, int, int]]] = {}

    def plain():
        found = []
        for prediction, truth in pairs:
            for threshold in IOU_THRESHOLDS:  # everything anew for each threshold, as the original exercise does
                iou = iou_matrix(prediction, truth)
                hits = count_matches(iou, threshold)
                found.append((hits, iou.shape[0] - hits, iou.shape[1] - hits))
        counts["plain"] = found

    def stardist():
        counts["stardist"] = [
            (one.tp, one.fp, one.fn) for p, t in pairs for one in matching(t, p, thresh=IOU_THRESHOLDS)
        ]

    def course():
        counts["course"] = [
            (one.true_positive, one.false_positive, one.false_negative)
            for p, t in pairs
            for one in match_instances(p, t, IOU_THRESHOLDS)
        ]

    seconds = in_turn({"plain": plain, "stardist": stardist, "course": course}, repeats=1 if quick else 5)
    rows = [
        {"way": name, "seconds": value, "times as long as the course's": value / seconds["course"]}
        for name, value in seconds.items()
    ]
    grown = growth(quick)
    same = counts["plain"] == counts["stardist"] == counts["course"]
    return {
        "title": f"Scoring {len(pairs)} test images at ten IoU thresholds",
        "identical counts": same,
        **straight_line(grown),
        "rows": rows,
        "growth": grown,
    }
