"""The program in the box: runs the cells of a notebook as a kernel does, and answers the judge.

    python -P -m workshop.grade.box.inside FILES WORK

FILES are the student's other files; cells run in WORK, which gets a copy of them. Judge and box send each other packed
dicts over standard input and output, each behind its length in 8 bytes; `workshop.grade.judge.judge` lists them.

Nothing that is said here is believed: the judge compares what the student's object does with inputs of its own.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import getpass
import importlib
import io
import os
import queue
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from course_utils.exercises import get_exercise
from course_utils.exercises.sandbox import (
    CheckTimeout,
    describe_exception,
    preserved_state,
    run_check,
    silence,
    time_limit,
)
from workshop.grade.box.guard import Guard
from workshop.grade.judge import calls, values
from workshop.grade.judge.plain_pictures import to_plain

HEADER = 8
LIVE_SECONDS = 600  # until a check in a process of its own is given up; usually the box is stopped earlier
OBSERVE_SECONDS = 20.0
CELL_FILE = "<ipython-input-"
PACKAGES = ("course_utils", "workshop")
FIGURES = "module://matplotlib_inline.backend_inline"  # as a kernel says


def main(arguments: list[str]) -> None:
    """Run the cells that the judge sends, answer, and end the process whatever threads are left in it."""
    channel = Channel()
    try:
        prepare_folder(*map(Path, arguments))
        NotebookRun(channel).run()
    except BaseException:
        channel.send({"end": {"fault": " ".join(traceback.format_exc(limit=-2).split())}})
    os._exit(0)


def prepare_folder(files: Path, work: Path) -> None:
    """Work in a folder that holds the student's other files. It is the last place where modules are looked for."""
    for path in files.iterdir():  # not the folder itself: it may belong to another user, who sets its times
        if path.is_dir():
            shutil.copytree(path, work / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, work)
    os.chdir(work)
    sys.path.append(os.getcwd())  # last, so that a student's numpy.py hides nothing
    sys.dont_write_bytecode = True
    defaults = {"MPLBACKEND": FIGURES, "COURSE_PROGRESS": "progress.json", "TERM": "dumb", "PAGER": "cat"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


class Channel:
    """The way to the judge: what were standard input and output. Prints, questions and C code get others."""

    def __init__(self):
        self.incoming, self.outgoing = os.dup(0), os.dup(1)  # not inherited by programs that a student's code starts
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        if os.name == "nt":
            import msvcrt

            for number in (self.incoming, self.outgoing):
                msvcrt.setmode(number, os.O_BINARY)
        sys.stdin = io.StringIO()
        self.secret, self.process = None, os.getpid()
        self.messages: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Take messages until the judge is gone, and then end with everything that the notebook started."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                self.messages.put(self._exactly(int.from_bytes(self._exactly(HEADER), "big")))
        if os.name == "posix" and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            if not (more := os.read(self.incoming, min(length - len(data), 2**20))):
                raise EOFError
            data += more
        return bytes(data)

    def receive(self) -> dict:
        message = values.unpack(self.messages.get())
        self.secret = message["secret"]
        return message

    def send(self, message: dict) -> None:
        if os.getpid() != self.process:
            raise OSError("A check is possible in the notebook's own process only.")
        payload = values.pack(message | {"secret": self.secret})
        data = memoryview(len(payload).to_bytes(HEADER, "big") + payload)
        try:
            while data:
                data = data[os.write(self.outgoing, data) :]
        except OSError:  # a student's code closed it
            os._exit(1)


def set_limits(more_bytes: int) -> None:
    """Let this process have this much memory more than it has now. No effect where the system has no such limits."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def make_shell() -> Any:
    """The object behind `get_ipython()`, which runs cells as a kernel does, and shows nothing."""
    from ipykernel.zmqshell import KernelMagics
    from IPython.core import page
    from IPython.core.error import StdinNotImplementedError
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False  # no database; `In` and `Out` are there
    shell = InteractiveShell.instance(config=config)
    shell.set_hook("show_in_pager", page.as_hook(page.display_page), 90)
    shell.ask_exit = sys.exit  # `exit()` ends the cell
    shell.showtraceback = shell.showsyntaxerror = shell.showindentationerror = lambda *_, **__: None
    shell._format_exception_for_storage = lambda *_, **__: []

    def ask(*_: Any, **__: Any) -> None:
        raise StdinNotImplementedError("There is nobody who could answer: input() does not work in Run all.")

    builtins.input = getpass.getpass = ask  # as in a kernel that nobody watches
    shell.enable_gui = lambda gui=None: None
    shell.register_magics(KernelMagics)
    return shell


class NotebookRun:
    """One notebook: the shell that runs its cells, and what the judge asks during a check.

    The course is loaded twice: a copy that checks, which is out of `sys.modules` before the first cell runs, and
    another one that the notebook imports. In that one `evaluate`, which `check` calls, asks the judge.
    """

    def __init__(self, channel: Channel):
        self.channel = channel
        self.checked: set[str] = set()
        self.waiting_for_verdict = False

    def run(self) -> None:
        start = self.channel.receive()["start"]
        # kept, since `Exercise.check` would look for the copy that the notebook imports
        self.checks = {exercise: get_exercise(exercise).check for exercise in start["exercises"]}
        self.observe = importlib.import_module("workshop.grade.judge.observations").observe
        self.shell = make_shell()
        self.guard = Guard()
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        self.exercises = importlib.import_module("course_utils.exercises")
        self.exercises.evaluate, self._show_result = self.evaluate, self.exercises.show_result
        sandbox, feedback = (sys.modules[f"course_utils.exercises.{name}"] for name in ("sandbox", "feedback"))
        self.exercises.show_result = feedback.show_result = self.show_result
        # for a notebook that loads the course again
        sandbox.run_check = lambda exercise_id, _, submission, *__: self.evaluate(exercise_id, submission)
        set_limits(int(start["memory"] * 1e9))
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        for cell in start["cells"]:
            self.run_cell(cell, start["faults"])
        self.check_the_rest(start)
        self.channel.send({"end": {}})

    def run_cell(self, cell: dict, faults: dict[str, str]) -> None:
        """Run one cell; what goes wrong ends this cell only."""
        step = f"cell {cell['number']}"
        self.channel.send({"step": step})
        wrong = faults.get(step) or self._execute(cell)
        if wrong:
            self.channel.send({"cell": cell["number"], "error": wrong})

    def _execute(self, cell: dict) -> str:
        """Run one cell, and return what went wrong."""
        place, source, shell = f"cell {cell['number']}", cell["source"], self.shell
        try:
            transformed, odd = shell.transform_cell(source), None
        except Exception:
            transformed, odd = source, sys.exc_info()
        running = shell.run_cell_async(
            source, store_history=True, transformed_cell=transformed, preprocessing_exc_tuple=odd
        )
        try:
            with time_limit(cell["seconds"]):
                result = self.loop.run_until_complete(running)
                if isinstance(result.error_in_exec, CheckTimeout):  # the shell took it
                    raise result.error_in_exec
                shell.events.trigger("post_execute")  # shows and closes figures, for example
                shell.events.trigger("post_run_cell", result)
        except CheckTimeout as error:
            return f"Time: {place} was {error}"
        except BaseException as error:  # an exception that reached the loop itself
            return f"Error: {place} raised {_text(error)}."
        if error := result.error_before_exec:
            row = getattr(error, "lineno", None) or 0
            where = "".join(f" in line {row}: {line.strip()}" for line in source.splitlines()[row - 1 : row])
            return f"Syntax: {place} is not valid Python ({getattr(error, 'msg', None) or _text(error)}){where}"
        if error := result.error_in_exec:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if CELL_FILE in frame.filename]
            place += f", line {lines[0]}" if lines else ""
            return f"Error: {place} raised {_text(error)}."
        return ""

    def check_the_rest(self, start: dict) -> None:
        """Check the exercises that have no check in the notebook, with what their name means now."""
        for exercise in map(get_exercise, start.get("unchecked", ())):
            if exercise.id not in self.checked and exercise.name in self.shell.user_ns:
                self.channel.send({"step": exercise.id})
                with contextlib.suppress(Exception):
                    self.exercises.check(exercise.id, self.shell.user_ns[exercise.name])

    # What `check` calls in the notebook

    def show_result(self, exercise: Any, result: Any, kept: str = "", submission: Any = None) -> None:
        """As in the notebook; the judge hears of results that it has not made."""
        if not self.waiting_for_verdict:
            self.checked.add(exercise.id)
            self.channel.send({"shown": exercise.id, "message": " ".join(result.messages)})
        self.waiting_for_verdict = False
        self._show_result(exercise, result, kept)

    def evaluate(self, exercise_id: str, submission: Any) -> Any:
        """What the judge says about a student's object, after all that it asks about it."""
        exercise = get_exercise(exercise_id)
        self.checked.add(exercise.id)
        self.waiting_for_verdict = True
        with preserved_state():
            self.channel.send({"check": exercise.id, "kind": {"callable": callable(submission), "value": submission}})
            while "verdict" not in (question := self.channel.receive()):
                if "call" in question:
                    answer = calls.answer(submission, question)
                elif "observe" in question:
                    answer = self.observed(submission, question["observe"], question["seed"])
                else:
                    answer = self.live(exercise.id, submission)
                self.channel.send(answer)
        verdict = question["verdict"]
        messages, timed_out = tuple(verdict["messages"]), verdict["timed_out"]
        return self.exercises.CheckResult(exercise.id, verdict["status"], messages, timed_out=timed_out)

    def observed(self, submission: Any, name: str, seed: int) -> dict:
        """What the object does with inputs drawn from a seed (see `workshop.grade.judge.observations`)."""
        try:
            with silence(), time_limit(OBSERVE_SECONDS):
                found = {"value": self.observe(name, submission, seed)}
                values.pack(found)
                return found
        except CheckTimeout as error:
            return {"timeout": str(error)}
        except BaseException as error:  # SystemExit included
            return {"error": describe_exception(error)}

    def live(self, exercise_id: str, submission: Any) -> dict:
        """The result of the ordinary check, in a process of its own where the system can make one."""
        if not hasattr(os, "fork"):
            return {"result": self.judged(exercise_id, submission)}
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                for number in (reading, self.channel.incoming, self.channel.outgoing):
                    os.close(number)
                asyncio._set_running_loop(self.loop)  # asyncio forgets in a fork that one is running
                with open(writing, "wb") as stream:
                    stream.write(values.pack(self.judged(exercise_id, submission)))
            os._exit(0)
        os.close(writing)
        data, code = _collect(reading, child)
        try:
            return {"result": values.unpack(data)}
        except ValueError:
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            return {"died": f"Exit: the code ended the process that checked it ({ended})."}

    def judged(self, exercise_id: str, submission: Any) -> dict:
        """What the check says with the libraries as they were before the first cell."""
        self.guard.restore()
        result = run_check(exercise_id, self.checks[exercise_id], submission)
        found = {"status": result.status, "messages": list(result.messages), "timed_out": result.timed_out,
                 "parts": result.parts, "picture": to_plain(result.picture)}  # fmt: skip
        if result.status == "passed" and (changed := sorted({place for place, *_ in self.guard.changes()})):
            text = f"Origin: during the check your code replaced {', '.join(changed[:3])}. Leave it as it is."
            found |= {"status": "failed", "messages": [text]}
        return found


def _collect(reading: int, child: int) -> tuple[bytes, int]:
    """What a child writes until it ends, and its exit code. What it started itself may keep the pipe open."""
    data, deadline, status = b"", time.monotonic() + LIVE_SECONDS, None
    while True:
        if select.select([reading], [], [], 0.02)[0]:
            more = os.read(reading, 2**16)
            data += more
            if more:
                continue
        if status is not None:
            os.close(reading)
            return data, os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        ended, code = os.waitpid(child, os.WNOHANG)
        status = code if ended else None


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ").removesuffix(".")
    except BaseException:  # an exception class that the student wrote may fail here
        return type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1:])
