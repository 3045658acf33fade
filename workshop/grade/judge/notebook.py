"""What was handed in, as text: the code cells of a notebook, which notebook it is, and which cells have to run.

Nothing is executed here. A grade needs what "Run all" computes up to the last check: the students' cells as they are,
and of the course's own cells, which load data, train and draw, those that bind a name that is used.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from course_utils.exercises.registry import Exercise, list_exercises
from course_utils.exercises.sandbox import CheckTimeout, time_limit
from workshop.grade.collect.notebook_file import CHECK, BrokenNotebook, Cell, course_cells, read_cells
from workshop.grade.judge.names import WORD, Names, bound_by, names_of

MAX_CODE = 500_000  # characters, besides the package in stand-alone notebooks
READING_SECONDS = 60
COURSE_SECONDS = 10  # times as many for a cell of the course: it may train a network
PARAMETERS = {"data_source": "embedded", "profile": "smoke", "output": "output"}  # in the folder where cells run

# Their first line says how the rest of the cell is run, and the rest is Python. Below any other `%%` it is not.
_PYTHON_MAGIC = re.compile(r"\A(\s*)%%(time|timeit|capture|prun)\b.*")
_OTHER_NAME_FOR_CHECK = re.compile(r"\b(check|evaluate) +as\b|= *(\w+\.)*(check|evaluate)\b(?! *\()|\bevaluate\b")
_LOOKS_UP = re.compile(r"\b(globals|locals|vars|eval|exec|__main__|__globals__|user_ns|modules)\b")
_OUTPUT = re.compile(r"_{1,3}|_i{0,3}|_i?\d+|_[dio]h|In|Out")  # names of earlier outputs and cells
# Of the stand-alone version (`workshop.build.stand_alone`): the course is there already, and so are its images.
_PACKAGE = re.compile(
    r'^PACKAGE = \(\n(?: *"[^\n]*"\n)*\)$|^folder = tempfile.mkdtemp.*|^.*b85decode\(PACKAGE\).*|^sys\.path\.insert.*',
    re.MULTILINE,
)


@dataclass(frozen=True, eq=False)
class CodeCell:
    """One code cell.

    `number` counts all cells of the notebook from 1, `exercise` is its mark, `course` says that
    it is a cell of the course that nobody changed, and `error`, with the number and the line, that it is not Python.
    `checks` are the ids in calls such as `check("1.1", ...)`, `defines` the functions and classes, `binds` all names
    that get a value or are completed (`table["a"] = 1`), `uses` the global names that it reads, `later` those that its
    functions read when they are called, and `state` those that they bind or complete.
    """

    number: int
    source: str
    exercise: str | None = None
    course: bool = False
    error: str = ""
    checks: frozenset[str] = frozenset()
    defines: frozenset[str] = frozenset()
    binds: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()
    state: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Notebook:
    """A submitted notebook: its name in the course, and its code cells."""

    name: str
    cells: tuple[CodeCell, ...]

    @property
    def exercises(self) -> list[Exercise]:
        """Those of this notebook of the course, and others with both answer and check here."""
        every = list_exercises()
        others = {one.id for one in every if self.last_check(one) and self.holding(one)}
        return [one for one in every if one.notebook == self.name or one.id in others]

    def holding(self, exercise: Exercise) -> list[CodeCell]:
        """The cells that define the object of an exercise, or are marked as its cell."""
        return [cell for cell in self.cells if exercise.name in cell.defines or cell.exercise == exercise.id]

    def last_check(self, exercise: Exercise) -> int | None:
        """The number of the last cell with a check of this exercise."""
        return max((cell.number for cell in self.cells if exercise.id in cell.checks), default=None)

    def to_run(self, seconds: float, whole: bool = False) -> list[dict[str, Any]]:
        """The cells to run, in order: "number", "source" and the "seconds" that each may compute.

        A cell of the course has another source if only some of its imports are used. Behind the cell with the
        parameters stands another one, as papermill inserts it.

        Args:
            seconds: for a student's cell.
            whole: run all cells of the course, too: for code that finds names in ways that no reading of it tells.
        """
        cells = self.cells[: self._end()]
        # Cells of the course call students' functions, which may note that, and have outputs.
        own = [cell for cell in cells if not cell.course]
        whole = whole or any(cell.state - _modules_of_course() for cell in own)
        whole = whole or any(map(_OUTPUT.fullmatch, set().union(*(cell.uses | cell.later for cell in own))))
        sources = {cell: cell.source for cell in cells if not _is_data(cell.source)} if whole else _needed(cells)
        run = []
        for cell in cells:
            if source := sources.get(cell):
                run.append({"number": cell.number, "source": source, "seconds": seconds})
                if cell.course and not cell.checks:
                    run[-1]["seconds"] = COURSE_SECONDS * seconds
                if len(cell.binds & PARAMETERS.keys()) > 1:
                    values = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())
                    run.append({"number": cell.number, "source": values, "seconds": seconds})
        return run

    @property
    def left_out(self) -> set[str]:
        """The names that cells of the course bind which do not run; none if no code may look names up by a text."""
        cells = self.cells[: self._end()]
        if not any(_LOOKS_UP.search(cell.source) for cell in cells if not cell.course):
            return set()
        sources = _needed(cells)
        bound = set().union(*(_code_cell(0, source, None).binds for source in sources.values()))
        return set().union(*(cell.binds for cell in cells if cell.course)) - bound

    def _end(self) -> int:
        """How many cells can matter: those up to the last check, if every exercise in the notebook has one."""
        present = {exercise.id for exercise in self.exercises if self.holding(exercise)}
        checked = frozenset().union(*(cell.checks for cell in self.cells))
        if present - checked or any(_OTHER_NAME_FOR_CHECK.search(cell.source) for cell in self.cells):
            return len(self.cells)
        places = [place for place, cell in enumerate(self.cells, 1) if re.search(r"\bcheck\b", cell.source)]
        return max(places, default=0)


def read_notebook(content: bytes, file_name: str) -> Notebook:
    """Read a notebook that somebody handed in. Its file name counts only if nothing inside says which one it is.

    Raises:
        BrokenNotebook: it is not a notebook, has no code, or does not belong to the course.
    """
    code = [cell for cell in read_cells(content) if cell.kind == "code"]
    raw = [_PACKAGE.sub("", cell.source) if "b85decode(PACKAGE)" in cell.source else cell.source for cell in code]
    if sum(map(len, raw)) > MAX_CODE:
        raise BrokenNotebook(f"Its code has more than {MAX_CODE} characters: ask for it without data in the cells.")
    try:
        with time_limit(READING_SECONDS):  # IPython reads a cell once for each magic in it
            cells = [_code_cell(one.number, source, _exercise(one)) for one, source in zip(code, raw, strict=True)]
    except CheckTimeout:
        raise BrokenNotebook(f"To read its code takes more than {READING_SECONDS} seconds: look at it.") from None
    if not any(cell.source.strip() for cell in cells):
        raise BrokenNotebook("The notebook has no code cells.")
    return Notebook(_identify(cells, file_name), tuple(cells))


# What the code of a cell says


def _exercise(cell: Cell) -> str | None:
    """The exercise that a cell is marked with."""
    mark = cell.marks.get("exercise")
    return mark if mark in [exercise.id for exercise in list_exercises()] else None


def _code_cell(number: int, source: str, exercise: str | None) -> CodeCell:
    course = _same_text(source) in _course_sources() or _is_data(source)
    try:
        tree = _parse(source)
    except (SyntaxError, ValueError, RuntimeError, MemoryError) as error:  # RuntimeError: more than 500 magics
        what, row = getattr(error, "msg", None) or type(error).__name__, getattr(error, "lineno", None) or 0
        where = "".join(f" in line {row}: {line.strip()}" for line in source.splitlines()[row - 1 : row])
        return CodeCell(
            number, source, exercise, course, f"Syntax: cell {number} is not valid Python ({what}){where}",
            checks=frozenset(CHECK.findall(source)), uses=frozenset(WORD.findall(source)),
            defines=frozenset(re.findall(r"^(?:async +)?(?:def|class) +(\w+)", source, re.MULTILINE)),
        )  # fmt: skip
    names = names_of(tree)
    # below `%%writefile`, say, there is no tree
    uses = names.uses if tree.body else set(WORD.findall(source))
    checks = {id_ for node in ast.walk(tree) if (id_ := _checked_exercise(node))}
    defines = set().union(*map(_defined, tree.body))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names.state -= set().union(*map(bound_by, imports))
    kinds = (checks, defines, names.binds | names.completes, uses, names.later, names.state)
    return CodeCell(number, source, exercise, course, "", *map(frozenset, kinds))


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
    # finds more than the parser, as stray returns
    compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return tree


def _checked_exercise(node: ast.AST) -> str | None:
    """The exercise id of a call `check("1.1", ...)`."""
    match node:
        case ast.Call(func=ast.Name("check") | ast.Attribute(attr="check"), args=[ast.Constant(str(id_)), *_]):
            return id_
    return None


def _defined(node: ast.AST) -> set[str]:
    """The functions and classes that a statement defines.

    Also under `if`, `try` or `with`, as `name = lambda ...`, and as the result of a call such as `partial(...)`, but
    not of the course's `check(...)`.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda | ast.Call):
        if _checked_exercise(node.value):
            return set()
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]
    return set().union(*map(_defined, inner))


def _identify(cells: list[CodeCell], file_name: str) -> str:
    """The notebook whose exercises stand in it: by their marks, else by file name, else by what is defined."""
    exercises = list_exercises()
    notebook_of = {exercise.id: exercise.notebook for exercise in exercises}
    for marks in (
        [cell.exercise for cell in cells],
        [id_ for cell in cells for id_ in sorted(cell.checks)],
        [exercise.id for exercise in exercises if exercise.notebook in Path(file_name).stem],
        [exercise.id for exercise in exercises if any(exercise.name in cell.defines for cell in cells)],
    ):
        votes = Counter(notebook_of[id_] for id_ in marks if id_ in notebook_of)
        if votes:
            return votes.most_common(1)[0][0]
    raise BrokenNotebook("The notebook is not part of this course: neither its cells nor its name belong to it.")


# What of the course's own cells has to run


@functools.cache
def _course_sources() -> frozenset[str]:
    """The texts of the code cells of the course, without those that students are to change."""
    return frozenset(_same_text(cell.source) for cell in course_cells() if cell.kind == "code" and not _exercise(cell))


def _is_data(source: str) -> bool:
    """Whether it is the cell of the stand-alone version that makes the images; no text makes this slow."""
    start, _, rest = source.partition("find_kaggle_input")
    return start.lstrip().startswith("from course_utils.data import ") and "write_dataset(part)" in rest


def _same_text(source: str) -> str:
    """A text without what editors change, blanks at the end of lines and of the cell."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of a cell of the course that runs or does not: one import, or all the rest."""

    text: str
    names: Names


def _needed(cells: tuple[CodeCell, ...]) -> dict[CodeCell, str]:
    """Each cell that has to run, with what of it has to run."""
    sources = {cell: cell.source for cell in cells if not cell.course or cell.checks or cell.error}
    parts = {cell: () if cell in sources or _is_data(cell.source) else _parts(cell.source) for cell in cells}
    order = [(cell, part) for cell in cells for part in parts[cell]]
    numbers = {cell: number for number, cell in enumerate(cells)}
    chosen: set[_Part] = set()
    waiting = [(cell, cell.uses, cell.later) for cell in sources]
    seen = set()
    while waiting:
        cell, uses, later = waiting.pop()
        wanted = {(name, numbers[cell]) for name in uses} | {(name, len(cells)) for name in later}
        for name, place in wanted - seen:
            for binder, part in reversed(order):
                if numbers[binder] < place and name in part.names.binds | part.names.completes:
                    if part not in chosen:
                        chosen.add(part)
                        waiting.append((binder, part.names.uses, part.names.later))
                    if name in part.names.surely and place < len(cells):
                        break  # what stands above is forgotten
        seen |= wanted
    for cell in cells:
        if texts := [part.text for part in parts[cell] if part in chosen]:
            sources[cell] = "\n".join(texts)
    return sources


@functools.cache
def _parts(source: str) -> tuple[_Part, ...]:
    """A cell of the course in parts.

    An import of `skimage.morphology` also counts as one of `skimage`: after it, `skimage.morphology` can be used.
    """
    made, rest, imported = [], [], set()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            rest.append(node)
            continue
        for alias in node.names:
            package = (getattr(node, "module", None) or alias.name).split(".")[0]
            fields = dict(ast.iter_fields(node)) | {"names": [alias]}
            imported |= (bound := {alias.asname or alias.name.split(".")[0]})
            made.append(_Part(ast.unparse(type(node)(**fields)), Names(binds=bound | {package}, surely=bound)))
    if rest:
        names = names_of(ast.Module(rest, []))
        names.completes -= _modules_of_course()
        calls = [node for part in rest for node in ast.walk(part) if isinstance(node, ast.Call)]
        trained = [call.args[0] for call in calls if getattr(call.func, "id", "") == "train_epoch"]
        names.completes |= {model.id for model in trained if isinstance(model, ast.Name)}
        text = source if not made else "\n".join(ast.get_source_segment(source, node) for node in rest)
        made.append(_Part(text, names))
    return tuple(made)


@functools.cache
def _modules_of_course() -> frozenset[str]:
    """The names of what the course's cells import: a call such as `torch.manual_seed(0)` completes nothing."""
    trees = [ast.parse(source) for source in _course_sources()]
    imports = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return frozenset().union(*map(bound_by, imports))
