"""Execute notebooks from start to end, and keep what came out: executed notebook, web page, scores, summary.

Each notebook runs in a kernel of its own, with papermill. Beyond what papermill notices, these are failures too: a
parameter the notebook does not have, a `sys.exit` in a cell, a cell that was never executed.

One after another, or by several workers at the same time (`workshop.cluster`), except that a notebook which uses
what another one leaves behind waits for it (`NEEDS`).

The web pages need no network: formulas become MathML, images are embedded, nothing is loaded from elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from course_utils.results import replacing
from workshop.cluster import Cluster, JobFailed, LocalExecutor, Stop, executor
from workshop.paths import RunError, checkout, data_label, resolve_data_source, select_notebooks
from workshop.run.kernel import Progress, execute, private_jupyter, unknown_parameters
from workshop.run.machine import machine, now
from workshop.run.pages import write_html
from workshop.run.summary import NotebookResult, format_table, write_summary

# One cell may train a network: minutes in the small profile, an hour or more in the others.
CELL_TIMEOUT = {"smoke": 600, "laptop": 3 * 3600, "full": 6 * 3600}
# Notebook 04 scores the network that 03 leaves in the output folder (`recipes.foreground_model`).
NEEDS = {"04_instance_evaluation": ["03_binary_training"]}


# --- the whole course -------------------------------------------------------------------------------------------------


def run_course(
    data: str = "embedded",
    profile: str = "smoke",
    only: list[str] | None = None,
    seed: int = 0,
    out: Path | None = None,
    cell_timeout: int | None = None,
    workers: int = 1,
    dask: str | None = None,
) -> list[NotebookResult]:
    """Execute the solved notebooks of this checkout.

    A run of all notebooks starts afresh: networks that an earlier run left are removed. With `only` they are used.

    Args:
        data: a source that `course_utils.data.load_data` knows; a relative path counts from the current folder.
        profile: "smoke", "laptop", "full" or "auto".
        only: numbers or names of notebooks, as in ["03", "05"]; None for all.
        seed: passed to the notebooks.
        out: results go to the folder `<out>/<data>-<profile>`, default `build` in the checkout.
        cell_timeout: seconds one cell may take; by default what the profile needs.
        workers: notebooks at the same time.
        dask: address of the scheduler of a running cluster that executes them instead.

    Returns:
        One result a notebook, in order. A failed notebook does not stop the others.

    Raises:
        RunError: no such notebook, profile, or a folder that cannot be written to.
        ClusterError: see `cluster.executor`.
        DataError: the data source cannot be read.
    """
    from course_utils.data import load_data
    from course_utils.device import choose_device, describe_device
    from course_utils.networks import model_path
    from course_utils.profiles import get_profile

    sources = select_notebooks(checkout() / "solutions", only)
    try:
        profile = get_profile(profile).name
    except ValueError as error:
        raise RunError(str(error)) from None
    data = resolve_data_source(data)
    note = load_data(data).note  # a source that cannot be read should fail here, not in five notebooks
    print(f"Data: {note}\nProfile: {profile}\nDevice: {describe_device(choose_device())}", flush=True)

    name = f"{data_label(data)}-{profile}" + (f"-seed{seed}" if seed else "")
    folder = (checkout() / "build" if out is None else Path(out).absolute()) / name
    parameters = {"data_source": data, "profile": profile, "seed": seed, "output": str(folder / "output")}
    facts = {"data": {"source": data, "note": note}, "profile": profile, "seed": seed,
             "machine": {**machine(), "device": describe_device(choose_device())}}  # fmt: skip
    with executor(min(workers, len(sources)), dask) as pool:
        if pool.description:
            print(f"Workers: {pool.description}", flush=True)
        if only is None:
            shutil.rmtree(model_path(folder / "output", "any").parent, ignore_errors=True)
        timeout = cell_timeout or CELL_TIMEOUT.get(profile, 6 * 3600)
        return run_notebooks(sources, folder, parameters, facts, timeout, pool=pool)


# --- a list of notebooks ----------------------------------------------------------------------------------------------


def run_notebooks(
    sources: list[Path],
    folder: Path,
    parameters: dict[str, Any],
    facts: dict[str, Any] | None = None,
    cell_timeout: int = 600,
    kernel_name: str = "python3",
    say: Callable[[str], None] | None = None,
    pool: LocalExecutor | Cluster | None = None,
) -> list[NotebookResult]:
    """Execute notebooks and write everything into `folder`.

    It gets `NN_topic.ipynb` (executed), `NN_topic.html`, `summary.json`, `summary.md`, and `output/`, in which the
    notebooks run. A notebook's scores are read from `output/scores/NN_topic.json`; what stood there before is removed.

    Args:
        sources: the notebooks.
        folder: made if it is not there.
        parameters: values for the parameters cell; the notebook must have a parameter of each name.
        facts: further entries for the summary.
        cell_timeout: seconds one cell may take.
        kernel_name: for tests; "python3" is the Python that runs this.
        say: takes one line of progress; default: print.
        pool: where they are executed, from `cluster.executor`; by default here, one after another.

    Returns:
        One result a notebook, in the order of `sources`.

    Raises:
        RunError: the folder cannot be written to.
        ClusterError: a worker does not see the folder, or the connection to the cluster was lost.
    """
    pool = pool or LocalExecutor()
    say = say or (lambda line: print(line, flush=True))
    output = folder / "output"
    try:
        (output / "scores").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise RunError(
            f"Results cannot be written to {folder} ({error.strerror}). Name another folder with --out."
        ) from error

    sources, folder = [source.absolute() for source in sources], folder.absolute()
    finished = folder / f".finished-{uuid.uuid4().hex}"  # what a worker has finished, in case it dies then
    finished.mkdir()
    run_one = partial(
        _run_once, folder=folder, parameters=parameters, cell_timeout=cell_timeout, kernel_name=kernel_name,
        finished=finished,
    )  # fmt: skip
    needs = {one: [other for other in sources if other.stem in NEEDS.get(one.stem, ())] for one in sources}
    results: dict[Path, NotebookResult] = {}
    facts = (facts or {}) | ({"workers": pool.description} if pool.description else {})
    try:
        pool.check_shared_paths([*sources, finished])
        for source, result in pool.run(run_one, sources, needs, say):
            if isinstance(result, JobFailed):
                error = f"{source.stem} FAILED: {result.reason}"
                result = NotebookResult(source.stem, "failed", 0.0, error=error, date=now())
            results[source] = result
            if result.error:
                say(result.error)
            write_summary(folder, list(results.values()), facts)
    finally:
        shutil.rmtree(finished, ignore_errors=True)
    in_order = [results[source] for source in sources]
    say("")
    for line in format_table(in_order):
        say(line)
    say(f"\nExecuted notebooks, web pages and summary.json: {folder}")
    return in_order


# While a notebook runs, variables of its whole process are set: a worker with several threads takes one at a time.
_one_at_a_time = threading.Lock()


def _run_once(
    source: Path, say: Callable[[str], None], stop: Stop, folder: Path, finished: Path, **options: Any
) -> NotebookResult:
    """Execute one notebook of a run, unless a worker that died afterwards has finished it already."""
    kept = finished / f"{source.stem}.json"
    with contextlib.suppress(OSError, ValueError):
        return NotebookResult(**json.loads(kept.read_text(encoding="utf-8")))
    with _one_at_a_time, private_jupyter():
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
    stop: Stop,
) -> NotebookResult:
    """Execute one notebook; see `run_notebooks`. Never raises for what happens inside the notebook."""
    name = source.stem
    executed, page, scores_file = folder / f"{name}.ipynb", folder / f"{name}.html", _scores_file(folder, name)
    for stale in (executed, page, scores_file):
        stale.unlink(missing_ok=True)
    say(f"{name}  starts")
    started = time.perf_counter()
    progress = Progress(name, say, stop)
    failure, scores = unknown_parameters(source, parameters), {}
    if not failure:
        try:
            failure = execute(source, executed, folder / "output", parameters, cell_timeout, kernel_name, progress)
        finally:
            progress.stop()
    if not failure and scores_file.exists():
        try:
            scores = json.loads(scores_file.read_text(encoding="utf-8"))
        except ValueError as error:
            failure = f"its scores in {scores_file} are no JSON: {error}"
    seconds = round(time.perf_counter() - started, 1)
    if executed.exists() and not stop.is_set():
        write_html(executed, page, images_from=source.parent)
    error = f"{name} FAILED: {failure}" if failure else ""
    status = "failed" if failure else "passed"
    say(f"{name}  {status} after {seconds:.1f} s")
    return NotebookResult(name, status, seconds, scores, error, now())


def _scores_file(folder: Path, name: str) -> Path:
    return folder / "output" / "scores" / f"{name}.json"
