"""The committed versions of the course: what students open, what instructors open, and that "Run all" is green."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from course_utils.exercises import list_exercises
from workshop.build.stubs import source_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "solutions").glob("*.py"))
# Notebooks that train take minutes.
MARKED = [name if name[:2] in ("01", "02") else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
each = pytest.mark.parametrize("name", NAMES)


BROWSE = "from course_utils.exercises.progress import browse_progress\n\nbrowse_progress()"


def overview(notebook: nbformat.NotebookNode, name: str) -> str:
    """The text of the progress cell of an executed notebook."""
    [cell] = [cell for cell in notebook.cells if cell.source.endswith(f'show_overview("{name}")')]
    return cell.outputs[0].data["text/plain"]


def read(folder: str, name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / folder / f"{name}.ipynb", as_version=4)


def exercises_of(name: str) -> list:
    return [exercise for exercise in list_exercises() if exercise.notebook == name]


def test_there_is_a_student_version_of_every_notebook():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES
    assert {exercise.notebook for exercise in list_exercises()} <= set(NAMES)


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
    whole_course = [cell.source for cell in cells if cell.source in ("show_overview()", BROWSE)]
    assert whole_course == (["show_overview()", BROWSE] if name == NAMES[0] else [])


@each
def test_model_answers_are_places_to_write(name):
    solved = {cell.id: cell.source for cell in read("solutions", name).cells}
    answers = [cell for cell in read("notebooks", name).cells if "answer" in cell.metadata.get("course", {})]
    assert len(answers) >= 2
    for cell in answers:
        assert "Your answer" in cell.source and cell.source != solved[cell.id]


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_no_notebook_uses_a_name_it_lacks(folder):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--target-version", "py311"]
    notebooks = [str(ROOT / folder / f"{name}.ipynb") for name in NAMES]
    run = subprocess.run([*command, *notebooks], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", MARKED)
def test_the_source_runs_as_a_plain_script(name, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "COURSE_PROFILE": "smoke"}
    command = [sys.executable, str(ROOT / "solutions" / f"{name}.py")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]


# Run all


def execute(source: Path, folder: Path, **environment: str) -> tuple[str, dict[str, str], nbformat.NotebookNode]:
    """Run a notebook in the profile smoke: (id of the cell that failed or "", status of each exercise, result)."""
    result, record = folder / f"executed_{source.name}", folder / "progress.json"
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", "papermill", str(source), str(result), "-k", "python3", "--cwd", str(folder)]
    command += ["--execution-timeout", "600", "--no-progress-bar", "-p", "profile", "smoke", "-p", "seed", "0"]
    inherited = {key: value for key, value in os.environ.items() if key != "COURSE_STRICT"}
    inherited |= {"COURSE_PROGRESS": str(record), **environment}
    start = time.perf_counter()
    run = subprocess.run(command, env=inherited, capture_output=True, text=True, timeout=1500)
    print(f"{source.name}: {time.perf_counter() - start:.0f} s")
    notebook = nbformat.read(result, as_version=4)
    failed = [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code" and any(output.output_type == "error" for output in cell.outputs)
    ]
    assert (run.returncode == 0) == (not failed), run.stderr[-3000:]
    found = json.loads(record.read_text(encoding="utf-8"))
    return (failed or [""])[0], {key: entry["status"] for key, entry in found.items()}, notebook


@pytest.mark.parametrize("name", MARKED)
def test_the_untouched_student_version_runs_to_the_end_and_everything_is_to_do(name, tmp_path):
    failed, statuses, notebook = execute(ROOT / "notebooks" / f"{name}.ipynb", tmp_path)
    assert failed == ""
    assert statuses == {exercise.id: "todo" for exercise in exercises_of(name)}
    assert overview(notebook, name).startswith(f"0 of {len(statuses)} exercises solved")


@each
def test_strictly_the_student_version_stops_at_its_first_exercise(name, tmp_path):
    first = exercises_of(name)[0]
    failed, statuses, notebook = execute(ROOT / "notebooks" / f"{name}.ipynb", tmp_path, COURSE_STRICT="1")
    assert failed == f"check-{first.id.replace('.', '-')}"
    assert statuses == {first.id: "todo"}
    errors = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert [error.ename for error in errors] == ["ExerciseNotSolved"]


@pytest.mark.parametrize("name", MARKED)
def test_strictly_the_solved_version_runs_to_the_end(name, tmp_path):
    failed, statuses, _ = execute(ROOT / "solutions" / f"{name}.ipynb", tmp_path, COURSE_STRICT="1")
    assert failed == ""
    assert statuses == {exercise.id: "passed" for exercise in exercises_of(name)}


@pytest.mark.parametrize("name", MARKED)
def test_a_half_solved_version_runs_and_reports_exactly_that(name, tmp_path):
    notebook, expected = read("notebooks", name), {}
    for number, exercise in enumerate(exercises_of(name), 1):
        [cell] = [one for one in notebook.cells if one.metadata.get("course") == {"exercise": exercise.id}]
        wrong = f"def {exercise.name}(*arguments, **more):\n    return None"
        if isinstance(exercise.reference, type):
            wrong = f"class {exercise.name}:\n    pass"
        cell.source = source_of(exercise) if number % 2 else wrong
        expected[exercise.id] = "passed" if number % 2 else "failed"
    half = tmp_path / f"{name}.ipynb"
    nbformat.write(notebook, half)
    failed, statuses, executed = execute(half, tmp_path)
    assert failed == ""
    assert statuses == expected
    solved = sum(status == "passed" for status in expected.values())
    assert overview(executed, name).startswith(f"{solved} of {len(expected)} exercises solved")


def nbval(notebook: Path, folder: Path, cell_seconds: int = 600) -> subprocess.CompletedProcess:
    """Run a notebook with nbval: it compares the outputs of the cells tagged for it, and ends cells that hang."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--nbval-lax"]
    command += ["--nbval-current-env", "--nbval-cell-timeout", str(cell_seconds)]
    command += ["--rootdir", str(folder), str(notebook)]
    environment = os.environ | {"COURSE_PROGRESS": str(folder / "progress.json"), "COURSE_PROFILE": "smoke"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500)


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@each
def test_nbval_passes(folder, name, tmp_path):
    run = nbval(ROOT / folder / f"{name}.ipynb", tmp_path)
    assert run.returncode == 0, run.stdout[-3000:]


# A part of a stored output, and what it is changed to
PLANTED = {
    "01_data_exploration": ("62", "63"),
    "02_unet": ("31,030,593", "31,030,594"),
    "04_instance_evaluation": ("0.667", "0.668"),
    "05_boundary_watershed": ("0.665", "0.666"),
}


def short_version(name: str, folder: Path, change: tuple[str, str] | None) -> Path:
    """A notebook with nothing but the cells whose stored outputs are compared, and the code that they need."""
    notebook = read("solutions", name)
    last = max(number for number, cell in enumerate(notebook.cells) if cell.get("outputs"))
    notebook.cells = [cell for cell in notebook.cells[: last + 1] if cell.cell_type == "code"]
    if change:
        stored = json.dumps(notebook.cells[-1].outputs)
        assert change[0] in stored, "what is to be changed stands there"
        notebook.cells[-1].outputs = [nbformat.from_dict(one) for one in json.loads(stored.replace(*change))]
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def test_what_must_not_drift_is_compared():
    compared = {
        name: [cell.source for cell in read("solutions", name).cells if cell.get("outputs")] for name in NAMES
    }
    assert {name for name, cells in compared.items() if cells} == set(PLANTED)
    assert "count_shapes" in compared["01_data_exploration"][0]
    assert "count_parameters" in compared["02_unet"][0]
    assert "f1_score" in compared["04_instance_evaluation"][0]
    assert "oracle" in compared["05_boundary_watershed"][0]


@pytest.mark.parametrize("name", ["01_data_exploration", "02_unet"])
def test_nbval_notices_a_changed_output(name, tmp_path):
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.mkdir()
    wrong.mkdir()
    run = nbval(short_version(name, right, None), right)
    assert run.returncode == 0, run.stdout[-3000:]
    run = nbval(short_version(name, wrong, PLANTED[name]), wrong)
    assert run.returncode == 1 and "mismatch" in run.stdout and f"{PLANTED[name][1]}" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["04_instance_evaluation", "05_boundary_watershed"])
def test_nbval_notices_a_changed_output_in_the_longer_ones(name, tmp_path):
    run = nbval(short_version(name, tmp_path, PLANTED[name]), tmp_path)
    assert run.returncode == 1 and PLANTED[name][1] in run.stdout


def test_nbval_ends_a_cell_that_hangs(tmp_path):
    cell = nbformat.v4.new_code_cell("import time\ntime.sleep(1000)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "hanging.ipynb")
    start = time.perf_counter()
    run = nbval(tmp_path / "hanging.ipynb", tmp_path, cell_seconds=3)
    assert run.returncode == 1 and "cell execution failed" in run.stdout
    assert time.perf_counter() - start < 300
