"""The links that open a notebook elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from workshop.build import badges as module
from workshop.build.badges import PICTURES, PLACEHOLDER_ADDRESS, badges, readme_with_badges, repository, with_links
from workshop.build.source import Cell

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(path.stem for path in (ROOT / "solutions").glob("*.py"))


@pytest.fixture
def published(monkeypatch):
    """A course with an address: that of Ada."""
    monkeypatch.setattr(module, "repository", lambda: "ada/cells")
    return "ada/cells"


def test_the_links_lead_to_the_three_places():
    line = badges("01_one", "../", "ada/cells")
    assert re.findall(r"\]\((https[^)]+)\)", line) == [
        "https://kaggle.com/kernels/welcome?src=https://github.com/ada/cells/blob/stand-alone/01_one/01_one.ipynb",
        "https://colab.research.google.com/github/ada/cells/blob/stand-alone/01_one/01_one.ipynb",
        "https://mybinder.org/v2/gh/ada/cells/main?urlpath=lab/tree/notebooks/01_one.ipynb",
    ]
    pictures = re.findall(r"!\[(Open this on \w+)\]\(\.\./([^)]+)\)", line)
    assert len(pictures) == 3 and all((ROOT / picture).is_file() for _, picture in pictures)


@pytest.mark.parametrize(("line", "name"), [
    ('Repository = "https://github.com/ada/cells"', "ada/cells"),
    ('Repository = "https://github.com/ada-l/cells.2/"', "ada-l/cells.2"),
    ('Repository = "https://github.com/ada/cells.git"', "ada/cells"),
    ('Repository = "https://github.com/your-name/nucleus-course"', ""),
    ('Repository = "https://github.com/your-name/cells"', ""),
    ('Repository = "https://github.com/ada"', ""),
    ('Repository = "https://gitlab.com/ada/cells"', ""),
    ('Data = "https://github.com/ada/cells"', ""),
])  # fmt: skip
def test_only_an_address_on_github_gives_links(tmp_path, monkeypatch, line, name):
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = 'x'\n[project.urls]\n{line}\n")
    monkeypatch.setattr(module, "checkout", lambda: tmp_path)
    cells = [Cell("markdown", "# Title\nText", 1), Cell("code", "1", 5)]
    assert repository() == name
    assert (with_links(cells, badges("01_one", "../", repository())) == cells) == (name == "")


def test_the_address_of_the_course_is_written_in_one_place():
    name = re.search(r"^Repository = .*github\.com/([\w.-]+/[\w.-]+)", (ROOT / "pyproject.toml").read_text(), re.M)[1]
    sources = [path for folder in ("course_utils", "workshop", "solutions") for path in (ROOT / folder).rglob("*.py")]
    sources += [*ROOT.glob("*.py"), *(ROOT / ".github").rglob("*.yml"), ROOT / "environment.yml"]
    assert [path for path in sources if name in path.read_text(encoding="utf-8")] == []


def test_readme_and_notebooks_have_the_links_of_this_course_or_none():
    """If this fails after a change of the address in pyproject.toml: python3 course.py build"""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- badges -->" in readme and readme_with_badges(readme, NAMES[0]) == readme
    assert PLACEHOLDER_ADDRESS not in readme
    for path in (ROOT / folder / f"{name}.ipynb" for name in NAMES for folder in ("notebooks", "solutions")):
        text = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        line = badges(path.stem, "../", repository())
        assert line in text.splitlines()[:3] if line else "Open this on" not in text, path


def test_the_readme_gets_links_and_loses_them_again(published, monkeypatch):
    with_one = readme_with_badges("A\r\n<!-- badges -->\r\nold\r\n<!-- /badges -->\r\nB", "01_one")
    assert with_one == f"A\r\n<!-- badges -->\r\n{badges('01_one', '', published)}\r\n<!-- /badges -->\r\nB"
    monkeypatch.setattr(module, "repository", lambda: "")
    assert readme_with_badges(with_one, "01_one") == "A\r\n<!-- badges -->\r\n<!-- /badges -->\r\nB"
    assert readme_with_badges("no such place", "01_one") == "no such place"


def test_a_text_without_a_title_stays_as_it_is(published):
    cells = [Cell("markdown", "No title", 1)]
    assert with_links(cells, "[a link](https://example.org)") == cells


def test_pictures_are_small_and_legible():
    for path in (ROOT / PICTURES).glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 1000 and 'role="img"' in text and "href" not in text
