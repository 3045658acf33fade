"""What can go wrong with the record of progress: several writers, killed ones, no locks, damage, full disks.

The long form of the processes: python3 course.py test -m slow tests/course_utils/exercises/test_progress_faults.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from course_utils.exercises import check, evaluate, progress
from course_utils.exercises.feedback import CheckResult

ROOT = Path(__file__).parents[3]
WRITERS = ROOT / "tests" / "support" / "record_writers.py"
PASSED = CheckResult("2.4", "passed")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")


@pytest.fixture(autouse=True)
def says_it_again(monkeypatch):
    """Each test hears what a kernel says once."""
    monkeypatch.setattr(progress, "_said", set())


def count(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def writers(*arguments: object) -> dict:
    command = [sys.executable, str(WRITERS), *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stderr == "", run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])


# several processes


@needs_fork
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_four_notebooks_at_once_lose_no_mark(times):
    for _ in range(times):
        progress.record_file().unlink(missing_ok=True)
        assert writers("at_once", 4, 100) == {"codes": [0, 0, 0, 0], "kept": 400}


@needs_fork
@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_killed_while_it_writes_a_process_loses_at_most_the_mark_it_is_writing(kills):
    found = writers("killed", kills)
    assert found["kills"] == kills and found["missing"] == [] and found["noted"] > kills
    for left in progress.record_file().parent.glob(".*.partial"):
        os.utime(left, (0, 0))  # left there long ago
    assert progress.note(PASSED) and progress.statuses()["2.4"] == "passed"
    assert not list(progress.record_file().parent.glob(".*.partial"))


@needs_fork
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_without_locks_marks_of_the_same_moment_may_be_lost_but_the_record_stays_whole(times):
    for _ in range(times):
        progress.record_file().unlink(missing_ok=True)
        found = writers("at_once", 4, 100, "no-locks")
        assert found["codes"] == [0, 0, 0, 0] and 100 <= found["kept"] <= 400
        record = json.loads(progress.record_file().read_text())
        assert all(set(entry) == {"status", "checked"} for entry in record.values())
        progress.record_file().unlink()
        assert writers("at_once", 1, 100, "no-locks")["kept"] == 100
    assert not [path for path in progress.record_file().parent.iterdir() if "damaged" in path.name]


@pytest.mark.parametrize(
    "error", [NotImplementedError("no flock"), OSError("no locks"), filelock.Timeout("lock")], ids=repr
)
def test_a_lock_that_fails_is_done_without(monkeypatch, capsys, error):
    def acquire(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    assert progress.note(PASSED) and progress.statuses() == {"2.4": "passed"}
    assert capsys.readouterr().out == ""


def test_somebody_who_holds_the_lock_for_ever_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(progress, "LOCK_SECONDS", 0.1)
    progress.note(CheckResult("1.1", "failed"))
    with filelock.FileLock(f"{progress.record_file()}.lock"):
        started = time.monotonic()
        assert progress.note(PASSED) and time.monotonic() - started < 5
    assert progress.statuses() == {"1.1": "failed", "2.4": "passed"}


# damage

DAMAGED = {
    "empty": b"",
    "cut": b'{"1.1": {"status": "pas',
    "nested": b"[" * 100_000,
    "nested dicts": b'{"a":' * 100_000,
    "list": b"[]",
    "number": b"3",
    "text": b'"1.1"',
    "null": b"null",
    "long number": b'{"a": ' + b"1" * 5000 + b"}",
    "Latin-1": '{"1.1": "früh"}'.encode("latin-1"),
    "NUL": b"\0" * 4096,
    "UTF-16": '{"1.1": {"status": "passed"}}'.encode("utf-16"),
    "huge": b" " * (progress.MAX_BYTES + 1),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_kept_aside_and_the_user_hears_it_once(capsys, content):
    path = progress.record_file()
    path.write_bytes(content)
    assert progress.statuses() == {} and progress.guesses() == {}
    assert capsys.readouterr().out.count("is damaged") == 1
    assert path.read_bytes() == content  # looking changes nothing
    assert check("2.4", count) is count
    assert check("2.4", count) is count
    said = capsys.readouterr().out
    assert said.count("was damaged") == 1 and f"kept as {path}.damaged1" in said and "✔ Exercise 2.4" in said
    assert Path(f"{path}.damaged1").read_bytes() == content and progress.statuses() == {"2.4": "passed"}
    path.write_bytes(content)
    progress.note_guess("01", 3)
    assert Path(f"{path}.damaged2").read_bytes() == content and progress.guesses() == {"01": 3}


@pytest.mark.parametrize("depth", range(200, 1100, 60))
def test_lists_in_lists_are_kept_in_the_record_or_aside(depth):
    """Some can be read where they cannot be written; how deep depends on the version of Python."""
    path, content = progress.record_file(), '{"a": ' + "[" * depth + "]" * depth + "}"
    path.write_text(content)
    assert check("2.4", count) is count and progress.statuses() == {"2.4": "passed"}
    places = [place.read_text() for place in path.parent.iterdir() if ".lock" not in place.name]
    assert any(place.count("[") == depth for place in places)


@pytest.mark.parametrize("entry", [1, [], None, "passed", {}, {"status": []}, {"status": "won"}, {"status": {"a": 1}}])
def test_an_entry_of_another_kind_is_no_status_and_the_others_stay(entry):
    progress.record_file().write_text(json.dumps({"1.1": entry, "3.1": {"status": "failed"}}))
    assert progress.statuses() == {"3.1": "failed"}
    progress.note(PASSED)
    assert json.loads(progress.record_file().read_text())["1.1"] == entry
    progress.note(CheckResult("1.1", "passed"))
    assert progress.statuses() == {"1.1": "passed", "2.4": "passed", "3.1": "failed"}


def test_guesses_of_another_kind_are_kept_aside_and_the_marks_stay(capsys):
    path = progress.record_file()
    path.write_text('{"1.1": {"status": "passed"}, "guesses": [3]}')
    assert progress.note_guess("01", 3)
    assert progress.guesses() == {"01": 3} and progress.statuses() == {"1.1": "passed"}
    assert json.loads(Path(f"{path}.damaged1").read_text())["guesses"] == [3]
    assert "its guesses are a list" in capsys.readouterr().out


def test_what_other_versions_of_the_course_write_is_kept():
    future = {"version": 7, "9.9": {"status": "passed", "tries": 3}, "2.4": {"status": "failed", "tries": 2}}
    progress.record_file().write_text(json.dumps(future))
    progress.note(PASSED)
    progress.note_guess("01", 3)
    record = json.loads(progress.record_file().read_text())
    assert record["version"] == 7 and record["9.9"] == future["9.9"]
    assert record["2.4"]["status"] == "passed" and record["2.4"]["tries"] == 2


def test_a_byte_order_mark_is_no_damage():
    progress.record_file().write_text('{"1.1": {"status": "passed"}}', encoding="utf-8-sig")
    assert progress.statuses() == {"1.1": "passed"}


# places that cannot be read or written


def expect_checks_without_a_record(capsys, reason: str) -> None:
    assert check("2.4", count) is count and check("2.4", count) is count
    assert not progress.note_guess("01", 3)
    progress.show_overview()
    said = capsys.readouterr().out
    assert said.count("✔ Exercise 2.4") == 2 and said.count("Your progress is not kept") == 1 and reason in said
    assert progress.statuses() == {}


def test_a_folder_in_its_place_stays(capsys):
    progress.record_file().mkdir()
    (progress.record_file() / "mine").write_text("")
    expect_checks_without_a_record(capsys, "it is a folder")
    assert (progress.record_file() / "mine").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
def test_something_that_is_no_file_is_not_waited_for(capsys):
    os.mkfifo(progress.record_file())
    expect_checks_without_a_record(capsys, "it is not a file")
    assert progress.record_file().is_fifo()


@pytest.mark.parametrize("place", ["file/progress.json", "x" * 300, "/proc/progress.json"])
def test_a_place_where_nothing_can_be_made(monkeypatch, tmp_path, capsys, place):
    monkeypatch.setattr(progress, "LOCK_SECONDS", 0.1)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / place))
    expect_checks_without_a_record(capsys, "cannot be written (")


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """A folder of a user without rights, whom this process becomes if it is root's: root may write everywhere."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if os.stat(folder).st_uid == os.getuid() and folder != Path("/"):
            os.chmod(folder, os.stat(folder).st_mode | 0o755)
    folder = tmp_path / "nobody"
    folder.mkdir()
    monkeypatch.setenv("COURSE_PROGRESS", str(folder / "progress.json"))
    evaluate("2.4", count)  # imports everything while it may
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    os.chmod(folder, 0o755)
    if os.getuid() == 0:
        os.seteuid(0)


@needs_fork
def test_a_folder_that_is_read_only(nobody, capsys):
    progress.note(CheckResult("1.1", "passed"))
    os.chmod(nobody, 0o555)
    before = progress.record_file().read_bytes()
    assert check("2.4", count) is count and not progress.note(PASSED)
    said = capsys.readouterr().out
    assert said.count("Your progress is not kept") == 1 and "Permission denied" in said
    assert progress.statuses() == {"1.1": "passed"} and progress.record_file().read_bytes() == before


@needs_fork
def test_a_record_that_may_not_be_read_is_not_taken_for_an_empty_one(nobody, capsys):
    progress.note(CheckResult("1.1", "passed"))
    progress.record_file().chmod(0)
    expect_checks_without_a_record(capsys, "Permission denied")
    progress.record_file().chmod(0o644)
    assert progress.statuses() == {"1.1": "passed"}


@needs_fork
def test_a_disk_that_is_full_leaves_the_record_as_it_was(capsys):
    progress.record_file().write_text(json.dumps({f"1.{n}": {"status": "passed"} for n in range(199)}))
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as on a full disk, every write ends there
    try:
        written = progress.note(PASSED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not written and "Your progress is not kept" in capsys.readouterr().out
    assert len(progress.statuses()) == 199 and "2.4" not in progress.statuses()
    assert sorted(path.name for path in progress.record_file().parent.glob("*progress.json*.partial")) == []
