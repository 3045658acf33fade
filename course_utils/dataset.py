"""Batches of images of different sizes (notebook 01): random crops to train on, whole images to validate on.

An argument that is not what its description says is a `ValueError`, which says what was found.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_utils.arguments import check_arguments, check_crop_fits
from course_utils.exploration import pad_to_size, random_crop
from course_utils.unet import pad_to_multiple

TargetTransform = Callable[[np.ndarray], torch.Tensor]


class NucleiDataset(Dataset):
    """Random crops of images and their targets.

    Args:
        images: 2-D arrays `(H, W)`, already normalised; sizes may differ, none smaller than the crop.
        masks: label images, one for each image, of the same shape.
        target_transform: turns a mask `(S, S)` into a target tensor, for example `binary_target`.
        crop_size: side S of the square crops in pixels.
        augment: also flip and rotate by multiples of 90 degrees, image and mask alike.
        seed: together with torch's own seed it decides which crops are drawn.

    An item is `(image, target)`: a float32 tensor `(1, S, S)` and `target_transform` of the mask in the same window.
    Asking again for the same index gives another crop. The random numbers come from torch's generator, which
    `DataLoader` seeds differently in every worker and every epoch; a NumPy generator kept in the dataset would be
    copied into each worker and repeat the same crops there.

    >>> from course_utils.targets import binary_target
    >>> dataset = NucleiDataset([np.zeros((64, 80))], [np.zeros((64, 80), int)], binary_target, crop_size=32)
    >>> [tuple(part.shape) for part in dataset[0]]
    [(1, 32, 32), (1, 32, 32)]
    """

    def __init__(self, images, masks, target_transform, crop_size=256, augment=False, seed=0):
        check_arguments(images=images, masks=masks, values=False)
        check_arguments(crop_size=crop_size, seed=seed)
        check_crop_fits(images, crop_size)
        self.images = images
        self.masks = masks
        self.target_transform = target_transform
        self.crop_size = crop_size
        self.seed = seed
        self.crop = random_crop
        quarter_turns = [v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]
        self.augmentation = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomChoice(quarter_turns)]) if augment else None

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, int(torch.randint(2**62, ()))])
        image, mask = self.crop(self.images[index], self.masks[index], self.crop_size, rng)
        image = torch.from_numpy(image.astype(np.float32))[None]
        if self.augmentation is not None:
            mask = torch.from_numpy(mask.astype(np.float64 if mask.dtype.kind == "f" else np.int64))[None]
            # tv_tensors tell the transform which is the image and which the mask, so that both turn the same way
            image, mask = self.augmentation(tv_tensors.Image(image), tv_tensors.Mask(mask))
            image, mask = image.as_subclass(torch.Tensor), mask[0].numpy()
        return image, self.target_transform(mask)


class ZoomedDataset(NucleiDataset):
    """Random crops as of `NucleiDataset`, half of them shrunk or enlarged: as if taken at another magnification.

    A network that has seen nuclei of one size only misses them at another. For each crop, with a probability of one
    half, a larger or smaller window is cut and scaled to the crop's size: the image linearly, the mask to the nearest
    pixel, and before `target_transform` sees it, so boundaries stay thin. Small images are continued by reflection.

    Args:
        zoom: the largest factor; its inverse is the smallest one. All steps between, on a logarithmic scale, are
            equally likely.

    The other arguments, and the items, are those of `NucleiDataset`.

    >>> from course_utils.targets import boundary_target
    >>> dataset = ZoomedDataset([np.zeros((64, 80))], [np.zeros((64, 80), int)], boundary_target, crop_size=64)
    >>> [tuple(part.shape) for part in dataset[0]]
    [(1, 64, 64), (64, 64)]
    """

    def __init__(self, images, masks, target_transform, crop_size=256, augment=False, seed=0, zoom=2.0):
        super().__init__(images, masks, target_transform, crop_size, augment, seed)
        check_arguments(zoom=zoom)
        self.crop = partial(_zoomed_crop, zoom)


def _zoomed_crop(zoom: float, image: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator) -> tuple:
    """`random_crop`, half of the time of a window of another size, scaled to `size`."""
    if rng.random() < 0.5:
        return random_crop(image, mask, size, rng)
    side = max(1, round(size * zoom ** rng.uniform(-1, 1)))
    image, mask = random_crop(pad_to_size(image, side), pad_to_size(mask, side), side, rng)
    return _resized(image, size, "bilinear"), _resized(mask, size, "nearest-exact")


def _resized(array: np.ndarray, size: int, mode: str) -> np.ndarray:
    """A window scaled to `size` x `size`; shrunk images are smoothed first, labels stay labels."""
    tensor = torch.from_numpy(array.astype(np.float64))[None, None]  # labels up to 2**53 are exact
    return interpolate(tensor, (size, size), mode=mode, antialias=mode == "bilinear")[0, 0].numpy().astype(array.dtype)


class FullImageDataset(Dataset):
    """Whole images and their targets, padded to a size the network accepts: the same pixels at every validation.

    Args:
        images: 2-D arrays `(H, W)`, already normalised.
        masks: label images of the same shapes.
        target_transform: turns a mask into a target tensor.
        multiple: sides are padded by reflection to a multiple of this.

    An item is `(image, target)`: float32 `(1, H', W')` and the target of the mask, padded in the same way.
    Images differ in size, so load them with `batch_size=1`.
    """

    def __init__(self, images, masks, target_transform: TargetTransform, multiple: int = 16):
        check_arguments(images=images, masks=masks, values=False)
        self.items = []
        for image, mask in zip(images, masks, strict=True):
            image, _ = pad_to_multiple(image, multiple)
            mask, _ = pad_to_multiple(mask, multiple)
            self.items.append((torch.from_numpy(image.astype(np.float32))[None], target_transform(mask)))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def training_loader(dataset: NucleiDataset, batch_size: int, crops_per_epoch: int, workers: int = 0) -> DataLoader:
    """Batches of random crops; an image is drawn in proportion to its area, so every pixel is equally likely.

    Args:
        dataset: the crops.
        batch_size: crops in a batch.
        crops_per_epoch: crops in an epoch; with random crops the length of an epoch is a matter of definition.
        workers: loader processes, at most one for each core; 0 loads in this process. Where new processes are not
            forked (Windows, macOS, Python 3.14), they import what they need: a dataset class of this package, but not
            one defined in a notebook.
    """
    check_arguments(batch_size=batch_size, crops_per_epoch=crops_per_epoch, workers=workers)
    if len(dataset) == 0:
        raise ValueError("The dataset holds no images, so there is nothing to load.")
    workers = min(workers, os.cpu_count() or 1)
    # Forked processes start at once, so each epoch gets new ones: seeded anew, they draw the same crops when a
    # training is resumed. Others need seconds to import torch, and are kept.
    keep = workers > 0 and multiprocessing.get_start_method() != "fork"
    areas = [image.size for image in dataset.images]
    sampler = WeightedRandomSampler(areas, num_samples=crops_per_epoch, replacement=True)
    return DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=workers, persistent_workers=keep,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def validation_loader(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], target_transform: TargetTransform, multiple: int = 16
) -> DataLoader:
    """Whole, padded images one by one, always in the same order."""
    return DataLoader(FullImageDataset(images, masks, target_transform, multiple), batch_size=1)
