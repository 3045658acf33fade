"""Runs a command as on a Kaggle machine without internet. Started as a script, on Linux, by a Python 3.12 or newer, as
root or as a user who may make namespaces.

    python kaggle_machine.py ROOT INPUT WORKING HIDDEN KEPT ... -- COMMAND ...

The command sees the files of this machine read-only, except `/tmp` (empty) and `/kaggle/working` (the folder WORKING);
INPUT is at `/kaggle/input`. The folder HIDDEN is empty, but for the folders KEPT if they lie in it. There is no network
but the machine itself (Jupyter's kernels talk over it). All of that is gone when the command has ended; ROOT is an
empty folder where the view is put together.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

BIND, RECURSIVE, REMOUNT, READ_ONLY, PRIVATE = 4096, 16384, 32, 1, 1 << 18
LIBRARY = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "none", flags: int = 0) -> None:
    arguments = source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), None
    if LIBRARY.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {source} at {target}: {os.strerror(number)}")


def make_read_only(place: Path) -> None:
    """Mount once more, read-only. What is forbidden there already must be so again, or the system refuses."""
    already = os.statvfs(place).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    mount("none", place, flags=REMOUNT | BIND | READ_ONLY | already)


def separate() -> None:
    """Own views of the file systems and of the network; as another user also own rights in them."""
    user, group = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWNS | os.CLONE_NEWNET | (os.CLONE_NEWUSER if user != 0 else 0))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("none", Path("/"), flags=RECURSIVE | PRIVATE)


def start_loopback() -> None:
    with socket.socket() as one:
        request = struct.pack("16sh", b"lo", 1)  # the interface, and "up"
        fcntl.ioctl(one, 0x8914, request)  # SIOCSIFFLAGS


def put_together(root: Path, given: Path, working: Path, hidden: Path, kept: list[Path]) -> None:
    mount("tmpfs", root, "tmpfs")
    for entry in Path("/").iterdir():
        place = root / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir() and entry.name not in ("tmp", "kaggle"):
            place.mkdir()
            mount(str(entry), place, flags=BIND | RECURSIVE)
            if entry.name not in ("proc", "dev", "sys"):
                make_read_only(place)
    (root / "tmp").mkdir()
    mount("tmpfs", root / "tmp", "tmpfs")
    # The folders that the command may need are opened first: what they lie in is about to be covered.
    handles = [(path, os.open(path, os.O_PATH)) for path in (given, working, *kept)]
    cover = root / hidden.relative_to("/")
    cover.mkdir(parents=True, exist_ok=True)  # it may lie in /tmp
    mount("tmpfs", cover, "tmpfs")
    places = {given: root / "kaggle/input", working: root / "kaggle/working"}
    for path, handle in handles:
        place = places.get(path, root / path.relative_to("/"))
        place.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", place, flags=BIND)
        if path != working:
            make_read_only(place)
    make_read_only(cover)
    make_read_only(root)


def main() -> None:
    end = sys.argv.index("--")
    root, given, working, hidden, *kept = (Path(argument).resolve() for argument in sys.argv[1:end])
    separate()
    start_loopback()
    put_together(root, given, working, hidden, kept)
    os.chroot(root)
    os.chdir("/kaggle/working")
    os.execv(sys.argv[end + 1], sys.argv[end + 1 :])


if __name__ == "__main__":
    main()
