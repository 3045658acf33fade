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
from course_utils.device import MixedPrecision, keep_order
from course_utils.results import summarize_error
from course_utils.saving import all_finite, load_sealed, save_sealed
from course_utils.training import EpochResult
from course_utils.unet import UNet

# What `fingerprint` gives for the data set -> for each kind of network the file, and its SHA-256
PRETRAINED = {
    "2eda5cb8": {
        "boundary": ("boundary_embedded.pt", "a92dd4c3e2658f6e0af8bd42de85847601726aa0dac5738f3b0abd340754d60c"),
        "supervised": ("supervised_embedded.pt", "367c09d925443381e677ee3f75c4a21055bb3aaa055de6af75692079b1bf6ceb"),
        "noise2noise": ("noise2noise_embedded.pt", "e08dd2cf7d64012bd2761c9bd1e15122aebf1870934e7c4e241beb88b7f7bf66"),
        "clipped": ("clipped_embedded.pt", "dc63e38f1a5cc9ade1f0223be7a44835dc7c079bad1d7349d2ff182e1688270e"),
    },
    "70d482ea": {
        "boundary": ("boundary_dsb2018.pt", "99069fa3d332665446e4e68a33cf767daf2eeb7700cdcdf57be96ac35df634e4"),
        "supervised": ("supervised_dsb2018.pt", "2be60ed3ebd7da6f81b4ed953a861fcd48223821e6c12760a451d06b1ffdab3b"),
        "noise2noise": ("noise2noise_dsb2018.pt", "72b43ae3285d34db40582f4ed5d8361f1bc6fbd9da0630c68cd497943b04e0ff"),
        "clipped": ("clipped_dsb2018.pt", "9bf7637c51fb06eb7fa2989f03f5ee82d12333d7aef20873e5304e724cd243d7"),
    },
}
_DTYPES = {"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16", "torch.int64"}


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
        ValueError: `model` could not be loaded again: not a U-Net of this course, or changed after it was built; or a
            weight is NaN or infinite.
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
    if other := {str(value.dtype) for value in state.values()} - _DTYPES:
        raise ValueError(f"Only networks of 16, 32 or 64 bit floats can be saved, but there are {', '.join(other)}.")
    if not all_finite({name: value.float() for name, value in state.items()}):
        raise ValueError("The network has weights that are NaN or infinite: train it again before you save it.")
    save_sealed(path, {"sizes": network.sizes, "weights": state, "metadata": metadata})


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

    The file is read with `saving.load_sealed`: it cannot run code, and a file with any changed byte is refused.

    Raises:
        ValueError: the file is not a model of this course, is damaged, or has weights that are NaN or infinite; the
            message says what is known of it.
        FileNotFoundError: there is no such file.
    """
    saved = None
    try:
        saved = load_sealed(path)
        weights, depth = _bare_names(saved["weights"]), saved["sizes"]["depth"]
        if depth > 16:
            raise ValueError(f"its network has {depth} levels")
        with torch.device("meta"):  # without memory, whatever sizes the file names
            UNet(**saved["sizes"]).load_state_dict(weights, assign=True)
        model = UNet(**saved["sizes"])
        model.load_state_dict(weights)
        if not all_finite(model.state_dict()):
            raise ValueError("it has weights that are NaN or infinite")
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
    return keep_order(model).eval(), metadata
