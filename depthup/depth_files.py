"""Writing depth maps and preview images: whole files or none, and never a value that was clipped or wrapped."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np

from depthup.atomic import write_beside
from depthup.data import DEPTH_UNITS, InputError

DEPTH_OUTPUT_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""Endings that `write_depth` knows."""

IMAGE_OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings that `write_image` knows."""

_LARGEST = 65535


def check_output(path: str | Path, overwrite: bool = False, suffixes: tuple[str, ...] = ()) -> None:
    """Check that a file can be written, before anything is computed for it.

    Args:
        path: file to be written.
        overwrite: whether it may exist already.
        suffixes: allowed endings in lower case, such as `DEPTH_OUTPUT_SUFFIXES`; none = any.

    Raises:
        InputError: wrong ending, the path is a folder or exists without `overwrite`, or its folder is missing or not
            writable.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise InputError(f"{path}: {found}, expected one of {', '.join(suffixes)}")
    folder = path.parent
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected the name of a file to write")
        if not folder.is_dir():
            fault = "is not a folder" if folder.exists() else "does not exist"
            raise InputError(f"{path}: cannot be written: the folder {folder} {fault}; create it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written: the folder {folder} is not writable")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; choose another name, or allow overwriting (--overwrite)")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def check_output_folder(path: str | Path) -> None:
    """Check that a folder can be made or written to, with whatever of its path is missing.

    Raises:
        InputError: the nearest part of the path that exists is no folder, or is not writable.
    """
    there = Path(path).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        fault = "is not writable" if there.is_dir() else "is not a folder"
        raise InputError(f"{path}: cannot be written: {there} {fault}; expected a folder")


def write_depth(path: str | Path, depth: np.ndarray, unit: str = "mm", overwrite: bool = False) -> None:
    """Write a depth map; `depthup.data.read_depth` reads it back.

    Args:
        path: `.png` for 16-bit integers, 0 = no measurement; `.tif`, `.tiff` or `.npy` for float32 metres with NaN.
        depth: float32 [H, W] in metres, NaN where there is no measurement.
        unit: what the integers of a PNG are, one of `DEPTH_UNITS`: value = round(metres * number); floats are metres.
        overwrite: whether the file may exist already.

    Raises:
        InputError: see `check_output`, or a depth that a 16-bit PNG in this unit does not hold.
        ValueError: `unit` is not in `DEPTH_UNITS`, or `depth` is not [H, W].
    """
    path = Path(path)
    if unit not in DEPTH_UNITS:
        raise ValueError(f"depth unit {unit!r} is unknown, expected one of {', '.join(DEPTH_UNITS)}")
    if depth.ndim != 2 or depth.size == 0:
        raise ValueError(f"depth has shape {list(depth.shape)}, expected [height, width]")
    check_output(path, overwrite, DEPTH_OUTPUT_SUFFIXES)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        file = io.BytesIO()
        np.save(file, depth.astype(np.float32))
        _write_bytes(path, file.getvalue())
    else:
        _write_bytes(
            path, _encode(path, _to_integers(path, depth, unit) if suffix == ".png" else depth.astype(np.float32))
        )


def write_image(path: str | Path, rgb: np.ndarray, overwrite: bool = False) -> None:
    """Write a colour image, such as a preview.

    Args:
        path: `.png`, `.jpg` or `.jpeg`.
        rgb: uint8 [H, W, 3], red first.
        overwrite: whether the file may exist already.

    Raises:
        InputError: see `check_output`.
        ValueError: `rgb` is not uint8 [H, W, 3].
    """
    path = Path(path)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"rgb is {rgb.dtype} {list(rgb.shape)}, expected uint8 [height, width, 3]")
    check_output(path, overwrite, IMAGE_OUTPUT_SUFFIXES)
    _write_bytes(path, _encode(path, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)))


def _to_integers(path: Path, depth: np.ndarray, unit: str) -> np.ndarray:
    """uint16 [H, W], 0 where `depth` is NaN."""
    known = ~np.isnan(depth)
    metres = depth[known].astype(np.float64)
    values = np.rint(metres * DEPTH_UNITS[unit])
    for wrong, extreme in ((values > _LARGEST, np.max), (values < 1, np.min)):
        if wrong.any():
            raise InputError(f"{path}: {_range_fault(metres, float(extreme(metres)), int(wrong.sum()), unit)}")
    integers = np.zeros(depth.shape, np.uint16)
    integers[known] = values
    return integers


def _range_fault(metres: np.ndarray, extreme: float, count: int, unit: str) -> str:
    number = DEPTH_UNITS[unit]
    fitting = [
        name
        for name, other in DEPTH_UNITS.items()
        # whole metres would fit, and lose what was computed
        if name != "m" and np.rint(metres.min() * other) >= 1 and np.rint(metres.max() * other) <= _LARGEST
    ]
    units = f"the unit {' or '.join(fitting)}, or " if fitting else ""
    return (
        f"depth {extreme:.6g} m does not fit ({count} such pixels): a 16-bit PNG in unit {unit} holds {1 / number:.6g}"
        f" to {_LARGEST / number:.6g} m; use {units}a .tiff or .npy file"
    )


def _encode(path: Path, image: np.ndarray) -> bytes:
    try:
        done, content = cv2.imencode(path.suffix.lower(), image)
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        raise InputError(f"{path}: an image of {width}x{height} pixels cannot be stored in this format; use another")
    return content.tobytes()


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        with write_beside(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
