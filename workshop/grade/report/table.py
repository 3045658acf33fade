"""What grading found, as tables: a CSV file for spreadsheets, and students by exercises for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_utils.exercises import list_exercises
from workshop.grade.spreadsheets import cell, spreadsheet_safe, write_sheet

COLUMNS = ["student", "notebook", "exercise", "name", "status", "points", "out_of", "look", "message", "file"]
SYMBOLS = {"passed": "+", "failed": "x", "todo": ".", "broken": "!"}  # the best first
MAX_SHOWN_NAME = 30  # characters, in the terminal


@dataclass(frozen=True)
class Outcome:
    """The result of an exercise, or of one step of a notebook.

    `timed_out`: a time limit stopped its code, or code it uses. `look`: why a person should look at it. `parts`: how
    many parts of the check are right, and of how many; (0, 0) if nothing is known about parts.
    """

    status: str = "failed"
    message: str = ""
    timed_out: bool = False
    look: str = ""
    parts: tuple[int, int] = (0, 0)

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))  # JSON has made a list of it


@dataclass(frozen=True)
class Row(Outcome):
    """One line of the table: the outcome of an exercise, or "broken" for a file that cannot be graded at all."""

    notebook: str = ""
    exercise: str = ""
    name: str = ""
    student: str = ""
    file: str = ""
    points: float = 0.0
    out_of: float = 0.0


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the table in one step. Raises `OSError` if that is not possible."""
    lines = ([cell(getattr(row, column)) for column in COLUMNS] for row in rows)
    write_sheet(path, [COLUMNS, *lines], encoding="utf-8")


def best_rows(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """(student, exercise) -> its row; of two files with the same exercise by one student the better result."""
    order = list(SYMBOLS)
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        known = found.get((row.student, row.exercise))
        if row.exercise and (known is None or _rank(row, order) < _rank(known, order)):
            found[row.student, row.exercise] = row
    return found


def _rank(row: Row, order: list[str]) -> tuple[float, int]:
    return -row.points, order.index(row.status)


def summary(rows: Sequence[Row]) -> str:
    """Students and exercises as a table: `+` passed, `x` failed, `.` todo, `!` could not be graded.

    A column for each notebook and a character for each exercise, so that a class of any size and all exercises fit into
    a terminal. The columns `!` and `look` count what could not be graded and what a person should look at. Points are
    out of those for every exercise that anybody in the class handed in.
    """
    best = best_rows(rows)
    handed_in = {exercise for _, exercise in best}
    notebooks: dict[str, list[str]] = {}
    for exercise in list_exercises():
        if exercise.id in handed_in:
            notebooks.setdefault(exercise.notebook[:2], []).append(exercise.id)
    table = [["student", *notebooks, "passed", "points", "!", "look"]]
    maximum: dict[str, float] = {}
    for (_, exercise), row in best.items():
        maximum[exercise] = max(row.out_of, maximum.get(exercise, 0))
    out_of = cell(sum(maximum.values()))
    table.append(["", *("".join(id_.split(".")[-1][-1] for id_ in ids) for ids in notebooks.values()), *[""] * 4])
    for student in sorted({row.student for row in rows}):
        own = {exercise: row for (who, exercise), row in best.items() if who == student}
        lines = [row for row in rows if row.student == student]
        marks = ["".join(SYMBOLS[own[id_].status] if id_ in own else " " for id_ in ids) for ids in notebooks.values()]
        points = cell(sum(row.points for row in own.values()))
        numbers = [sum(row.status == "passed" for row in own.values()), f"{points}/{out_of}",
                   sum(row.status == "broken" for row in lines), sum(bool(row.look) for row in lines)]  # fmt: skip
        table.append([spreadsheet_safe(student)[:MAX_SHOWN_NAME], *marks, *(str(number) for number in numbers)])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    shown = "\n".join("  ".join(f"{text:{n}}" for text, n in zip(line, widths, strict=True)).rstrip() for line in table)
    passed = Counter(exercise for (_, exercise), row in best.items() if row.status == "passed")
    counts = "\n".join(
        f"passed in {name}: " + ", ".join(f"{id_} {passed[id_]}" for id_ in ids) for name, ids in notebooks.items()
    )
    return f"\n{shown}\n\n{counts}\n\n+ passed   x failed   . todo   ! could not be graded   points: of exercises"
