"""How fast is the scoring of label images, and how does its cost grow?"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.measuring import in_turn
from course_utils.data import CourseData
from course_utils.metrics import count_matches, iou_matrix, match_instances, overlapping_pairs
from course_utils.segmentation import otsu_watershed

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def many_labels(side: int, n_labels: int, seed: int) -> np.ndarray:
    """A label image of rectangles on a grid: about `n_labels` of them, with shuffled ids and gaps among the ids."""
    rng = np.random.default_rng(seed)
    per_side = round(n_labels**0.5)
    ids = rng.permutation(2 * per_side**2)[: per_side**2] + 1
    cell = side // per_side
    labels = np.zeros((side, side), dtype=np.int32)
    for number, name in enumerate(ids):
        row, column = divmod(number, per_side)
        height, width = rng.integers(cell // 2, cell, 2)
        labels[row * cell : row * cell + height, column * cell : column * cell + width] = name
    return labels


def growth(quick: bool) -> list[dict]:
    """Seconds of `match_instances`: larger images, more labels in one image, more overlapping pairs for each label."""
    cases = [(512, 781, 781), (1024, 3125, 3125)]
    if not quick:
        cases += [(2048, 12500, 12500), (4096, 50000, 50000)]
        cases += [(4096, 500, 500), (4096, 5000, 5000), (4096, 500, 50000), (4096, 5000, 50000)]
    rows = []
    for side, true_labels, predicted_labels in cases:
        truth, prediction = many_labels(side, true_labels, 0), many_labels(side, predicted_labels, 1)
        overlaps = overlapping_pairs(prediction, truth)
        [seconds] = in_turn({"": partial(match_instances, prediction, truth, [0.5])}, 1 if quick else 5).values()
        rows.append(
            {
                "image": f"{side} x {side}",
                "true labels": len(overlaps.true_ids),
                "predicted labels": len(overlaps.pred_ids),
                "overlapping pairs": len(overlaps.shared),
                "seconds": seconds,
                "seconds per million pixels": seconds / side**2 * 1e6,
            }
        )
    return rows


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
    same = counts["plain"] == counts["stardist"] == counts["course"]
    return {
        "title": f"Scoring {len(pairs)} test images at ten IoU thresholds",
        "identical counts": same,
        "rows": rows,
        "growth": growth(quick),
    }
