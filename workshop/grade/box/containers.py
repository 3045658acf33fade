"""The command line of Docker and of Podman, which take the same words, and how a container is found and removed."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from workshop.grade.box.folders import FILES, HOME, MAX_TEMPORARY_BYTES, WORK, course_folders

USER = 61184  # nobody's
BEGIN = f'mkdir -p {WORK} {HOME} && cd {WORK} && exec "$@"'


def container(
    engine: str, image: str, name: str, folder: Path, limits: dict[str, int], memory: float,
    environment: dict[str, str], arguments: Sequence[str],
) -> list[str]:  # fmt: skip
    """The command line that runs Python with these arguments in a container of an image, which has Python and packages.

    Args:
        engine: the program, Docker or Podman.
        image: its name.
        name: of the container.
        folder: the temporary folder of the box; `files` in it is what the box may read.
        limits: as those of prlimit.
        memory: gigabytes.
        environment: variables.
        arguments: of Python.
    """
    processes = limits["nproc"]
    ulimits = {key: value for key, value in limits.items() if key != "nproc"}
    mounts = [(folder / "files", FILES), *((path, f"/course/{path.name}") for path in course_folders())]
    # Without it SELinux lets no container read a folder of the user.
    label = ["--security-opt", "label=disable"] if os.path.isdir("/sys/fs/selinux") else []
    return [
        engine, "run", "--rm", "--interactive", "--init", "--name", name, "--network", "none", "--read-only",
        "--ipc", "private", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", *label,
        "--user", f"{USER}:{USER}", "--pids-limit", str(processes), "--memory", f"{memory:g}g",
        "--memory-swap", f"{memory:g}g", "--cpus", "1", "--shm-size", str(MAX_TEMPORARY_BYTES),
        *(part for key, value in ulimits.items() for part in ("--ulimit", f"{key}={value}")),
        "--tmpfs", f"/tmp:rw,nosuid,nodev,size={MAX_TEMPORARY_BYTES},mode=1777", "--workdir", "/tmp",
        *(part for source, target in mounts for part in ("--mount", _mount(source, target))),
        *(part for pair in environment.items() for part in ("--env", "=".join(pair))),
        "--entrypoint", "/bin/sh", image, "-c", BEGIN, "sh", "python3", "-P", *arguments,
    ]  # fmt: skip


def _mount(source: Path, target: str) -> str:
    """A read-only mount as both engines read it: a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["type=bind", f"source={source}", f"target={target}", "readonly"])
    return text.getvalue()


def remove_container(engine: str, name: str) -> None:
    """End a container, whatever runs in it."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([engine, "rm", "--force", name], capture_output=True, timeout=60)


def container_process(engine: str, name: str) -> int:
    """The number of the first process of a container, or 0 where it cannot be seen (Docker Desktop)."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, ValueError):
        command = [engine, "inspect", "--format", "{{.State.Pid}}", name]
        number = int(subprocess.run(command, capture_output=True, timeout=30, text=True).stdout)
        return number if os.path.exists(f"/proc/{number}/stat") else 0
    return 0
