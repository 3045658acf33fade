"""Networks that one notebook leaves for the next: loaded if they fit, else trained."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from in_processes import TINY, small_data
from saved_files import same_weights

from course_utils import networks
from course_utils.checkpoints import load_model, save_model
from course_utils.networks import (
    BOUNDARY,
    BOUNDARY_WEIGHT,
    binary_model,
    boundary_loss,
    boundary_model,
    load_or_train,
    model_path,
    normalized_arrays,
    train_network,
    training_config,
    without_boundary_weight,
)
from course_utils.training import FitOptions
from course_utils.unet import UNet

torch.set_num_threads(1)
WANTED = {"kind": "binary", "data": "embedded", "images": "70d482ea", "profile": "smoke", "seed": 0}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


class Trainer:
    """Stands for a long training and counts how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self) -> UNet:
        self.calls += 1
        return UNet(base_channels=2, depth=1)


# load_or_train


def test_a_network_is_trained_once_and_loaded_afterwards(tmp_path, capsys):
    path, train = tmp_path / "models" / "binary.pt", Trainer()
    first = load_or_train(path, WANTED, train)
    assert f"No trained network at {path} yet. Training one." in capsys.readouterr().out
    second = load_or_train(path, WANTED, train)
    assert f"Loaded {path}." in capsys.readouterr().out
    assert train.calls == 1 and same_weights(first, second) and not second.training


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 1), ("profile", "laptop"), ("data", "dsb2018"), ("images", "2eda5cb8"), ("kind", "boundary")],
)
def test_a_network_that_was_trained_otherwise_is_replaced_and_the_difference_named(tmp_path, capsys, key, value):
    path, train = tmp_path / "binary.pt", Trainer()
    save_model(path, train(), **WANTED)
    load_or_train(path, WANTED | {key: value}, train)
    assert re.search(rf"binary\.pt was trained with .*\b{key}\b.* Training anew\.", capsys.readouterr().out)
    assert train.calls == 2 and load_model(path)[1] == WANTED | {key: value}
    load_or_train(path, WANTED | {key: value}, train)
    assert train.calls == 2
    save_model(path, train())  # without a record of its training
    load_or_train(path, WANTED, train)
    assert "was trained with other values of kind, data" in capsys.readouterr().out and train.calls == 4


def test_a_file_that_load_model_refuses_is_replaced(tmp_path, capsys):
    path, train = tmp_path / "binary.pt", Trainer()
    path.write_bytes(b"not a network")
    load_or_train(path, WANTED, train)
    assert "is not a model saved by this course" in (out := capsys.readouterr().out) and "Training anew" in out
    load_or_train(path, WANTED, train)
    assert train.calls == 1 and load_model(path)[1] == WANTED


def test_a_place_where_nothing_can_be_saved_is_an_error_before_the_training(tmp_path):
    train = Trainer()
    (tmp_path / "binary.pt").mkdir()
    with pytest.raises(ValueError, match="binary.pt is a folder.*remove"):
        load_or_train(tmp_path / "binary.pt", WANTED, train)
    (tmp_path / "models").write_text("a file")
    with pytest.raises(OSError, match="Nothing can be saved in .*models.*`output`"):
        load_or_train(tmp_path / "models" / "binary.pt", WANTED, train)
    assert train.calls == 0


def test_an_interrupted_training_leaves_the_old_network(tmp_path):
    path = tmp_path / "binary.pt"
    load_or_train(path, WANTED, Trainer())
    before = path.read_bytes()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_train(path, WANTED | {"seed": 1}, interrupted)
    assert path.read_bytes() == before


# the two networks


@pytest.mark.parametrize(("build", "channels"), [(binary_model, 1), (boundary_model, 3)])
def test_a_network_is_trained_saved_and_found_again(tmp_path, build, channels):
    data, epochs = small_data(), []
    model = build(data, TINY, 3, tmp_path, on_epoch=lambda results: epochs.append(len(results)))
    assert epochs == [1, 2]
    assert model(torch.zeros(1, 1, 16, 16)).shape == (1, channels, 16, 16) and not model.training
    kind = {1: "binary", 3: "boundary"}[channels]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [model_path(tmp_path, kind)] == [tmp_path / "models" / f"{kind}.pt"]  # no checkpoint is left
    assert load_model(files[0])[1] == training_config(kind, data, TINY, 3)
    assert same_weights(build(data, TINY, 3, tmp_path, on_epoch=lambda results: pytest.fail("trained again")), model)


def test_the_same_seed_trains_the_same_network_and_another_seed_another(tmp_path):
    models = [binary_model(small_data(), TINY, seed, tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert same_weights(models[0], models[1]) and not same_weights(models[0], models[2])


class Interrupted(Exception):
    pass


def stop_after_first_epoch(results):
    raise Interrupted


def test_an_interrupted_training_is_resumed_where_it_was(tmp_path):
    with pytest.raises(Interrupted):
        boundary_model(small_data(), TINY, 0, tmp_path, on_epoch=stop_after_first_epoch)
    epochs = []
    resumed = boundary_model(small_data(), TINY, 0, tmp_path, on_epoch=lambda results: epochs.append(results[-1].epoch))
    assert epochs == [2]
    assert same_weights(resumed, boundary_model(small_data(), TINY, 0, tmp_path / "uninterrupted"))


@pytest.mark.parametrize("other", [{"seed": 1}, {"data": small_data("dsb2018", seed=7)}])
def test_an_interrupted_training_on_other_data_or_another_seed_is_not_resumed(tmp_path, capsys, other):
    with pytest.raises(Interrupted):
        binary_model(small_data(), TINY, 0, tmp_path, on_epoch=stop_after_first_epoch)
    arguments = {"data": small_data(), "seed": 0} | other
    model = binary_model(arguments["data"], TINY, arguments["seed"], tmp_path)
    assert "it has other metadata" in capsys.readouterr().out
    assert same_weights(model, binary_model(arguments["data"], TINY, arguments["seed"], tmp_path / "clean"))


def test_training_and_validation_images_are_those_of_the_notebooks(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(networks, "fit", lambda model, train, val, *rest, **options: seen.update(train=train, val=val))
    data = small_data()
    networks.binary_model(data, replace(TINY, validation_every=3), 0, tmp_path)
    val = [sample for index, sample in enumerate(data.train) if index % 3 == 2]
    assert len(seen["val"].dataset) == len(val) == 3 and len(seen["train"].dataset) == 6
    image, target = seen["val"].dataset[0]
    assert image.shape == target.shape
    assert all(side % 2**TINY.depth == 0 for side in image.shape[1:])
    assert torch.equal(image[0, :32, :40], torch.from_numpy(normalized_arrays(val)[0][0]))
    assert torch.equal(target[0, :32, :40], torch.from_numpy(val[0].mask > 0).float())


def test_each_image_is_normalised_by_its_own_percentiles():
    data = small_data()
    images, masks = normalized_arrays(data.train)
    assert all(image.dtype == np.float32 for image in images)
    assert [np.percentile(image, 99.8) for image in images] == pytest.approx([1] * 9, abs=1e-5)
    assert all(mask is sample.mask for mask, sample in zip(masks, data.train, strict=True))


def test_small_images_are_padded_by_reflection_for_crops_and_not_otherwise():
    samples = small_data().train[:1]
    (small,), (small_mask,) = normalized_arrays(samples)
    (image,), (mask,) = normalized_arrays(samples, min_size=48)
    assert image.shape == mask.shape == (48, 48) and small.shape == (32, 40)
    assert np.array_equal(image[:32, :40], small) and np.array_equal(mask[:32, :40], small_mask)
    assert np.array_equal(image[32:, :40], small[30:14:-1]) and np.array_equal(mask[:32, 40:], small_mask[:, 38:30:-1])
    (image,), _ = normalized_arrays(samples, min_size=36)
    assert image.shape == (36, 40)


def test_images_smaller_than_the_crops_can_be_trained_on(tmp_path):
    model = binary_model(small_data(), replace(TINY, crop_size=64), 0, tmp_path)
    assert model(torch.zeros(1, 1, 16, 16)).isfinite().all()


def test_too_few_images_to_validate_on_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="Every 10th training image .* only 9"):
        binary_model(small_data(), replace(TINY, validation_every=10), 0, tmp_path)


@pytest.mark.parametrize("key", ["base_channels", "crop_size", "binary_epochs", "learning_rate"])
def test_a_network_of_a_changed_profile_is_not_taken(key):
    data, other = small_data(), replace(TINY, **{key: 2 * getattr(TINY, key)})
    before, after = training_config("binary", data, TINY, 0), training_config("binary", data, other, 0)
    assert [name for name in before if before[name] != after[name]] == [key]
    assert training_config("binary", data, replace(TINY, workers=8), 0) == before  # the same network, only sooner


def test_the_boundary_class_counts_more_in_its_loss():
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.arange(2 * 8 * 8).reshape(2, 8, 8) % 3
    surprise = -logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    weight = torch.where(target == 2, BOUNDARY_WEIGHT, 1.0)
    expected = (weight * surprise).sum() / weight.sum()
    assert boundary_loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_the_weight_the_odds_of_the_boundary_are_divided_by_it():
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels=2, depth=1).eval()
    image = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        before = torch.softmax(model(image), dim=1)
        assert without_boundary_weight(model) is model
        after = torch.softmax(model(image), dim=1)
    torch.testing.assert_close(after[:, 2] / after[:, :2].sum(1), before[:, 2] / before[:, :2].sum(1) / BOUNDARY_WEIGHT)
    torch.testing.assert_close(after[:, 1] / after[:, 0], before[:, 1] / before[:, 0])


def test_a_weighted_loss_is_minimal_where_the_odds_are_too_high_by_the_weight():
    """Why the weight is taken out again: pixels that look alike, a fifth of them boundary."""
    target = torch.tensor([2, 0, 0, 0, 0]).reshape(1, 1, 5)
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        boundary_loss(logits.expand(1, 3, 1, 5), target).backward()
        optimizer.step()
    probability = torch.softmax(logits.detach(), dim=1).flatten()
    assert (probability[2] / probability[0]).item() == pytest.approx(BOUNDARY_WEIGHT / 4, rel=0.02)


def test_the_boundary_network_is_saved_without_the_weight(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(networks, "without_boundary_weight", lambda model: seen.append(model) or model)
    model = boundary_model(small_data(), TINY, 0, tmp_path)
    assert seen == [model]
    binary_model(small_data(), TINY, 0, tmp_path)
    assert len(seen) == 1  # one output channel has no boundary


def test_a_second_training_starts_with_the_weight_and_ends_without_it():
    """With a learning rate of nearly nothing the network stays as it is; in between the loss sees the weight."""
    start, seen = UNet(1, 3, TINY.base_channels, TINY.depth, batch_norm=True), []
    before = start.output.bias.detach().clone()
    options = FitOptions(batch_transform=lambda images: seen.append(start.output.bias.detach().clone()) or images)
    model = train_network(BOUNDARY, small_data(), replace(TINY, learning_rate=1e-12), 0, options, start)
    assert model is start
    torch.testing.assert_close(seen[0] - before, torch.tensor([0.0, 0.0, math.log(BOUNDARY_WEIGHT)]))
    torch.testing.assert_close(model.output.bias.detach(), before)


def test_a_task_derived_from_that_of_notebook_05_ends_without_the_weight_too(monkeypatch):
    monkeypatch.setattr(networks, "fit", lambda *_, **__: None)
    same, derived = (
        train_network(task, small_data(), TINY, 0, FitOptions()).output.bias
        for task in (BOUNDARY, replace(BOUNDARY, make_dataset=lambda *options: networks.boundary_dataset(*options)))
    )
    torch.testing.assert_close(derived, same)
