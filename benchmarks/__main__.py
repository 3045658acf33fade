"""Run the benchmarks, print their tables and write them to results/."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import torch

from benchmarks.measuring import RESULTS, format_table, write
from course_utils.data import load_data

NAMES = ("training_step", "loading", "evaluation", "large_images", "alternatives")


def main() -> int:
    parser = argparse.ArgumentParser("course.py bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: does everything run?")
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=NAMES, default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--data", metavar="SOURCE", default="embedded", help="embedded (default), dsb2018, or a path")
    parser.add_argument("--threads", type=int, help="processor threads of torch")
    parser.add_argument("--out", type=Path, help="folder for the result files (default: benchmarks/results; "
                        "build/bench with --quick)")  # fmt: skip
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = options.out or (RESULTS.parents[1] / "build" / "bench" if options.quick else RESULTS)
    data = load_data(options.data)
    print(data, flush=True)
    for name in options.only:
        start = time.perf_counter()
        result = importlib.import_module(f"benchmarks.{name}").measure(data, options.quick)
        command = f"python3 course.py bench --only {name}"
        result = {"command": command, "quick": options.quick, "data": data.source, **result}
        path = write(name, result, folder)
        print(f"\n{result['title']}")
        for key, value in result.items():
            if isinstance(value, list):
                print(format_table(value))
            elif key not in ("title", "command", "quick", "data"):
                print(f"{key}: {value}")
        print(f"({time.perf_counter() - start:.0f} s, written to {path})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
