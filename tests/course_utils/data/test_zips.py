"""Zips made to do harm are refused in words, quickly and with little memory; all usual zips are read."""

from __future__ import annotations

import stat
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from course_utils.data import DataError, zips
from course_utils.data.layouts import FileStore

NAME = "train/images/a.tif"


def entry(name: str = NAME, **values) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name
    info.compress_type = zipfile.ZIP_DEFLATED
    for key, value in values.items():
        setattr(info, key, value)
    return info


def write(path: Path, *entries: zipfile.ZipInfo, content: bytes = b"content" * 50) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for info in entries:
            archive.writestr(info, content, info.compress_type)


def names(*several: str):
    return lambda path: write(path, *map(entry, several))


def patched(field: int, layout: str, value: int, base=None):
    """A zip in whose list of members a field of the last one is another number."""

    def make(path: Path) -> None:
        (base or names("train/masks/a.tif", NAME))(path)
        data = bytearray(path.read_bytes())
        struct.pack_into(layout, data, data.rfind(b"PK\x01\x02") + field, value)
        path.write_bytes(data)

    return make


def bomb(path: Path) -> None:
    """200 MB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(NAME, "w") as file:
        for _ in range(200):
            file.write(bytes(1_000_000))


def shared_kernel(path: Path) -> None:
    """Many members in the list, one piece of data."""
    names(NAME)(path)
    data = path.read_bytes()
    start, end = data.find(b"PK\x01\x02"), data.find(b"PK\x05\x06")
    record = data[start:end]
    records = b"".join(record.replace(b"a.tif", b"%c.tif" % letter) for letter in range(ord("a"), ord("z")))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 25, 25, len(records), start, 0)
    path.write_bytes(data[:start] + records + tail)


def nul(path: Path) -> None:
    names("train/images/a_tif")(path)
    path.write_bytes(path.read_bytes().replace(b"a_tif", b"a\0tif"))


def many(path: Path) -> None:
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    records = record * 500_000
    path.write_bytes(records + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(records), 0, 0))


LINK, DEVICE = ((kind | 0o644) << 16 for kind in (stat.S_IFLNK, stat.S_IFIFO))
HOSTILE = {
    "up": (names("../a.tif"), "'../a.tif'", "leads out"),
    "up in the middle": (names("a/../../a.tif"), "a/../../a.tif", "leads out"),
    "up with backslashes": (names("..\\a.tif"), "a.tif", "leads out"),
    "absolute": (names("/etc/a.tif"), "/etc/a.tif", "leads out"),
    "drive": (names("C:\\a.tif"), "C:", "leads out"),
    "share": (names("\\\\server\\share\\a.tif"), "server", "leads out"),
    "NUL": (nul, "a\\x00tif", "NUL"),
    "link": (lambda path: write(path, entry(external_attr=LINK)), NAME, "is a link"),
    "device": (lambda path: write(path, entry(external_attr=DEVICE)), NAME, "is a device"),
    "twice": (names(NAME, NAME), NAME, "has the name of"),
    "twice, './'": (names(NAME, f"./{NAME}"), NAME, "has the name of"),
    "one letter twice": (names("a", "a"), "'a'", "has the name of"),
    "but for case": (names(NAME, NAME.upper()), NAME.upper(), "differs only in case"),
    "file and folder": (names("a", "a/b.tif"), "'a'", "also the folder"),
    "encrypted": (patched(8, "<H", 1), NAME, "encrypted"),
    "bomb": (bomb, NAME, "as bombs do"),
    "claims 4 GB": (patched(24, "<L", 0xFFFFFFF0), NAME, "as bombs do"),
    "shared kernel": (shared_kernel, NAME[:13], "overlap"),
    "longer than the zip": (patched(20, "<L", 50_000), NAME, "overlap"),
    "deep": (names("a/" * 30 + "a.tif"), "a/a/a/", "folders deep"),
    "long name": (names("a" * 5000), "aaaa", "5000 characters"),
    "bzip2": (lambda path: write(path, entry(compress_type=zipfile.ZIP_BZIP2)), NAME, "method 12"),
    "stored, two sizes": (
        patched(24, "<L", 5, lambda path: write(path, entry(compress_type=zipfile.ZIP_STORED))),
        NAME,
        "is stored",
    ),
    "shorter than declared": (patched(24, "<L", 360), NAME, "cannot be read"),
    "longer than declared": (patched(24, "<L", 340), NAME, "cannot be read"),
    "wrong checksum": (patched(16, "<L", 1), NAME, "cannot be read"),
}


def read_all(path: Path) -> dict[str, bytes]:
    with FileStore(path) as files:
        return {name: files.read(name) for name in files.names}


def refused(path: Path) -> str:
    """The message, with the time and the memory that it took within bounds."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(DataError) as caught:
            read_all(path)
        assert time.process_time() - start < 2
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_lists_that_cannot_be_read_are_refused_in_words(tmp_path):
    """Every byte of the list of members and of the end of the zip, and an empty zip."""
    path = tmp_path / "set.zip"
    names("train/images/\u00fc.tif", "train/masks/a.tif")(path)
    data, refusals = path.read_bytes(), 0
    for at in range(data.find(b"PK\x01\x02"), len(data)):
        for value in {0, 1, 255, data[at] ^ 0x80} - {data[at]}:
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                read_all(path)
            except DataError as error:
                refusals += 1
                assert str(path) in str(error)
    assert refusals > 200
    write(path)
    assert path.stat().st_size == 22
    assert f"{path} holds no files" in refused(path)
    path.write_bytes(data.replace("\u00fc".encode(), b"\xff\xfe"))
    assert f"{path} is neither a folder" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "entries",
    [
        [entry("train/"), entry(), entry("train/")],
        [entry("train/images/strasse.tif"), entry("train/images/stra\u00dfe.tif")],
        [entry("__MACOSX/link", external_attr=LINK), entry("__MACOSX/train/._a.tif", external_attr=LINK), entry()],
    ],
)
def test_what_harms_nobody_is_read(tmp_path, entries):
    write(tmp_path / "set.zip", *entries)
    wanted = {one.filename for one in entries if not one.filename.endswith("/") and "__MACOSX" not in one.filename}
    assert set(read_all(tmp_path / "set.zip")) == wanted


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_zips_are_refused_in_words(tmp_path, kind):
    make, member, words = HOSTILE[kind]
    path = tmp_path / "set.zip"
    make(path)
    message = refused(path)
    assert str(path) in message and member in message and words in message


def test_a_list_of_members_without_end_is_refused_before_it_is_read(tmp_path):
    many(tmp_path / "set.zip")
    message = refused(tmp_path / "set.zip")
    assert str(tmp_path / "set.zip") in message and "23500000 bytes" in message


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBERS", 1), ("MAX_UNPACKED", 500)])
def test_limits_of_the_whole_zip(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(zips, limit, value)
    names(NAME, "train/masks/a.tif")(tmp_path / "set.zip")
    assert f"at most {value}" in refused(tmp_path / "set.zip")


def test_the_lie_about_a_bomb_costs_no_memory(tmp_path):
    """Its list declares 1000 bytes; 200 MB come out of it for who believes the data."""
    patched(24, "<L", 1000, bomb)(tmp_path / "set.zip")
    assert "cannot be read" in refused(tmp_path / "set.zip")


class OneWay:
    """A file that cannot go back, so that sizes are written after the data."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


@pytest.mark.parametrize("name", [NAME, f"./{NAME}", NAME.replace("/", "\\"), "träin/bilder ü/é.tif", "列/a.tif"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("form", ["plain", "zip64", "data descriptors"])
def test_usual_zips_are_read(tmp_path, name, method, form):
    path = tmp_path / "set.zip"
    with path.open("wb") as file:
        with zipfile.ZipFile(OneWay(file) if form == "data descriptors" else file, "w", method) as archive:
            archive.writestr(zipfile.ZipInfo("train/"), b"")
            info = entry(name, compress_type=method, external_attr=(stat.S_IFREG | 0o644) << 16)
            with archive.open(info, "w", force_zip64=form == "zip64") as member:
                member.write(b"content" * 50)
            archive.writestr("train/empty.txt", b"")
            archive.comment = b"comment"
    wanted = name.removeprefix("./").replace("\\", "/")
    assert read_all(path) == {wanted: b"content" * 50, "train/empty.txt": b""}


def test_real_zips_pass(real_data_zip):
    zips.open_zip(real_data_zip).close()
