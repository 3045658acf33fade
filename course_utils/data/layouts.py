"""Read pairs of image and mask from a folder or a zip.

Two layouts are understood, at any depth in the folder or zip::

    StarDist    {train,test}/{images,masks}/<name>.tif      one label image for each image (.tif, .tiff or .png)
    Kaggle      <id>/images/<id>.png and <id>/masks/*.png   one mask file for each nucleus (`stage1_train`)

Folders and zips are read in the same steps: list the names once, recognise the layout by the names, read bytes, decode.
A zip is never unpacked, so nothing is left behind and read-only folders work. Any problem with a file becomes a
`DataError` that names the file.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import imageio.v3 as iio
import numpy as np

LAYOUTS = (
    "{train,test}/{images,masks}/<name>.tif (or .tiff, .png) with one label image for each image, "
    "or <id>/images/<id>.png with <id>/masks/*.png, one file for each nucleus"
)
# Far more than any data set of this kind: if someone passes the wrong folder, the search stops before it has listed the
# whole disk.
MAX_FILES = 300_000
MAX_DEPTH = 8
# A damaged header can claim any size: do not reserve memory for more pixels than a whole slide has.
MAX_PIXELS = 500_000_000

# The first eight digits of the ids of the 50 images that StarDist published as its test set (a subset of Kaggle's
# stage1_train). They go to `test` whenever the images come in the Kaggle layout, so that scores stay comparable.
STARDIST_TEST_IDS = tuple(
    (
        "0bda515e 0bf4b144 1b6044e4 1c2f9e12 1db1cddf 1f9e429c 2817299f 2cfa857e 33618678 3477024f "
        "3582166e 3bfd6bb1 43cf6b2e 4d40de30 4dbbb275 547ef286 57b49733 5953af50 5ddbfba2 5f9d29d6 "
        "602f2674 608ff81c 6bd18a21 79dfcbc9 7d40ea6e 84e642d7 89be66f8 8fdc3450 9520aff4 9ebcfaf2 "
        "a5e695fc a6e81120 afa272dc b560dba9 b61d3fb0 b6edad73 bde3727f bf7691b0 c304a1fd c9f305be "
        "d8607b21 e321cfa9 e5a7b8a9 e66f25e1 ec486143 ee927e82 eeb14234 f26f4c2c feffce59 ff599c73 "
    ).split()
)

_STARDIST_FILE = re.compile(
    r"(?P<root>(?:.*/)?)(?P<split>train|test)/(?P<kind>images|masks)/(?P<name>[^/]+)\.(?i:tiff?|png)"
)
_KAGGLE_FILE = re.compile(r"(?P<root>(?:.*/)?)(?P<id>[^/]+)/(?P<kind>images|masks)/(?P<name>[^/]+)\.(?i:png)")


class DataError(ValueError):
    """A data source is missing, unreadable or inconsistent; the message names the file and what to do."""


@dataclass(frozen=True)
class Sample:
    """One microscopy image and its label image.

    `image` is (H, W), uint8 or uint16; `mask` is (H, W), int32: 0 is background, each nucleus has its own id, ids are
    arbitrary and may have gaps.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class LoadedData:
    """What `read_samples` found: both splits, sorted by name, and a remark about images that were left out."""

    train: list[Sample]
    test: list[Sample]
    remark: str = ""


def read_samples(path: Path) -> LoadedData:
    """Read all pairs of image and mask in a folder or a zip.

    Images keep their dtype; masks become int32 and keep their ids. In the Kaggle layout

    * the mask files of an image get the ids 1 to n in order of file name; a pixel in two files belongs to the first;
    * images in colour, and images whose nuclei are darker than the background, are left out;
    * the test split is `STARDIST_TEST_IDS`, or every tenth image if none of those is present.

    Raises:
        DataError: unknown layout; a file that is unpaired, unreadable or truncated; an image that is not (H, W) uint8
            or uint16; a mask that is not (H, W) integer, or has negative ids; different shapes; an empty split.

    >>> from course_utils.data import embedded_folder
    >>> read_samples(embedded_folder()).train[0].mask.dtype
    dtype('int32')
    """
    with FileStore(path) as files:
        layout, root = _find_layout(files)
        loaded = _read_stardist(files, root) if layout == "StarDist" else _read_kaggle(files, root)
    for split in ("train", "test"):
        if not getattr(loaded, split):
            remark = f" ({loaded.remark})" if loaded.remark else ""
            raise DataError(
                f"{files.where(root)} holds no {split} images{remark}; the course needs both train and test images. "
                f"Expected: {LAYOUTS}."
            )
    return loaded


class FileStore:
    """The files in a folder or a zip: names listed once (relative, with `/`), bytes read on demand.

    Folders, hidden files and what macOS adds to its zips (`__MACOSX`) are not listed. Use it in a `with` statement.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if self.path.is_dir():
            names = _list_folder(self.path)
        else:
            try:
                self._archive = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
                raise DataError(
                    f"{self.path} is neither a folder nor a file that can be read as a zip ({error}). "
                    "If it is a zip, it is damaged or incomplete: download or copy it again."
                ) from error
            # Some Windows programs write backslashes, which the zip format does not allow.
            self._members = {
                member.filename.replace("\\", "/"): member for member in self._archive.infolist() if not member.is_dir()
            }
            names = list(self._members)
        self.names = sorted(name for name in names if not _is_hidden(name))

    def __enter__(self) -> FileStore:
        return self

    def __exit__(self, *exception) -> None:
        if self._archive is not None:
            self._archive.close()

    def where(self, name: str) -> str:
        """Where a file is, for messages."""
        if self._archive is None:
            return str(self.path / name)
        return f"{name} in {self.path}" if name else str(self.path)

    def read(self, name: str) -> bytes:
        """The bytes of one file; `DataError` if it cannot be read."""
        try:
            if self._archive is None:
                return (self.path / name).read_bytes()
            return self._archive.read(self._members[name])
        except Exception as error:  # zipfile alone raises seven unrelated classes for damaged or encrypted files
            raise DataError(f"{self.where(name)} cannot be read: {_reason(error)}.") from error


def decode(data: bytes, suffix: str) -> np.ndarray:
    """Decode a TIFF or PNG file to a writable array in native byte order; some `Exception` for damaged data.

    From some truncated files tifffile returns what is left (an empty array if the directory at the end is missing,
    tiles cut short). So first compare where each piece of pixel data ends with the length of the file.
    """
    if suffix.lower() == ".png":
        image = iio.imread(data, plugin="pillow", extension=".png")
    else:
        import tifffile

        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            if not tiff.pages:
                raise ValueError("the file ends before the description of its image")
            for page in tiff.pages:
                if page.size > MAX_PIXELS:
                    raise ValueError(f"the file claims to hold {page.size} values")
                ends = (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
                if max(ends, default=0) > len(data):
                    raise ValueError(f"the file is truncated: it ends after {len(data)} bytes, in the pixel data")
            image = tiff.asarray()
    return np.array(image, dtype=image.dtype.newbyteorder("="), order="C")


# --- names ------------------------------------------------------------------------------------------------------------


def _list_folder(folder: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {_reason(error)}.") from error

    names = []
    # Follow links (data is often on another disk); the depth limit stops links that lead in a circle.
    for current, subfolders, files in os.walk(folder, onerror=fail, followlinks=True):
        parts = Path(current).relative_to(folder).parts
        subfolders[:] = [] if len(parts) >= MAX_DEPTH else sorted(name for name in subfolders if not _is_hidden(name))
        names += ["/".join((*parts, file)) for file in files]
        if len(names) > MAX_FILES:
            raise DataError(f"{folder} holds more than {MAX_FILES} files: pass the folder of the data set itself.")
    return names


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." or part == "__MACOSX" for part in name.split("/"))


def _find_layout(files: FileStore) -> tuple[str, str]:
    """The layout of the files, and the folder in which it starts ("" or ending in "/")."""
    found = set()
    for name in files.names:
        if match := _STARDIST_FILE.fullmatch(name):
            found.add(("StarDist", match["root"]))
        elif (match := _KAGGLE_FILE.fullmatch(name)) and match["kind"] == "masks":
            found.add(("Kaggle", match["root"]))
    if len(found) == 1:
        return found.pop()
    if found:
        places = "; ".join(f"{files.where(root)} ({layout} layout)" for layout, root in sorted(found))
        raise DataError(f"{files.path} holds {len(found)} data sets. Pass the path of one of them: {places}.")

    zips = [name for name in files.names if name.lower().endswith(".zip")]
    if zips:
        what_to_do = (
            "Pass the path of one of them" if files.path.is_dir() else "Unpack it, and pass the path of an inner one"
        )
        raise DataError(f"{files.path} holds no images, but zip files: {_some(zips)}. {what_to_do}.")
    content = f"{len(files.names)} files such as {_some(files.names, 3)}" if files.names else "no files"
    raise DataError(f"{files.path} holds {content}, in no known layout. Expected: {LAYOUTS}.")


def _pair(files: FileStore, images: dict[str, str], masks: dict[str, str]) -> list[str]:
    """The names that have both an image and a mask, sorted; `DataError` lists what has no partner."""
    problems = [
        f"{what} ({len(alone)}): {_some([files.where(name) for name in alone])}"
        for what, one, other in (("images without a mask", images, masks), ("masks without an image", masks, images))
        if (alone := sorted(path for name, path in one.items() if name not in other))
    ]
    if problems:
        raise DataError(
            f"There are {'; '.join(problems)}. "
            "An image and its mask have the same name: add the missing files or remove these."
        )
    return sorted(images)


# --- the two layouts --------------------------------------------------------------------------------------------------


def _read_stardist(files: FileStore, root: str) -> LoadedData:
    paths: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in files.names:
        match = _STARDIST_FILE.fullmatch(path)
        if match and match["root"] == root:
            first = paths[match["split"], match["kind"]].setdefault(match["name"], path)
            if first != path:
                raise DataError(f"{files.where(first)} and {files.where(path)} have the same name: remove one of them.")
    samples = {}
    for split in ("train", "test"):
        images, masks = paths[split, "images"], paths[split, "masks"]
        samples[split] = [_read_pair(files, name, images[name], masks[name]) for name in _pair(files, images, masks)]
    return LoadedData(samples["train"], samples["test"])


def _read_pair(files: FileStore, name: str, image_path: str, mask_path: str) -> Sample:
    image, mask = _decode_file(files, image_path), _decode_file(files, mask_path)
    _check_image(image, files.where(image_path))
    _check_mask(mask, files.where(mask_path))
    if image.shape != mask.shape:
        raise DataError(
            f"{files.where(image_path)} has shape {image.shape}, its mask {files.where(mask_path)} {mask.shape}: "
            "image and mask must have the same height and width."
        )
    return Sample(name, image, mask.astype(np.int32))


def _read_kaggle(files: FileStore, root: str) -> LoadedData:
    images: dict[str, str] = {}
    masks: dict[str, list[str]] = defaultdict(list)
    for path in files.names:
        match = _KAGGLE_FILE.fullmatch(path)
        if not match or match["root"] != root:
            continue
        if match["kind"] == "masks":
            masks[match["id"]].append(path)
        elif match["name"] == match["id"]:
            images[match["id"]] = path

    samples, n_colour, n_brightfield, n_overlapping = [], 0, 0, 0
    for name in _pair(files, images, {name: paths[0] for name, paths in masks.items()}):
        image = _one_channel(_decode_file(files, images[name]))
        if image is None:
            n_colour += 1
            continue
        _check_image(image, files.where(images[name]))
        mask, overlapping = _merge_masks(files, masks[name], image.shape)
        nuclei = mask > 0
        # In stained tissue and brightfield images nuclei are dark, in fluorescence images bright.
        if nuclei.any() and not nuclei.all() and image[nuclei].mean() < image[~nuclei].mean():
            n_brightfield += 1
            continue
        n_overlapping += overlapping
        samples.append(Sample(name, image, mask))

    train, test = _split(samples)
    remark = f"{n_colour} colour and {n_brightfield} brightfield images left out"
    if n_overlapping:
        remark += f", {n_overlapping} pixels claimed by two nuclei given to the first"
    return LoadedData(train, test, remark)


def _merge_masks(files: FileStore, paths: list[str], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """A label image from one file for each nucleus, and the number of pixels that are in more than one file."""
    mask = np.zeros(shape, dtype=np.int32)
    overlapping = np.zeros(shape, dtype=bool)
    for nucleus_id, path in enumerate(sorted(paths), start=1):
        one = _one_channel(_decode_file(files, path))
        if one is None or one.shape != shape:
            found = "several channels that differ" if one is None else f"shape {one.shape}"
            raise DataError(f"{files.where(path)} has {found}; expected one channel of its image's shape {shape}.")
        nucleus = one > 0
        overlapping |= nucleus & (mask > 0)
        mask[nucleus & (mask == 0)] = nucleus_id
    return mask, int(np.count_nonzero(overlapping))


def _split(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    test = [sample for sample in samples if sample.name[:8].lower() in STARDIST_TEST_IDS]
    if not test:
        # Indices 9, 19, ...; the last one if there are fewer than ten images.
        test = samples[9::10] or samples[-1:]
    names = {sample.name for sample in test}
    return [sample for sample in samples if sample.name not in names], test


# --- one file ---------------------------------------------------------------------------------------------------------


def _decode_file(files: FileStore, path: str) -> np.ndarray:
    data = files.read(path)
    try:
        return decode(data, PurePosixPath(path).suffix)
    except Exception as error:  # decoders raise many kinds of errors; the student needs the name of the file
        raise DataError(
            f"{files.where(path)} cannot be decoded: {_reason(error)}. The file is damaged or in an unusual format: "
            "copy it again, or save it as uncompressed TIFF."
        ) from error


def _one_channel(image: np.ndarray) -> np.ndarray | None:
    """(H, W) from (H, W) or (H, W, channels) without alpha; None if the channels differ: an image in colour."""
    if image.ndim != 3:
        return image
    channels = image[..., : {2: 1, 4: 3}.get(image.shape[2], image.shape[2])]
    if (channels != channels[..., :1]).any():
        return None
    return np.ascontiguousarray(channels[..., 0])


def _check_image(image: np.ndarray, where: str) -> None:
    if image.ndim != 2:
        raise DataError(f"{where} has shape {image.shape}; expected a grey image (H, W): save one channel of it.")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{where} has dtype {image.dtype}; expected uint8 or uint16: save it with 8 or 16 bits.")


def _check_mask(mask: np.ndarray, where: str) -> None:
    expected = "expected a label image (H, W) of integers, 0 for background and one id for each nucleus"
    if mask.dtype == bool:
        raise DataError(f"{where} has dtype bool, which cannot tell nuclei apart; {expected}.")
    if not np.issubdtype(mask.dtype, np.integer):
        raise DataError(f"{where} has dtype {mask.dtype}; {expected}: save it as uint16.")
    if mask.ndim != 2:
        raise DataError(f"{where} has shape {mask.shape}; {expected}.")
    if mask.size and (mask.min() < 0 or mask.max() > np.iinfo(np.int32).max):
        raise DataError(f"{where} has ids from {mask.min()} to {mask.max()}; {expected}, from 0 to 2147483647.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _some(names: list[str], max_names: int = 5) -> str:
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more
