"""What is found in a submitted notebook, whatever students and their editors did to it."""

import ast
import json
import re

import pytest

from course_utils.exercises import get_exercise
from workshop.grade.submissions import BrokenNotebook, candidates, needed_statements, read_submission

SHAPES = get_exercise("1.1")
CHECK = 'count_shapes = check("1.1", count_shapes)'
SOLUTION = "def count_shapes(images):\n    return {}"


def notebook(*cells, **more):
    """The bytes of a notebook. A cell is a text, or a pair of a text and what else the cell has."""
    made = []
    for number, cell in enumerate(cells):
        source, extra = cell if isinstance(cell, tuple) else (cell, {})
        made.append({"cell_type": "code", "id": f"c{number}", "metadata": {}, "execution_count": None, "outputs": [],
                     "source": source} | extra)  # fmt: skip
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5} | more).encode()


def marked(source, exercise="1.1"):
    return source, {"metadata": {"course": {"exercise": exercise}}}


def read(*cells, file_name="01_data_exploration.ipynb"):
    return read_submission(notebook(*cells), file_name)


def order(*cells):
    """The numbers of the cells that may hold the solution, the one that counts first."""
    return [cell.number for cell in candidates(read(*cells), SHAPES)]


def ran(*cells, exercise=SHAPES):
    """The statements that run for the cell that counts."""
    submission = read(*cells)
    statements = needed_statements(submission, candidates(submission, exercise)[0], exercise)
    return [ast.unparse(statement.node) for statement in statements]


@pytest.mark.parametrize(
    ("cells", "file_name"),
    [
        ([marked(SOLUTION)], "x.ipynb"),
        ([(SOLUTION, {"id": "exercise-1-1"})], "02_unet.ipynb"), ([(SOLUTION, {"id": "exercise-1-1-2"})], "x.ipynb"),
        (['f = check("1.1", f)'], "02_unet.ipynb"), (["x = 1"], "kim 01_data_exploration (2).ipynb"),
        ([SOLUTION], "x.ipynb"),
        ([marked("x = 1", "2.1"), marked(""), marked("", "1.2")], "02_unet.ipynb"),  # most marks decide
    ],
)  # fmt: skip
def test_notebook_is_recognised(cells, file_name):
    assert read(*cells, file_name=file_name).notebook == "01_data_exploration"


def test_marks_that_are_no_marks_are_ignored():
    strange = [("x = 1", {"metadata": {"course": kind}}) for kind in ("1.1", None, [], {"exercise": ["1.1"]})]
    strange.append(("x = 2", {"id": "exercise-9-9"}))
    strange.append(("x = 3", {"metadata": {"course": {"exercise": "9.9"}}}))
    assert [cell.exercise for cell in read(*strange).cells] == [None] * 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"), (b"  \n", "empty"),
        (b"<html>", "not JSON"), (notebook(SOLUTION)[:-20], "not JSON"), (b"\xff\xfe\x00", "not JSON"),
        (b"[1]", "not a Jupyter notebook"), (b"3", "not a Jupyter notebook"), (b'{"a": 1}', "not a Jupyter notebook"),
        (b'{"nbformat": 4}', "not a Jupyter notebook"), (b'{"nbformat": 4, "cells": {}}', "no code"),
        (b'{"nbformat": 4, "cells": [1]}', "not a Jupyter notebook"),
        (b"[" * 100_000, "not a Jupyter notebook|not JSON"),
        (notebook(SOLUTION, nbformat=9), "not a Jupyter notebook"),
        (notebook(), "no code"), (notebook("", "  \n"), "no code"),
        (notebook(("# text", {"cell_type": "markdown"})), "no code"), (notebook("print(1)"), "not part of this course"),
    ],
)  # fmt: skip
def test_broken_files_get_a_reason(content, reason):
    with pytest.raises(BrokenNotebook, match=reason):
        read_submission(content, "homework.ipynb")


def test_byte_order_mark_and_lists_of_lines_and_the_old_format_are_read():
    lines = [line + "\n" for line in SOLUTION.split("\n")]
    assert read_submission(b"\xef\xbb\xbf" + notebook(lines), "x.ipynb").cells[0].source.startswith("def")
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": [
        {"cell_type": "code", "input": lines, "outputs": [], "language": "python", "collapsed": False}]}]}  # fmt: skip
    assert read_submission(json.dumps(old).encode(), "x.ipynb").cells[0].defines == {"count_shapes"}


@pytest.mark.parametrize(
    "source",
    [
        f"%matplotlib inline\n{SOLUTION}", f"{SOLUTION}\n!ls -l\n%timeit count_shapes([])", f"%%time\n{SOLUTION}",
        f"%%capture output\n%%time\n{SOLUTION}", f"count_shapes?\n{SOLUTION}", f"{SOLUTION}\nawait something()",
    ],
)  # fmt: skip
def test_lines_for_jupyter_do_not_matter(source):
    (cell,) = read(source).cells
    assert not cell.error and cell.defines == {"count_shapes"}


def test_cells_in_other_languages_are_empty():
    cells = read("%%bash\nif [ 1 ]; then rm -r x; fi", "%%html\n<b>", SOLUTION).cells
    assert [(cell.error, cell.statements) for cell in cells[:2]] == [("", ())] * 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def count_shapes(images)\n    return {}", r"cell 1 is not valid Python \(.+\) in line 1: def count_shapes"),
        ("def count_shapes(images):\nreturn {}", "in line 2: return"), ("%time\ndef count_shapes(:", "in line 2"),
        ("x = 1\nreturn x  # def", "in line 2: return"), ("(" * 5000, "not valid"), ("x = '\0'", "not valid"),
    ],
)  # fmt: skip
def test_cells_that_do_not_parse_say_where(source, message):
    cell = read(source).cells[0]
    assert re.search(message, cell.error), cell.error


def test_the_last_definition_above_the_check_counts_else_marked_cells():
    assert order(marked(SOLUTION), SOLUTION, CHECK, SOLUTION) == [2, 1, 4]
    assert order(SOLUTION, CHECK, SOLUTION, CHECK) == [3, 1]
    assert order(marked(f"{SOLUTION}\n{CHECK}"), SOLUTION) == [1, 2]
    assert order(marked(SOLUTION), marked(SOLUTION), SOLUTION) == [2, 1, 3]


def test_names_are_enough():
    assert order("x = 1", SOLUTION, "y = 2", "count_shapes = lambda images: {}") == [4, 2]
    assert order("def count_shapes(x)\n  pass", "class Other: pass") == [1]
    assert order("from course_utils import count_shapes", "count_shapes = 3", "count_shapes2 = 1") == []
    assert order("count_shapes = functools.partial(helper, 1)", 'count_shapes = check("1.1", count_shapes)') == [1]
    assert order("try:\n    import cv2\nexcept ImportError:\n    def count_shapes(images):\n        return {}") == [1]
    assert order("if True:\n    count_shapes = lambda images: {}", "def helper():\n    count_shapes = print()") == [1]


def test_marked_cells_may_get_the_object_from_anywhere_and_come_last_without_it():
    assert order(marked("def count_shape(images): ..."), SOLUTION, marked(""), marked("# later")) == [2, 4, 3, 1]
    assert order(marked("from helper import count_shapes")) == order(marked("count_shapes = make()")) == [1]


def test_only_what_is_needed_runs():
    found = ran(
        "import numpy as np, torch\nfrom a import b, c",
        "data = load_data()\nEPS = 1e-6\nprint(data)",
        "def helper(x):\n    return np.sum(x) + EPS",
        "model = train(data)\nfor i in range(9): step(i)",
        marked("print(1)\ndef count_shapes(images):\n    model = 1\n    return helper(images)\ncount_shapes(data)"),
        "helper = None",
    )
    assert found[:3] == ["import numpy as np", "EPS = 1e-06", "def helper(x):\n    return np.sum(x) + EPS"]
    assert len(found) == 4 and found[3].startswith("def count_shapes")


def test_what_stands_below_is_used_if_nothing_stands_above():
    found = ran(marked("def count_shapes(x: Sequence): return helper(x)"), "def helper(x): return x", "Sequence = list")
    assert [text.split("(")[0] for text in found] == ["def helper", "Sequence = list", "def count_shapes"]


def test_defaults_decorators_annotations_and_base_classes_count():
    found = ran("A = B = C = 0", "D = int", marked("@A\ndef count_shapes(x=B, y: D = C): pass"))
    assert found[:2] == ["A = B = C = 0", "D = int"]


def test_branches_and_completions_of_an_object_count():
    found = ran(
        "from helpers import *",
        "table = {}\ntable['a'] = 1",
        "if table:\n    fast = True\nelse:\n    fast = False",
        marked("def count_shapes(x): return fast\ncount_shapes.depth = 2"),
    )
    assert [text.split("\n")[0] for text in found] == [
        "from helpers import *", "table = {}", "table['a'] = 1", "if table:", "def count_shapes(x):",
        "count_shapes.depth = 2",
    ]  # fmt: skip


def test_other_exercises_and_checks_are_left_to_the_worker_but_not_helpers_in_their_cells():
    cells = [marked(f"def helper(x): return x\n{SOLUTION}"), CHECK]
    cells.append(marked("def intensity_statistics(x): return count_shapes(helper(x))", "1.2"))
    found = [text.split("(")[0] for text in ran(*cells, exercise=get_exercise("1.2"))]
    assert found == ["def helper", "def intensity_statistics"]


def test_future_imports_hold_for_all_cells():
    import __future__

    assert read("from __future__ import annotations", SOLUTION).future_flags & __future__.annotations.compiler_flag
    assert not read(SOLUTION).future_flags & __future__.annotations.compiler_flag
