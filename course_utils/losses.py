"""Losses and pixel scores (notebooks 03 and 06). All take logits, the linear output of the network.

Other targets than described, such as 255 for nuclei, are a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn.functional import one_hot, softplus

from course_utils.arguments import as_list, check_class_logits, check_logits, check_targets


def binary_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy, computed from logits so that it stays finite.

    Implemented literally, -t log(p) - (1 - t) log(1 - p) with p = sigmoid(x) fails as soon as p rounds to 0 or 1.

    Args:
        logits: float tensor of any shape.
        target: float tensor of the same shape, values in [0, 1].

    Returns:
        Scalar tensor; finite, with finite gradients, for every finite logit.

    Raises:
        ValueError: the shapes differ (broadcasting would silently change the mean).

    >>> binary_cross_entropy(torch.tensor([-1e4, 0.0]), torch.tensor([0.0, 1.0]))
    tensor(0.3466)
    """
    check_logits(logits, target)
    if logits.shape != target.shape:
        raise ValueError(f"logits and target must have the same shape, but have {logits.shape} and {target.shape}.")
    # -log(p) = softplus(-x) = softplus(x) - x and -log(1 - p) = softplus(x), so most of the formula cancels
    return (softplus(logits) - target * logits).mean()


def dice_score(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Soft Dice score of `sigmoid(logits)`, averaged over batch and channels.

    Dice is `2 * sum(p * t) / (sum(p) + sum(t))` over the pixels of one map (Dice 1945, Sørensen 1948).

    Args:
        logits: float tensor `(N, C, H, W)`.
        target: float tensor of the same shape, values 0 and 1.

    Returns:
        Scalar tensor in [0, 1]. A map in which prediction and target are both empty scores 1.

    >>> dice_score(torch.full((1, 1, 2, 2), 1e4), torch.ones(1, 1, 2, 2))
    tensor(1.)
    """
    check_logits(logits, target, ndim=4)
    if logits.shape != target.shape:
        raise ValueError(f"logits and target must have the same shape, but have {logits.shape} and {target.shape}.")
    # the sums of an image overflow in float16, whose largest number is 65504
    probability, target = torch.sigmoid(logits.float()), target.float()
    overlap = (probability * target).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    both_empty = total == 0
    dice = torch.where(both_empty, 1.0, 2 * overlap / torch.where(both_empty, 1.0, total))
    return dice.mean()


def hard_dice_score(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice score of the mask thresholded at a probability of 0.5: what is reported as a result.

    Arguments and result as in `dice_score`. It has no gradient, so it is a metric, not a loss.

    >>> hard_dice_score(torch.full((1, 1, 2, 2), 0.1), torch.ones(1, 1, 2, 2))
    tensor(1.)
    """
    check_logits(logits, target, ndim=4)
    thresholded = torch.where(logits > 0, torch.inf, -torch.inf)  # sigmoid gives exactly 1 and 0
    thresholded = torch.where(logits.isnan(), torch.nan, thresholded)  # a broken network has no score, not a poor one
    return dice_score(thresholded, target)


def foreground_dice_score(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Hard Dice of "any nucleus" for a three-class network: interior and boundary together against the background.

    Args:
        logits: float tensor `(N, 3, H, W)`.
        target: int64 tensor `(N, H, W)` of `boundary_target`.
    """
    check_class_logits(logits, target)
    background = torch.softmax(logits, dim=1)[:, :1]
    return hard_dice_score(0.5 - background, (target > 0).float()[:, None])


def multiclass_dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the mean Dice over the classes 1, 2, ... of the softmax; the background, class 0, does not count.

    Every class counts the same, however few pixels it has. Dice is `2 * sum(p * t) / (sum(p) + sum(t))` over the pixels
    of the whole batch, without squares in the denominator (Milletari et al. 2016 had them): as nnU-Net does it, so that
    a class that is absent from one image of the batch does no harm.

    Args:
        logits: float tensor `(N, C, H, W)` with at least two classes.
        target: integer tensor `(N, H, W)` of the classes 0 to C - 1.

    Returns:
        Scalar float32 tensor in [0, 1], with finite gradients. A class that is neither there nor predicted has Dice 1;
        one that is absent but predicted, however little, has Dice 0.

    Raises:
        ValueError: logits and target do not fit, or there is one class only.

    >>> multiclass_dice_loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # 1 - 2 * 1 / (2 + 2)
    tensor(0.5000)
    """
    check_class_logits(logits, target, n_classes=None)
    # the sums of an image overflow in float16, whose largest number is 65504
    probability = torch.softmax(logits.float(), dim=1)
    truth = one_hot(target.long(), logits.shape[1]).movedim(-1, 1)
    overlap = (probability * truth).sum(dim=(0, 2, 3))[1:]
    total = (probability + truth).sum(dim=(0, 2, 3))[1:]
    both_empty = total == 0
    dice = torch.where(both_empty, 1.0, 2 * overlap / torch.where(both_empty, 1.0, total))
    return 1 - dice.mean()


def class_weights(targets: Iterable[torch.Tensor], n_classes: int = 3) -> torch.Tensor:
    """Weights for the classes of a cross entropy: the inverse of their frequency, scaled to a mean of 1.

    Args:
        targets: integer tensors of the classes 0 to `n_classes` - 1, of any shapes.
        n_classes: number of classes.

    Returns:
        Float32 tensor `(n_classes,)` whose mean is 1. A class without pixels has the weight 0: no pixel asks for it.

    Raises:
        ValueError: a target holds something else, or there are no pixels.

    >>> class_weights([torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 2]])])
    tensor([0.3333, 0.6667, 2.0000])
    """
    targets = as_list(targets=targets)
    check_targets(targets, n_classes)
    counts = sum(torch.bincount(target.flatten().long(), minlength=n_classes) for target in targets)
    weights = torch.where(counts > 0, counts.sum() / counts, 0)
    return weights / weights.mean()
