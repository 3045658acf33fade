"""The checks of notebook 01 accept right solutions, name what is wrong with wrong ones, and let no mutant pass."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_utils.exercises import evaluate
from course_utils.exercises.checks import notebook_01
from course_utils.exercises.registry import get_exercise
from course_utils.exploration import intensity_statistics, random_crop, split_train_val, standardize
from course_utils.targets import binary_target, boundary_target

EXERCISES = ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"]


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_the_reference_passes_quickly(exercise_id, quick_check):
    quick_check(exercise_id)


# Right solutions, written differently


def shapes_by_loop(images):
    shapes = {}
    for image in images:
        key = (len(image), len(image[0]))
        shapes[key] = shapes.get(key, 0) + 1
    return shapes


def statistics_of_all_pixels(images):
    pixels = np.concatenate([np.asarray(image).ravel() for image in images]).astype(float)
    return [pixels.mean().item(), pixels.std(ddof=0).item()]


def statistics_by_moments(images, dtype="float64"):
    n = sum(image.size for image in images)
    first = sum(float(image.astype(dtype).sum()) for image in images) / n
    second = sum(float((image.astype(dtype) ** 2).sum()) for image in images) / n
    return first, (second - first**2) ** 0.5


def statistics_with_torch(images):
    pixels = torch.cat([torch.from_numpy(image.astype("float64")).flatten() for image in images])
    return pixels.mean().item(), pixels.std(correction=0).item()


def standardize_with_torch(image, mean, std):
    return ((torch.tensor(image.astype("float32")) - float(mean)) / float(std)).numpy()


def split_by_slices(samples, every=20):
    train = list(samples)
    val = train[every - 1 :: every]
    del train[every - 1 :: every]
    return train, val


def split_by_loop(samples, every=20):
    parts = ([], [])
    for number, sample in enumerate(samples, start=1):
        parts[number % every == 0].append(sample)
    return [tuple(part) for part in parts]


def crop_from_all_starts(image, mask, size, rng):
    height, width = mask.shape
    if size > min(height, width):
        raise ValueError(f"image {mask.shape} is too small for {(size, size)}")
    starts = list(itertools.product(range(height - size + 1), range(width - size + 1)))
    row, column = starts[rng.choice(len(starts))]
    return [part[row:, column:][:size, :size].copy() for part in (image, mask)]


def crop_with_floats(image, mask, size, rng):
    if image.shape[0] < size or image.shape[1] < size:
        raise ValueError(f"size {size} is more than one of {image.shape}")
    row, column = (int(rng.random() * (side - size + 1)) for side in image.shape)
    pair = np.stack([image.astype(float), mask.astype(float)])[:, row : row + size, column : column + size]
    return pair[0].astype(image.dtype), pair[1].astype(mask.dtype)


def target_by_where(mask):
    return torch.tensor(np.where(mask == 0, 0.0, 1.0), dtype=torch.float32).unsqueeze(0)


def target_by_bool(mask):
    return torch.as_tensor(mask.astype(bool)[np.newaxis]).float()


class Base(Dataset):
    """What the right and the wrong data sets below share."""

    def __init__(self, images, masks, target_transform, crop_size=256, augment=False, seed=0):
        self.images, self.masks, self.target_transform = images, masks, target_transform
        self.size, self.augment, self.seed = crop_size, augment, seed
        self.prepare()

    def prepare(self):
        pass

    def __len__(self):
        return len(self.images)

    def window(self, index, draw):
        """The window whose first row and column `draw(n)`, a number below n, decides."""
        height, width = self.images[index].shape
        row, column = draw(height - self.size + 1), draw(width - self.size + 1)
        return slice(row, row + self.size), slice(column, column + self.size)

    def item(self, index, draw):
        window = self.window(index, draw)
        image, mask = self.images[index][window], self.masks[index][window]
        if self.augment:
            turns = draw(4)
            image, mask = np.rot90(image, turns).copy(), np.rot90(mask, turns).copy()
        return torch.tensor(image, dtype=torch.float32)[None], self.target_transform(mask)


class TorchNumbersOnly(Base):
    """The seed moves torch's numbers round the circle of possible starts."""

    def __getitem__(self, index):
        return self.item(index, lambda n: (int(torch.randint(n, ())) + self.seed * 7919) % n)


class TargetsMadeBefore(Base):
    """The target is the crop of the transformed mask; flips only, and a list instead of a tuple."""

    def prepare(self):
        self.targets = [self.target_transform(mask) for mask in self.masks]

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(torch.randint(10**9, ())))
        rows, columns = self.window(index, lambda n: int(torch.randint(n, (), generator=generator)))
        image = torch.from_numpy(self.images[index][rows, columns].astype("float32"))[None].clone()
        target = self.targets[index][..., rows, columns]
        if self.augment and torch.rand((), generator=generator) < 0.5:
            image, target = image.flip(-1), target.flip(-1)
        return [image, target]


class InitialSeedAndCounter(Base):
    """Nothing is drawn from torch: its initial seed is another one in each worker and epoch, the counter goes on."""

    def prepare(self):
        self.count = 0

    def __getitem__(self, index):
        self.count += 1
        rng = np.random.default_rng([self.seed, torch.initial_seed(), self.count])
        return self.item(index, rng.integers)


class GeneratorForEachWorker(Base):
    """One generator in the main process, another one made on arrival in a worker."""

    def prepare(self):
        self.rng, self.worker_seed = np.random.default_rng(self.seed), None

    def __getitem__(self, index):
        info = get_worker_info()
        if info is not None and info.seed != self.worker_seed:
            self.rng, self.worker_seed = np.random.default_rng([self.seed, info.seed]), info.seed
        return self.item(index, self.rng.integers)


class Transformed(TorchNumbersOnly):
    """Image and mask go through one transform of torchvision together."""

    transform: v2.Transform

    def __getitem__(self, index):
        rows, columns = self.window(index, lambda n: (int(torch.randint(n, ())) + self.seed * 7919) % n)
        image = torch.from_numpy(self.images[index][rows, columns].astype(np.float32))[None]
        mask = torch.from_numpy(self.masks[index][rows, columns].astype(np.int64))[None]
        if self.augment:
            image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(torch.Tensor), self.target_transform(mask[0].numpy())


class RotatedByQuarters(Transformed):
    turns = v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 270)])
    transform = v2.Compose([v2.RandomVerticalFlip(), turns])


RIGHT = {
    "1.1": [shapes_by_loop, lambda images: Counter(image.shape for image in images)],
    "1.2": [statistics_of_all_pixels, statistics_by_moments, statistics_with_torch],
    "1.3": [
        standardize_with_torch,
        lambda image, mean, std: ((image.astype(float) - mean) / std).astype("float32"),
        lambda image, mean, std, epsilon=0: np.float32(1 / std) * (np.float32(image) - np.float32(mean)),
    ],
    "1.4": [split_by_slices, split_by_loop],
    "1.5": [crop_from_all_starts, crop_with_floats],
    "1.6": [target_by_where, target_by_bool, lambda mask: torch.tensor(mask.astype("int64")).clamp(0, 1).float()[None]],
    "1.7": [TorchNumbersOnly, TargetsMadeBefore, InitialSeedAndCounter, GeneratorForEachWorker, RotatedByQuarters],
}


def cases(table):
    for exercise_id, entries in table.items():
        for number, entry in enumerate(entries):
            name = getattr(entry if callable(entry) else entry[0], "__name__", "")
            yield pytest.param(exercise_id, entry, id=f"{exercise_id}-{number}-{name}")


@pytest.mark.parametrize(("exercise_id", "solution"), [*cases(RIGHT)])
def test_right_solutions_pass(exercise_id, solution):
    result = evaluate(exercise_id, solution)
    assert result.status == "passed", result.messages


# Wrong solutions: each with a pattern of the message that names the mistake


def changed_images(images):
    images.pop()
    return {}


def statistics_in_place(images):
    for image in images:
        image += image.dtype.type(1)
        image -= image.dtype.type(1)
    images.sort(key=lambda image: -image.size)
    return intensity_statistics(images)


def standardize_in_place(image, mean, std):
    if image.dtype != np.float32:
        return standardize(image, mean, std)
    image -= mean
    image /= std
    return image


def random_split(samples, every=20):
    val = random.Random(0).sample(range(len(samples)), len(samples) // every)
    return [s for i, s in enumerate(samples) if i not in val], [samples[i] for i in val]


def split_in_place(samples, every=20):
    val = samples[every - 1 :: every]
    del samples[every - 1 :: every]
    return list(samples), val


def reversed_split(samples, every=20):
    train, val = split_train_val(samples, every)
    return train[::-1], val


def crop(draw, top=lambda height, size: height - size + 1, left=lambda width, size: width - size + 1):
    """A crop with its own source of numbers `draw(rng, n)`, or its own number of starts."""

    def cropped(image, mask, size, rng):
        height, width = image.shape
        if min(height, width) < size:
            raise ValueError(f"{image.shape} is smaller than {size}")
        row, column = draw(rng, top(height, size)), draw(rng, left(width, size))
        return image[row : row + size, column : column + size], mask[row : row + size, column : column + size]

    return cropped


def draw_right(rng, n):
    return int(rng.integers(n))


def two_windows(image, mask, size, rng):
    return random_crop(image, mask, size, rng)[0], random_crop(image, mask, size, rng)[1]


def without_error(image, mask, size, rng):
    row, column = (int(rng.integers(max(1, side - size + 1))) for side in image.shape)
    return image[row : row + size, column : column + size], mask[row : row + size, column : column + size]


def with_short_error(image, mask, size, rng):
    if min(image.shape) < size:
        raise ValueError("The image is too small.")
    return random_crop(image, mask, size, rng)


def with_error_for_fitting_size(image, mask, size, rng):
    if min(image.shape) <= size:
        raise ValueError(f"{image.shape} is smaller than {size}")
    return random_crop(image, mask, size, rng)


def one_number_for_both(image, mask, size, rng):
    if min(image.shape) < size:
        raise ValueError(f"{image.shape} is smaller than {size}")
    number = rng.random()
    row, column = (int(number * (side - size + 1)) for side in image.shape)
    return image[row : row + size, column : column + size], mask[row : row + size, column : column + size]


def blackened(image, mask, size, rng):
    window = random_crop(image, mask, size, rng)
    result = window[0].copy(), window[1].copy()
    window[0][:] = 0
    return result


def target_in_place(mask):
    mask[mask > 0] = 1
    return torch.from_numpy(mask.astype("float32"))[None]


class NotADataset:
    def __init__(self, *arguments, **options):
        self.inner = TorchNumbersOnly(*arguments, **options)

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


class GeneratorInDataset(Base):
    """Fault 7 of the original exercise."""

    def prepare(self):
        self.rng = np.random.default_rng(self.seed)

    def __getitem__(self, index):
        return self.item(index, self.rng.integers)


class GeneratorMadeOnce(Base):
    """Made at the first access: right, unless that comes before the workers start."""

    rng = None

    def __getitem__(self, index):
        if self.rng is None:
            self.rng = np.random.default_rng([self.seed, torch.initial_seed()])
        return self.item(index, self.rng.integers)


class SeedOfTheWorkerNumber(Base):
    """Distinct across workers, but the same in every epoch."""

    def prepare(self):
        self.rng = None

    def __getitem__(self, index):
        info = get_worker_info()
        if self.rng is None or (info is not None and self.worker != info.id):
            self.worker = info.id if info is not None else -1
            self.rng = np.random.default_rng([self.seed, self.worker + 1])
        return self.item(index, self.rng.integers)


class SameCropAlways(Base):
    def __getitem__(self, index):
        return self.item(index, np.random.default_rng([self.seed, index]).integers)


class GlobalNumPyNumbers(Base):
    def __getitem__(self, index):
        return self.item(index, np.random.randint)


class UnseededGenerator(Base):
    def __getitem__(self, index):
        return self.item(index, np.random.default_rng().integers)


class SeedIgnored(Base):
    def __getitem__(self, index):
        return self.item(index, lambda n: int(torch.randint(n, ())))


class LastStartMissing(TorchNumbersOnly):
    def window(self, index, draw):
        return super().window(index, lambda n: draw(max(1, n - 1)))


class FewSeeds(Base):
    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, int(torch.randint(100, ()))])
        return self.item(index, rng.integers)


def changed(**methods):
    """A right data set but for what `item` does to its result."""

    def make(name, function):
        def __getitem__(self, index):
            return function(self, index, *TorchNumbersOnly.__getitem__(self, index))

        return type(name, (TorchNumbersOnly,), {"__getitem__": __getitem__})

    ((name, function),) = methods.items()
    return make(name, function)


class OnlyImageTurned(TorchNumbersOnly):
    def item(self, index, draw):
        augment, self.augment = self.augment, False
        image, target = super().item(index, draw)
        self.augment = augment
        return (torch.rot90(image, draw(4), (1, 2)) if augment else image), target


class NotTurned(TorchNumbersOnly):
    def prepare(self):
        self.augment = False


class TurnedAlways(TorchNumbersOnly):
    def prepare(self):
        self.augment = True


class Scaled(TorchNumbersOnly):
    """Augmentation that is no flip or turn: rows are repeated."""

    def item(self, index, draw):
        image, target = super().item(index, draw)
        if self.augment:
            rows = torch.arange(self.size) // (1 + draw(2))
            image, target = image[..., rows, :], target[..., rows, :]
        return image, target


class RotatedByAnyAngle(Transformed):
    transform = v2.RandomRotation((20, 45), interpolation=v2.InterpolationMode.BILINEAR)


class RotatedByAnyAngleNearest(Transformed):
    transform = v2.RandomRotation((-31, -29))


class FlippedAndRotatedByAnyAngle(Transformed):
    transform = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomRotation((29, 31))])


class RandomlyResized(Transformed):
    transform = v2.RandomAffine(0, scale=(1.25, 1.25), interpolation=v2.InterpolationMode.BILINEAR)


class Sheared(Transformed):
    transform = v2.RandomAffine(0, shear=(20, 20))


class ShiftedByHalfAPixel(Transformed):
    transform = v2.Lambda(lambda part: part)

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        if self.augment:
            image[..., :-1] = (image[..., :-1] + image[..., 1:]) / 2
        return image, target


class TransformIgnored(TorchNumbersOnly):
    def prepare(self):
        self.target_transform = binary_target


class TransformGivenTensor(TorchNumbersOnly):
    def prepare(self):
        transform = self.target_transform
        self.target_transform = lambda mask: transform(torch.from_numpy(mask))


class NextMask(TorchNumbersOnly):
    def prepare(self):
        self.masks = [np.pad(self.masks[i - 1], 8, mode="edge")[: m.shape[0], : m.shape[1]]
                      for i, m in enumerate(self.masks)]  # fmt: skip


class ImagesNormalisedAgain(Base):
    def prepare(self):
        for image in self.images:
            image -= image.mean()

    __getitem__ = TorchNumbersOnly.__getitem__


class ImagesShuffled(TorchNumbersOnly):
    def __getitem__(self, index):
        return super().__getitem__(int(torch.randint(len(self), ())))


class CropSizeIgnored(TorchNumbersOnly):
    def prepare(self):
        self.size = 5


class WrongLength(TorchNumbersOnly):
    def __len__(self):
        return 100


class EmptiesLists(TorchNumbersOnly):
    def prepare(self):
        images, masks = self.images, self.masks
        self.images, self.masks = images[:], masks[:]
        images.clear()
        masks.clear()


WRONG = {
    "1.1": [
        (lambda images: [image.shape for image in images], "^Type of the result: found list, expected dict"),
        (lambda images: {image.size: 1 for image in images}, "^Keys of the dict: found 6, expected tuples"),
        (
            lambda images: {image.shape: 1 for image in images},
            r"^Number of images of shape \(2, 3\): found 1, expected 3",
        ),
        (lambda images: {image.shape[::-1]: 1 for image in images}, r"\(2, 3\): found 1, .*height first"),
        (
            lambda images: Counter(tuple(sorted(i.shape)) for i in images),
            r"^Number of images of shape \(2, 3\): found 4",
        ),
        (lambda images: {**Counter(i.shape for i in images), (9, 9): 0}, r"^Number of shapes in the dict: found 4"),
        (lambda images: Counter(i.shape for i in images) or None, "^Result for no images: found None"),
        (changed_images, "^Mutation: your code changed its argument images"),
        ({}, "^Kind of count_shapes: found dict, expected a function"),
    ],
    "1.2": [
        (lambda images: np.array(intensity_statistics(images)), "^Type of the result: found ndarray"),
        (lambda images: intensity_statistics(images)[:1], "^Length of the result: found 1, expected 2"),
        (lambda images: tuple(map(np.float64, intensity_statistics(images))), "^Type of the mean: found numpy.float64"),
        (lambda images: (intensity_statistics(images)[0], torch.tensor(1.0)), "^Type of the std: found torch.Tensor"),
        (
            lambda images: (float(np.mean([i.mean() for i in images])), float(np.mean([i.std() for i in images]))),
            "^Value of the mean of images of different sizes.*Every pixel counts the same",
        ),
        (
            lambda images: (intensity_statistics(images)[0], float(np.mean([i.std() for i in images]))),
            "^Value of the std of images of different sizes",
        ),
        (
            lambda images: (
                intensity_statistics(images)[0],
                float(np.concatenate([i.ravel() for i in images]).std(ddof=1)),
            ),
            "^Value of the std of one image: .*number of pixels",
        ),
        (
            lambda images: (intensity_statistics(images)[0], intensity_statistics(images)[1] ** 2),
            "^Value of the std of one image",
        ),
        (
            lambda images: (
                (mean := intensity_statistics(images)[0]),
                float(max(0, sum(int((i**2).sum()) for i in images) / sum(i.size for i in images) - mean**2) ** 0.5)
                if images[0].dtype == np.uint8
                else intensity_statistics(images)[1],
            ),
            "^Value of the std of 8-bit images.*uint8",
        ),
        (
            lambda images: (
                intensity_statistics(images)[0],
                float(
                    max(
                        0,
                        np.mean(np.square(x := np.concatenate([i.ravel() for i in images]).astype("f4")))
                        - x.mean() ** 2,
                    )
                    ** 0.5
                ),
            ),
            "^Value of the std of float32 images.*float32",
        ),
        (lambda images: intensity_statistics(images)[::-1], "^Value of the mean of one image"),
        (statistics_in_place, "^Mutation: your code changed its argument images"),
    ],
    "1.3": [
        (lambda image, mean, std: (image.astype("float32") - mean) / std, "^dtype of .*np.float64.*: found float64"),
        (lambda image, mean, std: (image - mean) / std, "^dtype of .*: found float64, expected float32"),
        (
            lambda image, mean, std: image.astype("float32") - np.float32(mean / std),
            "^Value of the result for a float32",
        ),
        (lambda image, mean, std: standardize(image, 0, std) - np.float32(mean), "^Value of .*take away the mean"),
        (lambda image, mean, std: standardize(image, mean, std * std), "^Value of the result for a float32 image"),
        (lambda image, mean, std: torch.from_numpy(standardize(image, mean, std)), "^Type of .*: found Tensor"),
        (lambda image, mean, std: standardize(image, mean, std).ravel(), r"^Shape of .*: found \(15,\)"),
        (lambda image, mean, std: standardize(image, image.mean(), image.std()), "^Value of the result for a float32"),
        (lambda image, mean, std: standardize(image - image.dtype.type(int(mean)), mean % 1, std), "^Value of .*uint8"),
        (lambda image, mean, std: standardize(image, mean, std).clip(0, None), "^Value of .*"),
        (standardize_in_place, "^Mutation: your code changed its argument image"),
        (lambda image, mean, std: print(image), "^Type of .*: found NoneType, expected ndarray"),
    ],
    "1.4": [
        (lambda samples, every=20: samples[every - 1 :: every], "^Length of the result: found 3, expected 2"),
        (
            lambda samples, every=20: split_train_val(samples, every)[::-1],
            r"^Order of the result: found \(val, train\)",
        ),
        (lambda samples, every=20: (samples, samples[every - 1 :: every]), "^Length of train"),
        (
            lambda samples, every=20: (
                [s for i, s in enumerate(samples) if i % every],
                [s for i, s in enumerate(samples) if i % every == 0],
            ),
            "^Length of val .*Counting starts at 0",
        ),
        (lambda samples, every=10: split_train_val(samples, every), "^Length of val .*every left out"),
        (lambda samples, every=20: split_train_val(samples), "^Length of val .*every=5.: found 3, expected 12"),
        (
            lambda samples, every=20: (samples[: -(len(samples) // every)], samples[-(len(samples) // every) :]),
            "^Indices of the samples in val",
        ),
        (random_split, "^Indices of the samples in val"),
        (reversed_split, "^Order of the samples in train"),
        (split_in_place, "^Mutation: samples"),
        (lambda samples, every=20: tuple(map(iter, split_train_val(samples, every))), "^Type of train"),
        (
            lambda samples, every=20: ([s for s in samples if s not in samples[19::20]], samples[19::20]),
            "^Error: your code raised ValueError",
        ),
    ],
    "1.5": [
        (crop(draw_right, top=lambda height, size: height - size), "^Error: your code raised ValueError: high <= 0"),
        (crop(draw_right, top=lambda height, size: max(1, height - size)), "^Range of the first row of the crops"),
        (crop(draw_right, left=lambda width, size: max(1, width - size)), "^Range of the first column of the crops"),
        (crop(lambda rng, n: 1 + draw_right(rng, n - 1) if n > 1 else 0), "^Range of the first row"),
        (crop(lambda rng, n: 0), "^Randomness: found the same window 300 times"),
        (crop(lambda rng, n: draw_right(np.random.default_rng(0), n)), "^Randomness: found the same window"),
        (crop(lambda rng, n: np.random.randint(n)), "^Randomness: found other windows for two generators"),  # noqa: NPY002
        (crop(lambda rng, n: random.randrange(n)), "^Randomness: found other windows for two generators"),
        (crop(lambda rng, n: int(torch.randint(n, ()))), "^Randomness: found other windows for two generators"),
        (one_number_for_both, "^Range of the crops: .*independently"),
        (two_windows, "^Value of the crop: found the image from .* the mask from"),
        (lambda i, m, size, rng: random_crop(i.T, m.T, size, rng), "^Value of the image window"),
        (lambda i, m, size, rng: (random_crop(i, m, size, rng)[0],) * 2, "^dtype of the mask window"),
        (lambda i, m, size, rng: random_crop(i.astype(float), m, size, rng), "^dtype of the image window.*float64"),
        (lambda i, m, size, rng: [random_crop(i, m, size, rng)], "^Length of the result: found 1"),
        (lambda i, m, size, rng: random_crop(i, m, size - 1, rng), r"^Shape of the image window .*found \(3, 3\)"),
        (lambda i, m, size, rng: map(torch.tensor, random_crop(i, m, size, rng)), "^Type of the result"),
        (without_error, "^a crop of 57 x 57 from a 23 x 301 image: found no error, expected a ValueError"),
        (with_short_error, "^Error message for a crop of 57 x 57 .* names 23 and 57"),
        (with_error_for_fitting_size, "^Error: your code raised ValueError"),
        (blackened, "^Mutation: your code changed its argument image"),
    ],
    "1.6": [
        (lambda mask: torch.from_numpy(mask > 0)[None], "^dtype of .*: found torch.bool, expected torch.float32"),
        (lambda mask: torch.from_numpy(mask > 0).float(), r"^Shape of .*: found \(4, 5\), expected \(1, 4, 5\)"),
        (lambda mask: (mask > 0).astype("float32")[None], "^Type of .*: found ndarray, expected Tensor"),
        (lambda mask: torch.tensor(mask.astype("float32"))[None], "^Value of .* found 2.0, expected 1.0. 1 on every"),
        (lambda mask: torch.tensor(mask == 1).float()[None], "^Value of .*: found 0.0, expected 1.0"),
        (lambda mask: torch.tensor(mask == 0).float()[None], "^Value of .*: found 1.0, expected 0.0"),
        (lambda mask: torch.tensor(mask > 1).float()[None], "^Value of .*: found 0.0, expected 1.0"),
        (lambda mask: torch.tensor(mask > 0).double()[None], "^dtype of .*: found torch.float64"),
        (lambda mask: torch.tensor(mask.astype("uint8") > 0).float()[None], "^Value of .*: found 0.0, expected 1.0"),
        (lambda mask: torch.tensor(mask.astype("int16") > 0).float()[None], "^Value of .*: found 0.0, expected 1.0"),
        (lambda mask: torch.tensor(mask.T > 0).float()[None], r"^Shape of .*: found \(1, 5, 4\)"),
        (lambda mask: torch.tensor(mask / max(1, mask.max())).float()[None], "^Value of "),
        (target_in_place, "^Mutation: your code changed its argument mask"),
    ],
    "1.7": [
        (NotADataset, "^Type of the data set: found NotADataset, expected Dataset"),
        (WrongLength, "^Length of the data set: found 100, expected 3"),
        (changed(OnlyImage=lambda self, index, image, target: image), "^Type of item 0: found Tensor, expected tuple"),
        (changed(NoChannel=lambda self, index, image, target: (image[0], target)), "^Shape of the image of an item"),
        (
            changed(Doubles=lambda self, index, image, target: (image.double(), target)),
            "^dtype of the image of an item",
        ),
        (changed(Arrays=lambda self, index, image, target: (image.numpy(), target)), "^Type of the image of an item"),
        (changed(Batch=lambda self, index, image, target: (image[None], target)), "^Shape of the image of an item"),
        (changed(Floats=lambda self, index, image, target: (image, target.float())), "^dtype of the target of an item"),
        (changed(More=lambda self, index, image, target: (image, target, index)), "^Length of item 0: found 3"),
        (CropSizeIgnored, "^Shape of the image of an item: .*crop_size is 6"),
        (TransformIgnored, "^Value of an item|^Value of the target"),
        (TransformGivenTensor, "^Type of what target_transform is given: found Tensor, expected ndarray"),
        (NextMask, "^Value of an item: found an image and a target that do not show the same pixels"),
        (ImagesShuffled, "^Value of item"),
        (TurnedAlways, "^Value of item .*: found pixels that are not one window of its image"),
        (LastStartMissing, r"^Range of the first row of the crops: found \[0, 1\], expected \[0, 1, 2\]"),
        (SameCropAlways, "^Randomness: found the same window"),
        (GlobalNumPyNumbers, "^Randomness: found other crops with the same seed and the same torch.manual_seed"),
        (UnseededGenerator, "^Randomness: found other crops with the same seed and the same torch.manual_seed"),
        (SeedIgnored, "^Randomness: found the same crops with seed=0 and seed=1"),
        (GeneratorInDataset, "^Randomness in loader workers: found the same crops in two workers"),
        (GeneratorMadeOnce, "^Randomness in loader workers that start after .*: found the same crops in two workers"),
        (SeedOfTheWorkerNumber, "^Randomness in loader workers: found the same crops in two epochs"),
        (FewSeeds, "^Randomness: different crops among 200"),
        (OnlyImageTurned, "^Value of an item: .*Flip and rotate image and mask alike"),
        (NotTurned, "^Randomness of the augmentation: found 24 items that are all oriented alike"),
        (Scaled, "^Value of an augmented item: found image and target stretched or sheared"),
        (RotatedByAnyAngle, r"^Value of an augmented item: found image and target rotated by about \d+ degrees, exp"),
        (RotatedByAnyAngleNearest, "^Value of an augmented item: .* rotated by about (29|30|31) degrees, exp"),
        (FlippedAndRotatedByAnyAngle, r"^Value of an augmented item: .* rotated by about \d+ degrees, exp"),
        (RandomlyResized, r"^Value of an augmented item: found image and target at about 1\.25 times their size"),
        (Sheared, "^Value of an augmented item: found image and target stretched or sheared"),
        (ShiftedByHalfAPixel, "^Value of an augmented item: found an image of interpolated values"),
        (
            changed(Brighter=lambda self, index, image, target: (image + 1, target)),
            "^Value of an item: .*leave the values",
        ),
        (ImagesNormalisedAgain, "^Mutation: your code changed its argument images"),
        (EmptiesLists, "^Mutation: your code changed its argument images"),
    ],
}


@pytest.mark.parametrize(("exercise_id", "case"), [*cases(WRONG)])
def test_wrong_solutions_fail_with_a_message_that_names_the_mistake(exercise_id, case):
    solution, pattern = case
    result = evaluate(exercise_id, solution)
    assert result.status == "failed", f"expected a message like {pattern}"
    assert re.search(pattern, result.messages[0]), result.messages[0]


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_there_are_enough_solutions_of_each_kind(exercise_id):
    assert len(RIGHT[exercise_id]) >= 2
    assert len(WRONG[exercise_id]) >= 6


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_a_stub_is_todo(exercise_id):
    def stub(*arguments, **options):
        raise NotImplementedError(f"Exercise {exercise_id}: write it.")

    result = evaluate(exercise_id, stub)
    assert (result.status, result.messages) == ("todo", (f"Exercise {exercise_id}: write it.",))


def test_a_half_written_data_set_is_todo():
    class HalfWritten(Base):
        def __getitem__(self, index):
            raise NotImplementedError("Exercise 1.7: __getitem__")

    result = evaluate("1.7", HalfWritten)
    assert (result.status, result.messages) == ("todo", ("Exercise 1.7: __getitem__",))


# The mock of a loader worker agrees with real ones


@pytest.mark.parametrize(
    ("kind", "distinct"),
    [(cls, True) for cls in RIGHT["1.7"]]
    + [(GeneratorInDataset, False), (GeneratorMadeOnce, False)]
    + [(get_exercise("1.7").reference, True)],
)
def test_real_loader_workers_agree_with_the_check(kind, distinct):
    image, mask = np.arange(10000, dtype=np.float32).reshape(100, 100), np.ones((100, 100), dtype=np.int32)
    dataset = kind([image] * 12, [mask] * 12, boundary_target, crop_size=8)
    dataset[0]  # as in a notebook that shows an item first
    loader = DataLoader(dataset, batch_size=6, num_workers=2, multiprocessing_context="fork")
    torch.manual_seed(3)
    epochs = [[batch[0][:, 0, 0, 0].tolist() for batch in loader] for _ in range(2)]
    (first, second), (third, _) = epochs
    assert (first != second and first != third) == distinct


# Mutants of the references

NOT_IN_CONTRACT = "the contract (CURRICULUM, table 01) asks for no error here"
EQUIVALENT = {
    "1.1": {"->  return Counter(": "a Counter is a dict"},
    "1.2": {
        "if n_pixels == 0": NOT_IN_CONTRACT,
        "raise ValueError('intensity_statistics needs": NOT_IN_CONTRACT,
        "->  mean = sum((image.sum() for": "NumPy adds float32 pairwise: it keeps seven digits; integers in 64 bit",
        "->  mean = sum((image.sum(dtype=np.float32)": "seven digits are enough for the mean",
        "->  variance = sum((((image - mean) ** 2).sum() for": "mean is a float64 scalar: the squares are float64",
        "->  variance = sum((((image - mean) ** 2).sum(dtype=np.float32)": "seven digits of sums of squares are enough",
    },
    "1.4": {"if every < 1": NOT_IN_CONTRACT, "raise ValueError(f'every must": NOT_IN_CONTRACT},
    "1.5": {
        "if image.shape != mask.shape": NOT_IN_CONTRACT,
        "raise ValueError(f'image and mask must": NOT_IN_CONTRACT,
        "->  top = rng.integers(height - size + 1)": "integers(n) is integers(0, n)",
        "->  left = rng.integers(width - size + 1)": "integers(n) is integers(0, n)",
    },
    "1.7": {
        "if len(images) != len(masks)": NOT_IN_CONTRACT,
        "raise ValueError(f'There must be": NOT_IN_CONTRACT,
        "for index, (image, mask) in enumerate(": NOT_IN_CONTRACT + "; the loop only looks for errors",
        "if image.shape != mask.shape": NOT_IN_CONTRACT,
        "raise ValueError(f'Image {index} has shape": NOT_IN_CONTRACT,
        "if min(image.shape) < crop_size": NOT_IN_CONTRACT,
        "height, width = image": "only used in a message that the contract does not ask for",
        "raise ValueError(f'Image {index} is {height}": NOT_IN_CONTRACT,
        "in list((0, 90, 180, 270))[1:]]": "another choice of quarter turns",
        "in (90, 0, 180, 270)]": "the order of the quarter turns does not matter",
        "in (0, 180, 90, 270)]": "the order of the quarter turns does not matter",
        "in (0, 90, 270, 180)]": "the order of the quarter turns does not matter",
        "in (0, 0, 180, 270)]": "another choice of quarter turns",
        "in (0, -90, 180, 270)]": "-90 degrees is 270",
        "in (0, 90, 0, 270)]": "another choice of quarter turns",
        "in (0, 90, -180, 270)]": "-180 degrees is 180",
        "in (0, 90, 180, 0)]": "another choice of quarter turns",
        "in (0, 90, 180, -270)]": "-270 degrees is 90",
        "v2.Compose([v2.RandomChoice(quarter_turns), v2.RandomHorizontalFlip()])": "turn or flip first: both right",
        "default_rng([int(torch.randint(2 ** 62, ())), self.seed])": "the order of two seeds does not matter",
        "torch.randint(-2 ** 62, ())": "(-2) ** 62 is 2 ** 62",
        "torch.randint(2 ** 61, ())": "2 ** 61 seeds are plenty",
        "->  mask = mask.astype(np.int64)[None]": "tv_tensors.Mask takes arrays, too",
        "->  mask = torch.from_numpy(mask)[None]": "the course's masks are int32, which torch can turn",
        "->  mask = torch.from_numpy(mask.astype(np.int32))[None]": "the course's masks are int32",
        "self.augmentation(image, tv_tensors.Mask(mask))": "beside a Mask, a plain tensor is taken for the image",
        "->  image, mask = (image, mask[0].numpy())": "tv_tensors.Image is a tensor",
        "mask[-1].numpy()": "there is one channel: the first is the last",
    },
}


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_mutants_of_the_reference_are_rejected(exercise_id, kill_mutants):
    kill_mutants(exercise_id, EQUIVALENT.get(exercise_id), seconds=1.5 if exercise_id == "1.7" else 0.5)


def test_each_exercise_of_the_notebook_has_a_check():
    for exercise_id in EXERCISES:
        assert callable(getattr(notebook_01, f"check_{get_exercise(exercise_id).name}"))
