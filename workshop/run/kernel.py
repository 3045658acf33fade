"""Executes one notebook with papermill, and says what went wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil  # ipykernel needs it, too
from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

SECONDS_BETWEEN_SIGNS = 60.0  # how often a line says that a cell is still running, for example one that trains


def unknown_parameters(source: Path, parameters: dict[str, Any]) -> str:
    """Which parameters the notebook lacks, or an empty text. papermill itself would only log a warning."""
    try:
        known = papermill.inspect_notebook(str(source))
    except Exception as error:  # not JSON, not a notebook, no kernel named in it: they have no common base class
        return f"it cannot be read as a notebook ({type(error).__name__}: {error})."
    unknown = [name for name in parameters if name not in known]
    lack = f"it has no parameter {', '.join(map(repr, unknown))} (it has: {', '.join(known) or 'none'})."
    return f"{lack} Give its parameters cell, tagged 'parameters', these names." if unknown else ""


def execute(
    source: Path,
    executed: Path,
    work_folder: Path,
    parameters: dict[str, Any],
    cell_timeout: int,
    kernel_name: str,
    progress: Progress,
) -> str:
    """Execute a notebook; returns an empty text, or what went wrong, with the number and source of the cell."""
    try:
        papermill.execute_notebook(
            source, executed, parameters, engine_name="course", kernel_name=kernel_name, language="python",
            progress_bar=False, start_timeout=120, execution_timeout=cell_timeout, progress=progress,
            work_folder=work_folder,
        )  # fmt: skip
        trouble = ""
    except papermill.PapermillExecutionError:
        trouble = ""  # an exception in a cell: the executed notebook has it
    except Exception as error:  # a dead kernel, a timeout, no kernel: in any case the other notebooks still run
        trouble = f"{type(error).__name__}: {error}".strip()
    if not executed.exists():
        return trouble
    return find_failure(nbformat.read(executed, as_version=4), trouble, progress.current)


def find_failure(notebook: NotebookNode, trouble: str = "", running: int | None = None) -> str:
    """What is wrong with an executed notebook, or an empty text.

    `trouble` is an error from outside the cells (kernel died, timeout), `running` the number of the code cell then.
    """
    cells = _code_cells(notebook)
    for number, cell in enumerate(cells, start=1):
        if trouble and number == running:
            return _describe(cell, number, len(cells), trouble)
        for output in cell.outputs:
            if output.output_type == "error":
                # also a SystemExit: papermill takes sys.exit(0) for a normal end, and executes nothing after it
                traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback)).splitlines()[-25:]
                if not any(line.startswith(output.ename) for line in traceback[-3:]):
                    traceback.append(f"{output.ename}: {output.evalue}")
                return _describe(cell, number, len(cells), "\n".join(traceback))
        if not trouble and cell.execution_count is None:
            return _describe(cell, number, len(cells), "The cell was never executed.")
    return trouble


def _describe(cell: NotebookNode, number: int, total: int, message: str) -> str:
    source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    return f"code cell {number} of {total}:\n\n{source}\n\n{message}\n"


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that an execution must reach."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


class PeakMemory:
    """The peak of the memory of a process and its children, in MB of 10^6 bytes, as the quota of a container counts it.

    Of the resident memory, which other tools show, the system can drop what is mapped from files, such as the libraries
    of torch (0.3 to 0.4 GB): on Linux that is left out. Memory that forked children share with their parent is counted
    for each. `megabytes` is None as long as nothing was seen. Where the system keeps no peak (macOS), one between two
    looks is missed.
    """

    def __init__(self, pid: int | None):
        self.pid = pid
        self.megabytes: int | None = None
        self.looked = 0.0

    def look(self, every: float = 0.0) -> None:
        """See how much it is now; without effect if the process has ended, or within `every` seconds of the last."""
        if self.pid is None or time.monotonic() - self.looked < every:
            return
        self.looked = time.monotonic()
        with contextlib.suppress(psutil.Error, OSError):
            now, peak = _memory_of(process := psutil.Process(self.pid))
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):  # it has just ended
                    now += _memory_of(child)[0]
            self.megabytes = max(self.megabytes or 0, round(max(peak, now) / 1e6))


def _memory_of(process: psutil.Process) -> tuple[int, int]:
    """How many bytes a process has now, and had at most; 0 where the system keeps no peak, or it has ended."""
    if sys.platform != "linux":
        found = process.memory_info()
        return found.rss, getattr(found, "peak_wset", 0)
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    kilobytes = dict(re.findall(r"^(VmHWM|VmRSS|RssFile):\s+(\d+)", status, re.MULTILINE))
    peak, now, files = (int(kilobytes.get(name, 0)) for name in ("VmHWM", "VmRSS", "RssFile"))
    return 1024 * (now - files), 1024 * (peak - files)  # libraries stay: at the peak no more was mapped than now


class Progress:
    """Says one line for each code cell and, while one runs long, a line every minute; knows which one is running.

    With `live` it says every second which cell is running, for a line that is drawn anew.
    """

    def __init__(self, name: str, say: Callable[[str], None], stop: threading.Event, live: bool = False):
        self.name = name
        self.say = say
        self.stop = stop
        self.live = live
        self.cells: list[NotebookNode] = []
        self.memory = PeakMemory(None)  # of the kernel
        self.current: int | None = None  # number of the code cell that began last, from 1
        self.started = self.said = time.monotonic()

    def begin(self, cell: NotebookNode, **_: Any) -> None:
        """A hook of nbclient: a cell begins."""
        self.current = next((number for number, one in enumerate(self.cells, start=1) if one is cell), None)
        self.started = time.monotonic()
        self.said = 0.0 if self.live else self.started  # a live line is drawn at once

    def wait(self) -> None:
        """The kernel has not answered yet."""
        self.memory.look(every=0.5)
        if self.stop.is_set():
            raise InterruptedError("the run was interrupted")
        seconds = time.monotonic() - self.started
        if self.current and time.monotonic() - self.said > (1 if self.live else SECONDS_BETWEEN_SIGNS):
            self.said = time.monotonic()
            words = first_words(self.cells[self.current - 1].source)
            self._say(f"{seconds:6.0f} s  {words}" if self.live else f"still running, {seconds:.0f} s")

    def end(self, cell: NotebookNode, **_: Any) -> None:
        """A hook of nbclient: a cell has ended."""
        self.memory.look()
        if not self.live:
            self._say(f"{time.monotonic() - self.started:6.1f} s  {first_words(cell.source)}")

    def _say(self, what: str) -> None:
        self.say(f"{self.name}  cell {self.current:2d}/{len(self.cells)}  {what}")


def first_words(source: str, width: int = 60) -> str:
    """The first line of a cell that says something, shortened.

    >>> first_words("\\n# Load the data\\ndata = load_data()")
    'Load the data'
    """
    for line in source.splitlines():
        words = line.strip().lstrip("#% ").strip()
        if words:
            return words if len(words) <= width else words[: width - 3] + "..."
    return ""


class _Client(PapermillNotebookClient):
    """Executes the cells in a kernel of this very Python, whatever the user's Jupyter says, and reports progress.

    When a widget captures output, nbclient answers the kernel on the channel on which it waits for the reply. That can
    swallow the signal that the reply has come: 1 in 30 such cells then lasted until the timeout. The reply is there,
    and looking again finds it. So the kernel's channels are asked for messages often.
    """

    progress: Progress
    folder: Path

    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])  # "python3" is then this Python
        manager.connection_file = str(self.folder / "connection.json")
        return manager

    def start_new_kernel_client(self, **kwargs):
        client = super().start_new_kernel_client(**kwargs)
        self.progress.memory = PeakMemory(getattr(self.km.provisioner, "pid", None))
        for channel in (client.shell_channel, client.iopub_channel):
            channel.get_msg = ask_often(channel.get_msg, self.progress.wait)
        return client


def ask_often(get_message: Callable, waiting: Callable[[], None], every: float = 0.5) -> Callable:
    """A `get_msg` of a channel that asks again and again, and calls `waiting`; raises `queue.Empty` at the timeout."""

    async def get_msg(timeout: float | None = None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            waiting()
            left = every if deadline is None else deadline - time.monotonic()
            try:
                return await get_message(timeout=max(0.0, min(every, left)))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise

    return get_msg


class _Engine(NBClientEngine):
    """papermill's own engine with another client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man, kernel_name, *, progress, work_folder, execution_timeout, start_timeout, **_
    ):
        progress.cells = _code_cells(nb_man.nb)
        with tempfile.TemporaryDirectory(prefix="course-jupyter-", ignore_cleanup_errors=True) as folder:
            client = _Client(
                nb_man, kernel_name=kernel_name, timeout=execution_timeout, startup_timeout=start_timeout,
                iopub_timeout=60,  # figures can arrive late on a busy machine; the library waits 4 s
                on_cell_start=progress.begin, on_cell_executed=progress.end, log=logging.getLogger("papermill"),
                extra_arguments=["--log-level=50"],  # errors arrive as outputs; the log's warnings are for servers
            )  # fmt: skip
            client.progress, client.folder = progress, Path(folder)
            return client.execute(cwd=str(work_folder), env=_kernel_environment(Path(folder)))


def _kernel_environment(folder: Path) -> dict[str, str]:
    """The variables of a kernel that leaves the user's settings and progress alone."""
    return os.environ | {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures belong in the notebook
        "IPYTHONDIR": str(folder / "ipython"),
        "COURSE_PROGRESS": str(folder / "progress.json"),
        "JUPYTER_PLATFORM_DIRS": "1",  # jupyter_core warns without it
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # so does the debugger that ipykernel loads
    }


papermill_engines.register("course", _Engine)
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what matters arrives as an exception
