"""The page `summary.html` of a segmented folder: one file, which asks for nothing from elsewhere."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from course_utils.own_images import DSB2018_SIZES
from course_utils.results import replacing

HERE = Path(__file__).parent
MAX_THUMBNAILS = 48
MAX_BOXES = 30  # more images than that have one box for all of them
MAX_RATIO = 1.5  # of the typical diameter of a folder to the trained one: nuclei of half the size lose 0.12 of the F1
KINDS = {  # of the warnings, the most severe first: title, what to do
    "empty": ("No nuclei", "Is it the right channel? Is there anything in the image?"),
    "inverted": ("Inverted contrast", "Invert these images (in Fiji: Edit, Invert) and run the command again."),
    "views": ("Image and mirror image disagree", "The network is not sure here: look at the outlines. Common reasons "
              "are nuclei of another size (--diameter helps), noise and tissue."),
    "size": ("Nuclei of another size", "Run the command again with --diameter, for images that were taken alike."),
    "uneven": ("Uneven background", "Subtract it (in Fiji: Process, Subtract Background), run the command again."),
    "low contrast": ("Too little contrast", "What was found may be noise."),
    "saturated": ("Saturated", "Shapes may be right, but intensities are not: use a shorter exposure."),
    "cut": ("Objects larger than nuclei", "Is the contrast inverted, or --diameter too small?"),
    "channel": ("Several channels", "Choose the one with the nuclei: --channel."),
    "colour": ("Colour images", "If the nuclei are in one colour, choose it: --channel."),
}  # fmt: skip


def write_page(
    out: Path, folder: str, results: dict[str, dict], skipped: dict[str, str], settings: dict, diameter: float | None
) -> None:
    """Write `summary.html` from the results of the images, and from `measurements.csv` beside it."""
    table = pd.read_csv(out / "measurements.csv", keep_default_na=False)
    unit = "µm" if (table["length_unit"] == "micrometre").any() else "pixels"
    groups = {str(name): group for name, group in table.groupby("image", sort=False)}
    loader = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    page = loader.get_template("segment.html.j2").render(
        folder=printable(folder), n_images=len(results), n_nuclei=f"{len(table):,}", unit=unit, settings=settings,
        style=jinja2.utils.markupsafe.Markup((HERE / "run" / "page.css").read_text(encoding="utf-8")),
        skipped=[(printable(name), reason) for name, reason in skipped.items()],
        note=_note(list(results.values()), diameter), doubts=_doubts(list(results.values())),
        thumbnails=_thumbnails(results),
        plots=[_plot(table, groups, *what) for what in (
            ("Diameter", "diameter", unit), ("Area", "area", f"{unit}²"), ("Mean intensity", "mean_intensity", ""))],
        table=[_row(one, groups.get(one["image"])) for one in results.values()],
    )  # fmt: skip
    with replacing(out / "summary.html") as file:
        file.write(page.encode())


def _note(results: list[dict], diameter: float | None) -> str:
    """What to try with the whole folder, if its nuclei are typically far from the size that they should have."""
    found = [one["pixels"] for one in results if one["pixels"]]
    trained = diameter or DSB2018_SIZES.median
    typical = float(np.median(found)) if found else trained
    if 1 / MAX_RATIO <= typical / trained <= MAX_RATIO:
        return ""
    given = "the diameter that was given" if diameter else "that of the training images"
    return (
        f"Half of the images have nuclei of a median diameter {'below' if typical < trained else 'above'} "
        f"{typical:.1f} pixels; {given} is {trained:g}, where the network is best. Measure a few nuclei (in Fiji, the "
        f"line tool), run the command again with their diameter, such as --diameter {typical:.0f}, and another --out, "
        "and compare the outlines."
    )


def _doubts(results: list[dict]) -> list[dict]:
    """The warnings of all images by kind, the most severe first."""
    by_kind = defaultdict(list)
    for one in results:
        for warning in one["warnings"]:
            by_kind[warning["kind"]].append((one["image"], warning["text"]))
    return [
        {"title": title, "advice": advice, "images": by_kind[kind], "of": len(results)}
        for kind, (title, advice) in KINDS.items()
        if by_kind[kind]
    ]


def _thumbnails(results: dict[str, dict]) -> list[dict]:
    severe = [kind for kind in KINDS if kind not in ("channel", "colour")]
    order = sorted(results, key=lambda name: not any(w["kind"] in severe for w in results[name]["warnings"]))
    shown = []
    for name in order[:MAX_THUMBNAILS]:
        one = results[name]
        words = f"{one['nuclei']} nuclei{''.join(', ' + KINDS[w['kind']][0].lower() for w in one['warnings'])}"
        shown.append({
            "name": one["image"], "words": words, "alt": f"{one['image']} with orange outlines around {words}",
            "data": one["thumbnail"],
        })
    return shown


def _row(one: dict, group: pd.DataFrame | None) -> dict[str, str]:
    def median(column: str) -> str:
        return "" if group is None else _number(group[column].median())

    return {
        "image": one["image"], "size": " x ".join(map(str, one["shape"])), "nuclei": f"{one['nuclei']:,}",
        "diameter": median("diameter"), "area": median("area"), "intensity": median("mean_intensity"),
        "agreement": "" if one["agreement"] is None else f"{one['agreement']:.2f}",
        "warnings": ", ".join(KINDS[warning["kind"]][0] for warning in one["warnings"]),
    }  # fmt: skip


def _plot(table: pd.DataFrame, groups: dict[str, pd.DataFrame], title: str, column: str, unit: str) -> dict[str, str]:
    """A histogram of all nuclei, and below it on the same axis a box for each image, or one for their medians."""
    values = table[column].to_numpy(dtype=float)
    named = f"{title}, {unit}" if unit else title
    if not len(values):
        return {"title": named, "words": "There are no nuclei.", "svg": ""}
    boxes = {name: group[column].to_numpy(dtype=float) for name, group in groups.items()}
    more = "one for each image"
    if len(boxes) > MAX_BOXES:
        boxes = {f"medians of {len(boxes)} images": np.array([np.median(found) for found in boxes.values()])}
        more = "for the medians of the images"
    low, high = np.percentile(values, [0, 99.5])
    high = max(high, low + 1e-9, *(np.percentile(found, 95) for found in boxes.values()))
    width, left, top = 600, 190, 90

    def x(value: float) -> str:
        return f"{left + (min(max(value, low), high) - low) / (high - low) * (width - left - 30):.1f}"

    counts, edges = np.histogram(values, bins=30, range=(low, high))
    parts = [f'<line class="line" x1="{left}" y1="{top}" x2="{width - 30}" y2="{top}"/>']
    for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True):
        tall = count / counts.max() * (top - 12)
        if count:
            wide = float(x(stop)) - float(x(start)) - 1
            place = f'x="{x(start)}" y="{top - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="bar" {place}/>')
    for value in np.linspace(low, high, 5):
        parts.append(f'<text x="{x(value)}" y="{top + 16}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<text x="0" y="{top - 4}">{len(values):,} nuclei</text>')
    for number, (name, found) in enumerate(boxes.items()):
        y = top + 40 + 20 * number
        p = [x(value) for value in np.percentile(found, [5, 25, 50, 75, 95])]
        short = name if len(name) <= 26 else f"...{name[-23:]}"
        parts.append(
            f'<text x="0" y="{y + 4}">{escape(short)}</text>'
            f'<line class="line" x1="{p[0]}" y1="{y}" x2="{p[4]}" y2="{y}"/>'
            f'<rect class="box" x="{p[1]}" y="{y - 6}" width="{max(2.0, float(p[3]) - float(p[1])):.1f}" height="12"/>'
            f'<line class="mid" x1="{p[2]}" y1="{y - 6}" x2="{p[2]}" y2="{y + 6}"/>'
        )
    tall = top + 40 + 20 * len(boxes)
    low_quartile, middle, high_quartile = map(_number, np.percentile(values, [25, 50, 75]))
    words = (
        f"Half of all nuclei lie between {low_quartile} and {high_quartile}; the median is {middle}. "
        f"Above all of them, below boxes, {more}: the middle half with the median, and a line from 5 to 95 %."
    )
    svg = f'<svg viewBox="0 0 {width} {tall}" width="{width}" height="{tall}" role="img" aria-label="{escape(words)}">'
    return {"title": named, "words": words, "svg": f"{svg}{''.join(parts)}</svg>"}


def _number(value: float) -> str:
    """A number for people, never as 1e+03."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def printable(name: str | Path) -> str:
    """A file name as text that can be written anywhere."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(one if one.isprintable() else " " for one in text)
