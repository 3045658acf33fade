"""Executes one notebook in a kernel, with papermill, and says what went wrong."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from workshop.cluster import Stop

# A cell that trains says nothing here until it has ended; so often a line says that it still runs.
SECONDS_BETWEEN_SIGNS = 60.0


class InterruptedRun(Exception):
    """The run was interrupted while a worker executed a notebook."""


def unknown_parameters(source: Path, parameters: dict[str, Any]) -> str:
    """Empty if the notebook has all these parameters. papermill itself would only log a warning and go on."""
    try:
        with _quiet("papermill"):
            known = papermill.inspect_notebook(str(source))
    except Exception as error:  # no JSON, no notebook, no kernel named in it: papermill has no common base for these
        return f"it cannot be read as a notebook ({type(error).__name__}: {error})."
    unknown = [name for name in parameters if name not in known]
    if not unknown:
        return ""
    return (
        f"it has no parameter {', '.join(map(repr, unknown))} (it has: {', '.join(known) or 'none'}). "
        "Give its parameters cell, tagged 'parameters', these names."
    )


def execute(
    source: Path,
    executed: Path,
    work_folder: Path,
    parameters: dict[str, Any],
    cell_timeout: int,
    kernel_name: str,
    progress: Progress,
) -> str:
    """Execute a notebook; returns an empty text, or what went wrong with the cell's number and source."""
    try:
        with _quiet("papermill"):
            papermill.execute_notebook(
                source, executed, parameters, engine_name="course", kernel_name=kernel_name, language="python",
                progress_bar=False, cwd=work_folder, start_timeout=120, execution_timeout=cell_timeout,
                progress=progress,
            )  # fmt: skip
        trouble = ""
    except papermill.PapermillExecutionError:
        trouble = ""  # an exception in a cell: it stands in the executed notebook
    except Exception as error:  # a dead kernel, a timeout, no kernel: whatever it is, the other notebooks still run
        trouble = f"{type(error).__name__}: {error}".strip()
    if not executed.exists():
        return trouble
    return find_failure(nbformat.read(executed, as_version=4), trouble, progress.current)


def find_failure(notebook: NotebookNode, trouble: str = "", running: int | None = None) -> str:
    """What is wrong with an executed notebook, or an empty text.

    Args:
        notebook: the executed notebook.
        trouble: an error that came from outside the cells (kernel died, timeout).
        running: number of the code cell that was running then, from 1.
    """
    cells = _code_cells(notebook)
    for number, cell in enumerate(cells, start=1):
        if trouble and number == running:
            return _describe(cell, number, len(cells), trouble)
        for output in cell.outputs:
            if output.output_type == "error":
                # papermill takes the SystemExit of sys.exit(0) for a normal end; nothing after it is executed
                traceback = _without_colours("\n".join(output.traceback)).splitlines()[-25:]
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


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Progress:
    """Prints one line for each code cell and, while one runs long, a line now and then; knows which one is running."""

    def __init__(self, name: str, say: Callable[[str], None], interrupted: Stop):
        self.name = name
        self.say = say
        self.interrupted = interrupted
        self.current: int | None = None
        self.started = 0.0
        self._ended = threading.Event()

    def cell_start(self, notebook: NotebookNode, cell: NotebookNode) -> None:
        cells = _code_cells(notebook)
        positions = [number for number, one in enumerate(cells, start=1) if one is cell]
        self.current = positions[0] if positions else None
        self.started = time.perf_counter()
        if self.current is not None:
            self.stop()
            self._ended = threading.Event()
            label = f"{self.name}  cell {self.current:2d}/{len(cells)}"
            threading.Thread(target=self._say_alive, args=(label, self._ended), daemon=True).start()

    def stop(self) -> None:
        """No more lines about the cell that was running: it has ended, or its kernel has."""
        self._ended.set()

    def _say_alive(self, label: str, ended: threading.Event) -> None:
        started = time.perf_counter()
        while not ended.wait(SECONDS_BETWEEN_SIGNS):
            self.say(f"{label}  still running, {time.perf_counter() - started:.0f} s")

    def cell_complete(self, notebook: NotebookNode, cell: NotebookNode) -> None:
        if cell.cell_type != "code" or not cell.source.strip():
            return
        self.stop()
        seconds = time.perf_counter() - self.started
        total = len(_code_cells(notebook))
        self.say(f"{self.name}  cell {self.current:2d}/{total}  {seconds:6.1f} s  {first_words(cell.source)}")


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


class _PatientClient(PapermillNotebookClient):
    """Asks the kernel's channels for messages often.

    When a widget captures output, nbclient answers the kernel on the channel on which it waits for the reply. That can
    swallow the signal that the reply has come: 1 in 30 such cells then lasted until the timeout. The reply is there,
    and looking again finds it.
    """

    interrupted: Stop | None = None

    def start_new_kernel_client(self, **kwargs):
        client = super().start_new_kernel_client(**kwargs)
        for channel in (client.shell_channel, client.iopub_channel):
            channel.get_msg = ask_often(channel.get_msg, interrupted=self.interrupted)
        return client


def ask_often(get_message: Callable, every: float = 0.5, interrupted: Stop | None = None) -> Callable:
    """A `get_msg` of a channel that waits in short pieces; same result, same `queue.Empty` after the timeout.

    It raises `InterruptedRun` once the run was interrupted: then the kernel is ended, and the notebook with it.
    """

    async def get_msg(timeout: float | None = None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if interrupted is not None and interrupted.is_set():
                raise InterruptedRun
            left = every if deadline is None else deadline - time.monotonic()
            try:
                return await get_message(timeout=max(0.0, min(every, left)))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise

    return get_msg


class _ProgressEngine(NBClientEngine):
    """papermill's own engine, which also tells a `Progress` about each cell."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, progress, execution_timeout, start_timeout, **_):
        start, complete = nb_man.cell_start, nb_man.cell_complete

        def cell_start(cell, cell_index=None, **options):
            progress.cell_start(nb_man.nb, cell)
            start(cell, cell_index, **options)

        def cell_complete(cell, cell_index=None, **options):
            complete(cell, cell_index, **options)
            progress.cell_complete(nb_man.nb, cell)

        nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
        client = _PatientClient(
            nb_man, kernel_name=kernel_name, timeout=execution_timeout, startup_timeout=start_timeout,
            iopub_timeout=60,  # figures can arrive late on a busy machine; the library waits 4 s
            log=logging.getLogger("papermill"),
        )  # fmt: skip
        client.interrupted = progress.interrupted
        return client.execute()


@contextlib.contextmanager
def private_jupyter() -> Iterator[None]:
    """Let kernels be this very Python, whatever the user's own Jupyter set-up says, and leave that set-up untouched."""
    with tempfile.TemporaryDirectory(prefix="course-jupyter-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        specification = {
            # without the kernel's own log: what fails in it arrives here, and its warnings are for servers
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"],
            "display_name": "Python 3",
            "language": "python",
            # figures belong into the notebook, also where the shell asks for another backend
            "env": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        }
        kernel = folder / "path" / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
        changes = {
            "JUPYTER_PATH": str(folder / "path"),  # searched first, so a user's own "python3" kernel does not count
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "IPYTHONDIR": str(folder / "ipython"),
            "COURSE_PROGRESS": str(folder / "progress.json"),  # a run solves nothing for the one who starts it
            "JUPYTER_PLATFORM_DIRS": "1",  # jupyter_core warns without it
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # so does the debugger that ipykernel loads
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's log lines out of the progress lines; its errors arrive as exceptions."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


papermill_engines.register("course", _ProgressEngine)
