"""Batches: what is done, skipped and failed, and that neither Ctrl-C nor a kill leaves a trace in the results."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import depthup.batch
import depthup.journal
import depthup.locking
from depthup.atomic import left_behind, write_beside
from depthup.batch import BatchProgress, BatchResult, Job, run_batch
from depthup.data import InputError
from depthup.data.pairing import OUTPUT_MARK
from depthup.locking import LOCK, locked

SETTINGS = {"model": "x4", "unit": "mm"}


def read(job: Job) -> bytes:
    return b"".join(path.read_bytes() for path in job.inputs)


def compute(job: Job, content: bytes) -> bytes:
    return content.upper() * 100


def write(job: Job, path: Path, result: bytes, replaces: bool) -> None:
    assert path.exists() <= replaces
    with write_beside(path) as temporary, temporary.open("wb") as file:
        file.write(result[: len(result) // 2])
        file.flush()
        file.write(result[len(result) // 2 :])


@dataclass
class Batch:
    """Jobs in a folder, and a way to run them that notes what was computed."""

    place: Path
    jobs: list[Job]
    computed: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.place / "out"

    def run(self, settings: dict = SETTINGS, overwrite: bool = False, **stages: Callable) -> BatchResult:
        self.computed.clear()
        stages = {"read": read, "compute": compute, "write": write} | stages

        def noted(job: Job, content: bytes) -> bytes:
            self.computed.append(job.name)
            return stages["compute"](job, content)

        progress = stages.get("progress")
        return run_batch(self.jobs, self.out, stages["read"], noted, stages["write"], settings, overwrite, progress)


def make_batch(place: Path, count: int = 6, others: bool = False) -> Batch:
    place.mkdir(exist_ok=True)
    jobs = []
    for n in range(count):
        inputs = tuple(place / f"{n}.{kind}" for kind in ("rgb", "depth"))
        for path in inputs:
            path.write_text(f"the content of {path.name}")
        output = place / "out" / f"scene{n % 2}" / f"{n:02}.png"
        beside = {output.with_suffix(".ply"): "camera 1", output.with_suffix(".jpg"): ""} if others else {}
        jobs.append(Job(f"{n:02}", inputs, output, beside))
    return Batch(place, jobs)


@pytest.fixture
def batch(tmp_path) -> Batch:
    return make_batch(tmp_path / "batch")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{n:02}" for n in numbers)


ALL = names(*range(6))


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs files that have no end")
def test_an_input_without_an_end_fails_its_job(batch, kind):
    endless = batch.jobs[2].inputs[1]
    endless.unlink()
    os.mkfifo(endless) if kind == "fifo" else endless.symlink_to("/dev/zero")
    result = batch.run()
    assert result.failed == {"02": f"{endless}: is no file, expected one"}
    assert result.done == names(0, 1, 3, 4, 5)


def test_a_journal_that_cannot_be_closed_loses_no_result(batch, monkeypatch):
    written = depthup.journal.Journal._write_anew

    def full(journal: depthup.journal.Journal) -> None:
        if journal.records:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(journal)

    monkeypatch.setattr(depthup.journal.Journal, "_write_anew", full)
    assert batch.run() == BatchResult(ALL, (), {}, False)


def test_all_are_done_and_then_skipped(batch):
    result = batch.run()
    assert result == BatchResult(ALL, (), {}, False)
    assert result.exit_code == 0
    for job in batch.jobs:
        assert job.output.read_bytes() == compute(job, read(job))
    assert {*snapshot(batch.out)} == {OUTPUT_MARK, *(f"scene{n % 2}/{n:02}.png" for n in range(6))}
    before = snapshot(batch.out)
    again = batch.run()
    assert again == BatchResult((), ALL, {}, False)
    assert (again.exit_code, batch.computed) == (0, [])
    assert snapshot(batch.out) == before


def test_nothing_to_do(tmp_path):
    assert Batch(tmp_path, []).run() == BatchResult((), (), {}, False)


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("x.png: is\ntruncated"), "x.png: is truncated"),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), "x.png: No space left on device"),
        (MemoryError(), "not enough memory"),
        (OSError(), "OSError"),
    ],
)
def test_a_failure_is_recorded_and_the_rest_goes_on(batch, stage, error, reason):
    stages = {"read": read, "compute": compute, "write": write}

    def failing(job: Job, *arguments):
        if job.name in names(1, 4):
            raise error
        return stages[stage](job, *arguments)

    result = batch.run(**{stage: failing})
    assert result == BatchResult(names(0, 2, 3, 5), (), dict.fromkeys(names(1, 4), reason), False)
    assert (result.exit_code, list(result.failed)) == (3, list(names(1, 4)))
    assert not batch.jobs[1].output.exists()
    whole = batch.run()
    assert whole == BatchResult(names(1, 4), names(0, 2, 3, 5), {}, False)


def test_missing_inputs(batch):
    for job in batch.jobs:
        job.inputs[1].unlink()
    result = batch.run()
    assert result.exit_code == 1
    assert result.failed["00"] == f"{batch.jobs[0].inputs[1]}: No such file or directory"


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_a_bug_is_not_hidden(batch, stage):
    stages = {"read": read, "compute": compute, "write": write}

    def broken(job: Job, *arguments):
        if job.name == "02":
            raise ZeroDivisionError("a bug")
        return stages[stage](job, *arguments)

    with pytest.raises(ZeroDivisionError):
        batch.run(**{stage: broken})
    assert batch.jobs[1].output.read_bytes() == compute(batch.jobs[1], read(batch.jobs[1]))
    result = batch.run()
    assert sorted(result.done + result.skipped) == list(ALL)


def test_empty_and_missing_outputs_are_made_again(batch):
    batch.run()
    before = snapshot(batch.out)
    batch.jobs[0].output.write_bytes(b"")
    batch.jobs[3].output.unlink()
    assert batch.run() == BatchResult(names(0, 3), names(1, 2, 4, 5), {}, False)
    assert snapshot(batch.out) == before


def test_an_output_that_was_changed_is_not_overwritten(batch):
    batch.run()
    before = snapshot(batch.out)
    content = bytearray(batch.jobs[5].output.read_bytes())
    content[7] ^= 1
    batch.jobs[5].output.write_bytes(content)
    result = batch.run()
    assert (result.skipped, result.failed.keys()) == (names(0, 1, 2, 3, 4), {"05"})
    assert "05.png: was changed since it was written; remove it, or allow overwriting" in result.failed["05"]
    assert batch.jobs[5].output.read_bytes() == content
    assert batch.run(overwrite=True).done == names(5)
    assert snapshot(batch.out) == before


def test_files_of_others_are_not_overwritten(batch):
    batch.jobs[2].output.parent.mkdir(parents=True)
    batch.jobs[2].output.write_bytes(b"precious")
    result = batch.run()
    assert result.done == names(0, 1, 3, 4, 5)
    assert "02.png: exists already" in result.failed["02"]
    assert "--overwrite" in result.failed["02"]
    assert batch.run().failed.keys() == {"02"}
    assert batch.jobs[2].output.read_bytes() == b"precious"
    assert batch.run(overwrite=True).done == names(2)
    assert batch.run().skipped == ALL


def test_an_output_that_appears_meanwhile_is_not_overwritten(batch):
    def write_checked(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        if job.name == "02":
            job.output.write_bytes(b"precious")
            raise InputError(f"{job.output}: exists already")
        write(job, path, result, replaces)

    for stage in ({"write": write_checked}, {}):
        assert batch.run(**stage).failed.keys() == {"02"}
        assert batch.jobs[2].output.read_bytes() == b"precious"


def test_other_inputs_are_other_results(batch):
    batch.run()
    batch.jobs[1].inputs[0].write_text("another picture")
    result = batch.run()
    assert result.skipped == names(0, 2, 3, 4, 5)
    assert "was made from other inputs" in result.failed["01"]
    assert batch.run(overwrite=True).done == names(1)


def test_files_beside_the_output(tmp_path):
    batch = make_batch(tmp_path / "batch", others=True)
    assert batch.run().done == ALL
    before = snapshot(batch.out)
    assert len(before) == 3 * 6 + 1
    assert batch.run().skipped == ALL
    first, second, third = (job.outputs[1] for job in batch.jobs[:3])
    first.write_bytes(b""), second.unlink()
    batch.jobs[2] = replace(batch.jobs[2], others={third: "camera 2"})
    result = batch.run()
    assert (result.done, result.failed.keys()) == (names(0, 1), {"02"})
    assert result.failed["02"].startswith(f"{third}: was made from other inputs")
    assert snapshot(batch.out) == before


def test_facts_decide_every_output(tmp_path):
    batch = make_batch(tmp_path / "batch", others=True)
    batch.run()
    batch.jobs[1] = replace(batch.jobs[1], facts="aligned to another camera")
    result = batch.run()
    assert (result.skipped, result.failed.keys()) == (names(0, 2, 3, 4, 5), {"01"})
    assert batch.run(overwrite=True).done == names(1)
    assert batch.run().skipped == ALL


def test_a_file_beside_the_output_that_fails_is_made_by_the_next_run(tmp_path):
    batch = make_batch(tmp_path / "batch", others=True)

    def failing(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        if path == batch.jobs[1].outputs[1]:
            raise InputError("no room")
        write(job, path, result, replaces)

    assert batch.run(write=failing).failed == {"01": "no room"}
    assert batch.jobs[1].output.exists() and not batch.jobs[1].outputs[2].exists()
    assert batch.run() == BatchResult(names(1), names(0, 2, 3, 4, 5), {}, False)


def test_files_beside_results_that_are_there(batch):
    batch.run()
    batch.jobs = [replace(job, others={job.output.with_suffix(".ply"): "camera"}) for job in batch.jobs]
    assert batch.run().done == ALL
    assert all(path.exists() for job in batch.jobs for path in job.outputs)


def test_other_settings_refuse_the_whole_run(batch):
    batch.run()
    before = snapshot(batch.out)
    with pytest.raises(
        InputError, match="holds results with model x4, and this run has x8; use another folder or --overwrite"
    ):
        batch.run({"model": "x8", "unit": "mm"})
    with pytest.raises(InputError, match="holds results with sharp unknown, and this run has True"):
        batch.run(SETTINGS | {"sharp": True})
    assert snapshot(batch.out) == before
    assert batch.run({"model": "x8", "unit": "mm"}, overwrite=True).done == ALL
    assert batch.run({"model": "x8", "unit": "mm"}).skipped == ALL


def test_settings_may_change_while_there_are_no_results(batch):
    def fail(*arguments):
        raise InputError("no")

    assert batch.run(read=fail).exit_code == 1
    assert batch.run({"model": "x8"}).done == ALL


@pytest.mark.parametrize("content", ["", "{", '{"settings": 3}\n', '[1]\n{"written": 1}\n', "\0" * 99])
def test_a_damaged_journal_overwrites_nothing(batch, content):
    batch.run()
    before = snapshot(batch.out)
    (batch.out / OUTPUT_MARK).write_text(content)
    result = batch.run()
    assert result.failed.keys() == {*ALL}
    before.pop(OUTPUT_MARK)
    assert before.items() <= snapshot(batch.out).items()


def test_a_torn_last_line_is_left_out(batch):
    batch.run()
    journal = batch.out / OUTPUT_MARK
    journal.write_bytes(journal.read_bytes()[:-20])
    assert batch.run().failed.keys() == {"05"}


def test_two_jobs_with_one_output(batch):
    batch.jobs.append(Job("other", batch.jobs[0].inputs, batch.out / "scene1" / ".." / "scene0" / "00.png"))
    with pytest.raises(InputError, match="is the output of 00 and of other"):
        batch.run()
    assert not batch.out.exists()


def test_an_output_that_is_an_input(batch):
    batch.jobs.append(Job("other", (batch.place / "out" / "scene0" / "00.png",), batch.out / "other.png"))
    with pytest.raises(InputError, match="is the output of 00 and an input of other"):
        batch.run()
    assert not batch.out.exists()


def test_a_folder_that_cannot_be_made(batch):
    batch.out.write_text("a file")
    with pytest.raises(InputError, match="out: cannot be made"):
        batch.run()


def test_stages_overlap_and_memory_is_bounded(tmp_path):
    batch = make_batch(tmp_path / "many", 30)
    lock, alive, most = threading.Lock(), set(), []

    def note(name: str, born: bool) -> None:
        with lock:
            (alive.add if born else alive.discard)(name)
            most.append(len(alive))

    def read_noted(job: Job) -> bytes:
        note(job.name, True)
        return read(job)

    def write_slowly(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        time.sleep(0.005)
        write(job, path, result, replaces)
        note(job.name, False)

    assert batch.run(read=read_noted, write=write_slowly).exit_code == 0
    bound = depthup.batch.READ_AHEAD + depthup.batch.WRITE_BEHIND + 2
    assert 2 < max(most) <= bound


def test_jobs_are_computed_in_order_in_this_thread(batch):
    threads = set()

    def compute_noted(job: Job, content: bytes) -> bytes:
        threads.add(threading.current_thread())
        return compute(job, content)

    batch.run(compute=compute_noted)
    assert threads == {threading.current_thread()}
    assert batch.computed == list(ALL)


def test_progress(batch):
    batch.jobs[3].inputs[0].unlink()
    batch.jobs.pop(0)
    batch.run()
    batch.jobs = make_batch(batch.place).jobs
    told: list[BatchProgress] = []
    batch.run(progress=told.append)
    assert [told[-1].total, told[-1].done, told[-1].skipped, told[-1].failed] == [6, 2, 4, 0]
    assert len(told) == 6
    assert [p.done + p.skipped + p.failed for p in told] == [*range(1, 7)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_next_run_goes_on(batch, number):
    def interrupted(job: Job, content: bytes) -> bytes:
        if job.name == "02":
            signal.raise_signal(number)
        return compute(job, content)

    handler = signal.getsignal(number)
    result = batch.run(compute=interrupted)
    assert (result.done, result.stopped, result.exit_code) == (names(0, 1, 2), True, 130)
    assert signal.getsignal(number) is handler
    files = {*snapshot(batch.out)}
    assert files == {OUTPUT_MARK, "scene0/00.png", "scene1/01.png", "scene0/02.png"}
    assert batch.run() == BatchResult(names(3, 4, 5), names(0, 1, 2), {}, False)


def test_a_signal_at_the_last_job_stops_nothing(batch):
    def interrupted(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        write(job, path, result, replaces)
        if job.name == "05":
            os.kill(os.getpid(), signal.SIGINT)

    assert batch.run(write=interrupted) == BatchResult(ALL, (), {}, False)


def test_a_second_signal_interrupts_and_what_is_written_is_whole(batch):
    begun = threading.Event()

    def write_slowly(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        begun.set()
        time.sleep(0.05)
        write(job, path, result, replaces)

    def interrupted(job: Job, content: bytes) -> bytes:
        if job.name == "01":
            assert begun.wait(5)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return compute(job, content)

    with pytest.raises(KeyboardInterrupt):
        batch.run(compute=interrupted, write=write_slowly)
    assert {*snapshot(batch.out)} == {OUTPUT_MARK, "scene0/00.png"}
    assert batch.run().skipped == names(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_a_third_signal_ends_a_process_whose_reading_never_ends(tmp_path):
    script = """
import sys, threading
from pathlib import Path
from depthup.batch import Job, run_batch
def read(job):
    print("reads", flush=True)
    threading.Event().wait()
inputs = Path(sys.argv[1], "input"), Path(sys.argv[1], "out", "output")
inputs[0].write_bytes(b"1")
run_batch([Job("job", inputs[:1], inputs[1])], inputs[1].parent, read, None, None, {})
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"reads\n"
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def test_the_lock_is_there_as_long_as_the_run(batch):
    def refused(job: Job, content: bytes) -> bytes:
        assert (batch.out / LOCK).exists()
        with pytest.raises(InputError, match="another run"), locked(batch.out):
            pass
        assert (batch.out / LOCK).exists()
        return compute(job, content)

    assert batch.run(compute=refused).done == ALL
    assert not (batch.out / LOCK).exists()
    with pytest.raises(InputError, match="holds results with model x4"):
        batch.run(settings={"model": "x8"})
    assert not (batch.out / LOCK).exists()
    (batch.out / LOCK).touch()  # of a run that was killed
    assert batch.run().skipped == ALL
    assert not (batch.out / LOCK).exists()


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def no_locks(file: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(depthup.locking, "_lock", no_locks)
    with locked(tmp_path):
        pass
    assert "knows no locks" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("new", [False, True])
def test_a_lock_that_is_removed_before_it_is_held_is_no_lock(tmp_path, monkeypatch, new):
    lock, calls = depthup.locking._lock, []

    def late(file: int) -> None:
        calls.append(file)
        if len(calls) == 1:  # the run that had it ends between opening and locking, and perhaps another begins
            (tmp_path / LOCK).unlink()
            if new:
                (tmp_path / LOCK).touch()
        lock(file)

    monkeypatch.setattr(depthup.locking, "_lock", late)
    with locked(tmp_path):
        assert len(calls) == 2
        with pytest.raises(InputError, match="another run"), locked(tmp_path):
            pass
    assert not (tmp_path / LOCK).exists()


def test_never_two_in_a_folder(tmp_path):
    inside, most, entered = [], [], []

    def enter_often() -> None:
        for _ in range(300):
            try:
                with locked(tmp_path):
                    inside.append(None)
                    most.append(len(inside))
                    time.sleep(0)
                    inside.pop()
                    entered.append(None)
            except InputError:
                time.sleep(0)

    threads = [threading.Thread(target=enter_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered and max(most) == 1
    assert not (tmp_path / LOCK).exists()


def in_child(run: Callable[[], None]) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    return process


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children that were forked")


def slowly(batch: Batch, seed: int, settings: dict = SETTINGS) -> None:
    rng = random.Random(seed)

    def write_in_pieces(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        with write_beside(path) as temporary, temporary.open("wb") as file:
            for begin in range(0, len(result), 400):
                file.write(result[begin : begin + 400])
                file.flush()
                time.sleep(0.002 * rng.random())

    def compute_slowly(job: Job, content: bytes) -> bytes:
        time.sleep(0.004 * rng.random())
        return compute(job, content)

    batch.run(settings, compute=compute_slowly, write=write_in_pieces)


def present(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@needs_fork
def test_killed_at_random_and_continued_gives_the_same_folder(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole, killed = (make_batch(tmp_path / name / "batch", 16, others=True) for name in ("a", "b"))
    whole.run()
    rng = random.Random(0)
    kills, partial = 0, 0
    for seed in range(40):
        before = present(killed.out)
        child = in_child(lambda seed=seed: slowly(killed, seed))
        while child.is_alive() and present(killed.out) - {LOCK} == before - {LOCK}:  # however slow the machine is
            time.sleep(0.001)
        time.sleep(0.05 * rng.random())
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        partial += any(left_behind(output) for job in killed.jobs for output in job.outputs)
    assert kills >= 5
    assert partial >= 1  # otherwise the test tests nothing
    result = killed.run()
    assert result.exit_code == 0
    assert snapshot(killed.out) == snapshot(whole.out)


@needs_fork
@pytest.mark.parametrize("moment", ["announce", "write", "record", "close"])
def test_killed_at_every_step_of_writing(batch, monkeypatch, moment):
    def kill(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_in_write(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        with write_beside(path) as temporary:
            temporary.write_bytes(b"half")
            kill()

    def close_halfway(journal) -> None:
        monkeypatch.setattr(Path, "replace", kill)
        journal._write_anew()

    def run() -> None:
        if moment == "write":
            batch.run(write=kill_in_write)
        else:
            monkeypatch.setattr(depthup.journal.Journal, moment, close_halfway if moment == "close" else kill)
            batch.run()

    child = in_child(run)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert batch.run().exit_code == 0
    whole = make_batch(batch.place.parent / "whole")
    whole.run()
    assert snapshot(batch.out) == snapshot(whole.out)


def test_threads_that_write_the_same_file(tmp_path):
    path = tmp_path / "same.bin"
    path.write_bytes(bytes(1000))

    def write(number: int) -> None:
        with write_beside(path) as temporary:
            temporary.write_bytes(bytes([number]) * 1000)
        assert len(set(path.read_bytes())) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(1, 200)))
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_too_long(tmp_path):
    longest = tmp_path / ("n" * 251 + ".bin")
    with write_beside(longest) as temporary:
        temporary.write_bytes(b"x")
        assert left_behind(longest) == [temporary]
    assert list(tmp_path.iterdir()) == [longest]
    longest.unlink()
    path = tmp_path / ("n" * 252 + ".bin")
    with pytest.raises(InputError, match="cannot be written"), write_beside(path) as temporary:
        temporary.write_bytes(b"x")
    assert not list(tmp_path.iterdir())


@needs_fork
def test_only_our_own_temporaries_are_removed(batch):
    def run() -> None:
        batch.run(write=kill_in_write)

    def kill_in_write(job: Job, path: Path, result: bytes, replaces: bool) -> None:
        with write_beside(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    child = in_child(run)
    child.join()
    folder = batch.jobs[0].output.parent
    assert len(left_behind(batch.jobs[0].output)) == 1
    others = [
        folder / name
        for name in (".00.backup.png", ".00.12-1.tiff", ".02.123-0.png", ".00.12.png", "00.1.png", ".0.12.png")
    ]
    for path in others:
        path.write_bytes(b"precious")
    assert batch.run().exit_code == 0
    assert all(path.read_bytes() == b"precious" for path in others)
    assert left_behind(batch.jobs[0].output) == []


@needs_fork
def test_a_second_run_in_the_folder_is_refused(batch):
    running = multiprocessing.get_context("fork").Event()

    def wait(job: Job, content: bytes) -> bytes:
        running.set()
        time.sleep(60)
        return content

    child = in_child(lambda: batch.run(compute=wait))
    assert running.wait(10)
    with pytest.raises(InputError, match="out: another run writes into this folder"):
        batch.run()
    assert batch.computed == []
    child.kill()
    child.join()
    assert batch.run().done == ALL  # the lock does not survive a kill


def test_the_journal_is_text(batch):
    batch.run()
    lines = [json.loads(line) for line in (batch.out / OUTPUT_MARK).read_text().splitlines()]
    assert lines[0] == {"settings": SETTINGS}
    assert [line["written"] for line in lines[1:]] == sorted(line["written"] for line in lines[1:])
    assert lines[1]["output"].startswith(f"{batch.jobs[0].output.stat().st_size}-")
