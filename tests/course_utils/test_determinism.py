"""The same seed on the same machine gives the same numbers, to the last bit: `fit`, three times.

    python3 course.py test -m slow tests/course_utils/test_determinism.py    # with other numbers of workers and threads
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from same_numbers import train

SCRIPT = Path(__file__).parents[1] / "support" / "same_numbers.py"
FORKED = multiprocessing.get_start_method() == "fork"


def in_process(*arguments) -> dict | None:
    """What a new process says; None if it was told to end early."""
    paths = os.pathsep.join([str(SCRIPT.parents[2]), str(SCRIPT.parent)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    if done.returncode == 1 and len(arguments) == 4:
        return None
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_three_times_in_one_process():
    assert len({train()["digest"] for _ in range(3)}) == 1


def test_another_seed_gives_other_numbers():
    assert train()["digest"] != train(seed=4)["digest"]


def test_three_times_in_new_processes_once_killed_and_resumed(tmp_path):
    once, again = in_process(0, 1), in_process(0, 1)
    assert in_process(0, 1, tmp_path / "net.resume", 2) is None and (tmp_path / "net.resume").exists()
    assert once["digest"] == again["digest"] == in_process(0, 1, tmp_path / "net.resume")["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.skipif(not FORKED, reason="workers differ"))])
@pytest.mark.parametrize("threads", [1, 2])
def test_for_any_number_of_workers_and_threads(tmp_path, workers, threads):
    """The numbers differ from those of other workers and threads; the losses of the first epoch only a little."""
    digests = {in_process(workers, threads)["digest"] for _ in range(3)}
    in_process(workers, threads, tmp_path / "net.resume", 2)
    assert digests == {in_process(workers, threads, tmp_path / "net.resume")["digest"]}
    assert in_process(workers, threads)["losses"][0] == pytest.approx(train()["losses"][0], rel=0.05)


def test_the_state_of_torch_before_does_not_count():
    torch.rand(5)
    first = train()["digest"]
    torch.manual_seed(99)
    assert train()["digest"] == first
