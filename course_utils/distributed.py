"""Training in several processes at once, one for each GPU, as torch's own `torchrun` starts them (Li et al. 2020).

    torchrun --standalone --nproc-per-node 2 -m workshop.train --data dsb2018 --profile full --output output

Every process holds the whole network and draws the same batch as the others, but computes with its share of it only.
`DistributedDataParallel` averages the gradients of all processes, so all take the same step: the one that a single
process would take with the whole batch. Up to rounding it is the same training, with these exceptions:

* A loss that does not divide by the number of pixels, such as the weighted cross entropy of notebook 05, is normalised
  in each share separately. So is a metric that is not a mean over images.
* Batch normalisation: on CUDA it becomes `SyncBatchNorm`, which takes mean and variance over the whole batch as one
  process does; only where there are fewer images than processes, one image counts twice. It does not exist for the
  CPU: there each process normalises its share by itself, and the running statistics of the first process are kept.

Why not `accelerate`: it would save about 40 lines here and bring three more packages (itself 36,000 lines). Its loaders
have each process draw its own crops, so with two GPUs the same seed would train another network than with one. The rest
would stay: a GPU tried before use, bfloat16 on processors that have it, channels last, one averaged model, statistics
and random numbers of the first process, and checkpoints that resume bit for bit.

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
class ProcessGroup:
    """The processes that train together. Without `torchrun` there is one, and its methods do nothing.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def shard(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """This process's share of a batch: every `size`-th image from number `rank` on, and how many these are.

        A batch may be too small for all. As every process must take part in every step, one without an image gets the
        first one with weight 0.

        >>> images, targets, n_own = ProcessGroup(1, 2).shard(torch.arange(5), torch.arange(5))
        >>> images, n_own
        (tensor([1, 3]), 2)
        """
        n_own = len(range(self.rank, len(images), self.size))
        start = self.rank if n_own > 0 else 0
        return images[start :: self.size], targets[start :: self.size], n_own

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to train with: gradients are averaged over the processes.

        All of them then have the weights and the random numbers of the first.

        Args:
            model: on its device. It shares its weights with the result, and is read and saved as before. With several
                GPUs its batch normalisations are replaced by synchronised ones, which have the same weights and, in
                evaluation mode, the same results.
        """
        if self.size == 1:
            return model
        if next(model.parameters()).device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        wrapped = nn.parallel.DistributedDataParallel(model)
        self.sync_buffers(model)
        return wrapped

    def all_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes; `values` may be changed in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast_from_first(self, value: Value) -> Value:
        """The value of the first process, in every process."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def sync_buffers(self, model: nn.Module) -> None:
        """Take over the first process's buffers, the statistics of batch normalisation, and its random numbers."""
        if self.size > 1:
            torch.set_rng_state(self.broadcast_from_first(torch.get_rng_state()))
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Wait until all processes have arrived here."""
        if self.size > 1:
            distributed.barrier()

    def check_equal(self, value: Any, what: str) -> None:
        """Wait for all processes, and check that they have the same value.

        Raises:
            ValueError: they do not; the message says `what` it is.
        """
        values: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        if values.count(value) < self.size:
            raise ValueError(
                f"The processes of this training do not have the same {what}, but {', '.join(map(str, values))}: let "
                "all of them see one folder for results, or delete what an earlier training left there."
            )


def launched_by_torchrun() -> bool:
    """Whether `torchrun` started this process together with others."""
    return distributed.is_available() and distributed.is_torchelastic_launched() and os.environ["WORLD_SIZE"] != "1"


def join_process_group(device: torch.device) -> ProcessGroup:
    """Connect to the other processes that `torchrun` started; without it, the group is this process alone.

    Args:
        device: what this process computes on.

    Raises:
        ValueError: this kind of device cannot be used by several processes, or there are fewer GPUs than processes.
    """
    if launched_by_torchrun() and not distributed.is_initialized():
        if device.type not in BACKENDS:
            raise ValueError(
                f"Several processes can train on CUDA GPUs or on the CPU, but this device is {device}: start without "
                "torchrun, or set COURSE_DEVICE=cpu."
            )
        if device.type == "cuda":
            n_here, n_gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
            if n_here > n_gpus:
                raise ValueError(
                    f"torchrun was asked for {n_here} processes on a computer with {n_gpus} "
                    f"GPU{'s' if n_gpus != 1 else ''}: start it with --nproc-per-node {n_gpus}."
                )
            torch.cuda.set_device(device)
        distributed.init_process_group(BACKENDS[device.type])
    return current_process_group()


def current_process_group() -> ProcessGroup:
    """The processes that this one has joined; this one alone if it has joined none."""
    if distributed.is_available() and distributed.is_initialized():
        return ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    return ProcessGroup()


def leave_process_group() -> None:
    """Disconnect from the other processes, before this one ends."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
