"""The checks of notebook 05."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage.segmentation import find_boundaries

from course_utils.exercises.feedback import (
    expect_callable,
    expect_dtype,
    expect_error,
    expect_label_image,
    expect_pair,
    expect_shape,
    expect_type,
    fail,
    untouched,
)
from course_utils.metrics import Matches, f1_score, match_instances
from course_utils.segmentation import watershed_instances
from course_utils.targets import boundary_target


def _touching_nuclei() -> np.ndarray:
    """A label image of seven nuclei, four of them touching another, with gaps in the ids."""
    mask = np.zeros((36, 46), dtype=np.int32)
    mask[2:14, 2:14], mask[2:14, 14:26], mask[14:26, 6:20] = 3, 8, 40
    mask[4:16, 31:43], mask[19:31, 28:40] = 12, 5
    mask[26:36, 0:12] = 100  # at the border of the image, below nucleus 40
    mask[33:36, 42:45] = 1
    return mask


# 5.1 boundary_target


def check_boundary_target(boundary_target) -> None:
    expect_callable(boundary_target, "boundary_target")
    mask = _touching_nuclei()
    few = np.where(np.isin(mask, [3, 8]), mask // 3, 0)  # ids 1 and 2, touching
    cases = [
        ("the default mode", mask, ()),
        ("mode='inner'", mask.astype(np.uint16), ("inner",)),
        ("mode='outer'", mask, ("outer",)),
        ("mode='thick'", mask.astype(np.int64), ("thick",)),
        ("two nuclei with the ids 1 and 2", few.astype(np.uint8), ()),
        ("an image without nuclei", np.zeros((5, 7), dtype=np.int32), ()),
        ("an image that is one nucleus", np.full((4, 3), 9, dtype=np.uint16), ()),
    ]
    for name, labels, arguments in cases:
        with untouched(mask=labels):
            found = boundary_target(labels, *arguments)
        _expect_target(found, labels, arguments[0] if arguments else "inner", name)
    _expect_target(boundary_target(mask, mode="outer"), mask, "outer", "mode='outer', given by name")


def _expect_target(found: Any, mask: np.ndarray, mode: str, name: str) -> None:
    what = f"the target ({name})"
    expect_type(what, found, torch.Tensor, "torch.from_numpy turns an array into a tensor.")
    expect_shape(what, found, mask.shape, "No axis for the batch or the channel: one class for each pixel.")
    expect_dtype(what, found, torch.int64, "The cross entropy of torch needs int64 classes.")
    values = found.cpu().numpy()
    extra = sorted(set(np.unique(values).tolist()) - {0, 1, 2})
    if extra:
        fail(f"Range of {what}", f"the value {extra[0]}", "0, 1 and 2", "Classes, not ids: each interior is 1.")
    boundary = find_boundaries(mask, mode=mode)
    expected = np.where(boundary, 2, mask > 0)
    # in mode "outer" scikit-image marks more pixels for int64 ids, and a solution may convert them to int64
    as_int64 = np.where(find_boundaries(mask.astype(np.int64), mode=mode), 2, mask > 0)
    places = np.argwhere(values != expected)
    if not len(places) or np.array_equal(values, as_int64):
        return
    look = f"Compare with find_boundaries in mode {mode!r}."
    exchanged = np.where(expected > 0, 3 - expected, 0)
    of_foreground = np.where(find_boundaries(mask > 0, mode=mode), 2, mask > 0)
    other_modes = [
        other for other in ("inner", "outer", "thick")
        if np.array_equal(values, np.where(find_boundaries(mask, mode=other), 2, mask > 0))
    ]  # fmt: skip
    if np.array_equal(values, exchanged):
        look = "Interior is 1 and boundary 2, not the other way round."
    elif np.array_equal(values, of_foreground):
        look = "Nuclei that touch need a boundary between them: find it in the label image, not in the foreground."
    elif other_modes:
        look = f"That is mode {other_modes[0]!r} instead of mode {mode!r}."
    elif np.array_equal(values, np.where(boundary & (mask > 0), 2, mask > 0)):
        look = "In this mode the boundary includes pixels outside the nuclei."
    names = ["background", "interior", "boundary"]
    y, x = (int(index) for index in places[0])
    fail(f"Value of {what} at ({y}, {x})", f"{values[y, x]} ({names[values[y, x]]})",
         f"{expected[y, x]} ({names[expected[y, x]]})", look)  # fmt: skip


# 5.2 watershed_instances


def check_watershed_instances(watershed_instances) -> None:
    expect_callable(watershed_instances, "watershed_instances")

    def run(name: str, foreground: np.ndarray, boundary: np.ndarray, *arguments: float) -> np.ndarray:
        with untouched(foreground=foreground, boundary=boundary):
            found = watershed_instances(foreground, boundary, *arguments)
        expect_label_image(f"the result for {name}", found, foreground.shape)
        return found

    # a perfect prediction gives the truth
    truth = _touching_nuclei()
    target = boundary_target(truth).numpy()
    for dtype in (np.float32, np.float64):
        found = run("the one-hot target", (target == 1).astype(dtype), (target == 2).astype(dtype))
        look = "Every pixel of the mask connected to a marker belongs to an instance, even in tiny nuclei."
        if not found[target == 2].any():
            look = "The mask is interior and boundary together: without the boundary every nucleus loses its rim."
        _expect_mask("the one-hot target", found, truth > 0, look, "Background is 0, exactly.")
        score = f1_score(found, truth, 0.9)
        if score < 0.99:
            number = len(np.unique(found[found > 0]))
            look = "Each component of the markers is its own seed."
            if number == 7:
                look = "The number is right, but not the borders: look at the height map."
            fail("Value of the F1 at IoU 0.9 for the one-hot target", f"{score:.3f} ({number} instances, 7 nuclei)",
                 "at least 0.99", look)  # fmt: skip

    _expect_mask_rule(run)
    _expect_marker_rule(run)
    _expect_exact_cuts(run)
    _expect_height_rule(run)

    grid = np.zeros((37, 36))
    grid[::2, ::2] = 0.95  # 342 instances: too many ids for a byte
    found = run("many tiny instances", grid, np.zeros_like(grid))
    number = len(np.unique(found[found > 0]))
    if number != 342:
        fail("Number of instances for many tiny nuclei", number, 342, "Each has a seed of one pixel and its own id.")


def _expect_mask(name: str, found: np.ndarray, expected: np.ndarray, lost: str, extra: str) -> None:
    """The instances cover exactly the expected pixels. `lost` and `extra` say where to look."""
    for wanted, look in [(True, lost), (False, extra)]:
        places = np.argwhere((expected == wanted) & ((found != 0) != wanted))
        if len(places):
            y, x = (int(index) for index in places[0])
            fail(f"Value at ({y}, {x}) for {name}", f"{found[y, x]}{' (background)' if wanted else ''}",
                 "the id of an instance" if wanted else "0 (background)", look)  # fmt: skip


def _expect_mask_rule(run: Callable) -> None:
    foreground, boundary = np.zeros((2, 14, 17), dtype=np.float32)
    foreground[2:12, 2:12], boundary[2:12, 2:12] = 0.2, 0.2  # together 0.4
    foreground[3:11, 3:11], boundary[3:11, 3:11] = 0.3, 0.3  # together 0.6
    foreground[4:10, 4:10], boundary[4:10, 4:10] = 0.95, 0.02
    for arguments in [(), (0.2,), (0.8,)]:
        name = f"threshold={arguments[0]}" if arguments else "the default threshold"
        found = run(name, foreground, boundary, *arguments)
        look = "The mask is where foreground and boundary together exceed 0.5, whatever the threshold."
        _expect_mask(f"{name} (foreground + boundary is 0.4 in the outer ring, 0.6 in the inner one)", found,
                     foreground + boundary > 0.5, look, look)  # fmt: skip


def _expect_marker_rule(run: Callable) -> None:
    foreground, boundary = np.zeros((2, 10, 32))
    foreground[2:8, 2:8], boundary[2:8, 2:8] = 0.6, 0.3  # difference 0.3
    foreground[2:8, 12:18], boundary[2:8, 12:18] = 0.8, 0.1  # 0.7
    foreground[2:8, 22:28], boundary[2:8, 22:28] = 0.9, 0.02  # 0.88
    mask = foreground + boundary > 0.5
    for arguments in [(), (0.2,), (0.8,), (0.95,)]:
        threshold = arguments[0] if arguments else 0.5
        name = f"threshold={threshold}" if arguments else "the default threshold, 0.5"
        found = run(name, foreground, boundary, *arguments)
        _expect_mask(f"{name} (foreground - boundary is 0.3, 0.7 and 0.88 in three regions)", found,
                     mask & (foreground - boundary > threshold),
                     "There is a marker where foreground - boundary exceeds the threshold.",
                     "There is a marker where foreground - boundary exceeds the threshold; "
                     "a region without one is background.")  # fmt: skip

    # two nuclei joined by a neck whose difference is 0.6
    foreground, boundary = np.zeros((2, 9, 20), dtype=np.float32)
    foreground[1:8, 2:8], foreground[1:8, 12:18], foreground[3:6, 8:12] = 0.95, 0.95, 0.75
    boundary[3:6, 8:12] = 0.15
    for threshold, expected in [(0.5, 1), (0.7, 2)]:
        found = run(f"threshold={threshold}", foreground, boundary, threshold)
        number = 1 + int(found[4, 4] != found[4, 15])
        if number != expected:
            fail(f"Number of instances at threshold={threshold} (two nuclei, joined by a neck of 0.6)",
                 number, expected, "Use the argument threshold for the markers.")  # fmt: skip
        _expect_mask(
            f"threshold={threshold}, two joined nuclei",
            found,
            foreground + boundary > 0.5,
            "Markers grow until the mask is full, without a gap between them.",
            "Instances end with the mask.",
        )

    # a low threshold: pixels outside the mask are not seeds, and do not join any
    foreground = np.zeros((9, 20))
    foreground[2:7, 2:7], foreground[2:7, 12:17], foreground[4, 7:12], foreground[0, 10:14] = 0.9, 0.9, 0.3, 0.3
    found = run("threshold=0.1", foreground, np.zeros_like(foreground), 0.1)
    _expect_mask("threshold=0.1", found, foreground > 0.5, "Every pixel of the mask connected to a marker counts.",
                 "Markers lie inside the mask.")  # fmt: skip
    if found[4, 4] == found[4, 14]:
        fail("Number of instances at threshold=0.1 (two nuclei, a faint bridge outside the mask between them)", 1, 2,
             "Restrict the markers to the mask before you label them.")  # fmt: skip


def _expect_exact_cuts(run: Callable) -> None:
    """Both thresholds are exclusive: sums and differences exactly at them, without rounding."""
    foreground, boundary = np.zeros((2, 9, 20), dtype=np.float32)
    foreground[1:8, 1:8], boundary[1:8, 1:8] = 0.25, 0.25  # together exactly 0.5
    foreground[3:6, 3:6], boundary[3:6, 3:6] = 0.875, 0.0  # a nucleus inside
    found = run("sums of exactly 0.5", foreground, boundary)
    _expect_mask("a sum of exactly 0.5 around a nucleus", found, foreground == 0.875, "This is clearly a nucleus.",
                 "The mask is foreground + boundary > 0.5, not >=.")  # fmt: skip

    foreground[1:8, 1:8], boundary[1:8, 1:8] = 0.75, 0.25  # a difference of exactly 0.5, a sum of 1
    foreground[2:7, 12:18] = 1.0
    interior = (foreground == 1.0).astype(np.float32)
    for name, arguments, expected in [("the default threshold", (), interior), ("threshold=1.0", (1.0,), interior * 0)]:
        found = run(f"differences exactly at {name}", foreground, boundary, *arguments)
        _expect_mask(f"differences exactly at {name}", found, expected > 0, "This is clearly a nucleus.",
                     "A marker is where foreground - boundary > threshold, not >=.")  # fmt: skip


def _expect_height_rule(run: Callable) -> None:
    """Two markers at the ends of a bar. The boundary has its ridge off the middle, where no other map has one."""
    foreground, boundary = np.zeros((2, 7, 33))
    foreground[1:6, 1:32], boundary[1:6, 1:32] = 0.5, 0.2
    foreground[1:6, 1:4], boundary[1:6, 1:4] = 0.95, 0.02
    foreground[1:6, 29:32], boundary[1:6, 29:32] = 0.95, 0.02
    foreground[1:6, 9], boundary[1:6, 9] = 0.6, 0.4  # the ridge
    foreground[1:6, 23], boundary[1:6, 23] = 0.28, 0.25  # the faintest foreground
    pictures = [(foreground, boundary), (foreground[:, ::-1].copy(), boundary[:, ::-1].copy()),
                (foreground.T.copy(), boundary.T.copy())]  # fmt: skip
    for picture in pictures:
        found = run("two nuclei with a ridge between them", *picture)
        if picture[0].shape != foreground.shape:
            found = found.T
        elif picture is pictures[1]:
            found = found[:, ::-1]
        look = "Markers grow until the mask is full, without a gap between them."
        _expect_mask("two nuclei with a ridge between them", found, foreground > 0, look, "Background is 0.")
        left, right = found[3, 1], found[3, 31]
        if left == right:
            fail("Number of instances for two nuclei with a ridge between them", 1, 2, "Each marker has its own id.")
        sides = found[1:6]
        if (sides[:, 1:9] == left).all() and (sides[:, 10:32] == right).all():
            continue
        border = 1 + float(np.mean(np.count_nonzero(sides == left, axis=1)))
        fail("Value of the border between two nuclei, in pixels from the left", round(border, 1),
             "9 to 10, on the ridge of the boundary probability",
             "The height map is the boundary probability: markers grow uphill from low to high.")  # fmt: skip


# 5.3 find_best_threshold


def _row_of_nuclei(n_pale: int, n_bright: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Foreground, boundary and truth of separate nuclei: pale ones with a seed up to 0.65, bright ones up to 0.93."""
    width = 10 * (n_pale + n_bright) + 1
    foreground, boundary, truth = np.zeros((10, width)), np.zeros((10, width)), np.zeros((10, width), dtype=np.int32)
    for index in range(n_pale + n_bright):
        place = slice(1, 9), slice(10 * index + 1, 10 * index + 9)
        foreground[place], boundary[place] = (0.8, 0.15) if index < n_pale else (0.95, 0.02)
        truth[place] = 3 * index + 1
    return foreground, boundary, truth


def _touching_row() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three nuclei that touch: one seed for all below 0.6, one for each above."""
    foreground, boundary, truth = np.zeros((9, 32)), np.zeros((9, 32)), np.zeros((9, 32), dtype=np.uint16)
    foreground[1:8, 1:31], boundary[1:8, 1:31] = 0.95, 0.02
    foreground[1:8, [10, 11, 20, 21]], boundary[1:8, [10, 11, 20, 21]] = 0.8, 0.2
    truth[1:8, 1:11], truth[1:8, 11:21], truth[1:8, 21:31] = 4, 9, 2
    return foreground, boundary, truth


def _name_score(found: float, images: list, threshold: float, iou_threshold: float) -> str:
    """Which other plausible score a wrong mean F1 is, as a sentence; empty if it is none of them."""

    def matches(marker_threshold: float, cut_off: float) -> list[Matches]:
        return [
            match_instances(watershed_instances(foreground, boundary, marker_threshold), truth, [cut_off])[0]
            for foreground, boundary, truth in images
        ]

    right = matches(threshold, iou_threshold)
    kinds = ("true_positive", "false_positive", "false_negative")
    pooled = Matches(iou_threshold, *(sum(getattr(image, kind) for image in right) for kind in kinds))
    scores = {
        "the F1 of all images pooled; take the mean of each image's F1": pooled.f1,
        "the sum, not the mean, over the images": sum(image.f1 for image in right),
        "the mean average precision, TP / (TP + FP + FN)": np.mean([image.average_precision for image in right]),
    }
    if len(images) > 2:
        scores["the F1 of the first image alone"] = right[0].f1
    other_cut_offs = {
        "the mean F1 with threshold in the place of iou_threshold": (threshold, threshold),
        "the mean F1 with iou_threshold in the place of threshold": (iou_threshold, iou_threshold),
        "the mean F1 with threshold and iou_threshold exchanged": (iou_threshold, threshold),
        "the mean F1 at iou_threshold=0.5; pass iou_threshold on": (threshold, 0.5),
        "the mean F1 at the default threshold 0.5 of the watershed; pass the threshold on": (0.5, iou_threshold),
    }
    scores = {name: np.mean([image.f1 for image in matches(*pair)]) for name, pair in other_cut_offs.items()} | scores
    names = [name for name, score in scores.items() if abs(score - found) < 1e-4]
    return f"This is {names[0]}." if names else ""


def check_find_best_threshold(find_best_threshold) -> None:
    expect_callable(find_best_threshold, "find_best_threshold")
    touching, pale, many = _touching_row(), _row_of_nuclei(1, 0), _row_of_nuclei(1, 4)
    shrunk = [array.copy() for array in _row_of_nuclei(0, 1)]
    shrunk[0][:, 7:] = shrunk[1][:, 7:] = 0  # six of the eight columns are predicted: IoU 0.75

    def expect_result(
        name: str,
        images: list,
        expected: dict[float, float],
        best: float,
        look: str = "",
        sequence=list,
        **arguments: float,
    ) -> None:
        foregrounds, boundaries, truths = (list(arrays) for arrays in zip(*images, strict=True))
        thresholds = sequence(expected)
        with untouched(foregrounds=foregrounds, boundaries=boundaries, truths=truths, thresholds=thresholds):
            try:
                found = find_best_threshold(foregrounds, boundaries, truths, thresholds, **arguments)
            except ValueError as error:
                fail(f"Result for label images ({name})", f"a ValueError: {error}", "a score",
                     "Refuse only the 0/1/2 target. Label images may have any ids and differ in shape.")  # fmt: skip
        expect_pair("the result", found, "(best threshold, {threshold: mean F1})")
        if isinstance(found[0], dict) or not isinstance(found[1], dict):
            kinds = ", ".join(type(part).__name__ for part in found)
            fail("Type of the result", f"({kinds})", "(float, dict)", "The best threshold first, then the dict.")
        chosen, scores = found
        if set(scores) != set(expected):
            fail(f"Keys of the dict ({name})", list(scores), sorted(expected), "One for each threshold, as given.")
        for threshold, score in expected.items():
            if not isinstance(scores[threshold], (float, int)):
                expect_type(f"the mean F1 at threshold {threshold}", scores[threshold], float)
            if not abs(scores[threshold] - score) < 1e-4:
                named = _name_score(float(scores[threshold]), images, threshold, arguments.get("iou_threshold", 0.5))
                fail(f"Value of the mean F1 at threshold {threshold} ({name})", round(float(scores[threshold]), 4),
                     round(score, 4), named or look)  # fmt: skip
        if isinstance(chosen, bool) or not isinstance(chosen, (float, int)):
            expect_type("the best threshold", chosen, float, "Return the threshold itself.")
        if chosen != best:
            if abs(chosen - max(expected.values())) < 1e-4:
                look = "Return the threshold that reaches the largest mean F1, not the F1 itself."
            elif expected.get(chosen) == expected[best]:
                look = "If two thresholds are equally good, the smaller one wins, whatever their order."
            elif expected.get(chosen) == min(expected.values()):
                look = "The largest mean F1 is the best."
            fail(f"Value of the best threshold ({name})", chosen, best, look)

    merged = "Use each threshold for the markers of watershed_instances."
    expect_result("one image, nuclei that touch", [touching], {0.5: 0.0, 0.7: 1.0}, 0.7, merged)
    expect_result("one image, a pale nucleus", [pale], {0.5: 1.0, 0.7: 0.0}, 0.5, merged)
    mean = "Compute the F1 of each image, then the mean over all images, without pooling counts."
    expect_result("three images", [touching, pale, many], {0.5: 2 / 3, 0.7: (1 + 0 + 8 / 9) / 3}, 0.5, mean)
    for order in ([0.5, 0.3, 0.7, 0.4], [0.7, 0.5, 0.4, 0.3], [0.3, 0.4, 0.5, 0.7]):
        scores = {0.3: 2 / 3, 0.4: 2 / 3, 0.5: 2 / 3, 0.7: (1 + 0 + 8 / 9) / 3}
        expect_result(f"thresholds {order}", [touching, pale, many], {key: scores[key] for key in order}, 0.3, mean)
    expect_result("a tuple of thresholds", [touching, many], {0.7: 17 / 18, 0.5: 0.5}, 0.7, mean, sequence=tuple)
    expect_result("a single threshold", [pale], {0.9: 0.0}, 0.9)
    expect_result("nothing found at any threshold", [pale], {0.9: 0.0, 0.7: 0.0, 0.8: 0.0}, 0.7)

    cut_off = "iou_threshold belongs to the F1 and is fixed; the thresholds belong to the watershed."
    expect_result("an IoU of 0.75 at the default iou_threshold", [touching, shrunk], {0.5: 0.5, 0.7: 1.0}, 0.7, cut_off)
    expect_result("an IoU of 0.75 at iou_threshold=0.85", [touching, shrunk], {0.8: 0.5, 0.7: 0.5, 0.5: 0.0}, 0.7,
                  cut_off, iou_threshold=0.85)  # fmt: skip
    expect_result("an IoU of 0.75 at iou_threshold=0.3", [touching, shrunk], {0.5: 0.75, 0.7: 1.0}, 0.7, cut_off,
                  iou_threshold=0.3)  # fmt: skip

    # label images with the ids 1 and 2 are not targets
    apart, close = [list(image) for image in (_row_of_nuclei(0, 2), touching)]
    apart[2] = np.searchsorted([0, 1, 4], apart[2])
    close[2] = np.searchsorted([0, 4, 9], np.where(close[2] == 2, 0, close[2]))
    expect_result("two nuclei with the ids 1 and 2", [apart], {0.5: 1.0}, 0.5)
    expect_result("two nuclei with the ids 1 and 2 that touch", [close, apart], {0.7: 0.9}, 0.7)
    target = boundary_target(touching[2].astype(np.int32)).numpy()
    for position, truths in [("the only truth", [target]), ("the first truth", [target, pale[2]]),
                             ("the second truth", [pale[2], target]),
                             ("a uint8 truth", [target.astype(np.uint8)])]:  # fmt: skip
        images = [touching if truth.shape == target.shape else pale for truth in truths]
        expect_error(
            f"Result when {position} is the 0/1/2 target",
            lambda truths=truths, images=images: find_best_threshold(
                [image[0] for image in images], [image[1] for image in images], truths, [0.5, 0.7]
            ),
            look="Test every truth with looks_like_boundary_target before the search.",
        )
