"""The confined process in which a student's notebook runs: messages to it and from it, its limits, and its end.

A box is watched from outside. What it may use cannot be had again by anything that the notebook does: only
`Box.new_budget` starts the next budget. A box that used too much, or that said too much, is ended with every process
that it started, and `Box.receive` says why.
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
from workshop.grade.folders import temporary_folder
from workshop.grade.processes import Group, Usage
from workshop.grade.sandbox import (
    MAX_PROCESSES,
    Sandbox,
    SandboxError,
    container_process,
    end_container,
    find_sandbox,
)  # fmt: skip

__all__ = ["Box", "BoxEnded", "Limits", "Sandbox", "SandboxError", "find_sandbox"]

INSIDE = ("-m", "workshop.grade.inside")
START_SECONDS = 180.0  # until torch is loaded, on a slow disk
TORCH_BYTES = 10**9  # what Python needs with torch and the course, before a student's code
MAX_FRAME = 64 * 2**20
HEADER = 8  # bytes that tell the length of a message
PAUSE = 0.1  # seconds between two looks


@dataclass(frozen=True)
class Limits:
    """What a notebook may use: seconds of processor time for a cell or a check and for all of it, gigabytes of memory
    on top of torch itself, megabytes that it may answer."""

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
    """A process in a sandbox, from `with` to the end of the block; then nothing of it is left.

    >>> limits = Limits(seconds=5)
    >>> with Box(find_sandbox("unsafe"), None, limits, program=["-c", "print('12345678', end='')"]) as box:
    ...     box.new_budget()
    """

    def __init__(
        self, sandbox: Sandbox, files: Path | None, limits: Limits, stop: Stop | None = None,
        program: Sequence[str] = INSIDE,
    ):  # fmt: skip
        self.sandbox, self.files, self.limits = sandbox, files, limits
        self.stop = stop or threading.Event()
        self.program = program
        self._ended: BoxEnded | None = None
        self._lock = threading.Lock()
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._errors, self._said, self._heard = b"", 0, False
        self._awaited = False  # whether somebody waits for the box now
        self._waited = 0.0
        self._usage, self._start, self._step = Usage(), (Usage(), 0.0), (Usage(), 0.0)

    def __enter__(self) -> Box:
        self._stack = contextlib.ExitStack()
        with self._stack:
            folder = self._stack.enter_context(temporary_folder(self.files))
            self._begin(folder)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, folder: Path) -> None:
        self._name = f"course-box-{secrets.token_hex(8)}"
        limits = self.limits
        command = self.sandbox.command(folder, self.program, limits.notebook, limits.memory + 1, self._name)
        environment = self.sandbox.environment(folder)
        if self.sandbox.kind == "unsafe":
            environment["COURSE_BOX"] = self._name
        elif self.sandbox.kind != "bubblewrap":  # the engine's client needs its own
            environment = dict(os.environ)
        self._process = subprocess.Popen(
            command, env=environment, cwd=folder / "work", bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Its own group, so that Ctrl-C in the terminal is for the grader.
            start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )  # fmt: skip
        self._group = Group(self._process.pid)
        self._started = time.monotonic()
        for target in (self._read, self._read_errors, self._write, self._watch):
            threading.Thread(target=target, daemon=True).start()
        self._stack.callback(self._close)

    def send(self, payload: bytes) -> None:
        """Send a message. It does not wait for the box to read it."""
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
            frame = self._frames.get()
        finally:
            self._awaited = False
        if frame is None:
            self._frames.put(None)
            raise self._ended or BoxEnded("The box has ended.")
        return frame

    def new_budget(self) -> None:
        """Start the budget of the next cell or check."""
        self._step = (self._usage, self._waited)

    # its end

    def _end(self, message: str, timed_out: bool = False) -> None:
        """Note the first reason, and kill everything."""
        with self._lock:
            if self._ended is None:
                self._ended = BoxEnded(message, timed_out)
        self._kill()
        self._frames.put(None)

    def _kill(self) -> None:
        if self.sandbox.kind in ("docker", "podman"):
            end_container(self.sandbox.program, self._name)
        else:
            self._group.kill(self._name if self.sandbox.kind == "unsafe" else "")
        self._process.kill()

    def _close(self) -> None:
        self._closing.set()
        self._end("The box was closed.")
        self._process.wait()
        self._outgoing.put(None)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    # pipes

    def _read(self) -> None:
        """Take messages from the box until its end."""
        data = bytearray()
        while chunk := self._chunk(self._process.stdout):
            data += chunk
            while len(data) >= HEADER:
                length = int.from_bytes(data[:HEADER], "big")
                if length > MAX_FRAME:
                    self._end("Output: the code wrote into the channel of the grader, or its answer was too large.")
                    return
                if len(data) < HEADER + length:
                    break
                if not self._heard:
                    self._heard = True
                    self._start = self._step = (self._usage, self._waited)
                self._frames.put(bytes(data[HEADER : HEADER + length]))
                del data[: HEADER + length]
        self._explain()

    def _read_errors(self) -> None:
        while chunk := self._chunk(self._process.stderr):
            self._errors = (self._errors + chunk)[-2000:]

    def _chunk(self, pipe) -> bytes:
        try:
            chunk = os.read(pipe.fileno(), 2**16)
        except (OSError, ValueError):
            return b""
        self._said += len(chunk)
        if self._said > self.limits.output * 1e6:
            self._end(f"Output: the code wrote more than {self.limits.output:g} MB.")
            return b""
        return chunk

    def _write(self) -> None:
        while (message := self._outgoing.get()) is not None:
            view = memoryview(message)
            try:
                while view:
                    view = view[os.write(self._process.stdin.fileno(), view) :]
            except (OSError, ValueError):  # the box has ended, and `_read` says so
                return

    def _explain(self) -> None:
        """Say how the process ended, after its last word."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        if code is None:
            reason = "Exit: the code closed the channel to the grader."
        else:
            reason = explain_exit(code)
        if not self._heard:
            text = " ".join(self._errors.decode(errors="replace").split())[-300:]
            reason = f"{reason} {text}".strip()
        self._end(reason)

    # limits

    def _watch(self) -> None:
        """Look at the box again and again, until it has ended or must end."""
        last, pause, alone = time.monotonic(), PAUSE, False
        while not self._closing.wait(pause) and self._ended is None:
            before = time.monotonic()
            if self.sandbox.kind in ("docker", "podman") and not alone:
                if number := container_process(self.sandbox.program, self._name):
                    self._group, alone = Group(number), True
            usage = self._group.look()
            now = time.monotonic()
            if self._awaited:
                self._waited += now - last
            last, pause = now, max(PAUSE, 20 * (now - before))  # a machine with many processes is not kept busy
            self._usage = usage
            if reason := self._exceeded(usage):
                self._end(*reason)

    def _exceeded(self, usage: Usage) -> tuple[str, bool] | None:
        """Which limit is exceeded, if any, and whether it is one of time."""
        limits = self.limits
        if self.stop.is_set():
            return "Interrupted.", False
        if usage.memory > (most := limits.memory * 1e9 + TORCH_BYTES) and self._group.shared_memory() > most:
            return f"Memory: the code used more than {limits.memory:g} GB.", False
        if usage.processes > MAX_PROCESSES:
            return f"Processes: the code started more than {MAX_PROCESSES}.", False
        step = limits.seconds if self._heard else START_SECONDS
        for (base, waited), seconds, what in (
            (self._step, step, "the code was"), (self._start, limits.notebook, "the notebook was"),
        ):  # fmt: skip
            computed, queued = usage.computed - base.computed, usage.queued - base.queued
            passed = self._waited - waited
            if computed > seconds:
                return f"Time: {what} stopped after {computed:.0f} seconds of computing.", True
            if passed > min(seconds + 4 * (computed + queued), 60 * seconds):
                text = f"stopped after {passed:.0f} seconds, of which it computed for {computed:.0f}."
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
