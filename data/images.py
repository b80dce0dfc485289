"""Decoding image files: OpenCV's formats, whose faults are named, and HEIC."""

import io
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthup.data.errors import InputError
from depthup.data.extras import load_extra

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_CODESTREAM_SIGNATURE = b"\xff\x4f\xff\x51"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_opencv_log: Any = getattr(cv2.utils, "logging", cv2)  # where its level is set, from 4.13 on and before
_SILENT = 0
_log_lock = threading.Lock()
_log_users = 0
_log_level = 0


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Silence OpenCV's log while any thread decodes: what it would print is raised as InputError instead."""
    global _log_users, _log_level
    with _log_lock:
        if _log_users == 0:
            _log_level = _opencv_log.getLogLevel()
            _opencv_log.setLogLevel(_SILENT)
        _log_users += 1
    try:
        yield
    finally:
        with _log_lock:
            _log_users -= 1
            if _log_users == 0:
                _opencv_log.setLogLevel(_log_level)


def read_bytes(path: Path, what: str) -> bytes:
    """A file's content; raises InputError if there is none."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected {what}")
    if path.is_char_device():  # such as /dev/zero, which has no end
        raise InputError(f"{path}: is a device, expected {what}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {what}") from None
    if not content:
        raise InputError(f"{path}: is empty (0 bytes), expected {what}")
    return content


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Type, data and checksum of each chunk of a PNG file that is there in full."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        if end > len(content):
            return
        yield content[position + 4 : position + 8], content[position + 8 : end - 4], content[end - 4 : end]
        position = end


def _png_fault(content: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, or None."""
    for kind, data, checksum in png_chunks(content):
        if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            return f"is a damaged PNG (checksum of chunk {kind.decode('ascii', 'replace')} is wrong)"
        if kind == b"IEND":
            return None
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
    if content.startswith(PNG_SIGNATURE):
        return _png_fault(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg_fault(content)
    if content.startswith((_JP2_SIGNATURE, _CODESTREAM_SIGNATURE)):
        return _jpeg_2000_fault(content)
    return None


def decode_image(path: Path, content: bytes, flags: int, formats: str) -> np.ndarray:
    """Decode any format of OpenCV, channels in the order B, G, R; raises InputError that names the formats."""
    fault = _fault(content)
    if fault:
        raise InputError(f"{path}: {fault}, expected a whole image file")
    try:
        with _silent_opencv():
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path}: cannot be decoded, expected an intact file ({formats})")
    return image


def is_webp(content: bytes) -> bool:
    """Whether a file begins as WebP does."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def decode_webp(path: Path, content: bytes) -> np.ndarray:
    """Decode WebP, upright: uint8 [H, W, 3], RGB; raises InputError. OpenCV before 4.13 turns none by its EXIF."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(Exception):  # damaged EXIF raises many kinds, and is not needed
                ImageOps.exif_transpose(image, in_place=True)
            return np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise many kinds
        raise InputError(f"{path}: cannot be decoded, expected an intact WebP file") from error


def is_heic(content: bytes) -> bool:
    """Whether a file begins as HEIC or HEIF does; phones give such files the ending .jpg, too."""
    return content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS


def decode_heic(path: Path, content: bytes) -> np.ndarray:
    """Decode HEIC, upright: uint8 or uint16 [H, W, 3], RGB; raises InputError."""
    heif = load_extra(path, "pillow_heif", "heic")
    try:
        # the container's rotation is applied by the decoder; EXIF repeats it, and must not be applied again
        image = np.array(heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False))
    except Exception as error:  # the decoder raises many kinds for damaged files
        raise InputError(f"{path}: cannot be decoded, expected an intact HEIC file") from error
    if image.ndim == 2:
        image = image[:, :, None]
    return np.repeat(image[:, :, :1], 3, 2) if image.shape[2] < 3 else np.ascontiguousarray(image[:, :, :3])
