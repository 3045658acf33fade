"""What a box sees of this computer's folders: those of the course, and a temporary one with a student's files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import course_utils
import workshop

FILES, WORK, HOME = "/tmp/files", "/tmp/work", "/tmp/home"  # in the box
MAX_FILES, MAX_FILES_BYTES = 20_000, 2**30  # of a student
MAX_TEMPORARY_BYTES = 2**30  # in /tmp of the box, and the same in /dev/shm


def packages() -> list[Path]:
    """The folders of the course's packages, as they are found."""
    return [Path(package.__file__).absolute().parent for package in (course_utils, workshop)]


def course_folders() -> list[Path]:
    """The packages, and in a checkout the images and networks. Not the checkout itself, which may hold grades."""
    data = packages()[0].parent / "data"
    is_checkout = (data / "embedded").is_dir() and not (packages()[0] / "embedded").is_dir()
    return packages() + [data] * is_checkout


@contextlib.contextmanager
def temporary_folder(files: Path | None = None) -> Iterator[Path]:
    """A folder with `files` (copies, which the user of the box may read) and an empty `work`."""
    with own_folder("grading-", Path(tempfile.gettempdir())) as folder:
        for name in ("files", "work"):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)  # also for the user of the box; nobody else comes through the folder above
        if files is not None:
            _copy_files(files, folder / "files")
        yield folder


@contextlib.contextmanager
def own_folder(prefix: str, where: Path) -> Iterator[Path]:
    """A new folder, removed at the end; first those of this kind are removed whose process was killed."""
    for other in where.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            about = other.lstat()
            is_own = stat.S_ISDIR(about.st_mode) and about.st_uid == getattr(os, "getuid", int)()
            if is_own and time.time() - about.st_mtime > 10 and (lock := _locked(other)) is not None:
                remove_folder(other)
                os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    lock = _locked(folder)  # until this process ends, however it does
    try:
        yield folder
    finally:
        remove_folder(folder)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """The open folder, which nobody else can lock until it is closed; None if somebody has, or no system does that."""
    if os.name == "nt":
        return None
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _copy_files(source: Path, target: Path) -> None:
    """Copy plain files and folders; links, devices, pipes and what cannot be read are left out."""
    count = size = 0
    for parent, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(parent, name))]
        here = target / Path(parent).relative_to(source)
        here.mkdir(exist_ok=True)
        here.chmod(0o755)
        for path in (os.path.join(parent, name) for name in names):
            try:
                status = os.lstat(path)
                count, size = count + 1, size + status.st_size
                if size > MAX_FILES_BYTES or count > MAX_FILES:
                    text = f"more than {MAX_FILES} files or {MAX_FILES_BYTES >> 20} MB"
                    raise ValueError(f"Beside the notebook there are {text}: leave out what it does not need.")
                if stat.S_ISREG(status.st_mode):
                    shutil.copyfile(path, here / os.path.basename(path))
                    (here / os.path.basename(path)).chmod(0o644)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise


def remove_folder(folder: Path) -> None:
    """Remove a folder with whatever a program left there: deep paths, folders that cannot be entered, FIFOs.

    Every folder below is first moved to the top, so that no path is long.
    """
    if os.name == "nt":  # a file that is still in use cannot be deleted at once
        shutil.rmtree(folder, ignore_errors=True)
        return
    count, waiting = 0, [str(folder)]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(one, 0o700)
        try:
            entries = list(os.scandir(one))
        except OSError:
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif one == str(folder):
                    waiting.append(entry.path)
                else:
                    os.chmod(entry.path, 0o700)
                    count += 1
                    os.rename(entry.path, folder / f"{count}.moved")
                    waiting.append(str(folder / f"{count}.moved"))
        if one != str(folder):
            with contextlib.suppress(OSError):
                os.rmdir(one)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, as far as they can be seen."""
    size, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError):
            for entry in os.scandir(waiting.pop()):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
    return size
