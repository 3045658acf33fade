"""Checks of notebook 03: see `course_utils.exercises.sandbox` for what a check is.

Losses are compared with the formula in float64, and the loops with the same loop written out here, on a network of
thirty parameters.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.feedback import (
    expect_callable,
    expect_close,
    expect_shape,
    expect_type,
    fail,
    show,
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
            with untouched(logits=logits, target=target), TorchsOwn() as torchs_own:
                loss = binary_cross_entropy(logits, target)
            need_scalar(loss, "Return the tensor itself: float(...) or .item() would lose the gradient.")
            if torchs_own.called:
                look = "Write the formula in terms of the logits; exp, log and softplus are fine."
                fail("Own formula", f"a call of torch's {torchs_own.called}", "none", look)
            expected = cross_entropy_by_hand(logits, target)
            what = f"the result for logits {shape} and targets {kind}"
            expect_close(what, loss, expected.mean(), explain_cross_entropy(float(loss), expected), 1e-4)
            logits.requires_grad_()
            need_gradient(what, binary_cross_entropy(logits, target), logits, cross_entropy_gradient(logits, target))
            logits.requires_grad_(False)
    for logit in (-1e4, -200.0, -50.0, 50.0, 200.0, 1e4):
        for value in (0.0, 0.3, 1.0):
            logits, target = torch.full((2, 2), logit), torch.full((2, 2), value)
            what = f"the result for logits {logit:g} and targets {value:g}"
            with untouched(logits=logits, target=target):
                loss = binary_cross_entropy(logits, target)
            look = "Rounding: do not compute log(sigmoid(x)), and no exp of a large number. Clamping changes the value."
            expect_close(what, loss, cross_entropy_by_hand(logits, target).mean(), look, 1e-4)
            logits.requires_grad_()
            need_gradient(what, binary_cross_entropy(logits, target), logits, cross_entropy_gradient(logits, target))
    for shape, target_shape in [((4, 1, 3, 3), (4, 3, 3)), ((3, 4), (4,)), ((2, 1), (1, 2))]:
        need_refused_shapes(binary_cross_entropy, torch.zeros(shape), torch.ones(target_shape))


def need_refused_shapes(loss_fn: Callable, logits: torch.Tensor, target: torch.Tensor) -> None:
    """Two shapes that broadcasting makes one are a `ValueError` nevertheless."""
    try:
        found = show(loss_fn(logits, target))
    except ValueError:
        return
    except Exception as error:
        found = f"{type(error).__name__}: {error}"[:160]
    fail(f"Result for logits {tuple(logits.shape)} and targets {tuple(target.shape)}", found,
          "a ValueError, because the shapes differ", "Compare the two shapes first.")  # fmt: skip


class TorchsOwn(TorchFunctionMode):
    """Notices calls of torch's own binary cross entropy, under whatever name it was imported."""

    names = ("binary_cross_entropy", "multilabel_soft_margin_loss")  # the second is the same function of the logits
    called = ""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if any(own in name for own in self.names):
            self.called = name.split(".")[0]
        return function(*args, **(kwargs or {}))


def cross_entropy_by_hand(logits: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    x, t = (tensor.detach().numpy().astype(np.float64) for tensor in (logits, target))
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))) - t * x


def cross_entropy_gradient(logits: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """(sigmoid(x) - t) / n."""
    x, t = (tensor.detach().numpy().astype(np.float64) for tensor in (logits, target))
    return (1 / (1 + np.exp(-np.clip(x, -700, 700))) - t) / x.size


def explain_cross_entropy(found: float, expected: np.ndarray) -> str:
    if math.isclose(found, expected.sum(), rel_tol=1e-4):
        return "That is the sum; the mean over all elements is asked for."
    if math.isclose(found, -expected.mean(), rel_tol=1e-4):
        return "The sign is wrong."
    return "The mean over all elements of -t log(p) - (1 - t) log(1 - p), where p is the sigmoid of the logit."


# 3.2 dice_score


def check_dice_score(dice_score) -> None:
    expect_callable(dice_score, "dice_score")
    rng = np.random.default_rng(0)
    share = np.array([0.1, 0.4, 0.7, 0.2, 0.9, 0.3])[:, None]  # of foreground, different in each map
    for shape in [(2, 3, 4, 5), (6, 1, 5, 3), (1, 1, 2, 3)]:
        maps = (shape[0] * shape[1], shape[2] * shape[3])
        target = (rng.random(maps) < share[: maps[0]]).astype(np.float32)
        target[:, 0] = 1  # no map is empty yet
        logits = rng.normal(target - 0.5, 2).astype(np.float32)
        logits, target = (torch.from_numpy(array.reshape(shape)) for array in (logits, target))
        what = f"the result for tensors {shape}"
        with untouched(logits=logits, target=target):
            score = dice_score(logits, target)
        need_scalar(score, "Return the tensor itself, without float(...) or .item().")
        expected = float(dice_by_hand(logits, target))
        look = explain_dice(float(score), logits, target)
        if not 0 <= float(score) <= 1:
            look = (
                look or "It is a mean of scores, each from 0 to 1, of probabilities: apply the sigmoid to the logits."
            )
            fail(f"Range of {what}", float(score), "a number from 0 to 1", look)
        expect_close(what, score, expected, look, 1e-4)
    need_dice_of_empty_maps(dice_score)


def need_dice_of_empty_maps(dice_score: Callable) -> None:
    nothing, everything = torch.full((1, 1, 3, 4), -1e4), torch.full((1, 1, 3, 4), 1e4)
    empty, full, one_pixel = torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    one_pixel[0, 0, 1, 2] = 1
    for what, logits, target, expected, look in [
        ("a full prediction of a full target", everything, full, 1.0, ""),
        ("an empty prediction of one pixel", nothing, one_pixel, 0.0, "Nothing overlaps."),
        ("a full prediction of an empty target", everything, empty, 0.0, "Nothing overlaps: only both empty give 1."),
        ("an empty prediction of an empty target", nothing, empty, 1.0, "0/0 needs a rule: there was nothing to find."),
        ("one map found and one rightly empty", torch.cat([everything, nothing], 1), torch.cat([one_pixel, empty], 1),
         (2 / 13 + 1) / 2, "The rule for two empty maps holds for each map, not for the whole batch."),
        ("one image found and one rightly empty", torch.cat([nothing, everything]), torch.cat([empty, one_pixel]),
         (2 / 13 + 1) / 2, "The rule for two empty maps holds for each map, not for the whole batch."),
    ]:  # fmt: skip
        score = dice_score(logits, target)
        need_scalar(score, "Return a tensor here, too.")
        expect_close(f"the result for {what}", score, expected, look, 1e-4)


def dice_by_hand(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean over maps, in float64, for maps that are not empty."""
    p, t = logits.double().sigmoid().flatten(2), target.double().flatten(2)
    return (2 * (p * t).sum(2) / (p.sum(2) + t.sum(2))).mean()


def explain_dice(found: float, logits: torch.Tensor, target: torch.Tensor) -> str:
    """Which of the usual mistakes leads to this value."""
    x, t = logits.double().flatten(2), target.double().flatten(2)
    p = x.sigmoid()

    def dice(p, t, axes, factor=2.0, smooth=0.0):
        return ((factor * (p * t).sum(axes) + smooth) / (p.sum(axes) + t.sum(axes) + smooth)).mean().item()

    right = dice(p, t, 2)
    overlap = (p * t).sum(2)
    each_map = "Compute the Dice of each image and channel first, then the mean of these."
    mistakes = [
        (dice(p, t, (0, 1, 2)), f"That is the Dice of all pixels together. {each_map}"),
        (dice(p, t, (0, 2)), f"That is the Dice of the whole batch for each channel. {each_map}"),
        (dice(p, t, (1, 2)), f"That is the Dice of all channels together for each image. {each_map}"),
        (dice(x, t, 2), "Logits are not probabilities: apply the sigmoid."),
        (dice((p > 0.5).double(), t, 2), "That is the Dice of the decided mask; here the probabilities count."),
        (dice(p, t, 2, factor=1.0), "The factor 2 is missing."),
        ((2 * overlap / (p.square().sum(2) + t.square().sum(2))).mean().item(), "No squares in the denominator."),
        ((overlap / (p.sum(2) + t.sum(2) - overlap)).mean().item(), "That is the IoU (Jaccard index)."),
        (dice(p, t, 2, smooth=1.0), "A smoothing constant of 1 changes the score of small maps; treat 0/0 by itself."),
        (1 - right, "That is one minus the score: a loss."),
    ]
    if math.isclose(found, right, rel_tol=1e-4):
        return ""
    for value, look in mistakes:
        if math.isclose(found, value, rel_tol=1e-5):
            return look
    return ""


# 3.3 train_epoch


def check_train_epoch(train_epoch) -> None:
    expect_callable(train_epoch, "train_epoch")
    torch.manual_seed(0)
    images, targets = images_and_targets(9)
    loader = DataLoader(TensorDataset(images, targets), batch_size=4)  # batches of 4, 4 and 1
    notes: list[tuple[bool, bool]] = []
    model = Network(notes).eval()
    untrained, twin, careless = (copy.deepcopy(model) for _ in range(3))
    found = train_epoch(model, loader, squared_error, Descent(model), agreement)
    training = [mode for mode, _ in notes]
    losses, metrics = train_by_hand(twin.train(), loader, Descent(twin))
    need_pair(found, "with a metric")
    need_device(lambda model, *rest: train_epoch(model, *rest[:2], Descent(model), *rest[2:]))
    if not all(training):
        look = "Call the model's method for it before the first batch."
        fail("Mode of the model during the epoch", "evaluation mode", "training mode", look)
    if not same_parameters(model, twin):
        if same_parameters(model, untrained):
            look = "Each batch needs backward, then a step of the optimizer, with gradients that are still there."
            fail("Parameters after the epoch", "unchanged", "changed by one step for each batch", look)
        train_by_hand(careless.train(), loader, Descent(careless), reset=False)
        if same_parameters(model, careless):
            look = "Without a reset they add up from batch to batch."
            fail("Gradients", "those of earlier batches, too", "those of one batch at each step", look)
        look = "For each batch once: reset the gradients, loss_fn(logits, targets), backward, step."
        fail("Parameters after the epoch", "other values", "those after one step for each of the 3 batches", look)
    need_means(found, losses, metrics, [4, 4, 1])
    for sizes in ([3, 1], [1]):
        need_any_iterable(train_epoch, sizes)


def need_any_iterable(train_epoch: Callable, sizes: list[int]) -> None:
    """All that is asked of a loader is that it yields batches; and without a metric there is no mean metric."""
    batches = [images_and_targets(size) for size in sizes]
    model = Network()
    twin = copy.deepcopy(model)
    with untouched(images=[images for images, _ in batches], targets=[targets for _, targets in batches]):
        found = train_epoch(model, (batch for batch in batches), squared_error, Descent(model))
    need_pair(found, "without a metric")
    losses, _ = train_by_hand(twin, batches, Descent(twin))
    look = "The loader may be anything that yields batches, so count the images as they come."
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
        notes: list[tuple[bool, bool]] = []
        model = Network(notes)
        train_by_hand(model, loader, Descent(model))  # so that there are gradients, and averages of normalisation
        if training:
            model.zero_grad()
        model.train(training)
        notes.clear()
        before, gradients = copy.deepcopy(model.state_dict()), gradients_of(model)
        with torch.set_grad_enabled(grad):
            found = validate(model, loader, squared_error, agreement)
            grad_after = torch.is_grad_enabled()
        need_pair(found, "with a metric")
        if any(mode for mode, _ in notes):
            look = "Dropout and batch normalisation work differently in the two modes."
            fail("Mode of the model while it is measured", "training mode", "evaluation mode", look)
        if any(recorded for _, recorded in notes):
            look = "Nothing is learnt here, so torch need not record how the logits came about."
            fail("Gradients", "logits with requires_grad", "logits without", look)
        need_unchanged_model(model, before, gradients)
        need_restored_modes(model, training, grad_after, grad)
        losses, metrics = measure_by_hand(model, loader)
        need_means(found, losses, metrics, [4, 4, 1])
        with untouched(images=images, targets=targets):
            found = validate(model, [(images, targets), (images[:1], targets[:1])], squared_error)
        need_pair(found, "without a metric")
        need_pair(validate(model, [(images[:1], targets[:1])], squared_error), "without a metric")
    need_device(validate)


def need_unchanged_model(model: nn.Module, before: dict, gradients: list) -> None:
    look = "Measuring must not change the model."
    for name, value in model.state_dict().items():
        if not torch.equal(value, before[name]):
            kind = "parameter" if name in dict(model.named_parameters()) else "buffer"
            fail(f"Mutation of the model's {kind} {name}", "another value than before", "no change", look)
    if not all(weight.requires_grad for weight in model.parameters()):
        fail("Mutation of the model", "parameters without requires_grad", "parameters that can still learn", look)
    for old, new in zip(gradients, gradients_of(model), strict=True):
        if (old is None) != (new is None) or (old is not None and not torch.equal(old, new)):
            fail("Mutation of the model", "other gradients in its parameters than before", "no change", look)


def need_restored_modes(model: nn.Module, training: bool, grad_after: bool, grad: bool) -> None:
    names = {True: "training mode", False: "evaluation mode"}
    for module in model.modules():
        if module.training != training:
            look = "Remember model.training before you change it."
            fail("Mode of the model afterwards", names[module.training], f"{names[training]} as before", look)
    if grad_after != grad:
        names = {True: "switched on", False: "switched off"}
        look = "A with block puts the old state back by itself."
        fail("Torch's grad mode afterwards", names[grad_after], f"{names[grad]} as before", look)


def measure_by_hand(model: nn.Module, loader: Iterable) -> tuple[list[float], list[float]]:
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        pairs = [(model(images), targets) for images, targets in loader]
    return [squared_error(*pair).item() for pair in pairs], [agreement(*pair).item() for pair in pairs]


# What several checks need


class Network(nn.Module):
    """A small network that behaves differently in training mode.

    For each call it adds to `notes` whether a part of it was in training mode and whether the result has a graph. The
    list is the caller's, so it also gets the calls of a copy that the student works with.
    """

    def __init__(self, notes: list[tuple[bool, bool]] | None = None):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(), nn.Conv2d(2, 1, 1, bias=False)
        )
        self.note = ([] if notes is None else notes).append

    def forward(self, x):
        result = self.layers(x)
        self.note((any(module.training for module in self.modules()), result.requires_grad))
        return result


def images_and_targets(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of which the last one is much brighter than the others, so that its weight in a mean shows."""
    rng = torch.Generator().manual_seed(number)
    images = torch.randn(number, 1, 4, 4, generator=rng)
    images[-1] *= 5
    return images, (images + 0.5 * torch.randn(images.shape, generator=rng) > 0).float()


class Descent:
    """Gradient descent with momentum, used like an optimizer of torch.

    The first optimizer of torch's own in a process loads the whole compiler, which takes longer than a check may.
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


def need_scalar(value: Any, look: str) -> None:
    expect_type("the result", value, torch.Tensor, look if isinstance(value, (float, int)) else "")
    expect_shape("the result", value, (), "One number: the mean over everything.")
    if not value.dtype.is_floating_point:
        fail("dtype of the result", str(value.dtype), "a floating point type")


def need_gradient(what: str, result: torch.Tensor, x: torch.Tensor, expected: np.ndarray) -> None:
    if not result.requires_grad:
        look = "Compute with tensors throughout: no .item(), .detach(), .numpy() or no_grad on the way."
        fail(f"Gradient of {what}", "none", "one with respect to the logits", look)
    found = torch.autograd.grad(result, x, allow_unused=True)[0]
    if found is None:
        fail(f"Gradient of {what}", "none", "one with respect to the logits", "Does the result depend on the logits?")
    close = np.isclose(found.numpy(), expected, rtol=1e-3, atol=1e-5 / expected.size)
    if not close.all():
        place = tuple(np.argwhere(~close)[0])
        look = "A gradient that is not finite, or zero for a wrong answer, comes from rounding."
        fail(f"Gradient of {what}", f"{found.numpy()[place]:.3g}", f"{np.float32(expected[place]):.3g}", look)


def need_pair(found: Any, how: str) -> None:
    """`(mean loss, mean metric or None)` as Python floats."""
    what = f"the result {how}"
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        kind = f"{len(found)} values" if isinstance(found, (tuple, list)) else type(found).__name__
        fail(f"Type of {what}", kind, "a tuple (mean loss, mean metric)")
    loss, metric = found
    kinds = [("loss", loss, float), ("metric", metric, float if how == "with a metric" else type(None))]
    for name, value, kind in kinds:
        if type(value) is not kind:
            look = "Convert it with float(...) or .item()." if kind is float else "Without a metric there is no mean."
            expected = "a Python float" if kind is float else "None"
            fail(f"Type of the mean {name} {how}", type(value).__name__, expected, look)


def need_means(found: tuple, losses: list[float], metrics: list[float], sizes: list[int]) -> None:
    for name, value, values in [("loss", found[0], losses), ("metric", found[1], metrics)]:
        expected = float(np.average(values, weights=sizes))
        look = f"{name}(logits, targets) of each batch (before the step, if any), weighted by its number of images."
        if math.isclose(value, np.mean(values), rel_tol=1e-4):
            look = "That is the mean over batches; the last batch has fewer images and must count less."
        elif math.isclose(value, np.sum(values), rel_tol=1e-4):
            look = "That is the sum over batches; the mean over images is asked for."
        elif math.isclose(value, np.dot(values, sizes), rel_tol=1e-4):
            look = "That is the sum over images: divide by their number."
        elif math.isclose(value, values[-1], rel_tol=1e-4):
            look = "That is the value of the last batch."
        expect_close(f"the mean {name}", value, expected, look, 1e-4)


def need_device(run: Callable) -> None:
    """Batches travel to the device of the model.

    A GPU may be missing, but there is always the meta device: tensors that have shapes and no numbers.
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
        raise RuntimeError("There is nothing to compute without numbers. All that is asked for is known by now.")

    with contextlib.suppress(Exception):  # also for what else a right loop may do that this device cannot
        run(OnMeta(), [images_and_targets(2)], loss_or_metric, loss_or_metric)
    for name, device in seen.items():
        if device != "meta":
            look = "Any parameter of the model knows where it is."
            fail(f"Device of the {name}", device, "the device of the model's parameters", look)


def gradients_of(model: nn.Module) -> list[torch.Tensor | None]:
    return [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]


def same_parameters(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.allclose(x, y, rtol=1e-3, atol=1e-5) for x, y in zip(a.parameters(), b.parameters(), strict=True))
