"""The checks of notebook 03: right losses and loops pass however they are written, messages name mistakes."""

from __future__ import annotations

import copy
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext

import numpy as np
import torch
from runner import CheckTests
from torch import nn
from torch.nn import functional
from torch.nn.functional import binary_cross_entropy_with_logits as imported_earlier

from course_utils.exercises import evaluate

# 3.1 binary_cross_entropy


def refusing(loss_fn, error=ValueError):
    """With the comparison of shapes that the task asks for."""

    def refuses(logits, target):
        if tuple(logits.shape) != tuple(target.shape):
            raise error(f"{logits.shape} is not {target.shape}")
        return loss_fn(logits, target)

    return refuses


def with_logsigmoid(logits, target):
    return -(target * functional.logsigmoid(logits) + (1 - target) * functional.logsigmoid(-logits)).mean()


def with_clamp(logits, target):
    loss = torch.clamp(logits, min=0) - logits * target + torch.log1p(torch.exp(-torch.abs(logits)))
    return torch.sum(loss) / loss.numel()


def with_logaddexp(logits, target, reduction="mean"):
    return (torch.logaddexp(logits, torch.zeros(())) - target * logits).mean()


def with_two_classes(logits, target):
    log_p = torch.stack([torch.zeros_like(logits), logits]).log_softmax(dim=0)
    return -torch.stack([1 - target, target]).mul(log_p).sum(dim=0).mean()


def one_by_one(logits, target):
    losses = []
    for x, t in zip(logits.flatten(), target.flatten(), strict=True):
        losses.append(t * functional.softplus(-x) + (1 - t) * functional.softplus(x))
    return torch.stack(losses).mean()


def with_two_branches(logits, target):
    """Each branch gets numbers at which it is finite, so that the gradient of the one not taken is 0."""
    positive, negative = torch.where(logits > 0, logits, 0.0), torch.where(logits > 0, 0.0, logits)
    above = positive + torch.log1p(torch.exp(-positive))
    return torch.mean(torch.where(logits > 0, above, torch.log1p(torch.exp(negative))) - target * logits)


def with_cross_entropy_of_two_classes(logits, target):
    both = torch.stack([torch.zeros_like(logits), logits], dim=1)
    return functional.cross_entropy(both, torch.stack([1 - target, target], dim=1))


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        ctx.save_for_backward(logits, target)
        return (functional.softplus(logits.double()) - target * logits).mean()

    @staticmethod
    def backward(ctx, grad):
        logits, target = ctx.saved_tensors
        return (grad * (logits.sigmoid() - target) / logits.numel()).float(), None


def with_own_gradient(logits, target):
    return OwnGradient.apply(logits, target)


def textbook(logits, target):
    p = torch.sigmoid(logits)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def with_epsilon(logits, target):
    p = torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def with_where(logits, target):
    """Finite, but the gradient of the branch not taken is nan."""
    positive = logits + torch.log1p(torch.exp(-logits))
    return (torch.where(logits > 0, positive, torch.log1p(torch.exp(logits))) - target * logits).mean()


def for_masks_only(logits, target):
    return functional.softplus(torch.where(target > 0.5, -logits, logits)).mean()


def clips_in_place(logits, target):
    logits.data.clamp_(-50, 50)
    return with_clamp(logits, target)


WRONG_CROSS_ENTROPIES = {
    "a class": (nn.BCEWithLogitsLoss, r"^Error|^Type"),
    "torch's own": (functional.binary_cross_entropy_with_logits, r"^Own formula: .*_cross_entropy_with_logits"),
    "torch's own, imported earlier": (lambda x, t: imported_earlier(x, t), r"^Own formula"),
    "torch's own module": (lambda x, t: nn.BCEWithLogitsLoss()(x, t), r"^Own formula"),
    "torch's own on probabilities": (lambda x, t: functional.binary_cross_entropy(x.sigmoid(), t), r"^Own formula"),
    "torch's own, below": (lambda x, t: torch.ops.aten.binary_cross_entropy_with_logits(x, t), r"^Own formula"),
    "no return": (lambda x, t: None, r"^Type of the result: found None, expected Tensor"),
    "a number": (lambda x, t: with_clamp(x, t).item(), r"^Type of the result: found float.*lose the gradient"),
    "for each element": (lambda x, t: functional.softplus(x) - t * x, r"^Shape of the result: found \(2, 1, 3, 4\)"),
    "for each image": (lambda x, t: (functional.softplus(x) - t * x).flatten(1).mean(1), r"^Shape of"),
    "sum": (lambda x, t: (functional.softplus(x) - t * x).sum(), r"^Value of .*That is the sum; the"),
    "sum of each image": (lambda x, t: (functional.softplus(x) - t * x).sum() / len(x), r"^Value of .*of each image"),
    "sigmoid twice": (lambda x, t: (functional.softplus(x.sigmoid()) - t * x.sigmoid()).mean(), r"^Value .*twice"),
    "infinities replaced": (lambda x, t: torch.nan_to_num(textbook(x, t)), r"^Gradient of .*found nan.*nan_to_num"),
    "sum where it is the right value by chance": (
        lambda x, t: with_clamp(x, t) * (x.numel() if x.ndim == 4 else 2), r"^Value of .*The mean over all elements"),
    "sign": (lambda x, t: -(functional.softplus(x) - t * x).mean(), r"^Value of .*The sign is wrong"),
    "background forgotten": (lambda x, t: (t * functional.softplus(-x)).mean(), r"^Value of .*t = 1 alone"),
    "target swapped": (lambda x, t: (functional.softplus(x) - (1 - t) * x).mean(), r"^Value of .*wrong way round"),
    "arguments swapped": (lambda t, x: (functional.softplus(x) - t * x).mean(), r"^Value .*in the place of the logits"),
    "logits as probabilities": (lambda x, t: -(t * x.log() + (1 - t) * (1 - x).log()).mean(), r"^Value of .*nan"),
    "base 2": (lambda x, t: with_clamp(x, t) / np.log(2), r"^Value of .*base 2"),
    "squared error": (lambda x, t: (x.sigmoid() - t).square().mean(), r"^Value of"),
    "decided targets": (for_masks_only, r"^Value of .*targets between 0 and 1"),
    "textbook": (textbook, r"^Value of the result for logits -10000 .*nan.*sigmoid was rounded"),
    "epsilon": (with_epsilon, r"^Value of the result for logits -10000 and targets 0\.3: found .*Clamping"),
    "overflow": (lambda x, t: (torch.log(1 + torch.exp(x)) - t * x).mean(), r"^Value .*logits 200 .*found inf.*exp of"),
    "clamped logits": (lambda x, t: with_clamp(x.clamp(-50, 50), t), r"^Value of .*Clamping or adding a small number"),
    "gradient nan": (with_where, r"^Gradient of the result for logits -10000 .*found nan.*torch.where"),
    "no gradient": (lambda x, t: with_clamp(x.detach(), t), r"^Gradient of .*found none"),
    "new tensor": (lambda x, t: torch.tensor(with_clamp(x, t).item()), r"^Gradient of .*found none"),
    "in place": (clips_in_place, r"^Mutation: your code changed its argument logits"),
    "torch's own, other name": (functional.multilabel_soft_margin_loss, r"^Own formula: .*multilabel"),
    "torch's own, other module": (lambda x, t: nn.MultiLabelSoftMarginLoss()(x, t), r"^Own formula"),
    "shapes not compared": (with_clamp, r"^Result for logits .*found no error, expected a ValueError"),
    "numbers of elements compared": (one_by_one, r"^Result for logits .*found no error"),
    "numbers of axes compared": (lambda x, t: refusing(with_clamp)(x, t) if x.ndim != t.ndim else with_clamp(x, t),
                                 r"^Result for logits \(2, 1\) and targets \(1, 2\)"),
    "wrong kind of error": (refusing(with_clamp, AssertionError), r": found AssertionError: .*`assert` is not enough"),
    "sigmoid in place": (lambda x, t: textbook(torch.logit(x.sigmoid_()), t), r"^Mutation"),
}  # fmt: skip


# 3.2 dice_score


def dice_in_loops(logits, target):
    scores = []
    for p_image, t_image in zip(torch.sigmoid(logits), target, strict=True):
        for p, t in zip(p_image, t_image, strict=True):
            total = p.sum() + t.sum()
            scores.append(2 * (p * t).sum() / total if total > 0 else torch.ones(()))
    return torch.stack(scores).mean()


def dice_with_epsilon(logits, target, eps=1e-7):
    p = 1 / (1 + torch.exp(-logits))
    overlap = torch.einsum("nchw,nchw->nc", p, target)
    sizes = torch.einsum("nchw->nc", p) + torch.einsum("nchw->nc", target)
    return ((2 * overlap + eps) / (sizes + eps)).mean()


def dice_by_numpy(logits, target):
    """A metric needs no gradient."""
    p, t = 1 / (1 + np.exp(-logits.detach().numpy().astype(float))), target.numpy()
    total = (p + t).sum((2, 3))
    return torch.tensor(np.where(total > 0, 2 * (p * t).sum((2, 3)) / np.maximum(total, 1e-12), 1).mean())


def dice_of_flat_maps(logits, target):
    """Gradients of empty maps are nan, which is right for a metric."""
    p, t = logits.sigmoid().reshape(-1, logits[0, 0].numel()), target.reshape(-1, target[0, 0].numel())
    return torch.nan_to_num(2 * (p * t).sum(1) / (p + t).sum(1), nan=1.0).mean()


def dice_in_place(logits, target):
    p = logits.sigmoid()
    overlap, total = torch.einsum("nchw,nchw->nc", p, target), (p + target).sum((-1, -2))
    overlap[total == 0], total[total == 0] = 0.5, 1
    return (2 * overlap / total).mean(1).mean()


def dice(axes=(2, 3), factor=2.0, smooth=0.0, p=torch.sigmoid, sizes=lambda p: p, empty=1.0, reduce=torch.mean):
    """The Dice score with one mistake or another."""

    def score(logits, target):
        probability = p(logits)
        overlap, total = (probability * target).sum(axes), (sizes(probability) + sizes(target)).sum(axes)
        if smooth:
            return reduce((factor * overlap + smooth) / (total + smooth))
        return reduce(torch.where(total > 0, factor * overlap / total.clamp(min=1e-12), empty))

    return score


def iou(logits, target):
    p = logits.sigmoid()
    overlap = (p * target).sum((2, 3))
    return (overlap / (p.sum((2, 3)) + target.sum((2, 3)) - overlap).clamp(min=1e-12)).mean()


def one_for_empty_targets(logits, target):
    p = logits.sigmoid()
    scores = 2 * (p * target).sum((2, 3)) / (p + target).sum((2, 3)).clamp(min=1e-12)
    return torch.where(target.sum((2, 3)) == 0, 1.0, scores).mean()


def one_for_empty_batches(logits, target):
    p = logits.sigmoid()
    total = (p + target).sum((2, 3))
    return torch.ones(()) if total.sum() == 0 else (2 * (p * target).sum((2, 3)) / total.clamp(min=1e-12)).mean()


def mean_of_maps_with_nuclei(logits, target):
    p = logits.sigmoid()
    overlap, total = (p * target).sum((2, 3)), (p + target).sum((2, 3))
    return (2 * overlap[total > 0] / total[total > 0]).mean() if total.any() else torch.ones(())


WRONG_DICES = {
    "stacked": (dice(reduce=lambda scores: scores), r"^Shape of the result: found \(2, 3\), expected \(\)"),
    "a number": (lambda x, t: dice_in_loops(x, t).item(), r"^Type of the result: found float"),
    "integer": (lambda x, t: dice_in_loops(x, t).long(), r"^dtype of the result"),
    "sum of scores": (dice(reduce=torch.sum), r"^Range of .*expected a number from 0 to 1"),
    "all pixels": (dice((0, 1, 2, 3)), r"^Value of .*Dice of all pixels together"),
    "over the batch": (dice((0, 2, 3)), r"^Value of .*Dice of the whole batch for each channel"),
    "over channels": (dice((1, 2, 3)), r"^Value of .*Dice of all channels together for each image"),
    "no sigmoid": (dice(p=lambda x: x), r"^Range of .*apply the sigmoid"),
    "softmax": (dice(p=lambda x: x.softmax(1)), r"^Value of .*softmax over channels"),
    "hard": (dice(p=lambda x: (x > 0).float()), r"^Value of .*thresholded"),
    "no factor 2": (dice(factor=1), r"^Value of .*factor 2 is missing"),
    "squares": (dice(sizes=torch.square), r"^Value of .*No squares"),
    "IoU": (iou, r"^Value of .*IoU"),
    "accuracy": (lambda x, t: ((x > 0) == (t > 0)).float().mean(), r"^Value of .*accuracy"),
    "precision": (lambda x, t: ((x.sigmoid() * t).sum((2, 3)) / x.sigmoid().sum((2, 3))).mean(),
                  r"^Value of .*precision"),
    "sigmoid twice": (dice(p=lambda x: x.sigmoid().sigmoid()), r"^Value of .*applied twice"),
    "a little smoothing": (dice(smooth=1e-3), r"^Value of .*smoothing constant of 0.001"),
    "empty maps do not count": (mean_of_maps_with_nuclei, r"^Value of .*each map counts in the mean"),
    "IoU by chance": (lambda x, t: iou(x, t) if len(x) == 3 else dice_in_loops(x, t) / 3,
                      r"^Value of .*For each image and channel"),
    "smoothing": (dice(smooth=1.0), r"^Value of .*smoothing constant of 1"),
    "loss": (lambda x, t: 1 - dice_in_loops(x, t), r"^Value of .*one minus the score"),
    "best channel": (dice(reduce=torch.max), r"^Value of"),
    "empty is 0": (dice(empty=0.0), r"^Value of .*an empty prediction of an empty target: found 0.0, expected 1.0"),
    "empty is nan": (lambda x, t: (2 * (x.sigmoid() * t).sum((2, 3)) / (x.sigmoid() + t).sum((2, 3))).mean(),
                     r"^Value of .*found nan, expected 1.0"),
    "empty target is 1": (one_for_empty_targets, r"^Value of .*full prediction of an empty target.*only both empty"),
    "empty batch is 1": (one_for_empty_batches, r"^Value of .*holds for each map"),
    "in place": (lambda x, t: dice(p=lambda x: x.data.sigmoid_())(x, t), r"^Mutation: your code changed .*logits"),
}  # fmt: skip


# 3.3 train_epoch


def epoch_with_lists(model, loader, loss_fn, optimizer, metric=None, scheduler=None):
    """Collects everything, averages with NumPy, returns a list, takes the device from the optimizer."""
    device = optimizer.param_groups[0]["params"][0].device
    losses, scores, sizes = [], [], []
    model = model.train()
    for batch in loader:
        x, y = (part.to(device, non_blocking=True) for part in batch)
        out = model(x)
        loss = loss_fn(out, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.detach().cpu())
        scores.append(None if metric is None else metric(out, y).item())
        sizes.append(x.size(0))
    mean = float(np.average(np.array(losses), weights=sizes))
    return [mean, None if metric is None else float(np.average(scores, weights=sizes))]


def epoch_on_the_device(model, loader, loss_fn, optimizer, metric=None):
    """Adds on the device and reads numbers only at the end; gradients without backward()."""
    weight = next(iter(model.parameters()))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sums = torch.zeros(3, device=weight.device)
    for module in model.modules():
        module.training = True
    for images, targets in iter(loader):
        images, targets = images.to(weight.device), targets.to(device=weight.device)
        logits = model(images)
        loss = loss_fn(logits, targets)
        for parameter, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            parameter.grad = gradient
        optimizer.step()
        with torch.no_grad():
            score = loss if metric is None else metric(logits, targets)
            sums += len(images) * torch.stack([loss, score, torch.ones_like(loss)])
    loss, score, number = sums.tolist()
    return loss / number, None if metric is None else score / number


def epoch_that_restores_modes(model, loader, loss_fn, optimizer, metric=None):
    """Running means; the mode is restored."""
    was_training, mean_loss, mean_metric, seen = model.training, 0.0, 0.0, 0
    model.train(True)
    for images, targets in loader:
        device = next(model.parameters()).device
        images, targets = images.to(device), targets.to(device)
        model.zero_grad()
        logits = model(images)
        loss = loss_fn(logits, targets)
        loss.backward()
        optimizer.step()
        seen += images.shape[0]
        mean_loss += (loss.item() - mean_loss) * images.shape[0] / seen
        if metric:
            mean_metric += (float(metric(logits, targets)) - mean_metric) * images.shape[0] / seen
    model.train(was_training)
    return mean_loss, (mean_metric if metric else None)


def epoch(
    mode=nn.Module.train, reset=True, reset_late=False, backward=True, step=True, once=False, move=True,
    only_images=False, swap=False, weigh=len, divide=True, number=float, none=None, after=False, count=None,
    before=lambda images: images,
):  # fmt: skip
    """A training loop with one mistake or another."""

    def train_epoch(model, loader, loss_fn, optimizer, metric=None):
        device = next(model.parameters()).device
        mode(model)
        losses, scores, n_images = 0.0, 0.0, 0
        for images, targets in loader:
            images = before(images)
            if move:
                images = images.to(device)
                targets = targets if only_images else targets.to(device)
            if reset:
                optimizer.zero_grad()
            logits = model(images)
            loss = loss_fn(targets, logits) if swap else loss_fn(logits, targets)
            if backward:
                loss.backward()
            if reset_late:
                optimizer.zero_grad()
            if step:
                optimizer.step()
            losses = losses + loss.detach() * weigh(images)
            if metric is not None:
                scores = scores + metric(model(images) if after else logits, targets).detach() * weigh(images)
            n_images += weigh(images)
            if once:
                break
        n_images = count(loader) if count else n_images if divide else 1
        mean = None if metric is None else number(scores / n_images)
        return number(losses / n_images), none if metric is None else mean

    return train_epoch


def steps_once_at_the_end(model, loader, loss_fn, optimizer, metric=None):
    result = epoch(step=False, reset=False)(model, loader, loss_fn, optimizer, metric)
    optimizer.step()
    return result


def half_written_epoch(model, loader, loss_fn, optimizer, metric=None):
    model.train()
    for _images, _targets in loader:
        raise NotImplementedError("Exercise 3.3: the body of the loop")


def epoch_with_a_closure(model, loader, loss_fn, optimizer, metric=None):
    """As `torch.optim.LBFGS` needs it; the result of the step is that of the closure."""
    device, rows = next(model.parameters()).device, []
    model.train()
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)

        def closure():
            nonlocal logits
            optimizer.zero_grad()
            logits = model(images)  # noqa: B023 (called before the next batch)
            loss = loss_fn(logits, targets)  # noqa: B023
            loss.backward()
            return loss

        logits = None
        loss = optimizer.step(closure)
        rows.append([loss.item(), 0 if metric is None else metric(logits.detach(), targets).item(), len(images)])
    losses, scores, sizes = np.array(rows).T
    return np.average(losses, weights=sizes), None if metric is None else np.average(scores, weights=sizes)


def epoch_with_a_scaler(model, loader, loss_fn, optimizer, metric=None):
    """Mixed precision, running means, gradients dropped by the model."""
    scaler, weight = torch.amp.GradScaler("cpu", init_scale=1024.0), next(model.parameters())
    loss_mean = metric_mean = 0.0
    seen = 0
    model.train(True)
    for x, y in list(loader):
        x, y = x.to(weight), y.to(weight.device)
        model.zero_grad()
        with torch.enable_grad():
            out = model(x)
            loss = loss_fn(out, y)
        scaler.scale(loss).backward(retain_graph=True)
        scaler.step(optimizer)
        scaler.update()
        seen += len(x)
        loss_mean += (loss.detach().cpu().numpy() - loss_mean) * len(x) / seen
        if metric is not None:
            with torch.inference_mode():
                metric_mean += (float(metric(out, y)) - metric_mean) * len(x) / seen
    return float(loss_mean), metric_mean if metric is not None else None


def epoch_that_sums_graphs(of_loss=False, of_metric=False, as_list=False):
    def train_epoch(model, loader, loss_fn, optimizer, metric=None):
        device, losses, scores, sizes = next(model.parameters()).device, [], [], []
        model.train()
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            logits = model(images)
            loss = loss_fn(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss, score = loss * len(images), metric(logits, targets) * len(images) if metric else torch.zeros(())
            losses.append(loss if of_loss else loss.item())
            scores.append(score if of_metric else score.item())
            sizes.append(len(images))
            if not as_list:
                losses, scores = [sum(losses)], [sum(scores)]
        means = float(sum(losses) / sum(sizes)), float(sum(scores) / sum(sizes))
        return means if metric else (means[0], None)

    return train_epoch


def metric_always(model, loader, loss_fn, optimizer, metric=None):
    return epoch()(model, loader, loss_fn, optimizer, lambda *pair: metric(*pair))


def one(_images):
    return 1


def changes_images(images):
    return images.sub_(0.1).add(0.1)


WRONG_EPOCHS = {
    "only the loss": (lambda *all_: epoch()(*all_)[0], r"^Type of the result with a metric: found float"),
    "three results": (lambda *all_: (*epoch()(*all_), 3), r"^Type of the result .*tuple of 3"),
    "tensors": (epoch(number=lambda value: value), r"^Type of the mean loss .*found Tensor, expected a Python float"),
    "NumPy numbers": (epoch(number=lambda value: np.float32(value)),
                      r"^Type of the mean loss .*found float32, .*NumPy's float32"),
    "0 for no metric": (epoch(none=0.0), r"^Type of the mean metric without a metric: found float, expected None"),
    "CPU only": (epoch(move=False), r"^Device of the images: found cpu, expected the device of the model"),
    "targets left behind": (epoch(only_images=True), r"^Device of the targets: found cpu"),
    "mode forgotten": (epoch(mode=lambda model: None), r"^Mode of the model during the epoch: found evaluation mode"),
    "evaluation mode": (epoch(mode=nn.Module.eval), r"^Mode of the model during the epoch"),
    "no backward": (epoch(backward=False), r"^Parameters after the epoch: found unchanged"),
    "no step": (epoch(step=False), r"^Parameters after the epoch: found unchanged"),
    "reset before the step": (epoch(reset_late=True), r"^Parameters after the epoch: found unchanged"),
    "no reset": (epoch(reset=False), r"^Gradients: found those of earlier batches"),
    "one step": (steps_once_at_the_end, r"^Parameters after the epoch: found other values"),
    "one batch": (epoch(once=True), r"^Parameters after the epoch: found those after one batch.*indented too far"),
    "two epochs": (lambda *all_: [epoch()(*all_) for _ in range(2)][1], r"^Parameters after .*found other"),
    "arguments of the loss": (epoch(swap=True), r"^Parameters after the epoch: .*loss_fn\(logits, targets\)"),
    "mean of batches": (epoch(weigh=one), r"^Value of the mean loss.*mean over batches"),
    "sum of batches": (epoch(weigh=one, divide=False), r"^Value of the mean loss.*sum over batches"),
    "sum of images": (epoch(divide=False), r"^Value of the mean loss.*sum over images"),
    "metric after the step": (epoch(after=True), r"^Value of the mean metric.*before the step"),
    "metric unweighted": (lambda *all_: (epoch()(*copy.deepcopy(all_))[0], epoch(weigh=one)(*all_)[1]),
                          r"^Value of the mean metric.*over batches"),
    "size of the data set": (epoch(count=lambda loader: len(loader.dataset)), r"^Error: .*AttributeError.*Look at"),
    "number of batches": (epoch(weigh=one, count=len), r"^Value of the mean loss.*mean over batches"),
    "images changed": (epoch(before=changes_images), r"^Mutation: your code changed its argument images"),
    "a sum of losses with graphs": (epoch_that_sums_graphs(of_loss=True), r"^Memory: graphs of the first"),
    "a sum of metrics with graphs": (epoch_that_sums_graphs(of_metric=True), r"^Memory: .*\.item\(\)"),
    "a list of losses with graphs": (epoch_that_sums_graphs(of_loss=True, as_list=True), r"^Memory: .*found 3"),
    "metric is None": (metric_always, r"^Result without a metric: .*if there is one"),
    "results swapped": (lambda *all_: epoch()(*all_)[::-1], r"^(Value of the mean loss.*the loss comes first|Type)"),
    "images over batches": (epoch(count=len), r"^Value of the mean loss.*divided by the number of batches"),
    "full batches": (epoch(count=lambda loader: getattr(loader, "batch_size", 1) * len(loader)),
                     r"^Value of the mean loss.*full batches"),
    "a number of another kind": (epoch(number=lambda value: np.asarray(value.detach())),
                                 r"^Type .*found ndarray.*NumPy's"),
    "rounded": (epoch(number=lambda value: round(float(value), 3)), r"^Value of the mean loss.*weighted"),
}  # fmt: skip


# 3.4 validate


@contextmanager
def evaluating(model):
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def validate_with_stack(model, loader, loss_fn, metric=None):
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        stack.enter_context(torch.set_grad_enabled(False))
        return validation(restore=nothing, mode=lambda model: model.train(False))(model, loader, loss_fn, metric)


def validate_with_except(model, loader, loss_fn, metric=None):
    """Restores once more after an error, without `finally`."""
    training = model.training
    try:
        return validation(careful=False)(model, loader, loss_fn, metric)
    except BaseException:
        model.train(training)
        raise


def nothing(*_arguments):
    pass


def validate_with_decorator(model, loader, loss_fn, metric=None):
    """A context for each thing, lists, NumPy."""
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        rows = []
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            logits = model(x)
            rows.append((float(loss_fn(logits, y)), 0.0 if metric is None else float(metric(logits, y)), len(x)))
    losses, scores, sizes = np.array(rows).T
    return [losses @ sizes / sizes.sum(), None if metric is None else scores @ sizes / sizes.sum()]


@torch.no_grad()
def validate_a_copy(model, loader, loss_fn, metric=None):
    """The model itself is not used; two passes, one for each number."""
    twin = copy.deepcopy(model).eval()
    device = next(iter(twin.parameters())).device

    def mean(function):
        pairs = [(function(twin(x.to(device)), y.to(device)), x.shape[0]) for x, y in loader]
        return sum(value.item() * number for value, number in pairs) / sum(number for _, number in pairs)

    return mean(loss_fn), mean(metric) if metric is not None else None


def validate_whole_data(model, loader, loss_fn, metric=None):
    """For a loader with a data set; the modes of all modules and the gradient mode are restored by hand."""
    modes, grad = {module: module.training for module in model.modules()}, torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        model.eval()
        weight = next(model.parameters())
        total = torch.zeros(2)
        number = 0
        for x, y in loader:
            logits, y = model(x.to(weight.device)), y.to(weight.device)
            score = metric(logits, y) if metric else torch.tensor(0.0)
            total += torch.stack([loss_fn(logits, y), score]) * len(y)
            number += len(y)
        number = len(loader.dataset) if hasattr(loader, "dataset") else number
    finally:
        torch.set_grad_enabled(grad)
        for module, mode in modes.items():
            module.training = mode
    loss, score = (total / number).tolist()
    return loss, score if metric else None


def validation(
    mode=nn.Module.eval, restore=nn.Module.train, grad=torch.no_grad, move=True, weigh=len, divide=True, number=float,
    none=None, prepare=lambda model: None, detach=False, swap=False, before=lambda images: images, careful=True,
):  # fmt: skip
    """A measuring loop with one mistake or another."""

    def validate(model, loader, loss_fn, metric=None):
        training = model.training
        mode(model)
        prepare(model)
        try:
            result = measure(model, loader, loss_fn, metric)
        except RuntimeError:
            if careful:
                restore(model, training)
            raise
        restore(model, training)
        return result

    def measure(model, loader, loss_fn, metric):
        device, losses, scores, n_images = next(model.parameters()).device, 0.0, 0.0, 0
        with grad():
            for images, targets in loader:
                images = before(images)
                if move:
                    images, targets = images.to(device), targets.to(device)
                logits = model(images)
                logits = logits.detach() if detach else logits
                losses += number(loss_fn(*((targets, logits) if swap else (logits, targets)))) * weigh(images)
                if metric is not None:
                    scores += number(metric(logits, targets)) * weigh(images)
                n_images += weigh(images)
        n_images = n_images if divide else 1
        return losses / n_images, none if metric is None else scores / n_images

    return validate


def trains(model, loader, loss_fn, metric=None):
    training = model.training
    model.eval()
    with torch.enable_grad():
        for images, targets in loader:
            loss_fn(model(images), targets).backward()
    result = validation()(model, loader, loss_fn, metric)
    for parameter in model.parameters():
        parameter.data -= 0.1 * parameter.grad
    model.train(training)
    return result


def switches_grad_off(model, loader, loss_fn, metric=None):
    torch.set_grad_enabled(False)
    return validation(grad=torch.no_grad)(model, loader, loss_fn, metric)


def switches_grad_on(model, loader, loss_fn, metric=None):
    torch.set_grad_enabled(False)
    result = validation()(model, loader, loss_fn, metric)
    torch.set_grad_enabled(True)
    return result


def switches_grad_off_until_the_end(model, loader, loss_fn, metric=None):
    grad = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    result = validation(grad=nullcontext)(model, loader, loss_fn, metric)
    torch.set_grad_enabled(grad)
    return result


def careful_with(*parts):
    """Restores the mode after an error in some places only."""

    def validate(model, loader, loss_fn, metric=None):
        training = model.training

        def guarded(part, function):
            def call(*arguments):
                try:
                    return function(*arguments)
                except RuntimeError:
                    model.train(training)
                    raise

            return call if part in parts else function

        if metric is not None:
            metric = guarded("metric", metric)
        return validation(careful=False)(model, loader, guarded("loss_fn", loss_fn), metric)

    return validate


def updates_averages(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()


def rounds(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()


WRONG_VALIDATIONS = {
    "only the loss": (lambda *all_: validation()(*all_)[0], r"^Type of the result"),
    "tensors": (validation(number=lambda value: value), r"^Type of the mean loss .*found Tensor"),
    "0 for no metric": (validation(none=0.0), r"^Type of the mean metric without a metric"),
    "training mode": (validation(mode=nn.Module.train), r"^Mode of the model while"),
    "mode untouched": (validation(mode=lambda model: None), r"^Mode of the model while"),
    "mode not restored": (validation(restore=lambda model, training: None), r"^Mode of .* afterwards: found eval"),
    "always training afterwards": (validation(restore=lambda model, training: model.train()),
                                   r"^Mode of .* afterwards: found tr"),
    "graph recorded": (validation(grad=nullcontext), r"^Gradients: found recorded"),
    "detached afterwards": (validation(grad=nullcontext, detach=True), r"^Gradients: found recorded"),
    "grad mode left off": (switches_grad_off, r"^Torch's gradient mode afterwards: found switched off"),
    "grad mode left on": (switches_grad_on, r"^Torch's gradient mode afterwards: found switched on"),
    "learns": (trains, r"^Gradients: found recorded"),
    "gradients dropped": (validation(prepare=nn.Module.zero_grad), r"^Mutation of the model: found other gradients"),
    "frozen": (validation(prepare=lambda model: model.requires_grad_(False)), r"^Mutation .*: .*requires_grad"),
    "weights rounded": (validation(prepare=rounds), r"^Mutation of the model's parameter layers.0.weight"),
    "averages updated": (validation(prepare=updates_averages), r"^Mutation of the model's buffer layers.1.running"),
    "CPU only": (validation(move=False), r"^Device of the images: found cpu"),
    "mean of batches": (validation(weigh=one), r"^Value of the mean loss.*mean over batches"),
    "sum of batches": (validation(weigh=one, divide=False), r"^Value of the mean loss.*sum over batches"),
    "sum of images": (validation(divide=False), r"^Value of the mean loss.*sum over images"),
    "arguments swapped": (validation(swap=True), r"^Value of the mean loss"),
    "images changed": (validation(before=changes_images), r"^Mutation: .*images"),
    "mode lost by an error": (validation(careful=False), r"^Mode of .* after an error in the loss .*`finally`"),
    "mode lost by an error of the metric": (careful_with("loss_fn"), r"^Mode of .* after an error in the metric"),
    "mode lost by another error": (careful_with("loss_fn", "metric"), r"^Mode of .* after an error in the model"),
    "grad mode lost by an error": (switches_grad_off_until_the_end, r"^Torch's gradient mode after an error in the l"),
    "metric is None": (lambda model, loader, loss_fn, metric=None: validation()(
        model, loader, loss_fn, lambda *pair: metric(*pair)), r"^Result without a metric"),
    "NumPy's float32": (validation(number=lambda value: np.float32(value)), r"^(Type .*NumPy's float32|Value)"),
}  # fmt: skip


RIGHT = {
    "3.1": [refusing(loss) for loss in (
        with_logsigmoid, with_clamp, with_logaddexp, with_two_classes, one_by_one, with_two_branches,
        with_cross_entropy_of_two_classes, with_own_gradient,
    )],
    "3.2": [
        dice_in_loops,
        dice_with_epsilon,
        dice_of_flat_maps,
        dice(empty=torch.tensor(1.0)),
        torch.no_grad()(dice_in_loops),
        lambda x, t: dice()(x.detach(), t),
        dice_by_numpy,
        dice_in_place,
        torch.inference_mode()(dice_in_place),
    ],
    "3.3": [
        epoch_with_lists, epoch_on_the_device, epoch_that_restores_modes, epoch_with_a_closure, epoch_with_a_scaler,
        epoch_that_sums_graphs(), epoch(),
    ],
    "3.4": [
        validate_with_decorator, validate_a_copy, validate_whole_data, validate_with_stack, validate_with_except,
        validation(),
    ],
}  # fmt: skip
WRONG = {"3.1": WRONG_CROSS_ENTROPIES, "3.2": WRONG_DICES, "3.3": WRONG_EPOCHS, "3.4": WRONG_VALIDATIONS}


SHAPES = "the task says nothing about tensors of different shapes"
EMPTY_LOADER = "the task says nothing about a loader without batches"
START = "all three sums start from zero, as an int or as a float"
EQUIVALENT = {
    "3.1": {
        "the task asks for a ValueError, not for its text": [
            "binary_cross_entropy, raise: value 1 -> ?", "binary_cross_entropy, raise: value 2 -> ?",
        ],
    },
    "3.2": {
        SHAPES: ["dice_score, if", "dice_score, raise"],
        "Dice is the same if prediction and target change places": [
            "dice_score, assignment: targets 1 and 2 swapped", "dice_score, assignment: items 1 and 2 swapped",
        ],
        "only half precision needs it, and the task says nothing about that": [
            "dice_score, assignment: float() left out", "dice_score, assignment: float() left out #2",
        ],
        "-2 and 2, and any order, name the same two axes of (N, C, H, W)": [
            "dice_score, assignment 2: items 1 and 2 swapped", "dice_score, assignment 3: items 1 and 2 swapped",
            "dice_score, assignment 2: - left out", "dice_score, assignment 3: items 1 and 2 swapped #2",
            "dice_score, assignment 2: 2 -> -2", "dice_score, assignment 3: - left out",
            "dice_score, assignment 3: - left out #3", "dice_score, assignment 3: 2 -> -2",
            "dice_score, assignment 3: 2 -> -2 #2",
        ],
        "any number will do where the quotient is not used; only the gradient, which a score need not have, is nan": [
            f"dice_score, assignment 5: 1.0 -> {number} #2" for number in (2.0, 0.0, -1.0)
        ],
    },
    "3.3": {
        START: [f"train_epoch, assignment 2: {which} swapped" for which in
                ("targets 1 and 2", "targets 2 and 3", "items 2 and 3")],
        "a metric with a graph has the same value; detaching only saves memory": [
            "train_epoch, assignment 7: detach() left out"
        ],
        EMPTY_LOADER: ["train_epoch, if 2", "train_epoch, raise"],
    },
    "3.4": {
        START: [f"validate, assignment 3: {which} swapped" for which in
                ("targets 1 and 2", "targets 2 and 3", "items 2 and 3")],
        EMPTY_LOADER: ["validate, if 2", "validate, raise"],
    },
}  # fmt: skip


PICTURES = {
    "3.1": {"Curves": ["sign", "target swapped", "sigmoid twice", "textbook", "epsilon", "clamped logits"]},
    "3.2": {"Panels": ["squares", "all pixels", "hard", "smoothing", "empty is nan", "empty batch is 1"]},
}


class TestChecks(CheckTests):
    right, wrong, equivalent, pictures = RIGHT, WRONG, EQUIVALENT, PICTURES


def test_the_curves_show_where_the_loss_goes_wrong():
    picture = evaluate("3.1", WRONG["3.1"]["clamped logits"][0]).picture
    title, yours, expected = picture.panels[0]
    assert title == "loss, target 1" and "at the logit -120: found 50, expected 120" in picture.alt
    assert np.allclose(expected, np.logaddexp(0, -picture.x)) and yours.max() == 50


def test_the_dice_of_each_map_stands_at_its_picture_and_their_mean_is_the_expected_one():
    picture = evaluate("3.2", WRONG["3.2"]["empty batch is 1"][0]).picture
    titles = [panel.title for panel in picture.panels]
    assert titles == ["p[0, 0], target in orange: Dice 0.154", "p[0, 1], target in orange: Dice 1.000"]
    assert "mean 0.577." in picture.alt and "expected 0.576923" in picture.alt
    assert [panel.outline.sum() for panel in picture.panels] == [1, 0]
    assert len(evaluate("3.2", WRONG["3.2"]["all pixels"][0]).picture.panels) == 6  # all maps of the batch


def test_a_half_written_loop_is_still_to_do():
    result = evaluate("3.3", half_written_epoch)
    assert result.status == "todo" and result.messages[0].startswith("Exercise 3.3")


def test_the_grad_mode_of_the_notebook_survives_every_submission():
    for solution in (switches_grad_off, switches_grad_on):
        with torch.enable_grad():
            evaluate("3.4", solution)
            assert torch.is_grad_enabled()
        with torch.no_grad():
            evaluate("3.4", solution)
            assert not torch.is_grad_enabled()


def test_the_first_check_of_a_session_is_quick_too():
    """The first optimizer of torch, for example, loads torch's compiler, which takes seconds of the time limit."""
    program = """
import sys
from course_utils.exercises import list_exercises
for exercise in list_exercises():
    if exercise.id[0] in "23":
        exercise.check(exercise.reference)
assert "torch._dynamo" not in sys.modules, "a check loads torch's compiler"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
