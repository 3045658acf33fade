"""The judge and the box come to the verdicts of the notebook, and nothing that a box says is believed.

For the solutions in the tests of the checks, right and wrong, the verdict and the first message are those of `evaluate`
in one process. Here for two of each exercise; for all of them, in some ten minutes:

    python -m pytest -m slow tests/workshop/grade/judge/test_judge.py
"""

import asyncio
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
from workshop.grade.box.box import BoxEnded
from workshop.grade.box.guard import Guard
from workshop.grade.box.inside import HEADER, Channel, NotebookRun
from workshop.grade.judge import judge as judges
from workshop.grade.judge.judge import Judge, _Session, observations
from workshop.grade.judge.values import pack, unpack

CHECKS = Path(__file__).resolve().parents[3] / "course_utils" / "exercises" / "checks"
EXERCISES = list_exercises()
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
            run.guard, run.observe, run.loop = guard, observations.observe, asyncio.new_event_loop()
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
    none = SimpleNamespace(
        exercises=EXERCISES, cells=(), to_run=lambda seconds, whole=False: [], last_check=lambda exercise: None
    )
    return Judge(none, 30.0, 4.0, 600.0)


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
        texts = [re.sub("0x[0-9a-f]+", "0x0", text) for text in (expected.messages[0], found.message)]
        texts[1] = texts[1][: len(texts[0])]
        if re.match(MEASURED, texts[0]):
            texts = [re.sub(r"[\d.]+", "0", text)[:100] for text in texts]
        if (expected.status, texts[0], expected.timed_out) != (found.status, texts[1], found.timed_out):
            different.append((exercise_id, name, expected.status, found.status, *texts))
    assert not different


@forks
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_verdicts_are_those_of_the_notebook(exercise, guard):
    own = [case for case in solutions() if case[0] == exercise.id]
    expect_agreement([own[0], own[len(own) // 2]], guard)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_all_verdicts_are_those_of_the_notebook(exercise, guard):
    expect_agreement([case for case in solutions() if case[0] == exercise.id], guard)


# --- a box that says what it likes ------------------------------------------------------------------------------------


class Scripted:
    """A box that gives these answers, each a dict or a function of the judge's last message; then it has ended."""

    def __init__(self, *answers):
        self.answers, self.budgets, self.secret, self.heard = [*answers], 0, b"", {}

    def send(self, payload):
        self.heard = unpack(payload)
        self.secret = self.heard["secret"]

    def receive(self):
        if not self.answers:
            raise BoxEnded("The box has ended.")
        answer = self.answers.pop(0)
        answer = answer(self.heard) if callable(answer) else answer
        return answer if isinstance(answer, bytes) else pack({"secret": self.secret} | answer)

    def new_budget(self, seconds=None):
        self.budgets += 1


CHECK = {"check": "1.1", "kind": {"callable": True}}
ANSWER = {"printed": "", "seconds": 0.0, "cold": False, "after": {}, "random": None, "peak": 0}
PASSED = {"status": "passed", "messages": ["Right."], "timed_out": False, "parts": (1, 1), "picture": None}
LIVE_CHECK = {"check": "2.1", "kind": {"callable": True}}


def outcomes(*answers):
    """What becomes of the exercises, and why the box was ended."""
    judge, reason = new_judge(), ""
    try:
        judge.run(Scripted(*answers))
    except BoxEnded as ended:
        reason = ended.message
        judge.blame(ended)
    given = {id_: verdicts[-1] for id_, verdicts in judge.verdicts.items() if verdicts}
    return {id_: outcome.status for id_, outcome in (given | judge.faults).items()}, reason


@pytest.mark.parametrize("forged", [
    b"", b"passed", b"l" * 1000, pack(5), pack({}), pack({"end": {}}), pack({"secret": b"", "end": {}}),
    pack({"secret": "guessed", "verdict": {"status": "passed"}}), {"verdict": {"status": "passed"}}, {"step": "9.9"},
    {"result": PASSED}, {"step": "cell 5"}, {"check": "9.9", "kind": {}}, {"check": "1.1", "kind": 5}, {"cell": "x"},
    {"shown": 5}, {"value": b""},
])  # fmt: skip
def test_messages_that_the_box_would_not_write_end_it(forged):
    status, reason = outcomes(forged)
    assert "wrote into the answers" in reason and "passed" not in status.values()


@pytest.mark.parametrize("answer", [
    b"", {}, {"value": b"Z"}, {"value": 5}, {"end": {}}, {"verdict": {"status": "passed"}}, {"result": PASSED},
    ANSWER, ANSWER | {"value": pack({}), "after": {99: pack(1)}}, ANSWER | {"value": pack({}), "after": 5},
    ANSWER | {"value": pack({}), "random": (1, 2, 3)}, ANSWER | {"error": {"exception": 5}},
    ANSWER | {"value": pack({}), "seconds": "long"}, ANSWER | {"value": pack({}), "after": {0: pack("x")}},
    ANSWER | {"value": b"k" + b"\xff" * 8},
], ids=range(15))  # fmt: skip
def test_odd_answers_to_a_call_do_not_pass(answer):
    status, _ = outcomes(CHECK, *[answer] * 3)
    assert status.get("1.1") != "passed"


@pytest.mark.parametrize("result", [
    {}, {"result": {}}, {"result": PASSED | {"status": "excellent"}}, {"result": 5}, {"result": PASSED | {"parts": 5}},
    {"died": "Exit"}, {"result": PASSED | {"messages": None}},
])  # fmt: skip
def test_odd_results_of_a_check_in_the_box_do_not_pass(result):
    assert outcomes(LIVE_CHECK, result)[0].get("2.1") != "passed"


@pytest.mark.parametrize("observed", [
    {"value": []}, {"value": None}, {"error": "SystemExit: 0"}, {"timeout": "stopped"}, {"value": [np.ones(2)] * 9}, {},
])  # fmt: skip
def test_a_passed_that_other_inputs_do_not_confirm_is_failed_and_marked(observed):
    judge = new_judge()
    with contextlib.suppress(BoxEnded):
        judge.run(Scripted(LIVE_CHECK, {"result": PASSED}, observed, observed, {"end": {}}))
    for outcome in judge.verdicts["2.1"]:
        assert outcome.status == "failed" and "ConvBlock" in outcome.look
    assert observed == {} or judge.verdicts["2.1"]


def test_the_reference_is_to_do_whatever_the_box_says_about_it():
    status, _ = outcomes({"shown": "1.1", "status": "passed", "message": "Right."}, {"end": {}})
    assert status == {"1.1": "todo"}


def test_steps_give_one_budget_each():
    """Only in the order of the cells, so that a loop of steps does not compute for ever."""
    judge = new_judge()
    judge.cells = [{"number": number, "source": "", "seconds": 1.0} for number in (2, 4)]
    box = Scripted({"step": "cell 2"}, {"step": "cell 4"}, {"step": "cell 2"}, {"end": {}})
    with pytest.raises(BoxEnded, match="wrote into"):
        judge.run(box)
    assert box.budgets == 2 and judge.step == "cell 4"


def test_a_second_box_is_not_asked_again_what_the_first_has_shown(guard):
    """The check that ended it is failed; those before it keep their verdicts, whatever the box says now."""
    judge = new_judge()
    with pytest.raises(BoxEnded) as ended:
        judge.run(Scripted({"shown": "1.2", "message": "Reference."}, CHECK))
    assert judge.step == "1.1" and judge.blame(ended.value) and not judge.blame(ended.value)
    judge.run(Scripted({"check": "1.2", "kind": {"callable": True}}, CHECK, {"end": {}}))
    assert judge.verdicts["1.2"][-1].message == "Reference."
    assert judge.outcome(get_exercise("1.1")) == judge.faults["1.1"]
    assert "has ended" in judge.faults["1.1"].message


# --- solutions that want to be right --------------------------------------------------------------------------------


class Everything:
    """Equal to all that it is compared with."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = object.__hash__


class AlwaysDict(dict):
    __eq__, __ne__, __hash__ = Everything.__eq__, Everything.__ne__, object.__hash__

    def get(self, *_):
        return Everything()

    def __iter__(self):
        return iter(())


class AlwaysInt(int):
    __eq__, __ne__, __hash__ = Everything.__eq__, Everything.__ne__, int.__hash__


class AlwaysArray(np.ndarray):
    def __array_function__(self, function, types, arguments, options):
        return True

    def __eq__(self, other):
        return np.ones(self.shape, dtype=bool)


def table_of(exercise_id):
    """An object that knows the answers to all that the check asks, and nothing else."""
    known, reference = {}, get_exercise(exercise_id).reference

    def noted(*arguments, **options):
        known[pack((arguments, options))] = found = reference(*arguments, **options)
        return found

    assert evaluate(exercise_id, noted).status == "passed"
    return lambda *arguments, **options: known[pack((arguments, options))]


@forks
@pytest.mark.parametrize(("exercise_id", "solution"), [
    ("1.1", lambda images: AlwaysDict()), ("1.1", lambda images: Everything()),
    ("4.4", lambda *_, **__: AlwaysInt(3)), ("1.3", lambda image, mean, std: np.zeros(image.shape).view(AlwaysArray)),
    ("4.2", lambda image, threshold=0.5: np.zeros(image.shape, int).view(AlwaysArray)),
], ids=range(5))  # fmt: skip
def test_objects_that_are_equal_to_everything_are_not_right(exercise_id, solution, guard):
    assert verdict(exercise_id, solution, guard).status == "failed"


@forks
@pytest.mark.parametrize("exercise_id", ["1.2", "1.3", "2.5", "4.2", "4.4"])
def test_a_table_of_the_answers_is_not_right(exercise_id, guard):
    found = verdict(exercise_id, table_of(exercise_id), guard)
    assert found.status == "failed" and "other inputs" in found.message and found.look


@forks
def test_a_generator_as_an_argument_arrives(guard):
    """The exercise says "iterable": here of one that can be gone through once."""
    box = Forked("1.1", lambda images: {image.shape: 1 for image in images}, guard)
    judge = new_judge()
    session = _Session(judge, box)
    try:
        session.send({"start": {}})
        assert session.receive()["check"] == "1.1"
        found = judges.Calls(session.ask)(np.zeros((2, size)) for size in (3, 4))
    finally:
        box.close()
    assert found == {(2, 3): 1, (2, 4): 1}
