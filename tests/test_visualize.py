"""Pictures: colours that mean what they say, and a figure that is written whole."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from depthup.baselines import BASELINES
from depthup.data import InputError, crop_to_multiple, make_low_resolution, read_rgb
from depthup.visualize import NO_MEASUREMENT, ScaleRow, _crop, colourise, comparison_figure, methods_figure


def test_colourise_shows_holes_in_grey():
    depth = np.linspace(1, 5, 48).reshape(6, 8).astype(np.float32)
    depth[2, 3], depth[4, 4] = np.nan, np.inf
    image = colourise(depth)
    assert image.shape == (6, 8, 3)
    assert image.dtype == np.uint8
    grey = (image == NO_MEASUREMENT).all(2)
    np.testing.assert_array_equal(grey, ~np.isfinite(depth))


def test_colourise_is_brighter_when_nearer():
    brightness = colourise(np.linspace(1, 5, 50)[None]).astype(int) @ [299, 587, 114]
    assert (np.diff(brightness[0]) <= 0).all()


def test_colourise_with_limits_does_not_depend_on_the_rest():
    depth = np.array([[1.0, 2.0, 3.0, 9.0]])
    image = colourise(depth, near=1.0, far=3.0)
    np.testing.assert_array_equal(image[:, :2], colourise(depth[:, :2], near=1.0, far=3.0))
    np.testing.assert_array_equal(image[0, 2], image[0, 3])
    assert (image[0, 0] != image[0, 2]).any()


def test_colourise_ignores_outliers():
    depth = np.linspace(1, 5, 1000).reshape(20, 50)
    usual = colourise(depth).astype(int)
    depth[0, 0] = 1000.0
    np.testing.assert_allclose(colourise(depth)[1:], usual[1:], atol=3)


@pytest.mark.parametrize("value", [np.nan, 2.0])
def test_colourise_of_one_value(value):
    assert len(np.unique(colourise(np.full((3, 4), value)).reshape(-1, 3), axis=0)) == 1


def test_crop_is_where_the_error_is():
    error = np.zeros((40, 80), np.float32)
    error[22:30, 50:60] = 1.0
    error[:, 0] = np.nan
    rows, columns = _crop(error)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (10, 20)
    assert error[rows, columns].sum() == error[22:30, 50:60].sum()


def scene() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.full((96, 128), 4.0)
    truth[30:70, 40:90] = 2.0
    rgb = np.where(truth[..., None] > 3, 200, 60) + rng.integers(0, 40, (96, 128, 3))
    rgb = rgb.astype(np.uint8)
    low = make_low_resolution(truth, 8, "dkn")
    results = {name: BASELINES[name](rgb, low, 8) for name in ("bicubic", "joint-bilateral")}
    truth[:5, :7] = np.nan
    return rgb, low, results, truth


@pytest.mark.parametrize("unit", ["m", "disparity"])
def test_figure(tmp_path, unit):
    comparison_figure(tmp_path / "figure.png", *scene(), unit=unit, title="A box before a wall, x8")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    height, width = read_rgb(tmp_path / "figure.png").shape[:2]
    assert 2500 < width < 3200 and 800 < height < 1200
    assert (tmp_path / "figure.png").stat().st_size < 1_500_000


def test_figure_of_many_results_with_long_names_and_holes(tmp_path):
    rgb, low, results, truth = scene()
    low[3, 4] = np.nan
    results["runs/long/path/to/a/model/final.safetensors"] = np.where(truth > 3, truth, np.nan)
    comparison_figure(tmp_path / "figure.png", rgb, low, results, truth)
    assert read_rgb(tmp_path / "figure.png").shape[1] > 3400


def test_figure_does_not_depend_on_the_user_s_settings(tmp_path):
    import matplotlib

    comparison_figure(tmp_path / "plain.png", *scene())
    with matplotlib.rc_context({"font.size": 30, "savefig.bbox": "tight", "savefig.dpi": 40}):
        comparison_figure(tmp_path / "own.png", *scene())
    np.testing.assert_array_equal(read_rgb(tmp_path / "own.png"), read_rgb(tmp_path / "plain.png"))


def scale_row(scale: int) -> ScaleRow:
    rgb, _, _, truth = scene()
    rgb, truth = crop_to_multiple(rgb[:90], scale), crop_to_multiple(truth[:90], scale)
    low = np.nan_to_num(make_low_resolution(truth, scale, "dkn"), nan=4.0)
    results = {name: BASELINES[name](rgb, low, scale) for name in ("bicubic", "joint-bilateral")}
    results["joint-bilateral"][:9] = np.nan
    return ScaleRow(scale, rgb, low, truth, results, dict.fromkeys(results, 1.25))


@pytest.mark.parametrize("unit", ["m", "disparity"])
def test_figure_of_methods(tmp_path, unit):
    rows = [scale_row(4), scale_row(16)]  # 88 and 80 rows high
    heights = []
    for count in (1, 2):
        methods_figure(tmp_path / "figure.png", rows[:count], unit, "A box before a wall\nprotocol dkn")
        assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
        height, width = read_rgb(tmp_path / "figure.png").shape[:2]
        assert 1700 < width < 2100
        heights.append(height)
    assert 1.6 < heights[1] / heights[0] < 1.9  # a second pair of lines


def test_figure_of_methods_refuses_what_does_not_fit(tmp_path):
    row = scale_row(4)
    with pytest.raises(ValueError, match="expected one of m, disparity"):
        methods_figure(tmp_path / "figure.png", [row], "mm", "")
    with pytest.raises(ValueError, match="do not fit"):
        methods_figure(tmp_path / "figure.png", [replace(row, truth=row.truth[:-1])], "m", "")
    with pytest.raises(ValueError, match="no known pixel"):
        methods_figure(tmp_path / "figure.png", [replace(row, truth=row.truth * np.nan)], "m", "")
    with pytest.raises(InputError, match=r"expected one of \.png"):
        methods_figure(tmp_path / "figure.jpg", [row], "m", "")
    assert not list(tmp_path.iterdir())


def test_figure_refuses_what_does_not_fit(tmp_path):
    rgb, low, results, truth = scene()
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="do not fit"):
        comparison_figure(path, rgb[:-1], low, results, truth)
    with pytest.raises(ValueError, match="do not fit"):
        comparison_figure(path, rgb, low, {"short": truth[:-1]}, truth)
    with pytest.raises(ValueError, match="do not fit"):
        comparison_figure(path, rgb, low, {}, truth)
    with pytest.raises(ValueError, match="expected one of m, disparity"):
        comparison_figure(path, rgb, low, results, truth, unit="mm")
    with pytest.raises(ValueError, match="no known pixel"):
        comparison_figure(path, rgb, low, results, np.full_like(truth, np.nan))
    with pytest.raises(InputError, match="does not exist"):
        comparison_figure(tmp_path / "missing" / "figure.png", rgb, low, results, truth)
    with pytest.raises(InputError, match=r"expected one of \.png"):
        comparison_figure(tmp_path / "figure.xyz", rgb, low, results, truth)
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_imported_late():
    code = "import sys, depthup.visualize; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
