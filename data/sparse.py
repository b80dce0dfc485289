"""Sparse depth, such as LiDAR points projected into an image: gathered into cells most of which hold a sample."""

import cv2
import numpy as np

DENSE, DENSE_CELLS = 0.6, 0.5
"""`density` from which on depth is upsampled as it is, and from which on cells are: the networks of coarser ones, for
larger ratios, are better at holes. Both were found on six held-out images of NYUv2."""

LEAST_DISTANCE = 0.25
"""Of two cells' samples, in cells, for their slope: nearer ones say little of it."""

TOLERANCE = 1.02
"""By how much a cell may be larger than what a network is for: sizes need not be multiples."""


def density(valid: np.ndarray) -> float:
    """How dense valid samples are where there are any, 0..1: of those that are valid or beside one, how many are.

    Holes that are larger than a sample hardly lower it, nor does a part of the image without any.
    """
    around = cv2.dilate(valid.astype(np.uint8), np.ones((3, 3), np.uint8))
    return float(valid.sum() / max(1, around.sum()))


def gather_sparse(depth: np.ndarray, valid: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Depth as it is if it is dense, else of the smallest cells that make it so.

    Args:
        depth: `[h, w]`, any unit; what is not `valid` is ignored.
        valid: bool `[h, w]`, some of it True.
        largest: samples across a cell, at most.

    Returns:
        Depth and validity of the cells (see `gather`), and how many samples across one of them is, a power of two.
    """
    cells, side, dense = (depth, valid), 1, DENSE
    while density(cells[1]) < dense and 2 * side <= min(largest * TOLERANCE, *depth.shape):
        side, dense = 2 * side, DENSE_CELLS
        cells = gather(depth, valid, (round(depth.shape[0] / side), round(depth.shape[1] / side)))
    return (*cells, side)


def gather(depth: np.ndarray, valid: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the valid samples of every cell of a coarser grid over the same area, moved to the cell's centre.

    It is moved along the slopes to its neighbours, the lesser of the two along an axis and none where they differ in
    sign, so that a cell beside a depth edge stays on its side.

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
        slope = np.diff(means, axis=axis) / np.maximum(np.diff(place, axis=axis), LEAST_DISTANCE)
        slope = np.pad(np.nan_to_num(slope), [(1, 1) if n == axis else (0, 0) for n in (0, 1)])
        before, after = np.delete(slope, -1, axis), np.delete(slope, 0, axis)
        lesser = np.where(np.abs(before) < np.abs(after), before, after)
        centre = np.indices(shape, sparse=True)[axis] + 0.5
        moved += np.where(before * after > 0, lesser * (centre - place), 0)
    return moved, (number > 0).reshape(shape)
