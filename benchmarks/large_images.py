"""Prediction of an image that does not fit into memory in one piece."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.measuring import course_network, forget_peak_memory, in_child, peak_memory_mb
from course_utils.data import CourseData, Sample
from course_utils.device import choose_device, fast_layout
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.metrics import f1_score
from course_utils.own_images import segment_image
from course_utils.segmentation import predict, predict_tiled
from course_utils.unet import UNet


def network() -> UNet:
    """A network as notebook 05 trains it in the profile `laptop`, with random weights."""
    torch.manual_seed(0)
    return fast_layout(UNet(1, 3, base_channels=16, instance_norm=True).to(choose_device())).eval()


def predict_large(side: int, tiled: bool, threads: int) -> dict:
    """Predict one random image of side x side pixels; call it in its own process."""
    torch.set_num_threads(threads)
    model = network()
    image = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    forget_peak_memory()
    before = peak_memory_mb()
    start = time.perf_counter()
    result = (predict_tiled if tiled else predict)(model, image)
    return {
        "image": f"{side} x {side}",
        "way": "tiles" if tiled else "one piece",
        "seconds": time.perf_counter() - start,
        "peak of the process, MB": peak_memory_mb(),
        "before the prediction, MB": before,
        "result, MB": result.nbytes / 1e6,
    }


def mosaic(samples: list[Sample], places: int = 6, side: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Images side by side with their truth, and a quarter without a nucleus: background with faint noise."""
    square = [sample for sample in samples if sample.image.shape == (side, side)]
    image = np.random.default_rng(0).normal(10, 2, (places * side, places * side))
    truth = np.zeros(image.shape, np.int64)
    for number, (row, column) in enumerate(np.ndindex(places, places)):
        if max(row, column) < places // 2:
            continue
        sample = square[number % len(square)]
        place = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
        image[place] = 10 + 200 * normalize_percentiles(sample.image).clip(0, 1.2)
        truth[place] = np.where(sample.mask > 0, sample.mask + 1000 * number, 0)
    return np.rint(image).clip(0, 255).astype(np.uint8), truth


def tiles_and_one_piece(data: CourseData, places: int) -> list[dict]:
    """What is found in an image of validation images side by side, in one piece and in tiles of 512 pixels."""
    val = split_train_val(data.train, 8)[1]
    (image, truth), model, rows = mosaic(val, places), course_network(), []
    whole = segment_image(model, image, compare_views=False, tile=len(image)).labels
    tiles = segment_image(model, image, compare_views=False, tile=512).labels
    empty = slice(0, len(image) // 2 - 16)
    for way, found in {"one piece": whole, "tiles of 512": tiles}.items():
        rows.append({
            "way": way, "image": f"{len(image)} x {len(image)}, a quarter of it empty",
            "pooled F1 at IoU 0.5": f1_score(found, truth), "at 0.9": f1_score(found, truth, 0.9),
            "in the empty quarter": len(np.unique(found[empty, empty])) - 1,
            "F1 with one piece, IoU 0.5": f1_score(found, whole),
        })  # fmt: skip
    return rows


def measure(data: CourseData, quick: bool) -> dict:
    """Time and memory with and without tiles, and whether both find the same."""
    sizes = [(1024, False), (1024, True)] if quick else [(2048, False), (2048, True), (4096, True), (8192, True)]
    return {
        "title": "Prediction of large images, UNet(1, 3, 16)",
        "rows": [in_child(predict_large, side, tiled, torch.get_num_threads()) for side, tiled in sizes],
        "agreement": tiles_and_one_piece(data, 4 if quick else 6),
    }
