"""Twelve faults that nucleus segmentation notebooks are known for: this course has none of them.

Where it is cheap, the faulty variant runs through the same test and fails it, which shows that the test would notice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from release_server import release_of
from skimage.draw import disk
from skimage.measure import label
from torch.utils.data import DataLoader, Dataset, Subset

from course_utils.data import DataError, load_data
from course_utils.dataset import NucleiDataset, validation_loader
from course_utils.exploration import intensity_statistics, random_crop, standardize
from course_utils.losses import dice_score, hard_dice_score
from course_utils.metrics import count_matches, f1_score, iou_matrix
from course_utils.plotting import BACKGROUND, label_colours
from course_utils.segmentation import (
    find_best_threshold,
    otsu_watershed,
    predict,
    remove_small,
    watershed_instances,
    watershed_without_rim,
)
from course_utils.targets import boundary_target
from course_utils.unet import UNet, pad_to_multiple

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


def cells() -> np.ndarray:
    """Small round cells of which many touch, with gaps between their ids."""
    mask = np.zeros((64, 80), np.int32)
    centres = [(y, x) for y in (10, 26, 50) for x in (10, 22, 40, 55, 67)]
    for index, centre in enumerate(centres):
        inside = np.zeros_like(mask)
        inside[disk(centre, 7, shape=mask.shape)] = 1
        mask[(inside > 0) & (mask == 0)] = 2 * index + 3
    return mask


def one_hot(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    target = boundary_target(mask).numpy()
    return (target == 1).astype(float), (target == 2).astype(float)


def test_01_the_boundary_belongs_to_the_mask_of_the_watershed():
    mask = cells()
    assert f1_score(watershed_instances(*one_hot(mask)), mask, iou_threshold=0.9) >= 0.99
    assert f1_score(watershed_without_rim(*one_hot(mask)), mask, iou_threshold=0.9) == 0


def test_02_standardized_images_are_float32_on_numpy_2():
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    mean, std = np.float64(image.mean()), np.float64(image.std())
    convolution = torch.nn.Conv2d(1, 1, 3)

    def network_takes(array):
        return convolution(torch.from_numpy(array)[None, None]).dtype == torch.float32

    assert network_takes(standardize(image, mean, std))
    assert network_takes(standardize(image, *intensity_statistics([image])))
    with pytest.raises(RuntimeError, match="same|dtype|type"):
        network_takes((image.astype("float32") - mean) / std)


def test_03_ids_with_gaps_are_no_misses():
    def f1_by_largest_id(prediction, truth):
        return 2 * count_matches(iou_matrix(prediction, truth)) / (prediction.max() + truth.max())

    truth = np.array([[1, 1, 0, 7, 7]])  # what a crop leaves of a larger image
    prediction = label(truth)
    assert f1_score(prediction, truth) == 1.0
    assert f1_by_largest_id(prediction, truth) == pytest.approx(0.444, abs=1e-3)


def test_04_images_are_padded_and_never_cropped():
    def cropped(image):
        height, width = image.shape
        return image[slice(0, -(height % 16)), slice(0, -(width % 16))]

    torch.manual_seed(0)
    model = UNet(base_channels=2)
    for shape in ((64, 64), (64, 70), (1, 33)):
        image = np.random.default_rng(0).random(shape)
        padded, size = pad_to_multiple(image)
        assert size == shape and np.array_equal(padded[: shape[0], : shape[1]], image)
        assert predict(model, image).shape == (1, *shape)
    assert cropped(np.zeros((64, 64))).size == 0


def test_05_the_threshold_is_searched_against_label_images_and_not_against_the_target():
    mask = cells()
    foreground, boundary = one_hot(mask)
    with pytest.raises(ValueError, match="0, 1, 2"):
        find_best_threshold([foreground], [boundary], [boundary_target(mask).numpy()], [0.1, 0.5])
    assert f1_score(watershed_instances(foreground, boundary), boundary_target(mask).numpy()) < 0.2  # what it would see


def test_05_the_two_cut_offs_have_two_names_and_do_not_mix():
    # the prediction of each cell is its left 60 %: a match at an IoU of 0.5, none at 0.75
    truth = np.kron(np.arange(1, 7).reshape(2, 3), np.pad(np.ones((8, 10), int), 2))
    foreground = np.kron(np.ones((2, 3)), np.pad(np.repeat([[0.9, 0.0]], [6, 4], axis=1).repeat(8, axis=0), 2))
    boundary = np.zeros_like(foreground)
    thresholds = [0.1, 0.3, 0.5]
    best, at_half = find_best_threshold([foreground], [boundary], [truth], thresholds, iou_threshold=0.5)
    _, at_three_quarters = find_best_threshold([foreground], [boundary], [truth], thresholds, iou_threshold=0.75)
    assert best == 0.1 and set(at_half.values()) == {1.0} and set(at_three_quarters.values()) == {0.0}


def test_06_the_last_crop_is_reachable_and_a_seed_decides():
    def faulty_start(rng):
        return rng.integers(0, 10 - 8)  # exclusive: the last start never comes

    image = np.arange(100).reshape(10, 10)

    def starts(seed):
        rng = np.random.default_rng(seed)
        return [int(random_crop(image, image, 8, rng)[0][0, 0]) for _ in range(100)]

    assert set(starts(0)) == {10 * y + x for y in range(3) for x in range(3)}
    assert starts(0) == starts(0) != starts(1)
    rng = np.random.default_rng(0)
    assert {int(faulty_start(rng)) for _ in range(100)} == {0, 1}


def test_06_validation_sees_whole_images_and_the_same_pixels_every_time():
    image, mask = np.random.default_rng(0).random((50, 40)), np.ones((50, 40), int)
    loader = validation_loader([image], [mask], boundary_target)
    (first, _), (second, _) = next(iter(loader)), next(iter(loader))
    assert torch.equal(first, second) and np.allclose(first[0, 0, :50, :40], image)


class GeneratorKeptInTheDataset(Dataset):
    def __init__(self, image, size):
        self.image, self.size, self.rng = image, size, np.random.default_rng(0)

    def __getitem__(self, index):
        image, _ = random_crop(self.image, self.image, self.size, self.rng)
        return torch.from_numpy(image)[None], torch.zeros(())


def first_crop_of_each_worker_in_two_epochs(dataset: Dataset) -> list[list[int]]:
    loader = DataLoader(Subset(dataset, [0, 0]), batch_size=1, num_workers=2)
    return [[int(images[0, 0, 0, 0]) for images, _ in loader] for _ in range(2)]


def test_07_every_loader_worker_and_every_epoch_draws_other_crops():
    torch.manual_seed(0)
    image = np.arange(400 * 400).reshape(400, 400).astype(np.float32)
    dataset = NucleiDataset([image], [image.astype(int)], boundary_target, crop_size=8)
    (a, b), (c, d) = first_crop_of_each_worker_in_two_epochs(dataset)
    assert len({a, b, c, d}) == 4
    (a, b), (c, d) = first_crop_of_each_worker_in_two_epochs(GeneratorKeptInTheDataset(image, 8))
    assert a == b == c == d


def test_08_the_score_of_a_right_decision_is_1_however_unsure_and_however_empty():
    def without_the_empty_case(logits, target):
        p = torch.sigmoid(logits)
        return 2 * (p * target).sum() / (p.sum() + target.sum() + 1e-6)

    target = torch.zeros(1, 1, 8, 8)
    nothing = torch.full_like(target, -1e4)
    assert dice_score(nothing, target) == hard_dice_score(nothing, target) == 1
    assert without_the_empty_case(nothing, target) == 0

    target[..., 2:6, 2:6] = 1
    unsure = torch.where(target > 0, 0.4, -0.4)  # right at every pixel
    assert hard_dice_score(unsure, target) == 1
    assert dice_score(unsure, target) < 0.6  # so the soft score is not reported as a result


def test_09_a_colour_belongs_to_an_id_and_no_nucleus_looks_like_background():
    labels = np.zeros((3, 9), int)
    labels[1, 1], labels[1, 4], labels[1, 7] = 1, 7, 5000
    colours = label_colours(labels)
    assert np.allclose(colours[0], BACKGROUND)
    for x in (1, 4, 7):
        assert np.abs(colours[1, x] - BACKGROUND).max() > 0.3
    without_1 = label_colours(np.where(labels == 1, 0, labels))
    assert np.array_equal(without_1[:, 2:], colours[:, 2:])

    by_number_of_ids = colormaps["viridis"].resampled(4).with_extremes(over="black")  # 0 and three nuclei
    assert by_number_of_ids(labels)[1, 7, :3].tolist() == [0, 0, 0]


def test_10_a_failed_download_does_not_block_the_next(tmp_path, make_stardist_folder, monkeypatch):
    folder = make_stardist_folder(tmp_path / "original" / "dsb2018")
    with release_of(folder, tmp_path / "cache", monkeypatch) as server:
        for server.behaviour, reason in (("404", "404"), ("login page", "SHA-256")):
            with pytest.raises(DataError, match=reason):
                load_data("dsb2018")
        server.behaviour = "serve"
        assert len(load_data("dsb2018").train) == 16


def test_11_no_filter_drops_a_nucleus_of_21_pixels():
    truth = np.zeros((40, 40), np.int32)
    truth[10:13, 10:17] = 1  # the smallest nucleus of the training set has 21 pixels
    truth[25:37, 20:35] = 2
    image = np.where(truth > 0, 200.0, 10.0)
    found = otsu_watershed(image, sigma=0.5)
    assert f1_score(found, truth, iou_threshold=0.5) == 1.0
    assert f1_score(remove_small(found, 64), truth) == pytest.approx(2 / 3)  # with the default of libraries
    assert f1_score(watershed_instances(*one_hot(truth)), truth, iou_threshold=0.9) == 1.0


FORBIDDEN = {
    "installs packages in a notebook": r"(?m)^\s*[!%]\s*(pip|conda|mamba|uv)\b|-m\W+pip\W+install",
    "edits site-packages": r"(open|write|copy|replace)\w*\(.*site-packages|getsitepackages",
    "uses torchsummary": r"torchsummary",
}


def code_of(path: Path) -> str:
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", FORBIDDEN)
def test_12_no_notebook_and_no_module(fault):
    sources = [*ROOT.glob("course_utils/**/*.py"), *ROOT.glob("solutions/*.*"), *ROOT.glob("notebooks/*.ipynb")]
    assert len(sources) > 20
    guilty = [path.name for path in sources if re.search(FORBIDDEN[fault], code_of(path))]
    assert guilty == []


def test_12_the_search_finds_what_it_looks_for():
    samples = {
        "installs packages in a notebook": ["!pip install torch", "  %conda install x", '["-m", "pip", "install"]'],
        "edits site-packages": ['open("/usr/lib/python3/site-packages/x.py", "w")', "site.getsitepackages()[0]"],
        "uses torchsummary": ["from torchsummary import summary"],
    }
    assert all(re.search(FORBIDDEN[fault], line) for fault, lines in samples.items() for line in lines)
