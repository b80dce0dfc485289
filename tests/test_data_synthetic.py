"""Synthetic rooms: depth is that of the first surface, to the last digit; scenes are varied and repeat themselves."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from depthup.data import CachedPairs, Pair, Synthetic, open_dataset, synthetic_pair
from depthup.data.synthetic import SPLIT_SCENES
from depthup.data.synthetic.parts import Builder, Place
from depthup.data.synthetic.rays import BOX, CYLINDER, ROOM, SPHERE, View, cast
from depthup.data.synthetic.rooms import Room

H, W = 90, 120


@pytest.fixture(scope="module")
def pairs():
    return [synthetic_pair(number, 5, H, W) for number in range(24)]


def scene(number: int):
    """Shapes, camera, depth and the shapes that are seen of a scene as `synthetic_pair` makes it."""
    rng = np.random.default_rng(np.random.SeedSequence([5, number]))
    shapes, _, _, view = Room(rng, H, W).furnish()
    return shapes, view, *cast(shapes, view, H, W)


def rays(view: View) -> np.ndarray:
    """[H, W, 3], directions with a component of 1 along the optical axis."""
    rows, columns = np.mgrid[:H, :W] + 0.5
    right, down, forward = view.axes
    return forward + ((columns - W / 2)[..., None] * right + (rows - H / 2)[..., None] * down) / view.focal


def level(shapes, n: int, points: np.ndarray) -> np.ndarray:
    """Below 1 inside a shape, 1 on its surface, for points [..., 3]."""
    x, y, z = np.moveaxis((points - shapes.centre[n]) @ shapes.to_unit[n].T, -1, 0)
    if shapes.kind[n] == SPHERE:
        return x**2 + y**2 + z**2
    if shapes.kind[n] == CYLINDER:
        return np.maximum(x**2 + y**2, z**2)
    return np.maximum(np.maximum(x**2, y**2), z**2)


def test_a_pair_is_of_the_right_kind_and_range(pairs):
    for pair in pairs:
        assert pair.rgb.dtype == np.uint8 and pair.rgb.shape == (H, W, 3)
        assert pair.depth.dtype == np.float32 and pair.depth.shape == (H, W) and pair.unit == "m"
        assert np.isfinite(pair.depth).all() and pair.depth.min() >= 0.3 and pair.depth.max() <= 10
        assert 25 < pair.rgb.mean() < 230 and pair.rgb.std() > 8
    assert min(pair.depth.min() for pair in pairs) < 0.7 and max(pair.depth.max() for pair in pairs) > 5


def test_scenes_repeat_themselves_on_any_number_of_threads(pairs):
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda number: synthetic_pair(number, 5, H, W), range(8)))
    for one, other in zip(pairs, again, strict=False):
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.depth, other.depth)
    for one, other in itertools.combinations(pairs[:6], 2):
        assert not np.array_equal(one.depth, other.depth)
    assert not np.array_equal(synthetic_pair(0, 6, H, W).depth, pairs[0].depth)


def test_every_pixel_lies_on_the_surface_of_its_shape(pairs):
    kinds = set()
    for number in range(8):
        shapes, view, depth, seen = scene(number)
        np.testing.assert_array_equal(depth.astype(np.float32), pairs[number].depth)
        points = view.origin + depth[..., None] * rays(view)
        for n in np.unique(seen):
            np.testing.assert_allclose(level(shapes, n, points[seen == n]), 1, atol=1e-7)
            kinds.add(int(shapes.kind[n]))
    assert kinds == {BOX, CYLINDER, SPHERE, ROOM}


def test_nothing_stands_before_what_a_pixel_sees():
    """Against marching along rays in steps of 2 mm, which knows only the inside and the outside of a shape."""
    rng = np.random.default_rng(0)
    for number in range(4):
        shapes, view, depth, _ = scene(number)
        picked = rng.integers(0, (H, W), (24, 2))
        steps = np.arange(0, 10, 0.002)
        for row, column in picked:
            before = steps[steps < depth[row, column] - 1e-6]
            points = view.origin + before[:, None] * rays(view)[row, column]
            assert (level(shapes, 0, points) < 1).all()
            for n in range(1, len(shapes.kind)):
                assert (level(shapes, n, points) > 1).all()


def test_known_depths():
    b = Builder(np.random.default_rng(0))
    place, material = Place(0, 0, 0, 0), b.material([(0.5, 0.5, 0.5)])
    b.group()
    b.add(ROOM, place, (0, 0, 0), (3, 5, 3), material)
    b.group()
    b.box(place, (-1, 0), (2, 3), (-1, 1), material)
    b.post(place, 1, 3, (-0.5, 0.5), 0.5, material)
    view = View(np.zeros(3), np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), 60.0)
    depth, _ = cast(b.arrays()[0], view, H, W)
    assert depth[20, 62] == pytest.approx(5, rel=1e-12)  # the wall
    assert depth[0, 62] == pytest.approx(3 * 60 / 44.5, rel=1e-12)  # the ceiling
    np.testing.assert_allclose(depth[45, 32:58], 2, rtol=1e-12)  # the front of the box
    a = 0.5 / 60 + (80 - 60) / 60  # the ray at column 80: (x - 1)^2 + (y - 3)^2 = 1/4 with x = a t, y = t
    expected = (a + 3 - np.sqrt((a + 3) ** 2 - (a**2 + 1) * 9.75)) / (a**2 + 1)
    assert depth[45, 80] == pytest.approx(expected, rel=1e-12)


def test_colour_edges_and_depth_edges_are_different_things(pairs):
    hidden, painted = [], []
    for pair in pairs:
        logarithm, grey = np.log(pair.depth), pair.rgb.mean(2)
        depth_step = np.abs(np.diff(logarithm, axis=1))
        colour_step = np.abs(np.diff(grey, axis=1))
        edge = depth_step > 0.05
        hidden.append((colour_step[edge] < 8).mean() if edge.any() else 0)
        painted.append((depth_step[colour_step > 20] < 0.01).mean())
    assert 0.1 < np.mean(hidden) < 0.5  # depth edges without a colour edge
    assert 0.35 < np.mean(painted) < 0.9  # colour edges on a smooth surface


def test_most_scenes_have_thin_structures(pairs):
    def count(depth: np.ndarray) -> int:
        """Pixels in front of what lies 5 pixels beside them, on both sides."""
        return int(((depth[:, 5:-5] < 0.9 * depth[:, :-10]) & (depth[:, 5:-5] < 0.9 * depth[:, 10:])).sum())

    assert np.mean([count(pair.depth) > 20 for pair in pairs]) > 0.6


def test_splits_share_no_scene():
    names = {split: Synthetic(split).names for split in SPLIT_SCENES}
    assert [len(names[split]) for split in ("train", "val", "test")] == [800, 32, 32]
    assert sorted(names["train"] + names["val"] + names["test"]) == sorted(set(names["all"]))
    assert not set(names["all"]) & set(Synthetic("all", seed=1).names)


def test_the_data_set(monkeypatch):
    def small(number: int, seed: int) -> Pair:
        return synthetic_pair(number, seed, H, W)

    monkeypatch.setattr("depthup.data.synthetic.synthetic_pair", small)
    monkeypatch.setitem(SPLIT_SCENES, "val", range(800, 803))
    dataset = open_dataset("synthetic", "val")
    assert (dataset.title, dataset.unit, dataset.border) == ("synthetic rooms, split val", "m", 0)
    cached = CachedPairs(dataset)
    assert len(cached) == 3 and cached.scenes == dataset.scenes
    np.testing.assert_array_equal(cached[1].depth, synthetic_pair(801, 0, H, W).depth)
    assert cached[1].name == dataset[1].name == dataset.names[1]
    with pytest.raises(IndexError):
        dataset[3]


def test_any_shape_of_picture():
    for height, width in ((16, 16), (120, 50), (33, 97)):
        pair = synthetic_pair(3, 0, height, width)
        assert pair.rgb.shape == (height, width, 3) and pair.depth.min() >= 0.3


def test_bad_arguments():
    with pytest.raises(ValueError, match="number -1, seed 0: expected >= 0"):
        synthetic_pair(-1)
    with pytest.raises(ValueError, match="size 640x8 is too small"):
        synthetic_pair(0, height=8)
    with pytest.raises(ValueError, match="seed -1: expected >= 0"):
        Synthetic("val", seed=-1)
    with pytest.raises(ValueError, match="split 'dev' is unknown"):
        open_dataset("synthetic", "dev")
