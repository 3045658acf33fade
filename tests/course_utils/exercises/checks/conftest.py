"""What the tests of the checks share: mutants held to a bar, and a table of figures at the end of the run."""

from __future__ import annotations

import time

import pytest
import torch
from mutation import BAR, report

from course_utils.exercises import evaluate
from course_utils.exercises.registry import get_exercise


@pytest.fixture(autouse=True)
def one_thread():
    """Mutants are many and small: a second thread only adds noise to the times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def kill_mutants(record_property):
    """A function that runs the check on every mutant of the reference and fails below the bar: see `mutation`."""

    def kill(exercise_id: str, equivalent: dict[str, str] | None = None, seconds: float = 0.5) -> None:
        found = report(exercise_id, equivalent, seconds)
        figures = [found.killed, found.timeouts, found.all, found.equivalent, found.seconds]
        record_property("mutants", [exercise_id, *figures])
        survivors = "\n  ".join(found.survivors)
        assert found.all > 0
        assert found.share >= BAR, f"{exercise_id}: only {found.share:.0%} killed. Survivors:\n  {survivors}"
        assert not found.stale, f"{exercise_id}: no survivor needs these entries of EQUIVALENT: {found.stale}"

    return kill


@pytest.fixture
def quick_check(record_property):
    """A function that checks a right solution (default: the reference): it passes, and in under two seconds."""

    def pass_quickly(exercise_id: str, solution=None) -> None:
        solution = get_exercise(exercise_id).reference if solution is None else solution
        evaluate(exercise_id, solution)  # the first call pays for imports
        start = time.perf_counter()
        result = evaluate(exercise_id, solution)
        seconds = time.perf_counter() - start
        record_property("check_seconds", [exercise_id, seconds])
        assert result.status == "passed", result.messages
        assert seconds < 2.0

    return pass_quickly


def pytest_terminal_summary(terminalreporter):
    """The figures of the run: they travel as properties of the test reports, so this also works with xdist."""
    figures = {"mutants": {}, "check_seconds": {}}
    for outcome in ("passed", "failed"):
        for test in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(test, "user_properties", []):
                if name in figures:
                    figures[name][value[0]] = value[1:]
    if not any(figures.values()):
        return
    terminalreporter.section("checks of the exercises")
    terminalreporter.write_line(
        "exercise  check takes  mutants killed / all  of these timeouts  equivalent   share  mutation run"
    )
    for exercise_id in sorted(set(figures["mutants"]) | set(figures["check_seconds"])):
        took = figures["check_seconds"].get(exercise_id)
        line = f"{exercise_id:<8}  {f'{took[0]:.3f} s' if took else '':>11}"
        if exercise_id in figures["mutants"]:
            killed, timeouts, all_, equivalent, seconds = figures["mutants"][exercise_id]
            share = killed / max(1, all_ - equivalent)
            line += f"  {killed:>14} / {all_:<3}  {timeouts:>17}  {equivalent:>10}  {share:>6.1%}  {seconds:>10.1f} s"
        terminalreporter.write_line(line)
