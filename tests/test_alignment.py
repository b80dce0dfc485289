"""Alignment: analytic scenes from another viewpoint, with what hides what."""

import cv2
import numpy as np
import pytest

from depthup.alignment import _cells, align, aligned_size, behind_shadows
from depthup.data import Camera, InputError
from depthup.pair_files import Alignment, PairOptions, read_pair, upsample_pair
from depthup.surface import inverse_depth, joined
from depthup.upsampling import Upsampler

SENSOR = Camera(100.0, 100.0, 79.5, 59.5, 160, 120)
RGB = Camera(300.0, 300.0, 319.5, 239.5, 640, 480)
NORMAL = np.array([0.3, -0.5, 1.0])
SIZES = [None, (160, 120), (640, 480), (213, 160), (57, 91), (20, 15), (1, 1)]


def plane_depth(camera: Camera, normal: np.ndarray = NORMAL, distance: float = 2.0) -> np.ndarray:
    x, y = camera.directions()
    return distance / (normal[0] * x + normal[1] * y[:, None] + normal[2])


def pose(rotation=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = cv2.Rodrigues(np.array(rotation))[0], translation
    return matrix


def some_depth() -> np.ndarray:
    """Noise, holes, edges, and samples without a neighbour."""
    rng = np.random.default_rng(0)
    depth = plane_depth(SENSOR) * rng.uniform(0.99, 1.01, (120, 160))
    depth[30:60, 50:90] = 0.7
    depth[rng.random(depth.shape) < 0.3] = np.nan
    depth[::9, ::7] *= 1.5
    return depth.astype(np.float32)


def test_the_same_camera_gives_back_the_input():
    depth = some_depth()
    result = align(depth, SENSOR, SENSOR, np.eye(4))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, depth, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "depth_to_rgb",
    [pose(), pose(translation=(0.1, -0.05, 0.2)), pose((0.05, -0.1, 0.4), (0.03, 0.0, -0.1))],
    ids=["identity", "translated", "rotated"],
)
def test_a_plane_has_its_analytic_depth_on_any_grid(size, depth_to_rgb):
    result = align(plane_depth(SENSOR), SENSOR, RGB, depth_to_rgb, size)
    grid = RGB.scaled_to(*(size or aligned_size(SENSOR, RGB)))
    R, t = depth_to_rgb[:3, :3], depth_to_rgb[:3, 3]
    expected = plane_depth(grid, R @ NORMAL, 2 + R @ NORMAL @ t)
    assert result.shape == expected.shape
    seen = np.isfinite(result)
    np.testing.assert_allclose(result[seen], expected[seen], rtol=1e-5)
    # Seen is what lies in the sensor's image, to its very border.
    x, y = grid.directions()
    points = np.stack(np.broadcast_arrays(x * expected, y[:, None] * expected, expected), axis=-1)
    X, Y, Z = np.moveaxis((points - t) @ R, -1, 0)
    columns, rows = SENSOR.fx * X / Z + SENSOR.cx, SENSOR.fy * Y / Z + SENSOR.cy
    outside = np.maximum(np.maximum(-0.5 - columns, columns - 159.5), np.maximum(-0.5 - rows, rows - 119.5))
    assert seen[outside < -0.01].all() and not seen[outside > 0.01].any()


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(160, 160), (640, 480), (480, 320), (53, 46)])
def test_a_box_hides_what_is_behind_it_and_uncovers_nothing(size, turns):
    """A box at 2 m before a wall at 4 m; 0.2 m to the right, the box moves by 10 sensor pixels, the wall by 5."""
    camera = Camera(100.0, 100.0, 79.5, 79.5, 160, 160)
    depth = np.full((160, 160), 4.0)
    depth[30:80, 60:100] = 2.0
    size = size[::-1] if turns % 2 else size  # of the turned image
    move = [(-0.2, 0, 0), (0, 0.2, 0), (0.2, 0, 0), (0, -0.2, 0)][turns]
    result = align(np.rot90(depth, turns), camera, camera, pose(translation=move), size)
    result = np.rot90(result, -turns)
    # In sensor pixels, from the left and upper border of the image.
    x = (np.arange(result.shape[1]) + 0.5) * 160 / result.shape[1]
    y = (np.arange(result.shape[0]) + 0.5) * 160 / result.shape[0]
    row = np.where(x < 155, 4.0, np.nan)
    box_row = np.where((x > 90) & (x < 95), np.nan, row)  # wall that the sensor did not see
    box_row[(x > 50) & (x < 90)] = 2
    expected = np.where(((y > 30) & (y < 80))[:, None], box_row, row)
    assert not np.isin(x, (50, 90, 95, 155)).any() and not np.isin(y, (30, 80)).any()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_nothing_shines_through_a_surface_that_grows():
    """Seen from 0.6 m nearer, the samples of a box at 1 m are 2.5 grid pixels apart."""
    depth = np.full((120, 160), 4.0)
    depth[30:90, 40:120] = 1.0
    result = align(depth, SENSOR, SENSOR, pose((0, 0, 0.3), (0.02, 0.01, -0.6)))
    np.testing.assert_allclose(result[40:80, 50:110], 0.4, rtol=1e-5)


def test_nothing_shines_through_a_steep_surface():
    """A wall beside the camera, seen at 80 degrees and before a far one, from a point that sees it less steeply."""
    normal = np.array([-np.cos(np.radians(10)), 0, np.sin(np.radians(10))])
    wall = plane_depth(SENSOR, normal, -0.2)
    near = (wall > 0) & (wall < 3)
    depth = np.where(near, wall, 6.0)
    depth_to_rgb = pose((0, 0.2, 0), (0.1, 0, 0))
    result = align(depth, SENSOR, SENSOR, depth_to_rgb)
    R, t = depth_to_rgb[:3, :3], depth_to_rgb[:3, 3]
    expected = plane_depth(SENSOR, R @ normal, -0.2 + R @ normal @ t)
    x, y = SENSOR.directions()
    points = np.stack(np.broadcast_arrays(x * expected, y[:, None] * expected, expected), axis=-1)
    X, _, Z = np.moveaxis((points - t) @ R, -1, 0)
    on_wall = (expected > 0) & (Z > 0) & (Z < 2.5) & (100 * X / Z + 79.5 < 158)
    assert on_wall.sum() > 1000
    seen = on_wall & np.isfinite(result)
    assert seen.sum() > 0.9 * on_wall.sum()
    np.testing.assert_allclose(result[seen], expected[seen], rtol=1e-4)


def test_nothing_shines_through_the_holes_of_a_surface():
    depth = np.full((120, 160), 4.0)
    depth[:, 40:] = 2.0
    rng = np.random.default_rng(0)
    holes = rng.random(depth.shape) < 0.3
    holes[:, :40] = False
    depth[holes] = np.nan
    result = align(depth, SENSOR, SENSOR, pose(translation=(0.3, 0, 0)))  # 15 pixels for the near one, 7.5 for the far
    np.testing.assert_allclose(result[:, 57:], np.where(holes, np.nan, depth)[:, 42:-15], rtol=1e-6)
    result = align(depth, SENSOR, SENSOR, pose(translation=(-0.3, 0, 0)))  # now the wall would shine through
    assert not (result[:, 26:] > 3).any()
    assert (result[:, 26:140] == 2).mean() > 0.65


def test_a_wide_hole_hides_nothing():
    depth = np.full((120, 160), 4.0)
    depth[:, 40:] = 2.0
    depth[:, 50:70] = np.nan
    result = align(depth, SENSOR, SENSOR, pose(translation=(-0.6, 0, 0)))  # 30 pixels for the near one, 15 for the far
    expected = np.r_[np.full(10, 4.0), np.full(10, 2.0), np.full(5, 4.0), np.full(15, np.nan)]
    np.testing.assert_allclose(result[60, :40], expected, rtol=1e-6)


def test_neighbours_of_one_surface_agree_on_their_corners():
    depth = np.random.default_rng(0).uniform(1, 1.1, (60, 60))
    steps = [0.06, 0.06]  # half of the neighbours are joined, many of them by a detour
    cells = _cells(inverse_depth(depth), steps)
    right, below = joined(inverse_depth(depth), *steps)
    upper_left, upper_right, lower_right, lower_left = np.moveaxis(cells, -1, 0)[1:]
    for corner, same in ((upper_right, upper_left), (lower_right, lower_left)):
        np.testing.assert_allclose(corner[:, :-1][right], same[:, 1:][right], rtol=1e-12)
    for corner, same in ((lower_left, upper_left), (lower_right, upper_right)):
        np.testing.assert_allclose(corner[:-1][below], same[1:][below], rtol=1e-12)


def test_a_window_stays_open():
    """A gap of more samples than noise makes shows what the sensor saw through it."""
    depth = np.full((120, 160), 2.0)
    depth[40:60, 60:80] = 4.0
    result = align(depth, SENSOR, SENSOR, pose(translation=(-0.2, 0, 0)))  # the window moves by 10, the wall by 5
    expected = np.r_[np.full(50, 2.0), np.full(5, np.nan), np.full(15, 4.0), np.full(80, 2.0), np.full(10, np.nan)]
    np.testing.assert_allclose(result[45], expected, rtol=1e-6)


def test_what_is_behind_the_rgb_camera_is_not_seen():
    depth = np.full((120, 160), 1.0)
    assert np.isnan(align(depth, SENSOR, RGB, pose(translation=(0, 0, -1)))).all()
    assert np.isnan(align(depth, SENSOR, RGB, pose((0, np.pi, 0)))).all()


def test_a_surface_that_goes_on_behind_the_rgb_camera():
    """A wall 1 m before the sensor, beside an RGB camera that looks along it: cells reach from before it to behind."""
    R = pose((0, np.radians(80), 0))[:3, :3]
    t = -R @ (0.4, 0.0, 0.8)
    depth_to_rgb = np.eye(4)
    depth_to_rgb[:3, :3], depth_to_rgb[:3, 3] = R, t
    wall = np.array([0.0, 0.0, 1.0])
    result = align(plane_depth(SENSOR, wall, 1.0), SENSOR, RGB, depth_to_rgb, (160, 120))
    expected = plane_depth(RGB.scaled_to(160, 120), R @ wall, 1 + R @ wall @ t)
    seen = np.isfinite(result)
    assert seen.mean() > 0.2
    np.testing.assert_allclose(result[seen], expected[seen], rtol=1e-5)


def test_what_is_no_measurement_is_not_seen():
    depth = np.full((120, 160), np.nan)
    depth[0], depth[1], depth[2] = 0, -1, np.inf
    assert np.isnan(align(depth, SENSOR, RGB, np.eye(4))).all()


def test_integers_are_metres():
    assert (align(np.full((120, 160), 2), SENSOR, SENSOR, np.eye(4)) == 2).all()


@pytest.mark.parametrize(
    ("sensor", "rgb", "size"),
    [
        (SENSOR, RGB, (213, 160)),
        (SENSOR, SENSOR, (160, 120)),
        (Camera(600, 600, 319.5, 239.5, 640, 480), RGB, (640, 480)),  # a sensor finer than RGB
        (Camera(8, 8, 3.5, 3.5, 8, 8), Camera(1000, 1000, 959.5, 539.5, 1920, 1080), (15, 9)),
    ],
)
def test_the_grid_has_about_the_pixels_of_the_sensor(sensor, rgb, size):
    assert aligned_size(sensor, rgb) == size


def test_sizes_that_do_not_fit():
    depth, identity = np.ones((120, 160)), np.eye(4)
    bare = Camera(300.0, 300.0, 319.5, 239.5)
    for arguments, found in [
        ((depth[0], SENSOR, RGB, identity), "depth: got"),
        ((depth[:60], SENSOR, RGB, identity), "160x120 and this one has 160x60"),
        ((depth, SENSOR, bare, identity), "size of the RGB image is not known"),
        ((depth, SENSOR, bare, identity, (16, 12)), "size of its image is not known"),
    ]:
        with pytest.raises(InputError, match=found):
            align(*arguments)
    mirrored, far = np.diag([1.0, 1, -1, 1]), np.eye(4)
    far[0, 3] = 50
    for pose in (identity[:3], 2 * identity, mirrored, far):
        with pytest.raises(InputError, match=r"depth_to_rgb: .*expected"):
            align(depth, SENSOR, RGB, pose)
    for arguments in [(depth, SENSOR, RGB, identity, (0, 12))]:
        with pytest.raises(ValueError, match="expected"):
            align(*arguments)


@pytest.mark.parametrize("shift", [(0.2, 0.03, 0.0), (-0.2, 0.03, 0.1), (0.02, 0.15, 0.0), (-0.02, -0.15, 0.0)])
def test_what_a_box_hides_from_the_sensor_alone_is_guessed_to_be_behind_it(shift):
    """A wall at 3 m, a box at 1 m: of the shadow beside it, as the RGB camera sees it, one end is near and one far."""
    sensor = np.full((120, 160), 3.0)
    sensor[40:80, 60:100] = 1.0
    depth_to_rgb = pose(translation=shift)
    seen = align(sensor, SENSOR, RGB, depth_to_rgb)
    guess = behind_shadows(seen, RGB, depth_to_rgb)
    found, wall = np.isfinite(guess), 3.0 + shift[2]
    assert np.isnan(seen[found]).all()
    np.testing.assert_allclose(guess[found], wall, rtol=1e-5)
    along = max(abs(n) for n in shift[:2])
    expected = SENSOR.fx * along * (1 / (1 + shift[2]) - 1 / wall)
    lines = found.any(1).sum() if abs(shift[0]) == along else found.any(0).sum()
    assert found.sum() / lines == pytest.approx(expected, abs=1.5) and lines == pytest.approx(40, abs=5)
    assert np.isnan(behind_shadows(seen, RGB, pose(translation=-np.array(shift)))).all()  # the wrong side
    assert np.isnan(behind_shadows(seen, RGB, pose())).all()
    wide = seen.copy()
    wide[:, :70] = wide[:70] = np.nan  # more than a shadow
    assert not np.isfinite(behind_shadows(wide, RGB, depth_to_rgb))[:69, :69].any()


def test_a_shadow_starts_from_what_is_behind_it_and_stays_unknown():
    sensor = np.full((120, 160), 3.0)
    sensor[40:80, 60:100] = 1.0
    depth_to_rgb = pose(translation=(0.2, 0.0, 0.0))
    low = align(sensor, SENSOR, RGB, depth_to_rgb, (160, 120))
    guess = behind_shadows(low, RGB, depth_to_rgb)
    rgb = np.full((480, 640, 3), 128, np.uint8)
    runs = [Upsampler("sensor-x4").run(rgb, low, None, (160 * 4, 120 * 4), "all", g).depth for g in (None, guess)]
    shadow = np.isfinite(guess).repeat(4, 0).repeat(4, 1)
    near = [(run[shadow] < 2).mean() for run in runs]
    assert near[1] < 0.5 * near[0]
    unknown = np.isnan(Upsampler("sensor-x4").run(rgb, low, None, (160 * 4, 120 * 4), "none", guess).depth)
    np.testing.assert_array_equal(unknown, np.isnan(low).repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(
        Upsampler("sensor-x4").run(rgb, low, guess=np.full_like(low, np.nan)).depth,
        Upsampler("sensor-x4").run(rgb, low).depth,
    )
    alike = Upsampler("sensor-x4").run(rgb, low, guess=np.where(np.isnan(guess), np.inf, guess).tolist())
    np.testing.assert_array_equal(alike.depth, Upsampler("sensor-x4").run(rgb, low, guess=guess).depth)
    with pytest.raises(InputError, match=r"guess: got \[2, 2\], expected \[120, 160\], as depth"):
        Upsampler("sensor-x4").run(rgb, low, guess=np.ones((2, 2)))


def test_commands_take_the_guess(tmp_path):
    sensor = np.full((120, 160), 3000, np.uint16)
    sensor[40:80, 60:100] = 1000
    cv2.imwrite(str(tmp_path / "depth.png"), sensor)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.full((480, 640, 3), 128, np.uint8))
    options = PairOptions("sensor-x4", alignment=Alignment(SENSOR, pose(translation=(0.2, 0.0, 0.0))))
    pair = read_pair(tmp_path / "rgb.png", tmp_path / "depth.png", options, camera=RGB)
    assert pair.guess is not None and np.isfinite(pair.guess).sum() > 300
    result = upsample_pair(options.upsampler(), pair, options, "pair").depth
    assert np.nanmax(np.abs(result - options.upsampler().run(pair.rgb, pair.depth).depth)) > 1


@pytest.mark.parametrize("keep", [False, True])
def test_isolated_samples_are_left_out_before_they_become_cells(tmp_path, keep):
    sensor = np.full((120, 160), 3000, np.uint16)
    wild = [(20, 30), (20, 33), (60, 100)]
    for place in wild:
        sensor[place] = 500
    cv2.imwrite(str(tmp_path / "depth.png"), sensor)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.full((480, 640, 3), 128, np.uint8))
    alignment = Alignment(SENSOR, pose(translation=(0.05, 0.0, 0.0)))
    results = []
    for model in ("sensor-x4", "bicubic"):
        options = PairOptions(model, alignment=alignment, keep_isolated=keep)
        pair = read_pair(tmp_path / "rgb.png", tmp_path / "depth.png", options, camera=RGB)
        results.append(upsample_pair(options.upsampler(), pair, options, "pair"))
    assert [run.isolated for run in results] == [0 if keep else 3, 0]
    assert ((results[0].depth < 2.9).sum() > 20) == keep
    assert (results[1].depth < 1).any()


def test_shadows_check_their_input():
    depth, camera = np.full((60, 80), 2.0), Camera(70, 70, 39.5, 29.5, 80, 60)
    found = behind_shadows(depth, camera, pose(translation=(0.05, 0, 0)).tolist())
    assert found.dtype == np.float32
    with pytest.raises(InputError, match="depth_to_rgb: "):
        behind_shadows(depth, camera, np.full((4, 4), np.nan))
