"""Runs jobs in this process, in several processes on this computer, or on a running dask cluster.

`course.py run` and `course.py grade` hand their notebooks to it. dask.distributed gives each job to a free worker, and
the job of a worker that died to another one, even if the job was finished and only its result was lost. So the function
of a job keeps what is finished in a file, and looks there first.

A scheduler executes what its clients send. The one that is started here takes only those with its certificate, which is
made for the run and is never in a file, an argument or the environment. A running cluster is asked with the
certificates of dask's own settings.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import queue
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from workshop.paths import course_code

SECONDS_TO_ANSWER = 5  # for a scheduler
SECONDS_TO_JOIN = 20  # for its first worker
SETTINGS = {f"distributed.{name}.http.routes": [] for name in ("scheduler", "worker")}  # no web pages
FILES = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")
CERTIFICATES = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in FILES)
SETTINGS |= {"distributed.nanny.pre-spawn-environ": {}}  # a job has as many threads as `course.py` has chosen

Say = Callable[[str], None]  # takes one line of progress


class ClusterError(ValueError):
    """The jobs cannot be spread as asked for; the text says in one sentence what to do."""


class Stop(Protocol):
    def is_set(self) -> bool:
        """Whether the run was interrupted: then the job should end early."""


@dataclass(frozen=True)
class JobFailed:
    """The job killed every worker it ran on."""

    reason: str


@contextlib.contextmanager
def executor(
    workers: int = 1, address: str | None = None, needs_tls: bool = False
) -> Iterator[LocalExecutor | Cluster]:
    """What runs the jobs; at the end of the `with` block none of them is left running.

    Args:
        workers: processes on this computer; 1 is this process, without a cluster.
        address: of the scheduler of a running cluster, as in "tls://127.0.0.1:8786"; its own workers run the jobs.
        needs_tls: refuse a running scheduler that asks for no certificate, because the jobs run the code of others.

    Raises:
        ClusterError: distributed is not installed, no scheduler answers or takes the certificate, it has no workers, or
            one of them has another version of the course.
    """
    if address is None and workers == 1:
        yield LocalExecutor()
        return
    if address is not None and workers != 1:
        raise ClusterError(f"The cluster at {address} has its own workers: leave out --workers {workers} or --dask.")
    if needs_tls and address is not None and not address.startswith("tls://"):
        reason = "also from the code of students that runs without a sandbox"
        raise ClusterError(f"{address} takes jobs from anybody, {reason}: start the cluster with certificates (tls://).")
    try:
        import distributed  # noqa: F401

        if address is None:
            import cryptography  # noqa: F401  # distributed makes the certificate with it
    except ImportError:
        raise ClusterError("--workers and --dask need more packages: pip install distributed cryptography") from None
    for name in ("distributed", "distributed.client"):  # what matters in their logs arrives as an exception
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _local_cluster(workers) if address is None else _running_cluster(address) as client:
        yield Cluster(client, f"{workers} processes" if address is None else address)


class LocalExecutor:
    """This process: one job after another."""

    description = ""

    def run(
        self, function: Callable, jobs: Sequence[Hashable], after: Mapping | None = None, say: Say = print
    ) -> Iterator[tuple[Any, Any]]:
        """As `Cluster.run`."""
        for job in jobs:
            yield job, function(job, say, threading.Event())

    def check_shared_paths(self, paths: Sequence[Path]) -> None:
        """As `Cluster.check_shared_paths`: this process sees them."""


class Cluster:
    """The workers of a dask cluster."""

    def __init__(self, client: Any, description: str):
        self.client = client
        self.description = description

    def run(
        self, function: Callable, jobs: Sequence[Hashable], after: Mapping | None = None, say: Say = print
    ) -> Iterator[tuple[Any, Any]]:
        """Run the jobs, and yield `(job, result)` as they end; a result is `JobFailed` if no worker survived the job.

        Args:
            function: `function(job, say, stop)`, from a module, because the workers import it.
            jobs: each is run once. Those that others wait for begin first.
            after: job -> jobs that must end before it begins; they stand before it in `jobs`.
            say: takes the lines that the jobs say.

        Raises:
            ClusterError: the connection to the cluster was lost.
        """
        from distributed.scheduler import KilledWorker

        after = after or {}
        awaited = {other for others in after.values() for other in others}
        topic = f"course-{uuid.uuid4().hex}"
        news: queue.SimpleQueue = queue.SimpleQueue()  # lines and finished futures, in their order
        self.client.subscribe_topic(topic, lambda event: news.put(event[1]))
        futures: dict[Hashable, Any] = {}
        for number, job in enumerate(jobs):
            needed = [futures[other] for other in after.get(job, ())]
            futures[job] = self.client.submit(
                _on_worker, function, job, topic, needed, key=f"{topic}-{number}", priority=int(job in awaited)
            )
            futures[job].add_done_callback(news.put)
        running = {future.key: job for job, future in futures.items()}
        while running:
            try:
                new = news.get(timeout=1)  # in short pieces: on Windows Ctrl-C has to wait for their end
            except queue.Empty:
                continue
            if isinstance(new, str):
                say(new)
                continue
            try:
                result = new.result()
            except KilledWorker as error:
                times = error.allowed_failures + 1
                result = JobFailed(f"Its worker died {times} times, perhaps because memory ran out.")
            except CancelledError:
                raise ClusterError(f"The connection to {self.description} was lost: start again.") from None
            yield running.pop(new.key), result
        self.client.unsubscribe_topic(topic)

    def check_shared_paths(self, paths: Sequence[Path]) -> None:
        """Raise `ClusterError` if a worker does not find these files and folders under the same path."""
        for worker, missing in self.client.run(lambda: [path for path in paths if not path.exists()]).items():
            if missing:
                shared = "notebooks and results must lie in a folder that all computers share under the same path"
                raise ClusterError(f"The worker {worker} does not see {missing[0]}: with --dask, {shared}.")


class _Cancelled:
    """Whether the task of this thread was cancelled: dask does it when the client that asked for it has gone."""

    def __init__(self, worker: Any):
        self.task = worker.state.tasks[worker.get_current_task()]

    def is_set(self) -> bool:
        return self.task.state == "cancelled"


def _on_worker(function: Callable, job: Any, topic: str, _needed: list) -> Any:
    from distributed import get_worker

    worker = get_worker()
    return function(job, lambda line: worker.log_event(topic, line), _Cancelled(worker))


def dask_setup(worker: Any) -> None:
    """Called by dask in each process of a local cluster: Ctrl-C in the terminal is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = worker.local_directory  # removed at the end, also when the worker is killed
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a notebook that is broken off leaves tasks of nbclient


@contextlib.contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """A client of a new cluster on this computer: on 127.0.0.1, with its own certificate, no dashboard."""
    import dask
    from distributed import LocalCluster
    from distributed.deploy.spec import close_clusters
    from distributed.security import Security

    atexit.unregister(close_clusters)  # `with` closes it; if Ctrl-C comes while it starts, that would be a traceback
    with (
        tempfile.TemporaryDirectory(prefix="course-workers-", ignore_cleanup_errors=True) as folder,
        dask.config.set({**SETTINGS, "temporary-directory": folder}),
        LocalCluster(
            host="127.0.0.1", security=Security.temporary(), n_workers=workers, threads_per_worker=1, processes=True,
            memory_limit=0,
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",  # port 0: a free one
            scheduler_kwargs={"dashboard": False}, preload=[__name__], silence_logs=logging.CRITICAL,
        ) as cluster,
        cluster.get_client() as client,
    ):  # fmt: skip
        yield client


@contextlib.contextmanager
def _running_cluster(address: str) -> Iterator[Any]:
    """A client of the cluster at an address, all of whose workers have this course."""
    from distributed import Client
    from distributed.core import connect
    from distributed.security import Security

    try:
        security = Security()
        arguments = security.get_connection_args("client")
        asyncio.run(asyncio.wait_for(connect(address, **arguments), SECONDS_TO_ANSWER))  # a Client would wait for ever
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # TypeError: tls:// without a certificate
        advice = "start one with `dask scheduler` and give the address that it prints"
        if address.startswith("tls://"):
            advice = f"its certificates are taken from {CERTIFICATES} (files)"
        reason = str(error) or "no answer"
        raise ClusterError(f"No dask scheduler is found at {address!r} ({reason}): {advice}.") from None
    with Client(address, security=security) as client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_TO_JOIN)
        except TimeoutError:
            start = f"start some with `dask worker {address} --nthreads 1`"
            raise ClusterError(f"The dask scheduler at {address} has no workers: {start}.") from None
        for worker, code in client.run(course_code, on_error="return").items():
            if code != course_code():
                reason = f" ({code!r})" if isinstance(code, Exception) else ""
                advice = "install it there, and start the worker again"
                raise ClusterError(f"The worker {worker} does not have this version of the course{reason}: {advice}.")
        yield client
