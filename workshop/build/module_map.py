"""The modules behind each notebook, which the build writes into README.md and the docstring of `course_utils`.

These are the modules of its exercises, then the modules without exercises that no earlier notebook imports. A row of
the README begins with the link to the notebook, a row of the docstring with its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from course_utils.exercises.registry import Exercise
from workshop.build.source import BuildError, Cell, Problem
from workshop.build.stand_alone import imported_modules

# Modules that show and store the results of any notebook; none of them is the subject of one.
NOT_SUBJECT = {"arguments", "display", "exercises", "plotting", "profiles", "results", "widgets"}

# file -> one row: what is in front of the modules, these, and what is behind them
ROWS = {
    "README.md": r"^(\| \[[^\]\n]*\]\(notebooks/{notebook}\.ipynb\) \|.*\| )[^|\r\n]*( \|)",
    "course_utils/__init__.py": r"^( +{notebook}: )[^\r\n]*()",
}


def modules_behind(notebooks: Mapping[str, Iterable[Cell]], exercises: Iterable[Exercise]) -> dict[str, list[str]]:
    """The modules of each notebook, given its cells, in the order of the course."""
    own = {notebook: [one.module for one in exercises if one.notebook == notebook] for notebook in notebooks}
    known, found = NOT_SUBJECT.union(*own.values()), {}
    for notebook, cells in sorted(notebooks.items()):
        imported = set().union(*(imported_modules(cell.source) for cell in cells if cell.kind == "code"))
        new = {name.split(".")[1] for name in imported if "." in name} - known
        known |= new
        found[notebook] = list(dict.fromkeys([*own[notebook], *sorted(new)]))
    return found


def map_modules(root: Path, modules: Mapping[str, Iterable[str]]) -> dict[Path, bytes]:
    """The new content of the files below `root` that do not show the modules of each notebook as given.

    Raises:
        BuildError: a file has no row for one of the notebooks.
    """
    contents = {}
    for path, pattern in ((root / name, pattern) for name, pattern in ROWS.items() if (root / name).is_file()):
        before = text = path.read_bytes().decode()
        for notebook, names in modules.items():
            shown = ", ".join(f"`{name}`" if path.suffix == ".md" else name for name in names)
            row = re.compile(pattern.replace("{notebook}", notebook), re.MULTILINE)
            text, count = row.subn(rf"\g<1>{shown}\g<2>", text)
            if count != 1:
                raise BuildError([Problem(path, 0, f"{count} rows for {notebook} and its modules; one is needed.")])
        if text != before:
            contents[path] = text.encode()
    return contents
