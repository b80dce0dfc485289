"""The whole network on tensors that are on its device: milliseconds a forward pass, for several sizes of RGB.

python benchmarks/network.py [ROUNDS]

Weights are random, which changes no time. On a GPU also in bfloat16 (autocast), and without the launches (`gpu_ms`).
"""

from __future__ import annotations

import sys

import torch
from timing import prepare_gpu, print_table, time_in_turn, time_on_gpu, write_results

from depthup.models import DDFUpNet, DDFUpNetConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NETWORKS = [("fast", 4, {}), ("base", 4, {"passes": 1}), ("base", 4, {"back_projections": 2})]
NETWORKS += [("base", 8, {"passes": 1}), ("base", 16, {"passes": 1}), ("paper", 4, {}), ("large", 4, {})]
SIZES = [(640, 480), (1920, 1440)]
PRECISIONS = ["float32", "bfloat16"] if DEVICE == "cuda" else ["float32"]


def measure(name: str, scale: int, changes: dict, width: int, height: int, precision: str, rounds: int) -> dict:
    net = DDFUpNet(DDFUpNetConfig.named(name, scale, **changes)).to(DEVICE, memory_format=torch.channels_last).eval()
    low = torch.rand(1, 1, height // scale, width // scale, device=DEVICE)
    rgb = torch.rand(1, 3, height, width, device=DEVICE).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run():
        # Without a cache, whose copies of the weights would be of one recording and not of the next.
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
            return net(low, rgb)

    times = time_in_turn({"net": run}, rounds)["net"]
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        times["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
        times |= time_on_gpu({"net": run}, rounds)["net"]
    detail = ", ".join(f"{value} {field}" for field, value in changes.items())
    network = f"{name} x{scale}" + (f", {detail}" if detail else "")
    return {"network": network, "size": f"{width}x{height}", "precision": precision} | times


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    prepare_gpu()
    networks = [network for network in NETWORKS if DEVICE == "cuda" or network[0] in ("fast", "base")]
    rows = [
        measure(*network, *size, precision, rounds)
        for size in SIZES
        for network in networks
        for precision in PRECISIONS
    ]
    columns = ["network", "size", "precision", "median_ms", "min_ms", "max_ms"]
    print_table(rows, columns + (["gpu_ms", "peak_mb"] if DEVICE == "cuda" else []))
    print(f"\n{rounds} rounds; written to {write_results('network', rows)}")


if __name__ == "__main__":
    main()
