"""The website: built from notebooks and texts, complete, without a request to anywhere else.

The test that builds it from really executed notebooks is in test_notebooks.py.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from lab_in_browser import Notes, browser_window
from website_faults import find_faults

from workshop.command_line import main
from workshop.paths import RunError, checkout
from workshop.publish import website
from workshop.publish.website import WebsiteError, build_website, reference_page

COURSE = checkout()
NAMES = sorted(path.stem for path in (COURSE / "solutions").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built from the solved notebooks as they are, of which only a few cells have outputs."""
    return build_website(tmp_path_factory.mktemp("site") / "site", COURSE / "solutions")


def text_of(site: Path, page: str) -> str:
    return (site / page).read_text(encoding="utf-8")


def test_every_notebook_and_page_is_there_and_in_the_menu(site):
    menu = text_of(site, "index.html")
    pages = [f"notebooks/{name}.html" for name in NAMES] + [page.replace(".md", ".html") for page in website.PAGES]
    for page in [*pages, "reference.html"]:
        assert (site / page).is_file() and f'href="{page}"' in menu, page


def test_no_link_leads_nowhere_and_nothing_is_fetched_from_elsewhere(site):
    assert find_faults(site) == []


def test_formulas_are_drawn_by_the_browser_itself(site):
    page = text_of(site, "notebooks/03_binary_training.html")
    assert page.count("<math") > 5 and "\\log p" not in page
    assert "mathjax.js" not in page.lower() and "mathjax@" not in page.lower()


def test_the_reference_shows_arguments_examples_and_code(site):
    page = text_of(site, "reference.html")
    assert "course_utils.metrics.f1_score" in page and "&gt;&gt;&gt; " in page
    assert "<span class=\"pre\">{(H,</span>" in page  # text in backticks is code, also with a colon in it
    assert "`" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL).split("<article")[1]


def test_the_reference_has_every_module_that_notebooks_import():
    page = reference_page()
    for path in (COURSE / "course_utils").rglob("*.py"):
        module = ".".join(path.relative_to(COURSE).with_suffix("").parts)
        shown = "exercises" not in module and module != "course_utils.__init__"
        assert (f"automodule:: {module.removesuffix('.__init__')}\n" in page) == shown, module


def test_nothing_of_the_building_stays(site):
    assert not (site.parent / "site-source").exists() and not (site / ".doctrees").exists()
    assert str(COURSE) not in text_of(site, "index.html") + text_of(site, "reference.html")


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Of the site on this computer, served as it is."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_in_a_browser_no_page_complains_or_asks_for_anything_from_elsewhere(site, address):
    with browser_window() as window:
        page = window.new_page()
        notes = Notes(page)
        for path in sorted(site.rglob("*.html")):
            if "_static" not in path.parts:
                page.goto(f"{address}/{path.relative_to(site).as_posix()}")
                page.wait_for_load_state("networkidle")
        assert (notes.outside, notes.errors) == ([], [])


def test_in_a_browser_formulas_have_a_size_and_the_search_finds(address):
    with browser_window() as window:
        page = window.new_page()
        page.goto(f"{address}/notebooks/03_binary_training.html")
        boxes = [formula.bounding_box() for formula in page.locator("math").all() if formula.is_visible()]
        assert len(boxes) > 5 and all(box["width"] > 3 and box["height"] > 3 for box in boxes)
        page.goto(f"{address}/search.html?q=watershed")
        page.locator("#search-results a", has_text="05 Boundaries and watershed").first.wait_for()


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<a href="gone.html">there</a>', "leads to gone.html, which is not there"),
        ('<a href="#gone">there</a>', "leads to #gone, but that page has no such place"),
        ('<img src="picture.png" alt="a long description">', "leads to picture.png, which is not there"),
        ('<img src="data:image/png;base64,AA" alt="">', "a picture without words"),
        ('<script src="https://example.org/a.js"></script>', "fetches https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "fetches //example.org/a.css"),
    ],
)
def test_faults_are_found(tmp_path, page, fault):
    fine = '<a href="https://example.org">elsewhere</a> <a href="#id" id="id">x</a>'
    (tmp_path / "index.html").write_text(fine + page)
    assert [fault in found for found in find_faults(tmp_path)] == [True]


def test_style_sheets_that_fetch_are_found(tmp_path):
    (tmp_path / "a.css").write_text('@import "https://example.org/b.css"; p { background: url(//example.org/c.png) }')
    assert len(find_faults(tmp_path)) == 2


@pytest.fixture
def small_course(tmp_path, monkeypatch) -> Path:
    """A course of one notebook, with the texts of this one."""
    course = tmp_path / "course"
    (course / "solutions").mkdir(parents=True)
    for name in ("README.md", *website.PAGES, *website.FILES):
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(COURSE / name, course / name)
    readme = course / "README.md"
    readme.write_text("# A course\n\n[The first notebook](notebooks/01_one.ipynb)\n", encoding="utf-8")
    for name in ("students", "instructors", "grading", "contributors"):  # they link to notebooks, or to each other
        (course / "docs" / f"{name}.md").write_text(f"# {name}\n", encoding="utf-8")
    cells = [nbformat.v4.new_markdown_cell("# 01 One"), nbformat.v4.new_code_cell('profile = "x"\nprint("shown")')]
    cells[1].metadata.tags = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, course / "solutions" / "01_one.ipynb")
    monkeypatch.setattr(website, "checkout", lambda: course)
    return course


def executed_copy(course: Path) -> Path:
    folder = course / "build" / "embedded-smoke"
    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(course / "solutions" / "01_one.ipynb", as_version=4)
    notebook.cells[1].execution_count = 1
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="shown\n")]
    nbformat.write(notebook, folder / "01_one.ipynb")
    return folder


def test_notebooks_that_were_executed_are_not_executed_again(small_course, monkeypatch):
    executed_copy(small_course)
    monkeypatch.setattr(website, "run_course", lambda **_: pytest.fail("it was executed"))
    out = build_website()
    assert out == small_course / "build" / "site"
    assert "shown" in text_of(out, "notebooks/01_one.html")
    assert build_website() == out, "a second build replaces the first"


def test_the_command_builds_it(small_course, capsys):
    executed_copy(small_course)
    assert main(["site"]) == 0
    out = small_course / "build" / "site"
    assert capsys.readouterr().out == f"Website: {out / 'index.html'}\n" and (out / "index.html").is_file()


@pytest.mark.parametrize("change", ["source", "unfinished", "missing"])
def test_notebooks_that_have_changed_are_executed_first(small_course, monkeypatch, change):
    folder = executed_copy(small_course)
    path = folder / "01_one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    if change == "source":
        notebook.cells[0].source = "# 01 Once"
    elif change == "unfinished":
        notebook.cells[1].execution_count = None
    nbformat.write(notebook, path)
    if change == "missing":
        path.unlink()
    asked = []

    def run_course(only):
        asked.append(only)
        executed_copy(small_course)
        return []

    monkeypatch.setattr(website, "run_course", run_course)
    build_website()
    assert asked == [["01_one"]]


def test_a_notebook_that_fails_stops_the_building(small_course, monkeypatch):
    class Failed:
        notebook, error = "01_one", "it failed"

    monkeypatch.setattr(website, "run_course", lambda only: [Failed])
    with pytest.raises(WebsiteError, match="01_one failed; see above"):
        build_website()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[nowhere](gone.md)", "gone.md"),
        ("[no such heading](docs/results.md#gone)", "gone"),
        ("![a picture that is not there](gone.png)", "gone.png"),
    ],
)
def test_a_link_that_leads_nowhere_stops_the_building(small_course, text, fault):
    executed_copy(small_course)
    readme = small_course / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + text + "\n", encoding="utf-8")
    with pytest.raises(WebsiteError, match=rf"Faults in the pages \(1\):\n(.|\n)*{re.escape(fault)}"):
        build_website()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(WebsiteError, match="is not a website of the course"):
        build_website(tmp_path, COURSE / "solutions")
    assert (tmp_path / "thesis.txt").exists()


def test_without_sphinx_a_sentence_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sphinx.application", None)
    assert main(["site", "--out", str(tmp_path / "site"), "--executed", str(tmp_path)]) == 1
    assert "pip install -e '.[site]'" in capsys.readouterr().err


def test_executed_notebooks_must_be_there(tmp_path):
    with pytest.raises((WebsiteError, RunError), match=r"01_data_exploration"):
        build_website(tmp_path / "site", tmp_path / "nothing")
