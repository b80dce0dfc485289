"""The CPU kernels for contiguous images: vectors run along image rows.

The rows of `x` that a group of output rows reads are copied, two channels at a time, into a scratch buffer with zeros
around them, so that no tap asks for borders. A row of that buffer holds `stride` phases, one after the other: column p
of the padded image is element `p // stride` of phase `p % stride`, so that a tap is contiguous at any stride.

Filters and results are used where they lie. The last vector of a row overlaps the one before it; where results are
accumulated, the arriving gradient is zero in that overlap.
"""

from __future__ import annotations

import numpy as np

from depthup.kernels.simd import (
    LANES,
    add,
    add_or_multiply,
    broadcast,
    compile_kernel,
    keep,
    load,
    load_apart,
    multiply,
    store,
    store_interleaved,
    total,
    zeros_like,
)


def tap_columns(kernel_size: int, dilation: int, stride: int, out_width: int) -> tuple[tuple[int, ...], int]:
    """Where each column of taps starts in a scratch row, and the length of one phase of it.

    A tuple, because its length is part of its type: every kernel size is compiled with its loops over taps unrolled.
    """
    reach = (kernel_size - 1) * dilation
    phase = _vectors(out_width) * LANES + reach // stride + 1
    columns = (tap * dilation for tap in range(kernel_size))
    return tuple(column % stride * phase + column // stride for column in columns), phase


@compile_kernel
def _vectors(width):
    return (width + LANES - 1) // LANES


@compile_kernel
def _clear(scratch):
    numbers = scratch.reshape(scratch.size)
    for i in range(numbers.size):
        numbers[i] = 0


@compile_kernel
def _load_rows(x, b, c, top, rows, pad, stride, phase, scratch, slot):
    """Rows `top` to `top + rows` of a channel; rows and columns outside the image stay as they are, zero."""
    H, W = x.shape[2:]
    for q in range(max(0, -top), min(rows, H - top)):
        y = top + q
        if stride == 1 and W >= LANES:
            for v in range(_vectors(W)):
                w = min(v * LANES, W - LANES)
                store(scratch, (slot, q, pad + w), load(x, (b, c, y, w)))
        else:
            for w in range(W):
                scratch[slot, q, (w + pad) % stride * phase + (w + pad) // stride] = x[b, c, y, w]


@compile_kernel
def _store_branches(lines, slot, out, b, c, h, i, scale):
    """Output row `scale * h + i` from the branches of that row, `lines[slot, j]`."""
    Wo = out.shape[3] // scale
    row = scale * h + i
    for v in range(_vectors(Wo)):
        w = min(v * LANES, Wo - LANES)
        if scale == 1:
            store(out, (b, c, row, w), load(lines, (slot, 0, v * LANES)))
        elif scale == 2:
            left, right = load(lines, (slot, 0, v * LANES)), load(lines, (slot, 1, v * LANES))
            store_interleaved(out, (b, c, row, 2 * w), left, right)
        else:
            for j in range(scale):
                for lane in range(LANES):
                    out[b, c, row, (w + lane) * scale + j] = lines[slot, j, v * LANES + lane]


@compile_kernel
def forward(
    first_group, last_group, x, channel_filter, spatial_filter, out, columns, phase, dilation, stride, scale, rows,
    additive,
):  # fmt: skip
    """Groups of `rows` output rows of an image.

    Contiguous `x [B, C, H, W]`, `channel_filter [B, N, C, k*k]`, `spatial_filter [B, N, k*k, Ho, Wo]` with Wo >= LANES,
    `out [B, C, scale*Ho, scale*Wo]`; `columns` and `phase` are from `tap_columns`.
    """
    C = x.shape[1]
    N, _, Ho, Wo = spatial_filter.shape[1:]
    k = len(columns)
    pad = dilation * (k // 2)
    scratch = np.zeros((2, (rows - 1) * stride + (k - 1) * dilation + 1, stride * phase), x.dtype)
    lines = np.empty((2, scale, _vectors(Wo) * LANES), x.dtype)
    groups = (Ho + rows - 1) // rows
    for group in range(first_group, last_group):
        b, first = group // groups, group % groups * rows
        last = min(first + rows, Ho)
        top, needed = first * stride - pad, (last - first - 1) * stride + (k - 1) * dilation + 1
        _clear(scratch)
        for c in range(0, C, 2):
            d = min(c + 1, C - 1)
            _load_rows(x, b, c, top, needed, pad, stride, phase, scratch, 0)
            _load_rows(x, b, d, top, needed, pad, stride, phase, scratch, 1)
            for h in range(first, last):
                for n in range(N):
                    for v in range(_vectors(Wo)):
                        w = min(v * LANES, Wo - LANES)
                        sum_c, sum_d = zeros_like(x), zeros_like(x)
                        for ty in range(k):
                            q = (h - first) * stride + ty * dilation
                            for tx in range(k):
                                t = ty * k + tx
                                s = load(spatial_filter, (b, n, t, h, w))
                                f, g = broadcast(channel_filter, (b, n, c, t)), broadcast(channel_filter, (b, n, d, t))
                                f, g = add_or_multiply(s, f, additive), add_or_multiply(s, g, additive)
                                sum_c = add(sum_c, multiply(f, load(scratch, (0, q, columns[tx] + w))))
                                sum_d = add(sum_d, multiply(g, load(scratch, (1, q, columns[tx] + w))))
                        store(lines, (0, n % scale, v * LANES), sum_c)
                        store(lines, (1, n % scale, v * LANES), sum_d)
                    if n % scale == scale - 1:
                        _store_branches(lines, 0, out, b, c, h, n // scale, scale)
                        _store_branches(lines, 1, out, b, d, h, n // scale, scale)


@compile_kernel
def _load_gradient(grad_out, b, c, first, last, scale, steps, scratch, slot):
    """Rows of one channel's arriving gradient, apart by branch: `scratch[slot, branch, row]`.

    The last vector of a row ends where the row ends, and is zero where it overlaps the one before it; `steps` is LANES
    times 0 and LANES times 1.
    """
    Wo = grad_out.shape[3] // scale
    for h in range(first, last):
        q = h - first
        for i in range(scale):
            row, n = scale * h + i, scale * i
            for v in range(_vectors(Wo)):
                w = min(v * LANES, Wo - LANES)
                overlap = v * LANES - w
                new = load(steps, (LANES - overlap,))
                if scale == 1:
                    store(scratch, (slot, 0, q, v * LANES), keep(load(grad_out, (b, c, row, w)), new))
                elif scale == 2:
                    left, right = load_apart(grad_out, (b, c, row, 2 * w))
                    store(scratch, (slot, n, q, v * LANES), keep(left, new))
                    store(scratch, (slot, n + 1, q, v * LANES), keep(right, new))
                else:
                    for j in range(scale):
                        for lane in range(overlap, LANES):
                            scratch[slot, n + j, q, v * LANES + lane] = grad_out[b, c, row, (w + lane) * scale + j]


@compile_kernel
def _grad_x_rows(
    b, c, d, top, bottom, first, gradient, channel_filter, spatial_filter, target, columns, dilation, stride, additive
):
    """Add to `target [2, rows, length]`, rows of channels c and d, what all outputs that read them give back."""
    k = len(columns)
    N, _, Ho, Wo = spatial_filter.shape[1:]
    for n in range(N):
        for ty in range(k):
            for tx in range(k):
                t = ty * k + tx
                f, g = broadcast(channel_filter, (b, n, c, t)), broadcast(channel_filter, (b, n, d, t))
                for y in range(top, bottom):
                    distance = y - (ty - k // 2) * dilation
                    h = distance // stride
                    if distance < 0 or h * stride != distance or h >= Ho:
                        continue
                    for v in range(_vectors(Wo)):
                        w = min(v * LANES, Wo - LANES)
                        s, i = load(spatial_filter, (b, n, t, h, w)), columns[tx] + w
                        sum_c, sum_d = load(target, (0, y - top, i)), load(target, (1, y - top, i))
                        from_c = load(gradient, (0, n, h - first, v * LANES))
                        from_d = load(gradient, (1, n, h - first, v * LANES))
                        sum_c = add(sum_c, multiply(add_or_multiply(s, f, additive), from_c))
                        sum_d = add(sum_d, multiply(add_or_multiply(s, g, additive), from_d))
                        store(target, (0, y - top, i), sum_c)
                        store(target, (1, y - top, i), sum_d)


@compile_kernel
def _grad_filters(
    b, c, d, own_first, own_last, first, gradient, scratch, channel_filter, spatial_filter, grad_channel, grad_spatial,
    columns, dilation, stride, additive,
):  # fmt: skip
    """Add what output rows give to both filters' gradients; `grad_channel [N, C, k*k]` is this group's own."""
    k = len(columns)
    N, _, _, Wo = spatial_filter.shape[1:]
    for n in range(N):
        for ty in range(k):
            for tx in range(k):
                t = ty * k + tx
                f, g = broadcast(channel_filter, (b, n, c, t)), broadcast(channel_filter, (b, n, d, t))
                dot_c, dot_d = zeros_like(scratch), zeros_like(scratch)
                for h in range(own_first, own_last):
                    q = (h - own_first) * stride + ty * dilation
                    for v in range(_vectors(Wo)):
                        w = min(v * LANES, Wo - LANES)
                        i = columns[tx] + w
                        s, sum_s = load(spatial_filter, (b, n, t, h, w)), load(grad_spatial, (b, n, t, h, w))
                        from_c = multiply(load(gradient, (0, n, h - first, v * LANES)), load(scratch, (0, q, i)))
                        from_d = multiply(load(gradient, (1, n, h - first, v * LANES)), load(scratch, (1, q, i)))
                        if additive:
                            sum_s = add(sum_s, add(from_c, from_d))
                            dot_c, dot_d = add(dot_c, from_c), add(dot_d, from_d)
                        else:
                            sum_s = add(add(sum_s, multiply(from_c, f)), multiply(from_d, g))
                            dot_c, dot_d = add(dot_c, multiply(from_c, s)), add(dot_d, multiply(from_d, s))
                        store(grad_spatial, (b, n, t, h, w), sum_s)
                grad_channel[n, c, t] += total(dot_c)
                grad_channel[n, d, t] += total(dot_d)


@compile_kernel
def _store_rows(target, slot, grad_x, b, c, top, bottom, pad, stride, phase):
    """The inverse of `_load_rows`."""
    W = grad_x.shape[3]
    for y in range(top, bottom):
        if stride == 1 and W >= LANES:
            for v in range(_vectors(W)):
                w = min(v * LANES, W - LANES)
                store(grad_x, (b, c, y, w), load(target, (slot, y - top, pad + w)))
        else:
            for w in range(W):
                i = (w + pad) % stride * phase + (w + pad) // stride
                grad_x[b, c, y, w] = target[slot, y - top, i]


@compile_kernel
def backward(
    first_group, last_group, grad_out, x, channel_filter, spatial_filter, grad_x, grad_channel, grad_spatial, columns,
    phase, dilation, stride, scale, rows, additive,
):  # fmt: skip
    """Groups of `rows` rows of `x`; each owns the gradient of those rows and of the output rows centred on them.

    As `forward`, with `grad_x` and `grad_spatial` of the shapes of `x` and `spatial_filter`, the latter zero, and
    `grad_channel [groups, N, C, k*k]`, float64 zeros, which receives each group's part of the sum.
    """
    _, C, H, _ = x.shape
    N, _, Ho, Wo = spatial_filter.shape[1:]
    reach = (len(columns) - 1) * dilation
    pad = dilation * (len(columns) // 2)
    scratch = np.zeros((2, (rows - 1) // stride * stride + reach + 1, stride * phase), x.dtype)
    gradient = np.zeros((2, N, (rows - 1 + reach) // stride + 1, _vectors(Wo) * LANES), x.dtype)
    target = np.empty((2, rows, stride * phase), x.dtype)
    steps = np.zeros(2 * LANES, x.dtype)
    steps[LANES:] = 1
    groups = (H + rows - 1) // rows
    for group in range(first_group, last_group):
        b, top = group // groups, group % groups * rows
        bottom = min(top + rows, H)
        own_first, own_last = (top + stride - 1) // stride, min((bottom + stride - 1) // stride, Ho)
        first = max(0, (top + pad - reach + stride - 1) // stride)
        last = min(Ho, (bottom - 1 + pad) // stride + 1)
        needed = (own_last - own_first - 1) * stride + reach + 1
        _clear(scratch)
        for c in range(0, C, 2):
            channels = min(2, C - c)
            d = c + channels - 1
            for slot in range(channels):
                _load_gradient(grad_out, b, c + slot, first, last, scale, steps, gradient, slot)
                _load_rows(x, b, c + slot, own_first * stride - pad, needed, pad, stride, phase, scratch, slot)
            if channels == 1:
                _clear(gradient[1])  # the second channel is the first once more, and gives nothing
            _clear(target)
            _grad_x_rows(
                b, c, d, top, bottom, first, gradient, channel_filter, spatial_filter, target, columns, dilation,
                stride, additive,
            )  # fmt: skip
            for slot in range(channels):
                _store_rows(target, slot, grad_x, b, c + slot, top, bottom, pad, stride, phase)
            _grad_filters(
                b, c, d, own_first, own_last, first, gradient, scratch, channel_filter, spatial_filter,
                grad_channel[group], grad_spatial, columns, dilation, stride, additive,
            )  # fmt: skip
