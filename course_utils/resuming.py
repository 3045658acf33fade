"""Checkpoints of a training, which only the same training takes up: what is the same is told by digests of values.

A digest depends on what a value is and not on where it lies in memory: on the pixels of arrays and tensors, on the code
of functions and classes with all they use (defaults, closures, global names), on the attributes of objects. What
belongs to an installed library is known by its name and its version. Where a value cannot be described, its digest is
like no other: a training that cannot be compared is not resumed.
"""

from __future__ import annotations

import copy
import dis
import functools
import hashlib
import io
import sys
import sysconfig
import types
import uuid
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from course_utils.results import summarize_error
from course_utils.saving import load_sealed, save_sealed

_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_OWN = ("course_utils", "__main__")  # never known by their names, also where the course is installed as a library
_LOADER = ("dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "num_workers", "collate_fn", "generator")


def save_state(path: Path, training: Any, settings: dict, results: list[dict]) -> None:
    """Write the state of a training to a checkpoint.

    Args:
        path: the checkpoint.
        training: has `state_dict` and `load_state_dict`.
        settings: plain values, among them digests: all that another training must have in common to take it up.
        results: of the epochs so far.

    Raises:
        OSError: it cannot be written; the checkpoint before it is still there.
    """
    state = {"settings": settings, "results": results, "random": torch.get_rng_state()}
    save_sealed(path, training.state_dict() | state)


def load_state(path: Path, training: Any, settings: dict) -> list[dict]:
    """Load what `save_state` wrote into a training; returns the results.

    Prints why a checkpoint does not fit; then nothing changes, and there are no results.
    """
    if not path.exists():
        return []
    before = copy.deepcopy(training.state_dict())
    try:
        state = load_sealed(path)
        found = dict(state)["settings"]
        different = [name for name in settings if found.get(name) != settings[name]]
        if different:
            raise ValueError(f"it has other {', '.join(different)}")
        results = list(state["results"])
        training.load_state_dict(state)
        torch.set_rng_state(state["random"])
    except Exception as error:  # torch raises a dozen different types for damaged files
        print(f"{path} does not fit this training and is ignored ({summarize_error(error)}).")
        training.load_state_dict(before)
        return []
    return results


def digest(value: Any) -> str:
    """32 hexadecimal digits that are equal for equal values, also in another process on the same machine.

    >>> digest([1, 2]) == digest([1, 2]), digest([1, 2]) == digest([2, 1]), digest(lambda x: x) == digest(lambda x: -x)
    (True, False, False)
    """
    try:
        return _Digest().of(value).hex()
    except Exception:  # nested too deeply, or of a type that cannot be looked into
        return uuid.uuid4().hex


class _Digest:
    """A walk through one value that may hold other values, some of them twice, and itself."""

    def __init__(self):
        self.path: list[int] = []  # ids of the values around the present one
        self.done: dict[int, tuple[bytes, Any]] = {}  # the value too: as long as it lives, no other one has its id

    def of(self, value: Any) -> bytes:
        if id(value) in self.done:
            return self.done[id(value)][0]
        if id(value) in self.path:
            return f"{len(self.path) - self.path.index(id(value))} steps up".encode()
        self.path.append(id(value))
        state = hashlib.blake2b(type(value).__qualname__.encode(), digest_size=16)
        for part in self.parts(value):
            state.update(part if isinstance(part, (bytes, memoryview)) else self.of(part))
        self.done[self.path.pop()] = state.digest(), value
        return state.digest()

    def parts(self, value: Any) -> list:
        """What the digest of a value is made of: bytes, and other values."""
        match value:
            case None | bool() | int() | float() | complex() | str() | bytes() | range() | slice() | np.dtype():
                return [repr(value).encode()]
            case torch.dtype() | torch.device() | torch.Size():
                return [repr(value).encode()]
            case Enum():
                return [value.name, *self.parts_of_class(type(value))]
            case np.ndarray() if value.dtype.hasobject:
                return [value.shape, value.tolist()]
            case np.ndarray() | np.generic():
                array = np.ascontiguousarray(value)
                return [array.dtype.str, array.shape, memoryview(array.reshape(-1).view(np.uint8))]
            case torch.Tensor():
                return self.parts_of_tensor(value)
            case Mapping():
                return [list(value.keys()), list(value.values())]
            case list() | tuple():
                return [str(len(value)).encode(), *value, *self.attributes(value)]
            case set() | frozenset():
                return sorted(self.of(one) for one in value)
            case types.CodeType():
                return [value.co_code, value.co_consts, value.co_names, value.co_varnames, value.co_freevars]
            case types.ModuleType():
                return [value.__name__, str(getattr(value, "__version__", ""))]
            case functools.partial():
                return [value.func, value.args, value.keywords, *self.attributes(value)]
            case types.MethodType():
                return [value.__func__, value.__self__]
            case types.FunctionType():
                return self.parts_of_function(value)
            case type():
                return self.parts_of_class(value)
            case types.CellType():
                return [value.cell_contents] if value != types.CellType() else []
            case types.BuiltinFunctionType() | types.MethodDescriptorType() | types.WrapperDescriptorType():
                return [value.__qualname__, getattr(value, "__self__", None), getattr(value, "__objclass__", None)]
            case property() | staticmethod() | classmethod() | functools.cached_property():
                return [getattr(value, name, None) for name in ("fget", "fset", "__func__", "func")]
            case np.random.Generator():
                return [value.bit_generator.state]
            case torch.Generator():
                return [value.get_state()]
            case Iterator() | io.IOBase():  # used up as they are read
                return [uuid.uuid4().bytes]
            case DataLoader():
                return [type(value), *(getattr(value, name) for name in _LOADER)]
        return self.parts_of_object(value)

    def parts_of_tensor(self, value: torch.Tensor) -> list:
        plain = value.detach().as_subclass(torch.Tensor).cpu()
        if plain.layout != torch.strided or plain.is_quantized:
            plain = plain.dequantize() if plain.is_quantized else plain.to_dense()
        return [str(value.dtype), plain.shape, plain.contiguous().reshape(-1).view(torch.uint8).numpy().data]

    def parts_of_function(self, value: types.FunctionType) -> list:
        if _of_a_library(value):
            return _name(value)
        code = value.__code__
        names = sorted(_global_names(code) & value.__globals__.keys())
        used = [(name, value.__globals__[name]) for name in names]
        return [code, value.__defaults__, value.__kwdefaults__, value.__closure__, used, *self.attributes(value)]

    def parts_of_class(self, value: type) -> list:
        if _of_a_library(value):
            return _name(value)
        return [value.__qualname__, value.__bases__, {name: part for name, part in vars(value).items()
                                                      if _is_important(name, part) and not _is_slot(part)}]

    def parts_of_object(self, value: Any) -> list:
        attributes = self.attributes(value)
        if not attributes and not _of_a_library(type(value)):
            return [type(value)]
        if not attributes:  # written in C: what pickle would keep
            attributes = [part for part in value.__reduce_ex__(2) if part is not value]
        return [type(value), *attributes]

    def attributes(self, value: Any) -> list:
        """Names and values of the attributes of an object."""
        found = dict(getattr(value, "__dict__", {}))
        for owner in type(value).__mro__:
            slots = vars(owner).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    found[name] = getattr(value, name)
        return [(name, part) for name, part in found.items() if _is_important(name, part)]


def _of_a_library(value: Any) -> bool:
    """Whether a function or class belongs to Python or to an installed package, and not to the course or its user."""
    module = sys.modules.get(getattr(value, "__module__", None) or "builtins")
    if module is None or module.__name__.split(".")[0] in _OWN:
        return False
    place = getattr(module, "__file__", None)
    if place is None:  # built in, or typed in by hand
        return module.__name__ in sys.builtin_module_names
    return place.startswith(_LIBRARIES) and hasattr(module, value.__qualname__.split(".")[0])


def _name(value: Any) -> list:
    package = sys.modules.get((value.__module__ or "").split(".")[0])
    return [value.__module__, value.__qualname__, str(getattr(package, "__version__", ""))]


def _global_names(code: types.CodeType) -> set[str]:
    """The global names that a code uses, also in the functions inside it."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def _is_important(name: str, value: Any) -> bool:
    """Whether an attribute can change what a training does.

    What Python, Sphinx or a debugger note on a function or a class (`__slotnames__`, `__signature__`, `__doc__`) does
    not: it comes and goes while a process runs.
    """
    if name.startswith("__") and name.endswith("__"):
        return callable(value) or isinstance(value, (property, classmethod))
    return name not in ("training", "_abc_impl") and not name.startswith("_torchdynamo")


def _is_slot(value: Any) -> bool:
    return isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
