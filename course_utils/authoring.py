"""Makes the notebooks from their sources: `solutions/NN_topic.py` becomes `solutions/NN_topic.ipynb`.

A source is a Python file in percent format. A cell starts with a line `# %%` (code) or `# %% [markdown]` (text, as
comment lines or as one triple-quoted string). On that line may stand

    tags=["optional"]     code cells: tags for papermill, nbval and the HTML renderings; see `TAGS`
    exercise="3.1"        code cells: the body stays empty, the tested object of `course_utils` is filled in
    question="3a"         text cells: a question; the next cell must hold its model answer
    answer="3a"           text cells: the model answer

The way from source to notebook is a chain of small functions: `read_cells` (file to cells), `find_problems` (everything
that would make a bad notebook, with its line), `solved` (cells to the cells of one version), `to_notebook`, `to_bytes`.
Another version of the notebooks is one more function like `solved`, listed in `VERSIONS`; what authors must keep to
stands in `authoring_rules`, one function a rule.

The same source gives the same bytes on every machine, so a committed notebook that differs is stale or was edited.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jupytext
import nbformat

from course_utils import authoring_rules
from course_utils.exercises import Exercise, list_exercises

TAGS = {"parameters", "optional", "nbval-check-output", "nbval-skip", "raises-exception", "hide-input"}
MARKERS = {"exercise": "code", "question": "markdown", "answer": "markdown"}  # and the type of cell they stand on
# Fixed, because what a kernel adds (its Python version) would differ from machine to machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True, order=True)
class Problem:
    """Something that stops the build. `line` counts from 1; it is 0 where a whole file is meant."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        name = f"{self.path.parent.name}/{self.path.name}"
        return f"{name}:{self.line}: {self.reason}" if self.line else f"{name}: {self.reason}"


class BuildError(ValueError):
    """The notebooks cannot be built, or are not what would be built. `problems` holds every reason found."""

    def __init__(self, problems: Sequence[Problem], advice: str = ""):
        self.problems = sorted(problems)
        super().__init__("\n".join([*map(str, self.problems), *filter(None, [advice])]))


@dataclass(frozen=True)
class Cell:
    """One cell of a source. `line` is the line of its `# %%`; the text below it starts at `first_line`.

    Where the text does not come from the source (a filled exercise), `first_line` is 0 and every line is at `line`.
    """

    kind: str
    source: str
    line: int
    first_line: int = 0
    tags: tuple[str, ...] = ()
    markers: dict[str, str] = field(default_factory=dict)

    def line_of(self, row: int) -> int:
        """Line in the source file of row `row` of the text, counted from 0."""
        return self.first_line + row if self.first_line else self.line


# From file to cells

# All that jupytext may take for the start of a cell, and the one way to write it here: jupytext would also split a
# function in two at an indented "# %%", take a misspelt marker for a title, and break on tags that are no list.
_MARKER_LIKE = re.compile(r"\s*#\s*(%%|<codecell>\s*$|In\[[0-9 ]*\]:?\s*$)")
_TEXTS = r'"[^"]*"(, *"[^"]*")*'
_MARKER = re.compile(rf'# %%( \[markdown\])?( tags=\[({_TEXTS})?\]| ({"|".join(MARKERS)})="[^"]*")*')
_TRIPLE_QUOTED = re.compile(r"""\s*[rR]?("{3}|'{3})""")


def read_cells(path: str | Path) -> list[Cell]:
    """The cells of a source in percent format, with their lines.

    Jupytext splits the file and reads the markers, but keeps no line numbers: the lines that start a cell are looked up
    here as well, and both must agree. A jupytext header (`# ---` ... `# ---`) may stand at the top; it is not used.

    Raises:
        BuildError: with file, line and reason, if a line that starts a cell is misplaced or has an unknown marker.

    >>> [cell.kind for cell in read_cells("solutions/02_unet.py")][:2]  # doctest: +SKIP
    ['markdown', 'code']
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BuildError([Problem(path, 0, f"not UTF-8 ({error}); save it as UTF-8.")]) from error
    starts = _starts(path, lines)
    nodes = _split(lines[starts[0] - 1 :])
    if len(nodes) != len(starts):
        # The first one that jupytext does not see, asked with the file cut off behind it.
        seen = [len(_split(lines[starts[0] - 1 : start])) for start in starts]
        hidden = [start for number, start in enumerate(starts, 1) if seen[number - 1] != number] or starts[-1:]
        reason = "a line '# %%' inside a string or a fenced block; write it another way."
        raise BuildError([Problem(path, hidden[0], reason)])
    ends = [*(start - 1 for start in starts[1:]), len(lines)]
    parts = [(node, start, lines[start:end]) for node, start, end in zip(nodes, starts, ends, strict=True)]
    problems = [Problem(path, *problem) for part in parts for problem in _cell_problems(*part)]
    if problems:
        raise BuildError(problems)
    return [_cell(*part) for part in parts]


def _split(lines: list[str]) -> list[nbformat.NotebookNode]:
    form = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    return jupytext.reads("\n".join(lines) + "\n", fmt=form).cells


def _starts(path: Path, lines: list[str]) -> list[int]:
    """The lines, counted from 1, that start a cell."""
    header_end = lines.index("# ---", 1) + 1 if lines[:1] == ["# ---"] and "# ---" in lines[1:] else 0
    starts = [n for n, line in enumerate(lines, 1) if n > header_end and _MARKER_LIKE.match(line)]
    faults = [(n, _marker_fault(lines[n - 1].rstrip())) for n in starts]
    problems = [Problem(path, n, fault) for n, fault in faults if fault]
    before = lines[header_end : starts[0] - 1] if starts else lines[header_end:]
    stray = [n for n, line in enumerate(before, header_end + 1) if line.strip()]
    problems += [Problem(path, n, "text before the first cell; start it with '# %%'.") for n in stray[:1]]
    if not starts:
        problems.append(Problem(path, 1, "no cells; start each with '# %%' or '# %% [markdown]'."))
    if problems:
        raise BuildError(problems)
    return starts


def _marker_fault(line: str) -> str:
    if not re.match(r"# %%( |$)", line):
        return f"{line.strip()!r} looks like the start of a cell; write '# %%' at the start of the line."
    unknown = [name for name in re.findall(r"(\w+)=", line) if name not in ("tags", *MARKERS)]
    if unknown:
        return f"unknown marker {unknown[0]!r}; known: tags, {', '.join(MARKERS)}."
    if not _MARKER.fullmatch(line):
        return f'{line!r} cannot be read; write \'# %%\' or \'# %% [markdown]\', then tags=["a", "b"] or name="value".'
    return ""


def _cell(node: nbformat.NotebookNode, start: int, body: list[str]) -> Cell:
    text = re.sub(r"\A(\s*\n)+", "", node.source).rstrip()
    first = next((n for n, line in enumerate(body, start + 1) if text and text.split("\n")[0] in line), 0)
    markers = {key: node.metadata[key] for key in MARKERS if key in node.metadata}
    return Cell(node.cell_type, text, start, first, tuple(node.metadata.get("tags", ())), markers)


def _cell_problems(node: nbformat.NotebookNode, start: int, body: list[str]) -> Iterator[tuple[int, str]]:
    markers = [key for key in MARKERS if key in node.metadata]
    for key in markers:
        if node.cell_type != MARKERS[key]:
            yield start, f"{key} marks a {MARKERS[key]} cell, but this one is {node.cell_type}."
    if len(markers) > 1:
        yield start, f"one cell cannot be {' and '.join(markers)}."
    tags = node.metadata.get("tags", [])
    if tags and node.cell_type != "code":
        yield start, f"tags {tags} on a text cell; only code cells have tags."
    unknown = [tag for tag in tags if tag not in TAGS]
    yield from ((start, f"unknown tag {tag!r}; known: {', '.join(sorted(TAGS))}.") for tag in unknown)
    if node.cell_type == "markdown" and not _TRIPLE_QUOTED.match("\n".join(body)):
        bare = [n for n, line in enumerate(body, start + 1) if line.strip() and not line.startswith("#")]
        yield from ((n, "a line of text without '# ' in front of it.") for n in bare[:1])


def find_problems(path: str | Path, exercises: Iterable[Exercise]) -> list[Problem]:
    """Everything in one source that would make a bad notebook, by line; empty if all is well."""
    path, exercises = Path(path), list(exercises)
    try:
        cells = read_cells(path)
    except BuildError as error:
        return error.problems
    found = [problem for rule in authoring_rules.RULES for problem in rule(cells, path, exercises)]
    # Names are looked up last: without the cells that are wrong, what they define would be missing.
    found = found or list(authoring_rules.check_names(solved(cells, exercises)))
    return sorted(Problem(path, *problem) for problem in found)


# The versions of a notebook


def solved(cells: Sequence[Cell], exercises: Iterable[Exercise]) -> list[Cell]:
    """The cells of the solved notebook: every exercise cell holds the source of its object in `course_utils`.

    Raises `KeyError` for an id that is not among the exercises; `find_problems` says so before, with the line.
    """
    registry = {exercise.id: exercise for exercise in exercises}
    return [
        replace(cell, source=authoring_rules.source_of(registry[cell.markers["exercise"]]), first_line=0)
        if "exercise" in cell.markers
        else cell
        for cell in cells
    ]


# folder -> what turns the cells of a source into those of the notebook there
VERSIONS: dict[str, Callable[[Sequence[Cell], Iterable[Exercise]], list[Cell]]] = {"solutions": solved}


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
        metadata = {"course": dict(cell.markers)} if cell.markers else {}
        metadata |= {"tags": list(cell.tags)} if cell.tags else {}
        node = {"cell_type": cell.kind, "id": cell_id, "metadata": metadata, "source": cell.source}
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


def build(only: str | Sequence[str] | None = None, check: bool = False, root: str | Path | None = None) -> list[Path]:
    """Write the notebooks of all sources, or with `check` compare them with what is there.

    Nothing is written unless every chosen source is without a problem.

    Args:
        only: number or name of one notebook or several, as "03" or "03_binary_training"; None for all.
        check: write nothing; compare byte for byte, and look for notebooks that have no source.
        root: folder that holds `solutions/`; by default the repository this package lies in.

    Returns:
        The notebooks written; none with `check`.

    Raises:
        BuildError: listing file, line and reason of every problem; with `check` also every notebook that differs, is
            missing or has no source.
    """
    root = Path(root) if root is not None else Path(__file__).resolve().parents[1]
    sources = _choose(root / "solutions", only)
    exercises = list_exercises()
    problems = [problem for source in sources for problem in find_problems(source, exercises)]
    if problems:
        raise BuildError(problems, "Nothing was written.")
    contents: dict[Path, bytes] = {}
    for source in sources:
        cells = read_cells(source)
        for folder, version in VERSIONS.items():
            contents[root / folder / f"{source.stem}.ipynb"] = to_bytes(to_notebook(version(cells, exercises)))
    if check:
        _compare(contents, root, with_orphans=only is None)
        return []
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(contents)


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
    if with_orphans:
        there = {path for folder in VERSIONS for path in (root / folder).glob("*.ipynb")}
        orphans = there - set(contents)
        problems += [Problem(path, 0, "has no source; delete it, or write its source.") for path in orphans]
    if problems:
        raise BuildError(problems, "Run: python3 course.py build")
