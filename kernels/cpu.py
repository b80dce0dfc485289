"""The CPU backend: fused kernels compiled by Numba, no unfolded copy and no s*s intermediate.

Images of either memory format are read where they lie: `cpu_flat` and `cpu_planar` for contiguous ones,
`cpu_channels_last` for the others. Work is cut into groups of image rows, and for `cpu_flat` of channels too, which run
on a small thread pool of exactly as many threads as torch uses (`torch.get_num_threads()`, which is 1 in a DataLoader
worker). Each group writes results that no other group writes, and its boundaries do not depend on the number of
threads, so results are the same for any number of them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depthup.kernels import cpu_channels_last, cpu_flat, cpu_planar
from depthup.kernels.layout import image_format, readable
from depthup.kernels.simd import LANES

FILTER_BYTES = 192 * 1024
"""Spatial filters of a group of rows, which are read once for every two channels: well within a second-level cache."""

TILE_PIXELS = 2048
"""A tile of `cpu_flat` has so many to twice as many: two channels of it are in a first-level cache, or nearly."""

_SINGLE_THREAD_BELOW = 50_000  # multiplications: less work than waking a thread

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


def _run(kernel, groups: int, work: int, *arguments) -> None:
    """Call `kernel(first_group, last_group, *arguments)` over all groups on torch's number of threads."""
    global _pool, _pool_size
    threads = min(torch.get_num_threads(), groups)
    if threads <= 1 or work < _SINGLE_THREAD_BELOW:
        kernel(0, groups, *arguments)
        return
    pool = _pool
    if pool is None or _pool_size < threads - 1:
        pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="depthup")  # the replaced pool ends by itself
        _pool, _pool_size = pool, threads - 1
    cuts = [groups * i // threads for i in range(threads + 1)]
    others = []
    for first, last in pairwise(cuts[:-1]):
        try:
            others.append(pool.submit(kernel, first, last, *arguments))
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            kernel(first, last, *arguments)  # the interpreter ends, and this thread has not yet
    kernel(cuts[-2], cuts[-1], *arguments)
    for other in others:
        other.result()


def _rows_per_group(rows: int, spatial_filter: Tensor) -> int:
    """As many rows as keep their filters in the cache, but at least 8 groups in an image and at most 16 rows in one."""
    row_bytes = spatial_filter[0, :, :, 0].nbytes if len(spatial_filter) else 1
    return max(1, min(FILTER_BYTES // row_bytes, -(-rows // 8), 16))


def _tiles(rows: int, columns: int, spatial_filter: Tensor) -> int:
    """As few as keep their filters in the second-level cache, of at least a vector each."""
    pixel_bytes = spatial_filter[0, :, :, 0, 0].nbytes if len(spatial_filter) else 1
    pixels = min(FILTER_BYTES // pixel_bytes, TILE_PIXELS)
    return max(1, rows // max(pixels // columns, -(-LANES // columns)))


def _additive(combine: str) -> bool | None:
    """None and not False: kernels are compiled for one of the two, because their types differ."""
    return True if combine == "add" else None


def _wide(*tensors: Tensor) -> list[Tensor]:
    """16-bit floats are widened, because Numba cannot compute in them."""
    wide = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    return [t.detach().to(wide) for t in tensors]


def _runs_along_channels(C: int, Wo: int, memory_format: torch.memory_format) -> bool:
    """Whether `cpu_channels_last` is to run: images are so, or their rows so short that a copy of them is cheaper."""
    return C >= LANES and (memory_format == torch.channels_last or Wo < 2 * LANES)


def _by_pixel(image: Tensor) -> np.ndarray:
    """`[B, C, H, W]` as a contiguous array `[B, H, W, C]`."""
    return image.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def _from_pixels(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def _widened(rows: Tensor, columns: int) -> np.ndarray:
    """Contiguous, with zeros at the right where there are fewer columns than a vector needs."""
    missing = columns - rows.shape[-1]
    return (F.pad(rows, (0, missing)) if missing > 0 else rows).contiguous().numpy()


def _sum_of_groups(partial: np.ndarray, B: int) -> Tensor:
    """`[B * groups, ...]` summed over the groups of each image."""
    return torch.from_numpy(partial.reshape(B, len(partial) // max(B, 1), *partial.shape[1:]).sum(axis=1))


def forward(
    x: Tensor, channel_filter: Tensor, spatial_filter: Tensor, dilation: int, stride: int, scale: int, combine: str
) -> Tensor:
    """As `reference.forward`, on CPU tensors; 16-bit types are computed in float32 and rounded once."""
    B, C = x.shape[:2]
    k, (Ho, Wo) = channel_filter.shape[-1], spatial_filter.shape[-2:]
    dtype, memory_format = x.dtype, image_format(x)
    x, channel_filter, spatial_filter = _wide(x, channel_filter.flatten(3), spatial_filter)
    work = B * C * scale * Ho * scale * Wo * k * k
    # NumPy asks for huge pages for what is large, and torch.empty does not
    if memory_format == torch.contiguous_format and stride == scale == 1 and Ho * Wo >= LANES:
        parts = x.flatten(2), channel_filter[:, 0], spatial_filter[:, 0].flatten(2)
        flat = [part.contiguous().numpy() for part in parts]
        out, tiles = np.empty_like(flat[0]), _tiles(Ho, Wo, spatial_filter)
        groups = B * tiles * -(-C // 2)
        _run(cpu_flat.forward, groups, work, *flat, out, (k,) * k, Wo, dilation, tiles, _additive(combine))
        return torch.from_numpy(out).view(x.shape).to(dtype)
    rows = _rows_per_group(Ho, spatial_filter)
    groups = B * -(-Ho // rows)
    options = dilation, stride, scale, rows
    if _runs_along_channels(C, Wo, memory_format):
        channel = channel_filter.transpose(2, 3).contiguous().numpy()
        arrays = _by_pixel(x), channel, spatial_filter.numpy()
        out = np.empty((B, scale * Ho, scale * Wo, C), arrays[0].dtype)
        # this one kernel is slower when it is compiled for one way to combine: 8.2 ms instead of 6.6
        _run(cpu_channels_last.forward, groups, work, *arrays, out, (k,) * k, *options, combine == "add")
        return _from_pixels(out).to(dtype).contiguous(memory_format=memory_format)
    arrays = x.contiguous().numpy(), channel_filter.contiguous().numpy(), _widened(spatial_filter, LANES)
    columns, phase = cpu_planar.tap_columns(k, dilation, stride, max(Wo, LANES))
    out = np.empty((B, C, scale * Ho, scale * max(Wo, LANES)), arrays[0].dtype)
    _run(cpu_planar.forward, groups, work, *arrays, out, columns, phase, *options, _additive(combine))
    return torch.from_numpy(out)[..., : scale * Wo].to(dtype).contiguous(memory_format=memory_format)


def backward(
    grad_out: Tensor,
    x: Tensor,
    channel_filter: Tensor,
    spatial_filter: Tensor,
    dilation: int,
    stride: int,
    scale: int,
    combine: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward` by `x`, `channel_filter` and `spatial_filter`, in their shapes and types.

    That of `x` has the memory format of the result, that of the spatial filter the layout of `layout.readable`.
    """
    B, C, H, _ = x.shape
    k, Wo, filter_shape = channel_filter.shape[-1], spatial_filter.shape[-1], channel_filter.shape
    dtype, memory_format = x.dtype, image_format(x)
    grad_out, x, channel_filter, spatial_filter = _wide(grad_out, x, channel_filter.flatten(3), spatial_filter)
    spatial_filter = readable(spatial_filter)
    rows = _rows_per_group(H, spatial_filter)
    groups, work = B * -(-H // rows), 3 * grad_out.numel() * k * k
    options = dilation, stride, scale, rows, _additive(combine)
    if _runs_along_channels(C, Wo, memory_format):
        channel = channel_filter.transpose(2, 3).contiguous().numpy()
        arrays = _by_pixel(grad_out), _by_pixel(x), channel, spatial_filter.numpy()
        grad_x, partial = np.empty_like(arrays[1]), np.zeros((groups, *channel.shape[1:]))
        grad_spatial = np.zeros_like(arrays[3])
        _run(cpu_channels_last.backward, groups, work, *arrays, grad_x, partial, grad_spatial, (k,) * k, *options)
        by_x, by_channel = _from_pixels(grad_x), _sum_of_groups(partial, B).transpose(2, 3)
    else:
        channel = channel_filter.contiguous().numpy()
        arrays = _widened(grad_out, scale * LANES), x.contiguous().numpy(), channel, _widened(spatial_filter, LANES)
        grad_x, partial = np.empty_like(arrays[1]), np.zeros((groups, *channel.shape[1:]))
        grad_spatial = np.zeros_like(arrays[3])
        columns, phase = cpu_planar.tap_columns(k, dilation, stride, max(Wo, LANES))
        _run(cpu_planar.backward, groups, work, *arrays, grad_x, partial, grad_spatial, columns, phase, *options)
        by_x, by_channel = torch.from_numpy(grad_x), _sum_of_groups(partial, B)
    by_spatial = torch.from_numpy(grad_spatial)[..., :Wo].to(dtype)
    if by_spatial.stride() != spatial_filter.stride():
        by_spatial = torch.empty_like(spatial_filter, dtype=dtype).copy_(by_spatial)
    by_x = by_x.to(dtype).contiguous(memory_format=memory_format)
    return by_x, by_channel.reshape(filter_shape).to(dtype).contiguous(), by_spatial
