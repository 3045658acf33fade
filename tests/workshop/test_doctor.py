"""The doctor reports what it finds, gives advice, and ends with 1 only if something would stop the course."""

import importlib.metadata
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from course_utils import device
from course_utils.data.download import DownloadError
from workshop import doctor
from workshop.doctor import Check


def by_name(checks):
    return {check.name: check for check in checks}


def status(checks, name):
    return by_name(checks)[name].status


def test_this_machine(tmp_path, capsys):
    checks = list(doctor.examine(tmp_path / "build"))
    assert doctor.report(checks) == 0, capsys.readouterr().out
    assert torch.__version__.split("+")[0] in capsys.readouterr().out
    assert set(by_name(checks)) >= {"Python", "packages", "device", "memory", "results", "disk", "data embedded",
                                    "data dsb2018", "Jupyter kernel", "notebooks"}  # fmt: skip
    assert not (tmp_path / "build").exists(), "it changes nothing"


def test_it_promises_no_time(tmp_path, capsys):
    """How long a machine takes is measured by `run`; an estimate on a busy machine once said hours."""
    doctor.report(doctor.examine(tmp_path))
    assert not re.search(r"\b(seconds?|minutes?|hours?|days?)\b", capsys.readouterr().out)


def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "workshop.command_line", "doctor", "--out", str(tmp_path / "x")],
        cwd=Path(__file__).resolve().parents[2], text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr


def test_problems_decide_the_exit_code(capsys):
    assert doctor.report([Check("ok", "a", "fine"), Check("note", "b", "slow", "Wait.")]) == 0
    assert "-> Wait." in capsys.readouterr().out
    problem = Check("problem", "a", "gone", "Get it.")
    assert doctor.report([problem, Check("ok", "b", "fine"), problem]) == 1
    assert "2 problems would stop the course" in capsys.readouterr().out


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "available_memory", Mock(side_effect=RuntimeError("no such counter")))
    checks = by_name(doctor.examine(tmp_path))
    assert (checks["memory"].status, checks["memory"].found) == ("problem", "RuntimeError: no such counter")
    assert "notebooks" in checks


def test_old_and_missing_packages(monkeypatch):
    requirements = ["numpy>=999", "nothing-of-that-name>=1", 'stardist>=99; extra == "test"', "torch>=2"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)
    packages = by_name(doctor.check_packages())["packages"]
    assert packages.status == "problem" and packages.advice
    assert "numpy" in packages.found and ">=999" in packages.found
    assert "nothing-of-that-name is missing" in packages.found
    assert "stardist" not in packages.found, "only the tests need it"
    assert "torch" not in packages.found


def test_course_utils_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", Mock(side_effect=importlib.metadata.PackageNotFoundError))
    assert status(doctor.check_packages(), "course-utils") == "problem"


@pytest.mark.parametrize(
    ("python", "expected"), [(sys.executable, "ok"), ("python", "ok"), ("/somewhere/else/python", "note")]
)
def test_kernel_of_another_python_is_noted(tmp_path, monkeypatch, python, expected):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    content = {"argv": [python, "-m", "ipykernel_launcher"], "display_name": "Mine", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(content))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (check,) = doctor.check_kernel()
    assert check.status == expected and bool(check.advice) == (expected == "note")


def test_missing_kernel(monkeypatch):
    from jupyter_client import kernelspec

    missing = Mock(side_effect=kernelspec.NoSuchKernel("python3"))
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", missing)
    (check,) = doctor.check_kernel()
    assert check.status == "problem" and "ipykernel" in check.advice


@pytest.mark.parametrize("folder", ["solutions", "notebooks"])
def test_notebooks_of_the_course_or_of_the_students_version(monkeypatch, tmp_path, folder):
    monkeypatch.setattr(doctor, "checkout", lambda: tmp_path)
    (tmp_path / folder).mkdir()
    assert status(doctor.check_notebooks(), "notebooks") == "problem"
    (tmp_path / folder / "01_data_exploration.ipynb").touch()
    assert status(doctor.check_notebooks(), "notebooks") == "ok"


@pytest.mark.parametrize(("gigabytes", "disk", "memory"), [(0.1, "problem", "problem"), (1, "note", "problem"),
                                                           (4, "ok", "note"), (9, "ok", "ok")])  # fmt: skip
def test_disk_and_memory(tmp_path, monkeypatch, gigabytes, disk, memory):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=gigabytes * 1e9))
    monkeypatch.setattr(doctor, "available_memory", lambda: gigabytes)
    checks = by_name(doctor.examine(tmp_path))
    assert (checks["disk"].status, checks["memory"].status) == (disk, memory)


def test_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    results = by_name(doctor.check_folder(tmp_path / "file" / "build"))["results"]
    assert results.status == "problem" and "--out" in results.advice


def test_memory_of_this_machine_and_of_one_that_does_not_tell(monkeypatch, tmp_path):
    assert 0.1 < doctor.available_memory() < 100_000
    monkeypatch.setattr(doctor, "available_memory", lambda: None)
    assert status(doctor.examine(tmp_path), "memory") == "note"


def test_gpu_that_fails_is_noted_and_the_cpu_taken(monkeypatch):
    def choose_device():
        warnings.warn("torch lists a cuda device, but its first operation failed", stacklevel=2)
        return torch.device("cpu")

    monkeypatch.setattr(device, "choose_device", choose_device)
    checks = by_name(doctor.check_device())
    assert checks["GPU"].status == "note" and "first operation failed" in checks["GPU"].found
    assert checks["device"].status == "note"


def test_a_gpu_that_was_asked_for_is_a_problem_where_there_is_none(monkeypatch):
    monkeypatch.setattr(device, "choose_device", lambda: torch.device("cpu"))
    assert status(doctor.check_device(), "device") == "note"
    found = by_name(doctor.check_device(gpu_required=True))["device"]
    assert found.status == "problem" and "nvidia-smi" in found.advice


def test_device_that_cannot_compute_is_a_problem(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "meta")  # takes tensors, but holds no numbers
    (check,) = doctor.check_device()
    assert check.status == "problem" and "COURSE_DEVICE=cpu" in check.advice


def test_missing_data(monkeypatch):
    from course_utils import data

    monkeypatch.setattr(data, "available_sources", lambda: {"embedded": "not found in /x", "dsb2018": "not found"})
    checks = by_name(doctor.check_data())
    assert (checks["data embedded"].status, checks["data dsb2018"].status) == ("problem", "note")


def test_the_real_images_are_downloaded_only_if_asked_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("course_utils.data.download.fetch_dsb2018", lambda: asked.append("once"))
    real = by_name(doctor.check_data())["data dsb2018"]
    assert real.status == "note" and str(tmp_path / "cache") in real.found
    assert asked == [] and not (tmp_path / "cache").exists()
    list(doctor.check_data(download=True))
    assert asked == ["once"]


def test_a_download_that_fails_is_a_problem(monkeypatch, tmp_path):
    refuse = Mock(side_effect=DownloadError("No answer", "try again"))
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("course_utils.data.download.fetch_dsb2018", refuse)
    problem = by_name(doctor.check_data(download=True))["download"]
    assert problem.status == "problem" and "No answer: try again" in problem.found
