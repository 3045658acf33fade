"""From probabilities to instances (notebooks 04 and 05).

An argument that is not what its description says, or has NaN or infinite values, is a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed

from course_utils.arguments import check_arguments
from course_utils.metrics import f1_score
from course_utils.targets import looks_like_boundary_target
from course_utils.unet import pad_to_multiple


def predict(model: torch.nn.Module, image: np.ndarray, multiple: int = 16, activation=None) -> np.ndarray:
    """Predict probabilities for a whole image of any size.

    The image is padded to a size that the network accepts, and the result is cut back to the original size.

    Args:
        model: maps `(1, 1, H, W)` to logits `(1, C, H, W)`. It runs on its own device, in evaluation mode, without
            gradients; then its previous mode is restored.
        image: `(H, W)`, normalised like the training images; it is not changed.
        multiple: the sides are padded to a multiple of this; a U-Net of depth d needs `2**d`.
        activation: a function that makes the result of the logits `(C, H, W)`, for networks that predict something
            else than probabilities; not part of the exercise.

    Returns:
        float32 array `(C, H, W)`: the sigmoid of the logits for one channel, their softmax for more, or what
        `activation` makes of them.

    >>> predict(torch.nn.Conv2d(1, 3, 1), np.zeros((5, 7))).shape
    (3, 5, 7)
    """
    check_arguments(model=model, image=image, multiple=multiple)
    device = next(model.parameters()).device
    padded, (height, width) = pad_to_multiple(image.astype(np.float32), multiple)
    was_training = {module: module.training for module in model.modules()}  # some may be frozen, others not
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.from_numpy(padded)[None, None].to(device))[0]
    finally:
        for module, mode in was_training.items():
            module.training = mode
    if activation is None:
        probability = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=0)
    else:
        probability = activation(logits)
    return probability[:, :height, :width].float().cpu().numpy()


def predict_flipped(model: torch.nn.Module, image: np.ndarray, multiple: int = 16) -> np.ndarray:
    """The mean of `predict` over the eight flips and quarter turns of an image ("test-time augmentation").

    Each prediction is turned back first. A flipped nucleus is as likely as the original, but the network's answers
    differ slightly; their mean varies less. It takes eight times as long. Arguments and result as for `predict`.

    >>> predict_flipped(torch.nn.Conv2d(1, 3, 1), np.zeros((5, 7))).shape
    (3, 5, 7)
    """
    check_arguments(image=image)
    total = 0.0
    for turns in range(4):
        for flipped in (False, True):
            view = np.rot90(image, turns)
            view = np.ascontiguousarray(view[:, ::-1] if flipped else view)
            probability = predict(model, view, multiple)
            probability = probability[:, :, ::-1] if flipped else probability
            total = total + np.rot90(probability, -turns, axes=(1, 2))
    return (total / 8).astype(np.float32)


def predict_tiled(
    model: torch.nn.Module, image: np.ndarray, tile: int = 1024, margin: int = 112, multiple: int = 16
) -> np.ndarray:
    """`predict` for images that are too large to be predicted at once: in tiles, with a margin around each.

    An output pixel depends only on the input in its receptive field, which reaches up to 107 pixels to each side in a
    U-Net of depth 4. With a margin of at least 107 the result is that of `predict` up to rounding (about 1e-6 in
    float32); with a smaller one it differs near the seams. This is the "overlap-tile strategy" of the U-Net paper.
    With instance normalisation each tile is normalised on its own, as an image of its size would be: probabilities then
    differ from those of the whole image, a little, also far from the seams.

    Args:
        model, image: as for `predict`.
        tile: side of the square tiles that make up the result, in pixels; a multiple of `multiple`.
        margin: pixels around a tile that are predicted and discarded; a multiple of `multiple`.
        multiple: as for `predict`.

    Returns:
        float32 array `(C, H, W)`. Memory is needed for it, for a padded float32 copy of the image, and for one tile.

    Raises:
        ValueError: `tile` or `margin` is not a multiple of `multiple`.

    >>> image = np.random.default_rng(0).random((70, 50))
    >>> model = torch.nn.Conv2d(1, 1, 3, padding=1)
    >>> bool(np.allclose(predict_tiled(model, image, tile=32, margin=16), predict(model, image), atol=1e-6))
    True
    """
    check_arguments(model=model, image=image, tile=tile, margin=margin, multiple=multiple)
    for name, value, least in (("tile", tile, multiple), ("margin", margin, 0)):
        if value % multiple != 0 or value < least:
            raise ValueError(f"{name} must be a multiple of {multiple} and at least {least}, but is {value}.")
    height, width = image.shape
    padded, _ = pad_to_multiple(image.astype(np.float32), multiple)
    result = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, before = min(margin, top), min(margin, left)
            piece = padded[top - above : top + tile + margin, left - before : left + tile + margin]
            probability = predict(model, piece, multiple)[:, above : above + tile, before : before + tile]
            if result is None:
                result = np.empty((len(probability), height, width), dtype=np.float32)
            target = result[:, top : top + tile, left : left + tile]
            target[:] = probability[:, : target.shape[1], : target.shape[2]]
    return result


def connected_components(probability: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Instances as connected regions above a threshold.

    Args:
        probability: float array `(H, W)`.
        threshold: pixels above it are foreground.

    Returns:
        Integer label image `(H, W)`: 0 is background, 1, 2, ... are the components (diagonal neighbours are connected).

    >>> connected_components(np.array([[0.9, 0.1, 0.8]])).tolist()
    [[1, 0, 2]]
    """
    check_arguments(probability=probability, threshold=threshold)
    return label(probability > threshold)


def watershed_instances(foreground: np.ndarray, boundary: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Instances from interior and boundary probabilities, by a watershed (Beucher and Meyer, 1993).

    The watershed has three inputs. The *mask* holds the pixels that belong to any nucleus: interior or boundary. The
    *markers* are one seed for each nucleus, where interior clearly outweighs boundary. The *height map* is the boundary
    probability: the markers grow uphill and meet on the ridge between touching nuclei.

    Args:
        foreground: float array `(H, W)`, probability of interior.
        boundary: float array `(H, W)`, probability of boundary.
        threshold: a pixel is a seed where `foreground - boundary` is above it.

    Returns:
        Integer label image `(H, W)`. A region of the mask without a seed is left out.

    >>> foreground = np.array([[0, 1, 0, 0, 1, 0]])
    >>> boundary = np.array([[0, 0, 1, 1, 0, 0]])
    >>> watershed_instances(foreground, boundary).tolist()
    [[0, 1, 1, 2, 2, 0]]
    """
    check_arguments(foreground=foreground, boundary=boundary, threshold=threshold)
    foreground, boundary = foreground.astype(float), boundary.astype(float)  # 0 - 1 is 255 in uint8
    mask = foreground + boundary > 0.5
    seeds = (foreground - boundary > threshold) & mask
    return watershed(boundary, markers=label(seeds), mask=mask)


def watershed_without_rim(foreground: np.ndarray, boundary: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """`watershed_instances` with the boundary left out of the mask: every instance loses its outermost pixels.

    >>> foreground = np.array([[0, 1, 0, 0, 1, 0]])
    >>> boundary = np.array([[0, 0, 1, 1, 0, 0]])
    >>> watershed_without_rim(foreground, boundary).tolist()
    [[0, 1, 0, 0, 2, 0]]
    """
    check_arguments(foreground=foreground, boundary=boundary, threshold=threshold)
    foreground, boundary = foreground.astype(float), boundary.astype(float)
    mask = foreground > 0.5
    seeds = (foreground - boundary > threshold) & mask
    return watershed(boundary, markers=label(seeds), mask=mask)


def watershed_flat_height(foreground: np.ndarray, boundary: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """`watershed_instances` with a constant height map: instances meet halfway between their seeds."""
    check_arguments(foreground=foreground, boundary=boundary, threshold=threshold)
    foreground, boundary = foreground.astype(float), boundary.astype(float)
    mask = foreground + boundary > 0.5
    seeds = (foreground - boundary > threshold) & mask
    return watershed(np.zeros_like(boundary), markers=label(seeds), mask=mask)


def find_best_threshold(
    foregrounds: Sequence[np.ndarray],
    boundaries: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    thresholds: Sequence[float],
    iou_threshold: float = 0.5,
) -> tuple[float, dict[float, float]]:
    """The `threshold` of `watershed_instances` with the highest mean F1 over some images.

    Args:
        foregrounds, boundaries: probabilities of each image, as for `watershed_instances`.
        truths: the true label images.
        thresholds: the candidates.
        iou_threshold: IoU from which a pair counts as a match.

    Returns:
        `(best, {threshold: mean F1})`. If several thresholds are equally good, `best` is the smallest.

    Raises:
        ValueError: a truth is the 0/1/2 target of `boundary_target` instead of a label image.

    >>> one_hot = [np.array([[0, 1, 0]])], [np.array([[0, 0, 1]])]
    >>> find_best_threshold(*one_hot, [np.array([[0, 5, 5]])], [0.5, 0.7])
    (0.5, {0.5: 1.0, 0.7: 1.0})
    """
    check_arguments(foregrounds=foregrounds, boundaries=boundaries, truths=truths, least=1)
    check_arguments(thresholds=thresholds, iou_threshold=iou_threshold, least=1)
    for truth in truths:
        if looks_like_boundary_target(truth):
            raise ValueError(
                "A truth holds the classes 0, 1, 2 of boundary_target instead of one id for each nucleus. "
                "Scores need the label images: pass the masks themselves."
            )
    mean_f1 = {}
    for threshold in thresholds:
        scores = [
            f1_score(watershed_instances(foreground, boundary, threshold), truth, iou_threshold)
            for foreground, boundary, truth in zip(foregrounds, boundaries, truths, strict=True)
        ]
        mean_f1[threshold] = float(np.mean(scores))
    best = min(thresholds, key=lambda threshold: (-mean_f1[threshold], threshold))
    return best, mean_f1


def remove_small(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Set instances of fewer than `min_area` pixels to background; other ids stay.

    The smallest nucleus of the DSB2018 training set has 21 pixels: larger limits, such as the default 50 or 64 of some
    libraries, remove real nuclei.

    >>> remove_small(np.array([[1, 1, 0, 2]]), min_area=2)
    array([[1, 1, 0, 0]])
    """
    check_arguments(labels=labels, min_area=min_area)
    ids, index, areas = np.unique(labels, return_inverse=True, return_counts=True)
    return np.where(areas < min_area, 0, ids)[index].reshape(labels.shape)


def remove_uncertain(labels: np.ndarray, probability: np.ndarray, threshold: float = 0.8) -> np.ndarray:
    """Set instances to background in which the mean of `probability` is below `threshold`; other ids stay.

    A mask holds every pixel that is more likely nucleus than not, so a faint speck that the network calls nucleus with
    0.6 becomes an instance like any other. The mean over an instance is its score, as detectors have one for each box.

    Args:
        labels: label image `(H, W)`; it is not changed.
        probability: float array `(H, W)`, of belonging to any nucleus: interior plus boundary.
        threshold: from 0 to 1; the default was chosen on validation images.

    >>> remove_uncertain(np.array([[1, 1, 0, 2]]), np.array([[0.9, 0.8, 0.1, 0.6]]))
    array([[1, 1, 0, 0]])
    """
    check_arguments(labels=labels, probability=probability, threshold=threshold)
    ids, index = np.unique(labels, return_inverse=True)
    index = index.ravel()
    means = np.bincount(index, probability.astype(float).ravel()) / np.bincount(index)
    return np.where(means < threshold, 0, ids)[index].reshape(labels.shape)


def otsu_components(image: np.ndarray, sigma: float = 1.0, min_area: int = 20) -> np.ndarray:
    """Classical baseline 1: smooth, Otsu's threshold (1979), connected components.

    Args:
        image: `(H, W)`, of integers or floats.
        sigma: standard deviation of the Gaussian filter, in pixels.
        min_area: components with fewer pixels are removed.

    Returns:
        Integer label image `(H, W)`; all zeros for a constant image.
    """
    return remove_small(label(_otsu_mask(image, sigma)), min_area)


def otsu_watershed(image: np.ndarray, sigma: float = 1.0, min_area: int = 20, min_distance: int = 5) -> np.ndarray:
    """Classical baseline 2: as `otsu_components`, but split by a watershed on the distance to the background.

    Args:
        image, sigma, min_area: as in `otsu_components`.
        min_distance: seeds are at least this many pixels apart.

    Returns:
        Integer label image `(H, W)`; all zeros for a constant image.
    """
    check_arguments(min_distance=min_distance)
    mask = _otsu_mask(image, sigma)
    depth = gaussian(ndimage.distance_transform_edt(mask), sigma=1)
    peaks = peak_local_max(depth, min_distance=min_distance, labels=label(mask), exclude_border=False)
    markers = np.zeros(mask.shape, dtype=np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return remove_small(watershed(-depth, markers, mask=mask), min_area)


def _otsu_mask(image: np.ndarray, sigma: float) -> np.ndarray:
    check_arguments(image=image, sigma=sigma)
    smooth = gaussian(image.astype(np.float64), sigma=sigma)
    if smooth.max() == smooth.min():
        return np.zeros(image.shape, dtype=bool)
    return smooth > threshold_otsu(smooth)
