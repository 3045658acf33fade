"""What solutions of notebooks 06 to 08 do with inputs that nobody knows before: see `observations`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from course_utils.exercises.checks import notebook_01, notebook_06
from course_utils.exercises.checks.notebook_08 import COLUMNS
from workshop.grade.judge import inputs as draw
from workshop.grade.judge.observing import plain, raised, use

Rng = np.random.Generator


# Notebook 06


def observe_multiclass_dice_loss(multiclass_dice_loss: Callable, rng: Rng) -> list:
    found = []
    for n, classes, height, width in [*rng.integers((1, 2, 3, 3), (4, 6, 8, 8), (4, 4)).tolist(), (2, 3, 4, 5)]:
        seed, absent = int(rng.integers(2**31)), [(n - 1, classes - 1)] * (classes > 2)
        for pair in (notebook_06.logits_and_target(seed, n, classes, height, width, these) for these in ([], absent)):
            logits, target = pair[0].requires_grad_(), pair[1]
            loss = multiclass_dice_loss(logits, target)
            gradient = torch.autograd.grad(loss * logits.numel(), logits)
            found.append([loss.double(), gradient, logits.detach().clone(), target.clone()])
    return found


def observe_class_weights(class_weights: Callable, rng: Rng) -> list:
    found = []
    for n_classes in (3, *rng.integers(2, 6, 4).tolist()):
        shares = rng.uniform(0.2, 1, n_classes)
        for absent in ([], [int(rng.integers(n_classes))]):
            shares[absent] = 0
            targets = notebook_06.random_targets(int(rng.integers(2**31)), *shares)
            weights = class_weights(targets, *[n_classes] * (n_classes != 3))
            present = weights[shares > 0].double()  # that of an absent class may be any
            found.append([str(weights.dtype), list(weights.shape), present / present.mean(), targets])
            found.append([float(weights.mean()), bool(weights.isfinite().all()), float(weights.min()) >= 0])
    return found


def observe_paired_bootstrap(paired_bootstrap: Callable, rng: Rng) -> list:
    """For each case the results with two seeds, the first of them twice, with other global random states."""
    found = []
    for pair, seed, options in draw.bootstrap_inputs(rng):
        runs = []
        for noise, own in enumerate((seed, seed, seed + 1)):
            notebook_01._seed_globally(noise)
            torch.manual_seed(noise)
            copies = [kind(scores) for kind, scores in zip((list, np.array), pair, strict=True)]
            result = paired_bootstrap(*copies, np.random.default_rng(own), *options)
            runs.append([[type(value).__name__ for value in result], list(result), list(map(np.array, copies))])
        found.append(runs)
    lengths = [(0, 0), (1, 3), (3, 1), tuple(rng.permutation([4, 7]).tolist())]
    pairs = [[np.linspace(0.2, 0.8, length) for length in both] for both in lengths]
    return [found, [raised(partial(paired_bootstrap, *pair, np.random.default_rng(0))) for pair in pairs]]


# Notebook 07


def observe_add_noise(add_noise: Callable, rng: Rng) -> list:
    """Noisy images and their arguments: twice the same generator, with other global states, then other noise."""
    found = []
    for image, sigma, seed in draw.noise_inputs(rng):
        generator, runs = np.random.default_rng(seed), []
        for number, source in enumerate((generator, generator, np.random.default_rng(seed))):
            notebook_01._seed_globally(number)
            torch.manual_seed(number)
            runs.append(plain(add_noise(image, sigma, source)))
        found.append([runs, image])
    return found


def observe_psnr(psnr: Callable, rng: Rng) -> list:
    """Values, and the arguments, which must not change."""
    found = []
    for dtype, top in ((np.float32, 1), (np.float64, 1), (np.uint8, 256), (np.uint8, 256), (np.uint16, 65536)):
        images = [(top * rng.random(rng_shape)).astype(dtype) for rng_shape in [tuple(rng.integers(3, 9, 2))] * 2]
        ranges = [] if top == 1 and rng.integers(2) else [float(rng.uniform(0.2, 3) * top)]
        found += [use(psnr, *images, *ranges), psnr(images[0], images[0].copy())]
    return found


def observe_NoisyPairDataset(NoisyPairDataset: Callable, rng: Rng) -> list:
    images, size, sigma = draw.pair_inputs(rng)

    def items(noise: int = 0, **options: object) -> list:
        torch.manual_seed(0)
        notebook_01._seed_globally(noise)
        dataset = NoisyPairDataset(images, sigma, **{"crop_size": size} | options)
        return [len(dataset), [list(dataset[index]) for index in [0, 1] * 60]]

    runs = [items(), items(1, seed=0, clean_target=False), items(clean_target=True), items(seed=1)]
    torch.manual_seed(0)
    level = NoisyPairDataset([np.full((256, 256), 0.02, np.float32)], 0.1)[0]
    return [plain(runs), images, list(level)]


# Notebook 08


def _label_images(rng: Rng) -> list[np.ndarray]:
    """Those of `label_pairs`, with ids below 10^6: scikit-image takes memory for each number up to the largest."""
    return [(one.astype(np.int64) % 999_983).astype(one.dtype) for pair in draw.label_pairs(rng) for one in pair]


def observe_median_diameter(median_diameter: Callable, rng: Rng) -> list:
    return [use(median_diameter, labels) for labels in _label_images(rng)]


def observe_measure_instances(measure_instances: Callable, rng: Rng) -> list:
    """The columns of each table, numbers as float64 except the ids, and the arguments, which must not change."""
    found, types = [], [(np.uint8, 256), (np.uint16, 65536), (np.float32, 1)]
    for number, labels in enumerate(_label_images(rng)):
        dtype, top = types[number % 3]
        image, sizes = (top * rng.random(labels.shape)).astype(dtype), rng.uniform(0.1, 4, int(number % 4 > 0)).tolist()
        table = measure_instances(labels, image, *sizes)
        columns = [table[column].to_numpy() for column in COLUMNS]
        columns[1:-1] = [values.astype(np.float64) for values in columns[1:-1]]
        columns[0] = columns[0].astype(np.int64) if columns[0].dtype.kind in "iu" else columns[0]
        found.append([len(table), columns if len(table) else [], labels, image])
    shapes = [((4, 6), (6, 4)), ((4, 6), (4, 5)), ((4, 6), (1, 6))]
    calls = (partial(measure_instances, np.ones(a, np.int32), np.ones(b)) for a, b in shapes)
    return [*found, [raised(call) for call in calls]]
