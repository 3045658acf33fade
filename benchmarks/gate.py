"""The speed gate, `python3 course.py bench --gate`: has a change made scoring, prediction or training slower?

`gate_workloads.py` times each of the three beside a plain way to do the same work. Such a ratio depends little on how
fast or how busy a machine is, so ratios are compared, never seconds. Measured are `ROUNDS` rounds of all three. A
workload counts as slower if both hold:

* a Mann-Whitney U test of the logarithms of the ratios, one-sided, gives p < `ALPHA`,
* the shift (Hodges and Lehmann: the median of all differences) is more than `MIN_SLOWER`, so that the small differences
  between any two processes, which are significant with enough rounds, do not count.

What the ratios are compared with:

* `--gate`: the committed `results/gate.json`, which `--gate --update` measures anew, after an intended change. Ratios
  do depend on the kind of processor and on versions (AMX makes the course's training faster, not the plain one), so on
  another kind of machine the gate compares nothing, names what is different, and exits with 2.
* `--gate --base HEAD^`: that commit, on any machine. It is checked out into a temporary folder, and both are measured
  in turn, a round of each. Continuous integration does this, as its machines are of several kinds.

Not noticed are: a change that makes both ways slower alike, for example one of a loss; several threads; GPUs; the
loading of images. Exit codes: 0 no slower, 1 slower, 2 not compared.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

CHECKOUT = Path(__file__).resolve().parents[1]
RESULT = CHECKOUT / "benchmarks" / "results" / "gate.json"
WORKLOADS = "benchmarks/gate_workloads.py"
ROUNDS = 80  # with noise of 30 %, a slowdown of 25 % is found in more than 90 % of all cases
ALPHA = 0.01
MIN_SLOWER = 1.15

Ratios = dict[str, list[float]]  # the logarithm of the ratio in each round, for each workload


class GateError(Exception):
    """Nothing could be compared; the text says why and what to do."""


@dataclass(frozen=True)
class Comparison:
    """One workload before and after: its median ratios, how many times slower it is, and the p-value of that."""

    name: str
    before: float
    after: float
    slower: float
    p_value: float

    @property
    def failed(self) -> bool:
        return self.slower > MIN_SLOWER and self.p_value < ALPHA


def compare(before: Ratios, after: Ratios) -> list[Comparison]:
    """Compare the ratios of each workload.

    Raises:
        GateError: the workloads are not the same.
    """
    if set(before) != set(after):
        raise GateError(
            f"The workloads were others before ({', '.join(sorted(before))}) than now ({', '.join(sorted(after))}). "
            "Measure anew: python3 course.py bench --gate --update"
        )
    found = []
    for name in after:
        old, new = np.array(before[name]), np.array(after[name])
        shift = float(np.median(np.subtract.outer(new, old)))
        p_value = float(mannwhitneyu(new, old, alternative="greater").pvalue)
        medians = (math.exp(np.median(old)), math.exp(np.median(new)))
        found.append(Comparison(name, *medians, math.exp(shift), p_value))
    return found


def report(comparisons: list[Comparison]) -> str:
    """The comparisons for people, and for each failure what it means and what to do."""
    lines = [f"{'course / plain':<16}{'before':>9}{'now':>9}{'times slower':>14}{'p':>9}"]
    for one in comparisons:
        lines.append(f"{one.name:<16}{one.before:>9.3f}{one.after:>9.3f}{one.slower:>14.2f}{one.p_value:>9.2g}")
    failed = [one for one in comparisons if one.failed]
    for one in failed:
        lines.append(
            f"SLOWER: {one.name} takes {one.slower - 1:.0%} longer than before, compared with the plain way in the "
            f"same run (p = {one.p_value:.2g}; allowed are {MIN_SLOWER - 1:.0%})."
        )
    if failed:
        lines.append(
            "Find what the change does in each call or step. If it is worth its time, measure anew and commit the "
            "result with it: python3 course.py bench --gate --update"
        )
    else:
        lines.append("Nothing became slower.")
    return "\n".join(lines)


class Worker:
    """A process that measures one checkout, a round at a time."""

    def __init__(self, checkout: Path, script: Path):
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", str(script)]
        self.process = subprocess.Popen(
            command, cwd=checkout, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        about = self.answer()
        self.machine: dict[str, str] = about["machine"]
        if not Path(about["package"]).is_relative_to(checkout.resolve()):
            raise GateError(f"{about['package']} was measured instead of {checkout}.")

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise GateError("The process that measures ended early; what it wrote last stands above.")
        return json.loads(line)

    def round(self) -> dict[str, float]:
        print(file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def measure_in_turn(workers: list[Worker], rounds: int = ROUNDS) -> list[Ratios]:
    """The ratios of each worker's checkout; each worker measures a round, then the next one does."""
    measured: list[Ratios] = [{} for _ in workers]
    for _ in range(rounds):
        for worker, ratios in zip(workers, measured, strict=True):
            for name, value in worker.round().items():
                ratios.setdefault(name, []).append(value)
    return measured


@contextlib.contextmanager
def started(*checkouts: Path) -> Iterator[list[Worker]]:
    """Workers for some checkouts, the course's own workloads in all of them; they end with the block.

    A checkout whose functions these workloads do not fit, because they have been renamed since, gets its own workloads.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for checkout in checkouts:
            try:
                worker = Worker(checkout, CHECKOUT / WORKLOADS)
            except GateError:
                if checkout == CHECKOUT or not (checkout / WORKLOADS).is_file():
                    raise
                print(f"{checkout} is measured with its own {WORKLOADS}.", flush=True)
                worker = Worker(checkout, checkout / WORKLOADS)
            stack.callback(worker.close)
            workers.append(worker)
        yield workers


@contextlib.contextmanager
def checked_out(reference: str) -> Iterator[Path]:
    """A temporary folder with the files of a commit.

    Raises:
        GateError: git does not know the commit.
    """
    with tempfile.TemporaryDirectory(prefix="speed-gate-") as folder:
        place = Path(folder).resolve() / "base"
        added = git("worktree", "add", "--detach", str(place), f"{reference}^{{commit}}")
        if added.returncode:
            raise GateError(
                f"git cannot check out {reference!r}: {added.stderr.strip()}\n"
                "In a shallow clone fetch more commits first, for example: git fetch --deepen 1"
            )
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))


def git(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True)
    except OSError as error:
        raise GateError(f"git could not be started: {error}") from error


def refuse_other_machine(committed: dict[str, str], here: dict[str, str]) -> None:
    """Raise a `GateError` if the ratios of the two machines cannot be compared."""
    names = sorted({*committed, *here})
    different = [name for name in names if committed.get(name) != here.get(name)]
    if different:
        what = "; ".join(f"{name}: {committed.get(name)} there, {here.get(name)} here" for name in different)
        raise GateError(
            f"The committed ratios are those of another kind of machine, so nothing was compared ({what}). "
            "Compare with a commit on this machine: python3 course.py bench --gate --base HEAD^"
        )


def read_result() -> dict:
    """The committed result."""
    try:
        return json.loads(RESULT.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GateError(
            f"{RESULT} cannot be read ({error}). Measure anew: python3 course.py bench --gate --update"
        ) from error


def run_gate(base: str | None = None, update: bool = False, rounds: int = ROUNDS) -> int:
    """Measure, compare and print; returns the exit code."""
    try:
        if base is not None:
            with checked_out(base) as place, started(place, CHECKOUT) as workers:
                before, after = measure_in_turn(workers, rounds)
            print(f"Compared with {base}, {rounds} rounds of each in turn.")
        else:
            committed = {} if update else read_result()
            with started(CHECKOUT) as workers:
                machine = workers[0].machine
                if not update:
                    refuse_other_machine(committed["machine"], machine)
                [after] = measure_in_turn(workers, rounds)
            if update:
                write_result(after, machine)
                return 0
            before = committed["log_ratios"]
            print(f"Compared with {RESULT.relative_to(CHECKOUT)} of {committed['date']}, {rounds} rounds.")
        comparisons = compare(before, after)
    except GateError as error:
        print(f"course.py bench: {error}", file=sys.stderr)
        return 2
    print(report(comparisons))
    return 1 if any(one.failed for one in comparisons) else 0


def write_result(ratios: Ratios, machine: dict[str, str]) -> None:
    """Write the result file and say what is in it."""
    medians = {name: round(math.exp(np.median(values)), 3) for name, values in ratios.items()}
    result = {
        "title": "Seconds of the course / seconds of the plain way, in one thread",
        "command": "python3 course.py bench --gate --update",
        "date": date.today().isoformat(),
        "machine": machine,
        "ratios": medians,
        "log_ratios": {name: [round(value, 3) for value in values] for name, values in ratios.items()},
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    head, lists = text.split('"log_ratios"')
    RESULT.write_text(head + '"log_ratios"' + lists.replace(",\n   ", ", ") + "\n", encoding="utf-8")
    print(f"{RESULT} written: {', '.join(f'{name} {value}' for name, value in medians.items())}")
