"""What a running notebook shows: a figure with its caption, a line of progress, a box."""

from __future__ import annotations

import base64
import html
import io
import sys
import time
from collections.abc import Iterator, Sized

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from tqdm import tqdm


def show(figure: Figure, caption: str) -> None:
    """Show a figure in the notebook with its caption below, which is also its alternative text, and close it."""
    from IPython.display import Markdown, display

    display(_picture(figure, caption), raw=True, metadata=_alternative_text(caption))
    display(Markdown(f"*{caption}*"))


def figure_as_html(figure: Figure, caption: str) -> str:
    """The figure as an HTML `img` with its alternative text, no wider than the page; the figure is closed."""
    data = _picture(figure, caption)["image/png"]
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}" style="max-width: 100%;">'


def _picture(figure: Figure, caption: str) -> dict:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")  # nothing that sticks out is cut off
    plt.close(figure)
    return {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": caption}


def _alternative_text(caption: str) -> dict:
    return {"image/png": {"alt": caption}}


class LiveFigure:
    """One place in the notebook whose figure is replaced while a computation goes on.

    >>> live = LiveFigure()
    >>> live.update(plt.figure(), "What can be seen")  # doctest: +SKIP
    """

    def __init__(self):
        self._handle = None

    def update(self, figure: Figure, caption: str) -> None:
        from IPython.display import display

        picture, metadata = _picture(figure, caption), _alternative_text(caption)
        if self._handle is None:
            self._handle = display(picture, raw=True, metadata=metadata, display_id=True)
        else:
            self._handle.update(picture, raw=True, metadata=metadata)


def progress(batches: Sized, description: str) -> Iterator:
    """The same items, with a line that says how far the loop is and how long it will take.

    In a notebook the line replaces itself in place; it needs no widgets, so it also looks right in a page made from the
    notebook. Elsewhere it is the usual progress bar of tqdm.
    """
    handle = _display_line(f"{description} ...")
    if handle is None:
        yield from tqdm(batches, desc=description, leave=False, mininterval=1)
        return
    start = last = time.perf_counter()
    for done, batch in enumerate(batches):
        now = time.perf_counter()
        if done > 0 and now - last > 1:  # the first batch may take long: workers start
            left = (now - start) / done * (len(batches) - done)
            handle.update(_plain(f"{description}: {done} of {len(batches)} steps, {left:.0f} s left"), raw=True)
            last = now
        yield batch
    handle.update(_plain(f"{description}: {len(batches)} steps, {time.perf_counter() - start:.0f} s"), raw=True)


def _display_line(text: str):
    """A line in the running notebook that can be replaced, or None outside a notebook."""
    if "IPython" not in sys.modules or not hasattr(sys.modules["IPython"].get_ipython(), "kernel"):
        return None
    return sys.modules["IPython"].display.display(_plain(text), raw=True, display_id=True)


def _plain(text: str) -> dict[str, str]:
    return {"text/plain": text}


def show_box(box: str, text: str) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(text)
        return
    if get_ipython() is None:
        print(text)
    else:
        display({"text/html": box, "text/plain": text}, raw=True)
