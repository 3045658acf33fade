"""The website: built from notebooks and texts, complete, without a request to anywhere else.

The test that builds it from really executed notebooks is in test_notebooks.py.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import sphinx.application
from bs4 import BeautifulSoup
from lab_in_browser import Notes, browser_window
from pages_in_browser import faults_in_browser, served, write_every_kind_of_cell
from website_faults import find_faults

from course_utils.exercises import list_exercises
from workshop.command_line import main
from workshop.paths import RunError, checkout
from workshop.publish import website
from workshop.publish.website import WebsiteError, build_website, reference_pages

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
    for page in [*pages, "reference/index.html"]:
        assert (site / page).is_file() and f'href="{page}"' in menu, page


def test_no_link_leads_nowhere_and_nothing_is_fetched_from_elsewhere(site):
    assert find_faults(site) == []


def test_formulas_are_drawn_by_the_browser_itself(site):
    page = text_of(site, "notebooks/03_binary_training.html")
    assert page.count("<math") > 5 and "\\log p" not in page
    assert "mathjax.js" not in page.lower() and "mathjax@" not in page.lower()


def test_the_reference_shows_arguments_types_examples_and_code(site):
    page = text_of(site, "reference/metrics.html")
    assert 'id="course_utils.metrics.f1_score"' in page and "&gt;&gt;&gt; " in page
    assert "Parameters<span" in page and "Returns<span" in page and "Raises<span" in page
    assert "<span class=\"pre\">{(H,</span>" in text_of(site, "reference/exploration.html")  # a colon in code
    assert "`" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL).split("<article")[1]
    assert "Should be overridden" not in text_of(site, "reference/unet.html")  # of torch
    for path in (site / "reference").glob("*.html"):
        signatures = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select("dt.sig")
        assert [one.text for one in signatures if re.search(r"~|<\w+ |<factory|collections\.abc", one.text)] == []


def test_the_reference_has_a_page_for_every_module_that_notebooks_import():
    pages = reference_pages()
    for path in (COURSE / "course_utils").rglob("*.py"):
        module = ".".join(path.relative_to(COURSE).with_suffix("").parts).removesuffix(".__init__")
        shown = "exercises" not in module and module != "course_utils"
        assert (f"automodule:: {module}\n" in pages.get(module.removeprefix("course_utils."), "")) == shown, module
        assert not shown or f"]({module.removeprefix('course_utils.')}.md)" in pages["index"]


def test_the_start_page_has_three_doors_a_button_and_a_schedule_with_the_minutes_of_the_exercises(site):
    page = BeautifulSoup(text_of(site, "index.html"), "html.parser").article
    assert [title.text for title in page.select(".doors h2")] == ["Students", "Instructors", "Contributors"]
    assert page.select_one("a.start")["href"] == "notebooks/01_data_exploration.html"
    rows = [row.text for row in page.select("table tbody tr")]
    assert len(rows) == len(NAMES)
    for name, row in zip(NAMES, rows, strict=True):
        minutes = [exercise.minutes for exercise in list_exercises() if exercise.notebook == name]
        assert f"{sum(minutes)} for {len(minutes)} exercises" in row
    assert page.select("picture img, img")[0]["src"] == "docs/result.png" and (site / "docs" / "result.png").is_file()


def test_model_answers_and_the_code_of_exercises_are_folded(site):
    page = BeautifulSoup(text_of(site, "notebooks/01_data_exploration.html"), "html.parser").article
    folded = [one.text.strip() for one in page.select("details > summary")]
    assert folded.count("Model answer") == 3
    assert sum(one.startswith("Code of exercise 1.") for one in folded) == 7


def test_nothing_of_the_building_stays(site):
    assert [path.name for path in site.parent.iterdir()] == ["site"] and not (site / ".doctrees").exists()
    assert str(COURSE) not in text_of(site, "index.html") + text_of(site, "reference/metrics.html")


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    with served(site) as address:
        yield address


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


def test_in_a_browser_the_pages_are_accessible_and_fit_a_phone(site, address):
    pages = ["index.html", "reference/training.html", "docs/results.html", "docs/grading.html", "search.html"]
    with browser_window() as window:
        looks = [(1400, "dark"), (390, "light")]
        assert faults_in_browser(window, [f"{address}/{page}" for page in pages], looks) == []


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
    for name in (*website.PAGES, *website.FILES, *website.IN_HTML):
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(COURSE / name, course / name)
    (course / "README.md").write_text("# A course\n\nIn one notebook.\n", encoding="utf-8")
    for name in ("students", "instructors", "grading", "contributors"):  # they link to notebooks, or to each other
        (course / "docs" / f"{name}.md").write_text(f"# {name}\n", encoding="utf-8")
    cells = [nbformat.v4.new_markdown_cell("# 01 One"), nbformat.v4.new_code_cell('profile = "x"\nprint("shown")')]
    cells[1].metadata.tags = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, course / "solutions" / "01_one.ipynb")
    monkeypatch.setattr(website, "checkout", lambda: course)
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "cache"))
    return course


def executed_copy(course: Path, run: str = "embedded-smoke") -> Path:
    folder = course / "build" / run
    folder.mkdir(parents=True, exist_ok=True)
    data, profile = run.split("-")
    summary = {"data": {"source": data}, "profile": profile, "date": "2026-11-28T12:00"}
    (folder / "summary.json").write_text(json.dumps(summary))
    notebook = nbformat.read(course / "solutions" / "01_one.ipynb", as_version=4)
    notebook.cells[1].execution_count = 1
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="shown\n")]
    nbformat.write(notebook, folder / "01_one.ipynb")
    return folder


def test_in_a_browser_every_kind_of_cell_is_accessible_and_fits_a_phone(small_course):
    write_every_kind_of_cell(executed_copy(small_course) / "01_one.ipynb")
    notebook = small_course / "build" / "embedded-smoke" / "01_one.ipynb"
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("02_two.ipynb", "01_one.ipynb"), encoding="utf-8")
    site = build_website(executed=notebook.parent)
    with browser_window() as window, served(site) as address:
        assert faults_in_browser(window, [f"{address}/notebooks/01_one.html"]) == []


@pytest.mark.slow
def test_notebooks_that_were_executed_are_not_executed_again(small_course, monkeypatch):
    executed_copy(small_course)
    monkeypatch.setattr(website, "run_course", lambda *_, **__: pytest.fail("it was executed"))
    out = build_website()
    assert out == small_course / "build" / "site"
    assert "shown" in text_of(out, "notebooks/01_one.html")
    assert build_website() == out, "a second build replaces the first"


@pytest.mark.slow
def test_real_images_are_taken_where_they_are_at_hand_and_every_page_says_on_what_it_was_executed(small_course):
    embedded = executed_copy(small_course)
    assert website.execute_changed(small_course) == embedded
    (small_course.parent / "cache" / "dsb2018" / "train").mkdir(parents=True)
    real = executed_copy(small_course, "dsb2018-laptop")
    assert website.execute_changed(small_course) == real
    assert website.execute_changed(small_course, "embedded") == embedded
    site = build_website()
    said = "xecuted on the real images of DSB2018, profile laptop, 2026-11-28."
    assert said in text_of(site, "index.html") and f"E{said}" in text_of(site, "notebooks/01_one.html")


def test_a_finished_run_and_a_new_one_exclude_each_other(small_course):
    with pytest.raises(WebsiteError, match="leave one out"):
        build_website(executed=executed_copy(small_course), data="embedded")


@pytest.fixture
def earlier(small_course) -> Path:
    """A website that is there already."""
    executed_copy(small_course)
    out = small_course / "build" / "site"
    out.mkdir()
    (out / ".files").write_text(".files\nearlier.html")
    (out / "earlier.html").touch()
    return out


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("disk full"), WebsiteError("a fault")])
@pytest.mark.parametrize("where", ["start_page", "rename"])
def test_a_call_that_fails_or_is_interrupted_leaves_the_earlier_website_and_nothing_else(
    earlier, monkeypatch, stop, where
):
    def refuse(*_):
        raise stop

    if where == "start_page":
        monkeypatch.setattr(website, "start_page", refuse)
    else:  # at the last moment: the earlier website is out of the way, the new one not yet in its place
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda one, to: refuse() if one.name == "pages" else rename(one, to))
        monkeypatch.setattr(website, "collect", lambda *_: None)
        monkeypatch.setattr(sphinx.application, "Sphinx", FakeSphinx)
    with pytest.raises((KeyboardInterrupt, WebsiteError)):
        build_website()
    assert (earlier / "earlier.html").exists()
    assert sorted(path.name for path in earlier.parent.iterdir()) == ["embedded-smoke", "site"]


class FakeSphinx:
    """It writes one page, at once."""

    statuscode = 0

    def __init__(self, source, settings, pages, *_, **__):
        self.pages = Path(pages)

    def build(self):
        self.pages.mkdir()
        (self.pages / "index.html").touch()


def test_what_a_killed_call_left_is_put_right_by_the_next(earlier, monkeypatch):
    building = earlier.with_name(f".{earlier.name}-building")
    building.mkdir()
    earlier.rename(building / "old")
    monkeypatch.setattr(website, "start_page", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        build_website()
    assert (earlier / "earlier.html").is_file() and not building.exists()


@pytest.mark.slow
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

    def run_course(data, profile, only):
        asked.append((data, profile, only))
        executed_copy(small_course)
        return []

    monkeypatch.setattr(website, "run_course", run_course)
    build_website()
    assert asked == [("embedded", "smoke", ["01_one"])]


def test_a_notebook_that_fails_stops_the_building(small_course, monkeypatch):
    class Failed:
        notebook, error = "01_one", "it failed"

    monkeypatch.setattr(website, "run_course", lambda *_, only: [Failed])
    with pytest.raises(WebsiteError, match="01_one failed; see above"):
        build_website()


def test_links_that_lead_nowhere_stop_the_building(small_course):
    executed_copy(small_course)
    page = small_course / "docs" / "grading.md"
    faults = "[nowhere](gone.md) [no such heading](results.md#gone) ![a picture that is not there](gone.png)\n"
    page.write_text(page.read_text(encoding="utf-8") + faults, encoding="utf-8")
    with pytest.raises(WebsiteError, match=r"Faults in the pages \(3\):\n") as error:
        build_website()
    assert all(re.search(rf"\bgone{end}\b", str(error.value)) for end in (r"\.md", "", r"\.png"))


@pytest.mark.parametrize("place", ["thesis.txt", ".git/config", "notebooks/mine/thesis.txt"])
def test_a_folder_with_other_files_is_left_alone_also_where_a_website_is(earlier, place):
    other = earlier / place
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("years of work")
    with pytest.raises(WebsiteError, match=rf"holds what is not of the website \({place}\): name an empty folder"):
        build_website(earlier)
    assert other.exists() and (earlier / "earlier.html").exists()


def test_a_file_in_the_place_of_the_website_is_left_alone(tmp_path):
    (tmp_path / "site").write_text("years of work")
    with pytest.raises(WebsiteError, match="holds what is not of the website"):
        build_website(tmp_path / "site", COURSE / "solutions")


def test_while_one_call_builds_a_second_one_says_so_and_disturbs_nothing(earlier, monkeypatch):
    build = website.collect

    def try_again(*arguments):
        monkeypatch.setattr(website, "collect", build)
        with pytest.raises(WebsiteError, match="another call is building .*: wait for it"):
            build_website()
        build(*arguments)

    monkeypatch.setattr(website, "collect", try_again)
    assert (build_website() / "index.html").is_file() and not (earlier / "earlier.html").exists()
    assert sorted(path.name for path in earlier.parent.iterdir()) == ["embedded-smoke", "site"]


@pytest.mark.parametrize("wrong", [{"profile": "lapto"}, {"data": "nosuch"}])
def test_a_mistake_in_typing_is_answered_before_anything_else_is_said(small_course, capsys, wrong):
    with pytest.raises(ValueError, match=f"There is no .*{next(iter(wrong.values()))}"):
        build_website(**wrong)
    assert capsys.readouterr().out == "" and not list((small_course / "build").glob("*"))


def test_without_sphinx_a_sentence_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sphinx.application", None)
    assert main(["site", "--out", str(tmp_path / "site"), "--executed", str(tmp_path)]) == 1
    assert "pip install -e '.[site]'" in capsys.readouterr().err


def test_executed_notebooks_must_be_there(tmp_path):
    with pytest.raises((WebsiteError, RunError), match=r"01_data_exploration"):
        build_website(tmp_path / "site", tmp_path / "nothing")
