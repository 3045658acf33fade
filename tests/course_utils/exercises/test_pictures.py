"""Pictures of wrong answers: what they say, that anything can be shown, and that only showing draws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from course_utils.exercises import evaluate, feedback, get_exercise
from course_utils.exercises.feedback import CheckFailed, CheckResult, expect_close, fail, show_result
from course_utils.exercises.pictures import MAX_SIDE, Panel, Panels, as_html, compared, draw
from workshop.grade.judge.plain_pictures import from_plain, to_plain


def thrown(call, *arguments, **options):
    with pytest.raises(CheckFailed) as caught:
        call(*arguments, **options)
    return caught.value


def test_wrong_arrays_are_drawn_beside_input_and_expected_result():
    found, expected = np.zeros((40, 50)), np.zeros((40, 50))
    found[30, 45], found[35, 3] = 2, 7
    picture = thrown(expect_close, "the mask", found, expected, input=expected).picture
    assert [panel.title for panel in picture.panels] == ["input", "yours", "expected", "difference"]
    for panel in picture.panels:
        assert panel.array.shape == (MAX_SIDE, MAX_SIDE) and panel.corner == (16, 26), "around the first wrong pixel"
        assert panel.mark == (14, 19)
    assert picture.panels[1].array[14, 19] == 2 == picture.panels[3].array[14, 19]
    assert picture.alt.startswith("The mask: found 2, expected 0 at row 30, column 45")
    assert "2 of 2000 values differ" in picture.alt and "around row 30" in picture.alt


@pytest.mark.parametrize("shape", [(1, 5, 6), (2, 3, 5, 6), (5, 1, 6), (6, 5)])
def test_of_more_axes_the_plane_that_differs_is_drawn(shape):
    found = torch.zeros(shape)
    found[tuple(side - 1 for side in shape)] = 1
    for panel in compared("it", found, torch.zeros(shape)).panels:
        assert sorted(panel.array.shape) == [5, 6] and panel.mark == tuple(side - 1 for side in panel.array.shape)


@pytest.mark.parametrize("kind", ["image", "labels", "probability", "classes", "values"])
def test_any_numbers_can_be_drawn(kind):
    arrays = [np.full((3, 4), np.nan), np.full((30, 40), np.inf), np.ones((3, 4), bool), np.full((3, 4), 1e300),
              np.uint8([[3, 7], [0, 255]]), np.full((1, 2000, 3), -7), np.full((2, 2), 2**62)]  # fmt: skip
    for found in arrays:
        picture = compared("it", found, np.zeros(found.shape), kind=kind)
        assert as_html(picture).count("<img") == 3, found


@pytest.mark.parametrize("found", [
    None, 5, [1, 2], np.zeros(0), np.zeros((0, 3)), np.array([[object()]]), np.zeros((3, 4)), np.ones((4, 3)),
    "ab",
], ids=range(9))  # fmt: skip
def test_what_cannot_be_compared_has_no_picture(found):
    assert compared("it", found, np.zeros((3, 4))) is None


def test_a_picture_that_fails_spoils_no_message():
    error = thrown(fail, "Value", 1, 2, picture=lambda: 1 / 0)
    assert str(error) == "Value: found 1, expected 2." and error.picture is None


def test_a_huge_array_has_a_small_picture():
    found = np.zeros((2000, 2000))
    found[1999, 7] = 1
    picture = compared("it", found, np.zeros((2000, 2000)))
    assert all(panel.array.size <= MAX_SIDE**2 for panel in picture.panels) and len(as_html(picture)) < 150_000
    whole = Panels((Panel("yours", found, mark=(1999, 7)),), "it")
    assert max(draw(whole).get_size_inches()) < 9 and len(as_html(whole)) < 50_000


def test_a_result_is_shown_with_its_picture_and_its_words(monkeypatch, capsys):
    picture = compared("the <b>", np.eye(3), np.ones((3, 3)))
    result = CheckResult("1.6", "failed", ("Value.",), picture=picture)
    show_result(get_exercise("1.6"), result)
    assert f"Picture: {picture.alt}" in capsys.readouterr().out and "found 0, expected 1" in picture.alt
    boxes = []
    monkeypatch.setattr(feedback, "in_notebook", lambda: True)
    monkeypatch.setattr(feedback, "show_box", lambda box, text: boxes.append(box))
    show_result(get_exercise("1.6"), result)
    assert boxes[0].count("<img") == 3 and 'alt="The &lt;b&gt;: found 0, expected 1' in boxes[0]
    broken = CheckResult("1.6", "failed", ("Value.",), picture=Panels((Panel("x", np.eye(2), outline=5),), "it"))
    show_result(get_exercise("1.6"), broken)
    assert "<img" not in boxes[1] and "Value." in boxes[1]


def test_pictures_travel_as_plain_values():
    picture = Panels((Panel("yours", np.eye(3), "labels", np.eye(3), (1, 2)),), "it")
    again = from_plain(to_plain(picture))
    assert again.alt == "it" and again.panels[0].mark == (1, 2) and again.panels[0].array is picture.panels[0].array
    for other in (None, 5, "x", (), ("Panels", {}), ("Panels", {"alt": "x"}), ("os", {}), ("Panel", 5), np.eye(2),
                  to_plain(picture.panels[0]), ("Panels", {"alt": "x", "panels": (("Panel", {"a": 1}),)})):  # fmt: skip
        assert from_plain(other) is None or as_html(from_plain(other)) == ""


def test_a_check_draws_nothing():
    program = """
import sys
from course_utils.exercises import evaluate
result = evaluate("1.6", lambda mask: __import__("torch").zeros(1, *mask.shape))
print(result.picture is not None, "matplotlib" in sys.modules)"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]


def test_there_is_no_picture_after_a_pass():
    exercise = get_exercise("1.6")
    assert evaluate("1.6", exercise.reference).picture is None
