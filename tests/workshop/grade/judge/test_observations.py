"""Any right solution agrees with the reference on any seed; wrong ones and tables of answers do not.

The short form takes a few solutions of the tests of the checks, and one seed. All solutions and 20 seeds, and the share
of the wrong solutions and of the mutants that the confirmation alone refuses (about ten minutes):

    python -m pytest -m slow tests/workshop/grade/judge/test_observations.py
"""

from __future__ import annotations

import pickle
import random
import time
from importlib import import_module
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from course_utils.exercises import get_exercise, list_exercises
from course_utils.exercises.sandbox import run_check, silence, time_limit
from workshop.grade.judge.confirmation import confirm, same
from workshop.grade.judge.observations import observe
from workshop.grade.judge.values import pack, unpack

IDS = [exercise.id for exercise in list_exercises()]
# The others are given networks, loaders or generators of random numbers, or make them.
OF_VALUES = {"1.1", "1.2", "1.3", "1.4", "1.6", "2.5", "3.1", "3.2", "4.2", "4.3", "4.4", "4.5", "4.6", "5.1", "5.2",
             "5.3", "6.1", "6.2", "7.2", "8.1", "8.2"}  # fmt: skip


@pytest.fixture
def tables(monkeypatch):
    """The test module of an exercise's check, with its solutions; imported only now, so that pytest rewrites it."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "course_utils/exercises/checks")
    return lambda exercise_id: import_module(f"test_notebook_{get_exercise(exercise_id).notebook[:2]}")


def verdict(exercise_id: str, submission, seed: int) -> str:
    """What is wrong with a solution, as the grader finds out: empty if nothing is."""
    name = get_exercise(exercise_id).name
    try:
        with silence(), time_limit(3):
            found = unpack(pack(observe(name, submission, seed)))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return confirm(name, found, seed)


@pytest.mark.parametrize("exercise_id", IDS)
def test_right_solutions_are_confirmed(exercise_id, tables):
    choice = random.Random(exercise_id)
    for solution in [get_exercise(exercise_id).reference, *choice.sample(tables(exercise_id).RIGHT[exercise_id], 2)]:
        assert verdict(exercise_id, solution, seed=choice.randrange(2**31)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("exercise_id", IDS)
def test_right_solutions_are_confirmed_on_every_seed(exercise_id, tables):
    for solution in [get_exercise(exercise_id).reference, *tables(exercise_id).RIGHT[exercise_id]]:
        different = {seed: text for seed in range(20) if (text := verdict(exercise_id, solution, seed))}
        assert different == {}


@pytest.mark.slow
@pytest.mark.parametrize("exercise_id", IDS)
def test_most_wrong_solutions_are_refused_by_the_confirmation_alone(exercise_id, tables):
    """Not seen are, among others, time, memory, devices and workers of loaders."""
    wrong = tables(exercise_id).WRONG[exercise_id]
    passed = [name for name, (solution, _) in wrong.items() if not verdict(exercise_id, solution, seed=5)]
    assert len(passed) <= 0.2 * len(wrong), passed


@pytest.mark.slow
@pytest.mark.parametrize("exercise_id", IDS)
def test_most_mutants_are_refused_by_the_confirmation_alone(exercise_id, tables):
    module = tables(exercise_id)
    equivalent = {*chain(*module.EQUIVALENT.get(exercise_id, {}).values())}
    killed, survivors = 0, []
    for mutant in import_module("mutation").mutants(get_exercise(exercise_id).reference):
        text = verdict(exercise_id, mutant.object, seed=5)
        if {mutant.name, mutant.name.split(": ")[0]} & equivalent:
            continue
        killed += bool(text)
        survivors += [] if text else [f"{mutant.name}    {mutant.source}"]
    assert len(survivors) <= 0.2 * (killed + len(survivors)), survivors


class Table:
    """A function that knows the right results for the inputs of the check, and for others one of these."""

    def __init__(self, function):
        self.function, self.results, self.asked = function, {}, False

    def __call__(self, *arguments, **options):
        key = pickle.dumps((arguments, options))
        if not self.asked and key not in self.results:
            try:
                self.results[key] = self.function(*arguments, **options)
            except ValueError as error:
                self.results[key] = error
        result = self.results.get(key, next(iter(self.results.values())))
        if isinstance(result, Exception):
            raise result
        return result


@pytest.mark.parametrize("exercise_id", sorted(OF_VALUES))
def test_a_table_of_answers_passes_the_check_but_is_refused_on_every_seed(exercise_id):
    exercise = get_exercise(exercise_id)
    table = Table(exercise.reference)
    assert run_check(exercise_id, exercise.check, table).status == "passed"
    table.asked = True
    assert all(verdict(exercise_id, table, seed) for seed in range(5))


class AlwaysEqual:
    __eq__ = __ge__ = __le__ = lambda self, other: True
    __hash__ = None


@pytest.mark.parametrize("exercise_id", IDS)
def test_whatever_arrives_is_refused_with_a_sentence(exercise_id):
    for found in (
        None, [], [[]], [None] * 30, "Right.", {"status": "passed"}, [[np.zeros((3, 3))] * 2] * 6, [float("nan")] * 9,
        np.array([True]), torch.ones(4), [AlwaysEqual()] * 9, AlwaysEqual(), 10**400, [[np.zeros(3, "S3"), (0, 1)]] * 4,
    ):  # fmt: skip
        text = confirm(get_exercise(exercise_id).name, found, seed=3)
        assert "found" in text and "expected" in text and len(text) < 700


@pytest.mark.parametrize("exercise_id", IDS)
def test_an_observation_is_quick_and_leaves_no_trace(exercise_id):
    exercise = get_exercise(exercise_id)
    observe(exercise.name, exercise.reference, seed=1)  # the first use pays for imports
    before, states = time.process_time(), (torch.get_rng_state(), np.random.get_state()[1])  # noqa: NPY002
    found = observe(exercise.name, exercise.reference, seed=2)
    assert time.process_time() - before < 0.5
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert pack(found) == pack(observe(exercise.name, exercise.reference, seed=2))
    assert pack(found) != pack(observe(exercise.name, exercise.reference, seed=3))


@pytest.mark.parametrize(("found", "expected"), [
    (1, 1.0), (2.0 + 1e-9, 2.0), (np.int64(3), 3), (np.float64(0.5), 0.5), ((1, 2), [1, 2]), (None, None), ("a", "a"),
    (np.ones(3, "f4"), np.ones(3)), (np.zeros((0, 3)), np.zeros((0, 3))), (torch.ones(2), torch.ones(2)),
    (float("nan"), float("nan")), (True, True),
    (3.0, 3), (1, 1.0), (torch.tensor(3), 3), (np.float32([1e8]), np.float32([1e8 + 64])), ([], ()),
])  # fmt: skip
def test_equal_up_to_rounding(found, expected):
    assert same(found, expected) == ""


@pytest.mark.parametrize(("found", "expected", "words"), [
    (1.5, 1, "found 1.5, expected 1"), (2**50 + 1, 2**50, "found"),
    (True, 1, "found True, expected 1"), (True, 1.0, "True"), (1, True, "found 1"),
    (0.51, 0.5, "found 0.51, expected 0.5"), (np.float32(0.5), 0.5, "found np.float32"), ([1], [1, 2], "found [1]"),
    (np.ones(3, "f4"), np.ones(4), "shape"), (np.ones(3), np.ones(3, "f4"), "found dtype float64, expected float32"),
    (np.ones(3, "i4"), np.ones(3), "dtype"), (torch.ones(3), np.ones(3), "found Tensor, expected ndarray"),
    (np.ones(3), torch.ones(3), "ndarray"), ([1.0], np.ones(1), "list"), (None, 0.0, "None"), ("0", 0, "'0'"),
    (np.array([1, 2]), np.array([1, 3]), "found 2, expected 3"), (float("nan"), 0.0, "nan"), ("b", "a", "found 'b'"),
])  # fmt: skip
def test_differences_are_named(found, expected, words):
    assert words in same(found, expected)


def test_the_numbering_of_instances_does_not_matter():
    reference = get_exercise("4.2").reference

    def from_the_end(probability, threshold=0.5):
        labels = reference(probability, threshold).astype(np.uint16)
        return np.where(labels > 0, labels.max() + 1 - labels, 0) * 3

    assert verdict("4.2", from_the_end, seed=4) == ""
