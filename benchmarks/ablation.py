"""What each part of the recipe is worth: the boundary network of notebook 05, trained with one change at a time.

Every row has the same seeds, the same number of training pixels and the same validation images (every eighth training
image); test images are not touched. An image is scored with the threshold that is best on the other half of the images.
Trainings that are already in the result file are not repeated, so an interrupted run continues. From the repository
root:

    python -m benchmarks.ablation --real path/to/dsb2018.zip
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.alternatives import cross_scored, without_weight
from benchmarks.measuring import RESULTS, write
from benchmarks.robustness import scaled
from course_utils.data import CourseData, Sample, load_data
from course_utils.dataset import ZoomedDataset, training_loader, validation_loader
from course_utils.device import choose_device, prepare_model
from course_utils.exploration import normalize_percentiles, split_train_val, standardize
from course_utils.losses import foreground_dice_score
from course_utils.networks import boundary_loss
from course_utils.segmentation import predict
from course_utils.targets import boundary_target
from course_utils.training import FitOptions, fit, jitter_intensity, train_epoch
from course_utils.unet import UNet


@dataclass(frozen=True)
class Recipe:
    """What can be changed; the defaults are the course's recipe, in the profile `laptop`."""

    percentiles: bool = True  # each image by its own percentiles, else one mean and deviation for all
    norm: str = "instance"  # normalisation in the network: "instance", "batch" or "none"
    flips: bool = True  # and quarter turns
    zoom: float = 2.0  # of half of the crops, at most; 1: none
    jitter: bool = True  # of the intensities
    average_decay: float = 0.99
    loss: Callable = boundary_loss
    by_area: bool = True  # crops in proportion to area, else every image as often as any other
    weight_left_in: bool = False  # of the boundary class, in the probabilities
    certain: bool = True  # instances that the network is unsure of are removed
    fit: bool = True  # AdamW with a one-cycle learning rate, else Adam with a constant one and the last weights
    mode: str = "inner"
    base_channels: int = 16
    crop_size: int = 128
    batch_size: int = 8
    learning_rate: float = 4e-3


def describe(recipe: Recipe) -> dict:
    """The recipe as plain values, the same in every process."""
    return {**asdict(recipe), "loss": recipe.loss.__name__}


VARIANTS = {
    "recipe": {},
    "batch normalisation": {"norm": "batch"},
    "no normalisation in the network": {"norm": "none"},
    "crops of 256 px in batches of 2, as many pixels": {"crop_size": 256, "batch_size": 2},
    "batches of 2": {"batch_size": 2},
    "batches of 32": {"batch_size": 32},
    "half the learning rate": {"learning_rate": 2e-3},
    "twice the learning rate": {"learning_rate": 8e-3},
    "no zoom": {"zoom": 1.0},
    "no flips and turns": {"flips": False},
    "no intensity jitter": {"jitter": False},
    "one mean and deviation for all images": {"percentiles": False},
    "crops per image instead of area": {"by_area": False},
    "boundary not weighted": {"loss": torch.nn.functional.cross_entropy},
    "weight of the boundary left in the probabilities": {"weight_left_in": True},
    "instances kept that the network is unsure of": {"certain": False},
    "no averaged weights": {"average_decay": 0.0},
    "plain loop: Adam, constant rate, last weights, no jitter": {"fit": False, "learning_rate": 1e-3},
    "thick boundary": {"mode": "thick"},
    "8 channels": {"base_channels": 8},
}
SCALED = {name: (0.7, 1.4) for name in ("recipe", "no zoom")}  # rows that are also scored on altered images
AFTER_TRAINING = ("weight_left_in", "certain")  # changes that need no training of their own


def normaliser(recipe: Recipe, train: list[Sample]) -> Callable[[np.ndarray], np.ndarray]:
    """The function that is applied to every image."""
    if recipe.percentiles:
        return normalize_percentiles
    pixels = np.concatenate([sample.image.ravel() for sample in train])
    mean, deviation = float(pixels.mean()), float(pixels.std())
    return lambda image: standardize(image, mean, deviation)


def train_network(recipe: Recipe, data: CourseData, pixels: int, epochs: int, seed: int, checkpoint: Path) -> UNet:
    """Train one network on crops that hold so many pixels."""
    torch.manual_seed(seed)
    train, val = split_train_val(data.train, 8)
    normalise = normaliser(recipe, train)
    size, crops = recipe.crop_size, pixels // recipe.crop_size**2

    def target(mask):
        return boundary_target(mask, mode=recipe.mode)

    arrays = [normalise(sample.image) for sample in train], [sample.mask for sample in train]
    dataset = ZoomedDataset(*arrays, target, size, augment=recipe.flips, seed=seed, zoom=recipe.zoom)
    loader = training_loader(dataset, recipe.batch_size, crops // epochs)
    if not recipe.by_area:
        sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=crops // epochs)
        loader = torch.utils.data.DataLoader(dataset, batch_size=recipe.batch_size, sampler=sampler)
    norm = {"batch_norm": recipe.norm == "batch", "instance_norm": recipe.norm == "instance"}
    model = UNet(1, 3, recipe.base_channels, **norm).to(choose_device())
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
    return model


def evaluate(
    recipe: Recipe, model: UNet, normalise: Callable, val: list[Sample], scales: Sequence[float] = ()
) -> dict[str, list[float]]:
    """Scores of each validation image, and its F1 at IoU 0.5 if it is shrunk or enlarged before."""
    weighted = recipe.loss is not torch.nn.functional.cross_entropy and not recipe.weight_left_in
    activation = without_weight if weighted else None

    def scores(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
        predictions = [predict(model, normalise(image), activation=activation) for image, _ in pairs]
        return cross_scored(predictions, [mask for _, mask in pairs], recipe.certain)

    found = scores([(sample.image, sample.mask) for sample in val])
    for scale in scales:
        found[f"F1 at scale {scale:g}"] = scores([scaled(sample, scale) for sample in val])["F1 at 0.5"]
    return found


def scored_with(name: str) -> list[str]:
    """The rows that are scored with the network of a row: itself, and with the recipe's those without a training."""
    return [name, *(row for row, change in VARIANTS.items() if name == "recipe" and set(change) & set(AFTER_TRAINING))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", required=True, help="dsb2018.zip or the folder unpacked from it")
    parser.add_argument("--crops", type=int, default=8000, help="training crops of 128 px (default 8000)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="some rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument("--json", type=Path, default=RESULTS / "ablation.json", help="result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_data(options.real)
    train, val = split_train_val(data.train, 8)
    settings = {"crops": options.crops, "epochs": options.epochs, "recipe": describe(Recipe())}
    command = f"python -m benchmarks.ablation --real path/to/dsb2018.zip --seeds {' '.join(map(str, options.seeds))}"
    result = {"command": command, "settings": settings, "rows": {}}
    if options.json.exists():
        earlier = json.loads(options.json.read_text(encoding="utf-8"))
        if earlier["settings"] == settings:
            result["rows"] = earlier["rows"]  # where and when is noted anew
    for seed in options.seeds:
        for name in options.only:
            if str(seed) in result["rows"].get(name, {}):
                continue
            print(f"--- {name}, seed {seed}", flush=True)
            recipe = replace(Recipe(), **VARIANTS[name])
            trained = replace(recipe, **{field: getattr(Recipe(), field) for field in AFTER_TRAINING})
            checkpoint = options.json.with_suffix(".resume")
            model = train_network(trained, data, options.crops * 128**2, options.epochs, seed, checkpoint)
            for row in scored_with(name):
                recipe = replace(Recipe(), **VARIANTS[row])
                scores = evaluate(recipe, model, normaliser(recipe, train), val, SCALED.get(row, ()))
                result["rows"].setdefault(row, {})[str(seed)] = scores
                print(f"{row}, seed {seed}: F1 {np.mean(scores['F1 at 0.5']):.3f}", flush=True)
            write(options.json.stem, result, options.json.parent)


if __name__ == "__main__":
    main()
