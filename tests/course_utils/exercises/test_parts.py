"""Checks in parts: all run, the first failure is shown, and what is right is counted."""

import itertools
import sys

import numpy as np
import pytest

from course_utils.exercises import evaluate, get_exercise
from course_utils.exercises.feedback import check_part, expect_close, fail
from course_utils.exercises.sandbox import run_check


def check(submission):
    """Three parts, with what belongs to none of them in front, between and behind."""
    submission("before")
    for name in "abc":
        with check_part():
            if submission(name) != name:
                fail(name, submission(name), name)
    submission("behind")


def answers(**special):
    """A function that gives back its argument, or does what is special for it."""

    def submission(name):
        return special[name]() if name in special else name

    return submission


def error(kind, *arguments):
    def raises():
        raise kind(*arguments)

    return raises


def endless():
    for _ in itertools.count():
        pass


RIGHT = "2 of 3 parts of the check are right."


@pytest.mark.parametrize(
    ("submission", "status", "parts", "messages"),
    [
        (answers(), "passed", (3, 3), ["Right."]),
        (answers(b=int), "failed", (2, 3), ["b: found 0, expected b.", RIGHT]),
        (answers(a=error(KeyError, "x"), c=int), "failed", (1, 3), ["KeyError", "1 of 3 parts of the check is right."]),
        (answers(a=int, b=error(ValueError), c=int), "failed", (0, 3), ["a: found 0, expected a."]),
        (answers(b=error(NotImplementedError, "Exercise 9.9")), "todo", (0, 1), ["Exercise 9.9"]),
        # what belongs to no part, or ends the check, leaves no part right; the first failure is shown all the same
        (answers(before=error(ValueError, "y")), "failed", (0, 1), ["ValueError"]),
        (answers(behind=error(ValueError, "y")), "failed", (0, 1), ["ValueError"]),
        (answers(b=int, behind=error(ValueError, "y")), "failed", (0, 1), ["b: found 0"]),
        (answers(b=int, c=sys.exit), "failed", (0, 1), ["b: found 0"]),
        (answers(c=endless), "failed", (0, 1), ["Time"]),
        (answers(b=int, c=endless), "failed", (0, 1), ["b: found 0"]),
    ],
)
def test_a_check_with_parts(submission, status, parts, messages):
    result = run_check("9.9", check, submission, 0.05)
    assert (result.status, result.parts) == (status, parts)
    assert all(start in found for found, start in zip(result.messages, messages, strict=True))


@pytest.mark.parametrize(("answer", "parts"), [(1, (1, 1)), (2, (0, 1))])
def test_a_check_without_parts_is_one(answer, parts):
    assert run_check("9.9", lambda found: expect_close("it", found, 1), answer).parts == parts


@pytest.mark.parametrize("exercise", "1.7 2.3 3.3 3.4 4.1 4.3 4.6 5.1 5.2 5.3".split())
def test_exercises_of_several_parts(exercise):
    right, of = evaluate(exercise, get_exercise(exercise).reference).parts
    assert right == of > 1


def test_a_forgotten_case_costs_its_part():
    def average_precision(prediction, truth, iou_thresholds):
        if not truth.any() and not prediction.any():
            return [0.0 for _ in iou_thresholds]
        return get_exercise("4.6").reference(prediction, truth, iou_thresholds)

    result = evaluate("4.6", average_precision)
    right, of = result.parts
    assert result.status == "failed" and right == of - 1
    assert result.messages[1] == f"{right} of {of} parts of the check are right."


def test_arrays_that_differ_are_kept_to_be_drawn():
    found, expected = np.zeros((2, 3)), np.ones((2, 3))
    result = run_check("9.9", lambda value: expect_close("it", value, expected), found)
    assert [panel.array.tolist() for panel in result.picture.panels[:2]] == [found.tolist(), expected.tolist()]
    result = evaluate("1.6", lambda mask: get_exercise("1.6").reference(mask) * 0)
    assert [panel.title for panel in result.picture.panels] == ["input", "yours", "expected", "difference"]
    assert run_check("9.9", lambda value: fail("Kind", value, 1), 2).picture is None


def test_an_error_of_the_students_own_cannot_break_the_check():
    class Odd(ValueError):
        @property
        def picture(self):
            raise KeyError

    result = run_check("9.9", check, answers(a=error(Odd)))
    assert result.status == "failed" and result.picture is None
