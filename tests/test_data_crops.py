"""Training crops: exact low-resolution depth, and batches that depend on seed and step alone."""

import numpy as np
import pytest
import torch

from depthup.data import (
    PROTOCOLS,
    CachedPairs,
    CropSampler,
    InputError,
    Pair,
    crop_to_multiple,
    make_low_resolution,
    prefetch,
)

FLIPS = [(False, False), (False, True), (True, False), (True, True)]


class Synthetic:
    """Random pairs of odd sizes, with holes."""

    title = "synthetic"

    def __init__(self, count=6, height=101, width=135, border=6, millimetres=True):
        rng = np.random.default_rng(0)
        self.unit, self.border = "m", border
        self.names = [f"pair {number}" for number in range(count)]
        self.scenes = list(self.names)
        self._pairs = []
        for name in self.names:
            rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            depth = rng.integers(700, 9000, (height, width)).astype(np.float32) / np.float32(1000)
            depth[50:70, 30:45] = np.nan
            depth[:5, 60:80] = np.nan
            if not millimetres:
                depth += np.float32(1e-4)
            self._pairs.append(Pair(name, name, rgb, depth, self.unit))

    def __len__(self):
        return len(self._pairs)

    def __getitem__(self, index):
        return self._pairs[index]


@pytest.fixture(scope="module")
def cached():
    return CachedPairs(Synthetic())


def sampler(pairs, scale=4, protocol="dkn", crop_size=32, batch_size=4, seed=3, **options):
    return CropSampler(pairs, crop_size, scale, protocol, batch_size, seed, **options)


def same(first, second):
    return all(torch.equal(first[name].nan_to_num(-1), second[name].nan_to_num(-1)) for name in first)


@pytest.mark.parametrize(("millimetres", "dtype"), [(True, np.uint16), (False, np.float32)])
def test_cache_loses_nothing(millimetres, dtype):
    dataset, calls = Synthetic(millimetres=millimetres), []
    pairs = CachedPairs(dataset, progress=lambda done, total: calls.append((done, total)), workers=2)
    assert calls == [(n, 6) for n in range(1, 7)]
    assert len(pairs) == 6
    assert (pairs.title, pairs.unit, pairs.border) == ("synthetic", "m", 6)
    assert all(depth.dtype == dtype for depth in pairs._depth)
    for index in range(6):
        pair = pairs[index]
        assert pair.name == dataset[index].name
        np.testing.assert_array_equal(pair.rgb, dataset[index].rgb)
        np.testing.assert_array_equal(pair.depth, dataset[index].depth)
        np.testing.assert_array_equal(pairs.depth(index, slice(3, 60), slice(9, 40)), dataset[index].depth[3:60, 9:40])


def test_cached_depth_cannot_be_spoiled():
    pairs = CachedPairs(Synthetic(count=1, millimetres=False))
    pairs.depth(0)[:] = 0
    assert not (pairs.depth(0) == 0).any()


def test_cache_passes_errors_on():
    class Broken(Synthetic):
        def __getitem__(self, index):
            if index == 2:
                raise InputError("pair 2: is bad, expected a good one")
            return super().__getitem__(index)

    with pytest.raises(InputError, match="pair 2: is bad"):
        CachedPairs(Broken())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_crop_has_the_low_resolution_of_the_whole_image(cached, protocol, scale):
    crops, size = sampler(cached, scale, protocol), 32
    depth = crop_to_multiple(cached.depth(0), scale)
    height, width = depth.shape
    for flips in FLIPS:
        whole = depth[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
        low = make_low_resolution(whole, scale, protocol)
        for top in range(0, height - size + 1, max(scale, 8)):
            for left in range(0, width - size + 1, max(scale, 8)):
                up, before = min(2 * scale, top), min(2 * scale, left)
                down, after = min(2 * scale, height - top - size), min(2 * scale, width - left - size)
                wide = depth[top - up : top + size + down, left - before : left + size + after]
                cut, cells = crops._cut(wide, (up, down, before, after), flips, np.random.default_rng(0))
                y = height - top - size if flips[0] else top
                x = width - left - size if flips[1] else left
                np.testing.assert_array_equal(cut, whole[y : y + size, x : x + size])
                expected = low[y // scale : (y + size) // scale, x // scale : (x + size) // scale]
                np.testing.assert_allclose(cells, expected, rtol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batch(cached, protocol):
    batch = sampler(cached, 8, protocol).batch(5)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "rgb": (4, 3, 32, 32),
        "depth": (4, 1, 32, 32),
        "low": (4, 1, 4, 4),
        "low_range": (4, 2),
    }
    assert all(tensor.dtype == torch.float32 for tensor in batch.values())
    assert 0 <= batch["rgb"].min() < batch["rgb"].max() <= 1
    low = batch["low"].flatten(1)
    assert (low.nan_to_num(9e9).amin(1) >= batch["low_range"][:, 0] - 1e-6).all()
    assert (low.nan_to_num(-9e9).amax(1) <= batch["low_range"][:, 1] + 1e-6).all()


def locate(patch, whole):
    """Top and left of a patch in a whole image, by its first row of known pixels."""
    size = patch.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(whole, (size, size))
    equal = (windows[:, :, 0, :] == patch[0]).all(-1)
    return [(y, x) for y, x in np.argwhere(equal) if np.array_equal(windows[y, x], patch)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whole_batch_against_the_images(cached, protocol):
    """Range, low-resolution depth, RGB and position belong together, whatever the flip."""
    scale, size, seen = 4, 16, set()
    crops = sampler(cached, scale, protocol, size)
    for step in range(8):
        batch = crops.batch(step)
        for n in range(4):
            index = crops._index(step * 4 + n)
            for flips in FLIPS:
                steps = (-1 if flips[0] else 1, -1 if flips[1] else 1)
                whole = crop_to_multiple(cached.depth(index), scale)[:: steps[0], :: steps[1]]
                found = locate(batch["depth"][n, 0].nan_to_num(0).numpy(), np.nan_to_num(whole))
                if not found:
                    continue
                y, x = found[0]
                seen.add(flips)
                low = make_low_resolution(whole, scale, protocol)
                cells = low[y // scale : (y + size) // scale, x // scale : (x + size) // scale]
                np.testing.assert_allclose(batch["low"][n, 0], cells, rtol=1e-6)
                np.testing.assert_allclose(batch["low_range"][n], [np.nanmin(low), np.nanmax(low)], rtol=1e-6)
                rgb = crop_to_multiple(cached.rgb(index), scale)[:: steps[0], :: steps[1]][y : y + size, x : x + size]
                ranks = np.corrcoef(rgb.mean(2).ravel(), batch["rgb"][n].mean(0).numpy().ravel())[0, 1]
                assert ranks > 0.9
                break
            else:
                pytest.fail("crop is in no flip of its image")
    assert len(seen) == 4


def test_rgb_without_jitter_is_the_image(cached):
    crops, exact = sampler(cached, batch_size=8), 0
    for step in range(4):
        exact += sum(
            bool(torch.equal((rgb * 255).round() / 255, rgb)) for rgb in crops.batch(step)["rgb"].to(torch.float32)
        )
    assert 8 <= exact <= 24


def test_batches_depend_on_seed_and_step_alone(cached):
    first, second = sampler(cached), sampler(cached)
    second.batch(17)
    assert same(first.batch(4), second.batch(4))
    assert not same(first.batch(4), first.batch(5))
    assert not same(first.batch(4), sampler(cached, seed=4).batch(4))


@pytest.mark.parametrize("options", [{"rescale": 0.5}, {"sensor": True}, {"augmentation": "merged"}], ids=str)
def test_shares_of_a_batch_are_those_of_the_whole(cached, options):
    whole = sampler(cached, batch_size=6, **options).batch(5)
    for places in (range(6), range(1, 6, 2), range(2, 6, 3), range(5, 6)):
        share = sampler(cached, batch_size=6, places=places, **options).batch(5)
        assert same(share, {name: values[list(places)] for name, values in whole.items()})


def test_every_pair_once_per_epoch(cached):
    crops = sampler(cached)
    epochs = [[crops._index(position) for position in range(6 * n, 6 * n + 6)] for n in range(4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("workers", [{"workers": 1}, {"workers": 2}, {"workers": 3}, {"processes": 2}], ids=str)
def test_prefetch_is_the_same_for_any_number_of_workers(cached, workers):
    crops, expected = sampler(cached), sampler(cached)
    batches = list(prefetch(crops, 3, 15, **workers))
    assert len(batches) == 12
    assert all(same(batch, expected.batch(step)) for step, batch in enumerate(batches, 3))


@pytest.mark.parametrize("processes", [0, 2])
def test_prefetch_may_be_left_early_and_passes_errors_on(cached, processes):
    batches = prefetch(sampler(cached), 0, 2**62, processes=processes)
    next(batches)
    batches.close()
    assert list(prefetch(sampler(cached), 5, 5, processes=processes)) == []
    crops = sampler(cached)
    crops.batch = lambda step: 1 // 0
    with pytest.raises(ZeroDivisionError):
        next(prefetch(crops, 0, 3, processes=processes))


def test_hard_places_are_preferred():
    """An image that is flat but for one quarter: most crops are drawn there."""
    dataset = Synthetic(count=1, height=256, width=256, border=0)
    dataset._pairs[0].depth[:] = 2
    dataset._pairs[0].depth[128:, 128:] = 2 + np.random.default_rng(0).integers(0, 2, (128, 128))
    pairs = CachedPairs(dataset)

    def share(candidates):
        crops = sampler(pairs, 8, batch_size=50, candidates=candidates)
        return float((crops.batch(0)["depth"].std((1, 2, 3)) > 0).float().mean())

    assert share(1) < 0.5 < 0.65 < share(8)


class Slope:
    """A plane whose depth is told by the colours: both grow from left to right and from top to bottom."""

    title, unit, border = "slope", "m", 6
    names = scenes = ("slope",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        rows, columns = np.mgrid[:160, :200]
        rgb = np.stack([columns, rows, columns], 2).astype(np.uint8)
        return Pair("slope", "slope", rgb, (1 + 0.01 * columns + 0.02 * rows).astype(np.float32), "m")


@pytest.mark.parametrize(("scale", "smallest"), [(4, 80 / 160 + 0.001), (8, 96 / 160 + 0.001)])
def test_rescaled_crops_are_larger_parts_of_the_image(scale, smallest):
    crops = CropSampler(CachedPairs(Slope()), 64, scale, "dkn", 8, seed=0, rescale=1.0)
    crops_as_they_are = CropSampler(CachedPairs(Slope()), 64, scale, "dkn", 8, seed=0)
    factors = []
    for step in range(8):
        batch = crops.batch(step)
        assert batch["rgb"].shape == (8, 3, 64, 64) and batch["low"].shape == (8, 1, 64 // scale, 64 // scale)
        for depth, low in zip(batch["depth"][:, 0].numpy(), batch["low"][:, 0].numpy(), strict=True):
            along = np.abs(np.diff(depth, axis=1)) / 0.01  # source pixels to a pixel of the crop
            down = np.abs(np.diff(depth, axis=0)) / 0.02
            np.testing.assert_allclose(along, along[0, 0], rtol=1e-2)  # the same plane, not noise
            np.testing.assert_allclose(down, along[0, 0], rtol=1e-2)  # by the same factor in both directions
            cells = depth.reshape(64 // scale, scale, -1, scale).mean((1, 3))
            np.testing.assert_allclose(low[2:-2, 2:-2], cells[2:-2, 2:-2], atol=2e-4)
            factors.append(1 / along[0, 0])
    assert 0.5 - 1e-3 <= min(factors) <= smallest and 0.85 < max(factors) <= 1  # the image is 160
    steps = np.abs(np.diff(crops_as_they_are.batch(0)["depth"].numpy(), axis=3))
    np.testing.assert_allclose(steps, 0.01, rtol=1e-2)


def test_rescaled_colours_stay_on_their_depth():
    crops = CropSampler(CachedPairs(Slope()), 64, 4, "dkn", 8, seed=0, rescale=1.0)
    exact = 0
    for step in range(6):
        batch = crops.batch(step)
        for rgb, depth in zip(batch["rgb"].numpy(), batch["depth"][:, 0].numpy(), strict=True):
            expected = 1 + 0.01 * 255 * rgb[0] + 0.02 * 255 * rgb[1]
            exact += float(np.abs(expected - depth).max()) < 0.035  # colours are whole numbers: half a step of each
    assert 15 <= exact <= 33  # the others have their exposure changed


def test_rescaling_is_limited_by_the_image(cached):
    batch = sampler(cached, scale=4, crop_size=64, rescale=1.0).batch(0)  # 80 with what lies around, of 101
    assert batch["depth"].shape == (4, 1, 64, 64)
    assert same(batch, sampler(cached, scale=4, crop_size=64, rescale=1.0).batch(0))
    assert same(sampler(cached).batch(3), sampler(cached, rescale=0.0).batch(3))


@pytest.mark.parametrize("protocol", ["dkn", "pac"])
def test_strong_augmentation_transposes_colours_and_depth_together(protocol):
    crops = CropSampler(CachedPairs(Slope()), 64, 4, protocol, 8, seed=0, augmentation="strong")
    transposed, exact, colours = 0, 0, []
    for step in range(8):
        batch = crops.batch(step)
        colours.append(batch["rgb"].mean((2, 3)))
        for rgb, depth, low in zip(*(batch[name].numpy() for name in ("rgb", "depth", "low")), strict=True):
            depth, low = depth[0], low[0]
            steep = abs(depth[0, 1] - depth[0, 0]) > 0.015  # 0.02 along what was a column, 0.01 along what was a row
            transposed += steep
            cells = depth.reshape(16, 4, 16, 4).mean((1, 3)) if protocol == "dkn" else depth[1::4, 1::4]
            np.testing.assert_allclose(low[2:-2, 2:-2], cells[2:-2, 2:-2], atol=2e-4)
            expected = 1 + 0.01 * 255 * rgb[0] + 0.02 * 255 * rgb[1]
            exact += float(np.abs(expected - depth).max()) < 1e-3
    assert 20 <= transposed <= 44 and 5 <= exact <= 25  # of 64: every other, and those whose colours stay
    grey = torch.cat(colours)
    assert float((grey[:, 0] - grey[:, 2]).abs().max()) > 0.05  # red and blue, equal in the image, are told apart
    assert float(batch["rgb"].min()) >= 0 and float(batch["rgb"].max()) <= 1


class BlackAndWhite(Synthetic):
    """A black image of blocks at 1 and 3, a white one of a wall at 2."""

    def __init__(self, unit="m"):
        super().__init__(count=2, height=160, width=200)
        self.unit = unit
        rows, columns = np.mgrid[:160, :200] // 16
        blocks = np.where((rows + columns) % 2, np.float32(1), np.float32(3))
        depths = (blocks, np.full_like(blocks, 2))
        self._pairs = [
            Pair(name, name, np.full((160, 200, 3), colour, np.uint8), depth, unit)
            for name, colour, depth in zip(self.names, (0, 255), depths, strict=True)
        ]


@pytest.mark.parametrize("unit", ["m", "disparity"])
def test_merged_augmentation_shows_what_is_nearer_in_either_image(unit):
    crops = CropSampler(CachedPairs(BlackAndWhite(unit)), 64, 4, "dkn", 8, seed=0, augmentation="merged")
    both = 0
    for step in range(8):
        batch = crops.batch(step)
        for n in range(8):
            rgb, depth, low, low_range = (batch[name][n].numpy() for name in ("rgb", "depth", "low", "low_range"))
            white = rgb[1] > (rgb[1].min() + rgb[1].max()) / 2
            if not 0 < white.mean() < 1:
                continue
            both += 1
            black, wall = depth[0][~white], depth[0][white]
            assert np.ptp(wall) == 0
            assert black.max() <= wall[0] if unit == "m" else black.min() >= wall[0]
            again = make_low_resolution(depth[0], 4, "dkn")
            np.testing.assert_allclose(low[0, 2:-2, 2:-2], again[2:-2, 2:-2], atol=1e-5)
            assert low_range[0] <= low.min() and low_range[1] >= low.max()
    assert 5 <= both <= 30  # of 64: every other has two images, a half of those two different ones


def test_merged_augmentation_leaves_a_crop_alone_where_nothing_is_known_or_large_enough():
    pairs = Synthetic(count=2)
    pairs._pairs[0].depth[:] = np.nan
    pairs._pairs[0].depth[:8, :8] = 1
    pairs._pairs[1] = Pair("small", "small", *(a[:40, :40] for a in (pairs[1].rgb, pairs[1].depth)), "m")
    crops = sampler(CachedPairs(pairs), augmentation="merged")
    for step in range(8):
        assert crops.batch(step)["depth"].shape == (4, 1, 32, 32)


@pytest.mark.parametrize("augmentation", ["standard", "strong"])
def test_crops_reach_the_rim_of_the_image(augmentation):
    crops = CropSampler(CachedPairs(Slope()), 64, 4, "dkn", 8, seed=0, augmentation=augmentation)
    depth = torch.cat([crops.batch(step)["depth"] for step in range(120)])
    low, high = depth.amin((1, 2, 3)), depth.amax((1, 2, 3))
    corner, opposite = 1.0, 1 + 0.01 * 199 + 0.02 * 159
    found = int((low == corner).sum()), int(((high - opposite).abs() < 1e-5).sum())
    assert min(found) >= 10 and max(found) <= 60  # of 960; unless preferred, one in 800 lies in a corner


def test_standard_augmentation_is_the_default(cached):
    assert same(sampler(cached).batch(3), sampler(cached, augmentation="standard").batch(3))
    assert not same(sampler(cached).batch(3), sampler(cached, augmentation="strong").batch(3))
    assert same(sampler(cached, augmentation="strong").batch(3), sampler(cached, augmentation="strong").batch(3))


def test_bad_arguments(cached):
    with pytest.raises(ValueError, match="augmentation: got 'wild', expected one of standard, strong"):
        sampler(cached, augmentation="wild")
    with pytest.raises(ValueError, match=r"rescale: got 1\.5, expected a probability from 0 to 1"):
        sampler(cached, rescale=1.5)
    with pytest.raises(ValueError, match="crop size 30 is not a multiple of scale 4"):
        sampler(cached, crop_size=30)
    with pytest.raises(ValueError, match="protocol: got 'area', expected one of dkn, pac"):
        sampler(cached, protocol="area")
    with pytest.raises(ValueError, match="must be >= 1"):
        sampler(cached, batch_size=0)
    with pytest.raises(InputError, match=r"pair 0: is 135x101 pixels, expected at least 104x104 for crops of 104"):
        sampler(cached, crop_size=104)


def test_image_without_measurement():
    dataset = Synthetic(count=1)
    dataset._pairs[0].depth[:] = np.nan
    with pytest.raises(InputError, match="pair 0: depth has no measurement"):
        sampler(CachedPairs(dataset))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": np.zeros((48, 48, 3), np.float32)}, r"own: a: rgb is float32 \[48, 48, 3\], expected uint8"),
        ({"rgb": np.zeros((3, 48, 48), np.uint8)}, r"rgb is uint8 \[3, 48, 48\], expected uint8 \[H, W, 3\]"),
        ({"depth": np.ones((24, 24), np.float32)}, r"depth is float32 \[24, 24\], expected float32 \[48, 48\]"),
        ({"depth": np.ones((48, 48), np.uint16)}, "depth is uint16"),
        ({"depth": np.full((48, 48), np.inf, np.float32)}, "not above 0, or not below 1e"),
        ({"depth": np.full((48, 48), -1, np.float32)}, "not above 0"),
        ({"depth": np.full((48, 48), 1e30, np.float32)}, "not below 1e"),
    ],
)
def test_a_data_set_of_ones_own_that_gives_something_else(changes, message):
    class Own:
        title, names, scenes, unit, border = "own", ["a"], ["s"], "m", 0

        def __len__(self):
            return 1

        def __getitem__(self, index):
            arrays = {"rgb": np.zeros((48, 48, 3), np.uint8), "depth": np.ones((48, 48), np.float32)} | changes
            return Pair("a", "s", **arrays, unit="m")

    with pytest.raises(InputError, match=message):
        CachedPairs(Own())
