"""Notices, and undoes, what a student's code replaced in the libraries that a check uses.

Recorded are the functions, classes and modules that modules hold, the methods of classes, and the code of functions.
New names are left alone unless they hide something: a notebook may well add a method to `nn.Module`. Values such as
counters and caches change in ordinary use and are not watched.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

# What checks use: modules by name, and packages with all that is in them.
MODULES = (
    "builtins", "collections", "contextlib", "copy", "functools", "gc", "inspect", "io", "itertools", "math", "numbers",
    "operator", "pickle", "random", "re", "signal", "time", "traceback", "types", "warnings", "weakref", "torch",
    "torch._C", "torch._tensor", "torch.functional", "torch.overrides", "torch.random",
)  # fmt: skip
PACKAGES = ("numpy", "torch.nn", "torch.autograd", "torch.utils.data", "torch.optim", "course_utils", "workshop")
_MODULE = "torch.nn.modules.module.Module"
REPLACED_BY_TORCH = ("torch.manual_seed", f"{_MODULE}.__init__", f"{_MODULE}.__setstate__")  # by its compiler
CODE = ("__code__", "__defaults__", "__kwdefaults__")
_PREFIXES = tuple(f"{name}." for name in PACKAGES)
MISSING = object()


class Guard:
    """What modules held when this was made."""

    def __init__(self):
        self.holders: list[tuple[str, Any, dict[str, Any]]] = []
        self.functions: dict[int, tuple[types.FunctionType, tuple]] = {}
        for name, module in [*sys.modules.items()]:
            if isinstance(module, types.ModuleType) and (name in MODULES or f"{name}.".startswith(_PREFIXES)):
                self.holders.append((name, module, dict(vars(module))))
        for name, _, names in [*self.holders]:
            for value in names.values():
                if isinstance(value, type) and vars(value).get("__module__") == name:
                    self.holders.append((f"{name}.{value.__name__}", value, dict(vars(value))))
        for _, _, names in self.holders:
            for value in names.values():
                self._note(value)

    def _note(self, value: Any, depth: int = 0) -> None:
        """Record the code of a function, also of one inside a property, a class method or a decorator."""
        for part in _functions_in(value):
            if id(part) not in self.functions:
                self.functions[id(part)] = (part, tuple(getattr(part, name) for name in CODE))
                for cell in part.__closure__ or () if depth < 2 else ():
                    with contextlib.suppress(ValueError):  # it is empty
                        self._note(cell.cell_contents, depth + 1)

    def changes(self) -> Iterator[tuple[str, Any, str, Any]]:
        """What differs now: where, the object, the name in it, and the value that belongs there."""
        for place, holder, names in self.holders:
            now = vars(holder)
            for name, value in names.items():
                if now.get(name, MISSING) is not value and _is_code(value):
                    if f"{place}.{name}" not in REPLACED_BY_TORCH:
                        yield f"{place}.{name}", holder, name, value
            for name in [*now] if len(now) > len(names) else ():
                if name not in names and _hides(holder, name):
                    yield f"{place}.{name}", holder, name, MISSING
        for function, code in self.functions.values():
            for name, value in zip(CODE, code, strict=True):
                if getattr(function, name) is not value:
                    yield f"{function.__module__}.{function.__qualname__}", function, name, value

    def restore(self) -> None:
        """Put back what belongs there."""
        for _, holder, name, value in [*self.changes()]:
            with contextlib.suppress(AttributeError, TypeError):
                if value is MISSING:
                    delattr(holder, name)
                elif isinstance(holder, type):
                    type.__setattr__(holder, name, value)
                else:
                    setattr(holder, name, value)


def _is_code(value: Any) -> bool:
    kinds = (type, types.ModuleType, property, classmethod, staticmethod)
    return isinstance(value, kinds) or callable(value)


def _hides(holder: Any, name: str) -> bool:
    """Whether a new name stands in front of a built-in function, or of a method of a parent class."""
    if isinstance(holder, types.ModuleType):
        return holder is not builtins and hasattr(builtins, name) and not name.startswith("__")
    return any(name in vars(parent) for parent in holder.__mro__[1:]) and _is_code(vars(holder)[name])


def _functions_in(value: Any) -> list[types.FunctionType]:
    parts = [value, getattr(value, "__func__", None)] if not isinstance(value, type) else []
    if isinstance(value, property):
        parts = [value.fget, value.fset]
    return [part for part in parts if isinstance(part, types.FunctionType)]
