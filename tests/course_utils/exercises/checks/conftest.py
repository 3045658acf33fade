"""One thread for many small checks, and a table of figures at the end of the run."""

from __future__ import annotations

import pytest
import torch

pytest.register_assert_rewrite("runner")


@pytest.fixture(autouse=True)
def one_thread():
    """Mutants are many and small: a second thread only adds noise to the times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
