"""The committed versions of the course: what students open, what instructors open, and that "Run all" works.

On every change some notebooks are executed. The others: python3 course.py test -m slow tests/notebooks/test_versions.py
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from quick import mostly_slow

from course_utils.exercises import list_exercises
from workshop.build.stubs import source_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "solutions").glob("*.py"))
# Where one notebook proves it for all, the quickest is executed, and the others in the slow tests.
pytestmark = pytest.mark.timeout(3600)  # a busy machine may need minutes
some = pytest.mark.parametrize("name", mostly_slow(NAMES, quick=["02"]))
each = pytest.mark.parametrize("name", NAMES)


def overview(notebook: nbformat.NotebookNode, name: str) -> str:
    """The text of the progress cell of an executed notebook."""
    [cell] = [cell for cell in notebook.cells if cell.source.endswith(f'show_overview("{name}")')]
    return cell.outputs[0].data["text/plain"]


def read(folder: str, name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / folder / f"{name}.ipynb", as_version=4)


def write(notebook: nbformat.NotebookNode, folder: Path) -> Path:
    """A notebook as a file in a folder."""
    nbformat.write(notebook, folder / "notebook.ipynb")
    return folder / "notebook.ipynb"


def exercises_of(name: str) -> list:
    return [exercise for exercise in list_exercises() if exercise.notebook == name]


def test_there_is_a_student_version_of_every_notebook():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


@each
def test_students_get_no_outputs_and_instructors_those_of_tagged_cells(name):
    for cell in read("notebooks", name).cells:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    for cell in read("solutions", name).cells:
        tagged = "nbval-check-output" in cell.metadata.get("tags", [])
        assert bool(cell.get("outputs", [])) == tagged, cell.id


@each
def test_each_exercise_is_a_block_with_its_stub_and_check(name):
    cells = read("notebooks", name).cells
    ids = [cell.id for cell in cells]
    for exercise in exercises_of(name):
        key = exercise.id.replace(".", "-")
        position = ids.index(f"exercise-{key}")
        assert f'raise NotImplementedError("Exercise {exercise.id}: {exercise.title}")' in cells[position].source
        assert cells[position + 1].source.endswith(f'{exercise.name} = check("{exercise.id}", {exercise.name})')
        start = position
        while f"### Exercise {exercise.id}: {exercise.title}" not in cells[start].source:
            start -= 1
            assert cells[start].cell_type == "markdown"
        block = "\n\n".join(cell.source for cell in cells[start:position])
        block = block[block.index(f"### Exercise {exercise.id}") :]
        difficulty = f"*Difficulty {exercise.difficulty} of 5, about {exercise.minutes} minutes.*"
        expected = block.index("Expected:")
        hints = [match.start() for match in re.finditer(r"<details>\s*<summary>Hint", block)]
        assert block.count(difficulty) == 1 and block.index(difficulty) < expected < hints[0]
        assert 2 <= len(hints) <= 4 and block.count("</details>") == len(hints)
    assert sum(cell.source.endswith(f'show_overview("{name}")') for cell in cells) == 1
    assert sum("show_overview(" in cell.source for cell in cells) == 1, "one list of the progress"


@each
def test_model_answers_are_places_to_write(name):
    solved = {cell.id: cell.source for cell in read("solutions", name).cells}
    answers = [cell for cell in read("notebooks", name).cells if "answer" in cell.metadata.get("course", {})]
    assert len(answers) >= 2
    for cell in answers:
        assert "Your answer" in cell.source and cell.source != solved[cell.id]
    models = [cell.source for cell in read("notebooks", name).cells if "model" in cell.metadata.get("course", {})]
    for cell, model in zip(answers, models, strict=True):
        assert model.endswith(f'model_answer("{cell.metadata.course.answer}")')


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_no_notebook_uses_a_name_it_lacks(folder):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--target-version", "py311"]
    notebooks = [str(ROOT / folder / f"{name}.ipynb") for name in NAMES]
    run = subprocess.run([*command, *notebooks], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout


@some
def test_the_source_runs_as_a_plain_script(name, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "COURSE_PROFILE": "smoke"}
    command = [sys.executable, str(ROOT / "solutions" / f"{name}.py")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]


# Executed. The solved version is executed in test_notebooks.py, the student version also in a browser.


def nbval(notebook: Path, cell_seconds: int = 600) -> tuple[str, dict[str, str]]:
    """Run a notebook with nbval, which compares tagged outputs: (what it said, status of each exercise)."""
    folder = notebook.parent
    record = folder / "progress.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--nbval-lax"]
    command += ["--nbval-current-env", "--nbval-cell-timeout", str(cell_seconds), "--color=no"]
    environment = os.environ | {"COURSE_PROGRESS": str(record), "COURSE_PROFILE": "smoke"}
    run = subprocess.run(
        [*command, "--rootdir", str(folder), str(notebook)], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=1500,
    )  # fmt: skip
    found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    assert (run.returncode == 0) == (" failed" not in run.stdout.splitlines()[-1])
    return run.stdout, {key: entry["status"] for key, entry in found.items()}


@pytest.mark.parametrize("name", mostly_slow(NAMES, quick=["03"]))  # others run in a browser
def test_nbval_runs_the_untouched_student_version_to_the_end_and_everything_is_to_do(name, tmp_path):
    said, statuses = nbval(write(read("notebooks", name), tmp_path))
    assert " failed" not in said.splitlines()[-1], said[-3000:]
    assert statuses == {exercise.id: "todo" for exercise in exercises_of(name)}


def with_changed_digits(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs in which every digit of the text is another one."""
    other = str.maketrans("0123456789", "1234567890")
    changed = copy.deepcopy(outputs)
    for output in changed:
        if "text" in output:
            output.text = output.text.translate(other)
        for kind in output.get("data", {}):
            output.data[kind] = output.data[kind].translate(other)
    return changed


COMPARED = {
    "01_data_exploration": "count_shapes", "02_unet": "count_parameters", "04_instance_evaluation": "f1_score",
    "05_boundary_watershed": "find_boundaries", "06_losses_and_tuning": "Dice loss with squares",
    "07_denoising": "clipped_mean", "08_own_images": "measure_instances",
}  # fmt: skip


def test_what_must_not_drift_is_compared():
    stored = {name: [cell.source for cell in read("solutions", name).cells if cell.get("outputs")] for name in NAMES}
    assert {name for name, cells in stored.items() if cells} == set(COMPARED)
    assert all(COMPARED[name] in cells[0] for name, cells in stored.items() if cells)


@pytest.mark.parametrize("name", mostly_slow(COMPARED, quick=["02", "05"]))
def test_nbval_compares_the_stored_outputs_and_notices_a_changed_one(name, tmp_path):
    """Of each solved notebook the cells up to the last stored output, and that one once more with other numbers."""
    notebook = read("solutions", name)
    last = max(number for number, cell in enumerate(notebook.cells) if cell.get("outputs"))
    notebook.cells = [cell for cell in notebook.cells[: last + 1] if cell.cell_type == "code"]
    wrong = copy.deepcopy(notebook.cells[-1])
    wrong.id, wrong.outputs = "wrong", with_changed_digits(wrong.outputs)
    notebook.cells.append(wrong)
    said, _ = nbval(write(notebook, tmp_path))
    assert re.search(rf"\b1 failed, {len(notebook.cells) - 1} passed", said), said[-3000:]
    assert f"Cell {len(notebook.cells) - 1}" in said and "mismatch" in said


def test_nbval_ends_a_cell_that_hangs(tmp_path):
    cell = nbformat.v4.new_code_cell("import time\ntime.sleep(1000)")
    start = time.perf_counter()
    said, _ = nbval(write(nbformat.v4.new_notebook(cells=[cell]), tmp_path), cell_seconds=3)
    assert "1 failed" in said and "cell execution failed" in said
    assert time.perf_counter() - start < 300


def execute(source: Path, **environment: str) -> tuple[dict[str, str], nbformat.NotebookNode]:
    """Run a notebook with papermill in the profile smoke: (status of each exercise, the executed notebook)."""
    record = source.parent / "progress.json"
    command = [sys.executable, "-m", "papermill", source.name, "executed.ipynb", "-k", "python3", "--no-progress-bar"]
    variables = os.environ | {"COURSE_PROGRESS": str(record), **environment}
    subprocess.run(
        [*command, "-p", "profile", "smoke"], cwd=source.parent, env=variables, capture_output=True, timeout=1500
    )
    found = json.loads(record.read_text(encoding="utf-8"))
    executed = nbformat.read(source.parent / "executed.ipynb", as_version=4)
    return {key: entry["status"] for key, entry in found.items()}, executed


def errors_of(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """The cell and the name of each error."""
    outputs = [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [(id, output.ename) for id, output in outputs if output.output_type == "error"]


@some
def test_strictly_the_student_version_stops_at_its_first_exercise(name, tmp_path):
    first = exercises_of(name)[0]
    statuses, executed = execute(write(read("notebooks", name), tmp_path), COURSE_STRICT="1")
    assert errors_of(executed) == [(f"check-{first.id.replace('.', '-')}", "ExerciseNotSolved")]
    assert statuses == {first.id: "todo"}


@some
def test_a_half_solved_version_runs_and_reports_exactly_that(name, tmp_path):
    notebook, expected = read("notebooks", name), {}
    for number, exercise in enumerate(exercises_of(name), 1):
        [cell] = [one for one in notebook.cells if one.metadata.get("course") == {"exercise": exercise.id}]
        wrong = f"def {exercise.name}(*arguments, **more):\n    return None"
        if isinstance(exercise.reference, type):
            wrong = f"class {exercise.name}:\n    pass"
        cell.source = source_of(exercise) if number % 2 else wrong
        expected[exercise.id] = "passed" if number % 2 else "failed"
    statuses, executed = execute(write(notebook, tmp_path))
    assert errors_of(executed) == []
    assert statuses == expected
    solved = sum(status == "passed" for status in expected.values())
    assert overview(executed, name).startswith(f"{solved} of {len(expected)} exercises solved")
