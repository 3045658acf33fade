"""The model answer is shown after the student's own; where that cannot be, the cell says what to do."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_utils.exercises import questions
from course_utils.exercises.questions import FRAME, model_answer, read_questions
from workshop.build.versions import OWN_ANSWER

CELLS = [
    {"id": f"{mark}-1a", "cell_type": kind, "metadata": {"course": {mark: "1a"}}, "source": source}
    for mark, kind, source in [
        ("question", "markdown", "**Question 1a.** Why?"),
        ("answer", "markdown", OWN_ANSWER),
        ("model", "code", 'model_answer("1a")'),
    ]
]
CELLS += [{"id": "markdown-0123456789ab", "cell_type": "markdown", "metadata": {}, "source": "## The next section"}]
SOURCE = '# %% [markdown] question="1a"\n# **Question 1a.** Why?\n\n# %% [markdown] answer="1a"\n# Because *of* this.\n'
ANSWERED = "✔ Question 1a: answered"
NOT_YET = "○ Question 1a: no answer yet"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """The folder in which the notebook runs, of a course that has its solutions; no editor names the notebook."""
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "01_one.py").write_text(SOURCE)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(questions, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return tmp_path / "notebooks"


def saved(file: Path, answer: str | None = None, change=lambda cells: None) -> Path:
    cells = copy.deepcopy(CELLS)
    if answer is not None:
        cells[1]["source"] = OWN_ANSWER.replace("*Double-click here, and write in place of this line.*", answer)
    change(cells)
    file.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return file


def said(capsys, *arguments) -> str:
    model_answer(*(arguments or ("1a",)))
    return capsys.readouterr().out


def test_the_untouched_notebook_shows_no_model_answer(here, capsys):
    saved(here / "01_one.ipynb")
    text = said(capsys)
    assert text.startswith(NOT_YET) and "in 01_one.ipynb, as it was last saved" in text and "save the notebook" in text
    assert 'model_answer("1a", """...""")' in text and "Because" not in text


def test_after_an_answer_was_typed_and_saved_the_model_answer_is_shown(here, capsys):
    saved(here / "01_one.ipynb", "Crop.")
    text = said(capsys)
    assert text.startswith(ANSWERED) and "kept in 01_one.ipynb" in text and text.endswith("Because *of* this.\n")


@pytest.mark.parametrize("change", [
    lambda cells: cells[1].update(source="Crop."),
    lambda cells: cells[1].update(source=["Cro", "p."], metadata={}),
    lambda cells: cells[1].update(source="Crop.", id="other"),
    lambda cells: cells.insert(2, {"id": "own", "cell_type": "markdown", "metadata": {}, "source": "Crop."}),
    lambda cells: cells.insert(3, {"cell_type": "raw", "metadata": {}, "source": "Crop."}),
    lambda cells: cells.insert(1, {**copy.deepcopy(cells[1]), "source": "Crop."}),
])  # fmt: skip
def test_an_answer_is_found_however_the_cell_for_it_was_changed(here, capsys, change):
    saved(here / "01_one.ipynb", change=change)
    assert said(capsys).startswith(ANSWERED)


def test_what_stands_elsewhere_is_no_answer(here, capsys):
    note = {"cell_type": "markdown", "metadata": {}, "source": "A note far from any question."}
    saved(here / "01_one.ipynb", change=lambda cells: cells.append(note))
    assert said(capsys).startswith(NOT_YET)


def test_an_answer_typed_into_the_cell_needs_no_file(capsys):
    text = said(capsys, "1a", "Crop.")
    assert text.startswith(ANSWERED) and "Write it into the cell above, too" in text and "Because *of* this." in text
    assert said(capsys, "1a", "  ").startswith(NOT_YET)


def test_a_notebook_that_was_never_saved_or_has_no_file_is_told_to_be_saved(capsys):
    text = said(capsys)
    assert text.startswith(NOT_YET) and "No saved notebook with this question was found" in text


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"cells": [', b"[]", b'{"cells": 5}', b'{"cells": [5]}'])
def test_a_damaged_notebook_is_told_like_one_that_is_not_there(here, capsys, content):
    (here / "01_one.ipynb").write_bytes(content)
    assert "No saved notebook with this question was found" in said(capsys)


def test_jupyter_says_which_of_several_copies_runs(here, capsys, monkeypatch, tmp_path):
    saved(here / "01_one-Copy1.ipynb", "Crop.")
    monkeypatch.setenv("JPY_SESSION_NAME", str(saved(here / "01_one.ipynb")))
    assert said(capsys).startswith(NOT_YET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JPY_SESSION_NAME", str(here / "01_one-Copy1.ipynb"))
    assert said(capsys).startswith(ANSWERED), "in whatever folder the kernel is"


def test_vs_code_says_it_in_a_variable(here, capsys, monkeypatch, tmp_path):
    names = {"__vsc_ipynb_file__": str(saved(here / "01_one.ipynb", "Crop."))}
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(user_ns=names))
    monkeypatch.chdir(tmp_path)
    assert said(capsys).startswith(ANSWERED)


def test_a_renamed_notebook_is_found_where_it_was(here, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JPY_SESSION_NAME", str(here / "01_old_name.ipynb"))
    monkeypatch.chdir(tmp_path)
    old, new = saved(here / "01_backup.ipynb", "Pad."), saved(here / "01_kim.ipynb", "Crop.")
    os.utime(old, (1, 1))
    saved(here / "02_two.ipynb", change=lambda cells: cells.clear())
    assert f"kept in {new.name}" in said(capsys)


def test_a_copy_without_solutions_says_who_has_them(here, capsys):
    (here.parent / "solutions" / "01_one.py").unlink()
    saved(here / "01_one.ipynb", "Crop.")
    text = said(capsys)
    assert text.startswith(ANSWERED) and "kept in 01_one.ipynb" in text and "your instructor has them" in text


def test_a_question_that_does_not_exist_is_told_those_that_do(capsys):
    assert "There is no question '9z'; there are 1a." in said(capsys, "9z", "Crop.")


def test_in_a_notebook_it_is_a_box_and_the_model_answer_is_rendered(here, monkeypatch):
    shown = []
    monkeypatch.setattr(questions, "in_notebook", lambda: True)
    monkeypatch.setattr(questions, "show_box", lambda box, text: shown.append(box))
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data["text/markdown"]))
    model_answer("1a", "<script>")
    assert "✔ Question 1a: answered" in shown[0] and "<script>" not in shown[0]
    assert shown[1] == "**Model answer**\n\nBecause *of* this."


def test_every_question_of_the_course_has_its_model_answer():
    known = read_questions(Path(__file__).resolve().parents[3] / "solutions")
    assert len(known) == 28 and all(len(one.answer) > 100 and not FRAME.search(one.answer) for one in known.values())
