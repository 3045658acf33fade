"""Own images by one command: outputs, interruptions, changes, odd names and files, the page."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from bs4 import BeautifulSoup
from lab_in_browser import browser_window
from pages_in_browser import faults_in_browser, served
from PIL import Image
from skimage.draw import polygon2mask
from skimage.measure import label

from course_utils.data import embedded_folder
from course_utils.measurements import measure_instances
from course_utils.own_images import Segmentation
from workshop import segment
from workshop.command_line import main
from workshop.run.live import Progress
from workshop.segment import Options, SegmentError, find_images, outline, overlay, result_names, segment_folder
from workshop.segment_page import _note

IMAGES = sorted((embedded_folder() / "test" / "images").glob("*.tif"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three small images: TIFF, PNG, and one with 16 bits in a folder of its own."""
    folder = tmp_path / "my images"
    (folder / "sub").mkdir(parents=True)
    pieces = [tifffile.imread(path)[:128, :128] for path in IMAGES[:3]]
    tifffile.imwrite(folder / "a.tif", pieces[0])
    Image.fromarray(pieces[1]).save(folder / "b.png")
    tifffile.imwrite(folder / "sub" / "a.tif", pieces[2].astype(np.uint16) * 250)
    return folder


def files_of(out: Path) -> dict[str, bytes]:
    """All files but the lock, which is empty, and the path of the folder."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: data for name, data in found.items() if name not in (".segment/lock", ".segment/source")}


# outputs


def test_every_image_has_labels_an_overlay_rois_and_measurements(folder, tmp_path):
    out = tmp_path / "results"
    assert segment_folder(folder, out, Options(pixel_size=0.5)) == (3, {})
    table = pd.read_csv(out / "measurements.csv")
    assert list(table["image"].unique()) == ["a.tif", "b.png", os.path.join("sub", "a.tif")]
    assert (table["length_unit"] == "micrometre").all()
    for name, image in (("a", "a.tif"), ("b", "b.png"), ("sub/a", "sub/a.tif")):
        labels = tifffile.imread(out / "labels" / f"{name}.tif")
        assert labels.shape == (128, 128) and labels.dtype == np.uint16 and labels.max() > 1
        assert Image.open(out / "overlays" / f"{name}.png").mode == "RGB"
        rows = table[table["image"] == image].reset_index(drop=True)
        original = np.asarray(Image.open(folder / image))
        expected = measure_instances(labels, original, 0.5)
        pd.testing.assert_frame_equal(rows[expected.columns], expected, check_dtype=False, rtol=1e-6)
        rois = roifile.roiread(out / "rois" / f"{name}.zip")
        assert len(rois) == labels.max()
        for number, roi in enumerate(rois, start=1):
            assert roi.name == f"{number:05d}"
            rows_of, columns_of = np.nonzero(labels == number)
            box = (columns_of.min(), rows_of.min(), columns_of.max() + 1, rows_of.max() + 1)
            assert (roi.left, roi.top, roi.right, roi.bottom) == box


def test_more_nuclei_than_16_bits_hold_take_32(tmp_path, monkeypatch):
    labels = np.zeros((2, 70000), dtype=np.int32)
    labels[0] = np.arange(70000)
    monkeypatch.setattr(segment, "ndimage", SimpleNamespace(find_objects=lambda _: []))  # they take a minute
    monkeypatch.setattr(segment, "measure_instances", lambda *_: pd.DataFrame({"id": [], "diameter": []}))
    found = Segmentation(labels, labels, math.nan, ())
    result = segment._write_results(tmp_path, "many", "many.tif", "", found, Options())
    stored = tifffile.imread(tmp_path / "labels" / "many.tif")
    assert stored.dtype == np.uint32 and (stored == labels).all() and result["agreement"] is None


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_holds_exactly_the_pixels_of_its_region_with_holes_filled(seed):
    from scipy.ndimage import binary_fill_holes

    regions = label(np.random.default_rng(seed).random((12, 15)) < 0.6)
    for number in range(1, regions.max() + 1):
        mask = regions == number
        corners = outline(mask)
        (x, y), (after_x, after_y) = corners.T, np.roll(corners, -1, axis=0).T
        filled = binary_fill_holes(mask)
        assert (x * after_y - after_x * y).sum() / 2 == filled.sum()
        assert ((x == after_x) != (y == after_y)).all(), "each step goes along one axis"
        assert (polygon2mask(mask.shape, corners[:, ::-1] - 0.5)[filled]).mean() > 0.4


def test_large_images_are_reduced_in_the_overlay_and_small_ones_enlarged():
    grey, labels = np.arange(40 * 3000.0).reshape(40, 3000), np.zeros((40, 3000), dtype=int)
    labels[10:30, 100:200] = 1
    assert overlay(grey, labels).shape == (20, 1500, 3)
    assert (overlay(grey, labels)[5, 55:95] == (230, 159, 0)).all()
    assert overlay(grey[:, :40], labels[:, :40]).shape == (160, 160, 3)


# interruptions and changes


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(folder, tmp_path, monkeypatch, capsys):
    segment_folder(folder, tmp_path / "whole", Options())
    done = Progress.done

    def interrupted(self, text):
        done(self, text)
        raise KeyboardInterrupt

    for _ in range(2):
        monkeypatch.setattr(Progress, "done", interrupted)
        with pytest.raises(KeyboardInterrupt):
            segment_folder(folder, tmp_path / "parts", Options())
    (tmp_path / "parts" / "labels" / ".b.tif.123.partial").write_bytes(b"half")
    monkeypatch.setattr(Progress, "done", done)
    segment_folder(folder, tmp_path / "parts", Options())
    assert "2 of 3 images are done already." in capsys.readouterr().out
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_a_killed_run_goes_on_and_gives_the_same_bytes(folder, tmp_path):
    for number in range(6):
        shutil.copy(folder / "a.tif", folder / f"more {number}.tif")
    out = tmp_path / "killed"
    command = [sys.executable, "-P", "-m", "workshop.command_line", "segment", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.rglob("results/*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    segment_folder(folder, tmp_path / "whole", Options())
    assert files_of(out) == files_of(tmp_path / "whole")


def times_of(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "labels").rglob("*.tif")}


def test_what_changed_is_done_again_and_nothing_else(folder, tmp_path):
    out = tmp_path / "results"
    segment_folder(folder, out, Options())
    before = times_of(out / "sub") | times_of(out)
    segment_folder(folder, out, Options())
    assert times_of(out) == before
    Image.fromarray(tifffile.imread(IMAGES[5])[:100, :128]).save(folder / "b.png")
    segment_folder(folder, out, Options())
    assert [name for name, at in times_of(out).items() if at != before[name]] == ["b.tif"]
    assert tifffile.imread(out / "labels" / "b.tif").shape == (100, 128)
    (out / "rois" / "a.zip").unlink()
    segment_folder(folder, out, Options())
    assert (out / "rois" / "a.zip").exists()
    before = times_of(out)
    segment_folder(folder, out, Options(diameter=30.0))
    assert all(at != before[name] for name, at in times_of(out).items())
    (folder / "b.png").unlink()
    segment_folder(folder, out, Options(diameter=30.0))
    assert not list(out.rglob("b.*")) and "b.png" not in (out / "measurements.csv").read_text()


# names and folders


def test_names_that_collide_get_their_suffix():
    paths = [Path(name) for name in ("a.tif", "a.png", "sub/a.tif", "A.tif", "c.TIF", "a.tif.png", "ä.png", "ä.png")]
    names = result_names(paths)
    assert len(names) == len(paths) and len({name.casefold() for name in names}) == len(paths)
    assert names["sub/a"] == Path("sub/a.tif") and names["c"] == Path("c.TIF")
    assert names == result_names(paths[::-1])


ODD_NAMES = ["-dash.tif", "with space.tif", "naïve µm 細胞.tif", "a;b&c'd\".tif", "<b>bold.tif", "%41.tif", "NA.tif"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept(tmp_path, name):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / name, tifffile.imread(IMAGES[0])[:64, :64])
    assert segment_folder(tmp_path / "in", tmp_path / "out", Options())[0] == 1
    assert (tmp_path / "out" / "labels" / name).exists()
    assert list(pd.read_csv(tmp_path / "out" / "measurements.csv")["image"].unique()) == [name]
    page = BeautifulSoup((tmp_path / "out" / "summary.html").read_text(encoding="utf-8"), "html.parser")
    assert page.find("th", {"class": "name"}).text == name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_unicode_does_not_stop_the_run(tmp_path):
    (tmp_path / "in").mkdir()
    os.rename(shutil.copy(IMAGES[0], tmp_path / "in"), os.fsencode(tmp_path / "in") + b"/\xff\n.tif")
    assert segment_folder(tmp_path / "in", tmp_path / "out", Options())[0] == 1
    assert main(["segment", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0


def test_results_inside_the_folder_are_no_images(folder):
    assert segment_folder(folder, folder / "results", Options())[0] == 3
    assert segment_folder(folder, folder / "results", Options())[0] == 3
    assert segment_folder(folder, folder / "other", Options())[0] == 3
    assert len(find_images(folder, folder / "third")[0]) == 3


def test_the_results_of_another_folder_are_not_overwritten(folder, tmp_path):
    segment_folder(folder, tmp_path / "out", Options())
    shutil.copytree(folder, tmp_path / "copy")
    before = files_of(tmp_path / "out")
    with pytest.raises(SegmentError, match="holds the results of another folder"):
        segment_folder(tmp_path / "copy", tmp_path / "out", Options())
    assert files_of(tmp_path / "out") == before


# what cannot be segmented


def test_wrong_files_are_named_and_skipped(folder, tmp_path, capsys):
    (folder / "broken.tif").write_bytes((folder / "a.tif").read_bytes()[:500])
    (folder / "text.png").write_text("no picture")
    (folder / "notes.txt").write_text("notes")
    (folder / "empty.tif").write_bytes(b"")
    (folder / ".hidden.tif").write_bytes(b"")
    stack = np.zeros((4, 32, 32), dtype=np.uint8)
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "time.tif", stack, imagej=True, metadata={"axes": "TYX"})
    with tifffile.TiffWriter(folder / "pages.tif") as file:
        for page in stack:
            file.write(page, contiguous=False)
    tifffile.imwrite(folder / "nan.tif", np.full((32, 32), np.nan, dtype=np.float32))
    assert main(["segment", str(folder), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "Images done: 3, files skipped: 8" in said.out
    for name, reason in {
        "broken.tif": "truncated", "text.png": "cannot be decoded", "notes.txt": "no image that can be read",
        "empty.tif": "cannot be decoded", "stack.tif": "4 planes of a stack", "time.tif": "4 points in time",
        "pages.tif": "4 images", "nan.tif": "NaN or infinite values: save it again",
    }.items():  # fmt: skip
        (line,) = [line for line in said.err.splitlines() if f"skipped: {name}" in line]
        assert reason in line
        assert name in (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")


def test_an_image_that_is_skipped_keeps_no_results_of_an_earlier_run(folder, tmp_path):
    out = tmp_path / "out"
    assert segment_folder(folder, out, Options())[0] == 3
    (folder / "a.tif").write_bytes(b"damaged since")
    n_images, skipped = segment_folder(folder, out, Options())
    assert n_images == 2 and list(skipped) == ["a.tif"]
    left = [path.parent.name for path in out.rglob("a.*")]
    assert left == 4 * ["sub"]  # of the other image of that name


def test_a_channel_is_chosen(tmp_path):
    (tmp_path / "in").mkdir()
    image = np.stack([np.zeros((64, 64), np.uint16), tifffile.imread(IMAGES[0])[:64, :64].astype(np.uint16)])
    tifffile.imwrite(tmp_path / "in" / "two.tif", image, imagej=True, metadata={"axes": "CYX"})
    out = tmp_path / "out"
    assert segment_folder(tmp_path / "in", out, Options())[0] == 1
    assert not tifffile.imread(out / "labels" / "two.tif").any()
    assert segment_folder(tmp_path / "in", out, Options(channel=2))[0] == 1
    assert tifffile.imread(out / "labels" / "two.tif").any()


def said(arguments: list[str], capsys) -> str:
    assert main(["segment", *arguments]) == 1
    return capsys.readouterr().err


def test_a_folder_without_images_is_refused_in_words(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert "was not found: check the spelling" in said([str(tmp_path / "missing"), *out], capsys)
    (tmp_path / "in").mkdir()
    assert "holds no images (.tif" in said([str(tmp_path / "in"), *out], capsys)
    (tmp_path / "in" / "notes.txt").write_text("")
    assert "1 other files, such as notes.txt" in said([str(tmp_path / "in"), *out], capsys)
    assert "is not a folder" in said([str(tmp_path / "in" / "notes.txt"), *out], capsys)
    (tmp_path / "in" / "a.tif").write_bytes(b"II")
    assert "None of the 1 images in" in said([str(tmp_path / "in"), *out], capsys)
    assert "a folder of results" in said([str(tmp_path / "in"), "--out", str(tmp_path / "in")], capsys)


def test_results_that_cannot_be_written_are_an_error_in_words(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert "The results cannot be written to" in said([str(folder), "--out", str(tmp_path / "file" / "out")], capsys)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segment.tifffile, "imwrite", full)
    words = said([str(folder), "--out", str(tmp_path / "out")], capsys)
    assert "No space left on device" in words and "goes on where it stopped" in words


def test_a_diameter_to_which_nothing_can_be_scaled_is_refused_before_any_image(tmp_path, capsys):
    assert main(["segment", str(tmp_path), "--out", str(tmp_path / "out"), "--diameter", "2000"]) == 1
    assert "--diameter must be a number of pixels from 2.6 to 422, but is 2000" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--diameter=0", "--diameter=-3", "--diameter=x", "--pixel-size=nan", "--channel=0"])
def test_options_that_make_no_sense_are_refused(folder, option):
    with pytest.raises(SystemExit):
        main(["segment", str(folder), "--out", "unused", option])


# the page


def test_the_page_is_accessible_and_warns(folder, tmp_path):
    tifffile.imwrite(folder / "inverted.tif", 255 - tifffile.imread(folder / "a.tif"))
    tifffile.imwrite(folder / "empty.tif", np.zeros((64, 64), dtype=np.uint8))
    (folder / "notes with a long name of many words.txt").write_text("")
    segment_folder(folder, tmp_path / "out", Options())
    page = BeautifulSoup((tmp_path / "out" / "summary.html").read_text(encoding="utf-8"), "html.parser")
    doubts = page.find("h2", string="Reasons for doubt").find_next("h2").find_all_previous("div", {"class": "doubt"})
    text = " ".join(one.text for one in doubts)
    assert "Inverted contrast" in text and "No nuclei" in text and "notes with a long name" in text
    assert len(page.find_all("figure")) == 5 and all(image["src"].startswith("data:") for image in page("img"))
    assert "StarDist" in page.text and "Cellpose" in page.text and "boundary_dsb2018.pt" in page.text
    with browser_window() as window, served(tmp_path / "out") as address:
        assert faults_in_browser(window, [f"{address}/summary.html"]) == []


@pytest.mark.parametrize(("found", "diameter", "said"), [
    ((10, 11, 30), None, "--diameter 11"), ((40, 45), None, "--diameter 42"), ((18, 25), None, ""),
    ((10, 11), 10.5, ""), ((21, 22), 10.5, "--diameter 22"), ((None,), None, ""), ((), 5, ""),
])  # fmt: skip
def test_the_page_says_which_diameter_to_try_for_the_whole_folder(found, diameter, said):
    note = _note([{"pixels": one} for one in found], diameter)
    assert said in note and bool(said) == bool(note)


def test_the_time_left_is_that_of_the_remaining_bytes(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("workshop.run.live.time.monotonic", lambda: next(clock))
    progress = Progress([1, 1, 2])
    for name in ("a", "b", "c"):
        progress.done(name)
    assert capsys.readouterr().out == "[1 of 3] a; 30 s left\n[2 of 3] b; 20 s left\n[3 of 3] c\n"


def test_the_state_is_plain_and_the_roi_zip_has_no_dates(folder, tmp_path):
    segment_folder(folder, tmp_path / "out", Options())
    kept = json.loads((tmp_path / "out" / ".segment" / "results" / "a.json").read_text())
    assert kept["image"] == "a.tif" and kept["nuclei"] > 1
    with zipfile.ZipFile(tmp_path / "out" / "rois" / "a.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
