"""Everything that is written when the notebooks are graded: the table, the page of the class, pages for students, files
for the LMS, and what was answered in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workshop.grade.collect.handed_in import HandedIn
from workshop.grade.judge.process import Graded
from workshop.grade.report.exports import FORMATS, export_file, write_exports
from workshop.grade.report.feedback import write_feedback
from workshop.grade.report.overview import write_overview
from workshop.grade.report.points import Points, read_points, totals, with_points
from workshop.grade.report.questions import course_questions, merge_marks, read_answers, write_question_pages
from workshop.grade.report.table import Row, write_csv


@dataclass(frozen=True)
class Wanted:
    """What is read and written besides the notebooks and the table; see `course.py grade --help`."""

    roster: Path | None = None
    pattern: str | None = None
    points: Path | None = None
    feedback: Path | None = None
    formats: tuple[str, ...] = ()

    def read_points(self) -> Points:
        """Raises `PointsError`."""
        return read_points(self.points, course_questions())


def questions_file(out: Path) -> Path:
    """The file for marks beside the table `out`; the pages lie in the folder of this name."""
    return out.with_name(f"{out.stem}-questions.csv")


def all_files(out: Path, wanted: Wanted) -> set[Path]:
    """The files and folders that this or an earlier run may have written: nobody handed them in."""
    marked = questions_file(out)
    found = {out, out.with_suffix(".html"), marked, marked.with_suffix("")}
    found |= {export_file(out, name) for name in FORMATS} | ({wanted.feedback} if wanted.feedback else set())
    return {path.absolute() for path in found}


def write_files(
    out: Path, rows: Sequence[Row], handed_in: Sequence[HandedIn], graded: Mapping[HandedIn, Graded], wanted: Wanted
) -> tuple[list[Row], list[str]]:
    """Write all files beside the table `grades.csv`; returns its lines, with points, and a sentence about each file.

    They are the page of the class `grades.html`, and if a question was answered `grades-questions.csv`, for the marks,
    and a page for each question in `grades-questions/`.

    Raises:
        OSError: a file cannot be written.
        QuestionsError: the marks that an instructor has written there cannot be understood.
    """
    points = wanted.read_points()
    late = {one.file for one in handed_in if one.late}
    rows = with_points(rows, points, late)
    answers = {
        (one.student, question): answer
        for one in handed_in if one in graded
        for question, answer in read_answers(one.path.read_bytes()).items()
    }  # fmt: skip
    marked = questions_file(out)
    marks = merge_marks(marked, answers, points) if answers or marked.exists() else {}
    total = totals(rows, points, {key: mark.points for key, mark in marks.items()})
    write_csv(out, rows)
    said = [f"{out}: {_counted(len(rows), 'line')}."]
    page = out.with_suffix(".html")
    write_overview(page, rows, total, late, [one.student for one in handed_in if one.missing])
    said.append(f"{page}: the class in pictures.")
    if answers:
        pages = write_question_pages(marked.with_suffix(""), answers, marks, points)
        said.append(f"{marked.with_suffix('')}: {_counted(len(pages), 'question')}; give marks in {marked}.")
    if wanted.feedback:
        pictures = {
            (one.student, exercise): picture
            for one, result in graded.items()
            for exercise, picture in result.pictures.items()
        }
        told = _without_notes(rows, handed_in)
        pages = write_feedback(wanted.feedback, told, total, pictures, answers, marks, points)
        said.append(f"{wanted.feedback}: {_counted(len(pages), 'page')}, one for each student.")
    said += write_exports(out, wanted.formats, rows, total, wanted.roster)
    return rows, said


def _without_notes(rows: Sequence[Row], handed_in: Sequence[HandedIn]) -> list[Row]:
    """The rows without what is for the instructor alone: it may name other students."""
    notes = {(one.student, one.file): one.note for one in handed_in}
    return [replace(row, message=row.message.removesuffix(notes[row.student, row.file]).strip()) for row in rows]


def _counted(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"
