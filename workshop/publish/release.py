"""Packs what students get into one zip: the notebooks with stubs, the package, the data, and what starts them.

The stand-alone versions for Kaggle and Colab are in the folder kaggle/. The README is that of the course without what
is meant for others: comments in it say which parts those are.

What goes in is listed here, so that nothing else gets in by accident: no solutions, tests, outputs or notes of yours.
The package holds the course's own solutions, because the notebooks go on with them where an exercise is not solved.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote

from course_utils.exercises import list_exercises
from course_utils.results import replacing
from workshop.build import BuildError, stand_alone_notebooks
from workshop.paths import checkout

FILES = ["LICENSE", "README.md", "course.py", "environment.yml", "pyproject.toml", "requirements.lock"]
FOLDERS = {"course_utils": "*.py", "workshop": "*.py", "data": "*"}
PICTURES = (".png", ".svg", ".jpg", ".jpeg", ".gif")
LEFT_OUT = ("solutions", "tests", "benchmarks")
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can hold; real times would make every zip another one

_LINK = re.compile(r"""\]\(\s*<?([^)>\s]+)|<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*["']([^"']*)["']""", re.IGNORECASE)


class ReleaseError(ValueError):
    """The zip cannot be made; the text says what is missing or wrong, and what to do."""


def release(file: str | Path, root: str | Path | None = None) -> list[str]:
    """Write the zip for students.

    Equal contents give equal bytes: the files are sorted and stored as they are, with one fixed date. They are not
    compressed, because the images are already, and because different zlibs compress differently.

    Args:
        file: the zip to write; one that is there is replaced in one step.
        root: of the course; by default the checkout that this package lies in.

    Returns:
        The names in the zip.

    Raises:
        ReleaseError: a file of the course or a picture is missing, a notebook is not the student version, or the zip
            cannot be written.
    """
    file = Path(file)
    root = Path(root) if root is not None else checkout()
    contents = {name: (root / name).read_bytes() for name in collect(root)}
    contents["README.md"] = student_readme((root / "README.md").read_text(encoding="utf-8")).encode()
    try:
        contents |= {f"kaggle/{name}": content for name, content in stand_alone_notebooks(root).items()}
    except BuildError as error:
        raise ReleaseError(str(error)) from error
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, FIRST_DATE)
            entry.create_system = 3  # Unix, also where it is made on Windows
            entry.external_attr = (0o100755 if name == "course.py" else 0o100644) << 16
            archive.writestr(entry, content)
    try:
        with replacing(file) as unfinished:
            unfinished.write(stream.getvalue())
    except OSError as error:
        raise ReleaseError(f"{file} cannot be written ({error.strerror}); name a file in another folder.") from error
    return sorted(contents)


def student_readme(text: str) -> str:
    """The README of the course as students get it.

    Between `<!-- course -->` and `<!-- /course -->` stands what they do not need; a comment that begins with
    `<!-- students` holds what they get instead.

    >>> student_readme("a\\n<!-- course -->\\nb\\n<!-- /course -->\\n<!-- students\\nc\\n-->\\n")
    'a\\nc\\n'
    """
    text = re.sub(r"<!-- course -->\n.*?<!-- /course -->\n", "", text, flags=re.DOTALL)
    return re.sub(r"<!-- students\n(.*?)-->\n", r"\1", text, flags=re.DOTALL)


def collect(root: Path) -> list[str]:
    """The names, below `root`, of all that students get; raises `ReleaseError` as `release` does."""
    notebooks = sorted({exercise.notebook for exercise in list_exercises()})
    names = [*FILES, *(f"notebooks/{notebook}.ipynb" for notebook in notebooks)]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        advice = "run `python3 course.py build` first" if missing[0].startswith("notebooks") else "restore it first"
        raise ReleaseError(f"{root / missing[0]} is missing: {advice}.")
    texts = {"README.md": student_readme((root / "README.md").read_text(encoding="utf-8"))}
    for notebook in notebooks:
        name = f"notebooks/{notebook}.ipynb"
        texts[name] = check_student_version(root / name)
    for folder, pattern in FOLDERS.items():
        found = [path for path in (root / folder).rglob(pattern) if path.is_file() and not _is_hidden(path, root)]
        if not found:
            raise ReleaseError(f"{root / folder} has no files: restore it first.")
        names += [path.relative_to(root).as_posix() for path in found]
    for name, text in texts.items():
        names += _pictures(root, name, text)
    return sorted(set(names))


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(root).parts)


def check_student_version(path: Path) -> str:
    """Make sure that a notebook is as students should get it; returns the text of its markdown cells.

    Raises:
        ReleaseError: it has outputs, an exercise that is not the stub, or an answer to a question.
    """
    from workshop.build.stubs import stub_of
    from workshop.build.versions import OWN_ANSWER

    stubs = {exercise.id: stub_of(exercise) for exercise in list_exercises() if exercise.notebook == path.stem}
    found, texts = set(), []
    try:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source, course = "".join(cell["source"]), cell["metadata"].get("course", {})
            if cell["cell_type"] == "markdown":
                texts.append(source)
            if cell.get("outputs"):
                raise _not_for_students(path, "it has outputs")
            if "exercise" in course:
                found.add(course["exercise"])
                if source != stubs.get(course["exercise"]):
                    raise _not_for_students(path, f"exercise {course['exercise']} is not the stub")
            if "answer" in course and source != OWN_ANSWER:
                raise _not_for_students(path, f"question {course['answer']} is answered")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _not_for_students(path, f"it cannot be read ({type(error).__name__}: {error})") from error
    if found != set(stubs):
        raise _not_for_students(path, f"exercise {min(set(stubs) - found)} is missing")
    return "\n".join(texts)


def _not_for_students(path: Path, reason: str) -> ReleaseError:
    return ReleaseError(f"{path} is not the student version, {reason}: run `python3 course.py build` first.")


def _pictures(root: Path, name: str, text: str) -> list[str]:
    """The pictures of the course that a text shows or links to."""
    found = []
    for match in _LINK.finditer(text):
        target = unquote(re.split("[?#]", match[1] or match[2] or "")[0])
        if not target.lower().endswith(PICTURES) or re.match(r"[a-z]+:", target, re.IGNORECASE):
            continue
        path = Path(os.path.normpath(root / Path(name).parent / target))
        if not path.is_file() or not path.is_relative_to(root) or path.relative_to(root).parts[0] in LEFT_OUT:
            raise ReleaseError(f"{name} refers to {target}, which students would not get: put the picture into docs/.")
        found.append(path.relative_to(root).as_posix())
    return found
