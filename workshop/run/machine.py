"""The machine of a run: facts for the summary, and how many threads it has free."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

VERSIONS_OF = ("course-utils", "torch", "torchvision", "numpy", "scikit-image", "scipy", "matplotlib", "papermill")
# Rounds that a waiting thread of torch spins before it sleeps; the library's own choice is millions.
SPIN_COUNT = "1000"


def calm_threads(workers: int = 1) -> str:
    """Keep torch's threads from waiting for each other on a busy machine. Call it before torch is imported.

    The threads wait for each other many times in every step, and spin meanwhile. Beside one other busy program on two
    cores, two threads were twelve times slower than one. So use as many as there are free cores, and spin less. Several
    workers share the free cores. Returns a sentence for people if cores are taken, else an empty text.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    free = max(1, round(cores - load))
    if "OMP_NUM_THREADS" in os.environ or (free == cores and workers == 1):
        return ""
    os.environ["OMP_NUM_THREADS"] = str(max(1, free // workers))
    return f"This machine is busy (load {load:.1f} on {cores} cores): using {free} of them." if free < cores else ""


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()}


def processor_name() -> str:
    """What the system calls its processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
