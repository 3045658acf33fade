"""The checks of notebook 06.

Dice may be computed for each image or over the batch. Draws of a bootstrap differ from one right solution to the next:
intervals are compared with the distribution that they come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

from course_utils.exercises.checks.models import pictured
from course_utils.exercises.checks.notebook_01 import _seed_globally
from course_utils.exercises.checks.notebook_03 import dice_panels, expect_gradient, expect_scalar
from course_utils.exercises.diagrams import Curves
from course_utils.exercises.feedback import (
    CheckFailed,
    check_part,
    diagnosis,
    expect_callable,
    expect_close,
    expect_dtype,
    expect_error,
    expect_python_float,
    expect_shape,
    expect_type,
    fail,
    untouched,
)

# 6.1 multiclass_dice_loss

EACH_IMAGE, BATCH = 2, (0, 2)  # the axes of (N, C, pixels) that are summed over: both are right


def check_multiclass_dice_loss(multiclass_dice_loss) -> None:
    expect_callable(multiclass_dice_loss, "multiclass_dice_loss")
    _expect_values(multiclass_dice_loss)
    _expect_absent_classes(multiclass_dice_loss)
    _expect_other_numbers_of_classes(multiclass_dice_loss)
    _expect_sure_predictions(multiclass_dice_loss)


def _logits_and_target(seed: int, n: int, classes: int, height: int, width: int, absent: tuple = ()) -> tuple:
    """Logits that are right more often than not; the classes are unequal, and so are the images.

    `absent` are pairs (image, class): the first pixel of an image is of class 0, the second of class 1, and so on.
    """
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.linspace(4, 1, classes), n)
    target = np.array([rng.choice(classes, height * width, p=p) for p in share])
    target[:, :classes] = np.arange(classes)
    for image, class_ in absent:
        target[image][target[image] == class_] = 0
    logits = rng.normal(0, 1.5, (n, classes, height * width)) + 1.5 * np.moveaxis(np.eye(classes)[target], -1, 1)
    logits[:, 0] += 0.5
    return (torch.from_numpy(logits.reshape(n, classes, height, width).astype(np.float32)),
            torch.from_numpy(target.reshape(n, height, width)))  # fmt: skip


def _loss_of(multiclass_dice_loss: Callable, logits: torch.Tensor, target: torch.Tensor) -> float:
    with untouched(logits=logits, target=target):
        loss = multiclass_dice_loss(logits, target)
    expect_scalar(loss, "Return the tensor itself: float(...) and .item() lose the gradient.")
    return loss.item()


def _flat(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, their softmax and the target as ones and zeros: float64, `(N, C, pixels)`."""
    x = logits.double().flatten(2)
    return x, x.softmax(1), one_hot(target.flatten(1), logits.shape[1]).movedim(-1, 1).double()


def _dice(p: torch.Tensor, t: torch.Tensor, axes: Any, factor: float = 2.0, above: float = 0.0, below: float = 0.0):
    return (factor * (p * t).sum(axes) + above) / (p.sum(axes) + t.sum(axes) + below)


def _one_minus(dice: torch.Tensor) -> torch.Tensor:
    """The loss of Dice scores whose last axis are the classes."""
    return 1 - dice[..., 1:].mean()


def _exact(logits: torch.Tensor, target: torch.Tensor, axes: Any) -> torch.Tensor:
    return _one_minus(_dice(*_flat(logits, target)[1:], axes))


@check_part()
def _expect_values(multiclass_dice_loss: Callable) -> None:
    cases = [_logits_and_target(seed, *shape) for seed, shape in
             enumerate([(2, 3, 6, 8), (3, 3, 5, 7), (1, 3, 4, 9)])]  # fmt: skip
    found = [_loss_of(multiclass_dice_loss, *case) for case in cases]
    look = "For each class from 1: 2 * sum(p * t) / (sum(p) + sum(t)), with p from the softmax."
    whats = [f"the result for logits {tuple(logits.shape)}" for logits, _ in cases]
    _expect_one_of_both(found, cases, whats, look, MISTAKES_IN_DICE_LOSS)
    axes = _matching(found, cases)
    for logits, target in cases:
        what = f"the result for logits {tuple(logits.shape)}"
        expect_gradient(what, multiclass_dice_loss, logits, target, partial(_exact, axes=axes))


def _matching(found: list[float], cases: list[tuple]) -> Any:
    """The axes with which all losses are the right ones, or None."""
    right = {axes: [_exact(*case, axes).item() for case in cases] for axes in (BATCH, EACH_IMAGE)}
    return next((axes for axes, losses in right.items() if np.allclose(found, losses, atol=1e-4)), None)


def _expect_one_of_both(
    found: list[float], cases: list[tuple], whats: list[str], look: str, suspects: dict[str, Callable]
) -> None:
    if _matching(found, cases) is not None:
        return
    both = [[_exact(*case, axes).item() for case in cases] for axes in (BATCH, EACH_IMAGE)]
    for axes, right in zip((BATCH, EACH_IMAGE), both, strict=True):
        arguments = [(*_flat(*case), axes) for case in cases]
        look = diagnosis(found, right, suspects, cases=arguments) or look
    for what, value, over_batch, over_images, (logits, target) in zip(whats, found, *both, cases, strict=True):
        if not np.isclose(value, [over_batch, over_images], atol=1e-4).any() or len(found) == whats.index(what) + 1:
            right = f"{over_batch:.6g}"
            if abs(over_batch - over_images) > 1e-4:
                right = f"{over_batch:.6g} (sums over the batch) or {over_images:.6g} (over each image)"
            t = one_hot(target, logits.shape[1]).movedim(-1, 1)
            with pictured(partial(dice_panels, logits.softmax(1)[:, 1:], t[:, 1:], first=1)):
                name = "Value" if 0 <= value <= 1 else "Range"
                fail(f"{name} of {what}", round(value, 6), right, look)


def _mixed(t: torch.Tensor) -> torch.Tensor:
    """What `reshape` in the place of `movedim` makes of one-hot classes."""
    return t.movedim(1, -1).reshape(t.shape)


def _generalized(p: torch.Tensor, t: torch.Tensor, axes: Any) -> torch.Tensor:
    weight = 1 / t.sum(axes)[..., 1:].square()
    overlap, total = (p * t).sum(axes)[..., 1:], (p + t).sum(axes)[..., 1:]
    return 1 - (2 * (weight * overlap).sum(-1) / (weight * total).sum(-1)).mean()


# What each mistake makes of the logits x, their softmax p, the target t and the axes a that are summed over.
MISTAKES_IN_DICE_LOSS: dict[str, Callable] = {
    "That is the Dice itself, 1 - is missing: a loss falls as the prediction gets better.":
        lambda x, p, t, a: 1 - _one_minus(_dice(p, t, a)),
    "That is minus the Dice: the loss is one minus it.": lambda x, p, t, a: _one_minus(_dice(p, t, a)) - 1,
    "These are squares in the denominator, as MONAI-like libraries offer: here it is sum(p) + sum(t), without them.":
        lambda x, p, t, a: _one_minus(2 * (p * t).sum(a) / (p.square() + t.square()).sum(a)),
    "The background is included: only the classes from 1 count.": lambda x, p, t, a: 1 - _dice(p, t, a).mean(),
    "That is the background alone: the classes from 1 count.": lambda x, p, t, a: 1 - _dice(p, t, a)[..., 0].mean(),
    "The softmax is missing: logits are not probabilities.": lambda x, p, t, a: _one_minus(_dice(x, t, a)),
    "That is the sigmoid of each logit: the classes exclude each other, so take the softmax.":
        lambda x, p, t, a: _one_minus(_dice(x.sigmoid(), t, a)),
    "The softmax is applied twice.": lambda x, p, t, a: _one_minus(_dice(p.softmax(1), t, a)),
    "That is the logarithm of the softmax: take the softmax itself.":
        lambda x, p, t, a: _one_minus(_dice(x.log_softmax(1), t, a)),
    "The softmax is over the images of the batch: the classes are axis 1.":
        lambda x, p, t, a: _one_minus(_dice(x.softmax(0), t, a)),
    "The softmax is over the pixels: the classes are axis 1.":
        lambda x, p, t, a: _one_minus(_dice(x.softmax(2), t, a)),
    "That is the Dice of the argmax, which is not differentiable: use the probabilities.":
        lambda x, p, t, a: _one_minus(_dice(one_hot(x.argmax(1), x.shape[1]).movedim(-1, 1).double(), t, a)),
    "That is the Dice of probabilities above 0.5, which is not differentiable: use the probabilities themselves.":
        lambda x, p, t, a: _one_minus(_dice((p > 0.5).double(), t, a)),
    "The factor 2 is missing.": lambda x, p, t, a: _one_minus(_dice(p, t, a, factor=1)),
    "That is the IoU (Jaccard index): its denominator is sum(p) + sum(t) - sum(p * t).":
        lambda x, p, t, a: _one_minus((p * t).sum(a) / (p + t - p * t).sum(a)),
    "The overlap is divided by the sum of p alone.": lambda x, p, t, a: _one_minus((p * t).sum(a) / p.sum(a)),
    "The overlap is divided by the sum of t alone.": lambda x, p, t, a: _one_minus((p * t).sum(a) / t.sum(a)),
    "That is the sum over the classes: take the mean.":
        lambda x, p, t, a: (1 - _dice(p, t, a)[..., 1:]).sum(-1).mean(),
    "That is one minus the sum over the classes: take their mean.":
        lambda x, p, t, a: 1 - _dice(p, t, a)[..., 1:].sum(-1).mean(),
    "That is the sum over the images: take the mean.":
        lambda x, p, t, a: (1 - _dice(p, t, 2)[:, 1:].mean(1)).sum(),
    "That is one Dice of all classes together, in which large classes count more: first each class, then their mean.":
        lambda x, p, t, a: 1 - (2 * (p * t).sum(a)[..., 1:].sum(-1) / (p + t).sum(a)[..., 1:].sum(-1)).mean(),
    "That is one Dice of all classes together, background included: first each class, then the mean from class 1.":
        lambda x, p, t, a: 1 - (2 * (p * t).sum(a).sum(-1) / (p + t).sum(a).sum(-1)).mean(),
    "That is the Dice of foreground against background: each class has its own.":
        lambda x, p, t, a: 1 - _dice(1 - p[:, :1], 1 - t[:, :1], a).mean(),
    "That is the generalized Dice, which weights the classes by their size: take the plain mean.":
        lambda x, p, t, a: _generalized(p, t, a),
    "That is class 1 alone.": lambda x, p, t, a: 1 - _dice(p, t, a)[..., 1].mean(),
    "That is the last class alone.": lambda x, p, t, a: 1 - _dice(p, t, a)[..., -1].mean(),
    "These are the classes 1 and 2 only: there are as many as logits have channels.":
        lambda x, p, t, a: 1 - _dice(p, t, a)[..., 1:3].mean(),
    "The last class is left out.": lambda x, p, t, a: 1 - _dice(p, t, a)[..., 1:-1].mean(),
    "The target is mixed up: one_hot puts the classes last; movedim(-1, 1) brings them to axis 1, reshape does not.":
        lambda x, p, t, a: _one_minus(_dice(p, _mixed(t), a)),
    "A smoothing constant of 1 changes the score of small classes: make it far smaller than a pixel.":
        lambda x, p, t, a: _one_minus(_dice(p, t, a, above=1, below=1)),
    "A constant of 1 in the denominator changes the score of small classes: make it far smaller than a pixel.":
        lambda x, p, t, a: _one_minus(_dice(p, t, a, below=1)),
    "That is the logarithm of the Dice: the loss is one minus the mean Dice.":
        lambda x, p, t, a: -_dice(p, t, a)[..., 1:].log().mean(),
    "That is the cross entropy.": lambda x, p, t, a: cross_entropy(x, t.argmax(1)),
    "That is cross entropy and Dice loss together: here the Dice loss alone.":
        lambda x, p, t, a: cross_entropy(x, t.argmax(1)) + _one_minus(_dice(p, t, a)),
    "Target and prediction are of other classes: is the order of the classes reversed?":
        lambda x, p, t, a: _one_minus(_dice(p.flip(1), t, a)),
}  # fmt: skip
MISTAKES_WITH_ABSENT_CLASSES: dict[str, Callable] = {
    "A class that is absent counts, too, as soon as some of it is predicted: then its Dice is 0.":
        lambda x, p, t, a: 1 - torch.nanmean(torch.where(t.sum(a) > 0, _dice(p, t, a), torch.nan)[..., 1:]),
    "A class that is absent has Dice 1 only if none of it is predicted either; else 0.":
        lambda x, p, t, a: _one_minus(torch.where(t.sum(a) > 0, _dice(p, t, a), 1.0)),
}  # fmt: skip


@check_part()
def _expect_absent_classes(multiclass_dice_loss: Callable) -> None:
    for what, cases in {
        "class 2 is absent": [_logits_and_target(5, 1, 3, 6, 7, [(0, 2)]), _logits_and_target(8, 1, 3, 5, 6, [(0, 2)])],
        "class 1 is absent from an image": [_logits_and_target(6, 2, 3, 6, 7, [(1, 1)]),
                                            _logits_and_target(9, 3, 3, 5, 6, [(0, 1)])],
    }.items():  # fmt: skip
        found = []
        for case in cases:
            try:
                found.append(_loss_of(multiclass_dice_loss, *case))
            except (RuntimeError, IndexError) as error:
                error.args = (f"where {what}: one_hot, unique and bincount only know the classes they see, "
                              f"unless they are told their number. {error}",)  # fmt: skip
                raise
        look = "An absent class counts, too: with the softmax above 0 its Dice is 0."
        suspects = MISTAKES_WITH_ABSENT_CLASSES | MISTAKES_IN_DICE_LOSS
        _expect_one_of_both(found, cases, [f"the result where {what}"] * 2, look, suspects)
    logits, _ = _logits_and_target(7, 2, 3, 6, 7)
    loss = _loss_of(multiclass_dice_loss, logits, torch.zeros(2, 6, 7, dtype=torch.int64))
    expect_close("the result for targets without nuclei", loss, 1.0, "Something is predicted: each Dice is 0.", 1e-3)


@check_part()
def _expect_other_numbers_of_classes(multiclass_dice_loss: Callable) -> None:
    for classes in (4, 2):
        cases = [_logits_and_target(10 + seed, 2, classes, 5, 7) for seed in range(2)]
        found = [_loss_of(multiclass_dice_loss, *case) for case in cases]
        look = "There are as many classes as logits have channels."
        _expect_one_of_both(found, cases, [f"the result for {classes} classes"] * 2, look, MISTAKES_IN_DICE_LOSS)


@check_part()
def _expect_sure_predictions(multiclass_dice_loss: Callable) -> None:
    """With huge logits every probability is exactly 0 or 1, so that 0/0 may occur."""
    _, target = _logits_and_target(3, 1, 3, 4, 5)
    without = torch.where(target == 2, 0, target)
    for what, prediction, truth, expected in [
        ("a perfect prediction", target, target, 0.0),
        ("a prediction that is wrong everywhere", (target + 1) % 3, target, 1.0),
        ("a perfect prediction without class 2", without, without, None),
        ("a perfect prediction without nuclei", target * 0, target * 0, None),
    ]:
        logits = 1e4 * (2 * one_hot(prediction, 3).movedim(-1, 1) - 1).float()
        loss = _loss_of(multiclass_dice_loss, logits, truth)
        if expected is not None:
            expect_close(f"the result for {what}", loss, expected, "Are the classes of logits and target the same?")
        elif not 0 <= loss <= 1:
            look = "0/0 needs a rule: nothing was to be found and nothing was found, so Dice is 1."
            fail(f"Range of the result for {what}", loss, "a number from 0 to 1", look)
        logits.requires_grad_()
        gradient = torch.autograd.grad(multiclass_dice_loss(logits, truth), logits)[0]
        if not gradient.isfinite().all():
            look = "torch.where and torch.nan_to_num hide a 0/0, but its gradient still counts: avoid the 0 below."
            fail(f"Gradient of the result for {what}", "nan or inf", "a finite one", look)


# 6.2 class_weights


def check_class_weights(class_weights) -> None:
    expect_callable(class_weights, "class_weights")
    _expect_weights(class_weights)
    _expect_finite_weights(class_weights)


def _targets(seed: int, shares: list[float]) -> list[torch.Tensor]:
    """Targets of different sizes; each class has its share, about, but not in each of them."""
    rng = np.random.default_rng(seed)
    result = []
    for height, width in [(110, 130), (90, 70), (60, 150)]:
        own = np.array(shares) * rng.uniform(0.5, 1.5, len(shares))
        result.append(torch.from_numpy(rng.choice(len(shares), (height, width), p=own / own.sum())))
    return result


def _weights_of(class_weights: Callable, targets: list[torch.Tensor], n_classes: int, what: str) -> np.ndarray:
    with untouched(targets=targets):
        found = class_weights(targets) if n_classes == 3 else class_weights(targets, n_classes=n_classes)
    look = "torch.from_numpy or torch.tensor makes one." if isinstance(found, (np.ndarray, list, tuple)) else ""
    expect_type(what, found, torch.Tensor, look)
    look = "One weight for each class, also for one without pixels: say how many classes there are."
    expect_shape(what, found, (n_classes,), look)
    expect_dtype(what, found, torch.float32, "The cross entropy of float32 logits needs float32 weights.")
    return found.detach().cpu().numpy().astype(np.float64)


@check_part()
def _expect_weights(class_weights: Callable) -> None:
    cases = [
        ("the weights of three targets", _targets(0, [0.8, 0.15, 0.05]), 3),
        ("the weights if class 1 is the largest", _targets(1, [0.1, 0.6, 0.3])[:2], 3),
        ("the weights of one target", _targets(2, [0.3, 0.1, 0.6])[1:2], 3),
        ("the weights of four classes", _targets(3, [0.4, 0.1, 0.3, 0.2]), 4),
        ("the weights of two classes", _targets(4, [0.2, 0.8]), 2),
    ]
    found = [_weights_of(class_weights, targets, n, what) for what, targets, n in cases]
    counts = [np.array([np.bincount(target.flatten(), minlength=n) for target in targets]) for _, targets, n in cases]
    right = [_mean_1(1 / own.sum(axis=0)) for own in counts]
    advice = diagnosis(found, right, MISTAKES_IN_WEIGHTS, rtol=2e-3, cases=[(own,) for own in counts])
    look = advice or "1 / (number of pixels of the class in all targets), divided by the mean of these."
    for (what, *_), weights, expected, own in zip(cases, found, right, counts, strict=True):
        picture = partial(_weights_picture, what, weights, expected, own.sum(axis=0))
        expect_close(what, weights, expected, look, 2e-3, picture)


def _mean_1(weights: np.ndarray) -> np.ndarray:
    return weights / weights.mean()


def _weights_picture(what: str, found: np.ndarray, expected: np.ndarray, counts: np.ndarray) -> Curves:
    texts = [", ".join(f"{value:.4g}" for value in values) for values in (found, expected)]
    alt = f"Weights of the classes with {', '.join(map(str, counts))} pixels: found {texts[0]}, expected {texts[1]}."
    return Curves(np.arange(len(counts)), ((what, found, expected),), "class", alt)


def _share(counts: np.ndarray) -> np.ndarray:
    return counts.sum(axis=0) / counts.sum()


NOT_INVERSE = "the weight is the inverse of the frequency"
# What each mistake makes of the counts (targets, classes).
MISTAKES_IN_WEIGHTS: dict[str, Callable] = {
    "These are inverse frequencies, but their mean is not 1: divide by it.": lambda c: 1 / _share(c),
    "These are inverse numbers of pixels, but their mean is not 1: divide by it.": lambda c: 1 / c.sum(axis=0),
    "This is the number of pixels / (number of classes * pixels of the class), whose mean is not 1: divide by it.":
        lambda c: 1 / _share(c) / c.shape[1],
    "Their sum is 1: it is the mean that must be.": lambda c: _mean_1(1 / _share(c)) / c.shape[1],
    "The largest is 1: it is the mean that must be.": lambda c: _share(c).min() / _share(c),
    "The smallest is 1: it is the mean that must be.": lambda c: _share(c).max() / _share(c),
    "The background has 1: it is the mean that must be 1.": lambda c: _share(c)[0] / _share(c),
    "This is the median frequency by the frequency (median frequency balancing): the mean must be 1.":
        lambda c: np.median(_share(c)) / _share(c),
    f"These are the frequencies: {NOT_INVERSE}.": _share,
    f"These are the frequencies with a mean of 1: {NOT_INVERSE}.": lambda c: _mean_1(_share(c)),
    "These are the numbers of pixels.": lambda c: c.sum(axis=0),
    f"That is 1 - frequency: {NOT_INVERSE}.": lambda c: 1 - _share(c),
    f"That is 1 - frequency, with a mean of 1: {NOT_INVERSE}.": lambda c: _mean_1(1 - _share(c)),
    "These are inverse square roots of the frequencies: leave the root out.": lambda c: _mean_1(_share(c) ** -0.5),
    "These are inverse squares of the frequencies: leave the square out.": lambda c: _mean_1(_share(c) ** -2.0),
    "These are logarithms of the inverse frequencies: leave the logarithm out.":
        lambda c: _mean_1(-np.log(_share(c))),
    "These are inverse logarithms of the frequencies (as of ENet): leave the logarithm out.":
        lambda c: _mean_1(1 / np.log(1.02 + _share(c))),
    "These are means of the weights of each target: count the pixels of all targets first.":
        lambda c: _mean_1((1 / (c / c.sum(axis=1, keepdims=True))).mean(axis=0)),
    "These are means of the weights of each target, each with a mean of 1: count the pixels of all targets first.":
        lambda c: np.mean([_mean_1(1 / own) for own in c], axis=0),
    "Here every target counts the same: count the pixels of all targets, so that each pixel does.":
        lambda c: _mean_1(1 / (c / c.sum(axis=1, keepdims=True)).mean(axis=0)),
    "These are the weights of the first target alone.": lambda c: _mean_1(1 / c[0]),
    "These are the weights of the last target alone.": lambda c: _mean_1(1 / c[-1]),
    "The order is reversed: weight k is that of class k.": lambda c: _mean_1(1 / c.sum(axis=0))[::-1],
    "They are sorted: weight k is that of class k.": lambda c: np.sort(_mean_1(1 / c.sum(axis=0))),
    "They are sorted, the largest first: weight k is that of class k.":
        lambda c: np.sort(_mean_1(1 / c.sum(axis=0)))[::-1],
    "Their median is 1: it is the mean that must be.": lambda c: np.median(c.sum(axis=0) * 1.0) / c.sum(axis=0),
}  # fmt: skip


@check_part()
def _expect_finite_weights(class_weights: Callable) -> None:
    for absent, n_classes in (([2], 3), ([1], 3), ([0], 3), ([3, 4], 5)):
        shares = [0.0 if class_ in absent else 1 + 2.0 * class_ for class_ in range(n_classes)]
        targets = _targets(5, shares)
        without = " and ".join(map(str, absent))
        what = f"the weights if class {without} is absent" if len(absent) == 1 else "the weights of 5 classes, 2 absent"
        found = _weights_of(class_weights, targets, n_classes, what)
        if not np.isfinite(found).all() or found.min() < 0:
            look = "A class without pixels would have the weight 1/0: give it a finite one, such as 0."
            fail(f"Range of {what}", found.round(4).tolist(), "finite numbers of at least 0", look)
        look = "The mean over all classes is 1, those without pixels included."
        expect_close(f"the mean of {what}", found.mean(), 1.0, look, 1e-3)
        present = [class_ for class_ in range(n_classes) if class_ not in absent]
        counts = sum(np.bincount(target.flatten(), minlength=n_classes) for target in targets)[present]
        ratios = (found[present] / found[present[0]], counts[0] / counts)
        look = "The other classes keep their proportions: that of their inverse frequencies."
        expect_close(f"the other weights, by the first of them, in {what}", *ratios, look, 3e-3)


# 6.3 paired_bootstrap


def check_paired_bootstrap(paired_bootstrap) -> None:
    expect_callable(paired_bootstrap, "paired_bootstrap")
    _expect_intervals(paired_bootstrap)
    _expect_repeats(paired_bootstrap)
    _expect_draws_from_rng(paired_bootstrap)
    _expect_pairs(paired_bootstrap)


@cache
def _scores(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two methods: images differ much, methods little, most on few images."""
    rng = np.random.default_rng(seed)
    other_scores = rng.uniform(0.3, 0.8, n)
    return other_scores + np.array([-1, 1])[seed % 2] * (rng.gamma(0.3, 0.1, n) - 0.01), other_scores


def _bootstrap(run: Callable, scores: Any, other_scores: Any, *options: Any, seed: int = 0) -> tuple:
    scores, other_scores = scores.copy(), other_scores.copy()  # some are used again
    with untouched(scores=scores, other_scores=other_scores):
        found = run(scores, other_scores, np.random.default_rng(seed), *options)
    names = "(mean, low, high)"
    expect_type("the result", found, (tuple, list), f"Return {names}.")
    if len(found) != 3:
        fail("Number of results", len(found), f"3, {names}", "Three numbers, side by side.")
    for name, value in zip(("mean", "low", "high"), found, strict=True):
        expect_python_float(name, value)
    return tuple(found)


def _cases() -> list[tuple]:
    """What is asked for, the scores, the arguments behind rng, and the level."""
    return [("the default level of 0.95", *_scores(1, 15), (), 0.95), ("level=0.8", *_scores(2, 20), (2000, 0.8), 0.8),
            ("level=0.5", *_scores(3, 15), (2000, 0.5), 0.5)]  # fmt: skip


@check_part()
def _expect_intervals(paired_bootstrap: Callable) -> None:
    cases = _cases()
    found = [_bootstrap(paired_bootstrap, list(case[1]), list(case[2]), *case[3]) for case in cases[:1]]
    found += [_bootstrap(paired_bootstrap, *case[1:3], *case[3]) for case in cases[1:]]
    differences = [scores - other_scores for _, scores, other_scores, *_ in cases]
    means = [float(difference.mean()) for difference in differences]
    near = [abs(own[0] - mean) < 0.15 * difference.std() / 15**0.5 for own, mean, difference in
            zip(found, means, differences, strict=True)]  # fmt: skip
    suspects = {
        "The order is wrong: first the mean, then low and high.":
            [own[0] if math.isclose(own[1], mean) else math.nan for own, mean in zip(found, means, strict=True)],
        "The sign is wrong: other_scores are subtracted from scores.": [-mean for mean in means],
        "That is the mean of the draws, which depends on chance: take the mean of scores - other_scores itself.":
            [own[0] if close else math.nan for own, close in zip(found, near, strict=True)],
        "That is the median of the differences.": [np.median(difference) for difference in differences],
        "That is the mean of scores alone.": [case[1].mean() for case in cases],
        "That is the sum, not the mean.": [difference.sum() for difference in differences],
        "These are differences without their sign.": [abs(difference).mean() for difference in differences],
        "These are differences relative to other_scores.":
            [(difference / case[2]).mean() for difference, case in zip(differences, cases, strict=True)],
    }  # fmt: skip
    look = diagnosis([own[0] for own in found], means, suspects, rtol=1e-6)
    for (name, *_), own, mean in zip(cases, found, means, strict=True):
        what = f"the mean ({name})"
        expect_close(what, own[0], mean, look or "It is the mean of scores - other_scores over the images.", 1e-7)
    with pictured(partial(_intervals_picture, paired_bootstrap)):
        _expect_ends(cases, found)


def _expect_ends(cases: list[tuple], found: list[tuple]) -> None:
    for (name, scores, other_scores, options, level), (_, low, high) in zip(cases, found, strict=True):
        if not low <= high:
            fail(f"Order of the interval ({name})", f"{low:.4g} to {high:.4g}", "low <= high", "Exchange them.")
        draws, tail = _draws(scores, other_scores), (1 - level) / 2
        tolerance = 5 * (tail * (1 - tail) / (options or (2000,))[0]) ** 0.5  # of a share of so many draws
        below, above = np.mean(draws < low), np.mean(draws > high)
        if max(abs(below - tail), abs(above - tail)) > tolerance:
            right = np.quantile(draws, [tail, 1 - tail])
            look = _mistaken_interval(cases, found)
            fail(f"Value of the interval ({name})", f"{low:.4f} to {high:.4f}",
                 f"about {right[0]:.4f} to {right[1]:.4f}", look or "Draw as many images as there are, with "
                 f"replacement; below low and above high lie {tail:.3g} of the draws each.")  # fmt: skip


@cache
def _known_draws(seed: int, n: int, others: str) -> np.ndarray:
    scores, other_scores = _scores(seed, n)
    rng = np.random.default_rng(99)
    images = rng.integers(0, n, (50_000, n))
    means = {"same": lambda: other_scores[images].mean(axis=1), "none": lambda: 0,
             "drawn": lambda: other_scores[rng.integers(0, n, images.shape)].mean(axis=1)}  # fmt: skip
    return scores[images].mean(axis=1) - means[others]()


def _draws(scores: np.ndarray, other_scores: np.ndarray, others: str = "same") -> np.ndarray:
    """Mean differences of many draws of images: the same images for the other method, others drawn, or none."""
    seed = next(seed for seed in (1, 2, 3) if _scores(seed, len(scores))[0] is scores)
    return _known_draws(seed, len(scores), others)


def _middle(values: np.ndarray, level: float) -> np.ndarray:
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2])


def _around_mean(a: np.ndarray, b: np.ndarray, factor: float) -> np.ndarray:
    return (a - b).mean() + np.array([-1, 1]) * factor * (a - b).std() / len(a) ** 0.5


# The interval that each mistake makes of scores a and b and of the level.
MISTAKEN_INTERVALS: dict[str, Callable] = {
    "The draws of the two methods are not paired: take the same images for both.":
        lambda a, b, level: _middle(_draws(a, b, "drawn"), level),
    "Without replacement every draw holds all images, and their mean is always the same.":
        lambda a, b, level: np.repeat((a - b).mean(), 2),
    "It is always that of level 0.95: use the argument level.": lambda a, b, level: _middle(_draws(a, b), 0.95),
    "The quantiles are wrong: (1 - level) / 2 of the draws lie below low, as many above high; here it is twice that.":
        lambda a, b, level: np.quantile(_draws(a, b), [1 - level, level]),
    "The quantiles are wrong: np.percentile counts in percent, np.quantile in shares.":
        lambda a, b, level: np.percentile(_draws(a, b), [(1 - level) / 2, (1 + level) / 2]),
    "low is the right one, but above high (1 - level) / 2 of the draws lie, too.":
        lambda a, b, level: np.quantile(_draws(a, b), [(1 - level) / 2, level]),
    "The sign is wrong: other_scores are subtracted from scores.":
        lambda a, b, level: -_middle(_draws(a, b), level)[::-1],
    "These are quantiles of the images' differences: take them of the mean of each draw.":
        lambda a, b, level: np.quantile(a - b, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf"),
    "This is the interval of the draws of scores alone: take the differences.":
        lambda a, b, level: _middle(_draws(a, b, "none"), level),
    "This is the interval around 0: do not subtract the mean from the draws.":
        lambda a, b, level: _middle(_draws(a, b), level) - (a - b).mean(),
    "This is the interval mirrored at the mean (the basic bootstrap): take the quantiles of the draws themselves.":
        lambda a, b, level: 2 * (a - b).mean() - _middle(_draws(a, b), level)[::-1],
    "This is mean -+ 1.96 standard errors: take the quantiles of the draws.":
        lambda a, b, level: _around_mean(a, b, 1.96),
    "This is the mean -+ one standard deviation of the draws: take their quantiles.":
        lambda a, b, level: _around_mean(a, b, 1.0),
    "This is the mean -+ the standard deviation of the images: take the quantiles of the draws.":
        lambda a, b, level: _around_mean(a, b, len(a) ** 0.5),
}  # fmt: skip


def _mistaken_interval(cases: list[tuple], found: list[tuple]) -> str:
    """The mistake whose intervals are those found in all cases."""
    for look, interval in MISTAKEN_INTERVALS.items():
        if all(np.allclose(own[1:], interval(*case[1:3], case[4]), rtol=0, atol=0.35 * _draws(*case[1:3]).std())
               for case, own in zip(cases, found, strict=True)):  # fmt: skip
            return look
    return ""


def _intervals_picture(paired_bootstrap: Callable, error: CheckFailed) -> Curves:
    """Both ends of the interval against the level."""
    levels, (scores, other_scores) = np.array([0.2, 0.5, 0.8, 0.95]), _scores(1, 15)
    found = np.array([_bootstrap(paired_bootstrap, scores, other_scores, 500, float(x))[1:] for x in levels])
    right = np.array([_middle(_draws(scores, other_scores), level) for level in levels])
    curves = tuple((name, found[:, end], right[:, end]) for end, name in enumerate(("low", "high")))
    return Curves(levels, curves, "level", f"low and high of the interval against the level. {error.finding}")


@check_part()
def _expect_repeats(paired_bootstrap: Callable) -> None:
    scores, other_scores = _scores(1, 15)
    mean, low, high = _bootstrap(paired_bootstrap, scores, other_scores, 1)
    if not math.isclose(low, high, abs_tol=1e-12):
        fail("Value of the interval for repeats=1", f"{low:.4g} to {high:.4g}", "low = high",
             "There is one draw: use the argument repeats.")  # fmt: skip
    if math.isclose(low, mean, abs_tol=1e-9):
        fail("Value of the interval for repeats=1", f"the mean of all images, {low:.4g}", "the mean of one draw",
             "Draw with replacement.")  # fmt: skip
    for name, *pair in [("a single image", [0.75], [0.5]), ("equal differences", [0.5, 0.75, 0.25], [0.25, 0.5, 0.0])]:
        found = _bootstrap(paired_bootstrap, *map(np.array, pair))
        expect_close(f"(mean, low, high) for {name}", found, (0.25,) * 3, "Each draw has the same mean.")


@check_part()
def _expect_draws_from_rng(paired_bootstrap: Callable) -> None:
    pair, runs = _scores(1, 15), []
    for noise, seed in ((1, 5), (2, 5), (3, 6)):
        _seed_globally(noise)
        torch.manual_seed(noise)
        runs.append(_bootstrap(paired_bootstrap, *pair, 200, seed=seed))
    if runs[0] != runs[1]:
        fail("Randomness: low and high for two generators with the same seed", f"{runs[0][1:]} and {runs[1][1:]}",
             "the same", "Draw every random number from rng.")  # fmt: skip
    if runs[0] == runs[2]:
        fail("Randomness: low and high for two generators with different seeds", f"{runs[0][1:]} twice",
             "different ones", "Draw from the argument rng, not from a generator of your own.")  # fmt: skip
    rng = np.random.default_rng(5)
    copies = [list(scores) for scores in pair]
    if paired_bootstrap(*copies, rng, 200) == paired_bootstrap(*copies, rng, 200):
        fail("Randomness: low and high of two calls with the same generator", "the same", "different ones",
             "Draw from rng itself, not from a copy, and do not reset it.")  # fmt: skip


@check_part()
def _expect_pairs(paired_bootstrap: Callable) -> None:
    for n, other in ((3, 2), (2, 4), (5, 1), (1, 5), (0, 0)):
        pair = [list(np.linspace(0.5, 0.9, length)) for length in (n, other)]
        look = "Compare the numbers of scores first: NumPy repeats a single one, and zip drops what is left over."
        what = f"Result for {n} and {other} scores"
        if n == 0:
            what, look = "Result without scores", "Nothing has no mean: look at the length first."
        for kind in (list, np.array):
            call = partial(paired_bootstrap, *map(kind, pair), np.random.default_rng(0))
            expect_error(what, call, look=look)
