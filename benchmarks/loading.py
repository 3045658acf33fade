"""What do crops and targets cost beside the computing, in the profile for this machine?"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.measuring import bare_steps, in_turn, settings_here
from course_utils.data import CourseData
from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.device import choose_device, choose_precision, fast_layout
from course_utils.losses import foreground_dice_score
from course_utils.profiles import Profile
from course_utils.recipes import arrays, boundary_dataset, boundary_loss
from course_utils.targets import boundary_target
from course_utils.training import fit
from course_utils.unet import UNet


class Watched:
    """A loader that notes how long somebody waited for its batches."""

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
    model = UNet(1, 3, settings.base_channels, batch_norm=True).to(choose_device())
    tiny = validation_loader([np.zeros((16, 16), np.float32)], [np.zeros((16, 16), int)], boundary_target)

    def run() -> None:
        loader = Watched(training_loader(dataset, settings.batch_size, crops, settings.workers))
        with contextlib.redirect_stderr(io.StringIO()):
            fit(model, loader, tiny, boundary_loss, epochs=1, learning_rate=1e-4, metric=foreground_dice_score)
        waits.append(loader.waited)

    return run


def bare(dataset: NucleiDataset, crops: int, settings: Profile, compiled: bool = False) -> Callable[[], None]:
    """A function that takes as many steps on one batch of crops that stays on the device."""
    device = choose_device()
    batch = next(iter(training_loader(dataset, settings.batch_size, crops)))
    resident = tuple(part.to(device) for part in batch)
    model = fast_layout(UNet(1, 3, settings.base_channels, batch_norm=True).to(device))
    if compiled:
        model = torch.compile(model)
    return bare_steps(model, boundary_loss, resident, crops // settings.batch_size, choose_precision(device))


def measure(data: CourseData, quick: bool) -> dict:
    """Seconds for the same number of crops: loading alone, a whole epoch, and the bare steps on one resident batch."""
    settings = settings_here(quick)
    crops = settings.batch_size * (4 if quick else 20)
    images, masks = arrays(data.train, settings.crop_size)
    each_time = NucleiDataset(images, masks, boundary_target, settings.crop_size, augment=True)
    cached = boundary_dataset(data.train, settings.crop_size, seed=0)
    waits: list[float] = []

    def load(dataset: NucleiDataset) -> Callable[[], object]:
        return lambda: [None for _ in training_loader(dataset, settings.batch_size, crops)]

    ways = {
        "load, target for each crop": load(each_time),
        "load, targets made once": load(cached),
        "epoch of fit": epoch(cached, crops, settings, waits),
        "bare steps on one batch": bare(cached, crops, settings),
    }
    if not quick:
        ways["bare steps, torch.compile"] = bare(cached, crops, settings, compiled=True)
    seconds = in_turn(ways, repeats=1 if quick else 5)
    least = seconds["bare steps on one batch"]
    rows = [
        {"what": name, "seconds": value, "share of the bare steps": value / least} for name, value in seconds.items()
    ]
    waited = float(np.median(waits[1:]))
    rows.append(
        {"what": "waiting for batches in that epoch", "seconds": waited, "share of the bare steps": waited / least}
    )
    return {
        "title": f"Loading beside computing, profile {settings.name}, {crops} crops of {settings.crop_size} px",
        "overhead of an epoch, %": 100 * (seconds["epoch of fit"] / least - 1),
        "rows": rows,
    }
