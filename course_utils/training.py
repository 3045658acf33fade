"""The training loop (notebook 03), and the one the later notebooks train with.

`train_epoch` and `validate` are the plain loop, written to be read. `fit` does the same work with what makes training
fast and steady: mixed precision, a one-cycle learning rate, averaged weights, a checkpoint after every epoch, and
several GPUs where `torchrun` starts a process for each.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from course_utils.device import MixedPrecision, choose_precision, fast_layout, keep_freed_memory
from course_utils.display import progress
from course_utils.distributed import join
from course_utils.results import replacing, summarize_error, writing_into

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def train_epoch(model, loader, loss_fn, optimizer, metric=None):
    """Train on every batch of `loader` once.

    Args:
        model: maps a batch of images to logits; it is switched to training mode and trained on the device it is on.
        loader: yields `(images, targets)` tensors with the batch as first dimension, at least one batch.
        loss_fn: `loss_fn(logits, targets)`, a scalar tensor.
        optimizer: of the model's parameters.
        metric: `metric(logits, targets)`, a scalar tensor, measured before each update; or None.

    Returns:
        `(mean loss, mean metric)` as Python floats, each batch weighted by its size; the metric is None if none is
        given.
    """
    device = next(model.parameters()).device
    model.train()
    total_loss, total_metric, n_images = 0.0, 0.0, 0
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)
        logits = model(images)
        loss = loss_fn(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        total_loss += loss.item() * len(images)
        if metric is not None:
            total_metric += float(metric(logits.detach(), targets)) * len(images)
        n_images += len(images)
    if n_images == 0:
        raise ValueError("The loader yielded no batch, so there was nothing to train on.")
    return total_loss / n_images, None if metric is None else total_metric / n_images


def validate(model, loader, loss_fn, metric=None):
    """Measure loss and metric on every batch of `loader` without changing the model.

    The model is in evaluation mode and no gradients are computed meanwhile; afterwards its previous mode and torch's
    grad mode are restored, also after an error.

    Args and returns as in `train_epoch`, without the optimizer.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total_loss, total_metric, n_images = 0.0, 0.0, 0
    try:
        with torch.no_grad():
            for images, targets in loader:
                images, targets = images.to(device), targets.to(device)
                logits = model(images)
                total_loss += loss_fn(logits, targets).item() * len(images)
                if metric is not None:
                    total_metric += float(metric(logits, targets)) * len(images)
                n_images += len(images)
    finally:
        model.train(was_training)
    if n_images == 0:
        raise ValueError("The loader yielded no batch, so there was nothing to validate on.")
    return total_loss / n_images, None if metric is None else total_metric / n_images


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave. Metrics are None where no metric was asked for."""

    epoch: int
    train_loss: float
    train_metric: float | None
    validation_loss: float
    validation_metric: float | None
    seconds: float


def jitter_intensity(images: torch.Tensor) -> torch.Tensor:
    """Scale and shift the intensities of each image of a batch `(N, C, H, W)` at random: by 0.6 to 1.6, by -0.2 to 0.2.

    The ranges follow StarDist's training examples.
    """
    shape = (len(images), 1, 1, 1)
    scale = torch.empty(shape).uniform_(0.6, 1.6)  # drawn on the CPU: the same numbers on every device
    shift = torch.empty(shape).uniform_(-0.2, 0.2)
    return images * scale.to(images.device, non_blocking=True) + shift.to(images.device, non_blocking=True)


def fit(
    model: nn.Module,
    train_loader: Iterable,
    validation_loader: Iterable,
    loss_fn: LossFunction,
    *,
    epochs: int,
    learning_rate: float,
    metric: Callable | None = None,
    batch_transform: Callable[[torch.Tensor], torch.Tensor] | None = jitter_intensity,
    average_decay: float = 0.99,
    precision: torch.dtype | None = None,
    compiled: bool = False,
    checkpoint: str | Path | None = None,
    metadata: dict | None = None,
    on_epoch: Callable[[list[EpochResult]], None] | None = None,
) -> list[EpochResult]:
    """Train a model and leave the averaged weights in it.

    Each step is that of `train_epoch`, in mixed precision where the device is fast at it. The learning rate rises and
    falls once over the whole training (one-cycle, Smith 2018) with AdamW. The validated and finally kept weights are an
    exponential moving average over the steps, which is steadier than the last step.

    In processes that `torchrun` started, each takes its share of every batch, and the result is the same up to rounding
    (`course_utils.distributed` says where it is not). All get the results; only the first writes the checkpoint and
    calls `on_epoch`.

    Args:
        model: on the device it shall be trained on; changed in place.
        train_loader: yields `(images, targets)`; has a length.
        validation_loader: as for `validate`.
        loss_fn: `loss_fn(logits, targets)`, given float32 logits.
        epochs: passes over `train_loader`.
        learning_rate: highest learning rate of the cycle.
        metric: `metric(logits, targets)` or None.
        batch_transform: applied to each batch of training images on the device; None to switch off.
        average_decay: 0.99 averages over about the last 100 steps; 0 keeps the last weights.
        precision: dtype of the heavy operations; None lets `device.choose_precision` decide.
        compiled: translate the network with `torch.compile` first, which needs a C++ compiler on a CPU and takes about
            a minute; how much faster the steps are then depends on the processor (3 to 30 % were measured). The numbers
            agree up to rounding.
        checkpoint: file that holds the state after each epoch. If it is there from an interrupted call with the same
            settings and the same `metadata`, training goes on from it and ends as if never interrupted. Any other
            file is ignored with a message. Removed at the end.
        metadata: plain values that say what is learnt (data, seed, ...): a checkpoint of anything else is not taken up.
        on_epoch: called after every epoch with the results so far, for example to draw curves.

    Returns:
        One `EpochResult` for each epoch.
    """
    device = next(model.parameters()).device
    precision = choose_precision(device) if precision is None else precision
    if device.type == "cpu":
        keep_freed_memory()
    model = fast_layout(model)
    ranks = join(device)
    forward = ranks.wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    # OneCycleLR divides by zero when the rise is exactly one step long, as it is for 5 steps
    total_steps = max(6, epochs * len(train_loader))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=total_steps, pct_start=0.2
    )
    averaged = copy.deepcopy(model)
    evaluated = averaged if precision == torch.float32 else MixedPrecision(averaged, precision)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    parts = {"model": model, "averaged": averaged, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    settings = {"epochs": epochs, "steps": len(train_loader), "learning_rate": learning_rate, "decay": average_decay}
    settings |= {"precision": str(precision), "metadata": metadata or {}}
    settings["weights"] = [list(weight.shape) for weight in model.parameters()]
    results: list[EpochResult] = []
    if checkpoint is not None:
        results = _resume(Path(checkpoint), parts, settings)
    ranks.agree(len(results), "number of epochs behind them")
    if compiled:
        forward = torch.compile(forward)

    def step(images, targets, weight):
        with contextlib.nullcontext() if precision == torch.float32 else torch.autocast(device.type, dtype=precision):
            logits = forward(images)
        logits = logits.float()
        loss = loss_fn(logits, targets)
        optimizer.zero_grad()
        scale = scaler.get_scale()
        scaler.scale(loss * weight).backward()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:  # else a gradient was too large for float16: the step is left out
            _update_average(averaged, model, schedule.last_epoch, average_decay)
            schedule.step()
        return logits.detach(), loss.detach()

    for epoch in range(len(results) + 1, epochs + 1):
        start = time.perf_counter()
        model.train()
        # sums stay on the device: asking for a number after each step would make a GPU wait
        totals, n_images = torch.zeros(2, device=device), 0
        for images, targets in progress(train_loader, f"epoch {epoch} of {epochs}") if ranks.first else train_loader:
            images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            if batch_transform is not None:
                images = batch_transform(images)
            n_batch = len(images)
            images, targets, n_own = ranks.share(images, targets)
            logits, loss = step(images, targets, n_own * ranks.size / n_batch)  # 1 if all processes have as many
            value = metric(logits, targets) if metric is not None else loss
            totals += torch.stack([loss, torch.as_tensor(value, device=device)]) * n_own
            n_images += n_batch
        train_loss, train_metric = (ranks.total(totals) / n_images).tolist()
        ranks.follow_first(averaged)
        validation_loss, validation_metric = validate(evaluated, validation_loader, loss_fn, metric)
        seconds = time.perf_counter() - start
        train_metric = train_metric if metric is not None else None
        result = EpochResult(epoch, train_loss, train_metric, validation_loss, validation_metric, seconds)
        results.append(ranks.of_first(result))
        if checkpoint is not None and ranks.first:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"settings": settings, "results": [asdict(r) for r in results], "random": torch.get_rng_state()}
            with writing_into(Path(checkpoint).parent), replacing(checkpoint) as file:
                torch.save(state, file)
        if on_epoch is not None and ranks.first:
            on_epoch(results)
    model.load_state_dict(averaged.state_dict())
    model.eval()
    if checkpoint is not None and ranks.first:
        Path(checkpoint).unlink(missing_ok=True)
    ranks.wait()
    return results


@torch.no_grad()
def _update_average(averaged: nn.Module, model: nn.Module, n_before: int, decay: float) -> None:
    """Take the weights after one more step into an exponential moving average.

    It forgets faster at first, so that the random start soon fades. `n_before` is the number of steps in it so far; it
    is a Python number because asking the GPU for one would make each step wait.
    """
    keep = min(decay, (1 + n_before) / (10 + n_before)) if n_before > 0 else 0.0
    for old, new in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:  # counters, such as the number of batches seen by a batch normalisation
            old.copy_(new)


def _resume(checkpoint: Path, parts: dict, settings: dict) -> list[EpochResult]:
    """Load the state of an interrupted training into `parts`; they stay as they are if there is none that fits."""
    if not checkpoint.exists():
        return []
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        found = dict(state)["settings"]
        different = [name for name in settings if found.get(name) != settings[name]]
        if different:
            raise ValueError(f"it has other {', '.join(different)}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        results = [EpochResult(**result) for result in state["results"]]
        torch.set_rng_state(state["random"])
    except Exception as error:  # torch raises a dozen different types for damaged files
        print(f"{checkpoint} does not fit this training and is ignored ({summarize_error(error)}).")
        for name, part in parts.items():
            part.load_state_dict(before[name])
        return []
    return results
