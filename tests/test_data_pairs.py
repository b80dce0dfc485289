"""Folders of pairs: what is found, in which unit, in which split."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthup.data import (
    STANDARD_SENSOR,
    InputError,
    JoinedPairs,
    PairFolder,
    SomePairs,
    UsageError,
    is_validation_scene,
    motorcycle,
    open_dataset,
)
from depthup.data.pairs import check_dataset
from depthup.evaluation import evaluate, write_csv

H, W = 16, 24
COLUMNS = ["set", "name", "rgb", "depth", "kind", "scale", "width", "height", "valid_fraction", "scene"]
REAL = Path(__file__).resolve().parents[2] / "shared" / "rgbd"
needs_real = pytest.mark.skipif(not (REAL / "manifest.csv").is_file(), reason="the real RGB-D pairs are not here")


def colours(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3)).astype(np.uint8)


def integers(seed=0, top=9000):
    return np.random.default_rng(seed).integers(1, top, (H, W)).astype(np.uint16)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def manifest(folder, set_name, names, scenes, kind="depth_mm", scale="1000", **changes):
    """Pairs <folder>/<set>/<name>_* and the manifest that lists them."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for number, (name, scene) in enumerate(zip(names, scenes, strict=True)):
            rgb, depth = f"{set_name}/{name}_rgb.png", f"{set_name}/{name}_depth.png"
            write(folder / rgb, colours(number))
            write(folder / depth, integers(number))
            row = {"set": set_name, "name": name, "rgb": rgb, "depth": depth, "kind": kind, "scale": scale}
            table.writerow(row | {"width": W, "height": H, "valid_fraction": 1, "scene": scene} | changes)
    return folder / set_name


def refused(folder, *words, split="all"):
    with pytest.raises(InputError) as caught:
        pairs = PairFolder(folder, split)
        [pairs[index] for index in range(len(pairs))]
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    for word in words:
        assert word in message


def test_names_side_by_side(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}_rgb.png", colours())
        write(tmp_path / f"{name}_depth.png", integers())
    pairs = PairFolder(tmp_path)
    assert len(pairs) == 2
    assert pairs.names == pairs.scenes == ["a", "b"]
    assert (pairs.unit, pairs.border) == ("m", 0)
    assert tmp_path.name in pairs.title
    pair = pairs[0]
    assert (pair.name, pair.scene, pair.unit) == ("a", "a", "m")
    np.testing.assert_array_equal(pair.rgb, colours()[..., ::-1])
    np.testing.assert_array_equal(pair.depth, integers().astype(np.float32) / 1000)


@pytest.mark.parametrize(("place", "unit", "divisor"), [("depth", "m", 1000), ("disparity", "disparity", 1)])
def test_sub_folders(tmp_path, place, unit, divisor):
    write(tmp_path / "rgb" / "x.png", colours())
    write(tmp_path / place / "x.png", integers(top=255))
    pairs = PairFolder(tmp_path)
    assert (pairs.names, pairs.unit) == (["x"], unit)
    np.testing.assert_array_equal(pairs[0].depth, integers(top=255).astype(np.float32) / divisor)


def test_depth_is_in_the_unit_of_its_file(tmp_path):
    write(tmp_path / "x_rgb.png", colours())
    np.save(tmp_path / "x_depth.npy", integers().astype(np.float32) / 1000)
    np.testing.assert_array_equal(PairFolder(tmp_path)[0].depth, integers().astype(np.float32) / 1000)


def test_disparity_by_name(tmp_path):
    write(tmp_path / "x_rgb.png", colours())
    write(tmp_path / "x_disp.png", integers(top=255).astype(np.uint8))
    pairs = PairFolder(tmp_path)
    assert (pairs.unit, pairs[0].unit) == ("disparity", "disparity")
    np.testing.assert_array_equal(pairs[0].depth, integers(top=255))


@pytest.mark.parametrize(("kind", "divisor"), [("depth", 1000), ("disp", 1)])
def test_values_that_are_no_measurement(tmp_path, caplog, kind, divisor):
    image = integers()
    image[0, :5], image[1] = 65535, 9999
    write(tmp_path / "x_rgb.png", colours())
    write(tmp_path / f"x_{kind}.png", image)
    pairs = open_dataset(tmp_path, "test", (65535, 9999.0))
    expected = np.where(image >= 9999, np.nan, image.astype(np.float32) / divisor)
    np.testing.assert_array_equal(pairs[0].depth, expected)
    assert pairs.title.endswith("split test, without values 65535, 9999")
    assert not caplog.records
    assert np.isfinite(open_dataset(tmp_path)[0].depth).all()


def test_values_of_a_listed_folder_are_those_of_the_file(tmp_path):
    folder = manifest(tmp_path, "own", ["a"], ["one"], scale="5000")
    image = integers(0)
    expected = np.where(image == image[0, 0], np.nan, image.astype(np.float32) / 5000)
    np.testing.assert_array_equal(PairFolder(folder, invalid=[float(image[0, 0])])[0].depth, expected)


@pytest.mark.parametrize("data", ["none.mat", "NYU.MAT", "synthetic", "motorcycle"])
def test_values_are_those_of_a_folder_only(data):
    with pytest.raises(UsageError, match=rf"^{data}: --invalid is for the files of a folder of pairs; expected"):
        open_dataset(data, "test", (65535,))


def test_splits_of_a_plain_folder(tmp_path):
    for number in range(40):
        write(tmp_path / f"{number}_rgb.png", colours())
        write(tmp_path / f"{number}_depth.png", integers())
    names = {split: PairFolder(tmp_path, split).names for split in ("all", "train", "val", "test")}
    assert names["all"] == names["test"]
    assert sorted(names["train"] + names["val"]) == sorted(names["all"])
    assert all(is_validation_scene(name) for name in names["val"])
    assert not any(is_validation_scene(name) for name in names["train"])
    with pytest.raises(ValueError, match="split 'dev' is unknown"):
        PairFolder(tmp_path, "dev")


@pytest.mark.parametrize(("count", "chosen"), [(0, []), (1, ["0"]), (3, ["0", "2", "4"]), (7, list("0123456"))])
def test_some_pairs_are_evenly_spread(tmp_path, count, chosen):
    for number in range(7):
        write(tmp_path / f"{number}_rgb.png", colours())
        write(tmp_path / f"{number}_depth.png", integers() + number)
    pairs = PairFolder(tmp_path)
    some = SomePairs(pairs, count)
    assert (some.names, len(some)) == (chosen, count)
    part = f", {count} of 7 images" if count < 7 else ""
    assert some.title == f"{pairs.title}{part}" and some.unit == pairs.unit
    assert some.all is pairs and SomePairs(pairs, 99).names == pairs.names
    assert all(some[i].name == name and some.scenes[i] == name for i, name in enumerate(chosen))


def test_joined_pairs_follow_each_other(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}_rgb.png", colours())
        write(tmp_path / f"{number}_depth.png", integers() + number)
    pairs = PairFolder(tmp_path)
    joined = JoinedPairs(pairs, SomePairs(pairs, 2))
    assert [joined[n].name for n in range(-len(joined), 0)] == joined.names
    assert joined.title == f"{pairs.title} and {pairs.title}, 2 of 3 images"
    assert (joined.names, joined.scenes, len(joined)) == (["0", "1", "2", "0", "1"], ["0", "1", "2", "0", "1"], 5)
    assert [joined[i].name for i in range(5)] == joined.names
    assert (joined.unit, joined.border) == (pairs.unit, pairs.border)


def test_validation_scenes_never_change():
    held_out = [name for name in (f"kitchen_{n:04d}" for n in range(30)) if is_validation_scene(name)]
    assert held_out == ["kitchen_0011", "kitchen_0018", "kitchen_0019", "kitchen_0025"]


def test_empty_split(tmp_path):
    assert not is_validation_scene("a")
    write(tmp_path / "a_rgb.png", colours())
    write(tmp_path / "a_depth.png", integers())
    refused(tmp_path, str(tmp_path), "holds 1 scene, not for split val", split="val")


@pytest.mark.parametrize("scenes", [["a", "b", "c"], ["kitchen_0011", "kitchen_0018"]])  # none by checksum, all
def test_of_few_scenes_one_is_held_out(tmp_path, scenes):
    for scene in scenes:
        write(tmp_path / f"{scene}_rgb.png", colours())
        write(tmp_path / f"{scene}_depth.png", integers())
    assert len({is_validation_scene(scene) for scene in scenes}) == 1
    train, val = (PairFolder(tmp_path, split).names for split in ("train", "val"))
    assert len(val) == 1 and sorted(train + val) == scenes


def test_folders_without_pairs(tmp_path):
    refused(tmp_path / "none", "no such folder")
    refused(tmp_path, str(tmp_path), "holds no pairs", "<name>_rgb.*", "<name>_depth.*", "<name>_disp.*")
    (tmp_path / "nyuv2").mkdir()
    refused(tmp_path, "only folders (nyuv2)")


def test_partners_are_needed(tmp_path):
    write(tmp_path / "a_rgb.png", colours())
    refused(tmp_path, "a_rgb.png: has no depth")
    write(tmp_path / "a_depth.png", integers())
    write(tmp_path / "b_depth.png", integers())
    refused(tmp_path, "b_depth.png: has no RGB")
    (tmp_path / "b_depth.png").unlink()
    np.save(tmp_path / "a_depth.npy", integers())
    refused(tmp_path, "a_depth.png: has the same name as a_depth.npy")


def test_one_kind_in_a_folder(tmp_path):
    for name, ending in (("a", "depth"), ("b", "disp")):
        write(tmp_path / f"{name}_rgb.png", colours())
        write(tmp_path / f"{name}_{ending}.png", integers())
    refused(tmp_path, "both depth and disparity")


def test_sizes_must_agree(tmp_path):
    write(tmp_path / "a_rgb.png", colours())
    write(tmp_path / "a_depth.png", integers()[:, :-1])
    refused(tmp_path, "a_depth.png: is 23x16 pixels but a_rgb.png is 24x16, expected equal sizes")


def test_manifest_gives_scale_and_scene(tmp_path):
    folder = manifest(tmp_path, "own", ["a", "b"], ["kitchen", "bath"], scale="5000")
    pairs = PairFolder(folder)
    assert pairs.scenes == ["kitchen", "bath"]
    np.testing.assert_array_equal(pairs[1].depth, integers(1).astype(np.float32) / 5000)
    folder = manifest(tmp_path, "own", ["a"], ["x"], kind="disparity", scale="2")
    pairs = PairFolder(folder)
    assert (pairs.unit, len(pairs)) == ("disparity", 1)
    np.testing.assert_array_equal(pairs[0].depth, integers().astype(np.float32) / 2)


def test_manifest_of_another_folder_is_not_asked(tmp_path):
    manifest(tmp_path, "own", ["a"], ["kitchen"], scale="5000")
    write(tmp_path / "other" / "c_rgb.png", colours())
    write(tmp_path / "other" / "c_depth.png", integers())
    pairs = PairFolder(tmp_path / "other")
    assert pairs.names == pairs.scenes == ["c"]
    np.testing.assert_array_equal(pairs[0].depth, integers().astype(np.float32) / 1000)


def test_manifest_in_the_folder_may_name_any_file_and_one_above_may_be_anything(tmp_path):
    folder = tmp_path / "own"
    write(folder / "color" / "7.png", colours())
    write(folder / "far" / "7.png", integers())
    write(folder / "a_rgb.png", colours())  # not listed
    (folder / "manifest.csv").write_text(
        "set,name,rgb,depth,kind,scale,scene\nown,seven,color/7.png,far/7.png,depth_mm,5000,hall\n"
    )
    (tmp_path / "manifest.csv").write_text("part,count\nscrew,7\n")
    pairs = PairFolder(folder)
    assert (pairs.names, pairs.scenes) == (["seven"], ["hall"])
    np.testing.assert_array_equal(pairs[0].depth, integers().astype(np.float32) / 5000)
    (folder / "manifest.csv").unlink()
    write(folder / "a_depth.png", integers())
    assert PairFolder(folder).names == ["a"]


def test_a_scale_that_makes_no_metres_is_doubted_once(tmp_path, caplog):
    pairs = PairFolder(manifest(tmp_path, "own", ["a", "b"], ["x", "y"], scale="1"))
    assert [np.isfinite(pairs[i].depth).all() for i in (0, 1)] == [True, True]
    caplog.clear()
    pairs = PairFolder(tmp_path / "own")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(pairs.__getitem__, (0, 0, 0, 0)))
    (record,) = caplog.records
    assert "a_depth.png: its median is " in record.getMessage()
    assert record.getMessage().endswith(" m; is the scale of manifest.csv right?")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_among_the_pairs_is_refused(tmp_path):
    folder = manifest(tmp_path, "own", ["a", "b"], ["s", "t"])
    (tmp_path / "manifest.csv").unlink()
    (folder / "b_rgb.png").unlink()
    os.mkfifo(folder / "b_rgb.png")
    refused(folder, "b_rgb.png: is no file, expected one")


def test_bad_manifests(tmp_path):
    for changes, word in (
        ({"kind": "depth"}, "of kind 'depth', expected depth_mm or disparity"),
        ({"scale": "much"}, "scale 'much', expected a number > 0"),
        ({"scale": "0"}, "scale '0', expected a number > 0"),
        ({"depth": "own/none.png"}, "none.png: no such file"),
    ):
        refused(manifest(tmp_path, "own", ["a"], ["s"], **changes), word)
    folder = manifest(tmp_path, "own", ["a"], ["s"])
    listing = tmp_path / "manifest.csv"
    text = listing.read_text()
    listing.write_text(text.replace("scene", "room"))
    refused(folder, "manifest.csv: lacks column scene")
    listing.write_text(text + "own,b,own/b_rgb.png\n")
    refused(folder, "the line of 'b' lacks cells")
    listing.write_text(text + text.splitlines()[1].replace("own,a", "second,a") + "\n")
    refused(folder, "lists sets own, second")
    listing.write_text(text + text.splitlines()[1] + "\n")
    refused(folder, "lists own/a_rgb.png twice")
    listing.write_text(text + text.splitlines()[1].replace("own/a_rgb.png", "./own/a_rgb.png") + "\n")
    refused(folder, "lists ./own/a_rgb.png twice")
    listing.write_text(text.splitlines()[0] + "\n" + text.splitlines()[1].rsplit(",", 1)[0] + ",\n")
    refused(folder, "the line of 'a' has no scene")
    other_rgb = text.splitlines()[1].replace("own/a_rgb.png", "own/b_rgb.png")
    listing.write_text(text + other_rgb + "\n")
    refused(folder, "lists the name a twice")
    (folder / "manifest.csv").write_text(text.splitlines()[0] + "\n")
    refused(folder, "manifest.csv: lists no pair")
    (folder / "manifest.csv").write_text(text.replace(",", ";"))
    refused(folder, "expected depth, kind, name, rgb, scale, scene, set with commas between them")
    (folder / "manifest.csv").unlink()
    listing.write_bytes(b"\xff\xfe\x00")
    refused(folder, "manifest.csv: cannot be read")


def test_nyuv2_splits(tmp_path):
    names = [f"{index:04d}" for index in (*range(0, 60), *range(1000, 1010))]
    scenes = [f"room_{int(name) // 3:04d}" for name in names]
    folder = manifest(tmp_path, "nyuv2", names, scenes)
    train, val, test = (PairFolder(folder, split) for split in ("train", "val", "test"))
    assert [len(train) + len(val), len(test), train.border] == [60, 10, 6]
    assert not set(train.scenes) & set(val.scenes)
    assert all(int(name) >= 1000 for name in test.names)
    assert test.title == "NYU Depth v2, split test"


def test_nyuv2_without_test_part(tmp_path):
    folder = manifest(tmp_path, "nyuv2", ["0001", "0002"], ["a", "b"])
    refused(folder, str(folder), "all 2 pairs are of the training part", "use --split val", split="test")
    refused(manifest(tmp_path, "nyuv2", ["x"], ["a"]), "named 'x', expected its official index")


@pytest.mark.parametrize("set_name", ["middlebury", "lu"])
def test_sets_for_checking_only(tmp_path, set_name):
    folder = manifest(tmp_path, set_name, ["a"], ["s"], kind="disparity", scale="1")
    assert PairFolder(folder, "test").names == PairFolder(folder).names == ["a"]
    for split in ("train", "val"):
        refused(folder, f"set {set_name} is for checking only", split=split)


def test_open_dataset(tmp_path):
    write(tmp_path / "a_rgb.png", colours())
    write(tmp_path / "a_depth.png", integers())
    assert open_dataset(str(tmp_path), "test").names == ["a"]
    with pytest.raises(InputError, match=r"none: no such file or folder, expected a folder of pairs, nyu_depth_v2"):
        open_dataset(str(tmp_path / "none"), "test")
    with pytest.raises(InputError, match=r"a_rgb.png: is a file, expected a folder"):
        open_dataset(tmp_path / "a_rgb.png", "test")
    with pytest.raises(InputError, match=r"none.mat: no such file"):
        open_dataset(tmp_path / "none.mat", "test")


def test_motorcycle_needs_no_network(monkeypatch):
    def no_network(*arguments, **options):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", no_network)
    pairs = open_dataset("motorcycle", "test")
    assert (len(pairs), pairs.names, pairs.unit, pairs.border) == (1, ["motorcycle"], "m", 0)
    pair = pairs[0]
    assert (pair.rgb.shape, pair.rgb.dtype, pair.depth.shape) == ((500, 741, 3), np.uint8, (500, 741))
    assert pair.depth.dtype == np.float32
    assert np.isnan(pair.depth).mean() == pytest.approx(0.0735, abs=1e-3)
    assert np.nanmin(pair.depth) == pytest.approx(994.978 * 0.193001 / (59.90896 + 31.086), rel=1e-5)
    assert np.nanmax(pair.depth) == pytest.approx(994.978 * 0.193001 / (7.1913557 + 31.086), rel=1e-5)
    with pytest.raises(InputError, match="one pair for checking only: no split train"):
        open_dataset("motorcycle", "train")
    with pytest.raises(IndexError):
        pairs[1]


def test_motorcycle_that_is_not_there(monkeypatch):
    def fetch():
        raise ModuleNotFoundError("pooch")

    monkeypatch.setattr("skimage.data.stereo_motorcycle", fetch)
    with pytest.raises(InputError, match="motorcycle: the installed scikit-image cannot give it"):
        motorcycle()


@needs_real
def test_real_nyuv2():
    everything, train, val = (PairFolder(REAL / "nyuv2", split) for split in ("all", "train", "val"))
    assert (len(everything), len(set(everything.scenes))) == (800, 297)
    assert len(train) + len(val) == 800
    assert not set(train.scenes) & set(val.scenes)
    pair = val[0]
    assert (pair.rgb.shape, pair.depth.shape) == ((480, 640, 3), (480, 640))
    assert 0.3 < np.nanmin(pair.depth) < np.nanmax(pair.depth) < 11
    refused(REAL / "nyuv2", "all 800 pairs are of the training part", split="test")


@needs_real
@pytest.mark.parametrize(("set_name", "count"), [("middlebury", 15), ("lu", 4)])
def test_real_disparity(set_name, count):
    pairs = PairFolder(REAL / set_name, "test")
    assert (len(pairs), pairs.unit, pairs.border) == (count, "disparity", 0)
    assert np.nanmax(pairs[0].depth) <= 255


def test_a_manifest_with_a_byte_order_mark(tmp_path):
    folder = manifest(tmp_path, "mine", ["a"], ["a"])
    table = tmp_path / "manifest.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert PairFolder(folder).names == ["a"]


def test_hidden_files_are_no_pairs(tmp_path):
    for name in ("a_rgb.png", "._a_rgb.png"):
        write(tmp_path / name, colours())
    for name in ("a_depth.png", "._a_depth.png"):
        write(tmp_path / name, integers())
    assert PairFolder(tmp_path).names == ["a"]


def test_names_that_are_no_unicode(tmp_path):
    for n in range(4):
        stem = os.fsdecode(b"%d\xff" % n)
        write(tmp_path / "x_rgb.png", colours())
        (tmp_path / "x_rgb.png").rename(tmp_path / f"{stem}_rgb.png")
        write(tmp_path / "x_depth.png", integers())
        (tmp_path / "x_depth.png").rename(tmp_path / f"{stem}_depth.png")
    train, val = PairFolder(tmp_path, "train"), PairFolder(tmp_path, "val")
    assert len(train) + len(val) == 4
    scores = evaluate(val, 2, "dkn", "nearest", sensor=STANDARD_SENSOR)
    write_csv(tmp_path / "scores.csv", [scores])
    assert os.fsencode(val.names[0]) in (tmp_path / "scores.csv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "mm"}, "own: its unit is 'mm', expected 'm' or 'disparity'"),
        ({"scenes": ["s"]}, "own: has 2 pairs, 2 names and 1 scenes; expected one of each for every pair"),
    ],
)
def test_data_sets_of_ones_own_are_checked(changes, message):
    class Own:
        title, names, scenes, unit, border = "own", ["a", "b"], ["s", "t"], "m", 0

        def __len__(self):
            return 2

    own = Own()
    check_dataset(own, to_train=True)
    for name, value in changes.items():
        setattr(own, name, value)
    with pytest.raises(InputError, match=message):
        check_dataset(own, to_train=True)


def test_what_lacks_facts_of_a_data_set_is_refused():
    class Own:
        title, unit = "own", "m"

    with pytest.raises(TypeError, match=r"expected a data set, .*; it lacks border, names, scenes"):
        check_dataset(Own(), to_train=True)
