"""The training loop (notebook 03), and the one the later notebooks train with.

`train_epoch` and `validate` are the plain loop, written to be read. `fit` does the same work with what makes training
fast and steady: mixed precision, a one-cycle learning rate, averaged weights, a checkpoint after every epoch, and
several GPUs where `torchrun` starts a process for each.
"""

from __future__ import annotations

import copy
import math
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from course_utils.arguments import check_arguments, check_finite
from course_utils.device import (
    choose_precision,
    fast_layout,
    in_precision,
    keep_freed_memory,
    memory_explained,
    return_freed_memory,
)
from course_utils.display import ProgressBar
from course_utils.distributed import ProcessGroup, join_process_group
from course_utils.resuming import digest, digest_network, load_state, loader_generators, save_state
from course_utils.saving import all_finite

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Metric = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | float]


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
    check_arguments(model=model)
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
    check_arguments(model=model)
    device = next(model.parameters()).device
    was_training = {module: module.training for module in model.modules()}  # some may be frozen, others not
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
        for module, mode in was_training.items():
            module.training = mode
    if n_images == 0:
        raise ValueError("The loader yielded no batch, so there was nothing to validate on.")
    return total_loss / n_images, None if metric is None else total_metric / n_images


@dataclass(frozen=True)
class EpochResult:
    """Losses and metrics of one epoch; without a metric, these are None."""

    epoch: int
    train_loss: float
    train_metric: float | None
    validation_loss: float
    validation_metric: float | None
    seconds: float


OnEpoch = Callable[[list[EpochResult]], None]


def jitter_intensity(images: torch.Tensor) -> torch.Tensor:
    """Scale and shift the intensities of each image of a batch `(N, C, H, W)` at random: by 0.6 to 1.6, by -0.2 to 0.2.

    The ranges follow StarDist's training examples.

    Raises:
        ValueError: `images` is not such a batch.
    """
    if not torch.is_tensor(images) or images.ndim != 4:
        found = getattr(images, "shape", type(images).__name__)
        raise ValueError(f"images must be a tensor (N, C, H, W), but found {found}.")
    shape = (len(images), 1, 1, 1)
    scale = torch.empty(shape).uniform_(0.6, 1.6)  # drawn on the CPU: the same numbers on every device
    shift = torch.empty(shape).uniform_(-0.2, 0.2)
    return images * scale.to(images.device, non_blocking=True) + shift.to(images.device, non_blocking=True)


@dataclass(frozen=True)
class FitOptions:
    """What `fit` does beyond a plain loop; the defaults are those of the course.

    Args:
        batch_transform: applied to each batch of training images on the device; None to switch off.
        average_decay: 0.99 averages over about the last 100 steps; 0 keeps the last weights.
        precision: dtype of the heavy operations; None lets `device.choose_precision` decide.
        compiled: translate the network with `torch.compile` first, which needs a C++ compiler on a CPU and takes about
            a minute. Steps were 3 to 30 % faster, depending on the processor; the numbers agree up to rounding.
        checkpoint: file that holds the state after each epoch. If an interrupted call left it with the same images,
            targets, loss, metric, transform, network, settings and `metadata`, training resumes from it and ends as if
            it had never been interrupted (`resuming`; weights to start with are not compared, and a generator that only
            the data set or a transform knows starts anew). Another file is kept under another name, with a message.
            Removed at the end.
        metadata: plain values that describe the training (data, seed, ...); only a checkpoint with the same is resumed.
        on_epoch: called after every epoch with the results so far, for example to draw curves.
    """

    batch_transform: Callable[[torch.Tensor], torch.Tensor] | None = jitter_intensity
    average_decay: float = 0.99
    precision: torch.dtype | None = None
    compiled: bool = False
    checkpoint: str | Path | None = None
    metadata: dict = field(default_factory=dict)
    on_epoch: OnEpoch | None = None


def fit(
    model: nn.Module,
    train_loader: Iterable,
    validation_loader: Iterable,
    loss_fn: LossFunction,
    *,
    epochs: int,
    learning_rate: float,
    metric: Metric | None = None,
    options: FitOptions | None = None,
) -> list[EpochResult]:
    """Train a model and leave the averaged weights in it.

    Each step is that of `train_epoch`, in mixed precision where the device is fast at it. The learning rate rises and
    falls once over the whole training (one-cycle, Smith 2018) with AdamW. The weights that are validated, and kept in
    the end, are an exponential moving average over the steps, which is steadier than the last step.

    In processes that `torchrun` started, each takes its share of every batch, and the result is the same up to rounding
    (`course_utils.distributed` names the exceptions). All get the results; only the first writes the checkpoint and
    calls `on_epoch`.

    Whatever ends the training early, an error or Ctrl-C, leaves a model that can be used: the averaged weights of the
    steps so far, in evaluation mode; after a loss that is not finite, those of the last whole epoch. A checkpoint stays
    as the last whole epoch left it.

    Args:
        model: on the device to train on; changed in place.
        train_loader: yields `(images, targets)`; has a length.
        validation_loader: as for `validate`.
        loss_fn: `loss_fn(logits, targets)`, given float32 logits.
        epochs: passes over `train_loader`.
        learning_rate: highest learning rate of the cycle.
        metric: `metric(logits, targets)` or None.
        options: everything else.

    Returns:
        One `EpochResult` for each epoch.

    Raises:
        ValueError: a loader is empty, a training image has NaN or infinite pixels, or an argument is something else.
        FloatingPointError: a loss, or a weight, became NaN or infinite; the message says when, and what to try.
        MemoryError: the batches do not fit into memory; the message says how large they are, and what to set.
        OSError: the checkpoint cannot be written, for example because the disk is full.
    """
    # Set up
    check_arguments(model=model, epochs=epochs, learning_rate=learning_rate)
    for name, loader, otherwise in (("training", train_loader, 0), ("validation", validation_loader, 1)):
        if operator.length_hint(loader, otherwise) == 0:
            raise ValueError(f"The {name} loader is empty, or does not know how many batches it yields.")
    options = options or FitOptions()
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    group = join_process_group(device)
    training = _Training(model, group, epochs * len(train_loader), learning_rate, options)
    training.generators = loader_generators(train_loader)
    checkpoint = Path(options.checkpoint) if options.checkpoint is not None else None
    results = []

    try:
        # Resume
        if checkpoint is not None:
            settings = {"epochs": epochs, "steps": len(train_loader), "learning_rate": learning_rate}
            settings |= training.settings
            used = {"training images or targets": train_loader, "validation images or targets": validation_loader}
            used |= {"loss": loss_fn, "metric": metric, "transform of the batches": options.batch_transform}
            settings |= {name: digest(value) for name, value in used.items()}
            results = [EpochResult(**result) for result in load_state(checkpoint, training, settings)]
            training.keep()
        group.check_equal(len(results), "number of finished epochs")
        bar = ProgressBar(epochs, finished=len(results))

        for epoch in range(len(results) + 1, epochs + 1):
            start = time.perf_counter()
            # Train
            batches = bar.epoch(train_loader) if group.is_first else train_loader
            train_loss, train_metric = training.run_epoch(epoch, batches, loss_fn, metric)
            # Validate
            group.sync_buffers(training.averaged.module)
            with memory_explained(lambda: "A whole validation image"):
                validation_loss, validation_metric = validate(training.evaluated, validation_loader, loss_fn, metric)
            check_finite(validation_loss, f"epoch {epoch}, the validation loss", "the validation images and targets")
            seconds = time.perf_counter() - start
            result = EpochResult(epoch, train_loss, train_metric, validation_loss, validation_metric, seconds)
            results.append(group.broadcast_from_first(result))
            # Save
            training.keep()
            if group.is_first and checkpoint is not None:
                save_state(checkpoint, training, settings, [asdict(one) for one in results])
            if group.is_first and options.on_epoch is not None:
                options.on_epoch(results)
    except FloatingPointError:
        training.averaged.module.load_state_dict(training.kept)
        raise
    finally:  # also after an error or Ctrl-C
        try:
            training.leave_usable(model)
        except KeyboardInterrupt:  # it came just now
            training.leave_usable(model)
            raise

    # Finish
    if group.is_first and checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    group.barrier()
    del training  # optimizer and averaged weights
    return_freed_memory()
    return results


class _Training:
    """A model and what changes it from step to step: optimizer, learning rate, loss scale, averaged weights."""

    def __init__(self, model: nn.Module, group: ProcessGroup, n_steps: int, learning_rate: float, options: FitOptions):
        self.device = next(model.parameters()).device
        self.options, self.group, self.model = options, group, fast_layout(model)
        precision = options.precision or choose_precision(self.device)
        forward = group.wrap(self.model)
        self.forward = in_precision(torch.compile(forward) if options.compiled else forward, precision)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
        # OneCycleLR divides by zero when the rise is exactly one step long, as it is for 5 steps
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=learning_rate, total_steps=max(6, n_steps), pct_start=0.2
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        # the buffers too: statistics of batch normalisation belong to the weights that they were computed with
        self.averaged = AveragedModel(model, multi_avg_fn=_moving_average(options.average_decay), use_buffers=True)
        self.evaluated = in_precision(self.averaged, precision)
        self.settings = {
            "average_decay": options.average_decay,
            "precision": str(precision),
            "metadata": options.metadata,
            "network": digest_network(model),
        }
        self.keep()

    def keep(self) -> None:
        """Remember the averaged weights, which are those of a whole epoch."""
        self.kept = copy.deepcopy(self.averaged.module.state_dict())

    def leave_usable(self, model: nn.Module) -> None:
        """Put the averaged weights into the model; those of the last whole epoch if some are not finite."""
        current = self.averaged.module.state_dict()
        model.load_state_dict(current if all_finite(current) else self.kept)
        model.eval()

    def run_epoch(
        self, epoch: int, batches: Iterable, loss_fn: LossFunction, metric: Metric | None
    ) -> tuple[float, float | None]:
        """Train once on this process's share of every batch; returns mean loss and metric over all images."""
        self.model.train()
        # sums stay on the device: fetching a number makes a GPU wait
        totals, n_images, losses = torch.zeros(2, device=self.device), 0, []
        batch = "A batch of training images"
        with memory_explained(lambda: batch):
            for images, targets in batches:
                if not torch.isfinite(images).all():  # before they go to a GPU, which would have to wait for the answer
                    raise ValueError("A training image has pixels that are NaN or infinite: look at the images first.")
                n_batch, size = len(images), " x ".join(str(side) for side in images.shape[-2:])
                batch = f"A batch of {n_batch} images of {size} pixels"
                images, targets = (part.to(self.device, non_blocking=True) for part in (images, targets))
                if self.options.batch_transform is not None:
                    images = self.options.batch_transform(images)
                images, targets, n_own = self.group.shard(images, targets)
                logits, loss = self.step(images, targets, loss_fn, n_own * self.group.size / n_batch)
                losses.append(loss)
                if self.device.type == "cpu":
                    self.check(epoch, losses[-1:], len(losses))
                value = metric(logits, targets) if metric is not None else loss
                totals += torch.stack([loss, torch.as_tensor(value, device=self.device)]) * n_own
                n_images += n_batch
        if n_images == 0:
            raise ValueError("The training loader is empty: it yielded no batch.")
        self.check(epoch, losses)
        for what, content in (
            ("a weight of the network", self.model),
            ("what the optimizer remembers of the gradients, one of which was huge,", self.optimizer),
        ):
            if not all_finite(content.state_dict()):
                check_finite(math.nan, f"epoch {epoch}, after step {len(losses)}, {what}")
        mean_loss, mean_metric = (self.group.all_sum(totals) / n_images).tolist()
        return mean_loss, mean_metric if metric is not None else None

    def check(self, epoch: int, losses: list[torch.Tensor], first: int = 1) -> None:
        """Stop at the first loss that is not finite; `first` is the number of the first one in the list."""
        for step, loss in enumerate(torch.stack(losses).tolist(), first):
            check_finite(loss, f"epoch {epoch}, step {step}, the loss")

    def step(
        self, images: torch.Tensor, targets: torch.Tensor, loss_fn: LossFunction, weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the weights once; returns logits and loss. `weight` is that of this process's share in the batch."""
        logits = self.forward(images).float()
        loss = loss_fn(logits, targets)
        if not torch.is_tensor(loss) or loss.ndim > 0 or not loss.requires_grad:
            found = f"shape {tuple(loss.shape)}" if torch.is_tensor(loss) and loss.ndim else "no gradient"
            raise ValueError(f"The loss must be a scalar tensor computed from the logits, but it has {found}.")
        self.optimizer.zero_grad()
        scale = self.scaler.get_scale()
        self.scaler.scale(loss * weight).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else a gradient overflowed in float16, and the step was skipped
            self.averaged.update_parameters(self.model)
            self.schedule.step()
        return logits.detach(), loss.detach()

    def state_dict(self) -> dict:
        parts = ("model", "averaged", "optimizer", "schedule", "scaler")
        return {name: getattr(self, name).state_dict() for name in parts}

    def load_state_dict(self, state: dict) -> None:
        for name in self.state_dict():
            getattr(self, name).load_state_dict(state[name])


def _moving_average(decay: float) -> Callable[[list, list, torch.Tensor], None]:
    """An exponential moving average for `AveragedModel`, with a warm-up, so that the random start soon fades.

    When a step is added to n earlier ones, their average keeps the weight `min(decay, (1 + n) / (10 + n))`.
    """

    @torch.no_grad()
    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], n_averaged: torch.Tensor) -> None:
        n = int(n_averaged)
        keep = min(decay, (1 + n) / (10 + n))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:  # counters, such as the number of batches seen by a batch normalisation
                old.copy_(new)

    return update
