"""Download the DSB2018 images into the cache folder.

Images and label images: BBBC038v1 (2018 Data Science Bowl, CC0), https://bbbc.broadinstitute.org/BBBC038, in the
subset of 497 fluorescence images that StarDist published (Schmidt et al., MICCAI 2018,
https://arxiv.org/abs/1806.03535).

The archive is downloaded and unpacked in a temporary folder beside the folder `dsb2018` of the cache, and moved there
in one step. What was lost or changed in it since is noticed by `load_data`, which asks for a new download. A lock
allows one process at a time to do this. The operating system releases the lock when a process dies, so an interrupted
download never blocks the next one, which removes what the first left behind. On a disk that cannot lock files, several
processes may download at the same time; the first that is ready fills the cache, and the others use that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from course_utils.data.layouts import DataError
from course_utils.data.zips import open_zip

DSB2018_URL = "https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip"
DSB2018_SHA256 = "e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f"
ARCHIVE_BYTES = 27_000_000  # approximate; the server sends the exact number
MIN_FREE_BYTES = 400_000_000  # for a moment the archive and its 204 MB of content are both on disk
CONNECT_SECONDS = 10
READ_SECONDS = 30
LOCK_SECONDS = 900  # how long to wait while another process downloads
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}  # what disks without locks say

OTHER_WAYS = 'or use the data source "embedded", or pass the path of a folder or zip that you already have'
OTHER_FOLDER = "set COURSE_DATA_DIR to a folder that you can write to, on a disk with free space"


class DownloadError(DataError):
    """The DSB2018 images could not be downloaded or unpacked; the message says why (`what`) and what to do."""

    def __init__(self, what: str, to_do: str):
        super().__init__(f"{what}: {to_do}, {OTHER_WAYS}.")
        self.what, self.to_do = what, to_do


def cache_folder() -> Path:
    """Where downloads are kept: `COURSE_DATA_DIR` if set, else the operating system's cache folder for this user."""
    if chosen := os.environ.get("COURSE_DATA_DIR"):
        return Path(os.path.expanduser(chosen)).absolute()
    import platformdirs

    return platformdirs.user_cache_path("course-utils", appauthor=False)


def cached_dsb2018() -> Path | None:
    """The folder of the downloaded images, or None if there is none yet. Never downloads."""
    folder = cache_folder() / "dsb2018"
    try:
        return folder if any(not path.name.startswith(".") for path in folder.iterdir()) else None
    except OSError:
        return None


def fetch_dsb2018(replace: bool = False) -> Path:
    """The folder of the DSB2018 images in the cache; downloads them first, with a progress bar, if they are missing.

    Args:
        replace: download them even if they are cached, because what is there is damaged. It may also be somebody's own
            work, so it is not deleted but moved to a folder beside it.

    Raises:
        DownloadError: the network, the server or the disk prevented it. The cache is left as it was before.
    """
    damaged = None
    if folder := cached_dsb2018():
        if not replace:
            return folder
        damaged = folder.stat().st_ino
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _only_process(cache) as is_alone:
            if _is_whole(cache / "dsb2018", damaged):  # another process was faster
                return cache / "dsb2018"
            for leftover in cache.glob(".dsb2018-*.partial"):
                if is_alone or time.time() - _last_change(leftover) > LOCK_SECONDS:
                    shutil.rmtree(leftover, ignore_errors=True)
            _fill(cache, damaged)
    except OSError as error:
        raise DownloadError(_explain_disk(error, cache), OTHER_FOLDER) from error
    return cache / "dsb2018"


def _last_change(folder: Path) -> float:
    """When something in a folder was last written; now, if that cannot be told because another process is at work."""
    try:
        return max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
    except OSError:
        return time.time()


def _fill(cache: Path, damaged: int | None) -> None:
    """Download and move into place; `damaged` is the number (inode) of the folder that is to be replaced, if any."""
    free = shutil.disk_usage(cache).free
    if free < MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB are free, {MIN_FREE_BYTES / 1e6:.0f} MB are needed")
    with tempfile.TemporaryDirectory(
        dir=cache, prefix=".dsb2018-", suffix=".partial", ignore_cleanup_errors=True
    ) as partial:
        archive = _download(Path(partial))
        unpacked = _unpack(archive, Path(partial) / "unpacked")
        _move(unpacked, cache / "dsb2018", damaged)


def _move(unpacked: Path, target: Path, damaged: int | None) -> None:
    """Move what was unpacked to its place; what lies there goes aside if it is `damaged`, else it is kept."""
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix="dsb2018-before-"))
    try:
        with contextlib.suppress(FileNotFoundError):  # there is none yet, or another process has just moved it
            if _is_whole(target, damaged):
                return  # without a lock, another process was faster
            if any(target.iterdir()):
                os.replace(target, aside / "dsb2018")
            else:
                target.rmdir()  # Windows cannot move a folder onto another
        os.replace(unpacked, target)
    except OSError:
        if (aside / "dsb2018").exists():
            with contextlib.suppress(OSError):  # fails where another process has filled the place
                os.replace(aside / "dsb2018", target)
        if not _is_whole(target, damaged):
            raise
    finally:
        with contextlib.suppress(OSError):
            aside.rmdir()
    if aside.exists():
        print(f"What was in {target} is now in {aside}. Delete it if you do not need it.")


def _is_whole(target: Path, damaged: int | None) -> bool:
    """Whether there are images, other than the damaged ones."""
    return cached_dsb2018() is not None and target.stat().st_ino != damaged


def _download(folder: Path) -> Path:
    """Download the archive into a folder and verify its checksum; returns the path of the file."""
    import pooch
    import requests
    from tqdm import tqdm

    pooch.get_logger().setLevel(logging.WARNING)  # the progress bar is enough
    try:
        # pooch replaces the total by the size that the server sends, but needs a bar that has a total.
        with tqdm(desc="DSB2018 images", total=ARCHIVE_BYTES, unit="B", unit_scale=True, file=sys.stdout) as bar:
            downloader = pooch.HTTPDownloader(
                progressbar=bar, chunk_size=2**16, timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
            path = pooch.retrieve(
                DSB2018_URL, f"sha256:{DSB2018_SHA256}", fname="dsb2018.zip", path=folder, downloader=downloader
            )
    except requests.HTTPError as error:
        what = f"{DSB2018_URL} answered with HTTP status {error.response.status_code} instead of the file"
        raise DownloadError(what, "try again later") from error
    except requests.RequestException as error:
        what = f"The download of {DSB2018_URL} failed ({type(error).__name__}): no answer, or the connection broke"
        raise DownloadError(what, "check the network and try again") from error
    except ValueError as error:  # what pooch raises for a wrong checksum
        what = f"The download of {DSB2018_URL} does not have the expected SHA-256 {DSB2018_SHA256[:12]}..."
        raise DownloadError(what, "a proxy or a login page may have changed it, try another network") from error
    return Path(path)


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip; returns the folder that holds `train` and `test`."""
    try:
        with open_zip(archive) as members:
            for member in members.infolist():
                members.extract(member, folder)
    except DataError as error:
        raise DownloadError(f"{DSB2018_URL} is refused ({_short(error)})", "do not trust this file") from error
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise DownloadError(f"{DSB2018_URL} cannot be unpacked ({_short(error)})", "try again") from error
    return folder / "dsb2018" if (folder / "dsb2018").is_dir() else folder


@contextlib.contextmanager
def _only_process(cache: Path) -> Iterator[bool]:
    """Hold the lock of the cache; `DownloadError` if another process keeps it. False where the disk has no locks."""
    import filelock

    lock = filelock.FileLock(cache / ".dsb2018.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"Waiting for another process that is downloading into {cache} ...", flush=True)
            lock.acquire(timeout=LOCK_SECONDS)
    except filelock.Timeout as error:
        what = f"Another process has been downloading into {cache} for {LOCK_SECONDS} seconds"
        raise DownloadError(what, f"end it and try again, {OTHER_FOLDER}") from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _explain_disk(error: OSError, cache: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"There is too little space in the cache folder {cache}"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = f"The cache folder {cache} cannot be written"
    else:
        what = f"The cache folder {cache} cannot be used"
    return f"{what} ({_short(error)})"


def _short(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200]
