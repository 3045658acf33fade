"""The cells of a notebook file, whatever editor wrote it, with the marks by which the course knows its own.

Read without `nbformat`, which takes longer to import than all of grading's own code to run; faults that do not matter
here (a missing id, an output in an odd form) are ignored.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workshop.paths import checkout

CHECK = re.compile(r"""\bcheck\s*\(\s*["'](\d+\.\d+)["']""")  # a call of it in the source of a cell
_ID = re.compile(r"(exercise|question|answer)-(\d+)-?(\d+|[a-z])(-\d+)?")


class BrokenNotebook(ValueError):
    """A file that cannot be graded; the text says why, in one sentence."""


@dataclass(frozen=True)
class Cell:
    """One cell. `number` counts from 1; `marks`, from its metadata or its id, as {"exercise": "1.1"}."""

    number: int
    kind: str  # "code" or "markdown"
    source: str
    marks: Mapping[str, str]


def read_cells(content: bytes) -> list[Cell]:
    """The cells of a notebook file.

    Raises:
        BrokenNotebook: it is not a notebook of format 3 or 4.
    """
    if not content.strip():
        raise BrokenNotebook("The file is empty.")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        parts = [notebook] if notebook["nbformat"] == 4 else notebook["worksheets"]  # as in format 3
        cells = [(cell["cell_type"], cell) for part in parts for cell in part["cells"]]
        return [Cell(number, str(kind), _source(cell), _marks(cell)) for number, (kind, cell) in enumerate(cells, 1)]
    except (ValueError, RecursionError) as error:
        raise BrokenNotebook(f"The file is not JSON, so it is not a notebook, or it was cut off ({error}).") from None
    except (TypeError, LookupError, AttributeError) as error:
        raise BrokenNotebook(f"The file is JSON, but not a Jupyter notebook of format 3 or 4 ({error!r}).") from None


@functools.cache
def course_cells() -> tuple[Cell, ...]:
    """The cells of the course's own notebooks, as students get them."""
    paths = sorted((checkout() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return tuple(cell for path in paths for cell in read_cells(path.read_bytes()))


def _source(cell: dict[str, Any]) -> str:
    text = cell.get("source", cell.get("input", ""))
    return re.sub(r"\r\n?", "\n", "".join(map(str, text)) if isinstance(text, list) else str(text))


def _marks(cell: dict[str, Any]) -> dict[str, str]:
    marks = {}
    if named := _ID.fullmatch(str(cell.get("id"))):
        marks[named[1]] = f"{named[2]}.{named[3]}" if named[1] == "exercise" else f"{named[2]}{named[3]}"
    metadata = cell.get("metadata")
    course = metadata.get("course") if isinstance(metadata, dict) else None
    return marks | ({str(key): str(value) for key, value in course.items()} if isinstance(course, dict) else {})
