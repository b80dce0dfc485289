"""Recordings of RGB-D cameras, phones and data sets: which layout a folder has, and its frames."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

import numpy as np

from depthup.data.camera import Camera
from depthup.data.distortion import warn_of_distortion
from depthup.data.errors import InputError, UsageError
from depthup.data.files import DEPTH_SUFFIXES, RAW_SUFFIXES, RGB_SUFFIXES
from depthup.data.intrinsics import camera_of
from depthup.data.pairing import (
    MAXIMAL_DIFFERENCE,
    Frame,
    Image,
    Recording,
    find_images,
    make_recording,
    nanoseconds,
    pair_folders,
    pair_one_folder,
    pair_times,
    with_maps,
)
from depthup.data.real_path import real_path

LAYOUTS = (
    "TUM RGB-D (rgb.txt and depth.txt), ScanNet, 3RScan, Open3D or plain images (color/ or rgb/, and depth/),"
    " ARKitScenes (wide/ and lowres_depth/), 3D Scanner App (frame_00000.jpg and depth_00000.png), Record3D"
    " (EXR_RGBD/), or <name>_rgb.* beside <name>_depth.*"
)
"""What `open_recording` knows, for messages."""

_ASSOCIATIONS = ("associations.txt", "association.txt", "associated.txt", "associates.txt", "associate.txt")
_RGB_FOLDERS = ("rgb", "color", "colour", "images", "image")
_ARKIT_RGB = ("wide", "hires_wide", "color", "vga_wide", "lowres_wide")  # the largest first
_KINECT_NAME = re.compile(r"\d+_(\d{11})")
_CONTAINERS = {
    ".r3d": "its depth is LZFSE-compressed; in Record3D export the recording as 'EXR + JPG sequence'",
    ".mkv": "a video; export its frames as images, with depth mapped to the colour camera",
    ".bag": "a ROS bag; export its frames as images, with 16-bit depth aligned to colour",
    ".sens": "a ScanNet stream; export it with the SensReader of ScanNet",
    ".zip": "an archive; unpack it",
}


SAME_TIME = 0.002
"""Seconds between depth and its confidence, as their names round them."""

OTHER_VIEW = 0.03
"""Slope by which the edges of two images of one view may differ: one and a half degrees."""


def open_recording(
    path: str | Path, out: str | Path | None = None, maximal_difference: float = MAXIMAL_DIFFERENCE
) -> Recording:
    """Find the frames of a recording.

    Args:
        path: folder in one of the layouts of docs/batch.md.
        out: folder of the results. Inside the recording it is not searched.
        maximal_difference: largest difference in seconds where RGB and depth are paired by time.

    Returns:
        The recording, whose title says which layout it has. Its depth unit is that of the layout. Lens distortion that
        its camera files hold is warned of, once, and not applied.

    Raises:
        InputError: no such folder, a layout that is not known or not read here, or a bad file in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        fault = _CONTAINERS.get(folder.suffix.lower(), "is a file") if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {fault}; expected the folder of a recording")
    for layout in (_tum, _record3d, _arkitscenes, _scanner_app, _azure_kinect, _two_folders, _sens_reader, _one_folder):
        recording = layout(folder, out, maximal_difference)
        if recording is not None:
            if not recording.frames:
                raise InputError(
                    f"{folder}: {recording.title} in which no RGB image has depth; expected pairs, those that are"
                    f" paired by time at most {maximal_difference:g} s apart"
                )
            return recording
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    found = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "nothing"
    if (folder / "rgb.mp4").is_file() and (folder / "depth").is_dir():
        raise InputError(f"{folder}: Stray Scanner, whose RGB is the video rgb.mp4; expected its frames in rgb/")
    for name in names:
        if hint := _CONTAINERS.get(Path(name).suffix.lower()):
            raise InputError(f"{folder / name}: {hint}; expected the folder of a recording")
    raise InputError(f"{folder}: no known recording (it holds {found}); expected {LAYOUTS}")


def _tum(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    """https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats"""
    recording = _tum_lists(folder, maximal_difference)
    for place in {path.parent for frame in recording.frames for path in (frame.rgb, frame.depth)} if recording else ():
        _refuse_same(place, out)
    return recording


def _tum_lists(folder: Path, maximal_difference: float) -> Recording | None:
    title = f"TUM RGB-D recording {folder}"
    lists = [folder / name for name in _ASSOCIATIONS if (folder / name).is_file()]
    if lists:
        frames = [_associated(folder, lists[0], row) for row in _rows(lists[0], 4)]
        _check_names(lists[0], frames)
        return Recording(title, tuple(frames), (), "tum")
    if not ((folder / "rgb.txt").is_file() and (folder / "depth.txt").is_file()):
        return None
    rgb, depth = (_with_times(folder, folder / name) for name in ("rgb.txt", "depth.txt"))
    times = {image.path: time / 1e9 for image, time in rgb}
    # all in one group: names do not say where the partner is, times do
    together = [[(replace(image, folder="."), time) for image, time in side] for side in (rgb, depth)]
    pairs = pair_times(together[0], together[1], maximal_difference)
    names = {image.path: image.name for image, _ in rgb}
    frames = [Frame(names[a.path], a.path, b.path, timestamp=times[a.path]) for a, b in pairs]
    frames.sort(key=lambda frame: frame.timestamp or 0.0)
    _check_names(folder / "rgb.txt", frames)
    used = {path for frame in frames for path in (frame.rgb, frame.depth)}
    unpaired = sorted(image.path for image, _ in [*rgb, *depth] if image.path not in used)
    return Recording(title, tuple(frames), tuple(unpaired), "tum")


def _with_times(folder: Path, place: Path) -> list[tuple[Image, int]]:
    """The images of a list, and their times in nanoseconds."""
    images = [(_listed(folder, place, row[1]), _time(place, row[0])) for row in _rows(place, 2)]
    times: dict[Path, int] = {}
    for image, time in images:
        if times.setdefault(image.path, time) != time:
            raise InputError(f"{place}: lists {image.path} with two time stamps, expected one of them")
    return images


def _rows(place: Path, count: int) -> list[list[str]]:
    """The words of every line, but comments, empty lines and repetitions; at least `count` in each."""
    lines = _text(place).splitlines()
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    for row in rows:
        if len(row) < count:
            raise InputError(f"{place}: the line {' '.join(row)!r} is too short, expected time stamp and file")
    return rows


def _time(place: Path, text: str) -> int:
    if not re.fullmatch(r"\d{1,19}(\.\d*)?", text):
        raise InputError(f"{place}: {text[:99]!r} is no time stamp, expected seconds")
    return nanoseconds(text)


def _listed(folder: Path, place: Path, name: str) -> Image:
    """A file that a list names. It may be missing: then its frame fails, and not the recording."""
    inside, on_windows = PurePosixPath(name), PureWindowsPath(name)
    if inside.is_absolute() or on_windows.is_absolute() or on_windows.drive:
        raise InputError(f"{place}: lists the absolute path {name}, expected paths below {folder}")
    if ".." in (*inside.parts, *on_windows.parts):
        raise InputError(f"{place}: lists {name}, which is outside {folder}; expected a path in the folder")
    below = inside.parent.parts
    return Image(folder / name, str(PurePosixPath(*below[1:])), inside.stem)


def _associated(folder: Path, place: Path, row: list[str]) -> Frame:
    first, second = _listed(folder, place, row[1]), _listed(folder, place, row[3])
    swapped = "depth" in row[1].lower() and "depth" not in row[3].lower()
    rgb, depth, time = (second, first, row[2]) if swapped else (first, second, row[0])
    return Frame(rgb.name, rgb.path, depth.path, timestamp=_time(place, time) / 1e9)


def _check_names(place: Path, frames: list[Frame]) -> None:
    seen: dict[str, Frame] = {}
    for frame in frames:
        first = seen.setdefault(frame.name, frame)
        if first is not frame and first.rgb == frame.rgb:
            raise InputError(
                f"{place}: lists {frame.rgb} with {first.depth.name} and with {frame.depth.name}, expected one of them"
            )
        if first is not frame:
            raise InputError(f"{place}: lists {first.rgb} and {frame.rgb}, expected RGB images of different names")


def _record3d(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    """https://record3d.app, export 'EXR + JPG sequence': rgb/0.jpg, depth/0.exr in metres, metadata.json"""
    if (folder / "rgbd").is_dir() and (folder / "metadata").is_file():
        raise InputError(f"{folder}: an unpacked .r3d, expected an export: {_CONTAINERS['.r3d']}")
    inside = folder / "EXR_RGBD" if (folder / "EXR_RGBD").is_dir() else folder
    depth = inside / "depth"
    if not (inside / "rgb").is_dir() or not depth.is_dir() or not any(depth.glob("*.exr")):
        return None
    recording = pair_folders(inside / "rgb", depth, out, maximal_difference)
    place = inside / "metadata.json"
    facts, fault = _json_or_fault(place)
    warn_of_distortion(facts, place)
    frames = [
        replace(frame, **_camera_or_fault(partial(_record3d_camera, place, facts, Path(frame.name).name), fault))
        for frame in recording.frames
    ]
    recording = Recording(f"Record3D export {folder}", tuple(frames), recording.unpaired, "m")
    return _with_confidence(recording, inside / "confidence", out)


def _record3d_camera(place: Path, facts: dict, number: str) -> Camera | None:
    """The four coefficients of this frame, or the matrix of all."""
    size = _size(place, facts, "w", "h")
    each = facts.get("perFrameIntrinsicCoeffs") or []
    if not isinstance(each, list):
        raise InputError(f"{place}: perFrameIntrinsicCoeffs is no list, expected fx, fy, cx, cy of every frame")
    if number.isdecimal() and int(number) < len(each):
        return _camera(place, each[int(number)], size)
    return _camera(place, facts.get("K"), size)


def _arkitscenes(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    """https://github.com/apple/ARKitScenes/blob/main/DATA.md: <video>_<seconds>.png, depth in millimetres"""
    inside = next((place for place in (folder, *sorted(folder.glob("*_frames"))) if _is_arkit(place)), None)
    if inside is None:
        return None
    colour = next(name for name in _ARKIT_RGB if (inside / name).is_dir())
    recording = pair_folders(inside / colour, inside / "lowres_depth", out, maximal_difference)
    cameras = inside / f"{colour}_intrinsics"
    frames = [replace(frame, **_camera_or_fault(partial(_pincam, cameras, frame.name))) for frame in recording.frames]
    title = f"ARKitScenes recording {folder}, RGB of {colour}"
    recording = Recording(title, tuple(frames), recording.unpaired, "mm")
    return _with_confidence(recording, inside / "confidence", out)


def _is_arkit(folder: Path) -> bool:
    return (folder / "lowres_depth").is_dir() and any((folder / name).is_dir() for name in _ARKIT_RGB)


def _scanner_app(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    """https://3dscannerapp.com, export 'All Data': not every frame_ has a picture, and depth is in millimetres"""
    rgb = _numbered(folder, "frame_", RGB_SUFFIXES)
    depth = _numbered(folder, "depth_", DEPTH_SUFFIXES)
    if not rgb or not depth:
        return None
    _refuse_same(folder, out)
    confidence = _numbered(folder, "conf_", DEPTH_SUFFIXES)
    frames: list[Frame] = []
    warned = False
    for number in sorted(rgb.keys() & depth.keys()):
        place = folder / f"frame_{number}.json"
        facts, fault = _json_or_fault(place)
        warned = warned or warn_of_distortion(facts, place)  # of one frame: all are of one lens
        time = facts.get("time")
        frames.append(
            Frame(
                f"frame_{number}",
                rgb[number],
                depth[number],
                confidence.get(number),
                timestamp=float(time) if _is_number(time) else None,
                **_camera_or_fault(partial(_camera, place, facts.get("intrinsics")), fault),
            )
        )
    alone = rgb.keys() ^ depth.keys()
    unpaired = sorted(path for side in (rgb, depth) for number, path in side.items() if number in alone)
    return Recording(f"3D Scanner App export {folder}", tuple(frames), tuple(unpaired), "mm")


def _numbered(folder: Path, prefix: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        number = path.stem.removeprefix(prefix)
        if path.suffix.lower() in suffixes and path.name.startswith(prefix) and number.isdecimal():
            if number in found:
                raise InputError(f"{found[number]}, {path}: have the same number, expected one of them")
            found[number] = path
    return found


def _azure_kinect(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    """k4a_mkv2image: color/000000_00000000033.jpg, where the second number is the device's time in microseconds"""
    sides = _rgb_and_depth(folder)
    if sides is None:
        return None
    rgb = find_images(sides[0], RGB_SUFFIXES, out)
    depth = find_images(sides[1], DEPTH_SUFFIXES, out)
    matches = [[(image, _KINECT_NAME.fullmatch(image.stem)) for image in side] for side in (rgb, depth)]
    if not rgb or not depth or not all(match for side in matches for _, match in side):
        return None
    times = [[(image, 1000 * int(match[1])) for image, match in side if match] for side in matches]
    recording = make_recording(
        f"Azure Kinect recording {folder}", rgb, depth, pair_times(times[0], times[1], maximal_difference)
    )
    seconds = {image.path: time / 1e9 for image, time in times[0]}
    frames = tuple(replace(frame, timestamp=seconds[frame.rgb]) for frame in recording.frames)
    return replace(recording, frames=frames, depth_unit="mm")


def _two_folders(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    sides = _rgb_and_depth(folder)
    if sides is None:
        return None
    recording = pair_folders(*sides, out, maximal_difference)
    _refuse_coloured_depth(recording)
    title, unit = f"RGB and depth images in {folder}", "auto"
    camera: dict[str, Any] = {}
    stray_scanner = folder / "camera_matrix.csv"  # of the images in its video
    if (folder / "intrinsic").is_dir() or (folder / "pose").is_dir():  # ScanNet's SensReader
        title, unit = f"ScanNet export {folder}", "mm"
        if (place := folder / "intrinsic" / "intrinsic_color.txt").is_file():
            camera = _camera_or_fault(lambda: camera_of(_numbers(place), place))
    elif (place := folder / "intrinsic.json").is_file():  # Open3D's azure_kinect_mkv_reader
        title, unit = f"Azure Kinect recording {folder}", "mm"
        camera = _camera_or_fault(partial(_open3d_camera, place))
    elif (place := folder / "camera_intrinsic.json").is_file():  # Open3D's realsense_recorder
        title, unit = f"RealSense recording {folder}", "mm"
        camera = _camera_or_fault(partial(_open3d_camera, place))
    elif any("_Depth_" in frame.depth.stem for frame in recording.frames):  # rs-convert
        title, unit = f"RealSense recording {folder}", "mm"
    elif stray_scanner.is_file():
        title, unit = f"Stray Scanner recording {folder}", "mm"
        camera = _camera_or_fault(lambda: camera_of(_numbers(stray_scanner), stray_scanner))
    frames = tuple(replace(frame, **camera) for frame in recording.frames)
    recording, confidence = Recording(title, frames, recording.unpaired, unit), folder / "confidence"
    if stray_scanner.is_file():
        return _with_confidence(recording, confidence, out)
    return recording


def _rgb_and_depth(folder: Path) -> tuple[Path, Path] | None:
    rgb = [folder / name for name in _RGB_FOLDERS if (folder / name).is_dir()]
    if not rgb or not (folder / "depth").is_dir():
        return None
    if len(rgb) > 1:
        raise InputError(f"{rgb[0]}, {rgb[1]}: both may be the RGB images; expected one, or name it: RGB_DIR DEPTH_DIR")
    return rgb[0], folder / "depth"


def _sens_reader(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    """ScanNet's SensReader in C++, and 3RScan: frame-000000.color.jpg, frame-000000.depth.pgm, facts in _info.txt"""
    place = folder / "_info.txt"
    if not place.is_file() or (recording := pair_one_folder(folder, out)) is None:
        return None
    rows = (line.partition("=") for line in _text(place).splitlines())
    facts = {key.strip(): value.strip() for key, _, value in rows}
    if (shift := facts.get("m_depthShift")) != "1000":
        raise InputError(f"{place}: m_depthShift is {shift or 'missing'}, expected 1000, depth in millimetres")
    camera, depth_camera = (_camera_or_fault(partial(_sens_camera, place, facts, side)) for side in ("Color", "Depth"))
    frames = tuple(replace(frame, **camera) for frame in recording.frames)
    other_view = _other_view(place, camera.get("camera"), depth_camera.get("camera"))
    return Recording(f"ScanNet or 3RScan export {folder}", frames, recording.unpaired, "mm", other_view)


def _sens_camera(place: Path, facts: dict[str, str], side: str) -> Camera | None:
    """A 4 x 4 matrix, and the size of the image that it belongs to; `side` is Color or Depth."""
    names = (f"m_calibration{side}Intrinsic", f"m_{side.lower()}Width", f"m_{side.lower()}Height")
    try:
        matrix, width, height = ([float(word) for word in facts[name].split()] for name in names)
    except (KeyError, ValueError):
        raise InputError(f"{place}: has no numbers at one of {', '.join(names)}, expected all of them") from None
    if len(width) != 1 or len(height) != 1:
        raise InputError(f"{place}: {names[1]} or {names[2]} is more than a number, expected the size of an image")
    return camera_of(matrix, f"{place}: {names[0]}", (width[0], height[0]))


def _other_view(place: Path, colour: Camera | None, depth: Camera | None) -> str:
    """What to warn of where the two images, each as a whole, do not show the same part of the scene."""
    if not colour or not depth or np.abs(np.subtract(_edges(colour), _edges(depth))).max() <= OTHER_VIEW:
        return ""
    return (
        f"{place}: its intrinsics say that depth shows another part of the scene than colour does, where results are"
        f" wrong; expected --align POSE --depth-intrinsics {depth.fx:g},{depth.fy:g},{depth.cx:g},{depth.cy:g}"
    )


def _edges(camera: Camera) -> tuple[float, ...]:
    """Slopes at which a camera sees the left, right, upper and lower edge of its image."""
    assert camera.width and camera.height
    left, right = -(camera.cx + 0.5) / camera.fx, (camera.width - 0.5 - camera.cx) / camera.fx
    upper, lower = -(camera.cy + 0.5) / camera.fy, (camera.height - 0.5 - camera.cy) / camera.fy
    return left, right, upper, lower


def _one_folder(folder: Path, out: str | Path | None, maximal_difference: float) -> Recording | None:
    recording = pair_one_folder(folder, out)
    if recording is not None:
        _refuse_coloured_depth(recording)
    return recording


def _refuse_coloured_depth(recording: Recording) -> None:
    """rs-convert writes depth as a colour picture, which holds no metres; said once and not for every frame."""
    for frame in recording.frames[:1]:
        try:
            with frame.depth.open("rb") as file:
                head = file.read(26)
        except OSError:
            return  # the frame itself will fail, and say why
        if head.startswith(b"\x89PNG") and len(head) == 26 and head[25] in (2, 6) and "_Depth_" in frame.depth.stem:
            raise InputError(
                f"{frame.depth}: depth as a colour picture, as rs-convert writes it, holds no metres; expected 16-bit"
                " depth aligned to colour, as Open3D's realsense_recorder writes it"
            )


def _refuse_same(folder: Path, out: str | Path | None) -> None:
    if out is not None and real_path(out) == real_path(folder):
        raise UsageError(f"{out}: is the folder of the inputs; expected another for the results")


def _with_confidence(recording: Recording, folder: Path, out: str | Path | None) -> Recording:
    """With the confidence maps of its own folder, if it has any; those of depth without RGB are no news."""
    if not folder.is_dir() or not find_images(folder, DEPTH_SUFFIXES + RAW_SUFFIXES, out):
        return recording
    return replace(with_maps(recording, folder, "confidence", out, SAME_TIME), unpaired=recording.unpaired)


def _camera_or_fault(read: Callable[[], Camera | None], fault: str = "") -> dict[str, Any]:
    """Of a `Frame`, the camera, or what is wrong with it: not every use of a recording needs it.

    With a `fault` of its file, which is known already, nothing is read.
    """
    if fault:
        return {"camera_fault": fault}
    try:
        return {"camera": read()}
    except InputError as error:
        return {"camera_fault": str(error)}


def _camera(place: Path, values: object, size: tuple[float, float] | None = None) -> Camera | None:
    """Of four coefficients, or of a 3 x 3 matrix by rows or by columns; None where there are no values."""
    if values is None:
        return None
    if not isinstance(values, list) or len(values) not in (4, 9) or not all(_is_number(value) for value in values):
        raise InputError(f"{place}: its intrinsics are not numbers, expected fx, fy, cx, cy or a list of 3 x 3")
    return camera_of(values, place, size)


def _open3d_camera(place: Path) -> Camera | None:
    facts = _json(place)
    warn_of_distortion(facts, place)
    return _camera(place, facts.get("intrinsic_matrix"), _size(place, facts, "width", "height"))


def _size(place: Path, facts: dict, *names: str) -> tuple[float, float] | None:
    """What a file says, under two names, about the size of the image that its intrinsics belong to, if it does."""
    width, height = (facts.get(name) for name in names)
    if width is None and height is None:
        return None
    if not _is_number(width) or not _is_number(height):
        raise InputError(f"{place}: {' and '.join(names)} are {width} and {height}, expected whole pixels")
    return width, height


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _json_or_fault(place: Path) -> tuple[dict, str]:
    """What a file holds, if it is there; and what is wrong with it."""
    try:
        return (_json(place) if place.is_file() else {}), ""
    except InputError as error:
        return {}, str(error)


def _json(place: Path) -> dict:
    text = _text(place)
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: is no JSON ({error}), expected a whole file") from None
    if not isinstance(facts, dict):
        raise InputError(f"{place}: holds no JSON object, expected one")
    return facts


def _text(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror}), expected a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{place}: is no UTF-8, expected a text file") from None


def _numbers(place: Path) -> list[float]:
    text = _text(place)
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"{place}: {error}, expected numbers") from None


def _pincam(folder: Path, name: str) -> Camera | None:
    """width height fx fy cx cy, in the file of the frame's name, whose time may be a millisecond off"""
    video, _, time = name.rpartition("_")
    names = [name]
    if re.fullmatch(r"\d+\.\d{3}", time):
        names += [f"{video}_{float(time) + off:.3f}" for off in (-0.001, 0.001)]
    place = next((file for each in names if (file := folder / f"{each}.pincam").is_file()), None)
    if place is None:
        return None
    values = _numbers(place)
    if len(values) != 6:
        raise InputError(f"{place}: holds {len(values)} numbers, expected width height fx fy cx cy")
    return camera_of(values[2:], place, values[:2])
