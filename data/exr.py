"""Decoding OpenEXR files, through the package of the extra `exr`."""

import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import IO

import numpy as np

from depthup.data.errors import InputError, listed
from depthup.data.extras import load_extra
from depthup.data.record import Record, parse_record

_CHANNELS = ("Z", "depth", "V", "Y", "R")

_stream_lock = threading.Lock()


def _temporary() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # nowhere to write
        return Path(os.devnull).open("w+b")


@contextmanager
def _silent_openexr() -> Iterator[None]:
    """Silence OpenEXR, which prints on Python's stdout and on C's stderr: what matters is raised as InputError.

    What other threads print meanwhile comes out afterwards.
    """
    with _stream_lock, _temporary() as caught:
        stdout, said = sys.stdout, io.StringIO()
        try:
            saved = os.dup(2)
        except OSError:  # closed, as a daemon's is
            saved = None
        try:
            with redirect_stdout(said):
                if saved is not None:
                    os.dup2(caught.fileno(), 2)
                yield
        finally:
            if saved is not None:
                os.dup2(saved, 2)
                os.close(saved)
                caught.seek(0)
                if others := b"".join(line for line in caught if b"(EXR_ERR" not in line):
                    with suppress(OSError):
                        os.write(2, others)
            lines = said.getvalue().splitlines(keepends=True)
            if kept := "".join(line for line in lines if not line.startswith("Warning: Exception raised")):
                with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
                    stdout.write(kept)


def decode_exr(path: Path, content: bytes, what: str) -> tuple[np.ndarray, Record]:
    """One channel [H, W] of an EXR file as stored, and depthup's record; raises InputError as `read_plane`."""
    exr = load_extra(path, "OpenEXR", "exr")
    try:
        with _silent_openexr():
            file = exr.File(io.BytesIO(content), separate_channels=True)
            parts = len(file.parts)
            header, channels = file.header(), {name: channel.pixels for name, channel in file.channels().items()}
        corners = [[[int(n) for n in corner] for corner in header[box]] for box in ("dataWindow", "displayWindow")]
    except Exception as error:  # the decoder raises many kinds for damaged files
        raise InputError(f"{path}: cannot be decoded, expected an intact EXR file") from error
    if parts != 1:
        raise InputError(f"{path}: holds {parts} parts, expected one")
    if corners[0] != corners[1]:
        raise InputError(f"{path}: has data window {corners[0]} in display window {corners[1]}, expected equal ones")
    (left, top), (right, bottom) = corners[0]
    image = _channel(path, channels, what)
    if image.shape != (bottom - top + 1, right - left + 1):
        raise InputError(f"{path}: {what} is sampled coarser than the image, expected a value for each pixel")
    return image, parse_record(header.get("comments"))


def _channel(path: Path, channels: dict[str, np.ndarray], what: str) -> np.ndarray:
    """The only channel, or the first of the names that depth goes by, layers (`View.Depth.Z`) included."""
    if len(channels) == 1:
        return next(iter(channels.values()))
    expected = f"expected one, or one named {', '.join(_CHANNELS)}"
    for wanted in _CHANNELS:
        names = [name for name in channels if name.lower().rpartition(".")[2] == wanted.lower()]
        if len(names) > 1:
            raise InputError(f"{path}: holds the channels {listed(names)}, {expected}")
        if names:
            image = channels[names[0]]
            # R, G, B and Y, RY, BY are a picture unless all are the same
            if wanted in ("Y", "R") and not all(
                np.array_equal(image, other, equal_nan=True)
                for name, other in channels.items()
                if name.rpartition(".")[2] != "A"
            ):
                raise InputError(f"{path}: {what} has channels {listed(channels)} (a colour picture), {expected}")
            return image
    raise InputError(f"{path}: holds the channels {listed(channels)}, {expected}")
