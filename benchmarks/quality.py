"""How good does the boundary network of notebook 05 get?

Trains it, chooses the threshold on validation images, and scores the test images only when asked to: once, at the end.
An interrupted training continues.

    python -m benchmarks.quality --data path/to/dsb2018.zip
    python -m benchmarks.quality --data path/to/dsb2018.zip --test

The network is the one that notebook 05 trains: with the profile's number of epochs and the notebook's output folder as
`--output`, the notebook finds it there.

`--start` trains such a network a second time: the learning rate rises and falls once more, half as high (warm restart,
Loshchilov and Hutter 2017), and the intensities are no longer jittered, so that the last training sees images as they
are. The pretrained network for the real images was made by:

    python -m benchmarks.quality --data path/to/dsb2018.zip --pretrained build/first.pt
    python -m benchmarks.quality --data path/to/dsb2018.zip --start build/first.pt --epochs 60 --output build/second \\
        --pretrained data/checkpoints/boundary_dsb2018.pt
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import RESULTS, mean_f1, write
from course_utils.checkpoints import load_model, save_model
from course_utils.data import CourseData, Sample, fingerprint, load_data
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.metrics import IOU_THRESHOLDS, MSA_THRESHOLDS, classify_errors, match_instances
from course_utils.networks import (
    BOUNDARY,
    boundary_model,
    load_or_train,
    model_path,
    resumable,
    train_network,
    training_config,
)
from course_utils.profiles import Profile, get_profile
from course_utils.results import compare_methods, paired_bootstrap
from course_utils.segmentation import (
    connected_components,
    predict,
    predict_flipped,
    remove_small,
    remove_uncertain,
    watershed_instances,
)
from course_utils.training import OnEpoch
from course_utils.unet import UNet
from workshop.paths import data_label

FIRST = "epochs of the first training"  # in the result of a network that was trained twice
CERTAINTIES = [0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9]
THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
MIN_AREA = 20  # as in the notebooks: the smallest nucleus of the training images has 21 pixels


def watershed(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """A label image from three-class probabilities."""
    return watershed_instances(probabilities[1], probabilities[2], threshold)


def components(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The same without a watershed: connected components of the foreground."""
    return connected_components(probabilities[1] + probabilities[2], threshold)


def cleaned(method: Callable, predictions: list[np.ndarray], threshold: float) -> list[np.ndarray]:
    """The label images of one of the two methods, as they are scored at the end of notebook 05."""
    labels = [remove_small(method(probabilities, threshold), MIN_AREA) for probabilities in predictions]
    if method is components:
        return labels
    return [remove_uncertain(one, p[1] + p[2]) for one, p in zip(labels, predictions, strict=True)]


def scores(found: list[np.ndarray], truths: list[np.ndarray]) -> dict:
    """The scores of `compare_methods`, to four digits, and their intervals."""
    [measures] = compare_methods({"": found}, truths).values()
    rounded = {measure: {at: round(score, 4) for at, score in scores.items()} for measure, scores in measures.items()}
    return rounded | {"interval": intervals(found, truths)}


def intervals(found: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, list[float]]:
    """95 % bootstrap intervals over the images of the mean F1 and AP at each IoU threshold, and of mSA."""
    matches = [match_instances(*pair, MSA_THRESHOLDS) for pair in zip(found, truths, strict=True)]
    f1 = np.array([[one.f1 for one in row] for row in matches])
    ap = np.array([[one.average_precision for one in row] for row in matches])
    columns = {"mSA": ap.mean(axis=1)}
    for t in IOU_THRESHOLDS:
        at = MSA_THRESHOLDS.index(t)
        columns |= {f"F1 at {t:g}": f1[:, at], f"AP at {t:g}": ap[:, at]}
    zeros = [0.0] * len(truths)  # against 0: the interval of the mean itself
    return {
        name: [round(end, 4) for end in paired_bootstrap(values.tolist(), zeros, np.random.default_rng(0))[1:]]
        for name, values in columns.items()
    }


def trained_again(
    start: Path, data: CourseData, profile: Profile, seed: int, output: Path, on_epoch: OnEpoch | None
) -> UNet:
    """The network at `start`, trained a second time: a lower learning rate, other crops, intensities as they are.

    Raises:
        ValueError: the network at `start` is of another kind, or has seen images that are set aside here.
    """
    path = model_path(output, "boundary")
    wanted = training_config("boundary", data, profile, seed) | {"start": digest(start)}

    def train() -> UNet:
        model, first = load_model(start)
        if first["kind"] != "boundary" or first["validation_every"] != profile.validation_every:
            raise ValueError(f"{start} is another kind of network, or was trained on images that are set aside here.")
        slower = replace(profile, learning_rate=profile.learning_rate / 2)
        again = seed + 1  # other crops than those of the first training
        options = replace(resumable(path, wanted, on_epoch), batch_transform=None)
        return train_network(BOUNDARY, data, slower, again, options, start=model)

    return load_or_train(path, wanted, train)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def first_curve(start: Path | None) -> list[dict]:
    """The curve of the first training of a network that is trained a second time; empty without one.

    Raises:
        ValueError: the file does not hold it.
    """
    if start is None:
        return []
    found = load_model(start)[1].get("curve")
    if not found:
        raise ValueError(f"{start} does not hold the curve of its training. Write the network with --pretrained.")
    return found


def known_curve(name: str, settings: dict) -> list[dict]:
    """The curve of a network that was trained before, from the result file of that training; empty if there is none."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    return earlier["curve"] if all(earlier.get(key) == value for key, value in settings.items()) else []


def choose(method: Callable, predictions: list[np.ndarray], samples: list[Sample]) -> dict:
    """Scores on validation images for each threshold of a method, and the best one.

    The best one is chosen on all that is found, and scored on what `cleaned` leaves, both as in notebook 05.
    """
    truths = [sample.mask for sample in samples]
    f1 = {t: mean_f1([method(p, t) for p in predictions], truths)[0] for t in THRESHOLDS}
    best = max(THRESHOLDS, key=lambda threshold: f1[threshold])
    rows = [{"threshold": t, "f1": mean_f1(cleaned(method, predictions, t), truths)} for t in THRESHOLDS]
    found = cleaned(method, predictions, best)
    return {
        "best": next(row for row in rows if row["threshold"] == best) | {"interval": intervals(found, truths)},
        "errors": count_errors(found, truths),
        "rows": rows,
    }


def certainty_rows(predictions: list[np.ndarray], samples: list[Sample], threshold: float) -> list[dict]:
    """Scores on validation images for each threshold of `remove_uncertain`; 0 keeps every instance."""
    labels = [remove_small(watershed(probabilities, threshold), MIN_AREA) for probabilities in predictions]
    rows = []
    for certainty in CERTAINTIES:
        found = [remove_uncertain(one, p[1] + p[2], certainty) for one, p in zip(labels, predictions, strict=True)]
        [measures] = compare_methods({"": found}, [sample.mask for sample in samples]).values()
        f1, ap = measures["mean_f1"], measures["mean_ap"]
        row = {"instances kept from": certainty} | {f"F1 at {t:g}": f1[t] for t in IOU_THRESHOLDS}
        row |= {"AP at 0.5": ap[0.5], "mSA": next(iter(measures["msa"].values()))}
        rows.append({name: round(float(value), 4) for name, value in row.items()})
    return rows


def count_errors(found: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, int]:
    """The number of errors of each kind at IoU 0.5."""
    errors = [classify_errors(one, truth) for one, truth in zip(found, truths, strict=True)]
    return {
        "nuclei": sum(len(np.unique(truth)) - 1 for truth in truths),
        "missed": sum(len(one.missed) for one in errors),
        "of these cut in two": sum(len(one.split) for one in errors),
        "wrong predictions": sum(len(one.false_positive) for one in errors),
        "of these covering several nuclei": sum(len(one.merged) for one in errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="dsb2018.zip, or another source of images")
    parser.add_argument("--epochs", type=int, help="instead of the profile's number")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--base-channels", type=int, help="instead of the profile's number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="train this network a second time instead of a new one")
    parser.add_argument("--compiled", action="store_true", help="train through torch.compile")
    parser.add_argument("--output", type=Path, default=Path("build/quality"), help="folder for the network")
    parser.add_argument("--test", action="store_true", help="score the test images, too")
    parser.add_argument("--pretrained", type=Path, metavar="FILE", help="also write it as a pretrained network")
    parser.add_argument("--name", default="quality", help="name of the result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    profile = get_profile(options.profile)
    profile = replace(
        profile,
        boundary_epochs=options.epochs or profile.boundary_epochs,
        base_channels=options.base_channels or profile.base_channels,
        compiled=options.compiled,
        pretrained=False,
    )
    data = load_data(options.data)
    settings = {"data": data_label(data.source), "profile": asdict(profile), "seed": options.seed}
    first = first_curve(options.start)
    if options.start:
        settings |= {"start": digest(options.start), FIRST: len(first)}
    history = known_curve(options.name, settings)

    def on_epoch(results):
        history[:] = first + [asdict(result) | {"epoch": len(first) + result.epoch} for result in results]
        print(results[-1], flush=True)

    if options.start:
        model = trained_again(options.start, data, profile, options.seed, options.output, on_epoch)
    else:
        model = boundary_model(data, profile, options.seed, options.output, on_epoch)
    _, val = split_train_val(data.train, profile.validation_every)
    result = {"command": command(options), **settings, "curve": history}
    for views, function in (("one view", predict), ("eight views", predict_flipped)):
        result[views] = {}
        predictions = {"validation": [function(model, normalize_percentiles(sample.image)) for sample in val]}
        if options.test:
            predictions["test"] = [function(model, normalize_percentiles(sample.image)) for sample in data.test]
        for name, method in (("watershed", watershed), ("components", components)):
            chosen = choose(method, predictions["validation"], val)
            print(f"{name}, {views}, {len(val)} validation images: {chosen['best']}", flush=True)
            result[views][name] = {"validation": chosen}
            if method is watershed:
                rows = certainty_rows(predictions["validation"], val, chosen["best"]["threshold"])
                result[views][name]["certainty"] = rows
            if options.test:
                found = cleaned(method, predictions["test"], chosen["best"]["threshold"])
                result[views][name]["test"] = scores(found, [sample.mask for sample in data.test])
                print(f"{name}, {views}, {len(found)} test images: {result[views][name]['test']}", flush=True)
    path = write(options.name, result)
    print(f"Network: {model_path(options.output, 'boundary')}. Written to {path}.")
    if options.pretrained:
        write_pretrained(options.pretrained, model, result, fingerprint(data))


def command(options: argparse.Namespace) -> str:
    """The command that repeats a result, without the places of this machine."""
    words = ["python -m benchmarks.quality", f"--data {data_label(options.data)}", f"--profile {options.profile}"]
    for name in ("epochs", "base_channels", "seed"):
        if value := getattr(options, name):
            words.append(f"--{name.replace('_', '-')} {value}")
    if options.start:
        words += [f"--start {shown(options.start)}", f"--output {shown(options.output)}"]
    words += ["--compiled"] * options.compiled + ["--test"] * options.test + [f"--name {options.name}"]
    return " ".join(words)


def shown(path: Path) -> str:
    """A path as it was given, but of one outside the checkout only the name."""
    return path.name if path.is_absolute() or ".." in path.parts else path.as_posix()


def write_pretrained(path: Path, model: UNet, result: dict, data: str) -> None:
    """Write a network with its recipe, curve and scores, and print its line for `checkpoints.PRETRAINED`.

    Raises:
        ValueError: the curve of its training is not known.
    """
    first, last = result.get(FIRST, 0), result["profile"]["boundary_epochs"]
    if len(result["curve"]) != first + last:
        raise ValueError(
            f"The curve has {len(result['curve'])} of {first + last} epochs: the result file of the training is "
            "missing, or belongs to another training. Name it with --name, or train again."
        )
    rate, seed = result["profile"]["learning_rate"], result["seed"]
    trainings = [{"epochs": first or last, "learning_rate": rate, "intensity_jitter": True, "seed": seed}]
    if first:
        trainings.append({"epochs": last, "learning_rate": rate / 2, "intensity_jitter": False, "seed": seed + 1})
    metadata = {**result["profile"], "kind": "boundary", "seed": seed, "curve": result["curve"], "trainings": trainings}
    for views in ("one view", "eight views"):
        found = result[views]["watershed"]
        metadata[f"scores, {views}"] = found.get("test", found["validation"]["best"])
    save_model(path, model, **metadata)
    print(f'    "{data}": ("{path.name}", "{digest(path)}"),')


if __name__ == "__main__":
    main()
