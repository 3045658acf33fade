"""Packs what students get into one zip: the notebooks with stubs, the package, the data, and what starts them.

The stand-alone versions for Kaggle and Colab are in the folder kaggle/. The README is docs/students.md.

The zip holds what is listed here and nothing else: no solutions, tests, outputs or notes. The package does hold the
course's own solutions, because a notebook uses them where an exercise is not solved.
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
from workshop.build import BuildError, build, stand_alone_notebooks
from workshop.build.badges import PLACEHOLDER_ADDRESS
from workshop.grade.report.points import read_points
from workshop.grade.report.questions import course_questions
from workshop.paths import checkout

STUDENTS_PAGE = "docs/students.md"  # becomes their README.md
FILES = ["LICENSE", "README.md", "course.py", "environment.yml", "pyproject.toml", "requirements.lock"]
# What `lab`, `doctor`, `run` and `segment` need of the workshop.
FILES += [f"workshop/{name}.py" for name in ("__init__", "command_line", "doctor", "parser", "paths")]
PATTERNS = ["workshop/run/*.py", "workshop/run/page.*", "workshop/segment*.*", "course_utils/**/*.py", "data/**/*"]
PICTURES = (".png", ".svg", ".jpg", ".jpeg", ".gif")
LEFT_OUT = ("solutions", "tests", "benchmarks")
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest date in a zip; with real dates no two zips would be the same

_LINK = re.compile(r"""\]\(\s*<?([^)>\s]+)|<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*["']([^"']*)["']""", re.IGNORECASE)


class ReleaseError(ValueError):
    """The zip cannot be made; the text says what is missing or wrong, and what to do."""


def release(file: str | Path, root: str | Path | None = None) -> list[str]:
    """Write the zip for students.

    Equal contents give equal bytes: the files are sorted and stored as they are, with one fixed date. They are not
    compressed, because the images are already, and because different zlibs compress differently.

    Args:
        file: the zip to write; an existing one is replaced in one step.
        root: of the course; by default the checkout that this package lies in.

    Returns:
        The names in the zip.

    Raises:
        ReleaseError: a file of the course or a picture is missing, a notebook is not what its source gives, or the zip
            cannot be written.
    """
    file = Path(file)
    root = Path(root) if root is not None else checkout()
    if file.is_dir():
        raise ReleaseError(f"{file} is a folder: name the zip in it, as in {file / 'student.zip'}.")
    contents = {name: (root / name).read_bytes() for name in collect(root)}
    contents["README.md"] = student_readme(root).encode()
    contents |= {f"kaggle/{name}": content for name, content in stand_alone_notebooks(root).items()}
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
        raise ReleaseError(f"{file} cannot be written ({error.strerror}): name another file.") from error
    return sorted(contents)


def release_for_nbgrader(folder: str | Path, root: str | Path | None = None) -> list[Path]:
    """Write the student versions as assignments of nbgrader, `source/NN_topic/NN_topic.ipynb`; returns the files.

    The cells of the checks are its "autograder tests": they fail where `COURSE_STRICT=1` is set. Answers to questions
    are marked by hand. The cells of the exercises are ordinary ones, so that nbgrader leaves their stubs as they are.

    Args:
        folder: of the course in nbgrader.
        root: of this course, as for `release`.

    Raises:
        ReleaseError: a notebook is not what its source gives, or cannot be written.
        PointsError: see `read_points`.
    """
    root = Path(root) if root is not None else checkout()
    collect(root)  # what is missing or not up to date is said there
    points, written = read_points(questions=course_questions()), []
    for name in _notebooks():
        notebook = json.loads((root / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            marks = cell["metadata"].get("course", {})
            if graded := marks.get("check") or marks.get("answer"):
                cell["metadata"]["nbgrader"] = {
                    "schema_version": 3, "grade_id": cell["id"], "grade": True, "locked": "check" in marks,
                    "solution": "answer" in marks, "task": False, "points": points.out_of[graded],
                }  # fmt: skip
        path = Path(folder) / "source" / name / f"{name}.ipynb"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ReleaseError(f"{path} cannot be written ({error.strerror}): name another folder.") from error
        written.append(path)
    return written


def student_readme(root: Path) -> str:
    """The page for students with links that lead from the top folder, where it lies in the zip."""
    return (root / STUDENTS_PAGE).read_text(encoding="utf-8").replace("](../", "](")


def collect(root: Path) -> list[str]:
    """The names, below `root`, of all files for students but those in kaggle/. Raises `ReleaseError` as `release`."""
    notebooks = [f"notebooks/{name}.ipynb" for name in _notebooks()]
    names = [*FILES, *notebooks]
    if missing := [name for name in [*names, STUDENTS_PAGE] if not (root / name).is_file()]:
        advice = "run `python3 course.py build` first" if missing[0].startswith("notebooks") else "restore it first"
        raise ReleaseError(f"{root / missing[0]} is missing: {advice}.")
    for pattern in PATTERNS:
        found = [path.relative_to(root) for path in root.glob(pattern) if path.is_file()]
        found = [path for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
        if not found:
            raise ReleaseError(f"{root / pattern} are missing: restore them first.")
        names += [path.as_posix() for path in found]
    texts = {name: _markdown(root / name) for name in notebooks}
    texts["README.md"] = student_readme(root)
    if PLACEHOLDER_ADDRESS in texts["README.md"]:  # notebooks are what `build` makes, which lets none through
        advice = "leave it out; `python3 course.py build` writes the links to Kaggle, Colab and Binder"
        raise ReleaseError(f"{STUDENTS_PAGE} has a link to the placeholder {PLACEHOLDER_ADDRESS}: {advice}.")
    for name, text in texts.items():
        names += _pictures(root, name, text)
    try:  # what the sources give has every stub, and neither answers nor outputs
        build(only=_notebooks(), check=True, root=root)
    except BuildError as error:
        raise ReleaseError(str(error)) from error
    return sorted(set(names))


def _notebooks() -> list[str]:
    """The names of the notebooks, as "01_data_exploration"."""
    return sorted({exercise.notebook for exercise in list_exercises()})


def _markdown(notebook: Path) -> str:
    """The text of a notebook's markdown cells."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ReleaseError(f"{notebook} cannot be read ({error}): run `python3 course.py build` first.") from error


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
