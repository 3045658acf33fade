"""What do crops and targets cost beside the computing, in the profile `laptop`?"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from benchmarks.measuring import bare_steps, in_turn
from course_utils.data import CourseData
from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.device import choose_device, choose_precision, fast_layout
from course_utils.losses import foreground_dice_score
from course_utils.profiles import get_profile
from course_utils.recipes import arrays, boundary_dataset, boundary_loss
from course_utils.targets import boundary_target
from course_utils.training import fit
from course_utils.unet import UNet


def measure(data: CourseData, quick: bool) -> dict:
    """Seconds for the same number of crops: loading alone, a whole epoch, and the bare steps on one resident batch."""
    settings = get_profile("smoke" if quick else "laptop")
    crops = settings.batch_size * (4 if quick else 20)
    device, samples = choose_device(), data.train
    precision = choose_precision(device)
    images, masks = arrays(samples, settings.crop_size)
    each_time = NucleiDataset(images, masks, boundary_target, settings.crop_size, augment=True)
    cached = boundary_dataset(samples, settings.crop_size, seed=0)
    model = fast_layout(UNet(1, 3, settings.base_channels, batch_norm=True).to(device))
    tiny = validation_loader([np.zeros((16, 16), np.float32)], [np.zeros((16, 16), int)], boundary_target)
    batch = next(iter(training_loader(cached, settings.batch_size, crops)))
    batch = tuple(part.to(device) for part in batch)

    def load(dataset):
        return lambda: [None for _ in training_loader(dataset, settings.batch_size, crops)]

    def epoch():
        loader = training_loader(cached, settings.batch_size, crops)
        with contextlib.redirect_stderr(io.StringIO()):
            fit(model, loader, tiny, boundary_loss, epochs=1, learning_rate=1e-4, metric=foreground_dice_score,
                precision=precision)  # fmt: skip

    seconds = in_turn(
        {
            "load, target for each crop": load(each_time),
            "load, targets made once": load(cached),
            "epoch of fit": epoch,
            "bare steps on one batch": bare_steps(
                model, boundary_loss, batch, crops // settings.batch_size, precision
            ),
        },
        repeats=1 if quick else 3,
    )
    bare = seconds["bare steps on one batch"]
    return {
        "title": f"Loading beside computing, profile {settings.name}, {crops} crops of {settings.crop_size} px",
        "rows": [
            {"what": name, "seconds": value, "share of the bare steps": value / bare} for name, value in seconds.items()
        ],
    }
