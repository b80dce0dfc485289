"""The folder of a training run: whether it is free, and the log in it."""

from __future__ import annotations

import csv
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from depthup.atomic import remove_left_behind, write_beside
from depthup.console import in_one_line
from depthup.data import InputError
from depthup.locking import locked

CHECKPOINT, WEIGHTS, METRICS, RECIPE = "checkpoint.safetensors", "model.safetensors", "metrics.csv", "recipe.json"
"""Files that a run writes; the last only if it is one of a recipe."""

BOARD = "tensorboard"
"""Folder in that of a run."""

log = logging.getLogger("depthup")


def check_free(out: Path, recipe: bool = True) -> None:
    """Raise InputError where a new run would write over a run, or over files of the same names.

    Args:
        out: folder of the run.
        recipe: whether that of a recipe is looked for, too, which is there before its last stage begins.
    """
    if (recipe and (out / RECIPE).exists()) or (out / CHECKPOINT).exists():
        raise InputError(f"{out}: holds a run already; expected --resume to go on with it, or another folder")
    for name in (WEIGHTS, METRICS):
        if (out / name).exists():
            raise InputError(f"{out / name}: exists already; expected another folder for the run")


@contextmanager
def held_folder(out: Path, resume: bool) -> Iterator[None]:
    """The folder of a run for this process alone; made if it is not there, and gone again if nothing comes into it.

    Raises:
        InputError: it holds a run and `resume` is False, or none and it is True; another process trains in it; or it
            cannot be written.
    """
    checkpoint = out / CHECKPOINT
    if resume and not checkpoint.exists():
        raise InputError(f"{checkpoint}: no such file; expected the checkpoint of a run to resume")
    if not resume:
        check_free(out, recipe=False)
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    with ExitStack() as held:
        try:
            held.callback(_remove_empty, new)
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(out))
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); expected a folder for the run") from None
        if not resume:
            check_free(out, recipe=False)  # another run may have come and gone
        with suppress(OSError):  # it is read-only, say
            for name in (CHECKPOINT, WEIGHTS, METRICS):
                remove_left_behind(out / name)
        yield


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders as long as they are empty, the innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


class RunLog:
    """`metrics.csv`, one line per entry, and the same for TensorBoard where it is installed and can write.

    Args:
        out: folder of the run.
        step: of the checkpoint that the run goes on from; what was logged after it will be logged again.
    """

    columns = ("step", "minutes", "loss", "learning_rate", "validation_rmse")

    def __init__(self, out: Path, step: int):
        self.path = out / METRICS
        lines = []
        if step and self.path.exists():
            lines = [row for row in self._read() if int(row["step"]) <= step]
        with write_beside(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns, extrasaction="ignore")
            table.writeheader()
            table.writerows(lines)
        self.file = self.path.open("a", newline="", encoding="utf-8")
        self.table = csv.DictWriter(self.file, self.columns)
        self.board: Any = None
        self.hook = threading.excepthook
        with self._as_far_as_it_can(), suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / BOARD), purge_step=step + 1 if step else None)
            threading.excepthook = self._failed_thread

    @contextmanager
    def _as_far_as_it_can(self) -> Iterator[None]:
        """TensorBoard, which no run needs: where it fails once, that is said, and it is left alone."""
        try:
            yield
        except Exception as error:
            self.board = None
            log.warning("%s: TensorBoard fails (%s); the run goes on without it", self.path.parent, in_one_line(error))

    def _failed_thread(self, failure: threading.ExceptHookArgs) -> None:
        """What a thread of TensorBoard's fails of, its next call says."""
        if not type(failure.thread).__module__.startswith("tensorboard."):
            self.hook(failure)

    def _read(self) -> list[dict[str, str]]:
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error):
            rows = [{}]
        if not all((row.get("step") or "").isdecimal() for row in rows):
            raise InputError(f"{self.path}: cannot be read, expected what train wrote there")
        return rows

    def write(self, step: int, seconds: float, **values: float) -> None:
        """Add an entry; raises InputError if the disk is full."""
        self.table.writerow({"step": step, "minutes": f"{seconds / 60:.2f}"} | values)
        try:
            self.file.flush()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None
        with self._as_far_as_it_can():
            for name, value in values.items():
                if self.board:
                    self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):  # of an entry that could not be, which `write` has said
            self.file.close()
        with self._as_far_as_it_can():
            if self.board:
                self.board.close()
        if threading.excepthook == self._failed_thread:
            threading.excepthook = self.hook
