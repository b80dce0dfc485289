"""NYU Depth v2, labelled set, from its official file `nyu_depth_v2_labeled.mat` (Silberman et al., ECCV 2012)."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from depthup.data.depth_encoding import warn_of_unit
from depthup.data.errors import InputError
from depthup.data.pairs import NYUV2_BORDER, Pair, check_split, select_nyuv2

_LAYOUT = "`images` uint8 [N, 3, width, height] and `depths` float [N, width, height]"
_PSEUDO_SCENE_FRAMES = 20


class NYUv2Mat:
    """Pairs of the official file, an HDF5 file (MATLAB 7.3) of 1449 frames of 640x480.

    `images` and `depths` (metres, in-painted by the authors) are stored width before height and are turned. A data set
    `indices` (int [N], not in the official file) gives each frame's official index; without it that is the position.
    Frames 0-999 are the training part, 1000-1448 the test part; `train` and `val` divide the training part by scene. If
    the file has no `scenes`, blocks of 20 consecutive indices stand in for scenes: `val` may then show a room that
    `train` shows too, where a block begins or ends.

    Each process opens the file for itself at its first pair, so it may be used in the workers of a `DataLoader`.

    Args:
        path: the `.mat` file.
        split: one of `SPLITS`.

    Raises:
        InputError: no such file, not HDF5, truncated, another layout, or an empty split.
    """

    unit = "m"
    border = NYUV2_BORDER

    def __init__(self, path: str | Path, split: str = "all") -> None:
        check_split(split)
        self.path = Path(path)
        self._files: dict[int, h5py.File] = {}
        self._warned = False
        with _open(self.path) as file:
            count = _check_layout(self.path, file)
            indices = _indices(self.path, file, count)
            scenes = _scenes(self.path, file, count)
        if scenes is None:
            scenes = [_pseudo_scene(index) for index in indices]
        self._frames = select_nyuv2(self.path, indices, scenes, split)
        self.names = [f"{indices[frame]:04d}" for frame in self._frames]
        self.scenes = [scenes[frame] for frame in self._frames]
        self.title = f"NYU Depth v2, split {split}"

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Pair:
        """Read one pair; raises InputError if the file is damaged there or a depth is negative."""
        frame = self._frames[index]
        file = self._file()
        try:
            rgb = np.ascontiguousarray(file["images"][frame].transpose(2, 1, 0))
            depth = np.ascontiguousarray(file["depths"][frame].T.astype(np.float32))
        except OSError:
            raise InputError(f"{self.path}: frame {frame} cannot be read, expected an intact file") from None
        if (depth < 0).any():
            raise InputError(f"{self.path}: depth of frame {frame} is negative, expected metres > 0")
        depth[~np.isfinite(depth) | (depth == 0)] = np.nan
        if not self._warned and (known := depth[np.isfinite(depth)]).size:
            self._warned = warn_of_unit(self.path, float(np.median(known)), f"frame {frame}; expected metres")
        return Pair(self.names[index], self.scenes[index], rgb, depth, self.unit)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: another process opens its own."""
        return {**self.__dict__, "_files": {}}

    def _file(self) -> h5py.File:
        # By process: a handle that crossed a fork would share its position with the parent.
        process = os.getpid()
        return self._files.get(process) or self._files.setdefault(process, _open(self.path))


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}, expected nyu_depth_v2_labeled.mat")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: is not an HDF5 file, expected nyu_depth_v2_labeled.mat (MATLAB 7.3)")
    try:
        return h5py.File(path, "r")
    except OSError:
        raise InputError(f"{path}: cannot be opened (truncated?), expected a whole nyu_depth_v2_labeled.mat") from None


def _check_layout(path: Path, file: h5py.File) -> int:
    """Number of frames, after checking names, types and shapes."""
    missing = [name for name in ("images", "depths") if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        raise InputError(f"{path}: has no data set {' and no '.join(missing)}, expected {_LAYOUT}")
    images, depths = file["images"], file["depths"]
    kinds = images.dtype == np.uint8 and depths.dtype.kind == "f"
    shapes = images.ndim == 4 and depths.ndim == 3 and images.shape[1] == 3
    if not kinds or not shapes or (images.shape[0], *images.shape[2:]) != depths.shape or not images.size:
        found = f"images {images.dtype} {list(images.shape)} and depths {depths.dtype} {list(depths.shape)}"
        raise InputError(f"{path}: holds {found}, expected {_LAYOUT}")
    return len(images)


def _indices(path: Path, file: h5py.File, count: int) -> list[int]:
    if "indices" not in file:
        return list(range(count))
    indices = np.asarray(file["indices"][()])
    if indices.shape != (count,) or indices.dtype.kind not in "iu" or indices.min() < 0:
        raise InputError(
            f"{path}: indices is {indices.dtype} {list(indices.shape)}, expected {count} integers >= 0, one per frame"
        )
    return [int(index) for index in indices]


def _scenes(path: Path, file: h5py.File, count: int) -> list[str] | None:
    """Scene of each frame: MATLAB's cell array is object references to arrays of UTF-16 codes."""
    if "scenes" not in file:
        return None
    references = file["scenes"][()].ravel()
    if len(references) != count or h5py.check_ref_dtype(file["scenes"].dtype) is not h5py.Reference:
        found = f"{len(references)} entries of {file['scenes'].dtype}"
        raise InputError(f"{path}: scenes holds {found}, expected a reference for each of {count} frames")
    try:
        return [file[reference][()].astype("<u2").tobytes().decode("utf-16-le") for reference in references]
    except (ValueError, KeyError, AttributeError):
        raise InputError(f"{path}: scenes cannot be read, expected references to arrays of characters") from None


def _pseudo_scene(index: int) -> str:
    first = index // _PSEUDO_SCENE_FRAMES * _PSEUDO_SCENE_FRAMES
    return f"frames {first:04d}-{first + _PSEUDO_SCENE_FRAMES - 1:04d}"
