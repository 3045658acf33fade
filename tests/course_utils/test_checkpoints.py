"""The networks that come with the course: the right one for the data, only as published, and never one that cheats."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from course_utils import checkpoints, predict
from course_utils.checkpoints import PRETRAINED, checkpoint_folder, fingerprint, load_pretrained, save_model
from course_utils.data import load_data
from course_utils.networks import Foreground, boundary_model, foreground_model, model_path
from course_utils.profiles import get_profile
from course_utils.training import EpochResult
from course_utils.unet import UNet

SMOKE = get_profile("smoke")
CURVE = [EpochResult(1, 0.5, 0.8, 0.6, 0.7, 1.0), EpochResult(2, 0.4, 0.9, 0.5, 0.8, 1.0)]


@pytest.fixture(scope="module")
def data():
    return load_data("embedded")


@pytest.fixture
def published(monkeypatch, tmp_path, data):
    """A tiny network that comes with the embedded data."""
    folder = tmp_path / "checkpoints"
    path = folder / "tiny.pt"
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels=2)
    save_model(path, model, validation_every=8, curve=[asdict(result) for result in CURVE])
    monkeypatch.setattr(checkpoints, "checkpoint_folder", lambda: folder)
    monkeypatch.setitem(PRETRAINED, fingerprint(data), ("tiny.pt", hashlib.sha256(path.read_bytes()).hexdigest()))
    return path, model


def same_weights(one, other) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_fingerprint_is_that_of_the_images_and_their_split(data):
    number = fingerprint(data)
    assert number == fingerprint(load_data("embedded"))
    assert number == fingerprint(replace(data, source="elsewhere", note="from a zip"))
    assert number != fingerprint(replace(data, train=data.train[:-1]))
    assert number != fingerprint(replace(data, train=data.train[:-1], test=[data.train[-1], *data.test]))
    brighter = replace(data.train[0], image=data.train[0].image + np.uint8(1))
    assert number != fingerprint(replace(data, train=[brighter, *data.train[1:]]))


def test_it_is_loaded_at_once_and_its_curve_is_shown(published, data, tmp_path, capsys):
    curves = []
    model = boundary_model(data, SMOKE, 0, tmp_path, on_epoch=curves.append)
    assert same_weights(model, published[1]) and not model.training
    assert curves == [CURVE]
    assert "pretrained network, trained for 2 epochs" in capsys.readouterr().out
    assert not model_path(tmp_path, "boundary").exists()


def test_as_a_foreground_network_it_gives_interior_plus_boundary(published, data, tmp_path):
    model = foreground_model(data, SMOKE, 0, tmp_path)
    image = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    expected = predict(published[1].eval(), image)[1:].sum(axis=0)
    np.testing.assert_allclose(predict(model, image)[0], expected, atol=1e-5)
    assert isinstance(model, Foreground)


def test_other_data_a_damaged_file_or_another_validation_share_have_none(published, data, capsys):
    assert load_pretrained(replace(data, train=data.train[1:]), 8) is None
    assert load_pretrained(data, 5) is None  # it has learnt from images that would be validation images now
    assert capsys.readouterr().out == ""
    published[0].write_bytes(published[0].read_bytes() + b"x")
    assert load_pretrained(data, 8) is None
    assert "is not the published file" in capsys.readouterr().out
    published[0].unlink()
    assert load_pretrained(data, 8) is None


@pytest.mark.parametrize("left", ["boundary.pt", "boundary.resume"])
def test_an_own_network_comes_first_also_one_half_trained(published, data, tmp_path, left):
    path = model_path(tmp_path, "boundary").with_name(left)
    path.parent.mkdir()
    path.write_bytes(b"something of my own")
    seen = []

    def stop(results):
        seen.append(results)
        raise InterruptedError

    tiny = replace(SMOKE, base_channels=2, crops_per_epoch=4)
    with pytest.raises(InterruptedError):
        boundary_model(data, tiny, 0, tmp_path, on_epoch=stop)
    assert len(seen[0]) == 1  # one epoch of a training of its own


@pytest.mark.parametrize(("profile", "argument"), [("full", None), ("smoke", False)])
def test_it_can_be_left_out(published, data, tmp_path, profile, argument):
    def stop(results):
        raise InterruptedError

    tiny = replace(get_profile(profile), base_channels=2, crops_per_epoch=2, batch_size=2, crop_size=64, workers=0)
    with pytest.raises(InterruptedError):
        boundary_model(data, tiny, 0, tmp_path, on_epoch=stop, pretrained=argument)


def test_every_published_network_is_there_small_and_has_its_card():
    card = (checkpoint_folder() / "README.md").read_text(encoding="utf-8")
    assert PRETRAINED
    for name, expected in PRETRAINED.values():
        content = (checkpoint_folder() / name).read_bytes()
        assert len(content) <= 8e6
        assert hashlib.sha256(content).hexdigest() == expected
        assert f"`{name}`" in card


def test_the_embedded_data_have_one(data):
    model, curve = load_pretrained(data, SMOKE.validation_every)
    assert model.sizes["out_channels"] == 3 and len(curve) >= 10
    assert curve[-1].validation_metric > 0.95


def test_the_real_data_have_one(real_data_zip):
    model, curve = load_pretrained(load_data(real_data_zip), get_profile("laptop").validation_every)
    assert model.sizes["base_channels"] == 16 and len(curve) >= 10
