"""What is found in a submitted notebook, whatever students and their editors did to it, and which of its cells run."""

import json
import re
import time

import pytest

from course_utils.exercises import get_exercise, list_exercises
from workshop.build.stand_alone import DATA, SETUP
from workshop.grade.collect.notebook_file import BrokenNotebook
from workshop.grade.judge.notebook import PARAMETERS, read_notebook
from workshop.paths import checkout

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
    return read_notebook(notebook(*cells), file_name)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "file_name"),
    [
        ([marked(SOLUTION)], "x.ipynb"),
        ([(SOLUTION, {"id": "exercise-1-1"})], "02_unet.ipynb"), ([(SOLUTION, {"id": "exercise-1-1-2"})], "x.ipynb"),
        (['f = check("1.1", f)'], "02_unet.ipynb"), (["x = 1"], "kim 01_data_exploration (2).ipynb"),
        ([SOLUTION], "x.ipynb"), (["def count_shapes(images)\n  return 1"], "x.ipynb"),
        ([marked("x = 1", "2.1"), marked(""), marked("", "1.2")], "02_unet.ipynb"),  # most marks decide
    ],
)  # fmt: skip
def test_notebook_is_recognised(cells, file_name):
    assert read(*cells, file_name=file_name).name == "01_data_exploration"


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
        read_notebook(content, "homework.ipynb")


def test_byte_order_mark_and_lists_of_lines_and_the_old_format_and_line_ends_are_read():
    lines = [line + "\n" for line in SOLUTION.split("\n")]
    assert read_notebook(b"\xef\xbb\xbf" + notebook(lines), "x.ipynb").cells[0].source.startswith("def")
    assert read(SOLUTION.replace("\n", "\r\n")).cells[0].source == SOLUTION
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": [
        {"cell_type": "code", "input": lines, "outputs": [], "language": "python", "collapsed": False}]}]}  # fmt: skip
    assert read_notebook(json.dumps(old).encode(), "x.ipynb").cells[0].defines == {"count_shapes"}


@pytest.mark.parametrize(
    "source",
    [
        f"%matplotlib inline\n{SOLUTION}", f"{SOLUTION}\n!ls -l\n%timeit count_shapes([])", f"%%time\n{SOLUTION}",
        f"%%capture output\n%%time\n{SOLUTION}", f"count_shapes?\n{SOLUTION}", f"{SOLUTION}\nawait something()",
    ],
)  # fmt: skip
def test_lines_for_jupyter_do_not_matter(source):
    (cell,) = read(source).cells
    assert not cell.error and cell.defines == {"count_shapes"} and "count_shapes" in cell.binds


def test_cells_in_other_languages_define_nothing():
    cells = read("%%bash\nif [ 1 ]; then rm -r x; fi", "%%html\n<b>", SOLUTION).cells
    assert [(cell.error, cell.defines) for cell in cells[:2]] == [("", frozenset())] * 2


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


def test_cells_that_hold_an_exercise():
    def held(*cells):
        return [cell.number for cell in read(*cells).holding(SHAPES)]

    assert held(marked("x = 1"), SOLUTION, CHECK, "def count_shapes(x)\n  pass") == [1, 2, 4]
    assert held("from course_utils import count_shapes", "count_shapes = 3", "def f():\n  count_shapes = f()") == []
    assert held("count_shapes = partial(f, 1)", "if 1:\n  count_shapes = lambda images: {}", CHECK) == [1, 2]
    assert held("try:\n    import cv2\nexcept ImportError:\n    def count_shapes(images):\n        return {}") == [1]


# --- which cells run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course():
    """Number of a notebook -> its cells as a list of pairs (text, what else the cell has)."""
    found = {}
    for path in sorted((checkout() / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[path.stem[:2]] = [("".join(cell.pop("source")), cell) for cell in cells]
    return found


def with_changes(cells, *changes):
    """The cells of a notebook in which a text is replaced in the cell that contains it."""
    made = list(cells)
    for old, new in changes:
        (place,) = [n for n, (source, cell) in enumerate(cells) if old in source and cell["cell_type"] == "code"]
        made[place] = (cells[place][0].replace(old, new), cells[place][1])
    return made


def before_the_last_check(cells, added):
    place = max(place for place, (source, _) in enumerate(cells) if " = check(" in source)
    return [*cells[:place], added, *cells[place:]]


def ran(cells, **options):
    return read(*cells).to_run(10, **options)


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05"])
def test_of_an_unchanged_notebook_only_stubs_and_checks_and_their_imports_run(course, number):
    sources = [cell["source"] for cell in ran(course[number])]
    assert all(line.startswith(("import ", "from ")) for line in sources[0].splitlines())
    assert "pandas" not in sources[0] and "matplotlib" not in sources[0]
    n_exercises = sum(exercise.notebook.startswith(number) for exercise in list_exercises())
    assert len(sources) == 1 + 2 * n_exercises
    whole = ran(course[number], whole=True)
    assert len(whole) > len(sources) and whole[0]["source"] == read(*course[number]).cells[0].source


@pytest.mark.parametrize(
    ("added", "runs"),
    [
        ("print(awkward)", ["sides = sorted(", "shapes = pd.DataFrame", "data = load_data", "import pandas as pd"]),
        ("def helper(): return ids_of", ["def ids_of"]), ("sides += [1]", ["sides = sorted("]),
        ("del sides", ["sides = sorted("]), ("print(globals()['sides'])", ["sides = sorted("]),
        ("eval('sides')", ["sides = sorted("]), ("%time sides", ["sides = sorted("]),
        ("from __main__ import sides", ["sides = sorted("]), ("print(matplotlib)", ["import matplotlib.pyplot as plt"]),
        ("%%time\nlen(sides)", ["sides = sorted("]), ("!echo {sides}", ["sides = sorted("]),
        ("print(sides", ["sides = sorted("]), ("await sides", ["sides = sorted("]),
    ],
)  # fmt: skip
def test_cells_of_the_course_run_if_a_name_is_used(course, added, runs):
    """Directly, or by another one that runs; whatever the way in which it is used."""
    cells = before_the_last_check(course["01"], added)
    text = "\n".join(cell["source"] for cell in ran(cells))
    assert [start for start in runs if start not in text] == []
    assert "record_scores(" not in text and "figure, axes" not in text


@pytest.mark.parametrize("added", ["print(_)", "Out[3]", "rows = []\ndef note(row):\n    rows.append(row)",
                                   "def note():\n    global last\n    last = 1", "class A:\n    n = 0\n"
                                   "    def __init__(self):\n        A.n += 1"])  # fmt: skip
def test_all_cells_run_if_code_notes_that_it_is_called_or_uses_earlier_outputs(course, added):
    cells = before_the_last_check(course["01"], added)
    assert ran(cells) == ran(cells, whole=True)


def test_names_that_only_stand_in_comments_docstrings_and_functions_are_not_used(course):
    added = 'def helper(model):\n    """model, data"""\n    data = model.eval()  # sides\n    return data["sides"]'
    assert len(ran([*course["01"][:10], (added, {}), *course["01"][10:]])) == 1 + len(ran(course["01"]))


def test_cells_of_the_course_have_more_time(course):
    cells = before_the_last_check(course["01"], added := "print(data)")
    seconds = {cell["source"].split("\n")[0]: cell["seconds"] for cell in ran(cells)}
    assert seconds["data = load_data(data_source)"] == 100 and seconds[added] == 10


@pytest.mark.parametrize("change", [[], [('profile = "auto"', 'profile = "full"')], [('"embedded"', '"dsb2018"')]])
def test_parameters_are_those_of_a_quick_run(course, change):
    cells = before_the_last_check(with_changes(course["01"], *change), "print(data, profile, output)")
    names = {}
    for cell in ran(cells):
        if "data_source =" in cell["source"]:
            exec(cell["source"], names)
    assert {name: names[name] for name in PARAMETERS} == PARAMETERS


def test_no_cell_runs_behind_the_last_check():
    cells = [SOLUTION, CHECK, "print(1)"]
    assert [cell["number"] for cell in ran(cells)] == [1, 2]
    assert [cell["number"] for cell in ran([*cells, "def standardize(): ..."])] == [1, 2, 3, 4]
    assert [cell["number"] for cell in ran(["from course_utils.exercises import check as c", *cells])] == [1, 2, 3, 4]
    assert read(*cells).last_check(SHAPES) == 2


def test_what_is_left_out_has_names(course):
    """If code may look for them with names that it makes up."""
    left_out = read(*before_the_last_check(course["01"], "globals()['dat' + 'a']")).left_out
    assert {"sides", "data", "pd"} <= left_out and not left_out & {"np", "check", "count_shapes"}
    assert not read(*course["01"]).left_out


def test_the_stand_alone_version_neither_unpacks_the_course_nor_draws_images(course):
    setup = SETUP.format(lines='    "abc"\n    "def"')
    cells = [setup, 'data_source = "kaggle"\nprofile = "auto"', DATA, SOLUTION, "print(sys, data_source)", CHECK]
    texts = [cell["source"] for cell in ran(cells)]
    assert "import base64" in texts[0]
    assert not any("extractall" in text or "sys.path" in text or "write_dataset" in text for text in texts)
    names = {}
    exec("\n".join(texts[:3]), names)
    assert names["data_source"] == "embedded"


def test_code_that_takes_long_to_read_is_said():
    with pytest.raises(BrokenNotebook, match="500000 characters"):
        read_notebook(notebook("x = 1\n" * 100_000), "01_data_exploration.ipynb")
    text = "from course_utils.data import x\n" + "find_kaggle_input " * 20_000
    started = time.process_time()
    assert read_notebook(notebook(text, CHECK), "x.ipynb").cells[0].error
    assert read_notebook(notebook("%pwd\n" * 600, CHECK), "x.ipynb").cells[0].error
    assert time.process_time() - started < 30
