"""Normals: exact on planes, never from both sides of a depth edge."""

import dataclasses

import numpy as np
import pytest

from depthup.data import Camera, InputError
from depthup.surface import normals
from depthup.visualize import NO_MEASUREMENT, colourise_normals

CAMERA = Camera(210.0, 205.0, 100.3, 70.1, 200, 150)
PLANE = np.array([0.3, -0.5, 1.0])  # a normal; the plane is PLANE . P = 2 m


def plane_depth(camera: Camera, normal: np.ndarray = PLANE, distance: float = 2.0) -> np.ndarray:
    """float64 [H, W], z of the plane normal . P = distance."""
    x, y = camera.directions()
    return distance / (normal[0] * x + normal[1] * y[:, None] + normal[2])


@pytest.mark.parametrize("size", [(200, 150), (31, 300), (1600, 1200)])
def test_a_slanted_plane_has_its_own_normal(size):
    camera = CAMERA.scaled_to(*size)
    result = normals(plane_depth(camera).astype(np.float32), camera)
    assert result.dtype == np.float32
    towards_camera = -PLANE / np.linalg.norm(PLANE)
    np.testing.assert_allclose(result, np.broadcast_to(towards_camera, result.shape), atol=1e-3)


def test_a_sphere():
    x, y = CAMERA.directions()
    rays = np.stack(np.broadcast_arrays(x, y[:, None], 1.0), axis=-1)
    centre, radius = np.array([0.05, -0.02, 2.0]), 0.5
    along, squared = rays @ centre, np.sum(rays**2, axis=-1)
    with np.errstate(invalid="ignore"):
        z = (along - np.sqrt(along**2 - squared * (centre @ centre - radius**2))) / squared
    expected = (rays * z[..., None] - centre) / radius
    result = normals(z, CAMERA)
    facing = np.sum(expected * rays, axis=-1) / np.sqrt(squared) < -0.5
    assert np.isfinite(result[facing]).all()
    assert np.min(np.sum(result * expected, axis=-1)[facing]) > np.cos(np.radians(1))


def test_normals_point_to_the_camera_and_have_unit_length():
    depth = np.random.default_rng(0).uniform(1, 1.01, (150, 200))
    result = normals(depth, CAMERA)
    x, y = CAMERA.directions()
    assert (result[..., 0] * x + result[..., 1] * y[:, None] + result[..., 2] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(result, axis=-1), 1, rtol=1e-5)


def test_the_two_sides_of_an_edge_do_not_mix():
    left, right = np.array([0.4, 0.0, 1.0]), np.array([-0.2, 0.3, 1.0])
    depth = plane_depth(CAMERA, left)
    depth[:, 90:] = plane_depth(CAMERA, right, 3.0)[:, 90:]
    result = normals(depth, CAMERA)
    for part, normal in ((result[:, :90], left), (result[:, 90:], right)):
        expected = np.broadcast_to(-normal / np.linalg.norm(normal), part.shape)
        np.testing.assert_allclose(part, expected, atol=1e-6)


def test_unknown_and_lonely_pixels_have_none():
    depth = np.full((150, 200), np.nan)
    depth[10:20, 10:20] = 2  # a surface
    depth[12, 12] = np.nan
    depth[40, 30:50] = 2  # one row: no neighbour in y
    depth[60, 60] = 2
    depth[70:80, 70:80] = [[0.0], [-1.0], [np.inf]] * 3 + [[0.0]]
    known = np.isfinite(normals(depth, CAMERA)).all(axis=-1)
    expected = np.zeros_like(known)
    expected[10:20, 10:20] = True
    expected[12, 12] = False
    np.testing.assert_array_equal(known, expected)


def test_bands_of_rows_do_not_show():
    camera = Camera(500.0, 500.0, 20.0, 300.0, 40, 601)
    depth = np.random.default_rng(0).uniform(1, 1.01, (601, 40))
    lower = dataclasses.replace(camera, cy=50.0, height=351)
    np.testing.assert_allclose(normals(depth, camera)[251:], normals(depth[250:], lower)[1:], atol=1e-6)


def test_colours():
    axes = np.array([[[1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 1], [np.nan, 0, -1]]], np.float32)
    result = colourise_normals(axes)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(
        result, [[[255, 128, 128], [128, 255, 128], [128, 128, 255], [128, 128, 0], NO_MEASUREMENT]]
    )


@pytest.mark.parametrize(
    "depth", [np.ones((150, 200, 1)), np.ones((75, 100)), np.ones((0, 200)), np.full((150, 200), "a")]
)
def test_depth_that_does_not_fit(depth):
    with pytest.raises(InputError):
        normals(depth, CAMERA)
