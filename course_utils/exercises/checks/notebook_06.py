"""The checks of notebook 06.

Dice may be computed for each image or over the batch. Draws of a bootstrap differ from one right solution to the next:
intervals are compared with the distribution that they come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import starmap
from statistics import NormalDist
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
from course_utils.exercises.pictures import Panel, Panels

# 6.1 multiclass_dice_loss

BATCH, EACH_IMAGE = (0, 2, 3), (2, 3)  # the axes of (N, C, H, W) that are summed over: both are right


def check_multiclass_dice_loss(multiclass_dice_loss) -> None:
    expect_callable(multiclass_dice_loss, "multiclass_dice_loss")
    formula = "For each class from 1: 2 * sum(p * t) / (sum(p) + sum(t)), with p from the softmax."
    absent = "An absent class counts, too: as soon as some of it is predicted its Dice is 0."
    cases = [logits_and_target(seed, *shape) for seed, shape in enumerate([(2, 3, 6, 8), (3, 3, 5, 7), (1, 3, 4, 9)])]
    _expect_loss(multiclass_dice_loss, "three classes", cases, formula, with_gradient=True)
    for what, image in [("class 2 is absent", 0), ("class 1 is absent from an image", 1)]:
        cases = [logits_and_target(seed, 1 + image, 3, seed, 6, ((image, 2 - image),)) for seed in (5, 7)]
        _expect_loss(multiclass_dice_loss, f"three classes, where {what}", cases, absent)
    for number, classes in [("four", 4), ("two", 2)]:
        cases = [logits_and_target(seed, 2, classes, 5, 7) for seed in (10, 11)]
        _expect_loss(multiclass_dice_loss, f"{number} classes", cases, "A class for each channel of the logits.")
    _expect_sure_predictions(multiclass_dice_loss)


def logits_and_target(seed: int, n: int, classes: int, height: int, width: int, absent: tuple = ()) -> tuple:
    """Logits that are right more often than not; the classes are unequal, and so are the images.

    The first pixel of an image is of class 0, the second of class 1, and so on, without the (image, class) of `absent`.
    """
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.linspace(4, 1, classes), n)
    target = np.array([rng.choice(classes, height * width, p=share) for share in shares])
    target[:, :classes] = np.arange(classes)
    for image, class_ in absent:
        target[image][target[image] == class_] = 0
    logits = rng.normal(0, 1.5, (n, classes, height * width)) + 1.5 * np.moveaxis(np.eye(classes)[target], -1, 1)
    return (torch.from_numpy(logits.reshape(n, classes, height, width).astype(np.float32)),
            torch.from_numpy(target.reshape(n, height, width)))  # fmt: skip


def _arrays(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits x, their softmax p and the target t as ones and zeros: float64, `(N, C, H, W)`."""
    return logits.double(), logits.double().softmax(1), one_hot(target, logits.shape[1]).movedim(-1, 1).double()


def _dice(p: torch.Tensor, t: torch.Tensor, axes: Any) -> torch.Tensor:
    return 2 * (p * t).sum(axes) / (p + t).sum(axes)


def exact_loss(logits: torch.Tensor, target: torch.Tensor, axes: Any = BATCH) -> torch.Tensor:
    return 1 - _dice(*_arrays(logits, target)[1:], axes)[..., 1:].mean()


def _loss_of(multiclass_dice_loss: Callable, logits: torch.Tensor, target: torch.Tensor) -> float:
    with untouched(logits=logits, target=target):
        loss = multiclass_dice_loss(logits, target)
    expect_scalar(loss, "Return the tensor itself: float(...) and .item() lose the gradient.")
    return loss.item()


@check_part()
def _expect_loss(loss_fn: Callable, what: str, cases: list[tuple], look: str, with_gradient: bool = False) -> None:
    try:
        found = [_loss_of(loss_fn, *case) for case in cases]
    except (RuntimeError, IndexError) as error:
        if "absent" in what:
            hint = "one_hot, unique and bincount only know the classes that they see, unless they are told their number"
            error.args = (f"{error} ({what}: {hint})",)
        elif "three" not in what:
            error.args = (f"{error} ({what}: there are as many as logits have channels, not always 3)",)
        raise
    rights = {axes: [exact_loss(*case, axes).item() for case in cases] for axes in (BATCH, EACH_IMAGE)}
    matching = [axes for axes, right in rights.items() if np.allclose(found, right, atol=1e-4)]
    if matching:
        for logits, target in cases if with_gradient else ():
            expect_gradient(f"the loss of {what}", loss_fn, logits, target, partial(exact_loss, axes=matching[0]))
        return
    for axes, right in rights.items():
        look = diagnosis(found, right, MISTAKES_IN_DICE_LOSS, cases=[(*_arrays(*case), axes) for case in cases]) or look
    if any(map(math.isnan, found)) and [math.isnan(loss) for loss in found] == [len(case[0]) == 1 for case in cases]:
        look = "NaN for one image: of Dice (N, C), [1:] drops the first image, and [:, 1:] the background."
    wrong = [index for index, pair in enumerate(zip(*rights.values(), strict=True))
             if not np.isclose(found[index], pair, atol=1e-4).any()]  # fmt: skip
    index = [*wrong, 0][0]
    right, other = (losses[index] for losses in rights.values())
    expected = f"{right:.6g}" + f" (sums over the batch) or {other:.6g} (each image)" * (abs(right - other) > 1e-4)
    logits, target = cases[index]
    t = one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:]
    with pictured(partial(dice_panels, logits.softmax(1)[:, 1:], t, first=1)):
        name = "Value" if 0 <= found[index] <= 1 else "Range"
        fail(f"{name} of the loss of {what}, logits {tuple(logits.shape)}", round(found[index], 6), expected, look)


# What is taken for the probabilities: of the logits x and their softmax p.
WRONG_PROBABILITIES: dict[str, Callable] = {
    "The softmax is missing: logits are not probabilities.": lambda x, p: x,
    "That is the sigmoid of each logit: classes exclude each other, so take the softmax.": lambda x, p: x.sigmoid(),
    "The softmax is applied twice.": lambda x, p: p.softmax(1),
    "That is the logarithm of the softmax: take the softmax itself.": lambda x, p: x.log_softmax(1),
    **{f"The softmax is over axis {axis}: the classes are axis 1.": lambda x, p, axis=axis: x.softmax(axis)
       for axis in (0, 2, 3)},
    "That is the Dice of the argmax, which is not differentiable: use the probabilities.":
        lambda x, p: one_hot(x.argmax(1), x.shape[1]).movedim(-1, 1).double(),
    "That is the Dice of probabilities above 0.5, which is not differentiable: use the probabilities themselves.":
        lambda x, p: (p > 0.5).double(),
    "The softmax leaves out the background: take it over all classes, and drop class 0 after it.":
        lambda x, p: torch.cat([p[:, :1], x[:, 1:].softmax(1)], 1),
    "Is the order of the classes reversed?": lambda x, p: p.flip(1),
}  # fmt: skip
# What is taken for the Dice of probabilities p and target t, summed over the axes a.
WRONG_DICE: dict[str, Callable] = {
    "These are squares in the denominator, as in torch-em: here it is sum(p) + sum(t), without them.":
        lambda p, t, a: 2 * (p * t).sum(a) / (p.square() + t.square()).sum(a),
    "The factor 2 is missing.": lambda p, t, a: _dice(p, t, a) / 2,
    "That is the IoU (Jaccard index): its denominator is sum(p) + sum(t) - sum(p * t).":
        lambda p, t, a: (p * t).sum(a) / (p + t - p * t).sum(a),
    "Only sum(p) is below the fraction line: sum(p) + sum(t) needs brackets.":
        lambda p, t, a: 2 * (p * t).sum(a) / p.sum(a) + t.sum(a),
    "Sum over the pixels first, then divide: this is a mean of the quotients of single pixels.":
        lambda p, t, a: (2 * p * t / (p + t)).mean(a),
    "Only the pixels of nuclei count here: what is predicted on background counts, too.":
        lambda p, t, a: _dice(p * (1 - t[:, :1]), t * (1 - t[:, :1]), a),
    "The overlap is divided by the sum of p alone.": lambda p, t, a: (p * t).sum(a) / p.sum(a),
    "The overlap is divided by the sum of t alone.": lambda p, t, a: (p * t).sum(a) / t.sum(a),
    **{f"A smoothing constant of {below} below and {above} above changes the score of small classes: make it tiny.":
       lambda p, t, a, above=above, below=below: (2 * (p * t).sum(a) + above) / ((p + t).sum(a) + below)
       for above, below in [(1, 1), (0, 1), (0.1, 0.1), (0.01, 0.01)]},
    "The target is mixed up: one_hot puts the classes last; movedim(-1, 1) brings them to axis 1, reshape does not.":
        lambda p, t, a: _dice(p, t.movedim(1, -1).reshape(t.shape), a),
    "A class that is absent counts, too: as soon as some of it is predicted its Dice is 0.":
        lambda p, t, a: torch.where(t.sum(a) > 0, _dice(p, t, a), torch.nan),
    "A class that is absent has Dice 1 only if none of it is predicted either; else 0.":
        lambda p, t, a: torch.where(t.sum(a) > 0, _dice(p, t, a), 1.0),
}  # fmt: skip
# What is made of the Dice d of the classes (in the last axis).
WRONG_LOSS: dict[str, Callable] = {
    "That is the Dice itself, 1 - is missing: a loss falls as the prediction gets better.": lambda d: d[..., 1:].mean(),
    "That is minus the Dice: the loss is one minus it.": lambda d: -d[..., 1:].mean(),
    "The background is included: only the classes from 1 count.": lambda d: 1 - d.mean(),
    "That is the background alone: the classes from 1 count.": lambda d: 1 - d[..., 0].mean(),
    "That is class 1 alone.": lambda d: 1 - d[..., 1].mean(),
    "That is the last class alone.": lambda d: 1 - d[..., -1].mean(),
    "These are the classes 1 and 2 only: there are as many as logits have channels.": lambda d: 1 - d[..., 1:3].mean(),
    "That is the sum over the classes: take the mean.": lambda d: (1 - d[..., 1:]).sum(-1).mean(),
    "That is one minus the sum over the classes: take their mean.": lambda d: 1 - d[..., 1:].sum(-1).mean(),
    "That is the sum over the classes from 1, divided by the number of all classes: take their mean.":
        lambda d: 1 - d[..., 1:].sum(-1).mean() / d.shape[-1],
    "That is the sum over the images: take the mean.": lambda d: (1 - d[..., 1:].mean(-1)).sum(),
    "That is the logarithm of the Dice: the loss is one minus it.": lambda d: -d[..., 1:].log().mean(),
}  # fmt: skip
MISTAKES_IN_DICE_LOSS: dict[str, Callable] = {
    **{look: lambda x, p, t, a, dice=dice: 1 - dice(p, t, a)[..., 1:].nanmean() for look, dice in WRONG_DICE.items()},
    **{look: lambda x, p, t, a, of=of: 1 - _dice(of(x, p), t, a)[..., 1:].mean()
       for look, of in WRONG_PROBABILITIES.items()},
    **{look: lambda x, p, t, a, loss=loss: loss(_dice(p, t, a)) for look, loss in WRONG_LOSS.items()},
    "That is one Dice of all classes together, in which large classes count more: first each class, then their mean.":
        lambda x, p, t, a: 1 - _dice(p[:, 1:], t[:, 1:], (1, *a)).mean(),
    "That is one Dice of all classes together, background included: first each class, then the mean from class 1.":
        lambda x, p, t, a: 1 - (p * t).sum(1).mean(),
    "That is the Dice of foreground against background: each class has its own.":
        lambda x, p, t, a: 1 - _dice(1 - p[:, :1], 1 - t[:, :1], a).mean(),
    "That is the cross entropy.": lambda x, p, t, a: cross_entropy(x, t.argmax(1)),
    "That is cross entropy and Dice loss together: here the Dice loss alone.":
        lambda x, p, t, a: cross_entropy(x, t.argmax(1)) + 1 - _dice(p, t, a)[..., 1:].mean(),
}  # fmt: skip


@check_part()
def _expect_sure_predictions(multiclass_dice_loss: Callable) -> None:
    """With huge logits every probability is exactly 0 or 1, so that 0/0 may occur."""
    _, target = logits_and_target(3, 1, 3, 4, 5)
    without = torch.where(target == 2, 0, target)
    for what, prediction, truth, expected in [
        ("a perfect prediction", target, target, 0.0),
        ("a prediction that is wrong everywhere", (target + 1) % 3, target, 1.0),
        ("a prediction of nuclei where there are none", target, target * 0, 1.0),
        ("a perfect prediction without class 2", without, without, None),
        ("a perfect prediction without nuclei", target * 0, target * 0, None),
    ]:
        logits = 1e4 * (2 * one_hot(prediction, 3).movedim(-1, 1) - 1).float()
        loss = _loss_of(multiclass_dice_loss, logits, truth)
        if expected is not None:
            look = "exp(1e4) is inf: take torch.softmax." if math.isnan(loss) else "All is right, or nothing is."
            expect_close(f"the loss of {what}", loss, expected, look, 1e-3)
        elif not 0 <= loss <= 1:
            look = "0/0 needs a rule: nothing was to be found and nothing was found, so Dice is 1."
            fail(f"Range of the loss of {what}", loss, "a number from 0 to 1", look)
        logits.requires_grad_()
        if not torch.autograd.grad(multiclass_dice_loss(logits, truth), logits)[0].isfinite().all():
            look = "torch.where and torch.nan_to_num hide a 0/0, but its gradient still counts: avoid the 0 below."
            fail(f"Gradient of the loss of {what}", "nan or inf", "a finite one", look)


# 6.2 class_weights


def check_class_weights(class_weights) -> None:
    expect_callable(class_weights, "class_weights")
    _expect_weights(class_weights, [
        ("three targets", 3, random_targets(0, 0.8, 0.15, 0.05)),
        ("two targets, class 1 the largest", 3, random_targets(1, 0.1, 0.6, 0.3)[:2]),
        ("one target", 3, random_targets(2, 0.3, 0.1, 0.6)[1:2]),
        ("four classes", 4, random_targets(3, 0.4, 0.1, 0.3, 0.2)),
        ("two classes", 2, random_targets(4, 0.2, 0.8)),
    ])  # fmt: skip
    _expect_weights(class_weights, [
        ("targets without class 2", 3, random_targets(5, 0.7, 0.3, 0)),
        ("targets without class 1", 3, random_targets(6, 0.7, 0, 0.3)),
        ("five classes, two of them absent", 5, random_targets(7, 0.5, 0, 0.2, 0.3, 0)),
    ])  # fmt: skip


def random_targets(seed: int, *shares: float) -> list[torch.Tensor]:
    """Targets of different sizes; each class has its share, about, but not in each of them."""
    rng, result = np.random.default_rng(seed), []
    for height, width in [(110, 130), (90, 70), (60, 150)]:
        own = np.array(shares) * rng.uniform(0.5, 1.5, len(shares))
        result.append(torch.from_numpy(rng.choice(len(shares), (height, width), p=own / own.sum())))
    return result


@check_part()
def _expect_weights(class_weights: Callable, cases: list[tuple]) -> None:
    found, right, counts = [], [], []
    for what, n, targets in cases:
        with untouched(targets=targets):
            weights = class_weights(targets) if n == 3 else class_weights(targets, n_classes=n)
        what = f"the weights of {what}"
        look = "torch.from_numpy or torch.tensor makes one." if isinstance(weights, (np.ndarray, list)) else ""
        expect_type(what, weights, torch.Tensor, look)
        look = "One weight for each class, also for one without pixels: say how many classes there are."
        expect_shape(what, weights, (n,), look)
        expect_dtype(what, weights, torch.float32, "The cross entropy of float32 logits needs float32 weights.")
        found.append(weights.detach().cpu().double().numpy())
        if not np.isfinite(found[-1]).all() or found[-1].min() < 0:
            look = "A class without pixels would have the weight 1/0: give it a finite one, such as 0."
            fail(f"Range of {what}", found[-1].round(4).tolist(), "finite numbers of at least 0", look)
        if not found[-1].any():
            look = "An infinite weight went into the mean, so that all others became 0: replace it before you scale."
            fail(f"Range of {what}", "only zeros", "weights with a mean of 1", look)
        counts.append(np.array([np.bincount(target.flatten(), minlength=n) for target in targets]))
        present = counts[-1].any(axis=0)  # the weight of an absent class may be any
        right.append(np.where(present, 1 / counts[-1].sum(axis=0), found[-1]))
        right[-1][present] *= found[-1][present].mean() / right[-1][present].mean()
    look = diagnosis([mean_1(weights) for weights in found], [mean_1(weights) for weights in right],
                     MISTAKES_IN_WEIGHTS, rtol=2e-3, cases=[(own,) for own in counts])  # fmt: skip
    look = look or "They are proportional to 1 / (number of pixels of the class in all targets)."
    mean = "The proportions are right: divide by the mean of all weights, not by the sum, largest or median."
    for (what, *_), weights, expected, own in zip(cases, found, right, counts, strict=True):
        what = f"the weights of {what}"
        expect_close(f"{what}, as proportions", weights, expected, look, 2e-3,
                     _weights_picture(what, own, weights, expected))  # fmt: skip
        expect_close(f"the mean of {what}", weights.mean(), 1.0, mean, 2e-3)


def _weights_picture(what: str, counts: np.ndarray, found: np.ndarray, expected: np.ndarray) -> Panels:
    """The pixels of each target and class, and the weights, as numbers."""
    texts = [", ".join(f"{value:.5g}" for value in values) for values in (counts.sum(axis=0), found, expected)]
    arrays = {"pixels, a row for each target": counts, "yours": found[None], "expected": expected[None]}
    alt = "{}. Pixels of the classes: {}; weights up to a factor: found {}, expected {}.".format(what, *texts)
    return Panels(tuple(starmap(Panel, arrays.items())), alt[0].upper() + alt[1:])


def mean_1(weights: np.ndarray) -> np.ndarray:
    return weights / weights.mean()


# What each mistake makes of the counts c (targets, classes), up to a factor.
PROPORTIONS: dict[str, Callable] = {
    "These are the frequencies: the weights are their inverse.": lambda c: c.sum(axis=0),
    "That is 1 - frequency: the weights are the inverse of the frequency.": lambda c: c.sum() - c.sum(axis=0),
    "These are inverse square roots of the frequencies: leave the root out.": lambda c: c.sum(axis=0) ** -0.5,
    "These are inverse squares of the frequencies: leave the square out.": lambda c: c.sum(axis=0) ** -2.0,
    "These are logarithms of the inverse frequencies: leave the logarithm out.":
        lambda c: np.log(c.sum() / c.sum(axis=0)),
    "These are inverse logarithms of the frequencies (as in ENet): leave the logarithm out.":
        lambda c: 1 / np.log(1.02 + c.sum(axis=0) / c.sum()),
    "These are means of the weights of each target: count the pixels of all targets first.":
        lambda c: (c.sum(axis=1, keepdims=True) / c).mean(axis=0),
    "These are means of the weights of each target, each with a mean of 1: count the pixels of all targets first.":
        lambda c: np.mean([mean_1(1 / own) for own in c], axis=0),
    "Here every target counts the same: count the pixels of all targets, so that each pixel does.":
        lambda c: 1 / (c / c.sum(axis=1, keepdims=True)).mean(axis=0),
    "These are the weights of the first target alone.": lambda c: 1 / c[0],
    "These are the weights of the last target alone.": lambda c: 1 / c[-1],
    "The order is reversed: weight k is that of class k.": lambda c: (1 / c.sum(axis=0))[::-1],
    "They are sorted: weight k is that of class k.": lambda c: np.sort(1 / c.sum(axis=0)),
    "They are sorted, the largest first: weight k is that of class k.": lambda c: np.sort(1 / c.sum(axis=0))[::-1],
}  # fmt: skip
MISTAKES_IN_WEIGHTS = {look: lambda c, of=of: mean_1(of(c)) for look, of in PROPORTIONS.items()}


# 6.3 paired_bootstrap


def check_paired_bootstrap(paired_bootstrap) -> None:
    expect_callable(paired_bootstrap, "paired_bootstrap")
    _expect_intervals(paired_bootstrap)
    _expect_repeats(paired_bootstrap)
    _expect_draws_from_rng(paired_bootstrap)
    _expect_pairs(paired_bootstrap)


@cache
def _scores(seed: int) -> np.ndarray:
    """Scores (2, images) of two methods: images differ much, methods little, most on few images."""
    rng = np.random.default_rng(seed)
    other_scores = rng.uniform(0.3, 0.8, 15)
    return np.array([other_scores + (-1) ** (seed + 1) * (rng.gamma(0.3, 0.1, 15) - 0.01), other_scores])


@cache
def _draws(seed: int, paired: bool = True) -> np.ndarray:
    """The differences of the means of many draws of images, the same images for both methods or not."""
    (scores, other_scores), rng = _scores(seed), np.random.default_rng(99)
    images = rng.integers(0, 15, (50_000, 15))
    others = images if paired else rng.integers(0, 15, images.shape)
    return scores[images].mean(axis=1) - other_scores[others].mean(axis=1)


def _run(paired_bootstrap: Callable, pair: Any, *options: Any, seed: int = 0, kind: Callable = np.array) -> tuple:
    scores, other_scores = map(kind, pair)  # copies
    with untouched(scores=scores, other_scores=other_scores):
        found = paired_bootstrap(scores, other_scores, np.random.default_rng(seed), *options)
    expect_type("the result", found, (tuple, list), "Return (mean, low, high).")
    if len(found) != 3:
        fail("Number of results", len(found), "3, (mean, low, high)", "Three numbers, side by side.")
    for name, value in zip(("mean", "low", "high"), found, strict=True):
        expect_python_float(name, value)
    return tuple(found)


@check_part()
def _expect_intervals(paired_bootstrap: Callable) -> None:
    cases = {("the default level of 0.95", 1, 0.95): (), ("level=0.8", 2, 0.8): (2000, 0.8),
             ("level=0.5", 3, 0.5): (2000, 0.5)}  # fmt: skip
    found = [_run(paired_bootstrap, _scores(seed), *options, kind=np.array if options else list)
             for (_, seed, _), options in cases.items()]  # fmt: skip
    differences = [np.subtract(*_scores(seed)) for _, seed, _ in cases]
    means = [float(difference.mean()) for difference in differences]
    looks = {
        "The order is wrong: first the mean, then low and high.":
            [own[0] if math.isclose(own[1], mean) else math.nan for own, mean in zip(found, means, strict=True)],
        "The sign is wrong: other_scores are subtracted from scores.": [-mean for mean in means],
        "Do not round the results.": [own[0] if own[0] in {round(mean, places) for places in range(1, 7)} else math.nan
                                      for own, mean in zip(found, means, strict=True)],
        "These are differences without their sign.": [abs(difference).mean() for difference in differences],
        "That is the median: take the mean.": [np.median(difference) for difference in differences],
        "That is the mean of the draws, which depends on chance: take the mean of scores - other_scores itself.":
            [own[0] if abs(own[0] - mean) < 0.15 * difference.std() / 15**0.5 else math.nan
             for own, mean, difference in zip(found, means, differences, strict=True)],
    }  # fmt: skip
    look = diagnosis([own[0] for own in found], means, looks, rtol=1e-6) or "It is the mean over the images."
    for (name, *_), own, mean in zip(cases, found, means, strict=True):
        expect_close(f"the mean ({name})", own[0], mean, look, 1e-7)
    with pictured(partial(_intervals_picture, paired_bootstrap)):
        for (name, seed, level), (_, low, high) in zip(cases, found, strict=True):
            if not low <= high:
                fail(f"Order of the interval ({name})", f"{low:.4g} to {high:.4g}", "low <= high", "Exchange them.")
            draws, outside = _draws(seed), (1 - level) / 2
            tolerance = 5 * (outside * (1 - outside) / 2000) ** 0.5  # standard deviations of the share in 2000 draws
            shares = np.array([np.mean(draws < low), np.mean(draws > high)])
            if max(abs(shares - outside)) > tolerance:
                right = "about {:.4f} to {:.4f}".format(*_middle(draws, level))
                look = _mistaken_interval(list(cases), found)
                fail(f"Value of the interval ({name})", f"{low:.4f} to {high:.4f}", right, look or "Draw as many "
                     f"images as there are, with replacement; {outside:.3g} of the draws lie below low, as many above "
                     "high.")  # fmt: skip


def _middle(values: np.ndarray, level: float) -> np.ndarray:
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2])


# The interval that each mistake makes of the draws d, the differences x of the images and the level.
MISTAKEN_INTERVALS: dict[str, Callable] = {
    "It is always that of level 0.95: use the argument level.": lambda d, x, level: _middle(d, 0.95),
    "The quantiles are wrong: (1 - level) / 2 of the draws lie below low, as many above high; here it is twice that.":
        lambda d, x, level: np.quantile(d, [1 - level, level]),
    "The quantiles are wrong: above high (1 - level) / 2 of the draws lie, as below low.":
        lambda d, x, level: np.quantile(d, [(1 - level) / 2, level]),
    "The sign is wrong: other_scores are subtracted from scores.": lambda d, x, level: -_middle(d, level)[::-1],
    "These are quantiles of the images' differences: take them of the mean of each draw.":
        lambda d, x, level: np.quantile(x, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf"),
    "This is the interval around 0: do not subtract the mean from the draws.":
        lambda d, x, level: _middle(d, level) - x.mean(),
    "This is the interval mirrored at the mean (the basic bootstrap): take the quantiles of the draws themselves.":
        lambda d, x, level: 2 * x.mean() - _middle(d, level)[::-1],
    "This is the mean -+ 1.96 standard errors: take the quantiles of the draws.":
        lambda d, x, level: x.mean() + np.array([-1.96, 1.96]) * d.std(),
    "This is the mean -+ some standard errors, as for a normal distribution: take the quantiles of the draws.":
        lambda d, x, level: x.mean() + np.array([-1, 1]) * NormalDist().inv_cdf((1 + level) / 2) * d.std(),
    "This is the mean -+ 1.96 standard deviations of the images: take the quantiles of the draws.":
        lambda d, x, level: x.mean() + np.array([-1.96, 1.96]) * x.std(),
    "This is the mean -+ one standard deviation of the draws: take their quantiles.":
        lambda d, x, level: x.mean() + np.array([-1, 1]) * d.std(),
    "These are medians of the draws: take the mean of each.":
        lambda d, x, level: _middle(np.median(np.random.default_rng(0).choice(x, (2000, len(x))), axis=1), level),
    "These are random signs of the differences (a permutation test): draw images with replacement.":
        lambda d, x, level: _middle((x * np.random.default_rng(0).choice([-1, 1], (2000, len(x)))).mean(axis=1), level),
    "These are distances from the mean: return the ends of the interval.":
        lambda d, x, level: abs(_middle(d, level) - x.mean()),
}  # fmt: skip


def _mistaken_interval(cases: list[tuple], found: list[tuple]) -> str:
    """The mistake whose intervals are those found in all cases."""
    if all(high < mean for mean, _, high in found):
        return "The quantiles are wrong: np.percentile counts in percent, np.quantile in shares."
    if all(math.isclose(low, high) for _, low, high in found):
        return "Every draw has the same mean. Draw anew each time. Without replacement each draw holds all images."
    if all(high - low < 0.3 * _draws(seed).std() for (_, seed, _), (_, low, high) in zip(cases, found, strict=True)):
        return "That is far too narrow: is there one mean for each draw, over its images (axis=1 for (repeats, n))?"
    suspects = {"The draws of the two methods are not paired: take the same images for both.":
                [_middle(_draws(seed, paired=False), level) for _, seed, level in cases]}  # fmt: skip
    for look, interval in MISTAKEN_INTERVALS.items():
        suspects[look] = [interval(_draws(seed), np.subtract(*_scores(seed)), level) for _, seed, level in cases]
    near = [0.35 * _draws(seed).std() for _, seed, _ in cases]
    if all(np.allclose(np.divide(own[1:], 15), _middle(_draws(seed), level), rtol=0, atol=atol)
           for (_, seed, level), own, atol in zip(cases, found, near, strict=True)):  # fmt: skip
        return "These are sums over the images of each draw: take their means."
    return next((look for look, ends in suspects.items() if all(
        np.allclose(own[1:], end, rtol=0, atol=atol) for own, end, atol in zip(found, ends, near, strict=True))), "")


def _intervals_picture(paired_bootstrap: Callable, error: CheckFailed) -> Curves:
    """Both ends of the interval against the level."""
    levels = np.array([0.2, 0.5, 0.8, 0.95])
    found = np.array([_run(paired_bootstrap, _scores(1), 500, float(level))[1:] for level in levels])
    right = np.array([_middle(_draws(1), level) for level in levels])
    curves = tuple((name, found[:, end], right[:, end]) for end, name in enumerate(("low", "high")))
    return Curves(levels, curves, "level", f"Low and high of the interval against the level. {error.finding}")


@check_part()
def _expect_repeats(paired_bootstrap: Callable) -> None:
    mean, low, high = _run(paired_bootstrap, _scores(1), 1)
    if not math.isclose(low, high, abs_tol=1e-12):
        fail("Value of the interval for repeats=1", f"{low:.4g} to {high:.4g}", "low = high",
             "There is one draw: use the argument repeats.")  # fmt: skip
    found = _run(paired_bootstrap, [[0.75], [0.5]])
    expect_close("(mean, low, high) for a single image", found, (0.25,) * 3, "Each draw holds this image alone.")


@check_part()
def _expect_draws_from_rng(paired_bootstrap: Callable) -> None:
    runs = []
    for noise, seed in ((1, 5), (2, 5), (3, 6)):
        _seed_globally(noise)
        torch.manual_seed(noise)
        runs.append(_run(paired_bootstrap, _scores(1), 200, seed=seed)[1:])
    if runs[0] != runs[1]:
        fail("Randomness: low and high for two generators with the same seed", f"{runs[0]} and {runs[1]}",
             "the same", "Draw every random number from rng.")  # fmt: skip
    if runs[0] == runs[2]:
        fail("Randomness: low and high for two generators with different seeds", f"{runs[0]} twice",
             "different ones", "Draw from the argument rng, not from a generator of your own.")  # fmt: skip
    rng = np.random.default_rng(5)
    again = [paired_bootstrap(*_scores(1).copy(), rng, 200) for _ in range(2)]
    if again[0] == again[1]:
        fail("Randomness: low and high of two calls with the same generator", "the same", "different ones",
             "Draw from rng itself, not from a copy, and do not reset it.")  # fmt: skip


@check_part()
def _expect_pairs(paired_bootstrap: Callable) -> None:
    for n, other in ((3, 2), (2, 4), (5, 1), (1, 5), (0, 0)):
        what = f"Result for {n} and {other} scores" if n else "Result without scores"
        look = "Compare the numbers of scores first: NumPy repeats a single one, and zip drops what is left over."
        for kind in (list, np.array):
            pair = (kind(np.linspace(0.5, 0.9, length)) for length in (n, other))
            call = partial(paired_bootstrap, *pair, np.random.default_rng(0))
            expect_error(what, call, look=look if n else "Nothing has no mean: look at the length first.")
