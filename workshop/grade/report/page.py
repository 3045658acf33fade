"""Web pages of grading: one file each, without JavaScript, for screens of any size, light and dark."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from course_utils.exercises.feedback import LOOKS
from course_utils.results import replacing

BROKEN = ("!", "could not be graded", "#CC79A7")  # the next of Okabe and Ito's colours
MAX_TEXT = 20_000  # characters of an answer
MAX_PIXELS = 4_000_000
PANEL = 160  # pixels: the longer side of each part of a picture
BLUE, WHITE, ORANGE = np.array([[0, 114, 178], [255, 255, 255], [213, 94, 0]])

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
img {{ max-width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line); }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; overflow-wrap: normal; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
a {{ color: inherit; }} a:focus-visible {{ outline: 3px solid #0072B2; }}
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


def picture(found: Any, expected: Any) -> str:
    """Two arrays of the same shape and their difference, side by side, as a PNG in base64; "" if they cannot be drawn.

    Of more than two axes the plane is drawn in which they differ most. Grey is scaled to the range of `expected`, not
    finite is orange. The difference is orange where `found` is larger, blue where it is smaller.
    """
    try:
        pair = [np.asarray(array) for array in (found, expected)]
        ok = pair[0].ndim > 1 and 0 < pair[0].size <= MAX_PIXELS and {*"biuf"} >= {array.dtype.kind for array in pair}
        if pair[0].shape != pair[1].shape or not ok:
            return ""
        pair = [array.astype(np.float64) for array in pair]
        pair = [array.reshape(-1, *array.shape[-2:]) for array in pair]
        with np.errstate(all="ignore"):
            difference = pair[0] - pair[1]
            most = int(np.argmax(np.sum(~(np.abs(difference) < 1e-6), axis=(1, 2))))
            pair, difference = [array[most] for array in pair], difference[most]
            panels = [*(_grey(array, pair[1]) for array in pair), _signed(difference)]
    except (TypeError, ValueError, OverflowError):  # what a student's array holds may not be numbers
        return ""
    height, width = difference.shape
    step, zoom = -(-max(height, width) // PANEL), max(1, PANEL // max(height, width))
    panels = [panel[::step, ::step].repeat(zoom, axis=0).repeat(zoom, axis=1) for panel in panels]
    gap = np.full((len(panels[0]), 8, 3), 128, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.hstack([panels[0], gap, panels[1], gap, panels[2]])).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _grey(array: np.ndarray, expected: np.ndarray) -> np.ndarray:
    finite = expected[np.isfinite(expected)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if low == high:
        low, high = low - 1, high + 1
    share = ((array.clip(low, high) - low) / (high - low))[..., None]
    return np.where(np.isfinite(array)[..., None], 255 * np.nan_to_num(share), ORANGE).astype(np.uint8)


def _signed(difference: np.ndarray) -> np.ndarray:
    finite = np.abs(difference[np.isfinite(difference)])
    share = np.nan_to_num(difference / (finite.max(initial=0) or 1), nan=1, posinf=1, neginf=-1)[..., None].clip(-1, 1)
    return (WHITE + np.abs(share) * (np.where(share > 0, ORANGE, BLUE) - WHITE)).astype(np.uint8)
