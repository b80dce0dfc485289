"""Both ways of making low-resolution depth against their formulas."""

import numpy as np
import PIL.Image
import pytest
import torch

from depthup.data import PROTOCOLS, crop_to_multiple, make_low_resolution


def random_depth(height=96, width=128):
    return np.random.default_rng(0).uniform(0.5, 9, (height, width)).astype(np.float32)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8, 16])
def test_pac_is_one_sample_per_cell(scale):
    depth = crop_to_multiple(random_depth(), scale)
    first = (scale - 1) // 2
    np.testing.assert_array_equal(make_low_resolution(depth, scale, "pac"), depth[first::scale, first::scale])


def test_pac_by_hand():
    depth = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(make_low_resolution(depth, 4, "pac"), [[9, 13], [41, 45]])


@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_dkn_is_pil_bicubic(scale):
    depth = random_depth()
    size = (depth.shape[1] // scale, depth.shape[0] // scale)
    expected = np.asarray(PIL.Image.fromarray(depth).resize(size, PIL.Image.Resampling.BICUBIC))
    assert expected.dtype == np.float32
    np.testing.assert_allclose(make_low_resolution(depth, scale, "dkn"), expected, rtol=2e-6)


def test_dkn_keeps_a_plane():
    rows, columns = np.mgrid[:64, :64]
    plane = (1 + 0.01 * rows + 0.02 * columns).astype(np.float64)
    low = make_low_resolution(plane, 4, "dkn")
    expected = 1 + 0.01 * (rows[::4, ::4] + 1.5) + 0.02 * (columns[::4, ::4] + 1.5)
    np.testing.assert_allclose(low[2:-2, 2:-2], expected[2:-2, 2:-2], rtol=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_kinds_of_array(protocol):
    depth = random_depth()
    low = make_low_resolution(depth, 4, protocol)
    assert isinstance(low, np.ndarray)
    assert low.dtype == np.float32
    assert make_low_resolution(depth.astype(np.float64), 4, protocol).dtype == np.float64
    batch = torch.from_numpy(np.stack([depth, depth + 1]))[:, None]
    result = make_low_resolution(batch, 4, protocol)
    assert result.shape == (2, 1, 24, 32)
    np.testing.assert_array_equal(result[0, 0].numpy(), low)
    flipped = depth[::-1, ::-1]
    np.testing.assert_array_equal(
        make_low_resolution(flipped, 4, protocol), make_low_resolution(flipped.copy(), 4, protocol)
    )


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_dkn_around_holes(scale):
    depth = np.full((64, 64), 3.0, np.float32)
    depth[16:32, 16:40] = np.nan
    low = make_low_resolution(depth, scale, "dkn")
    known = ~np.isnan(low)
    np.testing.assert_allclose(low[known], 3.0, rtol=1e-5)
    inside = low[16 // scale : 32 // scale, 16 // scale : 40 // scale]
    assert np.isnan(inside).all()
    assert known.sum() == low.size - inside.size


def test_dkn_hole_of_one_pixel_is_filled_from_its_cell():
    depth = random_depth()
    holed = depth.copy()
    holed[41, 41] = np.nan
    low, expected = make_low_resolution(holed, 8, "dkn"), make_low_resolution(depth, 8, "dkn")
    assert not np.isnan(low).any()
    changed = np.argwhere(np.abs(low - expected) > 1e-5)
    assert len(changed)
    assert (np.abs(changed - 5) <= 2).all()


def test_holes_of_one_image_leave_the_others_alone():
    depth = torch.from_numpy(random_depth())
    holed = depth.clone()
    holed[5:20, 5:20] = torch.nan
    batch = make_low_resolution(torch.stack([depth, holed]), 4, "dkn")
    assert torch.equal(batch[0], make_low_resolution(depth, 4, "dkn"))
    assert torch.equal(batch[1].isnan(), make_low_resolution(holed, 4, "dkn").isnan())


def test_pac_takes_holes_along():
    depth = random_depth()
    depth[1, 1] = depth[2, 6] = np.nan
    low = make_low_resolution(depth, 4, "pac")
    assert np.isnan(low[0, 0])
    assert np.isnan(low).sum() == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_views_of_any_strides(protocol):
    depth = random_depth(48, 64)
    for view in (depth[::-1, ::-2], depth.T, depth[:, :1][:, ::-1], np.broadcast_to(depth[:1], (8, 64))):
        expected = make_low_resolution(np.array(view.tolist(), np.float32), 1, protocol)
        np.testing.assert_array_equal(make_low_resolution(view, 1, protocol), expected)


def test_all_holes():
    depth = np.full((16, 16), np.nan, np.float32)
    for protocol in PROTOCOLS:
        assert np.isnan(make_low_resolution(depth, 4, protocol)).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="size 30x16 is no multiple of scale 4"):
        make_low_resolution(np.ones((16, 30), np.float32), 4, "dkn")
    with pytest.raises(ValueError, match="protocol: got 'bilinear', expected one of dkn, pac"):
        make_low_resolution(np.ones((16, 16), np.float32), 4, "bilinear")
    with pytest.raises(ValueError, match="image of 3x16 pixels is smaller than one cell of 4x4"):
        crop_to_multiple(np.ones((16, 3), np.float32), 4)


def test_crop_to_multiple():
    assert crop_to_multiple(np.ones((17, 22, 3)), 4).shape == (16, 20, 3)
    assert crop_to_multiple(np.ones((17, 22)), 8).shape == (16, 16)
    assert crop_to_multiple(torch.ones(2, 3, 17, 22), 4).shape == (2, 3, 16, 20)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_of_the_other_byte_order(protocol):
    depth = np.random.default_rng(0).random((16, 24)).astype(np.float32)
    swapped = depth.astype(depth.dtype.newbyteorder())
    np.testing.assert_array_equal(make_low_resolution(swapped, 4, protocol), make_low_resolution(depth, 4, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_masked_integers_are_no_measurements(protocol):
    masked = np.ma.masked_array(np.full((8, 8), 2000, np.int32), np.eye(8, dtype=bool))
    low = make_low_resolution(masked, 4, protocol)
    np.testing.assert_allclose(low[np.isfinite(low)], 2000, rtol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_infinite_and_masked_pixels_are_holes(protocol):
    depth = np.random.default_rng(0).random((32, 24)) + 1
    hole = np.zeros(depth.shape, bool)
    hole[5:14, 6:20] = True
    expected = make_low_resolution(np.where(hole, np.nan, depth), 4, protocol)
    assert np.isnan(expected).any()
    for given in (np.where(hole, np.inf, depth), np.ma.masked_array(depth, hole)):
        found = make_low_resolution(given, 4, protocol)
        np.testing.assert_array_equal(np.where(np.isinf(found), np.nan, found), expected)
