"""No right answer is refused because the machine is busy, or because it is the first to use something.

Every right solution of these tests is checked three times, each time in a process that has not used anything yet,
while eight others keep two processors busy. It takes about ten minutes on a machine that is otherwise quiet:

    python -m pytest -m slow tests/course_utils/exercises/checks/test_under_load.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from course_utils.exercises import evaluate, get_exercise, list_exercises

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="chooses two processors, as Linux allows"),
]
ROUNDS = 3
SPINNING = """
import os, time
parent, end = os.getppid(), time.monotonic() + 3600
while os.getppid() == parent and time.monotonic() < end:
    pass
"""

# What the first use makes slow, in a new process of Python. Each prints the result of the check.
FRESH = {
    "torchvision, as the hint advises": """
        import numpy as np, torch
        class answer(torch.utils.data.Dataset):
            def __init__(self, images, masks, target_transform, crop_size=256, augment=False, seed=0):
                self.pairs, self.target_transform, self.size = list(zip(images, masks)), target_transform, crop_size
                self.augment, self.seed = augment, seed
                if any(min(image.shape) < crop_size for image in images):
                    raise ValueError(f"{[image.shape for image in images]} and crop_size {crop_size}")
            def __len__(self):
                return len(self.pairs)
            def __getitem__(self, index):
                from torchvision import tv_tensors
                from torchvision.transforms import v2
                rng = np.random.default_rng([self.seed, int(torch.randint(2**62, ()))])
                image, mask = self.pairs[index]
                top, left = (int(rng.integers(side - self.size + 1)) for side in image.shape)
                window = slice(top, top + self.size), slice(left, left + self.size)
                image = tv_tensors.Image(torch.from_numpy(image[window].astype("float32"))[None])
                mask = tv_tensors.Mask(torch.from_numpy(mask[window].astype("int64"))[None])
                if self.augment:
                    turns = v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)])
                    image, mask = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), turns])(image, mask)
                return image.as_subclass(torch.Tensor), self.target_transform(mask[0].numpy())
        exercise = "1.7"
    """,
    "F.pad": """
        import numpy as np, torch
        import torch.nn.functional as F
        def answer(image, multiple=16):
            height, width = image.shape
            padded = torch.from_numpy(image.astype("float32"))[None, None]
            F.pad(padded, (0, -width % multiple, 0, -height % multiple), mode="replicate")
            return np.pad(image, ((0, -height % multiple), (0, -width % multiple)), mode="reflect"), (height, width)
        exercise = "2.5"
    """,
    "stardist, F1": """
        def answer(prediction, truth, iou_threshold=0.5):
            from stardist.matching import matching
            if prediction.shape != truth.shape:
                raise ValueError(f"found {prediction.shape} and {truth.shape}")
            found = matching(truth, prediction, thresh=iou_threshold)
            return float(found.f1) if found.n_true or found.n_pred else 1.0
        exercise = "4.5"
    """,
    "stardist, IoU": """
        import numpy as np
        def answer(prediction, truth):
            from skimage.segmentation import relabel_sequential
            from stardist.matching import label_overlap
            if prediction.shape != truth.shape:
                raise ValueError(f"found {prediction.shape} and {truth.shape}")
            overlap = label_overlap(relabel_sequential(prediction)[0], relabel_sequential(truth)[0]).astype(float)
            union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
            return overlap[1:, 1:] / union[1:, 1:]
        exercise = "4.3"
    """,
}


@pytest.fixture(scope="module")
def busy():
    """Two processors with eight processes on them, and this one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    # Linux may share processors between sessions: each gets its own, as programs of other users have.
    spinning = [subprocess.Popen([sys.executable, "-c", SPINNING], start_new_session=True) for _ in range(8)]
    try:
        yield
        assert all(one.poll() is None for one in spinning)
    finally:
        for one in spinning:
            one.kill()
            one.wait()
        os.sched_setaffinity(0, before)


def solutions():
    for path in sorted(Path(__file__).parent.glob("test_notebook_*.py")):
        for kind in vars(import_module(path.stem)).values():
            for exercise_id, table in getattr(kind, "right", {}).items():
                yield from ((exercise_id, number, solution) for number, solution in enumerate(table))
    for exercise in list_exercises():
        yield exercise.id, "reference", exercise.reference


def status_in_new_process(exercise_id, solution) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = evaluate(exercise_id, solution)
            os.write(writing, b"passed" if result.status == "passed" else result.messages[0].encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, encoding="utf-8") as file:
        return file.read()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_right_answer_passes(busy):
    table = list(solutions())
    assert len(table) > 100 and {exercise_id for exercise_id, *_ in table} == {one.id for one in list_exercises()}
    for exercise_id, _, _ in table:
        get_exercise(exercise_id).check  # noqa: B018 (imports what a notebook has loaded, too)
    refused = [
        (number, exercise_id, which, status)
        for number in range(ROUNDS)
        for exercise_id, which, solution in table
        if (status := status_in_new_process(exercise_id, solution)) != "passed"
    ]
    assert not refused


@pytest.mark.parametrize("example", FRESH)
def test_the_first_use_of_a_library_costs_nothing(example, busy):
    says = """
        from course_utils.exercises import evaluate
        result = evaluate(exercise, answer)
        print(result.status, result.messages[0])
    """
    source = textwrap.dedent(FRESH[example]) + textwrap.dedent(says)
    for _ in range(5):
        run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=600)
        assert run.stdout.startswith("passed"), run.stdout + run.stderr
