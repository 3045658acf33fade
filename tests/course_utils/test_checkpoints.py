"""Saved networks, and the pretrained ones: the right one for the data, only as published, and never one that cheats."""

from __future__ import annotations

import copy
import hashlib
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from saved_files import DAMAGES, Exploit, damaged, same_weights
from torch.optim.swa_utils import AveragedModel

from course_utils import checkpoints, predict
from course_utils.checkpoints import (
    PRETRAINED,
    checkpoint_folder,
    load_model,
    load_pretrained,
    save_model,
)
from course_utils.data import fingerprint, load_data
from course_utils.device import MixedPrecision, keep_order
from course_utils.networks import Foreground, boundary_model, foreground_model, load_or_train, model_path
from course_utils.profiles import get_profile
from course_utils.saving import save_sealed
from course_utils.training import EpochResult
from course_utils.unet import UNet

SMOKE = get_profile("smoke")
CURVE = [EpochResult(1, 0.5, 0.8, 0.6, 0.7, 1.0), EpochResult(2, 0.4, 0.9, 0.5, 0.8, 1.0)]


def small_unet(**options) -> UNet:
    return UNet(1, 1, base_channels=4, depth=2, **options)


# saved models


@pytest.mark.parametrize("norm", [{}, {"batch_norm": True}, {"instance_norm": True}])
def test_a_saved_model_comes_back_as_it_was_in_evaluation_mode(tmp_path, norm):
    model = keep_order(small_unet(**norm)).train()
    model(torch.randn(2, 1, 8, 8))  # moves the running statistics
    save_model(tmp_path / "deep" / "net.pt", model, data="embedded", scores={"F1": [0.5, None]}, number=np.float64(0.5))
    assert model.training
    loaded, metadata = load_model(tmp_path / "deep" / "net.pt")
    assert same_weights(loaded, model) and not loaded.training
    assert metadata == {"data": "embedded", "scores": {"F1": [0.5, None]}, "number": 0.5}
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(loaded(x), model.eval()(x))


def test_what_cannot_be_loaded_again_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(tmp_path / "net.pt", small_unet(), data=np.zeros(3))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_model_and_not_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    save_model(path, small_unet(), seed=1)
    before = path.read_bytes()

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"Nothing can be saved in .*No space left on device.*`output`"):
        save_model(path, small_unet(), seed=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_an_error_that_says_what_to_do(tmp_path, damage):
    path = tmp_path / "net.pt"
    save_model(path, small_unet())
    path.write_bytes(damaged(path.read_bytes(), damage))
    with pytest.raises(ValueError, match=r"net\.pt is not a model saved by this course .* move this one away"):
        load_model(path)


MODEL = {"sizes": small_unet().sizes, "weights": small_unet().state_dict()}


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), {"weights": {}}, {"sizes": {"depth": 1}, "weights": {}, "metadata": {}}, MODEL,
     *(MODEL | {"metadata": metadata} for metadata in ("a text", ["a", "list"], None))],
)  # fmt: skip
def test_a_file_of_torch_that_is_not_a_model_with_its_metadata_is_an_error(tmp_path, content):
    save_sealed(tmp_path / "net.pt", content)
    with pytest.raises(ValueError, match="not a model saved by this course"):
        load_model(tmp_path / "net.pt")


def test_a_model_file_cannot_run_code(tmp_path):
    save_sealed(tmp_path / "net.pt", {"sizes": Exploit(tmp_path / "ran"), "weights": {}, "metadata": {}})
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        load_model(tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_model_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "net.pt")


def compiled_parts(model: UNet) -> UNet:
    model.encoder[0] = torch.compile(model.encoder[0])
    return model


WRAPPERS = {
    "compiled": torch.compile,
    "compiled in part": compiled_parts,
    "parallel": torch.nn.DataParallel,
    "average": AveragedModel,
    "mixed precision": lambda model: MixedPrecision(model, torch.bfloat16),
    "compiled average in parallel": lambda model: torch.compile(torch.nn.DataParallel(AveragedModel(model))),
    "mixed precision, compiled": lambda model: MixedPrecision(torch.compile(model), torch.bfloat16),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_network_is_saved_like_the_network_itself(tmp_path, wrapper):
    """What lies around it in training is no part of it."""
    save_model(tmp_path / "net.pt", WRAPPERS[wrapper](small_unet(batch_norm=True)), seed=3)
    loaded, metadata = load_model(tmp_path / "net.pt")
    assert type(loaded) is UNet and metadata == {"seed": 3}
    torch.manual_seed(0)
    model = small_unet(batch_norm=True)
    save_model(tmp_path / "plain.pt", model)
    save_model(tmp_path / "net.pt", WRAPPERS[wrapper](copy.deepcopy(model)))
    assert same_weights(load_model(tmp_path / "net.pt")[0], load_model(tmp_path / "plain.pt")[0])


def test_a_network_in_distributed_training_is_saved_like_the_network_itself(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        model = small_unet()
        save_model(tmp_path / "net.pt", torch.nn.parallel.DistributedDataParallel(model))
    finally:
        torch.distributed.destroy_process_group()
    assert same_weights(load_model(tmp_path / "net.pt")[0], model)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_a_file_with_the_names_of_a_wrapper_is_loaded(tmp_path, prefix):
    """An earlier version of the course saved compiled networks so."""
    model = small_unet()
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    save_sealed(tmp_path / "net.pt", {"sizes": model.sizes, "weights": weights, "metadata": {}})
    assert same_weights(load_model(tmp_path / "net.pt")[0], model)


def changed(model: UNet) -> UNet:
    model.output = torch.nn.Conv2d(4, 5, 1)
    return model


@pytest.mark.parametrize("model", [Foreground(small_unet()), torch.nn.Conv2d(1, 1, 1), changed(small_unet()), None])
def test_what_is_no_network_of_the_course_is_not_saved(tmp_path, model):
    with pytest.raises(ValueError, match="Only a U-Net of this course can be saved"):
        save_model(tmp_path / "net.pt", model)
    assert list(tmp_path.iterdir()) == []


WHOLE = {
    "weights of a compiled network": lambda path: torch.save(torch.compile(small_unet()).state_dict(), path),
    "weights of another network": lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
    "a whole network": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "a training that can be resumed": lambda path: torch.save({"model": {}, "optimizer": {}, "settings": {}}, path),
    "another architecture": lambda path: torch.save(MODEL | {"metadata": {}, "weights": {"a": torch.zeros(1)}}, path),
    "another format": lambda path: path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_nobody_is_told_to_delete_intact_weights(tmp_path, kind, capsys):
    path = tmp_path / "net.pt"
    WHOLE[kind](path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="not a model saved by this course") as info:
        load_model(path)
    assert "elete" not in str(info.value).replace(str(path), "")
    load_or_train(path, {}, small_unet)
    assert "kept as net.pt.kept1" in capsys.readouterr().out
    assert path.with_name("net.pt.kept1").read_bytes() == content  # nor are they written over
    load_model(path)


# pretrained networks


@pytest.fixture(scope="module")
def data():
    return load_data("embedded")


@pytest.fixture
def published(monkeypatch, tmp_path, data):
    """A tiny pretrained network for the embedded data."""
    folder = tmp_path / "checkpoints"
    path = folder / "tiny.pt"
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels=2)
    save_model(path, model, validation_every=8, curve=[asdict(result) for result in CURVE])
    monkeypatch.setattr(checkpoints, "checkpoint_folder", lambda: folder)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(PRETRAINED, fingerprint(data), {"boundary": ("tiny.pt", digest)})
    return path, model


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
    assert load_pretrained(data, 5) is None  # it has learned from images that would be validation images now
    assert capsys.readouterr().out == ""
    published[0].write_bytes(published[0].read_bytes() + b"x")
    assert load_pretrained(data, 8) is None
    assert "is not the published file" in capsys.readouterr().out
    published[0].unlink()
    assert load_pretrained(data, 8) is None


@pytest.mark.parametrize(
    ("left", "profile", "pretrained"),
    [("boundary.pt", "smoke", None), ("boundary.resume", "smoke", None), (None, "full", None), (None, "smoke", False)],
)
def test_it_is_not_taken_beside_an_own_one_nor_where_it_is_not_wanted(
    published, data, tmp_path, left, profile, pretrained
):
    if left:  # a network of the user's, or one half trained
        path = model_path(tmp_path, "boundary").with_name(left)
        path.parent.mkdir()
        path.write_bytes(b"something of my own")
    seen = []

    def stop(results):
        seen.append(len(results))
        raise InterruptedError

    tiny = replace(get_profile(profile), base_channels=2, crops_per_epoch=2, batch_size=2, crop_size=64, workers=0)
    with pytest.raises(InterruptedError):
        boundary_model(data, tiny, 0, tmp_path, on_epoch=stop, pretrained=pretrained)
    assert seen == [1]  # the first epoch of a new training


def test_every_published_network_is_there_small_and_has_its_card():
    card = (checkpoint_folder() / "README.md").read_text(encoding="utf-8")
    files = {name: kind for kinds in PRETRAINED.values() for kind, (name, _) in kinds.items()}
    denoisers = [(checkpoint_folder() / name).stat().st_size for name, kind in files.items() if kind != "boundary"]
    assert denoisers and sum(denoisers) <= 4e6
    for name, expected in (file for kinds in PRETRAINED.values() for file in kinds.values()):
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
