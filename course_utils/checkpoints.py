"""The networks that come with the course, so that notebooks 04 and 05 start in seconds.

Each was trained with `recipes.boundary_model` on the training images of one data set, the one for the real images then
a second time. What they were trained on, how, and what they score stands in `data/checkpoints/README.md`. For other
data there is none.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import torch

from course_utils.data import CourseData, embedded_folder
from course_utils.results import replacing, summarize_error, writing_into
from course_utils.training import EpochResult
from course_utils.unet import UNet

# What `fingerprint` gives for the data set -> the file, and its SHA-256
PRETRAINED = {
    "7c084c37": ("boundary_embedded.pt", "33ca6728afd7c85d79f4cab9695870a6e8c76970db13c8d85a25ea1021e5d34a"),
    "7f87a18b": ("boundary_dsb2018.pt", "01f36c3eb222aca685a94849fcd44eb4cee0f70df9aade57b21b12f53c3c172c"),
}


def fingerprint(data: CourseData) -> str:
    """A number for the images of a data set, whatever file they were read from."""
    number = len(data.train)  # an image that moves from one part to the other makes other data
    for sample in [*data.train, *data.test]:
        number = zlib.crc32(sample.name.encode(), number)
        number = zlib.crc32(sample.image.tobytes(), number)
    return f"{number:08x}"


def checkpoint_folder() -> Path:
    """Where the networks lie: inside the installed package, or in `data/checkpoints` of a checkout."""
    return embedded_folder().with_name("checkpoints")


def load_pretrained(data: CourseData, validation_every: int) -> tuple[UNet, list[EpochResult]] | None:
    """The network that comes with the course for a data set, and the results of its training epochs.

    Args:
        data: the data set.
        validation_every: which training images are set aside. A network that has seen them in training would make every
            choice on them worthless, so it must have been trained with the same number.

    Returns:
        None if there is no network for these data, or if its file is missing or not the one that was published.
    """
    name, expected = PRETRAINED.get(fingerprint(data), ("", ""))
    path = checkpoint_folder() / name
    if not name or not path.is_file():
        return None
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        print(f"{path} is not the file that comes with the course, and is left alone.")
        return None
    model, metadata = load_model(path)
    if metadata["validation_every"] != validation_every:
        return None
    return model, [EpochResult(**result) for result in metadata["curve"]]


def save_model(path: str | Path, model: UNet, **metadata) -> None:
    """Save a U-Net with what is needed to rebuild it.

    Args:
        path: file to write, by convention ending in `.pt`; written in one step.
        model: the network.
        metadata: values to keep with it (data source, seed, scores, ...), as plain as JSON has them.

    Raises:
        TypeError: a value of `metadata` is not plain; nothing is written.
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """
    metadata = json.loads(json.dumps(metadata))  # a NumPy number would be saved as an object, which load_model refuses
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    with writing_into(Path(path).parent), replacing(path) as file:
        torch.save({"sizes": model.sizes, "weights": state, "metadata": metadata}, file)


def load_model(path: str | Path) -> tuple[UNet, dict]:
    """Load what `save_model` saved: `(model in evaluation mode on the CPU, metadata)`.

    The file is read with `weights_only=True`: it cannot run code.

    Raises:
        ValueError: the file is no model of this course; `FileNotFoundError` if there is none.
    """
    try:
        saved = dict(torch.load(path, weights_only=True, map_location="cpu"))
        model = UNet(**saved["sizes"])
        model.load_state_dict(saved["weights"])
        metadata = saved["metadata"]
        if not isinstance(metadata, dict):
            raise TypeError(f"what it was trained on is no dictionary but {type(metadata).__name__}")
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen different types for damaged files
        raise ValueError(
            f"{path} is not a model saved by this course ({summarize_error(error)}). Delete it and train again."
        ) from error
    return model.eval(), metadata
