"""A page for each student: what each exercise and question got, and why; nothing of other students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from course_utils.exercises import get_exercise
from workshop.grade.report.page import look_of, safe_file_name, text, write_page
from workshop.grade.report.points import Points, Total, notebook_of
from workshop.grade.report.questions import Mark, Question, course_questions, markdown
from workshop.grade.report.table import Row, best_rows
from workshop.grade.spreadsheets import cell

MAX_PICTURE = 1_000_000  # characters


def write_feedback(
    folder: Path,
    rows: Sequence[Row],
    totals: Mapping[str, Total],
    pictures: Mapping[tuple[str, str], str],
    answers: Mapping[tuple[str, str], str],
    marks: Mapping[tuple[str, str], Mark],
    points: Points,
) -> dict[str, Path]:
    """Write a page for each student; student -> its path.

    Args:
        folder: for the pages.
        rows: with points. What a person should look at (`look`) is not on the pages.
        totals: of each student.
        pictures: (student, exercise) -> HTML.
        answers, marks: (student, question) -> what the student wrote, and what it got.
        points: what each question is worth.
    """
    written = {}
    best = best_rows(rows)
    for student, total in totals.items():
        own = {exercise: row for (who, exercise), row in best.items() if who == student}
        said = {question: answer for (who, question), answer in answers.items() if who == student}
        notebooks = sorted({row.notebook for row in own.values()} | {notebook_of(question) for question in said})
        parts = [_score(total), _others([row for row in rows if row.student == student and not row.exercise])]
        for notebook in notebooks:
            got, of = total.notebooks.get(notebook, (0.0, 0.0))
            parts.append(f"<h2>{text(notebook)}: {cell(got)} of {cell(of)} points</h2>")
            parts += [
                _exercise(row, pictures.get((student, exercise), ""))
                for exercise, row in own.items() if row.notebook == notebook
            ]  # fmt: skip
            parts += [
                _question(question, answer, marks.get((student, question), Mark()), points)
                for question, answer in sorted(said.items()) if notebook_of(question) == notebook
            ]  # fmt: skip
        written[student] = folder / safe_file_name(student)
        write_page(written[student], f"Feedback for {student}", "\n".join(parts))
    return written


def _score(total: Total) -> str:
    rest = f" Answers that are not marked yet: {total.open}." if total.open else ""
    score = f"{cell(total.points)} of {cell(total.out_of)} points ({total.percent:.0f} %)"
    return f"<p><strong>{score}</strong>.{rest}</p>"


def _others(rows: Sequence[Row]) -> str:
    """Files without a verdict; what the table says to the instructor is said to the student."""
    said = [row.message.replace("ask for it", "hand it in").replace("ask for", "hand in") for row in rows]
    lines = "".join(f"<li>{text(row.file or 'No file')}: {text(one)}</li>" for row, one in zip(rows, said, strict=True))
    return f"<h2>Not graded</h2><ul>{lines}</ul>" if lines else ""


def _exercise(row: Row, picture: str) -> str:
    symbol, word, colour = look_of(row.status)
    try:
        title = f"{row.exercise} {get_exercise(row.exercise).title}"
    except KeyError:  # of a result that was kept from before the course changed
        title = f"{row.exercise} {row.name}"
    points = f" ({cell(row.points)} of {cell(row.out_of)})" if row.out_of else ""
    is_drawn = 0 < len(picture) < MAX_PICTURE and row.status != "passed"
    drawn = f"<figure>{picture}</figure>" if is_drawn else ""
    is_news = row.message and row.status != "passed" and not row.message.startswith(f"Exercise {row.exercise}:")
    said = f'<div class="text">{text(row.message)}</div>' if is_news else ""
    return (
        f'<section class="box" style="--mark: {colour}"><h3><span aria-hidden="true">{symbol}</span> '
        f"{text(title)}: {word}{points}</h3>{said}{drawn}</section>"
    )


def _question(question: str, answer: str, mark: Mark, points: Points) -> str:
    known = course_questions().get(question, Question(question, f"Question {question}", ""))
    worth = points.out_of.get(question, 0.0)
    given = "not marked yet" if mark.points is None else f"{cell(mark.points)} of {cell(worth)} points"
    given = f"<p><strong>{given}</strong></p>" if worth or mark.points is not None else ""
    comment = f'<div class="text">{text(mark.comment)}</div>' if mark.comment else ""
    return (
        f'<section class="box"><div class="text">{markdown(known.asked)}</div><h3>Your answer</h3>'
        f'<div class="text">{text(answer)}</div>{given}{comment}</section>'
    )
