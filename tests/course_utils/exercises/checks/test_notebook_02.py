"""The checks of notebook 02: right networks pass however they are written, messages name mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runner import CheckTests
from scipy.ndimage import map_coordinates
from torch import nn
from torch.nn import functional

from course_utils.exercises import evaluate
from course_utils.exercises.diagrams import BEHIND
from course_utils.unet import ConvBlock, UNet

# 2.1 ConvBlock, right


class TwoLayers(nn.Module):
    """Written layer by layer."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding="same")
        self.first = nn.Conv2d(in_channels, out_channels, (3, 3), padding=(1, 1))

    def forward(self, x):
        return functional.relu(self.second(functional.relu(self.first(x))))


class SequentialBlock(nn.Sequential):
    """Derived from a container, with activations in place and more options than the task asks for."""

    def __init__(self, in_channels, out_channels, norm=None, activation=nn.ReLU):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1), activation(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1), activation(inplace=True),
        )  # fmt: skip


class UnfoldedBlock(nn.Module):
    """Without torch's convolution layers: windows and matrix products, weights in another layout."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(9 * in_channels, out_channels), nn.Linear(9 * out_channels, out_channels)]
        )

    def forward(self, x):
        for layer in self.layers:
            windows = functional.unfold(x, 3, padding=1)
            x = layer(windows.transpose(1, 2)).transpose(1, 2).clamp(min=0).reshape(len(x), -1, *x.shape[2:])
        return x


class LazyBlock(nn.Module):
    """The number of input channels comes from the first image."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.first = nn.LazyConv2d(out_channels, 3, padding=1)
        self.second = nn.LazyConv2d(out_channels, 3, padding=1)

    def forward(self, x):
        return self.second(self.first(x).relu()).relu()


def block_factory(in_channels, out_channels):
    """A function that returns a module can be used like the class."""
    return TwoLayers(in_channels, out_channels)


def block_of(layers):
    """A class that makes a block of the layers `layers(in_channels, out_channels)`."""

    class Block(nn.Module):
        def __init__(self, in_channels, out_channels):
            super().__init__()
            self.layers = nn.Sequential(*layers(in_channels, out_channels))

        def forward(self, x):
            return self.layers(x)

    return Block


def conv(i, o, **options):
    return nn.Conv2d(i, o, 3, **({"padding": 1} | options))


# 2.1 ConvBlock, wrong


class HiddenLayers(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layers = [conv(in_channels, out_channels), nn.ReLU(), conv(out_channels, out_channels), nn.ReLU()]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class NotAModule:
    def __init__(self, in_channels, out_channels):
        self.block = TwoLayers(in_channels, out_channels)

    def __call__(self, x):
        return self.block(x)


class LayersInForward(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.sizes = in_channels, out_channels

    def forward(self, x):
        return TwoLayers(*self.sizes)(x)


class NoSuper(nn.Module):
    def __init__(self, in_channels, out_channels):
        self.conv = conv(in_channels, out_channels)


def with_forward(forward):
    return type("Changed", (TwoLayers,), {"forward": forward})


class HalfWrittenBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = conv(in_channels, out_channels)

    def forward(self, x):
        raise NotImplementedError("Exercise 2.1: ConvBlock.forward")


RELU = nn.ReLU()
WRONG_BLOCKS = {
    "an instance": (TwoLayers(1, 2), r"^Kind of ConvBlock: found an object of type TwoLayers, expected a class"),
    "not a module": (NotAModule, r"^Type of ConvBlock\(3, 8\): found NotAModule, expected a torch.nn.Module"),
    "no super().__init__()": (NoSuper, r"^Error: .*AttributeError.*line \d+ of your cell, in __init__: `self.conv"),
    "printed": (with_forward(lambda self, x: print(x.shape)), r"^Type of .*found None.*Your code printed .torch.Size"),
    "a class": (lambda i, o: TwoLayers, r"^Type of .*found type.*It is a class: call it"),
    "foward": (type("Misspelt", (nn.Module,), {"__init__": TwoLayers.__init__, "foward": TwoLayers.forward}),
               r"^Error: .*The class Misspelt has a method foward: is forward meant"),
    "both from in to out": (block_of(lambda i, o: [conv(i, o), RELU, conv(i, o), RELU]),
                            r"^Channels in .*\(2, 8, 7, 10\) .*from 3 to 8 .*before it returns 8"),
    "out and in swapped": (block_of(lambda i, o: [conv(o, i), RELU, conv(i, o), RELU]),
                           r"^Channels in .*\(2, 3, 7, 10\) .*from 8 to 3 .*in_channels and returns out_channels"),
    "layers in forward": (LayersInForward, r"^Randomness .*in __init__, as attributes"),
    "no return": (with_forward(lambda self, x: None), r"^Type of the result .*found None, expected Tensor.*`return`"),
    "no padding": (block_of(lambda i, o: [conv(i, o, padding=0), RELU, conv(o, o, padding=0), RELU]),
                   r"^Shape of .*\(2, 8, 3, 6\), expected \(2, 8, 7, 10\)"),
    "channels swapped": (block_of(lambda i, o: [conv(i, i), RELU, conv(i, i), RELU]), r"^Shape of"),
    "float64": (block_of(lambda i, o: [Doubled(), conv(i, o).double(), RELU, conv(o, o).double(), RELU]),
                r"^dtype of .*float64"),
    "no ReLU at the end": (block_of(lambda i, o: [conv(i, o), RELU, conv(o, o)]), r"^Range of .*no negative"),
    "no ReLU in the middle": (block_of(lambda i, o: [conv(i, o), conv(o, o), RELU]), r"^Nonlinearity"),
    "leaky ReLU in the middle": (block_of(lambda i, o: [conv(i, o), nn.LeakyReLU(), conv(o, o), RELU]),
                                 r"^Value.*ReLU"),
    "sigmoid": (block_of(lambda i, o: [conv(i, o), nn.Sigmoid(), conv(o, o), nn.Sigmoid()]), r"^Value of .*ReLU"),
    "softplus at the end": (block_of(lambda i, o: [conv(i, o), RELU, conv(o, o), nn.Softplus()]), r"^Value of"),
    "dropout": (block_of(lambda i, o: [conv(i, o), RELU, nn.Dropout(0.3), conv(o, o), RELU]), r"^Randomness of"),
    "batch norm": (block_of(lambda i, o: [conv(i, o), nn.BatchNorm2d(o), RELU, conv(o, o), RELU]), r"^Independence of"),
    "group norm": (block_of(lambda i, o: [conv(i, o), nn.GroupNorm(1, o), RELU, conv(o, o), RELU]), r"^Number of"),
    "instance norm": (block_of(lambda i, o: [conv(i, o), nn.InstanceNorm2d(o), RELU, conv(o, o), RELU]), r"^Receptive"),
    "one convolution": (block_of(lambda i, o: [conv(i, o), RELU]), r"^Number of"),
    "no bias": (block_of(lambda i, o: [conv(i, o, bias=False), RELU, conv(o, o, bias=False), RELU]), r"^Number .*bias"),
    "a list": (HiddenLayers, r"^Number of .*found 0.*nn.ModuleList"),
    "5x5": (block_of(lambda i, o: [nn.Conv2d(i, o, 5, padding=2), RELU, conv(o, o), RELU]), r"^Number of"),
    "dilated": (block_of(lambda i, o: [conv(i, o, padding=2, dilation=2), RELU, conv(o, o), RELU]),
                r"^Receptive field of .*7 x 7, .* 5 x 5"),
    "detached": (with_forward(lambda self, x: TwoLayers.forward(self, x.detach()).detach()), r"^Gradient of"),
    "reflecting": (block_of(lambda i, o: [conv(i, o, padding_mode="reflect"), RELU, conv(o, o), RELU]),
                   r"^Value of .*padding 1 \(zeros\)"),
    "padded at once": (block_of(lambda i, o: [conv(i, o, padding=2), RELU, conv(o, o, padding=0), RELU]),
                       r"^Value of .*padding 1 \(zeros\)"),
    "input changed": (with_forward(lambda self, x: TwoLayers.forward(self, x.data.clamp_(min=0))), r"^Mutation"),
}  # fmt: skip


class Doubled(nn.Module):
    def forward(self, x):
        return x.double()


# 2.2 UpBlock, right


class OtherOrder(nn.Module):
    """The upsampled maps first, and nothing but layers of torch."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.block = TwoLayers(2 * out_channels, out_channels)
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, 2)

    def forward(self, x, skip):
        return self.block(torch.cat((self.up(x), skip), 1))


class ForUNetsOnly(nn.Module):
    """Right only if in_channels is twice out_channels, as in a U-Net, like well-known implementations."""

    def __init__(self, in_ch, out_ch, bilinear=False):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_ch, in_ch // 2, kernel_size=2, stride=2)
        self.conv = SequentialBlock(in_ch, out_ch)

    def forward(self, x1, x2):
        return self.conv(torch.concatenate([x2, self.up(x1)], dim=-3))


class ConcatenatesLazily(nn.Module):
    """The number of channels of the block comes from the first images; other names, and one more keyword."""

    def __init__(self, in_ch, out_ch, bilinear=False):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_ch, out_ch, kernel_size=2, stride=2)
        self.conv = LazyBlock(None, out_ch)

    def forward(self, x1, x2):
        return self.conv(torch.concatenate([x2, self.up(x1)], dim=-3))


class ShuffledUp(nn.Module):
    """A transposed convolution by hand: 2x2 numbers for each pixel."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_channels, out_channels, 2, 2) / in_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.block = UnfoldedBlock(2 * out_channels, out_channels)

    def forward(self, x, skip):
        up = torch.einsum("nihw,ioyx->nohywx", x, self.weight).flatten(4, 5).flatten(2, 3)
        return self.block(torch.cat([skip, up + self.bias[:, None, None]], dim=1))


class SizeOfTheSkip(OtherOrder):
    """Gives the size to the transposed convolution, and pads what may be missing."""

    def forward(self, x, skip):
        x = self.up(x, output_size=skip.shape[-2:])
        missing = [skip.shape[axis] - x.shape[axis] for axis in (3, 2)]
        return self.block(torch.stack([functional.pad(x, (0, missing[0], 0, missing[1])), skip], 1).flatten(1, 2))


# 2.2 UpBlock, wrong


def up_block(forward, up=None, block=None):
    """An UpBlock with another forward or other layers."""

    class Up(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.up = up(i, o) if up else nn.ConvTranspose2d(i, o, 2, 2)
            self.conv = block(i, o) if block else TwoLayers(2 * o, o)

        def forward(self, x, skip):
            return forward(self, x, skip)

    return Up


def plain(self, x, skip):
    return self.conv(torch.cat([skip, self.up(x)], 1))


def detached(self, x, skip):
    return self.conv(torch.cat([skip.detach(), self.up(x)], 1))


def changes_skip(self, x, skip):
    result = plain(self, x, skip)
    if not (skip.requires_grad or x.requires_grad):
        skip.zero_()
    return result


def bilinear_up(i, o):
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(i, o, 1))


def nearest_up_same_count(i, o):
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(i, o, 2, padding="same"))


WRONG_UP_BLOCKS = {
    "an instance": (OtherOrder(8, 4), r"^Kind of UpBlock"),
    "arguments swapped": (up_block(lambda self, skip, x: plain(self, x, skip)),
                          r"^Channels in .*\(2, 4, 6, 10\) .*from 8 to 4.*x is upsampled"),
    "half of in_channels": (ForUNetsOnly, r"^Number of channels in UpBlock\(7, 3\): found layers that do not fit"),
    "half of in_channels, consistently": (
        up_block(
            plain, up=lambda i, o: nn.ConvTranspose2d(i, i // 2, 2, 2), block=lambda i, o: TwoLayers(i // 2 + o, o)),
        r"^Number of .*UpBlock\(12, 4\).*out_channels"),
    "ignores in_channels": (up_block(plain, up=lambda i, o: nn.ConvTranspose2d(2 * o, o, 2, 2)),
                            r"^Number of channels in UpBlock\(7, 3\)"),
    "ignores out_channels": (
        up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, i // 2, 2, 2), block=lambda i, o: TwoLayers(i, i // 2)),
        r"^Number of"),
    "not upsampled": (up_block(plain, up=lambda i, o: nn.Conv2d(i, o, 1)),
                      r"^Skip connection in .*\(2, 4, 3, 5\) from below and \(2, 4, 6, 10\)"),
    "axis 0": (up_block(lambda self, x, skip: self.conv(torch.cat([skip, self.up(x)]))),
               r"^Axis of the concatenation in .*\(2, 4, 6, 10\) joined to \(4, 4, 6, 10\).*dim=1"),
    "axis 2": (up_block(lambda self, x, skip: self.conv(torch.cat([skip, self.up(x)], dim=2))), r"^Axis of .*dim=1"),
    "stride 1": (up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, o, 2)),
                 r"^Skip .*\(2, 4, 4, 6\) from below and \(2, 4, 6, 10\).*stride 2"),
    "channels kept": (up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, i, 2, 2)),
                      r"^Channels in .*\(2, 12, 6, 10\) .*joins 4 and 8 channels"),
    "block of out_channels": (up_block(plain, block=lambda i, o: TwoLayers(o, o)),
                              r"^Channels in .*\(2, 8, 6, 10\) .*from 4 to 4.*joins 4 and 4"),
    "kernel 3": (up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, o, 3, 2, 1, 1)), r"^Number of trainable"),
    "added": (up_block(lambda self, x, skip: self.conv(skip + self.up(x)), block=lambda i, o: TwoLayers(o, o)),
              r"^Number of trainable"),
    "added, then doubled": (up_block(lambda self, x, skip: self.conv(torch.cat([skip + self.up(x)] * 2, 1))),
                            r"^Value of"),
    "without skip": (up_block(lambda self, x, skip: self.conv(torch.cat([self.up(x)] * 2, 1))), r"^Use of skip"),
    "skip of zeros": (up_block(lambda self, x, skip: plain(self, x, torch.zeros_like(skip))), r"^Use of skip"),
    "skip detached": (up_block(detached), r"^Use of skip"),
    "without x": (up_block(lambda self, x, skip: self.conv(torch.cat([skip, skip], 1))), r"^Use of x"),
    "bilinear": (up_block(plain, up=bilinear_up), r"^Number of .*transposed convolution"),
    "nearest": (up_block(plain, up=nearest_up_same_count), r"^Value of .*Transposed convolution of x"),
    "kernel 4": (up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, o, 4, 2, 1)), r"^Number of"),
    "no bias": (up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, o, 2, 2, bias=False)), r"^Number of .*with bias"),
    "ReLU after the transposed convolution": (
        up_block(plain, up=lambda i, o: nn.Sequential(nn.ConvTranspose2d(i, o, 2, 2), nn.ReLU())),
        r"^Value of .*without an activation"),
    "no ConvBlock": (up_block(plain, block=lambda i, o: conv(2 * o, o)), r"^Range of|^Number of"),
    "no concatenation": (up_block(lambda self, x, skip: torch.cat([skip, self.up(x)], 1)), r"^Shape of .*out_ch"),
    "batch norm": (up_block(plain, block=lambda i, o: ConvBlock(2 * o, o, batch_norm=True)), r"^Independence"),
    "skip changed": (up_block(changes_skip), r"^Mutation: your code changed its argument skip"),
}  # fmt: skip


# 2.3 UNet, right


class CompactUNet(nn.Module):
    """Recursive: a level holds the level below. Other order of concatenation, other blocks, pooling as a function."""

    class Level(nn.Module):
        def __init__(self, above, channels, depth):
            super().__init__()
            self.down = SequentialBlock(above, channels)
            self.below = CompactUNet.Level(channels, 2 * channels, depth - 1) if depth else None
            self.up = OtherOrder(2 * channels, channels) if depth else None

        def forward(self, x):
            x = self.down(x)
            return x if self.below is None else self.up(self.below(functional.max_pool2d(x, 2)), x)

    def __init__(self, in_channels=1, out_channels=1, base_channels=64, depth=4, **extras):
        super().__init__()
        self.divisor = 2**depth
        self.top = CompactUNet.Level(in_channels, base_channels, depth)
        self.last = nn.Conv2d(base_channels, out_channels, 1)

    def forward(self, x):
        height, width = x.shape[-2:]
        if height % self.divisor or width % self.divisor:
            raise ValueError(f"Image of {height} x {width}: both sides must be multiples of {self.divisor}")
        return self.last(self.top(x))


class AverageUNet(nn.Module):
    """Dictionary of layers, average pooling, activations as functions."""

    def __init__(self, in_channels=1, out_channels=1, base_channels=64, depth=4):
        super().__init__()
        self.depth, self.parts = depth, nn.ModuleDict()
        width = [in_channels] + [base_channels << level for level in range(depth + 1)]
        for level in range(depth + 1):
            self.parts[f"down{level}"] = TwoLayers(width[level], width[level + 1])
        for level in range(depth):
            self.parts[f"transposed{level}"] = nn.ConvTranspose2d(width[level + 2], width[level + 1], 2, stride=2)
            self.parts[f"up{level}"] = TwoLayers(2 * width[level + 1], width[level + 1])
        self.parts["head"] = nn.Conv2d(width[1], out_channels, 1)

    def forward(self, x):
        for name, side in zip(("height", "width"), x.shape[2:], strict=True):
            if side & ((1 << self.depth) - 1):
                raise ValueError(f"The {name} must be divisible by 2**{self.depth}")
        kept = {}
        for level in range(self.depth + 1):
            x = self.parts[f"down{level}"](functional.avg_pool2d(x, 2) if level else x)
            kept[level] = x
        for level in range(self.depth - 1, -1, -1):
            x = self.parts[f"up{level}"](torch.cat([self.parts[f"transposed{level}"](x), kept[level]], dim=1))
        return self.parts["head"](x)


class LazyUNet(CompactUNet):
    """The number of channels of the last layer comes from the first image."""

    def __init__(self, in_channels=1, out_channels=1, base_channels=64, depth=4):
        super().__init__(in_channels, out_channels, base_channels, depth)
        self.last = nn.LazyConv2d(out_channels, 1)


class CalculatingUNet(CompactUNet):
    """A network that cannot be made on the meta device, because it needs numbers."""

    def __init__(self, in_channels=1, out_channels=1, base_channels=64, depth=4):
        super().__init__(in_channels, out_channels, base_channels, int(torch.tensor(depth)))


# 2.3 UNet, wrong


def changed(forward=UNet.forward, rebuild=lambda model: None, **fixed):
    """The reference with another forward, other layers, or sizes that do not depend on the arguments."""

    class Changed(UNet):
        def __init__(self, in_channels=1, out_channels=1, base_channels=64, depth=4):
            sizes = dict(in_channels=in_channels, out_channels=out_channels, base_channels=base_channels, depth=depth)
            super().__init__(**sizes | fixed)
            rebuild(self)

    Changed.forward = forward
    return Changed


def with_output(change):
    return changed(lambda self, x: change(UNet.forward(self, x)))


def resized(self, x):
    return UNet.forward(self, functional.interpolate(x, (16, 16)))[..., : x.shape[-2], : x.shape[-1]]


def without_complaint(model):
    model.depth = 0


class OtherDefaults(UNet):
    def __init__(self, in_channels=1, out_channels=1, base_channels=32, depth=4):
        super().__init__(in_channels, out_channels, base_channels, depth)


class OtherDefaultsWithNumbers(OtherDefaults):
    def __init__(self, in_channels=1, out_channels=1, base_channels=32, depth=4):
        super().__init__(in_channels, out_channels, base_channels, int(torch.tensor(depth)))


def own_forward(skip=lambda skip: skip, below=lambda x: x, remainders=lambda sides, depth: [0]):
    """A U-Net whose forward treats skip connections, the maps from below or the sides differently."""

    def forward(self, x):
        if any(remainders(x.shape[2:], self.depth)):
            raise ValueError(f"Sides {tuple(x.shape[2:])} must be divisible by {2**self.depth}.")
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(skip(x))
            x = self.pool(x)
        x = self.bottleneck(x)
        for block in self.decoder:
            x = block(below(x), skips.pop())
        return self.output(x)

    return changed(forward)


def doubling(base, depth):
    return [base * 2**level for level in range(depth + 1)]


def unet_of(channels=doubling, block=TwoLayers, up=OtherOrder):
    """A U-Net with other numbers of channels or other blocks."""

    def rebuild(model):
        sizes = model.sizes
        widths = channels(sizes["base_channels"], model.depth)
        model.encoder = nn.ModuleList(map(block, [sizes["in_channels"], *widths], widths[:-1]))
        model.bottleneck = block(*widths[-2:])
        model.decoder = nn.ModuleList(map(up, widths[:0:-1], widths[-2::-1]))
        model.output = nn.Conv2d(widths[0], sizes["out_channels"], 1)

    return changed(rebuild=rebuild)


def keeping(
    keep=lambda kept: kept.pop(), pool_first=False, before=False, reverse=False, last_pool=False, pool=True, bottom=True
):
    """A U-Net that keeps or uses its skip connections, or halves, at other places."""

    def forward(self, x):
        if any(side % 2**self.depth for side in x.shape[2:]):
            raise ValueError(f"{tuple(x.shape[2:])}: {2**self.depth}")
        kept = []
        for block in self.encoder:
            maps = block(x)
            pooled = self.pool(maps) if pool else maps
            kept.append(pooled if pool_first else x if before else maps)
            x = pooled
        x = self.bottleneck(x) if bottom else x
        x = self.pool(x) if last_pool else x
        for block in self.decoder:
            x = block(keep(kept), x) if reverse else block(x, keep(kept))
        return self.output(x)

    return changed(forward)


def without_relu(model):
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.layers = nn.Sequential(module.layers[0], module.layers[2])


def hidden_decoder(model):
    blocks = list(model.decoder)
    del model.decoder
    model.decoder = blocks


def without_bias(model):
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_parameter("bias", None)


def with_bilinear(model):
    for block in model.decoder:
        block.up = bilinear_up(block.up.in_channels, block.up.out_channels)


def cropping(self, x):
    height, width = (side // 2**self.depth * 2**self.depth for side in x.shape[2:])
    return UNet.forward(self, x[..., :height, :width])


def asserting_sides(self, x):
    assert not any(side % 2**self.depth for side in x.shape[2:]), f"{tuple(x.shape[2:])}: {2**self.depth}"
    return UNet.forward(self, x)


def silent(self, x):
    try:
        return UNet.forward(self, x)
    except ValueError:
        raise ValueError("This size does not fit.") from None


def changes_image(self, x):
    result = UNet.forward(self, x)
    x.mul_(2)
    return result


class HalfWrittenUNet(nn.Module):
    def __init__(self, in_channels=1, out_channels=1, base_channels=64, depth=4):
        raise NotImplementedError("Exercise 2.3: UNet.__init__")


WRONG_UNETS = {
    "an instance": (UNet(1, 1, 2, 1), r"^Kind of UNet"),
    "sigmoid": (with_output(torch.sigmoid), r"^Range of the result of .*logits"),
    "softmax": (with_output(lambda y: y.softmax(dim=1)), r"^Range of the result of .*logits"),
    "ReLU at the end": (with_output(torch.relu), r"^Range of the result of .*negative values.*logits"),
    "depth ignored": (changed(resized, without_complaint, depth=4), r"^Number of .*depth=4: does your code use"),
    "base_channels ignored": (changed(base_channels=64), r"^Number of .*base_channels=64: does your code"),
    "in_channels ignored": (changed(in_channels=1), r"^Channels in .*level 0 .*from 1 to 2 channels.*takes in_chan"),
    "out_channels ignored": (changed(out_channels=1), r"^Shape of .*\(2, 1, 8, 12\), expected \(2, 3, 8, 12\)"),
    "other defaults": (OtherDefaults, r"^Number of parameters of UNet\(\): found 7,.*expected 31,030,593"),
    "other defaults, made with numbers": (OtherDefaultsWithNumbers, r"^Number of .*UNet\(depth=1\).*The defaults are"),
    "batch norm": (changed(batch_norm=True), r"^Independence of"),
    "dropout": (changed(lambda self, x: UNet.forward(self, functional.dropout(x, 0.5))), r"^Randomness"),
    "dropout in the decoder": (own_forward(below=lambda x: functional.dropout(x, 0.1)), r"^Randomness"),
    "skip of zeros": (own_forward(skip=torch.zeros_like), r"^Skip connections of"),
    "skip detached": (own_forward(skip=torch.Tensor.detach), r"^Gradient of .*leaves out a part"),
    "bottleneck cut off": (own_forward(below=torch.zeros_like), r"^Value of .*transposed"),
    "bottleneck detached": (own_forward(below=torch.Tensor.detach), r"^Gradient of .*none for \d+ of"),
    "skips in the order of the encoder": (
        keeping(lambda kept: kept.pop(0)),
        r"^Skip .*level 1 \(4 x 6\): found maps of shape \(2, 4, 4, 6\) from below and \(2, 2, 8, 12\).*reverse order"),
    "skips after pooling": (
        keeping(pool_first=True),
        r"^Skip .*level 1 \(4 x 6\): .*\(2, 4, 4, 6\) from below and \(2, 4, 2, 3\).*kept after pooling"),
    "skips before the block": (keeping(before=True), r"^Channels .*level 1 .*\(2, 6, 4, 6\) .*joins 2 and 4 channels"),
    "x and skip swapped": (keeping(reverse=True), r"^Channels .*level 1 .*from 8 to 4.*not the skip connection"),
    "no pooling": (keeping(pool=False), r"^Skip .*one step up.* for each step down"),
    "no bottleneck": (keeping(bottom=False), r"^Channels .*level 2 .*from 8 to 4.*stands the bottleneck"),
    "always four levels": (
        lambda depth=4, **sizes: UNet(**sizes, depth=4).apply(lambda model: vars(model).update(depth=depth)),
        r"^Pooling in .*\(2, 16, 1, 1\).*does your code use its argument depth"),
    "pooled after the bottleneck": (keeping(last_pool=True), r"^Skip .*one step up.* for each step down"),
    "no padding": (unet_of(block=block_of(lambda i, o: [conv(i, o, padding=0), RELU, conv(o, o, padding=0), RELU])),
                   r"^Size after a 3x3 convolution .*\(2, 2, 8, 12\) turned into \(2, 2, 6, 10\).*padding 1"),
    "step up off by one": (unet_of(up=up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, o, 3, 2, 1))),
                           r"^Skip .*\(2, 4, 3, 5\) from below and \(2, 4, 4, 6\)"),
    "concatenation along axis 0": (
        unet_of(up=up_block(lambda self, x, skip: self.conv(torch.cat([skip, self.up(x)])))), r"^Axis of .*dim=1"),
    "channels do not double": (unet_of(lambda base, depth: [base] * (depth + 1)), r"^Number .*here they stay the same"),
    "channels doubled at once": (unet_of(lambda base, depth: [base * 2 ** (n + 1) for n in range(depth + 1)]),
                                 r"^Number .*not twice as many"),
    "channels grow by addition": (unet_of(lambda base, depth: [base * (n + 1) for n in range(depth + 1)]),
                                  r"^Number .*Compare with the diagram"),
    "one convolution in a block": (
        unet_of(block=block_of(lambda i, o: [conv(i, o), RELU]),
                up=up_block(plain, block=lambda i, o: block_of(lambda i, o: [conv(i, o), RELU])(2 * o, o))),
        r"^Number .*two convolutions"),
    "kernel 3 in the step up": (unet_of(up=up_block(plain, up=lambda i, o: nn.ConvTranspose2d(i, o, 3, 2, 1, 1))),
                                r"^Number .*kernel size 2, not 3"),
    "nn.Upsample": (
        unet_of(
            up=up_block(plain, up=lambda i, o: nn.Upsample(scale_factor=2), block=lambda i, o: TwoLayers(i + o, o))),
        r"^Number .*not an nn.Upsample\."),
    "3x3 at the end": (changed(rebuild=lambda m: setattr(m, "output", conv(m.output.in_channels, len(m.output.bias)))),
                       r"^Number .*last convolution has kernel size 1"),
    "assert": (changed(asserting_sides), r"^Error of UNet\(depth=4\) .*found AssertionError.*`assert` is not enough"),
    "no ReLU": (changed(rebuild=without_relu), r"^Value of the result of .*ReLU"),
    "hidden decoder": (changed(rebuild=hidden_decoder), r"^Number of trainable parameters of .*nn.ModuleList"),
    "no bias": (changed(rebuild=without_bias), r"^Number .*bias"),
    "bilinear": (changed(rebuild=with_bilinear), r"^Number of .*transposed convolution"),
    "no error": (changed(cropping), r"^Error of UNet\(depth=4\) for an image of 40 x 48: found no error"),
    "error of torch": (own_forward(), r"^Error of UNet\(depth=4\) .*found RuntimeError"),
    "only the height": (own_forward(remainders=lambda sides, depth: [sides[0] % 2**depth]), r"^Error of .*48 x 40"),
    "always 16": (own_forward(remainders=lambda sides, depth: [side % 16 for side in sides]), r"^Divisor of .*by 4"),
    "error without numbers": (changed(silent), r"^Error of .*names the side 40 and the divisor 16"),
    "image changed": (changed(changes_image), r"^Mutation: your code changed its argument x"),
}  # fmt: skip


# 2.4 count_parameters


def count_by_loop(model):
    total = 0
    for _name, parameter in model.named_parameters():
        if parameter.requires_grad:
            size = 1
            for length in parameter.shape:
                size *= length
            total += size
    return total


def count_by_numpy(model, trainable_only=True):
    chosen = filter(lambda parameter: parameter.requires_grad or not trainable_only, model.parameters())
    return int(np.sum([np.prod(parameter.shape) for parameter in chosen]))


def count_recursively(model):
    seen = {}

    def collect(module):
        for parameter in module._parameters.values():
            if parameter is not None and parameter.requires_grad:
                seen[id(parameter)] = len(parameter.flatten())
        for child in module.children():
            collect(child)

    collect(model)
    return sum(seen.values())


def freezes(model):
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    return total


WRONG_COUNTS = {
    "all parameters": (lambda model: sum(p.numel() for p in model.parameters()), r"^Value of .*frozen.*requires_grad"),
    "frozen ones": (lambda model: sum(p.numel() for p in model.parameters() if not p.requires_grad),
                    r"^Value of .*found 0, expected 22"),
    "tensors": (lambda model: len(list(model.parameters())), r"^Value of .*found 2, expected 22. .*not tensors"),
    "weights only": (lambda model: sum(p.numel() for name, p in model.named_parameters()
                                       if p.requires_grad and "bias" not in name), r"^Value of .*Biases"),
    "tied twice": (lambda model: sum(p.numel() for module in model.modules() for p in module.parameters(recurse=False)
                                     if p.requires_grad), r"^Value .*same weight tensor: found 24, .*counts once"),
    "printed": (lambda model: print(count_by_loop(model)), r"^Type of .*found None, expected int.*printed .22"),
    "first sides": (lambda model: sum(p.shape[0] for p in model.parameters()), r"^Value of .*expected 22"),
    "a tensor": (lambda model: sum(torch.tensor(p.numel()) for p in model.parameters()), r"^Type of .*found Tensor"),
    "a fraction": (lambda model: float(count_by_loop(model)), r"^Type of .*found float, expected int"),
    "text": (lambda model: f"{sum(p.numel() for p in model.parameters()):,}", r"^Type of .*found str"),
    "state": (lambda model: sum(v.numel() for v in model.state_dict().values()), r"^Value of"),
    "buffers": (lambda model: count_by_loop(model) + sum(b.numel() for b in model.buffers()), r"^Value of .*buffers"),
    "shared twice": (lambda model: sum(p.numel() for module in model for p in module.parameters() if p.requires_grad)
                     if isinstance(model, nn.Sequential) else count_by_loop(model), r"^Value of .*shared"),
    "layers only": (lambda model: sum(m.weight.numel() + (0 if m.bias is None else m.bias.numel())
                                      for m in model.modules() if isinstance(m, nn.Linear)), r"^Value of"),
    "freezes": (freezes, r"^Mutation of nn.Linear"),
    "an error": (lambda model: model.n_parameters, r"^Error: .*AttributeError.*n_parameters"),
}  # fmt: skip


# 2.5 pad_to_multiple


def pad_by_index(image, multiple=16):
    """Fold the indices; return lists."""
    height, width = image.shape

    def places(side):
        period = max(1, 2 * side - 2)
        return [side - 1 - abs(side - 1 - place % period) for place in range(-(-side // multiple) * multiple)]

    return [image[places(height)][:, places(width)], [height, width]]


def pad_step_by_step(image, multiple=16, **options):
    """One row or column at a time, in loops."""
    size = tuple(image.shape)
    for axis in (0, 1):
        lines, step, place = list(np.moveaxis(image, axis, 0)), -1, size[axis] - 1
        while len(lines) % multiple:
            if size[axis] > 1:
                if not 0 <= place + step < size[axis]:
                    step = -step
                place += step
            lines.append(np.take(image, place, axis=axis))
        image = np.stack(lines, axis=axis)
    return image, size


def pad_with_scipy_name(image, multiple=16):
    """Another library's name for the same reflection; the image itself where it fits."""
    height, width = image.shape
    if height % multiple == 0 and width % multiple == 0:
        return image, (height, width)
    grid = np.mgrid[: height + -height % multiple, : width + -width % multiple]
    return map_coordinates(image, grid, order=0, mode="mirror"), (height, width)


def padded(mode="reflect", before=False, always=False, **options):
    """np.pad in one way or another."""

    def pad_to_multiple(image, multiple=16):
        pads = [multiple - side % multiple if always else -side % multiple for side in image.shape]
        return np.pad(image, [(pad, 0) if before else (0, pad) for pad in pads], mode=mode), image.shape

    return pad_to_multiple


def changed_result(change):
    def pad_to_multiple(image, multiple=16):
        return change(*padded()(image, multiple))

    return pad_to_multiple


def with_torch(image, multiple=16):
    height, width = image.shape
    pads = (0, -width % multiple, 0, -height % multiple)
    x = torch.from_numpy(image.astype(np.float32))[None, None]
    return functional.pad(x, pads, mode="reflect")[0, 0].numpy().astype(image.dtype), (height, width)


def centred(image, multiple=16):
    pads = [-side % multiple for side in image.shape]
    return np.pad(image, [(pad // 2, pad - pad // 2) for pad in pads], mode="reflect"), image.shape


def once_only(image, multiple=16):
    """Long pads do not reflect again: the rest is filled with the edge."""
    (height, width), result = image.shape, image
    for axis, side in enumerate(image.shape):
        need = -side % multiple
        first = min(need, max(0, side - 1))
        widths = [(0, 0), (0, 0)]
        widths[axis] = (0, first)
        result = np.pad(result, widths, mode="reflect")
        widths[axis] = (0, need - first)
        result = np.pad(result, widths, mode="edge")
    return result, (height, width)


def in_place(image, multiple=16):
    result = padded()(image, multiple)
    image[0, 0] = 0
    return result


WRONG_PADS = {
    "crops": (lambda image, multiple=16: (image[: image.shape[0] // multiple * multiple,
                                                : image.shape[1] // multiple * multiple], image.shape), r"^Shape of"),
    "always 16": (lambda image, multiple=16: padded()(image, 16), r"^Shape of .*multiple=8"),
    "one multiple too many": (padded(always=True), r"^Shape of .*already fits"),
    "sides swapped": (changed_result(lambda new, size: (new, size[::-1])), r"^Size returned for .*expected \(20, 37\)"),
    "new size": (changed_result(lambda new, size: (new, new.shape)), r"^Size returned"),
    "no size": (changed_result(lambda new, size: new), r"^Type of the result .*ndarray, expected a tuple"),
    "three results": (changed_result(lambda new, size: (new, *size)), r"^Type of the result .*tuple of 3"),
    "a tensor": (changed_result(lambda new, size: (torch.zeros(new.shape), size)), r"^Type of the padded"),
    "float64": (changed_result(lambda new, size: (new.astype(np.float64), size)), r"^dtype of .*found float64"),
    "zeros": (padded("constant"), r"^Value of .*found 0, .*mode=.constant"),
    "edge": (padded("edge"), r"^Value of .*mode=.edge.*edge pixel is not repeated"),
    "symmetric": (padded("symmetric"), r"^Value of .*mode=.symmetric.*edge pixel is not repeated"),
    "wrap": (padded("wrap"), r"^Value of .*mode=.wrap"),
    "a byte": (lambda image, multiple=16: (padded()(image.astype("u1"), multiple)[0].astype(image.dtype), image.shape),
               r"^Value of the padded image .*no pixel changes"),
    "whole numbers": (lambda image, multiple=16: (padded()(image.astype(int), multiple)[0].astype(image.dtype),
                                                  image.shape), r"^Value of the padded image .*no pixel changes"),
    "printed": (lambda image, multiple=16: print(padded()(image, multiple)), r"^Type of .*found None.*code printed"),
    "top and left": (padded(before=True), r"^Position of the image .*bottom"),
    "centred": (centred, r"^Position of the image"),
    "torch cannot fold twice": (with_torch, r"^Error: .*[Pp]adding size.*Look at line"),
    "folds only once": (once_only, r"^Value of .*a long pad reflects again"),
    "image changed": (in_place, r"^Mutation"),
}  # fmt: skip


RIGHT = {
    "2.1": [TwoLayers, SequentialBlock, UnfoldedBlock, LazyBlock, block_factory],
    "2.2": [OtherOrder, ConcatenatesLazily, ShuffledUp, SizeOfTheSkip],
    "2.3": [CompactUNet, AverageUNet, LazyUNet, CalculatingUNet, keeping(), unet_of(),
            unet_of(block=UnfoldedBlock, up=ShuffledUp)],
    "2.4": [count_by_loop, count_by_numpy, count_recursively, lambda model: np.int64(count_by_loop(model))],
    "2.5": [pad_by_index, pad_step_by_step, pad_with_scipy_name],
}
WRONG = {"2.1": WRONG_BLOCKS, "2.2": WRONG_UP_BLOCKS, "2.3": WRONG_UNETS, "2.4": WRONG_COUNTS, "2.5": WRONG_PADS}


OTHER_KEYWORDS = "normalisation has its own keywords, which the task does not ask for"
EQUIVALENT = {
    "2.1": {OTHER_KEYWORDS: [f"ConvBlock.__init__, {part}" for part in ("if", "append() 2", "append() 3")]},
    "2.2": {
        OTHER_KEYWORDS: [f"UpBlock.__init__, self.conv: ConvBlock() without argument {n}" for n in (3, 4)],
        "either order is right": ["UpBlock.forward, assignment 2: items 1 and 2 swapped"],
    },
    "2.3": {
        OTHER_KEYWORDS: [
            f"UNet.__init__, {where} without argument {n}"
            for where in ("append(): ConvBlock()", "append() 2: UpBlock()", "self.bottleneck: ConvBlock()")
            for n in (3, 4)
        ],
        "a note for saving the network, not part of the task": ["UNet.__init__, self.sizes"],
        "one number more in the list than is used": ["UNet.__init__, assignment: 1 -> 2"],
        "the task leaves open how the resolution is halved": ["UNet.__init__, self.pool: MaxPool2d -> AvgPool2d"],
        "differs for depth 0 only, which is not a U-Net": [
            "UNet.__init__, self.bottleneck: if else -> if part", "UNet.__init__, self.bottleneck: condition -> True",
            "UNet.__init__, self.bottleneck: > -> >=", "UNet.__init__, self.bottleneck: 0 -> -1",
        ],
        "the same two sides of (N, C, H, W)": ["UNet.forward, for: - left out", "UNet.forward, for: 2 -> -2"],
        "the same sides have no remainder": ["UNet.forward, if: 2 -> -2"],
        "the message must name the side and the divisor, not the depth": ["UNet.forward, raise: value 1 -> ?"],
    },
}  # fmt: skip


PICTURES = {
    "2.1": {
        "UNetShapes": ["no padding", "both from in to out", "out and in swapped", "one convolution", "5x5"],
        "Panels": ["dilated", "reflecting", "sigmoid"],
    },
    "2.2": {
        "UNetShapes": ["arguments swapped", "half of in_channels", "not upsampled", "axis 0", "stride 1", "kernel 3",
                       "block of out_channels", "bilinear", "skip of zeros"],
        "Panels": ["ReLU after the transposed convolution"],
    },
    "2.3": {
        "UNetShapes": ["skips after pooling", "skips before the block", "skips in the order of the encoder",
                       "x and skip swapped", "no pooling", "no padding", "channels do not double",
                       "in_channels ignored", "one convolution in a block", "3x3 at the end", "nn.Upsample",
                       "skip of zeros"],
        "Panels": ["no ReLU"],
    },
    "2.5": {"Panels": ["crops", "zeros", "symmetric", "one multiple too many", "folds only once", "top and left"]},
}  # fmt: skip


class TestChecks(CheckTests):
    right, wrong, equivalent, pictures = RIGHT, WRONG, EQUIVALENT, PICTURES


def picture_of(exercise_id, mistake):
    return evaluate(exercise_id, WRONG[exercise_id][mistake][0]).picture


@pytest.mark.parametrize(("exercise_id", "mistake", "place", "found", "expected", "right"), [
    ("2.3", "skips after pooling", "decoder, level 1, joined", "(2, 4, 2, 3) with (2, 4, 4, 6)",
     "(2, 4, 4, 6) with (2, 4, 4, 6)", "level 1, block: (2, 4, 4, 6); bottleneck, level 2, block: (2, 8, 2, 3)"),
    ("2.3", "no pooling", "encoder, level 1, block", "convolution of (2, 2, 8, 12)",
     "half the sides, no weights, (2, 2, 4, 6)", "encoder, level 0, block: (2, 2, 8, 12)."),
    ("2.3", "x and skip swapped", "decoder, level 1, up", "takes (2, 4, 4, 6)", "takes (2, 8, 2, 3)", "bottleneck"),
    ("2.3", "in_channels ignored", "encoder, level 0, block", "in_channels=1", "in_channels=2", "nothing"),
    ("2.2", "axis 0", "decoder, level 0, joined", "(4, 4, 6, 10)", "(2, 8, 6, 10)", "up: (2, 4, 6, 10)"),
    ("2.2", "not upsampled", "decoder, level 0, up", "convolution of (2, 8, 3, 5)",
     "transposed convolution, (2, 4, 6, 10)", "nothing"),
])  # fmt: skip
def test_the_first_wrong_place_is_marked_in_the_drawing_of_the_network(
    exercise_id, mistake, place, found, expected, right
):
    picture = picture_of(exercise_id, mistake)
    assert f"{place}: found {found}, expected {expected}. Right: " in picture.alt
    assert right in picture.alt.split("Right: ")[1]
    wrong = [stage for stage in picture.stages if stage.found not in (stage.expected, BEHIND)]
    assert [(stage.found, stage.expected) for stage in wrong] == [(found, expected)]


def test_what_stops_the_network_is_marked_where_it_happened():
    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], 1) @ x)

    stages = evaluate("2.2", up_block(forward)).picture.stages
    assert [stage.found for stage in stages[2:]] == ["(2, 4, 6, 10)", "(2, 8, 6, 10)", "not reached, RuntimeError"]


@pytest.mark.parametrize("solution", [
    unet_of(lambda base, depth: [base] * (depth + 1), block=UnfoldedBlock),
    unet_of(lambda base, depth: [base] * (depth + 1), up=ShuffledUp),
], ids=["convolutions by hand", "steps up by hand"])  # fmt: skip
def test_a_network_whose_steps_cannot_be_followed_has_words_only(solution):
    result = evaluate("2.3", solution)
    assert result.messages[0].startswith("Number of") and result.picture is None


def test_padded_pixels_can_be_read():
    _, yours, expected, _ = picture_of("2.5", "symmetric").panels
    assert yours.array.shape == (8, 8) and expected.mark == (0, 5)
    assert yours.array[0].tolist() == [1, 2, 3, 4, 5, 5, 4, 3]
    assert expected.array[0].tolist() == [1, 2, 3, 4, 5, 4, 3, 2]
    _, yours, expected = picture_of("2.5", "crops").panels
    assert yours.array.shape == (4, 4) and expected.outline.nonzero()[0].max() == 3


@pytest.mark.parametrize(("exercise_id", "solution"), [("2.1", HalfWrittenBlock), ("2.3", HalfWrittenUNet)])
def test_a_half_written_class_is_still_to_do(exercise_id, solution):
    result = evaluate(exercise_id, solution)
    assert result.status == "todo" and f"Exercise {exercise_id}" in result.messages[0]
