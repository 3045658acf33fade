"""The plain loop, beside what the checks of exercises 3.3 and 3.4 prove of the reference, and the jitter."""

from __future__ import annotations

import pytest
import torch
from small_training import batches, small_unet
from torch import nn

from course_utils.losses import binary_cross_entropy, dice_score
from course_utils.training import jitter_intensity, train_epoch, validate

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_training_and_validation_work_on_a_gpu():
    model = small_unet().to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first, _ = validate(model, batches(2), binary_cross_entropy, dice_score)
    for _ in range(20):
        train_epoch(model, batches(2), binary_cross_entropy, optimizer, dice_score)
    assert validate(model, batches(2), binary_cross_entropy, dice_score)[0] < first


def test_a_loader_without_a_batch_is_an_error():
    model = nn.Conv2d(1, 1, 1).eval()
    with pytest.raises(ValueError, match="no batch"):
        train_epoch(model, [], binary_cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="no batch"):
        validate(model, [], binary_cross_entropy)


@pytest.mark.parametrize("was_training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_validation_restores_mode_and_grad_mode_even_after_an_error(was_training, grad, fails):
    def loss_fn(logits, targets):
        if fails:
            raise ArithmeticError
        return binary_cross_entropy(logits, targets)

    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train(was_training)
    with torch.set_grad_enabled(grad):
        try:
            validate(model, batches(1), loss_fn)
        except ArithmeticError:
            assert fails
        assert torch.is_grad_enabled() == grad
        assert {part.training for part in model.modules()} == {was_training}


# jitter_intensity


def test_jitter_scales_and_shifts_each_image_as_a_whole_within_its_range():
    images = torch.rand(500, 1, 8, 8)
    before = images.clone()
    result = jitter_intensity(images)
    assert torch.equal(images, before) and result.shape == images.shape and result.dtype == torch.float32
    low, high = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    scale = (result.amax((1, 2, 3)) - result.amin((1, 2, 3))) / (high - low)
    shift = result.amin((1, 2, 3)) - scale * low
    assert 0.6 - 1e-4 <= scale.min() < 0.65 and 1.55 < scale.max() <= 1.6 + 1e-4
    assert -0.2 - 1e-4 <= shift.min() < -0.18 and 0.18 < shift.max() <= 0.2 + 1e-4
    assert torch.allclose(result, images * scale[:, None, None, None] + shift[:, None, None, None], atol=1e-5)


def test_jitter_follows_the_torch_seed():
    images = torch.rand(2, 1, 4, 4)
    torch.manual_seed(5)
    first = jitter_intensity(images)
    assert not torch.equal(jitter_intensity(images), first)
    torch.manual_seed(5)
    assert torch.equal(jitter_intensity(images), first)


@pytest.mark.parametrize("fails", [False, True])
def test_validation_leaves_frozen_normalisations_frozen(fails):
    model = small_unet(batch_norm=True).train()
    frozen = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)][::2]
    for part in frozen:
        part.eval()
    before = [part.training for part in model.modules()]
    try:
        validate(model, batches(2), None if fails else binary_cross_entropy)
        assert not fails
    except TypeError:
        assert fails
    assert [part.training for part in model.modules()] == before
