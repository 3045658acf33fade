"""What grading found, as tables: a CSV file for spreadsheets, and students by exercises for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from course_utils.exercises import list_exercises
from course_utils.results import replacing
from workshop.grade.worker import Outcome

COLUMNS = ["student", "notebook", "exercise", "name", "status", "message", "file"]
SYMBOLS = {"passed": "+", "failed": "x", "todo": ".", "broken": "!"}  # the best first
MAX_MESSAGE = 600  # characters
MAX_SHOWN_NAME = 30  # characters, in the terminal


@dataclass(frozen=True)
class Row(Outcome):
    """One line of the table: the outcome of an exercise, or "broken" for a notebook that cannot be graded at all."""

    notebook: str = ""
    exercise: str = ""
    name: str = ""
    student: str = ""
    file: str = ""


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the table in one step. Raises `OSError` if that is not possible."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([spreadsheet_safe(getattr(row, column)) for column in COLUMNS] for row in rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode(errors="backslashreplace"))


def spreadsheet_safe(text: str) -> str:
    """A text on one line that no spreadsheet takes for a formula.

    >>> spreadsheet_safe("=1+1")
    "'=1+1"
    """
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    text = text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else text


def summary(rows: Sequence[Row]) -> str:
    """Students and exercises as a table: `+` passed, `x` failed, `.` todo, `!` could not be graded.

    Of two files with the same exercise by one student the better result is shown. Files that could not be graded at all
    are counted in the last column.
    """
    order = list(SYMBOLS)
    found = pd.DataFrame(rows, dtype=object).sort_values("status", key=lambda column: column.map(order.index))
    best = found[found["exercise"] != ""].drop_duplicates(["student", "exercise"])
    counted = pd.concat([best, found[found["exercise"] == ""]])
    counts = pd.crosstab(counted["student"], counted["status"]).reindex(columns=order, fill_value=0)
    status = best.pivot(index="student", columns="exercise", values="status").reindex(counts.index)
    status = status[[exercise.id for exercise in list_exercises() if exercise.id in status]]
    table = status.replace(SYMBOLS).fillna("").join(counts.astype(str))
    table.index = [spreadsheet_safe(student)[:MAX_SHOWN_NAME] for student in table.index]
    passed = (status == "passed").sum().astype(str).reindex(table.columns, fill_value="")
    table = pd.concat([table, passed.to_frame("passed").T]).rename_axis(columns="student")
    return f"\n{table.to_string()}\n\n+ passed   x failed   . todo   ! could not be graded"
