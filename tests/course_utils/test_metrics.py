"""Exercises 4.3 to 4.5 and their fast form, against brute force: sets of pixels, and all possible matchings."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.metrics import (
    IOU_THRESHOLDS,
    Matches,
    classify_errors,
    count_matches,
    f1_score,
    iou_matrix,
    match_instances,
    overlapping_pairs,
    touching_recall,
)
from course_utils.results import compare_methods, score_images, score_table, summarize_scores

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


def best_matching_by_trial(iou: list[list[float]], iou_threshold: float) -> int:
    """Try every way to give each row a different column."""
    possible = np.array(iou) >= iou_threshold
    if possible.size == 0:
        return 0
    if possible.shape[0] > possible.shape[1]:
        possible = possible.T
    rows = range(possible.shape[0])
    return max(sum(possible[rows, list(columns)]) for columns in permutations(range(possible.shape[1]), len(rows)))


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


@pytest.mark.parametrize("iou_threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_outside_0_to_1_is_an_error(iou_threshold):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        match_instances(np.ones((2, 2), int), np.ones((2, 2), int), [iou_threshold])


def test_a_probability_map_instead_of_labels_is_an_error():
    with pytest.raises(ValueError, match="prediction must hold integer ids, but has dtype float64. Label it first"):
        match_instances(np.zeros((2, 2)), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="truth must hold integer ids, but has dtype bool"):
        match_instances(np.zeros((2, 2), int), np.zeros((2, 2), bool))


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


# tables of several images


def one_easy_and_one_hard_image() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The only nucleus of the first image is found; of the second image's three, none."""
    truths = [np.array([[1, 1, 0, 0]]), np.array([[4, 5, 6, 0]])]
    return [truths[0].copy(), np.zeros((1, 4), int)], truths


def test_mean_and_pooled_f1_differ_on_images_with_different_numbers_of_nuclei():
    predictions, truths = one_easy_and_one_hard_image()
    scores = score_images(predictions, truths, [0.5], names=["easy", "hard"])
    columns = ["image", "iou_threshold", "true_positive", "false_positive", "false_negative", "f1"]
    expected = pd.DataFrame([["easy", 0.5, 1, 0, 0, 1.0], ["hard", 0.5, 0, 0, 3, 0.0]], columns=columns)
    pd.testing.assert_frame_equal(scores, expected)
    mean = (1 + 0) / 2  # each image counts the same
    pooled = 2 * 1 / (2 * 1 + 0 + 3)  # each nucleus counts the same
    assert summarize_scores(scores) == {"mean_f1": {0.5: mean}, "pooled_f1": {0.5: pooled}}


@given(st.lists(label_pairs(max_side=4), min_size=1, max_size=4))
def test_every_image_and_threshold_has_a_row(pairs):
    predictions, truths = zip(*pairs, strict=True)
    scores = score_images(predictions, truths)
    assert len(scores) == len(pairs) * len(IOU_THRESHOLDS)
    summary = summarize_scores(scores)
    for iou_threshold in IOU_THRESHOLDS:
        mean = np.mean([f1_score(p, t, iou_threshold) for p, t in pairs])
        assert summary["mean_f1"][iou_threshold] == pytest.approx(mean)


def test_a_missing_prediction_is_an_error():
    predictions, truths = one_easy_and_one_hard_image()
    with pytest.raises(ValueError):
        score_images(predictions[:1], truths)
    with pytest.raises(ValueError):
        score_images(predictions, truths, names=["only one"])


def test_the_table_of_methods_names_mean_and_pooled_scores():
    predictions, truths = one_easy_and_one_hard_image()
    methods = {"nothing": [np.zeros_like(t) for t in truths], "half": predictions, "all": truths}
    scores = compare_methods(methods, truths)
    assert scores["half"]["pooled_f1"] == {0.5: 0.4, 0.75: 0.4, 0.9: 0.4}
    assert scores["half"]["touching_recall"] == {0.5: 0}
    table = score_table(scores)
    assert list(table.index) == ["nothing", "half", "all"]
    assert table["mean F1", "IoU 0.5"].tolist() == [0, 0.5, 1]
    assert table["pooled F1", "IoU 0.9"].tolist() == [0, 0.4, 1]
    assert table["recall of touching nuclei", "IoU 0.5"].tolist() == [0, 0, 1]
    assert len(table.columns) == 7


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
