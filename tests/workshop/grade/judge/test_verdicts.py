"""Grading agrees with "Run all": odd notebooks, executed by a real kernel and graded, have the same verdicts.

All of them take half an hour: `python3 course.py test -m slow tests/workshop/grade/judge/test_verdicts.py`. In every
run some are graded, and two of these executed.
"""

import json
import os
import threading
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from odd_notebooks import OddNotebook, other_notebooks, small_notebooks, whole_notebooks

from workshop.grade.box.box import Limits
from workshop.grade.box.sandbox import SandboxError, find_sandbox
from workshop.grade.collect.handed_in import HandedIn
from workshop.grade.judge.process import grade_notebook

PARAMETERS = "data_source, profile, output = 'embedded', 'smoke', 'output'"
SMALL = {notebook.name: notebook for notebook in small_notebooks()}
WHOLE = {notebook.name: notebook for notebook in whole_notebooks()}
OTHER = {notebook.name: notebook for notebook in other_notebooks()}
SHORT = [
    "sum is 0 in an earlier cell", "a list filled after its definition", "patch as in fastai", "magics in the cells",
    "a module written, imported, written again and reloaded", "asyncio.run fails in a kernel",
    "names bound by with, for, walrus, match, star and import as", "what a failed check kept is mended",
    "an exercise that builds on ones that failed goes on with the reference", "exercises of three notebooks in one",
]  # fmt: skip
EXECUTED = ["sum is 0 in an earlier cell", "magics in the cells"]


def kernel_verdicts(notebook: OddNotebook, folder: Path) -> dict[str, str]:
    """The verdicts after "Run all" in a kernel: an error ends its cell, and the record keeps the last check."""
    (folder / "work").mkdir(parents=True)
    notebook.write(folder / "work")
    record = folder / "progress.json"
    manager = KernelManager(
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), connection_file=str(folder / "connection.json")
    )
    environment = os.environ | {"COURSE_PROGRESS": str(record), "IPYTHONDIR": str(folder / "ipython")}
    environment |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    environment.pop("COURSE_STRICT", None)
    manager.start_kernel(cwd=str(folder / "work"), env=environment, extra_arguments=["--log-level=50"])
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        for cell in notebook.content["cells"]:
            sources = ["".join(cell["source"])] if cell["cell_type"] == "code" else []
            if "parameters" in cell["metadata"].get("tags", ()):
                sources.append(PARAMETERS)  # as papermill does
            for source in sources:
                client.execute_interactive(
                    source, stop_on_error=False, allow_stdin=False, output_hook=lambda _: None, timeout=600
                )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    return {exercise: entry["status"] for exercise, entry in known.items()}


def graded(notebook: OddNotebook, folder: Path) -> dict[str, str]:
    """The status of each exercise of the notebook when it is graded."""
    try:
        sandbox = find_sandbox("auto")
    except SandboxError:
        sandbox = find_sandbox("unsafe")
    path = notebook.write(folder)
    one = HandedIn("kim", path, path.name, modules=tuple(folder.glob("*.py")), folder=folder)
    return {row.exercise: row.status for row in grade_notebook(one, Limits(), threading.Event(), sandbox).rows}


def assert_same(verdicts: dict[str, str], statuses: dict[str, str]) -> None:
    """Each verdict is the status; what the kernel's check has never seen is not passed."""
    assert {exercise: statuses.get(exercise) for exercise in verdicts} == verdicts
    assert {statuses[exercise] for exercise in statuses.keys() - verdicts} <= {"todo", "failed"}


def test_there_are_enough_of_them():
    assert len(SMALL) + len(WHOLE) >= 100 and not SMALL.keys() & WHOLE.keys()
    assert {exercise[0] for notebook in SMALL.values() for exercise in notebook.verdicts} == set("12345")
    found = {status for notebook in SMALL.values() for status in notebook.verdicts.values()}
    assert found == {"passed", "failed", "todo"}


@pytest.mark.parametrize("name", SHORT)
def test_grading_agrees_with_run_all_in_short(name, tmp_path):
    assert_same(SMALL[name].verdicts, graded(SMALL[name], tmp_path))


@pytest.mark.parametrize("name", EXECUTED)
def test_the_table_says_what_a_kernel_says_in_short(name, tmp_path):
    assert kernel_verdicts(SMALL[name], tmp_path) == SMALL[name].verdicts


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *WHOLE])
def test_grading_agrees_with_run_all(name, tmp_path):
    notebook = (SMALL | WHOLE)[name]
    assert kernel_verdicts(notebook, tmp_path / "kernel") == notebook.verdicts
    assert_same(notebook.verdicts, graded(notebook, tmp_path / "graded"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_where_grading_knows_more_than_a_kernel(name, tmp_path):
    """A crash costs only its exercise, and what is never checked is checked at the end."""
    assert graded(OTHER[name], tmp_path) == OTHER[name].verdicts
