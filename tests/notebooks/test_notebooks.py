"""The solved notebooks, executed once from start to end with `course.py run` on the embedded data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from website_faults import find_faults

from course_utils.exercises import list_exercises
from workshop.publish.website import build_website

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "solutions").glob("[0-9][0-9]_*.py"))
pytestmark = pytest.mark.timeout(3600)  # what takes minutes here may take more on a busy machine


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """The folder with the results of `course.py run`, in strict mode: an exercise that is not solved is an error."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "workshop.command_line", "run", "--minimum-scores", "--out", str(folder)]
    variables = os.environ | {"COURSE_STRICT": "1"}
    run = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=3000)
    print(run.stdout[-6000:], run.stderr[-3000:])
    assert run.returncode == 0
    return folder / "embedded-smoke"


@pytest.fixture(scope="module")
def scores(executed) -> dict[str, dict]:
    summary = json.loads((executed / "summary.json").read_text(encoding="utf-8"))
    return {entry["notebook"]: entry["scores"] for entry in summary["notebooks"]}


def test_every_notebook_in_smoke_takes_at_most_1400_mb(executed):
    """About 500 MB are imports, without the pages of libraries, which the quota of a container need not count."""
    summary = json.loads((executed / "summary.json").read_text(encoding="utf-8"))
    peaks = {entry["notebook"]: entry["memory_mb"] for entry in summary["notebooks"]}
    assert len(peaks) == 8 and all(300 < peak <= 1400 for peak in peaks.values()), peaks


def outputs_of(executed: Path, name: str) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_is_a_notebook_for_every_exercise():
    assert {exercise.notebook for exercise in list_exercises()} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_was_executed_every_exercise_is_solved_and_no_claim_fails(executed, name):
    notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    outputs = outputs_of(executed, name)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    [cell] = [cell for cell in code if cell.source.endswith(f'show_overview("{name}")')]
    number = sum(exercise.notebook == name for exercise in list_exercises())
    assert cell.outputs[0].data["text/plain"].startswith(f"{number} of {number} exercises solved")
    lines = [line for output in outputs for line in output.get("text", "").splitlines()]
    assert not [line for line in lines if line.startswith(("✘", "◇"))]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_has_an_alternative_text(executed, name):
    figures = [output for output in outputs_of(executed, name) if "image/png" in output.get("data", {})]
    assert figures and all(len(figure.metadata["image/png"]["alt"]) > 30 for figure in figures)
    page = BeautifulSoup((executed / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    pictures = page.find_all("img")
    assert len(pictures) >= len(figures) and all(picture["src"].startswith("data:image/") for picture in pictures)
    assert all(len(picture["alt"]) > 10 and "No description" not in picture["alt"] for picture in pictures)


def test_an_exact_binary_target_loses_nuclei_and_a_cut_where_they_meet_wins_them_back(scores):
    table = scores["01_data_exploration"]
    assert 0.8 < table["exact_target_mean_f1"] < 0.95 and table["cut_target_mean_f1"] > 0.99


def test_the_network_of_the_paper_has_31_million_parameters(scores):
    assert scores["02_unet"]["parameters"] == 31_030_593


def test_watershed_is_better_than_components(scores):
    """The same network, another last step."""
    table = scores["05_boundary_watershed"]
    watershed, components = (table[f"boundary U-Net, {method}"]["mean_f1"] for method in ("watershed", "components"))
    assert watershed["0.5"] > components["0.5"]


def test_watershed_finds_more_of_the_touching_nuclei(scores):
    table = scores["05_boundary_watershed"]
    recall = {name: table[f"boundary U-Net, {name}"]["touching_recall"]["0.5"] for name in ("watershed", "components")}
    assert recall["watershed"] > recall["components"]


def test_the_website_of_the_executed_notebooks_is_whole(executed, tmp_path):
    site = build_website(tmp_path / "site", executed)
    assert find_faults(site) == []
    for name in NOTEBOOKS:
        page = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        figures = sum("image/png" in output.get("data", {}) for output in outputs_of(executed, name))
        assert page.count('src="data:image/png;base64,') >= figures > 0
