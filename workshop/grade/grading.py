"""Grades what students hand in: every exercise of every notebook is checked, and tables and pages are written.

    collect/    what was handed in, and by whom
    box/        the confined process in which a notebook runs
    judge/      decides about its exercises from outside
    report/     points, the table, pages for the class and for each student, files for the LMS
    kept.py, spreadsheets.py    finished results; how CSV files are read and written

A notebook that ends its process, hangs or cannot be read does not affect other students. `workshop.cluster` spreads
notebooks over several workers. Finished results are kept beside the table (`kept`): an interrupted run continues where
it was, and what was handed in again is graded again, as is everything after a check has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from course_utils.exercises import list_exercises
from workshop.cluster import JobFailed, Say, Stop, executor
from workshop.grade.box.box import Limits
from workshop.grade.box.folders import own_folder
from workshop.grade.box.sandbox import Sandbox, find_sandbox
from workshop.grade.collect.handed_in import HandedIn, find_handed_in
from workshop.grade.judge.process import Graded, grade_notebook
from workshop.grade.kept import Kept, signing_key
from workshop.grade.report.files import Wanted, all_files, write_files
from workshop.grade.report.table import SYMBOLS, Row, summary
from workshop.grade.spreadsheets import spreadsheet_safe
from workshop.paths import course_code

RESULTS = ".results"  # the folder of finished results is named after the table, with this behind it
NOT_GRADED = ("broken", "superseded", "missing", "extra")  # fields of HandedIn, and statuses of their lines
UNFINISHED = 2  # times that a grader may be killed while it grades the same notebook
Job = tuple[HandedIn, str]  # with the name of its result


class GradingError(ValueError):
    """Grading cannot start or its table cannot be written; the text says in one sentence what to do."""


def grade(
    folder: str | Path, out: str | Path = "grades.csv", workers: int = 1, again: bool = False,
    limits: Limits | None = None, dask: str | None = None, sandbox: str = "auto", image: str | None = None,
    wanted: Wanted | None = None,
) -> list[Row]:  # fmt: skip
    """Grade every notebook below a folder, print a table of students and exercises, and write a CSV file.

    Args:
        folder: what was handed in, as it comes from the LMS; or one notebook.
        out: the CSV file. Finished results are kept in a folder beside it, `<out>.results`.
        workers: notebooks that are graded at the same time.
        again: forget the results of earlier runs.
        limits: for each notebook.
        dask: address of the scheduler of a running cluster that grades them instead.
        sandbox: what confines the notebooks, see `box.find_sandbox`; `image`: of the container.
        wanted: further files to read and to write.

    Returns:
        The lines of the CSV file, by student, notebook and exercise.

    Raises:
        GradingError: nothing was handed in, or the results cannot be written.
        SandboxError: nothing confines the notebooks, and "unsafe" was not asked for.
        ClusterError: see `cluster.executor`.
    """
    folder, out, wanted, limits = Path(folder), Path(out), wanted or Wanted(), limits or Limits()
    if out.suffix.lower() in (".xlsx", ".html"):
        raise GradingError(f"--out {out}: the table is a CSV file; page and workbook (--format xlsx) come beside it.")
    box = find_sandbox(sandbox, image)
    wanted.read_points()  # a mistake in the file is told before hours of grading
    kept = Kept(out.with_name(out.name + RESULTS).absolute(), signing_key())
    with _writing(out):
        kept.folder.mkdir(parents=True, exist_ok=True)
    with own_folder("unpacked-", kept.folder) as unpacked:
        own = all_files(out, wanted) | {kept.folder}
        handed_in = find_handed_in(folder, unpacked, wanted.roster, wanted.pattern, own)
        if not handed_in:
            raise GradingError(f"Nothing was handed in below {folder}: give the folder with the students' files.")
        print(box.description, flush=True)
        if again:
            with _writing(out):
                kept.forget()
        run = partial(_grade_some, kept=kept, workers=workers, limits=limits, dask=dask, sandbox=box)
        graded, jobs = _finished(handed_in, kept, limits, box)
        total = len(graded) + len(jobs)
        # Notebooks beside which a grader was killed come last, one by one: they may kill this one, too, when the others
        # are written.
        suspects = [job for job in jobs if kept.unfinished(job[1])]
        for some in ([job for job in jobs if job not in suspects], *([job] for job in suspects)):
            graded |= run(some, done=len(graded), total=total) if some else {}
            with _writing(out):
                rows, said = write_files(out, _rows(handed_in, graded), handed_in, graded, wanted)
    print("\n".join([summary(rows), "", *said]))
    return rows


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = Path(error.filename2 or error.filename or out)
        if where.suffix == ".partial":  # see `replacing`
            where = where.with_name(where.name[1:].rsplit(".", 2)[0])
        raise GradingError(
            f"{where} cannot be written ({error.strerror}); close it elsewhere or name another place, and start again: "
            "finished results are kept."
        ) from error


def _rows(handed_in: Sequence[HandedIn], graded: dict[HandedIn, Graded]) -> list[Row]:
    """A line for each exercise of each notebook, and one for each file that was not graded."""
    rows = []
    for one in handed_in:
        new = graded[one].rows if one in graded else (Row("broken", "It was not graded yet: start again."),)
        if not one.to_grade:
            status = next(name for name in NOT_GRADED if getattr(one, name))
            new = (Row(status, getattr(one, status)),)
        note = f"{'Late. ' * one.late}{one.note}".strip()
        for row in new:
            rows.append(replace(row, message=f"{row.message} {note}".strip(), student=one.student, file=one.file))
    place = {exercise.id: number for number, exercise in enumerate(list_exercises())}
    return sorted(rows, key=lambda row: (row.student, row.notebook, place.get(row.exercise, -1), row.file))


def _finished(
    handed_in: Sequence[HandedIn], kept: Kept, limits: Limits, sandbox: Sandbox
) -> tuple[dict[HandedIn, Graded], list[Job]]:
    """The notebooks that need not be graded, and those that wait."""
    course = course_code()
    graded: dict[HandedIn, Graded] = {}
    waiting: list[Job] = []
    for one in handed_in:
        if not one.to_grade:
            continue
        try:
            name = _name(one, course, limits, sandbox)
        except OSError as error:
            graded[one] = Graded((Row("broken", f"The file cannot be read ({error.strerror})."),), final=False)
            continue
        if known := kept.read(name):
            graded[one] = known
        elif (times := kept.unfinished(name)) >= UNFINISHED:
            text = f"The grader was killed {times} times while it graded this notebook; --again tries once more."
            graded[one] = Graded((Row("broken", text),), final=False)
        else:
            waiting.append((one, name))
    if graded:
        print(f"{len(graded)} of {len(graded) + len(waiting)} notebooks are done already.", flush=True)
    return graded, waiting


def _name(one: HandedIn, course: str, limits: Limits, sandbox: Sandbox) -> str:
    """The name of a notebook's result: a hash of everything that it depends on. Raises `OSError`."""
    contents = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in (one.path, *one.modules)]
    depends = [contents, sys.version, course, asdict(limits), sandbox.kind]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:32]


def _grade_some(
    jobs: Sequence[Job], done: int, total: int, kept: Kept, workers: int, limits: Limits, dask: str | None,
    sandbox: Sandbox,
) -> dict[HandedIn, Graded]:  # fmt: skip
    """The results of notebooks; says each as it comes, and how long the others will take."""
    graded: dict[HandedIn, Graded] = {}
    names = [name for _, name in jobs]
    with kept.unmarked(names), executor(min(workers, len(jobs)), dask, needs_tls=not sandbox.safe) as pool:
        pool.check_shared_paths([kept.folder, *(one.path for one, _ in jobs)])
        started = time.monotonic()
        try:
            for (one, _), result in pool.run(partial(_grade_one, kept=kept, limits=limits, sandbox=sandbox), jobs):
                if isinstance(result, JobFailed):
                    result = Graded((Row("broken", f"It could not be graded: {result.reason}"),), final=False)
                graded[one] = result
                count = Counter(row.status for row in result.rows)
                states = ", ".join(f"{count[status]} {status}" for status in SYMBOLS if count[status])
                left = (time.monotonic() - started) / len(graded) * (len(jobs) - len(graded))
                rest = f"; about {left / 60:.0f} min left" if left > 60 else ""
                number = f"[{done + len(graded)}/{total}]"
                print(f"{number} {spreadsheet_safe(one.file)}: {states} ({result.seconds:.1f} s){rest}", flush=True)
        except BaseException:
            finished = done + len(graded) + sum(1 for one, name in jobs if one not in graded and kept.read(name))
            print(f"{finished} of {total} notebooks are done; the same command continues.", flush=True)
            raise
    return graded


def _grade_one(job: Job, _: Say, stop: Stop, kept: Kept, limits: Limits, sandbox: Sandbox) -> Graded:
    """Grade one notebook and keep the result, unless a worker that died afterwards has done it already."""
    one, name = job
    if known := kept.read(name):
        return known
    try:
        with contextlib.nullcontext() if sandbox.safe else kept.mark(name):
            graded = grade_notebook(one, limits, stop, sandbox)
        if graded.final:
            kept.write(name, graded)
    except Exception as error:  # the disk is full, the notebook was moved, or the grader has a fault
        text = str(error) if isinstance(error, OSError) else repr(error)
        return Graded((Row("broken", f"It could not be graded: {text}"),), final=False)
    return graded
