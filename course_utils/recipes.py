"""The networks that notebooks 04 and 05 start from: loaded if an earlier notebook left them, else trained.

Everything is chosen here exactly as the notebooks choose it: the same split, normalisation, crops and losses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from course_utils.data import CourseData, Sample
from course_utils.dataset import NucleiDataset, TargetTransform, training_loader, validation_loader
from course_utils.device import choose_device
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.losses import binary_cross_entropy, foreground_dice_score, hard_dice_score
from course_utils.profiles import Profile
from course_utils.targets import binary_target, boundary_target
from course_utils.training import EpochResult, fit, load_model, save_model
from course_utils.unet import UNet

BOUNDARY_WEIGHT = 3.0  # the boundary class is thin: without a weight the network learns it late
OnEpoch = Callable[[list[EpochResult]], None]


def arrays(samples: list[Sample]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images, each normalised by its own percentiles, and the masks of some samples."""
    return [normalize_percentiles(sample.image) for sample in samples], [sample.mask for sample in samples]


def boundary_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy over background, interior and boundary, with the boundary weighted by `BOUNDARY_WEIGHT`.

    Args:
        logits: float tensor `(N, 3, H, W)`.
        target: int64 tensor `(N, H, W)` of `boundary_target`.
    """
    weight = torch.tensor([1.0, 1.0, BOUNDARY_WEIGHT], device=logits.device)
    return torch.nn.functional.cross_entropy(logits, target, weight=weight)


def model_path(output: str | Path, kind: str) -> Path:
    """Where a notebook keeps its network: `<output>/models/<kind>.pt`."""
    return Path(output) / "models" / f"{kind}.pt"


def about(kind: str, data: CourseData, profile: Profile, seed: int) -> dict:
    """What a saved network was trained on; one with other values is not taken for this one."""
    return {
        "kind": kind,
        "data": data.source,
        "training_images": len(data.train),
        "profile": profile.name,
        "seed": seed,
    }


def load_or_train(path: Path, wanted: dict, train: Callable[[], UNet]) -> UNet:
    """Load the network at `path` if it was trained as `wanted` says, else train and save it there.

    Says in one line which of the two it does. A damaged file is replaced.
    """
    try:
        model, found = load_model(path)
        differences = [f"{key} {found.get(key)!r}" for key in wanted if found.get(key) != wanted[key]]
        if not differences:
            print(f"Loaded {path}.")
            return model.to(choose_device())
        print(f"{path} was trained with {', '.join(differences)}. Training anew.")
    except FileNotFoundError:
        print(f"No trained network at {path} yet. Training one.")
    except ValueError as error:
        print(f"{error} Training anew.")
    model = train()
    save_model(path, model, **wanted)
    return model


def binary_model(
    data: CourseData, profile: Profile, seed: int, output: str | Path, on_epoch: OnEpoch | None = None
) -> UNet:
    """The foreground network of notebook 03: one output channel."""

    def train():
        return _train(data, profile, seed, 1, binary_target, binary_cross_entropy, hard_dice_score,
                      profile.binary_epochs, path, wanted, on_epoch)  # fmt: skip

    path, wanted = model_path(output, "binary"), about("binary", data, profile, seed)
    return load_or_train(path, wanted, train)


def boundary_model(
    data: CourseData, profile: Profile, seed: int, output: str | Path, on_epoch: OnEpoch | None = None
) -> UNet:
    """The three-class network of notebook 05: background, interior, boundary."""

    def train():
        return _train(data, profile, seed, 3, boundary_target, boundary_loss, foreground_dice_score,
                      profile.boundary_epochs, path, wanted, on_epoch)  # fmt: skip

    path, wanted = model_path(output, "boundary"), about("boundary", data, profile, seed)
    return load_or_train(path, wanted, train)


def _train(
    data: CourseData,
    profile: Profile,
    seed: int,
    out_channels: int,
    target_transform: TargetTransform,
    loss_fn: Callable,
    metric: Callable,
    epochs: int,
    path: Path,
    wanted: dict,
    on_epoch: OnEpoch | None,
) -> UNet:
    torch.manual_seed(seed)
    train, val = split_train_val(data.train, profile.validation_every)
    dataset = NucleiDataset(*arrays(train), target_transform, profile.crop_size, augment=True, seed=seed)
    model = UNet(1, out_channels, profile.base_channels, profile.depth, batch_norm=True).to(choose_device())
    fit(
        model,
        training_loader(dataset, profile.batch_size, profile.crops_per_epoch, profile.workers),
        validation_loader(*arrays(val), target_transform),
        loss_fn,
        epochs=epochs,
        learning_rate=profile.learning_rate,
        metric=metric,
        checkpoint=path.with_suffix(".resume"),
        about=wanted,
        on_epoch=on_epoch,
    )
    return model
