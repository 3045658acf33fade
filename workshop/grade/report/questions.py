"""The questions to be answered in words: what each student wrote, a page for each question, and marks given by hand."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from course_utils.exercises.questions import FRAME, Question, read_questions
from workshop.grade.collect.notebook_file import BrokenNotebook, course_cells, read_cells
from workshop.grade.report.page import text, write_page
from workshop.grade.report.points import Points, notebook_of
from workshop.grade.spreadsheets import cell, read_sheet, spreadsheet_safe, write_sheet
from workshop.paths import checkout

COLUMNS = ["student", "question", "points", "comment"]
_ASKED = re.compile(r"\*\*Question (\d+[a-z])\.\*\*")


class QuestionsError(ValueError):
    """The file with the marks cannot be used; the text names its line and says what to do."""


@dataclass(frozen=True)
class Mark:
    """What an instructor gave for an answer; None if nothing yet."""

    points: float | None = None
    comment: str = ""


@functools.cache
def course_questions() -> dict[str, Question]:
    """The questions of the course, by id. Empty where the solutions are not there."""
    return read_questions(checkout() / "solutions")


def read_answers(content: bytes) -> dict[str, str]:
    """Question -> what the student wrote, in a notebook file. Empty for a file that cannot be read.

    An answer is what stands in the cell for it, found by its id or its metadata, and every text of the student's own
    below the question, up to the next cell of the course: people copy cells, add some, and lose what marks them.
    """
    answers: dict[str, dict[str, None]] = {}
    current = ""
    try:
        cells = read_cells(content)
    except BrokenNotebook:
        return {}
    for one in cells:
        source, marked = one.source, {mark: id_ for mark, id_ in one.marks.items() if notebook_of(id_)}
        asked = _ASKED.search(source)
        if marked.get("question") or (asked and one.kind == "markdown"):
            current = marked.get("question") or asked[1]
            source = _below(source, current)
        elif _same(source) in _course_texts() and not marked.get("answer"):
            current = ""
        to = marked.get("answer") or (current if one.kind != "code" else "")
        own = FRAME.sub("", source).strip()
        if to and own:
            answers.setdefault(to, {})[own] = None
    return {question: "\n\n".join(texts) for question, texts in sorted(answers.items())}


@functools.cache
def _course_texts() -> frozenset[str]:
    return frozenset(_same(cell.source) for cell in course_cells() if not {"answer", "model"} & cell.marks.keys())


def _same(source: str) -> str:
    return " ".join(source.split())


def _below(source: str, question: str) -> str:
    """What somebody wrote into the cell of a question: all but the question, or all but its first paragraph."""
    known = course_questions().get(question)
    words = known.asked.split() if known else []
    found = re.search(r"\s+".join(map(re.escape, words)), source) if words else None
    return source[: found.start()] + source[found.end() :] if found else source.partition("\n\n")[2]


# Marks


def merge_marks(path: Path, answers: Mapping[tuple[str, str], str], points: Points) -> dict[tuple[str, str], Mark]:
    """The marks in a CSV file, to which answers that are new are appended; what stands in it stays.

    Spreadsheets may have saved it with another separator, a decimal comma, more columns or lines in another order.

    Args:
        path: student, question, points, comment. Written if it is not there, or an answer is new.
        answers: (student, question) -> text.
        points: what each question is worth.

    Raises:
        QuestionsError: a line of it cannot be understood.
        OSError: it cannot be read or written.
    """
    content = path.read_bytes() if path.exists() else b""
    sheet = read_sheet(content)
    header, *lines = sheet.lines or [COLUMNS]
    names = [name.strip().lower() for name in header]
    if missing := [name for name in COLUMNS if name not in names]:
        raise QuestionsError(f"{path}:1: no column {missing[0]!r}; expected the columns {', '.join(COLUMNS)}.")
    marks: dict[tuple[str, str], Mark] = {}
    for number, line in enumerate(lines, 2):
        values = dict(zip(names, line, strict=False))
        key = _unquoted(values.get("student", "")), values.get("question", "").strip()
        if any(key) and key not in marks:
            mark = _number(path, number, key[1], values.get("points", ""), points)
            marks[key] = Mark(mark, _unquoted(values.get("comment", "")))
    new = [key for key, answer in sorted(answers.items()) if answer and (spreadsheet_text(key[0]), key[1]) not in marks]
    if new or not content:
        waiting = [{"student": spreadsheet_safe(student), "question": question} for student, question in new]
        more = ([values.get(column, "") for column in names] for values in waiting)
        write_sheet(path, [header, *lines, *more], sheet.delimiter)
    students = {spreadsheet_text(student): student for student, _ in answers}
    marks |= {(spreadsheet_text(student), question): Mark() for student, question in new}
    return {(students.get(student, student), question): mark for (student, question), mark in marks.items()}


def _number(path: Path, line: int, question: str, written: str, points: Points) -> float | None:
    if not written.strip():
        return None
    if question not in points.out_of:
        raise QuestionsError(f"{path}:{line}: there is no question {question!r}.")
    most = points.out_of[question]
    try:
        value = float(written.strip().replace(",", "."))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        advice = "" if most else f' Give the question points first: "{question}" = 2 below [points] in course.toml.'
        raise QuestionsError(f"{path}:{line}: points {written!r}, expected a number from 0 to {most:g}.{advice}")
    return value


def spreadsheet_text(student: str) -> str:
    """A name as it is read back from a table."""
    return _unquoted(spreadsheet_safe(student))


def _unquoted(written: str) -> str:
    written = " ".join(written.split())
    return written[1:] if re.match(r"'[=+\-@＝＋－＠]", written) else written


# Pages


def write_question_pages(
    folder: Path, answers: Mapping[tuple[str, str], str], marks: Mapping[tuple[str, str], Mark], points: Points
) -> list[Path]:
    """A page for each question that somebody answered: the model answer, beside it one row for each student.

    The folder has the name of the file with the marks, without its `.csv`.
    """
    written = []
    for question in sorted({question for _, question in answers}):
        known = course_questions().get(question, Question(question, "", ""))
        worth = points.out_of.get(question, 0.0)
        own = {student: answer for (student, about), answer in sorted(answers.items()) if about == question}
        rows = "".join(_answer(student, answer, marks.get((student, question), Mark()), worth)
                       for student, answer in own.items())  # fmt: skip
        body = (
            f'<div class="text">{markdown(known.asked)}</div>'
            f"<p>Answers: {len([one for one in own.values() if one])}. Points: {cell(worth)}. "
            f"Marks and comments go into {folder.name}.csv; the same command reads them back.</p>"
            f'<div class="columns"><div><h2>Answers</h2>{rows}</div>'
            '<div><section class="box model"><h2>Model answer</h2>'
            f'<div class="text">{markdown(known.answer) or "There is none here."}</div></section></div></div>'
        )
        path = folder / f"question-{question}.html"
        write_page(path, f"Question {question}", body, ".model { position: sticky; top: 0; } .model h2 { margin: 0; }")
        written.append(path)
    return written


def _answer(student: str, answer: str, mark: Mark, worth: float) -> str:
    given = "" if mark.points is None else f" ({cell(mark.points)} of {cell(worth)})"
    comment = f"<p>{text(mark.comment)}</p>" if mark.comment else ""
    shown = f'<div class="text">{text(answer)}</div>' if answer else "<p>No answer.</p>"
    return f'<section class="box"><h3>{text(student)}{given}</h3>{shown}{comment}</section>'


def markdown(source: str) -> str:
    """The few marks of Markdown that questions and model answers use, as HTML."""
    made = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text(source))
    made = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", made)
    return re.sub(r"(?<=\S)\n *(?=[^\s*|\d-])", " ", made)
