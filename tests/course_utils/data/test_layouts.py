from __future__ import annotations

import io
import logging
import os
import shutil
import zipfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from course_utils.data import layouts
from course_utils.data.layouts import STARDIST_TEST_IDS, DataError, decode, read_samples


@pytest.fixture
def folder(tmp_path, make_stardist_folder) -> Path:
    return make_stardist_folder(tmp_path / "set")


def zip_folder(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def problem(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_samples(path)
    return str(caught.value)


def assert_same(one, other):
    for split in ("train", "test"):
        assert [s.name for s in getattr(one, split)] == [s.name for s in getattr(other, split)]
        for a, b in zip(getattr(one, split), getattr(other, split), strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)


# --- StarDist's layout ------------------------------------------------------------------------------------------------


def test_reads_pairs_in_order_of_name_and_keeps_ids(folder):
    result = read_samples(folder)
    assert [sample.name for sample in result.train] == list("abcefghijklmnopq")
    assert [sample.name for sample in result.test] == ["d"]
    sample = result.train[1]
    np.testing.assert_array_equal(sample.image, tifffile.imread(folder / "train" / "images" / "b.tif"))
    np.testing.assert_array_equal(np.unique(sample.mask), [0, 3, 65535])
    assert sample.image.dtype == np.uint8 and sample.mask.dtype == np.int32
    for array in (sample.image, sample.mask):
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.owndata


@pytest.mark.parametrize("prefix", ["", "dsb2018/", "one/two/dsb2018/"])
def test_zip_and_folder_read_the_same_however_deep(folder, tmp_path, prefix):
    archive = zip_folder(folder, tmp_path / "set.zip", prefix)
    nested = tmp_path / "nested" / prefix
    shutil.copytree(folder, nested, dirs_exist_ok=True)
    assert_same(read_samples(folder), read_samples(archive))
    assert_same(read_samples(folder), read_samples(tmp_path / "nested"))


def test_what_operating_systems_leave_behind_is_ignored(folder, tmp_path):
    expected = read_samples(folder)
    (folder / "train" / "images" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "images" / "._a.tif").write_bytes(b"x")
    (folder / "train" / "images" / "Thumbs.db").write_bytes(b"x")
    (folder / ".git").mkdir()
    shutil.copytree(folder / "train", folder / "__MACOSX" / "train")
    assert_same(read_samples(folder), expected)
    assert_same(read_samples(zip_folder(folder, tmp_path / "set.zip")), expected)


def test_zip_with_backslashes(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for path in folder.rglob("*.tif"):
            info = zipfile.ZipInfo("x")
            info.filename = str(path.relative_to(folder)).replace("/", "\\")
            archive.writestr(info, path.read_bytes())
    assert_same(read_samples(tmp_path / "windows.zip"), read_samples(folder))


def test_links_to_another_disk_are_followed_and_circles_end(folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train").symlink_to(folder / "train")
    (linked / "test").symlink_to(folder / "test")
    assert_same(read_samples(linked), read_samples(folder))
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "again").symlink_to(tmp_path / "circle")
    assert "no files" in problem(tmp_path / "circle")


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png", ".TIF"])
def test_every_suffix(tmp_path, suffix):
    image = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    mask = np.array([[0, 1, 1, 0], [0, 0, 300, 300], [0, 0, 0, 0]], dtype=np.uint16)
    for split in ("train", "test"):
        for kind, array in (("images", image), ("masks", mask)):
            path = tmp_path / split / kind / f"x{suffix}"
            path.parent.mkdir(parents=True)
            iio.imwrite(path, array)
    sample = read_samples(tmp_path).train[0]
    assert sample.image.dtype == np.uint16
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.mask, mask)


def test_mask_without_nuclei_is_allowed(folder):
    tifffile.imwrite(folder / "train" / "masks" / "a.tif", np.zeros((128, 130), np.uint16))
    assert read_samples(folder).train[0].mask.max() == 0


@settings(max_examples=60)
@given(
    arrays(st.sampled_from([np.uint8, np.uint16]), array_shapes(min_dims=2, max_dims=2, max_side=12)),
    st.sampled_from([None, "zlib"]),
    st.sampled_from(["<", ">"]),
)
def test_label_images_come_back_as_written(mask, compression, byteorder):
    result = decode(tiff_bytes(mask, compression=compression, byteorder=byteorder), ".tif")
    np.testing.assert_array_equal(result, mask)
    assert result.dtype == mask.dtype


# --- damaged files ----------------------------------------------------------------------------------------------------


def tiff_bytes(array: np.ndarray, **options) -> bytes:
    written = io.BytesIO()
    tifffile.imwrite(written, array, **options)
    return written.getvalue()


def pillow_bytes(array: np.ndarray, **options) -> bytes:
    # Pillow and libtiff write the directory after the pixels, tifffile before them.
    written = io.BytesIO()
    Image.fromarray(array).save(written, "TIFF", **options)
    return written.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
TIFF_KINDS = {
    "uncompressed": tiff_bytes(NOISE),
    "16 bit big endian": tiff_bytes(NOISE.astype(np.uint16) * 200, byteorder=">"),
    "strips": tiff_bytes(NOISE, rowsperstrip=8),
    "deflate": tiff_bytes(NOISE, compression="zlib"),
    "deflate strips": tiff_bytes(NOISE, compression="zlib", rowsperstrip=8),
    "tiles": tiff_bytes(NOISE, tile=(16, 16)),
    "deflate tiles": tiff_bytes(NOISE, tile=(16, 16), compression="zlib"),
    "bigtiff": tiff_bytes(NOISE, bigtiff=True),
    "pillow": pillow_bytes(NOISE),
    "pillow deflate": pillow_bytes(NOISE, compression="tiff_deflate"),
    "all zero": tiff_bytes(np.zeros((37, 53), np.uint16)),
    "all zero deflate": tiff_bytes(np.zeros((37, 53), np.uint16), compression="zlib"),
}


def png_bytes(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    iio.imwrite(written, array, extension=".png")
    return written.getvalue()


@pytest.mark.parametrize("kind", [*TIFF_KINDS, "png"])
def test_file_cut_at_any_byte_is_refused(kind):
    """A truncated file is an error, unless only bytes after the pixels are missing: then every pixel is right."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    suffix, data = (".png", png_bytes(NOISE)) if kind == "png" else (".tif", TIFF_KINDS[kind])
    expected = decode(data, suffix)
    survived = []
    for length in range(len(data)):
        try:
            result = decode(data[:length], suffix)
        except Exception:
            continue
        np.testing.assert_array_equal(result, expected, err_msg=f"{kind}, {length} of {len(data)} bytes")
        survived.append(length)
    assert all(length > 0.9 * len(data) for length in survived)


def test_changed_bytes_give_an_answer_or_an_error_that_names_the_file(folder):
    """Random damage to a header gives nothing but a `DataError`, and never fills the memory."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    path = folder / "train" / "images" / "a.tif"
    intact = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        damaged = bytearray(intact)
        for position in rng.integers(0, 280, size=rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_samples(folder)
        except DataError as error:
            assert "a.tif" in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("in_zip", [False, True])
def test_damaged_files_are_named(folder, tmp_path, in_zip):
    path = folder / "train" / "masks" / "b.tif"
    data = path.read_bytes()
    for damage in (data[:-7], b"", b"no tiff at all"):
        path.write_bytes(damage)
        message = problem(zip_folder(folder, tmp_path / "set.zip") if in_zip else folder)
        assert "masks/b.tif" in message.replace(os.sep, "/") and "cannot be decoded" in message


def test_damaged_zip_member_is_named(folder, tmp_path):
    archive = zip_folder(folder, tmp_path / "set.zip")
    with zipfile.ZipFile(archive) as members:
        info = members.getinfo("train/images/b.tif")
    data = bytearray(archive.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    data[start + 100 : start + 140] = bytes(40)
    archive.write_bytes(data)
    assert "train/images/b.tif in" in problem(archive)


def test_encrypted_zip_member_is_named(folder, tmp_path):
    archive = zip_folder(folder, tmp_path / "set.zip")
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = data.find(signature)
        while position >= 0:
            data[position + offset] |= 1
            position = data.find(signature, position + 4)
    archive.write_bytes(data)
    message = problem(archive)
    assert "encrypted" in message and ".tif' in" in message


@pytest.mark.parametrize("keep", [0, 100, 5000, -30])
def test_truncated_zip(folder, tmp_path, keep):
    archive = zip_folder(folder, tmp_path / "set.zip")
    archive.write_bytes(archive.read_bytes()[:keep])
    message = problem(archive)
    assert str(archive) in message and "download or copy it again" in message


# --- inconsistent files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "array", "words"),
    [
        ("images", np.arange(128 * 130 * 3).reshape(128, 130, 3).astype(np.uint8), ["(128, 130, 3)", "(H, W)"]),
        ("images", np.zeros((4, 128, 130), np.uint8), ["(4, 128, 130)", "(H, W)"]),
        ("images", np.zeros((128, 130), np.float32), ["float32", "uint8 or uint16"]),
        ("images", np.zeros((128, 130), np.int32), ["int32", "uint8 or uint16"]),
        ("images", np.zeros((129, 130), np.uint8), ["(129, 130)", "(128, 130)", "same height and width"]),
        ("masks", np.zeros((128, 130), np.float32), ["float32", "integers"]),
        ("masks", np.zeros((128, 130), bool), ["one id for each nucleus", "bool"]),
        ("masks", np.arange(128 * 130 * 3).reshape(128, 130, 3).astype(np.uint8), ["(128, 130, 3)", "label image"]),
        ("masks", np.full((128, 130), -1, np.int16), ["-1", "ids from"]),
        ("masks", np.full((128, 130), 2**31, np.uint32), ["2147483648", "ids from"]),
    ],
)
def test_inconsistent_files_are_named_with_found_and_expected(folder, kind, array, words):
    path = folder / "train" / kind / "b.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    message = problem(folder)
    for word in [str(path), *words]:
        assert word in message


def test_files_without_partner_are_listed_and_a_long_list_ends_with_a_count(folder):
    (folder / "train" / "images" / "c.tif").unlink()
    for index in range(8):
        shutil.copy(folder / "train" / "images" / "a.tif", folder / "train" / "images" / f"x{index}.tif")
    message = problem(folder)
    assert "masks without an image (1)" in message and str(folder / "train" / "masks" / "c.tif") in message
    assert "images without a mask (8)" in message and str(folder / "train" / "images" / "x0.tif") in message
    assert "x4.tif and 3 more" in message and "x5.tif" not in message


def test_kaggle_files_without_partner_are_listed(kaggle):
    shutil.rmtree(kaggle / "image04" / "masks")
    (kaggle / "image05" / "images" / "image05.png").unlink()
    message = problem(kaggle)
    assert "images without a mask (1)" in message and "image04.png" in message
    assert "masks without an image (1)" in message and "image05" in message


def test_two_files_of_one_name(folder):
    shutil.copy(folder / "train" / "images" / "a.tif", folder / "train" / "images" / "a.tiff")
    message = problem(folder)
    assert "a.tif and" in message and "a.tiff" in message and "same name" in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_splits_are_needed(folder, split):
    shutil.rmtree(folder / split)
    assert f"no {split} images" in problem(folder)


def test_a_folder_in_no_known_layout_is_described(tmp_path):
    assert "no files" in problem(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.jpg").write_bytes(b"x")
    for words in (str(tmp_path), "labels/1.jpg", "{train,test}/{images,masks}", "<id>/images/<id>.png"):
        assert words in problem(tmp_path)


def test_zip_in_a_zip_is_named(folder, tmp_path):
    zip_folder(folder, tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "download/inner.zip")
    message = problem(tmp_path / "outer.zip")
    assert "download/inner.zip" in message and "outer.zip" in message


def test_two_data_sets_are_both_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    message = problem(tmp_path)
    assert "2 data sets" in message and str(tmp_path / "copy") in message and str(folder) in message


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "picture.tif").write_bytes(b"II*")
    assert "neither a folder nor" in problem(tmp_path / "picture.tif")
    assert "neither a folder nor" in problem(tmp_path / "nothing.zip")


def test_a_search_in_the_wrong_folder_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "MAX_FILES", 5)
    for index in range(6):
        (tmp_path / f"{index}.txt").write_bytes(b"")
    assert "more than 5 files" in problem(tmp_path)


def test_nothing_is_left_beside_a_zip_and_a_read_only_folder_is_fine(folder, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    archive = zip_folder(folder, place / "set.zip")
    before = archive.read_bytes()
    place.chmod(0o555)
    try:
        assert_same(read_samples(archive), read_samples(folder))
    finally:
        place.chmod(0o755)
    assert list(place.iterdir()) == [archive] and archive.read_bytes() == before


# --- Kaggle's layout --------------------------------------------------------------------------------------------------


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, array)


def write_kaggle(root: Path, name: str, image: np.ndarray, nuclei: dict[str, np.ndarray]) -> None:
    write_png(root / name / "images" / f"{name}.png", image)
    for file_name, nucleus in nuclei.items():
        write_png(root / name / "masks" / f"{file_name}.png", nucleus.astype(np.uint8) * 255)


def fluorescence(shape=(20, 30)) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A grey RGBA image with two bright squares, and a mask for each; the names are not in order of position."""
    left, right = np.zeros(shape, bool), np.zeros(shape, bool)
    left[2:8, 2:8], right[10:16, 15:25] = True, True
    grey = np.where(left | right, 180, 20).astype(np.uint8)
    rgba = np.dstack([grey, grey, grey, np.full(shape, 255, np.uint8)])
    return rgba, {"b": left, "a": right}


@pytest.fixture
def kaggle(tmp_path) -> Path:
    root = tmp_path / "stage1_train"
    for index in range(21):
        write_kaggle(root, f"image{index:02d}", *fluorescence())
    return root


@pytest.mark.parametrize("in_zip", [False, True])
def test_kaggle_masks_are_numbered_in_order_of_file_name(kaggle, tmp_path, in_zip):
    path = zip_folder(kaggle, tmp_path / "x.zip", "stage1_train/") if in_zip else kaggle.parent
    sample = read_samples(path).train[0]
    rgba, nuclei = fluorescence()
    assert sample.image.dtype == np.uint8 and sample.mask.dtype == np.int32
    np.testing.assert_array_equal(sample.image, rgba[..., 0])
    np.testing.assert_array_equal(sample.mask, nuclei["a"] * 1 + nuclei["b"] * 2)


def test_every_tenth_image_is_for_testing(kaggle):
    result = read_samples(kaggle)
    assert [sample.name for sample in result.test] == ["image09", "image19"]
    assert len(result.train) == 19
    assert result.remark == "0 colour and 0 brightfield images left out"


def test_the_published_test_images_are_for_testing(kaggle):
    name = STARDIST_TEST_IDS[7] + "00ff" * 14
    (kaggle / "image03").rename(kaggle / name)
    (kaggle / name / "images" / "image03.png").rename(kaggle / name / "images" / f"{name}.png")
    result = read_samples(kaggle)
    assert [sample.name for sample in result.test] == [name]
    assert len(result.train) == 20


def test_a_few_kaggle_images_are_split_too(tmp_path):
    for name in ("one", "two"):
        write_kaggle(tmp_path, name, *fluorescence())
    result = read_samples(tmp_path)
    assert [len(result.train), len(result.test)] == [1, 1]


def test_one_kaggle_image_cannot_be_split(tmp_path):
    write_kaggle(tmp_path, "one", *fluorescence())
    assert "no train images" in problem(tmp_path)


def test_colour_and_brightfield_images_are_left_out_and_counted(kaggle):
    rgba, nuclei = fluorescence()
    colour = rgba.copy()
    colour[3, 3, 1] += 1
    write_kaggle(kaggle, "colour1", colour, nuclei)
    write_kaggle(kaggle, "colour2", colour, nuclei)
    brightfield = rgba.copy()
    brightfield[..., :3] = 255 - brightfield[..., :3]
    write_kaggle(kaggle, "brightfield", brightfield, nuclei)
    result = read_samples(kaggle)
    assert not {"colour1", "colour2", "brightfield"} & {s.name for s in result.train + result.test}
    assert len(result.train + result.test) == 21
    assert result.remark == "2 colour and 1 brightfield images left out"


@pytest.mark.parametrize("channels", [[0], [0, 1, 2], [0, 3]])
def test_grey_images_with_any_number_of_channels(kaggle, channels):
    rgba, nuclei = fluorescence()
    rgba[..., 3] = 7  # alpha differs from the grey value and must not count as a colour
    write_kaggle(kaggle, "image00", np.squeeze(rgba[..., channels]), nuclei)
    np.testing.assert_array_equal(read_samples(kaggle).train[0].image, rgba[..., 0])


def test_a_pixel_of_two_nuclei_belongs_to_the_first_file(kaggle):
    rgba, nuclei = fluorescence()
    nuclei["c"] = nuclei["a"].copy()
    nuclei["c"][0:12] = True  # two rows of "a", all of "b" above row 8
    write_kaggle(kaggle, "image00", rgba, nuclei)
    result = read_samples(kaggle)
    mask = result.train[0].mask
    assert (mask[nuclei["a"]] == 1).all() and (mask[nuclei["b"]] == 2).all() and (mask[0] == 3).all()
    shared = int((nuclei["c"] & (nuclei["a"] | nuclei["b"])).sum())
    assert f"{shared} pixels claimed by two nuclei" in result.remark


def test_kaggle_mask_of_another_shape_is_named(kaggle):
    write_png(kaggle / "image04" / "masks" / "x.png", np.zeros((5, 6), np.uint8))
    message = problem(kaggle)
    assert str(kaggle / "image04" / "masks" / "x.png") in message and "(5, 6)" in message and "(20, 30)" in message


def test_kaggle_test_images_without_masks_are_not_mistaken(kaggle):
    write_png(kaggle.parent / "stage1_test" / "t1" / "images" / "t1.png", fluorescence()[0])
    assert len(read_samples(kaggle.parent).train) == 19


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data_zip):
    return read_samples(real_data_zip)


def test_real_images_are_the_published_ones(real):
    assert (len(real.train), len(real.test)) == (447, 50)
    assert sum(len(np.unique(sample.mask)) - 1 for sample in real.train) == 19_372
    assert sum(len(np.unique(sample.mask)) - 1 for sample in real.test) == 2_460
    shapes = {}
    for sample in real.train:
        shapes[sample.image.shape] = shapes.get(sample.image.shape, 0) + 1
    assert shapes == {(256, 256): 276, (256, 320): 2, (260, 347): 3, (360, 360): 78, (512, 640): 11, (520, 696): 77}
    assert {sample.image.dtype for sample in real.train + real.test} == {np.dtype(np.uint8)}


def test_the_constant_names_the_published_test_images(real):
    assert STARDIST_TEST_IDS == tuple(sorted(sample.name[:8] for sample in real.test))
    assert not set(STARDIST_TEST_IDS) & {sample.name[:8] for sample in real.train}


def test_merged_kaggle_masks_are_those_of_stardist(real, stage1_zip):
    """Same images, same nuclei; only the order of the ids differs."""
    merged = read_samples(stage1_zip)
    assert merged.remark == "3 colour and 0 brightfield images left out"
    published = {sample.name: sample for sample in real.train + real.test}
    samples = merged.train + merged.test
    assert len(samples) == 21
    for sample in samples:
        other = published[sample.name]
        np.testing.assert_array_equal(sample.image, other.image)
        pairs = np.unique(sample.mask.astype(np.int64) * 100_000 + other.mask)
        # One to one: every id meets exactly one id of the other image, background meets background.
        assert len(pairs) == len(np.unique(sample.mask)) == len(np.unique(other.mask))
        assert pairs[0] == 0
