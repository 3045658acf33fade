"""The benchmarks run, and what they claim to compare is the same work."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import evaluation, large_images, measuring, page
from benchmarks.running import NAMES, run_benchmarks
from course_utils.command_line import main
from course_utils.data import load_data


@pytest.fixture(scope="module")
def data():
    return load_data("embedded")


def test_functions_are_timed_in_turn_after_a_call_to_warm_up():
    calls = []
    seconds = measuring.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert "".join(calls) == "ababab"
    assert set(seconds) == {"a", "b"} and all(value >= 0 for value in seconds.values())


def test_results_say_where_and_when(tmp_path):
    path = measuring.write("tiny", {"rows": [1]}, tmp_path)
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"] == [1]
    assert {"date", "machine", "versions"} <= set(result)
    assert result["versions"]["torch"] and result["machine"]["cores"] >= 1


def test_tables_show_every_column_of_every_row():
    rows = [{"way": "plain", "seconds": 0.12345}, {"way": "fast", "labels": 50000, "same": True}]
    text = measuring.format_table(rows)
    assert text.splitlines()[0].split() == ["way", "seconds", "labels", "same"]
    assert "0.123" in text and "50,000" in text and "yes" in text


def test_label_images_of_the_growth_table_have_the_labels_they_say():
    labels = evaluation.many_labels(512, 400, seed=0)
    assert len(np.unique(labels)) - 1 == 400
    assert labels.max() > 400  # ids have gaps


def test_scoring_in_every_way_gives_the_same_counts(data):
    assert evaluation.measure(data, quick=True)["identical counts"]


def test_tiles_of_the_benchmark_agree_with_one_piece():
    assert large_images.largest_difference((200, 330)) < 1e-4


def test_an_unknown_benchmark_is_named(capsys):
    assert main(["bench", "--only", "speed"]) == 1
    assert "no benchmark 'speed'" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_the_result(tmp_path, capsys):
    assert main(["bench", "--quick", "--only", "evaluation", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "stardist" in printed and "4096" not in printed
    result = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert result["quick"] is True and "bench --only evaluation" in result["command"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs(name, tmp_path):
    if name == "alternatives":
        pytest.importorskip("monai", reason='needs the networks compared with: pip install -e ".[bench]"')
    [path] = run_benchmarks([name], "embedded", quick=True, folder=tmp_path)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert len(rows) >= 2 or name == "training_step"


def test_the_results_page_says_what_the_result_files_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.make_page(), "run: python -m benchmarks.page"


def test_result_files_come_from_full_runs_on_the_real_images():
    for name in NAMES:
        if result := page.read(name):
            assert result["quick"] is False
            assert "dsb2018" in result["data"]
