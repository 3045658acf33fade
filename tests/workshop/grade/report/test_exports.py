"""Files for learning platforms: filled in, or new, as text, as numbers, and readable by a spreadsheet."""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
import zipfile

import pandas as pd
import pytest

from workshop.grade.report.exports import ExportError, parse_formats, workbook, write_exports
from workshop.grade.report.points import read_points, totals, with_points
from workshop.grade.report.table import Row

FIRST, SECOND = "01_data_exploration", "02_unet"


@pytest.fixture
def graded(tmp_path):
    """Points of four students: 4 of 14, 2 of 14, 0 of 14, and one whose file could not be graded."""
    (tmp_path / "course.toml").write_text('[points]\n"1.1" = 2\n"2.1" = 2\n')
    points = read_points(tmp_path / "course.toml")

    def row(student, exercise, status):
        return Row(status, notebook=FIRST if exercise[0] == "1" else SECOND, exercise=exercise, student=student)

    rows = [row("Ana Müller", "1.1", "passed"), row("Ana Müller", "2.1", "passed"), row("=Ben", "1.1", "passed"),
            row("Kim Lee", "2.1", "failed"), Row("broken", "not JSON", student="Zed")]  # fmt: skip
    rows = with_points(rows, points)
    return rows, totals(rows, points)


PEOPLE = "Name,ID,Email\nAna Müller,0007,ana@uni.example\n=Ben,12,ben@uni.example\nKim Lee,,\n"


def export(tmp_path, graded, formats, roster=PEOPLE):
    (tmp_path / "roster.csv").write_bytes(roster.encode())
    said = write_exports(tmp_path / "grades.csv", formats, *graded, tmp_path / "roster.csv")
    content = (tmp_path / f"grades-{'students' if formats == ['csv'] else formats[0]}.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "without it Excel breaks names"
    text = content.decode("utf-8-sig")
    delimiter = ";" if ";" in text.split("\n")[0] else ","
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), said[0]


def test_a_line_for_each_student(tmp_path, graded):
    lines, _ = export(tmp_path, graded, ["csv"])
    assert lines[0] == ["student", FIRST, SECOND, "points", "out_of", "percent", "1.1", "2.1"]
    assert lines[1:] == [
        ["'=Ben", "2", "0", "2", "14", "14.29", "2", ""], ["Ana Müller", "2", "2", "4", "14", "28.57", "2", "2"],
        ["Kim Lee", "0", "0", "0", "14", "0", "", "0"], ["Zed", "0", "0", "0", "14", "0", "", ""],
    ]  # fmt: skip


WORKSHEET = """Identifier,"Full name","Email address",Status,Grade,"Maximum Grade","Grade can be changed",\
"Last modified (submission)","Last modified (grade)","Feedback comments"
"Participant 1","Ana Müller",ana@uni.example,"Submitted for grading",,100.00,Yes,"Friday, 27 November 2026",-,
"Participant 2",=Ben,ben@uni.example,Submitted,,100.00,Yes,-,-,
"Participant 3","Kim Lee",kim@uni.example,Submitted,3.00,100.00,No,-,-,kept
"Participant 4","No Body",nobody@uni.example,"No submission",,100.00,Yes,-,-,
"""


@pytest.mark.parametrize(("newline", "delimiter"), [("\n", ","), ("\r\n", ","), ("\n", ";")])
def test_the_worksheet_of_moodle_is_filled_in(tmp_path, graded, newline, delimiter):
    """Scaled to its maximum; what is locked, and whoever handed in nothing, stays."""
    given = list(csv.reader(io.StringIO(WORKSHEET)))
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(given)
    lines, said = export(tmp_path, graded, ["moodle"], file.getvalue())
    assert [line[4] for line in lines] == ["Grade", "28.57", "14.29", "3.00", ""]
    assert lines[1][9].startswith("4 of 14 points. 01_data_exploration: 2 of 8;") and lines[3][9] == "kept"
    assert said.endswith("2 of 3 students filled in.")
    for before, after in zip(given, lines, strict=True):
        assert [cell for n, cell in enumerate(before) if n not in (4, 9)] == [
            cell for n, cell in enumerate(after) if n not in (4, 9)
        ]  # fmt: skip
    assert newline.encode() in (tmp_path / "grades-moodle.csv").read_bytes()


CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Homework 1 (4711),Reading (5),Current Score
,,,,,Manual Posting,,(read only)
"    Points Possible",,,,,10.00,5.00,(read only)
"Müller, Ana",901,0007,ana@uni.example,A,,4,80
"=Ben",902,12,ben@uni.example,A,1.00,,80
"Lee, Kim",903,33,kim@uni.example,B,,,
"Student, Test",904,,abc,A,,,
"""


def test_the_gradebook_of_canvas_is_filled_in(tmp_path, graded):
    """An assignment that fits a notebook is filled in its own scale; one that is not there yet becomes a column."""
    lines, said = export(tmp_path, graded, ["canvas"], CANVAS)
    assert lines[0] == [*CANVAS.splitlines()[0].split(","), SECOND]
    assert [line[5] for line in lines[1:]] == ["Manual Posting", "10.00", "2.5", "2.5", "", ""]
    assert [line[8] for line in lines[1:]] == ["", "6", "2", "", "0", ""], "no 0 for a notebook not handed in"
    given = list(csv.reader(io.StringIO(CANVAS)))
    keep = (0, 1, 2, 3, 4, 6, 7)
    assert [[line[n] for n in keep] for line in lines] == [[line[n] for n in keep] for line in given]
    assert "3 of 3 students" in said


def test_the_gradebook_of_moodle_is_filled_in(tmp_path, graded):
    roster = "First name,Surname,ID number,Email address,Assignment: Data exploration (Real),Course total (Real)\n"
    roster += "Ana,Müller,0007,ana@uni.example,-,1.00\nKim,Lee,,,,\n"
    lines, said = export(tmp_path, graded, ["moodle"], roster)
    assert lines[0] == roster.splitlines()[0].split(",")
    assert lines[1:] == [["Ana", "Müller", "0007", "ana@uni.example", "2", "1.00"], ["Kim", "Lee", "", "", "", ""]]
    assert "2 of 3" in said and "not clear: '=Ben." in said


def test_new_files_have_the_columns_that_are_imported(tmp_path, graded):
    lines, said = export(tmp_path, graded, ["moodle"])
    assert lines[0] == ["Full name", "ID number", "Email address", FIRST, SECOND, "Total", "Feedback"]
    assert ["Ana Müller", "0007", "ana@uni.example", "2", "2", "4"] == lines[2][:6]
    assert "1 of them have neither" in said and "Zed" not in {line[0] for line in lines}
    lines, said = export(tmp_path, graded, ["canvas"])
    assert lines[:2] == [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", FIRST, SECOND],
                         ["    Points Possible", "", "", "", "", "8", "6"]]  # fmt: skip
    assert lines[3] == ["Ana Müller", "", "0007", "ana@uni.example", "", "2", "2"]
    assert [line[5:] for line in lines if line[0] == "Kim Lee"] == [["", "0"]]


def test_two_people_of_one_name_get_nothing_that_is_guessed(tmp_path, graded):
    roster = WORKSHEET.replace("No Body", "Kim Lee").replace(",No,", ",Yes,")
    lines, said = export(tmp_path, graded, ["moodle"], roster)
    assert [line[4] for line in lines[3:]] == ["3.00", ""] and "not clear: Kim Lee." in said


def cells(content):
    """Sheet -> lines of (type, value), read from the XML."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        parts = {name: ElementTree.fromstring(archive.read(name)) for name in archive.namelist()}
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    names = [sheet.get("name") for sheet in parts["xl/workbook.xml"].iter(f"{space}sheet")]
    return {
        name: [[(cell.get("t", "n"), "".join(cell.itertext())) for cell in row]
               for row in parts[f"xl/worksheets/sheet{number}.xml"].iter(f"{space}row")]
        for number, name in enumerate(names, 1)
    }  # fmt: skip


def test_a_workbook_holds_numbers_and_text_and_no_formula(tmp_path, graded):
    write_exports(tmp_path / "grades.csv", ["xlsx"], *graded)
    content = (tmp_path / "grades.xlsx").read_bytes()
    sheets = cells(content)
    assert list(sheets) == ["students", "exercises"]
    assert sheets["students"][1][:3] == [("inlineStr", "=Ben"), ("n", "2.0"), ("n", "0.0")]
    assert {kind for lines in sheets.values() for line in lines for kind, _ in line} == {"n", "inlineStr"}
    write_exports(tmp_path / "grades.csv", ["xlsx"], *graded)
    assert (tmp_path / "grades.xlsx").read_bytes() == content
    odd = workbook({"a<b": [["\x00\ud800<&>\u202e", 1, 2.5]]})
    assert cells(odd)["a<b"] == [[("inlineStr", "  <&> "), ("n", "1"), ("n", "2.5")]]


def test_a_workbook_opens_in_a_reader(tmp_path, graded):
    pytest.importorskip("openpyxl")
    write_exports(tmp_path / "grades.csv", ["xlsx"], *graded)
    table = pd.read_excel(tmp_path / "grades.xlsx", sheet_name="students")
    assert table["student"].tolist() == ["=Ben", "Ana Müller", "Kim Lee", "Zed"]
    assert table["points"].tolist() == [2, 4, 0, 0]


def test_formats():
    assert parse_formats(" Moodle,canvas ,csv,xlsx") == ["moodle", "canvas", "csv", "xlsx"]
    for text in ("", "excel", "csv;xlsx"):
        with pytest.raises(ExportError, match=re.escape("Known: csv, xlsx, moodle, canvas")):
            parse_formats(text)
