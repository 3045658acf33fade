"""The command line of bubblewrap: new namespaces, and from the outside in what the box sees.

The box sees the system's libraries, Python and the course, read-only, its own processes, and a /tmp of limited size.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from workshop.grade.box.folders import FILES, HOME, MAX_TEMPORARY_BYTES, WORK, course_folders

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# What programs look up: libraries, where Debian keeps links to them, fonts, the time zone. No passwords, no hosts.
SYSTEM_FILES = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime", "mime.types")
PYTHON = ("bin", "include", "lib", "lib64", "libexec", "pyvenv.cfg", "share")  # of its folder, which may be a checkout
UNUSED_USERS = range(61184, 65520)  # systemd keeps them for services that get a user of their own


def bubblewrap(
    program: str, folder: Path, limits: dict[str, int], arguments: Sequence[str], seccomp: int | None = None
) -> list[str]:
    """The command line that runs Python with these arguments in the box.

    Args:
        program: bubblewrap.
        folder: the temporary folder of the box; `files` in it is what the box may read.
        limits: of prlimit, for each process.
        arguments: of Python.
        seccomp: number of an open file with the filter of system calls, if there is one.
    """
    user = os.getuid() or secrets.choice(UNUSED_USERS)
    (folder / "passwd").write_text(f"student:x:{user}:{user}::{HOME}:/bin/sh\n")
    # Not in a user namespace for root: there the number of processes is not limited. Instead root becomes another user.
    own = ["--unshare-user"] if os.getuid() else []
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    return [
        program, *own, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent", "--new-session", "--hostname", "box",
        *_system(), *_own(folder), *_python_and_course(), *_files(folder),
        *(["--seccomp", str(seccomp)] if seccomp is not None else []), "--remount-ro", "/", "--chdir", WORK, "--",
        *([] if own else drop), "prlimit", *(f"--{name}={value}" for name, value in limits.items()), "--",
        sys.executable, "-P", *arguments,
    ]  # fmt: skip


def _system() -> list[str]:
    result = []
    for path in SYSTEM:
        if os.path.islink(path):
            result += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            result += _mount(Path(path))
    for path in (*(f"/etc/{name}" for name in SYSTEM_FILES), "/sys/devices/system/cpu"):
        if os.path.exists(path):
            result += _mount(Path(path))
    return result


def _own(folder: Path) -> list[str]:
    return [
        "--ro-bind", str(folder / "passwd"), "/etc/passwd", "--proc", "/proc", "--dev", "/dev",
        *_tmpfs("/dev/shm"), "--remount-ro", "/dev", *_tmpfs("/tmp"),
    ]  # fmt: skip


def _files(folder: Path) -> list[str]:
    writable = [part for path in (WORK, HOME) for part in ("--perms", "0777", "--dir", path)]
    return ["--perms", "0755", "--dir", FILES, "--ro-bind", str(folder / "files"), FILES, *writable]


def _python_and_course() -> list[str]:
    prefixes = dict.fromkeys(os.path.abspath(prefix) for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix))
    wanted = [Path(prefix, name) for prefix in prefixes for name in PYTHON]
    wanted += [Path(entry) for entry in (*package_folders(), *library_folders())] + course_folders()
    wanted += [Path(os.path.realpath(path)) for path in wanted]
    links = {}
    python = Path(sys.executable)
    while python.is_symlink() and python not in links:  # bin/python may be a link to a link
        links[python] = os.readlink(python)
        python = Path(os.path.normpath(python.parent / links[python]))
    seen = [Path(path) for path in SYSTEM if os.path.isdir(path)]
    result = []
    for path in sorted(dict.fromkeys(wanted)):  # folders before what lies in them
        if path.exists() and not any(path.is_relative_to(other) for other in seen):
            result += _mount(path)
            seen.append(path)
    for link, target in links.items():
        if not any(link.is_relative_to(other) for other in seen):
            result += [*_parents(link), "--symlink", target, str(link)]
    return result


def package_folders() -> list[str]:
    """Folders of installed packages outside of the Python installation, such as those of `pip install --user`."""
    prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix, *SYSTEM)}
    return [
        entry
        for entry in sys.path
        if Path(entry).name in ("site-packages", "dist-packages") and os.path.isdir(entry)
        and not any(Path(os.path.realpath(entry)).is_relative_to(prefix) for prefix in prefixes)
    ]  # fmt: skip


def library_folders() -> list[str]:
    """Where a cluster's modules say that libraries are."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [folder for folder in folders if os.path.isabs(folder) and Path(folder).name in ("lib", "lib64")]


def _mount(path: Path) -> list[str]:
    return [*_parents(path), "--ro-bind", os.path.realpath(path), str(path)]


def _tmpfs(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(MAX_TEMPORARY_BYTES), "--tmpfs", path]


def _parents(path: Path) -> list[str]:
    """Make the folders above a path so that all may pass them; bubblewrap by itself makes them for root only."""
    above = [str(parent) for parent in reversed(path.parents) if str(parent) not in ("/", "/tmp")]
    return [part for parent in above for part in ("--perms", "0755", "--dir", parent)]
