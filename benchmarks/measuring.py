"""Timing in turn, child processes with their memory, and result files."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import torch

from course_utils.checkpoints import checkpoint_folder, load_model
from course_utils.dataset import validation_loader
from course_utils.device import choose_device, choose_precision, describe_device, fast_layout, in_precision
from course_utils.metrics import IOU_THRESHOLDS, match_instances
from course_utils.profiles import Profile, get_profile
from course_utils.training import fit
from workshop.run.machine import processor_name, versions

RESULTS = Path(__file__).resolve().parent / "results"
PRETRAINED_FILE = "boundary_dsb2018.pt"  # notebook 05's network for the real images


def in_turn(functions: dict[str, Callable[[], object]], repeats: int = 3) -> dict[str, float]:
    """Median seconds of each function, called A B C A B C ... after one call of each to warm up.

    Other work on the machine then disturbs all of them alike, so that ratios hold.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    wait_for_device()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            wait_for_device()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def one_epoch(
    model: torch.nn.Module, loader: Callable[[], Iterable], loss_fn: Callable, target: Callable, **options
) -> Callable:
    """A function that trains for one epoch of `fit`, silently, with almost nothing to validate.

    Args:
        loader: called for each epoch; gives its batches.
        target: makes the target of a mask, as for `fit`'s validation.
        options: of `fit`.
    """
    tiny = validation_loader([np.zeros((64, 64), np.float32)], [np.zeros((64, 64), int)], target)

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            fit(model, loader(), tiny, loss_fn, epochs=1, **options)

    return run


def bare_steps(model: torch.nn.Module, loss_fn: Callable, batch: tuple, steps: int, precision: torch.dtype) -> Callable:
    """A function that trains on one batch that stays on the device: no loading, no metric, no averaging of weights."""
    device = next(model.parameters()).device
    images, targets = (part.to(device) for part in batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    def run() -> None:
        model.train()  # `fit` leaves its model in evaluation mode
        for _ in range(steps):
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                logits = model(images)
            loss = loss_fn(logits.float(), targets)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return run


def course_network(path: Path | None = None) -> torch.nn.Module:
    """The pretrained network for the real images, or another file's, as fast as this machine can run it."""
    model, _ = load_model(path or checkpoint_folder() / PRETRAINED_FILE)
    device = choose_device()
    return in_precision(fast_layout(model.to(device)), choose_precision(device))


def settings_here(quick: bool = False) -> Profile:
    """The profile whose sizes are measured: `full` with a GPU, else `laptop`; `smoke` for a quick trial."""
    return get_profile("smoke" if quick else "full" if choose_device().type == "cuda" else "laptop")


def wait_for_device() -> None:
    """Wait until the GPU has finished: calls return before it has."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_peak_memory() -> None:
    """Let `peak_memory_mb` count from now on. A child process on Linux starts with the peak of its parent."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """The peak memory of this process in MB, on Linux since `forget_peak_memory`; 0 where it is unknown."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="ascii"))[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes


def in_child(function: Callable, *arguments):
    """The result of `function(*arguments)` in a new process, which has its own peak of memory."""
    # not a multiprocessing.Pool: its processes may not start any, and loader workers are processes
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write(name: str, result: dict, folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json`: the result with machine, versions and date."""
    about = {
        "date": date.today().isoformat(),
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": describe_device(choose_device()),
            "amx": getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)(),
        },
        "versions": versions(),
        "commit": commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(about | result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """The commit of the code, as git describes it; "-dirty" if files have been changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, cwd=RESULTS, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def mean_f1(found: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> list[float]:
    """Mean F1 over the images at each of the course's IoU thresholds, to four digits."""
    scores = [[one.f1 for one in match_instances(a, b, IOU_THRESHOLDS)] for a, b in zip(found, truths, strict=True)]
    return [round(float(value), 4) for value in np.mean(scores, axis=0)]


def format_table(rows: list[dict]) -> str:
    """Rows as text in columns; numbers with three significant digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[as_text(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(name), *(len(row[at]) for row in cells)) for at, name in enumerate(columns)]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)


def as_text(value) -> str:
    """A value for people: three significant digits, thousands with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
