"""A claim says whether it holds, and cannot be taken for the result of an exercise."""

from __future__ import annotations

import pytest

from course_utils.exercises.claims import claim
from course_utils.exercises.feedback import LOOKS


@pytest.mark.parametrize(
    ("holds", "line"),
    [(True, "◆ Holds: Two is more.\n"), (False, "◇ Does not hold for this data set: Two is more.\n")],
)
def test_symbol_and_words_differ_from_those_of_exercises(holds, line, capsys, monkeypatch):
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    claim(holds, "Two is more.")
    assert capsys.readouterr().out == line
    assert not any(symbol in line or word in line for symbol, word, _ in LOOKS.values())


def test_in_strict_mode_a_claim_that_does_not_hold_is_an_error(monkeypatch):
    monkeypatch.setenv("COURSE_STRICT", "1")
    with pytest.raises(AssertionError, match="^Does not hold: Two is less"):
        claim(False, "Two is less.")
