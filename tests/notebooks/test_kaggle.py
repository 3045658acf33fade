"""The stand-alone notebooks as on Kaggle: its versions of Python and packages, its folders, no network, no repository.

The environment is made once, in build/kaggle-python (5 GB), and used again. Where it cannot be made (no Python 3.12,
not Linux, no network at the first time, no right to separate a process from the network) these tests are skipped, or,
with COURSE_KAGGLE=required, they fail.

On every change the first notebook runs from start to end. The others:

    python3 course.py test -m slow tests/notebooks/test_kaggle.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import imageio.v3 as imageio
import nbformat
import numpy as np
import pytest
from quick import mostly_slow
from test_environment import KAGGLE

from course_utils.data import load_data
from workshop.build import stand_alone_notebooks

ROOT = Path(__file__).resolve().parents[2]
MACHINE = ROOT / "tests" / "support" / "kaggle_machine.py"
PYTHON = Path(os.environ.get("COURSE_KAGGLE_PYTHON") or ROOT / "build" / "kaggle-python")
PINNED = [f"{name}=={version}" for name, version in KAGGLE.items() if name != "python"]
# What else is on Kaggle and in the course's list, in the versions that go with those.
FURTHER = ["pandas<3", "seaborn", "imageio", "tifffile", "tqdm", "ipykernel", "papermill", "nbconvert==6.4.5"]
NAMES = sorted(path.stem for path in (ROOT / "solutions").glob("[0-9][0-9]_*.py"))
MOUNTS = {  # where the data of a competition lay until 2026, and where they lie since
    "before 2026": "data-science-bowl-2018",
    "since 2026": "datasets/somebody/data-science-bowl-2018",
}

pytestmark = pytest.mark.timeout(1800)


def cannot(reason: str) -> None:
    """Skip, or fail where these tests are required."""
    if os.environ.get("COURSE_KAGGLE") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def find_python() -> str | None:
    """A Python of Kaggle's version that starts."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{KAGGLE['python']}*/bin/python"))
    for candidate in (sys.executable, f"python{KAGGLE['python']}", *map(str, pyenv)):
        command = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except OSError:
            continue
        if done.stdout.strip() == KAGGLE["python"]:
            return candidate
    return None


@pytest.fixture(scope="session")
def kaggle_python() -> Path:
    """The interpreter of an environment with Kaggle's versions."""
    if not sys.platform.startswith("linux"):
        cannot("Kaggle's machines are Linux, and so must this one be to stand in for them.")
    stamp, wanted = PYTHON / "course-versions.txt", "\n".join([*PINNED, *FURTHER])
    python = PYTHON / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    if (base := find_python()) is None:
        cannot(f"There is no Python {KAGGLE['python']} with venv on this machine: install it, as Kaggle has that one.")
    shutil.rmtree(PYTHON, ignore_errors=True)
    subprocess.run([base, "-m", "venv", str(PYTHON)], check=True, timeout=300)
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PINNED, *FURTHER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    if done.returncode != 0:
        cannot(f"Kaggle's versions could not be installed: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(wanted)
    return python


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory) -> Path:
    """The stand-alone notebooks as students get them."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, content in stand_alone_notebooks(ROOT).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def on_kaggle(kaggle_python, tmp_path):
    """A function that runs a command of that environment on such a machine, and gives the finished process."""
    given, working = tmp_path / "input", tmp_path / "working"
    given.mkdir()
    working.mkdir()

    def run(*command: str) -> subprocess.CompletedProcess:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        start = [str(kaggle_python), str(MACHINE), str(root), str(given), str(working), str(ROOT)]
        start += [str(PYTHON), "--", str(kaggle_python), *command]
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        environment |= {"HOME": "/tmp", "KAGGLE_KERNEL_RUN_TYPE": "Batch", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(start, env=environment, capture_output=True, text=True, timeout=1500)
        if "PermissionError" in done.stderr and "kaggle_machine.py" in done.stderr:
            cannot("This user may not separate a process from the network and the files: start the tests as root.")
        return done

    run.given, run.working = given, working
    return run


def execute(on_kaggle, notebooks: Path, name: str, last: str = "") -> str:
    """What a notebook prints on Kaggle, executed with papermill up to a cell that ends with `last`, or to its end."""
    notebook = nbformat.read(notebooks / f"{name}.ipynb", as_version=4)
    end = next((number for number, cell in enumerate(notebook.cells, 1) if last and cell.source.endswith(last)), None)
    assert end or not last
    notebook.cells = notebook.cells[:end]
    nbformat.write(notebook, on_kaggle.working / "notebook.ipynb")
    command = ["-m", "papermill", "notebook.ipynb", "executed.ipynb", "-k", "python3", "--no-progress-bar"]
    done = on_kaggle(*command, "-p", "profile", "smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(on_kaggle.working / "executed.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    return "".join(output.get("text", "") for cell in code for output in cell.outputs)


def test_the_versions_are_those_of_kaggle(on_kaggle):
    names = json.dumps([name for name in KAGGLE if name != "python"])
    done = on_kaggle("-c", f"import importlib.metadata as m, sys; print('%d.%d' % sys.version_info[:2]);"
                     f"[print(name, m.version(name)) for name in {names}]")  # fmt: skip
    found = {name: version.split("+")[0] for name, version in map(str.split, done.stdout.splitlines()[1:])}
    assert done.stdout.splitlines()[0] == KAGGLE["python"]
    assert found == {name: version for name, version in KAGGLE.items() if name != "python"}


def test_the_machine_is_really_shut_off(on_kaggle):
    program = f"""
import os, socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print("no network:", error.strerror)
for path in ("/etc/new", "/kaggle/input/new", "/kaggle/new", os.path.expanduser("~root/new"), {str(ROOT / "new")!r}):
    try:
        open(path, "w")
        print("written", path)
    except OSError:
        pass
print("repository:", sorted(os.listdir({str(ROOT)!r})))
open("kept.txt", "w").write("kept")
"""
    done = on_kaggle("-c", program)
    assert done.returncode == 0, done.stderr
    assert "no network: Network is unreachable" in done.stdout
    assert "written" not in done.stdout
    left = ["build"] if PYTHON.is_relative_to(ROOT) else []  # the environment itself lies there
    assert f"repository: {left}" in done.stdout
    assert (on_kaggle.working / "kept.txt").read_text() == "kept"


SHOWS_DATA = "data = load_data(data_source)\nprint(data)"


def write_competition_data(folder: Path) -> None:
    """24 images of the embedded set in the layout of `stage1_train`: PNG files, and a mask file for each nucleus."""
    for sample in load_data("embedded").train[::4]:
        place = folder / "stage1_train" / sample.name
        for kind in ("images", "masks"):
            (place / kind).mkdir(parents=True)
        imageio.imwrite(place / "images" / f"{sample.name}.png", sample.image)
        for label in np.unique(sample.mask)[1:]:
            mask = np.where(sample.mask == label, 255, 0).astype(np.uint8)
            imageio.imwrite(place / "masks" / f"{label}.png", mask)


@pytest.mark.parametrize("name", mostly_slow(NAMES, quick=["01"]))
def test_a_notebook_runs_with_data_in_the_layout_of_the_competition(on_kaggle, notebooks, name):
    mount = MOUNTS["since 2026"]
    write_competition_data(on_kaggle.given / mount)
    shown = execute(on_kaggle, notebooks, name)
    assert "No data set is attached" not in shown
    if name != "02_unet":
        assert f"/kaggle/input/{mount}" in shown
    assert {path.name for path in on_kaggle.working.iterdir()} <= {"notebook.ipynb", "executed.ipynb", "output"}


def test_data_are_found_where_they_lay_before_2026(on_kaggle, notebooks):
    write_competition_data(on_kaggle.given / MOUNTS["before 2026"])
    assert f"/kaggle/input/{MOUNTS['before 2026']}" in execute(on_kaggle, notebooks, NAMES[0], last=SHOWS_DATA)


def test_images_of_the_competition_are_read(on_kaggle, notebooks, stage1_zip):
    with zipfile.ZipFile(stage1_zip) as archive:
        archive.extractall(on_kaggle.given / MOUNTS["since 2026"])
    assert "19 training and 2 test images" in execute(on_kaggle, notebooks, NAMES[0], last=SHOWS_DATA)


@pytest.mark.slow
def test_without_data_a_notebook_draws_its_own(on_kaggle, notebooks):
    shown = execute(on_kaggle, notebooks, NAMES[0], last=SHOWS_DATA)
    assert "No data set is attached to this notebook" in shown and "images drawn" in shown
