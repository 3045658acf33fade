"""Finds what can confine a student's notebook on this computer, and starts Python in it.

bubblewrap, on Linux, makes a process that sees the system's libraries, Python and the course, read-only, and nothing
else: no network, no files of the user, no other processes, no variables of the environment. Docker and Podman do the
same with an image. Without any of them nothing is confined, and `Sandbox.description` says so.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import site
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workshop.grade.box.bubblewrap import bubblewrap, package_folders
from workshop.grade.box.containers import container
from workshop.grade.box.folders import FILES, HOME, WORK, packages, temporary_folder
from workshop.grade.box.seccomp import seccomp_filter

KINDS = ("auto", "bubblewrap", "docker", "podman", "unsafe")
MAX_PROCESSES = 128  # threads count, too
MAX_FILE_BYTES = 2**30  # for each file
# Variables that are kept: without the first ones Python does not start on Windows; a cluster's modules need the others.
KEPT = ("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS", "TZ", "PYTHONHOME",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")  # fmt: skip
PROBE = """
import os, sys, threading
import numpy, course_utils, workshop
thread = threading.Thread(target=int)
thread.start(), thread.join()
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
open(sys.argv[2] + "/probe", "w").close()
print("ready")
"""
INSTALL = "install it (Debian and Ubuntu: sudo apt install bubblewrap; Fedora: sudo dnf install bubblewrap)"
OTHERS = "or use --sandbox docker --image NAME, or --unsafe if you trust every notebook"
APPARMOR = (
    "AppArmor forbids it to make user namespaces, as in Ubuntu since 23.10; write a profile for it: "
    "echo 'abi <abi/4.0>, profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }' "
    "| sudo tee /etc/apparmor.d/bwrap && sudo apparmor_parser -r /etc/apparmor.d/bwrap"
)


class SandboxError(ValueError):
    """Students' code cannot be confined as asked for; the text says in one sentence what to do."""


@dataclass(frozen=True)
class Sandbox:
    """What confines a student's notebook: the kind, its program, and for an engine the image."""

    kind: str
    program: str = ""
    image: str = ""

    @property
    def safe(self) -> bool:
        """Whether it confines anything."""
        return self.kind != "unsafe"

    @property
    def is_engine(self) -> bool:
        """Whether a service of this computer, not this process, starts and ends the box."""
        return self.kind in ("docker", "podman")

    @property
    def description(self) -> str:
        """One sentence about what holds the notebooks."""
        if not self.safe:
            return "NOT CONFINED (--unsafe): notebooks can use the network and read and change your files, grades too."
        by = f"{self.kind.capitalize()}, image {self.image}" if self.is_engine else "bubblewrap"
        return f"Each notebook is confined by {by}: no network, no files but its own, no other processes."

    def command(
        self, folder: Path, arguments: Sequence[str], seconds: float, memory: float, name: str,
        seccomp: int | None = None,
    ) -> list[str]:  # fmt: skip
        """The command line that runs Python with these arguments in a box.

        Args:
            folder: the temporary folder of the box.
            arguments: of Python; the folders of the files and of the work are put behind them.
            seconds: of processor time, for each process.
            memory: gigabytes.
            name: of the container.
            seccomp: number of an open file with the filter of system calls.
        """
        limits = {"nproc": MAX_PROCESSES, "cpu": int(seconds) + 1, "fsize": MAX_FILE_BYTES, "core": 0, "nofile": 1024}
        if not self.safe:
            return [sys.executable, "-P", *arguments, str(folder / "files"), str(folder / "work")]
        arguments = [*arguments, FILES, WORK]
        if self.is_engine:
            variables = self.environment(folder)
            return container(self.program, self.image, name, folder, limits, memory, variables, arguments)
        return bubblewrap(self.program, folder, limits, arguments, seccomp)

    def environment(self, folder: Path) -> dict[str, str]:
        """The variables that the notebook sees: what Python and torch need, no passwords and no tokens."""
        work, home = (WORK, HOME) if self.safe else (str(folder / "work"), str(folder / "work"))
        result = {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "USER": "student", "LOGNAME": "student",
            "LANG": "C.UTF-8", "TMPDIR": work, "MPLCONFIGDIR": os.path.join(home, ".matplotlib"),
            "IPYTHONDIR": os.path.join(home, ".ipython"), "COURSE_PROGRESS": os.path.join(work, "progress.json"),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/course",
            # The same result with and without a GPU, and processes side by side that do not wait for each other.
            "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        }  # fmt: skip
        if self.is_engine:
            return result
        installed = {*site.getsitepackages([sys.prefix, sys.base_prefix]), site.getusersitepackages()}
        roots = dict.fromkeys(str(package.parent) for package in packages())
        paths = [*(root for root in roots if root not in installed), *package_folders()]
        result |= {name: os.environ[name] for name in KEPT if name in os.environ}
        result["PYTHONPATH"] = os.pathsep.join(paths)
        result["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
        return result | ({"TEMP": work, "TMP": work, "USERPROFILE": work} if os.name == "nt" else {})

    def start(
        self, folder: Path, arguments: Sequence[str], seconds: float, memory: float, name: str
    ) -> subprocess.Popen[bytes]:
        """Start Python in a box, with pipes. The arguments are those of `command`."""
        # The engine's client needs the user's own variables; its container does not get them.
        environment = dict(os.environ) if self.is_engine else self.environment(folder) | {"COURSE_BOX": name}
        with contextlib.ExitStack() as stack:
            number = None
            if self.kind == "bubblewrap" and (rules := seccomp_filter(platform.machine())):
                (folder / "seccomp").write_bytes(rules)
                number = stack.enter_context(open(folder / "seccomp", "rb")).fileno()
            return subprocess.Popen(
                self.command(folder, arguments, seconds, memory, name, number), env=environment, cwd=folder / "work",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                pass_fds=() if number is None else (number,),
                # Its own group, so that Ctrl-C in the terminal is for the grader.
                start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )  # fmt: skip


def find_sandbox(kind: str = "auto", image: str | None = None) -> Sandbox:
    """What confines notebooks on this computer, after it was tried.

    Args:
        kind: "bubblewrap", "docker", "podman", "unsafe" (nothing is confined), or "auto": bubblewrap.
        image: for Docker and Podman, an image with Python and the packages of the course.

    Raises:
        SandboxError: it is not there or does not work; the text says what to do.
    """
    if kind not in KINDS:
        raise SandboxError(f"There is no sandbox {kind!r}; choose from: {', '.join(KINDS)}.")
    if kind == "unsafe":
        return Sandbox("unsafe")
    if kind in ("docker", "podman"):
        return _find_engine(kind, image)
    if image:
        raise SandboxError(f"The image {image} is for Docker or Podman: add --sandbox docker or --sandbox podman.")
    if not sys.platform.startswith("linux"):
        raise SandboxError(
            "bubblewrap, which confines students' code, runs on Linux only: use --sandbox docker --image NAME with "
            "Docker Desktop, or WSL 2 on Windows, or --unsafe if you trust every notebook."
        )
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError(f"bubblewrap, which confines students' code, is not installed: {INSTALL}, {OTHERS}.")
    if missing := [name for name in ("prlimit", "setpriv") if shutil.which(name) is None]:
        raise SandboxError(f"bubblewrap needs {' and '.join(missing)} here: install util-linux, {OTHERS}.")
    sandbox = Sandbox("bubblewrap", program)
    if said := try_sandbox(sandbox):
        raise SandboxError(f"bubblewrap does not work here ({said}): {_advice(said)}, {OTHERS}.")
    return sandbox


def _find_engine(kind: str, image: str | None) -> Sandbox:
    name = kind.capitalize()
    if not image:
        raise SandboxError(f"{name} needs an image with Python and the packages of the course: add --image NAME.")
    program = shutil.which(kind)
    if program is None:
        raise SandboxError(f"{name} is not installed: install it, or leave out --sandbox {kind} to use bubblewrap.")
    sandbox = Sandbox(kind, program, image)
    if said := try_sandbox(sandbox):
        test = f"{kind} run --rm {image} python3 -c 'import torch, IPython'"
        raise SandboxError(f"{name} does not work with the image {image} ({said}): find out why with `{test}`.")
    return sandbox


def try_sandbox(sandbox: Sandbox) -> str:
    """What is wrong if Python, numpy and the course are started in the box, or nothing."""
    name = f"course-probe-{secrets.token_hex(8)}"
    with temporary_folder() as folder:
        try:
            with sandbox.start(folder, ["-c", PROBE], 60, 4, name) as process:
                try:
                    output, errors = process.communicate(timeout=120)
                finally:
                    process.kill()
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)[:200]
    if output.strip().endswith(b"ready"):
        return ""
    return " ".join(errors.decode(errors="replace").split())[-200:] or f"exit code {process.returncode}"


def _advice(said: str) -> str:
    """What helps against what bubblewrap said."""
    if os.getuid() == 0 and "Permission denied" in said and "bwrap: " not in said:
        return "as root, notebooks run as another user: make Python and the course readable for all (chmod -R go+rX)"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return APPARMOR
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "allow user namespaces (sudo sysctl -w kernel.unprivileged_userns_clone=1)"
    if _setting("user/max_user_namespaces") == "0":
        return "allow user namespaces (sudo sysctl -w user.max_user_namespaces=15000)"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "this is a container, which forbids it: grade outside of it, or start it with --privileged"
    return "find out why with `bwrap --ro-bind / / --unshare-all true`"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""
