"""The checks of notebook 06 accept every right solution, and name the mistake of every wrong one."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from runner import CheckTests
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss, one_hot

from course_utils.losses import class_weights, multiclass_dice_loss
from course_utils.results import paired_bootstrap

# 6.1 multiclass_dice_loss


def dice_loss(
    probability=lambda logits: logits.softmax(1),
    truth=lambda target, n: one_hot(target, n).movedim(-1, 1),
    axes=(0, 2, 3),
    score=lambda p, t, axes: (2 * (p * t).sum(axes) + 1e-6) / ((p + t).sum(axes) + 1e-6),
    first=1,
    finish=lambda dice: 1 - dice.mean(),
):
    """The loss with one step exchanged."""

    def solution(logits, target):
        p, t = probability(logits), truth(target, logits.shape[1])
        return finish(score(p, t, axes)[..., first:])

    return solution


def class_by_class(logits, target):
    probability, scores = torch.softmax(logits, dim=1), []
    for k in range(1, logits.shape[1]):
        p, t = probability[:, k], (target == k).to(logits.dtype)
        scores.append(2 * torch.sum(p * t) / torch.clamp(p.sum() + t.sum(), min=1e-7))
    return 1 - sum(scores) / len(scores)


def image_by_image(logits, target):
    losses = []
    for scores, classes in zip(logits.double(), target, strict=True):
        exponential = torch.exp(scores - scores.max(dim=0, keepdim=True).values)
        p = exponential / exponential.sum(dim=0, keepdim=True)
        for k in range(1, len(p)):
            wanted = classes.eq(k)
            both = p[k].sum() + wanted.sum()
            losses.append(1 - 2 * p[k][wanted].sum() / both if both > 0 else p[k].sum() * 0)
    return torch.stack(losses).mean()


def by_einsum(logits, target):
    n, c = logits.shape[:2]
    p = logits.log_softmax(1).exp().reshape(n, c, -1)
    t = torch.zeros_like(p).scatter_(1, target.reshape(n, 1, -1), 1.0)
    overlap, total = torch.einsum("ncp,ncp->nc", p, t), torch.einsum("ncp->nc", p + t)
    return torch.mean(1 - (2 * overlap[:, 1:] + 1e-5) / (total[:, 1:] + 1e-5))


class DiceLoss(nn.Module):
    def forward(self, logits, target):
        p = nn.Softmax(dim=1)(logits)
        wanted = target.unsqueeze(1) == torch.arange(logits.shape[1]).reshape(1, -1, 1, 1)
        both = p.sum((0, 2, 3)) + wanted.sum((0, 2, 3))
        return (1 - 2 * (p * wanted).sum((0, 2, 3)) / both.clamp_min(1e-9))[1:].mean()


def plain(p, t, axes):
    return 2 * (p * t).sum(axes) / (p + t).sum(axes)


def squares(p, t, axes):
    return 2 * (p * t).sum(axes) / (p**2 + t**2).sum(axes).clamp_min(1e-9)


def smooth(above, below):
    return lambda p, t, axes: (2 * (p * t).sum(axes) + above) / ((p + t).sum(axes) + below)


def monai(squared_pred=False, jaccard=False):
    """The score of MONAI's DiceLoss with these options: below, a test compares them where MONAI is installed."""

    def score(p, t, axes):
        overlap, both = (p * t).sum(axes), (p**2 + t**2 if squared_pred else p + t).sum(axes)
        return (2 * overlap + 1e-5) / ((2 * (both - overlap) if jaccard else both) + 1e-5)

    return score


def hidden_zero(p, t, axes):
    dice = plain(p, t, axes)
    return torch.where((p + t).sum(axes) == 0, 1.0, dice)


def over_present(logits, target):
    """Classes that are absent do not count."""
    dice = plain(logits.softmax(1), one_hot(target, logits.shape[1]).movedim(-1, 1), (0, 2, 3))[1:]
    present = [k - 1 for k in range(1, logits.shape[1]) if (target == k).any()]
    return 1 - dice[present].mean() if present else logits.sum() * 0


def absent_is_right(p, t, axes):
    return torch.where(t.sum(axes) > 0, smooth(0, 1e-6)(p, t, axes), 1.0)


def argmax(logits):
    return one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).float()


def generalized(logits, target):
    p, t = logits.softmax(1)[:, 1:], one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:]
    weight = 1 / t.sum((0, 2, 3)).clamp_min(1) ** 2
    return 1 - 2 * (weight * (p * t).sum((0, 2, 3))).sum() / (weight * (p + t).sum((0, 2, 3))).sum()


def pooled(first):
    def solution(logits, target):
        p, t = logits.softmax(1)[:, first:], one_hot(target, logits.shape[1]).movedim(-1, 1)[:, first:]
        return 1 - 2 * (p * t).sum() / (p + t).sum().clamp_min(1e-6)

    return solution


def changes_its_target(logits, target):
    loss = multiclass_dice_loss(logits, target)
    target[target == 2] = 1
    return loss


def detached(logits, target):
    p, t = logits.softmax(1), one_hot(target, logits.shape[1]).movedim(-1, 1)
    both = (p + t).sum((0, 2, 3)).detach()
    return 1 - (2 * (p * t).sum((0, 2, 3)) / both.clamp_min(1e-6))[1:].mean()


WRONG_DICE = {
    "squares": (dice_loss(score=squares), "^Value .*squares in the denominator, as in torch-em: here"),
    "squares for each image": (dice_loss(score=squares, axes=(2, 3)), "^Value .*squares in the denominator"),
    "squares of the library": (dice_loss(score=monai(squared_pred=True)), "^Value .*squares in the denominator"),
    "IoU of the library": (dice_loss(score=monai(jaccard=True), axes=(2, 3)), "^Value .*IoU"),
    "background included": (dice_loss(first=0), "^Value .*background is included"),
    "background included, each image": (dice_loss(first=0, axes=(2, 3)), "^Value .*background is included"),
    "background alone": (dice_loss(finish=lambda dice: 1 - dice[..., 0].mean(), first=0), "^Value .*background alone"),
    "no softmax": (dice_loss(lambda logits: logits), "^(Value|Range) .*softmax is missing"),
    "sigmoid": (dice_loss(torch.sigmoid), "^Value .*sigmoid of each logit"),
    "softmax twice": (dice_loss(lambda logits: logits.softmax(1).softmax(1)), "^Value .*applied twice"),
    "log_softmax": (dice_loss(lambda logits: logits.log_softmax(1)), "^(Value|Range) .*logarithm of the softmax"),
    "softmax over the batch": (dice_loss(lambda logits: logits.softmax(0)), "^Value .*softmax is over axis 0"),
    "softmax over a side": (dice_loss(lambda logits: logits.softmax(-1)),
                            "^Value .*softmax is over axis 3: the classes are axis 1"),
    "argmax": (dice_loss(argmax), "^Value .*argmax, which is not differentiable"),
    "argmax of the classes": (dice_loss(lambda logits: one_hot(logits.softmax(1).argmax(1), logits.shape[1])
                                        .movedim(-1, 1)), "^Value .*argmax, which is not differentiable"),
    "above 0.5": (dice_loss(lambda logits: (logits.softmax(1) > 0.5).float()), "^Value .*above 0.5, .*not differen"),
    "the Dice itself": (dice_loss(finish=lambda dice: dice.mean()), "^Value .*1 - is missing"),
    "minus the Dice": (dice_loss(finish=lambda dice: -dice.mean()), "^Range .*minus the Dice"),
    "no factor 2": (dice_loss(score=lambda p, t, axes: (p * t).sum(axes) / (p + t).sum(axes)),
                    "^Value .*factor 2 is missing"),
    "IoU": (dice_loss(score=lambda p, t, axes: (p * t).sum(axes) / (p + t - p * t).sum(axes)), "^Value .*IoU"),
    "precision": (dice_loss(score=lambda p, t, axes: (p * t).sum(axes) / p.sum(axes)), "^Value .*sum of p alone"),
    "recall": (dice_loss(score=lambda p, t, axes: (p * t).sum(axes) / t.sum(axes)), "^Value .*sum of t alone"),
    "sum over classes": (dice_loss(finish=lambda dice: (1 - dice).sum()), "^(Value|Range) .*sum over the classes"),
    "one minus the sum": (dice_loss(finish=lambda dice: 1 - dice.sum()), "^(Value|Range) .*one minus the sum"),
    "sum over images": (dice_loss(axes=(2, 3), finish=lambda dice: (1 - dice.mean(1)).sum()),
                        "^(Value|Range) .*sum over the images"),
    "all classes together": (pooled(1), "^Value .*one Dice of all classes together, in which"),
    "all classes of an image together": (
        lambda logits, target: torch.stack(list(map(pooled(1), logits.split(1), target.split(1)))).mean(),
        "^Value .*one Dice of all classes together, in which"),
    "all classes and background together": (pooled(0), "^Value .*together, background included"),
    "foreground": (dice_loss(lambda logits: torch.stack([logits.softmax(1)[:, 0], 1 - logits.softmax(1)[:, 0]], 1),
                             lambda target, n: torch.stack([target == 0, target > 0], 1)),
                   "^Value .*foreground against background"),
    "generalized": (generalized, "^Value .*For each class from 1"),
    "class 1 alone": (dice_loss(finish=lambda dice: 1 - dice[..., 0].mean()), "^Value .*class 1 alone"),
    "last class alone": (dice_loss(finish=lambda dice: 1 - dice[..., -1].mean()), "^Value .*last class alone"),
    "two classes only": (dice_loss(finish=lambda dice: 1 - dice[..., :2].mean()), "^Value .*four classes.*1 and 2"),
    "three classes expected": (dice_loss(truth=lambda target, n: one_hot(target, 3).movedim(-1, 1)),
                               "^Error: .*four classes: there are as many as logits have channels"),
    "softmax without background": (dice_loss(lambda logits: nn.functional.pad(logits[:, 1:].softmax(1),
                                                                              (0, 0, 0, 0, 1, 0))),
                                   "^Value .*softmax leaves out the background"),
    "brackets": (dice_loss(score=lambda p, t, axes: 2 * (p * t).sum(axes) / p.sum(axes) + t.sum(axes)),
                 "^Range .*needs brackets"),
    "pixel by pixel": (dice_loss(score=lambda p, t, axes: (2 * p * t / (p + t)).mean(axes)),
                       "^Value .*quotients of single pixels"),
    "on nuclei only": (lambda logits, target: dice_loss(lambda logits: logits.softmax(1) * (target > 0)[:, None])(
        logits, target), "^Value .*what is predicted on background counts"),
    "number of all classes": (dice_loss(finish=lambda dice: 1 - dice.sum(-1).mean() / (dice.shape[-1] + 1)),
                              "^Value .*divided by the number of all classes"),
    "first image dropped": (lambda logits, target: dice_loss(axes=(2, 3), first=0, finish=lambda dice: 1 - dice[
        1:].mean())(logits, target), "^(Value|Range) .*drops the first image"),
    "reshaped target": (dice_loss(truth=lambda target, n: one_hot(target, n).reshape(-1, n, *target.shape[1:])),
                        "^Value .*one_hot puts the classes last"),
    "classes last": (dice_loss(truth=one_hot), "^Error: .*size of tensor"),
    "one_hot of what is there": (dice_loss(truth=lambda target, n: one_hot(target).movedim(-1, 1)),
                                 "^Error: .*where class 2 is absent: one_hot, unique"),
    "smoothing of 1": (dice_loss(score=smooth(1, 1)), "^Value .*smoothing constant of 1 below and 1 above"),
    "smoothing of 0.01": (dice_loss(score=smooth(0.01, 0.01)), "^Value .*smoothing constant of 0.01 below"),
    "1 below": (dice_loss(score=smooth(0, 1)), "^Value .*smoothing constant of 1 below and 0 above"),
    "exponentials": (dice_loss(lambda logits: logits.exp() / logits.exp().sum(1, keepdim=True)),
                     "^Value of the loss of a perfect prediction: found nan.*is inf: take torch.softmax"),
    "logarithm": (dice_loss(finish=lambda dice: -dice.log().mean()), "^(Value|Range) .*logarithm of the Dice"),
    "cross entropy": (cross_entropy, "^(Value|Range) .*the cross entropy"),
    "cross entropy and Dice": (lambda logits, target: cross_entropy(logits, target) + multiclass_dice_loss(
        logits, target), "^(Value|Range) .*cross entropy and Dice"),
    "nll": (lambda logits, target: nll_loss(logits.softmax(1), target), "^Range "),
    "over classes of a pixel": (dice_loss(finish=lambda dice: 1 - dice.mean(), axes=1, first=0),
                                "^Value .*together, background included"),
    "order reversed": (dice_loss(lambda logits: logits.softmax(1).flip(1)), "^Value .*order of the classes"),
    "absent classes left out": (over_present, "^Value .*class 2 is absent.*counts, too"),
    "absent classes are right": (dice_loss(score=absent_is_right), "^Value .*class 2 is absent.*Dice 1 only if none"),
    "0/0": (dice_loss(score=plain), "^Range of the loss of a perfect .*: found nan.*0/0 needs a rule"),
    "hidden 0/0": (dice_loss(score=hidden_zero), "^Gradient .*found nan or inf.*hide a 0/0"),
    "detached": (detached, "^Gradient .*work on .detach"),
    "no gradient": (lambda logits, target: multiclass_dice_loss(logits.detach(), target), "^Gradient .*found none"),
    "a number": (lambda logits, target: multiclass_dice_loss(logits, target).item(), "^Type .*float.*lose the grad"),
    "one for each class": (dice_loss(finish=lambda dice: 1 - dice), r"^Shape of the result: found \(2,\)"),
    "one for each image": (dice_loss(axes=(2, 3), finish=lambda dice: 1 - dice.mean(1)), r"^Shape .*\(2,\)"),
    "through NumPy": (lambda logits, target: torch.tensor(multiclass_dice_loss(logits, target).detach().numpy()),
                      "^Gradient .*found none"),
    "changes its target": (changes_its_target, "^Mutation: your code changed its argument target"),
}  # fmt: skip


# 6.2 class_weights


def weights_from(weights_of, n_classes=3):
    """The weights are a function of the pixels of each class."""

    def solution(targets, n_classes=n_classes):
        counts = np.zeros(n_classes)
        for target in targets:
            counts += np.bincount(target.numpy().ravel(), minlength=n_classes)
        with np.errstate(all="ignore"):
            return torch.tensor(weights_of(counts), dtype=torch.float32)

    return solution


def mean_1(weights):
    return weights / weights.mean()


def inverse(counts):
    return counts.sum() / np.maximum(counts, 1)


def by_cat(targets, n_classes=3):
    pixels = torch.cat([target.reshape(-1) for target in targets])
    weights = 1.0 / torch.bincount(pixels, minlength=n_classes).clamp(min=1)
    return weights / weights.mean()


def by_small_number(targets, n_classes=3):
    total = sum(target.numel() for target in targets)
    frequency = torch.tensor([sum((target == k).sum().item() for target in targets) / total for k in range(n_classes)])
    weights = 1 / (frequency + 1e-8)
    return n_classes * weights / weights.sum()


def by_counter(targets, n_classes=3):
    counts = Counter()
    for target in targets:
        counts.update(target.flatten().tolist())
    weights = [1 / counts[k] if k in counts else 0.0 for k in range(n_classes)]
    return torch.FloatTensor([len(weights) * weight / sum(weights) for weight in weights])


def by_unique(targets, n_classes=3):
    weights = torch.zeros(n_classes, dtype=torch.float64)
    classes, counts = torch.cat([target.flatten() for target in targets]).unique(return_counts=True)
    weights[classes] = 1 / counts.double()
    return (weights / weights.mean()).float()


def by_one_more(targets, n_classes=3):
    counts = torch.ones(n_classes)
    for target in targets:
        counts += one_hot(target.flatten(), n_classes).sum(0)
    return (counts.sum() / counts) / (counts.sum() / counts).mean()


def by_pandas_counts(targets, n_classes=3):
    counts = pd.concat([pd.Series(target.flatten().numpy()) for target in targets]).value_counts()
    weights = (1 / counts).reindex(range(n_classes)).fillna(0.0)
    return torch.tensor((weights / weights.mean()).to_numpy(), dtype=torch.float32)


def mean_of_targets(each, finish=lambda weights: weights):
    def solution(targets, n_classes=3):
        counts = np.array([np.bincount(target.numpy().ravel(), minlength=n_classes) for target in targets])
        return torch.tensor(finish(np.mean([each(np.maximum(own, 1e-3)) for own in counts], axis=0))).float()

    return solution


def changes_its_targets(targets, n_classes=3):
    weights = class_weights(targets, n_classes)
    targets[0][targets[0] == 2] = 1
    return weights


NOT_1 = "^Value of the mean of the weights .*proportions are right"
WRONG_WEIGHTS = {
    "mean not 1": (weights_from(inverse), NOT_1),
    "inverse counts": (weights_from(lambda c: inverse(c) / c.sum()), NOT_1),
    "balanced": (weights_from(lambda c: inverse(c) / len(c)), NOT_1),
    "sum 1": (weights_from(lambda c: inverse(c) / inverse(c).sum()), NOT_1),
    "largest 1": (weights_from(lambda c: inverse(c) / inverse(c).max()), NOT_1),
    "smallest 1": (weights_from(lambda c: inverse(c) / inverse(c).min()), NOT_1),
    "background 1": (weights_from(lambda c: inverse(c) / inverse(c)[0]), NOT_1),
    "median frequency": (weights_from(lambda c: np.median(c) / np.maximum(c, 1)), NOT_1),
    "frequencies": (weights_from(lambda c: c / c.sum()), "^Value .*These are the frequencies: "),
    "frequencies of mean 1": (weights_from(mean_1), "^Value .*These are the frequencies"),
    "one minus": (weights_from(lambda c: 1 - c / c.sum()), "^Value .*That is 1 - frequency: "),
    "one minus, mean 1": (weights_from(lambda c: mean_1(1 - c / c.sum())), "^Value .*That is 1 - frequency: "),
    "square root": (weights_from(lambda c: mean_1(inverse(c) ** 0.5)), "^Value .*leave the root out"),
    "square": (weights_from(lambda c: mean_1(inverse(c) ** 2)), "^Value .*leave the square out"),
    "logarithm": (weights_from(lambda c: mean_1(np.log(inverse(c)))), "^Value .*These are logarithms"),
    "ENet": (weights_from(lambda c: mean_1(1 / np.log(1.02 + c / c.sum()))), "^Value .*inverse logarithms"),
    "reversed": (weights_from(lambda c: mean_1(inverse(c))[::-1].copy()), "^Value .*order is reversed"),
    "sorted": (weights_from(lambda c: np.sort(mean_1(inverse(c)))), "^Value .*They are sorted: weight k"),
    "sorted down": (weights_from(lambda c: np.sort(mean_1(inverse(c)))[::-1].copy()), "^Value .*the largest first"),
    "mean of targets": (mean_of_targets(lambda c: c.sum() / c, mean_1), "^Value .*means of the weights of each target"),
    "mean of targets, each of mean 1": (mean_of_targets(lambda c: mean_1(1 / c)), "^Value .*each with a mean of 1"),
    "targets count the same": (mean_of_targets(lambda c: c / c.sum(), lambda f: mean_1(1 / f)),
                               "^Value .*every target counts the same"),
    "first target": (lambda targets, n_classes=3: class_weights(targets[:1], n_classes), "^Value .*first target alone"),
    "last target": (lambda targets, n_classes=3: class_weights(targets[-1:], n_classes), "^Value .*last target alone"),
    "infinite": (weights_from(lambda c: np.where(c > 0, inverse(c) / inverse(c)[c > 0].mean(), np.inf)),
                 "^Range of the weights of targets without class 2.*inf.*give it a finite one"),
    "nan replaced too late": (weights_from(lambda c: np.nan_to_num(mean_1(c.sum() / c))),
                              "^Range of the weights of targets without class 2: found only zeros.*went into the mean"),
    "nan": (weights_from(lambda c: mean_1(c.sum() / c)), "^Range of the weights of targets without class 2.*nan"),
    "mean of those that are there": (weights_from(lambda c: np.where(c > 0, inverse(c) / inverse(c)[c > 0].mean(), 0)),
                                     "^Value of the mean of the weights of targets without class 2"),
    "only those that are there": (weights_from(lambda c: mean_1(inverse(c)[c > 0])),
                                  r"^Shape .*targets without class 2: found \(2,\), expected \(3,\).*for one without"),
    "bincount without minlength": (
        lambda targets, n_classes=3: mean_1(1 / torch.cat([t.flatten() for t in targets]).bincount().float()),
        "^Shape .*how many classes"),
    "absent spoils the rest": (weights_from(lambda c: mean_1(inverse(c)) if c.all() else np.ones(len(c))),
                               "^Value of the weights of targets without class 2.*They are proportional"),
    "always three": (lambda targets, n_classes=3: class_weights([t.clamp(max=2) for t in targets]), "^Shape .*four"),
    "float64": (lambda targets, n_classes=3: class_weights(targets, n_classes).double(), "^dtype .*torch.float64"),
    "an array": (lambda targets, n_classes=3: class_weights(targets, n_classes).numpy(), "^Type .*ndarray.*from_numpy"),
    "a list": (lambda targets, n_classes=3: class_weights(targets, n_classes).tolist(), "^Type .*found list"),
    "a dict": (lambda targets, n_classes=3: dict(enumerate(class_weights(targets, n_classes))), "^Type .*found dict"),
    "a row": (lambda targets, n_classes=3: class_weights(targets, n_classes)[None], r"^Shape .*\(1, 3\)"),
    "stacked": (lambda targets, n_classes=3: class_weights([torch.stack(targets)], n_classes), "^Error: .*equal size"),
    "changes its targets": (changes_its_targets, "^Mutation: your code changed its argument targets"),
}  # fmt: skip


# 6.3 paired_bootstrap


def bootstrap(
    draws=lambda a, b, rng, repeats: (a - b)[rng.integers(0, len(a), (repeats, len(a)))].mean(1),
    ends=lambda means, level: np.quantile(means, [(1 - level) / 2, (1 + level) / 2]),
    middle=lambda a, b, means: (a - b).mean(),
    finish=lambda mean, low, high: (float(mean), float(low), float(high)),
    refuse=lambda scores, other_scores: len(scores) != len(other_scores) or len(scores) == 0,
):
    """The bootstrap with one step exchanged."""

    def solution(scores, other_scores, rng, repeats=2000, level=0.95):
        if refuse(scores, other_scores):
            raise ValueError("The scores must be of the same images.")
        a, b = np.asarray(scores, dtype=float), np.asarray(other_scores, dtype=float)
        means = draws(a, b, rng, repeats)
        return finish(middle(a, b, means), *ends(means, level))

    return solution


def draw_by_draw(scores, other_scores, rng, repeats=2000, level=0.95):
    if not scores.__len__() or len(scores) != len(other_scores):
        raise ValueError("lengths")
    n, means = len(scores), []
    for _ in range(repeats):
        images = rng.choice(n, size=n, replace=True)
        means.append(np.mean([scores[i] for i in images]) - np.mean([other_scores[i] for i in images]))
    low, high = np.percentile(means, [50 * (1 - level), 100 - 50 * (1 - level)])
    return float(np.mean(scores) - np.mean(other_scores)), float(low), float(high)


def by_counting_images(a, b, rng, repeats):
    return rng.multinomial(len(a), [1 / len(a)] * len(a), repeats) @ (a - b) / len(a)


def by_sorting(means, level):
    means, outside = sorted(means), (1 - level) / 2 * len(means)
    return means[int(outside)], means[min(len(means) - 1, round(len(means) - 1 - outside))]


def by_scipy(scores, other_scores, rng, repeats=2000, level=0.95):
    difference = np.subtract(scores, other_scores) if len(scores) == len(other_scores) else []
    if len(difference) == 0:
        raise ValueError("no pairs")
    if len(difference) == 1:
        return (float(difference[0]),) * 3
    found = stats.bootstrap((difference,), np.mean, n_resamples=repeats, confidence_level=level, method="percentile",
                            random_state=rng)  # fmt: skip
    ends = found.confidence_interval
    return [float(difference.mean()), float(ends.low), float(ends.high)]


def by_pandas_quantiles(means, level):
    return pd.Series(means).quantile([0.5 - level / 2, 0.5 + level / 2]).tolist()


def by_random_numbers(a, b, rng, repeats):
    return [(a - b)[(rng.random(len(a)) * len(a)).astype(int)].mean() for _ in range(repeats)]


def unpaired(a, b, rng, repeats):
    return rng.choice(a, (repeats, len(a))).mean(1) - rng.choice(b, (repeats, len(b))).mean(1)


def python_random(a, b, rng, repeats):
    return [np.mean(random.choices((a - b).tolist(), k=len(a))) for _ in range(repeats)]


def normal_ends(factor):
    """Mean -+ some standard errors: `means` holds the differences themselves."""
    return bootstrap(draws=lambda a, b, rng, repeats: a - b,
                     ends=lambda d, level: d.mean() + np.array([-1, 1]) * factor * d.std() / len(d) ** 0.5)  # fmt: skip


def basic_ends(a, b, rng, repeats):
    return 2 * (a - b).mean() - (a - b)[rng.integers(0, len(a), (repeats, len(a)))].mean(1)


def own_generator(a, b, rng, repeats):
    return np.random.default_rng(0).choice(a - b, (repeats, len(a))).mean(1)


def copied_generator(a, b, rng, repeats):
    state = rng.bit_generator.state
    means = rng.choice(a - b, (repeats, len(a))).mean(1)
    rng.bit_generator.state = state
    return means


def changes_its_scores(scores, other_scores, rng, repeats=2000, level=0.95):
    found = paired_bootstrap(scores, other_scores, rng, repeats, level)
    for index in range(len(scores)):
        scores[index] -= other_scores[index]
    return found


def another_level(scores, other_scores, rng, repeats=2000, level=0.9):
    return paired_bootstrap(scores, other_scores, rng, repeats, level)


WRONG_BOOTSTRAP = {
    "unpaired": (bootstrap(unpaired), "^Value of the interval .*not paired: take the same images"),
    "without replacement": (bootstrap(lambda a, b, rng, n: [rng.permutation(a - b).mean() for _ in range(n)]),
                            "^Value of the interval .*Without replacement"),
    "single images": (bootstrap(lambda a, b, rng, repeats: rng.choice(a - b, repeats)),
                      "^Value of the interval .*images' differences"),
    "the same draw": (bootstrap(lambda a, b, rng, n: [rng.choice(a - b, len(a)).mean()] * n),
                      "^Value of the interval .*Draw anew each time"),
    "means of other axis": (bootstrap(lambda a, b, rng, repeats: rng.choice(a - b, (repeats, len(a))).mean(0)),
                            "^Value of the interval .*far too narrow"),
    "normal distribution": (lambda a, b, rng, repeats=2000, level=0.95: normal_ends(stats.norm.ppf((1 + level) / 2))(
        a, b, rng, repeats, level), "^Value of the interval .*as for a normal distribution"),
    "deviations of images": (bootstrap(lambda a, b, rng, repeats: a - b, lambda d, level: (
        d.mean() - 1.96 * d.std(), d.mean() + 1.96 * d.std())), "^Value of the interval .*deviations of the images"),
    "distances from the mean": (bootstrap(finish=lambda mean, low, high: tuple(map(float, (
        mean, mean - low, high - mean)))), "^Value of the interval .*distances from the mean"),
    "half the images": (bootstrap(lambda a, b, rng, repeats: rng.choice(a - b, (repeats, len(a) // 2 + 1)).mean(1)),
                        "^Value of the interval .*Draw as many images as there are"),
    "sign": (lambda a, b, *rest: paired_bootstrap(b, a, *rest), "^Value of the mean .*sign is wrong"),
    "sign of the draws": (bootstrap(lambda a, b, rng, repeats: rng.choice(b - a, (repeats, len(a))).mean(1)),
                          "^Value of the interval .*sign is wrong"),
    "no sign": (bootstrap(lambda a, b, rng, repeats: rng.choice(abs(a - b), (repeats, len(a))).mean(1),
                          middle=lambda a, b, means: abs(a - b).mean()), "^Value of the mean .*without their sign"),
    "scores alone": (bootstrap(lambda a, b, rng, repeats: rng.choice(a, (repeats, len(a))).mean(1)),
                     "^Value of the interval .*Draw as many"),
    "around 0": (bootstrap(lambda a, b, rng, repeats: rng.choice(a - b, (repeats, len(a))).mean(1) - (a - b).mean()),
                 "^Value of the interval .*around 0"),
    "other default": (another_level, r"^Value of the interval \(the default level of 0.95\)"),
    "always 95 %": (bootstrap(ends=lambda means, level: np.quantile(means, [0.025, 0.975])),
                    "^Value of the interval .*always that of level 0.95"),
    "twice outside": (bootstrap(ends=lambda means, level: np.quantile(means, [1 - level, level])),
                      "^Value of the interval .*here it is twice that"),
    "one side": (bootstrap(ends=lambda means, level: np.quantile(means, [(1 - level) / 2, level])),
                 "^Value of the interval .*above high"),
    "percentiles of shares": (bootstrap(ends=lambda means, level: np.percentile(means, [(1 - level) / 2,
                                                                                       (1 + level) / 2])),
                              "^Value of the interval .*np.percentile counts in percent"),
    "smallest and largest": (bootstrap(ends=lambda means, level: (min(means), max(means))),
                             "^Value of the interval .*0.025 of the draws lie below low"),
    "normal": (normal_ends(1.96), r"^Value of the interval .*1.96 standard errors"),
    "standard error": (normal_ends(1), r"^Value of the interval .*one standard deviation of the draws"),
    "basic": (bootstrap(basic_ends), "^Value of the interval .*mirrored at the mean"),
    "ends exchanged": (bootstrap(finish=lambda mean, low, high: (float(mean), float(high), float(low))),
                       "^Order of the interval .*Exchange"),
    "mean in the middle": (bootstrap(finish=lambda mean, low, high: (float(low), float(mean), float(high))),
                           "^Value of the mean .*order is wrong"),
    "mean of the draws": (bootstrap(middle=lambda a, b, means: np.mean(means)),
                          "^Value of the mean .*mean of the draws, which depends on chance"),
    "median": (bootstrap(middle=lambda a, b, means: np.median(a - b)), "^Value of the mean .*median"),
    "rounded": (bootstrap(finish=lambda *ends: tuple(round(float(end), 3) for end in ends)),
                "^Value of the mean .*Do not round"),
    "sums of the draws": (bootstrap(lambda a, b, rng, repeats: rng.choice(a - b, (repeats, len(a))).sum(1)),
                          "^Value of the interval .*sums over the images"),
    "medians of the draws": (bootstrap(lambda a, b, rng, repeats: np.median(rng.choice(a - b, (repeats, len(a))), 1)),
                             "^Value of the interval .*medians of the draws"),
    "random signs": (bootstrap(lambda a, b, rng, n: ((a - b) * rng.choice([-1, 1], (n, len(a)))).mean(1)),
                     "^Value of the interval .*random signs"),
    "sum": (bootstrap(middle=lambda a, b, means: np.sum(a - b)), "^Value of the mean .*It is the mean"),
    "relative": (bootstrap(middle=lambda a, b, means: (a / b - 1).mean()), "^Value of the mean .*It is the mean"),
    "NumPy numbers": (bootstrap(finish=lambda *ends: tuple(np.float64(end) for end in ends)),
                      "^Type of the mean: found numpy.float64, expected a Python float"),
    "float32": (bootstrap(finish=lambda *ends: tuple(np.float32(end) for end in ends)), "^Type of the mean.*float32"),
    "tensors": (bootstrap(finish=lambda *ends: tuple(torch.tensor(end) for end in ends)), "^Type of the mean.*Tensor"),
    "NumPy ends": (bootstrap(finish=lambda mean, low, high: (float(mean), low, high)), "^Type of the low.*numpy"),
    "an array": (bootstrap(finish=lambda *ends: np.array(ends)), "^Type of the result: found ndarray"),
    "nested": (bootstrap(finish=lambda mean, low, high: (float(mean), (float(low), float(high)))),
               "^Number of results: found 2"),
    "with the draws": (bootstrap(finish=lambda *ends: (*map(float, ends), [])), "^Number of results: found 4"),
    "a dict": (bootstrap(finish=lambda mean, low, high: {"mean": mean}), "^Type of the result: found dict"),
    "ignores repeats": (lambda a, b, rng, repeats=2000, level=0.95: paired_bootstrap(a, b, rng, 2000, level),
                        "^Value of the interval for repeats=1"),
    "Python's random": (bootstrap(python_random), "^Randomness: .*same seed.*from rng"),
    "NumPy's random": (bootstrap(lambda a, b, rng, repeats: np.random.choice(a - b, (repeats, len(a))).mean(1)),  # noqa: NPY002
                       "^Randomness: .*same seed.*from rng"),
    "torch's random": (bootstrap(lambda a, b, rng, repeats: (a - b)[torch.randint(len(a), (repeats, len(a)))].mean(1)),
                       "^Randomness: .*same seed.*from rng"),
    "own generator": (bootstrap(own_generator), "^Randomness: .*different seeds.*not from a generator of your own"),
    "generator reset": (bootstrap(copied_generator), "^Randomness: .*two calls with the same generator"),
    "lengths broadcast": (bootstrap(refuse=lambda a, b: len(a) == 0), "^Result for 5 and 1 scores: found no error"),
    "lengths by zip": (bootstrap(
        draws=lambda a, b, rng, repeats: rng.choice(a[: len(b)] - b[: len(a)], (repeats, len(a))).mean(1),
        middle=lambda a, b, means: (a[: len(b)] - b[: len(a)]).mean(), refuse=lambda a, b: len(a) == 0),
                       "^Result for 3 and 2 scores: found no error"),
    "nothing is nan": (lambda a, b, *rest: paired_bootstrap(a, b, *rest) if len(a) or len(b) else (np.nan,) * 3,
                       "^Result without scores: found no error"),
    "lists have no minus": (lambda a, b, *rest: paired_bootstrap(a - b, b * 0, *rest), "^Error: .*TypeError.*list"),
    "changes its scores": (changes_its_scores, "^Mutation: your code changed its argument scores"),
}  # fmt: skip


RIGHT = {
    "6.1": [dice_loss(), dice_loss(axes=(2, 3)), class_by_class, image_by_image, by_einsum, DiceLoss(),
            dice_loss(score=monai()), dice_loss(score=monai(), axes=(2, 3)), dice_loss(score=smooth(0, 1e-7))],
    "6.2": [by_cat, by_small_number, by_counter, by_unique, by_one_more, by_pandas_counts,
            weights_from(lambda c: mean_1(inverse(c)))],
    "6.3": [draw_by_draw, by_scipy, bootstrap(), bootstrap(by_counting_images), bootstrap(ends=by_sorting),
            bootstrap(ends=by_pandas_quantiles), bootstrap(by_random_numbers)],
}  # fmt: skip
WRONG = {"6.1": WRONG_DICE, "6.2": WRONG_WEIGHTS, "6.3": WRONG_BOOTSTRAP}
EQUIVALENT = {
    "6.1": {
        "only half precision needs it, and the task says nothing about that": [
            "multiclass_dice_loss, assignment: float() left out",
        ],
        "the target has the type that one_hot needs": ["multiclass_dice_loss, assignment 2: long() left out"],
        "-2 and 2, and any order, name the same axes of (N, C, H, W)": [
            f"multiclass_dice_loss, assignment {number}: {change}" for number in (3, 4)
            for change in ("items 1 and 2 swapped", "items 2 and 3 swapped", "2 -> -2")
        ],
        "where nothing is there and nothing predicted, the task says no more than that it is from 0 to 1": [
            "multiclass_dice_loss, assignment 6: 1.0 -> 0.0",
        ],
        "any number but 0 will do where the quotient is not used": [
            "multiclass_dice_loss, assignment 6: 1.0 -> 2.0 #2", "multiclass_dice_loss, assignment 6: 1.0 -> -1.0 #2",
        ],
    },
    "6.2": {
        "the targets have the type that bincount needs": ["class_weights, assignment 2: long() left out"],
        "a class without pixels may have any finite weight, one with a single pixel does not occur": [
            "class_weights, assignment 3: 0 -> 1", "class_weights, assignment 3: 0 -> 1 #2",
        ],
    },
    "6.3": {
        "a draw more or less is not seen": [f"paired_bootstrap, def: 2000 -> {number}" for number in (1999, 2001)],
        "scores of the check are floats, and the lengths were compared before": ["paired_bootstrap, assignment"],
        "the last axis of two is axis 1": ["paired_bootstrap, assignment 2: 1 -> -1"],
    },
}  # fmt: skip


class TestChecks(CheckTests):
    right, wrong, equivalent = RIGHT, WRONG, EQUIVALENT
    pictures = {
        "6.1": {"Panels": ["squares", "no softmax", "absent classes left out"]},
        "6.2": {"Panels": ["first target", "sorted"]},
        "6.3": {"Curves": ["unpaired", "basic"]},
    }


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("options", [{}, {"squared_pred": True}, {"jaccard": True}], ids=str)
def test_the_tables_hold_the_loss_of_monai(batch, options):
    losses = pytest.importorskip("monai.losses", reason='compares with MONAI: pip install -e ".[bench]"')
    expected = losses.DiceLoss(include_background=False, softmax=True, to_onehot_y=True, batch=batch, **options)
    logits = torch.randn(3, 4, 8, 9, generator=torch.Generator().manual_seed(1))
    target = torch.arange(3 * 8 * 9).reshape(3, 8, 9) % 4
    found = dice_loss(score=monai(**options), axes=(0, 2, 3) if batch else (2, 3))(logits, target)
    torch.testing.assert_close(found, expected(logits, target[:, None]))
