"""Files that are not what they should be, and networks that are compared."""

from __future__ import annotations

import torch
from torch import nn

DAMAGES = ("empty", "text", "zeros", "truncated", "bit flips")


def damaged(valid: bytes, damage: str) -> bytes:
    """What became of a file of torch."""
    flipped = bytes(byte ^ 255 for byte in valid[-2000:-1000])
    return {
        "empty": b"",
        "text": b"hello, I am not a checkpoint",
        "zeros": bytes(100),
        "truncated": valid[: len(valid) // 2],
        "bit flips": valid[:-2000] + flipped + valid[-1000:],
    }[damage]


class Exploit:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers, bit for bit."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
