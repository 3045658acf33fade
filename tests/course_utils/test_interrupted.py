"""Whatever ends a training early says why, and leaves a model that can be used and a checkpoint that can be resumed.

    python3 course.py test -m slow tests/course_utils/test_interrupted.py    # Ctrl-C at 60 moments
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from saved_files import same_weights
from small_training import batches, small_unet
from torch import nn

from course_utils.losses import binary_cross_entropy, hard_dice_score
from course_utils.saving import load_sealed
from course_utils.training import FitOptions, fit

torch.set_num_threads(1)
NAN, INF = float("nan"), float("inf")


class Spoiled(nn.Module):
    """A network whose output is multiplied by a value at one step of training; `spoil` may also be an error."""

    def __init__(self, at=None, spoil=None):
        super().__init__()
        torch.manual_seed(3)
        self.unet = small_unet(batch_norm=True)
        self.__plan__ = [at, spoil, 0]  # one list for all copies; with such a name it is no part of what is compared

    def forward(self, x):
        logits = self.unet(x)
        if torch.is_grad_enabled():
            self.__plan__[2] += 1
            if self.__plan__[2] == self.__plan__[0]:
                spoil = self.__plan__[1]
                return spoil(logits) if callable(spoil) else logits * spoil
        return logits


def train(model, checkpoint=None, loss_fn=binary_cross_entropy, train_set=None, held_back=None, on_epoch=None, **more):
    """Three epochs of four steps."""
    torch.manual_seed(0)
    options = FitOptions(precision=torch.float32, checkpoint=checkpoint, on_epoch=on_epoch, **more)
    return fit(
        model, train_set or batches(2, 2, 2, 2), held_back or batches(2), loss_fn, epochs=3, learning_rate=1e-2,
        metric=hard_dice_score, options=options,
    )  # fmt: skip


def usable(model) -> bool:
    finite = all(torch.isfinite(value).all() for value in model.state_dict().values())
    return finite and not any(module.training for module in model.modules())


def infinite_gradient(logits):
    """Numbers that are all right, whose gradient is not."""
    return logits + (logits * 0).sqrt()


@pytest.fixture(scope="module")
def uninterrupted():
    model = Spoiled()
    train(model)
    return model


@pytest.mark.parametrize(
    ("at", "spoil", "when"),
    [(1, NAN, "epoch 1, step 1, the loss is nan"), (4, INF, "epoch 1, step 4, the loss is nan"),
     (6, NAN, "epoch 2, step 2, the loss is nan"), (12, NAN, "epoch 3, step 4, the loss is nan"),
     (6, infinite_gradient, "epoch 2, step 3, the loss is nan"),
     (8, infinite_gradient, "epoch 2, after step 4, a weight of the network is nan"),
     (12, infinite_gradient, "epoch 3, after step 4, a weight of the network is nan")],
)  # fmt: skip
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, uninterrupted, at, spoil, when):
    model = Spoiled(at, spoil)
    kept = []
    with pytest.raises(FloatingPointError, match=f"The training stopped: in {when}.* lower learning rate"):
        train(model, tmp_path / "net.resume", on_epoch=lambda results: kept.append(len(results)))
    assert usable(model)
    assert len(kept) == (at - 1) // 4 and (tmp_path / "net.resume").exists() == bool(kept)
    again = Spoiled()
    train(again, tmp_path / "net.resume")  # goes on from the last whole epoch
    assert same_weights(again, uninterrupted)


def test_after_it_the_weights_are_those_of_the_last_whole_epoch(tmp_path):
    model = Spoiled(8, infinite_gradient)  # the average has met a NaN
    with pytest.raises(FloatingPointError):
        train(model, tmp_path / "net.resume")
    averaged = load_sealed(tmp_path / "net.resume")["averaged"]
    assert all(torch.equal(value, averaged[f"module.{name}"]) for name, value in model.state_dict().items())


def test_also_if_the_weights_are_finite_when_it_is_noticed(tmp_path):
    def infinite(logits, target):
        loss = binary_cross_entropy(logits, target)
        calls.extend([1] * torch.is_grad_enabled())
        return loss + INF if len(calls) == 6 and torch.is_grad_enabled() else loss

    calls, model = [], Spoiled()
    with pytest.raises(FloatingPointError, match="epoch 2, step 2, the loss is inf"):
        train(model, tmp_path / "net.resume", infinite)
    averaged = load_sealed(tmp_path / "net.resume")["averaged"]
    assert all(torch.equal(value, averaged[f"module.{name}"]) for name, value in model.state_dict().items())


def test_one_huge_gradient_after_which_nothing_would_be_learned_stops_the_training(tmp_path):
    """The loss and the weights stay finite, but the mean of the squared gradients does not."""
    model = Spoiled(6, lambda logits: logits + 1e25 * (logits - logits.detach()))
    with pytest.raises(FloatingPointError, match="epoch 2, after step 4, what the optimizer remembers of the gradi"):
        train(model, tmp_path / "net.resume", average_decay=0.0)
    assert usable(model)


def test_a_validation_loss_that_is_not_finite_points_at_the_validation_images():
    def only_in_validation(logits, target):
        loss = binary_cross_entropy(logits, target)
        return loss if torch.is_grad_enabled() else loss * NAN

    with pytest.raises(FloatingPointError, match="epoch 1, the validation loss is nan.*look at the validation images"):
        train(Spoiled(), loss_fn=only_in_validation)


@pytest.mark.parametrize("value", [NAN, INF])
def test_targets_and_validation_images_that_are_not_finite_are_noticed(value):
    spoiled = batches(2)
    spoiled[0][1][0, 0, 3, 3] = value
    with pytest.raises((FloatingPointError, ValueError), match="loss is|target"):
        train(Spoiled(), train_set=spoiled)
    held_back = batches(2)
    held_back[0][0][0, 0, 3, 3] = value
    with pytest.raises(FloatingPointError, match="in epoch 1, the validation loss is nan"):
        train(model := Spoiled(), held_back=held_back)
    assert usable(model)


@pytest.mark.parametrize(
    ("loss_fn", "found"),
    [(lambda logits, target: logits, "shape"), (lambda logits, target: 0.5, "no gradient"),
     (lambda logits, target: logits.mean().detach(), "no gradient")],
)  # fmt: skip
def test_a_loss_that_is_no_scalar_with_a_gradient(loss_fn, found):
    with pytest.raises(ValueError, match=f"The loss must be a scalar tensor computed from the logits.*{found}"):
        train(Spoiled(), loss_fn=loss_fn)


def out_of_memory(kind):
    def fail(logits):
        if kind == "real":
            return torch.empty(2**50)
        raise {
            "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
            "Python": MemoryError(),
        }[kind]

    return fail


@pytest.mark.parametrize("kind", ["real", "GPU", "MPS", "Python"])
def test_too_little_memory_names_the_batch_and_what_to_set(kind):
    model = Spoiled(2, out_of_memory(kind))
    with pytest.raises(MemoryError, match="A batch of 2 images of 16 x 16 pixels.*smaller batch_size"):
        train(model)
    assert usable(model)


@pytest.mark.parametrize("where", ["metric", "batch_transform", "loader", "validation"])
def test_too_little_memory_in_each_part(where):
    def fail(*_):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED" if where == "metric" else "can't allocate memory")

    class Failing(list):
        def __iter__(self):
            yield from super().__iter__()
            fail()

    data = batches(2, 2)
    options = FitOptions(batch_transform=fail if where == "batch_transform" else None)
    train_set, held_back = (Failing(data) if where == name else data for name in ("loader", "validation"))
    with pytest.raises(MemoryError, match=r"^A (batch of 2 images of 16 x 16 pixels|whole validation image) and what"):
        fit(
            small_unet(), train_set, held_back, binary_cross_entropy, epochs=1, learning_rate=1e-3,
            metric=fail if where == "metric" else None, options=options,
        )  # fmt: skip


def test_other_errors_stay_what_they_are():
    def fail(logits):
        raise RuntimeError("the shapes do not fit")

    with pytest.raises(RuntimeError, match="the shapes do not fit"):
        train(model := Spoiled(2, fail))
    assert usable(model)


# Ctrl-C


class TimedBatches(list):
    """Batches that start the time when they are first asked for: before, the model stays as it was."""

    timer = None

    def __iter__(self):
        if self.timer.ident is None:
            self.timer.start()
        return list.__iter__(self)


def train_until_interrupted(checkpoint, seconds):
    model, timed = Spoiled(), TimedBatches(batches(2, 2, 2, 2))
    TimedBatches.timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    try:
        train(model, checkpoint, train_set=timed)
        TimedBatches.timer.cancel()
        TimedBatches.timer.join()
        return model, False
    except KeyboardInterrupt:
        return model, True
    finally:
        TimedBatches.timer = None


def check_moment(checkpoint, uninterrupted, seconds) -> bool:
    """Interrupt at one moment, look at the model, resume; whether the training was interrupted."""
    model, was_interrupted = train_until_interrupted(checkpoint, seconds)
    assert usable(model)
    again = Spoiled()
    TimedBatches.timer = threading.Thread()
    train(again, checkpoint, train_set=TimedBatches(batches(2, 2, 2, 2)))
    assert same_weights(again, uninterrupted)
    assert list(checkpoint.parent.iterdir()) == []
    return was_interrupted


def how_long() -> float:
    start = time.perf_counter()
    train(Spoiled())
    return time.perf_counter() - start


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers Ctrl-C to all processes of the console")
def test_ctrl_c_at_some_moments(tmp_path, uninterrupted):
    whole, rng = how_long(), random.Random(0)
    moments = [whole * rng.random() for _ in range(8)]
    assert sum(check_moment(tmp_path / "net.resume", uninterrupted, moment) for moment in moments) >= 1


@pytest.mark.slow
def test_ctrl_c_at_any_moment(tmp_path, uninterrupted):
    whole, rng = how_long(), random.Random(1)
    moments = [whole * rng.random() for _ in range(60)]
    interrupted = sum(check_moment(tmp_path / "net.resume", uninterrupted, moment) for moment in moments)
    print(f"{interrupted} of 60 were interrupted")
    assert interrupted >= 10


@pytest.mark.parametrize("where", ["on_epoch", "loss", "validation", "before the first step"])
def test_ctrl_c_in_each_part(tmp_path, uninterrupted, where):
    class Loader(list):
        stop = None

        def __iter__(self):
            Loader.passes += 1
            for number, batch in enumerate(list.__iter__(self)):
                if self.stop == (Loader.passes, number):
                    raise KeyboardInterrupt
                yield batch

    Loader.passes = 0
    train_set, held_back = Loader(batches(2, 2, 2, 2)), Loader(batches(2))
    Loader.stop = {"before the first step": (1, 0), "loss": (3, 2), "validation": (4, 0)}.get(where)

    def on_epoch(results):
        if where == "on_epoch" and len(results) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model := Spoiled(), tmp_path / "net.resume", train_set=train_set, held_back=held_back, on_epoch=on_epoch)
    assert usable(model)
    Loader.stop = None
    again = Spoiled()
    train(again, tmp_path / "net.resume", train_set=train_set, held_back=held_back)
    assert same_weights(again, uninterrupted)


# the disk


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_training_in_words_and_keeps_the_checkpoint(tmp_path, monkeypatch, uninterrupted):
    def on_epoch(results):
        if len(results) == 1:
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left|full") as caught:
        train(model := Spoiled(), tmp_path / "net.resume", on_epoch=on_epoch)
    assert str(tmp_path) in str(caught.value)
    assert usable(model)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["net.resume"]
    again = Spoiled()
    train(again, tmp_path / "net.resume")
    assert same_weights(again, uninterrupted)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 64 KiB, where this user may mount one."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("this user cannot mount a small file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    with pytest.raises(OSError, match="No space left|full"):
        train(model := Spoiled(), small_disk / "net.resume")
    assert usable(model) and list(small_disk.iterdir()) == []


# killed


def train_forever(checkpoint: str) -> None:
    while True:
        with contextlib.suppress(RuntimeError):
            train(Spoiled(), checkpoint)


def kill_while_saving(checkpoint: Path, times: int) -> int:
    """Kill trainings that save all the time; how often a temporary file was left."""
    left, rng = 0, random.Random(0)
    for _ in range(times):
        process = multiprocessing.get_context("fork").Process(target=train_forever, args=(str(checkpoint),))
        process.start()
        time.sleep(0.3 + rng.random() / 3)
        process.kill()
        process.join()
        left += bool(list(checkpoint.parent.glob(".*.partial")))
        if checkpoint.exists():
            load_sealed(checkpoint)  # whole, or it raises
    return left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_checkpoint_is_whole(tmp_path, uninterrupted, times):
    print(f"{kill_while_saving(tmp_path / 'net.resume', times)} of {times} left a temporary file")
    again = Spoiled()
    child = multiprocessing.get_context("fork").Process(target=train, args=(again, tmp_path / "net.resume"))
    child.start()  # a new process, which finds what the killed ones left
    child.join()
    assert child.exitcode == 0 and list(tmp_path.iterdir()) == []
