"""`depthup eval` and `depthup compare`: figures, tables, pictures, and what they refuse."""

import csv
import json
import os

import cv2
import numpy as np
import pytest

from cli_helpers import RECORD, SCENES, command_line, small_net, write_pairs
from depthup.data import read_rgb
from depthup.weights import save_weights

EVAL = ("eval", "--data", "motorcycle", "--scale", "4")
COMPARE = ("compare", "--data", "pairs", "--scale", "2,4")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("eval", "--data", "no-depths.mat", "--scale", "4", "--model", "bicubic"), 1, ["no-depths.mat", "depths"]),
        (("eval", "--data", "missing", "--scale", "4", "--model", "bicubic"), 1, ["missing", "no such file or folder"]),
        (("eval", "--data", "box", "--scale", "4", "--model", "bicubic"), 1, ["box", "holds no pairs"]),
        ((*EVAL, "--model", "x2"), 2, ["x2: upsamples by 2"]),
        ((*EVAL, "--device", "tpu"), 2, ["device", "tpu", "expected cpu"]),
        ((*COMPARE, "--device", "cuda:99"), 1, ["device: cuda:99 is not here", "expected cpu"]),
        ((*EVAL, "--model", "cubic"), 2, ["cubic: no such model"]),
        ((*EVAL, "--protocol", "pac"), 2, ["no weights in the box for scale 4 under protocol pac", "a model by name"]),
        ((*EVAL, "--model", "bicubic", "--split", "train"), 2, ["motorcycle", "no split train"]),
        ((*EVAL, "--model", "bicubic", "--csv", "existing.csv"), 1, ["existing.csv", "exists already"]),
        ((*EVAL, "--model", "bicubic", "--csv", "none/scores.csv"), 1, ["none/scores.csv", "does not exist"]),
        ((*EVAL, "--model", "bicubic", "--protocol", "psnr"), 2, ["--protocol", "psnr"]),
        (("eval", "--data", "motorcycle", "--scale", "1"), 2, ["--scale"]),
        (("eval", "--data", "motorcycle", "--scale", "four"), 2, ["--scale", "integer"]),
        (("eval", "--data", "motorcycle", "--scale", "65", "--model", "bicubic"), 2, ["--scale", "got 65", "2 to 64"]),
        (("eval", "--data", "motorcycle", "--scale", "4,,8", "--model", "bicubic"), 2, ["--scale", "got 4,,8"]),
        (
            ("eval", "--data", "motorcycle", "--scale", "4,4", "--model", "bicubic"),
            2,
            ["got 4,4", "different integers"],
        ),
        (("eval", "--data", "motorcycle", "--scale", "4,8"), 2, ["no weights in the box for scale 8"]),
        (
            ("eval", "--data", "motorcycle", "--scale", "2,4", "--model", "x4"),
            2,
            ["x4: upsamples by 4", "expected a model for the scale 2"],
        ),
        (("eval", "--data", "pairs", "--scale", "4,16", "--model", "bicubic"), 1, ["room0", "48x48", "3x3 cells"]),
        (("eval", "--data", "pairs", "--scale", "64", "--model", "bicubic"), 1, ["room0", "smaller than one cell"]),
        ((*COMPARE, "--methods", "bicubic,,nearest"), 2, ["--methods", "bicubic,,nearest"]),
        ((*COMPARE, "--methods", "bicubic,cubic"), 2, ["cubic: no such model"]),
        ((*COMPARE, "--methods", "x{scale}-pac"), 2, ["x2-pac: no such model"]),
        ((*COMPARE, "--methods", "default,x{scale}"), 2, ["x2: is named twice for scale 2"]),
        ((*COMPARE, "--protocol", "pac"), 2, ["no weights in the box for scale 2 under protocol pac"]),
        ((*COMPARE, "--scale", "2;4"), 2, ["--scale", "got 2;4"]),
        ((*COMPARE, "--image", "room1"), 2, ["--image", "--figure"]),
        ((*COMPARE, "--image", "room7", "--figure", "f.png"), 1, ["pairs: has no pair room7", "room0"]),
        ((*COMPARE, "--figure", "existing.png"), 1, ["existing.png", "exists already"]),
        ((*COMPARE, "--figure", "figure.jpg"), 2, ["figure.jpg", ".png"]),
        ((*COMPARE, "--csv", "existing.csv"), 1, ["existing.csv", "exists already"]),
        (("compare", "--data", "pairs"), 2, ["--scale"]),
        (
            (*EVAL, "--model", "bicubic", "--invalid", "65535"),
            2,
            ["motorcycle: --invalid is for the files of a folder"],
        ),
        (
            ("compare", "--data", "no-depths.mat", "--scale", "4", "--methods", "bicubic", "--invalid", "9"),
            2,
            ["no-depths.mat: --invalid is for"],
        ),
        (
            ("eval", "--data", "missing", "--scale", "4", "--model", "bicubic", "--invalid", "9"),
            1,
            ["missing", "no such file or folder"],
        ),
        (("eval", "--scale", "4"), 2, ["--data"]),
        ((*EVAL, "--model", "bicubic", "--noise", "1", "0.5"), 2, ["--noise", "expected --sensor"]),
        (
            (*EVAL, "--model", "bicubic", "--sensor", "--noise", "1", "-2"),
            2,
            ["--noise: got 1 -2", "from 0 to 1000000"],
        ),
        ((*EVAL, "--model", "bicubic", "--sensor", "--noise", "nan", "0"), 2, ["--noise: got nan 0"]),
        ((*EVAL, "--model", "bicubic", "--sensor", "--noise", "1e30", "1"), 2, ["got 1e+30 1", "from 0 to 1000000"]),
        ((*COMPARE, "--methods", "bicubic", "--noise", "0", "0"), 2, ["--noise", "expected --sensor"]),
    ],
    ids=command_line,
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(check_mistake, arguments, code, parts):
    check_mistake(arguments, code, parts)


def test_no_input_is_written_over(place, depthup_):
    write_pairs(place / "pairs")
    image = place / "pairs" / "room0_rgb.png"
    before = image.read_bytes()
    refused = depthup_(*COMPARE, "--methods", "bicubic", "--figure", image, "--overwrite")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "room0_rgb.png: is an input" in refused.err
    assert image.read_bytes() == before
    manifest = place / "pairs" / "manifest.csv"
    lines = (f"s,r{n},room{n}_rgb.png,room{n}_depth.png,depth_mm,1000,r{n}" for n in (0, 1))
    manifest.write_text("\n".join(["set,name,rgb,depth,kind,scale,scene", *lines]))
    before = manifest.read_bytes()
    refused = depthup_("eval", "--data", "pairs", "--scale", 4, "--model", "bicubic", "--csv", manifest, "--overwrite")
    assert "manifest.csv: is an input" in refused.err
    assert manifest.read_bytes() == before


def test_eval_prints_its_protocol(place, depthup_):
    write_pairs(place / "pairs")
    result = depthup_("eval", "--data", "pairs", "--scale", "4", "--model", "bilinear", "--protocol", "pac")
    assert (result.code, result.err) == (0, "")
    for part in ("pairs, split test", "bilinear", "pac", "depth[(s-1)//2::s", "border", "cm", "per image", "rmse"):
        assert part in result.out
    for part in (
        "5 % of",
        "at most 5 pixels",
        "match within 1 pixel",
        "2000 resamples",
        "seed 0",
        "left out of its mean",
    ):
        assert part in " ".join(result.out.split())


def test_eval_json_and_csv(place, depthup_):
    write_pairs(place / "pairs")
    result = depthup_("eval", "--data", "pairs", "--scale", "2", "--json", "--csv", "scores.csv")
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert (summary["method"], summary["images"], summary["scenes"], summary["unit"]) == ("x2", 4, 4, "cm")
    with (place / "scores.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == sorted(SCENES)
    assert summary["rmse"] == pytest.approx(np.mean([float(row["rmse"]) for row in table]))
    again = depthup_("eval", "--data", "pairs", "--scale", "2", "--json", "--csv", "scores.csv", "--overwrite")
    assert json.loads(again.out) == summary
    part = depthup_("eval", "--data", "pairs", "--scale", "2", "--json", "--split", "val")
    assert json.loads(part.out)["images"] == 1
    limited = depthup_("eval", "--data", "pairs", "--scale", "2", "--json", "--limit", "2", "--csv", "two.csv")
    assert (json.loads(limited.out)["images"], json.loads(limited.out)["data"]) == (
        2,
        "pairs, split test, 2 of 4 images",
    )
    with (place / "two.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == sorted(SCENES)[::2]


def test_eval_in_bf16(place, depthup_):
    write_pairs(place / "pairs")
    command = ("eval", "--data", "pairs", "--scale", "4", "--json")
    exact, near = (json.loads(depthup_(*command, *more).out) for more in ((), ("--precision", "bf16")))
    assert (exact["precision"], near["precision"]) == ("float32", "bf16")
    for scales in ("4", "2,4"):
        assert (
            "precision        bf16" in depthup_("eval", "--data", "pairs", "--scale", scales, "--precision", "bf16").out
        )
    assert depthup_(*command, "--precision", "bf16", "--csv", "near.csv").code == 0
    with (place / "near.csv").open(newline="") as file:
        assert {row["precision"] for row in csv.DictReader(file)} == {"bf16"}
    assert exact["rmse"] != near["rmse"] == pytest.approx(exact["rmse"], rel=0.02)
    refused = depthup_(*command, "--precision", "bf16", "--model", "nearest")
    assert refused.code == 2 and "nearest: is no network" in refused.err


def test_scale_1_is_for_sensors(place, depthup_):
    write_pairs(place / "pairs")
    command = ("eval", "--data", "pairs", "--scale", "1", "--model", "bicubic")
    without = depthup_(*command)
    assert without.code == 2 and "--scale: got 1, expected different integers from 2 to 64" in without.err
    facts = json.loads(depthup_(*command, "--sensor", "--json").out)
    assert facts["rmse"] > 0 and facts["consistency"] < 1e-6  # at a scale of 1 the baseline gives back what it gets


def test_noise_of_the_simulated_sensor(place, depthup_):
    write_pairs(place / "pairs")
    command = ("eval", "--data", "pairs", "--scale", "4", "--model", "nearest", "--sensor", "--json")

    def scored(*noise: str) -> dict:
        result = depthup_(*command, *noise)
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    usual = scored()
    assert scored("--noise", "1", "1.5")["rmse"] == usual["rmse"]
    assert scored("--noise", "0", "0")["rmse"] < usual["rmse"] < scored("--noise", "1", "6")["rmse"]
    assert "; then noise of 0 mm + 0.5 mm z^2, blobs 0.2" in scored("--noise", "0", "0.5")["degradation"]


def test_a_network_of_another_protocol_is_told_of(place, depthup_):
    write_pairs(place / "pairs")
    other = depthup_("eval", "--data", "pairs", "--scale", "4", "--model", "x4", "--protocol", "pac")
    assert other.code == 0
    assert "x4: learned from protocol dkn, is scored under pac" in other.err and other.err.count("\n") == 1
    assert depthup_("eval", "--data", "pairs", "--scale", "4", "--model", "x4").err == ""


def test_a_network_that_was_trained_on_what_is_scored_is_told_of(place, depthup_):
    write_pairs(place / "pairs")
    save_weights(place / "own.safetensors", small_net(4), RECORD | {"data": {"title": "pairs, split train"}})
    command = ("eval", "--data", "pairs", "--scale", "4", "--model", "own.safetensors")
    told = depthup_(*command)
    assert told.code == 0
    assert told.err == (
        "depthup: own.safetensors: was trained on pairs, split train, where 3 of these 4 images are; --split val has "
        "none of them\n"
    )
    for quiet in (("--split", "val"), ("--split", "train")):
        assert depthup_(*command, *quiet).err == ""


def test_an_image_that_is_not_among_the_scored_ones(place, depthup_):
    write_pairs(place / "pairs")
    command = ("compare", "--data", "pairs", "--scale", "4", "--methods", "bicubic", "--figure", "f.png")
    refused = depthup_(*command, "--limit", "2", "--image", "room1")
    assert refused.code == 1
    assert refused.err.startswith("depthup: pairs: has no pair room1 in pairs, split test, 2 of 4 images; expected one")


def test_eval_leaves_out_what_is_no_measurement(place, depthup_):
    write_pairs(place / "pairs")
    for name in SCENES:
        depth = cv2.imread(f"pairs/{name}_depth.png", cv2.IMREAD_UNCHANGED)
        depth[:8, :8] = 65535
        cv2.imwrite(f"pairs/{name}_depth.png", depth)
    command = ("eval", "--data", "pairs", "--scale", "2", "--model", "nearest")
    warned = depthup_(*command, "--json")
    assert warned.err.count("--invalid 65535") == len(SCENES)
    quiet = depthup_(*command, "--json", "--invalid", "65535")
    assert (quiet.code, quiet.err) == (0, "")
    facts, spoilt = json.loads(quiet.out), json.loads(warned.out)
    assert facts["data"] == "pairs, split test, without values 65535"
    assert facts["rmse"] < spoilt["rmse"] / 5
    assert "without values 65535" in depthup_(*command, "--invalid", "65535").out
    both = depthup_(
        "compare", "--data", "pairs", "--scale", "2", "--methods", "nearest", "--json", "--invalid", "65535"
    )
    assert json.loads(both.out) == [facts]


def test_eval_at_several_scales(place, depthup_):
    write_pairs(place / "pairs")
    command = ("eval", "--data", "pairs", "--scale", "2, 4")
    result = depthup_(*command, "--json", "--csv", "scores.csv")
    assert (result.code, result.err) == (0, "")
    results = json.loads(result.out)
    assert [(r["method"], r["scale"]) for r in results] == [("x2", 2), ("x4", 4)]
    one = json.loads(depthup_("eval", "--data", "pairs", "--scale", "4", "--json").out)
    assert one == results[1]
    assert one["split"] == "test"
    low, high = one["rmse_interval"]
    assert low < one["rmse"] < high
    with (place / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scale"], row["name"]) for row in rows] == [(s, name) for s in "24" for name in sorted(SCENES)]
    assert {"boundary_f1", "consistency", "rel", "off_by_10", "rmse_near_edges"} < set(rows[0])
    text = depthup_(*command).out
    table = [line.split() for line in text.splitlines()[-3:]]
    assert table[0][:3] == ["scale", "method", "RMSE"]
    assert [row[:3] for row in table[1:]] == [[f"x{r['scale']}", r["method"], f"{r['rmse']:.3f}"] for r in results]
    assert "depth edges" in text


def test_eval_is_strict_json_without_edges(place, depthup_):
    (place / "flat").mkdir()
    cv2.imwrite(str(place / "flat" / "a_depth.png"), np.full((32, 32), 2000, np.uint16))
    cv2.imwrite(str(place / "flat" / "a_rgb.png"), np.zeros((32, 32, 3), np.uint8))
    command = ("eval", "--data", "flat", "--scale", "4", "--model", "nearest")
    result = depthup_(*command, "--json", "--csv", "flat.csv")
    assert (result.code, result.err) == (0, "")
    assert "NaN" not in result.out
    facts = json.loads(result.out)
    assert (facts["boundary_f1"], facts["rmse_near_edges"], facts["rmse_interval"]) == (None, None, None)
    assert facts["undefined_images"] == {"boundary_f1": 1, "rmse_near_edges": 1}
    with (place / "flat.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["boundary_f1"] == ""
    assert "boundary f1      undefined" in depthup_(*command).out


def test_eval_motorcycle(place, depthup_):
    result = depthup_(*EVAL, "--model", "bicubic", "--json", "--csv", "scores.csv")
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert summary["data"] == "Middlebury 2014 Motorcycle"
    assert (summary["scale"], summary["protocol"], summary["border"], summary["images"]) == (4, "dkn", 0, 1)
    assert 2 < summary["rmse"] < 20
    assert len((place / "scores.csv").read_text().splitlines()) == 2


def test_compare(place, depthup_):
    write_pairs(place / "pairs")
    methods = ("--methods", "x{scale},bicubic, nearest")
    result = depthup_(*COMPARE, *methods, "--json", "--csv", "all.csv", "--figure", "all.png", "--image", "room1")
    assert result.code == 0  # matplotlib may narrate that it builds its font cache
    results = json.loads(result.out)
    named = [(r["scale"], r["method"]) for r in results]
    assert named == [(2, "x2"), (2, "bicubic"), (2, "nearest"), (4, "x4"), (4, "bicubic"), (4, "nearest")]
    assert results[4] == json.loads(
        depthup_("eval", "--data", "pairs", "--scale", "4", "--model", "bicubic", "--json").out
    )
    with (place / "all.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6 * len(SCENES)
    assert read_rgb(place / "all.png").shape[1] > 1500
    text = depthup_(*COMPARE, *methods).out.splitlines()[-6:]
    assert [tuple(line.split()[:3]) for line in text] == [
        (f"x{r['scale']}", r["method"], f"{r['rmse']:.3f}") for r in results
    ]
    weights = f"{place}/box/x{{scale}}.safetensors"
    default = json.loads(depthup_(*COMPARE, "--methods", f"default,{weights}", "--json").out)
    assert [r["method"] for r in default[::2]] == ["x2", "x4"]
    assert (
        [r["rmse"] for r in default[::2]] == [r["rmse"] for r in default[1::2]] == [results[n]["rmse"] for n in (0, 3)]
    )


def test_a_figure_of_an_image_whose_name_is_no_unicode(place, depthup_):
    write_pairs(place / "pairs")
    name = os.fsdecode(b"room\xff")
    for kind in ("rgb", "depth"):
        (place / "pairs" / f"room0_{kind}.png").rename(place / "pairs" / f"{name}_{kind}.png")
    drawn = depthup_(*COMPARE, "--methods", "bicubic", "--figure", "drawn.png", "--image", name)
    assert (drawn.code, drawn.err.count("Traceback")) == (0, 0)
    assert (place / "drawn.png").exists()


def test_compare_draws_the_median_image(place, depthup_, monkeypatch):
    write_pairs(place / "pairs")
    drawn = []
    monkeypatch.setattr("depthup.commands.evaluate.methods_figure", lambda *arguments: drawn.append(arguments))
    command = (*COMPARE, "--methods", "bicubic,nearest", "--protocol", "pac", "--csv", "all.csv", "--figure", "f.png")
    assert depthup_(*command).code == 0
    with (place / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = sorted(
        (float(row["rmse"]), row["name"]) for row in rows if (row["method"], row["scale"]) == ("nearest", "4")
    )
    path, figure_rows, unit, title = drawn[0]
    assert (str(path), unit) == ("f.png", "m")
    assert f"image {last[2][1]}\nprotocol pac" in title  # of 4
    assert [row.scale for row in figure_rows] == [2, 4]
    for row in figure_rows:
        assert list(row.results) == ["bicubic", "nearest"]
        for method, rmse in row.rmse.items():
            own = next(r for r in rows if (r["method"], r["scale"], r["name"]) == (method, str(row.scale), last[2][1]))
            assert rmse == float(own["rmse"])
            error = row.results[method] - row.truth
            assert rmse == pytest.approx(100 * np.sqrt(np.mean(np.square(error))), rel=1e-4)
