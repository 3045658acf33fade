"""Sentences in the notebooks that state a result are checked in the cell above them."""

from __future__ import annotations

import os


def claim(holds: bool, sentence: str) -> None:
    """Print whether a sentence about the data holds. A diamond marks it, full or empty: exercises have other symbols.

    The notebooks also run on your own data, where a sentence that is true for the data of the course may be false. Then
    the function says so, and the notebook continues.

    Args:
        holds: the result of the comparison that the sentence states in words.
        sentence: the claim.

    Raises:
        AssertionError: it does not hold, and the environment variable `COURSE_STRICT` is 1, as in the tests.

    >>> claim(2 > 1, "Two is more than one.")
    ◆ Holds: Two is more than one.
    """
    if holds:
        print(f"◆ Holds: {sentence}")
        return
    if os.environ.get("COURSE_STRICT") == "1":
        raise AssertionError(f"Does not hold: {sentence}")
    print(f"◇ Does not hold for this data set: {sentence}")
