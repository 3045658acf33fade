"""The solved and the student version: what is filled in, and that students' cells give no solution away."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import pytest
from tiny_course import EXERCISES, SOURCE, make_course, read_notebook

from course_utils.exercises import list_exercises
from workshop.build import build, make_versions
from workshop.build.source import read_cells
from workshop.build.stubs import source_of, stub_of
from workshop.build.versions import OWN_ANSWER, solved, student

SOURCES = sorted((Path(__file__).resolve().parents[3] / "solutions").glob("*.py"))
REGISTRY = {exercise.id: exercise for exercise in list_exercises()}


def by_id(notebook) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells}


def test_both_versions_differ_in_exercises_and_answers_only(root):
    build(root=root)
    stub, solution = by_id(read_notebook(root, "notebooks")), by_id(read_notebook(root, "solutions"))
    assert solution["exercise-2-4"].endswith("if parameter.requires_grad)")
    assert stub["exercise-2-4"].endswith('raise NotImplementedError("Exercise 2.4: Count the parameters")')
    assert (stub["answer-2a"], solution["answer-2a"]) == (OWN_ANSWER, "Because.")
    different = {key for key in stub.keys() | solution.keys() if stub.get(key) != solution.get(key)}
    assert different == {"exercise-2-4", "answer-2a", "model-2a"}
    assert stub["model-2a"].endswith('model_answer("2a")') and "model-2a" not in solution


def test_the_solved_cells_run(root):
    build(root=root)
    names: dict = {"__name__": "__main__"}
    for cell in read_notebook(root, "solutions").cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert names["value"] == 3


def test_checks_difficulty_links_and_progress_are_filled_in(root, monkeypatch):
    monkeypatch.setattr("workshop.build.versions.repository", lambda: "ada/cells")
    build(root=root)
    notebook = read_notebook(root, "notebooks")
    cells = by_id(notebook)
    assert cells["check-2-4"] == 'count_parameters = check("2.4", count_parameters)'
    whole = "\n".join(cells.values())
    assert "*Difficulty 1 of 5, about 5 minutes.*" in whole and "{{" not in whole
    assert "[![Open this on Kaggle]" in notebook.cells[0].source.split("\n")[2]
    last = notebook.cells[-1]
    assert last.metadata == {"course": {"progress": "02_unet"}}
    assert last.source.endswith('show_overview("02_unet")')


TITLES = {"01_one": "01 One", "02_unet": "02 The U-Net", "04_four": "04 Four"}  # 03 is missing


@pytest.mark.parametrize(("notebook", "links"), [
    ("01_one", "Next: [02 The U-Net](02_unet.ipynb)"),
    ("02_unet", "Previous: [01 One](01_one.ipynb) | Next: [04 Four](04_four.ipynb)"),
    ("04_four", "Previous: [02 The U-Net](02_unet.ipynb)"),
])  # fmt: skip
def test_links_to_the_notebooks_before_and_after_stand_below_the_title_and_at_the_end(tmp_path, notebook, links):
    cells = read_cells(make_course(tmp_path))
    for made in (student(cells, EXERCISES, notebook, TITLES), solved(cells, EXERCISES, notebook, TITLES)):
        assert made[0].source.split("\n")[:3] == ["# Tiny notebook, größer als nichts", "", links]
        assert made[-1].source == links
        [place] = [number for number, cell in enumerate(made) if "progress" in cell.markers]
        assert place == len(made) - 2
    alone = student(cells, EXERCISES, notebook, {notebook: "02 The only one"})
    assert "progress" in alone[-1].markers and "Next:" not in alone[0].source


def test_a_stand_alone_notebook_names_its_neighbours_without_linking_to_what_is_not_there(root):
    make_course(root, SOURCE.replace("2.4", "9.9").replace("Tiny", "Third"), "03_three")
    made = make_versions(root / "solutions" / "02_unet.py", EXERCISES)
    assert made["notebooks"][-1].source == "Next: [Third notebook, größer als nichts](03_three.ipynb)"
    assert made["stand-alone"][-1].source == "Next: Third notebook, größer als nichts"


def test_the_time_is_that_of_exercises_questions_and_reading(tmp_path):
    text = "**Time** about {{minutes}} minutes. " + "word " * 1950
    cells = read_cells(make_course(tmp_path, SOURCE.replace("Some text.", text)))
    exercises = [dataclasses.replace(EXERCISES[0], minutes=1000), dataclasses.replace(EXERCISES[1], minutes=40)]
    whole = "\n".join(cell.source for cell in student(cells, exercises, "02_unet"))
    assert "**Time** about 70 minutes." in whole, "40 for the exercise of this notebook, 5 for a question, 20 to read"


def test_difficulty_and_minutes_come_from_the_registry(tmp_path):
    harder = [dataclasses.replace(EXERCISES[1], difficulty=5, minutes=77)]
    cells = student(read_cells(make_course(tmp_path)), harder, "02_unet")
    assert any("*Difficulty 5 of 5, about 77 minutes.*" in cell.source for cell in cells)


@functools.cache
def versions(path: Path) -> dict[str, list]:
    return make_versions(path, list_exercises())


@pytest.mark.parametrize("version", ["notebooks", "stand-alone"])
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_students_get_stubs_no_model_answer_and_no_line_of_a_solution(path, version):
    """Only the package holds solutions. Lines of at least 40 characters are telling; shorter ones stand anywhere."""
    cells = [cell for cell in versions(path)[version] if cell.markers.get("setup") != "package"]
    stubs = {id_: stub_of(exercise) for id_, exercise in REGISTRY.items()}
    answers = {cell.markers["answer"]: cell.source for cell in read_cells(path) if "answer" in cell.markers}
    for cell in cells:
        if "exercise" in cell.markers:
            assert cell.source == stubs[cell.markers["exercise"]]
        if "answer" in cell.markers:
            assert cell.source == OWN_ANSWER and answers.pop(cell.markers["answer"]) != OWN_ANSWER
    assert answers == {}
    whole = re.sub(r"\s+", " ", "\n".join(cell.source for cell in cells))
    hidden = [exercise for exercise in REGISTRY.values() if exercise.notebook >= path.stem]  # later ones, too
    lines = {line.strip() for exercise in hidden for line in source_of(exercise).split("\n")}
    given = {line.strip() for stub in stubs.values() for line in stub.split("\n")}
    telling = {line for line in lines - given if len(line) >= 40}
    assert telling and [line for line in telling if line in whole] == []
