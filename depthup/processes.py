"""Training by several processes at once, one for each GPU; started here or by `torchrun`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO

import torch
import torch.distributed as dist
from torch import Tensor, nn

from depthup.data import InputError

ALWAYS_ALLOWED = 4
"""Training processes without a GPU, however few cores there are; hundreds take all memory."""

SECONDS_TO_END = 10
"""For how long a process that has failed may go on to end."""

LONGEST_WAIT = timedelta(hours=12)
"""For the first process, which may be validating on thousands of images; one that has died is not waited for."""

MOST_FEEDERS = 12
"""Processes that make batches for the GPUs of a machine, at most; on 16 cores, 1400 crops of 192 pixels a second."""


@dataclass(frozen=True)
class Processes:
    """This process's place among all that train together.

    Args:
        rank: 0 to count - 1; the process of rank 0 validates, reports and writes.
        count: how many there are.
        here: how many of them on this machine.
        device: what this one computes on.
        talk: where they agree, without waiting for a GPU; None for one process.
    """

    rank: int
    count: int
    here: int
    device: torch.device
    talk: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def feeders(self) -> int:
        """How many processes more make batches for this one; 0 if a thread keeps up, or nothing else can be had."""
        if self.device.type != "cuda" or not hasattr(os, "fork"):
            return 0
        return max(1, min(MOST_FEEDERS, _processors()) // self.here)

    def share(self, batch_size: int) -> range:
        """This process's places in a batch; shares are equally large, or a ValueError is raised."""
        if batch_size % self.count:
            raise ValueError(f"a batch of {batch_size} cannot be shared by {self.count} processes, expected a multiple")
        return range(self.rank, batch_size, self.count)

    def average(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Replace every gradient by its mean over all processes; returns that of the loss."""
        if self.count == 1:
            return loss
        values = [loss, *(p.grad for p in model.parameters() if p.grad is not None)]
        flat = torch.cat([t.flatten() for t in values])
        dist.all_reduce(flat)
        flat /= self.count
        for t, mean in zip(values, flat.split([t.numel() for t in values]), strict=True):
            t.copy_(mean.view_as(t))
        return loss

    def agree(self, *values: float) -> list[float]:
        """The largest of what the processes say, for every value."""
        if self.count == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX, self.talk)
        return largest.tolist()


ALONE = Processes(0, 1, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


_Others = list[tuple[subprocess.Popen, IO[bytes]]]
"""Processes that were started here, each with the file that takes its stderr."""

_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of the environment by which another program, or this one, says that processes train together."""

_ALSO_OF_TORCHRUN = ("LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Others, which not every launcher sets."""


def count_processes(asked: int) -> int:
    """How many processes are to train together: as many as another program started, or as were asked for.

    Raises:
        InputError: the environment names a rank, but not all that belongs to it.
    """
    if "RANK" not in os.environ:
        return asked
    for name in (*_OF_TORCHRUN, *(name for name in _ALSO_OF_TORCHRUN if name in os.environ)):
        value = os.environ.get(name, "")
        if not (value if name == "MASTER_ADDR" else value.isdecimal()):
            raise InputError(
                f"environment: RANK is set and {name} is {value!r}; expected {', '.join(_OF_TORCHRUN)} as torchrun "
                "sets them, or none of them"
            )
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank >= count:
        raise InputError(f"environment: RANK is {rank} and WORLD_SIZE {count}; expected ranks below the size")
    return count


@contextmanager
def joined_processes(count: int = 1, command: Sequence[str] = ()) -> Iterator[Processes]:
    """This process, together with all that are to train with it.

    Args:
        count: of processes. The others are started here, by `command`, and end here; unless `torchrun` has started
            this process and told it by its environment who the others are.
        command: arguments for Python that lead another process to the same call.

    Raises:
        InputError: there are fewer GPUs, the processes cannot meet, or another one has failed; the last line it wrote
            is in the message.
    """
    gpus = torch.cuda.device_count()
    started_by_another = "RANK" in os.environ
    if count == 1 and not started_by_another:
        yield ALONE
        return
    if not started_by_another and 0 < gpus < count:
        raise InputError(f"--processes: got {count}, expected at most {gpus}, one for each GPU")
    most = max(ALWAYS_ALLOWED, _processors())
    if not started_by_another and not gpus and count > most:
        raise InputError(f"--processes: got {count}, expected at most {most} on this processor")
    rank, count = int(os.environ.get("RANK", 0)), count_processes(count)
    here = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", count)))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if 0 < gpus <= local_rank:
        raise InputError(f"LOCAL_RANK: got {local_rank}, expected less than {gpus}, the number of GPUs seen here")
    device = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    place = "env://"
    others: _Others = []
    try:
        if gpus:
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(max(1, torch.get_num_threads() // here))
        if not started_by_another:
            place = _start_others(others, count, command)
        talk = _join("nccl" if gpus and dist.is_nccl_available() else "gloo", place, rank, count, others)
        yield Processes(rank, count, here, device, talk)
        for process, _ in others:
            process.wait()
    except RuntimeError as error:  # of torch: the connection to another one is lost
        failed = _failed(others)
        if not failed and dist.is_initialized():
            raise
        if not failed:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"process {rank} of {count} cannot join the others at {place} ({reason})") from error
        code, said = failed[0]
        said.seek(0)
        reason = (said.read().decode(errors="replace").strip().splitlines() or [f"exit code {code}"])[-1]
        raise InputError(f"another process of this training failed: {reason}") from error
    finally:
        for process, said in others:
            process.kill()
            process.wait()
            said.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def _processors() -> int:
    """How many this process may use; a cluster may give it a few of many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _join(backend: str, place: str, rank: int, count: int, others: _Others) -> dist.ProcessGroup:
    """Meet all others; in a thread, since torch would wait for half an hour, deaf to signals and to who has ended."""
    groups: list[dist.ProcessGroup] = []
    faults: list[BaseException] = []

    def meet() -> None:
        try:
            dist.init_process_group(backend, place, rank=rank, world_size=count)
            groups.append(dist.new_group(backend="gloo", timeout=LONGEST_WAIT))
        except BaseException as error:
            faults.append(error)

    meeting = threading.Thread(target=meet, daemon=True)
    meeting.start()
    while meeting.is_alive():
        meeting.join(0.1)
        if any(process.poll() is not None for process, _ in others):
            raise RuntimeError("one has ended before all had met")
    if faults:
        raise faults[0]
    return groups[0]


def _failed(others: _Others) -> list[tuple[int, IO[bytes]]]:
    """Exit codes and stderr of those that have failed; a connection is lost some time before its process has ended."""
    last = time.monotonic() + SECONDS_TO_END
    while True:
        failed = [(process.returncode, said) for process, said in others if process.poll()]
        if failed or time.monotonic() > last or not others:
            return failed
        time.sleep(0.05)


def _start_others(others: _Others, count: int, command: Sequence[str]) -> str:
    """Add the processes of rank 1 and above, with the files that take their stderr; returns where all meet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for rank in range(1, count):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        environment = os.environ | {name: str(n) for name, n in own.items()} | {"MASTER_ADDR": "127.0.0.1"}
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when its process has ended
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, stderr=said)
        others.append((process, said))
    return f"tcp://127.0.0.1:{port}"
