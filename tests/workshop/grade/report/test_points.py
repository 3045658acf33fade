"""Points: what `course.toml` says, what is wrong with it, and what each student has."""

import pytest

from course_utils.exercises import list_exercises
from workshop.grade.report import points as module
from workshop.grade.report.points import PointsError, read_points, totals, with_points
from workshop.grade.report.table import Row

IDS = [exercise.id for exercise in list_exercises()]


def written(tmp_path, text, name="course.toml"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def test_without_a_file_each_exercise_has_one_point(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "checkout", lambda: tmp_path)
    assert read_points(questions=["1a"]).out_of == {**dict.fromkeys(IDS, 1.0), "1a": 0.0}
    written(tmp_path, "default = 3")
    assert set(read_points().out_of.values()) == {3.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"1.1": 1, "2.3": 1, "1a": 0}),
        ('default = "difficulty"', {"1.1": 1, "2.3": 4, "1a": 0}),
        ('default = 0.5\n[points]\n"1.7" = 4\n1.6 = 2\n"1a" = 3', {"1.1": 0.5, "1.7": 4, "1.6": 2, "1a": 3}),
        ('[weights]\n"01_data_exploration" = 0.5\n"02" = 0\n[points]\n"1a" = 2', {"1.1": 0.5, "2.1": 0, "1a": 1}),
        ("\ufeffdefault = 2", {"1.1": 2}),
    ],
)
def test_what_the_file_says(tmp_path, text, expected):
    found = read_points(written(tmp_path, text), ["1a"]).out_of
    assert {id_: found[id_] for id_ in expected} == expected


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('default = 1\n\n[points]\n"9.9" = 1', 4, "no exercise or question '9.9'; there are 1.1, "),
        ("[points]\n9.9 = 1", None, "no exercise or question '9.9'"),
        ('[points]\n"1.1" = -1', 2, "1.1 = -1: expected a number from 0"),
        ('[points]\n"1.1" = "two"', 2, "1.1 = 'two': expected a number"),
        ('[points]\n"1.1" = nan', 2, "1.1 = nan"),
        ('[points]\n"1.1" = inf', 2, "1.1 = inf"),
        ('[points]\n"1.1" = true', 2, "1.1 = True"),
        ('[weights]\n"07_stars" = 1', 2, "no notebook '07_stars'; there are 01_data_exploration, "),
        ("points = 3", 1, "expected a section, [points]"),
        ("# mine\npoint = 3", 2, "unknown key 'point'; known: default, "),
        ("[point]\n1.1 = 3", 1, "unknown key 'point'"),
        ('partial = "yes"', 1, "expected true or false"),
        ("late = 1.5", 1, "late = 1.5: expected a number from 0 to 1."),
        ('default = "hard"', 1, "expected a number"),
        ("default = 1\ndefault = 2", None, "line 2"),
        ('[points]\n"1.1" = ', None, "line 2"),
        (b"\xff\xfe", None, "not TOML"),
    ],
)
def test_errors_name_the_line_and_what_is_expected(tmp_path, text, line, says):
    with pytest.raises(PointsError) as error:
        read_points(written(tmp_path, text))
    assert says in str(error.value) and "course.toml" in str(error.value)
    assert line is None or f"course.toml:{line}: " in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PointsError, match="cannot be read"):
        read_points(tmp_path / "mine.toml")


def row(student, exercise, status, parts=(0, 0), file=""):
    notebook = next(one.notebook for one in list_exercises() if one.id == exercise)
    return Row(status, notebook=notebook, exercise=exercise, student=student, parts=parts, file=file)


ROWS = [
    row("ana", "1.1", "passed", (1, 1)), row("ana", "1.7", "failed", (3, 4)), row("ana", "1.7", "failed", file="late"),
    row("ben", "1.1", "passed", file="late"), row("ben", "2.1", "todo", (1, 2)),
    Row("broken", "not JSON", student="cleo"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ana", "ben", "out_of"),
    [
        ("", 1, 1, 12),
        ("partial = true", 1.75, 1, 12),
        ('partial = true\n[points]\n"1.7" = 4', 4, 1, 15),
        ("late = 0.5", 1, 0.5, 12),
        ('[weights]\n"02" = 2', 1, 1, 17),
        ('[points]\n"1a" = 2\n"5a" = 7', 2.5, 1, 14),
    ],
)
def test_totals(tmp_path, text, ana, ben, out_of):
    """Out of the two notebooks that somebody handed in; parts count if the file says so; a better attempt counts."""
    points = read_points(written(tmp_path, text), ["1a", "5a"])
    marks = {("ana", "1a"): 1.5 if points.out_of["1a"] else None, ("ben", "1a"): None, ("ben", "9z"): None}
    found = totals(with_points(ROWS, points, late=["late"]), points, marks)
    assert [(found[who].points, found[who].out_of) for who in ("ana", "ben", "cleo")] == [
        (ana, out_of), (ben, out_of), (0, out_of)
    ]  # fmt: skip
    assert sum(of for _, of in found["ana"].notebooks.values()) == out_of
    assert found["ben"].open == (points.out_of["1a"] > 0) and found["ana"].open == 0
    assert found["ana"].percent == pytest.approx(100 * ana / out_of)
