"""A simulated depth sensor: what makes a real measurement differ from reduced truth."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter, minimum_filter, shift

from depthup.data.depth_encoding import without_mask
from depthup.data.errors import InputError, UsageError
from depthup.data.low_resolution import make_low_resolution
from depthup.data.pairs import PairDataset
from depthup.data.sparse import gather

SAMPLINGS = ("dkn", "pac", "area", "point", "sparse")
"""The two protocols; the plain mean of a cell, which a time-of-flight pixel integrates over; one of the pixels around
the middle of a cell, at random, but the same in every cell: depth that was thinned out; and pixels anywhere, as of a
LiDAR whose points were projected into the image, gathered into cells as `gather_sparse` does.
"""

EDGE = 0.05
"""Neighbouring samples whose depths differ by more than this fraction lie on both sides of a depth edge."""

COARSE = 4
"""Samples of at least so many pixels have holes of the same size in samples; finer ones have the same in pixels."""

MIN_VALID = 0.05
"""Holes that would leave a smaller fraction of the samples are not made."""

IDEAL, NOISY = 0.15, 0.5
"""How often a random sensor has no fault, and how often none but noise and holes."""

SPARSE = 0.15
"""How often it is a LiDAR whose points lie anywhere, at scales above 1."""


@dataclass(frozen=True)
class Sensor:
    """Strengths of what a sensor does to depth in metres; zero = ideal.

    Args:
        sampling: how a sample comes from its cell, one of `SAMPLINGS`.
        points: of sampling `sparse`, the mean number of points in a cell.
        lines: of the same, rows of pixels from one line of points to the next; below 1 points lie anywhere.
        shift: rows and columns by which depth is mis-registered to RGB, in full-resolution pixels.
        blur: standard deviation of a Gaussian over neighbouring samples, in samples.
        flying: probability that a sample beside a depth edge lies anywhere between the two surfaces.
        noise_floor: standard deviation of the noise near the sensor [m].
        noise_square: its growth with the square of depth [m at 1 m]: sigma = noise_floor + noise_square * depth^2.
        correlation: part of the noise that neighbouring samples share, 0..1.
        quantum: step of the inverse depth that the sensor tells apart [1/m]: of depth, it grows with its square.
        dropout: probability that a single sample is missing.
        blobs: fraction of the samples that is missing in connected blobs.
        shadow: samples missing beside a depth edge, on its far side, as in the shadow of a projector.
        near, far: range [m]; outside it nothing is measured, where that leaves `MIN_VALID` of the samples.

    Raises:
        UsageError: no such sampling, a strength below 0, a part above 1.
    """

    sampling: str = "dkn"
    points: float = 1.0
    lines: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    flying: float = 0.0
    noise_floor: float = 0.0
    noise_square: float = 0.0
    correlation: float = 0.0
    quantum: float = 0.0
    dropout: float = 0.0
    blobs: float = 0.0
    shadow: int = 0
    near: float = 0.0
    far: float = np.inf

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise UsageError(f"sampling: got {self.sampling!r}, expected one of {', '.join(SAMPLINGS)}")
        if np.shape(self.shift) != (2,) or not np.isfinite(self.shift).all():
            raise UsageError(f"shift: got {self.shift!r}, expected rows and columns")
        object.__setattr__(self, "shift", tuple(self.shift))
        for name in (f.name for f in fields(self) if f.name not in ("sampling", "shift")):
            value, most = getattr(self, name), 1 if name in ("flying", "correlation", "dropout", "blobs") else np.inf
            if not isinstance(value, Real) or not 0 <= float(value) <= most:
                raise UsageError(f"{name}: got {value}, expected a number from 0{' to 1' if most == 1 else ''}")

    def __str__(self) -> str:
        """The faults that there are, for reports: `noise of 1 mm + 1.5 mm z^2, blobs 0.2`."""
        faults = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}
        floor, square = (faults.pop(name, 0.0) for name in ("noise_floor", "noise_square"))
        noise = [f"noise of {1000 * floor:g} mm + {1000 * square:g} mm z^2"] if floor or square else []
        others = [f"{name} {value}" for name, value in faults.items() if name != "sampling"]
        return ", ".join(noise + others) or "no fault"

    def measure(self, depth: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
        """What the sensor sees of `depth`.

        Args:
            depth: float32 `[H, W]` in metres, NaN where unknown; H and W multiples of `scale`.
            scale: pixels on the side of a sample's cell.
            rng: source of everything random.

        Returns:
            float32 `[H/scale, W/scale]` in metres, NaN where nothing is measured.

        Raises:
            ValueError: `depth` is not `[H, W]` of multiples of `scale`.
        """
        if depth.ndim != 2 or depth.shape[0] % scale or depth.shape[1] % scale:
            raise ValueError(
                f"depth is {list(depth.shape)}, expected [H, W], multiples of {scale}: see crop_to_multiple"
            )
        depth = without_mask(depth).astype(np.float32)
        depth[~np.isfinite(depth)] = np.nan
        if self.shift != (0.0, 0.0):
            depth = shift(depth, self.shift, order=1, mode="nearest")
        low = self._sample(depth, scale, rng)
        known = ~np.isnan(low)
        if not known.any():
            return low
        low = np.where(known, low, np.float32(low[known].mean()))
        if self.blur:
            low = gaussian_filter(low, self.blur, mode="nearest")
        nearest, farthest = minimum_filter(low, 3, mode="nearest"), maximum_filter(low, 3, mode="nearest")
        edge = farthest - nearest > EDGE * nearest
        if self.flying:
            flies = edge & (rng.random(low.shape) < self.flying)
            low = np.where(flies, nearest + (farthest - nearest) * rng.random(low.shape), low)
        low = low + self._noise(low, rng)
        if self.quantum:
            low = 1 / (np.rint(1 / low.clip(0.05) / self.quantum).clip(1) * self.quantum)
        seen = known & ~self._holes(low, edge, scale, rng) & (low > max(self.near, 1e-3)) & (low < self.far)
        if seen.mean() < MIN_VALID:
            seen = known
        return np.where(seen, low, np.nan).astype(np.float32)

    def _sample(self, depth: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
        if self.sampling == "area":
            return F.avg_pool2d(torch.from_numpy(depth)[None], scale)[0].numpy()
        if self.sampling == "point":  # no pixel is in the middle of an even cell, and always the same would be a shift
            row, column = rng.integers((scale - 1) // 2, scale // 2 + 1, 2)
            return depth[row::scale, column::scale]
        if self.sampling == "sparse":
            height, width = depth.shape
            measured = np.isfinite(depth) & (rng.random(depth.shape) < max(1.0, self.lines) * self.points / scale**2)
            if self.lines > 1:
                line = np.floor((np.arange(height + 1) + rng.uniform(0, self.lines)) / self.lines)
                measured &= (np.diff(line) > 0)[:, None]
            return gather(depth, measured, (height // scale, width // scale))[0]
        return make_low_resolution(depth, scale, self.sampling)

    def _noise(self, low: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = self.noise_floor + self.noise_square * np.square(low)
        own = rng.standard_normal(low.shape)
        if not self.correlation:
            return sigma * own
        shared = gaussian_filter(rng.standard_normal(low.shape), 1.0, mode="wrap")
        shared /= max(float(shared.std()), 1e-6)
        return sigma * (np.sqrt(1 - self.correlation) * own + np.sqrt(self.correlation) * shared)

    def _holes(self, low: np.ndarray, edge: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
        holes = rng.random(low.shape) < self.dropout
        if self.blobs:
            size = rng.uniform(1.5, 4.0) * max(1, COARSE / scale)
            field = gaussian_filter(rng.standard_normal(low.shape), size, mode="reflect")
            holes |= field < np.quantile(field, self.blobs)
        if self.shadow:
            far_side = edge & (low > (minimum_filter(low, 3) + maximum_filter(low, 3)) / 2)
            reach = np.zeros((1, 2 * self.shadow + 1), bool)
            reach[0, : self.shadow + 1] = True  # to one side only: a projector stands on one side of the camera
            behind = low > (1 - EDGE) * maximum_filter(np.where(far_side, low, 0), (1, 2 * self.shadow + 1))
            holes |= behind & binary_dilation(far_side, reach if rng.random() < 0.5 else reach[:, ::-1])
        return holes


STANDARD_SENSOR = Sensor(noise_floor=0.001, noise_square=0.0015, blobs=0.2)
"""What `depthup eval --sensor` measures with: a fifth of the samples missing in blobs, noise of 7 mm at 2 m."""


def check_metres(pairs: PairDataset) -> None:
    """Raise InputError for pairs that a simulated sensor cannot measure: those of disparity."""
    if pairs.unit != "m":
        raise InputError(f"{pairs.title}: holds {pairs.unit}, expected metres, which a simulated sensor measures")


def random_sensor(rng: np.random.Generator, scale: int) -> Sensor:
    """A sensor for one training crop.

    One in seven is ideal and every other one only noisy and full of holes: a network that must always reckon with blur,
    flying samples and mis-registration draws soft edges for everybody. The others have some of all faults. Every
    strength occurs.
    """

    def sometimes(probability: float, low: float, high: float) -> float:
        value = float(rng.uniform(low, high))
        return value if rng.random() < probability else 0.0

    if scale > 1 and rng.random() < SPARSE:
        return Sensor(
            sampling="sparse",
            points=float(np.exp(rng.uniform(np.log(0.3), np.log(4.0)))),
            lines=sometimes(0.5, 0.5 * scale, 2.0 * scale),
            noise_floor=sometimes(0.8, 0.0, 0.01),
            noise_square=sometimes(0.3, 0.0, 0.001),
            blobs=sometimes(0.3, 0.02, 0.45),
        )
    sampling = str(rng.choice(["dkn", "area", "point"], p=[0.5, 0.25, 0.25]))
    reach = 1.0 if scale <= 4 else 2.0
    sensor = Sensor(
        sampling=sampling,
        shift=(sometimes(0.2, -reach, reach), sometimes(0.2, -reach, reach)),
        blur=sometimes(0.2, 0.3, 0.8),
        flying=sometimes(0.4, 0.0, 0.5),
        noise_floor=sometimes(0.8, 0.0, 0.003),
        noise_square=sometimes(0.8, 0.0, 0.003),
        correlation=sometimes(0.5, 0.0, 0.7),
        quantum=sometimes(0.25, 0.0005, 0.003),
        dropout=sometimes(0.4, 0.0, 0.15),
        blobs=sometimes(0.6, 0.02, 0.45),
        shadow=int(sometimes(0.3, 1.0, 4.0) * max(1, COARSE / scale)),
        near=sometimes(0.1, 0.3, 1.5),
        far=sometimes(0.1, 2.0, 6.0) or np.inf,
    )
    kind = rng.random()
    if kind < IDEAL:
        return Sensor(sampling=sampling)
    if kind < IDEAL + NOISY:
        noise = {name: getattr(sensor, name) for name in ("noise_floor", "noise_square", "dropout", "blobs", "shadow")}
        return Sensor(sampling=sampling, **noise)
    return sensor


def random_plane(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """float32 `[H, W]`: depth of a tilted plane, 0.5 to 10 m; teaches that texture is no depth edge."""
    height, width = shape
    middle = float(rng.uniform(1.0, 5.0))
    rise = rng.uniform(-0.4, 0.4, 2) * middle
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    return (middle + rise[0] * rows[:, None] + rise[1] * columns).astype(np.float32)
