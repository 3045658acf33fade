"""The arguments of the commands behind course.py, and their help.

Standard library only: before the first installation course.py asks here for help, the version and mistakes in typing.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import shutil
import sys
import textwrap
from functools import partial
from pathlib import Path

from course_utils import __version__, did_you_mean
from workshop.paths import checkout

DESCRIPTION = "A notebook course on nucleus segmentation with a U-Net. Help for one command: course.py COMMAND --help"
SANDBOXES = ("auto", "bubblewrap", "docker", "podman", "unsafe")
EXIT_CODES = "exit code: 0 all is well, 1 something failed, 2 the command was not understood, 130 after Ctrl-C"


class HelpFormatter(argparse.HelpFormatter):
    """Help of at most 80 columns, also on a wide terminal. Paragraphs are filled, indented lines stay as they are."""

    def __init__(self, prog: str, **options):
        super().__init__(prog, max_help_position=22, width=min(80, shutil.get_terminal_size().columns), **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.split("\n\n")
        return "\n\n".join(part if "\n  " in part else textwrap.fill(part, width) for part in parts)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command, `command` its name among them, and the arguments that it passes on.

    Ends the program after help, after the version, and with exit code 2 after a mistake, which it names with the most
    similar word that would be right.
    """
    parser, commands = make_parser()
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    first = next((one for one in arguments if not one.startswith("-")), None)
    if first is not None and first not in commands:
        hint = did_you_mean(first, commands)
        parser.error(f"there is no command {first!r}.{hint} Known: {', '.join(commands)}.")
    options, further = parser.parse_known_args(arguments or ["--help"])
    if not options.passes_on:
        refuse_unknown(commands.get(options.command, parser), further if options.command else arguments)
    return options, further


def refuse_unknown(parser: argparse.ArgumentParser, further: list[str]) -> None:
    """End the program with exit code 2 if there are further arguments, and name the option that the first is like."""
    if not further:
        return
    known = re.findall(r"--([\w-]+)", parser.format_help())  # without dashes, which make all of them similar
    wrong = further[0].split("=")[0]
    only = f" Did you mean --only {wrong}?" if "only" in known and wrong[:1].isdecimal() else ""
    what = f"{wrong!r} is one argument too many.{only}"
    if wrong.startswith("-"):
        what = f"there is no option {wrong!r}." + did_you_mean(wrong.strip("-"), known).replace("mean ", "mean --")
    parser.error(f"{what} See: {parser.prog} --help")


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and the one of each command by its name."""
    parser = argparse.ArgumentParser("course.py", description=DESCRIPTION, epilog=EXIT_CODES, allow_abbrev=False,
                                     formatter_class=HelpFormatter)  # fmt: skip
    version = f"course.py {__version__} in {checkout()}, Python {platform.python_version()} ({sys.executable})"
    parser.add_argument("--version", action="version", version=version, help="say the version of the course, and exit")
    parser.set_defaults(passes_on=False)
    path = partial(_filled, kind=Path)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def add(text: str, example: str, needs: str = "", passes_on: bool = False, add_help: bool = True):
        one = commands.add_parser(
            example.split()[0], help=text.splitlines()[0], description=text, add_help=add_help, allow_abbrev=False,
            epilog=f"example:\n  python3 course.py {example}", formatter_class=HelpFormatter,
        )  # fmt: skip
        one.set_defaults(needs=needs, passes_on=passes_on)
        return one

    add(LAB_HELP, "lab --no-browser", passes_on=True)
    doctor = add(DOCTOR_HELP, "doctor")
    doctor.add_argument("--gpu", action="store_true", help="a missing GPU is a problem, not a note")
    doctor.add_argument("--download", action="store_true", help="fetch the real images, if they are not there yet")
    doctor.add_argument("--out", metavar="FOLDER", type=path, help="the folder for results")

    run = add(RUN_HELP, "run --data ../dsb2018.zip --profile laptop --only 03,05")
    run.add_argument("--data", metavar="SOURCE", type=_filled, default="embedded",
                     help="embedded (default), dsb2018, kaggle, auto, or the path of a folder or zip")  # fmt: skip
    run.add_argument("--profile", metavar="NAME", default="smoke",
                     help="smoke (default: minutes), laptop (CPU, under an hour), full (GPU), or auto")  # fmt: skip
    run.add_argument("--only", metavar="03[,05]", type=_names, help="these notebooks only, by number or name")
    run.add_argument("--seed", metavar="N", type=partial(_count, low=0), default=0,
                     help="for crops, weights and noise (default 0)")  # fmt: skip
    run.add_argument("--out", metavar="FOLDER", type=path, help="folder for results (default: build in the course)")
    run.add_argument("--timeout", metavar="SECONDS", type=_count, help="for one cell (default: by profile, smoke 600)")
    _add_workers(run)
    run.add_argument("-v", "--verbose", action="store_true",
                     help="on a terminal, too, a line for each cell, not one live line for each notebook")  # fmt: skip
    run.add_argument("--minimum-scores", action="store_true",
                     help="fail if a score is below the minimum for this data and profile")  # fmt: skip

    segment = add(SEGMENT_HELP, "segment my_images --out results --pixel-size 0.325")
    segment.add_argument("folder", metavar="FOLDER", type=path, help="the folder with your images")
    segment.add_argument("--out", metavar="RESULTS", type=path, required=True, help="another folder, for the results")
    segment.add_argument("--diameter", metavar="D", type=_size,
                         help="of your nuclei in pixels, if it is far from the 21 of the training images")  # fmt: skip
    segment.add_argument("--pixel-size", metavar="P", type=_size,
                         help="side of a pixel in micrometres: areas and diameters are given in them")  # fmt: skip
    segment.add_argument("--channel", metavar="N", type=_count, help="segment this channel; the first is 1")

    add(TEST_HELP, "test -k watershed", "tests", passes_on=True)
    build = add(BUILD_HELP, "build --only 03", "solutions")
    build.add_argument("--only", metavar="03[,05]", type=_names, help="these notebooks only, by number or name")
    build.add_argument("--outputs", action="store_true",
                       help="also run the notebooks for the outputs that nbval compares (minutes)")  # fmt: skip
    build.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is not up to date")

    grade = add(GRADE_HELP, "grade submissions --out grades.csv --workers 2", "workshop/grade")
    grade.add_argument("folder", metavar="FOLDER", type=path, help="what was handed in, as the LMS gives it")
    grade.add_argument("--out", metavar="FILE", type=path, default=Path("grades.csv"),
                       help="the table (default grades.csv); finished results are kept in FILE.results")  # fmt: skip
    _add_workers(grade)
    grade.add_argument("--again", action="store_true", help="forget the results of earlier runs")
    grade.add_argument("--seconds", metavar="N", type=_count, default=30,
                       help="that a cell or check may compute (default 30)")  # fmt: skip
    grade.add_argument("--memory", metavar="GB", type=_count, default=4,
                       help="what a notebook may use besides torch itself (default 4)")  # fmt: skip
    grade.add_argument("--roster", metavar="FILE", type=path, help="CSV file with names, ids, addresses of the class")
    grade.add_argument("--pattern", metavar="REGEX",
                       help="whose file it is, if no known system wrote the names: (?P<student>...)")  # fmt: skip
    grade.add_argument("--points", metavar="FILE", type=path,
                       help="points of exercises and questions (default: course.toml of the course, or 1)")  # fmt: skip
    grade.add_argument("--feedback", metavar="FOLDER", type=path, help="write a page for each student")
    grade.add_argument("--format", metavar="NAME[,NAME]", help="also write files for moodle, canvas, csv, xlsx")
    confined = grade.add_mutually_exclusive_group()
    confined.add_argument("--sandbox", metavar="NAME", default="auto", type=partial(_one_of, SANDBOXES),
                          help="what confines the students' code: auto (default: bubblewrap, on Linux), bubblewrap, "
                               "docker, podman, unsafe")  # fmt: skip
    confined.add_argument("--unsafe", action="store_const", dest="sandbox", const="unsafe",
                          help="do without: students' code can do what you can do")  # fmt: skip
    grade.add_argument("--image", metavar="NAME", help="for docker and podman: an image with this course")

    release = add(RELEASE_HELP, "release student.zip", "solutions")
    release.add_argument("file", metavar="FILE", type=path, help="the zip to write")
    release.add_argument("--nbgrader", metavar="FOLDER", type=path,
                         help="also write assignments into the folder of a course in nbgrader")  # fmt: skip

    site = add(SITE_HELP, "site --out ../website", "solutions")
    site.add_argument("--executed", metavar="FOLDER", type=path,
                      help="notebooks that have run (default: those of --data and --profile, brought up to date)")
    site.add_argument("--data", metavar="SOURCE", type=_filled,
                      help="as for run (default: the real images if they were downloaded, else embedded)")
    site.add_argument("--profile", metavar="NAME", help="as for run (default: smoke on embedded, else laptop)")
    site.add_argument("--out", metavar="FOLDER", type=path, help="folder for the pages (default build/site)")

    # benchmarks/__main__.py has the options, and so the help
    add("Measure speed and memory.", "bench --quick", "benchmarks", passes_on=True, add_help=False)
    add(INSTALL_HELP, "install", "solutions")
    return parser, commands.choices


def _add_workers(command: argparse.ArgumentParser) -> None:
    """Where notebooks are executed or graded: the same for both commands."""
    command.add_argument("--workers", metavar="N", type=_count, default=1,
                         help="notebooks at the same time, in processes on this computer (default 1)")  # fmt: skip
    command.add_argument("--dask", metavar="ADDRESS",
                         help="use the workers of a running dask scheduler, as in tls://127.0.0.1:8786; they need the "
                              "course, and all computers the same folder of notebooks and results")  # fmt: skip


LAB_HELP = """Open the first notebook in JupyterLab.

It listens on this computer only. Arguments are passed on to JupyterLab; name another notebook to open that one."""

DOCTOR_HELP = """Say whether this machine is ready for the course.

Checks versions, device, memory, disk, data and kernel. Changes nothing, and downloads nothing without --download. The
exit code is 0 unless something would stop the course."""

RUN_HELP = """Execute the solved notebooks from start to end.

Writes the executed notebooks, a web page of each, and summary.json with times and scores into
build/<data>-<profile>/. If a cell fails it is shown, the other notebooks still run, and the exit code is not 0."""

SEGMENT_HELP = """Segment your own images with the pretrained network.

Reads every TIFF, PNG, BMP, GIF and JPEG file below the folder. Writes a label image, outlines and ROIs of each, and
measurements.csv and summary.html for all. Interrupted, it goes on where it stopped. Files that cannot be read are named
and skipped; the exit code is then 1."""

TEST_HELP = """Run the tests.

Arguments are passed on to pytest. Tests marked slow are left out unless -m asks for them: -m slow, or -m "" for all."""

BUILD_HELP = """Generate the notebooks from their sources in solutions/NN_topic.py.

With --check nothing is written: the exit code says whether every notebook is what its source gives."""

GRADE_HELP = """Check every exercise of every submitted notebook, and write a table.

Each notebook is executed as "Run all" does, confined and with limits on time and memory, and judged from outside. A
second run continues where the first one was interrupted, and grades again what has changed. What is protected and what
is not: see docs/grading.md."""

RELEASE_HELP = """Pack what students get: the notebooks with stubs, the package, the data.

Left out are solutions/, tests/ and benchmarks/. The same course gives the same bytes."""

SITE_HELP = """Build the website of the course.

Static pages from the executed solved notebooks, the pages for instructors and results, and the API reference. They work
without a network. The solutions are on them."""

INSTALL_HELP = """Install everything that the commands need.

Otherwise each command installs what it needs when it is first used, and needs the network for that."""


def _names(text: str) -> list[str]:
    if not (names := [name.strip() for name in text.split(",") if name.strip()]):
        raise argparse.ArgumentTypeError("no notebook is named; give numbers, as in 03 or 03,05")
    return names


def _filled(text: str, kind: type = str) -> str | Path:
    if not text.strip():  # as of a variable of the shell that is not set; as a path it is the current folder
        raise argparse.ArgumentTypeError("its value is empty")
    return kind(text)


def _one_of(known: tuple[str, ...], text: str) -> str:
    if text not in known:
        raise argparse.ArgumentTypeError(f"there is no {text!r}.{did_you_mean(text, known)} Known: {', '.join(known)}.")
    return text


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, as in 0.325")
    return value


def _count(text: str, low: int = 1) -> int:
    if not text.isdecimal() or not low <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {2**32 - 1}")
    return int(text)
