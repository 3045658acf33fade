"""Spreads jobs over workers: `course.py run` and `course.py grade` hand their notebooks to it.

With one worker and no cluster the jobs are done here, one after another. Else dask.distributed is the engine: on a
cluster of processes that is started on this computer and ends with the command, or on a running one with an address. It
gives each job to a free worker, and the job of a worker that died to another one.

What is added to it here: jobs that wait for others, lines of progress from the workers, and an end in which nothing of
an interrupted run goes on computing. A job may be started a second time when its worker died, also if it was finished
then and only its result had not arrived yet. So its function keeps what is finished in a file, and looks there first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.resource_tracker
import os
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

Say = Callable[[str], None]  # takes one line of progress

SECONDS_TO_ANSWER = 5  # for a scheduler
SECONDS_TO_JOIN = 20  # for its first worker
SECONDS_TO_STOP = 20  # for the jobs of an interrupted run
SET_BY_DASK = ("PYTHONHASHSEED", "__DASK_PARENT_PID", "DASK_PARENT")  # where workers are started
SECONDS_WITHOUT_NEWS = 60  # then a cluster without workers is worth a line


class ClusterError(ValueError):
    """The jobs cannot be spread as asked for; the text says in one sentence what to do."""


class Stop(Protocol):
    """Tells a job whether it should end early, because the run was interrupted."""

    def is_set(self) -> bool:
        """Whether the run was interrupted."""


Function = Callable[[Any, Say, Stop], Any]


@dataclass(frozen=True)
class JobFailed:
    """Stands for the result of a job that ended every worker it was given to."""

    reason: str


@contextlib.contextmanager
def executor(workers: int = 1, address: str | None = None) -> Iterator[LocalExecutor | Cluster]:
    """A place where jobs are done; at the end of the `with` block nothing of it is left running.

    Args:
        workers: processes on this computer; 1 is this very process, without a cluster.
        address: of the scheduler of a running cluster, as in "tcp://127.0.0.1:8786"; it has workers of its own.

    Raises:
        ClusterError: distributed is not installed, no scheduler answers, it has no workers, or one of them has not this
            very course.
    """
    if address is None and workers == 1:
        yield LocalExecutor()
        return
    if address is not None and workers != 1:
        raise ClusterError(
            f"The cluster at {address} has workers of its own: leave out either --workers {workers} or --dask."
        )
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ClusterError(
            "--workers above 1 and --dask need the package distributed, which is not installed: "
            "pip install distributed"
        ) from None
    with _quiet(), _local_cluster(workers) if address is None else _running_cluster(address) as client:
        cluster = Cluster(client, f"{workers} processes" if address is None else address)
        try:
            yield cluster
        except BaseException:
            cluster.stop()
            raise


class LocalExecutor:
    """This process: one job after another."""

    description = ""

    def run(
        self, function: Function, jobs: Sequence[Hashable], after: Mapping | None = None, say: Say = print
    ) -> Iterator[tuple[Any, Any]]:
        """As `Cluster.run`; `jobs` come in an order that `after` allows."""
        for job in jobs:
            yield job, function(job, say, threading.Event())

    def check_shared_paths(self, paths: Sequence[Path]) -> None:
        """As `Cluster.check_shared_paths`: this process does see them."""


class Cluster:
    """The workers of a dask cluster."""

    def __init__(self, client: Any, description: str):
        self.client = client
        self.description = description
        self.topic = f"course-{uuid.uuid4().hex}"
        self.futures: dict[Hashable, Any] = {}

    def run(
        self, function: Function, jobs: Sequence[Hashable], after: Mapping | None = None, say: Say = print
    ) -> Iterator[tuple[Any, Any]]:
        """Have the jobs done, and yield `(job, result)` as they end; a result is `JobFailed` if no worker survived it.

        Args:
            function: `function(job, say, stop)`, from a module, because the workers import it.
            jobs: what to do, each once. Those that others wait for are begun first, else in this order.
            after: job -> jobs that must be done before it is begun.
            say: takes the lines that the jobs say.

        Raises:
            ClusterError: the connection to the cluster was lost.
        """
        after = {job: set(after[job]) & set(jobs) for job in jobs if job in after} if after else {}
        awaited = set().union(*after.values())
        left = sorted(jobs, key=lambda job: job not in awaited)
        done: set[Hashable] = set()
        news: queue.SimpleQueue = queue.SimpleQueue()  # lines and finished futures, in their order
        self.client.subscribe_topic(self.topic, lambda event: news.put(event[1]))
        self.client.subscribe_topic("all", lambda event: news.put(self._about_dead_worker(event[1])))
        while len(done) < len(jobs):
            for job in [job for job in left if after.get(job, set()) <= done]:
                left.remove(job)
                future = self.client.submit(
                    _on_worker, function, job, self.topic, key=f"{self.topic}-{len(self.futures)}", pure=False
                )
                self.futures[job] = future
                future.add_done_callback(news.put)
            new = self._next(news, say)
            if isinstance(new, str):
                if new:
                    say(new)
                continue
            [job] = [job for job, future in self.futures.items() if future.key == new.key]
            result = self._result(new)
            done.add(job)
            yield job, result
        for topic in (self.topic, "all"):
            self.client.unsubscribe_topic(topic)

    def check_shared_paths(self, paths: Sequence[Path]) -> None:
        """See whether the workers find these files and folders under the same path.

        Raises:
            ClusterError: one of them does not.
        """
        for worker, missing in self.client.run(_missing, [str(path) for path in paths]).items():
            if missing:
                raise ClusterError(
                    f"The worker {worker} does not see {missing[0]}: with --dask, notebooks and results must lie in a "
                    "folder that all computers share under the same path."
                )

    def stop(self) -> None:
        """Tell the workers that the run was interrupted, and give the jobs that run some time to end."""
        import distributed

        with contextlib.suppress(Exception):  # whatever is left of the cluster
            if self.client.run(_remember_stop, self.topic, on_error="ignore"):
                distributed.wait(list(self.futures.values()), timeout=SECONDS_TO_STOP)

    def _next(self, news: queue.SimpleQueue, say: Say) -> Any:
        waited = 0
        while True:
            try:
                return news.get(timeout=1)  # in short pieces, because on Windows Ctrl-C has to wait for their end
            except queue.Empty:
                waited += 1
            if waited % SECONDS_WITHOUT_NEWS == 0 and not self.client.nthreads():
                say("The cluster has no workers at the moment: the run goes on as soon as it has one.")

    def _about_dead_worker(self, event: Mapping) -> str:
        """A line if an event of the scheduler is the death of a worker that was busy for this run, else empty."""
        lost = event.get("action") == "remove-worker" and not event.get("expected")
        keys = [*event.get("processing-tasks", ()), *event.get("lost-computed-tasks", ())] if lost else []
        if not any(str(key).startswith(self.topic) for key in keys):
            return ""
        return "A worker was lost. What it had not finished is begun again by another one."

    def _result(self, future: Any) -> Any:
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            times = error.allowed_failures + 1
            return JobFailed(f"The worker died {times} times while it did this, perhaps because memory ran out.")
        except CancelledError:
            raise ClusterError(
                f"The connection to the cluster ({self.description}) was lost: see whether its scheduler still runs, "
                "then start again."
            ) from None


# What runs on the workers

_stopped: set[str] = set()  # runs that were interrupted


class _StopOfRun:
    def __init__(self, topic: str):
        self.topic = topic

    def is_set(self) -> bool:
        return self.topic in _stopped


def _on_worker(function: Function, job: Any, run: str) -> Any:
    """Do one job of a run; nothing if the run was interrupted before."""
    from distributed import get_worker

    worker, stop = get_worker(), _StopOfRun(run)
    return None if stop.is_set() else function(job, lambda line: worker.log_event(run, line), stop)


def _remember_stop(run: str) -> None:
    _stopped.add(run)


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def dask_setup(worker: Any) -> None:
    """Called by dask in each process of a local cluster: Ctrl-C in the terminal is for the process that started it."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a notebook that is broken off leaves tasks of nbclient's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # held back since `_interrupt_later`, as it is not to be in their children
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


# Clusters


@contextlib.contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """A client of a new cluster on this computer. It listens on 127.0.0.1 only, and has no dashboard."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.nanny.pre-spawn-environ": {},  # else it would set the number of threads, here too
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    before = {name: os.environ.get(name) for name in SET_BY_DASK}
    try:
        with contextlib.ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="course-workers-", ignore_cleanup_errors=True)
            settings["temporary-directory"] = stack.enter_context(folder)
            stack.enter_context(dask.config.set(settings))
            with _interrupt_later():
                cluster = LocalCluster(
                    host="127.0.0.1", n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
                    dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",  # port 0: a free one
                    scheduler_kwargs={"dashboard": False}, preload=[__name__], silence_logs=logging.CRITICAL,
                )  # fmt: skip
                client = stack.enter_context(Client(stack.enter_context(cluster)))
            yield client
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@contextlib.contextmanager
def _interrupt_later() -> Iterator[None]:
    """Hold Ctrl-C back for a moment: processes that are just starting would answer it with long messages."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # else its start would end what is begun in the next line
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _running_cluster(address: str) -> Iterator[Any]:
    """A client of the cluster at an address, all of whose workers have this course."""
    from distributed import Client

    try:
        asyncio.run(_identity(address))  # a Client that finds nobody leaves error messages behind
    except (OSError, ValueError) as error:
        reason = str(error) or f"no answer within {SECONDS_TO_ANSWER} seconds"
        raise ClusterError(
            f"No dask scheduler is found at {address!r} ({reason}): start one with `dask scheduler`, and give the "
            "address that it says, as in --dask tcp://127.0.0.1:8786."
        ) from None
    with Client(address, timeout=SECONDS_TO_ANSWER) as client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_TO_JOIN)
        except TimeoutError:
            raise ClusterError(
                f"The dask scheduler at {address} has no workers: start some with `dask worker {address} --nthreads 1`."
            ) from None
        for worker, code in client.run(course_code, on_error="return").items():
            if isinstance(code, Exception):
                reason = " ".join(str(code).split())
                raise ClusterError(
                    f"The worker {worker} cannot load the course ({reason}): install it there, too, then start again."
                )
            if code != course_code():
                raise ClusterError(
                    f"The worker {worker} has another version of the course: make both the same, and start the worker "
                    "again."
                )
        yield client


async def _identity(address: str) -> dict:
    """What the scheduler at an address says of itself."""
    from distributed import Security, rpc

    arguments = Security().get_connection_args("client")
    async with rpc(address, timeout=SECONDS_TO_ANSWER, connection_args=arguments) as scheduler:
        return await asyncio.wait_for(scheduler.identity(), SECONDS_TO_ANSWER)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask's log lines out of the progress lines; what matters arrives as an exception or as an event."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
