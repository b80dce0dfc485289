"""A network over an image in parts: bounded memory, and the result of the whole without a seam."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, cast

import psutil
import torch
from torch import Tensor

from depthup.memory import kept_memory
from depthup.models import BaseNet, DDFUpNet, DDFUpNetConfig, Known

BYTES_PER_PIXEL = {"base": 890, "paper": 1130, "pac-net": 1800, "djf": 1200}
"""Memory that a network of an architecture takes for every pixel of its result, where freed memory is kept.

`base` was measured with `sensor-x1` at 1280x960 (`x4`, which makes two passes, took 850 at 1920x1440, and 1090 when it
had been run nine times); the others without keeping, and half as much added.
"""

WHOLE_LIMIT = 3.0e9
"""Images that take more bytes are done in tiles, even where there is more memory.

A phone's 256x192 samples at x8, 3.1 megapixels, are below it: they took 1.4 GB, and half the time of tiles.
"""

TILE_BYTES = 0.4e9
"""Memory of one tile; larger ones are hardly faster."""

KEPT_BYTES = 2.0
"""Memory of what is kept of the whole image, at most; in that of a tile."""

MARGIN = 12
"""Cells of the coarsest level that a tile sees at least beyond what is kept of it, if it starts from the samples."""

FINE_MARGIN = 64
"""The same in pixels."""

MARGIN_FROM = {4: 64, 3: 64, 2: 32, 1: 16}
"""The same from known features of a level."""

MARGIN_OF_ONE_LEVEL = {4: 64, 3: 32, 2: 32, 1: 32}
"""The same to the next finer level only."""

REACH_OF_BICUBIC = 2
"""What the margin is at least, in cells of the coarsest level."""

REACH_OF_BACK_PROJECTION = 8
"""The same where a result comes of two steps of it."""

COARSE_BYTES = 2500
"""Memory that coarse levels of a whole image take for every pixel of the finest of them, if they are done at once."""

# on Linux, on Windows, cuDNN and cuBLAS, oneDNN
_OUT_OF_MEMORY = ("allocate memory", "not enough memory", "ALLOC_FAILED", "could not create a primitive")

_End = Literal["finer", "features", "result"]
"""What a run over all tiles collects: features of the next finer level, means of any features, or depth."""

log = logging.getLogger("depthup")


def run_network(net: DDFUpNet, low: Tensor, rgb: Tensor, valid: Tensor) -> Tensor:
    """The network over a whole image, in tiles where memory asks for them.

    Channel filters depend on means over the whole image, so the tiles are gone through once for every DDF-Up, and once
    more for every pass; then they give what the whole would (less than 1 mm off in float32; see `tests/test_tiles.py`).
    Features of coarse levels are kept of the whole image as far as memory goes, and finer ones start from them; the
    coarsest ones are made of the whole at once.

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
    # Of three margins, so that its part is one: with smaller margins, tiles would give other depth than the whole.
    smallest = bytes_per_pixel * (3 * _margin(net.config, net.config.octaves + 1, "result") * net.config.stride) ** 2
    whole = needed <= min(WHOLE_LIMIT, free)
    tile_bytes = needed if whole else max(min(TILE_BYTES, free / (1 + KEPT_BYTES)), smallest)
    kept = KEPT_BYTES
    while True:
        try:
            with torch.inference_mode():
                if whole:
                    return net(low, _unit(rgb), valid).float()
                return _tiled(net, low, rgb, valid, tile_bytes, kept * tile_bytes)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if tile_bytes <= smallest:
                if not kept:
                    least = smallest / 1e6
                    raise MemoryError(f"not even the smallest tiles fit into memory; expected {least:.0f} MB") from None
                kept = 0.0
        whole, tile_bytes = False, max(min(tile_bytes / 4, TILE_BYTES), smallest)
        keeping = "" if kept else ", keeping nothing else"
        log.warning("out of memory: trying again in tiles of %d MB%s", tile_bytes / 1e6, keeping)


def _available(device: torch.device) -> float:
    """Bytes that are free on a device, or freed and kept by this process."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return psutil.virtual_memory().available + kept_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of Python's, CUDA's or torch's about memory; not all of torch have a type."""
    typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return typed or (isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY))


def _unit(rgb: Tensor) -> Tensor:
    """uint8 to float32 in 0..1."""
    return rgb.contiguous(memory_format=torch.channels_last).float() / 255


@dataclass(frozen=True)
class _Span:
    """Part of an axis, in cells of the coarsest level: what is kept of a tile, and what the tile sees."""

    first: int
    last: int
    seen_first: int
    seen_last: int

    def kept(self, factor: int) -> slice:
        """What is kept, within the tile."""
        return slice((self.first - self.seen_first) * factor, (self.last - self.seen_first) * factor)

    def seen(self, factor: int) -> slice:
        return slice(self.seen_first * factor, self.seen_last * factor)

    def place(self, factor: int) -> slice:
        """What is kept, within the image."""
        return slice(self.first * factor, self.last * factor)


def _spans(size: int, tile: int, margin: int) -> list[_Span]:
    """Parts of an axis of `size` cells; all see the same number, at most `tile`, which is more than both margins.

    Blocks of memory that one tile frees fit the next one then; of many sizes they took a fifth more.
    """
    inner = max(size - 2 * margin, 1)
    step = -(-inner // -(-inner // (tile - 2 * margin)))
    seen = min(step + 2 * margin, size)
    cuts = [0, *range(margin + step, size - margin, step), size]
    firsts = [max(min(a - margin, size - seen), 0) for a in cuts[:-1]]
    return [_Span(a, b, first, first + seen) for (a, b), first in zip(pairwise(cuts), firsts, strict=True)]


class _Tiles:
    """Parts of an image, one after the other.

    Args:
        low, rgb, valid: as of `run_network`.
        config: of the network.
        cells, margin: of a tile and of what it sees beyond its part, in cells of the coarsest level.
    """

    def __init__(self, low: Tensor, rgb: Tensor, valid: Tensor, config: DDFUpNetConfig, cells: int, margin: int):
        self.low, self.rgb, self.valid, self.config = low, rgb, valid, config
        self.size = [n // config.unshuffle for n in low.shape[2:]]
        self.rows, self.columns = (_spans(n, cells, margin) for n in self.size)

    def paste(self, made: Callable[[_Tile], Tensor]) -> Tensor:
        """The whole of what is made of every tile, float32 `[1, C, f*h, f*w]` of h, w cells for an f found out."""
        whole = None
        for y, x, factor, part in self._parts(made):
            if whole is None:
                size = [factor * n for n in self.size]
                # as tiles are laid out; a result as all else is
                layout = torch.channels_last if part.shape[1] > 2 else torch.contiguous_format
                shape = (1, part.shape[1], *size)
                whole = torch.empty(shape, dtype=torch.float32, device=part.device, memory_format=layout)
            whole[..., y.place(factor), x.place(factor)] = part[..., y.kept(factor), x.kept(factor)]
        assert whole is not None
        return whole

    def mean(self, made: Callable[[_Tile], Tensor]) -> Tensor:
        """`[1, C]`, the mean over the image of what is made of every tile."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        for y, x, factor, part in self._parts(made):
            kept = part[..., y.kept(factor), x.kept(factor)]
            total = total + kept.sum((2, 3), dtype=torch.float64)
            count += kept[0, 0].numel()
        return (total / count).float()

    def _parts(self, made: Callable[[_Tile], Tensor]) -> Iterator[tuple[_Span, _Span, int, Tensor]]:
        for y in self.rows:
            for x in self.columns:
                image = _unit(self.rgb[..., y.seen(self.config.stride), x.seen(self.config.stride)])
                inside = (..., y.seen(self.config.unshuffle), x.seen(self.config.unshuffle))
                part = made(_Tile(self.low[inside], image, self.valid[inside], y, x))
                yield y, x, part.shape[2] // (y.seen_last - y.seen_first), part


@dataclass(frozen=True)
class _Tile:
    """What a network gets of a part of an image."""

    low: Tensor
    rgb: Tensor
    valid: Tensor
    y: _Span
    x: _Span

    def of(self, known: Known, octaves: int) -> Known:
        """This part of what is known of the whole."""

        def part(whole: Tensor, level: int) -> Tensor:
            return whole[..., self.y.seen(2 ** (octaves - level)), self.x.seen(2 ** (octaves - level))]

        def parts(by_level: dict[int, Tensor]) -> dict[int, Tensor]:
            return {level: part(whole, level) for level, whole in by_level.items()}

        corrections = [part(whole, 0) for whole in known.corrections]
        return Known([parts(features) for features in known.features], corrections, parts(known.guidance))


def _tiled(net: DDFUpNet, low: Tensor, rgb: Tensor, valid: Tensor, tile_bytes: float, kept_bytes: float) -> Tensor:
    cells = int((tile_bytes / BYTES_PER_PIXEL[net.config.architecture]) ** 0.5 / net.config.stride)
    if isinstance(net.net, BaseNet):
        return _by_levels(net, low, rgb, valid, cells, kept_bytes)
    tiles = _Tiles(low, rgb, valid, net.config, cells, _margin(net.config, net.config.octaves + 1, "result"))
    means: dict[int, Tensor] = {}

    def run(tile: _Tile, until: int | None = None) -> Tensor:
        return net.forward_part(tile.low, tile.rgb, tile.valid, means, until)

    for number in range(net.up_count):
        means[number] = tiles.mean(partial(run, until=number))
    return tiles.paste(run)


def _by_levels(net: DDFUpNet, low: Tensor, rgb: Tensor, valid: Tensor, cells: int, kept_bytes: float) -> Tensor:
    """Level after level; tiles start from the finest features that are kept of the whole image."""
    base, config, octaves = cast(BaseNet, net.net), net.config, net.config.octaves
    kept, at_once = _levels(base, rgb.shape[2] * rgb.shape[3], kept_bytes)
    known, means = Known([], [], {}), dict[int, Tensor]()

    def tiles(end: _End) -> _Tiles:
        finest = [min(features, default=octaves + 1) for features in known.features]
        return _Tiles(low, rgb, valid, config, cells, _margin(config, max(finest, default=octaves), end))

    def run(tile: _Tile, until: int | None = None) -> Tensor:
        return net.forward_part(tile.low, tile.rgb, tile.valid, means, until, tile.of(known, octaves))

    def reduced(tile: _Tile, level: int, until: int) -> Tensor:
        return base.reduce[str(level)](run(tile, until))

    def guide(tile: _Tile, level: int) -> Tensor:
        return base.guide_between(level, level + 1, tile.rgb, tile.of(known, octaves).guidance)[0][level]

    def fed_back(finest: int) -> dict[int, Tensor]:
        return base.feed_back(known.features[-1], known.corrections[-1], range(finest, octaves + 1))

    for level in sorted({kept, at_once}) if at_once else ():
        known.guidance[level] = tiles("finer").paste(partial(guide, level=level))
    for turn in range(config.passes):
        features: dict[int, Tensor] = {}
        if at_once:
            features = base.coarse(low, valid, known.guidance[at_once], at_once, fed_back(at_once) if turn else {})
        known.features.append(features)
        for level in range(octaves, 0, -1):
            number = (turn + 1) * octaves - level
            if level >= kept and level not in features:
                features[level] = tiles("finer").paste(partial(run, until=number))
            if level in features:
                means[number] = base.reduce[str(level)](features[level]).mean((2, 3))
            else:
                means[number] = tiles("features").mean(partial(reduced, level=level, until=number))
        if turn + 1 < config.passes:
            known.corrections.append(tiles("result").paste(run))
    for features in known.features:
        for level in sorted(features)[1:]:
            del features[level]
    known.guidance.clear()
    return tiles("result").paste(run)


def _margin(config: DDFUpNetConfig, start: int, end: _End) -> int:
    """Cells that a tile sees beyond its part, from known features of level `start`.

    One level more than there are: from the samples.
    """
    if start > config.octaves:
        return max(-(-FINE_MARGIN // config.stride), MARGIN)
    fine = -(-(MARGIN_OF_ONE_LEVEL if end == "finer" else MARGIN_FROM)[start] // config.stride)
    return max(fine, REACH_OF_BACK_PROJECTION if config.back_projections and end == "result" else REACH_OF_BICUBIC)


def _levels(net: BaseNet, pixels: int, kept_bytes: float) -> tuple[int, int | None]:
    """The finest level that is kept of a whole image, and the finest that is made at once, where any is."""

    def bytes_of(level: int, channels: int) -> float:
        return 4 * channels * pixels / 4**level

    for kept in range(1, net.levels + 1):
        needed = bytes_of(0, net.passes - 1) + net.passes * sum(
            bytes_of(level, net.width[level]) for level in range(kept, net.levels + 1)
        )
        at_once = None
        if kept < net.levels:  # the trunk of a further pass takes features of one level finer than its own
            fit = (level for level in range(kept, net.levels + 1) if COARSE_BYTES * pixels / 4**level <= kept_bytes)
            at_once = next(fit, None)
        if at_once:
            needed += sum(bytes_of(level, net.guidance_width[level]) for level in {kept, at_once})
        if needed <= kept_bytes:
            return kept, at_once
    return net.levels + 1, None
