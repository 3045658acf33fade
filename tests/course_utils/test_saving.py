"""Saved files are whole or refused, and read nothing but tensors and plain values.

    python3 course.py test -m slow tests/course_utils/test_saving.py    # ten times as many damages
"""

from __future__ import annotations

import collections
import io
import os
import random
import struct
import time
import warnings
import zipfile
from functools import partial

import pytest
import torch
from saved_files import Exploit, same_weights
from small_training import batches, small_unet

from course_utils.checkpoints import load_model, save_model
from course_utils.losses import binary_cross_entropy
from course_utils.results import remove_unfinished, replacing
from course_utils.saving import load_sealed, save_sealed, seal
from course_utils.training import FitOptions, fit
from course_utils.unet import UNet


def flipped(content: bytes, rng: random.Random, bits: int = 1) -> bytes:
    changed = bytearray(content)
    for _ in range(bits):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def swapped(content: bytes, rng: random.Random) -> bytes:
    half, size = len(content) // 2, min(500, len(content) // 4)
    i, j = rng.randrange(half - size), half + rng.randrange(half - size)
    return content[:i] + content[j : j + size] + content[i + size : j] + content[i : i + size] + content[j + size :]


def without_middle(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) - 10)
    return content[:at] + content[at + 1 + rng.randrange(8) :]


def zeroed(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) - 200)
    return content[:at] + bytes(200) + content[at + 200 :]


DAMAGES = {
    "a bit": flipped,
    "many bits": partial(flipped, bits=20),
    "cut off": lambda content, rng: content[: rng.randrange(len(content))],
    "longer": lambda content, rng: content + bytes([rng.randrange(256)] * (1 + rng.randrange(99))),
    "zeros": zeroed,
    "swapped blocks": swapped,
    "bytes missing": without_middle,
    "cut off in front": lambda content, rng: content[1 + rng.randrange(len(content) - 1) :],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A saved network, and the checkpoint of a training that was interrupted."""
    folder = tmp_path_factory.mktemp("saved")
    save_model(folder / "net.pt", small_unet(batch_norm=True), seed=1)

    def stop(results):
        raise InterruptedError

    options = FitOptions(checkpoint=folder / "net.resume", on_epoch=stop, precision=torch.float32)
    with pytest.raises(InterruptedError):
        fit(small_unet(), batches(2), batches(1), binary_cross_entropy, epochs=2, learning_rate=0.1, options=options)
    return {"model": folder / "net.pt", "checkpoint": folder / "net.resume"}


def check_damages(path, original, times):
    content, rng, n = original.read_bytes(), random.Random(0), 0
    load_sealed(original)
    for damage in DAMAGES.values():
        for _ in range(times):
            changed = damage(content, rng)
            if changed == content:  # zeros where zeros were
                continue
            n += 1
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="checksum"):
                load_sealed(path)
    return n


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_no_damaged_file_is_loaded(tmp_path, files, kind, times):
    assert check_damages(tmp_path / "file", files[kind], times) > 7 * times


def packed(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Calls:
    """Whatever is called when it is unpickled."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def changed_zip(content: bytes, change) -> bytes:
    """The file of torch with another `data.pkl`, or other compression; it ends as torch ends it."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        change(source, archive)
    body, end = target.getvalue()[:-22], target.getvalue()[-22:]
    n, size, start = struct.unpack("<10xH2L2x", end)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, size, start)
    return body + record + struct.pack("<4sLQL", b"PK\6\7", 0, len(body), 1) + end


def compressed(source, archive):
    for one in source.namelist():
        archive.writestr(one, source.read(one), zipfile.ZIP_DEFLATED)


def twice(source, archive):
    for one in [*source.namelist(), *source.namelist()]:
        archive.writestr(one, source.read(one))


def another_pickle(text: bytes):
    def change(source, archive):
        for one in source.namelist():
            archive.writestr(one, text if one.endswith("data.pkl") else source.read(one))

    return change


def hostile(path) -> dict[str, bytes]:
    """Files with the right checksum that whoever reads pickles carelessly would suffer from."""
    run = f"open({str(path)!r}, 'w')"
    plain = packed({"a": torch.zeros(2)})
    return {
        "open": packed(Exploit(path)),
        "eval": packed({"weights": Calls(eval, run)}),
        "exec": packed([Calls(exec, run)]),
        "system": packed({"a": {"b": Calls(os.system, f"touch {path}")}}),
        "getattr": packed(Calls(getattr, "", "join")),
        "numpy": packed(Calls(__import__("numpy").load, str(path))),
        "torch.load": packed(Calls(torch.load, str(path))),
        "a whole module": packed(torch.nn.Linear(2, 2)),
        "a set": packed({"a": {1, 2}}),
        "a counter": packed(collections.Counter("abc")),
        "bytes": packed({"a": bytearray(3)}),
        "sparse": packed({"a": torch.sparse_coo_tensor([[0]], [1.0], (2**40,))}),
        "expanded": packed({"a": torch.zeros(1).expand(2**40)}),
        "compressed": changed_zip(plain, compressed),
        "twice": changed_zip(plain, twice),
        "a name": changed_zip(plain, another_pickle(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.")),
        "a name from the stack": changed_zip(plain, another_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93.")),
        "protocol 0": changed_zip(plain, another_pickle(b"cos\nsystem\n(S'id'\ntR.")),
        "nonsense": changed_zip(plain, another_pickle(b"\x80\x02" + b"(" * 1000)),
        "no pickle": changed_zip(plain, lambda source, archive: archive.writestr("a", "b")),
    }


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    HOSTILE = sorted(hostile("nowhere"))


@pytest.mark.filterwarnings("ignore:Duplicate name", "ignore:Sparse")
@pytest.mark.parametrize("kind", HOSTILE)
def test_with_the_right_checksum_too_nothing_but_tensors_is_read(tmp_path, kind):
    path = tmp_path / "net.pt"
    path.write_bytes(seal(hostile(tmp_path / "ran")[kind]))
    start = time.process_time()
    with pytest.raises(ValueError, match=r"net\.pt is not a model saved by this course") as error:
        load_model(path)
    assert time.process_time() - start < 5
    assert not (tmp_path / "ran").exists() and "list of its parts" not in str(error.value)


def test_a_zip_in_which_two_lists_of_parts_can_be_found_is_refused(tmp_path):
    """Python looks for the list before the end, torch where the end says: what is checked must be what is read."""
    body, path = packed({"a": torch.zeros(2)}), tmp_path / "net.pt"
    path.write_bytes(seal(body))
    assert load_sealed(path)["a"].tolist() == [0, 0]
    end = len(body) - 98
    versions = range(end + 12, end + 16)
    changes = [body[:end] + b"x" * n + body[end:] for n in (1, 98, 500)]
    changes += [body[:76] + b"x" * 64 + body[76:], b"x" * 64 + body, body[:end] + body[end:][56:]]
    changes += [body[:n] + bytes([body[n] ^ 1]) + body[n + 1 :] for n in range(end, len(body) - 2) if n not in versions]
    for change in changes:
        path.write_bytes(seal(change))
        with pytest.raises(ValueError, match="list of its parts is not where it should be"):
            load_sealed(path)


@pytest.mark.parametrize(
    "sizes",
    [{"base_channels": 10**9}, {"depth": 60}, {"depth": 10**9}, {"base_channels": -1}, {"out_channels": 10**12}],
)  # fmt: skip
def test_sizes_that_do_not_fit_the_weights_take_no_memory(tmp_path, sizes):
    model = small_unet()
    weights = model.state_dict()
    save_sealed(tmp_path / "net.pt", {"sizes": model.sizes | sizes, "weights": weights, "metadata": {}})
    with pytest.raises(ValueError, match="not a model saved by this course"):
        load_model(tmp_path / "net.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    model = small_unet()
    with torch.no_grad():
        model.output.bias[0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        save_model(tmp_path / "net.pt", model)
    save_sealed(tmp_path / "net.pt", {"sizes": model.sizes, "weights": model.state_dict(), "metadata": {}})
    with pytest.raises(ValueError, match="NaN or infinite"):
        load_model(tmp_path / "net.pt")


def test_the_same_network_gives_the_same_bytes_under_any_name(tmp_path):
    for seed, name in ((0, "a.pt"), (0, "another name.pt"), (1, "c.pt")):
        torch.manual_seed(seed)
        save_model(tmp_path / name, UNet(1, 3, base_channels=4, depth=2), seed=3)
    one, other, third = ((tmp_path / name).read_bytes() for name in ("a.pt", "another name.pt", "c.pt"))
    assert one == other != third
    assert torch.load(tmp_path / "a.pt", weights_only=True)["metadata"] == {"seed": 3}  # torch alone reads it, too


# temporary files


def test_only_what_nobody_writes_any_more_is_removed(tmp_path):
    left = tmp_path / ".net.pt.0123456789ab.partial"
    left.write_bytes(b"half")
    mine = tmp_path / ".notes.partial"
    mine.write_bytes(b"not from here")
    with replacing(tmp_path / "other.pt") as file:
        file.write(b"x")
        remove_unfinished(tmp_path)
        assert len(list(tmp_path.glob(".other.pt.*.partial"))) == 1  # in use
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.partial", "other.pt"]


def test_without_locks_only_old_ones_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("course_utils.results.fcntl", None)
    old, new = tmp_path / ".a.0123456789ab.partial", tmp_path / ".b.0123456789ab.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
    with replacing(tmp_path / "c") as file:
        file.write(b"x")
    assert (tmp_path / "c").read_bytes() == b"x"


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, dtype):
    model = small_unet()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    with pytest.raises(ValueError, match=f"16, 32 or 64 bit floats can be saved, but there are {dtype}"):
        save_model(tmp_path / "net.pt", model)


def test_a_weight_beyond_the_range_of_float32_is_neither_saved_nor_loaded(tmp_path):
    model = small_unet().double()
    with torch.no_grad():
        next(model.parameters())[0] = 1e300
    with pytest.raises(ValueError, match="NaN or infinite"):
        save_model(tmp_path / "net.pt", model)
    content = {"sizes": model.sizes, "weights": model.state_dict(), "metadata": {}}
    save_sealed(tmp_path / "net.pt", content)
    with pytest.raises(ValueError, match="NaN or infinite"):
        load_model(tmp_path / "net.pt")


def test_a_file_that_is_a_link_is_replaced_where_it_lies(tmp_path):
    for folder in ("here", "other disk"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other disk" / "net.pt").write_text("old")
    link = tmp_path / "here" / "net.pt"
    link.symlink_to(tmp_path / "other disk" / "net.pt")
    save_model(link, small_unet())
    assert link.is_symlink() and same_weights(load_model(tmp_path / "other disk" / "net.pt")[0], load_model(link)[0])
