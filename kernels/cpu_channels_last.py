"""The CPU kernels for channels-last images: vectors run along the channels of a pixel.

Pixels all of whose taps lie inside the image take a path of their own, which is compiled with its loops over taps
unrolled; the backward takes them in pairs and fours, which share what they load of filters and sums. The last vector
of a pixel overlaps the one before it; where results are accumulated, the overlap is zero in the gradient that arrives.
"""

from __future__ import annotations

import numpy as np

from depthup.kernels.simd import (
    LANES,
    add,
    add_or_multiply,
    broadcast,
    compile_kernel,
    load,
    multiply,
    store,
    total,
    zeros_like,
)


@compile_kernel
def _inside(start, dilation, size, k):
    """First and last+1 of the `k` taps from `start` on that lie in `[0, size)`."""
    first = 0 if start >= 0 else (-start + dilation - 1) // dilation
    last = 0 if start >= size else (size - 1 - start) // dilation + 1
    return min(first, k), min(max(last, first), k)


@compile_kernel
def _forward_pixel(
    b, h, w, x, channel_filter, spatial_filter, out, taps, dilation, stride, scale, additive, ty0, ty1, tx0, tx1
):
    k = len(taps)
    C = x.shape[3]
    top, left = h * stride - dilation * (k // 2), w * stride - dilation * (k // 2)
    for n in range(scale * scale):
        row, column = scale * h + n // scale, scale * w + n % scale
        for first in range(0, C, 2 * LANES):
            c, d = min(first, C - LANES), min(first + LANES, C - LANES)
            sum_c, sum_d = zeros_like(x), zeros_like(x)
            for ty in range(ty0, ty1):
                y = top + ty * dilation
                for tx in range(tx0, tx1):
                    t, z = ty * k + tx, left + tx * dilation
                    s = broadcast(spatial_filter, (b, n, t, h, w))
                    f, g = load(channel_filter, (b, n, t, c)), load(channel_filter, (b, n, t, d))
                    f, g = add_or_multiply(s, f, additive), add_or_multiply(s, g, additive)
                    sum_c = add(sum_c, multiply(f, load(x, (b, y, z, c))))
                    sum_d = add(sum_d, multiply(g, load(x, (b, y, z, d))))
            store(out, (b, row, column, c), sum_c)
            store(out, (b, row, column, d), sum_d)


@compile_kernel
def forward(
    first_group, last_group, x, channel_filter, spatial_filter, out, taps, dilation, stride, scale, rows, additive
):
    """Groups of `rows` output rows of an image.

    Contiguous `x [B, H, W, C]` with C >= LANES, `channel_filter [B, N, k*k, C]`, `out [B, scale*Ho, scale*Wo, C]`, and
    `spatial_filter [B, N, k*k, Ho, Wo]` of any strides; `taps` is k times the number k: its length is known when it is
    compiled, for loops that are to be unrolled, and its items when it runs, for those that are not.
    """
    H, W = x.shape[1:3]
    Ho, Wo = spatial_filter.shape[3:]
    k = len(taps)
    pad = dilation * (k // 2)
    groups = (Ho + rows - 1) // rows
    for group in range(first_group, last_group):
        b, first = group // groups, group % groups * rows
        for h in range(first, min(first + rows, Ho)):
            ty0, ty1 = _inside(h * stride - pad, dilation, H, k)
            for w in range(Wo):
                tx0, tx1 = _inside(w * stride - pad, dilation, W, k)
                if ty1 - ty0 == k and tx1 - tx0 == k:
                    _forward_pixel(
                        b, h, w, x, channel_filter, spatial_filter, out, taps, dilation, stride, scale, additive,
                        0, k, 0, k,
                    )  # fmt: skip
                else:
                    _forward_pixel(
                        b, h, w, x, channel_filter, spatial_filter, out, taps, dilation, stride, scale, additive,
                        ty0, ty1, tx0, tx1,
                    )  # fmt: skip


@compile_kernel
def _grad_x_pixel(b, y, z, grad_out, channel_filter, spatial_filter, grad_x, k, dilation, stride, scale, additive):
    """Gather from every output that read pixel (y, z)."""
    C = grad_x.shape[3]
    Ho, Wo = spatial_filter.shape[3:]
    for first in range(0, C, 2 * LANES):
        c, d = min(first, C - LANES), min(first + LANES, C - LANES)
        sum_c, sum_d = zeros_like(grad_x), zeros_like(grad_x)
        for ty in range(k):
            down = y - (ty - k // 2) * dilation
            h = down if stride == 1 else down // stride
            if down < 0 or h * stride != down or h >= Ho:
                continue
            for tx in range(k):
                right = z - (tx - k // 2) * dilation
                w = right if stride == 1 else right // stride
                if right < 0 or w * stride != right or w >= Wo:
                    continue
                t = ty * k + tx
                for n in range(scale * scale):
                    row, column = scale * h + n // scale, scale * w + n % scale
                    s = broadcast(spatial_filter, (b, n, t, h, w))
                    f, g = load(channel_filter, (b, n, t, c)), load(channel_filter, (b, n, t, d))
                    f, g = add_or_multiply(s, f, additive), add_or_multiply(s, g, additive)
                    sum_c = add(sum_c, multiply(f, load(grad_out, (b, row, column, c))))
                    sum_d = add(sum_d, multiply(g, load(grad_out, (b, row, column, d))))
        store(grad_x, (b, y, z, c), sum_c)
        store(grad_x, (b, y, z, d), sum_d)


@compile_kernel
def _grad_x_pair(b, y, z, grad_out, channel_filter, spatial_filter, grad_x, taps, dilation, scale, additive):
    """As `_grad_x_pixel` at stride 1, for pixels (y, z) and (y, z + 1) all of whose outputs exist."""
    k = len(taps)
    C = grad_x.shape[3]
    for first in range(0, C, 2 * LANES):
        c, d = min(first, C - LANES), min(first + LANES, C - LANES)
        sum_c = sum_d = next_c = next_d = zeros_like(grad_x)
        for ty in range(k):
            h = y - (ty - k // 2) * dilation
            for tx in range(k):
                t, w = ty * k + tx, z - (tx - k // 2) * dilation
                for n in range(scale * scale):
                    row, column = scale * h + n // scale, scale * w + n % scale
                    f, g = load(channel_filter, (b, n, t, c)), load(channel_filter, (b, n, t, d))
                    s = broadcast(spatial_filter, (b, n, t, h, w))
                    sum_c = add(sum_c, multiply(add_or_multiply(s, f, additive), load(grad_out, (b, row, column, c))))
                    sum_d = add(sum_d, multiply(add_or_multiply(s, g, additive), load(grad_out, (b, row, column, d))))
                    s, column = broadcast(spatial_filter, (b, n, t, h, w + 1)), column + scale
                    next_c = add(next_c, multiply(add_or_multiply(s, f, additive), load(grad_out, (b, row, column, c))))
                    next_d = add(next_d, multiply(add_or_multiply(s, g, additive), load(grad_out, (b, row, column, d))))
        store(grad_x, (b, y, z, c), sum_c)
        store(grad_x, (b, y, z, d), sum_d)
        store(grad_x, (b, y, z + 1, c), next_c)
        store(grad_x, (b, y, z + 1, d), next_d)


@compile_kernel
def _arrive(arriving, place, grad_out, pixel):
    """Copy a pixel's gradient to `arriving[place]`, its last vector zero where it overlaps the one before."""
    C = grad_out.shape[3]
    whole, moved = C // LANES * LANES, (LANES - C % LANES) % LANES
    for c in range(0, whole, LANES):
        store(arriving, (place, c), load(grad_out, (*pixel, c)))
    for c in range(whole, C):
        arriving[place, c + moved] = grad_out[(*pixel, c)]


@compile_kernel
def _grad_filters_pixel(
    b, h, w, grad_out, x, channel_filter, spatial_filter, row_sums, grad_spatial, arriving, taps, dilation, stride,
    scale, additive, ty0, ty1, tx0, tx1,
):  # fmt: skip
    """Give `grad_spatial` its value at output pixel (h, w), and add to `row_sums [N, k*k, C]`."""
    k = len(taps)
    C = x.shape[3]
    top, left = h * stride - dilation * (k // 2), w * stride - dilation * (k // 2)
    for n in range(scale * scale):
        _arrive(arriving, 0, grad_out, (b, scale * h + n // scale, scale * w + n % scale))
        for ty in range(ty0, ty1):
            y = top + ty * dilation
            for tx in range(tx0, tx1):
                t, z = ty * k + tx, left + tx * dilation
                s, dot = broadcast(spatial_filter, (b, n, t, h, w)), zeros_like(x)
                for v in range(0, C, LANES):
                    c = min(v, C - LANES)
                    product = multiply(load(arriving, (0, v)), load(x, (b, y, z, c)))
                    sums = load(row_sums, (n, t, c))
                    if additive:
                        dot, sums = add(dot, product), add(sums, product)
                    else:
                        dot = add(dot, multiply(product, load(channel_filter, (b, n, t, c))))
                        sums = add(sums, multiply(product, s))
                    store(row_sums, (n, t, c), sums)
                grad_spatial[b, n, t, h, w] = total(dot)


@compile_kernel
def _grad_filters_four(
    b, h, w, grad_out, x, channel_filter, spatial_filter, row_sums, grad_spatial, arriving, taps, dilation, stride,
    scale, additive,
):  # fmt: skip
    """As `_grad_filters_pixel`, for pixels (h, w) to (h, w + 3) all of whose taps exist."""
    k = len(taps)
    C = x.shape[3]
    top, left = h * stride - dilation * (k // 2), w * stride - dilation * (k // 2)
    for n in range(scale * scale):
        for pixel in range(4):
            _arrive(arriving, pixel, grad_out, (b, scale * h + n // scale, scale * (w + pixel) + n % scale))
        for ty in range(k):
            y = top + ty * dilation
            for tx in range(k):
                t, z = ty * k + tx, left + tx * dilation
                s_0, s_1 = broadcast(spatial_filter, (b, n, t, h, w)), broadcast(spatial_filter, (b, n, t, h, w + 1))
                s_2 = broadcast(spatial_filter, (b, n, t, h, w + 2))
                s_3 = broadcast(spatial_filter, (b, n, t, h, w + 3))
                dot_0 = dot_1 = dot_2 = dot_3 = zeros_like(x)
                for v in range(0, C, LANES):
                    c = min(v, C - LANES)
                    a_0 = multiply(load(arriving, (0, v)), load(x, (b, y, z, c)))
                    a_1 = multiply(load(arriving, (1, v)), load(x, (b, y, z + stride, c)))
                    a_2 = multiply(load(arriving, (2, v)), load(x, (b, y, z + 2 * stride, c)))
                    a_3 = multiply(load(arriving, (3, v)), load(x, (b, y, z + 3 * stride, c)))
                    sums = load(row_sums, (n, t, c))
                    if additive:
                        dot_0, dot_1, dot_2, dot_3 = add(dot_0, a_0), add(dot_1, a_1), add(dot_2, a_2), add(dot_3, a_3)
                        sums = add(sums, add(add(a_0, a_1), add(a_2, a_3)))
                    else:
                        f = load(channel_filter, (b, n, t, c))
                        dot_0, dot_1 = add(dot_0, multiply(a_0, f)), add(dot_1, multiply(a_1, f))
                        dot_2, dot_3 = add(dot_2, multiply(a_2, f)), add(dot_3, multiply(a_3, f))
                        sums = add(add(sums, multiply(a_0, s_0)), multiply(a_1, s_1))
                        sums = add(add(sums, multiply(a_2, s_2)), multiply(a_3, s_3))
                    store(row_sums, (n, t, c), sums)
                grad_spatial[b, n, t, h, w], grad_spatial[b, n, t, h, w + 1] = total(dot_0), total(dot_1)
                grad_spatial[b, n, t, h, w + 2], grad_spatial[b, n, t, h, w + 3] = total(dot_2), total(dot_3)


@compile_kernel
def backward(
    first_group, last_group, grad_out, x, channel_filter, spatial_filter, grad_x, grad_channel, grad_spatial, taps,
    dilation, stride, scale, rows, additive,
):  # fmt: skip
    """Groups of `rows` rows of `x`; each owns the gradient of those rows and of the output rows centred on them.

    As `forward`, with `grad_x` and `grad_spatial` of the shapes of `x` and `spatial_filter`, the latter zero, and
    `grad_channel [groups, N, k*k, C]`, float64 zeros, which receives each group's part of the sum.
    """
    _, H, W, C = x.shape
    N, _, Ho, Wo = spatial_filter.shape[1:]
    k = len(taps)
    pad = dilation * (k // 2)
    row_sums = np.zeros((N, k * k, C), x.dtype)
    sums = row_sums.reshape(row_sums.size)
    arriving = np.zeros((4, (C + LANES - 1) // LANES * LANES), x.dtype)
    groups = (H + rows - 1) // rows
    for group in range(first_group, last_group):
        b, top = group // groups, group % groups * rows
        bottom = min(top + rows, H)
        group_sums = grad_channel[group].reshape(row_sums.size)
        for y in range(top, bottom):
            z = 0
            while z < W:
                if stride == 1 and pad <= y < H - pad and pad <= z and z + 1 < W - pad:
                    _grad_x_pair(
                        b, y, z, grad_out, channel_filter, spatial_filter, grad_x, taps, dilation, scale, additive
                    )
                    z += 2
                    continue
                _grad_x_pixel(
                    b,
                    y,
                    z,
                    grad_out,
                    channel_filter,
                    spatial_filter,
                    grad_x,
                    taps[0],
                    dilation,
                    stride,
                    scale,
                    additive,
                )
                z += 1
        for h in range((top + stride - 1) // stride, min((bottom + stride - 1) // stride, Ho)):
            ty0, ty1 = _inside(h * stride - pad, dilation, H, k)
            w = 0
            while w < Wo:
                if ty1 - ty0 == k and w * stride >= pad and (w + 3) * stride + pad < W and w + 3 < Wo:
                    _grad_filters_four(
                        b, h, w, grad_out, x, channel_filter, spatial_filter, row_sums, grad_spatial, arriving, taps,
                        dilation, stride, scale, additive,
                    )  # fmt: skip
                    w += 4
                    continue
                tx0, tx1 = _inside(w * stride - pad, dilation, W, k)
                _grad_filters_pixel(
                    b, h, w, grad_out, x, channel_filter, spatial_filter, row_sums, grad_spatial, arriving, taps,
                    dilation, stride, scale, additive, ty0, ty1, tx0, tx1,
                )  # fmt: skip
                w += 1
            for i in range(row_sums.size):
                group_sums[i] += sums[i]
                sums[i] = 0
