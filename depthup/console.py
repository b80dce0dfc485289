"""What commands say on stderr: lines, warnings of the library, and a bar for what takes long."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

MOST_WARNINGS = 5
SECONDS_BETWEEN_LINES = 60.0


def say(line: str) -> None:
    """A line on stderr, where there is one that can be written to; stdout is for results."""
    if sys.stderr:
        with suppress(OSError):
            print(line, file=sys.stderr)


def in_one_line(error: BaseException) -> str:
    """What an expected failure is, for a line on stderr."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    without = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
    return " ".join(str(error).split()) or without


class _Warnings(logging.Handler):
    """What the library warns of as lines on stderr, none twice; of a kind the first few, then a count."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        if message in self.said:
            return
        self.said.add(message)
        self.counts[record.msg] += 1
        if self.counts[record.msg] <= MOST_WARNINGS:
            say(f"depthup: {message}")

    def say_the_rest(self) -> None:
        for count in self.counts.values():
            if count > MOST_WARNINGS:
                say(f"depthup: ... and {count - MOST_WARNINGS} more warnings like these")


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Inside, what the library logs as a warning is a line on stderr."""
    handler, log = _Warnings(), logging.getLogger("depthup")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.say_the_rest()


@contextmanager
def progress_bar(delay: float = 2.0) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr for what takes longer than `delay` seconds; gives a function of what and the fraction done.

    Where stderr is no terminal, as in a log, a line every minute instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True)
    began = last_line = time.monotonic()
    tasks: dict[str, TaskID] = {}

    def update(what: str, fraction: float) -> None:
        nonlocal last_line
        now = time.monotonic()
        if not console.is_terminal:
            if now - last_line >= SECONDS_BETWEEN_LINES:
                last_line = now
                say(f"depthup: {what}: {fraction:.0%} after {(now - began) / 60:.0f} min")
            return
        if not tasks:
            if now - began < delay:
                return
            bar.start()
            tasks["only"] = bar.add_task(what, total=1.0)
        bar.update(tasks["only"], description=what, completed=fraction)

    try:
        yield update
    finally:
        if tasks:  # stopping one that was not started prints an empty line
            bar.stop()
