"""Reads the source of a notebook: from a percent file `solutions/NN_topic.py` to its cells, with their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import nbformat

TAGS = {"parameters", "optional", "nbval-check-output", "nbval-skip", "raises-exception", "fold"}
# marker -> the type of cell that may have it
MARKERS = {"exercise": "code", "check": "code", "expected": "markdown", "question": "markdown", "answer": "markdown"}


@dataclass(frozen=True, order=True)
class Problem:
    """Something that stops the build. `line` counts from 1; 0 means the whole file."""

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
    """One cell. `line` is the line of its `# %%` in the source; the text below it starts at `first_line`, or is empty.

    `attachments` are pictures (PNG) that the text shows, by name.
    """

    kind: str
    source: str
    line: int
    first_line: int = 0
    tags: tuple[str, ...] = ()
    markers: dict[str, str] = field(default_factory=dict)
    attachments: dict[str, bytes] = field(default_factory=dict)

    def line_of(self, row: int) -> int:
        """Line in the source file of row `row` of the text, counted from 0."""
        return self.first_line + row if self.first_line else self.line


# All that jupytext may take for the start of a cell, and the one way to write it here: jupytext would also split a
# function in two at an indented "# %%", take a misspelt marker for a title, and fail on tags that are not a list.
_MARKER_LIKE = re.compile(r"\s*#\s*(%%|<codecell>\s*$|In\[[0-9 ]*\]:?\s*$)")
_TEXTS = r'"[^"]*"(, *"[^"]*")*'
_MARKER = re.compile(rf'# %%( \[markdown\])?( tags=\[({_TEXTS})?\]| ({"|".join(MARKERS)})="[^"]*")*')
_TRIPLE_QUOTED = re.compile(r"""\s*[rR]?("{3}|'{3})""")


def read_cells(path: Path) -> list[Cell]:
    """The cells of a source in percent format, with their lines.

    Jupytext splits the file and reads the markers, but keeps no line numbers: the lines that start a cell are looked up
    here as well, and both must agree. A jupytext header (`# ---` ... `# ---`) may stand at the top; it is ignored.
    Raises `BuildError` if a line that starts a cell is misplaced or has an unknown marker.

    >>> [cell.kind for cell in read_cells(Path("solutions/02_unet.py"))][:2]  # doctest: +SKIP
    ['markdown', 'code']
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BuildError([Problem(path, 0, f"not UTF-8 ({error}); save it as UTF-8.")]) from error
    starts = _starts(path, lines)
    nodes = _split(lines[starts[0] - 1 :])
    if len(nodes) != len(starts):
        # The first start that jupytext does not see, found by cutting the file off behind each.
        seen = (len(_split(lines[starts[0] - 1 : start])) for start in starts)
        hidden = next((start for number, start in enumerate(starts, 1) if next(seen) != number), starts[-1])
        raise BuildError([Problem(path, hidden, "a line '# %%' inside a string or a fenced block; reword it.")])
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
    before = lines[: starts[0] - 1] if starts else lines
    stray = [n for n, line in enumerate(before, 1) if n > header_end and line.strip()]
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
    if "fold" in tags and (markers or "parameters" in tags):
        yield start, "a folded cell that students should read or edit; fold only what plots."
    unknown = [tag for tag in tags if tag not in TAGS]
    yield from ((start, f"unknown tag {tag!r}; known: {', '.join(sorted(TAGS))}.") for tag in unknown)
    if node.cell_type == "markdown" and not _TRIPLE_QUOTED.match("\n".join(body)):
        bare = [n for n, line in enumerate(body, start + 1) if line.strip() and not line.startswith("#")]
        yield from ((n, "a line of text without '# ' in front of it.") for n in bare[:1])
