"""Floors of the scores: a score that is too low, or missing, is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from course_utils.command_line import floors_hold
from course_utils.floors import FLOORS, UnknownFloorsError, missed_floors
from course_utils.profiles import get_profile

NOTEBOOKS = {path.stem for path in (Path(__file__).parents[1] / "solutions").glob("*.py")}


def reaching(data: str, profile: str, above: float) -> dict[str, dict]:
    """Scores that lie above their floors by a number."""
    scores: dict[str, dict] = {}
    for (name, *path), floor in FLOORS[data, profile].items():
        place = scores.setdefault(name, {})
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = floor + above
    return scores


@pytest.mark.parametrize(("data", "profile"), FLOORS)
def test_floors_name_notebooks_profiles_and_possible_scores(data, profile):
    assert data in ("embedded", "dsb2018") and get_profile(profile).name == profile
    for path, floor in FLOORS[data, profile].items():
        assert path[0] in NOTEBOOKS and 0.5 < floor < 1
    assert missed_floors(data, profile, reaching(data, profile, 0.0).items()) == []
    assert len(missed_floors(data, profile, reaching(data, profile, -0.01).items())) == len(FLOORS[data, profile])


@pytest.mark.parametrize("value", [float("nan"), None, "0.99", {}])
def test_a_score_that_is_no_number_misses_its_floor(value):
    [missed] = missed_floors("embedded", "smoke", [("03_binary_training", {"validation Dice, hard": value})])
    assert missed.startswith("03_binary_training: validation Dice, hard ")


def test_a_score_that_was_not_recorded_misses_its_floor():
    [missed] = missed_floors("embedded", "smoke", [("05_boundary_watershed", {"boundary U-Net, watershed": 3})])
    assert "was not recorded" in missed


def test_notebooks_that_did_not_run_are_not_asked():
    assert missed_floors("embedded", "smoke", [("01_data_exploration", {})]) == []


def test_there_must_be_floors():
    with pytest.raises(UnknownFloorsError, match="no floors are known for my_images in the profile smoke"):
        missed_floors("my_images", "smoke", [])


@dataclass
class Result:
    notebook: str
    scores: dict = field(default_factory=dict)
    error: str = ""


def test_the_command_says_what_it_found(capsys):
    scores = reaching("dsb2018", "laptop", 0.01)
    assert floors_hold("path/to/dsb2018.zip", "laptop", [Result(name, one) for name, one in scores.items()])
    assert "Every score reaches its floor." in capsys.readouterr().out
    scores = reaching("dsb2018", "laptop", -0.01)
    assert not floors_hold("dsb2018", "laptop", [Result(name, one) for name, one in scores.items()])
    assert capsys.readouterr().out.count("below its floor of") == 3
