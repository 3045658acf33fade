"""The commands behind course.py. Modules are imported inside the commands, so that help appears at once."""

from __future__ import annotations

import argparse
import os
import runpy
import secrets
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from workshop.paths import checkout

CHECKOUT = checkout()
LAB_PORT = 8888
MAX_TEST_PROCESSES = 4
# Rounds that a waiting thread of torch spins before it sleeps; the library's own choice is millions.
SPIN_COUNT = "1000"
# What JupyterLab would ask other computers for, switched off even for users who once agreed to it: its news, its newest
# version, and the list of extensions. The course needs this computer only.
STAY_HERE = {
    "--LabApp.news_url": "None",
    "--LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager": "readonly",
}

NOT_FOR_STUDENTS = "`course.py {}` needs {}, which the students' version of the course does not have."
DESCRIPTION = "A notebook course on nucleus segmentation with a U-Net. Help for one command: course.py COMMAND --help"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 if all is well, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console prints "?" for a character that it does not know
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    if not arguments:
        parser.print_help()
        return 0
    options, further = parser.parse_known_args(arguments)
    if further and not options.passes_on:
        parser.error(f"unknown argument {further[0]!r} of {options.name}; see course.py {options.name} --help")
    if not (CHECKOUT / options.needs).is_dir():
        print(NOT_FOR_STUDENTS.format(options.name, f"the folder {options.needs}/"), file=sys.stderr)
        return 1
    # Like Ctrl-C, a termination also ends the processes that a command has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.command(options, further)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except ValueError as error:  # the course's own errors are ValueErrors, and say what to do
        if not type(error).__module__.startswith(("course_utils.", "workshop.")):
            raise
        print(f"course.py {options.name}: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("workshop.") and not (CHECKOUT / "solutions").is_dir():
            print(NOT_FOR_STUDENTS.format(" ".join(arguments), error.name), file=sys.stderr)
        elif str(error.name).startswith(("course_utils", "workshop")) or not (CHECKOUT / "course.py").exists():
            raise
        else:  # an environment that course.py did not make
            extras = ",".join(sorted(runpy.run_path(str(CHECKOUT / "course.py"))["needed_extras"](arguments)))
            print(f"course.py {options.name}: {error.name} is not installed; to install it with all that this command "
                  f'needs: python -m pip install -e "{CHECKOUT}[{extras}]"', file=sys.stderr)  # fmt: skip
    return 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `command`, the function that carries it out."""
    parser = argparse.ArgumentParser("course.py", description=DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(function, text: str, example: str, needs: str = "", passes_on: bool = False, add_help: bool = True):
        name = function.__name__.removesuffix("_command")
        one = commands.add_parser(
            name, help=text.splitlines()[0], description=text, epilog=f"example:\n  python3 course.py {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, add_help=add_help,
        )  # fmt: skip
        one.set_defaults(command=function, name=name, needs=needs, passes_on=passes_on)
        return one

    add(lab_command, LAB_HELP, "lab --no-browser", passes_on=True)
    doctor = add(doctor_command, DOCTOR_HELP, "doctor")
    doctor.add_argument("--gpu", action="store_true", help="a missing GPU is a problem, not a note")
    doctor.add_argument("--download", action="store_true", help="fetch the real images, if they are not there yet")
    doctor.add_argument("--out", metavar="FOLDER", type=Path, help="the folder for results")

    run = add(run_command, RUN_HELP, "run --data ../dsb2018.zip --profile laptop --only 03,05")
    run.add_argument("--data", metavar="SOURCE", default="embedded",
                     help="embedded (default), dsb2018, kaggle, auto, or the path of a folder or zip")  # fmt: skip
    run.add_argument("--profile", metavar="NAME", default="smoke",
                     help="smoke (default: minutes), laptop (CPU, under an hour), full (GPU), or auto")  # fmt: skip
    run.add_argument("--only", metavar="03[,05]", type=_names, help="these notebooks only, by number or name")
    run.add_argument("--seed", metavar="N", type=partial(_count, low=0), default=0,
                     help="for crops, weights and noise (default 0)")  # fmt: skip
    run.add_argument("--out", metavar="FOLDER", type=Path, help="folder for results (default: build in the course)")
    run.add_argument("--timeout", metavar="SECONDS", type=_count, help="for one cell (default: by profile, smoke 600)")
    _add_workers(run)
    run.add_argument("--minimum-scores", action="store_true",
                     help="fail if a score is below the minimum for this data and profile")  # fmt: skip

    add(test_command, TEST_HELP, "test -k watershed", "tests", passes_on=True)
    build = add(build_command, BUILD_HELP, "build --only 03", "solutions")
    build.add_argument("--only", metavar="03[,05]", type=_names, help="these notebooks only, by number or name")
    build.add_argument("--outputs", action="store_true",
                       help="also run the notebooks for the outputs that nbval compares (minutes)")  # fmt: skip
    build.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is not up to date")

    grade = add(grade_command, GRADE_HELP, "grade submissions --out grades.csv --workers 2", "workshop/grade")
    grade.add_argument("folder", metavar="FOLDER", type=Path, help="what was handed in, as the LMS gives it")
    grade.add_argument("--out", metavar="FILE", type=Path, default=Path("grades.csv"),
                       help="the table (default grades.csv); finished results are kept in FILE.results")  # fmt: skip
    _add_workers(grade)
    grade.add_argument("--again", action="store_true", help="forget the results of earlier runs")
    grade.add_argument("--seconds", metavar="N", type=_count, default=30,
                       help="that a cell or check may compute (default 30)")  # fmt: skip
    grade.add_argument("--memory", metavar="GB", type=_count, default=4,
                       help="what a notebook may use besides torch itself (default 4)")  # fmt: skip
    grade.add_argument("--roster", metavar="FILE", type=Path, help="CSV file with names, ids or addresses of the class")
    grade.add_argument("--pattern", metavar="REGEX",
                       help="whose file it is, if no known system wrote the names: (?P<student>...)")  # fmt: skip
    grade.add_argument("--points", metavar="FILE", type=Path,
                       help="points of exercises and questions (default: course.toml of the course, or 1)")  # fmt: skip
    grade.add_argument("--feedback", metavar="FOLDER", type=Path, help="write a page for each student")
    grade.add_argument("--format", metavar="NAME[,NAME]", help="also write files for moodle, canvas, csv, xlsx")
    confined = grade.add_mutually_exclusive_group()
    confined.add_argument("--sandbox", default="auto", choices=["auto", "bubblewrap", "docker", "podman", "unsafe"],
                          help="what confines the students' code (default: bubblewrap, on Linux)")  # fmt: skip
    confined.add_argument("--unsafe", action="store_const", dest="sandbox", const="unsafe",
                          help="do without: students' code can do what you can do")  # fmt: skip
    grade.add_argument("--image", metavar="NAME", help="for docker and podman: an image with this course")

    release = add(release_command, RELEASE_HELP, "release student.zip", "solutions")
    release.add_argument("file", metavar="FILE", type=Path, help="the zip to write")
    release.add_argument("--nbgrader", metavar="FOLDER", type=Path,
                         help="also write assignments into the folder of a course in nbgrader")  # fmt: skip

    site = add(site_command, SITE_HELP, "site --out ../website", "solutions")
    site.add_argument("--executed", metavar="FOLDER", type=Path,
                      help="notebooks that have run (default: those of --data and --profile, brought up to date)")
    site.add_argument("--data", metavar="SOURCE",
                      help="as for run (default: the real images if they were downloaded, else embedded)")
    site.add_argument("--profile", metavar="NAME", help="as for run (default: smoke on embedded, else laptop)")
    site.add_argument("--out", metavar="FOLDER", type=Path, help="folder for the pages (default build/site)")

    # benchmarks/__main__.py has the options, and so the help
    add(bench_command, "Measure speed and memory.", "bench", "benchmarks", passes_on=True, add_help=False)
    add(install_command, INSTALL_HELP, "install", "solutions")
    return parser


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


def _count(text: str, low: int = 1) -> int:
    if not text.isdecimal() or not low <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {2**32 - 1}")
    return int(text)


def run_command(options: argparse.Namespace, _: list[str]) -> int:
    calm_threads(options.workers)
    from workshop.run.course import run_course

    if options.minimum_scores:  # without a minimum, fail now and not after hours of computing
        from workshop.run.minimum_scores import minimum_scores_for, scores_below_minimum

        minimum = minimum_scores_for(options.data, options.profile)
    results = run_course(
        options.data, options.profile, options.only, options.seed, options.out, options.timeout, options.workers,
        options.dask,
    )  # fmt: skip
    ended = [(result.notebook, result.scores) for result in results if not result.error]
    missed = []
    if options.minimum_scores:
        missed = scores_below_minimum(minimum, ended)
        print("\n".join(missed) or f"All scores with a minimum reach it, in {len(ended)} notebooks.", flush=True)
    return 1 if missed or len(ended) < len(results) else 0


def calm_threads(workers: int = 1) -> None:
    """Keep torch's threads from waiting for each other on a busy machine. Call it before torch is imported.

    The threads wait for each other many times in every step, and spin meanwhile. Beside one other busy program on two
    cores, two threads were twelve times slower than one. So use as many as there are free cores, and spin less. Several
    workers share the free cores.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    free = max(1, round(cores - load))
    if "OMP_NUM_THREADS" in os.environ or (free == cores and workers == 1):
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, free // workers))
    if free < cores:
        print(f"This machine is busy (load {load:.1f} on {cores} cores): using {free} of them.", flush=True)


def test_command(_: argparse.Namespace, further: list[str]) -> int:
    cores = os.cpu_count() or 1
    defaults = []
    if not any(argument.startswith(("-n", "--numprocesses", "--pdb", "--trace")) for argument in further):
        processes = min(cores, MAX_TEST_PROCESSES)
        defaults += ["-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder"]  # the longest files first
        # torch would start a thread for every core in each process, and they would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    if not any(argument.startswith("-m") for argument in further):
        defaults += ["-m", "not slow"]
    defaults.append("-rs")  # what was skipped, and why
    os.chdir(CHECKOUT)
    import pytest

    return int(pytest.main([*defaults, *further]))


def bench_command(_: argparse.Namespace, further: list[str]) -> int:
    calm_threads()
    # benchmarks/ is not installed, and the current folder (-P) may hold anything
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-m", "benchmarks", *further]
    return subprocess.call(command, env={**os.environ, "PYTHONPATH": path})


def lab_command(_: argparse.Namespace, further: list[str]) -> int:
    from jupyterlab.labapp import main as start_jupyterlab

    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # This Python's kernel "python3" comes first; the user's may have other packages.
    os.environ.update(JUPYTER_PREFER_ENV_PATH="1", JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    options = [f"--ServerApp.root_dir={CHECKOUT}", "--ServerApp.ip=127.0.0.1"]
    # JupyterLab refuses an option that is given twice.
    given = {argument.split("=")[0] for argument in further}
    options += [f"{name}={value}" for name, value in STAY_HERE.items() if name not in given]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")  # in a container everybody is root
    opened = [argument for argument in further if argument.endswith(".ipynb")]
    if not opened:
        options.insert(0, str(first_notebook()))
    if any(argument.startswith(("--port", "--ServerApp.port", "--help", "--version")) for argument in further):
        print("JupyterLab prints its address below.", flush=True)
    else:
        port = free_port(LAB_PORT)
        options += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
        # In the environment, because other users can read a command line.
        token = os.environ.setdefault("JUPYTER_TOKEN", secrets.token_hex(16))
        notebook = opened[0] if opened else first_notebook().relative_to(CHECKOUT).as_posix()
        print(f"JupyterLab: http://127.0.0.1:{port}/lab/tree/{notebook}?token={token}\nCtrl-C ends it.", flush=True)
    start_jupyterlab([*options, *further])
    return 0


def first_notebook() -> Path:
    """The student version of notebook 01 if it is there, else the solved one."""
    student, solved = (CHECKOUT / folder / "01_data_exploration.ipynb" for folder in ("notebooks", "solutions"))
    return student if student.exists() else solved


def free_port(first: int) -> int:
    """The first free port of this computer from `first` on, or one that the system chooses."""
    for port in [*range(first, first + 20), 0]:
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return one.getsockname()[1]
    raise OSError("no free port on 127.0.0.1")


def doctor_command(options: argparse.Namespace, _: list[str]) -> int:
    calm_threads()
    from workshop.doctor import examine, report

    return report(examine(options.out or CHECKOUT / "build", options.gpu, options.download))


def build_command(options: argparse.Namespace, _: list[str]) -> int:
    from workshop.build import build
    from workshop.build.badges import NO_LINKS, repository

    for path in build(only=options.only, check=options.check, outputs=options.outputs):
        print(f"Wrote {path}")
    if options.check:
        print("Every notebook is what its source gives.")
    if not repository():
        print(NO_LINKS)
    return 0


def grade_command(options: argparse.Namespace, _: list[str]) -> int:
    from workshop.grade.grading import Limits, Wanted, grade
    from workshop.grade.report.exports import parse_formats

    limits = Limits(options.seconds, options.memory)
    formats = tuple(parse_formats(options.format)) if options.format else ()
    wanted = Wanted(options.roster, options.pattern, options.points, options.feedback, formats)
    grade(options.folder, options.out, options.workers, options.again, limits, options.dask, options.sandbox,
          options.image, wanted)  # fmt: skip
    return 0


def site_command(options: argparse.Namespace, _: list[str]) -> int:
    calm_threads()
    from workshop.publish.website import build_website

    print(f"Website: {build_website(options.out, options.executed, options.data, options.profile) / 'index.html'}")
    return 0


def release_command(options: argparse.Namespace, _: list[str]) -> int:
    from workshop.build.badges import NO_LINKS, repository
    from workshop.publish.release import release, release_for_nbgrader

    files = release(options.file)
    print(f"Wrote {options.file}: {len(files)} files, {options.file.stat().st_size / 1e6:.1f} MB")
    for path in release_for_nbgrader(options.nbgrader) if options.nbgrader else ():
        print(f"Wrote {path}")
    if not repository():
        print(NO_LINKS)
    return 0


def install_command(*_) -> int:
    from importlib.metadata import metadata

    from workshop.doctor import check_packages, report

    return report(check_packages(metadata("course-utils").get_all("Provides-Extra")))  # course.py has installed them


if __name__ == "__main__":
    sys.exit(main())
