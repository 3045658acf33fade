"""The solved and the student version of a notebook, made from the cells of its source.

Both have the check cells filled in, difficulty and minutes, the expected results, the links below the title, and the
progress at the end. They differ in the exercises (solution or stub) and in the answers (model answer or a place for the
student's own).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from course_utils.exercises.registry import Exercise
from workshop.build.badges import with_badges
from workshop.build.expected import fill_in
from workshop.build.source import Cell
from workshop.build.stubs import source_of, stub_of

HEADING = re.compile(r"^#{2,4} Exercise (?P<id>[^\s:]+): (?P<title>.+?)[ \t]*$", re.MULTILINE)
PLACEHOLDER = re.compile(r"^\{\{ *(?P<name>\w+) *\}\}[ \t]*$", re.MULTILINE)
OWN_ANSWER = """<details><summary>Your answer</summary>

*Double-click here, and write in place of this line.*

</details>"""
PROGRESS = """## Your progress

The exercises of this notebook, as their checks last found them. `show_overview()` lists those of the whole course."""
COURSE_PROGRESS = """### The whole course

All exercises of the course on this computer. They are remembered in a small file; deleting it changes nothing else."""
BROWSE_PROGRESS = """With a running kernel, look at one notebook after another:"""


def solved(cells: Sequence[Cell], exercises: Sequence[Exercise], notebook: str) -> list[Cell]:
    """The cells of the solved notebook: every exercise cell holds the source of its object in `course_utils`.

    Raises `KeyError` for an id that is not among the exercises; the rules find it before, with its line.
    """
    return _version(cells, exercises, notebook, source_of)


def student(cells: Sequence[Cell], exercises: Sequence[Exercise], notebook: str) -> list[Cell]:
    """The cells of the student version: stubs in the exercises, and a place to write instead of each model answer."""
    made = _version(cells, exercises, notebook, stub_of)
    return [replace(cell, source=OWN_ANSWER) if "answer" in cell.markers else cell for cell in made]


def _version(
    cells: Sequence[Cell], exercises: Sequence[Exercise], notebook: str, text_of: Callable[[Exercise], str]
) -> list[Cell]:
    registry = {exercise.id: exercise for exercise in exercises}
    made = []
    for cell in cells:
        if "exercise" in cell.markers:
            cell = replace(cell, source=text_of(registry[cell.markers["exercise"]]))
        elif "check" in cell.markers:
            cell = replace(cell, source=check_line(registry[cell.markers["check"]]))
        elif cell.kind == "markdown":
            text, pictures = fill_in(with_difficulty(cell.source, registry))
            cell = replace(cell, source=text, attachments=pictures)
        made.append(cell)
    progress = _progress(notebook, cells[-1].line, notebook == exercises[0].notebook) if exercises else []
    return with_badges([*made, *progress], notebook)


def check_line(exercise: Exercise) -> str:
    """The content of the check cell of an exercise.

    >>> check_line(Exercise("3.2", "dice_score", "losses", "03_binary_training", "The Dice score", 2, 10))
    'dice_score = check("3.2", dice_score)'
    """
    return f'{exercise.name} = check("{exercise.id}", {exercise.name})'


def with_difficulty(text: str, registry: dict[str, Exercise]) -> str:
    """A line `{{difficulty}}` becomes difficulty and minutes of the exercise whose heading is above it."""

    def line(match: re.Match) -> str:
        headings = [heading["id"] for heading in HEADING.finditer(text, 0, match.start())]
        exercise = registry[headings[-1]]
        return f"*Difficulty {exercise.difficulty} of 5, about {exercise.minutes} minutes.*"

    return PLACEHOLDER.sub(line, text)


def _progress(notebook: str, line: int, with_course: bool) -> list[Cell]:
    """The cells that show the progress of a notebook, and `with_course` that of the whole course."""
    code = f'from course_utils.exercises.progress import show_overview\n\nshow_overview("{notebook}")'
    made = [Cell("markdown", PROGRESS, line), Cell("code", code, line, markers={"progress": notebook})]
    if with_course:
        browse = "from course_utils.exercises.progress import browse_progress\n\nbrowse_progress()"
        made += [
            Cell("markdown", COURSE_PROGRESS, line),
            Cell("code", "show_overview()", line, markers={"progress": "course"}),
            Cell("markdown", BROWSE_PROGRESS, line),
            Cell("code", browse, line, markers={"progress": "widget"}, tags=("optional",)),
        ]
    return made
