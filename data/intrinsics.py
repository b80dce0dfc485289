"""Cameras out of the numbers that files hold, and matrices that files give by rows or by columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from depthup.data.camera import Camera
from depthup.data.errors import InputError


def camera_of(numbers: Sequence[float] | np.ndarray, source: str | Path, size: Sequence[float] | None = None) -> Camera:
    """The camera of fx, fy, cx, cy, or of a 3x3 or 4x4 matrix, by rows or by columns.

    Args:
        numbers: pixels.
        source: what messages name.
        size: width and height of the image that these belong to; None = not known.

    Raises:
        InputError: another count, skew, a size that is not whole, or numbers that no camera has.
    """
    if len(numbers) == 4:
        fx, fy, cx, cy = (float(n) for n in numbers)
    else:
        matrix = square(np.array(numbers, np.float64), source, "camera matrix", (3, 4))
        if len(matrix) == 4 and (matrix[:3, 3].any() or matrix[2].tolist() != [0, 0, 1, 0]):
            raise InputError(f"{source}: the 4x4 camera matrix has numbers beside its 3x3 part, expected zeros")
        fx, skew, cx, below, fy, cy = matrix[:2, :3].reshape(-1).tolist()
        if below or not abs(skew) <= 1e-3 * abs(fx):
            raise InputError(f"{source}: the camera matrix has skew ({below or skew:g}), expected zero")
    if size is not None and not all(math.isfinite(n) and n == int(n) for n in size):
        raise InputError(f"{source}: the image size is {size[0]:g} x {size[1]:g}, expected whole pixels")
    try:
        camera = Camera(fx, fy, cx, cy)
        return camera if size is None else replace(camera, width=int(size[0]), height=int(size[1]))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def square(numbers: np.ndarray, source: str | Path, what: str, sizes: tuple[int, ...]) -> np.ndarray:
    """`[n, n]` of numbers by rows or by columns, told apart by the last row, which is 0, ..., 0, 1.

    Raises:
        InputError: n is none of `sizes`, or neither the last row nor the last column is so; `what` says of what.
    """
    n = math.isqrt(numbers.size)
    if n * n != numbers.size or n not in sizes:
        expected = " or ".join(f"{size}x{size}" for size in sizes)
        raise InputError(f"{source}: the {what} has {numbers.size} numbers, expected {expected}")
    matrix = numbers.reshape(n, n)
    last = [0.0] * (n - 1) + [1.0]
    if matrix[-1].tolist() == last:
        return matrix
    if matrix[:, -1].tolist() == last:
        return matrix.T
    raise InputError(
        f"{source}: the last row of the {what} is {' '.join(f'{x:g}' for x in matrix[-1])}, expected"
        f" {' '.join(f'{x:g}' for x in last)}"
    )
