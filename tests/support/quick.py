"""Cases of which some run on every change and the others with `-m slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def mostly_slow(values: Iterable[str], quick: Iterable[str]) -> list:
    """The values as parameters of a test: those that begin with one of `quick` as they are, the others marked slow.

    >>> mostly_slow(["01_data", "02_unet"], quick=["02"])[1]
    '02_unet'
    """
    beginnings = tuple(quick)
    cases = [one if one.startswith(beginnings) else pytest.param(one, marks=pytest.mark.slow) for one in values]
    assert any(isinstance(one, str) for one in cases), "a form of each kind of test runs on every change"
    return cases
