"""Exercises 2.1 to 2.5: the network and the padding it needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d, relu

from course_utils.unet import ConvBlock, UNet, UpBlock, count_parameters, pad_to_multiple

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


# 2.1 ConvBlock


@pytest.mark.parametrize("size", [(8, 12), (1, 1), (7, 5)])
def test_conv_block_changes_the_channels_and_keeps_the_size(size):
    assert ConvBlock(3, 5)(torch.zeros(2, 3, *size)).shape == (2, 5, *size)


def test_conv_block_is_two_padded_3x3_convolutions_with_relu():
    block = ConvBlock(2, 4)
    weight_1, bias_1, weight_2, bias_2 = block.parameters()
    assert weight_1.shape == (4, 2, 3, 3) and weight_2.shape == (4, 4, 3, 3)
    x = torch.randn(2, 2, 6, 7)
    expected = relu(conv2d(relu(conv2d(x, weight_1, bias_1, padding=1)), weight_2, bias_2, padding=1))
    assert torch.allclose(block(x), expected)


def test_conv_block_normalises_only_when_asked_to():
    assert list(ConvBlock(2, 4).buffers()) == []
    assert len(list(ConvBlock(2, 4, batch_norm=True).buffers())) == 6  # mean, variance and counter of two
    block, x = ConvBlock(2, 4), torch.randn(3, 2, 8, 8)
    assert torch.allclose(block(x)[:1], block(x[:1]), atol=1e-6)  # the rest of the batch does not matter


def test_with_instance_normalisation_contrast_and_the_rest_of_the_batch_do_not_matter():
    block, x = ConvBlock(1, 4, instance_norm=True), torch.rand(3, 1, 16, 16)
    assert torch.allclose(block(x)[:1], block(x[:1]), atol=1e-6)
    assert torch.allclose(block(5 * x)[..., 2:-2, 2:-2], block(x)[..., 2:-2, 2:-2], atol=1e-3)


# 2.2 UpBlock


def test_up_block_doubles_the_resolution_and_uses_both_inputs():
    below, skip = torch.randn(2, 16, 3, 5, requires_grad=True), torch.randn(2, 8, 6, 10, requires_grad=True)
    result = UpBlock(16, 8)(below, skip)
    result.sum().backward()
    assert result.shape == (2, 8, 6, 10)
    assert below.grad.abs().sum() > 0 and skip.grad.abs().sum() > 0


def test_up_block_goes_up_with_a_2x2_transposed_convolution():
    # 16 -> 8 channels with 2x2 weights, then a ConvBlock of 8 + 8 -> 8 channels
    assert count_parameters(UpBlock(16, 8)) == (16 * 8 * 4 + 8) + (16 * 8 * 9 + 8) + (8 * 8 * 9 + 8)


# 2.3 UNet


def test_the_network_of_the_paper_has_31_030_593_parameters():
    with torch.device("meta"):  # shapes without memory
        assert count_parameters(UNet(1, 1, base_channels=64, depth=4)) == 31_030_593
        assert count_parameters(UNet()) == 31_030_593


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4])
def test_the_output_is_as_large_as_the_input(depth):
    model = UNet(2, 3, base_channels=2, depth=depth)
    height, width = 3 * 2**depth, 2**depth
    assert model(torch.zeros(2, 2, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize(("height", "width", "side"), [(100, 96, 100), (96, 1, 1), (17, 15, 17)])
def test_a_side_that_does_not_divide_is_an_error_that_names_it_and_the_divisor(height, width, side):
    with pytest.raises(ValueError, match=f"divisible by 16, but one side is {side}"):
        UNet(base_channels=2)(torch.zeros(1, 1, height, width))
    with pytest.raises(ValueError, match=f"divisible by 32, but one side is {side}"):
        UNet(base_channels=1, depth=5)(torch.zeros(1, 1, height, width))


def test_the_output_is_linear():
    model = UNet(base_channels=4, depth=2)
    x = torch.randn(1, 1, 16, 16)
    before = model(x)
    with torch.no_grad():
        for parameter in list(model.parameters())[-2:]:  # weight and bias of the last layer
            parameter *= -1000
    assert torch.allclose(model(x), -1000 * before, rtol=1e-3)
    assert model(x).abs().max() > 1


def test_every_parameter_has_influence():
    model = UNet(1, 2, base_channels=4, depth=3)
    model(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_pixel_itself_has_most_influence_thanks_to_the_skip_connections():
    model = UNet(base_channels=8, depth=4).eval()
    image = torch.zeros(1, 1, 32, 32, requires_grad=True)
    model(image + torch.randn(1, 1, 32, 32))[0, 0, 16, 16].backward()
    gradient = image.grad[0, 0].abs()
    assert gradient[16, 16] > 10 * gradient.mean()


@pytest.mark.parametrize("norm", [{}, {"batch_norm": True}, {"instance_norm": True}])
def test_a_network_can_be_built_again_from_its_sizes(norm):
    model = UNet(1, 3, base_channels=2, depth=2, **norm)
    twin = UNet(**model.sizes)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(model.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize(("keyword", "kind"), [("batch_norm", nn.BatchNorm2d), ("instance_norm", nn.InstanceNorm2d)])
def test_normalisation_follows_every_3x3_convolution_or_none(depth, keyword, kind):
    def count(model):
        return sum(isinstance(part, (nn.BatchNorm2d, nn.InstanceNorm2d)) for part in model.modules())

    model = UNet(base_channels=1, depth=depth, **{keyword: True})
    assert count(model) == sum(type(part) is kind for part in model.modules()) == 2 * (2 * depth + 1)
    assert count(UNet(base_channels=1, depth=depth)) == 0


def test_building_a_network_depends_on_the_torch_seed_alone():
    torch.manual_seed(3)
    first = UNet(base_channels=2, depth=1).state_dict()
    torch.manual_seed(3)
    second = UNet(base_channels=2, depth=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# 2.4 count_parameters


def test_only_trainable_parameters_count_and_shared_ones_once():
    shared = nn.Linear(10, 2)
    model = nn.Sequential(shared, shared, nn.Linear(3, 1), nn.BatchNorm2d(5))
    assert count_parameters(model) == 22 + 4 + 10
    model[2].weight.requires_grad = False
    assert count_parameters(model) == 22 + 1 + 10
    assert type(count_parameters(model)) is int and count_parameters(nn.ReLU()) == 0


# 2.5 pad_to_multiple


def reflected(index: int, length: int) -> int:
    """Where pixel `index` of a line comes from that is folded back and forth between its ends."""
    position, step = 0, 1
    for _ in range(index):
        if not 0 <= position + step < length:
            step = -step
        if 0 <= position + step < length:  # a line of one pixel has nowhere to go
            position += step
    return position


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 8, 16, 32]))
def test_padding_folds_the_image_at_the_bottom_and_at_the_right(height, width, multiple):
    image = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    before = image.copy()
    padded, size = pad_to_multiple(image, multiple)
    assert size == (height, width)
    assert np.array_equal(image, before)
    assert padded.dtype == image.dtype
    for new, old in zip(padded.shape, image.shape, strict=True):
        assert new % multiple == 0 and old <= new < old + multiple
    rows = [reflected(y, height) for y in range(padded.shape[0])]
    columns = [reflected(x, width) for x in range(padded.shape[1])]
    assert np.array_equal(padded, image[np.ix_(rows, columns)])


# arguments that are something else


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNet(base_channels=0), "base_channels must be a whole number of at least 1, but is 0"),
        (lambda: UNet(in_channels=1.0), "in_channels must be .* but is 1.0"),
        (lambda: UNet(out_channels=-1), "out_channels must be .* but is -1"),
        (lambda: UNet(depth=-1), "depth must be a whole number of at least 0, but is -1"),
        (lambda: pad_to_multiple(np.zeros((5, 5)), 0), "multiple must be .* but is 0"),
        (lambda: pad_to_multiple(np.zeros((5, 5)), 2.5), "multiple must be .* but is 2.5"),
        (lambda: pad_to_multiple(np.zeros((3, 5, 5))), r"shape \(3, 5, 5\)"),
        (lambda: pad_to_multiple(np.zeros((0, 5))), "no pixels"),
        (lambda: pad_to_multiple(torch.zeros(5, 5)), "of type Tensor"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_was_found(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_unet_of_depth_0_is_a_block_with_an_output():
    assert UNet(1, 2, base_channels=4, depth=0)(torch.zeros(1, 1, 5, 7)).shape == (1, 2, 5, 7)
