"""The stand-alone notebooks: one file with everything in it, and what `kaggle kernels push` needs beside it.

On every change five run on their own. The others:

    python3 course.py test -m slow tests/workshop/build/test_stand_alone.py
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from quick import mostly_slow

from course_utils.exercises import list_exercises
from workshop.build import Cell, make_versions
from workshop.build.stand_alone import imported_modules, kernel_metadata, modules_for, pack, stand_alone

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = sorted((REPOSITORY / "solutions").glob("*.py"))
EXERCISES = list_exercises()
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


@functools.cache
def made_from(path: Path) -> list:
    return make_versions(path, EXERCISES)["stand-alone"]


def archive_in(cells) -> zipfile.ZipFile:
    text = "".join(re.findall(r'^    "(.*)"$', cells[0].source, re.MULTILINE))
    return zipfile.ZipFile(io.BytesIO(base64.b85decode(text)))


@each_source
def test_the_first_cell_is_folded_and_holds_modules_as_they_are(path):
    cells = made_from(path)
    assert cells[0].tags == ("fold",) and cells[0].source.startswith("#@title ")
    assert max(map(len, cells[0].source.split("\n"))) <= 120
    archive = archive_in(cells)
    for name in archive.namelist():
        assert archive.read(name).decode() == (REPOSITORY / name).read_text(encoding="utf-8")
    names = set(archive.namelist())
    assert all(name.startswith("course_utils/") for name in names)
    assert f"course_utils/exercises/checks/notebook_{path.stem[:2]}.py" in names
    assert {"course_utils/exercises/__init__.py", "course_utils/data/synthetic.py"} <= names
    assert sum("/checks/notebook_" in name for name in names) <= 3  # those of notebook 06 use some of 01 and 03


@pytest.mark.parametrize("number", ["01", "02"])
def test_a_notebook_that_trains_nothing_embeds_nothing_of_the_training(number):
    [path] = [path for path in SOURCES if path.stem.startswith(number)]
    names = {name.removeprefix("course_utils/") for name in archive_in(made_from(path)).namelist()}
    assert not names & {"training.py", "networks.py", "distributed.py", "checkpoints.py", "losses.py"}


def test_imports_are_seen_in_every_form_and_bring_the_packages_around_them():
    code = """
import course_utils.losses, numpy
from course_utils import f1_score
from course_utils.data import synthetic
def later():
    from course_utils.exercises.claims import claim
"""
    found = {"losses", "metrics", "data", "data.synthetic", "exercises.claims"}
    assert imported_modules(code) == {"course_utils", *(f"course_utils.{name}" for name in found)}
    names = {path.relative_to(REPOSITORY).as_posix() for path in modules_for([Cell("code", code, 1)], [])}
    assert {"course_utils/__init__.py", "course_utils/exercises/__init__.py", "course_utils/data/layouts.py"} <= names


def test_the_archive_depends_on_the_content_alone(tmp_path):
    files = modules_for([], EXERCISES[:1])
    first = pack(files)
    for file in files:
        os.utime(file)
    assert pack(files) == first
    entries = zipfile.ZipFile(io.BytesIO(first)).infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {(entry.create_system, entry.external_attr) for entry in entries} == {(3, 0o644 << 16)}


def test_a_module_that_a_check_needs_must_be_there():
    with pytest.raises(ValueError, match=r"are missing: course_utils\.exercises\.checks\.notebook_99\."):
        modules_for([], [dataclasses.replace(EXERCISES[0], id="9.1", notebook="99_none")])


@each_source
def test_the_data_are_what_is_attached(path):
    cells = made_from(path)
    [number] = [number for number, cell in enumerate(cells) if "parameters" in cell.tags]
    names: dict = {}
    exec(cells[number].source, names)
    assert names["data_source"] == "kaggle"
    assert cells[number + 2].markers == {"setup": "data"}
    assert cells[number + 1].kind == "markdown"


@each_source
def test_pictures_are_in_the_text_and_no_local_file_is_named(path):
    cells = made_from(path)
    assert not any(cell.attachments for cell in cells)
    texts = "\n".join(cell.source for cell in cells if cell.kind == "markdown")
    assert "attachment:" not in texts
    prose = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", "", texts, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)", prose)
    assert all(re.match(r"https?:|data:image/png;base64,|#", target) for target in targets)


def test_pictures_are_embedded_and_local_links_are_only_words(tmp_path):
    (tmp_path / "dot one.png").write_bytes(b"\x89PNG dot")
    (tmp_path / "solutions").mkdir()
    text = (
        "![A dot](../dot%20one.png) [next](02_unet.ipynb#top) [top](#top) [![web](../a.svg)](https://example.org)\n"
        "![B](attachment:b.png) `[a](b)`\n\n```\n[c](d)\n```"
    )
    cell = Cell("markdown", text, 1, attachments={"b.png": b"B"})
    made = stand_alone([cell], [], tmp_path / "solutions" / "01_data_exploration.py")[1]
    dot, b = (f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (b"\x89PNG dot", b"B"))
    assert made.attachments == {}
    assert made.source == (
        f"![A dot]({dot}) next [top](#top) [web](https://example.org)\n![B]({b}) `[a](b)`\n\n```\n[c](d)\n```"
    )


@each_source
def test_the_metadata_of_a_kernel(path, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    assert kernel_metadata(path.stem) == b"", "Kaggle refuses an account that is not yours"
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    found = json.loads(kernel_metadata(path.stem))
    assert found["code_file"] == f"{path.stem}.ipynb"
    assert found["language"] == "python" and found["kernel_type"] == "notebook"
    assert found["enable_gpu"] is True and found["enable_internet"] is False and found["is_private"] is True
    assert found["machine_shape"] == "NvidiaTeslaT4"
    assert found["competition_sources"] == ["data-science-bowl-2018"] and found["dataset_sources"] == []
    account, slug = found["id"].split("/")
    assert account == "ada"
    assert slug == found["title"].lower().replace(" ", "-")  # Kaggle makes the address from the title
    assert 5 <= len(found["title"]) <= 50


def test_titles_differ(monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    assert len({json.loads(kernel_metadata(path.stem))["id"] for path in SOURCES}) == len(SOURCES)


# What a cell of the notebook does in a process of its own. Instead of all images, which take a minute, one is drawn.
ISOLATED = """
import json, sys, tempfile
cells = json.load(open(sys.argv[1], encoding="utf-8"))
data_folder = sys.argv[2]
names = {"__name__": "__main__"}
exec(cells["setup"], names)
import course_utils
from pathlib import Path
home = Path(course_utils.__file__).parents[1]
assert home.name.startswith("course-") and home.parent == Path(tempfile.gettempdir()).resolve(), home

import course_utils.data, course_utils.data.synthetic as synthetic, tifffile
if data_folder:
    course_utils.data.KAGGLE_INPUT = Path(data_folder)
def write_few(folder):
    for index, part in enumerate(["train"] * 16 + ["test"]):
        for kind, array in zip(("images", "masks"), synthetic.generate_image(0)):
            path = Path(folder) / part / kind / f"{index}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, array)
    return 17
synthetic.write_dataset = write_few
for code in cells["code"]:
    exec(compile(code, "cell", "exec"), names)
data = course_utils.data.load_data(names["data_source"])
loaded = [Path(module.__file__) for name, module in list(sys.modules.items()) if name.split(".")[0] == "course_utils"]
assert all(home in path.parents for path in loaded), loaded
print("DATA", names["data_source"], len(data.train), len(data.test))
"""


def run_isolated(path: Path, folder: Path, data_folder: str = "") -> str:
    """Set up, import, parameters, data, then all exercises with their checks, and the progress."""
    cells = made_from(path)
    chosen = [
        cell.source
        for cell in cells[1:]
        if cell.kind == "code"
        and ({"exercise", "check", "progress", "setup"} & set(cell.markers) or "parameters" in cell.tags)
    ]
    imports = next(cell.source for cell in cells[1:] if cell.kind == "code")
    folder.mkdir(exist_ok=True)
    (folder / "cells.json").write_text(json.dumps({"setup": cells[0].source, "code": [imports, *chosen]}))
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COURSE_STRICT")}
    environment |= {"COURSE_PROGRESS": str(folder / "progress.json"), "TMPDIR": str(folder), "MPLBACKEND": "agg"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", ISOLATED, str(folder / "cells.json"), data_folder]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.parametrize("name", mostly_slow([path.stem for path in SOURCES], quick=["01", "02", "04", "05", "08"]))
def test_it_runs_with_nothing_but_itself_and_draws_its_images(name, tmp_path):
    path = REPOSITORY / "solutions" / f"{name}.py"
    shown = run_isolated(path, tmp_path / "alone")
    assert "No data set is attached to this notebook" in shown and "2018 Data Science Bowl" in shown
    assert "DATA embedded 16 1" in shown
    own = [exercise for exercise in EXERCISES if exercise.notebook == path.stem]
    for exercise in own:
        assert f"Exercise {exercise.id}, {exercise.name}: to do" in shown
    assert f"0 of {len(own)} exercises solved" in shown


def test_it_uses_what_is_attached(tmp_path, make_stardist_folder):
    make_stardist_folder(tmp_path / "input" / "datasets" / "somebody" / "nuclei")
    shown = run_isolated(SOURCES[0], tmp_path / "alone", str(tmp_path / "input"))
    assert "DATA kaggle " in shown and "No data set" not in shown
