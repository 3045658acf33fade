"""The links below the title of a notebook, and in the README, that open it on Kaggle, on Colab and on Binder.

The address of the course is written once, in pyproject.toml (`Repository`). While that is the placeholder, or not on
GitHub, there are no links, because they would lead nowhere. Kaggle and Colab open the stand-alone notebooks, which
the workflow site.yml puts on the branch `stand-alone`; Binder installs environment.yml.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

from workshop.build.source import Cell
from workshop.paths import checkout

PICTURES = "docs/badges"
BRANCH = "stand-alone"
PLACEHOLDER_ADDRESS = "github.com/your-name/"
NO_LINKS = (
    "No links to Kaggle, Colab and Binder: Repository in pyproject.toml is not your address on GitHub yet; "
    "set it, then run: python3 course.py build"
)


def repository() -> str:
    """OWNER/NAME of the course on GitHub; empty if pyproject.toml names no address there, or the placeholder."""
    urls = tomllib.loads((checkout() / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    address = urls.get("Repository", "")
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", address)
    return match[1] if match and PLACEHOLDER_ADDRESS not in address else ""


def badges(notebook: str, folder: str, name: str) -> str:
    """A line of Markdown with three pictures that link to a notebook, empty without a name.

    `folder` leads from the text to the folder of the course, as in "../"; `name` is what `repository` gives.
    """
    file = f"{name}/blob/{BRANCH}/{notebook}/{notebook}.ipynb"
    links = {
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}",
        "Colab": f"https://colab.research.google.com/github/{file}",
        "Binder": f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/notebooks/{notebook}.ipynb",
    }
    pictures = [f"[![Open this on {at}]({folder}{PICTURES}/{at.lower()}.svg)]({link})" for at, link in links.items()]
    return " ".join(pictures) if name else ""


def with_links(cells: list[Cell], *lines: str) -> list[Cell]:
    """The cells with lines of links, those that are not empty, below the title that begins the first cell."""
    first, *rest = cells
    title, _, text = first.source.partition("\n")
    shown = "\n\n".join(filter(None, lines))
    if not shown or first.kind != "markdown" or not title.startswith("# "):
        return cells
    return [replace(first, source=f"{title}\n\n{shown}\n{text}"), *rest]


def readme_with_badges(text: str, notebook: str) -> str:
    """The README with the links to a notebook between its two comments `badges`; without these, as it is."""
    line = badges(notebook, "", repository())
    pattern = r"(<!-- badges -->(\r?\n)).*?(<!-- /badges -->)"
    return re.sub(pattern, lambda found: found[1] + (line + found[2] if line else "") + found[3], text, flags=re.DOTALL)
