"""The checks of notebook 01 accept right solutions, name the mistake in wrong ones, and reject mutants."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import statistics
from collections import Counter

import numpy as np
import pytest
import torch
from runner import CheckTests
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_utils.exercises import evaluate, get_exercise
from course_utils.exploration import intensity_statistics, random_crop, split_train_val, standardize
from course_utils.targets import binary_target, boundary_target

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


def statistics_by_merging(images):
    """Welford's sums, image by image."""
    n, mean, squares = 0, 0.0, 0.0
    for image in images:
        size, own = image.size, image.mean(dtype=np.float64)
        squares += image.var(dtype=np.float64) * size + (own - mean) ** 2 * n * size / (n + size)
        mean += (own - mean) * size / (n + size)
        n += size
    return float(mean), float(squares / n) ** 0.5


def statistics_of_python(images):
    pixels = [float(value) for image in images for value in image.ravel()]
    return statistics.fmean(pixels), statistics.pstdev(pixels)


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


def split_by_array(samples, every=20):
    array = np.empty(len(samples), dtype=object)
    array[:] = samples
    for_val = np.arange(len(samples)) % every == every - 1
    return list(array[~for_val]), list(array[for_val])


def crop_by_permutation(image, mask, size, rng):
    if min(image.shape) < size:
        raise ValueError(f"{image.shape} is smaller than {size}")
    row, column = (rng.permutation(side - size + 1)[0] for side in image.shape)
    return [np.roll(part, (-row, -column), (0, 1))[:size, :size] for part in (image, mask)]


def crop_with_torch(image, mask, size, rng):
    if size > min(image.shape):
        raise ValueError(f"cannot cut {size} x {size} from {image.shape[0]} x {image.shape[1]}")
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    row, column = (int(torch.randint(side - size + 1, (), generator=generator)) for side in image.shape)
    window = slice(row, row + size), slice(column, column + size)
    return torch.from_numpy(image.copy())[window].numpy(), mask[window]


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
            turns, mirrored = draw(4), draw(2)
            image, mask = (np.rot90(part.T if mirrored else part, turns).copy() for part in (image, mask))
        return torch.tensor(image, dtype=torch.float32)[None], self.target_transform(mask)


class TorchNumbersOnly(Base):
    """The seed shifts torch's numbers modulo the number of starts."""

    def __getitem__(self, index):
        return self.item(index, lambda n: (int(torch.randint(n, ())) + self.seed * 7919) % n)


class TargetsMadeBefore(Base):
    """The target is the crop of the transformed mask, flipped and turned by torch; a list instead of a tuple."""

    def prepare(self):
        self.targets = [self.target_transform(mask) for mask in self.masks]

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(torch.randint(10**9, ())))
        rows, columns = self.window(index, lambda n: int(torch.randint(n, (), generator=generator)))
        image = torch.from_numpy(self.images[index][rows, columns].astype("float32"))[None].clone()
        target = self.targets[index][..., rows, columns]
        for axis in (-1, -2):
            if self.augment and torch.rand((), generator=generator) < 0.5:
                image, target = image.flip(axis), target.flip(axis)
        if self.augment and torch.rand((), generator=generator) < 0.5:
            image, target = image.mT.contiguous(), target.mT.contiguous()
        return [image, target]


class InitialSeedAndCounter(Base):
    """Nothing is drawn from torch: its initial seed differs in each worker and epoch, and a counter counts items."""

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


def transformed(name, transform):
    """A data set whose image and mask go through one transform of torchvision together."""

    def __getitem__(self, index):
        rows, columns = self.window(index, lambda n: (int(torch.randint(n, ())) + self.seed * 7919) % n)
        image = torch.from_numpy(self.images[index][rows, columns].astype(np.float32))[None]
        mask = torch.from_numpy(self.masks[index][rows, columns].astype(np.int64))[None]
        if self.augment:
            image, mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(torch.Tensor), self.target_transform(mask[0].numpy())

    return type(name, (Base,), {"__getitem__": __getitem__})


TURNS = v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 270)])
RotatedByQuarters = transformed("RotatedByQuarters", v2.Compose([v2.RandomVerticalFlip(), TURNS]))

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


def n_starts(side, size):
    return side - size + 1


def too_small(shape, size):
    return min(shape) < size


def crop(draw, top=n_starts, left=n_starts, refuse=too_small):
    """A crop with its own source of numbers `draw(rng, n)`, its own number of starts or its own rule for an error."""

    def cropped(image, mask, size, rng):
        height, width = image.shape
        if refuse(image.shape, size):
            raise ValueError(f"{image.shape} is smaller than {size}")
        row, column = draw(rng, top(height, size)), draw(rng, left(width, size))
        return image[row : row + size, column : column + size], mask[row : row + size, column : column + size]

    return cropped


def draw_right(rng, n):
    return int(rng.integers(n))


def draw_at_least_one(rng, n):
    return draw_right(rng, max(1, n))


def two_windows(image, mask, size, rng):
    return random_crop(image, mask, size, rng)[0], random_crop(image, mask, size, rng)[1]


def with_short_error(image, mask, size, rng):
    if min(image.shape) < size:
        raise ValueError("The image is too small.")
    return random_crop(image, mask, size, rng)


def one_number_for_both(image, mask, size, rng):
    if min(image.shape) < size:
        raise ValueError(f"{image.shape} is smaller than {size}")
    number = rng.random()
    row, column = (int(number * (side - size + 1)) for side in image.shape)
    return image[row : row + size, column : column + size], mask[row : row + size, column : column + size]


def tied(image, mask, size, rng):
    """All places are possible, but on the diagonal twice as likely."""
    draws = iter([rng.random()] * 2 if rng.random() < 0.5 else rng.random(2))
    return crop(lambda _, n: int(next(draws) * n))(image, mask, size, rng)


def asserting(image, mask, size, rng):
    assert min(image.shape) >= size, f"{image.shape} {size}"
    return random_crop(image, mask, size, rng)


def printing_error(image, mask, size, rng):
    if min(image.shape) < size:
        return print(f"ValueError: {image.shape} is smaller than {size}")
    return random_crop(image, mask, size, rng)


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
    """Made at the first access, which is right unless that is before the workers start."""

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


def drawing(draw):
    """A data set whose windows `draw(self, index)`, a function of the number of starts, decides."""
    return type("Drawing", (Base,), {"__getitem__": lambda self, index: self.item(index, draw(self, index))})


def changed(change):
    """A right data set whose items `change(image, target)` changes."""
    right = TorchNumbersOnly.__getitem__
    return type("Changed", (TorchNumbersOnly,), {"__getitem__": lambda self, index: change(*right(self, index))})


def with_attributes(**attributes):
    """A right data set that uses other values than those it was given."""
    return type("Other", (TorchNumbersOnly,), {"prepare": lambda self: vars(self).update(attributes)})


class LastStartMissing(TorchNumbersOnly):
    def window(self, index, draw):
        return super().window(index, lambda n: draw(max(1, n - 1)))


class OnlyImageTurned(TorchNumbersOnly):
    def item(self, index, draw):
        augment, self.augment = self.augment, False
        image, target = super().item(index, draw)
        self.augment = augment
        return (torch.rot90(image, draw(4), (1, 2)) if augment else image), target


def turned(turn):
    """A data set whose augmentation is `turn(image, draw)`, alike for image and mask."""

    class Turned(TorchNumbersOnly):
        def item(self, index, draw):
            window = self.window(index, draw)
            parts = [self.images[index][window], self.masks[index][window]]
            if self.augment:
                numbers = [draw(4) for _ in range(3)]
                parts = [turn(part, lambda n, left=[*numbers]: left.pop() % n) for part in parts]
            image, mask = (part.copy() for part in parts)
            return torch.tensor(image, dtype=torch.float32)[None], self.target_transform(mask)

    return Turned


class Misspelt(Dataset):
    __init__, prepare, window, item = Base.__init__, Base.prepare, Base.window, Base.item
    __getitem__, _len_ = TorchNumbersOnly.__getitem__, Base.__len__


class EachTurned(TorchNumbersOnly):
    def item(self, index, draw):
        image, target = super().item(index, draw)
        return (torch.rot90(image, draw(4), (-2, -1)), target) if self.augment else (image, target)


def with_masks(change):
    def prepare(self):
        self.masks = [change(mask) for mask in self.masks]

    return type("Masks", (TorchNumbersOnly,), {"prepare": prepare})


class Visits(Base):
    """Counts how often an item was asked for: right only if all processes share the numbers."""

    def prepare(self):
        self.visits = torch.zeros(len(self.images), dtype=torch.int64)

    def __getitem__(self, index):
        self.visits[index] += 1
        return self.item(index, np.random.default_rng([self.seed, index, int(self.visits[index])]).integers)


class SharedVisits(Visits):
    def prepare(self):
        super().prepare()
        self.visits.share_memory_()


class SharedCounter(Base):
    """One counter of all items, in the shared memory of Python."""

    def prepare(self):
        self.count = multiprocessing.Value("q", 0)

    def __getitem__(self, index):
        with self.count.get_lock():
            self.count.value += 1
            number = self.count.value
        return self.item(index, np.random.default_rng([self.seed, number]).integers)


class NewProcess(Base):
    """A generator for each process, which is known by its number."""

    def prepare(self):
        self.process = None

    def __getitem__(self, index):
        if self.process != os.getpid():
            self.process, self.rng = os.getpid(), np.random.default_rng([self.seed, torch.initial_seed()])
        return self.item(index, self.rng.integers)


class NumberOfTheProcess(Visits):
    """Other crops in each worker, but also in each run."""

    def __getitem__(self, index):
        self.visits[index] += 1
        return self.item(index, np.random.default_rng([self.seed, os.getpid(), int(self.visits[index])]).integers)


class PythonsRandom(Base):
    def __getitem__(self, index):
        return self.item(index, random.Random(f"{self.seed} {torch.randint(2**60, ()).item()}").randrange)


class OneOfThree(Base):
    """Flipped, turned upside down or turned by a quarter, one at a time, and seldom."""

    def item(self, index, draw):
        window, turn = self.window(index, draw), draw(8)
        parts = [self.images[index][window], self.masks[index][window]]
        if self.augment and turn < 3:
            parts = [[np.fliplr, np.flipud, np.rot90][turn](part) for part in parts]
        image, mask = map(np.ascontiguousarray, parts)
        return torch.from_numpy(image).float()[None], self.target_transform(mask)

    def __getitem__(self, index):
        return self.item(index, np.random.default_rng([self.seed, int(torch.randint(2**62, ()))]).integers)


class RowsRepeated(TorchNumbersOnly):
    """Augmentation that is neither a flip nor a turn."""

    def item(self, index, draw):
        image, target = super().item(index, draw)
        if self.augment:
            rows = torch.arange(self.size) // (1 + draw(2))
            image, target = image[..., rows, :], target[..., rows, :]
        return image, target


class ShiftedByHalfAPixel(TorchNumbersOnly):
    def prepare(self):
        self.shift, self.augment = self.augment, False

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        if self.shift:
            image[..., :-1] = (image[..., :-1] + image[..., 1:]) / 2
        return image, target


class TransformGivenTensor(TorchNumbersOnly):
    def prepare(self):
        transform = self.target_transform
        self.target_transform = lambda mask: transform(torch.from_numpy(mask))


class NextMask(TorchNumbersOnly):
    def prepare(self):
        self.masks = [np.pad(self.masks[i - 1], 8, mode="edge")[: m.shape[0], : m.shape[1]]
                      for i, m in enumerate(self.masks)]  # fmt: skip


class ImagesNormalisedAgain(TorchNumbersOnly):
    def prepare(self):
        for image in self.images:
            image -= image.mean()


class ImagesShuffled(TorchNumbersOnly):
    def __getitem__(self, index):
        return super().__getitem__(int(torch.randint(len(self), ())))


class WrongLength(TorchNumbersOnly):
    def __len__(self):
        return 100


class EmptiesLists(TorchNumbersOnly):
    def prepare(self):
        images, masks = self.images, self.masks
        self.images, self.masks = images[:], masks[:]
        images.clear()
        masks.clear()


BILINEAR = v2.InterpolationMode.BILINEAR
ANY_ANGLE = v2.RandomRotation((20, 45), interpolation=BILINEAR)
FLIP_AND_ANY_ANGLE = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomRotation((29, 31))])
LARGER = v2.RandomAffine(0, scale=(1.25, 1.25), interpolation=BILINEAR)


def all_pixels(images):
    return np.concatenate([image.astype(np.float64).ravel() for image in images])


def rms_in(dtype):
    """The standard deviation of one type of image by the mean of squares, in that type; else right."""

    def statistics(images):
        mean, std = intensity_statistics(images)
        if images[0].dtype != dtype:
            return mean, std
        pixels = np.concatenate([image.ravel() for image in images])
        mean_of_squares = float(np.square(pixels).mean())
        return mean, max(0.0, mean_of_squares - (mean if dtype != "f4" else float(pixels.mean())) ** 2) ** 0.5

    return statistics


RIGHT = {
    "1.1": [
        shapes_by_loop, lambda images: Counter(image.shape for image in images),
        lambda images: {shape: [image.shape for image in images].count(shape) for shape in {i.shape for i in images}},
        lambda images: Counter(torch.from_numpy(image).shape for image in images),
    ],
    "1.2": [
        statistics_of_all_pixels, statistics_by_moments, statistics_with_torch, statistics_by_merging,
        statistics_of_python, lambda images: [float(f(all_pixels(images).astype("f4"))) for f in (np.mean, np.std)],
    ],
    "1.3": [
        standardize_with_torch,
        lambda image, mean, std: ((image.astype(float) - mean) / std).astype("float32"),
        lambda image, mean, std, epsilon=0: np.float32(1 / std) * (np.float32(image) - np.float32(mean)),
    ],
    "1.4": [split_by_slices, split_by_loop, split_by_array],
    "1.5": [crop_from_all_starts, crop_with_floats, crop_by_permutation, crop_with_torch],
    "1.6": [target_by_where, target_by_bool, lambda mask: torch.tensor(mask.astype("int64")).clamp(0, 1).float()[None]],
    "1.7": [TorchNumbersOnly, TargetsMadeBefore, InitialSeedAndCounter, GeneratorForEachWorker, RotatedByQuarters,
            SharedVisits, SharedCounter, NewProcess, PythonsRandom, OneOfThree],
}  # fmt: skip


WRONG_SHAPES = {
    "a list": (lambda images: [image.shape for image in images], "^Type of the result: found list, expected dict"),
    "sizes as keys": (lambda images: {image.size: 1 for image in images}, "^Keys of the dict: found 6, expected tup"),
    "not counted": (lambda images: {image.shape: 1 for image in images}, r"shape \(2, 3\): found 1, expected 3"),
    "width first": (lambda images: Counter(i.shape[::-1] for i in images), r"^Keys .*found \(W, H\), .*height"),
    "strings": (lambda images: Counter(str(i.shape) for i in images), r"^Keys of the dict: found '\(\d+, \d+\)', "),
    "numbers as strings": (lambda images: {s: str(n) for s, n in Counter(i.shape for i in images).items()},
                           r"shape \(2, 3\): found '3', expected 3"),
    "one too few": (lambda images: {s: n - 1 for s, n in Counter(i.shape for i in images).items()},
                    r"found 2, expected 3. .*the first"),
    "counts in a byte": (lambda images: {s: n % 256 for s, n in Counter(i.shape for i in images).items()},
                         r"shape \(1, 5\): found 44, expected 300. .*type"),
    "sides in a byte": (lambda images: Counter((len(i) % 256, len(i[0]) % 256) for i in images),
                        r"shape \(260, 347\): found none"),
    "printed": (lambda images: print(Counter(i.shape for i in images)), "^Type of .*found None, .*code printed .Cou"),
    "returned inside the loop": (lambda images: {images[0].shape: 1}, "found 1, expected 307. .*`return`"),
    "sides sorted": (lambda images: Counter(tuple(sorted(i.shape)) for i in images), r"shape \(2, 3\): found 4"),
    "one too many": (lambda images: {**Counter(i.shape for i in images), (9, 9): 0}, "^Number of shapes in the dict"),
    "None for none": (lambda images: Counter(i.shape for i in images) or None, "^Result for no images: found None"),
    "images changed": (changed_images, "^Mutation: your code changed its argument images"),
}  # fmt: skip
WRONG_STATISTICS = {
    "an array": (lambda images: np.array(intensity_statistics(images)), "^Type of the result: found ndarray"),
    "one number": (lambda images: intensity_statistics(images)[:1], "^Type of the result: found tuple of 1"),
    "NumPy numbers": (lambda images: tuple(map(np.float64, intensity_statistics(images))), "^Type of the mean: .*nump"),
    "a tensor": (lambda images: (intensity_statistics(images)[0], torch.tensor(1.0)), "^Type of the std: .*Tensor"),
    "mean of means": (
        lambda images: (float(np.mean([i.mean() for i in images])), float(np.mean([i.std() for i in images]))),
        "^Value of the mean of images of different sizes.*[Ee]very pixel"),
    "mean of stds": (lambda images: (intensity_statistics(images)[0], float(np.mean([i.std() for i in images]))),
                     "^Value of the std of images of different sizes"),
    "sample std": (
        lambda images: (intensity_statistics(images)[0],
                        float(np.concatenate([i.ravel() for i in images]).std(ddof=1))),
        "^Value of the std of one image: .*number of pixels"),
    "variance": (lambda images: (intensity_statistics(images)[0], intensity_statistics(images)[1] ** 2),
                 "^Value of the std of one image.*variance: std is its square root"),
    "median": (lambda images: (float(np.median(all_pixels(images))), 1.0), "^Value of the mean .*median"),
    "sum": (lambda images: (float(all_pixels(images).sum()), 1.0), "^Value of the mean .*sum: divide"),
    "first image": (lambda images: (float(images[0].mean()), 1.0), "^Value of the mean of images of different sizes"),
    "mean in a byte": (
        lambda images: (sum(float(i.sum(dtype=i.dtype)) for i in images) / all_pixels(images).size, 1.0),
        "^Value of the mean of 8-bit images.*A uint8 holds"),
    "squares of uint16": (rms_in("u2"), "^Value of the std of 16-bit images.*uint16"),
    "spread inside images": (
        lambda images: (intensity_statistics(images)[0], float(all_pixels([i - i.mean() for i in images]).std())),
        "^Value of the std of images of different sizes.*not from that of each image"),
    "mean not subtracted": (
        lambda images: (intensity_statistics(images)[0], float(np.sqrt(np.square(all_pixels(images)).mean()))),
        "^Value of the std of one image.*Subtract the mean before"),
    "mean distance": (
        lambda images: (intensity_statistics(images)[0],
                        float(np.abs(all_pixels(images) - all_pixels(images).mean()).mean())),
        "^Value of the std of one image.*mean distance"),
    "not divided": (
        lambda images: (intensity_statistics(images)[0],
                        intensity_statistics(images)[1] * all_pixels(images).size ** 0.5),
        "^Value of the std of one image.*Divide the sum of squares"),
    "printed": (lambda images: print(*intensity_statistics(images)), "^Type of the result: found None.*code printed"),
    "squares of uint8": (rms_in("u1"), "^Value of the std of 8-bit images.*uint8"),
    "squares of float32": (rms_in("f4"), "^Value of the std of float32 images.*float32"),
    "exchanged": (lambda images: intensity_statistics(images)[::-1], "^Value of the mean .*mean comes first"),
    "images changed": (statistics_in_place, "^Mutation: your code changed its argument images"),
}  # fmt: skip
WRONG_STANDARDIZE = {
    "NumPy 2": (lambda image, mean, std: (image.astype("float32") - mean) / std, "^dtype of .*np.float64.*float64"),
    "float64": (lambda image, mean, std: (image - mean) / std, "^dtype of .*: found float64, expected float32"),
    "order": (lambda image, mean, std: image.astype("float32") - np.float32(mean / std), "^Value of .* a float32"),
    "std first": (lambda image, mean, std: standardize(image, 0, std) - np.float32(mean), "^Value of .*the mean"),
    "variance": (lambda image, mean, std: standardize(image, mean, std * std), "^Value of .*not by its square"),
    "multiplied": (lambda image, mean, std: standardize(image, mean, 1 / std), "^Value of .*do not multiply"),
    "not divided": (lambda image, mean, std: standardize(image, mean, 1), "^Value of .*Divide by std, too"),
    "wraps around": (lambda image, mean, std: ((image - image.dtype.type(mean)) / std).astype("float32"),
                     "^Value of the result for a uint8 image.*cannot be negative"),
    "a tensor": (lambda image, mean, std: torch.from_numpy(standardize(image, mean, std)), "^Type of .*Tensor"),
    "flat": (lambda image, mean, std: standardize(image, mean, std).ravel(), r"^Shape of .*: found \(15,\)"),
    "own mean": (lambda image, mean, std: standardize(image, image.mean(), image.std()), "^Value of .* that are given"),
    "uint8": (lambda image, mean, std: standardize(image - image.dtype.type(int(mean)), mean % 1, std), "Value.*uint8"),
    "clipped": (lambda image, mean, std: standardize(image, mean, std).clip(0, None), "^Value of .*nothing is cut"),
    "image changed": (standardize_in_place, "^Mutation: your code changed its argument image"),
    "printed": (lambda image, mean, std: print(standardize(image, mean, std)),
                "^Type of .* found None.* printed .*`return`"),
}  # fmt: skip
WRONG_SPLITS = {
    "val only": (lambda samples, every=20: samples[every - 1 :: every], "^Type of the result: found list of 3"),
    "exchanged": (lambda samples, every=20: split_train_val(samples, every)[::-1], "^Order of the result"),
    "all in train": (lambda samples, every=20: (samples, samples[every - 1 :: every]), "^Indices in train and in val"),
    "some lost": (lambda samples, every=20: (samples[: every - 1], samples[every - 1 :: every]),
                  "^Length of train .*: found 19, expected 60. All samples that are not in val"),
    "from 20": (lambda samples, every=20: ([s for i, s in enumerate(samples) if i % every or not i],
                samples[every::every]), "^Indices of .* val .* index 20 is the 21st"),
    "the first ones": (lambda samples, every=20: (samples[len(samples) // every :], samples[: len(samples) // every]),
                       "^Indices of the samples in val .*Here the indices 19, 39, ... go to val"),
    "indices": (lambda samples, every=20: split_train_val(range(len(samples)), every), "^Samples in the result"),
    "printed": (lambda samples, every=20: print(split_train_val(samples, every)), "^Type of .*found None.*printed"),
    "from 0": (lambda samples, every=20: ([s for i, s in enumerate(samples) if i % every], samples[::every]),
               "^Length of val .*starts at 0"),
    "another default": (lambda samples, every=10: split_train_val(samples, every), "^Length of val .*default"),
    "every ignored": (lambda samples, every=20: split_train_val(samples),
                      "^Length of val .*every=5.: found 3, expected 12. Use the argument"),
    "the last ones": (
        lambda samples, every=20: (samples[: -(len(samples) // every)], samples[-(len(samples) // every) :]),
        "^Indices of the samples in val"),
    "at random": (random_split, "^Indices of the samples in val"),
    "reversed": (reversed_split, "^Order of the samples in train"),
    "in place": (split_in_place, "^Mutation: samples"),
    "iterators": (lambda samples, every=20: tuple(map(iter, split_train_val(samples, every))), "^Type of train"),
    "by value": (lambda samples, every=20: ([s for s in samples if s not in samples[19::20]], samples[19::20]),
                 "^Error: your code raised ValueError"),
}  # fmt: skip
NOT_ALIKE = "^Randomness: how often each "
OTHER_WINDOWS = "^Randomness: found other windows for two generators"
WRONG_CROPS = {
    "no start": (crop(draw_right, top=lambda height, size: height - size), "^Error: .*ValueError: high <= 0"),
    "last row missing": (crop(draw_right, top=lambda height, size: max(1, height - size)), "^Range of the first row"),
    "last column missing": (crop(draw_right, left=lambda width, size: max(1, width - size)), "^Range of the first col"),
    "first missing": (crop(lambda rng, n: 1 + draw_right(rng, n - 1) if n > 1 else 0), "^Range of the first row"),
    "upper left": (crop(lambda rng, n: 0), "^Randomness: found the same window 2000 times"),
    "seeded anew": (crop(lambda rng, n: draw_right(np.random.default_rng(0), n)), "^Randomness: found the same window"),
    "np.random": (crop(lambda rng, n: np.random.randint(n)), OTHER_WINDOWS),  # noqa: NPY002
    "random": (crop(lambda rng, n: random.randrange(n)), OTHER_WINDOWS),
    "torch": (crop(lambda rng, n: int(torch.randint(n, ()))), OTHER_WINDOWS),
    "one number": (one_number_for_both, "^Range of the crops: .*independently"),
    "rounded": (crop(lambda rng, n: round(rng.random() * (n - 1))), NOT_ALIKE + "first row"),
    "triangular": (crop(lambda rng, n: int((rng.random() + rng.random()) / 2 * n)), NOT_ALIKE + "first row"),
    "clipped": (crop(lambda rng, n: min(n - 1, int(rng.integers(n + 1)))), NOT_ALIKE + "first row"),
    "squared": (crop(lambda rng, n: int(rng.random() ** 2 * n)), NOT_ALIKE + "first row"),
    "the first more often": (crop(lambda rng, n: int(rng.integers(n)) if rng.random() < 0.8 else 0), NOT_ALIKE),
    "a byte": (crop(lambda rng, n: int(rng.integers(n)) % 256), NOT_ALIKE + "fifth of all first columns"),
    "even places": (crop(lambda rng, n: 2 * int(rng.integers((n + 1) // 2))), "^Range of the first row"),
    "tied": (tied, NOT_ALIKE + "place"),
    "ids in a byte": (lambda i, m, size, rng: (lambda a, b: (a, b.astype("u1").astype(m.dtype)))(
        *random_crop(i, m, size, rng)), "^Value of the mask window"),
    "assert": (asserting, "^a crop of 57 x 57 .*found AssertionError.*`assert` is not enough"),
    "error printed": (printing_error, "^a crop of 57 x 57 .*found no error, but .* printed"),
    "two windows": (two_windows, "^Value of the crop: found the image from .* the mask from"),
    "transposed": (lambda i, m, size, rng: random_crop(i.T, m.T, size, rng), "^Value of the image window"),
    "image twice": (lambda i, m, size, rng: (random_crop(i, m, size, rng)[0],) * 2, "^dtype of the mask window"),
    "float64": (lambda i, m, size, rng: random_crop(i.astype(float), m, size, rng), "^dtype of the image .*float64"),
    "one result": (lambda i, m, size, rng: [random_crop(i, m, size, rng)], "^Type of the result: found list of 1"),
    "too small": (lambda i, m, size, rng: random_crop(i, m, size - 1, rng), r"^Shape of the image window .*\(3, 3\)"),
    "an iterator": (lambda i, m, size, rng: map(torch.tensor, random_crop(i, m, size, rng)), "^Type of the result"),
    "no error": (crop(draw_at_least_one, refuse=lambda shape, size: False), "^a crop of 57 x 57 .*found no error"),
    "short error": (with_short_error, "^Error message for a crop of 57 x 57 .* names 23 and 57"),
    "error for what fits": (crop(draw_right, refuse=lambda shape, size: min(shape) <= size), "^Error: .*ValueError"),
    "image changed": (blackened, "^Mutation: your code changed its argument image"),
}  # fmt: skip
WRONG_TARGETS = {
    "a mask": (lambda mask: torch.from_numpy(mask > 0)[None], "^dtype of .*torch.bool, expected torch.float32"),
    "no channel": (lambda mask: torch.from_numpy(mask > 0).float(), r"^Shape of .*\(4, 5\), expected \(1, 4, 5\)"),
    "an array": (lambda mask: (mask > 0).astype("float32")[None], "^Type of .*: found ndarray, expected Tensor"),
    "ids": (lambda mask: torch.tensor(mask.astype("float32"))[None], "^Value of .* found 2.0, expected 1.0. Every nuc"),
    "id 1 only": (lambda mask: torch.tensor(mask == 1).float()[None], "^Value of .* id is 2: found 0.0.*not only 1"),
    "background": (lambda mask: torch.tensor(mask == 0).float()[None], "^Value of .*: found 1.0.*other way round"),
    "above 1": (lambda mask: torch.tensor(mask > 1).float()[None], "^Value of .* id is 1: found 0.0.*id 1 is a nuc"),
    "times 255": (lambda mask: binary_target(mask) * 255, "^Value of .* id is 1: found 255.0, expected 1.0"),
    "torch on uint16": (lambda mask: (torch.from_numpy(mask) > 0).float()[None], "^Error: .*convert to int64 first"),
    "float64": (lambda mask: torch.tensor(mask > 0).double()[None], "^dtype of .*: found torch.float64"),
    "a byte": (lambda mask: torch.tensor(mask.astype("uint8") > 0).float()[None], "^Value of .* id is 256: .*fit into"),
    "two bytes": (lambda mask: torch.tensor(mask.astype("int16") > 0).float()[None], "^Value of .* 32768: .*fit"),
    "transposed": (lambda mask: torch.tensor(mask.T > 0).float()[None], r"^Shape of .*: found \(1, 5, 4\)"),
    "divided": (lambda mask: torch.tensor(mask / max(1, mask.max())).float()[None], "^Value of "),
    "mask changed": (target_in_place, "^Mutation: your code changed its argument mask"),
}  # fmt: skip
NO_TURNS = "^Randomness of the augmentation: found no quarter turns among 120 items"
OTHER_CROPS = "^Randomness: found other crops with the same seed and the same torch.manual_seed"
AUGMENTED = "^Value of an augmented item: found image and target "
WRONG_DATASETS = {
    "not a Dataset": (NotADataset, "^Type of the data set: found NotADataset, expected Dataset"),
    "length": (WrongLength, "^Length of the data set: found 100, expected 3"),
    "image only": (changed(lambda image, target: image), "^Type of item 0: found Tensor, expected a tuple"),
    "no channel": (changed(lambda image, target: (image[0], target)), "^Shape of the image of an item"),
    "float64": (changed(lambda image, target: (image.double(), target)), "^dtype of the image of an item"),
    "arrays": (changed(lambda image, target: (image.numpy(), target)), "^Type of the image of an item"),
    "a batch": (changed(lambda image, target: (image[None], target)), "^Shape of the image of an item"),
    "float targets": (changed(lambda image, target: (image, target.float())), "^dtype of the target of an item"),
    "three": (changed(lambda image, target: (image, target, 0)), "^Type of item 0: found tuple of 3"),
    "crop_size ignored": (with_attributes(size=5), "^Shape of the image of an item: .*crop_size is 6"),
    "transform ignored": (with_attributes(target_transform=binary_target), "^Value of an item|^Value of the target"),
    "transform of a tensor": (TransformGivenTensor, "^Type of the argument of target_transform: found Tensor"),
    "next mask": (NextMask, "^Value of an item: .*different pixels"),
    "images shuffled": (ImagesShuffled, "^Value of item"),
    "always turned": (with_attributes(augment=True), "^Value of item .*not one window of its image"),
    "last start missing": (LastStartMissing, r"^Range of the first row .* \[0, 1\], expected \[0, 1, 2\]"),
    "one crop": (drawing(lambda self, index: np.random.default_rng([self.seed, index]).integers),
                 "^Randomness: found the same window"),
    "np.random": (drawing(lambda self, index: np.random.randint), OTHER_CROPS),
    "unseeded": (drawing(lambda self, index: np.random.default_rng().integers), OTHER_CROPS),
    "seed ignored": (drawing(lambda self, index: lambda n: int(torch.randint(n, ()))),
                     "^Randomness: found the same crops with seed=0 and seed=1"),
    "generator copied": (GeneratorInDataset, "^Randomness in loader workers: found the same crops in two workers"),
    "generator made once": (GeneratorMadeOnce, "^Randomness in loader workers that start after .* in two workers"),
    "worker's number": (SeedOfTheWorkerNumber, "^Randomness in loader workers: found the same crops in two epochs"),
    "few seeds": (drawing(lambda self, index: np.random.default_rng([self.seed, int(torch.randint(100, ()))]).integers),
                  "^Randomness: different crops among 200"),
    "only image turned": (OnlyImageTurned, "^Value of an item: .*Flip and rotate image and mask alike"),
    "not turned": (with_attributes(augment=False), "^Randomness of the augmentation: found only one orientation"),
    "turned only": (turned(lambda image, draw: np.rot90(image, draw(4))), "^Randomness of .* found no flips"),
    "flipped only": (turned(lambda image, draw: image[:: draw(2) * 2 - 1, :: draw(2) * 2 - 1]), NO_TURNS),
    "flipped and upside down": (turned(lambda image, draw: np.rot90(image[:, :: draw(2) * 2 - 1], 2 * draw(2))),
                                NO_TURNS),
    "transposed only": (turned(lambda image, draw: image.T if draw(2) else image), "^Rand.* only transposed"),
    "always the same turn": (turned(lambda image, draw: image.T), "^Rand.* only one orientation"),
    "each turned on its own": (EachTurned, "^Value of an item: .*Flip and rotate image and mask alike"),
    "ids in a byte": (with_masks(lambda mask: (mask % 256).astype(np.int32)), "^Value of the target: .*too small"),
    "ids in two bytes": (with_masks(lambda mask: mask.astype(np.uint16)), "^Value of the target: .*too small"),
    "visits in each process": (Visits, "^Randomness in loader workers: found the same crops in two workers"),
    "number of the process": (NumberOfTheProcess, "^Randomness in loader workers"),
    "printed": (changed(lambda image, target: print(image)), "^Type of item 0: found None.*Your code printed"),
    "_len_": (Misspelt, "^Error: .*The class Misspelt has a method _len_: is __len__ meant"),
    "rows repeated": (RowsRepeated, AUGMENTED + "stretched or sheared"),
    "any angle": (transformed("AnyAngle", ANY_ANGLE), AUGMENTED + r"rotated by about \d+ degrees, exp"),
    "nearest": (transformed("Nearest", v2.RandomRotation((-31, -29))), AUGMENTED + "rotated by about (29|30|31) deg"),
    "flipped, any angle": (transformed("Flipped", FLIP_AND_ANY_ANGLE), AUGMENTED + r"rotated by about \d+ degrees"),
    "resized": (transformed("Resized", LARGER), AUGMENTED + r"at about 1\.25 times their size"),
    "sheared": (transformed("Sheared", v2.RandomAffine(0, shear=(20, 20))), AUGMENTED + "stretched or sheared"),
    "interpolated": (ShiftedByHalfAPixel, "^Value of an augmented item: found an image of interpolated values"),
    "brighter": (changed(lambda image, target: (image + 1, target)), "^Value of an item: .*keep the values"),
    "normalised again": (ImagesNormalisedAgain, "^Mutation: your code changed its argument images"),
    "lists emptied": (EmptiesLists, "^Mutation: your code changed its argument images"),
}  # fmt: skip
WRONG = {
    "1.1": WRONG_SHAPES, "1.2": WRONG_STATISTICS, "1.3": WRONG_STANDARDIZE, "1.4": WRONG_SPLITS, "1.5": WRONG_CROPS,
    "1.6": WRONG_TARGETS, "1.7": WRONG_DATASETS,
}  # fmt: skip

NO_ERROR = "the contract asks for no error here"
EQUIVALENT = {
    "1.1": {
        "a Counter is a dict": ["count_shapes, return: dict() -> argument 1"],
    },
    "1.2": {
        NO_ERROR: ["intensity_statistics, if", "intensity_statistics, raise"],
        "float32 keeps seven digits, which are enough; integers are added in 64 bits": [
            f"intensity_statistics, assignment {change}" for change in
            ("3: sum() without dtype", "3: float64 -> float32", "4: float64 -> float32")
        ],
        "mean is a float64 number, so the squares are float64": [
            "intensity_statistics, assignment 4: sum() without dtype"
        ],
    },
    "1.3": {"float32 keeps seven digits, which are enough": ["standardize, return: float64 -> float32"]},
    "1.5": {
        "integers(n) is integers(0, n)": [
            f"random_crop, assignment {number}: integers() without argument 1" for number in (2, 3)
        ],
    },
    "1.7": {
        "another choice or order of quarter turns, or the same one": [
            f"NucleiDataset.__init__, assignment: {change}" for change in
            ("without the first", "items 1 and 2 swapped", "items 2 and 3 swapped", "items 3 and 4 swapped",
             "90 -> 0", "90 -> -90", "180 -> 0", "180 -> -180", "270 -> 0", "270 -> -270")
        ],
        "turn or flip first: both are right": ["NucleiDataset.__init__, self.augmentation: items 1 and 2 swapped"],
        "the order of two seeds does not matter": ["NucleiDataset.__getitem__, assignment: items 1 and 2 swapped"],
        "(-2) ** 62 is 2 ** 62": ["NucleiDataset.__getitem__, assignment: 2 -> -2"],
        "2 ** 61 seeds are plenty": ["NucleiDataset.__getitem__, assignment: 62 -> 61"],
        "tv_tensors.Mask takes arrays, too": ["NucleiDataset.__getitem__, assignment 4: from_numpy() -> argument 1"],
        "the course's masks are int32, which torch can turn": [
            "NucleiDataset.__getitem__, assignment 4: astype() left out",
            "NucleiDataset.__getitem__, assignment 4: int64 -> int32",
        ],
        "the contract has no soft masks, and a float64 holds every id of the course": [
            f"NucleiDataset.__getitem__, assignment 4: {change}" for change in
            ("if else -> if part", "if else -> else part", "condition negated", "condition -> True",
             "condition -> False", "== -> !=", "'f' -> 'f_'", "float64 -> float32")
        ],
        "beside a Mask, a plain tensor is taken for the image": [
            "NucleiDataset.__getitem__, assignment 5: Image() -> argument 1"
        ],
        "tv_tensors.Image is a tensor": ["NucleiDataset.__getitem__, assignment 6: as_subclass() left out"],
        "there is one channel: the first is the last": ["NucleiDataset.__getitem__, assignment 6: 0 -> -1"],
    },
}  # fmt: skip


class TestChecks(CheckTests):
    right, wrong, equivalent = RIGHT, WRONG, EQUIVALENT
    pictured = (r"^Value of (the result|the crop|an augmented|the target of|the (image|mask) window)|^Range of the"
                r"|^Randomness(?!: how often each fifth)")  # fmt: skip


def test_a_half_written_data_set_is_still_to_do():
    class HalfWritten(Base):
        def __getitem__(self, index):
            raise NotImplementedError("Exercise 1.7: __getitem__")

    result = evaluate("1.7", HalfWritten)
    assert (result.status, result.messages) == ("todo", ("Exercise 1.7: __getitem__",))


# The mock of a loader worker behaves like real ones


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
