"""Expected results: computed by the build, the same every time, and pictures that are kept."""

from __future__ import annotations

import base64
import random

import pytest
import torch
from tiny_course import SOURCE, make_course, read_notebook

import course_utils
from workshop.build import build, expected
from workshop.build.expected import ExpectedError, fill_in


def shown(code: str, options: str = "") -> str:
    text, pictures = fill_in(f"Before.\n\n```python expected{options}\n{code}\n```\n\nAfter.")
    assert all(data.startswith(b"\x89PNG") and f"(attachment:{name})" in text for name, data in pictures.items())
    return text.removeprefix("Before.\n\n").removesuffix("\n\nAfter.")


def test_the_code_is_shown_with_what_it_prints_and_gives():
    code = "a = 2\nprint('sum')\na + 2"
    assert shown(code) == f"```python\n{code}\n```\n\n```text\nsum\n4\n```"
    assert shown("count_shapes([np.ones((2, 3))])", " hidden") == "```text\n{(2, 3): 1}\n```"


def test_other_fences_are_left_alone():
    text = "```python\nprint(1)\n```\n\n```text\n2\n```"
    assert fill_in(text) == (text, {})


def test_the_value_is_that_of_the_course(monkeypatch):
    monkeypatch.setattr(course_utils, "count_parameters", lambda model: "planted", raising=False)
    assert "planted" in shown("count_parameters(torch.nn.Linear(3, 1)), 'not cached before'")


def test_a_figure_becomes_a_picture_with_its_alternative_text():
    assert shown("plt.figure()", ' hidden alt="Nothing."').startswith("![Nothing.](attachment:expected-")


FAULTS = {
    (" loud", "1"): (2, "cannot be read"),
    (' alt=""', "plt.figure()"): (2, "cannot be read"),
    ("", "a = 1\nb = missing"): (4, "NameError: name 'missing'"),
    ("", "a = 1\nb = = 2"): (4, "SyntaxError"),
    ("", "def f():\n    return 1 / 0\n\nf()"): (4, "ZeroDivisionError"),
    ("", "a = 1"): (2, "the expected result is empty"),
    ("", "plt.figure()"): (2, "a picture without alt text"),
    (' alt="A."', "1"): (2, "does not end with a figure"),
    (' alt="A."', "f, a = plt.subplots(figsize=(9, 9))\na.imshow(np.random.rand(700, 700))\nf"): (2, "make it smaller"),
}


@pytest.mark.parametrize("options, code", FAULTS)
def test_faults_of_a_snippet_have_their_row(options, code):
    row, reason = FAULTS[options, code]
    with pytest.raises(ExpectedError, match=reason) as error:
        shown(code, options)
    assert error.value.row == row


def test_random_numbers_are_the_same_every_time_and_the_callers_are_left_alone():
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    first = shown("float(torch.rand(1)), 'first'").split("(")[-1].split(",")[0]
    assert first in shown("float(torch.rand(1)), 'second'")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), torch.get_num_threads())


HINT = "# <details><summary>Hint 1"
FIGURE = f"""# ```python expected hidden alt="A line from (0, 0) to (1, 2)."
# figure, axes = plt.subplots(figsize=(3, 2))
# axes.plot([0, 1], [0, 2])
# axes.set_title("a title")
# figure
# ```
#
{HINT}"""


def picture_of(root, folder: str) -> bytes:
    [cell] = [cell for cell in read_notebook(root, folder).cells if "attachments" in cell]
    [(name, data)] = cell.attachments.items()
    assert f"![A line from (0, 0) to (1, 2).](attachment:{name})" in cell.source
    return base64.b64decode(data["image/png"])


def test_a_picture_is_kept_while_its_snippet_is_the_same_and_drawn_again_for_outputs(root, monkeypatch):
    make_course(root, SOURCE.replace(HINT, FIGURE))
    build(root=root)
    first = picture_of(root, "notebooks")
    assert first == picture_of(root, "solutions")
    assert not any(name in first for name in (b"tEXt", b"iTXt", b"tIME", b"Software", b"Matplotlib"))

    with monkeypatch.context() as patch:  # as another version of matplotlib would draw it
        patch.setattr("workshop.build.expected.DPI", 90)
        patch.setattr("workshop.build.expected._run", expected._run.__wrapped__)
        assert build(root=root, check=True) == []
        build(root=root)
        assert picture_of(root, "notebooks") == first
        build(root=root, outputs=True)
        assert picture_of(root, "notebooks") == picture_of(root, "solutions") != first

    make_course(root, SOURCE.replace(HINT, FIGURE.replace("[0, 2])", "[2, 0])")))
    before = picture_of(root, "notebooks")
    build(root=root)
    assert picture_of(root, "notebooks") not in (first, before)
