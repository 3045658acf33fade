"""How well do the networks of notebook 07 denoise, and what does denoising do to the segmentation?

    python -m benchmarks.denoising train --data path/to/dsb2018.zip
    python -m benchmarks.denoising train --data embedded

An interrupted training continues; what is already trained is not trained again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from course_utils.data import CourseData, load_data
from course_utils.denoising import DENOISERS, denoising_model
from course_utils.profiles import Profile, get_profile

# Sizes chosen on validation images
REAL = replace(
    get_profile("laptop"), base_channels=16, depth=3, crop_size=128, batch_size=4, crops_per_epoch=2000,
    denoising_epochs=7, learning_rate=4e-3, pretrained=False,
)  # fmt: skip
SYNTHETIC = replace(REAL, base_channels=8, denoising_epochs=3)


def profile_for(data: CourseData) -> Profile:
    """The sizes of the pretrained networks for a data set."""
    return SYNTHETIC if data.source == "embedded" else REAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("train",))
    parser.add_argument("--data", required=True, help="dsb2018.zip, or embedded")
    parser.add_argument("--kinds", nargs="+", choices=DENOISERS, default=list(DENOISERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/denoising"), help="folder for the networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(options.data)
    output = options.output / ("embedded" if data.source == "embedded" else "real")
    for kind in options.kinds:
        denoising_model(
            kind, data, profile_for(data), options.seed, output,
            on_epoch=lambda results, kind=kind: print(kind, results[-1], flush=True),
        )  # fmt: skip


if __name__ == "__main__":
    main()
