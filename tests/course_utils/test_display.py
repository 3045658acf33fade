"""What is shown in a notebook, and instead of it elsewhere: figures, a progress bar, a box."""

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


@pytest.fixture(autouse=True)
def no_figures_of_other_tests():
    plt.close("all")


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
def test_progress_passes_every_item_on(items, request):
    assert list(display.ProgressBar().epoch(items)) == items
    notebook = request.getfixturevalue("notebook")
    assert list(display.ProgressBar().epoch(items)) == items
    assert notebook.shown


def a_clock(monkeypatch):
    """The time that the bar sees; the returned function lets it pass."""
    now = [0.0]
    monkeypatch.setattr(display, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_in_a_notebook_one_bar_for_all_epochs_is_replaced_in_place_and_says_how_long_it_will_take(
    notebook, monkeypatch
):
    wait = a_clock(monkeypatch)
    bar = display.ProgressBar(epochs=2)
    for _ in range(2):
        for _, seconds in zip(bar.epoch("abcd"), [2.0, 2.0, 0.5, 1.5], strict=True):
            wait(seconds)
        wait(4.0)  # validation takes its time, too
    assert len(notebook.shown) == 1
    contents = [content for content, *_ in notebook.shown + notebook.replaced]
    assert [content["text/plain"] for content in contents] == [
        "epoch 1 of 2: 0 of 4 steps",
        "epoch 1 of 2: 1 of 4 steps, about 14 s left",
        "epoch 1 of 2: 2 of 4 steps, about 12 s left",
        "epoch 1 of 2: 4 of 4 steps, about 6 s left",
        "epoch 2 of 2: 0 of 4 steps, about 10 s left",
        "epoch 2 of 2: 1 of 4 steps, about 7 s left",
        "epoch 2 of 2: 2 of 4 steps, about 5 s left",
        "epoch 2 of 2: 4 of 4 steps, all done in 16 s",
    ]
    shares = [float(re.search(r'<progress max="1" value="([\d.]+)"', content["text/html"])[1]) for content in contents]
    assert shares == [0, 0.125, 0.25, 0.5, 0.5, 0.625, 0.75, 1]
    for content in contents:  # the text is the bar's label, and what stays of it where no bars are drawn
        assert content["text/html"].startswith("<label>") and content["text/plain"] in content["text/html"]


def test_the_bar_of_a_training_that_goes_on_starts_where_it_was_interrupted(notebook, monkeypatch):
    wait = a_clock(monkeypatch)
    for _ in display.ProgressBar(epochs=4, finished=2).epoch("ab"):
        wait(60)
    texts = [content["text/plain"] for content, *_ in notebook.shown + notebook.replaced]
    assert texts == ["epoch 3 of 4: 0 of 2 steps", "epoch 3 of 4: 1 of 2 steps, about 3 min left",
                     "epoch 3 of 4: 2 of 2 steps, about 2 min left"]  # fmt: skip
    assert 'value="0.500"' in notebook.shown[0][0]["text/html"]


@pytest.mark.parametrize("cost", [0.001, 0.2, 1.0])
def test_looking_at_a_running_training_costs_less_than_three_percent(notebook, monkeypatch, cost):
    wait = a_clock(monkeypatch)
    looks, steps = [], 1000

    def look():
        looks.append(display.time.perf_counter())
        wait(cost)

    bar = display.ProgressBar(epochs=2)
    for _ in range(2):
        for _ in bar.epoch(range(steps), look):
            wait(0.25)
    assert len(looks) * cost <= 0.03 * display.time.perf_counter() + cost
    assert len(looks) > min(2 * steps * 0.25 / 1.5, 0.02 * 2 * steps * 0.25 / cost)  # and not much more rarely
    assert np.diff(looks).min() > 1


def test_nobody_looks_where_nothing_is_shown(monkeypatch):
    wait = a_clock(monkeypatch)
    for _ in display.ProgressBar().epoch(range(5), look=lambda: pytest.fail("looked")):
        wait(10)
