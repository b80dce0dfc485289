"""Decoding one-channel files: PNG, TIFF, JPEG 2000, PGM, EXR, PFM, NumPy; values as stored, and depthup's record."""

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthup.data.errors import InputError, listed
from depthup.data.exr import decode_exr
from depthup.data.images import PNG_SIGNATURE, TIFF_SIGNATURES, decode_image, is_webp, png_chunks, read_bytes
from depthup.data.record import RECORDED, Record, parse_record

log = logging.getLogger("depthup")

EIGHT_BITS = "expected 8 bits per channel; is this the depth map?"
_FORMATS = "PNG, TIFF, JPEG 2000, PGM, EXR, PFM, .npy, .npz"
_ORIENTATION = 0x0112
_EXTRA_SAMPLES = 0x0152
_PFM_HEADER = re.compile(rb"P([fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,40})(?:\r?\n|[ \t])")


def read_plane(path: Path, what: str, kinds: str = "uif") -> tuple[np.ndarray, Record]:
    """Read a one-channel file, whatever its ending says.

    Args:
        path: file.
        what: what it holds, for messages, and the array's name in a .npz file: depth, disparity, mask, confidence.
        kinds: NumPy's letters of the types that are allowed.

    Returns:
        [H, W] as stored, and what depthup recorded in the file (empty if nothing).

    Raises:
        InputError: the file is missing, damaged, of another format, or not one channel of these types.
    """
    content = read_bytes(path, "an image file")
    image, record = _decode(path, content, what)
    if "confidence_scale" in record and what in ("depth", "disparity"):
        raise InputError(f"{path}: is a confidence map that depthup wrote, expected {what}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 3:
        raise InputError(f"{path}: {what} has {image.shape[2]} channels, expected one (a colour picture is no {what})")
    if image.ndim != 2 or image.size == 0:
        raise InputError(f"{path}: {what} has shape {list(image.shape)}, expected [height, width]")
    if content.startswith(b"\xff\xd8\xff") or is_webp(content):
        raise InputError(f"{path}: is a JPEG or WebP file, which alters values; expected {what} in {_FORMATS}")
    if image.dtype.kind not in kinds:
        raise InputError(f"{path}: {what} holds {image.dtype} values, expected integers or floats")
    return image, record


def _decode(path: Path, content: bytes, what: str) -> tuple[np.ndarray, Record]:
    if content.startswith(b"\x93NUMPY"):
        return _decode_npy(path, content), {}
    if content.startswith(b"PK\x03\x04"):
        return _decode_npz(path, content, what)
    if content.startswith(b"v/1\x01"):
        return decode_exr(path, content, what)
    if re.match(rb"P[fF]\s", content):
        return _decode_pfm(path, content, what), {}
    record: Record = {}
    orientation = 1
    if content.startswith(TIFF_SIGNATURES):
        page = first_page(path, content)
        record = _tiff_record(path, page, what)
        content, orientation = _not_to_be_turned(content, page)
    elif content.startswith(PNG_SIGNATURE):
        record, orientation = _png_facts(content)
    image = decode_image(path, content, cv2.IMREAD_UNCHANGED, _FORMATS)
    if orientation in range(2, 9):
        log.warning("%s: %s is taken as stored, not turned by its orientation (%d)", path, what, orientation)
    return image, record


def _png_facts(content: bytes) -> tuple[Record, Any]:
    """depthup's record, and the orientation of EXIF."""
    record: Record | None = None
    orientation = 1
    for kind, data, _ in png_chunks(content):
        if kind == b"tEXt" and record is None and data.startswith(b"Description\0"):
            record = parse_record(data.partition(b"\0")[2].decode("latin-1"))
        elif kind == b"eXIf":
            orientation = _exif_orientation(data)
    return record or {}, orientation


def _exif_orientation(exif: bytes) -> Any:
    import tifffile

    try:
        with _silent_tifffile(), tifffile.TiffFile(io.BytesIO(exif)) as tiff:
            return tiff.pages.first.tags.valueof(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises many kinds, and is not needed
        return 1


@contextmanager
def _silent_tifffile() -> Iterator[None]:
    """Silence tifffile's remarks on odd tags: pixels were decoded already, and what matters is raised."""
    remarks = logging.getLogger("tifffile")

    def nothing(_: logging.LogRecord) -> bool:
        return False

    remarks.addFilter(nothing)
    try:
        yield
    finally:
        remarks.removeFilter(nothing)


def _tiff_record(path: Path, first: Any, what: str) -> Record:
    """depthup's record; raises InputError where OpenCV's first page, as stored, is not what the file means."""
    import tifffile

    if first.dtype == np.float16:
        raise InputError(f"{path}: holds float16, expected float32 or 16-bit integers")
    alpha = tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA
    grey_and_alpha = first.samplesperpixel == 2 and first.extrasamples[:1] and first.extrasamples[0] in alpha
    if first.samplesperpixel != 1 and not (grey_and_alpha and first.dtype == np.uint8):  # OpenCV makes grey of some
        raise InputError(f"{path}: {what} has {first.samplesperpixel} channels, expected one")
    if first.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise InputError(f"{path}: is a TIFF whose 0 is white (photometric MinIsWhite), expected MinIsBlack")
    return parse_record(first.description)


def tiff_of_rgb(path: Path, content: bytes) -> bytes:
    """A TIFF that OpenCV decodes as the RGB it holds, without multiplying it by its alpha.

    Raises:
        InputError: more than one image, more than 8 bits, or bands that are no RGB.
    """
    import tifffile

    page = first_page(path, content)
    if page.dtype is not None and page.dtype.itemsize > 1:  # None: of a kind that tifffile does not know
        raise InputError(f"{path}: RGB holds {page.dtype} values, {EIGHT_BITS}")
    if page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and page.samplesperpixel > 2:
        raise InputError(
            f"{path}: has {page.samplesperpixel} bands that are not RGB (photometric MinIsBlack), expected RGB"
        )
    tag = page.tags.get(_EXTRA_SAMPLES)
    for i, kind in enumerate(page.extrasamples if tag else ()):
        if kind == tifffile.EXTRASAMPLE.UNASSALPHA:
            content = _with_short(content, page, tag.valueoffset + 2 * i, tifffile.EXTRASAMPLE.UNSPECIFIED)
    return content


def _with_short(content: bytes, page: Any, place: int, value: int) -> bytes:
    """A TIFF with another number of 16 bits at a place."""
    return (
        content[:place] + value.to_bytes(2, "little" if page.parent.byteorder == "<" else "big") + content[place + 2 :]
    )


def _not_to_be_turned(content: bytes, page: Any) -> tuple[bytes, Any]:
    """A TIFF with orientation 1, since OpenCV turns TIFF images by theirs whatever it is asked for; and its own."""
    tag = page.tags.get(_ORIENTATION)
    if tag is None or tag.value == 1:
        return content, 1
    return _with_short(content, page, tag.valueoffset, 1), tag.value


def first_page(path: Path, content: bytes) -> Any:
    """What tifffile says of the page that OpenCV decodes; InputError unless that is the only image in the file."""
    import tifffile

    try:
        with _silent_tifffile(), tifffile.TiffFile(io.BytesIO(content)) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            images = sum(not page.subfiletype & 5 for page in pages)  # the others are thumbnails and masks
            first = pages[0]
            first.photometric, first.description, first.dtype  # noqa: B018 - damaged ones raise here
    except Exception as error:  # the decoder raises many kinds for damaged files
        raise InputError(f"{path}: cannot be decoded, expected an intact TIFF") from error
    if first.subfiletype & 5:
        raise InputError(f"{path}: begins with a thumbnail or a mask, expected the image first")
    if images > 1:
        raise InputError(f"{path}: holds {images} images, expected one")
    return first


def _decode_npy(path: Path, content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    try:
        array = np.load(file, allow_pickle=False)
        whole = file.tell() == len(content)
    except Exception as error:  # a damaged header raises many kinds
        raise _not_numpy(path, ".npy", error) from error
    if not whole:
        raise InputError(f"{path}: goes on for {len(content) - file.tell()} bytes after its array, expected its end")
    return array


def _decode_npz(path: Path, content: bytes, what: str) -> tuple[np.ndarray, Record]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = arrays.files
            name = what if what in names else names[0] if len(names) == 1 else None
            array = arrays[name] if name and not damaged else None
            record = {key: str(arrays[key]) for key in RECORDED if key in names and not damaged}
    except Exception as error:  # a damaged archive raises many kinds
        raise _not_numpy(path, ".npz", error) from error
    if damaged:
        raise InputError(f"{path}: {damaged} in it is damaged (its checksum differs), expected a whole file")
    if name is None:
        found = listed(names) or "none"
        raise InputError(f"{path}: holds the arrays {found}, expected one, or one named {what}")
    if what == "depth" and name == "disparity":
        raise InputError(f"{path}: holds disparity, expected depth, or --depth-kind disparity")
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: {name} is not stored as an array, expected a .npz file written by NumPy")
    return array, record


def _not_numpy(path: Path, ending: str, error: Exception) -> InputError:
    if "allow_pickle" in str(error):
        return InputError(f"{path}: holds Python objects, which are never unpickled; expected an array of numbers")
    return InputError(f"{path}: cannot be read as a {ending} array, expected a whole file holding numbers")


def _decode_pfm(path: Path, content: bytes, what: str) -> np.ndarray:
    """float32 [H, W]. By hand: OpenCV divides by the size of the scale, which readers of stereo data sets ignore."""
    header = _PFM_HEADER.match(content)
    if not header:
        raise InputError(f"{path}: has a damaged PFM header, expected Pf, width, height and scale")
    if header[1] == b"F":
        raise InputError(f"{path}: {what} has 3 channels (PFM of kind PF), expected one (kind Pf)")
    width, height = int(header[2]), int(header[3])
    found, expected = len(content) - header.end(), 4 * width * height
    if found != expected:
        fault = "truncated" if found < expected else "damaged"
        raise InputError(
            f"{path}: is a {fault} PFM, {found} bytes of pixels, expected {expected} for {width}x{height} pixels"
        )
    try:
        scale = float(header[4])
    except ValueError:
        scale = 0.0
    if not scale:
        raise InputError(f"{path}: has PFM scale {header[4].decode()}, expected a number that is not 0")
    rows = np.frombuffer(content, "<f4" if scale < 0 else ">f4", offset=header.end()).reshape(height, width)
    return rows[::-1].astype(np.float32)  # stored from the bottom up
