"""The pinhole camera: focal lengths and principal point in pixels, and where pixels lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from depthup.data.errors import InputError

# A field of view above 168 degrees is no pinhole camera: focal lengths are fractions of the width, or in millimetres.
_LARGEST_SLOPE = 10


@dataclass(frozen=True)
class Camera:
    """Intrinsics of a pinhole camera without lens distortion.

    Frame, as in OpenCV: x to the right, y down, z forward, origin in the centre of projection, metres. Depth is z. A
    point (X, Y, Z) is seen at column `fx * X / Z + cx` and row `fy * Y / Z + cy`. The *centre* of the upper left pixel
    is (0, 0), so the image spans -0.5..width - 0.5. Where a calibration counts from the *corner* of that pixel
    (COLMAP, OpenGL), subtract 0.5 from its principal point.

    Distortion is not modelled: undistort both images first.

    Args:
        fx, fy: focal lengths [px], > 0.
        cx, cy: principal point [px].
        width, height: size of the image that these belong to [px]; None = not known.

    Raises:
        InputError: a number that no such camera has.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise InputError(f"camera: width is {self.width} and height {self.height}, expected both or neither")
        for axis, focal, centre, size in (("x", self.fx, self.cx, self.width), ("y", self.fy, self.cy, self.height)):
            _check_axis(axis, focal, centre, size)

    def scaled_to(self, width: int, height: int) -> Camera:
        """The same view in an image of another size: `cx' = (cx + 0.5) * s - 0.5`, for each direction's own s.

        Raises:
            InputError: the size of this camera's image is not known.
        """
        if self.width is None or self.height is None:
            raise InputError(
                f"camera: the size of its image is not known, expected width and height to scale to {width}x{height}"
            )
        sx, sy = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return Camera(self.fx * sx, self.fy * sy, cx, cy, width, height)

    def of_image(self, width: int, height: int) -> Camera:
        """This camera, once it is certain that its image has this size; a size that is not known becomes this one.

        Raises:
            InputError: its image has another size.
        """
        if self.width is None or self.height is None:
            return replace(self, width=width, height=height)
        if (self.width, self.height) != (width, height):
            scaled = self.scaled_to(width, height)
            numbers = ",".join(f"{n:.8g}" for n in (scaled.fx, scaled.fy, scaled.cx, scaled.cy))
            hint = f"where both show the same view, fx,fy,cx,cy of this one are {numbers}"
            if (self.width - self.height) * (width - height) < 0:
                hint = "is this one turned by 90 degrees, as EXIF may say?"
            raise InputError(
                f"camera is for an image of {self.width}x{self.height} and this one has {width}x{height}, expected the "
                f"same; {hint}"
            )
        return self

    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """X / Z of every column, float64 [width], and Y / Z of every row, float64 [height], at the pixels' centres.

        Raises:
            InputError: the size of the image is not known.
        """
        if self.width is None or self.height is None:
            raise InputError("camera: the size of its image is not known, expected width and height")
        return (np.arange(self.width) - self.cx) / self.fx, (np.arange(self.height) - self.cy) / self.fy


def _check_axis(axis: str, focal: float, centre: float, size: int | None) -> None:
    if not (math.isfinite(focal) and focal > 0):
        raise InputError(f"camera: focal length f{axis} is {focal}, expected pixels > 0")
    if not (math.isfinite(centre) and abs(centre) <= _LARGEST_SLOPE * focal):
        raise InputError(
            f"camera: principal point c{axis} is {centre} and focal length f{axis} {focal}, expected pixels for both"
        )
    if size is None:
        return
    if size < 1:
        raise InputError(f"camera: an image of {size} pixels in {axis}, expected at least 1")
    if not -size <= centre <= 2 * size:
        raise InputError(
            f"camera: principal point c{axis} is {centre:g} in an image of {size} pixels, expected it near the image"
        )
    if size > 2 * _LARGEST_SLOPE * focal:
        raise InputError(
            f"camera: focal length f{axis} is {focal:g} for an image of {size} pixels, expected pixels (not millimetres"
            " or a fraction of the image)"
        )
