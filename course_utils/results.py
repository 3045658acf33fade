"""Where results go: a folder that is tried first, files written in one step, and the scores of a notebook."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def prepare_output(output: str | Path) -> Path:
    """Make the folder for results and try to write into it: better before a long training than after it.

    Args:
        output: the folder; missing parent folders are also made.

    Returns:
        The folder as a `Path`.

    Raises:
        OSError: it cannot be written to; the message says why and what to do.
    """
    folder = Path(output)
    with writing_into(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"an empty file would fit on a full disk")
    return folder


def record_scores(output: str | Path, notebook: str, scores: dict) -> Path:
    """Write the scores a notebook reached to `<output>/scores/<notebook>.json`, where `course.py run` collects them.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """
    path = Path(output) / "scores" / f"{notebook}.json"
    text = json.dumps(scores, indent=2, default=float) + "\n"
    with writing_into(path.parent), replacing(path) as file:
        file.write(text.encode())
    return path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that replaces the one at `path` in one step, when the `with` block ends.

    What is written goes to a temporary file beside it. After an error, or an interruption, the old file is as it was:
    nobody ever reads half a file.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "scores.json") as file:
    ...         _ = file.write(b"{}")
    ...     os.listdir(folder)
    ['scores.json']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Make a folder, and turn every `OSError` of the `with` block into one that says what the user can do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OSError(
            f"Nothing can be saved in {folder} ({error.strerror or error}): free some space if its disk is full, "
            "or set `output` to another folder, one that you can write to."
        ) from error


def summarize_error(error: Exception) -> str:
    """The type of an error and the first sentence of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0].rstrip(": ")
