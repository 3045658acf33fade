"""What students get gives no solution and no model answer away, and a planted one is found."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from course_utils.exercises import list_exercises
from workshop.build import find_problems, read_cells, to_notebook
from workshop.build.leaks import MIN_CHARACTERS, find_leaks, hidden_lines, reduced, secrets_of, telling_runs
from workshop.build.stand_alone import stand_alone
from workshop.build.stubs import source_of, stub_of
from workshop.build.versions import solved, student

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = sorted((REPOSITORY / "solutions").glob("*.py"))
EXERCISES = list_exercises()


def secrets() -> list[tuple[str, list[str]]]:
    """Of all notebooks together: what one teaches is not to be read in another."""
    return [secret for path in SOURCES for secret in secrets_of(read_cells(path), EXERCISES)]


def solution_secrets(exercise) -> list[tuple[str, list[str]]]:
    groups = hidden_lines(source_of(exercise), stub_of(exercise))
    return [(f"exercise {exercise.id}", telling_runs(groups))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_given_away_in_the_student_version(path):
    notebook = to_notebook(student(read_cells(path), EXERCISES))
    own = secrets_of(read_cells(path), EXERCISES)
    runs = sum(len(runs) for _, runs in own)
    print(f"{path.stem}: {len(own)} secrets, {runs} telling runs")
    assert runs > 20
    assert find_leaks(notebook, own) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_given_away_in_the_visible_cells_for_kaggle(path):
    notebook = to_notebook(stand_alone(read_cells(path), EXERCISES, path))
    folded = notebook.cells.pop(0)
    assert folded.metadata["jupyter"]["source_hidden"] and folded.metadata["course"] == {"setup": "package"}
    assert find_leaks(notebook, secrets_of(read_cells(path), EXERCISES)) == []


def test_no_model_answer_and_no_solution_stands_in_a_notebook_before_its_own():
    """A later notebook may use what an earlier one taught; the other way round is a leak."""
    for number, path in enumerate(SOURCES):
        notebook = to_notebook(student(read_cells(path), EXERCISES))
        later = [secret for other in SOURCES[number + 1 :] for secret in secrets_of(read_cells(other), EXERCISES)]
        assert find_leaks(notebook, later) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_secret_is_found_in_the_solved_version(path):
    notebook = to_notebook(solved(read_cells(path), EXERCISES))
    for what, runs in secrets_of(read_cells(path), EXERCISES):
        for run in runs:
            assert find_leaks(notebook, [(what, [run])]), (what, run)


# Planted leaks


def empty() -> dict:
    return {
        "cells": [
            {"cell_type": "markdown", "id": "text", "metadata": {}, "source": "Some text."},
            {"cell_type": "code", "id": "code", "metadata": {}, "source": "x = 1", "outputs": []},
        ],
        "metadata": {},
    }


def in_a_text(notebook, code):
    notebook["cells"][0]["source"] += f"\n\n```python\n{code}\n```\n"


def in_a_quotation(notebook, code):
    notebook["cells"][0]["source"] += "\n" + textwrap.indent(code, "> * ")


def in_inline_code(notebook, code):
    notebook["cells"][0]["source"] += "\n" + "\n".join(f"`{line.strip()}`" for line in code.split("\n"))


def in_code(notebook, code):
    notebook["cells"][1]["source"] += "\n\n\n" + code


def commented_out(notebook, code):
    notebook["cells"][1]["source"] += "\n" + textwrap.indent(code, "# ", lambda line: True)


def indented_with_remarks(notebook, code):
    rows = [f"        {row}  # step" if row.strip() else row for row in code.split("\n")]
    notebook["cells"][1]["source"] += "\nif x:\n" + "\n\n".join(rows)


def in_metadata(notebook, code):
    notebook["cells"][1]["metadata"]["course"] = {"solution": code}


def in_metadata_of_the_notebook(notebook, code):
    notebook["metadata"]["authors"] = [{"note": code}]


def in_an_output(notebook, code):
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": code.splitlines(True)}]


PLANTS = [
    in_a_text, in_a_quotation, in_inline_code, in_code, commented_out, indented_with_remarks, in_metadata,
    in_metadata_of_the_notebook, in_an_output,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_a_planted_body_is_found(exercise, plant):
    notebook = empty()
    assert find_leaks(notebook, solution_secrets(exercise)) == []
    body = "\n".join(line for group in hidden_lines(source_of(exercise), stub_of(exercise)) for line in group)
    plant(notebook, body)
    assert find_leaks(notebook, solution_secrets(exercise))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_every_telling_line_is_found_alone(exercise):
    stub = {reduced(line) for line in stub_of(exercise).split("\n")}
    count = 0
    for line in source_of(exercise).split("\n"):
        code = line.split("  #")[0]
        if len(reduced(code)) < MIN_CHARACTERS or reduced(line) in stub:
            continue
        for plant in PLANTS:
            notebook = empty()
            plant(notebook, line)
            assert find_leaks(notebook, solution_secrets(exercise)), (plant.__name__, line)
        count += 1
    print(exercise.id, count, "telling lines")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_line_of_a_model_answer_is_found(path):
    for cell in read_cells(path):
        if "answer" not in cell.markers:
            continue
        for line in cell.source.split("\n"):
            if len(reduced(line)) < MIN_CHARACTERS:
                continue
            notebook = empty()
            notebook["cells"][0]["source"] += f" As we know, {line.lstrip('* ')} That is all."
            assert find_leaks(notebook, secrets_of([cell], EXERCISES)), line


def test_short_lines_count_only_with_their_neighbours():
    groups = [["x = self.up(x)", "else:", "    return x"], ["return 2"]]
    runs = telling_runs(groups)
    assert runs == ["x=self.up(x)else:returnx"]
    harmless = empty()
    harmless["cells"][1]["source"] = "if y:\n    x = self.up(x)\nelse:\n    x = 2\nreturn x"
    assert find_leaks(harmless, [("it", runs)]) == []
    harmful = empty()
    harmful["cells"][1]["source"] = "    x = self.up(x)  # up\n\n# else:\n        return x"
    assert len(find_leaks(harmful, [("it", runs)])) == 1


def test_a_short_body_counts_as_a_whole():
    assert telling_runs([["return self.layers(x)"]]) == ["returnself.layers(x)"]
    assert telling_runs([["return x"]]) == []


def test_what_is_assigned_or_returned_counts_without_the_name():
    solution = "def f(a):\n    b = sum(value * weight for value, weight in zip(a, range(9)))\n    return b"
    stub = "def f(a):\n    raise NotImplementedError"
    notebook = empty()
    notebook["cells"][1]["source"] = "print(sum(value * weight for value, weight in zip(a, range(9))))"
    assert find_leaks(notebook, [("it", telling_runs(hidden_lines(solution, stub)))])


def test_comments_of_a_solution_are_secrets_too():
    solution = "def f(a):\n    # the upper bound is exclusive\n    return a + 1  # so that the last start is possible"
    runs = telling_runs(hidden_lines(solution, "def f(a):\n    raise NotImplementedError"))
    for remark in ("the upper bound is exclusive", "so that the last start is possible"):
        notebook = empty()
        notebook["cells"][0]["source"] = f"Note: {remark}."
        assert find_leaks(notebook, [("it", runs)]), remark


def test_lines_of_the_stub_are_no_secrets():
    head = 'def f(image, mask, threshold=0.5):\n    """Do it as is described here."""\n'
    solution = head + "    return image * mask * threshold"
    assert hidden_lines(solution, head + "    raise NotImplementedError") == [["    return image * mask * threshold"]]


def test_a_leak_names_its_cell_and_what_it_is():
    notebook = empty()
    in_an_output(notebook, "return self.layers(x)")
    [leak] = find_leaks(notebook, [("a line of the solution of exercise 2.1", ["returnself.layers(x)"])])
    assert leak == "cell code holds a line of the solution of exercise 2.1: 'returnself.layers(x)'"


def test_notebooks_as_json_are_read_as_well():
    exercise = EXERCISES[0]
    notebook = json.loads(json.dumps(to_notebook(solved(read_cells(SOURCES[0]), EXERCISES))))
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    assert find_leaks(notebook, solution_secrets(exercise))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_build_stops_at_a_leak_planted_in_a_real_source(path, tmp_path):
    """A hint of the last exercise is replaced by the last line of its solution."""
    text = path.read_text(encoding="utf-8")
    exercise = [exercise for exercise in EXERCISES if exercise.notebook == path.stem][-1]
    line = max((line for group in hidden_lines(source_of(exercise), stub_of(exercise)) for line in group), key=len)
    start = text.rindex("<summary>Hint 1</summary>") + len("<summary>Hint 1</summary>\n#\n# ")
    (tmp_path / "solutions").mkdir()
    copy = tmp_path / "solutions" / path.name
    copy.write_text(text[:start] + f"`{line.strip()}` " + text[start:], encoding="utf-8")
    found = [problem for problem in find_problems(copy, EXERCISES) if "for students, cell" in problem.reason]
    assert found and all(f"exercise {exercise.id}" in problem.reason for problem in found)
    cell_line = text[:start].count("\n") + 1
    assert all(0 < problem.line <= cell_line for problem in found)
