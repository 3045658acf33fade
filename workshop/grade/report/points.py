"""Points: what each exercise and question is worth (`course.toml`), and what each student has.

    default = "difficulty"    # or a number; left out, an exercise has 1 point and a question 0
    partial = true            # points for the parts of a check that are right; left out: all or nothing
    late = 0.8                # the share of its points that a late file keeps; left out: 1

    [points]
    "1.7" = 4
    "1a" = 2                  # a question: marked by hand in questions.csv

    [weights]
    "02_unet" = 0.5           # every point of this notebook counts half
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from course_utils.exercises import list_exercises
from workshop.grade.report.table import Row, best_rows
from workshop.paths import checkout

FILE = "course.toml"
MAX_POINTS = 10_000
KEYS = ("default", "partial", "late", "points", "weights")


class PointsError(ValueError):
    """The file with the points cannot be used; the text names its line and says what to do."""


@dataclass(frozen=True)
class Points:
    """What is worth how much. `out_of`: exercise or question -> points, times the weight of its notebook."""

    out_of: Mapping[str, float]
    partial: bool = False
    late: float = 1.0

    def earned(self, row: Row, late: bool = False) -> float:
        """The points of a line: all if passed, else those of the parts that are right if partial credit is given."""
        right, of = row.parts
        share = 1.0 if row.status == "passed" else right / of if self.partial and row.status == "failed" and of else 0.0
        return round(share * self.out_of.get(row.exercise, 0.0) * (self.late if late else 1.0), 4)


@dataclass(frozen=True)
class Total:
    """The points of a student: altogether, and notebook -> (points, out of). `open`: answers without a mark."""

    points: float = 0.0
    out_of: float = 0.0
    notebooks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    open: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.points / self.out_of if self.out_of else 0.0


def notebook_of(id_: str) -> str:
    """The notebook of an exercise or a question.

    >>> notebook_of("3.2"), notebook_of("1a")
    ('03_binary_training', '01_data_exploration')
    """
    number = re.match(r"\d+", id_)
    return next((one.notebook for one in list_exercises() if number and int(one.notebook[:2]) == int(number[0])), "")


def read_points(file: Path | None = None, questions: Collection[str] = ()) -> Points:
    """The points of a file; by default of `course.toml` beside the course, if there is one.

    Raises:
        PointsError: it cannot be read, or names what does not exist, or a number that cannot be one.
    """
    path = file or checkout() / FILE
    if file is None and not path.exists():
        return _points({}, questions, lambda key, problem: PointsError(problem))
    try:
        text = path.read_text(encoding="utf-8-sig")
        settings = tomllib.loads(text + "\n")  # an error "at end of document" would have no line
    except OSError as error:
        raise PointsError(f"The points {path} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:  # not UTF-8, or not TOML: the error names the line
        raise PointsError(f'{path} is not TOML: {error}. A line of it is, for example, "1.7" = 4') from error

    def problem(key: str, reason: str) -> PointsError:
        named = re.compile(rf"""\s*\[?["']?{re.escape(key)}["']?\]?\s*(=|$|#)""")
        line = next((f":{number}" for number, line in enumerate(text.splitlines(), 1) if named.match(line)), "")
        return PointsError(f"{path}{line}: {reason}")

    return _points(settings, questions, problem)


def _points(settings: dict[str, Any], questions: Collection[str], problem: Any) -> Points:
    exercises = {exercise.id: exercise for exercise in list_exercises()}
    notebooks = {exercise.notebook: exercise.notebook for exercise in exercises.values()}
    notebooks |= {name[:2]: name for name in notebooks}
    for key in settings:
        if key not in KEYS:
            raise problem(key, f"unknown key {key!r}; known: {', '.join(KEYS)}. Exercises stand below [points].")

    def number(key: str, value: Any, most: float = MAX_POINTS) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
            raise problem(key, f"{key} = {value!r}: expected a number from 0 to {most:g}.")
        return float(value)

    def table(key: str) -> dict[str, Any]:
        found = settings.get(key, {})
        if not isinstance(found, dict):
            raise problem(key, f"{key} = {found!r}: expected a section, [{key}], with a line for each.")
        flat = {}
        for name, value in found.items():  # 1.7 = 4 without quotes is a table in a table
            inside = value.items() if isinstance(value, dict) else [(None, value)]
            flat |= {name if inner is None else f"{name}.{inner}": one for inner, one in inside}
        return flat

    default, partial = settings.get("default", 1), settings.get("partial", False)
    if not isinstance(partial, bool):
        raise problem("partial", f"partial = {partial!r}: expected true or false.")
    if default == "difficulty":
        out_of = {id_: float(exercise.difficulty) for id_, exercise in exercises.items()}
    else:
        if isinstance(default, str):
            raise problem("default", f'default = {default!r}: expected a number, or "difficulty".')
        out_of = dict.fromkeys(exercises, number("default", default))
    out_of |= dict.fromkeys(questions, 0.0)
    for key, value in table("points").items():
        if key not in out_of:
            raise problem(key, f"there is no exercise or question {key!r}; there are {', '.join(out_of)}.")
        out_of[key] = number(key, value)
    for key, value in table("weights").items():
        if key not in notebooks:
            raise problem(key, f"there is no notebook {key!r}; there are {', '.join(sorted(set(notebooks.values())))}.")
        weight = number(key, value)
        out_of |= {id_: weight * points for id_, points in out_of.items() if notebook_of(id_) == notebooks[key]}
    return Points(out_of, partial, number("late", settings.get("late", 1), 1))


def with_points(rows: Sequence[Row], points: Points, late: Collection[str] = ()) -> list[Row]:
    """The rows with their points; `late` names files that were handed in late."""
    return [
        replace(row, points=points.earned(row, row.file in late), out_of=points.out_of.get(row.exercise, 0.0))
        for row in rows
    ]


def totals(
    rows: Sequence[Row], points: Points, marks: Mapping[tuple[str, str], float | None] | None = None
) -> dict[str, Total]:
    """Student -> points, of every notebook that somebody in the class handed in.

    Args:
        rows: with points; of two files with the same exercise by one student the better result counts.
        marks: (student, question) -> points given by hand, None if there are none yet.
    """
    marks = {key: mark for key, mark in (marks or {}).items() if notebook_of(key[1])}
    graded = {row.notebook for row in rows if row.exercise} | {notebook_of(question) for _, question in marks}
    maximum = {name: 0.0 for name in sorted(graded)}
    for id_, worth in points.out_of.items():
        if notebook_of(id_) in maximum:
            maximum[notebook_of(id_)] += worth
    found: dict[str, dict[str, float]] = {row.student: dict.fromkeys(maximum, 0.0) for row in rows}
    for (student, _), row in best_rows(rows).items():
        found[student][row.notebook] += row.points
    for (student, question), mark in marks.items():
        if student in found:
            found[student][notebook_of(question)] += mark or 0.0
    made = {}
    for student, own in sorted(found.items()):
        unmarked = [q for (who, q), mark in marks.items() if who == student and mark is None and points.out_of.get(q)]
        by_notebook = {name: (round(own[name], 4), round(maximum[name], 4)) for name in maximum}
        made[student] = Total(round(sum(own.values()), 4), round(sum(maximum.values()), 4), by_notebook, len(unmarked))
    return made
