"""The web pages of `run`: whole, readable by everybody, and without a request to anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from lab_in_browser import browser_window
from pages_in_browser import faults_in_browser, served, write_every_kind_of_cell

from workshop.run.pages import write_html


@pytest.fixture
def page(tmp_path) -> Path:
    write_every_kind_of_cell(tmp_path / "01_one.ipynb")
    write_html(tmp_path / "01_one.ipynb", tmp_path / "01_one.html", tmp_path, others=["01_one"])
    return tmp_path / "01_one.html"


def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_in_a_browser_the_page_is_accessible_fits_a_phone_and_asks_for_nothing(page):
    with browser_window() as window, served(page.parent) as address:
        assert faults_in_browser(window, [f"{address}/01_one.html"]) == []


def test_the_page_has_the_title_of_the_notebook_one_main_part_and_formulas_without_a_script(page):
    soup = parsed(page)
    assert soup.title.text == "01 One" and soup.html["lang"] == "en" and len(soup.select("main")) == 1
    assert len(soup.select("math")) == 2
    assert not any("mathjax" in str(script).lower() for script in soup.select("script"))


def test_a_formula_that_cannot_be_drawn_stays_as_it_is_typed(page):
    notebook = page.with_suffix(".ipynb")
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("e^{-x}", r"\\nosuch{-x}"), encoding="utf-8")
    write_html(notebook, page, page.parent)
    assert r"\nosuch{-x}" in parsed(page).select("main code")[0].text


def test_answers_code_of_exercises_and_hidden_code_are_folded(page):
    summaries = [one.text for one in parsed(page).select("details > summary")]
    assert summaries == ["Hint 1", "Model answer", "Code of exercise 1.1", "The code of this cell"]
    assert "it is so" in parsed(page).select("details")[1].text and "def f" in parsed(page).select("details")[2].text


def test_every_table_scrolls_in_itself(page):
    tables = parsed(page).select("table")
    assert len(tables) == 3 and all(table.parent["class"] == ["scrolls"] for table in tables)


def test_links_to_other_notebooks_lead_to_their_pages_where_there_are_any(page):
    assert "Next: 02 Two" in parsed(page).text and not parsed(page).select("a[href*='02_two']")
    write_html(page.with_suffix(".ipynb"), page, page.parent, others=["02_two"])
    assert [link["href"] for link in parsed(page).select("a[href*='02_two']")] == ["02_two.html"]


def test_words_that_are_widgets_in_jupyterlab_say_so(page):
    assert "It works when you run the cell in JupyterLab" in parsed(page).text


PRINTED = """[getComputedStyle(document.body).backgroundColor,
    ...[...document.querySelectorAll("details > :not(summary)")].map(one => one.checkVisibility()),
    ...[...document.querySelectorAll("main pre")].map(one => one.scrollWidth <= innerWidth)]"""


def test_on_paper_the_page_is_white_and_nothing_is_folded_or_cut_off(page):
    with browser_window() as window:
        shown = window.new_page()
        shown.goto(page.as_uri())
        shown.emulate_media(media="print", color_scheme="dark")
        shown.set_viewport_size({"width": 700, "height": 1000})
        found = shown.evaluate(PRINTED)
    assert found[0] == "rgb(255, 255, 255)" and len(found) > 8 and set(found[1:]) == {True}


def test_on_a_phone_a_wide_figure_scrolls_instead_of_shrinking_until_nobody_can_read_it(page):
    with browser_window() as window:
        shown = window.new_page()
        shown.set_viewport_size({"width": 390, "height": 800})
        shown.goto(page.as_uri())
        figure = shown.get_by_role("group", name="Figure")
        assert figure.locator("img").bounding_box()["width"] == 540 and figure.bounding_box()["width"] < 390
        shown.wait_for_function("document.querySelector('[aria-label=Figure]').tabIndex === 0")
