"""The checks of notebook 05 accept every right solution, and name the mistake of every wrong one."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import torch
from runner import CheckTests
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import find_boundaries, watershed

from course_utils.metrics import f1_score, match_instances
from course_utils.segmentation import find_best_threshold, watershed_instances
from course_utils.targets import boundary_target, looks_like_boundary_target

# 5.1 boundary_target


def by_numpy_where(mask, mode="inner", connectivity=1):
    boundary = find_boundaries(mask, connectivity=connectivity, mode=mode)
    return torch.tensor(np.where(boundary, 2, np.where(mask != 0, 1, 0)), dtype=torch.long)


def by_torch(mask, mode="inner"):
    boundary = torch.from_numpy(find_boundaries(mask.astype(np.int64), mode=mode))
    target = torch.zeros(*mask.shape, dtype=torch.int64)
    target += torch.from_numpy(mask.astype(np.int32)).gt(0)
    return target.masked_fill_(boundary, 2)


def pixel_by_pixel(mask, mode="inner"):
    boundary = find_boundaries(mask, mode=mode)
    rows = [[2 if boundary[y, x] else int(mask[y, x] > 0) for x in range(mask.shape[1])] for y in range(mask.shape[0])]
    return torch.LongTensor(rows)


def by_own_erosion(mask, mode="inner"):
    """Mode "inner" without scikit-image; the border of the image is no boundary."""
    if mode != "inner":
        return by_numpy_where(mask, mode)
    interior = np.zeros(mask.shape, dtype=bool)
    for id_ in np.unique(mask[mask > 0]):
        interior |= ndimage.binary_erosion(mask == id_, border_value=1)
    return torch.as_tensor(np.select([interior, mask != 0], [1, 2], 0))


def by_shifts(mask, mode="inner"):
    if mode != "inner":
        return by_numpy_where(mask, mode)
    padded = np.pad(mask, 1, mode="edge")
    neighbours = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    boundary = np.any([neighbour != mask for neighbour in neighbours], axis=0) & (mask > 0)
    return torch.from_numpy((mask > 0) + boundary.astype(np.int64))


def target_of(boundary_of, interior_of=lambda mask: mask > 0):
    """A target whose boundary is `boundary_of(mask, mode)`."""

    def solution(mask, mode="inner"):
        target = interior_of(mask).astype(np.int64)
        target[boundary_of(mask, mode)] = 2
        return torch.from_numpy(target)

    return solution


def relabels_its_argument(mask, mode="inner"):
    target = boundary_target(mask, mode)
    mask[mask > 0] = 1
    return target


def boundary_in(mask, mode):
    return find_boundaries(mask, mode=mode)


WRONG_TARGET = {
    "an array": (lambda mask, mode="inner": boundary_target(mask, mode).numpy(), r"^Type of .*found ndarray, .*Tensor"),
    "a channel axis": (lambda mask, mode="inner": boundary_target(mask, mode)[None], r"^Shape of .*No axis"),
    "one channel a class": (lambda mask, mode="inner": torch.nn.functional.one_hot(boundary_target(mask, mode), 3),
                            r"^Shape of"),
    "int32": (lambda mask, mode="inner": boundary_target(mask, mode).int(), r"^dtype of .*int32, expected torch.int64"),
    "floats": (lambda mask, mode="inner": boundary_target(mask, mode).float(), r"^dtype of .*float32"),
    "keeps the ids": (target_of(boundary_in, lambda mask: mask), r"^Range of .*Classes, not ids"),
    "boundary is 1": (lambda mask, mode="inner": torch.tensor([0, 2, 1])[boundary_target(mask, mode)],
                      r"^Value .*other way"),
    "ignores the mode": (lambda mask, mode="inner": boundary_target(mask), r"^Value .*outer.*That is mode 'inner'"),
    "another default": (lambda mask, mode="thick": boundary_target(mask, mode), r"^Value .*default.*mode 'thick'"),
    "eroded together": (lambda mask, mode="inner": torch.from_numpy(
        (mask > 0) * 2 - ndimage.binary_erosion(mask > 0)).long(), r"^Value .*eroded together"),
    "of the foreground": (target_of(lambda mask, mode: boundary_in(mask > 0, mode)), r"^Value .*Nuclei that touch"),
    "inside the nuclei only": (target_of(lambda mask, mode: boundary_in(mask, mode) & (mask > 0)),
                               r"^Value .*outside the nuclei"),
    "interior is all nuclei": (target_of(lambda mask, mode: mask < 0), r"^Value .*expected 2"),
    "boundary without interior": (target_of(boundary_in, lambda mask: mask < 0), r"^Value .*expected 1"),
    "eight neighbours": (target_of(lambda mask, mode: find_boundaries(mask, connectivity=2, mode=mode)),
                        r"^Value of .*diagonal neighbours"),
    "a wider boundary": (target_of(lambda mask, mode: ndimage.binary_dilation(boundary_in(mask, mode)) & (mask > 0)),
                         r"^Value of"),
    "only the id 1": (target_of(boundary_in, lambda mask: mask == 1), r"^Value .*expected 1"),
    "changes its argument": (relabels_its_argument, r"^Mutation: your code changed its argument mask"),
    "ids in a byte": (lambda mask, mode="inner": boundary_target(mask.astype(np.uint8), mode),
                      r"^Value .*ids up to 512.*in uint8"),
    "boundary of ids in a byte": (target_of(lambda mask, mode: boundary_in(mask.astype(np.uint8), mode)),
                                  r"^Value .*ids up to 512"),
    "ids in 16 bits": (lambda mask, mode="inner": boundary_target(mask.astype(np.uint16), mode),
                       r"^Value .*ids up to 65537.*in uint16"),
    "ids in float32": (target_of(lambda mask, mode: boundary_in(mask.astype(np.float32).astype(int), mode)),
                       r"^Value .*ids up to 16777217.*in float32"),
    "interior last": (
        lambda mask, mode="inner": torch.from_numpy(np.where(mask > 0, 1, 2 * find_boundaries(mask, mode=mode))),
        r"^Value .*set the boundary last"),
    "border of the image": (target_of(lambda mask, mode: boundary_in(np.pad(mask, 1), mode)[1:-1, 1:-1]),
                            r"^Value .*border of the image"),
    "sum of both": (
        lambda mask, mode="inner": torch.from_numpy((mask > 0).astype(np.int64) + find_boundaries(mask, mode=mode)),
        r"^Value .*expected 2"),
}  # fmt: skip


# 5.2 watershed_instances


def by_scipy_labels(foreground, boundary, threshold=0.5):
    difference, background = np.subtract(foreground, boundary), 1 - foreground - boundary
    mask = background < 0.5
    markers, _ = ndimage.label(np.logical_and(difference > threshold, mask))
    return watershed(image=boundary, markers=markers * 3, mask=mask, connectivity=1).astype(np.int64)


def eight_neighbours_everywhere(foreground, boundary, threshold=0.5):
    mask = (foreground + boundary) > 0.5
    inside = np.where(mask, foreground - boundary, -1)
    return watershed(np.round(boundary * 255).astype(int), label(inside > threshold), connectivity=2, mask=mask)


def by_torch_masks(foreground, boundary, threshold=0.5):
    f, b = torch.from_numpy(foreground), torch.from_numpy(boundary)
    mask = torch.stack([f, b]).sum(dim=0) > 0.5
    markers = ndimage.label(((f > b + threshold) & mask).numpy())[0].astype(np.uint16)
    return watershed((b * 1000).int().numpy(), markers, mask=mask.numpy())


def by_a_priority_queue(foreground, boundary, threshold=0.5):
    mask = foreground + boundary > 0.5
    labels = label((foreground - boundary > threshold) & mask, connectivity=1)
    heap = [(boundary[y, x], number, y, x) for number, (y, x) in enumerate(np.argwhere(labels).tolist())]
    heapq.heapify(heap)
    number = labels.size
    while heap:
        level, _, y, x = heapq.heappop(heap)
        for j, i in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if 0 <= j < mask.shape[0] and 0 <= i < mask.shape[1] and mask[j, i] and labels[j, i] == 0:
                labels[j, i] = labels[y, x]
                number += 1
                heapq.heappush(heap, (max(level, boundary[j, i]), number, j, i))
    return labels


def pipeline(
    mask_of=lambda f, b, t: f + b > 0.5,
    seeds_of=lambda f, b, t, mask: (f - b > t) & mask,
    height_of=lambda f, b, mask: b,
    label_of=label,
    finish=lambda labels: labels,
    **options,
):
    """`watershed_instances`, with one step exchanged."""

    def solution(foreground, boundary, threshold=0.5):
        mask = mask_of(foreground, boundary, threshold)
        markers = label_of(seeds_of(foreground, boundary, threshold, mask))
        return finish(watershed(height_of(foreground, boundary, mask), markers=markers, mask=mask, **options))

    return solution


def distance(foreground, boundary, mask):
    return -ndimage.distance_transform_edt(mask)


def subtracts_in_place(foreground, boundary, threshold=0.5):
    labels = watershed_instances(foreground, boundary, threshold)
    foreground -= boundary
    return labels


def with_components_left_over(foreground, boundary, threshold=0.5):
    mask = foreground + boundary > 0.5
    labels = watershed_instances(foreground, boundary, threshold)
    rest = label(mask & (labels == 0))
    return np.where(rest > 0, rest + labels.max(), labels)


def without_mask(foreground, boundary, threshold=0.5):
    return watershed(boundary, label(foreground - boundary > threshold))


def only_the_markers(foreground, boundary, threshold=0.5):
    return label((foreground - boundary > threshold) & (foreground + boundary > 0.5))


def without_markers(foreground, boundary, threshold=0.5):
    return watershed(boundary, mask=foreground + boundary > 0.5)


WRONG_WATERSHED = {
    "no rim": (pipeline(lambda f, b, t: f > 0.5), r"^Value at .*one-hot target.*loses its rim"),
    "mask depends on the threshold": (pipeline(lambda f, b, t: f + b > t), r"^Value at .*whatever the threshold"),
    "mask of the larger": (pipeline(lambda f, b, t: np.maximum(f, b) > 0.5), r"^Value at .*together exceed 0.5"),
    "mask too generous": (pipeline(lambda f, b, t: f + b > 0.3), r"^Value at .*expected 0 \(background\)"),
    "mask from 0.5": (pipeline(lambda f, b, t: f + b >= 0.5), r"^Value at .*sum of exactly 0.5.*not >="),
    "markers from the threshold": (pipeline(seeds_of=lambda f, b, t, mask: (f - b >= t) & mask),
                                   r"^Value at .*exactly at the.*not >="),
    "markers from the threshold 1": (pipeline(seeds_of=lambda f, b, t, mask: ((f - b > t) | (f - b == 1)) & mask),
                                     r"^Value .*=1.0.*not >="),
    "no mask": (without_mask, r"^Value at .*one-hot target: found .*expected 0"),
    "markers of the foreground": (pipeline(seeds_of=lambda f, b, t, mask: (f > t) & mask), r"^Value at .*marker"),
    "ignores the threshold": (pipeline(seeds_of=lambda f, b, t, mask: (f - b > 0.5) & mask), r"^Value .*=0.2.*marker"),
    "another default": (lambda f, b, threshold=0.8: watershed_instances(f, b, threshold), r"^Value at .*default"),
    "markers of the sum": (pipeline(seeds_of=lambda f, b, t, mask: (f + b > t) & mask), r"^Value of the F1 .*seed"),
    "one marker for all": (pipeline(label_of=lambda seeds: seeds.astype(int)),
                           r"^Value of the F1 .*1 instances.*label gives each"),
    "number of markers": (pipeline(label_of=lambda seeds: int(label(seeds).max())), r"^Value "),
    "minima as markers": (without_markers, r"^Value "),
    "only the markers": (only_the_markers, r"^Value at .*one-hot target: found 0.*grows them"),
    "markers outside the mask": (pipeline(seeds_of=lambda f, b, t, mask: f - b > t), r"^Number of .*Restrict"),
    "keeps regions without marker": (with_components_left_over, r"^Value at .*a region without one"),
    "flat height map": (pipeline(height_of=lambda f, b, mask: np.zeros_like(b)), r"^Value .*border .*1[56].*height m"),
    "distance as height map": (pipeline(height_of=distance), r"^Value of the F1 .*look at the height map"),
    "foreground as height map": (pipeline(height_of=lambda f, b, mask: -f), r"^Value of the border .*height map"),
    "difference as height map": (pipeline(height_of=lambda f, b, mask: b - f), r"^Value of the border .*height map"),
    "background as height map": (pipeline(height_of=lambda f, b, mask: 1 - f - b),
                                 r"^Value of the border .*height map"),
    # scikit-image before 0.25 floods plateaus in another order, so that an earlier example already goes wrong
    "upside down": (pipeline(height_of=lambda f, b, mask: -b), r"^Value of the (border|F1) .*upside down"),
    "components": (lambda f, b, threshold=0.5: label(f > threshold), r"^Value .*components of the foreground"),
    "components of the mask": (lambda f, b, threshold=0.5: label(f + b > 0.5), r"^Value .*components of the mask"),
    "difference without sign": (pipeline(seeds_of=lambda f, b, t, mask: (abs(f - b) > t) & mask),
                                r"^Value .*the foreground must be the larger"),
    "difference the wrong way": (pipeline(seeds_of=lambda f, b, t, mask: (b - f > t) & mask),
                                 r"^Value .*the other way round"),
    "low boundary": (pipeline(seeds_of=lambda f, b, t, mask: (1 - b > t) & mask), r"^Value .*the boundary is low"),
    "probability of the foreground as height map": (pipeline(height_of=lambda f, b, mask: f),
                                                    r"^Value .*height map is the foreground"),
    "a line between": (pipeline(watershed_line=True), r"^Value at .*: found 0 .*With watershed_line=True"),
    "mask nowhere": (lambda f, b, threshold=0.5: watershed(b, label(f - b > threshold)), r"^Value .*leaves the mask"),
    "background is -1": (pipeline(finish=lambda labels: labels - 1), r"^Range of .*-1"),
    "background is 1": (pipeline(finish=lambda labels: labels + 1), r"^Value at .*found 1, expected 0"),
    "a mask": (pipeline(finish=lambda labels: labels > 0), r"^dtype of .*bool"),
    "floats": (pipeline(finish=lambda labels: labels.astype(np.float32)), r"^dtype of .*float32"),
    "ids in a byte": (pipeline(finish=lambda labels: labels.astype(np.uint8)), r"^Number of instances for many tiny"),
    "no small ones": (pipeline(seeds_of=lambda f, b, t, mask: remove_small_objects((f - b > t) & mask, 4)),
                      r"^Value|^N"),
    "a tensor": (pipeline(finish=torch.from_numpy), r"^Type of .*Tensor"),
    "a pair": (pipeline(finish=lambda labels: (labels, labels.max())), r"^Type of .*tuple.*alone"),
    "an axis more": (pipeline(finish=lambda labels: labels[None]), r"^Shape of"),
    "changes its argument": (subtracts_in_place, r"^Mutation: your code changed its argument foreground"),
    "arguments exchanged": (lambda f, b, threshold=0.5: watershed_instances(b, f, threshold), r"^Value .*exchanged"),
}  # fmt: skip


# 5.3 find_best_threshold


def refuse(truths):
    if any(looks_like_boundary_target(truth) for truth in truths):
        raise ValueError("these are targets")


def by_loops(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5, verbose=False):
    refuse(truths)
    best, best_score, scores = None, -1, {}
    for threshold in sorted(thresholds):
        total = 0
        for index, truth in enumerate(truths):
            found = watershed_instances(foregrounds[index], boundaries[index], threshold)
            total += match_instances(found, truth, [iou_threshold])[0].f1
        scores[threshold] = total / len(truths)
        if scores[threshold] > best_score + 1e-12:
            best, best_score = threshold, scores[threshold]
    return best, scores


def by_a_table(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    """Refuses an image whose id 1 has several regions; counts with NumPy."""
    for truth in truths:
        ids = np.unique(truth[truth > 0]).tolist()
        if ids == [1, 2] and label(truth == 1).max() > 1:
            raise ValueError(f"a class with {label(truth == 1).max()} regions is not a nucleus")
    images = list(zip(foregrounds, boundaries, truths, strict=True))
    order = np.sort(np.array(thresholds))
    table = np.empty((len(order), len(images)))
    for (i, threshold), (j, (foreground, boundary, truth)) in product(enumerate(order), enumerate(images)):
        table[i, j] = f1_score(watershed_instances(foreground, boundary, float(threshold)), truth, iou_threshold)
    means = table.mean(axis=1)
    return [order[means.argmax()], dict(zip(order, means, strict=True))]


def by_pandas(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    refuse(truths)
    rows = [
        {t: f1_score(watershed_instances(*pair, threshold=t), truth, iou_threshold=iou_threshold) for t in thresholds}
        for *pair, truth in zip(foregrounds, boundaries, truths, strict=True)
    ]
    means = pd.DataFrame(rows).mean().sort_index()
    return means.idxmax(), means.to_dict()


def from_above(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    """Generators, image by image, and the largest threshold first."""
    refuse(truth for truth in truths)
    sums = OrderedDict((threshold, 0) for threshold in sorted(thresholds, reverse=True))
    for foreground, boundary, truth in zip(foregrounds, boundaries, truths, strict=True):
        for threshold in sums:
            found = watershed_instances(foreground, boundary, threshold)
            sums[threshold] += Fraction(f1_score(found, truth, iou_threshold))
    best = None
    for threshold in sums:
        if best is None or sums[threshold] >= sums[best]:
            best = threshold
    return best, {threshold: float(total / len(truths)) for threshold, total in sums.items()}


def search(
    score=lambda found, truths, iou_threshold, threshold: float(
        np.mean([f1_score(f, t, iou_threshold) for f, t in zip(found, truths, strict=True)])
    ),
    choose=lambda scores: min(scores, key=lambda threshold: (-scores[threshold], threshold)),
    finish=lambda best, scores: (best, scores),
    check=refuse,
    marker=lambda threshold, iou_threshold: threshold,
):
    """`find_best_threshold`, with one step exchanged."""

    def solution(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
        check(truths)
        scores = {}
        for threshold in thresholds:
            cut = marker(threshold, iou_threshold)
            found = [watershed_instances(f, b, cut) for f, b in zip(foregrounds, boundaries, strict=True)]
            scores[threshold] = score(found, truths, iou_threshold, threshold)
        return finish(choose(scores), scores)

    return solution


def pooled(found, truths, iou_threshold, threshold):
    matches = [match_instances(f, t, [iou_threshold])[0] for f, t in zip(found, truths, strict=True)]
    tp, fp, fn = (
        sum(getattr(m, kind) for m in matches) for kind in ("true_positive", "false_positive", "false_negative")
    )
    return 2 * tp / (2 * tp + fp + fn)


def mean_of(score):
    return lambda found, truths, iou_threshold, threshold: float(
        np.mean([score(f, t, iou_threshold, threshold) for f, t in zip(found, truths, strict=True)])
    )


def refuse_first(truths):
    refuse(truths[:1])


def refuse_two_ids(truths):
    if any(truth.max() <= 2 for truth in truths):
        raise ValueError("not a label image")


def refuse_by_assertion(truths):
    assert not any(looks_like_boundary_target(truth) for truth in truths)


def refuse_int64(truths):
    refuse([truth for truth in truths if truth.dtype == np.int64])


def last_of_the_best(scores):
    return max(scores, key=lambda threshold: (scores[threshold], threshold))


def starts_at_zero(scores):
    best, best_score = None, 0.0
    for threshold in sorted(scores):
        if scores[threshold] > best_score:
            best, best_score = threshold, scores[threshold]
    return best


def sorts_its_argument(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    if isinstance(thresholds, list):
        thresholds.sort()
    return find_best_threshold(foregrounds, boundaries, truths, thresholds, iou_threshold)


def stacks_the_images(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    foregrounds, boundaries, truths = (np.stack(arrays) for arrays in (foregrounds, boundaries, truths))
    return find_best_threshold(list(foregrounds), list(boundaries), list(truths), thresholds, iou_threshold)


def one_image_only(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    refuse(truths)
    return find_best_threshold(foregrounds[:1], boundaries[:1], truths[:1], thresholds, iou_threshold)


def returns_early(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    refuse(truths)
    return find_best_threshold(foregrounds, boundaries, truths, thresholds[:1], iou_threshold)


def components_of(image):
    """The search with connected components in the place of the watershed."""

    def solution(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
        refuse(truths)
        triples = list(zip(foregrounds, boundaries, truths, strict=True))
        scores = {
            t: float(np.mean([f1_score(label(image(f, b) > t), truth, iou_threshold) for f, b, truth in triples]))
            for t in thresholds
        }
        return min(scores, key=lambda t: (-scores[t], t)), scores

    return solution


def aggregated(function):
    return search(lambda found, truths, iou_threshold, threshold: float(
        function([f1_score(f, t, iou_threshold) for f, t in zip(found, truths, strict=True)])
    ))  # fmt: skip


WRONG_SEARCH = {
    "components": (components_of(lambda f, b: f), r"^Value .*connected components of the foreground;"),
    "components of the sum": (components_of(np.add), r"^Value .*connected components of foreground \+ boundary"),
    "components of the difference": (components_of(np.subtract), r"^Value .*components of foreground - boundary"),
    "default threshold of the watershed": (search(marker=lambda threshold, iou_threshold: 0.5),
                                           r"^Value .*default threshold 0.5 of the watershed"),
    "foreground and boundary exchanged": (
        lambda f, b, *rest, **options: find_best_threshold(b, f, *rest, **options), r"^Value .*boundary exchanged"),
    "largest": (aggregated(max), r"^Value .*largest F1 of an image"),
    "last image": (aggregated(lambda scores: scores[-1]), r"^Value .*last image alone"),
    "median": (aggregated(np.median), r"^Value .*the median"),
    "percent": (aggregated(lambda scores: 100 * np.mean(scores)), r"^Value .*in percent"),
    "only images with a match": (aggregated(lambda scores: np.mean([s for s in scores if s] or [0])),
                                 r"^Value .*without the images whose F1 is 0"),
    "first image by chance": (aggregated(lambda scores: scores[0] if len(scores) == 3 else np.mean(scores) + 0.01),
                              r"^Value .*(At each threshold|Compute)"),
    "a higher default": (
        lambda f, b, t, thresholds, iou_threshold=0.55: find_best_threshold(f, b, t, thresholds, iou_threshold),
        r"^Value .*an IoU of 0.5 at the default iou_threshold"),
    "a lower default": (
        lambda f, b, t, thresholds, iou_threshold=0.35: find_best_threshold(f, b, t, thresholds, iou_threshold),
        r"^Value .*an IoU of 0.375 at the default iou_threshold"),
    "NumPy's float32": (search(finish=lambda best, scores: (np.float32(best), scores)), r"^Type .*NumPy's float32"),
    "prints": (search(check=lambda truths: [print("a target") for t in truths if looks_like_boundary_target(t)]),
               r"^Result when the only truth.*printed"),
    "pooled": (search(pooled), r"^Value of the mean F1 .*three images.*all images pooled"),
    "ties to the larger": (search(choose=last_of_the_best), r"^Value of the best threshold .*the smaller one wins"),
    "ties to the first": (search(choose=lambda scores: max(scores, key=scores.get)),
                          r"^Value of the best .*found 0.5, .*smaller"),
    "the worst": (search(choose=lambda scores: min(scores, key=scores.get)), r"^Value of the best .*largest mean F1"),
    "the score itself": (search(choose=lambda scores: max(scores.values())), r"^Value of the best .*not the F1 itself"),
    "the position": (search(choose=lambda scores: list(scores.values()).index(max(scores.values()))),
                     r"^Value of the best .*not its position"),
    "nothing above zero": (search(choose=starts_at_zero), r"^Type of the best threshold: found None"),
    "exchanged": (search(finish=lambda best, scores: (scores, best)), r"^Type of the result.*best threshold first"),
    "the dict alone": (search(finish=lambda best, scores: scores), r"^Type of the result: found dict"),
    "the best alone": (search(finish=lambda best, scores: best), r"^Type of the result: found float"),
    "a list of scores": (search(finish=lambda best, scores: (best, list(scores.values()))),
                         r"^Type of the result.*dict"),
    "keys as text": (search(finish=lambda best, scores: (best, {str(t): score for t, score in scores.items()})),
                     r"^Keys of the dict"),
    "first threshold only": (returns_early, r"^Keys of the dict"),
    "first image only": (one_image_only, r"^Value of the mean F1 .*the first image alone"),
    "lists of scores": (search(finish=lambda best, scores: (best, {t: [score] for t, score in scores.items()})),
                        r"^Type of the mean F1"),
    "tensors": (search(finish=lambda best, scores: (best, {t: torch.tensor(score) for t, score in scores.items()})),
                r"^Type of the mean F1"),
    "ignores iou_threshold": (search(mean_of(lambda f, t, iou, threshold: f1_score(f, t))), r"^Value .*pass iou_thr"),
    "another default": (
        lambda f, b, t, thresholds, iou_threshold=0.8: find_best_threshold(f, b, t, thresholds, iou_threshold),
        r"^Value .*default iou_threshold"),
    "threshold as iou_threshold": (search(mean_of(lambda f, t, iou, threshold: f1_score(f, t, threshold))),
                                   r"^Value .*in the place of iou"),
    "iou_threshold as threshold": (search(marker=lambda threshold, iou_threshold: iou_threshold),
                                   r"^Value .*in the place of thr"),
    "both exchanged": (
        search(mean_of(lambda f, t, iou, threshold: f1_score(f, t, threshold)), marker=lambda t, iou: iou),
        r"^Value of the mean F1"),
    "average precision": (
        search(mean_of(lambda f, t, iou, threshold: match_instances(f, t, [iou])[0].average_precision)),
        r"^Value of .*average precision"),
    "the sum": (
        search(lambda found, truths, iou_threshold, threshold: float(sum(
            f1_score(f, t, iou_threshold) for f, t in zip(found, truths, strict=True)))),
        r"^Value .*the sum, not the mean"),
    "accepts targets": (search(check=lambda truths: None), r"^Result when the only truth.*no error"),
    "looks at the first": (search(check=refuse_first), r"^Result when the second truth.*no error"),
    "refuses the ids 1 and 2": (search(check=refuse_two_ids), r"^Result for label images .*found a ValueError"),
    "looks at int64 only": (search(check=refuse_int64), r"^Result when a uint8 truth.*no error"),
    "assert": (search(check=refuse_by_assertion), r": found AssertionError.*`assert` is not enough"),
    "sorts its argument": (sorts_its_argument, r"^Mutation: your code changed its argument thresholds"),
    "stacks the images": (stacks_the_images, r"^Result for label images .*same shape"),
}  # fmt: skip


RIGHT = {
    "5.1": [by_numpy_where, by_torch, pixel_by_pixel, by_own_erosion, by_shifts],
    "5.2": [by_scipy_labels, eight_neighbours_everywhere, by_a_priority_queue, by_torch_masks],
    "5.3": [by_loops, by_a_table, by_pandas, from_above],
}  # fmt: skip
WRONG = {"5.1": WRONG_TARGET, "5.2": WRONG_WATERSHED, "5.3": WRONG_SEARCH}
EQUIVALENT = {
    "5.2": {"only probabilities of unsigned integers or booleans need floats": ["watershed_instances, assignment"]},
    "5.3": {
        "the F1 score is symmetric": ["find_best_threshold, assignment 2: f1_score() arguments 1 and 2 swapped"],
        "the contract says nothing about lists of different lengths": [
            f"find_best_threshold, assignment 2: {change}" for change in ("zip() without strict", "True -> False")
        ],
        "np.float64 is a Python float": ["find_best_threshold, assignment 3: float() -> argument 1"],
    },
}  # fmt: skip


class TestChecks(CheckTests):
    right, wrong, equivalent = RIGHT, WRONG, EQUIVALENT
    pictured = r"^Value (?!of the best)|^Range of the target|^Number of instances"
