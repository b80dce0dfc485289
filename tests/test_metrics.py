"""Metrics against numbers made by hand, pixel by pixel, or by other libraries."""

import math
import warnings

import numpy as np
import pytest
from PIL import Image

from depthup.data import InputError
from depthup.metrics import METRICS, bootstrap_interval, boundary_f1, consistency, depth_edges, score


def boxes(seed: int = 0, shape: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A slanted wall with boxes before it, in metres."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(3.0, 3.4, shape[1]) + np.zeros(shape)
    for _ in range(2):
        top, left = rng.integers(0, 18, 2)
        depth[top : top + 7, left : left + 9] = rng.uniform(1, 2.8)
    return depth.astype(np.float32)


def edges_by_hand(depth: np.ndarray) -> set[tuple[int, int]]:
    height, width = depth.shape
    found = set()
    for row in range(height):
        for column in range(width):
            for other in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if 0 <= other[0] < height and 0 <= other[1] < width:
                    a, b = float(depth[row, column]), float(depth[other])
                    if abs(a - b) > 0.05 * min(abs(a), abs(b)) and abs(a - b) > 2.0:
                        found.add((row, column))
    return found


def rms(errors: list[float]) -> float | None:
    return math.sqrt(sum(e * e for e in errors) / len(errors)) if errors else None


def by_hand(result: np.ndarray, truth: np.ndarray, border: int, factor: float) -> dict:
    """Every metric but the consistency, pixel by pixel."""
    height, width = truth.shape
    result, truth = (
        a[border : height - border, border : width - border].astype(float) * factor for a in (result, truth)
    )
    both = {p for p in np.ndindex(truth.shape) if math.isfinite(truth[p]) and math.isfinite(result[p])}
    cut = {name: np.full(truth.shape, np.nan) for name in ("result", "truth")}
    for p in both:
        cut["result"][p], cut["truth"][p] = result[p], truth[p]
    edges, found = edges_by_hand(cut["truth"]), edges_by_hand(cut["result"])
    error = {p: abs(result[p] - truth[p]) for p in both}
    near = {p for p in both if any(math.dist(p, e) <= 5 for e in edges)}

    def matched(some: set, others: set) -> float:
        return sum(any(max(abs(p[0] - q[0]), abs(p[1] - q[1])) <= 1 for q in others) for p in some) / len(some)

    precision, recall = (matched(found, edges), matched(edges, found)) if found and edges else (0, 0)
    return {
        "rmse": rms(list(error.values())),
        "mae": sum(error.values()) / len(both),
        "rel": sum(error[p] / truth[p] for p in both) / len(both),
        "off_by_1": 100 * sum(e > 1 for e in error.values()) / len(both),
        "off_by_5": 100 * sum(e > 5 for e in error.values()) / len(both),
        "off_by_10": 100 * sum(e > 10 for e in error.values()) / len(both),
        "rmse_near_edges": rms([error[p] for p in near]),
        "rmse_elsewhere": rms([error[p] for p in both - near]),
        "boundary_f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "edge_pixels": len(edges),
        "pixels": len(both),
        "unknown": int(np.isfinite(truth).sum()) - len(both),
    }


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("factor", [100.0, 40.0])
def test_every_metric_is_that_of_hand_computation(factor, holes, border):
    rng = np.random.default_rng(3)
    truth = boxes()
    result = np.roll(truth, (1, 2), (0, 1)) + rng.normal(0, 0.02, truth.shape).astype(np.float32)
    if holes:
        truth[rng.random(truth.shape) < 0.1] = np.nan
        result[rng.random(truth.shape) < 0.1] = np.nan
        result[12, 12] = np.inf
    expected = by_hand(result, truth, border, factor)
    assert 0.2 < expected["boundary_f1"] < 0.95
    found = score("name", "scene", result, truth, border, factor)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-9)
    assert (found.name, found.scene, found.consistency) == ("name", "scene", None)


def test_known_numbers():
    truth = np.full((20, 20), 2.0, np.float32)
    truth[:, 10:] = 3.0
    result = truth.copy()
    result[0, 0], result[0, 19], result[5, 10] = 2.02, 3.3, 3.06  # 2 cm and 30 cm far from the edge, 6 cm at it
    found = score("", "", result, truth, 0, 100.0)
    # the edge lies between the columns 9 and 10, so 4..15 are near
    assert found.rmse_near_edges == pytest.approx(math.sqrt(36 / 240), rel=1e-5)
    assert found.rmse_elsewhere == pytest.approx(math.sqrt((4 + 900) / 160), rel=1e-5)
    assert (found.off_by_1, found.off_by_5, found.off_by_10) == (0.75, 0.5, 0.25)
    assert found.rel == pytest.approx((0.01 + 0.1 + 0.02) / 400, rel=1e-5)
    assert (found.edge_pixels, found.pixels) == (40, 400)
    # 30 cm at the corner are a jump of 10 %: 3 edge pixels too many
    assert found.boundary_f1 == pytest.approx(2 * 40 / (40 + 43))


@pytest.mark.parametrize(
    ("row", "edges"),
    [
        ([100, 104.9, 110, 115], [0, 0, 0, 0]),
        ([100, 105.1, 105.1, 105.1], [1, 1, 0, 0]),
        ([105.1, 100, 100, 104], [1, 1, 0, 0]),
        ([10, 11, 12, 13.9], [0, 0, 0, 0]),  # steps of 8-bit disparity
        ([10, 12.1, 13, 13], [1, 1, 0, 0]),
        ([100, np.nan, 200, 200], [0, 0, 0, 0]),
        ([-3, 3, 3, 3], [1, 1, 0, 0]),
    ],
)
def test_depth_edges(row, edges):
    line = np.array([row], float)
    np.testing.assert_array_equal(depth_edges(line), np.array([edges], bool))
    np.testing.assert_array_equal(depth_edges(line.T), np.array([edges], bool).T)
    np.testing.assert_array_equal(depth_edges(line[:, ::-1]), np.array([edges], bool)[:, ::-1])


def test_depth_edges_are_those_of_the_disparity():
    depth = boxes() * 100
    np.testing.assert_array_equal(depth_edges(depth), depth_edges(1e6 / depth))


def test_boundary_f1():
    true, found = np.zeros((9, 20), bool), np.zeros((9, 20), bool)
    assert boundary_f1(found, true) is None
    true[:, 8:10] = True
    assert boundary_f1(found, true) == 0.0
    assert [boundary_f1(np.roll(true, shift, 1), true) for shift in range(4)] == [1.0, 1.0, 0.5, 0.0]
    found[:, 8:10], found[:, 16:18] = True, True  # precision 1/2, recall 1
    assert boundary_f1(found, true) == pytest.approx(2 / 3)
    assert boundary_f1(true, found) == pytest.approx(2 / 3)
    one, other = np.zeros((5, 5), bool), np.zeros((5, 5), bool)
    one[1, 1] = other[2, 2] = True  # a diagonal neighbour
    assert boundary_f1(one, other) == 1.0


def test_consistency_is_that_of_pil():
    rng = np.random.default_rng(0)
    result, low = rng.uniform(1, 3, (24, 32)).astype(np.float32), rng.uniform(1, 3, (6, 8)).astype(np.float32)
    again = np.asarray(Image.fromarray(result).resize((8, 6), Image.Resampling.BICUBIC))
    expected = 100 * math.sqrt(np.mean(np.square(again.astype(float) - low)))
    assert consistency(result, low, "dkn", 100.0) == pytest.approx(expected, rel=1e-4)
    sampled = result[1::4, 1::4]
    assert consistency(result, sampled, "pac", 100.0) == 0.0
    assert consistency(result, sampled + np.float32(0.25), "pac", 100.0) == pytest.approx(25, rel=1e-5)
    sampled = sampled.copy()
    sampled[0] = np.nan
    result[5, 1] = np.nan
    assert consistency(result, sampled, "pac", 1.0) == 0.0
    assert consistency(result, np.full_like(sampled, np.nan), "pac", 1.0) is None
    assert score("", "", result, result, 2, 100.0, sampled + np.float32(0.25), "pac").consistency == pytest.approx(25)


def test_what_is_undefined_is_none_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = score("", "", np.full((8, 8), 2.5), np.full((8, 8), 2.0), 0, 100.0)
        assert (flat.rmse_near_edges, flat.boundary_f1, flat.edge_pixels) == (None, None, 0)
        assert flat.rmse == flat.rmse_elsewhere == 50.0
        narrow = np.full((8, 6), 2.0)
        narrow[:, 3:] = 4.0
        assert score("", "", narrow, narrow, 0, 100.0).rmse_elsewhere is None
        assert score("", "", np.full((8, 6), 3.0), narrow, 0, 100.0).boundary_f1 == 0.0
        below = score("", "", narrow, np.minimum(narrow - 4, 0), 0, 1.0)
        assert (below.rel, below.mae) == (None, 4.0)
        infinite = narrow.copy()
        infinite[0, 0] = np.inf
        assert score("", "", infinite, infinite, 0, 1.0).unknown == 0
        assert score("", "", infinite, narrow, 0, 1.0).unknown == 1


def test_scored_in_double_precision():
    truth = np.full((100, 100), 5000.0, np.float32)
    result = truth + np.float32(2**-11)  # the smallest step of float32 there
    assert score("", "", result, truth, 0, 1.0).rmse == pytest.approx(2**-11, rel=1e-9)


def test_nothing_to_score():
    truth = np.full((8, 8), np.nan, np.float32)
    truth[0, 0] = 1.0
    with pytest.raises(InputError, match="room 7: no pixel inside a border of 2"):
        score("room 7", "", np.ones((8, 8), np.float32), truth, 2, 1.0)


def test_metrics_are_fields():
    found = score("", "", boxes(), boxes(1), 0, 100.0, np.ones((6, 8)))
    assert all(isinstance(getattr(found, name), float) for name in METRICS)


def test_interval_is_repeatable_and_around_the_mean():
    rng = np.random.default_rng(0)
    values, scenes = rng.normal(10, 2, 400), [str(n) for n in range(400)]
    low, high = bootstrap_interval(values, scenes)
    assert (low, high) == bootstrap_interval(values, scenes)
    assert (low, high) != bootstrap_interval(values, scenes, seed=1)
    half = 1.96 * values.std() / math.sqrt(400)  # the normal approximation
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_interval_resamples_scenes():
    rng = np.random.default_rng(0)
    values = rng.normal(10, 2, 40).repeat(10)  # ten equal images of each scene say no more than one
    scenes = [f"scene {n // 10}" for n in range(400)]
    low, high = bootstrap_interval(values, scenes)
    assert (low, high) == pytest.approx(bootstrap_interval(values[::10], scenes[::10]), rel=1e-12)
    assert bootstrap_interval(values, ["one"] * 400) is None
    # of 2 scenes 3/4 of the draws hold the first, whose three images weigh more: means are 0, 1 or 4
    assert bootstrap_interval(np.array([0.0, 4.0, 0.0, 0.0]), ["a", "b", "a", "a"]) == (0.0, 4.0)
    assert bootstrap_interval(np.full(5, 2.5), list("aabbc")) == (2.5, 2.5)
