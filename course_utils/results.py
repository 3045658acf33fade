"""Where results go: a folder that is tried first, files written in one step, and the scores of a notebook."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch


def reason_of(error: Exception) -> str:
    """The kind of an error and the first sentence of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0].rstrip(": ")


def prepare_output(output: str | Path) -> Path:
    """Make the folder for results and try to write into it: better before a long training than after it.

    Args:
        output: the folder; those above it are made, too.

    Returns:
        The folder as a `Path`.

    Raises:
        OSError: it cannot be written to; the message says why and what to do.
    """
    folder = Path(output)
    with _explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"a file with something in it also needs space")
    return folder


def record_scores(output: str | Path, notebook: str, scores: dict) -> Path:
    """Write the scores a notebook reached to `<output>/scores/<notebook>.json`, where `course.py run` collects them.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """
    path = Path(output) / "scores" / f"{notebook}.json"
    text = json.dumps(scores, indent=2, default=float) + "\n"
    with _explaining(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def save_in_one_step(path: Path, state: dict) -> None:
    """Write beside the target, then rename: an interruption never leaves half a file under the final name."""
    with _explaining(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says in a sentence what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"Nothing can be saved in {folder} ({error.strerror or error}): free some space if its disk is full, "
            "or set `output` to another folder, one that you can write to."
        ) from error
