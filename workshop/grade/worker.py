"""Grades one submitted notebook, in a process of its own that `workshop.grade.grading` starts and watches.

    python -m workshop.grade.worker REQUEST.json

Answers are lines of JSON on what was standard output when the process started; the code of the notebook gets a standard
output and input that lead nowhere. Every answer is written before the next piece of a student's code runs, so that
nothing is lost if that piece ends the process:

    {"notebook": "03_binary_training"}       it could be read; or {"broken": "The file is not JSON ..."}
    {"ready": true}                          everything of the course is loaded, the limits hold
    {"step": "cell 7, line 3"}               about to run a statement, or the check of an exercise ("3.1")
    {"exercise": "3.1", "status": ..., "message": ..., "cell": 7}
    {"done": true}
    {"fault": "..."}                         the course itself failed, not the notebook
"""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 2**30  # bytes
MAX_CPU_SECONDS = 1800  # for what gets out of reach of the process that watches
MAX_TRIES = 3  # a check that ran out of time is repeated: the first one may pay for slow imports, or a busy machine

Send = Callable[[dict], None]


def main(arguments: list[str]) -> None:
    """Grade the notebook that the request names, answer, and end the process whatever threads are left in it."""
    send = take_channel()
    try:
        work_through(json.loads(Path(arguments[0]).read_text(encoding="utf-8")), send)
    except BaseException:
        send({"fault": " ".join(traceback.format_exc(limit=-2).split())})
        os._exit(1)
    send({"done": True})
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
            os.killpg(0, signal.SIGKILL)  # with all that the notebook started
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()

    def send(answer: dict) -> None:
        try:
            os.write(channel, (json.dumps(answer) + "\n").encode())
        except OSError:  # a student's code closed it
            os._exit(1)

    return send


def work_through(request: dict, send: Send) -> None:
    """Read the notebook, then define and check its exercises one after the other.

    Args:
        request: "notebook" (path), "file_name", "seconds" (for one statement), "memory" (bytes that students' code may
            use besides what is loaded), "faults" (step -> what went wrong there in an earlier process; it is not run
            again), "results" (exercise id -> status and cell, of an earlier process).
        send: takes an answer.
    """
    from course_utils.exercises import list_exercises
    from workshop.grade.submissions import BrokenNotebook, read_submission

    exercises = list_exercises()
    try:
        submission = read_submission(Path(request["notebook"]).read_bytes(), request["file_name"], exercises)
    except BrokenNotebook as error:
        send({"broken": str(error)})
        return
    send({"notebook": submission.notebook})
    own = [exercise for exercise in exercises if exercise.notebook == submission.notebook]
    for exercise in own:
        exercise.reference  # noqa: B018 (the property imports what it needs)
    with contextlib.suppress(ImportError):  # evaluate will say what is missing
        importlib.import_module(f"course_utils.exercises.checks.notebook_{submission.notebook[:2]}")
    set_limits(request["memory"])
    send({"ready": True})
    sys.path.append(os.getcwd())  # last, so that a student's numpy.py hides nothing
    run = NotebookRun(submission, exercises, request["faults"], request["seconds"], send)
    for exercise in own:
        earlier = request["results"].get(exercise.id)
        if earlier:
            run.repeat(exercise, **earlier)
        else:
            send({"exercise": exercise.id, **run.grade(exercise)})


def set_limits(more_bytes: int) -> None:
    """Let this process have so much memory more than it has now. Without effect where the system has no such limits."""
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

    def __init__(self, submission: Any, exercises: list, faults: dict[str, str], seconds: float, send: Send):
        self.submission, self.exercises, self.faults = submission, exercises, faults
        self.seconds, self.send = seconds, send
        self.failures: dict[Any, str] = {}  # statement -> what went wrong
        self.executed: set[Any] = set()
        # Under the name that a notebook's code has, so that pickling and `__name__` behave as in a notebook.
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.names = module.__dict__
        self.names.update(display=lambda *_, **__: None, get_ipython=lambda: None)
        for cell in submission.cells:  # so that messages can quote the line
            lines = cell.source.splitlines(keepends=True)
            linecache.cache[f"<cell {cell.number}>"] = (len(cell.source), None, lines, f"<cell {cell.number}>")

    def grade(self, exercise: Any) -> dict[str, Any]:
        """Status, message and cell of one exercise; afterwards its name means what it means in the notebook."""
        from workshop.grade.submissions import candidates

        result = {"status": "todo", "message": f"Missing: no cell defines {exercise.name}.", "cell": 0}
        for cell in candidates(self.submission, exercise):
            status, message = self.try_cell(exercise, cell)
            result = {"status": status, "message": message, "cell": cell.number}
            if status != "todo":
                break
        if result["status"] != "passed":
            self.names[exercise.name] = exercise.reference
        return result

    def repeat(self, exercise: Any, status: str, cell: int) -> None:
        """Restore what an exercise that was graded in an earlier process left behind."""
        for one in self.submission.cells:
            if one.number == cell and status == "passed":
                self.define(exercise, one)
        if status != "passed" or exercise.name not in self.names:
            self.names[exercise.name] = exercise.reference

    def try_cell(self, exercise: Any, cell: Any) -> tuple[str, str]:
        """Define the exercise's object as one cell does, and check it."""
        from workshop.grade.submissions import explain_missing

        if cell.error:
            return "failed", cell.error
        if not cell.binds(exercise.name):
            return explain_missing(cell, exercise)
        statements = self.define(exercise, cell)
        trouble = " ".join(self.failures[statement] for statement in statements if statement in self.failures)
        if exercise.name not in self.names:
            return "failed", trouble or f"Name: cell {cell.number} does not define {exercise.name}."
        submitted = self.names[exercise.name]
        if submitted is exercise.reference:
            return "failed", f"Origin: {exercise.name} is the one of course_utils, expected a definition of your own."
        status, message = self.check(exercise, submitted)
        return status, f"{message} {trouble}".strip() if status != "passed" else message

    def define(self, exercise: Any, cell: Any) -> list:
        """Run what the cell's object needs and was not run before; returns all of these statements."""
        from workshop.grade.submissions import needed

        self.names.pop(exercise.name, None)
        statements = needed(self.submission, cell, exercise, self.exercises)
        for statement in statements:
            if statement not in self.executed:
                self.executed.add(statement)
                self.run_statement(statement)
        return statements

    def run_statement(self, statement: Any) -> None:
        """Run one statement of the notebook. What goes wrong is remembered, and the others still run."""
        import ast

        from course_utils.exercises.sandbox import CheckTimeout, silence, time_limit

        if statement.place in self.faults:
            self.failures[statement] = f"{self.faults[statement.place]} In {statement.place}."
            return
        self.send({"step": statement.place})
        tree = ast.Module([statement.node], [])
        try:
            with silence(), time_limit(self.seconds):
                flags = self.submission.future_flags
                code = compile(tree, f"<cell {statement.cell}>", "exec", flags, dont_inherit=True)
                exec(code, self.names)
        except CheckTimeout:
            self.failures[statement] = f"Time: {statement.place} was stopped after {self.seconds:g} seconds."
        except BaseException as error:  # SystemExit included
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.failures[statement] = f"Error: {statement.place} raised {text}."

    def check(self, exercise: Any, submitted: Any) -> tuple[str, str]:
        """Status and message of the course's own check."""
        from course_utils.exercises import evaluate

        if exercise.id in self.faults:
            return "failed", self.faults[exercise.id]
        self.send({"step": exercise.id})
        for _ in range(MAX_TRIES):
            try:
                result = evaluate(exercise.id, submitted)
            except Exception as error:  # evaluate raises nothing for what a student's code does
                return "broken", f"The course's check of {exercise.id} failed: {type(error).__name__}: {error}"
            message = " ".join(result.messages)
            if not message.startswith("Time:"):
                break
        return result.status, message


if __name__ == "__main__":
    main(sys.argv[1:])
