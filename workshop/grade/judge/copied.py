"""Whether a function or class is the reference of an exercise, copied: statement by statement, whatever its names."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator

from course_utils import arguments
from course_utils.exercises.registry import Exercise

# A function of fewer syntax nodes than this is written alike by many; then only the course's own checks betray a copy.
MIN_COPIED_NODES = 36
# Of course_utils.arguments; no exercise asks for them.
_ARGUMENT_CHECKS = frozenset(name for name in vars(arguments) if name.startswith(("as_", "check_")))


def is_copy(node: ast.AST, exercise: Exercise) -> bool:
    """Whether a function or class has all statements of the reference in their order; local names may differ."""
    if isinstance(node, ast.ClassDef) != isinstance(exercise.reference, type):
        return False
    wanted, enough = reference_statements(exercise)
    betrayed = any(_is_argument_check(one) for one in ast.walk(node))
    if not (enough or betrayed):
        return False
    found = iter(_statements(node))
    return all(any(one == other for other in found) for one in wanted)


@functools.cache
def reference_statements(exercise: Exercise) -> tuple[tuple[str, ...], bool]:
    """The statements of the reference, and whether they are long enough that nobody else writes the same."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(exercise.reference))).body[0]
    statements = tuple(_statements(tree))
    return statements, sum(text.count("(") for text in statements) >= MIN_COPIED_NODES


def _is_argument_check(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) in _ARGUMENT_CHECKS


def _statements(root: ast.AST) -> Iterator[str]:
    """Each statement inside without those nested in it, annotations and the names of what is local.

    Left out are docstrings and checks of arguments.
    """
    root = ast.parse(ast.unparse(root)).body[0]  # a copy
    nodes = list(ast.walk(root))
    local = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    local |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    kept = [node for node in nodes if isinstance(node, ast.stmt) and node is not root and not _is_refusal(node)]
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in local:
            node.id = "_"
        elif isinstance(node, ast.arg):
            node.arg, node.annotation = "_", None
        elif isinstance(node, ast.stmt):
            vars(node).update({name: [] for name in ("body", "orelse", "finalbody", "handlers") if hasattr(node, name)})
            node.returns = None
    for node in kept:
        is_annotated = isinstance(node, ast.AnnAssign)
        yield ast.dump(ast.Assign([node.target], node.value or ast.Constant(None)) if is_annotated else node)


def _is_refusal(node: ast.stmt) -> bool:
    """Whether a statement only documents, or refuses arguments."""
    value = getattr(node, "value", None)
    if isinstance(node, ast.Expr) and isinstance(value, ast.Constant) or _is_argument_check(value):
        return True
    inner = node.body if isinstance(node, ast.If) else [node]
    return all(isinstance(one, ast.Raise) for one in inner)
