"""The commands behind course.py. Modules are imported inside the commands, so that help appears at once."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from workshop.parser import parse
from workshop.paths import checkout, select_notebooks

CHECKOUT = checkout()
LAB_PORT = 8888
MAX_TEST_PROCESSES = 4
# What JupyterLab would ask other computers for, switched off even for users who once agreed to it: its news, its newest
# version, and the list of extensions. The course needs this computer only.
STAY_HERE = {
    "--LabApp.news_url": "None",
    "--LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager": "readonly",
}

NOT_FOR_STUDENTS = "`course.py {}` needs {}, which the students' version of the course does not have."


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 all is well, 1 something failed, 130 after Ctrl-C.

    A mistake in the arguments ends the program with exit code 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console prints "?" for a character that it does not know
            stream.reconfigure(errors="replace")
    try:
        try:
            return run_one(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads has gone, as in `course.py run --help | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at the end
        return 1


def run_one(arguments: list[str]) -> int:
    """Run one command; its errors become one sentence."""
    options, further = parse(arguments)
    name = options.command
    if not (CHECKOUT / options.needs).is_dir():
        print(NOT_FOR_STUDENTS.format(name, f"the folder {options.needs}/"), file=sys.stderr)
        return 1
    # Like Ctrl-C, a termination also ends the processes that a command has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return globals()[f"{name}_command"](options, further)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except ValueError as error:  # the course's own errors are ValueErrors, and say what to do
        if not type(error).__module__.startswith(("course_utils.", "workshop.")):
            raise
        print(f"course.py {name}: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("workshop.") and not (CHECKOUT / "solutions").is_dir():
            print(NOT_FOR_STUDENTS.format(" ".join(arguments), error.name), file=sys.stderr)
        elif str(error.name).startswith(("course_utils", "workshop")) or not (CHECKOUT / "course.py").exists():
            raise
        else:  # an environment that course.py did not make
            extras = ",".join(sorted(runpy.run_path(str(CHECKOUT / "course.py"))["needed_extras"](arguments)))
            print(f"course.py {name}: {error.name} is not installed; to install it with all that this command "
                  f'needs: python -m pip install -e "{CHECKOUT}[{extras}]"', file=sys.stderr)  # fmt: skip
    return 1


def run_command(options: argparse.Namespace, _: list[str]) -> int:
    from workshop.run.course import run_course

    if options.minimum_scores:  # without a minimum, fail now and not after hours of computing
        from workshop.run.minimum_scores import minimum_scores_for, scores_below_minimum

        minimum = minimum_scores_for(options.data, options.profile)
    results = run_course(
        options.data, options.profile, options.only, options.seed, options.out, options.timeout, options.workers,
        options.dask, options.verbose,
    )  # fmt: skip
    ended = [(result.notebook, result.scores) for result in results if not result.error]
    missed = []
    if options.minimum_scores:
        missed = scores_below_minimum(minimum, ended)
        print("\n".join(missed) or f"All scores with a minimum reach it, in {len(ended)} notebooks.", flush=True)
    return 1 if missed or len(ended) < len(results) else 0


def segment_command(options: argparse.Namespace, _: list[str]) -> int:
    from workshop.run.machine import calm_threads

    if note := calm_threads():  # before torch is imported
        print(note, flush=True)
    from workshop.segment import Options, segment_folder

    chosen = Options(options.diameter, options.pixel_size, options.channel)
    n_images, skipped = segment_folder(options.folder, options.out, chosen)
    print(f"Images done: {n_images}, files skipped: {len(skipped)}. Open {options.out / 'summary.html'}")
    for name, reason in skipped.items():
        print(f"  skipped: {name}: {reason}", file=sys.stderr)
    return 1 if skipped else 0


def test_command(_: argparse.Namespace, further: list[str]) -> int:
    cores = os.cpu_count() or 1
    defaults = []
    if not any(argument.startswith(("-n", "--numprocesses", "--pdb", "--trace")) for argument in further):
        processes = min(cores + cores // 2, MAX_TEST_PROCESSES)  # some tests mostly wait for what they have started
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
    # benchmarks/ is not installed, and the current folder (-P) may hold anything
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-m", "benchmarks", *further]
    return subprocess.call(command, env={**os.environ, "PYTHONPATH": path})


def lab_command(_: argparse.Namespace, further: list[str]) -> int:
    from jupyterlab.labapp import main as start_jupyterlab

    from workshop.run.machine import SPIN_COUNT

    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    further = [named_notebook(argument) for argument in further]
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
        notebook = Path(opened[0] if opened else first_notebook())
        shown = (notebook.relative_to(CHECKOUT) if notebook.is_relative_to(CHECKOUT) else notebook).as_posix()
        print(f"JupyterLab: http://127.0.0.1:{port}/lab/tree/{shown}?token={token}\nCtrl-C ends it.", flush=True)
    start_jupyterlab([*options, *further])
    return 0


def first_notebook() -> Path:
    """The student version of notebook 01 if it is there, else the solved one."""
    student, solved = (CHECKOUT / folder / "01_data_exploration.ipynb" for folder in ("notebooks", "solutions"))
    return student if student.exists() else solved


def named_notebook(argument: str) -> str:
    """The path of a notebook that is named by its number or name, as in `lab 03`; any other argument as it is.

    Raises:
        RunError: it looks like a notebook, and there is none.
    """
    looks_like_one = re.fullmatch(r"\d\d?|\d\d_\w+|[^-].*\.ipynb", argument)
    if not looks_like_one or Path(argument).exists() or (CHECKOUT / argument).exists():
        return argument
    return str(select_notebooks(first_notebook().parent, [argument])[0])


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
    from workshop.run.machine import calm_threads

    if note := calm_threads():  # before torch is imported
        print(note, flush=True)
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
