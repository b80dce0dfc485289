"""What the values of a depth file mean, and turning them into metres."""

import logging
import math
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from depthup.data.errors import InputError, UsageError

DEPTH_UNITS = {"mm": 1000.0, "m": 1.0, "tum": 5000.0, "kitti": 256.0}
"""Name of a depth unit -> the number that divides a file's value to give metres."""

DEPTH_KINDS = ("depth", "inverse", "disparity")

log = logging.getLogger("depthup")

PLAUSIBLE = 0.05, 100.0
"""Median depth in metres, outside of which the unit is doubted."""

LARGEST_BASELINE = 10.0
"""Metres between two cameras beyond which a baseline is in millimetres."""


@dataclass(frozen=True)
class DepthEncoding:
    """How the values of a depth file are to be read.

    | kind | q = value / scale is | metres |
    |---|---|---|
    | `depth` | depth [m] | q |
    | `inverse` | inverse depth [1/m] | 1 / q |
    | `disparity` | disparity [px] | focal * baseline / (q + doffs) |

    0, NaN and infinity in the file are no measurement, and so are the values in `invalid`.

    Args:
        unit: of kind `depth`: one of `DEPTH_UNITS`: mm, m, tum (5000 per metre), kitti (256 per metre); or `auto`: what
            depthup recorded in the file; else `integers` for integers, metres for floating-point numbers.
        scale: the number that divides a file's value, in place of a unit; 1 for inverse depth and disparity by default.
        kind: one of `DEPTH_KINDS`.
        focal: focal length [px] of the image that the disparity belongs to.
        baseline: distance of the two cameras [m].
        doffs: difference of the principal points [px], x of the right image minus x of the left, as in Middlebury's
            calib.txt.
        invalid: further values of the file that mean no measurement, such as 65535 or -1.
        integers: one of `DEPTH_UNITS`, that of integers where nothing else says it.

    Raises:
        UsageError: a value is out of its range, a scale comes with a unit, a unit is named for another kind than depth,
            or focal and baseline are missing for disparity or given for another kind.
    """

    unit: str = "auto"
    scale: float | None = None
    kind: str = "depth"
    focal: float | None = None
    baseline: float | None = None
    doffs: float = 0.0
    invalid: tuple[float, ...] = ()
    integers: str = "mm"

    def __post_init__(self) -> None:
        if self.unit != "auto" and self.unit not in DEPTH_UNITS:
            raise UsageError(f"depth unit {self.unit!r} is unknown, expected auto or one of {', '.join(DEPTH_UNITS)}")
        if self.integers not in DEPTH_UNITS:
            raise UsageError(f"integers in the unit {self.integers!r}, expected one of {', '.join(DEPTH_UNITS)}")
        if self.kind not in DEPTH_KINDS:
            raise UsageError(f"depth kind {self.kind!r} is unknown, expected one of {', '.join(DEPTH_KINDS)}")
        for name in ("scale", "focal", "baseline"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"depth {name} is {value}, expected a number > 0")
        if self.baseline is not None and self.baseline > LARGEST_BASELINE:
            raise UsageError(f"depth baseline is {self.baseline:g} m, expected metres; are these millimetres?")
        if not isinstance(self.invalid, tuple | list) or not all(isinstance(v, Real) for v in self.invalid):
            raise UsageError(f"depth invalid is {self.invalid!r}, expected numbers in a tuple, such as (65535,)")
        if not math.isfinite(self.doffs):
            raise UsageError(f"depth doffs is {self.doffs}, expected a finite number of pixels")
        if self.unit != "auto" and self.scale is not None:
            raise UsageError(f"depth has unit {self.unit} and scale {self.scale:g}, expected one of the two")
        if self.unit != "auto" and self.kind != "depth":
            raise UsageError(f"depth unit {self.unit} does not go with kind {self.kind}, expected a scale instead")
        if self.kind == "disparity" and (self.focal is None or self.baseline is None):
            raise UsageError("disparity needs a focal length [px] and a baseline [m] to become depth")
        if self.kind != "disparity" and (self.focal is not None or self.baseline is not None or self.doffs):
            raise UsageError(f"focal length, baseline and doffs do not go with kind {self.kind}, expected disparity")

    def with_default(self, unit: str) -> "DepthEncoding":
        """This encoding, or with a unit of integers where it is of depth and says nothing of unit or scale."""
        silent = self.kind == "depth" and self.unit == "auto" and self.scale is None
        return replace(self, integers=unit) if silent else self

    def file_scale(self, floats: bool, recorded: float | None) -> float:
        """The number that divides a file's value, for a file of floats or integers and with what it records itself."""
        if self.scale is not None:
            return self.scale
        if self.kind != "depth":
            return 1.0
        if self.unit != "auto":
            return DEPTH_UNITS[self.unit]
        return recorded or DEPTH_UNITS["m" if floats else self.integers]


def measured(image: np.ndarray, invalid: tuple[float, ...] = ()) -> np.ndarray:
    """bool [H, W]: where a file's values are measurements: finite, not 0 and not one of `invalid`."""
    known = np.isfinite(image) & (image != 0)
    with np.errstate(over="ignore"):  # a sentinel that float16 does not hold
        for value in invalid:
            known &= image != value
    return known


def warn_of_largest(path: Path, image: np.ndarray, invalid: tuple[float, ...] = ()) -> None:
    """Log a warning where the largest integer of the file's type is taken for a measurement: it is often a sentinel.

    One such sample is metres beyond all others and spreads the range that the rest is normalised by.
    """
    if image.dtype.kind not in "iu":
        return
    largest = np.iinfo(image.dtype).max
    if count := np.count_nonzero(measured(image, invalid) & (image == largest)):
        log.warning(
            "%s: %d of its %d samples are %d, the largest value of %s, which counts as a measurement; expected"
            " --invalid %d (invalid=(%d,) in Python) if they are not",
            *(path, count, image.size, largest, image.dtype, largest, largest),
        )


def without_mask(depth: Any) -> np.ndarray:
    """An array; of real numbers, what a masked array masks is NaN in it, and integers are floats then."""
    if np.ma.getmask(depth) is np.ma.nomask or depth.dtype.kind not in "fiu":
        return np.asarray(depth)
    return depth.astype(np.result_type(depth.dtype, np.float32)).filled(np.nan)


def warn_of_unit(path: Path, median: float, question: str) -> bool:
    """Log a warning, with a question, and return True where the median depth of a map is none that sensors measure."""
    if PLAUSIBLE[0] <= median <= PLAUSIBLE[1]:
        return False
    log.warning("%s: its median is %.3g m; %s", path, median, question)
    return True


def to_metres(path: Path, image: np.ndarray, encoding: DepthEncoding, recorded: float | None = None) -> np.ndarray:
    """Turn the values of a file into depth.

    Args:
        path: the file, for messages.
        image: [H, W], integers or floats, as stored.
        encoding: what they mean.
        recorded: scale that the file itself records, or None.

    Returns:
        float32 [H, W] in metres, NaN where there is no measurement.

    Raises:
        InputError: a depth is not > 0, or not a float32.
    """
    known = measured(image, encoding.invalid)
    with np.errstate(all="ignore"):  # what overflows is counted below
        quantity = image[known].astype(np.float64) / encoding.file_scale(image.dtype.kind == "f", recorded)
        if encoding.kind == "disparity":
            assert encoding.focal is not None and encoding.baseline is not None
            quantity += encoding.doffs
            check_positive(path, quantity, "disparity + doffs" if encoding.doffs else "disparity")
            metres = encoding.focal * encoding.baseline / quantity
        else:
            check_positive(path, quantity, "depth" if encoding.kind == "depth" else "inverse depth")
            metres = quantity if encoding.kind == "depth" else 1 / quantity
    return spread(path, known, metres, "depth")


def check_positive(path: Path, values: np.ndarray, what: str) -> None:
    """Raise InputError where measured values are not > 0."""
    if negative := np.count_nonzero(values < 0):
        raise InputError(
            f"{path}: {what} is negative at {negative} pixels, expected > 0, and 0 for no measurement; a number in the"
            " file that means none, such as -1, is named by --invalid (invalid=(-1,) in Python)"
        )
    if zero := np.count_nonzero(values == 0):
        raise InputError(f"{path}: {what} is 0 at {zero} pixels, expected > 0")


def spread(path: Path, known: np.ndarray, values: np.ndarray, what: str) -> np.ndarray:
    """float32 [H, W]: the values where `known`, else NaN; raises InputError for one that float32 does not hold."""
    with np.errstate(over="ignore", under="ignore"):
        values = values.astype(np.float32)
    if lost := np.count_nonzero(~((values > 0) & np.isfinite(values))):
        raise InputError(f"{path}: {what} is beyond what float32 holds at {lost} pixels, expected 1e-45 to 3e38")
    image = np.full(known.shape, np.nan, np.float32)
    image[known] = values
    return image
