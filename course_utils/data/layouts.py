"""Read pairs of image and mask from a folder or a zip.

Two layouts are understood, at any depth in the folder or zip, with files in TIFF, PNG, BMP, GIF or JPEG::

    StarDist    {train,test}/{images,masks}/<name>.tif      one label image for each image
    Kaggle      <id>/images/<id>.png and <id>/masks/*.png   one mask file for each nucleus (`stage1_train`)

Folders and zips are read in the same steps: list the names once, recognise the layout by the names, read bytes, decode
(`decoding`). A zip is never unpacked: nothing is left behind, and read-only folders work. Any problem with a file
becomes a `DataError` that names the file; files that are not read are counted in the remark.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
import zipfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from course_utils.data.decoding import (
    DataError,
    MaskFeatures,
    check_image,
    check_label_images,
    check_mask,
    decode,
    decode_file,
    has_dark_nuclei,
    merge_masks,
    reason,
)
from course_utils.data.zips import member_name, open_zip, read_member

__all__ = ["STARDIST_TEST_IDS", "DataError", "FileStore", "LoadedData", "Sample", "decode", "read_samples"]

LAYOUTS = (
    "{train,test}/{images,masks}/<name>.tif (or .png, .bmp, .gif, .jpg) with one label image for each image, "
    "or <id>/images/<id>.png with <id>/masks/*.png, one file for each nucleus"
)
# Far more than any data set of this kind: if someone passes the wrong folder, the search stops before it has listed the
# whole disk.
MAX_FILES = 300_000
MAX_DEPTH = 8

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

_SUFFIX = r"\.(?:tiff?|png|bmp|gif|jpe?g)"
_STARDIST_FILE = re.compile(
    rf"(?i)(?P<root>(?:.*?/)?)(?P<split>train|test)/(?P<kind>images|masks)/(?P<name>.+){_SUFFIX}"
)
_KAGGLE_FILE = re.compile(rf"(?i)(?P<root>(?:.*/)?)(?P<id>[^/]+)/(?P<kind>images|masks)/(?P<name>[^/]+){_SUFFIX}")
# Counted if they are not read; system files are not.
_OTHER = re.compile(rf"(?i).*{_SUFFIX}|(?:.*/)?(?:images|masks)/(?!.*(?:thumbs\.db|desktop\.ini)).*")
_PREVIEW = re.compile(r"(?i)thumb|preview|backup")
_MASK_WORD = re.compile(r"(?i)mask|label|seg|gt|truth|annot|inst|nucle")


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


class _Found(NamedTuple):
    """What a layout gives: (split, sample) and the features of its mask, and the paths that were used."""

    samples: list[tuple[str, Sample]]
    features: list[MaskFeatures]
    used: list[str]
    remark: str
    n_colour: int = 0


def read_samples(path: Path) -> LoadedData:
    """Read all pairs of image and mask in a folder or a zip.

    Images keep their dtype; masks become int32 and keep their ids. Images whose nuclei are darker than the background
    are left out, and the remark says how many. In the Kaggle layout

    * the mask files of an image get the ids 1 to n in order of file name; a pixel in two files belongs to the first;
    * images in colour are left out; so are mask files that are empty or cover the whole image: the remark names them;
    * the test split is `STARDIST_TEST_IDS`, or every tenth image if none of those is present.

    Raises:
        DataError: unknown layout; a file that is unpaired, unreadable or truncated; an image that is not (H, W) uint8
            or uint16; a mask that is not (H, W) integer, has negative ids or is not a label image; different shapes;
            an empty split.

    >>> from course_utils.data import embedded_folder
    >>> read_samples(embedded_folder()).train[0].mask.dtype
    dtype('int32')
    """
    with FileStore(path) as files:
        layout, root = _find_layout(files)
        found = _read_stardist(files, root) if layout == "StarDist" else _read_kaggle(files, root)
        unread = _not_read(files, found.used)
    # In Kaggle's layout a mask file that holds several nuclei is no reason to refuse all the others.
    check_label_images(found.features, each=layout == "StarDist")
    is_dark = [has_dark_nuclei(sample.image, sample.mask) for _, sample in found.samples]
    dark = [sample.name for (_, sample), left_out in zip(found.samples, is_dark, strict=True) if left_out]
    if dark and len(dark) == sum(bool(sample.mask.any()) for _, sample in found.samples):
        raise DataError(
            f"In all {len(dark)} images of {files.where(root)} ({_some(dark, 2)}) nuclei are darker than background. "
            "The course is about bright nuclei: invert the images, or the masks if their nuclei are 0."
        )
    splits: dict[str, list[Sample]] = defaultdict(list)
    for (split, sample), left_out in zip(found.samples, is_dark, strict=True):
        splits[split] += [] if left_out else [sample]
    left_out = f"{found.n_colour} colour and {len(dark)} brightfield images left out" if layout == "Kaggle" else ""
    if dark and layout == "StarDist":
        left_out = f"{len(dark)} brightfield images left out, or with the mask of another image: {_some(dark)}"
    others = f"{len(unread)} other files not read, such as {unread[0]}" if unread else ""
    remark = ", ".join(one for one in (left_out, found.remark, others) if one)
    train, test = _split(splits[""]) if layout == "Kaggle" else (splits["train"], splits["test"])
    for split, samples in (("train", train), ("test", test)):
        if not samples:
            raise DataError(
                f"{files.where(root)} holds no {split} images{f' ({remark})' * bool(remark)}; the course needs both "
                f"train and test images. Expected: {LAYOUTS}."
            )
    return LoadedData(train, test, remark)


class FileStore:
    """The files in a folder or a zip: names listed once (relative, with `/`), bytes read on demand.

    Folders, hidden files and what systems add (`__MACOSX`, `@eaDir`) are not listed. Use it in a `with` statement.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if self.path.is_dir():
            names = _list_folder(self.path)
        else:
            try:
                self._archive = open_zip(self.path)
            except DataError:
                raise
            except Exception as error:  # besides its own class, zipfile lets many others out
                raise DataError(
                    f"{self.path} is neither a folder nor a file that can be read as a zip ({reason(error)}). "
                    "If it is a damaged zip, download or copy it again; if it is another archive, unpack it."
                ) from error
            self._members = {member_name(one): one for one in self._archive.infolist() if not one.is_dir()}
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
            return os.path.join(self.path, name.replace("/", os.sep)).rstrip(os.sep)
        return f"{name} in {self.path}" if name else str(self.path)

    def file(self, name: str) -> tuple[str, bytes, str]:
        """Name without folder, bytes, and where the file is, for `decode_file`."""
        return posixpath.basename(name), self.read(name), self.where(name)

    def read(self, name: str) -> bytes:
        """The bytes of one file; `DataError` if it cannot be read."""
        try:
            if self._archive is None:
                return (self.path / name).read_bytes()
            return read_member(self._archive, self._members[name])
        except Exception as error:  # zipfile alone raises seven unrelated classes for damaged or encrypted files
            raise DataError(f"{self.where(name)} cannot be read: {reason(error)}. Copy or unpack it again.") from error


def _list_folder(folder: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {reason(error)}.") from error

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
    return any(part.startswith(".") and part != ".." or part in ("__MACOSX", "@eaDir") for part in name.split("/"))


def _find_layout(files: FileStore) -> tuple[str, str]:
    """The layout of the files, and the folder in which it starts ("" or ending in "/")."""
    found = {root: "Kaggle" for root, folders in _kaggle_folders(files).items() if any(map(all, folders.values()))}
    found |= {match["root"]: "StarDist" for name in files.names if (match := _STARDIST_FILE.fullmatch(name))}
    outer = min(found, key=len, default="")
    # What lies inside is counted in the remark; but one image beside its mask, as on Kaggle, hides no StarDist layout.
    inside = [root for root in found if root.startswith(outer) and found[root] in ("Kaggle", found[outer])]
    if found and len(inside) == len(found):
        return found[outer], outer
    what_to_do = ("" if files.path.is_dir() else "Unpack it. ") + "Pass the path of one of them"
    if found:
        places = "; ".join(f"{files.where(root)} ({layout} layout)" for root, layout in sorted(found.items()))
        raise DataError(f"{files.path} holds {len(found)} data sets. {what_to_do}: {places}.")

    zips = [name for name in files.names if name.lower().endswith(".zip")]
    if zips:
        raise DataError(f"{files.path} holds no images, but zip files: {_some(zips)}. {what_to_do}.")
    content = f"{len(files.names)} files such as {_some(files.names, 3)}" if files.names else "no files"
    raise DataError(f"{files.path} holds {content}, in no known layout. Expected: {LAYOUTS}.")


def _kaggle_folders(files: FileStore) -> dict[str, dict[str, tuple[list[str], list[str]]]]:
    """For each root and <id>: its image, if any (of the same name, or the only one beside masks), and its masks."""
    found: dict = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for path in files.names:
        if match := _KAGGLE_FILE.fullmatch(path):
            found[match["root"]][match["id"]][match["kind"].lower() == "masks"].append((match["name"], path))
    roots: dict = defaultdict(dict)
    for root, folders in found.items():
        for name, (images, masks) in folders.items():
            named = [path for stem, path in images if stem.casefold() == name.casefold()]
            if len(named) > 1:
                raise DataError(_same_name(files, *named[:2]))
            if named or (masks and len(images) < 2):
                roots[root][name] = (named or [path for _, path in images], [path for _, path in masks])
    return roots


def _same_name(files: FileStore, one: str, other: str) -> str:
    return f"{files.where(one)} and {files.where(other)} have the same name: remove one of them."


def _check_partners(files: FileStore, images: dict, masks: dict, hint: str = "") -> None:
    """Raise a `DataError` that lists the images and masks (paths by name) that have no partner of the same name."""
    problems = [
        f"{what} ({len(alone)}): {_some([files.where(name) for name in alone])}"
        for what, one, other in (("images without a mask", images, masks), ("masks without an image", masks, images))
        if (alone := sorted(path for name, path in one.items() if name not in other))
    ]
    if problems:
        raise DataError(
            f"There are {'; '.join(problems)}. "
            f"An image and its mask have the same name: add the missing files or remove these.{hint}"
        )


def _pair(files: FileStore, images: dict, masks: dict) -> tuple[list[tuple], str]:
    """Pair paths by (split, name): [((split, name), image, mask)], and a remark if names were trimmed.

    Names are compared as they are, without case, without folders, and at last without what all images, or all masks,
    have before and after the part that differs (`image_01` and `mask_01`, `x` and `x_mask`).
    """
    both = images, masks
    affixes = [_affixes([posixpath.basename(name.casefold()) for _, name in paths]) for paths in both]
    what = ["*".join(affix) for affix in affixes]
    digits = {re.sub(r"\D", "", one) for one in what} - {""}
    # `exp1_01` and `exp2_01` are two experiments, `A01` and `B01` two wells.
    contained = [all(map(str.__contains__, *order)) for order in (affixes, affixes[::-1])]
    may_trim = len(digits) < 2 and (any(contained) or _MASK_WORD.search(what[1]))

    def trimmed(name: str, affix: tuple[str, str]) -> tuple[str, str]:
        folder, stem = posixpath.split(name.casefold())
        return folder, stem[len(affix[0]) : len(stem) - len(affix[1])]

    keys = [lambda name, _: name, lambda name, _: name.casefold(), lambda name, _: posixpath.basename(name.casefold())]
    keys += [trimmed, lambda name, affix: trimmed(name, affix)[1]] if may_trim else []
    for level, key in enumerate(keys):
        one, other = (
            {(split, key(name, affix)): (split, name) for split, name in paths}
            for paths, affix in zip(both, affixes, strict=True)
        )
        if one.keys() == other.keys() and len(one) == len(images) and len(other) == len(masks):
            remark = f"images and masks paired by the part of their names that differs: {' and '.join(what)}"
            return sorted((name, images[name], masks[other[same]]) for same, name in one.items()), remark * (level > 2)
    others = _not_read(files, [*images.values(), *masks.values()])
    _check_partners(files, images, masks, f" Other files, which are not read: {_some(others)}." if others else "")
    return [], ""


def _affixes(names: list[str]) -> tuple[str, str]:
    """What all names begin and end with, but for the digits beside the part that differs."""
    before = re.sub(r"\d+$", "", os.path.commonprefix(names))
    after = re.sub(r"^\d+", "", os.path.commonprefix([name[::-1] for name in names])[::-1])
    fits = len(names) > 1 and len(before) + len(after) < min(map(len, names))
    return (before, after) if fits else ("", "")


def _not_read(files: FileStore, used: list[str]) -> list[str]:
    """Other image files, and other files in folders for images and masks."""
    return [name for name in sorted(set(files.names) - set(used)) if _OTHER.fullmatch(name)]


def _read_stardist(files: FileStore, root: str) -> _Found:
    paths: dict[str, dict[tuple[str, str], str]] = {"images": {}, "masks": {}}
    for path in files.names:
        match = _STARDIST_FILE.fullmatch(path)
        if match and match["root"] == root and not _PREVIEW.search(posixpath.dirname(match["name"])):
            key = match["split"].lower(), unicodedata.normalize("NFC", match["name"])
            first = paths[match["kind"].lower()].setdefault(key, path)
            if first != path:
                raise DataError(_same_name(files, first, path))
    images, masks = (
        {key: path for key, path in one.items() if key in other or not _PREVIEW.search(key[1])}
        for one, other in ((paths["images"], paths["masks"]), (paths["masks"], paths["images"]))
    )
    pairs, remark = _pair(files, images, masks)
    read = [_read_pair(files, name, image, mask) for (_, name), image, mask in pairs]
    samples = [(split, sample) for ((split, _), *_), (sample, _) in zip(pairs, read, strict=True)]
    return _Found(samples, [features for _, features in read], [*images.values(), *masks.values()], remark)


def _read_pair(files: FileStore, name: str, image_path: str, mask_path: str) -> tuple[Sample, MaskFeatures]:
    image, mask = decode_file(*files.file(image_path)), decode_file(*files.file(mask_path), is_mask=True)
    check_image(image, files.where(image_path))
    check_mask(mask, files.where(mask_path))
    if image.shape != mask.shape:
        raise DataError(
            f"{files.where(image_path)} has shape {image.shape}, its mask {files.where(mask_path)} {mask.shape}: "
            "image and mask must have the same height and width."
        )
    sample = Sample(name, image, mask.astype(np.int32))  # the features are of the mask as stored, but do not keep it
    return sample, replace(MaskFeatures.of(mask, files.where(mask_path)), mask=sample.mask)


def _read_kaggle(files: FileStore, root: str) -> _Found:
    folders = _kaggle_folders(files)[root]
    images = {name: image[0] for name, (image, _) in folders.items() if image}
    _check_partners(files, images, {name: masks[0] for name, (_, masks) in folders.items() if masks})
    samples, features, lost, overlaps, n_colour = [], [], [], {}, 0
    for name in sorted(images):
        image = decode_file(*files.file(images[name]))
        if image.ndim == 3:
            n_colour += 1
            continue
        check_image(image, files.where(images[name]))
        mask, what, overlaps[name] = merge_masks(map(files.file, folders[name][1]), image.shape)
        lost += [f"{name} ({what})"] if what else []
        samples.append(("", Sample(name, image, mask)))
        features.append(MaskFeatures.of(mask, files.where(posixpath.dirname(folders[name][1][0]))))
    remarks = [f"mask files without a nucleus in {len(lost)} images: {_some(lost)}"] if lost else []
    several = [sample.name for (_, sample), one in zip(samples, features, strict=True) if one.shared > 2]
    remarks += [f"mask files with several nuclei, which count as one, in {_some(several)}"] if several else []
    if n_overlapping := sum(overlaps.values()):
        most = max(overlaps, key=overlaps.__getitem__)
        remarks.append(f"{n_overlapping} pixels claimed by two nuclei given to the first (most in {most})")
    used = [*images.values(), *(path for _, masks in folders.values() for path in masks)]
    return _Found(samples, features, used, ", ".join(remarks), n_colour)


def _split(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    test = [sample for sample in samples if sample.name[:8].lower() in STARDIST_TEST_IDS]
    if not test:
        # Indices 9, 19, ...; the last one if there are fewer than ten images.
        test = samples[9::10] or samples[-1:]
    names = {sample.name for sample in test}
    return [sample for sample in samples if sample.name not in names], test


def _some(names: list[str], max_names: int = 5) -> str:
    return ", ".join(names[:max_names]) + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
