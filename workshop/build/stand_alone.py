"""The stand-alone version of a notebook for Kaggle and Colab: one file that needs nothing else, not even the internet.

It is the student version with three changes. A first, folded cell holds what the notebook needs of this package, as a
zip in base85, and puts it on the path. The data source is what is attached on Kaggle; where nothing is, a cell below
the parameters draws the synthetic images of the course instead and says so. Pictures are in the text itself, because
Colab shows no attachments.

Beside each notebook lies the `kernel-metadata.json` with which `kaggle kernels push -p FOLDER` uploads it. In there
the name of the account is missing unless the environment variable `KAGGLE_USERNAME` held it during the build.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import course_utils
from course_utils.exercises.registry import Exercise
from workshop.build.expected import as_data_address
from workshop.build.source import Cell
from workshop.build.versions import student

PACKAGE = Path(course_utils.__file__).parent
ACCOUNT = "your-kaggle-name"
COMPETITION = "data-science-bowl-2018"
# Kaggle's other GPU, the P100, is too old for its PyTorch; without a choice it may be the one.
MACHINE = "NvidiaTeslaT4"
# Jupyter, Kaggle and Colab each fold the code of a cell in their own way.
FOLDED = {"jupyter": {"source_hidden": True}, "_kg_hide-input": True, "cellView": "form"}

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
    print("No data set is attached to this notebook: going on with the synthetic images of the course.")
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
    """The cells of the stand-alone version; `path` is the source, from which links to local files are resolved."""
    exercises = list(exercises)
    made = []
    for cell in student(cells, exercises, place=as_data_address):
        if cell.kind == "markdown":
            cell = replace(cell, source=_without_local_links(cell.source, path.parent))
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
    archive = pack(modules_for(made, [exercise for exercise in exercises if exercise.notebook == path.stem]))
    text = base64.b85encode(archive).decode()
    lines = "\n".join(f'    "{text[start : start + 110]}"' for start in range(0, len(text), 110))
    setup = Cell("code", SETUP.format(lines=lines).rstrip(), 1, markers={"setup": "package"}, metadata=FOLDED)
    return [setup, *made]


def kernel_metadata(stem: str) -> bytes:
    """The file that `kaggle kernels push` reads. Title and id agree, because Kaggle makes the id from the title."""
    title = f"Nucleus segmentation {stem.replace('_', ' ')}"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())
    content = {
        "id": f"{os.environ.get('KAGGLE_USERNAME') or ACCOUNT}/{slug}",
        "title": title,
        "code_file": f"{stem}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": MACHINE,
        "keywords": [],
        "competition_sources": [COMPETITION],
        "dataset_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
    return (json.dumps(content, indent=2) + "\n").encode()


# What of the package a notebook needs


def modules_for(cells: Sequence[Cell], exercises: Iterable[Exercise]) -> list[Path]:
    """The files of the package that these cells import, directly or through others, in alphabetical order.

    Modules that `exercises` imports by a name made at run time are added for the exercises. Raises `ValueError` if one
    of them is missing.
    """
    found: set[Path] = set()
    waiting = _file_of("course_utils.exercises.progress")
    for exercise in exercises:
        checks = f"course_utils.exercises.checks.notebook_{exercise.notebook[:2]}"
        for name in (f"course_utils.{exercise.module}", checks):
            if not (files := _file_of(name)):
                raise ValueError(f"exercise {exercise.id} needs the module {name}, which is missing.")
            waiting |= files
    for cell in cells:
        waiting |= _imported(cell.source) if cell.kind == "code" else set()
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= _imported(file.read_text(encoding="utf-8")) - found
    return sorted(found)


def _imported(code: str) -> set[Path]:
    files: set[Path] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                files |= _file_of(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            files |= _file_of(node.module)
            for alias in node.names:
                files |= _file_of(f"{node.module}.{alias.name}")
                if node.module == "course_utils":
                    files |= _file_of(course_utils.modules_by_name().get(alias.name, ""))
    return files


def _file_of(name: str) -> set[Path]:
    """The file of a module of this package, with those of the packages around it; empty for anything else."""
    first, *parts = name.split(".")
    if first != "course_utils":
        return set()
    base = PACKAGE.joinpath(*parts)
    around = {PACKAGE.joinpath(*parts[:depth], "__init__.py") for depth in range(len(parts))}
    if parts and base.with_suffix(".py").is_file():
        return {base.with_suffix(".py"), *around}
    return {base / "__init__.py", *around} if (base / "__init__.py").is_file() else set()


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

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".svg": "svg+xml"}


def _without_local_links(text: str, folder: Path) -> str:
    """Local pictures go into the text; of links to local files, which are not there, the words stay."""

    def replacement(match: re.Match) -> str:
        target = match["target"]
        if re.match(r"https?:|mailto:|data:|#", target):
            return match[0]
        if not match["picture"]:
            return match["text"]
        file = folder / unquote(target)
        data = base64.b64encode(file.read_bytes()).decode()
        return f"![{match['text']}](data:image/{_KINDS[file.suffix.lower()]};base64,{data})"

    parts = re.split(r"(^ {0,3}```.*?^ {0,3}```|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else _LINK.sub(replacement, part) for number, part in enumerate(parts))
