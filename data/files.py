"""Reading RGB, depth and disparity files, never guessing and never clipping silently."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from depthup.data.errors import InputError

DEPTH_UNITS = {"mm": 1000.0, "m": 1.0, "tum": 5000.0, "kitti": 256.0}
"""Name of a depth unit -> the number that divides a file's value to give metres."""

RGB_SUFFIXES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".webp")
DEPTH_SUFFIXES = (".png", ".jp2", ".tif", ".tiff", ".npy")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_CODESTREAM_SIGNATURE = b"\xff\x4f\xff\x51"

_log_lock = threading.Lock()
_log_users = 0
_log_level = 0


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Silence OpenCV's log while any thread decodes: what it would print is raised as InputError instead."""
    global _log_users, _log_level
    logging = cv2.utils.logging
    with _log_lock:
        if _log_users == 0:
            _log_level = logging.getLogLevel()
            logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        _log_users += 1
    try:
        yield
    finally:
        with _log_lock:
            _log_users -= 1
            if _log_users == 0:
                logging.setLogLevel(_log_level)


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected an image file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected an image file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected an image file") from None
    if not content:
        raise InputError(f"{path}: is empty (0 bytes), expected an image file")
    return content


def _png_fault(content: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, or None."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(content):
            break
        if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return f"is a damaged PNG (checksum of chunk {kind.decode('ascii', 'replace')} is wrong)"
        if kind == b"IEND":
            return None
        position = end
    return "is a truncated PNG (its end is missing)"


def _jpeg_fault(content: bytes) -> str | None:
    """What is wrong with the markers of a JPEG file, or None."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xDA:
            # Only after the start of scan: an EXIF thumbnail before it has an end marker of its own.
            return None if content.find(b"\xff\xd9", position) >= 0 else "is a truncated JPEG (its end is missing)"
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return "is a truncated JPEG (it holds no image data)"


def _jpeg_2000_fault(content: bytes) -> str | None:
    """What is wrong with the boxes or the end of a JPEG 2000 file, or None."""
    truncated = "is a truncated JPEG 2000 (its end is missing)"
    position = 0
    while content.startswith(_JP2_SIGNATURE) and position + 8 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        if length == 1:
            length = int.from_bytes(content[position + 8 : position + 16], "big")
        end = position + length if length else len(content)
        if end > len(content) or end < position + 8:
            return truncated
        if kind == b"jp2c":
            return None if content[:end].rstrip(b"\0").endswith(b"\xff\xd9") else truncated
        position = end
    whole = content.startswith(_CODESTREAM_SIGNATURE) and content.rstrip(b"\0").endswith(b"\xff\xd9")
    return None if whole else truncated


def _fault(content: bytes) -> str | None:
    """What is structurally wrong with an image file, or None: OpenCV decodes some truncated files in part."""
    if content.startswith(_PNG_SIGNATURE):
        return _png_fault(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg_fault(content)
    if content.startswith((_JP2_SIGNATURE, _CODESTREAM_SIGNATURE)):
        return _jpeg_2000_fault(content)
    return None


def _decode(path: Path, flags: int) -> np.ndarray:
    content = _read_bytes(path)
    fault = _fault(content)
    if fault:
        raise InputError(f"{path}: {fault}, expected a whole image file")
    try:
        with _silent_opencv():
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path}: cannot be decoded, expected an intact image (PNG, JPEG, JPEG 2000, TIFF)")
    return image


def read_rgb(path: str | Path) -> np.ndarray:
    """Read an 8-bit colour image.

    The EXIF orientation is applied, as OpenCV does by default; alpha is dropped; a grey image is replicated.

    Args:
        path: PNG, JPEG, JPEG 2000, TIFF, BMP or WebP file.

    Returns:
        uint8 [H, W, 3], RGB, 0..255.

    Raises:
        InputError: the file is missing, a folder, empty, truncated, not an image, or has more than 8 bits per channel.
    """
    path = Path(path)
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image.dtype != np.uint8:
        raise InputError(f"{path}: RGB holds {image.dtype} values, expected 8 bits per channel; is this the depth map?")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_npy(path: Path) -> np.ndarray:
    if path.is_dir() or not path.exists():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a .npy array")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise InputError(f"{path}: cannot be read as a .npy array, expected a whole file holding numbers") from None


def _read_plane(path: Path, what: str) -> np.ndarray:
    """One-channel image as stored, [H, W], of unsigned 8 or 16 bits, integer, or float."""
    image = _read_npy(path) if path.suffix.lower() == ".npy" else _decode(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 3:
        raise InputError(f"{path}: {what} has {image.shape[2]} channels, expected one (a colour picture is no {what})")
    if image.ndim != 2 or image.size == 0:
        raise InputError(f"{path}: {what} has shape {list(image.shape)}, expected [height, width]")
    if image.dtype.kind not in "uif":
        raise InputError(f"{path}: {what} holds {image.dtype} values, expected integers or floats")
    return image


def _to_float(path: Path, image: np.ndarray, divisor: float, what: str) -> np.ndarray:
    """float32 [H, W], file value / divisor, NaN where the file holds 0, NaN or infinity."""
    with np.errstate(over="ignore"):
        values = image.astype(np.float32)
    finite = np.isfinite(values)
    if image.dtype.kind != "u" and (negative := np.count_nonzero(values[finite] < 0)):
        raise InputError(f"{path}: {what} is negative at {negative} pixels, expected > 0, and 0 for no measurement")
    values /= np.float32(divisor)
    values[~finite | (values == 0)] = np.nan
    return values


def read_depth(path: str | Path, unit: str = "auto") -> np.ndarray:
    """Read a depth map in metres.

    Args:
        path: one-channel PNG, JPEG 2000 or TIFF of 16-bit integers, float TIFF, or .npy array of floats or integers.
        unit: what the file's values are, one of `DEPTH_UNITS`: mm, m, tum (5000 per metre), kitti (256 per metre); or
            `auto`: millimetres for integers, metres for floating-point numbers.

    Returns:
        float32 [H, W] in metres, NaN where there is no measurement (0, NaN or infinity in the file).

    Raises:
        InputError: the file is missing, a folder, empty, truncated or not an image, or it holds 8-bit values, more than
            one channel or negative values.
        ValueError: `unit` is not in `DEPTH_UNITS`.
    """
    if unit != "auto" and unit not in DEPTH_UNITS:
        raise ValueError(f"depth unit {unit!r} is unknown, expected auto or one of {', '.join(DEPTH_UNITS)}")
    return read_scaled_depth(path, None if unit == "auto" else DEPTH_UNITS[unit])


def read_scaled_depth(path: str | Path, divisor: float | None) -> np.ndarray:
    """Read a depth map whose value / `divisor` is metres (None: as unit `auto`); otherwise as `read_depth`."""
    path = Path(path)
    image = _read_plane(path, "depth")
    if image.dtype.itemsize == 1:
        raise InputError(
            f"{path}: 8-bit depth holds 256 levels, too few to be metric; pass a 16-bit image (or float TIFF, .npy)"
        )
    if divisor is None:
        divisor = DEPTH_UNITS["m" if image.dtype.kind == "f" else "mm"]
    return _to_float(path, image, divisor, "depth")


def read_disparity(path: str | Path, divisor: float = 1.0) -> np.ndarray:
    """Read a disparity map in its own unit.

    Args:
        path: one-channel image of 8-bit or 16-bit integers, float TIFF, or .npy array.
        divisor: file value / divisor = disparity.

    Returns:
        float32 [H, W], larger is nearer, NaN where there is no measurement (0, NaN or infinity in the file).

    Raises:
        InputError: as `read_depth`, but 8-bit values are accepted.
    """
    path = Path(path)
    return _to_float(path, _read_plane(path, "disparity"), divisor, "disparity")
