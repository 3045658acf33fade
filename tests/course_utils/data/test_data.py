from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from course_utils import data
from course_utils.data import DataError, available_sources, find_kaggle_input, load_data


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, nothing from Kaggle, and a network that answers nobody."""

    def no_network(*_arguments, **_keywords):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "KAGGLE_INPUT", tmp_path / "kaggle" / "input")
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    return tmp_path / "cache"


@pytest.fixture
def embedded(tmp_path, monkeypatch, make_stardist_folder) -> Path:
    """A small stand-in for the embedded set, so that these tests say something about the sources alone."""
    folder = make_stardist_folder(tmp_path / "embedded")
    monkeypatch.setattr(data, "embedded_folder", lambda: folder)
    return folder


@pytest.fixture
def cached(cache, monkeypatch, make_stardist_folder) -> Path:
    """A small stand-in for the published images, complete in the cache."""
    folder = make_stardist_folder(cache / "dsb2018")
    monkeypatch.setattr(data, "DSB2018_FINGERPRINT", data.fingerprint(load_data(folder)))
    return folder


def test_importing_the_module_is_light():
    heavy = ["torch", "pandas", "requests", "pooch", "tqdm", "filelock", "tifffile"]
    code = f"import sys, course_utils.data; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_embedded_is_the_default(embedded):
    result = load_data()
    assert result.source == "embedded" and len(result.train) == 16 and len(result.test) == 1
    assert str(result) == "16 training and 1 test images. Synthetic images of the course."


def test_missing_embedded_images_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "embedded_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(DataError, match="embedded images are missing"):
        load_data("embedded")


def test_embedded_folder_of_a_checkout_and_of_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "course_utils"
    package.mkdir()
    monkeypatch.setattr(data, "__file__", str(package / "data" / "__init__.py"))
    assert data.embedded_folder() == tmp_path / "data" / "embedded"
    (package / "embedded" / "embedded").mkdir(parents=True)
    assert data.embedded_folder() == package / "embedded" / "embedded"


def test_path_as_string_or_path(tmp_path, make_stardist_folder, monkeypatch):
    folder = make_stardist_folder(tmp_path / "mine")
    for source in (folder, str(folder)):
        result = load_data(source)
        assert result.source == str(folder) and str(folder) in result.note
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert len(load_data("~/mine").train) == 16
    monkeypatch.chdir(tmp_path)
    assert str(folder) in load_data("mine").note


@pytest.mark.parametrize("source", ["embeded", "no/such/folder", "", "DSB2018"])
def test_unknown_source_lists_the_names_and_the_absolute_path(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_data(source)
    message = str(caught.value)
    for name in ("embedded", "dsb2018", "kaggle", "auto"):
        assert f'"{name}"' in message
    assert str(tmp_path / source) in message and "not found" in message


def refusal(source) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source)
    return str(caught.value)


# --- auto -------------------------------------------------------------------------------------------------------------


def test_auto_without_anything_ends_with_embedded(cache, embedded):
    result = load_data("auto")
    assert result.source == "embedded"
    assert str(data.KAGGLE_INPUT) in result.note and "DSB2018 is not available" in result.note
    assert "ConnectionError" in result.note


def test_auto_takes_the_cache_before_the_network(cached, embedded):
    result = load_data("auto")
    assert result.source == "dsb2018"
    assert "from the cache" in result.note and "because no known data set is below" in result.note


def test_auto_takes_kaggle_first(cached, embedded, make_stardist_folder):
    folder = make_stardist_folder(data.KAGGLE_INPUT / "some-slug" / "dsb2018")
    result = load_data("auto")
    assert result.source == "kaggle" and str(folder) in result.note and '"auto"' in result.note


@pytest.mark.parametrize(
    ("missing", "reason"), [(["masks"], "images without a mask (1)"), (["images", "masks"], "15 training images")]
)
def test_auto_goes_on_where_the_kaggle_input_cannot_be_used(cache, embedded, make_stardist_folder, missing, reason):
    folder = make_stardist_folder(data.KAGGLE_INPUT / "some-slug" / "cats")
    for kind in missing:
        (folder / "train" / kind / "a.tif").unlink()
    result = load_data("auto")
    assert result.source == "embedded" and reason in result.note
    assert reason in refusal("kaggle")


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def only_hidden_files(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".DS_Store").write_bytes(b"x")


def brighter_pixel(folder: Path) -> None:
    image = tifffile.imread(folder / "train" / "images" / "b.tif")
    image[0, 0] ^= 1
    tifffile.imwrite(folder / "train" / "images" / "b.tif", image)


DAMAGES = {
    "an empty file": lambda folder: (folder / "train" / "images" / "a.tif").write_bytes(b""),
    "a mask is missing": lambda folder: remove(folder, "train/masks/a.tif"),
    "a pair is missing": lambda folder: remove(folder, "train/masks/a.tif", "train/images/a.tif"),
    "the test images are missing": lambda folder: shutil.rmtree(folder / "test"),
    "a pair has another name": lambda folder: [
        (folder / "train" / kind / "c.tif").rename(folder / "train" / kind / "z.tif") for kind in ("images", "masks")
    ],
    "another pixel": brighter_pixel,
    "another mask": lambda folder: shutil.copy(folder / "test" / "images" / "d.tif", folder / "train/masks/e.tif"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_never_used_silently(cached, embedded, damage):
    damage(cached)
    before = sorted(cached.rglob("*"))
    message = refusal("dsb2018")
    assert f"The cache {cached} is damaged" in message and "failed (ConnectionError)" in message
    result = load_data("auto")
    assert result.source == "embedded" and "is damaged" in result.note and "ConnectionError" in result.note
    assert sorted(cached.rglob("*")) == before


def test_a_cache_with_hidden_files_only_is_an_empty_one(cached, embedded):
    only_hidden_files(cached)
    assert available_sources()["dsb2018"].startswith("not found")
    assert load_data("auto").source == "embedded"


def test_other_images_in_the_cache_are_not_called_dsb2018(cached, embedded, make_stardist_folder, monkeypatch):
    monkeypatch.setattr(data, "DSB2018_FINGERPRINT", "70d482ea")
    assert "its 16 + 1 images and masks are not the published 447 + 50" in refusal("dsb2018")


# --- Kaggle -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mount",
    [
        "data-science-bowl-2018/stage1_train",
        "data-science-bowl-2018/stage1_train/stage1_train",
        "competitions/data-science-bowl-2018/stage1_train",
        "datasets/some-owner/dsb-2018/stage1_train",
        "datasets/some-owner/dsb-2018/all/stage1_train",
        "datasets/some-owner/nuclei",
    ],
)
def test_stage1_train_is_found_under_both_mounts(tmp_path, mount, stage1_zip):
    (tmp_path / "another-data-set" / "train").mkdir(parents=True)
    folder = tmp_path / mount
    folder.mkdir(parents=True)
    with zipfile.ZipFile(stage1_zip) as archive:
        for member in archive.infolist()[:60]:
            path = folder / Path(member.filename).relative_to("stage1_train")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))
    found = find_kaggle_input(tmp_path)
    assert found is not None and (found == folder or found in folder.parents)
    assert tmp_path != found


@pytest.mark.parametrize("mount", ["stardist-dsb2018", "stardist/dsb2018", "datasets/owner/slug/dsb2018"])
def test_stardist_layout_is_found_under_both_mounts(tmp_path, mount, make_stardist_folder):
    folder = make_stardist_folder(tmp_path / mount)
    assert find_kaggle_input(tmp_path) == folder


@pytest.mark.parametrize("name", ["stage1_train.zip", "dsb2018.zip"])
def test_zips_on_kaggle_are_found(tmp_path, name, cache, stage1_zip):
    folder = data.KAGGLE_INPUT / "competitions" / "data-science-bowl-2018"
    folder.mkdir(parents=True)
    shutil.copy(stage1_zip, folder / name)
    result = load_data("kaggle")
    assert str(folder / name) in result.note and "3 colour and 0 brightfield" in result.note


def test_kaggle_looks_past_data_sets_of_another_kind(cache, embedded, make_stardist_folder):
    few = make_stardist_folder(data.KAGGLE_INPUT / "a-few-images")
    for kind in ("images", "masks"):
        remove(few, f"train/{kind}/a.tif")
    cats = data.KAGGLE_INPUT / "b-cats" / "cat1"
    for kind in ("images", "masks"):
        (cats / kind).mkdir(parents=True)
        (cats / kind / "photo.jpg").write_bytes(b"no image")
    (data.KAGGLE_INPUT / "c-broken").mkdir()
    (data.KAGGLE_INPUT / "c-broken" / "dsb2018.zip").write_bytes(b"no zip")
    message = refusal("kaggle")
    assert "15 training images" in message and "b-cats" in message and "c-broken" in message
    assert "attach the data" in message.lower()
    assert load_data("auto").source == "embedded"
    good = make_stardist_folder(data.KAGGLE_INPUT / "datasets" / "owner" / "slug")
    for source in ("kaggle", "auto"):
        result = load_data(source)
        assert result.source == "kaggle" and str(good) in result.note and "15 training images" in result.note


def test_a_folder_of_the_mount_that_cannot_be_read_is_passed_over(cache, monkeypatch, make_stardist_folder):
    good = make_stardist_folder(data.KAGGLE_INPUT / "b")
    (data.KAGGLE_INPUT / "a").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert find_kaggle_input() == good


def test_nothing_on_kaggle(cache, tmp_path):
    assert find_kaggle_input() is None
    (data.KAGGLE_INPUT / "a" / "b").mkdir(parents=True)
    (data.KAGGLE_INPUT / "circle").symlink_to(data.KAGGLE_INPUT)
    assert find_kaggle_input() is None
    with pytest.raises(DataError, match="Attach the data"):
        load_data("kaggle")


def test_kaggle_search_does_not_enter_folders_of_thousands(tmp_path):
    for index in range(data.MAX_KAGGLE_FOLDERS + 1):
        (tmp_path / "many" / f"{index}").mkdir(parents=True)
    (tmp_path / "many" / "0" / "stage1_train").mkdir()
    assert find_kaggle_input(tmp_path) is None


# --- what the course can work with -----------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, make_stardist_folder) -> Path:
    return make_stardist_folder(tmp_path / "mine")


def test_the_smallest_usable_data_set_is_taken(mine):
    assert len(load_data(mine).train) == data.MIN_TRAINING_IMAGES


def test_an_image_smaller_than_the_crops_is_named_with_its_size(mine):
    for kind in ("images", "masks"):
        tifffile.imwrite(mine / "train" / kind / "e.tif", np.ones((200, 127), np.uint8))
    message = refusal(mine)
    for words in ("image e in", str(mine), "200 x 127 pixels", "at least 128 x 128"):
        assert words in message


def test_too_few_training_images_are_counted(mine):
    for kind in ("images", "masks"):
        (mine / "train" / kind / "q.tif").unlink()
    message = refusal(mine)
    assert f"{mine} holds 15 training images" in message and "at least 16" in message


@pytest.mark.parametrize(("split", "words"), [("train", "16 training images"), ("test", "1 test images")])
def test_masks_without_any_nucleus_are_refused(mine, split, words):
    for path in (mine / split / "masks").iterdir():
        tifffile.imwrite(path, np.zeros((128, 130), np.uint16))
    message = refusal(mine)
    assert words in message and str(mine) in message and "holds a nucleus" in message


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_available_sources_looks_but_does_not_touch(cache, embedded, make_stardist_folder):
    found = available_sources()
    assert list(found) == ["embedded", "dsb2018", "kaggle"]
    assert found["embedded"] == str(embedded)
    assert found["dsb2018"].startswith("not found") and str(cache) in found["dsb2018"]
    assert found["kaggle"].startswith("not found")
    assert not cache.exists()
    make_stardist_folder(cache / "dsb2018")
    kaggle = make_stardist_folder(data.KAGGLE_INPUT / "x" / "dsb2018")
    found = available_sources()
    assert found["dsb2018"] == str(cache / "dsb2018") and found["kaggle"] == str(kaggle)


# --- real data --------------------------------------------------------------------------------------------------------


def test_real_data_by_path(real_data_zip):
    result = load_data(real_data_zip)
    assert data.fingerprint(result) == data.DSB2018_FINGERPRINT
    assert (len(result.train), len(result.test)) == (447, 50)
    assert all(sample.image.shape == sample.mask.shape for sample in result.train)
