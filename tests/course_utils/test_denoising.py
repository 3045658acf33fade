"""Noise, PSNR, noisy pairs, and what clipping does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from in_processes import TINY, small_data
from saved_files import same_weights
from skimage.metrics import peak_signal_noise_ratio
from torch.utils.data import DataLoader

from course_utils.denoising import (
    DENOISERS,
    SIGMA,
    ClippedPairDataset,
    NoisyPairDataset,
    add_noise,
    clipped_mean,
    denoise,
    denoising_model,
    noisy_arrays,
    non_local_means,
    psnr,
    to_unit_range,
    total_variation,
    without_clipping_bias,
)
from course_utils.segmentation import predict

RNG = np.random.default_rng(0)


def test_noise_has_the_right_mean_and_deviation_at_every_grey_level_also_where_clipping_would_show():
    for level in (0.0, 0.5, 1.0):
        noise = add_noise(np.full((400, 400), level), 0.1, np.random.default_rng(1)) - level
        assert abs(noise.mean()) < 0.001 and abs(noise.std() - 0.1) < 0.001


def test_noise_comes_from_the_generator_alone():
    image = RNG.random((20, 30))
    first, second = (add_noise(image, 0.2, np.random.default_rng(5)) for _ in range(2))
    rng = np.random.default_rng(5)
    assert (first == second).all() and first.dtype == np.float32 and first.shape == image.shape
    assert not (add_noise(image, 0.2, rng) == add_noise(image, 0.2, rng)).any()
    assert np.array_equal(add_noise(image, 0.0, rng), image.astype(np.float32))


@given(st.integers(0, 2**31), st.floats(0.1, 300))
def test_psnr_is_that_of_skimage(seed, data_range):
    rng = np.random.default_rng(seed)
    reference, image = rng.random((2, 5, 7)) * data_range
    assert psnr(reference, image, data_range) == pytest.approx(
        peak_signal_noise_ratio(reference, image, data_range=data_range)
    )


@pytest.mark.filterwarnings("error")
def test_psnr_of_identical_images_is_infinite_and_of_bytes_does_not_overflow():
    black, white = np.zeros((3, 3), np.uint8), np.full((3, 3), 255, np.uint8)
    assert psnr(white, white, 255) == math.inf
    assert psnr(black, white, 255) == 0.0 and type(psnr(black, white, 255)) is float
    assert psnr(np.zeros((3, 3)), np.full((3, 3), 1e-200)) == math.inf  # the square is 0


def test_a_pair_shows_the_same_window_with_independent_noise():
    image = np.add.outer(np.arange(60), np.arange(80) / 100) / 100
    dataset = NoisyPairDataset([image], 0.01, crop_size=50)
    differences = []
    for _ in range(50):
        one, other = dataset[0]
        assert one.shape == other.shape == (1, 50, 50) and one.dtype == other.dtype == torch.float32
        differences.append(one - other)
    difference = torch.stack(differences)
    assert abs(difference.mean()) < 0.001  # another window would shift it
    assert float(difference.std()) == pytest.approx(0.01 * math.sqrt(2), rel=0.02)


def test_a_clean_target_is_the_window_itself():
    image = RNG.random((40, 40)).astype(np.float32)
    noisy, clean = NoisyPairDataset([image], 0.1, crop_size=40, clean_target=True)[0]
    assert np.array_equal(clean[0], image) and float((noisy - clean).std()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_and_noise_are_new_in_every_epoch_and_worker_and_repeat_with_the_seeds(workers):
    dataset = NoisyPairDataset([np.zeros((64, 64))] * 4, 0.1, crop_size=16, seed=3)

    def two_epochs():
        torch.manual_seed(0)
        loader = DataLoader(dataset, batch_size=1, num_workers=workers)
        return torch.cat([torch.cat(pair) for _ in range(2) for pair in loader])

    views = two_epochs()
    assert len(views) == 16 and len({view.numpy().tobytes() for view in views}) == 16
    assert torch.equal(views, two_epochs())


def test_the_seed_of_the_dataset_changes_the_noise():
    images = [np.zeros((16, 16))]
    views = []
    for seed in (0, 1):
        torch.manual_seed(0)
        views.append(NoisyPairDataset(images, 0.1, 16, seed=seed)[0][0])
    assert not torch.equal(*views)


def test_an_image_smaller_than_the_crop_is_named():
    with pytest.raises(ValueError, match=r"Image 1 is 30 x 64 pixels, smaller than the crop of 32 x 32"):
        NoisyPairDataset([np.zeros((64, 64)), np.zeros((30, 64))], 0.1, crop_size=32)


def test_clipped_pairs_stay_between_black_and_white():
    noisy, target = ClippedPairDataset([np.zeros((64, 64))], 0.1, crop_size=64)[0]
    for view in (noisy, target):
        assert view.min() == 0 and float(view.mean()) == pytest.approx(clipped_mean(np.zeros(1), 0.1), rel=0.05)


@given(st.floats(0, 1), st.floats(0.01, 0.5))
def test_the_closed_form_is_the_integral(value, sigma):
    z = (np.arange(200_000) + 0.5) / 200_000 * 16 - 8
    weight = np.exp(-(z**2) / 2)
    brute = (np.clip(value + sigma * z, 0, 1) * weight).sum() / weight.sum()
    assert clipped_mean(np.array([value]), sigma) == pytest.approx(brute, abs=1e-6)


@given(st.floats(0.01, 0.5))
def test_the_bias_can_be_taken_out_again(sigma):
    values = np.linspace(0, 1, 57)
    assert without_clipping_bias(clipped_mean(values, sigma), sigma) == pytest.approx(values, abs=1e-4)


def test_without_noise_only_the_clipping_is_left():
    assert clipped_mean(np.array([-0.5, 0.25, 2.0]), 0).tolist() == [0, 0.25, 1]


def test_denoise_is_predict_without_an_activation():
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    image = RNG.random((21, 33), dtype=np.float32)
    assert np.allclose(1 / (1 + np.exp(-denoise(model, image))), predict(model, image)[0], atol=1e-6)
    assert denoise(model, image).dtype == np.float32 and denoise(model, image).min() < 0


@pytest.mark.parametrize("method", [non_local_means, total_variation])
def test_the_classical_denoisers_denoise(method):
    clean = np.kron(RNG.random((4, 4)), np.ones((16, 16)))
    noisy = add_noise(clean, 0.1, np.random.default_rng(1))
    denoised = method(noisy, 0.1)
    assert denoised.dtype == np.float32 and psnr(clean, denoised) > psnr(clean, noisy) + 3


def test_the_range_of_the_dtype_becomes_one():
    assert to_unit_range(np.full((2, 2), 65535, np.uint16)).max() == 1
    assert to_unit_range(np.full((2, 2), 0.3)).max() == np.float32(0.3)


def test_validation_noise_is_always_the_same_and_clipped_if_asked():
    samples = small_data().train
    (noisy, clean), (again, _), (clipped, _) = noisy_arrays(samples), noisy_arrays(samples), noisy_arrays(samples, True)
    assert all(map(np.array_equal, noisy, again)) and not np.array_equal(noisy[0], clean[0])
    assert all(np.array_equal(one.clip(0, 1), other) for one, other in zip(noisy, clipped, strict=True))
    assert np.std(noisy[0] - clean[0]) == pytest.approx(SIGMA, rel=0.1)


def test_the_metric_of_a_batch_is_the_mean_psnr_with_the_range_of_each_image():
    mean_psnr = DENOISERS["supervised"].metric
    target = torch.rand(3, 1, 8, 9) * torch.tensor([1.0, 0.5, 0.1])[:, None, None, None]
    output = target + 0.1 * torch.rand(3, 1, 8, 9)
    expected = [psnr(t.numpy(), o.numpy(), float(np.ptp(t.numpy()))) for t, o in zip(target, output, strict=True)]
    assert float(mean_psnr(output, target)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(mean_psnr(target, target)) == 100 and math.isfinite(mean_psnr(output, torch.zeros(3, 1, 8, 9)))


@pytest.mark.parametrize("kind", DENOISERS)
def test_a_denoiser_is_trained_once_and_then_loaded(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    curves = []
    first = denoising_model(kind, small_data(), TINY, 0, tmp_path, on_epoch=curves.append)
    second = denoising_model(kind, small_data(), TINY, 0, tmp_path)
    assert "Loaded" in capsys.readouterr().out and same_weights(first, second)
    assert len(curves) == TINY.denoising_epochs and first.sizes["out_channels"] == 1


def test_a_denoiser_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no denoiser 'n2v'. Known: supervised, noise2noise, clipped"):
        denoising_model("n2v", small_data(), TINY, 0, "unused")
