"""Diagrams of wrong answers: they can be drawn, what is not as described cannot, and a check draws none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from course_utils.exercises import evaluate
from course_utils.exercises.diagrams import BEHIND, MAX_INSTANCES, Curves, Matches, Stage, UNetShapes
from course_utils.exercises.pictures import as_html
from workshop.grade.judge.plain_pictures import from_plain, to_plain

STAGES = (
    Stage("encoder", 0, "block", "(1, 2, 8, 8)", "(1, 2, 8, 8)"),
    Stage("bottleneck", 1, "block", "(1, 4, 4, 4)", "(1, 4, 4, 4)"),
    Stage("decoder", 0, "up", "(1, 2, 7, 7)", "(1, 2, 8, 8)"),
    Stage("decoder", 0, "joined", BEHIND, "(1, 4, 8, 8)"),
)
LABELS = np.array([[1, 1, 0, 5]]), np.array([[7, 7, 0, 0]])
SHAPES = UNetShapes(STAGES, "Shapes.")
MATCHES = Matches(np.array([[1.0], [0.0]]), ((0, 0),), (), LABELS, "One pair.", "One pair.")
CURVES = Curves(np.arange(3.0), (("loss", np.array([0, np.nan, 1]), np.arange(3.0)),) * 2, "logit", "A curve.")


def texts(figure):
    return [text.get_text().replace("\xa0", " ") for axes in figure.axes for text in [*axes.texts, axes.title]]


def test_the_first_wrong_stage_has_a_sign_and_the_right_value():
    written = "\n".join(texts(SHAPES.figure()))
    assert "✘ up: (1, 2, 7, 7)\nexpected: (1, 2, 8, 8)" in written and written.count("✘") == 1
    assert f"joined: {BEHIND}" in written and "behind the first error" in written


def test_what_has_no_partner_has_a_sign_and_a_word():
    written = texts(MATCHES.figure())
    assert {"1.00", "× FP", "prediction", "truth"} <= {*written} and "o FN" not in written
    written = texts(replace(MATCHES, labels=()).figure())
    assert "no pair" in written and "rows" in written


def test_a_curve_says_where_it_has_no_number():
    legend = [text.get_text() for text in CURVES.figure().legends[0].get_texts()]
    assert legend == ["expected", "yours", "yours: no finite number"]


@pytest.mark.parametrize("diagram", [SHAPES, MATCHES, replace(MATCHES, labels=()), CURVES])
def test_diagrams_travel_and_are_small(diagram):
    again = from_plain(to_plain(diagram))
    assert as_html(again).count(f'alt="{diagram.alt}"') == 1
    width, height = again.figure().get_size_inches()
    assert width <= 9 and height <= 4.5


@pytest.mark.parametrize("diagram", [
    UNetShapes((), "x"), UNetShapes(STAGES * 50, "x"), UNetShapes((replace(STAGES[0], level=10**9),), "x"),
    UNetShapes((replace(STAGES[0], part="cellar"),), "x"), UNetShapes((replace(STAGES[0], level="x"),), "x"),
    UNetShapes((5,), "x"), replace(MATCHES, iou=np.eye(MAX_INSTANCES + 1)), replace(MATCHES, iou="x"),
    replace(MATCHES, pairs=((7, 7),)), replace(MATCHES, labels=(np.zeros((999, 999), int),) * 2),
    replace(MATCHES, labels=(np.arange(90).reshape(9, 10),) * 2), replace(MATCHES, title=5),
    replace(CURVES, x=np.zeros(10**6)), replace(CURVES, panels=()),
    replace(CURVES, panels=(("loss", "x", "y"),) * 2),
], ids=range(15))  # fmt: skip
def test_what_is_not_as_described_is_not_drawn(diagram):
    assert as_html(diagram) == ""


def test_checks_draw_nothing(monkeypatch):
    def drawn(*_arguments, **_options):
        raise AssertionError("a check draws")

    monkeypatch.setattr(Figure, "__init__", drawn)
    assert evaluate("4.5", lambda prediction, truth, iou_threshold=0.5: 0.25).picture.pairs
    assert evaluate("3.1", lambda logits, target: logits.mean()).picture.x.size
    assert evaluate("2.5", lambda image, multiple=16: (image, image.shape)).picture.panels
