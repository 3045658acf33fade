"""Jobs on a real cluster on this computer: nothing is lost or done twice, even if a worker is killed."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import LocalCluster
from distributed.core import rpc
from distributed.security import Security

from workshop import cluster
from workshop.cluster import ClusterError, JobFailed, executor
from workshop.paths import checkout

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals as on Linux and macOS")


@pytest.fixture(scope="module")
def running():
    """The address of a cluster of two workers that somebody else started."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False}, silence_logs=logging.CRITICAL,
        ) as one,
    ):  # fmt: skip
        yield one.scheduler_address


# --- jobs, imported by the workers


def write_line(path, line):
    with open(path, "a") as file:  # a line this short is written in one piece
        file.write(f"{line}\n")


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def work(job, say, stop):
    """Take a moment, and note begin, process and end; a job is (file, name, seconds)."""
    path, name, seconds = job
    write_line(path, f"{name} begins {os.getpid()}")
    say(f"{name} says something")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if stop.is_set():
            write_line(path, f"{name} is stopped")
            return None
    write_line(path, f"{name} ends")
    return name.upper()


def die_before_the_result_arrives(job, say, stop):
    """Finish, keep the result as a good job does, and take the worker down with it."""
    path, name = job
    kept = path.with_name(name)
    if kept.exists():
        return kept.read_text()
    write_line(path, name)
    kept.write_text(f"result of {name}")
    os.kill(os.getpid(), signal.SIGKILL)


def die(job, say, stop):
    os.kill(os.getpid(), signal.SIGKILL)


def start_a_program(job, say, stop):
    return subprocess.run([sys.executable, "-c", f"print({job} * 2)"], capture_output=True, text=True).stdout.strip()


def fail(job, say, stop):
    raise ArithmeticError("a fault of the program")


# --- without a cluster


def test_one_worker_is_this_process_and_needs_no_dask():
    program = """
import os, sys
from workshop.cluster import executor
sys.modules["distributed"] = None
with executor() as pool:
    assert list(pool.run(lambda job, say, stop: (job * 2, os.getpid(), stop.is_set()), [3, 1])) == [
        (3, (6, os.getpid(), False)), (1, (2, os.getpid(), False))]
print([name for name in ("dask", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch):
    for name in ("cryptography", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ClusterError, match="pip install distributed cryptography"):
            executor(2).__enter__()


# --- a cluster that is started for the jobs


def answers(address, security=None):
    """Whether a scheduler tells a stranger who it is."""

    async def ask():
        stranger = rpc(address, connection_args=security.get_connection_args("client") if security else {}, timeout=2)
        try:
            return await asyncio.wait_for(stranger.identity(), 2)
        except (OSError, TimeoutError):
            return None
        finally:
            await stranger.close_rpc()

    return asyncio.run(ask()) is not None


def test_two_workers_run_every_job_once_on_this_computer_only(tmp_path):
    notes, said = tmp_path / "notes", []
    a, b, c, d = jobs = [(notes, name, 0.5) for name in "abcd"]
    with executor(2) as pool:
        workers = set(pool.client.run(os.getpid).values())
        own = {os.getpid(), *workers}
        own_processes = [psutil.Process(pid) for pid in own]
        assert not any("PRIVATE KEY" in f"{one.cmdline()} {one.environ()}" for one in own_processes)
        address = pool.client.scheduler.address
        assert address.startswith("tls://")
        assert not answers(address.replace("tls", "tcp")) and not answers(address, Security.temporary())
        heard = [one.laddr for one in psutil.net_connections("inet") if one.pid in own and one.status == "LISTEN"]
        results = {}
        for job, result in pool.run(work, jobs, {d: [c]}, said.append):
            assert f"{job[1]} says something" in said, "what a job says arrives before its result"
            results[job] = result
    assert results == {a: "A", b: "B", c: "C", d: "D"}
    assert len(heard) >= 3 and {address.ip for address in heard} == {"127.0.0.1"}

    lines = lines_of(notes)
    assert sorted(line.split()[0] for line in lines) == sorted("abcd" * 2)
    assert {int(line.split()[2]) for line in lines if "begins" in line} == workers
    begun = [line[0] for line in lines if "begins" in line]
    assert "c" in begun[:3], "d waits for it, so it does not begin last"
    assert lines.index("c ends") < next(index for index, line in enumerate(lines) if line.startswith("d begins"))
    assert not any(psutil.pid_exists(pid) for pid in workers)


# --- a running cluster


@posix_only
def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_done_twice(running, tmp_path):
    notes, killed = tmp_path / "notes", []
    jobs = [(notes, f"job{number}", 1.0) for number in range(5)]

    def kill_first():
        wait_until(lambda: lines_of(notes))
        time.sleep(0.3)
        killed.append(lines_of(notes)[0].split())
        os.kill(int(killed[0][2]), signal.SIGKILL)

    threading.Thread(target=kill_first).start()
    with executor(address=running) as pool:
        results = list(pool.run(work, jobs))
    assert sorted(results) == [(job, job[1].upper()) for job in jobs]
    [(victim, *_)] = killed
    begun = [line.split()[0] for line in lines_of(notes) if "begins" in line]
    ended = [line.split()[0] for line in lines_of(notes) if "ends" in line]
    assert sorted(ended) == [job[1] for job in jobs]
    assert sorted(begun) == sorted([*ended, victim]), "only what the killed worker was doing begins again"


@posix_only
def test_a_result_that_died_with_its_worker_is_not_computed_again(running, tmp_path):
    jobs = [(tmp_path / "notes", "one")]
    with executor(address=running) as pool:
        assert list(pool.run(die_before_the_result_arrives, jobs)) == [(jobs[0], "result of one")]
    assert lines_of(tmp_path / "notes") == ["one"]


@posix_only
def test_a_job_that_kills_every_worker_is_given_up_and_the_cluster_works_on(running, tmp_path):
    with executor(address=running) as pool:
        [(job, result)] = pool.run(die, ["deadly"])
        assert isinstance(result, JobFailed) and "died 2 times" in result.reason
        assert sorted(pool.run(start_a_program, [1, 2, 3])) == [(1, "2"), (2, "4"), (3, "6")]


def test_a_fault_of_the_program_is_not_hidden(running):
    with pytest.raises(ArithmeticError, match="a fault of the program"), executor(address=running) as pool:
        list(pool.run(fail, ["x"]))


def test_an_interrupted_run_leaves_nothing_computing(running, tmp_path):
    notes = tmp_path / "notes"
    jobs = [(notes, f"job{number}", 60) for number in range(4)]

    def interrupt(line):
        wait_until(lambda: len(lines_of(notes)) >= 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), executor(address=running) as pool:
        list(pool.run(work, jobs, say=interrupt))
    wait_until(lambda: sum("stopped" in line for line in lines_of(notes)) == 2)
    assert sum("begins" in line for line in lines_of(notes)) == 2
    with executor(address=running) as pool:  # another run on the same cluster is not stopped
        assert list(pool.run(work, [(notes, "next", 0.2)])) == [((notes, "next", 0.2), "NEXT")]


def test_workers_that_do_not_see_the_files_are_named(running, tmp_path):
    (tmp_path / "here").mkdir()
    with executor(address=running) as pool:
        pool.check_shared_paths([tmp_path / "here"])
        with pytest.raises(ClusterError, match=r"worker tcp://.* does not see .*nowhere"):
            pool.check_shared_paths([tmp_path / "here", tmp_path / "nowhere"])


def test_workers_with_another_version_of_the_course_or_without_it_are_refused(running, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "course_code", os.getpid)
    with pytest.raises(ClusterError, match=r"worker tcp://.* does not have this version of the course:"):
        executor(address=running).__enter__()
    (tmp_path / "only_here.py").write_text("def course_code():\n    return 'x'")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    monkeypatch.setattr(cluster, "course_code", only_here.course_code)
    with pytest.raises(ClusterError, match=r"worker tcp://.* does not have this version of the course .*only_here"):
        executor(address=running).__enter__()


def test_the_number_of_workers_is_the_clusters_own(running):
    with pytest.raises(ClusterError, match="leave out --workers 3 or --dask"):
        executor(3, running).__enter__()


# --- a running cluster with certificates


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """The address of a cluster that asks for a certificate, and the environment variables that name its files."""
    security, folder = Security.temporary(), tmp_path_factory.mktemp("certificates")
    (folder / "ca.pem").write_text(security.tls_ca_file)
    (folder / "key.pem").write_text(security.tls_client_key)
    files = {"CA_FILE": "ca.pem", "CLIENT__CERT": "ca.pem", "CLIENT__KEY": "key.pem"}
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", security=security,
        scheduler_kwargs={"dashboard": False}, silence_logs=logging.CRITICAL,
    ) as one:  # fmt: skip
        names = dict(zip(files, cluster.CERTIFICATES.split(", "), strict=True))
        yield one.scheduler_address, {names[name]: str(folder / file) for name, file in files.items()}


def settings_of(variables):
    """What dask makes of these environment variables when it starts."""
    return {name.removeprefix("DASK_").replace("__", ".").lower(): value for name, value in variables.items()}


def test_a_cluster_with_certificates_takes_jobs_from_those_who_have_them(certified):
    address, variables = certified
    assert address.startswith("tls://") and not answers(address, Security.temporary())
    with dask.config.set(settings_of(variables)), executor(address=address, needs_tls=True) as pool:
        assert list(pool.run(start_a_program, [21])) == [(21, "42")]


def test_without_the_certificates_or_with_others_a_sentence_names_the_variables(certified, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_ANSWER", 2)
    address, variables = certified
    other = Security.temporary()
    (tmp_path / "ca.pem").write_text(other.tls_ca_file)
    (tmp_path / "key.pem").write_text(other.tls_client_key)
    others = {name: str(tmp_path / Path(file).name) for name, file in variables.items()}
    missing = {name: str(tmp_path / "nowhere.pem") for name in variables}
    for settings in ({}, others, missing):
        with (
            dask.config.set(settings_of(settings)),
            pytest.raises(ClusterError, match=r"found at 'tls://.*DASK_DISTRIBUTED__COMM__TLS__CA_FILE, .*CLIENT__KEY"),
        ):
            executor(address=address).__enter__()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1"])
def test_a_scheduler_without_certificates_gets_no_code_of_others(address):
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1 takes jobs from anybody, .* \(tls://\)"):
        executor(address=address, needs_tls=True).__enter__()


# --- no cluster where one should be


def test_no_scheduler_is_a_sentence_after_a_few_seconds(monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_ANSWER", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        for wrong, reason in [(address, "no answer"), ("here", "missing port number")]:
            with pytest.raises(ClusterError, match=rf"No dask scheduler is found at '{wrong}' \({reason}"):
                executor(address=wrong).__enter__()


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in its own process, and how to start a worker for it."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:], "--no-dashboard"]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(checkout())])}
        log = (tmp_path / "log.txt").open("a")
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=log, stderr=log))
        return processes[-1]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    start("dask_scheduler", "--host", address, "--dashboard-address", "127.0.0.1:0")
    wait_until(lambda: "Scheduler at" in (tmp_path / "log.txt").read_text())
    yield address, processes[0], lambda: start("dask_worker", address, "--nthreads", "1", "--host", "127.0.0.1")
    for process in reversed(processes):
        process.kill()
        process.wait()


@posix_only
def test_a_scheduler_without_workers_and_one_that_dies(scheduler, tmp_path, monkeypatch):
    address, process, start_worker = scheduler
    monkeypatch.setattr(cluster, "SECONDS_TO_JOIN", 1)
    with pytest.raises(ClusterError, match=rf"{address} has no workers: start some with `dask worker {address}"):
        executor(address=address).__enter__()

    monkeypatch.setattr(cluster, "SECONDS_TO_JOIN", 60)
    start_worker()
    with pytest.raises(ClusterError, match="The connection to tcp://.* was lost"):
        with executor(address=address) as pool:
            list(pool.run(work, [(tmp_path / "notes", "job", 300)], say=lambda line: process.kill()))
