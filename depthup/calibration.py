"""Reading calibrations: intrinsics of a camera, and the pose of one camera in the frame of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthup.data import Camera, InputError, UsageError
from depthup.data.distortion import warn_of_distortion
from depthup.data.intrinsics import camera_of, square

_MATRIX_NAMES = ("camera_matrix", "intrinsic_matrix", "K", "intrinsics", "cameraMatrix", "intrinsicMatrix", "k")
_SIZE_NAMES = (("width", "height"), ("image_width", "image_height"), ("w", "h"))
_CENTRE_NAMES = (("cx", "cy"), ("ppx", "ppy"))
_POSE_NAMES = ("depth_to_rgb", "transform", "extrinsic", "extrinsics", "T")
_ROTATION_NAMES = ("R", "rotation")
_TRANSLATION_NAMES = ("t", "T", "translation")

_INTRINSICS = (
    "fx, fy, cx, cy or a 3x3 camera matrix (JSON; YAML; OpenCV XML; rows of numbers, where 4x4 and 'fx fy cx cy' are"
    " fine too)"
)
_POSE = "a 4x4 or 3x4 matrix, or a rotation R and a translation t (JSON; YAML; OpenCV XML; rows of numbers)"

_ROTATION_TOLERANCE = 1e-3  # of R^T R and det R: three decimals are enough
_LARGEST_BASELINE_M = 5


def parse_intrinsics(text: str, name: str = "intrinsics") -> Camera:
    """The camera that `fx,fy,cx,cy` in pixels means, without an image size; `name` is what messages call the text.

    Raises:
        UsageError: not four numbers, or numbers that no camera has.
    """
    try:
        return camera_of(_numbers(text, name, "fx,fy,cx,cy in pixels", (4,)), name)
    except InputError as error:
        raise UsageError(str(error)) from None


def read_camera(path: str | Path) -> Camera:
    """Read the intrinsics of a pinhole camera; distortion coefficients that are not 0 are warned of and not applied.

    What a file may hold, told apart by its content:

    * JSON, YAML or OpenCV XML with `fx, fy, cx, cy` (RealSense: `ppx, ppy`), or with a matrix named `camera_matrix`,
      `intrinsic_matrix`, `K`, `k` or `intrinsics`, given as rows, as 9 numbers, or as OpenCV's or ROS's `{rows, cols,
      data}`, also as ROS prints a `CameraInfo`; beside it or not, `width, height`. Row-major or column-major (Open3D,
      ARKit, Record3D) is told from where the zeros are. In JSON these may also stand one level deeper, in an object
      named `intrinsic` or `intrinsics`, and the size there or around it.
    * Rows of numbers, separated by blanks or commas: a 3x3 or 4x4 matrix (ScanNet), or `fx fy cx cy`.

    Returns:
        The camera, in pixels; its size is None where the file does not say.

    Raises:
        InputError: the file is missing, or holds no such thing, skew, or numbers that no camera has.
    """
    path = Path(path)
    content = _read(path, _INTRINSICS)
    if isinstance(content, str):
        return camera_of(_numbers(content, path, _INTRINSICS, (4, 9, 16)), path)
    if isinstance(content, list):
        return camera_of(_flat(content, path, "camera matrix"), path)
    warn_of_distortion(content, path)
    around = content
    for key in ("intrinsic", "intrinsics"):
        if isinstance(content.get(key), dict):
            content = content[key]
    size = _first_pair(content, _SIZE_NAMES) or _first_pair(around, _SIZE_NAMES)
    centre = _first_pair(content, _CENTRE_NAMES)
    if centre is not None and "fx" in content and "fy" in content:
        numbers = _flat([content["fx"], content["fy"], *centre], path, "fx, fy, cx, cy")
    else:
        name = _first(content, _MATRIX_NAMES)
        if name is None:
            raise InputError(f"{path}: has {_keys(content)}, expected {_INTRINSICS}")
        numbers = _flat(content[name], path, name)
    if size is not None:
        size = _flat(size, path, "image size").tolist()
        if len(size) != 2:
            raise InputError(f"{path}: the image size has {len(size)} numbers, expected width and height")
    return camera_of(numbers, path, size)


def read_transform(path: str | Path) -> np.ndarray:
    """Read where one camera is: `point_in_rgb_camera = R @ point_in_depth_camera + t`, t in metres.

    What a file may hold, told apart by its content:

    * JSON, YAML or OpenCV XML with `R` (or `rotation`) and `t` (or `T`, `translation`), or with a matrix named
      `depth_to_rgb`, `transform`, `extrinsic`, `extrinsics` or `T`; in JSON also the bare matrix.
    * Rows of numbers, separated by blanks or commas.

    A matrix is 4x4 or 3x4 and given as rows; 16 numbers in column-major order (Open3D) are known by their zeros, unless
    t is 0. A rotation of its own is given as three rows, or as OpenCV's matrix; nine numbers in one list may be rows or
    columns (librealsense's `rs2_extrinsics`), and are refused.

    Returns:
        float64 [4, 4], whose last row is 0, 0, 0, 1.

    Raises:
        InputError: the file is missing, or holds no such thing, or R is not a rotation, or t cannot be metres.
    """
    path = Path(path)
    content = _read(path, _POSE)
    if isinstance(content, str):
        return _pose_of(_numbers(content, path, _POSE, (12, 16)), path)
    if isinstance(content, list):
        return _pose_of(_flat(content, path, "transform"), path)
    rotation, translation = _first(content, _ROTATION_NAMES), _first(content, _TRANSLATION_NAMES)
    if rotation and translation:
        if _is_one_list(content[rotation]):
            raise InputError(
                f"{path}: {rotation} is one list of nine numbers, which may be rows or, as of RealSense, columns; "
                "expected a list of three rows"
            )
        R, t = _flat(content[rotation], path, rotation), _flat(content[translation], path, translation)
        if (R.size, t.size) != (9, 3):
            raise InputError(f"{path}: {rotation} has {R.size} numbers and {translation} {t.size}, expected 9 and 3")
        return _pose_of(np.column_stack([R.reshape(3, 3), t]).reshape(-1), path)
    name = _first(content, _POSE_NAMES)
    if name is None:
        raise InputError(f"{path}: has {_keys(content)}, expected {_POSE}")
    return _pose_of(_flat(content[name], path, name), path)


def _is_one_list(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 9 and not any(isinstance(value, list) for value in values)


def _pose_of(numbers: np.ndarray, path: Path) -> np.ndarray:
    """[4, 4] of 12 numbers, row by row, or of 16."""
    if numbers.size == 12:
        numbers = np.append(numbers, [0, 0, 0, 1])
    pose = square(numbers, path, "transform", (4,))
    check_pose(pose, path)
    return pose


def check_pose(pose: np.ndarray, source: str | Path) -> None:
    """Check that `[4, 4]` takes one camera's points to another's: a rotation, and a translation in metres.

    Raises:
        InputError: it does not; `source` is named.
    """
    if pose.shape != (4, 4) or pose[3].tolist() != [0, 0, 0, 1]:
        raise InputError(f"{source}: got {list(pose.shape)}, expected [4, 4] with the last row 0, 0, 0, 1")
    R, t = pose[:3, :3], pose[:3, 3]
    error = max(np.abs(R.T @ R - np.eye(3)).max(), abs(np.linalg.det(R) - 1))
    if not error <= _ROTATION_TOLERANCE:
        raise InputError(
            f"{source}: its 3x3 part is no rotation (R^T R and det R are off by up to {error:.2g}), expected"
            f" orthonormal axes and determinant +1, within {_ROTATION_TOLERANCE:g}"
        )
    if not (baseline := float(np.linalg.norm(t))) <= _LARGEST_BASELINE_M:
        raise InputError(
            f"{source}: the cameras would be {baseline:g} m apart, expected metres, at most {_LARGEST_BASELINE_M}; are"
            " these millimetres?"
        )


def _read(path: Path, expected: str) -> str | list | dict:
    """A dictionary or list of JSON, a dictionary of YAML or OpenCV's XML, or the text of anything else."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file with {expected}")
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected one with {expected}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text, expected {expected}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    if not text:
        raise InputError(f"{path}: is empty, expected {expected}")
    if text[0] in "{[":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            fault = f"{error.msg} in line {error.lineno}"
            raise InputError(f"{path}: is no valid JSON ({fault}), expected {expected}") from None
        except (ValueError, RecursionError):
            raise InputError(f"{path}: is no valid JSON, expected {expected}") from None
    is_yaml = path.suffix.lower() in (".yml", ".yaml")
    if text.startswith(("%YAML", "<?xml")) or is_yaml or path.suffix.lower() == ".xml":
        content = _parse_opencv(text)
        if content is None and is_yaml:
            content = _parse_yaml(path, text, expected)
        if content is None:
            raise InputError(f"{path}: cannot be parsed as OpenCV YAML or XML, expected {expected}")
        return content
    return text


def _parse_yaml(path: Path, text: str, expected: str) -> dict:
    """The first document of what OpenCV cannot parse, such as a topic that ROS printed, which goes on with `---`."""
    import yaml

    try:
        content = next(yaml.load_all(text, Loader=yaml.BaseLoader), None)  # makes nothing but text, lists, dictionaries
    except (yaml.YAMLError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" (line {place.line + 1})" if place else ""
        raise InputError(f"{path}: is no valid YAML{line}, expected {expected}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no names with values, expected {expected}")
    return _with_numbers(content)


def _with_numbers(value: Any) -> Any:
    """Text that is a number as one."""
    if isinstance(value, dict):
        return {key: _with_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner) for inner in value]
    try:
        return float(value)
    except ValueError:
        return value


def _parse_opencv(text: str) -> dict | None:
    try:
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        content = _plain(storage.root()) if storage.isOpened() else None
    except (cv2.error, SystemError):  # OpenCV's bindings raise the second for what cannot be parsed
        return None
    return content if isinstance(content, dict) else None


def _plain(node: cv2.FileNode) -> Any:
    if node.isMap():
        return {key: _plain(node.getNode(key)) for key in node.keys()}  # noqa: SIM118, a FileNode is no dictionary
    if node.isSeq():
        return [_plain(node.at(i)) for i in range(node.size())]
    return node.string() if node.isString() else node.real()


def _numbers(text: str, source: str | Path, expected: str, counts: tuple[int, ...]) -> np.ndarray:
    words = " ".join(line.partition("#")[0] for line in text.splitlines()).replace(",", " ").split()
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        raise InputError(f"{source}: holds text that is no number, expected {expected}") from None
    if numbers.size not in counts:
        raise InputError(f"{source}: holds {numbers.size} numbers, expected {expected}")
    return _finite(numbers, source, "a number")


def _flat(values: Any, source: str | Path, what: str) -> np.ndarray:
    """float64 [N] of numbers, or of lists of them, or of OpenCV's and ROS's `{rows, cols, data}`."""
    if isinstance(values, dict) and "data" in values:
        values = values["data"]
    try:
        numbers = np.array(values)
    except ValueError:  # rows of different lengths
        numbers = np.array(None)
    if numbers.dtype.kind not in "iuf" or numbers.ndim > 2:
        raise InputError(f"{source}: {what} holds something else than numbers, expected a list of numbers, or of rows")
    return _finite(numbers.astype(np.float64).reshape(-1), source, what)


def _finite(numbers: np.ndarray, source: str | Path, what: str) -> np.ndarray:
    if not np.isfinite(numbers).all():
        raise InputError(f"{source}: {what} is not finite, expected finite numbers")
    return numbers


def _first(content: dict, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in content), None)


def _first_pair(content: dict, names: tuple[tuple[str, str], ...]) -> list[Any] | None:
    return next(([content[a], content[b]] for a, b in names if a in content and b in content), None)


def _keys(content: dict) -> str:
    names = ", ".join(str(key) for key in list(content)[:6])
    return f"only {names}" if names else "nothing in it"
