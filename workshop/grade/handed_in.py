"""What was handed in: every file below a folder, as a notebook to grade or as a line that says why it is none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from workshop.grade.submissions import find_submissions


class HandInError(ValueError):
    """Nothing can be found out about what was handed in; the text says in one sentence what to do."""


@dataclass(frozen=True)
class HandedIn:
    """A notebook to grade, or if one of the four reasons is set, a line that says what else there is.

    `broken`: why it can't be graded; `superseded`: which other attempt counts; `missing`: who is on the roster and
    handed in nothing; `extra`: the student's other files. `note` is said beside any of them.
    """

    student: str
    path: Path
    file: str  # path below the folder, through archives: "kim.zip/01_data_exploration.ipynb"
    broken: str = ""
    superseded: str = ""
    missing: str = ""
    extra: str = ""
    note: str = ""
    late: bool = False
    modules: tuple[Path, ...] = ()  # Python files beside the notebook, which it may import
    folder: Path | None = None  # where these and all other files beside it lie, and nothing of other students

    @property
    def to_grade(self) -> bool:
        return not (self.broken or self.superseded or self.missing or self.extra)


def find_handed_in(
    folder: Path, unpacked: Path, roster: Path | None = None, pattern: str | None = None,
    leave_out: Collection[Path] = (),
) -> list[HandedIn]:  # fmt: skip
    """Who handed in what: a line for every file below the folder, sorted by student and file.

    Args:
        folder: with a folder, a file or an archive for each student; or one of these alone.
        unpacked: a temporary folder of the caller, for what archives hold.
        roster: a CSV file with names, ids or e-mail addresses of the class.
        pattern: a regular expression with `(?P<student>...)`, for paths that no known system writes.
        leave_out: files and folders that belong to the grader.

    Raises:
        HandInError: the folder, the roster or the pattern can't be used.
    """
    found = find_submissions(folder)
    return [HandedIn(one.student, one.path, one.file, modules=tuple(one.modules())) for one in found]
