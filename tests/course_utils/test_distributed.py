"""Two processes on the CPU, started by torchrun, train as one process does; shards, process groups, the command."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from in_processes import EPOCHS, TINY, fit_small, run_command, small_data
from saved_files import same_weights
from torch import nn

from course_utils import device, networks
from course_utils.checkpoints import load_model
from course_utils.distributed import ProcessGroup, current_process_group, join_process_group
from course_utils.unet import UNet
from workshop import train

torch.set_num_threads(1)
CPU = torch.device("cpu")
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "in_processes.py"


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Two processes on this computer, as a person starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_DEVICE": "cpu"}
    return subprocess.run(
        [*command, *map(str, arguments)], env=variables, capture_output=True, text=True, timeout=300
    )


# the share of a batch


@given(n_images=st.integers(1, 20), size=st.integers(1, 6))
def test_shares_are_a_partition_of_the_batch(n_images, size):
    batch = torch.arange(n_images)
    shares = [ProcessGroup(rank, size).shard(batch, -batch) for rank in range(size)]
    assert all(torch.equal(targets, -images) and len(images) >= 1 for images, targets, _ in shares)
    assert torch.equal(torch.cat([images[:own] for images, _, own in shares]).sort().values, batch)
    assert max(own for *_, own in shares) - min(own for *_, own in shares) <= 1


@given(n_images=st.integers(1, 9), size=st.integers(1, 4))
def test_the_average_of_weighted_gradients_is_the_gradient_of_the_whole_batch(n_images, size):
    weight = torch.tensor(0.5, requires_grad=True)
    batch = torch.linspace(-1, 2, n_images)

    def gradient(images, factor=1.0):
        return torch.autograd.grad(((images * weight) ** 2).mean() * factor, weight)[0]

    parts = []
    for rank in range(size):
        images, _, own = ProcessGroup(rank, size).shard(batch, batch)
        parts.append(gradient(images, own * size / n_images))
    assert torch.allclose(torch.stack(parts).mean(), gradient(batch), atol=1e-6)


def test_one_process_alone_does_nothing_special():
    model = nn.BatchNorm2d(3)
    alone = join_process_group(CPU)
    assert alone == ProcessGroup(0, 1) == current_process_group() and alone.is_first
    assert alone.wrap(model) is model and type(model) is nn.BatchNorm2d
    images = torch.rand(5, 1, 4, 4)
    shared, _, own = alone.shard(images, images)
    assert own == 5 and shared.data_ptr() == images.data_ptr() and shared.stride() == images.stride()
    random = torch.get_rng_state()
    alone.sync_buffers(model)
    alone.check_equal(3, "number")
    alone.barrier()
    assert torch.equal(torch.get_rng_state(), random) and alone.broadcast_from_first("x") == "x"
    assert torch.equal(alone.all_sum(images), images)


def test_processes_that_resume_from_different_epochs_are_stopped_in_a_sentence(monkeypatch):
    def gather(values, value):
        values[:] = [value, 0]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    ProcessGroup(0, 2).check_equal(0, "number of finished epochs")
    with pytest.raises(ValueError, match="do not have the same number of finished epochs, but 2, 0: let all"):
        ProcessGroup(0, 2).check_equal(2, "number of finished epochs")


def test_with_several_gpus_a_network_is_synchronised_and_saved_and_used_as_before(monkeypatch):
    """Without a GPU: what becomes of the network itself."""

    class OnAGpu(UNet):
        def parameters(self, recurse=True):
            return iter([types.SimpleNamespace(device=torch.device("cuda"))])

    torch.manual_seed(0)
    model, x = OnAGpu(1, 1, base_channels=2, depth=1, batch_norm=True), torch.rand(2, 1, 8, 8)
    model(x)  # moves the running statistics
    before, expected = copy.deepcopy(model), model.eval()(x)
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", lambda wrapped: [wrapped])
    monkeypatch.setattr(ProcessGroup, "sync_buffers", lambda self, model: None)
    assert ProcessGroup(0, 2).wrap(model) == [model]
    kinds = [type(part) for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert kinds and set(kinds) == {nn.SyncBatchNorm}
    assert same_weights(model, before) and torch.equal(model.eval()(x), expected)


# joining


@pytest.fixture
def started_by_torchrun(monkeypatch):
    values = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_each_process_gets_its_own_gpu(started_by_torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    assert device.choose_device() == torch.device("cuda:1")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert device.choose_device() == CPU
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    assert device.choose_device() == torch.device("cuda")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("cuda", "asked for 2 processes on a computer with 1 GPU: .*--nproc-per-node 1"),
     ("mps", "this device is mps: start without torchrun, or set COURSE_DEVICE=cpu")],
)  # fmt: skip
def test_too_few_gpus_and_other_devices_are_refused_in_a_sentence(started_by_torchrun, monkeypatch, kind, reason):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=reason):
        join_process_group(torch.device(kind))


def test_a_single_process_of_torchrun_trains_as_without_it(started_by_torchrun, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join_process_group(CPU) == ProcessGroup()


# two real processes


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes got: each of them, and the folder with the networks of the command."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(PROGRAM, "train", folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)], folder, done


def assert_same(first, second, exactly=False):
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-3, "atol": 1e-5}
    assert first["weights"].keys() == second["weights"].keys()
    for name, value in first["weights"].items():
        torch.testing.assert_close(value, second["weights"][name], **tolerance)
    assert len(first["results"]) == len(second["results"]) == EPOCHS
    for one, other in zip(first["results"], second["results"], strict=True):
        assert one == (other if exactly else pytest.approx(other, rel=1e-4, abs=1e-6))
    assert torch.equal(first["random"], second["random"])


def test_two_processes_train_as_one(two):
    """The same losses and scores in every epoch, and in the end the same weights and the same random numbers."""
    (first, second), alone = two[0], fit_small()
    assert_same(first["plain"], alone)
    losses = [result["train_loss"] for result in alone["results"]]
    assert losses[0] != pytest.approx(losses[-1], rel=1e-2), "the comparison is of a training that changes something"
    for kind in ("plain", "normalised"):  # also statistics of batch normalisation, computed from different images
        assert_same(first[kind], second[kind], exactly=True)


def test_with_batch_normalisation_in_shares_the_training_is_similar(two):
    alone, found = fit_small(batch_norm=True), two[0][0]["normalised"]
    for one, other in zip(alone["results"], found["results"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.15)


def test_an_interrupted_training_goes_on_in_two_processes_and_in_one(two, tmp_path, capsys):
    died = torchrun(PROGRAM, "die", tmp_path)
    assert died.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.resume"]
    shutil.copy(tmp_path / "net.resume", tmp_path / "other.resume")

    done = torchrun(PROGRAM, "resume", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "does not fit" not in done.stdout and not (tmp_path / "net.resume").exists()
    for rank, uninterrupted in enumerate(two[0]):
        assert_same(torch.load(tmp_path / f"{rank}.pt"), uninterrupted["plain"], exactly=True)

    assert_same(fit_small(tmp_path / "other.resume"), two[0][0]["plain"])
    assert "does not fit" not in capsys.readouterr().out


def test_the_networks_of_two_processes_are_found_by_the_notebooks(two, capsys):
    (first, second), folder, done = two
    assert first["exit code"] == second["exit code"] == 0
    assert done.stdout.count("Processes: 2, each with a share of every batch of 4") == 1
    assert done.stdout.count("epoch 2: training loss") == 2, "one of the processes says it, of each network"
    assert_found(folder / "output", capsys)


def assert_found(output: Path, capsys):
    capsys.readouterr()
    files = sorted(path.name for path in (output / "models").iterdir())
    assert files == ["binary.pt", "boundary.pt"]
    networks.foreground_model(small_data(), TINY, 0, output)
    networks.boundary_model(small_data(), TINY, 0, output)
    said = capsys.readouterr().out
    assert said.count("Loaded ") == 2 and "Training" not in said
    assert load_model(output / "models" / "boundary.pt")[0].sizes["out_channels"] == 3


# the command without torchrun


@pytest.fixture
def command(monkeypatch):
    """The command with a tiny network; what it changes is put back."""
    for name in ("get_profile", "load_data"):
        monkeypatch.setattr(train, name, getattr(train, name))
    return run_command


def test_one_process_trains_the_networks_for_the_notebooks(tmp_path, command, capsys):
    assert command(tmp_path) == 0
    assert_found(tmp_path, capsys)
    assert command(tmp_path) == 0
    said = capsys.readouterr().out
    assert said.count("Loaded ") == 2 and "epoch" not in said
    assert command(tmp_path / "one", "--only", "binary") == 0
    assert [path.name for path in (tmp_path / "one" / "models").iterdir()] == ["binary.pt"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "nowhere"], "There is no data source 'nowhere'"),
        (["--profile", "huge"], "There is no profile 'huge'"),
        (["--seed", "-1"], "The seed is -1"),
        (["--profile", "smoke", "--output", "file"], "Nothing can be saved in file"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    assert train.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"workshop.train: {reason}") and error.count("\n") == 1
