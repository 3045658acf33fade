"""Points as files that learning platforms import, and as a table or a workbook.

Moodle (docs.moodle.org, "Grade import" and "Assignment settings", offline grading worksheet): a line is mapped to a
user by "Email address" or "ID number"; a worksheet by its "Identifier", of which only "Grade" and "Feedback comments"
may change, and no column may be added. Canvas (Instructure community, "How do I import grades in the Gradebook?"): the
columns Student, ID, SIS User ID, SIS Login ID, Section, then assignments, "Name (id)" if they exist, and a first line
"Points Possible"; a column with another name makes a new assignment.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

from course_utils.exercises import list_exercises
from course_utils.results import replacing
from workshop.grade.report.points import Total
from workshop.grade.report.table import COLUMNS, Row, best_rows, cell, spreadsheet_safe

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


class Person(Protocol):
    """Somebody on the roster. `label` is the student's name in the rows."""

    label: str
    names: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class _Lms:
    """A CSV file of the platform's own, cell by cell."""

    header: list[str]
    lines: list[list[str]]
    delimiter: str
    newline: str

    def column(self, names: Sequence[str]) -> int | None:
        return next((place for place, name in enumerate(self.header) if name.strip().lower() in names), None)


def parse_formats(text: str) -> list[str]:
    """The formats in a list with commas. Raises `ExportError` for an unknown one.

    >>> parse_formats("moodle, xlsx")
    ['moodle', 'xlsx']
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(FORMATS):
        raise ExportError(f"{text!r} is not a list of formats; known: {', '.join(FORMATS)}.")
    return names


def write_exports(
    out: Path, formats: Sequence[str], rows: Sequence[Row], totals: Mapping[str, Total],
    roster: Path | None = None, people: Sequence[Person] = (),
) -> list[str]:  # fmt: skip
    """Write a file for each format; returns a sentence about each.

    Args:
        out: the table; beside `grades.csv` come `grades-moodle.csv`, `grades-students.csv` (csv), `grades.xlsx`.
        formats: of `FORMATS`.
        rows, totals: with points, and of each student.
        roster: a CSV file with the class. If it comes from the platform (the worksheet of an assignment or the
            gradebook of Moodle, the gradebook of Canvas), it is filled in: all that is not a grade stays as it is.
        people: those on the roster.

    Raises:
        OSError: a file cannot be read or written.
    """
    said = []
    graded = {row.student for row in rows if row.exercise}  # the others get no grade, not even 0, in the platform
    known = {student: total for student, total in totals.items() if student in graded}
    lms = _read(roster) if roster else None
    for name in dict.fromkeys(formats):
        path = out.with_name(f"{out.stem}-{'students' if name == 'csv' else name}.csv")
        if name == "xlsx":
            path = out.with_suffix(".xlsx")
            table = [list(line) for line in _students(rows, totals)]
            lines = [[getattr(row, column) for column in COLUMNS] for row in rows]
            with replacing(path) as file:
                file.write(workbook({"students": table, "exercises": [COLUMNS, *lines]}))
            said.append(f"{path}: {len(totals)} students.")
        elif name == "csv":
            _write(path, _students(rows, totals))
            said.append(f"{path}: {len(totals)} students.")
        else:
            make = _moodle if name == "moodle" else _canvas
            lines, note, delimiter, newline = make(lms, known, people)
            _write(path, lines, delimiter, newline)
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


def _notebooks(totals: Mapping[str, Total]) -> list[str]:
    return sorted(next(iter(totals.values())).notebooks) if totals else []


def _write(path: Path, lines: Sequence[Sequence[Any]], delimiter: str = ",", newline: str = "\r\n") -> None:
    """With a mark of the encoding, without which Excel breaks every name that is not plain English."""
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(
        [value if isinstance(value, _Kept) else cell(value) for value in line] for line in lines
    )
    with replacing(path) as written:
        written.write(file.getvalue().encode("utf-8-sig", errors="backslashreplace"))


class _Kept(str):
    """A cell of the platform's own file, which stays as it is."""


def _read(path: Path) -> _Lms | None:
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    return _Lms(lines[0], lines[1:], delimiter, "\r\n" if "\r\n" in text else "\n") if lines else None


# Moodle


def _moodle(lms: _Lms | None, totals: Mapping[str, Total], people: Sequence[Person]) -> tuple:
    """The worksheet of an assignment filled in, else the gradebook, else a new table to map."""
    if lms and lms.column(["identifier", "id"]) is not None and (grade := lms.column(_GRADE)) is not None:
        comment, most, changeable = (lms.column(names) for names in (_COMMENT, _MAXIMUM, _LOCKED))

        def fill(line: list[Any], student: str) -> bool:
            if changeable is not None and line[changeable].strip().lower() in ("no", "nein"):
                return False
            line[grade] = _scaled(totals[student], line[most] if most is not None else "")
            if comment is not None:
                line[comment] = _Kept(_comment(totals[student]))
            return True

        return _filled(lms, totals, people, fill)
    columns = _matching(lms, _notebooks(totals)) if lms else {}
    if lms and columns and lms.column(["email address", "id number", "e-mail-adresse", "matrikelnummer"]) is not None:

        def fill(line: list[Any], student: str) -> bool:
            for place, notebook in columns.items():
                line[place] = totals[student].notebooks[notebook][0]
            return True

        return _filled(lms, totals, people, fill)
    notebooks = _notebooks(totals)
    lines: list[list[Any]] = [["Full name", "ID number", "Email address", *notebooks, "Total", "Feedback"]]
    known = {person.label: person for person in people}
    unknown = 0
    for student, total in totals.items():
        address, number = _ids(student, known.get(student))
        unknown += not (address or number)
        parts = [total.notebooks[name][0] for name in notebooks]
        lines.append([student, number, address, *parts, total.points, _comment(total)])
    note = f"{len(totals)} students; map \"Email address\" to useremail, or \"ID number\" to useridnumber."
    if unknown:
        note += f" {unknown} of them have neither: give --roster with addresses or ids."
    return lines, note, ",", "\r\n"


def _comment(total: Total) -> str:
    parts = [f"{name}: {cell(points)} of {cell(out_of)}" for name, (points, out_of) in total.notebooks.items()]
    rest = f" Answers that are not marked yet: {total.open}." if total.open else ""
    return f"{cell(total.points)} of {cell(total.out_of)} points. {'; '.join(parts)}.{rest}"


def _scaled(total: Total | tuple[float, float], maximum: str) -> float:
    """Points in the scale of the platform, if it says which that is."""
    points, out_of = total if isinstance(total, tuple) else (total.points, total.out_of)
    most = _number(maximum)
    return points * most / out_of if most and out_of else points


def _number(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None


# Canvas


def _canvas(lms: _Lms | None, totals: Mapping[str, Total], people: Sequence[Person]) -> tuple:
    """The gradebook with the notebooks' columns filled in, or added; else a new one."""
    notebooks = _notebooks(totals)
    if lms and [name.strip() for name in lms.header[:2]] == _CANVAS[:2]:
        columns = _matching(lms, notebooks)
        possible = next((line for line in lms.lines if line and line[0].strip() == _POSSIBLE), None)
        width = len(lms.header)
        new = [name for name in notebooks if name not in columns.values()]

        def fill(line: list[Any], student: str) -> bool:
            own = totals[student].notebooks
            for place, notebook in columns.items():
                line[place] = _scaled(own[notebook], possible[place] if possible and place < len(possible) else "")
            line[width:] = [own[notebook][0] for notebook in new]
            return True

        wide = [[*line, *[""] * (width + len(new) - len(line))] for line in lms.lines]
        for line in wide:
            if line[0].strip() == _POSSIBLE:
                line[width:] = [cell(next(iter(totals.values())).notebooks[name][1]) for name in new]
        return _filled(_Lms([*lms.header, *new], wide, lms.delimiter, lms.newline), totals, people, fill)
    lines: list[list[Any]] = [[*_CANVAS, *notebooks]]
    known = {person.label: person for person in people}
    if totals:
        maximum = next(iter(totals.values())).notebooks
        lines.append([_Kept(f"    {_POSSIBLE}"), "", "", "", "", *(maximum[name][1] for name in notebooks)])
    for student, total in totals.items():
        address, number = _ids(student, known.get(student))
        lines.append([student, "", number, address, "", *(total.notebooks[name][0] for name in notebooks)])
    note = f"{len(totals)} students; better give Canvas's own gradebook as --roster: it has the ids that Canvas knows."
    return lines, note, ",", "\r\n"


# Whose a line is, and which column


def _filled(
    lms: _Lms, totals: Mapping[str, Total], people: Sequence[Person], fill: Callable[[list[Any], str], bool]
) -> tuple:
    """The platform's own file with the grades; students without a hand-in keep what is there."""
    owners = [_owner(cells, totals, people) for cells in lms.lines]
    lines, count = [], 0
    for cells, student in zip(lms.lines, owners, strict=True):
        line: list[Any] = [_Kept(value) for value in [*cells, *[""] * (len(lms.header) - len(cells))]]
        if student and owners.count(student) == 1:
            count += fill(line, student)
        lines.append(line)
    note = f"{count} of {len(totals)} students filled in."
    if left := [spreadsheet_safe(student) for student in totals if owners.count(student) != 1]:
        note += f" Not in it, or not clear: {', '.join(left[:9])}{', ...' * (len(left) > 9)}."
    return [[_Kept(name) for name in lms.header], *lines], note, lms.delimiter, lms.newline


def _owner(cells: Sequence[str], students: Mapping[str, Total], people: Sequence[Person]) -> str:
    """The student whose line it is: by all ids, else by the name; empty if it is nobody's, or more than one's."""
    values, words = {_folded(value) for value in cells}, set(re.findall(r"\w+", _folded(" ".join(cells))))
    known = [one for one in people if one.label in students]
    by_id = [one.label for one in known if one.ids and {_folded(id_) for id_ in one.ids} <= values]
    if not by_id:
        named = {student: [student] for student in students}
        named |= {one.label: list(one.names) for one in known if not one.ids}
        with_ids = {one.label for one in known if one.ids}
        by_id = [
            student for student, names in named.items()
            if student not in with_ids and any(own and own <= words for own in map(_words, names))
        ]  # fmt: skip
    return by_id[0] if len(set(by_id)) == 1 else ""


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", _folded(name)))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _ids(student: str, person: Person | None) -> tuple[str, str]:
    """The e-mail address and the number of a student, as far as they are known."""
    ids = person.ids if person else (student,) if "@" in student or student.isdecimal() else ()
    address = next((one for one in ids if "@" in one), "")
    return address, next((one for one in ids if one != address), "")


def _matching(lms: _Lms, notebooks: Sequence[str]) -> dict[int, str]:
    """Column -> notebook, by its topic ("data exploration") or its number behind a word ("Homework 1")."""
    found: dict[int, str] = {}
    for notebook in notebooks:
        number, _, topic = notebook.partition("_")
        for place, header in enumerate(lms.header):
            plain = re.sub(r"\(.*?\)", "", _folded(header))
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
