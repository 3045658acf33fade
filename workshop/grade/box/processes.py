"""What a process and everything it started has used, seen from outside; and how all of it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

from workshop.grade.box.folders import MAX_TEMPORARY_BYTES

LINUX = sys.platform.startswith("linux")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
MEMORY_FOLDERS = ("tmp", "dev/shm")  # of a box: what lies in them is in memory


@dataclass(frozen=True)
class Process:
    """One process: when it started (no two have number and start in common), and seconds and bytes that it uses."""

    number: int
    parent: int
    started: float
    own: float  # seconds of its own threads
    ended: float  # seconds of its children that have ended, and of theirs
    memory: int  # resident bytes
    zombie: bool = False


@dataclass(frozen=True)
class Usage:
    """Of a whole group: seconds computed and waited for a processor, bytes of memory at most, processes."""

    computed: float = 0.0
    queued: float = 0.0
    memory: int = 0
    processes: int = 0


class Group:
    """A process with all its descendants, also those that leave its session or outlive their parents."""

    def __init__(self, root: int):
        self._root = all_processes().get(root)
        self._alive: dict[int, Process] = {root: self._root} if self._root else {}
        self._own: dict[tuple[int, float], float] = {}  # seconds of all there ever were
        self._delays: dict[int, float] = {}
        self._queued = self._computed = 0.0
        self._lock = threading.Lock()

    def look(self) -> Usage:
        """What the group uses now. Seconds never shrink."""
        with self._lock:
            return self._look(all_processes())

    def _look(self, everything: dict[int, Process]) -> Usage:
        numbers = {
            number for number, one in self._alive.items()
            if number in everything and everything[number].started == one.started
        }  # fmt: skip
        new = numbers
        while new:
            new = {number for number, one in everything.items() if one.parent in new} - numbers
            numbers = numbers | new
        self._alive = {number: everything[number] for number in numbers}
        self._own |= {(one.number, one.started): one.own for one in self._alive.values()}
        # Parents know the times of children that have ended, unless they chose not to: then what was seen counts.
        known = sum(one.own + one.ended for one in self._alive.values())
        self._computed = max(self._computed, known, sum(self._own.values()))
        delays = {number: _queue_seconds(number) for number in numbers}
        self._queued += max((delay - self._delays.get(number, delay) for number, delay in delays.items()), default=0)
        self._delays = delays
        memory = sum(one.memory for one in self._alive.values()) + len(MEMORY_FOLDERS) * MAX_TEMPORARY_BYTES
        return Usage(self._computed, self._queued, memory, len(numbers))

    def memory(self) -> int:
        """Bytes that the group uses: pages that several processes share count once, files in memory count. Slow."""
        return sum(_proportional(one) for one in self._alive.values()) + self._in_folders()

    def _in_folders(self) -> int:
        """Bytes in the folders of a box that lie in memory; 0 if this is no box, or a process that is not in it yet."""
        for number in sorted(self._alive, reverse=True):
            with contextlib.suppress(OSError):
                seen = [os.statvfs(f"/proc/{number}/root/{folder}") for folder in MEMORY_FOLDERS]
                if all(one.f_blocks * one.f_frsize == MAX_TEMPORARY_BYTES for one in seen):
                    return sum((one.f_blocks - one.f_bfree) * one.f_frsize for one in seen)
        return 0

    def kill(self, mark: str = "") -> None:
        """End all of it, and wait until it has ended.

        `mark` is in the environment of its processes, so that those are found that were never seen.
        """
        for _ in range(100):
            self.look()
            numbers = {number for number, one in self._alive.items() if not one.zombie} | _marked(mark)
            if not numbers:
                return
            for number in numbers:
                with contextlib.suppress(OSError):
                    os.kill(number, getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(0.02)


def all_processes() -> dict[int, Process]:
    """Every process of this computer that can be looked at."""
    if LINUX:
        found = (_read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return {one.number: one for one in found if one}
    import psutil  # ipykernel needs it, too

    result = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error), process.oneshot():
            times, zombie = process.cpu_times(), process.status() == psutil.STATUS_ZOMBIE
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            result[process.pid] = Process(
                process.pid, process.ppid(), process.create_time(), times.user + times.system, ended,
                process.memory_info().rss, zombie,
            )  # fmt: skip
    return result


def _read_process(number: int) -> Process | None:
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        state, parent, started = fields[0], int(fields[1]), float(fields[19])
        own, ended, pages = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]), int(fields[21])
    except (OSError, IndexError, ValueError):  # it has ended
        return None
    return Process(number, parent, started, own / TICKS, ended / TICKS, pages * PAGE, state in (b"Z", b"X"))


def _queue_seconds(number: int) -> float:
    """Seconds that the main thread of a process wanted to compute and got no processor."""
    try:
        with open(f"/proc/{number}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _proportional(one: Process) -> int:
    """Bytes of memory of a process, of which shared pages are divided between those who share them."""
    try:
        with open(f"/proc/{one.number}/smaps_rollup", "rb") as file:
            sizes = {line.split()[0]: int(line.split()[1]) for line in file.read().splitlines()[1:]}
        return (sizes[b"Pss:"] + sizes.get(b"SwapPss:", 0)) * 1024
    except (OSError, ValueError, IndexError, KeyError):
        return one.memory


def _marked(mark: str) -> set[int]:
    """Processes of this user that have the mark in their environment."""
    return {number for number in all_processes() if mark.encode() in _environment(number)} if mark else set()


def _environment(number: int) -> bytes:
    if LINUX:
        with contextlib.suppress(OSError), open(f"/proc/{number}/environ", "rb") as file:
            return file.read()
        return b""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return "\0".join(psutil.Process(number).environ().values()).encode(errors="replace")
    return b""
