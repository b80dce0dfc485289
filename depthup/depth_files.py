"""Writing depth maps and preview images: whole files or none, and never a value that was clipped or wrapped."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from depthup import __version__
from depthup.atomic import write_beside
from depthup.data import DEPTH_UNITS, InputError, UsageError
from depthup.data.depth_encoding import without_mask
from depthup.data.extras import load_extra
from depthup.plane_files import encode_plane

DEPTH_OUTPUT_SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".pfm", ".npy", ".npz")
"""Endings that `write_depth` and `write_confidence` know; `.png` holds 16-bit integers, the others float32."""

IMAGE_OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings that `write_image` knows."""

_LARGEST = 65535

_TAKEN_NAMES = ("depth", "confidence", "file", "allow_pickle")  # of arrays in a .npz, or arguments of np.savez


def check_output(path: str | Path, overwrite: bool = False, suffixes: tuple[str, ...] = ()) -> None:
    """Check that a file can be written, before anything is computed for it.

    Args:
        path: file to be written.
        overwrite: whether it may exist already.
        suffixes: allowed endings in lower case, such as `DEPTH_OUTPUT_SUFFIXES`; none = any.

    Raises:
        UsageError: wrong ending.
        InputError: the path is a folder or exists without `overwrite`, its folder is missing or not writable, or the
            extra that the ending needs is not installed.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise UsageError(f"{path}: {found}, expected one of {', '.join(suffixes)}")
    if path.suffix.lower() == ".exr":
        load_extra(path, "OpenEXR", "exr")
    folder = path.parent
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected the name of a file to write")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{path}: cannot be written: {folder} is not a folder; expected one")
        if not folder.is_dir():
            raise InputError(f"{path}: cannot be written: the folder {folder} does not exist; create it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written: the folder {folder} is not writable")
        if os.path.lexists(path) and not overwrite:  # a link that leads nowhere is the user's, too
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


def write_depth(
    path: str | Path,
    depth: np.ndarray,
    unit: str = "mm",
    overwrite: bool = False,
    scale: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a depth map; `depthup.data.read_depth` reads it back.

    What the integers are and who wrote them is recorded in the file, except in PFM and `.npy`, which have no room.

    Args:
        path: `.png` for 16-bit integers, 0 = no measurement; `.tif`, `.tiff`, `.exr` (extra `exr`), `.pfm`, `.npy` or
            `.npz` (array `depth`) for float32 metres with NaN.
        depth: float32 [H, W] in metres, NaN where there is no measurement, or masked.
        unit: what the integers of a PNG are, one of `DEPTH_UNITS`: value = round(metres * number); floats are metres.
        overwrite: whether the file may exist already.
        scale: integers per metre of a PNG, in place of a unit.
        metadata: what else to record, such as `{"model": "x4"}`; the names are ASCII identifiers.

    Raises:
        InputError: see `check_output`, a depth that a 16-bit PNG in this unit does not hold, or a scale for floats.
        ValueError: `unit` is not in `DEPTH_UNITS`, `scale` is not > 0, a name in `metadata` is taken or no identifier,
            or `depth` is not real numbers [H, W].
    """
    path = Path(path)
    if unit not in DEPTH_UNITS:
        raise ValueError(f"depth unit {unit!r} is unknown, expected one of {', '.join(DEPTH_UNITS)}")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"depth scale is {scale}, expected a number > 0")
    depth = without_mask(depth)
    _check_plane(depth, "depth")
    check_output(path, overwrite, DEPTH_OUTPUT_SUFFIXES)
    integers = path.suffix.lower() == ".png"
    if scale is not None and not integers:
        raise InputError(f"{path}: a {path.suffix} file holds float metres, expected no scale (only a .png has one)")
    name, number = ("m", 1.0) if not integers else (unit, DEPTH_UNITS[unit]) if scale is None else ("", scale)
    record = _record({"depth_unit": name} if name else {}, {"depth_scale": f"{number:.17g}"}, metadata or {})
    plane = _to_integers(path, depth, number, name) if integers else _to_floats(path, depth)
    _write_bytes(path, encode_plane(path, plane, "depth", record))


def write_confidence(path: str | Path, confidence: np.ndarray, overwrite: bool = False) -> None:
    """Write how far each depth is to be trusted.

    Args:
        path: `.png` for 16-bit integers, 0..65535 = 0..1 (recorded in the file); endings of `write_depth` for float32.
        confidence: float [H, W], 0..1.
        overwrite: whether the file may exist already.

    Raises:
        InputError: see `check_output`.
        ValueError: `confidence` is not [H, W], or not 0..1 everywhere.
    """
    path = Path(path)
    _check_plane(confidence, "confidence")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence leaves 0..1, expected 0 where nothing is known")
    check_output(path, overwrite, DEPTH_OUTPUT_SUFFIXES)
    if path.suffix.lower() == ".png":
        scale, plane = _LARGEST, np.rint(confidence.astype(np.float64) * _LARGEST).astype(np.uint16)
    else:
        scale, plane = 1, confidence.astype(np.float32)
    _write_bytes(path, encode_plane(path, plane, "confidence", _record({"confidence_scale": str(scale)})))


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


def _check_plane(plane: np.ndarray, what: str) -> None:
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "fiu":
        raise ValueError(f"{what} is {plane.dtype} {list(plane.shape)}, expected [height, width] of real numbers")


def _record(*parts: Mapping[str, str]) -> dict[str, str]:
    """What is noted in a file, the program and its version first."""
    record = {"software": f"depthup {__version__}"}
    for part in parts:
        for name, value in part.items():
            if name in record or name in _TAKEN_NAMES or not (name.isascii() and name.isidentifier()):
                raise ValueError(f"metadata {name!r} is taken or no ASCII identifier, expected another name")
            record[name] = str(value)
    return record


def _to_integers(path: Path, depth: np.ndarray, number: float, unit: str) -> np.ndarray:
    """uint16 [H, W], 0 where `depth` is NaN; `unit` is empty for a scale of the user's own."""
    known = ~np.isnan(depth)
    metres = depth[known].astype(np.float64)
    values = np.rint(metres * number)
    for wrong, extreme in ((values > _LARGEST, np.nanargmax), (values < 1, np.nanargmin)):
        if wrong.any():
            place = np.unravel_index(extreme(depth), depth.shape)
            raise InputError(f"{path}: {_range_fault(depth, place, int(wrong.sum()), number, unit)}")
    integers = np.zeros(depth.shape, np.uint16)
    integers[known] = values
    return integers


def _to_floats(path: Path, depth: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        floats = depth.astype(np.float32)
    if (lost := np.isinf(floats) & np.isfinite(depth)).any():
        raise InputError(f"{path}: depth {np.abs(depth[lost]).max():.6g} m is more than a float32 holds")
    return floats


def _range_fault(depth: np.ndarray, place: tuple[np.intp, ...], count: int, number: float, unit: str) -> str:
    """`place` is the row and column of the worst of so many pixels that do not fit."""
    nearest, farthest, worst = float(np.nanmin(depth)), float(np.nanmax(depth)), depth[place]
    fitting = [
        name
        for name, other in DEPTH_UNITS.items()
        # whole metres would fit, and lose what was computed
        if name != "m" and np.rint(nearest * other) >= 1 and np.rint(farthest * other) <= _LARGEST
    ]
    units = f"the unit {' or '.join(fitting)}, or " if fitting else ""
    return (
        f"depth {worst:.6g} m in column {place[1]}, row {place[0]} does not fit ({count} such pixels): a 16-bit PNG in"
        f" {f'unit {unit}' if unit else f'scale {number:g}'} holds {1 / number:.6g} to {_LARGEST / number:.6g} m; use"
        f" {units}a .tiff, .exr, .pfm, .npy or .npz file, or another scale"
        f"{'; was the depth given in mm, which --depth-unit mm says?' if worst > 1000 else ''}"
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
    with write_beside(path) as temporary:
        temporary.write_bytes(content)
