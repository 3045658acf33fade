"""Prediction of an image that does not fit into memory in one piece."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.measuring import forget_peak_memory, in_child, peak_memory_mb
from course_utils.data import CourseData
from course_utils.device import choose_device
from course_utils.segmentation import predict, predict_tiled
from course_utils.unet import UNet


def network() -> UNet:
    """A network as notebook 05 trains it in the profile `laptop`, with random weights."""
    torch.manual_seed(0)
    return UNet(1, 3, base_channels=16, batch_norm=True).to(choose_device()).eval()


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


def largest_difference(shape: tuple[int, int]) -> float:
    """The largest difference between tiles and one piece, over all pixels."""
    model = network()
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    return float(np.abs(predict_tiled(model, image, tile=512) - predict(model, image)).max())


def measure(data: CourseData, quick: bool) -> dict:
    """Time and memory with and without tiles; the two must agree."""
    sizes = [(1024, False), (1024, True)] if quick else [(2048, False), (2048, True), (4096, True), (8192, True)]
    shape = (700, 900) if quick else (1500, 1700)
    return {
        "title": "Prediction of large images, UNet(1, 3, 16)",
        "largest difference between tiles and one piece": largest_difference(shape),
        "compared on": f"{shape[0]} x {shape[1]} pixels, all of them, seams included",
        "rows": [in_child(predict_large, side, tiled, torch.get_num_threads()) for side, tiled in sizes],
    }
