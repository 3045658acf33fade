"""Profiles: how large and how long, in one place."""

from __future__ import annotations

import pytest
import torch

from course_utils import device
from course_utils.profiles import get_profile


@pytest.fixture(autouse=True)
def no_course_profile(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)


@pytest.mark.parametrize("name", ["smoke", "laptop", "full"])
def test_a_profile_has_sizes_the_network_accepts(name):
    profile = get_profile(name)
    assert profile.name == name
    assert profile.crop_size % 2**profile.depth == 0
    assert profile.crop_size <= 256  # the smallest images of the data set
    assert profile.crops_per_epoch >= profile.batch_size


def test_the_profiles_grow_from_smoke_to_full():
    profiles = [get_profile(name) for name in ("smoke", "laptop", "full")]
    for field in ("base_channels", "binary_epochs", "boundary_epochs"):
        sizes = [getattr(profile, field) for profile in profiles]
        assert sizes == sorted(sizes), field
    pixels = [profile.crops_per_epoch * profile.crop_size**2 for profile in profiles]
    assert pixels == sorted(pixels)


def test_full_is_the_network_of_the_paper_for_ten_epochs_and_more():
    full = get_profile("full")
    assert full.base_channels == 64 and full.binary_epochs >= 10 and full.boundary_epochs >= 10


@pytest.mark.parametrize("wish", [None, "", "auto"])
@pytest.mark.parametrize(("found", "name"), [("cuda", "full"), ("cpu", "laptop"), ("mps", "laptop")])
def test_auto_is_full_with_a_cuda_gpu_that_works_else_laptop(monkeypatch, wish, found, name):
    if wish is not None:
        monkeypatch.setenv("COURSE_PROFILE", wish)
    monkeypatch.setattr(device, "choose_device", lambda: torch.device(found))
    assert get_profile().name == get_profile("auto").name == name
    monkeypatch.setenv("COURSE_PROFILE", "smoke")  # decides what auto means, and nothing else
    assert get_profile("auto").name == "smoke" and get_profile("full").name == "full"


def test_an_unknown_profile_is_an_error_that_lists_the_known_ones(monkeypatch):
    with pytest.raises(ValueError, match="no profile 'fast'. Known: smoke, laptop, full, or auto"):
        get_profile("fast")
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="no profile 'fast'"):
        get_profile()
