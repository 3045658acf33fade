"""The links below the title of a notebook, and in the README, that open it on Kaggle, on Colab and on Binder.

The address of the course is written once, in pyproject.toml (`Repository`). Kaggle and Colab open the
stand-alone notebooks, which the workflow site.yml puts on the branch `stand-alone`; Binder installs environment.yml.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace

from workshop.build.source import Cell
from workshop.paths import checkout

PICTURES = "docs/badges"
BRANCH = "stand-alone"


def repository() -> str:
    """The address of the course, `https://github.com/OWNER/NAME`."""
    return tomllib.loads((checkout() / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


def badges(notebook: str, folder: str, address: str) -> str:
    """A line of Markdown with three pictures that link to a notebook.

    `folder` leads from the text to the folder of the course, as in "../"; `address` is what `repository` gives.
    """
    name = address.removeprefix("https://github.com/")
    file = f"{name}/blob/{BRANCH}/{notebook}/{notebook}.ipynb"
    links = {
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}",
        "Colab": f"https://colab.research.google.com/github/{file}",
        "Binder": f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/notebooks/{notebook}.ipynb",
    }
    return " ".join(
        f"[![Open this on {place}]({folder}{PICTURES}/{place.lower()}.svg)]({link})" for place, link in links.items()
    )


def with_badges(cells: list[Cell], notebook: str) -> list[Cell]:
    """The cells with the links below the title, if the first cell begins with one."""
    first, *rest = cells
    title, _, text = first.source.partition("\n")
    if first.kind != "markdown" or not title.startswith("# "):
        return cells
    line = badges(notebook, "../", repository())
    return [replace(first, source=f"{title}\n\n{line}\n{text}"), *rest]
