"""What is wrong with a folder of web pages: links that lead nowhere, pictures without words, requests to elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes with an address that a browser fetches by itself.
FETCHED = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("link", "href")}
NOT_FETCHED = {"canonical", "next", "prev", "index", "search", "author", "copyright"}


@dataclass
class Page(HTMLParser):
    """Ids, links, fetched addresses and pictures without words of one page."""

    text: str
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    without_words: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        for name, value in attributes:
            if (tag, name) in FETCHED and value and found.get("rel") not in NOT_FETCHED:
                self.fetched.append(value)
        if tag == "img" and len((found.get("alt") or "").strip()) < 10:
            self.without_words.append((found.get("src") or "")[:60])


def find_faults(folder: Path) -> list[str]:
    """A sentence for each fault in the pages and style sheets below a folder."""
    # in _static there are templates of the theme, which nobody opens
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        faults += [f"{name}: a picture without words ({source})" for source in page.without_words]
        faults += [f"{name}: fetches {address}" for address in page.fetched if urlsplit(address).netloc]
        for address in [*page.links, *page.fetched]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                faults.append(f"{name}: leads to {address}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                faults.append(f"{name}: leads to {address}, but that page has no such place")
    for path in sorted(folder.rglob("*.css")):
        elsewhere = re.findall(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8"))
        faults += [f"{path.relative_to(folder).as_posix()}: fetches {address}" for address in elsewhere]
    return faults
