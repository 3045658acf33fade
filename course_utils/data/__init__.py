"""Where the images come from: data sources by name or by path.

    "embedded"    the synthetic images of the course, made by `synthetic`; needs no network
    "dsb2018"     497 real images from the cache, or from a download that is verified and kept
    "kaggle"      the first usable data set attached to a Kaggle notebook, in either layout that `layouts` understands
    "auto"        the first of kaggle, dsb2018 and embedded that can be used; the note says which and why
    a path        a folder or zip in either layout

`layouts` turns a folder or zip into samples, `decoding` one file into an array, `download` fills the cache.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from course_utils import did_you_mean
from course_utils.data.download import DownloadError, cache_folder, cached_dsb2018, fetch_dsb2018
from course_utils.data.layouts import DataError, Sample, read_samples

__all__ = [
    "CourseData",
    "DataError",
    "DownloadError",
    "Sample",
    "available_sources",
    "cache_folder",
    "embedded_folder",
    "find_kaggle_input",
    "fingerprint",
    "load_data",
]

# What every notebook needs: the smallest crops have this side, and every 8th training image is for validation.
MIN_SIDE = 128
MIN_TRAINING_IMAGES = 16

# Kaggle has changed the folders of its mount (<slug>/ before 2026, datasets/<owner>/<slug>/ since): search it.
KAGGLE_INPUT = Path("/kaggle/input")
MAX_KAGGLE_DEPTH = 5
MAX_KAGGLE_FOLDERS = 100

DSB2018_FINGERPRINT = "70d482ea"  # of the published images and masks


@dataclass(frozen=True)
class CourseData:
    """Training and test samples, the data source, and a note: where they were read from, and why there."""

    train: list[Sample]
    test: list[Sample]
    source: str
    note: str

    def __str__(self) -> str:
        return f"{len(self.train)} training and {len(self.test)} test images. {self.note}"


def load_data(source: str | Path = "embedded") -> CourseData:
    """Load all images and label images of a data source.

    Args:
        source: "embedded", "dsb2018", "kaggle" or "auto" (see the top of this module), or the path of a folder or zip.
            A name means the data source, even where a folder of that name exists; write "./embedded" for the folder.

    Returns:
        Training and test samples, as `course_utils.data.layouts.read_samples` describes them. "auto" falls back to
        "embedded".

    Raises:
        DataError: the source does not exist, a file in it is damaged or inconsistent, or the course cannot use it
            (fewer than 16 training images, an image smaller than 128 x 128, no nuclei). The message names the file and
            what to do.
        DownloadError: "dsb2018" cannot be downloaded. It is also a `DataError`.

    >>> data = load_data("embedded")
    >>> data.train[0].image.dtype, data.train[0].mask.dtype
    (dtype('uint8'), dtype('int32'))
    """
    if isinstance(source, str) and source in _LOADERS:
        return _LOADERS[source]()
    path = Path(os.path.expanduser(source))
    if not str(source).strip() or not path.exists():
        names = ", ".join(f'"{name}"' for name in _LOADERS)
        raise DataError(
            f"There is no data source {str(source)!r}: it is not one of the names {names}, and the path "
            f"{path.absolute()} was not found.{did_you_mean(str(source), _LOADERS)} Check the spelling, or give the "
            "full path."
        )
    return _load(path, str(source), f"Read from {path.absolute()}")


def fingerprint(data: CourseData) -> str:
    """A number for the images and masks of a data set and their split, whatever files they were read from."""
    number = len(data.train)  # another split is another data set
    for sample in [*data.train, *data.test]:
        for part in (sample.name.encode(), sample.image, sample.mask):
            number = zlib.crc32(part, number)
    return f"{number:08x}"


def embedded_folder() -> Path:
    """The folder of the synthetic set: inside the installed package, or `data/embedded` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "embedded" / "embedded"
    return installed if installed.is_dir() else package.parent / "data" / "embedded"


def find_kaggle_input(root: Path | None = None) -> Path | None:
    """The first folder or zip in a known layout below Kaggle's mount (`root`, else `KAGGLE_INPUT`), or None.

    Looks for folders with `stage1_train`, `train/images` or `<id>/images`, and for `stage1_train.zip` and
    `dsb2018.zip`, level by level. To stay quick, it does not enter folders with more than 100 subfolders.
    """
    return next(_kaggle_inputs(root or KAGGLE_INPUT), None)


def available_sources() -> dict[str, str]:
    """Where each named source but "auto" was found, or "not found" and why. Downloads nothing.

    >>> sorted(available_sources())
    ['dsb2018', 'embedded', 'kaggle']
    """
    embedded, kaggle, cached = embedded_folder(), find_kaggle_input(), cached_dsb2018()
    return {
        "embedded": str(embedded) if embedded.is_dir() else f"not found in {embedded}",
        "dsb2018": str(cached) if cached else f"not found in the cache {cache_folder()}; downloaded when first used",
        "kaggle": str(kaggle) if kaggle else f"not found below {KAGGLE_INPUT}",
    }


# --- the named sources ------------------------------------------------------------------------------------------------


def _load_embedded(because: str = "") -> CourseData:
    folder = embedded_folder()
    if not folder.is_dir():
        raise DataError(f"The embedded images are missing from {folder}: install the course again.")
    return _load(folder, "embedded", f"Synthetic images of the course{because}")


def _load_dsb2018(because: str = "") -> CourseData:
    folder = cached_dsb2018()
    if folder is None:
        folder = fetch_dsb2018()
        return _load(folder, "dsb2018", f"DSB2018 images downloaded to {folder}{because}")
    try:
        data = _load(folder, "dsb2018", f"DSB2018 images from the cache {folder}{because}")
        if fingerprint(data) == DSB2018_FINGERPRINT:
            return data
        damage = f"its {len(data.train)} + {len(data.test)} images and masks are not the published 447 + 50"
    except DataError as error:
        damage = str(error).rstrip(".")
    damage = f"The cache {folder} is damaged: {damage}"
    print(f"{damage}. The images are downloaded again.")
    try:
        fetch_dsb2018(replace=True)
    except DownloadError as error:
        raise DownloadError(f"{damage}. {error.what}", error.to_do) from error
    return _load(folder, "dsb2018", f"DSB2018 images downloaded again to {folder}{because}")


def _load_kaggle(because: str = "") -> CourseData:
    refused = []
    for path in _kaggle_inputs(KAGGLE_INPUT):
        passed_over = f", passing over {len(refused)} others: {' '.join(refused)}" if refused else ""
        try:
            return _load(path, "kaggle", f"Kaggle input {path}{because}{passed_over.rstrip('.')}")
        except DataError as error:  # people attach other data sets to their notebooks, too
            refused.append(str(error))
    raise DataError(
        f"{' '.join(refused) or f'No known data set was found below {KAGGLE_INPUT}.'} Attach the data of the "
        'competition "2018 Data Science Bowl" to the notebook, or use another data source.'
    )


def _load_auto() -> CourseData:
    missed = f"no known data set is below {KAGGLE_INPUT}"
    if find_kaggle_input() is not None:
        try:
            return _load_kaggle(', the first choice of "auto"')
        except DataError as error:
            missed = f"the Kaggle input cannot be used [{error}]"
    try:
        return _load_dsb2018(f", because {missed}")
    except DataError as error:
        reason = error.what if isinstance(error, DownloadError) else error
        return _load_embedded(f", because {missed}, and DSB2018 is not available [{reason}]")


_LOADERS: dict[str, Callable[[], CourseData]] = {
    "embedded": _load_embedded,
    "dsb2018": _load_dsb2018,
    "kaggle": _load_kaggle,
    "auto": _load_auto,
}


def _load(path: Path, source: str, note: str) -> CourseData:
    loaded = read_samples(path)
    remark = f"; {loaded.remark}" if loaded.remark else ""
    _check_usable(loaded.train, loaded.test, path, remark)
    remark += _suspicious(loaded.train, loaded.test)
    return CourseData(loaded.train, loaded.test, source, f"{note}{remark}.")


def _check_usable(train: list[Sample], test: list[Sample], path: Path, remark: str) -> None:
    """Refuse data that would fail later, in the middle of a notebook, with an unrelated error."""
    if len(train) < MIN_TRAINING_IMAGES:
        raise DataError(
            f"{path} holds {len(train)} training image{'s' * (len(train) != 1)}, but the course needs at least "
            f"{MIN_TRAINING_IMAGES}{remark}: add some, or cut large images into several."
        )
    for sample in train + test:
        height, width = sample.image.shape
        if min(height, width) < MIN_SIDE:
            raise DataError(
                f"The image {sample.name} in {path} is {height} x {width} pixels, but the course needs at least "
                f"{MIN_SIDE} x {MIN_SIDE}: leave it out, or enlarge it together with its mask."
            )
    for split, samples in (("training", train), ("test", test)):
        if not any(sample.mask.any() for sample in samples):
            raise DataError(
                f"No mask of the {len(samples)} {split} images in {path} holds a nucleus{remark}: "
                "a mask needs 0 for the background and a different number for each nucleus."
            )
    filled = [sample for sample in train + test if sample.mask.any()]
    for what, wrong in (
        ("images are the same as their masks", lambda sample: np.array_equal(sample.image, sample.mask)),
        ("images have one grey value everywhere", lambda sample: sample.image.min() == sample.image.max()),
        (
            "masks mark each nucleus by one pixel",
            lambda sample: np.unique(sample.mask, return_counts=True)[1][1:].max(initial=0) == 1,
        ),
    ):
        if all(map(wrong, filled)):
            raise DataError(f"All {len(filled)} {what} in {path}, such as {filled[0].name}: save them again.")


def _suspicious(train: list[Sample], test: list[Sample]) -> str:
    """In words, what may be meant as it is, but makes scores wrong if it is not; else empty."""
    blank = [one.name for one in train + test if one.mask.any() and one.image.min() == one.image.max()]
    seen = {(one.image.shape, zlib.crc32(one.image)) for one in train}
    again = [one.name for one in test if (one.image.shape, zlib.crc32(one.image)) in seen and one.name not in blank]
    remarks = (
        (blank, "images with nuclei in the mask have one grey value"),
        (again, "test images are training images, too"),
    )
    return "".join(f"; {len(names)} {what}, such as {names[0]}" for names, what in remarks if names)


# --- the search on Kaggle ---------------------------------------------------------------------------------------------


def _kaggle_inputs(root: Path) -> Iterator[Path]:
    """All that looks like a data set below a folder, level by level."""
    level = [root]
    for _ in range(MAX_KAGGLE_DEPTH + 1):
        below = []
        for folder in level:
            found = list(_data_sets_in(folder))
            yield from found
            subfolders = [] if folder in found else _subfolders(folder)
            if len(subfolders) <= MAX_KAGGLE_FOLDERS:
                below += [subfolder for subfolder in subfolders if subfolder not in found]
        level = below


def _data_sets_in(folder: Path) -> Iterator[Path]:
    if all(os.path.isdir(folder / "train" / kind) for kind in ("images", "masks")):
        yield folder
        return
    for name in ("stage1_train", "stage1_train.zip", "dsb2018.zip"):
        if os.path.exists(folder / name):
            yield folder / name
    # The content of stage1_train, in a folder with another name. Test images have no masks.
    for image_folder in _subfolders(folder)[:3]:
        if all(os.path.isdir(image_folder / kind) for kind in ("images", "masks")) and image_folder.name != "train":
            yield folder
            return


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
