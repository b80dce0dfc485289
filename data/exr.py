"""Depth in OpenEXR files, as Record3D exports it. OpenCV's wheels cannot read them, so this needs a package."""

from pathlib import Path

import numpy as np

from depthup.data.errors import InputError

_CHANNELS = ("Z", "R", "Y")


def read_exr(path: str | Path) -> np.ndarray:
    """The depth channel of an OpenEXR file: Z, R, Y, or the only one.

    Returns:
        float32 [H, W] as stored: no measurement may be 0, NaN or infinity; Record3D stores metres.

    Raises:
        InputError: the file is missing or cannot be read, it has no such channel, or the package is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected an OpenEXR file")
    try:
        import OpenEXR
    except ImportError:
        raise InputError(f"{path}: reading OpenEXR needs the package OpenEXR; pip install openexr") from None
    try:
        channels = OpenEXR.File(str(path), separate_channels=True).channels()
    except (RuntimeError, ValueError, TypeError):
        raise InputError(f"{path}: cannot be decoded, expected a whole OpenEXR file") from None
    names = [name for name in _CHANNELS if name in channels] or list(channels)
    if len(channels) != 1 and names[0] not in _CHANNELS:
        raise InputError(f"{path}: has channels {', '.join(names)}, expected one of {', '.join(_CHANNELS)}")
    return np.asarray(channels[names[0]].pixels, np.float32)
