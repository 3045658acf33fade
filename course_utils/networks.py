"""The networks of notebooks 04 and 05: your own, else the pretrained one, else one trained now.

Split, normalisation, crops and losses are those of the notebooks, and the training is `training.fit`. Notebook 03
trains with a simpler loop (no averaged weights, no jitter of intensities, a learning rate that changes once an epoch)
and saves its network where `binary_model` looks for it. Only if there is none, `binary_model` trains a similar one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from course_utils.arguments import check_arguments, check_class_logits
from course_utils.checkpoints import load_model, load_pretrained, save_model
from course_utils.data import CourseData, Sample, fingerprint
from course_utils.device import choose_device, fast_layout
from course_utils.distributed import current_process_group
from course_utils.exploration import normalize_percentiles, pad_to_size, split_train_val
from course_utils.losses import binary_cross_entropy, foreground_dice_score, hard_dice_score
from course_utils.profiles import Profile
from course_utils.results import free_name, prepare_output
from course_utils.targets import binary_target, boundary_target
from course_utils.training import FitOptions, LossFunction, Metric, OnEpoch, fit, jitter_intensity
from course_utils.unet import UNet

BOUNDARY_WEIGHT = 3.0  # the boundary class is thin: about 2 % of the pixels


def normalized_arrays(samples: list[Sample], min_size: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images, each normalised by its own percentiles, and the masks of some samples.

    Args:
        samples: of a data source.
        min_size: images and masks with a shorter side are padded by reflection at the bottom and at the right, so that
            crops of this size fit. A nucleus and its mirror image then share an id: right for the targets to train
            with, wrong for scores.
    """
    check_arguments(min_size=min_size)
    images = [pad_to_size(normalize_percentiles(sample.image), min_size) for sample in samples]
    return images, [pad_to_size(sample.mask, min_size) for sample in samples]


def boundary_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy over background, interior and boundary, with the boundary weighted by `BOUNDARY_WEIGHT`.

    Args:
        logits: float tensor `(N, 3, H, W)`.
        target: integer tensor `(N, H, W)` of `boundary_target`.

    Raises:
        ValueError: they are something else.
    """
    check_class_logits(logits, target)
    weight = torch.ones(3, device=logits.device, dtype=logits.dtype)
    weight[2] = BOUNDARY_WEIGHT
    return torch.nn.functional.cross_entropy(logits, target.long(), weight=weight)


def without_boundary_weight(model: UNet) -> UNet:
    """Take the weight of the boundary class out of the probabilities of a network that was trained with it; in place.

    A weighted cross entropy is minimal where the odds of the weighted class are too high by that weight: the network
    sees boundary where there is none, and a mask of interior and boundary is too large all around. Subtracting the
    logarithm of the weight from the logit of the class corrects that (*logit adjustment*, Menon et al. 2021).
    """
    _add_to_boundary_logit(model, -math.log(BOUNDARY_WEIGHT))
    return model


@torch.no_grad()
def _add_to_boundary_logit(model: UNet, value: float) -> None:
    model.output.bias[2] += value


def model_path(output: str | Path, kind: str) -> Path:
    """Where a notebook keeps its network: `<output>/models/<kind>.pt`."""
    return Path(output) / "models" / f"{kind}.pt"


def training_config(kind: str, data: CourseData, profile: Profile, seed: int) -> dict:
    """What a network is trained on: one saved with other values is trained anew."""
    sizes = asdict(profile)
    # they do not change the result of a training, or belong to another one
    del sizes["workers"], sizes["compiled"], sizes["pretrained"], sizes["loss_epochs"]
    for name in ["denoising_epochs"] if kind in ("binary", "boundary") else ["binary_epochs", "boundary_epochs"]:
        del sizes[name]  # of another kind of network
    recipe = {"boundary": "instance normalisation, zoomed crops"}.get(kind, "first")  # networks of another are old
    return {
        "kind": kind,
        "recipe": recipe,
        "data": data.source,
        "images": fingerprint(data),
        "profile": sizes.pop("name"),
        "seed": seed,
        **sizes,
    }


def load_or_train(path: Path, wanted: dict, train: Callable[[], UNet]) -> UNet:
    """Load the network at `path` if it was trained as `wanted` says, else train and save it there.

    Prints in one line which of the two it does. A file that cannot be loaded is kept under another name.

    Raises:
        ValueError: `path` is a folder.
        OSError: nothing can be saved there; raised before the training, not after it.
    """
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, and the network is saved in a file of that name: remove the folder, or choose "
            "another `output`."
        )
    kept = None
    try:
        model, found = load_model(path)
        different = [key for key in wanted if found.get(key) != wanted[key]]
        if not different:
            print(f"Loaded {path}.")
            return fast_layout(model.to(choose_device()))  # as training leaves it: results agree to the last bit
        print(f"{path} was trained with other values of {', '.join(different)}. Training anew.")
    except FileNotFoundError:
        print(f"No trained network at {path} yet. Training one.")
    except ValueError as error:
        kept = free_name(path, "kept")
        print(f"{error} Training anew; the file is kept as {kept.name}.")
    prepare_output(path.parent)
    model = train()
    group = current_process_group()
    if group.is_first:
        if kept:
            path.rename(kept)
        save_model(path, model, **wanted)
    group.barrier()  # so that no other process looks for the file before it is there
    return model


def binary_dataset(samples: list[Sample], crop_size: int, seed: int) -> Dataset:
    """Augmented crops with the target of notebook 03."""
    from course_utils.dataset import NucleiDataset  # with torchvision: only to train, it takes a second to import

    images, masks = normalized_arrays(samples, crop_size)
    return NucleiDataset(images, masks, binary_target, crop_size, augment=True, seed=seed)


def boundary_dataset(samples: list[Sample], crop_size: int, seed: int) -> Dataset:
    """Augmented crops, half of them shrunk or enlarged, with the target of notebook 05."""
    from course_utils.dataset import ZoomedDataset

    images, masks = normalized_arrays(samples, crop_size)
    return ZoomedDataset(images, masks, boundary_target, crop_size, augment=True, seed=seed)


@dataclass(frozen=True)
class Task:
    """What a network of the course learns, and how.

    Args:
        kind: name of the network and its file.
        out_channels: of the network.
        make_dataset: makes the training crops, from samples, crop size and seed.
        target_transform: makes the target of a validation mask.
        loss_fn, metric: as for `fit`.
        epochs: how long a profile trains it.
        validation_arrays: makes images and masks of the validation samples, or what takes their place.
        batch_norm, instance_norm: of the network.
        batch_transform: as for `fit`.
        learning_rate: as a multiple of the profile's.
    """

    kind: str
    out_channels: int
    make_dataset: Callable[[list[Sample], int, int], Dataset]
    target_transform: Callable[[np.ndarray], torch.Tensor]
    loss_fn: LossFunction
    metric: Metric
    epochs: Callable[[Profile], int]
    validation_arrays: Callable[[list[Sample]], tuple[list[np.ndarray], list[np.ndarray]]] = normalized_arrays
    batch_norm: bool = True
    instance_norm: bool = False
    batch_transform: Callable[[torch.Tensor], torch.Tensor] | None = jitter_intensity
    learning_rate: float = 1.0


BINARY = Task(
    "binary", 1, binary_dataset, binary_target, binary_cross_entropy, hard_dice_score,
    epochs=lambda profile: profile.binary_epochs,
)  # fmt: skip
BOUNDARY = Task(
    "boundary", 3, boundary_dataset, boundary_target, boundary_loss, foreground_dice_score,
    epochs=lambda profile: profile.boundary_epochs, batch_norm=False, instance_norm=True,
)  # fmt: skip


def train_network(
    task: Task, data: CourseData, profile: Profile, seed: int, options: FitOptions, start: UNet | None = None
) -> UNet:
    """Train a network for a task; nothing is loaded but an interrupted training of the same, and nothing is saved.

    Args:
        options: for `fit`; the profile decides whether the network is compiled.
        start: a network to train further, instead of random weights; changed in place.

    Raises:
        ValueError: there are too few images to set some aside for validation.
    """
    from course_utils.dataset import training_loader, validation_loader

    torch.manual_seed(seed)
    train, val = split_train_val(data.train, profile.validation_every)
    if not val:
        raise ValueError(
            f"Every {profile.validation_every}th training image is set aside for validation, but there are only "
            f"{len(data.train)}: use more images, or a profile with a smaller validation_every."
        )
    dataset = task.make_dataset(train, profile.crop_size, seed)
    sizes = (profile.base_channels, profile.depth, task.batch_norm, task.instance_norm)
    model = start or UNet(1, task.out_channels, *sizes)
    if task.kind == BOUNDARY.kind and start is not None:
        _add_to_boundary_logit(model, math.log(BOUNDARY_WEIGHT))  # as the loss expects it
    fit(
        model.to(choose_device()),
        training_loader(dataset, profile.batch_size, profile.crops_per_epoch, profile.workers),
        validation_loader(*task.validation_arrays(val), task.target_transform, multiple=2**profile.depth),
        task.loss_fn,
        epochs=task.epochs(profile),
        learning_rate=profile.learning_rate * task.learning_rate,
        metric=task.metric,
        options=replace(options, compiled=profile.compiled),
    )
    return without_boundary_weight(model) if task.kind == BOUNDARY.kind else model


def binary_model(
    data: CourseData, profile: Profile, seed: int, output: str | Path, on_epoch: OnEpoch | None = None
) -> UNet:
    """The foreground network of notebook 03, with one output channel: loaded from `output`, else trained."""
    return own_network(BINARY, data, profile, seed, output, on_epoch)


def boundary_model(
    data: CourseData,
    profile: Profile,
    seed: int,
    output: str | Path,
    on_epoch: OnEpoch | None = None,
    pretrained: bool | None = None,
) -> UNet:
    """The three-class network of notebook 05: background, interior, boundary.

    Loaded from `output` if it was trained there; else the pretrained network for these data; else trained.

    Args:
        on_epoch: gets the results after every epoch; for a pretrained network, those of its training.
        pretrained: whether a pretrained network may be taken; None leaves it to the profile.
    """
    return own_network(BOUNDARY, data, profile, seed, output, on_epoch, pretrained)


def own_network(
    task: Task,
    data: CourseData,
    profile: Profile,
    seed: int,
    output: str | Path,
    on_epoch: OnEpoch | None = None,
    pretrained: bool | None = False,
) -> UNet:
    """The network of a task: loaded from `output`, else the pretrained one if it may be taken, else trained.

    Arguments as for `boundary_model`.
    """
    path, wanted = model_path(output, task.kind), training_config(task.kind, data, profile, seed)
    if profile.pretrained if pretrained is None else pretrained:
        if found := _pretrained(task.kind, data, profile, path, on_epoch):
            return found
    options = replace(resumable(path, wanted, on_epoch), batch_transform=task.batch_transform)
    return load_or_train(path, wanted, lambda: train_network(task, data, profile, seed, options))


def resumable(path: Path, wanted: dict, on_epoch: OnEpoch | None = None) -> FitOptions:
    """Options of a training whose network will be saved at `path`: an interrupted one is found there and resumed.

    Args:
        wanted: the `training_config`.
    """
    return FitOptions(checkpoint=path.with_suffix(".resume"), metadata=wanted, on_epoch=on_epoch)


class Foreground(torch.nn.Module):
    """A boundary network seen as a foreground network: one logit for "interior or boundary" against the background."""

    def __init__(self, model: UNet):
        super().__init__()
        self.model = model

    def forward(self, x):
        logits = self.model(x)
        return torch.logsumexp(logits[:, 1:], dim=1, keepdim=True) - logits[:, :1]


def foreground_model(
    data: CourseData, profile: Profile, seed: int, output: str | Path, on_epoch: OnEpoch | None = None
) -> torch.nn.Module:
    """The network of notebook 04, with one output channel.

    The one that notebook 03 left in `output`; else the pretrained one; else `binary_model` trains one.
    """
    if profile.pretrained and (found := _pretrained("boundary", data, profile, model_path(output, "binary"), on_epoch)):
        return Foreground(found).eval()
    return binary_model(data, profile, seed, output, on_epoch)


def _pretrained(
    kind: str, data: CourseData, profile: Profile, own: Path, on_epoch: OnEpoch | None
) -> UNet | None:
    """The pretrained network, unless the user's own one lies at `own`, or an interrupted training of it."""
    if own.exists() or own.with_suffix(".resume").exists():
        return None
    if (found := load_pretrained(data, profile.validation_every, kind)) is None:
        return None
    model, curve = found
    print(f"Loaded the pretrained network, trained for {len(curve)} epochs.")
    if on_epoch is not None:
        on_epoch(curve)
    return model.to(choose_device())
