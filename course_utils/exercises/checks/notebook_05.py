"""The checks of notebook 05."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.measure import label
from skimage.segmentation import find_boundaries, watershed

from course_utils.exercises.feedback import (
    CheckFailed,
    advice_for,
    check_part,
    diagnosis,
    expect_callable,
    expect_dtype,
    expect_error,
    expect_float,
    expect_label_image,
    expect_pair,
    expect_room_for_ids,
    expect_shape,
    expect_type,
    fail,
    untouched,
)
from course_utils.exercises.pictures import Panel, Panels, compared
from course_utils.metrics import Matches, f1_score, iou_matrix, match_instances
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
    for types, numbers in [("uint8", {3: 1, 8: 257, 40: 256, 100: 512}), ("uint16", {3: 1, 8: 65537, 40: 65536}),
                           ("float32", {40: 2**24, 100: 2**24 + 1})]:  # fmt: skip
        labels, largest = mask.copy(), max(numbers.values())
        for id_, number in numbers.items():
            labels[mask == id_] = number
        look = f"Keep the type of the ids: in {types} two of them become one, or one becomes the background."
        _expect_target(boundary_target(labels), labels, "inner", f"ids up to {largest}", look)


@check_part()
def _expect_target(found: Any, mask: np.ndarray, mode: str, name: str, special: str = "") -> None:
    """The target is right. `special` says where to look if only this example fails."""
    what = f"the target ({name})"
    expect_type(what, found, torch.Tensor, "torch.from_numpy turns an array into a tensor.")
    expect_shape(what, found, mask.shape, "No axis for the batch or the channel: one class for each pixel.")
    expect_dtype(what, found, torch.int64, "The cross entropy of torch needs int64 classes.")
    values = found.cpu().numpy()
    boundary = find_boundaries(mask, mode=mode)
    expected = np.where(boundary, 2, mask > 0)
    extra = sorted(set(np.unique(values).tolist()) - {0, 1, 2})
    if extra:
        fail(f"Range of {what}", f"the value {extra[0]}", "0, 1 and 2", "Classes, not ids: each interior is 1.",
             compared(what, values, expected, mask, "values", "labels"))  # fmt: skip
    # in mode "outer" scikit-image marks more pixels for int64 ids, and a solution may convert them to int64
    as_int64 = np.where(find_boundaries(mask.astype(np.int64), mode=mode), 2, mask > 0)
    places = np.argwhere(values != expected)
    if not len(places) or np.array_equal(values, as_int64):
        return
    mistaken_boundaries = {
        "Nuclei that touch need a boundary between them: find it in the label image, not in the foreground.":
            find_boundaries(mask > 0, mode=mode),
        **{f"That is mode {other!r} instead of mode {mode!r}.": find_boundaries(mask, mode=other)
           for other in ("inner", "outer", "thick")},
        "Nuclei that touch need a boundary between them: eroded together they get none.":
            (mask > 0) & ~ndimage.binary_erosion(mask > 0),
        "In this mode the boundary includes pixels outside the nuclei.": boundary & (mask > 0),
        "The interior overwrites the boundary: set the boundary last.": boundary & (mask == 0),
        "These are boundaries between diagonal neighbours, too: find_boundaries(mask, mode=mode) has four.":
            find_boundaries(mask, connectivity=2, mode=mode),
        "The border of the image is not the boundary of a nucleus.":
            find_boundaries(np.pad(mask, 1), mode=mode)[1:-1, 1:-1],
    }  # fmt: skip
    look = advice_for(values, {
        "Interior is 1 and boundary 2, not the other way round.": np.where(expected > 0, 3 - expected, 0),
        **{look: np.where(wrong, 2, mask > 0) for look, wrong in mistaken_boundaries.items()},
    }, special or f"Compare with find_boundaries in mode {mode!r}.")  # fmt: skip
    names = ["background", "interior", "boundary"]
    y, x = (int(index) for index in places[0])
    fail(f"Value of {what} at ({y}, {x})", f"{values[y, x]} ({names[values[y, x]]})",
         f"{expected[y, x]} ({names[expected[y, x]]})", look,
         compared(what, values, expected, mask, "classes", "labels"))  # fmt: skip


# 5.2 watershed_instances


def check_watershed_instances(watershed_instances) -> None:
    expect_callable(watershed_instances, "watershed_instances")

    last: list = []  # what the last result and its picture are made of

    def run(name: str, foreground: np.ndarray, boundary: np.ndarray, *arguments: float) -> np.ndarray:
        last.clear()
        with untouched(foreground=foreground, boundary=boundary):
            found = watershed_instances(foreground, boundary, *arguments)
        expect_label_image(f"the result for {name}", found, foreground.shape)
        last[:] = name, foreground, boundary, found, *(arguments or (0.5,))
        return found

    name_step = cache(partial(_name_step, watershed_instances))
    rules = (_expect_mask_rule, _expect_marker_rule, _expect_exact_cuts, _expect_height_rule)
    for expect in (_expect_truth, *rules, _expect_many):
        with check_part():
            try:
                expect(run)
            except CheckFailed as error:
                named = name_step()
                if named and not error.finding.startswith(("Type", "Shape", "dtype", "Range")):
                    error.args = (f"{error.finding} {named}",)
                error.picture = _instances_picture(*last) if last else None
                raise


def _instances_picture(
    name: str, foreground: np.ndarray, boundary: np.ndarray, found: np.ndarray, threshold: float
) -> Panels | None:
    """Both probabilities, and the instances found and expected: those that overlap most have the same id."""
    found, expected = _in_order(found), _in_order(_variant()(foreground, boundary, threshold))
    iou, names = iou_matrix(found, expected), np.arange(found.max() + 1) + expected.max()
    names[0] = 0
    for own, right in zip(*linear_sum_assignment(iou, maximize=True), strict=True):
        names[own + 1] = right + 1 if iou[own, right] else names[own + 1]
    return compared(f"the result for {name}, with ids matched to those expected", names[found], expected,
                    {"foreground": foreground, "boundary": boundary}, "labels", "probability")  # fmt: skip


def _name_step(watershed_instances: Callable) -> str:
    """Which mistake in one step gives all of the student's results, as a sentence; empty if it is none of these."""
    target = boundary_target(_touching_nuclei()).numpy()
    cases = [((target == 1) * 1.0, (target == 2) * 1.0, 0.5), (*_neck(), 0.5), (*_neck(), 0.7)]
    cases += [(*_rings(), threshold) for threshold in (0.2, 0.5, 0.8)]
    cases += [(*_three_regions(), threshold) for threshold in (0.2, 0.5, 0.8, 0.95)]
    cases += [(foreground, boundary, 0.5) for foreground, boundary in [*_ridge(), _ridge()[0][::-1], _slope()]]
    try:
        found = [_in_order(watershed_instances(f.copy(), b.copy(), threshold)) for f, b, threshold in cases]
        right = [_in_order(_variant()(*case)) for case in cases]
        suspects = {look: [_in_order(variant(*case)) for case in cases] for look, variant in WRONG_STEPS.items()}
        return diagnosis(found, right, suspects)
    except Exception:  # of the student's code, or a result that is not a label image
        return ""


def _in_order(labels: np.ndarray) -> np.ndarray:
    """The same instances, numbered in the order of their first pixels; the background stays 0."""
    ids, first, index = np.unique(labels, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(np.where(ids == 0, -1, first))) + (0 not in ids)
    return number[index].reshape(labels.shape)


def _variant(
    mask_of: Callable = lambda f, b, t: f + b > 0.5,
    seeds_of: Callable = lambda f, b, t: f - b > t,
    height_of: Callable = lambda f, b: b,
    label_of: Callable = label,
) -> Callable:
    """`watershed_instances` with one step exchanged."""

    def instances(foreground: np.ndarray, boundary: np.ndarray, threshold: float) -> np.ndarray:
        mask = mask_of(foreground, boundary, threshold)
        markers = label_of(seeds_of(foreground, boundary, threshold) & mask)
        return watershed(height_of(foreground, boundary), markers=markers, mask=mask)

    return instances


WRONG_STEPS = {
    "Foreground and boundary are exchanged.": lambda f, b, t: _variant()(b, f, t),
    "Without the boundary in the mask every nucleus loses its rim: it is foreground + boundary > 0.5.":
        _variant(lambda f, b, t: f > 0.5),
    "The mask is foreground + boundary > 0.5, whatever the threshold.":
        _variant(lambda f, b, t: f + b > t),
    "The mask is foreground + boundary > 0.5, whatever the threshold; now every nucleus loses its rim.":
        _variant(lambda f, b, t: f > t),
    "The mask is where foreground and boundary together exceed 0.5, not one of them.":
        _variant(lambda f, b, t: np.maximum(f, b) > 0.5),
    "The markers are where foreground alone exceeds the threshold; subtract the boundary.":
        _variant(seeds_of=lambda f, b, t: f > t),
    "A seed is where foreground - boundary exceeds the threshold, not foreground + boundary.":
        _variant(seeds_of=lambda f, b, t: f + b > t),
    "The markers are where the boundary is low; they are where foreground - boundary exceeds the threshold.":
        _variant(seeds_of=lambda f, b, t: 1 - b > t),
    "The markers are where foreground and boundary differ; the foreground must be the larger.":
        _variant(seeds_of=lambda f, b, t: abs(f - b) > t),
    "The markers are where the boundary is larger than the foreground; it is the other way round.":
        _variant(seeds_of=lambda f, b, t: b - f > t),
    "The water leaves the mask: give it to watershed, too.":
        lambda f, b, t: watershed(b, label((f - b > t) & (f + b > 0.5))),
    "With watershed_line=True the pixels between two instances are lost.":
        lambda f, b, t: watershed(b, label((f - b > t) & (f + b > 0.5)), mask=f + b > 0.5, watershed_line=True),
    "The markers do not use the argument threshold.": _variant(seeds_of=lambda f, b, t: f - b > 0.5),
    "The markers have one id together: label gives each component its own.":
        _variant(label_of=lambda seeds: seeds.astype(int)),
    "These are the markers: watershed grows them to the mask.":
        lambda f, b, t: label((f - b > t) & (f + b > 0.5)),
    "These are the connected components of the foreground, not a watershed.": lambda f, b, t: label(f > t),
    "These are the connected components of the mask, not a watershed.": lambda f, b, t: label(f + b > 0.5),
    "These are the connected components of foreground + boundary, not a watershed.": lambda f, b, t: label(f + b > t),
    "The height map is upside down: markers grow uphill on the boundary probability.":
        _variant(height_of=lambda f, b: -b),
    "The height map is the foreground: take the boundary probability.": _variant(height_of=lambda f, b: f),
    "The height map is minus the foreground: take the boundary probability.": _variant(height_of=lambda f, b: -f),
    "The height map is flat: take the boundary probability.": _variant(height_of=lambda f, b: 0 * b),
    "That is the distance to the background: look at the height map, which is the boundary probability.":
        _variant(height_of=lambda f, b: -ndimage.distance_transform_edt(f + b > 0.5)),
}  # fmt: skip


def _expect_truth(run: Callable) -> None:
    """A perfect prediction gives the truth."""
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


def _expect_many(run: Callable) -> None:
    grid = np.zeros((37, 36))
    grid[::2, ::2] = 0.95  # 342 instances: too many ids for a byte
    found = run("many tiny instances", grid, np.zeros_like(grid))
    expect_room_for_ids("Number of instances for many tiny nuclei", found, 342)
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


def _rings() -> tuple[np.ndarray, np.ndarray]:
    foreground, boundary = np.zeros((2, 14, 17), dtype=np.float32)
    foreground[2:12, 2:12], boundary[2:12, 2:12] = 0.2, 0.2  # together 0.4
    foreground[3:11, 3:11], boundary[3:11, 3:11] = 0.3, 0.3  # together 0.6
    foreground[4:10, 4:10], boundary[4:10, 4:10] = 0.95, 0.02
    return foreground, boundary


def _expect_mask_rule(run: Callable) -> None:
    foreground, boundary = _rings()
    for arguments in [(), (0.2,), (0.8,)]:
        name = f"threshold={arguments[0]}" if arguments else "the default threshold"
        found = run(name, foreground, boundary, *arguments)
        look = "The mask is where foreground and boundary together exceed 0.5, whatever the threshold."
        _expect_mask(f"{name} (foreground + boundary is 0.4 in the outer ring, 0.6 in the inner one)", found,
                     foreground + boundary > 0.5, look, look)  # fmt: skip


def _three_regions() -> tuple[np.ndarray, np.ndarray]:
    foreground, boundary = np.zeros((2, 10, 32))
    foreground[2:8, 2:8], boundary[2:8, 2:8] = 0.6, 0.3  # difference 0.3
    foreground[2:8, 12:18], boundary[2:8, 12:18] = 0.8, 0.1  # 0.7
    foreground[2:8, 22:28], boundary[2:8, 22:28] = 0.9, 0.02  # 0.88
    return foreground, boundary


def _neck() -> tuple[np.ndarray, np.ndarray]:
    """Two nuclei joined by a neck whose difference is 0.6."""
    foreground, boundary = np.zeros((2, 9, 20), dtype=np.float32)
    foreground[1:8, 2:8], foreground[1:8, 12:18], foreground[3:6, 8:12] = 0.95, 0.95, 0.75
    boundary[3:6, 8:12] = 0.15
    return foreground, boundary


def _expect_marker_rule(run: Callable) -> None:
    foreground, boundary = _three_regions()
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

    foreground, boundary = _neck()
    for threshold, expected in [(0.5, 1), (0.7, 2)]:
        found = run(f"threshold={threshold}", foreground, boundary, threshold)
        number = 1 + int(found[4, 4] != found[4, 15])
        if number != expected:
            fail(f"Number of instances at threshold={threshold} (two nuclei, joined by a neck of 0.6)",
                 number, expected, "Use the argument threshold for the markers.")  # fmt: skip
        _expect_mask(f"threshold={threshold}, two joined nuclei", found, foreground + boundary > 0.5,
                     "Markers grow until the mask is full, without a gap between them.",
                     "Instances end with the mask.")  # fmt: skip

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


def _ridge() -> list[tuple[np.ndarray, np.ndarray]]:
    """Two markers at the ends of a bar. The boundary has its ridge off the middle, where no other map has one."""
    foreground, boundary = np.zeros((2, 7, 33))
    foreground[1:6, 1:32], boundary[1:6, 1:32] = 0.5, 0.2
    foreground[1:6, 1:4], boundary[1:6, 1:4] = 0.95, 0.02
    foreground[1:6, 29:32], boundary[1:6, 29:32] = 0.95, 0.02
    foreground[1:6, 9], boundary[1:6, 9] = 0.6, 0.4  # the ridge
    foreground[1:6, 23], boundary[1:6, 23] = 0.28, 0.25  # the faintest foreground
    return [(foreground, boundary), (foreground[:, ::-1].copy(), boundary[:, ::-1].copy()),
            (foreground.T.copy(), boundary.T.copy())]  # fmt: skip


def _slope() -> tuple[np.ndarray, np.ndarray]:
    """Two markers above a slope of the boundary, so that a height map that is upside down differs from a flat one."""
    foreground, boundary = np.zeros((2, 5, 30))
    foreground[1:4, 1:29], boundary[1:4, 1:29] = 0.5, np.linspace(0.1, 0.4, 28)
    foreground[1:4, [1, 28]], boundary[1:4, [1, 28]] = 1.0, 0.45
    return foreground, boundary


def _expect_height_rule(run: Callable) -> None:
    foreground = _ridge()[0][0]
    for number, picture in enumerate(_ridge()):
        found = run("two nuclei with a ridge between them", *picture)
        found = (found, found[:, ::-1], found.T)[number]
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


def check_find_best_threshold(find_best_threshold) -> None:
    expect_callable(find_best_threshold, "find_best_threshold")
    results, error = [], None
    cases = _search_cases()
    for case in cases:
        try:
            results.append(_search(find_best_threshold, *case))
        except Exception as problem:  # first what is wrong before it
            error = problem
            break
    cases = cases[: len(results)]
    _expect_mean_scores(cases, [scores for _, scores in results])
    _expect_best(cases, [best for best, _ in results])
    if error is not None:
        raise error
    _expect_targets_refused(find_best_threshold)


def _search_cases() -> list[tuple]:
    """Name, images, expected dict, best threshold, where to look, and the arguments as keywords."""
    touching, pale, many = _touching_row(), _row_of_nuclei(1, 0), _row_of_nuclei(1, 4)
    half, third = _shrunk(4), _shrunk(3)  # of eight columns: an IoU of 0.5 and of 0.375
    nothing = np.zeros((10, 12)), np.full((10, 12), 0.9), np.zeros((10, 12), dtype=np.int32)
    all_three = {0.3: 2 / 3, 0.4: 2 / 3, 0.5: 2 / 3, 0.7: (1 + 0 + 8 / 9) / 3}
    markers = "At each threshold, score the label images of watershed_instances against the truths with f1_score."
    mean = "Compute the F1 of each image, then the mean over all images, without pooling counts."
    cut_off = "iou_threshold belongs to the F1 and is fixed; the thresholds belong to the watershed."
    apart, close = list(_row_of_nuclei(0, 2)), list(touching)  # label images with the ids 1 and 2 are not targets
    apart[2] = np.searchsorted([0, 1, 4], apart[2])
    close[2] = np.searchsorted([0, 4, 9], np.where(close[2] == 2, 0, close[2]))
    return [
        ("one image, nuclei that touch", [touching], {0.5: 0.0, 0.7: 1.0}, 0.7, markers, {}),
        ("one image, a pale nucleus", [pale], {0.5: 1.0, 0.7: 0.0}, 0.5, markers, {}),
        ("three images", [touching, pale, many], {0.5: all_three[0.5], 0.7: all_three[0.7]}, 0.5, mean, {}),
        *(
            (f"thresholds {order}", [touching, pale, many], {key: all_three[key] for key in order}, 0.3, mean, {})
            for order in ([0.5, 0.3, 0.7, 0.4], [0.7, 0.5, 0.4, 0.3], [0.3, 0.4, 0.5, 0.7])
        ),
        ("a tuple of thresholds", [touching, many], {0.7: 17 / 18, 0.5: 0.5}, 0.7, mean, {"thresholds": tuple}),
        ("a single threshold", [pale], {0.97: 0.0}, 0.97, markers, {}),
        ("an image without nuclei", [nothing], {0.5: 1.0, 0.7: 1.0}, 0.5, "Nothing to find and nothing found.", {}),
        ("nothing found at any threshold", [pale], {0.9: 0.0, 0.7: 0.0, 0.8: 0.0}, 0.7, markers, {}),
        ("an IoU of 0.5 at the default iou_threshold", [touching, half], {0.5: 0.5, 0.7: 1.0}, 0.7, cut_off, {}),
        ("an IoU of 0.375 at the default iou_threshold", [touching, third], {0.5: 0.0, 0.7: 0.5}, 0.7, cut_off, {}),
        ("an IoU of 0.5 at iou_threshold=0.85", [touching, half], {0.8: 0.5, 0.7: 0.5, 0.5: 0.0}, 0.7, cut_off,
         {"iou_threshold": 0.85}),
        ("an IoU of 0.5 at iou_threshold=0.3", [touching, half], {0.5: 0.75, 0.7: 1.0}, 0.7, cut_off,
         {"iou_threshold": 0.3}),
        ("two nuclei with the ids 1 and 2", [apart], {0.5: 1.0}, 0.5, markers, {}),
        ("two nuclei with the ids 1 and 2 that touch", [close, apart], {0.7: 0.9}, 0.7, mean, {}),
    ]  # fmt: skip


def _shrunk(columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A nucleus of eight columns, of which some are predicted."""
    foreground, boundary, truth = _row_of_nuclei(0, 1)
    foreground[:, 1 + columns :] = boundary[:, 1 + columns :] = 0
    return foreground, boundary, truth


def _search(
    find_best_threshold: Callable, name: str, images: list, expected: dict, _best: float, _look: str, options: dict
) -> tuple[float, dict[float, float]]:
    """The result for one case: a threshold, and a score for each."""
    foregrounds, boundaries, truths = (list(arrays) for arrays in zip(*images, strict=True))
    options = dict(options)
    thresholds = options.pop("thresholds", list)(expected)
    with untouched(foregrounds=foregrounds, boundaries=boundaries, truths=truths, thresholds=thresholds):
        try:
            found = find_best_threshold(foregrounds, boundaries, truths, thresholds, **options)
        except ValueError as error:
            fail(f"Result for label images ({name})", f"a ValueError: {error}", "a score",
                 "Refuse only the 0/1/2 target. Label images may have any ids and differ in shape.")  # fmt: skip
    expect_pair("the result", found, "(best threshold, {threshold: mean F1})")
    if isinstance(found[0], dict) or not isinstance(found[1], dict):
        kinds = ", ".join(type(part).__name__ for part in found)
        fail("Type of the result", f"({kinds})", "(float, dict)", "The best threshold first, then the dict.")
    best, scores = found
    if set(scores) != set(expected):
        fail(f"Keys of the dict ({name})", list(scores), sorted(expected), "One for each threshold, as given.")
    for threshold, score in scores.items():
        if not isinstance(score, int):  # 1 for 1.0 is right, too
            expect_float(f"the mean F1 at threshold {threshold}", score)
    if isinstance(best, bool) or not isinstance(best, int):
        expect_float("the best threshold", best)
    return best, scores


@check_part()
def _expect_mean_scores(cases: list[tuple], found: list[dict]) -> None:
    places = [(case, threshold) for case in cases for threshold in case[2]]
    values = [float(scores[threshold]) for case, scores in zip(cases, found, strict=True) for threshold in case[2]]
    expected = [case[2][threshold] for case, threshold in places]
    if np.allclose(values, expected, atol=1e-4):
        return
    measure = _Measure()
    arguments = [(measure, case[1], threshold, case[5].get("iou_threshold", 0.5)) for case, threshold in places]
    named = diagnosis(values, expected, WRONG_MEANS, cases=arguments)
    for (case, threshold), value, right in zip(places, values, expected, strict=True):
        if not abs(value - right) < 1e-4:
            name, look = case[0], case[4]
            fail(f"Value of the mean F1 at threshold {threshold} ({name})", round(value, 4), round(right, 4),
                 named or look, partial(_scores_picture, case, threshold, value, right))  # fmt: skip


def _scores_picture(case: tuple, threshold: float, value: float, right: float) -> Panels:
    """The instances of each image at this threshold, with the outlines of the true nuclei."""
    iou_threshold = case[5].get("iou_threshold", 0.5)
    panels, scores = [], []
    for number, (foreground, boundary, truth) in enumerate(case[1], start=1):
        labels = watershed_instances(foreground, boundary, threshold)
        scores.append(f"{f1_score(labels, truth, iou_threshold):.3g}")
        title = f"image {number}, F1 {scores[-1]}: the truth as outlines"
        panels.append(Panel(title, labels, "labels", truth))
    return Panels(tuple(panels), f"The instances of the watershed at threshold {threshold}, true nuclei as outlines. "
                  f"F1 of each image at IoU {iou_threshold}: {', '.join(scores)}. Mean F1: found {value:.4g}, expected "
                  f"{right:.4g}.")  # fmt: skip


class _Measure:
    """Counts of an image for a segmentation, a threshold of the markers and an IoU threshold, each computed once."""

    segmentations: dict[str, Callable] = {
        "foreground": lambda foreground, boundary, threshold: label(foreground > threshold),
        "both": lambda foreground, boundary, threshold: label(foreground + boundary > threshold),
        "difference": lambda foreground, boundary, threshold: label(foreground - boundary > threshold),
        "exchanged": lambda foreground, boundary, threshold: watershed_instances(boundary, foreground, threshold),
    }

    def __init__(self):
        self.known: dict[tuple, Matches] = {}

    def __call__(self, images: list, threshold: float, iou_threshold: float, kind: str = "watershed") -> list[Matches]:
        for image in images:
            key = id(image), kind, threshold, iou_threshold
            if key not in self.known:
                foreground, boundary, truth = image
                labels = self.segmentations.get(kind, watershed_instances)(foreground, boundary, threshold)
                truth = label(truth > 0) if kind == "true components" else truth
                self.known[key] = match_instances(labels, truth, [iou_threshold])[0]
        return [self.known[id(image), kind, threshold, iou_threshold] for image in images]


def _mean_f1(matches: list[Matches]) -> float:
    return float(np.mean([image.f1 for image in matches]))


def _pixel_dice(images: list, threshold: float) -> float:
    masks = [(watershed_instances(*image[:2], threshold) > 0, image[2] > 0) for image in images]
    sums = [(2 * (found & true).sum(), found.sum() + true.sum()) for found, true in masks]
    return float(np.mean([overlap / total if total else 1 for overlap, total in sums]))


def _pooled_f1(matches: list[Matches]) -> float:
    kinds = ("true_positive", "false_positive", "false_negative")
    return Matches(0.5, *(sum(getattr(image, kind) for image in matches) for kind in kinds)).f1


NO_MATCH = Matches(0.5, 0, 1, 1)
# What each mistake makes of the counts m (a `_Measure`), the images x and both thresholds.
WRONG_MEANS = {
    "This is the mean F1 with threshold in the place of iou_threshold.": lambda m, x, t, iou: _mean_f1(m(x, t, t)),
    "This is the mean F1 with iou_threshold in the place of threshold.": lambda m, x, t, iou: _mean_f1(m(x, iou, iou)),
    "This is the mean F1 with threshold and iou_threshold exchanged.": lambda m, x, t, iou: _mean_f1(m(x, iou, t)),
    "This is the mean F1 at iou_threshold=0.5; pass iou_threshold on.": lambda m, x, t, iou: _mean_f1(m(x, t, 0.5)),
    "This is the mean F1 at the default threshold 0.5 of the watershed; pass the threshold on.":
        lambda m, x, t, iou: _mean_f1(m(x, 0.5, iou)),
    "This is the mean F1 with the threshold given to f1_score; it belongs to watershed_instances.":
        lambda m, x, t, iou: _mean_f1(m(x, 0.5, t)),
    "This is the mean F1 of the connected components of the foreground; use watershed_instances.":
        lambda m, x, t, iou: _mean_f1(m(x, t, iou, "foreground")),
    "This is the mean F1 of the connected components of foreground + boundary; use watershed_instances.":
        lambda m, x, t, iou: _mean_f1(m(x, t, iou, "both")),
    "This is the mean F1 of the connected components of foreground - boundary; use watershed_instances.":
        lambda m, x, t, iou: _mean_f1(m(x, t, iou, "difference")),
    "This is the mean F1 with foreground and boundary exchanged.":
        lambda m, x, t, iou: _mean_f1(m(x, t, iou, "exchanged")),
    "This is the mean F1 with the components of truth > 0 as nuclei; the truth has ids.":
        lambda m, x, t, iou: _mean_f1(m(x, t, iou, "true components")),
    "This is the Dice of the pixels, not the F1 of the instances.": lambda m, x, t, iou: _pixel_dice(x, t),
    "This is the mean without the images whose F1 is 0; they count, too.":
        lambda m, x, t, iou: _mean_f1([one for one in m(x, t, iou) if one.f1] or [NO_MATCH]),
    "This is the F1 of all images pooled; take the mean of each image's F1.":
        lambda m, x, t, iou: _pooled_f1(m(x, t, iou)),
    "This is the sum, not the mean, over the images.": lambda m, x, t, iou: sum(image.f1 for image in m(x, t, iou)),
    "This is the mean average precision, TP / (TP + FP + FN).":
        lambda m, x, t, iou: np.mean([image.average_precision for image in m(x, t, iou)]),
    "This is the F1 of the first image alone.": lambda m, x, t, iou: m(x, t, iou)[0].f1,
    "This is the F1 of the last image alone.": lambda m, x, t, iou: m(x, t, iou)[-1].f1,
    "This is the largest F1 of an image, not the mean.": lambda m, x, t, iou: max(image.f1 for image in m(x, t, iou)),
    "This is the smallest F1 of an image, not the mean.": lambda m, x, t, iou: min(image.f1 for image in m(x, t, iou)),
    "This is the median, not the mean.": lambda m, x, t, iou: np.median([image.f1 for image in m(x, t, iou)]),
    "This is the mean F1 in percent.": lambda m, x, t, iou: 100 * _mean_f1(m(x, t, iou)),
}  # fmt: skip


@check_part()
def _expect_best(cases: list[tuple], found: list[float]) -> None:
    expected = [case[3] for case in cases]

    def best(*order: Callable) -> list:
        return [max(case[2], key=lambda threshold: [rule(case[2], threshold) for rule in order]) for case in cases]

    suspects = {
        "Return the threshold that reaches the largest mean F1, not the F1 itself.":
            [max(case[2].values()) for case in cases],
        "Return the threshold itself, not its position.":
            [int(np.argmax(list(case[2].values()))) for case in cases],
        "If two thresholds are equally good, the smaller one wins, whatever their order.":
            best(lambda scores, threshold: scores[threshold]),
        "If two thresholds are equally good, the smaller one wins: this is the larger.":
            best(lambda scores, threshold: scores[threshold], lambda scores, threshold: threshold),
        "The largest mean F1 is the best: this is the smallest.":
            best(lambda scores, threshold: -scores[threshold], lambda scores, threshold: -threshold),
        "The largest mean F1 is the best, not the smallest.": best(lambda scores, threshold: -scores[threshold]),
        "This is the first threshold, whatever its F1.": [next(iter(case[2])) for case in cases],
        "This is the last threshold, whatever its F1.": [list(case[2])[-1] for case in cases],
    }  # fmt: skip
    named = diagnosis(found, expected, suspects)
    for (name, _, scores, right, *_), chosen in zip(cases, found, strict=True):
        if chosen != right:
            look = "If two thresholds are equally good, the smaller one wins."
            if scores.get(chosen) != scores[right]:
                look = "The threshold with the largest mean F1 is the best."
            fail(f"Value of the best threshold ({name})", chosen, right, named or look)


@check_part()
def _expect_targets_refused(find_best_threshold: Callable) -> None:
    touching, pale = _touching_row(), _row_of_nuclei(1, 0)
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
