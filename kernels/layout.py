"""Which memory layouts the operation reads and writes without a copy; the same for every backend."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether an image `[B, C, H, W]` is taken as channels-last: it is, and it is not contiguous as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def image_format(x: Tensor) -> torch.memory_format:
    """The memory format of the output and of the gradient of `x`; whatever is neither becomes contiguous."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def is_pixel_major(spatial_filter: Tensor) -> bool:
    """Whether all taps of a pixel of `[B, N, k*k, Ho, Wo]` lie together, as a channels-last convolution leaves them."""
    return spatial_filter.permute(0, 3, 4, 1, 2).is_contiguous()


def readable(spatial_filter: Tensor) -> Tensor:
    """The spatial filter itself if it is contiguous or pixel-major, else a contiguous copy."""
    return spatial_filter if is_pixel_major(spatial_filter) else spatial_filter.contiguous()
