"""How well do the networks of notebook 07 denoise, and what does denoising do to the segmentation?

    python -m benchmarks.denoising train --data path/to/dsb2018.zip      # three networks
    python -m benchmarks.denoising publish --data path/to/dsb2018.zip    # into data/checkpoints, in half precision
    python -m benchmarks.denoising measure --data path/to/dsb2018.zip    # the tables

The same with `--data embedded`. An interrupted training continues; what is trained already is not trained again. Every
part of a measurement is written as soon as it is known, and measured again only with other networks. All parts but
`curves` score test images; strengths and thresholds come from validation images. The parts `labels` train segmentation
networks, on noisy images and on the same images denoised: small ones for a short time, so compare them with each other.

The prediction for the clipped network was fixed before it was trained: what the supervised network predicts, sent
through `clipped_mean`. Noise2Noise learns the mean of its targets, and that is how clipping moves it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
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
from course_utils.networks import BOUNDARY, boundary_dataset, model_path, own_network
from course_utils.profiles import Profile, get_profile
from course_utils.results import paired_bootstrap
from course_utils.segmentation import predict, remove_small, watershed_instances
from course_utils.unet import UNet
from workshop.paths import data_label

# Sizes chosen on validation images: without batch normalisation 20,000 crops gave 34.0 dB in place of 32.3 dB (a third
# of the images). Small batches make more steps of the same crops; 4 was tried together with other changes, not alone.
REAL = replace(
    get_profile("laptop"), base_channels=16, depth=3, crop_size=128, batch_size=4, crops_per_epoch=2000,
    denoising_epochs=20, learning_rate=4e-3, pretrained=False,
)  # fmt: skip
SYNTHETIC = replace(REAL, base_channels=8, denoising_epochs=12)
SEGMENTATION = replace(
    get_profile("laptop"), base_channels=8, crop_size=256, crops_per_epoch=600, boundary_epochs=4, pretrained=False
)  # of the parts `labels`
FACTORS = {non_local_means: (0.6, 0.8, 1.0, 1.2), total_variation: (0.5, 1.0, 1.5, 2.0, 3.0)}
SIGMAS = (5, 10, 15, 20, 30, 40, 50)  # grey levels
THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
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


def measure_networks(data: CourseData, models: dict, folder: Path) -> dict:
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


def measure_classical(data: CourseData, models: dict, folder: Path) -> dict:
    """The classical denoisers on the test images."""
    noisy, clean = noisy_arrays(data.test)
    factors = best_factors(split_train_val(data.train, REAL.validation_every)[1])
    return {"factors": factors} | {
        method.__name__: scores(clean, [method(image, SIGMA, factors[method.__name__]) for image in noisy])
        for method in FACTORS
    }


def measure_curves(data: CourseData, models: dict, folder: Path) -> dict:
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


def with_images(samples: list[Sample], images: list[np.ndarray]) -> list[Sample]:
    """The same samples with other images."""
    return [replace(sample, image=image) for sample, image in zip(samples, images, strict=True)]


def segment(network: UNet, val: list[Sample], test: list[Sample]) -> dict:
    """AP at IoU 0.5 of each test image, with the threshold of the seeds that is best on the validation images."""

    def precision(samples: list[Sample], probabilities: list[np.ndarray], threshold: float) -> list[float]:
        labels = [remove_small(watershed_instances(one[1], one[2], threshold), 20) for one in probabilities]
        pairs = zip(labels, samples, strict=True)
        return [average_precision(found, sample.mask, [0.5])[0] for found, sample in pairs]

    chosen, tested = ([predict(network, normalize_percentiles(s.image)) for s in some] for some in (val, test))
    threshold = max(THRESHOLDS, key=lambda threshold: np.mean(precision(val, chosen, threshold)))
    return {"threshold": threshold, "AP": precision(test, tested, threshold)}


def measure_segmentation(data: CourseData, models: dict, folder: Path) -> dict:
    """Notebook 05's network, which has never seen noise, on clean, noisy and denoised images."""
    network, _ = load_pretrained(data, REAL.validation_every)
    val = split_train_val(data.train, REAL.validation_every)[1][::EVERY]

    def inputs(samples: list[Sample]) -> dict[str, list[Sample]]:
        noisy, clean = noisy_arrays(samples)
        images = {"clean": clean, "noisy": noisy}
        images |= {kind: [denoise(models[kind], image) for image in noisy] for kind in models if kind != "clipped"}
        return {name: with_images(samples, some) for name, some in images.items()}

    chosen, tested = inputs(val), inputs(data.test)
    return {name: segment(network, chosen[name], tested[name]) for name in tested}


def measure_labels(count: int | None, data: CourseData, models: dict, folder: Path) -> dict:
    """Networks trained with `count` labelled images (None: all): on noisy images, and on images that were denoised.

    Every image has one noisy version, in all its crops. The denoiser has seen all training images, without labels.
    """
    every = SEGMENTATION.validation_every
    labelled = len(split_train_val(data.train, every)[0])
    chosen = np.random.default_rng(0).permutation(labelled)[:count]

    def crops(samples: list[Sample], *options):
        return boundary_dataset([samples[index] for index in chosen], *options)

    noisy, _ = noisy_arrays([*data.test, *data.train])  # no image has the noise of another
    result = {"labelled": len(chosen), "crops": SEGMENTATION.crops_per_epoch * SEGMENTATION.boundary_epochs}
    for name in ("noisy", "noise2noise"):
        images = noisy if name == "noisy" else [denoise(models[name], image) for image in noisy]
        test, train = (with_images(*some) for some in ((data.test, images[: len(data.test)]),
                                                       (data.train, images[len(data.test) :])))  # fmt: skip
        task, output = replace(BOUNDARY, make_dataset=crops), folder / f"labels_{len(chosen)}_{name}"
        network = own_network(task, replace(data, train=train, test=test), SEGMENTATION, 0, output, print)
        result[name] = segment(network, split_train_val(train, every)[1], test)
    return result


PARTS = {"networks": measure_networks, "classical": measure_classical, "curves": measure_curves,
         "segmentation": measure_segmentation, "10 labels": partial(measure_labels, 10),
         "all labels": partial(measure_labels, None)}  # fmt: skip


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
        result["validation"] = {kind: [round(epoch.validation_metric, 2) for epoch in found[1]]
                                for kind, found in pretrained.items() if found}  # fmt: skip
        result["command"] = f"python -m benchmarks.denoising measure --data {data_label(data.source)}"
        for part in options.parts:
            tried = {method.__name__: list(factors) for method, factors in FACTORS.items()}
            used = tried if part == "classical" else files
            if result.get("measured with", {}).get(part) == used:
                continue
            result |= {part: PARTS[part](data, models, output)}
            result["measured with"] = result.get("measured with", {}) | {part: used}
            result["rows"] = summarize(result)
            print(f"{part} written to {write(name, result)}", flush=True)
        for row in summarize(result):
            print(row)


if __name__ == "__main__":
    main()
