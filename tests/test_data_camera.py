"""The camera: where points are seen, other resolutions, and numbers that no camera has."""

import dataclasses

import numpy as np
import pytest

from depthup.data import Camera, InputError

VGA = Camera(525.0, 520.0, 319.5, 239.5, 640, 480)


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Columns and rows [N, 2] of points [N, 3], by hand."""
    return np.stack(
        [
            camera.fx * points[:, 0] / points[:, 2] + camera.cx,
            camera.fy * points[:, 1] / points[:, 2] + camera.cy,
        ],
        axis=1,
    )


@pytest.mark.parametrize("size", [(320, 240), (1920, 1440), (97, 301), (1, 1)])
def test_scaling_moves_a_point_as_half_pixel_centres_do(size):
    points = np.random.default_rng(0).uniform([-1, -1, 1], [1, 1, 4], (50, 3))
    share = (project(VGA, points) + 0.5) / (640, 480)  # of the image's width and height, from its corner
    scaled = VGA.scaled_to(*size)
    assert (scaled.width, scaled.height) == size
    np.testing.assert_allclose((project(scaled, points) + 0.5) / size, share, rtol=1e-12)


def test_scaling_there_and_back():
    back = VGA.scaled_to(97, 301).scaled_to(640, 480)
    np.testing.assert_allclose(dataclasses.astuple(back), dataclasses.astuple(VGA), rtol=1e-12)


def test_the_centre_of_an_image_stays_the_centre():
    half = VGA.scaled_to(320, 240)
    assert (half.cx, half.cy) == (159.5, 119.5)


def test_directions_lead_to_pixel_centres():
    x, y = VGA.directions()
    points = np.stack([x, np.broadcast_to(y[7], x.shape), np.ones_like(x)], axis=1) * 3
    expected = np.stack([np.arange(640), np.full(640, 7)], axis=1)
    np.testing.assert_allclose(project(VGA, points), expected, atol=1e-10)


def test_an_image_gives_a_camera_its_size():
    camera = Camera(525, 525, 319.5, 239.5).of_image(640, 480)
    assert (camera.width, camera.height) == (640, 480)
    assert camera.of_image(640, 480) is camera


def test_an_image_of_another_size_is_refused_and_told_what_would_fit():
    half = VGA.scaled_to(320, 240)
    NUMBERS = f"640x480 and this one has 320x240.* are {half.fx:g},{half.fy:g},{half.cx:g},{half.cy:g}$"
    with pytest.raises(InputError, match=NUMBERS):
        VGA.of_image(320, 240)


@pytest.mark.parametrize("use", [lambda camera: camera.scaled_to(320, 240), Camera.directions])
def test_without_a_size(use):
    with pytest.raises(InputError, match="size of its image is not known"):
        use(Camera(525, 525, 319.5, 239.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": 0}, "fx is 0"),
        ({"fy": -525.0}, "fy is -525"),
        ({"fx": float("nan")}, "fx is nan"),
        ({"fy": float("inf")}, "fy is inf"),
        ({"cx": float("nan")}, "cx is nan"),
        ({"cy": 9000.0}, "cy is 9000"),
        ({"cx": 1400.0}, "cx is 1400 in an image of 640"),
        ({"fx": 0.82, "cx": 0.5}, "fx is 0.82 for an image of 640"),
        ({"width": None}, "both or neither"),
        ({"width": 0}, "0 pixels in x"),
    ],
)
def test_numbers_that_no_camera_has(change, message):
    with pytest.raises(InputError, match=message) as caught:
        dataclasses.replace(VGA, **change)
    assert "\n" not in str(caught.value)


def test_a_turned_image_is_told_from_one_of_another_size():
    camera = Camera(130, 130, 79.5, 59.5, 160, 120)
    with pytest.raises(InputError, match="is this one turned by 90 degrees, as EXIF may say"):
        camera.of_image(120, 160)
    with pytest.raises(InputError, match=r"fx,fy,cx,cy of this one are 260,260,159\.5,119\.5"):
        camera.of_image(320, 240)
