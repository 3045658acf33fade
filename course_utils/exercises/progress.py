"""A record of the exercises solved and the guesses made so far, and its overview.

The record is a JSON file in the user's data folder, or the file that `COURSE_PROGRESS` names. If it is deleted, only
the overview and the guesses are lost; if it cannot be read or written, the checks still work, and one line says why.
Several notebooks may write at once: a lock lets them take turns. Where the file system has no locks, what another
notebook notes in the same moment may be lost, but the record stays whole. What is not known here (exercises of another
version, more about an exercise) is kept.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from course_utils.display import show_box
from course_utils.exercises.feedback import LOOKS, CheckResult
from course_utils.exercises.registry import Exercise, list_exercises
from course_utils.results import free_name, replacing, summarize_error

GUESSES = "guesses"  # their key in the record; the others are the ids of exercises
MAX_BYTES = 4_000_000  # a full record has 10 kB
LOCK_SECONDS = 3.0  # a write takes milliseconds; whoever holds the lock longer hangs
_said: set[str] = set()  # what this kernel has said about the record: once is enough


def record_file() -> Path:
    """The file of the record."""
    from platformdirs import user_data_path

    named = os.environ.get("COURSE_PROGRESS")
    return Path(named).expanduser() if named else user_data_path("course-utils", appauthor=False) / "progress.json"


def statuses() -> dict[str, str]:
    """Exercise id -> "passed", "failed" or "todo" of its last check; exercises never checked are missing."""
    found = {}
    for key, entry in _record().items():
        status = entry.get("status") if isinstance(entry, dict) and key != GUESSES else None
        if status in ("passed", "failed", "todo"):
            found[key] = status
    return found


def guesses() -> dict[str, Any]:
    """Name -> guess, of all guesses kept so far (`course_utils.exercises.guesses`)."""
    return _record().get(GUESSES, {})


def note(result: CheckResult) -> bool:
    """Write the result of a check into the record; whether it could be written."""
    return _write(result.exercise_id, status=result.status, checked=datetime.now().isoformat(timespec="seconds"))


def note_guess(name: str, guess: Any) -> bool:
    """Write a guess into the record; whether it could be written."""
    return _write(GUESSES, **{name: guess})


def _record() -> dict:
    """The record; empty, and a line says why, if it cannot be read or is damaged."""
    path = record_file()
    try:
        record, damage = _read(path)
    except OSError as error:
        _say(f"The record of your progress, {path}, cannot be read ({error.strerror or error}).")
        return {}
    if damage:
        _say(f"The record of your progress, {path}, is damaged ({damage}). The next check begins a new one.")
    return record


def _read(path: Path) -> tuple[dict, str]:
    """What can be read of the record, and what is damaged in it; raises `OSError` if there is no looking into it."""
    if path.exists() and not path.is_file():
        raise OSError(f"it is {'a folder' if path.is_dir() else 'not a file'}")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    if len(content) > MAX_BYTES:
        return {}, f"it has more than {MAX_BYTES // 10**6} MB"
    try:
        record = json.loads(content.decode("utf-8-sig"))
        json.dumps(record, indent=2)  # lists in lists in lists can be read where they cannot be written
    except (ValueError, RecursionError) as error:
        return {}, summarize_error(error)
    if not isinstance(record, dict):
        return {}, f"it holds a {type(record).__name__} in place of a dict"
    if not isinstance(record.get(GUESSES, {}), dict):
        return record, f"its guesses are a {type(record.pop(GUESSES)).__name__} in place of a dict"
    return record, ""


def _write(key: str, **values: Any) -> bool:
    """Write values into an entry of the record; whether it could be written, and a line says why not."""
    path = record_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            record, damage = _read(path)
            if damage:
                kept = _set_aside(path)
                _say(f"The record of your progress was damaged ({damage}). It is kept as {kept}; a new one begins.")
            entry = record.get(key)
            record[key] = (entry if isinstance(entry, dict) else {}) | values
            with replacing(path) as file:
                file.write(json.dumps(record, indent=2, sort_keys=True, default=str).encode())
    except (OSError, RecursionError) as error:  # the latter if the cell calls from deep within
        reason = getattr(error, "strerror", None) or error
        _say(
            f"Your progress is not kept: {path} cannot be written ({reason}). Checks work all the same. To "
            "have the overview, mend that, or set COURSE_PROGRESS to a file in a folder of yours."
        )
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, where the file system has locks. A process that dies leaves none behind."""
    import filelock

    lock = filelock.FileLock(f"{path}.lock")
    with contextlib.suppress(NotImplementedError, OSError):  # filelock's Timeout is an OSError
        lock.acquire(timeout=LOCK_SECONDS, poll_interval=0.01)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.release()


def _set_aside(path: Path) -> Path:
    return path.rename(free_name(path, "damaged"))


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        print(line)


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
