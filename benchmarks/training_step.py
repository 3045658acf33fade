"""How fast is a training step of `training.fit`, compared with a plain loop and with the limit?

`UNet(1, 1, 64)` on crops of 256 x 256. *Plain* is how the original exercise did it: one crop at a time, float32, one
mean and deviation, crop, flip and boundary target for each sample in `__getitem__`, loss and score fetched after every
step. *Limit* is the same network, batch size and precision as the course's loop, on one batch of crops that stays
on the device: no loading, no metric, no averaging of weights. The course's figure contains all that `fit` does,
including its start and its end.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import bare_steps, in_turn, one_epoch, settings_here
from course_utils.data import CourseData
from course_utils.dataset import NucleiDataset, training_loader
from course_utils.device import choose_device, choose_precision, fast_layout
from course_utils.exploration import intensity_statistics, random_crop, standardize
from course_utils.losses import binary_cross_entropy, dice_score, hard_dice_score
from course_utils.networks import normalized_arrays
from course_utils.targets import binary_target, boundary_target
from course_utils.training import FitOptions
from course_utils.unet import UNet

CROP = 256


class PlainDataset(Dataset):
    """Everything anew for each sample."""

    def __init__(self, samples, length):
        self.samples, self.length = samples, length
        self.mean, self.deviation = intensity_statistics([sample.image for sample in samples])
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        sample = self.samples[index % len(self.samples)]
        image = standardize(sample.image, self.mean, self.deviation)
        image, mask = random_crop(image, sample.mask, CROP, self.rng)
        if self.rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        target = boundary_target(mask)
        return torch.from_numpy(image.copy())[None], (target > 0).float()[None]


def plain(samples, crops: int):
    """A function that trains on some crops in the plain way."""
    model = UNet(1, 1, 64).to(choose_device())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(PlainDataset(samples, crops), batch_size=1, shuffle=True)
    device = next(model.parameters()).device

    def run():
        for image, target in loader:
            image, target = image.to(device), target.to(device)
            logits = model(image)
            loss = binary_cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item(), dice_score(logits.detach(), target).item()

    return run


def ours(dataset: NucleiDataset, crops: int, batch: int, precision: torch.dtype):
    """A function that trains on some crops with the course's loop."""
    loader = partial(training_loader, dataset, batch, crops, settings_here().workers)
    model = UNet(1, 1, 64).to(choose_device())
    options = {"learning_rate": 1e-4, "metric": hard_dice_score, "options": FitOptions(precision=precision)}
    return one_epoch(model, loader, binary_cross_entropy, binary_target, **options)


def limit(dataset: NucleiDataset, crops: int, batch: int, precision: torch.dtype):
    """A function that takes as many steps on one batch of crops that stays on the device."""
    model = fast_layout(UNet(1, 1, 64).to(choose_device()))
    resident = next(iter(training_loader(dataset, batch, batch)))
    return bare_steps(model, binary_cross_entropy, resident, crops // batch, precision)


def measure(data: CourseData, quick: bool) -> dict:
    """Images per second of the three, in the precision the course chooses here and in float32."""
    samples = [sample for sample in data.train if min(sample.image.shape) >= CROP]
    images, masks = normalized_arrays(samples, CROP)
    dataset = NucleiDataset(images, masks, binary_target, CROP, augment=True)
    device, batch = choose_device(), 8
    # rates are compared, so the plain way, the slowest, takes fewer crops; on a GPU a step is short, so all take more
    steps = 1 if quick else 100 if device.type == "cuda" else 6
    crops = {"plain": batch * max(1, steps // 6), "course": batch * steps, "limit": batch * steps}
    rows = []
    for precision in dict.fromkeys([choose_precision(device), torch.float32]):
        seconds = in_turn(
            {
                "plain": plain(samples, crops["plain"]),
                "course": ours(dataset, crops["course"], batch, precision),
                "limit": limit(dataset, crops["limit"], batch, precision),
            },
            repeats=1 if quick else 3,
        )
        speed = {name: crops[name] / value for name, value in seconds.items()}
        rows.append(
            {
                "precision of the course": str(precision).removeprefix("torch."),
                **{f"{name}, images/s": value for name, value in speed.items()},
                "course / plain": speed["course"] / speed["plain"],
                "course / limit": speed["course"] / speed["limit"],
            }
        )
    return {"title": "Training step of UNet(1, 1, 64), crops of 256 x 256", "batch": batch, "rows": rows}
