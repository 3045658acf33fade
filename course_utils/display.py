"""What the running notebook shows: figures, frames, a progress bar, a box. Elsewhere there is text."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:  # drawing is loaded by those who draw: training shows nothing but its progress
    from matplotlib.figure import Figure


def in_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook, which can show more than text."""
    ipython = sys.modules.get("IPython")  # every kernel has loaded it
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def show(figure: Figure, caption: str) -> None:
    """Show a figure with its caption below, which is also its alternative text, and close it.

    Outside a notebook the caption is printed.
    """
    content, metadata = _picture(figure, caption)
    if not in_notebook():
        print(caption)
        return
    from IPython.display import Markdown, display

    display(content, raw=True, metadata=metadata)
    display(Markdown(f"*{caption}*"))


def show_frames(figures: Iterable[Figure], labels: Sequence[str], caption: str, columns: int = 3) -> None:
    """Show figures of one size as frames: six of them side by side, then all in one place, with a slider and a button.

    The first is a picture as from `show`, and is seen everywhere. The second is made by a script, so it needs no kernel
    and no network, but only notebooks that are trusted and web pages have it. Outside a notebook the caption and the
    labels are printed.

    Args:
        figures: one for each frame; they are closed. A generator keeps only one of them open.
        labels: what is seen in each frame, in words. They stand beside the slider and are read out.
        caption: stands below the picture of six frames.
        columns: frames beside each other in that picture.

    Raises:
        ValueError: there is not one label for each figure, or there is no figure.
    """
    pictures = [_frame(figure) for figure in figures]
    if len(pictures) != len(labels) or not pictures:
        raise ValueError(f"Give at least one figure, and one label for each: not {len(pictures)} and {len(labels)}.")
    if not in_notebook():
        print(caption, *labels, sep="\n")
        return
    from IPython.display import display

    n_shown = min(len(pictures), 6)
    chosen = [round(i * (len(pictures) - 1) / max(n_shown - 1, 1)) for i in range(n_shown)]
    show(_side_by_side([pictures[i] for i in chosen], [labels[i] for i in chosen], columns), caption)
    frames = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    player = script_as_html(FRAMES_SCRIPT, {"frames": frames, "labels": list(labels), "caption": caption})
    display({"text/html": player, "text/plain": "(The same frames with a slider: run the cell.)"}, raw=True)


def script_as_html(script: str, data: dict) -> str:
    """A place in a page that a script fills: it is called with the place (a `div`) and the data.

    Where scripts do not run nothing is seen. The place keeps its keys to itself: arrows do not move to the next cell.
    """
    text = json.dumps(data).replace("<", "\\u003c")  # no "</script>" inside the script
    name = hashlib.sha256((script + text).encode()).hexdigest()[:12]  # the same output twice: each finds an empty place
    return f"""<div data-place="{name}"></div><script>
{{ const data = {text};
for (const place of document.querySelectorAll('[data-place="{name}"]:empty')) {{
    place.onkeydown = event => event.stopPropagation();
    ({script})(place, data);
}} }}
</script>"""


# A picture, and below it a button, a slider and the label of the frame.
FRAMES_SCRIPT = """(place, { frames, labels, caption }) => {
    place.innerHTML = `<img style="display: block; max-width: 100%">
        <div style="display: flex; flex-wrap: wrap; gap: 0.3em 0.8em; align-items: center; padding: 0.4em 0">
        <button type="button" style="font: inherit; width: 6em; padding: 0.2em"></button>
        <input type="range" min="0" step="1" style="flex: 1 1 12em; max-width: 24em; accent-color: #0072B2">
        <span style="flex: 1 1 18em"></span></div>`;
    const [picture, button, slider, text] = ["img", "button", "input", "span"].map(name => place.querySelector(name));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches, last = frames.length - 1;
    let timer = null;
    const go = frame => {
        slider.value = frame;
        picture.src = frames[frame];
        picture.alt = text.textContent = `${frame + 1} of ${frames.length}: ${labels[frame]}`;
        slider.setAttribute("aria-valuetext", text.textContent);
    };
    const say = () => { button.textContent = still ? "Next" : timer ? "\u23f8 Pause" : "\u25b6 Play"; };
    const stop = () => { timer = clearInterval(timer) ?? null; say(); };
    const next = () => Number(slider.value) < last ? Number(slider.value) + 1 : 0;
    slider.max = last;
    slider.setAttribute("aria-label", `Frame. ${caption}`);
    slider.oninput = () => { stop(); go(Number(slider.value)); };
    button.onclick = () => {
        if (timer) return stop();
        go(next());
        if (still) return;
        timer = setInterval(() => {
            if (Number(slider.value) === last || !place.isConnected) stop(); else go(next());
        }, 700);
        say();
    };
    go(0);
    say();
}"""


def _frame(figure: Figure) -> bytes:
    """The figure as PNG with 256 colours, of the size that it was given; it is closed."""
    import matplotlib.pyplot as plt
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    plt.close(figure)
    Image.open(full).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def _side_by_side(pictures: Sequence[bytes], titles: Sequence[str], columns: int) -> Figure:
    import matplotlib.pyplot as plt

    arrays = [plt.imread(io.BytesIO(picture)) for picture in pictures]
    height, width = (side / 100 for side in arrays[0].shape[:2])
    rows = -(-len(arrays) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * (height + 0.3)), squeeze=False, layout="constrained"
    )
    for panel in axes.flat:
        panel.axis("off")
    for panel, array, title in zip(axes.flat, arrays, titles, strict=False):
        panel.imshow(array, interpolation="antialiased")
        panel.set_title(title, parse_math=False)
    return figure


def figure_as_html(figure: Figure, caption: str) -> str:
    """The figure as an HTML `img` with its alternative text, no wider than the page; the figure is closed."""
    data = _picture(figure, caption)[0]["image/png"]
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}" style="max-width: 100%;">'


def framed(content: str, colour: str, attributes: str = "") -> str:
    """HTML with a line of this colour at its left; `attributes` are further ones of its `div`."""
    style = f"border-left: 6px solid {colour}; padding: 0.4em 0.8em; margin: 0.4em 0;"
    return f'<div style="{style}" {attributes}>{content}</div>'


def show_box(box: str, text: str) -> None:
    """Show a box, given as HTML; outside a notebook its text is printed."""
    if not in_notebook():
        print(text)
        return
    from IPython.display import display

    display({"text/html": box, "text/plain": text}, raw=True)


class LiveFigure:
    """One place in the notebook whose figure is replaced while a computation goes on. Elsewhere it shows nothing.

    >>> from matplotlib.figure import Figure
    >>> live = LiveFigure()
    >>> live.update(Figure(), "Loss after one epoch.")
    >>> live.update(Figure(), "Loss after two epochs.")
    """

    def __init__(self):
        self._place = _Place()

    def update(self, figure: Figure, caption: str) -> None:
        """Show a figure instead of the last one, and close it; the caption is its alternative text."""
        self._place.update(*_picture(figure, caption))


class ProgressBar:
    """A progress bar over all epochs of a training, in one place of the notebook.

    It is plain HTML: it needs no widgets, and a page made from the notebook shows it, too. Elsewhere it is tqdm's bar.

    Args:
        epochs: how many passes there will be.
        finished: how many of them are done already, if an interrupted training goes on.

    >>> bar = ProgressBar(epochs=2)
    >>> [list(bar.epoch([3, 1, 2])) for _ in range(2)]
    [[3, 1, 2], [3, 1, 2]]
    """

    def __init__(self, epochs: int = 1, finished: int = 0):
        self._place = _Place()
        self._epochs, self._finished, self._at_start = epochs, finished, finished
        self._start = self._shown = self._looked = time.perf_counter()
        self._cost = 0.0  # seconds of the last look

    def epoch(self, batches: Sized, look: Callable[[], None] | None = None) -> Iterator:
        """The same items, while the bar says how far the training is and how long it will take.

        In a notebook `look` is called between two steps, for example to draw curves: every second, or as rarely as is
        needed to spend less than 3 % of the time on it.
        """
        title = f"epoch {self._finished + 1} of {self._epochs}"
        if not in_notebook():
            yield from tqdm(batches, desc=title, leave=False, mininterval=1)
            self._finished += 1
            return
        for step, batch in enumerate(batches):
            now = time.perf_counter()
            if step == 0 or now - self._shown > 1:
                self._show(step / len(batches), f"{title}: {step} of {len(batches)} steps", now)
            if look is not None and step > 0 and now - self._looked > max(1, self._cost / 0.03):
                look()
                self._looked = time.perf_counter()
                self._cost = self._looked - now
            yield batch
        self._finished += 1
        self._show(0, f"{title}: {len(batches)} of {len(batches)} steps", time.perf_counter())

    def _show(self, part: float, text: str, now: float) -> None:
        """`part` is the share of the running epoch that is done."""
        self._shown, done = now, self._finished + part
        if done == self._epochs:
            text += f", all done in {_duration(now - self._start)}"
        elif done > self._at_start:
            left = (now - self._start) / (done - self._at_start) * (self._epochs - done)
            text += f", about {_duration(left)} left"
        share = done / self._epochs
        bar = f'<progress max="1" value="{share:.3f}" style="width: 16em; max-width: 100%;">{share:.0%}</progress>'
        self._place.update({"text/html": f"<label>{bar} {html.escape(text)}</label>", "text/plain": text})


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class _Place:
    """One output of a cell, whose content can be replaced."""

    def __init__(self):
        self._handle = None

    def update(self, content: dict[str, str], metadata: dict | None = None) -> None:
        if not in_notebook():
            return
        from IPython.display import display

        if self._handle is None:
            self._handle = display(content, raw=True, metadata=metadata, display_id=True)
        else:
            self._handle.update(content, raw=True, metadata=metadata)


def _picture(figure: Figure, caption: str) -> tuple[dict, dict]:
    """Content and metadata of an output; the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")  # labels beyond the edge are not cut off
    plt.close(figure)
    picture = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": caption}
    return picture, {"image/png": {"alt": caption}}
