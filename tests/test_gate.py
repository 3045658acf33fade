"""The speed gate closes when something has become slower, and only then.

    python3 course.py test -m slow tests/test_gate.py    # the real workloads, one of them slowed down
"""

from __future__ import annotations

import math
import random

import pytest

from benchmarks import gate, gate_workloads
from benchmarks.__main__ import main


def rounds(seed: int, factor: float = 1.0, noise: float = 0.1, n: int = gate.ROUNDS) -> dict:
    rng = random.Random(seed)
    return {"work": [math.log(factor) + rng.gauss(0, noise) for _ in range(n)]}


def closed(before: dict, after: dict) -> bool:
    return any(one.slower for one in gate.compare(before, after))


def test_noise_does_not_close_the_gate_and_slowness_does():
    """With ratios that vary by 10 %, about twice what was seen beside other work."""
    trials = range(200)
    assert sum(closed(rounds(one), rounds(one + 1000)) for one in trials) <= 2
    assert sum(closed(rounds(one), rounds(one + 1000, 1.25)) for one in trials) >= 180
    assert all(closed(rounds(one), rounds(one + 1000, 2)) for one in trials)
    assert not any(closed(rounds(one), rounds(one + 1000, 0.5)) for one in trials)  # faster is welcome


def test_with_three_times_the_noise_it_seldom_closes_without_a_reason():
    assert sum(closed(rounds(one, noise=0.3), rounds(one + 1000, noise=0.3)) for one in range(200)) <= 10


def test_a_certain_but_small_difference_is_no_reason():
    [verdict] = gate.compare(rounds(0, noise=0.001), rounds(1, 1.05, noise=0.001))
    assert verdict.p < gate.LEVEL and not verdict.slower


def test_only_workloads_that_both_have_are_compared():
    assert gate.compare({"old": [0.0]}, {"new": [0.0]}) == []


def test_nothing_to_compare_does_not_pass(monkeypatch, capsys):
    monkeypatch.setattr(gate, "against_base", lambda base: [])
    assert gate.run_gate("HEAD^", False) == 2
    assert "Nothing could be compared" in capsys.readouterr().err


def test_a_ratio_takes_the_quickest_of_some_turns():
    times = iter([0, 3, 3, 4, 4, 6, 6, 7, 7, 15, 15, 16])  # course 3, plain 1, course 2, plain 1, ...
    ratio = gate_workloads.log_ratio((lambda: 0, lambda: 1), True, clock=lambda: next(times))
    assert ratio == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", gate_workloads.WORKLOADS)
def test_both_ways_do_the_same_work(name):
    course, plain = gate_workloads.WORKLOADS[name]()
    if name == "scoring":
        assert plain()[0] == pytest.approx(course()[0][:2])
    elif name == "training step":
        assert plain() == pytest.approx(course(), rel=0.1)  # another optimiser, jittered intensities
    else:
        for one, other in zip(course(), plain(), strict=True):
            assert one == pytest.approx(other, abs=1e-4)



def test_another_kind_of_machine_is_not_compared(monkeypatch, capsys):
    class Elsewhere:
        machine = {"processor": "unknown"}

    monkeypatch.setattr(gate, "Measured", lambda checkout: Elsewhere())
    monkeypatch.setattr(Elsewhere, "end", lambda self: None, raising=False)
    assert main(["--gate"]) == 2
    said = capsys.readouterr().err
    assert "another machine (other processor)" in said and "--base origin/main" in said


def test_a_commit_that_does_not_exist(capsys):
    assert main(["--gate", "--base", "nowhere"]) == 2
    assert "git worktree add" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--base", "HEAD"], ["--update"]])
def test_options_of_the_gate_alone(option, capsys):
    with pytest.raises(SystemExit):
        main(option)
    assert "belong to --gate" in capsys.readouterr().err


def test_slower_work_is_named_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(gate, "against_base", lambda base: gate.compare(rounds(0), rounds(1, 2.0)))
    assert main(["--gate", "--base", "HEAD"]) == 1
    said = capsys.readouterr().out
    assert "SLOWER" in said and "Slower by more than 15%: work." in said and "--update" in said


SLOW = {  # a line that is slow, for each workload; the plain ways do not pass it
    "scoring": ("course_utils/metrics.py", "def match_instances(", "    __import__('time').sleep(0.004)\n"),
    "prediction": ("course_utils/segmentation.py", "def predict(", "    __import__('time').sleep(0.02)\n"),
    "training step": ("course_utils/training.py", "    def step(", "        __import__('time').sleep(0.03)\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("workload", [None, *SLOW])
def test_the_real_gate_notices_each_workload(tmp_path, workload):
    """A copy of the course in which one function is slow, measured beside the course."""
    import shutil

    copy = tmp_path / "copy"
    for part in ("course_utils", "data", "workshop"):
        shutil.copytree(gate.CHECKOUT / part, copy / part)
    if workload:
        name, start, line = SLOW[workload]
        text = (copy / name).read_text(encoding="utf-8")
        at = text.index('"""', text.index('"""', text.index(start)) + 3) + 4
        (copy / name).write_text(text[:at] + line + text[at:], encoding="utf-8")
    with gate.measuring(gate.CHECKOUT, copy) as processes:
        verdicts = gate.compare(*gate.measure_rounds(processes))
    assert [one.workload for one in verdicts if one.slower] == [workload] * bool(workload)
