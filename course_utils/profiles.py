"""Sizes and numbers of epochs, set in one place for each way to run the course."""

from __future__ import annotations

import os
from dataclasses import dataclass

from course_utils import did_you_mean


@dataclass(frozen=True)
class Profile:
    """Sizes of one way to run the course. The notebooks run the same code in every profile."""

    name: str
    base_channels: int  # feature maps of the U-Net's first level
    crop_size: int  # side of the training crops in pixels
    batch_size: int
    crops_per_epoch: int
    binary_epochs: int  # notebooks 03 and 04
    boundary_epochs: int  # notebook 05
    denoising_epochs: int  # notebook 07
    learning_rate: float
    loss_epochs: int = 2  # notebook 06, for each loss
    workers: int = 0  # loader processes; crops are cheap, so only a GPU needs any
    validation_every: int = 8  # every 8th training image is set aside
    depth: int = 4
    compiled: bool = False  # train through torch.compile: faster, but needs a C++ compiler and a minute to start
    pretrained: bool = True  # start notebooks 04, 05, 07 and 08 from the pretrained networks


_PROFILES = {
    profile.name: profile
    for profile in (
        # continuous integration, and a first look: minutes for the whole course on two cores
        Profile("smoke", base_channels=8, crop_size=128, batch_size=4, crops_per_epoch=320,
                binary_epochs=4, boundary_epochs=12, denoising_epochs=12, learning_rate=5e-3),
        # a computer without a GPU: the whole course on the real data in under an hour
        Profile("laptop", base_channels=16, crop_size=128, batch_size=8, crops_per_epoch=3200,
                binary_epochs=5, boundary_epochs=40, loss_epochs=4, denoising_epochs=20, learning_rate=4e-3),
        # a GPU: the network of the paper
        Profile("full", base_channels=64, crop_size=256, batch_size=16, crops_per_epoch=2000,
                binary_epochs=10, boundary_epochs=75, loss_epochs=10, denoising_epochs=20, learning_rate=2e-3,
                workers=8, pretrained=False),
    )
}  # fmt: skip


def get_profile(name: str = "auto") -> Profile:
    """The profile called `name`: "smoke", "laptop" or "full".

    "auto" takes the one named by the environment variable `COURSE_PROFILE`, else "full" with a CUDA GPU that works,
    else "laptop".

    Raises:
        ValueError: there is no such profile; the message lists the known ones.

    >>> get_profile("smoke").crop_size
    128
    """
    if name == "auto":
        name = os.environ.get("COURSE_PROFILE") or "auto"
    if name == "auto":
        from course_utils.device import choose_device  # loads torch, so only when it is needed

        name = "full" if choose_device().type == "cuda" else "laptop"
    if name not in _PROFILES:
        hint = did_you_mean(name, _PROFILES)
        raise ValueError(f"There is no profile {name!r}.{hint} Known: {', '.join(_PROFILES)}, or auto.")
    return _PROFILES[name]
