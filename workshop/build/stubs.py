"""The content of an exercise cell: the solution as it is in `course_utils`, or the stub made from it.

A stub keeps decorators, signature, type hints and docstring; one line
`raise NotImplementedError("Exercise 3.2: The Dice score")` replaces the statements and comments of the body. In a class
this is done for each method; its attributes stay.

A line that students need not write ends in the comment `# given` in the module. The stub keeps it, and the raise
replaces the other lines:

    total = 0.0  # given
    for images, targets in loader:  # given
        total += loss_fn(model(images), targets).item()
    return total  # given

If the first line of a compound statement is marked, its body is treated like that of a function. Neither version shows
the marks.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Sequence

from course_utils.exercises.registry import Exercise

_GIVEN = re.compile(r"[ \t]+# given$", re.MULTILINE)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.For, ast.While, ast.If, ast.With)
_ATTRIBUTES = (ast.Assign, ast.AnnAssign, ast.Pass)


def source_of(exercise: Exercise) -> str:
    """The source of the object of an exercise, with decorators and docstring, without a line feed at the end."""
    return _GIVEN.sub("", _marked_source(exercise))


def _marked_source(exercise: Exercise) -> str:
    return textwrap.dedent(inspect.getsource(exercise.reference)).rstrip()


def stub_of(exercise: Exercise) -> str:
    """The text that students start from, as described above.

    Raises:
        ValueError: the object cannot be made into a stub; the text says which line and why.

    >>> from course_utils.exercises import get_exercise
    >>> print(stub_of(get_exercise("2.4")).splitlines()[-1])
        raise NotImplementedError("Exercise 2.4: Count the parameters")
    """
    return make_stub(_marked_source(exercise), f"Exercise {exercise.id}: {exercise.title}")


def make_stub(source: str, message: str) -> str:
    """The stub of one function or class, given as text; `message` is what its `NotImplementedError` says."""
    tree = ast.parse(source)
    if len(tree.body) != 1 or not isinstance(tree.body[0], (*_FUNCTIONS, ast.ClassDef)):
        raise ValueError("the solution must be one function or one class.")
    maker = _Stub(source, message)
    stub = _GIVEN.sub("", "\n".join(maker.definition(tree.body[0])))
    if maker.blank not in stub:
        raise ValueError("the stub leaves nothing to write; the body is empty or wholly given.")
    return stub


class _Stub:
    """The rows of one source, and what the stub shows for each of its statements."""

    def __init__(self, source: str, message: str):
        self.rows = source.split("\n")
        self.blank = f"raise NotImplementedError({json.dumps(message, ensure_ascii=False)})"

    def definition(self, node: ast.stmt) -> Iterator[str]:
        """A function or class: its head and docstring, then what remains of its body."""
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        first = node.body[0]
        if first.lineno == node.lineno:
            raise ValueError(f"the body is on the line of its head: {self.rows[node.lineno - 1].strip()!r}.")
        body_start = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", []))]) - 1
        yield from (row for row in self.rows[start:body_start] if row.strip() and not row.lstrip().startswith("#"))
        body = node.body
        if ast.get_docstring(node) is not None:
            yield from self.text(first)
            body = body[1:]
        if isinstance(node, ast.ClassDef):
            yield from self.class_body(body)
        else:
            yield from self.statements(body)

    def class_body(self, body: Sequence[ast.stmt]) -> Iterator[str]:
        """Attributes as they are, methods and nested classes as stubs, an empty line above each of these."""
        previous = None
        for node in body:
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                yield ""
                yield from self.definition(node)
            elif isinstance(node, _ATTRIBUTES):
                if not isinstance(previous, _ATTRIBUTES):
                    yield ""
                yield from self.text(node)
            else:
                raise ValueError(f"a class holds attributes and methods only, not {self.rows[node.lineno - 1]!r}.")
            previous = node

    def statements(self, body: Sequence[ast.stmt]) -> Iterator[str]:
        """Given statements as they are; one raise for each run of others."""
        blank_above = False
        for node in body:
            if self.is_given(node):
                if not isinstance(node, _BLOCKS):
                    yield from self.text(node)
                else:
                    yield from self.rows[node.lineno - 1 : self.head_end(node)]
                    yield from self.statements(node.body)
                blank_above = False
            elif not blank_above:
                yield " " * node.col_offset + self.blank
                blank_above = True

    def is_given(self, node: ast.stmt) -> bool:
        compound = hasattr(node, "body")
        if not _GIVEN.search(self.rows[self.head_end(node) - 1 if compound else node.end_lineno - 1]):
            return False
        if compound and (not isinstance(node, _BLOCKS) or getattr(node, "orelse", [])):
            line = self.rows[node.lineno - 1].strip()
            raise ValueError(f"only a for, while, if or with without else can be given, not {line!r}.")
        return True

    def head_end(self, node: ast.stmt) -> int:
        """The last line, counted from 1, before the comments above the body and the body."""
        last = node.body[0].lineno - 1
        while last > node.lineno and re.match(r"\s*(#|$)", self.rows[last - 1]):
            last -= 1
        return max(last, node.lineno)

    def text(self, node: ast.stmt) -> list[str]:
        return self.rows[node.lineno - 1 : node.end_lineno]
