"""Two trainings are compared by what they use: equal values have equal digests, also in another process."""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import os
import random
import re
import subprocess
import sys
import types
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.dataset import NucleiDataset, training_loader, validation_loader
from course_utils.losses import binary_cross_entropy, dice_score
from course_utils.networks import boundary_loss
from course_utils.resuming import digest
from course_utils.targets import binary_target, boundary_target
from course_utils.unet import UNet

SCALE = 2.0
Kind = TypeVar("Kind")


def scaled(logits, target):
    return SCALE * binary_cross_entropy(logits, target)


def through_another(logits, target):
    return [scaled(one, target) for one in logits]


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, logits, target):
        return self.weight * logits


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight


class Layer(nn.Module):
    def __init__(self, weight, inner=None):
        super().__init__()
        self.weight, self.inner = weight, inner


def closure(weight):
    return lambda logits, target: weight * logits


def default(weight):
    def loss(logits, target, weight=weight):
        return weight

    return loss


def made_of(weight):
    """A class whose method differs."""
    return type("Loss", (), {"__call__": closure(weight)})


def crops(value=0.0, target=1, transform=binary_target, augment=True, seed=0, size=16, batch=2, n=4, image=0):
    images = [np.full((20, 24), 0.5, np.float32) for _ in range(2)]
    masks = [np.zeros((20, 24), int) for _ in range(2)]
    images[image][3, 4] += value
    masks[1][5, 6] = target
    return training_loader(NucleiDataset(images, masks, transform, size, augment, seed), batch, n)


def whole(value):
    image = np.zeros((16, 16), np.float32)
    image[-1, -1] = value
    return validation_loader([image], [np.ones((16, 16), int)], binary_target)


def module_of(text, name="own_module"):
    module = types.ModuleType(name)
    exec("def f(x): return scale * x\n" + text, vars(module))
    return module


def of_module(text):
    module = module_of(text)
    return eval("lambda x: helpers.f(x)", {"helpers": module, "__name__": "own_script"})


def of_package(text):
    package = types.ModuleType("own_package")
    package.inner = module_of(text, "own_package.inner")
    return eval("lambda x: package.inner.f(x)", {"package": package, "__name__": "own_script"})


class Table(dict): ...


class Group(set): ...


class Number(float): ...


def attributed(kind, weight):
    value = kind()
    value.weight = weight
    return value


def loader_with(worker_init_fn):
    return DataLoader(TensorDataset(torch.ones(3)), worker_init_fn=worker_init_fn)


def pairs():
    """Values that are not the same training."""
    ones, twos = torch.ones(3), torch.full((3,), 2.0)
    return {
        "images, one pixel": (crops(), crops(value=1e-6)),
        "images, their order": (crops(value=1.0), crops(value=1.0, image=1)),
        "targets, one pixel": (crops(), crops(target=2)),
        "target transform": (crops(), crops(transform=boundary_target)),
        "augmentation": (crops(), crops(augment=False)),
        "seed": (crops(), crops(seed=1)),
        "crop size": (crops(), crops(size=8)),
        "batch size": (crops(), crops(batch=1)),
        "crops in an epoch": (crops(), crops(n=6)),
        "validation pixel": (whole(0.0), whole(1.0)),
        "lists of tensors": ([(ones, ones)], [(ones, twos)]),
        "shapes": (torch.zeros(2, 3), torch.zeros(3, 2)),
        "types": (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        "types of arrays": (np.zeros(2, np.int32), np.zeros(2, np.float32)),
        "numbers and texts": (1, "1"),
        "whole and broken numbers": (1, 1.0),
        "functions": (binary_cross_entropy, dice_score),
        "functions of torch": (torch.sigmoid, torch.tanh),
        "functional": (nn.functional.cross_entropy, nn.functional.nll_loss),
        "lambdas": (lambda x: x + 1, lambda x: x + 2),
        "lambdas, operators": (lambda x: x + 1, lambda x: x - 1),
        "closures": (closure(1), closure(2)),
        "closures over tensors": (closure(ones), closure(twos)),
        "defaults": (default(1), default(2)),
        "partials": (functools.partial(scaled, target=1), functools.partial(scaled, target=2)),
        "attributes": (Weighted(1), Weighted(2)),
        "attributes in slots": (Slotted(1), Slotted(2)),
        "bound methods": (Weighted(1).__call__, Weighted(2).__call__),
        "methods of classes": (made_of(1)(), made_of(2)()),
        "modules of torch": (nn.CrossEntropyLoss(ones), nn.CrossEntropyLoss(twos)),
        "settings of modules": (nn.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(reduction="sum")),
        "modules in modules": (Layer(1, Layer(1)), Layer(1, Layer(2))),
        "modules of one's own": (of_module("scale = 1"), of_module("scale = 2")),
        "functions in modules of one's own": (of_module("scale = 1"), of_module("scale = 1\ndef f(x): return -x")),
        "modules in packages": (of_package("scale = 1"), of_package("scale = 2")),
        "random numbers of Python": (random.Random(1), random.Random(2)),
        "masked arrays": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
        "dictionaries with attributes": (attributed(Table, 1), attributed(Table, 2)),
        "sets with attributes": (attributed(Group, 1), attributed(Group, 2)),
        "functions with attributes": (attributed(lambda: default(1), 1), attributed(lambda: default(1), 2)),
        "numbers with attributes": (attributed(Number, 1), attributed(Number, 2)),
        "patterns": (re.compile("a"), re.compile("b")),
        "queues": (collections.deque([1]), collections.deque([2])),
        "functions of NumPy": (np.sin, np.cos),
        "functions of workers": (loader_with(len), loader_with(max)),
        "no metric": (None, dice_score),
        "dictionaries": ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        "sets": ({"a", "b"}, {"a", "c"}),
        "samplers": (DataLoader(TensorDataset(ones)), DataLoader(TensorDataset(ones), shuffle=True)),
        "generators of random numbers": (np.random.default_rng(0), np.random.default_rng(1)),
    }


@pytest.mark.parametrize("kind", pairs())
def test_other_trainings_have_other_digests(kind):
    one, other = pairs()[kind]
    assert digest(one) != digest(other)
    again, _ = pairs()[kind]
    assert digest(again) == digest(one)  # made anew, it is the same


def test_a_global_value_that_a_function_uses_counts(monkeypatch):
    before = digest(scaled), digest(through_another), digest(boundary_loss)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    monkeypatch.setattr("course_utils.networks.BOUNDARY_WEIGHT", 4.0)
    after = digest(scaled), digest(through_another), digest(boundary_loss)
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_modes_do_not_count():
    assert digest(nn.Dropout(0.1).eval()) == digest(nn.Dropout(0.1).train())


class Scheme(ABC):
    """An abstract class, which Python keeps notes on, and a generic one below, which typing does."""

    weight = 2.0

    @abstractmethod
    def __call__(self, logits, target): ...


class Doubled(Scheme, Generic[Kind]):
    def __call__(self, logits, target):
        return self.weight * logits


def test_what_a_process_notes_on_functions_and_classes_does_not_count(monkeypatch):
    """As documentation, copies, type hints and checks of types leave it."""
    values = [scaled, closure(1.0), Weighted, Slotted, Layer, Doubled, Weighted(1.0), Layer(1.0), Doubled(), UNet(1, 1)]
    before = [digest(value) for value in [*values, Slotted(1.0)]]
    for value in values:
        for name in ("__signature__", "__doc__"):
            monkeypatch.setattr(value, name, inspect.signature(binary_cross_entropy), raising=False)
    monkeypatch.setattr(scaled, "_torchdynamo_orig_callable", closure(2.0), raising=False)
    copy.copy(Slotted(1.0)), isinstance(closure, Scheme), get_type_hints(Doubled)
    assert "__slotnames__" in vars(Slotted)
    assert [digest(value) for value in [*values, Slotted(1.0)]] == before


def test_what_such_names_do_counts():
    """Special methods stay part of a class, also where they are no functions."""
    one, other = type("Loss", (), {}), type("Loss", (), {})
    one.__call__, other.__call__ = functools.partial(scaled), functools.partial(through_another)
    assert digest(one) != digest(other)
    one.__call__ = other.__call__ = scaled
    one.__len__, other.__len__ = property(closure(1.0)), property(closure(2.0))
    assert digest(one) != digest(other)


def test_values_that_hold_each_other():
    one, other, third = [1], [1], [2]
    for ring in (one, other, third):
        ring.append({"ring": ring})
    assert digest(one) == digest(other) != digest(third)


def test_what_cannot_be_described_is_like_nothing_else():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    for value in ((one for one in [1]), deep, open(__file__)):
        assert digest(value) != digest(value)


def test_in_other_processes_the_digests_are_the_same():
    code = (
        "import test_resuming as t; print([t.digest(one) for pair in t.pairs().values() for one in pair]"
        "+ [t.digest(t.through_another), t.digest(t.boundary_loss)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-B", "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1 and len(said.pop()) > 1000
