"""Values that come back from the box: plain ones as they are, others by name, and no bytes that do anything."""

import enum
import pickle
import random
import struct
from collections import Counter, OrderedDict, defaultdict, namedtuple
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workshop.grade.judge import values
from workshop.grade.judge.calls import content_of, parts_of, restore
from workshop.grade.judge.values import Opaque, pack, unpack

NUMBERS = st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(),
                    hnp.floating_dtypes(endianness="?"), hnp.complex_number_dtypes())  # fmt: skip
HASHABLE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.binary(),
              st.text(st.characters(categories=None))),
    lambda inside: st.lists(inside, max_size=3).map(tuple), max_leaves=4,
)  # fmt: skip
PLAIN = st.recursive(
    st.one_of(HASHABLE, hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3), st.lists(inside, max_size=3).map(tuple), st.sets(HASHABLE, max_size=3),
        st.dictionaries(HASHABLE, inside, max_size=3), st.frozensets(HASHABLE, max_size=3),
    ), max_leaves=8,
)  # fmt: skip


def same(a, b):
    """Equal in type, order and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    return sorted(map(repr, a)) == sorted(map(repr, b)) if isinstance(a, (set, frozenset)) else repr(a) == repr(b)


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_plain_values_arrive_as_they_are(value):
    assert same(unpack(pack(value)), value)


@pytest.mark.parametrize("value", [
    Counter("aab"), OrderedDict(b=1, a=2), defaultdict(int, {1: 2}), np.float64(3), np.int8(-3), np.bool_(True),
    np.array(5), np.array(["a", "bb"]), np.array([None, 1, "x"], dtype=object), np.arange(6).reshape(2, 3)[:, ::-1],
    np.asfortranarray(np.ones((2, 3))), ValueError("wrong"), KeyError("k"), 10**3000, torch.Size([2, 3]),
], ids=repr)  # fmt: skip
def test_what_python_and_numpy_have_keeps_its_type(value):
    found = unpack(pack(value))
    assert type(found) is type(value) and repr(found) == repr(value)


@pytest.mark.parametrize("dtype", values.TENSORS)
@pytest.mark.parametrize("make", [
    lambda dtype: torch.arange(6).reshape(2, 3).to(dtype).T, lambda dtype: torch.zeros((0, 2), dtype=dtype),
    lambda dtype: torch.ones((), dtype=dtype), lambda dtype: torch.nn.Parameter(torch.ones(2, dtype=dtype), False),
])  # fmt: skip
def test_tensors_of_every_dtype(dtype, make):
    tensor = make(getattr(torch, dtype))
    found = unpack(pack(tensor))
    assert type(found) is torch.Tensor and found.dtype == tensor.dtype and torch.equal(found, tensor.data)


def test_a_tensor_says_whether_it_records_gradients():
    weight = torch.ones(2, requires_grad=True)
    assert [unpack(pack(one)).requires_grad for one in (weight, weight * 2, weight.detach())] == [True, True, False]


class Always:
    def __eq__(self, other):
        return True

    __hash__ = None
    __class__ = int


def always(base):
    """A subclass that is equal to everything and hides what it holds."""
    names = {"__eq__": lambda self, other: True, "__hash__": lambda self: 0, "__class__": str, "__len__": lambda _: 99,
             "__iter__": lambda self: iter([7]), "items": lambda self: [(7, 7)], "__int__": lambda self: 7,
             "tobytes": lambda self: b"7", "shape": (7,)}  # fmt: skip
    return type("Always", (base,), names)


@pytest.mark.parametrize("value", [5, 1.5, 2j, "text", b"bytes", [1, 2], (1, 2), {1: 2}, {1}, frozenset({1})], ids=repr)
def test_subclasses_leave_their_methods_behind(value):
    found = unpack(pack(always(type(value))(value)))
    assert isinstance(found, type(value)) and type(found) is not type(value) and type(found).__name__ == "Always"
    assert found == value and found != "anything" and found.__class__ is type(found)


def test_arrays_and_tensors_of_subclasses_are_those_of_their_base():
    array = np.arange(3).view(always(np.ndarray))
    found = unpack(pack(array))
    assert isinstance(found, np.ndarray) and (found == [0, 1, 2]).all() and not (found == [0, 1, 9]).all()

    class Lies(torch.Tensor):
        def __eq__(self, other):
            return True

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return torch.zeros(7)

    found = unpack(pack(torch.arange(3).as_subclass(Lies)))
    assert type(found) is torch.Tensor and found.tolist() == [0, 1, 2]


@pytest.mark.parametrize("table", [
    pd.DataFrame({"id": [3, 2**40], "area": [1.5, np.nan], "touches_border": [True, False], "name": ["a", "b"]}),
    pd.DataFrame(columns=["id", "area"]), pd.DataFrame([[1, 2], [3, 4]], columns=["area", "area"]), pd.DataFrame(),
    pd.DataFrame({"id": [4], "area": [9]}).set_index("id"), pd.DataFrame({"id": [2, 1]}, index=[7, 7]),
    pd.DataFrame({("a", "x"): [1], ("b", "y"): [2]}), pd.DataFrame({"ids": [[1, 2], None]}),
    pd.DataFrame({"id": [1]}, index=pd.MultiIndex.from_tuples([(1, "a")], names=["image", "id"])),
], ids=range(9))  # fmt: skip
def test_a_table_arrives_as_a_table(table):
    class Own(pd.DataFrame):
        pass

    for value in (table, Own(table)):
        found = unpack(pack([value]))[0]
        assert type(found) is pd.DataFrame
        assert [*found.columns] == [*table.columns] and [*found.index] == [*table.index]
        assert found.index.names == table.index.names
        assert found.to_numpy().shape == table.shape and repr(found.to_numpy()) == repr(table.to_numpy())
        assert [*found.dtypes] == [*table.dtypes]
    odd = unpack(pack(pd.DataFrame({"id": [1], "day": pd.to_datetime(["2020-01-01"])})))
    assert odd["id"].tolist() == [1] and isinstance(odd["day"][0], Opaque)


def test_other_objects_arrive_by_name():
    for value in (Always(), len, (n for n in ()), enum.Enum("Colour", "red"), np.datetime64("2020-01-01")):
        found = unpack(pack([value]))[0]
        assert isinstance(found, Opaque) and type(found).__name__ == type(value).__name__
        assert repr(found) == repr(value) and found != 5
    assert unpack(pack(namedtuple("Scores", "mean std")(1, 2))).std == 2

    class Own(ValueError):
        def __str__(self):
            return "my text"

    error = unpack(pack(Own(1)))
    assert isinstance(error, ValueError) and (type(error).__name__, str(error)) == ("Own", "my text")


@pytest.mark.parametrize("value", [10**200_000, np.broadcast_to(np.float64(0), (2**20, 2**20))], ids=["int", "array"])
def test_what_is_too_large_is_refused_at_once(value):
    with pytest.raises(ValueError, match="more than|MB"):
        pack(value)
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deeply"):
        pack(endless)


def test_bytes_that_nobody_packed_are_refused():
    """Every cut and many changes of a message: a value or a `ValueError`, never anything else, and soon."""
    whole = pack({"a": [1, (2.5, "x")], "b": np.arange(4), "t": torch.ones(2), "e": ValueError("x"), "o": len,
                  "c": Counter("aa"), "n": np.float32(1), "k": always(int)(3), "g": {1, 2},
                  "d": pd.DataFrame({"id": [1, 2]})})  # fmt: skip
    rng = random.Random(0)
    cases = [whole[:end] for end in range(len(whole))] + [whole + b"0"]
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            changed[rng.randrange(len(changed))] = rng.choice([rng.randrange(256), 0xFF, *b"ltdnaATKEOCD"])
        cases.append(bytes(changed))
    refused = 0
    for data in cases:
        try:
            unpack(data)
        except ValueError:
            refused += 1
    assert refused > 1000


def number(n):
    return struct.pack("<Q", n)


@pytest.mark.parametrize("data", [
    pickle.dumps([1]), b"l" + number(2**60), b"l" + number(1) + b"", b"l\x01\0\0\0\0\0\0\0" * 1000, b"k" + number(3),
    b"d" + number(1) + b"l" + number(0) + b"0", b"i" + number(2**40), b"Z", b"",
    b"a" + pack(("", "O", (1,), b"\0" * 8)), b"a" + pack(("", "<f8", (2**40, 2**40), b"")), b"a" + pack(5),
    b"a" + pack(("", "<f8,O", (1,), b"\0" * 16)), b"a" + pack(("", "|b1", (1,), b"\x07")),
    b"T" + pack(("save", (1,), False, b"")), b"T" + pack(("float32", (1,), False, b"")),
    b"E" + pack(("eval", "x", "y", "z", [])), b"Ki" + pack(("X", "m", (), "5")), b"A" + pack(("", "U", (1,), [5])),
    b"C" + pack(("Popen", "", [])), b"O" + pack(("na\0me", "m", "text")),
])  # fmt: skip
def test_hostile_bytes_are_refused(data):
    with pytest.raises(ValueError, match="Malformed"):
        unpack(data)


def test_identity_and_changes_of_arguments():
    """The copy in the box is changed; the original follows, and a result that is one of its parts is that part."""
    samples = [SimpleNamespace(image=np.arange(4), name="a"), SimpleNamespace(image=np.zeros(2), name="b")]
    original = (samples, {"t": torch.zeros(2), "rng": np.random.default_rng(0)}, np.ones((2, 3)), {1})
    copied = pickle.loads(pickle.dumps(original))
    here, there = parts_of(original), parts_of(copied)
    assert [type(part) for part in here] == [type(part) for part in there]
    assert len({*map(id, here)}) == len(here)

    copied[0].append(copied[0].pop(0))
    copied[0][1].name, copied[0][1].image[0] = "c", 9
    copied[1]["t"] += 5
    copied[1]["new"] = copied[0][0]
    copied[2].shape = (3, 2)
    copied[3].add(2)
    drawn = copied[1]["rng"].random(3)
    for part, copy in zip(here, there, strict=True):
        restore(part, unpack(pack(content_of(copy), there), here))
    assert samples[1].name == "c" and samples[1].image.tolist() == [9, 1, 2, 3] and samples[0].name == "b"
    assert original[1]["t"].tolist() == [5, 5] and original[1]["new"] is samples[0]
    assert original[2].shape == (3, 2) and original[3] == {1, 2}
    assert original[1]["rng"].random() == copied[1]["rng"].random() != drawn[0]
    assert unpack(pack((copied[0][1], [copied[2]]), there), here)[0] is samples[1]

    for part in here:
        with pytest.raises(ValueError, match="not the content"):
            restore(part, 5.5 if not isinstance(part, np.ndarray) else np.ones(7))
