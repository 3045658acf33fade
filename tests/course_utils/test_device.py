"""Device and precision are chosen by trying them."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from course_utils import device as device_module
from course_utils.device import (
    MixedPrecision,
    choose_device,
    choose_precision,
    cpu_has_fast_bfloat16,
    describe_device,
    fast_layout,
    prepare_model,
)
from course_utils.unet import UNet

torch.set_num_threads(1)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def no_course_device(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends to be a machine with these accelerators."""

    def pretend(cuda=False, mps=False, first_operation_fails_with=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

        def first_operation(self, name):
            if first_operation_fails_with is not None:
                raise RuntimeError(first_operation_fails_with)
            return lambda x: x

        zeros = torch.zeros
        monkeypatch.setattr(nn.Conv2d, "to", first_operation)
        monkeypatch.setattr(torch, "zeros", lambda *size, device=None: zeros(*size))

    return pretend


# the device


@pytest.mark.parametrize("wish", [None, ""])
@pytest.mark.parametrize(("has", "chosen"), [({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")])
def test_an_accelerator_that_works_is_chosen_and_an_empty_course_device_is_ignored(
    machine, monkeypatch, wish, has, chosen
):
    machine(**has)
    if wish is not None:
        monkeypatch.setenv("COURSE_DEVICE", wish)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_device().type == chosen


@pytest.mark.parametrize("text", ["CUDA error: no kernel image is available\nmore lines", ""])
def test_kaggles_p100_which_is_listed_and_fails_is_not_used_and_a_message_says_why(machine, text):
    machine(cuda=True, first_operation_fails_with=text)
    with pytest.warns(UserWarning, match="first operation failed.*Using the CPU.*GPU T4 x2") as caught:
        assert choose_device() == CPU
    assert text.split("\n")[0] in str(caught[0].message) and "more lines" not in str(caught[0].message)


@pytest.mark.parametrize("wish", ["cpu", "cuda:1", "meta"])
def test_course_device_overrides_the_choice(machine, monkeypatch, wish):
    machine(cuda=True)
    monkeypatch.setenv("COURSE_DEVICE", wish)
    assert choose_device() == torch.device(wish)


# the precision


@pytest.mark.parametrize(
    ("gpu", "capability", "precision"),
    [("T4", (7, 5), torch.float16), ("A100", (8, 0), torch.bfloat16), ("H100", (9, 0), torch.bfloat16)],
)
def test_bfloat16_needs_a_gpu_that_has_it(monkeypatch, gpu, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu)
    assert choose_precision(CUDA) == precision
    assert describe_device(CUDA).startswith(f"{gpu}, {str(precision).removeprefix('torch.')}")
    assert ("in a plain training loop float32" in describe_device(CUDA)) == (gpu == "T4")


@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
@pytest.mark.parametrize("amx", [False, True, None])
@pytest.mark.parametrize("avx512_bf16", [False, True, None])
def test_bfloat16_needs_a_processor_that_has_it_and_a_torch_that_can_tell(monkeypatch, machine, amx, avx512_bf16):
    monkeypatch.setattr(device_module.platform, "machine", lambda: machine)
    for name, supported in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512_bf16)):
        monkeypatch.setattr(torch.cpu, name, lambda supported=supported: supported, raising=False)
        if supported is None:
            monkeypatch.delattr(torch.cpu, name)
    fast = machine == "x86_64" and bool(amx or avx512_bf16)
    assert cpu_has_fast_bfloat16() == fast
    assert choose_precision(CPU) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("number", "text"), [(1, "1 thread"), (2, "2 threads")])
def test_the_cpu_is_described_by_its_threads(monkeypatch, number, text):
    monkeypatch.setattr(device_module, "cpu_has_fast_bfloat16", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)
    assert describe_device(CPU) == f"CPU, {text}, float32"


# MixedPrecision


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_computes_in_less_and_returns_float32(precision):
    torch.manual_seed(0)
    inside = []
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1))
    model[0].register_forward_hook(lambda module, args, output: inside.append(output.dtype))
    x = torch.randn(2, 1, 8, 8)
    mixed = MixedPrecision(model, precision)
    output = mixed(x)
    assert inside == [precision]
    assert output.dtype == torch.float32
    assert torch.allclose(output, model(x), atol=0.03)

    output.square().mean().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.grad.any() for p in model.parameters())
    assert list(mixed.parameters()) == list(model.parameters()) and not mixed.eval().model.training


@pytest.mark.parametrize(
    ("precision", "wrapped"), [(torch.bfloat16, True), (torch.float32, False), (torch.float16, False)]
)
def test_a_plain_loop_gets_bfloat16_where_it_is_fast_and_never_float16(monkeypatch, precision, wrapped):
    monkeypatch.setattr(device_module, "choose_precision", lambda device: precision)
    model = nn.Conv2d(1, 1, 1)
    assert isinstance(prepare_model(model, CPU), MixedPrecision) == wrapped
    assert prepare_model(model, CPU)(torch.zeros(1, 1, 4, 4)).dtype == torch.float32


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_kept_for_the_next_allocation():
    """In a separate process: page faults of a large block that is made ten times, before and after."""
    code = """
import resource, torch
from course_utils.device import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16_000_000)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
anew = faults()
keep_freed_memory()
faults()  # the heap grows to its size
print(anew, faults())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    anew, kept = map(int, found)
    assert kept < anew / 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_in_a_notebook_freed_memory_is_kept_until_the_end_of_the_cell():
    """A block that lies below one that is still needed, so that the heap cannot just become shorter."""
    code = """
import re
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in (
    "import torch; from course_utils.device import keep_freed_memory; keep_freed_memory(); keep_freed_memory()",
    "def used(): return int(re.search(r'RssAnon:.*?([0-9]+)', open('/proc/self/status').read())[1]) // 1000",
    "import re; before = used(); block = torch.ones(50_000_000); needed = torch.ones(1_000_000)",
    "del block; in_cell = used() - before",
    "print('in the cell', in_cell, 'after it', used() - before, len(get_ipython().events.callbacks['post_run_cell']))",
):
    shell.run_cell(cell)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    in_cell, after, callbacks = map(int, re.findall(r"-?\d+", done.stdout.splitlines()[-1]))
    assert in_cell > 180 and after < 20 and callbacks == 1, done.stdout


@pytest.mark.parametrize("shape", [(3, 4, 20, 30), (1, 4, 5, 1), (2, 4, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_normalisation_is_that_of_torch_and_keeps_the_layout(shape, layout):
    ours, theirs = fast_layout(nn.InstanceNorm2d(4, affine=True)), nn.InstanceNorm2d(4, affine=True)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.uniform_(0.5, 2))
        theirs.bias.copy_(ours.bias.normal_())
    x = torch.randn(shape).contiguous(memory_format=layout)
    for mode in (True, False):
        result = ours.train(mode)(x)
        assert torch.allclose(result, theirs.train(mode)(x), atol=1e-5)
        assert result.is_contiguous(memory_format=layout)


def test_a_map_of_one_pixel_is_left_as_it_is_and_a_small_image_gets_a_prediction():
    x = torch.randn(2, 4, 1, 1)
    norm = nn.InstanceNorm2d(4, affine=True)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        norm(x)
    assert torch.equal(fast_layout(norm)(x), x)
    model = fast_layout(UNet(1, 3, base_channels=2, instance_norm=True))
    assert model(torch.rand(1, 1, 16, 16)).isfinite().all()


def test_instance_normalisations_that_compute_something_else_stay_torchs():
    for norm in (nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)):
        assert type(nn.Sequential(nn.Conv2d(1, 4, 1), norm)[1]) is nn.InstanceNorm2d
        fast_layout(nn.Sequential(nn.Conv2d(1, 4, 1), norm))
        assert type(norm) is nn.InstanceNorm2d
