"""Exercises 4.3 to 4.6 and their fast form, against brute force: sets of pixels, and all possible matchings."""

from __future__ import annotations

import re
import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.metrics import (
    Matches,
    average_precision,
    classify_errors,
    count_matches,
    f1_score,
    iou_matrix,
    match_instances,
    overlapping_pairs,
    touching_recall,
)

IDS = [0, 1, 2, 7, 70_000, 2**31 - 1]  # with gaps, and as large as a label image can hold
THRESHOLDS = st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0])


@st.composite
def label_pairs(draw, max_side=7):
    """A prediction and a truth of one shape; often similar, so that there is something to match."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=max_side))
    truth = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from(IDS)))
    if draw(st.booleans()):
        return draw(hnp.arrays(np.int32, shape, elements=st.sampled_from(IDS))), truth
    changed = draw(hnp.arrays(bool, shape, elements=st.sampled_from([False, False, True])))
    return np.where(changed, draw(st.sampled_from(IDS)), truth).astype(np.int32), truth


def pixels_of(labels: np.ndarray) -> list[set[tuple[int, int]]]:
    """The pixels of each instance, in ascending order of the ids."""
    instances: dict[int, set] = {}
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != 0:
                instances.setdefault(int(labels[y, x]), set()).add((y, x))
    return [instances[i] for i in sorted(instances)]


def iou_by_sets(prediction: np.ndarray, truth: np.ndarray) -> list[list[float]]:
    return [[len(a & b) / len(a | b) for b in pixels_of(truth)] for a in pixels_of(prediction)]


def best_matchings_by_trial(iou: list[list[float]], iou_threshold: float) -> tuple[int, list[float]]:
    """Try every way to give each row a different column: the most matches, and the sums of IoU with that many."""
    matrix = np.array(iou)
    if matrix.size == 0:
        return 0, [0.0]
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    rows, orders = range(len(matrix)), permutations(range(matrix.shape[1]), len(matrix))
    chosen = [matrix[rows, list(columns)] for columns in orders]
    most = max(np.count_nonzero(values >= iou_threshold) for values in chosen)
    matched = [values[values >= iou_threshold] for values in chosen]
    return most, [float(values.sum()) for values in matched if len(values) == most]


def best_matching_by_trial(iou: list[list[float]], iou_threshold: float) -> int:
    return best_matchings_by_trial(iou, iou_threshold)[0]


# 4.3 iou_matrix


@given(label_pairs())
def test_iou_is_that_of_the_sets_of_pixels_in_ascending_order_of_the_ids(pair):
    prediction, truth = pair
    copies = prediction.copy(), truth.copy()
    iou = iou_matrix(prediction, truth)
    expected = iou_by_sets(prediction, truth)
    assert iou.shape == (len(pixels_of(prediction)), len(pixels_of(truth)))
    assert iou.dtype.kind == "f"
    assert iou.tolist() == expected
    assert np.array_equal(prediction, copies[0]) and np.array_equal(truth, copies[1])


def test_empty_label_images_give_a_matrix_without_rows_or_columns():
    nothing, something = np.zeros((3, 4), int), np.array([[0, 0, 5, 5]] * 3)
    assert iou_matrix(nothing, nothing).shape == (0, 0)
    assert iou_matrix(nothing, something).shape == (0, 1)
    assert iou_matrix(something, nothing).shape == (1, 0)
    assert iou_matrix(np.zeros((0, 4), int), np.zeros((0, 4), int)).shape == (0, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_prediction_and_truth_may_have_any_integer_dtype(dtype):
    labels = np.array([[0, 1, 1], [200, 200, 0]])
    assert iou_matrix(labels.astype(dtype), labels).tolist() == [[1, 0], [0, 1]]
    assert f1_score(labels.astype(dtype), labels) == match_instances(labels.astype(dtype), labels, [0.5])[0].f1 == 1


@pytest.mark.parametrize("function", [iou_matrix, f1_score, overlapping_pairs, match_instances, classify_errors])
def test_different_shapes_are_an_error_that_names_both(function):
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        function(np.zeros((2, 3), int), np.zeros((3, 2), int))


@pytest.mark.parametrize("function", [iou_matrix, f1_score, match_instances])
def test_huge_ids_cost_no_memory(function):
    labels = np.zeros((64, 64), np.uint64)
    labels[:8], labels[8:16] = 2**63, 2**40
    tracemalloc.start()
    function(labels, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


# 4.4 count_matches


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5), elements=st.floats(0, 1)),
    THRESHOLDS,
)
def test_count_matches_finds_the_best_of_all_matchings(iou, iou_threshold):
    before = iou.copy()
    matches = count_matches(iou, iou_threshold)
    assert type(matches) is int
    assert matches == best_matching_by_trial(iou.tolist(), iou_threshold)
    assert np.array_equal(iou, before)


@pytest.mark.parametrize(
    ("iou", "iou_threshold", "matches"),
    [
        ([[0.45, 0.40], [0.42, 0.0]], 0.4, 2),  # the first row must leave its best partner to the second
        ([[0.3, 0.3, 0.3]], 0.3, 1),  # an instance is matched once
        ([[0.5]], 0.5, 1),
        ([[np.nextafter(0.5, 0)]], 0.5, 0),
        (np.zeros((0, 3)), 0.5, 0),
    ],
)
def test_matches_that_can_be_counted_by_hand(iou, iou_threshold, matches):
    assert count_matches(np.array(iou), iou_threshold) == matches == count_matches(np.array(iou).T, iou_threshold)


# 4.5 f1_score


@given(label_pairs(), THRESHOLDS)
def test_f1_is_twice_the_matches_by_the_number_of_instances(pair, iou_threshold):
    prediction, truth = pair
    n_pred, n_true = len(pixels_of(prediction)), len(pixels_of(truth))
    score = f1_score(prediction, truth, iou_threshold)
    assert type(score) is float
    matches = best_matching_by_trial(iou_by_sets(prediction, truth), iou_threshold)
    assert score == (2 * matches / (n_pred + n_true) if n_pred + n_true else 1.0)
    assert f1_score(truth, prediction, iou_threshold) == score


@given(label_pairs(), st.permutations([3, 5, 11, 2**20, 2**30]))
def test_f1_does_not_depend_on_which_ids_instances_have(pair, new_ids):
    prediction, truth = pair
    renamed = np.zeros_like(prediction)
    for old, new in zip(IDS[1:], new_ids, strict=True):
        renamed[prediction == old] = new
    for iou_threshold in (0.3, 0.5, 0.9):
        assert f1_score(renamed, truth, iou_threshold) == f1_score(prediction, truth, iou_threshold)


def test_f1_of_empty_label_images():
    nothing, something = np.zeros((2, 3), int), np.array([[0, 4, 4], [0, 0, 0]])
    assert [f1_score(nothing, nothing), f1_score(nothing, something), f1_score(something, nothing)] == [1.0, 0.0, 0.0]
    assert f1_score(something, something, iou_threshold=1.0) == 1.0


# 4.6 average_precision


@given(label_pairs(), st.lists(THRESHOLDS, max_size=4))
def test_average_precision_is_the_matches_by_all_that_is_found_or_true(pair, iou_thresholds):
    prediction, truth = pair
    iou = iou_by_sets(prediction, truth)
    n_pred, n_true = len(pixels_of(prediction)), len(pixels_of(truth))
    scores = average_precision(prediction, truth, iou_thresholds)
    assert type(scores) is list and all(type(score) is float for score in scores)
    matches = [best_matching_by_trial(iou, iou_threshold) for iou_threshold in iou_thresholds]
    assert scores == [tp / (n_pred + n_true - tp) if n_pred + n_true else 1.0 for tp in matches]
    for ap, iou_threshold in zip(scores, iou_thresholds, strict=True):
        assert f1_score(prediction, truth, iou_threshold) == pytest.approx(2 * ap / (1 + ap))


@given(st.lists(label_pairs(max_side=4), min_size=1, max_size=5))
def test_f1_of_a_mean_average_precision_is_at_least_the_mean_f1(pairs):
    """The other way round of what papers report: an upper bound, reached only if all images have the same score."""
    precisions = np.array([average_precision(*pair, [0.5])[0] for pair in pairs])
    mean_f1 = np.mean([f1_score(*pair) for pair in pairs])
    bound = 2 * precisions.mean() / (1 + precisions.mean())
    assert mean_f1 <= bound + 1e-12
    assert (bound - mean_f1 < 1e-12) == (np.ptp(precisions) < 1e-12)


# match_instances


@given(label_pairs(), st.lists(THRESHOLDS, min_size=1, max_size=4))
def test_the_fast_form_agrees_with_the_clear_one(pair, iou_thresholds):
    prediction, truth = pair
    iou = iou_matrix(prediction, truth)
    results = match_instances(prediction, truth, iou_thresholds)
    assert [matches.iou_threshold for matches in results] == iou_thresholds
    for matches in results:
        assert matches.true_positive == count_matches(iou, matches.iou_threshold)
        assert matches.true_positive + matches.false_positive == iou.shape[0]
        assert matches.true_positive + matches.false_negative == iou.shape[1]
        assert matches.f1 == pytest.approx(f1_score(prediction, truth, matches.iou_threshold))
    assert [matches.average_precision for matches in results] == average_precision(prediction, truth, iou_thresholds)


@given(label_pairs(), THRESHOLDS)
def test_the_matched_iou_is_that_of_a_largest_matching_and_the_same_for_all_from_a_half_on(pair, iou_threshold):
    (matches,) = match_instances(*pair, [iou_threshold])
    most, sums = best_matchings_by_trial(iou_by_sets(*pair), iou_threshold)
    assert matches.true_positive == most
    assert any(matches.matched_iou == pytest.approx(one) for one in sums)
    if iou_threshold >= 0.5:
        assert sums == pytest.approx([matches.matched_iou] * len(sums))


@given(label_pairs(), st.sampled_from([0.5, 0.6, 0.9, 1.0]))
def test_panoptic_quality_is_that_of_its_definition(pair, iou_threshold):
    """Sum of the IoU of the pairs, by TP + FP / 2 + FN / 2 (Kirillov et al. 2019)."""
    (matches,) = match_instances(*pair, [iou_threshold])
    n_pred, n_true = (len(pixels_of(labels)) for labels in pair)
    _, sums = best_matchings_by_trial(iou_by_sets(*pair), iou_threshold)
    expected = sums[0] / ((n_pred + n_true) / 2) if n_pred + n_true else 1.0
    assert matches.panoptic_quality == pytest.approx(expected)
    assert matches.panoptic_quality == matches.segmentation_quality * matches.f1
    assert 0 <= matches.panoptic_quality <= matches.f1 <= 1
    if matches.true_positive:
        assert matches.segmentation_quality >= iou_threshold - 1e-12


def test_panoptic_quality_that_can_be_computed_by_hand():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3]])
    prediction = np.array([[5, 5, 5, 0, 0, 6, 6, 8, 0]])  # IoU 3/4 and 1; one wrong, one missed
    (matches,) = match_instances(prediction, truth, [0.5])
    assert (matches.matched_iou, matches.segmentation_quality, matches.f1) == (1.75, 0.875, 2 * 2 / 6)
    assert matches.panoptic_quality == pytest.approx(1.75 / 3)
    nothing = np.zeros_like(truth)
    of_empty = [match_instances(*pair, [0.5])[0] for pair in ((nothing, nothing), (truth, nothing), (nothing, truth))]
    assert [one.panoptic_quality for one in of_empty] == [one.segmentation_quality for one in of_empty] == [1, 0, 0]


def test_panoptic_quality_below_a_half_is_an_error():
    labels = np.ones((2, 2), int)
    with pytest.raises(ValueError, match="at least 0.5, but has 0.4"):
        match_instances(labels, labels, [0.4])[0].panoptic_quality  # noqa: B018
    assert np.isnan(Matches(0.5, 1, 0, 0).panoptic_quality), "counts alone do not tell"


@given(label_pairs())
def test_overlapping_pairs_are_the_entries_of_the_matrix_above_zero(pair):
    prediction, truth = pair
    overlaps = overlapping_pairs(prediction, truth)
    iou = iou_matrix(prediction, truth)
    matrix = np.zeros_like(iou)
    matrix[overlaps.pred_index, overlaps.true_index] = overlaps.iou
    assert np.array_equal(matrix, iou) and np.all(overlaps.iou > 0)
    assert overlaps.pred_ids.tolist() == [i for i in np.unique(prediction) if i]
    assert overlaps.true_ids.tolist() == [i for i in np.unique(truth) if i]


# arguments

ONE_PAIR = (iou_matrix, f1_score, overlapping_pairs, match_instances, classify_errors)
LABELS = np.array([[0, 1, 1], [7, 7, 0]])
NO_LABELS = {
    "has dtype bool: label it first": LABELS > 0,
    "has dtype float64: label it first": np.array([[0.0, 0.3, 0.9], [0.2, 0.5, 0.1]]),
    "has dtype float32: label it first": LABELS.astype(np.float32),
    "has dtype float16": np.full((2, 3), np.nan, np.float16),
    "has dtype complex128": LABELS * 1j,
    "has dtype object": LABELS.astype(object),
    "has dtype <U1": np.full((2, 3), "a"),
    "has values from -1 to 7": np.where(LABELS == 1, -1, LABELS),
    "is of type list: make it a NumPy array first": LABELS.tolist(),
    "is of type Tensor: make it a NumPy array first": torch.tensor(LABELS),
    "is of type NoneType": None,
    "has shape (6,), which is not 2-dimensional": LABELS.ravel(),
    "has shape (1, 2, 3), which is not 2-dimensional": LABELS[None],
    "has shape (), which is not 2-dimensional": np.array(3),
}


@pytest.mark.parametrize("function", [*ONE_PAIR, lambda p, t: average_precision(p, t, [0.5])])
@pytest.mark.parametrize(("found", "no_labels"), NO_LABELS.items(), ids=NO_LABELS)
def test_what_is_no_label_image_is_an_error_that_says_what_was_found(function, found, no_labels):
    for name, arguments in (("prediction", (no_labels, LABELS)), ("truth", (LABELS, no_labels))):
        with pytest.raises(ValueError, match=f"^{name} must be a label image of integers.* but {re.escape(found)}"):
            function(*arguments)


@pytest.mark.parametrize("labels", [LABELS, np.zeros_like(LABELS)], ids=["nuclei", "empty"])
@pytest.mark.parametrize("iou_threshold", [0, -0.1, 1.1, 50, float("nan"), float("inf"), "0.5", None, True, 1j])
def test_a_threshold_outside_0_to_1_is_an_error(labels, iou_threshold):
    message = r"^iou_threshold(s\[0\])? must be a number above 0 and at most 1, but is "
    for call in (
        lambda: f1_score(labels, labels, iou_threshold),
        lambda: average_precision(labels, labels, [iou_threshold]),
        lambda: match_instances(labels, labels, [iou_threshold]),
        lambda: classify_errors(labels, labels, iou_threshold),
        lambda: touching_recall([labels], [labels], iou_threshold),
        lambda: count_matches(np.zeros((0, 0)), iou_threshold),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_one_threshold_in_the_place_of_several_is_an_error():
    for function in (average_precision, match_instances):
        with pytest.raises(ValueError, match="^iou_thresholds must be a list, but is of type float"):
            function(LABELS, LABELS, 0.5)
        assert function(LABELS, LABELS, np.array([0.5], np.float32)) == function(LABELS, LABELS, (0.5,))


@pytest.mark.parametrize(
    ("iou", "found"),
    [
        (np.array([[0.5, np.nan]]), "has 1 values that are NaN or infinite"),
        (np.array([[0.5, 1.5]]), "has values from 0.5 to 1.5"),
        (np.array([[-0.5, 0.5]]), "has values from -0.5 to 0.5"),
        (np.array([0.5]), "has shape (1,), which is not 2-dimensional"),
        ([[0.5]], "is of type list"),
    ],
)
def test_what_is_no_matrix_of_overlaps_is_an_error(iou, found):
    with pytest.raises(ValueError, match=f"^iou must be a matrix of overlaps from 0 to 1, but {re.escape(found)}"):
        count_matches(iou)


@pytest.mark.parametrize("function", ONE_PAIR)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, ">i4"])
def test_read_only_strided_and_byte_swapped_label_images_are_right(function, dtype):
    labels = np.zeros((8, 12), dtype)
    labels[1:5, 2:6], labels[1:5, 6:9], labels[6:8, 1:4] = 3, 120, 7
    prediction = np.roll(labels, 1, axis=1)
    expected = function(np.ascontiguousarray(prediction[::2, ::-1]), np.ascontiguousarray(labels[::2, ::-1]))
    for array in (prediction, labels):
        array.flags.writeable = False
    found = function(prediction[::2, ::-1], labels[::2, ::-1])
    assert str(found) == str(expected)


@pytest.mark.parametrize("score", [f1_score, lambda *labels: match_instances(*labels, [0.5])])
def test_a_masked_array_is_refused_for_nobody_knows_what_its_mask_means(score):
    with pytest.raises(ValueError, match="MaskedArray: make it a NumPy array first"):
        score(np.ma.masked_array(LABELS, mask=LABELS == 1), LABELS)


def test_numbers_of_images_that_differ_are_an_error():
    with pytest.raises(ValueError, match="^predictions and truths must have the same length, but have 1 and 2"):
        touching_recall([LABELS], [LABELS, LABELS])


def test_thousands_of_nuclei_need_no_matrix():
    labels = np.arange(1, 40_001).reshape(200, 200)  # the matrix of all pairs would take 13 GB
    (matches,) = match_instances(labels, labels[:, ::-1], [0.5])
    assert (matches.true_positive, matches.false_positive) == (40_000, 0)


# the numbers derived from counts


@given(*[st.integers(0, 50)] * 3)
def test_scores_from_counts(tp, fp, fn):
    matches = Matches(0.5, tp, fp, fn)
    if tp + fp + fn == 0:
        assert matches.f1 == matches.average_precision == matches.precision == matches.recall == 1.0
        return
    ap = matches.average_precision
    assert ap == tp / (tp + fp + fn)
    assert matches.f1 == pytest.approx(2 * ap / (1 + ap))
    if tp:
        assert matches.f1 == pytest.approx(2 / (1 / matches.precision + 1 / matches.recall))  # the harmonic mean


# touching_recall


def test_touching_recall_looks_only_at_nuclei_that_touch():
    truth = np.array([[1, 1, 2, 2, 0, 3, 3]])
    assert touching_recall([np.array([[1, 1, 0, 0, 0, 0, 0]])], [truth]) == 0.5
    assert touching_recall([np.array([[0, 0, 0, 0, 0, 3, 3]])], [truth]) == 0.0
    assert touching_recall([truth, truth * 0], [truth, truth]) == 0.5  # pooled over images
    assert np.isnan(touching_recall([truth * 0], [truth * 0]))


# classify_errors


@given(label_pairs(), THRESHOLDS)
def test_every_instance_is_either_matched_or_an_error(pair, iou_threshold):
    prediction, truth = pair
    errors = classify_errors(prediction, truth, iou_threshold)
    pred_ids, true_ids = ([int(i) for i in np.unique(labels) if i] for labels in pair)
    assert sorted([*errors.matched, *errors.false_positive]) == pred_ids
    assert sorted([*errors.matched.values(), *errors.missed]) == true_ids  # a nucleus is matched once
    assert set(errors.merged) <= set(errors.false_positive)
    assert set(errors.split) <= set(errors.missed)

    (matches,) = match_instances(prediction, truth, [iou_threshold])
    counts = len(errors.matched), len(errors.false_positive), len(errors.missed)
    assert counts == (matches.true_positive, matches.false_positive, matches.false_negative)
    for pred_id, true_id in errors.matched.items():
        a, b = prediction == pred_id, truth == true_id
        assert np.sum(a & b) / np.sum(a | b) >= iou_threshold


@given(label_pairs(), THRESHOLDS)
def test_merged_and_split_are_what_their_definition_says(pair, iou_threshold):
    prediction, truth = pair
    errors = classify_errors(prediction, truth, iou_threshold)
    for pred_id in errors.false_positive:
        a = prediction == pred_id
        covered = [i for i in np.unique(truth[truth != 0]) if 2 * np.sum(a & (truth == i)) > np.sum(truth == i)]
        assert (pred_id in errors.merged) == (len(covered) >= 2)
    for true_id in errors.missed:
        b = truth == true_id
        parts = 0
        for i in np.unique(prediction[prediction != 0]):
            a, shared = prediction == i, np.sum((prediction == i) & b)
            parts += 2 * shared > np.sum(a) and 10 * shared >= np.sum(b)
        assert (true_id in errors.split) == (parts >= 2)


def test_a_prediction_over_two_nuclei_is_merged_and_a_nucleus_under_two_predictions_is_split():
    one, two = np.array([[5, 5, 5, 5]]), np.array([[1, 1, 2, 2]])
    merge, split = classify_errors(one, two, 0.6), classify_errors(two, one, 0.6)
    assert (merge.merged, merge.false_positive, merge.missed, merge.split) == ([5], [5], [1, 2], [])
    assert (split.merged, split.false_positive, split.missed, split.split) == ([], [1, 2], [5], [5])


def test_covering_exactly_half_of_two_nuclei_is_not_a_merge():
    for half in range(1, 30):
        for extra in range(10):
            truth = np.repeat([[1, 1, 2, 2, 0]], [half, half, half, half, extra], axis=1)
            prediction = np.repeat([[7, 0, 7, 0, 7]], [half, half, half, half, extra], axis=1)
            assert classify_errors(prediction, truth, 0.9).merged == []
