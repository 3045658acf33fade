"""What is shown in a notebook, and instead of it elsewhere: figures, a line of progress, a box."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import types
import warnings

import matplotlib

matplotlib.use("Agg")

import IPython
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from course_utils import display


class Notebook:
    """Stands for the notebook and keeps what it is asked to show."""

    def __init__(self):
        self.shown = []
        self.replaced = []

    def __call__(self, content, raw=False, metadata=None, display_id=False):
        self.shown.append((content, raw, metadata))
        return self if display_id else None

    def update(self, content, raw=False, metadata=None):
        self.replaced.append((content, raw, metadata))


@pytest.fixture
def notebook(monkeypatch) -> Notebook:
    notebook = Notebook()
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", notebook)
    return notebook


def a_figure(title="two nuclei"):
    figure, axes = plt.subplots()
    axes.set_title(title)
    return figure


def decoded(content: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content["image/png"])))


def test_a_notebook_is_where_a_kernel_runs(monkeypatch):
    """Not in plain Python, and not in the terminal of IPython, which has a shell but shows text only."""
    assert not display.in_notebook()
    for shell, expected in [(types.SimpleNamespace(), False), (types.SimpleNamespace(kernel="a kernel"), True)]:
        monkeypatch.setattr(IPython, "get_ipython", lambda shell=shell: shell)
        assert display.in_notebook() == expected
    monkeypatch.delitem(sys.modules, "IPython")
    assert not display.in_notebook()


def test_training_loads_neither_matplotlib_nor_ipython():
    program = "import sys, course_utils.training; print({'matplotlib', 'IPython'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


# figures


def test_a_figure_is_shown_with_its_caption_below_and_as_alternative_text(notebook):
    figure = a_figure()
    display.show(figure, "Two nuclei.")
    (content, raw, metadata), (caption, _, _) = notebook.shown
    assert raw and decoded(content).format == "PNG"
    assert metadata == {"image/png": {"alt": "Two nuclei."}} and content["text/plain"] == "Two nuclei."
    assert isinstance(caption, IPython.display.Markdown) and caption.data == "*Two nuclei.*"
    assert not plt.fignum_exists(figure.number)


def test_the_page_around_a_figure_is_white_and_opaque_so_that_it_can_be_read_in_dark_mode(notebook):
    with plt.rc_context({"savefig.facecolor": "white"}):
        display.show(a_figure(), "Two nuclei.")
    corner = np.asarray(decoded(notebook.shown[0][0]).convert("RGBA"))[0, 0]
    assert corner.tolist() == [255, 255, 255, 255]


def test_each_live_figure_is_shown_once_and_then_replaced_in_its_place(notebook):
    live, other = display.LiveFigure(), display.LiveFigure()
    for epoch in (1, 2, 3):
        live.update(a_figure(f"epoch {epoch}"), f"After epoch {epoch}.")
    assert len(notebook.shown) == 1 and len(notebook.replaced) == 2
    everything = notebook.shown + notebook.replaced
    assert [metadata["image/png"]["alt"] for _, _, metadata in everything] == [f"After epoch {i}." for i in (1, 2, 3)]
    assert all(raw for _, raw, _ in everything)
    assert len({content["image/png"] for content, _, _ in everything}) == 3
    assert plt.get_fignums() == []
    other.update(a_figure(), "Something else.")
    assert len(notebook.shown) == 2 and len(notebook.replaced) == 2


def test_outside_a_notebook_captions_and_boxes_are_text_and_figures_are_closed(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display.show(a_figure(), "Two nuclei.")
        live = display.LiveFigure()
        live.update(a_figure(), "One.")
        live.update(a_figure(), "Two.")
        display.show_frames([a_figure(), a_figure()], ["low", "high"], "Water.")
        display.show_box("<b>passed</b>", "passed")
    assert capsys.readouterr().out == "Two nuclei.\nWater.\nlow\nhigh\npassed\n"
    assert plt.get_fignums() == []


def test_a_figure_as_html_escapes_its_alternative_text():
    page = display.figure_as_html(a_figure(), 'F1 < 0.5 & "bad"')
    assert page.startswith('<img src="data:image/png;base64,')
    assert 'alt="F1 &lt; 0.5 &amp; &quot;bad&quot;"' in page
    assert plt.get_fignums() == []


# frames


def test_frames_are_shown_side_by_side_and_with_a_slider(notebook):
    labels = [f"step {i}" for i in range(9)]
    display.show_frames((a_figure(label) for label in labels), labels, 'From "one" to </script> nine.')
    (strip, _, metadata), (caption, _, _), (player, raw, _) = notebook.shown
    assert metadata == {"image/png": {"alt": 'From "one" to </script> nine.'}} and caption.data.startswith("*From")
    width, height = decoded(strip).size
    assert width == pytest.approx(3 * 640, rel=0.05) and height == pytest.approx(2 * 510, rel=0.05)  # six of the nine
    page = player["text/html"]
    assert raw and all(f'"{label}"' in page for label in labels) and page.count("data:image/png;base64,") == 9
    assert page.count("</script>") == 1 and page.endswith("</script>")  # what the caption holds ends no script
    assert plt.get_fignums() == []


def test_frames_keep_their_size_whatever_they_hold(notebook):
    display.show_frames((a_figure(title) for title in ("", "long " * 30)), ["a", "b"], "Two.")
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", notebook.shown[-1][0]["text/html"])
    assert {decoded({"image/png": picture}).size for picture in encoded} == {(640, 480)}


@pytest.mark.parametrize(("n_figures", "labels"), [(0, []), (1, []), (1, ["a", "b"])])
def test_every_frame_has_a_label(n_figures, labels):
    with pytest.raises(ValueError, match=f"one label for each: not {n_figures} and {len(labels)}"):
        display.show_frames([a_figure() for _ in range(n_figures)], labels, "None.")


# box and progress


def test_in_a_notebook_a_box_is_shown_with_its_text(notebook):
    display.show_box("<b>passed</b>", "passed")
    assert notebook.shown == [({"text/html": "<b>passed</b>", "text/plain": "passed"}, True, None)]


@pytest.mark.parametrize("items", [[3, 1, 2], []])
def test_progress_passes_every_item_on(items):
    assert list(display.progress(items, "epoch 1")) == items


def test_in_a_notebook_progress_replaces_one_line_and_says_how_long_it_will_take(notebook, monkeypatch):
    clock = iter([0.0, 2.0, 4.0, 4.5, 6.0, 8.0])  # start, four batches, end: the first batch takes its time
    monkeypatch.setattr(display, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    assert list(display.progress("abcd", "epoch 1")) == list("abcd")
    [(first, *_)] = notebook.shown
    assert [first["text/plain"], *(content["text/plain"] for content, *_ in notebook.replaced)] == [
        "epoch 1 ...",
        "epoch 1: 1 of 4 steps, 12 s left",
        "epoch 1: 3 of 4 steps, 2 s left",
        "epoch 1: 4 steps, 8 s",
    ]
