"""What the values of a depth file mean: units, scale, inverse depth, disparity, sentinels."""

import logging

import numpy as np
import pytest

from depthup.data import DEPTH_UNITS, DepthEncoding, InputError, read_depth


def stored(tmp_path, values, dtype):
    """A .npy file with one row of values."""
    path = tmp_path / "d.npy"
    np.save(path, np.array([values], dtype))
    return path


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8", "longdouble"])
def test_every_type_and_unit(tmp_path, dtype):
    values = [0, 1, 3, 2047]
    path = stored(tmp_path, values, dtype)
    for unit, number in DEPTH_UNITS.items():
        expected = np.array([[np.nan, 1 / number, 3 / number, 2047 / number]], np.float32)
        for encoding in (unit, DepthEncoding(unit), DepthEncoding(scale=number)):
            depth = read_depth(path, encoding)
            assert depth.dtype == np.float32
            np.testing.assert_array_equal(depth, expected)
    guess = "m" if np.dtype(dtype).kind == "f" else "mm"
    np.testing.assert_array_equal(read_depth(path), read_depth(path, guess))


def test_inverse_depth(tmp_path):
    path = stored(tmp_path, [0, 0.25, 4, np.nan, np.inf], np.float32)
    depth = read_depth(path, DepthEncoding(kind="inverse"))
    np.testing.assert_array_equal(depth, np.float32([[np.nan, 4, 0.25, np.nan, np.nan]]))
    path = stored(tmp_path, [0, 500, 4000], np.uint16)
    depth = read_depth(path, DepthEncoding(kind="inverse", scale=1000))
    np.testing.assert_array_equal(depth, np.float32([[np.nan, 2, 0.25]]))


def test_disparity_with_focal_length_and_baseline(tmp_path):
    # Middlebury 2014, Motorcycle: calib.txt gives f = 3979.911 px, baseline = 193.001 mm, doffs = 124.343 px
    encoding = DepthEncoding(kind="disparity", focal=3979.911, baseline=0.193001, doffs=124.343)
    disparity = np.float32([[200.25, 31.5, np.inf]])
    path = tmp_path / "d.npy"
    np.save(path, disparity)
    depth = read_depth(path, encoding)
    expected = 3979.911 * 0.193001 / (disparity[0, :2].astype(np.float64) + 124.343)
    np.testing.assert_allclose(depth[0, :2], expected, rtol=1e-7)
    assert np.isnan(depth[0, 2])


def test_disparity_of_8_and_16_bits(tmp_path):
    encoding = DepthEncoding(kind="disparity", scale=4, focal=100, baseline=0.5)
    path = stored(tmp_path, [0, 40, 200], np.uint8)
    np.testing.assert_array_equal(read_depth(path, encoding), np.float32([[np.nan, 5, 1]]))
    kitti = DepthEncoding(kind="disparity", scale=256, focal=721.5377, baseline=0.54)
    path = stored(tmp_path, [256 * 30], np.uint16)
    np.testing.assert_allclose(read_depth(path, kitti), [[721.5377 * 0.54 / 30]], rtol=1e-7)


def test_disparity_behind_infinity_is_refused(tmp_path):
    encoding = DepthEncoding(kind="disparity", focal=100, baseline=0.5, doffs=-10)
    with pytest.raises(InputError, match=r"disparity \+ doffs is negative at 1 pixels, expected > 0"):
        read_depth(stored(tmp_path, [5, 20], np.float32), encoding)
    with pytest.raises(InputError, match=r"disparity \+ doffs is 0 at 1 pixels, expected > 0"):
        read_depth(stored(tmp_path, [10, 20], np.float32), encoding)
    positive = DepthEncoding(kind="disparity", focal=100, baseline=0.5, doffs=10)
    np.testing.assert_array_equal(read_depth(stored(tmp_path, [-5], np.float32), positive), [[10]])


@pytest.mark.parametrize(
    ("dtype", "sentinels"),
    [
        ("u2", (65535,)),
        ("u2", (-1, 65535)),
        ("i2", (-1, 32767)),
        ("u4", (4294967295,)),
        ("f2", (65504, 1e30)),
        ("f4", (-9999.9,)),
        ("f8", (-1e300, 1e300)),
    ],
)
def test_sentinel_values(tmp_path, dtype, sentinels):
    inside = [value for value in sentinels if dtype[0] != "u" or value > 0]
    path = stored(tmp_path, [1, *inside[: 1 if dtype == "f2" else None], 2], dtype)
    depth = read_depth(path, DepthEncoding(scale=1, invalid=sentinels))
    np.testing.assert_array_equal(depth[0, [0, -1]], [1, 2])
    assert np.isnan(depth[0, 1:-1]).all() and depth.shape[1] > 2


def test_values_beyond_float32_are_refused(tmp_path):
    for value in (1e300, 1e-300):
        with pytest.raises(InputError, match="beyond what float32 holds at 1 pixels"):
            read_depth(stored(tmp_path, [1, value], np.float64))
    with pytest.raises(InputError, match="beyond what float32 holds at 1 pixels"):
        read_depth(stored(tmp_path, [1e-40], np.float32), DepthEncoding(kind="inverse"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "cm"}, "'cm' is unknown, expected auto or one of mm, m, tum, kitti"),
        ({"kind": "log"}, "'log' is unknown, expected one of depth, inverse, disparity"),
        ({"scale": 0}, "depth scale is 0, expected a number > 0"),
        ({"scale": float("nan")}, "depth scale is nan"),
        ({"scale": float("inf")}, "depth scale is inf"),
        ({"unit": "mm", "scale": 1000}, "unit mm and scale 1000, expected one of the two"),
        ({"unit": "mm", "kind": "inverse"}, "unit mm does not go with kind inverse, expected a scale"),
        ({"kind": "disparity"}, "needs a focal length"),
        ({"kind": "disparity", "focal": 500}, "needs a focal length"),
        ({"kind": "disparity", "focal": -500, "baseline": 0.1}, "focal is -500"),
        ({"kind": "disparity", "focal": 500, "baseline": 0}, "baseline is 0"),
        ({"kind": "disparity", "focal": 500, "baseline": 0.1, "doffs": float("nan")}, "doffs is nan"),
        ({"focal": 500}, "do not go with kind depth, expected disparity"),
        ({"kind": "inverse", "doffs": 3}, "do not go with kind inverse, expected disparity"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError) as caught:
        DepthEncoding(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32])
def test_the_largest_integer_is_warned_of(tmp_path, caplog, dtype):
    largest = np.iinfo(dtype).max
    path = stored(tmp_path, [2000, largest, largest], dtype)
    with caplog.at_level(logging.WARNING, "depthup"):
        read_depth(path)
        assert f"2 of its 3 samples are {largest}" in caplog.text and f"--invalid {largest}" in caplog.text
        caplog.clear()
        read_depth(path, DepthEncoding(invalid=(largest,)))
        read_depth(stored(tmp_path, [2000, largest - 1], dtype))
        read_depth(stored(tmp_path, [2000, 65535], np.float32))
        assert caplog.text == ""
