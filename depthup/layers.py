"""DDF as PyTorch layers: `FilterNorm`, `DDF` and `DDFUp` (Zhou et al., CVPR 2021, arXiv 2104.14107)."""

from __future__ import annotations

import math
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthup.kernels import ddf, ddf_up
from depthup.kernels.operation import check_floats, check_options, check_tensor


class FilterNorm(nn.Module):
    """Filter normalisation (section 3.3): over its taps a filter gets mean beta and standard deviation alpha.

    Both are learned, one value for every entry of `shape`, which is the filter's shape with its taps in dimension
    `taps` (not counting the batch) and 1 wherever a value is shared, as over the pixels of a spatial filter. 1e-6 is
    added to the variance, so that a filter whose taps differ by less than a thousandth stays near beta.

    Args:
        shift: starting values of beta, of the shape that is learned, e.g. `[N, k*k, 1, 1]`.
        taps: the dimension of the k*k taps in `shift`.
        scale: starting value of alpha.

    Raises:
        ValueError: `taps` is no dimension of `shift`.
    """

    def __init__(self, shift: Tensor, taps: int, scale: float = 0.1):
        super().__init__()
        if not 0 <= taps < shift.dim():
            raise ValueError(f"taps: got {taps}, expected a dimension of the shift, 0 to {shift.dim() - 1}")
        self.taps = taps
        self.alpha = nn.Parameter(torch.full_like(shift, scale))
        self.beta = nn.Parameter(shift.clone())

    def forward(self, filters: Tensor) -> Tensor:
        """`[B, ...]` to the same shape in at least float32; a filter whose taps are all equal becomes beta."""
        if filters.dtype in (torch.float16, torch.bfloat16):
            filters = filters.float()
        dim = self.taps + 1
        centred = filters - filters.mean(dim, keepdim=True)
        inverse = (centred.square().mean(dim, keepdim=True) + 1e-6).rsqrt()  # of few numbers: a division of all is slow
        return torch.addcmul(self.beta, centred * inverse, self.alpha)


def bilinear_taps(scale: int, kernel_size: int) -> Tensor:
    """The bilinear kernel of every sub-pixel of an up-sampling by `scale`: `[scale*scale, k*k]`, rows sum to 1.

    Sub-pixel (i, j) is row `i*scale + j`; its centre lies `(i + 0.5) / scale - 0.5` input pixels below the input's.
    """
    offset = (torch.arange(scale) + 0.5) / scale - 0.5
    taps = torch.arange(kernel_size) - kernel_size // 2
    line = (1 - (taps[None] - offset[:, None]).abs()).clamp(min=0)
    line = line / line.sum(1, keepdim=True)  # k = 1 sees one tap only
    return torch.einsum("ia,jb->ijab", line, line).reshape(scale * scale, kernel_size**2)


def _check_tensor(name: str, given: Tensor) -> None:
    check_tensor(name, given)
    check_floats(name, given)


def _check_features(x: Tensor, channels: int) -> None:
    _check_tensor("x", x)
    if x.dim() != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"x: got shape {list(x.shape)}, expected [B, {channels}, H, W] with at least one pixel")


class ChannelFilter(nn.Module):
    """The channel branch (section 3.2): GAP, FC, ReLU, FC, filter normalisation; N filters of every channel.

    Args:
        channels: C of the features.
        branches: N, filters for each channel.
        kernel_size: k.
        squeeze_ratio: sigma, width of the hidden layer, at least 4, over C (0.2 in the paper).
    """

    def __init__(self, channels: int, branches: int, kernel_size: int, squeeze_ratio: float):
        super().__init__()
        given: object = squeeze_ratio
        if not isinstance(given, Real) or not 0 < squeeze_ratio < math.inf:
            raise ValueError(f"squeeze_ratio: got {squeeze_ratio}, expected a finite number above 0")
        self.shape = (branches, channels, kernel_size, kernel_size)
        hidden = max(4, round(squeeze_ratio * channels))
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, branches * channels * kernel_size**2)
        self.norm = FilterNorm(torch.ones(branches, channels, kernel_size**2), taps=2)

    def forward(self, x: Tensor, mean: Tensor | None = None) -> Tensor:
        """`x [B, C, H, W]` to `[B, N, C, k, k]`; `mean [B, C]` instead of that of `x` where `x` is part of an image."""
        hidden = F.relu(self.squeeze(x.mean((2, 3)) if mean is None else mean))
        filters = self.excite(hidden).unflatten(1, (*self.shape[:2], -1))
        return self.norm(filters).unflatten(3, self.shape[2:])


class DDF(nn.Module):
    """Decoupled dynamic filter as a layer: a drop-in for a k x k convolution that keeps its number of channels.

    The spatial filters come from a 1x1 convolution, the channel filters from GAP, FC, ReLU, FC (section 3.2, figure 3).

    Args:
        channels: C of input and output.
        kernel_size: k, odd; with 1 there is nothing to normalise, and spatial filters are the same everywhere.
        stride, dilation: as of a convolution; zero padding keeps the size at stride 1.
        squeeze_ratio: sigma.
        combine: `"mul"` or `"add"`.
        device, dtype: of the parameters, as of torch's own layers.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        squeeze_ratio: float = 0.2,
        combine: str = "mul",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_options(kernel_size, combine, channels=channels, stride=stride, dilation=dilation)
        self.kernel_size, self.stride, self.dilation, self.combine = kernel_size, stride, dilation, combine
        taps = kernel_size**2
        self.spatial = nn.Conv2d(channels, taps, 1)
        self.spatial_norm = FilterNorm(torch.full((taps, 1, 1), 1 / taps), taps=0)
        self.channel = ChannelFilter(channels, 1, kernel_size, squeeze_ratio)
        if combine == "add":
            nn.init.zeros_(self.channel.norm.beta)  # the sum of the two shifts is to start as a mean
        if device is not None or dtype is not None:  # under FakeTensorMode `to` fails
            self.to(device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.channel.shape[1]}, kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}, "
            f"combine={self.combine!r}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, Ho, Wo]` of the same type, with `Ho = (H - 1) // stride + 1`, `Wo` alike.

        Raises:
            ValueError: not four dimensions, no pixel, or another number of channels.
            TypeError: no tensor of floats.
        """
        _check_features(x, self.channel.shape[1])
        # a 1x1 convolution of that stride, which Inductor fails to differentiate at several sizes
        seen = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        spatial = self.spatial_norm(self.spatial(seen))
        channel = self.channel(x).squeeze(1)
        wide = x.to(spatial.dtype)
        result = ddf(wide, channel, spatial, self.kernel_size, self.dilation, self.stride, self.combine)
        return result.to(x.dtype)


class DDFUp(nn.Module):
    """DDF-Up as a layer (section 3.4): up-sampling by `scale` with spatial filters from guidance features.

    The channel filters come from `x` itself. An untrained layer is bilinear up-sampling and what random filters of a
    standard deviation of 0.1 add: the spatial shift starts as the bilinear kernel of its sub-pixel, the channel shift
    as 1. Beyond the image are zeros, which pixels along the rim see.

    Args:
        channels: C of input and output.
        guidance_channels: channels of the guidance, any number.
        scale: up-sampling factor s.
        kernel_size: k, odd, at least 3 where `scale` > 1 is to start as bilinear; with 1 as in `DDF`.
        guidance_grid: `"input"`, if the guidance has the size of the input, or `"output"`, if it has that of the
            output (then it is pixel-unshuffled first).
        squeeze_ratio: sigma.
        combine: `"mul"` or `"add"`.
        device, dtype: of the parameters, as of torch's own layers.
    """

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        scale: int = 2,
        kernel_size: int = 3,
        guidance_grid: str = "output",
        squeeze_ratio: float = 0.2,
        combine: str = "mul",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if guidance_grid not in ("input", "output"):
            raise ValueError(f"guidance_grid: got {guidance_grid!r}, expected 'input' or 'output'")
        check_options(kernel_size, combine, channels=channels, guidance_channels=guidance_channels, scale=scale)
        self.scale, self.kernel_size, self.combine = scale, kernel_size, combine
        self.guidance_channels = guidance_channels
        self.unshuffle = scale if guidance_grid == "output" else 1
        branches, taps = scale**2, kernel_size**2
        self.spatial = nn.Conv2d(guidance_channels * self.unshuffle**2, branches * taps, 1)
        self.spatial_norm = FilterNorm(bilinear_taps(scale, kernel_size)[..., None, None], taps=1)
        self.channel = ChannelFilter(channels, branches, kernel_size, squeeze_ratio)
        if combine == "add":
            nn.init.zeros_(self.channel.norm.beta)  # the sum of the two shifts is to start as bilinear
        if device is not None or dtype is not None:  # under FakeTensorMode `to` fails
            self.to(device=device, dtype=dtype)

    def extra_repr(self) -> str:
        grid = "input" if self.unshuffle < self.scale else "output"
        return (
            f"{self.channel.shape[1]}, {self.guidance_channels}, scale={self.scale}, kernel_size={self.kernel_size}, "
            f"guidance_grid={grid!r}, combine={self.combine!r}"
        )

    def forward(self, x: Tensor, guidance: Tensor, mean: Tensor | None = None) -> Tensor:
        """`x [B, C, H, W]` and guidance `[B, G, ...]` on either grid to `[B, C, scale*H, scale*W]` of the type of `x`.

        `mean [B, C]` replaces the mean of `x` that the channel filters come from, for an image that is done in parts.

        Raises:
            ValueError: `x` does not have these channels, no pixel, or the guidance not the shape that `guidance_grid`
                promises, or `mean` another shape.
            TypeError: no tensor of floats.
        """
        channels = self.channel.shape[1]
        _check_features(x, channels)
        _check_tensor("guidance", guidance)
        expected = [x.shape[0], self.guidance_channels, *(n * self.unshuffle for n in x.shape[-2:])]
        if list(guidance.shape) != expected:
            raise ValueError(f"guidance: got shape {list(guidance.shape)}, expected {expected} for x {list(x.shape)}")
        if mean is not None:
            _check_tensor("mean", mean)
            if list(mean.shape) != [x.shape[0], channels]:
                raise ValueError(f"mean: got shape {list(mean.shape)}, expected {[x.shape[0], channels]}")
        if self.unshuffle == 1:
            spatial = self.spatial(guidance)
        else:  # pixel-unshuffle and 1x1 convolution in one; apart, torch.compile (2.13) fails for sizes that vary
            weight = self.spatial.weight.reshape(-1, self.guidance_channels, self.unshuffle, self.unshuffle)
            spatial = F.conv2d(guidance, weight, self.spatial.bias, stride=self.unshuffle)
        spatial = self.spatial_norm(spatial.unflatten(1, (self.scale**2, self.kernel_size**2)))
        channel = self.channel(x, mean)
        wide = x.to(spatial.dtype)
        return ddf_up(wide, channel, spatial, self.scale, self.kernel_size, combine=self.combine).to(x.dtype)
