"""What is wrong with web pages as a browser shows them: accessibility (axe-core), width, pictures, console."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import io
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
import pandas as pd
from axe_playwright_python.base import AXE_SCRIPT
from lab_in_browser import Notes
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from playwright.sync_api import BrowserContext, Page

CODE = """import numpy as np  # a comment


@dataclass
class One:
    '''Text.'''
    x: int = 0x10 + 1.5e3

    def run(self, *names):
        raise ValueError(f"{self.x!r} is not {names}") if not None else """
# A computer and a phone, by day and by night; and paper, printed at night.
LOOKS = (*((width, scheme) for scheme in ("light", "dark") for width in (1400, 390)), (1000, "print"))
# Only what a reader would call a fault: axe's "serious" and "critical". Folded parts are looked at unfolded.
AXE = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"], preload: false});
    return found.violations.filter(rule => ["serious", "critical"].includes(rule.impact)).map(rule =>
        `${rule.id} (${rule.nodes.length}): ${rule.nodes[0].html.slice(0, 150)} ${rule.nodes[0].failureSummary}`);
}"""
BROKEN = "[...document.images].filter(one => !one.naturalWidth).map(one => one.alt || one.src.slice(0, 80))"
UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true; })"


def faults_in_browser(
    window: BrowserContext, addresses: Iterable[str], looks: Iterable[tuple[int, str]] = LOOKS
) -> list[str]:
    """A sentence for each fault of the pages, at each width, in each colour scheme ("print": on paper)."""
    page, faults = window.new_page(), []
    for address in addresses:
        notes = Notes(page)
        page.goto(address, wait_until="networkidle")
        faults += [f"{address}: the console says {error}" for error in notes.errors]
        faults += [f"{address}: asks for {request}" for request in notes.outside]
        page.evaluate(UNFOLD)
        page.evaluate(AXE_SCRIPT)
        for width, scheme in looks:
            media, scheme = ("print", "dark") if scheme == "print" else ("screen", scheme)
            page.emulate_media(media=media, color_scheme=scheme, reduced_motion="reduce")
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(300)  # transitions of colours
            faults += [f"{address} at {width} px, {media}, {scheme}: {fault}" for fault in _look(page)]
    page.close()
    return faults


def _look(page: Page) -> Iterator[str]:
    yield from page.evaluate(AXE)
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wider > 0 and page.evaluate("matchMedia('screen').matches"):  # a printer shrinks it
        yield f"the page is {wider} px wider than the window"
    yield from (f"a broken picture: {words}" for words in page.evaluate(BROKEN))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on this computer, served as it is."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def picture(colour: str = "black") -> str:
    """A PNG, as it stands in a notebook."""
    file = io.BytesIO()
    Image.new("RGB", (900, 300), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def every_kind_of_cell() -> NotebookNode:
    """An executed notebook with everything that a page must show in its own way."""
    text = new_markdown_cell(
        "# 01 One\n\n[Next: 02 Two](02_two.ipynb)\n\nThe sigmoid $p = 1 / (1 + e^{-x})$, `a_name_" + "that_is_long_" * 9
        + "`, and\n\n$$-t \\log p - (1 - t) \\log (1 - p) + " + "x + " * 40 + "1$$\n\n"
        + "![Expected: black](attachment:a.png)\n\n```python\nprint(" + "1, " * 60 + ")\n```\n\n| "
        + "column | " * 12 + "\n|" + "---|" * 12 + "\n| " + "value | " * 12 + "\n\n> A quotation.\n\n"
        + "<details><summary>Hint 1</summary>\n\nUse `numpy`.\n\n</details>",
        attachments={"a.png": {"image/png": picture()}},
    )  # fmt: skip
    answer = new_markdown_cell("Because\n\n* it is so.", metadata={"course": {"answer": "1a"}})
    table = pd.DataFrame([[0.5] * 14], columns=[f"column {n}" for n in range(14)])
    outputs = [
        new_output("stream", text="\x1b[31mred\x1b[0m \x1b[32mgreen\x1b[0m " + "long " * 60 + "\n"),
        new_output("stream", name="stderr", text="a warning\n"),
        new_output("execute_result", {"text/html": table.to_html(), "text/plain": "table"}, execution_count=1),
        new_output("display_data", {"text/html": table.style.set_caption("A table").to_html()}),
        new_output("display_data", {"image/png": picture()}, metadata={"image/png": {"alt": "A black figure, wide."}}),
        new_output("display_data", {"text/markdown": "*A caption.*", "text/plain": "A caption."}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "interactive(x)"}),
        new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[0;31mValueError\x1b[0m: no"]),
    ]
    code = CODE + "1 + " * 40 + "1"
    cells = [text, answer, new_code_cell(code, execution_count=1, outputs=outputs)]
    cells.append(new_code_cell("def f(): ...", metadata={"course": {"exercise": "1.1"}}, execution_count=2))
    cells.append(new_code_cell("figure()", metadata={"jupyter": {"source_hidden": True}}, execution_count=3))
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def write_every_kind_of_cell(path: Path) -> None:
    """Write `every_kind_of_cell` as a file."""
    nbformat.write(every_kind_of_cell(), path)
