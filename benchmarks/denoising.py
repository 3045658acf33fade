"""How well do the networks of notebook 07 denoise, and what does denoising do to the segmentation?

    python -m benchmarks.denoising train --data path/to/dsb2018.zip      # three networks
    python -m benchmarks.denoising publish --data path/to/dsb2018.zip    # into data/checkpoints, in half precision
    python -m benchmarks.denoising measure --data path/to/dsb2018.zip    # the tables

The same with `--data embedded`. An interrupted training continues; what is trained already is not trained again. Every
part of a measurement is written as soon as it is known, and measured again only with other networks. The parts
`networks`, `classical` and `segmentation` score test images; strengths and thresholds come from validation images.

The prediction for the clipped network was fixed before it was trained: what the supervised network predicts, sent
through `clipped_mean`. Noise2Noise learns the mean of its targets, and that is how clipping moves it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity

from benchmarks.measuring import RESULTS, write
from benchmarks.quality import digest
from course_utils.checkpoints import PRETRAINED, checkpoint_folder, load_model, load_pretrained, save_model
from course_utils.data import CourseData, Sample, fingerprint, load_data
from course_utils.denoising import (
    DENOISERS,
    SIGMA,
    add_noise,
    clipped_mean,
    denoise,
    denoising_model,
    noisy_arrays,
    non_local_means,
    psnr,
    to_unit_range,
    total_variation,
)
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.metrics import average_precision
from course_utils.networks import model_path
from course_utils.profiles import Profile, get_profile
from course_utils.results import paired_bootstrap
from course_utils.segmentation import predict, remove_small, watershed_instances
from workshop.paths import data_label

# Sizes chosen on validation images. Without batch normalisation 20,000 crops gave 34.0 dB in place of 32.3 dB (a third
# of the validation images), and batches of 4 in place of 16 learned as much from a third of the crops.
REAL = replace(
    get_profile("laptop"), base_channels=16, depth=3, crop_size=128, batch_size=4, crops_per_epoch=2000,
    denoising_epochs=7, learning_rate=4e-3, pretrained=False,
)  # fmt: skip
SYNTHETIC = replace(REAL, base_channels=8, denoising_epochs=3)
FACTORS = {non_local_means: (0.4, 0.6, 0.8, 1.0), total_variation: (0.5, 1.0, 1.5, 2.0)}
SIGMAS = (5, 10, 15, 20, 30, 40, 50)  # grey levels
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
EVERY = 5  # of the validation images that choose strengths and thresholds: the classical denoisers are slow


def profile_for(data: CourseData) -> Profile:
    """The sizes of the pretrained networks for a data set."""
    return SYNTHETIC if data.source == "embedded" else REAL


def train(data: CourseData, kinds: list[str], seed: int, output: Path) -> None:
    """Train the networks, or load those that are trained; the curve of each lies beside it."""
    for kind in kinds:
        curve = model_path(output, kind).with_suffix(".json")

        def on_epoch(results, kind=kind, curve=curve):
            curve.write_text(json.dumps([asdict(result) for result in results]), encoding="utf-8")
            print(kind, results[-1], flush=True)

        denoising_model(kind, data, profile_for(data), seed, output, on_epoch)


def publish(data: CourseData, kinds: list[str], output: Path, folder: Path) -> None:
    """Write the networks with half the digits, which `load_model` takes as float32; print lines for `PRETRAINED`."""
    for kind in kinds:
        model, metadata = load_model(model_path(output, kind))
        curve = json.loads(model_path(output, kind).with_suffix(".json").read_text(encoding="utf-8"))
        metadata["data"] = data_label(metadata["data"])
        path = folder / f"{kind}_{'embedded' if data.source == 'embedded' else 'dsb2018'}.pt"
        save_model(path, model.half(), **metadata, curve=curve)
        print(f'        "{kind}": ("{path.name}", "{digest(path)}"),  # {fingerprint(data)}')


def scores(clean: list[np.ndarray], images: list[np.ndarray]) -> dict[str, list[float]]:
    """PSNR with both ranges and SSIM of every image."""
    spans = [float(np.ptp(one)) for one in clean]
    return {
        "PSNR, range of the image": [psnr(*pair) for pair in zip(clean, images, spans, strict=True)],
        "PSNR, range 1": [psnr(*pair) for pair in zip(clean, images, strict=True)],
        "SSIM": [float(structural_similarity(a, b.astype(a.dtype), data_range=span))
                 for a, b, span in zip(clean, images, spans, strict=True)],
    }  # fmt: skip


def measure_networks(data: CourseData, models: dict) -> dict:
    """Every network on the test images: noisy ones, for the clipped network those that were cut off."""
    noisy, clean = noisy_arrays(data.test)
    cut, _ = noisy_arrays(data.test, clipped=True)
    images = {"noisy": noisy} | {kind: [denoise(model, image) for image in (cut if kind == "clipped" else noisy)]
                                 for kind, model in models.items()}  # fmt: skip
    if "supervised" in images:
        images["clipped, predicted"] = [clipped_mean(image, SIGMA) for image in images["supervised"]]
    return {name: scores(clean, found) for name, found in images.items()}


def best_factors(samples: list[Sample]) -> dict[str, float]:
    """The strength of each classical denoiser with the highest mean PSNR on validation images."""
    noisy, clean = noisy_arrays(samples[::EVERY])

    def quality(method: Callable, factor: float) -> float:
        found = [method(image, SIGMA, factor) for image in noisy]
        return float(np.mean(scores(clean, found)["PSNR, range of the image"]))

    return {method.__name__: max(factors, key=lambda factor, method=method: quality(method, factor))
            for method, factors in FACTORS.items()}  # fmt: skip


def measure_classical(data: CourseData, models: dict) -> dict:
    """The classical denoisers on the test images."""
    noisy, clean = noisy_arrays(data.test)
    factors = best_factors(split_train_val(data.train, REAL.validation_every)[1])
    return {"factors": factors} | {
        method.__name__: scores(clean, [method(image, SIGMA, factors[method.__name__]) for image in noisy])
        for method in FACTORS
    }


def measure_curves(data: CourseData, models: dict) -> dict:
    """Mean PSNR on validation images against the deviation of the noise: the networks have learned one of them."""
    clean = [to_unit_range(sample.image) for sample in split_train_val(data.train, REAL.validation_every)[1][::EVERY]]
    curves = {"noisy": []} | {kind: [] for kind in models if kind != "clipped"}
    for sigma in SIGMAS:
        rng = np.random.default_rng(0)
        noisy = [add_noise(image, sigma / 255, rng) for image in clean]
        for name, curve in curves.items():
            found = noisy if name == "noisy" else [denoise(models[name], image) for image in noisy]
            curve.append(float(np.mean(scores(clean, found)["PSNR, range of the image"])))
    return {"sigmas": SIGMAS} | curves


def measure_segmentation(data: CourseData, models: dict) -> dict:
    """AP at IoU 0.5 of notebook 05's network on clean, noisy and denoised test images."""
    network, _ = load_pretrained(data, REAL.validation_every)
    val = split_train_val(data.train, REAL.validation_every)[1][::EVERY]

    def inputs(samples: list[Sample]) -> dict[str, list[np.ndarray]]:
        noisy, clean = noisy_arrays(samples)
        found = {kind: [denoise(models[kind], image) for image in noisy] for kind in models if kind != "clipped"}
        return {"clean": clean, "noisy": noisy} | found

    def precision(probabilities: list[np.ndarray], samples: list[Sample], threshold: float) -> list[float]:
        labels = [remove_small(watershed_instances(one[1], one[2], threshold), 20) for one in probabilities]
        pairs = zip(labels, samples, strict=True)
        return [average_precision(found, sample.mask, [0.5])[0] for found, sample in pairs]

    result, on_test = {}, inputs(data.test)
    for name, images in inputs(val).items():
        chosen, tested = ([predict(network, normalize_percentiles(image)) for image in some]
                          for some in (images, on_test[name]))  # fmt: skip
        threshold = max(THRESHOLDS, key=lambda t, chosen=chosen: np.mean(precision(chosen, val, t)))
        result[name] = {"threshold": threshold, "AP": precision(tested, data.test, threshold)}
    return result


PARTS = {"networks": measure_networks, "classical": measure_classical, "curves": measure_curves,
         "segmentation": measure_segmentation}  # fmt: skip


def summarize(result: dict) -> list[dict]:
    """Rows for people: means, and each method's difference to Noise2Noise with its interval."""
    name = "PSNR, range of the image"
    found = {**result.get("networks", {}), **{key: value for key, value in result.get("classical", {}).items()
                                              if key != "factors"}}  # fmt: skip
    rows = []
    for method, values in found.items():
        row = {"method": method.replace("_", " ")}
        row |= {key: f"{np.mean(some):.3f}" if key == "SSIM" else f"{np.mean(some):.2f} dB"
                for key, some in values.items()}  # fmt: skip
        if method != "noise2noise" and "noise2noise" in found:
            difference = paired_bootstrap(values[name], found["noise2noise"][name], np.random.default_rng(0))
            row["minus Noise2Noise"] = "{:+.2f} dB ({:+.2f} to {:+.2f})".format(*difference)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("train", "publish", "measure"))
    parser.add_argument("--data", required=True, help="dsb2018.zip, or embedded")
    parser.add_argument("--kinds", nargs="+", choices=DENOISERS, default=list(DENOISERS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="of `measure`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/denoising"), help="folder for the networks")
    parser.add_argument("--name", help="of the result file; denoising, or denoising_embedded")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(options.data)
    label = "embedded" if data.source == "embedded" else "real"
    output = options.output / label
    if options.step == "train":
        train(data, options.kinds, options.seed, output)
    elif options.step == "publish":
        publish(data, options.kinds, output, checkpoint_folder())
    else:
        name = options.name or ("denoising" if label == "real" else "denoising_embedded")
        path = RESULTS / f"{name}.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        pretrained = {kind: load_pretrained(data, REAL.validation_every, kind) for kind in options.kinds}
        models = {kind: found[0] for kind, found in pretrained.items() if found}
        files = {kind: PRETRAINED[fingerprint(data)][kind][1][:8] for kind in models}
        result["command"] = f"python -m benchmarks.denoising measure --data {data_label(data.source)}"
        for part in options.parts:
            if part in result and result["measured with"][part] == files:
                continue
            result |= {part: PARTS[part](data, models)}
            result["measured with"] = result.get("measured with", {}) | {part: files}
            result["rows"] = summarize(result)
            print(f"{part} written to {write(name, result)}", flush=True)
        for row in summarize(result):
            print(row)


if __name__ == "__main__":
    main()
