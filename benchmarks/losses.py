"""The ablation of notebook 06: the boundary network of notebook 05, trained with one loss at a time.

Every row has the same seeds, crops and validation images (every eighth training image); test images are not touched. An
image is scored with the threshold that is best on the other half of the validation images, so that no row profits from
choosing on what it is scored on. Trainings that are already in the result file are not repeated, so an interrupted run
continues. From the repository root:

    python -m benchmarks.losses --real path/to/dsb2018.zip
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.ablation import Recipe, train_network
from benchmarks.measuring import RESULTS, write
from course_utils.data import Sample, load_data
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.losses import class_weights, multiclass_dice_loss
from course_utils.metrics import IOU_THRESHOLDS, match_instances
from course_utils.networks import BOUNDARY_WEIGHT, boundary_loss
from course_utils.segmentation import predict, watershed_instances
from course_utils.targets import boundary_target
from course_utils.unet import UNet

THRESHOLDS = [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
TAKEN_OUT = ", weights taken out of the probabilities"


def weighted(weight: torch.Tensor) -> Callable:
    """The cross entropy with these class weights."""

    def weighted_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits, target, weight=weight.to(logits))

    return weighted_cross_entropy


def dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The weighted cross entropy plus the Dice loss of interior and boundary."""
    return boundary_loss(logits, target) + multiclass_dice_loss(logits, target)


def nnunet_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The default of nnU-Net: cross entropy plus the Dice over the batch, without background."""
    return cross_entropy(logits, target) + multiclass_dice_loss(logits, target)


def losses(train: list[Sample]) -> dict[str, tuple[Callable, torch.Tensor]]:
    """Name -> loss, and the class weights in its cross entropy."""
    inverse, equal = class_weights(boundary_target(sample.mask) for sample in train), torch.ones(3)
    boundary = torch.tensor([1, 1, BOUNDARY_WEIGHT])
    return {
        "cross entropy": (cross_entropy, equal),
        f"cross entropy, boundary weighted {BOUNDARY_WEIGHT:g}": (boundary_loss, boundary),
        "cross entropy, inverse frequencies as weights": (weighted(inverse), inverse),
        "Dice": (multiclass_dice_loss, equal),
        f"cross entropy, boundary weighted {BOUNDARY_WEIGHT:g}, + Dice": (dice_and_cross_entropy, equal),
        "cross entropy + Dice (nnU-Net's default)": (nnunet_loss, equal),
    }


def evaluate(model: torch.nn.Module, val: list[Sample]) -> dict:
    """F1 of each image at each IoU threshold, the thresholds of both halves, and how the boundary pixels are found."""
    predictions = [predict(model, normalize_percentiles(sample.image)) for sample in val]
    found = np.array([
        [[one.f1 for one in match_instances(watershed_instances(p[1], p[2], threshold), sample.mask, IOU_THRESHOLDS)]
         for p, sample in zip(predictions, val, strict=True)]
        for threshold in THRESHOLDS
    ])  # threshold, image, IoU threshold  # fmt: skip
    best = [int(found[:, half::2, 0].mean(axis=1).argmax()) for half in (0, 1)]
    f1 = np.empty(found.shape[1:])
    f1[0::2], f1[1::2] = found[best[1], 0::2], found[best[0], 1::2]
    truth = np.concatenate([boundary_target(sample.mask).flatten() == 2 for sample in val])
    hard = np.concatenate([p.argmax(axis=0).ravel() == 2 for p in predictions])
    hits, total = np.count_nonzero(truth & hard), np.count_nonzero(truth) + np.count_nonzero(hard)
    return {
        "thresholds": [THRESHOLDS[index] for index in best],
        "f1": {str(t): f1[:, column].round(4).tolist() for column, t in enumerate(IOU_THRESHOLDS)},
        "boundary_recall": round(hits / np.count_nonzero(truth), 4),
        "boundary_dice": round(2 * hits / total, 4),
    }


def without_weights(model: UNet, weights: torch.Tensor) -> UNet:
    """Take class weights out of the probabilities of a network, in place: see `networks.without_boundary_weight`."""
    with torch.no_grad():
        model.output.bias -= weights.log().to(model.output.bias)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", required=True, help="dsb2018.zip or the folder unpacked from it")
    parser.add_argument("--crops", type=int, default=9600, help="training crops of 128 px (default 9600)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument("--json", type=Path, default=RESULTS / "losses.json", help="result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_data(options.real)
    train, val = split_train_val(data.train, 8)
    settings = {"crops": options.crops, "epochs": options.epochs, "base_channels": options.base_channels}
    sizes = f"--crops {options.crops} --epochs {options.epochs} --base-channels {options.base_channels}"
    seeds = " ".join(map(str, options.seeds))
    command = f"python -m benchmarks.losses --real path/to/dsb2018.zip {sizes} --seeds {seeds}"
    result = {"command": command, "settings": settings, "rows": {}}
    if options.json.exists():
        earlier = json.loads(options.json.read_text(encoding="utf-8"))
        if earlier["settings"] == settings:
            result["rows"] = earlier["rows"]
    for seed in map(str, options.seeds):
        for name, (loss, weights) in losses(train).items():
            rows = result["rows"]
            if seed in rows.setdefault(name, {}):
                continue
            print(f"--- {name}, seed {seed}", flush=True)
            recipe = replace(Recipe(), loss=loss, base_channels=options.base_channels)
            start = time.perf_counter()
            checkpoint = options.json.with_suffix(".resume")
            model = train_network(recipe, data, options.crops * 128**2, options.epochs, int(seed), checkpoint)
            rows[name][seed] = evaluate(model, val) | {"seconds": round(time.perf_counter() - start)}
            if not weights.eq(1).all():
                rows.setdefault(name + TAKEN_OUT, {})[seed] = evaluate(without_weights(model, weights), val)
            write(options.json.stem, result, options.json.parent)
            print(rows[name][seed], flush=True)


if __name__ == "__main__":
    main()
