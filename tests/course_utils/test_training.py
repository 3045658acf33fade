"""Exercises 3.3 and 3.4, and the training that the later notebooks use: checkpoints, precision, saved models."""

from __future__ import annotations

import math
import multiprocessing
import time
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from course_utils import display, training
from course_utils.checkpoints import load_model, save_model
from course_utils.dataset import NucleiDataset, training_loader
from course_utils.display import progress
from course_utils.losses import binary_cross_entropy, dice_score, hard_dice_score
from course_utils.targets import binary_target
from course_utils.training import FitOptions, fit, jitter_intensity, train_epoch, validate
from course_utils.unet import UNet

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of noisy squares and their masks, always the same."""
    rng = torch.Generator().manual_seed(1)
    result = []
    for size in sizes:
        target = torch.zeros(size, 1, 16, 16)
        target[:, :, 4:12, 4:12] = 1
        result.append((target + 0.3 * torch.randn(target.shape, generator=rng), target))
    return result


def small_unet(**options) -> UNet:
    return UNet(1, 1, base_channels=4, depth=2, **options)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Recorder(nn.Module):
    """A linear model that notes in which mode and grad mode it was called."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.calls = []

    def forward(self, x):
        self.calls.append((self.training, torch.is_grad_enabled()))
        return self.conv(x)


# 3.3 train_epoch


def test_an_epoch_makes_one_step_for_each_batch_with_fresh_gradients():
    model, twin = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    twin.load_state_dict(model.state_dict())
    train_epoch(model, batches(2, 2, 1), binary_cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    for images, targets in batches(2, 2, 1):
        gradients = torch.autograd.grad(binary_cross_entropy(twin(images), targets), list(twin.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    for name, value in twin.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value)


@pytest.mark.parametrize("loop", ["train_epoch", "validate"])
def test_means_are_weighted_by_batch_size_and_python_floats(loop):
    model = nn.Conv2d(1, 1, 1)
    data = batches(4, 4, 1)
    data[-1] = (data[-1][0] * 10, data[-1][1])  # the small batch differs much from the others
    images, targets = (torch.cat(parts) for parts in zip(*data, strict=True))
    expected = binary_cross_entropy(model(images), targets).item(), dice_score(model(images), targets).item()
    if loop == "train_epoch":
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        found = train_epoch(model, data, binary_cross_entropy, still, dice_score)
    else:
        found = validate(model, data, binary_cross_entropy, dice_score)
    assert found == pytest.approx(expected, rel=1e-5)
    assert [type(value) for value in found] == [float, float]


def test_without_a_metric_the_second_value_is_none():
    model = nn.Conv2d(1, 1, 1)
    loss, metric = train_epoch(model, batches(2), binary_cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    assert type(loss) is float and metric is None
    loss, metric = validate(model, batches(2), binary_cross_entropy)
    assert type(loss) is float and metric is None


def test_training_is_in_training_mode_and_validation_is_not():
    model = Recorder().eval()
    train_epoch(model, batches(1, 1), binary_cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    assert model.calls == [(True, True)] * 2
    model.calls.clear()
    validate(model, batches(1, 1), binary_cross_entropy)
    assert model.calls == [(False, False)] * 2


def test_training_lowers_the_loss():
    model = small_unet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = [train_epoch(model, batches(2), binary_cross_entropy, optimizer)[0] for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


def test_batches_are_moved_to_the_device_of_the_model():
    """A meta device has shapes but no numbers, so moving to it is all that can be seen without a GPU."""
    seen = []

    class Batch(torch.Tensor):
        def to(self, device, *args, **keywords):
            seen.append(torch.device(device).type)
            return torch.zeros(self.shape, device=device)

    batch = tuple(part.as_subclass(Batch) for part in batches(1)[0])
    model = nn.Conv2d(1, 1, 1, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):  # a loss on the meta device has no value
        validate(model, [batch], binary_cross_entropy)
    assert seen == ["meta", "meta"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_training_and_validation_work_on_a_gpu():
    model = small_unet().to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first, _ = validate(model, batches(2), binary_cross_entropy, dice_score)
    for _ in range(20):
        train_epoch(model, batches(2), binary_cross_entropy, optimizer, dice_score)
    assert validate(model, batches(2), binary_cross_entropy, dice_score)[0] < first


def test_a_loader_without_a_batch_is_an_error():
    model = nn.Conv2d(1, 1, 1).eval()
    with pytest.raises(ValueError, match="no batch"):
        train_epoch(model, [], binary_cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="no batch"):
        validate(model, [], binary_cross_entropy)


# 3.4 validate


def test_validation_changes_no_parameter_buffer_or_gradient():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 1, 1)).train()
    before = weights(model)
    first = validate(model, batches(3, 2), binary_cross_entropy, dice_score)
    assert same(weights(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert validate(model, batches(3, 2), binary_cross_entropy, dice_score) == first  # neither dropout nor statistics


@pytest.mark.parametrize("was_training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_validation_restores_mode_and_grad_mode_even_after_an_error(was_training, grad, fails):
    def loss_fn(logits, targets):
        if fails:
            raise ArithmeticError
        return binary_cross_entropy(logits, targets)

    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train(was_training)
    with torch.set_grad_enabled(grad):
        try:
            validate(model, batches(1), loss_fn)
        except ArithmeticError:
            assert fails
        assert torch.is_grad_enabled() == grad
        assert {part.training for part in model.modules()} == {was_training}


# progress


def test_progress_passes_every_item_on(capsys):
    assert list(progress([3, 1, 2], "epoch 1")) == [3, 1, 2]
    assert list(progress([], "epoch 1")) == []


class FakeLine:
    def __init__(self):
        self.texts = []

    def update(self, content, raw):
        assert raw
        self.texts.append(content["text/plain"])


def test_in_a_notebook_progress_replaces_one_line_and_says_how_long_it_will_take(monkeypatch):
    line = FakeLine()
    monkeypatch.setattr(display, "_display_line", lambda text: line)
    clock = iter([0.0, 2.0, 4.0, 4.5, 6.0, 8.0])  # start, four batches, end: the first batch takes its time
    monkeypatch.setattr(display, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    assert list(progress("abcd", "epoch 1")) == list("abcd")
    assert line.texts == [
        "epoch 1: 1 of 4 steps, 12 s left",
        "epoch 1: 3 of 4 steps, 2 s left",
        "epoch 1: 4 steps, 8 s",
    ]


# jitter_intensity


def test_jitter_scales_and_shifts_each_image_as_a_whole_within_its_range():
    images = torch.rand(500, 1, 8, 8)
    before = images.clone()
    result = jitter_intensity(images)
    assert torch.equal(images, before) and result.shape == images.shape and result.dtype == torch.float32
    low, high = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    scale = (result.amax((1, 2, 3)) - result.amin((1, 2, 3))) / (high - low)
    shift = result.amin((1, 2, 3)) - scale * low
    assert 0.6 - 1e-4 <= scale.min() < 0.65 and 1.55 < scale.max() <= 1.6 + 1e-4
    assert -0.2 - 1e-4 <= shift.min() < -0.18 and 0.18 < shift.max() <= 0.2 + 1e-4
    assert torch.allclose(result, images * scale[:, None, None, None] + shift[:, None, None, None], atol=1e-5)


def test_jitter_follows_the_torch_seed():
    images = torch.rand(2, 1, 4, 4)
    torch.manual_seed(5)
    first = jitter_intensity(images)
    assert not torch.equal(jitter_intensity(images), first)
    torch.manual_seed(5)
    assert torch.equal(jitter_intensity(images), first)


# fit

PLAIN = FitOptions(batch_transform=None, average_decay=0.0, precision=torch.float32)


def fit_briefly(epochs=1, metric=None, **options) -> list[training.EpochResult]:
    return fit(
        nn.Conv2d(1, 1, 1), batches(1, 2), batches(1), binary_cross_entropy, epochs=epochs, learning_rate=1e-3,
        metric=metric, options=replace(PLAIN, **options),
    )  # fmt: skip


def test_with_everything_switched_off_fit_is_a_loop_of_train_epoch():
    model, twin = small_unet(), small_unet()
    twin.load_state_dict(model.state_dict())
    data, held_back = batches(2, 2, 1), batches(1, 1)
    results = fit(
        model, data, held_back, binary_cross_entropy, epochs=4, learning_rate=1e-2, metric=dice_score, options=PLAIN
    )

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
    model = nn.Conv2d(1, 1, 1)
    data = batches(*[1] * steps)
    results = fit(model, data, batches(1), binary_cross_entropy, epochs=1, learning_rate=1e-2, options=PLAIN)
    assert len(results) == 1 and math.isfinite(results[0].train_loss)


def test_the_learning_rate_rises_and_falls_once(monkeypatch):
    rates = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    data = batches(*[1] * 10)
    fit(nn.Conv2d(1, 1, 1), data, batches(1), binary_cross_entropy, epochs=2, learning_rate=1e-2, options=PLAIN)
    peak = int(np.argmax(rates))
    assert len(rates) == 20 and rates[peak] == pytest.approx(1e-2) and 1 <= peak <= 5
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_kept_weights_are_the_average_that_was_validated(batch_norm):
    model, last_weights = small_unet(batch_norm=batch_norm), []
    held_back = batches(2)
    options = replace(PLAIN, average_decay=0.9, on_epoch=lambda _: last_weights.append(weights(model)))
    results = fit(
        model, batches(2, 2, 2), held_back, binary_cross_entropy, epochs=3, learning_rate=1e-2, metric=dice_score,
        options=options,
    )  # fmt: skip
    assert not model.training
    for name, value in weights(model).items():  # of the statistics of batch normalisation, too, but not of counters
        assert torch.equal(value, last_weights[-1][name]) == name.endswith("num_batches_tracked"), name
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
    options = replace(PLAIN, average_decay=0.3)
    fit(model, batches(1, 1, 1, 1), batches(1), binary_cross_entropy, epochs=2, learning_rate=0.5, options=options)
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
    model, options = small_unet(), replace(PLAIN, precision=torch.float16)
    fit(model, batches(2, 2, 2), batches(2), binary_cross_entropy, epochs=1, learning_rate=1e-2, options=options)
    assert [int(average.n_averaged) for average in averages] == [2] and rates == [0, 1, 2]
    assert all(value.isfinite().all() for value in model.parameters())


def test_in_float32_there_is_no_autocast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: pytest.fail("autocast in float32"))
    assert len(fit_briefly()) == 1


def test_after_every_epoch_the_results_so_far_are_reported():
    seen = []
    fit_briefly(epochs=3, on_epoch=lambda results: seen.append([result.epoch for result in results]))
    assert seen == [[1], [1, 2], [1, 2, 3]]


def test_without_a_metric_the_results_have_none():
    (result,) = fit_briefly()
    assert result.train_metric is None and result.validation_metric is None


def test_a_metric_may_be_a_python_number():
    (result,) = fit_briefly(metric=lambda logits, targets: float(len(logits)))
    assert result.train_metric == pytest.approx((1 * 1 + 2 * 2) / 3)
    assert result.validation_metric == 1


def test_seconds_are_those_that_passed():
    start = time.perf_counter()
    (result,) = fit_briefly()
    assert 0 < result.seconds <= time.perf_counter() - start


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_fit_learns_in_every_precision_and_keeps_float32_weights(precision):
    model, kinds = small_unet(batch_norm=True), set()

    def loss_fn(logits, targets):
        kinds.add(logits.dtype)
        return binary_cross_entropy(logits, targets)

    results = fit(
        model, batches(2, 2), batches(2), loss_fn, epochs=15, learning_rate=2e-2, metric=hard_dice_score,
        options=FitOptions(average_decay=0.5, precision=precision),
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
    """Three epochs with everything that is random: crops, flips, order, jitter. Returns the weights and the results."""
    torch.manual_seed(0)
    image, target = (part[0, 0].numpy() for part in batches(1)[0])
    dataset = NucleiDataset([image, 2 * image], [target.astype(int)] * 2, binary_target, 8, augment=True)
    loader = training_loader(dataset, batch_size=2, crops_per_epoch=6, workers=workers)
    model = small_unet(batch_norm=True)
    done = 0

    def loss_fn(logits, targets):
        if done + 1 == stop_in_epoch:
            raise Interrupted
        return binary_cross_entropy(logits, targets)

    def on_epoch(results):
        nonlocal done
        done = len(results)
        if done == stop_after_epoch:
            raise Interrupted

    options = {"precision": torch.float32, "checkpoint": checkpoint, "on_epoch": on_epoch} | options
    results = fit(
        model, loader, batches(1), loss_fn, epochs=epochs, learning_rate=learning_rate, metric=dice_score,
        options=FitOptions(**options),
    )  # fmt: skip
    return weights(model), [(r.epoch, r.train_loss, r.validation_loss, r.validation_metric) for r in results]


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="kept workers do not repeat their crops")
def test_with_forked_workers_too_an_interruption_changes_nothing(tmp_path):
    uninterrupted, results = train_with_crops(workers=2)
    with pytest.raises(Interrupted):
        train_with_crops(tmp_path / "net.resume", stop_in_epoch=2, workers=2)
    resumed, resumed_results = train_with_crops(tmp_path / "net.resume", workers=2)
    assert resumed_results == results and same(resumed, uninterrupted)


@pytest.mark.parametrize("stop_in_epoch", [1, 2, 3])
def test_an_interrupted_training_ends_as_if_it_had_not_been_interrupted(tmp_path, stop_in_epoch):
    uninterrupted, results = train_with_crops()
    checkpoint = tmp_path / "models" / "net.resume"  # in a folder that is not there yet
    with pytest.raises(Interrupted):
        train_with_crops(checkpoint, stop_in_epoch)
    assert checkpoint.exists() == (stop_in_epoch > 1)
    resumed, resumed_results = train_with_crops(checkpoint)
    assert resumed_results == results
    assert same(resumed, uninterrupted)
    assert list(tmp_path.glob("**/*.*")) == []  # nothing is left behind


def test_a_training_stopped_between_its_last_epoch_and_its_end_is_complete(tmp_path):
    uninterrupted, _ = train_with_crops()
    checkpoint = tmp_path / "net.resume"

    with pytest.raises(Interrupted):
        train_with_crops(checkpoint, stop_after_epoch=3)
    finished, results = train_with_crops(checkpoint, stop_in_epoch=1)  # would stop if it trained at all
    assert len(results) == 3 and same(finished, uninterrupted)


def stopped_training(checkpoint, **options):
    with pytest.raises(Interrupted):
        train_with_crops(checkpoint, stop_in_epoch=2, **options)


@pytest.mark.parametrize(
    "other",
    [{"learning_rate": 2e-2}, {"epochs": 4}, {"metadata": {"data": "dsb2018"}}, {"average_decay": 0.5},
     {"precision": torch.bfloat16}],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_ignored_with_a_message_that_says_why(tmp_path, capsys, other):
    clean, _ = train_with_crops()
    stopped_training(tmp_path / "net.resume", **other)
    again, results = train_with_crops(tmp_path / "net.resume")
    assert len(results) == 3 and same(again, clean)
    message = f"net.resume does not fit this training and is ignored (ValueError: it has other {next(iter(other))})"
    assert message in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_ignored(tmp_path, capsys):
    stopped_training(tmp_path / "net.resume")
    results = fit(
        nn.Conv2d(1, 1, 1), batches(2, 2, 2), batches(1), binary_cross_entropy, epochs=3, learning_rate=1e-2,
        options=FitOptions(precision=torch.float32, checkpoint=tmp_path / "net.resume"),
    )  # fmt: skip
    assert len(results) == 3
    assert "other weights" in capsys.readouterr().out


def damaged_files(valid: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"hello, I am not a checkpoint",
        "zeros": bytes(100),
        "truncated": valid[: len(valid) // 2],
        "bit flips": valid[:-2000] + bytes(byte ^ 255 for byte in valid[-2000:-1000]) + valid[-1000:],
    }


@pytest.mark.parametrize("damage", ["empty", "text", "zeros", "truncated", "bit flips"])
def test_a_damaged_checkpoint_is_ignored_with_a_message(tmp_path, capsys, damage):
    clean, _ = train_with_crops()
    checkpoint = tmp_path / "net.resume"
    stopped_training(checkpoint)
    checkpoint.write_bytes(damaged_files(checkpoint.read_bytes())[damage])
    again, _ = train_with_crops(checkpoint)
    assert same(again, clean)
    assert "net.resume does not fit this training and is ignored" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["settings", "model", "scaler", "results", "random"])
def test_a_checkpoint_with_a_part_missing_leaves_no_trace(tmp_path, capsys, missing):
    clean, _ = train_with_crops()
    checkpoint = tmp_path / "net.resume"
    stopped_training(checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    del state[missing]
    torch.save(state, checkpoint)
    again, _ = train_with_crops(checkpoint)
    assert same(again, clean)
    assert f"KeyError: '{missing}'" in capsys.readouterr().out


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"weights": 1}])
def test_a_file_of_torch_that_is_no_checkpoint_is_ignored(tmp_path, capsys, content):
    clean, _ = train_with_crops()
    torch.save(content, tmp_path / "net.resume")
    again, _ = train_with_crops(tmp_path / "net.resume")
    assert same(again, clean)
    assert "is ignored" in capsys.readouterr().out


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    torch.save({"settings": Exploit(str(tmp_path / "ran"))}, tmp_path / "net.resume")
    train_with_crops(tmp_path / "net.resume")
    assert not (tmp_path / "ran").exists()
    out = capsys.readouterr().out
    assert "is ignored (UnpicklingError: Weights only load failed)" in out
    assert "weights_only" not in out  # torch's advice to switch the protection off is not passed on


def test_a_full_disk_leaves_the_last_checkpoint_and_no_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    save_model(path, small_unet(), seed=1)
    before = path.read_bytes()

    def no_space(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match=r"Nothing can be saved in .*No space left on device.*`output`"):
        save_model(path, small_unet(), seed=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# saved models


class Exploit:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_saved_model_comes_back_as_it_was_in_evaluation_mode(tmp_path, batch_norm):
    model = small_unet(batch_norm=batch_norm).train()
    model(torch.randn(2, 1, 8, 8))  # moves the running statistics
    save_model(tmp_path / "deep" / "net.pt", model, data="embedded", seed=3, scores={"F1": [0.5, None]})
    assert model.training
    loaded, metadata = load_model(tmp_path / "deep" / "net.pt")
    assert same(weights(loaded), weights(model))
    assert not loaded.training
    assert metadata == {"data": "embedded", "seed": 3, "scores": {"F1": [0.5, None]}}
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(loaded(x), model.eval()(x))


def test_numpy_numbers_in_metadata_become_plain_ones(tmp_path):
    save_model(tmp_path / "net.pt", small_unet(), f1=np.float64(0.5))
    assert load_model(tmp_path / "net.pt")[1] == {"f1": 0.5}


def test_what_cannot_be_loaded_again_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(tmp_path / "net.pt", small_unet(), data=np.zeros(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "text", "zeros", "truncated", "bit flips"])
def test_a_damaged_model_is_an_error_that_says_what_to_do(tmp_path, damage):
    path = tmp_path / "net.pt"
    save_model(path, small_unet())
    path.write_bytes(damaged_files(path.read_bytes())[damage])
    with pytest.raises(ValueError, match=r"net\.pt is not a model saved by this course .* Delete it and train again"):
        load_model(path)


@pytest.mark.parametrize(
    "content", [torch.zeros(3), {"weights": {}}, {"sizes": {"depth": 1}, "weights": {}, "metadata": {}}]
)
def test_a_file_of_torch_that_is_no_model_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="not a model saved by this course"):
        load_model(tmp_path / "net.pt")


def test_a_model_without_its_metadata_is_an_error(tmp_path):
    model = small_unet()
    torch.save({"sizes": model.sizes, "weights": model.state_dict()}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="KeyError: 'metadata'"):
        load_model(tmp_path / "net.pt")


def test_a_model_file_cannot_run_code(tmp_path):
    torch.save({"sizes": Exploit(str(tmp_path / "ran")), "weights": {}, "metadata": {}}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="Weights only load failed"):
        load_model(tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_model_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "net.pt")
