"""Grading: a whole class with every kind of broken notebook, interruptions, and what the tables say."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from quick import mostly_slow

from course_utils.exercises import get_exercise, list_exercises
from workshop.build.stubs import source_of, stub_of
from workshop.cluster import ClusterError
from workshop.command_line import main
from workshop.grade import grading
from workshop.grade.box.box import BoxEnded, Limits
from workshop.grade.box.sandbox import Sandbox
from workshop.grade.collect.handed_in import HandedIn
from workshop.grade.grading import GradingError, Wanted, grade
from workshop.grade.judge import process
from workshop.grade.judge.judge import CourseFault
from workshop.grade.judge.process import Graded, grade_notebook
from workshop.grade.kept import Kept
from workshop.grade.report.table import COLUMNS, Outcome, Row

CHECKOUT = Path(__file__).resolve().parents[3]
IMPORTS = """import math, os, subprocess, sys, time, torch, numpy as np
from collections import Counter
from collections.abc import Iterable, Sequence
from torch import nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from course_utils.arguments import *
from course_utils.exercises import check"""
LIMITS = Limits(seconds=8, memory=1)
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and links as on Linux and macOS")
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no limit on memory elsewhere")


# --- submissions ------------------------------------------------------------------------------------------------------


def cell(source, exercise=None):
    metadata = {"course": {"exercise": exercise}} if exercise else {}
    return {"cell_type": "code", "metadata": metadata, "execution_count": None, "outputs": [], "source": source}


def notebook(cells):
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


def submission(solutions, marked=True, before=()):
    """A notebook with these solutions (exercise id -> source), each with its check behind it."""
    cells = [cell(IMPORTS), *map(cell, before)]
    for exercise, source in solutions.items():
        name = get_exercise(exercise).name
        cells += [cell(source, exercise if marked else None), cell(f'{name} = check("{exercise}", {name})')]
    # what would take too long, or fail, if it was run
    cells += [cell("data = load_data()\nfor epoch in range(10**12):\n    loss = epoch\nassert False")]
    return notebook(cells)


def right(*exercises):
    return {exercise: source_of(get_exercise(exercise)) for exercise in exercises}


def function(exercise, body, arguments="*_, **__"):
    return {exercise: f"def {get_exercise(exercise).name}({arguments}):\n    {body}"}


ORDINARY = right("1.1") | function("1.3", "return (image - mean) / std * 1.0", "image, mean, std")
ORDINARY |= {"1.6": stub_of(get_exercise("1.6"))}
BAD_CELLS = submission(
    right("1.1")
    | {"1.2": "def intensity_statistics(images)\n    return 0.0, 1.0"}
    | function("1.3", "return helper", "image, mean, std")
    | function("1.4", "return endless", "samples, every=20")
    | {"1.5": "print('x' * 10**7, flush=True)\n" + function("1.5", "print('y' * 10**6); return input()")["1.5"]}
    | function("1.6", "raise NotImplementedError('=1+1')")
    | {"1.7": "class NucleiDataset(Dataset):\n    def __init__(self, *_, **__):\n"
              "        raise ValueError(os.getcwd() + ' ' + str(os.environ.get('COURSE_TEST_TOKEN')))"},
    before=["helper = sys.exit(0)", "while True:\n    pass\nendless = 0"],
)  # fmt: skip
EXITS = submission(
    right("1.1") | function("1.2", "return limit") | function("1.3", "os._exit(0)") | right("1.6"),
    before=["limit = os._exit(3)"],
)
CRASHES = submission(function("1.1", "import ctypes; ctypes.string_at(0)") | right("1.6"))
MEMORY = submission(function("1.1", "blocks = []\n    while True: blocks.append(bytearray(10**8))") | right("1.6"))
SWALLOWS = submission(function("1.1", """while True:
        try: time.sleep(0.01)
        except BaseException: pass""") | right("1.6"))  # fmt: skip
SLOW_AT_FIRST = source_of(get_exercise("1.1")).replace("return", "time.sleep(waits.pop())\n    return")
MODULE = source_of(get_exercise("1.1")).replace("Iterable[np.ndarray]", "object")
MODULE = "from collections import Counter\nfrom course_utils.arguments import *\n" + MODULE
NO_BLOCK = "class ConvBlock(nn.Module):\n    def __init__(self, *_, **__):\n        super().__init__()"
# The second block asks what its ConvBlock is: the student's is defined in the notebook.
QUESTION = "super().__init__()\n        assert ConvBlock.__module__ == '__main__', 'the course'"
ASKS = source_of(get_exercise("2.2")).replace("super().__init__()", QUESTION)
# A loop that no alarm interrupts, and a program that it leaves behind
HANGS = submission(function("1.1", """child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])
    open('PID_FILE', 'w').write(str(child.pid))
    import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True: time.sleep(0.01)""") | right("1.6"))  # fmt: skip


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def lines(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# --- a class ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graded_class(tmp_path_factory):
    """A class in which everything goes wrong that can; the rows, the file's lines, and its folder."""
    folder = tmp_path_factory.mktemp("class")
    first, second = "01_data_exploration.ipynb", "02_unet.ipynb"
    write(folder / "submissions", {
        f"ana/notebooks/{first}": submission(ORDINARY),
        "ben/my homework.ipynb": submission(ORDINARY, marked=False),
        "ana/.ipynb_checkpoints/01_data_exploration-checkpoint.ipynb": "old",
        f"bad cells/{first}": BAD_CELLS,
        "01_data_exploration_exits.ipynb": EXITS,
        f"crashes/{first}": CRASHES,
        f"hangs/{first}": HANGS.replace("PID_FILE", (folder / "pid.txt").as_posix()),
        f"swallows/{first}": SWALLOWS,
        f"memory/{first}": MEMORY,
        f"kept/{first}": submission(
            function("1.1", "return {}"),
            before=[right("1.1")["1.1"].replace("count_shapes", "your_count_shapes"), "your_binary_target = len"],
        ),
        f"slow/{first}": submission({"1.1": SLOW_AT_FIRST}, before=["waits = [0] * 1000 + [5]"]),
        f"module/{first}": submission({"1.1": "from my_own import count_shapes", "1.3": ""}),
        "module/my_own.py": MODULE,
        "module/torch.py": "raise SystemExit",
        f"imported/{first}": submission({"1.1": "from course_utils import count_shapes", "1.2": "def mean(): pass"}),
        f"not json/{first}": "<html>Please log in</html>",
        f"cut off/{first}": submission(ORDINARY)[:-100],
        f"format/{first}": '{"nbformat": 9, "cells": []}',
        f"no code/{first}": notebook([]),
        "unknown/thesis.ipynb": notebook([cell("print(1)")]),
        "empty folder/readme.txt": "sorry",
        **{f"{version}/{name}.ipynb": (CHECKOUT / version / f"{name}.ipynb").read_bytes()
           for name in ("01_data_exploration", "04_instance_evaluation") for version in ("notebooks", "solutions")},
        # exercises that build on others
        f"block/{second}": submission(right("2.1") | {"2.2": ASKS}),
        f"no block/{second}": submission({"2.1": NO_BLOCK} | right("2.2", "2.3")),
        f"no block asks/{second}": submission({"2.1": NO_BLOCK, "2.2": ASKS}),
        # the process that goes on after 2.4 has to know what 2.1 and 2.2 were
        f"block exits/{second}": submission(
            right("2.1") | {"2.2": ASKS} | function("2.4", "os._exit(1)") | function("2.5", "os._exit(1)")
        ),
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_TEST_TOKEN", "secret")
        patch.setattr(grading, "course_code", lambda: "the course does not change meanwhile")
        rows = grade(folder / "submissions", folder / "grades.csv", workers=2, limits=LIMITS, sandbox="unsafe")
    return {"rows": rows, "table": lines(folder / "grades.csv"), "folder": folder}


def message(graded_class, student, exercise=""):
    messages = {(row["student"], row["exercise"]): row["message"] for row in graded_class["table"]}
    return messages[student, exercise]


@pytest.mark.parametrize(
    ("student", "statuses"),
    [
        ("ana", {"1.1": "passed", "1.3": "failed"}), ("ben", {"1.1": "passed", "1.3": "failed"}),
        ("bad cells", {"1.1": "passed"} | dict.fromkeys(["1.2", "1.3", "1.4", "1.5", "1.7"], "failed")),
        ("exits", {"1.1": "passed", "1.2": "failed", "1.3": "failed", "1.6": "passed"}),
        pytest.param("crashes", {"1.1": "failed", "1.6": "passed"}, marks=posix_only),
        pytest.param("hangs", {"1.1": "failed", "1.6": "passed"}, marks=posix_only),
        ("swallows", {"1.1": "failed", "1.6": "passed"}),
        pytest.param("memory", {"1.1": "failed", "1.6": "passed"}, marks=linux_only),
        ("kept", {"1.1": "failed"}),
        ("slow", {"1.1": "passed"}), ("module", {"1.1": "passed"}), ("imported", {"1.2": "failed"}),
        ("block", {"2.1": "passed", "2.2": "passed"}), ("no block asks", {"2.1": "failed", "2.2": "failed"}),
        ("no block", {"2.1": "failed", "2.2": "passed", "2.3": "passed"}),
        ("block exits", {"2.1": "passed", "2.2": "passed", "2.4": "failed", "2.5": "failed"}),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_an_exercise_costs_only_that_one(graded_class, student, statuses):
    """Every exercise of the notebook has its status: todo, because its cell is missing or a stub, unless listed."""
    ids = [exercise.id for exercise in list_exercises() if exercise.id[0] == min(statuses)[0]]
    rows = [row for row in graded_class["rows"] if row.student == student and row.exercise]
    found = {row.exercise: row.status for row in rows}
    assert found == dict.fromkeys(ids, "todo") | statuses


@pytest.mark.parametrize(
    ("student", "exercise", "says"),
    [
        ("ana", "1.3", "float32"), ("ben", "1.3", "float32"), ("ana", "1.6", "Exercise 1.6"),
        ("ana", "1.4", "no cell defines split_train_val"),
        ("bad cells", "1.2", "def intensity_statistics(images)"), ("bad cells", "1.3", "raised SystemExit: 0"),
        ("bad cells", "1.5", "StdinNotImplementedError"),
        ("exits", "1.2", "exit code 3"), ("exits", "1.2", "cell 2"), ("exits", "1.3", "exit code 0"),
        pytest.param("crashes", "1.1", "SIGSEGV", marks=posix_only), ("bad cells", "1.6", "'=1+1"),
        pytest.param("memory", "1.1", "MemoryError", marks=linux_only),
        ("imported", "1.1", "the reference"), ("imported", "1.2", "defines mean, expected intensity_statistics"),
        ("module", "1.3", "empty"), ("no block asks", "2.2", "the course"),
        ("not json", "", "not JSON"), ("cut off", "", "not JSON"), ("format", "", "not a Jupyter notebook"),
        ("no code", "", "no code"), ("unknown", "", "not part of this course"), ("empty folder", "", "not a notebook"),
    ],
)  # fmt: skip
def test_messages_name_the_reason(graded_class, student, exercise, says):
    """Those of files that cannot be graded stand in their only line."""
    assert says in message(graded_class, student, exercise)
    if not exercise:
        assert [row.status for row in graded_class["rows"] if row.student == student] == ["broken"]


@pytest.mark.parametrize(("student", "status"), [("notebooks", "todo"), ("solutions", "passed")])
def test_the_courses_own_notebooks(graded_class, student, status):
    n_exercises = sum(exercise.id[0] in "14" for exercise in list_exercises())
    assert [row.status for row in graded_class["rows"] if row.student == student] == [status] * n_exercises


@posix_only
def test_time_limits_are_known_as_such(graded_class):
    """In a check, in a statement that an exercise needs, and for what only the end of the process stops."""
    found = {(row.student, row.exercise) for row in graded_class["rows"] if row.timed_out}
    assert found == {("bad cells", "1.4"), ("hangs", "1.1"), ("swallows", "1.1")}


def test_no_program_outlives_the_notebook_that_started_it(graded_class):
    child = int((graded_class["folder"] / "pid.txt").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_code_runs_in_an_empty_folder_and_sees_no_tokens(graded_class):
    text = message(graded_class, "bad cells", "1.7")
    assert "grading-" in text and "work None" in text and "secret" not in text
    where = text.split("ValueError: ")[1].split(" None")[0]
    assert not Path(where).exists()


def test_lines_are_in_order_and_complete(graded_class):
    keys = [(row["student"], row["notebook"], row["exercise"]) for row in graded_class["table"]]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert list(graded_class["table"][0]) == COLUMNS
    assert "ana/notebooks/01_data_exploration.ipynb" in {row["file"] for row in graded_class["table"]}
    assert not any("checkpoint" in row["file"] for row in graded_class["table"])


def test_a_second_run_starts_nothing(graded_class, monkeypatch):
    monkeypatch.setattr(grading, "grade_notebook", lambda *_: pytest.fail("a notebook was graded again"))
    monkeypatch.setattr(grading, "course_code", lambda: "the course does not change meanwhile")
    folder = graded_class["folder"]
    assert grade(folder / "submissions", folder / "grades.csv", limits=LIMITS, sandbox="unsafe") == graded_class["rows"]


# --- interruption -----------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_class(tmp_path):
    """Three notebooks that take some seconds each and note in a file that they are run; starts the command."""
    uses = {"1.1": "def count_shapes(images):\n    noted, w0, w1, w2\n    return Counter(i.shape for i in images)"}
    slow = [f"import time\nw{number} = time.sleep(1)" for number in range(3)]
    for name in "abc":
        note = f"noted = open({str(tmp_path / 'noted')!r}, 'a').write({name!r})"
        write(tmp_path / "in" / name, {"01_data_exploration.ipynb": submission(uses, before=[note, *slow])})
    # the course is not to change for this run, also while somebody works on it
    code = "import sys; from workshop import command_line; from workshop.grade import grading"
    code += "; grading.course_code = str; sys.exit(command_line.main())"

    def start(*options):
        (tmp_path / "temporary").mkdir(exist_ok=True)
        command = [sys.executable, "-c", code, "grade", str(tmp_path / "in"), "--out", str(tmp_path / "grades.csv")]
        command += ["--unsafe"]
        return subprocess.Popen(
            [*command, *options], cwd=CHECKOUT, env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    return start


def graders(folder):
    """Pid and parent of the boxes whose files lie below this folder."""
    found = psutil.process_iter(["cmdline", "ppid"])
    workers = [one for one in found if "workshop.grade.box.inside" in (one.info["cmdline"] or ())]
    return {one.pid: one.info["ppid"] for one in workers if str(folder) in one.info["cmdline"][-1]}


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def passed(folder):
    return [row["student"] for row in lines(folder / "grades.csv") if row["status"] == "passed"]


@posix_only
@pytest.mark.parametrize("workers", mostly_slow(["1", "2"], quick=["2"]))  # -m slow: one worker, too
def test_an_interrupted_run_leaves_no_process_and_continues(tmp_path, slow_class, workers):
    """Ctrl-C while the second notebook is graded, then a kill without warning, then a run to the end."""
    results = tmp_path / "grades.csv.results"
    first = slow_class("--workers", workers)
    until(lambda: list(results.glob("*.json")) and graders(tmp_path))
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    said = first.communicate(timeout=60)[0]
    assert re.search(r"[12] of 3 notebooks are done; the same command continues\.", said) and "Traceback" not in said
    assert first.returncode == 130
    assert not graders(tmp_path)
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "grades.csv").exists()
    done = len(list(results.glob("*.json")))
    assert done in (1, 2)

    second = slow_class("--workers", workers)
    until(lambda: graders(tmp_path))
    time.sleep(1)
    second.kill()
    assert f"{done} of 3 notebooks are done already" in second.communicate(timeout=60)[0]
    until(lambda: not graders(tmp_path))

    third = slow_class("--workers", workers)
    assert "of 3 notebooks are done already" in third.communicate(timeout=120)[0]
    assert third.returncode == 0
    assert passed(tmp_path) == ["a", "b", "c"]


@pytest.mark.slow
@posix_only
def test_a_worker_that_is_killed_costs_no_result(tmp_path, slow_class):
    """Only the notebook that it was grading is run again."""
    noted = tmp_path / "noted"
    run = slow_class("--workers", "2")
    until(lambda: noted.exists() and len(noted.read_text()) == len(graders(tmp_path)) == 2)
    os.kill(min(graders(tmp_path).values()), signal.SIGKILL)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 0 and "Traceback" not in said
    assert sorted(Counter(noted.read_text()).values()) == [1, 1, 2]
    assert len(list((tmp_path / "grades.csv.results").glob("*.json"))) == 3
    assert passed(tmp_path) == ["a", "b", "c"]


# --- what is kept, without processes ----------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Grades in no time and remembers what."""
    calls = []

    def grade_notebook(one, limits, stop=None, sandbox=None):
        calls.append(one.file)
        text = one.path.read_text()
        row = Row("passed", text, notebook="01_data_exploration", exercise="1.1", name="count_shapes")
        return Graded((row,), 0.1, final=text != "ours")

    monkeypatch.setattr(grading, "grade_notebook", grade_notebook)
    return calls


def run(folder, calls, **options):
    calls.clear()
    rows = grade(folder / "in", folder / "out" / "grades.csv", sandbox="unsafe", **options)
    return sorted(calls), [row.message for row in rows]


@pytest.fixture
def three(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "in", {f"{name}/x.ipynb": name for name in "abc"})
    return tmp_path


def test_only_what_changed_is_graded_again(three, fake, monkeypatch):
    everything = ["a/x.ipynb", "b/x.ipynb", "c/x.ipynb"]
    assert run(three, fake) == (everything, ["a", "b", "c"])
    assert run(three, fake) == ([], ["a", "b", "c"])
    write(three / "in", {"b/x.ipynb": "B"})
    assert run(three, fake) == (["b/x.ipynb"], ["a", "B", "c"])
    write(three / "in", {"c/helper.py": "x = 1"})
    assert run(three, fake)[0] == ["c/x.ipynb"]
    assert run(three, fake, again=True)[0] == everything
    assert run(three, fake, limits=Limits(seconds=99))[0] == everything
    monkeypatch.setattr(grading, "course_code", lambda: "a check was changed")
    assert run(three, fake)[0] == everything
    for path in (three / "out" / "grades.csv.results").iterdir():
        path.write_text(path.read_text()[:50])  # cut off
    assert run(three, fake)[0] == everything
    write(three / "in", {"a/x.ipynb": "ours"})  # a fault that is not the notebook's
    assert run(three, fake)[0] == run(three, fake)[0] == ["a/x.ipynb"]


@posix_only
def test_links_are_not_followed(three, fake):
    (three / "secret.ipynb").write_text("secret")
    (three / "in" / "a" / "x.ipynb").unlink()
    (three / "in" / "a" / "x.ipynb").symlink_to(three / "secret.ipynb")
    calls, (first, *others) = run(three, fake)
    assert calls == ["b/x.ipynb", "c/x.ipynb"] and "is a link" in first and others == ["b", "c"]


def test_the_same_bytes_however_the_notebooks_are_spread(three):
    """With real processes: workers know nothing of a fake in this one."""
    grade(three / "in", three / "out" / "grades.csv", sandbox="unsafe")
    first = (three / "out" / "grades.csv").read_bytes()
    grade(three / "in", three / "out" / "grades.csv", again=True, workers=3, sandbox="unsafe")
    assert (three / "out" / "grades.csv").read_bytes() == first and first.count(b"not JSON") == 3


def test_one_worker_starts_no_cluster_and_neither_does_a_class_that_is_graded_already(three, fake, monkeypatch):
    run(three, fake)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(three, fake, again=True)[1] == ["a", "b", "c"]
    assert run(three, fake, workers=8) == ([], ["a", "b", "c"])
    assert run(three, fake, dask="tcp://127.0.0.1:1") == ([], ["a", "b", "c"])
    with pytest.raises(ClusterError, match="distributed"):
        run(three, fake, again=True, workers=8)


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("01_data_exploration_kim.ipynb", "kim"), ("kim-01_data_exploration.ipynb", "kim"), ("kim.ipynb", "kim"),
        ("smith_12_01_data_exploration-1.ipynb", "smith_12"), ("01_data_exploration.ipynb", "01_data_exploration"),
    ],
)  # fmt: skip
def test_whose_file_it_is(tmp_path, fake, name, student):
    """In a folder of files; or if one notebook is given."""
    write(tmp_path, {name: "x"})
    rows = grade(tmp_path / name, tmp_path / "one.csv", sandbox="unsafe")
    assert [(row.student, row.file) for row in rows] == [(student, name)]


def test_errors_name_the_folder_and_what_to_do(tmp_path, three, fake, capsys):
    assert main(["grade", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(GradingError, match="Nothing was handed in"):
        grade(three / "out", three / "grades.csv", sandbox="unsafe")
    with pytest.raises(GradingError, match="the table is a CSV file"):
        grade(three / "in", three / "grades.xlsx", sandbox="unsafe")
    (three / "taken.csv").mkdir()
    for out in (three / "in" / "a" / "x.ipynb" / "grades.csv", three / "taken.csv"):
        with pytest.raises(GradingError, match="cannot be written"):
            grade(three / "in", out, sandbox="unsafe")
    (three / "file").write_text("not a folder")
    (three / "other" / "grades.html").mkdir(parents=True)
    for out, wanted, place in [(three / "grades.csv", Wanted(feedback=three / "file"), r"/file cannot be written"),
                               (three / "other" / "grades.csv", None, r"/grades\.html cannot be written")]:  # fmt: skip
        with pytest.raises(GradingError, match=place):
            grade(three / "in", out, sandbox="unsafe", wanted=wanted)


def test_the_pages_for_students_name_nobody_else(tmp_path, fake):
    """Neither the people that a name may mean, nor names that are alike; and they ask nobody for a file."""
    files = {"lee/01_data.ipynb": "theirs", "Lee/01_data.ipynb": "theirs", "lee/x.html": "", "ana/x.py": ""}
    write(tmp_path / "in", files)
    write(tmp_path, {"roster.csv": "id,name\n77,Kim Lee\n78,Max Lee\n79,Ana Ruiz\n"})
    wanted = Wanted(roster=tmp_path / "roster.csv", feedback=tmp_path / "feedback")
    grade(tmp_path / "in", tmp_path / "grades.csv", sandbox="unsafe", wanted=wanted)
    table = (tmp_path / "grades.csv").read_text(encoding="utf-8")
    assert "Kim Lee (77), Max Lee (78)" in table and "differs only in capitals" in table and "ask for the" in table
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "feedback").iterdir()}
    assert len(pages) == 5
    for name, page in pages.items():
        assert "may be meant" not in page and "capitals" not in page and "ask for" not in page
        assert "77" not in page.replace(name, "")
    assert any("a Python file, not a notebook: hand in the .ipynb itself." in page for page in pages.values())


def test_the_command_passes_its_options_on(monkeypatch, three):
    calls = []
    monkeypatch.setattr(grading, "grade", lambda *arguments: calls.append(arguments))
    previous = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["grade", str(three), "--workers", "3", "--again", "--seconds", "9", "--memory", "2"]) == 0
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert calls == [(three, Path("grades.csv"), 3, True, Limits(9, 2), None, "auto", None, Wanted())]


# --- one notebook's boxes ---------------------------------------------------------------------------------------------


def test_a_process_that_cannot_start_is_told_and_not_remembered(tmp_path):
    path = write(tmp_path, {"x.ipynb": submission(right("1.1"))}) / "x.ipynb"
    nothing = Sandbox("bubblewrap", shutil.which("false") or "false")
    graded = grade_notebook(HandedIn("kim", path, "x.ipynb"), LIMITS, threading.Event(), nothing)
    assert not graded.final
    assert [row.status for row in graded.rows] == ["broken"] and "could not start" in graded.rows[0].message


class NoBox(contextlib.nullcontext):
    """A box that only `Judge.run` sees."""

    used = 1.0

    def __init__(self, *_):
        super().__init__(self)


def graded_by(monkeypatch, tmp_path, run, **limits):
    """What becomes of a notebook if this is what its boxes do, each called with the judge."""
    path = write(tmp_path, {"x.ipynb": submission(right("1.1"))}) / "x.ipynb"
    monkeypatch.setattr(process, "Box", NoBox)
    monkeypatch.setattr(process.Judge, "run", lambda judge, box: run(judge))
    return grade_notebook(HandedIn("kim", path, "x.ipynb"), Limits(**limits), threading.Event(), Sandbox("unsafe"))


@pytest.mark.parametrize(("limits", "says"), [({}, "given up"), ({"notebook": 2.5}, "Exit")])
def test_a_notebook_that_ends_one_box_after_the_other_is_given_up(monkeypatch, tmp_path, limits, says):
    """After so many, or when all of them together have had the notebook's time."""

    def run(judge):
        judge.verdicts["1.1"] = [Outcome("passed")]
        judge.step = f"cell {len(judge.faults)}" if judge.faults else "1.2"
        raise BoxEnded("Exit")

    graded = graded_by(monkeypatch, tmp_path, run, **limits)
    assert graded.final and [row.status for row in graded.rows] == ["passed"] + ["failed"] * 6
    assert graded.rows[1].message == "Exit" and says in graded.rows[2].message


@pytest.mark.parametrize("fault", [CourseFault("NameError"), AttributeError("NameError")])
def test_a_fault_of_the_course_is_told_and_not_remembered(monkeypatch, tmp_path, fault):
    def run(judge):
        judge.verdicts["1.1"] = [Outcome("passed")]
        raise fault

    graded = graded_by(monkeypatch, tmp_path, run)
    assert not graded.final and [row.status for row in graded.rows] == ["passed"] + ["broken"] * 6
    assert "NameError" in graded.rows[1].message


def test_a_mark_stays_only_if_the_grader_was_killed(tmp_path):
    """Ctrl-C ends it in order; and what an earlier run left stays known."""
    kept = Kept(tmp_path, b"key")
    (tmp_path / "b.begun").write_bytes(b"x")
    begun = [kept.mark(name) for name in "ab"]  # as in workers that are ended with the run
    with pytest.raises(KeyboardInterrupt), kept.unmarked(["a", "b"]):
        for mark in begun:
            mark.__enter__()
        assert (kept.unfinished("a"), kept.unfinished("b")) == (1, 2)
        raise KeyboardInterrupt
    assert (kept.unfinished("a"), kept.unfinished("b")) == (0, 1)


def test_a_notebook_that_kills_the_grader_comes_last_alone_and_then_is_given_up(three, fake, monkeypatch):
    order = []
    monkeypatch.setattr(grading, "_grade_some", lambda jobs, **_: order.append([one.student for one, _ in jobs]) or {})
    (three / "out" / "grades.csv.results").mkdir()
    names = [grading._name(one, grading.course_code(), Limits(), Sandbox("unsafe"))
             for one in grading.find_handed_in(three / "in", three)]  # fmt: skip
    for name, times in zip(names, (1, 0, 1), strict=True):
        (three / "out" / "grades.csv.results" / f"{name}.begun").write_bytes(b"x" * times)
    run(three, fake)
    assert order == [["b"], ["a"], ["c"]]
    (three / "out" / "grades.csv.results" / f"{names[0]}.begun").write_bytes(b"xx")
    assert "was killed 2 times" in run(three, fake)[1][0]


def test_what_grading_wrote_was_not_handed_in(three, fake):
    """With the table, all files for an LMS and the pages in the folder of the class, a second run says the same."""
    wanted = Wanted(feedback=three / "in" / "pages", formats=("csv", "xlsx", "moodle", "canvas"))
    (three / "in" / "a" / "x.ipynb").write_bytes((CHECKOUT / "solutions" / "02_unet.ipynb").read_bytes())
    first, again = (grade(three / "in", three / "in" / "grades.csv", sandbox="unsafe", wanted=wanted) for _ in "12")
    assert (three / "in" / "grades-questions").is_dir() and (three / "in" / "grades.xlsx").exists()
    assert {row.student for row in again} == {"a", "b", "c"} and again == first
