"""Results: the scores of several images and methods as tables, and the folder and files that they are written to."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from course_utils.metrics import IOU_THRESHOLDS, Matches, match_instances, touching_recall

if TYPE_CHECKING:  # pandas is imported when a table is made: whoever only writes a file need not wait for it
    import pandas as pd

SCORE_NAMES = {"mean_f1": "mean F1", "pooled_f1": "pooled F1", "touching_recall": "recall of touching nuclei"}


def score_images(
    predictions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Counts and F1 of each image at each threshold.

    Args:
        predictions, truths: label images, in the same order.
        iou_thresholds: as in `match_instances`.
        names: of the images, for the table; their numbers by default.

    Returns:
        A table with a row for each image and threshold and the columns image, iou_threshold, true_positive,
        false_positive, false_negative, f1.

    Raises:
        ValueError: the numbers of images differ; and as in `match_instances`.

    >>> score_images([np.array([[1, 0]])], [np.array([[2, 0]])], [0.5])["f1"].tolist()
    [1.0]
    """
    import pandas as pd

    names = names or [str(index) for index in range(len(truths))]
    rows = [
        {"image": name, **asdict(matches), "f1": matches.f1}
        for name, prediction, truth in zip(names, predictions, truths, strict=True)
        for matches in match_instances(prediction, truth, iou_thresholds)
    ]
    return pd.DataFrame(rows)


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
        counts = group[["true_positive", "false_positive", "false_negative"]].sum()
        summary["mean_f1"][iou_threshold] = float(group["f1"].mean())
        summary["pooled_f1"][iou_threshold] = Matches(iou_threshold, *(int(count) for count in counts)).f1
    return summary


def compare_methods(
    methods: dict[str, Sequence[np.ndarray]],
    truths: Sequence[np.ndarray],
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> dict[str, dict[str, dict[float, float]]]:
    """Score several methods on the same images: mean and pooled F1 at each threshold, recall of touching nuclei.

    Args:
        methods: name of the method -> its label images, one for each truth.
        truths: the true label images.
        iou_thresholds: the recall of touching nuclei is measured at the first of them only.

    Returns:
        `{method: {"mean_f1": {IoU threshold: score}, "pooled_f1": {...}, "touching_recall": {...}}}`; for a table,
        pass it to `score_table`.
    """
    return {
        method: {
            **summarize_scores(score_images(predictions, truths, iou_thresholds)),
            "touching_recall": {float(iou_thresholds[0]): touching_recall(predictions, truths, iou_thresholds[0])},
        }
        for method, predictions in methods.items()
    }


def score_table(scores: dict[str, dict[str, dict[float, float]]]) -> pd.DataFrame:
    """The scores of `compare_methods` as a table to read: a row for each method, a column for each score.

    >>> score_table({"Otsu": {"mean_f1": {0.5: 0.75}}}).columns.tolist()
    [('mean F1', 'IoU 0.5')]
    """
    import pandas as pd

    rows = {
        method: {
            (SCORE_NAMES[measure], f"IoU {iou_threshold}"): score
            for measure, by_threshold in measures.items()
            for iou_threshold, score in by_threshold.items()
        }
        for method, measures in scores.items()
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
    nobody ever reads half a file.

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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


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


def summarize_error(error: Exception) -> str:
    """The type of an error and the first sentence of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0].rstrip(": ")
