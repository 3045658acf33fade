"""The stand-alone version of a notebook for Kaggle and Colab: one file that needs nothing else, not even the internet.

It is the student version with three changes. A first, folded cell holds the modules of `course_utils` that the notebook
needs, as a zip in base85, and puts them on the path. The data source is the data set attached on Kaggle; without one, a
cell below the parameters draws the synthetic images of the course and says so. Pictures are in the text itself, because
Colab shows no attachments.

If the environment variable `KAGGLE_USERNAME` names your account, `kernel-metadata.json` beside each notebook lets
`kaggle kernels push -p FOLDER` upload it.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import mimetypes
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import course_utils
from course_utils.exercises.registry import Exercise
from workshop.build.source import Cell

PACKAGE = Path(course_utils.__file__).parent
# module -> its file
FILES = {
    ".".join(["course_utils", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
COMPETITION = "data-science-bowl-2018"
# Kaggle's other GPU, the P100, is too old for its PyTorch; without a choice it may be the one.
MACHINE = "NvidiaTeslaT4"

SETUP = """#@title The helper package of the course: run this cell first
import base64, io, sys, tempfile, zipfile

PACKAGE = (
{lines}
)
folder = tempfile.mkdtemp(prefix="course-")
zipfile.ZipFile(io.BytesIO(base64.b85decode(PACKAGE))).extractall(folder)
sys.path.insert(0, folder)
"""
DATA = """from course_utils.data import embedded_folder, find_kaggle_input
from course_utils.data.synthetic import write_dataset

if data_source == "kaggle" and find_kaggle_input() is None:
    print("No data set is attached to this notebook: using the synthetic images of the course.")
    print("For real images add the data of the competition 2018 Data Science Bowl, and run again.")
    data_source = "embedded"
if data_source == "embedded" and not embedded_folder().exists():
    print("Drawing the synthetic images takes about a minute ...")
    part = embedded_folder().with_name("unfinished")
    print(write_dataset(part), "images drawn")
    part.rename(embedded_folder())"""
DATA_TEXT = """The images are those that are attached to the notebook on Kaggle. Where none are, the next cell draws the
synthetic images of the course instead. On Colab, `data_source = "dsb2018"` downloads the real ones (27 MB)."""


def stand_alone(cells: Sequence[Cell], exercises: Iterable[Exercise], path: Path) -> list[Cell]:
    """The cells of the stand-alone version, from those of the student version, the notebook's exercises and its source.

    Raises `ValueError` for a missing module, and `OSError` for a picture that cannot be read.
    """
    made = []
    for cell in cells:
        if cell.kind == "markdown":
            cell = replace(cell, source=_with_pictures(cell, path.parent), attachments={})
        if "parameters" in cell.tags:
            source = re.sub(
                r'^data_source = "embedded".*$',
                'data_source = "kaggle"  # or "embedded" (synthetic), "dsb2018" (a download)',
                cell.source,
                flags=re.MULTILINE,
            )
            made += [
                replace(cell, source=source),
                Cell("markdown", DATA_TEXT, cell.line),
                Cell("code", DATA, cell.line, markers={"setup": "data"}),
            ]
        else:
            made.append(cell)
    archive = pack(modules_for(made, exercises))
    text = base64.b85encode(archive).decode()
    lines = "\n".join(f'    "{text[start : start + 110]}"' for start in range(0, len(text), 110))
    setup = Cell("code", SETUP.format(lines=lines).rstrip(), 1, tags=("fold",), markers={"setup": "package"})
    return [setup, *made]


def kernel_metadata(stem: str) -> bytes:
    """The file that `kaggle kernels push` reads; empty without an account, because Kaggle would refuse any other name.

    Title and id agree, because Kaggle makes the id from the title.
    """
    account = os.environ.get("KAGGLE_USERNAME")
    if not account:
        return b""
    title = f"Nucleus segmentation {stem.replace('_', ' ')}"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())
    content = {
        "id": f"{account}/{slug}",
        "title": title,
        "code_file": f"{stem}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": MACHINE,
        "competition_sources": [COMPETITION],
        **dict.fromkeys(["keywords", "dataset_sources", "kernel_sources", "model_sources"], []),
    }
    return (json.dumps(content, indent=2) + "\n").encode()


# What of the package a notebook needs


def modules_for(cells: Iterable[Cell], exercises: Iterable[Exercise]) -> list[Path]:
    """The files of the package that these cells import, directly or through others, in alphabetical order.

    Modules that `exercises` imports by a name made at run time are added for the exercises. Raises `ValueError` if one
    of them is missing.
    """
    waiting = {"course_utils.exercises.progress"}
    for exercise in exercises:
        waiting.add(f"course_utils.{exercise.module}")
        waiting.add(f"course_utils.exercises.checks.notebook_{exercise.notebook[:2]}")
    if missing := waiting - FILES.keys():
        raise ValueError(f"modules that the exercises need are missing: {', '.join(sorted(missing))}.")
    waiting = waiting.union(*(imported_modules(cell.source) for cell in cells if cell.kind == "code"))
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        around = {name.rpartition(".")[0]} & FILES.keys()
        waiting |= (around | imported_modules(FILES[name].read_text(encoding="utf-8"))) - found
    return sorted(FILES[name] for name in found)


def imported_modules(code: str) -> set[str]:
    """The modules of `course_utils` that code imports anywhere, also those that define a name imported from it.

    >>> sorted(imported_modules("import numpy\\nfrom course_utils import f1_score"))
    ['course_utils', 'course_utils.metrics']
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
            if node.module == "course_utils":
                names |= {course_utils.modules_by_name().get(alias.name, "") for alias in node.names}
    return names & FILES.keys()


def pack(files: Iterable[Path]) -> bytes:
    """A zip of files of the package that depends on their content alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(f"course_utils/{file.relative_to(PACKAGE).as_posix()}", (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # as on Linux, wherever it is made
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            text = file.read_text(encoding="utf-8")  # line feeds, also in a checkout with those of Windows
            archive.writestr(entry, text.encode(), compresslevel=9)
    return buffer.getvalue()


# Pictures and links

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")


def _with_pictures(cell: Cell, folder: Path) -> str:
    """The text of a cell with its pictures inside; of links to local files, which are not there, the words stay.

    So they do of signs (SVG), which neither Jupyter nor Colab shows when they are inside a text.
    """

    def replacement(match: re.Match) -> str:
        target = match["target"]
        if target.startswith("attachment:"):
            return _embedded(match["text"], cell.attachments[target.removeprefix("attachment:")], target)
        if re.match(r"https?:|mailto:|data:|#", target):
            return match[0]
        if not match["picture"] or target.endswith(".svg"):
            return match["text"]
        file = folder / unquote(target)
        return _embedded(match["text"], file.read_bytes(), file.name)

    parts = re.split(r"(^ {0,3}```.*?^ {0,3}```|`[^`\n]*`)", cell.source, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else _LINK.sub(replacement, part) for number, part in enumerate(parts))


def _embedded(alt: str, picture: bytes, name: str) -> str:
    return f"![{alt}](data:{mimetypes.guess_type(name)[0]};base64,{base64.b64encode(picture).decode()})"
