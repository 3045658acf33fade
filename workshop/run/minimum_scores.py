"""The scores that a run of the solved notebooks must reach; with less, something in the course is broken.

They are well below what was measured (docs/results.md), so that another seed or machine passes. The profile `full` has
not been measured yet: its minimum scores are slightly higher than those of `laptop`. Keys are the data set and the
profile; then notebook and the keys under which `record_scores` keeps the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Score = tuple[str | float, ...]  # notebook, name; or notebook, method, measure, IoU threshold or range
SCORES: tuple[Score, ...] = (
    ("03_binary_training", "validation_hard_dice"),
    ("04_instance_evaluation", "U-Net, components", "mean_f1", 0.5),
    ("05_boundary_watershed", "boundary U-Net, watershed", "mean_f1", 0.5),
    ("05_boundary_watershed", "boundary U-Net, watershed", "mean_ap", 0.5),
    ("05_boundary_watershed", "boundary U-Net, watershed", "msa", "0.5 to 0.95"),
    ("06_losses_and_tuning", "CE + Dice", "mean_f1", 0.5),
    ("07_denoising", "Noise2Noise", "PSNR, max - min"),
    ("08_own_images", "scale 0.5", "rescaled first"),
)
MINIMUM_SCORES: dict[tuple[str, str], dict[Score, float]] = {
    ("embedded", "smoke"): dict(zip(SCORES, (0.90, 0.65, 0.85, 0.77, 0.65, 0.60, 34.5, 0.84), strict=True)),
    ("dsb2018", "laptop"): dict(zip(SCORES, (0.85, 0.70, 0.85, 0.78, 0.57, 0.60, 34.5, 0.84), strict=True)),
    ("dsb2018", "full"): dict(zip(SCORES, (0.85, 0.72, 0.87, 0.80, 0.59, 0.60, 34.5, 0.84), strict=True)),
}


class UnknownMinimumScoresError(ValueError):
    """There are no minimum scores for these data in this profile."""


def minimum_scores_for(data: str, profile: str) -> dict[Score, float]:
    """The minimum scores for a data source and a profile, both as `course.py run` takes them.

    Raises:
        UnknownMinimumScoresError: there are none for that pair.
    """
    from course_utils.profiles import get_profile
    from workshop.paths import data_label

    pair = data_label(data), get_profile(profile).name
    if pair not in MINIMUM_SCORES:
        known = ", ".join(f"{one} in {other}" for one, other in MINIMUM_SCORES)
        which = f"{pair[0]} in the profile {pair[1]}"
        raise UnknownMinimumScoresError(f"There are no minimum scores for {which}, only for {known}.")
    return MINIMUM_SCORES[pair]


def scores_below_minimum(
    minimum: Mapping[Score, float], notebooks: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """A sentence for each score that the executed notebooks did not reach.

    Args:
        minimum: of `minimum_scores_for`.
        notebooks: name and scores of each notebook that was executed; scores of other notebooks are not asked for.

    >>> minimum = MINIMUM_SCORES["embedded", "smoke"]
    >>> scores_below_minimum(minimum, [("03_binary_training", {"validation_hard_dice": 0.5})])
    ['03_binary_training: validation_hard_dice is 0.500, the minimum is 0.90.']
    """
    scores = dict(notebooks)
    missed = []
    for (name, *path), least in minimum.items():
        if name not in scores:
            continue
        value: Any = scores[name]
        for key in path:
            value = value.get(str(key)) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)) and value >= least:  # NaN is not
            continue
        found = f"is {value:.3f}" if isinstance(value, (int, float)) else "was not recorded"
        missed.append(f"{name}: {', '.join(map(str, path))} {found}, the minimum is {least:.2f}.")
    return missed
