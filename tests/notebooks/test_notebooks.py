"""The solved notebooks, executed once from start to end with `course.py run` on the embedded data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from website_faults import find_faults

from workshop.publish.website import build_website
from workshop.run.minimum_scores import minimum_scores_for, scores_below_minimum

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "solutions").glob("[0-9][0-9]_*.py"))
CORE = ["01_data_exploration", "02_unet", "03_binary_training", "04_instance_evaluation", "05_boundary_watershed"]


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Path:
    """The folder with what `course.py run` leaves."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "workshop.command_line", "run", "--minimum-scores", "--out", str(folder)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    print(run.stdout[-6000:], run.stderr[-3000:])
    assert run.returncode == 0
    return folder / "embedded-smoke"


@pytest.fixture(scope="session")
def scores(executed) -> dict[str, dict]:
    summary = json.loads((executed / "summary.json").read_text(encoding="utf-8"))
    return {entry["notebook"]: entry["scores"] for entry in summary["notebooks"]}


def test_the_five_core_notebooks_are_there():
    assert NOTEBOOKS[:5] == CORE


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_was_executed_and_nothing_was_written_to_stderr(executed, name):
    notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    complaints = [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert complaints == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_has_an_alternative_text(executed, name):
    notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert figures
    for figure in figures:
        assert len(figure.metadata["image/png"]["alt"]) > 30
    page = (executed / f"{name}.html").read_text(encoding="utf-8")
    assert page.count("<img") == page.count('alt="') >= len(figures)
    assert "No description has been provided for this image" not in page


def test_ceiling_of_components_is_below_one(scores):
    assert 0.5 < scores["01_data_exploration"]["ceiling_mean_f1"] < 0.97


def test_the_network_of_the_paper_has_31_million_parameters(scores):
    assert scores["02_unet"]["parameters"] == 31_030_593


def test_the_scores_reach_their_floors(scores):
    assert scores_below_minimum(minimum_scores_for("embedded", "smoke"), scores.items()) == []


def test_watershed_is_better_than_components(scores):
    """The same network, another last step."""
    table = scores["05_boundary_watershed"]
    watershed, components = (table[f"boundary U-Net, {method}"]["mean_f1"] for method in ("watershed", "components"))
    assert watershed["0.5"] > components["0.5"]


def test_watershed_finds_more_of_the_touching_nuclei(scores):
    table = scores["05_boundary_watershed"]
    recall = {name: table[f"boundary U-Net, {name}"]["touching_recall"]["0.5"] for name in ("watershed", "components")}
    assert recall["watershed"] > recall["components"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_the_text_claims_holds_for_the_data_of_the_course(executed, name):
    notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    outputs = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    lines = [line for text in outputs for line in text.splitlines()]
    assert not [line for line in lines if line.startswith("✘ Does not hold for this data set")]


def test_the_website_of_the_executed_notebooks_is_whole(executed, tmp_path):
    site = build_website(tmp_path / "site", executed)
    assert find_faults(site) == []
    for name in NOTEBOOKS:
        page = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        figures = sum("image/png" in output.get("data", {}) for output in outputs)
        assert page.count('src="data:image/png;base64,') >= figures > 0
