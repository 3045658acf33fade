"""Checkpoints of a training, which only the same training takes up: what is the same is told by digests of values.

A digest depends on what a value is and not on where it lies in memory: on the pixels of arrays and tensors, on the code
of functions and classes with all they use (defaults, closures, global names), on the attributes of objects. What
belongs to an installed library is known by its name and its version; files that are read later by their paths. Where a
value cannot be described, its digest is like no other: a training that cannot be compared is not resumed.
"""

from __future__ import annotations

import contextlib
import copy
import copyreg
import dis
import functools
import hashlib
import io
import random
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

from course_utils.results import free_name, summarize_error
from course_utils.saving import load_sealed, save_sealed

_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_OWN = ("course_utils", "__main__")  # never known by their names, also where the course is installed as a library
_LOADER = "dataset batch_size sampler batch_sampler drop_last num_workers collate_fn worker_init_fn".split()
_UNKNOWN = "?"  # how the digest of what cannot be described begins


def save_state(path: Path, training: Any, settings: dict, results: list[dict]) -> None:
    """Write the state of a training, and of the random numbers, to a checkpoint.

    Args:
        path: the checkpoint.
        training: has `state_dict`, `load_state_dict` and the `generators` of its loader.
        settings: plain values, among them digests: all that another training must have in common to take it up.
        results: of the epochs so far.

    Raises:
        OSError: it cannot be written; the checkpoint before it is still there.
    """
    state = {"settings": settings, "results": results, "random": _random_state(training.generators)}
    save_sealed(path, training.state_dict() | state)


def load_state(path: Path, training: Any, settings: dict) -> list[dict]:
    """Load what `save_state` wrote into a training; returns the results.

    Prints why a file does not fit, and keeps it under another name; then nothing changes, and there are no results.

    Raises:
        OSError: the file cannot be renamed.
    """
    if unknown := [name for name, value in settings.items() if str(value).startswith(_UNKNOWN)]:
        print(f"If this training is interrupted, it cannot be resumed: its {', '.join(unknown)} cannot be compared.")
    if not path.exists():
        return []
    before, random_before = copy.deepcopy(training.state_dict()), _random_state(training.generators)
    try:
        state = load_sealed(path)
        found = dict(state)["settings"]
        different = [name for name in settings if found.get(name) != settings[name]]
        if different:
            raise ValueError(f"it has other {', '.join(different)}")
        results = list(state["results"])
        training.load_state_dict(state)
        _set_random_state(state["random"], training.generators)
    except Exception as error:  # torch raises a dozen different types for damaged files
        training.load_state_dict(before)
        _set_random_state(random_before, training.generators)
        kept = free_name(path, "kept")
        print(f"{path} does not fit this training ({summarize_error(error)}). It is kept as {kept.name}.")
        with contextlib.suppress(FileNotFoundError):  # another process of this training was faster
            path.rename(kept)
        return []
    return results


def loader_generators(loader: Any) -> list[torch.Generator]:
    """The generators from which a loader and its sampler draw their random numbers."""
    inner = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), inner, getattr(inner, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _random_state(generators: list[torch.Generator]) -> dict:
    """The states of all generators of random numbers that a training may use, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (others may use it)
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "CUDA": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "NumPy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "Python": [version, torch.tensor(numbers), gauss],
        "loader": [one.get_state() for one in generators],
    }


def _set_random_state(state: dict, generators: list[torch.Generator]) -> None:
    name, keys, *rest = state["NumPy"]
    version, numbers, gauss = state["Python"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate((version, tuple(numbers.tolist()), gauss))
    for one, own in zip(generators, state["loader"], strict=True):
        one.set_state(own)
    if len(state["CUDA"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["CUDA"])
    torch.set_rng_state(state["torch"])


def digest(value: Any) -> str:
    """32 hexadecimal digits that are equal for equal values, also in another process on the same machine.

    >>> digest([1, 2]) == digest([1, 2]), digest([1, 2]) == digest([2, 1]), digest(lambda x: x) == digest(lambda x: -x)
    (True, False, False)
    """
    walk = _Digest(loader_generators(value))
    try:
        found = walk.of(value).hex()
    except Exception:  # nested too deeply, or of a type that cannot be looked into
        walk.unknown = True
    return _UNKNOWN + uuid.uuid4().hex if walk.unknown else found


def digest_network(model: torch.nn.Module) -> str:
    """`digest` of all of a network but its weights: what it computes, their shapes, and which of them are trained."""
    usual = vars(torch.nn.Module()).keys()
    layers = [[type(one), {k: v for k, v in vars(one).items() if k not in usual}] for one in model.modules()]
    return digest([str(model), layers, [(one.shape, one.requires_grad) for one in model.parameters()]])


class _Digest:
    """A walk through one value that may hold other values, some of them twice, and itself."""

    def __init__(self, ignored: list):
        self.ignored, self.unknown = [id(one) for one in ignored], False  # whether there was something like no other
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
                return [repr(value).encode(), *self.attributes(value)]
            case torch.dtype() | torch.device() | torch.Size():
                return [repr(value).encode()]
            case Enum():
                return [value.name, *self.parts_of_class(type(value))]
            case np.ndarray() if value.dtype.hasobject:
                return [value.shape, value.tolist()]
            case np.ndarray() | np.generic():
                array = np.ascontiguousarray(value)
                masked = [np.ma.getmaskarray(value)] if isinstance(value, np.ma.MaskedArray) else []
                return [array.dtype.str, array.shape, memoryview(array.reshape(-1).view(np.uint8)), *masked]
            case np.ufunc():
                return [value.__name__]
            case torch.Tensor():
                return self.parts_of_tensor(value)
            case Mapping():
                return [list(value.keys()), list(value.values()), *self.attributes(value)]
            case list() | tuple():
                return [str(len(value)).encode(), *value, *self.attributes(value)]
            case set() | frozenset():
                return [*sorted(self.of(one) for one in value), *self.attributes(value)]
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
            case torch.Generator():  # the state of those of the loader is part of the checkpoint
                return [] if id(value) in self.ignored else [value.get_state()]
            case Iterator() | io.IOBase():  # used up as they are read
                self.unknown = True
                return []
            case DataLoader():
                return [type(value), *(getattr(value, name) for name in _LOADER)]
        return self.parts_of_object(value)

    def parts_of_tensor(self, value: torch.Tensor) -> list:
        plain = value.detach().as_subclass(torch.Tensor).cpu()
        if plain.layout != torch.strided or plain.is_quantized:
            plain = plain.dequantize() if plain.is_quantized else plain.to_dense()
        pixels = plain.contiguous().reshape(-1).view(torch.uint8).numpy().data
        return [str(value.dtype), plain.shape, pixels, *self.attributes(value)]

    def parts_of_function(self, value: types.FunctionType) -> list:
        if _of_a_library(value):
            return _name(value)
        code = value.__code__
        names, attributes, modules = _names_in(code)
        used = {name: value.__globals__[name] for name in names & value.__globals__.keys()}
        used = self.used(used | {name: sys.modules[name] for name in modules & sys.modules.keys()}, attributes)
        return [code, value.__defaults__, value.__kwdefaults__, value.__closure__, used, *self.attributes(value)]

    def used(self, values: dict[str, Any], attributes: set[str], depth: int = 0) -> list:
        """Names and values that a code uses; of a module of its user, what the code may take from it."""
        found = []
        for name, value in sorted(values.items()):
            if isinstance(value, types.ModuleType) and not _is_library(value) and depth < 4:
                inside = {name: vars(value)[name] for name in attributes & vars(value).keys()}
                value = self.used(inside, attributes, depth + 1)
            found.append((name, value))
        return found

    def parts_of_class(self, value: type) -> list:
        if _of_a_library(value):
            return _name(value)
        return [value.__qualname__, value.__bases__, {name: part for name, part in vars(value).items()
                                                      if _is_important(name, part) and not _is_slot(part)}]

    def parts_of_object(self, value: Any) -> list:
        attributes = self.attributes(value)
        if not attributes and not _of_a_library(type(value)):
            return [type(value)]
        own = any(getattr(type(value), name) is not getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
        if own or not attributes:  # written in C: what pickle would keep
            reduce = copyreg.dispatch_table.get(type(value), lambda value: value.__reduce_ex__(2))
            kept = [list(part) if isinstance(part, Iterator) else part for part in reduce(value)]
            attributes += [part for part in kept if part is not value]
        return [type(value), *attributes]

    def attributes(self, value: Any) -> list:
        """Names and values of the attributes of an object."""
        if type(value).__module__ == "builtins" and not hasattr(value, "__dict__"):  # as functions have
            return []
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
    if module is None or not _is_library(module):
        return False
    return not hasattr(module, "__file__") or hasattr(module, value.__qualname__.split(".")[0])


def _is_library(module: types.ModuleType) -> bool:
    if module.__name__.split(".")[0] in _OWN:
        return False
    place = getattr(module, "__file__", None)
    if place is None:  # built in, or typed in by hand
        return module.__name__ in sys.builtin_module_names
    return place.startswith(_LIBRARIES)


def _name(value: Any) -> list:
    package = sys.modules.get((value.__module__ or "").split(".")[0])
    return [value.__module__, value.__qualname__, str(getattr(package, "__version__", ""))]


def _names_in(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """The global names, attributes and modules that a code names, also in the functions inside it."""
    found = set(), set(), set()
    kinds = {"LOAD_GLOBAL": 0, "LOAD_NAME": 0, "LOAD_ATTR": 1, "LOAD_METHOD": 1, "IMPORT_FROM": 1, "IMPORT_NAME": 2}
    for step in dis.get_instructions(code):
        if step.opname in kinds:
            found[kinds[step.opname]].add(step.argval)
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            for names, more in zip(found, _names_in(part), strict=True):
                names |= more
    return found


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
