"""Segments a folder of images with the pretrained network: label images, outlines, ROIs, measurements, and a page.

    RESULTS/labels/NAME.tif      label image: uint16, from 65,536 nuclei on uint32
    RESULTS/overlays/NAME.png    the image with the outlines, large images reduced
    RESULTS/rois/NAME.zip        the outlines for the ROI manager of Fiji
    RESULTS/measurements.csv     a row for each nucleus
    RESULTS/summary.html         what was found, and reasons for doubt

NAME is the path of an image inside its folder, without suffix if that is clear. What is finished is noted in
RESULTS/.segment: a later run goes on from there, and does again what has changed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import roifile
import tifffile
import torch
from PIL import Image
from scipy import ndimage
from skimage.measure import block_reduce
from skimage.segmentation import find_boundaries

from course_utils import __version__
from course_utils.checkpoints import checkpoint_folder, load_model
from course_utils.device import choose_device, choose_precision, describe_device, fast_layout, in_precision
from course_utils.measurements import measure_instances
from course_utils.own_images import (
    DSB2018_SIZES,
    Segmentation,
    check_diameter,
    percentile_range,
    read_image,
    segment_image,
)
from course_utils.results import replacing
from workshop.paths import course_code
from workshop.run.live import Progress
from workshop.run.machine import versions
from workshop.segment_page import printable, write_page

SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".gif", ".jpg", ".jpeg")
STATE = ".segment"
NETWORK = "boundary_dsb2018.pt"
OVERLAY_SIDE = 2048  # pixels: larger images are reduced to it, smaller ones enlarged up to half of it
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # with real dates no two runs would give the same bytes
OUTPUTS = {"labels": ".tif", "overlays": ".png", "rois": ".zip"}


class SegmentError(ValueError):
    """The folder cannot be segmented; the message says what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Options:
    """What the user chose; a result made with others is made again. `pixel_size` is in micrometres."""

    diameter: float | None = None
    pixel_size: float | None = None
    channel: int | None = None


def segment_folder(folder: Path, out: Path, options: Options) -> tuple[int, dict[str, str]]:
    """Segment all images below a folder, and write the results.

    Returns:
        The number of images that have a result, and the files that were skipped, each with the reason.

    Raises:
        SegmentError: the diameter is out of range, there is no image, none can be read, or the results cannot be
            written.
    """
    try:
        check_diameter(options.diameter)
    except ValueError as error:
        raise SegmentError(f"--{error}") from error
    images, skipped = find_images(folder, out)
    if not images:
        others = f", but {len(skipped)} other files, such as {printable(next(iter(skipped)))}" if skipped else ""
        raise SegmentError(f"{folder} holds no images ({', '.join(SUFFIXES)}){others}: name a folder with images.")
    network = checkpoint_folder() / NETWORK
    try:
        basis = hashlib.sha256(network.read_bytes() + course_code().encode())
    except OSError as error:
        raise SegmentError(f"The network {network} is missing ({error.strerror}): restore that file.") from error
    basis.update(json.dumps([asdict(options), torch.__version__, np.__version__]).encode())
    try:
        with only_run(folder, out):
            results = _segment_all(folder, out, options, images, skipped, network, basis.hexdigest())
            if not results:
                reasons = "; ".join(f"{printable(name)}: {reason}" for name, reason in list(skipped.items())[:3])
                raise SegmentError(f"None of the {len(images)} images in {folder} can be read. {reasons}")
            _write_measurements(out, results, options)
            write_page(out, folder.resolve().name, results, skipped, _about(options, network), options.diameter)
    except OSError as error:
        raise SegmentError(
            f"The results cannot be written to {out} ({error.strerror or error}): free some space if its disk is full, "
            "or name another folder; the same command goes on where it stopped."
        ) from error
    return len(results), skipped


def find_images(folder: Path, out: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The images below a folder by the names of their results, and the other files, each with the reason.

    Hidden files, links to folders and results of this command are left out.

    Raises:
        SegmentError: there is no such folder, or it is not one of images.
    """
    if not folder.is_dir():
        what = "is not a folder: name the one that it is in" if folder.exists() else "was not found: check the spelling"
        raise SegmentError(f"{folder} {what}.")
    if (folder / STATE).exists() or out.resolve() == folder.resolve():
        raise SegmentError(f"{folder} is a folder of results: name one with images, and another one as --out.")
    found, skipped = [], {}

    def refuse(error: OSError) -> None:
        skipped[os.path.relpath(error.filename, folder)] = f"the folder cannot be read ({error.strerror})"

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        inside = [name for name in folders if not name.startswith(".") and not (here / name / STATE).exists()]
        folders[:] = sorted(name for name in inside if (here / name).resolve() != out.resolve())
        for name in files:
            path = here / name
            if name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini"):
                continue
            if path.suffix.lower() in SUFFIXES:
                found.append(path.relative_to(folder))
            else:
                skipped[str(path.relative_to(folder))] = f"no image that can be read ({', '.join(SUFFIXES)})"
    return {name: folder / path for name, path in result_names(found).items()}, skipped


def result_names(paths: list[Path]) -> dict[str, Path]:
    """A name for the results of each image: its path without suffix, with it where that is not enough.

    >>> list(result_names([Path("a.png"), Path("a.tif"), Path("b.tif"), Path("sub/a.tif")]))
    ['a.png', 'a.tif', 'b', 'sub/a']
    """

    def key(name: str) -> str:  # on some disks these are one file
        return unicodedata.normalize("NFC", name).casefold()

    paths = sorted(paths, key=lambda path: path.as_posix())
    times = Counter(key(path.with_suffix("").as_posix()) for path in paths)
    names, taken = {}, {stem for stem, count in times.items() if count == 1}
    for path in paths:
        name, number = path.with_suffix("").as_posix(), 2
        alone = times[key(name)] == 1
        name = name if alone else path.as_posix()
        while not alone and key(name) in taken:
            name, number = f"{path.as_posix()} ({number})", number + 1
        taken.add(key(name))
        names[name] = path
    return names


@contextlib.contextmanager
def only_run(folder: Path, out: Path) -> Iterator[None]:
    """Let one process at a time write results, all of one folder; remove what a killed one left half written.

    Raises:
        SegmentError: another one does, or the results are those of another folder.
    """
    from filelock import FileLock, Timeout

    state = out / STATE
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SegmentError(f"Another run is writing to {out}: wait for it, or name another folder.") from None
    try:
        source, here = state / "source", os.fsencode(folder.resolve())
        if source.exists() and source.read_bytes() != here:
            raise SegmentError(
                f"{out} holds the results of another folder ({printable(os.fsdecode(source.read_bytes()))}): name "
                "another one as --out, or delete it."
            )
        source.write_bytes(here)
        for unfinished in out.rglob(".*.partial"):
            unfinished.unlink()
        yield
    finally:
        lock.release()


def _segment_all(folder, out, options, images, skipped, network, basis) -> dict[str, dict]:
    """The result of each image, in order of name: from an earlier run, else made now."""
    _forget_others(out, images)
    results, todo = {}, {}
    for name, path in images.items():
        try:
            digest = _digest(path, basis)
        except OSError as error:
            skipped[str(path.relative_to(folder))] = f"it cannot be read ({error.strerror})"
            continue
        if kept := _kept(out, name, digest):
            results[name] = kept
        else:
            todo[name] = path, digest, _n_pixels(path)
    if results:
        print(f"{len(results)} of {len(images)} images are done already.", flush=True)
    if todo:
        model, _ = load_model(network)
        device = choose_device()
        model = in_precision(fast_layout(model.to(device)), choose_precision(device))
        print(f"{len(todo)} image{'s' if len(todo) != 1 else ''} on {describe_device(device)}.", flush=True)
        progress = Progress([size for *_, size in todo.values()])
    for name, (path, digest, _) in todo.items():
        shown = path.relative_to(folder)
        try:
            found = segment_image(model, read_image(path), options.diameter, channel=options.channel,
                                  on_tile=progress.tile(printable(shown)))  # fmt: skip
        except (ValueError, MemoryError, RuntimeError, OSError) as error:
            skipped[str(shown)] = reason = " ".join(str(error).removeprefix(path.name).split()) or type(error).__name__
            progress.done(f"{printable(shown)} is skipped: {reason.rstrip('.')}")
            _forget(out, name)  # an earlier run had other options, or the image was another one
            continue
        results[name] = _write_results(out, name, str(shown), digest, found, options)
        doubts = ", ".join(warning["kind"] for warning in results[name]["warnings"])
        progress.done(f"{printable(shown)}: {results[name]['nuclei']} nuclei{doubts and f'; warnings: {doubts}'}")
    return {name: results[name] for name in images if name in results}


def _digest(path: Path, basis: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(f"{basis} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode()).hexdigest()


def _n_pixels(path: Path) -> int:
    """For the time left; of a damaged file anything."""
    with contextlib.suppress(Exception), Image.open(path) as picture:
        return max(1, picture.width * picture.height)
    return 1


def _places(out: Path, name: str) -> dict[str, Path]:
    return {kind: out / kind / f"{name}{suffix}" for kind, suffix in OUTPUTS.items()}


def _state(out: Path, name: str) -> Path:
    return out / STATE / "results" / f"{name}.json"


def _kept(out: Path, name: str, digest: str) -> dict | None:
    """The result of an earlier run, if it is of the same image and options and all its files are as they were."""
    try:
        kept = json.loads(_state(out, name).read_bytes())
        places = _places(out, name)
        whole = all(_digest(places[kind], "") == kept["files"][kind] for kind in OUTPUTS)
        return kept if kept["digest"] == digest and whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget_others(out: Path, images: dict[str, Path]) -> None:
    """Remove the results of images that are no longer there."""
    results = out / STATE / "results"
    gone = [path for path in results.rglob("*.json") if path.relative_to(results).as_posix()[:-5] not in images]
    for path in gone:
        _forget(out, path.relative_to(results).as_posix()[:-5])
    if gone:
        print(f"Removed the results of {len(gone)} images that are no longer there.", flush=True)


def _forget(out: Path, name: str) -> None:
    for path in (_state(out, name), *_places(out, name).values()):
        path.unlink(missing_ok=True)


def _write_results(out: Path, name: str, shown: str, digest: str, found: Segmentation, options: Options) -> dict:
    """Write the files of an image, and last the note that it is finished."""
    labels, n_nuclei = found.labels, int(found.labels.max())
    places = _places(out, name)
    for path in (*places.values(), _state(out, name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(places["labels"]) as file:
        bits = np.uint16 if n_nuclei <= 65535 else np.uint32
        tifffile.imwrite(file, labels.astype(bits), compression="zlib", photometric="minisblack", software="")
    with replacing(places["overlays"]) as file:
        Image.fromarray(overlay(found.grey, labels)).save(file, format="png")
    thumbnail = io.BytesIO()
    Image.fromarray(overlay(found.grey, labels, 480)).save(thumbnail, format="jpeg", quality=85)
    with replacing(places["rois"]) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            roi = as_roi(outline(labels[box] == number) + [box[1].start, box[0].start], f"{number:05d}")
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi", FIRST_DATE), roi.tobytes(), zipfile.ZIP_DEFLATED)
    table = measure_instances(labels, found.grey, options.pixel_size or 1.0)
    table.insert(0, "image", printable(shown))
    result = {
        "image": printable(shown), "digest": digest, "nuclei": n_nuclei, "shape": labels.shape,
        "pixels": float(table["diameter"].median()) / (options.pixel_size or 1.0) if n_nuclei else None,
        "agreement": None if np.isnan(found.agreement) else round(found.agreement, 4),
        "warnings": [asdict(warning) for warning in found.warnings],
        "files": {kind: _digest(path, "") for kind, path in places.items()},
        "thumbnail": base64.b64encode(thumbnail.getvalue()).decode(),
        "rows": table.to_csv(index=False, float_format="%.8g", lineterminator="\n"),
    }  # fmt: skip
    with replacing(_state(out, name)) as file:
        file.write(json.dumps(result).encode())
    return result


def _write_measurements(out: Path, results: dict[str, dict], options: Options) -> None:
    unit = "micrometre" if options.pixel_size else "pixel"
    with replacing(out / "measurements.csv") as file:
        for number, result in enumerate(results.values()):
            header, *rows = result["rows"].splitlines()
            lines = [f"{header},length_unit"] * (number == 0) + [f"{row},{unit}" for row in rows]
            file.write("".join(f"{line}\n" for line in lines).encode())


def _about(options: Options, network: Path) -> dict[str, str]:
    """The settings, for the page."""
    size = DSB2018_SIZES.median
    diameter = options.diameter or size
    used = versions()
    return {
        "Diameter of the nuclei": f"{diameter:g} pixels{'' if options.diameter else ', not given'}: images "
                                  f"scaled by {size / diameter:.2f} to the {size} pixels of the training set",
        "Side of a pixel": f"{options.pixel_size:g} micrometres" if options.pixel_size else "not given",
        "Channel": str(options.channel or "not given"),
        "Network": f"{NETWORK}, SHA-256 {hashlib.sha256(network.read_bytes()).hexdigest()[:12]}",
        "Course": f"{__version__}, code {course_code()[:12]}",
        "Versions": ", ".join(f"{name} {used[name]}" for name in ("python", "torch", "scikit-image") if name in used),
    }


# --- pictures and ROIs ------------------------------------------------------------------------------------------------


def overlay(grey: np.ndarray, labels: np.ndarray, most: int = OVERLAY_SIDE) -> np.ndarray:
    """The normalised image with an orange line inside each instance's edge: uint8 `(H, W, 3)`, sides up to `most`."""
    low, high = percentile_range(grey)
    if (step := -(-max(labels.shape) // most)) > 1:
        rows = range(0, len(grey), step * 64)  # in pieces: the mean of a whole slide takes much memory
        grey = np.concatenate([block_reduce(grey[row : row + step * 64], step, np.mean) for row in rows])
        sides = zip(grey.shape, labels.shape, strict=True)
        middle = [np.minimum(np.arange(small) * step + step // 2, side - 1) for small, side in sides]
        labels = labels[np.ix_(*middle)]
    larger = min(4, max(1, most // 2 // max(labels.shape)))
    shown = np.clip((grey - low) / (high - low if high > low else 1), 0, 1) * 255
    shown, labels = (np.repeat(np.repeat(one, larger, axis=0), larger, axis=1) for one in (shown, labels))
    picture = np.repeat(shown.astype(np.uint8)[..., None], 3, axis=2)
    picture[find_boundaries(labels, mode="inner")] = (230, 159, 0)
    return picture


def outline(mask: np.ndarray) -> np.ndarray:
    """The outer edge of a region along the edges of its pixels, clockwise: int array `(n, 2)` of corners x, y.

    >>> outline(np.array([[True, True]])).tolist()
    [[0, 0], [2, 0], [2, 1], [0, 1]]
    """
    inside = np.pad(mask, 1)
    turns = right, down, left, up = (1, 0), (0, 1), (-1, 0), (0, -1)

    def has(x: int, y: int, step: tuple[int, int]) -> bool:
        """Whether the edge from this corner has the region to its right and none of it to its left."""
        (a, b), (c, d) = {right: ((y, x), (y - 1, x)), down: ((y, x - 1), (y, x)),
                          left: ((y - 1, x - 1), (y, x - 1)), up: ((y - 1, x), (y - 1, x - 1))}[step]  # fmt: skip
        return bool(inside[a + 1, b + 1]) and not inside[c + 1, d + 1]

    y, x = (int(value) for value in np.argwhere(mask)[0])
    start, step, corners = (x, y), right, []
    while True:
        # leftmost first: pixels that touch at a corner belong together
        at = turns.index(step)
        following = next(turns[(at + turn) % 4] for turn in (-1, 0, 1) if has(x, y, turns[(at + turn) % 4]))
        if following != step or not corners:
            if corners and (x, y) == start:
                return np.array(corners)
            corners.append((x, y))
        step = following
        x, y = x + step[0], y + step[1]


def as_roi(corners: np.ndarray, name: str) -> roifile.ImagejRoi:
    """A traced region for ImageJ; its box ends at the last corner."""
    roi = roifile.ImagejRoi.frompoints(corners, name=name)
    roi.roitype = roifile.ROI_TYPE.TRACED
    roi.right, roi.bottom = (int(value) for value in corners.max(axis=0))
    return roi
