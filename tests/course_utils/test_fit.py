"""The training of notebooks 04 and 05: averaged weights, precision, and checkpoints that are resumed."""

from __future__ import annotations

import copy
import io
import math
import multiprocessing
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_files import DAMAGES, Exploit, damaged, same_weights
from small_training import batches, small_unet
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from course_utils import training
from course_utils.checkpoints import save_model
from course_utils.dataset import NucleiDataset, training_loader
from course_utils.losses import binary_cross_entropy, dice_score, hard_dice_score
from course_utils.saving import load_sealed, save_sealed, seal
from course_utils.targets import binary_target
from course_utils.training import EpochResult, FitOptions, fit, jitter_intensity, train_epoch, validate

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


PLAIN = {"batch_transform": None, "average_decay": 0.0, "precision": torch.float32}


def fit_small(
    model=None, data=None, held_back=None, loss_fn=binary_cross_entropy, epochs=1, learning_rate=1e-2, metric=None,
    **options,
) -> list[EpochResult]:  # fmt: skip
    """`fit` with everything switched off that `options` does not switch on."""
    return fit(
        model or nn.Conv2d(1, 1, 1), data or batches(1, 2), held_back or batches(1), loss_fn, epochs=epochs,
        learning_rate=learning_rate, metric=metric, options=FitOptions(**PLAIN | options),
    )  # fmt: skip


def test_with_everything_switched_off_fit_is_a_loop_of_train_epoch():
    model, twin = small_unet(), small_unet()
    twin.load_state_dict(model.state_dict())
    data, held_back = batches(2, 2, 1), batches(1, 1)
    results = fit_small(model, data, held_back, epochs=4, metric=dice_score)

    twin.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=12, pct_start=0.2)

    def with_schedule():
        for batch in data:
            yield batch
            schedule.step()

    for result in results:
        trained = train_epoch(twin, with_schedule(), binary_cross_entropy, optimizer, dice_score)
        validated = validate(twin, held_back, binary_cross_entropy, dice_score)
        assert (result.train_loss, result.train_metric) == pytest.approx(trained, rel=1e-4)
        assert (result.validation_loss, result.validation_metric) == pytest.approx(validated, rel=1e-4)
    assert [result.epoch for result in results] == [1, 2, 3, 4]
    for name, value in twin.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-6)


@pytest.mark.parametrize("steps", range(1, 8))
def test_fit_works_for_any_number_of_steps(steps):
    [result] = fit_small(data=batches(*[1] * steps))
    assert math.isfinite(result.train_loss)


def test_the_learning_rate_rises_and_falls_once(monkeypatch):
    rates = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    fit_small(data=batches(*[1] * 10), epochs=2)
    peak = int(np.argmax(rates))
    assert len(rates) == 20 and rates[peak] == pytest.approx(1e-2) and 1 <= peak <= 5
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_kept_weights_are_the_average_that_was_validated(batch_norm):
    model, last = small_unet(batch_norm=batch_norm), []
    held_back = batches(2)
    results = fit_small(
        model, batches(2, 2, 2), held_back, epochs=3, metric=dice_score, average_decay=0.9,
        on_epoch=lambda _: last.append(copy.deepcopy(model)),
    )  # fmt: skip
    assert not model.training
    for name, value in model.state_dict().items():  # also of the statistics of batch normalisation, not of counters
        assert torch.equal(value, last[-1].state_dict()[name]) == name.endswith("num_batches_tracked"), name
    final = validate(model, held_back, binary_cross_entropy, dice_score)
    assert final == pytest.approx((results[-1].validation_loss, results[-1].validation_metric), rel=1e-5)


def test_the_average_weighs_each_step_as_its_definition_says(monkeypatch):
    steps = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            super().step(closure)
            steps.append([parameter.detach().clone() for parameter in self.param_groups[0]["params"]])

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    model = nn.Conv2d(1, 1, 1)
    fit_small(model, batches(1, 1, 1, 1), epochs=2, learning_rate=0.5, average_decay=0.3)
    expected = steps[0]
    for n, parameters in enumerate(steps[1:], start=1):
        keep = min(0.3, (1 + n) / (10 + n))  # short at first, so that the random start soon fades
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected, parameters, strict=True)]
    assert len(steps) == 8
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(model.parameters(), expected, strict=True))
    assert not torch.allclose(model.weight, steps[-1][0], atol=1e-3)


class OverflowsFirst(torch.amp.GradScaler):
    """A scaler whose first loss has gradients that float16 cannot hold."""

    done = 0

    def scale(self, loss):
        self.done += 1
        return super().scale(loss * torch.inf if self.done == 1 else loss)


@pytest.mark.filterwarnings("error")
def test_a_step_that_overflows_in_float16_counts_neither_for_the_schedule_nor_for_the_average(monkeypatch):
    averages, rates = [], []

    class Average(AveragedModel):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            averages.append(self)

    class Schedule(torch.optim.lr_scheduler.OneCycleLR):
        def step(self):
            super().step()
            rates.append(self.last_epoch)

    monkeypatch.setattr(torch.amp, "GradScaler", OverflowsFirst)
    monkeypatch.setattr(training, "AveragedModel", Average)
    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", Schedule)
    model = small_unet()
    fit_small(model, batches(2, 2, 2), precision=torch.float16)
    assert [int(average.n_averaged) for average in averages] == [2] and rates == [0, 1, 2]
    assert all(value.isfinite().all() for value in model.parameters())


def test_in_float32_there_is_no_autocast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: pytest.fail("autocast in float32"))
    assert len(fit_small()) == 1


def test_after_every_epoch_the_results_so_far_are_reported_without_a_metric_if_there_is_none():
    seen, start = [], time.perf_counter()
    results = fit_small(epochs=3, on_epoch=lambda results: seen.append([result.epoch for result in results]))
    assert seen == [[1], [1, 2], [1, 2, 3]]
    assert all(result.train_metric is None and result.validation_metric is None for result in results)
    assert all(result.seconds > 0 for result in results)
    assert sum(result.seconds for result in results) <= time.perf_counter() - start


def test_a_metric_may_be_a_python_number():
    (result,) = fit_small(metric=lambda logits, targets: float(len(logits)))
    assert result.train_metric == pytest.approx((1 * 1 + 2 * 2) / 3)
    assert result.validation_metric == 1


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_fit_learns_in_every_precision_and_keeps_float32_weights(precision):
    model, kinds = small_unet(batch_norm=True), set()

    def loss_fn(logits, targets):
        kinds.add(logits.dtype)
        return binary_cross_entropy(logits, targets)

    results = fit_small(
        model, batches(2, 2), batches(2), loss_fn, epochs=15, learning_rate=2e-2, metric=hard_dice_score,
        batch_transform=jitter_intensity, average_decay=0.5, precision=precision,
    )  # fmt: skip
    assert kinds == {torch.float32}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert results[-1].validation_metric > 0.9 and results[-1].validation_loss < 0.5 * results[0].train_loss


# checkpoints


class Interrupted(Exception):
    pass


def train_with_crops(
    checkpoint=None, stop_in_epoch=None, stop_after_epoch=None, workers=0, epochs=3, learning_rate=1e-2, **options
):
    """Three epochs with everything that is random: crops, flips, order, jitter. Returns the model and the results."""
    torch.manual_seed(0)
    image, target = (part[0, 0].numpy() for part in batches(1)[0])
    dataset = NucleiDataset([image, 2 * image], [target.astype(int)] * 2, binary_target, 8, augment=True)
    loader = training_loader(dataset, batch_size=2, crops_per_epoch=6, workers=workers)
    model = small_unet(batch_norm=True)
    done = 0

    def stop(module, _):
        if done + 1 == stop_in_epoch and module.training:
            raise Interrupted

    model.register_forward_pre_hook(stop)  # not in the loss: its code belongs to what is compared

    def on_epoch(results):
        nonlocal done
        done = len(results)
        if done == stop_after_epoch:
            raise Interrupted

    options = {"precision": torch.float32, "checkpoint": checkpoint, "on_epoch": on_epoch} | options
    results = fit(
        model, loader, batches(1), binary_cross_entropy, epochs=epochs, learning_rate=learning_rate,
        metric=dice_score, options=FitOptions(**options),
    )  # fmt: skip
    return model, [(r.epoch, r.train_loss, r.validation_loss, r.validation_metric) for r in results]


@pytest.fixture(scope="module")
def uninterrupted():
    return train_with_crops()


def assert_trains_as(checkpoint, uninterrupted, **options):
    model, results = train_with_crops(checkpoint, **options)
    assert results == uninterrupted[1] and same_weights(model, uninterrupted[0])


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of a training that was interrupted in its second epoch."""
    with pytest.raises(Interrupted):
        train_with_crops(tmp_path / "net.resume", stop_in_epoch=2)
    return tmp_path / "net.resume"


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="kept workers do not repeat their crops")
def test_with_forked_workers_too_an_interruption_changes_nothing(tmp_path):
    uninterrupted, results = train_with_crops(workers=2)
    with pytest.raises(Interrupted):
        train_with_crops(tmp_path / "net.resume", stop_in_epoch=2, workers=2)
    assert_trains_as(tmp_path / "net.resume", (uninterrupted, results), workers=2)


@pytest.mark.parametrize(
    "stop", [{"stop_in_epoch": 1}, {"stop_in_epoch": 2}, {"stop_in_epoch": 3}, {"stop_after_epoch": 3}]
)
def test_an_interrupted_training_ends_as_if_it_had_not_been_interrupted(tmp_path, uninterrupted, stop):
    checkpoint = tmp_path / "models" / "net.resume"  # in a folder that is not there yet
    with pytest.raises(Interrupted):
        train_with_crops(checkpoint, **stop)
    assert checkpoint.exists() == (stop != {"stop_in_epoch": 1})
    # after the last epoch nothing is left to train
    again = {"stop_in_epoch": 1} if stop == {"stop_after_epoch": 3} else {}
    assert_trains_as(checkpoint, uninterrupted, **again)
    assert list(tmp_path.glob("**/*.*")) == []  # nothing is left behind


@pytest.mark.parametrize(
    "other",
    [{"learning_rate": 2e-2}, {"epochs": 4}, {"metadata": {"data": "dsb2018"}}, {"average_decay": 0.5},
     {"precision": torch.bfloat16}],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_ignored_and_the_difference_named(tmp_path, uninterrupted, capsys, other):
    with pytest.raises(Interrupted):
        train_with_crops(tmp_path / "net.resume", stop_in_epoch=2, **other)
    assert_trains_as(tmp_path / "net.resume", uninterrupted)
    message = f"net.resume does not fit this training (ValueError: it has other {next(iter(other))})"
    assert message in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_ignored(checkpoint, capsys):
    assert len(fit_small(data=batches(2, 2, 2), epochs=3, average_decay=0.99, checkpoint=checkpoint)) == 3
    assert "other network" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["model", "text", "folder"])
def test_what_is_no_checkpoint_is_never_lost(tmp_path, capsys, kind):
    path = tmp_path / "net.pt"
    if kind == "model":
        save_model(path, small_unet())
    elif kind == "text":
        path.write_text("my results")
    else:
        (path / "inside").mkdir(parents=True)
    content = path.read_bytes() if path.is_file() else None
    for number in (1, 2):
        fit_small(checkpoint=path)
        assert not path.exists() and f"It is kept as net.pt.kept{number}." in capsys.readouterr().out
        kept = tmp_path / f"net.pt.kept{number}"
        assert kept.read_bytes() == content if content else (kept / "inside").is_dir()
        shutil.copytree(kept, path) if kept.is_dir() else shutil.copy(kept, path)


def test_where_it_cannot_be_kept_nothing_is_trained(tmp_path, monkeypatch):
    (tmp_path / "net.pt").write_text("my results")
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    with pytest.raises(PermissionError):
        fit_small(checkpoint=tmp_path / "net.pt", on_epoch=lambda results: pytest.fail("an epoch was trained"))
    assert (tmp_path / "net.pt").read_text() == "my results"


class Scaled(nn.Module):
    def __init__(self, factor=1.0, frozen=False):
        super().__init__()
        self.conv, self.factor = nn.Conv2d(1, 1, 1), factor
        self.conv.bias.requires_grad_(not frozen)

    def forward(self, x):
        return self.factor * self.conv(x)


@pytest.mark.parametrize("other", [{"factor": 5.0}, {"frozen": True}])
def test_networks_that_compute_something_else_are_told_apart(tmp_path, capsys, other):
    with pytest.raises(Interrupted):
        fit_small(Scaled(), epochs=3, checkpoint=tmp_path / "net.resume", on_epoch=stop_after(1))
    fit_small(Scaled(**other), epochs=3, checkpoint=tmp_path / "net.resume", on_epoch=lambda results: None)
    assert "it has other network" in capsys.readouterr().out


def stop_after(n):
    def on_epoch(results):
        if len(results) == n:
            raise Interrupted

    return on_epoch


def noisy_transform(images):
    """Random numbers of all three kinds."""
    return images * float(np.random.uniform(0.5, 1.5)) + random.random() * torch.rand(1)  # noqa: NPY002


@pytest.mark.parametrize("again", ["a new loader", "the same loader, as when its cell alone is run again"])
def test_all_random_numbers_go_on_where_they_were(tmp_path, again, capsys):
    images, targets = (torch.cat(parts) for parts in zip(*batches(5, 4), strict=True))

    def loader():
        generator = torch.Generator().manual_seed(3)
        return DataLoader(TensorDataset(images, targets), batch_size=3, shuffle=True, generator=generator)

    def run(data=None, **options):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
        options |= {"batch_transform": noisy_transform}
        return [one.train_loss for one in fit_small(nn.Conv2d(1, 1, 1), data or loader(), epochs=4, **options)]

    data, options = loader(), {"checkpoint": tmp_path / "net.resume"}
    with pytest.raises(Interrupted):
        run(data, on_epoch=stop_after(2), **options)
    assert run(data if again.startswith("the same") else None, **options) == run()
    assert "does not fit" not in capsys.readouterr().out


def test_what_cannot_be_compared_is_said_before_the_training(tmp_path, capsys):
    stream = iter([1])

    def loss_fn(logits, target):
        return binary_cross_entropy(logits, target) + 0 * len([stream])

    def on_epoch(results):
        said.append(capsys.readouterr().out)

    said = []
    fit_small(loss_fn=loss_fn, checkpoint=tmp_path / "net.resume", on_epoch=on_epoch)
    assert "If this training is interrupted, it cannot be resumed: its loss cannot be compared." in said[0]
    fit_small(checkpoint=tmp_path / "net.resume", on_epoch=on_epoch)
    assert "cannot be resumed" not in said[1]


def without(part):
    def spoil(path):
        state = load_sealed(path)
        save_sealed(path, {name: value for name, value in state.items() if name != part})

    return spoil


SPOILED = {
    **{damage: lambda path, damage=damage: path.write_bytes(damaged(path.read_bytes(), damage)) for damage in DAMAGES},
    **{f"no {part}": without(part) for part in ("settings", "model", "averaged", "scaler", "results", "random")},
    "a tensor": lambda path: save_sealed(path, torch.zeros(3)),
    "a list": lambda path: save_sealed(path, [1, 2]),
    "another dictionary": lambda path: save_sealed(path, {"weights": 1}),
    "unsealed": lambda path: torch.save(torch.load(path, weights_only=True), path),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_checkpoint_is_ignored_with_a_message_and_leaves_no_trace(checkpoint, uninterrupted, capsys, kind):
    SPOILED[kind](checkpoint)
    assert_trains_as(checkpoint, uninterrupted)
    said = capsys.readouterr().out
    assert "net.resume does not fit this training" in said
    assert not kind.startswith("no ") or f"KeyError: '{kind[3:]}'" in said


@pytest.mark.parametrize("sealed", [False, True])
def test_a_checkpoint_cannot_run_code(tmp_path, capsys, sealed):
    buffer = io.BytesIO()
    torch.save({"settings": Exploit(tmp_path / "ran")}, buffer)
    (tmp_path / "net.resume").write_bytes(seal(buffer.getvalue()) if sealed else buffer.getvalue())
    train_with_crops(tmp_path / "net.resume")
    assert not (tmp_path / "ran").exists()
    assert "does not fit this training (ValueError: it " in capsys.readouterr().out


# what cannot be trained with


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_of_nan_are_an_error_and_leave_the_weights_alone(value):
    model = small_unet()
    before = copy.deepcopy(model)
    spoiled = batches(2)
    spoiled[0][0][0, 0, 3, 3] = value
    with pytest.raises(ValueError, match="A training image has pixels that are NaN or infinite"):
        fit_small(model, spoiled, batches(2))
    assert same_weights(model, before)


@pytest.mark.parametrize(
    ("train", "validation"), [([], batches(1)), (batches(1), []), ((one for one in batches(1)), batches(1))]
)
def test_an_empty_loader_is_an_error(train, validation):
    with pytest.raises(ValueError, match="loader is empty"):
        fit(small_unet(), train, validation, binary_cross_entropy, epochs=1, learning_rate=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epochs": 0}, "epochs must be .* but is 0"), ({"learning_rate": 0.0}, "learning_rate must be .* but is 0.0")],
)
def test_numbers_that_train_nothing_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        fit(small_unet(), batches(1), batches(1), dice_score, **{"epochs": 1, "learning_rate": 0.1} | options)


@pytest.mark.parametrize("images", [torch.zeros(2, 8, 8), np.zeros((2, 1, 8, 8)), None])
def test_only_batches_of_images_are_jittered(images):
    """`(N, H, W)` would broadcast to `(N, N, H, W)`."""
    with pytest.raises(ValueError, match=r"tensor \(N, C, H, W\), but found"):
        jitter_intensity(images)
