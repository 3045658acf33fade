"""Results: the scores of several images and methods as tables, and the folder and files that they are written to."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from course_utils.arguments import check_arguments
from course_utils.metrics import IOU_THRESHOLDS, MSA_THRESHOLDS, Matches, match_instances, touching_recall

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:  # pandas is imported when a table is made: whoever only writes a file need not wait for it
    import pandas as pd

SCORE_NAMES = {
    "mean_f1": "mean F1",
    "mean_ap": "mean AP",
    "msa": "mSA",
    "panoptic_quality": "panoptic quality",
    "pooled_f1": "pooled F1",
    "touching_recall": "recall of touching nuclei",
}
TABLE_MEASURES = ("mean_f1", "mean_ap", "msa", "panoptic_quality", "touching_recall")
COUNTS = ("true_positive", "false_positive", "false_negative")


def score_images(
    predictions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Counts, F1 and average precision of each image at each threshold.

    Args:
        predictions, truths: label images, in the same order.
        iou_thresholds: as in `match_instances`.
        names: of the images, for the table; their numbers by default.

    Returns:
        A table with a row for each image and threshold and the columns image, iou_threshold, true_positive,
        false_positive, false_negative, f1, average_precision.

    Raises:
        ValueError: there are no images, or their numbers differ; and as in `match_instances`.

    >>> score_images([np.array([[1, 0]])], [np.array([[2, 0]])], [0.5])["f1"].tolist()
    [1.0]
    """
    import pandas as pd

    matches = _match_images(predictions, truths, iou_thresholds)
    names = [str(index) for index in range(len(truths))] if names is None else names
    if len(names) != len(matches):
        raise ValueError(f"{len(names)} names for {len(matches)} images.")
    columns = ("iou_threshold", *COUNTS, "f1", "average_precision")
    rows = [
        {"image": name, **{column: getattr(one, column) for column in columns}}
        for name, matches_of_image in zip(names, matches, strict=True)
        for one in matches_of_image
    ]
    return pd.DataFrame(rows)


def _match_images(
    predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], iou_thresholds: Sequence[float]
) -> list[list[Matches]]:
    """For each image its matches at each threshold."""
    check_arguments(predictions=predictions, truths=truths, values=False)
    check_arguments(iou_thresholds=iou_thresholds)
    if len(truths) == 0 or len(iou_thresholds) == 0:
        raise ValueError(f"Nothing to score: {len(truths)} images and {len(iou_thresholds)} IoU thresholds.")
    return [match_instances(*pair, iou_thresholds) for pair in zip(predictions, truths, strict=True)]


def summarize_scores(scores: pd.DataFrame) -> dict[str, dict[float, float]]:
    """Mean and pooled F1 over the images at each threshold of a table of `score_images`.

    Returns:
        `{"mean_f1": {IoU threshold: score}, "pooled_f1": {...}}`. The mean averages the F1 of the images: each image
        counts the same. Pooled F1 adds up the counts first: each nucleus counts the same.

    >>> image = np.array([[1, 1, 0, 2]])
    >>> summarize_scores(score_images([image], [image], [0.5]))
    {'mean_f1': {0.5: 1.0}, 'pooled_f1': {0.5: 1.0}}
    """
    summary: dict[str, dict[float, float]] = {"mean_f1": {}, "pooled_f1": {}}
    for iou_threshold, group in scores.groupby("iou_threshold"):
        summary["mean_f1"][iou_threshold] = float(group["f1"].mean())
        summary["pooled_f1"][iou_threshold] = Matches(iou_threshold, *group[list(COUNTS)].sum().tolist()).f1
    return summary


def compare_methods(
    methods: dict[str, Sequence[np.ndarray]],
    truths: Sequence[np.ndarray],
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> dict[str, dict[str, dict[float | str, float]]]:
    """Score several methods on the same images, with the scores of the course and those that papers report.

    Args:
        methods: name of the method -> its label images, one for each truth.
        truths: the true label images.
        iou_thresholds: of F1 and AP; the recall of touching nuclei is measured at the first of them only.

    Returns:
        `{method: {measure: {IoU threshold: score}}}`; for a table, pass it to `score_table`. The measures are

        * `mean_f1`, `mean_ap`: means over the images of F1 and of average precision, at each threshold;
        * `msa`: the mean of the mean AP over the IoU thresholds 0.5, 0.55, ... 0.95;
        * `panoptic_quality`: means over the images of `"PQ"` and its factors `"SQ"` (segmentation quality, the mean IoU
          of the matched pairs) and `"RQ"` (recognition quality, which is F1), at an IoU threshold of 0.5. The product
          of two means is not the mean of the products: multiply them for one image only;
        * `pooled_f1`: F1 of the counts of all images;
        * `touching_recall`: as of the function.

    Raises:
        ValueError: as in `score_images`.
    """
    if not isinstance(methods, Mapping):
        raise ValueError(f"methods must be a dictionary of label images, but is of type {type(methods).__name__}.")
    return {method: _scores(predictions, truths, iou_thresholds) for method, predictions in methods.items()}


def _scores(
    predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], iou_thresholds: Sequence[float]
) -> dict[str, dict[float | str, float]]:
    check_arguments(iou_thresholds=iou_thresholds)
    images = _match_images(predictions, truths, [*iou_thresholds, *MSA_THRESHOLDS] if len(iou_thresholds) else [])
    found = {matches[0].iou_threshold: matches for matches in zip(*images, strict=True)}  # matches of all images

    def mean(score: str, iou_threshold: float) -> float:
        return float(np.mean([getattr(matches, score) for matches in found[iou_threshold]]))

    iou_thresholds = [float(iou_threshold) for iou_threshold in iou_thresholds]
    pooled = {
        t: Matches(t, *(sum(getattr(matches, count) for matches in found[t]) for count in COUNTS)).f1
        for t in iou_thresholds
    }
    return {
        "mean_f1": {t: mean("f1", t) for t in iou_thresholds},
        "mean_ap": {t: mean("average_precision", t) for t in iou_thresholds},
        "msa": {"0.5 to 0.95": float(np.mean([mean("average_precision", t) for t in MSA_THRESHOLDS]))},
        "panoptic_quality": {
            "PQ": mean("panoptic_quality", 0.5), "SQ": mean("segmentation_quality", 0.5), "RQ": mean("f1", 0.5),
        },
        "pooled_f1": pooled,
        "touching_recall": {iou_thresholds[0]: touching_recall(predictions, truths, iou_thresholds[0])},
    }  # fmt: skip


def paired_bootstrap(
    scores: Sequence[float],
    other_scores: Sequence[float],
    rng: np.random.Generator,
    repeats: int = 2000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """How much better one method is than another on the same images, and how sure that is.

    The images are drawn again and again with replacement (a *bootstrap*, Efron 1979), both methods on the same draw. If
    0 lies within the interval, other images of this kind could have given the opposite order.

    Args:
        scores, other_scores: of each image by the two methods, in the same order.
        rng: generator of the draws.
        repeats: number of draws, each of as many images as there are.
        level: share of the draws whose mean difference lies in the interval.

    Returns:
        `(mean, low, high)` of `scores - other_scores` as Python floats: the mean over the images as they are, and the
        interval that holds the middle `level` of the means of the draws.

    Raises:
        ValueError: the lists differ in length or are empty; or a value is something else.

    >>> paired_bootstrap([0.9, 0.8, 0.75], [0.65, 0.55, 0.5], np.random.default_rng(0))  # on each image by 0.25
    (0.25, 0.25, 0.25)
    """
    check_arguments(scores=scores, other_scores=other_scores, least=1)
    check_arguments(rng=rng, repeats=repeats, level=level)
    difference = np.array([float(one) - float(other) for one, other in zip(scores, other_scores, strict=True)])
    means = rng.choice(difference, (repeats, len(difference))).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), float(low), float(high)


def score_table(
    scores: dict[str, dict[str, dict[float | str, float]]], measures: Sequence[str] = TABLE_MEASURES
) -> pd.DataFrame:
    """The scores of `compare_methods` as a table to read: a row for each method, a column for each score.

    Args:
        scores: of `compare_methods`.
        measures: the measures to show, in this order; those that `scores` does not have are left out. For all of them
            pass `SCORE_NAMES`.

    Raises:
        ValueError: a measure is not known.

    >>> score_table({"Otsu": {"mean_f1": {0.5: 0.75}}}).columns.tolist()
    [('mean F1', 'IoU 0.5')]
    """
    import pandas as pd

    if unknown := [measure for measure in measures if measure not in SCORE_NAMES]:
        raise ValueError(f"Unknown measures {unknown}; known are {', '.join(SCORE_NAMES)}.")
    rows = {
        method: {
            (SCORE_NAMES[measure], str(column) if column in ("PQ", "SQ", "RQ") else f"IoU {column}"): score
            for measure in measures
            for column, score in by_measure.get(measure, {}).items()
        }
        for method, by_measure in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def prepare_output(output: str | Path) -> Path:
    """Make the folder for results and try to write into it: better before a long training than after it.

    Args:
        output: the folder; missing parent folders are also made.

    Returns:
        The folder as a `Path`.

    Raises:
        OSError: it cannot be written to; the message says why and what to do.
    """
    folder = Path(output)
    with writing_into(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"an empty file would fit on a full disk")
    return folder


def record_scores(output: str | Path, notebook: str, scores: dict) -> Path:
    """Write the scores a notebook reached to `<output>/scores/<notebook>.json`, where `course.py run` collects them.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """
    path = Path(output) / "scores" / f"{notebook}.json"
    text = json.dumps(scores, indent=2, default=float) + "\n"
    with writing_into(path.parent), replacing(path) as file:
        file.write(text.encode())
    return path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that replaces the one at `path` in one step, when the `with` block ends.

    What is written goes to a temporary file beside it. After an error, or an interruption, the old file is as it was:
    nobody ever reads half a file. What a killed process left in the folder is removed by the next process that writes
    there.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "scores.json") as file:
    ...         _ = file.write(b"{}")
    ...     os.listdir(folder)
    ['scores.json']
    """
    path = Path(path)
    if path.is_symlink():  # the file that it leads to is replaced, on its own disk
        path = path.resolve()
    _remove_unfinished_once(path.parent.absolute())
    temporary, file = _open_unfinished(path)
    lock = os.dup(file.fileno())  # the lock outlives `file`, which is closed before it is moved: Windows asks for that
    try:
        with file:
            yield file
        if fcntl is None:
            os.close(lock)
            lock = None
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _open_unfinished(path: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file, locked as long as it is open: `remove_unfinished` then knows that it is in use."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
        file = open(temporary, "xb")
        try:
            _lock(file)
        except BlockingIOError:  # another process is just removing it
            pass
        except OSError:  # no locks here
            return temporary, file
        else:
            if temporary.exists():
                return temporary, file
        file.close()


def _lock(file: BinaryIO) -> None:
    """Lock a file until it is closed, or its process ends.

    Raises:
        BlockingIOError: it is locked already.
        OSError: locks do not exist here.
    """
    if fcntl is None:
        raise OSError("no locks")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_unfinished(folder: str | Path) -> None:
    """Remove the temporary files that killed processes left in a folder (see `replacing`), none that is in use.

    Where the file system has no locks, a file counts as left behind when nothing was written to it for a day.
    """
    for path in Path(folder).glob(".*.partial"):
        if not re.fullmatch(r"\..+\.[0-9a-f]{12}\.partial", path.name):
            continue
        with contextlib.suppress(OSError), open(path, "r+b") as file:  # errors: it is gone, or somebody else's
            try:
                _lock(file)
            except BlockingIOError:
                continue
            except OSError:
                if time.time() - path.stat().st_mtime < 24 * 3600:
                    continue
                file.close()
            path.unlink()


_remove_unfinished_once = functools.cache(remove_unfinished)  # once in a process: a folder may hold thousands of files


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Make a folder, and turn every `OSError` of the `with` block into one that says what the user can do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OSError(
            f"Nothing can be saved in {folder} ({error.strerror or error}): free some space if its disk is full, "
            "or set `output` to another folder, one that you can write to."
        ) from error


def free_name(path: Path, ending: str) -> Path:
    """A name beside a file, under which it can be kept: with an ending and the first number that is free.

    >>> free_name(Path("nowhere/net.pt"), "kept").name
    'net.pt.kept1'
    """
    return next(name for n in itertools.count(1) if not (name := path.with_name(f"{path.name}.{ending}{n}")).exists())


def summarize_error(error: Exception) -> str:
    """The type of an error and the first sentence of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0].rstrip(": ")
