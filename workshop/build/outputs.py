"""What a notebook keeps from the last build: outputs that only a run can give, and pictures that look the same.

Outputs stand only in cells tagged `nbval-check-output`. They are made in a step of their own, `build --outputs`,
because it executes whole notebooks and takes minutes. Later builds keep them as long as the cell's source is the same;
whether they are still true is what nbval tests. A hash beside them tells an output that was edited by hand.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode

TAG = "nbval-check-output"
REQUIRE_OUTPUTS = True  # whether `build --check` wants an output in every tagged cell
BLOCK = 8  # pixels; what differs by less than a letter's edge is averaged out in blocks of this side
MAX_DIFFERENCE = 0.15  # of the range from black to white, in any block


def is_tagged(cell: NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", [])


def seal(cell: NotebookNode) -> str:
    """A hash of the source of a cell and its outputs: whoever edits one of them by hand breaks it."""
    content = json.dumps([cell.source, cell.outputs], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def edited_by_hand(notebook: NotebookNode) -> list[str]:
    """The ids of the tagged cells whose outputs are not those that a build put there."""
    return [
        cell.id
        for cell in notebook.cells
        if is_tagged(cell) and cell.outputs and cell.metadata.get("course", {}).get("outputs") != seal(cell)
    ]


def without_output(notebook: NotebookNode) -> list[str]:
    """The ids of the tagged cells that have no output yet."""
    return [cell.id for cell in notebook.cells if is_tagged(cell) and not cell.outputs]


def take_over(notebook: NotebookNode, path: Path, with_outputs: bool) -> None:
    """Copy into a new notebook what the one at `path` has and the new one would have again; see above.

    A file that is not there, or is no notebook, has nothing to offer.
    """
    try:
        earlier = {cell.get("id"): cell for cell in nbformat.reads(path.read_text("utf-8"), as_version=4).cells}
    except Exception:  # nbformat has no common base for what a damaged file makes it raise
        return
    for cell in notebook.cells:
        old = earlier.get(cell.id)
        if old is None or old.cell_type != cell.cell_type:
            continue
        if with_outputs and is_tagged(cell) and old.source == cell.source:
            cell.outputs = old.get("outputs", [])
            _mark(cell, old.metadata.get("course", {}).get("outputs", ""))
        for name, picture in cell.get("attachments", {}).items():
            before = old.get("attachments", {}).get(name, {}).get("image/png")
            if before and _same_picture(before, picture["image/png"]):
                picture["image/png"] = before
    _count(notebook)


def _count(notebook: NotebookNode) -> None:
    """Number the cells with outputs as "Run all" does: nbval takes an output without a number for a mistake."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number if cell.outputs else None


def _same_picture(one: str, other: str) -> bool:
    """Whether two PNGs (base64) show the same, up to the edges of letters and lines."""
    try:
        a, b = _blocks(one), _blocks(other)
    except (ValueError, OSError, SyntaxError):
        return False
    return a.shape == b.shape and bool(np.abs(a - b).max() <= MAX_DIFFERENCE)


def _blocks(picture: str) -> np.ndarray:
    """Mean colours of the blocks of a picture, in [0, 1]; the first two entries are its size."""
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(base64.b64decode(picture, validate=True)), format="png")[..., :3]
    height, width = pixels.shape[:2]
    pixels = np.pad(pixels, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
    rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    means = pixels.reshape(rows, BLOCK, columns, BLOCK, 3).mean(axis=(1, 3)).ravel()
    return np.concatenate([[height, width], means])


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
        results = run_notebooks(wanted, folder, parameters, {}, 600)
        failed = [result.error for result in results if result.error]
        if failed:
            raise RunError("\n".join(failed))
        for path in wanted:
            notebook, executed = (nbformat.read(file, as_version=4) for file in (path, folder / path.name))
            made = {cell.id: cell for cell in executed.cells}
            for cell in notebook.cells:
                if is_tagged(cell):
                    cell.outputs = [_plain(output) for output in made[cell.id].outputs]
                    _mark(cell, seal(cell))
            _count(notebook)
            yield path, notebook


def _mark(cell: NotebookNode, text: str) -> None:
    cell.metadata["course"] = {**cell.metadata.get("course", {}), "outputs": text}


def _plain(output: NotebookNode) -> NotebookNode:
    """An output without what changes from run to run."""
    return nbformat.from_dict({**output, **({"execution_count": None} if "execution_count" in output else {})})
