"""The exercises of the course: list them, and check whether a solution is right."""

from __future__ import annotations

import os
from typing import Any

from course_utils.exercises import progress
from course_utils.exercises.feedback import CheckResult, show_result
from course_utils.exercises.registry import Exercise, get_exercise, list_exercises
from course_utils.exercises.sandbox import run_check

__all__ = ["CheckResult", "Exercise", "ExerciseNotSolved", "check", "evaluate", "get_exercise", "list_exercises"]

REFERENCE_GIVEN = "This is the reference, not your answer. Run the cell with your answer first, then this one."


class ExerciseNotSolved(Exception):
    """Raised by `check` with `COURSE_STRICT=1` for an exercise whose solution is missing or wrong."""


def evaluate(exercise_id: str, submission: Any) -> CheckResult:
    """Check a student's solution without showing anything.

    Args:
        exercise_id: as in the notebook, for example "3.2".
        submission: the student's function or class.

    Returns:
        A `CheckResult`. It is "todo" if the student's code raised `NotImplementedError`; every other exception that
        this code raises becomes a "failed" with a message.

    Raises:
        KeyError: there is no such exercise.

    >>> evaluate("1.1", lambda images: {}).status
    'failed'
    """
    return run_check(exercise_id, get_exercise(exercise_id).check, submission)


def check(exercise_id: str, submission: Any) -> Any:
    """Check a student's solution, show the result, and return what to go on with.

    Returns:
        The submission if it is right, else the reference solution, so that the rest of the notebook runs either way.

    Raises:
        ExerciseNotSolved: with the environment variable `COURSE_STRICT=1`, if the solution is missing or wrong.
    """
    exercise = get_exercise(exercise_id)
    if submission is exercise.reference:  # put there by an earlier check that failed
        result = CheckResult(exercise_id, "todo", (REFERENCE_GIVEN,))
    else:
        result = evaluate(exercise_id, submission)
        progress.note(result)
    show_result(exercise, result)
    if result.status == "passed":
        return submission
    if os.environ.get("COURSE_STRICT") == "1":
        raise ExerciseNotSolved(f"Exercise {exercise_id} is {result.status}. {result.messages[0]}")
    return exercise.reference
