"""The forward CPU kernel for contiguous images at stride and scale 1: vectors run on from one row into the next.

So no vector is partly empty, however short the rows are. A tile of rows of `x` is copied, two channels at a time, into
a scratch buffer with as many zeros before and after it as taps reach. A tap that leaves the image at a side finds a
pixel of another row there, which is replaced by zero.
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
    multiply,
    store,
    zeros_like,
)


@compile_kernel
def _columns_inside(rows, W, taps, dilation, scratch):
    """1 where a column of taps of a pixel lies inside the image and 0 where not: `[k, rows * W]`."""
    k = len(taps)
    inside = np.zeros((k, rows * W), scratch.dtype)
    for tx in range(k):
        offset = (tx - k // 2) * dilation
        for p in range(rows * W):
            if 0 <= p % W + offset < W:
                inside[tx, p] = 1
    return inside


@compile_kernel
def _load_pixels(x, b, c, start, stop, scratch, slot, at):
    """Pixels `start` to `stop` of a channel, as far as there are any; pixel 0 would be element `at`."""
    first, last = max(start, 0), min(stop, x.shape[2])
    for p in range(first, last, LANES):
        p = min(p, last - LANES)
        store(scratch, (slot, at + p), load(x, (b, c, p)))


@compile_kernel
def _add_tap(sum_c, sum_d, scratch, i, s, f, g, inside, aside, additive):
    """Both channels' sums with a tap `aside` or straight above or below, whose pixels are from element `i` on."""
    from_c, from_d = load(scratch, (0, i)), load(scratch, (1, i))
    if aside:
        from_c, from_d = keep(from_c, inside), keep(from_d, inside)
    sum_c = add(sum_c, multiply(add_or_multiply(s, f, additive), from_c))
    return sum_c, add(sum_d, multiply(add_or_multiply(s, g, additive), from_d))


@compile_kernel
def forward(
    first_group, last_group, x, channel_filter, spatial_filter, out, taps, W, dilation, tiles, additive,
):  # fmt: skip
    """Groups of two channels of one of the `tiles` of an image.

    Contiguous `x [B, C, H*W]` with tiles of LANES pixels or more, `channel_filter [B, C, k*k]`,
    `spatial_filter [B, k*k, H*W]`, `out` as `x`; the length of `taps` is k, known when this is compiled.
    """
    _, C, HW = x.shape
    k = len(taps)
    H = HW // W
    rows = (H + tiles - 1) // tiles
    reach = k // 2 * dilation * (W + 1)
    scratch = np.empty((2, rows * W + 2 * reach), x.dtype)
    inside = _columns_inside(rows, W, taps, dilation, scratch)
    pairs = (C + 1) // 2
    for group in range(first_group, last_group):
        b, tile, c = group // (tiles * pairs), group // pairs % tiles, group % pairs * 2
        d = min(c + 1, C - 1)
        first, last = H * tile // tiles * W, H * (tile + 1) // tiles * W
        if c == 0 or group == first_group:
            scratch[:] = 0
        for slot, channel in enumerate((c, d)):
            _load_pixels(x, b, channel, first - reach, last + reach, scratch, slot, reach - first)
        size = last - first
        for v in range(0, size, 2 * LANES):
            p, q = min(v, size - LANES), min(v + LANES, size - LANES)
            sum_cp, sum_cq, sum_dp, sum_dq = zeros_like(x), zeros_like(x), zeros_like(x), zeros_like(x)
            for ty in range(k):
                for tx in range(k):
                    t = ty * k + tx
                    i = reach + ((ty - k // 2) * W + tx - k // 2) * dilation
                    f, g = broadcast(channel_filter, (b, c, t)), broadcast(channel_filter, (b, d, t))
                    s, inside_p = load(spatial_filter, (b, t, first + p)), load(inside, (tx, p))
                    sum_cp, sum_dp = _add_tap(sum_cp, sum_dp, scratch, i + p, s, f, g, inside_p, tx != k // 2, additive)
                    s, inside_q = load(spatial_filter, (b, t, first + q)), load(inside, (tx, q))
                    sum_cq, sum_dq = _add_tap(sum_cq, sum_dq, scratch, i + q, s, f, g, inside_q, tx != k // 2, additive)
            store(out, (b, c, first + p), sum_cp)
            store(out, (b, c, first + q), sum_cq)
            store(out, (b, d, first + p), sum_dp)
            store(out, (b, d, first + q), sum_dq)
