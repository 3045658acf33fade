"""Executed notebooks as web pages."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode


def write_html(notebook: Path, page: Path, images_from: Path | None = None) -> None:
    """Render an executed notebook as one self-contained web page.

    Args:
        notebook: the .ipynb file.
        page: the .html file to write.
        images_from: folder to which image paths in the text cells are relative; default: the notebook's own.
    """
    exporter = _OfflineExporter(embed_images=True)
    exporter.register_preprocessor(_WithoutWidgets, enabled=True)
    exporter.log.setLevel(logging.ERROR)
    resources = {"metadata": {"name": notebook.stem, "path": str(images_from or notebook.parent)}}
    html, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4), resources=resources)
    page.write_text(html, encoding="utf-8")


class _MathRenderer(IPythonRenderer):
    """Formulas become MathML, which every current browser draws without a script."""

    def _html_embed_images(self, html: str) -> str:
        """Embed the images of raw HTML. The method it replaces would also close a <details> that goes on below."""
        return re.sub(r"""(?<=\ssrc=["'])[^"']+""", lambda found: self._src_to_base64(found[0]) or found[0], html)

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def mathml(formula: str, display: str) -> str:
    """A formula in TeX as MathML; `display` is "inline" or "block"."""
    try:
        return latex_to_mathml(formula.strip(), display=display)
    except Exception:  # its errors have no common base; a formula in TeX is better than no page
        return f"<code>{IPythonRenderer().escape_html(formula)}</code>"


class _OfflineExporter(HTMLExporter):
    """nbconvert's page without the scripts it fetches from elsewhere, and with the figures' alternative texts."""

    raw_template = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata('alt', 'image/png') -%}
{{ super() | replace('<img ', '<img alt="' ~ (alt | escape_html) ~ '" ', 1) if alt else super() }}
{%- endblock -%}
"""

    @pass_context
    def markdown2html(self, context, source):
        """Markdown to HTML, with this module's formulas."""
        renderer = _MathRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
        )
        return MarkdownWithMath(renderer=renderer).render(source)


def without_widgets(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook for a page, where no widget works."""
    return _WithoutWidgets().preprocess(notebook, {})[0]


class _WithoutWidgets(Preprocessor):
    """Widgets need a running kernel: a page says so in their place. Finished progress bars are left out."""

    NOTE = "<p><em>An interactive part stands here; it works when you run this cell in JupyterLab.</em></p>"
    VIEW = "application/vnd.jupyter.widget-view+json"

    def preprocess(self, nb, resources):
        nb.metadata.pop("widgets", None)
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in map(self._replace, cell.outputs) if output is not None]
        return nb, resources

    def _replace(self, output: NotebookNode) -> NotebookNode | None:
        if self.VIEW not in output.get("data", {}):
            return output
        if re.search(r"\d+%\|", output.data.get("text/plain", "")):
            return None
        output.data = NotebookNode({"text/html": self.NOTE})
        return output
