"""Grades one notebook: in a box, and in another one whenever its code has ended or blocked the last."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace

from course_utils.exercises.registry import Exercise
from workshop.cluster import Stop
from workshop.grade.box.box import Box, BoxEnded, Limits
from workshop.grade.box.sandbox import Sandbox
from workshop.grade.collect.handed_in import HandedIn
from workshop.grade.collect.notebook_file import BrokenNotebook
from workshop.grade.judge.judge import CourseFault, Judge
from workshop.grade.judge.notebook import read_notebook
from workshop.grade.judge.suspicion import suspicions
from workshop.grade.report.page import picture
from workshop.grade.report.table import Outcome, Row

MAX_BOXES = 10  # for each notebook


@dataclass(frozen=True)
class Graded:
    """The rows of one notebook, without student and file. If they are not `final`, the next run tries again.

    `pictures` has, for exercises whose arrays differ from those expected, a PNG file as base64.
    """

    rows: tuple[Row, ...]
    seconds: float = 0.0
    final: bool = True
    pictures: dict[str, str] = field(default_factory=dict)


def grade_notebook(one: HandedIn, limits: Limits, stop: Stop, sandbox: Sandbox, whole: bool = False) -> Graded:
    """Grade one notebook: a row for each of its exercises, or one that says why there is none.

    Cells of the course that nothing seems to need are not run, unless `whole`, or a name turns out to be missing.

    Raises:
        OSError: the file cannot be read.
    """
    started = time.monotonic()
    try:
        notebook = read_notebook(one.path.read_bytes(), one.path.name)
    except BrokenNotebook as error:
        return Graded((Row("broken", str(error)),))
    judge = Judge(notebook, limits.seconds, limits.memory, whole)
    rest, final, computed = None, True, 0.0
    for _ in range(MAX_BOXES):
        box = Box(sandbox, one.folder, replace(limits, notebook=limits.notebook - computed), stop)
        try:
            with box:
                judge.run(box)
            break
        except (CourseFault, ArithmeticError, AttributeError, TypeError, ValueError, LookupError) as fault:
            rest, final = Outcome("broken", f"It could not be graded: {fault!r}"), False
            break
        except BoxEnded as ended:
            rest, final = Outcome("failed", ended.message, ended.timed_out), not stop.is_set()
            if not judge.step:
                rest, final = Outcome("broken", f"The grading process could not start: {ended.message}"), False
            computed += box.computed
            if not final or not judge.blame(ended) or computed >= limits.notebook:
                break
            rest = None
    else:
        rest = Outcome("failed", f"The notebook was given up: its code ended or blocked {MAX_BOXES} processes.")
    if not whole and judge.missed_names():
        return grade_notebook(one, limits, stop, sandbox, whole=True)
    rows = tuple(_row(judge, exercise, rest, one) for exercise in notebook.exercises)
    if not final and rest and not any(judge.verdicts.values()):
        rows = (Row(**asdict(rest), notebook=notebook.name),)
    pictures = {exercise: picture(*arrays) for exercise, arrays in judge.arrays.items()}
    return Graded(rows, round(time.monotonic() - started, 2), final, pictures)


def _row(judge: Judge, exercise: Exercise, rest: Outcome | None, one: HandedIn) -> Row:
    """The result of an exercise; `rest` if the notebook did not come to an end, and this one was not reached."""
    reached = judge.faults.get(exercise.id) or judge.verdicts.get(exercise.id)
    outcome = rest if rest and not reached else judge.outcome(exercise)
    looks = [outcome.look]
    if outcome.status != "todo":
        files = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in one.modules}
        looks.append(suspicions(judge.notebook.cells, exercise, files))
    outcome = replace(outcome, look="; ".join(filter(None, looks)))
    return Row(**asdict(outcome), notebook=judge.notebook.name, exercise=exercise.id, name=exercise.name)
