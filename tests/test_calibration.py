"""Calibration files: every layout that is read, and one line for everything else."""

import json
import logging
import re

import cv2
import numpy as np
import pytest

from depthup.calibration import parse_intrinsics, read_camera, read_transform
from depthup.data import Camera, InputError

K = [[525.0, 0.0, 319.5], [0.0, 520.0, 239.5], [0.0, 0.0, 1.0]]
ROWS = np.array(K).reshape(-1).tolist()
COLUMNS = np.array(K).T.reshape(-1).tolist()
BARE = Camera(525.0, 520.0, 319.5, 239.5)
SIZED = Camera(525.0, 520.0, 319.5, 239.5, 640, 480)

ROTATION = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))[0]
POSE = np.eye(4)
POSE[:3, :3], POSE[:3, 3] = ROTATION, (0.025, -0.001, 0.004)

SCANNET = """577.590698 0.000000 318.905426 0.000000
0.000000 578.729797 242.683609 0.000000
0.000000 0.000000 1.000000 0.000000
0.000000 0.000000 0.000000 1.000000
"""
ROS = """image_width: 640
image_height: 480
camera_name: head
camera_matrix:
  rows: 3
  cols: 3
  data: [525.0, 0, 319.5, 0, 520.0, 239.5, 0, 0, 1]
"""


def written(tmp_path, content, name="calibration"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_four_numbers():
    assert parse_intrinsics("525, 520,319.5,239.5") == BARE


@pytest.mark.parametrize(
    "text", ["", "525,520,319.5", "525,520,319.5,239.5,640", "a,b,c,d", "525,520,nan,3", "0,1,2,3"]
)
def test_not_four_numbers(text):
    with pytest.raises(InputError, match=r"intrinsics: .*expected") as caught:
        parse_intrinsics(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "camera"),
    [
        ({"fx": 525, "fy": 520, "cx": 319.5, "cy": 239.5}, BARE),
        ({"fx": 525, "fy": 520, "cx": 319.5, "cy": 239.5, "width": 640, "height": 480}, SIZED),
        ({"width": 640, "height": 480, "ppx": 319.5, "ppy": 239.5, "fx": 525, "fy": 520, "model": 4}, SIZED),
        ({"K": K}, BARE),
        ({"camera_matrix": ROWS, "image_width": 640, "image_height": 480}, SIZED),
        ({"camera_matrix": {"rows": 3, "cols": 3, "data": ROWS}}, BARE),
        ({"width": 640, "height": 480, "intrinsic_matrix": COLUMNS}, SIZED),  # Open3D
        ({"intrinsic": {"width": 640, "height": 480, "intrinsic_matrix": COLUMNS}, "extrinsic": [1]}, SIZED),
        ({"K": COLUMNS, "w": 640, "h": 480, "dw": 192}, SIZED),  # Record3D
        ({"intrinsics": np.array(K).T.tolist()}, BARE),  # ARKit's columns
        ({"intrinsics": {"fx": 525, "fy": 520, "cx": 319.5, "cy": 239.5}}, BARE),
        ({"width": 640, "height": 480, "intrinsics": {"fx": 525, "fy": 520, "cx": 319.5, "cy": 239.5}}, SIZED),
        ({"width": 640, "height": 480, "intrinsic": {"K": K}}, SIZED),
        (K, BARE),
        (ROWS, BARE),
    ],
)
def test_json(tmp_path, content, camera):
    assert read_camera(written(tmp_path, content)) == camera


@pytest.mark.parametrize(
    ("content", "camera"),
    [
        (SCANNET, Camera(577.590698, 578.729797, 318.905426, 242.683609)),
        ("525 0 319.5\n0 520 239.5\n0 0 1", BARE),
        ("# Stray Scanner\n525, 0, 319.5\n0, 520, 239.5\n0, 0, 1\n", BARE),
        ("525 520 319.5 239.5\n", BARE),
        ("\ufeff525 520 319.5 239.5", BARE),
    ],
)
def test_rows_of_numbers(tmp_path, content, camera):
    assert read_camera(written(tmp_path, content, "intrinsic_depth.txt")) == camera


@pytest.mark.parametrize("name", ["camera.yml", "camera.xml", "camera.json"])
def test_files_that_opencv_wrote(tmp_path, name):
    path = tmp_path / name
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", np.array(K))
    storage.write("distortion_coefficients", np.zeros((1, 5)))
    storage.write("R", ROTATION)
    storage.write("T", POSE[:3, 3:])
    storage.release()
    assert read_camera(path) == SIZED
    np.testing.assert_allclose(read_transform(path), POSE, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distortion_coefficients", {"rows": 1, "cols": 5, "data": [0.1, 0, 0, 0, 0]}),
        ("D", [0, 0, -0.01, 0, 0]),
        ("coeffs", [[0.0, 1e-3]]),
        ("k1", 0.2),
        ("distortion", {"k1": 0.0, "p2": 0.01}),
    ],
)
def test_lens_distortion_is_warned_of(tmp_path, caplog, name, value):
    with caplog.at_level(logging.WARNING, "depthup"):
        assert read_camera(written(tmp_path, {"K": K, name: value})) == BARE
        assert f"calibration: has lens distortion ({name})" in caplog.text and "rectified" in caplog.text
        caplog.clear()
        assert read_camera(written(tmp_path, {"intrinsics": {"K": K, name: value}})) == BARE
        assert f"({name})" in caplog.text
        caplog.clear()
        none = json.loads(json.dumps({"K": K, name: value}), parse_float=lambda text: 0.0) | {"K": K}
        assert read_camera(written(tmp_path, none)) == BARE
        assert read_camera(written(tmp_path, {"K": K, "distortion_model": "plumb_bob", "distortion": "none"})) == BARE
        assert caplog.text == ""


def test_ros_yaml(tmp_path):
    assert read_camera(written(tmp_path, ROS, "head.yaml")) == SIZED


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "is empty"),
        ("{", "is no valid JSON"),
        ("[" * 100_000, "is no valid JSON"),
        ("{}", "has nothing in it"),
        ({"focal": 3}, "has only focal"),
        ({"fx": 525, "fy": 520}, "has only fx, fy"),
        ({"fx": "525", "fy": 520, "cx": 3, "cy": 2}, "something else than numbers"),
        ({"fx": None, "fy": 520, "cx": 3, "cy": 2}, "something else than numbers"),
        ({"K": [[1, 2], [3]]}, "something else than numbers"),
        ({"K": {"fx": 3}}, "something else than numbers"),
        ({"K": [1, 2, 3]}, "3 numbers, expected 3x3"),
        ({"K": [[525, 0, 319.5], [0, 520, 239.5], [0, 0, 2]]}, "last row of the camera matrix is 0 0 2"),
        ({"K": [[525, 9, 319.5], [0, 520, 239.5], [0, 0, 1]]}, "skew"),
        ({"K": [[525, 0, 319.5], [9, 520, 239.5], [0, 0, 1]]}, "skew"),
        ({"K": [[0, 0, 319.5], [0, 520, 239.5], [0, 0, 1]]}, "focal length fx is 0"),
        ('{"K": [[NaN, 0, 3], [0, 520, 2], [0, 0, 1]]}', "not finite"),
        ({"K": K, "width": 640.5, "height": 480}, "image size is 640.5 x 480"),
        ({"K": K, "width": [640, 1], "height": [480, 1]}, "image size has 4 numbers, expected width and height"),
        ({"K": K, "width": 64, "height": 48}, "principal point cx is 319.5 in an image of 64"),
        ("1 2 3", "holds 3 numbers"),
        ("fx 525", "no number"),
        ("525 0 319.5 1\n0 520 239.5 0\n0 0 1 0\n0 0 0 1", "beside its 3x3 part"),
        ("%YAML:1.0\n---\nK: [ 1, 2\n", "cannot be parsed"),
        ("%YAML:1.0\n---\nfocal: 3\n", "has only focal"),
    ],
)
def test_a_bad_camera_file_is_one_line(tmp_path, content, found):
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_camera(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and found in message and "expected" in message and "\n" not in message


@pytest.mark.parametrize("read", [read_camera, read_transform])
def test_no_such_file_a_folder_and_a_picture(tmp_path, read):
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((4, 4, 3), np.uint8))
    for path, found in [
        (tmp_path / "missing.json", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "rgb.png", "is not text"),
    ]:
        with pytest.raises(InputError, match=f"{path}: {found}, expected|{path}: {found}"):
            read(path)


@pytest.mark.parametrize(
    "content",
    [
        POSE.tolist(),
        POSE[:3].tolist(),
        POSE.T.reshape(-1).tolist(),  # column-major
        {"R": ROTATION.tolist(), "t": [0.025, -0.001, 0.004]},
        {"rotation": ROTATION.tolist(), "translation": [[0.025], [-0.001], [0.004]]},
        {"depth_to_rgb": POSE.tolist()},
        {"T": POSE.tolist()},
        "\n".join(" ".join(map(repr, row)) for row in POSE.tolist()),
        "\n".join(",".join(map(repr, row)) for row in POSE[:3].tolist()),
    ],
)
def test_transforms(tmp_path, content):
    result = read_transform(written(tmp_path, content))
    assert result.shape == (4, 4)
    np.testing.assert_allclose(result, POSE, rtol=1e-12)


def test_nine_numbers_in_one_list_may_be_rows_or_columns(tmp_path):
    path = written(tmp_path, {"rotation": ROTATION.T.reshape(-1).tolist(), "translation": [0.025, -0.001, 0.004]})
    with pytest.raises(InputError, match=r"rotation is one list of nine numbers.*expected a list of three rows"):
        read_transform(path)


def test_a_rotation_with_four_decimals_is_one(tmp_path):
    np.testing.assert_allclose(read_transform(written(tmp_path, POSE.round(4).tolist())), POSE, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda pose: pose @ np.diag([1, 1, -1, 1]), "is no rotation"),  # a mirror
        (lambda pose: pose @ np.diag([1.01, 1.01, 1.01, 1]), "is no rotation"),
        (lambda pose: pose + np.eye(4, k=1) * 0.01, "is no rotation"),
        (lambda pose: pose * np.array([[1, 1, 1, 1000]] * 3 + [[1] * 4]), "millimetres"),
        (lambda pose: pose * np.nan, "not finite"),
        (lambda pose: pose[:2], "8 numbers"),
        (lambda pose: pose + np.eye(4) * [0, 0, 0, 1], "last row of the transform is 0 0 0 2"),
    ],
)
def test_what_is_no_pose_is_one_line(tmp_path, change, found):
    path = written(tmp_path, change(POSE).tolist())
    with pytest.raises(InputError) as caught:
        read_transform(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and found in message and "expected" in message and "\n" not in message


def test_a_pose_that_is_not_there(tmp_path):
    path = written(tmp_path, {"fx": 1})
    with pytest.raises(InputError, match="has only fx, expected a 4x4 or 3x4 matrix"):
        read_transform(path)
    path = written(tmp_path, {"R": [1, 2], "t": [0, 0, 0]})
    with pytest.raises(InputError, match="R has 2 numbers and t 3"):
        read_transform(path)


ROS_TOPIC = """header:
  stamp:
    sec: 1700000000
    nanosec: 5
  frame_id: camera_color_optical_frame
height: 480
width: 640
distortion_model: plumb_bob
{d}:
- {coefficient}
- 0.0
{k}:
- 525.0
- 0.0
- 319.5
- 0.0
- 520.0
- 239.5
- 0.0
- 0.0
- 1.0
---
height: 1
---
"""


@pytest.mark.parametrize(("k", "d"), [("k", "d"), ("K", "D")])
def test_what_ros_prints_of_a_camera_info_topic(tmp_path, caplog, k, d):
    assert read_camera(written(tmp_path, ROS_TOPIC.format(k=k, d=d, coefficient=0.0), "head.yaml")) == SIZED
    assert not caplog.records
    assert read_camera(written(tmp_path, ROS_TOPIC.format(k=k, d=d, coefficient=0.1), "head.yaml")) == SIZED
    assert f"has lens distortion ({d})" in caplog.text


def test_numbers_of_yaml_need_no_dot(tmp_path, caplog):
    text = "fx: 5.25e2\nfy: 520\ncx: 319.5\ncy: 239.5\nwidth: 640\nheight: 480\n"
    for more in ("", "d:\n- 0\n- 1e-05\n"):
        assert read_camera(written(tmp_path, text + more, "head.yaml")) == SIZED
        assert ("has lens distortion (d)" in caplog.text) == bool(more)


@pytest.mark.parametrize(
    ("text", "fault"), [("a: [1, 2\nb: 3", "is no valid YAML (line 2)"), ("- 1\n- 2\n", "holds no names with values")]
)
def test_yaml_that_is_no_calibration(tmp_path, text, fault):
    with pytest.raises(InputError, match=re.escape(f"head.yaml: {fault}")) as caught:
        read_camera(written(tmp_path, text, "head.yaml"))
    assert "\n" not in str(caught.value)
