"""The README and the pages in docs/: short, with the two commands, and without a link that leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "data").rglob("*.md"))]
LINK = re.compile(r"""\]\(<?([^)\s>]+)|<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)="([^"]*)\"""")


def places(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_first_page_is_short_and_has_the_two_commands_and_three_doors():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    commands = [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("    python3")]
    assert commands[:2] == ["python3 course.py run", "python3 course.py test"]
    screen = text[: text.index("## Two commands")]
    assert re.findall(r"\*\*(\w+)\*\* \|.*\]\(docs/(\w+)s\.md\)", screen) == [
        (door, door) for door in ("student", "instructor", "contributor")
    ]
    assert "<!-- course" not in text and "<!-- students" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_of_a_page_leads_nowhere(page):
    links = [first or second for first, second in LINK.findall(page.read_text(encoding="utf-8"))]
    for link in [link for link in links if not re.match(r"https?:", link)]:
        name, _, place = link.partition("#")
        target = page.parent / unquote(name) if name else page
        assert target.exists(), link
        assert not place or place in places(target), link
