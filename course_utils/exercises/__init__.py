"""The exercises of the course: list them, and check whether a solution is right."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from course_utils.exercises import progress
from course_utils.exercises.feedback import CheckResult, show_result
from course_utils.exercises.registry import Exercise, get_exercise, list_exercises
from course_utils.exercises.sandbox import run_check

__all__ = ["CheckResult", "Exercise", "ExerciseNotSolved", "check", "evaluate", "get_exercise", "list_exercises"]

REFERENCE_GIVEN = "This is the reference, not your answer. Run the cell with your answer first, then this one."
KEPT_CHECKED = "Checked was `{kept}`, from your last try. If you have changed your cell since, run it first."


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

    What is not right yet is kept in the notebook as `your_count_shapes`, for example, until it passes. If the check is
    run again although `count_shapes` now is the reference, that one is checked.

    Returns:
        The submission if it is right, else the reference solution, so that the rest of the notebook runs either way.

    Raises:
        ExerciseNotSolved: with the environment variable `COURSE_STRICT=1`, if the solution is missing or wrong.
    """
    exercise = get_exercise(exercise_id)
    names, kept = _names_of_notebook(), f"your_{exercise.name}"
    again = submission is exercise.reference  # put there by an earlier check that failed
    if again and names is not None:
        submission = names.get(kept, submission)
    if submission is exercise.reference:
        result = CheckResult(exercise_id, "todo", (REFERENCE_GIVEN,))
    else:
        with _bound(names if again else None, exercise.name, submission):
            result = evaluate(exercise_id, submission)
        progress.note(result)
        if names is not None and result.status == "passed":
            names.pop(kept, None)
        elif names is not None:
            names[kept] = submission
        if again:
            result = replace(result, messages=(*result.messages, KEPT_CHECKED.format(kept=kept)))
    is_kept = names is not None and names.get(kept) is submission is not exercise.reference
    show_result(exercise, result, kept if is_kept else "", submission)
    if result.status == "passed":
        return submission
    if os.environ.get("COURSE_STRICT") == "1":
        raise ExerciseNotSolved(f"Exercise {exercise_id} is {result.status}. {result.messages[0]}")
    return exercise.reference


def _names_of_notebook() -> dict[str, Any] | None:
    """The names that its cells define; None outside IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return None if shell is None else shell.user_ns


@contextmanager
def _bound(names: dict[str, Any] | None, name: str, value: Any) -> Iterator[None]:
    """Inside, the name means the student's object, as when it was defined: a recursive function calls itself."""
    if names is None or name not in names:
        yield
        return
    before, names[name] = names[name], value
    try:
        yield
    finally:
        names[name] = before
