"""What the benchmarks share: timing in turn, the machine, and results as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


WARM_UPS = 2  # rounds that are not counted
ENOUGH_MS = 1.0  # of a GPU's time in one measurement
MOST_CALLS = 50


def time_in_turn(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of every candidate: one call each per round, so that a machine that drifts is fair to all.

    On a GPU these are times with the launches from Python; `time_on_gpu` has them without.
    """

    def by_the_clock(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began)

    taken = _in_turn({name: partial(by_the_clock, call) for name, call in candidates.items()}, rounds)
    return {
        name: {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times), "rounds": rounds}
        for name, times in taken.items()
    }


def time_on_gpu(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """As `time_in_turn`, of the GPU alone: every candidate's kernels are recorded as a CUDA graph of some calls.

    Everything that the candidates read must come from torch's current stream, and that must not be the default one.
    """
    measures = {name: _recorded(call) for name, call in candidates.items()}
    taken = _in_turn(measures, rounds)
    return {
        name: {"gpu_ms": statistics.median(times), "gpu_min_ms": min(times), "gpu_max_ms": max(times)}
        for name, times in taken.items()
    }


def _in_turn(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each measured in every round, but for the first ones."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds + WARM_UPS):
        for name, measure in measures.items():
            milliseconds = measure()
            if turn >= WARM_UPS:
                taken[name].append(milliseconds)
    return taken


def _recorded(call: Callable[[], object]) -> Callable[[], float]:
    """Records a CUDA graph of some calls; what comes back replays it and gives the milliseconds of one of them."""
    call()
    calls = max(1, min(MOST_CALLS, int(ENOUGH_MS / max(_by_events(call), 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(calls):
            call()
    return lambda: _by_events(graph.replay) / calls


def _by_events(call: Callable[[], object]) -> float:
    """Milliseconds between two events around a call."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    call()
    after.record()
    after.synchronize()
    return before.elapsed_time(after)


def prepare_gpu() -> None:
    """What `time_on_gpu` needs, and convolutions as fast as they can be; nothing without a GPU."""
    if torch.cuda.is_available():
        torch.cuda.set_stream(torch.cuda.Stream())  # the default one cannot be recorded
        torch.backends.cudnn.benchmark = True


def restart_peak() -> None:
    """Let this process's peak of resident memory start anew, on Linux."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_and_now() -> tuple[float, float]:
    """Peak and present resident memory of this process in MiB, on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}
    return kilobytes["VmHWM"] / 1024, kilobytes["VmRSS"] / 1024


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []  # on Linux
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.strip(),
    }


def write_results(name: str, rows: list[dict]) -> Path:
    """`benchmarks/results/NAME-cpu.json` or `NAME-cuda.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{'cuda' if torch.cuda.is_available() else 'cpu'}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path


def print_table(rows: list[dict], columns: list[str]) -> None:
    """Rows as a Markdown table on stdout."""
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        cells = [f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        print("| " + " | ".join(cells) + " |")
