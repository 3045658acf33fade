"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from course_utils.data.download import cached_dsb2018

REPOSITORY = Path(__file__).resolve().parents[1]

# No time limit for a single example: a busy machine is not a failure. pytest-timeout stops what hangs.
settings.register_profile("course", deadline=None)
settings.load_profile("course")

# A shell starts background jobs with Ctrl-C switched off, and every process they start inherits that. The tests of
# interruptions need it on.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Test files that take a minute or more: they go first, so that no process is left with one of them at the end.
LONGEST = (
    "test_kaggle.py", "test_notebooks.py", "test_versions.py", "test_browser.py", "test_grading.py",
    "test_course_py.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def _real_data(variable: str, file_name: str) -> Path:
    path = Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / "data" / file_name)
    if not path.exists():
        pytest.skip(f"needs real data that is not part of the repository: set {variable} to the path of {file_name}")
    return path


@pytest.fixture(autouse=True)
def own_progress(tmp_path_factory, monkeypatch):
    """Tests note nothing in the record of whoever runs them; each has an empty one."""
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path_factory.mktemp("record") / "progress.json"))


@pytest.fixture(scope="session")
def real_data_zip(tmp_path_factory) -> Path:
    """The 497 DSB2018 images in StarDist's layout, also if they have only been downloaded with `doctor --download`."""
    if not os.environ.get("COURSE_REAL_DATA") and (folder := cached_dsb2018()):
        packed = tmp_path_factory.mktemp("real") / "dsb2018"
        return Path(shutil.make_archive(str(packed), "zip", folder.parent, folder.name))
    return _real_data("COURSE_REAL_DATA", "dsb2018.zip")


@pytest.fixture(scope="session")
def stage1_zip() -> Path:
    """24 images in Kaggle's layout: 21 that are among the 497, and 3 in colour."""
    return _real_data("COURSE_STAGE1_DATA", "stage1_train_sample.zip")


@pytest.fixture
def make_stardist_folder():
    """A function that writes the smallest usable data set in StarDist's layout: 16 training images and 1 test image."""

    def make(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        for split, names in (("train", "abcefghijklmnopq"), ("test", "d")):
            for kind in ("images", "masks"):
                (folder / split / kind).mkdir(parents=True)
            for name in names:
                image = rng.integers(0, 256, (128, 130), dtype=np.uint8)
                mask = np.zeros((128, 130), dtype=np.uint16)
                mask[5:15, 5:15], mask[20:30, 30:45] = 3, 65535
                tifffile.imwrite(folder / split / "images" / f"{name}.tif", image)
                tifffile.imwrite(folder / split / "masks" / f"{name}.tif", mask)
        return folder

    return make
