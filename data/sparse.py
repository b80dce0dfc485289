"""Sparse depth, such as LiDAR points projected into an image: gathered into the cells of a coarser grid."""

import math

import cv2
import numpy as np

DENSE, DENSE_BEYOND = {1: 0.6, 2: 0.4}, 0.08
"""`density` that the network of a scale needs, and one of any other scale, before a coarser grid is better.

Found on six held-out images of NYUv2 (points anywhere) and four (lines), with the networks for sensors.
"""

NEIGHBOURS = 2
"""How many cells away a neighbour may be: of lines of points every other row of cells may be empty."""

LEAST_DISTANCE = 0.25
"""Of two cells' samples, in cells, for their slope: nearer ones say little of it."""

TOLERANCE = 1.02
"""By how much a cell may be larger than what a network is for: sizes need not be multiples."""


def density(valid: np.ndarray) -> float:
    """How dense valid samples are where there are any, 0..1: how many of the eight around a valid one are valid, too.

    Holes that are larger than a sample hardly lower it, nor does a part of the image without any.
    """
    there, inside = (of_nine(cells)[valid].sum() - valid.sum() for cells in (valid, np.ones_like(valid)))
    return float(there / inside) if inside else 1.0


def of_nine(cells: np.ndarray) -> np.ndarray:
    """How many are True of every cell and its neighbours, float32."""
    counted = cv2.boxFilter(cells.astype(np.float32), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(counted)


def least_density(ratio: float) -> float:
    """`density` below which coarser cells are better, for a ratio of pixels to samples along a side."""
    return next((least for scale, least in DENSE.items() if ratio <= scale * TOLERANCE), DENSE_BEYOND)


def margins(valid: np.ndarray, ratio: float, largest: float) -> list[tuple[int, int]]:
    """How many lines of invalid samples belong before and after each axis, where samples lie on a regular grid.

    In the cells of `gather_sparse` every sample then lies beside the middle. In a corner, where those of
    `depth[::8, ::8]` are, they cost the result three quarters more error. All 0 for other samples.

    Args:
        valid, ratio, largest: as of `gather_sparse`.
    """
    first, around = _first_side(valid, ratio, largest), []
    for axis, pitch in enumerate(_pitches(valid)):
        side = first
        while pitch % (2 * side) == 0 and _fits(2 * side, ratio, largest):
            side *= 2
        line = int(valid.any(1 - axis).argmax())
        before = min((middle - line) % side for middle in ((side - 1) // 2, side // 2))
        around.append((before, -(valid.shape[axis] + before) % side if pitch > 1 else 0))
    return around


def _pitches(valid: np.ndarray) -> list[int]:
    """How many lines apart along each axis those with samples are: the greatest common divisor, 1 if it is only one."""
    return [int(np.gcd.reduce(np.diff(np.flatnonzero(valid.any(1 - axis))), initial=0)) or 1 for axis in (0, 1)]


def _first_side(valid: np.ndarray, ratio: float, largest: float) -> int:
    """The largest cells, as many samples across as a grid allows, of which none has two samples; 1 without a grid."""
    pitch = math.gcd(*_pitches(valid))
    return max((side for side in range(2, pitch + 1) if pitch % side == 0 and _fits(side, ratio, largest)), default=1)


def _fits(side: int, ratio: float, largest: float) -> bool:
    """Whether cells of so many samples across are no larger than asked."""
    return side * ratio <= largest * TOLERANCE


def gather_sparse(
    depth: np.ndarray, valid: np.ndarray, ratio: float, largest: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Depth as it is if it is dense enough, else of the smallest cells that make it so.

    Args:
        depth: `[h, w]`, any unit; what is not `valid` is ignored.
        valid: bool `[h, w]`, some of it True.
        ratio: pixels of the result across a sample.
        largest: pixels of the result across a cell, at most.

    Returns:
        Depth and validity of the cells (see `gather`), and how many samples across one of them is: what lies between
        the points of a regular grid (1 if they lie in none), times a power of two.
    """
    side = _first_side(valid, ratio, largest)
    cells = _cells(depth, valid, side)
    while density(cells[1]) < least_density(side * ratio):
        if not _fits(2 * side, ratio, largest) or 2 * side > min(depth.shape):
            break
        side *= 2
        cells = _cells(depth, valid, side)
    return (*cells, side)


def _cells(depth: np.ndarray, valid: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    if side == 1:
        return depth, valid
    return gather(depth, valid, (-(-depth.shape[0] // side), -(-depth.shape[1] // side)))


def gather(depth: np.ndarray, valid: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the valid samples of every cell of a coarser grid over the same area, moved to the cell's centre.

    It is moved along the slopes to its neighbours, at most `NEIGHBOURS` cells away, the lesser of the two along an axis
    and none where they differ in sign, so that a cell beside a depth edge stays on its side.

    Args:
        depth, valid: as of `gather_sparse`.
        shape: rows and columns of the coarser grid, at most those of `depth`; cells need not be whole samples.

    Returns:
        float64 `shape`, NaN without a sample, and bool `shape`, where there is one.
    """
    samples = np.nonzero(valid)
    at = [(n + 0.5) * cells / size for n, cells, size in zip(samples, shape, depth.shape, strict=True)]
    cell = np.ravel_multi_index([n.astype(np.int64) for n in at], shape)
    number = np.bincount(cell, minlength=shape[0] * shape[1])

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.bincount(cell, values, minlength=len(number))
        return np.divide(total, number, out=np.full(len(number), np.nan), where=number > 0).reshape(shape)

    means = mean(depth[samples].astype(np.float64))
    moved = means.copy()
    for axis, places in enumerate(at):
        place = mean(places)
        before, after = _slopes(means, place, axis)
        lesser = np.where(np.abs(before) < np.abs(after), before, after)
        centre = np.indices(shape, sparse=True)[axis] + 0.5
        moved += np.where(before * after > 0, lesser * (centre - place), 0)
    return moved, (number > 0).reshape(shape)


def _slopes(means: np.ndarray, place: np.ndarray, axis: int) -> np.ndarray:
    """Along an axis to the nearest cell before and after every cell, 0 without one: `[2, rows, columns]`."""
    means, place = np.moveaxis(means, axis, 0), np.moveaxis(place, axis, 0)
    slopes = np.full((2, *means.shape), np.nan)
    for away in range(min(NEIGHBOURS, len(means) - 1), 0, -1):
        slope = (means[away:] - means[:-away]) / np.maximum(place[away:] - place[:-away], LEAST_DISTANCE)
        for there in (slopes[0, away:], slopes[1, :-away]):
            np.copyto(there, slope, where=~np.isnan(slope))
    return np.moveaxis(np.nan_to_num(slopes), 1, axis + 1)
