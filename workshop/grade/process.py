"""Grades one notebook in processes of its own, with limits on time and memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from course_utils.exercises import list_exercises
from workshop.cluster import Stop
from workshop.grade.submissions import HandedIn
from workshop.grade.table import SYMBOLS, Row

START_SECONDS = 180  # until torch is loaded, on a slow disk
MAX_PROCESSES = 10  # a notebook may end or block so many, then the rest of it is given up
# What a grading process gets to see of the environment: what Python and torch need, and no passwords or tokens.
ENVIRONMENT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|SYSTEMDRIVE|WINDIR|USERPROFILE|APPDATA|LOCALAPPDATA|"
    r"PROGRAMDATA|COMSPEC|PATHEXT|NUMBER_OF_PROCESSORS|LD_LIBRARY_PATH|DYLD_\w+|PYTHONPATH|PYTHONHOME|XDG_CACHE_HOME|"
    r"COURSE_DATA_DIR|GOMP_SPINCOUNT",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Limits:
    """For each notebook: seconds that one cell or check may hang, and gigabytes of memory besides torch itself."""

    seconds: float = 30.0
    memory: float = 4.0


@dataclass(frozen=True)
class Graded:
    """What became of one notebook: a `Row` for each exercise, without student and file.

    `final` is false if the fault is not the notebook's: then the next run tries again.
    """

    rows: tuple[Row, ...]
    seconds: float = 0.0
    final: bool = True


def grade_notebook(one: HandedIn, limits: Limits, stop: Stop) -> Graded:
    """Grade one notebook in processes of its own: a new one whenever its code has ended or blocked the last one."""
    started = time.monotonic()
    results: dict[str, dict] = {}
    faults: dict[str, str] = {}
    answers = Answers()
    # On Windows a file that is still in use cannot be deleted at once.
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as temporary:
        notebook = Path(temporary) / "submitted.ipynb"
        shutil.copyfile(one.path, notebook)
        while not answers.done:
            if len(faults) >= MAX_PROCESSES:
                reason = f"The notebook was given up: its code ended or blocked {len(faults)} processes."
                answers = replace(answers, ended=reason)
                break
            request = {
                "notebook": str(notebook), "file_name": one.path.name,
                # An endless loop is interrupted from inside if possible; that costs no new process.
                "seconds": limits.seconds / 3, "memory": int(limits.memory * 1e9),
                "faults": faults, "results": {id_: {k: r[k] for k in ("status", "cell")} for id_, r in results.items()},
            }  # fmt: skip
            answers = _run_worker(request, Path(temporary), one.helpers(), limits, stop)
            results |= answers.results
            finished = answers.done or answers.broken or answers.fault or stop.is_set()
            if finished or not answers.step or answers.step in faults:
                break
            faults[answers.step] = answers.ended
            if answers.step in {exercise.id for exercise in list_exercises()}:
                results[answers.step] = {"status": "failed", "message": answers.ended, "cell": 0}
    rows = _rows(results, answers)
    ours = bool(answers.fault) or any(row.status == "broken" for row in rows if row.exercise)
    final = not ours and not stop.is_set() and bool(answers.done or answers.broken or answers.step)
    return Graded(rows, round(time.monotonic() - started, 2), final)


def _rows(results: dict[str, dict], answers: Answers) -> tuple[Row, ...]:
    if answers.broken:
        return (_broken(answers.broken),)
    if not answers.ready:
        reason = answers.fault or answers.ended
        return (_broken(f"The grading process could not start: {reason}", answers.notebook),)
    rest = {"status": "broken" if answers.fault else "failed", "message": answers.fault or answers.ended}
    found = {
        exercise: results.get(exercise.id, rest)
        for exercise in list_exercises()
        if exercise.notebook == answers.notebook
    }
    return tuple(
        Row("", exercise.notebook, exercise.id, exercise.name, result["status"], result["message"], "")
        for exercise, result in found.items()
    )


def _broken(reason: str, notebook: str = "") -> Row:
    return Row("", notebook, "", "", "broken", reason, "")


@dataclass(frozen=True)
class Answers:
    """What a grading process said before it ended; see `grading_worker`. `ended` is why it ended too early."""

    notebook: str = ""
    broken: str = ""
    fault: str = ""
    ready: bool = False
    done: bool = False
    step: str = ""
    results: dict[str, dict] = field(default_factory=dict)
    ended: str = ""


def _run_worker(
    request: dict, temporary: Path, helpers: Sequence[Path], limits: Limits, stop: Stop
) -> Answers:
    """Start a grading process, wait until it is finished, has ended or hangs, and make sure that nothing of it is left.

    Its answers go to a file rather than a pipe, because a program that a student's code left behind could keep a pipe
    open. Its standard input is a pipe that tells it when this process is gone.
    """
    work = temporary / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for helper in helpers:
        shutil.copyfile(helper, work / helper.name)
    (temporary / "request.json").write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "workshop.grade.worker", str(temporary / "request.json")]
    answers, lines = temporary / "answers.jsonl", io.BytesIO()
    posix = os.name == "posix"
    group = {"start_new_session": True} if posix else {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with (
        answers.open("wb") as output,
        (temporary / "errors.txt").open("wb") as errors,
        answers.open("rb") as reader,
        subprocess.Popen(
            command, cwd=work, env=_environment(work), stdin=subprocess.PIPE, stdout=output, stderr=errors, **group
        ) as process,
    ):  # fmt: skip
        try:
            ended = _watch(process, reader, lines, limits, stop)
        finally:
            _kill(process)
    said = _understand(lines.getvalue())
    if not said.ready and not said.broken and not said.fault:
        ended += " " + " ".join((temporary / "errors.txt").read_text(errors="replace").split())[-300:]
    return replace(said, ended=ended.strip())


def _watch(
    process: subprocess.Popen, reader: io.BufferedReader, lines: io.BytesIO, limits: Limits, stop: Stop
) -> str:
    """Wait for the end of the process, collecting its answers; says why it ended."""
    patience, heard = float(START_SECONDS), time.monotonic()
    while True:
        code = process.poll()  # asked before reading, so that nothing said before the end is missed
        new = reader.read()
        lines.write(new)
        if b'{"ready"' in new:
            patience = limits.seconds
        if new:
            heard = time.monotonic()
        if code is not None:
            return _explain(code)
        if time.monotonic() - heard > patience:
            return f"Time: the code was stopped after {patience:g} seconds without an end."
        if stop.is_set():
            return "Interrupted."
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)


def _understand(lines: bytes) -> Answers:
    """The answers in what a process wrote; a last line that was cut off is left out."""
    said = Answers()
    for line in lines.split(b"\n"):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        # The notebook's code may have written here too: what does not fit is left out.
        if isinstance(answer, dict) and answer.get("status") in SYMBOLS:
            result = {"message": str(answer.get("message", "")), "cell": answer.get("cell", 0)}
            said.results[str(answer.get("exercise"))] = {"status": answer["status"], **result}
        elif isinstance(answer, dict):
            known = {name: value for name, value in answer.items() if type(value) is type(getattr(said, name, None))}
            said = replace(said, **known)
    return said


def _explain(code: int) -> str:
    """What the exit code of a process that should have gone on says."""
    if code >= 0:
        return f"Exit: the code ended Python itself, with exit code {code}."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    reasons = {"SIGKILL": "most often because memory ran out", "SIGXCPU": "too much computing time"}
    return f"Crash: Python was ended by {name}" + (f" ({reasons[name]})." if name in reasons else ".")


def _kill(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True)
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _environment(work: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if ENVIRONMENT.fullmatch(name)}
    return kept | {
        "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work),
        "COURSE_PROGRESS": str(work / "progress.json"), "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
        # The same verdict with and without a GPU, and processes side by side that do not wait for each other.
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
