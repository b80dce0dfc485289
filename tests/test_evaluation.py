"""Scores against hand computation, and the field's numbers on real images where they are at hand."""

import csv
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error

from depthup import upsample
from depthup.data import InputError, Pair, crop_to_multiple, make_low_resolution, open_dataset
from depthup.evaluation import Score, evaluate, score
from depthup.models import DDFUpNet, DDFUpNetConfig

REAL = Path(__file__).resolve().parents[2] / "shared" / "rgbd"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the RGB-D images are not at hand")


class Synthetic:
    """Random pairs, of the sizes given."""

    title = "synthetic"

    def __init__(self, sizes=((24, 32), (48, 40)), unit="m", border=0, holes=False):
        rng = np.random.default_rng(0)
        self.unit, self.border = unit, border
        self.names = [f"pair {n}" for n in range(len(sizes))]
        self.scenes = [f"scene {n // 2}" for n in range(len(sizes))]
        self.pairs = []
        for n, (height, width) in enumerate(sizes):
            rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            depth = rng.uniform(1, 1 + 2 * n, (height, width)).astype(np.float32) + n
            if holes:
                depth[rng.random(depth.shape) < 0.1] = np.nan
            self.pairs.append(Pair(self.names[n], self.scenes[n], rgb, depth, unit))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def by_hand(truth: np.ndarray, scale: int, border: int, factor: float) -> tuple[float, float, int, int]:
    """RMSE, MAE, scored and unknown pixels of `nearest` under `pac`, pixel by pixel."""
    height, width = truth.shape[0] // scale * scale, truth.shape[1] // scale * scale
    squares = absolutes = count = unknown = 0
    for row in range(border, height - border):
        for column in range(border, width - border):
            true = float(truth[row, column])
            first = (scale - 1) // 2
            guess = float(truth[row // scale * scale + first, column // scale * scale + first])
            if math.isnan(true):
                continue
            if math.isnan(guess):
                unknown += 1
                continue
            squares += (factor * (guess - true)) ** 2
            absolutes += abs(factor * (guess - true))
            count += 1
    return math.sqrt(squares / count), absolutes / count, count, unknown


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("border", [0, 1, 6])
@pytest.mark.parametrize(("unit", "factor"), [("m", 100.0), ("disparity", 1.0)])
def test_scores_are_those_of_hand_computation(unit, factor, border, holes):
    dataset = Synthetic(((25, 34), (48, 43)), unit, border, holes)  # no multiples of the scale
    result = evaluate(dataset, 4, "pac", "nearest")
    expected = [by_hand(pair.depth, 4, border, factor) for pair in dataset.pairs]
    for found, (rmse, mae, pixels, unknown), pair in zip(result.scores, expected, dataset.pairs, strict=True):
        assert (found.name, found.scene, found.pixels, found.unknown) == (pair.name, pair.scene, pixels, unknown)
        assert found.rmse == pytest.approx(rmse, rel=1e-6)
        assert found.mae == pytest.approx(mae, rel=1e-6)
    assert (result.unknown > 0) == holes
    # over images, not over pixels: the two images differ in size and error
    assert result.rmse == pytest.approx((expected[0][0] + expected[1][0]) / 2, rel=1e-6)
    assert result.mae == pytest.approx((expected[0][1] + expected[1][1]) / 2, rel=1e-6)
    pooled = math.sqrt(sum(e[0] ** 2 * e[2] for e in expected) / sum(e[2] for e in expected))
    assert abs(result.rmse - pooled) > 0.01 * pooled


def test_rmse_is_that_of_scikit_image():
    dataset = Synthetic(((40, 56),))
    pair = dataset[0]
    found = evaluate(dataset, 4, "dkn", "bicubic").scores[0]
    result = upsample(pair.rgb, make_low_resolution(pair.depth, 4, "dkn"), "bicubic").astype(np.float64)
    assert found.rmse == pytest.approx(100 * math.sqrt(mean_squared_error(pair.depth, result)), rel=1e-6)


def test_score_of_known_numbers():
    truth = np.full((6, 6), 2.0, np.float32)
    result = truth.copy()
    result[0, 0] = 99.0  # in the border
    result[1, 1], result[4, 4] = 2.25, 1.5
    truth[2, 2] = np.nan
    result[3, 3] = np.nan
    found = score("name", "scene", result, truth, 1, 100.0)
    assert found == Score("name", "scene", math.sqrt((25.0**2 + 50.0**2) / 14), 75.0 / 14, 14, 1)
    assert score("name", "scene", result, truth, 0, 1.0).rmse == pytest.approx(
        math.sqrt((97.0**2 + 0.25**2 + 0.5**2) / 34)
    )


def test_scored_in_double_precision():
    truth = np.full((100, 100), 5000.0, np.float32)
    result = truth + np.float32(2**-11)  # the smallest step of float32 there
    assert score("", "", result, truth, 0, 1.0).rmse == pytest.approx(2**-11, rel=1e-9)


def test_nothing_to_score():
    truth = np.full((8, 8), np.nan, np.float32)
    truth[0, 0] = 1.0
    with pytest.raises(InputError, match="room 7: no pixel inside a border of 2"):
        score("room 7", "", np.ones((8, 8), np.float32), truth, 2, 1.0)


@pytest.mark.parametrize(("unit", "name"), [("m", "cm"), ("disparity", "disparity levels")])
def test_summary_says_what_was_measured(unit, name):
    result = evaluate(Synthetic(unit=unit, border=2), 4, "dkn", "bilinear")
    summary = result.summary()
    assert summary == {
        "data": "synthetic",
        "method": "bilinear",
        "scale": 4,
        "protocol": "dkn",
        "degradation": "anti-aliased bicubic, a = -0.5 (PIL)",
        "border": 2,
        "unit": name,
        "averaging": "per image, then the mean over images",
        "images": 2,
        "scenes": 1,
        "rmse": result.rmse,
        "mae": result.mae,
        "unknown_pixels": 0,
    }
    assert "depth[(s-1)//2::s" in evaluate(Synthetic(), 4, "pac", "nearest").degradation


def test_protocols_give_different_low_resolution():
    assert evaluate(Synthetic(), 4, "pac", "bicubic").rmse != evaluate(Synthetic(), 4, "dkn", "bicubic").rmse


def test_csv_has_a_line_per_image(tmp_path):
    result = evaluate(Synthetic(((24, 32),) * 3, holes=True), 2, "pac", "nearest")
    path = tmp_path / "scores.csv"
    result.write_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "scene", "rmse", "mae", "pixels", "unknown"] == [f.name for f in fields(Score)]
    kinds = (str, str, float, float, int, int)
    found = [Score(*(kind(value) for kind, value in zip(kinds, row.values(), strict=True))) for row in rows]
    assert found == result.scores
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_a_network_is_scored_as_upsample_runs_it():
    torch.manual_seed(0)
    net = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1)).eval()
    torch.nn.init.normal_(net.net.result.weight)
    dataset = Synthetic(((26, 33),))
    pair = dataset[0]
    rgb, truth = crop_to_multiple(pair.rgb, 4), crop_to_multiple(pair.depth, 4)
    result = upsample(rgb, make_low_resolution(truth, 4, "dkn"), net)
    found = evaluate(dataset, 4, "dkn", net, "mine")
    assert found.method == "mine"
    assert found.scores == [score(pair.name, pair.scene, result, truth, 0, 100.0)]


def test_progress_counts_images():
    seen = []
    evaluate(Synthetic(((8, 8),) * 3), 2, "dkn", "nearest", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("sizes", "scale", "message"),
    [
        (((16, 16), (16, 12)), 16, "pair 1: image of 12x16 pixels is smaller than one cell of 16x16"),
        (((16, 16),), 2, "pair 0: depth: none of its 64 samples is valid"),
    ],
)
def test_a_bad_image_is_named(sizes, scale, message):
    dataset = Synthetic(sizes)
    if len(sizes) == 1:
        dataset.pairs[0].depth[:] = np.nan
    with pytest.raises(InputError, match=message):
        evaluate(dataset, scale, "dkn", "bicubic")


def test_a_model_of_another_scale():
    net = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1))
    with pytest.raises(InputError, match="upsamples by 4, and the pair's factor is 2"):
        evaluate(Synthetic(), 2, "dkn", net)


class First:
    """The first pairs of a data set."""

    def __init__(self, dataset, count):
        self.dataset, self.count = dataset, count
        self.title, self.unit, self.border = dataset.title, dataset.unit, dataset.border

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.dataset[index]


@real
def test_nyuv2_validation_images():
    dataset = First(open_dataset(REAL / "nyuv2", "val"), 3)
    rmse = {name: evaluate(dataset, 4, "dkn", name).rmse for name in ("nearest", "bilinear", "bicubic")}
    assert 0 < rmse["bicubic"] < rmse["bilinear"] < rmse["nearest"] < 50
    assert evaluate(dataset, 4, "dkn", "bicubic").border == 6


@real
@pytest.mark.parametrize(
    ("folder", "scale", "published"),
    [("middlebury", 4, 2.28), ("middlebury", 8, 3.98), ("middlebury", 16, 6.37)],
)
def test_bicubic_is_near_what_papers_print(folder, scale, published):
    # half of their images, and a = -0.75 where they have -0.5
    result = evaluate(open_dataset(REAL / folder, "test"), scale, "dkn", "bicubic")
    assert result.rmse == pytest.approx(published, rel=0.06)
    assert result.unit == "disparity levels"
    assert result.border == 0
