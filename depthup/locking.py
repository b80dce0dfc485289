"""One run at a time in a folder."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from depthup.data import InputError

LOCK = ".depthup.lock"
"""File in the folder of a run while it runs."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

log = logging.getLogger("depthup")


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Keeps a second run out of a folder.

    The operating system releases the lock when this process and those that it forked have ended, even if killed; makers
    of batches for a GPU end some seconds later. Where the file system knows no locks nothing is kept out, and a warning
    says so.

    The file is removed at the end, and stays only if the process is killed; the next run takes it.

    Raises:
        InputError: another run is in it.
    """
    path = folder / name
    while (file := _open_locked(path)) is None:
        pass
    try:
        yield
    finally:
        if sys.platform == "win32":  # where no file is removed that anybody has open
            os.close(file)
            with suppress(OSError):
                path.unlink()
        else:
            with suppress(OSError):
                path.unlink()  # while it is held, so it is nobody else's
            os.close(file)


def _open_locked(path: Path) -> int | None:
    """The lock file, held; None if the run that had it removed it meanwhile, so that holding it means nothing."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(file)
        if os.path.samestat(os.fstat(file), path.stat()):
            return file
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in _NO_LOCKS:
            log.warning("%s: this file system knows no locks, so a second run is not kept out", path.parent)
            return file
        os.close(file)
        if isinstance(error, BlockingIOError | PermissionError):
            raise InputError(
                f"{path.parent}: another run writes into this folder; wait for it, or use another"
            ) from None
        raise
    os.close(file)
    return None


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
