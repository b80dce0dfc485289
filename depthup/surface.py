"""Surfaces in a depth map: which neighbours belong to one, and the normals of each.

The inverse depth of a plane is linear in the pixel coordinates: with r = (X/Z, Y/Z, 1) the direction of a pixel, a
plane n . P = d has 1/Z = n . r / d. So differences of inverse depth, one-sided or central, are exact on planes.
"""

from __future__ import annotations

import math

import numpy as np

from depthup.data import Camera, InputError
from depthup.data.depth_encoding import without_mask

LARGEST_INCIDENCE_DEG = 85
"""Neighbours are not of one surface if that surface would be seen at a larger angle from its normal."""

_BAND = 256  # rows at a time: 12 megapixels in double precision need not be in memory at once


def check_depth(depth: np.ndarray, camera: Camera) -> Camera:
    """The camera of a depth map, with its size.

    Raises:
        InputError: `depth` is not real numbers [H, W], or the camera's image has another size.
    """
    if depth.ndim != 2 or depth.dtype.kind not in "fiu" or 0 in depth.shape:
        raise InputError(f"depth: got {depth.dtype} {list(depth.shape)}, expected real numbers [H, W]")
    height, width = depth.shape
    return camera.of_image(width, height)


def inverse_depth(depth: np.ndarray) -> np.ndarray:
    """float64 1 / depth, NaN where depth is not finite or not > 0."""
    depth = depth.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((depth > 0) & (depth < np.inf), 1 / depth, np.nan)


def grazing_steps(camera: Camera) -> tuple[float, float]:
    """Relative step of depth from a pixel to the next in x and in y, at `LARGEST_INCIDENCE_DEG`."""
    slope = math.tan(math.radians(LARGEST_INCIDENCE_DEG))
    return slope / camera.fx, slope / camera.fy


def joined(inverse: np.ndarray, step_x: float, step_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Where neighbours are of one surface: their depths differ by at most `step` of the nearer one's depth.

    Args:
        inverse: float64 [H, W], 1 / depth, NaN where unknown.
        step_x, step_y: largest relative step to the next column and to the next row.

    Returns:
        bool [H, W - 1], each pixel with the one to its right, and bool [H - 1, W], each with the one below.
    """

    def close(a: np.ndarray, b: np.ndarray, step: float) -> np.ndarray:
        return np.maximum(a, b) <= (1 + step) * np.minimum(a, b)

    return close(inverse[:, :-1], inverse[:, 1:], step_x), close(inverse[:-1], inverse[1:], step_y)


def gradient(inverse: np.ndarray, right: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences of inverse depth per pixel, central, or one-sided where only one neighbour is joined.

    Args:
        inverse, right, below: as in `joined`.

    Returns:
        float64 [H, W] along x and along y, NaN where no neighbour in that direction is joined.
    """
    return _gradient_x(inverse, right), _gradient_x(inverse.T, below.T).T


def _gradient_x(inverse: np.ndarray, right: np.ndarray) -> np.ndarray:
    step = np.where(right, inverse[:, 1:] - inverse[:, :-1], 0)
    total, count = np.zeros(inverse.shape), np.zeros(inverse.shape)
    for columns in (slice(None, -1), slice(1, None)):
        total[:, columns] += step
        count[:, columns] += right
    with np.errstate(invalid="ignore"):
        return total / count


def normals(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Unit normals of the surfaces, towards the camera.

    From differences between neighbours that belong to one surface (see `joined`), so not across a step that is steeper
    along a row or column than a surface seen at `LARGEST_INCIDENCE_DEG`. Exact on planes; of noisy depth they are as
    noisy as its differences.

    Args:
        depth: [H, W], z in metres, NaN where there is no measurement.
        camera: of this depth map.

    Returns:
        float32 [H, W, 3]: x to the right, y down, z forward, so that z is mostly negative; NaN where depth is unknown
        or has no neighbour on its surface in x or in y.

    Raises:
        InputError: `depth` is not [H, W], or the camera's image has another size.
    """
    depth = without_mask(depth)
    camera = check_depth(depth, camera)
    x, y = camera.directions()
    steps = grazing_steps(camera)
    result = np.empty((*depth.shape, 3), np.float32)
    for top in range(0, len(depth), _BAND):
        first, end = max(top - 1, 0), min(top + _BAND, len(depth))
        inverse = inverse_depth(depth[first : end + 1])
        along_x, along_y = gradient(inverse, *joined(inverse, *steps))
        a, b = camera.fx * along_x, camera.fy * along_y
        normal = -np.stack([a, b, inverse - a * x - b * y[first : end + 1, None]], axis=-1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        result[top:end] = normal[top - first : end - first]
    return result
