"""Answers in words: found in whatever state a notebook is, shown, and marked by hand in a file that keeps its marks."""

import json
import time

import pytest

from workshop.build.versions import OWN_ANSWER
from workshop.grade.report.points import read_points
from workshop.grade.report.questions import (
    Mark,
    QuestionsError,
    course_questions,
    merge_marks,
    read_answers,
    write_question_pages,
)
from workshop.paths import checkout

NOTEBOOK = checkout() / "notebooks" / "01_data_exploration.ipynb"
COURSE = json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def handed_in(change):
    """The answers in the student version after a change of its cells."""
    notebook = json.loads(json.dumps(COURSE))
    cells = notebook["cells"]
    place = next(number for number, cell in enumerate(cells) if cell["id"] == "answer-1a")
    change(cells, place)
    return read_answers(json.dumps(notebook).encode())


def text(source, **more):
    return {"cell_type": "markdown", "metadata": {}, "source": source, **more}


def written(cells, place, answer="Crop."):
    cells[place]["source"] = OWN_ANSWER.replace("*Double-click here, and write in place of this line.*", answer)


def without_marks(cells, place):
    written(cells, place)
    for cell in cells:
        cell.pop("id")
        cell["metadata"] = {}


def question_below(cells, place):
    cells[place - 1]["source"] += "\n\nCrop."


def as_code(cells, place):
    cells[place] = {**cells[place], "cell_type": "code", "source": "Crop.", "outputs": [], "execution_count": None}


def copied(cells, place):
    written(cells, place)
    cells.insert(place, json.loads(json.dumps(cells[place])))


def moved(cells, place):
    written(cells, place)
    cells.append(cells.pop(place))


@pytest.mark.parametrize(
    "change",
    [
        written,
        without_marks,
        question_below,
        as_code,
        copied,
        moved,
        lambda cells, place: written(cells, place, "*Double-click here, and write in place of this line.*\n\nCrop."),
        lambda cells, place: cells[place].update(source=["Cro", "p."]),
        lambda cells, place: cells[place].update(source="Crop.\r\n", metadata={}, id="new"),
        lambda cells, place: cells.insert(place, text("Crop.")),
        lambda cells, place: cells.insert(place + 1, text("Crop.", cell_type="raw")),
        lambda cells, place: cells.__setitem__(place, text("Crop.")),
        lambda cells, place: cells[place].update(source="Crop.", id="answer-1a-2", metadata={"course": None}),
    ],
)
def test_an_answer_is_found(change):
    assert handed_in(change) == {"1a": "Crop."}


def test_nothing_else_is_an_answer():
    assert read_answers(NOTEBOOK.read_bytes()) == {}
    note = {"cell_type": "markdown", "source": "A note far from any question.", "metadata": {}}
    assert handed_in(lambda cells, place: cells.insert(0, note)) == {}
    marked = text("x", metadata={"course": {"answer": "9z"}})
    assert handed_in(lambda cells, place: cells.append(marked)) == {}


def test_two_texts_below_one_question_are_both_kept():
    def change(cells, place):
        written(cells, place)
        cells.insert(place + 1, text("And pad."))

    assert handed_in(change) == {"1a": "Crop.\n\nAnd pad."}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"cells": 5}', b'{"cells": [5, null, {"source": 5}]}']
)
def test_other_files_have_no_answers(content):
    assert read_answers(content) == {}


def test_every_question_of_the_course_has_its_model_answer():
    known = course_questions()
    assert len(known) == 28 and list(known) == sorted(known)
    assert all(f"**Question {id_}.**" in one.asked and len(one.answer) > 100 for id_, one in known.items())
    solved = read_answers((checkout() / "solutions" / "01_data_exploration.py").read_bytes())
    assert solved == {}, "a source is no notebook"


# marks

ANSWERS = {("Ana", "1a"): "Crop.", ("=Ben", "1a"): "Pad.", ("Ana", "1b"): "No.", ("Cleo", "1a"): ""}


@pytest.fixture
def points(tmp_path):
    (tmp_path / "course.toml").write_text('[points]\n"1a" = 2\n')
    return read_points(tmp_path / "course.toml", course_questions())


def test_marks_are_kept_and_new_answers_appended(tmp_path, points):
    path = tmp_path / "questions.csv"
    assert merge_marks(path, ANSWERS, points) == {key: Mark() for key, answer in ANSWERS.items() if answer}
    first = path.read_bytes()
    lines = ["student,question,points,comment", "'=Ben,1a,,", "Ana,1a,,", "Ana,1b,,"]
    assert first.decode("utf-8-sig").splitlines() == lines
    merge_marks(path, ANSWERS, points)
    assert path.read_bytes() == first, "nothing new, nothing written"
    # as saved by a spreadsheet: semicolons, a decimal comma, another order, one more column, the encoding of Windows
    saved = "Question;Student;Points;Comment;who\r\n1a;'=Ben;1,5;Schön: warum?;me\r\n1a;Ana;;;\r\n1z;Gone;;;\r\n"
    path.write_bytes(saved.encode("cp1252"))
    marks = merge_marks(path, ANSWERS | {("Dmitri", "1a"): "Resize."}, points)
    assert marks["=Ben", "1a"] == Mark(1.5, "Schön: warum?") and marks["Dmitri", "1a"] == Mark()
    assert path.read_text(encoding="utf-8-sig").splitlines() == [
        "Question;Student;Points;Comment;who", "1a;'=Ben;1,5;Schön: warum?;me", "1a;Ana;;;", "1z;Gone;;;",
        "1b;Ana;;;", "1a;Dmitri;;;",
    ]  # fmt: skip
    again = path.read_bytes()
    assert merge_marks(path, {}, points)["=Ben", "1a"].points == 1.5 and path.read_bytes() == again


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Ana,1a,3,", "questions.csv:3: points '3', expected a number from 0 to 2."),
        ("Ana,1a,good,", "points 'good'"), ("Ana,1a,-1,", "points '-1'"), ("Ana,1a,nan,", "points 'nan'"),
        ("Ana,9z,1,", "questions.csv:3: there is no question '9z'"),
        ("Ana,1b,1,", 'Give the question points first: "1b" = 2 below [points] in course.toml.'),
    ],
)  # fmt: skip
def test_errors_name_the_line(tmp_path, points, line, says):
    (tmp_path / "questions.csv").write_text(f"student,question,points,comment\nBen,1a,1,\n{line}\n")
    with pytest.raises(QuestionsError) as error:
        merge_marks(tmp_path / "questions.csv", ANSWERS, points)
    assert says in str(error.value)
    (tmp_path / "questions.csv").write_text("name,question\n")
    with pytest.raises(QuestionsError, match="no column 'student'"):
        merge_marks(tmp_path / "questions.csv", ANSWERS, points)


def test_a_page_for_each_question(tmp_path, points):
    answers = ANSWERS | {("<b>Dmitri</b>", "1a"): "<script>alert(1)</script>\u202e![x](http://example.org/x.png)"}
    pages = write_question_pages(tmp_path / "grades-questions", answers, {("Ana", "1a"): Mark(1.5, "Why?")}, points)
    assert [path.name for path in pages] == ["question-1a.html", "question-1b.html"]
    page = pages[0].read_text(encoding="utf-8")
    assert "Ana (1.5 of 2)" in page and "go into grades-questions.csv" in page
    assert "Why?" in page and "No answer." in page and "<strong>Crop</strong>" in page
    assert "<script" not in page and "<b>Dmitri" not in page and "\u202e" not in page and 'src="http' not in page


@pytest.mark.parametrize("text", ["<summary>" * 20_000, "<details" * 20_000, "**Question 1a.** " + "What " * 40_000])
def test_no_text_takes_long_to_read(text):
    cells = [{"cell_type": "markdown", "id": f"own-{number}", "metadata": {}, "source": source}
             for number, source in enumerate(["**Question 1a.** What?", text])]  # fmt: skip
    started = time.process_time()
    read_answers(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).encode())
    assert time.process_time() - started < 5
