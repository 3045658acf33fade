"""Grades the notebooks that students hand in: every exercise of every notebook is checked, and a table is written.

Each notebook is graded in its own processes (`workshop.grade.process`), with limits on time and memory. A notebook that
ends its process, hangs or cannot be read does not affect other students.

Finished results are kept beside the table, a small file for each notebook, named after a hash of everything that the
result depends on: the notebook, the course's code, the limits. So an interrupted run continues where it was, and a
notebook that was handed in again is graded again, as is everything after a check has changed. `workshop.cluster`
spreads the notebooks over several workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from course_utils.exercises import list_exercises
from course_utils.results import replacing
from workshop.cluster import JobFailed, Say, Stop, executor
from workshop.grade.process import Graded, Limits, grade_notebook
from workshop.grade.submissions import BrokenNotebook, SubmittedFile, find_submissions
from workshop.grade.table import SYMBOLS, Row, summary, write_csv
from workshop.paths import course_code

RESULTS = ".results"  # the folder of finished results is named after the table, with this behind it
MAX_NOTEBOOK_BYTES = 200_000_000


class GradingError(ValueError):
    """Grading cannot start or its table cannot be written; the text says in one sentence what to do."""


def grade(
    folder: str | Path, out: str | Path = "grades.csv", workers: int = 1, again: bool = False,
    limits: Limits | None = None, dask: str | None = None,
) -> list[Row]:  # fmt: skip
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
    folder, out = Path(folder), Path(out)
    submissions = find_submissions(folder)
    if not submissions:
        raise GradingError(f"There is no notebook (.ipynb) in {folder}; unpack the submissions there first.")
    results = out.with_name(out.name + RESULTS).absolute()
    with _writing(out):
        results.mkdir(parents=True, exist_ok=True)
        for path in results.glob("*.json") if again else ():
            path.unlink()
    graded = _grade_all(submissions, results, workers, limits or Limits(), dask)
    rows = [replace(row, student=one.student, file=one.file) for one in submissions for row in graded[one].rows]
    rows += _empty_folders(folder, submissions)
    place = {exercise.id: number for number, exercise in enumerate(list_exercises())}
    rows.sort(key=lambda row: (row.student, row.notebook, place.get(row.exercise, -1), row.file))
    with _writing(out):
        write_csv(out, rows)
    print(f"{summary(rows)}\n\n{len(rows)} lines in {out}")
    return rows


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GradingError(
            f"{out} cannot be written ({error.strerror}); close it elsewhere or name another --out, and start again: "
            "finished results are kept."
        ) from error


def _empty_folders(folder: Path, submissions: Sequence[SubmittedFile]) -> list[Row]:
    """A line for each student's folder that holds no notebook, so that nobody is overlooked."""
    names = {path.name for path in folder.glob("[!._]*/") if not path.name.endswith(RESULTS)}
    names -= {one.file.split("/")[0] for one in submissions}
    return [Row("broken", "There is no notebook (.ipynb) in this folder.", student=name, file=name) for name in names]


def _grade_all(
    submissions: Sequence[SubmittedFile], results: Path, workers: int, limits: Limits, dask: str | None
) -> dict[SubmittedFile, Graded]:
    """The result of each notebook: the one that was kept, or a new one."""
    course = course_code()
    graded: dict[SubmittedFile, Graded] = {}
    waiting = []
    for one in submissions:
        try:
            path = results / f"{_key(one, course, limits)}.json"
            known = _kept(path)
        except BrokenNotebook as error:
            known = Graded((Row("broken", str(error)),))
        if known:
            graded[one] = known
        else:
            waiting.append((one, path))
    if graded:
        print(f"{len(graded)} of {len(submissions)} notebooks are done already.", flush=True)
    if not waiting:
        return graded
    with executor(min(workers, len(waiting)), dask) as pool:
        pool.check_shared_paths([results, *(one.path for one, _ in waiting)])
        try:
            for (one, _), result in pool.run(partial(_grade_and_keep, limits=limits), waiting):
                if isinstance(result, JobFailed):
                    result = Graded((Row("broken", f"It could not be graded: {result.reason}"),), final=False)
                graded[one] = result
                count = Counter(row.status for row in result.rows)
                states = ", ".join(f"{count[status]} {status}" for status in SYMBOLS if count[status])
                number = f"[{len(graded)}/{len(submissions)}]"
                print(f"{number} {one.file}: {states} ({result.seconds:.1f} s)", flush=True)
        except BaseException:
            done = len(graded) + sum(1 for one, path in waiting if one not in graded and _kept(path))
            print(f"{done} of {len(submissions)} notebooks are done; the same command continues.", flush=True)
            raise
    return graded


def _grade_and_keep(one_and_path: tuple[SubmittedFile, Path], _: Say, stop: Stop, limits: Limits) -> Graded:
    """Grade one notebook and keep the result, unless a worker that died afterwards has done it already."""
    one, path = one_and_path
    if known := _kept(path):
        return known
    try:
        graded = grade_notebook(one, limits, stop)
        if graded.final:
            with replacing(path) as file:
                file.write(json.dumps(asdict(graded), indent=1).encode())
    except OSError as error:  # the disk is full, or the notebook was moved meanwhile
        return Graded((Row("broken", f"It could not be graded: {error}"),), final=False)
    return graded


def _kept(path: Path) -> Graded | None:
    """A result of an earlier run, or None if there is none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Graded(tuple(Row(**row) for row in kept["rows"]), kept["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _key(one: SubmittedFile, course: str, limits: Limits) -> str:
    """A hash of everything that a result depends on.

    Raises:
        BrokenNotebook: the file cannot be read.
    """
    if one.path.is_symlink():
        raise BrokenNotebook("The file is a link to another place.")
    try:
        if one.path.stat().st_size > MAX_NOTEBOOK_BYTES:
            raise BrokenNotebook(f"The file is larger than {MAX_NOTEBOOK_BYTES // 1_000_000} MB; clear its outputs.")
        files = [one.path, *one.modules()]
        contents = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    except OSError as error:
        raise BrokenNotebook(f"The file cannot be read ({error.strerror}).") from error
    return hashlib.sha256(json.dumps([contents, sys.version, course, asdict(limits)]).encode()).hexdigest()[:32]
