"""The networks that come with the course, so that notebooks 04 and 05 start in seconds.

Each was trained with `recipes.boundary_model` on the training images of one data set, the one for the real images then
a second time. What they were trained on, how, and what they score stands in `data/checkpoints/README.md`. For other
data there is none.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from course_utils.data import CourseData, embedded_folder
from course_utils.training import EpochResult, load_model
from course_utils.unet import UNet

# What `fingerprint` gives for the data set -> the file, and its SHA-256
SHIPPED = {
    "7c084c37": ("boundary_embedded.pt", "2e0607b00178da7990f577600f91cad744dc72fdd682a58560a0ae26d45bf8ff"),
    "7f87a18b": ("boundary_dsb2018.pt", "983c8b814e4b071a81671770dbecf88dbd76f558a4929fb4688466e246a94f8e"),
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


def load_shipped(data: CourseData, validation_every: int) -> tuple[UNet, list[EpochResult]] | None:
    """The network that comes with the course for a data set, and the results of its training epochs.

    Args:
        data: the data set.
        validation_every: which training images are set aside. A network that has seen them in training would make every
            choice on them worthless, so it must have been trained with the same number.

    Returns:
        None if there is no network for these data, or if its file is missing or not the one that was published.
    """
    name, expected = SHIPPED.get(fingerprint(data), ("", ""))
    path = checkpoint_folder() / name
    if not name or not path.is_file():
        return None
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        print(f"{path} is not the file that comes with the course, and is left alone.")
        return None
    model, about = load_model(path)
    if about["validation_every"] != validation_every:
        return None
    return model, [EpochResult(**result) for result in about["curve"]]
