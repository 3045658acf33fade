"""Mutation testing of the checks: small mistakes, made by a machine in the reference of an exercise.

`mutants` walks the source of a reference and makes one change at a time: another operator, comparison or constant, an
argument dropped or swapped, a statement left out, a condition negated, another return value, a method replaced by a
near one. Each mutant is compiled in the namespace of the reference's module, so it is a function or class like a
student's. If a check lets one pass, either the check has a gap or the mutant is right, too: an equivalent mutant.

A mutant's name says what was changed and where, without quoting the source, so that a renamed local variable or a
reformatted line changes no name: "split_train_val, if: < -> <=" is the comparison in the first `if` of the function,
"split_train_val, if 2" would be the second.

    from mutation import mutants, report

    for mutant in mutants(get_exercise("1.4").reference):
        print(mutant.name, mutant.source)   # the source is "statement -> changed statement", for people
        mutant.object                       # the changed function or class

    found = report("1.4", ["split_train_val, if"])  # mutants that are right, too; without a change, all of a statement
    found.killed, found.timeouts, found.all, found.equivalent, found.survivors, found.stale

`CheckTests` in `runner.py` makes tests of it: they record the figures for the table that ends the test run, and fail if
less than 95 % are killed or if no survivor needs an entry of EQUIVALENT any more.

To see survivors while writing a check, from the repository's root:
`python tests/course_utils/exercises/checks/mutation.py 1.4 1.5`. Docstrings and type hints are left alone, and so are
calls of functions of `course_utils.arguments`, which refuse what no exercise asks about. In a `raise` only the kind of
the exception changes, and each value in its message is replaced by "?".
"""

from __future__ import annotations
import __future__

import ast
import builtins
import copy
import inspect
import sys
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from course_utils.exercises.registry import get_exercise
from course_utils.exercises.sandbox import run_check

BAR = 0.95
ARGUMENTS = "course_utils.arguments"

SYMBOLS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.MatMult: "@", ast.BitAnd: "&", ast.BitOr: "|", ast.And: "and", ast.Or: "or", ast.Not: "not", ast.USub: "-",
    ast.UAdd: "+", ast.Invert: "~", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==",
    ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip
OPERATORS = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.FloorDiv: [ast.Div],
    ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult], ast.MatMult: [ast.Mult], ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
}  # fmt: skip
COMPARISONS = {
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}  # fmt: skip
# Functions, methods and attributes that are easily mistaken for one another.
NEAR_FUNCTIONS = {
    "sum": ["len"], "len": ["sum"], "max": ["min"], "min": ["max"], "any": ["all"], "all": ["any"], "int": ["float"],
    "float": ["str"], "ValueError": ["RuntimeError"],
}  # fmt: skip
NEAR_ATTRIBUTES = {
    "sum": ["mean"], "mean": ["sum"], "max": ["min"], "min": ["max"], "any": ["all"], "all": ["any"],
    "argmax": ["argmin"], "argmin": ["argmax"], "zeros": ["ones"], "ones": ["zeros"], "std": ["var"],
    "sqrt": ["square"], "zeros_like": ["ones_like"], "ones_like": ["zeros_like"], "log": ["exp"], "exp": ["log"],
    "log1p": ["log"], "expm1": ["exp"], "sigmoid": ["tanh"], "softmax": ["log_softmax"], "relu": ["sigmoid"],
    "ReLU": ["Sigmoid"], "clamp": ["abs"], "abs": ["neg"], "float32": ["float64"], "float64": ["float32"],
    "int64": ["int32"], "int32": ["int16"], "uint8": ["int64"], "train": ["eval"], "eval": ["train"],
    "no_grad": ["enable_grad"], "inference_mode": ["enable_grad"], "floor": ["ceil"], "ceil": ["floor"],
    "integers": ["random"], "maximum": ["minimum"], "minimum": ["maximum"], "unique": ["sort"], "size": ["ndim"],
    "shape": ["strides"], "backward": ["detach"], "ConvTranspose2d": ["Conv2d"], "MaxPool2d": ["AvgPool2d"],
    "items": ["keys"],
}  # fmt: skip
NEAR_STRINGS = {
    "inner": ["outer", "thick"], "outer": ["inner"], "thick": ["inner"], "reflect": ["symmetric", "edge"],
    "mean": ["sum"], "sum": ["mean"], "none": ["mean"], "constant": ["edge"],
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One changed reference: the name of the change, the changed statement for people, and the function or class."""

    name: str
    source: str
    object: Any


@dataclass
class Report:
    """Figures of one exercise. `survivors` are the mutants that passed without an entry in the table, in words."""

    exercise_id: str
    all: int = 0
    killed: int = 0
    timeouts: int = 0  # of the killed, those that were stopped by the time limit
    equivalent: int = 0
    seconds: float = 0.0
    survivors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.killed / max(1, self.all - self.equivalent)


def report(exercise_id: str, equivalent: Collection[str] = (), seconds: float = 2) -> Report:
    """Run an exercise's check on every mutant of its reference.

    Args:
        exercise_id: as in "1.4".
        equivalent: names of mutants that are right, too. The part of a name before its colon stands for all mutants of
            that statement.
        seconds: of processor time, the limit for one mutant.
    """
    exercise = get_exercise(exercise_id)
    found, used, start = Report(exercise_id), set(), time.perf_counter()
    for mutant in mutants(exercise.reference):
        found.all += 1
        result = run_check(exercise_id, exercise.check, mutant.object, seconds=seconds)
        if result.status != "passed":
            found.killed += 1
            found.timeouts += result.timed_out
        elif reasons := {mutant.name, mutant.name.split(": ")[0]} & set(equivalent):
            found.equivalent += 1
            used |= reasons
        else:
            found.survivors.append(f"{mutant.name}    {mutant.source}")
    found.stale = [name for name in equivalent if name not in used]
    found.seconds = time.perf_counter() - start
    return found


def mutants(reference: Any) -> Iterator[Mutant]:
    """Every mutant of a function or class whose source is at hand, in the order of its lines. No two are the same."""
    module = sys.modules[reference.__module__]
    lines, first_line = inspect.getsourcelines(reference)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first_line - 1)
    _label(tree, vars(builtins).keys() | vars(module).keys())
    guards = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == ARGUMENTS}
    seen, names = {ast.dump(tree)}, Counter()
    places = sorted(_places(tree, None, guards), key=lambda place: place[3].lineno)
    for owner, field_name, index, statement in places:
        container, key = (vars(owner), field_name) if index is None else (getattr(owner, field_name), index)
        node = container[key]
        before = _header(statement)
        for new, change in _changes(node, owner, field_name):
            container[key] = new
            try:
                dump = ast.dump(tree)
                if dump in seen:
                    continue
                seen.add(dump)
                after = _header(statement) if node is not statement else change
                changed = _compile(tree, reference, module)
            finally:
                container[key] = node
            if changed is None:
                continue
            name = f"{statement.label}: {change}"
            names[name] += 1
            yield Mutant(name if names[name] == 1 else f"{name} #{names[name]}", f"{before}  ->  {after}", changed)


def _label(tree: ast.Module, known: Collection[str]) -> None:
    """Label statements and calls without local names: "UNet.forward, if 2", "UNet.__init__, self.pool", "zip"."""

    def visit(node: ast.AST, function: str, numbers: Counter) -> None:
        for child in ast.iter_child_nodes(node):
            inside, counter = function, numbers
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not isinstance(node, ast.FunctionDef):
                inside, counter = f"{function}.{child.name}".lstrip("."), Counter()
            if isinstance(child, ast.Call):
                called = child.func
                child.label = getattr(called, "attr", called.id if getattr(called, "id", "") in known else "call")
            visit(child, inside, counter)
            if isinstance(child, ast.stmt):
                kind = _kind(child)
                counter[kind] += 1
                child.label = f"{inside}, {kind}" + (f" {counter[kind]}" if counter[kind] > 1 else "")

    visit(tree, "", Counter())


def _kind(statement: ast.stmt) -> str:
    """The keyword of a statement, the function that it calls, or the attribute that it sets."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return ast.unparse(target) if isinstance(target, ast.Attribute) else "assignment"
    if isinstance(statement, ast.Expr):
        return f"{statement.value.label}()" if isinstance(statement.value, ast.Call) else "expression"
    return type(statement).__name__.lower().removesuffix("functiondef") or "def"


def _compile(tree: ast.Module, reference: Any, module: Any) -> Any:
    """The changed object, or None if Python refuses the changed source."""
    changed = ast.fix_missing_locations(copy.deepcopy(tree))
    namespace = dict(vars(module))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(
                changed, f"<mutant of {reference.__name__}>", "exec", __future__.annotations.compiler_flag, True
            )
            exec(code, namespace)
    except Exception:
        return None
    return namespace[reference.__name__]


def _places(
    node: ast.AST, statement: ast.stmt | None, guards: Collection[str]
) -> Iterator[tuple[ast.AST, str, int | None, ast.stmt]]:
    """Where something can be changed: owner, name of its field, index in a list or None, the statement around it."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_comment", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if not isinstance(child, ast.AST) or isinstance(child, ast.expr_context) or _is_docstring(child):
                continue
            called = getattr(getattr(child, "value", child), "func", None)  # of a call or of a statement that is one
            if getattr(called, "id", "") in guards:
                continue
            inside = child if isinstance(child, ast.stmt) else statement
            if isinstance(node, ast.Raise):
                if name == "exc" and isinstance(child, ast.Call):
                    yield child, "func", None, inside
                    for place, argument in enumerate(child.args):
                        if isinstance(argument, ast.JoinedStr):
                            yield child, "args", place, inside
                continue
            if inside is not None:
                yield node, name, index, inside
            if not isinstance(child, ast.JoinedStr):
                yield from _places(child, inside, guards)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _header(statement: ast.stmt) -> str:
    """A statement as text, without the statements inside it."""
    shallow = copy.copy(statement)
    for name in ("body", "orelse", "finalbody", "handlers"):
        if isinstance(getattr(shallow, name, None), list):
            setattr(shallow, name, [])
    if isinstance(shallow, (ast.Try, ast.Match)):
        return type(shallow).__name__.lower()
    return ast.unparse(shallow).strip().replace("\n", " ")


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    """A copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _symbol(operator: ast.AST) -> str:
    return SYMBOLS[type(operator)]


def _changes(node: ast.AST, owner: ast.AST, name: str) -> Iterator[tuple[ast.AST, str]]:
    """What may stand in the place of a node, each with the words for the change."""
    if isinstance(node, ast.stmt):
        yield from _changed_statements(node, owner)
    elif isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        if name == "test" or (isinstance(owner, ast.comprehension) and name == "ifs"):
            yield ast.UnaryOp(ast.Not(), node), "condition negated"
            for value in (True, False):
                yield ast.Constant(value), f"condition -> {value}"
        yield from _changed_expressions(node)
        if name == "decorator_list":
            yield ast.parse("lambda same: same", mode="eval").body, "decorator left out"
    elif isinstance(node, ast.Tuple):  # targets of an assignment or a loop
        for new, which in _swaps(node.elts):
            yield _with(node, elts=new), f"targets {which} swapped"
    elif isinstance(node, ast.comprehension):
        yield _with(node, iter=_without_first(node.iter)), "without the first"


def _changed_statements(node: ast.stmt, owner: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    if isinstance(node, (ast.Pass, ast.ClassDef)) or (
        isinstance(node, ast.FunctionDef) and not isinstance(owner, ast.ClassDef)
    ):
        return
    yield ast.Pass(), "left out"
    if isinstance(node, ast.If):
        if node.orelse:
            yield _with(node, test=ast.Constant(False)), "only the else part"
    elif isinstance(node, ast.With):
        yield ast.If(ast.Constant(True), node.body, []), "only its body"
    elif isinstance(node, (ast.For, ast.While)):
        yield _with(node, body=[*node.body, ast.Break()]), "only once"
        if isinstance(node, ast.For):
            yield _with(node, iter=_without_first(node.iter)), "without the first"
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None)), "-> None"
    elif isinstance(node, ast.Break):
        yield ast.Continue(), "-> continue"
    elif isinstance(node, ast.Continue):
        yield ast.Break(), "-> break"
    elif isinstance(node, ast.AugAssign):
        symbol = _symbol(node.op)
        yield ast.Assign([node.target], node.value), f"{symbol}= -> ="
        for operator in OPERATORS.get(type(node.op), []):
            yield _with(node, op=operator()), f"{symbol}= -> {_symbol(operator())}="


def _changed_expressions(node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    if isinstance(node, ast.BinOp):
        symbol = _symbol(node.op)
        for operator in OPERATORS.get(type(node.op), []):
            yield _with(node, op=operator()), f"{symbol} -> {_symbol(operator())}"
        yield node.left, f"{symbol} -> left side"
        yield node.right, f"{symbol} -> right side"
    elif isinstance(node, ast.UnaryOp):
        yield node.operand, f"{_symbol(node.op)} left out"
    elif isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield _with(node, op=other), f"{_symbol(node.op)} -> {_symbol(other)}"
        for index in range(len(node.values)):
            rest = node.values[:index] + node.values[index + 1 :]
            new = rest[0] if len(rest) == 1 else _with(node, values=rest)
            yield new, f"{_symbol(node.op)} without part {index + 1}"
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for near in COMPARISONS[type(operator)]:
                new = _with(node, ops=[*node.ops[:index], near(), *node.ops[index + 1 :]])
                yield new, f"{_symbol(operator)} -> {_symbol(near())}"
    elif isinstance(node, ast.IfExp):
        yield node.body, "if else -> if part"
        yield node.orelse, "if else -> else part"
    elif isinstance(node, ast.Constant):
        for value in _near_values(node.value):
            yield ast.Constant(value), f"{node.value!r} -> {value!r}"
    elif isinstance(node, ast.Name):
        for near in NEAR_FUNCTIONS.get(node.id, []):
            yield _with(node, id=near), f"{node.id} -> {near}"
    elif isinstance(node, ast.Attribute):
        for near in NEAR_ATTRIBUTES.get(node.attr, []):
            yield _with(node, attr=near), f"{node.attr} -> {near}"
    elif isinstance(node, ast.Call):
        yield from _changed_calls(node)
    elif isinstance(node, (ast.Tuple, ast.List)):
        for new, which in _swaps(node.elts):
            yield _with(node, elts=new), f"items {which} swapped"
    elif isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                yield _with(node, **{part: None}), f"slice without {part}"
    elif isinstance(node, ast.Subscript):
        yield node.value, "index left out"
    elif isinstance(node, ast.JoinedStr):
        shown = {ast.dump(part.value): part for part in node.values if isinstance(part, ast.FormattedValue)}
        for number, key in enumerate(shown, start=1):
            values = [
                ast.Constant("?") if isinstance(part, ast.FormattedValue) and ast.dump(part.value) == key else part
                for part in node.values
            ]
            yield _with(node, values=values), f"value {number} -> ?"


def _changed_calls(node: ast.Call) -> Iterator[tuple[ast.expr, str]]:
    called = f"{node.label}()"
    for index in range(len(node.args)):
        yield _with(node, args=node.args[:index] + node.args[index + 1 :]), f"{called} without argument {index + 1}"
    for index, keyword in enumerate(node.keywords):
        rest = node.keywords[:index] + node.keywords[index + 1 :]
        yield _with(node, keywords=rest), f"{called} without {keyword.arg}"
    for args, which in _swaps(node.args):
        yield _with(node, args=args), f"{called} arguments {which} swapped"
    if isinstance(node.func, ast.Attribute):
        yield node.func.value, f"{called} left out"  # the method is not called: x.detach() -> x
    if node.args and not isinstance(node.args[0], ast.Starred):
        yield node.args[0], f"{called} -> argument 1"  # the function is not called: float(x) -> x


def _swaps(items: list[ast.expr]) -> Iterator[tuple[list[ast.expr], str]]:
    """The list with two neighbours swapped, for every pair of neighbours, and which they are."""
    for index in range(len(items) - 1):
        if not any(isinstance(item, ast.Starred) for item in items[index : index + 2]):
            swapped = [*items[:index], items[index + 1], items[index], *items[index + 2 :]]
            yield swapped, f"{index + 1} and {index + 2}"


def _without_first(iterable: ast.expr) -> ast.expr:
    rest = ast.Slice(ast.Constant(1), None, None)
    return ast.Subscript(ast.Call(ast.Name("list", ast.Load()), [iterable], []), rest, ast.Load())


def _near_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value - 1, *([type(value)(0), -value] if value else [])]
    if isinstance(value, str):
        return NEAR_STRINGS.get(value, [value + "_"])
    return []


def main() -> None:
    import torch

    torch.set_num_threads(1)
    for exercise_id in sys.argv[1:]:
        found = report(exercise_id)
        times = f"{found.timeouts} by the time limit"
        print(f"{exercise_id}: {found.killed} of {found.all} killed ({times}) in {found.seconds:.1f} s. Survivors:")
        for survivor in found.survivors:
            print("   ", survivor)


if __name__ == "__main__":
    main()
