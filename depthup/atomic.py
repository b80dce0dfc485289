"""Files that are whole or not there: write beside, then `os.replace`."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from depthup.data import InputError

_numbers = itertools.count()  # threads may write the same file

_LONGEST = 200
"""Bytes of a name that leave room for what is added to it: file systems allow 255."""


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder and with the same ending; renames it to `path` if the block succeeds.

    If the block fails, the temporary file is removed and whatever was at `path` stays as it was.

    Raises:
        InputError: it cannot be written: the disk is full, say.
    """
    path = Path(path)
    temporary = path.with_name(f".{_short(path.stem)}.{os.getpid()}-{next(_numbers)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # not there any more, or its name was too long
            temporary.unlink()


def _short(stem: str) -> str:
    """A name that can be added to: a long one is replaced by its digest."""
    name = os.fsencode(stem)
    return stem if len(name) <= _LONGEST else hashlib.blake2b(name, digest_size=16).hexdigest()


def left_behind(path: str | Path) -> list[Path]:
    """Temporary files of `path` that `write_beside` could not remove, because its process was killed or still runs."""
    path = Path(path)
    named = re.compile(rf"\.{re.escape(_short(path.stem))}\.\d+-\d+{re.escape(path.suffix)}")
    return [entry for entry in path.parent.iterdir() if named.fullmatch(entry.name)] if path.parent.is_dir() else []


def remove_left_behind(path: str | Path) -> None:
    """Remove these files, where no other process writes `path` now."""
    for temporary in left_behind(path):
        temporary.unlink(missing_ok=True)
