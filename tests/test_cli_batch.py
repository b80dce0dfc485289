"""`depthup batch`: folders and recordings; test_batch.py holds how a batch is run."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from cli_helpers import GOOD, RECORD, command_line, expected_result, sensor_net, snapshot
from depthup.data import read_depth
from depthup.weights import save_weights


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (
            ("batch", "pairs", "-o", "results", "--format", "tiff", "--out-unit", "kitti"),
            2,
            ["--out-unit", ".tiff file holds float metres"],
        ),
        (("batch", "pairs", "-o", "results", "--confidence-out", "--model", "x4"), 1, ["x4: does not tell how far"]),
        (("batch", "pairs", "-o", "results", "--intrinsics", "9,9,4,4"), 2, ["--intrinsics are for --ply"]),
        (("batch", "box", "-o", "results"), 1, ["box", "expected"]),
        (("batch", "missing", "-o", "results"), 1, ["missing", "no such"]),
        (("batch", "rgbs", "depths"), 2, ["--out"]),
        (("batch", "pairs", "-o", "results", "--ply"), 2, ["--intrinsics"]),
        (("batch", "pairs", "-o", "results", "--mesh"), 2, ["--ply"]),
        (("batch", "pairs", "-o", "depth.png"), 1, ["depth.png", "not a folder"]),
        (("batch", "rgbs", "depths", "-o", "results", "--format", "jpg"), 2, ["--format", "jpg"]),
    ],
    ids=command_line,
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(check_mistake, arguments, code, parts):
    check_mistake(arguments, code, parts)


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
