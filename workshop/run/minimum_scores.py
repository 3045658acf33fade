"""The scores that a run of the solved notebooks must reach; below them something in the course is broken.

They lie well below what was measured (docs/results.md), so that another seed or machine passes; those of the profile
`full`, which was not measured yet, are those of `laptop` and a little more. Keys are the data set, the profile, and the
names under which `record_scores` keeps the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Score = tuple[str | float, ...]  # notebook, name; or notebook, method, measure, IoU threshold
MINIMUM_SCORES: dict[tuple[str, str], dict[Score, float]] = {
    ("embedded", "smoke"): {
        ("03_binary_training", "validation_hard_dice"): 0.90,
        ("04_instance_evaluation", "U-Net, components", "mean_f1", 0.5): 0.65,
        ("05_boundary_watershed", "boundary U-Net, watershed", "mean_f1", 0.5): 0.85,
    },
    ("dsb2018", "laptop"): {
        ("03_binary_training", "validation_hard_dice"): 0.85,
        ("04_instance_evaluation", "U-Net, components", "mean_f1", 0.5): 0.70,
        ("05_boundary_watershed", "boundary U-Net, watershed", "mean_f1", 0.5): 0.85,
    },
    ("dsb2018", "full"): {
        ("03_binary_training", "validation_hard_dice"): 0.85,
        ("04_instance_evaluation", "U-Net, components", "mean_f1", 0.5): 0.72,
        ("05_boundary_watershed", "boundary U-Net, watershed", "mean_f1", 0.5): 0.87,
    },
}


class UnknownMinimumScoresError(ValueError):
    """There are no floors for these data in this profile."""


Floors = Mapping[Score, float]


def minimum_scores_for(data: str, profile: str) -> Floors:
    """The floors for a data source and a profile, both as `course.py run` takes them.

    Raises:
        UnknownMinimumScoresError: no floors are known for that pair.
    """
    from course_utils.profiles import get_profile
    from workshop.paths import data_label

    pair = data_label(data), get_profile(profile).name
    if pair not in MINIMUM_SCORES:
        known = ", ".join(f"{one} in {other}" for one, other in MINIMUM_SCORES)
        raise UnknownMinimumScoresError(
            f"no floors are known for {pair[0]} in the profile {pair[1]}, only for {known}."
        )
    return MINIMUM_SCORES[pair]


def scores_below_minimum(floors: Floors, notebooks: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What the executed notebooks did not reach, a sentence each; empty if all is well.

    Args:
        floors: of `minimum_scores_for`.
        notebooks: name and scores of each notebook that was executed; those left out are not asked for.

    >>> minimum = MINIMUM_SCORES["embedded", "smoke"]
    >>> scores_below_minimum(minimum, [("03_binary_training", {"validation_hard_dice": 0.5})])
    ['03_binary_training: validation_hard_dice is 0.500, below its floor of 0.90.']
    """
    scores = dict(notebooks)
    missed = []
    for (name, *path), floor in floors.items():
        if name not in scores:
            continue
        value: Any = scores[name]
        for key in path:
            value = value.get(str(key)) if isinstance(value, Mapping) else None
        label = f"{name}: {', '.join(map(str, path))}"
        if not isinstance(value, (int, float)):
            missed.append(f"{label} was not recorded; its floor is {floor:.2f}.")
        elif not value >= floor:  # also for a score that is not a number
            missed.append(f"{label} is {value:.3f}, below its floor of {floor:.2f}.")
    return missed
