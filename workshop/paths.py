"""Where the course is, which code and notebooks it has, and what its data sources are called in file names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from course_utils import did_you_mean


class RunError(ValueError):
    """The run cannot start; the message says what was found, what was expected and what to do."""


def checkout() -> Path:
    """The folder of the course: the one that holds `course_utils/`, and in a whole course `solutions/`."""
    return Path(__file__).resolve().parents[1]


def course_code() -> str:
    """A hash of the code of both packages: it says whether two computers, or two runs, have the same course."""
    digest = hashlib.sha256()
    packages = (checkout() / name for name in ("course_utils", "workshop"))
    for path in sorted(path for package in packages for path in package.rglob("*.py")):
        digest.update(path.relative_to(checkout()).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def select_notebooks(folder: Path, only: Sequence[str] | None = None, suffix: str = ".ipynb") -> list[Path]:
    """The notebooks `NN_topic.ipynb` of a folder in order, all or only those with a number, name or path in `only`.

    The suffix ".py" gives their sources. Raises `RunError` if the folder has none, or not all that `only` names.
    """
    notebooks = sorted(folder.glob(f"[0-9][0-9]_*{suffix}"))
    if not notebooks:
        advice = " Generate them first: python3 course.py build" if suffix == ".ipynb" else ""
        raise RunError(f"{folder} has no notebooks NN_topic{suffix}.{advice}")
    if only is None:
        return notebooks
    chosen = set()
    for wanted in only:
        name = re.sub(r"\.(ipynb|py)$", "", Path(wanted).name)
        matches = [path for path in notebooks if name in (path.stem, path.stem[:2], path.stem[:2].lstrip("0"))]
        if not matches:
            names = [path.stem for path in notebooks]
            hint = did_you_mean(name, names)
            raise RunError(f"There is no notebook {wanted!r}.{hint} Choose by number or name from: {', '.join(names)}.")
        chosen.update(matches)
    return [path for path in notebooks if path in chosen]


def resolve_data_source(source: str) -> str:
    """A source for the notebooks, which run in another folder: paths become absolute, names stay.

    >>> resolve_data_source("embedded")
    'embedded'
    """
    from course_utils.data import available_sources

    path = Path(os.path.expanduser(source))
    looks_like_path = path.exists() or path.suffix or len(path.parts) > 1
    return str(path.absolute()) if looks_like_path and source not in ("auto", *available_sources()) else source


def data_label(data: str) -> str:
    """A data source as part of a folder's name.

    >>> data_label("../data/dsb2018.zip")
    'dsb2018'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", Path(data).stem).strip("_") or "data"
