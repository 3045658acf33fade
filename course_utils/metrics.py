"""How good is a segmentation? (notebook 04)

`iou_matrix`, `count_matches`, `f1_score` and `average_precision` are the exercises, in their clearest form.
`match_instances` gives the same counts, and is also fast for many thresholds and tens of thousands of nuclei: it
computes only pairs that overlap.

Label images are integer arrays `(H, W)`: 0 is background, ids are arbitrary and may have gaps. Any other
array, shapes that differ, and an IoU threshold outside (0, 1] are a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from course_utils.arguments import check_arguments
from course_utils.exploration import touching_ids

IOU_THRESHOLDS = (0.5, 0.75, 0.9)  # the thresholds of the course's tables
MSA_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # mSA is the mean AP over these


def iou_matrix(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of every predicted instance with every true one.

    Args:
        prediction, truth: label images `(H, W)` of integers; they are not changed. Ids need not be consecutive.

    Returns:
        float array `(n_pred, n_true)` with values in [0, 1]. Rows and columns are in ascending order of the ids,
        without the background.

    Raises:
        ValueError: the shapes differ, or an array is not a label image.

    >>> prediction = np.array([[1, 1, 0, 0]])
    >>> truth = np.array([[7, 7, 7, 0]])
    >>> iou_matrix(prediction, truth)
    array([[0.66666667]])
    """
    check_arguments(prediction=prediction, truth=truth)  # label images of the same shape
    # number the ids 0, 1, 2, ... so that gaps and huge ids cost nothing
    pred_ids, pred_index = np.unique(prediction, return_inverse=True)
    true_ids, true_index = np.unique(truth, return_inverse=True)

    # count for every pair of ids the pixels they share
    pair = pred_index.ravel() * len(true_ids) + true_index.ravel()
    intersection = np.bincount(pair, minlength=len(pred_ids) * len(true_ids)).reshape(len(pred_ids), len(true_ids))

    pred_area = intersection.sum(axis=1, keepdims=True)
    true_area = intersection.sum(axis=0, keepdims=True)
    iou = intersection / (pred_area + true_area - intersection)
    return iou[pred_ids != 0][:, true_ids != 0]


def count_matches(iou: np.ndarray, iou_threshold: float = 0.5) -> int:
    """Largest number of pairs, one to one, whose IoU reaches the threshold.

    Above 0.5 an instance can reach the threshold with one partner only, so counting the entries would suffice. At lower
    thresholds it can have several partners, and the best assignment must be found (Kuhn, 1955).

    Args:
        iou: float array `(n_pred, n_true)`, as from `iou_matrix`.
        iou_threshold: pairs with `IoU >= iou_threshold` may be matched; above 0 and at most 1.

    Returns:
        The number of true positives.

    Raises:
        ValueError: `iou` is not a matrix of numbers from 0 to 1, or the threshold is not in (0, 1].

    >>> count_matches(np.array([[0.4, 0.3], [0.45, 0.0]]), iou_threshold=0.3)
    2
    """
    check_arguments(iou=iou, iou_threshold=iou_threshold)
    possible = iou >= iou_threshold
    rows, columns = linear_sum_assignment(possible, maximize=True)
    return int(possible[rows, columns].sum())


def f1_score(prediction: np.ndarray, truth: np.ndarray, iou_threshold: float = 0.5) -> float:
    """F1 score of the instances of one image: `2 TP / (number predicted + number true)`.

    Args:
        prediction, truth: label images `(H, W)` of integers.
        iou_threshold: IoU from which a pair counts as a match.

    Returns:
        Python float in [0, 1]: 1.0 if both are empty, 0.0 if one of them is.

    Raises:
        ValueError: the shapes differ, an array is not a label image, or the threshold is not in (0, 1].

    >>> f1_score(np.array([[1, 1, 0, 2]]), np.array([[3, 3, 0, 0]]))
    0.6666666666666666
    """
    check_arguments(prediction=prediction, truth=truth, iou_threshold=iou_threshold)
    iou = iou_matrix(prediction, truth)
    n_pred, n_true = iou.shape
    if n_pred + n_true == 0:
        return 1.0
    return 2 * count_matches(iou, iou_threshold) / (n_pred + n_true)


def average_precision(prediction: np.ndarray, truth: np.ndarray, iou_thresholds: list[float]) -> list[float]:
    """Average precision of the instances of one image, `TP / (TP + FP + FN)`, at several IoU thresholds.

    This is the score of the 2018 Data Science Bowl, which StarDist and Cellpose report, too. Its mean over the
    thresholds 0.5, 0.55, ... 0.95 is called mSA. In object detection the same name means something else: the area under
    a curve of precision and recall.

    Args:
        prediction, truth: label images `(H, W)` of integers.
        iou_thresholds: IoU from which a pair counts as a match, one or more.

    Returns:
        Python floats in [0, 1], one for each threshold, in their order: 1.0 if both images are empty, 0.0 if one is.

    Raises:
        ValueError: the shapes differ, an array is not a label image, or a threshold is not in (0, 1].

    >>> average_precision(np.array([[1, 1, 0, 2]]), np.array([[3, 3, 3, 0]]), [0.5, 0.75])
    [0.5, 0.0]
    """
    check_arguments(prediction=prediction, truth=truth, iou_thresholds=iou_thresholds)
    iou = iou_matrix(prediction, truth)  # does not depend on the threshold: once is enough
    n_pred, n_true = iou.shape
    if n_pred + n_true == 0:
        return [1.0] * len(iou_thresholds)
    matches = [count_matches(iou, iou_threshold) for iou_threshold in iou_thresholds]
    return [matched / (n_pred + n_true - matched) for matched in matches]  # TP + FP + FN: a matched pair counts once


@dataclass(frozen=True)
class Matches:
    """Counts of one image, or sums of counts of several images, at one IoU threshold.

    `matched_iou` is the sum of the IoU of all matched pairs. At thresholds of 0.5 and above it is the same for every
    largest matching: only pairs whose IoU is exactly 0.5 can compete. Below 0.5 it belongs to one of several matchings.
    """

    iou_threshold: float
    true_positive: int
    false_positive: int
    false_negative: int
    matched_iou: float = float("nan")

    @property
    def f1(self) -> float:
        """`2 TP / (2 TP + FP + FN)`; 1.0 if there is nothing to find and nothing was found."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0

    @property
    def average_precision(self) -> float:
        """`TP / (TP + FP + FN)`, as defined by the 2018 Data Science Bowl; 1.0 if all counts are 0."""
        total = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / total if total else 1.0

    @property
    def precision(self) -> float:
        predicted = self.true_positive + self.false_positive
        return self.true_positive / predicted if predicted else 1.0

    @property
    def recall(self) -> float:
        true = self.true_positive + self.false_negative
        return self.true_positive / true if true else 1.0

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the matched pairs; 0.0 without matches, but 1.0 if all counts are 0."""
        if self.true_positive:
            return self.matched_iou / self.true_positive
        return 0.0 if self.false_positive or self.false_negative else 1.0

    @property
    def panoptic_quality(self) -> float:
        """Segmentation quality times recognition quality, which is the F1 score (Kirillov et al., CVPR 2019).

        Kirillov matches pairs with an IoU above 0.5, here it is 0.5 and above, as for F1. Below 0.5 it is not defined.

        Raises:
            ValueError: the threshold is below 0.5.
        """
        if self.iou_threshold < 0.5:
            raise ValueError(f"Panoptic quality needs an IoU threshold of at least 0.5, but has {self.iou_threshold}.")
        return self.segmentation_quality * self.f1


@dataclass(frozen=True)
class Overlaps:
    """The pairs of instances of one image that share at least one pixel.

    `pred_ids` and `true_ids` are ascending, without the background. The other arrays have an entry for each pair:
    `pred_index` and `true_index` say where its ids are in those two; then the shared pixels and both areas.
    """

    pred_ids: np.ndarray
    true_ids: np.ndarray
    pred_index: np.ndarray
    true_index: np.ndarray
    shared: np.ndarray
    pred_area: np.ndarray
    true_area: np.ndarray

    @cached_property
    def iou(self) -> np.ndarray:
        return self.shared / (self.pred_area + self.true_area - self.shared)


def overlapping_pairs(prediction: np.ndarray, truth: np.ndarray) -> Overlaps:
    """The entries of `iou_matrix` above 0, without the matrix: memory grows with the number of overlapping pairs.
    """
    check_arguments(prediction=prediction, truth=truth)
    pred, true, length = _runs(prediction.ravel(), truth.ravel())
    pred_ids, pred_index = np.unique(pred, return_inverse=True)
    true_ids, true_index = np.unique(true, return_inverse=True)
    runs = coo_array((length, (pred_index, true_index)), shape=(len(pred_ids), len(true_ids)))
    shared = runs.tocsr().tocoo()  # tocsr sums the runs of each pair
    pred_area, true_area = runs.sum(axis=1), runs.sum(axis=0)
    row, column = shared.coords
    nuclei = (pred_ids[row] != 0) & (true_ids[column] != 0)
    row, column = row[nuclei], column[nuclei]
    return Overlaps(
        pred_ids[pred_ids != 0], true_ids[true_ids != 0],
        pred_index=_index_without_background(pred_ids)[row], true_index=_index_without_background(true_ids)[column],
        shared=shared.data[nuclei], pred_area=pred_area[row], true_area=true_area[column],
    )  # fmt: skip


def _runs(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two ids and the length of each run of equal neighbours in two flat label images.

    Label images have far fewer runs than pixels, which makes sorting the ids faster.
    """
    starts = np.ones(prediction.size, dtype=bool)
    starts[1:] = (prediction[1:] != prediction[:-1]) | (truth[1:] != truth[:-1])
    start = np.flatnonzero(starts)
    return prediction[start], truth[start], np.diff(start, append=prediction.size)


def _index_without_background(ids: np.ndarray) -> np.ndarray:
    """The position of each id among those that are not 0."""
    return np.cumsum(ids != 0) - 1


def match_instances(
    prediction: np.ndarray, truth: np.ndarray, iou_thresholds: Sequence[float] = IOU_THRESHOLDS
) -> list[Matches]:
    """The counts behind `f1_score` at several thresholds, which takes hardly longer than one.

    Args:
        prediction, truth: label images `(H, W)` of integers.
        iou_thresholds: each above 0 (at 0 any two instances would match) and at most 1.

    Returns:
        One `Matches` for each threshold, in the order given.

    >>> match_instances(np.array([[1, 1, 0, 2]]), np.array([[3, 3, 0, 0]]), [0.5])
    [Matches(iou_threshold=0.5, true_positive=1, false_positive=1, false_negative=0, matched_iou=1.0)]
    """
    check_arguments(iou_thresholds=iou_thresholds)
    overlaps = overlapping_pairs(prediction, truth)
    n_pred, n_true = len(overlaps.pred_ids), len(overlaps.true_ids)
    results = []
    for iou_threshold in iou_thresholds:
        pairs = _matched_pairs(overlaps, iou_threshold)
        counts = len(pairs), n_pred - len(pairs), n_true - len(pairs)
        results.append(Matches(float(iou_threshold), *counts, float(overlaps.iou[pairs].sum())))
    return results


def _matched_pairs(overlaps: Overlaps, iou_threshold: float) -> np.ndarray:
    """The pairs of a largest one-to-one matching, as positions in the arrays of `overlaps`."""
    possible = np.flatnonzero(overlaps.iou >= iou_threshold)
    if iou_threshold > 0.5:  # nothing can share more than half of itself with two others: no assignment is needed
        return possible
    row, column = overlaps.pred_index[possible], overlaps.true_index[possible]
    if np.bincount(row).max(initial=0) <= 1 and np.bincount(column).max(initial=0) <= 1:  # nor is it here
        return possible
    pairs = row.astype(np.int32), column.astype(np.int32)  # SciPy before 1.14 needs 32-bit indices here
    shape = len(overlaps.pred_ids), len(overlaps.true_ids)
    graph = coo_array((np.ones(len(row), dtype=bool), pairs), shape=shape).tocsr()
    partner = maximum_bipartite_matching(graph, perm_type="row")  # of each column, -1 without one
    return possible[partner[column] == row]


def touching_recall(
    predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], iou_threshold: float = 0.5
) -> float:
    """Share of the touching nuclei that a prediction matches, pooled over all images; nan if no nuclei touch.

    Args:
        predictions, truths: label images, in the same order.
        iou_threshold: as in `f1_score`.

    >>> truth = np.array([[1, 2, 0, 3]])
    >>> touching_recall([np.array([[1, 0, 0, 3]])], [truth])
    0.5
    """
    check_arguments(predictions=predictions, truths=truths, iou_threshold=iou_threshold, values=False)
    found = total = 0
    for prediction, truth in zip(predictions, truths, strict=True):
        overlaps = overlapping_pairs(prediction, truth)
        touching = np.isin(overlaps.true_ids, touching_ids(truth))
        found += np.count_nonzero(touching[overlaps.true_index[_matched_pairs(overlaps, iou_threshold)]])
        total += np.count_nonzero(touching)
    return float(found / total) if total else float("nan")


@dataclass(frozen=True)
class InstanceErrors:
    """The instances of one image by kind of error, as sorted ids.

    A merge is a false positive that covers more than half of two or more nuclei. A split nucleus is a missed one with
    two or more predictions that each cover at least a tenth of it and lie mostly inside it.
    """

    matched: dict[int, int]  # id of the prediction -> id of the nucleus
    false_positive: list[int]  # predictions without a match, including merges
    missed: list[int]  # nuclei without a match, including split ones
    merged: list[int]  # predictions
    split: list[int]  # nuclei


def classify_errors(prediction: np.ndarray, truth: np.ndarray, iou_threshold: float = 0.5) -> InstanceErrors:
    """Find the kind of each error in one image: false positive, missed, merged, split.

    Args:
        prediction, truth: label images `(H, W)` of integers.
        iou_threshold: as in `f1_score`.

    >>> truth = np.array([[1, 1, 2, 2]])
    >>> classify_errors(np.array([[5, 5, 5, 5]]), truth, iou_threshold=0.6).merged
    [5]
    """
    check_arguments(iou_threshold=iou_threshold)
    overlaps = overlapping_pairs(prediction, truth)
    pairs = _matched_pairs(overlaps, iou_threshold)
    pred_ids, true_ids = overlaps.pred_ids, overlaps.true_ids
    found, true = pred_ids[overlaps.pred_index[pairs]], true_ids[overlaps.true_index[pairs]]
    matched = dict(zip(found.tolist(), true.tolist(), strict=True))
    false_positive = np.setdiff1d(pred_ids, found).tolist()
    missed = np.setdiff1d(true_ids, true).tolist()

    covers_most = overlaps.shared > 0.5 * overlaps.true_area
    covers = np.bincount(overlaps.pred_index[covers_most], minlength=len(pred_ids))
    is_part = (overlaps.shared > 0.5 * overlaps.pred_area) & (overlaps.shared >= 0.1 * overlaps.true_area)
    parts = np.bincount(overlaps.true_index[is_part], minlength=len(true_ids))
    merged = np.setdiff1d(pred_ids[covers >= 2], found).tolist()
    split = np.setdiff1d(true_ids[parts >= 2], true).tolist()
    return InstanceErrors(matched, false_positive, missed, merged, split)
