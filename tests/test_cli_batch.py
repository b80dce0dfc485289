"""`depthup batch`: folders and recordings; test_batch.py holds how a batch is run."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import depthup.commands.batch
import depthup.journal
from cli_helpers import GOOD, RECORD, command_line, expected_result, sensor_net, snapshot, write_pairs
from depthup.data import InputError, read_depth
from depthup.depth_files import write_depth
from depthup.weights import save_weights


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (
            ("batch", "pairs", "-o", "results", "--format", "tiff", "--out-unit", "kitti"),
            2,
            ["--out-unit", ".tiff file holds float metres"],
        ),
        (("batch", "pairs", "-o", "results", "--confidence-out", "--model", "x4"), 2, ["x4: does not tell how far"]),
        (("batch", "pairs", "-o", "results", "--intrinsics", "9,9,4,4"), 2, ["--intrinsics are for --ply"]),
        (("batch", "box", "-o", "results"), 1, ["box", "expected"]),
        (("batch", "missing", "-o", "results"), 1, ["missing", "no such"]),
        (("batch", "rgbs", "depths"), 2, ["--out"]),
        (("batch", "pairs", "-o", "results", "--ply"), 1, ["--intrinsics"]),
        (("batch", "pairs", "-o", "results", "--mesh"), 2, ["--ply"]),
        (("batch", "pairs", "-o", "pairs"), 2, ["pairs: is the folder of the inputs"]),
        (("batch", "pairs", "pairs", "-o", "results"), 2, ["pairs: is given for RGB and for depth"]),
        (("batch", "pairs", "-o", "depth.png"), 1, ["depth.png", "not a folder"]),
        (("batch", "pairs", "-o", "results", "--align", "pose.txt"), 2, ["--align needs", "--depth-intrinsics"]),
        (
            ("batch", "pairs", "-o", "results", "--depth-intrinsics", "9,9,4,4"),
            2,
            ["--depth-intrinsics is for --align"],
        ),
        (("batch", "pairs", "-o", "results", "--mask", "missing"), 1, ["missing: no such folder"]),
        (("batch", "pairs", "-o", "results", "--mask", "depth.png"), 1, ["depth.png: is a file"]),
        (("batch", "pairs", "-o", "results", "--confidence", "box"), 1, ["box: no confidence among 0 images", "names"]),
        (("batch", "pairs", "-o", "results", "--min-confidence", "2"), 1, ["--min-confidence is for", "--confidence"]),
        (("batch", "pairs", "-o", "results", "--out-scale", "-2"), 2, ["--out-scale: got -2"]),
        (("batch", "pairs", "-o", "r", "--out-scale", "9", "--out-unit", "mm"), 2, ["--out-unit or --out-scale"]),
        (("batch", "pairs", "-o", "r", "--out-scale", "9", "--format", "npy"), 2, ["--out-scale", ".npy file holds"]),
        (("batch", "rgbs", "depths", "-o", "results", "--format", "jpg"), 2, ["--format", "jpg"]),
    ],
    ids=command_line,
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(check_mistake, arguments, code, parts):
    check_mistake(arguments, code, parts)


def test_time_stamps_may_differ_by_more_where_it_is_asked_for(place, depthup_):
    for folder, stamp, source in (("color", "100.000", "rgb.png"), ("tof", "100.040", "depth.png")):
        (place / folder).mkdir()
        shutil.copy(place / source, place / folder / f"{stamp}.png")
    command = ("batch", "color", "tof", "-o", "results", "--model", "nearest")
    refused = depthup_(*command)
    assert (refused.code, refused.out) == (1, "") and "time stamps at most 0.02 s apart" in refused.err
    assert depthup_(*command, "--max-difference", "0.05").code == 0
    assert read_depth("results/100.000.png").shape == cv2.imread("rgb.png").shape[:2]
    for wrong in ("nan", "inf", "-1"):
        assert depthup_(*command, "--max-difference", wrong).code == 2


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


def test_batch(folders, depthup_, monkeypatch):
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
    (folders / "results" / "2.png").unlink()
    again = depthup_(*command, "--json")
    assert again.code == 0
    assert json.loads(again.out) == {
        "done": 2,
        "skipped": 2,
        "failed": 0,
        "failures": {},
        "unpaired": [],
        "isolated": 0,
        "stopped": False,
    }
    with monkeypatch.context() as patch:
        patch.setattr(depthup.commands.batch, "__version__", "9.9")
        other = depthup_(*command)
    assert other.code == 1 and "and this run has 9.9; use another folder" in other.err
    other = depthup_(*command, "--precision", "bf16")
    assert other.code == 1 and "with --precision float32, and this run has bf16" in other.err
    other = depthup_(*command, "--model", "bicubic")
    assert other.code == 1 and other.err.splitlines()[-1].startswith("depthup: ")
    assert depthup_(*command, "--model", "bicubic", "--overwrite", "--json").code == 0


def test_batch_says_how_many_isolated_samples_were_left_out(place, depthup_):
    rng = np.random.default_rng(0)
    for name in ("rgbs", "depths"):
        (place / name).mkdir()
    for n in range(3):
        depth = np.full((64, 96), 2000, np.uint16)
        depth[20, 10 : 30 * n : 3] = 60000
        cv2.imwrite(f"depths/{n}.png", depth)
        cv2.imwrite(f"rgbs/{n}.png", rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    command = ("batch", "rgbs", "depths", "-o", "results")
    said = depthup_(*command)
    assert said.code == 0
    assert said.err.splitlines()[1] == "isolated samples left out: 24, in pairs: 2; --keep-isolated uses them"
    other = depthup_(*command, "--keep-isolated")
    assert other.code == 1 and "with --keep-isolated its default, and this run has yes" in other.err
    assert "isolated" not in depthup_(*command, "--keep-isolated", "--overwrite").err


def test_batch_lists_files_without_a_partner(folders, depthup_):
    for n in range(6):
        shutil.copy("rgb.png", f"rgbs/alone{n}.png")
    shutil.copy("depth.png", "depths/lonely.png")
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "nearest", "--json")
    alone = ["depths/lonely.png", *(f"rgbs/alone{n}.png" for n in range(6))]
    assert json.loads(result.out)["unpaired"] == alone
    again = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "nearest")
    assert ", 3 skipped, 1 failed, 7 files without a partner in " in again.err.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")
def test_a_link_to_itself_and_a_pipe_fail_alone(folders, depthup_):
    shutil.copy("depth.png", "depths/1.png")
    for name in ("0", "1"):
        Path(f"rgbs/{name}.png").unlink()
    os.mkfifo("rgbs/0.png")
    Path("rgbs/1.png").symlink_to("1.png")
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "bicubic", "--json")
    assert result.code == 3
    facts = json.loads(result.out)
    assert facts["done"] == 2
    assert {name: reason.split(":")[0] for name, reason in facts["failures"].items()} == {
        "0": "rgbs/0.png",
        "1": "rgbs/1.png",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
@pytest.mark.parametrize(
    "command",
    [
        ("batch", "rgbs", "depths", "-o"),
        ("train", "--data", "pairs", "--scale", "4", "--crop-size", "16", "--epochs", "1", "--out"),
    ],
)
def test_a_folder_that_is_a_link_to_itself_is_refused(folders, depthup_, command):
    write_pairs(folders / "pairs")
    Path("loop").symlink_to("loop")
    result = depthup_(*command, "loop")
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith("depthup: loop: cannot be")


def test_a_format_whose_package_is_missing_is_refused_at_once(folders, depthup_, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    before = snapshot(folders)
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--format", "exr")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "needs the package OpenEXR" in result.err
    assert snapshot(folders) == before


def test_a_journal_that_cannot_be_written_is_named(folders, depthup_, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    def opened(journal, *arguments):
        opening(journal, *arguments)
        journal._file.close()
        journal._file = Full()

    opening = depthup.journal.Journal.__init__
    monkeypatch.setattr(depthup.journal.Journal, "__init__", opened)
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "bicubic", "--json")
    assert result.code == 1  # none is done
    assert (
        json.loads(result.out)["failures"]["0"]
        == "results/.depthup-batch.jsonl: cannot be written (No space left on device)"
    )
    assert not [*Path("results").glob("*.png")]


def test_a_result_that_cannot_be_written_is_told_and_not_its_journal(folders, depthup_, monkeypatch):
    def full(*arguments):
        raise InputError("the first failure")

    def withdraw(*arguments):
        raise InputError("the second")

    monkeypatch.setattr(depthup.commands.batch, "write_output", full)
    monkeypatch.setattr(depthup.journal.Journal, "withdraw", withdraw)
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "bicubic", "--json")
    assert json.loads(result.out)["failures"]["0"] == "the first failure"


def test_swapped_folders_are_said(folders, depthup_):
    shutil.copy("depth.png", "depths/1.png")
    before = snapshot(folders)
    result = depthup_("batch", "depths", "rgbs", "-o", "results")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith("depthup: depths, rgbs: look swapped: depths/0.png is a depth map and rgbs/0.png a")
    assert snapshot(folders) == before


@pytest.mark.parametrize("more", [(), ("--invalid", "65535")])
def test_batch_of_a_recording_in_its_own_unit(place, depthup_, more):
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
    result = depthup_("batch", "tum", "-o", "results", "--format", "npy", *more)
    assert result.code == 0, result.err
    assert "2 pairs, depth in the unit tum (integers) or m (floats), or as recorded in the files\n" in result.err
    found = sorted(Path("results").glob("*.npy"))
    assert len(found) == 2
    np.testing.assert_allclose(np.load(found[0]), expected_result(place, unit="tum"), rtol=1e-5)


def test_what_a_file_records_goes_before_the_unit_of_its_layout(place, depthup_):
    for name in ("color", "depth"):
        (place / "capture" / name).mkdir(parents=True)
    columns = [40, 0, 0, 0, 40, 0, 23.5, 15.5, 1]
    (place / "capture/camera_intrinsic.json").write_text(json.dumps({"intrinsic_matrix": columns}))  # of mm
    depth = read_depth("depth.png")
    for name, options in (("0.png", {"unit": "tum"}), ("1.npy", {}), ("2.png", {"unit": "mm"})):
        shutil.copy("rgb.png", f"capture/color/{name[0]}.png")
        write_depth(f"capture/depth/{name}", depth, **options)
    shutil.copy("rgb.png", "capture/color/3.png")
    cv2.imwrite("capture/depth/3.png", np.nan_to_num(depth * 1000).round().astype(np.uint16))  # records nothing
    assert depthup_("batch", "capture", "-o", "results", "--model", "nearest", "--format", "npy").code == 0
    results = [np.load(f"results/{n}.npy") for n in range(4)]
    for result in results:
        np.testing.assert_allclose(result, results[1], atol=6e-4)


def test_confidence_maps_that_may_be_none_are_named(place, depthup_):
    for name in ("rgb", "depth", "confidence"):
        (place / "log" / name).mkdir(parents=True)
    shutil.copy("rgb.png", "log/rgb/0.png")
    shutil.copy("depth.png", "log/depth/0.png")
    write_maps("log/confidence", "0.png", of=2)
    command = ("batch", "log", "--model", "nearest", "-o")
    assert "log/confidence: is not used; expected --confidence log/confidence" in depthup_(*command, "without").err
    assert "is not used" not in depthup_(*command, "with", "--confidence", "log/confidence").err


def test_a_batch_goes_on_only_with_the_unit_of_its_layout(place, depthup_):
    for name in ("rgb", "depth"):
        (place / "log" / name).mkdir(parents=True)
        for n in "01":
            shutil.copy(f"{name}.png", f"log/{name}/{n}.png")
    command = ("batch", "log", "--model", "nearest", "-o", "results")
    assert depthup_(*command).code == 0
    Path("results/1.png").unlink()
    Path("log/associations.txt").write_text("".join(f"{n}.0 rgb/{n}.png {n}.0 depth/{n}.png\n" for n in "01"))
    again = depthup_(*command)
    assert again.code != 0 and "holds results with --depth-unit auto, and this run has tum" in again.err


def test_batch_says_what_depth_is_taken_for(place, depthup_):
    for name in ("rgb", "depth"):
        (place / "log" / name).mkdir(parents=True)
        shutil.copy(f"{name}.png", f"log/{name}/1305031102.175304.png")
    command = ("batch", "log", "--model", "nearest", "-o")
    hint = "though they are named like a recording of TUM; if they are one, --depth-unit tum\n"
    assert hint in depthup_(*command, "guessed").err
    assert "1 pairs, depth in the unit tum\n" in depthup_(*command, "told", "--depth-unit", "tum").err
    assert "depth in files that hold 4000 for a metre\n" in depthup_(*command, "scaled", "--depth-scale", "4000").err
    (place / "log/rgb/1305031102.175304.png").rename(place / "log/rgb/1.png")
    (place / "log/depth/1305031102.175304.png").rename(place / "log/depth/1.png")
    assert "depth in mm (integers) or m (floats), or as recorded in the files\n" in depthup_(*command, "plain").err


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


def write_maps(folder: str, *names: str, of: int = 255, below: int = 0) -> None:
    """Maps of the depth of `place`: `of` in the right half, `below` in the left."""
    image = np.full((8, 12), of, np.uint8)
    image[:, :6] = below
    for name in names:
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{folder}/{name}", image)


def test_batch_with_masks(folders, depthup_):
    shutil.copy("depth.png", "depths/1.png")
    write_maps("masks", "0_mask.png", "1_mask.png", "a/3_mask.png", "stray_mask.png")
    command = ("batch", "rgbs", "depths", "-o", "results", "--mask", "masks", "--model", "nearest")
    result = depthup_(*command, "--json")
    assert result.code == 3
    facts = json.loads(result.out)
    assert facts["failures"] == {"2": "depths/2.png: has no mask map, as others here have; expected one of its name"}
    assert facts["unpaired"] == ["masks/stray_mask.png"]
    assert depthup_(*GOOD, "--model", "nearest", "--mask", "masks/0_mask.png").code == 0
    for name in ("0", "1", "a/3"):
        assert Path(f"results/{name}.png").read_bytes() == Path("out.png").read_bytes()
    write_maps("masks", "2_mask.png")
    write_maps("masks", "1_mask.png", below=1)
    again = depthup_(*command, "--json")
    facts = json.loads(again.out)
    assert (facts["done"], facts["skipped"], [*facts["failures"]]) == (1, 2, ["1"])
    assert "was made from other inputs" in facts["failures"]["1"]
    without = depthup_("batch", "rgbs", "depths", "-o", "results", "--model", "nearest")
    assert (
        without.code == 1 and "results: holds results with --mask a folder, and this run has its default" in without.err
    )
    assert depthup_(*command, "--overwrite", "--json").code == 0


def test_batch_with_confidence_in_place_of_the_recordings(place, depthup_):
    """ARKitScenes, whose own confidence is low everywhere."""
    for folder, name in (("wide", "rgb.png"), ("lowres_depth", "depth.png")):
        (place / "scene" / folder).mkdir(parents=True)
        shutil.copy(name, f"scene/{folder}/1_2.5.png")
    write_maps("scene/confidence", "1_2.5.png", of=0)
    write_maps("own", "1_2.5.png", of=2)
    command = ("batch", "scene", "-o", "results", "--model", "nearest")
    refused = depthup_(*command)
    assert refused.code == 1 and "leaves none of its samples" in refused.err
    assert depthup_(*command, "--confidence", "own").code == 0
    assert depthup_(*GOOD, "--model", "nearest", "--confidence", "own/1_2.5.png").code == 0
    assert Path("results/1_2.5.png").read_bytes() == Path("out.png").read_bytes()


def test_batch_in_a_scale_of_its_own(folders, depthup_):
    shutil.copy("depth.png", "depths/1.png")
    command = ("batch", "rgbs", "depths", "-o", "results", "--model", "nearest")
    assert depthup_(*command, "--out-scale", "10000").code == 0
    assert cv2.imread("results/0.png", cv2.IMREAD_UNCHANGED).max() > 50000
    np.testing.assert_allclose(read_depth("results/0.png"), expected_result(folders, "nearest"), atol=6e-5)
    other = depthup_(*command, "--out-scale", "9000")
    assert other.code == 1 and "holds results with --out-scale 10000.0, and this run has 9000.0" in other.err


def test_a_bad_camera_file_fails_only_its_frame_and_only_where_it_is_needed(place, depthup_):
    (place / "capture").mkdir()
    good = json.dumps({"intrinsics": [40, 0, 23.5, 0, 40, 15.5, 0, 0, 1]})
    for n, text in enumerate((good, good[:20])):
        shutil.copy("rgb.png", f"capture/frame_0000{n}.png")
        cv2.imwrite(f"capture/depth_0000{n}.png", np.full((8, 12), 2000, np.uint16))
        Path(f"capture/frame_0000{n}.json").write_text(text)
    command = ("batch", "capture", "--model", "nearest")
    assert depthup_(*command, "-o", "plain").code == 0
    assert depthup_(*command, "-o", "own", "--ply", "--intrinsics", "40,40,23.5,15.5").code == 0
    part = depthup_(*command, "-o", "part", "--ply")
    assert part.code == 3 and "capture/frame_00001.json: is no JSON (Expecting" in part.err
    assert sorted(path.name for path in Path("part").glob("*.ply")) == ["frame_00000.ply"]
    Path("capture/frame_00000.json").write_text("[]")
    none = depthup_(*command, "-o", "none", "--ply")
    assert none.code == 1 and none.err.count("\n") == 1
    assert "capture/frame_00000.json: holds no JSON object" in none.err


def test_a_recording_whose_intrinsics_are_of_another_size_is_refused(place, depthup_):
    for name in ("color", "depth"):
        (place / "capture" / name).mkdir(parents=True)
    shutil.copy("rgb.png", "capture/color/1.png")
    cv2.imwrite("capture/depth/1.png", np.full((8, 12), 2000, np.uint16))
    facts = {"width": 96, "height": 64, "intrinsic_matrix": [80, 0, 0, 0, 80, 0, 47.5, 31.5, 1]}
    Path("capture/camera_intrinsic.json").write_text(json.dumps(facts))
    result = depthup_("batch", "capture", "-o", "results", "--model", "nearest", "--ply")
    assert result.code == 1 and "is for an image of 96x64 and this one has 48x32" in result.err
    assert not list(place.glob("results/*.ply"))


def test_batch_of_a_sensor_beside_the_camera(place, depthup_):
    pose = "1 0 0 {}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    (place / "pose.txt").write_text(pose.format(0.1))
    for name in ("color", "depth"):
        (place / "capture" / name).mkdir(parents=True)
    shutil.copy("rgb.png", "capture/color/1.png")
    cv2.imwrite("capture/depth/1.png", np.full((8, 12), 2000, np.uint16))
    align = ("--align", "pose.txt", "--depth-intrinsics", "10,10,5.5,3.5")
    command = ("batch", "capture", "-o", "results", "--model", "nearest", *align)
    missing = depthup_(*command)
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert "--align, --ply and --normals need the camera" in missing.err
    columns = [40, 0, 0, 0, 40, 0, 23.5, 15.5, 1]
    (place / "capture" / "intrinsic.json").write_text(json.dumps({"intrinsic_matrix": columns}))
    assert depthup_(*command, "--preview").code == 0
    single = ("--intrinsics", "40,40,23.5,15.5", "--model", "nearest", *align)
    assert depthup_("upsample", "capture/color/1.png", "capture/depth/1.png", "-o", "out.png", *single).code == 0
    assert Path("results/1.png").read_bytes() == Path("out.png").read_bytes()
    assert json.loads(depthup_(*command, "--preview", "--json").out)["skipped"] == 1
    for numbers in ("41,40,23.5,15.5", "40,40,23.5,15.25"):  # the camera decides the depth and its picture, too
        moved = depthup_(*command, "--intrinsics", numbers)
        assert moved.code == 1 and "results/1.png: was made from other inputs or options" in moved.err
    (place / "pose.txt").write_text(pose.format(0.1000000001))
    moved = depthup_(*command)
    assert moved.code == 1 and "results: holds results with --align Camera(" in moved.err


def test_a_frame_without_the_confidence_map_that_others_have_fails(place, depthup_):
    for n in (0, 1):
        for name, source in (("wide", "rgb.png"), ("lowres_depth", "depth.png")):
            (place / "capture" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, f"capture/{name}/41_100.{n}00.png")
    write_maps("capture/confidence", "41_100.000.png", below=0, of=2)
    result = depthup_("batch", "capture", "-o", "results", "--model", "nearest", "--fill", "none", "--json")
    assert result.code == 3
    assert json.loads(result.out)["failures"] == {
        "41_100.100": "capture/lowres_depth/41_100.100.png: has no confidence map, as others here have; "
        "expected one of its name"
    }
    unknown = cv2.imread("results/41_100.000.png", cv2.IMREAD_UNCHANGED) == 0
    assert unknown[:, : unknown.shape[1] // 2].all() and not unknown[:, unknown.shape[1] // 2 :].any()


def test_depth_of_another_view_is_warned_of_unless_it_is_aligned(place, depthup_):
    (place / "scan").mkdir()
    shutil.copy("rgb.png", "scan/frame-000000.color.png")
    shutil.copy("depth.png", "scan/frame-000000.depth.png")
    facts = ["m_depthShift = 1000"]
    for side, width, height, f in (("Color", 48, 32, 40), ("Depth", 12, 8, 13)):
        facts += [f"m_{side.lower()}Width = {width}", f"m_{side.lower()}Height = {height}"]
        matrix = f"{f} 0 {(width - 1) / 2} 0 0 {f} {(height - 1) / 2} 0 0 0 1 0 0 0 0 1"
        facts.append(f"m_calibration{side}Intrinsic = {matrix}")
    (place / "scan" / "_info.txt").write_text("\n".join(facts))
    (place / "pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    command = ("batch", "scan", "-o", "results", "--model", "nearest")
    result = depthup_(*command)
    assert result.code == 0 and "--align POSE --depth-intrinsics 13,13,5.5,3.5" in result.err
    result = depthup_(*command, "--align", "pose.txt", "--depth-intrinsics", "13,13,5.5,3.5", "--overwrite")
    assert result.code == 0 and "another part" not in result.err


def test_depth_of_another_shape_than_rgb_is_doubted_once(place, depthup_):
    rgb, depth = cv2.imread("rgb.png"), cv2.imread("depth.png", cv2.IMREAD_UNCHANGED)
    for name in ("rgbs", "depths", "part"):
        (place / name).mkdir()
    for n in range(3):
        cv2.imwrite(f"rgbs/{n}.png", rgb.swapaxes(0, 1))
        cv2.imwrite(f"depths/{n}.png", depth)
        cv2.imwrite(f"part/{n}.png", depth[:, :3])
    for depths, message in (("depths", "is one of them turned by 90 degrees?"), ("part", "if it is not of the whole")):
        result = depthup_("batch", "rgbs", depths, "-o", f"of-{depths}", "--model", "nearest")
        assert result.code == 0
        assert sum(message in line and f"{depths}/" in line for line in result.err.splitlines()) == 1


def test_a_depth_that_cannot_be_is_doubted(folders, depthup_):
    result = depthup_("batch", "rgbs", "depths", "-o", "results", "--depth-unit", "m", "--format", "npy")
    doubted = [line for line in result.err.splitlines() if "are --depth-unit and --depth-scale right?" in line]
    assert len(doubted) == 3 and all("depths/" in line for line in doubted)  # the fourth cannot be read


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
