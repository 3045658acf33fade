"""Finds what can confine a student's notebook on this computer, and writes the command lines for it.

bubblewrap, on Linux, makes a process that sees the system's libraries, Python and the course, read-only, and nothing
else: no network, no files of the user, no other processes, no variables of the environment. Docker and Podman do the
same with an image. Without any of them nothing is confined, and `Sandbox.description` says so.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import course_utils
import workshop
from workshop.grade.folders import temporary_folder

KINDS = ("auto", "bubblewrap", "docker", "podman", "unsafe")
MAX_PROCESSES = 128  # threads count, too
MAX_FILE_BYTES = 2**30  # for each file
TEMPORARY_BYTES = 2**30  # in /tmp, and the same in /dev/shm
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# What programs look up: libraries, where Debian keeps links to them, fonts, the time zone. No passwords, no hosts.
SYSTEM_FILES = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime", "mime.types")
UNUSED_USERS = range(61184, 65520)  # systemd keeps them for services that get a user of their own
FILES, WORK, HOME = "/tmp/files", "/tmp/work", "/tmp/home"
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
    "AppArmor forbids it to make user namespaces, as Ubuntu does since 23.10: write a profile for it, "
    "sudo sh -c 'echo \"abi <abi/4.0>, profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }\" "
    "> /etc/apparmor.d/bwrap && apparmor_parser -r /etc/apparmor.d/bwrap'"
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
    def description(self) -> str:
        """One sentence about what holds the notebooks."""
        if self.kind == "unsafe":
            return (
                "NOT CONFINED: notebooks run as you, and can read and change your files, use the network, "
                "and change grades."
            )
        name = {"bubblewrap": "bubblewrap", "docker": "Docker", "podman": "Podman"}[self.kind]
        image = f", image {self.image}" if self.image else ""
        return f"Each notebook is confined by {name}{image}: no network, no files but its own, no other processes."

    def command(self, folder: Path, program: Sequence[str], seconds: float, memory: float, name: str) -> list[str]:
        """The command line that runs Python with these arguments in the box.

        Args:
            folder: the temporary folder of the box, with `files` (for the box to read) and `work` (only if unsafe).
            program: arguments of Python; the folders of the files and of the work are put behind them.
            seconds: of processor time, for each process.
            memory: gigabytes.
            name: of the container.
        """
        if self.kind == "unsafe":
            return [sys.executable, "-P", *program, str(folder / "files"), str(folder / "work")]
        limits = {"nproc": MAX_PROCESSES, "cpu": int(seconds) + 1, "fsize": MAX_FILE_BYTES, "core": 0, "nofile": 1024}
        if self.kind == "bubblewrap":
            user = os.getuid() or secrets.choice(UNUSED_USERS)
            python = [sys.executable, "-P", *program, FILES, WORK]
            return [self.program, *_bubblewrap(folder, user), "--", *_drop_root(user), *_prlimit(limits), *python]
        return [
            self.program, "run", "--rm", "--interactive", "--init", "--name", name, "--network", "none", "--read-only",
            "--ipc", "private", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "61184:61184",
            "--pids-limit", str(MAX_PROCESSES), "--memory", f"{memory:g}g", "--memory-swap", f"{memory:g}g",
            "--cpus", "1", "--shm-size", str(TEMPORARY_BYTES),
            *(part for key, value in limits.items() if key != "nproc" for part in ("--ulimit", f"{key}={value}")),
            "--tmpfs", f"/tmp:rw,nosuid,nodev,size={TEMPORARY_BYTES},mode=1777", "--workdir", "/tmp",
            *(part for source, target in _engine_mounts(folder) for part in ("--mount", _mount(source, target))),
            *(part for pair in self.environment(folder).items() for part in ("--env", "=".join(pair))),
            self.image, "python3", "-P", *program, FILES, WORK,
        ]  # fmt: skip

    def environment(self, folder: Path) -> dict[str, str]:
        """The variables that the notebook sees: what Python and torch need, no passwords and no tokens."""
        work = str(folder / "work") if self.kind == "unsafe" else WORK
        home = work if self.kind == "unsafe" else HOME
        result = {
            "PATH": os.defpath, "HOME": home, "USER": "student", "LOGNAME": "student", "LANG": "C.UTF-8",
            "TMPDIR": work, "COURSE_PROGRESS": str(Path(work, "progress.json")), "MPLBACKEND": "Agg",
            "MPLCONFIGDIR": str(Path(home, ".matplotlib")), "IPYTHONDIR": str(Path(home, ".ipython")),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/course",
            # The same result with and without a GPU, and processes side by side that do not wait for each other.
            "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        }  # fmt: skip
        if self.kind in ("docker", "podman"):
            return result | {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        roots = dict.fromkeys(str(package.parent) for package in _packages())
        result["PYTHONPATH"] = os.pathsep.join([*(root for root in roots if root not in _site_folders()), *_extra()])
        result["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
        # On Windows Python does not start without the first ones; the others are where modules of a cluster put Python.
        kept = ("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS", "TZ")
        kept += ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "PYTHONHOME")
        result |= {name: os.environ[name] for name in kept if name in os.environ}
        return result | ({"TEMP": work, "TMP": work, "USERPROFILE": work} if os.name == "nt" else {})


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
    if not sys.platform.startswith("linux"):
        raise SandboxError(
            "bubblewrap runs on Linux only, and students' code would not be confined here: use --sandbox docker "
            "--image NAME with Docker Desktop, or WSL 2 on Windows, or --unsafe if you trust every notebook."
        )
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError(f"bubblewrap, which confines students' code, is not installed: {INSTALL}, {OTHERS}.")
    missing = [name for name in ("prlimit", "setpriv") if shutil.which(name) is None]
    if missing:
        raise SandboxError(f"bubblewrap needs {' and '.join(missing)} of util-linux: install util-linux, {OTHERS}.")
    sandbox = Sandbox("bubblewrap", program)
    if said := try_sandbox(sandbox):
        raise SandboxError(f"bubblewrap does not work here ({said}): {_advice(said)}, {OTHERS}.")
    return sandbox


def try_sandbox(sandbox: Sandbox) -> str:
    """What is wrong if Python, numpy and the course are started in the box, or nothing."""
    with temporary_folder() as folder:
        command = sandbox.command(folder, ["-c", PROBE], 60, 4, f"course-probe-{secrets.token_hex(6)}")
        try:
            done = subprocess.run(
                command, env=sandbox.environment(folder), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=120, text=True, errors="replace",
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)[:200]
    if done.stdout.strip().endswith("ready"):
        return ""
    return " ".join(done.stderr.split())[-200:] or f"exit code {done.returncode}"


def _advice(said: str) -> str:
    """What helps against what bubblewrap said."""
    def setting(path: str) -> str:
        try:
            return Path("/proc/sys", path).read_text().strip()
        except OSError:
            return ""

    if "Permission" in said and ("Error: " in said or "python" in said or "execvp" in said) and os.getuid() == 0:
        return "as root, notebooks run as another user: make Python and the course readable for all (chmod -R go+rX)"
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return APPARMOR
    if setting("kernel/unprivileged_userns_clone") == "0":
        return "allow user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if setting("user/max_user_namespaces") == "0":
        return "allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "this is a container, which forbids it: grade outside, or start the container with --privileged"
    return "try `bwrap --ro-bind / / --unshare-all true` to find out why"


def _find_engine(kind: str, image: str | None) -> Sandbox:
    name = kind.capitalize()
    if not image:
        raise SandboxError(f"{name} needs an image with Python and the packages of the course: add --image NAME.")
    program = shutil.which(kind)
    if program is None:
        raise SandboxError(f"{name} is not installed, and students' code would not be confined: install it first.")
    sandbox = Sandbox(kind, program, image)
    if said := try_sandbox(sandbox):
        raise SandboxError(
            f"{name} does not work with the image {image} ({said}): look whether `{kind} run --rm {image} python3 -c "
            '"import torch, IPython"` does.'
        )
    return sandbox


# what the box sees


def _packages() -> list[Path]:
    """The folders of the course's packages, as they are found."""
    return [Path(package.__file__).absolute().parent for package in (course_utils, workshop)]


def _course() -> Iterator[Path]:
    """The course: its packages, and in a checkout the images and networks. Not the checkout, which may hold grades."""
    for package in _packages():
        yield package
        yield from (data for data in [package.parent / "data"] if data.is_dir() and package.name == "course_utils")


def _site_folders() -> list[str]:
    return [*site.getsitepackages([sys.prefix, sys.base_prefix]), site.getusersitepackages()]


def _extra() -> list[str]:
    """Folders of installed packages that lie outside of the Python installation, such as those of `pip --user`."""
    own = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix, *SYSTEM)}
    return [
        entry
        for entry in sys.path
        if Path(entry).name in ("site-packages", "dist-packages") and os.path.isdir(entry)
        and not any(Path(os.path.realpath(entry)).is_relative_to(prefix) for prefix in own)
    ]  # fmt: skip


def _libraries() -> list[str]:
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [folder for folder in folders if os.path.isabs(folder) and Path(folder).name in ("lib", "lib64")]


def _readable() -> list[Path]:
    """Folders and files outside of the system that the box needs, parents before what lies in them."""
    python = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    found = {*_course(), *(Path(os.path.abspath(path)) for path in (*python, *_extra(), *_libraries()))}
    link = Path(sys.executable)
    for _ in range(40):  # bin/python may be a link to a link
        found.add(link.parent if link.parent.name == "bin" else link)
        if not link.is_symlink():
            break
        link = Path(os.path.normpath(link.parent / os.readlink(link)))
    found |= {Path(os.path.realpath(path)) for path in found}
    system = tuple(Path(path) for path in SYSTEM)
    inside = {path for path in found if any(path.is_relative_to(folder) for folder in (*system, *(found - {path})))}
    return sorted(found - inside - {Path("/")})


def _bubblewrap(folder: Path, user: int) -> list[str]:
    """The arguments of bubblewrap: namespaces, then what is seen, from the outside in."""
    root = os.getuid() == 0
    result = [
        *([] if root else ["--unshare-user"]), "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
        "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--hostname", "box",
    ]  # fmt: skip
    for path in SYSTEM:
        if os.path.islink(path):
            result += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            result += [*_parents(Path(path)), "--ro-bind", path, path]
    result += _parents(Path("/etc/x"))
    for name in SYSTEM_FILES:
        if os.path.exists(f"/etc/{name}"):
            result += ["--ro-bind", os.path.realpath(f"/etc/{name}"), f"/etc/{name}"]
    passwd = folder / "passwd"
    passwd.write_text(f"student:x:{user}:{user}::{HOME}:/bin/sh\n")
    result += ["--ro-bind", str(passwd), "/etc/passwd"]
    result += ["--proc", "/proc", "--dev", "/dev", *_tmpfs("/dev/shm"), "--remount-ro", "/dev", *_tmpfs("/tmp")]
    result += [*_parents(Path("/sys/devices/system/cpu")), *["--ro-bind-try", *["/sys/devices/system/cpu"] * 2]]
    for path in _readable():
        result += [*_parents(path), "--ro-bind", os.path.realpath(path), str(path)]
    result += ["--perms", "0755", "--dir", FILES, "--ro-bind", str(folder / "files"), FILES]
    result += [part for path in (WORK, HOME) for part in ("--perms", "0777", "--dir", path)]
    return [*result, "--remount-ro", "/", "--chdir", WORK]


def _tmpfs(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(TEMPORARY_BYTES), "--tmpfs", path]


def _parents(path: Path) -> list[str]:
    """Make the folders above a path so that all may pass them; bubblewrap by itself makes them for root only."""
    above = [str(parent) for parent in reversed(path.parents) if str(parent) not in ("/", "/tmp")]
    return [part for parent in above for part in ("--perms", "0755", "--dir", parent)]


def _drop_root(user: int) -> list[str]:
    """As root: become a user whom nobody else is. Of an ordinary user there is nothing to drop."""
    if os.getuid() != 0:
        return []
    names = ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
    return ["setpriv", *names, "--no-new-privs", "--bounding-set=-all"]


def _prlimit(limits: dict[str, int]) -> list[str]:
    return ["prlimit", *(f"--{name}={value}" for name, value in limits.items()), "--"]


def _engine_mounts(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "files", FILES
    for path in _course():
        yield path, f"/course/{path.name}"


def _mount(source: Path, target: str) -> str:
    """A read-only mount as Docker and Podman read it: a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["type=bind", f"source={source}", f"target={target}", "readonly"])
    return text.getvalue()


def end_container(engine: str, name: str) -> None:
    """Remove a container of Docker or Podman, whatever runs in it."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([engine, "rm", "--force", name], capture_output=True, timeout=60)


def container_process(engine: str, name: str) -> int:
    """The number of the first process of a container, or 0 where it cannot be seen (Docker Desktop)."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, ValueError):
        command = [engine, "inspect", "--format", "{{.State.Pid}}", name]
        number = int(subprocess.run(command, capture_output=True, timeout=30, text=True).stdout)
        return number if os.path.exists(f"/proc/{number}/stat") else 0
    return 0
