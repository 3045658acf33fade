"""How does the course's U-Net compare with common alternatives after the same minutes of training?

Data, crops, batches, precision, loss and training (`training.fit`) are the same; only the network differs. First the
speeds are measured in turn, in blocks of a few steps; then each network trains, from random weights and with three
seeds, on as many crops as it can process in 6 minutes on two cores at its speed, so that other work on the machine
affects all alike. (With one thread these are 12 minutes.) All are scored alike, too, on the validation images: the
weight of the boundary class is taken out of the probabilities, and an image is segmented with the thresholds that are
best on the other half of the images: that of the seeds, and that below which an instance counts as uncertain.

One thing is not alike: the recipe, from learning rate to size of the crops, was found with the course's network.

The scores of finished trainings are kept in `build/bench`, so an interrupted run goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import (
    RESULTS,
    commit,
    forget_peak_memory,
    in_child,
    in_turn,
    one_epoch,
    peak_memory_mb,
    settings_here,
)
from benchmarks.quality import MIN_AREA
from course_utils.data import CourseData
from course_utils.dataset import NucleiDataset, training_loader
from course_utils.device import choose_device
from course_utils.exploration import split_train_val
from course_utils.losses import foreground_dice_score
from course_utils.metrics import MSA_THRESHOLDS, match_instances
from course_utils.networks import BOUNDARY_WEIGHT, boundary_dataset, boundary_loss, normalized_arrays
from course_utils.profiles import Profile
from course_utils.results import paired_bootstrap
from course_utils.segmentation import predict, remove_small, remove_uncertain, watershed_instances
from course_utils.targets import boundary_target
from course_utils.unet import UNet, count_parameters

COURSE = "course"
PEERS = ("segmentation_models_pytorch, resnet18", "MONAI BasicUNet")
NETWORKS = (COURSE, *PEERS, "course, batch normalisation")
STEPS = 40  # in a block, when speeds are measured
SEEDS = (0, 1, 2)
CORE_MINUTES = 12
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CERTAINTIES = (0.0, 0.7, 0.75, 0.8, 0.85)
KEPT = RESULTS.parents[1] / "build" / "bench" / "alternatives_trainings.json"


def make_network(name: str, settings: Profile) -> nn.Module:
    """One of `NETWORKS` with random weights: one channel in, three out."""
    if name.startswith("course"):
        norm = {"instance_norm": True} if name == COURSE else {"batch_norm": True}
        return UNet(1, 3, settings.base_channels, settings.depth, **norm)
    if name.startswith("MONAI"):
        from monai.networks.nets import BasicUNet

        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3)
    import segmentation_models_pytorch

    return segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, in_channels=1, classes=3)


def training(model: nn.Module, dataset: NucleiDataset, crops: int, settings: Profile) -> Callable[[], None]:
    """A function that trains the network on some crops with the course's loop and recipe."""
    loader = partial(training_loader, dataset, settings.batch_size, crops, settings.workers)
    rate, metric = settings.learning_rate, foreground_dice_score
    return one_epoch(model, loader, boundary_loss, boundary_target, learning_rate=rate, metric=metric)


def speeds(data: CourseData, settings: Profile, quick: bool) -> dict[str, float]:
    """Images a second of each network in training, measured in turn."""
    train, _ = split_train_val(data.train, settings.validation_every)
    dataset = boundary_dataset(train, settings.crop_size, seed=0)
    crops = settings.batch_size * (1 if quick else STEPS)
    device = choose_device()
    ways = {name: training(make_network(name, settings).to(device), dataset, crops, settings) for name in NETWORKS}
    return {name: crops / seconds for name, seconds in in_turn(ways, repeats=1 if quick else 3).items()}


def without_weight(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities, with the weight of the boundary class taken out: `networks.without_boundary_weight` of any net."""
    weight = torch.tensor([0.0, 0.0, math.log(BOUNDARY_WEIGHT)], device=logits.device)
    return torch.softmax(logits.float() - weight[:, None, None], dim=0)


def train_and_score(name: str, seed: int, data: CourseData, crops: int, settings: Profile, threads: int) -> dict:
    """Train on that many crops; call it in its own process, whose memory is measured."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, val = split_train_val(data.train, settings.validation_every)
    dataset = boundary_dataset(train, settings.crop_size, seed=seed)
    model = make_network(name, settings).to(choose_device())
    forget_peak_memory()
    before = peak_memory_mb()
    training(model, dataset, crops, settings)()
    memory = peak_memory_mb() - before
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 1e6
    images, masks = normalized_arrays(val)
    predictions = [predict(model, image, multiple=32, activation=without_weight) for image in images]
    return {"parameters": count_parameters(model), "memory, MB": memory} | cross_scored(predictions, masks)


def cross_scored(
    predictions: list[np.ndarray], masks: list[np.ndarray], certain: bool = True
) -> dict[str, list[float]]:
    """F1 at IoU 0.5, 0.75 and 0.9, AP and mSA of each image, with the thresholds that are best on the other half.

    Args:
        certain: whether instances that the network is unsure of are removed.
    """
    certainties = CERTAINTIES if certain else (0.0,)
    f1, ap = (np.empty((len(THRESHOLDS) * len(certainties), len(masks), len(MSA_THRESHOLDS))) for _ in range(2))
    for column, (p, mask) in enumerate(zip(predictions, masks, strict=True)):
        labels = [remove_small(watershed_instances(p[1], p[2], threshold), MIN_AREA) for threshold in THRESHOLDS]
        for row, (found, certainty) in enumerate(product(labels, certainties)):
            matches = match_instances(remove_uncertain(found, p[1] + p[2], certainty), mask, MSA_THRESHOLDS)
            f1[row, column] = [one.f1 for one in matches]
            ap[row, column] = [one.average_precision for one in matches]
    best = [int(f1[:, half::2, 0].mean(axis=1).argmax()) for half in (0, 1)] if len(masks) > 1 else [0, 0]
    rows = np.array([best[1 - column % 2] for column in range(len(masks))])
    f1, ap = f1[rows, np.arange(len(masks))], ap[rows, np.arange(len(masks))]
    scores = {f"F1 at {t:g}": f1[:, MSA_THRESHOLDS.index(t)] for t in (0.5, 0.75, 0.9)}
    scores |= {"AP at 0.5": ap[:, 0], "mSA": ap.mean(axis=1)}
    return {name: [round(float(value), 4) for value in values] for name, values in scores.items()}


def measure(data: CourseData, quick: bool) -> dict:
    """A row for each network, and one for each difference between the course and another.

    Raises:
        ModuleNotFoundError: one of the other packages is missing; `pip install -e ".[bench]"` brings them.
    """
    threads = torch.get_num_threads()
    minutes, seeds = (0.05, SEEDS[:2]) if quick else (CORE_MINUTES / threads, SEEDS)
    settings = settings_here(quick)
    about = {"commit": commit(), "data": data.source, "minutes": minutes}
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() and not quick else {}
    if kept.get("about") != about:
        kept = {"about": about, "speeds": speeds(data, settings, quick), "trainings": {}}
    for seed in seeds:
        for name in NETWORKS:
            if (key := f"{name}, seed {seed}") not in kept["trainings"]:
                crops = max(1, round(kept["speeds"][name] * minutes * 60 / settings.batch_size)) * settings.batch_size
                row = in_child(train_and_score, name, seed, data, crops, settings, threads)
                kept["trainings"][key] = {"crops": crops} | row
                print(key, f"{np.mean(row['F1 at 0.5']):.3f}", flush=True)
                if not quick:
                    KEPT.parent.mkdir(parents=True, exist_ok=True)
                    KEPT.write_text(json.dumps(kept), encoding="utf-8")
    return {
        "title": f"Networks after {minutes * threads / 2:g} minutes of training on 2 cores, validation images",
        "conditions": f"{len(seeds)} seeds, random weights at the start, one recipe for all",
        "batches of": settings.batch_size,
        **tables(kept, seeds),
    }


def tables(kept: dict, seeds: tuple[int, ...]) -> dict[str, list[dict]]:
    """The scores, and the differences in pairs: image by image, averaged over the seeds."""
    rows, differences, lows = [], [], []
    found = {name: [kept["trainings"][f"{name}, seed {seed}"] for seed in seeds] for name in NETWORKS}
    for name, trainings in found.items():
        means = [float(np.mean(one["F1 at 0.5"])) for one in trainings]
        rows.append({
            "network": name, "parameters": trainings[0]["parameters"], "images/s": kept["speeds"][name],
            "memory, MB": float(np.median([one["memory, MB"] for one in trainings])), "crops": trainings[0]["crops"],
            "F1 at 0.5": float(np.mean(means)), "of each seed": ", ".join(f"{mean:.3f}" for mean in means),
            **{score: float(np.mean([one[score] for one in trainings]))
               for score in ("F1 at 0.75", "F1 at 0.9", "AP at 0.5", "mSA")},
        })  # fmt: skip
    for name in NETWORKS[1:]:
        row = {"course minus": name}
        for score in ("F1 at 0.5", "F1 at 0.9", "mSA"):
            pair = [np.mean([one[score] for one in found[which]], axis=0).tolist() for which in (COURSE, name)]
            mean, low, high = paired_bootstrap(*pair, np.random.default_rng(0))
            row[score] = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
            if score == "F1 at 0.5" and name in PEERS:
                lows.append(low)
        differences.append(row)
    return {"rows": rows, "differences": differences, "lowest difference from a peer": min(lows)}
