"""What a process and everything it started has used, seen from outside; and how all of it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LINUX = sys.platform.startswith("linux")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Process:
    """One process: when it started (two never have number and start in common), and seconds and bytes it uses."""

    number: int
    parent: int
    started: float
    own: float  # seconds of its own threads
    ended: float  # seconds of its children that have ended, and of theirs
    memory: int  # resident bytes


@dataclass(frozen=True)
class Usage:
    """Of a whole group: seconds computed and waited for a processor, bytes of memory, processes."""

    computed: float = 0.0
    queued: float = 0.0
    memory: int = 0
    processes: int = 0


class Group:
    """A process with all its descendants, also those that leave its group or outlive their parents."""

    def __init__(self, root: int):
        self.root = root
        self.seen: dict[tuple[int, float], Process] = {}  # all there ever were, as they were last
        self.alive: dict[int, Process] = {}
        self._delays: dict[int, float] = {}
        self._queued = self._computed = 0.0

    def look(self) -> Usage:
        """What the group uses now. Seconds never shrink."""
        everything = _all_processes()
        known = {number for number, one in self.alive.items() if _same(everything.get(number), one)}
        numbers = known | ({self.root} & everything.keys())
        new = numbers
        while new:
            new = {number for number, one in everything.items() if one.parent in new} - numbers
            numbers |= new
        self.alive = {number: everything[number] for number in numbers}
        self.seen |= {(one.number, one.started): one for one in self.alive.values()}
        # Times of children that ended are known to their parents, unless these ignore it; then what was seen counts.
        counted = sum(one.own + one.ended for one in self.alive.values())
        self._computed = max(self._computed, counted, sum(one.own for one in self.seen.values()))
        delays = {number: _queue_seconds(number) for number in numbers}
        self._queued += max((delay - self._delays.get(number, delay) for number, delay in delays.items()), default=0)
        self._delays = delays
        return Usage(self._computed, self._queued, self._memory(), len(numbers))

    def _memory(self) -> int:
        return sum(one.memory for one in self.alive.values())

    def shared_memory(self) -> int:
        """Bytes of memory in which pages that several processes share count once; slower than `look`."""
        return sum(_proportional(one) for one in self.alive.values())

    def kill(self, mark: str = "") -> None:
        """End all of it. `mark` is in the environment of processes that may have been missed."""
        for _ in range(100):
            self.look()
            numbers = set(self.alive) | (_marked(mark) if mark else set())
            numbers -= {number for number in numbers if _is_zombie(number)}
            if not numbers:
                return
            for number in numbers:
                with contextlib.suppress(OSError):
                    os.kill(number, getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(0.02)


def _same(now: Process | None, before: Process) -> bool:
    return now is not None and now.started == before.started


def _all_processes() -> dict[int, Process]:
    """Every process of this computer that can be read."""
    if LINUX:
        found = (_read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return {one.number: one for one in found if one}
    import psutil

    result = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error), process.oneshot():
            number, times = process.pid, process.cpu_times()
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            result[number] = Process(
                number, process.ppid(), process.create_time(), times.user + times.system, ended,
                process.memory_info().rss,
            )  # fmt: skip
    return result


def _read_process(number: int) -> Process | None:
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:  # it has ended
        return None
    if len(fields) < 22:
        return None
    own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return Process(number, int(fields[1]), float(fields[19]), own / TICKS, ended / TICKS, int(fields[21]) * PAGE)


def _queue_seconds(number: int) -> float:
    """Seconds that the first thread of a process wanted to compute and got no processor."""
    try:
        with open(f"/proc/{number}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _proportional(one: Process) -> int:
    try:
        with open(f"/proc/{one.number}/smaps_rollup", "rb") as file:
            sizes = {line.split()[0]: int(line.split()[1]) for line in file.read().splitlines()[1:]}
        return (sizes[b"Pss:"] + sizes.get(b"SwapPss:", 0)) * 1024
    except (OSError, ValueError, IndexError, KeyError):
        return one.memory


def _is_zombie(number: int) -> bool:
    if not LINUX:
        import psutil

        try:
            return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True
    try:
        return Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def _marked(mark: str) -> set[int]:
    """Processes of this user that have the mark in their environment."""
    found = set()
    with contextlib.suppress(ImportError):
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if mark in process.environ().values():
                    found.add(process.pid)
    return found - {os.getpid()}
