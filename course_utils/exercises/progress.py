"""A record of the exercises solved and the guesses made so far, and its overview.

The record is a JSON file in the user's data folder, or the file that `COURSE_PROGRESS` names. If it is deleted, only
the overview and the guesses are lost; if it cannot be written, the checks still work.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from course_utils.display import show_box
from course_utils.exercises.feedback import LOOKS, CheckResult
from course_utils.exercises.registry import Exercise, list_exercises
from course_utils.results import replacing

GUESSES = "guesses"  # their key in the record; the others are the ids of exercises


def record_file() -> Path:
    """The file of the record."""
    from platformdirs import user_data_path

    named = os.environ.get("COURSE_PROGRESS")
    return Path(named) if named else user_data_path("course-utils", appauthor=False) / "progress.json"


def statuses() -> dict[str, str]:
    """Exercise id -> "passed", "failed" or "todo" of its last check; exercises never checked are missing."""
    found = {}
    for key, entry in _read(record_file()).items():
        status = entry.get("status") if isinstance(entry, dict) and key != GUESSES else None
        if status in ("passed", "failed", "todo"):
            found[key] = status
    return found


def _read(path: Path) -> dict:
    """The record; empty if it is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def note(result: CheckResult) -> None:
    """Write the result of a check into the record, if it can be written."""
    now = datetime.now().isoformat(timespec="seconds")
    with contextlib.suppress(OSError):
        _write({**_read(record_file()), result.exercise_id: {"status": result.status, "checked": now}})


def _write(record: dict) -> None:
    path = record_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(record, indent=2, sort_keys=True).encode())


def guesses() -> dict[str, Any]:
    """Name -> guess, of all guesses kept so far (`course_utils.exercises.guesses`)."""
    found = _read(record_file()).get(GUESSES)
    return found if isinstance(found, dict) else {}


def note_guess(name: str, guess: Any) -> bool:
    """Write a guess into the record; whether it could be written."""
    try:
        _write({**_read(record_file()), GUESSES: {**guesses(), name: guess}})
    except OSError:
        return False
    return True


def show_overview(notebook: str | None = None) -> None:
    """List the exercises of the course, notebook by notebook, with the status of the last check.

    Args:
        notebook: as in "03_binary_training": the others are folded, and left out of plain text; None for all.
    """
    found, boxes, lines = statuses(), [], []
    for name in dict.fromkeys(exercise.notebook for exercise in list_exercises()):
        exercises = [exercise for exercise in list_exercises() if exercise.notebook == name]
        rows = [(exercise, *LOOKS[found.get(exercise.id, "todo")]) for exercise in exercises]
        is_open = "open" if notebook in (None, name) else ""
        title = f"{name.replace('_', ' ')}: {_solved(exercises)}"
        boxes.append(f"<details {is_open}><summary><strong>{title}</strong></summary>{_table(rows, title)}</details>")
        if is_open:
            lines += [f"  {symbol} {one.id} {one.title}: {word}" for one, symbol, word, _ in rows]
    chosen = [exercise for exercise in list_exercises() if notebook in (None, exercise.notebook)]
    total = f"<p>The whole course: {_solved(list_exercises())}</p>"
    show_box(total + "".join(boxes), "\n".join([_solved(chosen), *lines]))


def _solved(exercises: Sequence[Exercise]) -> str:
    found = statuses()
    return f"{sum(found.get(exercise.id) == 'passed' for exercise in exercises)} of {len(exercises)} exercises solved"


def _table(rows: Iterable[tuple[Exercise, str, str, str]], title: str) -> str:
    cell = "text-align: left; padding: 0.3em 0.6em;"
    lines = "".join(
        f'<tr><th style="{cell}" scope="row">{exercise.id}</th><td style="{cell}">{html.escape(exercise.title)}</td>'
        f'<td style="{cell} border-left: 6px solid {colour};">{symbol} {word}</td></tr>'
        for exercise, symbol, word, colour in rows
    )
    head = "".join(f'<th style="{cell}" scope="col">{name}</th>' for name in ("No.", "Exercise", "Status"))
    return f'<table aria-label="{title}" style="border-collapse: collapse;"><tr>{head}</tr>{lines}</table>'
