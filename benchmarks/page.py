"""Fill in the tables of docs/results.md, and the minutes in README.md, from benchmarks/results, and draw the curve.

    python -m benchmarks.page
    python -m benchmarks.page --notebooks build/dsb2018-laptop/summary.json    # first take over the scores of a run

A table stands between `<!-- table NAME -->` and `<!-- /table -->`; the text around it is written by hand. A test
compares the page, and the figures of the README, with the result files.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.loading import MINUTES
from benchmarks.measuring import PRETRAINED_FILE, RESULTS, as_text
from benchmarks.peers import SOURCES, peers_figure, peers_rows, save
from benchmarks.quality import FIRST
from benchmarks.running import NAMES
from course_utils.checkpoints import PRETRAINED, checkpoint_folder
from course_utils.exercises import list_exercises
from course_utils.metrics import IOU_THRESHOLDS
from course_utils.plotting import plot_training, use_course_style
from course_utils.profiles import get_profile
from course_utils.results import SCORE_NAMES, paired_bootstrap, score_table
from course_utils.training import EpochResult
from workshop.paths import data_label

ROOT = RESULTS.parents[1]
PAGE = ROOT / "docs" / "results.md"
CURVE = ROOT / "docs" / "training_curve.png"
PEERS_PICTURE = ROOT / "docs" / "peers.png"
PARAMETERS = 1_943_795  # of the pretrained network; a test counts them
PLACE = re.compile(r"(?<=<!-- table )(\w+)( -->\n).*?(?=<!-- /table -->)", re.DOTALL)
EPOCHS = get_profile("laptop").boundary_epochs
TRAINED = {
    "quality": "profile `laptop`, DSB2018",
    "quality_pretrained": "pretrained, DSB2018",
    "quality_embedded": "pretrained, embedded images",
}
NOT_FACTS = ("title", "command", "data", "quick", "date", "commit", "machine", "versions")


def read(name: str) -> dict:
    """A result file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(rows: list[dict]) -> str:
    """Rows as a table in Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(as_text(row.get(name, "")) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def origin(result: dict) -> str:
    """The command that repeats a result, and where and when it was measured."""
    machine, versions = result["machine"], result["versions"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['device']}".replace(" 1 threads", " 1 thread")
    software = f"Python {versions['python']}, torch {versions['torch']}"
    return f"    {result['command']}\n\n*{result['date'][:10]}; {where}; {software}.*"


def in_columns(
    values: Iterable[float], names: Sequence[str] = ("F1 at IoU 0.5", "0.75", "0.9"), digits: str = ".3f"
) -> dict[str, str]:
    """Scores under their headings, by default F1 at the three IoU thresholds."""
    return {name: f"{value:{digits}}" for name, value in zip(names, values, strict=True)}


def quality(name: str) -> str:
    """Scores of one trained network: validation images, and test images where they were scored."""
    result, rows = read(name), []
    for views in ("one view", "eight views"):
        for method, found in result[views].items():
            best, what = found["validation"]["best"], f"{method}, {views}"
            row = {"images": "validation", "": f"{what}, threshold {best['threshold']}"}
            rows.append(row | in_columns(best["f1"]) | interval(best, "F1 at 0.5"))
            if test := found.get("test"):
                row = {"images": "test", "": f"{what}, the same threshold"} | in_columns(test["mean_f1"].values())
                rows.append(row | interval(test, "F1 at 0.5") | published(test))
    return f"{table(rows)}\n\n{origin(result)}"


def interval(found: dict, score: str) -> dict[str, str]:
    """The 95 % interval of a score, over the images; empty for results that were measured before there was one."""
    low, high = found.get("interval", {}).get(score, (None, None))
    return {f"95 % interval, {score}": "" if low is None else f"{low:.3f} to {high:.3f}"}


def published(test: dict) -> dict[str, str]:
    """The scores that papers report; none of a network that was scored before they were measured."""
    if "mean_ap" not in test:
        return {}
    names = ("AP at IoU 0.5", "AP at 0.75", "AP at 0.9", "mSA", "PQ")
    values = [*test["mean_ap"].values(), *test["msa"].values(), test["panoptic_quality"]["PQ"]]
    return in_columns(values, names) | interval(test, "AP at 0.5") | interval(test, "mSA")


def peers() -> str:
    """The course beside what others published."""
    result = read("quality_pretrained")
    sources = "\n".join(f"* {source}" for source in SOURCES)
    return f"{table(peers_rows(result, PARAMETERS))}\n\n{sources}\n\n{origin(result)}"


def robustness() -> str:
    """The pretrained network on altered images, and beside it the network before that."""
    found, rows = read("robustness"), []
    earlier = read("robustness_before") if (RESULTS / "robustness_before.json").exists() else {"rows": []}
    before = {row["images"]: row for row in earlier["rows"]}
    for row in found["rows"]:
        lost = f"{row['lost by the mean']:.3f} ({row['95 % interval']})" if row["95 % interval"] else ""
        scores = {score: f"{row[score]:.3f}" for score in ("mean F1", "median", "pooled")}
        rows.append({"images": row["images"], **scores, "lost by the mean (95 % interval)": lost})
        if old := before.get(row["images"]):
            rows[-1] |= {"mean F1 before": f"{old['mean F1']:.3f}", "lost before": f"{old['lost by the mean']:.3f}"}
            pair = (one["F1"][row["images"]] for one in (found, earlier))
            gain, low, high = paired_bootstrap(*pair, np.random.default_rng(0))
            rows[-1]["mean F1, now minus before"] = f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"{table(rows)}\n\n{origin(found)}"


def certainty() -> str:
    """The pretrained network on the validation images, for each threshold of `remove_uncertain`."""
    rows = read("quality_pretrained")["one view"]["watershed"].get("certainty")
    if rows is None:
        return "*Not measured yet.*"
    kept = "instances kept from"
    return table([{name: f"{value:{'g' if name == kept else '.3f'}}" for name, value in row.items()} for row in rows])


def networks() -> str:
    """The trained networks: their size, and how long they were trained."""
    rows = []
    for name, label in TRAINED.items():
        result = read(name)
        profile, epochs, first = result["profile"], len(result["curve"]), result.get(FIRST)
        rows.append({
            "network": label,
            "channels": profile["base_channels"],
            "epochs": f"{first} and {epochs - first}" if first else epochs,
            f"crops of {profile['crop_size']} px": epochs * profile["crops_per_epoch"],
            "minutes of training": round(sum(epoch["seconds"] for epoch in result["curve"]) / 60),
        })
    return table(rows)


def errors() -> str:
    """What is wrong on the validation images: watershed, one view, IoU 0.5."""
    found = {label: read(name)["one view"]["watershed"]["validation"]["errors"] for name, label in TRAINED.items()}
    return table([{"network": label} | counts for label, counts in found.items()])


def ablation() -> str:
    """One row for each change of the recipe: the mean over the seeds, and the difference from the recipe in pairs."""
    result, rows = read("ablation"), []
    means = {
        name: {score: np.mean([seed[score] for seed in seeds.values()], axis=0) for score in next(iter(seeds.values()))}
        for name, seeds in result["rows"].items()
    }
    for name, found in means.items():
        row = {"change": name, "seeds": len(result["rows"][name])}
        row |= {score: f"{values.mean():.3f}" for score, values in found.items()}
        for score in ("F1 at 0.5", "mSA") if name != "recipe" else ():
            mean, low, high = paired_bootstrap(found[score], means["recipe"][score], np.random.default_rng(0))
            sign = "" if low <= 0 <= high else "**"
            row[f"{score} minus the recipe's, 95 % interval"] = f"{sign}{mean:+.3f}{sign} ({low:+.3f} to {high:+.3f})"
        rows.append(row)
    return f"{table(rows)}\n\n{origin(result)}"


def losses() -> str:
    """One row for each loss: means over the images and seeds, and differences from plain cross entropy in pairs."""
    result, rows = read("losses"), []
    scores = {
        name: {t: np.mean([seed["f1"][str(t)] for seed in seeds.values()], axis=0) for t in IOU_THRESHOLDS}
        for name, seeds in result["rows"].items()
    }
    for name, seeds in result["rows"].items():
        thresholds = sorted({threshold for seed in seeds.values() for threshold in seed["thresholds"]})
        row = {"loss": name, "threshold": " to ".join(map(str, dict.fromkeys((thresholds[0], thresholds[-1]))))}
        row |= in_columns(values.mean() for values in scores[name].values())
        for t in (0.5, 0.9) if name != "cross entropy" else ():
            mean, low, high = paired_bootstrap(scores[name][t], scores["cross entropy"][t], np.random.default_rng(0))
            sign = "" if low <= 0 <= high else "**"
            row[f"difference at {t:g}, 95 % interval"] = f"{sign}{mean:+.3f}{sign} ({low:+.3f} to {high:+.3f})"
        rows.append(row | in_columns(
            (np.mean([seed[measure] for seed in seeds.values()]) for measure in ("boundary_recall", "boundary_dice")),
            ("boundary recall", "boundary Dice"),
        ))  # fmt: skip
    return f"{table(rows)}\n\n{origin(result)}"


def measured(name: str) -> str:
    """The tables of one benchmark.

    Raises:
        ValueError: the ways that were compared did not give the same.
    """
    result = read(name)
    tables = [table(value) for value in result.values() if isinstance(value, list)]
    facts = {key: value for key, value in result.items() if key not in NOT_FACTS and not isinstance(value, list)}
    if wrong := [key for key, value in facts.items() if value is False]:
        raise ValueError(f"benchmarks/results/{name}.json: {', '.join(wrong)} is false; it cannot be published.")
    return "\n\n".join([*tables, *([table([facts])] if facts else []), origin(result)])


def scores() -> str:
    """What notebook 05 recorded for the real test images: a row for each score, a column for each method."""
    summary = read("notebooks")
    found = next(one["scores"] for one in summary["notebooks"] if one["notebook"] == "05_boundary_watershed")
    labels = {
        "Otsu, watershed": "Otsu, watershed (classical baseline)",
        "exact binary target, components": "*exact binary target, components*",
        "exact boundary target, watershed": "*exact boundary target, watershed*",
    }
    methods = {labels.get(name, name): row for name, row in found.items() if isinstance(row, dict)}  # no thresholds
    rows = []
    for (measure, at), row in score_table(methods, SCORE_NAMES).T.iterrows():
        name = f"{measure} at {at}" if at.startswith("IoU") else f"{measure}, {at}"
        rows.append({"": name} | {method: f"{score:.3f}" for method, score in row.items()})
    return f"{table(rows)}\n\n{origin(summary)}"


def speed() -> str:
    """Speed and memory, one row for each question."""
    step, loading, large = read("training_step")["rows"][0], read("loading"), read("large_images")["rows"][-1]
    times = {row["way"]: row["times as long as the course's"] for row in read("evaluation")["rows"]}
    overhead, seconds = loading["overhead of an epoch, %"], read("course")["rows"][-1]["seconds"]
    rows = {
        f"training step of the 31-million-parameter U-Net, {step['precision of the course']}, against the plain loop": (
            f"{step['course / plain']:.1f} times as fast (plain: batches of 1, float32, everything anew for each crop)"
        ),
        "the same, against the bare network on one batch": f"{100 * step['course / limit']:.0f} % of its speed",
        "loading, targets, metrics, averaging of weights": f"{overhead:.1f} % of an epoch's computing",
        f"training of notebook 05 in `laptop` ({EPOCHS} times a measured epoch)": f"{loading[MINUTES]:.0f} minutes",
        "scoring 50 images at ten IoU thresholds": (
            f"{times['stardist']:.1f} times as fast as StarDist's matching and {times['plain']:.0f} times as fast as "
            "the plain functions, with the same counts"
        ),
        f"prediction of {large['image']} pixels, in tiles": f"{large['peak of the process, MB'] / 1000:.1f} GB",
        "all notebooks in the profile `smoke`": f"{seconds / 60:.1f} minutes",
    }
    return table([{"what": what, "measured": value} for what, value in rows.items()])


def denoising(name: str) -> str:
    """Each denoiser on the noisy test images, what the segmentation finds after it, and the curves."""
    result = read(name)
    tables = [table(result["rows"])]
    if found := result.get("segmentation"):
        tables.append(table(segmented("notebook 05's network sees", found)))
    if labels := [result[part] for part in ("10 labels", "all labels") if part in result]:
        kinds = ("noisy", "noise2noise")
        rows = [{"labelled images": one["labelled"], "crops": one["crops"]} | row for one in labels
                for row in segmented("trained and tested on", {kind: one[kind] for kind in kinds})]  # fmt: skip
        tables.append(table(rows))
    if curves := result.get("curves"):
        sigmas = [f"sigma {sigma}" for sigma in curves["sigmas"]]
        rows = [{"validation images, PSNR in dB": method} | in_columns(values, sigmas, ".1f")
                for method, values in curves.items() if method != "sigmas"]  # fmt: skip
        tables.append(table(rows))
    epochs = sorted({1, 2, 4, 7, 10, 15, max(map(len, result["validation"].values()))})
    rows = [{"training, validation PSNR in dB": kind}
            | {f"epoch {epoch}": f"{values[epoch - 1]:.2f}" for epoch in epochs if epoch <= len(values)}
            for kind, values in result["validation"].items()]  # fmt: skip
    return "\n\n".join([*tables, table(rows), origin(result)])


def segmented(heading: str, found: dict[str, dict]) -> list[dict]:
    """AP at IoU 0.5 for each kind of images, and in pairs what it is above that for noisy images."""
    rows = []
    for method, one in found.items():
        row = {heading: method, "threshold": one["threshold"], "AP at IoU 0.5": f"{np.mean(one['AP']):.3f}"}
        if method != "noisy":
            difference = paired_bootstrap(one["AP"], found["noisy"]["AP"], np.random.default_rng(0))
            row["minus noisy, 95 % interval"] = "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference)
        rows.append(row)
    return rows


def measured_goals() -> dict[str, tuple[str, float, float | None]]:
    """Goal -> "least" or "most", the target, and what was measured; None where it was not."""

    def value(name: str, function: Callable[[dict], float | None]) -> float | None:
        return function(read(name)) if (RESULTS / f"{name}.json").exists() else None

    def psnr(result: dict, group: str = "networks", name: str = "noise2noise") -> float:
        return float(np.mean(result[group][name]["PSNR, range of the image"]))

    def gain(result: dict) -> float:
        networks = min(psnr(result), psnr(result, name="supervised"))
        return networks - max(psnr(result, "classical", name) for name in result["classical"] if name != "factors")

    one, pretrained = read("quality")["one view"], read("quality_pretrained")
    best = {views: pretrained[views]["watershed"]["test"] for views in ("one view", "eight views")}
    eight = best["eight views"]["mean_f1"]
    course = {row["notebook"]: row["seconds"] for row in read("course")["rows"]}
    notebooks = {exercise.notebook for exercise in list_exercises()}
    files = {name for kinds in PRETRAINED.values() for kind, (name, _) in kinds.items() if kind != "boundary"}
    denoisers = sum((checkpoint_folder() / name).stat().st_size for name in files)
    step, load, ways = read("training_step"), read("loading"), read("evaluation")["rows"]
    times = {row["way"]: row["times as long as the course's"] for row in ways}
    return {
        "`laptop`, F1 at IoU 0.5, components": ("least", 0.83, one["components"]["test"]["mean_f1"]["0.5"]),
        "`laptop`, F1 at IoU 0.5, watershed": ("least", 0.91, one["watershed"]["test"]["mean_f1"]["0.5"]),
        f"`laptop`, minutes of training on 2 cores ({EPOCHS} times a measured epoch)": ("most", 60, load[MINUTES]),
        "`laptop`, AP at IoU 0.5, watershed": (
            "least", 0.865, one["watershed"]["test"].get("mean_ap", {}).get("0.5"),
        ),
        "pretrained network, eight views, AP at IoU 0.5": ("least", 0.887, best["eight views"]["mean_ap"]["0.5"]),
        "the same, one view": ("least", 0.88, best["one view"]["mean_ap"]["0.5"]),
        "the same, one view, mSA": ("least", 0.68, best["one view"]["msa"]["0.5 to 0.95"]),
        "pretrained network, eight views, F1 at IoU 0.5": ("least", 0.935, eight["0.5"]),
        "the same, IoU 0.75": ("least", 0.83, eight["0.75"]),
        "the same, IoU 0.9": ("least", 0.52, eight["0.9"]),
        "pretrained network, file, MB": ("most", 8, (checkpoint_folder() / PRETRAINED_FILE).stat().st_size / 1e6),
        "at scale 0.7, share of the earlier loss that is left": ("most", 0.5, loss_left("scale 0.7")),
        "at scale 1.4, the same": ("most", 0.5, loss_left("scale 1.4")),
        "unaltered, F1 less than before": ("most", 0.005, cost_unaltered()),
        "after 6 minutes, F1 above both peers, lower end of the paired interval": (
            "least", 0, value("alternatives", lambda found: found.get("lowest difference from a peer")),
        ),
        "training step, fast precision / plain (with AMX)": (
            "least", 3, step["rows"][0]["course / plain"] if step["machine"].get("amx") else None,
        ),
        "training step, float32 / plain": ("least", 1, step["rows"][-1]["course / plain"]),
        "training step / limit": ("least", 0.95, step["rows"][0]["course / limit"]),
        "scoring, times as fast as the plain functions": ("least", 5, times["plain"]),
        "scoring, times as fast as StarDist": ("least", 5, times["stardist"]),
        "overhead of an epoch, %": ("most", 5, load["overhead of an epoch, %"]),
        "memory for 8192 x 8192, MB": ("most", 4295, read("large_images")["rows"][-1]["peak of the process, MB"]),
        "Noise2Noise, PSNR (range of the image) at sigma 20, dB": ("least", 35.5, value("denoising", psnr)),
        "Noise2Noise below supervised, dB": (
            "most", 0.3, value("denoising", lambda found: psnr(found, name="supervised") - psnr(found)),
        ),
        "both above the best classical denoiser, dB": ("least", 2, value("denoising", gain)),
        "clipped pairs, PSNR predicted wrongly by, dB": (
            "most", 0.2, value("denoising", lambda found: abs(
                psnr(found, name="clipped") - psnr(found, name="clipped, predicted"))),
        ),
        "files of all denoisers, MB": ("most", 4, denoisers / 1e6),
        "own images, nuclei of half and twice the size with `--diameter`, F1 lost": (
            "most", 0.03, value("own_images", lambda found: max(
                row["lost at 0.5"] for row in found["sizes"] if row["images"] == "test" and row["diameter"] != "-")),
        ),
        "`segment`, 100 images of 520 x 696, seconds": (
            "most", 240, value("own_images", lambda found: found["speed"][0]["seconds"]),
        ),
        "`segment`, memory for 8192 x 8192, MB": (
            "most", 2000, value("own_images", lambda found: found["speed"][-1]["peak of the process, MB"]),
        ),
        "all notebooks, profile smoke, seconds": ("most", 180, course["all"] if len(course) > len(notebooks) else None),
    }  # fmt: skip


def loss_left(images: str) -> float | None:
    """What the pretrained network loses on altered images, as a share of what the one before it lost."""
    if not (RESULTS / "robustness_before.json").exists():
        return None
    after, before = (
        {row["images"]: row["lost by the mean"] for row in read(name)["rows"]}
        for name in ("robustness", "robustness_before")
    )
    return max(0.0, after[images] / before[images])


def cost_unaltered() -> float | None:
    """What the pretrained network has less of the mean F1 of unaltered images than the one before it."""
    if not (RESULTS / "robustness_before.json").exists():
        return None
    after, before = (next(iter(read(name)["rows"]))["mean F1"] for name in ("robustness", "robustness_before"))
    return before - after


def goals() -> str:
    """Each goal with its target, what was measured, and whether it was reached."""
    rows = []
    for goal, (word, target, found) in measured_goals().items():
        shown = "not measured" if found is None else f"{found:.3f}" if found < 1 else as_text(float(found))
        reached = found is not None and (found >= target if word == "least" else found <= target)
        rows.append({"goal": goal, "target": f"at {word} {target:g}", "measured": shown, "reached": as_text(reached)})
    return table(rows)


TABLES = {
    **{name: partial(quality, name) for name in TRAINED},
    **{name: partial(measured, name) for name in NAMES if name != "robustness"},
    **{function.__name__: function for function in (peers, robustness, networks, errors, certainty)},
    **{function.__name__: function for function in (ablation, losses, scores, speed, goals)},
    **{name: partial(denoising, name) for name in ("denoising", "denoising_embedded")},
}


def with_tables(page: str) -> str:
    """A page with every table as it is now, or the words that there is no result file yet."""

    def fill(place: re.Match) -> str:
        try:
            return f"{place[1]}{place[2]}{TABLES[place[1]]()}\n"
        except FileNotFoundError:
            return f"{place[1]}{place[2]}*Not measured yet.*\n"

    return PLACE.sub(fill, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--notebooks", type=Path, metavar="SUMMARY", help="summary.json of a run on the real images")
    options = parser.parse_args()
    if options.notebooks:  # without the places of this machine
        summary = json.loads(options.notebooks.read_text(encoding="utf-8"))
        summary["data"] = data_label(summary["data"]["source"])
        summary["command"] = f"python3 course.py run --data {summary['data']} --profile {summary['profile']}"
        (RESULTS / "notebooks.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    use_course_style()
    save(peers_figure(read("quality_pretrained"), PARAMETERS), PEERS_PICTURE)
    figure = plot_training([EpochResult(**epoch) for epoch in read("quality_pretrained")["curve"]], "hard Dice")
    figure.savefig(CURVE, dpi=100, metadata={"Software": None})
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    readme, minutes = ROOT / "README.md", read("course")["rows"][-1]["seconds"] / 60
    text = re.sub(r"compute in [\d.]+ minutes", f"compute in {minutes:.1f} minutes", readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
