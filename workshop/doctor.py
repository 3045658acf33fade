"""Says whether a machine is fit for the course: looks, measures and advises, but changes nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from workshop.paths import checkout

GIGABYTE = 1e9
# Measured: the processes of a smoke run use 2.4 GB together. The other profiles hold more images and larger batches.
MEMORY_NEEDED, MEMORY_WANTED = 3.0, 5.0
DISK_NEEDED, DISK_WANTED = 0.3, 2.0
BENCHMARK_SECONDS = 2.0


@dataclass(frozen=True)
class Check:
    """One line of the report. `status` is "ok", "note" (works, but worth knowing) or "problem" (stops the course)."""

    status: str
    name: str
    found: str
    advice: str = ""


def examine(out: Path, need_gpu: bool = False, download: bool = False) -> Iterator[Check]:
    """All checks, one after another. A check that fails itself becomes a problem line.

    Args:
        out: folder that results will go to; it need not exist yet.
        need_gpu: whether it is a problem if there is no GPU that works.
        download: fetch the real images if they are not there yet.
    """
    checks: dict[str, Callable[[], Iterator[Check]]] = {
        "place": check_place,
        "versions": check_versions,
        "device": lambda: check_device(need_gpu),
        "memory": check_memory,
        "folder": lambda: check_folder(out),
        "data": lambda: check_data(download),
        "kernel": check_kernel,
        "notebooks": check_notebooks,
        "minutes": check_minutes,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # the others should still be told
            yield Check("problem", name, f"{type(error).__name__}: {error}", "The course was not installed completely.")


def report(checks: Iterator[Check]) -> int:
    """Print the checks as they come. Returns 0, or 1 if there is a problem."""
    problems = 0
    for check in checks:
        problems += check.status == "problem"
        print(f"{check.status:8} {check.name:16} {check.found}", flush=True)
        if check.advice:
            print(f"{'':8} {'':16} -> {check.advice}", flush=True)
    if problems:
        print(f"\n{problems} problem{'s' if problems > 1 else ''} would stop the course; see the lines with ->.")
        return 1
    print("\nThis machine is fit for the course.")
    return 0


# --- where this is ----------------------------------------------------------------------------------------------------

# A variable that is set in each place, the name of the place, and what to know there; the first that is set counts.
PLACES = (
    ("KAGGLE_KERNEL_RUN_TYPE", "Kaggle", "For real images add the 2018 Data Science Bowl; choose GPU T4 x2."),
    ("COLAB_RELEASE_TAG", "Colab", "What is written here is gone when the session ends: download your notebook."),
    ("BINDER_REQUEST", "Binder", "2 GB of memory or less, and gone after ten idle minutes: take the profile smoke."),
    ("JUPYTERHUB_USER", "a JupyterHub", "Open notebooks/01_data_exploration.ipynb in its JupyterLab."),
    ("GITHUB_ACTIONS", "GitHub Actions", ""),
    ("CODESPACES", "GitHub Codespaces", "`python3 course.py lab` prints an address; the port is passed on."),
    ("REMOTE_CONTAINERS", "a dev container", "`python3 course.py lab` prints an address; the port is passed on."),
    ("SLURM_JOB_ID", "a Slurm job", ""),
    ("CONDA_PREFIX", "a conda environment", "Start JupyterLab with `jupyter lab`."),
    ("WSL_DISTRO_NAME", "Linux on Windows (WSL)", ""),
)


def check_place() -> Iterator[Check]:
    """Which of the places named in docs/where-it-runs.md this is."""
    for variable, name, advice in PLACES:
        value = os.environ.get(variable)
        if value and (variable != "CONDA_PREFIX" or os.path.samefile(value, sys.prefix)):
            yield Check("ok", "place", f"{name} ({variable} is set)", advice)
            return
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    kind = "a virtual environment" if sys.prefix != sys.base_prefix else "a Python of the system"
    yield Check("ok", "place", f"{system}, {kind}")


# --- software ---------------------------------------------------------------------------------------------------------


def check_versions() -> Iterator[Check]:
    """Python, and every package that pyproject.toml names, against its lower bound."""
    from packaging.requirements import Requirement

    yield Check("ok", "Python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
    try:
        requirements = importlib.metadata.requires("course-utils") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("problem", "course-utils", "not installed", "Start with: python3 course.py doctor")
        return
    wrong, shown = [], []
    for requirement in map(Requirement, requirements):
        optional = requirement.marker and not requirement.marker.evaluate({"extra": "notebooks"})
        if optional:
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
        if requirement.name in ("torch", "torchvision", "numpy", "scikit-image", "jupyterlab"):
            shown.append(f"{requirement.name} {version}")
    if wrong:
        advice = "Install again: delete the folder .venv and start course.py; with conda: conda env update."
        yield Check("problem", "packages", "; ".join(wrong), advice)
    else:
        yield Check("ok", "packages", ", ".join(shown) + ", and the rest as required")


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
    if ours:
        yield Check("ok", "Jupyter kernel", found)
    else:
        advice = "Other packages may be found there; start JupyterLab with: python3 course.py lab"
        yield Check("note", "Jupyter kernel", f"{found} is another Python than this one", advice)


def check_notebooks() -> Iterator[Check]:
    """Whether the notebooks are there: the solved ones, or in the students' version of the course those to solve."""
    course = checkout()
    folder = course / ("solutions" if (course / "solutions").is_dir() else "notebooks")
    number = len(list(folder.glob("[0-9][0-9]_*.ipynb")))
    if number:
        yield Check("ok", "notebooks", f"{number} in {folder}")
    else:
        yield Check("problem", "notebooks", f"none in {folder}", "Generate them: python3 course.py build")


# --- hardware ---------------------------------------------------------------------------------------------------------


def check_device(need_gpu: bool = False) -> Iterator[Check]:
    """The device, tried with one step of training, and the precision it is good at."""
    import torch

    from course_utils.device import choose_device, choose_precision, cpu_has_fast_bfloat16, describe_device

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        device = choose_device()
    for warning in caught:
        yield Check("note", "GPU", str(warning.message))
    try:
        precision = choose_precision(device)
        _training_step_seconds(device, precision, channels=4, crop=32, batch=2, repeats=1)
    except Exception as error:  # whatever a driver raises
        advice = "Set COURSE_DEVICE=cpu to go on without it."
        yield Check("problem", "device", f"{device} fails: {str(error).splitlines()[0]}", advice)
        return
    if device.type == "cpu":
        advice = "The profile laptop is made for this; full needs a GPU."
        if need_gpu:
            advice = "A GPU was asked for: look at its driver (nvidia-smi), and unset COURSE_DEVICE."
        status = "problem" if need_gpu else "note"
        yield Check(status, "device", f"{describe_device(device)}; no GPU that works", advice)
        if cpu_has_fast_bfloat16():
            yield Check("ok", "bfloat16", "this processor has it in hardware, so training uses it")
        else:
            yield Check("note", "bfloat16", "not in this processor's hardware: training uses float32, which is slower")
    else:
        yield Check("ok", "device", describe_device(device))
        name = str(precision).removeprefix("torch.")
        yield Check("ok", "precision", f"{name} for the heavy operations" if precision != torch.float32 else name)


def check_memory() -> Iterator[Check]:
    """Memory that is free, under the limit of a container if there is one."""
    available = available_memory()
    if available is None:
        yield Check("note", "memory", "unknown", f"The course needs about {MEMORY_NEEDED:.0f} GB.")
        return
    found = f"{available:.1f} GB free"
    if available < MEMORY_NEEDED:
        yield Check("problem", "memory", found, f"About {MEMORY_NEEDED:.0f} GB are needed: close other programs.")
    elif available < MEMORY_WANTED:
        yield Check("note", "memory", found, f"The profile laptop wants {MEMORY_WANTED:.0f} GB: close other programs.")
    else:
        yield Check("ok", "memory", found)


def available_memory() -> float | None:
    """Free memory in GB, or None where it cannot be told."""
    free = []
    with contextlib.suppress(Exception):  # psutil comes with ipykernel, but is no requirement of ours
        import psutil

        free.append(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # the limit of a container; "max" means there is none
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free.append(limit - int((group / "memory.current").read_text()))
    return min(free) / GIGABYTE if free else None


def check_folder(out: Path) -> Iterator[Check]:
    """Whether results can be written, and how much room there is; makes nothing that stays."""
    existing = next(folder for folder in [out.absolute(), *out.absolute().parents] if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        advice = "Name another folder: python3 course.py run --out FOLDER"
        yield Check("problem", "results", f"{out} cannot be written to ({error.strerror})", advice)
    else:
        yield Check("ok", "results", f"go to {out}")
    free = shutil.disk_usage(existing).free / GIGABYTE
    found = f"{free:.1f} GB free for results"
    if free < DISK_NEEDED:
        yield Check("problem", "disk", found, f"Free some space: {DISK_NEEDED} GB are needed.")
    elif free < DISK_WANTED:
        yield Check("note", "disk", found, "Enough for the course, but not for much else.")
    else:
        yield Check("ok", "disk", found)


def check_data(download: bool = False) -> Iterator[Check]:
    """Which data sources are there. Downloads only if asked to."""
    from course_utils.data import available_sources
    from course_utils.data.download import DownloadError, fetch_dsb2018

    if download:
        try:
            fetch_dsb2018()
        except DownloadError as error:
            yield Check("problem", "download", str(error))
    for name, where in available_sources().items():
        missing = where.startswith("not found")
        if name == "embedded" and missing:
            yield Check("problem", f"data {name}", where, "Get a complete copy of the course.")
        else:
            yield Check("note" if missing else "ok", f"data {name}", where)


# --- time -------------------------------------------------------------------------------------------------------------


def check_minutes() -> Iterator[Check]:
    """Minutes to expect for the whole course in each profile, from the time that a few training steps take."""
    from course_utils.device import choose_device, choose_precision
    from course_utils.profiles import get_profile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said by check_device
        device = choose_device()
    for name in ("smoke", "laptop", "full"):
        profile = get_profile(name)
        # Without a GPU the large network would take a minute to measure: the work grows with the channels' square.
        scale = max(1.0, (profile.base_channels / 16) ** 2) if device.type == "cpu" else 1.0
        channels = min(16, profile.base_channels) if device.type == "cpu" else profile.base_channels
        batch = min(8, profile.batch_size)
        seconds = scale * _training_step_seconds(
            device, choose_precision(device), channels, profile.crop_size, batch, profile.depth
        )
        binary, boundary = (
            seconds / batch * profile.crops_per_epoch * epochs
            for epochs in (profile.binary_epochs, profile.boundary_epochs)
        )
        found = f"about {_rounded(expected_minutes(binary + boundary))} for the whole course in the profile {name}"
        if profile.pretrained:
            found += f", {_rounded(expected_minutes(binary))} with the network that comes with the course"
        advice = "This profile is made for a GPU." if name == "full" and device.type == "cpu" else ""
        yield Check("note" if advice else "ok", "time", found, advice)


def expected_minutes(training_seconds: float) -> float:
    """Minutes of a run from the seconds of its training steps alone.

    The rest (figures, predictions, five kernels that start) takes two minutes, and validation grows with the training.
    """
    return 2 + 1.25 * training_seconds / 60


def _rounded(minutes: float) -> str:
    """
    >>> _rounded(3.6), _rounded(47), _rounded(300)
    ('4 min', '50 min', '5 h')
    """
    if minutes >= 120:
        return f"{minutes / 60:.0f} h"
    return f"{minutes:.0f} min" if minutes < 20 else f"{round(minutes, -1):.0f} min"


def _training_step_seconds(
    device, precision, channels: int, crop: int, batch: int, depth: int = 4, repeats: int = 5
) -> float:
    """Median seconds of one training step of the course's U-Net on random images; stops early when slow."""
    import torch

    from course_utils.unet import UNet

    with torch.random.fork_rng(devices=[]):
        model = UNet(1, 3, channels, depth, batch_norm=True).to(device, memory_format=torch.channels_last)
        images = torch.rand(batch, 1, crop, crop).to(device, memory_format=torch.channels_last)
        target = torch.randint(0, 3, (batch, crop, crop)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU to finish
        return time.perf_counter() - started

    began = time.perf_counter()
    step()  # the first one prepares kernels and memory
    seconds = []
    while len(seconds) < repeats and (not seconds or time.perf_counter() - began < BENCHMARK_SECONDS):
        seconds.append(step())
    return sorted(seconds)[len(seconds) // 2]
