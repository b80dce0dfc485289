"""Upsampling of a user's own pair: what must hold for the network and for every baseline alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

import depthup.weights
from depthup import upsample
from depthup.baselines import BASELINES
from depthup.data import InputError
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.upsampling import pair_scale
from depthup.weights import load_model, save_weights


def small_net(scale: int = 4, architecture: str = "base", seed: int = 0) -> DDFUpNet:
    """A network whose result is not its bicubic start."""
    torch.manual_seed(seed)
    net = DDFUpNet(DDFUpNetConfig(architecture, scale, width=16, trunk_blocks=1))
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
def test_result_is_known_exactly_where_the_sample_is(method):
    rgb, depth, valid = pair_with_holes()
    result = upsample(rgb, np.where(valid, depth, np.nan), method)
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
    result = upsample(rgb, lonely, method)
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


@pytest.mark.parametrize(
    ("rgb", "depth", "parts"),
    [
        ((24, 32, 3), (25, 32), ["rgb: smaller than depth", "RGB is 32x24", "depth 32x25"]),
        ((24, 32, 3), (6, 33), ["rgb: smaller than depth", "RGB is 32x24", "depth 33x6"]),
        ((24, 32, 3), (6, 7), ["RGB is 32x24", "depth 7x6", "4.571 by 4", "one whole factor"]),
        ((24, 32, 3), (7, 8), ["RGB is 32x24", "depth 8x7", "4 by 3.429"]),
        ((24, 32, 3), (12, 8), ["RGB is 32x24", "depth 8x12", "4 by 2"]),
    ],
)
def test_sizes_that_do_not_fit_are_both_named(rgb, depth, parts):
    with pytest.raises(InputError) as caught:
        upsample(np.zeros(rgb, np.uint8), np.ones(depth), "bicubic")
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rgb", "depth", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), np.ones((4, 4)), r"rgb: got float32 \[8, 8, 3\], expected uint8"),
        (np.zeros((8, 8, 3), np.uint16), np.ones((4, 4)), "rgb: got uint16"),
        (np.zeros((8, 8), np.uint8), np.ones((4, 4)), r"rgb: got uint8 \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), np.ones((4, 4)), r"rgb: got uint8 \[8, 8, 4\]"),
        (np.zeros((3, 8, 8), np.uint8), np.ones((4, 4)), r"rgb: got uint8 \[3, 8, 8\]"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((4, 4, 1)), r"depth: got float64 \[4, 4, 1\]"),
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


def test_factor_of_a_pair():
    assert pair_scale(np.zeros((30, 50, 3), np.uint8), np.zeros((6, 10))) == 5
    assert pair_scale(np.zeros((6, 10, 3), np.uint8), np.zeros((6, 10))) == 1


def test_a_model_of_another_scale(tmp_path):
    rgb, depth = random_pair(scale=2)
    with pytest.raises(InputError, match="the model: upsamples by 4, and the pair's factor is 2"):
        upsample(rgb, depth, METHODS["base"])
    path = tmp_path / "four.safetensors"
    save_weights(path, METHODS["base"], {})
    with pytest.raises(InputError, match=r"four\.safetensors: upsamples by 4, and the pair's factor is 2"):
        upsample(rgb, depth, path)


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


@pytest.mark.parametrize("scale", [2, 4])
def test_default_is_the_network_of_the_factor(shipped, scale):
    rgb, depth = random_pair(scale=scale)
    np.testing.assert_array_equal(upsample(rgb, depth), upsample(rgb, depth, f"x{scale}"))


def test_no_default_for_a_factor_without_weights(shipped):
    rgb, depth = random_pair(scale=3)
    with pytest.raises(
        InputError, match=r"the pair's factor is 3; expected 2, 4, for which .* or another model, such as bicubic"
    ):
        upsample(rgb, depth)


def test_weights_that_were_rewritten_are_read_again(tmp_path):
    rgb, depth = random_pair()
    path = tmp_path / "own.safetensors"
    save_weights(path, small_net(4, seed=1), {})
    first = upsample(rgb, depth, path)
    save_weights(path, small_net(4, seed=2), {})
    assert np.abs(upsample(rgb, depth, path) - first).max() > 1e-3
