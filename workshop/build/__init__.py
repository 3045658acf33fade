"""Makes the notebooks from their sources: `solutions/NN_topic.py` becomes `solutions/NN_topic.ipynb`.

A source is a Python file in percent format, and runs as it is. A cell starts with a line `# %%` (code) or
`# %% [markdown]` (text, as comment lines or as one triple-quoted string). That line may hold

    tags=["optional"]     code cells: tags for papermill, nbval and the web pages, see `TAGS`; "fold" hides
                          code that only plots, until the reader opens it
    exercise="3.1"        code cells: the import of the tested object, which the build replaces by its source or stub
    check="3.1"           code cells: empty; the build fills in the call of `check`
    expected="3.1"        text cells: what the exercise gives, computed by the build; see `expected`
    question="3a"         text cells: a question; the next cell must hold its model answer
    answer="3a"           text cells: the model answer

`build` takes each source through these steps: `read_cells` (file to cells), `RULES` (everything that would make a bad
notebook, with its line), `solved`, `student` and `stand_alone` (cells to the cells of one version), `to_notebook`,
`to_bytes`.

The same source gives the same bytes on every machine, so a committed notebook that differs is stale or was edited.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat

from course_utils.exercises import list_exercises
from course_utils.exercises.registry import Exercise
from workshop.build.badges import readme_with_badges
from workshop.build.module_map import map_modules, modules_behind
from workshop.build.outputs import execute, keep_outputs, missing_outputs
from workshop.build.rules import RULES, check_length
from workshop.build.source import BuildError, Cell, Problem, read_cells
from workshop.build.stand_alone import kernel_metadata, stand_alone
from workshop.build.versions import solved, student
from workshop.paths import checkout, select_notebooks

# Fixed, because what a kernel adds (its Python version) would differ from machine to machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Jupyter and VS Code, Kaggle, and Colab each fold the code of a cell in their own way.
FOLDED = {"jupyter": {"source_hidden": True}, "_kg_hide-input": True, "cellView": "form"}
COMMITTED = ("solutions", "notebooks")  # folders of the versions that are compared by `build(check=True)`


def build(
    only: str | Sequence[str] | None = None,
    check: bool = False,
    root: str | Path | None = None,
    outputs: bool = False,
) -> list[Path]:
    """Write the notebooks of all sources and return the files written, or with `check` compare them with what exists.

    Nothing is written unless every chosen source is without a problem. Two things are kept from an existing notebook:
    outputs of cells tagged `nbval-check-output` whose source has not changed, and expected pictures whose snippet has
    not changed (another version of matplotlib draws letters a little differently).

    Args:
        only: number or name of one notebook or several, as "03" or "03_binary_training"; None for all.
        check: write nothing; compare byte for byte, and look for notebooks that have no source.
        root: folder that holds `solutions/`; by default the repository this package lies in.
        outputs: keep nothing: draw the pictures again, and execute the solved notebooks, in the profile smoke, for the
            outputs.

    Raises:
        BuildError: listing file, line and reason of every problem; with `check` also every notebook that differs, is
            missing or has no source, and every tagged cell that has no output.
        RunError: there are no sources, or not the one that `only` asks for.
    """
    root = Path(root) if root is not None else checkout()
    exercises, problems = list_exercises(), []
    contents: dict[Path, bytes] = {}
    notebooks: dict[str, list[Cell]] = {}
    chosen = _sources(root, only)
    for source in chosen:
        try:
            made = make_versions(source, exercises)
        except BuildError as error:
            problems += error.problems
            continue
        notebooks[source.stem] = made["solutions"]
        for folder in COMMITTED:
            path = root / folder / f"{source.stem}.ipynb"
            notebook = to_notebook(made[folder])
            if not outputs:
                keep_outputs(notebook, path, with_outputs=folder == "solutions")
            contents[path] = to_bytes(notebook)
        folder = root / "build" / "kaggle" / source.stem
        contents[folder / f"{source.stem}.ipynb"] = to_bytes(to_notebook(made["stand-alone"]))
        if metadata := kernel_metadata(source.stem):
            contents[folder / "kernel-metadata.json"] = metadata
    if problems:
        raise BuildError(problems, "Nothing was written.")
    if only is None:
        contents |= map_modules(root, modules_behind(notebooks, exercises))
        readme = root / "README.md"
        if readme.is_file():
            before = contents.get(readme, readme.read_bytes())
            after = readme_with_badges(before.decode(), min(notebooks)).encode()
            contents |= {readme: after} if after != readme.read_bytes() else {}
    if check:
        _compare(contents, root, with_orphans=only is None)
        return []
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if outputs:
        for path, notebook in execute([root / "solutions" / f"{source.stem}.ipynb" for source in chosen]):
            path.write_bytes(to_bytes(notebook))
    return list(contents)


def make_versions(source: Path, exercises: Sequence[Exercise]) -> dict[str, list[Cell]]:
    """The cells of each version of one notebook: "solutions", "notebooks" (for students) and "stand-alone".

    Raises `BuildError` with everything in the source that would make a bad notebook, by line.
    """
    cells, titles = read_cells(source), _titles(source.parent)
    own = [exercise for exercise in exercises if exercise.notebook == source.stem]
    found = {problem for rule in RULES for problem in rule(cells, source, own)}
    if not found:
        students = student(cells, exercises, source.stem, titles)
        found.update(check_length(students))
        try:
            alone = stand_alone(students, own, source)
        except (ValueError, OSError) as error:
            found.add((0, f"no stand-alone version: {error}"))
    if found:
        raise BuildError([Problem(source, *problem) for problem in found])
    return {"solutions": solved(cells, exercises, source.stem, titles), "notebooks": students, "stand-alone": alone}


def _titles(folder: Path) -> dict[str, str]:
    """Notebook -> the title in its source, of all in the folder that have one."""
    texts = {path.stem: path.read_text("utf-8", "replace") for path in select_notebooks(folder, suffix=".py")}
    titles = {name: re.search(r"^# # (.+)$", text, re.MULTILINE) for name, text in texts.items()}
    return {name: title[1].strip() for name, title in titles.items() if title}


def stand_alone_notebooks(root: Path) -> dict[str, bytes]:
    """The versions for Kaggle and Colab of all notebooks, by file name; raises `BuildError` as `build` does."""
    exercises = list_exercises()
    return {
        f"{source.stem}.ipynb": to_bytes(to_notebook(make_versions(source, exercises)["stand-alone"]))
        for source in _sources(root)
    }


# From cells to the file


def to_notebook(cells: Iterable[Cell]) -> nbformat.NotebookNode:
    """A notebook without outputs, whose cell ids depend on the cells alone.

    The id of a marked cell is its mark (`exercise-3-1`, `answer-3a`), that of any other a hash of its type and text: it
    stays the same when others are inserted around it. The second of two equal cells gets `-2` at the end.

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
        metadata = {"course": dict(cell.markers)} if cell.markers else {}
        metadata |= {"tags": list(cell.tags)} if cell.tags else {}
        metadata |= FOLDED if "fold" in cell.tags else {}
        node = {"cell_type": cell.kind, "id": cell_id, "metadata": metadata, "source": cell.source}
        if cell.attachments:
            pictures = cell.attachments.items()
            node["attachments"] = {name: {"image/png": base64.b64encode(data).decode()} for name, data in pictures}
        nodes.append(node | ({"execution_count": None, "outputs": []} if cell.kind == "code" else {}))
    whole = {"cells": nodes, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return nbformat.from_dict(whole)


def to_bytes(notebook: nbformat.NotebookNode) -> bytes:
    """The file of a notebook: UTF-8, sorted keys, line feeds.

    Raises `nbformat.ValidationError` for an invalid notebook, and nbformat's warning for a missing or repeated cell id,
    which nbformat would repair at random.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nbformat.validate(notebook)
    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode("utf-8")


# Which sources, and what differs


def _sources(root: Path, only: str | Sequence[str] | None = None) -> list[Path]:
    folder = root / "solutions"
    if misnamed := [path for path in folder.glob("*.py") if not re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)]:
        raise BuildError([Problem(path, 0, "a source must be called NN_topic.py, as 02_unet.py.") for path in misnamed])
    return select_notebooks(folder, [only] if isinstance(only, str) else only, ".py")


def _compare(contents: dict[Path, bytes], root: Path, with_orphans: bool) -> None:
    problems = []
    for path, content in contents.items():
        if path.is_relative_to(root / "build"):
            continue  # not committed
        if not path.is_file():
            problems.append(Problem(path, 0, "missing."))
        elif path.read_bytes() != content:
            problems.append(Problem(path, 0, "differs from what its source gives."))
        if path.parent.name == "solutions" and (cells := missing_outputs(content)):
            reason = f"no output in cell {', '.join(cells)}; run: python3 course.py build --outputs"
            problems.append(Problem(path, 0, reason))
    if with_orphans:
        orphans = {path for folder in COMMITTED for path in (root / folder).glob("*.ipynb")} - set(contents)
        problems += [Problem(path, 0, "has no source; delete it, or write its source.") for path in orphans]
    if problems:
        raise BuildError(problems, "Run: python3 course.py build")
