"""What the networks of `depthup.models` and of `depthup.rivals` are both made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

RESIDUAL_SCALE = 0.05
"""Fraction of the depth range that the result of a last convolution, a correction of bicubic, is in."""


def conv(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size of the image, by zeros around it."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)


def convolutions(channels: list[int], kernel_sizes: list[int]) -> nn.Sequential:
    """Several of them, with a ReLU between each and the next."""
    layers: list[nn.Module] = []
    for inputs, outputs, k in zip(channels[:-1], channels[1:], kernel_sizes, strict=True):
        layers += [conv(inputs, outputs, k), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def bicubic(low: Tensor, rgb: Tensor) -> Tensor:
    """Depth at the size of RGB, as the baseline of that name."""
    return F.interpolate(low, rgb.shape[-2:], mode="bicubic", align_corners=False)
