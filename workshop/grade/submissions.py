"""What stands in a submitted notebook: which one it is, where its exercises are, and what their cells need to run.

Nothing is executed here; everything is read from the notebook's text with `ast` and `symtable`. To define one exercise
only few statements of a notebook are needed: its own, and those that define the names these use (imports, helper
functions, constants). Loading data, training and figures are left alone.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import json
import re
import symtable
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_utils.exercises import list_exercises
from course_utils.exercises.registry import Exercise
from workshop.grade.table import GradingError

# Their first line says how the rest of the cell is run, and the rest is Python. Below any other `%%` it is not.
_PYTHON_MAGIC = re.compile(r"\A(\s*)%%(time|timeit|capture|prun)\b.*")
_NAMES_GIVEN = frozenset(dir(builtins)) | {"__name__", "display", "get_ipython"}
_COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class BrokenNotebook(ValueError):
    """A file that cannot be graded; the text says why, in one sentence."""


@dataclass(frozen=True, eq=False)
class Statement:
    """One statement at the top level of a cell, and the global names that it uses and defines."""

    cell: int
    node: ast.stmt
    uses: frozenset[str]
    binds: frozenset[str]

    @property
    def place(self) -> str:
        return f"cell {self.cell}, line {self.node.lineno}"


@dataclass(frozen=True, eq=False)
class CodeCell:
    """One code cell. `number` counts all cells of the notebook from 1; `error` is set if the text does not parse."""

    number: int
    source: str
    exercise: str | None = None  # by metadata or cell id
    statements: tuple[Statement, ...] = ()
    checks: frozenset[str] = frozenset()  # exercise ids of the calls check("1.1", ...) in it
    error: str = ""

    def defines(self, name: str) -> bool:
        """Whether a function or class of this name is defined here (for a cell that does not parse: seems to be)."""
        if self.error:
            return bool(re.search(rf"^(async +)?(def|class) +{name}\b", self.source, re.MULTILINE))
        return any(name in _defined(statement.node) for statement in self.statements)

    def binds(self, name: str) -> bool:
        """Whether the name gets a value here in any way: also by an assignment or an import."""
        return any(name in statement.binds for statement in self.statements)


@dataclass(frozen=True)
class Submission:
    """A submitted notebook: its name in the course, and its code cells."""

    notebook: str
    cells: tuple[CodeCell, ...] = field(repr=False)

    @property
    def future_flags(self) -> int:
        """What `from __future__ import ...` switches on; in a notebook it holds for all cells."""
        names = [
            alias.name
            for cell in self.cells
            for statement in cell.statements
            if isinstance(statement.node, ast.ImportFrom) and statement.node.module == "__future__"
            for alias in statement.node.names
        ]
        return _COMPILE_FLAGS | sum({getattr(__future__, name).compiler_flag for name in names})


# The files of a folder


@dataclass(frozen=True, order=True)
class HandedIn:
    """A submitted notebook. `student` is the folder it lies in, or its own name without that of the notebook."""

    student: str
    path: Path
    file: str  # path inside the submissions' folder

    def helpers(self) -> list[Path]:
        """Python files beside the notebook, if its folder belongs to one student: the notebook may import them."""
        if "/" not in self.file:
            return []
        return [path for path in sorted(self.path.parent.glob("*.py")) if path.is_file() and not path.is_symlink()]


def find_submissions(folder: Path) -> list[HandedIn]:
    """The notebooks below a folder, hidden ones and copies of Jupyter's left out.

    Raises:
        GradingError: there is no such folder, or no notebook in it.
    """
    if folder.is_file():
        return [HandedIn(_student_of(folder.name), folder.absolute(), folder.name)]
    if not folder.is_dir():
        raise GradingError(f"There is no folder {folder}; give the one that the submitted notebooks lie in.")
    found = []
    for path in folder.rglob("*.ipynb"):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts) or path.is_dir():
            continue
        student = parts[0] if len(parts) > 1 else _student_of(parts[0])
        found.append(HandedIn(student, path.absolute(), "/".join(parts)))
    if not found:
        raise GradingError(f"There is no notebook (.ipynb) in {folder}; unpack the submissions first.")
    return sorted(found)


def _student_of(file_name: str) -> str:
    """The file's name without that of the notebook: `01_data_exploration_kim.ipynb` is Kim's."""
    stem = Path(file_name).stem
    for notebook in {exercise.notebook for exercise in list_exercises()}:
        rest = stem.replace(notebook, " ").strip(" _-.")
        if notebook in stem and rest:
            return re.sub(r"[ _-]{2,}", "_", rest)
    return stem


# From file to cells


def read_submission(content: bytes, file_name: str, exercises: Sequence[Exercise]) -> Submission:
    """Read a notebook that somebody handed in.

    Args:
        content: of the file.
        file_name: without folder; used only if nothing inside says which notebook it is.
        exercises: of the whole course.

    Raises:
        BrokenNotebook: it is no notebook, has no code, or is none of the course.
    """
    cells = [_code_cell(*raw, exercises) for raw in _raw_cells(content)]
    if not any(cell.source.strip() for cell in cells):
        raise BrokenNotebook("The notebook has no code cells.")
    return Submission(_identify(cells, file_name, exercises), tuple(cells))


def _raw_cells(content: bytes) -> Iterator[tuple[int, str, dict, str]]:
    """Number, text, course metadata and id of every code cell.

    Read without `nbformat`, which takes longer to import than everything here to run; faults that do not matter for
    grading (a missing id, an output in an odd form) are not looked at.
    """
    if not content.strip():
        raise BrokenNotebook("The file is empty.")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        version = notebook["nbformat"]
        parts = [notebook] if version == 4 else notebook["worksheets"] if version == 3 else []
        cells = [cell for part in parts for cell in part["cells"]]
        code = [(number, cell) for number, cell in enumerate(cells, 1) if cell["cell_type"] == "code"]
    except UnicodeDecodeError as error:
        raise BrokenNotebook(f"The file is not UTF-8 text: {error}.") from None
    except (json.JSONDecodeError, RecursionError):
        raise BrokenNotebook("The file is not JSON, so it is no notebook, or it was cut off.") from None
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BrokenNotebook(f"The file is JSON, but not a Jupyter notebook ({reason}).") from None
    if version not in (3, 4):
        raise BrokenNotebook(f"The file is not a Jupyter notebook of format 3 or 4: found format {version!r}.")
    for number, cell in code:
        text = cell.get("source", cell.get("input", ""))
        metadata = cell.get("metadata")
        course = metadata.get("course") if isinstance(metadata, dict) else None
        text = "".join(map(str, text)) if isinstance(text, list) else str(text)
        yield number, text, course if isinstance(course, dict) else {}, str(cell.get("id", ""))


def _code_cell(number: int, source: str, course: dict, cell_id: str, exercises: Sequence[Exercise]) -> CodeCell:
    known = {exercise.id for exercise in exercises}
    marked = course.get("exercise")
    if not isinstance(marked, str) or marked not in known:
        match = re.fullmatch(r"exercise-(\d+)-(\d+)(-\d+)?", cell_id)
        marked = f"{match[1]}.{match[2]}" if match and f"{match[1]}.{match[2]}" in known else None
    try:
        body = _parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        row = getattr(error, "lineno", None) or 0
        text = source.splitlines()[row - 1].strip() if 0 < row <= len(source.splitlines()) else ""
        what = getattr(error, "msg", None) or str(error) or type(error).__name__
        where = f" in line {row}: {text}" if text else ""
        return CodeCell(number, source, marked, error=f"Syntax: cell {number} is not valid Python ({what}){where}")
    calls = {id_: node for node in body for id_ in _checked(node)}
    nodes = [single for node in body if not any(_checked(node)) for single in _split_import(node)]
    statements = tuple(Statement(number, node, *_names(node)) for node in nodes)
    return CodeCell(number, source, marked, statements, frozenset(calls))


def _parse(source: str) -> ast.Module:
    """The syntax tree of a cell, in which lines for IPython (`%matplotlib inline`, `!ls`) count as calls."""
    try:
        return _checked_tree(source)
    except SyntaxError:
        if _PYTHON_MAGIC.match(source):
            return _parse(_PYTHON_MAGIC.sub(r"\1", source))  # the empty line keeps the numbers of the others
        if source.lstrip().startswith("%%"):
            return ast.Module([], [])
        if not re.search(r"^[^#\n]*[%!?]", source, re.MULTILINE):
            raise
        from IPython.core.inputtransformer2 import TransformerManager

        plain = TransformerManager().transform_cell(source)
        if plain == source:
            raise
        return _checked_tree(plain)


def _checked_tree(source: str) -> ast.Module:
    compile(source, "cell", "exec", _COMPILE_FLAGS, dont_inherit=True)  # finds more than the parser, as stray returns
    return ast.parse(source)


def _split_import(node: ast.stmt) -> list[ast.stmt]:
    """One statement for each imported name, so that one that is missing does not cost the others."""
    if isinstance(node, ast.Import):
        return [ast.copy_location(ast.Import([alias]), node) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [ast.copy_location(ast.ImportFrom(node.module, [alias], node.level), node) for alias in node.names]
    return [node]


def _checked(node: ast.stmt) -> Iterator[str]:
    """The exercise ids of the calls `check("1.1", ...)` in a statement that is nothing but such a call."""
    value = getattr(node, "value", None) if isinstance(node, ast.Expr | ast.Assign) else None
    if isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Constant):
        if getattr(value.func, "id", getattr(value.func, "attr", "")) == "check":
            yield str(value.args[0].value)


def _defined(node: ast.stmt) -> set[str]:
    """The functions and classes that a statement defines.

    Also under `if`, `try` or `with`, as `name = lambda ...`, and as the result of a call such as `partial(...)`, but
    not of the course's `check(...)`.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda | ast.Call) and not list(_checked(node)):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    inner = [statement for field in ("body", "orelse", "finalbody") for statement in getattr(node, field, [])]
    inner += [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
    return set().union(*map(_defined, inner))


def _names(node: ast.stmt) -> tuple[frozenset[str], frozenset[str]]:
    """The global names that a statement uses (also in functions, when they are called) and those that it defines."""
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        return frozenset(), frozenset({"*"})
    try:
        table = symtable.symtable(ast.unparse(node), "cell", "exec")
    except SyntaxError:  # await outside a function
        return frozenset(), frozenset()
    symbols = table.get_symbols()
    binds = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    uses = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    inner = table.get_children()
    while inner:
        scope = inner.pop()
        inner += scope.get_children()
        uses |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
    # `UNet.depth = 4` and `table["a"] = 1` complete an object: they belong to what defines it.
    for target in getattr(node, "targets", [getattr(node, "target", None)]):
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
            if isinstance(target, ast.Name):
                binds.add(target.id)
    return frozenset(uses - _NAMES_GIVEN), frozenset(binds)


def _identify(cells: Sequence[CodeCell], file_name: str, exercises: Sequence[Exercise]) -> str:
    """The notebook whose exercises stand in it: by their marks, else by file name, else by what is defined."""
    notebook_of = {exercise.id: exercise.notebook for exercise in exercises}
    for marks in (
        [cell.exercise for cell in cells],
        [id_ for cell in cells for id_ in cell.checks],
        [exercise.id for exercise in exercises if exercise.notebook in Path(file_name).stem],
        [exercise.id for exercise in exercises if any(cell.defines(exercise.name) for cell in cells)],
    ):
        votes = Counter(notebook_of[id_] for id_ in marks if id_ in notebook_of)
        if votes:
            return votes.most_common(1)[0][0]
    raise BrokenNotebook("The notebook is none of this course: it has no exercise of it, and neither does its name.")


# What belongs to an exercise


def candidates(submission: Submission, exercise: Exercise) -> list[CodeCell]:
    """The cells that may hold the solution of an exercise, the one that counts first.

    What counts is what "Run all" hands to the check: the last definition above the check cell. Those below come after,
    for a stub that was left and solved further down. Without a check cell marked cells count first, then the last one
    that defines the name. A marked cell that does not define the name comes last; it explains what is missing.
    """
    marked = [cell for cell in submission.cells if cell.exercise == exercise.id]
    holding = [
        cell
        for cell in submission.cells
        if cell.defines(exercise.name) or (cell in marked and (cell.binds(exercise.name) or cell.error))
    ]
    checked = [cell.number for cell in submission.cells if exercise.id in cell.checks]

    def preferred(cell: CodeCell) -> tuple[bool, int]:
        first = cell.number <= max(checked) if checked else cell in marked
        return first, cell.number

    others = [cell for cell in reversed(marked) if cell not in holding]
    return sorted(holding, key=preferred, reverse=True) + others


def needed(
    submission: Submission, cell: CodeCell, exercise: Exercise, exercises: Sequence[Exercise]
) -> list[Statement]:
    """The statements that define an exercise's object in one cell, and all that these need, in the order to run them.

    The objects of the notebook's exercises are left out: the one who executes the statements provides them. A name is
    taken from above the cell, or if it is not defined there, from below. The statements of the cell itself come last:
    its annotations and defaults may need what stands below.
    """
    own = {other.name for other in exercises if other.notebook == exercise.notebook}
    every = [statement for one in submission.cells for statement in one.statements]
    above = [statement for statement in every if statement.cell <= cell.number]
    chosen = [statement for statement in cell.statements if exercise.name in statement.binds]
    chosen += [statement for statement in above if "*" in statement.binds]
    queue, seen = list(chosen), set(own)
    while queue:
        for name in queue.pop().uses - seen:
            seen.add(name)
            found = [s for s in above if name in s.binds] or [s for s in every if name in s.binds]
            new = [statement for statement in found if statement not in chosen]
            chosen += new
            queue += new
    chosen.sort(key=lambda statement: (statement.cell == cell.number, every.index(statement)))
    return chosen


def explain_missing(cell: CodeCell, exercise: Exercise) -> tuple[str, str]:
    """Status and message for a marked cell that does not define the exercise's object."""
    if not cell.statements:
        return "todo", f"Missing: the cell of exercise {exercise.id} is empty."
    found: list[Any] = sorted({name for statement in cell.statements for name in _defined(statement.node)})
    names = ", ".join(found) or "no function and no class"
    return "failed", f"Name: cell {cell.number} defines {names}, expected {exercise.name}."
