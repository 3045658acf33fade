"""Executed notebooks as web pages, by nbconvert."""

from __future__ import annotations

import base64
import html
import logging
import mimetypes
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

import nbformat
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

HERE = Path(__file__).parent
NOTE = "<p><em>This cell has an interactive part. It works when you run the cell in JupyterLab.</em></p>"
WIDGET = "application/vnd.jupyter.widget-view+json"
TABLE = '<div class="scrolls" role="group" aria-label="Table">{}</div>'  # on a phone it scrolls, and not the page
FIGURE = TABLE.replace("Table", "Figure")
MAX_SHRUNK = 800  # pixels: a figure as wide as that can be read on a phone


class _Text(IPythonRenderer):
    """Formulas as MathML, which browsers draw without a script."""

    def block_math(self, body: str) -> str:
        return formula(body, as_block=True)

    def inline_math(self, body: str) -> str:
        return formula(body)


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source: str) -> str:
        return MarkdownWithMath(renderer=_Text(escape=False)).render(source)


def formula(latex: str, as_block: bool = False) -> str:
    """A formula as MathML, or as it is typed if docutils cannot read it."""
    try:
        drawn = tex2mathml(latex, as_block=as_block)
    except MathError:
        drawn = f"<code>{html.escape(latex)}</code>"
    return f'<span class="scrolls">{drawn}</span>' if as_block else drawn


def write_html(notebook: Path, page: Path, images_from: Path, others: Collection[str] = ()) -> None:
    """Write an executed notebook as one web page, which holds its pictures and asks for nothing from elsewhere.

    Args:
        notebook: the .ipynb file.
        page: the .html file to write.
        images_from: folder to which image paths in the text cells are relative.
        others: names of the notebooks that get a page beside this one. A link to any other notebook becomes plain text.
    """
    exporter = _Exporter(raw_template=(HERE / "page.html.j2").read_text(encoding="utf-8"))
    exporter.log.setLevel(logging.ERROR)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # lines printed one after another
    shown = page_notebook(nbformat.read(notebook, as_version=4))
    for cell in shown.cells:
        if cell.cell_type == "markdown":  # nbconvert's embed_images would also close each <details> at its first line
            cell.source = re.sub(r"(!\[[^]]*\]\()([^):]+)(?=\))", partial(_embed, images_from), cell.source)
    title = re.search(r"^# (.+)", "\n".join(cell.source for cell in shown.cells[:1]), re.MULTILINE)
    resources = {
        "metadata": {"name": notebook.stem},
        "page_title": title[1] if title else notebook.stem,
        "page_style": (HERE / "page.css").read_text(encoding="utf-8"),
        "page_script": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    text, _ = exporter.from_notebook_node(shown, resources=resources)

    def lead(link: re.Match) -> str:
        there = link[2] in others or page.with_name(f"{link[2]}.html").exists()
        return f'{link[1]}{link[2]}.html{link[3]}>{link[4]}</a>' if there else link[4]

    text = re.sub(r'(<a [^>]*?href=")(\d\d_\w+)\.ipynb([^>]*)>(.*?)</a>', lead, text, flags=re.DOTALL)
    page.write_text(with_scrolling_tables(text), encoding="utf-8")


def with_scrolling_tables(text: str) -> str:
    """A page in which each table scrolls by itself where it is too wide."""
    return re.sub(r"<table\b.*?</table>", lambda table: TABLE.format(table[0]), text, flags=re.DOTALL)


def _embed(folder: Path, link: re.Match) -> str:
    """The link to a picture, with the picture's content instead of its file name."""
    path = folder / link[2]
    if not path.is_file():  # a page with a broken picture is better than none
        return link[0]
    return f"{link[1]}data:{mimetypes.guess_type(link[2])[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def page_notebook(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook as a page shows it.

    Model answers, the code of exercises and code that only plots are folded; widgets become a note; pictures get their
    alternative texts.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for name, picture in cell.pop("attachments", {}).items():
            [(kind, encoded)] = picture.items()
            address = f"data:{kind};base64,{''.join(encoded.split())}"
            cell.source = cell.source.replace(f"(attachment:{name})", f"({address})")
        _fold(cell)
        for output in list(cell.get("outputs", [])):
            data = output.get("data", {})
            if WIDGET in data and re.search(r"\d+%\|", data.get("text/plain", "")):
                cell.outputs.remove(output)  # a finished progress bar
            elif WIDGET in data:
                output.data = NotebookNode({"text/html": NOTE})
            elif picture := data.get("image/png"):
                alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
                encoded = "".join(picture.split())
                width = int.from_bytes(base64.b64decode(encoded[:32])[16:20])  # of the header of a PNG
                shown = f'<img alt="{alt}" src="data:image/png;base64,{encoded}">'
                if width > MAX_SHRUNK:  # on a phone its letters would be too small
                    shown = FIGURE.format(shown.replace("<img", f'<img style="min-width: {0.6 * width:.0f}px"'))
                output.data = NotebookNode({"text/html": shown})
    return notebook


def _fold(cell: NotebookNode) -> None:
    """Fold a model answer, the code of an exercise, or what is hidden in the notebook; the tag is Jupyter Book's."""
    marks = cell.metadata.get("course", {})
    if "answer" in marks and "<details>" not in cell.source:
        cell.source = f"<details><summary>Model answer</summary>\n\n{cell.source}\n\n</details>"
    elif cell.cell_type == "code" and ("exercise" in marks or cell.metadata.get("jupyter", {}).get("source_hidden")):
        words = f"Code of exercise {marks['exercise']}" if "exercise" in marks else "The code of this cell"
        cell.metadata.tags = [*cell.metadata.get("tags", []), "hide-input"]
        cell.metadata.mystnb = {"code_prompt_show": words, "code_prompt_hide": words}
