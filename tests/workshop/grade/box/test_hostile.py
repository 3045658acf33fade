"""Hostile notebooks beside honest ones: no forged "passed", nothing outside changed, and grading goes on.

Ten of them run always; all with `python3 course.py test -m slow tests/workshop/grade/box/test_hostile.py`.
"""

import contextlib
import os
import socket
import threading
import time

import pytest
import torchvision  # noqa: F401  # it makes a folder for caches beside temporary files: before those are watched
from boxes import confined, descendants, tree
from hostile_notebooks import HEAD, RIGHT, hostile_notebooks, write

from workshop.grade.box.box import Limits
from workshop.grade.collect.handed_in import HandedIn
from workshop.grade.judge.process import grade_notebook
from workshop.grade.report.table import write_csv

TOKEN = "4f1c8e07-token"
LIMITS = Limits(seconds=9, memory=1.5, notebook=60, output=64)
MAX_SECONDS = 150  # of one notebook, on a busy machine
ALL = hostile_notebooks()
SHORT = ("kills all it sees", "tokens of the environment", "network", "the answers' own channel",
         "equal to everything", "writes into results", "literal answers", "daemon",
         "ends while others look whether it is right", "pictures that are none")  # fmt: skip
HONEST = [HEAD, RIGHT, "check('1.3', standardize)", f"secret = '{TOKEN}'"]


class Place:
    """A class's hand-ins, the results, a token in the environment, and a server that nobody may reach."""

    def __init__(self, folder, sandbox, port):
        self.folder, self.sandbox, self.port = folder, sandbox, port
        self.watched, self.temporary = folder / "watched", folder / "temporary"
        self.submissions, self.results = self.watched / "submissions", self.watched / "results"
        self.results.mkdir(parents=True)
        self.temporary.mkdir()
        (self.results / "kept.json").write_text("{}")
        write(HONEST, self.submissions / "kim" / "01_data_exploration.ipynb")

    def grade(self, name, cells):
        for old, new in (("@SUBMISSIONS@", self.submissions), ("@RESULTS@", self.results), ("@PORT@", self.port)):
            cells = [cell.replace(old, str(new)) for cell in cells]
        path = write(cells, self.folder / "hostile" / name / "notebook.ipynb")
        return grade_notebook(HandedIn(name, path, path.name), LIMITS, threading.Event(), self.sandbox)

    def honest(self):
        path = self.submissions / "kim" / "01_data_exploration.ipynb"
        return grade_notebook(HandedIn("kim", path, path.name), LIMITS, threading.Event(), self.sandbox).rows


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    sandbox = confined()
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0.01)
        place = Place(tmp_path_factory.mktemp("class"), sandbox, server.getsockname()[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SECRET_TOKEN", TOKEN)
            patch.setattr("tempfile.tempdir", str(place.temporary))
            place.rows = place.honest()
            yield place
            assert place.honest() == place.rows, "honest ones get the same rows before and after"
        with pytest.raises(TimeoutError):
            server.accept()




def contained(place, name):
    """Grade a hostile notebook, and find nothing but one line for its exercise that says "not passed"."""
    exercise, cells = ALL[name]
    before, processes, started = tree(place.watched), descendants(os.getpid()), time.monotonic()
    graded = place.grade(name, cells)
    assert time.monotonic() - started < MAX_SECONDS
    assert tree(place.watched) == before, "nothing outside changed"
    assert descendants(os.getpid()) <= processes, "no process is left"  # other tests may have left some before
    assert list(place.temporary.iterdir()) == [], "no file is left"
    assert {row.exercise for row in graded.rows if row.status == "passed"} <= {"1.3"} - {exercise}, graded.rows
    found = [row for row in graded.rows if row.exercise == exercise] or list(graded.rows)
    assert len(found) == 1 and found[0].status in ("failed", "todo", "broken")
    assert found[0].message, "it says why"
    write_csv(place.folder / "grades.csv", graded.rows)
    text = (place.folder / "grades.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1 + len(graded.rows), "one line each"
    assert text.replace("\n", "").isprintable() and TOKEN not in text


def test_the_honest_one_is_passed(place):
    assert {row.exercise: row.status for row in place.rows}["1.3"] == "passed"


@pytest.mark.parametrize("name", SHORT)
def test_hostile_notebooks_are_contained(place, name):
    contained(place, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in SHORT])
def test_all_hostile_notebooks_are_contained(place, name):
    contained(place, name)


def test_there_are_many():
    assert len(ALL) >= 40
