"""What the tests of the box and of hostile notebooks share: a sandbox or a reason to skip, and what must not change."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from workshop.grade.box.processes import all_processes
from workshop.grade.box.sandbox import Sandbox, SandboxError, find_sandbox


@functools.cache
def confined() -> Sandbox:
    """bubblewrap; without it the test is skipped, or fails with COURSE_SANDBOX=required."""
    try:
        return find_sandbox("bubblewrap")
    except SandboxError as error:
        if os.environ.get("COURSE_SANDBOX") == "required":
            raise
        pytest.skip(str(error))


def tree(folder: Path) -> dict[str, tuple]:
    """Every path below a folder with what would show a change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, status.st_mtime_ns, content)
    return found


def descendants(number: int) -> set[int]:
    """Processes that a process has started, and theirs, without those that have ended."""
    everything, found, new = all_processes(), set(), {number}
    while new:
        new = {one.number for one in everything.values() if one.parent in new and not one.zombie} - found
        found |= new
    return found
