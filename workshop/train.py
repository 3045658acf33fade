"""Train the networks of the course outside the notebooks: on one GPU or CPU, or on several at once.

    python -m workshop.train --data dsb2018 --profile full --output output
    torchrun --standalone --nproc-per-node 2 -m workshop.train --data dsb2018 --profile full --output output

The second line starts one process for each of two GPUs (`course_utils.distributed`). Notebooks 04 and 05 with the
same `data_source`, `profile`, `seed` and `output` find the networks and load them. The same command resumes an
interrupted training.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path

from course_utils.data import load_data
from course_utils.device import choose_device, describe_device
from course_utils.distributed import join_process_group, launched_by_torchrun, leave_process_group
from course_utils.networks import binary_model, boundary_model, model_path
from course_utils.profiles import get_profile
from course_utils.results import prepare_output
from course_utils.training import EpochResult
from workshop.paths import resolve_data_source

NETWORKS = {"binary": "the foreground network of notebooks 03 and 04", "boundary": "the network of notebook 05"}


def main(arguments: list[str] | None = None) -> int:
    """Train the networks asked for and return the exit code: 0 after success, 1 after an error in one sentence."""
    options = make_parser().parse_args(arguments)
    first = not launched_by_torchrun() or os.environ["RANK"] == "0"
    # Only the first process prints; its line of progress and all errors go to standard error.
    with contextlib.nullcontext() if first else contextlib.redirect_stdout(io.StringIO()):
        try:
            train(options.data, options.profile, options.output, options.seed, options.only or list(NETWORKS))
        except (ValueError, OSError) as error:
            if first:
                print(f"workshop.train: {error}", file=sys.stderr, flush=True)
            return 1
        except KeyboardInterrupt:
            if first:
                print("\nInterrupted; the same command resumes after the last epoch.", file=sys.stderr, flush=True)
            return 130
    leave_process_group()
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        "python -m workshop.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", default="embedded",
                        help="embedded (default), dsb2018, kaggle, auto, or the path of a folder or zip")  # fmt: skip
    parser.add_argument("--profile", metavar="NAME", default="auto",
                        help="smoke, laptop, full, or auto (default): full with a GPU, else laptop")  # fmt: skip
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=Path("output"),
                        help="what the notebooks call `output` (default: output)")  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="as in the notebooks (default 0)")
    parser.add_argument("--only", metavar="NETWORK", choices=NETWORKS, action="append",
                        help="; ".join(f"{name}: {text}" for name, text in NETWORKS.items()))  # fmt: skip
    return parser


def train(data: str, profile: str, output: Path, seed: int, networks: list[str]) -> None:
    """Train networks into a folder; one that is already there, trained with the same settings, is kept.

    Args:
        data: as for `load_data`. A path is made absolute, as `course.py run` passes it to the notebooks.
        profile: name of a profile, or "auto".
        output: the folder that the notebooks call `output`.
        seed: for crops, weights and noise.
        networks: "binary", "boundary".

    Raises:
        ValueError: there is no such profile or data, there are too few images, or the processes cannot train together.
        OSError: nothing can be saved in the folder.
    """
    if seed < 0:
        raise ValueError(f"The seed is {seed}: give 0 or a positive integer.")
    sizes = get_profile(profile)
    images = load_data(data := resolve_data_source(data))
    prepare_output(model_path(output, "any").parent)
    device = choose_device()
    group = join_process_group(device)
    print(f"Data: {images.note}\nProfile: {sizes.name}\nDevice: {describe_device(device)}", flush=True)
    if group.size > 1:
        print(f"Processes: {group.size}, each with a share of every batch of {sizes.batch_size}", flush=True)
    if "binary" in networks:
        print("Binary network", flush=True)
        binary_model(images, sizes, seed, output, on_epoch=_say)
    if "boundary" in networks:
        print("Boundary network", flush=True)
        boundary_model(images, sizes, seed, output, on_epoch=_say, pretrained=False)


def _say(results: list[EpochResult]) -> None:
    last = results[-1]
    print(
        f"epoch {last.epoch}: training loss {last.train_loss:.4f}, validation loss {last.validation_loss:.4f}, "
        f"validation Dice {last.validation_metric:.4f} ({last.seconds:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
