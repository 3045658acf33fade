"""Which notebook of the course a file is, by what is in it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from course_utils.exercises.registry import list_exercises
from workshop.grade.collect.notebook_file import CHECK, BrokenNotebook, Cell, read_cells
from workshop.grade.collect.search import File
from workshop.grade.collect.students import Roster, read_name, title_in

_AT_THE_END = re.compile(r"(?P<student>.*\w)[_\-. ]+(?P<mark>\w+)", re.DOTALL)
_AT_THE_START = re.compile(r"(?P<mark>[^\W_]+)[_\-. ]+(?P<student>\w.*)", re.DOTALL)
_COUNTED = re.compile(r"(?i).*\b(?:students?|participants?|teilnehmer(?:in)?|users?|groups?|gruppe|teams?|candidates?|"
                      r"anon|submissions?|abgabe|guest|id|folders?|repo|pc)")  # fmt: skip


def cells_of(path: Path) -> list[Cell] | None:
    """The cells of a notebook, or None if the file is not one."""
    try:
        return read_cells(path.read_bytes())
    except (OSError, BrokenNotebook):
        return None


def which_notebook(cells: Iterable[Cell], file: File) -> str:
    """Which notebook of the course it is: by its exercises, else by its name."""
    votes: Counter[str] = Counter()
    for cell in cells:
        ids = [cell.marks.get("exercise", ""), *CHECK.findall(cell.source)]
        votes.update({id_.partition(".")[0] for id_ in ids if id_})
    if votes:
        return votes.most_common(1)[0][0]
    title = title_in(file.name.rest or file.parts[-1])
    return str(int(title[:2])) if title else read_name(file.name.rest or file.parts[-1]).student.casefold()


def without_notebook(files: list[File], people: Roster | None) -> list[File]:
    """The files, with names without the notebook that is in them: `kim_01` and `kim_02`, `kim-unet` are of kim.

    Only if the content of all files of that name agrees, and no two would then be attempts at the same notebook:
    `lee_1` and `lee_2` with the same notebook are two people.
    """
    contents: dict[str, set[str]] = defaultdict(set)
    marked: dict[str, list[tuple[str, str]]] = defaultdict(list)  # student -> whole name, notebook that it says
    names = {file.name for file in files}
    for name in {name.student: name for name in names if not (name.by_platform or name.folder)}.values():
        if title_in(name.student) or (people and people.find(name)[0]):
            continue
        for found in filter(None, (_AT_THE_END.fullmatch(name.student), _AT_THE_START.fullmatch(name.student))):
            if (number := _number(found["mark"])) and not _COUNTED.fullmatch(found["student"]):
                marked[found["student"].casefold()].append((name.student, number, found["student"]))
                break
    wanted = {*marked, *(whole.casefold() for some in marked.values() for whole, *_ in some)}
    for file in files:
        if file.is_notebook and not file.broken and file.name.student.casefold() in wanted:
            contents[file.name.student].add(which_notebook(cells_of(file.path) or [], file))
    new: dict[str, str] = {}
    for student, some in marked.items():
        held = [number for name, own in contents.items() if name.casefold() == student for number in own]
        held += [number for whole, *_ in some for number in contents[whole]]
        if len(held) == len(set(held)) and all(contents[whole] == {number} for whole, number, _ in some):
            new |= {whole: bare for whole, _, bare in some}
    return [replace(file, name=replace(file.name, student=new.get(file.name.student, file.name.student)))
            for file in files]  # fmt: skip


def _number(mark: str) -> str:
    """The number of the notebook that a word of a name says: `02` and `unet` are "2"."""
    for notebook in {exercise.notebook for exercise in list_exercises()}:
        number, *words = notebook.split("_")
        if mark.lstrip("0") == number.lstrip("0") or mark.casefold() in words:
            return str(int(number))
    return ""
