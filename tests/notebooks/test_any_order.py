"""Solved notebooks alone, in any order, twice, two at once, and killed in every code cell and started again.

With few images and trainings of seconds; the scores must be those of a notebook that runs alone in a fresh folder.

    python3 course.py test -m slow tests/notebooks/test_any_order.py               # all: an hour or two
    python3 course.py test -m slow tests/notebooks/test_any_order.py -k "die"      # the kills only

With `COURSE_RUNS=FOLDER` finished runs are kept there, and a test that was interrupted goes on where it was;
`FOLDER/log.txt` has a line for each run.
"""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from notebook_runs import NOTEBOOKS, Run, few_images, left_behind, moments, processes, run_notebook

TRAIN_FIRST = sorted(NOTEBOOKS, key=lambda name: "03 05 07 06".find(name[:2]) % 99)  # the others come last
PAIRS = [
    ("03_binary_training", "04_instance_evaluation"), ("05_boundary_watershed", "06_losses_and_tuning"),
    ("05_boundary_watershed", "07_denoising"), ("06_losses_and_tuning", "08_own_images"),
    ("01_data_exploration", "03_binary_training"), ("02_unet", "07_denoising"),
    ("05_boundary_watershed", "05_boundary_watershed"), ("03_binary_training", "03_binary_training"),
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder of all runs."""
    kept = os.environ.get("COURSE_RUNS")
    return Path(kept) if kept else tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs) -> Callable[..., Run]:
    """Runs a notebook in a folder; the failure of a kernel that was not killed is one of the test."""
    data = few_images(runs / "data")

    def run(name: str, folder: Path, **options) -> Run:
        found = run_notebook(name, folder, data, **options)
        log(runs, f"{folder.name} {name} {options or ''} {sum(found.seconds):.0f} s {found.failure[-60:]!r}")
        assert found.killed_in or not found.failure, found.failure
        return found

    return run


def log(runs: Path, line: str) -> None:
    with open(runs / "log.txt", "a") as file:
        print(line, file=file, flush=True)


@pytest.fixture(scope="module")
def alone(run, runs) -> Callable[[str], Run]:
    """The run of a notebook in a fresh folder, with nothing left behind."""

    @functools.cache
    def alone(name: str) -> Run:
        kept = runs / f"alone-{name}.json"
        if kept.exists():
            return Run(**json.loads(kept.read_text()))
        found = run(name, runs / f"alone-{name}")
        assert found.scores and not left_behind(runs / f"alone-{name}")
        kept.write_text(json.dumps(asdict(found)))
        return found

    return alone


@pytest.fixture
def expect(alone, run, runs):
    """The scores are those of the notebook alone, or, of notebook 04, those with the network that 03 left."""

    def expect(name: str, scores: dict, after_03: bool = False) -> None:
        if after_03 and name.startswith("04"):
            run("03_binary_training", runs / "03-then-04")
            assert scores == run(name, runs / "03-then-04").scores
        else:
            assert scores == alone(name).scores

    return expect


def test_a_training_whose_kernel_is_killed_goes_on_and_ends_as_if_nothing_had_happened(run, alone, runs):
    """Killed in the middle of the cell that trains; then run from the top. The short form of the kills."""
    name = "05_boundary_watershed"
    trains = next(n for n, text in enumerate(alone(name).texts, start=1) if "Training one" in text)
    killed = run(name, runs / "short", kill_in=trains, after=alone(name).seconds[trains - 1] / 2)
    assert killed.killed_in == trains and not killed.scores
    assert run(name, runs / "short").scores == alone(name).scores
    assert left_behind(runs / "short") == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_any_one_runs_alone_and_again(name, run, alone, runs):
    again = run(name, runs / f"alone-{name}")
    assert alone(name).scores == again.scores and left_behind(runs / f"alone-{name}") == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(3))
def test_any_order(seed, run, expect, runs):
    order = random.Random(seed).sample(NOTEBOOKS, len(NOTEBOOKS))
    log(runs, f"order {seed}: {' '.join(name[:2] for name in order)}")
    for n, name in enumerate(order):
        expect(name, run(name, runs / f"order-{seed}").scores, after_03="03_binary_training" in order[:n])
    assert left_behind(runs / f"order-{seed}") == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(name[:2] for name in pair))
def test_two_at_once_in_one_folder(pair, alone, runs):
    folder = runs / "at-once" / "-".join(pair)
    references = [alone(name) for name in pair]
    with processes(2) as pool:
        jobs = [pool.submit(run_notebook, name, folder, runs / "data", own=f"-{n}") for n, name in enumerate(pair)]
        found = [job.result() for job in jobs]
    log(runs, f"at once {pair} {[one.failure[-60:] for one in found]}")
    assert [one.failure for one in found] == ["", ""]
    scores = [one.scores for one in found]
    if "04_instance_evaluation" in pair:  # it takes the network of 03 or one of its own, whichever is there
        scores, references = scores[:1], references[:1]
    assert scores == [one.scores for one in references] and left_behind(folder) == []
    assert json.loads((folder / "progress.json").read_text())  # both noted their results there


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", TRAIN_FIRST)
def test_kernels_that_die_in_every_cell_leave_nothing_that_harms(name, run, alone, runs):
    """All in one folder: killed in the first code cell, started again, killed in the second, and so on."""
    folder, kept = runs / f"die-{name}", runs / f"die-{name}.json"
    done = json.loads(kept.read_text()) if kept.exists() else 0
    seconds, rng = alone(name).seconds, random.Random(name)
    # cell 1 is the added one: it says which process to kill
    plan = [(cell, after) for cell in range(2, len(seconds) + 1) for after in moments(seconds, cell, rng)]
    for n, (cell, after) in enumerate(plan[done:], start=done + 1):
        killed = run(name, folder, kill_in=cell, after=after)
        assert killed.killed_in == cell and "Kernel died" in killed.failure
        kept.write_text(json.dumps(n))
    assert run(name, folder).scores == alone(name).scores
    assert left_behind(folder) == []
    log(runs, f"survived: {name}, {len(plan)} kills")
