"""Facts for the summary of a run: versions, machine, time."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

VERSIONS_OF = ("course-utils", "torch", "torchvision", "numpy", "scikit-image", "scipy", "matplotlib", "papermill")


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
