"""Exercises 4.1, 4.2, 5.2 and 5.3, and the classical baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.draw import disk
from skimage.measure import label
from torch import nn

from course_utils import load_data
from course_utils.exploration import nucleus_areas
from course_utils.metrics import f1_score
from course_utils.results import score_images, summarize_scores
from course_utils.segmentation import (
    connected_components,
    find_best_threshold,
    otsu_components,
    otsu_watershed,
    predict,
    predict_flipped,
    predict_tiled,
    remove_small,
    remove_uncertain,
    watershed_flat_height,
    watershed_instances,
    watershed_without_rim,
)
from course_utils.targets import boundary_target
from course_utils.unet import UNet

torch.set_num_threads(1)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)


class Echo(nn.Module):
    """Returns its input as logits, once for each channel; the sides must be divisible by 16."""

    def __init__(self, channels: int = 1):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        assert x.dtype == torch.float32 and x.shape[:2] == (1, 1)
        assert x.shape[2] % 16 == x.shape[3] % 16 == 0
        return x * self.scale.view(1, -1, 1, 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


# 4.1 predict


@given(st.integers(1, 50), st.integers(1, 50))
def test_every_pixel_of_an_image_of_any_size_gets_the_probability_of_its_place(height, width):
    image = np.random.default_rng(0).normal(size=(height, width))
    before = image.copy()
    probability = predict(Echo(), image)
    assert probability.shape == (1, height, width) and probability.dtype == np.float32
    assert probability[0] == pytest.approx(sigmoid(image), abs=1e-6)
    assert np.array_equal(image, before)


def test_several_channels_are_a_softmax():
    model = Echo(3)
    model.scale.data = torch.tensor([0.0, 1.0, -2.0])
    image = np.random.default_rng(0).normal(size=(20, 17))
    probability = predict(model, image)
    logits = image * np.array([0, 1, -2])[:, None, None]
    assert probability == pytest.approx(np.exp(logits) / np.exp(logits).sum(axis=0), abs=1e-6)
    assert probability.sum(axis=0) == pytest.approx(np.ones((20, 17)), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_predict_takes_every_numeric_dtype_and_read_only_flipped_views(dtype):
    image = np.arange(15, dtype=dtype).reshape(3, 5)
    image.flags.writeable = False
    assert predict(Echo(), image[::-1, ::-2])[0] == pytest.approx(sigmoid(image[::-1, ::-2]), abs=1e-6)


def test_extreme_logits_give_probabilities_of_0_and_1():
    assert predict(Echo(), np.array([[-1e4, 1e4]])).tolist() == [[[0, 1]]]
    model = Echo(2)
    model.scale.data = torch.tensor([1.0, -1.0])
    assert predict(model, np.array([[-1e4, 1e4]])).tolist() == [[[0, 1]], [[1, 0]]]


class Modal(nn.Module):
    """Has parts that behave differently in training, and fails when told to."""

    fails = False

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))

    def forward(self, x):
        assert not torch.is_grad_enabled()
        if self.fails:
            raise ArithmeticError("in the middle of a prediction")
        return self.layers(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_a_prediction_is_in_evaluation_mode_and_restores_every_mode(training, grad):
    model = Modal().train(training)
    buffers = [buffer.clone() for buffer in model.buffers()]
    image = np.random.default_rng(0).normal(size=(9, 9))
    with torch.set_grad_enabled(grad):
        assert np.array_equal(predict(model, image), predict(model, image))  # no dropout
        assert torch.is_grad_enabled() == grad
        model.fails = True
        with pytest.raises(ArithmeticError):
            predict(model, image)
        assert torch.is_grad_enabled() == grad
    assert {part.training for part in model.modules()} == {training}
    assert all(torch.equal(old, new) for old, new in zip(buffers, model.buffers(), strict=True))


def test_a_deeper_unet_gets_the_sides_it_needs():
    model = UNet(base_channels=1, depth=5)
    assert predict(model, np.zeros((40, 50)), multiple=32).shape == (1, 40, 50)
    with pytest.raises(ValueError, match="divisible by 32"):
        predict(model, np.zeros((40, 50)))


def test_a_unet_predicts_what_it_computes():
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels=4).eval()
    image = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image)[None, None]).softmax(dim=1)[0]
    assert predict(model, image) == pytest.approx(expected.numpy(), abs=1e-6)


# Flips


class Position(nn.Module):
    """Returns the column of each pixel, whatever the image: an asymmetric answer."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.arange(x.shape[3], dtype=torch.float32).expand(x.shape).clone()


def test_flips_average_over_all_eight_views():
    image = np.zeros((16, 16))
    answer = sigmoid(np.tile(np.arange(16.0), (16, 1)))
    views = [np.rot90(view, turns) for turns in range(4) for view in (answer, answer[:, ::-1])]
    np.testing.assert_allclose(predict_flipped(Position(), image)[0], np.mean(views, axis=0), rtol=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_flips_leave_a_symmetric_answer_as_it_is(height, width, channels):
    image = np.random.default_rng(0).normal(size=(height, width))
    flipped = predict_flipped(Echo(channels), image)
    assert flipped.dtype == np.float32
    np.testing.assert_allclose(flipped, predict(Echo(channels), image), atol=1e-6)


# Tiles


@pytest.mark.parametrize("shape", [(300, 333), (128, 40), (1, 17), (257, 128)])
def test_tiles_give_what_the_whole_image_gives(shape):
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels=2, batch_norm=True).eval()
    image = np.random.default_rng(0).random(shape)
    before = image.copy()
    tiled = predict_tiled(model, image, tile=128, margin=112)
    assert tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, predict(model, image), atol=1e-5)
    np.testing.assert_array_equal(image, before)


def test_a_margin_below_the_receptive_field_differs_at_the_seams_only():
    torch.manual_seed(0)
    model = UNet(1, 1, base_channels=4).eval()
    for parameter in model.parameters():
        parameter.data *= 2  # so that far pixels count
    image = np.random.default_rng(0).random((512, 512))
    difference = np.abs(predict_tiled(model, image, tile=256, margin=0) - predict(model, image))[0]
    assert difference[240:272].max() > 1e-3
    assert difference[:140, :140].max() < 1e-4  # further from each seam than the receptive field reaches


def test_the_receptive_field_reaches_as_far_as_the_docstring_says():
    model = UNet(1, 1, base_channels=2).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    reach = 0
    for position in range(240, 256):
        image = torch.ones(1, 1, 512, 512, dtype=torch.double, requires_grad=True)
        model(image)[0, 0, position, position].backward()
        rows = torch.nonzero(image.grad[0, 0].sum(dim=1)).flatten()
        reach = max(reach, position - int(rows[0]), int(rows[-1]) - position)
    assert f"up to {reach} pixels" in predict_tiled.__doc__


@pytest.mark.parametrize("name, value", [("tile", 100), ("tile", 0), ("margin", 50), ("margin", -16)])
def test_tiles_must_fit_the_network(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a (multiple of 16|whole number) .* is {value}"):
        predict_tiled(Echo(), np.zeros((32, 32)), **{"tile": 32, "margin": 16, name: value})


# 4.2 connected_components


@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=32)), st.sampled_from([0.1, 0.5, 0.9]))
def test_components_are_the_connected_pixels_above_the_threshold(probability, threshold):
    before = probability.copy()
    labels = connected_components(probability, threshold)
    assert labels.dtype.kind in "iu" and labels.shape == probability.shape
    assert np.array_equal(labels > 0, probability > threshold)
    assert np.array_equal(probability, before)
    assert sorted(set(labels.ravel().tolist()) - {0}) == list(range(1, labels.max() + 1))
    for y, x in np.argwhere(labels):  # all eight neighbours belong to the same component or to none
        neighbours = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        assert set(neighbours.ravel().tolist()) <= {0, int(labels[y, x])}


# 5.2 watershed_instances


def one_hot(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interior and boundary of a network that predicts perfectly."""
    target = boundary_target(mask).numpy()
    return (target == 1).astype(np.float32), (target == 2).astype(np.float32)


def touching_cells(seed: int = 0) -> np.ndarray:
    """Round cells, many of them touching: each pixel belongs to the nearest centre, unless that is too far away."""
    rng = np.random.default_rng(seed)
    centres = [np.array([y, x]) + rng.uniform(-3, 3, 2) for y in range(10, 120, 17) for x in range(10, 140, 17)]
    rows, columns = np.indices((120, 140))
    distances = np.stack([np.hypot(rows - y, columns - x) / rng.uniform(0.8, 1.1) for y, x in centres])
    ids = 3 * rng.permutation(np.arange(1, len(centres) + 1))
    return np.where(distances.min(axis=0) < 9, ids[distances.argmin(axis=0)], 0)


@pytest.mark.parametrize("seed", range(3))
def test_given_the_one_hot_target_the_watershed_returns_the_truth(seed):
    mask = touching_cells(seed)
    labels = watershed_instances(*one_hot(mask))
    assert label(mask > 0).max() < 0.8 * (len(np.unique(mask)) - 1)  # many touch
    assert f1_score(labels, mask, iou_threshold=0.9) >= 0.99
    assert np.array_equal(labels > 0, mask > 0)  # the rim belongs to the nucleus


@given(*[hnp.arrays(np.float64, (6, 7), elements=st.floats(0, 1))] * 2, st.sampled_from([-0.2, 0.1, 0.5, 0.9]))
def test_each_seed_becomes_one_instance_that_fills_the_mask_around_it(foreground, boundary, threshold):
    before = foreground.copy(), boundary.copy()
    labels = watershed_instances(foreground, boundary, threshold)
    assert np.array_equal(foreground, before[0]) and np.array_equal(boundary, before[1])
    assert labels.dtype.kind in "iu" and labels.shape == foreground.shape

    mask = foreground + boundary > 0.5
    seeds = label((foreground - boundary > threshold) & mask)
    assert not labels[~mask].any()
    assert len(np.unique(labels[labels > 0])) == seeds.max()
    for seed in range(1, seeds.max() + 1):
        assert len(np.unique(labels[seeds == seed])) == 1 and labels[seeds == seed].all()
    regions = label(mask, connectivity=1)
    for region in range(1, regions.max() + 1):
        inside = regions == region
        assert labels[inside].all() == bool(seeds[inside].any())  # filled, or left out for want of a seed


def test_a_seed_needs_interior_above_the_threshold_after_boundary_is_taken_off():
    foreground, boundary = np.array([[0.8, 0.6]]), np.array([[0.1, 0.1]])
    assert watershed_instances(foreground, boundary, 0.6).tolist() == [[1, 1]]
    assert watershed_instances(foreground, boundary, 0.75).tolist() == [[0, 0]]


def test_two_instances_meet_on_the_ridge_of_the_boundary_and_not_halfway():
    foreground = np.array([[0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9]])
    boundary = np.array([[0.0, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0]])
    # the right one fills the valley before the left one is over the ridge
    assert watershed_instances(foreground, boundary).tolist() == [2 * [1] + 6 * [2]]
    assert watershed_flat_height(foreground, boundary).tolist() == [4 * [1] + 4 * [2]]
    assert watershed_without_rim(foreground, boundary).tolist() == [[1, 0, 0, 0, 0, 0, 0, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 8)])
def test_empty_full_and_narrow_images_work(shape):
    zeros, ones = np.zeros(shape), np.ones(shape)
    assert not watershed_instances(zeros, zeros).any()
    assert not watershed_instances(zeros, ones).any()  # boundary alone has no seed
    assert (watershed_instances(ones, zeros) == 1).all()


# 5.3 find_best_threshold


def blurred_predictions(n: int = 3) -> tuple[list, list, list]:
    rng = np.random.default_rng(0)
    truths = [touching_cells(seed) for seed in range(n)]
    foregrounds, boundaries = [], []
    for mask in truths:
        foreground, boundary = one_hot(mask)
        noise = rng.uniform(0, 0.6, mask.shape)
        foregrounds.append(foreground * (1 - noise) + 0.3 * noise * boundary)
        boundaries.append(boundary * (1 - noise) + 0.7 * noise * foreground)
    return foregrounds, boundaries, truths


@pytest.mark.parametrize("iou_threshold", [0.5, 0.9])
def test_the_best_threshold_has_the_highest_mean_f1(iou_threshold):
    foregrounds, boundaries, truths = blurred_predictions()
    for array in foregrounds + boundaries + truths:
        array.flags.writeable = False
    thresholds = [0.9, 0.1, 0.5, 0.3]
    best, mean_f1 = find_best_threshold(foregrounds, boundaries, truths, thresholds, iou_threshold)
    assert list(mean_f1) == thresholds
    for threshold in thresholds:
        results = [watershed_instances(f, b, threshold) for f, b in zip(foregrounds, boundaries, strict=True)]
        scores = [f1_score(found, truth, iou_threshold) for found, truth in zip(results, truths, strict=True)]
        assert mean_f1[threshold] == pytest.approx(np.mean(scores))
        assert mean_f1[best] >= mean_f1[threshold]
    assert len(set(mean_f1.values())) > 1


@pytest.mark.parametrize("thresholds", [[0.3, 0.5, 0.7], [0.7, 0.5, 0.3], (0.5, 0.3, 0.7), np.array([0.7, 0.3])])
def test_ties_go_to_the_smaller_threshold(thresholds):
    mask = touching_cells()
    foreground, boundary = one_hot(mask)
    best, mean_f1 = find_best_threshold([foreground], [boundary], [mask], thresholds)
    assert len(set(mean_f1.values())) == 1  # one-hot: every threshold is as good
    assert best == 0.3


def test_the_training_target_instead_of_label_images_and_missing_images_are_errors():
    foregrounds, boundaries, truths = blurred_predictions(2)
    with pytest.raises(ValueError, match="the same length, but have 2 and 1 and 2"):
        find_best_threshold(foregrounds, boundaries[:1], truths, [0.5])
    truths[1] = boundary_target(truths[1]).numpy()
    with pytest.raises(ValueError, match="classes 0, 1, 2 of boundary_target.*pass the masks themselves"):
        find_best_threshold(foregrounds, boundaries, truths, [0.5])


# the classical baselines


@given(hnp.arrays(np.uint16, SHAPES, elements=st.sampled_from([0, 1, 5, 60000])), st.integers(0, 6))
def test_remove_small_drops_instances_below_the_area_and_keeps_the_ids_of_the_rest(labels, min_area):
    before = labels.copy()
    result = remove_small(labels, min_area)
    assert result.dtype == labels.dtype and np.array_equal(labels, before)
    for i in (1, 5, 60000):
        assert np.array_equal(result == i, (labels == i) & (np.sum(labels == i) >= min_area))


@given(hnp.arrays(np.uint16, (6, 7), elements=st.sampled_from([0, 1, 5, 60000])),
       hnp.arrays(np.float32, (6, 7), elements=st.floats(0, 1, width=32)), st.floats(0, 1))  # fmt: skip
def test_remove_uncertain_drops_instances_by_the_mean_of_their_pixels(labels, probability, threshold):
    before = labels.copy()
    result = remove_uncertain(labels, probability, threshold)
    assert result.dtype == labels.dtype and np.array_equal(labels, before)
    assert not result[labels == 0].any()
    for i in np.unique(labels[labels > 0]):
        mean = probability[labels == i].astype(float).mean()
        if abs(mean - threshold) > 1e-9:
            assert np.array_equal(result == i, (labels == i) & (mean >= threshold))


@pytest.mark.parametrize("baseline", [otsu_components, otsu_watershed])
def test_baselines_find_bright_nuclei_on_a_dark_noisy_background(baseline):
    rng = np.random.default_rng(0)
    truth = np.zeros((80, 100), np.int32)
    for i, centre in enumerate([(20, 20), (20, 60), (60, 40), (55, 80)], start=1):
        truth[disk(centre, 10)] = i
    image = np.clip(rng.normal(np.where(truth > 0, 90, 20), 5), 0, 255).astype(np.uint8)
    before = image.copy()
    labels = baseline(image)
    assert labels.dtype.kind in "iu" and labels.shape == image.shape
    assert f1_score(labels, truth, iou_threshold=0.8) == 1.0
    assert np.array_equal(image, before)


def test_only_the_distance_watershed_separates_nuclei_that_touch():
    truth = np.zeros((40, 60), np.int32)
    truth[disk((20, 20), 11)], truth[disk((20, 38), 10)] = 1, 2
    image = np.where(truth > 0, 100.0, 10.0)
    assert otsu_components(image).max() == 1
    assert f1_score(otsu_watershed(image), truth, iou_threshold=0.8) == 1.0


@pytest.mark.parametrize("baseline", [otsu_components, otsu_watershed])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 30)])
@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_image_has_no_nuclei(baseline, shape, value):
    assert not baseline(np.full(shape, value, np.uint8)).any()


# what is possible on the 50 real test images


@pytest.fixture(scope="module")
def real_test(real_data_zip):
    return load_data(real_data_zip).test


def mean_f1(labels: list[np.ndarray], samples, iou_threshold: float) -> float:
    truths = [sample.mask for sample in samples]
    return summarize_scores(score_images(labels, truths, [iou_threshold]))["mean_f1"][iou_threshold]


@pytest.mark.timeout(600)
class TestOnTheRealTestImages:
    def test_perfect_pixels_and_components_still_lose_a_tenth(self, real_test):
        labels = [connected_components((sample.mask > 0).astype(float)) for sample in real_test]
        assert mean_f1(labels, real_test, 0.5) == pytest.approx(0.901, abs=0.002)

    def test_the_watershed_of_the_perfect_target_returns_the_truth(self, real_test):
        labels = [watershed_instances(*one_hot(sample.mask)) for sample in real_test]
        assert mean_f1(labels, real_test, 0.5) == pytest.approx(0.997, abs=0.002)
        assert mean_f1(labels, real_test, 0.9) == pytest.approx(0.992, abs=0.002)

    def test_the_boundary_left_out_of_the_mask_costs_a_third_of_the_score(self, real_test):
        labels = [watershed_without_rim(*one_hot(sample.mask)) for sample in real_test]
        assert mean_f1(labels, real_test, 0.5) == pytest.approx(0.969, abs=0.002)
        assert mean_f1(labels, real_test, 0.75) == pytest.approx(0.653, abs=0.002)

    def test_the_classical_baseline_that_a_network_must_beat(self, real_test):
        by_watershed = mean_f1([otsu_watershed(sample.image) for sample in real_test], real_test, 0.5)
        by_components = mean_f1([otsu_components(sample.image) for sample in real_test], real_test, 0.5)
        assert by_watershed == pytest.approx(0.82, abs=0.02)
        assert by_components < by_watershed - 0.03

    def test_filters_of_50_pixels_and_more_remove_real_nuclei_and_20_do_not(self, real_test):
        n_nuclei = sum(len(nucleus_areas(sample.mask)) for sample in real_test)

        def left(min_area):
            return sum(len(nucleus_areas(remove_small(sample.mask, min_area))) for sample in real_test)

        assert left(20) == n_nuclei
        assert 0.85 * n_nuclei < left(64) < left(50) < n_nuclei


# other dtypes and shapes than expected: right, or an error that says what was found


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.uint64, np.int8, np.int64, np.float16, np.float64])
@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("segment", [watershed_instances, watershed_flat_height])
def test_a_one_hot_target_of_any_dtype_gives_the_truth(segment, scale, dtype):
    mask = touching_cells()
    foreground, boundary = (part.astype(dtype) * dtype(scale) for part in one_hot(mask))
    assert f1_score(segment(foreground, boundary), mask, 0.9) == 1.0
    assert find_best_threshold([foreground], [boundary], [mask], [0.5])[1] == {0.5: 1.0}


@pytest.mark.parametrize("layers", [["bn"], ["bn", "dropout"], []])
def test_what_is_frozen_stays_frozen_also_after_an_error(layers):
    parts = {"conv": nn.Conv2d(1, 4, 1), "bn": nn.BatchNorm2d(4), "dropout": nn.Dropout(0.5), "out": nn.Conv2d(4, 1, 1)}
    model = nn.Sequential(nn.ModuleDict(parts)["conv"], parts["bn"], parts["dropout"], parts["out"])
    for name in layers:
        parts[name].eval()
    before = [part.training for part in model.modules()]
    predict(model, np.zeros((9, 9)))
    with pytest.raises(RuntimeError, match="channels"):
        predict(nn.Sequential(model, nn.Conv2d(7, 1, 1)), np.zeros((9, 9)))
    assert [part.training for part in model.modules()] == before


IMAGE, MASK = np.random.default_rng(0).random((12, 14)), np.eye(12, 14, dtype=int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: connected_components(np.stack([IMAGE] * 3)), r"probability .* shape \(3, 12, 14\)"),
        (lambda: connected_components(IMAGE[None]), "not 2-dimensional"),
        (lambda: connected_components(np.where(IMAGE > 0.5, np.nan, IMAGE)), "NaN or infinite"),
        (lambda: connected_components(IMAGE, np.nan), "threshold must be a finite number, but is nan"),
        (lambda: watershed_instances(IMAGE[None], IMAGE[None]), r"foreground .* shape \(1, 12, 14\)"),
        (lambda: watershed_instances(IMAGE, IMAGE[1:]), r"same shape, but have \(12, 14\) and \(11, 14\)"),
        (lambda: watershed_instances(IMAGE, IMAGE * np.inf), "boundary .* NaN or infinite"),
        (lambda: find_best_threshold([], [], [], [0.5]), "foregrounds must hold at least 1, but is empty"),
        (lambda: find_best_threshold([IMAGE], [IMAGE], [MASK], []), "thresholds must hold at least 1, but is empty"),
        (lambda: find_best_threshold([IMAGE], [IMAGE], [MASK], iter([0.5])), "thresholds must be a list"),
        (lambda: find_best_threshold([IMAGE], [IMAGE], [MASK * 0.5], [0.5]), r"truths\[0\] .* dtype float64"),
        (lambda: find_best_threshold([IMAGE], [IMAGE], [MASK], [0.5], 0), "iou_threshold must be .* but is 0"),
        (lambda: predict(Echo(), np.zeros((0, 5))), "no pixels"),
        (lambda: predict(Echo(), IMAGE[None]), r"image .* shape \(1, 12, 14\)"),
        (lambda: predict(Echo(), IMAGE, multiple=0), "multiple must be a whole number of at least 1, but is 0"),
        (lambda: predict(nn.ReLU(), IMAGE), r"model must be a torch.nn.Module with parameters, but is ReLU\(\)"),
        (lambda: predict_flipped(Echo(), np.zeros(5)), r"image .* shape \(5,\)"),
        (lambda: predict_tiled(Echo(), np.zeros((0, 0))), "no pixels"),
        (lambda: predict_tiled(Echo(), np.zeros((5, 0))), "no pixels"),
        (lambda: predict_tiled(Echo(), IMAGE, tile=16.0), "tile must be a whole number"),
        (lambda: otsu_components(np.where(IMAGE > 0.5, np.nan, IMAGE)), "NaN or infinite"),
        (lambda: otsu_watershed(IMAGE, sigma=-1), "sigma must be a number from 0 to 1000, but is -1"),
        (lambda: remove_small(IMAGE, 3), "labels must be a label image of integers.*dtype float64: label it first"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_was_found(call, message):
    with pytest.raises(ValueError, match=message):
        call()
