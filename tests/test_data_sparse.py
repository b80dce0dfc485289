"""Sparse depth, gathered into cells."""

from __future__ import annotations

import numpy as np
import pytest

from depthup.data.sparse import density, gather, gather_sparse, least_density, margins


def some(fraction: float, shape: tuple[int, int] = (96, 160)) -> np.ndarray:
    return np.random.default_rng(0).random(shape) < fraction


def grid(rows: slice, columns: slice) -> np.ndarray:
    valid = np.zeros((96, 160), bool)
    valid[rows, columns] = True
    return valid


@pytest.mark.parametrize(
    ("fraction", "side"), [(0.9, 1), (0.5, 2), (0.3, 2), (0.07, 4), (0.02, 4), (0.004, 8), (0.001, 16)]
)
def test_the_smallest_cells_that_are_dense(fraction, side):
    valid = some(fraction)
    depth, known, across = gather_sparse(np.ones(valid.shape), valid, 1.0, 16)
    assert across == side
    assert depth.shape == known.shape == (96 // side, 160 // side)
    assert side == 16 or density(known) >= least_density(side)


def test_networks_of_larger_ratios_need_fewer_samples():
    valid = some(0.25)
    for ratio, side in ((1.0, 2), (1.02, 2), (1.1, 2), (2.0, 2), (2.1, 1), (4.0, 1), (8.0, 1)):
        assert gather_sparse(np.ones(valid.shape), valid, ratio, 16)[2] == side
    assert gather_sparse(np.ones(valid.shape), some(0.03), 4.0, 16)[2] == 2
    assert gather_sparse(np.ones(valid.shape), some(0.03), 16.0, 16)[2] == 1  # there are no larger ones


@pytest.mark.parametrize("pitch", [2, 3, 5, 7, 12, 16])
@pytest.mark.parametrize("first", [0, 1, -1])
def test_points_on_a_grid_lie_in_the_middle_of_cells_of_their_own(pitch, first):
    valid = grid(slice(first % pitch, None, pitch), slice(-first % pitch, None, pitch)) & some(0.9)
    around = margins(valid, 1.0, 16)
    wider = np.pad(valid, around)
    assert max(max(pair) for pair in around) < pitch and not any(np.array(wider.shape) % pitch)
    for axis in (0, 1):
        lines = np.flatnonzero(wider.any(1 - axis)) % pitch
        assert (np.abs(lines + 0.5 - pitch / 2) <= 0.5).all()
    assert margins(wider, 1.0, 16) == [(0, 0), (0, 0)]
    cells, known, side = gather_sparse(np.where(wider, 3.0, np.nan), wider, 1.0, 16)
    assert (side, known.sum()) == (pitch, valid.sum())
    assert set(cells[known]) == {3.0}


def test_grids_larger_than_cells_may_be():
    assert gather_sparse(np.ones((96, 160)), grid(slice(0, None, 24), slice(0, None, 24)), 1.0, 16)[2] == 12
    assert gather_sparse(np.ones((96, 160)), grid(slice(0, None, 6), slice(0, None, 6)), 1.0, 4)[2] == 3
    assert gather_sparse(np.ones((96, 160)), grid(slice(0, None, 6), slice(0, None, 6)), 4.0, 16)[2] == 3


def test_lines_of_points_have_margins_across_them_alone():
    assert margins(grid(slice(0, None, 8), slice(None)), 1.0, 16) == [(3, 5), (0, 0)]
    assert margins(grid(slice(0, None, 8), slice(None)), 1.0, 4) == [(1, 3), (0, 0)]
    for valid in (some(0.1), some(0.9), grid(slice(5, 6), slice(None)), grid(slice(5, 6), slice(7, 8))):
        assert margins(valid, 1.0, 16) == [(0, 0), (0, 0)]


def test_cells_are_no_larger_than_asked():
    valid = some(0.001)
    for most, side in ((1, 1), (1.99, 2), (3.9, 2), (8, 8), (16, 16)):
        assert gather_sparse(np.ones(valid.shape), valid, 1.0, most)[2] == side
    one = np.zeros((5, 40), bool)
    one[2, 20] = True
    assert gather_sparse(np.ones(one.shape), one, 1.0, 16)[2] == 4  # nor larger than depth


def test_holes_of_a_dense_sensor_and_depth_of_a_part_of_the_view_are_no_sparse_samples():
    valid = some(0.97)
    valid[20:60, 30:90] = False
    assert density(valid) > 0.9
    assert density(np.ones((1, 1), bool)) == 1  # nothing is beside it
    part = np.zeros((96, 160), bool)
    part[40:70, 50:120] = True
    island, strip = np.zeros((2, 96, 160), bool)
    island[30:36, 70:76] = strip[:, 40:43] = True
    depth = np.random.default_rng(1).random(part.shape)
    for seen in (valid, part, island, strip):
        same, known, side = gather_sparse(depth, seen, 1.0, 16)
        assert side == 1 and same is depth and known is seen


def test_a_cell_is_the_mean_of_its_valid_samples():
    depth = np.arange(24.0).reshape(4, 6)
    valid = np.zeros((4, 6), bool)
    valid[0, 0] = valid[1, 1] = valid[2, 5] = True
    depth[~valid] = np.nan  # whatever it is
    cells, known = gather(depth, valid, (2, 3))
    assert known.tolist() == [[True, False, False], [False, False, True]]
    assert cells[known].tolist() == [3.5, 17.0]
    assert np.isnan(cells[~known]).all()


@pytest.mark.parametrize("shape", [(24, 40), (25, 37), (96, 160), (7, 160)], ids=str)
def test_every_sample_counts_once_whatever_the_cells(shape):
    depth, valid = np.random.default_rng(2).random((96, 160)) + 1, some(0.4)
    flat = np.where(valid, 3.0, np.nan)
    cells, known = gather(flat, valid, shape)
    assert np.allclose(cells[known], 3.0)
    if shape == (96, 160):
        assert np.array_equal(known, valid)
        np.testing.assert_allclose(gather(depth, valid, shape)[0][known], depth[valid])


@pytest.mark.parametrize("side", [2, 4])
def test_a_plane_stays_one_where_cells_have_neighbours(side):
    rows, columns = np.mgrid[:96, :160]
    plane = 2 + 0.01 * rows - 0.004 * columns
    cells, known = gather(plane, some(0.5), (96 // side, 160 // side))
    truth = plane.reshape(96 // side, side, 160 // side, side).mean((1, 3))
    error = np.abs(cells - truth)
    unmoved = np.abs(_means(plane, some(0.5), side) - truth)
    assert known.mean() > 0.9
    assert np.nanmean(error[1:-1, 1:-1]) < 0.5 * np.nanmean(unmoved[1:-1, 1:-1])


@pytest.mark.parametrize("first", range(8))
def test_lines_of_samples_wherever_they_are_in_their_cells(first):
    rows, columns = np.mgrid[:96, :160]
    plane = 2 + 0.01 * rows - 0.004 * columns
    cells, known = gather(plane, rows % 8 == first, (24, 40))  # every other row of cells is empty
    truth = plane.reshape(24, 4, 40, 4).mean((1, 3))
    assert known[first // 4 :: 2].all()
    np.testing.assert_allclose(cells[2:-2][known[2:-2]], truth[2:-2][known[2:-2]], atol=1e-9)


@pytest.mark.parametrize("shape", [(58, 418), (25, 418), (17, 33)], ids=str)
def test_cells_of_odd_sizes_are_not_larger_than_their_network_is_for(shape):
    cells, _, side = gather_sparse(np.ones(shape), some(0.06, shape), 1.0, 16)
    assert side == 4
    assert np.sqrt(shape[0] / cells.shape[0] * shape[1] / cells.shape[1]) <= 4


def test_a_cell_beside_a_depth_edge_stays_on_its_side():
    depth = np.where(np.arange(160) < 80, 1.0, 3.0) * np.ones((96, 1))
    cells, known = gather(depth, some(0.3), (24, 40))
    assert set(np.unique(cells[known])) == {1.0, 3.0}


def _means(depth: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    cells = np.where(valid, depth, np.nan).reshape(depth.shape[0] // side, side, -1, side)
    number = np.isfinite(cells).sum((1, 3))
    return np.nansum(cells, (1, 3)) / np.where(number, number, np.nan)
