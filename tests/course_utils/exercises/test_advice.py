"""Slips of any exercise are named behind the message: nothing returned, names and arguments of methods, assert."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from course_utils.exercises.feedback import expect_close, expect_error, expect_pair, expect_shape, expect_type, fail
from course_utils.exercises.sandbox import run_check


def message(submission, check) -> str:
    return run_check("9.9", check, submission).messages[0]


def prints(*_):
    print("shapes are counted")
    print({(2, 3): 4})


CHECKS_OF_A_RESULT = {
    "type": lambda function: expect_type("the result", function(), dict),
    "pair": lambda function: expect_pair("the result", function(), "(mean, std)"),
    "shape": lambda function: expect_shape("the result", function(), (2, 3)),
    "value": lambda function: expect_close("the result", function(), 4.0),
    "comparison": lambda function: fail("Result", function(), 3),
}


@pytest.mark.parametrize("check", CHECKS_OF_A_RESULT.values(), ids=CHECKS_OF_A_RESULT)
def test_print_in_the_place_of_return_is_named(check):
    found = message(prints, check)
    shown = r"\"shapes are counted {\(2, 3\): 4}\""
    assert re.search(f"found None, expected .*Your code printed {shown}.*`return` hands", found)
    assert re.search(r"found None, expected .*without `return`", message(lambda: None, check))


def test_noise_is_no_diagnosis():
    def prints_and_returns():
        print("x")
        return [3]

    for check in CHECKS_OF_A_RESULT.values():
        assert "print" not in message(prints_and_returns, check)


def unpacks(function):
    _first, _second = function()


@pytest.mark.parametrize("check", [unpacks, lambda function: function() + 1, lambda function: function().shape])
def test_an_error_about_none_is_explained(check):
    assert "without `return`" in message(prints, check)


class Fine(nn.Module):
    def __init__(self, n=1):
        nn.Module.__init__(self)
        self.n = n

    def forward(self, x):
        return x + self.n


def misspelt(name):
    return type("Misspelt", (nn.Module,), {"__init__": Fine.__init__, name: Fine.forward})


class ForwardInsideInit(nn.Module):
    def __init__(self, n=1):
        super().__init__()

        def forward(self, x):
            return x


class UsesMisspelt(Fine):
    def __init__(self, n=1):
        nn.Module.__init__(self)
        self.inner = misspelt("foward")()

    def forward(self, x):
        return self.inner(x)


class OneUnderscore(nn.Module):
    def _init_(self, n=1):
        super().__init__()


class Int(nn.Module):
    def __int__(self, n):
        super().__init__()


class NoSelf(Fine):
    def forward(x):
        return x


class NoSuper(nn.Module):
    def __init__(self, n=1):
        self.layer = nn.Linear(1, 1)


class NoSuperNoLayer(nn.Module):
    def __init__(self, n=1):
        self.n = n

    def forward(self, x):
        return x


class NoSuperParameter(nn.Module):
    def __init__(self, n=1):
        self.weight = nn.Parameter(torch.zeros(1))


class Items(Dataset):
    def __init__(self, n=1):
        self.n = n

    def _len_(self):
        return 3

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (misspelt("foward"), "has a method foward: is forward meant"),
        (misspelt("forwards"), "has a method forwards: is forward meant"),
        (misspelt("__forward__"), "has a method __forward__: is forward meant"),
        (misspelt("Forward"), "has a method Forward: is forward meant"),
        (misspelt("run"), "Misspelt needs a method forward"),
        (UsesMisspelt, "class Misspelt has a method foward"),
        (ForwardInsideInit, "needs a method forward, indented"),
        (OneUnderscore, "has a method _init_: is __init__ meant"),
        (Int, "has a method __int__: is __init__ meant"),
        (NoSelf, "first parameter of the method forward is self"),
        (NoSuper, "^Error: .*Call super"),
        (NoSuperNoLayer, "^Error: .*Call super"),
        (NoSuperParameter, "^Error: .*Call super"),
    ],
)
def test_slips_in_a_module_are_named(kind, expected):
    assert re.search(expected, message(kind, lambda submission: submission(2)(torch.zeros(1))))


def test_unsigned_integers_are_explained():
    found = message(lambda: torch.zeros(2, dtype=torch.uint16) > 0, lambda function: function())
    assert re.search("^Error: .*NotImplementedError.*convert to int64 first", found)


def test_slips_in_a_data_set_are_named():
    assert "_len_: is __len__ meant" in message(Items, lambda kind: len(kind(1)))
    two = type("Two", (Dataset,), {"__init__": Items.__init__, "__length__": Items._len_, "getitem": Items.__getitem__})
    assert "getitem: is __getitem__ meant" in message(two, lambda kind: kind(1)[0])


def test_a_right_class_gets_no_advice():
    def wrong_value(kind):
        fail("Value", kind(1)(torch.zeros(1)).item(), 3)

    assert message(Fine, wrong_value) == "Value: found 1.0, expected 3."
    assert message(type("Child", (Fine,), {}), wrong_value) == "Value: found 1.0, expected 3."


def asserts(n):
    assert n > 3, "too small"


def prints_error(n):
    print("ValueError: too small")


@pytest.mark.parametrize(
    ("refuse", "expected"),
    [
        (asserts, "found AssertionError: too small.*, expected a ValueError.*`assert` is not enough"),
        (prints_error, 'found no error, but "ValueError: too small" printed, expected a ValueError.*raise'),
        (lambda n: ValueError("too small"), "found the error ValueError.* as a result, expected a ValueError.*`raise`"),
        (lambda n: torch.zeros(2) + torch.zeros(3), "found RuntimeError: The size .*, expected a ValueError. Compare"),
        (lambda n: n, "found no error, expected a ValueError. Compare n with 3."),
    ],
)
def test_what_stands_where_a_value_error_is_asked_is_named(refuse, expected):
    def check(submission):
        expect_error("a small n", lambda: submission(1), look="Compare n with 3.")

    assert re.search("^a small n: " + expected, message(refuse, check))


def test_strange_objects_get_a_message_without_advice():
    class Strange(Exception):
        def __str__(self):
            raise RuntimeError

    def raises():
        raise Strange

    def closes():
        import sys

        sys.stdout.close()

    assert message(raises, lambda function: function()).startswith("Error: your code raised Strange.")
    assert message(closes, CHECKS_OF_A_RESULT["type"]).startswith("Type of the result: found None")


@pytest.mark.parametrize(("code", "advice"), [
    (lambda: np.array([np.zeros((2, 3)), np.zeros((4, 4))]), "do not fit into one array"),
    (lambda: [0] * (np.zeros(3) == np.ones(3) or 1), "a comparison of arrays gives one for each element"),
    (lambda: np.random.default_rng(0).integers(0, 5 - 5), "never draws `high`"),
    (lambda: np.random.default_rng(0).integers(5, 5), "never draws `high`"),
    (lambda: 2 * 0 / (0 + 0), "makes the denominator 0"),
    (lambda: nn.Linear(2, 2)(torch.zeros(2)).numpy(), "torch.no_grad"),
    (lambda: Dataset()[0], "needs a method __getitem__"),
    (lambda: torch.from_numpy(np.zeros(3, np.uint16)) > 0, "unsigned integers"),
])  # fmt: skip
def test_errors_of_libraries_are_explained(code, advice):
    found = message(code, lambda function: function())
    assert advice in found and ".." not in found


def _ends_in_a_layer(self, x):
    return nn.ReLU(self.first(x))


def _layer_inside(self, x):
    return self.first(nn.ReLU(x))


def _layer_without_brackets(self, x):
    return nn.Sigmoid(self.first(x))


@pytest.mark.parametrize("forward", [_ends_in_a_layer, _layer_inside, _layer_without_brackets])
def test_a_layer_that_is_given_data_in_place_of_its_options_is_named(forward):
    def init(self):
        nn.Module.__init__(self)
        self.first = nn.Conv2d(1, 1, 3)

    network = type("Network", (nn.Module,), {"__init__": init, "forward": forward})
    said = message(network, lambda kind: expect_type("the result", kind()(torch.zeros(1, 1, 5, 5)), torch.Tensor))
    assert "two pairs of brackets" in said and "(Tensor input" not in said and "\n" not in said


def test_a_shape_with_fewer_axes_and_a_loader_without_a_length_are_explained():
    assert "not every array has as many axes" in message(lambda: torch.zeros(3).shape[1], lambda function: function())
    loader = (batch for batch in [1])
    assert "any iterable" in message(lambda: len(loader), lambda function: function())
    assert "any iterable" in message(lambda: loader.dataset, lambda function: function())
