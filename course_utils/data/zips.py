"""Zips that do harm are refused before anything in them is read: names that lead elsewhere, bombs, lies about sizes.

The checks need only the list of members at the end of the zip, which itself is limited. Reading a member is limited by
the size that this list gives.
"""

from __future__ import annotations

import posixpath
import stat
import zipfile
from pathlib import Path, PureWindowsPath

from course_utils.data.decoding import DataError

# Far more than any data set of this kind, whose images must fit in memory.
MAX_MEMBERS = 100_000
MAX_LIST_BYTES = 20_000_000  # of the list of members
MAX_UNPACKED = 4_000_000_000  # bytes
MAX_DEPTH = 20  # folders
MAX_NAME = 1000  # characters
# Deflate reaches 1032. Masks with few nuclei come close (468 in DSB2018), but they are small.
MAX_RATIO = 500
MIN_RATIO_BYTES = 50_000_000  # smaller members may have any ratio
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # the others unpack without a limit in Python's zipfile


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip, open for reading, whose members passed `check_members`; the caller closes it.

    Raises:
        DataError: it is refused.
        zipfile.BadZipFile, OSError, NotImplementedError: it cannot be read as a zip.
    """
    with open(path, "rb") as file:
        end = zipfile._EndRecData(file)  # [4] is the number of members, [5] the bytes of their list
    if end and (end[4] > MAX_MEMBERS or end[5] > MAX_LIST_BYTES):
        raise DataError(
            f"{path} claims to hold {end[4]} members, in a list of {end[5]} bytes; at most {MAX_MEMBERS} members and "
            f"{MAX_LIST_BYTES} bytes are read: unpack the part that you need."
        )
    archive = zipfile.ZipFile(path)
    try:
        check_members(archive, path)
    except BaseException:
        archive.close()
        raise
    return archive


def check_members(archive: zipfile.ZipFile, path: Path | str) -> None:
    """Raise a `DataError` that names the zip (`path`, for messages) and the member if the zip must not be read."""
    members = archive.infolist()
    if not members:
        raise DataError(f"{path} holds no files: get it again, or pack your files anew.")
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path} holds {len(members)} members; at most {MAX_MEMBERS} are read: unpack it in parts.")
    seen: dict[str, zipfile.ZipInfo] = {}
    folders: dict[str, str] = {}
    unpacked = 0
    for member in members:
        if what := _fault(member):
            raise _refused(member, path, what)
        unpacked += member.file_size
        if unpacked > MAX_UNPACKED:
            what = f"brings the unpacked size to {unpacked} bytes; at most {MAX_UNPACKED} are read"
            raise _refused(member, path, what)
        name = member_name(member)
        if not name:
            continue
        folder = name.lower()
        if folder in seen and not (member.is_dir() and seen[folder].is_dir()):
            raise _refused(member, path, f"has the name of {seen[folder].filename!r}, or differs only in case")
        seen[folder] = member
        while folder := posixpath.dirname(folder):
            if folder in folders:
                break
            folders[folder] = member.filename
    for member in members:
        if not member.is_dir() and (inside := folders.get(member_name(member).lower())):
            raise _refused(member, path, f"is a file and also the folder of {inside!r}")
    _check_overlaps(archive, path)


def member_name(member: zipfile.ZipInfo) -> str:
    """The path of a member, with `/`. Some Windows programs write backslashes, others begin with "./"."""
    name = posixpath.normpath(member.filename.replace("\\", "/"))
    return "" if name == "." else name


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, never more than its declared size in memory; errors are those of `zipfile`."""
    with archive.open(member) as file:
        data = file.read(member.file_size) if member.file_size else b""
        more = file.read(1)
    if len(data) != member.file_size or more:
        raise zipfile.BadZipFile(f"{member.file_size} bytes are declared, but {len(data) + len(more)} were found")
    return data


def _fault(member: zipfile.ZipInfo) -> str:
    """What is wrong with a member on its own, or ""."""
    path = PureWindowsPath(member.filename)  # understands both kinds of separators, and drive letters
    kind = stat.S_IFMT(member.external_attr >> 16)
    if "\0" in member.orig_filename:
        return "has a name with a NUL character"
    if path.anchor or ".." in path.parts:
        return "has a path that leads out of its folder"
    if len(path.parts) > MAX_DEPTH:
        return f"lies {len(path.parts)} folders deep; at most {MAX_DEPTH} are read"
    if len(member.filename) > MAX_NAME:
        return f"has a name of {len(member.filename)} characters; at most {MAX_NAME} are read"
    if "__MACOSX" in path.parts:  # nothing in there is read
        kind = 0
    if kind == stat.S_IFLNK:
        return "is a link; only files and folders are read"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device; only files and folders are read"
    if member.flag_bits & 1 and not member.is_dir():
        return "is encrypted: pack it without a password"
    if member.compress_type not in METHODS:
        return f"is compressed with method {member.compress_type}; only 0 (stored) and 8 (deflated) are read"
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        return f"is stored, but has {member.compress_size} bytes packed and {member.file_size} unpacked"
    if member.file_size > max(MIN_RATIO_BYTES, MAX_RATIO * member.compress_size):
        return (
            f"unpacks from {member.compress_size} to {member.file_size} bytes, as bombs do; "
            f"at most {MAX_RATIO} times its packed size is read"
        )
    return ""


def _check_overlaps(archive: zipfile.ZipFile, path: Path | str) -> None:
    """Each member has bytes of its own: bombs let thousands of members share the same."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    ends = [member.header_offset for member in members[1:]] + [archive.start_dir]
    for member, end in zip(members, ends, strict=True):
        # 30 bytes of header and the name; what else may stand there makes a member only longer.
        least = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
        if member.header_offset < 0 or least > end:
            raise _refused(member, path, f"ends after byte {least}, but what follows it begins at {end}: they overlap")


def _refused(member: zipfile.ZipInfo, path: Path | str, what: str) -> DataError:
    name = member.orig_filename if len(member.filename) <= 100 else f"{member.filename[:100]}..."
    return DataError(f"{name!r} in {path} {what}. Do not trust this zip: get it again, or pack your files anew.")
