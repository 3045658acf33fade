"""How does the course's U-Net compare with what people would take instead?

The same data, crops, batches, precision, loss and training (`training.fit`) for as many minutes; only the network
differs. Scores are those of the validation images, with the threshold 0.5: nothing is tuned for any of them.
"""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import in_child, peak_memory_mb, wait_for_device
from course_utils.data import CourseData
from course_utils.dataset import training_loader, validation_loader
from course_utils.device import choose_device
from course_utils.exploration import split_train_val
from course_utils.losses import foreground_dice_score
from course_utils.metrics import f1_score
from course_utils.profiles import get_profile
from course_utils.recipes import arrays, boundary_dataset, boundary_loss
from course_utils.segmentation import predict, watershed_instances
from course_utils.targets import boundary_target
from course_utils.training import fit
from course_utils.unet import UNet, count_parameters

NETWORKS = ("course, 16 channels", "course, 32 channels", "segmentation_models_pytorch, resnet18", "MONAI BasicUNet")
WARM_UP_STEPS = 6


def make_network(name: str) -> nn.Module:
    """One of `NETWORKS` with random weights: one channel in, three out."""
    if name.startswith("course"):
        return UNet(1, 3, base_channels=int(name.split()[1]), batch_norm=True)
    if name.startswith("MONAI"):
        from monai.networks.nets import BasicUNet

        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3)
    import segmentation_models_pytorch

    return segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, in_channels=1, classes=3)


def train_and_score(name: str, data: CourseData, minutes: float, threads: int) -> dict:
    """One row of the table; to be called in a process of its own, whose memory is measured."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    settings = get_profile("laptop")
    train, val = split_train_val(data.train, settings.validation_every)
    dataset = boundary_dataset(train, settings.crop_size, seed=0)
    model = make_network(name).to(choose_device())
    tiny = validation_loader([np.zeros((64, 64), np.float32)], [np.zeros((64, 64), int)], boundary_target)
    before = peak_memory_mb()

    def train_for(crops: int) -> float:
        loader = training_loader(dataset, settings.batch_size, crops)
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            fit(model, loader, tiny, boundary_loss, epochs=1, learning_rate=settings.learning_rate,
                metric=foreground_dice_score)  # fmt: skip
        wait_for_device()
        return time.perf_counter() - start

    train_for(2 * settings.batch_size)
    estimate = WARM_UP_STEPS * settings.batch_size / train_for(WARM_UP_STEPS * settings.batch_size)
    torch.manual_seed(0)
    model = make_network(name).to(choose_device())
    crops = max(1, round(estimate * minutes * 60 / settings.batch_size)) * settings.batch_size
    seconds = train_for(crops)
    memory = peak_memory_mb() - before
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 1e6
    images, masks = arrays(val)
    found = [watershed_instances(p[1], p[2]) for p in (predict(model, image, multiple=32) for image in images)]
    scores = {
        f"F1 at IoU {t:g}": float(np.mean([f1_score(a, b, t) for a, b in zip(found, masks, strict=True)]))
        for t in (0.5, 0.75, 0.9)
    }
    return {
        "network": name,
        "parameters": count_parameters(model),
        "images/s": crops / seconds,
        "minutes": seconds / 60,
        "crops": crops,
        **scores,
        "memory for training, MB": memory,
    }


def measure(data: CourseData, quick: bool) -> dict:
    """A row for each network."""
    minutes = 0.2 if quick else 6
    rows = []
    for name in NETWORKS[:1] + NETWORKS[2:] if quick else NETWORKS:
        try:
            rows.append(in_child(train_and_score, name, data, minutes, torch.get_num_threads()))
        except ModuleNotFoundError as error:
            print(f'{name}: {error.name} is not installed; pip install -e ".[bench]" brings it.')
    return {"title": f"Networks after {minutes:g} minutes of training, scores on validation images", "rows": rows}
