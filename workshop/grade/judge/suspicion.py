"""What an instructor should look at: answers that may be the reference in disguise, and code that reaches further.

A hint, not a verdict. It is read from the text of the cells; nothing is executed. The names in the code are followed
through imports, `getattr` with a literal name and `import_module`, but not through what only running it would show.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator, Sequence

from IPython.core.inputtransformer2 import TransformerManager

from course_utils.exercises.registry import Exercise
from workshop.grade.judge.copied import is_copy
from workshop.grade.judge.notebook import CodeCell

MAX_FINDINGS = 6
# To import one of these is enough; of the others what is used counts.
_IMPORTED = frozenset("ctypes subprocess socket signal gc threading _thread builtins pty mmap resource "
                      "multiprocessing posix nt cffi dill cloudpickle _ctypes _posixsubprocess".split())
_USED = frozenset("os sys inspect importlib types atexit traceback dis marshal runpy code workshop".split())
_INSIDE = frozenset("os sys ctypes subprocess builtins inspect gc".split())  # as in `numpy.os`
_HARMLESS = re.compile(
    r"os\.(path|sep|linesep|curdir|getcwd|listdir|makedirs|cpu_count)\b|types\.(SimpleNamespace|MappingProxyType|\w*Type$)"
    r"|sys\.(maxsize|version|version_info|float_info|byteorder|getsizeof|stdout|stderr|setrecursionlimit|executable)\b"
    r"|inspect\.(signature|isclass|isfunction|ismodule|getdoc|Parameter)\b|importlib\.(reload|import_module)\b"
)
_NOT_HARMLESS = re.compile(r"types\.(Function|Code|Frame|Cell|Traceback)Type")
_OF_MODULES = frozenset("__file__ __path__ __dict__ __loader__ __spec__ __getattribute__ __getattr__ items "
                        "values keys get".split())
_RUNS_CELLS = frozenset("run_cell run_cell_async run_code run_ast_nodes ex ev safe_execfile".split())
_RUNS_FILES = frozenset("run load loadpy macro rerun recall rep edit alias_magic".split())
_RESULTS = re.compile(r"_|__|___|_\d+|Out|_oh")  # what IPython calls the values of earlier cells
_CHECKER = re.compile(
    r"course_utils\.exercises(?!(\.(check|ExerciseNotSolved|claims|claims\.claim|guesses|guesses\.(ask|compare)"
    r"|progress|progress\.(show_overview|browse_progress)|questions|questions\.model_answer))?$)"
)
_ATTRIBUTES = frozenset(
    "__code__ __globals__ __closure__ __builtins__ __subclasses__ __loader__ __spec__ __kwdefaults__ __reduce_ex__ "
    "f_back f_globals f_locals f_code f_builtins tb_frame gi_frame gi_code cr_frame cr_code ag_frame ag_code "
    "_getframe _current_frames currentframe settrace setprofile user_ns user_global_ns ast_transformers".split()
)
_METHODS = frozenset(
    "__eq__ __ne__ __instancecheck__ __subclasscheck__ __getattribute__ __array_ufunc__ __array_function__ "
    "__torch_function__ __class__".split()
)
_VALUE_TYPES = frozenset("int float complex str bytes dict list tuple set frozenset".split())
_VALUE_CLASSES = frozenset(["numpy.ndarray", "torch.Tensor", "collections.Counter", "collections.OrderedDict"])
_RUNS_TEXT = frozenset("exec eval compile __import__ breakpoint".split())
_PATHS = re.compile(r"/(proc|dev|etc|sys|root|run)(/|$)")
_PYTHON_MAGIC = re.compile(r"\A\s*%%(time|timeit|capture|prun|writefile|file)\b.*")
_SHELLS = frozenset("bash sh script system sx ! !! cmd perl ruby python python2 python3 pypy".split())
_PIP = re.compile(r"\s*(python3? -m )?(pip|conda|mamba|uv pip) ")


def suspicions(cells: Sequence[CodeCell], exercise: Exercise, files: dict[str, str] | None = None) -> str:
    """What to look at in the cells that can decide one exercise: those up to its last check. Empty if nothing.

    Args:
        cells: of `workshop.grade.judge.notebook`, in their order; in those of the course nothing is looked for.
        exercise: whose reference is looked for.
        files: name -> source of the student's modules beside the notebook.

    >>> from course_utils.exercises import get_exercise
    >>> suspicions([CodeCell(7, "from course_utils import count_shapes as f")], get_exercise("1.1"))
    'cell 7 uses the reference count_shapes'
    """
    trees = {f"cell {cell.number}": _tree(cell.source) for cell in cells}
    given = {f"cell {cell.number}" for cell in cells if cell.course}
    checks = [place for place, tree in trees.items() if any(_is_check(node, exercise) for node in ast.walk(tree))]
    places = list(trees)
    for place in places[places.index(checks[-1]) + 1 :] if checks else ():
        del trees[place]
    trees |= {name: _tree(source) for name, source in (files or {}).items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    stored |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    imports = {name: path for tree in trees.values() for name, path in _imports(tree)}
    found: dict[str, None] = {}  # in their order, each once
    for place, tree in trees.items():
        if place in given:
            continue
        reader = _Reader(exercise, imports, stored)
        try:
            reader.visit(tree)
        except RecursionError:
            reader.found.append("is nested too deeply to be looked at")
        found |= dict.fromkeys(f"{place} {what}" for what in reader.found)
    found |= dict.fromkeys(f"{place} hands over what check returned" for place in _returned(trees, exercise))
    shown = list(found)[:MAX_FINDINGS]
    more = len(found) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more > 0 else shown)


@functools.lru_cache(maxsize=1000)  # `grade_notebook` clears it
def _tree(source: str) -> ast.Module:
    """The syntax tree of a cell as IPython reads it. Of what is not Python: its words as strings."""
    source = _PYTHON_MAGIC.sub("", source)
    for text in (source, None):
        try:
            return ast.parse(TransformerManager().transform_cell(source) if text is None else text)
        except (SyntaxError, ValueError, RuntimeError, MemoryError):
            continue
    calls = [ast.Call(ast.Name("getattr", ast.Load()), [ast.Constant(word)], []) for word in re.findall(r"\w+", source)]
    return ast.Module([ast.Expr(call) for call in calls], [])


forget_trees = _tree.cache_clear


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each name that an import binds anywhere, and what it means."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _is_check(node: ast.AST, exercise: Exercise) -> bool:
    """Whether it is a call `check("1.1", ...)` of this exercise."""
    match node:
        case ast.Call(func=ast.Name("check") | ast.Attribute(attr="check"), args=[ast.Constant(id_), _, *_]):
            return id_ == exercise.id
    return False


def _text(node: ast.AST) -> str | None:
    """The text of a literal, also if it is put together from several."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.BinOp(left, ast.Add(), right):
            parts = _text(left), _text(right)
            return None if None in parts else "".join(parts)
    return None


class _Reader(ast.NodeVisitor):
    """Collects in `found` what stands out in one tree."""

    def __init__(self, exercise: Exercise, imports: dict[str, str], stored: set[str]):
        self.exercise, self.imports, self.stored, self.found = exercise, imports, stored, []

    def path(self, node: ast.AST) -> str | None:
        """The full name of what an expression means, if it comes from an import: "numpy.linalg.norm"."""
        match node:
            case ast.Name(name):
                return self.imports.get(name)
            case ast.Attribute(inner, "__dict__") | ast.Call(ast.Name("vars"), [inner]):
                return self.path(inner)
            case ast.Attribute(inner, name) if path := self.path(inner):
                return f"{path}.{name}"
            case ast.Call(ast.Name("getattr"), [inner, name, *_]) | ast.Subscript(inner, name) if _text(name):
                if (path := self.path(inner)) == "sys.modules":
                    return _text(name)
                return path and f"{path}.{_text(name)}"
            case ast.Call(ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"), [name, *_]):
                return _text(name)
        return None

    def reach(self, path: str) -> None:
        """Note what it means to use the object of this full name."""
        path = path.removesuffix(".*")
        first, *rest = path.split(".")
        inside = next((i for i, part in enumerate(rest, 1) if part in _INSIDE), None)
        if inside is not None and first not in _USED:
            path = ".".join([first, *rest][inside:])
            first = path.split(".")[0]
            self.found.append(f"uses {path}")
        elif first == "course_utils" and _OF_MODULES & {*rest}:
            self.found.append(f"uses {path}")
        elif first == "course_utils" and self.exercise.name in rest:
            self.found.append(f"uses the reference {self.exercise.name}")
        elif _CHECKER.match(path) or first == "workshop":
            self.found.append(f"uses the checker ({path})")
        elif first in _IMPORTED:
            self.found.append(f"imports {first}")
        elif "subprocess" in path or "ProcessPool" in path:
            self.found.append(f"uses {path}")
        elif first in _USED and (_NOT_HARMLESS.match(path) or not _HARMLESS.match(path)):
            self.found.append(f"uses {'.'.join(path.split('.')[:2])}")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] not in _USED - {"workshop"}:
                self.reach(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            self.reach(f"{module}.{alias.name}")
            has = module.startswith("course_utils") and hasattr(sys.modules.get(module), self.exercise.name)
            if alias.name == "*" and has:
                self.found.append(f"uses the reference {self.exercise.name}")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in self.imports:
            self.reach(path := self.imports[node.id])
            if path.split(".")[0] == "course_utils" and inspect.ismodule(sys.modules.get(path)):
                self.found.append(f"hands on the module {path}")
            elif path == "course_utils.exercises.check":
                self.found.append("hands on check")
        elif isinstance(node.ctx, ast.Load) and _RESULTS.fullmatch(node.id) and node.id not in self.stored:
            self.found.append(f"uses the value of a cell ({node.id})")
        elif node.id == "check" and isinstance(node.ctx, ast.Store | ast.Del):
            self.found.append("redefines check")
        elif node.id in ("__builtins__", "__loader__", "__spec__"):
            self.found.append(f"uses {node.id}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self.path(node)
        if path and path.split(".")[0] in _USED:
            self.reach(path)
        elif node.attr in _ATTRIBUTES or (node.attr == "__dict__" and f"{path}.".startswith("course_utils.")):
            self.found.append(f"uses {node.attr}")
        elif path:
            self.reach(path)
        elif node.attr in ("ctypes", "reference"):
            self.found.append(f"uses .{node.attr}")
        if not path:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        path, text = self.path(node), _text(node.args[0]) if node.args else None
        if name == "check" and isinstance(node.func, ast.Name) and text:
            node = ast.Call(ast.Constant(0), node.args, node.keywords)
        elif path:
            self.reach(path)
        elif isinstance(node.func, ast.Name) and name in _RUNS_TEXT and name not in self.imports:
            self.found.append(f"runs text as code ({name})")
            if text:
                self.visit(_tree(text))
        elif "magic" in name and text in _SHELLS | _RUNS_FILES and "get_ipython" in ast.unparse(node.func):
            self.found.append(f"runs a {'file' if text in _RUNS_FILES else 'command'} (%{text})")
        elif isinstance(node.func, ast.Attribute) and name in _RUNS_CELLS:
            self.found.append(f"runs text as code ({name})")
        elif name in ("system", "getoutput") and "get_ipython" in ast.unparse(node.func):
            if not _PIP.match(text or ""):
                self.found.append(f"runs a command ({text or name})"[:60])
        elif name in ("setattr", "delattr") and node.args:
            self.change(node.args[0], name)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if path := self.path(node):
            self.reach(path)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if not isinstance(text, str):
            return
        place = text.find("course_utils")
        if place >= 0 and self.exercise.name in text[place:]:
            self.found.append(f"names the reference {self.exercise.name} in a text")
        if _PATHS.match(text) or text in ("COURSE_PROGRESS", "COURSE_STRICT"):
            self.found.append(f"names {text}"[:40])
        elif text in _ATTRIBUTES:
            self.found.append(f"uses {text}")
        elif re.fullmatch(r"course_utils(\.\w+)+", text):
            self.reach(text)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = _text(node)
        self.generic_visit(node) if text is None else self.visit_Constant(ast.Constant(text))

    def visit_Expr(self, node: ast.Expr) -> None:
        match node.value:
            case ast.Constant():  # a docstring is not code
                pass
            case ast.Call(ast.Name("check")):  # in a loop, say; nothing is made of what it returns
                self.generic_visit(ast.Call(ast.Constant(0), node.value.args, node.value.keywords))
            case _:
                self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            # torch.backends.cudnn.benchmark = True is a setting, torch.allclose = mine is not
            if isinstance(target, ast.Attribute | ast.Subscript) and not isinstance(node.value, ast.Constant):
                self.change(target.value if isinstance(target, ast.Attribute) else target, "")
        self.generic_visit(node)

    def change(self, target: ast.AST, function: str) -> None:
        """Note that something imported gets another attribute."""
        path = self.path(target)
        is_dict = isinstance(target, ast.Subscript) and "__dict__" not in ast.unparse(target)
        if path and not (is_dict and "vars(" not in ast.unparse(target)):
            self.found.append(f"changes {path}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in _METHODS:
            self.found.append(f"defines {node.name}")
        elif node.name == "check":
            self.found.append("redefines check")
        if is_copy(node, self.exercise):
            self.found.append(f"copies the reference {self.exercise.name}")
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if getattr(base, "id", "") in _VALUE_TYPES - self.imports.keys() or self.path(base) in _VALUE_CLASSES:
                self.found.append(f"defines a subclass of {ast.unparse(base)}")
        if is_copy(node, self.exercise):
            self.found.append(f"copies the reference {self.exercise.name}")
        self.generic_visit(node)


def _returned(trees: dict[str, ast.Module], exercise: Exercise) -> Iterator[str]:
    """Where a later check gets something made of what an earlier one returned: if it failed, that is the reference."""
    returned: set[str] = set()
    uses: dict[str, set[str]] = {}  # name -> the names in its definition, for what is defined after the first check

    def leads_back(names: set[str]) -> bool:
        seen, waiting = set(), {*names}
        while waiting and not waiting & returned:
            seen |= waiting
            waiting = set().union(*(uses.get(name, ()) for name in waiting)) - seen
        return bool(waiting)

    for place, statement in ((place, statement) for place, tree in trees.items() for statement in tree.body):
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        bound = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
        used = {name.id for name in names} - bound
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound, used = {statement.name}, used - {statement.name}
        if checks := [node for node in ast.walk(statement) if _is_check(node, exercise)]:
            for answer in (node.args[1] for node in checks):
                within = {name.id for name in ast.walk(answer) if isinstance(name, ast.Name)}
                # To check the same name again is no detour.
                if leads_back(uses.get(answer.id, set()) if isinstance(answer, ast.Name) else within):
                    yield place
            returned |= bound
        else:
            returned -= bound
            uses |= dict.fromkeys(bound, used)
