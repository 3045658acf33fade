"""Data sets as people have them: read right, mended with a remark, or refused with what was seen and what to do."""

from __future__ import annotations

import io
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import rotate
from skimage.measure import label

from course_utils.data import DataError, embedded_folder, load_data
from course_utils.data.decoding import MaskFeatures, check_label_images, decode, decode_file
from course_utils.data.layouts import read_samples
from course_utils.targets import boundary_target

SIDE = 128


def pair(seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A bright-nuclei image and its mask: n nuclei, some of which touch."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), np.uint16)
    for number, (row, column) in enumerate(rng.permutation([(r, c) for r in range(5) for c in range(5)])[:n], start=1):
        mask[(y - 24 * row - 16) ** 2 + (x - 24 * column - 16) ** 2 < rng.integers(8, 13) ** 2] = number
    return (20 + 120 * (mask > 0) + rng.integers(0, 20, mask.shape)).astype(np.uint8), mask


PAIRS = [pair(seed) for seed in range(18)]


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array.astype(np.uint8) if path.suffix.lower() != ".png" else array).save(path)


def stardist(folder: Path, image: Callable = lambda a: a, mask: Callable = lambda a: a, suffix: str = ".tif") -> Path:
    """A set in StarDist's layout: 16 training images a00 to a15, 2 test images a16 and a17."""
    for number, (one, other) in enumerate(PAIRS):
        split, name = "train" if number < 16 else "test", f"a{number:02d}{suffix}"
        save(folder / split / "images" / name, image(one))
        save(folder / split / "masks" / name, mask(other))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return stardist(tmp_path / "set")


def kaggle(folder: Path, image: Callable = lambda a: a) -> Path:
    for number, (one, mask) in enumerate(PAIRS):
        save(folder / f"id{number:02d}" / "images" / f"id{number:02d}.png", image(one))
        for nucleus in range(1, 7):
            save(folder / f"id{number:02d}" / "masks" / f"n{nucleus}.png", ((mask == nucleus) * 255).astype(np.uint8))
    return folder


def problem(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_samples(path)
    return str(caught.value)


def assert_complete(path: Path, n_train: int = 16) -> str:
    """All pairs are there, with the right pixels; returns the remark."""
    result = read_samples(path)
    assert (len(result.train), len(result.test)) == (n_train, 2)
    for sample, (image, mask) in zip(result.train[:16] + result.test, PAIRS, strict=True):
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.mask, mask)
    return result.remark


# --- masks that are no label images -----------------------------------------------------------------------------------


def as_jpeg(mask: np.ndarray, quality: int = 90) -> np.ndarray:
    written = io.BytesIO()
    Image.fromarray((mask * 40).astype(np.uint8)).save(written, "JPEG", quality=quality)
    return np.asarray(Image.open(written))


def resized(mask: np.ndarray, how: int, factor: float) -> np.ndarray:
    small = Image.fromarray(mask.astype(np.float32)).resize((int(SIDE * factor),) * 2, how)
    return np.round(np.asarray(small.resize((SIDE, SIDE), how))).clip(0).astype(np.uint16)


def target(mask: np.ndarray, mode: str = "inner") -> np.ndarray:
    return boundary_target(mask.astype(int), mode=mode).numpy().astype(np.uint8)


def only_first(mask: np.ndarray) -> np.ndarray:
    return (mask == 1).astype(np.uint16)


# What is done to a mask, words of the message, and whether one such mask among good ones is found, too
NO_LABELS = {
    "binary 255": (lambda m: ((m > 0) * 255).astype(np.uint8), ["[255]", "binary mask", "measure.label"], True),
    "binary 1": (lambda m: (m > 0).astype(np.uint8), ["[1]", "binary mask"], True),
    "binary 1, 16 bits": (lambda m: (m > 0).astype(np.uint16), ["[1]", "binary mask"], True),
    "binary, two nuclei": (lambda m: np.isin(m, [1, 4]).astype(np.uint8), ["binary mask"], False),
    "outlines": (lambda m: (target(m) == 2).astype(np.uint8), ["binary mask"], True),
    "inverted binary": (lambda m: ((m == 0) * 255).astype(np.uint8), ["darker", "if their nuclei are 0"], False),
    "classes 0/1/2": (target, ["[1, 2]", "class map"], True),
    "classes 0/1/2, thick": (lambda m: target(m, "thick"), ["class map"], True),
    "classes 0/127/255": (lambda m: target(m) * 127, ["[127, 254]", "class map"], True),
    "classes 0/1/2, one nucleus": (lambda m: target(only_first(m)), ["interior and boundary"], False),
    "four classes": (lambda m: (m + 3) // 4 + (target(m) == 2) * 2, ["class map"], True),
    "types of cells": (lambda m: np.where(m, 1 + m % 2, 0), ["[1, 2]", "class map"], True),
    "background is 1": (lambda m: m + 1, ["number 1 covers", "no pixel is 0", "mask[mask == 1] = 0"], True),
    "background is 255": (lambda m: np.where(m, m, 255), ["number 255 covers", "mask[mask == 255] = 0"], True),
    "background is 7, lines 0": (
        lambda m: np.where(target(m, "outer") == 2, 0, np.where(m, m, 7)), ["number 7 covers"], False
    ),
    "classes 1/2": (lambda m: (m > 0) + 1, ["no pixel is 0"], False),
    "one number": (lambda m: np.full_like(m, 3), ["no pixel is 0"], False),
    "bilinear": (lambda m: resized(m, Image.BILINEAR, 0.5), ["interpolation", "nearest neighbour"], True),
    "bilinear, far ids": (lambda m: resized(m * 40, Image.BILINEAR, 0.5), ["interpolation"], True),
    "bicubic": (lambda m: resized(m * 40, Image.BICUBIC, 0.7), ["interpolation"], True),
    "lanczos, enlarged": (lambda m: resized(m * 900, Image.LANCZOS, 1.5), ["interpolation"], True),
    "rotated": (lambda m: np.round(rotate(m * 40.0, 5, order=1, reshape=False)).astype(np.uint8), ["interpol"], True),
    "JPEG": (as_jpeg, ["JPEG"], True),
    "JPEG, best": (lambda m: as_jpeg(m, 100), ["JPEG"], True),
    "the image": (lambda m: next(image for image, other in PAIRS if other is m), ["a picture"], True),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_LABELS)
def test_a_set_of_masks_that_are_no_label_images_is_refused_in_words(kind, tmp_path):
    change, words, _ = NO_LABELS[kind]
    message = problem(stardist(tmp_path, mask=lambda m: change(m).astype(change(m).dtype if m.max() else np.uint16)))
    assert str(tmp_path) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("kind", [kind for kind, (_, _, alone) in NO_LABELS.items() if alone])
def test_one_such_mask_among_good_ones_is_named(kind, folder):
    tifffile.imwrite(folder / "train" / "masks" / "a05.tif", NO_LABELS[kind][0](PAIRS[5][1]))
    message = problem(folder)
    assert f"{folder / 'train' / 'masks' / 'a05.tif'} is not a label image" in message and "1 of 18 masks" in message


def disconnected(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 2, 1, mask)


def three_cut_in_two(mask):
    """A line without ids goes through three nuclei, as where detector rows are dead."""
    cut = mask.copy()
    for id_ in np.unique(mask)[1:4]:
        rows = np.flatnonzero((mask == id_).any(axis=1))
        middle = int(rows.mean())
        cut[middle : middle + 2][mask[middle : middle + 2] == id_] = 0
    return cut


LEGAL = {
    "one nucleus": only_first,
    "one nucleus, 255": lambda m: only_first(m) * 255,
    "two nuclei": lambda m: np.where(m > 2, 0, m),
    "a disconnected nucleus": disconnected,
    "one nucleus in two pieces": lambda m: np.isin(m, [1, 2]).astype(np.uint16),
    "three nuclei in two pieces": three_cut_in_two,
    "one nucleus and specks": lambda m: only_first(m) + (np.indices(m.shape).sum(0) % 61 == 0) * (m == 0) * 0
    + ((np.arange(SIDE)[:, None] == 3) & (np.arange(SIDE) % 40 == 3)),
    "filled by one nucleus": lambda m: np.ones_like(m),
    "filled by two nuclei": lambda m: np.ones_like(m) + (np.arange(SIDE) > 50),
    "no nuclei": np.zeros_like,
    "gaps in ids": lambda m: m * 9001,
    "huge ids": lambda m: m.astype(np.uint32) * 300_000_000,
    "ids from 1000": lambda m: np.where(m, m + 1000, 0),
    "nuclei of a pixel": lambda m: np.where(np.indices(m.shape).max(0) % 8 == 0, np.arange(m.size).reshape(m.shape), 0)
    * (np.indices(m.shape).min(0) % 8 == 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEGAL)
@pytest.mark.parametrize("n_odd", [1, 2])
def test_legal_oddities_load(kind, n_odd, folder):
    for name in ("train/masks/a05.tif", "test/masks/a17.tif")[:n_odd]:
        odd = LEGAL[kind](PAIRS[int(Path(name).stem[1:])][1])
        tifffile.imwrite(folder / name, odd.astype(np.int32 if odd.max() > 65535 else np.uint16))
    result = read_samples(folder)
    assert (len(result.train), len(result.test)) == (16, 2)


@pytest.mark.parametrize("kind", ["one nucleus", "one nucleus, 255", "two nuclei", "gaps in ids", "huge ids"])
def test_sets_of_nothing_but_legal_oddities_load(kind, tmp_path):
    assert len(read_samples(stardist(tmp_path, mask=LEGAL[kind])).train) == 16


def variants(mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    row, column = (rng.integers(0, side - 127) for side in mask.shape)
    return {
        "crop": mask[row : row + 128, column : column + 128],
        "small crop": mask[row : row + 48, column : column + 48],
        **{f"1/{step}": mask[::step, ::step] for step in (2, 3, 4, 8)},
        "turned": rotate(mask, 17, order=0),
        "numbered anew": label(mask > 0).astype(np.uint16),
    }


@pytest.mark.parametrize("which", ["embedded", "dsb2018"])
def test_no_false_alarm(which, request):
    """True masks, crops and copies made with nearest neighbour: whole sets, and each file alone."""
    path = embedded_folder() if which == "embedded" else request.getfixturevalue("real_data_zip")
    data = read_samples(path)
    rng = np.random.default_rng(0)
    changed: dict[str, list[MaskFeatures]] = {}
    samples = (data.train + data.test)[:: 1 if which == "embedded" else 4]
    for sample in samples:
        for kind, mask in variants(sample.mask, rng).items():
            changed.setdefault(kind, []).append(MaskFeatures.of(mask, f"{kind} of {sample.name}"))
    for masks in changed.values():
        check_label_images(masks)
        for _ in range(20):
            check_label_images([masks[index] for index in rng.choice(len(masks), 16, replace=False)])


def test_nuclei_that_share_ids_after_squeezing_into_8_bits_are_found():
    mask = np.zeros((320, 320), np.uint16)
    for number in range(400):
        row, column = divmod(number, 20)
        mask[16 * row : 16 * row + 9, 16 * column : 16 * column + 9] = number + 1
    check_label_images([MaskFeatures.of(mask, "m")])
    for squeezed in (mask.astype(np.uint8), np.minimum(mask, 255).astype(np.uint8)):
        with pytest.raises(DataError, match="share an id"):
            check_label_images([MaskFeatures.of(squeezed, "m")])


def test_a_binary_mask_for_each_image_of_kaggles_layout_is_refused(tmp_path):
    for number, (image, mask) in enumerate(PAIRS):
        save(tmp_path / f"id{number}" / "images" / f"id{number}.png", image)
        save(tmp_path / f"id{number}" / "masks" / "mask.png", ((mask > 0) * 255).astype(np.uint8))
    assert "binary mask" in problem(tmp_path)


# --- names ------------------------------------------------------------------------------------------------------------


def rename(folder: Path, new: Callable[[str, str], str], kinds=("images", "masks")) -> None:
    for split in ("train", "test"):
        for kind in kinds:
            for path in sorted((folder / split / kind).glob("*")):
                target = path.parent / new(kind, path.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)


NAMES = {
    "subfolders": lambda kind, name: f"set{name[1]}/{name}",
    "images in subfolders": lambda kind, name: f"set{name[1]}/{name}" if kind == "images" else name,
    "upper case": lambda kind, name: name.upper(),
    "upper case masks": lambda kind, name: name.upper() if kind == "masks" else name,
    "suffixes differ in case": lambda kind, name: name.replace("tif", "TIF") if kind == "masks" else name,
    "NFC and NFD": lambda kind, name: unicodedata.normalize("NFC" if kind == "masks" else "NFD", f"zellk\xe4rn{name}"),
    "_mask": lambda kind, name: name.replace(".", "_mask.") if kind == "masks" else name,
    "_masks": lambda kind, name: name.replace(".", "_masks.") if kind == "masks" else name,
    "_cp_masks": lambda kind, name: name.replace(".", "_cp_masks.") if kind == "masks" else name,
    "img and img_mask": lambda kind, name: f"img{name}" if kind == "images" else f"img_mask{name}",
    "image_01 and mask_01": lambda kind, name: name.replace("a", "image_" if kind == "images" else "mask_", 1),
    "_img and _label": lambda kind, name: name.replace(".", "_img." if kind == "images" else "_label."),
    ".ome.tif": lambda kind, name: name.replace(".", ".ome.") if kind == "images" else name,
    "suffix in subfolders": lambda kind, name: f"s{name[1]}/{name.replace('.', '_seg.') if kind == 'masks' else name}",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("in_zip", [False, True])
def test_pairs_are_found_whatever_the_names(kind, in_zip, folder, tmp_path):
    rename(folder, NAMES[kind])
    path = folder
    if in_zip:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*.*"):
                archive.write(file, f"./{file.relative_to(folder).as_posix()}")
    remark = assert_complete(path)
    assert ("paired by" in remark) == any(word in kind for word in ("_", ".ome", "suffix in"))


WRONG_NAMES = {
    "two experiments": lambda kind, name: ("exp1_" if kind == "images" else "exp2_") + name,
    "two wells": lambda kind, name: name.replace("a", "a" if kind == "images" else "b"),
    "other numbers": lambda kind, name: name if kind == "images" else f"a{int(name[1:3]) + 40}.tif",
    "one without mask": lambda kind, name: name if (kind, name) != ("masks", "a03.tif") else "b03.npy",
    "one more suffix": lambda kind, name: name if (kind, name) != ("masks", "a03.tif") else "a03_mask.tif",
}


@pytest.mark.parametrize("kind", WRONG_NAMES)
def test_names_that_do_not_belong_together_are_listed_and_counted(kind, folder):
    rename(folder, WRONG_NAMES[kind])
    message = problem(folder)
    assert f"images without a mask ({1 if kind.startswith('one') else 18})" in message
    assert str(folder / "train" / "images") in message
    assert kind != "one without mask" or "b03.npy" in message


@pytest.mark.parametrize("names", [("Images", "Masks"), ("IMAGES", "masks")])
@pytest.mark.parametrize("split", ["train", "Train"])
def test_folders_in_upper_case(names, split, folder):
    for one in ("train", "test"):
        for kind, name in zip(("images", "masks"), names, strict=True):
            (folder / one / kind).rename(folder / one / name)
    (folder / "train").rename(folder / split)
    assert assert_complete(folder) == ""


@pytest.mark.parametrize("suffix", [".bmp", ".BMP", ".gif", ".png", ".PNG", ".tiff", ".TIF"])
def test_every_suffix_is_read_in_both_layouts(suffix, tmp_path):
    assert assert_complete(stardist(tmp_path / "a", suffix=suffix)) == ""
    one = kaggle(tmp_path / "b")
    for path in list(one.rglob("*.png")):
        save(path.with_suffix(suffix), np.asarray(Image.open(path)))
        if suffix != ".png":
            path.unlink()
    result = read_samples(one)
    np.testing.assert_array_equal(result.train[3].image, PAIRS[3][0])
    np.testing.assert_array_equal(result.train[3].mask, PAIRS[3][1])


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_images_in_jpeg_are_read_and_masks_in_jpeg_refused(suffix, folder):
    for path in list((folder / "train" / "images").iterdir())[:5]:
        Image.open(path).save(path.with_suffix(suffix), "JPEG")
        path.unlink()
    assert len(read_samples(folder).train) == 16
    mask = folder / "train" / "masks" / "a00.tif"
    Image.fromarray((PAIRS[0][1] * 40).astype(np.uint8)).save(mask.with_suffix(suffix), "JPEG")
    mask.unlink()
    assert f"a00{suffix} is a JPEG file" in problem(folder)


def extra_files(folder: Path, where: str, kind: str = ".tif") -> None:
    for name in ("x1", "x2"):
        save(folder / where / f"{name}{kind}", PAIRS[0][0])


@pytest.mark.parametrize("kind", [".tif", ".png"])
@pytest.mark.parametrize(
    "places",
    [
        ["val/images", "val/masks"],
        ["valid/images"],
        ["backup/train/images", "backup/train/masks", "backup/test/images"],
        ["train/thumbnails"],
        ["train/images/thumbs"],
        ["train/images/previews", "train/masks/previews"],
        ["overlays"],
        ["x1/images", "x1/masks"],
        ["deep/er/id/images", "deep/er/id/masks"],
    ],
)
def test_what_lies_beside_the_set_is_counted_not_read(places, kind, folder):
    for place in places:
        extra_files(folder, place, kind)
    remark = assert_complete(folder)
    assert (
        f"{2 * len(places)} other files not read, such as {places[-1].split('/')[0]}" in remark or places[0] in remark
    )


def test_a_copy_inside_and_a_preview_of_each_image_do_no_harm(folder):
    shutil.copytree(folder, folder.parent / "copy")
    shutil.move(folder.parent / "copy", folder / "old")
    for path in list((folder / "train" / "images").glob("*.tif")):
        Image.open(path).resize((32, 32)).save(path.with_name(f"{path.stem}_thumb.png"))
    assert "52 other files not read" in assert_complete(folder)


@pytest.mark.parametrize("layout", [stardist, kaggle])
def test_two_files_of_one_name_in_different_formats_are_named(layout, tmp_path):
    folder = layout(tmp_path / "set")
    path = sorted(folder.rglob("images/*"))[0]
    shutil.copy(path, path.with_suffix(".bmp"))
    message = problem(folder)
    assert path.name in message and path.with_suffix(".bmp").name in message and "same name" in message


def test_data_sets_beside_each_other_are_offered_once_each(folder):
    shutil.copytree(folder, folder.parent / "other")
    kaggle(folder.parent / "third")
    message = problem(folder.parent)
    assert "3 data sets" in message
    for name in ("set", "other", "third"):
        assert message.count(str(folder.parent / name) + " (") == 1


def test_files_of_another_type_are_counted(folder):
    (folder / "train" / "images" / "notes.npy").write_bytes(b"x")
    (folder / "train" / "masks" / "Thumbs.db").write_bytes(b"x")
    assert "1 other files not read, such as train/images/notes.npy" in assert_complete(folder)


def test_too_few_images_say_what_was_not_read(folder):
    for kind in ("images", "masks"):
        (folder / "train" / kind / "a00.tif").rename(folder / "train" / kind / "a00.npy")
    with pytest.raises(DataError, match="15 training images.*2 other files not read, such as train/images/a00.npy"):
        load_data(folder)


# --- Kaggle's layout --------------------------------------------------------------------------------------------------


def alpha_only(nucleus: np.ndarray, value: int) -> np.ndarray:
    return np.dstack([np.full((*nucleus.shape, 3), value, np.uint8), nucleus.astype(np.uint8) * 255])


ODD_MASK_FILES = {
    "covers all, first": (lambda n: {"0_all": np.full_like(n[1], 255)}, 6, 7, "0_all.png covers the whole image"),
    "covers all, last": (lambda n: {"z_all": np.full_like(n[1], 255)}, 6, 7, "z_all.png covers the whole image"),
    "swallows two": (lambda n: {"0": n[1] | n[2]}, 5, 7, "n1.png is covered by others"),
    "swallows all": (lambda n: {"0": np.maximum.reduce(list(n.values()))}, 1, 7, "n1.png is covered by others"),
    "twice": (lambda n: {"z": n[4]}, 6, 7, "z.png is covered by others"),
    "empty": (lambda n: {"n1": n[1] * 0}, 5, 6, "n1.png is empty"),
    "two empty": (lambda n: {"n1": n[1] * 0, "n6": n[1] * 0}, 4, 6, "n6.png is empty"),
    "black with alpha": (lambda n: {"n2": alpha_only(n[2], 0)}, 5, 6, "n2.png has its nucleus in the alpha channel"),
    "white with alpha": (lambda n: {"n2": alpha_only(n[2], 255)}, 5, 6, "n2.png has its nucleus in the alpha channel"),
}


@pytest.mark.parametrize("kind", ODD_MASK_FILES)
def test_a_mask_file_without_effect_is_named_with_what_is_left(kind, tmp_path):
    make, left, n_files, words = ODD_MASK_FILES[kind]
    kaggle(tmp_path)
    nuclei = {number: ((PAIRS[3][1] == number) * 255).astype(np.uint8) for number in range(1, 7)}
    for name, array in make(nuclei).items():
        save(tmp_path / "id03" / "masks" / f"{name}.png", array)
    result = load_data(tmp_path)
    mask = next(sample.mask for sample in result.train if sample.name == "id03")
    assert len(np.unique(mask[mask > 0])) == left and words in result.note
    assert f"id03 ({left} of {n_files} nuclei left" in result.note and result.note.count("nuclei left") == 1


def test_preview_beside_the_image_of_kaggles_layout(tmp_path):
    save(kaggle(tmp_path) / "id00" / "images" / "small.png", PAIRS[0][0][::4, ::4])
    result = read_samples(tmp_path)
    assert len(result.train) == 17 and "1 other files not read" in result.remark


# --- contrast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [stardist, kaggle])
def test_images_with_dark_nuclei_are_refused_if_all_are_and_left_out_if_some(layout, tmp_path):
    layout(tmp_path / "all", image=lambda image: 255 - image)
    assert "nuclei are darker" in problem(tmp_path / "all") and "invert" in problem(tmp_path / "all")
    some = layout(tmp_path / "some")
    for path in sorted(some.rglob("images/*"))[4:6]:
        save(path, 255 - np.asarray(Image.open(path)))
    result = read_samples(some)
    assert len(result.train + result.test) == 16 and "2 " in result.remark and "brightfield images" in result.remark


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_zero_is_white(dtype, compression, tmp_path):
    """An image comes back as it is shown; a mask keeps its ids, whichever way they were stored."""
    full = np.iinfo(dtype).max
    image, mask = (array.astype(dtype) for array in PAIRS[0])

    def written(array):
        file = io.BytesIO()
        tifffile.imwrite(file, array, photometric="miniswhite", compression=compression)
        return file.getvalue()

    np.testing.assert_array_equal(decode(written(full - image), ".tif"), image)
    for stored in (mask, full - mask):
        np.testing.assert_array_equal(decode(written(stored), ".tif", is_mask=True), mask)


# --- containers -------------------------------------------------------------------------------------------------------


def with_pillow(array: np.ndarray, suffix: str = "TIFF", **options) -> bytes:
    written = io.BytesIO()
    Image.fromarray(array).save(written, suffix, **options)
    return written.getvalue()


@pytest.mark.parametrize("compression", ["tiff_lzw", "zstd", "packbits"])
def test_zero_is_white_in_compressed_tiffs(compression):
    image, mask = PAIRS[0][0], PAIRS[0][1].astype(np.uint8)
    for array, stored in ((image, image), (mask, 255 - mask), (mask, mask)):
        data = with_pillow(stored, compression=compression, tiffinfo={262: 0})  # Pillow inverts what it writes so
        np.testing.assert_array_equal(decode(data, ".tif", is_mask=array is mask), array)
    full = 65535
    data = with_pillow((full - image.astype(int)).astype(np.uint16), compression=compression, tiffinfo={262: 0})
    np.testing.assert_array_equal(decode(data, ".tif"), image)


@pytest.mark.parametrize("compression", ["tiff_lzw", "zstd", "tiff_adobe_deflate", "packbits", "lzma"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, "rgb"])
def test_compressed_tiffs(compression, kind):
    mask = PAIRS[0][1].astype(np.uint8)
    stored = np.dstack([mask] * 3) if kind == "rgb" else mask.astype(kind) * (1 if kind is np.uint8 else 40)
    result = decode(with_pillow(stored, compression=compression), ".tif", is_mask=True)
    np.testing.assert_array_equal(result, mask if kind == "rgb" else stored)
    assert kind == "rgb" or result.dtype == kind


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compressed_masks_are_binary(compression, folder):
    nucleus = PAIRS[0][1] == 1
    data = with_pillow(nucleus, compression=compression)
    np.testing.assert_array_equal(decode(data, ".tif", is_mask=True), nucleus)
    (folder / "train" / "masks" / "a00.tif").write_bytes(data)
    assert "dtype bool, which cannot tell nuclei apart" in problem(folder)


def test_jpeg_in_tiff_is_an_image_but_no_mask(folder):
    image = PAIRS[0][0]
    for name, stored in (("a00", image), ("a01", np.dstack([image] * 3))):
        (folder / "train" / "images" / f"{name}.tif").write_bytes(with_pillow(stored, compression="jpeg", quality=95))
    result = read_samples(folder)
    assert np.abs(result.train[0].image.astype(int) - image).mean() < 5
    (folder / "train" / "masks" / "a00.tif").write_bytes(with_pillow(PAIRS[0][1].astype(np.uint8), compression="jpeg"))
    assert "a00.tif has JPEG compression" in problem(folder)


@pytest.mark.parametrize("suffix", ["tiff_lzw", "zstd", "PNG", "GIF", "BMP"])
def test_a_compressed_file_cut_anywhere_is_refused_or_right(suffix):
    noise = np.random.default_rng(0).integers(0, 256, (23, 31), dtype=np.uint8)
    data = with_pillow(noise, suffix) if suffix.isupper() else with_pillow(noise, compression=suffix)
    for length in range(0, len(data), 3):
        try:
            result = decode(data[:length], ".tif" if suffix.islower() else f".{suffix.lower()}")
        except Exception:
            continue
        np.testing.assert_array_equal(result, noise)


# --- channels ---------------------------------------------------------------------------------------------------------


def palette(array: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.fromarray(array.astype(np.uint8))
    picture = picture.convert("P")
    picture.putdata(array.astype(np.uint8).ravel().tolist())
    picture.putpalette(colours.astype(np.uint8).ravel().tolist())
    return picture


RAMP = np.arange(256)[:, None]
GLASBEY = np.random.default_rng(3).integers(0, 256, (256, 3))
CHANNELS = {
    "grey RGB": lambda a: np.dstack([a] * 3),
    "RGBA": lambda a: np.dstack([a] * 3 + [np.full_like(a, 255)]),
    "LA": lambda a: np.dstack([a, np.full_like(a, 255)]),
    "LA, alpha differs": lambda a: np.dstack([a, np.arange(a.size).reshape(a.shape) % 255]),
    "one channel of three": lambda a: np.dstack([a * 0, a, a * 0]),
    "grey palette": lambda a: palette(a, RAMP.repeat(3, 1)),
    "green palette": lambda a: palette(a, RAMP * [0, 1, 0]),
    "inverted grey palette": lambda a: palette(255 - a, RAMP[::-1].repeat(3, 1)),
}


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_channels_are_taken_where_they_are_unambiguous(kind, suffix, tmp_path):
    """Images and masks, in every layout alike."""
    folders = stardist(tmp_path / "a"), kaggle(tmp_path / "b")
    for path, array in (
        (folders[0] / "train" / "images" / "a00.tif", PAIRS[0][0]),
        (folders[0] / "train" / "masks" / "a00.tif", PAIRS[0][1].astype(np.uint8)),
        (folders[1] / "id00" / "images" / "id00.png", PAIRS[0][0]),
        (folders[1] / "id00" / "masks" / "n1.png", ((PAIRS[0][1] == 1) * 255).astype(np.uint8)),
    ):
        picture = CHANNELS[kind](array)
        path.unlink()
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture.astype(np.uint8))).save(
            path.with_suffix(suffix)
        )
    for folder in folders:
        sample = read_samples(folder).train[0]
        np.testing.assert_array_equal(sample.image, PAIRS[0][0])
        np.testing.assert_array_equal(sample.mask, PAIRS[0][1])


@pytest.mark.parametrize("axes", [(0, ...), (..., 0), (0, 0, ...)])
def test_axes_of_length_one_are_dropped(axes, folder):
    index = tuple(None if axis == 0 else axis for axis in axes)
    for kind, array in zip(("images", "masks"), PAIRS[0], strict=True):
        tifffile.imwrite(folder / "train" / kind / "a00.tif", array[index], photometric="minisblack")
    assert_complete(folder)


def test_planes_stored_one_after_the_other(folder):
    tifffile.imwrite(
        folder / "train/images/a00.tif", np.stack([PAIRS[0][0]] * 3), photometric="rgb", planarconfig="separate"
    )
    assert_complete(folder)


@pytest.mark.parametrize("suffix", ["png", "tif", "gif"])
def test_the_indices_of_a_colour_palette_are_ids(suffix, folder):
    """As label images with a colour map are saved; an image with such a map is refused."""
    (folder / "train/masks/a00.tif").unlink()
    palette(PAIRS[0][1], GLASBEY).save(folder / f"train/masks/a00.{suffix}", optimize=False)
    assert_complete(folder)
    palette(PAIRS[1][0], GLASBEY).save(folder / "train/images/a01.tif")
    assert "(128, 128, 3)" in problem(folder)


def test_channels_that_hold_more_than_can_be_read_are_refused(folder):
    """Pillow reads 8 of 16 bits where there are several channels: ids below 256 would all be 0."""
    data = bytearray(with_pillow(np.dstack([PAIRS[0][1].astype(np.uint8)] * 3), "PNG"))
    data[24] = 16
    (folder / "train/masks/a00.tif").write_bytes(data)
    assert "16 bits in several channels" in problem(folder)


@pytest.mark.parametrize("suffix", ["GIF", "TIFF", "PNG"])
def test_several_pictures_in_a_file_are_refused(suffix, folder):
    first, second = (Image.fromarray(image) for image, _ in PAIRS[:2])
    first.save(folder / "train/images/a00.tif", suffix, save_all=True, append_images=[second])
    assert "a00.tif" in problem(folder)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_in_the_alpha_channel_is_refused(suffix, folder):
    (folder / "train/masks/a00.tif").unlink()
    Image.fromarray(alpha_only(PAIRS[0][1] > 0, 0)).save(folder / f"train/masks/a00{suffix}")
    message = problem(folder)
    assert f"a00{suffix}" in message and "alpha channel" in message


# --- what contradicts itself ------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(path)
    return str(caught.value)


def test_blank_images_copies_of_masks_and_points_are_refused(tmp_path):
    assert "one grey value everywhere" in refused(stardist(tmp_path / "blank", image=lambda image: image * 0))
    copies = stardist(tmp_path / "copies")
    for path in copies.rglob("masks/*"):
        shutil.copy(path, str(path).replace("masks", "images"))
    assert "the same as their masks" in refused(copies)

    def points(mask):
        out = np.zeros_like(mask)
        for number in range(1, 7):
            row, column = np.argwhere(mask == number).mean(axis=0).astype(int)
            out[row, column] = number
        return out

    assert "by one pixel" in refused(stardist(tmp_path / "points", mask=points))


def test_a_blank_image_and_a_test_image_for_training_are_remarked(folder):
    for kind in ("images", "masks"):
        shutil.copy(folder / "train" / kind / "a03.tif", folder / "test" / kind / "copy.tif")
    save(folder / "train" / "images" / "a00.tif", PAIRS[0][0] * 0)
    note = load_data(folder).note
    assert "1 test images are training images, too, such as copy" in note
    assert "1 images with nuclei in the mask have one grey value, such as a00" in note


def test_a_kaggle_mask_file_with_several_nuclei_is_remarked(tmp_path):
    folder = kaggle(tmp_path / "set")
    for path in sorted((folder / "id05/masks").iterdir()):
        path.unlink()
    save(folder / "id05" / "masks" / "all.png", ((PAIRS[5][1] > 0) * 255).astype(np.uint8))
    assert "several nuclei, which count as one, in id05" in load_data(folder).note


def test_messages_say_what_to_do(folder, tmp_path):
    tissue = np.kron(np.arange(1, 257).reshape(16, 16), np.ones((8, 8), int)).astype(np.uint16)
    assert "no pixel is 0" in problem(stardist(tmp_path / "tissue", mask=lambda _: tissue))
    assert "covers" not in problem(tmp_path / "tissue")
    big = stardist(tmp_path / "big", mask=lambda mask: np.where(mask > 0, mask.astype(np.int64) + 2**31, 0))
    assert "relabel_sequential" in problem(big)
    (folder / "train/images/@eaDir/a00.tif").mkdir(parents=True)
    (folder / "train/images/@eaDir/a00.tif/preview.jpg").write_bytes(b"not an image")
    assert len(load_data(folder).train) == 16


def test_no_changed_byte_of_a_png_gives_other_pixels():
    """Each chunk has a checksum; that of the last one, which is empty, and its name may be wrong."""
    rng, right = np.random.default_rng(0), PAIRS[0][1]
    data = with_pillow(right, "PNG")
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.integers(8, len(data))] ^= 1 << rng.integers(8)
        try:
            np.testing.assert_array_equal(decode_file("m.png", bytes(damaged), "m.png", is_mask=True), right)
        except DataError as error:
            assert str(error).startswith("m.png ")
            refused += 1
    assert refused > 180
