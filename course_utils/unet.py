"""The U-Net (notebook 02), in the terms of Figure 1 of the paper.

Ronneberger, Fischer and Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015,
https://arxiv.org/abs/1505.04597. Unlike in the paper, convolutions are padded, so the output is as large as the input.
A size of 0, or an array that is not an image, is a `ValueError`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from course_utils.arguments import check_arguments


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with padding 1, each followed by ReLU: `(N, in, H, W)` to `(N, out, H, W)`.

    Args:
        in_channels, out_channels: number of feature maps before and after.
        batch_norm: batch normalisation between convolution and ReLU (not in the paper; it speeds up training).
        instance_norm: in its place instance normalisation: each map of each image is scaled by its own mean and
            deviation, in training as afterwards, so that a dim image looks like a bright one from the first layer on
            (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022). It speeds up training more; each pixel then
            depends, a little, on the whole image.

    >>> ConvBlock(1, 8)(torch.zeros(2, 1, 32, 48)).shape
    torch.Size([2, 8, 32, 48])
    """

    def __init__(self, in_channels, out_channels, batch_norm=False, instance_norm=False):
        super().__init__()
        layers = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(out_channels))
            if instance_norm:
                layers.append(nn.InstanceNorm2d(out_channels, affine=True))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class UpBlock(nn.Module):
    """A step of the decoder: 2x2 transposed convolution, concatenation with the skip connection, `ConvBlock`.

    Args:
        in_channels: feature maps from the level below.
        out_channels: feature maps of the skip connection, and of the result.
        batch_norm, instance_norm: as in `ConvBlock`.

    `forward(x, skip)` takes `(N, in, H, W)` and `(N, out, 2H, 2W)` and returns `(N, out, 2H, 2W)`.

    >>> UpBlock(16, 8)(torch.zeros(1, 16, 10, 12), torch.zeros(1, 8, 20, 24)).shape
    torch.Size([1, 8, 20, 24])
    """

    def __init__(self, in_channels, out_channels, batch_norm=False, instance_norm=False):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = ConvBlock(2 * out_channels, out_channels, batch_norm, instance_norm)

    def forward(self, x, skip):
        x = self.up(x)
        x = torch.cat([skip, x], dim=1)
        return self.conv(x)


class UNet(nn.Module):
    """The U-Net: encoder, bottleneck, decoder, for images with sides divisible by `2**depth`.

    Args:
        in_channels: channels of the image, 1 for grey values.
        out_channels: maps to predict: 1 for foreground; 3 for background, interior and boundary.
        base_channels: feature maps of the first level; each level below has twice as many.
        depth: how many times the resolution is halved.
        batch_norm, instance_norm: as in `ConvBlock`.

    `forward` takes float32 `(N, in, H, W)` and returns logits `(N, out, H, W)`: there is no activation at the end.

    Raises:
        ValueError: in `forward`, if a side is not divisible by `2**depth`.

    >>> UNet(1, 3, base_channels=8)(torch.zeros(1, 1, 64, 96)).shape
    torch.Size([1, 3, 64, 96])
    """

    def __init__(
        self, in_channels=1, out_channels=1, base_channels=64, depth=4, batch_norm=False, instance_norm=False
    ):
        super().__init__()
        check_arguments(in_channels=in_channels, out_channels=out_channels, base_channels=base_channels, depth=depth)
        self.depth = depth
        self.sizes = {  # what is needed to build the same network again
            "in_channels": in_channels,
            "out_channels": out_channels,
            "base_channels": base_channels,
            "depth": depth,
            "batch_norm": batch_norm,
            "instance_norm": instance_norm,
        }
        channels = [base_channels * 2**level for level in range(depth + 1)]

        self.encoder = nn.ModuleList()
        for level in range(depth):
            above = in_channels if level == 0 else channels[level - 1]
            self.encoder.append(ConvBlock(above, channels[level], batch_norm, instance_norm))
        self.pool = nn.MaxPool2d(2)
        above = channels[depth - 1] if depth > 0 else in_channels
        self.bottleneck = ConvBlock(above, channels[depth], batch_norm, instance_norm)
        self.decoder = nn.ModuleList()
        for level in reversed(range(depth)):
            self.decoder.append(UpBlock(channels[level + 1], channels[level], batch_norm, instance_norm))
        self.output = nn.Conv2d(base_channels, out_channels, kernel_size=1)

    def forward(self, x):
        for side in x.shape[-2:]:
            if side % 2**self.depth != 0:
                raise ValueError(
                    f"A U-Net of depth {self.depth} needs sides divisible by {2**self.depth}, "
                    f"but one side is {side}. Pad the image first."
                )
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for block in self.decoder:
            x = block(x, skips.pop())
        return self.output(x)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters (those with `requires_grad`); shared ones are counted once.

    >>> count_parameters(nn.Linear(10, 2))
    22
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def pad_to_multiple(image: np.ndarray, multiple: int = 16) -> tuple[np.ndarray, tuple[int, int]]:
    """Pad an image at the bottom and at the right until both sides are divisible by `multiple`.

    The padding reflects the image and does not repeat the edge pixel (`np.pad` with `mode="reflect"`); a black border
    would look like an edge to the network.

    Args:
        image: array `(H, W)` with H, W >= 1, of integers or floats; it is not changed.
        multiple: 16 for a U-Net of depth 4.

    Returns:
        `(padded, (H, W))`: the padded image and the original size. `padded[:H, :W]` is the original image.

    >>> padded, size = pad_to_multiple(np.ones((520, 696)))
    >>> padded.shape, size
    ((528, 704), (520, 696))
    """
    check_arguments(image=image, multiple=multiple, values=False)
    height, width = image.shape
    bottom, right = -height % multiple, -width % multiple  # 0 for a side that already fits
    return np.pad(image, ((0, bottom), (0, right)), mode="reflect"), (height, width)
