"""Tiles: the same result as the whole image, and smaller ones where memory is short."""

import logging
import math

import numpy as np
import pytest
import torch

import depthup.tiles as tiles
from depthup.data import crop_to_multiple, make_low_resolution, motorcycle
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.tiles import run_network
from depthup.weights import load_model


def inputs(h: int, w: int, scale: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:h, :w]
    low = np.sin(rows / 7) * np.cos(columns / 9) / 4 + 0.5 + 0.2 * (columns > w / 2)
    smooth = np.kron(rng.random((3, h, w)), np.ones((scale, scale)))
    rgb = (255 * np.clip(smooth + 0.1 * rng.random(smooth.shape), 0, 1)).astype(np.uint8)
    valid = rng.random((h, w)) > 0.1
    return torch.from_numpy(low).float()[None, None], torch.from_numpy(rgb)[None], torch.from_numpy(valid)[None, None]


@pytest.fixture
def small_tiles(monkeypatch):
    """Every image is done in tiles of about 48 cells at x4."""
    monkeypatch.setattr(tiles, "WHOLE_LIMIT", 1.0)

    def set_cells(cells: int, scale: int, architecture: str = "base") -> None:
        monkeypatch.setattr(tiles, "TILE_BYTES", tiles.BYTES_PER_PIXEL[architecture] * (cells * scale) ** 2)

    return set_cells


@pytest.fixture
def levels(monkeypatch):
    """Sets the finest level of which features are kept of the whole image, and the one that is made at once."""

    def set_levels(kept: int | None, at_once: int | None) -> None:
        monkeypatch.setattr(tiles, "_levels", lambda net, pixels, most: (kept or net.levels + 1, at_once))

    return set_levels


@pytest.mark.parametrize(
    ("name", "kept", "at_once"),
    [
        ("x4", None, None),
        ("x4", 2, None),
        ("x4", 1, None),
        ("x4", 1, 1),
        ("x8", None, None),
        ("x8", 2, 3),
        ("x8", 1, 2),
        ("x16", 3, 3),
        ("sensor-x16", 2, 3),
        ("sensor-x16", 3, 4),
        ("fast-sensor-x16", 1, 3),
        ("fast-sensor-x16", 2, None),
        ("sensor-x8", 1, 3),
        ("sensor-x1", 1, 2),
        ("sensor-x2", 2, None),
    ],
)
def test_no_seam_can_be_found(name, kept, at_once, small_tiles, levels, monkeypatch):
    levels(kept, at_once)
    net = load_model(name)
    scale, stride = net.config.scale, net.config.stride
    pair = motorcycle()
    low = make_low_resolution(crop_to_multiple(pair.depth, stride), scale, "dkn")
    valid = np.isfinite(low)
    depth = np.where(valid, low, np.nanmean(low))
    span = float(np.ptp(depth))
    inside = [torch.from_numpy(a)[None, None] for a in ((depth - depth.min()) / span, valid)]
    rgb = torch.from_numpy(crop_to_multiple(pair.rgb, stride).copy()).permute(2, 0, 1)[None]
    with monkeypatch.context() as whole:
        whole.setattr(tiles, "WHOLE_LIMIT", math.inf)
        expected = run_network(net, inside[0].float(), rgb, inside[1])
    small_tiles({4: 100, 8: 60, 16: 32}[stride], stride)
    parts, forward = [], net.forward_part
    monkeypatch.setattr(net, "forward_part", lambda low, *rest: parts.append(low.shape) or forward(low, *rest))
    result = run_network(net, inside[0].float(), rgb, inside[1])
    assert len(parts) > 1 and all(shape[3] < inside[0].shape[3] for shape in parts)
    assert (result - expected).abs().max() * span < 1e-3  # metres


@pytest.mark.parametrize(
    ("architecture", "changes", "kept", "at_once"),
    [
        ("base", {}, None, None),
        ("base", {"sensor": True}, None, None),
        ("base", {"sensor": True}, 2, None),
        ("base", {"sensor": True, "passes": 3}, 1, 1),
        ("base", {"sensor": True, "passes": 3}, 1, 2),
        ("base", {"sensor": True, "passes": 3}, 2, None),
        ("base", {"sensor": True, "passes": 2, "scale": 1, "unshuffle": 4}, 1, 1),
        ("base", {"sensor": True, "passes": 2, "scale": 2, "unshuffle": 2}, 1, 2),
        ("base", {"sensor": True, "passes": 2, "scale": 2, "unshuffle": 2}, 1, None),
        ("base", {"sensor": True, "passes": 2, "scale": 2, "unshuffle": 2}, None, None),
        ("base", {"passes": 2, "scale": 8}, 1, 2),
        ("base", {"passes": 2, "scale": 8}, 2, 3),
        ("base", {"passes": 2, "scale": 8}, 2, None),
        ("base", {"passes": 2, "scale": 2}, 1, None),
        ("base", {"passes": 2, "back_projections": 2}, None, None),
        ("base", {"passes": 2, "back_projections": 2}, 1, 1),
        ("base", {"passes": 2, "back_projections": 2}, 1, 2),
        ("base", {"passes": 2, "back_projections": 2}, 2, None),
        ("paper", {}, None, None),
        ("pac-net", {}, None, None),
        ("djf", {}, None, None),
    ],
)
def test_tiles_that_see_enough_give_the_whole_to_rounding(
    architecture, changes, kept, at_once, small_tiles, levels, monkeypatch
):
    levels(kept, at_once)
    torch.manual_seed(0)
    trunk_blocks = 1 if architecture == "base" else 0
    config = DDFUpNetConfig(architecture, **({"scale": 4, "width": 16, "trunk_blocks": trunk_blocks} | changes))
    net = DDFUpNet(config).eval()
    last = {"base": "result", "pac-net": "decoder.2", "djf": "joint.4"}.get(architecture)
    if last:
        torch.nn.init.normal_(net.get_parameter(f"net.{last}.weight"), std=0.5)
    if architecture == "base":
        for start_at_zero in (*net.net.feedback.values(), *net.net.samples.values()):
            torch.nn.init.normal_(start_at_zero.weight, std=0.05)
    low, rgb, valid = inputs(90 * config.unshuffle, 31 * config.unshuffle, config.scale)
    with torch.inference_mode():
        expected = net(low, rgb.float() / 255, valid)
    small_tiles(64, 4, architecture)
    monkeypatch.setattr(tiles, "MARGIN", 16)
    torch.testing.assert_close(run_network(net, low, rgb, valid), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("kept", "at_once", "first"), [(None, None, 0), (2, None, 0), (1, 2, 1), (1, 1, 2)])
def test_means_come_from_the_whole_image(kept, at_once, first, small_tiles, levels, monkeypatch):
    levels(kept, at_once)
    torch.manual_seed(0)
    net = DDFUpNet(DDFUpNetConfig("base", 4, width=16, trunk_blocks=1, passes=2)).eval()
    for feedback in net.net.feedback.values():
        torch.nn.init.normal_(feedback.weight, std=0.05)
    seen = []
    forward = DDFUpNet.forward_part

    def recorded(self, low, rgb, valid, means, until, known):
        seen.append(dict(means))
        return forward(self, low, rgb, valid, means, until, known)

    monkeypatch.setattr(DDFUpNet, "forward_part", recorded)
    low, rgb, valid = inputs(60, 75, 4)
    small_tiles(48, 4)
    run_network(net, low, rgb, valid)
    assert set(seen[0]) == set(range(first)) and set(seen[-1]) == {0, 1, 2, 3}
    with torch.inference_mode():
        for up in range(4):
            reduce = net.net.reduce[str(2 - up % 2)]
            expected = reduce(forward(net, low, rgb.float() / 255, valid, {}, up)).mean((2, 3))
            torch.testing.assert_close(seen[-1][up], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "tile", "margin"), [(100, 40, 10), (7, 40, 10), (41, 40, 10), (33, 4, 1), (1, 8, 2)])
def test_equal_tiles_cover_an_axis_once(size, tile, margin):
    spans = tiles._spans(size, tile, margin)
    covered = np.zeros(size, int)
    for span in spans:
        covered[span.place(1)] += 1
        assert 0 <= span.seen_first <= span.first < span.last <= span.seen_last <= size
        assert span.first - span.seen_first >= min(margin, span.first)
        assert span.seen_last - span.last >= min(margin, size - span.last)
    assert (covered == 1).all()
    (seen,) = {span.seen_last - span.seen_first for span in spans}
    assert seen <= max(tile, 2 + 2 * margin)


@pytest.mark.parametrize(
    ("samples", "free", "whole"),
    [((192, 256), 8e9, True), ((192, 256), 2.5e9, False), ((375, 500), 64e9, False), ((60, 80), 0.6e9, True)],
)
def test_a_phone_is_done_whole_where_memory_is_free_and_12_megapixels_never(samples, free, whole, monkeypatch):
    net = DDFUpNet(DDFUpNetConfig("base", 8, width=16, trunk_blocks=1)).eval()
    monkeypatch.setattr(tiles, "_available", lambda device: free)
    monkeypatch.setattr(DDFUpNet, "forward", lambda self, low, rgb, valid: torch.ones(1))
    monkeypatch.setattr(tiles, "_tiled", lambda *arguments: torch.zeros(1))
    low = torch.zeros(1, 1, *samples)
    rgb = torch.zeros(1, 3, 8 * samples[0], 8 * samples[1], dtype=torch.uint8)
    assert bool(run_network(net, low, rgb, low)) is whole


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),  # on Windows
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_which_errors_are_of_memory(error, is_it):
    assert tiles.is_out_of_memory(error) is is_it


def test_out_of_memory_falls_back_to_smaller_tiles_and_says_so(monkeypatch, caplog):
    net = load_model("x4")
    low, rgb, valid = inputs(60, 75, 4)
    expected = run_network(net, low, rgb, valid)
    largest = []
    forward = DDFUpNet.forward_part

    def limited(self, low, rgb, *rest):
        largest.append(rgb.shape[2] * rgb.shape[3])
        if largest[-1] > 200 * 200:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return forward(self, low, rgb, *rest)

    monkeypatch.setattr(DDFUpNet, "forward_part", limited)
    monkeypatch.setattr(DDFUpNet, "forward", lambda self, *args: limited(self, *args))
    with caplog.at_level(logging.WARNING, "depthup"):
        result = run_network(net, low, rgb, valid)
    assert "out of memory: trying again in tiles of" in caplog.text
    assert largest[0] == 240 * 300 and largest[-1] <= 200 * 200
    assert (result - expected).abs().max() < 1e-4


def test_nothing_is_kept_where_memory_is_short_of_even_that(monkeypatch, caplog):
    net = load_model("x4")
    low, rgb, valid = inputs(60, 75, 4)
    expected = run_network(net, low, rgb, valid)
    original, asked = tiles._levels, []

    def limited(net, pixels, most):
        asked.append(most)
        if most:
            raise MemoryError
        return original(net, pixels, most)

    monkeypatch.setattr(tiles, "WHOLE_LIMIT", 1.0)
    monkeypatch.setattr(tiles, "_levels", limited)
    with caplog.at_level(logging.WARNING, "depthup"):
        result = run_network(net, low, rgb, valid)
    assert asked[0] > asked[-1] == 0
    assert "MB, keeping nothing else" in caplog.records[-1].message
    assert (result - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["x16", "sensor-x4", "fast-x8"])
def test_what_is_kept_of_a_large_image_stays_below_the_limit(name):
    net = load_model(name).net
    kept = []
    for pixels in (1e6, 12e6, 50e6, 400e6):
        level, at_once = tiles._levels(net, pixels, 8e8)
        kept.append(level)
        maps = {("features", n): net.passes * net.width[n] for n in range(level, net.levels + 1)}
        maps |= {("guidance", n): net.guidance_width[n] for n in {level, at_once} if at_once}
        corrections = 4 * pixels * (net.passes - 1)
        assert level > net.levels or sum(4 * n * pixels / 4**at for (_, at), n in maps.items()) + corrections <= 8e8
    assert kept[0] == 1 and kept[-1] == net.levels + 1 and kept == sorted(kept)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(self, *args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(DDFUpNet, "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run_network(load_model("x4"), *inputs(8, 8, 4))


def test_no_memory_at_all(monkeypatch):
    def broken(self, *args):
        raise MemoryError

    monkeypatch.setattr(DDFUpNet, "forward", broken)
    monkeypatch.setattr(DDFUpNet, "forward_part", broken)
    with pytest.raises(MemoryError, match="not even the smallest tiles fit"):
        run_network(load_model("x4"), *inputs(40, 40, 4))
