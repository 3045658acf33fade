"""Finished results: a small file for each notebook, so that an interrupted run continues where it was.

A file is named after a hash of everything that its result depends on: the notebook, the course's code, the limits. It
is signed with a key of this user, so that what a student's code may have written there does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_data_path

from course_utils.results import replacing
from workshop.grade.judge.process import Graded
from workshop.grade.report.table import Row

KEY_BYTES = 32


def key_file() -> Path:
    """The file of the key that signs results; a new one is made when it is missing."""
    return user_data_path("course-utils", appauthor=False) / "grading.key"


def signing_key() -> bytes:
    """This user's key; one for this run only, if none can be kept: then nothing is taken over from earlier runs."""
    path = key_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
        if len(key := path.read_bytes()) == KEY_BYTES:
            return key
    return secrets.token_bytes(KEY_BYTES)


@dataclass(frozen=True)
class Kept:
    """The finished results in a folder."""

    folder: Path
    key: bytes

    def forget(self) -> None:
        """Remove all results, and the marks of runs that ended without one."""
        for path in [*self.folder.glob("*.json"), *self.folder.glob("*.begun")]:
            path.unlink()

    def read(self, name: str) -> Graded | None:
        """A result of an earlier run, or None if there is none that can be read, or another hand wrote it."""
        try:
            signature, _, text = (self.folder / f"{name}.json").read_bytes().partition(b"\n")
            if not hmac.compare_digest(signature, self._signature(name, text)):
                return None
            kept = json.loads(text)
            return Graded(tuple(Row(**row) for row in kept["rows"]), kept["seconds"], pictures=kept["pictures"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, name: str, graded: Graded) -> None:
        """Keep a result. Raises `OSError` if that is not possible."""
        text = json.dumps(asdict(graded), indent=1).encode()
        with replacing(self.folder / f"{name}.json") as file:
            file.write(self._signature(name, text) + b"\n" + text)

    def _signature(self, name: str, text: bytes) -> bytes:
        return hmac.new(self.key, name.encode() + b"\n" + text, hashlib.sha256).hexdigest().encode()

    # Where nothing confines a notebook, it may end the grader itself. So each start leaves a mark until its end.

    @contextlib.contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """A mark that stays behind if this process is killed inside."""
        path = self.folder / f"{name}.begun"
        with path.open("ab") as file:
            file.write(b"x")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def unmarked(self, names: Sequence[str]) -> Iterator[None]:
        """No new marks stay behind if this process ends what is inside, as after Ctrl-C: no notebook did that."""
        before = {name: self.unfinished(name) for name in names}
        try:
            yield
        finally:
            for name in names:
                if self.unfinished(name) > before[name]:
                    (self.folder / f"{name}.begun").write_bytes(b"x" * before[name])

    def unfinished(self, name: str) -> int:
        """How often a grader was killed while it graded this notebook."""
        with contextlib.suppress(OSError):
            return (self.folder / f"{name}.begun").stat().st_size
        return 0
