"""Several processes that train together: the same result as one, and an end that leaves nothing behind."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthup.data import InputError
from depthup.processes import ALONE, Processes, _failed, count_processes, joined_processes
from depthup.weights import load_model, read_metadata

PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
OPTIONS = ["--architecture", "fast", "--scale", "2", "--crop-size", "32", "--batch-size", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    pairs = tmp_path_factory.mktemp("processes")
    for scene in ("room0", "room1", "room23"):  # the last is held out
        depth = np.full((64, 64), 4000, np.uint16)
        depth[20:40, 10:50] = rng.integers(1000, 3000)
        cv2.imwrite(str(pairs / f"{scene}_depth.png"), depth)
        cv2.imwrite(str(pairs / f"{scene}_rgb.png"), (depth // 20).astype(np.uint8)[..., None].repeat(3, 2))
    return pairs


def train(folder: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "depthup", "train", "--data", str(folder), "--out", str(out), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def children(process: subprocess.Popen) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for_work(process: subprocess.Popen, out: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, process.stderr.read()
        if (out / "metrics.csv").exists():  # made when all is ready
            time.sleep(2)
            return
        time.sleep(0.1)
    raise AssertionError("no work within two minutes")


def test_two_processes_train_as_one(folder, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    for count, out in enumerate(outs, 1):
        process = train(folder, out, *OPTIONS, "--epochs", "40", "--processes", str(count))
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert ("2 processes" in errors) == (count == 2)
    one, two = (load_model(out / "model.safetensors").state_dict() for out in outs)
    start = load_start(outs[0])
    learned = max(float((one[name] - start[name]).abs().max()) for name in one)
    assert learned > 1e-4
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 0.02 * learned
    assert read_metadata(outs[1] / "model.safetensors")[1]["steps"] == 20


def load_start(out: Path) -> dict[str, torch.Tensor]:
    from depthup.models import DDFUpNet

    torch.manual_seed(0)
    return DDFUpNet(read_metadata(out / "model.safetensors")[0]).state_dict()


def test_hundreds_of_processes_on_a_cpu_are_refused(folder, tmp_path):
    process = train(folder, tmp_path / "run", *OPTIONS, "--epochs", "1", "--batch-size", "600", "--processes", "600")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "--processes: got 600, expected at most" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", ["stop the first", "kill another"])
def test_ends_of_a_run(folder, tmp_path, what):
    out = tmp_path / "run"
    process = train(folder, out, *OPTIONS, "--epochs", "100000", "--processes", "2")
    try:
        wait_for_work(process, out)
        others = children(process)
        if what == "stop the first":
            os.kill(process.pid, signal.SIGTERM)
        else:
            os.kill(others[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in errors
    if what == "kill another":
        assert process.returncode == 1, errors
        assert "another process of this training failed: exit code -9" in errors
    else:
        assert process.returncode == 130, errors
        assert "--processes 2 --resume" in errors
        assert (out / "checkpoint.safetensors").exists()
    assert not any(Path(f"/proc/{other}").exists() for other in others)


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is ''; expected RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT as torchrun sets them"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'"),
        (PLACE | {"RANK": "0", "WORLD_SIZE": "0"}, "RANK is 0 and WORLD_SIZE 0; expected ranks below the size"),
        (PLACE | {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
    ],
)
def test_an_environment_that_says_half(monkeypatch, variables, part):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught:
        count_processes(1)
    assert part in str(caught.value)


def test_what_cannot_be_shared(folder, tmp_path):
    process = train(folder, tmp_path / "run", *OPTIONS, "--epochs", "1", "--processes", "3")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.strip().endswith("torchrun): got 3, expected a number that divides the batch of 4 crops")
    assert not (tmp_path / "run").exists()


def test_shares():
    shares = [Processes(rank, 3, 3, torch.device("cpu")).share(6) for rank in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(6))
    assert all(len(share) == 2 for share in shares)
    with pytest.raises(ValueError, match="a batch of 6 cannot be shared by 4 processes"):
        Processes(0, 4, 4, torch.device("cpu")).share(6)
    assert ALONE.agree(0.25, True) == [0.25, True]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", ["stop the first", "kill another"])
def test_ends_before_all_have_met(folder, tmp_path, what):
    process = train(folder, tmp_path / "run", *OPTIONS, "--epochs", "100000", "--processes", "2")
    try:
        for _ in range(1200):
            # one that is stopped before it runs its own program holds up the one that starts it
            others = [n for n in children(process) if b"RANK=" in Path(f"/proc/{n}/environ").read_bytes()]
            if others:
                break
            time.sleep(0.05)
        os.kill(others[0], signal.SIGKILL if what == "kill another" else signal.SIGSTOP)
        if what == "stop the first":
            time.sleep(2)
            os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if what == "kill another":
        assert (process.returncode, errors) == (1, "depthup: another process of this training failed: exit code -9\n")
    else:
        assert (process.returncode, errors) == (130, "depthup: interrupted\n")
    assert not (tmp_path / "run").exists()
    assert not any(Path(f"/proc/{other}").exists() for other in others)


def test_threads_and_feeders_are_shared_by_the_processes_of_one_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    counts = ((1, 1), (4, 4), (4, 2), (32, 16))
    assert [Processes(0, *count, torch.device("cuda")).feeders for count in counts] == [12, 3, 6, 1]


def test_a_process_without_a_gpu_of_its_own_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    others = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1, "WORLD_SIZE": 3, "LOCAL_WORLD_SIZE": 3}
    for name, value in (others | {"RANK": 2, "LOCAL_RANK": 2}).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(InputError, match="LOCAL_RANK: got 2, expected less than 2"), joined_processes(1):
        pass


def test_none_is_left_where_one_cannot_be_started(monkeypatch):
    started, popen = [], subprocess.Popen

    def second_fails(*arguments, **options):
        if started:
            raise OSError("no more processes")
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", second_fails)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    with pytest.raises(OSError, match="no more processes"), joined_processes(3):
        pass
    assert started[0].poll() is not None


def test_a_process_that_is_just_about_to_end_is_waited_for():
    late = subprocess.Popen([sys.executable, "-c", "import sys, time; time.sleep(1); sys.exit(3)"])
    ((code, _),) = _failed([(late, io.BytesIO())])
    assert code == 3
