"""The benchmarks run, what they compare is the same work, and the pages say what the result files say."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import odd_notebooks
import pytest
import torch

from benchmarks import (
    ablation,
    alternatives,
    denoising,
    embedded_transfer,
    evaluation,
    large_images,
    loading,
    losses,
    measuring,
    page,
    peers,
    quality,
    readme_picture,
    robustness,
)
from benchmarks.__main__ import main
from benchmarks.running import NAMES, run_benchmarks
from course_utils import checkpoints, networks
from course_utils.checkpoints import checkpoint_folder, load_model, save_model
from course_utils.data import Sample, embedded_folder, load_data
from course_utils.exercises import list_exercises
from course_utils.profiles import get_profile
from course_utils.saving import save_sealed
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


def test_the_straight_line_of_the_growth_table_is_found_and_deviations_are_shown():
    sizes = [(1, 100, 1000), (4, 100, 1000), (4, 20_000, 50_000), (16, 500, 20_000), (16, 30_000, 30_000)]
    seconds = [0.02 * m + 0.01 * 2 * k / 10_000 + 0.005 * n / 10_000 for m, k, n in sizes]
    columns = ("million pixels", "true labels", "predicted labels", "overlapping pairs", "seconds")
    rows = [dict(zip(columns, (m, k, k, n, s), strict=True)) for (m, k, n), s in zip(sizes, seconds, strict=True)]
    np.testing.assert_allclose(list(evaluation.straight_line(rows).values()), [0.02, 0.01, 0.005])
    assert all(row["measured / straight line"] == pytest.approx(1) for row in rows)
    rows[-1]["seconds"] *= 3
    evaluation.straight_line(rows)
    assert max(row["measured / straight line"] for row in rows) > 1.3


def test_the_large_image_of_the_benchmark_has_nuclei_and_an_empty_quarter(data):
    image, truth = large_images.mosaic(data.train, places=4)
    assert image.shape == truth.shape == (1024, 1024) and image.dtype == np.uint8
    assert not truth[:512, :512].any() and image[:512, :512].max() < 30
    squares = truth.reshape(4, 256, 4, 256).swapaxes(1, 2).reshape(16, -1)
    assert sum(len(np.unique(one)) - 1 for one in squares) == len(np.unique(truth)) - 1 > 50  # no id twice


def test_the_command_prints_every_column_and_writes_where_when_and_that_the_counts_agree(tmp_path, capsys):
    assert main(["--only", "speed"]) == 1
    assert "There is no benchmark 'speed'" in capsys.readouterr().err
    assert main(["--quick", "--only", "evaluation", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "stardist" in printed and "4096" not in printed
    result = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert all(column in printed for rows in (result["rows"], result["growth"]) for column in rows[0])
    assert result["quick"] is True and "bench --only evaluation" in result["command"] and result["date"]
    assert result["versions"]["torch"] and result["machine"]["cores"] >= 1
    assert result["identical counts"] is True
    growth = [(row["true labels"], row["overlapping pairs"]) for row in result["growth"]]
    assert growth[:2] == [(484, 484), (484, 484)] and growth[2][0] == 3136
    assert growth[2][1] > 2 * 3136  # shifted, a label overlaps several
    assert evaluation.many_labels(512, 484, seed=0).max() > 484  # ids have gaps


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (50000, "50,000"), (1234.5, "1,234"), (True, "yes")])
def test_values_are_rounded_for_people(value, text):
    assert measuring.as_text(value) == text
    assert measuring.format_table([{"way": "plain"}, {"way": "fast", "other": value}]).split()[-2:] == ["fast", text]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a peak")
def test_the_peak_of_memory_counts_from_where_it_was_forgotten():
    """In a fresh process: one that has trained keeps the memory that it frees."""
    program = """
import numpy as np
from benchmarks import measuring

block = np.ones(40_000_000)  # 320 MB
with_block = measuring.peak_memory_mb()
del block
measuring.forget_peak_memory()
assert measuring.peak_memory_mb() < with_block - 250
block = np.ones(40_000_000)
assert measuring.peak_memory_mb() > with_block - 100
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[1], check=True)


def test_bare_steps_train_as_the_loop_does_even_after_an_evaluation():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)).eval()
    modes = []
    model.register_forward_hook(lambda *_: modes.append(model.training))
    before = model[0].weight.clone()
    batch = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    measuring.bare_steps(model, torch.nn.functional.mse_loss, batch, 3, torch.float32)()
    assert modes == [True, True, True] and not torch.equal(before, model[0].weight)


def test_a_watched_loader_gives_the_batches_and_counts_only_the_waiting():
    watched = loading.Watched(time.sleep(0.05) or number for number in range(3))
    got = []
    for batch in watched:
        time.sleep(0.1)  # computing does not count
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
    for module in (measuring, quality, page, denoising):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(measuring.write, "__defaults__", (tmp_path,))
    return tmp_path


@pytest.mark.slow
def test_a_network_is_trained_scored_and_trained_a_second_time(results, monkeypatch, capsys):
    def run(name: str, *further) -> dict:
        small = ["--data", "embedded", "--profile", "smoke", "--epochs", "1", "--base-channels", "4", "--name", name]
        monkeypatch.setattr(sys, "argv", ["quality", *small, "--output", str(results / name), *map(str, further)])
        quality.main()
        return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))

    first, second = results / "first.pt", results / "second.pt"
    before = run("first", "--pretrained", first, "--test")
    assert hashlib.sha256(first.read_bytes()).hexdigest() in capsys.readouterr().out
    assert before["command"].endswith("--profile smoke --epochs 1 --base-channels 4 --test --name first")
    assert load_model(first)[1]["base_channels"] == 4 and len(before["curve"]) == 1
    for views in ("one view", "eight views"):
        for method in ("watershed", "components"):
            assert 0 <= before[views][method]["test"]["mean_f1"]["0.5"] <= 1
    assert run("first")["curve"] == before["curve"]  # the network is found, and its curve with it
    (results / "first.json").unlink()
    with pytest.raises(ValueError, match="curve has 0 of 1 epochs"):
        run("first", "--pretrained", first)

    trainings = []
    monkeypatch.setattr(networks, "fit", lambda *args, **options: trainings.append(options) or fit(*args, **options))
    after = run("second", "--start", first, "--pretrained", second)
    [how] = trainings
    assert how["learning_rate"] == get_profile("smoke").learning_rate / 2 and how["options"].batch_transform is None
    assert [epoch["epoch"] for epoch in after["curve"]] == [1, 2] and after["curve"][:1] == before["curve"]
    assert after["command"].endswith("--start first.pt --output second --name second") and after[quality.FIRST] == 1
    (model, metadata), (earlier, _) = load_model(second), load_model(first)
    assert [one["epochs"] for one in metadata["trainings"]] == [1, 1] and metadata["curve"] == after["curve"]
    assert not torch.equal(model.state_dict()["output.weight"], earlier.state_dict()["output.weight"])

    saved = torch.load(first, weights_only=True)
    for changed, reason in (
        (saved["metadata"] | {"validation_every": 5}, "trained on images that are set aside here"),
        ({"kind": "boundary"}, "does not hold the curve"),
    ):
        save_sealed(first, saved | {"metadata": changed})
        with pytest.raises(ValueError, match=reason):
            run("second", "--start", first)


def test_the_threshold_is_chosen_as_in_notebook_05(data):
    rng = np.random.default_rng(0)
    samples = data.train[:3]
    noisy = [np.clip((s.mask > 0) * 0.8 + rng.normal(0, 0.2, s.mask.shape), 0, 1) for s in samples]
    probabilities = [np.stack([1 - one, one, np.zeros_like(one)]) for one in noisy]
    chosen = quality.choose(quality.watershed, probabilities, samples)
    foregrounds, boundaries = [p[1] for p in probabilities], [p[2] for p in probabilities]
    best, _ = find_best_threshold(foregrounds, boundaries, [s.mask for s in samples], quality.THRESHOLDS)
    assert chosen["best"]["threshold"] == best
    best = {name: value for name, value in chosen["best"].items() if name != "interval"}
    assert best in chosen["rows"] and len(chosen["rows"]) == len(quality.THRESHOLDS)
    low, high = chosen["best"]["interval"]["F1 at 0.5"]
    assert low <= best["f1"][0] <= high


def test_the_ablation_script_trains_each_row_once(results, monkeypatch, capsys):
    rows = ["recipe", "plain loop: Adam, constant rate, last weights, no jitter"]
    arguments = ["--real", "embedded", "--crops", "16", "--epochs", "1", "--json", str(results / "ablation.json")]
    monkeypatch.setattr(sys, "argv", ["ablation", *arguments, "--only", *rows])
    ablation.main()
    result = page.read("ablation")
    assert set(result["rows"]) - set(rows) == {  # scored with the recipe's network
        "weight of the boundary left in the probabilities", "instances kept that the network is unsure of",
    }  # fmt: skip
    assert result["machine"] and result["settings"]["crops"] == 16
    assert all(len(row["0"]["mSA"]) == 12 for row in result["rows"].values()) and "| recipe |" in page.ablation()
    capsys.readouterr()
    ablation.main()
    assert "---" not in capsys.readouterr().out


def test_each_loss_is_trained_once_and_compared_in_pairs(results, monkeypatch, capsys):
    size = ["--crops", "8", "--epochs", "1", "--base-channels", "4", "--json", str(results / "losses.json")]
    monkeypatch.setattr(sys, "argv", ["losses", "--real", "embedded", *size])
    monkeypatch.setattr(losses, "THRESHOLDS", [0.5])
    all_losses = losses.losses
    few = ("cross entropy", "cross entropy, inverse frequencies as weights")
    monkeypatch.setattr(losses, "losses", lambda train: {name: all_losses(train)[name] for name in few})
    losses.main()
    result = page.read("losses")
    assert list(result["rows"]) == [*few, few[1] + losses.TAKEN_OUT]
    assert all(len(row["0"]["f1"]["0.5"]) == 12 for row in result["rows"].values()), "all validation images"
    assert "+0.000 (+0.000 to +0.000)" in page.losses() and "--crops 8" in page.losses()
    capsys.readouterr()
    losses.main()
    assert "---" not in capsys.readouterr().out


def test_denoisers_are_trained_published_and_each_part_is_measured_once(results, data, monkeypatch, capsys, tmp_path):
    def small(samples):
        return [replace(s, image=s.image[:64, :64].copy(), mask=s.mask[:64, :64].copy()) for s in samples]

    few = replace(data, train=small(data.train[:16]), test=small(data.test[:3]))
    sizes = {"base_channels": 2, "crop_size": 32, "crops_per_epoch": 8, "denoising_epochs": 1, "boundary_epochs": 1}
    monkeypatch.setattr(denoising, "load_data", lambda _: few)
    for name in ("SYNTHETIC", "SEGMENTATION"):
        monkeypatch.setattr(denoising, name, replace(getattr(denoising, name), **sizes))
    for module in (denoising, checkpoints):
        monkeypatch.setattr(module, "checkpoint_folder", lambda: tmp_path)

    def run(step, *options):
        arguments = [step, "--data", "embedded", "--output", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", ["denoising", *arguments])
        denoising.main()
        return capsys.readouterr().out

    trained = run("train")
    assert trained.count("EpochResult") == 3 and "EpochResult" not in run("train"), "trained once"
    lines = re.findall(r'"(\w+)": \("(.+)", "(\w{64})"\)', run("publish"))
    for kind, name, _ in lines:
        model, metadata = load_model(tmp_path / name)
        own, _ = load_model(networks.model_path(tmp_path / "embedded", kind))
        assert all(torch.equal(a, b.half().float()) for a, b in zip(model.parameters(), own.parameters(), strict=True))
        assert len(metadata["curve"]) == 1
    boundary = tmp_path / "boundary.pt"
    save_model(boundary, networks.UNet(1, 3, 2), validation_every=8, curve=[])
    published = {kind: (name, number) for kind, name, number in lines}
    published["boundary"] = boundary.name, quality.digest(boundary)
    monkeypatch.setitem(checkpoints.PRETRAINED, checkpoints.fingerprint(few), published)

    assert run("measure").count("written to") == len(denoising.PARTS) and "written to" not in run("measure")
    result = page.read("denoising_embedded")
    assert {len(one["SSIM"]) for one in result["networks"].values()} == {3}
    assert result["10 labels"]["labelled"] == 10 and result["all labels"]["labelled"] == 14
    text = page.denoising("denoising_embedded")
    assert text.count("| noise2noise |") == 6 and "| 10 | 8 | noise2noise |" in text
    published["noise2noise"] = published["supervised"]  # another network: its figures are measured anew
    assert run("measure", "--parts", "curves").count("written to") == 1


def test_taking_weights_out_divides_the_odds_by_them():
    model, weights = networks.UNet(1, 3, 2, 1), torch.tensor([0.5, 1.0, 3.0])
    image = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        before = model(image).softmax(1)
        after = losses.without_weights(model, weights)(image).softmax(1)
    right = before / weights[:, None, None]
    assert torch.allclose(after, right / right.sum(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("change", ablation.VARIANTS)
def test_each_change_of_the_ablation_is_one_and_is_written_alike_in_every_process(change):
    recipe, course = replace(ablation.Recipe(), **ablation.VARIANTS[change]), ablation.Recipe()
    different = {name for name in vars(course) if getattr(recipe, name) != getattr(course, name)}
    if change.startswith("plain loop"):  # another optimizer needs another learning rate
        different.remove("learning_rate")
    if change.startswith("crops of 256 px"):  # as many pixels in a batch, and so as many steps
        different.remove("batch_size")
    assert len(different) == (change != "recipe")
    assert "0x" not in str(ablation.describe(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs(name, tmp_path):
    if name == "alternatives":
        pytest.importorskip("monai", reason='needs the networks compared with: pip install -e ".[bench]"')
    [path] = run_benchmarks([name], "embedded", quick=True, folder=tmp_path)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert rows and all(set(row) == set(page.read(name)["rows"][0]) for row in rows)  # the columns of the pages
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


def test_every_table_stands_in_the_page_and_says_what_its_result_file_says():
    text = page.PAGE.read_text(encoding="utf-8")
    assert sorted(name for name, _ in page.PLACE.findall(text)) == sorted(page.TABLES)
    assert text == page.with_tables(text), "run: python -m benchmarks.page"
    for result in map(page.read, NAMES):
        assert result["quick"] is False and "dsb2018" in result["data"]
    assert len(page.read("alternatives")["rows"]) == 4


def test_the_picture_of_the_peers_is_of_their_table_and_the_parameters_are_counted():
    result = page.read("quality_pretrained")
    model, _ = load_model(checkpoint_folder() / page.PRETRAINED_FILE)
    assert sum(one.numel() for one in model.parameters()) == page.PARAMETERS
    figure = peers.peers_figure(result, page.PARAMETERS)
    rows = peers.peers_rows(result, page.PARAMETERS)
    for panel, column in zip(figure.axes, ("AP at IoU 0.5 (95 % interval)", "mSA (95 % interval)"), strict=True):
        shown = {text.get_text() for text in panel.texts}
        assert shown == {row[column][:5] for row in rows if row[column]}
    names = [row["mean over the 50 test images"] for row in rows]
    assert names[0] == "**this course, one view**" and len(names) == len(set(names))


def test_altered_images_are_altered_in_one_way_each(data):
    sample = data.train[0]
    for name, alter in robustness.ways().items():
        image, mask = alter(sample)
        assert image.dtype == np.uint8 and image.shape == mask.shape and mask.dtype.kind == "i", name
        assert set(np.unique(mask)) <= set(np.unique(sample.mask)), name
        assert (name == "none") == (image.shape == sample.image.shape and np.array_equal(image, sample.image)), name
        again, _ = alter(sample)
        assert np.array_equal(image, again), name
        if name.startswith("scale"):
            assert len(image) == round(len(sample.image) * float(name.split()[1]))
    light, _ = robustness.ways()["light falling to a third at the left"](sample)
    ratio = light[:, 0].sum() / sample.image[:, 0].sum(), light[:, -1].sum() / sample.image[:, -1].sum()
    assert ratio == pytest.approx((1 / 3, 1), abs=0.1)


def test_scores_use_the_threshold_of_the_other_half():
    """Two nuclei with 0.5 between interior and boundary: seeds below that find them, all above do not."""
    mask = np.zeros((20, 40), np.int32)
    mask[5:15, 5:15], mask[5:15, 20:30] = 1, 2
    one = np.stack([1.0 * (mask == 0), 0.75 * (mask > 0), 0.25 * (mask > 0)])  # interior minus boundary 0.5
    scores = alternatives.cross_scored([one, one, one, one], [mask] * 4)
    assert scores["F1 at 0.5"] == [1.0] * 4 and scores["mSA"] == [1.0] * 4
    mixed = alternatives.cross_scored([one, 0 * one], [mask, mask])
    assert mixed["F1 at 0.5"] == [1.0, 0.0]


def test_no_goal_was_lowered_and_none_is_called_reached_that_was_missed_or_not_measured(monkeypatch):
    goals = page.measured_goals()
    assert [(word, target) for word, target, _ in goals.values()] == [
        ("least", 0.83), ("least", 0.91), ("most", 60), ("least", 0.865), ("least", 0.887), ("least", 0.88),
        ("least", 0.68), ("least", 0.935), ("least", 0.83), ("least", 0.52), ("most", 8), ("most", 0.5), ("most", 0.5),
        ("most", 0.005), ("least", 0), ("least", 3), ("least", 1), ("least", 0.95), ("least", 5), ("least", 5),
        ("most", 5), ("most", 4295),
        ("least", 35.5), ("most", 0.3), ("least", 2), ("most", 0.2), ("most", 4), ("most", 0.03), ("most", 240),
        ("most", 2000), ("most", 180),
    ]  # fmt: skip
    invented = {"a": ("least", 2, 2.0), "b": ("least", 2, 1.9), "c": ("most", 0.3, 0.31), "d": ("most", 9, None)}
    monkeypatch.setattr(page, "measured_goals", lambda: invented)
    rows = [row.split(" | ")[1:] for row in page.goals().splitlines()[2:]]
    assert rows == [["at least 2", "2", "yes |"], ["at least 2", "1.9", "no |"], ["at most 0.3", "0.310", "no |"],
                    ["at most 9", "not measured", "no |"]]  # fmt: skip


def test_goals_of_denoising_and_own_images_are_computed_from_their_result_files(results):
    for path in (Path(page.__file__).parent / "results").glob("*.json"):
        (results / path.name).write_bytes(path.read_bytes())
    psnr = {name: {"PSNR, range of the image": [value - 1, value + 1]} for name, value in
            {"noise2noise": 35.6, "supervised": 35.8, "clipped": 26.0, "clipped, predicted": 26.5}.items()}  # fmt: skip
    classical = {"factors": {}, "total_variation": {"PSNR, range of the image": [33.1]}}
    (results / "denoising.json").write_text(json.dumps({"networks": psnr, "classical": classical}))
    sizes = [{"images": "test", "diameter": given, "lost at 0.5": lost} for given, lost in (("-", 0.2), ("9", 0.02))]
    speed = [{"seconds": 90, "peak of the process, MB": 1}, {"seconds": 1, "peak of the process, MB": 1500}]
    (results / "own_images.json").write_text(json.dumps({"sizes": sizes, "speed": speed}))
    *found, files, lost, seconds, memory = [value for _, _, value in page.measured_goals().values()][22:30]
    assert [*found, lost, seconds, memory] == pytest.approx([35.6, 0.2, 2.5, 0.5, 0.02, 90, 1500])
    for name in ("denoising", "own_images"):
        (results / f"{name}.json").unlink()
    missing = [value for _, _, value in page.measured_goals().values()][22:30]
    assert missing == [None] * 4 + [files] + [None] * 3
    assert page.with_tables("<!-- table denoising -->\n<!-- /table -->").split("\n")[1] == "*Not measured yet.*"


def test_the_figures_of_the_readme_are_measured(monkeypatch):
    """Scores and speed are those of the result files; exercises, their solutions and odd notebooks are counted."""
    text = " ".join((page.ROOT / "README.md").read_text(encoding="utf-8").split())
    scores = next(one["scores"] for one in page.read("notebooks")["notebooks"] if one["notebook"].startswith("05"))
    for method in ("boundary U-Net, watershed", "Otsu, watershed"):
        assert " / ".join(f"{ap:.3f}" for ap in scores[method]["mean_ap"].values()) in text
    quoted = {peer.name.split()[0].strip(","): peer.ap for peer in reversed(peers.PEERS)}
    stardist = " / ".join(f"{ap:.3f}" for ap in quoted["StarDist"])
    assert f"a port of StarDist quotes {stardist}, EmbedSeg {quoted['EmbedSeg'][0]} at 0.5" in text
    decibels = np.mean(page.read("denoising")["networks"]["noise2noise"]["PSNR, range of the image"])
    notebook = (page.ROOT / "solutions" / "07_denoising.py").read_text(encoding="utf-8")
    published = re.search(r"Noise2Void, from single noisy images \| ([\d.]+) \|", notebook)[1]
    assert f"has a PSNR of {decibels:.1f} dB, Noise2Void quotes {published}." in text
    assert f"Noise2Noise, the pretrained network of this notebook | {decibels:.1f} |" in notebook
    for count, part in (("10 labelled images", "10 labels"), ("all 392", "all labels")):
        means = [np.mean(page.read("denoising")[part][name]["AP"]) for name in ("noisy", "noise2noise")]
        assert count in notebook and all(f" {mean:.3f} " in notebook for mean in means)
    lost = {(row["size"], row["diameter"] == "-"): row["lost at 0.5"] for row in page.read("own_images")["sizes"]}
    notebook = (page.ROOT / "solutions" / "08_own_images.py").read_text(encoding="utf-8").replace("\n# ", " ")
    half, twice = ([lost[f"x {size}", without] for without in (True, False)] for size in ("0.5", "2"))
    assert "half the size costs {:.3f} without the diameter and {:.3f} with it".format(*half) in notebook
    assert f"twice the size {twice[0]:.3f} and nothing" in notebook and twice[1] < 0.0005
    times = {row["way"]: row["times as long as the course's"] for row in page.read("evaluation")["rows"]}
    assert f"is {times['stardist']:.1f} times as fast as StarDist's matching and {times['plain']:.0f} times" in text
    assert f"compute in {page.read('course')['rows'][-1]['seconds'] / 60:.1f} minutes" in text
    checks = page.ROOT / "tests" / "course_utils" / "exercises" / "checks"
    monkeypatch.syspath_prepend(str(checks))  # as pytest does for these tests
    counts = count_solutions(sorted(checks.glob("test_notebook_*.py")))
    more = re.search(r"more than ([\d,]+) right solutions, which they accept, and ([\d,]+) wrong ones", text)
    for said, counted in zip((int(one.replace(",", "")) for one in more.groups()), counts, strict=True):
        assert said <= counted < 1.2 * said
    assert f"Each of the {len(list_exercises())} exercises" in text
    odd = len(odd_notebooks.small_notebooks()) + len(odd_notebooks.whole_notebooks())
    assert f"tested with {odd} odd notebooks" in text


def count_solutions(paths):
    """The numbers of right and of wrong solutions in the tests of the checks."""
    modules = [runpy.run_path(str(path)) for path in paths]
    return [sum(len(one) for module in modules for one in module[table].values()) for table in ("RIGHT", "WRONG")]


@pytest.fixture(scope="module")
def crowded():
    """Two test images: in the first the components join three nuclei, in the second nothing is wrong."""
    truth = np.zeros((256, 256), int)
    for number in range(12):
        row, column = divmod(number, 4)
        truth[20 + 70 * row : 50 + 70 * row, 10 + 30 * column : 40 + 30 * column] = number + 1
    joined = np.where(truth <= 3, np.minimum(truth, 1), truth)
    sample = Sample("crowded", (truth > 0) * np.uint8(90), truth)
    return [readme_picture.Shown(sample, joined, truth), readme_picture.Shown(sample, truth, truth)]


def test_the_picture_of_the_readme_shows_the_image_closest_to_the_means_and_a_place_that_was_joined(crowded):
    joined, perfect = crowded
    assert readme_picture.typical([joined, joined, perfect]) is joined
    assert readme_picture.typical([joined, perfect, perfect]) is perfect
    crop = readme_picture.window(joined)
    assert {1, 2, 3} <= set(np.unique(joined.sample.mask[crop])) and joined.sample.mask[crop].shape == (56, 56)


@pytest.mark.parametrize("columns", [columns for columns, _ in readme_picture.PICTURES.values()])
def test_the_picture_of_the_readme_marks_what_is_wrong_in_the_whole_image_and_enlarged(crowded, columns):
    figure = readme_picture.draw(crowded[0], columns)
    signs = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    assert signs == 2 * [[], [], ["+"], []]
    assert [panel.get_title() for panel in figure.axes[1:3]] == ["truth: 12 nuclei", "components: F1 0.82"]


def test_the_pictures_of_the_readme_are_there_and_small():
    text = (page.ROOT / "README.md").read_text(encoding="utf-8")
    for name in readme_picture.PICTURES:
        assert f'"docs/{name}"' in text and (page.ROOT / "docs" / name).stat().st_size < 300_000


@pytest.mark.parametrize(
    ("file", "result"), [("boundary_dsb2018.pt", "quality_pretrained"), ("boundary_embedded.pt", "quality_embedded")]
)
def test_the_card_of_the_networks_says_what_the_result_files_say(file, result):
    found = page.read(result)
    card = (checkpoint_folder() / "README.md").read_text(encoding="utf-8")
    [row] = [line for line in card.splitlines() if line.startswith(f"| `{file}`") and " / " in line]
    for views, cell in zip(("one view", "eight views"), row.split(" | ")[-2:], strict=True):
        scores = found[views]["watershed"]["test"]["mean_f1"].values()
        assert cell.removesuffix(" |") == " / ".join(f"{score:.3f}" for score in scores)
    assert load_model(checkpoint_folder() / file)[1]["curve"] == found["curve"]  # the network in data/ was scored


def test_the_card_of_the_denoisers_says_what_their_files_say():
    card = (checkpoint_folder() / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+_\w+\.pt)` \| (\d+ \| [\d.]+) \|$", card, re.MULTILINE))
    files = {name for kinds in checkpoints.PRETRAINED.values() for kind, (name, _) in kinds.items()
             if kind in denoising.DENOISERS}  # fmt: skip
    assert sorted(rows) == sorted(files)
    for name, said in rows.items():
        _, metadata = load_model(checkpoint_folder() / name)
        assert said == f"{len(metadata['curve'])} | {metadata['curve'][-1]['validation_metric']:.1f}"
        rate = metadata["learning_rate"] * denoising.DENOISERS[metadata["kind"]].learning_rate
        assert f"learning rate up to {rate:g}," in " ".join(card.split())


def test_a_result_that_does_not_hold_is_not_published(results):
    measuring.write("evaluation", {"title": "x", "command": "y", "rows": [{"way": "z"}], "identical counts": False})
    with pytest.raises(ValueError, match="identical counts is false"):
        page.measured("evaluation")


def test_the_transfer_from_synthetic_images_trains_and_does_not_take_the_pretrained_network(monkeypatch):
    asked = []
    monkeypatch.setattr(embedded_transfer, "boundary_model", lambda *args, **options: asked.append(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedded_transfer.measure(embedded_folder(), embedded_folder(), ["test"], get_profile("laptop"), 0)
    assert asked == [{"pretrained": False}]
