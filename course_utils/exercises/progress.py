"""A record of the exercises solved and the guesses made so far, and its overview.

The record is a JSON file in the user's data folder, or the file that `COURSE_PROGRESS` names. If it is deleted, only
the overview is lost; if it cannot be written, the checks still work.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from course_utils.display import show_box
from course_utils.exercises.feedback import LOOKS, CheckResult
from course_utils.exercises.registry import list_exercises
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
    """List the exercises of one notebook or of the whole course, with the status of the last check.

    Args:
        notebook: as in "03_binary_training"; None for all.
    """
    show_box(*_overview(notebook))


def browse_progress() -> Any:
    """A widget that shows the exercises of one notebook or of all; a button reads the record again.

    It needs ipywidgets and a running kernel.
    """
    from ipywidgets import HTML, Button, Dropdown, HBox, VBox

    notebooks = dict.fromkeys(exercise.notebook for exercise in list_exercises())
    # "" for all: with None as its value, a dropdown would show no choice at all.
    choice = Dropdown(options=[("the whole course", ""), *((name, name) for name in notebooks)], description="show")
    again, table = Button(description="Read again"), HTML()

    def update(*_):
        table.value = _overview(choice.value or None)[0]

    choice.observe(update, names="value")
    again.on_click(update)
    update()
    return VBox([HBox([choice, again]), table])


def _overview(notebook: str | None) -> tuple[str, str]:
    """The list as HTML and as plain text."""
    found = statuses()
    exercises = [exercise for exercise in list_exercises() if notebook in (None, exercise.notebook)]
    rows = [(exercise, *LOOKS[found.get(exercise.id, "todo")]) for exercise in exercises]
    solved = sum(found.get(exercise.id) == "passed" for exercise in exercises)
    title = f"{solved} of {len(exercises)} exercises solved"
    # Unlike a page, a widget gives a table no spacing.
    cell = "text-align: left; padding: 0.3em 0.6em;"
    table = "".join(
        f'<tr><th style="{cell}" scope="row">{exercise.id}</th><td style="{cell}">{html.escape(exercise.title)}</td>'
        f'<td style="{cell} border-left: 6px solid {colour};">{symbol} {word}</td></tr>'
        for exercise, symbol, word, colour in rows
    )
    head = "".join(f'<th style="{cell}" scope="col">{name}</th>' for name in ("No.", "Exercise", "Status"))
    caption = f'<caption style="{cell}"><strong>{title}</strong></caption>'
    text = "\n".join([title, *(f"  {symbol} {e.id} {e.title}: {word}" for e, symbol, word, _ in rows)])
    return f'<table style="border-collapse: collapse;">{caption}<tr>{head}</tr>{table}</table>', text
