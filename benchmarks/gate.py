"""The speed gate: has a change made scoring, prediction or the training step slower?

    python3 course.py bench --gate                     # compared with the committed result
    python3 course.py bench --gate --base origin/main # compared with another commit, both measured now
    python3 course.py bench --gate --update            # after a change that is meant to cost time: the new result

Each round gives one ratio for each of three workloads: the time of the course's function to that of a plain way to do
the same, in turn (`gate_workloads`). So it does not matter how fast a machine is or what else it does. What a processor
can do does matter, and torch's version: the committed ratios count on a machine of the kind that they come from, and
elsewhere, as in continuous integration, the base commit is measured in the same run, a round of one after a round of
the other.

The gate closes if both are true of a workload: its ratios are larger than before by a one-sided Mann-Whitney test
(p < 0.01), and their median is larger by more than 15 %. The first alone would close at differences that nobody
notices, the second alone at chance.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import mannwhitneyu

from benchmarks.measuring import RESULTS, format_table, write

ROUNDS = 20
LEVEL = 0.01  # of the test
SLOWER = 1.15
CHECKOUT = Path(__file__).resolve().parents[1]
Rounds = dict[str, list[float]]  # workload -> logarithms of ratios


class GateError(Exception):
    """The gate cannot measure or compare; the message says what to do."""


@dataclass(frozen=True)
class Verdict:
    """One workload before and after a change; the ratios are medians."""

    workload: str
    before: float
    after: float
    p: float

    @property
    def slower(self) -> bool:
        return self.p < LEVEL and self.after > SLOWER * self.before

    def row(self) -> dict:
        return {
            "workload": self.workload, "ratio before": self.before, "ratio now": self.after,
            "change": f"{self.after / self.before - 1:+.1%}", "p": self.p, "verdict": "SLOWER" if self.slower else "ok",
        }  # fmt: skip


def compare(before: Rounds, after: Rounds) -> list[Verdict]:
    """A verdict for each workload."""
    return [
        Verdict(
            name, math.exp(statistics.median(before[name])), math.exp(statistics.median(after[name])),
            float(mannwhitneyu(after[name], before[name], alternative="greater").pvalue),
        )
        for name in after
        if name in before
    ]  # fmt: skip


class Measured:
    """A process that measures the `course_utils` of one checkout, a round at a time."""

    def __init__(self, checkout: Path):
        workloads = CHECKOUT / "benchmarks" / "gate_workloads.py"
        paths = os.pathsep.join([str(checkout), str(CHECKOUT)])  # the second for what tells the machine
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(workloads)], env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        about = self._answer()
        if Path(about["package"]).parent != checkout:
            raise GateError(f"{about['package']} was measured instead of the course in {checkout}.")
        self.machine, self.rounds = about["machine"], {}

    def _answer(self) -> dict:
        if not (line := self.process.stdout.readline()):
            raise GateError(f"The measuring process ended early, with exit code {self.process.wait()}; see above.")
        return json.loads(line)

    def round(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        for name, value in self._answer().items():
            self.rounds.setdefault(name, []).append(round(value, 4))

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def measuring(*checkouts: Path) -> Iterator[list[Measured]]:
    """Processes for some checkouts, which end with the `with` block."""
    processes: list[Measured] = []
    try:
        for checkout in checkouts:
            processes.append(Measured(checkout))
        yield processes
    finally:
        for one in processes:
            one.end()


@contextlib.contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """Another commit of this repository, in a temporary folder."""

    def git(*command: str) -> None:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *command], capture_output=True, text=True)
        if done.returncode != 0:
            raise GateError(f"git {' '.join(command)} failed: {done.stderr.strip()}")

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve() / "base"
        git("worktree", "add", "--detach", str(place), ref)
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))


def measure_rounds(processes: list[Measured], rounds: int = ROUNDS) -> list[Rounds]:
    """The ratios of each process, a round of one after a round of the other."""
    for _ in range(rounds):
        for one in processes:
            one.round()
    return [one.rounds for one in processes]


def against_base(ref: str) -> list[Verdict]:
    """This checkout against another commit, both measured now."""
    with checked_out(ref) as base, measuring(base, CHECKOUT) as processes:
        return compare(*measure_rounds(processes))


def against_committed(file: Path = RESULTS / "gate.json") -> list[Verdict]:
    """This checkout against the committed result.

    Raises:
        GateError: that comes from another kind of machine.
    """
    committed = json.loads(file.read_text(encoding="utf-8"))
    with measuring(CHECKOUT) as processes:
        here = processes[0].machine
        different = [name for name in here if here[name] != committed["kind of machine"].get(name)]
        if different:
            raise GateError(
                f"The committed result comes from another machine (other {', '.join(different)}), and ratios of "
                "different machines cannot be compared. Compare with a commit, for example: --base origin/main"
            )
        return compare(committed["log ratios"], *measure_rounds(processes))


def update() -> Path:
    """Measure this checkout and write the result that is committed."""
    with measuring(CHECKOUT) as processes:
        [rounds] = measure_rounds(processes)
        about = {"command": "python3 course.py bench --gate --update", "title": "The speed gate"}
        return write("gate", about | {"kind of machine": processes[0].machine, "log ratios": rounds})


def run_gate(base: str | None, renew: bool) -> int:
    """What the command does; returns its exit code."""
    try:
        if renew:
            print(f"Written to {update()}.")
            return 0
        verdicts = against_base(base) if base else against_committed()
        if not verdicts:
            raise GateError("Nothing could be compared: the other result has none of the workloads of this one.")
    except GateError as error:
        print(f"course.py bench --gate: {error}", file=sys.stderr)
        return 2
    print(format_table([one.row() for one in verdicts]))
    slower = [one.workload for one in verdicts if one.slower]
    if slower:
        print(
            f"\nSlower by more than {SLOWER - 1:.0%}: {', '.join(slower)}. Find out why (a profile helps), or, if the "
            "change is meant to cost this, measure anew with --gate --update and commit the result with a reason."
        )
    return 1 if slower else 0
