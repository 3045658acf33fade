"""What a notebook keeps from the last build: outputs, which only a run can give, and the expected pictures.

Outputs belong to cells tagged `nbval-check-output`. A separate step, `build --outputs`, makes them, because it executes
whole notebooks and takes minutes. Later builds keep them as long as the source of the cell is the same; nbval compares
them with those of a new run. A picture is kept as long as its snippet is the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

TAG = "nbval-check-output"


def is_tagged(cell: NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", [])


def missing_outputs(content: bytes) -> list[str]:
    """The ids of the tagged cells without an output in the file of a notebook."""
    notebook = nbformat.reads(content.decode(), as_version=4)
    return [cell.id for cell in notebook.cells if is_tagged(cell) and not cell.outputs]


def keep_outputs(notebook: NotebookNode, path: Path, with_outputs: bool) -> None:
    """Copy pictures, and `with_outputs` outputs, from the notebook at `path` into a new one, by the rules above.

    A missing or damaged file is like one without outputs and pictures.
    """
    try:
        earlier = {cell.get("id"): cell for cell in nbformat.reads(path.read_text("utf-8"), as_version=4).cells}
    except Exception:  # nbformat has no common base for what a damaged file makes it raise
        return
    for cell in notebook.cells:
        old = earlier.get(cell.id, {})
        if with_outputs and is_tagged(cell) and old.get("source") == cell.source:
            cell.outputs = old.get("outputs", [])
        pictures = old.get("attachments", {})
        for name in cell.get("attachments", {}).keys() & pictures.keys():  # the name is a hash of the snippet
            cell.attachments[name] = pictures[name]
    _number(notebook)


def _number(notebook: NotebookNode) -> None:
    """Number the cells with outputs as "Run all" does: to nbval an output without a number is a mistake."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number if cell.outputs else None


def execute(solutions: Sequence[Path]) -> Iterator[tuple[Path, NotebookNode]]:
    """Run solved notebooks on the embedded data in the profile smoke, and yield each with the outputs of tagged cells.

    Notebooks without a tagged cell are not run. Raises `RunError` if one fails.
    """
    from workshop.paths import RunError
    from workshop.run.course import run_notebooks

    wanted = [path for path in solutions if any(map(is_tagged, nbformat.read(path, as_version=4).cells))]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = {"data_source": "embedded", "profile": "smoke", "seed": 0, "output": str(folder / "output")}
        results = run_notebooks(wanted, folder, parameters)
        if failed := [result.error for result in results if result.error]:
            raise RunError("\n".join(failed))
        for path in wanted:
            notebook, executed = (nbformat.read(file, as_version=4) for file in (path, folder / path.name))
            made = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
            for cell in filter(is_tagged, notebook.cells):
                cell.outputs = made[cell.id]
                for output in cell.outputs:
                    if "execution_count" in output:
                        output.execution_count = None  # it changes from run to run
            _number(notebook)
            yield path, notebook
