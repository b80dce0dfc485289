"""How far a depth map is from the truth: errors, also near depth edges, the edges, and how sure a mean is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from depthup.data import InputError, make_low_resolution

EDGE_JUMP = 0.05
"""Depths of neighbours on both sides of a depth edge differ by more than this fraction of the smaller."""

EDGE_FLOOR = 2.0
"""And by more than this in the unit of the scores, so that the steps of 8-bit disparity are no edges."""

NEAR_EDGES = 5.0
"""Pixels from a depth edge, up to which an error counts as one near edges."""

EDGE_TOLERANCE = 1
"""Pixels, along rows and columns, within which an edge pixel of the result matches one of the truth."""

RESAMPLES = 2000
"""Bootstrap samples of an interval."""

EDGE_DEFINITION = (
    f"between neighbours in a row or column, both known in truth and result, that differ by more than "
    f"{100 * EDGE_JUMP:g} % of the smaller and by more than {EDGE_FLOOR:g} units; both are edge pixels; near edges: at "
    f"most {NEAR_EDGES:g} pixels from one of the truth; boundary F1: edge pixels of result and truth match within "
    f"{EDGE_TOLERANCE} pixel, diagonals included"
)
INTERVAL_DEFINITION = f"95 % of the mean RMSE: percentile bootstrap, {RESAMPLES} resamples of whole scenes, seed 0"
CONSISTENCY_DEFINITION = (
    "RMSE of the result, reduced by the protocol, against the low-resolution depth given; over the whole image"
)


@dataclass(frozen=True)
class Score:
    """Errors of one image in the unit of its evaluation; None where a value is undefined, as without depth edges.

    Args:
        name, scene: of the image.
        rmse, mae: over the scored pixels.
        rel: mean of |error| / truth, a fraction, over pixels whose truth is above zero.
        off_by_1, off_by_5, off_by_10: percentage of pixels whose |error| is larger than that many units.
        rmse_near_edges, rmse_elsewhere: RMSE of the pixels within `NEAR_EDGES` pixels of a depth edge of the truth, and
            of all others (see `depth_edges`).
        boundary_f1: agreement of the depth edges of result and truth, 0..1 (see `boundary_f1`).
        consistency: RMSE between the result, reduced by the protocol, and the low-resolution depth it was made from.
        edge_pixels: depth edge pixels of the truth.
        pixels: scored.
        unknown: known in the truth and unknown in the result; not scored.
    """

    name: str
    scene: str
    rmse: float
    mae: float
    rel: float | None
    off_by_1: float
    off_by_5: float
    off_by_10: float
    rmse_near_edges: float | None
    rmse_elsewhere: float | None
    boundary_f1: float | None
    consistency: float | None
    edge_pixels: int
    pixels: int
    unknown: int


METRICS = (
    "rmse",
    "mae",
    "rel",
    "off_by_1",
    "off_by_5",
    "off_by_10",
    "rmse_near_edges",
    "rmse_elsewhere",
    "boundary_f1",
    "consistency",
)
"""Fields of `Score` of which an evaluation gives the mean over images."""


def known_in_both(name: str, result: np.ndarray, truth: np.ndarray, border: int) -> np.ndarray:
    """Which pixels inside the border are known in both; raises InputError if none is, as `score` does."""
    found, true = _inside(border, result, truth)
    both = np.isfinite(found) & np.isfinite(true)
    if not both.any():
        raise InputError(f"{name}: no pixel inside a border of {border} is known in truth and result; expected some")
    return both


def _inside(border: int, *images: np.ndarray) -> list[np.ndarray]:
    return [image[border : -border or None, border : -border or None] for image in images]


def score(
    name: str,
    scene: str,
    result: np.ndarray,
    truth: np.ndarray,
    border: int,
    factor: float,
    low: np.ndarray | None = None,
    protocol: str = "dkn",
) -> Score:
    """Errors of one result.

    Args:
        name, scene: of the image.
        result, truth: `[H, W]`, NaN where unknown.
        border: pixels at each side that are not scored.
        factor: units of the scores in one unit of depth: 100 for metres in centimetres, 1 for disparity levels.
        low: `[h, w]`, what the result was made from; without it `consistency` is None.
        protocol: how a result is reduced to be compared with `low`.

    Raises:
        InputError: no pixel inside the border is known in both.
    """
    both = known_in_both(name, result, truth, border)
    # infinity minus infinity would warn, and is unknown as much as NaN
    found, true = (np.where(np.isfinite(a), a, np.nan) * np.float64(factor) for a in _inside(border, result, truth))
    known = ~np.isnan(true)
    error = np.abs(found - true)
    absolute, positive = error[both], both & (true > 0)
    found_edges = depth_edges(np.where(both, found, np.nan))
    true_edges = depth_edges(np.where(both, true, np.nan))
    near = _distance(true_edges) <= NEAR_EDGES
    return Score(
        name,
        scene,
        rmse=float(np.sqrt(np.mean(np.square(absolute)))),
        mae=float(absolute.mean()),
        rel=float(np.mean(error[positive] / true[positive])) if positive.any() else None,
        off_by_1=_percentage_above(absolute, 1.0),
        off_by_5=_percentage_above(absolute, 5.0),
        off_by_10=_percentage_above(absolute, 10.0),
        rmse_near_edges=_rmse(error[both & near]),
        rmse_elsewhere=_rmse(error[both & ~near]),
        boundary_f1=boundary_f1(found_edges, true_edges),
        consistency=None if low is None else consistency(result, low, protocol, factor),
        edge_pixels=int(true_edges.sum()),
        pixels=int(both.sum()),
        unknown=int(known.sum() - both.sum()),
    )


def depth_edges(depth: np.ndarray) -> np.ndarray:
    """Pixels beside a depth edge.

    An edge lies between two neighbours in a row or a column whose values differ by more than `EDGE_JUMP` of the smaller
    and by more than `EDGE_FLOOR`; both are edge pixels. The ratio of two depths is that of their disparities.

    Args:
        depth: `[H, W]` in the unit of the scores (centimetres or disparity levels), NaN where unknown: no edge.

    Returns:
        bool `[H, W]`.
    """
    edges = np.zeros(depth.shape, bool)
    size = np.abs(depth)
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        smallest = np.maximum(EDGE_JUMP * np.minimum(size[first], size[second]), EDGE_FLOOR)
        jump = np.abs(depth[first] - depth[second]) > smallest
        edges[first] |= jump
        edges[second] |= jump
    return edges


def boundary_f1(found: np.ndarray, true: np.ndarray) -> float | None:
    """Harmonic mean of precision and recall of edge pixels, matched within `EDGE_TOLERANCE` pixels.

    Args:
        found, true: bool `[H, W]`, edge pixels of result and truth.

    Returns:
        0..1; None without edges in the truth.
    """
    if not true.any():
        return None
    if not found.any():
        return 0.0
    precision, recall = np.mean(_widened(true)[found]), np.mean(_widened(found)[true])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def consistency(result: np.ndarray, low: np.ndarray, protocol: str, factor: float) -> float | None:
    """RMSE between a result, reduced by the protocol, and what it was made from; None if no sample is known in both.

    Args:
        result: `[H, W]`, NaN where unknown.
        low: `[h, w]`, with H = s*h and W = s*w; NaN where there is no measurement.
        protocol: `dkn` or `pac`.
        factor: units of the RMSE in one unit of depth.
    """
    again = make_low_resolution(result, result.shape[0] // low.shape[0], protocol)
    difference = (again - low) * factor
    return _rmse(difference[np.isfinite(difference)])


def bootstrap_interval(values: np.ndarray, groups: list[str], seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of a mean over images: percentiles of `RESAMPLES` means, each of as many groups as there are, drawn
    with replacement (the cluster bootstrap: images of one scene are not independent).

    Args:
        values: `[N]`, one per image.
        groups: `[N]`, the scene of each image.
        seed: of the draws.

    Returns:
        (low, high) in the unit of `values`; None for a single group, which says nothing about others.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    if len(sums) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)


def _rmse(errors: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(np.square(errors)))) if errors.size else None


def _percentage_above(errors: np.ndarray, limit: float) -> float:
    return 100 * float(np.mean(errors > limit))


def _distance(edges: np.ndarray) -> np.ndarray:
    """Distance in pixels to the nearest edge pixel; infinite without one."""
    if not edges.any():
        return np.full(edges.shape, np.inf)
    return cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _widened(edges: np.ndarray) -> np.ndarray:
    side = 2 * EDGE_TOLERANCE + 1
    return cv2.dilate(edges.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
