"""What all observations share: results as plain values, errors by name, arguments beside results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def plain(value: Any) -> Any:
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return value.detach().cpu().as_subclass(torch.Tensor).clone() if torch.is_tensor(value) else np.array(value)
    if isinstance(value, dict):
        return [[plain(key), plain(item)] for key, item in sorted(value.items())]
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def raised(call: Callable[[], Any], text: bool = False) -> str:
    """The class of the error of a call that must be refused, perhaps with its text."""
    try:
        call()
    except Exception as error:
        kind = "ValueError" if isinstance(error, ValueError) else type(error).__name__
        return f"{kind}: {error}" if text else kind
    return "no error"


def use(function: Callable, *arguments: Any, **options: Any) -> list:
    """The result, before another call may overwrite it, and the arguments, which the call must not change."""
    return [plain(function(*arguments, **options)), arguments]
