"""How much time do crops and targets take compared with computing, in the profile for this machine?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.measuring import bare_steps, in_turn, one_epoch, settings_here
from course_utils.data import CourseData
from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.device import choose_device, choose_precision, fast_layout, prepare_model
from course_utils.exploration import split_train_val
from course_utils.losses import foreground_dice_score
from course_utils.networks import boundary_dataset, boundary_loss, normalized_arrays
from course_utils.profiles import Profile
from course_utils.targets import boundary_target
from course_utils.training import validate
from course_utils.unet import UNet

MINUTES = "training of notebook 05 at this speed, minutes"


class Watched:
    """A loader that sums up how long its batches were waited for."""

    def __init__(self, loader: DataLoader):
        self.loader, self.waited = loader, 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        start = time.perf_counter()
        for batch in self.loader:
            self.waited += time.perf_counter() - start
            yield batch
            start = time.perf_counter()


def epoch(dataset: NucleiDataset, crops: int, settings: Profile, waits: list[float]) -> Callable[[], None]:
    """A function that trains for one epoch of `fit`, and adds the seconds it waited for batches to `waits`."""
    model = UNet(1, 3, settings.base_channels, instance_norm=True).to(choose_device())
    loaders: list[Watched] = []

    def loader() -> Watched:
        loaders.append(Watched(training_loader(dataset, settings.batch_size, crops, settings.workers)))
        return loaders[-1]

    train = one_epoch(
        model, loader, boundary_loss, boundary_target, learning_rate=1e-4, metric=foreground_dice_score
    )

    def run() -> None:
        train()
        waits.append(loaders[-1].waited)

    return run


def bare(dataset: NucleiDataset, crops: int, settings: Profile, compiled: bool = False) -> Callable[[], None]:
    """A function that takes as many steps on one batch of crops that stays on the device."""
    device = choose_device()
    resident = next(iter(training_loader(dataset, settings.batch_size, crops)))
    model = fast_layout(UNet(1, 3, settings.base_channels, instance_norm=True).to(device))
    if compiled:
        model = torch.compile(model)
    return bare_steps(model, boundary_loss, resident, crops // settings.batch_size, choose_precision(device))


def measure(data: CourseData, quick: bool) -> dict:
    """Seconds for the same number of crops: loading alone, a whole epoch, and the bare steps on one resident batch."""
    settings = settings_here(quick)
    crops = settings.batch_size * (4 if quick else 20)
    images, masks = normalized_arrays(data.train, settings.crop_size)
    plain = NucleiDataset(images, masks, boundary_target, settings.crop_size, augment=True)
    zoomed = boundary_dataset(data.train, settings.crop_size, seed=0)
    waits: list[float] = []
    _, val = split_train_val(data.train, settings.validation_every)
    held_out = validation_loader(*normalized_arrays(val), boundary_target, multiple=2**settings.depth)
    model = prepare_model(UNet(1, 3, settings.base_channels, instance_norm=True))

    def load(dataset: NucleiDataset) -> Callable[[], object]:
        return lambda: [None for _ in training_loader(dataset, settings.batch_size, crops)]

    ways = {
        "load, crops as they are": load(plain),
        "load, half of the crops zoomed": load(zoomed),
        "epoch of fit": epoch(zoomed, crops, settings, waits),
        "bare steps on one batch": bare(zoomed, crops, settings),
        "validation at the end of an epoch": lambda: validate(model, held_out, boundary_loss, foreground_dice_score),
    }
    if not quick:
        ways["bare steps, torch.compile"] = bare(zoomed, crops, settings, compiled=True)
    seconds = in_turn(ways, repeats=1 if quick else 5)
    least = seconds["bare steps on one batch"]
    rows = [
        {"what": name, "seconds": value, "share of the bare steps": value / least} for name, value in seconds.items()
    ]
    waited = float(np.median(waits[1:]))
    rows.append(
        {"what": "waiting for batches in that epoch", "seconds": waited, "share of the bare steps": waited / least}
    )
    whole = seconds["epoch of fit"] * settings.crops_per_epoch / crops + seconds["validation at the end of an epoch"]
    return {
        "title": f"Loading beside computing, profile {settings.name}, {crops} crops of {settings.crop_size} px",
        "overhead of an epoch, %": 100 * (seconds["epoch of fit"] / least - 1),
        "training of notebook 05 at this speed, epochs": settings.boundary_epochs,
        MINUTES: settings.boundary_epochs * whole / 60,
        "rows": rows,
    }
