"""One channel -> the bytes of a file, values exactly as they are, with a record of what they mean."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from depthup.data.extras import load_extra
from depthup.data.record import record_text


def encode_plane(path: Path, plane: np.ndarray, name: str, record: Mapping[str, str]) -> bytes:
    """Encode as the ending of the path says.

    Args:
        path: `.png`, `.tif`, `.tiff`, `.exr`, `.pfm`, `.npy` or `.npz`.
        plane: uint16 [H, W] for `.png`, float32 [H, W] for the others.
        name: of the array in a `.npz` file; depth is channel Z of an EXR file, anything else Y.
        record: what to note, by name; `.pfm` and `.npy` have no room for it.

    Returns:
        The content of the file.
    """
    file = io.BytesIO()
    match path.suffix.lower():
        case ".png":
            _save_png(file, plane, record)
        case ".tif" | ".tiff":
            _save_tiff(file, plane, record)
        case ".exr":
            _save_exr(path, file, plane, "Z" if name == "depth" else "Y", record)
        case ".pfm":
            height, width = plane.shape
            file.write(f"Pf\n{width} {height}\n-1.0\n".encode())  # a negative scale says little-endian
            file.write(plane[::-1].astype("<f4").tobytes())
        case ".npy":
            np.save(file, plane)
        case ".npz":
            arrays: dict[str, Any] = {name: plane, **record}
            np.savez_compressed(file, **arrays)
        case suffix:
            raise ValueError(f"{suffix!r} is no ending of a one-channel file")
    return file.getvalue()


def _save_png(file: io.BytesIO, plane: np.ndarray, record: Mapping[str, str]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", record["software"])
    text.add_text("Description", record_text(record))
    # level 1: four times faster than PIL's default and a third larger
    Image.fromarray(plane).save(file, "PNG", pnginfo=text, compress_level=1)


def _save_tiff(file: io.BytesIO, plane: np.ndarray, record: Mapping[str, str]) -> None:
    import tifffile

    tifffile.imwrite(
        file,
        plane,
        photometric="minisblack",
        metadata=None,
        description=record_text(record),
        software=record["software"],
    )


def _save_exr(path: Path, file: io.BytesIO, plane: np.ndarray, channel: str, record: Mapping[str, str]) -> None:
    exr = load_extra(path, "OpenEXR", "exr")
    header = {
        "compression": exr.ZIP_COMPRESSION,
        "type": exr.scanlineimage,
        "software": record["software"],
        "comments": record_text(record),
    }
    exr.File(header, {channel: np.ascontiguousarray(plane)}).write(file)
