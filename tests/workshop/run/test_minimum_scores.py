"""Floors of the scores: a score that is too low, or missing, is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from course_utils.profiles import get_profile
from workshop.command_line import main
from workshop.run import course
from workshop.run.minimum_scores import (
    MINIMUM_SCORES,
    UnknownMinimumScoresError,
    minimum_scores_for,
    scores_below_minimum,
)

NOTEBOOKS = {path.stem for path in (Path(__file__).parents[3] / "solutions").glob("*.py")}


def reaching(data: str, profile: str, above: float) -> dict[str, dict]:
    """Scores that lie above their floors by a number."""
    scores: dict[str, dict] = {}
    for (name, *path), floor in MINIMUM_SCORES[data, profile].items():
        place = scores.setdefault(name, {})
        for key in path[:-1]:
            place = place.setdefault(str(key), {})
        place[str(path[-1])] = floor + above
    return scores


@pytest.mark.parametrize(("data", "profile"), MINIMUM_SCORES)
def test_floors_name_notebooks_profiles_and_possible_scores(data, profile):
    assert data in ("embedded", "dsb2018") and get_profile(profile).name == profile
    for path, floor in MINIMUM_SCORES[data, profile].items():
        assert path[0] in NOTEBOOKS and 0.5 < floor < 1
    assert scores_below_minimum(MINIMUM_SCORES[data, profile], reaching(data, profile, 0.0).items()) == []
    missed = scores_below_minimum(MINIMUM_SCORES[data, profile], reaching(data, profile, -0.01).items())
    assert len(missed) == len(MINIMUM_SCORES[data, profile])


@pytest.mark.parametrize("value", [float("nan"), None, "0.99", {}])
def test_a_score_that_is_no_number_misses_its_floor(value):
    [missed] = scores_below_minimum(
        MINIMUM_SCORES["embedded", "smoke"], [("03_binary_training", {"validation_hard_dice": value})]
    )
    assert missed.startswith("03_binary_training: validation_hard_dice ")


def test_a_score_that_was_not_recorded_misses_its_floor():
    [missed] = scores_below_minimum(
        MINIMUM_SCORES["embedded", "smoke"], [("05_boundary_watershed", {"boundary U-Net, watershed": 3})]
    )
    assert "was not recorded" in missed


def test_notebooks_that_did_not_run_are_not_asked():
    assert scores_below_minimum(MINIMUM_SCORES["embedded", "smoke"], [("01_data_exploration", {})]) == []


def test_there_must_be_floors():
    assert minimum_scores_for("path/to/dsb2018.zip", "laptop") is MINIMUM_SCORES["dsb2018", "laptop"]
    with pytest.raises(UnknownMinimumScoresError, match="no floors are known for my_images in the profile smoke"):
        minimum_scores_for("my_images", "smoke")


@dataclass
class Result:
    notebook: str
    scores: dict = field(default_factory=dict)
    error: str = ""


@pytest.mark.parametrize(("above", "code"), [(0.01, 0), (-0.01, 1)])
def test_the_command_fails_below_the_floors(monkeypatch, capsys, above, code):
    scores = reaching("embedded", "smoke", above)
    monkeypatch.setattr(course, "run_course", lambda *_: [Result(name, one) for name, one in scores.items()])
    assert main(["run", "--minimum-scores"]) == code
    shown = capsys.readouterr().out
    assert shown.count("below its floor of") == 3 * code
    assert ("All scores with a minimum reach it, in 3 notebooks." in shown) == (code == 0)
    assert main(["run"]) == 0, "floors count only where they are asked for"


def test_a_notebook_that_failed_is_a_failure_with_floors_too(monkeypatch):
    scores = reaching("embedded", "smoke", 0.01)
    results = [Result(name, one, "it failed") for name, one in scores.items()]
    monkeypatch.setattr(course, "run_course", lambda *_: results)
    assert main(["run", "--minimum-scores"]) == 1


def test_unknown_floors_are_told_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(course, "run_course", lambda *_: pytest.fail("it ran"))
    assert main(["run", "--minimum-scores", "--data", "dsb2018", "--profile", "smoke"]) == 1
    assert "no floors are known for dsb2018 in the profile smoke" in capsys.readouterr().err
