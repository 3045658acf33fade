"""What the box does: notebooks of many kinds hand `check` the objects that a kernel would hand it.

Each notebook runs once, in a process that these tests drive through its pipes, as the judge does.
"""

import os
import pickle
import re
import secrets
import subprocess
import sys

import psutil
import pytest

from workshop.grade.judge import values

CHECK = "from course_utils.exercises import check\n"


class Driven:
    """A notebook in the box, whose checks ask nothing but what the test asks."""

    def __init__(self, folder, cells, notebook="01_data_exploration", ask=(), verdict="failed", **start):
        self.said = []
        for name in ("files", "work"):
            (folder / name).mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "workshop.grade.box.inside", str(folder / "files"), str(folder / "work")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        ) as self.process:
            self.send({"start": {"cells": cells, "exercises": ["1.1"], "live": [], "memory": 2, "seconds": 5,
                                 "faults": {}, **start}})  # fmt: skip
            while message := self.receive():
                self.said.append(message)
                if "check" in message and ask is None:
                    self.process.stdin.close()
                elif "check" in message:
                    for question in ask.get(message["check"], ()) if isinstance(ask, dict) else ask:
                        self.send(question)
                        self.said.append(self.receive())
                    self.send({"verdict": {"status": verdict, "messages": ["No."], "timed_out": False}})

    def send(self, message):
        self.secret = secrets.token_hex(8)
        payload = values.pack(message | {"secret": self.secret})
        self.process.stdin.write(len(payload).to_bytes(8, "big") + payload)
        self.process.stdin.flush()

    def receive(self):
        if header := self.process.stdout.read(8):
            message = values.unpack(self.process.stdout.read(int.from_bytes(header, "big")))
            assert message.pop("secret") == self.secret
            return message
        return None

    def all(self, word):
        return [message[word] for message in self.said if word in message]


def numbered(sources, seconds=5):
    return [{"number": number, "source": source, "seconds": seconds} for number, source in enumerate(sources, 1)]


def call(*arguments, **options):
    request = pickle.dumps((arguments, options, None))
    return {"call": request, "seconds": 1.6, "traced": False}


# kind -> cells; the object that is handed to `check` gives 7 for 3
KINDS = {
    "an import that hides a built-in": ["from numpy import sum",
                                        "def f(x): return sum(np.array([[x], [4]]), axis=0)[0]"],
    "a helper named like a built-in": ["def max(a): return a + 4", "def f(x): return max(x)"],
    "a dict filled later": ["table = {}", "table['a'] = 4", "def f(x): return x + table['a']"],
    "a list filled in a loop": ["rows = []\nfor i in range(4):\n    rows.append(i)", "def f(x): return x + len(rows)"],
    "a registry": ["known = {}\ndef register(g):\n    known[g.__name__] = g\n    return g",
                   "@register\ndef plus(x): return x + 4", "f = known['plus']"],
    "setattr": ["class Adds:\n    def __call__(self, x): return self.plus(x)",
                "setattr(Adds, 'plus', lambda self, x: x + 4)", "f = Adds()"],
    "a method from another cell": ["def add_to_class(kind):\n    return lambda g: setattr(kind, g.__name__, g)",
                                   "class Adds: pass", "@add_to_class(Adds)\ndef plus(self, x): return x + 4",
                                   "f = Adds().plus"],
    "global": ["def choose():\n    global offset\n    offset = 4\nchoose()", "def f(x): return x + offset"],
    "globals()": ["globals()['off' + 'set2'] = 4", "def f(x): return x + offset2"],
    "a written module": ["%%writefile adding.py\ndef plus(x): return x + 4", "from adding import plus", "f = plus"],
    "magics": ["%matplotlib inline\n%config InlineBackend.figure_format = 'retina'\noffset3 = 4",
               "%%time\ndef f(x): return x + offset3", "%timeit -n 1 -r 1 f(3)\n%load_ext autoreload\n%autoreload 2"],
    "capture": ["%%capture said\nprint('4')", "def f(x): return x + int(said.stdout)"],
    "shell": ["said2 = !echo 4", "def f(x): return x + int(said2[0])", "!true\n%cd ."],
    "await": ["import asyncio\nasync def four():\n    await asyncio.sleep(0)\n    return 4", "offset4 = await four()",
              "def f(x): return x + offset4"],
    "a task between cells": ["task = asyncio.ensure_future(four())", "offset5 = await task",
                             "def f(x): return x + offset5"],
    "with": ["import io\nwith io.StringIO('4') as stream: offset6 = int(stream.read())",
             "def f(x): return x + offset6"],
    "for": ["for offset7 in range(5): pass", "def f(x): return x + offset7"],
    "walrus": ["print(offset8 := 4)", "def f(x): return x + offset8"],
    "a class over cells": ["class Base:\n    offset = 4",
                           "class Adds2(Base):\n    def __call__(self, x): return x + self.offset",
                           "f = Adds2()"],
    "In and Out": ["2 + 2", "offset9 = _", "def f(x): return x + offset9 if len(In) > 3 and Out else None"],
    "__main__": ["import pickle\nclass Kept:\n    offset = 4\nkept = pickle.loads(pickle.dumps(Kept()))",
                 "def f(x): return x + kept.offset if __name__ == '__main__' else None"],
    "an error ends its cell only": ["offset10 = 4\n1 / 0\noffset10 = 5", "def f(x): return x + offset10"],
    "exit ends its cell only": ["import sys\noffset11 = 4\nsys.exit()\noffset11 = 5", "exit()", "quit", "quit()",
                                "def f(x): return x + offset11"],
    "no asyncio.run": ["try:\n    asyncio.run(four())\nexcept RuntimeError:\n    offset12 = 4",
                       "def f(x): return x + offset12"],
    "no input": ["try:\n    input()\nexcept Exception:\n    offset13 = 4", "def f(x): return x + offset13"],
    "display": ["display(4)\nget_ipython().run_line_magic('who', '')", "f?", "def f(x): return x + 4", "f?\nf??"],
    "figures": ["import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nfrom course_utils.display import show",
                "show(plt.gcf(), 'A line.')", "def f(x): return x + 4"],
    "future": ["from __future__ import annotations", "def f(x: no_such_name): return x + 4"],
    "from __main__": ["offset14 = 4", "from __main__ import offset14 as o", "def f(x): return x + o"],
    "a partial": ["from functools import partial", "f = partial(lambda a, b: a + b, 4)"],
    "a file beside": ["import helper", "f = helper.plus"],
    "a course loaded again": ["import importlib, course_utils.exercises as e\nimportlib.reload(e)",
                              "def f(x): return x + 4"],
    "patched course": ["import course_utils.metrics\ncourse_utils.metrics.offset = 4",
                       "def f(x): return x + course_utils.metrics.offset"],
}  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Kind -> what the object that was handed to `check` gives for 3. All kinds stand in one notebook."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "files").mkdir()
    (folder / "files" / "helper.py").write_text("def plus(x): return x + 4")
    cells, names = [CHECK + "import numpy as np"], []
    for kind, sources in KINDS.items():
        cells += [*sources, "print(check('1.1', f))", "%reset_selective -f ^f$" if kind == "magics" else "del f"]
        names += [kind]
    run = Driven(folder, numbered(cells), ask=[call(3)])
    values_ = [values.unpack(one["value"]) if "value" in one else one for one in run.said if "printed" in one]
    assert len(values_) == len(names), run.said
    return dict(zip(names, values_, strict=True)), run


@pytest.mark.parametrize("kind", KINDS)
def test_the_object_is_that_of_the_kernel(kinds, kind):
    assert kinds[0][kind] == 7


def test_an_error_ends_its_cell_only(kinds):
    errors = [text.split(" raised ")[1] for text in kinds[1].all("error")]
    assert errors == ["ZeroDivisionError: division by zero.", *["SystemExit."] * 4]


# --- limits and what is out of order ----------------------------------------------------------------------------------

ODD = {
    "computes for ever": ("while True: pass", "Time: cell"),
    "swallows": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", "Time: cell"),
    "sleeps": ("import time\ntime.sleep(1000)", "Time: cell"),
    "waits in the loop": ("await asyncio.sleep(1000)", "Time: cell"),
    "memory": ("import numpy as np\nkept = np.ones(10**10)", "MemoryError"),
    "no Python": ("def f(:\n  pass", "Syntax: cell"),
    "an odd line": ("x = 'a\n", "Syntax: cell"),
    "an odd error": ("class Odd(Exception):\n    def __str__(self): 1 / 0\nraise Odd", "raised Odd"),
    "standard streams": ("import os, sys\nos.write(1, b'x' * 10**6)\nprint('y' * 10**7)\nsys.stdout.close()\n"
                         "os.close(0)\nos.close(1)\nraise ValueError('all lead nowhere')", "all lead nowhere"),
    "a check elsewhere": ("if not (child := os.fork()):\n    try:\n        check('1.2', f)\n    finally:\n"
                          "        os._exit(5)\n_, code = os.waitpid(child, 0)\nraise ValueError(code >> 8)",
                          "ValueError: 5"),
    "no such exercise": ("check('9.9', f)", "There is no exercise '9.9'"),
    "a group": ("raise ExceptionGroup('several', [ValueError()])", "ExceptionGroup: several"),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """What a notebook says whose cells do what they should not; its last cell checks something."""
    setup = [CHECK + "import asyncio\nf = lambda x: x", "offset = 4"]
    last = ["from course_utils import standardize\ncheck('1.3', standardize)", "check('1.1', lambda x: x + offset)",
            "def split_train_val(x): return x"]  # fmt: skip
    cells = numbered([*setup, *(source for source, _ in ODD.values()), *last], seconds=0.5)
    folder = tmp_path_factory.mktemp("odd")
    faults = {"cell 2": "It ended the last box."}
    return Driven(folder, [*cells], ask=[call(3)], faults=faults, exercises=["1.1"], unchecked=["1.1", "1.2", "1.4"])


@pytest.mark.parametrize("kind", ODD)
def test_what_a_cell_does_ends_this_cell_only(odd, kind):
    number = [*ODD].index(kind) + 3
    errors = {message["cell"]: message["error"] for message in odd.said if "cell" in message}
    assert ODD[kind][1] in errors[number] and f"cell {number}" in errors[number], errors[number]


def test_cells_that_ended_an_earlier_box_do_not_run_again(odd):
    assert odd.said[1:3] == [{"step": "cell 2"}, {"cell": 2, "error": "It ended the last box."}]
    (error,) = [error for error in odd.all("error") if isinstance(error, dict)]
    assert "offset" in str(error["exception"])


def test_the_reference_is_not_judged_and_what_is_not_checked_is_at_the_end(odd):
    assert odd.all("check") == ["1.1", "1.4"] and odd.all("shown") == ["1.3"]
    assert odd.said[-1] == {"end": {}}


# --- checks in the box ------------------------------------------------------------------------------------------------

COUNT = "def count_parameters(model):\n    return {}"
RIGHT = "sum(p.numel() for p in set(model.parameters()) if p.requires_grad)"
FRAMES = """def count_parameters(model):
    frame = sys._getframe()
    while frame := frame.f_back:
        names = [name for name in frame.f_globals if name.startswith(("expect", "fail"))]
        frame.f_globals.update({name: lambda *_, **__: None for name in names})
    return 0"""
# kind -> cells, and what the message of the check says in the end
LIVE = {
    "right": ([COUNT.format(RIGHT)], "Right."),
    "wrong": ([COUNT.format("0")], "found 0"),
    "a stub": (["def count_parameters(model):\n    raise NotImplementedError('Later.')"], "Later."),
    "exit": ([COUNT.format("sys.exit(3)")], "SystemExit"),
    "the end of the process": ([COUNT.format("os._exit(3)")], "exit code 3"),
    "a crash": ([COUNT.format("os.kill(os.getpid(), 9)")], "signal 9"),
    "a daemon": ([COUNT.format("os.fork() or time.sleep(30)")], "of processor time|found"),
    "names of the checker": (["import course_utils.exercises.feedback as one",
                              "import course_utils.exercises.sandbox as two",
                              "one.fail = one.expect_close = lambda *_, **__: None\ntwo.run_check = lambda *_: 1",
                              COUNT.format("0")], "found 0"),
    "libraries": (["np.isclose = np.allclose = lambda *_, **__: np.True_\ntorch.equal = lambda *_: True",
                   "import builtins\nbuiltins.abs = builtins.round = lambda *_: 0",
                   "import contextlib\ncontextlib.redirect_stdout = contextlib.suppress",
                   COUNT.format("0")], "found 0"),
    "code": (["torch.nn.Module.parameters.__code__ = (lambda self, recurse=True: iter(())).__code__",
              COUNT.format("0")], "found 0"),
    "frames": ([FRAMES], "found 0|during the check your code replaced"),
}  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Kind -> the message of the check in the box, and the status."""
    cells = [CHECK + "import os, sys, time, numpy as np, torch"]
    for sources, _ in LIVE.values():
        cells += [*sources, "check('2.4', count_parameters)"]
    folder = tmp_path_factory.mktemp("live")
    run = Driven(folder, numbered(cells), ask=[{"live": True}], exercises=["2.4"])
    answers = [message for message in run.said if "result" in message or "died" in message]
    assert len(answers) == len(LIVE), run.said
    return dict(zip(LIVE, answers, strict=True))


@pytest.mark.parametrize("kind", LIVE)
def test_checks_in_the_box_are_those_that_were_loaded_before(live, kind):
    found = live[kind].get("result") or {"status": "failed", "messages": [live[kind]["died"]]}
    assert re.search(LIVE[kind][1], " ".join(found["messages"])), found
    assert found["status"] == {"right": "passed", "a stub": "todo"}.get(kind, "failed")


def test_a_box_ends_with_the_judge_and_takes_along_what_it_started(tmp_path):
    source = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])"
    note = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    run = Driven(tmp_path, numbered([CHECK, source, note, "check('1.1', note)", "check('1.1', 3)"]), ask=None)
    assert run.process.returncode == -9
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
