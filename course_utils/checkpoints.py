"""Saved networks, and the pretrained ones with which notebooks 04, 05, 07 and 08 start in seconds.

Each pretrained network was trained on the training images of one data set: with `networks.boundary_model`, the one for
the real images then a second time, or with `denoising.denoising_model`. `data/checkpoints/README.md` says on what they
were trained, how, and what they score. There is none for other data.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch

from course_utils.data import CourseData, embedded_folder, fingerprint
from course_utils.device import MixedPrecision
from course_utils.results import replacing, summarize_error, writing_into
from course_utils.training import EpochResult
from course_utils.unet import UNet

# What `fingerprint` gives for the data set -> for each kind of network the file, and its SHA-256
PRETRAINED = {
    "2eda5cb8": {
        "boundary": ("boundary_embedded.pt", "33ca6728afd7c85d79f4cab9695870a6e8c76970db13c8d85a25ea1021e5d34a"),
        "supervised": ("supervised_embedded.pt", "83e5f9323fb799c3165f688fd203981b598b1fbe8da1f770ab00b703259bfdb3"),
        "noise2noise": ("noise2noise_embedded.pt", "d2ba53c482dec0884e469ee1f93db24f370dc029e549c726557c847b53971e73"),
        "clipped": ("clipped_embedded.pt", "fd9704bf5a7eab076c090f3238cbb4d4e74d91da70d14064a5e89bd4a134f3aa"),
    },
    "70d482ea": {
        "boundary": ("boundary_dsb2018.pt", "01f36c3eb222aca685a94849fcd44eb4cee0f70df9aade57b21b12f53c3c172c"),
        "supervised": ("supervised_dsb2018.pt", "39988188e22d82e12f57bc6da8f44fdf26b275fde4f03a5892347a3b8525ce37"),
        "noise2noise": ("noise2noise_dsb2018.pt", "e15bb6ee68bb352df3816d018b5ad95ccf989700c3ca9d71231e7b4a47de0e30"),
        "clipped": ("clipped_dsb2018.pt", "ee2f0fbfce471fa1a08197bdc3a3c2fed5b1888b68dfd7efc00a182487d55222"),
    },
}


def checkpoint_folder() -> Path:
    """The folder of the pretrained networks: inside the installed package, or in `data/checkpoints` of a checkout."""
    return embedded_folder().with_name("checkpoints")


def load_pretrained(
    data: CourseData, validation_every: int, kind: str = "boundary"
) -> tuple[UNet, list[EpochResult]] | None:
    """The pretrained network for a data set, and the results of its training epochs.

    Args:
        data: the data set.
        validation_every: with 8, every 8th training image is set aside for validation. The network must have been
            trained with the same number; otherwise it has seen the validation images.
        kind: "boundary", or one of `denoising.DENOISERS`.

    Returns:
        None if there is no network for these data, or if its file is missing or not the published one.
    """
    name, expected = PRETRAINED.get(fingerprint(data), {}).get(kind, ("", ""))
    path = checkpoint_folder() / name
    if not name or not path.is_file():
        return None
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        print(f"{path} is not the published file and is not used.")
        return None
    model, metadata = load_model(path)
    if metadata["validation_every"] != validation_every:
        return None
    return model, [EpochResult(**result) for result in metadata["curve"]]


def save_model(path: str | Path, model: UNet, **metadata) -> None:
    """Save a U-Net with what is needed to rebuild it.

    Args:
        path: file to write, by convention ending in `.pt`; written in one step.
        model: the network, also inside what `torch.compile`, `DataParallel`, `AveragedModel` and the like return: what
            is saved is the same.
        metadata: values to keep with it (data source, seed, scores, ...), as plain as JSON has them.

    Raises:
        TypeError: a value of `metadata` is not plain; nothing is written.
        ValueError: `model` could not be loaded again: not a U-Net of this course, or changed after it was built.
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """
    metadata = json.loads(json.dumps(metadata))  # a NumPy number would be saved as an object, which load_model refuses
    try:
        network = _unwrapped(model)
        state = {name: value.detach().cpu() for name, value in _bare_names(network.state_dict()).items()}
        with torch.device("meta"):  # without memory
            UNet(**network.sizes).load_state_dict(state, assign=True)
    except (AttributeError, TypeError, RuntimeError) as error:
        reason = summarize_error(error)
        raise ValueError(f"Only a U-Net of this course can be saved and loaded again ({reason}).") from error
    with writing_into(Path(path).parent), replacing(path) as file:
        torch.save({"sizes": network.sizes, "weights": state, "metadata": metadata}, file)


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The network itself, without what `torch.compile`, parallel training, averages, mixed precision put around it."""
    parts = dict(model.named_children())
    names = ["_orig_mod", "module"] + ["model"] * isinstance(model, MixedPrecision)
    inner = [parts[name] for name in names if name in parts]
    return _unwrapped(inner[0]) if inner else model


def _bare_names(weights: dict) -> dict:
    """Weights by the names they have without wrappers, of the network or of its parts."""
    return {re.sub(r"(^|\.)(_orig_mod\.|module\.)+", r"\1", name): value for name, value in weights.items()}


def load_model(path: str | Path) -> tuple[UNet, dict]:
    """Load what `save_model` saved: `(model in evaluation mode on the CPU, metadata)`.

    The file is read with `weights_only=True`: it cannot run code.

    Raises:
        ValueError: the file is not a model of this course; the message says what is known of it.
        FileNotFoundError: there is no such file.
    """
    saved = None
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        model = UNet(**saved["sizes"])
        model.load_state_dict(_bare_names(saved["weights"]))
        metadata = saved["metadata"]
        if not isinstance(metadata, dict):
            raise TypeError(f"its metadata are not a dictionary but of type {type(metadata).__name__}")
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen different types for damaged files
        what = f"It holds {[*saved][:3]}" if isinstance(saved, dict) else "It may be damaged, or of another program"
        raise ValueError(
            f"{path} is not a model saved by this course ({summarize_error(error)}). {what}. "
            "Choose another file, or move this one away and train again."
        ) from error
    return model.eval(), metadata
