"""The speed gate: what it finds in made-up ratios, and that both ways of each workload do the same work."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import gate, gate_workloads
from benchmarks.__main__ import main


def ratios(rng: np.random.Generator, noise: float = 0.3, slower: float = 1.0) -> gate.Ratios:
    noisy = {name: rng.normal(0, noise, gate.ROUNDS) for name in gate_workloads.WORKLOADS}
    return {name: (values + math.log(slower)).tolist() for name, values in noisy.items()}


def test_noise_passes_and_what_became_slower_is_found():
    """With noise of 30 % in every ratio: 200 comparisons of all three workloads."""
    rng, passed, caught = np.random.default_rng(0), 0, {1.25: 0, 2: 0}
    for _ in range(200):
        before = ratios(rng)
        passed += not any(one.failed for one in gate.compare(before, ratios(rng)))
        for slower in caught:
            caught[slower] += gate.compare(before, ratios(rng, slower=slower))[0].failed
    assert passed >= 190 and caught[1.25] >= 180 and caught[2] == 200, (passed, caught)


def test_a_small_difference_passes_however_significant_it_is():
    rng = np.random.default_rng(0)
    for one in gate.compare(ratios(rng, 0.01), ratios(rng, 0.01, slower=1.1)):
        assert one.p_value < 1e-9 and not one.failed


def test_what_became_slower_is_named_with_what_to_do():
    rng = np.random.default_rng(0)
    said = gate.report(gate.compare(ratios(rng, 0.01), ratios(rng, 0.01, slower=2)))
    assert "SLOWER: scoring takes 100% longer" in said and "--gate --update" in said


def test_the_shortest_of_some_turns_counts():
    times = iter([0, 4, 4, 5, 5, 7, 7, 8, 8, 18, 18, 19])  # 4, 1, 2, 1, 10, 1
    assert gate_workloads.TURNS == 3
    assert gate_workloads.log_ratio((lambda: 0, lambda: 1), True, lambda: next(times)) == pytest.approx(math.log(2))


def test_another_kind_of_machine_is_recognised():
    here = {"processor": "a", "torch": "2"}
    gate.refuse_other_machine(here, dict(here))
    with pytest.raises(gate.GateError, match="processor: a there, b here.*--base"):
        gate.refuse_other_machine(here, here | {"processor": "b"})


def test_both_ways_do_the_same_work():
    course, plain = gate_workloads.scoring()
    assert course()[0][:2] == plain()[0]
    course, plain = gate_workloads.prediction()
    assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(course(), plain(), strict=True))
    course, plain = gate_workloads.training_step()
    assert course() == pytest.approx(plain(), rel=0.1)  # `fit` also changes the intensities


def test_an_unknown_commit_and_wrong_options_end_in_words(capsys):
    assert main(["--gate", "--base", "no-such-commit"]) == 2
    assert "cannot check out 'no-such-commit'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--update"])
