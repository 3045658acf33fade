"""The crops, beside what the check of exercise 1.7 proves of the reference; the loaders and whole images."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from course_utils.dataset import FullImageDataset, NucleiDataset, ZoomedDataset, training_loader, validation_loader
from course_utils.targets import binary_target

IMAGE = np.zeros((9, 9))

torch.set_num_threads(1)


def as_tensor(mask: np.ndarray) -> torch.Tensor:
    """A target transform that keeps the mask as it is."""
    return torch.from_numpy(mask.astype(np.int64))


def coordinates(height: int, width: int) -> np.ndarray:
    """An image in which every pixel tells where it comes from; 0 does not occur."""
    return np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)


def coordinate_dataset(height=40, width=50, crop_size=8, **options) -> NucleiDataset:
    """Image and mask hold the same numbers, so a crop shows whether they belong together."""
    mask = coordinates(height, width)
    return NucleiDataset([mask.astype(np.float32)], [mask], as_tensor, crop_size, **options)


# the items


def orientations(window: torch.Tensor) -> list[torch.Tensor]:
    """The eight ways to lay a square down."""
    return [torch.rot90(side, turns) for side, turns in product((window, window.flip(1)), range(4))]


def original_window(crop: torch.Tensor, source: np.ndarray) -> torch.Tensor:
    top, left = divmod(int(crop.min()) - 1, source.shape[1])
    return torch.from_numpy(source[top : top + len(crop), left : left + len(crop)].astype(np.int64))


def test_augmentation_shows_all_eight_orientations_and_moves_no_pixel_to_a_wrong_place():
    torch.manual_seed(0)
    dataset = coordinate_dataset(augment=True)
    seen = set()
    for _ in range(100):
        _, crop = dataset[0]
        window = original_window(crop, dataset.masks[0])
        matches = [i for i, turned in enumerate(orientations(window)) if torch.equal(turned, crop)]
        assert len(matches) == 1
        seen |= set(matches)
    assert seen == set(range(8))


@pytest.mark.parametrize("augment", [False, True])
def test_images_and_masks_are_left_alone_and_may_be_read_only(augment):
    mask = coordinates(20, 20)
    image = mask.astype(np.float32)
    mask.flags.writeable = image.flags.writeable = False
    dataset = NucleiDataset([image], [mask], as_tensor, 8, augment)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            crop, target = dataset[0]
            crop += 1
            target += 1
    assert np.array_equal(image, coordinates(20, 20)) and np.array_equal(mask, coordinates(20, 20))


def test_zoomed_crops_show_nuclei_in_all_sizes_and_half_of_them_as_they_are():
    """A square of 40 pixels in the middle: its side in the crop tells the factor; image and mask agree."""
    mask = np.zeros((200, 200), np.int32)
    mask[80:120, 80:120] = 5
    torch.manual_seed(0)
    dataset = ZoomedDataset([(mask > 0) * 1.0], [mask], as_tensor, crop_size=160, augment=True, zoom=2.0)
    sides = []
    for _ in range(300):
        image, found = dataset[0]
        assert image.shape == (1, 160, 160) and image.dtype == torch.float32 and found.shape == (160, 160)
        assert set(found.unique().tolist()) <= {0, 5}
        assert ((image[0] > 0.5) != (found == 5)).float().mean() < 0.02  # but for the rim
        rows, columns = (found == 5).any(1).nonzero(), (found == 5).any(0).nonzero()
        if len(rows) and 0 < rows.min() and rows.max() < 159 and 0 < columns.min() and columns.max() < 159:
            sides.append(len(rows) / 40)
    as_it_is = np.isclose(sides, 1, atol=0.001).mean()
    assert 0.35 < as_it_is < 0.65
    assert min(sides) < 0.6 and max(sides) > 1.7 and all(0.45 < side < 2.1 for side in sides)


def test_a_window_larger_than_the_image_is_continued_by_reflection_and_ids_stay_exact():
    mask = np.full((64, 70), 2**31 + 7, np.int64)
    torch.manual_seed(0)
    dataset = ZoomedDataset([np.ones((64, 70))], [mask], as_tensor, crop_size=64, zoom=4.0)
    for _ in range(20):
        image, found = dataset[0]
        assert found.unique().tolist() == [2**31 + 7]
        assert torch.allclose(image, torch.ones(1))
    with pytest.raises(ValueError, match="zoom must be a number from 1 to 16, but is 0.5"):
        ZoomedDataset([IMAGE], [IMAGE.astype(int)], as_tensor, crop_size=4, zoom=0.5)


def test_large_ids_and_16_bit_masks_survive_augmentation():
    mask = np.full((9, 9), 65535, np.uint16)
    _, target = NucleiDataset([np.zeros((9, 9))], [mask], as_tensor, 8, augment=True)[0]
    assert target.unique().tolist() == [65535]


# bad input


def test_an_image_smaller_than_the_crop_is_an_error_that_names_both_sizes():
    with pytest.raises(ValueError, match="Image 1 is 20 x 9 pixels.* 16 x 16"):
        NucleiDataset([np.zeros((16, 16)), np.zeros((20, 9))], [np.zeros((16, 16)), np.zeros((20, 9))], as_tensor, 16)


def test_a_crop_as_large_as_the_image_is_the_image():
    assert torch.equal(coordinate_dataset(8, 8)[0][1], torch.from_numpy(coordinates(8, 8)).long())


def test_images_and_masks_that_do_not_belong_together_are_an_error():
    with pytest.raises(ValueError, match="images and masks must have the same length, but have 2 and 1"):
        NucleiDataset([np.zeros((9, 9))] * 2, [np.zeros((9, 9))], as_tensor, 8)
    with pytest.raises(ValueError, match=r"same shape, but have \(9, 9\) and \(9, 10\)"):
        NucleiDataset([np.zeros((9, 9))], [np.zeros((9, 10))], as_tensor, 8)


# randomness


def epoch(dataset, workers=0) -> list[int]:
    """The first pixel of every crop of one epoch in which one image is asked for eight times."""
    loader = DataLoader(torch.utils.data.Subset(dataset, [0] * 8), batch_size=2, num_workers=workers)
    return [int(crop) for _, targets in loader for crop in targets[:, 0, 0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_differ_between_workers_and_epochs_and_are_the_same_for_the_same_seeds(workers):
    def crops(seed, torch_seed):
        torch.manual_seed(torch_seed)
        dataset = coordinate_dataset(400, 500, augment=True, seed=seed)  # enough places to make equal crops unlikely
        return [*epoch(dataset, workers), *epoch(dataset, workers)]

    first = crops(0, 0)
    assert len(set(first)) == 16
    assert crops(0, 0) == first
    assert crops(1, 0) != first
    assert crops(0, 1) != first


# whole images


def test_whole_images_are_padded_by_reflection_and_the_same_at_every_validation():
    mask = coordinates(20, 33)
    dataset = FullImageDataset([mask.astype(np.float32)], [mask], as_tensor)
    image, target = dataset[0]
    assert image.shape == (1, 32, 48) and image.dtype == torch.float32
    assert np.array_equal(target, np.pad(mask, ((0, 12), (0, 15)), mode="reflect"))
    assert torch.equal(image[0].long(), target)
    assert torch.equal(dataset[0][0], image)


def test_the_validation_loader_gives_every_image_once_in_order():
    sizes = [(16, 16), (7, 40), (1, 1), (33, 16)]
    images = [np.full(size, float(index)) for index, size in enumerate(sizes)]
    masks = [np.ones(size, int) for size in sizes]
    batches = list(validation_loader(images, masks, binary_target))
    assert [float(image.mean()) for image, _ in batches] == [0, 1, 2, 3]
    assert [tuple(image.shape[2:]) for image, _ in batches] == [(16, 16), (16, 48), (16, 16), (48, 16)]
    assert all(image.shape == target.shape and len(image) == 1 for image, target in batches)


def test_validation_images_without_a_mask_are_an_error():
    with pytest.raises(ValueError):
        FullImageDataset([np.zeros((9, 9))] * 2, [np.zeros((9, 9), int)], binary_target)


# the training loader


def test_an_epoch_has_the_number_of_crops_asked_for_and_keeps_its_small_last_batch():
    loader = training_loader(coordinate_dataset(), batch_size=4, crops_per_epoch=10)
    assert [len(images) for images, _ in loader] == [4, 4, 2]
    assert len(loader) == 3


def test_an_image_is_drawn_in_proportion_to_its_area():
    torch.manual_seed(0)
    images = [np.zeros((10, 10)), np.ones((30, 10))]
    dataset = NucleiDataset(images, [image.astype(int) for image in images], binary_target, crop_size=8)
    loader = training_loader(dataset, batch_size=50, crops_per_epoch=1000)
    share = np.mean([float(target.mean()) for _, target in loader])
    assert share == pytest.approx(0.75, abs=0.06)  # four standard deviations


def test_no_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert training_loader(coordinate_dataset(), 2, 4, workers=8).num_workers == 3
    assert training_loader(coordinate_dataset(), 2, 4, workers=2).num_workers == 2
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert training_loader(coordinate_dataset(), 2, 4, workers=8).num_workers == 1


@pytest.mark.parametrize(("method", "workers", "kept"), [("spawn", 2, True), ("fork", 2, False), ("spawn", 0, False)])
def test_only_workers_that_start_slowly_are_kept(monkeypatch, method, workers, kept):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    assert training_loader(coordinate_dataset(), 2, 4, workers=workers).persistent_workers == kept


@pytest.mark.parametrize("cuda", [True, False])
def test_batches_for_a_gpu_lie_in_pinned_memory(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert training_loader(coordinate_dataset(), 2, 4).pin_memory == cuda


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_soft_masks_stay_soft(dtype):
    soft = (np.arange(64).reshape(8, 8) / 128).astype(dtype)
    for augment in (False, True):
        target = NucleiDataset([np.zeros((8, 8))], [soft], lambda mask: torch.from_numpy(mask.copy()), 8, augment)[0][1]
        assert sorted(target.double().flatten().tolist()) == soft.ravel().tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NucleiDataset([IMAGE], [IMAGE], as_tensor, 0), "crop_size must be .* at least 1, but is 0"),
        (lambda: NucleiDataset([IMAGE], [IMAGE], as_tensor, 2.0), "crop_size must be a whole number"),
        (lambda: NucleiDataset([IMAGE], [IMAGE], as_tensor, np.uint8(4)), "make it an int first"),
        (lambda: NucleiDataset([IMAGE], [IMAGE], as_tensor, 4, seed=None), "seed must be a whole number"),
        (lambda: NucleiDataset(iter([IMAGE]), [IMAGE], as_tensor, 4), "images must be a list"),
        (lambda: NucleiDataset([IMAGE[None]], [IMAGE], as_tensor, 4), r"images\[0\] .* shape \(1, 9, 9\)"),
        (lambda: FullImageDataset([IMAGE], [IMAGE[1:]], as_tensor), r"have \(9, 9\) and \(8, 9\)"),
        (lambda: FullImageDataset([IMAGE], [], as_tensor), "same length, but have 1 and 0"),
        (lambda: FullImageDataset([IMAGE], [IMAGE], as_tensor, 0), "multiple must be .* but is 0"),
        (lambda: training_loader(NucleiDataset([], [], as_tensor, 4), 1, 1), "no images"),
        (lambda: training_loader(NucleiDataset([IMAGE], [IMAGE], as_tensor, 4), 0, 1), "batch_size must .* is 0"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_was_found(make, message):
    with pytest.raises(ValueError, match=message):
        make()
