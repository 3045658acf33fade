"""The cache and a download that goes wrong in every way: network, server, archive, disk, killed, at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from release_server import ReleaseServer, release_of

from course_utils import data
from course_utils.data import DownloadError, download, load_data
from course_utils.data.download import cache_folder, cached_dsb2018, fetch_dsb2018


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def server(tmp_path, cache, monkeypatch, make_stardist_folder):
    """The address of the release is a local server; the cache is empty, and nothing is attached on Kaggle."""
    monkeypatch.setattr(data, "KAGGLE_INPUT", tmp_path / "kaggle")
    folder = make_stardist_folder(tmp_path / "original" / "dsb2018")
    with release_of(folder, cache, monkeypatch) as running:
        yield running


def content_of(cache: Path) -> list[str]:
    """What lies in the cache, without the lock file, which is empty."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def failure() -> str:
    with pytest.raises(DownloadError) as caught:
        fetch_dsb2018()
    message = str(caught.value)
    assert '"embedded"' in message, "every failure tells another way"
    return message


def child(server: ReleaseServer, code: str = "", **options) -> subprocess.Popen:
    """Another Python process that fetches the images; `code` runs in it first."""
    script = f"""
from course_utils.data import download
download.DSB2018_URL = {server.url!r}
download.DSB2018_SHA256 = {download.DSB2018_SHA256!r}
download.MIN_FREE_BYTES = 1_000_000
{code}
print(download.fetch_dsb2018())
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], **pipes, **options)


# --- what should happen -----------------------------------------------------------------------------------------------


def test_downloads_once_and_reads_from_the_cache_after(cache, server, capsys):
    first = load_data("dsb2018")
    assert (len(first.train), len(first.test), first.source) == (16, 1, "dsb2018")
    assert "downloaded to" in first.note
    output = capsys.readouterr()
    assert "DSB2018 images" in output.out and "100%" in output.out and output.err == ""
    assert content_of(cache) == ["dsb2018"] and sorted(os.listdir(cache / "dsb2018")) == ["test", "train"]
    second = load_data("dsb2018")
    assert "from the cache" in second.note and server.requests == 1


def test_auto_downloads_where_nothing_else_is_at_hand(cache):
    result = load_data("auto")
    assert result.source == "dsb2018" and "downloaded to" in result.note


def test_an_archive_without_its_own_folder(cache, server, tmp_path, monkeypatch):
    flat = shutil.make_archive(str(tmp_path / "flat"), "zip", tmp_path / "original" / "dsb2018")
    server.offer(Path(flat).read_bytes(), monkeypatch)
    assert len(load_data("dsb2018").train) == 16


def test_an_empty_folder_is_no_cache(cache):
    """The first try of the original exercise left such a folder, and every later one took it for the data."""
    (cache / "dsb2018").mkdir(parents=True)
    assert cached_dsb2018() is None
    assert len(load_data("dsb2018").train) == 16


def test_cache_folder_by_variable_or_by_operating_system(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DATA_DIR", "here")
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("COURSE_DATA_DIR", "")
    assert cache_folder().name == "course-utils" or "course-utils" in cache_folder().parts


def test_read_only_cache_with_the_images_in_it_is_fine(cache):
    fetch_dsb2018()
    cache.chmod(0o555)
    try:
        assert len(load_data("dsb2018").train) == 16
    finally:
        cache.chmod(0o755)


def lose_three_pairs(folder: Path) -> None:
    for kind in ("images", "masks"):
        for name in "abc":
            (folder / "train" / kind / f"{name}.tif").unlink()


def become_another_data_set(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "train", dirs_exist_ok=True)


def fill_a_file_with_zeros(folder: Path) -> None:
    path = folder / "test" / "images" / "d.tif"
    path.write_bytes(bytes(path.stat().st_size))


def keep_a_subfolder_only(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def change_a_pixel(folder: Path) -> None:
    import tifffile

    path = folder / "train" / "images" / "a.tif"
    image = tifffile.imread(path)
    image[3, 5] ^= 1
    tifffile.imwrite(path, image)


def delete_a_file(folder: Path) -> None:
    (folder / "train" / "masks" / "a.tif").unlink()


def add_a_pair(folder: Path) -> None:
    for kind in ("images", "masks"):
        shutil.copy(folder / "train" / kind / "a.tif", folder / "train" / kind / "added.tif")


def empty_a_file(folder: Path) -> None:
    (folder / "train" / "images" / "b.tif").write_bytes(b"")


def swap_two_files(folder: Path) -> None:
    one, other = (folder / "train" / "images" / name for name in ("a.tif", "b.tif"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


DAMAGES = [lose_three_pairs, become_another_data_set, fill_a_file_with_zeros, keep_a_subfolder_only]
DAMAGES += [change_a_pixel, delete_a_file, add_a_pair, empty_a_file, swap_two_files]


@pytest.mark.parametrize("source", ["dsb2018", "auto"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_mended_by_a_new_download(cache, server, capsys, damage, source):
    published = data.fingerprint(load_data("dsb2018"))
    damage(cache / "dsb2018")
    damaged = sorted(path.name for path in (cache / "dsb2018").rglob("*"))
    result = load_data(source)
    assert data.fingerprint(result) == published and "downloaded again" in result.note
    assert "is damaged" in capsys.readouterr().out and server.requests == 2
    aside, again = sorted(content_of(cache), reverse=True), load_data("dsb2018")
    assert "from the cache" in again.note and server.requests == 2
    (old,) = (cache / name for name in aside if name.startswith("dsb2018-before-"))
    assert sorted(path.name for path in (old / "dsb2018").rglob("*")) == damaged, "nobody's work is deleted"


def test_a_damaged_cache_stays_as_it_is_while_it_cannot_be_mended(cache, server):
    load_data("dsb2018")
    lose_three_pairs(cache / "dsb2018")
    server.behaviour = "half"
    with pytest.raises(DownloadError, match="its 13|holds 13"):
        load_data("dsb2018")
    assert content_of(cache) == ["dsb2018"] and len(list((cache / "dsb2018" / "train" / "images").iterdir())) == 13


# --- network and server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("404", "status 404"),
        ("login page", "expected SHA-256"),
        ("half", "failed"),
        ("no length, half", "expected SHA-256"),
        ("stall", "failed"),
        ("silent", "failed"),
    ],
)
def test_a_failed_download_says_why_and_does_not_block_the_next(cache, server, behaviour, words):
    server.behaviour = behaviour
    start = time.monotonic()
    message = failure()
    assert time.monotonic() - start < 20
    assert words in message and server.url in message
    assert content_of(cache) == []
    server.behaviour = "serve"
    assert len(load_data("dsb2018").train) == 16


@pytest.mark.parametrize("host", ["127.0.0.1:9", "192.0.2.1"])
def test_a_host_that_does_not_answer_is_given_up(monkeypatch, host):
    """Nobody listens at the first; packets to the second, reserved for documentation, are dropped or refused."""
    monkeypatch.setattr(download, "DSB2018_URL", f"http://{host}/dsb2018.zip")
    monkeypatch.setenv("NO_PROXY", host)
    start = time.monotonic()
    assert "failed (Connect" in failure()
    assert time.monotonic() - start < 20


# --- the archive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../escaped.tif", "/escaped.tif", "a/../../escaped.tif", "..\\escaped.tif", "C:\\e.tif"]
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(cache, server, tmp_path, monkeypatch, name):
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as members:
        info = zipfile.ZipInfo("x")
        info.filename = name
        members.writestr(info, b"x")
    server.offer(evil.read_bytes(), monkeypatch)
    with pytest.raises(DownloadError, match="leads out"):
        fetch_dsb2018()
    assert content_of(cache) == [] and not list(tmp_path.rglob("*escaped*"))


def test_an_archive_that_cannot_be_unpacked(cache, server, monkeypatch):
    server.offer(server.content[:-50], monkeypatch)
    assert "cannot be unpacked" in failure()
    assert content_of(cache) == []


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_too_little_space_is_noticed_before_the_download(cache, server, monkeypatch):
    monkeypatch.setattr(download, "MIN_FREE_BYTES", 10**18)
    message = failure()
    assert "too little space" in message and "COURSE_DATA_DIR" in message and str(cache) in message
    assert server.requests == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "too little space"), (errno.EROFS, "cannot be written"), (errno.EIO, "cannot be used")],
)
def test_a_disk_that_fails_while_unpacking(cache, monkeypatch, number, words):
    extract = zipfile.ZipFile.extract
    calls = []

    def fail_later(self, member, path=None, pwd=None):
        calls.append(member)
        if len(calls) > 12:
            raise OSError(number, os.strerror(number))
        return extract(self, member, path, pwd)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", fail_later)
        message = failure()
    assert words in message and "COURSE_DATA_DIR" in message and str(cache) in message
    assert content_of(cache) == []
    assert len(load_data("dsb2018").train) == 16


def test_a_cache_that_is_a_file(cache):
    cache.write_text("not a folder")
    message = failure()
    assert str(cache) in message and "COURSE_DATA_DIR" in message
    assert cache.read_text() == "not a folder"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_cache_that_cannot_be_written(cache):
    cache.mkdir()
    cache.chmod(0o555)
    try:
        assert "cannot be written" in failure()
    finally:
        cache.chmod(0o755)


@pytest.fixture
def small_disk(cache):
    """A function that mounts a real file system of this size as the cache; it is unmounted at the end."""

    def mount(options: str) -> None:
        cache.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(cache)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only an administrator can mount a file system")

    yield mount
    if os.path.ismount(cache):
        subprocess.run(["umount", str(cache)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is of Linux")
@pytest.mark.parametrize("share", [0.1, 0.9, 1.1, 1.6])
def test_a_real_disk_that_fills_up_while_downloading_or_unpacking(cache, server, small_disk, monkeypatch, share):
    """Its size is this share of the archive, which is as large as what is in it."""
    small_disk(f"size={int(share * len(server.content))}")
    monkeypatch.setattr(download, "MIN_FREE_BYTES", 0)
    message = failure()
    assert "too little space" in message and "COURSE_DATA_DIR" in message and str(cache) in message
    assert content_of(cache) == [] and cached_dsb2018() is None
    subprocess.run(["mount", "-o", "remount,size=50M", str(cache)], check=True)
    assert len(load_data("dsb2018").train) == 16


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is of Linux")
def test_a_real_read_only_disk(cache, small_disk):
    small_disk("size=50M,ro")
    assert "cannot be written" in failure()
    subprocess.run(["mount", "-o", "remount,rw", str(cache)], check=True)
    fetch_dsb2018()
    subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    assert "from the cache" in load_data("dsb2018").note
    assert content_of(cache) == ["dsb2018"]


# --- killed, and at once ----------------------------------------------------------------------------------------------

needs_sigkill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this operating system has no SIGKILL")


@needs_sigkill
def test_killed_while_unpacking(cache, server):
    """The process dies between two files, with no chance to tidy up; the next start works and does the tidying."""
    process = child(
        server,
        """
import os, signal, zipfile
extract, count = zipfile.ZipFile.extract, 0
def die_later(self, member, path=None, pwd=None):
    global count
    count += 1
    if count > 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return extract(self, member, path, pwd)
zipfile.ZipFile.extract = die_later
""",
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (leftover,) = content_of(cache)
    assert any((cache / leftover).rglob("*.tif")), "it was killed in the middle of unpacking"
    assert cached_dsb2018() is None
    assert len(load_data("dsb2018").train) == 16
    assert content_of(cache) == ["dsb2018"]


@needs_sigkill
def test_killed_while_downloading(cache, server):
    server.behaviour = "stall"
    process = child(server)
    assert server.half_sent.wait(60)
    process.kill()
    process.communicate(timeout=60)
    assert len(content_of(cache)) == 1 and cached_dsb2018() is None
    server.behaviour = "serve"
    assert len(load_data("dsb2018").train) == 16
    assert content_of(cache) == ["dsb2018"]


def three_at_once(server: ReleaseServer, code: str = "") -> list[str]:
    """What three processes print that fetch the images at the same time, one of them from a slow server."""
    server.behaviour, requests_before = "slow", server.requests
    processes = [child(server, code) for _ in range(3)]
    while server.requests == requests_before:
        assert any(process.poll() is None for process in processes)
        time.sleep(0.05)
    time.sleep(2)  # the others reach the lock while the first one waits for the server
    server.released.set()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    return [output for output, _ in outputs]


def test_three_processes_at_once_download_once(cache, server):
    outputs = three_at_once(server)
    assert all(output.strip().endswith(str(cache / "dsb2018")) for output in outputs)
    assert server.requests == 1
    assert sum("Waiting for another process" in output for output in outputs) == 2
    assert content_of(cache) == ["dsb2018"] and len(load_data("dsb2018").train) == 16


def test_three_processes_at_once_mend_a_damaged_cache_once(cache, server):
    fetch_dsb2018()
    lose_three_pairs(cache / "dsb2018")
    three_at_once(server, "download.fetch_dsb2018(replace=True)")
    assert server.requests == 2 and len(content_of(cache)) == 2 and len(load_data("dsb2018").train) == 16


def test_waiting_for_another_process_ends(cache, server, monkeypatch):
    monkeypatch.setattr(download, "LOCK_SECONDS", 0.2)
    server.behaviour = "slow"
    process = child(server)
    while server.requests == 0:
        assert process.poll() is None
        time.sleep(0.05)
    assert "Another process has been downloading" in failure()
    server.released.set()
    process.communicate(timeout=60)
    assert process.returncode == 0 and content_of(cache) == ["dsb2018"]


# --- disks without locks ----------------------------------------------------------------------------------------------

WITHOUT_LOCKS = """
import errno, filelock
def no_lock(*_arguments, **_options):
    raise ERROR
filelock.FileLock.acquire = no_lock
"""
NO_LOCK_ERRORS = ["NotImplementedError()"] + [
    f"OSError(errno.{name}, 'no locks')" for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL")
]


@pytest.mark.parametrize("error", NO_LOCK_ERRORS)
def test_a_disk_without_locks_gets_the_images_all_the_same(cache, server, monkeypatch, error):
    import filelock

    def fail(*_arguments, **_options):
        raise eval(error, {"errno": errno})

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    assert len(load_data("dsb2018").train) == 16
    assert content_of(cache) == ["dsb2018"]


@pytest.mark.parametrize("error", NO_LOCK_ERRORS[:2])
@pytest.mark.parametrize("damaged", [False, True])
def test_three_processes_at_once_without_locks_all_end_with_the_images(cache, server, error, damaged):
    code = WITHOUT_LOCKS.replace("ERROR", error)
    if damaged:
        fetch_dsb2018()
        lose_three_pairs(cache / "dsb2018")
        code += "from functools import partial\n"
        code += "download.fetch_dsb2018 = partial(download.fetch_dsb2018, replace=True)\n"
    outputs = three_at_once(server, code)
    assert all(output.strip().endswith(str(cache / "dsb2018")) for output in outputs)
    assert data.fingerprint(load_data("dsb2018")) == data.DSB2018_FINGERPRINT
    assert len(content_of(cache)) == 1 + damaged, "nothing half is left, and what was damaged is kept once"


@needs_sigkill
def test_killed_without_locks(cache, server, monkeypatch):
    """What it leaves may belong to a process that still runs, so it is removed only when nothing has changed in it."""
    import filelock

    def fail(*_arguments, **_options):
        raise NotImplementedError

    server.behaviour = "stall"
    process = child(server, WITHOUT_LOCKS.replace("ERROR", "NotImplementedError()"))
    assert server.half_sent.wait(60)
    process.kill()
    process.communicate(timeout=60)
    (leftover,) = content_of(cache)
    server.behaviour = "serve"
    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    assert len(load_data("dsb2018").train) == 16
    assert content_of(cache) == [leftover, "dsb2018"]
    shutil.rmtree(cache / "dsb2018")
    monkeypatch.setattr(download, "LOCK_SECONDS", -1)
    assert len(load_data("dsb2018").train) == 16
    assert content_of(cache) == ["dsb2018"]


def test_what_was_moved_aside_comes_back_if_the_new_folder_cannot_be_moved(cache, monkeypatch):
    fetch_dsb2018()
    lose_three_pairs(cache / "dsb2018")
    replace = os.replace

    def fail(source, target):
        if ".partial" in str(source):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DownloadError, match="cannot be used"):
        fetch_dsb2018(replace=True)
    assert content_of(cache) == ["dsb2018"] and len(list((cache / "dsb2018" / "train" / "images").iterdir())) == 13


# --- the real archive -------------------------------------------------------------------------------------------------


def test_the_real_archive_from_a_local_server(cache, server, real_data_zip, monkeypatch):
    server.offer(real_data_zip.read_bytes(), monkeypatch)
    result = load_data("dsb2018")
    assert (len(result.train), len(result.test)) == (447, 50)
    # The room asked for is enough for the archive and what is in it, which are on disk at the same time.
    used = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    monkeypatch.undo()
    assert used + real_data_zip.stat().st_size < download.MIN_FREE_BYTES
