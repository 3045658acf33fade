"""Every notebook that is generated, and its page, in a browser: no broken picture, no link that leads nowhere.

On every change with the links to GitHub. Without: python3 course.py test -m slow tests/notebooks/test_artefacts.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from lab_in_browser import browser_window
from nbconvert.exporters import HTMLExporter
from quick import mostly_slow
from website_faults import find_faults

from workshop.build import build
from workshop.run.pages import write_html

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "solutions").glob("*.py"))
BROKEN = "[...document.images].filter(one => !one.naturalWidth).map(one => one.alt || one.src.slice(0, 80))"


@pytest.fixture(scope="module", params=mostly_slow(["without an address", "with an address"], quick=["with an"]))
def course(request, tmp_path_factory) -> Path:
    """A course with a page beside each notebook, as GitHub shows it, and the page of `run` for each solved one.

    With an address on GitHub it has links with pictures below each title.
    """
    course = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "docs", course / "docs")
    shutil.copytree(ROOT / "solutions", course / "solutions", ignore=shutil.ignore_patterns("*.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workshop.build.versions.repository", lambda: "ada/cells" if "with an" in request.param else "")
        build(root=course)
    for notebook in course.rglob("*.ipynb"):
        body, _ = HTMLExporter(template_name="basic").from_notebook_node(nbformat.read(notebook, as_version=4))
        notebook.with_suffix(".html").write_text(body, encoding="utf-8")
    (course / "run").mkdir()
    for name in NAMES:
        page = course / "run" / f"{name}.html"
        write_html(course / "solutions" / f"{name}.ipynb", page, course / "solutions", NAMES)
    return course


def test_every_link_leads_somewhere(course):
    assert len(list(course.rglob("*.html"))) == 4 * len(NAMES)
    assert [fault for fault in find_faults(course) if "leads to" in fault] == []


def test_every_picture_is_drawn(course):
    broken, drawn = {}, 0
    with browser_window() as window:
        page = window.new_page()
        for path in course.rglob("*.html"):
            page.goto(path.as_uri())
            drawn += page.evaluate("document.images.length")
            if found := page.evaluate(BROKEN):
                broken[path.relative_to(course).as_posix()] = found
    assert broken == {} and drawn > 10


def test_a_page_of_a_run_without_the_other_notebooks_names_them_without_links(course, tmp_path):
    write_html(course / "solutions" / f"{NAMES[1]}.ipynb", tmp_path / "page.html", course / "solutions")
    assert [fault for fault in find_faults(tmp_path) if "leads to" in fault] == []
    assert f"Previous: {NAMES[0][:2]} " in (tmp_path / "page.html").read_text(encoding="utf-8")
