"""The checks of notebook 07 accept every right solution, and name the mistake of every wrong one."""

from __future__ import annotations

import math
import os
import random

import numpy as np
import torch
from runner import CheckTests
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio
from skimage.util import random_noise
from torch.utils.data import Dataset

from course_utils.denoising import NoisyPairDataset, add_noise, psnr
from course_utils.exploration import random_crop

# 7.1 add_noise


def noise_by(draw, dtype=np.float32, change=lambda noisy: noisy):
    """The image plus `draw(rng, sigma, shape)`."""

    def solution(image, sigma, rng):
        return np.asarray(change(image + draw(rng, sigma, image.shape))).astype(dtype)

    return solution


def with_sigma(change):
    return lambda image, sigma, rng: add_noise(image, change(sigma), rng)


def pixel_by_pixel(image, sigma, rng):
    noisy = np.empty(image.shape, dtype=np.float32)
    for place in np.ndindex(*image.shape):
        noisy[place] = image[place] + rng.normal(0, sigma)
    return noisy


def by_torch_noise(image, sigma, rng):
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return image.astype("f") + np.float32(sigma) * torch.randn(image.shape, generator=generator).numpy()


def by_python_noise(image, sigma, rng):
    gauss = random.Random(int(rng.integers(2**60))).gauss
    return np.array([[value + gauss(0, sigma) for value in row] for row in image.tolist()], dtype=np.float32)


def by_box_muller(image, sigma, rng):
    radius = np.sqrt(-2 * np.log(1 - rng.random(image.shape)))
    return np.float32(image + sigma * radius * np.cos(2 * np.pi * rng.random(image.shape)))


def in_place(image, sigma, rng):
    image += rng.normal(0, sigma, image.shape).astype(image.dtype)
    return image.astype(np.float32)


def brighter_is_noisier(image, sigma, rng):
    return (image + image * rng.normal(0, 2 * sigma, image.shape)).astype("f")


def smoothed(image, sigma, rng):
    noise = rng.normal(0, sigma, image.shape)
    return (image + (noise + np.roll(noise, 1, axis=-1)) / math.sqrt(2)).astype("f")


def normal(rng, sigma, shape):
    return rng.normal(0, sigma, shape)


RIGHT_NOISE = [
    noise_by(lambda rng, sigma, shape: rng.standard_normal(shape) * sigma),
    noise_by(lambda rng, sigma, shape: sigma * rng.standard_normal(shape, dtype=np.float32)),
    lambda image, sigma, rng: rng.normal(image, sigma).astype(np.float32),
    lambda image, sigma, rng: np.float32(rng.normal(loc=image, scale=sigma, size=image.shape)),
    lambda image, sigma, rng: random_noise(
        np.array(image, dtype=np.float64), var=sigma**2, clip=False, rng=rng).astype("f"),
    lambda image, sigma, rng: np.array(rng.multivariate_normal(np.zeros(1), [[sigma**2]], image.shape)[..., 0] + image,
                                       dtype=np.float32),
    pixel_by_pixel, by_torch_noise, by_python_noise, by_box_muller,
]  # fmt: skip
CLIPPED = r"^Range of the noise on a black image .*no value below 0.*Do not clip"
WRONG_NOISE = {
    "clipped": (noise_by(normal, change=lambda noisy: noisy.clip(0, 1)), CLIPPED),
    "clipped below": (noise_by(normal, change=lambda noisy: np.maximum(noisy, 0)), CLIPPED),
    "clipped above": (noise_by(normal, change=lambda noisy: np.minimum(noisy, 1)), r"^Range of .*white.*above 1"),
    "skimage's default": (lambda image, sigma, rng: random_noise(image, var=sigma**2, rng=rng).astype("f"), CLIPPED),
    "absolute": (noise_by(lambda rng, sigma, shape: np.abs(normal(rng, sigma, shape))), r"^Mean of .*absolute value"),
    "wraps around": (noise_by(normal, change=lambda noisy: noisy % 1), r"^(Range|Mean) of the noise on a black"),
    "mean sigma": (noise_by(lambda rng, sigma, shape: rng.normal(sigma, sigma, shape)), r"^Mean of the noise"),
    "mean and deviation exchanged": (noise_by(lambda rng, sigma, shape: rng.normal(sigma, 1, shape)),
                                     r"^Mean of the noise.*first argument"),
    "a small mean": (noise_by(lambda rng, sigma, shape: normal(rng, sigma, shape) + 0.01), r"^Mean of .*found 0.0"),
    "root of sigma": (with_sigma(np.sqrt), r"^Standard deviation of .*found 0\.3.*not the variance"),
    "variance": (with_sigma(np.square), r"^Standard deviation of .*found 0\.01.*do not square"),
    "grey levels": (with_sigma(lambda sigma: sigma / 255), r"^Standard deviation of .*divide nothing by 255"),
    "times 255": (with_sigma(lambda sigma: sigma * 255), r"^Standard deviation of .*multiply nothing by 255"),
    "standard": (noise_by(lambda rng, sigma, shape: normal(rng, 1, shape)), r"^Standard dev.*multiply them by sigma"),
    "twice sigma": (with_sigma(lambda sigma: 2 * sigma), r"^Standard deviation of .*found 0\.2"),
    "a little less": (with_sigma(lambda sigma: 0.93 * sigma), r"^Standard deviation of .*found 0\.09"),
    "fixed sigma": (with_sigma(lambda sigma: 0.1), r"^Standard deviation of .*sigma = 0.3.*found 0\.(09|1)"),
    "no noise": (lambda image, sigma, rng: image.astype("f"), r"^Randomness|^Value of the noise .*no noise"),
    "uniform": (noise_by(lambda rng, sigma, shape: rng.uniform(0, sigma, shape)), r"^Mean of .*Uniform"),
    "uniform both ways": (noise_by(lambda rng, sigma, shape: rng.uniform(-sigma, sigma, shape)),
                          r"^Standard deviation of .*draw normal ones"),
    "uniform of the right deviation": (noise_by(lambda rng, sigma, shape: rng.uniform(-1, 1, shape) * sigma * 3**0.5),
                                       r"^Distribution of .*Gaussian"),
    "two values": (noise_by(lambda rng, sigma, shape: rng.choice([-sigma, sigma], shape)), r"^Distribution of"),
    "Laplace": (noise_by(lambda rng, sigma, shape: rng.laplace(0, sigma / 2**0.5, shape)), r"^Distribution of"),
    "one number": (noise_by(lambda rng, sigma, shape: rng.normal(0, sigma)), r"^Value of .*at every pixel.*as pixels"),
    "one row": (noise_by(lambda rng, sigma, shape: rng.normal(0, sigma, shape[1])), r"^Value of .*in every row"),
    "one column": (noise_by(lambda rng, sigma, shape: normal(rng, sigma, (shape[0], 1))), r"^Value of .*every column"),
    "smoothed": (smoothed, r"^Independence of .*correlation"),
    "rounded": (noise_by(normal, change=lambda noisy: noisy.round(1)), r"^(Distribution|Value|Standard) .*"),
    "8 bits": (noise_by(normal, change=lambda noisy: (noisy * 255).round() / 255), r"^Value of .*Do not round"),
    "noise alone": (lambda image, sigma, rng: normal(rng, sigma, image.shape).astype("f"),
                    r"^Mean of the noise on a grey image.*Add the noise to the image"),
    "multiplied": (lambda image, sigma, rng: (image * rng.normal(1, sigma, image.shape)).astype("f"),
                   r"^Value of the noise on a black image.*no noise.*does not scale the image"),
    "mean subtracted": (noise_by(lambda rng, sigma, shape: (drawn := normal(rng, sigma, shape)) - drawn.mean()),
                        r"^Value of the noise of a single pixel.*do not subtract the mean"),
    "brighter is noisier": (brighter_is_noisier, r"^Value of the noise on a black image.*no noise"),
    "float64": (noise_by(normal, dtype=np.float64), r"^dtype of .*found float64, expected float32"),
    "dtype of the image": (lambda image, sigma, rng: (image + normal(rng, sigma, image.shape)).astype(image.dtype),
                           r"^dtype of the result for a float64 image"),
    "a tensor": (lambda image, sigma, rng: torch.from_numpy(add_noise(image, sigma, rng)), r"^Type of .*Tensor"),
    "with channel": (lambda image, sigma, rng: add_noise(image, sigma, rng)[None], r"^Shape of .*found \(1, 9, 14\)"),
    "changes its argument": (in_place, r"^Mutation: your code changed its argument image"),
    "np.random": (noise_by(lambda rng, sigma, shape: np.random.normal(0, sigma, shape)),  # noqa: NPY002
                  r"^Randomness: found other noise from two generators with the same seed.*np.random"),
    "torch": (noise_by(lambda rng, sigma, shape: sigma * torch.randn(shape).numpy()), r"^Randomness: found other noi"),
    "unseeded": (noise_by(lambda rng, sigma, shape: normal(np.random.default_rng(), sigma, shape)), r"^Randomness"),
    "always the same": (noise_by(lambda rng, sigma, shape: normal(np.random.default_rng(0), sigma, shape)),
                        r"^Randomness: found the same noise in two calls"),
    "a copy of rng": (noise_by(lambda rng, sigma, shape: normal(
        np.random.Generator(type(rng.bit_generator)(rng.bit_generator.seed_seq)), sigma, shape)),
        r"^Randomness: found the same noise in two calls.*rng itself"),
}  # fmt: skip


# 7.2 psnr


def float_error(reference, image):
    return np.mean((reference.astype(np.float64) - image.astype(np.float64)) ** 2)


def with_error(error, convert=True, power=2, times=10, guard=True):
    """10 log10(data_range**2 / error), with something else in its place."""

    def solution(reference, image, data_range=1.0):
        if convert:
            reference, image = reference.astype(np.float64), image.astype(np.float64)
        value = float(error(reference, image))
        if guard and value == 0:
            return math.inf
        return float(times * np.log10(data_range**power / value))

    return solution


def with_range(peak):
    return lambda reference, image, data_range=1.0: psnr(reference, image, float(peak(reference, image)))


def by_loops(reference, image, data_range=1.0):
    pairs = list(zip(reference.ravel().tolist(), image.ravel().tolist(), strict=True))
    error = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    return 20 * math.log10(data_range / math.sqrt(error)) if error else float("inf")


def by_torch_mse(reference, image, data_range=1.0):
    error = torch.nn.functional.mse_loss(*(torch.tensor(one, dtype=torch.float64) for one in (reference, image)))
    return float(10 * torch.log10(data_range**2 / error))


def by_numpy_alone(reference, image, data_range=1.0):
    """Infinite for identical images with a warning of NumPy."""
    return 10 * np.log10(data_range**2 / float_error(reference, image))


def by_skimage(reference, image, data_range=1.0):
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(reference, image, data_range=data_range))


def by_norm(reference, image, data_range=1.0):
    distance = np.linalg.norm((reference.astype(float) - image).ravel())
    if distance == 0:
        return math.inf
    return float(20 * (np.log10(data_range) - np.log10(distance)) + 10 * np.log10(reference.size))


def finished(change):
    return lambda reference, image, data_range=1.0: change(psnr(reference, image, data_range))


def scales_in_place(reference, image, data_range=1.0):
    value = psnr(reference, image, data_range)
    image[:] = image // 2
    return value


def mse(a, b):
    return np.mean((a - b) ** 2)


RIGHT_PSNR = [by_loops, by_torch_mse, by_numpy_alone, by_skimage, by_norm, with_error(mean_squared_error),
              with_error(lambda a, b: np.sqrt(mse(a, b)), power=1, times=20)]  # fmt: skip
FIRST = r"^Value of the result for images in \[0, 1\].*"
WRONG_PSNR = {
    "20 log10": (with_error(mse, times=20), FIRST + "not 20 log10 of squares"),
    "root with 10": (with_error(lambda a, b: np.sqrt(mse(a, b)), power=1), FIRST + "10 belongs to squares"),
    "range not squared": (with_error(mse, power=1), r"^Value of .*data_range = 0.4.*Square data_range"),
    "20, no root, no square": (with_error(mse, power=1, times=20), FIRST + "root of the mean squared error"),
    "natural": (finished(lambda value: value * math.log(10)), FIRST + "np.log10, not np.log"),
    "base 2": (finished(lambda value: value * math.log2(10)), FIRST + "not np.log2"),
    "bel": (finished(lambda value: value / 10), FIRST + "10 times the logarithm"),
    "sign": (finished(lambda value: -value), FIRST + "peak stands above"),
    "sum": (with_error(lambda a, b: np.sum((a - b) ** 2)), FIRST + "not their sum"),
    "absolute squared": (with_error(lambda a, b: np.mean(np.abs(a - b)) ** 2), FIRST + "not of absolute values"),
    "absolute": (with_error(lambda a, b: np.mean(np.abs(a - b))), FIRST + "Square the differences"),
    "variance": (with_error(lambda a, b: np.var(a - b)), FIRST + "offset"),
    "median": (with_error(lambda a, b: np.median((a - b) ** 2)), FIRST + "not the median"),
    "largest of the reference": (with_range(lambda a, b: a.max()), FIRST + "largest value of the reference"),
    "largest of the image": (with_range(lambda a, b: b.max()), FIRST + "largest value of the image"),
    "span of the reference": (with_range(lambda a, b: np.ptp(a)), FIRST + "smallest value of the reference"),
    "span of the image": (with_range(lambda a, b: np.ptp(b)), FIRST + "smallest value of the image"),
    "always 1": (with_range(lambda a, b: 1), r"^Value of .*data_range = 0.4.*not always 1\."),
    "always 255": (with_range(lambda a, b: 255), FIRST + "not always 255"),
    "signal": (with_range(lambda a, b: np.sqrt(np.mean(a.astype(float) ** 2))), FIRST + "SNR"),
    "clipped": (lambda a, b, data_range=1.0: psnr(a.clip(0, data_range), b.clip(0, data_range), data_range),
                r"^Value of .*do not clip"),
    "error alone": (lambda a, b, data_range=1.0: float(float_error(a, b)), FIRST + "mean squared error"),
    "mean over rows": (lambda a, b, data_range=1.0: float(np.mean(
        [min(psnr(row, other, data_range), 999) for row, other in zip(a, b, strict=True)])), FIRST),
    "uint8": (with_error(mse, convert=False), r"^Value of .*uint8.*cannot be negative"),
    "squares of uint8": (with_error(lambda a, b: np.mean(np.square(np.abs(a.astype("i2") - b).astype(a.dtype))),
                                    convert=False), r"^Value of .*uint8.*float first"),
    "another default": (lambda a, b, data_range=255: psnr(a, b, data_range), r"^Value of .*data_range left out"),
    "float32": (finished(np.float32), r"^Type of .*float32"),
    "a tensor": (finished(torch.tensor), r"^Type of .*Tensor"),
    "rounded": (finished(lambda value: float(np.round(value))), FIRST),
    "rounded to a digit": (finished(lambda value: round(value, 1)), r"^Value of .*Do not round"),
    "image clipped": (lambda a, b, data_range=1.0: psnr(a, b.clip(0, data_range), data_range),
                      r"^Value of .*a noisy image may lie outside.*do not clip it"),
    "division by zero": (lambda a, b, data_range=1.0: 10 * math.log10(data_range**2 / float(float_error(a, b))),
                         r"^Value for identical images.*ZeroDivisionError.*return float\('inf'\)"),
    "0 for identical": (finished(lambda value: 0.0 if value == math.inf else value), r"^Value for identical .*found 0"),
    "100 for identical": (finished(lambda value: min(value, 100.0)), r"^Value for identical .*found 100"),
    "nan for identical": (finished(lambda value: value if value < math.inf else math.nan), r"^Value for identical"),
    "a little more": (with_error(lambda a, b: mse(a, b) + 1e-12), r"^Value for identical .*found 120"),
    "nearly identical": (lambda a, b, data_range=1.0: math.inf if np.allclose(a, b) else psnr(a, b, data_range),
                         r"^Value of the result for images that are nearly equal.*Only identical"),
    "changes its argument": (scales_in_place, r"^Mutation: your code changed its argument image"),
    "by name": (lambda a, b, data_range=1.0: psnr(a, b, data_range), r"^Error: .*unexpected keyword"),
}  # fmt: skip
for name, (solution, message) in list(WRONG_PSNR.items()):  # the names of arguments are not what is wrong
    if name != "by name" and solution.__code__.co_varnames[:2] == ("a", "b"):
        WRONG_PSNR[name] = (
            lambda reference, image, data_range=1.0, solution=solution: solution(reference, image, data_range),
            message,
        )
WRONG_PSNR["another default"] = (lambda reference, image, data_range=255: psnr(reference, image, data_range),
                                 WRONG_PSNR["another default"][1])  # fmt: skip


# 7.3 NoisyPairDataset


class Pairs(Dataset):
    """A right data set; `views` makes the two of a crop, `generator` the numbers."""

    def __init__(self, images, sigma, crop_size=256, clean_target=False, seed=0):
        self.images, self.sigma, self.size, self.clean, self.seed = list(images), sigma, crop_size, clean_target, seed
        self.prepare()

    def prepare(self):
        pass

    def __len__(self):
        return len(self.images)

    def generator(self, index):
        return np.random.default_rng([int(torch.randint(2**60, ())), self.seed])

    def __getitem__(self, index):
        rng = self.generator(index)
        crop = random_crop(self.images[index], self.images[index], self.size, rng)[0]
        return self.tensors(self.views(crop, rng))

    def noisy(self, crop, rng):
        return crop + rng.normal(0, self.sigma, crop.shape)

    def views(self, crop, rng):
        return self.noisy(crop, rng), crop if self.clean else self.noisy(crop, rng)

    def tensors(self, views):
        return tuple(torch.from_numpy(np.array(view, dtype=np.float32))[None] for view in views)


class ByTorch(Pairs):
    """All numbers are torch's."""

    def __getitem__(self, index):
        image = torch.tensor(self.images[index], dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.seed + int(torch.randint(2**60, ())))
        top, left = (int(torch.randint(side - self.size + 1, (), generator=generator)) for side in image.shape)
        crop = image[None, top : top + self.size, left : left + self.size]
        views = [crop + self.sigma * torch.randn(crop.shape, generator=generator) for _ in range(2)]
        return [views[0], crop.clone() if self.clean else views[1]]


class TwoGenerators(Pairs):
    def views(self, crop, rng):
        first, second = rng.spawn(2)
        return self.noisy(crop, first), crop if self.clean else self.noisy(crop, second)


class GeneratorOfTheProcess(Pairs):
    def prepare(self):
        self.process = None

    def generator(self, index):
        if self.process != (os.getpid(), torch.initial_seed()):
            self.process = os.getpid(), torch.initial_seed()
            self.rng = np.random.default_rng([self.seed, torch.initial_seed()])
        return self.rng


class ByNames(NoisyPairDataset):
    def __init__(self, images, sigma, crop_size=256, clean_target=False, seed=0):
        super().__init__(sigma=sigma, images=images, seed=seed, clean_target=clean_target, crop_size=crop_size)


class NoiseOfTheWholeImage(Pairs):
    """The views are made of the image and cut afterwards."""

    def __getitem__(self, index):
        rng, image = self.generator(index), self.images[index]
        one, other = self.views(image, rng)
        return self.tensors(random_crop(one, other, self.size, rng))


def views(change, **methods):
    """A data set whose pair is `change(self, crop, rng)`."""
    return type("Changed", (Pairs,), {"views": lambda self, crop, rng: change(self, crop, rng), **methods})


def tensors(change):
    return type("Changed", (Pairs,), {"tensors": lambda self, views: change(Pairs.tensors(self, views))})


class SameNoiseTwice(Pairs):
    def views(self, crop, rng):
        noisy = self.noisy(crop, rng)
        return noisy, crop if self.clean else noisy.copy()


class SecondOnTopOfFirst(Pairs):
    def views(self, crop, rng):
        noisy = self.noisy(crop, rng)
        return noisy, crop if self.clean else self.noisy(noisy, rng)


class OtherWindow(Pairs):
    def __getitem__(self, index):
        rng, image = self.generator(index), self.images[index]
        one, other = (random_crop(image, image, self.size, rng)[0] for _ in range(2))
        return self.tensors((self.noisy(one, rng), other if self.clean else self.noisy(other, rng)))


class OneTurned(Pairs):
    def views(self, crop, rng):
        one, other = super().views(crop, rng)
        return np.rot90(one), other


class NoiseMadeOnce(Pairs):
    def prepare(self):
        self.clean_images, rng = self.images, np.random.default_rng(self.seed)
        self.pairs = [super(NoiseMadeOnce, self).views(image, rng) for image in self.images]

    def __getitem__(self, index):
        return self.tensors(random_crop(*self.pairs[index], self.size, self.generator(index)))


class FewNoises(Pairs):
    def noisy(self, crop, rng):
        return super().noisy(crop, np.random.default_rng([self.seed, int(rng.integers(50))]))


class KeptGenerator(Pairs):
    def prepare(self):
        self.rng = np.random.default_rng(self.seed)

    def generator(self, index):
        return self.rng


class CropsKeptNoiseNew(KeptGenerator):
    def __getitem__(self, index):
        crop = random_crop(self.images[index], self.images[index], self.size, self.rng)[0]
        return self.tensors(self.views(crop, Pairs.generator(self, index)))


class NoiseKeptCropsNew(KeptGenerator):
    def noisy(self, crop, rng):
        return super().noisy(crop, self.rng)

    def generator(self, index):
        return Pairs.generator(self, index)


class SeededByIndex(Pairs):
    def generator(self, index):
        return np.random.default_rng([self.seed, index])


class GlobalNumbers(Pairs):
    def generator(self, index):
        return np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002


class GlobalNoise(Pairs):
    def noisy(self, crop, rng):
        return crop + np.random.normal(0, self.sigma, crop.shape)  # noqa: NPY002


class NoSeed(Pairs):
    def generator(self, index):
        return np.random.default_rng(int(torch.randint(2**60, ())))


class NoTorchSeed(Pairs):
    def generator(self, index):
        return np.random.default_rng()


class NoLastRow(Pairs):
    def __getitem__(self, index):
        image = self.images[index]
        image = image[:-1] if len(image) > self.size else image
        rng = self.generator(index)
        return self.tensors(self.views(random_crop(image, image, self.size, rng)[0], rng))


class UpperLeft(Pairs):
    def __getitem__(self, index):
        return self.tensors(self.views(self.images[index][: self.size, : self.size], self.generator(index)))


class Joint(Pairs):
    def views(self, crop, rng):
        return super().views(crop[::-1], rng)


class InPlace(Pairs):
    def __getitem__(self, index):
        rng, image = self.generator(index), self.images[index]
        crop = random_crop(image, image, self.size, rng)[0]
        pair = self.tensors(self.views(crop, rng))
        image += 0.01
        return pair


class Defaults(Pairs):
    def __init__(self, images, sigma, crop_size=128, clean_target=False, seed=0):
        super().__init__(images, sigma, crop_size, clean_target, seed)


class CleanByDefault(Pairs):
    def __init__(self, images, sigma, crop_size=256, clean_target=True, seed=0):
        super().__init__(images, sigma, crop_size, clean_target, seed)


class OtherSeed(Pairs):
    def __init__(self, images, sigma, crop_size=256, clean_target=False, seed=1):
        super().__init__(images, sigma, crop_size, clean_target, seed)


class NoDataset:
    __init__, __len__, __getitem__ = Pairs.__init__, Pairs.__len__, Pairs.__getitem__
    prepare, generator, noisy, views, tensors = (
        Pairs.prepare, Pairs.generator, Pairs.noisy, Pairs.views, Pairs.tensors
    )  # fmt: skip


def noise_of(draw):
    return type("Noise", (Pairs,), {"noisy": lambda self, crop, rng: crop + draw(rng, self.sigma, crop.shape)})


SAME_IN_WORKERS = r"^Randomness in loader workers.*found the same (crops|noise in the \w+) in two"
WRONG_PAIRS = {
    "the same noise twice": (SameNoiseTwice, r"^Independence of the two views.*the same noise twice"),
    "noise on noise": (SecondOnTopOfFirst, r"^Independence of the two views.*a correlation of 0\.7"),
    "other windows": (OtherWindow, r"^Value of item .*different pixels.*Cut the window once"),
    "turned differently": (OneTurned, r"^Value of item .*turned or flipped differently"),
    "flipped": (Joint, r"^Value of item 0: found pixels that are not one window"),
    "noise made once": (NoiseMadeOnce, r"^Randomness of the noise: found the same noise.*__getitem__"),
    "few noises": (FewNoises, r"^Randomness of the noise|^Independence"),
    "clipped": (views(lambda self, crop, rng: tuple(np.clip(view, 0, 1) for view in Pairs.views(self, crop, rng))),
                r"^Range of the noise of the input with clean_target=False on a black image.*Do not clip"),
    "target clipped": (views(lambda self, crop, rng: (self.noisy(crop, rng), crop if self.clean else
                                                      self.noisy(crop, rng).clip(0, 1))),
                       r"^Range of the noise of the target with clean_target=False"),
    "always clean": (views(lambda self, crop, rng: (self.noisy(crop, rng), crop)),
                     r"^Value of the target with clean_target=False.*no noise.*Both views are noisy"),
    "never clean": (views(lambda self, crop, rng: (self.noisy(crop, rng), self.noisy(crop, rng))),
                    r"^Value of the target with clean_target=True.*found noise, expected the clean crop"),
    "clean_target the other way": (views(lambda self, crop, rng: (self.noisy(crop, rng), self.noisy(crop, rng)
                                                                  if self.clean else crop)), r"^Value of the target"),
    "exchanged": (views(lambda self, crop, rng: Pairs.views(self, crop, rng)[::-1]),
                  r"^Value of the target with clean_target=True.*none in the input.*Input first"),
    "clean input": (views(lambda self, crop, rng: (crop, self.noisy(crop, rng))),
                    r"^Value of the input with clean_target=False.*no noise"),
    "both clean": (views(lambda self, crop, rng: (crop, crop)), r"^Value of the input with clean_target=False.*no no"),
    "the same noise as target": (views(lambda self, crop, rng: [self.noisy(crop, rng)] * 2),
                                 r"^Independence of the two views|^Value of the target .*the same noise"),
    "variance": (noise_of(lambda rng, sigma, shape: rng.normal(0, sigma**2, shape)),
                 r"^Standard deviation of the noise of the input .*do not square"),
    "root": (noise_of(lambda rng, sigma, shape: rng.normal(0, sigma**0.5, shape)), r"^Standard deviation .*variance"),
    "uniform": (noise_of(lambda rng, sigma, shape: rng.uniform(-sigma, sigma, shape)), r"^Standard deviation of"),
    "mean": (noise_of(lambda rng, sigma, shape: rng.normal(sigma, sigma, shape)), r"^Mean of the noise of the input"),
    "one number": (noise_of(lambda rng, sigma, shape: rng.normal(0, sigma)), r"^Value of the noise .*as pixels"),
    "target with other noise": (views(lambda self, crop, rng: (self.noisy(crop, rng), crop if self.clean else
                                                               crop + rng.normal(0, 2 * self.sigma, crop.shape))),
                                r"^Standard deviation of the noise of the target"),
    "the same in workers": (KeptGenerator, SAME_IN_WORKERS + r"|^Randomness"),
    "the same crops in workers": (CropsKeptNoiseNew, r"found the same crops in two"),
    "the same noise in workers": (NoiseKeptCropsNew, r"found the same noise in the input in two"),
    "seeded by the index": (SeededByIndex, r"^Randomness"),
    "np.random": (GlobalNumbers, r"^Randomness: found other crops with the same seed"),
    "noise of np.random": (GlobalNoise, r"^Randomness: found other noise in the input with the same seed"),
    "no torch seed": (NoTorchSeed, r"^Randomness: found other crops with the same seed"),
    "no seed": (NoSeed, r"^Randomness: found the same crops with seed=0 and seed=1"),
    "last row missing": (NoLastRow, r"^Range of the first row"),
    "upper left": (UpperLeft, r"^Randomness: found the same window|^Randomness"),
    "float64": (tensors(lambda pair: tuple(view.double() for view in pair)), r"^dtype of the input .*float64"),
    "target float64": (tensors(lambda pair: (pair[0], pair[1].double())), r"^dtype of the target"),
    "no channel": (tensors(lambda pair: tuple(view[0] for view in pair)), r"^Shape of the input .*found \(6, 6\)"),
    "arrays": (tensors(lambda pair: tuple(view.numpy() for view in pair)), r"^Type of the input .*ndarray"),
    "one tensor": (tensors(torch.stack), r"^Type of item 0"),
    "three": (tensors(lambda pair: (*pair, pair[0])), r"^Type of item 0: found tuple of 3"),
    "another length": (type("Longer", (Pairs,), {"__len__": lambda self: 100}), r"^Length of the data set: found 100"),
    "no Dataset": (NoDataset, r"^Type of the data set"),
    "another crop_size": (Defaults, r"^Shape of an item with crop_size left out: found \(1, 128, 128\)"),
    "clean by default": (CleanByDefault, r"^Value of the target with clean_target left out"),
    "another seed": (OtherSeed, r"^Randomness with seed left out"),
    "changes its argument": (InPlace, r"^Mutation: your code changed its argument images"),
}  # fmt: skip

RIGHT = {
    "7.1": RIGHT_NOISE,
    "7.2": RIGHT_PSNR,
    "7.3": [Pairs, ByTorch, TwoGenerators, GeneratorOfTheProcess, ByNames, NoiseOfTheWholeImage],
}
WRONG = {"7.1": WRONG_NOISE, "7.2": WRONG_PSNR, "7.3": WRONG_PAIRS}
EQUIVALENT = {
    "7.1": {"noise of mean 0 may be subtracted": ["add_noise, return: + -> -"]},
    "7.2": {
        "one float64 image makes the difference float64": [
            "psnr, assignment: astype() left out", "psnr, assignment: astype() left out #2",
        ],
        "NumPy divides by zero with a warning, which the contract does not forbid": [
            "psnr, if: left out", "psnr, if: condition -> False", "psnr, if: 0 -> 1", "psnr, if: 0 -> -1",
            "psnr, return: left out",
        ],
        "np.float64 is a Python float": ["psnr, return 2: float() -> argument 1"],
    },
    "7.3": {
        "the order of two seeds does not matter": ["NoisyPairDataset.__getitem__, assignment: items 1 and 2 swapped"],
        "(-2) ** 62 is 2 ** 62": ["NoisyPairDataset.__getitem__, assignment: 2 -> -2"],
        "2 ** 61 seeds are plenty": ["NoisyPairDataset.__getitem__, assignment: 62 -> 61"],
        "both windows are the same": ["NoisyPairDataset.__getitem__, assignment 2: targets 1 and 2 swapped"],
    },
}  # fmt: skip


class TestChecks(CheckTests):
    right, wrong, equivalent = RIGHT, WRONG, EQUIVALENT
    pictures = {
        "7.1": {"Panels": ["clipped", "one row", "root of sigma", "np.random"]},
        "7.3": {"Panels": ["the same noise twice", "clipped", "other windows", "noise made once"]},
    }
