"""Unpacks what students hand in: zip and tar, with limits, and never outside the folder that is given for it.

Nothing of an archive is believed: names are taken apart and written anew, sizes are counted while they are read, links
and devices are not made. What is left out, or ends the reading, is said.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
from calendar import timegm
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_MEMBERS = 50_000
MAX_BYTES = 20_000_000_000
MAX_EXPANSION = 50  # times the size of the archive, on top of the first 100 MB
MAX_DEPTH = 3  # the archive of a class, that of a student, one inside
_CHUNK = 1 << 20
_NAME = re.compile(r"(?i)\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$")
_BY_HAND = re.compile(r"(?i)\.(7z|rar|gz|bz2|xz|zst|lzma|lz4?|z|zipx|z\d\d|part\d+|cab|iso|dmg)$")
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class ArchiveError(ValueError):
    """An archive that can't be unpacked to the end; the text says why, and what to do."""


class TooMuch(ArchiveError):
    """It is larger than any hand-in: nothing of it is kept."""


@dataclass(frozen=True)
class Member:
    """A file or an empty folder of an archive, or if `broken` is set, what was not unpacked."""

    parts: tuple[str, ...]
    path: Path
    time: float = 0.0
    broken: str = ""
    is_folder: bool = False


@dataclass
class Budget:
    """What an archive and those inside it may still give."""

    bytes: float
    members: int = MAX_MEMBERS

    @classmethod
    def of(cls, archive: Path, into: Path) -> Budget:
        most = 100_000_000 + MAX_EXPANSION * archive.stat().st_size
        return cls(min(most, MAX_BYTES, shutil.disk_usage(into).free / 2))

    def take(self, count: int, members: int = 0) -> None:
        self.bytes -= count
        self.members -= members
        if self.bytes < 0 or self.members < 0:
            raise TooMuch("It holds far more than a hand-in, as an archive made to fill the disk does: look at it.")


def is_archive(name: str) -> bool:
    return bool(_NAME.search(name))


def is_packed_otherwise(name: str) -> bool:
    return bool(_BY_HAND.search(name)) and not is_archive(name)


def unpack(
    archive: Path, into: Path, budget: Budget, wanted: Callable[[tuple[str, ...]], bool]
) -> tuple[list[Member], str]:
    """The members of an archive that are `wanted`, unpacked below a new folder, and why the reading ended early."""
    found: list[Member] = []
    taken: dict[str, int] = {}
    into.mkdir(parents=True)
    try:
        for member in _members(archive, budget):
            parts = member.parts
            if ".." in parts or member.leaves:
                found.append(Member((re.sub(r"[\\/]", "_", member.name),), into, broken=_LEAVES))
            elif parts and wanted(parts):
                key = "/".join(parts).casefold()
                taken[key] = count = taken.get(key, 0) + (not member.is_folder)
                if count > 1:
                    parts = (*parts[:-1], _numbered(parts[-1], count))
                found.append(_write(member, parts, into, budget))
    except TooMuch as error:
        shutil.rmtree(into, ignore_errors=True)
        return [], str(error)
    except Exception as error:  # zipfile and tarfile raise nearly anything for a damaged archive
        return found, _reason(error)
    return found, "" if found else "The archive is empty: ask for the notebook itself."


_LEAVES = "Its name leads out of the archive, so it was not unpacked: ask for the file itself."


@dataclass(frozen=True)
class _Packed:
    """One entry of an archive as it is written there."""

    name: str
    size: int
    time: float
    is_folder: bool
    special: str
    open: Callable[[], IO[bytes] | None]

    @property
    def parts(self) -> tuple[str, ...]:
        """Also zips of Windows programs that write backslashes."""
        return tuple(part for part in self.name.replace("\\", "/").split("/") if part not in ("", "."))

    @property
    def leaves(self) -> bool:
        return bool(re.match(r"[\\/]|[A-Za-z]:", self.name))


def _members(path: Path, budget: Budget) -> Iterator[_Packed]:
    with path.open("rb") as file:
        start = file.read(8)
        compressed = next((open_ for magic, open_ in _COMPRESSED.items() if start.startswith(magic)), None)
        if start.startswith(b"PK") or zipfile.is_zipfile(file):
            yield from _zip_members(path)
        elif compressed:
            with compressed(path) as stream:
                yield from _tar_members(_Counted(stream, budget))
        else:
            file.seek(0)
            yield from _tar_members(file)


def _zip_members(path: Path) -> Iterator[_Packed]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            special = "a link" if stat.S_ISLNK(mode) else "locked with a password" if info.flag_bits & 1 else ""
            try:  # names of macOS are UTF-8 without the flag that says so
                name = info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode()
            except UnicodeError:
                name = info.filename
            time = timegm((*info.date_time, 0, 0, 0))
            yield _Packed(name, info.file_size, time, info.is_dir(), special, lambda info=info: archive.open(info))


def _tar_members(stream: IO[bytes]) -> Iterator[_Packed]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            special = "" if info.isfile() or info.isdir() else "a link" if info.issym() or info.islnk() else "a device"
            yield _Packed(info.name, info.size, info.mtime, info.isdir(), special,
                          lambda info=info: archive.extractfile(info))  # fmt: skip


class _Counted(io.RawIOBase):
    """A decompressed stream that can't be read without end, nor in one piece (as for headers that say so)."""

    def __init__(self, stream: IO[bytes], budget: Budget):
        self._stream, self._most = stream, budget.bytes + 10_000_000

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 16 * _CHUNK:
            Budget(0).take(1)
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        if position > self._most:
            Budget(0).take(1)
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _write(member: _Packed, parts: tuple[str, ...], into: Path, budget: Budget) -> Member:
    budget.take(0, members=1)
    if member.special:
        advice = "ask for it without" if "password" in member.special else "ask for the file itself"
        return Member(parts, into, broken=f"In the archive it is {member.special}: {advice}.")
    if member.is_folder:
        return Member(parts, into, is_folder=True)
    budget.take(member.size)
    path = into.joinpath(*(safe_name(part) for part in parts))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, path.open("xb") as target:
            left = member.size
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    budget.take(len(chunk))
                target.write(chunk)
    except ArchiveError:
        raise
    except Exception as error:  # the others may still be whole
        path.unlink(missing_ok=True)
        return Member(parts, into, broken=f"In the archive it is damaged ({_said(error)}): ask for it again.")
    return Member(parts, path, member.time)


def safe_name(part: str) -> str:
    """A name that every file system takes."""
    name = re.sub(r'[\x00-\x1f<>:"|?*\ud800-\udfff]', "_", part).rstrip(" .") or "_"
    return name if len(name.encode()) <= 200 else f"{name[:20]}_{name[-20:]}"


def _numbered(name: str, number: int) -> str:
    """The second file of a name gets another one, as in a folder: `a.ipynb`, `a (2).ipynb`."""
    stem, dot, suffix = name.partition(".")
    return f"{stem} ({number}){dot}{suffix}"


def _reason(error: Exception) -> str:
    if isinstance(error, tarfile.ReadError | zipfile.BadZipFile | EOFError | lzma.LZMAError | OSError):
        return f"It is not an archive, or was cut off ({_said(error)}): ask for it again."
    return f"It can't be unpacked ({_said(error)}): unpack it by hand."


def _said(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
