"""What the box does: notebooks of many kinds hand `check` the objects that a kernel would hand it.

Each notebook runs once, in a process that these tests drive through its pipes, as the judge does.
"""

import os
import pickle
import secrets
import subprocess
import sys

import pytest

from workshop.grade import values

CHECK = "from course_utils.exercises import check\n"


class Driven:
    """A notebook in the box, whose checks ask nothing but what the test asks."""

    def __init__(self, folder, cells, notebook="01_data_exploration", ask=(), verdict="failed", **start):
        self.said = []
        for name in ("files", "work"):
            (folder / name).mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "workshop.grade.inside", str(folder / "files"), str(folder / "work")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        ) as self.process:
            self.send({"start": {"cells": cells, "exercises": ["1.1"], "live": [], "memory": 2, "seconds": 5,
                                 "faults": {}, **start}})  # fmt: skip
            while message := self.receive():
                self.said.append(message)
                if "check" in message:
                    for question in ask:
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
