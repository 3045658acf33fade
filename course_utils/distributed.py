"""Training in several processes at once, one for each GPU, as torch's own `torchrun` starts them (Li et al. 2020).

    torchrun --standalone --nproc-per-node 2 -m workshop.train --data dsb2018 --profile full --output output

Every process has the whole network, and draws the same batch as the others, but computes with its share of it only.
`DistributedDataParallel` averages the gradients of all processes, so all take the same step: the one that a single
process would take with the whole batch. Up to rounding it is the same training, with these exceptions:

* A loss that divides by something else than the number of pixels, such as the weighted cross entropy of notebook 05,
  does so in each share by itself. A metric that is no mean over images would differ likewise.
* Batch normalisation: on CUDA it becomes `SyncBatchNorm`, which takes mean and variance over the whole batch as one
  process does; only where there are fewer images than processes, one image counts twice. There is none for the CPU:
  there each process normalises its share by itself, and the running statistics that are kept are those of the first
  process.

Li, S. et al.: PyTorch Distributed: Experiences on Accelerating Data Parallel Training. VLDB 2020.
https://arxiv.org/abs/2006.15704
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed, nn

Value = TypeVar("Value")

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}  # how processes talk to each other: one for each kind of device


@dataclass(frozen=True)
class Ranks:
    """The processes that train together; without `torchrun` it is one, and nothing here does anything.

    Args:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that talks to people and writes files."""
        return self.rank == 0

    def share(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """This process's part of a batch: every `size`-th image from number `rank` on, and how many these are.

        A batch may be too small for all. As every process has to take part in every step, one without an image
        gets the first one, and is told that it has 0 of its own, for a weight of 0.

        >>> images, targets, own = Ranks(1, 2).share(torch.arange(5), torch.arange(5))
        >>> images, own
        (tensor([1, 3]), 2)
        """
        own = len(range(self.rank, len(images), self.size))
        start = self.rank if own > 0 else 0
        return images[start :: self.size], targets[start :: self.size], own

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to train with: gradients are averaged over the processes.

        All of them then have the weights and the random numbers of the first.

        Args:
            model: on its device; it is what `wrap` trains, so its weights are read and saved as ever. With several GPUs
                its batch normalisations are replaced by synchronised ones, which have the same weights and, when it is
                used, the same results.
        """
        if self.size == 1:
            return model
        if next(model.parameters()).device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        trained = nn.parallel.DistributedDataParallel(model)
        self.follow_first(model)
        return trained

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def of_first(self, value: Value) -> Value:
        """What the first process has; every process waits for it."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def follow_first(self, model: nn.Module) -> None:
        """Take the first process's random numbers, and its buffers: the statistics of batch normalisation."""
        if self.size > 1:
            torch.set_rng_state(self.of_first(torch.get_rng_state()))
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, value: Any, what: str) -> None:
        """Wait for all processes, and see that they have the same value.

        Raises:
            ValueError: they have not; the message says `what` it is.
        """
        values: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        if values.count(value) < self.size:
            raise ValueError(
                f"The processes of this training do not have the same {what}, but {', '.join(map(str, values))}: let "
                "all of them see one folder for results, or delete what is left there of an earlier training."
            )


def several_wanted() -> bool:
    """Whether `torchrun` started this process and others."""
    return distributed.is_available() and distributed.is_torchelastic_launched() and os.environ["WORLD_SIZE"] != "1"


def join(device: torch.device) -> Ranks:
    """Meet the other processes that `torchrun` has started; one alone is there at once.

    Args:
        device: what this process computes on.

    Raises:
        ValueError: this kind of device cannot be used by several processes, or there are fewer GPUs than processes.
    """
    if several_wanted() and not distributed.is_initialized():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if device.type not in BACKENDS:
            raise ValueError(
                f"Several processes can train on CUDA GPUs or on the CPU, but this device is {device}: start without "
                "torchrun, or set COURSE_DEVICE=cpu."
            )
        if device.type == "cuda":
            if here > torch.cuda.device_count():
                raise ValueError(
                    f"torchrun was asked for {here} processes on a computer with {torch.cuda.device_count()} GPUs: "
                    f"start it with --nproc-per-node {torch.cuda.device_count()}."
                )
            torch.cuda.set_device(device)
        distributed.init_process_group(BACKENDS[device.type])
    return current()


def current() -> Ranks:
    """The processes that this one has met; it alone if it has met none."""
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    return Ranks()


def leave() -> None:
    """Part from the other processes, before this one ends."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
