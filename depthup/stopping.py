"""Where a process ends: Ctrl-C and SIGTERM end long work at a place where nothing is lost."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


def leave() -> NoReturn:
    """End this process with code 0 after what was registered for its end, but without taking its modules apart."""
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed before the start
        stream.flush()
    os._exit(0)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does, so that what is open is closed and other processes end, too.

    A second one ends the process at once: Python drops an exception that meets it where it imports.
    """

    def interrupt(number, frame):
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT and SIGTERM only set a flag; gives a function that reads it. A second one interrupts at once.

    A third one ends the process, which may be waiting for a thread that never ends.
    """
    asked: list[int] = []

    def ask(number, frame):
        if asked:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
