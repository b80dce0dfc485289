"""Upsampling of a user's own pair: what must hold for the network and for every baseline alike."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

import depthup.upsampling
import depthup.weights
from depthup import upsample
from depthup.baselines import BASELINES
from depthup.data import (
    STANDARD_SENSOR,
    InputError,
    UsageError,
    crop_to_multiple,
    make_low_resolution,
    motorcycle,
)
from depthup.models import PRECISIONS, SCALES_OF_SENSORS, DDFUpNet, DDFUpNetConfig
from depthup.pair_files import PairArrays, PairOptions, confidence_of, upsample_pair
from depthup.upsampling import Upsampler, _to_grid, default_model
from depthup.weights import load_model, save_weights


def small_net(scale: int = 4, architecture: str = "base", seed: int = 0) -> DDFUpNet:
    """A network whose result is not its bicubic start."""
    torch.manual_seed(seed)
    net = DDFUpNet(DDFUpNetConfig(architecture, scale, width=16, trunk_blocks=1 if architecture == "base" else 0))
    if architecture == "base":
        torch.nn.init.normal_(net.net.result.weight, std=0.5)
        torch.nn.init.normal_(net.net.result.bias, std=0.5)
    return net.eval().requires_grad_(False)


METHODS = {"base": small_net(4), "paper": small_net(4, "paper")} | {name: name for name in BASELINES}
ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
FEW = ("base", "bicubic", "joint-bilateral")
SOME = pytest.mark.parametrize("method", [METHODS[name] for name in FEW], ids=FEW)


def random_pair(h: int = 6, w: int = 9, scale: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (h * scale, w * scale, 3), dtype=np.uint8), rng.uniform(0.5, 8.0, (h, w))


def pair_with_holes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB, depth, and which samples are valid: a hole at the border, one inside, and single ones."""
    rgb, depth = random_pair(8, 11)
    valid = np.random.default_rng(1).random(depth.shape) > 0.2
    valid[:3, :4] = False
    valid[5:7, 6:9] = False
    return rgb, depth, valid


def cells(valid: np.ndarray, scale: int) -> np.ndarray:
    return np.kron(valid, np.ones((scale, scale))) > 0


@ALL
def test_shape_and_type(method):
    rgb, depth = random_pair(5, 7)
    result = upsample(rgb, depth, method)
    assert result.shape == (20, 28)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


@pytest.mark.parametrize("scale", [2, 8, 16])
@pytest.mark.parametrize("architecture", ["base", "paper"])
def test_every_scale_of_a_network(scale, architecture):
    rgb, depth = random_pair(3, 4, scale)
    result = upsample(rgb, depth, small_net(scale, architecture))
    assert result.shape == (3 * scale, 4 * scale)
    assert np.isfinite(result).all()


def test_the_network_looks_at_the_image_and_corrects_bicubic():
    rgb, depth = random_pair()
    result = upsample(rgb, depth, METHODS["base"])
    assert np.abs(result - upsample(255 - rgb, depth, METHODS["base"])).max() > 1e-3
    assert np.abs(result - upsample(rgb, depth, "bicubic")).max() > 1e-3


@ALL
@pytest.mark.parametrize(("a", "b"), [(1000.0, 0.0), (0.25, -3.0), (37.0, 1e4)])
def test_follows_an_affine_change_of_depth(method, a, b):
    rgb, depth = random_pair()
    expected = a * upsample(rgb, depth, method).astype(np.float64) + b
    result = upsample(rgb, a * depth + b, method)
    # float32 network on 0..1: about 1e-6 of the range; float32 result: 6e-8 of the value
    tolerance = 2e-6 * a * np.ptp(depth) + 2e-7 * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@ALL
@pytest.mark.parametrize("value", [2.5, 0.0, -1000.0])
def test_a_constant_stays_constant(method, value):
    rgb, depth = random_pair()
    np.testing.assert_allclose(upsample(rgb, np.full_like(depth, value), method), value, rtol=1e-6, atol=1e-6)


@ALL
def test_a_single_sample(method):
    rgb, _ = random_pair(1, 1)
    np.testing.assert_allclose(upsample(rgb, np.array([[3.25]]), method), np.full((4, 4), 3.25), rtol=1e-6)


@ALL
def test_invalid_samples_do_not_enter(method):
    rgb, depth, valid = pair_with_holes()
    results = []
    for wrong in (np.nan, np.inf, -np.inf):
        results.append(upsample(rgb, np.where(valid, depth, wrong), method))
    mixed = np.where(valid, depth, np.random.default_rng(2).choice([np.nan, np.inf, -np.inf], depth.shape))
    results.append(upsample(rgb, mixed, method))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@ALL
def test_unfilled_result_is_known_exactly_where_the_sample_is(method):
    rgb, depth, valid = pair_with_holes()
    result = upsample(rgb, np.where(valid, depth, np.nan), method, fill="none")
    np.testing.assert_array_equal(np.isfinite(result), cells(valid, 4))
    np.testing.assert_array_equal(np.isnan(result), ~cells(valid, 4))


@SOME
def test_holes_are_filled_from_the_nearest_valid_sample(method):
    rgb, depth, valid = pair_with_holes()
    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled = depth[rows, columns]
    inside = cells(valid, 4)
    result = upsample(rgb, np.where(valid, depth, np.nan), method)
    np.testing.assert_array_equal(result[inside], upsample(rgb, filled, method)[inside])
    zeros = upsample(rgb, np.where(valid, depth, 0.0), method)
    assert np.abs(result[inside] - zeros[inside]).max() > 0.1  # the test sees a difference


@ALL
def test_an_isolated_sample_supports_its_own_cell_only(method):
    rgb, depth = random_pair()
    lonely = np.full_like(depth, np.nan)
    lonely[2, 5] = 4.5
    result = upsample(rgb, lonely, method, fill="none")
    np.testing.assert_allclose(result[8:12, 20:24], 4.5, rtol=1e-6)
    assert np.isfinite(result).sum() == 16


@SOME
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float16, np.float32])
def test_any_real_type_of_depth(method, dtype):
    rgb, depth = random_pair()
    values = (depth * 25).astype(dtype)
    np.testing.assert_array_equal(upsample(rgb, values, method), upsample(rgb, values.astype(np.float64), method))


@ALL
def test_views_are_as_good_as_copies(method):
    rgb, depth, valid = pair_with_holes()
    depth = np.where(valid, depth, np.nan)
    for view in (np.s_[::-1, ::-1], np.s_[:, ::-1]):
        expected = upsample(rgb[view].copy(), depth[view].copy(), method)
        np.testing.assert_array_equal(upsample(rgb[view], depth[view], method), expected)
    turned = rgb.transpose(1, 0, 2)
    np.testing.assert_array_equal(
        upsample(turned, depth.T, method), upsample(turned.copy(), np.ascontiguousarray(depth.T), method)
    )


@pytest.mark.filterwarnings("error")  # torch warns of arrays that are not writable
def test_inputs_are_left_alone():
    rgb, depth, valid = pair_with_holes()
    depth = np.where(valid, depth, np.nan)
    before = rgb.copy(), depth.copy()
    rgb.setflags(write=False)
    depth.setflags(write=False)
    for method in METHODS.values():
        upsample(rgb, depth, method)
    np.testing.assert_array_equal(rgb, before[0])
    np.testing.assert_array_equal(depth, before[1])


@pytest.mark.parametrize(("rgb", "depth"), [((24, 32, 3), (25, 32)), ((24, 32, 3), (6, 33))])
def test_rgb_must_not_be_smaller_than_depth(rgb, depth):
    with pytest.raises(InputError, match=rf"rgb: smaller than depth: RGB is 32x24 and depth {depth[1]}x{depth[0]}"):
        upsample(np.zeros(rgb, np.uint8), np.ones(depth), "bicubic")


@pytest.mark.parametrize(
    ("rgb", "depth", "message"),
    [
        ("a/rgb.png", np.ones((4, 4)), r"rgb: got a path, .*read_rgb\(.a/rgb.png.\) gives one"),
        (np.zeros((8, 8, 3), np.uint8), Path("d.png"), r"depth: got a path, .*read_depth\(.d.png.\) gives one"),
        (np.zeros((8, 8, 3), np.float32), np.ones((4, 4)), r"rgb: got float32 \[8, 8, 3\], expected uint8"),
        (np.zeros((8, 8, 3), np.uint16), np.ones((4, 4)), "rgb: got uint16"),
        (np.zeros((8, 8), np.uint8), np.ones((4, 4)), r"rgb: got uint8 \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), np.ones((4, 4)), r"rgb: got uint8 \[8, 8, 4\]"),
        (np.zeros((3, 8, 8), np.uint8), np.ones((4, 4)), r"rgb: got uint8 \[3, 8, 8\]"),
        (
            np.zeros((8, 8, 3), np.uint8),
            np.ones((4, 4, 1)),
            r"depth: got \[4, 4, 1\] with rgb \[8, 8, 3\], expected \[h, w\], or",
        ),
        (np.zeros((2, 8, 8, 3), np.uint8), np.ones((3, 4, 4)), "rgb: a batch of 2, expected 3, as many as depth has"),
        (np.zeros((8, 8, 3), np.uint8), np.eye(4, dtype=np.uint16), "depth: 12 of its integers are 0; expected valid"),
        (np.zeros((8, 8, 3), np.uint8), np.ones(4), r"depth: got float64 \[4\]"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((4, 4), complex), "depth: got complex128"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((4, 4), bool), "depth: got bool"),
        (np.zeros((8, 8, 3), np.uint8), np.full((4, 4), "1"), "depth: got <U1"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((0, 4)), r"depth: got float64 \[0, 4\]"),
        (np.zeros((8, 8, 3), np.uint8), np.full((4, 4), np.nan), "none of its 16 samples is valid"),
        (np.zeros((8, 8, 3), np.uint8), np.full((4, 4), np.inf), "none of its 16 samples is valid"),
    ],
)
def test_wrong_arrays(rgb, depth, message):
    with pytest.raises(InputError, match=message):
        upsample(rgb, depth, "bicubic")


def test_an_unknown_model_names_what_there_is(shipped):
    rgb, depth = random_pair()
    with pytest.raises(InputError, match=r"x5: no such model; .* one of x2, x4"):
        upsample(rgb, depth, "x5")
    with pytest.raises(InputError, match=r"missing\.safetensors: no such model"):
        upsample(rgb, depth, shipped / "missing.safetensors")


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A box with two networks."""
    folder = tmp_path / "weights"
    folder.mkdir()
    save_weights(folder / "x2.safetensors", small_net(2, seed=2), {})
    save_weights(folder / "x4.safetensors", small_net(4, seed=4), {})
    monkeypatch.setattr(depthup.weights, "SHIPPED", folder)
    return folder


def test_name_path_and_loaded_model_are_the_same(shipped):
    rgb, depth = random_pair()
    expected = upsample(rgb, depth, small_net(4, seed=4))
    path = shipped / "x4.safetensors"
    for model in ("x4", path, str(path), load_model("x4"), load_model(path)):
        np.testing.assert_allclose(upsample(rgb, depth, model), expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(upsample(rgb, depth, model), upsample(rgb, depth, "x4"))


@pytest.mark.parametrize(("ratio", "name"), [(1.5, "x2"), (2, "x2"), (2.3, "x4"), (3, "x4"), (4, "x4"), (30, "x4")])
def test_default_is_the_network_of_the_next_power_of_two(shipped, ratio, name):
    rgb, depth = (
        np.zeros((60, 60, 3), np.uint8),
        np.random.default_rng(0).random((round(60 / ratio), round(60 / ratio))),
    )
    run = Upsampler().run(rgb, depth)
    assert run.model == name
    np.testing.assert_array_equal(run.depth, upsample(rgb, depth, name))


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (1.0, "sensor-x1"),
        (1.01, "sensor-x1"),
        (1.1, "sensor-x2"),
        (2, "sensor-x2"),
        (2.03, "sensor-x2"),
        (2.1, "sensor-x4"),
        (4, "sensor-x4"),
        (5, "sensor-x8"),
        (7.5, "sensor-x8"),
        (11, "sensor-x8"),
        (11.5, "sensor-x16"),
        (40, "sensor-x16"),
    ],
)
def test_default_by_ratio(ratio, name):
    assert default_model(ratio) == name


def test_default_is_a_network_for_sensors_where_there_is_one(shipped):
    save_weights(shipped / "sensor-x8.safetensors", small_net(8), {})
    rgb, depth = random_pair()
    assert Upsampler().run(rgb, depth).model == "sensor-x8"


def test_weights_that_were_rewritten_are_read_again(tmp_path):
    rgb, depth = random_pair()
    path = tmp_path / "own.safetensors"
    save_weights(path, small_net(4, seed=1), {})
    first = upsample(rgb, depth, path)
    save_weights(path, small_net(4, seed=2), {})
    assert np.abs(upsample(rgb, depth, path) - first).max() > 1e-3


RATIOS = [
    1.0,
    1.3,
    1.5,
    1.9,
    2.0,
    2.5,
    3.0,
    3.7,
    4.0,
    5.0,
    5.6,
    6.0,
    7.5,
    9.1,
    12.0,
    16.0,
    (6.0, 4.0),
    (3.3, 4.7),
    (8.0, 16.0),
]


def plane(h: int, w: int) -> np.ndarray:
    """Depth of a tilted plane over the same field of view at any size."""
    rows, columns = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    return 2 + 0.6 * rows[:, None] - 0.4 * columns


@pytest.mark.parametrize("ratio", RATIOS, ids=str)
def test_a_tilted_plane_comes_back_at_any_ratio(ratio):
    vertical, horizontal = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    h, w = 20, 30
    H, W = round(h * vertical), round(w * horizontal)
    rgb = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    scale = int(default_model(np.sqrt(vertical * horizontal)).removeprefix("sensor-x"))
    net = sensor_net(scale, corrects=False)
    error = np.abs(upsample(rgb, plane(h, w), net) / plane(H, W) - 1)
    assert error.max() < 1e-5, f"{100 * error.max():.3f} %"


@pytest.mark.parametrize("scale", SCALES_OF_SENSORS)
def test_a_tilted_plane_of_an_odd_number_of_samples(scale):
    rgb = np.random.default_rng(0).integers(0, 256, (21 * scale, 30 * scale, 3), dtype=np.uint8)
    error = np.abs(upsample(rgb, plane(21, 30), sensor_net(scale, corrects=False)) / plane(*rgb.shape[:2]) - 1)
    assert error.max() < 1e-5, f"{100 * error.max():.3f} %"


@pytest.mark.parametrize("size", [(39, 43), (31, 30), (13, 20)])
def test_depth_edges_of_a_result_that_becomes_smaller(size):
    plane = torch.ones(1, 1, 40, 60)
    plane[..., 17:, :] = 3
    smaller = _to_grid(plane, size)
    assert (smaller.min(), smaller.max()) == (1, 3)
    assert ((smaller > 1) & (smaller < 3)).any(-1).sum() <= 1
    torch.testing.assert_close(smaller.mean(), plane.mean(), rtol=0, atol=1 / size[0])


def test_baselines_keep_a_tilted_plane_away_from_the_border():
    rgb = np.full((90, 130, 3), 128, np.uint8)
    for name in ("bilinear", "bicubic", "joint-bilateral", "guided-filter"):
        error = np.abs(upsample(rgb, plane(20, 30), name) / plane(90, 130) - 1)
        assert error[15:-15, 15:-15].max() < 3e-3, name


def sensor_net(scale: int = 4, corrects: bool = True) -> DDFUpNet:
    torch.manual_seed(3)
    config = DDFUpNetConfig("base", scale, width=16, trunk_blocks=1, sensor=True, unshuffle=max(1, 4 // scale))
    net = DDFUpNet(config)
    if corrects:
        torch.nn.init.normal_(net.net.result.weight, std=0.5)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("size", [(21, 30), (1, 1), (2, 7)], ids=str)
def test_depth_that_is_no_whole_number_of_cells(scale, size):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (size[0] * scale, size[1] * scale, 3), dtype=np.uint8)
    run = Upsampler(sensor_net(scale)).run(rgb, 1 + rng.random(size))
    assert run.depth.shape == run.expected_error.shape == rgb.shape[:2]
    assert np.isfinite(run.depth).all()
    assert np.isfinite(run.expected_error).all() if size != (1, 1) else np.isnan(run.expected_error).all()


def test_no_error_is_told_of_a_map_without_a_range():
    rgb, depth = np.zeros((16, 24, 3), np.uint8), np.full((4, 6), np.nan)
    depth[1, 2] = 1.5
    run = Upsampler(sensor_net()).run(rgb, depth, fill="all")
    assert (run.depth == 1.5).all()
    assert np.isnan(run.expected_error).all()
    assert (confidence_of(run) == 0).all()


def test_weights_of_one_name_in_two_folders(tmp_path, monkeypatch):
    rgb, depth = random_pair()
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1))
        torch.nn.init.normal_(net.net.result.weight)
        folder = tmp_path / str(seed)
        folder.mkdir()
        save_weights(folder / "w.safetensors", net, {})
        os.utime(folder / "w.safetensors", (1e9, 1e9))
        monkeypatch.chdir(folder)
        results.append(upsample(rgb, depth, "w.safetensors"))
    assert not np.array_equal(*results)


def test_another_size_of_the_result():
    rgb, depth = random_pair()
    result = Upsampler(METHODS["base"]).run(rgb, depth, size=(50, 31))
    assert result.depth.shape == (31, 50)
    assert result.ratio == (31 / 6, 50 / 9)
    with pytest.raises(InputError, match="size: got 8x31, expected at least that of depth, 9x6"):
        upsample(rgb, depth, "bicubic", size=(8, 31))


def sparse_pair(fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """A plane, seen by a LiDAR in the view of RGB, but for the upper third."""
    rgb = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    plane = 2 + 0.01 * np.arange(96.0)[:, None] + 0.004 * np.arange(160.0)
    seen = np.random.default_rng(1).random(plane.shape) < fraction
    seen[:32] = False
    return rgb, np.where(seen, plane, np.nan)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_a_hole_larger_than_networks_know_is_no_worse_than_its_filling(scale):
    """They took its middle for farther than all around it, and that of a whole image with it."""
    pair = motorcycle()
    rgb, truth = pair.rgb[:480, :640], pair.depth[:480, :640].astype(np.float64)
    depth = truth[scale // 2 :: scale, scale // 2 :: scale].copy()
    depth[:, depth.shape[1] // 3 :] = np.nan
    rows, columns = distance_transform_edt(np.isnan(depth), return_distances=False, return_indices=True)
    filled = depth[rows, columns]
    distance = distance_transform_edt(np.isnan(depth)).repeat(scale, 0).repeat(scale, 1)
    run = Upsampler(f"sensor-x{scale}").run(rgb, depth, fill="all")
    deep = distance > 1.5 * 48 / scale**0.5
    assert deep.mean() > 0.3
    # with less than 5 % of the range to what was nearest, beside the edges that it has
    off = np.abs(run.depth - filled.repeat(scale, 0).repeat(scale, 1))[deep] / np.nanstd(depth)
    assert np.median(off) < 0.05
    np.testing.assert_allclose(run.expected_error[deep], np.nanstd(depth), rtol=1e-5)
    assert np.median(run.expected_error[distance == 0]) < 0.1 * np.nanstd(depth)
    assert np.isnan(Upsampler(f"sensor-x{scale}").run(rgb, depth, fill="near").depth[deep]).all()


@pytest.mark.parametrize(("fraction", "model", "side"), [(0.9, "sensor-x1", 1), (0.1, "sensor-x4", 4)])
def test_sparse_samples_are_gathered_for_the_network_of_their_distance(fraction, model, side):
    rgb, depth = sparse_pair(fraction)
    run = Upsampler().run(rgb, depth)
    assert (run.model, run.gathered, run.ratio) == (model, side, (1.0, 1.0))
    plane = 2 + 0.01 * np.arange(96.0)[:, None] + 0.004 * np.arange(160.0)
    assert np.nanmean(np.abs(run.depth / plane - 1)[36:]) < 0.005
    assert np.isfinite(run.depth[32:]).all() and np.isnan(run.depth[: 32 - 3 * side]).all()
    tensors = torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(depth)
    np.testing.assert_array_equal(Upsampler()(*tensors).float(), run.depth)
    valid = np.isfinite(depth)
    np.testing.assert_array_equal(upsample(rgb, np.where(valid, depth, 1e30), valid=valid), run.depth)


def test_what_was_measured_is_known_of_gathered_depth():
    rgb, depth = sparse_pair(0.1)
    run = Upsampler().run(rgb, depth, fill="none")
    assert run.gathered == 4
    np.testing.assert_array_equal(np.isfinite(run.depth), np.isfinite(depth))


@pytest.mark.parametrize(("pitch", "model"), [(3, "sensor-x4"), (4, "sensor-x4"), (6, "sensor-x8"), (8, "sensor-x8")])
def test_points_on_a_grid_are_read_alike_wherever_it_begins(pitch, model):
    """Cells began at the corner of the image, and points at their rim cost up to three quarters more error."""
    pair = motorcycle()
    rgb, truth = pair.rgb[120:360, 200:520], pair.depth[120:360, 200:520]
    errors = []
    for first in (0, pitch // 2, pitch - 1):
        depth = np.full(truth.shape, np.nan)
        depth[first::pitch, -1 - first :: -pitch] = truth[first::pitch, -1 - first :: -pitch]
        run = Upsampler().run(rgb, depth, fill="all")
        assert (run.gathered, run.model, run.depth.shape) == (pitch, model, truth.shape)
        assert run.depth.flags.c_contiguous
        errors.append(np.nanmean(np.abs(run.depth - truth)))
        measured = np.isfinite(Upsampler().run(rgb, depth, fill="none").depth)
        np.testing.assert_array_equal(measured, np.isfinite(depth))
    assert max(errors) < 1.15 * min(errors)


def test_points_on_a_grid_where_pixels_are_no_whole_part_of_a_sample():
    rgb = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    low = np.full((96, 160), np.nan)
    low[1::3, ::3] = plane(96, 160)[1::3, ::3]
    for size in ((161, 96), (160, 97), (320, 192)):
        run = Upsampler().run(rgb, low, size=size, fill="all")
        assert run.gathered == 3
        np.testing.assert_allclose(run.depth, plane(size[1], size[0]), rtol=0.01)


@pytest.mark.parametrize("model", ["sensor-x1", "sensor-x4"])
def test_an_isolated_sample_is_left_out_unless_it_is_to_be_kept(model):
    scale = int(model[-1])
    rgb = motorcycle().rgb[100:260, 200:420]
    clean = plane(rgb.shape[0] // scale, rgb.shape[1] // scale)
    depth, there = clean.copy(), np.zeros(clean.shape, bool)
    depth[17, 30], there[17, 30] = 60, True
    run, without = Upsampler(model).run(rgb, depth), Upsampler(model).run(rgb, np.where(there, np.nan, clean))
    assert (run.isolated, without.isolated) == (1, 0)
    np.testing.assert_array_equal(run.depth, without.depth)
    unknown = np.isnan(Upsampler(model).run(rgb, depth, fill="none").depth)
    np.testing.assert_array_equal(unknown, there.repeat(scale, 0).repeat(scale, 1))
    kept = Upsampler(model, keep_isolated=True).run(rgb, depth)
    assert kept.isolated == 0 and kept.depth.max() > 10
    assert Upsampler("bicubic").run(rgb, depth).isolated == 0


def test_an_isolated_sample_hides_no_overshoot():
    """The limit below which results are unknown was half of the sample that was left out."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:60, :80]
    depth = np.where((rows - 30) ** 2 + (columns - 40) ** 2 < 15**2, 1.0, 10.0).astype(np.float32)
    wild = depth.copy()
    wild[5, 5] = 0.05
    options = PairOptions("x4")
    clean, run = (upsample_pair(options.upsampler(), PairArrays(rgb, pair), options, "pair") for pair in (depth, wild))
    assert (clean.isolated, run.isolated) == (0, 1) and run.smallest == clean.smallest == 1
    assert np.isnan(clean.depth).any()
    np.testing.assert_array_equal(np.isnan(run.depth), np.isnan(clean.depth))


def test_floats_that_hold_zeros_are_doubted_once_nothing_says_what_they_mean(caplog):
    rgb, depth, valid = pair_with_holes()
    zeros = np.where(valid, depth, 0)
    for quiet, mask in (
        (depth, None),
        (zeros, valid),
        (zeros - 1, None),
        (np.where(zeros == zeros.max(), 0, depth), None),
    ):
        upsample(rgb, quiet, "bicubic", valid=mask)
    assert not caplog.messages
    for doubted in (zeros, np.where(depth == depth[valid].max(), -np.inf, zeros), torch.from_numpy(zeros)):
        caplog.clear()
        tensors = isinstance(doubted, torch.Tensor)
        upsample(torch.from_numpy(rgb).permute(2, 0, 1) if tensors else rgb, doubted, "bicubic")
        assert caplog.messages == [
            f"depth: {(~valid).sum()} of its 88 samples are 0 and are taken as measured; expected NaN or"
            " valid=depth > 0 if that is no measurement, else valid=np.isfinite(depth)"
        ]


def test_networks_that_need_more_samples_say_so(caplog):
    rgb, depth = sparse_pair(0.1)
    for model in (None, "sensor-x4", METHODS["base"]):
        Upsampler(model).run(rgb, depth)
    assert not caplog.messages
    Upsampler("sensor-x1").run(rgb, depth)
    assert caplog.messages == [
        "sensor-x1: of the samples beside measured ones 10 % are measured, and it needs 60 %; expected a network for a"
        " larger ratio, or the default"
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_type_of_torch_does_not_matter(dtype):
    rgb, depth, _ = pair_with_holes()
    size = (rgb.shape[1] - 3, rgb.shape[0] - 2)
    expected = [Upsampler(model).run(rgb, depth, size=size, fill="all").depth for model in ("x4", "sensor-x4")]
    depthup.upsampling._load_once.cache_clear()
    torch.set_default_dtype(dtype)
    try:
        for model, depth_before in zip(("x4", "sensor-x4"), expected, strict=True):
            np.testing.assert_array_equal(Upsampler(model).run(rgb, depth, size=size, fill="all").depth, depth_before)
    finally:
        torch.set_default_dtype(torch.float32)
        depthup.upsampling._load_once.cache_clear()


def test_a_network_gets_no_larger_cells_than_it_is_for():
    rgb, depth = sparse_pair(0.01)
    assert Upsampler(METHODS["base"]).run(rgb, depth).gathered == 4
    assert Upsampler(METHODS["base"]).run(np.repeat(np.repeat(rgb, 4, 0), 4, 1), depth).gathered == 1
    assert Upsampler("bicubic").run(rgb, depth).gathered == 1


@SOME
def test_what_is_filled(method):
    rgb, depth, valid = pair_with_holes()
    depth = np.where(valid, depth, np.nan)
    near = distance_transform_edt(~valid) <= 2
    assert not near.all() and (near & ~valid).any()
    for fill, expected in (("none", valid), ("near", near), ("all", np.ones_like(valid))):
        result = upsample(rgb, depth, method, fill=fill)
        np.testing.assert_array_equal(np.isfinite(result), cells(expected, 4))
        np.testing.assert_array_equal(result[cells(valid, 4)], upsample(rgb, depth, method)[cells(valid, 4)])
    with pytest.raises(InputError, match="fill: got 'some', expected one of none, near, all"):
        upsample(rgb, depth, method, fill="some")


@ALL
def test_a_mask_is_as_good_as_nan(method):
    rgb, depth, valid = pair_with_holes()
    expected = upsample(rgb, np.where(valid, depth, np.nan), method)
    np.testing.assert_array_equal(upsample(rgb, depth, method, valid=valid), expected)
    with pytest.raises(InputError, match=r"valid: got int64 \[8, 11\], expected bool \[8, 11\], as depth"):
        upsample(rgb, depth, method, valid=valid.astype(np.int64))


def test_a_network_for_sensors_sees_validity_and_says_how_far_off_it_is():
    rgb, depth, valid = pair_with_holes()
    net = sensor_net()
    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    run = Upsampler(net).run(rgb, np.where(valid, depth, np.nan))
    filled = Upsampler(net).run(rgb, depth[rows, columns])
    known = np.isfinite(run.depth)
    assert np.abs(run.depth - filled.depth)[known].max() > 1e-3
    np.testing.assert_array_equal(np.isfinite(run.expected_error), known)
    assert (run.expected_error[known] > 0).all()
    scaled = Upsampler(net).run(rgb, np.where(valid, 10 * depth + 3, np.nan))
    np.testing.assert_allclose(scaled.expected_error, 10 * run.expected_error, rtol=1e-4)
    assert Upsampler("bicubic").run(rgb, depth).expected_error is None


def test_tensors_in_a_tensor_out():
    rgb, depth = random_pair()
    expected = upsample(rgb, depth, METHODS["base"])
    image = torch.from_numpy(rgb).permute(2, 0, 1)
    result = upsample(image, torch.from_numpy(depth), METHODS["base"])
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)
    floats = upsample(image / 255, torch.from_numpy(depth).float(), METHODS["base"])
    assert floats.dtype == torch.float32
    np.testing.assert_allclose(floats.numpy(), expected, atol=1e-5)
    batch = upsample(torch.stack([image] * 2), torch.from_numpy(depth).expand(2, -1, -1), METHODS["base"])
    np.testing.assert_allclose(batch[1].numpy(), expected, rtol=1e-6)
    with pytest.raises(InputError, match=r"rgb: got ndarray, expected a tensor \[3, H, W\]"):
        upsample(rgb, torch.from_numpy(depth), METHODS["base"])
    with pytest.raises(InputError, match=r"rgb: got torch.float32 outside 0..1"):
        upsample(image.float(), torch.from_numpy(depth), METHODS["base"])


def test_a_batch_of_arrays():
    rgb, depth = random_pair()
    other = random_pair(seed=5)
    result = upsample(np.stack([rgb, other[0]]), np.stack([depth, other[1]]), METHODS["base"])
    np.testing.assert_array_equal(result[0], upsample(rgb, depth, METHODS["base"]))
    np.testing.assert_array_equal(result[1], upsample(*other, METHODS["base"]))


def test_pil_images():
    rgb, depth = random_pair()
    image = Image.fromarray(rgb)
    with pytest.raises(InputError, match="PIL image that holds -3"):
        upsample(image, Image.fromarray(np.full(depth.shape, -3, np.int32)), "bicubic")
    metres = upsample(image, Image.fromarray(depth.astype(np.float32)), "bicubic")
    assert metres.mode == "F"
    np.testing.assert_allclose(np.asarray(metres), upsample(rgb, depth, "bicubic"), rtol=1e-6)
    millimetres = np.rint(depth * 1000).astype(np.uint16)
    millimetres[0, 0] = 0
    result = upsample(image, Image.fromarray(millimetres), "bicubic", fill="none")
    assert result.mode.startswith("I")
    assert (np.asarray(result)[:4, :4] == 0).all()
    np.testing.assert_allclose(np.asarray(result)[12:] / 1000, upsample(rgb, depth, "bicubic")[12:], atol=2e-3)
    with pytest.raises(InputError, match="a PIL image of mode L, expected F"):
        upsample(image, Image.fromarray(millimetres.astype(np.uint8)), "bicubic")


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_pil_image_is_turned_upright_whatever_depth_is(orientation):
    rgb, depth = random_pair()
    turned = Image.fromarray(np.ascontiguousarray(rgb[::-1, ::-1] if orientation == 3 else np.rot90(rgb)))
    turned.getexif()[0x0112] = orientation
    expected = upsample(rgb, depth, METHODS["base"])
    np.testing.assert_array_equal(upsample(turned, depth, METHODS["base"]), expected)
    np.testing.assert_array_equal(Upsampler(METHODS["base"]).run(turned, depth).depth, expected)
    with_alpha = Image.fromarray(np.dstack([rgb, rgb[..., :1]]))
    np.testing.assert_array_equal(upsample(with_alpha, depth, METHODS["base"]), expected)


def test_one_upsampler_in_many_threads():
    upsampler = Upsampler(METHODS["base"])
    pairs = [random_pair(seed=n) for n in range(12)]
    expected = [upsampler(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        for result, alone in zip(pool.map(lambda pair: upsampler(*pair), pairs), expected, strict=True):
            np.testing.assert_array_equal(result, alone)


def test_a_bad_model_is_refused_before_any_pair():
    with pytest.raises(InputError, match="nothing: no such model"):
        Upsampler("nothing")


@pytest.mark.parametrize("ratio", [1.5, 4.0, 7.5, 11.0])
def test_texture_is_no_depth_edge_to_the_networks_in_the_box(ratio):
    h, w = 48, 72
    rgb = cv2.resize(motorcycle().rgb, (round(w * ratio), round(h * ratio)), interpolation=cv2.INTER_AREA)
    error = upsample(rgb, plane(h, w)) / plane(*rgb.shape[:2]) - 1
    assert np.sqrt(np.mean(error**2)) < 1e-3


def test_where_more_error_is_expected_there_is_more():
    pair = motorcycle()
    truth = crop_to_multiple(pair.depth, 4)
    low = STANDARD_SENSOR.measure(truth, 4, np.random.default_rng(0))
    run = Upsampler("sensor-x4").run(crop_to_multiple(pair.rgb, 4), low)
    known = np.isfinite(truth) & np.isfinite(run.depth)
    order = np.argsort(run.expected_error[known])
    errors = [part.mean() for part in np.array_split(np.abs(run.depth - truth)[known][order], 5)]
    assert errors == sorted(errors)
    assert errors[-1] > 4 * errors[0]


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99"])
def test_a_device_that_is_not_here(device):
    with pytest.raises(InputError, match=r"device: .* expected cpu"):
        Upsampler("bicubic", device)


@pytest.mark.parametrize("device", ["meta", "cuda:99", "foo"])
def test_weights_for_a_device_that_is_not_here(device):
    with pytest.raises(InputError, match="device: "):
        load_model("fast-x4", device)


def test_masked_arrays():
    rgb, depth, valid = pair_with_holes()
    masked = np.ma.array(np.where(valid, depth, -9999), mask=~valid)
    expected = upsample(rgb, depth, METHODS["base"], valid=valid)
    np.testing.assert_array_equal(upsample(rgb, masked, METHODS["base"]), expected)
    other = np.random.default_rng(3).random(depth.shape) > 0.3
    expected = upsample(rgb, depth, METHODS["base"], valid=valid & other)
    np.testing.assert_array_equal(upsample(rgb, masked, METHODS["base"], valid=other), expected)
    for wrong in (True, np.ones(depth.shape[1], bool), np.ones((3, 3), bool), np.ones(depth.shape)):
        with pytest.raises(InputError, match=r"valid: got \w+ \[.*\], expected bool \[\d+, \d+\], as depth"):
            upsample(rgb, masked, METHODS["base"], valid=wrong)
        with pytest.raises(InputError, match=r"valid: (a batch of \d+, expected 1|got .*, expected)"):
            upsample(rgb[None], depth[None], METHODS["base"], valid=wrong)
    with pytest.raises(InputError, match="of its integers are 0"):  # a masked array without a mask hides none
        upsample(rgb, np.ma.array(np.where(valid, 1000, 0)), METHODS["base"])
    batch = upsample(np.stack([rgb, rgb]), np.ma.stack([masked, masked]), METHODS["base"])
    np.testing.assert_array_equal(batch[1], upsample(rgb, masked, METHODS["base"]))


def as_tensors(rgb, depth):
    return torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(depth)


def test_tensors_that_are_refused():
    rgb, depth = as_tensors(*random_pair())
    for wrong, message in [
        ((depth * 1000).int() * (depth > 4), "of its integers are 0; expected valid"),
        (depth > 4, "got bool"),
        (depth.to(torch.complex64), "got complex64"),
        (depth[0], r"got float64 \[9\], expected real numbers \[h, w\]"),
        (depth[0, 0], r"got float64 \[\]"),
        ((depth * 1e4).half(), "more than torch.float16 holds, expected torch.float32"),
    ]:
        with pytest.raises(InputError, match=f"depth: .*{message}"):
            upsample(rgb, wrong, METHODS["base"])
    with pytest.raises(InputError, match=r"rgb: got torch.float32 outside 0\.\.1"):
        upsample(torch.full(rgb.shape, torch.nan), depth, METHODS["base"])


def test_batches_that_are_refused():
    rgb, depth = random_pair()
    batch = np.stack([rgb, rgb]), np.stack([depth, depth])
    tensors = [torch.stack([t, t]) for t in as_tensors(rgb, depth)]
    for rgbs, depths, valid, message in [
        (batch[0][:0], batch[1][:0], None, "depth: a batch of 0, expected at least one pair"),
        (tensors[0][:0], tensors[1][:0], None, "depth: a batch of 0, expected at least one pair"),
        (batch[0], batch[1], depth > 1, "valid: a batch of 6, expected 2, as many as depth has"),
        (batch[0][:1], batch[1], None, "rgb: a batch of 1, expected 2"),
        (batch[0], batch[1][:, None], None, r"depth: got \[2, 1, 6, 9\] with rgb"),
        (list(batch[0]), list(batch[1]), None, r"depth: got \[2, 6, 9\] with rgb a list, expected \[h, w\], or"),
        (list(batch[0]), [depth, depth[1:]], None, "depth: got a list that is no array"),
        (tensors[0][0], tensors[1][0].to_sparse(), None, "depth: got a tensor of torch.sparse_coo on cpu"),
        (tensors[0][0], tensors[1][0].to("meta"), None, "depth: got a tensor of torch.strided on meta"),
    ]:
        with pytest.raises(InputError, match=message):
            upsample(rgbs, depths, METHODS["base"], valid=valid)


def test_values_that_float32_does_not_hold():
    rgb, depth = random_pair()
    with pytest.raises(InputError, match=r"depth: got \d.*e\+39, expected what float32 holds"):
        upsample(rgb, depth * 1e39, METHODS["base"])


@pytest.mark.parametrize(
    ("rgb", "message"),
    [
        (Image.fromarray(np.full((24, 36), 30000, np.uint16)), "rgb: a PIL image of mode I;16, expected 8 bits"),
        (np.zeros((24, 36, 3), np.uint8), "rgb: got ndarray, expected a PIL image"),
    ],
)
def test_what_does_not_go_with_a_pil_image(rgb, message):
    depth = Image.fromarray(np.full((6, 9), 1.5, np.float32))
    with pytest.raises(InputError, match=message):
        upsample(rgb, depth, METHODS["base"])


@pytest.mark.parametrize("model", [3, torch.nn.Linear(1, 1), small_net().double()], ids=["number", "module", "double"])
def test_what_is_no_model(model):
    with pytest.raises(InputError, match="expected"):
        Upsampler(model)


def test_what_is_around_a_call_does_not_change_it(shipped):
    rgb, depth = random_pair()
    save_weights(shipped / "other.safetensors", small_net(), {})
    expected = upsample(rgb, depth, METHODS["base"])
    near = Upsampler(METHODS["base"], precision="bf16")
    near_alone = near(rgb, depth)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            np.testing.assert_array_equal(upsample(rgb, depth, METHODS["base"]), expected)
            np.testing.assert_array_equal(near(rgb, depth), near_alone)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_allclose(upsample(rgb, depth, "other"), expected, rtol=1e-5)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(upsample(rgb, depth, "other"), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["x4", "x8-pac", "sensor-x4", "sensor-x2"])
def test_bf16_is_near_float32(name):
    pair = motorcycle()
    scale = load_model(name).config.scale
    rgb, truth = (crop_to_multiple(x, 32)[:192, :256] for x in (pair.rgb, pair.depth))
    low = make_low_resolution(truth, scale, "dkn")
    exact, near = (Upsampler(name, precision=precision)(rgb, low, fill="none") for precision in PRECISIONS)
    assert near.dtype == np.float32
    off = np.nanmean(np.square(near - exact)) ** 0.5
    assert 1e-6 < off < 0.05 * np.nanmean(np.square(exact - truth)) ** 0.5


def test_bf16_keeps_a_tilted_plane():
    rgb = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    off = Upsampler("sensor-x4", precision="bf16")(rgb, plane(60, 80)) / plane(240, 320) - 1
    assert np.square(off).mean() ** 0.5 < 3e-4


@pytest.mark.parametrize(
    ("model", "precision", "message"),
    [
        (None, "fp16", "precision: got 'fp16', expected one of float32, bf16"),
        ("bicubic", "bf16", "bicubic: is no network; expected precision float32"),
    ],
)
def test_what_is_no_precision(model, precision, message):
    with pytest.raises(UsageError, match=message):
        Upsampler(model, precision=precision)


def test_tensors_with_a_channel():
    rgb, depth = torch.rand(2, 3, 16, 12), torch.rand(2, 4, 3) + 1
    upsampler = Upsampler("bicubic")
    whole = upsampler(rgb, depth[:, None], valid=torch.ones(2, 1, 4, 3, dtype=torch.bool))
    assert whole.shape == (2, 1, 16, 12)
    assert torch.equal(whole[:, 0], upsampler(rgb, depth))
    with pytest.raises(InputError, match=r"depth: got \[1, 4, 3\] with rgb \[3, 16, 12\], expected \[h, w\]"):
        upsampler(rgb[0], depth[:1])


@pytest.mark.parametrize(
    "size", ["36x24", "36", 36, 36.0, (36.0, 24.0), (36, 24, 3), (36,), (), ("36", "24"), (True, 24)]
)
@pytest.mark.parametrize("method", ["bicubic", METHODS["base"]])
def test_a_size_that_is_none(method, size):
    rgb, depth = random_pair()
    for given in (depth, torch.from_numpy(depth)[None], np.stack([depth, depth])):
        picture = rgb if given is depth else np.stack([rgb] * len(given))
        picture = torch.from_numpy(picture).permute(0, 3, 1, 2) if isinstance(given, torch.Tensor) else picture
        with pytest.raises(InputError, match=r"size: got .*, expected \(width, height\) in whole pixels"):
            upsample(picture, given, method, size=size)
    with pytest.raises(InputError, match="size: got 50000x50000, expected at most 2147 megapixels"):
        upsample(rgb, depth, "bicubic", size=(np.int32(50000), np.int32(50000)))
    with pytest.raises(InputError, match="size: got"):
        Upsampler(method).warm_up(rgb, depth, size)


def test_a_size_of_numpy_integers():
    rgb, depth = random_pair()
    assert upsample(rgb, depth, "bicubic", size=list(np.array([30, 21]))).shape == (21, 30)


@pytest.mark.parametrize("fill", ["near", "all"])
def test_no_integer_of_a_pil_image_wraps(fill):
    """Beside 10 m an estimate of 0.3 m overshoots below 0."""
    depth = np.full((12, 16), 10_000, np.uint16)
    depth[:, 8:] = 300
    rgb = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    assert np.asarray(upsample(rgb, Image.fromarray(depth / np.float32(1000)), "bicubic")).min() < 0
    result = np.asarray(upsample(rgb, Image.fromarray(depth), "bicubic", fill=fill))
    assert result.max() < 12_000
    known = result[result > 0]
    assert known.min() >= 150 and (len(known) == result.size) == (fill == "all")


def test_a_pil_depth_that_is_to_be_turned_is_warned_of(caplog):
    rgb, depth = random_pair()
    image = Image.fromarray(depth.astype(np.float32))
    upsample(Image.fromarray(rgb), image, "bicubic")
    assert not caplog.records
    image.getexif()[0x0112] = 3
    upsample(Image.fromarray(rgb), image, "bicubic")
    assert "depth: is taken as stored, not turned by its orientation (3); rgb is turned" in caplog.text


def test_masks_of_masks_and_of_guesses():
    rgb, depth = random_pair()
    wrong = np.zeros(depth.shape, bool)
    wrong[2:4, 3:5] = True
    expected = upsample(rgb, depth, "bicubic", valid=~wrong)
    masked = np.ma.masked_array(np.ones(depth.shape, bool), wrong)
    np.testing.assert_array_equal(upsample(rgb, depth, "bicubic", valid=masked), expected)
    upsampler = Upsampler(METHODS["base"])
    guess = np.ma.masked_array(np.full(depth.shape, 60.0), wrong)
    without = upsampler.run(rgb, depth, ~wrong, fill="all").depth
    np.testing.assert_array_equal(upsampler.run(rgb, depth, ~wrong, fill="all", guess=guess).depth, without)


def test_a_mask_of_three_channels_is_refused():
    rgb, depth = random_pair()
    pair = torch.from_numpy(rgb).permute(2, 0, 1)[None], torch.from_numpy(depth)[None, None]
    with pytest.raises(InputError, match="valid: got"):
        upsample(*pair, "bicubic", valid=torch.ones((1, 3, *depth.shape), dtype=torch.bool))


def test_a_result_holds_no_more_memory_than_its_own():
    rgb, depth = random_pair()
    result = upsample(rgb, depth, "sensor-x4")
    assert result.base is None
    tensor = upsample(torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(depth).float(), "sensor-x4")
    assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_random_numbers_go_on_as_if_no_network_had_been_loaded():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_model("x4")
    assert torch.equal(torch.rand(2), expected)
