"""The fused CPU kernel: compiled by Numba, vectorised along image rows, no unfolded copy and no s*s intermediate.

Work is cut into groups of image rows, which run on a small thread pool of exactly as many threads as torch uses
(`torch.get_num_threads()`, which is 1 in a DataLoader worker). Each group writes results that no other group writes,
and its boundaries do not depend on the number of threads, so results are the same for any number of them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from torch import Tensor

ROWS_PER_GROUP = 8
_SINGLE_THREAD_BELOW = 50_000  # multiplications: less work than waking a thread

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


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
    others = [pool.submit(kernel, cuts[i], cuts[i + 1], *arguments) for i in range(1, threads)]
    kernel(cuts[0], cuts[1], *arguments)
    for other in others:
        other.result()


_compile = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@_compile
def _columns(offset, stride, W, Wo):
    """First and last+1 output column whose tap at `offset` lies inside a row of `W`."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = (W - 1 - offset) // stride + 1 if W - 1 - offset >= 0 else 0
    return first, max(first, min(last, Wo))


@_compile
def _forward_groups(start, stop, x, channel_filter, spatial_filter, out, dilation, stride, scale, add):
    _, C, H, W = x.shape
    Ho, Wo = spatial_filter.shape[3], spatial_filter.shape[4]
    k = channel_filter.shape[4]
    groups = (Ho + ROWS_PER_GROUP - 1) // ROWS_PER_GROUP
    total = np.empty(Wo, x.dtype)
    for group in range(start, stop):
        b = group // groups
        first_row = (group % groups) * ROWS_PER_GROUP
        for h in range(first_row, min(first_row + ROWS_PER_GROUP, Ho)):
            for c in range(C):
                for n in range(scale * scale):
                    total[:] = 0
                    for ty in range(k):
                        y = h * stride + (ty - k // 2) * dilation
                        if y < 0 or y >= H:
                            continue
                        for tx in range(k):
                            offset = (tx - k // 2) * dilation
                            w0, w1 = _columns(offset, stride, W, Wo)
                            if w0 >= w1:
                                continue
                            f = channel_filter[b, n, c, ty, tx]
                            s = spatial_filter[b, n, ty * k + tx, h, w0:w1]
                            t = total[w0:w1]
                            if stride == 1:
                                row = x[b, c, y, w0 + offset : w1 + offset]
                                if add:
                                    for w in range(s.size):
                                        t[w] += (s[w] + f) * row[w]
                                else:
                                    for w in range(s.size):
                                        t[w] += (s[w] * f) * row[w]
                            else:
                                row = x[b, c, y, w0 * stride + offset :]
                                for w in range(s.size):
                                    weight = s[w] + f if add else s[w] * f
                                    t[w] += weight * row[w * stride]
                    line = out[b, c, scale * h + n // scale]
                    phase = n % scale
                    for w in range(Wo):
                        line[w * scale + phase] = total[w]


@_compile
def _backward_groups(
    start, stop, grad_out, x, channel_filter, spatial_filter, grad_x, grad_channel, grad_spatial,
    dilation, stride, scale, add,
):  # fmt: skip
    """Rows of `grad_x` and `grad_spatial`; `grad_channel [groups, N, C, k*k]` holds each group's own partial sum."""
    _, C, H, W = x.shape
    Ho, Wo = spatial_filter.shape[3], spatial_filter.shape[4]
    k = channel_filter.shape[4]
    groups = (H + ROWS_PER_GROUP - 1) // ROWS_PER_GROUP
    g = np.empty(Wo, x.dtype)
    for group in range(start, stop):
        b = group // groups
        first_row = (group % groups) * ROWS_PER_GROUP
        last_row = min(first_row + ROWS_PER_GROUP, H)

        for y in range(first_row, last_row):
            for c in range(C):
                row = grad_x[b, c, y]
                row[:] = 0
                for ty in range(k):
                    numerator = y - (ty - k // 2) * dilation
                    if numerator < 0 or numerator % stride != 0 or numerator // stride >= Ho:
                        continue
                    h = numerator // stride
                    for n in range(scale * scale):
                        line = grad_out[b, c, scale * h + n // scale]
                        for w in range(Wo):
                            g[w] = line[w * scale + n % scale]
                        for tx in range(k):
                            offset = (tx - k // 2) * dilation
                            w0, w1 = _columns(offset, stride, W, Wo)
                            if w0 >= w1:
                                continue
                            f = channel_filter[b, n, c, ty, tx]
                            s = spatial_filter[b, n, ty * k + tx, h, w0:w1]
                            gw = g[w0:w1]
                            if stride == 1:
                                target = row[w0 + offset : w1 + offset]
                                if add:
                                    for w in range(s.size):
                                        target[w] += gw[w] * (s[w] + f)
                                else:
                                    for w in range(s.size):
                                        target[w] += gw[w] * (s[w] * f)
                            else:
                                for w in range(s.size):
                                    weight = s[w] + f if add else s[w] * f
                                    row[(w0 + w) * stride + offset] += gw[w] * weight

        # output rows are dealt out to groups by the input row at their centre, h * stride
        for h in range((first_row + stride - 1) // stride, min((last_row + stride - 1) // stride, Ho)):
            for n in range(scale * scale):
                grad_spatial[b, n, :, h] = 0
                for c in range(C):
                    line = grad_out[b, c, scale * h + n // scale]
                    for w in range(Wo):
                        g[w] = line[w * scale + n % scale]
                    for ty in range(k):
                        y = h * stride + (ty - k // 2) * dilation
                        if y < 0 or y >= H:
                            continue
                        for tx in range(k):
                            tap = ty * k + tx
                            offset = (tx - k // 2) * dilation
                            w0, w1 = _columns(offset, stride, W, Wo)
                            if w0 >= w1:
                                continue
                            f = channel_filter[b, n, c, ty, tx]
                            s = spatial_filter[b, n, tap, h, w0:w1]
                            gs = grad_spatial[b, n, tap, h, w0:w1]
                            gw = g[w0:w1]
                            source = x[b, c, y, w0 * stride + offset :]
                            dot = x.dtype.type(0)
                            if add:
                                for w in range(s.size):
                                    product = gw[w] * source[w * stride]
                                    gs[w] += product
                                    dot += product
                            elif stride == 1:
                                for w in range(s.size):
                                    product = gw[w] * source[w]
                                    gs[w] += product * f
                                    dot += product * s[w]
                            else:
                                for w in range(s.size):
                                    product = gw[w] * source[w * stride]
                                    gs[w] += product * f
                                    dot += product * s[w]
                            grad_channel[group, n, c, tap] += dot


def _prepare(*tensors: Tensor) -> list[np.ndarray]:
    """Contiguous NumPy views; 16-bit floats are widened, because Numba cannot compute in them."""
    wide = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    return [t.detach().to(wide).contiguous().numpy() for t in tensors]


def _groups(B: int, rows: int) -> int:
    return B * ((rows + ROWS_PER_GROUP - 1) // ROWS_PER_GROUP)


def forward(
    x: Tensor, channel_filter: Tensor, spatial_filter: Tensor, dilation: int, stride: int, scale: int, combine: str
) -> Tensor:
    """As `reference.forward`, on CPU tensors; 16-bit types are computed in float32 and rounded once."""
    arrays = _prepare(x, channel_filter, spatial_filter)
    B, C = x.shape[:2]
    Ho, Wo = spatial_filter.shape[-2:]
    out = np.empty((B, C, scale * Ho, scale * Wo), arrays[0].dtype)
    work = out.size * channel_filter.shape[-1] ** 2
    _run(_forward_groups, _groups(B, Ho), work, *arrays, out, dilation, stride, scale, combine == "add")
    return torch.from_numpy(out).to(x.dtype)


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
    """Gradients of `forward` by `x`, `channel_filter` and `spatial_filter`, in their shapes and types."""
    arrays = _prepare(grad_out, x, channel_filter, spatial_filter)
    B, C, H, _ = x.shape
    groups = _groups(B, H)
    grad_x = np.empty(x.shape, arrays[0].dtype)
    grad_spatial = np.empty(spatial_filter.shape, arrays[0].dtype)
    partial = np.zeros((groups, scale * scale, C, channel_filter.shape[-1] ** 2), np.float64)
    work = 3 * grad_out.numel() * channel_filter.shape[-1] ** 2
    results = grad_x, partial, grad_spatial
    _run(_backward_groups, groups, work, *arrays, *results, dilation, stride, scale, combine == "add")
    grad_channel = partial.reshape(B, groups // max(B, 1), *partial.shape[1:]).sum(axis=1)
    return (
        torch.from_numpy(grad_x).to(x.dtype),
        torch.from_numpy(grad_channel).reshape(channel_filter.shape).to(x.dtype),
        torch.from_numpy(grad_spatial).to(x.dtype),
    )
