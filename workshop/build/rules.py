"""What the source of a notebook must keep to; `authoring` stops the build where it does not.

Each rule is a function of the cells of one source that yields `(line in the source, reason)` for everything it finds. A
new rule is one more function in `RULES`. `check_names` stands apart: it looks at a notebook as generated, with the
exercises filled in.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from course_utils.exercises.registry import Exercise
from workshop.build.expected import ExpectedError, fill_in, find_snippets
from workshop.build.source import Cell
from workshop.build.stubs import source_of, stub_of
from workshop.build.versions import HEADING, MAX_CODE_LINES, PLACEHOLDER

Found = Iterator[tuple[int, str]]

PARAMETERS = ["data_source", "profile", "seed", "output"]
MIN_HINTS = 2
# Whether every exercise must have a check. False is for drafts: an exercise without one may be incomplete, and its
# notebook has no student version yet.
REQUIRE_BLOCKS = True


def check_exercises(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """Each exercise of this notebook stands in it once, imports its object, and that has a source."""
    registry = {exercise.id: exercise for exercise in exercises}
    first_lines: dict[str, int] = {}
    for cell in cells:
        id_ = cell.markers.get("exercise")
        if id_ is None:
            continue
        if id_ in first_lines:
            yield cell.line, f"exercise {id_} is used twice; first in line {first_lines[id_]}."
        first_lines.setdefault(id_, cell.line)
        exercise = registry.get(id_)
        if exercise is None:
            yield cell.line, f"there is no exercise {id_!r} in course_utils.exercises; known: {', '.join(registry)}."
        elif exercise.notebook != path.stem:
            yield cell.line, f"exercise {id_} belongs into {exercise.notebook}, not into {path.stem}."
        elif cell.source != (line := f"from course_utils import {exercise.name}"):
            yield cell.line_of(0), f"exercise {id_} must hold the line {line!r} and nothing else."
        else:
            where = f"course_utils.{exercise.module}.{exercise.name}"
            try:
                source_of(exercise)
                stub_of(exercise)
            except (ImportError, AttributeError, OSError, TypeError) as error:
                yield cell.line, f"exercise {id_} has no source: {where} cannot be read ({error})."
            except ValueError as error:
                yield cell.line, f"exercise {id_} has no stub: in {where} {error}"
    for exercise in exercises:
        if exercise.notebook == path.stem and exercise.id not in first_lines:
            marker = f'# %% exercise="{exercise.id}"'
            yield 0, f"exercise {exercise.id} ({exercise.name}) is missing; add a cell {marker!r}."


_HINT = re.compile(r"<details>\s*<summary>Hint (\d+)</summary>")


def check_blocks(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """An exercise is a block: heading, difficulty, task, expected result, hints, then the stub, then its check."""
    registry = {exercise.id: exercise for exercise in exercises}
    marks: list[dict[str, str]] = [{}, *(cell.markers for cell in cells), {}]
    in_blocks: set[int] = set()
    for number, cell in enumerate(cells):
        before, after = marks[number], marks[number + 2]
        check, id_ = cell.markers.get("check"), cell.markers.get("exercise")
        if check is not None:
            if before.get("exercise") != check:
                yield cell.line, f"check {check} does not stand right after exercise {check}."
            if cell.source:
                yield cell.first_line, f"check {check} has a body; leave it empty, it is filled in."
        if id_ is None or id_ not in registry:
            continue
        block = _block(cells, number, id_)
        in_blocks.update(index for index, _ in block)
        if after.get("check") == id_:
            yield from _block_problems(cells, [text for _, text in block], cell, registry[id_])
        elif REQUIRE_BLOCKS:
            yield cell.line, f"exercise {id_} has no check; the next cell must be '# %% check=\"{id_}\"'."
    for number, cell in enumerate(cells):
        id_ = cell.markers.get("expected")
        if id_ is None:
            continue
        if id_ not in registry:
            yield cell.line, f"there is no exercise {id_!r} in course_utils.exercises; known: {', '.join(registry)}."
        elif number not in in_blocks or not any(
            index == number for index, _ in _block(cells, _index(cells, "exercise", id_), id_)
        ):
            yield cell.line, f"the expected result of {id_} does not stand between its heading and exercise {id_}."
        if "Expected:" not in cell.source:
            yield cell.line, f'the expected result of {id_} does not contain the word "Expected:".'


def _index(cells: Sequence[Cell], marker: str, value: str) -> int:
    return next((number for number, cell in enumerate(cells) if cell.markers.get(marker) == value), 0)


def _block(cells: Sequence[Cell], exercise: int, id_: str) -> list[tuple[int, str]]:
    """(index, text) of the text cells from the heading of an exercise to its stub; empty if it has no heading."""
    found: list[tuple[int, str]] = []
    for number in range(exercise - 1, -1, -1):
        if cells[number].kind != "markdown":
            return []
        headings = list(HEADING.finditer(cells[number].source))
        if headings:
            own = headings[-1]["id"] == id_
            return [(number, cells[number].source[headings[-1].start() :]), *found] if own else []
        found.insert(0, (number, cells[number].source))
    return []


def _block_problems(cells: Sequence[Cell], block: list[str], cell: Cell, exercise: Exercise) -> Found:
    heading = f"### Exercise {exercise.id}: {exercise.title}"
    if not block:
        yield cell.line, f"exercise {exercise.id} has no heading {heading!r} in the text above it."
        return
    title = HEADING.match(block[0])["title"]
    if title != exercise.title:
        yield cell.line, f"exercise {exercise.id} is called {title!r}; in course_utils.exercises {exercise.title!r}."
    text = "\n\n".join(block)
    if len(PLACEHOLDER.findall(text)) != 1:
        yield cell.line, f"exercise {exercise.id} needs one line {{{{difficulty}}}}, below its heading."
    if sum(one.markers.get("expected") == exercise.id for one in cells) != 1:
        marker = f'# %% [markdown] expected="{exercise.id}"'
        yield cell.line, f"exercise {exercise.id} has no expected result, or more than one; mark one cell {marker!r}."
    hints = [int(number) for number in _HINT.findall(text)]
    if len(hints) < MIN_HINTS or hints != list(range(1, len(hints) + 1)):
        found = ", ".join(map(str, hints)) or "none"
        wanted = f"{MIN_HINTS} hints or more: Hint 1, Hint 2, ..."
        yield cell.line, f"exercise {exercise.id} needs {wanted}; found: {found}."


def check_placeholders(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """`{{difficulty}}` is the only placeholder; it stands below the heading of an exercise, in the same cell."""
    known = {exercise.id for exercise in exercises}
    for cell in cells:
        for match in PLACEHOLDER.finditer(cell.source) if cell.kind == "markdown" else ():
            line = cell.line_of(cell.source.count("\n", 0, match.start()))
            headings = [heading["id"] for heading in HEADING.finditer(cell.source, 0, match.start())]
            if match["name"] != "difficulty":
                yield line, f"unknown placeholder {match[0]!r}; known: {{{{difficulty}}}}."
            elif not headings or headings[-1] not in known:
                yield line, "{{difficulty}} without the heading of a known exercise above it in the same cell."


def check_expected(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """The snippets of expected results run, give something, and their pictures have an alt text."""
    for cell in cells:
        if cell.kind != "markdown":
            continue
        try:
            if "expected" in cell.markers:
                fill_in(cell.source, lambda picture, alt: "")
            elif any(find_snippets(cell.source)):
                yield cell.line, 'a snippet of an expected result in a cell that is not marked expected="...".'
        except ExpectedError as error:
            yield cell.line_of(error.row), str(error)


def check_questions(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """The questions of notebook 03 are called 3a, 3b, ..., each once, and the next cell holds the answer."""
    number = path.stem.split("_")[0].lstrip("0")
    seen = set()
    marks: list[dict[str, str]] = [{}, *(cell.markers for cell in cells), {}]
    for cell, before, after in zip(cells, marks, marks[2:], strict=False):
        question, answer = cell.markers.get("question"), cell.markers.get("answer")
        if question is not None:
            if not re.fullmatch(f"{number}[a-z]", question):
                yield cell.line, f"question {question!r} in notebook {number}; call it {number}a, {number}b, ..."
            if question in seen:
                yield cell.line, f"question {question} is used twice."
            seen.add(question)
            if after.get("answer") != question:
                marker = f'# %% [markdown] answer="{question}"'
                yield cell.line, f"question {question} has no answer; the next cell must be {marker!r}."
        if answer is not None and before.get("question") != answer:
            yield cell.line, f"answer {answer} does not stand right after question {answer}."


def check_code(cells: Sequence[Cell], path: Path, exercises: Sequence[Exercise]) -> Found:
    """Code cells are plain Python, not empty, not longer than 25 lines, and import no `*`."""
    for cell in cells:
        if cell.kind != "code" or {"exercise", "check"} & set(cell.markers):
            continue
        if not cell.source:
            yield cell.line, "an empty code cell."
            continue
        rows = cell.source.split("\n")
        if len(rows) > MAX_CODE_LINES:
            yield cell.line, f"a code cell of {len(rows)} lines, {MAX_CODE_LINES} are allowed; split it."
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
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                yield cell.line_of(node.lineno - 1), f"'from {node.module} import *' hides the names; list them."
            if isinstance(node, ast.Call) and (reason := _figure_without_text(node)):
                yield cell.line_of(node.lineno - 1), reason


def _figure_without_text(call: ast.Call) -> str:
    """What is wrong with a call that shows a figure: every figure has a caption, which is its alternative text."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr != "show" or not isinstance(function.value, ast.Name):
        return ""
    if function.value.id == "plt":
        return "plt.show() shows a figure without alt text; use plotting.show(figure, caption)."
    if function.value.id != "plotting":
        return ""
    captions = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "caption")]
    if not captions or (isinstance(captions[0], ast.Constant) and not str(captions[0].value).strip()):
        return "a figure without alt text; say in the caption of plotting.show what it shows."
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
    if not tagged:
        yield 0, f"no parameters cell; add '# %% tags=[\"parameters\"]' that sets {', '.join(PARAMETERS)}."
    yield from ((cell.line, "a second parameters cell; one is enough.") for cell in tagged[1:])
    for cell in tagged[:1]:
        before = code[: code.index(cell)]
        # Imports, and calls without a result such as the choice of a plot style.
        set_up = all(
            isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for other in before for node in _statements(other)
        )
        if not set_up or any(other.markers for other in before):
            yield cell.line, "the parameters cell must be the first code cell, or come right after the imports."
        names = []
        for node in _statements(cell):
            target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
            names.append(target.id if isinstance(target, ast.Name) else "something else")
            if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Constant):
                yield cell.line_of(node.lineno - 1), "a parameter must be a plain text or number."
        if sorted(names) != sorted(PARAMETERS):
            yield cell.line, f"the parameters cell must set {', '.join(PARAMETERS)}, but sets {', '.join(names)}."


def _statements(cell: Cell) -> list[ast.stmt]:
    try:
        return ast.parse(cell.source).body
    except (SyntaxError, ValueError):  # reported by check_code
        return []


# Code and formulas in a text: what looks like a link or a tag in them is none.
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
    """Text cells are not empty, their folds are closed, images have an alt text, what a link points at is there."""
    texts = [(cell, _NOT_PROSE.sub(_blank, cell.source)) for cell in cells if cell.kind == "markdown"]
    anchors = {_anchor(title) for cell, _ in texts for title in re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE)}
    for cell, text in texts:
        if not cell.source:
            yield cell.line, "an empty text cell."
        found: list[tuple[int, str]] = []  # position in the text, reason
        open_folds: list[int] = []
        for match in _DETAILS.finditer(text):
            if not match[1]:
                open_folds.append(match.start())
            elif open_folds:
                open_folds.pop()
            else:
                found.append((match.start(), "</details> without <details> in the same cell."))
        found += [(start, "<details> without </details> in the same cell.") for start in open_folds]
        for match in _SUMMARY_END.finditer(text):
            found.append((match.start(), "no blank line after </summary>; without it the text below is not rendered."))
        for match in _IMAGE.finditer(text):
            described = _ALT.search(match["attributes"]) if match["alt"] is None else match["alt"].strip()
            if not described:
                found.append((match.start(), "an image without alt text; say in it what the picture shows."))
        for match in _TARGET.finditer(text):
            target = match[1] or match[2] or match[3] or ""
            if target.startswith("#"):
                if _anchor(unquote(target[1:])) not in anchors:
                    found.append((match.start(), f"a link to {target}, but no heading of this notebook is called so."))
            elif not re.match(r"https?:|mailto:|data:", target) and not _is_there(path.parent, target):
                found.append((match.start(), f"a link to {target!r}, but the repository has no such file there."))
        yield from ((cell.line_of(text.count("\n", 0, position)), reason) for position, reason in found)


def _blank(match: re.Match) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _anchor(title: str) -> str:
    """What Jupyter calls a heading in links: spaces become hyphens. Emphasis and upper case are not compared."""
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

# What a cell finds without defining it: builtins, what IPython adds, and what Python sets in modules and class bodies.
_GIVEN = {*dir(builtins), "display", "get_ipython", "_", "__name__", "__module__", "__qualname__"}
_COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}


def check_names(cells: Sequence[Cell]) -> Found:
    """Names that are used but defined nowhere, or only after the statement that needs them.

    The statements are gone through in the order of "Run all". The body of a function runs later, so the names in it may
    be defined in any cell. All cells must parse. What Python resolves when it compiles (scopes of functions, classes,
    comprehensions, `global`) is taken from Python's own symbol table.
    """
    defined = set(_GIVEN)
    wanted_later: list[tuple[str, Cell, int, str]] = []
    for cell in cells:
        if cell.kind != "code":
            continue
        for code, row, nodes in _chunks(cell.source):
            uses = set(_uses(symtable.symtable(code, "cell", "exec")))
            bound = {name for name, use in uses if use == "bound"}
            ready = defined | bound  # a loop or a function may use what it defines itself ...
            if len(nodes) == 1 and isinstance(nodes[0], ast.Assign | ast.AugAssign | ast.AnnAssign):
                # ... but x = x + 1 and x += 1 need an earlier x.
                ready = defined | {node.target.id for node in ast.walk(nodes[0]) if isinstance(node, ast.NamedExpr)}
                if isinstance(nodes[0], ast.AugAssign) and isinstance(nodes[0].target, ast.Name):
                    uses.add((nodes[0].target.id, "now"))
                if isinstance(nodes[0], ast.AnnAssign) and nodes[0].value is None:  # x: int, without a value
                    bound.clear()
            for name in sorted({name for name, use in uses if use == "now"} - ready):
                line = cell.line_of(row + _row_of(name, code))
                yield line, f"{name} is used but not defined before{_origin(cell)}; define or import it above."
            later = {name for name, use in uses if use == "later" and (name, "now") not in uses}
            wanted_later += [(name, cell, row, code) for name in sorted(later)]
            defined |= bound
    for name, cell, row, code in wanted_later:
        if name not in defined:
            line = cell.line_of(row + _row_of(name, code))
            yield line, f"{name} is used but never defined{_origin(cell)}; define or import it."


def _origin(cell: Cell) -> str:
    return f" (in the solution of exercise {cell.markers['exercise']})" if "exercise" in cell.markers else ""


def _chunks(source: str) -> Iterator[tuple[str, int, list[ast.stmt]]]:
    """The top-level statements: text, first row, nodes; statements that share a line stay together."""
    rows = source.split("\n")
    chunks: list[tuple[int, int, list[ast.stmt]]] = []
    for node in ast.parse(source).body:
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        nodes = [node]
        if chunks and start < chunks[-1][1]:
            start, _, before = chunks.pop()
            nodes = [*before, node]
        chunks.append((start, node.end_lineno, nodes))
    return (("\n".join(rows[start:end]), start, nodes) for start, end, nodes in chunks)


def _uses(table: symtable.SymbolTable, later: bool = False) -> Iterator[tuple[str, str]]:
    """(name, "bound") or (name, "now" or "later") for the names of the module; later is when a function is called."""
    for symbol in table.get_symbols():
        # In a function called `top` Python's symbol table calls everything global, hence the second condition.
        if table.get_type() == "module" or (symbol.is_global() and not symbol.is_parameter()):
            if symbol.is_referenced():
                yield symbol.get_name(), "later" if later else "now"
            if symbol.is_assigned() or symbol.is_imported():
                yield symbol.get_name(), "bound"
    for child in table.get_children():
        is_body = child.get_type() == "function" and child.get_name() not in _COMPREHENSIONS
        yield from _uses(child, later or is_body)


def _row_of(name: str, code: str) -> int:
    rows = (node.lineno - 1 for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and node.id == name)
    return min(rows, default=0)
