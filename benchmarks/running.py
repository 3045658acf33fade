"""Run the benchmarks, print their tables and write their results."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import RESULTS, format_table, write
from course_utils import did_you_mean
from course_utils.data import load_data
from workshop.paths import data_label

NAMES = ("training_step", "loading", "evaluation", "large_images", "own_images", "robustness", "alternatives", "course")
TRIAL = RESULTS.parents[1] / "build" / "bench"


def run_benchmarks(
    names: Sequence[str] | None, source: str, quick: bool, folder: Path | None, note: str = ""
) -> list[Path]:
    """Run some benchmarks (all by default) on a data source, and return the result files.

    Results go to `folder`. Without it they go to `benchmarks/results`, or to `build/bench` if the run is quick or the
    images are not the real ones. A benchmark is left out, with a line that says so, if a package it compares with is
    missing. A note for people is printed above the first table.

    Raises:
        UnknownBenchmarkError: a benchmark of that name does not exist.
    """
    for name in names or ():
        if name not in NAMES:
            raise UnknownBenchmarkError(
                f"There is no benchmark {name!r}.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}."
            )
    data = load_data(source)
    folder = folder or (TRIAL if quick or data_label(data.source) != "dsb2018" else RESULTS)
    print("\n".join(filter(None, [note, str(data)])), flush=True)
    written = []
    for name in names or NAMES:
        start = time.perf_counter()
        try:
            result = importlib.import_module(f"benchmarks.{name}").measure(data, quick)
        except ModuleNotFoundError as error:
            print(f'\n{name} is left out: {error.name} is not installed; pip install -e ".[bench]" brings it.')
            continue
        place = data_label(data.source)  # not the path on this machine
        about = {"command": f"python3 course.py bench --only {name} --data {place}", "data": place, "quick": quick}
        written.append(write(name, about | result, folder))
        print(f"\n{result['title']}")
        for key, value in result.items():
            if isinstance(value, list):
                print(format_table(value))
            elif key != "title" and not isinstance(value, dict):  # such as the scores of each image
                print(f"{key}: {value}")
        print(f"({time.perf_counter() - start:.0f} s, written to {written[-1]})", flush=True)
    return written


class UnknownBenchmarkError(ValueError):
    """A benchmark was named that does not exist."""
