"""Samples unlike all around them."""

from __future__ import annotations

import numpy as np
import pytest

from depthup.data.isolated import isolated


def room(shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A slanted wall, and a box before it with half its depth."""
    depth = np.add.outer(np.linspace(2, 3, shape[0]), np.linspace(0, 1, shape[1]))
    depth[10:30, 20:40] /= 2
    return depth


@pytest.mark.parametrize("unit", [1.0, 1000.0, 1e-6])
@pytest.mark.parametrize("factor", [0, 0.1, 0.5, 2.1, 20])
def test_what_is_unlike_all_its_neighbours(factor, unit):
    depth, valid = room(), np.ones((40, 60), bool)
    assert not isolated(depth, valid).any()
    expected = np.zeros_like(valid)
    for place in ((0, 0), (0, 30), (39, 59), (20, 5), (20, 30)):
        depth[place], expected[place] = depth[place] * factor, True
    np.testing.assert_array_equal(isolated(depth * unit, valid), expected)


def test_by_its_definition():
    rng = np.random.default_rng(0)
    depth = np.exp(rng.normal(size=(40, 60)) * 0.3)
    valid = rng.random(depth.shape) < 0.7
    expected = np.zeros_like(valid)
    for y, x in zip(*valid.nonzero(), strict=True):
        rows, columns = slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2)
        others = valid[rows, columns].copy()
        others[y - rows.start, x - columns.start] = False
        near = depth[rows, columns][others]
        expected[y, x] = len(near) >= 3 and (depth[y, x] > 1.5 * near.max() or depth[y, x] * 1.5 < near.min())
    assert 0 < expected.sum() <= 0.1 * valid.sum()
    np.testing.assert_array_equal(isolated(np.where(valid, depth, np.nan), valid), expected)


def test_an_edge_a_line_and_a_pair_are_none():
    depth, valid = room(), np.ones((40, 60), bool)
    depth[5, 5:50] = 1  # a wire
    depth[35, 10:12] = 30  # two of them beside each other
    assert not isolated(depth, valid).any()


@pytest.mark.parametrize("case", ["few neighbours", "small", "relative", "many"])
def test_where_nothing_can_be_said(case):
    depth = room()
    depth[20, 5] = 60
    valid = np.ones(depth.shape, bool)
    assert isolated(depth, valid).sum() == 1
    if case == "few neighbours":
        valid[19:22, 4:7] = False
        valid[19, 4:6] = valid[20, 5] = True
    elif case == "small":
        depth, valid = depth[:31], valid[:31]
    elif case == "relative":
        depth -= depth.min() + 0.1
    else:
        depth[::3, ::3] *= 20
    assert not isolated(depth, valid).any()
