"""How good does the boundary network of notebook 05 get?

Trains it, chooses threshold and size filter on validation images, and scores the test images when asked to, which is
once and at the end. An interrupted training continues.

    python -m benchmarks.quality --data path/to/dsb2018.zip --epochs 35
    python -m benchmarks.quality --data path/to/dsb2018.zip --epochs 35 --test

The network is the one that notebook 05 trains: with `--output` naming its output folder, the notebook finds it there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import RESULTS, mean_f1, write
from course_utils.checkpoints import fingerprint
from course_utils.data import Sample, load_data
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.metrics import IOU_THRESHOLDS, score_images, summarize_scores
from course_utils.profiles import get_profile
from course_utils.recipes import boundary_model, model_path
from course_utils.segmentation import predict, predict_flipped, remove_small, watershed_instances
from course_utils.training import save_model
from course_utils.unet import UNet

THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
MIN_AREA = 20  # below the smallest nucleus of the training images, 21 pixels


def instances(probabilities: list[np.ndarray], threshold: float, min_area: int) -> list[np.ndarray]:
    """Label images from the three-class probabilities."""
    return [remove_small(watershed_instances(p[1], p[2], threshold), min_area) for p in probabilities]


def choose(probabilities: list[np.ndarray], samples: list[Sample]) -> dict:
    """Scores on validation images for each threshold of the seeds, with and without a size filter."""
    truths = [sample.mask for sample in samples]
    rows = [
        {"threshold": threshold, "min_area": area, "f1": mean_f1(instances(probabilities, threshold, area), truths)}
        for area in (0, MIN_AREA)
        for threshold in THRESHOLDS
    ]
    return {"best": max(rows, key=lambda row: row["f1"][0]), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="dsb2018.zip, or another source of images")
    parser.add_argument("--epochs", type=int, help="instead of the profile's number")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--base-channels", type=int, help="instead of the profile's number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="train through torch.compile")
    parser.add_argument("--output", type=Path, default=Path("build/quality"), help="folder for the network")
    parser.add_argument("--test", action="store_true", help="score the test images, too")
    parser.add_argument("--ship", type=Path, help="also write the network as one that comes with the course")
    parser.add_argument("--name", default="quality", help="name of the result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    profile = get_profile(options.profile)
    profile = replace(
        profile,
        boundary_epochs=options.epochs or profile.boundary_epochs,
        base_channels=options.base_channels or profile.base_channels,
        compiled=options.compiled,
        shipped=False,
    )
    data = load_data(options.data)
    earlier = RESULTS / f"{options.name}.json"
    # a network that was trained before has left its curve there
    history = json.loads(earlier.read_text(encoding="utf-8"))["curve"] if earlier.exists() else []

    def on_epoch(results):
        history[:] = [asdict(result) for result in results]
        print(results[-1], flush=True)

    model = boundary_model(data, profile, options.seed, options.output, on_epoch)
    _, val = split_train_val(data.train, profile.validation_every)
    result = {"data": Path(data.source).name, "profile": asdict(profile), "seed": options.seed, "curve": history}
    for name, function in (("plain", predict), ("flips", predict_flipped)):
        probabilities = [function(model, normalize_percentiles(sample.image)) for sample in val]
        result[name] = {"validation": choose(probabilities, val)}
        best = result[name]["validation"]["best"]
        print(f"{name}, {len(val)} validation images: {best}", flush=True)
        if options.test:
            probabilities = [function(model, normalize_percentiles(sample.image)) for sample in data.test]
            truths = [sample.mask for sample in data.test]
            found = instances(probabilities, best["threshold"], best["min_area"])
            table = summarize_scores(score_images(found, truths, IOU_THRESHOLDS))
            result[name]["test"] = {f"{t:g}": {k: round(v, 4) for k, v in table.loc[t].items()} for t in IOU_THRESHOLDS}
            print(f"{name}, {len(truths)} test images\n{table.round(3).to_string()}", flush=True)
    path = write(options.name, result)
    print(f"Network: {model_path(options.output, 'boundary')}. Written to {path}.")
    if options.ship:
        ship(options.ship, model, result, fingerprint(data))


def ship(path: Path, model: UNet, result: dict, data: str) -> None:
    """Write a network with its recipe, curve and scores, and print its line for `checkpoints.SHIPPED`."""
    about = {**result["profile"], "kind": "boundary", "seed": result["seed"], "curve": result["curve"]}
    for name in ("plain", "flips"):
        about[f"scores, {name}"] = result[name].get("test", result[name]["validation"]["best"])
    save_model(path, model, **about)
    print(f'    "{data}": ("{path.name}", "{hashlib.sha256(path.read_bytes()).hexdigest()}"),')


if __name__ == "__main__":
    main()
