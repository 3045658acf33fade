"""Grades one notebook: in a box, and in another one whenever its code has ended or blocked the last."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace

from course_utils.exercises.registry import Exercise
from course_utils.exercises.sandbox import CheckTimeout, time_limit
from workshop.cluster import Stop
from workshop.grade.box.box import Box, BoxEnded, Limits
from workshop.grade.box.sandbox import Sandbox
from workshop.grade.collect.handed_in import HandedIn
from workshop.grade.collect.notebook_file import BrokenNotebook
from workshop.grade.judge.judge import Judge
from workshop.grade.judge.notebook import Notebook, read_notebook
from workshop.grade.judge.suspicion import forget_trees, suspicions
from workshop.grade.report.page import picture
from workshop.grade.report.table import Outcome, Row

MAX_BOXES = 10  # for each notebook
MAX_MODULE_BYTES = 200_000  # of Python files beside a notebook, in which `suspicions` looks
LOOKING_SECONDS = 60


@dataclass(frozen=True)
class Graded:
    """The rows of one notebook, without student and file. If they are not `final`, the next run tries again.

    `pictures` has, for exercises whose check attached one, HTML.
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
    judge = Judge(notebook, limits.seconds, limits.memory, limits.notebook, whole)
    rest, final, left = None, True, limits.notebook
    for _ in range(MAX_BOXES):
        box = Box(sandbox, one.folder, replace(limits, notebook=left), stop)
        try:
            with box:
                judge.run(box)
            break
        except BoxEnded as ended:
            rest, final = Outcome("failed", ended.message, ended.timed_out), not stop.is_set()
            if not judge.step:
                rest, final = Outcome("broken", f"The grading process could not start: {ended.message}"), False
            left -= box.used
            if not final or not judge.blame(ended) or left <= 0 or judge.is_late:
                break
            rest = None
        except (CheckTimeout, Exception) as fault:  # whatever it is: other notebooks are not concerned
            rest, final = Outcome("broken", f"It could not be graded: {fault!r}"), False
            break
    else:
        rest = Outcome("failed", f"The notebook was given up: its code ended or blocked {MAX_BOXES} processes.")
    if not whole and judge.missed_names() and left > 0 and not judge.is_late:
        return grade_notebook(one, replace(limits, notebook=left), stop, sandbox, whole=True)
    outcomes = {}
    for exercise in notebook.exercises:
        reached = judge.faults.get(exercise.id) or judge.verdicts.get(exercise.id)
        outcomes[exercise] = rest if rest and not reached else judge.outcome(exercise)
    looks = _looks(notebook, one, [exercise for exercise, outcome in outcomes.items() if outcome.status != "todo"])
    rows = ()
    for exercise, outcome in outcomes.items():
        look = {"look": "; ".join(filter(None, [outcome.look, looks.get(exercise, "")]))}
        rows += (Row(**asdict(outcome) | look, notebook=notebook.name, exercise=exercise.id, name=exercise.name),)
    if not final and rest and not any(judge.verdicts.values()):
        rows = (Row(**asdict(rest), notebook=notebook.name),)
    pictures = {exercise: picture(what) for exercise, what in judge.pictures.items()}
    return Graded(rows, round(time.monotonic() - started, 2), final, pictures)


def _looks(notebook: Notebook, one: HandedIn, exercises: list[Exercise]) -> dict[Exercise, str]:
    """What stands out in the code, for each of these exercises."""
    files = {path.name: path for path in one.modules}
    small = {name: path for name, path in files.items() if path.stat().st_size <= MAX_MODULE_BYTES / len(files)}
    note = "".join(f"; {name} is too large to be looked at" for name in files.keys() - small)
    texts = {name: path.read_text(encoding="utf-8", errors="replace") for name, path in small.items()}
    looks = {}
    try:
        with time_limit(LOOKING_SECONDS):
            for exercise in exercises:
                looks[exercise] = (suspicions(notebook.cells, exercise, texts) + note).removeprefix("; ")
    except CheckTimeout:
        text = f"to look at its code takes more than {LOOKING_SECONDS} seconds"
        looks = {exercise: looks.get(exercise, text) for exercise in exercises}
    forget_trees()
    return looks
