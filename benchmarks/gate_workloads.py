"""What the speed gate times: scoring, prediction and training step, each beside a plain way to do the same work.

`gate.py` starts this file as a process of its own, with the checkout to measure in PYTHONPATH. So it uses nothing but
the public functions of `course_utils`. The process says in its first line which machine it runs on; for each line that
it then reads it measures one round and writes `{name: log(seconds of the course / seconds of the plain way)}`.

Everything runs on the CPU in one thread, and a turn takes 5 to 50 ms: what else the machine does disturbs both ways
alike. Data and networks are made here, so that no other pretrained network changes what is measured.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import course_utils
from course_utils.device import choose_precision
from course_utils.losses import binary_cross_entropy
from course_utils.metrics import MSA_THRESHOLDS, f1_score, match_instances
from course_utils.segmentation import predict
from course_utils.training import fit, train_epoch
from course_utils.unet import UNet

BASE_CHANNELS = 8
TURNS = 3
Pair = tuple[Callable[[], object], Callable[[], object]]  # the course's way and the plain one


class PlainUNet(nn.Module):
    """The network of the course with the same weights in the same order, in plain torch: a slower `UNet` is noticed."""

    def __init__(self, depth: int = 4):
        super().__init__()
        channels = [BASE_CHANNELS * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList([self.block(a, b) for a, b in zip([1, *channels], channels, strict=False)])
        steps = list(zip(channels[::-1], channels[-2::-1], strict=False))
        self.up = nn.ModuleList(
            [nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2), self.block(2 * b, b)]) for a, b in steps]
        )
        self.output = nn.Conv2d(BASE_CHANNELS, 1, 1)

    @staticmethod
    def block(before: int, after: int) -> nn.Module:
        first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, x):
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for transposed, block in self.up:
            x = block(torch.cat([skips.pop(), transposed(x)], dim=1))
        return self.output(x)


def networks() -> tuple[UNet, PlainUNet]:
    """The two networks, with equal weights."""
    torch.manual_seed(0)
    course, plain = UNet(1, 1, BASE_CHANNELS), PlainUNet()
    with torch.no_grad():
        for own, weights in zip(plain.parameters(), course.parameters(), strict=True):
            own.copy_(weights)
    return course, plain


def scoring() -> Pair:
    """The F1 of 3 images of 100 nuclei at ten thresholds with `match_instances`, of one at two with `f1_score`.

    Done so, both take about as long. If one took much longer, other programs would interrupt it more often than the
    other, and the ratio would depend on them: it was 0.03 on a busy machine and 0.06 on a quiet one.
    """
    pairs = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = np.kron(rng.permutation(100).reshape(10, 10) + 1, np.ones((12, 12), int))
        truth[::12], truth[:, ::12] = 0, 0
        pairs.append((np.roll(truth, rng.integers(1, 5), axis=1), truth))

    def course() -> list[list[float]]:
        return [[one.f1 for one in match_instances(found, truth, MSA_THRESHOLDS)] for found, truth in pairs]

    def plain() -> list[list[float]]:
        return [[f1_score(found, truth, threshold) for threshold in MSA_THRESHOLDS[:2]] for found, truth in pairs[:1]]

    return course, plain


def prediction() -> Pair:
    """The probabilities of 2 images: `predict`, and a loop that pads, asks the plain network and cuts."""
    network, plain_network = networks()
    images = [np.random.default_rng(seed).random((90, 120), dtype=np.float32) for seed in range(2)]

    def course() -> list[np.ndarray]:
        return [predict(network, image) for image in images]

    def plain() -> list[np.ndarray]:
        found = []
        with torch.no_grad():
            for image in images:
                padded = np.pad(image, ((0, 6), (0, 8)), mode="reflect")
                logits = plain_network(torch.from_numpy(padded)[None, None])[0]
                found.append(torch.sigmoid(logits)[:, :90, :120].numpy())
        return found

    return course, plain


def training_step() -> Pair:
    """An epoch of 3 steps with 2 crops: `fit`, with its start and end, and `train_epoch` with the plain network."""
    network, plain_network = networks()
    optimizer = torch.optim.Adam(plain_network.parameters(), lr=1e-4)
    rng = torch.Generator().manual_seed(0)
    images = torch.rand((3, 2, 1, 64, 64), generator=rng)
    batches = [(image, (image > 0.5).float()) for image in images]
    tiny = [(images[0, :1, :, :16, :16], batches[0][1][:1, :, :16, :16])]

    def course() -> float:
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            [result] = fit(network, batches, tiny, binary_cross_entropy, epochs=1, learning_rate=1e-4)
        return result.train_loss

    def plain() -> float:
        return train_epoch(plain_network, batches, binary_cross_entropy, optimizer)[0]

    return course, plain


WORKLOADS: dict[str, Callable[[], Pair]] = {
    "scoring": scoring, "prediction": prediction, "training step": training_step,
}  # fmt: skip


def log_ratio(pair: Pair, course_first: bool, clock: Callable[[], float] = time.perf_counter) -> float:
    """The logarithm of how much longer the course's way takes than the plain one.

    Both are timed `TURNS` times in turn, and the shortest time of each counts: that of a turn in which the system gave
    the processor to nobody else, if there was one.
    """
    seconds: dict[Callable, list[float]] = {function: [] for function in pair}
    for _ in range(TURNS):
        for function in pair if course_first else reversed(pair):
            start = clock()
            function()
            seconds[function].append(clock() - start)
    course, plain = pair
    return math.log(min(seconds[course]) / min(seconds[plain]))


def machine() -> dict[str, str]:
    """What decides the ratios, besides the code: on machines that differ in any of it they cannot be compared."""
    import scipy

    from workshop.run.machine import processor_name

    features = ("amx_tile", "avx512_bf16")
    own = [name for name in features if getattr(torch.cpu, f"_is_{name}_supported", lambda: False)()]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "instructions": ", ".join([torch.backends.cpu.get_cpu_capability(), *own]),
        "precision": str(choose_precision(torch.device("cpu"))).removeprefix("torch."),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def serve() -> None:
    """Measure a round for each line of the standard input."""
    torch.set_num_threads(1)
    pairs = {name: make() for name, make in WORKLOADS.items()}
    for pair in pairs.values():
        for _ in range(3):
            log_ratio(pair, True)  # the first calls load libraries and ask for memory
    print(json.dumps({"package": str(Path(course_utils.__file__).parent), "machine": machine()}), flush=True)
    for number, _ in enumerate(sys.stdin):
        print(json.dumps({name: log_ratio(pair, number % 2 == 0) for name, pair in pairs.items()}), flush=True)


if __name__ == "__main__":
    serve()
