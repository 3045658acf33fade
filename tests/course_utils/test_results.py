"""The folder for results, files that are written in one step, and the scores of a notebook."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from course_utils import results
from course_utils.results import prepare_output, record_scores, replacing


def test_the_output_folder_is_made_and_left_empty(tmp_path):
    folder = prepare_output(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b" and list(folder.iterdir()) == []
    assert prepare_output(folder) == folder


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_an_output_folder_that_cannot_be_written_to_is_an_error_at_once(tmp_path, monkeypatch, code):
    def fail(**_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(results.tempfile, "TemporaryFile", fail)
    with pytest.raises(OSError) as caught:
        prepare_output(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and os.strerror(code) in message and "set `output` to another folder" in message


def test_scores_are_recorded_where_the_run_collects_them(tmp_path):
    scores = {"F1": np.float32(0.5), "method": {"n": np.int64(3)}}
    path = record_scores(tmp_path / "output", "04_instance_evaluation", scores)
    assert path == tmp_path / "output" / "scores" / "04_instance_evaluation.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {"F1": 0.5, "method": {"n": 3}}


def test_scores_that_cannot_be_written_are_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "scores").write_text("a file")
    with pytest.raises(OSError, match=r"Nothing can be saved in .*scores.*set `output`"):
        record_scores(tmp_path, "04", {"F1": 1})


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "scores.json"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as first, replacing(path) as second:  # two writers at once have two temporary files
        first.write(b"first")
        second.write(b"second, and longer")
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_has_the_permissions_of_any_other_new_file(tmp_path):
    (tmp_path / "other").touch()
    with replacing(tmp_path / "scores.json"):
        pass
    assert (tmp_path / "scores.json").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_or_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "scores.json"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half of what is n")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError), replacing(path):
        pass
    assert list(tmp_path.iterdir()) == [path]
