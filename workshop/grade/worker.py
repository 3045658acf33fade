"""Grades one submitted notebook, in a process that `workshop.grade.process` starts and watches.

    python -m workshop.grade.worker REQUEST.json

Answers are lines of JSON on what was standard output when the process started; the code of the notebook gets a standard
output and input that lead nowhere. Every answer is written before the next piece of a student's code runs, so that
nothing is lost if that piece ends the process:

    {"notebook": "03_binary_training"}       it could be read; or {"broken": "The file is not JSON ..."}
    {"step": "cell 7, line 3"}               about to run a statement, or the check of an exercise ("3.1")
    {"exercise": "3.1", "status": ...}       and what else an `Outcome` has
    {"fault": "..."}                         the course itself failed, not the notebook
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import linecache
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from course_utils.exercises import Exercise, evaluate, list_exercises
from course_utils.exercises.sandbox import CheckTimeout, silence, time_limit
from workshop.grade import submissions
from workshop.grade.table import Outcome

MAX_FILE_BYTES = 2**30
MAX_CPU_SECONDS = 1800  # for what gets out of reach of the process that watches

Send = Callable[[dict], None]


def main(arguments: list[str]) -> None:
    """Grade the notebook that the request names, answer, and end the process whatever threads are left in it."""
    send = take_channel()
    try:
        grade_exercises(json.loads(Path(arguments[0]).read_text(encoding="utf-8")), send)
    except BaseException:
        send({"fault": " ".join(traceback.format_exc(limit=-2).split())})
    os._exit(0)


def take_channel() -> Send:
    """Keep standard output for answers only; from here on prints, questions and messages of C code lead nowhere."""
    channel = os.dup(1)  # not inherited by programs that a student's code starts
    lifeline = os.dup(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdin = io.StringIO()

    def end_with_parent() -> None:
        os.read(lifeline, 1)  # nothing is ever sent: it returns when the other end is gone
        if os.name == "posix" and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)  # with everything that the notebook started
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()

    def send(answer: dict) -> None:
        try:
            os.write(channel, (json.dumps(answer) + "\n").encode())
        except OSError:  # a student's code closed it
            os._exit(1)

    return send


def grade_exercises(request: dict, send: Send) -> None:
    """Read the notebook, then define and check its exercises one after the other.

    Args:
        request: "notebook" (path), "seconds" (of processor time, for one statement), "memory" (bytes that students'
            code may use besides what is loaded), "faults" (step that ended or blocked an earlier process and is not
            run again -> `Outcome`).
        send: takes an answer.
    """
    path = Path(request["notebook"])
    try:
        submission = submissions.read_submission(path.read_bytes(), path.name)
    except submissions.BrokenNotebook as error:
        send({"broken": str(error)})
        return
    send({"notebook": submission.notebook})
    own = [exercise for exercise in list_exercises() if exercise.notebook == submission.notebook]
    for exercise in own:
        exercise.reference  # noqa: B018 (the property imports what it needs)
    with contextlib.suppress(ImportError):  # evaluate will say what is missing
        importlib.import_module(f"course_utils.exercises.checks.notebook_{submission.notebook[:2]}")
    set_limits(request["memory"])
    sys.path.append(os.getcwd())  # last, so that a student's numpy.py hides nothing
    faults = {step: Outcome(**fault) for step, fault in request["faults"].items()}
    run = NotebookRun(submission, faults, request["seconds"], send)
    for exercise in own:
        send({"exercise": exercise.id, **asdict(run.grade(exercise))})


def set_limits(more_bytes: int) -> None:
    """Let this process have this much memory more than it has now. No effect where the system has no such limits."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class NotebookRun:
    """The names of one notebook while its exercises are graded in their order."""

    def __init__(self, submission: submissions.Submission, faults: dict[str, Outcome], seconds: float, send: Send):
        self.submission, self.faults, self.seconds, self.send = submission, faults, seconds, send
        self.executed: dict[submissions.Statement, Outcome | None] = {}  # what went wrong, if anything
        # Under the name that a notebook's code has, so that pickling and `__name__` behave as in a notebook.
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        self.names = module.__dict__
        self.names.update(display=lambda *_, **__: None, get_ipython=lambda: None)
        for cell in submission.cells:  # so that messages can quote the line
            lines = cell.source.splitlines(keepends=True)
            linecache.cache[f"<cell {cell.number}>"] = (len(cell.source), None, lines, f"<cell {cell.number}>")

    def grade(self, exercise: Exercise) -> Outcome:
        """Check one exercise; afterwards its name means what it means in the notebook."""
        result = Outcome("todo", f"Missing: no cell defines {exercise.name}.")
        for cell in submissions.candidates(self.submission, exercise):
            result = self.try_cell(exercise, cell)
            if result.status != "todo":
                break
        if result.status != "passed":
            self.names[exercise.name] = exercise.reference
        return result

    def try_cell(self, exercise: Exercise, cell: submissions.CodeCell) -> Outcome:
        """Define the exercise's object as one cell does, and check it."""
        if cell.error:
            return Outcome("failed", cell.error)
        if not cell.statements:
            return Outcome("todo", f"Missing: the cell of exercise {exercise.id} is empty.")
        if exercise.name not in cell.binds:
            found = ", ".join(sorted(cell.defines)) or "no function and no class"
            return Outcome("failed", f"Name: cell {cell.number} defines {found}, expected {exercise.name}.")
        self.names.pop(exercise.name, None)
        statements = submissions.needed_statements(self.submission, cell, exercise)
        for statement in statements:
            if statement not in self.executed:
                self.executed[statement] = self.run_statement(statement)
        failures = [failure for statement in statements if (failure := self.executed[statement])]
        if exercise.name not in self.names:
            result = Outcome(message="" if failures else f"Name: cell {cell.number} does not define {exercise.name}.")
        elif self.names[exercise.name] is exercise.reference:
            result = Outcome(message=f"Origin: {exercise.name} is the one of course_utils; write your own.")
        else:
            result = self.check(exercise, self.names[exercise.name])
        if result.status == "passed":
            return result
        message = " ".join([result.message, *(failure.message for failure in failures)]).strip()
        return replace(result, message=message, timed_out=any(one.timed_out for one in [result, *failures]))

    def run_statement(self, statement: submissions.Statement) -> Outcome | None:
        """Run one statement of the notebook, and return what went wrong; the others still run."""
        if fault := self.faults.get(statement.place):
            return replace(fault, message=f"{fault.message} In {statement.place}.")
        self.send({"step": statement.place})
        tree, flags = ast.Module([statement.node], []), self.submission.future_flags
        try:
            with silence(), time_limit(self.seconds, waiting=2 * self.seconds):
                exec(compile(tree, f"<cell {statement.cell}>", "exec", flags, dont_inherit=True), self.names)
        except CheckTimeout as error:
            return Outcome("failed", f"Time: {statement.place} was {error}", True)
        except BaseException as error:  # SystemExit included
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Outcome("failed", f"Error: {statement.place} raised {text}.")
        return None

    def check(self, exercise: Exercise, submitted: Any) -> Outcome:
        """The result of the course's own check."""
        if fault := self.faults.get(exercise.id):
            return fault
        self.send({"step": exercise.id})
        result = evaluate(exercise.id, submitted)
        return Outcome(result.status, " ".join(result.messages), timed_out=result.timed_out)


if __name__ == "__main__":
    main(sys.argv[1:])
