"""`depthup upsample`: what it writes and says, and what it refuses."""

import json
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

import depthup.commands.outputs
import depthup.kernels.backend
import depthup.upsampling
from cli_helpers import GOOD, RECORD, SCALE, UPSAMPLE, command_line, expected_result, sensor_net, small_net, write_pairs
from depthup.data import InputError, read_depth
from depthup.weights import save_weights


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
        ((*GOOD, "--precision", "fp16"), 2, ["--precision", "fp16", "bf16"]),
        ((*GOOD, "--precision", "bf16", "--model", "bicubic"), 2, ["bicubic: is no network", "float32"]),
        ((*GOOD, "--fill", "some"), 2, ["--fill", "some", "near"]),
        ((*GOOD, "--mask", "missing.png"), 1, ["missing.png", "no such file"]),
        ((*GOOD, "--mask", "nothing8.png"), 1, ["depth.png: nothing8.png leaves none of its samples"]),
        ((*GOOD, "--confidence", "eight.png"), 1, ["eight.png", "0 low, 1 medium or 2 high"]),
        ((*GOOD, "--depth-unit", "mm", "--depth-scale", "5"), 2, ["unit mm and scale 5", "--depth-scale"]),
        ((*GOOD, "--depth-scale", "-1"), 2, ["scale is -1.0", "> 0"]),
        ((*GOOD, "--depth-kind", "disparity"), 2, ["disparity needs a focal length", "--baseline"]),
        ((*GOOD, "--out-unit", "mm", "--out-scale", "500"), 2, ["--out-unit or --out-scale, got both"]),
        ((*UPSAMPLE, "-o", "out.npy", "--out-unit", "mm"), 2, ["--out-unit", ".npy file holds float metres", ".png"]),
        ((*UPSAMPLE, "-o", "out.pfm", "--out-scale", "500"), 2, ["--out-scale", ".pfm file holds float metres"]),
        ((*GOOD, "--confidence-out", "c.png"), 2, ["x4: does not tell how far off it is"]),
        ((*GOOD, "--confidence-out", "c.png", "--model", "bicubic"), 2, ["bicubic: does not tell how far off it is"]),
        ((*GOOD, "--ply", "c.ply"), 2, ["--ply and --normals need the camera", "--intrinsics"]),
        ((*GOOD, "--ply", "c.obj", "--intrinsics", "9,9,4,4"), 2, ["c.obj", ".ply"]),
        ((*GOOD, "--mesh"), 2, ["--mesh needs a file", "--ply"]),
        ((*GOOD, "--normals", "n.png", "--intrinsics", "9,9"), 2, ["holds 2 numbers", "fx,fy,cx,cy"]),
        (
            (*GOOD, "--align", "p.txt", "--intrinsics", "9,9,4,4", "--depth-intrinsics", "0,9,4,4"),
            2,
            ["--depth-intrinsics: camera: focal length fx is 0"],
        ),
        ((*GOOD, "--model", "none.safetensors"), 1, ["none.safetensors: no such model"]),
        ((*GOOD, "--normals", "n.png", "--intrinsics", "cam.json"), 1, ["cam.json: no such file", "fx,fy,cx,cy"]),
        ((*GOOD, "--intrinsics", "9,9,4,4"), 2, ["--intrinsics are for --ply, --normals and --align"]),
        ((*GOOD, "--align", "pose.txt", "--intrinsics", "9,9,4,4"), 2, ["--depth-intrinsics"]),
        ((*GOOD, "--align", "pose.txt"), 2, ["--align needs the camera of DEPTH", "--depth-intrinsics"]),
        ((*GOOD, "--depth-intrinsics", "9,9,4,4"), 2, ["--depth-intrinsics is for --align"]),
        (
            (*GOOD, "--align", "existing.csv", "--depth-intrinsics", "9,9,4,4", "--intrinsics", "40,40,24,16"),
            1,
            ["existing.csv: holds text that is no number"],
        ),
        ((*GOOD, "--out-scale", "0"), 2, ["--out-scale: got 0", "> 0"]),
        ((*GOOD, "--out-scale", "nan"), 2, ["--out-scale: got nan", "> 0"]),
        ((*GOOD, "--size", f"{10**12}x{10**12}"), 2, ["x1000000000000, expected at most 2147 megapixels"]),
        ((*GOOD, "--size", "0x0"), 2, ["--size: got 0x0"]),
        (
            (*GOOD, "--intrinsics", "1.5,1.5,12,10", "--normals", "n.png"),
            1,
            ["rgb.png: its camera: focal length fx is 1.5"],
        ),
        ((*GOOD, "--device", "tpu"), 2, ["device", "tpu", "expected cpu"]),
        ((*GOOD, "--min-confidence", "2"), 2, ["--min-confidence", "expected --confidence"]),
        (
            (*GOOD, "--depth-kind", "disparity", "--focal", "900", "--baseline", "193"),
            2,
            ["baseline is 193 m", "are these millimetres?"],
        ),
        ((*GOOD, "--model", "x8"), 2, ["x8: no such model", "x2, x4"]),
        (("upsample", "rgb.png", "depth.png", "-o", "none/out.png"), 1, ["none/out.png", "does not exist"]),
        (("upsample", "rgb.png", "depth.png", "-o", "existing.png"), 1, ["existing.png", "exists already"]),
        (("upsample", "rgb.png", "depth.png", "-o", "existing.png", "--model", "x5"), 2, ["x5", "no such model"]),
        (("upsample", "rgb.png", "depth.png", "-o", "existing.png", "--ply", "cloud.ply"), 2, ["--intrinsics"]),
        (("upsample", "rgb.png", "depth.png", "-o", "folder.png"), 1, ["folder.png", "is a folder"]),
        (("upsample", "rgb.png", "depth.png", "-o", "out.jpg"), 2, ["out.jpg", ".png, .tif"]),
        ((*GOOD, "--preview", "existing.png"), 1, ["existing.png", "exists already"]),
        ((*GOOD, "--preview", "none/preview.png"), 1, ["none/preview.png", "does not exist"]),
        ((*GOOD, "--preview", "preview.tiff"), 2, ["preview.tiff", ".png, .jpg"]),
        ((*GOOD, "--preview", "out.png"), 2, ["out.png", "--preview and --out are the same file"]),
        ((*GOOD, "--preview", "box/../out.png"), 2, ["same file"]),
        ((*GOOD, "--depth-unit", "m"), 1, ["out.png", "does not fit", ".npy"]),
        ((*GOOD, "--depth-unit", "inch"), 2, ["--depth-unit", "inch", "tum"]),
        ((*GOOD, "--shape"), 2, ["--shape"]),
        (UPSAMPLE, 2, ["--out"]),
        (("upsample",), 2, ["RGB"]),
        (("upsample", "rgb.png", "-o", "out.png"), 2, ["DEPTH"]),
        ((*GOOD, "surplus"), 2, ["surplus"]),
    ],
    ids=command_line,
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(check_mistake, arguments, code, parts):
    check_mistake(arguments, code, parts)


def depth_of(depthup_, *options: str) -> float:
    """Fraction known of the result with these options."""
    result = depthup_(*UPSAMPLE, "-o", f"known{''.join(options)}.png", "--json", *options)
    assert result.code == 0, result.err
    return json.loads(result.out)["known"]


@pytest.mark.parametrize(("named", "part"), [("gpu", "DEPTHUP_BACKEND: got 'gpu'"), ("cuda", "works on cuda tensors")])
def test_a_backend_that_cannot_run(check_mistake, monkeypatch, named, part):
    monkeypatch.setattr(depthup.kernels.backend, "_named", named)
    check_mistake(GOOD, 1, [part])


@pytest.mark.parametrize("unit", ["m", "kitti"])
def test_a_depth_that_cannot_be_is_doubted(place, depthup_, unit):
    result = depthup_(*UPSAMPLE, "-o", "out.npy", "--depth-unit", unit)
    assert result.code == 0
    doubted = "depth.png: its median is " in result.err and "are --depth-unit and --depth-scale right?" in result.err
    assert doubted == (unit == "m")  # thousands of metres; 3 to 23 of them are nothing to doubt


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


def test_the_unit_of_the_result_is_its_own(place, depthup_):
    assert depthup_(*UPSAMPLE, "-o", "mm.png", "--model", "bilinear").code == 0
    assert depthup_(*UPSAMPLE, "-o", "kitti.png", "--model", "bilinear", "--out-unit", "kitti").code == 0
    millimetres, kitti = (read_depth(Path(name), unit) for name, unit in (("mm.png", "mm"), ("kitti.png", "kitti")))
    np.testing.assert_allclose(kitti, millimetres, atol=0.0026)
    assert not np.array_equal(kitti, millimetres)


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
    assert facts == {
        "out": "out.png",
        "files": files,
        "size": [48, 32],
        "ratio": [4, 4],
        "model": "x4",
        "gathered": 1,
        "isolated": 0,
        "precision": "float32",
    }


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


def test_bf16_is_another_result_and_says_so(place, depthup_):
    assert depthup_(*UPSAMPLE, "-o", "exact.npz").code == 0
    assert depthup_(*UPSAMPLE, "-o", "near.npz", "--precision", "bf16").code == 0
    exact, near = np.load("exact.npz"), np.load("near.npz")
    assert "precision" not in exact and str(near["precision"]) == "bf16"
    off = np.abs(exact["depth"] - near["depth"])
    assert 0 < np.nanmax(off) < 0.01 * np.nanmax(exact["depth"])


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_bf16_is_told_of(place, depthup_, monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": has}, raising=False)
    assert "no bf16" not in depthup_(*GOOD).err
    assert ("this processor has no bf16" in depthup_(*GOOD, "--overwrite", "--precision", "bf16").err) != has


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


def test_sparse_depth_is_gathered_and_the_result_says_so(place, depthup_):
    rng = np.random.default_rng(0)
    depth = np.where(rng.random((64, 96)) < 0.1, 2000, 0).astype(np.uint16)
    cv2.imwrite("points.png", depth)
    cv2.imwrite("view.png", rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    said = depthup_("upsample", "view.png", "points.png", "-o", "out.npz")
    assert said.code == 0 and "out.npz: 96x64, x1 from means of 4x4 sparse samples by " in said.err + said.out
    with np.load("out.npz") as written:
        assert str(written["gathered"]) == "4x4"
    facts = json.loads(depthup_("upsample", "view.png", "points.png", "-o", "again.png", "--json").out)
    assert (facts["gathered"], facts["ratio"]) == (4, [1.0, 1.0])
    assert json.loads(depthup_(*UPSAMPLE, "-o", "dense.png", "--json").out)["gathered"] == 1


def test_isolated_samples_are_left_out_and_the_result_says_so(place, depthup_):
    rng = np.random.default_rng(0)
    depth = np.full((64, 96), 2000, np.uint16)
    depth[20, 30] = depth[40, 50] = 60000
    cv2.imwrite("wild.png", depth)
    cv2.imwrite("view.png", rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    said = depthup_("upsample", "view.png", "wild.png", "-o", "out.npz")
    assert said.code == 0 and "100.0 % known, isolated samples left out: 2\n" in said.err
    with np.load("out.npz") as written:
        assert str(written["isolated"]) == "2" and written["depth"].max() < 2.01
    assert json.loads(depthup_("upsample", "view.png", "wild.png", "-o", "json.png", "--json").out)["isolated"] == 2
    far = np.where(depth > 2000, 65000, 200).astype(np.uint16)
    cv2.imwrite("far.png", far)
    assert "farthest" not in depthup_("upsample", "view.png", "far.png", "-o", "far.npz").err
    assert "farthest" in depthup_("upsample", "view.png", "far.png", "-o", "far2.npz", "--keep-isolated").err
    kept = depthup_("upsample", "view.png", "wild.png", "-o", "kept.npz", "--keep-isolated")
    assert "isolated" not in kept.err
    with np.load("kept.npz") as written:
        assert "isolated" not in written and np.nanmax(written["depth"]) > 10


@pytest.mark.parametrize("model", [(), ("--model", "x4"), ("--model", "nearest")])
def test_a_model_that_tells_no_error_is_refused_before_it_runs(place, depthup_, monkeypatch, model):
    def never(*arguments):
        raise AssertionError("it ran")

    monkeypatch.setattr(depthup.upsampling.Upsampler, "_run", never)
    result = depthup_(*GOOD, "--confidence-out", "c.png", *model)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "does not tell how far off it is" in result.err
    write_pairs(place / "pairs")
    for name in ("0_rgb.png", "0_depth.png"):
        (place / "pairs" / name).write_bytes((place / f"{name[2:]}").read_bytes())
    result = depthup_("batch", "pairs", "-o", "results", "--confidence-out", *model)
    assert result.code == (2 if model else 1)  # without one, each pair has a network of its own ratio
    assert "does not tell how far off it is" in result.err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_what_does_not_fit_into_memory(place, depthup_, monkeypatch, error):
    def full(*arguments):
        raise error

    monkeypatch.setattr(depthup.upsampling.Upsampler, "run", full)
    result = depthup_(*GOOD, "--size", "4000x3000")
    assert result.code == 1
    assert result.err == (
        "depthup: rgb.png, depth.png: not enough memory for 4000x3000 pixels; expected a smaller size\n"
    )


def test_the_camera_is_asked_for_before_the_confidence(place, depthup_):
    for name in ("rgb", "depth"):
        (place / "pairs").mkdir(exist_ok=True)
        (place / "pairs" / f"0_{name}.png").write_bytes((place / f"{name}.png").read_bytes())
    options = ("--confidence-out", "--ply", "--intrinsics", "1.5,1.5,12,10")  # neither fits
    for result in (
        depthup_("batch", "pairs", "-o", "results", *options),
        depthup_(*GOOD, "--confidence-out", "c.png", "--ply", "c.ply", *options[2:]),
    ):
        assert result.code == 1
        assert "rgb.png: its camera: focal length fx is 1.5" in result.err
        assert "does not tell how far off it is" not in result.err


def test_confidence_is_computed_once(place, depthup_, monkeypatch):
    save_weights(place / "box" / "sensor-x4.safetensors", sensor_net(), RECORD)
    computed, confidence_of = [], depthup.commands.outputs.confidence_of
    monkeypatch.setattr(
        depthup.commands.outputs, "confidence_of", lambda run: computed.append(run) or confidence_of(run)
    )
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


def test_colours_of_a_cloud_that_is_larger_than_rgb(place, depthup_):
    """Of a picture whose colour is where it lies, so that a colour half a pixel off is one of another value."""
    columns = np.broadcast_to(np.arange(48) * 5, (32, 48)).astype(np.uint8)
    cv2.imwrite("ramp.png", columns[..., None].repeat(3, 2))
    cv2.imwrite("flat.png", np.full((8, 12), 2000, np.uint16))
    cloud = ("--model", "bilinear", "--intrinsics", "40,40,23.5,15.5", "--size", "120x64", "--ply", "c.ply")
    assert depthup_("upsample", "ramp.png", "flat.png", "-o", "out.tiff", *cloud).code == 0
    fields = [("point", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 3)]
    points = np.frombuffer((place / "c.ply").read_bytes().split(b"end_header\n", 1)[1], fields)
    assert len(points) == 120 * 64
    column = 40 * points["point"][:, 0] / points["point"][:, 2] + 23.5
    np.testing.assert_allclose(points["colour"][:, 0], 5 * column.clip(0, 47), atol=0.6)


def test_depth_of_one_value_has_no_confidence(place, depthup_):
    save_weights(place / "box" / "sensor-x4.safetensors", sensor_net(), RECORD)
    cv2.imwrite("depth.png", np.full((8, 12), 2000, np.uint16))
    result = depthup_(*GOOD, "--confidence-out", "c.tiff")
    assert result.code == 0
    assert result.err.startswith("depthup: c.tiff: is 0 everywhere: depth of one value")
    assert not cv2.imread("c.tiff", cv2.IMREAD_UNCHANGED).any()


def test_an_empty_cloud_or_mesh_is_warned_of(place, depthup_):
    cv2.imwrite("one.png", np.full((1, 1), 2000, np.uint16))
    cv2.imwrite("row.png", np.zeros((1, 9, 3), np.uint8))
    cloud = ("--model", "bilinear", "--intrinsics", "40,40,4,0", "--ply", "c.ply")
    result = depthup_("upsample", "row.png", "one.png", "-o", "out.png", *cloud, "--json")
    assert (result.code, result.err.count("\n")) == (0, 2)
    assert result.err.startswith("depthup: c.ply: an empty cloud")
    result = depthup_("upsample", "row.png", "one.png", "-o", "out.png", *cloud, "--mesh", "--overwrite", "--json")
    assert (result.code, result.err.count("\n")) == (0, 2)
    assert result.err.startswith("depthup: c.ply: an empty mesh")
    assert result.err.splitlines()[1].startswith(
        "depthup: one.png: x9 by x1: if it is not of the whole view of row.png"
    )


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


@pytest.mark.parametrize("value", [65504.0, 1e10, 3e38])
def test_a_float_far_beyond_all_others_is_warned_of(place, depthup_, value):
    depth = np.full((8, 12), 2, np.float32)
    np.save("depth.npy", depth)
    assert depthup_("upsample", "rgb.png", "depth.npy", "-o", "1.npy", "--model", "bicubic", "--json").err == ""
    depth[2, 3] = value
    np.save("depth.npy", depth)
    result = depthup_("upsample", "rgb.png", "depth.npy", "-o", "2.npy", "--model", "bicubic", "--json")
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert result.err.startswith(f"depthup: depth.npy: its farthest sample is {value:.4g} m and its median 2 m; ")
    assert "--invalid" in result.err


def test_a_result_that_cannot_be_read_is_no_wrong_usage(place, depthup_, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: mode != os.R_OK and access(path, mode, **more))
    for option in ("-o", "--preview", "--confidence-out"):
        Path("out-1.png").write_bytes(b"precious")
        result = depthup_(*UPSAMPLE, *(() if option == "-o" else ("-o", "other.png")), option, "out-1.png")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "out-1.png: exists already" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_link_to_itself_is_replaced_where_that_is_asked_for(place, depthup_):
    Path("out.png").symlink_to("out.png")
    refused = depthup_(*GOOD, "--model", "bicubic")
    assert (refused.code, refused.err.count("\n")) == (1, 1) and "out.png: exists already" in refused.err
    assert depthup_(*GOOD, "--model", "bicubic", "--overwrite").code == 0
    assert read_depth("out.png").shape == (32, 48)


@pytest.mark.parametrize(
    "cause",
    [
        InputError("preview.png: cannot be written (No space left on device)"),
        OSError(28, "No space left on device", "preview.png"),
    ],
)
def test_what_was_written_before_a_failure_is_said(place, depthup_, monkeypatch, cause):
    def full(path, *_):
        raise cause

    monkeypatch.setattr(depthup.commands.outputs, "write_image", full)
    result = depthup_(*GOOD, "--model", "bicubic", "--preview", "preview.png")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith("depthup: preview.png: ")
    assert re.search(r"No space left on device\)?; before it were written: out\.png$", result.err)
    assert Path("out.png").exists()


def test_a_link_that_leads_nowhere_is_not_replaced(place, depthup_):
    Path("link.png").symlink_to("nowhere.png")
    result = depthup_(*UPSAMPLE, "-o", "link.png", "--model", "bicubic")
    assert result.code == 1 and result.err.startswith("depthup: link.png: exists already")
    assert Path("link.png").is_symlink()


def test_a_capital_x_in_a_size(place, depthup_):
    assert json.loads(depthup_(*GOOD, "--model", "bicubic", "--size", "96X64", "--json").out)["size"] == [96, 64]


def test_an_aspect_ratio_that_does_not_fit_is_said(place, depthup_):
    cv2.imwrite("square.png", np.full((8, 8), 2000, np.uint16))
    result = depthup_("upsample", "rgb.png", "square.png", "-o", "out.png", "--model", "bicubic")
    assert result.code == 0
    assert result.err.startswith("depthup: square.png: x6 by x4: if it is not of the whole view of rgb.png, ")
    assert depthup_("upsample", "rgb.png", "depth.png", "-o", "2.png").err.startswith("2.png: ")
    squeezed = depthup_("upsample", "rgb.png", "depth.png", "-o", "3.png", "--model", "bicubic", "--size", "48x16")
    assert squeezed.err.startswith(
        "depthup: --size 48x16: is x4 by x2 of depth.png: another shape squeezes the view of"
    )


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


def test_a_camera_of_another_image_names_the_image(place, depthup_):
    (place / "pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (place / "vga.json").write_text(
        json.dumps({"fx": 500, "fy": 500, "cx": 320, "cy": 240, "width": 640, "height": 480})
    )
    for own, name in ((("vga.json", "10,10,5.5,3.5"), "rgb.png"), (("40,40,23.5,15.5", "vga.json"), "depth.png")):
        result = depthup_(*GOOD, "--align", "pose.txt", "--intrinsics", own[0], "--depth-intrinsics", own[1])
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert result.err.startswith(f"depthup: {name}: its camera is for an image of 640x480 and this one has")


def test_a_camera_that_seems_of_another_image_is_doubted(place, depthup_):
    for numbers, doubted in (("40,40,23.5,15.5", False), ("40,40,15,15", False), ("20,20,11.5,7.5", True)):
        result = depthup_(*GOOD, "--overwrite", "--intrinsics", numbers, "--normals", "n.png")
        assert result.code == 0
        doubts = [line for line in result.err.splitlines() if "far from its middle" in line]
        assert len(doubts) == doubted and all("rgb.png: is 48x32" in line for line in doubts)
    Path("calibration.json").write_text(json.dumps({"fx": 20, "fy": 20, "cx": 5, "cy": 7.5, "width": 48, "height": 32}))
    sure = depthup_(*GOOD, "--overwrite", "--intrinsics", "calibration.json", "--normals", "n.png")
    assert sure.code == 0 and "far from" not in sure.err


def test_a_camera_that_seems_of_the_image_before_it_was_turned_is_doubted(place, depthup_):
    rgb = PIL.Image.new("RGB", (160, 120))
    exif = rgb.getexif()
    exif[0x0112] = 6
    rgb.save("turned.jpg", exif=exif)
    cv2.imwrite("upright.png", np.full((40, 30), 2000, np.uint16))
    command = ("upsample", "turned.jpg", "upright.png", "-o", "out.png", "--overwrite", "--normals", "n.png")
    for numbers, doubted in (("130,130,79.5,59.5", True), ("130,130,59.5,79.5", False)):
        result = depthup_(*command, "--intrinsics", numbers)
        assert result.code == 0
        assert ("turned.jpg: is 120x160" in result.err) is doubted


def test_an_aligned_result_may_be_smaller_than_the_sensor(place, depthup_):
    (place / "pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    cv2.imwrite("flat.png", np.full((8, 12), 2000, np.uint16))
    cameras = ("--intrinsics", "40,40,23.5,15.5", "--depth-intrinsics", "10,10,5.5,3.5")
    command = ("upsample", "rgb.png", "flat.png", "-o", "out.png", "--align", "pose.txt", *cameras)
    result = depthup_(*command, "--size", "9x6")
    assert result.code == 0, result.err
    small = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
    assert small.shape == (6, 9) and (small == 2000).all()


def test_upsample_overwrites_when_told(place, depthup_):
    result = depthup_("upsample", "rgb.png", "depth.png", "-o", "existing.png", "--overwrite", "--model", "nearest")
    assert result.code == 0
    np.testing.assert_allclose(read_depth(place / "existing.png"), expected_result(place, "nearest"), atol=1e-6)


def test_upsample_with_a_weights_file(place, depthup_):
    save_weights(place / "own.safetensors", small_net(SCALE, seed=9), {})
    assert depthup_("upsample", "rgb.png", "depth.png", "-o", "out.npy", "--model", "own.safetensors").code == 0
    np.testing.assert_array_equal(np.load("out.npy"), expected_result(place, "own.safetensors"))
    assert np.nanmax(np.abs(np.load("out.npy") - expected_result(place))) > 1e-3
