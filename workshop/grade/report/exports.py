"""Points as files that learning platforms import, and as a table or a workbook.

Moodle (docs.moodle.org, "Grade import" and "Assignment settings", offline grading worksheet): a line is mapped to a
user by "Email address" or "ID number"; a worksheet by its "Identifier", of which only "Grade" and "Feedback comments"
may change, and no column may be added. Canvas (Instructure community, "How do I import grades in the Gradebook?"): the
columns Student, ID, SIS User ID, SIS Login ID, Section, then assignments, "Name (id)" if they exist, and a first line
"Points Possible"; a column with another name makes a new assignment.
"""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from course_utils import did_you_mean
from course_utils.exercises import list_exercises
from course_utils.results import replacing
from workshop.grade.collect.students import Person, read_roster
from workshop.grade.report.points import Total
from workshop.grade.report.table import COLUMNS, Row, best_rows
from workshop.grade.spreadsheets import Sheet, cell, read_sheet, spreadsheet_safe, write_sheet

FORMATS = ("csv", "xlsx", "moodle", "canvas")
_GRADE = ("grade", "bewertung")
_MAXIMUM = ("maximum grade", "bestwertung")
_COMMENT = ("feedback comments", "feedback als kommentar")
_LOCKED = ("grade can be changed", "bewertung kann geändert werden")
_CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
_POSSIBLE = "Points Possible"
_NUMBERED = r"(?:notebook|nb|homework|hw|assignment|exercise|sheet|week|lab|aufgabe|blatt|übung|woche)s?\W*0*{}\b"


class ExportError(ValueError):
    """A file cannot be made; the text says what to do."""


def parse_formats(text: str) -> list[str]:
    """The formats in a list with commas. Raises `ExportError` for an unknown one.

    >>> parse_formats("moodle, xlsx")
    ['moodle', 'xlsx']
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names or [text] if name not in FORMATS]:
        hint = did_you_mean(unknown[0], FORMATS)
        raise ExportError(f"There is no format {unknown[0]!r}.{hint} Known: {', '.join(FORMATS)}.")
    return names


def export_file(out: Path, name: str) -> Path:
    """The file of a format beside the table `out`."""
    if name == "xlsx":
        return out.with_suffix(".xlsx")
    return out.with_name(f"{out.stem}-{'students' if name == 'csv' else name}.csv")


def write_exports(
    out: Path, formats: Sequence[str], rows: Sequence[Row], totals: Mapping[str, Total], roster: Path | None = None
) -> list[str]:
    """Write a file for each format; returns a sentence about each.

    Args:
        out: the table; beside `grades.csv` come `grades-moodle.csv`, `grades-students.csv` (csv), `grades.xlsx`.
        formats: of `FORMATS`.
        rows, totals: with points, and of each student.
        roster: a CSV file with the class. If it comes from the platform (the worksheet of an assignment or the
            gradebook of Moodle, the gradebook of Canvas), it is filled in: all that is not a grade stays as it is.

    Raises:
        OSError: a file cannot be read or written.
        RosterError: nobody is found in the roster.
    """
    said = []
    graded = {(row.student, row.notebook) for row in rows if row.exercise}
    known = {  # who handed in nothing gets no grade, not even 0, in the platform
        student: replace(total, notebooks={name: total.notebooks[name] for name in sorted(total.notebooks)
                                           if (student, name) in graded})
        for student, total in totals.items() if student in {who for who, _ in graded}
    }  # fmt: skip
    people = read_roster(roster) if roster else []
    lms = read_sheet(roster.read_bytes()) if roster else Sheet([[]])
    for name in dict.fromkeys(formats):
        path = export_file(out, name)
        note = f"{len(totals)} students."
        if name == "xlsx":
            exercises = [COLUMNS, *([getattr(row, column) for column in COLUMNS] for row in rows)]
            with replacing(path) as file:
                file.write(workbook({"students": _students(rows, totals), "exercises": exercises}))
        else:
            sheet = _new(_students(rows, totals))
            if name != "csv":
                sheet, note = (_moodle if name == "moodle" else _canvas)(lms, known, people)
            write_sheet(path, sheet.lines, sheet.delimiter, sheet.newline)
        said.append(f"{path}: {note}")
    if formats and (waiting := sum(total.open for total in totals.values())):
        said.append(f"Answers that are not marked yet and count 0 in these files: {waiting}.")
    return said


def _students(rows: Sequence[Row], totals: Mapping[str, Total]) -> list[list[Any]]:
    """A line for each student: notebooks, total, out of, percent, exercises."""
    best = best_rows(rows)
    present = {id_ for _, id_ in best}
    ids = [exercise.id for exercise in list_exercises() if exercise.id in present]
    notebooks = _notebooks(totals)
    lines: list[list[Any]] = [["student", *notebooks, "points", "out_of", "percent", *ids]]
    for student, total in totals.items():
        own = [best[student, id_].points if (student, id_) in best else "" for id_ in ids]
        parts = [total.notebooks[name][0] for name in notebooks]
        lines.append([student, *parts, total.points, total.out_of, round(total.percent, 2), *own])
    return lines


def _notebooks(totals: Mapping[str, Total]) -> dict[str, float]:
    """Notebook -> points at most, of all that anybody handed in."""
    found = {name: out_of for total in totals.values() for name, (_, out_of) in total.notebooks.items()}
    return dict(sorted(found.items()))


def _own(total: Total, notebooks: Iterable[str]) -> list[Any]:
    return [total.notebooks[name][0] if name in total.notebooks else "" for name in notebooks]


def _new(lines: Sequence[Sequence[Any]]) -> Sheet:
    return Sheet([[cell(value) for value in line] for line in lines], newline="\r\n")


# Moodle


def _moodle(lms: Sheet, totals: Mapping[str, Total], people: Sequence[Person]) -> tuple[Sheet, str]:
    """The worksheet of an assignment filled in, else the gradebook, else a new table to map."""
    grade, comment, maximum, changeable = (_column(lms, names) for names in (_GRADE, _COMMENT, _MAXIMUM, _LOCKED))
    if grade is not None and _column(lms, ("identifier", "id")) is not None:

        def fill_worksheet(line: list[str], total: Total) -> bool:
            if changeable is not None and line[changeable].strip().lower() in ("no", "nein"):
                return False
            line[grade] = _scaled(total.points, total.out_of, "" if maximum is None else line[maximum])
            if comment is not None:
                line[comment] = _comment(total)
            return True

        return _filled(lms, totals, people, fill_worksheet)
    notebooks = _notebooks(totals)
    columns = _matching(lms, notebooks)
    if columns and _column(lms, ("email address", "id number", "e-mail-adresse", "matrikelnummer")) is not None:

        def fill_gradebook(line: list[str], total: Total) -> bool:
            for place, notebook in columns.items():
                if notebook in total.notebooks:
                    line[place] = cell(total.notebooks[notebook][0])
            return True

        return _filled(lms, totals, people, fill_gradebook)
    lines: list[list[Any]] = [["Full name", "ID number", "Email address", *notebooks, "Total", "Feedback"]]
    for student, total in totals.items():
        lines.append([student, *_ids(student, people), *_own(total, notebooks), total.points, _comment(total)])
    note = f'{len(totals)} students; map "Email address" to useremail, or "ID number" to useridnumber.'
    if unknown := sum(not (number or address) for _, number, address, *_ in lines[1:]):
        note += f" {unknown} of them have neither: give --roster with addresses or ids."
    return _new(lines), note


def _comment(total: Total) -> str:
    parts = [f"{name}: {cell(points)} of {cell(out_of)}" for name, (points, out_of) in total.notebooks.items()]
    rest = f" Answers that are not marked yet: {total.open}." if total.open else ""
    return f"{cell(total.points)} of {cell(total.out_of)} points. {'; '.join(parts)}.{rest}"


def _scaled(points: float, out_of: float, maximum: str) -> str:
    """Points in the scale of the platform, if it says which that is."""
    try:
        most = float(maximum.strip().replace(",", "."))
    except ValueError:
        most = 0.0
    return cell(points * most / out_of if most and out_of else points)


# Canvas


def _canvas(lms: Sheet, totals: Mapping[str, Total], people: Sequence[Person]) -> tuple[Sheet, str]:
    """The gradebook with the notebooks' columns filled in, or added; else a new one."""
    notebooks = _notebooks(totals)
    maximum = list(map(cell, notebooks.values()))
    header, *lines = lms.lines
    if [name.strip() for name in header[:2]] == _CANVAS[:2]:
        columns, width = _matching(lms, notebooks), len(header)
        new = [name for name in notebooks if name not in columns.values()]
        wide = [[*line, *[""] * (width + len(new) - len(line))] for line in lines]
        possible = next((line for line in wide if line[0].strip() == _POSSIBLE), [""] * width)
        possible[width:] = [most for name, most in zip(notebooks, maximum, strict=True) if name in new]

        def fill(line: list[str], total: Total) -> bool:
            for place, notebook in columns.items():
                if notebook in total.notebooks:
                    line[place] = _scaled(*total.notebooks[notebook], possible[place])
            line[width:] = map(cell, _own(total, new))
            return True

        return _filled(replace(lms, lines=[[*header, *new], *wide]), totals, people, fill)
    sheet = _new([[*_CANVAS, *notebooks], *(
        [student, "", *_ids(student, people), "", *_own(total, notebooks)]
        for student, total in totals.items()
    )])  # fmt: skip
    sheet.lines.insert(1, [f"    {_POSSIBLE}", "", "", "", "", *maximum])
    note = f"{len(totals)} students; better give Canvas's own gradebook as --roster: it has the ids that Canvas knows."
    return sheet, note


# Whose a line is, and which column


def _filled(
    lms: Sheet, totals: Mapping[str, Total], people: Sequence[Person], fill: Callable[[list[str], Total], bool]
) -> tuple[Sheet, str]:
    """The platform's own file with the grades; students without a hand-in keep what is there."""
    owners = {one.lines[0]: one.label for one in people if one.label in totals and len(one.lines) == 1}
    header, *lines = lms.lines
    lines = [[*line, *[""] * (len(header) - len(line))] for line in lines]
    count = sum(fill(lines[number], totals[student]) for number, student in owners.items())
    note = f"{count} of {len(totals)} students filled in."
    if left := [spreadsheet_safe(student) for student in totals if student not in owners.values()]:
        note += f" Not in it, or not clear: {', '.join(left[:9])}{', ...' * (len(left) > 9)}."
    return replace(lms, lines=[header, *lines]), note


def _ids(student: str, people: Sequence[Person]) -> tuple[str, str]:
    """The number and the e-mail address of a student, as far as they are known."""
    itself = (student,) if "@" in student or student.isdecimal() else ()
    ids = next((one.ids for one in people if one.label == student), itself)
    address = next((one for one in ids if "@" in one), "")
    return next((one for one in ids if one != address), ""), address


def _column(lms: Sheet, names: Sequence[str]) -> int | None:
    return next((place for place, name in enumerate(lms.lines[0]) if name.strip().lower() in names), None)


def _matching(lms: Sheet, notebooks: Sequence[str]) -> dict[int, str]:
    """Column -> notebook, by its topic ("data exploration") or its number behind a word ("Homework 1")."""
    found: dict[int, str] = {}
    for notebook in notebooks:
        number, _, topic = notebook.partition("_")
        for place, header in enumerate(lms.lines[0]):
            plain = re.sub(r"\(.*?\)", "", unicodedata.normalize("NFC", header).casefold())
            by_topic = topic.replace("_", "") in re.sub(r"[\W_]", "", plain)
            if place not in found and (by_topic or re.search(_NUMBERED.format(int(number)), plain)):
                found[place] = notebook
                break
    return found


# A workbook of Office Open XML (ECMA-376): text as inline strings, which no program takes for formulas.

_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def workbook(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    """A workbook (xlsx) of tables: name -> lines, the first of which stays in sight. Same tables, same bytes."""
    types = names = targets = ""
    for number, name in enumerate(sheets, 1):
        part = f"worksheets/sheet{number}.xml"
        types += f'<Override PartName="/xl/{part}" ContentType="{_TYPE}.worksheet+xml"/>'
        names += f'<sheet name="{escape(name)}" sheetId="{number}" r:id="r{number}"/>'
        targets += f'<Relationship Id="r{number}" Type="{_OFFICE}/worksheet" Target="{part}"/>'
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType='
        f'"application/xml"/><Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>{types}'
        "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{targets}</Relationships>',
    }
    parts |= {f"xl/worksheets/sheet{number}.xml": _sheet(lines) for number, lines in enumerate(sheets.values(), 1)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, (_XML + content).encode(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _sheet(lines: Sequence[Sequence[Any]]) -> str:
    made = []
    for line in lines:
        cells = []
        for value in line:
            if isinstance(value, (int, float)):
                cells.append(f"<c><v>{value!r}</v></c>")
            else:
                plain = "".join(letter if letter.isprintable() else " " for letter in value)
                cells.append(f'<c t="inlineStr"><is><t xml:space="preserve">{escape(plain[:32_000])}</t></is></c>')
        made.append(f"<row>{''.join(cells)}</row>")
    pane = '<pane xSplit="1" ySplit="1" topLeftCell="B2" activePane="bottomRight" state="frozen"/>'
    views = f'<sheetViews><sheetView workbookViewId="0">{pane}</sheetView></sheetViews>'
    return f'<worksheet xmlns="{_MAIN}">{views}<sheetData>{"".join(made)}</sheetData></worksheet>'
