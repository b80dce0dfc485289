"""Which depth file belongs to which RGB image: by name, or by time stamp where the names are times."""

import logging
import math
import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from depthup.data.camera import Camera
from depthup.data.errors import InputError, UsageError
from depthup.data.files import DEPTH_SUFFIXES, RAW_SUFFIXES, RGB_SUFFIXES
from depthup.data.real_path import real_path

OUTPUT_MARK = ".depthup-batch.jsonl"
"""A folder that holds this file holds results, so nothing below it is an input."""

MAXIMAL_DIFFERENCE = 0.02
"""Seconds between an RGB image and its depth, as in the tools of the TUM RGB-D data set."""

_RGB_WORDS = {"rgb", "color", "colour", "image", "img"}
_DEPTH_WORDS = {"depth"}
log = logging.getLogger("depthup")

_TIME = re.compile(r"(?<![\d.])(\d{1,19}\.\d+|\d{13}|\d{16}|\d{19})$")
_SECONDS = 10**12  # a number from here on is no second of this age: milliseconds, microseconds, nanoseconds


@dataclass(frozen=True)
class Frame:
    """One RGB image and the depth map of the same view."""

    name: str  # path of the RGB image below its folder, with / and without its ending: unique in a recording
    rgb: Path
    depth: Path
    confidence: Path | None = None  # the sensor's confidence in `depth`, of its size; larger is better
    camera: Camera | None = None  # of the RGB image
    timestamp: float | None = None  # of the RGB image, in seconds
    mask: Path | None = None  # where `depth` is valid, of its size; not 0 = valid
    camera_fault: str = ""  # why there is no `camera`, where a file that should hold it is bad


@dataclass(frozen=True)
class Recording:
    """Frames in the order of their names (of time, where the layout lists times), and images without a partner."""

    title: str  # what it is, for reports
    frames: tuple[Frame, ...]
    unpaired: tuple[Path, ...]
    depth_unit: str = "auto"  # what `read_depth` takes
    other_view: str = ""  # why depth, unless it is aligned, does not show what RGB shows


@dataclass(frozen=True)
class Image:
    """A file, and what of its place and name tells its partner."""

    path: Path
    folder: str  # below the folder that was searched, "." for itself
    stem: str

    @property
    def name(self) -> str:
        return str(PurePosixPath(self.folder, self.stem))


Key = Callable[[str], str | None]
Groups = dict[tuple[str, str], list[Image]]  # by sub-folder and key


def pair_folders(
    rgb_folder: str | Path,
    depth_folder: str | Path,
    out: str | Path | None = None,
    maximal_difference: float = MAXIMAL_DIFFERENCE,
) -> Recording:
    """Pair the images of two folders and their sub-folders, which must be the same on both sides.

    The rule that pairs most images is taken, the first of equals: equal names; equal names without words such as `rgb`
    and `depth`; equal names without what all names of a folder have in common; nearest time, each image once, where
    names are seconds with a fraction, or milli-, micro- or nanoseconds since 1970.

    Args:
        rgb_folder: RGB images.
        depth_folder: depth maps.
        out: folder of the results. Inside one of the others it is not searched.
        maximal_difference: largest difference of two time stamps in seconds.

    Returns:
        The frames, and the images without a partner.

    Raises:
        UsageError: `out` is one of them, or they are the same.
        InputError: no such folder, two images that fit one partner, or no pair at all.
    """
    rgb_folder, depth_folder = Path(rgb_folder), Path(depth_folder)
    for folder in (rgb_folder, depth_folder):
        _check_folder(folder)
    if real_path(rgb_folder) == real_path(depth_folder):
        raise UsageError(f"{rgb_folder}: is given for RGB and for depth; give it once, or expected two folders")
    rgb = find_images(rgb_folder, RGB_SUFFIXES, out, depth_folder)
    depth = find_images(depth_folder, DEPTH_SUFFIXES, out, rgb_folder)
    pairs = pair_images(rgb, depth, maximal_difference)
    if not pairs:
        pictures = [] if depth else find_images(depth_folder, RGB_SUFFIXES, out, rgb_folder)
        swapped = bool(pictures and find_images(rgb_folder, DEPTH_SUFFIXES, out, depth_folder))
        raise InputError(
            f"{rgb_folder}, {depth_folder}: no pair among {_some(rgb)} and {_some(depth)}; expected equal names (but"
            " for parts such as rgb and depth) in equal subfolders, or time stamps at most"
            f" {maximal_difference:g} s apart"
            + (f"; {_some(pictures)} are where depth should be: are the two folders swapped?" if swapped else "")
        )
    return make_recording(f"folders {rgb_folder} and {depth_folder}", rgb, depth, pairs)


def pair_one_folder(folder: Path, out: str | Path | None = None) -> Recording | None:
    """Pairs in one folder, `<name>` with the word `rgb` or `color` in it beside `<name>` with `depth`; None: no pair.

    Raises:
        InputError: two images that fit one partner.
    """
    rgb = [image for image in find_images(folder, RGB_SUFFIXES, out) if _words(image.stem) & _RGB_WORDS]
    depth = [image for image in find_images(folder, DEPTH_SUFFIXES, out) if _words(image.stem) & _DEPTH_WORDS]
    both = {image.path for image in rgb} & {image.path for image in depth}
    rgb, depth = ([image for image in images if image.path not in both] for images in (rgb, depth))
    pairs = pair_images(rgb, depth, MAXIMAL_DIFFERENCE)
    return make_recording(f"pairs in {folder}", rgb, depth, pairs) if pairs else None


def with_maps(
    recording: Recording,
    folder: str | Path,
    kind: str,
    out: str | Path | None = None,
    maximal_difference: float = MAXIMAL_DIFFERENCE,
) -> Recording:
    """A recording with the masks or the confidence maps of a folder, in place of its own.

    They are paired with the depth maps as `pair_folders` pairs; a depth map may be left without one.

    Args:
        recording: whose depth maps they belong to.
        folder: where they are, in the same sub-folders as depth.
        kind: `mask` or `confidence`.
        out: folder of the results, not searched.
        maximal_difference: largest difference of two time stamps in seconds.

    Returns:
        The recording; maps that fit no depth map are among its images without a partner.

    Raises:
        InputError: no such folder, two files that fit one partner, or none that fits any.
    """
    folder = Path(folder)
    _check_folder(folder)
    maps = find_images(folder, DEPTH_SUFFIXES + (RAW_SUFFIXES if kind == "confidence" else ()), out)
    used = {real_path(path) for frame in recording.frames for path in (frame.rgb, frame.depth)}
    maps = [image for image in maps if real_path(image.path) not in used]  # all may be in one folder
    places = {frame.depth: PurePosixPath(frame.name).parent.as_posix() for frame in recording.frames}
    depth = [Image(path, place, path.stem) for path, place in places.items()]
    partners = {a.path: b.path for a, b in pair_images(depth, maps, maximal_difference)}
    if not partners:
        raise InputError(
            f"{folder}: no {kind} among {_some(maps)} belongs to one of {_some(depth)} of depth; expected the names of"
            " the depth maps"
        )
    found = {image.path for image in maps}
    unpaired = (set(recording.unpaired) | found) - set(partners.values())
    found_maps = [(frame, partners.get(frame.depth)) for frame in recording.frames]
    if kind == "mask":
        frames = [replace(frame, mask=path) for frame, path in found_maps]
    else:
        frames = [replace(frame, confidence=path) for frame, path in found_maps]
    return replace(recording, frames=tuple(frames), unpaired=tuple(sorted(unpaired)))


def make_recording(title: str, rgb: list[Image], depth: list[Image], pairs: list[tuple[Image, Image]]) -> Recording:
    """A recording of pairs whose frames know nothing but their time stamps."""
    stamps = {image.path: time for image, time in _stamped(rgb)}
    frames = [
        Frame(a.name, a.path, b.path, timestamp=stamps[a.path] / 1e9 if a.path in stamps else None) for a, b in pairs
    ]
    used = {path for frame in frames for path in (frame.rgb, frame.depth)}
    unpaired = sorted(image.path for image in [*rgb, *depth] if image.path not in used)
    return Recording(title, tuple(sorted(frames, key=lambda frame: _natural(frame.name))), tuple(unpaired))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {fault}, expected a folder of images")


def find_images(
    folder: Path, suffixes: tuple[str, ...], out: str | Path | None = None, other: Path | None = None
) -> list[Image]:
    """Images below a folder, in the order of their paths, but for hidden ones and those of results.

    Links to folders are followed; a folder that cannot be read is warned of.

    Args:
        folder: where to search, sub-folders too.
        suffixes: endings in lower case.
        out: folder of the results, not searched.
        other: another folder that is not searched.

    Raises:
        UsageError: `folder` is `out`.
    """
    if out is not None and real_path(out) == real_path(folder):
        raise UsageError(f"{out}: is the folder of the inputs; expected another for the results")
    closed = {real_path(place) for place in (out, other) if place is not None}
    images = []

    def warn(error: OSError) -> None:
        log.warning("%s: cannot be read (%s) and is left out", error.filename, error.strerror)

    for place, folders, names in os.walk(folder, onerror=warn, followlinks=True):
        here, there = Path(place), real_path(place)
        in_a_circle = any(real_path(parent) == there for parent in here.absolute().parents)  # by a link
        if here != folder and (OUTPUT_MARK in names or there in closed or in_a_circle):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = here.relative_to(folder).as_posix()
        images += [
            Image(here / name, below, Path(name).stem)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return images


def pair_images(rgb: list[Image], depth: list[Image], maximal_difference: float) -> list[tuple[Image, Image]]:
    """Pairs by the rule that makes most of them.

    Raises:
        InputError: two images that fit one partner.
    """
    groups: tuple[Groups, Groups] = ({}, {})
    keys: list[tuple[str, str]] = []
    for rgb_key, depth_key in (
        (_whole, _whole),
        (_without_words, _without_words),
        (_varying_part(image.stem for image in rgb), _varying_part(image.stem for image in depth)),
    ):
        found = _grouped(rgb, rgb_key), _grouped(depth, depth_key)
        common = sorted(found[0].keys() & found[1].keys())
        if len(common) > len(keys):
            groups, keys = found, common
    rgb_times, depth_times = _stamped(rgb), _stamped(depth)
    if len(rgb_times) == len(rgb) and len(depth_times) == len(depth):
        nearest = pair_times(rgb_times, depth_times, maximal_difference)
        if len(nearest) > len(keys):
            _check_stamps(rgb_times, depth_times)
            return nearest
    return [_only_pair(groups[0][key], groups[1][key]) for key in keys]


def pair_times(
    rgb: list[tuple[Image, int]], depth: list[tuple[Image, int]], maximal_difference: float
) -> list[tuple[Image, Image]]:
    """Nearest in time, the nearest of all first, each image at most once; equally near: the earlier.

    Args:
        rgb: images with their times in nanoseconds.
        depth: the same for depth; only those in the same sub-folder fit.
        maximal_difference: in seconds.

    Raises:
        UsageError: it is no number from 0 on.
    """
    if not 0 <= maximal_difference < math.inf:
        raise UsageError(f"largest difference in time: got {maximal_difference}, expected seconds from 0 on")
    reach = round(maximal_difference * 1e9)
    later = defaultdict(list)
    for image, time in depth:
        later[image.folder].append((time, image))
    for group in later.values():
        group.sort(key=lambda entry: entry[0])
    candidates = []
    for image, time in rgb:
        group = later[image.folder]
        n = bisect_left(group, time - reach, key=lambda entry: entry[0])
        while n < len(group) and group[n][0] <= time + reach:
            candidates.append((abs(group[n][0] - time), time, group[n][0], image, group[n][1]))
            n += 1
    candidates.sort(key=lambda entry: entry[:3])
    pairs, used = [], set()
    for *_, a, b in candidates:
        if a.path not in used and b.path not in used:
            used |= {a.path, b.path}
            pairs.append((a, b))
    return pairs


def nanoseconds(number: str) -> int:
    """A time in a file's name, `1305031102.175304`: seconds, or parts of them if it is far too large for seconds."""
    whole, _, fraction = number.partition(".")
    time, part = int(whole) * 10**9 + int(fraction[:9].ljust(9, "0")), int(whole)
    while part >= _SECONDS:
        time, part = time // 1000, part // 1000
    return time


def _stamped(images: list[Image]) -> list[tuple[Image, int]]:
    found = [(image, _TIME.search(image.stem)) for image in images]
    return [(image, nanoseconds(match[0])) for image, match in found if match]


def _check_stamps(*sides: list[tuple[Image, int]]) -> None:
    for side in sides:
        seen: dict[tuple[str, int], Image] = {}
        for image, time in side:
            first = seen.setdefault((image.folder, time), image)
            if first is not image:
                raise InputError(f"{first.path}, {image.path}: have the same time stamp, expected one image of a time")


def _grouped(images: list[Image], key: Key) -> Groups:
    groups = defaultdict(list)
    for image in images:
        if (text := key(image.stem)) is not None:
            groups[image.folder, text].append(image)
    return groups


def _only_pair(rgb: list[Image], depth: list[Image]) -> tuple[Image, Image]:
    for these, others in ((rgb, depth), (depth, rgb)):
        if len(these) > 1:
            raise InputError(f"{these[0].path}, {these[1].path}: both fit {others[0].path}, expected one of them")
    return rgb[0], depth[0]


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts 9 before 10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


def _whole(stem: str) -> str | None:
    return stem


def _parts(stem: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+|[\W_]+", stem)


def _words(stem: str) -> set[str]:
    return {part.lower() for part in _parts(stem)}


def _without_words(stem: str) -> str | None:
    kept = "".join(part for part in _parts(stem) if part.lower() not in _RGB_WORDS | _DEPTH_WORDS)
    return re.sub(r"([._\- ])[._\- ]+", r"\1", kept).strip("._- ") or None


def _varying_part(stems: Iterable[str]) -> Key:
    """A function that takes from a name the words with which all of `stems` begin and end, but no whole number."""
    names = [re.split(r"([._\- ]+)", stem) for stem in stems]
    first, last = _common(names), _common([name[::-1] for name in names])
    rest = ["".join(name[first : len(name) - last]) for name in names]
    letters = {match[0] if (match := re.match(r"[^\W\d_]+(?=\d)", text)) else "" for text in rest}
    begin = len(letters.pop()) if len(letters) == 1 else 0

    def key(stem: str) -> str | None:
        parts = re.split(r"([._\- ]+)", stem)
        return "".join(parts[first : len(parts) - last])[begin:] or None

    return key


def _common(names: list[list[str]]) -> int:
    """With how many equal parts all names begin, before a whole number."""
    count = 0
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1 or parts[0].isdecimal():
            break
        count += 1
    return count


def _some(images: list[Image]) -> str:
    return f"{len(images)} images" + (f" ({PurePosixPath(images[0].folder, images[0].path.name)}, …)" if images else "")
