"""The simulated sensor: every fault is there, alone, in the strength that was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from depthup.data import STANDARD_SENSOR, CachedPairs, CropSampler, Pair, Sensor, UsageError, make_low_resolution
from depthup.data.sensor import SAMPLINGS, random_plane, random_sensor


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """A tilted wall at 3 to 4 m and a box at 1.5 m."""
    depth = np.full((height, width), 3, np.float32) + np.linspace(0, 1, width, dtype=np.float32)
    depth[height // 4 : height // 2, width // 4 : width // 2] = 1.5
    return depth


def measure(sensor: Sensor, depth: np.ndarray | None = None, scale: int = 4, seed: int = 0) -> np.ndarray:
    return sensor.measure(scene() if depth is None else depth, scale, np.random.default_rng(seed))


@pytest.mark.parametrize("sampling", ["dkn", "pac"])
def test_an_ideal_sensor_is_the_protocol(sampling):
    np.testing.assert_array_equal(measure(Sensor(sampling)), make_low_resolution(scene(), 4, sampling))


def test_a_sensor_tells_its_faults():
    assert str(STANDARD_SENSOR) == "noise of 1 mm + 1.5 mm z^2, blobs 0.2"
    assert str(Sensor("area", shift=(0.5, 0.0))) == "shift (0.5, 0.0)" and str(Sensor("pac")) == "no fault"


def test_area_is_the_mean_of_a_cell():
    expected = scene().reshape(24, 4, 32, 4).mean((1, 3))
    np.testing.assert_allclose(measure(Sensor("area")), expected, rtol=1e-6)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_noise_grows_with_the_square_of_depth(correlation):
    for metres in (1.0, 3.0):
        flat = np.full((400, 400), metres, np.float32)
        sensor = Sensor(noise_floor=0.002, noise_square=0.003, correlation=correlation)
        error = measure(sensor, flat) - metres
        assert error.std() == pytest.approx(0.002 + 0.003 * metres**2, rel=0.1)
        assert abs(error.mean()) < 0.2 * error.std()
        neighbours = np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]
        assert neighbours == pytest.approx(0.78 * correlation, abs=0.08)


def test_dropout_and_blobs_are_as_many_as_asked_for():
    flat = np.full((400, 400), 2, np.float32)
    assert np.isnan(measure(Sensor(dropout=0.1), flat)).mean() == pytest.approx(0.1, abs=0.01)
    blobs = np.isnan(measure(Sensor(blobs=0.3), flat))
    assert blobs.mean() == pytest.approx(0.3, abs=0.001)
    assert (blobs[1:] == blobs[:-1]).mean() > 0.85  # connected, unlike dropout at this rate: 0.58


def test_flying_samples_lie_between_the_surfaces_and_beside_an_edge():
    ideal, flying = measure(Sensor("pac")), measure(Sensor("pac", flying=1.0))
    moved = np.abs(flying - ideal) > 1e-6
    assert moved.any()
    assert flying.min() >= ideal.min() - 1e-6 and flying.max() <= ideal.max() + 1e-6
    assert not moved[:, 20:].any()  # the wall


def test_a_shadow_falls_on_the_far_side_of_an_edge():
    missing = np.isnan(measure(Sensor("pac", shadow=2)))
    assert missing.any()
    assert not missing[7:11, 9:15].any()  # the box
    sides = missing[7:11, 4:8].sum(), missing[7:11, 16:20].sum()
    assert min(sides) < max(sides)


def test_quantum_blur_range_and_shift():
    flat = np.linspace(2, 2.01, 128, dtype=np.float32) * np.ones((96, 1), np.float32)
    assert len(np.unique(measure(Sensor(quantum=0.01), flat)[20].round(2))) == 1
    assert np.abs(np.diff(measure(Sensor(blur=1.0)))).max() < np.abs(np.diff(measure(Sensor()))).max()
    seen = measure(Sensor(near=2.0, far=3.5))
    assert np.nanmin(seen) > 2 and np.nanmax(seen) < 3.5 and np.isnan(seen).any()
    np.testing.assert_allclose(measure(Sensor("pac", shift=(0, 4)))[:, 1:], measure(Sensor("pac"))[:, :-1], rtol=1e-5)


def test_it_never_measures_nothing_and_repeats_itself():
    sensor = Sensor(near=9.0)
    assert np.isfinite(measure(sensor)).all()
    np.testing.assert_array_equal(measure(STANDARD_SENSOR), measure(STANDARD_SENSOR))
    assert not np.array_equal(measure(STANDARD_SENSOR), measure(STANDARD_SENSOR, seed=1), equal_nan=True)
    unknown = scene()
    unknown[:32] = np.nan
    low = measure(replace(STANDARD_SENSOR, blobs=0.0), unknown)
    assert np.isnan(low[:7]).all() and np.isfinite(low[9:]).all()
    assert np.isnan(measure(STANDARD_SENSOR, np.full((8, 8), np.nan, np.float32))).all()


@pytest.mark.parametrize(("scale", "reach"), [(4, (1, 2)), (8, (3, 4)), (3, (1,))])
def test_points_lie_around_the_middle_of_their_cells(scale, reach):
    rows, columns = np.mgrid[:24, :48].astype(np.float32)
    found = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        row, column = (Sensor("point").measure(1 + plane, scale, rng) - 1 for plane in (rows, columns))
        assert np.ptp(row % scale) == np.ptp(column % scale) == 0  # the same in every cell
        found |= {(int(row[0, 0]), 0), (0, int(column[0, 0]))}
    assert found == {(n, 0) for n in reach} | {(0, n) for n in reach}


NOISE_AND_HOLES = ("noise_floor", "noise_square", "dropout", "blobs", "shadow")


def test_random_sensors_are_sometimes_ideal_and_always_possible():
    rng = np.random.default_rng(0)
    everyone = [random_sensor(rng, 8) for _ in range(400)]
    sensors = [s for s in everyone if s.sampling != "sparse"]
    assert 0.1 < 1 - len(sensors) / len(everyone) < 0.2
    assert all(random_sensor(rng, 1).sampling != "sparse" for _ in range(100))
    ideal = [s for s in sensors if s == Sensor(s.sampling)]
    noisy = [s for s in sensors if s == Sensor(s.sampling, **{name: getattr(s, name) for name in NOISE_AND_HOLES})]
    assert 0.1 < len(ideal) / len(sensors) < 0.25
    assert 0.6 < len(noisy) / len(sensors) < 0.8  # the ideal ones among them
    assert {s.sampling for s in everyone} == set(SAMPLINGS) - {"pac"}  # whose points are off the middle to one side
    for sensor in everyone[:60]:
        low = measure(sensor, scale=8)
        assert low.dtype == np.float32 and np.isfinite(low).mean() >= 0.05 and np.nanmin(low) > 0


def test_random_planes_are_planes():
    for seed in range(20):
        plane = random_plane((20, 30), np.random.default_rng(seed))
        assert np.abs(np.diff(plane, 2, axis=0)).max() < 1e-5 and np.abs(np.diff(plane, 2, axis=1)).max() < 1e-5
        assert plane.min() >= 0.5 and plane.max() <= 10


class Scenes:
    title, unit, border = "scenes", "m", 0
    names = scenes = [str(n) for n in range(3)]  # noqa: RUF012 - a data set that never changes

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Pair:
        rgb = np.random.default_rng(index).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        return Pair(str(index), str(index), rgb, scene(), "m")


def test_crops_of_sensors_depend_on_seed_and_step_alone():
    pairs = CachedPairs(Scenes())
    batches = [CropSampler(pairs, 64, 4, "dkn", 4, seed=1, sensor=True).batch(step) for step in (5, 5, 6)]
    for name, values in batches[0].items():
        np.testing.assert_array_equal(values.numpy(), batches[1][name].numpy())
    assert not np.array_equal(batches[0]["low"].numpy(), batches[2]["low"].numpy(), equal_nan=True)
    for n in range(4):
        low, (bottom, top) = batches[0]["low"][n], batches[0]["low_range"][n]
        assert bottom <= low[low.isfinite()].min() and low[low.isfinite()].max() <= top


def test_sensors_are_for_metres():
    pairs = CachedPairs(Scenes())
    pairs.unit = "disparity"
    with pytest.raises(ValueError, match="scenes: holds disparity, expected metres, which a simulated sensor measures"):
        CropSampler(pairs, 64, 4, "dkn", 4, seed=1, sensor=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampling": "mean"}, "sampling: got 'mean', expected one of dkn, pac, area, point, sparse"),
        ({"correlation": 1.5}, "correlation: got 1.5, expected a number from 0 to 1"),
        ({"noise_floor": np.nan}, "noise_floor: got nan, expected a number from 0$"),
        ({"quantum": -1}, "quantum: got -1"),
        ({"blobs": 1.1}, "blobs: got 1.1"),
        ({"shift": (1,)}, r"shift: got \(1,\)"),
        ({"far": None}, "far: got None"),
    ],
)
def test_sensors_that_cannot_be(wrong, message):
    assert Sensor(shift=[1.0, 0.0]) == Sensor(shift=(1.0, 0.0))
    with pytest.raises(UsageError, match=message):
        Sensor(**wrong)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_depth_of_no_whole_cells_is_refused(sampling):
    with pytest.raises(ValueError, match=r"depth is \[63, 64\], expected \[H, W\], multiples of 4"):
        Sensor(sampling).measure(np.ones((63, 64), np.float32), 4, np.random.default_rng(0))
