"""Point clouds and triangle meshes of a depth map and its RGB image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from depthup.data import Camera, InputError
from depthup.data.depth_encoding import without_mask
from depthup.surface import check_depth, grazing_steps, inverse_depth, joined

LARGEST_STEP = 0.05
"""Relative difference of neighbouring depths above which `mesh` cuts."""

_BAND = 256  # rows at a time


def point_cloud(depth: np.ndarray, camera: Camera, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that a depth map shows, in the frame of its camera: x to the right, y down, z forward.

    Args:
        depth: [H, W], z in metres, NaN where there is no measurement.
        camera: of this depth map.
        rgb: uint8 [H, W, 3], red first.

    Returns:
        Points, float32 [N, 3] in metres, and their colours, uint8 [N, 3]: one for each pixel whose depth is finite and
        > 0, row by row, so also those that fly between two surfaces; `on_surface` tells them.

    Raises:
        InputError: sizes that do not fit.
    """
    depth, rgb = without_mask(depth), np.asarray(rgb)
    camera = check_depth(depth, camera)
    if rgb.shape != (*depth.shape, 3) or rgb.dtype != np.uint8:
        H, W = depth.shape
        raise InputError(
            f"rgb: got {rgb.dtype} {list(rgb.shape)}, expected uint8 [{H}, {W}, 3], as depth is [{H}, {W}]"
        )
    known = _known(depth)
    rows, columns = np.nonzero(known)
    x, y = camera.directions()
    points = np.empty((len(rows), 3), np.float32)
    points[:, 2] = depth[known]
    points[:, 0] = x.astype(np.float32)[columns] * points[:, 2]
    points[:, 1] = y.astype(np.float32)[rows] * points[:, 2]
    return points, rgb[known]


def mesh(
    depth: np.ndarray, camera: Camera, rgb: np.ndarray, largest_step: float = LARGEST_STEP
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The surfaces that a depth map shows, as triangles between neighbouring pixels, cut at depth edges.

    No triangle joins depths that differ by more than `largest_step`, or more along a row or column than a
    surface seen at `depthup.surface.LARGEST_INCIDENCE_DEG` from its normal.

    Args:
        depth, camera, rgb: as in `point_cloud`.
        largest_step: largest difference between the depths of a triangle, relative to the nearest of them.

    Returns:
        Vertices and their colours, as of `point_cloud`, but only those of a face; and faces, int32 [M, 3], indices of
        vertices, counter-clockwise as the camera sees them, so that their normals point to the camera.

    Raises:
        InputError: sizes that do not fit.
    """
    depth = without_mask(depth)
    vertices, colours = point_cloud(depth, camera, rgb)
    index = np.cumsum(_known(depth), dtype=np.int32).reshape(depth.shape) - 1
    bands = list(_bands_of_faces(depth, index, check_depth(depth, camera), largest_step))
    used = np.zeros(len(vertices), bool)
    for faces in bands:
        used[faces] = True
    kept = np.cumsum(used, dtype=np.int32) - 1
    for faces in bands:
        faces[:] = kept[faces]  # a band at a time, so that no second copy of all is in memory
    return vertices[used], colours[used], np.concatenate([np.empty((0, 3), np.int32), *bands])


def on_surface(depth: np.ndarray, camera: Camera, largest_step: float = LARGEST_STEP) -> np.ndarray:
    """Which pixels lie on a surface: those that are a corner of a triangle of `mesh`.

    What is left out flies between two surfaces at a depth edge, or has no neighbours: a line one pixel wide is no
    surface either.

    Args:
        depth, camera, largest_step: as in `mesh`.

    Returns:
        bool [H, W].

    Raises:
        InputError: sizes that do not fit.
    """
    depth = without_mask(depth)
    camera = check_depth(depth, camera)
    corner = np.zeros(depth.size, bool)
    pixels = np.arange(depth.size, dtype=np.int32).reshape(depth.shape)
    for faces in _bands_of_faces(depth, pixels, camera, largest_step):
        corner[faces] = True
    return corner.reshape(depth.shape)


def _bands_of_faces(depth: np.ndarray, index: np.ndarray, camera: Camera, largest_step: float) -> Iterator[np.ndarray]:
    steps = grazing_steps(camera)
    for y in range(0, len(depth) - 1, _BAND):
        yield _faces(depth[y : y + _BAND + 1], index[y : y + _BAND + 1], steps, largest_step)


def _known(depth: np.ndarray) -> np.ndarray:
    return np.isfinite(depth) & (depth > 0)


def _faces(depth: np.ndarray, index: np.ndarray, steps: tuple[float, float], largest_step: float) -> np.ndarray:
    """int32 [M, 3]: up to two triangles in each square of four pixels, on the diagonal with the smaller step."""
    inverse = inverse_depth(depth)
    right, below = joined(inverse, *(min(step, largest_step) for step in steps))
    ab, cd, ac, bd = right[:-1], right[1:], below[:, :-1], below[:, 1:]
    falling = _step(inverse[:-1, :-1], inverse[1:, 1:])
    rising = _step(inverse[:-1, 1:], inverse[1:, :-1])
    on_falling = (falling <= rising) | np.isnan(rising)  # where a pixel is unknown, its diagonal is
    fits_falling = on_falling & (falling <= largest_step)
    fits_rising = ~on_falling & (rising <= largest_step)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = [
        (fits_falling & ac & cd, (a, c, d)),
        (fits_falling & bd & ab, (a, d, b)),
        (fits_rising & ac & ab, (a, c, b)),
        (fits_rising & cd & bd, (b, c, d)),
    ]
    return np.concatenate([np.stack([p[chosen] for p in corners], axis=-1) for chosen, corners in triangles])


def _step(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of two depths relative to the nearer one, of their inverses; NaN where one is unknown."""
    return np.maximum(a, b) / np.minimum(a, b) - 1
