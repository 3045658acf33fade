"""The judge: decides about the exercises of a notebook whose code runs in a box.

Messages between the two are dicts, packed by `values`. Each message of the judge has a new "secret", and the box
repeats the last one in each of its own. What does not fit ends the box: something else wrote into its answers.

    judge  {"start": {"cells": [{"number", "source", "seconds"}], "exercises", "unchecked" (ids), "memory"
                      (gigabytes), "faults": {step: why it is not run again}}}
    box    {"step": "cell 7"}                   before each cell, and before the check of an unchecked exercise ("1.1")
           {"cell": 7, "error": "..."}          it ended with an error
           {"shown": "1.1", "message": "..."}   what was checked is the reference
           {"check": "1.1", "kind": {"callable", "value"}}   now the judge may ask, and then decides:
    judge      {"call", "seconds", "traced"}    -> see `workshop.grade.judge.calls`
               {"live": True}                   -> {"result": {"status", "messages", "timed_out", "parts", "picture"}}
                                                   or {"died": how}
               {"observe": name, "seed"}        -> {"value"}, {"error": text} or {"timeout": text}
               {"verdict": {"status", "messages", "timed_out"}}   the notebook goes on
    box    {"end": {}}                          all is done; {"fault": text} if the course itself failed

Whether an exercise is right is decided here if its check only needs values, with the check of the course and a stand-in
for the student's object (`calls`). Every "passed" is confirmed with inputs that nobody knew before (`observations`).
"""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
from collections import defaultdict
from collections.abc import Sequence
from time import thread_time  # its own name, because `Calls.clocks` replaces that in the module
from typing import Any

from course_utils.exercises.feedback import CheckResult
from course_utils.exercises.registry import Exercise, get_exercise
from course_utils.exercises.sandbox import CheckTimeout, run_check, time_limit
from workshop.grade.box.box import Box, BoxEnded
from workshop.grade.judge import observations
from workshop.grade.judge.calls import Calls
from workshop.grade.judge.confirmation import OTHER_INPUTS, confirm
from workshop.grade.judge.notebook import CodeCell, Notebook
from workshop.grade.judge.plain_pictures import from_plain
from workshop.grade.judge.values import pack, unpack
from workshop.grade.report.table import Outcome

# Their checks hand over what cannot be sent: networks, loaders, losses with gradients. They run in the box, each in a
# process of its own.
LIVE = ("1.7", "2.1", "2.2", "2.3", "2.4", "3.1", "3.2", "3.3", "3.4", "4.1", "6.1", "7.3")
JUDGE_SECONDS = 60.0  # for a check's own work, which depends on what the student's object returns
INSIDE_SHARE = 0.9  # of the limit: what can be stopped from inside costs no new box
MAX_TEXT = 2000
LARGE = 100_000  # bytes of a message
MAX_CHECKS = 500
WROTE = "Answers: the code wrote into the answers of the grader, or changed what gives them."
UNCONFIRMED = "passed its check, but not with other inputs"


class CourseFault(Exception):
    """The course itself failed, not the notebook."""


class _Lost(BaseException):
    """Ends a check of which the box has died; no `except Exception` of the check swallows it."""


class Judge:
    """What is known about one notebook, over all the boxes in which it runs."""

    def __init__(self, notebook: Notebook, seconds: float, memory: float, total: float, whole: bool = False):
        self.notebook, self.memory = notebook, memory
        self._last_second = thread_time() + total  # of the judge itself, which what is sent can keep busy
        self.cells = notebook.to_run(seconds * INSIDE_SHARE, whole)
        self.faults: dict[str, Outcome] = {}  # step -> how it ended a box
        self.errors: dict[int, Outcome] = {}  # cell -> how it ended
        self.verdicts: dict[str, list[Outcome]] = defaultdict(list)  # of each exercise, one for each check
        self.step = ""  # what the box is doing
        self.pictures: dict[str, Any] = {}  # exercise -> what is wrong, as `course_utils.exercises.pictures` draw it

    def run(self, box: Box) -> None:
        """Let a box run the notebook to its end. Raises `BoxEnded`; then `step` is what it did last."""
        self.step = ""
        _Session(self, box).run()

    def blame(self, ended: BoxEnded) -> bool:
        """Remember that the last step ended a box; False if that is no news, or if nothing had begun."""
        news = bool(self.step) and self.step not in self.faults
        if news:
            where = f" In {self.step}." if self.step.startswith("cell") else ""
            self.faults[self.step] = Outcome("failed", f"{ended.message}{where}", ended.timed_out)
        return news

    @property
    def is_late(self) -> bool:
        """Whether the judge itself has computed for longer than a notebook may."""
        return thread_time() > self._last_second

    def missed_names(self) -> bool:
        """Whether code missed a name that a cell of the course binds which was not run."""
        said = [*self.errors.values(), *(outcome for given in self.verdicts.values() for outcome in given)]
        text = " ".join(outcome.message for outcome in said)
        return not self.notebook.left_out.isdisjoint(re.findall(r"(?:name |KeyError: )'(\w+)'", text))

    def outcome(self, exercise: Exercise) -> Outcome:
        """The result of an exercise of the notebook: that of its last check."""
        if exercise.id in self.faults:
            return self.faults[exercise.id]
        holding, last = self.notebook.holding(exercise), self.notebook.last_check(exercise)
        if last and holding and all(cell.number > last for cell in holding):
            text = f"Order: cell {holding[-1].number} defines {exercise.name}, below its check in cell {last}."
            return Outcome("todo", f"{text} Run all finds nothing there: move it above.")
        given = self.verdicts.get(exercise.id)
        outcome = given[-1] if given else self._unchecked(exercise, holding)
        if outcome.status == "passed":
            return outcome
        reasons = [*self._reasons(exercise, outcome.message)]
        message = " ".join([outcome.message, *(reason.message for reason in reasons)]).strip()
        timed_out = outcome.timed_out or any(reason.timed_out for reason in reasons)
        return Outcome(outcome.status, message, timed_out, outcome.look, outcome.parts)

    def _unchecked(self, exercise: Exercise, holding: Sequence[CodeCell]) -> Outcome:
        """Why an exercise has never been checked."""
        marked = next((cell for cell in reversed(holding) if cell.error or cell.exercise == exercise.id), None)
        if marked is None and not holding:
            return Outcome("todo", f"Missing: no cell defines {exercise.name}.")
        if marked is not None and marked.error:
            return Outcome("failed", marked.error)
        if marked is not None and not marked.source.strip():
            return Outcome("todo", f"Missing: the cell of exercise {exercise.id} is empty.")
        if marked is not None and exercise.name not in marked.binds:
            found = ", ".join(sorted(marked.defines)) or "no function and no class"
            return Outcome("failed", f"Name: cell {marked.number} defines {found}, expected {exercise.name}.")
        cells = [cell for cell in holding if self._error(cell.number)]
        if cells:
            return self._error(cells[-1].number)
        # The check cell may have ended before its check.
        if (error := self._error(self.notebook.last_check(exercise))) and exercise.name not in error.message:
            return error
        return Outcome("failed", f"Name: {exercise.name} is not defined where it is checked.")

    def _error(self, number: int | None) -> Outcome | None:
        return self.faults.get(f"cell {number}") or self.errors.get(number)

    def _reasons(self, exercise: Exercise, message: str) -> list[Outcome]:
        """The errors of cells that should have defined a name that a message misses."""
        missing = set(re.findall(r"name '(\w+)' is not defined", message))
        cells = [cell for cell in self.notebook.cells if missing & cell.binds]
        found = [error for cell in cells if (error := self._error(cell.number))]
        return [error for error in found if error.message not in message][:2]


class _Session:
    """The conversation with one box."""

    def __init__(self, judge: Judge, box: Box):
        self.judge, self.box = judge, box
        self.secret, self.awaits, self.lost = b"", False, None
        self.place = -1  # of the last cell in the list of cells
        notebook = judge.notebook
        self.unchecked = [one.id for one in notebook.exercises if notebook.last_check(one) is None]
        self.checks: dict[str, int] = defaultdict(int)

    def run(self) -> None:
        judge, ids = self.judge, [exercise.id for exercise in self.judge.notebook.exercises]
        self.send({"start": {
            "cells": judge.cells, "exercises": ids, "unchecked": self.unchecked, "memory": judge.memory,
            "faults": {step: fault.message for step, fault in judge.faults.items()},
        }})  # fmt: skip
        while "end" not in (message := self.receive()):
            try:
                self.handle(message)
            except (ValueError, TypeError, LookupError, OverflowError, StopIteration) as error:
                raise BoxEnded(WROTE) from error
        if fault := dict(message["end"]).get("fault"):
            raise CourseFault(_text(fault))

    def handle(self, message: dict) -> None:
        """What the box says of its own accord."""
        match message:
            case {"step": str(step)}:
                self.begin(step)
            case {"cell": int(number), "error": str(error)} if self.judge.step == f"cell {number}":
                self.judge.errors[number] = Outcome("failed", _text(error), error.startswith("Time:"))
            case {"shown": str(id_)}:
                self.note(get_exercise(id_), Outcome("todo", _text(message.get("message", ""))))
            case {"check": str(id_), "kind": dict(kind)}:
                self.check(get_exercise(id_), kind)
            case _:
                raise ValueError("a message out of turn")

    def begin(self, step: str) -> None:
        """A step begins. They come in their order, so that nothing in the box can get one budget after the other."""
        if step in self.unchecked:
            self.unchecked = self.unchecked[self.unchecked.index(step) + 1 :]
            self.box.new_budget()
        else:
            cells = self.judge.cells
            after = range(self.place + 1, len(cells))
            self.place = next(place for place in after if step == f"cell {cells[place]['number']}")
            self.box.new_budget(cells[self.place]["seconds"] / INSIDE_SHARE)
        self.judge.step = step

    def note(self, exercise: Exercise, outcome: Outcome) -> None:
        """Keep the verdict of a check, unless an earlier box has come to one already."""
        known, number = self.judge.verdicts[exercise.id], self.checks[exercise.id]
        self.checks[exercise.id] += 1
        if number >= MAX_CHECKS:
            raise ValueError("too many checks")
        if number == len(known):
            known.append(outcome)

    def check(self, exercise: Exercise, kind: dict) -> None:
        """Decide about what is checked now, and tell the box."""
        judge, cell = self.judge, self.judge.step
        known = judge.verdicts[exercise.id][self.checks[exercise.id] :]
        outcome = judge.faults.get(exercise.id) or (known[0] if known else None)
        if exercise not in judge.notebook.exercises:
            outcome = Outcome("failed", f"Exercise {exercise.id} does not belong to this notebook.")
        if outcome is None:
            judge.step = exercise.id
            try:
                outcome = self.decide(exercise, kind)
            except _Lost:
                raise self.lost from None
            judge.step = cell
        self.note(exercise, outcome)
        self.box.new_budget()
        verdict = {"status": outcome.status, "messages": (outcome.message,), "timed_out": outcome.timed_out}
        self.send({"verdict": verdict})

    def decide(self, exercise: Exercise, kind: dict) -> Outcome:
        look = ""
        if exercise.id in LIVE and kind.get("callable"):
            result = self.live(exercise)
        else:
            result = self.run_check(exercise, Calls(self.ask) if kind.get("callable") else kind.get("value"))
        if result.status == "passed" and (different := self.confirm(exercise)):
            result = CheckResult(exercise.id, "failed", (different,))
            look = f"{exercise.name} {UNCONFIRMED}"
        if result.picture is not None:
            self.judge.pictures[exercise.id] = result.picture
        return Outcome(result.status, " ".join(result.messages), result.timed_out, look, result.parts)

    def run_check(self, exercise: Exercise, submission: Any) -> CheckResult:
        """The result of the course's check, for a stand-in of the student's object."""
        calls = submission if isinstance(submission, Calls) else None
        check = exercise.check

        def begin(submission: Any) -> None:
            self.box.new_budget()
            if calls:
                calls.begin()
            check(submission)

        def run() -> CheckResult:
            with calls.clocks() if calls else contextlib.nullcontext():
                return run_check(exercise.id, begin, submission, None)

        with time_limit(JUDGE_SECONDS, 1e9):
            result = run()
            if calls and calls.cold and result.status == "failed" and not result.timed_out and not self.lost:
                result = run()
        if self.lost or self.awaits:
            raise self.lost or BoxEnded(result.messages[0], timed_out=True)
        return result

    def live(self, exercise: Exercise) -> CheckResult:
        """What the check says in the box."""
        self.box.new_budget()
        reply = self.ask({"live": True})
        if "died" in reply:
            return CheckResult(exercise.id, "failed", (_text(reply["died"]),))
        result = reply["result"]
        if result["status"] not in ("passed", "failed", "todo"):
            raise ValueError("not a status")
        messages = tuple(_text(message) for message in list(result["messages"])[:5])
        right, of = (min(max(int(number), 0), 100) for number in result["parts"])
        picture = from_plain(result.get("picture"))
        timed_out, parts = bool(result["timed_out"]), (min(right, of), of)
        return CheckResult(exercise.id, result["status"], messages, timed_out, parts, picture)

    def confirm(self, exercise: Exercise) -> str:
        """Empty if what passed is right for other inputs, too, else a sentence. One seed may be an unlucky one."""
        if not hasattr(observations, f"observe_{exercise.name}"):  # an exercise of an instructor's own
            return ""
        for seed in (secrets.randbits(62), secrets.randbits(62)):  # new ones each time: nothing can be noted down
            self.box.new_budget()
            reply = self.ask({"observe": exercise.name, "seed": seed})
            if "value" in reply:
                try:
                    with time_limit(JUDGE_SECONDS, 1e9):
                        different = confirm(exercise.name, reply["value"], seed)
                except CheckTimeout:
                    different = f"{OTHER_INPUTS} They take more than {JUDGE_SECONDS:g} seconds to compare."
            else:
                different = _text(reply.get("timeout") or reply["error"])
                different = f"{OTHER_INPUTS} {different}"
            if not different:
                return ""
        return different

    # messages

    def ask(self, message: dict) -> dict:
        """The answer to a message. Raises `_Lost` if there is none, and keeps the reason."""
        if self.lost:
            raise _Lost
        try:
            self.awaits = True
            self.send(message)
            reply = self.receive()
            self.awaits = False
            return reply
        except BoxEnded as ended:
            self.lost, self.awaits = ended, False
            raise _Lost from None

    def send(self, message: dict) -> None:
        self.secret = secrets.token_bytes(16)
        self.box.send(pack({**message, "secret": self.secret}))

    def receive(self) -> dict:
        data = self.box.receive()
        if self.judge.is_late:
            raise BoxEnded("Time: to compare what the code returned took longer than a notebook may.", timed_out=True)
        try:
            # Keys of a dict can be chosen so that it takes hours to fill.
            with time_limit(JUDGE_SECONDS if len(data) > LARGE else None, 1e9):
                message = unpack(data)
            if type(message) is dict and hmac.compare_digest(message.pop("secret"), self.secret):
                return message
        except (ValueError, TypeError, KeyError, CheckTimeout):
            pass
        raise BoxEnded(WROTE)


def _text(value: Any) -> str:
    return str(value)[:MAX_TEXT]
