"""The checks of notebook 03.

Losses are compared with float64, and training loops with the same loop written here, for a network of
thirty parameters.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.checks.models import ModelState, Notes
from course_utils.exercises.feedback import (
    expect_callable,
    expect_close,
    expect_error,
    expect_pair,
    expect_shape,
    expect_type,
    fail,
    untouched,
)

# 3.1 binary_cross_entropy


def check_binary_cross_entropy(binary_cross_entropy) -> None:
    expect_callable(binary_cross_entropy, "binary_cross_entropy")
    rng = np.random.default_rng(0)
    for shape in [(2, 1, 3, 4), (7,), (3, 5)]:
        logits = torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32))
        hard = torch.from_numpy(rng.integers(0, 2, shape).astype(np.float32))
        soft = torch.from_numpy(rng.random(shape, dtype=np.float32))
        for kind, target in [("0 and 1", hard), ("between 0 and 1", soft)]:
            expect_cross_entropy(binary_cross_entropy, f"logits {shape} and targets {kind}", logits, target)
    look = "Rounding: avoid log(sigmoid(x)) and exp of a large number. Clamping changes the value."
    for logit in (-1e4, -200.0, -50.0, 50.0, 200.0, 1e4):
        for value in (0.0, 0.3, 1.0):
            logits, target = torch.full((2, 2), logit), torch.full((2, 2), value)
            what = f"logits {logit:g} and targets {value:g}"
            expect_cross_entropy(binary_cross_entropy, what, logits, target, look)
    for shape, target_shape in [((4, 1, 3, 3), (4, 3, 3)), ((3, 4), (4,)), ((2, 1), (1, 2))]:
        call = partial(binary_cross_entropy, torch.zeros(shape), torch.ones(target_shape))
        what = f"Result for logits {shape} and targets {target_shape}"
        expect_error(what, call, look="The shapes differ: compare them first.")


def expect_cross_entropy(
    loss_fn: Callable, what: str, logits: torch.Tensor, target: torch.Tensor, look: str = ""
) -> None:
    """Value and gradient are those of torch's cross entropy in float64, which the code does not call."""
    with untouched(logits=logits, target=target), TorchsOwn() as torchs_own:
        loss = loss_fn(logits, target)
    expect_scalar(loss, "Return the tensor itself: float(...) and .item() lose the gradient.")
    if torchs_own.called:
        hint = "Write the formula for logits; you may use exp, log and softplus."
        fail("Own formula", f"a call of torch's {torchs_own.called}", "none", hint)
    exact = logits.double().requires_grad_()
    expected = binary_cross_entropy_with_logits(exact, target.double())
    expected.backward()
    if not look:
        look = "The mean over all elements of -t log(p) - (1 - t) log(1 - p), where p is the sigmoid of the logit."
        if math.isclose(loss, expected * logits.numel(), rel_tol=1e-4):
            look = "That is the sum; the task asks for the mean over all elements."
        elif math.isclose(loss, -expected, rel_tol=1e-4):
            look = "The sign is wrong."
    expect_close(f"the result for {what}", loss, expected, look, 1e-4)
    logits = logits.clone().requires_grad_()
    expect_gradient(f"the result for {what}", loss_fn(logits, target), logits, exact.grad.numpy())


class TorchsOwn(TorchFunctionMode):
    """Notices calls of torch's binary cross entropy, whatever the name of its import."""

    names = ("binary_cross_entropy", "multilabel_soft_margin_loss")  # the second is the same function
    called = ""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if any(own in name for own in self.names):
            self.called = name.split(".")[0]
        return function(*args, **(kwargs or {}))


# 3.2 dice_score


def check_dice_score(dice_score) -> None:
    expect_callable(dice_score, "dice_score")
    rng = np.random.default_rng(0)
    share = np.array([0.1, 0.4, 0.7, 0.2, 0.9, 0.3])[:, None]  # of foreground, another one for each map
    for shape in [(2, 3, 4, 5), (6, 1, 5, 3), (1, 1, 2, 3)]:
        maps = (shape[0] * shape[1], shape[2] * shape[3])
        target = (rng.random(maps) < share[: maps[0]]).astype(np.float32)
        target[:, 0] = 1  # no map is empty yet
        logits = rng.normal(target - 0.5, 2).astype(np.float32)
        logits, target = (torch.from_numpy(array.reshape(shape)) for array in (logits, target))
        what = f"the result for tensors {shape}"
        with untouched(logits=logits, target=target):
            score = dice_score(logits, target)
        expect_scalar(score, "Return the tensor itself, without float(...) or .item().")
        expected, look = dice_by_hand(float(score), logits, target)
        if not 0 <= float(score) <= 1:
            look = look or "Each score is from 0 to 1, and so is their mean: apply the sigmoid to the logits."
            fail(f"Range of {what}", float(score), "a number from 0 to 1", look)
        expect_close(what, score, expected, look, 1e-4)
    expect_dice_of_empty_maps(dice_score)


def expect_dice_of_empty_maps(dice_score: Callable) -> None:
    nothing, everything = torch.full((1, 1, 3, 4), -1e4), torch.full((1, 1, 3, 4), 1e4)
    empty, full, one_pixel = torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    one_pixel[0, 0, 1, 2] = 1
    each_map = "The rule for empty maps holds for each map, not for the whole batch."
    for what, logits, target, expected, look in [
        ("a full prediction of a full target", everything, full, 1.0, ""),
        ("an empty prediction of one pixel", nothing, one_pixel, 0.0, "Nothing overlaps."),
        ("a full prediction of an empty target", everything, empty, 0.0, "Nothing overlaps: only both empty gives 1."),
        ("an empty prediction of an empty target", nothing, empty, 1.0, "0/0 needs a rule: nothing was to be found."),
        ("one map found and one correctly empty", torch.cat([everything, nothing], 1), torch.cat([one_pixel, empty], 1),
         (2 / 13 + 1) / 2, each_map),
        ("one image found and one correctly empty", torch.cat([nothing, everything]), torch.cat([empty, one_pixel]),
         (2 / 13 + 1) / 2, each_map),
    ]:  # fmt: skip
        score = dice_score(logits, target)
        expect_scalar(score, "Return a tensor here, too.")
        expect_close(f"the result for {what}", score, expected, look, 1e-4)


def dice_by_hand(found: float, logits: torch.Tensor, target: torch.Tensor) -> tuple[float, str]:
    """The mean over maps that are not empty, and where to look if one of the usual mistakes gives the value found."""
    x, t = logits.double().flatten(2), target.double().flatten(2)
    p = x.sigmoid()

    def dice(p, t, axes, factor=2.0, smooth=0.0):
        return ((factor * (p * t).sum(axes) + smooth) / (p.sum(axes) + t.sum(axes) + smooth)).mean().item()

    right = dice(p, t, 2)
    overlap = (p * t).sum(2)
    each_map = "First compute the Dice of each image and channel, then their mean."
    mistakes = [
        (dice(p, t, (0, 1, 2)), f"That is the Dice of all pixels together. {each_map}"),
        (dice(p, t, (0, 2)), f"That is the Dice of the whole batch for each channel. {each_map}"),
        (dice(p, t, (1, 2)), f"That is the Dice of all channels together for each image. {each_map}"),
        (dice(x, t, 2), "Logits are not probabilities: apply the sigmoid."),
        (dice((p > 0.5).double(), t, 2), "That is the Dice of the thresholded mask; use the probabilities."),
        (dice(p, t, 2, factor=1.0), "The factor 2 is missing."),
        ((2 * overlap / (p.square().sum(2) + t.square().sum(2))).mean().item(), "No squares in the denominator."),
        ((overlap / (p.sum(2) + t.sum(2) - overlap)).mean().item(), "That is the IoU (Jaccard index)."),
        (dice(p, t, 2, smooth=1.0), "A smoothing constant of 1 changes the score of small maps; treat 0/0 separately."),
        (1 - right, "That is one minus the score: a loss."),
    ]
    looks = [look for value, look in mistakes if math.isclose(found, value, rel_tol=1e-5)]
    return right, looks[0] if looks and not math.isclose(found, right, rel_tol=1e-4) else ""


# 3.3 train_epoch


def check_train_epoch(train_epoch) -> None:
    expect_callable(train_epoch, "train_epoch")
    torch.manual_seed(0)
    images, targets = images_and_targets(9)
    loader = DataLoader(TensorDataset(images, targets), batch_size=4)  # batches of 4, 4 and 1
    model = Network().eval()
    untrained, twin, careless = (copy.deepcopy(model) for _ in range(3))
    found = train_epoch(model, loader, squared_error, Descent(model), agreement)
    modes = set(model.notes.modes)  # the copies write into the same notes
    losses, metrics = train_by_hand(twin.train(), loader, Descent(twin))
    expect_means_of("with a metric", found)
    expect_device(lambda model, *rest: train_epoch(model, *rest[:2], Descent(model), *rest[2:]))
    if False in modes:
        look = "Switch it to training mode before the first batch."
        fail("Mode of the model during the epoch", "evaluation mode", "training mode", look)
    if not same_parameters(model, twin):
        if same_parameters(model, untrained):
            look = "Each batch needs backward, then a step of the optimizer, before the gradients are reset."
            fail("Parameters after the epoch", "unchanged", "changed by one step for each batch", look)
        train_by_hand(careless.train(), loader, Descent(careless), reset=False)
        if same_parameters(model, careless):
            look = "Without a reset they accumulate from batch to batch."
            fail("Gradients", "those of earlier batches, too", "those of one batch at each step", look)
        look = "For each batch once: reset the gradients, loss_fn(logits, targets), backward, step."
        fail("Parameters after the epoch", "other values", "those after one step for each of the 3 batches", look)
    expect_means(found, losses, metrics, [4, 4, 1])
    for sizes in ([3, 1], [1]):
        expect_any_iterable(train_epoch, sizes)


def expect_any_iterable(train_epoch: Callable, sizes: list[int]) -> None:
    """A loader may be anything that yields batches; without a metric the mean metric is None."""
    batches = [images_and_targets(size) for size in sizes]
    model = Network()
    twin = copy.deepcopy(model)
    with untouched(images=[images for images, _ in batches], targets=[targets for _, targets in batches]):
        found = train_epoch(model, (batch for batch in batches), squared_error, Descent(model))
    expect_means_of("without a metric", found)
    losses, _ = train_by_hand(twin, batches, Descent(twin))
    look = "The loader may be any iterable of batches, so count the images in each."
    expect_close("the mean loss of a generator's batches", found[0], np.average(losses, weights=sizes), look, 1e-4)


def train_by_hand(
    model: nn.Module, loader: Iterable, optimizer: Descent, reset: bool = True
) -> tuple[list[float], list[float]]:
    """Loss and metric of each batch, each before the step."""
    losses, metrics = [], []
    for images, targets in loader:
        if reset:
            optimizer.zero_grad()
        logits = model(images)
        loss = squared_error(logits, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        metrics.append(agreement(logits, targets).item())
    return losses, metrics


# 3.4 validate


def check_validate(validate) -> None:
    expect_callable(validate, "validate")
    torch.manual_seed(0)
    images, targets = images_and_targets(9)
    loader = DataLoader(TensorDataset(images, targets), batch_size=4)
    for training, grad in [(True, True), (False, True), (True, False)]:
        model = Network()
        train_by_hand(model, loader, Descent(model))  # so that there are gradients, and averages of normalisation
        if training:
            model.zero_grad()
        model.train(training).notes.clear()
        before = ModelState(model, grad)
        with torch.set_grad_enabled(grad):
            found = validate(model, loader, squared_error, agreement)
            grad_after = torch.is_grad_enabled()
        expect_means_of("with a metric", found)
        model.notes.expect_inference()
        before.expect_unchanged(grad_after)
        losses, metrics = measure_by_hand(model, loader)
        expect_means(found, losses, metrics, [4, 4, 1])
        with untouched(images=images, targets=targets):
            found = validate(model, [(images, targets), (images[:1], targets[:1])], squared_error)
        expect_means_of("without a metric", found)
        expect_means_of("without a metric", validate(model, [(images[:1], targets[:1])], squared_error))
    expect_device(validate)


def measure_by_hand(model: nn.Module, loader: Iterable) -> tuple[list[float], list[float]]:
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        pairs = [(model(images), targets) for images, targets in loader]
    return [squared_error(*pair).item() for pair in pairs], [agreement(*pair).item() for pair in pairs]


# What several checks need


class Network(nn.Module):
    """A small network that behaves differently in training mode, and takes notes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(), nn.Conv2d(2, 1, 1, bias=False)
        )
        self.notes = Notes()

    def forward(self, x):
        result = self.layers(x)
        self.notes.add(self, result)
        return result


def images_and_targets(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, the last one much brighter than the others, so that its weight in a mean shows."""
    rng = torch.Generator().manual_seed(number)
    images = torch.randn(number, 1, 4, 4, generator=rng)
    images[-1] *= 5
    return images, (images + 0.5 * torch.randn(images.shape, generator=rng) > 0).float()


class Descent:
    """Gradient descent with momentum, used like an optimizer of torch.

    The first optimizer of torch in a process loads torch's compiler, which takes longer than a check may.
    """

    def __init__(self, model: nn.Module):
        self.param_groups = [{"params": list(model.parameters()), "lr": 0.1}]
        self.velocity: dict[torch.Tensor, torch.Tensor] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                weight.grad = None if set_to_none else torch.zeros_like(weight)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                self.velocity[weight] = 0.9 * self.velocity.get(weight, 0) + weight.grad
                weight -= self.param_groups[0]["lr"] * self.velocity[weight]


def squared_error(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss that tells its arguments apart."""
    return ((1 + targets) * (logits - targets).square()).mean()


def agreement(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A metric that tells its arguments apart."""
    return (logits.sigmoid() * (0.5 + targets)).mean()


def expect_scalar(value: Any, look: str) -> None:
    expect_type("the result", value, torch.Tensor, look if isinstance(value, (float, int)) else "")
    expect_shape("the result", value, (), "One number: the mean over everything.")
    if not value.dtype.is_floating_point:
        fail("dtype of the result", str(value.dtype), "a floating point type")


def expect_gradient(what: str, result: torch.Tensor, x: torch.Tensor, expected: np.ndarray) -> None:
    if not result.requires_grad:
        look = "Compute with tensors throughout, without .item(), .detach(), .numpy() or no_grad."
        fail(f"Gradient of {what}", "none", "one with respect to the logits", look)
    found = torch.autograd.grad(result, x, allow_unused=True)[0]
    if found is None:
        fail(f"Gradient of {what}", "none", "one with respect to the logits", "Does the result depend on the logits?")
    close = np.isclose(found.numpy(), expected, rtol=1e-3, atol=1e-5 / expected.size)
    if not close.all():
        place = tuple(np.argwhere(~close)[0])
        look = "A gradient that is not finite, or zero for a wrong answer, is due to rounding."
        fail(f"Gradient of {what}", f"{found.numpy()[place]:.3g}", f"{np.float32(expected[place]):.3g}", look)


def expect_means_of(how: str, found: Any) -> None:
    """`(mean loss, mean metric or None)` as Python floats."""
    expect_pair(f"the result {how}", found, "(mean loss, mean metric)")
    kinds = [float, float if how == "with a metric" else type(None)]
    for name, value, kind in zip(("loss", "metric"), found, kinds, strict=True):
        if type(value) is not kind:
            look = "Convert it with float(...) or .item()." if kind is float else "Without a metric there is no mean."
            expected = "a Python float" if kind is float else "None"
            fail(f"Type of the mean {name} {how}", type(value).__name__, expected, look)


def expect_means(found: tuple, losses: list[float], metrics: list[float], sizes: list[int]) -> None:
    for name, value, values in [("loss", found[0], losses), ("metric", found[1], metrics)]:
        expected = float(np.average(values, weights=sizes))
        look = f"{name}(logits, targets) of each batch (before the step, if any), weighted by its number of images."
        if math.isclose(value, np.mean(values), rel_tol=1e-4):
            look = "That is the mean over batches; the last batch has fewer images, so its weight is smaller."
        elif math.isclose(value, np.sum(values), rel_tol=1e-4):
            look = "That is the sum over batches; the task asks for the mean over images."
        elif math.isclose(value, np.dot(values, sizes), rel_tol=1e-4):
            look = "That is the sum over images: divide by their number."
        elif math.isclose(value, values[-1], rel_tol=1e-4):
            look = "That is the value of the last batch."
        expect_close(f"the mean {name}", value, expected, look, 1e-4)


def expect_device(run: Callable) -> None:
    """Batches are moved to the device of the model.

    Not every machine has a GPU, but each has the meta device, whose tensors have a shape and no numbers.
    """
    seen: dict[str, str] = {}

    class OnMeta(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(1, device="meta"))

        def forward(self, images):
            seen.setdefault("images", images.device.type)
            return torch.empty(images.shape, device="meta")

    def loss_or_metric(_logits, targets):
        seen.setdefault("targets", targets.device.type)
        raise RuntimeError("On this device nothing can be computed, and the devices are known by now.")

    with contextlib.suppress(Exception):  # a right loop may need what this device cannot do
        run(OnMeta(), [images_and_targets(2)], loss_or_metric, loss_or_metric)
    for name, device in seen.items():
        if device != "meta":
            look = "Every parameter of the model has a device."
            fail(f"Device of the {name}", device, "the device of the model's parameters", look)


def same_parameters(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.allclose(x, y, rtol=1e-3, atol=1e-5) for x, y in zip(a.parameters(), b.parameters(), strict=True))
