"""Depth of a sensor that stands beside the RGB camera, as the RGB camera would see it.

The samples of a depth map are cells of surfaces, not points: each is drawn as four triangles between its centre and the
corners of its pixel, and neighbours of one surface share their corners. So a surface has no holes from sampling, at any
resolution and from any side, and hides what is behind it.
"""

from __future__ import annotations

import math

import numpy as np

from depthup.calibration import check_pose
from depthup.compiling import compiler
from depthup.data import Camera, InputError
from depthup.data.depth_encoding import without_mask
from depthup.surface import check_depth, gradient, grazing_steps, inverse_depth, joined

_LARGEST_STEP = 0.02  # relative; of a noisy sensor's surface, in which cracks would open
_LARGEST_HOLE = 8  # samples, along a row or a column
_LEAST_SHADOW = 0.5  # samples
_ROUNDING = 2  # samples by which a shadow may be wider than it should: one at either end
_compile = compiler(nogil=True, error_model="numpy")


def aligned_size(depth_camera: Camera, rgb_camera: Camera) -> tuple[int, int]:
    """Width and height of a grid over the RGB image whose pixels are about as large as the sensor's.

    Raises:
        InputError: the size of the RGB image is not known.
    """
    if rgb_camera.width is None or rgb_camera.height is None:
        raise InputError("camera: the size of the RGB image is not known, expected width and height")
    focal_ratio = math.sqrt(depth_camera.fx * depth_camera.fy / (rgb_camera.fx * rgb_camera.fy))
    scale = min(1.0, focal_ratio)
    return max(1, round(rgb_camera.width * scale)), max(1, round(rgb_camera.height * scale))


def align(
    depth: np.ndarray,
    depth_camera: Camera,
    rgb_camera: Camera,
    depth_to_rgb: np.ndarray,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The depth that the RGB camera would measure, on a grid over its image.

    Where several surfaces lie behind a pixel, the nearest is seen. Holes of up to 8 samples between samples of one
    surface stay holes, but nothing behind them shines through. Lens distortion is not modelled: undistort both images
    first.

    Args:
        depth: [h, w], z in the frame of the sensor, in metres, NaN where there is no measurement.
        depth_camera: of the sensor.
        rgb_camera: of the RGB image, with its size.
        depth_to_rgb: [4, 4], takes points of the sensor's frame to the RGB camera's; see
            `depthup.calibration.read_transform`. Both frames: x to the right, y down, z forward, metres.
        size: width and height (w', h') of the grid; by default those of `aligned_size`. The result's own camera is
            `rgb_camera.scaled_to(w', h')`.

    Returns:
        float32 [h', w'], z in the RGB camera's frame, in metres, at the centres of the grid's pixels; NaN where the
        sensor saw nothing: outside its view, in its holes, and on what only the RGB camera sees.

    Raises:
        InputError: `depth` is not [h, w], a camera's image has another size, the RGB image's size is not known, or
            `depth_to_rgb` is no rotation and translation.
        ValueError: `size` is not positive.
    """
    depth, depth_to_rgb = without_mask(depth), np.asarray(depth_to_rgb, dtype=np.float64)
    depth_camera = check_depth(depth, depth_camera)
    check_pose(depth_to_rgb, "depth_to_rgb")
    width, height = aligned_size(depth_camera, rgb_camera) if size is None else size
    if width < 1 or height < 1:
        raise ValueError(f"size is {width}x{height}, expected at least 1x1")
    grid = rgb_camera.scaled_to(width, height)
    steps = [max(step, _LARGEST_STEP) for step in grazing_steps(depth_camera)]

    inverse = inverse_depth(depth)
    known = np.isfinite(inverse)
    closed = np.fmax(_close_rows(inverse, steps[0]), _close_rows(np.ascontiguousarray(inverse.T), steps[1]).T)
    cells = _cells(closed, steps)
    seen = _draw(cells, known, depth_camera, grid, depth_to_rgb)
    holes = np.isfinite(closed) & ~known
    if holes.any():
        hiding = _draw(cells, holes, depth_camera, grid, depth_to_rgb)
        seen[hiding > (1 + _LARGEST_STEP) * seen] = 0
    with np.errstate(divide="ignore"):
        return np.where(seen > 0, 1 / seen, np.nan).astype(np.float32)


def behind_shadows(depth: np.ndarray, rgb_camera: Camera, depth_to_rgb: np.ndarray) -> np.ndarray:
    """What is likely to lie in strips of aligned depth that only the RGB camera sees: the surface behind.

    A near object hides from the sensor a strip of what is behind it. Its width and side follow from the distance of the
    two cameras along rows, or along columns if that is larger. Other holes are left, as is most of what comes of a
    motion forwards or aslant.

    Args:
        depth: [h', w'], what `align` gave.
        rgb_camera, depth_to_rgb: as of `align`.

    Returns:
        float32 [h', w'], the farther of the samples at the two ends of a strip; NaN outside of strips.

    Raises:
        InputError: `depth` is not [h', w'], or `depth_to_rgb` is no rotation and translation.
    """
    depth, depth_to_rgb = without_mask(depth), np.asarray(depth_to_rgb, dtype=np.float64)
    check_pose(depth_to_rgb, "depth_to_rgb")
    grid = rgb_camera.scaled_to(depth.shape[1], depth.shape[0])
    parallax = np.array([grid.fx, grid.fy]) * depth_to_rgb[:2, 3]  # times inverse depth: pixels
    along_y = bool(abs(parallax[1]) > abs(parallax[0]))
    lines = depth.T if along_y else depth
    shift = float(parallax[int(along_y)])
    if shift < 0:  # so that the far end of every strip comes first
        lines = lines[:, ::-1]
    places = np.arange(lines.shape[1])
    known = np.isfinite(lines)
    before = np.maximum.accumulate(np.where(known, places, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, places, len(places))[:, ::-1], axis=1)[:, ::-1]
    far, near = (np.take_along_axis(lines, np.clip(ends, 0, len(places) - 1), 1) for ends in (before, after))
    between = ~known & (before >= 0) & (after < len(places))
    width = abs(shift) * (1 / near - 1 / far)
    shadow = between & (width > _LEAST_SHADOW) & (after - before - 1 <= width + _ROUNDING)
    found = np.where(shadow, far, np.nan).astype(np.float32)
    found = found[:, ::-1] if shift < 0 else found
    return np.ascontiguousarray(found.T if along_y else found)


def _cells(inverse: np.ndarray, steps: list[float]) -> np.ndarray:
    """float64 [h, w, 5]: inverse depth at each pixel's centre and its corners, clockwise from the upper left.

    A corner's value is the mean of what the pixels around it say that are of one surface, so that these agree on it.
    """
    inverse = np.pad(inverse, 1, constant_values=np.nan)
    right, below = joined(inverse, *steps)
    along_x, along_y = (np.nan_to_num(part) for part in gradient(inverse, right, below))
    return _corners(inverse, along_x, along_y, right, below)


def _draw(cells: np.ndarray, chosen: np.ndarray, camera: Camera, grid: Camera, transform: np.ndarray) -> np.ndarray:
    """float64 [h', w'], inverse depth of the nearest of the chosen cells at each pixel of the grid; 0 = none."""
    nearest = np.zeros((grid.height or 0, grid.width or 0))
    sensor, target = (np.array([c.fx, c.fy, c.cx, c.cy]) for c in (camera, grid))
    _rasterise(cells, chosen, sensor, target, np.ascontiguousarray(transform), nearest)
    return nearest


@_compile
def _close_rows(inverse, step):
    """Fills short runs of NaN in each row, linearly between ends whose depths differ by at most `step`, relative."""
    closed = inverse.copy()
    for row in closed:
        last = -1
        for x in range(row.size):
            if np.isnan(row[x]):
                continue
            gap = x - last - 1
            if last >= 0 and 0 < gap <= _LARGEST_HOLE:
                a, b = row[last], row[x]
                if max(a, b) <= (1 + step) * min(a, b):
                    for k in range(1, gap + 1):
                        row[last + k] = a + (b - a) * k / (gap + 1)
            last = x
    return closed


@_compile
def _corners(inverse, along_x, along_y, right, below):
    """As `_cells`, of arrays with one unknown pixel around them."""
    h, w = inverse.shape[0] - 2, inverse.shape[1] - 2
    cells = np.full((h, w, 5), np.nan)
    for y in range(1, h + 1):
        for x in range(1, w + 1):
            if np.isnan(inverse[y, x]):
                continue
            cells[y - 1, x - 1, 0] = inverse[y, x]
            for corner in range(4):
                dx, dy = (-1, 1, 1, -1)[corner], (-1, -1, 1, 1)[corner]
                left, top = min(x, x + dx), min(y, y + dy)
                beside, opposite = right[y, left], right[y + dy, left]
                vertical, across = below[top, x], below[top, x + dx]
                total = _at_corner(inverse, along_x, along_y, y, x, dy, dx)
                count = 1
                if beside or (vertical and opposite and across):
                    total += _at_corner(inverse, along_x, along_y, y, x + dx, dy, -dx)
                    count += 1
                if vertical or (beside and across and opposite):
                    total += _at_corner(inverse, along_x, along_y, y + dy, x, -dy, dx)
                    count += 1
                if (beside and across) or (vertical and opposite):
                    total += _at_corner(inverse, along_x, along_y, y + dy, x + dx, -dy, -dx)
                    count += 1
                cells[y - 1, x - 1, 1 + corner] = total / count
    return cells


@_compile
def _at_corner(inverse, along_x, along_y, y, x, dy, dx):
    """What a pixel says about its corner: the plane through it; within a factor of its own inverse depth."""
    own = inverse[y, x]
    value = own + 0.5 * (dx * along_x[y, x] + dy * along_y[y, x])
    return min(max(value, 0.5 * own), 2 * own)


@_compile
def _rasterise(cells, chosen, sensor, target, transform, nearest):
    """Draws the cells into `nearest`, whose inverse depths only grow."""
    u, v, inverse = np.empty(5), np.empty(5), np.empty(5)
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            if chosen[y, x] and _project(cells[y, x], x, y, sensor, target, transform, u, v, inverse):
                for corner in range(4):
                    _triangle(u, v, inverse, 1 + corner, 1 + (corner + 1) % 4, nearest)


@_compile
def _project(cell, x, y, sensor, target, transform, u, v, inverse):
    """Where the centre and the corners of a cell are seen; False if it reaches behind the camera."""
    for k in range(5):
        dx, dy = (0.0, -0.5, 0.5, 0.5, -0.5)[k], (0.0, -0.5, -0.5, 0.5, 0.5)[k]
        a, b = (x + dx - sensor[2]) / sensor[0], (y + dy - sensor[3]) / sensor[1]
        X = _coordinate(transform[0], a, b, cell[k])
        Y = _coordinate(transform[1], a, b, cell[k])
        Z = _coordinate(transform[2], a, b, cell[k])
        if Z < 1e-3:
            return False
        u[k], v[k] = target[0] * X / Z + target[2], target[1] * Y / Z + target[3]
        inverse[k] = cell[k] / Z
    return True


@_compile
def _coordinate(row, a, b, inverse):
    """A coordinate in the RGB camera's frame, over the depth in the sensor's."""
    return row[0] * a + row[1] * b + row[2] + row[3] * inverse


@_compile
def _triangle(u, v, inverse, p, q, nearest):
    """Draws the triangle of a cell's centre and its corners p and q: inverse depth is linear on it."""
    pu, pv, qu, qv = u[p] - u[0], v[p] - v[0], u[q] - u[0], v[q] - v[0]
    area = pu * qv - pv * qu
    if abs(area) < 1e-12:
        return
    height, width = nearest.shape
    margin = 1e-6  # pixels: a centre on an edge is in both triangles
    first, last = min(u[0], u[p], u[q]) - margin, max(u[0], u[p], u[q]) + margin
    top, bottom = min(v[0], v[p], v[q]) - margin, max(v[0], v[p], v[q]) + margin
    for y in range(int(np.ceil(max(top, 0.0))), int(np.floor(min(bottom, height - 1.0))) + 1):
        for x in range(int(np.ceil(max(first, 0.0))), int(np.floor(min(last, width - 1.0))) + 1):
            du, dv = x - u[0], y - v[0]
            weight_p, weight_q = (du * qv - dv * qu) / area, (pu * dv - pv * du) / area
            weight_0 = 1 - weight_p - weight_q
            if min(weight_0, weight_p, weight_q) >= -1e-6:
                value = weight_0 * inverse[0] + weight_p * inverse[p] + weight_q * inverse[q]
                nearest[y, x] = max(nearest[y, x], value)
