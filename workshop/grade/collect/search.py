"""Every file below a folder, also in archives, with what can be said before anybody looks into it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from workshop.grade.collect.archives import MAX_DEPTH, Budget, is_archive, is_packed_otherwise, unpack
from workshop.grade.collect.students import Name, is_header, is_notebook_name, read_submitters

MAX_NOTEBOOK_BYTES = 200_000_000
MAX_SUBMITTERS_BYTES = 20_000_000
SUBMITTERS = "submission_metadata.yml"  # Gradescope's
# What operating systems, Jupyter and version control put there; nobody hands it in.
_LEFT_OUT = re.compile(r"(?i)\.(?!ipynb$).+|__MACOSX|__pycache__|Thumbs\.db|desktop\.ini|\$RECYCLE\.BIN")


@dataclass(frozen=True)
class File:
    """A file, an empty folder (`is_folder`), or what could not be read (`broken`)."""

    parts: tuple[str, ...]  # of the path below the folder, through archives
    path: Path
    broken: str = ""
    is_folder: bool = False
    is_notebook: bool = False
    time: float = 0.0  # of the change, in archives: they keep it
    name: Name = Name("")
    is_loose: bool = False  # in no folder or archive of a student
    note: str = ""

    @property
    def file(self) -> str:
        return "/".join(self.parts)


@dataclass
class Search:
    """Collects what lies below a folder."""

    unpacked: Path
    leave_out: set[Path]
    found: list[File] = field(default_factory=list)
    containers: set[tuple[str, ...]] = field(default_factory=set)  # folders and archives
    repositories: set[tuple[str, ...]] = field(default_factory=set)  # folders with .git
    archives: set[tuple[str, ...]] = field(default_factory=set)
    submitters: dict[tuple[str, ...], Name] = field(default_factory=dict)  # of Gradescope: folder -> name
    _count: int = 0

    def look(self, top: Path) -> None:
        if top.is_dir():
            self._folder(top)
        else:
            self._file((shown(top.name),), top)
        used = {file.parts[:end] for file in self.found for end in range(len(file.parts))}
        self.found = [file for file in self.found if not (file.is_folder and file.parts in used)]

    def fresh(self) -> Path:
        """The path of a new folder."""
        self._count += 1
        return self.unpacked / str(self._count)

    def _folder(self, top: Path) -> None:
        waiting: list[tuple[tuple[str, ...], Path]] = [((), top)]
        while waiting:
            parts, folder = waiting.pop()
            try:
                names = sorted(os.listdir(folder))
            except OSError as error:
                self._add(parts, folder, f"The folder can't be read ({error.strerror}): look at it by hand.")
                continue
            if parts:
                self.containers.add(parts)
                self.found.append(File(parts, folder, is_folder=True))
            for name in names:
                path, below = folder / name, (*parts, shown(name))
                if not self._wanted((*parts, name)) or path in self.leave_out or (not parts and _is_graders(path)):
                    continue
                if path.is_dir() and not path.is_symlink():
                    waiting.append((below, path))
                else:
                    self._file(below, path)

    def _wanted(self, parts: tuple[str, ...]) -> bool:
        if ".git" in parts:
            self.repositories.add(parts[: parts.index(".git")])
        return not any(_LEFT_OUT.fullmatch(part) for part in parts)

    def _add(self, parts: tuple[str, ...], path: Path, broken: str = "", **more) -> None:
        self.found.append(File(parts, path, broken, **more))

    def _file(self, parts: tuple[str, ...], path: Path, time: float = 0.0, budget: Budget | None = None) -> None:
        name = parts[-1]
        try:
            about = path.lstat()
            if stat.S_ISLNK(about.st_mode):
                return self._add(parts, path, "This is a link to another place: ask for the file itself.")
            if not stat.S_ISREG(about.st_mode):
                return self._add(parts, path, "This is a pipe or a device, not a file: it was not opened.")
            with path.open("rb") as file:
                start = file.read(4)
                seems = Path(name).suffix.lower() in ("", ".json", ".txt") and start.strip()[:1] == b"{"
                is_notebook = is_notebook_name(name) or (seems and b'"nbformat"' in file.read(MAX_NOTEBOOK_BYTES))
            if name == SUBMITTERS:
                named = read_submitters(path.read_bytes()[:MAX_SUBMITTERS_BYTES].decode("utf-8", "replace"))
                # of the folders beside it only: a student may hand in such a file
                return self.submitters.update({(*parts[:-1], folder): one for folder, one in named.items()})
            if is_archive(name) or (is_notebook and start == b"PK\3\4"):
                return self._archive(parts, path, budget)
        except OSError as error:
            return self._add(parts, path, f"The file can't be read ({error.strerror}): look at it by hand.")
        reason = ""
        if is_packed_otherwise(name):
            reason = "It is packed in a way that is not read here: unpack it by hand, or ask for a zip."
        elif is_notebook and about.st_size > MAX_NOTEBOOK_BYTES:
            reason = f"The file is larger than {MAX_NOTEBOOK_BYTES // 1_000_000} MB: ask for it without outputs."
        elif is_notebook and not about.st_size:
            reason = "The file is empty: ask for it again."
        self._add(parts, path, reason, is_notebook=is_notebook, time=time)

    def _archive(self, parts: tuple[str, ...], path: Path, budget: Budget | None) -> None:
        self.containers.add(parts)
        self.archives.add(parts)
        inside = sum(parts[:end] in self.archives for end in range(1, len(parts)))
        if inside >= MAX_DEPTH:
            return self._add(parts, path, f"It lies in {inside} archives, one in the other: unpack it by hand.")
        into = self.fresh()
        budget = budget or Budget.of(path, self.unpacked)
        members, reason = unpack(path, into, budget, lambda inner: self._wanted((*parts, *inner)))
        if reason:
            self._add(parts, path, reason)
        for member in members:
            below = (*parts, *map(shown, member.parts))
            self.containers |= {below[:end] for end in range(len(parts) + 1, len(below) + member.is_folder)}
            if member.broken or member.is_folder:
                self._add(below, member.path, member.broken, is_folder=member.is_folder)
            else:
                self._file(below, member.path, member.time, budget)


def shown(name: str) -> str:
    """A name that can be written into tables and on terminals: other bytes and control characters as `\\x1b`."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lambda found: f"\\x{ord(found[0]):02x}", text)


def _is_graders(path: Path) -> bool:
    """Kept results, and tables of the class or of an earlier run, which lie beside the hand-ins."""
    if path.name.endswith(".results"):
        return path.is_dir()
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open("rb") as file:
        return is_header(file.readline(10_000))
