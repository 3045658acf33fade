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

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from course_utils.exercises import list_exercises
from course_utils.results import replacing
from workshop.cluster import JobFailed, Say, Stop, executor
from workshop.grade.process import Graded, Limits, _broken, grade_notebook
from workshop.grade.submissions import HandedIn, find_submissions
from workshop.grade.table import SYMBOLS, GradingError, Row, _write, summary
from workshop.paths import course_code

RESULTS = ".results"  # what the folder of finished results is called, behind the name of the table
MAX_NOTEBOOK_BYTES = 200_000_000  # bytes


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


def _empty_folders(folder: Path, submissions: Sequence[HandedIn]) -> list[Row]:
    """A line for each student's folder that holds no notebook, so that nobody is overlooked."""
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    known = {one.file.split("/")[0] for one in submissions}
    known |= {name for name in folders if name.startswith((".", "_")) or name.endswith(RESULTS)}
    names = [name for name in folders if name not in known]
    return [Row(name, "", "", "", "broken", "There is no notebook (.ipynb) in this folder.", name) for name in names]


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
        with replacing(self.folder / f"{key}.json") as file:
            file.write(text.encode())


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
