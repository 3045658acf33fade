"""Plain values as bytes: all that the judge ever reads from the box in which a student's notebook runs.

Reading executes nothing: numbers, texts, containers, arrays and tensors are rebuilt from their bytes. What cannot be
sent as it is arrives as something that looks like it: an `int` of a student's subclass as one of an empty subclass with
the same name, any other object as an `Opaque` with the name of its type and its `repr`. So whatever methods the student
wrote (an `==` that is always true, a `__class__`) stay behind, and a message of a check is that of the notebook.

Objects that both sides have, such as the arguments of a call (`workshop.grade.judge.calls`), are sent as their number.

>>> unpack(pack({(2, 3): [1.5, None]}))
{(2, 3): [1.5, None]}
"""

from __future__ import annotations

import builtins
import operator
import re
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from workshop.grade.judge.tables import is_table, table_from_plain, table_to_plain

MAX_BYTES = 2**28  # of one message
MAX_PARTS = 2_000_000
MAX_DEPTH = 60
MAX_INT_BYTES = 2**16
MAX_TEXT = 300  # characters of the name or `repr` of an object that is not sent

NUMBERS = re.compile(r"[<>|=]?[biufc]\d{1,2}|\|b1")
FACTORIES = {"int": int, "float": float, "list": list, "dict": dict, "set": set, "tuple": tuple, "str": str}
TENSORS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
           "complex128")  # fmt: skip
# Tags of the plain types, and how each is read from an object of a subclass without using what that class overrides.
PLAIN = {
    int: b"i", float: b"f", complex: b"c", str: b"s", bytes: b"b", list: b"l", tuple: b"t", dict: b"d", set: b"S",
    frozenset: b"F",
}  # fmt: skip
CONSTANTS = {None: b"0", True: b"1", False: b"2"}
LENGTH = struct.Struct("<Q")
READ = {
    int: int.__int__, float: float.__float__, complex: complex.__complex__, str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)), list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: (*tuple.__iter__(value),), dict: lambda value: {**dict(dict.items(value))},
    set: lambda value: {*set.__iter__(value)}, frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}  # fmt: skip


class Opaque:
    """Something that was not sent. Its class has the name that the class of the original has."""

    text = ""

    def __repr__(self) -> str:
        return self.text


def pack(value: Any, known: Sequence[Any] = ()) -> bytes:
    """A value as bytes. Objects of `known` are sent as their number.

    Raises:
        ValueError: it is too large or nested too deeply.
    """
    try:
        writer = _Writer(known)
        writer.put(value, 0)
        return b"".join(writer.chunks)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unpack(data: bytes, known: Sequence[Any] = ()) -> Any:
    """The value that `pack` was given, as far as it is plain.

    Raises:
        ValueError: these bytes were not made by `pack`, or the value is too large.
    """
    try:
        reader = _Reader(data, known)
        value = reader.take(0)
        if reader.place != len(reader.data):
            raise ValueError("bytes are left over")
        return value
    except Exception as error:  # numpy and torch have their own
        raise ValueError(f"Malformed value: {error}"[:MAX_TEXT]) from None


def is_tensor(value: Any) -> bool:
    return any(kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in _mro(value))


def _mro(value: Any) -> tuple[type, ...]:
    """The classes of an object, whatever it and its metaclass say."""
    return type.__dict__["__mro__"].__get__(type(value))


class _Writer:
    def __init__(self, known: Sequence[Any]):
        self.chunks: list[bytes] = []
        self.number = {id(part): number for number, part in enumerate(known)}
        self.size = self.parts = 0

    def write(self, *chunks: bytes) -> None:
        self.chunks += chunks

    def sized(self, tag: bytes, data: bytes) -> None:
        self.chunks += tag, LENGTH.pack(len(data)), data
        self.size += len(data)
        if self.size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES // 10**6} MB")

    def tagged(self, tag: bytes, content: Any, depth: int) -> None:
        self.write(tag)
        self.put(content, depth + 1)

    def put(self, value: Any, depth: int) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        kind = type(value)
        if value is None or value is True or value is False:
            self.write(CONSTANTS[value])
        elif id(value) in self.number:
            self.write(b"k", LENGTH.pack(self.number[id(value)]))
        elif kind in PLAIN:
            self.put_plain(value, kind, depth)
        else:
            self.put_other(value, kind, _mro(value), depth)

    def put_other(self, value: Any, kind: type, kinds: tuple[type, ...], depth: int) -> None:
        plain = next((one for one in kinds if one in PLAIN), None)
        if np.generic in kinds and (data := _array_bytes(np.array(value))):
            self.tagged(b"n", data, depth)
        elif np.ndarray in kinds:
            self.put_array(value, kind, depth)
        elif is_tensor(value):
            self.put_tensor(value, depth)
        elif kind is Counter or kind is OrderedDict or kind is defaultdict:
            factory = value.default_factory if kind is defaultdict else None
            named = next((name for name, one in FACTORIES.items() if one is factory), "")
            self.tagged(b"C", (_name(kind), named, [*dict.items(value)]), depth)
        elif kind.__module__ == "torch" and kind.__name__ == "Size":
            self.tagged(b"z", READ[tuple](value), depth)
        elif plain:
            fields = getattr(kind, "_fields", ()) if plain is tuple else ()
            fields = tuple(map(str, fields)) if isinstance(fields, tuple) else ()
            self.tagged(b"K" + PLAIN[plain], (_name(kind), _module(kind), fields, READ[plain](value)), depth)
        elif is_table(kinds):
            self.tagged(b"D", table_to_plain(value), depth)
        elif BaseException in kinds:
            self.put_exception(value, kinds, depth)
        else:
            self.tagged(b"O", (_name(kind), _module(kind), _shown(value)), depth)

    def put_plain(self, value: Any, kind: type, depth: int) -> None:
        tag = PLAIN[kind]
        if kind is str:
            self.sized(tag, value.encode("utf-8", "surrogatepass"))
        elif kind is int:
            length = value.bit_length() // 8 + 1
            if length > MAX_INT_BYTES:
                raise ValueError(f"a number has more than {MAX_INT_BYTES} bytes")
            self.sized(tag, value.to_bytes(length, "little", signed=True))
        elif kind is bytes:
            self.sized(tag, value)
        elif kind is float:
            self.write(tag, struct.pack("<d", value))
        elif kind is complex:
            self.write(tag, struct.pack("<dd", value.real, value.imag))
        else:
            self.write(tag, LENGTH.pack(len(value)))
            for item in value.items() if kind is dict else value:
                for one in item if kind is dict else (item,):
                    self.put(one, depth + 1)

    def put_array(self, value: Any, kind: type, depth: int) -> None:
        array = np.ndarray.view(value, np.ndarray)
        name = "" if kind is np.ndarray else _name(kind)
        if data := _array_bytes(array):
            self.tagged(b"a", (name, *data), depth)
        elif array.dtype.kind in "OUS":
            self.write(b"A")
            items = array.ravel().tolist()
            self.put((name, array.dtype.kind, array.shape, items), depth + 1)
        else:
            self.tagged(b"O", (name or "ndarray", "numpy", _shown(array)), depth)

    def put_tensor(self, value: Any, depth: int) -> None:
        import torch

        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            tensor = value.detach().as_subclass(torch.Tensor)
            dtype = str(tensor.dtype).removeprefix("torch.")
            if dtype not in TENSORS or tensor.layout is not torch.strided or tensor.device.type == "meta":
                self.tagged(b"O", ("Tensor", "torch", _shown(tensor)), depth)
                return
            _expect_size(tensor.numel() * tensor.element_size())
            flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
            self.tagged(b"T", (dtype, tuple(tensor.shape), bool(value.requires_grad), data), depth)

    def put_exception(self, value: BaseException, kinds: tuple[type, ...], depth: int) -> None:
        base = next(one for one in kinds if getattr(builtins, one.__name__, None) is one)
        try:
            text = str(value)
        except BaseException:  # an exception class that the student wrote may fail here
            text = ""
        arguments = [one for one in value.args if type(one) in (int, float, str, bool, type(None))]
        self.tagged(b"E", (base.__name__, _name(kinds[0]), _module(kinds[0]), text[:100_000], arguments), depth)


def _name(kind: type) -> str:
    return str(type.__dict__["__name__"].__get__(kind))[:MAX_TEXT]


def _module(kind: type) -> str:
    module = type.__dict__["__module__"].__get__(kind)
    return module[:MAX_TEXT] if type(module) is str else ""


def _shown(value: Any) -> str:
    try:
        return str.__str__(repr(value))[:MAX_TEXT]
    except BaseException:
        return f"<{_name(type(value))}>"


def _array_bytes(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes] | None:
    """dtype, shape and bytes of an array of numbers."""
    if not NUMBERS.fullmatch(array.dtype.str):
        return None
    _expect_size(array.nbytes)
    return array.dtype.str, array.shape, array.tobytes()


def _expect_size(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise ValueError(f"it has {n_bytes / 1e6:.0f} MB, and at most {MAX_BYTES // 10**6} MB are compared")


class _Reader:
    def __init__(self, data: bytes, known: Sequence[Any]):
        self.data, self.known, self.place, self.parts = data, known, 0, 0

    def bytes(self, length: int) -> bytes:
        if length > len(self.data) - self.place:
            raise ValueError("it is cut off")
        self.place += length
        return self.data[self.place - length : self.place]

    def length(self) -> int:
        return LENGTH.unpack(self.bytes(8))[0]

    def items(self, number: int, depth: int) -> Iterator[Any]:
        if number > len(self.data):
            raise ValueError("it is cut off")
        for _ in range(number):
            yield self.take(depth)

    def take(self, depth: int) -> Any:
        self.parts += 1
        if self.parts > 2 * MAX_PARTS or depth > 2 * MAX_DEPTH:
            raise ValueError("it has too many parts")
        tag, depth = self.bytes(1), depth + 1
        if tag in b"isb":
            return self.sized(tag)
        if tag in b"012":
            return next(value for value, own in CONSTANTS.items() if own == tag)
        if tag == b"k":
            return self.known[self.length()]
        if tag == b"f":
            return struct.unpack("<d", self.bytes(8))[0]
        if tag == b"c":
            return complex(*struct.unpack("<dd", self.bytes(16)))
        if tag in b"ltdSF":
            parts = self.items(self.length() * (2 if tag == b"d" else 1), depth)
            if tag == b"d":
                return dict(zip(parts, parts, strict=True))
            return {b"l": list, b"t": tuple, b"S": set, b"F": frozenset}[tag](parts)
        if tag == b"K":
            return self.kin(self.bytes(1), depth)
        make = {b"n": _scalar, b"a": _array, b"A": _array_of_items, b"T": _tensor, b"C": _mapping, b"z": _size,
                b"D": table_from_plain, b"E": _exception, b"O": _opaque}[tag]  # fmt: skip
        content = self.take(depth)
        if type(content) is not tuple:
            raise ValueError("its description is none")
        return make(content) if make is _size else make(*content)

    def sized(self, tag: bytes) -> int | str | bytes:
        data = self.bytes(self.length())
        if tag == b"i":
            if len(data) > MAX_INT_BYTES:
                raise ValueError("a number is too large")
            return int.from_bytes(data, "little", signed=True)
        return data.decode("utf-8", "surrogatepass") if tag == b"s" else data

    def kin(self, tag: bytes, depth: int) -> Any:
        """A value of a subclass of a plain type that has only its name, and the names of a namedtuple's fields."""
        base = next(kind for kind, own in PLAIN.items() if own == tag)
        name, module, fields, value = self.take(depth)
        if type(value) is not base:
            raise ValueError("it is of another type")
        names = {str(field): property(operator.itemgetter(place)) for place, field in enumerate(fields)}
        names = {field: place for field, place in names.items() if field.isidentifier() and not field.startswith("_")}
        return _class(name, (base,), module, **names)(value)


def _class(name: str, bases: tuple[type, ...], module: str, **names: Any) -> type:
    return type(str(name)[:MAX_TEXT], bases, {**names, "__module__": str(module)[:MAX_TEXT]})


def _scalar(dtype: str, shape: tuple, data: bytes) -> Any:
    return _array("", dtype, shape, data)[()]


def _array(name: str, dtype: str, shape: tuple, data: bytes) -> np.ndarray:
    if not NUMBERS.fullmatch(dtype):
        raise ValueError("not a dtype of numbers")
    array = np.frombuffer(bytearray(data), np.dtype(dtype)).reshape(_sides(shape))
    if array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError("a truth value is neither 0 nor 1")
    return array.view(_class(name, (np.ndarray,), "")) if name else array


def _sides(shape: tuple) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > 32 or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError("not a shape")
    return shape


def _array_of_items(name: str, kind: str, shape: tuple, items: list) -> np.ndarray:
    """An array of texts or of plain values. Its text has at most as many characters as were sent."""
    if kind == "O":
        array = np.empty(len(items), dtype=object)
        for place, item in enumerate(items):
            array[place] = item
    else:
        if any(type(item) is not {"U": str, "S": bytes}[kind] for item in items):
            raise ValueError("not a text")
        _expect_size(4 * len(items) * max(map(len, items), default=0))
        array = np.array(items, dtype=kind)
    array = array.reshape(_sides(shape))
    return array.view(_class(name, (np.ndarray,), "")) if name else array


def _tensor(dtype: str, shape: tuple, requires_grad: bool, data: bytes) -> Any:
    import torch

    if dtype not in TENSORS:
        raise ValueError("not a dtype of tensors")
    kind = getattr(torch, dtype)
    flat = torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)
    if kind is torch.bool:
        flat = flat.view(torch.uint8) > 0
    return flat.reshape(_sides(shape)).requires_grad_(requires_grad is True)


def _size(sides: tuple) -> Any:
    import torch

    return torch.Size(_sides(sides))


def _mapping(name: str, factory: str, items: list) -> Any:
    kind = {"Counter": Counter, "OrderedDict": OrderedDict, "defaultdict": defaultdict}[name]
    found = defaultdict(FACTORIES.get(factory)) if kind is defaultdict else kind()
    for key, value in items:
        dict.__setitem__(found, key, value) if kind is Counter else found.__setitem__(key, value)
    return found


def _exception(base: str, name: str, module: str, text: str, arguments: list) -> BaseException:
    kind = getattr(builtins, base)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)) or type(text) is not str:
        raise ValueError("not an exception")
    if issubclass(kind, BaseExceptionGroup):  # they need the exceptions of the group
        kind = Exception
    if name == base:
        try:
            error = kind(*arguments)
            if str(error) == text:
                return error
        except Exception:  # it needs other arguments
            pass
    names = {"__init__": lambda self, *_: None, "__str__": lambda self: text}
    return _class(name, (kind,), module, **names)(*arguments)


def _opaque(name: str, module: str, text: str) -> Any:
    if type(text) is not str:
        raise ValueError("not a text")
    return _class(name, (Opaque,), module, text=text[:MAX_TEXT])()
