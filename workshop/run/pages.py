"""Executed notebooks as web pages, by nbconvert."""

from __future__ import annotations

import base64
import html
import logging
import mimetypes
import re
from functools import partial
from pathlib import Path

import nbformat
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode

NOTE = "<p><em>This cell has an interactive part. It works when you run the cell in JupyterLab.</em></p>"
WIDGET = "application/vnd.jupyter.widget-view+json"
# nbconvert's page without the scripts that these notebooks do not need. MathJax comes from its server and draws the
# formulas; the page does not wait for it, and without a network formulas stay as they are typed.
TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{{ super() | replace('<script src', '<script defer src') }}{%- endblock -%}
"""


def write_html(notebook: Path, page: Path, images_from: Path) -> None:
    """Write an executed notebook as one web page that holds its pictures.

    Args:
        notebook: the .ipynb file.
        page: the .html file to write.
        images_from: folder to which image paths in the text cells are relative.
    """
    exporter = HTMLExporter(raw_template=TEMPLATE)
    exporter.log.setLevel(logging.ERROR)
    shown = page_notebook(nbformat.read(notebook, as_version=4))
    for cell in shown.cells:
        if cell.cell_type == "markdown":  # nbconvert's embed_images would also close each <details> at its first line
            cell.source = re.sub(r"(!\[[^]]*\]\()([^):]+)(?=\))", partial(_embed, images_from), cell.source)
    text, _ = exporter.from_notebook_node(shown, resources={"metadata": {"name": notebook.stem}})
    page.write_text(text, encoding="utf-8")


def _embed(folder: Path, link: re.Match) -> str:
    """The link to a picture, with the picture's content instead of its file name."""
    path = folder / link[2]
    if not path.is_file():  # a page with a broken picture is better than none
        return link[0]
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f"{link[1]}data:{mimetypes.guess_type(link[2])[0]};base64,{encoded}"


def page_notebook(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook as a page shows it: a note for widgets, and pictures with their alternative texts."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for name, picture in cell.pop("attachments", {}).items():
            [(kind, encoded)] = picture.items()
            address = f"data:{kind};base64,{''.join(encoded.split())}"
            cell.source = cell.source.replace(f"(attachment:{name})", f"({address})")
        for output in list(cell.get("outputs", [])):
            data = output.get("data", {})
            if WIDGET in data and re.search(r"\d+%\|", data.get("text/plain", "")):
                cell.outputs.remove(output)  # a finished progress bar
            elif WIDGET in data:
                output.data = NotebookNode({"text/html": NOTE})
            elif picture := data.get("image/png"):
                alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
                encoded = "".join(picture.split())
                output.data = NotebookNode({"text/html": f'<img alt="{alt}" src="data:image/png;base64,{encoded}">'})
    return notebook
