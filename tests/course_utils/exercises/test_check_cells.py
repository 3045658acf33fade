"""Check cells in a notebook: after a failure the student's object is kept as `your_<name>`, and checked again."""

from __future__ import annotations

import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from course_utils.exercises import get_exercise, progress
from workshop.build.stubs import source_of, stub_of

IMPORTS = """
from collections import Counter
from collections.abc import Iterable, Sequence
import numpy as np
import torch
from torch import nn
from course_utils.arguments import *
from course_utils.exercises import check
"""
CELL = 'count_shapes = check("1.1", count_shapes)'
WRONG = "def count_shapes(images):\n    return {'wrong': 1}"
OTHER_WRONG = "def count_shapes(images):\n    return [3]"
RIGHT = "def count_shapes(images):\n    return dict(Counter(image.shape for image in images))"
STUB = "def count_shapes(images):\n    raise NotImplementedError('Exercise 1.1: write it.')"
REFERENCE = get_exercise("1.1").reference


class Notebook:
    """Runs cells in a shell of IPython and returns what they print."""

    def __init__(self, capsys):
        self.shell, self.capsys = InteractiveShell.instance(), capsys
        self.shell.reset(new_session=True)
        self.run(IMPORTS)

    def run(self, source: str) -> str:
        self.capsys.readouterr()
        result = self.shell.run_cell(source)
        result.raise_error()
        return self.capsys.readouterr().out

    def __getitem__(self, name: str):
        return self.shell.user_ns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.shell.user_ns


@pytest.fixture
def notebook(capsys, monkeypatch):
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # a shell puts its own there
    yield Notebook(capsys)
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(("answer", "word"), [(WRONG, "not right yet"), (STUB, "to do")])
def test_after_a_failure_the_object_is_kept_and_checked_again(notebook, answer, word):
    notebook.run(answer)
    own = notebook["count_shapes"]
    said = notebook.run(CELL)
    start = "Write yours" if answer == STUB else "Yours is kept as `your_count_shapes`; edit your cell"
    assert word in said and f"{start}, run it, then run this check again" in said
    assert notebook["count_shapes"] is REFERENCE and notebook["your_count_shapes"] is own
    for _ in range(2):
        again = notebook.run(CELL)
        assert word in again and "Checked was `your_count_shapes`" in again and "run it first" in again
        assert again.splitlines()[1] == said.splitlines()[1]
        assert notebook["count_shapes"] is REFERENCE and notebook["your_count_shapes"] is own


def test_what_was_kept_can_be_debugged_and_mended_in_a_scratch_cell(notebook):
    notebook.run(WRONG)
    notebook.run(CELL)
    notebook.run("assert your_count_shapes([np.ones((2, 3))]) == {'wrong': 1}")
    notebook.run(RIGHT.replace("count_shapes", "your_count_shapes"))
    assert "passed" in notebook.run(CELL)
    assert notebook["count_shapes"] is not REFERENCE and "your_count_shapes" not in notebook


def test_the_cell_run_anew_gives_the_object_that_is_checked(notebook):
    for answer in (WRONG, OTHER_WRONG, STUB, OTHER_WRONG):
        notebook.run(answer)
        own = notebook["count_shapes"]
        assert "Checked was" not in notebook.run(CELL)
        assert notebook["your_count_shapes"] is own
    notebook.run(RIGHT)
    own = notebook["count_shapes"]
    for _ in range(2):
        assert "✔ Exercise 1.1" in notebook.run(CELL)
        assert notebook["count_shapes"] is own and "your_count_shapes" not in notebook
    assert progress.statuses() == {"1.1": "passed"}


def test_another_name_and_no_assignment(notebook):
    notebook.run(WRONG + "\nmine = check('1.1', count_shapes)")
    assert "not right yet" in notebook.run("mine = check('1.1', mine)")
    assert notebook["mine"] is REFERENCE and notebook["your_count_shapes"] is notebook["count_shapes"]
    notebook.run(RIGHT + "\nmine = count_shapes")
    assert "passed" in notebook.run("check('1.1', mine);") and "your_count_shapes" not in notebook


def test_the_reference_itself_is_no_answer(notebook):
    """Also in a new kernel, where nothing is kept."""
    notebook.run("from course_utils.exploration import count_shapes")
    said = notebook.run(CELL)
    assert "to do" in said and "This is the reference" in said and "your_" not in said
    notebook.run("your_count_shapes = count_shapes")
    said = notebook.run(CELL)
    assert "This is the reference" in said and "kept" not in said
    assert progress.statuses() == {}


def test_a_function_that_calls_itself_does_not_call_the_reference_when_it_is_checked_again(notebook):
    """With the help of the reference it would pass."""
    notebook.run("""def count_shapes(images, depth=0):
    return {"wrong": 1} if depth else count_shapes(images, 1)""")
    first, again = notebook.run(CELL), notebook.run(CELL)
    assert first.splitlines()[1] == again.splitlines()[1]
    notebook.run("""def count_shapes(images):
    return count_shapes(images, 1) if count_shapes.__globals__ is globals() else 1 / 0""")
    notebook.run(CELL)
    assert "TypeError" in notebook.run(CELL)


@pytest.mark.parametrize("exercise_id", ["1.7", "2.1", "2.3"])
def test_classes_are_kept_too(notebook, exercise_id):
    exercise = get_exercise(exercise_id)
    notebook.run("class Base:\n    pass")
    notebook.run(f"class {exercise.name}(Base):\n    def __init__(self, *_, **__):\n"
                 f"        super({exercise.name}, self).__init__()\n        raise ValueError('no')")  # fmt: skip
    cell = f'{exercise.name} = check("{exercise_id}", {exercise.name})'
    own = notebook[exercise.name]
    first = notebook.run(cell)
    assert notebook[exercise.name] is exercise.reference and notebook[f"your_{exercise.name}"] is own
    assert notebook.run(cell).splitlines()[1] == first.splitlines()[1]  # super() finds the class under its old name


def test_strict_keeps_it_as_well_and_stops(notebook, monkeypatch):
    monkeypatch.setenv("COURSE_STRICT", "1")
    notebook.run(WRONG)
    own = notebook["count_shapes"]
    with pytest.raises(Exception, match="Exercise 1.1 is failed"):
        notebook.run(CELL)
    assert notebook["count_shapes"] is own is notebook["your_count_shapes"]


@pytest.mark.parametrize("exercise_id", ["1.1", "2.4"])
def test_stub_then_solution_as_students_meet_them(notebook, exercise_id):
    exercise = get_exercise(exercise_id)
    cell = f'{exercise.name} = check("{exercise_id}", {exercise.name})'
    notebook.run(stub_of(exercise))
    assert "○" in notebook.run(cell) and f"your_{exercise.name}" in notebook
    notebook.run(source_of(exercise))
    assert "✔" in notebook.run(cell) and f"your_{exercise.name}" not in notebook
