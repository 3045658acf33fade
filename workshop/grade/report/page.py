"""Web pages of grading: one file each, without JavaScript, for screens of any size, light and dark."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from pathlib import Path
from typing import Any

from course_utils.exercises.feedback import LOOKS
from course_utils.exercises.pictures import as_html
from course_utils.results import replacing

BROKEN = ("!", "could not be graded", "#CC79A7")  # the next of Okabe and Ito's colours
MAX_TEXT = 20_000  # characters of an answer

# Nothing is loaded from elsewhere, and nothing that a student wrote could do it.
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --back: #fff; --text: #1b1b1b; --soft: #f1f3f5; --line: #8a9199; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #16181b; --text: #e8e8e8; --soft: #25282c; --line: #7d858d; }} }}
body {{ margin: 0; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }}
main {{ max-width: 72rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6rem; line-height: 1.2; }} h2 {{ font-size: 1.25rem; margin-top: 2rem; }}
h3 {{ font-size: 1rem; margin: 0; }}
section.box {{ border-left: 6px solid var(--mark, var(--line)); background: var(--soft); padding: .5rem .8rem;
  margin: .6rem 0; }}
.text {{ white-space: pre-wrap; }} figure {{ margin: .6rem 0; }} figcaption, .small {{ font-size: .875rem; }}
img {{ max-width: 100%; height: auto; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; overflow-wrap: normal; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
a {{ color: inherit; }} :focus-visible {{ outline: 3px solid #0072B2; }}
.columns {{ display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }}
@media (min-width: 60rem) {{ .columns {{ grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }} }}
{style}</style></head><body><main>
"""


def write_page(path: Path, title: str, body: str, style: str = "") -> None:
    """Write a page in one step. `title` is text, `body` HTML. Raises `OSError` if that is not possible."""
    content = f"{_HEAD.format(title=text(title), style=style)}<h1>{text(title)}</h1>\n{body}\n</main></body></html>\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content.encode(errors="backslashreplace"))


def text(value: Any) -> str:
    """A text as HTML: what is not printable, also what turns the direction of writing, is a blank.

    >>> text("a <b>")
    'a &lt;b&gt;'
    """
    shown = str(value)[:MAX_TEXT] + ("..." if len(str(value)) > MAX_TEXT else "")
    return html.escape("".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in shown))


def look_of(status: str) -> tuple[str, str, str]:
    """Symbol, word and colour of a status: those that the checks show in a notebook."""
    return LOOKS.get(status, BROKEN)


def safe_file_name(student: str) -> str:
    """A name for a student's file: no system refuses it, and no two students share it.

    >>> safe_file_name("Zoë / 1")
    'Zoe_1-27f1caef.html'
    """
    plain = unicodedata.normalize("NFKD", student).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:60] or "student"
    return f"{plain}-{hashlib.sha256(student.encode(errors='surrogatepass')).hexdigest()[:8]}.html"


def picture(what: Any) -> str:
    """A picture of `course_utils.exercises.pictures`, which may come from the box, as HTML; "" if it is none."""
    return "".join(letter if letter.isprintable() else " " for letter in as_html(what))
