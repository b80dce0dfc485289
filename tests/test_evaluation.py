"""Scores against hand computation, and the field's numbers on real images where they are at hand."""

import csv
import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error

from depthup import upsample
from depthup.data import (
    STANDARD_SENSOR,
    InputError,
    Pair,
    Sensor,
    SomePairs,
    UsageError,
    crop_to_multiple,
    make_low_resolution,
    open_dataset,
)
from depthup.data.sensor import SAMPLINGS
from depthup.evaluation import (
    DEFINITIONS,
    DEGRADATION,
    Evaluation,
    Method,
    evaluate,
    evaluate_methods,
    predict,
    write_csv,
)
from depthup.metrics import METRICS, Score, bootstrap_interval, score
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.weights import load_model

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


@pytest.mark.parametrize(
    ("unit", "name", "undefined"),
    [  # the first image is flat, and in metres the second is all edges
        ("m", "cm", {"rmse_near_edges": 1, "rmse_elsewhere": 1, "boundary_f1": 1}),
        ("disparity", "disparity levels", {"rmse_near_edges": 2, "boundary_f1": 2}),
    ],
)
def test_summary_says_what_was_measured(unit, name, undefined):
    result = evaluate(Synthetic(unit=unit, border=2), 4, "dkn", "bilinear")
    summary = result.summary()
    assert {key: value for key, value in summary.items() if key not in METRICS} == {
        "data": "synthetic",
        "method": "bilinear",
        "scale": 4,
        "protocol": "dkn",
        "degradation": "anti-aliased bicubic, a = -0.5 (PIL)",
        "border": 2,
        "unit": name,
        "averaging": "per image, then the mean over images",
        "precision": "float32",
        "images": 2,
        "scenes": 1,
        "rmse_interval": None,  # one scene
        "unknown_pixels": 0,
        "undefined_images": undefined,
        "definitions": DEFINITIONS,
    }
    for metric in METRICS:
        values = [value for s in result.scores if (value := getattr(s, metric)) is not None]
        assert summary[metric] == (pytest.approx(np.mean(values)) if values else None)
    assert (summary["rmse"], summary["mae"]) == (result.rmse, result.mae)
    assert "depth[(s-1)//2::s" in evaluate(Synthetic(), 4, "pac", "nearest").degradation


def test_definitions_name_their_numbers():
    for part in ("5 %", "2 units", "5 pixels", "1 pixel"):
        assert part in DEFINITIONS["depth edges"]
    for part in ("95 %", "2000", "scenes", "seed 0"):
        assert part in DEFINITIONS["interval"]


def test_interval_is_over_scenes():
    result = evaluate(Synthetic(((24, 32),) * 6), 4, "dkn", "bicubic")
    expected = bootstrap_interval(np.array([s.rmse for s in result.scores]), [f"scene {n // 2}" for n in range(6)])
    assert result.summary()["rmse_interval"] == result.rmse_interval() == expected
    assert expected[0] < result.rmse < expected[1]


def flat(name: str, rmse: float) -> Score:
    """Of an image without depth edges."""
    return Score(name, name, rmse, 1.0, 0.5, 1.0, 0.0, 0.0, None, rmse, None, 0.25, 0, 100, 0)


def test_means_skip_what_is_undefined_and_say_so():
    edged = Score("c", "c", 4.0, 1.0, 0.5, 1.0, 0.0, 0.0, 8.0, 2.0, 0.75, 0.25, 10, 100, 3)
    facts = ("synthetic", "x4", 4, "dkn", "bicubic", 0, "cm", "per image", "float32")
    summary = Evaluation(*facts, [flat("a", 1.0), flat("b", 2.0), edged]).summary()
    assert summary["undefined_images"] == {"rmse_near_edges": 2, "boundary_f1": 2}
    assert (summary["rmse_near_edges"], summary["boundary_f1"]) == (8.0, 0.75)
    assert (summary["rmse"], summary["rmse_elsewhere"], summary["unknown_pixels"]) == (7 / 3, 5 / 3, 3)
    nothing = Evaluation(*facts, [flat("a", 1.0)]).summary()
    assert (nothing["boundary_f1"], nothing["undefined_images"]["boundary_f1"]) == (None, 1)
    assert "NaN" not in json.dumps(nothing)


@pytest.mark.parametrize(
    ("protocol", "sensor", "name"),
    [("dkn", None, "x4"), ("pac", None, "x4-pac"), ("dkn", STANDARD_SENSOR, "sensor-x4")],
)
def test_default_is_the_network_for_the_protocol_or_for_sensors(protocol, sensor, name):
    dataset = Synthetic(((24, 32),))
    result = evaluate(dataset, 4, protocol, sensor=sensor)
    assert result == evaluate(dataset, 4, protocol, name, sensor=sensor)
    assert result.method == name


def test_a_network_is_called_by_its_architecture():
    assert evaluate(Synthetic(((24, 32),)), 4, "dkn", load_model("fast-x4")).method == "a network base x4"


def test_nothing_to_score():
    with pytest.raises(InputError, match="holds no pair, expected at least one"):
        evaluate(SomePairs(Synthetic(), 0), 4, "dkn", "bicubic")
    for scale in (0, -4, 4.0):
        with pytest.raises(InputError, match=f"scale: got {scale}, expected a whole number"):
            evaluate(Synthetic(), scale, "dkn", "bicubic")
    with pytest.raises(InputError, match="no weights in the box for scale 2"):
        evaluate(Synthetic(), 2, "dkn")


def test_several_methods_in_one_pass_are_those_of_one():
    dataset = Synthetic(((32, 40), (33, 41)), holes=True)
    methods = [Method("plain", 4, "nearest"), Method("cubic", 4, "bicubic"), Method("cubic", 8, "bicubic")]
    seen = []
    results = evaluate_methods(dataset, methods, "dkn", lambda done, total: seen.append((done, total)))
    assert results == [evaluate(dataset, m.scale, "dkn", m.model, m.name) for m in methods[:2]] + [results[2]]
    assert (results[2].scale, results[2].method) == (8, "cubic")
    assert results[2].scores == evaluate(dataset, 8, "dkn", "bicubic").scores
    assert seen == [(n, 6) for n in range(1, 7)]


def test_a_prediction_is_what_was_scored():
    dataset = Synthetic(((24, 32), (26, 33)), border=2)
    made = predict(dataset[1], Method("cubic", 4, "bicubic"), "pac")
    assert (made.rgb.shape, made.truth.shape, made.low.shape) == ((24, 32, 3), (24, 32), (6, 8))
    found = evaluate(dataset, 4, "pac", "bicubic").scores[1]
    assert found == score("pair 1", "scene 0", made.result, made.truth, 2, 100.0, made.low, "pac")
    assert found.consistency > 0


def test_protocols_give_different_low_resolution():
    assert evaluate(Synthetic(), 4, "pac", "bicubic").rmse != evaluate(Synthetic(), 4, "dkn", "bicubic").rmse


@pytest.mark.parametrize("sampling", ["area", "point", "sparse"])
def test_a_sensor_keeps_a_sampling_that_is_no_protocol(sampling):
    given = Sensor(sampling, dropout=0.1)
    result = evaluate(Synthetic(), 4, "dkn", "nearest", sensor=given)
    assert result.degradation == f"{DEGRADATION[sampling]}; then dropout 0.1"
    rmses = {evaluate(Synthetic(), 4, "dkn", "nearest", sensor=replace(given, sampling=s)).rmse for s in SAMPLINGS}
    assert result.rmse in rmses and len(rmses) == len(SAMPLINGS) - 1  # pac is a protocol, and becomes dkn


def test_a_sensor_measures_no_disparity():
    with pytest.raises(InputError, match="synthetic: holds disparity, expected metres"):
        evaluate(Synthetic(unit="disparity"), 4, "dkn", "nearest", sensor=Sensor())


def test_csv_has_a_line_per_image(tmp_path):
    methods = [Method("plain", 2, "nearest"), Method("cubic", 4, "bicubic")]
    results = evaluate_methods(Synthetic(((24, 32),) * 3, holes=True), methods, "pac")
    results[1].scores[2] = flat("no edges", 2.0)
    path = tmp_path / "scores.csv"
    write_csv(path, results)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f.name for f in fields(Score)]
    facts = ["data", "method", "precision", "scale", "protocol", "degradation", "border", "unit"]
    assert list(rows[0]) == [*facts, *names]
    assert {(row["data"], row["border"], row["unit"]) for row in rows} == {("synthetic", "0", "cm")}
    assert set(METRICS) < set(names)
    assert [(row["method"], row["scale"], row["protocol"]) for row in rows] == [
        ("plain", "2", "pac") if n < 3 else ("cubic", "4", "pac") for n in range(6)
    ]
    kinds = [str, str, *[float] * 10, int, int, int]
    found = [
        Score(*(kind(row[name]) if row[name] else None for kind, name in zip(kinds, names, strict=True)))
        for row in rows
    ]
    assert found == results[0].scores + results[1].scores
    assert found[5].boundary_f1 is None
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_a_network_is_scored_as_upsample_runs_it():
    torch.manual_seed(0)
    net = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1)).eval()
    torch.nn.init.normal_(net.net.result.weight)
    dataset = Synthetic(((26, 33),))
    pair = dataset[0]
    rgb, truth = crop_to_multiple(pair.rgb, 4), crop_to_multiple(pair.depth, 4)
    low = make_low_resolution(truth, 4, "dkn")
    found = evaluate(dataset, 4, "dkn", net, "mine")
    assert found.method == "mine"
    assert found.scores == [score(pair.name, pair.scene, upsample(rgb, low, net), truth, 0, 100.0, low)]


def test_progress_counts_images():
    seen = []
    evaluate(Synthetic(((8, 8),) * 3), 2, "dkn", "nearest", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("sizes", "scale", "message"),
    [
        (((64, 64), (16, 12)), 16, "pair 1: image of 12x16 pixels is smaller than one cell of 16x16"),
        (((64, 64), (70, 60)), 16, "pair 1: image of 60x70 pixels has 3x4 cells of 16x16; expected at least 4x4"),
        (((16, 16),), 2, "pair 0: its depth holds no measurement"),
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
    with pytest.raises(InputError, match="upsamples by 4, expected a model for the scale 2"):
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda p: {"rgb": np.pad(p.rgb, ((0, 3), (0, 3), (0, 0)))}, "depth is float32 .*, expected float32"),
        (lambda p: {"depth": p.depth.view(np.memmap), "rgb": p.rgb.view(np.memmap)}, None),
        (lambda p: {"depth": np.where(p.depth > 2, 0, p.depth)}, "depth holds what is not above 0"),
        (lambda p: {"depth": np.where(p.depth > 2, np.float32(np.inf), p.depth)}, "not below 1e\\+10; expected NaN"),
        (lambda p: {"depth": (p.depth * 1000).astype(np.uint16)}, "depth is uint16"),
        (lambda p: {"depth": np.ma.masked_greater(p.depth, 2)}, "depth is a MaskedArray, expected a NumPy array"),
        (lambda p: {"rgb": torch.from_numpy(p.rgb)}, "rgb is a Tensor, expected a NumPy array"),
        (lambda p: {"unit": "disparity"}, "its unit is 'disparity' and that of the data set 'm'"),
    ],
)
def test_what_a_data_set_of_ones_own_gives_is_checked(changes, message):
    class Own(Synthetic):
        def __getitem__(self, index):
            pair = super().__getitem__(index)
            return replace(pair, **changes(pair))

    if message is None:
        assert evaluate(Own(), 4, "dkn", "nearest").rmse > 0
    else:
        with pytest.raises(InputError, match=message):
            evaluate(Own(), 4, "dkn", "nearest")


@pytest.mark.parametrize("border", [-3, 1.5, None])
def test_a_border_is_a_whole_number(border):
    data = Synthetic()
    data.border = np.int64(3)
    json.dumps(evaluate(data, 4, "dkn", "nearest").summary())
    data.border = border
    with pytest.raises(InputError, match=f"its border is {border}, expected a whole number of pixels"):
        evaluate(data, 4, "dkn", "nearest")


def test_true_is_no_scale():
    with pytest.raises(UsageError, match="scale: got True"):
        evaluate(Synthetic(), True, "dkn", "nearest")
