"""From what a user names to a data set."""

from pathlib import Path

from depthup.data.errors import InputError
from depthup.data.motorcycle import Motorcycle
from depthup.data.nyuv2 import NYUv2Mat
from depthup.data.pairs import PairDataset, PairFolder
from depthup.data.synthetic import Synthetic


def open_dataset(path: str | Path, split: str = "all") -> PairDataset:
    """Open a data set.

    Args:
        path: `synthetic`, `motorcycle`, the official NYUv2 `.mat` file, or a folder of pairs (see `PairFolder`).
        split: `all`, `train`, `val` or `test`.

    Returns:
        The data set.

    Raises:
        InputError: it is none of these, or it cannot be used.
        ValueError: unknown split.
    """
    if str(path) == "motorcycle":
        return Motorcycle(split)
    if str(path) == "synthetic":
        return Synthetic(split)
    place = Path(path)
    if place.suffix.lower() == ".mat":
        return NYUv2Mat(place, split)
    if place.is_dir():
        return PairFolder(place, split)
    found = "is a file" if place.exists() else "no such file or folder"
    raise InputError(
        f"{path}: {found}, expected a folder of pairs, nyu_depth_v2_labeled.mat, `synthetic` or `motorcycle`"
    )
