"""CSV files as spreadsheets and learning platforms write them, and cells that spreadsheets take for nothing else."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils.results import replacing

MAX_TEXT = 600  # characters of a cell


@dataclass(frozen=True)
class Sheet:
    """The lines of a CSV file that are not empty, cell by cell, and how it was written."""

    lines: list[list[str]]
    delimiter: str = ","
    newline: str = "\n"


def read_sheet(content: bytes) -> Sheet:
    """A CSV file in UTF-8, in UTF-16, or as Excel saves it on Windows; with commas, semicolons or tabs."""
    try:
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    if text.lower().startswith("sep="):  # for Excel
        text = text.partition("\n")[2]
    delimiter = max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return Sheet([line for line in lines if any(map(str.strip, line))], delimiter, "\r\n" if "\r\n" in text else "\n")


def write_sheet(
    path: Path, lines: Iterable[Sequence[Any]], delimiter: str = ",", newline: str = "\n", encoding: str = "utf-8-sig"
) -> None:
    """Write a CSV file in one step; with the mark of UTF-8, without which Excel breaks every name that is not ASCII.

    Raises:
        OSError: that is not possible.
    """
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=newline).writerows(lines)
    with replacing(path) as file:
        file.write(text.getvalue().encode(encoding, errors="backslashreplace"))


def cell(value: str | float) -> str:
    """A value as it stands in a table: numbers as short as they are, text that is no formula.

    >>> cell(2.0), cell(12345.678)
    ('2', '12345.68')
    """
    if isinstance(value, str):
        return spreadsheet_safe(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")


def spreadsheet_safe(text: str) -> str:
    """A text on one line that no spreadsheet takes for a formula.

    >>> spreadsheet_safe("=1+1")
    "'=1+1"
    """
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else text
