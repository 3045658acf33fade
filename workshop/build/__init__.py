"""Makes the notebooks from their sources: `solutions/NN_topic.py` becomes `solutions/NN_topic.ipynb`.

A source is a Python file in percent format. A cell starts with a line `# %%` (code) or `# %% [markdown]` (text, as
comment lines or as one triple-quoted string). On that line may stand

    tags=["optional"]     code cells: tags for papermill, nbval and the HTML renderings; see `TAGS`
    exercise="3.1"        code cells: import the tested object from `course_utils`; notebooks show its source or stub
    check="3.1"           code cells: empty; the call of `check` is filled in
    question="3a"         text cells: a question; the next cell must hold its model answer
    answer="3a"           text cells: the model answer

The way from source to notebook is a chain of small functions: `read_cells` (file to cells), `find_problems` (everything
that would make a bad notebook, with its line), `solved` (cells to the cells of one version), `to_notebook`, `to_bytes`.
Another version of the notebooks is one more function like `solved`, listed in `VERSIONS`; what authors must keep to
stands in `authoring_rules`, one function a rule.

The same source gives the same bytes on every machine, so a committed notebook that differs is stale or was edited.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import nbformat

from course_utils.exercises import list_exercises
from course_utils.exercises.registry import Exercise
from workshop.build import outputs as kept
from workshop.build import rules
from workshop.build.leaks import find_leaks, secrets_of
from workshop.build.source import BuildError, Cell, Problem, read_cells
from workshop.build.stand_alone import kernel_metadata, stand_alone
from workshop.build.versions import solved, student
from workshop.paths import checkout

# Fixed, because what a kernel adds (its Python version) would differ from machine to machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def find_problems(path: str | Path, exercises: Iterable[Exercise]) -> list[Problem]:
    """Everything in one source that would make a bad notebook, by line; empty if all is well."""
    path, exercises = Path(path), list(exercises)
    try:
        cells = read_cells(path)
    except BuildError as error:
        return error.problems
    found = {problem for rule in rules.RULES for problem in rule(cells, path, exercises)}
    if not found:  # looked at last: without the cells that are wrong, what they define would be missing
        for version in VERSIONS.values():
            found.update(rules.check_names(version(cells, exercises)))
        students = student(cells, exercises)
        found.update(rules.check_length(students))
        found.update(_leaks(students, secrets_of(cells, exercises)))
    return sorted(Problem(path, *problem) for problem in found)


def _leaks(cells: Sequence[Cell], secrets: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[int, str]]:
    """What students' cells give away. The package in a stand-alone notebook is the one place that holds solutions."""
    for cell, node in zip(cells, to_notebook(cells).cells, strict=True):
        if cell.markers.get("setup") != "package":
            for leak in find_leaks(node, secrets):
                yield cell.line, f"for students, {leak}; say it in other words."


# The versions of a notebook

# folder -> what turns the cells of a source into those of the notebook there
VERSIONS: dict[str, Callable[[Sequence[Cell], Iterable[Exercise]], list[Cell]]] = {
    "solutions": solved,
    "notebooks": student,
}


# From cells to the file


def to_notebook(cells: Iterable[Cell]) -> nbformat.NotebookNode:
    """A notebook without outputs, whose cell ids depend on nothing but the cells.

    A marked cell is called by its mark (`exercise-3-1`, `answer-3a`), any other by a hash of its type and text: it
    keeps its id when others are inserted around it. The second of two equal cells gets `-2` at the end.

    >>> [cell.id for cell in to_notebook([Cell("code", "", 1, markers={"exercise": "3.1"})]).cells]
    ['exercise-3-1']
    """
    seen: Counter[str] = Counter()
    nodes = []
    for cell in cells:
        digest = hashlib.sha256(f"{cell.kind}:{cell.source}".encode()).hexdigest()[:12]
        name = "-".join(*cell.markers.items()).replace(".", "-") if cell.markers else f"{cell.kind}-{digest}"
        seen[name] += 1
        cell_id = f"{name}-{seen[name]}" if seen[name] > 1 else name
        metadata = copy.deepcopy(cell.metadata) | ({"course": dict(cell.markers)} if cell.markers else {})
        metadata |= {"tags": list(cell.tags)} if cell.tags else {}
        node = {"cell_type": cell.kind, "id": cell_id, "metadata": metadata, "source": cell.source}
        if cell.attachments:
            pictures = {name: base64.b64encode(data).decode() for name, data in cell.attachments.items()}
            node["attachments"] = {name: {"image/png": picture} for name, picture in pictures.items()}
        nodes.append(node | ({"execution_count": None, "outputs": []} if cell.kind == "code" else {}))
    whole = {"cells": nodes, "metadata": copy.deepcopy(METADATA), "nbformat": 4, "nbformat_minor": 5}
    return nbformat.from_dict(whole)


def validate(notebook: nbformat.NotebookNode) -> None:
    """`nbformat.validate`, but a missing or repeated cell id is an error, where nbformat repairs it with a warning.

    Raises:
        ValueError: naming the ids, or with nbformat's own message.
    """
    ids = [cell.get("id") for cell in notebook.cells]
    repeated = sorted({str(cell_id) for cell_id in ids if ids.count(cell_id) > 1})
    if None in ids or repeated:
        raise ValueError(f"every cell needs an id of its own; missing: {ids.count(None)}, repeated: {repeated}.")
    try:
        nbformat.validate(copy.deepcopy(notebook))
    except nbformat.ValidationError as error:
        raise ValueError(str(error)) from error


def to_bytes(notebook: nbformat.NotebookNode) -> bytes:
    """The file of a valid notebook: UTF-8, sorted keys, line feeds. Raises `ValueError` as `validate` does."""
    validate(notebook)
    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode("utf-8")


def build(
    only: str | Sequence[str] | None = None,
    check: bool = False,
    root: str | Path | None = None,
    outputs: bool = False,
) -> list[Path]:
    """Write the notebooks of all sources, or with `check` compare them with what is there.

    Nothing is written unless every chosen source is without a problem. Two things are taken over from a notebook that
    is there already: the outputs of cells tagged `nbval-check-output` whose source has not changed, and expected
    pictures that show the same as the new ones (another version of matplotlib draws letters a little differently).

    Args:
        only: number or name of one notebook or several, as "03" or "03_binary_training"; None for all.
        check: write nothing; compare byte for byte, and look for notebooks that have no source.
        root: folder that holds `solutions/`; by default the repository this package lies in.
        outputs: also execute the solved notebooks, in the profile smoke, to make those outputs anew.

    Returns:
        The notebooks written; none with `check`.

    Raises:
        BuildError: listing file, line and reason of every problem; with `check` also every notebook that differs, is
            missing or has no source, and every tagged cell that has no output.
    """
    root = Path(root) if root is not None else checkout()
    sources = _choose(root / "solutions", only)
    exercises = list_exercises()
    problems = [problem for source in sources for problem in find_problems(source, exercises)]
    if problems:
        raise BuildError(problems, "Nothing was written.")
    committed: dict[Path, bytes] = {}
    stand_alones: dict[Path, bytes] = {}
    for source in sources:
        cells = read_cells(source)
        for folder, version in VERSIONS.items():
            if folder == "notebooks" and not is_complete(cells):
                continue
            path = root / folder / f"{source.stem}.ipynb"
            notebook = to_notebook(version(cells, exercises))
            kept.take_over(notebook, path, with_outputs=folder == "solutions")
            committed[path] = to_bytes(notebook)
        if is_complete(cells):
            stand_alones |= _stand_alone_files(source, cells, exercises, root)
    if check:
        _compare(committed, root, with_orphans=only is None)
        return []
    for path, content in {**committed, **stand_alones}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if outputs:
        solutions = [root / "solutions" / f"{source.stem}.ipynb" for source in sources]
        for path, notebook in kept.execute(solutions):
            path.write_bytes(to_bytes(notebook))
    return [*committed, *stand_alones]


def stand_alone_notebooks(root: Path) -> dict[str, bytes]:
    """The versions for Kaggle and Colab of all notebooks, by name, as `build` writes them to `build/kaggle`.

    Raises:
        BuildError: a source has no such version.
    """
    exercises, found = list_exercises(), {}
    for source in _choose(root / "solutions", None):
        files = _stand_alone_files(source, read_cells(source), exercises, root)
        found |= {path.name: content for path, content in files.items() if path.suffix == ".ipynb"}
    return found


def _stand_alone_files(
    source: Path, cells: Sequence[Cell], exercises: Sequence[Exercise], root: Path
) -> dict[Path, bytes]:
    """The folder `build/kaggle/NN_topic`, which is not committed."""
    folder = root / "build" / "kaggle" / source.stem
    try:
        made = stand_alone(cells, exercises, source)
    except (ValueError, OSError) as error:
        raise BuildError([Problem(source, 0, f"no stand-alone version: {error}")]) from error
    problems = [*rules.check_names(made), *_leaks(made, secrets_of(cells, exercises))]
    if problems:
        raise BuildError([Problem(source, *problem) for problem in problems], "In the version for Kaggle.")
    return {
        folder / f"{source.stem}.ipynb": to_bytes(to_notebook(made)),
        folder / "kernel-metadata.json": kernel_metadata(source.stem),
    }


def is_complete(cells: Sequence[Cell]) -> bool:
    """Whether every exercise has its check: without them the student version would stop at the first stub."""
    return {cell.markers.get("exercise") for cell in cells} == {cell.markers.get("check") for cell in cells}


def _choose(folder: Path, only: str | Sequence[str] | None) -> list[Path]:
    sources = sorted(folder.glob("*.py"))
    misnamed = [source for source in sources if not re.fullmatch(r"\d\d_[a-z0-9_]+", source.stem)]
    if misnamed or not sources:
        reason = "a source must be called NN_topic.py, as 02_unet.py." if misnamed else "no sources NN_topic.py here."
        raise BuildError([Problem(path, 0, reason) for path in misnamed or [folder]])
    if only is None:
        return sources
    chosen = set()
    for name in [only] if isinstance(only, str) else only:
        matches = [source for source in sources if name == source.stem or name.zfill(2) == source.stem[:2]]
        if not matches:
            known = ", ".join(source.stem for source in sources)
            raise BuildError([Problem(folder, 0, f"there is no notebook {name!r}; known: {known}.")])
        chosen.update(matches)
    return sorted(chosen)


def _compare(contents: dict[Path, bytes], root: Path, with_orphans: bool) -> None:
    problems = []
    for path, content in contents.items():
        if not path.is_file():
            problems.append(Problem(path, 0, "missing."))
        elif path.read_bytes() != content:
            problems.append(Problem(path, 0, "differs from what its source gives."))
        if kept.REQUIRE_OUTPUTS and path.parent.name == "solutions":
            if empty := kept.without_output(nbformat.reads(content.decode(), as_version=4)):
                reason = f"no output in cell {', '.join(empty)}; run: python3 course.py build --outputs"
                problems.append(Problem(path, 0, reason))
            if edited := kept.edited_by_hand(nbformat.reads(content.decode(), as_version=4)):
                reason = f"outputs edited by hand in cell {', '.join(edited)}; run: python3 course.py build --outputs"
                problems.append(Problem(path, 0, reason))
    if with_orphans:
        there = {path for folder in VERSIONS for path in (root / folder).glob("*.ipynb")}
        orphans = there - set(contents)
        problems += [Problem(path, 0, "has no source; delete it, or write its source.") for path in orphans]
    if problems:
        raise BuildError(problems, "Run: python3 course.py build")
