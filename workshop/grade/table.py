"""What grading says about every exercise: a CSV file for spreadsheets, and a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_utils.exercises import list_exercises
from course_utils.results import replacing

COLUMNS = ["student", "notebook", "exercise", "name", "status", "message", "file"]
SYMBOLS = {"passed": "+", "failed": "x", "todo": ".", "broken": "!"}
MAX_MESSAGE = 600


class GradingError(ValueError):
    """Grading cannot start or its table cannot be written; the text says in one sentence what to do."""


@dataclass(frozen=True)
class Row:
    """One line of the table. For a notebook that cannot be graded at all, `exercise` and `name` are empty."""

    student: str
    notebook: str
    exercise: str
    name: str
    status: str
    message: str
    file: str


def _write(out: Path, rows: Sequence[Row] | None) -> None:
    """Write the CSV file in one step; with None, only see whether that is possible."""
    try:
        if rows is None:
            with out.open("a", encoding="utf-8"):
                pass
            if out.stat().st_size == 0:
                out.unlink()
            return
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([spreadsheet_safe(str(getattr(row, column))) for column in COLUMNS] for row in rows)
        with replacing(out) as file:
            file.write(text.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise GradingError(
            f"{out} cannot be written ({error.strerror}); close it elsewhere or name another --out, and start again: "
            "finished results are kept."
        ) from error


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
    best: dict[tuple[str, str], str] = {}
    for row in rows:
        known = best.get((row.student, row.exercise), "broken")
        best[row.student, row.exercise] = min(known, row.status, key=order.index)
    present = {row.exercise for row in rows}
    ids = [exercise.id for exercise in list_exercises() if exercise.id in present]
    lines = [["student", *ids, *order]]
    for student in sorted({row.student for row in rows}):
        states = [best.get((student, id_), "") for id_ in ids]
        states += ["broken" for row in rows if row.student == student and not row.exercise]  # whole files
        counts = [str(states.count(status)) for status in order]
        lines.append([_shown(student), *(SYMBOLS.get(state, "") for state in states[: len(ids)]), *counts])
    passed = [sum(state == "passed" for (_, id_), state in best.items() if id_ == one) for one in ids]
    lines.append(["passed", *map(str, passed), *("" for _ in order)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = "\n".join(
        " ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    )
    return f"\n{table}\n\n+ passed   x failed   . todo   ! could not be graded"


def _shown(student: str) -> str:
    """A student's name for the terminal, without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in student)[:30]
