"""A network over an image in parts: bounded memory, and the result of the whole without a seam."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import psutil
import torch
from torch import Tensor

from depthup.models import DDFUpNet

BYTES_PER_PIXEL = {"base": 620, "paper": 750, "pac-net": 1200, "djf": 800}
"""Memory that a network of an architecture takes for every pixel of its result.

`base` was measured with `benchmarks/upsampling.py`, the others alike without what surrounds the network.
"""

WHOLE_LIMIT = 2.0e9
"""Images that take more bytes are done in tiles, even where there is more memory.

A phone's 256x192 samples at x8, 3.1 megapixels, are below it: they took 1.5 GB, and half the time of tiles.
"""

TILE_BYTES = 0.8e9
"""Memory of one tile; larger ones are not faster."""

MARGIN = 12
"""Low-resolution cells on every side that a tile sees beyond what is kept of it."""

log = logging.getLogger("depthup")


def run_network(net: DDFUpNet, low: Tensor, rgb: Tensor, valid: Tensor) -> Tensor:
    """The network over a whole image, in tiles where memory asks for them.

    Channel filters depend on means over the whole image, so the tiles are gone through once for every DDF-Up,
    and once more; then they give what the whole would (0.1 % of the depth range is not exceeded; see
    `tests/test_tiles.py`).

    Args:
        net: in evaluation mode.
        low: `[1, 1, h, w]`, normalised, no NaN, on the network's device.
        rgb: uint8 `[1, 3, s*h, s*w]`, on the same device.
        valid: `[1, 1, h, w]`, 1 where measured.

    Returns:
        float32 `[1, 1 or 2, s*h, s*w]`, as of `DDFUpNet.forward`.

    Raises:
        MemoryError: not even small tiles fit into memory.
    """
    bytes_per_pixel = BYTES_PER_PIXEL[net.config.architecture]
    needed = bytes_per_pixel * rgb.shape[2] * rgb.shape[3]
    free = 0.7 * _available(low.device)
    tile_bytes = needed if needed <= min(WHOLE_LIMIT, free) else min(TILE_BYTES, free)
    while True:
        cells = int((tile_bytes / bytes_per_pixel) ** 0.5 / net.config.scale)
        try:
            with torch.inference_mode():
                if tile_bytes >= needed:
                    return net(low, _unit(rgb), valid).float()
                return _tiled(net, low, rgb, valid, max(cells, 8))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if cells <= 8:
                raise MemoryError("not even the smallest tiles fit into memory; expected some 200 MB") from None
        tile_bytes = min(tile_bytes, needed) / 4
        log.warning("out of memory: trying again in tiles of %d MB", tile_bytes / 1e6)


def _available(device: torch.device) -> float:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _unit(rgb: Tensor) -> Tensor:
    """uint8 to float32 in 0..1."""
    return rgb.contiguous(memory_format=torch.channels_last).float() / 255


@dataclass(frozen=True)
class _Span:
    """Part of an axis, in low-resolution cells: what is kept of a tile, and what the tile sees."""

    first: int
    last: int
    seen_first: int
    seen_last: int

    def kept(self, factor: int) -> slice:
        """What is kept, within the tile."""
        return slice((self.first - self.seen_first) * factor, (self.last - self.seen_first) * factor)

    def seen(self, factor: int = 1) -> slice:
        return slice(self.seen_first * factor, self.seen_last * factor)

    def place(self, factor: int) -> slice:
        """What is kept, within the image."""
        return slice(self.first * factor, self.last * factor)


def _spans(size: int, tile: int, margin: int) -> list[_Span]:
    """Nearly equal parts of an axis of `size` cells; their tiles have at most `tile` cells, or 2 and their margins."""
    count = -(-size // max(tile - 2 * margin, 2))
    cuts = [size * n // count for n in range(count + 1)]
    return [_Span(a, b, max(a - margin, 0), min(b + margin, size)) for a, b in pairwise(cuts)]


def _tiled(net: DDFUpNet, low: Tensor, rgb: Tensor, valid: Tensor, cells: int) -> Tensor:
    s, octaves = net.config.scale, net.config.octaves
    margin = min(MARGIN, cells // 4)
    rows, columns = (_spans(n, cells, margin) for n in low.shape[2:])

    def parts(means: dict[int, Tensor], until: int | None) -> Iterator[tuple[_Span, _Span, Tensor]]:
        for y in rows:
            for x in columns:
                inside = (..., y.seen(), x.seen())
                image = _unit(rgb[..., y.seen(s), x.seen(s)])
                yield y, x, net.forward_part(low[inside], image, valid[inside], means, until)

    means: dict[int, Tensor] = {}
    for up in range(net.up_count):
        factor, total = 2 ** (up % octaves), torch.zeros((), dtype=torch.float64)
        for y, x, features in parts(means, up):
            total = total + features[..., y.kept(factor), x.kept(factor)].sum((2, 3), dtype=torch.float64)
        means[up] = (total / (low[0, 0].numel() * factor**2)).float()
    result = None
    for y, x, part in parts(means, None):
        if result is None:
            result = part.new_empty((1, part.shape[1], rgb.shape[2], rgb.shape[3]), dtype=torch.float32)
        result[..., y.place(s), x.place(s)] = part[..., y.kept(s), x.kept(s)]
    assert result is not None
    return result
