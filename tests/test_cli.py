"""The command line: what it writes, and that every mistake is one line and leaves nothing behind."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

import depthup.commands
import depthup.training
import depthup.upsampling
import depthup.weights
from depthup import upsample
from depthup.cli import main, progress_bar
from depthup.data import read_depth, read_rgb
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.weights import read_metadata, save_weights

CHECKOUT = Path(__file__).resolve().parents[1]
SCALE = 4
SCENES = ("room0", "room1", "room2", "room23")  # the last is for validation
RECORD = {
    "config": {"protocol": "dkn"},
    "data": {"title": "boxes"},
    "steps": 12,
    "validation": {"rmse": 1.5, "unit": "cm", "images": 3, "scenes": 2},
}


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture
def depthup_(monkeypatch, capfd) -> Callable[..., Run]:
    """Runs the program in this process."""

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["depthup", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        return Run(caught.value.code or 0, out, err)

    return run


def small_net(scale: int, seed: int = 0) -> DDFUpNet:
    torch.manual_seed(seed)
    net = DDFUpNet(DDFUpNetConfig(scale=scale, width=16, trunk_blocks=1))
    torch.nn.init.normal_(net.net.result.weight, std=0.5)
    return net


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a pair for x4, good and bad files, and a box with networks for x2 and x4; the current one."""
    rng = np.random.default_rng(0)
    box = tmp_path / "box"
    box.mkdir()
    for scale in (2, SCALE):
        save_weights(box / f"x{scale}.safetensors", small_net(scale), RECORD)
    monkeypatch.setattr(depthup.weights, "SHIPPED", box)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    depth = rng.integers(800, 6000, (8, 12)).astype(np.uint16)
    depth[2:4, 3] = 0
    images = {
        "rgb.png": rng.integers(0, 256, (8 * SCALE, 12 * SCALE, 3), dtype=np.uint8),
        "small.png": rng.integers(0, 256, (6, 10, 3), dtype=np.uint8),
        "odd.png": rng.integers(0, 256, (8 * SCALE, 13 * SCALE, 3), dtype=np.uint8),
        "depth.png": depth,
        "depth.tiff": (depth / np.float32(1000)).astype(np.float32),
        "eight.png": (depth // 30).astype(np.uint8),
        "nothing.png": np.zeros_like(depth),
        "nothing8.png": np.zeros(depth.shape, np.uint8),
    }
    for name, image in images.items():
        assert cv2.imwrite(str(tmp_path / name), image)
    np.save(tmp_path / "depth.npy", images["depth.tiff"])
    for name in ("rgb", "depth"):
        content = (tmp_path / f"{name}.png").read_bytes()
        (tmp_path / f"cut-{name}.png").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "text.safetensors").write_text("these are no weights\n" * 10)
    with h5py.File(tmp_path / "no-depths.mat", "w") as file:
        file["images"] = np.zeros((2, 3, 8, 8), np.uint8)
    (tmp_path / "existing.png").write_bytes(b"precious")
    (tmp_path / "existing.csv").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


UPSAMPLE = ("upsample", "rgb.png", "depth.png")
GOOD = (*UPSAMPLE, "-o", "out.png")
TRAIN = ("train", "--data", "pairs", "--out", "run")
EVAL = ("eval", "--data", "motorcycle", "--scale", "4")
COMPARE = ("compare", "--data", "pairs", "--scale", "2,4")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ((*UPSAMPLE, "-o", "depth.png", "--overwrite"), 2, ["depth.png", "is the input"]),
        ((*GOOD, "--preview", "rgb.png", "--overwrite"), 2, ["rgb.png", "--preview is the input"]),
        (("upsample", "small.png", "depth.png", "-o", "out.png"), 1, ["small.png", "10x6", "12x8", "smaller"]),
        (("upsample", "rgb.png", "rgb.png", "-o", "out.png"), 1, ["rgb.png"]),
        (("upsample", "rgb.png", "eight.png", "-o", "out.png"), 1, ["eight.png", "8-bit"]),
        (("upsample", "rgb.png", "nothing.png", "-o", "out.png"), 1, ["nothing.png", "none of its 96 samples"]),
        (("upsample", "cut-rgb.png", "depth.png", "-o", "out.png"), 1, ["cut-rgb.png", "truncated"]),
        (("upsample", "rgb.png", "cut-depth.png", "-o", "out.png"), 1, ["cut-depth.png", "truncated"]),
        (("upsample", "missing.png", "depth.png", "-o", "out.png"), 1, ["missing.png", "no such file"]),
        (("upsample", "rgb.png", "missing.png", "-o", "out.png"), 1, ["missing.png", "no such file"]),
        (("upsample", "folder.png", "depth.png", "-o", "out.png"), 1, ["folder.png", "is a folder"]),
        (("upsample", "text.safetensors", "depth.png", "-o", "out.png"), 1, ["text.safetensors", "decoded"]),
        ((*GOOD, "--model", "text.safetensors"), 1, ["text.safetensors", "not a safetensors file"]),
        ((*GOOD, "--size", "big"), 2, ["--size: got big", "WIDTHxHEIGHT"]),
        ((*GOOD, "--size", "11x20"), 1, ["rgb.png, depth.png", "got 11x20", "12x8"]),
        ((*GOOD, "--fill", "some"), 2, ["--fill", "some", "near"]),
        ((*GOOD, "--mask", "missing.png"), 1, ["missing.png", "no such file"]),
        ((*GOOD, "--mask", "nothing8.png"), 1, ["depth.png: nothing8.png leave none of its samples"]),
        ((*GOOD, "--confidence", "eight.png"), 1, ["eight.png", "0 low, 1 medium or 2 high"]),
        ((*GOOD, "--depth-unit", "mm", "--depth-scale", "5"), 2, ["unit mm and scale 5", "--depth-scale"]),
        ((*GOOD, "--depth-scale", "-1"), 2, ["scale is -1.0", "> 0"]),
        ((*GOOD, "--depth-kind", "disparity"), 2, ["disparity needs a focal length", "--baseline"]),
        ((*GOOD, "--out-unit", "mm", "--out-scale", "500"), 2, ["--out-unit or --out-scale, got both"]),
        ((*UPSAMPLE, "-o", "out.npy", "--out-unit", "mm"), 2, ["--out-unit", ".npy file holds float metres", ".png"]),
        ((*UPSAMPLE, "-o", "out.pfm", "--out-scale", "500"), 2, ["--out-scale", ".pfm file holds float metres"]),
        (
            ("batch", "pairs", "-o", "results", "--format", "tiff", "--out-unit", "kitti"),
            2,
            ["--out-unit", ".tiff file holds float metres"],
        ),
        ((*GOOD, "--confidence-out", "c.png"), 1, ["x4: does not tell how far off it is"]),
        (("batch", "pairs", "-o", "results", "--confidence-out", "--model", "x4"), 1, ["x4: does not tell how far"]),
        ((*GOOD, "--confidence-out", "c.png", "--model", "bicubic"), 1, ["bicubic: does not tell how far off it is"]),
        ((*GOOD, "--ply", "c.ply"), 2, ["--ply and --normals need the camera", "--intrinsics"]),
        ((*GOOD, "--ply", "c.obj", "--intrinsics", "9,9,4,4"), 1, ["c.obj", ".ply"]),
        ((*GOOD, "--mesh"), 2, ["--mesh needs a file", "--ply"]),
        ((*GOOD, "--normals", "n.png", "--intrinsics", "9,9"), 1, ["holds 2 numbers", "fx,fy,cx,cy"]),
        ((*GOOD, "--normals", "n.png", "--intrinsics", "cam.json"), 1, ["cam.json: no such file", "fx,fy,cx,cy"]),
        ((*GOOD, "--intrinsics", "9,9,4,4"), 2, ["--intrinsics are for --ply, --normals and --align"]),
        (("batch", "pairs", "-o", "results", "--intrinsics", "9,9,4,4"), 2, ["--intrinsics are for --ply"]),
        ((*GOOD, "--align", "pose.txt", "--intrinsics", "9,9,4,4"), 2, ["--depth-intrinsics"]),
        ((*GOOD, "--depth-intrinsics", "9,9,4,4"), 2, ["--depth-intrinsics is for --align"]),
        (("export", "x4", "-o", "x4.bin"), 1, ["x4.bin", ".onnx, .pt2"]),
        (("export", "x7", "-o", "x7.onnx"), 1, ["x7: no such model"]),
        (("batch", "box", "-o", "results"), 1, ["box", "expected"]),
        (("batch", "missing", "-o", "results"), 1, ["missing", "no such"]),
        ((*GOOD, "--size", "0x0"), 2, ["--size: got 0x0"]),
        (
            (*GOOD, "--intrinsics", "1.5,1.5,12,10", "--normals", "n.png"),
            1,
            ["rgb.png: its camera: focal length fx is 1.5"],
        ),
        ((*GOOD, "--device", "tpu"), 1, ["device", "tpu", "expected cpu"]),
        ((*GOOD, "--min-confidence", "2"), 2, ["--min-confidence", "expected --confidence"]),
        (
            (*GOOD, "--depth-kind", "disparity", "--focal", "900", "--baseline", "193"),
            2,
            ["baseline is 193 m", "are these millimetres?"],
        ),
        (("batch", "rgbs", "depths"), 2, ["--out"]),
        (("batch", "pairs", "-o", "results", "--ply"), 2, ["--intrinsics"]),
        (("batch", "pairs", "-o", "results", "--mesh"), 2, ["--ply"]),
        (("batch", "pairs", "-o", "depth.png"), 1, ["depth.png", "not a folder"]),
        (("batch", "rgbs", "depths", "-o", "results", "--format", "jpg"), 2, ["--format", "jpg"]),
        ((*GOOD, "--model", "x8"), 1, ["x8: no such model", "x2, x4"]),
        (("upsample", "rgb.png", "depth.png", "-o", "none/out.png"), 1, ["none/out.png", "does not exist"]),
        (("upsample", "rgb.png", "depth.png", "-o", "existing.png"), 1, ["existing.png", "exists already"]),
        (("upsample", "rgb.png", "depth.png", "-o", "folder.png"), 1, ["folder.png", "is a folder"]),
        (("upsample", "rgb.png", "depth.png", "-o", "out.jpg"), 1, ["out.jpg", ".png, .tif"]),
        ((*GOOD, "--preview", "existing.png"), 1, ["existing.png", "exists already"]),
        ((*GOOD, "--preview", "none/preview.png"), 1, ["none/preview.png", "does not exist"]),
        ((*GOOD, "--preview", "preview.tiff"), 1, ["preview.tiff", ".png, .jpg"]),
        ((*GOOD, "--preview", "out.png"), 2, ["out.png", "--preview and --out are the same file"]),
        ((*GOOD, "--preview", "box/../out.png"), 2, ["same file"]),
        ((*GOOD, "--depth-unit", "m"), 1, ["out.png", "does not fit", ".npy"]),
        ((*GOOD, "--depth-unit", "inch"), 2, ["--depth-unit", "inch", "tum"]),
        ((*GOOD, "--shape"), 2, ["--shape"]),
        (UPSAMPLE, 2, ["--out"]),
        (("upsample",), 2, ["RGB"]),
        (("upsample", "rgb.png", "-o", "out.png"), 2, ["DEPTH"]),
        ((*GOOD, "surplus"), 2, ["surplus"]),
        (("downsample",), 2, ["downsample"]),
        (("--nonsense",), 2, ["--nonsense"]),
        (("eval", "--data", "no-depths.mat", "--scale", "4", "--model", "bicubic"), 1, ["no-depths.mat", "depths"]),
        (("eval", "--data", "missing", "--scale", "4", "--model", "bicubic"), 1, ["missing", "no such file or folder"]),
        (("eval", "--data", "box", "--scale", "4", "--model", "bicubic"), 1, ["box", "holds no pairs"]),
        ((*EVAL, "--model", "x2"), 1, ["x2: upsamples by 2"]),
        ((*EVAL, "--model", "cubic"), 1, ["cubic: no such model"]),
        ((*EVAL, "--protocol", "pac"), 1, ["no weights in the box for scale 4 under protocol pac", "--model"]),
        ((*EVAL, "--model", "bicubic", "--split", "train"), 1, ["motorcycle", "no split train"]),
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
        (("eval", "--data", "motorcycle", "--scale", "4,8"), 1, ["no weights in the box for scale 8"]),
        (("eval", "--data", "motorcycle", "--scale", "2,4", "--model", "x4"), 1, ["x4: upsamples by 4", "factor is 2"]),
        (("eval", "--data", "pairs", "--scale", "4,16", "--model", "bicubic"), 1, ["room0", "48x48", "3x3 cells"]),
        (("eval", "--data", "pairs", "--scale", "64", "--model", "bicubic"), 1, ["room0", "smaller than one cell"]),
        ((*COMPARE, "--methods", "bicubic,,nearest"), 2, ["--methods", "bicubic,,nearest"]),
        ((*COMPARE, "--methods", "bicubic,cubic"), 1, ["cubic: no such model"]),
        ((*COMPARE, "--methods", "x{scale}-pac"), 1, ["x2-pac: no such model"]),
        ((*COMPARE, "--methods", "default,x{scale}"), 2, ["x2: is named twice for scale 2"]),
        ((*COMPARE, "--protocol", "pac"), 1, ["no weights in the box for scale 2 under protocol pac"]),
        ((*COMPARE, "--scale", "2;4"), 2, ["--scale", "got 2;4"]),
        ((*COMPARE, "--image", "room1"), 2, ["--image", "--figure"]),
        ((*COMPARE, "--image", "room7", "--figure", "f.png"), 1, ["pairs: has no pair room7", "room0"]),
        ((*COMPARE, "--figure", "existing.png"), 1, ["existing.png", "exists already"]),
        ((*COMPARE, "--figure", "figure.jpg"), 1, ["figure.jpg", ".png"]),
        ((*COMPARE, "--csv", "existing.csv"), 1, ["existing.csv", "exists already"]),
        (("compare", "--data", "pairs"), 2, ["--scale"]),
        (("models", "x4"), 2, ["x4"]),
        (("eval", "--scale", "4"), 2, ["--data"]),
        (TRAIN, 2, ["exactly one of --minutes and --epochs"]),
        ((*TRAIN, "--minutes", "1", "--epochs", "1"), 2, ["exactly one of --minutes and --epochs"]),
        ((*TRAIN, "--minutes", "0"), 2, ["--minutes"]),
        ((*TRAIN, "--epochs", "1", "--scale", "3"), 2, ["scale: got 3"]),
        ((*TRAIN, "--epochs", "1", "--crop-size", "30"), 2, ["crop_size: got 30"]),
        ((*TRAIN, "--epochs", "1", "--architecture", "huge"), 2, ["--architecture", "huge"]),
        ((*TRAIN, "--resume"), 1, ["checkpoint.safetensors: no such file"]),
        (("train", "--data", "box", "--out", "run", "--epochs", "1"), 1, ["box", "holds no pairs"]),
        (("train", "--data", "motorcycle", "--out", "run", "--epochs", "1"), 2, ["motorcycle is one pair"]),
        ((*TRAIN[:-1], "/dev/null/run", "--epochs", "1"), 1, ["/dev/null/run", "cannot be written"]),
        (("info", "--verbose"), 2, ["--verbose"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(place, depthup_, arguments, code, parts):
    write_pairs(place / "pairs")
    before = snapshot(place)
    result = depthup_(*arguments)
    assert result.out == ""
    assert result.err.startswith("depthup: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err
    assert result.code == code
    assert snapshot(place) == before


def expected_result(place: Path, model: str | None = None, unit: str = "mm") -> np.ndarray:
    depth = read_depth(place / "depth.png", unit)
    result = upsample(read_rgb(place / "rgb.png"), depth, model)
    return np.where(result < np.nanmin(depth) / 2, np.nan, result)


def depth_of(depthup_, *options: str) -> float:
    """Fraction known of the result with these options."""
    result = depthup_(*UPSAMPLE, "-o", f"known{''.join(options)}.png", "--json", *options)
    assert result.code == 0, result.err
    return json.loads(result.out)["known"]


def test_upsample_a_png(place, depthup_):
    result = depthup_(*GOOD)
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("out.png: 48x32, x4 by x4 in ")
    assert result.err.count("\n") == 1
    stored = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
    expected = expected_result(place)
    assert (stored.dtype, stored.shape) == (np.uint16, (32, 48))
    np.testing.assert_array_equal(stored == 0, np.isnan(expected))
    np.testing.assert_allclose(stored[stored > 0], 1000 * expected[stored > 0], atol=0.51)
    assert depth_of(depthup_, "--fill", "none") < depth_of(depthup_)


@pytest.mark.parametrize("source", ["depth.tiff", "depth.npy"])
@pytest.mark.parametrize("out", ["out.tiff", "out.npy", "out.png"])
def test_upsample_floating_point_files(place, depthup_, source, out):
    assert depthup_("upsample", "rgb.png", source, "--out", out, "--model", "bilinear").code == 0
    expected = expected_result(place, "bilinear")
    np.testing.assert_allclose(read_depth(place / out), expected, atol=6e-4 if out == "out.png" else 1e-6)


def test_upsample_in_the_unit_of_tum(place, depthup_):
    assert depthup_(*GOOD, "--depth-unit", "tum", "--model", "bicubic").code == 0
    stored = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
    expected = 5000 * expected_result(place, "bicubic", "tum")
    np.testing.assert_allclose(stored[stored > 0], expected[stored > 0], atol=0.51)
    assert depthup_("upsample", "rgb.png", "depth.png", "-o", "out.npy", "--depth-unit", "tum").code == 0
    assert np.nanmax(np.load("out.npy")) < 1.5  # metres


def test_upsample_with_a_preview(place, depthup_):
    result = depthup_(*GOOD, "--preview", "preview.jpg")
    assert result.code == 0
    assert result.err.splitlines()[1:] == ["wrote preview.jpg"]
    assert cv2.imread("preview.jpg").shape == (32, 48, 3)


def test_upsample_prints_json_and_nothing_else(place, depthup_):
    result = depthup_(*GOOD, "--preview", "preview.png", "--json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    expected = expected_result(place)
    assert facts.pop("seconds") > 0
    assert facts.pop("depth_min") == pytest.approx(np.nanmin(expected), rel=1e-5)
    assert facts.pop("depth_max") == pytest.approx(np.nanmax(expected), rel=1e-5)
    assert facts.pop("known") == pytest.approx(np.isfinite(expected).mean())
    files = {"out": "out.png", "preview": "preview.png"}
    assert facts == {"out": "out.png", "files": files, "size": [48, 32], "ratio": [4, 4], "model": "x4"}


def test_upsample_any_ratio_and_size(place, depthup_):
    assert depthup_("upsample", "odd.png", "depth.png", "-o", "odd-out.png").err.startswith(
        "odd-out.png: 52x32, x4.3333 by x4 by x4"
    )
    assert depthup_(*GOOD, "--size", "30x21").code == 0
    assert cv2.imread("out.png", cv2.IMREAD_UNCHANGED).shape == (21, 30)


def test_upsample_with_a_mask_and_confidence(place, depthup_):
    mask = np.full((8, 12), 255, np.uint8)
    mask[:, :6] = 0
    cv2.imwrite("mask.png", mask)
    cv2.imwrite("depth.png", np.full((8, 12), 2000, np.uint16))
    assert depth_of(depthup_, "--fill", "none", "--mask", "mask.png") == pytest.approx(0.5)
    confidence = np.full((8, 12), 2, np.uint8)
    confidence[:4], confidence[4] = 0, 1
    cv2.imwrite("confidence.png", confidence)
    assert depth_of(depthup_, "--fill", "none", "--confidence", "confidence.png") == pytest.approx(0.5)
    options = ("--confidence", "confidence.png", "--min-confidence", "2")
    assert depth_of(depthup_, "--fill", "none", *options) == pytest.approx(3 / 8)


def test_upsample_what_is_not_depth(place, depthup_):
    metres = read_depth(place / "depth.png")
    np.save("inverse.npy", 1 / metres)
    np.save("disparity.npy", 500 * 0.1 / metres - 3)
    np.save("tenths.npy", np.where(np.isnan(metres), -1, metres * 10))
    expected = expected_result(place, "bicubic")
    cases = {
        "inverse.npy": ("--depth-kind", "inverse"),
        "disparity.npy": ("--depth-kind", "disparity", "--focal", "500", "--baseline", "0.1", "--doffs", "3"),
        "tenths.npy": ("--depth-scale", "10", "--invalid", "-1"),
    }
    for name, options in cases.items():
        result = depthup_("upsample", "rgb.png", name, "-o", f"out-{name}", "--model", "bicubic", *options)
        assert result.code == 0, result.err
        np.testing.assert_allclose(np.load(f"out-{name}"), expected, rtol=1e-4)


def test_the_file_says_what_it_is(place, depthup_):
    assert depthup_(*GOOD, "--out-unit", "tum").code == 0
    np.testing.assert_allclose(read_depth("out.png"), expected_result(place), atol=1.1e-4)  # the unit is recorded
    assert depthup_(*UPSAMPLE, "-o", "out.npz").code == 0
    assert str(np.load("out.npz")["model"]) == "x4"
    assert depthup_(*UPSAMPLE, "-o", "tenth.png", "--out-scale", "10000").code == 0
    assert cv2.imread("tenth.png", cv2.IMREAD_UNCHANGED).max() > 60000


def test_upsample_to_space(place, depthup_):
    save_weights(place / "box" / "sensor-x4.safetensors", sensor_net(), RECORD)
    options = ("--intrinsics", "40,40,23.5,15.5", "--normals", "n.png", "--ply", "c.ply", "--confidence-out", "c.tiff")
    cv2.imwrite("depth.png", np.add.outer(np.arange(8) * 30, np.arange(12) * 20).astype(np.uint16) + 1500)
    result = depthup_(*GOOD, *options)
    assert result.err.splitlines()[1:] == ["wrote n.png", "wrote c.tiff", "wrote c.ply"], result.err
    assert b"element vertex 1536" in (place / "c.ply").read_bytes()[:400]
    confidence = cv2.imread("c.tiff", cv2.IMREAD_UNCHANGED)
    assert confidence.shape == (32, 48) and 0 < confidence.min() <= confidence.max() < 1
    assert depthup_(*UPSAMPLE, "-o", "2.png", *options[:2], "--ply", "m.ply", "--mesh").code == 0
    assert b"element face" in (place / "m.ply").read_bytes()[:500]


@pytest.mark.parametrize("model", [(), ("--model", "x4"), ("--model", "nearest")])
def test_a_model_that_tells_no_error_is_refused_before_it_runs(place, depthup_, monkeypatch, model):
    def never(*arguments):
        raise AssertionError("it ran")

    monkeypatch.setattr(depthup.upsampling.Upsampler, "_run", never)
    result = depthup_(*GOOD, "--confidence-out", "c.png", *model)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "does not tell how far off it is" in result.err
    write_pairs(place / "pairs")
    for name in ("0_rgb.png", "0_depth.png"):
        (place / "pairs" / name).write_bytes((place / f"{name[2:]}").read_bytes())
    result = depthup_("batch", "pairs", "-o", "results", "--confidence-out", *model)
    assert result.code == 1
    assert "does not tell how far off it is" in result.err


def test_confidence_is_computed_once(place, depthup_, monkeypatch):
    save_weights(place / "box" / "sensor-x4.safetensors", sensor_net(), RECORD)
    computed, confidence_of = [], depthup.commands.confidence_of
    monkeypatch.setattr(depthup.commands, "confidence_of", lambda run: computed.append(run) or confidence_of(run))
    assert depthup_(*GOOD, "--confidence-out", "c.png").code == 0
    assert len(computed) == 1


def test_a_cloud_has_no_point_between_two_surfaces(place, depthup_):
    depth = np.full((8, 12), 3000, np.uint16)
    depth[:, 6:] = 1500
    cv2.imwrite("edge.png", depth)
    cloud = ("--model", "bilinear", "--intrinsics", "40,40,23.5,15.5", "--ply", "c.ply")
    result = depthup_("upsample", "rgb.png", "edge.png", "-o", "out.tiff", *cloud)
    assert result.code == 0, result.err
    z = cv2.imread("out.tiff", cv2.IMREAD_UNCHANGED)
    flying = np.count_nonzero((z > 1.55) & (z < 2.85))
    assert flying == 32 * 4
    content = (place / "c.ply").read_bytes()
    count = int(content.split(b"element vertex ")[1].split()[0])
    assert count == z.size - flying
    fields = [("point", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 3)]
    points = np.frombuffer(content.split(b"end_header\n", 1)[1], fields)
    assert len(points) == count and set(points["point"][:, 2].tolist()) == {1.5, 3.0}


def test_an_empty_cloud_is_warned_of(place, depthup_):
    cv2.imwrite("one.png", np.full((1, 1), 2000, np.uint16))
    cv2.imwrite("row.png", np.zeros((1, 9, 3), np.uint8))
    cloud = ("--model", "bilinear", "--intrinsics", "40,40,4,0", "--ply", "c.ply")
    result = depthup_("upsample", "row.png", "one.png", "-o", "out.png", *cloud, "--json")
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert result.err.startswith("depthup: c.ply: an empty cloud")


def test_the_largest_integer_is_warned_of_unless_it_is_declared_invalid(place, depthup_):
    depth = np.full((8, 12), 2000, np.uint16)
    depth[0, :3] = 65535
    cv2.imwrite("depth.png", depth)
    result = depthup_(*GOOD, "--model", "bicubic", "--out-unit", "kitti", "--json")
    assert result.code == 0
    warning, rest = result.err.split("\n", 1)
    assert rest == ""
    assert warning.startswith("depthup: depth.png: 3 of its 96 samples are 65535, the largest value of uint16, ")
    assert "--invalid 65535" in warning
    quiet = depthup_(*UPSAMPLE, "-o", "2.png", "--model", "bicubic", "--invalid", "65535", "--json")
    assert (quiet.code, quiet.err) == (0, "")


def test_a_warning_that_repeats_itself_is_counted(place, depthup_):
    for name in ("rgbs", "depths"):
        (place / name).mkdir()
    cv2.imwrite("depth.png", np.where(np.arange(96).reshape(8, 12) == 5, 65535, 2000).astype(np.uint16))
    for n in range(7):
        shutil.copy("rgb.png", f"rgbs/{n}.png")
        shutil.copy("depth.png", f"depths/{n}.png")
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "nearest")
    assert result.code == 0
    lines = [line for line in result.err.splitlines() if "--invalid 65535" in line]
    assert len(lines) == 5 and len({line.split(": ")[1] for line in lines}) == 5
    assert result.err.splitlines()[-1] == "depthup: ... and 2 more warnings like these"


def test_an_aspect_ratio_that_does_not_fit_is_said(place, depthup_):
    cv2.imwrite("square.png", np.full((8, 8), 2000, np.uint16))
    result = depthup_("upsample", "rgb.png", "square.png", "-o", "out.png", "--model", "bicubic")
    assert result.code == 0
    assert result.err.startswith("depthup: square.png: x6 by x4: if it is not of the whole view of rgb.png, ")
    assert depthup_("upsample", "rgb.png", "depth.png", "-o", "2.png").err.startswith("2.png: ")


def test_what_overshoots_a_depth_edge_is_unknown(place, depthup_):
    depth = np.full((8, 12), 6000, np.uint16)
    depth[:, 6:] = 100
    cv2.imwrite("edge.png", depth)
    result = depthup_("upsample", "rgb.png", "edge.png", "-o", "out.png", "--model", "bicubic")
    assert result.code == 0, result.err
    stored = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
    assert (stored == 0).any() and (stored[stored > 0] >= 50).all()
    assert 0 < (stored == 0).mean() < 0.1
    known = stored > 0
    result = depthup_("upsample", "rgb.png", "edge.png", "-o", "all.png", "--model", "bicubic", "--fill", "all")
    assert result.code == 0 and "100.0 % known" in result.err
    every = cv2.imread("all.png", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(every[known], stored[known])
    for row, column in np.argwhere(~known):  # the edge is vertical: what is nearest stands in the same row
        columns = np.flatnonzero(known[row])
        distances = np.abs(columns - column)
        assert every[row, column] in stored[row, columns[distances == distances.min()]]


def test_upsample_a_sensor_beside_the_camera(place, depthup_):
    (place / "pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    cv2.imwrite("flat.png", np.full((8, 12), 2000, np.uint16))
    cameras = ("--intrinsics", "40,40,23.5,15.5", "--depth-intrinsics", "10,10,5.5,3.5")
    result = depthup_("upsample", "rgb.png", "flat.png", "-o", "out.png", "--align", "pose.txt", *cameras)
    assert result.code == 0, result.err
    assert (cv2.imread("out.png", cv2.IMREAD_UNCHANGED) == 2000).all()


def sensor_net() -> DDFUpNet:
    torch.manual_seed(1)
    return DDFUpNet(DDFUpNetConfig(scale=SCALE, width=16, trunk_blocks=1, sensor=True))


@pytest.fixture
def folders(place) -> Path:
    """Four pairs in two folders, one of which is damaged."""
    for name in ("rgbs/a", "depths/a"):
        (place / name).mkdir(parents=True)
    for n in range(4):
        where = "a/" if n == 3 else ""
        shutil.copy("rgb.png", f"rgbs/{where}{n}.png")
        shutil.copy("cut-depth.png" if n == 1 else "depth.png", f"depths/{where}{n}.png")
    return place


def test_batch(folders, depthup_):
    command = ("batch", "rgbs", "depths", "-o", "results")
    result = depthup_(*command)
    assert result.code == 3
    lines = result.err.splitlines()
    assert "4 pairs" in lines[0]
    assert lines[1].startswith("depthup: 1: depths/1.png: is a truncated PNG")
    assert lines[2].startswith("results: 3 done, 0 skipped, 1 failed in ")
    expected = expected_result(folders)
    for name in ("0", "2", "a/3"):
        np.testing.assert_allclose(read_depth(f"results/{name}.png"), expected, atol=6e-4)
    shutil.copy("depth.png", "depths/1.png")
    (folders / "results" / "2.png").write_bytes(b"damaged")
    again = depthup_(*command, "--json")
    assert again.code == 0
    assert json.loads(again.out) == {
        "done": 2,
        "skipped": 2,
        "failed": 0,
        "failures": {},
        "unpaired": [],
        "stopped": False,
    }
    other = depthup_(*command, "--model", "bicubic")
    assert other.code == 1 and other.err.splitlines()[-1].startswith("depthup: ")
    assert depthup_(*command, "--model", "bicubic", "--overwrite", "--json").code == 0


def test_batch_lists_files_without_a_partner(folders, depthup_):
    for n in range(6):
        shutil.copy("rgb.png", f"rgbs/alone{n}.png")
    shutil.copy("depth.png", "depths/lonely.png")
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "nearest", "--json")
    alone = ["depths/lonely.png", *(f"rgbs/alone{n}.png" for n in range(6))]
    assert json.loads(result.out)["unpaired"] == alone


def test_swapped_folders_are_said(folders, depthup_):
    shutil.copy("depth.png", "depths/1.png")
    before = snapshot(folders)
    result = depthup_("batch", "depths", "rgbs", "-o", "results")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith("depthup: depths, rgbs: look swapped: depths/0.png is a depth map and rgbs/0.png a")
    assert snapshot(folders) == before


def test_batch_of_a_recording_in_its_own_unit(place, depthup_):
    for name in ("rgb", "depth"):
        (place / "tum" / name).mkdir(parents=True)
    lines = {"rgb": [], "depth": []}
    for n in range(2):
        shutil.copy("rgb.png", f"tum/rgb/{n}.25.png")
        shutil.copy("depth.png", f"tum/depth/{n}.26.png")
        for name, part in (("rgb", 25), ("depth", 26)):
            lines[name].append(f"{n}.{part} {name}/{n}.{part}.png")
    for name, text in lines.items():
        (place / "tum" / f"{name}.txt").write_text("\n".join(text) + "\n")
    result = depthup_("batch", "tum", "-o", "results", "--format", "npy")
    assert result.code == 0, result.err
    found = sorted(Path("results").glob("*.npy"))
    assert len(found) == 2
    np.testing.assert_allclose(np.load(found[0]), expected_result(place, unit="tum"), rtol=1e-5)


def test_batch_to_space(place, depthup_):
    for name in ("color", "depth"):
        (place / "capture" / name).mkdir(parents=True)
        shutil.copy("rgb.png" if name == "color" else "depth.png", f"capture/{name}/1.png")
    columns = [40, 0, 0, 0, 40, 0, 23.5, 15.5, 1]
    (place / "capture" / "intrinsic.json").write_text(json.dumps({"intrinsic_matrix": columns}))
    save_weights(place / "box" / "sensor-x4.safetensors", sensor_net(), RECORD)
    command = ("batch", "capture", "-o", "results", "--model", "sensor-x4")
    assert depthup_(*command).code == 0
    options = ("--preview", "--normals", "--confidence-out", "--ply")
    again = depthup_(*command, *options)  # beside the result that is there
    assert again.code == 0, again.err
    names = ["1.confidence.png", "1.normals.png", "1.ply", "1.png", "1.preview.jpg"]
    assert sorted(path.name for path in Path("results").glob("1*")) == names
    single = ("--intrinsics", "40,40,23.5,15.5", "--ply", "cloud.ply", "--confidence-out", "confidence.png")
    assert depthup_(*GOOD, "--model", "sensor-x4", *single).code == 0
    for one, other in (("1.png", "out.png"), ("1.ply", "cloud.ply"), ("1.confidence.png", "confidence.png")):
        assert Path("results", one).read_bytes() == Path(other).read_bytes()
    moved = depthup_(*command, *options, "--intrinsics", "50,50,23.5,15.5")
    assert moved.code == 1 and "was made from other inputs" in moved.err
    assert depthup_(*command, *options, "--mesh", "--overwrite").code == 0
    assert b"element face" in Path("results/1.ply").read_bytes()[:500]


def test_upsample_overwrites_when_told(place, depthup_):
    result = depthup_("upsample", "rgb.png", "depth.png", "-o", "existing.png", "--overwrite", "--model", "nearest")
    assert result.code == 0
    np.testing.assert_allclose(read_depth(place / "existing.png"), expected_result(place, "nearest"), atol=1e-6)


def test_upsample_with_a_weights_file(place, depthup_):
    save_weights(place / "own.safetensors", small_net(SCALE, seed=9), {})
    assert depthup_("upsample", "rgb.png", "depth.png", "-o", "out.npy", "--model", "own.safetensors").code == 0
    np.testing.assert_array_equal(np.load("out.npy"), expected_result(place, "own.safetensors"))
    assert np.nanmax(np.abs(np.load("out.npy") - expected_result(place))) > 1e-3


def write_pairs(folder: Path) -> None:
    """A folder of four scenes, one of them for validation."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for name in SCENES:
        depth = rng.integers(1000, 5000, (6, 6)).astype(np.uint16).repeat(8, 0).repeat(8, 1)
        cv2.imwrite(str(folder / f"{name}_depth.png"), depth)
        cv2.imwrite(str(folder / f"{name}_rgb.png"), (depth // 20).astype(np.uint8))


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


def test_compare_draws_the_median_image(place, depthup_, monkeypatch):
    write_pairs(place / "pairs")
    drawn = []
    monkeypatch.setattr("depthup.commands.methods_figure", lambda *arguments: drawn.append(arguments))
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


def test_models(place, depthup_):
    result = depthup_("models", "--json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    assert facts == json.loads(depthup_("info", "--json").out)["models"]
    assert facts["x4"]["parameters"] == sum(p.numel() for p in small_net(4).parameters())
    assert facts["x4"]["bytes"] == (place / "box" / "x4.safetensors").stat().st_size
    lines = depthup_("models").out.splitlines()
    assert lines[0].split()[:4] == ["model", "scale", "protocol", "for"]
    assert [line.split()[:3] for line in lines[1:3]] == [["x2", "x2", "dkn"], ["x4", "x4", "dkn"]]
    assert "1.500 cm" in lines[1]
    assert "3" in lines[1].split()


def test_eval_motorcycle(place, depthup_):
    result = depthup_(*EVAL, "--model", "bicubic", "--json", "--csv", "scores.csv")
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert summary["data"] == "Middlebury 2014 Motorcycle"
    assert (summary["scale"], summary["protocol"], summary["border"], summary["images"]) == (4, "dkn", 0, 1)
    assert 2 < summary["rmse"] < 20
    assert len((place / "scores.csv").read_text().splitlines()) == 2


def test_demo(place, depthup_):
    save_weights(place / "box" / "x8.safetensors", small_net(8), RECORD)
    result = depthup_("demo", "--json")
    assert result.code == 0  # matplotlib may narrate that it builds its font cache
    facts = json.loads(result.out)
    assert (facts["scale"], facts["size"]) == (8, [736, 496])
    assert set(facts["rmse_cm"]) == {"bicubic", "depthup"}
    assert sorted(p.name for p in (place / "demo").iterdir()) == sorted(f"{name}.png" for name in facts["files"])
    assert read_depth(facts["files"]["depth"]).shape == read_rgb(facts["files"]["rgb"]).shape[:2] == (496, 736)
    assert read_depth(facts["files"]["low"]).shape == (62, 92)
    again = depthup_("demo")
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "exists already" in again.err


def test_info(place, depthup_):
    result = depthup_("info", "--json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    assert set(facts) == {"versions", "threads", "backends", "models"}
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["backends"]["reference"] is None
    assert set(facts["backends"]) == {"reference", "cpu", "cuda"}
    assert set(facts["models"]) == {"x2", "x4"}
    assert facts["models"]["x4"] == {
        "scale": 4,
        "architecture": "base",
        "protocol": "dkn",
        "sensor": False,
        "parameters": sum(p.numel() for p in small_net(4).parameters()),
        "bytes": (place / "box" / "x4.safetensors").stat().st_size,
        "data": "boxes",
        "steps": 12,
        "held_out_rmse": 1.5,
        "unit": "cm",
        "held_out_images": 3,
    }
    text = depthup_("info")
    assert text.code == 0
    for part in ("depthup", torch.__version__, "reference", "x4"):
        assert part in text.out


@pytest.fixture
def training(place, monkeypatch) -> Path:
    """Pairs to train on, and networks small enough for it."""
    write_pairs(place / "pairs")
    small = classmethod(lambda cls, name, scale, sensor=False: cls(name, scale, 16, 1, sensor=sensor))
    monkeypatch.setattr(DDFUpNetConfig, "named", small)
    return place


TINY = ("--scale", "2", "--epochs", "4", "--batch-size", "2", "--crop-size", "32", "--seed", "3")


def test_train(training, depthup_):
    result = depthup_(*TRAIN, *TINY, "--json")
    assert result.code == 0
    facts = json.loads(result.out)
    assert "3 pairs to train on, 1 held out" in result.err
    assert facts["finished"] is True
    assert facts["steps"] == 6  # 4 passes over 3 pairs, 2 in a step
    assert facts["weights"] == "run/model.safetensors"
    assert math.isfinite(facts["held_out_rmse"])
    assert (facts["held_out_unit"], facts["held_out_images"], facts["held_out_scenes"]) == ("cm", 1, 1)
    config = read_metadata("run/model.safetensors")[1]["config"]
    assert (config["scale"], config["seed"], config["steps"], config["crop_size"]) == (2, 3, 6, 32)
    rgb, depth = np.zeros((8, 8, 3), np.uint8), np.ones((4, 4))
    assert upsample(rgb, depth, "run/model.safetensors").shape == (8, 8)
    before = snapshot(training)
    again = depthup_(*TRAIN, *TINY)
    assert again.code == 1
    assert again.err.startswith("depthup: run: holds a run already")
    assert again.err.count("\n") == 1
    assert snapshot(training) == before


def test_the_unit_of_the_result_is_its_own(place, depthup_):
    assert depthup_(*UPSAMPLE, "-o", "mm.png", "--model", "bilinear").code == 0
    assert depthup_(*UPSAMPLE, "-o", "kitti.png", "--model", "bilinear", "--out-unit", "kitti").code == 0
    millimetres, kitti = (read_depth(Path(name), unit) for name, unit in (("mm.png", "mm"), ("kitti.png", "kitti")))
    np.testing.assert_allclose(kitti, millimetres, atol=0.0026)
    assert not np.array_equal(kitti, millimetres)


def test_train_is_interrupted_and_resumed(training, depthup_, monkeypatch):
    step = depthup.training._step
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(depthup.training, "_step", interrupted)
    result = depthup_(*TRAIN, *TINY)
    assert result.code == 130
    line = result.err.splitlines()[-1]
    assert line == f"depthup: stopped and saved; go on with: depthup {' '.join(TRAIN)} --resume"
    resumed = depthup_(*line.split(": ")[-1].split()[1:])
    assert resumed.code == 0
    assert "resumed run at step 2" in resumed.err
    assert len(calls) == 6
    assert depthup_("train", "--data", "pairs", "--out", "whole", *TINY).code == 0
    weights = [depthup.weights.load_model(f"{run}/model.safetensors").state_dict() for run in ("run", "whole")]
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items())


def test_a_run_keeps_to_its_settings_and_ends_once(training, depthup_):
    assert depthup_(*TRAIN, *TINY).code == 0
    contradiction = depthup_(*TRAIN, "--resume", "--seed", "7")
    assert contradiction.code == 2
    assert contradiction.err == "depthup: run: was started with --seed 3, and --resume keeps to it; got 7\n"
    before = snapshot(Path("run"))
    again = depthup_(*TRAIN, "--resume", "--seed", "3")
    assert again.code == 0
    assert "run: this run is finished; nothing to do" in again.err
    assert "held out rmse" in again.out
    assert snapshot(Path("run")) == before


def test_train_starts_from_given_weights(training, depthup_):
    assert depthup_(*TRAIN, *TINY, "--init", "x4").code == 0
    missing = depthup_("train", "--data", "pairs", "--out", "other", *TINY, "--init", "x5")
    assert missing.code == 1
    assert missing.err.startswith("depthup: x5: no such model")
    assert missing.err.count("\n") == 1


def test_ctrl_c_is_130(place, depthup_, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("depthup.pair_files.read_rgb", interrupt)
    result = depthup_(*GOOD)
    assert result.code == 130
    assert "Traceback" not in result.err


def test_a_bug_is_not_hidden(place, monkeypatch):
    def bug(*arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("depthup.pair_files.read_rgb", bug)
    monkeypatch.setattr(sys, "argv", ["depthup", *GOOD])
    with pytest.raises(ZeroDivisionError):
        main()


def test_without_arguments_it_helps(depthup_):
    result = depthup_()
    for command in ("upsample", "eval", "compare", "train", "models", "info"):
        assert command in result.out
    assert result.err == ""


def test_progress_is_silent_where_nobody_sees_it(capfd, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress_bar(delay=0) as progress:
        progress("working", 0.5)
    assert capfd.readouterr() == ("", "")


HELP = """
import contextlib, io, sys
from depthup.cli import main
for command in ([], ["upsample"], ["batch"], ["export"], ["eval"], ["compare"], ["train"], ["models"], ["info"]):
    sys.argv = ["depthup", *command, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main()
    assert "Usage" in out.getvalue(), command
print(sorted({"torch", "numpy", "cv2", "numba", "matplotlib", "scipy"} & set(sys.modules)))
"""


def test_help_does_not_import_torch():
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_from_a_checkout():
    result = subprocess.run([sys.executable, "cli.py", "--help"], capture_output=True, text=True, cwd=CHECKOUT)
    assert result.returncode == 0
    assert "upsample" in result.stdout
    assert result.stderr == ""


def test_as_a_module(place):
    command = [sys.executable, "-m", "depthup", "upsample", "rgb.png"]
    good = subprocess.run([*command, "depth.png", "-o", "out.png", "--model", "bicubic", "--json"], capture_output=True)
    assert (good.returncode, good.stderr) == (0, b"")
    assert json.loads(good.stdout)["ratio"] == [4, 4]
    bad = subprocess.run([*command, "cut-depth.png", "-o", "bad.png"], capture_output=True, text=True)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("depthup: cut-depth.png: ")
    assert bad.stderr.count("\n") == 1
    assert not (place / "bad.png").exists()
