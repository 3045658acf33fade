"""Which names a piece of a notebook reads, binds and completes, read from its text."""

from __future__ import annotations

import ast
import re
import symtable
from dataclasses import dataclass, field

WORD = re.compile(r"[^\W\d]\w*")
# Code with one of these may reach a global name that stands in a text; IPython's magics become `get_ipython()`.
_REFLECTION = {"globals", "locals", "vars", "eval", "exec", "compile", "get_ipython", "__main__"}
_REFLECTING_ATTRIBUTES = {"__dict__", "__globals__", "user_ns", "user_global_ns", "f_globals", "f_locals", "modules"}
_COMPREHENSIONS = ("listcomp", "setcomp", "dictcomp", "genexpr")


class _WithoutAwait(ast.NodeTransformer):
    """`symtable` refuses `await` outside a function."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.generic_visit(node).value


@dataclass
class Names:
    """The global names that code reads, or its functions read when they are called; that it binds, binds in any case,
    and completes (`table["a"] = 1`, `rows.append(1)`); and those that its functions bind or complete when called."""

    uses: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    binds: set[str] = field(default_factory=set)
    surely: set[str] = field(default_factory=set)
    completes: set[str] = field(default_factory=set)
    state: set[str] = field(default_factory=set)


def names_of(tree: ast.Module) -> Names:
    """The names in a cell. What one statement has bound is not used from elsewhere by the next ones."""
    names, every = Names(), set()
    for node in _WithoutAwait().visit(tree).body:
        uses, completes = _uses_that_bind(node)
        names.completes |= completes
        try:
            scopes = [(symtable.symtable(ast.unparse(node), "cell", "exec"), False)]
        except (SyntaxError, ValueError, RecursionError):
            uses |= {inside.id for inside in ast.walk(node) if isinstance(inside, ast.Name)}
            scopes = []
        while scopes:
            scope, later = scopes.pop()
            function = scope.get_type() == "function" and scope.get_name() not in _COMPREHENSIONS
            later = later or function
            scopes += [(child, later) for child in scope.get_children()]
            for symbol in scope.get_symbols():
                if scope.get_type() == "module" or symbol.is_global():
                    every.add(symbol.get_name())
                    if symbol.is_referenced():
                        (names.later if later else uses).add(symbol.get_name())
                    if later and (symbol.is_assigned() or symbol.get_name() in completes):
                        names.state.add(symbol.get_name())
                    if symbol.is_assigned() or symbol.is_imported():
                        names.binds.add(symbol.get_name())
        names.uses |= uses - names.surely
        names.surely |= bound_by(node)
    names.completes &= every
    if (names.uses | names.later) & _REFLECTION or _attributes(tree) & _REFLECTING_ATTRIBUTES:
        names.uses = _words_of(tree)
    return names


def _attributes(tree: ast.AST) -> set[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if node.attr != "modules" or getattr(node.value, "id", "") == "sys"}


def _uses_that_bind(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Names that a statement needs without reading them as such (`n += 1`, `del n`), and those that it completes."""
    uses, completes = set(), set()
    for node in ast.walk(tree):
        targets = list(getattr(node, "targets", [getattr(node, "target", None)]))
        if isinstance(node, ast.AugAssign | ast.Delete):
            uses |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ImportFrom) and node.module == "__main__":
            uses |= {alias.name for alias in node.names}
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):  # rows.append(...)
            targets.append(node.value.func)
        for target in targets:
            inside = target
            while isinstance(inside, ast.Attribute | ast.Subscript):
                inside = inside.value
            if inside is not target and isinstance(inside, ast.Name):
                completes.add(inside.id)
    return uses, completes


def bound_by(node: ast.stmt) -> set[str]:
    """The names that a statement binds in any case, if it does not fail."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    targets = getattr(node, "targets", []) if isinstance(node, ast.Assign) else []
    return {inside.id for target in targets for inside in ast.walk(target) if _is_stored(inside)}


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _words_of(tree: ast.Module) -> set[str]:
    """All words of the code and of its texts, docstrings left out."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None  # a docstring
        for text in (getattr(node, name, None) for name in ("id", "attr", "value")):
            found |= set(WORD.findall(text)) if isinstance(text, str) else set()
    return found
