"""Registered RGB-D pairs, and the data set that reads them from a folder."""

import csv
import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from depthup.data.depth_encoding import DepthEncoding, warn_of_unit
from depthup.data.errors import InputError, UsageError
from depthup.data.files import DEPTH_SUFFIXES, RGB_SUFFIXES, read_depth, read_disparity, read_rgb
from depthup.data.real_path import real_path

SPLITS = ("all", "train", "val", "test")

NYUV2_TRAIN_FRAMES = 1000
"""Frames 0-999 of the labelled NYUv2 file are the training part, 1000-1448 the test part."""

NYUV2_BORDER = 6
"""Pixels at each side that papers on NYUv2 do not score."""

CHECK_ONLY_SETS = ("middlebury", "lu")

LARGEST_DEPTH = 1e10
"""In any unit: squares of more overflow."""

_PATTERNS = (
    "<name>_rgb.* with <name>_depth.* or <name>_disp.*, or rgb/<name>.* with depth/<name>.* or disparity/<name>.*"
)
_KINDS = {"depth_mm": "m", "disparity": "disparity"}
_warning = threading.Lock()  # pairs are decoded in several threads, and one warning is enough


@dataclass(frozen=True)
class Pair:
    """One RGB image and the dense depth of the same view, pixel-aligned."""

    name: str
    scene: str
    rgb: np.ndarray  # uint8 [H, W, 3]
    depth: np.ndarray  # float32 [H, W], NaN = no measurement
    unit: str  # "m" or "disparity"


class PairDataset(Protocol):
    """What every data set offers: pairs by index, and the facts about them that need no decoding."""

    title: str  # what it is, for reports
    names: list[str]
    scenes: list[str]  # one per pair
    unit: str  # "m" or "disparity"
    border: int  # pixels at each side that are not scored

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class SomePairs:
    """At most `count` pairs of a data set, evenly spread; `all` is the whole of it."""

    def __init__(self, dataset: PairDataset, count: int) -> None:
        self.all = dataset
        self.chosen = sorted({i * len(dataset) // count for i in range(count)}) if count else []
        part = f", {len(self.chosen)} of {len(dataset)} images" if len(self.chosen) < len(dataset) else ""
        self.title, self.unit, self.border = dataset.title + part, dataset.unit, dataset.border
        self.names, self.scenes = ([values[i] for i in self.chosen] for values in (dataset.names, dataset.scenes))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Pair:
        return self.all[self.chosen[index]]


class JoinedPairs:
    """The pairs of two data sets of the same unit, one after the other, scored with the border of the first."""

    def __init__(self, first: PairDataset, second: PairDataset) -> None:
        self._parts = (first, second)
        self.title, self.unit, self.border = f"{first.title} and {second.title}", first.unit, first.border
        self.names, self.scenes = [*first.names, *second.names], [*first.scenes, *second.scenes]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Pair:
        first, second = self._parts
        index = range(len(self))[index]
        return first[index] if index < len(first) else second[index - len(first)]


def check_dataset(dataset: PairDataset, to_train: bool = False) -> None:
    """Raise TypeError for what is no data set, such as a path, and InputError for one that contradicts itself.

    `to_train`: names and scenes are needed, too, by which pairs are held out.
    """
    needed = ("title", "unit", "border", *(("names", "scenes") if to_train else ()))
    if missing := [name for name in needed if not hasattr(dataset, name)]:
        lacks = f"it lacks {', '.join(missing)}"
        raise TypeError(f"data: got {dataset!r}, expected a data set, such as open_dataset(...) gives; {lacks}")
    if not len(dataset):
        raise InputError(f"{dataset.title}: holds no pair, expected at least one")
    if not isinstance(dataset.border, int | np.integer) or dataset.border < 0:
        raise InputError(f"{dataset.title}: its border is {dataset.border!r}, expected a whole number of pixels")
    if dataset.unit not in ("m", "disparity"):
        raise InputError(f"{dataset.title}: its unit is {dataset.unit!r}, expected 'm' or 'disparity'")
    if to_train and not len(dataset) == len(dataset.names) == len(dataset.scenes):
        raise InputError(
            f"{dataset.title}: has {len(dataset)} pairs, {len(dataset.names)} names and {len(dataset.scenes)} scenes;"
            " expected one of each for every pair"
        )


def check_pair(pair: Pair, dataset: PairDataset) -> None:
    """Raise InputError where a data set of somebody's own gives another pair than `Pair` says, or of another unit."""
    name = f"{dataset.title}: {pair.name}"
    for part, array in (("rgb", pair.rgb), ("depth", pair.depth)):
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            raise InputError(f"{name}: {part} is a {type(array).__name__}, expected a NumPy array without a mask")
    rgb, depth = pair.rgb, pair.depth
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise InputError(f"{name}: rgb is {rgb.dtype} {list(rgb.shape)}, expected uint8 [H, W, 3]")
    if depth.dtype != np.float32 or depth.shape != rgb.shape[:2]:
        raise InputError(f"{name}: depth is {depth.dtype} {list(depth.shape)}, expected float32 {list(rgb.shape[:2])}")
    if not ((depth > 0) & (depth < LARGEST_DEPTH) | np.isnan(depth)).all():
        raise InputError(
            f"{name}: depth holds what is not above 0, or not below {LARGEST_DEPTH:g}; expected NaN for no measurement"
        )
    if pair.unit != dataset.unit:
        raise InputError(f"{name}: its unit is {pair.unit!r} and that of the data set {dataset.unit!r}, expected one")


def check_split(split: str) -> None:
    """Raise UsageError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise UsageError(f"split {split!r} is unknown, expected one of {', '.join(SPLITS)}")


def is_validation_scene(scene: str) -> bool:
    """Whether a scene is held out for validation: one in ten, by its name alone, so that it never changes.

    Where this holds out none of several scenes, or all, the one with the lowest checksum is held out instead.
    """
    return _checksum(scene) % 10 == 0


def _checksum(scene: str) -> int:
    return zlib.crc32(os.fsencode(scene))


def select_nyuv2(source: Path, indices: list[int], scenes: list[str], split: str) -> list[int]:
    """Positions of the NYUv2 frames that belong to a split.

    Args:
        source: file or folder, for messages.
        indices: official index 0..1448 of each frame.
        scenes: scene of each frame.
        split: one of `SPLITS`; `train` and `val` divide the training part by scene.

    Returns:
        Positions into `indices`, ascending.

    Raises:
        InputError: no frame belongs to the split.
    """
    check_split(split)
    if split == "all":
        return list(range(len(indices)))
    if split == "test":
        chosen = [n for n, index in enumerate(indices) if index >= NYUV2_TRAIN_FRAMES]
        if not chosen:
            raise InputError(
                f"{source}: all {len(indices)} pairs are of the training part, expected official indices >="
                f" {NYUV2_TRAIN_FRAMES} for split test; use --split val"
            )
        return chosen
    training = [n for n, index in enumerate(indices) if index < NYUV2_TRAIN_FRAMES]
    return _by_scene(source, training, scenes, split)


def _by_scene(source: Path, positions: Iterable[int], scenes: list[str], split: str) -> list[int]:
    positions = list(positions)
    found = {scenes[n] for n in positions}
    held_out = {scene for scene in found if is_validation_scene(scene)}
    if len(found) > 1 and len(held_out) in (0, len(found)):  # of few scenes, chance may hold out none or all
        held_out = {min(found, key=_checksum)}
    chosen = [n for n in positions if (scenes[n] in held_out) == (split == "val")]
    if not chosen:
        raise InputError(f"{source}: holds {len(found)} scene, not for split {split}; expected at least two scenes")
    return chosen


@dataclass(frozen=True)
class _Entry:
    name: str
    scene: str
    rgb: Path
    depth: Path
    unit: str
    divisor: float | None  # file value / divisor = unit; None for depth in the unit of its file


class PairFolder:
    """Pairs in a folder: `<name>_rgb.*` with `<name>_depth.*` or `<name>_disp.*`, or sub-folders `rgb/` and `depth/`
    (or `disparity/`) with equal names.

    A `manifest.csv` in the folder (columns set, name, rgb, depth, kind, scale, scene; paths relative to it), or one in
    its parent that lists RGB images of the folder or its `rgb/`, says which pairs there are, of what kind, in what unit
    (file value / scale = metres, or disparity) and scene. A median depth that cannot be metres is warned of, once.
    Without one, `read_depth` finds the unit of depth (else integers are millimetres, floats metres), `_disp` and
    `disparity/` are disparity, and each pair is its own scene.

    Splits: NYUv2 (manifest set `nyuv2`, named by official index) has its usual test part, and `train` and `val` divide
    the training part by scene; `middlebury` and `lu` are for checking only; in any other folder `test` is every pair,
    and `train` and `val` divide them by scene.

    Args:
        folder: where the pairs are.
        split: one of `SPLITS`.
        invalid: further values of the files that mean no measurement, such as 65535.

    Raises:
        InputError: no such folder, no pairs, a file without its partner, a bad manifest, or an empty split.
    """

    def __init__(self, folder: str | Path, split: str = "all", invalid: Sequence[float] = ()) -> None:
        check_split(split)
        self.folder, self.invalid = Path(folder), tuple(invalid)
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder, expected a folder of {_PATTERNS}")
        set_name, entries = _manifest_entries(self.folder) or ("", _found_entries(self.folder))
        manifests = [place / "manifest.csv" for place in (self.folder, real_path(self.folder).parent)]
        self.files = [*(path for entry in entries for path in (entry.rgb, entry.depth)), *manifests]
        units = sorted({entry.unit for entry in entries})
        if len(units) > 1:
            raise InputError(f"{self.folder}: holds both depth and disparity, expected one kind in a folder")
        self._entries = [entries[n] for n in _select(self.folder, set_name, entries, split)]
        self.names = [entry.name for entry in self._entries]
        self.scenes = [entry.scene for entry in self._entries]
        self.unit = units[0]
        self.border = NYUV2_BORDER if set_name == "nyuv2" else 0
        self.title = f"{_TITLES.get(set_name, set_name or real_path(self.folder).name)}, split {split}"
        self._warned = False
        if invalid:
            self.title += f", without values {', '.join(f'{value:.10g}' for value in invalid)}"

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Pair:
        """Decode one pair; raises InputError if a file is bad or the sizes differ."""
        entry = self._entries[index]
        rgb = read_rgb(entry.rgb)
        if entry.unit == "disparity":
            depth = read_disparity(entry.depth, entry.divisor or 1.0, self.invalid)
        else:
            depth = read_depth(entry.depth, DepthEncoding(scale=entry.divisor, invalid=self.invalid))
            if not self._warned and (known := depth[np.isfinite(depth)]).size:
                hint = "is the scale of manifest.csv right?" if entry.divisor else "expected mm (integers), m (floats)"
                median = float(np.median(known))
                with _warning:
                    self._warned = self._warned or warn_of_unit(entry.depth, median, hint)
        if rgb.shape[:2] != depth.shape:
            raise InputError(
                f"{entry.depth}: is {depth.shape[1]}x{depth.shape[0]} pixels but {entry.rgb.name} is"
                f" {rgb.shape[1]}x{rgb.shape[0]}, expected equal sizes"
            )
        return Pair(entry.name, entry.scene, rgb, depth, entry.unit)


_TITLES = {"nyuv2": "NYU Depth v2", "middlebury": "Middlebury 2001-2006", "lu": "Lu 2014"}


def _select(folder: Path, set_name: str, entries: list[_Entry], split: str) -> list[int]:
    scenes = [entry.scene for entry in entries]
    everything = list(range(len(entries)))
    if set_name == "nyuv2":
        if bad := [entry.name for entry in entries if not entry.name.isdecimal()]:
            raise InputError(f"{folder}: NYUv2 pair is named {bad[0]!r}, expected its official index")
        return select_nyuv2(folder, [int(entry.name) for entry in entries], scenes, split)
    if split in ("all", "test"):
        return everything
    if set_name in CHECK_ONLY_SETS:
        raise InputError(f"{folder}: set {set_name} is for checking only: no split {split}, expected all or test")
    return _by_scene(folder, everything, scenes, split)


def _manifest_entries(folder: Path) -> tuple[str, list[_Entry]] | None:
    """Set name and pairs that a manifest lists for this folder, or None if there is none that does."""
    own, above = folder / "manifest.csv", real_path(folder).parent / "manifest.csv"
    rows, manifest = [], above
    if own.is_file():
        rows, manifest = _manifest_rows(own), own
        if not rows:
            raise InputError(f"{own}: lists no pair, expected a line for each")
    elif above.is_file():
        places = {real_path(folder), real_path(folder) / "rgb"}
        rows = _manifest_rows(above, anything=True)
        rows = [row for row in rows if real_path((above.parent / row["rgb"]).parent) in places]
    if not rows:
        return None
    sets = sorted({row["set"] for row in rows})
    if len(sets) > 1:
        raise InputError(f"{manifest}: lists sets {', '.join(sets)}, expected one set in a folder")
    seen: set[str] = set()
    names: set[str] = set()
    for row in rows:
        place = os.path.normpath(row["rgb"])
        if place in seen:
            raise InputError(f"{manifest}: lists {row['rgb']} twice, expected every pair once")
        seen.add(place)
        if not row["scene"].strip():
            raise InputError(f"{manifest}: the line of {row['name']!r} has no scene, expected a name of its room")
        if row["name"] in names:
            raise InputError(f"{manifest}: lists the name {row['name']} twice, expected every pair to have its own")
        names.add(row["name"])
    return sets[0], [_manifest_entry(manifest, row) for row in rows]


def _manifest_rows(manifest: Path, anything: bool = False) -> list[dict[str, str]]:
    """Its lines; none where it may be `anything` and has neither of our columns rgb and depth."""
    needed = {"set", "name", "rgb", "depth", "kind", "scale", "scene"}
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            found = set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{manifest}: cannot be read, expected a CSV file in UTF-8") from None
    if anything and not found & {"rgb", "depth"}:
        return []
    if missing := needed - found:
        commas = "" if len(found) > 1 else " with commas between them"
        raise InputError(
            f"{manifest}: lacks column {', '.join(sorted(missing))}, expected {', '.join(sorted(needed))}{commas}"
        )
    for row in rows:
        if any(row[column] is None for column in needed):
            raise InputError(f"{manifest}: the line of {row['name']!r} lacks cells, expected one per column")
    return rows


def _manifest_entry(manifest: Path, row: dict[str, str]) -> _Entry:
    if row["kind"] not in _KINDS:
        raise InputError(f"{manifest}: {row['name']} is of kind {row['kind']!r}, expected {' or '.join(_KINDS)}")
    try:
        divisor = float(row["scale"])
    except ValueError:
        divisor = 0.0
    if not 0 < divisor < float("inf"):
        raise InputError(f"{manifest}: {row['name']} has scale {row['scale']!r}, expected a number > 0")
    rgb, depth = manifest.parent / row["rgb"], manifest.parent / row["depth"]
    for path in (rgb, depth):
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected because {manifest.name} lists it")
    return _Entry(row["name"], row["scene"], rgb, depth, _KINDS[row["kind"]], divisor)


def _found_entries(folder: Path) -> list[_Entry]:
    colours = _stems(folder, "_rgb", RGB_SUFFIXES)
    sources = [("m", _stems(folder, "_depth", DEPTH_SUFFIXES)), ("disparity", _stems(folder, "_disp", DEPTH_SUFFIXES))]
    if not colours and (folder / "rgb").is_dir():
        colours = _stems(folder / "rgb", "", RGB_SUFFIXES)
        sources = [("m", _stems(folder / "depth", "", DEPTH_SUFFIXES))]
        sources.append(("disparity", _stems(folder / "disparity", "", DEPTH_SUFFIXES)))
    if not colours:
        inside = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())[:5])
        found = f"holds no pairs itself, only folders ({inside}); expected one of them, or" if inside else ""
        raise InputError(f"{folder}: {found or 'holds no pairs, expected'} {_PATTERNS}")
    entries = []
    for unit, partners in sources:
        if orphans := sorted(set(partners) - set(colours)):
            raise InputError(f"{partners[orphans[0]]}: has no RGB image beside it, expected {_PATTERNS}")
        entries += [_Entry(name, name, colours[name], partners[name], unit, None) for name in sorted(partners)]
    if orphans := sorted(set(colours) - {entry.name for entry in entries}):
        raise InputError(f"{colours[orphans[0]]}: has no depth beside it, expected {_PATTERNS}")
    return sorted(entries, key=lambda entry: entry.name)


def _stems(folder: Path, ending: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files whose stem ends so, by the stem without that ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.stem.removesuffix(ending)
        fits = path.suffix.lower() in suffixes and path.stem.endswith(ending)
        if fits and name and not path.name.startswith("."):  # macOS leaves ._ beside every file
            if not path.is_file():  # a pipe has no end, maybe
                raise InputError(f"{path}: is no file, expected one")
            if name in found:
                raise InputError(f"{path}: has the same name as {found[name].name}, expected one file for {name!r}")
            found[name] = path
    return found
