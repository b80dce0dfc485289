"""Whole upsampling of one pair, after loading: seconds, and peak memory above what importing and loading left.

python benchmarks/upsampling.py [MODEL WIDTH HEIGHT [PRECISION]]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

BASELINES = ("bicubic", "joint-bilateral", "guided-filter")
SENSORS = [("sensor-x1", 640, 480), ("sensor-x2", 1280, 960), ("sensor-x4", 640, 480), ("sensor-x8", 1920, 1440)]
FAST = [(f"fast-{name}", width, height) for name, width, height in SENSORS]
CASES = [("x4", 640, 480), ("fast-x4", 640, 480), ("x8", 640, 480), ("x16", 640, 480), ("x4-pac", 640, 480)]
CASES += [*SENSORS, *FAST, ("sensor-x16", 640, 480), ("x4", 1920, 1440)]
LARGE = [(name, 4000, 3000) for name in ("sensor-x8", "sensor-x16", "fast-sensor-x16")]
CASES += [*LARGE, *((name, 640, 480) for name in BASELINES)]
IN_BF16 = [("x4", 640, 480), ("x8", 640, 480), *SENSORS, *FAST]
ROUNDS = 9
LARGE_ROUNDS = 3


def measure(model: str, width: int, height: int, precision: str) -> dict:
    """In a process of its own, so that one case's memory is not another's."""
    import numpy as np
    from timing import peak_and_now, restart_peak, time_in_turn

    import depthup
    from depthup.memory import keep_freed_memory

    keep_freed_memory()  # as commands do
    is_network = re.search(r"x(\d+)", model)
    scale = int(is_network[1]) if is_network else 4
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (height, width, 3), np.uint8)
    depth = random.uniform(1, 8, (height // scale, width // scale)).astype(np.float32)
    loaded = depthup.load_model(model) if is_network else model
    rounds = ROUNDS if width < 4000 else LARGE_ROUNDS
    _, before = peak_and_now()
    restart_peak()
    upsampler = depthup.Upsampler(loaded, precision=precision)
    times = time_in_turn({"upsample": lambda: upsampler(rgb, depth)}, rounds)["upsample"]
    peak, _ = peak_and_now()
    facts = {"model": model, "scale": scale, "size": f"{width}x{height}", "precision": precision}
    return facts | {"peak_mb_above_import": peak - before} | times


def main() -> None:
    if len(sys.argv) > 1:
        model, width, height, precision = [*sys.argv[1:], "float32"][:4]
        print(json.dumps(measure(model, int(width), int(height), precision)))
        return
    from timing import print_table, write_results

    rows = []
    for case in [*CASES, *((*case, "bf16") for case in IN_BF16)]:
        command = [sys.executable, __file__, *map(str, case)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    print_table(rows, ["model", "size", "precision", "median_ms", "min_ms", "max_ms", "peak_mb_above_import"])
    print(f"\n{ROUNDS} rounds each; written to {write_results('upsampling', rows)}")


if __name__ == "__main__":
    main()
