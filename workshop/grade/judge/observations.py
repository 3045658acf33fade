"""What a solution does with inputs that nobody knows before: the confirmation of every "passed".

    found = observe("count_shapes", submission, seed)    # beside the student's code
    text = confirm("count_shapes", found, seed)          # elsewhere (`confirmation`): empty if it is right

For each exercise `observe_...` draws inputs, lets the object work on them, and returns what came out (those of
notebooks 06 to 08 are in `observations_06_to_08`). It compares nothing, because nothing is believed that is decided
beside the student's code. With a seed that is new in each run, no table of answers fits. Two float32 numbers may nearly
tie in the gradient of a `UNet`, at one of 10^5 seeds: a difference counts if it shows for a second seed, too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from course_utils.exercises.checks import notebook_01, notebook_03, notebook_05
from course_utils.exercises.checks.notebook_02 import count, set_parameters
from course_utils.exercises.sandbox import preserved_state
from course_utils.metrics import iou_matrix
from course_utils.targets import boundary_target
from workshop.grade.judge import inputs as draw
from workshop.grade.judge import observations_06_to_08
from workshop.grade.judge.observing import plain, raised, use

Rng = np.random.Generator


def observe(name: str, submission: Any, seed: int) -> list:
    """What the object of the exercise with this name does with inputs drawn from the seed, as plain values.

    Random states and torch's modes are restored. What the object raises gets out.
    """
    with preserved_state(), torch.enable_grad():
        torch.manual_seed(seed)
        observer = globals().get(f"observe_{name}") or getattr(observations_06_to_08, f"observe_{name}")
        return plain(observer(submission, np.random.default_rng(seed)))


# Notebook 01


def observe_count_shapes(count_shapes: Callable, rng: Rng) -> list:
    low, high = rng.integers(2, 9), rng.integers(9, 20)
    shapes = [(low, high), (high, low), (high, high), (1, low), (int(rng.integers(257, 300)), high)]
    numbers = [*rng.integers(1, 6, 4), rng.integers(257, 400)]
    images = [np.zeros(shape, np.uint8) for shape, n in zip(shapes, numbers, strict=True) for _ in range(n)]
    images = [images[place] for place in rng.permutation(len(images))]
    return [count_shapes(images), len(images), count_shapes(images[:2]), count_shapes([])]


def observe_intensity_statistics(intensity_statistics: Callable, rng: Rng) -> list:
    sizes, near = rng.integers(2, 12, (3, 2)), rng.uniform(2500, 3500)
    found = [use(intensity_statistics, images) for images in (
        [rng.random((2, 3)) * 10],
        [rng.integers(0, 256, size, dtype=np.uint8) // (1 + i) for i, size in enumerate(sizes)],
        [rng.integers(9, 65536, size).astype(np.uint16) for size in sizes],
        [rng.normal(near, 1 + i, (40, 30 + i)).astype(np.float32) for i in range(2)],
        [rng.normal(3 * i, 1 + i, size) for i, size in enumerate(sizes)],
    )]  # fmt: skip
    return [*found, [type(value).__name__ for pair, _ in found for value in pair]]


def observe_standardize(standardize: Callable, rng: Rng) -> list:
    mean, std, shape = rng.uniform(20, 90), rng.uniform(2, 30), rng.integers(3, 9, 2)
    return [use(standardize, image, *numbers) for image, *numbers in (
        (rng.random(shape, dtype=np.float32), mean, std),
        (rng.random(shape, dtype=np.float32), np.float64(mean / 99), np.float64(std / 99)),
        (rng.random(shape), -mean, std),
        (rng.integers(0, 256, shape, dtype=np.uint8), np.float64(mean), np.float64(std)),
        (rng.integers(0, 65536, shape).astype(np.uint16), int(mean * 300), int(std)),
    )]  # fmt: skip


def observe_split_train_val(split_train_val: Callable, rng: Rng) -> list:
    found = []
    for every in (None, *rng.integers(2, 12, 3), 1, 100):
        samples = [SimpleNamespace(image=np.zeros(2), number=int(n)) for n in rng.permutation(rng.integers(41, 80))]
        parts = split_train_val(samples) if every is None else split_train_val(samples, every=int(every))
        found.append([[part[place].number for place in range(len(part))] for part in (*parts, samples)])
    return [*found, [list(part) for part in split_train_val([])]]


def observe_random_crop(random_crop: Callable, rng: Rng) -> list:
    found = []
    for image, mask, size, n in draw.crop_inputs(rng):
        runs = []
        for number in (n, n // 10 + 1):  # with other global random states
            notebook_01._seed_globally(number)
            generator = np.random.default_rng(n)
            crops = [plain(list(random_crop(image, mask, size, generator))) for _ in range(number)]
            runs.append([np.stack(windows) for windows in zip(*crops, strict=True)])
        errors = [raised(partial(random_crop, image, mask, side + 1, rng), text=True) for side in mask.shape]
        found.append([runs, [image, mask], errors])
    return found


def observe_binary_target(binary_target: Callable, rng: Rng) -> list:
    return [use(binary_target, mask) for pair in draw.label_pairs(rng) for mask in pair]


def observe_NucleiDataset(NucleiDataset: Callable, rng: Rng) -> list:
    images, masks, size = draw.dataset_inputs(rng)

    def items(transform: Callable, indices: Any, noise: int = 0, **options: Any) -> list:
        torch.manual_seed(0)
        notebook_01._seed_globally(noise)
        dataset = NucleiDataset(images, masks, transform, **{"crop_size": size} | options)
        return [len(dataset), [dataset[index] for index in indices]]

    cropped = [items(transform, draw.EACH) for transform in draw.TRANSFORMS]
    augmented = [items(transform, draw.LARGER, 1, augment=True) for transform in draw.TRANSFORMS]
    again = items(draw.TRANSFORMS[0], draw.LARGER, 2, augment=True, seed=0)
    other = items(draw.TRANSFORMS[0], draw.EACH, seed=1)
    image, mask = notebook_01._positions((256, 256), np.float32)
    default = NucleiDataset([image], [mask], draw.TRANSFORMS[0])[0]
    return [cropped, augmented, again, other, [images, masks], default]


# Notebook 02


def _run_network(model: nn.Module, rng: Rng, *inputs: torch.Tensor) -> list:
    """What does not depend on how weights are stored: their number, and results if all of them are one number."""
    model(*inputs)  # some make their weights now
    found, constant = [count(model)], float(rng.uniform(0.05, 0.15))
    for sign, training in ((-1, True), (-1, False), (1, True), (1, False)):
        set_parameters(model.train(training), sign * constant)
        found.append(use(model, *inputs))
    # with positive numbers no ReLU is near its corner, where rounding would decide
    positive = [value.abs().requires_grad_() for value in inputs]
    result = model(*positive)
    weights = torch.linspace(0.5, 1.5, result.numel()).reshape(result.shape)
    return [*found, result, torch.autograd.grad((result * weights).sum(), positive, allow_unused=True)]


def observe_ConvBlock(ConvBlock: Callable, rng: Rng) -> list:
    sizes = rng.integers(1, 7, (3, 2)).tolist()
    return [_run_network(ConvBlock(a, b), rng, draw.normal_tensor(rng, 2, a, *rng.integers(5, 9, 2))) for a, b in sizes]


def observe_UpBlock(UpBlock: Callable, rng: Rng) -> list:
    found = []
    for a, b, height, width in rng.integers(2, 7, (3, 4)).tolist():
        x, skip = draw.normal_tensor(rng, 2, a, height, width), draw.normal_tensor(rng, 2, b, 2 * height, 2 * width)
        found.append(_run_network(UpBlock(a, b), rng, x, skip))
    return found


def observe_UNet(UNet: Callable, rng: Rng) -> list:
    found = []
    for depth in (1, 2, 3):
        a, b, base = rng.integers(1, 4, 3).tolist()
        height, width = rng.integers(1, 4, 2) * 2**depth
        model = UNet(in_channels=a, out_channels=b, base_channels=base, depth=depth)
        found.append(_run_network(model, rng, draw.normal_tensor(rng, 2, a, height, width)))
        for shape in ((height + 2 ** (depth - 1), width), (height, width + 1)):
            found.append(raised(partial(model, torch.zeros(1, a, *shape))))
    for model in (UNet(base_channels=2), UNet(depth=1)):  # the defaults
        found += [list(model(torch.zeros(1, 1, 16, 16)).shape), count(model)]
    return found


def observe_count_parameters(count_parameters: Callable, rng: Rng) -> list:
    a, b, c = rng.integers(2, 40, 3).tolist()
    shared, frozen, tied = nn.Linear(a, b), nn.Linear(b, c), nn.Sequential(nn.Linear(c, c), nn.Linear(c, c))
    frozen.weight.requires_grad = False
    tied[1].weight, root = tied[0].weight, nn.Module()
    root.weight, root.scale, root.inner = nn.Parameter(torch.zeros(a, b, 2)), nn.Parameter(torch.tensor(1.0)), frozen
    models = [nn.Linear(a, c), nn.Sequential(nn.Conv2d(b, c, 3), nn.ReLU(), nn.Linear(a, 1)), nn.BatchNorm2d(b),
              nn.Sequential(shared, shared), frozen, tied, root, nn.ReLU()]  # fmt: skip
    return [[count_parameters(model), [w.requires_grad for w in model.parameters()]] for model in models]


def observe_pad_to_multiple(pad_to_multiple: Callable, rng: Rng) -> list:
    long, short = rng.integers(17, 47, 2).tolist(), rng.integers(2, 9, 2).tolist()
    found = []
    for shape, dtype in ((long, np.float32), (short, np.uint16), ((1, short[0]), np.int32), ((short[1], 1), np.uint8),
                         ((16, long[0]), np.uint8), ((32, 16), np.float64)):  # fmt: skip
        image = rng.integers(1, 256, shape) * (1 if dtype == np.uint8 else 250.5)
        found.append(use(pad_to_multiple, image.astype(dtype)))
        found.append(use(pad_to_multiple, image.astype(dtype), multiple=int(rng.integers(1, 40))))
    return found


# Notebook 03


def observe_binary_cross_entropy(binary_cross_entropy: Callable, rng: Rng) -> list:
    found = []
    for shape, size in itertools.product([(2, 1, 3, 4), (7,), (3, 5)], [2, 20, 90, 1e4]):
        logits = (size * draw.normal_tensor(rng, *shape)).clamp(-1e4, 1e4).requires_grad_()
        for target in (draw.binary_tensor(rng, shape), draw.normal_tensor(rng, *shape).sigmoid()):
            with notebook_03.TorchsOwn() as torchs_own:
                loss = binary_cross_entropy(logits, target)
            gradient = torch.autograd.grad(loss * loss.new_tensor(logits.numel()), logits)
            found.append(plain([loss.double(), gradient, logits, target, torchs_own.called]))
    shapes = [((4, 1, 3, 3), (4, 3, 3)), ((3, 4), (4,)), ((2, 1), (1, 2))]
    return [*found, [raised(partial(binary_cross_entropy, *map(torch.ones, pair))) for pair in shapes]]


def observe_dice_score(dice_score: Callable, rng: Rng) -> list:
    found = []
    for shape in rng.integers(1, 6, (4, 4)).tolist():
        target = draw.binary_tensor(rng, shape)
        target[..., 0, 0] = 1  # no map is empty yet
        found.append(use(dice_score, 2 * draw.normal_tensor(rng, *shape), target))
    nothing, target = torch.full((2, 3, 3, 4), -1e4), draw.binary_tensor(rng, (2, 3, 3, 4))
    target[:, 0] = 0
    target[:, 1:, 0, 0] = 1
    logits = torch.where(draw.binary_tensor(rng, target.shape) > 0, 1e4, nothing)
    logits[0, 0] = -1e4
    pairs = [(nothing, target), (logits, target), (nothing, target * 0), (-nothing, target * 0), (-nothing, target)]
    found += [use(dice_score, *(part.clone() for part in pair)) for pair in pairs]
    return [[result.double(), after] for result, after in found]


def _state(model: nn.Module) -> list:
    """Parameters, and how the model was used."""
    return [[[weight, weight.requires_grad] for weight in model.parameters()], sorted(model.notes.modes)]


def observe_train_epoch(train_epoch: Callable, rng: Rng) -> list:
    found = []
    for with_metric, generator in ((True, False), (False, True)):
        model, loader, loss_fn, metric = draw.training_inputs(rng)
        batches = list(loader)
        optimizer = notebook_03.Descent(model.train(generator))
        given = (batch for batch in batches) if generator else loader
        found.append(train_epoch(model, given, loss_fn, optimizer, *[metric] * with_metric))
        found += [_state(model), batches]
    return found


def observe_validate(validate: Callable, rng: Rng) -> list:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("An error that the check makes.")

    found = []
    for training, grad, with_metric in ((True, True, True), (False, True, False), (True, False, True)):
        model, loader, loss_fn, metric = draw.training_inputs(rng)
        notebook_03.train_by_hand(model, loader, notebook_03.Descent(model))  # gradients, and averages
        model.train(training).notes.clear()
        batches = list(loader)
        with torch.set_grad_enabled(grad):
            found.append(validate(model, loader if with_metric else batches, loss_fn, *[metric] * with_metric))
            found += [torch.is_grad_enabled(), model.notes.gradients, _state(model), batches]
        found += [list(model.buffers()), [weight.grad for weight in model.parameters()]]
        for functions in ((loss_fn,), *([(broken,), (loss_fn, broken)] if training else [])):
            with contextlib.suppress(RuntimeError):
                validate(model, loader, *functions)
            found.append([torch.is_grad_enabled(), *(part.training for part in model.modules())])
    return found


# Notebook 04


def observe_predict(predict: Callable, rng: Rng) -> list:
    found, (height, width) = [], rng.integers(17, 60, 2)
    for number, (channels, kernel_size, shape, dtype) in enumerate([
        (1, 1, (height, width), np.float32), (3, 1, (width, 16), np.float64), (2, 3, (height, width), np.float32),
        (1, 3, (32, height), np.float32), (3, 1, (1, width), np.float32), (1, 1, (1, 1), np.float64),
    ]):  # fmt: skip
        model, image = draw.NormalizingModel(rng, channels, kernel_size), rng.random(shape).astype(dtype)
        probability, (_, after) = use(predict, model.train(number % 2 == 0), image)
        rim = slice(kernel_size // 2, -(kernel_size // 2) or None)  # depends on how the image is padded
        found += [list(probability.shape), probability[:, rim, rim], after, _state(model), model.notes.gradients]
        found += [list(model.buffers()), [part.training for part in model.modules()], torch.is_grad_enabled()]
    return found


def observe_connected_components(connected_components: Callable, rng: Rng) -> list:
    found = []
    for threshold, dtype in (((), np.float32), ((0.2,), np.float64), ((0.8,), np.float32), ((0.5,), np.float64)):
        cut = (*threshold, 0.5)[0]
        above = rng.random(rng.integers(4, 30, 2)) < rng.uniform(0.2, 0.6)
        away = 10 ** rng.uniform(-3.5, -0.8, above.shape)
        image = np.where(above, cut + away, cut - away).astype(dtype)
        found.append(use(connected_components, image, *threshold))
    many = np.zeros((33, 41), np.float32)
    many[::2, ::2] = rng.uniform(0.6, 1, (17, 21))
    return [*found, *(use(connected_components, image) for image in (many, many * 0, many * 0 + 0.9))]


def _raised_for_shapes(function: Callable) -> list[str]:
    shapes = [((4, 6), (6, 4)), ((1, 6), (4, 6)), ((4, 6), (4, 5))]
    return [raised(partial(function, *(np.ones(shape, np.int32) for shape in pair))) for pair in shapes]


def observe_iou_matrix(iou_matrix: Callable, rng: Rng) -> list:
    huge = draw.label_pair(rng, np.int64, 0, 2**32)
    return [[use(iou_matrix, *pair) for pair in (*draw.label_pairs(rng), huge)], _raised_for_shapes(iou_matrix)]


def observe_count_matches(count_matches: Callable, rng: Rng) -> list:
    found = []
    for n in (*rng.integers(1, 7, 9), 0):  # not above 0.5, where no instance has two partners
        iou = rng.choice([0, 0, 0.125, 0.25, 0.3, 0.375, 0.45, 0.5], (n, rng.integers(2, 7)))
        found += [use(count_matches, iou), count_matches(iou.T.copy(), float(rng.choice([0.25, 0.28, 0.375])))]
    for prediction, truth in draw.label_pairs(rng):
        iou = iou_matrix(prediction, truth)
        found += [use(count_matches, iou), *(count_matches(iou, float(cut)) for cut in rng.uniform(0.1, 0.9, 2))]
    for contested in ([[0.45, 0.4], [0.42, 0]], [[0.3, 0.2, 0], [0, 0.3, 0.2], [0, 0.25, 0]], [[0.66, 0.2], [0.2, 0]]):
        iou = np.pad(np.array(contested), (0, int(rng.integers(0, 4))))
        iou = iou[rng.permutation(len(iou))][:, rng.permutation(len(iou))]
        found += [count_matches(iou, iou_threshold=float(rng.uniform(0.1, 0.19))), count_matches(iou, 0.41)]
    return found


def observe_f1_score(f1_score: Callable, rng: Rng) -> list:
    found = []
    for pair in draw.label_pairs(rng):
        found += [use(f1_score, *pair), *(f1_score(*pair, iou_threshold=float(x)) for x in rng.uniform(0.2, 0.95, 2))]
    return [*found, *_limits(f1_score, rng), _raised_for_shapes(f1_score)]


def _limits(score: Callable, rng: Rng) -> list:
    """An IoU of exactly 0.5, halves beside a merged pair, and more pairs with a smaller sum of their IoU."""
    halves = np.repeat([[[1, 1, 2, 2, 3, 3, 3, 3]], [[8, 8, 8, 8, 5, 5, 6, 6]]], rng.integers(1, 9), axis=2)
    contested = np.repeat([[[1, 1, 1, 1, 1, 2, 2]], [[8, 5, 5, 5, 5, 5, 5]]], rng.integers(1, 9), axis=2)
    return [score(*halves), score(*contested, float(rng.uniform(0.15, 0.19)))]


def observe_average_precision(average_precision: Callable, rng: Rng) -> list:
    found = [average_precision(*pair, rng.uniform(0.2, 0.95, 3).tolist()) for pair in draw.label_pairs(rng)]
    found.append(use(average_precision, *draw.label_pair(rng), (0.5, 0.75, float(rng.uniform(0.2, 0.4)), 0.5)))
    limits = _limits(lambda prediction, truth, cut=0.5: average_precision(prediction, truth, [cut, 0.51]), rng)
    return [*found, *limits, _raised_for_shapes(lambda *pair: average_precision(*pair, [0.5]))]


# Notebook 05


def observe_boundary_target(boundary_target: Callable, rng: Rng) -> list:
    masks = [labels for pair in draw.label_pairs(rng) for labels in pair]
    modes = [[], *([mode] for mode in rng.permutation(["inner", "thick", "inner"]).tolist())]
    found = [use(boundary_target, mask, *modes[number % 4]) for number, mask in enumerate(masks)]
    ids_1_and_2, apart = np.searchsorted(np.unique(masks[0]), masks[0]).clip(0, 2).astype(np.uint8), masks[1] * 0
    apart[2 : rng.integers(4, 9), 3 : rng.integers(5, 20)] = rng.integers(1, 300)
    return [*found, use(boundary_target, ids_1_and_2), use(boundary_target, apart, mode="outer")]


def observe_watershed_instances(watershed_instances: Callable, rng: Rng) -> list:
    found = []
    for picture in (draw.bars(rng), draw.patches(rng)):
        thresholds = (), (0.25,), (0.5,), (0.7,), (float(rng.uniform(0.8, 0.85)),), (1.0,)
        found += [use(watershed_instances, *picture, *threshold) for threshold in thresholds]
    bridge = np.zeros((9, 30))
    bridge[3:6], bridge[2:7, 2 : rng.integers(5, 9)], bridge[2:7, -rng.integers(5, 9) : -2] = 0.3, 0.9, 0.9
    grid = np.zeros((37, 36))
    grid[::2, ::2] = rng.uniform(0.8, 0.99, (19, 18))
    return [*found, *use(watershed_instances, bridge, bridge * 0, 0.1), *use(watershed_instances, grid, grid * 0)]


def observe_find_best_threshold(find_best_threshold: Callable, rng: Rng) -> list:
    found = []
    touching, dim = notebook_05._touching_row(), notebook_05._row_of_nuclei(1, 0)
    for strict in ((), (0.26, 0.36), (0.52, 0.6), (0.82, 0.87), (0.9, 0.99)):  # no IoU of these images is there
        images = [touching, dim, notebook_05._row_of_nuclei(*rng.integers(1, 5, 2)),
                  *map(notebook_05._shrunk, rng.integers(1, 8, 2))]  # fmt: skip
        images = [images[place] for place in rng.permutation(5)[: rng.integers(1, 6)]]
        cuts = [rng.uniform(*cut) for cut in [(0.3, 0.55), (0.61, 0.64), (0.7, 0.9)] * 2 + [(0.95, 0.99)]]
        options = {"iou_threshold": float(rng.uniform(*strict))} if strict else {}
        given = list(map(list, zip(*images, strict=True))), rng.permutation(cuts).tolist()
        found.append(use(find_best_threshold, *given[0], given[1], **options))
    found.append(find_best_threshold(*([part] for part in dim), rng.uniform(0.7, 0.9, 4).tolist()))
    search = partial(find_best_threshold, [touching[0]] * 2, [touching[1]] * 2, thresholds=[0.5, 0.7])
    target = boundary_target(touching[2].astype(np.int32)).numpy()
    pairs = [(touching[2], target), (target, touching[2]), (target.astype(np.uint8), touching[2])]
    return [*found, [raised(partial(search, truths=list(pair))) for pair in pairs]]
