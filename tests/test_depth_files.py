"""Depth files: what is written is what is read, and nothing is clipped, wrapped or left behind."""

import errno
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthup.data import DEPTH_UNITS, DepthEncoding, InputError, read_depth, read_rgb
from depthup.depth_files import DEPTH_OUTPUT_SUFFIXES, check_output, write_confidence, write_depth, write_image


def some_depth(unit: str = "mm") -> np.ndarray:
    """Depth in the middle of what a unit holds, with holes."""
    depth = np.random.default_rng(0).uniform(1, 60000, (13, 17)) / DEPTH_UNITS[unit]
    depth[2:5, 3] = np.nan
    return depth.astype(np.float32)


@pytest.mark.parametrize("unit", DEPTH_UNITS)
def test_png_holds_depth_rounded_to_the_unit(tmp_path, unit):
    depth = some_depth(unit)
    write_depth(tmp_path / "depth.png", depth, unit)
    stored = cv2.imread(str(tmp_path / "depth.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored == 0, np.isnan(depth))
    result = read_depth(tmp_path / "depth.png", unit)
    np.testing.assert_allclose(result, depth, rtol=1e-6, atol=0.5 / DEPTH_UNITS[unit], equal_nan=True)


@pytest.mark.parametrize("unit", DEPTH_UNITS)
def test_every_integer_survives(tmp_path, unit):
    values = np.arange(1, 65536, dtype=np.float64).reshape(255, 257)
    write_depth(tmp_path / "depth.png", (values / DEPTH_UNITS[unit]).astype(np.float32), unit)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "depth.png"), cv2.IMREAD_UNCHANGED), values)


@pytest.mark.parametrize(
    "name", ["depth.tif", "depth.tiff", "depth.pfm", "depth.npy", "depth.npz", "DEPTH.TIFF", "DEPTH.NPZ"]
)
def test_floating_point_files_are_exact(tmp_path, name):
    depth = some_depth()
    depth[0, 0], depth[0, 1] = 1e-4, 1e5
    write_depth(tmp_path / name, depth)
    np.testing.assert_array_equal(read_depth(tmp_path / name, "m"), depth)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_floating_point_files_are_float32(tmp_path):
    write_depth(tmp_path / "depth.npy", some_depth().astype(np.float64))
    write_depth(tmp_path / "depth.tiff", some_depth().astype(np.float64))
    assert np.load(tmp_path / "depth.npy").dtype == np.float32
    assert cv2.imread(str(tmp_path / "depth.tiff"), cv2.IMREAD_UNCHANGED).dtype == np.float32


def test_a_scale_in_place_of_a_unit(tmp_path):
    depth = some_depth("tum") * 6
    write_depth(tmp_path / "depth.png", depth, scale=800)
    for encoding in ("auto", DepthEncoding(scale=800)):
        result = read_depth(tmp_path / "depth.png", encoding)
        np.testing.assert_allclose(result, depth, rtol=1e-6, atol=0.5 / 800, equal_nan=True)


def test_a_scale_that_does_not_fit_names_alternatives(tmp_path):
    with pytest.raises(InputError) as caught:
        write_depth(tmp_path / "depth.png", np.full((4, 5), 70, np.float32), scale=1000)
    assert str(caught.value) == (
        f"{tmp_path / 'depth.png'}: depth 70 m in column 0, row 0 does not fit (20 such pixels): a 16-bit PNG in"
        " scale 1000 holds 0.001 to 65.535 m; use the unit kitti, or a .tiff, .exr, .pfm, .npy or .npz file, or another"
        " scale"
    )
    with pytest.raises(InputError, match="holds float metres, expected no scale"):
        write_depth(tmp_path / "depth.tiff", some_depth(), scale=1000)
    assert not list(tmp_path.iterdir())


def test_exr_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(InputError) as caught:
        check_output(tmp_path / "depth.exr")
    assert str(caught.value) == (
        f'{tmp_path / "depth.exr"}: needs the package OpenEXR, which is not installed; run: pip install "depthup[exr]"'
    )


def test_confidence(tmp_path):
    confidence = np.random.default_rng(0).random((13, 17)).astype(np.float32)
    confidence[0, :2] = 0, 1
    write_confidence(tmp_path / "c.png", confidence)
    stored = cv2.imread(str(tmp_path / "c.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert list(stored[0, :2]) == [0, 65535]
    np.testing.assert_allclose(stored / 65535, confidence, atol=0.5 / 65535)
    write_confidence(tmp_path / "c.npz", confidence)
    np.testing.assert_array_equal(np.load(tmp_path / "c.npz")["confidence"], confidence)
    with pytest.raises(InputError, match="exists already"):
        write_confidence(tmp_path / "c.png", confidence)
    for wrong in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"leaves 0\.\.1"):
            write_confidence(tmp_path / "d.png", np.full((2, 2), wrong))


def test_a_map_without_any_measurement(tmp_path):
    write_depth(tmp_path / "depth.png", np.full((4, 5), np.nan, np.float32))
    assert np.isnan(read_depth(tmp_path / "depth.png")).all()


@pytest.mark.parametrize(
    ("wrong", "unit", "expected"),
    [
        (70.0, "mm", ["depth 70 m", "0.001 to 65.535 m", "kitti", ".tiff", ".npy"]),
        (65.536, "mm", ["65.536 m", "kitti"]),
        (14.0, "tum", ["13.107 m", "mm or kitti"]),
        (300.0, "kitti", ["255.996 m", "use a .tiff"]),
        (70000.0, "m", ["65535 m", ".npy"]),
        (0.0004, "mm", ["depth 0.0004 m", "0.001 to", "tum"]),
        (0.001, "kitti", ["0.00390625 to", "mm or tum"]),
        (0.0, "mm", ["depth 0 m"]),
        (-0.25, "mm", ["depth -0.25 m"]),
        (np.inf, "mm", ["depth inf m", ".tiff"]),
    ],
)
def test_depth_out_of_range_is_refused(tmp_path, wrong, unit, expected):
    depth = np.full((4, 5), 2.0, np.float32)
    depth[1, 2] = wrong
    with pytest.raises(InputError) as caught:
        write_depth(tmp_path / "depth.png", depth, unit)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'depth.png'}: ")
    assert "\n" not in message and " in column 2, row 1 does not fit (1 such pixels)" in message
    for part in expected:
        assert part in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["depth.jpg", "depth", ".png", "depth.png.bak"])
def test_unknown_ending_names_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"expected one of \.png, \.tif, \.tiff, \.exr, \.pfm, \.npy, \.npz"):
        write_depth(tmp_path / name, some_depth())
    assert not list(tmp_path.iterdir())


def test_an_existing_file_stays_unless_overwriting(tmp_path):
    path = tmp_path / "depth.png"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists already"):
        write_depth(path, some_depth())
    with pytest.raises(InputError, match="does not fit"):
        write_depth(path, np.full((2, 2), 99.0, np.float32), overwrite=True)
    assert path.read_bytes() == b"precious"
    write_depth(path, some_depth(), overwrite=True)
    assert read_depth(path).shape == (13, 17)


def test_bad_places(tmp_path):
    (tmp_path / "file").write_text("")
    for path, reason in [
        (tmp_path / "missing" / "depth.png", "does not exist"),
        (tmp_path / "file" / "depth.png", "is not a folder"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 300 + ".png"), "cannot be written"),
    ]:
        with pytest.raises(InputError, match=reason) as caught:
            check_output(path)
        assert "\n" not in str(caught.value)


def test_read_only_folder(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(InputError, match="is not writable"):
        check_output(tmp_path / "depth.png")


def test_check_output_accepts_any_ending_unless_told(tmp_path):
    check_output(tmp_path / "scores.csv")
    with pytest.raises(InputError, match=r"ends in '\.csv'"):
        check_output(tmp_path / "scores.csv", suffixes=DEPTH_OUTPUT_SUFFIXES)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def write_half(self, content):
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InputError, match="No space left"):
        write_depth(tmp_path / "depth.png", some_depth())
    assert not list(tmp_path.iterdir())


def test_mistakes_of_a_programmer(tmp_path):
    with pytest.raises(ValueError, match="unknown"):
        write_depth(tmp_path / "depth.png", some_depth(), "inch")
    with pytest.raises(ValueError, match="depth scale is -1"):
        write_depth(tmp_path / "depth.png", some_depth(), scale=-1)
    for name in ("software", "depth_scale", "depth", "file", "a b", "größe"):
        with pytest.raises(ValueError, match="is taken or no ASCII identifier"):
            write_depth(tmp_path / "depth.npz", some_depth(), metadata={name: "x"})
    with pytest.raises(ValueError, match="expected \\[height, width\\]"):
        write_depth(tmp_path / "depth.png", some_depth()[None])
    with pytest.raises(ValueError, match="expected uint8"):
        write_image(tmp_path / "image.png", some_depth())


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.JPEG"])
def test_image_keeps_its_colours(tmp_path, name):
    rgb = np.zeros((16, 24, 3), np.uint8)
    rgb[:, :8, 0], rgb[:, 8:16, 1], rgb[:, 16:, 2] = 250, 200, 150
    write_image(tmp_path / name, rgb)
    result = read_rgb(tmp_path / name).astype(int)
    np.testing.assert_allclose(result[:, 4::8], rgb[:, 4::8], atol=0 if name.endswith("png") else 6)
    with pytest.raises(InputError, match="exists already"):
        write_image(tmp_path / name, rgb)


def test_image_too_large_for_its_format(tmp_path):
    with pytest.raises(InputError, match="70000x1 pixels cannot be stored"):
        write_image(tmp_path / "image.jpg", np.zeros((1, 70000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_what_is_masked_is_written_as_unknown(tmp_path):
    depth = some_depth()
    depth[2, 3] = 60
    for ending in (".png", ".tiff", ".npz"):
        write_depth(tmp_path / f"depth{ending}", np.ma.masked_greater(depth, 50))
        expected = np.where(depth > 50, np.nan, depth)
        np.testing.assert_allclose(read_depth(tmp_path / f"depth{ending}"), expected, atol=6e-4, equal_nan=True)


def test_depth_that_no_float32_holds_or_that_is_no_real_number(tmp_path):
    for ending in (".tiff", ".npy"):
        with pytest.raises(InputError, match="depth 1e\\+39 m is more than a float32 holds"):
            write_depth(tmp_path / f"depth{ending}", np.array([[1e39, 1.0]]))
        for kind in (complex, bool, object):
            with pytest.raises(ValueError, match=r"depth is .*, expected \[height, width\] of real numbers"):
                write_depth(tmp_path / f"depth{ending}", np.ones((2, 3), kind))
    assert not list(tmp_path.iterdir())
