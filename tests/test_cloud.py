"""Point clouds and meshes: points on their surfaces, faces on one surface each."""

import numpy as np
import pytest

from depthup.alignment import align
from depthup.cloud import mesh, on_surface, point_cloud
from depthup.data import Camera, InputError
from depthup.surface import normals

CAMERA = Camera(210.0, 205.0, 100.3, 70.1, 200, 150)
NORMAL = np.array([0.3, -0.5, 1.0])


def slanted(camera: Camera = CAMERA) -> np.ndarray:
    """float32 [H, W], z of the plane NORMAL . P = 2 m."""
    x, y = camera.directions()
    return (2 / (NORMAL[0] * x + NORMAL[1] * y[:, None] + NORMAL[2])).astype(np.float32)


def some_rgb(height: int = 150, width: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return np.cross(b - a, c - a)


def test_points_of_a_plane_lie_on_it_and_are_seen_where_they_were():
    depth, rgb = slanted(), some_rgb()
    depth[20:30, 40:60], depth[0, 0], depth[0, 1] = np.nan, np.inf, 0
    points, colours = point_cloud(depth, CAMERA, rgb)
    known = np.isfinite(depth) & (depth > 0)
    assert (points.dtype, colours.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(points @ NORMAL, 2, atol=1e-5)
    rows, columns = np.nonzero(known)
    np.testing.assert_allclose(CAMERA.fx * points[:, 0] / points[:, 2] + CAMERA.cx, columns, atol=1e-4)
    np.testing.assert_allclose(CAMERA.fy * points[:, 1] / points[:, 2] + CAMERA.cy, rows, atol=1e-4)
    np.testing.assert_array_equal(points[:, 2], depth[known])
    np.testing.assert_array_equal(colours, rgb[known])


@pytest.mark.parametrize("size", [(200, 150), (31, 300), (16, 12)])
def test_a_plane_is_one_sheet_that_faces_the_camera(size):
    camera = CAMERA.scaled_to(*size)
    vertices, _, faces = mesh(slanted(camera), camera, some_rgb(size[1], size[0]), largest_step=0.5)
    assert faces.dtype == np.int32
    assert len(faces) == 2 * (size[0] - 1) * (size[1] - 1)
    np.testing.assert_array_equal(np.unique(faces), np.arange(len(vertices)))
    directions = face_normals(vertices, faces)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(
        directions, np.broadcast_to(-NORMAL / np.linalg.norm(NORMAL), directions.shape), atol=0.01
    )


def test_no_face_crosses_a_depth_edge():
    depth = np.full((150, 200), 3.0)
    depth[40:90, 50:120] = 2.0
    vertices, _, faces = mesh(depth, CAMERA, some_rgb())
    z = vertices[faces][:, :, 2]
    assert (z == z[:, :1]).all()
    inside, whole = 2 * 49 * 69, 2 * 149 * 199
    assert len(faces) == whole - 2 * (51 * 71 - 49 * 69) + 4  # a square with a corner of the box keeps one triangle
    assert np.count_nonzero(z[:, 0] == 2) == inside


def test_the_largest_step_is_relative_to_the_nearer_depth():
    camera = Camera(20.0, 20.0, 9.5, 9.5, 20, 20)  # so coarse that no angle cuts here
    depth = np.full((20, 20), 2.0)
    depth[:, 10:] = 2.2
    sheet, gap = 2 * 19 * 19, 2 * 19
    assert len(mesh(depth, camera, some_rgb(20, 20), largest_step=0.11)[2]) == sheet
    assert len(mesh(depth, camera, some_rgb(20, 20), largest_step=0.09)[2]) == sheet - gap


def test_a_grazing_step_is_cut_however_small():
    camera = Camera(3000.0, 3000.0, 9.5, 9.5, 20, 20)
    depth = np.full((20, 20), 2.0)
    depth[:, 10:] = 2.02  # 1 %, at 88 degrees
    assert len(mesh(depth, camera, some_rgb(20, 20), largest_step=0.05)[2]) == 2 * 19 * 18


@pytest.mark.parametrize("hole", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_three_pixels_are_one_triangle(hole):
    camera = Camera(20.0, 20.0, 0.5, 0.5, 2, 2)
    depth = np.full((2, 2), 2.0)
    depth[hole] = np.nan
    vertices, _, faces = mesh(depth, camera, some_rgb(2, 2))
    assert sorted(faces.reshape(-1)) == [0, 1, 2]
    assert (face_normals(vertices, faces)[:, 2] < 0).all()


def test_the_third_side_of_a_triangle_counts_too():
    camera = Camera(20.0, 20.0, 0.5, 0.5, 2, 2)
    for depth in ([[1.0, np.nan], [1.04, 1.08]], [[np.nan, 1.0], [1.08, 1.04]]):
        assert len(mesh(np.array(depth), camera, some_rgb(2, 2), largest_step=0.05)[2]) == 0
        assert len(mesh(np.array(depth), camera, some_rgb(2, 2), largest_step=0.09)[2]) == 1


def test_faces_between_bands_of_rows():
    camera = Camera(500.0, 500.0, 2.0, 300.0, 5, 601)
    assert len(mesh(np.full((601, 5), 2.0), camera, some_rgb(601, 5))[2]) == 2 * 600 * 4


def test_nothing_known():
    depth = np.full((150, 200), np.nan)
    vertices, colours, faces = mesh(depth, CAMERA, some_rgb())
    assert vertices.shape == colours.shape == faces.shape == (0, 3)


def test_what_flies_between_two_surfaces_is_on_none():
    depth = np.full((600, 40), 3.0)  # more rows than are in memory at a time
    depth[:, 20:] = 2.0
    depth[:, 19] = 2.5
    depth[300, 5] = np.nan
    surface = on_surface(depth, Camera(210.0, 205.0, 20.3, 300.1, 40, 600))
    expected = np.isfinite(depth)
    expected[:, 19] = False
    np.testing.assert_array_equal(surface, expected)


def test_a_mesh_holds_the_corners_of_its_faces_and_nothing_else():
    depth = np.where(np.random.default_rng(3).random((600, 200)) < 0.3, np.nan, slanted(CAMERA.scaled_to(200, 600)))
    camera, rgb = CAMERA.scaled_to(200, 600), some_rgb(600, 200)  # more rows than are in memory at a time
    vertices, colours, faces = mesh(depth, camera, rgb)
    points, point_colours = point_cloud(np.where(on_surface(depth, camera), depth, np.nan), camera, rgb)
    assert len(vertices) < np.isfinite(depth).sum()
    np.testing.assert_array_equal(np.unique(faces), np.arange(len(vertices)))
    np.testing.assert_array_equal(vertices, points)
    np.testing.assert_array_equal(colours, point_colours)
    columns = camera.fx * vertices[faces][..., 0] / vertices[faces][..., 2] + camera.cx
    rows = camera.fy * vertices[faces][..., 1] / vertices[faces][..., 2] + camera.cy
    for seen in (columns, rows):
        np.testing.assert_allclose(np.ptp(seen, axis=1), 1, atol=1e-2)  # still triangles of neighbours


@pytest.mark.parametrize("make", [point_cloud, mesh])
def test_sizes_that_do_not_fit(make):
    for depth, rgb, found in [
        (slanted(), some_rgb(75, 100), r"rgb: got uint8 \[75, 100, 3\], expected uint8 \[150, 200, 3\]"),
        (slanted(), some_rgb().astype(float), "rgb: got float64"),
        (slanted()[:75], some_rgb(), "is for an image of 200x150 and this one has 200x75"),
        (slanted()[0], some_rgb(), "depth: got"),
    ]:
        with pytest.raises(InputError, match=found):
            make(depth, CAMERA, rgb)


def test_what_is_masked_is_unknown():
    depth = slanted()
    depth[40:60, 50:90] = 60
    masked, holes = np.ma.masked_greater(depth, 50), np.where(depth > 50, np.nan, depth)
    rgb = some_rgb()
    for make in (point_cloud, mesh):
        for one, other in zip(make(masked, CAMERA, rgb), make(holes, CAMERA, rgb), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(on_surface(masked, CAMERA), on_surface(holes, CAMERA))
    np.testing.assert_array_equal(normals(masked, CAMERA), normals(holes, CAMERA))
    pose = np.eye(4)
    np.testing.assert_array_equal(align(masked, CAMERA, CAMERA, pose), align(holes, CAMERA, CAMERA, pose))
    integers = np.ma.masked_equal(np.where(depth > 50, 9, depth.astype(np.uint16)), 9)
    assert len(point_cloud(integers, CAMERA, rgb)[0]) == (depth < 50).sum()
