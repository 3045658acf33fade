"""The benchmarks run, and what they claim to compare is the same work."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ablation, embedded_transfer, evaluation, large_images, loading, measuring, page, quality
from benchmarks.__main__ import main
from benchmarks.running import NAMES, run_benchmarks
from course_utils import networks
from course_utils.checkpoints import checkpoint_folder, load_model
from course_utils.data import embedded_folder, load_data
from course_utils.metrics import IOU_THRESHOLDS, overlapping_pairs
from course_utils.profiles import get_profile
from course_utils.segmentation import find_best_threshold
from course_utils.training import fit


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
    others = [evaluation.many_labels(512, 400, 1, shifted) for shifted in (False, True)]
    pairs = [len(overlapping_pairs(other, labels).shared) for other in others]
    assert pairs[0] == 400 and pairs[1] > 800  # shifted, a label overlaps several


def test_the_straight_line_of_the_growth_table_is_found_and_deviations_are_shown():
    sizes = [(1, 100, 1000), (4, 100, 1000), (4, 20_000, 50_000), (16, 500, 20_000), (16, 30_000, 30_000)]
    rows = [
        {"million pixels": m, "true labels": k, "predicted labels": k, "overlapping pairs": n}
        | {"seconds": 0.02 * m + 0.01 * 2 * k / 10_000 + 0.005 * n / 10_000}
        for m, k, n in sizes
    ]
    found = evaluation.straight_line(rows)
    np.testing.assert_allclose(list(found.values()), [0.02, 0.01, 0.005])
    assert all(row["measured / straight line"] == pytest.approx(1) for row in rows)
    rows[-1]["seconds"] *= 3
    evaluation.straight_line(rows)
    assert max(row["measured / straight line"] for row in rows) > 1.3


def test_scoring_in_every_way_gives_the_same_counts(data):
    assert evaluation.measure(data, quick=True)["identical counts"]


def test_tiles_of_the_benchmark_agree_with_one_piece():
    assert large_images.largest_difference((200, 330)) < 1e-4


def test_an_unknown_benchmark_is_named(capsys):
    assert main(["--only", "speed"]) == 1
    assert "no benchmark 'speed'" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_the_result(tmp_path, capsys):
    assert main(["--quick", "--only", "evaluation", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "stardist" in printed and "4096" not in printed
    result = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert result["quick"] is True and "bench --only evaluation" in result["command"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a peak")
def test_the_peak_of_memory_counts_from_where_it_was_forgotten():
    block = np.ones(40_000_000)  # 320 MB
    with_block = measuring.peak_memory_mb()
    del block
    measuring.forget_peak_memory()
    assert measuring.peak_memory_mb() < with_block - 250
    block = np.ones(40_000_000)
    assert measuring.peak_memory_mb() > with_block - 100
    del block


def test_bare_steps_train_as_the_loop_does_even_after_an_evaluation():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)).eval()
    modes = []
    model.register_forward_hook(lambda *_: modes.append(model.training))
    before = model[0].weight.clone()
    batch = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    measuring.bare_steps(model, torch.nn.functional.mse_loss, batch, 3, torch.float32)()
    assert modes == [True, True, True] and not torch.equal(before, model[0].weight)


def test_a_watched_loader_gives_the_batches_and_counts_only_the_waiting():
    def slow():
        for number in range(3):
            time.sleep(0.05)
            yield number

    watched = loading.Watched(slow())
    got = []
    for batch in watched:
        time.sleep(0.1)  # the computing does not count
        got.append(batch)
    assert got == [0, 1, 2]
    assert 0.15 <= watched.waited < 0.3


def test_a_missing_package_to_compare_with_is_named_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "stardist.matching", None)
    assert run_benchmarks(["evaluation"], "embedded", quick=True, folder=tmp_path) == []
    assert "evaluation is left out" in capsys.readouterr().out


def test_full_results_of_other_images_than_the_real_ones_are_not_mixed_with_theirs(tmp_path, monkeypatch):
    measured = {"title": "nothing", "rows": []}
    monkeypatch.setattr("benchmarks.evaluation.measure", lambda data, quick: measured)
    monkeypatch.setattr("benchmarks.running.TRIAL", tmp_path)
    assert run_benchmarks(["evaluation"], "embedded", quick=False, folder=None) == [tmp_path / "evaluation.json"]


def test_a_child_process_may_start_loader_workers():
    assert measuring.in_child(sum_with_workers, 2) == 6


def sum_with_workers(workers: int) -> int:
    return sum(int(batch.sum()) for batch in torch.utils.data.DataLoader([1, 2, 3], num_workers=workers))


@pytest.fixture
def results(tmp_path, monkeypatch):
    for module in (measuring, quality, page):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(measuring.write, "__defaults__", (tmp_path,))
    return tmp_path


def test_the_quality_script_trains_chooses_scores_and_ships(results, monkeypatch, capsys):
    arguments = ["--data", "embedded", "--profile", "smoke", "--epochs", "1", "--base-channels", "4", "--name", "tiny"]
    places = ["--output", str(results / "output"), "--ship", str(results / "tiny.pt"), "--test"]
    monkeypatch.setattr(sys, "argv", ["quality", *arguments, *places])
    quality.main()
    result = json.loads((results / "tiny.json").read_text(encoding="utf-8"))
    assert len(result["curve"]) == 1
    assert result["command"].endswith("--profile smoke --epochs 1 --base-channels 4 --test --name tiny")
    model, about = load_model(results / "tiny.pt")
    assert about["curve"] == result["curve"] and about["base_channels"] == 4
    for views in ("one view", "eight views"):
        for method in ("watershed", "components"):
            assert 0 <= result[views][method]["test"]["0.5"]["mean F1"] <= 1
    assert hashlib.sha256((results / "tiny.pt").read_bytes()).hexdigest() in capsys.readouterr().out
    quality.main()  # the network is found, and its curve with it
    assert json.loads((results / "tiny.json").read_text(encoding="utf-8"))["curve"] == result["curve"]
    (results / "tiny.json").unlink()
    with pytest.raises(ValueError, match="curve has 0 of 1 epochs"):
        quality.main()


def test_a_network_is_trained_a_second_time_and_its_curve_goes_on(results, monkeypatch, capsys):
    small = ["quality", "--data", "embedded", "--profile", "smoke", "--epochs", "1", "--base-channels", "4"]
    first, second = results / "first.pt", results / "second.pt"
    monkeypatch.setattr(sys, "argv", [*small, "--output", str(results / "a"), "--ship", str(first), "--name", "first"])
    quality.main()
    again = [*small, "--output", str(results / "b"), "--start", str(first), "--ship", str(second), "--name", "second"]
    monkeypatch.setattr(sys, "argv", again)
    trainings = []
    monkeypatch.setattr(networks, "fit", lambda *args, **options: trainings.append(options) or fit(*args, **options))
    quality.main()
    [how] = trainings
    assert how["learning_rate"] == get_profile("smoke").learning_rate / 2 and how["batch_transform"] is None
    assert [one["epochs"] for one in load_model(second)[1]["trainings"]] == [1, 1]
    before, after = (json.loads((results / f"{name}.json").read_text(encoding="utf-8")) for name in ("first", "second"))
    assert [epoch["epoch"] for epoch in after["curve"]] == [1, 2] and after["curve"][:1] == before["curve"]
    assert after["command"].endswith("--start first.pt --output b --name second")
    weights = [load_model(file)[0].state_dict()["output.weight"] for file in (first, second)]
    assert not torch.equal(*weights) and load_model(second)[1]["curve"] == after["curve"]
    assert "1 and 1 epochs" in page.quality_section("second", "Trained twice")

    saved = torch.load(first, weights_only=True)
    torch.save(saved | {"metadata": saved["metadata"] | {"validation_every": 5}}, first)
    with pytest.raises(ValueError, match="trained on images that are set aside here"):
        quality.main()
    torch.save(saved | {"metadata": {"kind": "boundary"}}, first)
    with pytest.raises(ValueError, match="does not hold the curve"):
        quality.main()


def test_the_threshold_is_chosen_as_in_notebook_05(data):
    rng = np.random.default_rng(0)
    samples = data.train[:3]
    noisy = [np.clip((s.mask > 0) * 0.8 + rng.normal(0, 0.2, s.mask.shape), 0, 1) for s in samples]
    probabilities = [np.stack([1 - one, one, np.zeros_like(one)]) for one in noisy]
    chosen = quality.choose(quality.watershed, probabilities, samples)
    foregrounds, boundaries = [p[1] for p in probabilities], [p[2] for p in probabilities]
    best, _ = find_best_threshold(foregrounds, boundaries, [s.mask for s in samples], quality.THRESHOLDS)
    assert chosen["best"]["threshold"] == best
    assert chosen["best"] in chosen["rows"] and len(chosen["rows"]) == len(quality.THRESHOLDS)


def test_the_ablation_script_trains_each_row_once(results, monkeypatch, capsys):
    rows = ["recipe", "plain loop: Adam, constant rate, last weights, no jitter"]
    arguments = ["--real", "embedded", "--crops", "8", "--epochs", "1", "--json", str(results / "ablation.json")]
    monkeypatch.setattr(sys, "argv", ["ablation", *arguments, "--only", *rows])
    ablation.main()
    result = json.loads((results / "ablation.json").read_text(encoding="utf-8"))
    assert list(result["rows"]) == rows and result["machine"] and result["settings"]["crops"] == 8
    assert all(len(row["f1"]) == 3 for row in result["rows"].values())
    assert "| recipe |" in page.ablation_section()
    capsys.readouterr()
    ablation.main()
    assert "---" not in capsys.readouterr().out


@pytest.mark.parametrize("change", ablation.VARIANTS)
def test_each_change_of_the_ablation_is_one_and_is_written_alike_in_every_process(change):
    recipe, course = replace(ablation.Recipe(), **ablation.VARIANTS[change]), ablation.Recipe()
    different = {name for name in vars(course) if getattr(recipe, name) != getattr(course, name)}
    if change.startswith("plain loop"):  # another optimizer needs another learning rate
        different.remove("learning_rate")
    assert len(different) == (change != "recipe")
    assert "0x" not in str(ablation.describe(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs(name, tmp_path):
    if name == "alternatives":
        pytest.importorskip("monai", reason='needs the networks compared with: pip install -e ".[bench]"')
    [path] = run_benchmarks([name], "embedded", quick=True, folder=tmp_path)
    result = json.loads(path.read_text(encoding="utf-8"))
    columns = {
        "training_step": {"course / plain", "course / limit"},
        "loading": {"what", "seconds"},
        "evaluation": {"way", "seconds"},
        "large_images": {"seconds", "peak of the process, MB"},
        "alternatives": {"images/s", "parameters", "F1 at IoU 0.5", "memory for training, MB"},
        "course": {"notebook", "seconds"},
    }
    assert result["rows"] and all(columns[name] <= set(row) for row in result["rows"])
    numbers = [value for row in result["rows"] for value in row.values() if isinstance(value, float)]
    assert all(np.isfinite(numbers))


def test_the_results_page_and_the_readme_say_what_the_result_files_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.make_page(), "run: python -m benchmarks.page"
    readme = page.README.read_text(encoding="utf-8")
    assert readme == page.with_tables(readme), "run: python -m benchmarks.page"


@pytest.mark.parametrize(
    ("file", "result"), [("boundary_dsb2018.pt", "quality_shipped"), ("boundary_embedded.pt", "quality_embedded")]
)
def test_the_card_of_the_networks_says_what_the_result_files_say(file, result):
    found = page.read(result)
    card = (checkpoint_folder() / "README.md").read_text(encoding="utf-8")
    [row] = [line for line in card.splitlines() if line.startswith(f"| `{file}`") and " / " in line]
    for views, cell in zip(("one view", "eight views"), row.split(" | ")[-2:], strict=True):
        scores = [found[views]["watershed"]["test"][f"{iou:g}"]["mean F1"] for iou in IOU_THRESHOLDS]
        assert cell.removesuffix(" |") == " / ".join(f"{score:.3f}" for score in scores)
    _, about = load_model(checkpoint_folder() / file)
    assert about["curve"] == found["curve"]  # the network that was scored is the one that ships


def test_a_result_that_does_not_hold_is_not_published(results):
    measuring.write("evaluation", {"title": "x", "command": "y", "rows": [{"way": "z"}], "identical counts": False})
    with pytest.raises(ValueError, match="identical counts is false"):
        page.speed_section("evaluation")


def test_what_was_not_measured_is_not_said_to_be_met(results):
    assert {row["met"] for row in page.goals()} == {False}
    assert page.speed_table() == page.notebook_table() == ""


def test_result_files_come_from_full_runs_on_the_real_images():
    for name in NAMES:
        if result := page.read(name):
            assert result["quick"] is False
            assert "dsb2018" in result["data"]
    if result := page.read("alternatives"):
        assert len(result["rows"]) == 4


def test_the_transfer_from_synthetic_images_trains_and_does_not_take_the_network_of_the_course(monkeypatch):
    asked = []
    monkeypatch.setattr(embedded_transfer, "boundary_model", lambda *args, **options: asked.append(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedded_transfer.measure(embedded_folder(), embedded_folder(), ["test"], get_profile("laptop"), 0)
    assert asked == [{"pretrained": False}]
