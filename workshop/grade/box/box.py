"""The confined process in which a student's notebook runs: messages to it and from it, its limits, and its end.

A box is watched from outside. Nothing that the notebook does gives it back what it has used: only `Box.new_budget`
starts the budget of the next cell or check, and that of the whole notebook never starts again. A box that used too much
or said too much is ended with every process that it started, and `Box.receive` says why.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workshop.cluster import Stop
from workshop.grade.box.containers import container_process, remove_container
from workshop.grade.box.folders import MAX_TEMPORARY_BYTES, folder_bytes, temporary_folder
from workshop.grade.box.processes import Group, Usage
from workshop.grade.box.sandbox import MAX_PROCESSES, Sandbox

INSIDE = ("-m", "workshop.grade.box.inside")
START_SECONDS = 180.0  # until torch is loaded, on a slow disk
TORCH_BYTES = 10**9  # what Python needs with torch and the course, before a student's code
MAX_MESSAGE = 64 * 2**20
HEADER = 8  # bytes that tell the length of a message
PAUSE = 0.1  # seconds between two looks
WAITING = 4  # seconds that a box may wait for each one that it computed or stood in the queue for a processor
LONGEST = 60  # times the limit, after which it ends on the busiest machine


@dataclass(frozen=True)
class Limits:
    """What a notebook may use.

    `seconds` of processor time for a cell or a check, and `notebook` for all of it; gigabytes of `memory` besides
    torch; megabytes of `output`.
    """

    seconds: float = 30.0
    memory: float = 4.0
    notebook: float = 600.0
    output: float = 256.0


class BoxEnded(Exception):
    """The box has ended by itself or was ended; `message` says why. `timed_out`: its time was up."""

    def __init__(self, message: str, timed_out: bool = False):
        super().__init__(message)
        self.message, self.timed_out = message, timed_out


class Box:
    """A Python process in a sandbox; at the end of the `with` block nothing of it is left.

    Args:
        sandbox: what confines it.
        files: a folder with the student's other files, which it can read; None for none.
        limits: for this notebook.
        stop: ends the box early once it is set.
        program: arguments of Python; the paths of the files and of a folder to work in are put behind them.

    Messages are bytes with their length (8 bytes, most significant first) before them, on standard input and output.

    >>> from workshop.grade.box.sandbox import find_sandbox
    >>> program = ["-c", "import os; os.write(1, (2).to_bytes(8, 'big') + b'hi')"]
    >>> with Box(find_sandbox("unsafe"), None, Limits(), program=program) as box:
    ...     box.receive()
    b'hi'
    """

    def __init__(
        self, sandbox: Sandbox, files: Path | None, limits: Limits, stop: Stop | None = None,
        program: Sequence[str] = INSIDE,
    ):  # fmt: skip
        self.sandbox, self.files, self.limits, self.stop, self.program = sandbox, files, limits, stop, program
        self._name = f"course-box-{secrets.token_hex(8)}"
        self._incoming: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._ended: BoxEnded | None = None
        self._heard = False  # whether it has said anything
        self._said, self._errors = 0, b""  # bytes in all; the last ones on standard error
        self._seconds = limits.seconds  # of the budget of this step
        self._awaited, self._waited = False, 0.0  # whether somebody waits for the box now; seconds so far
        self._usage = Usage()
        self._notebook = self._step = (self._usage, self._waited)  # where the two budgets began

    def __enter__(self) -> Box:
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder(self.files))
            limits = self.limits
            self._process = self.sandbox.start(
                self._folder, self.program, limits.notebook, limits.memory + TORCH_BYTES / 1e9, self._name
            )
            self._group = Group(self._process.pid)
            tasks = (self._read, self._read_errors, self._write, self._watch)
            self._threads = [threading.Thread(target=task, daemon=True) for task in tasks]
            stack.callback(self._close)
            for thread in reversed(self._threads):  # that which may end all comes last
                thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, payload: bytes) -> None:
        """Send a message; this does not wait until the box reads it.

        Raises:
            BoxEnded: the box has ended.
        """
        if self._ended:
            raise self._ended
        self._outgoing.put(len(payload).to_bytes(HEADER, "big") + payload)

    def receive(self) -> bytes:
        """The next message of the box.

        Raises:
            BoxEnded: there is none, because the box has ended; all later calls raise it, too.
        """
        self._awaited = True
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    message = self._incoming.get(timeout=1)  # in short pieces: on Windows Ctrl-C waits for their end
                    break
        finally:
            self._awaited = False
        if message is None:
            self._incoming.put(None)
            raise self._ended or BoxEnded("The box has ended.")
        return message

    def new_budget(self, seconds: float | None = None) -> None:
        """Start the budget of the next cell or check; None for that of the limits."""
        self._seconds = seconds or self.limits.seconds
        self._step = (self._usage, self._waited)

    @property
    def used(self) -> float:
        """Seconds of the notebook's total that the box has used: those that it computed, or waited beyond its share."""
        base, waited = self._notebook
        computed, queued = self._usage.computed - base.computed, self._usage.queued - base.queued
        return max(computed, self._waited - waited - WAITING * (computed + queued))

    # its end

    def _end(self, message: str, timed_out: bool = False) -> None:
        """Keep the first reason, and end everything."""
        with self._lock:
            if self._ended is None:
                self._ended = BoxEnded(message, timed_out)
        self._kill()
        self._incoming.put(None)

    def _kill(self) -> None:
        if self.sandbox.is_engine:
            remove_container(self.sandbox.program, self._name)
        else:
            self._group.kill(mark="" if self.sandbox.safe else self._name)
        self._process.kill()

    def _close(self) -> None:
        self._closing.set()
        self._end("The box was closed.")
        self._outgoing.put(None)
        self._process.wait()
        for thread in self._threads:
            if thread.ident:
                thread.join(5)
        if not any(thread.is_alive() for thread in self._threads):  # else a process that was not found holds a pipe
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                pipe.close()

    # pipes

    def _read(self) -> None:
        """Take messages from the box until its end."""
        data = bytearray()
        while chunk := self._chunk(self._process.stdout):
            data += chunk
            while len(data) >= HEADER:
                length = int.from_bytes(data[:HEADER], "big")
                if length > MAX_MESSAGE:
                    self._end("Output: the code wrote into the grader's channel, or what it returned is too large.")
                    return
                if len(data) < HEADER + length:
                    break
                if not self._heard:
                    self._notebook = self._step = (self._usage, self._waited)
                    self._heard = True
                self._incoming.put(bytes(data[HEADER : HEADER + length]))
                del data[: HEADER + length]
        self._explain()

    def _read_errors(self) -> None:
        while chunk := self._chunk(self._process.stderr):
            self._errors = (self._errors + chunk)[-2000:]

    def _chunk(self, pipe) -> bytes:
        chunk = os.read(pipe.fileno(), 2**16)
        self._said += len(chunk)
        if self._said > self.limits.output * 1e6:
            self._end(f"Output: the code wrote more than {self.limits.output:g} MB.")
            return b""
        return chunk

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # the box has ended, and `_read` says so
            while (message := self._outgoing.get()) is not None:
                view = memoryview(message)
                while view:
                    view = view[os.write(self._process.stdin.fileno(), view) :]

    def _explain(self) -> None:
        """Say how the process ended, after its last word."""
        try:
            reason = explain_exit(self._process.wait(5))
        except subprocess.TimeoutExpired:
            reason = "Exit: the code closed the channel to the grader."
        self._kill()
        if not self._heard:
            self._threads[1].join(5)  # what it said on standard error
            reason += " " + " ".join(self._errors.decode(errors="replace").split())[-300:]
        self._end(reason.strip())

    # limits

    def _watch(self) -> None:
        """Look at the box again and again, until it has ended or must end."""
        looks, last, pause, found = 0, time.monotonic(), PAUSE, not self.sandbox.is_engine
        while not self._closing.wait(pause) and self._ended is None:
            before = time.monotonic()
            if not found and looks < 100 and (number := container_process(self.sandbox.program, self._name)):
                self._group, found = Group(number), True
            self._usage, now = self._group.look(), time.monotonic()
            if self._awaited:
                self._waited += now - last
            # A machine with many processes is not kept busy by looking at them.
            last, pause, looks = now, max(PAUSE, 20 * (now - before)), looks + 1
            if reason := self._exceeded(self._usage, thorough=looks % 10 == 0):
                self._end(*reason)
            elif self._process.poll() is not None:
                self._threads[0].join(1)  # unless something that it started holds its pipe open
                self._explain()

    def _exceeded(self, usage: Usage, thorough: bool) -> tuple[str, bool] | None:
        """Which limit is exceeded, if any, and whether it is one of time."""
        limits, most = self.limits, self.limits.memory * 1e9 + TORCH_BYTES
        if self.stop is not None and self.stop.is_set():
            return "Interrupted.", False
        if usage.processes > MAX_PROCESSES:
            return f"Processes: the code started more than {MAX_PROCESSES}.", False
        if usage.memory > most and self._group.memory() > most:
            return f"Memory: the code used more than {limits.memory:g} GB.", False
        if thorough and not self.sandbox.safe and folder_bytes(self._folder) > 2 * MAX_TEMPORARY_BYTES:
            return f"Disk: the code wrote more than {2 * MAX_TEMPORARY_BYTES / 1e9:.1f} GB.", False
        cell = ("the code", self._step, self._seconds if self._heard else START_SECONDS)
        for what, (base, waited), seconds in (cell, ("the notebook", self._notebook, limits.notebook)):
            computed, queued = usage.computed - base.computed, usage.queued - base.queued
            passed = self._waited - waited
            if computed > seconds:
                return f"Time: {what} was stopped after {computed:.0f} seconds of computing.", True
            if passed > min(seconds + WAITING * (computed + queued), LONGEST * seconds):
                text = f"was stopped after {passed:.0f} seconds, of which it computed for {computed:.0f}."
                return f"Time: {what} {text}", True
        return None


def explain_exit(code: int) -> str:
    """What the exit code of a box that should have gone on says; 128 and more stand for signals."""
    number = -code if code < 0 else code - 128
    if number not in set(signal.Signals):
        return f"Exit: the code ended Python itself, with exit code {code}."
    name = signal.Signals(number).name
    reasons = {"SIGKILL": " (usually because memory ran out)", "SIGXCPU": " (too much computing time)"}
    return f"Crash: Python was ended by {name}{reasons.get(name, '')}."
