"""The command `python3 course.py bench`, which passes its arguments on to this one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workshop.parser import HelpFormatter, refuse_unknown
from workshop.run.machine import calm_threads

DESCRIPTION = """Measure speed and memory, print tables, and write them to benchmarks/results.

The numbers in docs/results.md come from the real images: --data dsb2018. Results for other images, and those of
--quick, go to build/bench."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that the arguments name, and return the exit code."""
    parser = argparse.ArgumentParser(
        "course.py bench", description=DESCRIPTION, allow_abbrev=False,
        epilog="example:\n  python3 course.py bench --only training_step,evaluation --data ../dsb2018.zip",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, once: does everything run?")
    parser.add_argument("--only", metavar="NAME[,NAME]", type=lambda text: text.replace(" ", "").split(","),
                        help="these benchmarks only")  # fmt: skip
    parser.add_argument("--data", metavar="SOURCE", default="embedded", help="as for run (default embedded)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where the result files go")
    gate = parser.add_argument_group("speed gate: fail if scoring, prediction or training became slower (2 minutes)")
    gate.add_argument("--gate", action="store_true", help="compare with benchmarks/results/gate.json")
    gate.add_argument("--base", metavar="COMMIT", help="compare with this commit instead, on any machine")
    gate.add_argument("--update", action="store_true", help="measure anew and write the file")
    options, further = parser.parse_known_args(arguments)
    refuse_unknown(parser, further)
    if (options.base or options.update) and not options.gate or (options.base and options.update):
        parser.error("--base and --update belong to --gate, one at a time")
    if options.gate:
        from benchmarks.gate import run_gate

        try:
            return run_gate(options.base, options.update)
        except KeyboardInterrupt:
            return 130
    busy = calm_threads()  # before torch is loaded
    from benchmarks.running import UnknownBenchmarkError, run_benchmarks
    from course_utils.data import DataError

    try:
        run_benchmarks(options.only, options.data, options.quick, options.out, busy)
    except (UnknownBenchmarkError, DataError) as error:
        print(f"course.py bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
