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
