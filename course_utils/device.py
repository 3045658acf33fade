"""Choose device and precision by trying them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import distributed, nn


def choose_device() -> torch.device:
    """The fastest device that works: CUDA, else Apple's MPS, else the CPU.

    A GPU that torch lists but cannot use (Kaggle's P100 with a current torch) fails at its first operation, so one
    operation is tried. `COURSE_DEVICE` (for example "cpu") overrides the choice. Each of several processes that
    `torchrun` started gets its own GPU.
    """
    wanted = os.environ.get("COURSE_DEVICE")
    if wanted:
        return torch.device(_own_gpu() if wanted == "cuda" else wanted)
    candidates = [(_own_gpu(), torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    for name, available in candidates:
        if not available:
            continue
        try:
            nn.Conv2d(1, 1, 3).to(name)(torch.zeros(1, 1, 8, 8, device=name)).sum().item()
            return torch.device(name)
        except RuntimeError as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"torch lists a {name} device, but its first operation failed ({reason}). "
                "Using the CPU. On Kaggle, choose the accelerator 'GPU T4 x2' instead.",
                stacklevel=2,
            )
    return torch.device("cpu")


def _own_gpu() -> str:
    """What torch calls the GPU of this process."""
    if distributed.is_available() and distributed.is_torchelastic_launched():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % max(1, torch.cuda.device_count())}"
    return "cuda"


def cpu_has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16). Elsewhere float32 is faster."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)


def choose_precision(device: torch.device) -> torch.dtype:
    """The dtype for the heavy operations of training: bfloat16 or float16 where the hardware has it, else float32."""
    if device.type == "cuda":
        # bfloat16 needs compute capability 8 (A100, RTX 30); a T4 (7.5) has float16 only
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and cpu_has_fast_bfloat16():
        return torch.bfloat16
    return torch.float32


class MixedPrecision(nn.Module):
    """Run a model's heavy operations in `precision`; parameters, inputs and results stay float32.

    So the training loop around it need not change. float16 additionally needs its loss scaled, as `training.fit` does;
    bfloat16 does not.
    """

    def __init__(self, model: nn.Module, precision: torch.dtype):
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=self.precision):
            return self.model(x).float()


def in_precision(model: nn.Module, precision: torch.dtype) -> nn.Module:
    """The model itself for float32, else a `MixedPrecision` around it, which shares its parameters."""
    return model if precision == torch.float32 else MixedPrecision(model, precision)


def prepare_model(model: nn.Module, device: torch.device | None = None) -> nn.Module:
    """Move a model to the device, ready for a plain training loop: bfloat16 where that is fast, else float32.

    float16 is never chosen here: its gradients are right only if the loss is scaled, which a plain loop does not do. So
    on a GPU without bfloat16 (T4) a plain loop runs in float32, and only `training.fit` in float16.

    Returns the model itself or a `MixedPrecision` around it, which shares its parameters.
    """
    device = choose_device() if device is None else device
    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(device)
    return in_precision(fast_layout(model.to(device)), torch.float32 if precision == torch.float16 else precision)


def fast_layout(model: nn.Module) -> nn.Module:
    """Store the weights in place with the channels last, which makes convolutions on CUDA and CPU faster."""
    device = next(keep_order(model).parameters()).device
    return model.to(memory_format=torch.channels_last) if device.type in ("cuda", "cpu") else model


def keep_order(model: nn.Module) -> nn.Module:
    """Let instance normalisations leave the pixels in their order in memory; in place, see `InstanceNorm`."""
    for part in model.modules():
        if type(part) is nn.InstanceNorm2d and part.affine and not part.track_running_stats:
            part.__class__ = InstanceNorm  # the same parameters, the same result
    return model


class InstanceNorm(nn.InstanceNorm2d):
    """Computes what `nn.InstanceNorm2d(channels, affine=True)` does, on a CPU with the pixels left in their order.

    With torch's own, training the network of notebook 05 took nearly twice as long on a CPU. A map of one pixel, which
    has no deviation, is left as it is; torch's own refuses it.
    """

    def forward(self, x):
        if x.shape[-2:].numel() == 1:
            return x
        if x.device.type != "cpu":
            return super().forward(x)  # many small steps, one for each image, are not for a GPU
        images = [
            nn.functional.batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for image in x.split(1)  # statistics over a batch of one image are its own
        ]
        return torch.cat(images)


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next allocations. Only on Linux with glibc; elsewhere it does nothing.

    Every training step needs the same large blocks again. By default glibc returns such blocks to the system and
    requests them again, page by page: on a CPU that took from a tenth to nearly half of a step. In a notebook the
    memory is kept until the end of the cell.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # the names of malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)  # no block outside the heap
        libc.mallopt(m_trim_threshold, -1)  # and the heap never shrinks
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if shell is not None and _after_cell not in shell.events.callbacks["post_run_cell"]:
            shell.events.register("post_run_cell", _after_cell)


@contextlib.contextmanager
def memory_explained(what: Callable[[], str]) -> Iterator[None]:
    """Say what did not fit into memory, and what to do, where torch only says how many bytes it asked for.

    Args:
        what: returns how the sentence begins, as in "A batch of 8 images of 256 x 256 pixels".

    Raises:
        MemoryError: the memory of the computer or the GPU is used up.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).lower()
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
            words in reason for words in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
        ):
            raise
        raise MemoryError(
            f"{what()} and what the network computes from it do not fit into memory ({type(error).__name__}). Set a "
            "smaller batch_size, crop_size or base_channels, in this order, or a smaller profile; shut down other "
            "notebooks, whose kernels hold memory too."
        ) from error


def return_freed_memory() -> None:
    """Give the memory that `keep_freed_memory` has kept back to the system: a training that has ended needs none."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _after_cell(result: object = None) -> None:
    """What IPython calls after each cell, with its result."""
    return_freed_memory()


def describe_device(device: torch.device) -> str:
    """One line for people, as in "CPU, 2 threads, bfloat16". With float16 it says what a plain loop uses instead."""
    precision = str(choose_precision(device)).removeprefix("torch.")
    if precision == "float16":
        precision += " (in a plain training loop float32)"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    if device.type == "cpu":
        n_threads = torch.get_num_threads()
        return f"CPU, {n_threads} thread{'s' if n_threads != 1 else ''}, {precision}"
    return f"{device.type.upper()}, {precision}"
