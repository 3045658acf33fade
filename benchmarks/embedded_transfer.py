"""How well does a network that has seen only the embedded synthetic images segment real ones?

Trains the boundary network of notebook 05 on the embedded set, chooses the marker threshold on synthetic images that
were held out, and scores it on real DSB2018 images. Prints a table and writes it as JSON. From the repository root:

    python -m benchmarks.embedded_transfer --real path/to/dsb2018.zip

`--parts train` scores on every sixth real training image instead: that is where the generator was tuned. The test
images are only for the final figure.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import RESULTS, write
from course_utils.data import Sample, embedded_folder, load_data
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.networks import boundary_model
from course_utils.profiles import Profile, get_profile
from course_utils.results import compare_methods, paired_bootstrap, score_images, score_table
from course_utils.segmentation import (
    connected_components,
    find_best_threshold,
    otsu_components,
    otsu_watershed,
    predict,
    watershed_instances,
)

THRESHOLDS = [round(0.2 + 0.1 * step, 1) for step in range(8)]
TRAINING_SHARE = 6  # --parts train takes every sixth real training image


def score(model: torch.nn.Module, threshold: float, samples: list[Sample], seed: int) -> dict:
    """Segment images with the network and classically; prints the table and returns it for the JSON file."""
    truths = [sample.mask for sample in samples]
    probabilities = [predict(model, normalize_percentiles(sample.image)) for sample in samples]
    methods = {
        "Otsu + components": [otsu_components(sample.image) for sample in samples],
        "Otsu + distance watershed": [otsu_watershed(sample.image) for sample in samples],
        "U-Net, components": [connected_components(p[1] + p[2]) for p in probabilities],
        "U-Net, watershed": [watershed_instances(p[1], p[2], threshold) for p in probabilities],
    }
    scores = compare_methods(methods, truths)
    f1 = score_images(methods["U-Net, watershed"], truths, [0.5])["f1"].to_numpy()
    _, low, high = paired_bootstrap(f1, np.zeros(len(f1)), np.random.default_rng(seed), repeats=10_000)
    shapes = np.array([f"{sample.image.shape[0]}x{sample.image.shape[1]}" for sample in samples])
    by_shape = {str(shape): f1[shapes == shape] for shape in np.unique(shapes)}
    print(score_table(scores).round(3).to_string())
    print(f"U-Net, watershed, mean F1 at IoU 0.5: 95 % bootstrap interval {low:.3f} to {high:.3f}; by image size:")
    for shape, values in by_shape.items():
        print(f"    {shape}: {values.mean():.3f} ({len(values)} images)")
    return {
        "images": len(samples),
        "watershed_interval": [round(low, 4), round(high, 4)],
        "watershed_by_shape": {shape: round(float(values.mean()), 4) for shape, values in by_shape.items()},
        "scores": scores,
    }


def measure(real: Path, embedded: Path, parts: list[str], profile: Profile, seed: int) -> dict:
    """Train, choose the threshold, score; returns everything that goes into the JSON file."""
    synthetic, dsb2018 = load_data(embedded), load_data(real)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        model = boundary_model(synthetic, profile, seed, output, pretrained=False)
    training_seconds = time.perf_counter() - start

    _, held_out = split_train_val(synthetic.train, profile.validation_every)
    probabilities = [predict(model, normalize_percentiles(sample.image)) for sample in held_out]
    interiors, boundaries = [p[1] for p in probabilities], [p[2] for p in probabilities]
    threshold, held_out_f1 = find_best_threshold(interiors, boundaries, [s.mask for s in held_out], THRESHOLDS)

    results = {}
    real_samples = {"test": dsb2018.test, "train": split_train_val(dsb2018.train, TRAINING_SHARE)[1]}
    for part in parts:
        samples = real_samples[part]
        print(f"\n{len(samples)} real {part} images, network trained on {len(synthetic.train)} synthetic ones")
        results[part] = score(model, threshold, samples, seed)
    return {
        "seed": seed,
        "profile": asdict(profile),
        "training_seconds": round(training_seconds),
        "threshold": threshold,
        "held_out_f1": {str(key): round(value, 4) for key, value in held_out_f1.items()},
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=Path, required=True, help="dsb2018.zip or the folder unpacked from it")
    parser.add_argument("--embedded", type=Path, default=embedded_folder(), help="synthetic set to train on")
    parser.add_argument("--parts", nargs="+", choices=("test", "train"), default=["test"], help="real images to score")
    parser.add_argument("--profile", default="laptop", help="size of the network and of an epoch (default laptop)")
    parser.add_argument("--epochs", type=int, help="instead of the profile's number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument("--json", type=Path, default=RESULTS / "embedded_transfer.json", help="result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    profile = get_profile(options.profile)
    if options.epochs is not None:
        profile = replace(profile, boundary_epochs=options.epochs)
    result = measure(options.real, options.embedded, options.parts, profile, options.seed)
    print(f"Written to {write(options.json.stem, result, options.json.parent)}.")


if __name__ == "__main__":
    main()
