"""Stubs keep everything that a student needs, and nothing of the body."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.exercises import list_exercises
from workshop.build.stubs import make_stub, source_of, stub_of

RAISE = 'raise NotImplementedError("Exercise 9.1: Title")'

# solution -> stub
STUBS = {
    "function": (
        '''@cache
@other(1, key="a")
def area(
    mask: np.ndarray,  # (H, W)
    *,
    scale: float = 1.0,
) -> float:
    """Area of a mask.

    >>> area(1)
    """
    # count, then scale
    total = mask.sum()  # why not
    if scale == 1:
        return total

    return total * scale''',
        f'''@cache
@other(1, key="a")
def area(
    mask: np.ndarray,  # (H, W)
    *,
    scale: float = 1.0,
) -> float:
    """Area of a mask.

    >>> area(1)
    """
    {RAISE}''',
    ),
    "no docstring": ("async def f(a):\n    # trick\n    return a", f"async def f(a):\n    {RAISE}"),
    "class": (
        '''@dataclass
class Net(nn.Module):
    """A net."""

    # the trick is the depth
    depth: int = 3
    sizes = (1,
             2)

    def __init__(self, depth=3):
        super().__init__()
        self.depth = depth

    # how it runs
    @staticmethod
    def forward(x) -> int:
        """Run."""
        def inner():
            return x
        return inner()

    class Part:
        def f(self):
            return 1''',
        f'''@dataclass
class Net(nn.Module):
    """A net."""

    depth: int = 3
    sizes = (1,
             2)

    def __init__(self, depth=3):
        {RAISE}

    @staticmethod
    def forward(x) -> int:
        """Run."""
        {RAISE}

    class Part:

        def f(self):
            {RAISE}''',
    ),
    "given lines around a blank": (
        '''def train(loader):
    """Train."""
    total = 0.0  # given
    for images, targets in loader:  # given
        # the step
        loss = step(images)
        loss.backward()
        total += float(
            loss
        )  # given
    scale = 2
    return total  # given''',
        f'''def train(loader):
    """Train."""
    total = 0.0
    for images, targets in loader:
        {RAISE}
        total += float(
            loss
        )
    {RAISE}
    return total''',
    ),
    "given lines in a method": (
        "class A:\n    def __init__(self):\n        super().__init__()  # given\n        self.a = 1",
        f"class A:\n\n    def __init__(self):\n        super().__init__()\n        {RAISE}",
    ),
    "a word that only contains given": (
        "def f(a):\n    b = a  # is given\n    return b",
        f"def f(a):\n    {RAISE}",
    ),
}


@pytest.mark.parametrize("name", STUBS)
def test_the_stub_of(name):
    solution, stub = STUBS[name]
    assert make_stub(solution, "Exercise 9.1: Title") == stub


FAULTS = {
    "x = 1": "must be one function or one class",
    "def f(): return 1": "the body is on the line of its head",
    "def f():\n    return 1  # given": "leaves nothing to write",
    "class A:\n    b = 1": "leaves nothing to write",
    "class A:\n    for b in c:\n        d = 1": "attributes and methods only",
    "def f():\n    try:  # given\n        a = 1\n    finally:\n        b = 1": "only a for, while, if or with",
    "def f(c):\n    if c:  # given\n        a = 1\n    else:\n        b = 1": "without else can be given",
}


@pytest.mark.parametrize("source", FAULTS)
def test_what_cannot_be_made_into_a_stub_is_said(source):
    with pytest.raises(ValueError, match=FAULTS[source]):
        make_stub(source, "Exercise 9.1: Title")


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_every_title_gives_a_stub_that_says_it(title):
    names: dict = {}
    exec(make_stub("def f():\n    return 1", title), names)
    with pytest.raises(NotImplementedError) as error:
        names["f"]()
    assert str(error.value) == title


def heads(source: str) -> list[tuple]:
    """Every function and class: name, decorators, arguments with hints and defaults, result, bases, docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts = [*node.decorator_list, getattr(node, "args", None), getattr(node, "returns", None)]
            parts += getattr(node, "bases", [])
            found.append((node.name, [ast.dump(part) for part in parts if part], ast.get_docstring(node)))
    return found


@pytest.mark.parametrize("exercise", list_exercises(), ids=lambda exercise: exercise.id)
class TestOfTheCourse:
    def test_head_hints_and_docstring_are_those_of_the_solution(self, exercise):
        solution, stub = source_of(exercise), stub_of(exercise)
        outer = [head for head in heads(solution) if head in heads(stub)]
        assert outer == heads(stub) and heads(stub)[0] == heads(solution)[0]

    def test_no_statement_and_no_comment_of_a_body_is_left(self, exercise):
        stub = stub_of(exercise)
        functions = [node for node in ast.walk(ast.parse(stub)) if isinstance(node, ast.FunctionDef)]
        assert functions
        for function in functions:
            body = function.body[ast.get_docstring(function) is not None :]
            assert any(isinstance(node, ast.Raise) for node in body)
            assert "# given" in inspect.getsource(exercise.reference) or len(body) == 1
        tokens = tokenize.generate_tokens(io.StringIO(stub).readline)
        assert [token.string for token in tokens if token.type == tokenize.COMMENT] == []

    def test_calling_it_says_which_exercise_it_is(self, exercise):
        reference = exercise.reference
        names = dict(vars(inspect.getmodule(reference)))
        exec(stub_of(exercise), names)
        made = names[exercise.name]
        assert made is not reference
        own = vars(made).values() if isinstance(made, type) else [made]
        functions = [value for value in own if inspect.isfunction(value)]
        for function in functions:
            values = [None for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            with pytest.raises(NotImplementedError, match=f"^Exercise {exercise.id}: "):
                function(*values)

    def test_the_solution_is_the_text_of_the_module(self, exercise):
        solution = source_of(exercise)
        assert solution == inspect.getsource(exercise.reference).rstrip().replace("  # given", "")
        assert "# given" not in solution
