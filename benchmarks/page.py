"""Write docs/results.md and its picture from the files in benchmarks/results.

    python -m benchmarks.page

The page says what is in the files and nothing else; a test compares it with what this module gives.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.measuring import RESULTS, as_text

ROOT = RESULTS.parents[1]
PAGE = ROOT / "docs" / "results.md"
CURVE = ROOT / "docs" / "training_curve.png"
SCORES = ("F1 at IoU 0.5", "0.75", "0.9")
TITLE = """# Results

What the course reaches, and how fast it is. Every table comes from a file in `benchmarks/results/`; the command below
it repeats it. Ratios were measured in one run, the ways in turn, and are medians.

The 50 test images of DSB2018 take part in no choice: networks, thresholds and filters were chosen on the validation
images (every eighth training image). 95 % intervals of a mean over 50 images are about ±0.03: smaller differences are
no findings. The test images were scored once for the network trained on synthetic images, twice for an earlier state of
the recipe (12 epochs), once for each row named "test" below, and in notebook 05 for the table in the README.
"""


def read(name: str) -> dict | None:
    """A result file, or None if it was not measured yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(rows: list[dict]) -> str:
    """Rows as a table in Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(as_text(row.get(name, "")) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def source_line(result: dict) -> str:
    """Where and when something was measured."""
    machine = result["machine"]
    threads = f"{machine['threads']} thread" + ("s" if machine["threads"] != 1 else "")
    where = f"{machine['processor']}, {machine['cores']} cores, {threads}, {machine['device']}"
    return f"*{result['date']}; {where}; Python {result['versions']['python']}, torch {result['versions']['torch']}.*"


def quality_rows(result: dict) -> list[dict]:
    """Scores of one trained network: validation images, and test images where they were scored."""
    names = {"plain": "prediction as in the notebooks", "flips": "averaged over 8 flips and turns"}
    rows = []
    for key, label in names.items():
        best = result[key]["validation"]["best"]
        filtered = f", instances below {best['min_area']} px left out" if best["min_area"] else ""
        scores = dict(zip(SCORES, (f"{value:.3f}" for value in best["f1"]), strict=True))
        rows.append({"images": "validation", "": f"{label}, threshold {best['threshold']}{filtered}", **scores})
        if test := result[key].get("test"):
            values = [f"{test[iou]['mean F1']:.3f}" for iou in ("0.5", "0.75", "0.9")]
            scores = dict(zip(SCORES, values, strict=True))
            rows.append({"images": "test", "": f"{label}, the same threshold", **scores})
    return rows


def quality_section(name: str, title: str, command: str) -> str:
    result = read(name)
    if result is None:
        return ""
    profile = result["profile"]
    crops = profile["boundary_epochs"] * profile["crops_per_epoch"]
    minutes = sum(epoch["seconds"] for epoch in result["curve"]) / 60
    about = (
        f"Network of {profile['base_channels']} channels, {profile['boundary_epochs']} epochs, {crops:,} crops of "
        f"{profile['crop_size']} px, {minutes:.0f} minutes of training beside other work. Mean F1 over the images."
    )
    parts = [f"## {title}", about, table(quality_rows(result)), f"    {command}", source_line(result)]
    return "\n\n".join(parts) + "\n"


def ablation_section() -> str:
    result = read("ablation")
    if result is None:
        return ""
    rows = [
        {"change": name, "threshold": row["threshold"], **dict(zip(SCORES, row["f1"], strict=True))}
        for name, row in result["rows"].items()
    ]
    settings = result["settings"]
    about = (
        f"One change at a time, each with {settings['crops']:,} training crops and the seed {settings['seed']}, "
        "scored on the validation images. One run each: differences below 0.03 are noise."
    )
    command = "    python -m benchmarks.ablation --real path/to/dsb2018.zip"
    return "\n\n".join(["## What each part of the recipe is worth", about, table(rows), command]) + "\n"


def speed_section(name: str) -> str:
    result = read(name)
    if result is None:
        return ""
    notes = [f"{key}: {as_text(value)}" for key, value in result.items() if isinstance(value, float) or value is True]
    parts = [f"## {result['title']}", table(result["rows"])]
    if "growth" in result:
        parts += ["How the cost grows:", table(result["growth"])]
    parts += [*notes, f"    {result['command']}", source_line(result)]
    return "\n\n".join(parts) + "\n"


def make_page() -> str:
    """The whole page."""
    quality = "python -m benchmarks.quality --data path/to/dsb2018.zip --epochs {} --test"
    real = read("quality")
    sections = [
        TITLE,
        quality_section(
            "quality", "Boundary U-Net and watershed on DSB2018",
            quality.format(real["profile"]["boundary_epochs"] if real else 0),
        ),
        "![Loss and hard Dice after each epoch](training_curve.png)\n" if real and CURVE.exists() else "",
        quality_section(
            "quality_embedded", "The network for the embedded images",
            "python -m benchmarks.quality --data embedded --epochs 16 --base-channels 8 --test",
        ),
        ablation_section(),
        *(speed_section(name) for name in ("training_step", "loading", "evaluation", "large_images", "alternatives")),
    ]  # fmt: skip
    return "\n".join(section for section in sections if section)


def draw_curve() -> None:
    """The curves of the training as a picture."""
    from course_utils.plotting import plot_training, use_course_style
    from course_utils.training import EpochResult

    if result := read("quality"):
        use_course_style()
        figure = plot_training([EpochResult(**epoch) for epoch in result["curve"]], "hard Dice")
        figure.savefig(CURVE, dpi=100, metadata={"Software": None})


def main() -> None:
    draw_curve()
    PAGE.write_text(make_page(), encoding="utf-8")
    print(f"Written to {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}.")


if __name__ == "__main__":
    main()
