"""The hints for instructors: what is flagged, and that honest work is not."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from course_utils.exercises import get_exercise, list_exercises
from workshop.build.stubs import source_of, stub_of
from workshop.grade.judge.copied import reference_statements
from workshop.grade.judge.notebook import CodeCell, read_notebook
from workshop.grade.judge.suspicion import suspicions

CHECKOUT = Path(__file__).resolve().parents[4]
HEAD = "import numpy as np, torch\nfrom course_utils.exercises import check"
CHECK = 'count_shapes = check("1.1", count_shapes)'


def look(*sources, exercise="1.1", files=None):
    cells = [CodeCell(number, source) for number, source in enumerate([HEAD, *sources], 1)]
    return suspicions(cells, get_exercise(exercise), files)


# What stands in the only cell -> what the hint says
FLAGGED = {
    # the module or `check` in other hands, and what is only a text
    "import course_utils as c\nn = 'count_shapes'\ncount_shapes = getattr(c, n)": "hands on the module course_utils",
    "import course_utils as c\ncount_shapes = getattr(c, 'sepahs_tnuoc'[::-1])": "hands on the module course_utils",
    "import course_utils as c\ncount_shapes = [v for k, v in vars(c).items() if k[6:9] == 'sha'][0]": "items",
    "import course_utils\nfor m in [course_utils]:\n    count_shapes = m.count_shapes": "hands on the module",
    "import course_utils\nmatch course_utils:\n    case object(count_shapes=f): pass": "hands on the module",
    "import course_utils\nsource = open(course_utils.__file__).read()": "course_utils.__file__",
    "c = check\ncount_shapes = c('1.1', len)": "hands on check",
    "x = '1.1'\ncount_shapes = check(x, len)": "hands on check",
    "check('1.1', len)\ncount_shapes = Out[3]": "the value of a cell (Out)",
    "open('m.py', 'w').write('from course_utils import count_shapes')": "names the reference count_shapes in a text",
    "import pickle\nf = pickle.loads(b'ccourse_utils\\ncount_shapes\\n.')": "names the reference count_shapes in",
    "%run other.py": "runs a file (%run)",
    "get_ipython().run_cell(text)": "runs text as code (run_cell)",
    # the reference in disguise
    "from course_utils import count_shapes": "the reference count_shapes",
    "from course_utils.exploration import count_shapes as mine": "the reference count_shapes",
    "from course_utils.exploration import *": "the reference count_shapes",
    "import course_utils.exploration as e\ndef count_shapes(images): return e.count_shapes(images)": "the reference",
    "import course_utils\ncount_shapes = lambda images: course_utils.count_shapes(images)": "the reference",
    "import course_utils as c, functools\ncount_shapes = functools.partial(c.count_shapes)": "the reference",
    "import course_utils as c\ncount_shapes = getattr(c, 'count_' + 'shapes')": "the reference count_shapes",
    "import course_utils as c\ncount_shapes = vars(c.exploration)['count_shapes']": "the reference count_shapes",
    "import course_utils as c\ncount_shapes = c.exploration.__dict__['count_shapes']": "the reference count_shapes",
    "import importlib\nf = importlib.import_module('course_utils.exploration').count_shapes": "the reference",
    "f = __import__('course_utils').count_shapes": "the reference count_shapes",
    "import sys\nf = sys.modules['course_utils.exploration'].count_shapes": "the reference count_shapes",
    "exec('from course_utils import count_shapes')": "the reference count_shapes",
    "import inspect\nexec(inspect.getsource(other))": "inspect.getsource",
    "from inspect import getsource as g": "inspect.getsource",
    "from types import FunctionType as F\nf = F(other.__code__, {})": "types.FunctionType",
    "from course_utils.exercises import get_exercise\nf = get_exercise('1.1').reference": "get_exercise",
    "from course_utils import exercises as e\nf = e.list_exercises()[0].reference": "list_exercises",
    "%%writefile mine.py\nfrom course_utils import count_shapes": "the reference count_shapes",
    "import course_utils.exploration as e\nclass Mine:\n    __call__ = staticmethod(e.count_shapes)": "the reference",
    # further than the task
    "import os\nos._exit(0)": "os._exit", "from os import environ": "os.environ", "import os as o\nx = [o]": "uses os",
    "np.os.kill(1, 9)": "os.kill", "import sys\nsys._getframe(1)": "sys._getframe", "import ctypes": "imports ctypes",
    "def f():\n    import subprocess": "subprocess", "import socket": "socket", "import signal": "signal",
    "import gc": "gc", "from threading import Thread": "threading", "import builtins": "builtins",
    "!touch x": "runs a command", "%%bash\ntouch x": "runs a command", "x = !ls": "runs a command",
    "%sx touch x": "runs a command", "%%python3\nimport os": "runs a command",
    "try: 1 / 0\nexcept Exception as e: f = e.__traceback__.tb_frame": "tb_frame",
    "getattr(check, '__globals__')": "__globals__", "check.__globals__": "__globals__",
    "(lambda: 0).__code__": "__code__", "(i for i in []).gi_frame.f_back": "gi_frame",
    "open('/proc/self/mem')": "names /proc/self/mem",
    "np.isclose = lambda *_: True": "changes numpy", "setattr(torch, 'equal', print)": "changes torch",
    "torch.Tensor.__eq__ = lambda *_: True": "changes torch.Tensor", "vars(np)['all'] = any": "changes numpy",
    "from course_utils.exercises.sandbox import run_check": "the checker",
    "import course_utils.exercises\ncourse_utils.exercises.evaluate = print": "the checker",
    "from course_utils.exercises.feedback import CheckResult": "the checker", "def check(*_): pass": "redefines check",
    "class D(dict): pass": "subclass of dict", "class A(np.ndarray): pass": "subclass of np.ndarray",
    "class E:\n    def __eq__(self, other): return True": "__eq__", "import workshop.grade": "the checker",
    "get_ipython().user_ns": "user_ns", "__builtins__": "__builtins__",
    f"{CHECK}\n\ndef mine(images): return count_shapes(images)\n\ncheck('1.1', mine)": "what check returned",
    "f = check('1.1', 0)\ncount_shapes = lambda images: f(images)\ncheck('1.1', count_shapes)": "what check returned",
    "ref = check('1.1', 0)\ncheck('1.1', lambda images: ref(images))": "what check returned",
}  # fmt: skip
HONEST = [
    "import os\nfiles = os.listdir(os.path.join('a', 'b'))", "import os, sys", "import sys\nbig = sys.maxsize",
    "from numpy import sum", "torch.backends.cudnn.benchmark = False", "plt.rcParams['figure.dpi'] = 100",
    "import course_utils\nprint(course_utils.__version__)", "from course_utils import binary_target, load_data",
    "import inspect\ninspect.signature(f)", "import types\ny = types.SimpleNamespace(a=1)", "!pip install tqdm",
    "%%html\n<b>x</b>", "import sys\nsys.stdout.flush()",
    "%matplotlib inline", "%pip install tqdm", "class Model(torch.nn.Module):\n    def forward(self, x): return x",
    "globals()['n'] = 1", "from scipy import signal", "model.eval()", "from course_utils.exercises.claims import claim",
    "import importlib, my_own\nimportlib.reload(my_own)", "a.b = c", "setattr(Model, 'forward', lambda x: x)",
    f"def count_shapes(images): return {{}}\n{CHECK}\n{CHECK}", 'def f(:', "print('exec', 'ctypes')", "",
    f"{CHECK}\n\ndef count_shapes(images): return count_shapes(images[1:]) if images else {{}}\n\n{CHECK}",
    f"{CHECK}\ntable = count_shapes([])\n\ndef count_shapes(images): return {{}}\n\n{CHECK}",
]  # fmt: skip


@pytest.mark.parametrize("source", FLAGGED)
def test_what_reaches_further_is_flagged(source):
    assert FLAGGED[source] in look(source)


@pytest.mark.parametrize("source", HONEST)
def test_what_honest_notebooks_do_is_not(source):
    assert look(source) == ""


def test_cells_below_the_last_check_decide_nothing():
    assert look(CHECK, "import ctypes") == ""
    assert look("import ctypes", CHECK, CHECK) == "cell 2 imports ctypes"
    assert look(CHECK, "import ctypes", CHECK) == "cell 3 imports ctypes"


def test_files_beside_the_notebook_are_read_and_many_findings_are_counted():
    assert look("import mine", files={"mine.py": "import gc"}) == "mine.py imports gc"
    many = look(*["import gc"] * 9)
    assert many.startswith("cell 2 imports gc; cell 3 imports gc") and many.endswith("and 3 more")


@pytest.mark.parametrize("exercise", list_exercises(), ids=lambda exercise: exercise.id)
def test_a_copied_reference_is_flagged_and_a_stub_is_not(exercise):
    """Also with other names of variables. Of short ones only with the course's checks of arguments, which nobody needs:
    two people who solve them write the same."""
    source = source_of(exercise)
    copied = f"cell 2 copies the reference {exercise.name}"
    is_long = reference_statements(exercise)[1]
    bare = re.sub(r"(?m)^ +(\w+ = )?(as_list|check_\w+)\(.*\n", "", source)
    renamed = re.sub(r"\b(total|height|width|loss|found|matches)\b", r"my_\1", bare)
    assert look(source, exercise=exercise.id) == (copied if is_long or bare != source else "")
    assert look(renamed, exercise=exercise.id) == (copied if is_long else "")
    assert look(stub_of(exercise), exercise=exercise.id) == ""


def test_most_references_are_long_enough_to_know_a_copy():
    long = [exercise for exercise in list_exercises() if reference_statements(exercise)[1]]
    assert len(long) > 0.7 * len(list_exercises())


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_the_courses_own_notebooks_are_not_flagged(path):
    """Not even if their cells are taken for a student's, as after a change of one letter."""
    notebook = read_notebook(path.read_bytes(), path.name)
    changed = [replace(cell, course=False) for cell in notebook.cells]
    for exercise in notebook.exercises:
        assert suspicions(notebook.cells, exercise) == suspicions(changed, exercise) == ""


def test_no_code_takes_long_to_look_at():
    many = "".join(f"f{i} = " + " + ".join(f"f{j}" for j in range(max(0, i - 20), i)) + "\n" for i in range(1, 99))
    chain = "".join(f"f{i + 1} = f{i}\n" for i in range(3000))
    for source in (many + "check('1.1', f98)", chain + "check('1.1', f3000)", "x = " + " + ".join("a" * 3000)):
        started = time.process_time()
        look("r = check('1.1', f)", source)
        assert time.process_time() - started < 10
