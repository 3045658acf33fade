"""How does the course's U-Net compare with common alternatives?

Data, crops, batches, precision, loss and training (`training.fit`) are the same; only the network differs. First the
speeds are measured in turn, in blocks of a few steps; then each network trains on as many crops as it can process in
the same minutes at its speed, so that other work on the machine affects all alike. Scores are those of the validation
images, with the threshold 0.5. All start from random weights. The learning rate is the course's, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.measuring import (
    forget_peak_memory,
    in_child,
    in_turn,
    mean_f1,
    one_epoch,
    peak_memory_mb,
    settings_here,
)
from course_utils.data import CourseData
from course_utils.dataset import NucleiDataset, training_loader
from course_utils.device import choose_device
from course_utils.exploration import split_train_val
from course_utils.losses import foreground_dice_score
from course_utils.metrics import IOU_THRESHOLDS
from course_utils.networks import boundary_dataset, boundary_loss, normalized_arrays
from course_utils.profiles import Profile
from course_utils.segmentation import predict, watershed_instances
from course_utils.targets import boundary_target
from course_utils.unet import UNet, count_parameters

NETWORKS = ("course, 16 channels", "course, 32 channels", "segmentation_models_pytorch, resnet18", "MONAI BasicUNet")
STEPS = 10  # in a block, when speeds are measured


def make_network(name: str) -> nn.Module:
    """One of `NETWORKS` with random weights: one channel in, three out."""
    if name.startswith("course"):
        return UNet(1, 3, base_channels=int(name.split()[1]), batch_norm=True)
    if name.startswith("MONAI"):
        from monai.networks.nets import BasicUNet

        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3)
    import segmentation_models_pytorch

    return segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, in_channels=1, classes=3)


def training(model: nn.Module, dataset: NucleiDataset, crops: int, settings: Profile) -> Callable[[], None]:
    """A function that trains the network on some crops with the course's loop and recipe."""
    loader = partial(training_loader, dataset, settings.batch_size, crops, settings.workers)
    rate, metric = settings.learning_rate, foreground_dice_score
    return one_epoch(model, loader, boundary_loss, boundary_target, learning_rate=rate, metric=metric)


def speeds(names: list[str], data: CourseData, settings: Profile, quick: bool) -> dict[str, float]:
    """Images a second of each network in training, measured in turn."""
    train, _ = split_train_val(data.train, settings.validation_every)
    dataset = boundary_dataset(train, settings.crop_size, seed=0)
    crops = settings.batch_size * (1 if quick else STEPS)
    device = choose_device()
    ways = {name: training(make_network(name).to(device), dataset, crops, settings) for name in names}
    return {name: crops / seconds for name, seconds in in_turn(ways, repeats=1 if quick else 3).items()}


def train_and_score(name: str, data: CourseData, crops: int, settings: Profile, threads: int) -> dict:
    """Train on that many crops; call it in its own process, whose memory is measured."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    train, val = split_train_val(data.train, settings.validation_every)
    dataset = boundary_dataset(train, settings.crop_size, seed=0)
    model = make_network(name).to(choose_device())
    forget_peak_memory()
    before = peak_memory_mb()
    training(model, dataset, crops, settings)()
    memory = peak_memory_mb() - before
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 1e6
    images, masks = normalized_arrays(val)
    found = [watershed_instances(p[1], p[2]) for p in (predict(model, image, multiple=32) for image in images)]
    scores = {f"F1 at IoU {t:g}": f1 for t, f1 in zip(IOU_THRESHOLDS, mean_f1(found, masks), strict=True)}
    return {"parameters": count_parameters(model), "crops": crops, **scores, "memory for training, MB": memory}


def measure(data: CourseData, quick: bool) -> dict:
    """A row for each network.

    Raises:
        ModuleNotFoundError: one of the other packages is missing; `pip install -e ".[bench]"` brings them.
    """
    minutes = 0.05 if quick else 6
    settings = settings_here(quick)
    names = list(NETWORKS[:1] + NETWORKS[2:] if quick else NETWORKS)
    rows = []
    for name, speed in speeds(names, data, settings, quick).items():
        crops = max(1, round(speed * minutes * 60 / settings.batch_size)) * settings.batch_size
        row = in_child(train_and_score, name, data, crops, settings, torch.get_num_threads())
        rows.append({"network": name, "images/s": speed, **row})
    return {
        "title": f"Networks after {minutes:g} minutes of training, scores on validation images",
        "conditions": "random weights at the start, one learning rate for all, threshold 0.5, nothing tuned",
        "rows": rows,
    }
