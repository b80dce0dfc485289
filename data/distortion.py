"""Lens distortion in calibration files, which is noticed and not modelled."""

import logging
from pathlib import Path
from typing import Any

_NAMES = (
    *("distortion_coefficients", "distortion_coeffs", "distortion", "distCoeffs", "dist_coeffs", "dist", "D", "coeffs"),
    *("distortion_parameters", "distortionCoefficients", "radial_distortion", "tangential_distortion", "d"),
    *("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"),
)

log = logging.getLogger("depthup")


def warn_of_distortion(content: dict, path: Path) -> bool:
    """Log a warning, and return True, where a calibration has distortion coefficients that are not 0.

    Args:
        content: what the file holds; the coefficients may also stand one level deeper, in an object named `intrinsic`
            or `intrinsics`.
        path: the file, for the message.
    """
    deeper = [content[key] for key in ("intrinsic", "intrinsics") if isinstance(content.get(key), dict)]
    found = [
        name
        for name in _NAMES
        if any(_holds_more_than_zeros(part[name]) for part in (content, *deeper) if name in part)
    ]
    if found:
        log.warning(
            "%s: has lens distortion (%s), which is not applied; expected images that are rectified (undistorted)"
            " first, and the intrinsics of the rectified image",
            *(path, ", ".join(found)),
        )
    return bool(found)


def _holds_more_than_zeros(values: Any) -> bool:
    """Whether a number that is not 0 is among `values`: a number, or lists and dictionaries of them."""
    if isinstance(values, dict):
        return any(
            _holds_more_than_zeros(value) for name, value in values.items() if name not in ("rows", "cols", "dt")
        )
    if isinstance(values, list):
        return any(_holds_more_than_zeros(value) for value in values)
    return isinstance(values, int | float) and values != 0
