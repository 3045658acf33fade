"""The inputs drawn from a seed, with which solutions are tried: on both sides the same (see `observations`).

They keep away from what rounding could decide, and hold what mistakes need to show: ids that small types cannot hold,
sizes that do not fit, instances that touch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.checks import notebook_01, notebook_03, notebook_04

Rng = np.random.Generator


def normal_tensor(rng: Rng, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def binary_tensor(rng: Rng, shape: tuple) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 2, shape).astype(np.float32))


def crop_inputs(rng: Rng) -> list[tuple]:
    """Image, mask, size and number of draws; enough of them to see every place of small images."""
    size, first_id = int(rng.integers(3, 6)), int(rng.integers(1, 60_000))
    cases = [((size + 2, size + 4), np.float32, np.int32, 2000), ((size + 2, size + 1), np.uint8, np.uint16, 200),
             ((size + 1, 600), np.float32, np.int32, 200), ((size, size), np.float64, np.int64, 1)]  # fmt: skip
    return [(*notebook_01._positions(shape, image, mask, first_id), size, n) for shape, image, mask, n in cases]


def dataset_inputs(rng: Rng) -> tuple[list, list, int]:
    """Images and masks without equal pixels, and the size of the crops: with 1, 2, 2 and 4 places."""
    size, first_id = int(rng.integers(5, 8)), int(rng.integers(1, 40_000))
    pairs = [notebook_01._positions((size + i // 2, size + i % 2), dtype, "i4", first_id + 40_000 * i)
             for i, dtype in enumerate(["f4", "f8", "f4", "f4"])]  # fmt: skip
    return [image for image, _ in pairs], [mask for _, mask in pairs], size


TRANSFORMS = (notebook_01._float_target, notebook_01._class_target)
EACH, LARGER = [0, 1, 2, 3] * 50, [2, 3] * 60  # indices to draw, often enough to see each place and orientation


def bootstrap_inputs(rng: Rng) -> list[tuple]:
    """Pairs of scores, a seed, and the number of draws and the level: differences without ties, and no draw is rare."""
    cases = []
    for n, options in zip(rng.integers(9, 30, 3).tolist(), ((), (1000, 0.5), (3000, 0.8)), strict=True):
        other_scores = rng.random(n)
        cases.append(((other_scores + rng.gamma(0.5, 0.1, n) - 0.03, other_scores), int(rng.integers(2**31)), options))
    return cases


def noise_inputs(rng: Rng) -> list[tuple[np.ndarray, float, int]]:
    """Images, one of them dark, with deviations of the noise and seeds."""
    shape = tuple(rng.integers(60, 90, 2))
    levels = rng.uniform(0, 0.05), rng.uniform(0.3, 0.7), rng.uniform(0.95, 1)
    images = [*(np.full(shape, level, np.float32) for level in levels), rng.random(shape)]
    return [(image, float(rng.uniform(0.05, 0.4)), int(rng.integers(2**31))) for image in images]


def pair_inputs(rng: Rng) -> tuple[list[np.ndarray], int, float]:
    """Two images whose grey values tell where each pixel comes from, through noise of a small deviation, and a size."""
    size = int(rng.integers(5, 8))
    values = np.arange((size + 1) ** 2).reshape(size + 1, size + 1) * 0.01 + 0.005
    return [values.astype(np.float32), values[:, :size].copy()], size, float(rng.uniform(2e-4, 6e-4))


def training_inputs(rng: Rng) -> tuple:
    """A network, a loader with an uneven last batch, and a loss and a metric that tell their arguments apart."""
    torch.manual_seed(int(rng.integers(2**31)))  # a loader draws numbers, too
    number, size = int(rng.integers(5, 8)), int(rng.integers(2, 5))
    images = normal_tensor(rng, number * size + 1, 1, 4, 4)
    images[-1] *= 5
    targets = (images + 0.5 * normal_tensor(rng, *images.shape) > 0).float()
    a, b = rng.uniform(0.5, 1.5, 2).tolist()
    loader = DataLoader(TensorDataset(images, targets), batch_size=number)
    return (notebook_03.Network(), loader, lambda logits, targets: ((a + targets) * (logits - b * targets) ** 2).mean(),
            lambda logits, targets: (logits.sigmoid() * (b + targets)).mean())  # fmt: skip


class NormalizingModel(notebook_04.PointModel):
    """Batch normalisation and dropout, which are at work in training mode only."""

    def __init__(self, rng: Rng, channels: int, kernel_size: int = 1):
        super().__init__(channels, kernel_size)
        self.norm = nn.BatchNorm2d(channels)
        with torch.no_grad():
            for name, value in self.state_dict().items():
                if value.ndim:
                    value.copy_(0.7 * normal_tensor(rng, *value.shape) if "var" not in name else 1 + value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(super().forward(x)))


def label_pair(rng: Rng, dtype: Any = np.int32, offset: int = 0, unit: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth: shifted, and some instances missing, extra, split or merged. Ids are offset + k * unit."""
    heights, widths = rng.integers(4, 10, 4), rng.integers(4, 10, 5)
    columns = np.repeat(2 * np.arange(5), widths) + np.concatenate([np.arange(width) > 2 for width in widths])
    halves = 10 * np.repeat(np.arange(4), heights)[:, None] + columns  # of 20 instances
    labels = []
    for shift in rng.integers(0, 3, 2):
        # some ids of an image differ by 1, and some are those of the other image
        ids = (2 * rng.permutation(np.arange(1, 30))[:20, None] + [0, 1]) * unit + offset
        ids[:, 1] = np.where(rng.random(20) < 0.8, ids[:, 0], ids[:, 1])
        ids[rng.random(20) < 0.2] = 0
        shifted = np.pad(halves, ((shift, 0), (shift, 0)), mode="edge")[: len(halves), : len(columns)]
        labels.append(ids.ravel()[shifted].astype(dtype))
    return labels[0], labels[1]


def label_pairs(rng: Rng) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of several types, with ids that smaller types can't hold; some are empty, all instance, many or large."""
    pairs = [label_pair(rng, *case) for case in ((), (np.uint16, 0, 256), (np.int32, 2**24), (np.int64, 0, 2**16))]
    prediction, truth = label_pair(rng, np.uint8)
    empty, many, two = prediction * 0, np.zeros((40, 30), np.int32), np.zeros((40, 30), np.int32)
    many[::2, ::2], two[2:20], two[20:] = rng.permutation(300).reshape(20, 15) + 1, 5, 3
    full = np.kron([[3, 9], [7, 2]], np.ones(rng.integers(3, 9, 2), int))
    large = np.zeros((2, 260, 300), np.uint8)
    large[0, : rng.integers(250, 256), :290], large[1, 1:257, : rng.integers(270, 290)] = 3, 7
    return [*pairs, (truth, prediction), (prediction, empty), (empty, truth), (empty, empty), (*large,), (many, two),
            (full, full.max() - full), (full, full * (full > 3))]  # fmt: skip


def bars(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Bars with a seed at each end, a ridge of the boundary and, elsewhere, the faintest foreground.

    Both are two pixels wide and no height occurs twice, so that 4 and 8 neighbours give the same instances.
    """
    foreground, boundary = np.zeros((2, 30, 40))
    for top in (1, 8, 15, 22):
        bar, width = slice(top, top + int(rng.integers(3, 6))), int(rng.integers(26, 39))
        ridge, faint = sorted(rng.choice(np.arange(6, width - 7, 4), 2, replace=False))[:: rng.choice([-1, 1])]
        for columns, f, b in ((slice(1, width), 0.5, 0.2), (np.r_[1:4, width - 3 : width], 0.95, 0.02),
                              (slice(ridge, ridge + 2), 0.6, 0.4), (slice(faint, faint + 2), 0.28, 0.25)):  # fmt: skip
            foreground[bar, columns] = f
            boundary[bar, columns] = b + rng.uniform(0, 0.02, boundary[bar, columns].shape)
    return foreground, boundary


def patches(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Uniform patches, some with a nucleus inside: sums and differences on both sides of each threshold, or exact."""
    foreground, boundary = np.zeros((2, 30, 40), np.float32)
    exact = [(0.25, 0.25), (0.75, 0.25), (0.5, 0.25), (1.0, 0.0), (0.875, 0.125)]
    for number, cell in enumerate(rng.permutation(20)):
        row, column = 1 + 7 * (cell // 5), 1 + 8 * (cell % 5)
        total, difference = rng.choice([0.3, 0.44, 0.56, 0.8, 0.99]), rng.choice([-0.6, 0.13, 0.27, 0.43, 0.57, 0.77])
        share = np.clip(difference / total, -1, 1)
        pair = exact[number] if number < 5 else (total * (1 + share) / 2, total * (1 - share) / 2)
        for maps, value, centre in zip((foreground, boundary), pair, (0.9, 0.02), strict=True):
            maps[row : row + 4, column : column + 6] = value
            maps[row + 1 : row + 3, column + 1 : column + 3] = centre if number % 3 == 0 else value
    return foreground, boundary
