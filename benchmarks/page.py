"""Write docs/results.md, its picture and the two tables of the README from the files in benchmarks/results.

    python -m benchmarks.page
    python -m benchmarks.page --notebooks build/dsb2018-laptop/summary.json    # take over the scores of a run first

The tables say what is in the files; a test compares page and README with what this module gives.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.loading import MINUTES
from benchmarks.measuring import RESULTS, as_text
from benchmarks.quality import FIRST
from benchmarks.running import NAMES
from course_utils.metrics import IOU_THRESHOLDS
from workshop.paths import data_label

ROOT = RESULTS.parents[1]
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
CURVE = ROOT / "docs" / "training_curve.png"
SCORES = ("F1 at IoU 0.5", "0.75", "0.9")
RATIO = "times as long as the course's"  # a column of evaluation.json
TITLE = """# Results

What the course reaches, and how fast it is. Every table comes from a file in `benchmarks/results/`; the command below
it repeats it. Ratios were measured in one run, the ways in turn, and are medians.

The 50 test images of DSB2018 take part in no choice: networks, thresholds and filters were chosen on the validation
images (every eighth training image). 95 % intervals of a mean over 50 images are about ±0.03: smaller differences are
no findings. So often were they scored: once for the network trained on synthetic images; twice for a network of 12
epochs; for networks of 35 and of 75 epochs, with one view and with eight, once by `benchmarks.quality` and once by the
notebooks; for the latter once more when the components, too, got a threshold chosen on validation images, and once more
when the weight of the boundary class was taken out of the probabilities; and for the network that was trained a second
time once by `benchmarks.quality` and twice by notebook 05. That the first network had missed a goal was known when the
second training was planned; how it was done, and which network ships, was decided on validation images.
"""

LIMITS = """Without AMX, as on the processor of these results, the goal for the training step is to be no slower than
the plain way.

What was tried for the scores, on the validation images (mean F1 at IoU 0.5 / 0.75 / 0.9, one view, each
with its own threshold):

* **Length of the training** counts most: 4,800 crops 0.825 / 0.702 / 0.398, 9,600 crops 0.854 / 0.742 / 0.452, 28,000
  crops 0.887 / 0.760 / 0.465, 60,000 crops 0.901 / 0.776 / 0.500, all before the next step.
* **The weight of the boundary class taken out of the probabilities** after the training costs nothing and makes the
  outlines better: 0.906 / 0.767 / 0.482 becomes 0.911 / 0.809 / 0.538 for the network that was trained twice.
* **A second training** with half the learning rate and without jitter: 0.900 / 0.801 / 0.538 becomes 0.911 / 0.809 /
  0.538; the loss on validation images falls from 0.106 to 0.104, on training images to 0.093. Longer still will give
  less.
* **Loss, sampling and augmentation** count little at 4,800 crops (table below): most differences are within what two
  runs of one recipe differ. With so few crops, flips and averaged weights do not pay yet: the network is far from
  knowing its training images by heart. What clearly counts is batch normalisation, and an inner boundary for outlines.
* **Threshold of the seeds**: from 0.864 to 0.887 for one network, at no cost; of the components: from 0.803 to 0.866.
* **Eight views**: 0.005 more on validation images.
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
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['device']}"
    python, torch = (result["versions"][name] for name in ("python", "torch"))
    return f"*{result['date'][:10]}; {where}; Python {python}, torch {torch}.*"


def quality_rows(result: dict) -> list[dict]:
    """Scores of one trained network: validation images, and test images where they were scored."""
    rows = []
    for views in ("one view", "eight views"):
        for name, found in result[views].items():
            best = found["validation"]["best"]
            what = f"{name}, {views}, threshold {best['threshold']}"
            rows.append({"images": "validation", "": what} | in_columns(best["f1"]))
            if test := found.get("test"):
                values = [test[f"{iou:g}"]["mean F1"] for iou in IOU_THRESHOLDS]
                rows.append({"images": "test", "": f"{name}, {views}, the same threshold"} | in_columns(values))
    return rows


def in_columns(values: list[float]) -> dict:
    """Scores at the three thresholds under their headings."""
    return dict(zip(SCORES, (f"{value:.3f}" for value in values), strict=True))


def quality_section(name: str, title: str) -> str:
    result = read(name)
    if result is None:
        return ""
    profile, epochs = result["profile"], len(result["curve"])
    crops = epochs * profile["crops_per_epoch"]
    minutes = sum(epoch["seconds"] for epoch in result["curve"]) / 60
    trainings = f"{first} and {epochs - first} epochs" if (first := result.get(FIRST)) else f"{epochs} epochs"
    about = (
        f"Network of {profile['base_channels']} channels, {trainings}, {crops:,} crops of "
        f"{profile['crop_size']} px, {minutes:.0f} minutes of training on one thread, slowed and interrupted by other "
        "work. Mean F1 over the images; instances below 20 px are left out, as in notebook 05."
    )
    errors = result["one view"]["watershed"]["validation"]["errors"]
    counts = ", ".join(f"{number:,} {kind}" for kind, number in errors.items())
    limits = f"What is wrong on the validation images, watershed, one view, at IoU 0.5: {counts}"
    parts = [f"## {title}", about, table(quality_rows(result)), f"{limits}.", f"    {result['command']}"]
    parts.append(source_line(result))
    return "\n\n".join(parts) + "\n"


def ablation_section() -> str:
    result = read("ablation")
    if result is None:
        return ""
    rows = [
        {"change": name, "threshold": row["threshold"]} | in_columns(row["f1"])
        for name, row in result["rows"].items()
    ]
    settings = result["settings"]
    processors = sorted({row["processor"] for row in result["rows"].values()})
    about = (
        f"One change at a time, each with {settings['crops']:,} training crops and the seed {settings['seed']}, "
        "scored on the validation images, with the weight of the boundary class still in the probabilities. One run "
        "each: differences below 0.03 are noise; the two runs of the recipe itself, on two processors, show how much. "
        f"Processors: {' and '.join(processors)}, both with bfloat16."
    )
    command = "    python -m benchmarks.ablation --real path/to/dsb2018.zip"
    parts = ["## What each part of the recipe is worth", about, table(rows), command, source_line(result)]
    return "\n\n".join(parts) + "\n"


ABOUT = ("title", "command", "data", "quick", "date", "commit")  # printed elsewhere, or not at all


def speed_section(name: str) -> str:
    """The tables of one benchmark.

    Raises:
        ValueError: the ways that were compared did not give the same.
    """
    result = read(name)
    if result is None:
        return ""
    facts = {key: value for key, value in result.items() if key not in ABOUT and not isinstance(value, (list, dict))}
    if wrong := [key for key, value in facts.items() if value is False]:
        raise ValueError(f"benchmarks/results/{name}.json: {', '.join(wrong)} is false: not a result to be published.")
    notes = [f"{key}: {as_text(value)}" for key, value in facts.items()]
    parts = [f"## {result['title']}", table(result["rows"])]
    if "growth" in result:
        parts += ["How the cost grows:", table(result["growth"])]
    parts += [*notes, f"    {result['command']}", source_line(result)]
    return "\n\n".join(parts) + "\n"


def value_of(name: str, *keys):
    """A value of a result file; None if it was not measured."""
    found = read(name)
    for key in keys:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def times_as_long() -> dict[str, float]:
    """How many times as long as the course's scoring the other ways take; empty if it was not measured."""
    return {row["way"]: row[RATIO] for row in value_of("evaluation", "rows") or []}


def goals() -> list[dict]:
    """What the course set out to reach, and what was measured."""
    one, eight = ("quality", "one view"), ("quality_shipped", "eight views", "watershed", "test")
    step, memory = "training_step", value_of("large_images", "rows", -1, "peak of the process, MB")
    with_amx = value_of(step, "machine", "amx")
    rows = [
        ("`laptop`, F1 at IoU 0.5, components", ">=", 0.83, value_of(*one, "components", "test", "0.5", "mean F1")),
        ("`laptop`, F1 at IoU 0.5, watershed", ">=", 0.91, value_of(*one, "watershed", "test", "0.5", "mean F1")),
        ("`laptop`, minutes of training on 2 cores", "<=", 60.0, value_of("loading", MINUTES)),
        ("pretrained network, eight views, F1 at IoU 0.5", ">=", 0.93, value_of(*eight, "0.5", "mean F1")),
        ("the same, IoU 0.75", ">=", 0.79, value_of(*eight, "0.75", "mean F1")),
        ("the same, IoU 0.9", ">=", 0.45, value_of(*eight, "0.9", "mean F1")),
        ("training step, fast precision / plain (with AMX)", ">=", 3.0,
         value_of(step, "rows", 0, "course / plain") if with_amx else None),  # fmt: skip
        ("training step, float32 / plain", ">=", 1.0, value_of(step, "rows", -1, "course / plain")),
        ("training step / limit", ">=", 0.95, value_of(step, "rows", 0, "course / limit")),
        ("scoring, times as fast as the plain functions", ">=", 5.0, times_as_long().get("plain")),
        ("scoring, times as fast as StarDist", ">=", 5.0, times_as_long().get("stardist")),
        ("overhead of an epoch, %", "<=", 5.0, value_of("loading", "overhead of an epoch, %")),
        ("memory for 8192 x 8192, MB", "<=", 4295.0, memory),
        ("all notebooks, profile smoke, seconds", "<=", 300.0, value_of("course", "rows", -1, "seconds")),
    ]
    found = []
    for what, sign, bar, value in rows:
        met = value is not None and (value >= bar if sign == ">=" else value <= bar)
        measured = "not measured" if value is None else f"{value:.3f}" if value < 1 else as_text(float(value))
        word = {">=": "at least", "<=": "at most"}[sign]
        found.append({"": what, "bar": f"{word} {bar:g}", "measured": measured, "met": met})
    return found


NOTEBOOK_ROWS = {
    "Otsu, components": ("05_boundary_watershed", "Otsu, components"),
    "Otsu, watershed (classical baseline)": ("05_boundary_watershed", "Otsu, watershed"),
    "boundary U-Net, components": ("05_boundary_watershed", "boundary U-Net, components"),
    "boundary U-Net, watershed": ("05_boundary_watershed", "boundary U-Net, watershed"),
    "*ceiling: components of the true foreground*": ("05_boundary_watershed", "ceiling, components"),
    "*ceiling: boundary + watershed of the true target*": ("05_boundary_watershed", "ceiling, watershed"),
}


def notebook_table() -> str:
    """The first table of the README: what the notebooks printed for the real test images."""
    summary = read("notebooks")
    if summary is None:
        return ""
    scores = {one["notebook"]: one["scores"] for one in summary["notebooks"]}
    rows = [
        {"": label} | {name: f"{value:.3f}" for name, value in scores[notebook][method].items()}
        for label, (notebook, method) in NOTEBOOK_ROWS.items()
    ]
    return table(rows) + f"\n\n    {summary['command']}\n\n" + source_line(summary) + "\n"


def speed_table() -> str:
    """The second table of the README: the speed, one row for each question."""
    rows = {}
    if step := value_of("training_step", "rows", 0):
        precision = step["precision of the course"]
        rows[f"training step of the 31-million-parameter U-Net, {precision}, against the plain loop"] = (
            f"{step['course / plain']:.1f} times as fast (plain: batches of 1, float32, everything anew for each crop)"
        )
        rows["the same, against the bare network on one batch"] = f"{100 * step['course / limit']:.0f} % of its speed"
    if (overhead := value_of("loading", "overhead of an epoch, %")) is not None:
        rows["loading, targets, metrics, averaging of weights"] = (
            f"{overhead:.1f} % of an epoch's computing" if overhead > 0 else "too little to be measured"
        )
        rows["training of notebook 05 in the profile `laptop`"] = f"{value_of('loading', MINUTES):.0f} minutes"
    if times := times_as_long():
        rows["scoring 50 images at ten IoU thresholds"] = (
            f"{times['stardist']:.0f} times as fast as StarDist's matching and {times['plain']:.0f} times as fast as "
            "the plain functions, with the same counts"
        )
    if large := value_of("large_images", "rows", -1):
        rows[f"prediction of {large['image']} pixels, in tiles"] = f"{large['peak of the process, MB'] / 1000:.1f} GB"
    if seconds := value_of("course", "rows", -1, "seconds"):
        rows["all notebooks in the profile `smoke`"] = f"{seconds / 60:.1f} minutes"
    return table([{"what": what, "measured": measured} for what, measured in rows.items()]) + "\n" if rows else ""


def with_tables(readme: str) -> str:
    """The README with the tables as they are now, between the comments that name them."""
    for name, content in (("scores", notebook_table()), ("speed", speed_table())):
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, middle, after = readme.partition(start)
        after = after.partition(end)[2]
        if not middle or not after:
            raise ValueError(f"README.md has no place for the table: a line {start.strip()} and a line {end}")
        readme = before + start + content + end + after
    return readme


def take_over(path: Path) -> None:
    """Keep the scores of a run of the notebooks as a result file, without the places of this machine."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["data"] = data_label(summary["data"]["source"])
    summary["command"] = f"python3 course.py run --data {summary['data']} --profile {summary['profile']}"
    (RESULTS / "notebooks.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def make_page() -> str:
    """The whole page."""
    sections = [
        TITLE,
        "## What was to be reached\n\n" + table(goals()) + "\n\n" + LIMITS,
        quality_section("quality", "The profile laptop on DSB2018"),
        quality_section("quality_shipped", "The network that comes with the course for DSB2018"),
        "![Loss and hard Dice after each epoch](training_curve.png)\n" if CURVE.exists() else "",
        quality_section("quality_embedded", "The network for the embedded images"),
        ablation_section(),
        *(speed_section(name) for name in NAMES),
    ]
    return "\n".join(section for section in sections if section)


def draw_curve() -> None:
    """The curves of the training as a picture."""
    from course_utils.plotting import plot_training, use_course_style
    from course_utils.training import EpochResult

    if result := read("quality_shipped"):
        use_course_style()
        figure = plot_training([EpochResult(**epoch) for epoch in result["curve"]], "hard Dice")
        figure.savefig(CURVE, dpi=100, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--notebooks", type=Path, metavar="SUMMARY", help="summary.json of a run on the real images")
    options = parser.parse_args()
    if options.notebooks:
        take_over(options.notebooks)
    draw_curve()
    PAGE.write_text(make_page(), encoding="utf-8")
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"Written to {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}.")


if __name__ == "__main__":
    main()
