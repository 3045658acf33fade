"""Processes that write into one record of progress at the same time, or are killed while they do.

    python tests/support/record_writers.py at_once PROCESSES MARKS [no-locks]
    python tests/support/record_writers.py killed TIMES

They write to the file that `COURSE_PROGRESS` names, and print the result as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from errno import ENOLCK

import filelock

from course_utils.exercises import progress
from course_utils.exercises.feedback import CheckResult


def at_once(processes: int, marks: int) -> dict:
    """Each process notes its own marks; which ones are in the record."""
    start = time.monotonic() + 0.2  # all at once
    children = []
    for number in range(processes):
        if (child := os.fork()) == 0:
            time.sleep(max(0, start - time.monotonic()))
            written = [progress.note(CheckResult(f"{number}.{mark}", "passed")) for mark in range(marks)]
            os._exit(0 if all(written) else 1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"codes": codes, "kept": len(progress.statuses())}


def killed(times: int) -> dict:
    """One process after another notes marks without end, until it is killed; how many noted marks are missing."""
    rng, noted, missing, kills = random.Random(0), set(), set(), 0
    for number in range(times):
        reads, writes = os.pipe()
        if (child := os.fork()) == 0:
            for mark in range(10**6):
                progress.note(CheckResult(f"{number}.{mark}", "passed"))
                os.write(writes, f"{number}.{mark}\n".encode())  # the kernel keeps it, whatever becomes of this process
        os.close(writes)
        time.sleep(rng.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with os.fdopen(reads) as pipe:
            noted |= set(pipe.read().split())
        json.loads(progress.record_file().read_text())  # whole after each kill
        missing |= noted - set(progress.statuses())
    return {"kills": kills, "noted": len(noted), "missing": sorted(missing)}


def without_locks(*_, **__) -> None:
    raise random.choice([NotImplementedError("no flock here"), OSError(ENOLCK, "No locks available")])


if __name__ == "__main__":
    task, *numbers = sys.argv[1:]
    if numbers[-1] == "no-locks":
        filelock.FileLock.acquire = without_locks
        numbers.pop()
    print(json.dumps({"at_once": at_once, "killed": killed}[task](*map(int, numbers))))
