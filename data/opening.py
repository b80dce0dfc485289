"""From what a user names to a data set."""

from collections.abc import Sequence
from pathlib import Path

from depthup.data.errors import InputError, UsageError
from depthup.data.motorcycle import Motorcycle
from depthup.data.nyuv2 import NYUv2Mat
from depthup.data.pairs import PairDataset, PairFolder
from depthup.data.synthetic import Synthetic


def open_dataset(path: str | Path, split: str = "all", invalid: Sequence[float] = ()) -> PairDataset:
    """Open a data set.

    Args:
        path: `synthetic`, `motorcycle`, the official NYUv2 `.mat` file, or a folder of pairs (see `PairFolder`).
        split: `all`, `train`, `val` or `test`.
        invalid: further values of the depth files of a folder that mean no measurement, such as 65535.

    Returns:
        The data set.

    Raises:
        InputError: it is none of these, or it cannot be used.
        UsageError: `invalid` for what is no folder of pairs; unknown split.
    """
    place = Path(path)
    if invalid and (str(path) in ("motorcycle", "synthetic") or place.suffix.lower() == ".mat"):
        raise UsageError(f"{path}: --invalid is for the files of a folder of pairs; expected a folder, or no --invalid")
    if str(path) == "motorcycle":
        return Motorcycle(split)
    if str(path) == "synthetic":
        return Synthetic(split)
    if place.suffix.lower() == ".mat":
        return NYUv2Mat(place, split)
    if place.is_dir():
        return PairFolder(place, split, invalid)
    found = "is a file" if place.exists() else "no such file or folder"
    raise InputError(
        f"{path}: {found}, expected a folder of pairs, nyu_depth_v2_labeled.mat, `synthetic` or, to"
        " evaluate on, `motorcycle`"
    )


def input_files(dataset: PairDataset) -> list[Path]:
    """The user's files that a data set of `open_dataset` reads, and that nothing may be written over."""
    if isinstance(dataset, NYUv2Mat):
        return [dataset.path]
    return dataset.files if isinstance(dataset, PairFolder) else []
