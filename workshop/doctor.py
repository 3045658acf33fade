"""Checks whether a machine is ready for the course. Changes nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workshop.paths import checkout

GIGABYTE = 1e9
# Measured: the processes of a smoke run use 2.4 GB together. The other profiles hold more images and larger batches.
MIN_MEMORY, MIN_MEMORY_LAPTOP = 3.0, 5.0
MIN_DISK, COMFORTABLE_DISK = 0.3, 2.0


@dataclass(frozen=True)
class Check:
    """One line of the report. `status` is "ok", "note" (works, but worth knowing) or "problem" (stops the course)."""

    status: str
    name: str
    found: str
    advice: str = ""


def examine(out: Path, gpu_required: bool = False, download: bool = False) -> Iterator[Check]:
    """Run all checks in turn. A check that raises an error becomes a problem line.

    Args:
        out: folder for results; it need not exist yet.
        gpu_required: report a missing GPU as a problem.
        download: fetch the real images if they are not there yet.
    """
    checks: dict[str, Callable[[], Iterable[Check]]] = {
        "packages": check_packages,
        "device": lambda: check_device(gpu_required),
        "memory": lambda: [_compare("memory", available_memory(), MIN_MEMORY, MIN_MEMORY_LAPTOP)],
        "results": lambda: check_folder(out),
        "data": lambda: check_data(download),
        "kernel": check_kernel,
        "notebooks": check_notebooks,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # the report goes on with the other checks
            yield Check("problem", name, f"{type(error).__name__}: {error}", "The installation may be incomplete.")


def report(checks: Iterable[Check]) -> int:
    """Print the checks as they come. Returns 0, or 1 if there is a problem."""
    problems = 0
    for check in checks:
        problems += check.status == "problem"
        print(f"{check.status:8} {check.name:16} {check.found}", flush=True)
        if check.advice:
            print(f"{'':8} {'':16} -> {check.advice}", flush=True)
    found = f"{problems} problem{'s' if problems > 1 else ''} would stop the course; see the lines with ->."
    print("\n" + (found if problems else "This machine is ready for the course."))
    return min(problems, 1)


def check_packages(extras: Sequence[str] = ("notebooks",)) -> Iterator[Check]:
    """Python, and every package of these groups of pyproject.toml against its lower bound there."""
    from packaging.requirements import Requirement

    yield Check("ok", "Python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
    try:
        requirements = importlib.metadata.requires("course-utils") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("problem", "course-utils", "not installed", "Start with: python3 course.py doctor")
        return
    wrong, shown = [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        version = next((one.version for one in importlib.metadata.distributions(name=requirement.name)), None)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version or 'is missing'} (needed: {requirement.specifier})")
        elif requirement.name in ("torch", "torchvision", "numpy", "scikit-image", "jupyterlab"):
            shown.append(f"{requirement.name} {version}")
    if not wrong:
        yield Check("ok", "packages", ", ".join(shown) + ", and the others as required")
        return
    advice = f'Delete the folder .venv and start course.py, or: python -m pip install -e ".[{",".join(extras)}]"'
    yield Check("problem", "packages", "; ".join(wrong), advice)


def check_kernel() -> Iterator[Check]:
    """Whether JupyterLab's kernel "python3" is this Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # as `course.py lab` sets it
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    try:
        specification = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        yield Check("problem", "Jupyter kernel", 'none is called "python3"', "Install the package ipykernel.")
        return
    python = specification.argv[0]
    # A bare "python" in a kernel specification means the one that runs Jupyter.
    ours = not os.path.isabs(python) or os.path.normcase(python) == os.path.normcase(sys.executable)
    found = f"{specification.display_name} ({python if os.path.isabs(python) else sys.executable})"
    advice = "It is not this Python and may have other packages: start JupyterLab with python3 course.py lab"
    yield Check("ok" if ours else "note", "Jupyter kernel", found, "" if ours else advice)


def check_notebooks() -> Iterator[Check]:
    """Whether the notebooks are there: the solved ones, or in the students' version of the course those to solve."""
    folder = checkout() / ("solutions" if (checkout() / "solutions").is_dir() else "notebooks")
    number = len(list(folder.glob("[0-9][0-9]_*.ipynb")))
    advice = "" if number else "Get a complete copy of the course."
    yield Check("ok" if number else "problem", "notebooks", f"{number} in {folder}", advice)


def check_device(gpu_required: bool = False) -> Iterator[Check]:
    """The device, tried with one convolution, and the precision of training on it."""
    import torch

    from course_utils.device import choose_device, describe_device

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        device = choose_device()
    for warning in caught:
        yield Check("note", "GPU", str(warning.message))
    try:  # choose_device believes what COURSE_DEVICE names
        torch.nn.Conv2d(1, 1, 3, device=device)(torch.zeros(1, 1, 8, 8, device=device)).sum().item()
    except Exception as error:  # whatever a driver raises
        reason = str(error).splitlines()[0]
        yield Check("problem", "device", f"{device} fails: {reason}", "To use the CPU, set COURSE_DEVICE=cpu.")
        return
    if device.type != "cpu":
        yield Check("ok", "device", describe_device(device))
        return
    advice = "The profile full needs one."
    if gpu_required:
        advice = "Look at the driver (nvidia-smi), and unset COURSE_DEVICE."
    yield Check("problem" if gpu_required else "note", "device", f"{describe_device(device)}; no working GPU", advice)


def available_memory() -> float | None:
    """Free memory in GB, within the limit of a container if there is one; None if the system does not tell."""
    free = []
    with contextlib.suppress(Exception):  # psutil comes with ipykernel, but is not a requirement of ours
        import psutil

        free.append(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # "max" means that there is no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free.append(limit - int((group / "memory.current").read_text()))
    return min(free) / GIGABYTE if free else None


def check_folder(out: Path) -> Iterator[Check]:
    """Whether results can be written, and the free space for them."""
    existing = next(folder for folder in [out.absolute(), *out.absolute().parents] if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        advice = "Name another folder: python3 course.py run --out FOLDER"
        yield Check("problem", "results", f"{out} cannot be written ({error.strerror})", advice)
    else:
        yield Check("ok", "results", f"go to {out}")
    yield _compare("disk", shutil.disk_usage(existing).free / GIGABYTE, MIN_DISK, COMFORTABLE_DISK)


def _compare(name: str, free: float | None, needed: float, wanted: float) -> Check:
    """Free gigabytes against what the profile smoke needs, and what the others want."""
    if free is None:
        return Check("note", name, "unknown", f"The course needs about {needed} GB.")
    status = "problem" if free < needed else "note" if free < wanted else "ok"
    advice = f"The profile smoke needs {needed} GB, the others {wanted} GB: close programs or delete files."
    return Check(status, name, f"{free:.1f} GB free", "" if status == "ok" else advice)


def check_data(download: bool = False) -> Iterator[Check]:
    """Which data sources are there."""
    from course_utils.data import available_sources
    from course_utils.data.download import DownloadError, fetch_dsb2018

    if download:
        try:
            fetch_dsb2018()
        except DownloadError as error:
            yield Check("problem", "download", str(error))
    for name, where in available_sources().items():
        status, advice = ("note" if where.startswith("not found") else "ok"), ""
        if name == "embedded" and status == "note":
            status, advice = "problem", "Get a complete copy of the course."
        yield Check(status, f"data {name}", where, advice)
