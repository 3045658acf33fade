"""The solved and the student version of a notebook, made from the cells of its source.

Both have the check cells filled in, difficulty and minutes, the expected results, links below the title, and at the end
the progress and links. They differ in the exercises (solution or stub) and in the answers (model answer, or a place for
the student's own and a cell that shows the model answer after that).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from course_utils.exercises.registry import Exercise
from workshop.build.badges import badges, repository, with_links
from workshop.build.expected import fill_in
from workshop.build.source import Cell
from workshop.build.stubs import source_of, stub_of

HEADING = re.compile(r"^#{2,4} Exercise (?P<id>[^\s:]+): (?P<title>.+?)[ \t]*$", re.MULTILINE)
PLACEHOLDER = re.compile(r"^\{\{ *(?P<name>\w+) *\}\}[ \t]*$", re.MULTILINE)
OWN_ANSWER = """<details><summary>Your answer</summary>

*Double-click here, and write in place of this line.*

</details>"""
PROGRESS = """## Your progress

The exercises of this notebook, as their checks last found them, and folded those of the others. They are remembered in
a small file on this computer, together with your guesses; deleting it changes nothing else."""
MINUTES = "{{minutes}}"
WORDS_PER_MINUTE = 100  # of a text with code and figures to look at
MINUTES_PER_QUESTION = 5


def solved(
    cells: Sequence[Cell], exercises: Sequence[Exercise], notebook: str, titles: Mapping[str, str] | None = None
) -> list[Cell]:
    """The cells of the solved notebook: every exercise cell holds the source of its object in `course_utils`.

    `titles` are those of all notebooks of the course, by name. Raises `KeyError` for an id that is not among the
    exercises; the rules find it before, with its line.
    """
    return _version(cells, exercises, notebook, titles or {}, source_of)


def student(
    cells: Sequence[Cell], exercises: Sequence[Exercise], notebook: str, titles: Mapping[str, str] | None = None
) -> list[Cell]:
    """The cells of the student version: stubs in the exercises, and a place to write instead of each model answer."""
    made = []
    for cell in _version(cells, exercises, notebook, titles or {}, stub_of):
        if question := cell.markers.get("answer"):
            code = f'from course_utils.exercises.questions import model_answer\n\nmodel_answer("{question}")'
            made += [replace(cell, source=OWN_ANSWER), Cell("code", code, cell.line, markers={"model": question})]
        else:
            made.append(cell)
    return made


def _version(
    cells: Sequence[Cell], exercises: Sequence[Exercise], notebook: str, titles: Mapping[str, str],
    text_of: Callable[[Exercise], str],
) -> list[Cell]:  # fmt: skip
    registry = {exercise.id: exercise for exercise in exercises}
    minutes = str(minutes_of(cells, [exercise for exercise in exercises if exercise.notebook == notebook]))
    made = []
    for cell in cells:
        if "exercise" in cell.markers:
            cell = replace(cell, source=text_of(registry[cell.markers["exercise"]]))
        elif "check" in cell.markers:
            cell = replace(cell, source=check_line(registry[cell.markers["check"]]))
        elif cell.kind == "markdown":
            text, pictures = fill_in(with_difficulty(cell.source, registry).replace(MINUTES, minutes))
            cell = replace(cell, source=text, attachments=pictures)
        made.append(cell)
    line, links = cells[-1].line, _neighbours(notebook, titles)
    if exercises:
        code = f'from course_utils.exercises.progress import show_overview\n\nshow_overview("{notebook}")'
        made += [Cell("markdown", PROGRESS, line), Cell("code", code, line, markers={"progress": notebook})]
    made += [Cell("markdown", links, line)] if links else []
    return with_links(made, badges(notebook, "../", repository()), links)


def _neighbours(notebook: str, titles: Mapping[str, str]) -> str:
    """Links to the notebooks before and after this one, as far as there are some."""
    names = sorted(titles)
    place = names.index(notebook) if notebook in names else len(names)
    found = {"Previous": names[place - 1 : place] if place else [], "Next": names[place + 1 : place + 2]}
    return " | ".join(f"{word}: [{titles[name]}]({name}.ipynb)" for word, chosen in found.items() for name in chosen)


def minutes_of(cells: Sequence[Cell], exercises: Sequence[Exercise]) -> int:
    """How long a notebook takes without its computing, in tens: its exercises, its questions, and to read it."""
    texts = [cell.source for cell in cells if cell.kind == "markdown" and "answer" not in cell.markers]
    words = len(re.sub(r"<details>.*?</details>", "", "\n".join(texts), flags=re.DOTALL).split())
    questions = sum("question" in cell.markers for cell in cells)
    minutes = sum(exercise.minutes for exercise in exercises) + MINUTES_PER_QUESTION * questions
    return 10 * round((minutes + words / WORDS_PER_MINUTE) / 10)


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

