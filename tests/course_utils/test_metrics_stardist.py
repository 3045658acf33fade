"""Our counts and those of `stardist.matching`, which the field reports, are identical."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label

from course_utils.exercises import evaluate
from course_utils.metrics import count_matches, iou_matrix, match_instances
from course_utils.targets import boundary_target

IOU_THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


@pytest.fixture(scope="module")
def matching():
    pytest.importorskip("stardist", reason="needs stardist, a test dependency")
    from stardist.matching import matching  # an error, not a skip, if it should ever need tensorflow

    return matching


def assert_same_counts(matching, prediction: np.ndarray, truth: np.ndarray) -> int:
    """Returns the number of matches over all thresholds: a test can tell whether there was anything to match."""
    ours = match_instances(prediction, truth, IOU_THRESHOLDS)
    theirs = matching(truth, prediction, thresh=tuple(IOU_THRESHOLDS))
    for mine, other in zip(ours, theirs, strict=True):
        found = mine.true_positive, mine.false_positive, mine.false_negative
        assert found == (other.tp, other.fp, other.fn), mine.iou_threshold
        if sum(found):
            assert mine.f1 == pytest.approx(other.f1)
            assert mine.average_precision == pytest.approx(other.accuracy)
            if mine.iou_threshold >= 0.5:
                assert mine.segmentation_quality == pytest.approx(other.mean_matched_score)
                assert mine.panoptic_quality == pytest.approx(other.panoptic_quality)
    return sum(mine.true_positive for mine in ours)


# random label images


def random_labels(rng: np.random.Generator, n_seeds: int, share: float, gaps: bool) -> np.ndarray:
    """Cells that touch: each foreground pixel belongs to the nearest seed."""
    seeds = np.zeros((40, 50), np.int32)
    ids = np.arange(1, n_seeds + 1) * (7 if gaps else 1)
    seeds.flat[rng.choice(seeds.size, n_seeds, replace=False)] = rng.permutation(ids)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    smooth = ndimage.gaussian_filter(rng.random(seeds.shape), 2)
    return np.where(smooth <= np.quantile(smooth, share), seeds[tuple(nearest)], 0)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 1), st.booleans())
def test_on_random_cells_that_touch(matching, seed, n_pred, n_true, share, gaps):
    rng = np.random.default_rng(seed)
    assert_same_counts(matching, random_labels(rng, n_pred, share, gaps), random_labels(rng, n_true, share, not gaps))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 0.6))
def test_on_random_cells_with_wrong_pixels(matching, seed, n_true, wrong):
    rng = np.random.default_rng(seed)
    truth = random_labels(rng, n_true, 0.7, gaps=True)
    prediction = np.where(rng.random(truth.shape) < wrong, rng.permutation(truth.ravel()).reshape(truth.shape), truth)
    assert_same_counts(matching, prediction, truth)


def test_on_empty_label_images(matching):
    nothing, something = np.zeros((9, 9), np.int32), random_labels(np.random.default_rng(0), 5, 0.5, gaps=True)
    for pair in ((nothing, nothing), (nothing, something), (something, nothing)):
        assert assert_same_counts(matching, *(np.resize(labels, (9, 9)) for labels in pair)) == 0


def test_on_an_iou_exactly_at_every_threshold(matching):
    for percent in range(10, 100, 5):
        truth = np.ones((1, 100), np.int32)
        prediction = np.zeros_like(truth)
        prediction[0, :percent] = 3
        matched = assert_same_counts(matching, prediction, truth)
        assert matched == sum(round(100 * t) <= percent for t in IOU_THRESHOLDS)


# the masks of the data set, with the errors a network makes


@pytest.fixture(scope="module")
def real_masks(real_data_zip) -> list[np.ndarray]:
    with zipfile.ZipFile(real_data_zip) as archive:
        names = sorted(name for name in archive.namelist() if "/test/masks/" in name and name.endswith(".tif"))
        return [tifffile.imread(io.BytesIO(archive.read(name))).astype(np.int32) for name in names]


def eroded(mask):
    return np.where(boundary_target(mask).numpy() == 1, mask, 0)


def merged(mask):
    return label(mask > 0)


def shifted(mask):
    return np.roll(mask, (2, 3), axis=(0, 1))


def relabelled(mask):
    ids = np.unique(mask)
    new_ids = np.concatenate([[0], 5 + 3 * np.random.default_rng(0).permutation(len(ids) - 1)])
    return new_ids[np.searchsorted(ids, mask)]


def split_and_dropped(mask):
    """Cut in stripes, so that many nuclei fall apart, and every fifth nucleus is missing."""
    stripes = 1000 * (np.arange(mask.shape[1]) // 16)
    return np.where((mask > 0) & (mask % 5 != 0), mask + stripes, 0)


@pytest.mark.parametrize("change", [eroded, merged, shifted, relabelled, split_and_dropped])
def test_on_the_real_masks(matching, real_masks, change):
    assert len(real_masks) == 50
    found = sum(assert_same_counts(matching, change(mask), mask) for mask in real_masks)
    n_nuclei = sum(len(np.unique(mask)) - 1 for mask in real_masks)
    assert n_nuclei == 2460
    if change is relabelled:
        assert found == n_nuclei * len(IOU_THRESHOLDS)
    else:  # there were right and wrong instances to tell apart
        assert 0.2 * n_nuclei * len(IOU_THRESHOLDS) < found < 0.97 * n_nuclei * len(IOU_THRESHOLDS)


def test_the_clear_form_agrees_on_the_real_masks(real_masks):
    for mask in real_masks[::5]:
        iou = iou_matrix(merged(mask), mask)
        for matches in match_instances(merged(mask), mask, IOU_THRESHOLDS):
            assert count_matches(iou, matches.iou_threshold) == matches.true_positive


# exercise 4.6


def test_exercise_4_6_may_be_solved_with_stardist(matching):
    def by_stardist(prediction, truth, iou_thresholds):
        if prediction.shape != truth.shape:
            raise ValueError(f"shapes {prediction.shape} and {truth.shape}")
        if not prediction.any() and not truth.any():
            return [1.0 for _ in iou_thresholds]  # StarDist has 0 here
        labels = truth.astype(int), prediction.astype(int)
        return [float(result.accuracy) for result in matching(*labels, thresh=tuple(iou_thresholds))]

    matching(*[np.ones((2, 2), int)] * 2)  # the first call compiles
    result = evaluate("4.6", by_stardist)
    assert result.status == "passed", result.messages
