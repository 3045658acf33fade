"""The versions of a notebook: what becomes of the cells of a source in the solved and in the student version.

Both have the check cells filled in, the lines of difficulty and minutes, the expected results, and a last cell with the
progress. They differ in the cells of the exercises (solution or stub) and of the answers (model answer or a place for
the student's own).
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from course_utils.exercises.registry import Exercise
from workshop.build.badges import with_badges
from workshop.build.expected import fill_in
from workshop.build.source import Cell
from workshop.build.stubs import source_of, stub_of

MAX_CODE_LINES = 25
Place = Callable[[bytes, str], str]
HEADING = re.compile(r"^#{2,4} Exercise (?P<id>[^\s:]+): (?P<title>.+?)[ \t]*$", re.MULTILINE)
PLACEHOLDER = re.compile(r"^\{\{ *(?P<name>\w+) *\}\}[ \t]*$", re.MULTILINE)
IMPORT = "from course_utils.exercises import check"
OWN_ANSWER = """<details><summary>Your answer</summary>

*Double-click here, and write in place of this line.*

</details>"""
PROGRESS = """## Your progress

The exercises of this notebook, as their checks last found them. `show_overview()` lists those of the whole course."""
COURSE_PROGRESS = """### The whole course

All exercises of the course on this computer. They are remembered in a small file; deleting it changes nothing else."""
BROWSE_PROGRESS = """With a running kernel, look at one notebook after another:"""


def solved(cells: Sequence[Cell], exercises: Iterable[Exercise]) -> list[Cell]:
    """The cells of the solved notebook: every exercise cell holds the source of its object in `course_utils`.

    Raises `KeyError` for an id that is not among the exercises; `find_problems` says so before, with the line.
    """
    registry = {exercise.id: exercise for exercise in exercises}
    return _version(cells, registry, source_of, None)


def student(cells: Sequence[Cell], exercises: Iterable[Exercise], place: Place | None = None) -> list[Cell]:
    """The cells of the student version: stubs in the exercises, and a place to write instead of the model answers.

    Args:
        cells: of the source.
        exercises: the registry.
        place: turns a picture and its alternative text into Markdown; by default pictures are attached to their cell.
    """
    registry = {exercise.id: exercise for exercise in exercises}
    made = _version(cells, registry, stub_of, place)
    return [replace(cell, source=OWN_ANSWER, first_line=0) if "answer" in cell.markers else cell for cell in made]


def _version(
    cells: Sequence[Cell], registry: dict[str, Exercise], text_of: Callable[[Exercise], str], place: Place | None
) -> list[Cell]:
    made = []
    for cell in cells:
        if "exercise" in cell.markers:
            cell = replace(cell, source=text_of(registry[cell.markers["exercise"]]), first_line=0)
        elif "check" in cell.markers:
            cell = replace(cell, source=check_line(registry[cell.markers["check"]]), first_line=0)
        elif cell.kind == "markdown":
            cell = with_results(with_difficulty(cell, registry), place)
        made.append(cell)
    made = with_progress(with_import(made), registry)
    notebook = notebook_of(made, registry)
    return with_badges(made, notebook) if notebook else made


def notebook_of(cells: Sequence[Cell], registry: dict[str, Exercise]) -> str:
    """The name of the notebook to which the checked exercises belong; empty if there are none."""
    return next((registry[cell.markers["check"]].notebook for cell in cells if "check" in cell.markers), "")


def check_line(exercise: Exercise) -> str:
    """What stands in the check cell of an exercise.

    >>> check_line(Exercise("3.2", "dice_score", "losses", "03_binary_training", "The Dice score", 2, 10))
    'dice_score = check("3.2", dice_score)'
    """
    return f'{exercise.name} = check("{exercise.id}", {exercise.name})'


def with_difficulty(cell: Cell, registry: dict[str, Exercise]) -> Cell:
    """A line `{{difficulty}}` becomes difficulty and minutes of the exercise whose heading stands above it."""

    def line(match: re.Match) -> str:
        headings = [heading["id"] for heading in HEADING.finditer(cell.source, 0, match.start())]
        exercise = registry[headings[-1]]
        return f"*Difficulty {exercise.difficulty} of 5, about {exercise.minutes} minutes.*"

    text = PLACEHOLDER.sub(line, cell.source)
    return cell if text == cell.source else replace(cell, source=text)


def with_results(cell: Cell, place: Place | None = None) -> Cell:
    """The snippets of expected results become what they give; pictures are attached unless `place` says otherwise."""
    attachments: dict[str, bytes] = {}

    def attach(picture: bytes, alt: str) -> str:
        name = f"expected-{hashlib.sha256(alt.encode()).hexdigest()[:8]}.png"
        attachments[name] = picture
        return f"![{alt}](attachment:{name})"

    text = fill_in(cell.source, place or attach)
    return cell if text == cell.source else replace(cell, source=text, first_line=0, attachments=attachments)


def with_import(cells: list[Cell]) -> list[Cell]:
    """The import of `check`, once: among those from `course_utils`, or in the first check cell if they are too long."""
    first_check = next((number for number, cell in enumerate(cells) if "check" in cell.markers), None)
    if first_check is None or any(IMPORT in cell.source.split("\n") for cell in cells):
        return cells
    for number, cell in enumerate(cells[:first_check]):
        if cell.kind != "code" or cell.markers:
            continue
        imports = [
            node
            for node in ast.parse(cell.source).body
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "course_utils"
        ]
        if imports and cell.source.count("\n") + 2 <= MAX_CODE_LINES:
            later = [node.lineno - 1 for node in imports if node.module > "course_utils.exercises"]
            row = later[0] if later else imports[-1].end_lineno
            rows = cell.source.split("\n")
            text = "\n".join([*rows[:row], IMPORT, *rows[row:]])
            return [*cells[:number], replace(cell, source=text, first_line=0), *cells[number + 1 :]]
    cell = cells[first_check]
    text = f"{IMPORT}\n\n{cell.source}"
    return [*cells[:first_check], replace(cell, source=text), *cells[first_check + 1 :]]


def with_progress(cells: list[Cell], registry: dict[str, Exercise]) -> list[Cell]:
    """The cells, and at the end the progress of this notebook if it has checks; in the first one that of the course."""
    notebook, line = notebook_of(cells, registry), cells[-1].line
    if not notebook:
        return cells
    code = f'from course_utils.exercises.progress import show_overview\n\nshow_overview("{notebook}")'
    made = [Cell("markdown", PROGRESS, line), Cell("code", code, line, markers={"progress": notebook})]
    if notebook == next(iter(registry.values())).notebook:
        browse = "from course_utils.exercises.progress import browse_progress\n\nbrowse_progress()"
        made += [
            Cell("markdown", COURSE_PROGRESS, line),
            Cell("code", "show_overview()", line, markers={"progress": "course"}),
            Cell("markdown", BROWSE_PROGRESS, line),
            Cell("code", browse, line, markers={"progress": "widget"}, tags=("optional",)),
        ]
    return [*cells, *made]
