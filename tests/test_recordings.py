"""Pairs of two folders, and every layout of a recording; nothing is paired by guess or dropped without a word."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthup.data import (
    Camera,
    Frame,
    InputError,
    Recording,
    UsageError,
    open_recording,
    pair_folders,
    read_depth,
    read_rgb,
    with_maps,
)
from depthup.data.pairing import OUTPUT_MARK

DEPTH = np.full((2, 3), 1500, np.uint16)
RGB = np.full((4, 6, 3), 90, np.uint8)


def make(folder: Path, *names: str) -> Path:
    """Files below a folder: images by what their endings and names say, anything else empty."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png", ".pgm"):
            assert cv2.imwrite(str(path), DEPTH if "depth" in str(path.relative_to(folder)).lower() else RGB)
        elif path.suffix == ".npy":
            np.save(path, DEPTH)
        else:
            path.touch()
    return folder


@pytest.fixture
def two(tmp_path):
    """Makes two folders of images and pairs them; gives pairs by file name, and names of unpaired files."""

    def pair(rgb: str, depth: str, **options) -> tuple[dict[str, str], list[str]]:
        make(tmp_path / "colour", *rgb.split())
        for name in depth.split():
            make(tmp_path / "depth", name)
        recording = pair_folders(tmp_path / "colour", tmp_path / "depth", **options)
        pairs = {frame.rgb.name: frame.depth.name for frame in recording.frames}
        assert len(pairs) == len(recording.frames)
        return pairs, [path.name for path in recording.unpaired]

    return pair


@pytest.mark.parametrize(
    ("rgb", "depth", "expected"),
    [
        ("a.jpg b.jpg", "a.png b.npy", {"a.jpg": "a.png", "b.jpg": "b.npy"}),
        ("a_rgb.png b_rgb.png", "a_depth.png b_depth.png", {"a_rgb.png": "a_depth.png", "b_rgb.png": "b_depth.png"}),
        ("a_rgb.png", "a_depth.png", {"a_rgb.png": "a_depth.png"}),
        ("rgb_0001.png", "depth_0001.png", {"rgb_0001.png": "depth_0001.png"}),
        ("rgb0001.png", "Depth0001.png", {"rgb0001.png": "Depth0001.png"}),
        ("0001.color.png", "0001.depth.png", {"0001.color.png": "0001.depth.png"}),
        ("f-1.color.jpg f-2.color.jpg", "f-2.depth.png", {"f-2.color.jpg": "f-2.depth.png"}),
        ("cam_0001.png cam_0002.png", "tof_0002.png", {"cam_0002.png": "tof_0002.png"}),
        ("k2_0009.jpg k2_0010.jpg", "s4_left_0009.png s4_left_0010.png", {"k2_0009.jpg": "s4_left_0009.png"}),
        ("img7.png img12.png", "tof7.png tof12.png", {"img7.png": "tof7.png", "img12.png": "tof12.png"}),
        ("1-cat-l.png 1-car-l.png", "1-cat-t.png 1-car-t.png", {"1-cat-l.png": "1-cat-t.png"}),
        (
            "rgb_00045.jpg rgb_00046.jpg",
            "sync_depth_00045.png sync_depth_00046.png",
            {"rgb_00045.jpg": "sync_depth_00045.png"},
        ),
    ],
)
def test_names(two, rgb, depth, expected):
    pairs, _ = two(rgb, depth)
    assert expected.items() <= pairs.items()
    assert len(pairs) == min(len(rgb.split()), len(depth.split()))


def test_sub_folders_must_be_the_same(tmp_path):
    make(tmp_path / "colour", "s1/0.jpg", "s1/1.jpg", "s2/0.jpg", "9.jpg")
    make(tmp_path, *(f"depth/{name}" for name in ("s1/0.png", "s2/0.png", "s3/0.png", "s1/9.png")))
    recording = pair_folders(tmp_path / "colour", tmp_path / "depth")
    assert [frame.name for frame in recording.frames] == ["s1/0", "s2/0"]
    assert [frame.depth for frame in recording.frames] == [tmp_path / "depth" / s / "0.png" for s in ("s1", "s2")]
    assert sorted(path.name for path in recording.unpaired) == ["0.png", "1.jpg", "9.jpg", "9.png"]


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    make(tmp_path, *(f"rgb/{n}.jpg" for n in (10, 9, 100)), *(f"depth/{n}.png" for n in (10, 9, 100)))
    names = [frame.name for frame in pair_folders(tmp_path / "rgb", tmp_path / "depth").frames]
    assert names == ["9", "10", "100"]


def test_time_stamps(two):
    rgb = "1305031102.175304.png 1305031102.211214.png 1305031102.243211.png 1305031103.000000.png"
    depth = "1305031102.160407.png 1305031102.226738.png 1305031102.262886.png 1305031103.020001.png"
    pairs, unpaired = two(rgb, depth)
    assert pairs == {
        "1305031102.175304.png": "1305031102.160407.png",
        "1305031102.211214.png": "1305031102.226738.png",
        "1305031102.243211.png": "1305031102.262886.png",
    }
    assert unpaired == ["1305031103.000000.png", "1305031103.020001.png"]


def test_a_depth_map_is_used_once_by_the_nearest(two):
    pairs, unpaired = two("1.000.png 1.010.png 1.015.png", "1.012.png")
    assert pairs == {"1.010.png": "1.012.png"}
    assert unpaired == ["1.000.png", "1.015.png"]


def test_the_difference_is_exact_and_can_be_set(two):
    stamps = "1305031102.195.png 1305031109.100.png", "1305031102.175.png 1305031109.150.png"
    assert two(*stamps)[0] == {"1305031102.195.png": "1305031102.175.png"}  # 0.02 in decimals, not in floats
    assert len(two(*stamps, maximal_difference=0.05)[0]) == 2
    with pytest.raises(InputError, match=r"or time stamps at most 0.01 s apart"):
        two(*stamps, maximal_difference=0.01)


@pytest.mark.parametrize("rest", ["000", "000000", "000000000"])
def test_times_in_whole_parts_of_seconds(two, rest):
    """Milliseconds, microseconds, nanoseconds (ROS)."""
    near, far = f"1700000000{rest}", f"1700000007{rest}"
    other = f"1700000000{'010'}{rest[3:]}"
    assert two(f"{near}.png {far}.png", f"{other}.png 1700000008{rest}.png")[0] == {f"{near}.png": f"{other}.png"}


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path / "elsewhere", "rgb/b.png", "depth/b.png")
    make(tmp_path / "here", "rgb/a.png", "depth/a.png")
    for side in ("rgb", "depth"):
        (tmp_path / "here" / side / "more").symlink_to(tmp_path / "elsewhere" / side)
        (tmp_path / "elsewhere" / side / "back").symlink_to(tmp_path / "here" / side)
    recording = open_recording(tmp_path / "here")
    assert [frame.name for frame in recording.frames] == ["a", "more/b"]


def test_a_folder_that_cannot_be_read_is_warned_of(tmp_path, monkeypatch, caplog):
    make(tmp_path, "rgb/a.png", "depth/a.png", "rgb/closed/b.png", "depth/closed/b.png")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # tests may run as root, whom nothing is refused
    assert [frame.name for frame in open_recording(tmp_path).frames] == ["a"]
    assert {record.getMessage() for record in caplog.records} == {
        f"{tmp_path / side / 'closed'}: cannot be read (Permission denied) and is left out" for side in ("rgb", "depth")
    }


def test_times_know_milliseconds(tmp_path, two):
    two("r_Color_1571400000123.45.png", "r_Depth_1571400000131.00.png r_Depth_1571400000150.00.png")
    (frame,) = pair_folders(tmp_path / "colour", tmp_path / "depth").frames
    assert frame.depth.name == "r_Depth_1571400000131.00.png"
    assert frame.timestamp == pytest.approx(1571400000.12345, abs=1e-6)


@pytest.mark.parametrize(
    ("rgb", "depth", "named"),
    [
        ("a.png a.jpg", "a.png", ["a.jpg", "a.png", "both fit"]),
        ("a.png", "a.png a.npy", ["a.npy", "a.png", "both fit"]),
        ("a_rgb.png a_color.png", "a_depth.png", ["a_rgb.png", "a_color.png"]),
        ("1.01.png 1.01.jpg 2.5.png", "1.02.png 2.51.png", ["1.01.jpg", "1.01.png", "same time stamp"]),
    ],
)
def test_ambiguous_pairs_are_an_error_that_names_both(two, rgb, depth, named):
    with pytest.raises(InputError) as caught:
        two(rgb, depth)
    assert all(name in str(caught.value) for name in named)
    assert "\n" not in str(caught.value)


def test_no_pair_in_swapped_folders(tmp_path):
    make(tmp_path, "depth/1.png", "colour/1.jpg", "colour/2.jpg")
    with pytest.raises(
        InputError, match=r"2 images \(1.jpg, …\) are where depth should be: .* folders swapped"
    ) as caught:
        pair_folders(tmp_path / "depth", tmp_path / "colour")
    assert "\n" not in str(caught.value)
    make(tmp_path, "photographs/1.jpg")
    with pytest.raises(InputError, match="no pair among") as caught:  # depth is not in the other folder either
        pair_folders(tmp_path / "photographs", tmp_path / "colour")
    assert "folders swapped?" not in str(caught.value)


def test_no_pair(tmp_path, two):
    for rgb, depth, part in (("a.png", "b.png", "1 images (a.png, …)"), ("", "b.png", "0 images")):
        (tmp_path / "colour").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="no pair among") as caught:
            two(rgb, depth)
        if rgb:
            assert part in str(caught.value)


def test_bad_folders(tmp_path):
    make(tmp_path, "rgb/0.png", "file")
    with pytest.raises(InputError, match="none: no such folder"):
        pair_folders(tmp_path / "rgb", tmp_path / "none")
    with pytest.raises(InputError, match="file: is a file"):
        pair_folders(tmp_path / "file", tmp_path / "rgb")
    with pytest.raises(InputError, match="given for RGB and for depth"):
        pair_folders(tmp_path / "rgb", tmp_path / "rgb" / ".." / "rgb")


def test_hidden_files_and_other_files_are_not_images(two):
    pairs, unpaired = two("0.jpg ._0.jpg .trash/1.jpg notes.txt", "0.png .0.77.png Thumbs.db")
    assert (pairs, unpaired) == ({"0.jpg": "0.png"}, [])


def test_a_folder_inside_the_other(tmp_path):
    make(tmp_path, "0.jpg", "1.jpg", "depth/0.png", "depth/1.png")
    recording = pair_folders(tmp_path, tmp_path / "depth")
    assert [frame.rgb.name for frame in recording.frames] == ["0.jpg", "1.jpg"]
    assert recording.unpaired == ()


def test_results_inside_an_input_folder_are_no_inputs(tmp_path):
    make(tmp_path, "rgb/a.png", "depth/a.png", "depth/out/a.png", "depth/out/b.png", "rgb/earlier/sub/a.png")
    make(tmp_path / "rgb" / "earlier", OUTPUT_MARK)
    recording = pair_folders(tmp_path / "rgb", tmp_path / "depth", tmp_path / "depth" / "out")
    assert [(frame.rgb, frame.depth) for frame in recording.frames] == [
        (tmp_path / "rgb" / "a.png", tmp_path / "depth" / "a.png")
    ]
    assert recording.unpaired == ()
    for place in ("rgb", "depth"):
        with pytest.raises(InputError, match="is the folder of the inputs"):
            pair_folders(tmp_path / "rgb", tmp_path / "depth", tmp_path / place)


@pytest.mark.parametrize(
    ("kind", "names", "left"),
    [
        ("mask", {"1": "0001.png", "2": "0002.npy"}, ["0003.png"]),
        ("mask", {"1": "0001_mask.png", "2": "0002_mask.png"}, []),
        ("confidence", {"1": "conf_0001.bin", "2": "conf_0002.bin"}, []),
        ("confidence", {"2": "depth_0002.png"}, ["depth_9.png"]),
    ],
)
def test_maps_are_paired_with_depth(tmp_path, kind, names, left):
    make(tmp_path, *(f"rgb/r{n}.jpg" for n in (1, 2)), *(f"depth/depth_000{n}.png" for n in (1, 2)), "rgb/alone.jpg")
    frames = [Frame(n, tmp_path / f"rgb/r{n}.jpg", tmp_path / f"depth/depth_000{n}.png") for n in "12"]
    recording = Recording("", tuple(frames), (tmp_path / "rgb" / "alone.jpg",))
    make(tmp_path, *(f"maps/{name}" for name in [*names.values(), *left]))
    found = with_maps(recording, tmp_path / "maps", kind)
    assert {f.name: getattr(f, kind).name for f in found.frames if getattr(f, kind)} == names
    assert [path.name for path in found.unpaired] == [*left, "alone.jpg"]


def test_maps_of_sub_folders(tmp_path):
    make(tmp_path, *(f"{kind}/{s}/0.png" for kind in ("rgb", "depth", "masks") for s in ("s1", "s2")))
    found = with_maps(pair_folders(tmp_path / "rgb", tmp_path / "depth"), tmp_path / "masks", "mask")
    assert [frame.mask for frame in found.frames] == [tmp_path / "masks" / s / "0.png" for s in ("s1", "s2")]


def test_maps_that_fit_nothing(tmp_path):
    make(tmp_path, "rgb/1.jpg", "depth/1.png", "masks/2.png")
    recording = pair_folders(tmp_path / "rgb", tmp_path / "depth")
    with pytest.raises(InputError, match=r"masks: no mask among 1 images \(2.png, …\) belongs to one of 1 images"):
        with_maps(recording, tmp_path / "masks", "mask")
    make(tmp_path, "masks/1.png", "masks/1.npy")
    with pytest.raises(InputError, match="both fit"):
        with_maps(recording, tmp_path / "masks", "mask")


TUM_RGB = "# color images\n# timestamp filename\n1.0 rgb/1.0.png\n1.1 rgb/1.1.png\n1.2 rgb/1.2.png\n"
TUM_DEPTH = "# depth maps\n1.01 depth/1.01.png\n1.095 depth/1.095.png\n1.5 depth/1.5.png\n"


def make_tum(folder: Path) -> Path:
    make(folder, *(f"rgb/{t}.png" for t in (1.0, 1.1, 1.2)), *(f"depth/{t}.png" for t in (1.01, 1.095, 1.5)))
    (folder / "rgb.txt").write_text(TUM_RGB)
    (folder / "depth.txt").write_text(TUM_DEPTH)
    return folder


def test_tum(tmp_path):
    recording = open_recording(make_tum(tmp_path))
    assert recording.title == f"TUM RGB-D recording {tmp_path}"
    assert recording.depth_unit == "tum"
    assert recording.frames == (
        Frame("1.0", tmp_path / "rgb/1.0.png", tmp_path / "depth/1.01.png", timestamp=1.0),
        Frame("1.1", tmp_path / "rgb/1.1.png", tmp_path / "depth/1.095.png", timestamp=1.1),
    )
    assert recording.unpaired == (tmp_path / "depth/1.5.png", tmp_path / "rgb/1.2.png")
    assert len(open_recording(tmp_path, maximal_difference=0.3).frames) == 3


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", ["associations.txt", "associate.txt"])
def test_tum_associations(tmp_path, swapped, name):
    make_tum(tmp_path)
    columns = [("1.0 rgb/1.0.png", "1.5 depth/1.5.png"), ("1.2 rgb/1.2.png", "1.01 depth/1.01.png")]
    (tmp_path / name).write_text("".join(" ".join(row[::-1] if swapped else row) + "\n" for row in columns))
    recording = open_recording(tmp_path)
    assert [(f.name, f.rgb.name, f.depth.name, f.timestamp) for f in recording.frames] == [
        ("1.0", "1.0.png", "1.5.png", 1.0),
        ("1.2", "1.2.png", "1.01.png", 1.2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0\n", "too short"),
        ("one rgb/1.0.png\n", "'one' is no time stamp"),
        ("1.0 ../secret.png\n", "outside"),
        ("1.0 C:/secret.png\n", "lists the absolute path C:/secret.png"),
        ("1.0 ..\\secret.png\n", "outside"),
        ("1.0 /etc/passwd\n", "lists the absolute path /etc/passwd, expected paths below"),
        ("1.0 rgb/a.png\n1.1 rgb/a.jpg\n", "different names"),
        ("1.0 rgb/1.0.png\n1.1 rgb/1.0.png\n", "1.0.png with two time stamps, expected one of them"),
    ],
)
def test_bad_tum_lists(tmp_path, text, message):
    make_tum(tmp_path)
    (tmp_path / "rgb.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_recording(tmp_path)


def test_a_listed_file_that_is_missing_stays_a_frame(tmp_path):
    make_tum(tmp_path)
    (tmp_path / "depth/1.01.png").unlink()
    assert len(open_recording(tmp_path).frames) == 2  # and fails when it is read


def test_scannet(tmp_path):
    make(tmp_path, *(f"color/{n}.jpg" for n in range(11)), *(f"depth/{n}.png" for n in range(11)), "pose/0.txt")
    (tmp_path / "intrinsic").mkdir()
    matrix = np.array([[1170.2, 0, 647.7, 0], [0, 1171.1, 483.8, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_color.txt", matrix)
    recording = open_recording(tmp_path)
    assert recording.title == f"ScanNet export {tmp_path}"
    assert (len(recording.frames), recording.unpaired, recording.depth_unit) == (11, (), "mm")
    assert recording.frames[0].camera == Camera(1170.2, 1171.1, 647.7, 483.8)


SENS_INFO = """m_versionNumber = 4
m_sensorName = StructureSensor
m_colorWidth = 6
m_colorHeight = 4
m_depthShift = 1000
m_calibrationColorIntrinsic = 5 0 2.5 0 0 5.5 1.5 0 0 0 1 0 0 0 0 1
"""


def test_scannet_and_3rscan_as_images_in_one_folder(tmp_path):
    """Names, `.pgm` and `_info.txt` of ScanNet's SensReader in C++, which 3RScan's sequences have, too."""
    names = [f"frame-{n:06}" for n in (0, 1, 10)]
    make(tmp_path, *(f"{name}.{end}" for name in names for end in ("color.jpg", "depth.pgm", "pose.txt")))
    (tmp_path / "_info.txt").write_text(SENS_INFO)
    recording = open_recording(tmp_path)
    assert recording.title == f"ScanNet or 3RScan export {tmp_path}"
    assert [frame.depth.name for frame in recording.frames] == [f"{name}.depth.pgm" for name in names]
    assert (recording.unpaired, recording.depth_unit) == ((), "mm")
    assert recording.frames[2].camera == Camera(5.0, 5.5, 2.5, 1.5, 6, 4)
    assert (read_depth(recording.frames[0].depth) == 1.5).all()


@pytest.mark.parametrize(
    ("line", "other", "fault"),
    [
        ("m_calibrationColorIntrinsic = 5 0", "m_calibrationColorIntrinsic = 5 five", "has no numbers at one of"),
        ("m_colorWidth = 6\n", "", "has no numbers at one of"),
        (" 0 0 0 1\n", "\n", "m_calibrationColorIntrinsic: the camera matrix has 12 numbers, expected 3x3 or 4x4"),
        ("m_colorWidth = 6", "m_colorWidth = 6 4", "m_colorWidth or m_colorHeight is more than a number"),
        ("m_colorWidth = 6", "m_colorWidth = 6.5", "m_calibrationColorIntrinsic: the image size is 6.5 x 4"),
        ("Intrinsic = 5 0", "Intrinsic = 5 2", "m_calibrationColorIntrinsic: the camera matrix has skew (2)"),
        ("Intrinsic = 5 0", "Intrinsic = 5 nan", "m_calibrationColorIntrinsic: the camera matrix has skew (nan)"),
    ],
)
def test_bad_camera_in_info_of_scannet(tmp_path, line, other, fault):
    make(tmp_path, "frame-000000.color.jpg", "frame-000000.depth.pgm")
    (tmp_path / "_info.txt").write_text(SENS_INFO.replace(line, other))
    (frame,) = open_recording(tmp_path).frames
    assert frame.camera is None and frame.camera_fault.startswith(f"{tmp_path / '_info.txt'}: {fault}")


def test_depth_of_another_view_than_colour_is_doubted(tmp_path):
    """ScanNet's two cameras see nearly the same; 3RScan's phone has a wide picture and depth that is nearly square."""
    make(tmp_path, "frame-000000.color.jpg", "frame-000000.depth.pgm")
    cameras = [
        ((1296, 968, 1170.19, 647.75, 483.75), (640, 480, 577.87, 319.5, 239.5)),
        ((960, 540, 756.83, 492.89, 270.42), (224, 172, 176.59, 114.98, 86.5)),
    ]
    for (colour, depth), warned in zip(cameras, (False, True), strict=True):
        text = "m_depthShift = 1000\n"
        for side, (width, height, f, cx, cy) in (("Color", colour), ("Depth", depth)):
            text += f"m_{side.lower()}Width = {width}\nm_{side.lower()}Height = {height}\n"
            text += f"m_calibration{side}Intrinsic = {f} 0 {cx} 0 0 {f} {cy} 0 0 0 1 0 0 0 0 1\n"
        (tmp_path / "_info.txt").write_text(text)
        recording = open_recording(tmp_path)
        assert recording.frames[0].camera
        assert bool(recording.other_view) == warned
    assert "depth shows another part of the scene" in recording.other_view
    assert recording.other_view.endswith("--depth-intrinsics 176.59,176.59,114.98,86.5")


def test_an_rgb_image_is_associated_once(tmp_path):
    make_tum(tmp_path)
    (tmp_path / "associations.txt").write_text("1.0 rgb/1.0.png 1.0 depth/1.0.png\n1.0 rgb/1.0.png 1.1 depth/1.1.png\n")
    with pytest.raises(InputError, match=r"lists .*1\.0\.png with 1\.0\.png and with 1\.1\.png, expected one of them"):
        open_recording(tmp_path)


@pytest.mark.parametrize(("name", "hint"), [("scene.sens", "SensReader"), ("a.mkv", "a video"), ("b.bag", "a ROS bag")])
def test_a_folder_with_a_container_says_what_to_export(tmp_path, name, hint):
    make(tmp_path, name, "scene.txt")
    with pytest.raises(InputError, match=rf"{name}: a.*{hint}|{name}: {hint}") as caught:
        open_recording(tmp_path)
    assert "expected the folder of a recording" in str(caught.value)


@pytest.mark.parametrize(("shift", "found"), [("m_depthShift = 4000", "4000"), ("", "missing")])
def test_scannet_of_another_unit_is_refused(tmp_path, shift, found):
    make(tmp_path, "frame-000000.color.jpg", "frame-000000.depth.pgm")
    (tmp_path / "_info.txt").write_text(SENS_INFO.replace("m_depthShift = 1000", shift))
    with pytest.raises(InputError, match=f"m_depthShift is {found}, expected 1000"):
        open_recording(tmp_path)


def test_intrinsics_of_no_camera_name_their_file(tmp_path):
    make(tmp_path, "color/00000.jpg", "depth/00000.png")
    place = tmp_path / "intrinsic.json"
    for facts, fault in (
        ({"intrinsic_matrix": [0, 0, 0, 0, 611, 0, 320, 240, 1]}, "camera: focal length fx is 0"),
        ({"intrinsic_matrix": [610, 0, 0, 0, "611", 0, 320, 240, 1]}, "its intrinsics are not numbers"),
        ({"intrinsic_matrix": [610, 0, 0, 9, 611, 0, 320, 240, 1]}, "the camera matrix has skew (9)"),
        ({"intrinsic_matrix": [610, 0, 320, 9, 611, 240, 0, 0, 1]}, "the camera matrix has skew (9)"),
        ({"intrinsic_matrix": [610, 0, 320, 0, 611, 240, 0, 0, 2]}, "the last row of the camera matrix is 0 0 2"),
        ({"intrinsic_matrix": {"fx": 610}}, "its intrinsics are not numbers"),
        ({"intrinsic_matrix": [610, 611, 320, 240], "width": 640.5, "height": 480}, "the image size is 640.5 x 480"),
        ({"intrinsic_matrix": [610, 611, 320, 240], "width": 640}, "width and height are 640 and None"),
        ([], "holds no JSON object"),
    ):
        place.write_text(json.dumps(facts))
        (frame,) = open_recording(tmp_path).frames  # what does not need the camera goes on
        assert frame.camera is None
        assert frame.camera_fault.startswith(f"{place}: {fault}")


@pytest.mark.parametrize(
    ("place", "title"),
    [("intrinsic.json", "Azure Kinect recording"), ("camera_intrinsic.json", "RealSense recording")],
)
def test_open3d(tmp_path, place, title):
    make(tmp_path, "color/00000.jpg", "depth/00000.png")
    columns = [610.0, 0, 0, 0, 611.0, 0, 320.0, 240.0, 1]
    (tmp_path / place).write_text(json.dumps({"width": 640, "height": 480, "intrinsic_matrix": columns}))
    recording = open_recording(tmp_path)
    assert recording.title == f"{title} {tmp_path}"
    assert (recording.frames[0].camera, recording.depth_unit) == (Camera(610.0, 611.0, 320.0, 240.0, 640, 480), "mm")


@pytest.mark.parametrize(
    ("names", "camera_files", "inside"),
    [
        (["color/{}.jpg", "depth/{}.png"], ["intrinsic.json"], "intrinsic_matrix"),
        (["color/{}.jpg", "depth/{}.png"], ["camera_intrinsic.json"], "intrinsic_matrix"),
        (["frame_{:05}.jpg", "depth_{:05}.png"], [f"frame_{n:05}.json" for n in range(3)], "intrinsics"),
        (["rgb/{}.jpg", "depth/{}.exr"], ["metadata.json"], "K"),
    ],
)
def test_lens_distortion_is_warned_of_once(tmp_path, caplog, names, camera_files, inside):
    make(tmp_path, *(name.format(n) for name in names for n in range(3)))
    camera = {inside: [610.0, 0, 0, 0, 611.0, 0, 320.0, 240.0, 1]}
    for coefficients, count in ({"distortion": [0, 0.0]}, 0), ({"k1": 0.1, "dist": {"p2": -0.01}}, 1):
        for name in camera_files:
            (tmp_path / name).write_text(json.dumps(camera | coefficients))
        assert open_recording(tmp_path).frames[2].camera == Camera(610.0, 611.0, 320.0, 240.0)
        assert len(caplog.records) == count
    warned = caplog.records[0].getMessage()
    assert warned.startswith(f"{tmp_path / camera_files[0]}: has lens distortion (dist, k1), which is not applied")


@pytest.mark.parametrize("colour", ["rgb", "color", "images"])
def test_plain_folders(tmp_path, colour):
    recording = open_recording(make(tmp_path, f"{colour}/a.jpg", f"{colour}/b.jpg", "depth/a.png"))
    assert recording.title == f"RGB and depth images in {tmp_path}"
    assert recording.frames == (Frame("a", tmp_path / colour / "a.jpg", tmp_path / "depth" / "a.png"),)
    assert recording.unpaired == (tmp_path / colour / "b.jpg",)
    assert recording.depth_unit == "auto"


def test_azure_kinect_by_device_time(tmp_path):
    make(tmp_path, "color/000000_00000033000.jpg", "color/000001_00000066000.jpg", "infrared/000000_00000033022.jpg")
    make(tmp_path, "depth/000000_00000066022.png")
    recording = open_recording(tmp_path)
    assert recording.title == f"Azure Kinect recording {tmp_path}"
    (frame,) = recording.frames
    assert (frame.rgb.name, frame.timestamp) == ("000001_00000066000.jpg", 0.066)
    assert [path.name for path in recording.unpaired] == ["000000_00000033000.jpg"]


ARKIT = ("41069021_305.244", "41069021_305.261", "41069021_305.278")


@pytest.mark.parametrize("inside", ["", "41069021_frames/"])
def test_arkitscenes(tmp_path, inside):
    make(tmp_path, *(f"{inside}lowres_depth/{name}.png" for name in ARKIT), f"{inside}wide/41069021_305.260.png")
    make(tmp_path, *(f"{inside}lowres_wide/{name}.png" for name in ARKIT))
    make(tmp_path, *(f"{inside}confidence/{name}.png" for name in ARKIT))
    pincam = tmp_path / inside / "wide_intrinsics" / "41069021_305.260.pincam"
    pincam.parent.mkdir()
    pincam.write_text("1920 1440 1600.1 1600.2 960.3 720.4")
    recording = open_recording(tmp_path)
    assert recording.title == f"ARKitScenes recording {tmp_path}, RGB of wide"
    (frame,) = recording.frames
    assert (frame.name, frame.depth.stem, frame.timestamp) == ("41069021_305.260", ARKIT[1], 305.26)
    own, moved = (tmp_path / inside / "confidence" / name for name in (f"{ARKIT[1]}.png", "41069021_305.262.conf"))
    assert frame.confidence == own
    own.rename(moved)
    assert open_recording(tmp_path).frames[0].confidence == moved
    moved.unlink()
    with pytest.raises(InputError, match="no confidence among 2 images"):  # of neighbours, 17 ms away
        open_recording(tmp_path)
    assert frame.camera == Camera(1600.1, 1600.2, 960.3, 720.4, 1920, 1440)
    assert [path.stem for path in recording.unpaired] == [ARKIT[0], ARKIT[2]]
    assert recording.depth_unit == "mm"


@pytest.mark.parametrize(
    ("time", "text", "fault"),
    [
        ("305.259", "1920 1440 1600 1600 960 720", None),  # Apple's differ so from their image's
        ("305.261", "1920 1440 1600 1600 960 720", None),
        ("305.262", "1920 1440 1600 1600 960 720", ""),
        ("305.260", "nan 1440 1600 1600 960 720", "the image size is nan x 1440, expected whole pixels"),
        ("305.260", "inf 1440 1600 1600 960 720", "the image size is inf x 1440, expected whole pixels"),
        ("305.260", "1920.5 1440 1600 1600 960 720", "the image size is 1920.5 x 1440, expected whole pixels"),
        ("305.260", "", "holds 0 numbers, expected width height fx fy cx cy"),
    ],
)
def test_arkitscenes_intrinsics(tmp_path, time, text, fault):
    make(tmp_path, "lowres_depth/41069021_305.261.png", "wide/41069021_305.260.png")
    pincam = tmp_path / "wide_intrinsics" / f"41069021_{time}.pincam"
    pincam.parent.mkdir()
    pincam.write_text(text)
    (frame,) = open_recording(tmp_path).frames
    assert frame.camera == (Camera(1600, 1600, 960, 720, 1920, 1440) if fault is None else None)
    assert frame.camera_fault == (f"{pincam}: {fault}" if fault else "")


def test_3d_scanner_app(tmp_path):
    make(tmp_path, "frame_00000.jpg", "frame_00002.jpg", "info.json", "textured_output.jpg")
    make(tmp_path, *(f"{kind}_{n:05}.png" for kind in ("depth", "conf") for n in range(3)))
    for n in range(3):
        facts = {"intrinsics": [1450.5, 0, 950.25, 0, 1451.5, 715.75, 0, 0, 1], "time": 12.5 + n}
        (tmp_path / f"frame_{n:05}.json").write_text(json.dumps(facts))
    recording = open_recording(tmp_path)
    assert recording.title == f"3D Scanner App export {tmp_path}"
    assert recording.frames[1] == Frame(
        "frame_00002",
        tmp_path / "frame_00002.jpg",
        tmp_path / "depth_00002.png",
        tmp_path / "conf_00002.png",
        Camera(1450.5, 1451.5, 950.25, 715.75),
        14.5,
    )
    assert not recording.frames[1].camera_fault
    assert (len(recording.frames), recording.unpaired) == (2, (tmp_path / "depth_00001.png",))
    with pytest.raises(InputError, match="is the folder of the inputs"):
        open_recording(tmp_path, tmp_path)
    (tmp_path / "frame_00002.json").write_text("{")
    first, second = open_recording(tmp_path).frames
    assert first.camera and not second.camera
    assert second.camera_fault.startswith(f"{tmp_path / 'frame_00002.json'}: is no JSON (Expecting")


@pytest.mark.parametrize("inside", ["", "EXR_RGBD/"])
def test_record3d(tmp_path, inside):
    make(tmp_path, *(f"{inside}rgb/{n}.jpg" for n in range(3)), *(f"{inside}depth/{n}.exr" for n in range(3)))
    facts = {"w": 720, "h": 960, "K": [590.0, 0, 0, 0, 591.0, 0, 360.0, 480.0, 1]}
    facts["perFrameIntrinsicCoeffs"] = [[590.5, 591.5, 360.5, 480.5]] * 2
    (tmp_path / inside / "metadata.json").write_text(json.dumps(facts))
    recording = open_recording(tmp_path)
    assert recording.title == f"Record3D export {tmp_path}"
    assert recording.depth_unit == "m"
    assert [frame.depth.name for frame in recording.frames] == ["0.exr", "1.exr", "2.exr"]
    assert recording.frames[1].camera == Camera(590.5, 591.5, 360.5, 480.5, 720, 960)
    assert recording.frames[2].camera == Camera(590.0, 591.0, 360.0, 480.0, 720, 960)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is no JSON (Expecting property name enclosed in double quotes: line 1 column 2"),
        ('{"K": 5}', "its intrinsics are not numbers"),
        ('{"K": [590, 591, 360, 480], "perFrameIntrinsicCoeffs": 5}', "perFrameIntrinsicCoeffs is no list"),
        ('{"K": [590, 591, 360, 480], "perFrameIntrinsicCoeffs": {"0": 1}}', "perFrameIntrinsicCoeffs is no list"),
        ('{"K": [590, 591, 360, 480], "w": true, "h": 480}', "w and h are True and 480"),
        ("[" * 100000, "is no JSON"),
        (f'{{"K": [1{"0" * 400}, 591, 360, 480]}}', "its intrinsics are not numbers"),
    ],
    ids=lambda text: text[:40],
)
def test_record3d_with_bad_metadata_has_frames_without_a_camera(tmp_path, text, fault):
    make(tmp_path, "rgb/0.jpg", "depth/0.exr")
    (tmp_path / "metadata.json").write_text(text)
    (frame,) = open_recording(tmp_path).frames
    assert frame.camera is None
    assert frame.camera_fault.startswith(f"{tmp_path / 'metadata.json'}: {fault}")


def test_realsense_in_one_folder(tmp_path):
    make(tmp_path, *(f"run_{kind}_{n}.png" for kind in ("Color", "Depth") for n in (9, 10)), "run_Depth_metadata_9.txt")
    recording = open_recording(tmp_path)
    assert {frame.rgb.name: frame.depth.name for frame in recording.frames} == {
        "run_Color_9.png": "run_Depth_9.png",
        "run_Color_10.png": "run_Depth_10.png",
    }
    assert read_depth(recording.frames[0].depth).shape == DEPTH.shape
    assert read_rgb(recording.frames[0].rgb).shape == RGB.shape


def test_realsense_in_two_folders(tmp_path):
    make(tmp_path, "color/run_Color_9.png", "depth/run_Depth_9.png")
    recording = open_recording(tmp_path)
    assert (recording.title, recording.depth_unit) == (f"RealSense recording {tmp_path}", "mm")


@pytest.mark.parametrize("inside", ["{}", "color/{} depth/{}"])
def test_realsense_depth_in_colours_is_refused(tmp_path, inside):
    colour, depth = ([*inside.split()] * 2)[:2]
    names = colour.format("run_Color_9.png"), depth.format("run_Depth_9.png")
    make(tmp_path, *names)
    cv2.imwrite(str(tmp_path / names[1]), RGB)
    with pytest.raises(InputError, match="depth as a colour picture, as rs-convert writes it"):
        open_recording(tmp_path)


def test_a_first_depth_map_that_cannot_be_opened_fails_alone(tmp_path):
    make(tmp_path, *(f"run_{kind}_{n}.png" for kind in ("Color", "Depth") for n in (9, 10)))
    (tmp_path / "run_Depth_9.png").unlink()
    (tmp_path / "run_Depth_9.png").symlink_to("nowhere.png")
    assert [frame.rgb.name for frame in open_recording(tmp_path).frames] == ["run_Color_9.png", "run_Color_10.png"]


@pytest.mark.parametrize("time", ["9" * 400, "NaN", "true", '"12"'])
def test_a_time_that_is_no_number_of_seconds_is_none(tmp_path, time):
    make(tmp_path, "frame_00000.jpg", "depth_00000.png", "info.json")
    (tmp_path / "frame_00000.json").write_text('{"time": ' + time + "}")
    (frame,) = open_recording(tmp_path).frames
    assert frame.timestamp is None


def test_pairs_in_one_folder(tmp_path):
    make(tmp_path, "a_rgb.png", "a_depth.png", "b_rgb.png", "c_depth.png", "logo.png", "rgb_and_depth.png")
    recording = open_recording(tmp_path)
    assert recording.title == f"pairs in {tmp_path}"
    assert [frame.name for frame in recording.frames] == ["a_rgb"]
    assert [path.name for path in recording.unpaired] == ["b_rgb.png", "c_depth.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "it holds nothing"),
        (["notes.txt", "x.png"], "no known recording (it holds notes.txt, x.png); expected TUM RGB-D"),
        (["metadata", "rgbd/0.jpg", "rgbd/0.depth"], "export the recording as 'EXR + JPG sequence'"),
        (["rgb.mp4", "depth/000000.png"], "Stray Scanner, whose RGB is the video rgb.mp4"),
        (["rgb/0.png", "color/0.png", "depth/0.png"], "both may be the RGB images"),
        (["rgb/a.png", "depth/b.png"], "no pair among"),
        (["frame_00000.jpg", "depth_00001.png"], "in which no RGB image has depth"),
    ],
)
def test_what_is_no_recording(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(InputError) as caught:
        open_recording(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no such folder"),
        ("a.txt", "is a file"),
        ("a.r3d", "EXR \\+ JPG sequence"),
        ("a.mkv", "export its frames"),
        ("a.bag", "export its frames"),
        ("a.zip", "unpack it"),
    ],
)
def test_files(tmp_path, name, message):
    if name != "none":
        make(tmp_path, name)
    with pytest.raises(InputError, match=message):
        open_recording(tmp_path / name)


def test_stray_scanner(tmp_path):
    make(tmp_path, "rgb/000000.jpg", "depth/000000.png", "confidence/000000.png", "rgb.mp4")
    (tmp_path / "camera_matrix.csv").write_text("1450.5,0.0,960.25\n0.0,1450.5,720.5\n0.0,0.0,1.0\n")
    recording = open_recording(tmp_path)
    assert (recording.title, recording.depth_unit) == (f"Stray Scanner recording {tmp_path}", "mm")
    (frame,) = recording.frames
    assert frame.confidence == tmp_path / "confidence/000000.png"
    assert frame.camera == Camera(1450.5, 1450.5, 960.25, 720.5)


def test_masks_in_the_folder_of_depth(tmp_path):
    make(tmp_path, *(f"rgb/{n}.png" for n in "01"), *(f"both/depth_{n}.png" for n in "01"), "both/mask_1.png")
    recording = pair_folders(tmp_path / "rgb", tmp_path / "both")
    found = with_maps(recording, tmp_path / "both", "mask")
    assert [frame.mask for frame in found.frames] == [None, tmp_path / "both" / "mask_1.png"]


@pytest.mark.parametrize("lists", ["rgb.txt", "associations.txt"])
@pytest.mark.parametrize("folder", ["rgb", "depth"])
def test_results_among_the_images_of_a_tum_recording_are_refused(tmp_path, folder, lists):
    make_tum(tmp_path)
    if lists == "associations.txt":
        (tmp_path / lists).write_text("1.0 rgb/1.0.png 1.01 depth/1.01.png\n")
    with pytest.raises(UsageError, match=f"{folder}: is the folder of the inputs"):
        open_recording(tmp_path, tmp_path / folder)
    assert open_recording(tmp_path, tmp_path / "results").frames
