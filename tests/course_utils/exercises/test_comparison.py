"""After a pass the course's code stands beside the student's, with sentences that are true."""

from __future__ import annotations

import functools
import html
import linecache
import re

import numpy as np
import pytest

from course_utils.exercises import check, feedback, get_exercise, list_exercises
from course_utils.exercises.comparison import comparison, differences, source

LOOP = '''
from collections import Counter

def add(counts, shape):
    """Add one."""
    counts[shape] = counts.get(shape, 0) + 1

def not_used():
    pass

@functools.lru_cache
def count_shapes(images):
    """Count
    them."""
    counts = {}  # <none> yet
    for image in images:
        add(counts, image.shape)
    return counts
'''


def cell(text: str, name: str = "count_shapes"):
    """What a cell of a notebook defines: its source is known to Python, but there is no file."""
    file = f"<cell {hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names = {"functools": functools, "np": np}
    exec(compile(text, file, "exec"), names)
    return names[name]


def test_the_source_has_helpers_and_decorators_but_no_docstrings():
    code = source(cell(LOOP), with_helpers=True)
    assert code.startswith("@functools.lru_cache\ndef count_shapes(images):\n    counts = {}  # <none> yet\n")
    assert "def add" in code and "not_used" not in code and '"""' not in code and "import" not in code
    assert "def add" not in source(cell(LOOP))
    assert source(cell("count_shapes = lambda images: 3")) == "count_shapes = lambda images: 3"
    text = source(get_exercise("3.3").reference)
    assert text.startswith("def train_epoch") and "# given" not in text and "Train" not in text


@pytest.mark.parametrize(
    ("own", "course", "said"),
    [
        ("for x in y: f(x)", "f(y)", "Yours has a `for` loop; the course's has no loop: it works on whole arrays"),
        ("for x in (a, b): f(x)", "f(a), f(b)", "the course's has no loop. "),
        ("for x in y: f(x)", "for z in y: f(z)", "Both have the same kinds of loops and call"),
        ("z = np.sum(y)", "for x in y: z += x", "Yours has no loop; the course's has a `for` loop."),
        ("for x in y: z.append(x)", "z = [x for x in y]", "a `for` loop; the course's has a comprehension."),
        ("z = skimage.measure.label(y)", "z = ndimage.label(y)", "Both have no loop and call the same functions."),
        ("y = y.sum()", "y = np.sum(y)", "Both have no loop"),
        ("z = np.pad(y)", "z = reflected(y)", "Only the course's calls `reflected`. Only yours calls `np.pad`."),
        ("def g(): pass\nz = g(len(y))", "z = y", "Both have no loop"),
        ("import statistics\nz = statistics.fmean(y)", "z = y", "Only yours calls `statistics.fmean`."),
        ("z = y", "check_arguments(y=y)\nz = y", "The course's first checks its arguments"),
        ("assert y\nz = y", "check_arguments(y=y)\nz = y", "Both have no loop"),
        ("a\n\n# b\nc", "a", "Yours has 2 lines, the course's 1."),
    ],
)
def test_what_differs_in_kind(own, course, said):
    assert said in " ".join(differences(own, course))


def test_the_comparison_is_folded_and_escaped():
    page = comparison(get_exercise("1.1"), cell(LOOP))
    assert page.startswith("<details><summary>Compare with the course's code</summary>") and "<script" not in page
    assert "&lt;none&gt;" in page and "<code>Counter</code>" in page
    text = html.unescape(re.sub("<.*?>", "", page))
    assert source(cell(LOOP)) in text and source(get_exercise("1.1").reference) in text


@pytest.mark.parametrize("exercise", list_exercises(), ids=lambda exercise: exercise.id)
def test_the_course_is_not_compared_with_itself(exercise):
    assert source(exercise.reference) and comparison(exercise, exercise.reference) == ""


@pytest.mark.parametrize("submission", [
    None, 5, len, dict, functools.partial(len), eval("lambda images: 3"), type("Empty", (), {}),
    cell("def make():\n    def f(x):\n        return 3\n    return f", "make")(),
], ids=range(8))  # fmt: skip
def test_what_has_no_source_is_not_compared(submission):
    assert comparison(get_exercise("1.1"), submission) == ""


def test_it_stands_in_the_box_after_a_pass_alone(monkeypatch):
    boxes = []
    monkeypatch.setattr(feedback, "in_notebook", lambda: True)
    monkeypatch.setattr(feedback, "show_box", lambda box, text: boxes.append((box, text)))
    check("1.1", cell(LOOP.replace("@functools.lru_cache\n", "")))
    check("1.1", cell(LOOP.replace("+ 1", "+ 2").replace("@functools.lru_cache\n", "")))
    assert "<details>" in boxes[0][0] and "Counter" not in boxes[0][1]
    assert "not right yet" in boxes[1][1] and "<details>" not in boxes[1][0] and "Counter" not in boxes[1][0]
