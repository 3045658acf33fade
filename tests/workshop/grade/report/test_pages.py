"""Pages for students and instructors: complete, of one student only, and safe whatever a student wrote."""

import re

import numpy as np
import pytest
from lab_in_browser import browser_window
from pages_in_browser import faults_in_browser, served

from course_utils.exercises import list_exercises
from course_utils.exercises.pictures import Panel, Panels, compared
from workshop.grade.report.feedback import write_feedback
from workshop.grade.report.overview import folded, write_overview
from workshop.grade.report.page import picture, safe_file_name
from workshop.grade.report.points import read_points, totals, with_points
from workshop.grade.report.questions import Mark
from workshop.grade.report.table import Row

EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202e\ud800"


def row(student, exercise, status="passed", message="", **more):
    notebook = next(one.notebook for one in list_exercises() if one.id == exercise)
    file = f"{student}/x.ipynb"
    return Row(status, message, notebook=notebook, exercise=exercise, student=student, file=file, **more)


ROWS = [
    row("Ana", "1.1"), row("Ana", "1.2", "failed", "Value of the mean: found 3.5, expected 4."),
    row("Ana", "2.1", "todo", "Exercise 2.1"), row("Ben", "1.1", "failed", EVIL, look="reads sys._getframe"),
    row("Ben", "1.2", "failed", "Value of the mean: found 1e-9, expected 4."),
    row("Ben", "1.3", "broken", "Crash: SIGSEGV."),
    row(EVIL, "1.1", "failed", EVIL), Row("broken", "The file is not JSON.", student="Ana", file="ana/second.ipynb"),
]  # fmt: skip
PICTURE = '<img alt="found 1, expected 2" src="data:image/png;base64,AAAA">'


@pytest.fixture
def class_of_three(tmp_path):
    (tmp_path / "course.toml").write_text('partial = true\n[points]\n"1a" = 2\n')
    points = read_points(tmp_path / "course.toml", ["1a"])
    rows = with_points(ROWS, points)
    marks = {("Ana", "1a"): Mark(1.5, f"Why? {EVIL}"), ("Ben", "1a"): Mark()}
    return rows, totals(rows, points, {key: mark.points for key, mark in marks.items()}), marks, points


def test_a_page_for_each_student(tmp_path, class_of_three):
    rows, total, marks, points = class_of_three
    answers = {("Ana", "1a"): "Crop.", ("Ben", "1a"): EVIL}
    pages = write_feedback(tmp_path, rows, total, {("Ana", "1.2"): PICTURE}, answers, marks, points)
    assert set(pages) == {"Ana", "Ben", EVIL} and len(set(pages.values())) == 3
    texts = {student: path.read_text(encoding="utf-8") for student, path in pages.items()}
    ana = texts["Ana"]
    for part in ("2.5 of 14 points (18 %)", "1.1 Count the image sizes: passed (1 of 1)", "✘", "found 3.5, expected 4.",
                 "to do", "ana/second.ipynb: The file is not JSON.", "Crop.", "1.5 of 2 points", "Why?",
                 PICTURE):  # fmt: skip
        assert part in ana, part
    assert "Ben" not in ana and "Ana" not in texts["Ben"]
    assert "Answers that are not marked yet: 1." in texts["Ben"] and "not marked yet" in texts["Ben"]
    for page in texts.values():
        assert "_getframe" not in page, "what a person should look at is not for students"
        assert "<script" not in page and "<img src=x" not in page and "\x1b" not in page and "\u202e" not in page
        assert not re.search(r'(src|href)="(?!data:)', page), "nothing is loaded from elsewhere"


def test_a_picture_comes_only_where_something_is_wrong(tmp_path, class_of_three):
    rows, total, marks, points = class_of_three
    pages = write_feedback(tmp_path, rows, total, {("Ana", "1.1"): PICTURE}, {}, {}, points)
    assert "<figure>" not in pages["Ana"].read_text(encoding="utf-8")


NAMES = ["Ana", "ana", "Ana ", "a/b", "a\\b", "..", ".", "", "CON", "con", "Zoë", "Zoe\u0308", "名前", "x" * 300,
         "\x00", "\ud800", "a\nb"]  # fmt: skip


def test_file_names_are_safe_and_unique():
    names = [safe_file_name(name) for name in NAMES]
    assert len({name.casefold() for name in names}) == len(NAMES)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,60}-[0-9a-f]{8}\.html", name) for name in names)


def panels(*arrays, alt="found 1, expected 2", **options):
    return Panels(tuple(Panel("yours", array, **options) for array in arrays), alt)


def test_a_picture_is_drawn_with_its_text():
    drawn = picture(compared("the mask", np.eye(3), np.ones((3, 3)), np.eye(3)))
    assert drawn.count("<img") == 4 and "found 0, expected 1 at row 0, column 1" in drawn


def test_what_a_picture_says_is_text():
    drawn = picture(panels(np.eye(3), alt=f'" {EVIL}'))
    assert "<img src=x" not in drawn and "\x1b" not in drawn and "\u202e" not in drawn and "\ud800" not in drawn


@pytest.mark.parametrize("what", [
    None, 5, "x", ("Panels", {}), panels(), panels([[1, 2]]), panels(np.eye(0)), panels(np.array([[object()]])),
    panels(np.array([[1j]])), panels(np.ones(3)), panels(np.ones((2, 2, 2))), panels(*[np.eye(2)] * 7),
    panels(np.broadcast_to(np.float32(1), (3000, 3000))), panels(np.eye(3), alt=None), panels(np.eye(3), mark={}),
    panels(np.eye(3), outline="x"), panels(np.eye(3), corner=5), Panels((None,), "x"), Panel("yours", np.eye(2)),
], ids=range(19))  # fmt: skip
def test_what_cannot_be_drawn_is_no_picture(what):
    assert picture(what) == ""


def test_the_page_of_the_class(tmp_path, class_of_three):
    rows, total, _, _ = class_of_three
    write_overview(tmp_path / "class.html", rows, total, late=["Ana/x.ipynb"], missing=["No <i>Body</i>"])
    page = (tmp_path / "class.html").read_text(encoding="utf-8")
    order = re.findall(r'<th scope="row">(\d\.\d) ', page)
    assert order[:2] == ["1.1", "1.2"], "what fails most comes first"
    common = re.search(r"The most common messages.*?<tbody>(.*?)</tbody>", page, re.DOTALL)[1]
    assert re.findall(r'number">(\d+)</td><th scope="row">([\d.]+)', common)[:2] == [("2", "1.1"), ("2", "1.2")]
    for part in ("Handed in nothing: 1", "Late: 1", "To look at: 1", "Not graded: 1", "reads sys._getframe"):
        assert part in page, part
    assert "<img" not in page and "<i>Body" not in page and "\x1b" not in page


def test_in_a_browser_the_pages_are_accessible_and_fit_a_phone(tmp_path, class_of_three):
    rows, total, marks, points = class_of_three
    drawn = picture(compared("the mask", np.eye(3), np.ones((3, 3)), np.eye(3)))
    pages = write_feedback(tmp_path, rows, total, {("Ana", "1.2"): drawn}, {("Ana", "1a"): "Crop."}, marks, points)
    write_overview(tmp_path / "class.html", rows, total)
    with browser_window() as window, served(tmp_path) as address:
        addresses = [f"{address}/{name}" for name in ("class.html", pages["Ana"].name)]
        assert faults_in_browser(window, addresses, [(1400, "dark"), (390, "light")]) == []


@pytest.mark.parametrize("n", [0, 1, 300])
def test_a_class_of_any_size(tmp_path, n):
    points = read_points()
    rows = with_points([row(f"S{i}", one.id, "passed") for i in range(n) for one in list_exercises()], points)
    write_overview(tmp_path / "class.html", rows, totals(rows, points))
    page = (tmp_path / "class.html").read_text(encoding="utf-8")
    assert page.count('<td class="c-passed">') == len(list_exercises()) * n and len(page) < 400_000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Value at (3, 4): found 0.25, expected -1e-05.", "Value at (12, 0): found 3, expected 7."),
        ("Shape of the result: found (3,), expected (2,).", "Shape of the result: found (3, 4), expected (2,)."),
        ("The text 'abc' is not it.", "The text 'x y' is not it."),
    ],
)
def test_numbers_and_quoted_texts_in_messages_are_folded(one, other):
    assert folded(one) == folded(other) != folded("Value of the mean")
    assert "float32" in folded("found float32"), "names keep their digits"
