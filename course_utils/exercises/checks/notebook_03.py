"""The checks of notebook 03.

Losses are compared with float64, and training loops with the same loop written here, for a network of
thirty parameters.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.checks.models import MODES, ModelState, Notes, pictured
from course_utils.exercises.diagrams import Curves
from course_utils.exercises.feedback import (
    CheckFailed,
    check_part,
    diagnosis,
    expect_callable,
    expect_close,
    expect_error,
    expect_float,
    expect_pair,
    expect_shape,
    expect_type,
    fail,
    untouched,
)
from course_utils.exercises.pictures import Panel, Panels

# 3.1 binary_cross_entropy


def check_binary_cross_entropy(binary_cross_entropy) -> None:
    expect_callable(binary_cross_entropy, "binary_cross_entropy")
    with pictured(partial(loss_curves, binary_cross_entropy)):
        _check_binary_cross_entropy(binary_cross_entropy)


def loss_curves(binary_cross_entropy: Callable, error: Exception) -> Curves | None:
    """The loss of one pixel and its gradient against the logit, for the first range and target that are wrong."""

    def points(loss_fn: Callable, dtype: torch.dtype, target: float) -> np.ndarray:
        result = []
        for logit in x:
            point = torch.tensor([[logit]], dtype=dtype, requires_grad=True)
            loss = loss_fn(point, torch.full((1, 1), target, dtype=dtype))
            result.append((loss.item(), torch.autograd.grad(loss, point)[0].item()))
        return np.array(result).T

    for largest, target in [(6, 1.0), (6, 0.0), (120, 1.0), (120, 0.0)]:
        x = np.linspace(-largest, largest, 50)
        found, right = (points(binary_cross_entropy, torch.float32, target),
                        points(binary_cross_entropy_with_logits, torch.float64, target))  # fmt: skip
        wrong = np.argwhere(~np.isclose(found, right, rtol=1e-3, atol=1e-4))
        if len(wrong) and str(error).startswith(("Value", "Gradient")):
            (row, column), names = wrong[0], [f"{name}, target {target:g}" for name in ("loss", "gradient")]
            alt = (f"Loss and gradient of one pixel against its logit. First wrong: {names[row]}, at the logit "
                   f"{x[column]:.3g}: found {found[row, column]:.4g}, expected {right[row, column]:.4g}.")  # fmt: skip
            return Curves(x, tuple(zip(names, found, right, strict=True)), "logit", alt)
    return None


def _check_binary_cross_entropy(binary_cross_entropy: Callable) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for shape in [(2, 1, 3, 4), (7,), (3, 5)]:
        logits = torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32))
        hard = torch.from_numpy(rng.integers(0, 2, shape).astype(np.float32))
        soft = torch.from_numpy(rng.random(shape, dtype=np.float32))
        for kind, target in [("0 and 1", hard), ("between 0 and 1", soft)]:
            cases.append((f"the result for logits {shape} and targets {kind}", logits, target))
    losses = [value_of(binary_cross_entropy, logits, target) for _, logits, target in cases]
    right = [exact_cross_entropy(logits, target) for _, logits, target in cases]
    doubles = [(logits.double(), target.double()) for _, logits, target in cases]
    look = diagnosis(losses, right, MISTAKES_IN_CROSS_ENTROPY, cases=doubles)
    look = look or "The mean over all elements of -t log(p) - (1 - t) log(1 - p), where p is the sigmoid of the logit."
    for (what, logits, target), loss, expected in zip(cases, losses, right, strict=True):
        expect_close(what, loss, expected, look, 1e-4)
        expect_gradient(what, binary_cross_entropy, logits, target)

    for logit in (-1e4, -200.0, -50.0, 50.0, 200.0, 1e4):
        for value in (0.0, 0.3, 1.0):
            logits, target = torch.full((2, 2), logit), torch.full((2, 2), value)
            what = f"the result for logits {logit:g} and targets {value:g}"
            loss = value_of(binary_cross_entropy, logits, target)
            look = "Clamping or adding a small number changes the value: simplify the formula before you compute it."
            if math.isnan(loss):
                look = "It comes from 0 * inf or inf - inf: a sigmoid was rounded to 0 or 1, or an exp overflowed."
            elif math.isinf(loss):
                look = "It is the exp of a large number, or the log of a sigmoid that was rounded to 0."
            expect_close(what, loss, exact_cross_entropy(logits, target), look, 1e-4)
            expect_gradient(what, binary_cross_entropy, logits, target)
    for shape, target_shape in [((4, 1, 3, 3), (4, 3, 3)), ((3, 4), (4,)), ((2, 1), (1, 2))]:
        call = partial(binary_cross_entropy, torch.zeros(shape), torch.ones(target_shape))
        what = f"Result for logits {shape} and targets {target_shape}"
        expect_error(what, call, look="The shapes differ: compare them first.")


def value_of(binary_cross_entropy: Callable, logits: torch.Tensor, target: torch.Tensor) -> float:
    """The result as a number: a scalar tensor that the code computes with a formula of its own."""
    with untouched(logits=logits, target=target), TorchsOwn() as torchs_own:
        loss = binary_cross_entropy(logits, target)
    expect_scalar(loss, "Return the tensor itself: float(...) and .item() lose the gradient.")
    if torchs_own.called:
        hint = "Write the formula for logits; you may use exp, log and softplus."
        fail("Own formula", f"a call of torch's {torchs_own.called}", "none", hint)
    return loss.item()


def exact_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> float:
    return binary_cross_entropy_with_logits(logits.double(), target.double()).item()


# What each mistake makes of the logits x and the target t.
MISTAKES_IN_CROSS_ENTROPY = {
    "That is the sum; the task asks for the mean over all elements.":
        lambda x, t: (softplus(x) - t * x).sum(),
    "That is the sum over the elements of each image; the task asks for the mean over all elements.":
        lambda x, t: (softplus(x) - t * x).sum() / len(x),
    "The sign is wrong.": lambda x, t: (t * x - softplus(x)).mean(),
    "That is the term of t = 1 alone: the background counts, too.": lambda x, t: (t * softplus(-x)).mean(),
    "That is the term of t = 0 alone: the foreground counts, too.": lambda x, t: ((1 - t) * softplus(x)).mean(),
    "The target stands in the place of the logits.": lambda x, t: (softplus(t) - t * x).mean(),
    "The target is used the wrong way round: 1 is foreground.": lambda x, t: (softplus(x) - (1 - t) * x).mean(),
    "The sign of the product is wrong.": lambda x, t: (softplus(x) + t * x).mean(),
    "The sigmoid is applied twice: the formula already contains it.":
        lambda x, t: (softplus(x.sigmoid()) - t * x.sigmoid()).mean(),
    "The logarithm is the natural one, not that to base 2.":
        lambda x, t: (softplus(x) - t * x).mean() / math.log(2),
}  # fmt: skip


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
    cases = []
    for shape in [(2, 3, 4, 5), (3, 2, 5, 3), (1, 1, 2, 3)]:
        maps = (shape[0] * shape[1], shape[2] * shape[3])
        target = (rng.random(maps) < share[: maps[0]]).astype(np.float32)
        target[:, 0] = 1  # no map is empty yet
        logits = rng.normal(target - 0.5, 2).astype(np.float32)
        cases.append([torch.from_numpy(array.reshape(shape)) for array in (logits, target)])
    scores = []
    for logits, target in cases:
        with untouched(logits=logits, target=target):
            scores.append(dice_score(logits, target))
        expect_scalar(scores[-1], "Return the tensor itself, without float(...) or .item().")
    scores = [score.item() for score in scores]
    flat = [(logits.double().flatten(2), target.double().flatten(2)) for logits, target in cases]
    cases_by_hand = [(x, x.sigmoid(), target) for x, target in flat]
    right = [dice_by_hand(p, target).item() for _, p, target in cases_by_hand]
    look = diagnosis(scores, right, MISTAKES_IN_DICE, cases=cases_by_hand)
    for pair, score, expected in zip(cases, scores, right, strict=True):
        what = f"the result for tensors {tuple(pair[0].shape)}"
        if not 0 <= score <= 1:
            look = look or "Each score is from 0 to 1, and so is their mean: apply the sigmoid to the logits."
            fail(f"Range of {what}", score, "a number from 0 to 1", look)
        look = look or "For each image and channel: 2 * sum(p * t) / (sum(p) + sum(t))."
        with pictured(partial(dice_panels, pair[0].sigmoid(), pair[1])):
            expect_close(what, score, expected, look, 1e-4)
    expect_dice_of_empty_maps(dice_score)


def expect_dice_of_empty_maps(dice_score: Callable) -> None:
    nothing, everything = torch.full((1, 1, 3, 4), -1e4), torch.full((1, 1, 3, 4), 1e4)
    empty, full, one_pixel = torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    one_pixel[0, 0, 1, 2] = 1
    each_map = "The rule for empty maps holds for each map, not for the whole batch, and each map counts in the mean."
    nothing_overlaps = "Nothing overlaps. A small number that keeps 0/0 away must be far smaller than a pixel."
    for what, logits, target, expected, look in [
        ("a full prediction of a full target", everything, full, 1.0, "Everything overlaps."),
        ("an empty prediction of one pixel", nothing, one_pixel, 0.0, nothing_overlaps),
        ("a full prediction of an empty target", everything, empty, 0.0, "Nothing overlaps: only both empty gives 1."),
        ("an empty prediction of an empty target", nothing, empty, 1.0,
         "0/0 needs a rule: nothing was to be found and nothing was found, so all is right."),
        ("one map found and one correctly empty", torch.cat([everything, nothing], 1), torch.cat([one_pixel, empty], 1),
         (2 / 13 + 1) / 2, each_map),
        ("one image found and one correctly empty", torch.cat([nothing, everything]), torch.cat([empty, one_pixel]),
         (2 / 13 + 1) / 2, each_map),
    ]:  # fmt: skip
        score = dice_score(logits, target)
        expect_scalar(score, f"Return a tensor for {what}, too.")
        with pictured(partial(dice_panels, logits.sigmoid(), target)):
            expect_close(f"the result for {what}", score, expected, look, 1e-4)


def dice_panels(probability: torch.Tensor, target: torch.Tensor, error: CheckFailed, first: int = 0) -> Panels:
    """The probability of each map with the outline of its target, and its Dice; `first` is the first channel."""
    panels, scores = [], []
    for image, channel in np.ndindex(*probability.shape[:2]):
        p, t = probability[image, channel], target[image, channel]
        scores.append(float(2 * (p * t).sum() / (p + t).sum() if (p + t).any() else 1))
        title = f"p[{image}, {first + channel}], target in orange: Dice {scores[-1]:.3f}"
        panels.append(Panel(title, p.numpy().round(2), "probability", t.numpy().astype(bool)))
    alt = "Probabilities p[image, channel], in orange the outline of the target, and the Dice of each map;"
    return Panels(tuple(panels), f"{alt} mean {np.mean(scores):.3f}. {error.finding}")


def dice_by_hand(
    p: torch.Tensor, t: torch.Tensor, axes: int | tuple = 2, factor: float = 2.0, smooth: float = 0.0
) -> torch.Tensor:
    """The mean over maps, none of them empty, whose pixels are in the last axis."""
    return ((factor * (p * t).sum(axes) + smooth) / (p.sum(axes) + t.sum(axes) + smooth)).mean()


EACH_MAP = "First compute the Dice of each image and channel, then their mean."
# What each mistake makes of the logits x, their sigmoid p and the target t.
MISTAKES_IN_DICE = {
    f"That is the Dice of all pixels together. {EACH_MAP}": lambda x, p, t: dice_by_hand(p, t, (0, 1, 2)),
    f"That is the Dice of the whole batch for each channel. {EACH_MAP}": lambda x, p, t: dice_by_hand(p, t, (0, 2)),
    f"That is the Dice of all channels together for each image. {EACH_MAP}": lambda x, p, t: dice_by_hand(p, t, (1, 2)),
    "Logits are not probabilities: apply the sigmoid.": lambda x, p, t: dice_by_hand(x, t),
    "The sigmoid is applied twice.": lambda x, p, t: dice_by_hand(p.sigmoid(), t),
    "That is the Dice of the thresholded mask; use the probabilities.":
        lambda x, p, t: dice_by_hand((p > 0.5).double(), t),
    "That is the Dice of the softmax over channels: each has its own sigmoid.":
        lambda x, p, t: dice_by_hand(x.softmax(1), t),
    "The factor 2 is missing.": lambda x, p, t: dice_by_hand(p, t, factor=1.0),
    "No squares in the denominator.":
        lambda x, p, t: (2 * (p * t).sum(2) / (p.square().sum(2) + t.square().sum(2))).mean(),
    "That is the IoU (Jaccard index).": lambda x, p, t: ((p * t).sum(2) / (p + t - p * t).sum(2)).mean(),
    "That is the precision: the overlap divided by the sum of p.":
        lambda x, p, t: ((p * t).sum(2) / p.sum(2)).mean(),
    "That is the recall: the overlap divided by the sum of t.": lambda x, p, t: ((p * t).sum(2) / t.sum(2)).mean(),
    "That is the share of right pixels (accuracy).": lambda x, p, t: ((p > 0.5) == (t > 0.5)).double().mean(),
    "A smoothing constant of 1 changes the score of small maps; treat 0/0 separately.":
        lambda x, p, t: dice_by_hand(p, t, smooth=1.0),
    "A smoothing constant of 0.001 changes the score of small maps; treat 0/0 separately.":
        lambda x, p, t: dice_by_hand(p, t, smooth=1e-3),
    "That is one minus the score: a loss.": lambda x, p, t: 1 - dice_by_hand(p, t),
    "That is the sum; the task asks for the mean over images and channels.":
        lambda x, p, t: dice_by_hand(p, t) * len(p) * p.shape[1],
}  # fmt: skip


# 3.3 train_epoch


def check_train_epoch(train_epoch) -> None:
    expect_callable(train_epoch, "train_epoch")
    torch.manual_seed(0)
    cases = []
    for number, batch_size in [(9, 4), (5, 2)]:  # batches of 4, 4 and 1, of 2, 2 and 1
        loader = loader_of(number, batch_size)
        model = Network().eval()
        untrained, twin, careless, hasty = (copy.deepcopy(model) for _ in range(4))
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
            train_by_hand(hasty.train(), [next(iter(loader))], Descent(hasty))
            if same_parameters(model, hasty):
                fail("Parameters after the epoch", "those after one batch", "all", "Is the `return` indented too far?")
            look = "For each batch once: reset the gradients, loss_fn(logits, targets), backward, step."
            fail("Parameters after the epoch", "other values", "those after one step for each of the 3 batches", look)
        cases.append((found, losses, metrics, [batch_size, batch_size, 1]))
    expect_means(cases, " before the step")
    for sizes in ([3, 1], [1]):
        expect_any_iterable(train_epoch, sizes)
    expect_no_graphs(train_epoch)


@check_part()
def expect_any_iterable(train_epoch: Callable, sizes: list[int]) -> None:
    """A loader may be anything that yields batches; without a metric the mean metric is None."""
    batches = [images_and_targets(size) for size in sizes]
    model = Network()
    twin = copy.deepcopy(model)
    with untouched(images=[images for images, _ in batches], targets=[targets for _, targets in batches]):
        found = without_metric(train_epoch, model, (batch for batch in batches), squared_error, Descent(model))
    losses, _ = train_by_hand(twin, batches, Descent(twin))
    look = "The loader may be any iterable of batches, so count the images in each."
    expect_close("the mean loss of a generator's batches", found[0], np.average(losses, weights=sizes), look, 1e-4)


@check_part()
def expect_no_graphs(train_epoch: Callable) -> None:
    """What is summed up holds no graph: at the sixth batch those of the first three are gone."""
    graphs, held = [], 0

    class Mark:
        """An object that lives as long as the graph it is put into."""

    def alive() -> int:
        return sum(graph() is not None for graph in graphs[:3])

    class Watched(Network):
        def forward(self, x):
            nonlocal held
            if len(graphs) == 5 and alive():
                gc.collect()  # a cycle of references, as of a closure, may hold it for a while
                held = alive()
            result, mark = super().forward(x), Mark()
            if result.grad_fn is not None:
                result.grad_fn.metadata["mark"] = mark
                graphs.append(weakref.ref(mark))
            return result

    model = Watched()
    train_epoch(model, [images_and_targets(2)] * 6, squared_error, Descent(model), agreement)
    if held:
        look = "A sum of tensors that have a gradient keeps the graph of each batch: add up numbers, as .item() gives."
        fail("Memory: graphs of the first three batches at the sixth", held, "none", look)


def without_metric(run: Callable, *arguments: Any) -> tuple:
    try:
        found = run(*arguments)
    except TypeError as error:
        if "'NoneType' object is not callable" not in str(error):
            raise
        look = "Compute the metric only if there is one, and return None if not."
        fail("Result without a metric", "a call of the metric, which is None by default", "no call", look)
    expect_means_of("without a metric", found)
    return found


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
    cases = []
    for training, grad, number, batch_size in [(True, True, 9, 4), (False, True, 5, 2), (True, False, 9, 4)]:
        loader = loader_of(number, batch_size)
        images, targets = loader.dataset.tensors
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
        cases.append((found, *measure_by_hand(model, loader), [batch_size, batch_size, 1]))
        with untouched(images=images, targets=targets):
            without_metric(validate, model, [(images, targets), (images[:1], targets[:1])], squared_error)
        without_metric(validate, model, [(images[:1], targets[:1])], squared_error)
    expect_device(validate)
    expect_means(cases)
    expect_restored_after_errors(validate)


@check_part()
def expect_restored_after_errors(validate: Callable) -> None:
    """The model's mode and torch's gradient mode are those of before, whatever raises an error meanwhile."""

    def broken(*_arguments):
        raise RuntimeError("An error that the check makes.")

    def broken_loader():
        yield images_and_targets(2)
        broken()

    def restored(function: str, **parts: Any) -> None:
        model = Network()
        if function == "the model":
            model.layers.forward = broken
        loader = parts.get("loader", [images_and_targets(2)])
        with torch.enable_grad():
            with contextlib.suppress(RuntimeError):
                validate(model, loader, parts.get("loss_fn", squared_error), parts.get("metric", agreement))
            grad = torch.is_grad_enabled()
        if not all(part.training for part in model.modules()):
            look = "What stands behind `finally` is done even then."
            fail(f"Mode of the model after an error in {function}", MODES[False], f"{MODES[True]} as before", look)
        if not grad:
            look = "A `with` block restores it even then."
            fail(f"Torch's gradient mode after an error in {function}", "switched off", "switched on as before", look)

    restored("the loss function", loss_fn=broken)
    restored("the metric", metric=broken)
    restored("the model")
    restored("the loader", loader=broken_loader())


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


def loader_of(number: int, batch_size: int) -> DataLoader:
    return DataLoader(TensorDataset(*images_and_targets(number)), batch_size=batch_size)


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
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a closure computes loss and gradients first, and its result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                self.velocity[weight] = 0.9 * self.velocity.get(weight, 0) + weight.grad
                weight -= self.param_groups[0]["lr"] * self.velocity[weight]
        return loss


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


def expect_gradient(
    what: str, loss_fn: Callable, logits: torch.Tensor, target: torch.Tensor,
    exact_loss: Callable = binary_cross_entropy_with_logits,
) -> None:  # fmt: skip
    """The gradient is that of the exact loss in float64."""
    x, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    result = loss_fn(x, target)
    if not result.requires_grad:
        look = "Compute with tensors throughout, without .item(), .detach(), .numpy() or no_grad."
        fail(f"Gradient of {what}", "none", "one with respect to the logits", look)
    found = torch.autograd.grad(result, x, allow_unused=True)[0]
    if found is None:
        fail(f"Gradient of {what}", "none", "one with respect to the logits", "Does the result depend on the logits?")
    exact_target = target.double() if target.is_floating_point() else target
    expected = torch.autograd.grad(exact_loss(exact, exact_target), exact)[0].numpy()
    close = np.isclose(found.numpy(), expected, rtol=1e-3, atol=1e-5 / expected.size)
    if not close.all():
        place = tuple(np.argwhere(~close)[0])
        look = "The value is right and the gradient is not: does part of the formula work on .detach() or .data?"
        if not np.isfinite(found.numpy()[place]):
            look = "torch.where and torch.nan_to_num hide a value that is not finite, but its gradient still counts."
        elif not found.numpy()[~close].any():
            look = "Clamping stops the gradient where a wrong answer needs it most."
        fail(f"Gradient of {what}", f"{found.numpy()[place]:.3g}", f"{np.float32(expected[place]):.3g}", look)


def expect_means_of(how: str, found: Any) -> None:
    """`(mean loss, mean metric or None)` as Python floats."""
    expect_pair(f"the result {how}", found, "(mean loss, mean metric)")
    expect_float(f"the mean loss {how}", found[0], "a Python float")
    if how == "with a metric":
        expect_float(f"the mean metric {how}", found[1], "a Python float")
    elif found[1] is not None:
        what, look = f"Type of the mean metric {how}", "Without a metric there is no mean."
        fail(what, type(found[1]).__name__, "None", look)


@check_part()
def expect_means(cases: list, when: str = "") -> None:
    """The means of each case `((mean loss, mean metric), losses, metrics, sizes)` of batches of these sizes."""
    right = [[float(np.average(values, weights=sizes)) for values in pair] for _, *pair, sizes in cases]
    for position, name in enumerate(("loss", "metric")):
        batches = [(np.array(case[1 + position]), np.array(case[3])) for case in cases]
        mistakes = {
            "That is the mean over batches; the last batch has fewer images, so its weight is smaller.":
                [values.mean() for values, _ in batches],
            "That is the sum over batches; the task asks for the mean over images.":
                [values.sum() for values, _ in batches],
            "That is the sum over images: divide by their number.": [values @ sizes for values, sizes in batches],
            "That is the sum over images divided by the number of batches: divide by that of images.":
                [values @ sizes / len(sizes) for values, sizes in batches],
            "That is the sum over images divided by that of full batches: the last batch has fewer images.":
                [values @ sizes / (len(sizes) * sizes[0]) for values, sizes in batches],
            "That is the value of the last batch.": [values[-1] for values, _ in batches],
            "That is the value of the first batch.": [values[0] for values, _ in batches],
            f"That is the mean {'loss' if position else 'metric'}: the loss comes first, then the metric.":
                [means[1 - position] for means in right],
        }  # fmt: skip
        found, expected = [case[0][position] for case in cases], [means[position] for means in right]
        look = diagnosis(found, expected, mistakes)
        look = look or f"{name}(logits, targets) of each batch{when}, weighted by its number of images."
        for value, mean in zip(found, expected, strict=True):
            expect_close(f"the mean {name}", value, mean, look, 1e-4)


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
