"""Names of mutants do not depend on the names of local variables."""

from __future__ import annotations

from mutation import mutants


def test_a_renamed_local_variable_changes_no_name_of_a_mutant():
    def mean_above(values, threshold=1):
        chosen = [value for value in values if value > threshold]
        if not chosen:
            raise ValueError(f"none of {len(values)} is above {threshold}")
        return sum(chosen) / len(chosen)

    first = [mutant.name for mutant in mutants(mean_above)]

    def mean_above(values, threshold=1):
        large = [number for number in values if number > threshold]
        if not large:
            raise ValueError(f"none of {len(values)} is above {threshold}")
        return sum(large) / len(large)

    assert [mutant.name for mutant in mutants(mean_above)] == first
    assert {"mean_above, assignment: > -> >=", "mean_above, return: sum -> len"} <= set(first)


def test_a_call_that_checks_arguments_is_no_mutant(monkeypatch):
    def check_positive(**arguments):
        return arguments

    def total(values, n):
        check_positive(n=n + 1, values=[1, 2])
        n = check_positive(n=n)
        return values * n

    monkeypatch.setitem(globals(), "check_positive", check_positive)
    everything = [mutant.name for mutant in mutants(total)]
    check_positive.__module__ = "course_utils.arguments"
    assert [mutant.name for mutant in mutants(total)] == [name for name in everything if "return" in name]
    assert any("check_positive" in name for name in everything)
