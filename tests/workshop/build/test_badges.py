"""The links that open a notebook elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from workshop.build.badges import PICTURES, badges, repository, with_badges
from workshop.build.source import Cell

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(path.stem for path in (ROOT / "solutions").glob("*.py"))


def test_the_links_lead_to_the_three_places():
    line = badges("01_one", "../", "https://github.com/ada/cells")
    assert re.findall(r"\]\((https[^)]+)\)", line) == [
        "https://kaggle.com/kernels/welcome?src=https://github.com/ada/cells/blob/stand-alone/01_one/01_one.ipynb",
        "https://colab.research.google.com/github/ada/cells/blob/stand-alone/01_one/01_one.ipynb",
        "https://mybinder.org/v2/gh/ada/cells/main?urlpath=lab/tree/notebooks/01_one.ipynb",
    ]
    pictures = re.findall(r"!\[(Open this on \w+)\]\(\.\./([^)]+)\)", line)
    assert len(pictures) == 3 and all((ROOT / picture).is_file() for _, picture in pictures)


def test_the_address_of_the_course_is_written_in_one_place():
    name = repository().removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", name)
    sources = [path for folder in ("course_utils", "workshop", "solutions") for path in (ROOT / folder).rglob("*.py")]
    sources += [*ROOT.glob("*.py"), *(ROOT / ".github").rglob("*.yml"), ROOT / "environment.yml"]
    assert [path for path in sources if name in path.read_text(encoding="utf-8")] == []


def test_the_readme_has_the_links_of_the_first_notebook():
    """If this fails after a change of the address in pyproject.toml, replace that line of the README."""
    assert badges(NAMES[0], "", repository()) in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_has_its_links_below_the_title(folder, name):
    first = json.loads((ROOT / folder / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"][0]
    lines = "".join(first["source"]).splitlines()
    assert lines[0].startswith("# ") and lines[2] == badges(name, "../", repository())


def test_a_text_without_a_title_stays_as_it_is():
    cells = [Cell("markdown", "No title", 1)]
    assert with_badges(cells, "01_one") == cells


def test_pictures_are_small_and_legible():
    for path in (ROOT / PICTURES).glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 1000 and 'role="img"' in text and "href" not in text
