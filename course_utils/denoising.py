"""Noise, and networks that remove it (notebook 07).

Images are float arrays `(H, W)` in which 1 is the brightest grey level: 8-bit images divided by 255. The standard
deviation `sigma` of the noise has the same unit: 20 grey levels are 20 / 255.

Noise2Noise (Lehtinen et al., ICML 2018, https://arxiv.org/abs/1803.04189) learns from two noisy views of each image
instead of a noisy and a clean one.

An argument that is not what its description says, or has NaN or infinite values, is a `ValueError`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle
from torch.utils.data import Dataset

from course_utils.arguments import check_arguments, check_crop_fits
from course_utils.data import CourseData, Sample
from course_utils.exploration import pad_to_size, random_crop
from course_utils.networks import Task, own_network
from course_utils.profiles import Profile
from course_utils.segmentation import predict
from course_utils.training import OnEpoch
from course_utils.unet import UNet

SIGMA = 20 / 255  # the noise that the networks of the course remove


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """Divide an image by the largest value of its dtype, so that 1 is the brightest grey level; floats stay.

    Args:
        image: array `(H, W)`; it is not changed.

    Returns:
        float32 array of the same shape.

    >>> to_unit_range(np.array([[0, 255]], dtype=np.uint8))
    array([[0., 1.]], dtype=float32)
    """
    check_arguments(image=image)
    return image.astype(np.float32) / (np.iinfo(image.dtype).max if image.dtype.kind in "iu" else 1)


def add_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """An image with Gaussian noise of mean 0.

    The result is not clipped: values below 0 and above 1 stay. Cutting them off would brighten dark pixels on average,
    and a network that learns from noisy images would learn that, too.

    Args:
        image: array `(H, W)` with values in [0, 1]; it is not changed.
        sigma: standard deviation of the noise, in the unit of the image.
        rng: source of randomness; every pixel gets its own number.

    Returns:
        A new float32 array of the same shape.

    >>> noisy = add_noise(np.zeros((100, 100)), sigma=0.1, rng=np.random.default_rng(0))
    >>> noisy.dtype, round(float(noisy.std()), 2), bool(noisy.min() < 0)
    (dtype('float32'), 0.1, True)
    """
    check_arguments(image=image, sigma=sigma, rng=rng)
    return (image + rng.normal(0.0, sigma, image.shape)).astype(np.float32)


def psnr(reference: np.ndarray, image: np.ndarray, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB: `10 log10(data_range**2 / mean squared error)`.

    Args:
        reference: the clean array, of any shape.
        image: the noisy or denoised one, of the same shape.
        data_range: what counts as the peak. 1 for images in [0, 1]; DenoiSeg and others take the largest minus the
            smallest value of the reference, which gives lower figures for dim images: say which one it is.

    Returns:
        A Python float; infinity for identical images.

    Raises:
        ValueError: the shapes differ.

    >>> psnr(np.zeros((4, 4)), np.full((4, 4), 0.1))
    20.0
    """
    check_arguments(reference=reference, image=image, data_range=data_range, ndim=None)
    mean_squared_error = np.mean((reference.astype(np.float64) - image.astype(np.float64)) ** 2)
    if mean_squared_error == 0:
        return float("inf")
    return float(10 * np.log10(data_range**2 / mean_squared_error))


class NoisyPairDataset(Dataset):
    """Random crops with two independent noisy views each, or one noisy and one clean view.

    Args:
        images: clean 2-D arrays `(H, W)` in [0, 1]; sizes may differ, none smaller than the crop.
        sigma: standard deviation of the noise.
        crop_size: side S of the square crops in pixels.
        clean_target: the second view is the crop without noise.
        seed: together with torch's own seed it decides which crops and which noise are drawn.

    An item is `(input, target)`: float32 tensors `(1, S, S)` of the same window. Asking again for the same index gives
    another crop and other noise, also in other workers of a loader and in the next epoch, as in `NucleiDataset`.

    >>> noisy, other = NoisyPairDataset([np.zeros((64, 80))], sigma=0.1, crop_size=32)[0]
    >>> noisy.shape, other.shape, bool((noisy == other).any())
    (torch.Size([1, 32, 32]), torch.Size([1, 32, 32]), False)
    """

    def __init__(self, images, sigma, crop_size=256, clean_target=False, seed=0):
        check_arguments(images=images, values=False)
        check_arguments(sigma=sigma, crop_size=crop_size, seed=seed)
        check_crop_fits(images, crop_size)
        self.images = images
        self.sigma = sigma
        self.crop_size = crop_size
        self.clean_target = clean_target
        self.seed = seed

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        # the numbers come from torch's generator, which a DataLoader seeds anew in every worker and every epoch
        rng = np.random.default_rng([self.seed, int(torch.randint(2**62, ()))])
        crop, _ = random_crop(self.images[index], self.images[index], self.crop_size, rng)
        noisy = add_noise(crop, self.sigma, rng)
        target = crop.astype(np.float32) if self.clean_target else add_noise(crop, self.sigma, rng)
        return torch.from_numpy(noisy)[None], torch.from_numpy(target)[None]


class ClippedPairDataset(NoisyPairDataset):
    """`NoisyPairDataset` with both views cut off at 0 and 1, as a file of grey levels does: the wrong way."""

    def __getitem__(self, index):
        noisy, target = super().__getitem__(index)
        return noisy.clamp(0, 1), target.clamp(0, 1)


def clipped_mean(image: np.ndarray | float, sigma: float) -> np.ndarray:
    """The mean of each grey value after noise is added and the sum is cut off at 0 and 1, in closed form.

    Noise2Noise learns the mean of its targets, so this is what clipped targets teach it: dark pixels come out too
    bright, bright ones too dark.

    Args:
        image: true grey values, an array of any shape.
        sigma: standard deviation of the noise.

    Returns:
        float64 array of the same shape.

    >>> clipped_mean(np.array([0.0, 0.5, 1.0]), sigma=0.1).round(3).tolist()
    [0.04, 0.5, 0.96]
    """
    check_arguments(image=image, sigma=sigma, ndim=None)
    image = image.astype(np.float64)
    if sigma == 0:
        return np.clip(image, 0, 1)
    to_black, to_white = -image / sigma, (1 - image) / sigma
    inside = image * (ndtr(to_white) - ndtr(to_black)) + sigma * (_density(to_black) - _density(to_white))
    return inside + ndtr(-to_white)


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def without_clipping_bias(image: np.ndarray, sigma: float) -> np.ndarray:
    """The grey values in [0, 1] whose `clipped_mean` comes closest to `image`: its inverse, from a table.

    Args:
        image: what a network predicts that has learned from clipped noise; an array of any shape.
        sigma: standard deviation of that noise.

    Returns:
        float64 array of the same shape.

    >>> without_clipping_bias(clipped_mean(np.array([0.1, 0.5]), sigma=0.1), sigma=0.1).round(4).tolist()
    [0.1, 0.5]
    """
    check_arguments(image=image, sigma=sigma, ndim=None)
    values = np.linspace(0, 1, 1001)
    return np.interp(image, clipped_mean(values, sigma), values)


def denoise(model: torch.nn.Module, image: np.ndarray, multiple: int = 16) -> np.ndarray:
    """Denoise an image of any size with a network: `predict` with the output as it is.

    Args:
        model: as for `predict`, with one output channel.
        image: noisy array `(H, W)`.

    Returns:
        float32 array `(H, W)`.

    >>> denoise(torch.nn.Conv2d(1, 1, 1), np.zeros((5, 7))).shape
    (5, 7)
    """
    return predict(model, image, multiple, activation=lambda output: output)[0]


def non_local_means(image: np.ndarray, sigma: float, factor: float = 0.8) -> np.ndarray:
    """Classical denoiser 1: each pixel becomes a mean over pixels with similar surroundings (Buades et al., 2005).

    Args:
        image: noisy array `(H, W)`.
        sigma: standard deviation of the noise.
        factor: how different patches may be, as a multiple of `sigma`; more smooths more.
    """
    check_arguments(image=image, sigma=sigma, factor=factor)
    settings = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
    return denoise_nl_means(image.astype(np.float32), h=factor * sigma, sigma=sigma, **settings)


def total_variation(image: np.ndarray, sigma: float, factor: float = 1.5) -> np.ndarray:
    """Classical denoiser 2: close to the image, with little sum of gradients (Rudin, Osher and Fatemi, 1992).

    Arguments as for `non_local_means`; `factor` is the weight of the gradients, as a multiple of `sigma`.
    """
    check_arguments(image=image, sigma=sigma, factor=factor)
    if sigma == 0:
        return image.astype(np.float32)
    return denoise_tv_chambolle(image.astype(np.float32), weight=factor * sigma)


def noisy_arrays(samples: list[Sample], clipped: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images with noise of `SIGMA`, the same at every call, and without, in the unit range.

    Args:
        samples: of a data source.
        clipped: cut the noisy images off at 0 and 1.
    """
    rng = np.random.default_rng(0)
    clean = [to_unit_range(sample.image) for sample in samples]
    noisy = [add_noise(image, SIGMA, rng) for image in clean]
    return [image.clip(0, 1) if clipped else image for image in noisy], clean


def _pairs(dataset: type[NoisyPairDataset], clean_target: bool, samples: list[Sample], crop_size: int, seed: int):
    images = [pad_to_size(to_unit_range(sample.image), crop_size) for sample in samples]
    return dataset(images, SIGMA, crop_size, clean_target, seed)


def _image_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image)[None]


def _mean_psnr(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean of `psnr` over a batch `(N, C, H, W)`, the range that of each target; 100 dB for identical images."""
    axes = (1, 2, 3)
    data_range = (target.amax(axes) - target.amin(axes)).clamp(min=1 / 255)
    relative_error = (output - target).square().mean(axes) / data_range.square()
    return -10 * torch.log10(relative_error.clamp(min=1e-10)).mean()


def _task(kind: str, dataset: type[NoisyPairDataset] = NoisyPairDataset, clean_target: bool = False) -> Task:
    clipped = dataset is ClippedPairDataset
    return Task(
        kind, 1, partial(_pairs, dataset, clean_target), _image_tensor, torch.nn.functional.mse_loss, _mean_psnr,
        epochs=lambda profile: profile.denoising_epochs, validation_arrays=partial(noisy_arrays, clipped=clipped),
        # a batch's mean brightness says how bright the result must be: batch normalisation would take it away
        batch_norm=False, batch_transform=None, learning_rate=0.5,
    )  # fmt: skip


DENOISERS = {
    "supervised": _task("supervised", clean_target=True),
    "noise2noise": _task("noise2noise"),
    "clipped": _task("clipped", ClippedPairDataset),
}


def denoising_model(
    kind: str,
    data: CourseData,
    profile: Profile,
    seed: int,
    output: str | Path,
    on_epoch: OnEpoch | None = None,
    pretrained: bool | None = None,
) -> UNet:
    """A network that removes noise of `SIGMA`.

    Loaded from `output` if it was trained there; else the pretrained network for these data; else trained.

    Args:
        kind: "supervised" (learns from clean images), "noise2noise" (from noisy ones alone), or "clipped" (from noisy
            ones that were cut off at 0 and 1, as a warning).
        on_epoch, pretrained: as for `networks.boundary_model`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in DENOISERS:
        raise ValueError(f"There is no denoiser {kind!r}. Known: {', '.join(DENOISERS)}.")
    return own_network(DENOISERS[kind], data, profile, seed, output, on_epoch, pretrained)
