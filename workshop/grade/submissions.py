"""What was handed in: the notebooks of a folder, and in each its exercises and what their cells need to run.

Nothing is executed here; everything is read from the notebook's text with `ast` and `symtable`. To define one exercise
only few statements of a notebook are needed: its own, and those that define the names these use (imports, helper
functions, constants). Loading data, training and figures are left alone.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import contextlib
import json
import re
import symtable
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from course_utils.exercises.registry import Exercise, list_exercises

# Their first line says how the rest of the cell is run, and the rest is Python. Below any other `%%` it is not.
_PYTHON_MAGIC = re.compile(r"\A(\s*)%%(time|timeit|capture|prun)\b.*")
_NAMES_GIVEN = frozenset(dir(builtins)) | {"__name__", "display", "get_ipython"}
_COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class BrokenNotebook(ValueError):
    """A file that cannot be graded; the text says why, in one sentence."""


# The files of a folder


@dataclass(frozen=True, order=True)
class SubmittedFile:
    """A submitted notebook. `student` is the folder it lies in, or its file name without that of the notebook."""

    student: str
    path: Path
    file: str  # path inside the folder of submissions

    def modules(self) -> list[Path]:
        """Python files beside the notebook, if its folder belongs to one student: the notebook may import them."""
        if "/" not in self.file:
            return []
        return [path for path in sorted(self.path.parent.glob("*.py")) if path.is_file() and not path.is_symlink()]


def find_submissions(folder: Path) -> list[SubmittedFile]:
    """The notebooks below a folder, without hidden ones and Jupyter's copies; or the one notebook that is given."""
    if folder.is_file():
        return [SubmittedFile(_student_of(folder.name), folder.absolute(), folder.name)]
    found = []
    for path in folder.rglob("*.ipynb"):
        parts = path.relative_to(folder).parts
        if not any(part.startswith((".", "__MACOSX")) for part in parts) and not path.is_dir():
            student = parts[0] if len(parts) > 1 else _student_of(parts[0])
            found.append(SubmittedFile(student, path.absolute(), "/".join(parts)))
    return sorted(found)


def _student_of(file_name: str) -> str:
    """The file's name without that of the notebook: `01_data_exploration_kim.ipynb` is Kim's."""
    stem = Path(file_name).stem
    rest = re.sub("|".join({exercise.notebook for exercise in list_exercises()}), " ", stem).strip(" _-.")
    return re.sub(r"[ _-]{2,}", "_", rest) or stem


# From file to cells


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

    @property
    def defines(self) -> set[str]:
        """The functions and classes that are defined here (for a cell that does not parse: that seem to be)."""
        if self.error:
            return set(re.findall(r"^(?:async +)?(?:def|class) +(\w+)", self.source, re.MULTILINE))
        return set().union(*(_defined(statement.node) for statement in self.statements))

    @property
    def binds(self) -> set[str]:
        """The names that get a value here in any way: also by an assignment or an import."""
        return set().union(*(statement.binds for statement in self.statements))


@dataclass(frozen=True)
class Submission:
    """A submitted notebook: its name in the course, and its code cells."""

    notebook: str
    cells: tuple[CodeCell, ...]

    @property
    def statements(self) -> list[Statement]:
        return [statement for cell in self.cells for statement in cell.statements]

    @property
    def future_flags(self) -> int:
        """What `from __future__ import ...` switches on; in a notebook it holds for all cells."""
        imports = [one.node for one in self.statements if getattr(one.node, "module", None) == "__future__"]
        features = {getattr(__future__, alias.name) for node in imports for alias in node.names}
        return _COMPILE_FLAGS | sum(feature.compiler_flag for feature in features)


def read_submission(content: bytes, file_name: str) -> Submission:
    """Read a notebook that somebody handed in. Its file name counts only if nothing inside says which one it is.

    Raises:
        BrokenNotebook: it is not a notebook, has no code, or does not belong to the course.
    """
    cells = [_code_cell(*raw) for raw in _raw_cells(content)]
    if not any(cell.source.strip() for cell in cells):
        raise BrokenNotebook("The notebook has no code cells.")
    return Submission(_identify(cells, file_name), tuple(cells))


def _raw_cells(content: bytes) -> Iterator[tuple[int, str, str | None]]:
    """Number, text and exercise of every code cell.

    Read without `nbformat`, which takes longer to import than everything here to run; faults that do not matter for
    grading (a missing id, an output in an odd form) are ignored.
    """
    if not content.strip():
        raise BrokenNotebook("The file is empty.")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        parts = [notebook] if notebook["nbformat"] == 4 else notebook["worksheets"]  # as in format 3
        cells = [cell for part in parts for cell in part["cells"]]
        code = [(number, cell) for number, cell in enumerate(cells, 1) if cell["cell_type"] == "code"]
    except (ValueError, RecursionError) as error:
        raise BrokenNotebook(f"The file is not JSON, so it is not a notebook, or it was cut off ({error}).") from None
    except (TypeError, LookupError, AttributeError) as error:
        raise BrokenNotebook(f"The file is JSON, but not a Jupyter notebook of format 3 or 4 ({error!r}).") from None
    for number, cell in code:
        text = cell.get("source", cell.get("input", ""))
        yield number, "".join(map(str, text)) if isinstance(text, list) else str(text), _marked_exercise(cell)


def _marked_exercise(cell: dict[str, Any]) -> str | None:
    """The exercise that a cell holds by its metadata, or by its id."""
    marks = [re.sub(r"exercise-(\d+)-(\d+)(-\d+)?", r"\1.\2", str(cell.get("id")))]
    with contextlib.suppress(KeyError, TypeError):
        marks.insert(0, cell["metadata"]["course"]["exercise"])
    known = [exercise.id for exercise in list_exercises()]
    return next((mark for mark in marks if mark in known), None)


def _code_cell(number: int, source: str, marked: str | None) -> CodeCell:
    try:
        body = _parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what, row = getattr(error, "msg", None) or type(error).__name__, getattr(error, "lineno", None) or 0
        where = "".join(f" in line {row}: {line.strip()}" for line in source.splitlines()[row - 1 : row])
        return CodeCell(number, source, marked, error=f"Syntax: cell {number} is not valid Python ({what}){where}")
    checks = frozenset(id_ for node in body if (id_ := _checked_exercise(node)))
    nodes = [single for node in body if not _checked_exercise(node) for single in _split_import(node)]
    return CodeCell(number, source, marked, tuple(Statement(number, node, *_names(node)) for node in nodes), checks)


def _parse(source: str) -> ast.Module:
    """The syntax tree of a cell, in which lines for IPython (`%matplotlib inline`, `!ls`) count as calls."""
    if _PYTHON_MAGIC.match(source):
        return _parse(_PYTHON_MAGIC.sub(r"\1", source))  # the empty line keeps the numbers of the others
    if source.lstrip().startswith("%%"):
        return ast.Module([], [])
    try:
        tree = ast.parse(source)
    except SyntaxError:
        tree = ast.parse(TransformerManager().transform_cell(source))
    compile(tree, "cell", "exec", _COMPILE_FLAGS, dont_inherit=True)  # finds more than the parser, as stray returns
    return tree


def _split_import(node: ast.stmt) -> list[ast.stmt]:
    """One statement for each imported name, so that a missing one does not affect the others."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return [node]
    fields = dict(ast.iter_fields(node))
    return [ast.copy_location(type(node)(**fields | {"names": [alias]}), node) for alias in node.names]


def _checked_exercise(node: ast.stmt) -> str | None:
    """The exercise id of a statement that is nothing but the call `check("1.1", ...)`."""
    match getattr(node, "value", None):
        case ast.Call(func=ast.Name("check") | ast.Attribute(attr="check"), args=[ast.Constant(id_), *_]):
            return str(id_)
    return None


def _defined(node: ast.AST) -> set[str]:
    """The functions and classes that a statement defines.

    Also under `if`, `try` or `with`, as `name = lambda ...`, and as the result of a call such as `partial(...)`, but
    not of the course's `check(...)`.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda | ast.Call) and not _checked_exercise(node):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]
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


def _identify(cells: list[CodeCell], file_name: str) -> str:
    """The notebook whose exercises stand in it: by their marks, else by file name, else by what is defined."""
    exercises = list_exercises()
    notebook_of = {exercise.id: exercise.notebook for exercise in exercises}
    for marks in (
        [cell.exercise for cell in cells],
        [id_ for cell in cells for id_ in cell.checks],
        [exercise.id for exercise in exercises if exercise.notebook in Path(file_name).stem],
        [exercise.id for exercise in exercises if any(exercise.name in cell.defines for cell in cells)],
    ):
        votes = Counter(notebook_of[id_] for id_ in marks if id_ in notebook_of)
        if votes:
            return votes.most_common(1)[0][0]
    raise BrokenNotebook("The notebook is not part of this course: neither its cells nor its name belong to it.")


# What belongs to an exercise


def candidates(submission: Submission, exercise: Exercise) -> list[CodeCell]:
    """The cells that may hold the solution of an exercise, the one that counts first.

    What counts is what "Run all" hands to the check: the last definition above the check cell. Those below come after,
    for a stub that was left and solved further down. Without a check cell marked cells count first, then the last one
    that defines the name. A marked cell that does not define the name comes last; it explains what is missing.
    """
    marked = [cell for cell in submission.cells if cell.exercise == exercise.id]
    holding = [cell for cell in submission.cells if exercise.name in cell.defines]
    holding += [cell for cell in marked if cell not in holding and (cell.error or exercise.name in cell.binds)]
    last_check = max((cell.number for cell in submission.cells if exercise.id in cell.checks), default=None)

    def preferred(cell: CodeCell) -> tuple[bool, int]:
        return cell in marked if last_check is None else cell.number <= last_check, cell.number

    others = [cell for cell in reversed(marked) if cell not in holding]
    return sorted(holding, key=preferred, reverse=True) + others


def needed_statements(submission: Submission, cell: CodeCell, exercise: Exercise) -> list[Statement]:
    """The statements that define an exercise's object in one cell, and all that these need, in the order to run them.

    The objects of the notebook's exercises are left out: whoever executes the statements provides them. A name is
    taken from above the cell, or if it is not defined there, from below. The statements of the cell itself come last:
    its annotations and defaults may need what stands below.
    """
    every = submission.statements
    above = [statement for statement in every if statement.cell <= cell.number]
    chosen = [statement for statement in cell.statements if exercise.name in statement.binds]
    chosen += [statement for statement in above if "*" in statement.binds]
    seen = {other.name for other in list_exercises() if other.notebook == exercise.notebook}
    queue = list(chosen)
    while queue:
        for name in queue.pop().uses - seen:
            seen.add(name)
            found = [s for s in above if name in s.binds] or [s for s in every if name in s.binds]
            new = [statement for statement in found if statement not in chosen]
            chosen += new
            queue += new
    return sorted(chosen, key=lambda statement: (statement.cell == cell.number, every.index(statement)))
