"""What the running notebook shows: a figure with its caption, a line of progress, a box. Elsewhere there is text."""

from __future__ import annotations

import base64
import html
import io
import sys
import time
from collections.abc import Iterator, Sized
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


def figure_as_html(figure: Figure, caption: str) -> str:
    """The figure as an HTML `img` with its alternative text, no wider than the page; the figure is closed."""
    data = _picture(figure, caption)[0]["image/png"]
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}" style="max-width: 100%;">'


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


def progress(batches: Sized, description: str) -> Iterator:
    """The same items, with a line that says how far the loop is and how long it will take.

    In a notebook the line replaces itself in place; it needs no widgets, so it also looks right in a page made from the
    notebook. Elsewhere it is the usual progress bar of tqdm.
    """
    if not in_notebook():
        yield from tqdm(batches, desc=description, leave=False, mininterval=1)
        return
    line = _Place()
    line.update({"text/plain": f"{description} ..."})
    start = last = time.perf_counter()
    for done, batch in enumerate(batches):
        now = time.perf_counter()
        if done > 0 and now - last > 1:  # the first batch may take long: workers start
            left = (now - start) / done * (len(batches) - done)
            line.update({"text/plain": f"{description}: {done} of {len(batches)} steps, {left:.0f} s left"})
            last = now
        yield batch
    seconds = time.perf_counter() - start
    line.update({"text/plain": f"{description}: {len(batches)} steps, {seconds:.0f} s"})


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
