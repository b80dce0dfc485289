"""The definition: the DDF operation in plain PyTorch, for any device and any floating-point type.

Every other backend is tested against these functions. They unfold `x`, so they need k*k times its memory.
Both take the *branch form* that all backends share: `channel_filter [B, N, C, k, k]` and
`spatial_filter [B, N, k*k, Ho, Wo]` with N = scale*scale branches (N = 1 is a plain DDF).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(
    x: Tensor,  # [B, C, H, W]
    channel_filter: Tensor,  # [B, N, C, k, k]
    spatial_filter: Tensor,  # [B, N, k*k, Ho, Wo]
    dilation: int,
    stride: int,
    scale: int,
    combine: str,
) -> Tensor:
    """DDF of every branch, interleaved by pixel shuffle: `[B, C, scale*Ho, scale*Wo]`; differentiable."""
    B, C = x.shape[:2]
    k = int(channel_filter.shape[-1])  # a tensor in torch.jit.trace
    Ho, Wo = spatial_filter.shape[-2:]
    padding = dilation * (k // 2)
    if B == 0:
        # unfold refuses an empty batch; the sum keeps the result attached to all three inputs
        return x.new_zeros(0, C, scale * Ho, scale * Wo) + x.sum() + channel_filter.sum() + spatial_filter.sum()
    patches = F.unfold(x, k, dilation=dilation, padding=padding, stride=stride).view(B, C, k * k, Ho, Wo)
    branches = []
    for n in range(scale * scale):
        channel = channel_filter[:, n].reshape(B, C, k * k, 1, 1)
        spatial = spatial_filter[:, n].unsqueeze(1)
        weights = channel * spatial if combine == "mul" else channel + spatial
        branches.append((weights * patches).sum(dim=2))
    return F.pixel_shuffle(torch.stack(branches, dim=2).flatten(1, 2), scale)
