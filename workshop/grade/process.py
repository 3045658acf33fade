"""Grades one notebook in processes that are started for it, with limits on time and memory.

A worker (`workshop.grade.worker`) runs in an empty temporary folder and is watched. If the notebook's code ends or
blocks it, it is killed with everything it started, and a new worker begins again without the step that did it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from course_utils.exercises import list_exercises
from workshop.cluster import Stop
from workshop.grade.submissions import SubmittedFile
from workshop.grade.table import SYMBOLS, Outcome, Row

START_SECONDS = 180.0  # until torch is loaded, on a slow disk
MAX_PROCESSES = 10  # for each notebook
# The environment variables that a worker gets: what Python and torch need, no passwords or tokens.
ENVIRONMENT = re.compile(
    r"(?i)PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|SYSTEMDRIVE|WINDIR|USERPROFILE|APPDATA|LOCALAPPDATA|"
    r"PROGRAMDATA|COMSPEC|PATHEXT|NUMBER_OF_PROCESSORS|LD_LIBRARY_PATH|DYLD_\w+|PYTHONPATH|PYTHONHOME|XDG_CACHE_HOME|"
    r"COURSE_DATA_DIR|GOMP_SPINCOUNT"
)


@dataclass(frozen=True)
class Limits:
    """For each notebook: seconds that one cell or check may compute, and gigabytes of memory on top of torch itself."""

    seconds: float = 30.0
    memory: float = 4.0


@dataclass(frozen=True)
class Graded:
    """The rows of one notebook, without student and file. If they are not `final`, the next run tries again."""

    rows: tuple[Row, ...]
    seconds: float = 0.0
    final: bool = True


@dataclass(frozen=True)
class Answers:
    """What a worker said (see `workshop.grade.worker`), and how it ended. `step` is the one that it did not finish."""

    notebook: str = ""
    broken: str = ""
    fault: str = ""
    step: str = ""
    results: dict[str, Outcome] = field(default_factory=dict)
    ended: Outcome = Outcome()


def grade_notebook(one: SubmittedFile, limits: Limits, stop: Stop) -> Graded:
    """Grade one notebook, with a new worker whenever its code has ended or blocked the last one."""
    started = time.monotonic()
    faults: dict[str, Outcome] = {}  # step -> how it ended or blocked a worker
    for _ in range(MAX_PROCESSES):
        said = _run_worker(one, faults, limits, stop)
        if said.fault or not said.step or said.step in faults or stop.is_set():
            break
        faults[said.step] = said.ended
    else:
        reason = f"The notebook was given up: its code ended or blocked {MAX_PROCESSES} processes."
        said = replace(said, ended=Outcome(message=reason), results=faults | said.results)
    final = bool(said.broken or said.results or said.step) and not said.fault and not stop.is_set()
    return Graded(_rows(said), round(time.monotonic() - started, 2), final)


def _rows(said: Answers) -> tuple[Row, ...]:
    if said.broken:
        return (Row("broken", said.broken),)
    if not (said.step or said.results):
        reason = said.fault or said.ended.message
        return (Row("broken", f"The grading process could not start: {reason}", notebook=said.notebook),)
    rest = Outcome("broken", said.fault) if said.fault else said.ended
    return tuple(
        Row(**asdict(said.results.get(one.id, rest)), notebook=one.notebook, exercise=one.id, name=one.name)
        for one in list_exercises()
        if one.notebook == said.notebook
    )


def _run_worker(one: SubmittedFile, faults: dict[str, Outcome], limits: Limits, stop: Stop) -> Answers:
    """Start a worker, wait until it is done, has ended or hangs, and leave nothing of it behind.

    It answers into a file instead of a pipe, because a program that a student's code left behind could keep a pipe
    open. Its standard input is a pipe, which tells it when this process is gone.
    """
    # On Windows a file that is still in use cannot be deleted at once.
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        work, request, answers, errors = (folder / name for name in ("work", "request.json", "answers", "errors"))
        work.mkdir()
        for module in one.modules():
            shutil.copyfile(module, work / module.name)
        content = {
            "notebook": str(one.path),
            # An endless loop is interrupted from inside if possible; that costs no new process.
            "seconds": limits.seconds / 3, "memory": int(limits.memory * 1e9),
            "faults": {step: asdict(fault) for step, fault in faults.items()},
        }  # fmt: skip
        request.write_text(json.dumps(content), encoding="utf-8")
        with (
            answers.open("wb") as output,
            errors.open("wb") as error_output,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "workshop.grade.worker", str(request)],
                cwd=work, env=_environment(work), stdin=subprocess.PIPE, stdout=output, stderr=error_output,
                # Its own group, so that it can be killed with everything it started.
                start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            ) as process,
        ):  # fmt: skip
            try:
                ended = _watch(process, answers, limits, stop)
            finally:
                _kill(process)
        said = _understand(answers.read_bytes())
        if not (said.step or said.results or said.broken or said.fault):
            text = " ".join(errors.read_text(errors="replace").split())[-300:]
            ended = Outcome(message=f"{ended.message} {text}".strip())
        return replace(said, ended=ended)


def _watch(process: subprocess.Popen, answers: Path, limits: Limits, stop: Stop) -> Outcome:
    """Wait for the end of the process, or end the wait when it is silent for too long; says why.

    It may compute for `limits.seconds`. On a busy machine that takes long: what computes a little gets more time.
    """
    said, heard, used = b"", time.monotonic(), 0.0
    while (code := process.poll()) is None:
        if (now := answers.read_bytes()) != said:
            said, heard, used = now, time.monotonic(), _processor_time(process)
        patience = limits.seconds if b'{"step"' in said else START_SECONDS
        silent, computed = time.monotonic() - heard, _processor_time(process) - used
        if computed > patience or silent > patience + 50 * computed:
            return Outcome("failed", f"Time: the code was stopped after {silent:.0f} seconds.", timed_out=True)
        if stop.is_set():
            return Outcome(message="Interrupted.")
        time.sleep(0.05)
    return Outcome(message=_explain(code))


def _processor_time(process: subprocess.Popen) -> float:
    """Seconds that a process has computed; 0 where nothing tells."""
    with contextlib.suppress(Exception):  # psutil comes with ipykernel, but is not a requirement of ours
        import psutil

        times = psutil.Process(process.pid).cpu_times()
        return times.user + times.system
    return 0.0


def _understand(lines: bytes) -> Answers:
    """The answers in what a worker wrote.

    Left out is what does not fit: the notebook's code may have written there too, and the last line may be cut off.
    """
    said = Answers()
    for line in lines.split(b"\n"):
        try:
            answer = dict(json.loads(line))
        except (ValueError, TypeError):
            continue
        if answer.get("status") in SYMBOLS:
            said.results[str(answer.get("exercise"))] = Outcome(**_fitting(answer, Outcome))
            said = replace(said, step="")
        else:
            said = replace(said, **_fitting(answer, Answers))
    return said


def _fitting(answer: dict, kind: type) -> dict:
    """The items of an answer that have the name and the type of a simple field of this dataclass."""
    return {name: value for name, value in answer.items() if type(value) is type(getattr(kind, name, ...))}


def _explain(code: int) -> str:
    """What the exit code of a process that should have gone on says."""
    if code >= 0:
        return f"Exit: the code ended Python itself, with exit code {code}."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    reasons = {"SIGKILL": " (usually because memory ran out)", "SIGXCPU": " (too much computing time)"}
    return f"Crash: Python was ended by {name}{reasons.get(name, '')}."


def _kill(process: subprocess.Popen) -> None:
    """End a process and everything it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True)
    process.kill()


def _environment(work: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if ENVIRONMENT.fullmatch(name)}
    return kept | {
        "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work),
        "COURSE_PROGRESS": str(work / "progress.json"), "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
        # The same result with and without a GPU, and processes side by side that do not wait for each other.
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
