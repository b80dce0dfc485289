"""The classical up-samplers: what they must keep exactly, and known values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates

from depthup.baselines import BASELINES


def random_pair(h: int = 9, w: int = 13, factor: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (h * factor, w * factor, 3), dtype=np.uint8), rng.uniform(0.5, 8.0, (h, w))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 16])
def test_shape_and_type(name, factor):
    rgb, depth = random_pair(5, 7, factor)
    result = BASELINES[name](rgb, depth, factor)
    assert result.shape == (5 * factor, 7 * factor)
    assert result.dtype == np.float64
    assert np.isfinite(result).all()


@pytest.mark.parametrize("name", BASELINES)
def test_follows_an_affine_change_of_depth(name):
    rgb, depth = random_pair()
    expected = -250.0 * BASELINES[name](rgb, depth, 4) + 1000.0
    np.testing.assert_allclose(BASELINES[name](rgb, -250.0 * depth + 1000.0, 4), expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_keeps_a_constant(name):
    rgb, depth = random_pair()
    result = BASELINES[name](rgb, np.full_like(depth, 1234.5678), 4)
    np.testing.assert_allclose(result, 1234.5678, rtol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_a_single_sample_is_spread(name):
    rgb, _ = random_pair(1, 1, 8)
    np.testing.assert_allclose(BASELINES[name](rgb, np.full((1, 1), 3.25), 8), 3.25, rtol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_accepts_views(name):
    rgb, depth = random_pair()
    flipped = BASELINES[name](rgb[:, ::-1], depth[:, ::-1], 4)
    np.testing.assert_allclose(flipped, BASELINES[name](rgb, depth, 4)[:, ::-1], rtol=1e-5)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "guided-filter"])
def test_reproduces_a_plane_away_from_the_border(name):
    factor = 4
    rows, columns = np.mgrid[:12, :16] * float(factor) + (factor - 1) / 2
    fine_rows, fine_columns = np.mgrid[: 12 * factor, : 16 * factor].astype(float)
    rgb = np.full((12 * factor, 16 * factor, 3), 90, np.uint8)
    result = BASELINES[name](rgb, 1.0 + 0.02 * rows - 0.01 * columns, factor)
    inner = np.s_[4 * factor : -4 * factor, 4 * factor : -4 * factor]
    # a cubic with a != -0.5 bends a line by (2a + 1) t (1 - t) (1 - 2t) of the step between samples
    tolerance = 1e-12 if name == "bilinear" else 0.5 * 3**0.5 / 18 * (0.02 + 0.01) * factor
    np.testing.assert_allclose(result[inner], (1.0 + 0.02 * fine_rows - 0.01 * fine_columns)[inner], atol=tolerance)


def test_nearest_repeats_samples():
    rgb, depth = random_pair(3, 4, 3)
    np.testing.assert_array_equal(BASELINES["nearest"](rgb, depth, 3), np.repeat(np.repeat(depth, 3, 0), 3, 1))


def test_bilinear_has_half_pixel_centres():
    rgb, depth = random_pair()
    where = np.meshgrid((np.arange(36) + 0.5) / 4 - 0.5, (np.arange(52) + 0.5) / 4 - 0.5, indexing="ij")
    expected = map_coordinates(depth, where, order=1, mode="nearest")
    np.testing.assert_allclose(BASELINES["bilinear"](rgb, depth, 4), expected, rtol=1e-12)


def test_bicubic_is_that_of_torch():
    rgb, depth = random_pair()
    expected = F.interpolate(torch.from_numpy(depth)[None, None], (36, 52), mode="bicubic", align_corners=False)
    np.testing.assert_allclose(BASELINES["bicubic"](rgb, depth, 4), expected[0, 0].numpy(), rtol=1e-12)


def test_joint_bilateral_on_one_colour_is_a_spatial_gaussian():
    depth = np.zeros((7, 7))
    depth[3, 3] = 1.0
    result = BASELINES["joint-bilateral"](np.full((21, 21, 3), 50, np.uint8), depth, 3)
    gaussian = np.exp(-0.5 * (np.arange(-2, 3) / 0.5) ** 2)
    assert result[10, 10] == pytest.approx((gaussian[2] / gaussian.sum()) ** 2, rel=1e-5)
    assert result[10, 13] == pytest.approx(gaussian[2] * gaussian[1] / gaussian.sum() ** 2, rel=1e-5)


def test_joint_bilateral_stays_within_its_samples():
    rgb, depth = random_pair()
    rgb[:, ::2] = 0
    rgb[:, 1::2] = 255
    result = BASELINES["joint-bilateral"](rgb, depth, 4)
    assert depth.min() <= result.min() <= result.max() <= depth.max()


@pytest.mark.parametrize("name", ["joint-bilateral", "guided-filter"])
@pytest.mark.parametrize("factor", [4, 8])
def test_guided_is_sharper_than_bicubic_at_an_edge_that_both_images_have(name, factor):
    size = 8 * factor
    truth = np.where(np.arange(size) < size // 2 + factor // 4, 1.0, 3.0) * np.ones((size, 1))
    rgb = np.where(truth[..., None] > 2, 220, 40).astype(np.uint8).repeat(3, 2)
    low = truth.reshape(8, factor, 8, factor).mean((1, 3))
    error = {n: np.abs(BASELINES[n](rgb, low, factor) - truth).mean() for n in (name, "bicubic")}
    assert error[name] < 0.9 * error["bicubic"]
