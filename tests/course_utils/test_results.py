"""Tables of scores; the folder for results, files that are written in one step, and the scores of a notebook."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pandas as pd
import pytest

from course_utils import results
from course_utils.metrics import IOU_THRESHOLDS, MSA_THRESHOLDS, average_precision, f1_score, match_instances
from course_utils.results import (
    SCORE_NAMES,
    compare_methods,
    paired_bootstrap,
    prepare_output,
    record_scores,
    replacing,
    score_images,
    score_table,
    summarize_scores,
)


def test_the_output_folder_is_made_and_left_empty(tmp_path):
    folder = prepare_output(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b" and list(folder.iterdir()) == []
    assert prepare_output(folder) == folder


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_an_output_folder_that_cannot_be_written_to_is_an_error_at_once(tmp_path, monkeypatch, code):
    def fail(**_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(results.tempfile, "TemporaryFile", fail)
    with pytest.raises(OSError) as caught:
        prepare_output(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and os.strerror(code) in message and "set `output` to another folder" in message


def test_scores_are_recorded_where_the_run_collects_them(tmp_path):
    scores = {"F1": np.float32(0.5), "method": {"n": np.int64(3)}}
    path = record_scores(tmp_path / "output", "04_instance_evaluation", scores)
    assert path == tmp_path / "output" / "scores" / "04_instance_evaluation.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {"F1": 0.5, "method": {"n": 3}}


def test_scores_that_cannot_be_written_are_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "scores").write_text("a file")
    with pytest.raises(OSError, match=r"Nothing can be saved in .*scores.*set `output`"):
        record_scores(tmp_path, "04", {"F1": 1})


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "scores.json"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as first, replacing(path) as second:  # two writers at once have two temporary files
        first.write(b"first")
        second.write(b"second, and longer")
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_has_the_permissions_of_any_other_new_file(tmp_path):
    (tmp_path / "other").touch()
    with replacing(tmp_path / "scores.json"):
        pass
    assert (tmp_path / "scores.json").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_or_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "scores.json"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half of what is n")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError), replacing(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


# tables of several images


def one_easy_and_one_hard_image() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The only nucleus of the first image is found; of the second image's three, none."""
    truths = [np.array([[1, 1, 0, 0]]), np.array([[4, 5, 6, 0]])]
    return [truths[0].copy(), np.zeros((1, 4), int)], truths


def test_mean_and_pooled_f1_differ_on_images_with_different_numbers_of_nuclei():
    predictions, truths = one_easy_and_one_hard_image()
    scores = score_images(predictions, truths, [0.5], names=["easy", "hard"])
    columns = ["image", "iou_threshold", "true_positive", "false_positive", "false_negative", "f1"]
    columns.append("average_precision")
    expected = pd.DataFrame([["easy", 0.5, 1, 0, 0, 1.0, 1.0], ["hard", 0.5, 0, 0, 3, 0.0, 0.0]], columns=columns)
    pd.testing.assert_frame_equal(scores, expected)
    mean = (1 + 0) / 2  # each image counts the same
    pooled = 2 * 1 / (2 * 1 + 0 + 3)  # each nucleus counts the same
    assert summarize_scores(scores) == {"mean_f1": {0.5: mean}, "pooled_f1": {0.5: pooled}}


def random_pairs(seed: int, n_images: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Small label images, and the same with some wrong pixels."""
    rng = np.random.default_rng(seed)
    truths = [np.kron(rng.integers(0, 5, (3, 4)), np.ones((3, 3), int)) for _ in range(n_images)]
    wrong = [rng.random(truth.shape) < rng.uniform(0, 0.4) for truth in truths]
    return [np.where(w, rng.integers(0, 5, w.shape), truth) for w, truth in zip(wrong, truths, strict=True)], truths


@pytest.mark.parametrize("seed", range(5))
def test_every_image_and_threshold_has_a_row(seed):
    predictions, truths = random_pairs(seed, n_images=seed + 1)
    pairs = list(zip(predictions, truths, strict=True))
    scores = score_images(predictions, truths)
    assert len(scores) == len(pairs) * len(IOU_THRESHOLDS)
    summary = summarize_scores(scores)
    for iou_threshold in IOU_THRESHOLDS:
        rows = scores[scores["iou_threshold"] == iou_threshold]
        assert rows["f1"].tolist() == pytest.approx([f1_score(*pair, iou_threshold) for pair in pairs])
        assert rows["average_precision"].tolist() == [average_precision(*pair, [iou_threshold])[0] for pair in pairs]
        assert summary["mean_f1"][iou_threshold] == pytest.approx(rows["f1"].mean())


def test_a_missing_prediction_is_an_error():
    predictions, truths = one_easy_and_one_hard_image()
    for call in (score_images, lambda p, *others: compare_methods({"one": p}, *others)):
        with pytest.raises(ValueError, match="predictions and truths must have the same length, but have 1 and 2"):
            call(predictions[:1], truths)
        with pytest.raises(ValueError, match="Nothing to score: 0 images"):
            call([], [])
        with pytest.raises(ValueError, match=r"predictions must be a list, but is of type generator"):
            call((one for one in predictions), truths)
        with pytest.raises(ValueError, match="Nothing to score: 2 images and 0 IoU thresholds"):
            call(predictions, truths, [])
        with pytest.raises(ValueError, match="iou_thresholds must be a list, but is of type float"):
            call(predictions, truths, 0.5)
        with pytest.raises(ValueError, match=r"iou_thresholds\[1\] must be a number above 0 and at most 1, but is 50"):
            call(predictions, truths, [0.5, 50])
        with pytest.raises(ValueError, match="prediction must be a label image .* but has dtype bool: label it first"):
            call([one > 0 for one in predictions], truths)
    with pytest.raises(ValueError, match="1 names for 2 images"):
        score_images(predictions, truths, names=["only one"])
    with pytest.raises(ValueError, match="methods must be a dictionary of label images, but is of type list"):
        compare_methods([predictions], truths)


def test_methods_are_compared_by_f1_and_by_what_papers_report():
    predictions, truths = one_easy_and_one_hard_image()
    methods = {"nothing": [np.zeros_like(t) for t in truths], "half": predictions, "all": truths}
    scores = compare_methods(methods, truths)
    assert list(scores) == list(methods) and all(list(measures) == list(SCORE_NAMES) for measures in scores.values())
    assert scores["half"]["pooled_f1"] == {0.5: 0.4, 0.75: 0.4, 0.9: 0.4}
    assert scores["half"]["mean_ap"] == scores["half"]["mean_f1"] == {0.5: 0.5, 0.75: 0.5, 0.9: 0.5}
    assert scores["half"]["panoptic_quality"] == {"PQ": 0.5, "SQ": 0.5, "RQ": 0.5}
    assert scores["half"]["touching_recall"] == {0.5: 0}
    table = score_table(scores)
    assert list(table.index) == ["nothing", "half", "all"]
    assert table["mean F1", "IoU 0.5"].tolist() == [0, 0.5, 1]
    assert table["mSA", "IoU 0.5 to 0.95"].tolist() == pytest.approx([0, 0.5, 1])
    assert table["panoptic quality", "PQ"].tolist() == [0, 0.5, 1]
    assert table["recall of touching nuclei", "IoU 0.5"].tolist() == [0, 0, 1]
    assert len(table.columns) <= 12, "with more columns nobody reads it"
    assert score_table(scores, SCORE_NAMES)["pooled F1", "IoU 0.9"].tolist() == [0, 0.4, 1]
    assert score_table(scores, ["mean_ap"]).columns.tolist() == [("mean AP", f"IoU {t}") for t in IOU_THRESHOLDS]
    with pytest.raises(ValueError, match="Unknown measures .'f1'.; known are mean_f1, mean_ap, msa"):
        score_table(scores, ["f1"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_thresholds", [IOU_THRESHOLDS, [0.3], (0.55, 0.1)])
def test_the_scores_of_a_method_are_those_of_its_images(seed, iou_thresholds):
    predictions, truths = random_pairs(seed, n_images=4)
    pairs = list(zip(predictions, truths, strict=True))
    scores = compare_methods({"one": predictions}, truths, iou_thresholds)["one"]
    f1 = {t: np.mean([f1_score(*pair, t) for pair in pairs]) for t in iou_thresholds}
    ap = np.array([average_precision(*pair, [*iou_thresholds, *MSA_THRESHOLDS]) for pair in pairs]).mean(axis=0)
    assert scores["mean_f1"] == pytest.approx(f1) and list(scores["mean_f1"]) == list(iou_thresholds)
    assert scores["mean_ap"] == pytest.approx(dict(zip(iou_thresholds, ap, strict=False)))
    assert scores["msa"] == pytest.approx({"0.5 to 0.95": ap[len(iou_thresholds) :].mean()})
    at_half = [match_instances(*pair, [0.5])[0] for pair in pairs]
    assert scores["panoptic_quality"] == pytest.approx({
        "PQ": np.mean([one.panoptic_quality for one in at_half]),
        "SQ": np.mean([one.segmentation_quality for one in at_half]),
        "RQ": np.mean([one.f1 for one in at_half]),
    })  # fmt: skip
    assert list(MSA_THRESHOLDS) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


# 6.3 paired_bootstrap


def test_the_bootstrap_is_that_of_loops_over_draws_of_whole_images():
    rng = np.random.default_rng(3)
    scores, other_scores = rng.random(12), rng.random(12)
    mean, low, high = paired_bootstrap(scores, other_scores, np.random.default_rng(0), repeats=4000, level=0.9)
    means = []
    for _ in range(4000):
        images = rng.integers(0, 12, 12)
        means.append(np.mean([scores[image] for image in images]) - np.mean([other_scores[image] for image in images]))
    means.sort()
    assert mean == pytest.approx(scores.mean() - other_scores.mean())
    assert (low, high) == pytest.approx((means[200], means[3800]), abs=0.02)
    assert low < mean < high and all(type(value) is float for value in (mean, low, high))


def test_the_bootstrap_of_the_exchanged_methods_is_the_mirror_image():
    scores, other_scores = [0.1, 0.5, 0.9, 0.3], [0.2, 0.2, 0.8, 0.9]
    mean, low, high = paired_bootstrap(scores, other_scores, np.random.default_rng(0))
    exchanged = paired_bootstrap(other_scores, scores, np.random.default_rng(0))
    assert exchanged == pytest.approx((-mean, -high, -low))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [0.5, 0.6]), "same length, but have 1 and 2"),
        (([], []), "scores must hold at least 1, but is empty"),
        (([np.nan], [0.5]), r"scores\[0\] must be a finite number"),
        (([0.5], [0.5], 0), "rng must be a generator"),
        (([0.5], [0.5], np.random.default_rng(0), 0), "repeats must be a whole number of at least 1"),
        (([0.5], [0.5], np.random.default_rng(0), 20, 95), "level must be a number above 0 and at most 1"),
    ],
)
def test_scores_that_are_no_pairs_have_no_bootstrap(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(*arguments, *[np.random.default_rng(0)][len(arguments) - 2 :])
