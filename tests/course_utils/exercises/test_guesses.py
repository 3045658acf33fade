"""A guess before the measurement: asked for, kept, compared at once."""

from __future__ import annotations

import json
import re

import IPython
import numpy as np
import pandas as pd
import pytest
from ipywidgets import Widget

from course_utils import display
from course_utils.exercises import guesses, progress
from course_utils.exercises.feedback import CheckResult

F1 = {"question": "Which F1?", "low": 0.0, "high": 1.0}


class Notebook:
    """Stands for the notebook: what is shown, widgets apart, and replaced when it is updated in place."""

    def __init__(self):
        self.outputs, self.widgets = [], []

    def __call__(self, content, raw=False, display_id=False):
        if isinstance(content, Widget):
            self.widgets.append(content)
            return None
        self.outputs.append(content)
        handle, place = Notebook(), len(self.outputs) - 1
        handle.update = lambda content, raw: self.outputs.__setitem__(place, content)
        return handle

    def answer(self, value) -> str:
        """Choose a value, press the button; what is said beside it."""
        control, row = self.widgets[-1].children
        control.value = value
        row.children[0].click()
        return row.children[1].value

    @property
    def page(self) -> str:
        return self.outputs[-1]["text/html"]


def new_kernel():
    for kept in (guesses._asked, guesses._shown, guesses._unwritten):
        kept.clear()


@pytest.fixture
def notebook(monkeypatch) -> Notebook:
    notebook = Notebook()
    new_kernel()
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", notebook)
    return notebook


def test_a_guess_is_compared_with_the_measurement(notebook):
    guesses.ask("a", **F1)
    assert "Which F1?" in notebook.page
    assert "0.95" in notebook.answer(0.95)
    guesses.compare("a", np.float64(0.90123), "Few pixels matter.")
    said = "You guessed 0.95. Your guess is 0.0488 too high. Measured: 0.901. Few pixels matter."
    assert notebook.outputs[-1]["text/plain"] == said and said in notebook.page
    assert "<svg" in notebook.page and "<details>" not in notebook.page


def test_without_a_guess_the_measurement_is_folded_and_opens_in_place_when_one_is_made_or_changed(notebook):
    guesses.ask("a", **F1)
    guesses.compare("a", 0.9)
    assert "<details>" in notebook.page and "<details open" not in notebook.page and "Measured: 0.9." in notebook.page
    notebook.answer(0.5)
    assert "You guessed 0.5. Your guess is 0.4 too low." in notebook.page and "<details>" not in notebook.page
    notebook.answer(0.9)
    assert "Your guess is right." in notebook.page and len(notebook.outputs) == 2


def test_a_table_that_tells_the_answer_is_folded_with_the_measurement(notebook):
    table = pd.DataFrame({"F1": [0.87654]}, index=["exact target"]).style.format("{:.2f}")
    guesses.ask("a", **F1)
    guesses.compare("a", 0.9, table=table)
    assert re.search(r"<details>.*Measured: 0.9..*0\.88.*</details>", notebook.page, re.DOTALL)
    assert "exact target  0.877" in notebook.outputs[-1]["text/plain"]
    notebook.answer(0.5)
    assert "You guessed 0.5." in notebook.page and "0.88" in notebook.page and "<details>" not in notebook.page


def test_a_choice_has_no_first_value_and_says_whether_it_is_right(notebook):
    guesses.ask("a", "Which?", options=["erode", "cut <b>"])
    assert notebook.answer(None) == "Choose one first."
    assert progress.guesses() == {}
    notebook.answer("erode")
    guesses.compare("a", "cut <b>")
    assert "You guessed erode. Your guess is wrong. Measured: cut &lt;b&gt;." in notebook.page
    notebook.answer("cut <b>")
    assert "Your guess is right." in notebook.page


def test_a_guess_outlives_the_kernel_also_where_only_the_second_cell_is_run_again(notebook):
    guesses.ask("a", "How wide?", 0, 300, unit="pixels")
    notebook.answer(100)
    new_kernel()
    guesses.compare("a", 140)
    assert "You guessed 100." in notebook.page
    guesses.ask("a", "How wide?", 0, 300, unit="pixels")
    control, row = notebook.widgets[-1].children
    assert control.value == 100 and "100 pixels" in row.children[1].value


def test_guesses_and_results_of_checks_stay_beside_each_other(notebook):
    progress.note(CheckResult("1.1", "passed"))
    guesses.ask("status", "Which?", options=["passed", "failed"])
    notebook.answer("passed")
    progress.note(CheckResult("1.2", "failed"))
    assert progress.statuses() == {"1.1": "passed", "1.2": "failed"} and progress.guesses() == {"status": "passed"}


@pytest.mark.parametrize("record", ['{"guesses": 3}', '{"guesses": {"a": "x"}}', '{"guesses": {"a": 7}}', "[", "3"])
def test_a_damaged_record_has_no_guess_and_takes_a_new_one(notebook, record):
    progress.record_file().write_text(record)
    guesses.ask("a", **F1)
    guesses.compare("a", 0.9)
    assert "<details>" in notebook.page and progress.statuses() == {}
    notebook.answer(0.25)
    assert json.loads(progress.record_file().read_text())["guesses"] == {"a": 0.25}
    assert "You guessed 0.25." in notebook.page


def test_where_the_record_cannot_be_written_the_guess_lasts_as_long_as_the_kernel(notebook, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    guesses.ask("a", **F1)
    assert "cannot be written" in notebook.answer(0.5)
    guesses.compare("a", 0.9)
    assert "You guessed 0.5." in notebook.page
    new_kernel()
    guesses.compare("a", 0.9)
    assert "<details>" in notebook.page


def test_outside_a_notebook_question_and_measurement_are_text(capsys):
    new_kernel()
    guesses.ask("a", "How wide?", 0, 300, unit="pixels")
    guesses.compare("a", np.int64(140))
    assert capsys.readouterr().out == "Predict: How wide? (0 to 300 pixels)\nMeasured: 140 pixels.\n"


@pytest.mark.parametrize("measured", [float("nan"), 1e9, -5, 0])
def test_a_measurement_outside_the_range_is_shown_too(notebook, measured):
    guesses.ask("a", "How many?", 0, 10)
    notebook.answer(0)
    guesses.compare("a", measured)
    assert f"Measured: {measured:,.0f}." in notebook.page


@pytest.mark.parametrize("range_", [{}, {"low": 1}, {"low": 1, "high": 1}, {"options": ["one"]}])
def test_a_question_needs_a_range_or_a_choice(range_):
    with pytest.raises(ValueError, match="low < high or at least two options"):
        guesses.ask("a", "How many?", **range_)
