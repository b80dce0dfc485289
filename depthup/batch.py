"""Many jobs one after another: reading, computing and writing overlap, and what is done is not done again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from depthup.console import in_one_line
from depthup.data import InputError, UsageError
from depthup.data.real_path import real_path
from depthup.journal import Journal, Settings, digest
from depthup.locking import locked
from depthup.stopping import stop_on_signal

READERS = 2
READ_AHEAD = 4
WRITE_BEHIND = 2

FAILURES = (InputError, OSError, MemoryError)
"""What fails one job. Anything else is a bug and ends the run."""

Data = TypeVar("Data")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """Files to read, and the files to write: one, and perhaps others beside it.

    Args:
        name: of the job, in messages.
        inputs: what is read.
        output: what is written first.
        others: what is written too, and what decides each beside inputs, facts and settings of the run; the job is
            done when all are there.
        facts: what decides every output beside the inputs and the settings.
    """

    name: str
    inputs: tuple[Path, ...]
    output: Path
    others: Mapping[Path, str] = field(default_factory=dict)
    facts: str = ""

    @property
    def outputs(self) -> tuple[Path, ...]:
        return self.output, *self.others

    def origin(self, output: Path, inputs: str) -> str:
        """What an output is made from, for the journal, where `inputs` are the digests of the files."""
        return " ".join(part for part in (inputs, self.facts, self.others.get(output)) if part)


@dataclass(frozen=True)
class BatchProgress:
    """How far a run is, in jobs."""

    total: int
    done: int
    skipped: int
    failed: int


@dataclass(frozen=True)
class BatchResult:
    """Names of the jobs by what became of them; a run that was stopped has more jobs than these."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]  # written before, and verified
    failed: dict[str, str]  # and why, in one line
    stopped: bool  # by Ctrl-C or SIGTERM

    @property
    def exit_code(self) -> int:
        """0 everything is done, 3 a part failed, 1 nothing could be done, 130 stopped."""
        if self.stopped:
            return 130
        if not self.failed:
            return 0
        return 3 if self.done or self.skipped else 1


@dataclass(frozen=True)
class _Ready(Generic[Data]):
    """What was read for a job."""

    data: Data
    inputs: str
    existing: tuple[Path, ...]  # outputs that are there and may be replaced


def run_batch(
    jobs: Sequence[Job],
    folder: Path,
    read: Callable[[Job], Data],
    compute: Callable[[Job, Data], Result],
    write: Callable[[Job, Path, Result, bool], None],
    settings: Settings,
    overwrite: bool = False,
    progress: Callable[[BatchProgress], None] | None = None,
) -> BatchResult:
    """Run jobs whose outputs are not there yet, and record in the folder what was written.

    An output that is whole, by its digest, and was made with the same settings from the same inputs is skipped, an
    empty one is made again. One that this function did not write, that was changed since, or that was made from other
    inputs, fails its job unless `overwrite`. A job that fails is recorded and the others go on. The first Ctrl-C or
    SIGTERM ends the run when the job at hand is written; a second one interrupts at once, but for files at hand; a
    third one ends the process. A killed run is continued by the next.

    Args:
        jobs: in their order.
        folder: of the outputs; made if it is missing. It gets a hidden file, the journal, and during the run a
            second one, the lock.
        read: reads the inputs of a job; called in threads, at most `READ_AHEAD` jobs ahead.
        compute: called in this thread, in order.
        write: writes one output with `write_beside`; its last argument says whether the file may exist. Called in one
            thread, at most `WRITE_BEHIND` results behind. Folders are made before.
        settings: what decides the results beside their inputs, such as model, units, digest of the weights.
        overwrite: replace outputs of other settings or inputs, and files that are not of a batch.
        progress: called in this thread after every job.

    Returns:
        What became of the jobs.

    Raises:
        UsageError: an output is an input.
        InputError: two jobs have one output, the folder holds results of other settings without `overwrite`, or another
            run is in it. Nothing is written then, nor after a UsageError. Otherwise only bugs in `read`, `compute` and
            `write` are raised, when what was being written is finished.
    """
    _check_outputs(jobs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); expected a folder for the results") from None
    tally = _Tally(len(jobs), progress or (lambda _: None))
    waiting = deque(jobs)
    reading: deque[tuple[Job, Future[_Ready[Data] | None]]] = deque()
    writing: deque[tuple[Job, Future[None]]] = deque()
    with (
        locked(folder),
        closing(Journal(folder, settings, overwrite)) as journal,
        stop_on_signal() as stopped,
        ThreadPoolExecutor(1) as writer,
        ThreadPoolExecutor(READERS) as readers,
    ):

        def take(job: Job, future: Future[_Ready[Data] | None]) -> None:
            with tally.failures_of(job):
                ready = future.result()
                if ready is None:
                    tally.skip(job)
                elif not stopped():
                    result = compute(job, ready.data)
                    written = writer.submit(_write, job, journal, ready.inputs, ready.existing, write, result)
                    writing.append((job, written))

        while (waiting or reading) and not stopped():
            while waiting and len(reading) < READ_AHEAD:
                job = waiting.popleft()
                reading.append((job, readers.submit(_read_if_needed, job, journal, overwrite, read)))
            take(*reading.popleft())  # no name here, which would keep what was read
            tally.settle(writing, WRITE_BEHIND)
        for _, future in reading:
            future.cancel()
        tally.settle(writing, 0)
    failed = {job.name: tally.failed[job.name] for job in jobs if job.name in tally.failed}
    return BatchResult(tuple(tally.done), tuple(tally.skipped), failed, tally.left > 0)


def _check_outputs(jobs: Sequence[Job]) -> None:
    inputs = {_place(path): job for job in jobs for path in job.inputs}
    outputs: dict[str, Job] = {}
    for job in jobs:
        for output in job.outputs:
            first = outputs.setdefault(_place(output), job)
            if first is not job:
                raise InputError(f"{output}: is the output of {first.name} and of {job.name}; expected one of each")
            if (source := inputs.get(_place(output))) is not None:
                raise UsageError(
                    f"{output}: is the output of {job.name} and an input of {source.name}; use another folder"
                )


def _place(path: Path) -> str:
    return os.path.normcase(real_path(path))


def _read_if_needed(job: Job, journal: Journal, overwrite: bool, read: Callable[[Job], Data]) -> _Ready[Data] | None:
    """What the job needs, or None if its outputs are done."""
    inputs = " ".join(digest(path) for path in job.inputs)  # before reading: a file that changes meanwhile is noticed
    existing = [path for path in job.outputs if os.path.lexists(path)]
    done = 0
    for path in existing:
        name = journal.name(path)
        record = journal.records.get(name)
        same = record is not None and record.inputs == job.origin(path, inputs)
        if record and same and record.output == digest(path):
            done += 1
        elif name not in journal.unfinished and not overwrite:
            if same and not path.stat().st_size:  # what a crash of the machine leaves
                continue
            if same:
                raise InputError(
                    f"{path}: was changed since it was written; remove it, or allow overwriting (--overwrite)"
                )
            fault = "was made from other inputs or options" if record else "exists already and is not from this batch"
            raise InputError(f"{path}: {fault}; use another folder, or allow overwriting (--overwrite)")
    if done == len(job.outputs):
        return None
    return _Ready(read(job), inputs, tuple(existing))


def _write(
    job: Job,
    journal: Journal,
    inputs: str,
    existing: tuple[Path, ...],
    write: Callable[[Job, Path, Result, bool], None],
    result: Result,
) -> None:
    for path in job.outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        journal.announce(path)
        try:
            write(job, path, result, path in existing)
        except FAILURES:
            with suppress(InputError):  # of the same disk: the first failure is the one to be told
                journal.withdraw(path)
            raise
        journal.record(path, job.origin(path, inputs))


@dataclass
class _Tally:
    """What became of the jobs so far."""

    total: int
    progress: Callable[[BatchProgress], None]
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return self.total - len(self.done) - len(self.skipped) - len(self.failed)

    @contextmanager
    def failures_of(self, job: Job) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            self.failed[job.name] = in_one_line(error)
            self.report()

    def skip(self, job: Job) -> None:
        self.skipped.append(job.name)
        self.report()

    def settle(self, writing: deque[tuple[Job, Future[None]]], behind: int) -> None:
        """Take account of what is written, and wait until at most `behind` results are not."""
        while writing and (len(writing) > behind or writing[0][1].done()):
            job, future = writing.popleft()
            with self.failures_of(job):
                future.result()
                self.done.append(job.name)
                self.report()

    def report(self) -> None:
        self.progress(BatchProgress(self.total, len(self.done), len(self.skipped), len(self.failed)))
