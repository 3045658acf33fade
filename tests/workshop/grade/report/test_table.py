"""The table: short numbers, text that is no formula, the same bytes again, and a summary that fits into a terminal."""

import csv
import json
import random
from collections import Counter
from dataclasses import asdict

import pytest

from course_utils.exercises import list_exercises
from workshop.grade.report.table import COLUMNS, Outcome, Row, best_rows, summary, write_csv
from workshop.grade.spreadsheets import MAX_TEXT, cell, spreadsheet_safe


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n+", " -", "\0@", "＝"])
def test_formulas_are_texts(start):
    assert spreadsheet_safe(f"{start}SUM(A1)").startswith("'")


def test_messages_fit_on_one_line():
    assert spreadsheet_safe("a\n\n b\x1b[31m") == "a b [31m"
    assert len(spreadsheet_safe("x" * 10_000)) == MAX_TEXT
    assert spreadsheet_safe("Größe: 3 µm ✔") == "Größe: 3 µm ✔"


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (10, "10"), (2.0, "2"), (0.5, "0.5"), (1 / 3, "0.33"), (12345.678, "12345.68"), (1e6, "1000000")],
)
def test_numbers_are_short(number, shown):
    assert cell(number) == shown


def test_a_line_for_each_row(tmp_path):
    rows = [
        Row("failed", "Value: found 1,\nexpected 2.", False, "reads sys", (2, 3), "01_data_exploration", "1.1",
            "count_shapes", "=Ana", "a.ipynb", 0.5, 1.0),
        Row("broken", "The file is not JSON.", student="d\udcff", file="x"),
    ]  # fmt: skip
    for _ in range(2):
        write_csv(tmp_path / "grades.csv", rows)
        lines = list(csv.reader((tmp_path / "grades.csv").read_text(encoding="utf-8").splitlines()))
        assert lines == [
            COLUMNS,
            ["'=Ana", "01_data_exploration", "1.1", "count_shapes", "failed", "0.5", "1", "reads sys",
             "Value: found 1, expected 2.", "a.ipynb"],
            ["d", "", "", "", "broken", "0", "0", "", "The file is not JSON.", "x"],
        ]  # fmt: skip


def test_a_row_survives_json():
    row = Row("failed", parts=(2, 3), exercise="1.1")
    assert Row(**json.loads(json.dumps(asdict(row)))) == row
    assert Outcome(**json.loads(json.dumps(asdict(Outcome(parts=(1, 2)))))).parts == (1, 2)


def shuffled(rows):
    random.Random(0).shuffle(rows)
    return rows


def test_summary_counts_and_takes_the_better_of_two_files():
    def row(student, exercise, status, points=0.0, **more):
        notebook = "01_data_exploration" if exercise else ""
        return Row(status, student=student, exercise=exercise, points=points, out_of=2.0 * bool(exercise),
                   notebook=notebook, **more)  # fmt: skip

    rows = [
        row("ana", "1.1", "failed"), row("ana", "1.1", "passed", 2.0), row("ana", "1.2", "todo"),
        row("ben", "1.1", "passed", 2.0, look="wraps the reference"), row("ben", "1.2", "failed", 0.5),
        row("cleo", "", "broken"), row("cleo", "", "broken"), row("d\udcff", "", "broken"),
    ]  # fmt: skip
    table = [line.split() for line in summary(shuffled(rows)).strip("\n").split("\n")]
    assert table[:8] == [
        ["student", "01", "passed", "points", "!", "look"], ["12"], ["ana", "+.", "1", "2/4", "0", "0"],
        ["ben", "+x", "1", "2.5/4", "0", "1"], ["cleo", "0", "0/4", "2", "0"], ["d", "0", "0/4", "1", "0"], [],
        "passed in 01: 1.1 2, 1.2 0".split(),
    ]  # fmt: skip
    assert best_rows(rows)["ana", "1.1"].status == "passed"


@pytest.mark.parametrize("n", [1, 300])
def test_a_summary_fits_into_a_terminal(n):
    rows = [Row("passed", student=f"A long name {i:03}", exercise=one.id, notebook=one.notebook, out_of=1.0)
            for i in range(n) for one in list_exercises()]  # fmt: skip
    lines = summary(shuffled(rows)).split("\n")
    counts = Counter(exercise.notebook for exercise in list_exercises())
    assert max(map(len, lines)) <= 100 and len(lines) == n + 6 + len(counts)
    assert lines[3].split()[-3 - len(counts) : -4] == ["+" * count for count in [*counts.values()][1:]]


def test_an_empty_table_has_a_summary():
    assert "student" in summary([])
