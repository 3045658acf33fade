"""The record of the checks and its overview; the checks work without it."""

from __future__ import annotations

import json

import pytest
from bs4 import BeautifulSoup

from course_utils.exercises import ExerciseNotSolved, check, feedback, list_exercises
from course_utils.exercises.feedback import CheckResult
from course_utils.exercises.progress import note, record_file, show_overview, statuses
from course_utils.exercises.registry import get_exercise


def not_yet(*arguments):
    raise NotImplementedError("Exercise 1.1")


def count(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_the_reference_is_not_taken_for_a_solution(monkeypatch, capsys):
    """A failed check returns it in place of the student's object, and running the check cell again must not pass."""
    left = check("1.1", lambda images: {})
    capsys.readouterr()
    assert check("1.1", left) is left
    assert "○ Exercise 1.1" in (printed := capsys.readouterr().out) and "Run the cell with your answer first" in printed
    assert statuses() == {"1.1": "failed"}
    monkeypatch.setenv("COURSE_STRICT", "1")
    with pytest.raises(ExerciseNotSolved, match="This is the reference"):
        check("1.1", left)


def test_each_test_has_its_own_record(tmp_path):
    assert record_file().name == "progress.json"
    assert tmp_path.parent in record_file().parents
    assert statuses() == {}


def test_without_the_variable_it_is_in_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("COURSE_PROGRESS")
    assert record_file().parts[-2:] == ("course-utils", "progress.json")


def test_the_last_result_of_each_exercise_is_remembered():
    note(CheckResult("1.1", "failed", ("no",)))
    note(CheckResult("3.2", "passed", ("Right.",)))
    note(CheckResult("1.1", "passed", ("Right.",)))
    assert statuses() == {"1.1": "passed", "3.2": "passed"}
    assert json.loads(record_file().read_text())["1.1"]["checked"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"1.1": 1}', '{"1.1": {}}', '{"1.1": {"status": []}}'])
def test_a_damaged_record_counts_as_empty_and_is_replaced(content):
    record_file().write_text(content)
    assert statuses() == {}
    note(CheckResult("2.1", "todo", ("",)))
    assert statuses()["2.1"] == "todo"


def test_deleting_it_loses_nothing_but_the_overview(capsys):
    assert check("2.4", count) is count
    record_file().unlink()
    assert check("2.4", count) is count
    assert statuses() == {"2.4": "passed"}


def test_a_place_that_cannot_be_written_does_not_matter(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert check("2.4", count) is count
    assert "✔ Exercise 2.4" in capsys.readouterr().out


def test_an_unsolved_exercise_gives_the_reference_or_with_strict_an_error(monkeypatch, capsys):
    assert check("1.1", not_yet) is get_exercise("1.1").reference
    printed = capsys.readouterr().out
    assert "○ Exercise 1.1, count_shapes: to do" in printed
    assert "From here on the notebook uses the reference `count_shapes`. Edit your cell, run it, then run" in printed
    assert check("1.1", lambda images: 3) is get_exercise("1.1").reference
    assert "✘ Exercise 1.1, count_shapes: not right yet" in capsys.readouterr().out
    monkeypatch.setenv("COURSE_STRICT", "1")
    with pytest.raises(ExerciseNotSolved, match="Exercise 1.1 is todo"):
        check("1.1", not_yet)


def test_the_overview_lists_one_notebook_or_all(capsys):
    note(CheckResult("1.1", "passed", ("Right.",)))
    note(CheckResult("2.1", "failed", ("no",)))
    show_overview("02_unet")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 5 exercises solved"
    assert lines[1] == f"  ✘ 2.1 {get_exercise('2.1').title}: not right yet"
    show_overview()
    text = capsys.readouterr().out
    assert text.startswith(f"1 of {len(list_exercises())} exercises solved")
    assert all(exercise.title in text for exercise in list_exercises())


def test_in_a_notebook_the_verdict_is_an_accessible_box(monkeypatch):
    shown = []
    monkeypatch.setattr(feedback, "show_box", lambda box, text: shown.append((box, text)))
    check("1.1", lambda images: "<script>")
    [(box, text)] = shown
    assert 'role="status"' in box and "✘" in box and "not right yet" in box and "#D55E00" in box
    assert "<script>" not in box  # what a student returns is quoted, never executed


def test_in_a_notebook_it_is_one_list_in_which_the_other_notebooks_are_folded(monkeypatch):
    shown = []
    monkeypatch.setattr("course_utils.exercises.progress.show_box", lambda box, text: shown.append(box))
    note(CheckResult("1.1", "passed", ("Right.",)))
    show_overview("03_binary_training")
    show_overview()
    one, all_open = (BeautifulSoup(box, "html.parser") for box in shown)
    parts = one.find_all("details")
    assert [part.summary.text.split(":")[0] for part in parts if part.has_attr("open")] == ["03 binary training"]
    assert len(parts) == len({exercise.notebook for exercise in list_exercises()})
    assert "1 of 7 exercises solved" in parts[0].summary.text and "✔ passed" in parts[0].table.text
    assert one.p.text == f"The whole course: 1 of {len(list_exercises())} exercises solved"
    assert all(part.has_attr("open") for part in all_open.find_all("details"))
