"""The doctor looks, measures and advises, and ends with 1 only if something would stop the course."""

import importlib.metadata
import json
import re
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from course_utils.data.download import DownloadError
from workshop import doctor
from workshop.doctor import Check

Usage = namedtuple("Usage", "total used free")


def statuses(checks):
    return {check.name: check.status for check in checks}


@pytest.fixture
def quick(monkeypatch):
    """Without the seconds of measuring."""
    monkeypatch.setattr(doctor, "_training_step_seconds", lambda *args, **kwargs: 0.1)


def test_this_machine(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "BENCHMARK_SECONDS", 0.1)
    checks = list(doctor.examine(tmp_path / "build"))
    assert doctor.report(iter(checks)) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert "fit for the course" in printed and torch.__version__.split("+")[0] in printed
    assert set(statuses(checks)) >= {"Python", "packages", "device", "memory", "results", "disk", "data embedded",
                                     "data dsb2018", "Jupyter kernel", "notebooks", "time"}  # fmt: skip
    for profile in ("smoke", "laptop", "full"):
        assert f"profile {profile}" in printed
    assert not (tmp_path / "build").exists(), "it changes nothing"


def test_problems_decide_the_exit_code(capsys):
    assert doctor.report(iter([Check("ok", "a", "fine"), Check("note", "b", "slow", "Wait.")])) == 0
    assert "-> Wait." in capsys.readouterr().out
    assert doctor.report(iter([Check("problem", "a", "gone", "Get it."), Check("ok", "b", "fine")])) == 1
    assert "1 problem would stop the course" in capsys.readouterr().out


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch, tmp_path, quick):
    def check_memory():
        raise RuntimeError("no such counter")
        yield

    monkeypatch.setattr(doctor, "check_memory", check_memory)
    checks = list(doctor.examine(tmp_path))
    assert Check("problem", "memory", "RuntimeError: no such counter", checks[-1].advice).found in [
        check.found for check in checks
    ]
    assert "time" in statuses(checks)


# --- where this is ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch):
    for variable, _, _ in doctor.PLACES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("KAGGLE_KERNEL_RUN_TYPE", "Kaggle"),
        ("COLAB_RELEASE_TAG", "Colab"),
        ("BINDER_REQUEST", "Binder"),
        ("JUPYTERHUB_USER", "a JupyterHub"),
        ("GITHUB_ACTIONS", "GitHub Actions"),
        ("CODESPACES", "GitHub Codespaces"),
        ("REMOTE_CONTAINERS", "a dev container"),
        ("SLURM_JOB_ID", "a Slurm job"),
        ("WSL_DISTRO_NAME", "Linux on Windows (WSL)"),
    ],
)
def test_it_knows_where_it_is(nowhere, monkeypatch, variable, name):
    monkeypatch.setenv(variable, "1")
    [found] = doctor.check_place()
    assert (found.status, found.found) == ("ok", f"{name} ({variable} is set)")


def test_a_conda_environment_counts_only_if_this_python_is_in_it(nowhere, monkeypatch, tmp_path):
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path))  # conda's own is active while course.py uses its environment
    [found] = doctor.check_place()
    assert "conda" not in found.found
    monkeypatch.setenv("CONDA_PREFIX", sys.prefix)
    [found] = doctor.check_place()
    assert found.found == "a conda environment (CONDA_PREFIX is set)"


def test_elsewhere_it_names_the_system(nowhere, monkeypatch):
    for system, shown in (("Linux", "Linux"), ("Darwin", "macOS"), ("Windows", "Windows")):
        monkeypatch.setattr(doctor.platform, "system", lambda name=system: name)
        [found] = doctor.check_place()
        assert re.fullmatch(f"{shown}, a (virtual environment|Python of the system)", found.found)


# --- software ---------------------------------------------------------------------------------------------------------


def test_old_and_missing_packages(monkeypatch):
    requirements = ["numpy>=999", "nothing-of-that-name>=1", 'stardist>=99; extra == "test"', "torch>=2"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)
    (problem,) = [check for check in doctor.check_versions() if check.name == "packages"]
    assert problem.status == "problem" and problem.advice
    assert "numpy" in problem.found and ">=999" in problem.found
    assert "nothing-of-that-name is missing" in problem.found
    assert "stardist" not in problem.found, "only the tests need it"
    assert "torch" not in problem.found


def test_package_that_is_not_installed(monkeypatch):
    def requires(_):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert statuses(doctor.check_versions())["course-utils"] == "problem"


def kernel(folder, python):
    target = folder / "kernels" / "python3"
    target.mkdir(parents=True)
    content = {"argv": [python, "-m", "ipykernel_launcher"], "display_name": "Mine", "language": "python"}
    (target / "kernel.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("python", "status"), [(sys.executable, "ok"), ("python", "ok"), ("/somewhere/else/python", "note")]
)
def test_kernel_of_another_python_is_noted(tmp_path, monkeypatch, python, status):
    kernel(tmp_path, python)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (check,) = doctor.check_kernel()
    assert check.status == status
    assert ("another Python" in check.found) == (status == "note")


def test_missing_kernel(monkeypatch):
    from jupyter_client import kernelspec

    def get_kernel_spec(self, name):
        raise kernelspec.NoSuchKernel(name)

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", get_kernel_spec)
    (check,) = doctor.check_kernel()
    assert check.status == "problem" and "ipykernel" in check.advice


# --- hardware ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "status"), [(0.1e9, "problem"), (1e9, "note"), (50e9, "ok")])
def test_disk(tmp_path, monkeypatch, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(100e9, 0, free))
    assert statuses(doctor.check_folder(tmp_path))["disk"] == status


def test_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    checks = {check.name: check for check in doctor.check_folder(tmp_path / "file" / "build")}
    assert checks["results"].status == "problem" and "--out" in checks["results"].advice


@pytest.mark.parametrize(("free", "status"), [(None, "note"), (1.0, "problem"), (4.0, "note"), (9.0, "ok")])
def test_memory(monkeypatch, free, status):
    monkeypatch.setattr(doctor, "available_memory", lambda: free)
    assert statuses(doctor.check_memory()) == {"memory": status}


def test_memory_of_this_machine():
    assert 0.1 < doctor.available_memory() < 100_000


def test_gpu_that_fails_is_noted_and_the_cpu_taken(monkeypatch, quick):
    from course_utils import device

    def choose_device():
        warnings.warn("torch lists a cuda device, but its first operation failed", stacklevel=2)
        return torch.device("cpu")

    monkeypatch.setattr(device, "choose_device", choose_device)
    monkeypatch.setattr(device, "cpu_has_fast_bfloat16", lambda: False)
    checks = {check.name: check for check in doctor.check_device()}
    assert checks["GPU"].status == "note" and "first operation failed" in checks["GPU"].found
    assert checks["device"].status == "note"
    assert checks["bfloat16"].status == "note" and "float32" in checks["bfloat16"].found


def test_a_gpu_that_was_asked_for_is_a_problem_where_there_is_none(monkeypatch, quick):
    monkeypatch.setattr("course_utils.device.choose_device", lambda: torch.device("cpu"))
    assert statuses(doctor.check_device())["device"] == "note"
    found = next(check for check in doctor.check_device(need_gpu=True) if check.name == "device")
    assert found.status == "problem" and "nvidia-smi" in found.advice


def test_device_that_cannot_train_is_a_problem(monkeypatch):
    from course_utils import device

    monkeypatch.setattr(device, "choose_device", lambda: torch.device("meta"))  # lists, but cannot compute
    (check,) = doctor.check_device()
    assert check.status == "problem" and "COURSE_DEVICE=cpu" in check.advice


def test_missing_data(monkeypatch):
    from course_utils import data

    monkeypatch.setattr(data, "available_sources", lambda: {"embedded": "not found in /x", "dsb2018": "not found"})
    assert statuses(doctor.check_data()) == {"data embedded": "problem", "data dsb2018": "note"}


# --- time -------------------------------------------------------------------------------------------------------------


def test_minutes_grow_with_the_seconds_of_a_step(monkeypatch):
    from course_utils import device
    from course_utils.profiles import get_profile

    monkeypatch.setattr(device, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(doctor, "_training_step_seconds", lambda *args, **kwargs: 0.2)
    found = [check.found for check in doctor.check_minutes()]
    smoke = get_profile("smoke")
    crops = smoke.crops_per_epoch * (smoke.binary_epochs + smoke.boundary_epochs)
    assert f"about {doctor._rounded(doctor.expected_minutes(crops * 0.2 / smoke.batch_size))} for" in found[0]
    assert doctor.expected_minutes(6000) > 100
    assert [doctor._rounded(minutes) for minutes in (3.6, 47, 300)] == ["4 min", "50 min", "5 h"]


def test_a_step_is_really_measured():
    before = torch.random.get_rng_state()
    small, large = (
        doctor._training_step_seconds(torch.device("cpu"), torch.float32, channels=8, crop=crop, batch=2, repeats=3)
        for crop in (32, 160)
    )
    assert 0 < small < large
    assert torch.equal(torch.random.get_rng_state(), before), "global random state is left alone"


def test_it_does_not_download(tmp_path, monkeypatch):
    """With a cache that is empty, it stays so."""
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "cache"))
    checks = {check.name: check for check in doctor.check_data()}
    assert checks["data dsb2018"].status == "note" and str(tmp_path / "cache") in checks["data dsb2018"].found
    assert not (tmp_path / "cache").exists()


def test_the_real_images_are_downloaded_only_if_asked_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("course_utils.data.download.fetch_dsb2018", lambda: asked.append("once"))
    list(doctor.check_data())
    assert asked == []
    list(doctor.check_data(download=True))
    assert asked == ["once"]


def test_a_download_that_fails_is_a_problem(monkeypatch, tmp_path):
    def refuse():
        raise DownloadError("No answer", "try again")

    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("course_utils.data.download.fetch_dsb2018", refuse)
    [problem] = [check for check in doctor.check_data(download=True) if check.name == "download"]
    assert problem.status == "problem" and "No answer: try again" in problem.found


def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "workshop.command_line", "doctor", "--out", str(tmp_path / "x")],
        cwd=Path(__file__).resolve().parents[2], text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
