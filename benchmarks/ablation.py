"""What each part of the recipe is worth: the boundary network of notebook 05, trained with one change at a time.

Every row has the same seed, the same number of training crops and the same validation images (every eighth training
image); test images are not touched. Rows that are already in the result file are not trained again, so an interrupted
run continues. From the repository root:

    python -m benchmarks.ablation --real path/to/dsb2018.zip
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torchvision.transforms import v2

from benchmarks.measuring import RESULTS, mean_f1, write
from course_utils.checkpoints import save_model
from course_utils.data import CourseData, Sample, load_data
from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.device import choose_device, prepare_model
from course_utils.exploration import normalize_percentiles, split_train_val, standardize
from course_utils.losses import foreground_dice_score, multiclass_dice_loss
from course_utils.networks import boundary_loss, without_boundary_weight
from course_utils.segmentation import predict, remove_small, watershed_instances
from course_utils.targets import boundary_target
from course_utils.training import FitOptions, fit, jitter_intensity, train_epoch
from course_utils.unet import UNet
from workshop.run.machine import processor_name

THRESHOLDS = [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The weighted cross entropy plus the Dice loss of interior and boundary."""
    return boundary_loss(logits, target) + multiclass_dice_loss(logits, target)


def separating_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The weighted cross entropy, where boundary between touching nuclei, with no background beside it, counts most."""
    beside_background = torch.nn.functional.max_pool2d((target == 0).float(), 3, stride=1, padding=1) > 0
    weight = torch.where(target == 2, torch.where(beside_background, 3.0, 12.0), 1.0)
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (weight * loss).sum() / weight.sum()


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Background that one nucleus encloses becomes part of that nucleus."""
    filled = mask.copy()
    for index, window in enumerate(ndimage.find_objects(mask), 1):
        if window is not None:
            inside = ndimage.binary_fill_holes(mask[window] == index) & (mask[window] == 0)
            filled[window][inside] = index
    return filled


@dataclass(frozen=True)
class Recipe:
    """What can be changed; the defaults are the course's recipe."""

    percentiles: bool = True  # each image by its own percentiles, else one mean and deviation for all
    batch_norm: bool = True
    flips: bool = True  # and quarter turns
    zoom: bool = False  # enlarge a random part of the crop, up to 1.6 times
    jitter: bool = True  # of the intensities
    average_decay: float = 0.99
    loss: Callable = boundary_loss
    by_area: bool = True  # crops in proportion to area, else every image as often as any other
    weight_left_in: bool = True  # of the boundary class, in the probabilities
    fit: bool = True  # AdamW with a one-cycle learning rate, else Adam with a constant one and the last weights
    mode: str = "inner"
    fill_holes: bool = False
    base_channels: int = 16
    batch_size: int = 8
    learning_rate: float = 4e-3


def describe(recipe: Recipe) -> dict:
    """The recipe as plain values, the same in every process."""
    return {**asdict(recipe), "loss": recipe.loss.__name__}


VARIANTS = {
    "recipe": {},
    "weight of the boundary taken out of the probabilities again": {"weight_left_in": False},
    "zoom": {"zoom": True},
    "Dice loss added": {"loss": dice_and_cross_entropy},
    "boundary between nuclei weighted 12": {"loss": separating_loss},
    "boundary not weighted": {"loss": torch.nn.functional.cross_entropy},
    "no averaged weights": {"average_decay": 0.0},
    "no intensity jitter": {"jitter": False},
    "no flips and turns": {"flips": False},
    "no batch normalisation": {"batch_norm": False},
    "one mean and deviation for all images": {"percentiles": False},
    "crops per image instead of area": {"by_area": False},
    "plain loop: Adam, constant rate, last weights, no jitter": {"fit": False, "learning_rate": 1e-3},
    "thick boundary": {"mode": "thick"},
    "holes in masks filled": {"fill_holes": True},
    "8 channels": {"base_channels": 8},
    "batches of 4": {"batch_size": 4},
}


def normaliser(recipe: Recipe, train: list[Sample]) -> Callable[[np.ndarray], np.ndarray]:
    """The function that is applied to every image."""
    if recipe.percentiles:
        return normalize_percentiles
    pixels = np.concatenate([sample.image.ravel() for sample in train])
    mean, deviation = float(pixels.mean()), float(pixels.std())
    return lambda image: standardize(image, mean, deviation)


def train_network(recipe: Recipe, data: CourseData, crops: int, epochs: int, seed: int, checkpoint: Path):
    """Train one network; returns it and the seconds it took."""
    torch.manual_seed(seed)
    train, val = split_train_val(data.train, 8)
    normalise = normaliser(recipe, train)
    images = [normalise(sample.image) for sample in train]
    masks = [fill_holes(sample.mask) if recipe.fill_holes else sample.mask for sample in train]

    def target(mask):
        return boundary_target(mask, mode=recipe.mode)

    dataset = NucleiDataset(images, masks, target, 256, augment=recipe.flips, seed=seed)
    if recipe.zoom:
        zoom = v2.RandomResizedCrop(256, scale=(0.4, 1.0), ratio=(0.8, 1.25), antialias=False)
        dataset.augmentation = v2.Compose([dataset.augmentation, v2.RandomApply([zoom], p=0.5)])
    loader = training_loader(dataset, recipe.batch_size, crops // epochs)
    if not recipe.by_area:
        sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=crops // epochs)
        loader = torch.utils.data.DataLoader(dataset, batch_size=recipe.batch_size, sampler=sampler)
    model = UNet(1, 3, recipe.base_channels, batch_norm=recipe.batch_norm).to(choose_device())
    start = time.perf_counter()
    if recipe.fit:
        shown = val[::4]  # the scores below use all of them
        check = validation_loader([normalise(s.image) for s in shown], [s.mask for s in shown], target)
        fit(
            model, loader, check, recipe.loss, epochs=epochs, learning_rate=recipe.learning_rate,
            metric=foreground_dice_score,
            options=FitOptions(
                batch_transform=jitter_intensity if recipe.jitter else None, average_decay=recipe.average_decay,
                checkpoint=checkpoint, metadata={"recipe": describe(recipe), "seed": seed},
                on_epoch=lambda results: print(results[-1], flush=True),
            ),
        )  # fmt: skip
    else:
        prepared = prepare_model(model)
        optimizer = torch.optim.Adam(prepared.parameters(), lr=recipe.learning_rate)
        for _ in range(epochs):
            train_epoch(prepared, loader, recipe.loss, optimizer)
        model.eval()
    if not recipe.weight_left_in:
        without_boundary_weight(model)
    return model, time.perf_counter() - start


def evaluate(model: UNet, normalise: Callable, val: list[Sample]) -> dict:
    """Scores on the validation images for each threshold of the seeds, with and without a size filter."""
    predictions = [predict(model, normalise(sample.image)) for sample in val]
    truths = [sample.mask for sample in val]
    plain, filtered = {}, {}
    for threshold in THRESHOLDS:
        found = [watershed_instances(p[1], p[2], threshold) for p in predictions]
        plain[threshold] = mean_f1(found, truths)
        filtered[threshold] = mean_f1([remove_small(labels, 20) for labels in found], truths)
    best = max(THRESHOLDS, key=lambda threshold: plain[threshold][0])
    return {"threshold": best, "f1": plain[best], "f1_filtered": filtered[best], "by_threshold": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", required=True, help="dsb2018.zip or the folder unpacked from it")
    parser.add_argument("--crops", type=int, default=4800, help="training crops of each row (default 4800)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="some rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument("--models", type=Path, help="folder to keep the networks in")
    parser.add_argument("--json", type=Path, default=RESULTS / "ablation.json", help="result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_data(options.real)
    train, val = split_train_val(data.train, 8)
    settings = {"crops": options.crops, "epochs": options.epochs, "seed": options.seed}
    result = {"settings": settings, "rows": {}}
    if options.json.exists():
        earlier = json.loads(options.json.read_text(encoding="utf-8"))
        if earlier["settings"] == settings:
            result["rows"] = earlier["rows"]  # where and when is noted anew
    for name in options.only:
        if name in result["rows"]:
            continue
        print(f"--- {name}", flush=True)
        recipe = replace(Recipe(), **VARIANTS[name])
        checkpoint = options.json.with_suffix(".resume")
        model, seconds = train_network(recipe, data, options.crops, options.epochs, options.seed, checkpoint)
        if options.models:
            save_model(options.models / f"{name}.pt", model, recipe=describe(recipe))
        row = evaluate(model, normaliser(recipe, train), val)
        result["rows"][name] = {"seconds": round(seconds), "processor": processor_name(), **row}
        write(options.json.stem, result, options.json.parent)
        print(f"{name}: {row['f1']} at threshold {row['threshold']}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
