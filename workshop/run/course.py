"""Executes notebooks from start to end, and keeps the executed notebooks, a web page of each, scores and a summary.

Each notebook runs in its own kernel, with papermill. Three more things count as failures: a parameter that the notebook
does not have, a `sys.exit` in a cell, and a cell that was never executed.

The notebooks run one after another, or on several workers (`workshop.cluster`); then a notebook that uses what another
one leaves behind waits for it (`NEEDS`). Students' copy of the course has no `workshop.cluster`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from course_utils.results import prepare_output, replacing
from workshop.paths import RunError, checkout, data_label, resolve_data_source, select_notebooks
from workshop.run.kernel import Progress, execute, unknown_parameters
from workshop.run.live import LiveLines, can_redraw
from workshop.run.machine import calm_threads, machine, now
from workshop.run.pages import write_html
from workshop.run.summary import NotebookResult, format_table, write_summary

# One cell may train a network: minutes in the small profile, an hour or more in the others.
CELL_TIMEOUT = {"smoke": 600, "laptop": 3 * 3600, "full": 6 * 3600}
# Notebook 04 scores the network that 03 leaves in the output folder (`networks.foreground_model`).
NEEDS = {"04_instance_evaluation": ["03_binary_training"]}


def run_course(
    data: str = "embedded",
    profile: str = "smoke",
    only: list[str] | None = None,
    seed: int = 0,
    out: Path | None = None,
    cell_timeout: int | None = None,
    workers: int = 1,
    dask: str | None = None,
    verbose: bool = False,
) -> list[NotebookResult]:
    """Execute the solved notebooks of this course, or those of the students if it has no others.

    A run of all notebooks starts from scratch: networks of an earlier run are removed. With `only` they are used.

    Args:
        data: a source that `course_utils.data.load_data` knows; a relative path counts from the current folder.
        profile: "smoke", "laptop", "full" or "auto".
        only: numbers or names of notebooks, as in ["03", "05"]; None for all.
        seed: passed to the notebooks.
        out: results go to the folder `<out>/<data>-<profile>`, default `build` in the checkout.
        cell_timeout: seconds one cell may take; by default what the profile needs.
        workers: notebooks at the same time.
        dask: address of the scheduler of a running cluster that executes them.
        verbose: a line for each cell also on a terminal, where else each notebook has one live line.

    Returns:
        One result for each notebook, in order. A failed notebook does not stop the others.

    Raises:
        RunError: no such notebook or profile, or a folder that cannot be written to.
        ClusterError: see `cluster.executor`.
        DataError: the data source cannot be read.
    """
    from course_utils.data import load_data
    from course_utils.profiles import get_profile

    busy = calm_threads(workers)  # before torch is imported
    solved = checkout() / "solutions"
    sources = select_notebooks(solved if solved.is_dir() else checkout() / "notebooks", only)
    try:
        profile = get_profile(profile).name
    except ValueError as error:
        raise RunError(str(error)) from None
    data = resolve_data_source(data)
    note = load_data(data).note  # a source that cannot be read should fail here, not in every notebook
    name = f"{data_label(data)}-{profile}" + (f"-seed{seed}" if seed else "")
    folder = (checkout() / "build" if out is None else Path(out).absolute()) / name
    prepare_results(folder)

    from course_utils.device import choose_device, describe_device
    from course_utils.networks import model_path

    lines = [busy, f"Data: {note}", f"Profile: {profile}", f"Device: {describe_device(choose_device())}"]
    print("\n".join(filter(None, lines)), flush=True)
    parameters = {"data_source": data, "profile": profile, "seed": seed, "output": str(folder / "output")}
    facts = {"data": {"source": data, "note": note}, "profile": profile, "seed": seed,
             "machine": {**machine(), "device": describe_device(choose_device())}}  # fmt: skip
    with _executor(min(workers, len(sources)), dask) as pool:
        if pool:
            print(f"Workers: {pool.description}", flush=True)
        if only is None:
            shutil.rmtree(model_path(folder / "output", "any").parent, ignore_errors=True)
        return run_notebooks(
            sources, folder, parameters, facts, cell_timeout or CELL_TIMEOUT[profile], pool=pool, verbose=verbose
        )


def prepare_results(folder: Path) -> None:
    """Make the folder of a run; raises `RunError` if it cannot be written."""
    try:
        prepare_output(folder / "output" / "scores")
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise RunError(f"{folder} cannot be written ({reason}): name another --out.") from None


def _executor(workers: int, dask: str | None) -> contextlib.AbstractContextManager:
    """`workshop.cluster.executor` if a cluster is asked for."""
    if workers == 1 and dask is None:
        return contextlib.nullcontext()
    from workshop.cluster import executor

    return executor(workers, dask)


def run_notebooks(
    sources: list[Path],
    folder: Path,
    parameters: dict[str, Any],
    facts: dict[str, Any] | None = None,
    cell_timeout: int = 600,
    kernel_name: str = "python3",
    say: Callable[[str], None] | None = None,
    pool: Any = None,
    verbose: bool = False,
) -> list[NotebookResult]:
    """Execute notebooks and write `NN_topic.ipynb`, `NN_topic.html`, `summary.json` and `summary.md` into `folder`.

    The notebooks run in `<folder>/output`, and leave their scores in `scores/NN_topic.json` there.

    Args:
        sources: the notebooks.
        folder: made if it does not exist.
        parameters: values for the parameters cell; the notebook must have a parameter of each name.
        facts: further entries for the summary.
        cell_timeout: seconds one cell may take.
        kernel_name: "python3" is the Python that runs this.
        say: takes one line of progress, there is one for each cell; None prints them, or draws `LiveLines`.
        verbose: print them also on a terminal.
        pool: `workshop.cluster.Cluster` that executes them; None for this process, one after another.

    Returns one result for each notebook, in the order of `sources`. Raises `RunError` if the folder cannot be written
    to, and `ClusterError` if a worker does not see it or the connection to the cluster was lost.
    """
    live = say is None and not verbose and can_redraw(sys.stdout)
    say = say or (LiveLines([source.stem for source in sources]) if live else partial(print, flush=True))
    prepare_results(folder)
    sources, folder = [source.absolute() for source in sources], folder.absolute()
    finished = folder / f".finished-{uuid.uuid4().hex}"  # what a worker has finished, in case it dies then
    finished.mkdir()
    options = {"parameters": parameters, "cell_timeout": cell_timeout, "kernel_name": kernel_name,
               "others": {source.stem for source in sources}, "live": live}  # fmt: skip
    run_one = partial(_run_once, folder=folder, finished=finished, **options)
    needs = {one: [other for other in sources if other.stem in NEEDS.get(one.stem, ())] for one in sources}
    results: dict[Path, NotebookResult] = {}
    facts = (facts or {}) | ({"workers": pool.description} if pool else {})
    try:
        if pool:
            pool.check_shared_paths([*sources, finished])
            ended = pool.run(run_one, sources, needs, say)
        else:
            ended = ((source, run_one(source, say, threading.Event())) for source in sources)
        for source, result in ended:
            if not isinstance(result, NotebookResult):  # a JobFailed
                error = f"{source.stem} FAILED: {result.reason}"
                result = NotebookResult(source.stem, "failed", 0.0, error=error, date=now())
            results[source] = result
            if result.error:
                say(result.error)
            write_summary(folder, list(results.values()), facts)
    finally:
        shutil.rmtree(finished, ignore_errors=True)
    in_order = [results[source] for source in sources]
    for line in ("", *format_table(in_order), f"\nExecuted notebooks, web pages and summary.json: {folder}"):
        say(line)
    return in_order


def _run_once(
    source: Path, say: Callable[[str], None], stop: threading.Event, folder: Path, finished: Path, **options: Any
) -> NotebookResult:
    """Execute one notebook of a run, unless a worker has finished it already and died afterwards."""
    kept = finished / f"{source.stem}.json"
    with contextlib.suppress(OSError, ValueError):
        return NotebookResult(**json.loads(kept.read_text(encoding="utf-8")))
    result = run_notebook(source, folder, say=say, stop=stop, **options)
    with replacing(kept) as file:
        file.write(json.dumps(asdict(result)).encode())
    return result


def run_notebook(
    source: Path,
    folder: Path,
    parameters: dict[str, Any],
    cell_timeout: int,
    kernel_name: str,
    say: Callable[[str], None],
    stop: threading.Event,
    others: Collection[str] = (),
    live: bool = False,
) -> NotebookResult:
    """Execute one notebook; see `run_notebooks`. Errors inside the notebook are part of the result."""
    name = source.stem
    executed, page = folder / f"{name}.ipynb", folder / f"{name}.html"
    scores_file = folder / "output" / "scores" / f"{name}.json"
    for stale in (executed, page, scores_file):
        stale.unlink(missing_ok=True)
    say(f"{name}  starts")
    started = time.perf_counter()
    progress = Progress(name, say, stop, live)
    failure, scores = unknown_parameters(source, parameters), {}
    if not failure:
        failure = execute(source, executed, folder / "output", parameters, cell_timeout, kernel_name, progress)
    if not failure and scores_file.exists():
        try:
            scores = json.loads(scores_file.read_text(encoding="utf-8"))
        except ValueError as error:
            failure = f"its scores in {scores_file} are not valid JSON: {error}"
    seconds = round(time.perf_counter() - started, 1)
    if executed.exists() and not stop.is_set():
        write_html(executed, page, images_from=source.parent, others=others)
    error, status = (f"{name} FAILED: {failure}", "failed") if failure else ("", "passed")
    say(f"{name}  {status} after {seconds:.1f} s")
    return NotebookResult(name, status, seconds, scores, error, now(), progress.memory.megabytes)
