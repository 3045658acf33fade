"""A small training whose numbers are compared, to the last bit, by tests/course_utils/test_determinism.py.

    python tests/support/same_numbers.py WORKERS THREADS [CHECKPOINT [STOP_AFTER_EPOCH]]

Prints a digest of all weights and results, and the last losses. With `STOP_AFTER_EPOCH` the process ends there at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from in_processes import small_data

from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.losses import binary_cross_entropy, hard_dice_score
from course_utils.targets import binary_target
from course_utils.training import FitOptions, fit
from course_utils.unet import UNet

EPOCHS = 4


def train(workers: int = 0, checkpoint: Path | None = None, stop_after: int | None = None, seed: int = 3) -> dict:
    """Everything that is random: first weights, order, crops, augmentation, jitter; and workers, averages, a metric."""
    torch.manual_seed(seed)
    samples = small_data().train
    images, masks = [sample.image / np.float32(255) for sample in samples], [sample.mask for sample in samples]
    dataset = NucleiDataset(images[:6], masks[:6], binary_target, 16, augment=True, seed=seed)
    model = UNet(1, 1, base_channels=8, depth=2, batch_norm=True)

    def on_epoch(results):
        if len(results) == stop_after:
            os._exit(1)

    results = fit(
        model, training_loader(dataset, 4, 32, workers), validation_loader(images[6:], masks[6:], binary_target, 4),
        binary_cross_entropy, epochs=EPOCHS, learning_rate=1e-2, metric=hard_dice_score,
        options=FitOptions(checkpoint=checkpoint, on_epoch=on_epoch),
    )  # fmt: skip
    numbers = [[one.train_loss, one.train_metric, one.validation_loss, one.validation_metric] for one in results]
    digest = hashlib.sha256(np.array(numbers).tobytes())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return {"digest": digest.hexdigest(), "losses": [one.train_loss for one in results]}


if __name__ == "__main__":
    workers, threads, *resume = sys.argv[1:]
    torch.set_num_threads(int(threads))
    checkpoint, stop_after = (Path(resume[0]) if resume else None), (int(resume[1]) if resume[1:] else None)
    print(json.dumps(train(int(workers), checkpoint, stop_after)))
