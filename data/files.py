"""Reading RGB, depth, disparity, mask and confidence files, never guessing and never clipping silently."""

from pathlib import Path

import cv2
import numpy as np

from depthup.data.depth_encoding import DepthEncoding, check_positive, measured, spread, to_metres, warn_of_largest
from depthup.data.errors import InputError
from depthup.data.images import TIFF_SIGNATURES, decode_heic, decode_image, decode_webp, is_heic, is_webp, read_bytes
from depthup.data.planes import EIGHT_BITS, read_plane, tiff_of_rgb
from depthup.data.record import recorded_scale

RGB_SUFFIXES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".webp", ".heic", ".heif")
DEPTH_SUFFIXES = (".png", ".jp2", ".tif", ".tiff", ".pgm", ".exr", ".pfm", ".npy", ".npz")

RAW_SUFFIXES = (".bin", ".raw", ".conf")
"""Endings of confidence files that are bare bytes."""


def read_rgb(path: str | Path) -> np.ndarray:
    """Read an 8-bit colour image, upright.

    The EXIF orientation is applied, of HEIC the container's; alpha is dropped; a grey image is replicated.

    Args:
        path: PNG, JPEG, JPEG 2000, TIFF, BMP or WebP file, or HEIC with the extra `heic`.

    Returns:
        uint8 [H, W, 3], RGB, 0..255.

    Raises:
        InputError: the file is missing, a folder, empty, truncated or no image; it has more than 8 bits per channel or
            several images; or the extra that it needs is not installed.
    """
    path = Path(path)
    content = read_bytes(path, "an image file")
    if is_heic(content):
        image = decode_heic(path, content)
    elif is_webp(content):
        image = decode_webp(path, content)
    else:
        if content.startswith(TIFF_SIGNATURES):
            content = tiff_of_rgb(path, content)
        formats = "PNG, JPEG, JPEG 2000, TIFF, BMP, WebP, HEIC"
        image = decode_image(path, content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, formats)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.dtype == np.uint8 else image
    if image.dtype != np.uint8:
        raise InputError(f"{path}: RGB holds {image.dtype} values, {EIGHT_BITS}")
    return image


def read_depth(path: str | Path, unit: str | DepthEncoding = "auto") -> np.ndarray:
    """Read a depth map in metres; integers at the very end of the file's type are warned of, see `warn_of_largest`.

    Args:
        path: one channel of integers of 16 or more bits or of floats: PNG, JPEG 2000, TIFF, PGM, PFM, .npy, .npz (one
            array, or the one named depth), or EXR with the extra `exr` (one channel, or the first of Z, depth, V, Y,
            R).
        unit: what the file's values are: one of `DEPTH_UNITS`, `auto`, or a `DepthEncoding` that says more.

    Returns:
        float32 [H, W] in metres, NaN where there is no measurement (0, NaN, infinity or a value in `invalid`).

    Raises:
        InputError: the file is missing, a folder, empty, truncated or not an image, the extra that it needs is not
            installed, or it holds 8-bit depth (8-bit disparity is accepted), more than one channel or negative values.
        ValueError: `unit` is not in `DEPTH_UNITS`.
    """
    path = Path(path)
    encoding = unit if isinstance(unit, DepthEncoding) else DepthEncoding(unit)
    what = "disparity" if encoding.kind == "disparity" else "depth"
    image, record = read_plane(path, what)
    if image.dtype.itemsize == 1 and what == "depth":
        raise InputError(
            f"{path}: 8-bit depth holds 256 levels, too few to be metric; pass a 16-bit image (or float TIFF, .npy)"
        )
    warn_of_largest(path, image, encoding.invalid)
    return to_metres(path, image, encoding, recorded_scale(path, record))


def read_disparity(path: str | Path, divisor: float = 1.0, invalid: tuple[float, ...] = ()) -> np.ndarray:
    """Read a disparity map in its own unit.

    Args:
        path: as `read_depth`, 8-bit integers included.
        divisor: file value / divisor = disparity.
        invalid: further values of the file that mean no measurement.

    Returns:
        float32 [H, W], larger is nearer, NaN where there is no measurement (0, NaN, infinity or one of `invalid`).

    Raises:
        InputError: as `read_depth`, but 8-bit values are accepted.
    """
    path = Path(path)
    image, _ = read_plane(path, "disparity")
    known = measured(image, invalid)
    values = image[known].astype(np.float64) / divisor
    check_positive(path, values, "disparity")
    return spread(path, known, values, "disparity")


def read_mask(path: str | Path, shape: tuple[int, int]) -> np.ndarray:
    """Read where depth is valid.

    Args:
        path: one channel of 8 bits or of booleans: PNG, TIFF, or .npy.
        shape: height and width of the depth map that it belongs to.

    Returns:
        bool [H, W], true where the file is not 0.

    Raises:
        InputError: the file is bad, of another size, or holds other values.
    """
    path = Path(path)
    image, _ = read_plane(path, "mask", "uifb")
    if image.dtype not in (np.uint8, np.bool_):
        raise InputError(f"{path}: mask holds {image.dtype} values, expected 8 bits or booleans, not 0 = valid")
    _check_size(path, image, shape, "mask")
    return image != 0


def read_confidence(path: str | Path, shape: tuple[int, int]) -> np.ndarray:
    """Read the confidence of a depth map, as ARKit gives it.

    Args:
        path: one channel of 8 bits: PNG, TIFF or .npy; or bare bytes, row after row, in a file that ends as in
            `RAW_SUFFIXES`.
        shape: height and width of the depth map that it belongs to.

    Returns:
        uint8 [H, W]: 0 low, 1 medium, 2 high.

    Raises:
        InputError: the file is bad, of another size, or holds other values.
    """
    path = Path(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        content = read_bytes(path, "confidence of 8 bits a pixel")
        if len(content) != shape[0] * shape[1]:
            raise InputError(
                f"{path}: confidence is {len(content)} bytes, expected {shape[0] * shape[1]} for"
                f" {shape[1]}x{shape[0]} pixels of depth"
            )
        image = np.frombuffer(content, np.uint8).reshape(shape).copy()
    else:
        image, _ = read_plane(path, "confidence")
    if image.dtype != np.uint8:
        raise InputError(f"{path}: confidence holds {image.dtype} values, expected 8 bits: 0 low, 1 medium, 2 high")
    _check_size(path, image, shape, "confidence")
    if image.max() > 2:
        raise InputError(f"{path}: confidence holds {image.max()}, expected 0 low, 1 medium or 2 high")
    return image


def _check_size(path: Path, image: np.ndarray, shape: tuple[int, int], what: str) -> None:
    if image.shape != tuple(shape):
        raise InputError(
            f"{path}: {what} is {image.shape[1]}x{image.shape[0]} pixels, expected {shape[1]}x{shape[0]} as the depth"
        )
