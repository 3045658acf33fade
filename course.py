#!/usr/bin/env python3
"""The one command of the course: python3 course.py COMMAND

    lab      open the first notebook in JupyterLab
    doctor   say whether this machine is ready for the course
    run      execute the solved notebooks; results, web pages and a table of
             scores go to build/
    segment  segment and measure a folder of your own images
    test     run the tests
    build    generate the notebooks from their sources
    grade    check every exercise of submitted notebooks, and write a table
    release  pack what students get into one zip
    site     build the website
    bench    measure speed and memory
    install  install everything that the commands need

The first use makes an environment in .venv beside this file and installs what
notebooks need (some minutes, network needed). `segment`, `test`, `build`,
`release`, `site`, `bench` and the options --workers and --dask install further
packages when they are first used, `install` all of them at once. Each command
explains itself: python3 course.py run --help

Environment variables: COURSE_VENV names another folder for the environment;
COURSE_DISK_GB is the free space that the installation requires (0: do not
check); COURSE_LOCKED=yes installs the exact files of requirements.lock (versions and
hashes, of everything that `install` installs), and nothing else.
"""

# This file uses the standard library only, because nothing else is installed yet. It must also parse on Python 3.6:
# there it says one sentence about the version, where newer syntax would be a SyntaxError.

import collections
import contextlib
import errno
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent
# Extras of pyproject.toml that a command needs besides "notebooks", which all commands need.
EXTRAS = {
    "build": {"authoring"}, "release": {"authoring"}, "site": {"site"}, "bench": {"bench"},
    "segment": {"segment"}, "test": {"authoring", "cluster", "segment", "site", "test"},
    "install": {"authoring", "bench", "cluster", "segment", "site", "test"},
}  # fmt: skip
OLDEST_PYTHON = (3, 11)
# On Linux torch brings its CUDA libraries: 6.3 GB once installed, and pip keeps the downloads until it has finished.
# Elsewhere torch is a tenth of that.
NEEDED_GB = 9 if sys.platform.startswith("linux") else 4
VERSIONS = "requirements.lock"  # exact versions of everything; used with COURSE_LOCKED=yes
STAMP = "course-stamp.txt"
LOCK = "course-setup.lock"
LOG = "course-install.log"
WINDOWS = os.name == "nt"

# What pip prints when something outside the course is wrong, and what helps; the first match counts.
PIP_ADVICE = [
    (
        ("THESE PACKAGES DO NOT MATCH THE HASHES",),
        f"A file is not the one that {VERSIONS} names: do not install it. Start again with PIP_NO_CACHE_DIR=1; if "
        "that does not help, the mirror or the package was changed: tell the maintainers of the course.",
    ),
    (
        ("Hashes are required in --require-hashes mode", "all requirements must have their versions pinned"),
        f"{VERSIONS} lacks a package or a hash: make it again with the command in its first lines.",
    ),
    (
        ("No space left on device", "not enough space on the disk", "Disk quota exceeded"),
        f"The disk is full: free some space (about {NEEDED_GB} GB in all), then start again.",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED", "SSLError"),
        "The secure connection was refused, often by a company proxy: set PIP_CERT to its certificate file, then "
        "start again.",
    ),
    (
        (
            "Failed to establish a new connection", "Name or service not known", "Temporary failure in name resolution",
            "getaddrinfo failed", "nodename nor servname", "Network is unreachable", "ConnectTimeoutError",
            "ReadTimeoutError", "Connection refused", "Read timed out", "ProxyError",
        ),
        "This machine seems to be offline: an installation needs the network; connect, then start again.",
    ),
    (
        ("Permission denied", "Access is denied", "Read-only file system"),
        "The environment's folder cannot be written to: set COURSE_VENV to another folder, then start again.",
    ),
    (
        ("No matching distribution found", "requires a different Python"),
        f"A package is not available for this Python ({sys.version.split()[0]}): try another one, for example 3.12.",
    ),
]  # fmt: skip


class SetupError(Exception):
    """The environment cannot be made; the text says in one sentence what to do."""


def main(arguments: list) -> int:
    """Set the environment up if needed, run the command in it, and return its exit code."""
    if sys.version_info < OLDEST_PYTHON:
        print(old_python_message(), file=sys.stderr)
        return 1
    environment, extras = environment_folder(), needed_extras(arguments)
    if not is_ready(environment, extras):
        answer_at_once(arguments)
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(__doc__.strip())  # a question about the commands should not start a long installation
            return 0
        try:
            set_up(environment, extras)
        except SetupError as error:
            print(f"course.py: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ncourse.py: interrupted; the next start repeats the installation.", file=sys.stderr)
            return 130
    return hand_over(environment, arguments)


def answer_at_once(arguments: list) -> None:
    """What needs no installation ends here: the help of a command, the version, a mistake in the arguments."""
    with contextlib.suppress(ImportError):
        from workshop.parser import parse

        if arguments:
            parse(arguments)


def old_python_message() -> str:
    """One sentence for a Python that is too old, naming a newer one if this machine has it."""
    message = (
        f"course.py: the course needs Python 3.11 or newer, and this is Python {sys.version.split()[0]} "
        f"({sys.executable}): "
    )
    for newer in ("python3.12", "python3.13", "python3.11", "python3.14"):
        with contextlib.suppress(OSError):
            answer = subprocess.run([newer, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if answer.returncode == 0:
                return message + f"start it with {newer} instead."
    return message + "install a newer one, for example from https://www.python.org/downloads/, and start it with that."


def needed_extras(arguments: list) -> set:
    """The extras of pyproject.toml that a command needs. Its help needs one only, as most commands for students do."""
    extras = {"notebooks"}
    if not arguments or {"-h", "--help"} & set(arguments):
        return extras
    whole_course = (CHECKOUT / "solutions").is_dir()
    if whole_course or arguments[0] == "segment":
        extras |= EXTRAS.get(arguments[0], set())
    if whole_course and {"--workers", "--dask"} & {argument.split("=")[0] for argument in arguments}:
        extras.add("cluster")
    return extras


# --- the environment: where it is, and whether it can be used ---------------------------------------------------------


def environment_folder() -> Path:
    """The folder of the environment: COURSE_VENV, else .venv beside this file."""
    return Path(os.path.expanduser(os.environ.get("COURSE_VENV") or str(CHECKOUT / ".venv"))).absolute()


def environment_python(environment: Path) -> Path:
    """The interpreter in an environment."""
    return environment / ("Scripts/python.exe" if WINDOWS else "bin/python")


def stamp_lines(environment: Path, extras: set) -> set:
    """What the stamp of a finished installation says: hash of pyproject.toml, checkout, real interpreter, extras.

    The checkout is part of it because the package is installed as a link to it, and the interpreter because packages
    are installed for one version of Python. If exact versions are wanted, the hash of their list is part of it, too.
    """
    fingerprint = hashlib.sha256((CHECKOUT / "pyproject.toml").read_bytes()).hexdigest()
    interpreter = os.path.realpath(str(environment_python(environment)))
    lines = {f"pyproject {fingerprint}", f"checkout {CHECKOUT}", f"python {interpreter}"}
    if locked():
        lines.add(f"locked {hashlib.sha256((CHECKOUT / VERSIONS).read_bytes()).hexdigest()}")
    return lines | {f"extra {name}" for name in extras}


def read_stamp(environment: Path) -> set:
    """The lines of the environment's stamp; none if there is no stamp."""
    try:
        return set((environment / STAMP).read_text(encoding="utf-8").splitlines())
    except OSError:
        return set()


def locked() -> bool:
    """Whether COURSE_LOCKED asks for the exact versions of requirements.lock."""
    return os.environ.get("COURSE_LOCKED", "").lower() in ("yes", "1", "true")


def is_ready(environment: Path, extras: set) -> bool:
    """Whether the environment is unbroken, belongs to this checkout and has these extras. Starts no process."""
    try:  # the stamp may say more: other extras, or exact versions that this command did not ask for
        stamped = stamp_lines(environment, extras) <= read_stamp(environment)
    except OSError:
        return False
    return stamped and environment_python(environment).exists() and base_exists(environment)


def base_exists(environment: Path) -> bool:
    """Whether the Python from which the environment was made is still there (on Windows nothing else tells)."""
    try:
        lines = (environment / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    homes = [line.split("=", 1)[1].strip() for line in lines if line.split("=")[0].strip() == "home"]
    return bool(homes) and os.path.isdir(homes[0])


def works(environment: Path) -> bool:
    """Whether the environment's interpreter starts and has pip."""
    command = [str(environment_python(environment)), "-c", "import sys, pip; sys.exit(sys.prefix == sys.base_prefix)"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


# --- setting up -------------------------------------------------------------------------------------------------------


def set_up(environment: Path, extras: set) -> None:
    """Make or repair the environment, install the course into it, and stamp it last: no stamp, not finished."""
    if locked() and not (
        sys.platform.startswith("linux") and platform.machine() == "x86_64" and sys.version_info < (3, 14)
    ):
        raise SetupError(
            f"{VERSIONS} holds the versions for Linux on x86_64 with Python 3.11 to 3.13, and this is "
            f"{platform.system()} on {platform.machine()} with Python {sys.version.split()[0]}: unset COURSE_LOCKED."
        )
    for name in ["pyproject.toml", VERSIONS] if locked() else ["pyproject.toml"]:
        if not (CHECKOUT / name).is_file():
            raise SetupError(f"{CHECKOUT} has no {name}: start course.py inside a complete copy of the course.")
    try:
        refuse_foreign_folder(environment)
        environment.mkdir(parents=True, exist_ok=True)
        with setup_lock(environment):
            if is_ready(environment, extras):
                return  # another start has done it while this one waited
            if not works(environment):
                check_disk(environment)
                make_environment(environment)
            elif not (environment / STAMP).exists():
                check_disk(environment)
            # What other commands have installed is kept up to date, too.
            extras = extras | {line[len("extra ") :] for line in read_stamp(environment) if line.startswith("extra ")}
            if locked():
                extras = extras | {"notebooks"} | EXTRAS["install"]  # the list is installed as a whole
            install(environment, extras)
            write_stamp(environment, extras)
    except OSError as error:
        remedy = "copy the course to one of your folders, or set COURSE_VENV to a folder that you can write to"
        if error.errno == errno.ENOSPC:
            remedy = "free some space, then start again"
        raise SetupError(
            f"the environment {environment} cannot be written ({error.strerror or error}): {remedy}."
        ) from error


def refuse_foreign_folder(environment: Path) -> None:
    """Never install into, or clear, a folder that holds something else."""
    ours = ("pyvenv.cfg", LOCK, STAMP)
    if environment.is_dir() and any(environment.iterdir()) and not any((environment / name).exists() for name in ours):
        raise SetupError(
            f"{environment} is not a Python environment and not empty: set COURSE_VENV to a new or empty folder."
        )


@contextlib.contextmanager
def setup_lock(environment: Path):
    """Let one process at a time set the environment up. The system frees the lock when that process ends in any way."""
    with open(str(environment / LOCK), "a+") as file:
        told = False
        while not try_lock(file):
            if not told:
                print(f"Another course.py is setting up {environment}; waiting for it.", flush=True)
                told = True
            time.sleep(0.5)
        yield


def try_lock(file) -> bool:
    """Take the lock on an open file if it is free. File systems without locks count as free."""
    try:
        if WINDOWS:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return not WINDOWS
    return True


def check_disk(environment: Path) -> None:
    """Refuse to start an installation that the disk cannot hold. What an earlier try left there counts as free."""
    try:
        needed = float(os.environ.get("COURSE_DISK_GB", NEEDED_GB))
    except ValueError:
        raise SetupError(f"COURSE_DISK_GB is {os.environ['COURSE_DISK_GB']!r}: it must be a number.") from None
    free = shutil.disk_usage(str(environment)).free / 1e9
    if free >= needed:
        return
    present = sum(path.lstat().st_size for path in environment.rglob("*") if not path.is_symlink()) / 1e9
    if free + present < needed:
        raise SetupError(
            f"the installation needs about {needed:.0f} GB, and the disk of {environment} has {free + present:.1f} GB "
            "for it: free some space, or set COURSE_VENV to a folder on a larger disk."
        )


def make_environment(environment: Path) -> None:
    """Make a new virtual environment, in place of a broken one if need be."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f"this Python ({sys.executable}) cannot make environments, because its modules `venv` and `ensurepip` are "
            "not both installed: on Debian or Ubuntu run `sudo apt install python3-venv`, then start again."
        ) from None
    if Path(sys.prefix).resolve() == environment.resolve():
        raise SetupError(f"{environment} is broken, and it is the Python in use: run `deactivate`, then start again.")
    print(f"First use: making the environment {environment} (some minutes, network needed).", flush=True)
    # Only what venv itself puts there is removed, in case somebody keeps other files in the folder.
    for name in ("bin", "lib", "lib64", "include", "share", "etc", "Scripts", "Lib", "Include", "pyvenv.cfg", STAMP):
        remove(environment / name)
    done = subprocess.run(
        [sys.executable, "-m", "venv", str(environment)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip
    if done.returncode != 0:
        print(done.stdout.strip(), file=sys.stderr)
        raise SetupError(
            f"`{sys.executable} -m venv {environment}` failed with the message above: repair that Python, or start "
            "with another one."
        )


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif path.is_symlink() or path.exists():
        path.unlink()


def install(environment: Path, extras: set) -> None:
    """Install the course as a link to this checkout, with what the extras name; pip's full output goes to a log."""
    names = ",".join(sorted(extras))
    print(f"Installing the packages for {names}; pip's messages are in {environment / LOG}.", flush=True)
    # A user-wide `user = true` in pip's settings would make every installation into an environment fail.
    variables = dict(os.environ, PIP_USER="0", PYTHONIOENCODING="utf-8")
    if locked():
        # What an installation without hashes has left is not trusted, even if its version is the right one.
        trusted = any(line.startswith("locked ") for line in read_stamp(environment))
        anew = [] if trusted else ["--force-reinstall"]
        run_pip(environment, variables, "w", "--require-hashes", "-r", VERSIONS, *anew)
        # Then the course, from what is there: a package that the list lacks is not fetched, but is an error.
        alone = {name: value for name, value in variables.items() if not name.startswith("PIP_")}
        alone.update(PIP_USER="0", PIP_CONFIG_FILE=os.devnull)
        run_pip(environment, alone, "a", "--no-index", "--no-build-isolation", "-e", f".[{names}]")
    else:
        run_pip(environment, variables, "w", "-e", f".[{names}]")


def run_pip(environment: Path, variables: dict, mode: str, *arguments: str) -> None:
    """Run `pip install` with these arguments and environment variables; SetupError says what to do if it fails."""
    command = [
        str(environment_python(environment)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
        "--progress-bar", "off", *arguments,
    ]  # fmt: skip
    last_lines = collections.deque(maxlen=2000)
    started = time.time()
    with open(str(environment / LOG), mode, encoding="utf-8") as log:
        pip = subprocess.Popen(
            command, cwd=str(CHECKOUT), env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        try:
            for line in pip.stdout:
                log.write(line)
                last_lines.append(line.rstrip())
                show_progress(line.strip())
                if line.startswith("Installing collected packages:"):
                    remove(environment / STAMP)  # from here to the end an interruption leaves a mixture behind
            code = pip.wait()
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
    if code != 0:
        print("\n".join(list(last_lines)[-12:]), file=sys.stderr)
        raise SetupError(f"pip could not install the course (its last lines are above). {pip_advice(last_lines)}")
    print(f"Installed in {time.time() - started:.0f} s.", flush=True)


def show_progress(line: str) -> None:
    """Print those of pip's lines that tell a person that something large is going on."""
    if line.startswith("Downloading ") and ("MB)" in line or "GB)" in line):
        print("  " + line[:110], flush=True)
    elif line.startswith("Installing collected packages:"):
        print(f"  Installing {line.count(',') + 1} packages", flush=True)


def pip_advice(lines) -> str:
    """One sentence that says what to do about a failed installation."""
    text = "\n".join(lines)
    for signs, advice in PIP_ADVICE:
        if any(sign in text for sign in signs):
            return advice
    return "Do what they say, then start again: nothing is downloaded twice."


def write_stamp(environment: Path, extras: set) -> None:
    """Mark the installation as finished, in one step."""
    unfinished = environment / (STAMP + ".part")
    unfinished.write_text("".join(f"{line}\n" for line in sorted(stamp_lines(environment, extras))), encoding="utf-8")
    os.replace(str(unfinished), str(environment / STAMP))


# --- handing over -----------------------------------------------------------------------------------------------------


def hand_over(environment: Path, arguments: list) -> int:
    """Run the command in the environment and return its exit code, 128 + n if signal n ended it."""
    # -P: nothing is imported from the current folder; a file numpy.py there would otherwise stop everything.
    command = [str(environment_python(environment)), "-P", "-m", "workshop.command_line", *arguments]
    process = subprocess.Popen(command)
    # The terminal sends Ctrl-C to both processes: the command ends in its own way, and this one waits for it.
    # A termination reaches this one alone and is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
