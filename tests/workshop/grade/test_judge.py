"""The judge and the box come to the verdicts of the notebook, and nothing that a box says is believed.

For the solutions in the tests of the checks, right and wrong, the verdict and the first message are those of `evaluate`
in one process. Here for some of them; for all, in about TIME minutes:

    python -m pytest -m slow tests/workshop/grade/test_judge.py
"""

import contextlib
import importlib
import os
import queue
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from course_utils.exercises import evaluate, get_exercise, list_exercises
from workshop.grade import judge as judges
from workshop.grade import observations
from workshop.grade.box import BoxEnded
from workshop.grade.guard import Guard
from workshop.grade.inside import HEADER, Channel, NotebookRun
from workshop.grade.judge import LIVE, Judge, _Session
from workshop.grade.values import pack, unpack

CHECKS = Path(__file__).resolve().parents[2] / "course_utils" / "exercises" / "checks"
EXERCISES = list_exercises()
EVERY = 12  # of how many solutions one is tried here
MEASURED = "Processor time|Memory|Time: "  # messages with numbers that differ from run to run
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="a solution in memory gets into another process by fork")


class Pipes(Channel):
    """The box's end of two pipes."""

    def __init__(self, incoming, outgoing):
        self.incoming, self.outgoing, self.secret, self.process = incoming, outgoing, None, os.getpid()
        self.messages = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()


class Forked:
    """A box in which one solution is checked: a child of this process, with the program of the box."""

    def __init__(self, exercise_id, solution, guard):
        (here, self.outgoing), (self.incoming, there) = os.pipe(), os.pipe()
        self.child = os.fork()
        if self.child:
            os.close(here), os.close(there)
            return
        with contextlib.suppress(BaseException):
            os.close(self.outgoing), os.close(self.incoming)
            run = NotebookRun(Pipes(here, there))
            run.exercises = importlib.import_module("course_utils.exercises")
            run.guard, run.observe = guard, observations.observe
            run.checks = {exercise_id: get_exercise(exercise_id).check}
            run.channel.receive()
            run.evaluate(exercise_id, solution)
            run.channel.send({"end": {}})
        os._exit(0)

    def send(self, payload):
        data = len(payload).to_bytes(HEADER, "big") + payload
        while data:
            data = data[os.write(self.outgoing, data) :]

    def receive(self):
        return self._exactly(int.from_bytes(self._exactly(HEADER), "big"))

    def _exactly(self, length):
        data = b""
        while len(data) < length:
            if not (more := os.read(self.incoming, length - len(data))):
                raise BoxEnded("The box has ended.")
            data += more
        return data

    def new_budget(self, seconds=None):
        pass

    def close(self):
        os.close(self.outgoing), os.close(self.incoming)
        os.waitpid(self.child, 0)


def new_judge():
    """Of a notebook without cells that has all exercises."""
    none = SimpleNamespace(exercises=EXERCISES, cells=(), to_run=lambda seconds: [], last_check=lambda exercise: None)
    return Judge(none, 30.0, 4.0)


@pytest.fixture(scope="module")
def guard():
    """What the box notes before a notebook runs."""
    for exercise in EXERCISES:
        exercise.check  # noqa: B018 (it imports what it needs)
    return Guard()


def verdict(exercise_id, solution, guard):
    judge, box = new_judge(), Forked(exercise_id, solution, guard)
    try:
        judge.run(box)
    finally:
        box.close()
    return judge.verdicts[exercise_id][-1]


def solutions():
    """Exercise, name and solution of every right and every wrong one in the tests of the checks."""
    sys.path.insert(0, str(CHECKS))
    try:
        modules = [importlib.import_module(path.stem) for path in sorted(CHECKS.glob("test_notebook_*.py"))]
    finally:
        sys.path.remove(str(CHECKS))
    for module in modules:
        [tests] = [kind for name, kind in vars(module).items() if name.startswith("Test") and hasattr(kind, "wrong")]
        for exercise_id, right in tests.right.items():
            yield from ((exercise_id, f"right {number}", one) for number, one in enumerate(right))
            yield from ((exercise_id, name, one) for name, (one, _) in tests.wrong[exercise_id].items())


def expect_agreement(cases, guard):
    different = []
    for exercise_id, name, solution in cases:
        expected, found = evaluate(exercise_id, solution), verdict(exercise_id, solution, guard)
        texts = [expected.messages[0], found.message[: len(expected.messages[0])]]
        if re.match(MEASURED, texts[0]):
            texts = [re.sub(r"[\d.]+", "0", text)[:100] for text in texts]
        if (expected.status, texts[0], expected.timed_out) != (found.status, texts[1], found.timed_out):
            different.append((exercise_id, name, expected.status, found.status, *texts))
    assert not different


@forks
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_verdicts_are_those_of_the_notebook(exercise, guard):
    own = [case for case in solutions() if case[0] == exercise.id]
    expect_agreement([own[0], *own[5::EVERY]], guard)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_all_verdicts_are_those_of_the_notebook(exercise, guard):
    expect_agreement([case for case in solutions() if case[0] == exercise.id], guard)
