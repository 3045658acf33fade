"""Grades the notebooks that students hand in: every exercise of every notebook is checked, and a table is written.

Each notebook is graded in a process of its own (`workshop.grade.worker`), in an empty temporary folder, with
limits on time and memory. A notebook that ends its process, hangs or cannot be read costs nobody else anything: the
process is killed, the reason is written down, and what is left of the notebook is graded by a new process.

Finished results are kept beside the table, one small file for each notebook, called by a hash of everything that they
depend on: the notebook, the course's code, the limits. So an interrupted run continues where it was, a notebook that
was handed in again is graded again, and so is everything after a check has changed. `workshop.cluster` spreads the
notebooks over several workers.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
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
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from course_utils.exercises import list_exercises
from workshop.cluster import JobFailed, Say, Stop, course_code, executor

COLUMNS = ["student", "notebook", "exercise", "name", "status", "message", "file"]
RESULTS = ".results"  # what the folder of finished results is called, behind the name of the table
SYMBOLS = {"passed": "+", "failed": "x", "todo": ".", "broken": "!"}
START_SECONDS = 180  # until torch is loaded, on a slow disk
MAX_PROCESSES = 10  # a notebook may end or block so many, then the rest of it is given up
MAX_NOTEBOOK_BYTES = 200_000_000  # bytes
MAX_MESSAGE = 600
# What a grading process gets to see of the environment: what Python and torch need, and no passwords or tokens.
ENVIRONMENT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|SYSTEMDRIVE|WINDIR|USERPROFILE|APPDATA|LOCALAPPDATA|"
    r"PROGRAMDATA|COMSPEC|PATHEXT|NUMBER_OF_PROCESSORS|LD_LIBRARY_PATH|DYLD_\w+|PYTHONPATH|PYTHONHOME|XDG_CACHE_HOME|"
    r"COURSE_DATA_DIR|GOMP_SPINCOUNT",
    re.IGNORECASE,
)


class GradingError(ValueError):
    """Grading cannot start or its table cannot be written; the text says in one sentence what to do."""


@dataclass(frozen=True)
class Limits:
    """For each notebook: seconds that one cell or check may hang, and gigabytes of memory besides torch itself."""

    seconds: float = 30.0
    memory: float = 4.0


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


@dataclass(frozen=True)
class Graded:
    """What became of one notebook: a `Row` for each exercise, without student and file.

    `final` is false if the fault is not the notebook's: then the next run tries again.
    """

    rows: tuple[Row, ...]
    seconds: float = 0.0
    final: bool = True


@dataclass(frozen=True, order=True)
class HandedIn:
    """A submitted notebook. `student` is the folder it lies in, or its own name without that of the notebook."""

    student: str
    path: Path
    file: str  # path inside the submissions' folder

    def helpers(self) -> list[Path]:
        """Python files beside the notebook, if its folder belongs to one student: the notebook may import them."""
        if "/" not in self.file:
            return []
        return [path for path in sorted(self.path.parent.glob("*.py")) if path.is_file() and not path.is_symlink()]


# The whole folder


def grade(
    folder: str | Path,
    out: str | Path = "grades.csv",
    workers: int = 1,
    again: bool = False,
    limits: Limits | None = None,
    dask: str | None = None,
) -> list[Row]:
    """Grade every notebook below a folder, print a table of students and exercises, and write a CSV file.

    Args:
        folder: with a folder or a file for each student; or one notebook.
        out: the CSV file. Finished results are kept in a folder beside it, `<out>.results`.
        workers: notebooks that are graded at the same time.
        again: forget the results of earlier runs.
        limits: for each notebook.
        dask: address of the scheduler of a running cluster that grades them instead.

    Returns:
        The lines of the CSV file, by student, notebook and exercise.

    Raises:
        GradingError: there is no notebook, or the results cannot be written.
        ClusterError: see `cluster.executor`.
    """
    folder, out, limits = Path(folder), Path(out), limits or Limits()
    submissions = find_submissions(folder)
    store = Store(out.with_name(out.name + RESULTS).absolute(), again)
    _write(out, None)  # better to fail now than after an hour
    graded = _grade_all(submissions, store, workers, limits, dask)
    rows = [replace(row, student=one.student, file=one.file) for one in submissions for row in graded[one].rows]
    rows += _empty_folders(folder, submissions)
    place = {exercise.id: number for number, exercise in enumerate(list_exercises())}
    rows.sort(key=lambda row: (row.student, row.notebook, place.get(row.exercise, -1), row.file))
    _write(out, rows)
    print(summary(rows))
    print(f"\n{len(rows)} lines in {out}")
    return rows


def find_submissions(folder: Path) -> list[HandedIn]:
    """The notebooks below a folder, hidden ones and copies of Jupyter's left out.

    Raises:
        GradingError: there is no such folder, or no notebook in it.
    """
    if folder.is_file():
        return [HandedIn(_student_of(folder.name), folder.absolute(), folder.name)]
    if not folder.is_dir():
        raise GradingError(f"There is no folder {folder}; give the one that the submitted notebooks lie in.")
    found = []
    for path in folder.rglob("*.ipynb"):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts) or path.is_dir():
            continue
        student = parts[0] if len(parts) > 1 else _student_of(parts[0])
        found.append(HandedIn(student, path.absolute(), "/".join(parts)))
    if not found:
        raise GradingError(f"There is no notebook (.ipynb) in {folder}; unpack the submissions first.")
    return sorted(found)


def _empty_folders(folder: Path, submissions: Sequence[HandedIn]) -> list[Row]:
    """A line for each student's folder that holds no notebook, so that nobody is overlooked."""
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    known = {one.file.split("/")[0] for one in submissions}
    known |= {name for name in folders if name.startswith((".", "_")) or name.endswith(RESULTS)}
    names = [name for name in folders if name not in known]
    return [Row(name, "", "", "", "broken", "There is no notebook (.ipynb) in this folder.", name) for name in names]


def _student_of(file_name: str) -> str:
    """The file's name without that of the notebook: `01_data_exploration_kim.ipynb` is Kim's."""
    stem = Path(file_name).stem
    for notebook in {exercise.notebook for exercise in list_exercises()}:
        rest = stem.replace(notebook, " ").strip(" _-.")
        if notebook in stem and rest:
            return re.sub(r"[ _-]{2,}", "_", rest)
    return stem


def _grade_all(
    submissions: Sequence[HandedIn], store: Store, workers: int, limits: Limits, dask: str | None
) -> dict[HandedIn, Graded]:
    course = _fingerprint()
    graded: dict[HandedIn, Graded] = {}
    waiting = []
    for one in submissions:
        key, broken = _key(one, course, limits)
        known = Graded((_broken(broken),)) if broken else store.get(key)
        if known:
            graded[one] = known
        else:
            waiting.append((one, key))
    if graded:
        print(f"{len(graded)} of {len(submissions)} notebooks are done already.", flush=True)
    if not waiting:
        return graded
    with executor(min(workers, len(waiting)), dask) as pool:
        pool.check_shared_paths([store.folder, *(one.path for one, _ in waiting)])
        try:
            for (one, _), result in pool.run(partial(_grade_and_keep, store=store, limits=limits), waiting):
                if isinstance(result, JobFailed):
                    result = Graded((_broken(f"It could not be graded: {result.reason}"),), final=False)
                graded[one] = result
                count = Counter(row.status for row in result.rows)
                states = ", ".join(f"{count[status]} {status}" for status in SYMBOLS if count[status])
                progress = f"[{len(graded)}/{len(submissions)}] {one.file}"
                print(f"{progress}: {states} ({result.seconds:.1f} s)", flush=True)
        except BaseException:
            done = len(graded) + sum(1 for one, key in waiting if one not in graded and store.get(key))
            print(f"{done} of {len(submissions)} notebooks are done; the same command continues.", flush=True)
            raise
    return graded


def _grade_and_keep(one_and_key: tuple[HandedIn, str], _: Say, stop: Stop, store: Store, limits: Limits) -> Graded:
    """Grade one notebook and keep the result, unless a worker that died afterwards has done it already."""
    one, key = one_and_key
    if known := store.get(key):
        return known
    try:
        graded = grade_notebook(one, limits, stop)
    except OSError as error:  # the disk is full, or the file was moved meanwhile
        return Graded((_broken(f"It could not be graded: {error}"),), final=False)
    if graded.final:
        store.put(key, graded)
    return graded


# What is kept between runs


@dataclass
class Store:
    """Finished results, a file each, called by their key."""

    folder: Path
    again: bool = False

    def __post_init__(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.again:
                for path in self.folder.glob("*.json"):
                    path.unlink()
        except OSError as error:
            raise GradingError(
                f"The folder {self.folder} cannot be written ({error.strerror}); name another --out."
            ) from error

    def get(self, key: str) -> Graded | None:
        """The result, or None if there is none that can be read."""
        try:
            kept = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            return Graded(tuple(Row(**row) for row in kept["rows"]), kept["seconds"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, key: str, graded: Graded) -> None:
        """Keep a result; written in one step, so that an interruption leaves no half file."""
        text = json.dumps({"rows": [asdict(row) for row in graded.rows], "seconds": graded.seconds}, indent=1)
        _replace(self.folder / f"{key}.json", text)


def _key(one: HandedIn, course: str, limits: Limits) -> tuple[str, str]:
    """The hash of all that a result depends on; and the reason if the file cannot even be read."""
    if one.path.is_symlink():
        return "", "The file is a link to another place."
    try:
        if one.path.stat().st_size > MAX_NOTEBOOK_BYTES:
            return "", f"The file is larger than {MAX_NOTEBOOK_BYTES // 1_000_000} MB; clear its outputs."
        files = [one.path, *one.helpers()]
        contents = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    except OSError as error:
        return "", f"The file cannot be read ({error.strerror})."
    return hashlib.sha256(json.dumps([contents, course, asdict(limits)]).encode()).hexdigest()[:32], ""


def _fingerprint() -> str:
    """A hash of Python and the course's code: when a check has changed, earlier results do not count."""
    return hashlib.sha256(f"{sys.version} {course_code()}".encode()).hexdigest()


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
    os.replace(temporary, path)


# One notebook


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


# The tables


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
        _replace(out, text.getvalue())
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
