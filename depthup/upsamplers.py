"""What DDF-Up is measured against: other ways to up-sample features by 2, with its interface.

`benchmarks/ablation.py` trains networks that differ in nothing else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthup.kernels import ddf_up
from depthup.layers import DDFUp


class PixelShuffleUp(nn.Module):
    """Sub-pixel convolution (Shi et al., CVPR 2016): a 3x3 convolution to four times the channels, then the shuffle.

    Args:
        channels: C of input and output.
        guidance_channels: not used; the guidance joins afterwards, as it does for every up-sampler.
    """

    def __init__(self, channels: int, guidance_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, guidance: Tensor, mean: Tensor | None = None) -> Tensor:
        """`[B, C, H, W]` to `[B, C, 2H, 2W]`."""
        return F.pixel_shuffle(self.conv(x), 2)


class CarafeUp(nn.Module):
    """Content-aware reassembly (Wang et al., CARAFE, ICCV 2019): 5x5 kernels of every sub-pixel, normalised by softmax.

    The kernels come from a 1x1 convolution of the guidance, as DDF-Up's do, and are shared by all channels.

    Args:
        channels: C of input and output.
        guidance_channels: channels of the guidance.
    """

    kernel_size = 5

    def __init__(self, channels: int, guidance_channels: int):
        super().__init__()
        self.taps = nn.Conv2d(guidance_channels, 4 * self.kernel_size**2, 1)

    def forward(self, x: Tensor, guidance: Tensor, mean: Tensor | None = None) -> Tensor:
        """`x [B, C, H, W]` and `guidance [B, G, H, W]` to `[B, C, 2H, 2W]`."""
        taps = self.taps(guidance).unflatten(1, (4, self.kernel_size**2)).softmax(2)
        one = torch.ones(len(x), 4, x.shape[1], self.kernel_size, self.kernel_size, dtype=taps.dtype, device=x.device)
        return ddf_up(x.to(taps.dtype), one, taps, 2, self.kernel_size)


class BilinearUp(nn.Module):
    """Bilinear interpolation, which learns nothing.

    Args:
        channels, guidance_channels: not used.
    """

    def __init__(self, channels: int, guidance_channels: int):
        super().__init__()

    def forward(self, x: Tensor, guidance: Tensor, mean: Tensor | None = None) -> Tensor:
        """`[B, C, H, W]` to `[B, C, 2H, 2W]`."""
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


ALTERNATIVES = {"pixel_shuffle": PixelShuffleUp, "carafe": CarafeUp, "bilinear": BilinearUp}
"""Name in a configuration -> module."""


def make_upsampler(name: str, channels: int, guidance_channels: int, kernel_size: int) -> nn.Module:
    """The module that doubles the resolution of `channels` features, guided by `guidance_channels` of their size."""
    if name == "ddf_up":
        return DDFUp(channels, guidance_channels, kernel_size=kernel_size, guidance_grid="input")
    return ALTERNATIVES[name](channels, guidance_channels)
