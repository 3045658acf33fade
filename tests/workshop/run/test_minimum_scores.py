"""Minimum scores: a score that is too low, or missing, is reported."""

from __future__ import annotations

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
from workshop.run.summary import NotebookResult

NOTEBOOKS = {path.stem for path in (Path(__file__).parents[3] / "solutions").glob("*.py")}
SMOKE = MINIMUM_SCORES["embedded", "smoke"]


def scores_above(minimum: dict, difference: float) -> dict[str, dict]:
    """Scores of notebooks that are higher than their minimum by a number."""
    scores: dict[str, dict] = {}
    for (name, *path), least in minimum.items():
        place = scores.setdefault(name, {})
        for key in path[:-1]:
            place = place.setdefault(str(key), {})
        place[str(path[-1])] = least + difference
    return scores


@pytest.mark.parametrize(("data", "profile"), MINIMUM_SCORES)
def test_minimum_scores_are_for_notebooks_and_profiles_and_can_be_reached_and_missed(data, profile):
    minimum = minimum_scores_for(f"path/to/{data}.zip", profile)
    assert minimum is MINIMUM_SCORES[data, profile] and get_profile(profile).name == profile
    decibels = {path for path in minimum if str(path[-1]).startswith("PSNR")}
    assert {path[0] for path in minimum} <= NOTEBOOKS
    assert all(30 < least < 40 if path in decibels else 0.5 < least < 1 for path, least in minimum.items())
    assert scores_below_minimum(minimum, scores_above(minimum, 0.0).items()) == []
    assert len(scores_below_minimum(minimum, scores_above(minimum, -0.01).items())) == len(minimum)


NOT_NUMBERS = (float("nan"), None, "0.99", {})


@pytest.mark.parametrize("scores", [{}, *({"validation_hard_dice": value} for value in NOT_NUMBERS)])
def test_a_score_that_is_not_a_number_or_not_recorded_is_below_its_minimum(scores):
    [missed] = scores_below_minimum(SMOKE, [("03_binary_training", scores)])
    assert missed.startswith("03_binary_training: validation_hard_dice ")


def test_a_method_that_has_one_number_instead_of_scores_is_reported():
    missed = scores_below_minimum(SMOKE, [("05_boundary_watershed", {"boundary U-Net, watershed": 3})])
    assert len(missed) == 3 and all("was not recorded" in sentence for sentence in missed)


def test_notebooks_that_did_not_run_are_not_asked():
    assert scores_below_minimum(SMOKE, [("01_data_exploration", {})]) == []


@pytest.mark.parametrize(("difference", "error", "code"), [(0.01, "", 0), (-0.01, "", 1), (0.01, "it failed", 1)])
def test_the_command_fails_below_a_minimum_and_when_a_notebook_failed(monkeypatch, capsys, difference, error, code):
    scores = scores_above(SMOKE, difference)
    results = [NotebookResult(name, "", 0.0, one, error) for name, one in scores.items()]
    monkeypatch.setattr(course, "run_course", lambda *_: results)
    assert main(["run", "--minimum-scores"]) == code
    assert capsys.readouterr().out.count(", the minimum is ") == (len(SMOKE) if difference < 0 else 0)
    assert main(["run"]) == bool(error), "minimum scores count only where they are asked for"


def test_unknown_minimum_scores_are_an_error_before_anything_runs(monkeypatch, capsys):
    with pytest.raises(UnknownMinimumScoresError, match="no minimum scores for my_images in the profile smoke"):
        minimum_scores_for("my_images", "smoke")
    monkeypatch.setattr(course, "run_course", lambda *_: pytest.fail("it ran"))
    assert main(["run", "--minimum-scores", "--data", "dsb2018", "--profile", "smoke"]) == 1
    assert "no minimum scores for dsb2018 in the profile smoke" in capsys.readouterr().err
