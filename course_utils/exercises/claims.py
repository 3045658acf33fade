"""Sentences in the notebooks that state a result, checked where they stand."""

from __future__ import annotations

import os


def claim(holds: bool, sentence: str) -> None:
    """Print whether a sentence about the data holds.

    The notebooks also run on your own data, where a sentence that is true for the course's data may be false. That
    stops nothing: it is said. With the environment variable `COURSE_STRICT=1`, as in the tests, it is an error.

    Args:
        holds: the result of the comparison that the sentence states in words.
        sentence: the claim, as a person would say it.

    Raises:
        AssertionError: with `COURSE_STRICT=1`, if it does not hold.

    >>> claim(2 > 1, "Two is more than one.")
    ✔ Two is more than one.
    """
    if holds:
        print(f"✔ {sentence}")
        return
    if os.environ.get("COURSE_STRICT") == "1":
        raise AssertionError(f"Does not hold: {sentence}")
    print(f"✘ Not in these data: {sentence}")
