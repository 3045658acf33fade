"""Grading: a whole class with every kind of broken notebook, interruptions, and what the tables say."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from course_utils.exercises import list_exercises
from course_utils.exercises.registry import get_exercise
from workshop.build.stubs import source_of, stub_of
from workshop.cluster import ClusterError
from workshop.command_line import main
from workshop.grade import grading, process, table
from workshop.grade.grading import GradingError, grade
from workshop.grade.process import Graded, Limits
from workshop.grade.submissions import SubmittedFile, find_submissions
from workshop.grade.table import Row, spreadsheet_safe, summary

CHECKOUT = Path(__file__).resolve().parents[3]
FIRST = [exercise.id for exercise in list_exercises() if exercise.notebook == "01_data_exploration"]
IMPORTS = """import math, os, subprocess, sys, time
from collections import Counter
from collections.abc import Sequence
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2"""
LIMITS = Limits(seconds=15, memory=1)
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and links as on Linux and macOS")


# --- submissions ------------------------------------------------------------------------------------------------------


def cell(source, exercise=None):
    metadata = {"course": {"exercise": exercise}} if exercise else {}
    return {"cell_type": "code", "metadata": metadata, "execution_count": None, "outputs": [], "source": source}


def checked(exercise):
    name = get_exercise(exercise).name
    return cell(f'{name} = check("{exercise}", {name})')


def notebook(cells):
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


def submission(solutions, marked=True, before=()):
    """A notebook with these solutions (exercise id -> source), each with its check behind it."""
    cells = [cell(IMPORTS), *map(cell, before)]
    for exercise, source in solutions.items():
        cells += [cell(source, exercise if marked else None), checked(exercise)]
    # what would take too long, or fail, if it was run
    cells += [cell("data = load_data()\nfor epoch in range(10**12):\n    loss = epoch\nassert False")]
    return notebook(cells)


def right(*exercises):
    return {exercise: source_of(get_exercise(exercise)) for exercise in exercises}


def function(exercise, body, arguments="*_, **__"):
    return f"def {get_exercise(exercise).name}({arguments}):\n    {body}"


WRONG = {"1.3": "def standardize(image, mean, std):\n    return (image - mean) / std * 1.0"}
STUB = {"1.6": stub_of(get_exercise("1.6"))}

BAD_CELLS = submission(
    right("1.1")
    | {"1.2": "def intensity_statistics(images)\n    return 0.0, 1.0"}
    | {"1.3": function("1.3", "return helper", "image, mean, std")}
    | {"1.4": function("1.4", "return endless", "samples, every=20")}
    | {"1.5": "print('x' * 10**7, flush=True)\n" + function("1.5", "print('y' * 10**6); return input()")}
    | {"1.6": function("1.6", "raise NotImplementedError('=1+1')")}
    | {"1.7": "class NucleiDataset(Dataset):\n    def __init__(self, *_, **__):\n"
              "        raise ValueError(os.getcwd() + ' ' + str(os.environ.get('COURSE_TEST_TOKEN')))"},
    before=["helper = sys.exit(0)", "endless = 0\nwhile True:\n    endless += 1"],
)  # fmt: skip

EXITS = submission(
    right("1.1")
    | {"1.2": function("1.2", "return limit")}
    | {"1.3": function("1.3", "os._exit(0)")}
    | right("1.6"),
    before=["limit = os._exit(3)"],
)
CRASHES = submission({"1.1": function("1.1", "import ctypes; ctypes.string_at(0)")} | right("1.6"))
MEMORY = submission(
    {"1.1": function("1.1", "blocks = []\n    while True: blocks.append(bytearray(10**8))")} | right("1.6")
)


SWALLOWS = """while True:
        try: time.sleep(0.01)
        except BaseException: pass"""


def hangs(pid_file):
    """A notebook with a loop that no alarm interrupts, and a program that it leaves behind."""
    body = f"""child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])
    open({str(pid_file)!r}, 'w').write(str(child.pid))
    import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True: time.sleep(0.01)"""
    return submission({"1.1": function("1.1", body)} | right("1.6"))


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def is_alive(pid):
    """Whether a process still runs; one that has ended and was not waited for does not count."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode == 0


# --- a class ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graded_class(tmp_path_factory):
    """A class in which everything goes wrong that can; the rows as they stand in the file, and what was printed."""
    folder = tmp_path_factory.mktemp("class")
    pid_file = folder / "pid.txt"
    good = right("1.1") | WRONG | STUB
    write(folder / "submissions", {
        "ana/notebooks/01_data_exploration.ipynb": submission(good),
        "ben/my homework.ipynb": submission(good, marked=False),
        "ana/.ipynb_checkpoints/01_data_exploration-checkpoint.ipynb": "old",
        "bad cells/01_data_exploration.ipynb": BAD_CELLS,
        "01_data_exploration_exits.ipynb": EXITS,
        "crashes/01_data_exploration.ipynb": CRASHES,
        "hangs/01_data_exploration.ipynb": hangs(pid_file),
        "swallows/01_data_exploration.ipynb": submission({"1.1": function("1.1", SWALLOWS)} | right("1.6")),
        "memory/01_data_exploration.ipynb": MEMORY,
        "helper/01_data_exploration.ipynb": submission({"1.1": "from my_own import count_shapes"}),
        "helper/my_own.py": source_of(get_exercise("1.1")).replace("Sequence[np.ndarray]", "object")
                            .replace("Counter(", "__import__('collections').Counter("),
        "helper/torch.py": "raise SystemExit",
        "imported/01_data_exploration.ipynb": submission({"1.1": "from course_utils import count_shapes"}),
        "not json/01_data_exploration.ipynb": "<html>Please log in</html>",
        "cut off/01_data_exploration.ipynb": submission(good)[:-100],
        "format/01_data_exploration.ipynb": '{"nbformat": 9, "cells": []}',
        "no code/01_data_exploration.ipynb": notebook([]),
        "unknown/thesis.ipynb": notebook([cell("print(1)")]),
        "empty folder/readme.txt": "sorry",
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_TEST_TOKEN", "secret")
        patch.setattr(grading, "course_code", lambda: "the course does not change meanwhile")
        rows = grade(folder / "submissions", folder / "grades.csv", workers=2, limits=LIMITS)
    with (folder / "grades.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    return {"rows": table, "returned": rows, "folder": folder, "child": int(pid_file.read_text())}


def states(graded_class, student):
    return {row["exercise"]: row["status"] for row in graded_class["rows"] if row["student"] == student}


def message(graded_class, student, exercise=""):
    (found,) = [
        row["message"] for row in graded_class["rows"] if (row["student"], row["exercise"]) == (student, exercise)
    ]
    return found


def expected(**more):
    """Every exercise of notebook 01: todo, because its cell is missing, unless stated otherwise."""
    return dict.fromkeys(FIRST, "todo") | {name.replace("_", "."): status for name, status in more.items()}


@pytest.mark.parametrize("student", ["ana", "ben"])
def test_right_wrong_stub_and_missing_with_and_without_metadata(graded_class, student):
    assert states(graded_class, student) == expected(**{"1.1": "passed", "1.3": "failed", "1.6": "todo"})
    assert "float32" in message(graded_class, student, "1.3")
    assert message(graded_class, student, "1.6").startswith("Exercise 1.6")
    assert message(graded_class, student, "1.4") == "Missing: no cell defines split_train_val."


def test_bad_cells_cost_only_their_own_exercise(graded_class):
    failed = dict.fromkeys(["1.2", "1.3", "1.4", "1.5", "1.7"], "failed")
    assert states(graded_class, "bad cells") == expected(**{"1.1": "passed", **failed})
    assert "def intensity_statistics(images)" in message(graded_class, "bad cells", "1.2")
    assert "raised SystemExit: 0" in message(graded_class, "bad cells", "1.3")
    assert "EOFError" in message(graded_class, "bad cells", "1.5")


def test_messages_are_no_formulas(graded_class):
    assert message(graded_class, "bad cells", "1.6") == "'=1+1"


def test_code_sees_an_empty_folder_of_its_own_and_no_tokens(graded_class):
    text = message(graded_class, "bad cells", "1.7")
    assert "grading-" in text and "work None" in text and "secret" not in text
    where = text.split("ValueError: ")[1].split(" None")[0]
    assert not Path(where).exists()


def test_code_that_ends_python_costs_only_its_own_exercise(graded_class):
    assert states(graded_class, "exits") == expected(
        **{"1.1": "passed", "1.2": "failed", "1.3": "failed", "1.6": "passed"}
    )
    assert "exit code 3" in message(graded_class, "exits", "1.2") and "cell 2" in message(graded_class, "exits", "1.2")
    assert message(graded_class, "exits", "1.3") == "Exit: the code ended Python itself, with exit code 0."


@posix_only
def test_a_crash_is_named(graded_class):
    assert states(graded_class, "crashes") == expected(**{"1.1": "failed", "1.6": "passed"})
    assert "SIGSEGV" in message(graded_class, "crashes", "1.1")


@posix_only
def test_a_loop_that_cannot_be_interrupted_is_ended_with_what_it_started(graded_class):
    assert states(graded_class, "hangs") == expected(**{"1.1": "failed", "1.6": "passed"})
    assert message(graded_class, "hangs", "1.1") == "Time: the code was stopped after 15 seconds without an end."


def test_a_loop_that_swallows_interruptions_is_ended(graded_class):
    assert states(graded_class, "swallows") == expected(**{"1.1": "failed", "1.6": "passed"})
    assert message(graded_class, "swallows", "1.1").startswith("Time: ")
    assert not is_alive(graded_class["child"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such limit elsewhere")
def test_memory_is_limited(graded_class):
    assert states(graded_class, "memory") == expected(**{"1.1": "failed", "1.6": "passed"})
    assert "MemoryError" in message(graded_class, "memory", "1.1")


def test_own_modules_may_be_imported_but_hide_nothing(graded_class):
    assert states(graded_class, "helper") == expected(**{"1.1": "passed"})


def test_the_courses_own_object_is_no_solution(graded_class):
    assert states(graded_class, "imported") == expected(**{"1.1": "failed"})
    assert "of your own" in message(graded_class, "imported", "1.1")


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ("not json", "not JSON"), ("cut off", "not JSON"), ("format", "not a Jupyter notebook"), ("no code", "no code"),
        ("unknown", "none of this course"), ("empty folder", "no notebook"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_graded_get_one_line(graded_class, student, reason):
    assert states(graded_class, student) == {"": "broken"}
    assert reason in message(graded_class, student)


def test_lines_are_in_order_and_complete(graded_class):
    keys = [(row["student"], row["notebook"], row["exercise"]) for row in graded_class["rows"]]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert list(graded_class["rows"][0]) == table.COLUMNS
    by_file = Counter(row["file"] for row in graded_class["rows"])
    assert by_file["ana/notebooks/01_data_exploration.ipynb"] == len(FIRST)
    assert not any("checkpoint" in name for name in by_file)


def test_a_second_run_starts_nothing(graded_class, monkeypatch, capsys):
    monkeypatch.setattr(grading, "grade_notebook", lambda *_: pytest.fail("a notebook was graded again"))
    monkeypatch.setattr(grading, "course_code", lambda: "the course does not change meanwhile")
    folder = graded_class["folder"]
    assert grade(folder / "submissions", folder / "grades.csv", limits=LIMITS) == graded_class["returned"]
    assert "15 of 15 notebooks are done already" in capsys.readouterr().out


# --- exercises that build on others -----------------------------------------------------------------------------------


def test_later_exercises_get_the_students_object_if_it_passed_else_the_courses(tmp_path):
    """The second block asks what its ConvBlock is: the student's is defined in the notebook."""
    asks = source_of(get_exercise("2.2")).replace(
        "super().__init__()", "super().__init__()\n        assert ConvBlock.__module__ == '__main__', 'the course'"
    )
    wrong = "class ConvBlock(nn.Module):\n    def __init__(self, *_, **__):\n        super().__init__()"
    exits = {id_: function(id_, "os._exit(1)") for id_ in ("2.4", "2.5")}
    write(tmp_path, {
        "passes/02_unet.ipynb": submission(right("2.1") | {"2.2": asks}),
        "fails/02_unet.ipynb": submission({"2.1": wrong} | right("2.2", "2.3")),
        "asks/02_unet.ipynb": submission({"2.1": wrong, "2.2": asks}),
        # the process that goes on after 2.4 has to know what 2.1 and 2.2 were
        "exits/02_unet.ipynb": submission(right("2.1") | {"2.2": asks} | exits),
    })  # fmt: skip
    rows = grade(tmp_path, tmp_path / "grades.csv", workers=2)
    found = {(row.student, row.exercise): (row.status, row.message) for row in rows}
    assert [found["passes", id_][0] for id_ in ("2.1", "2.2")] == ["passed", "passed"]
    assert [found["fails", id_][0] for id_ in ("2.1", "2.2", "2.3")] == ["failed", "passed", "passed"]
    assert [found["asks", id_][0] for id_ in ("2.1", "2.2")] == ["failed", "failed"]
    assert "the course" in found["asks", "2.2"][1]
    assert [found["exits", id_][0] for id_ in ("2.1", "2.2", "2.4", "2.5")] == ["passed", "passed", "failed", "failed"]


@pytest.mark.skipif(not (CHECKOUT / "notebooks").is_dir(), reason="the student versions are not built")
def test_the_courses_own_notebooks(tmp_path):
    """The untouched student version is todo everywhere, the solved one is passed everywhere."""
    for name in ("01_data_exploration", "04_instance_evaluation"):
        for folder in ("notebooks", "solutions"):
            write(tmp_path, {f"{folder}/{name}.ipynb": (CHECKOUT / folder / f"{name}.ipynb").read_bytes()})
    rows = grade(tmp_path, tmp_path / "grades.csv", workers=2)
    unexpected = [row for row in rows if row.status != {"notebooks": "todo", "solutions": "passed"}[row.student]]
    assert not unexpected and len(rows) == 24


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
        variables = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
        (tmp_path / "temporary").mkdir(exist_ok=True)
        command = [sys.executable, "-c", code, "grade", str(tmp_path / "in"), "--out", str(tmp_path / "grades.csv")]
        return subprocess.Popen(
            [*command, *options],
            cwd=CHECKOUT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    return start


def processes(*words):
    """Pid and parent of the processes whose command line holds all these words."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            except OSError:
                continue
            if all(str(word).encode() in command for word in words) and state != "Z":
                found[int(folder.name)] = int(parent)
    return found


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@posix_only
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_leaves_no_process_and_continues(tmp_path, slow_class, workers):
    """Ctrl-C while the second notebook is graded, then a kill without warning, then a run to the end."""
    results = tmp_path / "grades.csv.results"

    def graders():
        return processes("workshop.grade.worker", tmp_path)

    first = slow_class("--workers", workers)
    until(lambda: len(list(results.glob("*.json"))) >= 1 and graders())
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    said = first.communicate(timeout=60)[0]
    assert re.search(r"[12] of 3 notebooks are done; the same command continues\.", said) and "Traceback" not in said
    assert first.returncode == 130
    assert not graders()
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "grades.csv").exists()
    done = len(list(results.glob("*.json")))
    assert done in (1, 2)

    second = slow_class("--workers", workers)
    until(graders)
    time.sleep(1)
    second.kill()
    assert f"{done} of 3 notebooks are done already" in second.communicate(timeout=60)[0]
    until(lambda: not graders())

    third = slow_class("--workers", workers)
    assert "of 3 notebooks are done already" in third.communicate(timeout=120)[0]
    assert third.returncode == 0
    with (tmp_path / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"] for row in rows if row["status"] == "passed"] == ["a", "b", "c"]


@posix_only
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_worker_that_is_killed_costs_no_result(tmp_path, slow_class):
    """Only the notebook that it was grading is run again."""
    noted = tmp_path / "noted"
    run = slow_class("--workers", "2")
    until(lambda: noted.exists() and len(noted.read_text()) == len(processes("workshop.grade.worker", tmp_path)) == 2)
    worker = min(processes("workshop.grade.worker", tmp_path).values())
    os.kill(worker, signal.SIGKILL)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 0 and "Traceback" not in said
    assert sorted(Counter(noted.read_text()).values()) == [1, 1, 2]
    assert len(list((tmp_path / "grades.csv.results").glob("*.json"))) == 3
    with (tmp_path / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"] for row in rows if row["status"] == "passed"] == ["a", "b", "c"]


# --- what is kept, without processes ----------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Grades in no time and remembers what."""
    calls = []

    def grade_notebook(one, limits, stop=None):
        calls.append(one.file)
        text = one.path.read_text()
        status = text if text in table.SYMBOLS else "passed"
        return Graded((Row("", "01_data_exploration", "1.1", "count_shapes", status, text, ""),), 0.1, text != "ours")

    monkeypatch.setattr(grading, "grade_notebook", grade_notebook)
    return calls


def run(folder, calls, **options):
    calls.clear()
    rows = grade(folder / "in", folder / "out" / "grades.csv", **options)
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


def test_a_result_that_was_cut_off_is_made_again(three, fake):
    run(three, fake)
    for path in (three / "out" / "grades.csv.results").iterdir():
        path.write_text(path.read_text()[:50])
    assert len(run(three, fake)[0]) == 3


def test_faults_that_are_not_the_notebooks_are_tried_again(three, fake):
    write(three / "in", {"a/x.ipynb": "ours"})
    run(three, fake)
    assert run(three, fake)[0] == ["a/x.ipynb"]


@posix_only
def test_links_and_files_that_cannot_be_read(three, fake):
    (three / "secret.ipynb").write_text("secret")
    (three / "in" / "a" / "x.ipynb").unlink()
    (three / "in" / "a" / "x.ipynb").symlink_to(three / "secret.ipynb")
    found = run(three, fake)
    assert found == (["b/x.ipynb", "c/x.ipynb"], ["The file is a link to another place.", "b", "c"])


def test_the_same_bytes_however_the_notebooks_are_spread(three):
    """The real thing: what three workers do is no business of a fake in this process."""
    grade(three / "in", three / "out" / "grades.csv")
    first = (three / "out" / "grades.csv").read_bytes()
    grade(three / "in", three / "out" / "grades.csv", again=True, workers=3)
    assert (three / "out" / "grades.csv").read_bytes() == first and first.count(b"not JSON") == 3


def test_one_worker_starts_no_cluster_and_neither_does_a_class_that_is_graded_already(three, fake, monkeypatch):
    run(three, fake)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(three, fake, again=True)[1] == ["a", "b", "c"]
    assert run(three, fake, workers=8) == ([], ["a", "b", "c"])
    assert run(three, fake, dask="tcp://127.0.0.1:1") == ([], ["a", "b", "c"])
    with pytest.raises(ClusterError, match="pip install distributed"):
        run(three, fake, again=True, workers=8)


def test_one_notebook_may_be_given(three, fake):
    path = write(three, {"01_data_exploration_kim.ipynb": "x"}) / "01_data_exploration_kim.ipynb"
    (row,) = grade(path, three / "out" / "one.csv")
    assert (row.student, row.file) == ("kim", "01_data_exploration_kim.ipynb")


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("01_data_exploration_kim.ipynb", "kim"), ("kim-01_data_exploration.ipynb", "kim"), ("kim.ipynb", "kim"),
        ("smith_12_01_data_exploration-1.ipynb", "smith_12_1"), ("01_data_exploration.ipynb", "01_data_exploration"),
    ],
)  # fmt: skip
def test_whose_file_it_is(tmp_path, name, student):
    write(tmp_path, {name: "x"})
    assert [one.student for one in find_submissions(tmp_path)] == [student]


def test_faults_are_one_sentence(tmp_path, three, fake, capsys):
    assert main(["grade", str(tmp_path / "nowhere")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    with pytest.raises(GradingError, match="There is no notebook"):
        grade(three / "out", three / "grades.csv")
    with pytest.raises(GradingError, match="cannot be written"):
        grade(three / "in", three / "in" / "a" / "x.ipynb" / "grades.csv")
    (three / "taken.csv").mkdir()
    with pytest.raises(GradingError, match="cannot be written"):
        grade(three / "in", three / "taken.csv")


def test_the_command_passes_its_options_on(monkeypatch, three):
    calls = []
    monkeypatch.setattr(grading, "grade", lambda *arguments: calls.append(arguments))
    previous = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["grade", str(three), "--workers", "3", "--again", "--seconds", "9", "--memory", "2"]) == 0
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert calls == [(three, Path("grades.csv"), 3, True, Limits(9, 2), None)]


# --- the tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n+", " -", "\0@", "＝"])
def test_formulas_are_texts(start):
    assert spreadsheet_safe(f"{start}SUM(A1)").startswith("'")


def test_messages_fit_on_one_line():
    assert spreadsheet_safe("a\n\n b\x1b[31m") == "a b [31m"
    assert len(spreadsheet_safe("x" * 10_000)) == table.MAX_MESSAGE
    assert spreadsheet_safe("Größe: 3 µm ✔") == "Größe: 3 µm ✔"


def test_summary_counts_and_takes_the_better_of_two_files():
    rows = [
        Row(student, "01_data_exploration", exercise, "f", status, "", "x")
        for student, exercise, status in [
            ("ana", "1.1", "failed"), ("ana", "1.1", "passed"), ("ana", "1.2", "todo"), ("ben", "1.1", "passed"),
            ("ben", "1.2", "failed"), ("cleo", "", "broken"),
        ]
    ]  # fmt: skip
    random.Random(0).shuffle(rows)
    table = [line.split() for line in summary(rows).strip().split("\n")[:5]]
    assert table == [
        ["student", "1.1", "1.2", "passed", "failed", "todo", "broken"],
        ["ana", "+", ".", "1", "0", "1", "0"],
        ["ben", "+", "x", "1", "1", "0", "0"],
        ["cleo", "0", "0", "0", "1"],
        ["passed", "2", "0"],
    ]


# --- what a grading process may say -----------------------------------------------------------------------------------


def test_answers_that_make_no_sense_are_left_out():
    said = process._understand(
        b'noise\n[1]\n{"ready": true}\n{"ready": "no"}\n{"other": 1}\n{"exercise": "1.1", "status": "excellent"}\n'
        b'{"exercise": "1.2", "status": "todo", "message": 5}\n{"step": "1.3"}\n{"done": tr'
    )
    results = {"1.2": {"status": "todo", "message": "5", "cell": 0}}
    assert said == process.Answers(ready=True, step="1.3", results=results)


def test_a_process_that_cannot_start_is_told_and_not_remembered(tmp_path, monkeypatch):
    path = write(tmp_path, {"x.ipynb": submission(right("1.1"))}) / "x.ipynb"
    monkeypatch.setattr(process.sys, "executable", shutil.which("false") or sys.executable)
    graded = process.grade_notebook(SubmittedFile("kim", path, "x.ipynb"), LIMITS, threading.Event())
    assert not graded.final
    assert [row.status for row in graded.rows] == ["broken"] and "could not start" in graded.rows[0].message


# --- how long it takes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_thirty_submissions(tmp_path, capsys):
    """25 ordinary notebooks and one broken of each of five kinds: everybody gets a result."""
    kinds = [right("1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"), right("1.1", "1.2") | WRONG, STUB]
    files = {f"s{n:02d}/01_data_exploration.ipynb": submission(kinds[n % 3], before=[f"n = {n}"]) for n in range(25)}
    files |= {"t1/01_data_exploration.ipynb": "no JSON", "t2/01_data_exploration.ipynb": notebook([]),
              "t3/01_data_exploration.ipynb": EXITS, "t4/01_data_exploration.ipynb": hangs(tmp_path / "pid.txt"),
              "t5/01_data_exploration.ipynb": MEMORY}  # fmt: skip
    started = time.monotonic()
    rows = grade(write(tmp_path / "in", files), tmp_path / "grades.csv", workers=2, limits=LIMITS)
    with capsys.disabled():
        print(f"\n30 submissions graded in {time.monotonic() - started:.0f} s by 2 processes at a time")
    count = Counter(row.status for row in rows)
    assert count["passed"] == 9 * 7 + 8 * 2 + 2 + 1 + 1
    assert count["broken"] == 2
    assert len({row.student for row in rows}) == 30
