"""Files of tensors and plain values with a checksum inside, which is checked before anything else is read.

`save_sealed` writes a file as `torch.save` does. At its end, in what a zip calls its comment, stands the SHA-256 of
all bytes before it. So any changed, missing or added byte is noticed, and `torch.load` of any program still reads the
file.

Why not `safetensors`: it holds a flat table of tensors, and the state of an optimizer is nested. The pickle inside is
read with `weights_only=True` of torch 2.10 or later, as two ways around that are known (CVE-2025-32434 below torch 2.6,
CVE-2026-24747 below 2.10); and before torch sees it, `load_sealed` refuses every pickle that names anything but
tensors and dictionaries. That is why such a file cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from course_utils.results import replacing, writing_into

_MARK = b"SHA-256:"
_SEAL_BYTES = len(_MARK) + 64
_PLAIN = (type(None), bool, int, float, str)
# All that a pickle of tensors and plain values names
_ALLOWED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"} | {
    f"torch {kind}Storage"
    for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}


def save_sealed(path: str | Path, content: Any) -> None:
    """Write tensors and plain values to a file with a checksum; the same content always gives the same bytes.

    Args:
        path: file to write, in one step: until it is whole, and after an error, an older one stays as it was.
        content: dictionaries, lists, tensors, numbers, texts, None.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """
    buffer = io.BytesIO()  # torch would hide the reason of an error on disk
    torch.save(content, buffer)
    sealed = seal(buffer.getvalue())
    with writing_into(Path(path).parent), replacing(path) as file:
        file.write(sealed)
        file.flush()
        os.fsync(file.fileno())  # whole also after a power failure


def seal(body: bytes) -> bytes:
    """The bytes of a zip without a comment, with the checksum added."""
    body = body[:-2] + struct.pack("<H", _SEAL_BYTES)
    return body + _MARK + hashlib.sha256(body).hexdigest().encode()


def load_sealed(path: str | Path) -> Any:
    """Read what `save_sealed` wrote, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no checksum, or another one than its content, or holds something else than tensors and
            plain values; the message says which.
    """
    sealed = Path(path).read_bytes()
    body, found = sealed[:-_SEAL_BYTES], sealed[-_SEAL_BYTES:]
    if not found.startswith(_MARK):
        raise ValueError(
            "it does not end with the checksum of this course: it is cut off, or of another program, or of an earlier "
            "version of the course"
        )
    if found != _MARK + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("it is damaged: its content does not have the checksum that it ends with")
    _check_zip(sealed)
    content = torch.load(io.BytesIO(sealed), weights_only=True, map_location="cpu")
    for tensor in tensors_in(content):
        _check_tensor(tensor)
    return content


def _check_zip(sealed: bytes) -> None:
    """Refuse, before torch reads it, a zip that grows when unpacked or whose pickle names more than tensors.

    Whoever makes such a file on purpose can also give it the right checksum.
    """
    _check_end(sealed)
    with zipfile.ZipFile(io.BytesIO(sealed)) as archive:
        members = archive.infolist()
        if len(archive.comment) != _SEAL_BYTES or any(one.compress_type != zipfile.ZIP_STORED for one in members):
            raise ValueError("its parts are compressed, which torch never does")
        if sum(one.file_size for one in members) > len(sealed) or len({one.filename for one in members}) < len(members):
            raise ValueError("its parts overlap")
        pickles = [one for one in members if one.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is not a file of torch")
        for operation, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if operation.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
                raise ValueError(f"it holds an object that torch.save does not write for tensors ({operation.name})")
            if operation.name == "GLOBAL" and argument not in _ALLOWED:
                raise ValueError(f"it holds more than tensors and plain values ({argument.replace(' ', '.')})")


def _check_end(sealed: bytes) -> None:
    """Refuse a zip that has not exactly the end that torch writes: list of members, its place twice, comment.

    Else Python and torch could find different lists, and what was checked would not be what is read.
    """
    place = len(sealed) - _SEAL_BYTES - 98  # where the list ends
    if place > 0:
        versions, (n, _, size, start) = sealed[place + 12 : place + 16], struct.unpack_from("<4Q", sealed, place + 24)
        short = [min(n, 0xFFFF), min(n, 0xFFFF), min(size, 2**32 - 1), min(start, 2**32 - 1)]
        end = struct.pack("<4sQ4s2L4Q", b"PK\6\6", 44, versions, 0, 0, n, n, size, start)
        end += struct.pack("<4sLQL4s4H2LH", b"PK\6\7", 0, place, 1, b"PK\5\6", 0, 0, *short, _SEAL_BYTES)
        if start + size == place and sealed[place:-_SEAL_BYTES] == end:
            return
    raise ValueError("it is not a file of torch: the list of its parts is not where it should be")


def tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """All tensors in dictionaries, lists and tuples.

    Raises:
        ValueError: something else than these and plain values is in there.
    """
    seen, waiting = set(), [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)):
            if id(value) not in seen:
                seen.add(id(value))
                waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else value
        elif not isinstance(value, _PLAIN):
            raise ValueError(f"it holds a {type(value).__name__}, which is neither a tensor nor a plain value")


def _check_tensor(tensor: torch.Tensor) -> None:
    """Refuse a tensor that is larger than what the file holds for it."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"a tensor is {tensor.layout} on {tensor.device}, not an array in memory")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is larger than the file")


def all_finite(content: Any) -> bool:
    """Whether no tensor in dictionaries and lists holds a NaN or an infinite value."""
    floats = [tensor for tensor in tensors_in(content) if tensor.is_floating_point()]
    # one answer for all: each would make a GPU wait
    return not floats or bool(torch.stack([torch.isfinite(tensor).all() for tensor in floats]).all())
