"""What the source of a notebook must keep to; the build stops where it does not.

Each rule is a function of the cells of one source, its path and the exercises of its notebook. It yields `(line in the
source, reason)` for everything it finds. A new rule is one more function in `RULES`. Undefined names are not looked for
here: ruff finds them (F821) in the sources and in the generated notebooks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from course_utils.exercises.registry import Exercise
from workshop.build.badges import PLACEHOLDER_ADDRESS
from workshop.build.expected import SNIPPET, ExpectedError, fill_in
from workshop.build.source import Cell
from workshop.build.stubs import source_of, stub_of
from workshop.build.versions import HEADING, MINUTES, PLACEHOLDER

Found = Iterator[tuple[int, str]]

PARAMETERS = ["data_source", "profile", "seed", "output"]
MORE_PARAMETERS = {"08_own_images": ["folder"]}
MIN_HINTS = 2
MAX_CODE_LINES = 25


def check_exercises(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """Each exercise of this notebook has one cell, which imports its object; the object has a source and a stub."""
    missing = {exercise.id: exercise for exercise in exercises}
    for cell in cells:
        if (id_ := cell.markers.get("exercise")) is None:
            continue
        exercise = missing.pop(id_, None)
        if exercise is None:
            known = ", ".join(one.id for one in exercises) or "none"
            yield cell.line, f"exercise {id_} is used twice, or is not one of this notebook; those are: {known}."
        elif cell.source != (line := f"from course_utils import {exercise.name}"):
            yield cell.line_of(0), f"exercise {id_} must hold the line {line!r} and nothing else."
        else:
            where = f"course_utils.{exercise.module}.{exercise.name}"
            try:
                source_of(exercise)
                stub_of(exercise)
            except (ImportError, AttributeError, OSError, TypeError, ValueError) as error:
                yield cell.line, f"exercise {id_} has no source or no stub: {where}: {error}"
    for id_, exercise in missing.items():
        yield 0, f"exercise {id_} ({exercise.name}) is missing; add a cell '# %% exercise=\"{id_}\"'."


_HINT = re.compile(r"<details>\s*<summary>Hint (\d+)</summary>")


def check_blocks(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """An exercise is a block: heading, difficulty, task, expected result, hints, then the stub, then its check."""
    registry = {exercise.id: exercise for exercise in exercises}
    in_place: set[int] = set()  # the expected results inside the block of their exercise
    for number, (cell, before, after) in enumerate(_with_neighbours(cells)):
        check, id_ = cell.markers.get("check"), cell.markers.get("exercise")
        if check is not None:
            if before.get("exercise") != check:
                yield cell.line, f"check {check} is not right after exercise {check}."
            if cell.source:
                yield cell.first_line, f"check {check} has a body; leave it empty, the build fills it in."
        if id_ is None or id_ not in registry:
            continue
        start, text = _block(cells, number, id_)
        expected = {index for index in range(start, number) if cells[index].markers.get("expected") == id_}
        in_place |= expected
        yield from ((cell.line, reason) for reason in _block_problems(text, len(expected), registry[id_]))
        if after.get("check") != id_:
            yield cell.line, f"exercise {id_} has no check; the next cell must be '# %% check=\"{id_}\"'."
    for number, cell in enumerate(cells):
        id_ = cell.markers.get("expected")
        if id_ is not None and number not in in_place:
            yield cell.line, f"the expected result of {id_} is not between its heading and exercise {id_}."
        if id_ is not None and "Expected:" not in cell.source:
            yield cell.line, f'the expected result of {id_} does not contain the word "Expected:".'


def _with_neighbours(cells: Sequence[Cell]) -> Iterator[tuple[Cell, dict[str, str], dict[str, str]]]:
    """Each cell, with the marks of the cells before and after it."""
    marks: list[dict[str, str]] = [{}, *(cell.markers for cell in cells), {}]
    return zip(cells, marks, marks[2:], strict=False)


def _block(cells: Sequence[Cell], exercise: int, id_: str) -> tuple[int, str]:
    """The index of the cell with the heading of an exercise, and the text from there to the exercise, or no text."""
    for start in range(exercise - 1, -1, -1):
        headings = list(HEADING.finditer(cells[start].source))
        if cells[start].kind != "markdown" or (headings and headings[-1]["id"] != id_):
            break
        if headings:
            text = "\n\n".join(cell.source for cell in cells[start:exercise])
            return start, text[headings[-1].start() :]
    return exercise, ""


def _block_problems(text: str, n_expected: int, exercise: Exercise) -> Iterator[str]:
    id_ = exercise.id
    if not text:
        yield f"exercise {id_} has no heading '### Exercise {id_}: {exercise.title}' in the text above it."
        return
    title = HEADING.match(text)["title"]
    if title != exercise.title:
        yield f"exercise {id_} is called {title!r}; in course_utils.exercises {exercise.title!r}."
    if len(PLACEHOLDER.findall(text)) != 1:
        yield f"exercise {id_} needs one line {{{{difficulty}}}}, below its heading."
    if n_expected != 1:
        yield f'exercise {id_} has no expected result, or more than one; mark one text cell expected="{id_}".'
    hints = [int(number) for number in _HINT.findall(text)]
    if len(hints) < MIN_HINTS or hints != list(range(1, len(hints) + 1)):
        found = ", ".join(map(str, hints)) or "none"
        yield f"exercise {id_} needs {MIN_HINTS} hints or more: Hint 1, Hint 2, ...; found: {found}."


def check_placeholders(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """`{{difficulty}}` is alone on its line, below the heading of its exercise; `{{minutes}}` stands for the time."""
    known = {exercise.id for exercise in exercises}
    for cell in cells:
        for match in re.finditer(r"\*\*Time\*\* about \d+", cell.source) if cell.kind == "markdown" else ():
            line = cell.line_of(cell.source.count("\n", 0, match.start()))
            yield line, f"the time {match[0].split()[-1]!r} in figures; write {MINUTES}, which the build computes."
        for match in PLACEHOLDER.finditer(cell.source) if cell.kind == "markdown" else ():
            line = cell.line_of(cell.source.count("\n", 0, match.start()))
            headings = [heading["id"] for heading in HEADING.finditer(cell.source, 0, match.start())]
            if match["name"] != "difficulty":
                yield line, f"unknown placeholder {match[0]!r}; known: {{{{difficulty}}}}, {MINUTES}."
            elif not headings or headings[-1] not in known:
                yield line, "{{difficulty}} without the heading of a known exercise above it in the same cell."


def check_expected(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """Snippets are in cells marked as expected results or below the title, and run; their pictures have an alt text."""
    for number, cell in enumerate(cells):
        if number and cell.kind == "markdown" and "expected" not in cell.markers and SNIPPET.search(cell.source):
            yield cell.line, 'a snippet of an expected result in a cell that is not marked expected="...".'
        elif cell.kind == "markdown":
            try:
                fill_in(cell.source)
            except ExpectedError as error:
                yield cell.line_of(error.row), str(error)


def check_questions(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """The questions of notebook 03 are called 3a, 3b, ..., each once, and the next cell holds the answer."""
    number = path.stem.split("_")[0].lstrip("0")
    seen = set()
    for cell, before, after in _with_neighbours(cells):
        question, answer = cell.markers.get("question"), cell.markers.get("answer")
        if question is not None:
            if not re.fullmatch(f"{number}[a-z]", question):
                yield cell.line, f"question {question!r} in notebook {number}; call it {number}a, {number}b, ..."
            if question in seen:
                yield cell.line, f"question {question} is used twice."
            seen.add(question)
            if after.get("answer") != question:
                yield cell.line, f'question {question} has no answer; the next cell must be marked answer="{question}".'
        if answer is not None and before.get("question") != answer:
            yield cell.line, f"answer {answer} is not right after question {answer}."


def check_code(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """Code cells are plain Python, are not empty, import no `*`, and give every figure its caption."""
    for cell in cells:
        if cell.kind != "code" or {"exercise", "check"} & set(cell.markers):
            continue
        if not cell.source:
            yield cell.line, "an empty code cell."
            continue
        rows = cell.source.split("\n")
        for row, text in enumerate(rows):
            if re.match(r"\s*#\s?[%!]\w", text):  # jupytext would run it, to a reader it is a comment
                yield cell.line_of(row), f"{text.strip()!r} looks like a magic; magics are not allowed, use Python."
        try:
            compile(cell.source, path.name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            row = min(getattr(error, "lineno", None) or 1, len(rows)) - 1
            magic = rows[row].lstrip().startswith(("%", "!", "?"))
            advice = "; magics and shell lines are not allowed, use Python" if magic else ""
            yield cell.line_of(row), f"the code does not parse: {getattr(error, 'msg', error)}{advice}."
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if reason := _fault_of(node):
                yield cell.line_of(node.lineno - 1), reason


def _fault_of(node: ast.AST) -> str:
    """What is wrong with an import or a call; every figure has a caption, which is its alternative text."""
    match node:
        case ast.ImportFrom(names=[ast.alias(name="*")]):
            return f"'from {node.module} import *' hides the names; list them."
        case ast.Call(func=ast.Attribute(value=ast.Name("plt"), attr="show")):
            return "plt.show() shows a figure without alt text; use show(figure, caption) from course_utils.display."
        case ast.Call(func=ast.Name("show"), args=[_, *captions], keywords=keywords):
            captions += [keyword.value for keyword in keywords if keyword.arg == "caption"]
            if not captions or not ast.unparse(captions[0]).strip("\"' "):
                return "a figure without alt text; say in the caption of show what the figure shows."
    return ""


def check_length(cells: Sequence[Cell]) -> Found:
    """No code cell that students see is longer than 25 lines; the docstring of a stub is not counted."""
    for cell in cells:
        count = cell.source.count("\n") + 1
        if "exercise" in cell.markers:
            documented = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            texts = [node.body[0] for node in documented if ast.get_docstring(node) is not None]
            count -= sum(text.end_lineno - text.lineno + 1 for text in texts)
        if cell.kind == "code" and count > MAX_CODE_LINES:
            yield cell.line, f"for students a code cell of {count} lines, {MAX_CODE_LINES} are allowed; split it."


def check_parameters(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """One cell is tagged parameters; it comes first or after imports and gives the four parameters plain values."""
    code = [cell for cell in cells if cell.kind == "code"]
    tagged = [cell for cell in code if "parameters" in cell.tags]
    if len(tagged) != 1:
        line = tagged[-1].line if tagged else 0
        yield line, f"{len(tagged)} parameters cells; one '# %% tags=[\"parameters\"]' sets {', '.join(PARAMETERS)}."
        return
    [cell] = tagged
    before = code[: code.index(cell)]
    nodes = [node for other in before for node in _statements(other)]
    # Imports, and calls without a result such as the choice of a plot style.
    set_up = all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for node in nodes)
    if not set_up or any(other.markers for other in before):
        yield cell.line, "the parameters cell must be the first code cell, or come right after the imports."
    names = []
    for node in _statements(cell):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                names.append(name)
            case _:
                yield cell.line_of(node.lineno - 1), "a parameter must be set to a plain text or number."
    wanted = [*PARAMETERS, *MORE_PARAMETERS.get(path.stem, [])]
    if sorted(names) != sorted(wanted):
        yield cell.line, f"the parameters cell must set {', '.join(wanted)}, but sets {', '.join(names)}."


def _statements(cell: Cell) -> list[ast.stmt]:
    try:
        return ast.parse(cell.source).body
    except (SyntaxError, ValueError):  # reported by check_code
        return []


# Code and formulas in a text: what looks like a link or a tag there is not one.
_NOT_PROSE = re.compile(
    r"^ {0,3}(```+|~~~+).*?(^ {0,3}\1|\Z)|(`+)[^\n]*?\3|\$\$.*?\$\$|\$[^$\n]+\$", re.MULTILINE | re.DOTALL
)
_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\][(\[]|<img\b(?P<attributes>[^>]*)>", re.IGNORECASE)
_ALT = re.compile(r"""\balt\s*=\s*(["'])\s*(?!\1)\S.*?\1""", re.IGNORECASE | re.DOTALL)
_TARGET = re.compile(
    r"""\]\(\s*<?([^)>\s]+)|^ {0,3}\[[^\]]+\]:\s*<?([^>\s]+)|<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*["']([^"']*)["']""",
    re.IGNORECASE | re.MULTILINE,
)
_DETAILS = re.compile(r"<(/?)details\b[^>]*>", re.IGNORECASE)
_SUMMARY_END = re.compile(r"</summary>(?![ \t]*\n[ \t]*(\n|\Z))", re.IGNORECASE)


def check_text(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """Text cells are not empty, their folds are closed, images have an alt text, links lead to what exists."""
    texts = [(cell, _NOT_PROSE.sub(_blank, cell.source)) for cell in cells if cell.kind == "markdown"]
    anchors = {_anchor(title) for cell, _ in texts for title in re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE)}
    for cell, text in texts:
        if not cell.source:
            yield cell.line, "an empty text cell."
        for position, reason in [*_fold_problems(text), *_link_problems(text, anchors, path.parent)]:
            yield cell.line_of(text.count("\n", 0, position)), reason


def _fold_problems(text: str) -> Found:
    """(position, reason) for what would hide or break the text of a fold."""
    opened: list[int] = []
    for match in _DETAILS.finditer(text):
        if not match[1]:
            opened.append(match.start())
        elif opened:
            opened.pop()
        else:
            yield match.start(), "</details> without <details> in the same cell."
    yield from ((start, "<details> without </details> in the same cell.") for start in opened)
    for match in _SUMMARY_END.finditer(text):
        yield match.start(), "no blank line after </summary>; without it the text below is not rendered."


def _link_problems(text: str, anchors: set[str], folder: Path) -> Found:
    for match in _IMAGE.finditer(text):
        if not (_ALT.search(match["attributes"]) if match["alt"] is None else match["alt"].strip()):
            yield match.start(), "an image without alt text; say in it what the picture shows."
    for match in _TARGET.finditer(text):
        target = match[1] or match[2] or match[3] or ""
        if target.startswith("#"):
            if _anchor(unquote(target[1:])) not in anchors:
                yield match.start(), f"a link to {target}, but this notebook has no such heading."
        elif PLACEHOLDER_ADDRESS in target:
            yield match.start(), f"a link to the placeholder {target}; write your own address."
        elif not re.match(r"https?:|mailto:|data:", target) and not _is_there(folder, target):
            yield match.start(), f"a link to {target!r}, but the repository has no such file there."


def _blank(match: re.Match) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _anchor(title: str) -> str:
    """What Jupyter calls a heading in links: spaces become hyphens. Emphasis and case are ignored."""
    return re.sub(r"[`*]", "", title).strip().replace(" ", "-").casefold()


def _is_there(folder: Path, target: str) -> bool:
    """Whether a link leads to a file of the repository; a notebook counts if its source is there."""
    file = (folder / unquote(re.split("[?#]", target)[0])).resolve()
    inside = folder.resolve().parent in file.parents
    return inside and (file.exists() or (file.suffix == ".ipynb" and file.with_suffix(".py").exists()))


RULES = (
    check_exercises, check_blocks, check_placeholders, check_expected, check_questions, check_code, check_parameters,
    check_text,
)  # fmt: skip
