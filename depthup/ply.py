"""Coloured point clouds and meshes as PLY files (Stanford polygon file format 1.0, binary little-endian)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from depthup.atomic import write_beside
from depthup.depth_files import check_output

PLY_SUFFIXES = (".ply",)
"""Endings that `write_ply` knows."""

_CHUNK = 1 << 20  # vertices or faces at a time, so that a file of gigabytes is never in memory


def write_ply(
    path: str | Path,
    points: np.ndarray,
    colours: np.ndarray,
    normals: np.ndarray | None = None,
    faces: np.ndarray | None = None,
    overwrite: bool = False,
) -> None:
    """Write a coloured point cloud, or a mesh, that MeshLab, Blender, CloudCompare and Open3D open.

    Args:
        path: `.ply` file.
        points: [N, 3], written as float32.
        colours: uint8 [N, 3], red first.
        normals: [N, 3], written as float32; a normal that is not finite becomes 0, 0, 0.
        faces: whole numbers [M, 3], indices of points, written as int32.
        overwrite: whether the file may exist already.

    Raises:
        InputError: see `depthup.depth_files.check_output`, or the disk is full.
        ValueError: shapes or types that do not fit, or a face with an index that is not in 0..N-1.
    """
    path = Path(path)
    vertices = {"points": points, "colours": colours} | ({} if normals is None else {"normals": normals})
    for name, array in vertices.items():
        if array.shape != (len(points), 3):
            raise ValueError(f"{name} is {list(array.shape)}, expected [{len(points)}, 3]")
    if colours.dtype != np.uint8:
        raise ValueError(f"colours are {colours.dtype}, expected uint8")
    if faces is not None:
        _check_faces(faces, len(points))
    check_output(path, overwrite, PLY_SUFFIXES)
    with write_beside(path) as temporary, temporary.open("wb") as file:
        file.write(_header(len(points), normals is not None, None if faces is None else len(faces)))
        _write_vertices(file, points, colours, normals)
        if faces is not None:
            _write_faces(file, faces)


def _check_faces(faces: np.ndarray, points: int) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise ValueError(f"faces are {faces.dtype} {list(faces.shape)}, expected whole numbers [M, 3]")
    if faces.size and (faces.min() < 0 or faces.max() >= points):
        raise ValueError(f"faces have indices {faces.min()} to {faces.max()}, expected 0 to {points - 1}")


def _header(vertices: int, with_normals: bool, faces: int | None) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", "comment metres; x to the right, y down, z forward"]
    lines += [f"element vertex {vertices}", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"property float n{axis}" for axis in "xyz" if with_normals]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    if faces is not None:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header\n"]).encode("ascii")


def _write_vertices(file: BinaryIO, points: np.ndarray, colours: np.ndarray, normals: np.ndarray | None) -> None:
    fields = [("point", "<f4", 3)] + ([] if normals is None else [("normal", "<f4", 3)]) + [("colour", "u1", 3)]
    for first in range(0, len(points), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        records = np.empty(len(points[chunk]), fields)
        records["point"], records["colour"] = points[chunk], colours[chunk]
        if normals is not None:
            known = np.isfinite(normals[chunk]).all(axis=1, keepdims=True)
            records["normal"] = np.where(known, normals[chunk], 0)
        file.write(records.data)


def _write_faces(file: BinaryIO, faces: np.ndarray) -> None:
    for first in range(0, len(faces), _CHUNK):
        chunk = faces[first : first + _CHUNK]
        records = np.empty(len(chunk), [("count", "u1"), ("index", "<i4", 3)])
        records["count"], records["index"] = 3, chunk
        file.write(records.data)
