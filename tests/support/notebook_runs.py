"""Runs of single solved notebooks with few images and short trainings, whose kernels can be killed.

Used by tests/notebooks/test_any_order.py and tests/course_utils/test_determinism.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from course_utils.data import embedded_folder
from course_utils.results import prepare_output
from workshop.run.kernel import Progress, execute

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "solutions").glob("[0-9][0-9]_*.ipynb"))
# Runs before the cells of the notebook: trainings of seconds, one record for all kernels, and whom to kill.
FIRST_CELL = """
import os
from dataclasses import replace
from pathlib import Path
from course_utils import profiles
os.environ["COURSE_PROGRESS"] = {record!r}
Path({pid_file!r}).write_text(str(os.getpid()))
profiles._PROFILES["smoke"] = replace(profiles._PROFILES["smoke"], **{sizes!r})
"""
SHORT = {
    "base_channels": 4, "crop_size": 64, "crops_per_epoch": 48, "binary_epochs": 2, "boundary_epochs": 4,
    "loss_epochs": 1, "denoising_epochs": 2,
}  # fmt: skip
# Trainings that the profile does not decide on
SHORTENED = {
    "02_unet": {"num_samples=320": "num_samples=32"},
    "03_binary_training": {
        "steps=100": "steps=30", "num_samples=200": "num_samples=60", "range(10, 101)": "range(10, 31)",
        "range(100)": "range(30)",
    },
}  # fmt: skip


@dataclass
class Run:
    """What one run of a notebook left: what went wrong, its scores, its text outputs, and seconds for each cell."""

    name: str
    failure: str
    scores: dict
    texts: list[str] = field(repr=False)
    seconds: list[float] = field(repr=False)
    killed_in: int | None = None


class _Killing(Progress):
    """Kills the kernel in the code cell with the number `cell`, `after` seconds, at the latest when the cell ends."""

    def __init__(self, name: str, pid_file: Path, cell: int | None, after: float):
        super().__init__(name, lambda line: None, threading.Event())
        self.pid_file, self.cell, self.after, self.seconds, self.killed_in = pid_file, cell, after, [], None

    def begin(self, cell, **options) -> None:
        super().begin(cell, **options)
        if self.current and self.current == self.cell:
            self.timer = threading.Timer(self.after, self.kill)
            self.timer.start()

    def end(self, cell, **options) -> None:
        if self.current:
            self.seconds.append(time.monotonic() - self.started)
        if self.current and self.current == self.cell:
            self.timer.cancel()
            self.timer.join()
            self.kill()

    def kill(self) -> None:
        if self.killed_in is None:
            self.killed_in = self.current
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)


def few_images(folder: Path) -> Path:
    """A third of the embedded images, as a data source: no pretrained network fits it, so all are trained."""
    for path in embedded_folder().rglob("*.tif"):
        if int(re.findall(r"\d+", path.stem)[-1]) % 3 == 0:
            copy = folder / path.relative_to(embedded_folder())
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return folder


def run_notebook(
    name: str, folder: Path, data: Path | str, kill_in: int | None = None, after: float = 0.0, own: str = "",
    short: bool = True, **sizes,
) -> Run:  # fmt: skip
    """Run a solved notebook in `folder/output`, where others may have run before or run now.

    Args:
        data: its data source.
        kill_in: number of the code cell, from 1, in which its kernel is killed; 1 is the added one, and papermill adds
            one more, with the parameters.
        after: so many seconds after the cell began.
        own: for the names of files that only this run uses, if another run of the same notebook is under way.
        short: with the sizes of `SHORT`; else with those of the profile `smoke`.
        sizes: what else is changed in that profile.
    """
    folder = folder.absolute()
    prepare_output(folder / "output")
    source, executed, pid_file = (folder / f"{name}{own}{end}" for end in (".source.ipynb", ".ipynb", ".pid"))
    scores = folder / "output" / "scores" / f"{name}.json"
    for stale in [executed, pid_file, *([] if own else [scores])]:
        stale.unlink(missing_ok=True)
    notebook = nbformat.read(ROOT / "solutions" / f"{name}.ipynb", as_version=4)
    first = FIRST_CELL.format(
        record=str(folder / "progress.json"), pid_file=str(pid_file), sizes=(SHORT if short else {}) | sizes
    )
    for long, shorter in SHORTENED.get(name, {}).items() if short else ():
        assert any(long in cell.source for cell in notebook.cells), f"{name} has no {long} any more"
        for cell in notebook.cells:
            cell.source = cell.source.replace(long, shorter)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    nbformat.write(notebook, source)
    progress = _Killing(name, pid_file, kill_in, after)
    parameters = {"data_source": str(data), "profile": "smoke", "seed": 0, "output": str(folder / "output")}
    failure = execute(source, executed, folder / "output", parameters, 600, "python3", progress)
    return Run(
        name, failure, json.loads(scores.read_text()) if scores.exists() else {}, _texts(executed), progress.seconds,
        progress.killed_in,
    )  # fmt: skip


def _texts(executed: Path) -> list[str]:
    """The text outputs of each code cell."""
    if not executed.exists():
        return []
    cells = nbformat.read(executed, as_version=4).cells
    return [
        "".join(output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) + "\n" +
                str(output.get("data", {}).get("text/html", "")) for output in cell.outputs)
        for cell in cells if cell.cell_type == "code"
    ]  # fmt: skip


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """Processes for runs at the same time."""
    with ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def left_behind(folder: Path) -> list[str]:
    """Files of a run that nobody needs any more: half written, or of a training that has ended."""
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith((".partial", ".resume")))


def moments(seconds: Sequence[float], cell: int, rng, long: float = 1.0) -> list[float]:
    """When to kill in a cell that took so many seconds: at random; in long ones at the beginning and in the middle."""
    lasts = seconds[cell - 1]
    return [rng.uniform(0, lasts)] if lasts < long else [rng.uniform(0, 0.2), lasts * rng.uniform(0.3, 0.7)]
