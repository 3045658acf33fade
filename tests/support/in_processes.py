"""What tests/course_utils/test_distributed.py trains in one process, and starts with `torchrun` in two.

    torchrun --standalone --nproc-per-node 2 tests/support/in_processes.py TASK FOLDER

Every process saves its result as FOLDER/<its rank>.pt.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from course_utils.data import CourseData, Sample
from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.distributed import leave_process_group
from course_utils.losses import binary_cross_entropy, hard_dice_score
from course_utils.profiles import get_profile
from course_utils.targets import binary_target
from course_utils.training import FitOptions, fit
from course_utils.unet import UNet
from workshop import train

TINY = replace(
    get_profile("smoke"), base_channels=2, depth=2, crop_size=16, batch_size=4, crops_per_epoch=6, binary_epochs=2,
    boundary_epochs=2, denoising_epochs=2,
)  # fmt: skip
EPOCHS = 3


def small_data(source: str = "embedded", seed: int = 0) -> CourseData:
    """Nine noisy images with two nuclei each."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(9):
        mask = np.zeros((32, 40), np.int32)
        mask[4:14, 4:14], mask[14:28, 20:34] = 1, 5
        image = np.clip(rng.normal(20 + 100 * (mask > 0), 5), 0, 255).astype(np.uint8)
        samples.append(Sample(f"image{index}", image, mask))
    return CourseData(train=samples, test=samples[:2], source=source, note="Made for a test.")


def fit_small(checkpoint: Path | None = None, batch_norm: bool = False, die_after_epoch: int | None = None) -> dict:
    """Three epochs with everything that is random. Batches of 3, 3 and 1: unequal shares, and one without an image."""
    torch.manual_seed(7 + int(os.environ.get("RANK", "0")))  # the seed of the first process counts
    images = [sample.image / 255 for sample in small_data().train]
    masks = [sample.mask for sample in small_data().train]
    dataset = NucleiDataset(images, masks, binary_target, 16, augment=True)
    loader = training_loader(dataset, batch_size=3, crops_per_epoch=7)
    model = UNet(1, 1, base_channels=4, depth=2, batch_norm=batch_norm)

    def on_epoch(results):
        if len(results) == die_after_epoch:
            os._exit(1)  # as if the machine of this process had failed

    results = fit(
        model, loader, validation_loader(images[:3], masks[:3], binary_target, 4), binary_cross_entropy, epochs=EPOCHS,
        learning_rate=1e-2, metric=hard_dice_score,
        options=FitOptions(precision=torch.float32, checkpoint=checkpoint, on_epoch=on_epoch),
    )  # fmt: skip
    without_time = [{name: value for name, value in asdict(one).items() if name != "seconds"} for one in results]
    return {"results": without_time, "weights": model.state_dict(), "random": torch.get_rng_state()}


def run_command(folder: Path, *arguments: str) -> int:
    """The command that a person starts, with a tiny network and few images."""
    train.get_profile = lambda name: replace(TINY, name=name)
    train.load_data = lambda source: small_data()
    return train.main(["--output", str(folder), "--profile", "smoke", *arguments])


def main(task: str, folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    if task == "train":
        found = {"plain": fit_small(), "normalised": fit_small(batch_norm=True)}
        found["exit code"] = run_command(folder / "output")
        torch.save(found, folder / f"{rank}.pt")
    elif task == "die":
        fit_small(folder / "net.resume", die_after_epoch=2)
    elif task == "resume":
        torch.save(fit_small(folder / "net.resume"), folder / f"{rank}.pt")
        leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
