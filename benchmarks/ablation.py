"""Does DDF-Up earn its place? Networks that differ in their up-sampler alone, trained alike, scored on held-out scenes.

python benchmarks/ablation.py FOLDER --scale 8 --steps 2000 --seeds 3

FOLDER holds NYUv2 pairs. Every up-sampler's network gets the width that brings its time for one image nearest to that
of the DDF-Up network (`--equal steps` leaves them alike; `--equal no-faster` takes the least that is no faster, since
times of neighbouring widths lie far apart). What is finished is kept in `runs/ablation`, so the same command goes on
where it was stopped. Writes benchmarks/results/ablation-x8.json, or ablation-x8-no-faster.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch
from timing import RESULTS, machine, print_table, time_in_turn
from torch.utils.flop_counter import FlopCounterMode

from depthup.data import CachedPairs, open_dataset
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.train_config import TrainConfig
from depthup.training import train
from depthup.upsamplers import ALTERNATIVES
from depthup.weights import read_metadata

UPSAMPLERS = ("ddf_up", *ALTERNATIVES)
WIDTH_STEP = 8  # what widths are multiples of
SIZE = (240, 320)  # of the image whose time is taken
NETWORK = {"trunk_blocks": 6, "fine_blocks": 0, "passes": 1, "back_projections": 0}  # less than the box has


def milliseconds(configs: dict[str, DDFUpNetConfig]) -> dict[str, float]:
    """Shortest time for one image, all networks taking turns."""
    scale = next(iter(configs.values())).scale
    low, rgb = torch.rand(1, 1, SIZE[0] // scale, SIZE[1] // scale), torch.rand(1, 3, *SIZE)
    rgb = rgb.contiguous(memory_format=torch.channels_last)
    calls = {}
    for name, config in configs.items():
        net = DDFUpNet(config).to(memory_format=torch.channels_last).eval()
        calls[name] = lambda net=net: net(low, rgb)
    with torch.no_grad():
        return {name: times["min_ms"] for name, times in time_in_turn(calls, rounds=9).items()}


def gflops(config: DDFUpNetConfig) -> float:
    """Of one 640x480 image, in 10^9: what PyTorch counts, and three for every tap of DDF-Up and CARAFE."""

    def taps(x, channel_filter, *rest, out_shape, **more):
        return 3 * math.prod(out_shape) * channel_filter[-1] * channel_filter[-2]

    net = DDFUpNet(config).eval()
    with FlopCounterMode(display=False, custom_mapping={torch.ops.depthup.ddf: taps}) as counter, torch.no_grad():
        net(torch.rand(1, 1, 480 // config.scale, 640 // config.scale), torch.rand(1, 3, 480, 640))
    return counter.get_total_flops() / 1e9


def equally_fast(ours: DDFUpNetConfig, no_faster: bool) -> dict[str, int]:
    """Width of every up-sampler's network for the time of the DDF-Up network, or the least for as much or more."""
    configs = {"ddf_up": ours}
    for name in ALTERNATIVES:
        for width in range(ours.width // 2, ours.width * 3 // 2 + 1, WIDTH_STEP):
            configs[f"{name} {width}"] = replace(ours, upsampler=name, width=width)
    times = milliseconds(configs)
    chosen = {"ddf_up": ours.width}
    for name in ALTERNATIVES:
        own = [key for key in configs if key.startswith(f"{name} ")]
        if no_faster:
            slower = [key for key in own if times[key] >= times["ddf_up"]]
            if not slower:
                raise SystemExit(f"{own[-1]} wide and all narrower are faster than DDF-Up: no width to take")
            own = slower[:1]
        nearest = min(own, key=lambda key: abs(times[key] - times["ddf_up"]))
        chosen[name] = configs[nearest].width
    return chosen


def main(options: argparse.Namespace) -> None:
    ours = DDFUpNetConfig.named("base", options.scale, **NETWORK)
    place = Path("runs/ablation") / f"x{options.scale}-{options.steps}-{options.equal}"
    place.mkdir(parents=True, exist_ok=True)
    chosen = place / "widths.json"
    if not chosen.exists():
        widths = dict.fromkeys(UPSAMPLERS, ours.width)
        if options.equal != "steps":
            widths = equally_fast(ours, options.equal == "no-faster")
        chosen.write_text(json.dumps(widths))
    widths = json.loads(chosen.read_text())
    training, validation = (CachedPairs(open_dataset(options.folder, split)) for split in ("train", "val"))
    scores: dict[str, list[float]] = {name: [] for name in options.only.split(",")}
    for seed in range(options.seeds):
        for name in scores:
            out = place / f"{name}-{seed}"
            weights = out / "model.safetensors"
            config = TrainConfig(
                scale=options.scale,
                network=NETWORK | {"upsampler": name, "width": widths[name]},
                steps=options.steps,
                batch_size=options.batch_size,
                ema_decay=0.99,  # these runs are short
                seed=seed,
            )
            if not weights.exists() or not read_metadata(weights)[1]["validation"]:
                started = (out / "checkpoint.safetensors").exists()
                if not train(training, validation, config, out, resume=started, report=lambda line: None).finished:
                    sys.exit("stopped; the same command goes on")
            scores[name].append(read_metadata(weights)[1]["validation"]["rmse"])
            print(f"{name:14} seed {seed} {scores[name][-1]:.3f} cm", file=sys.stderr, flush=True)
    configs = {name: replace(ours, upsampler=name, width=widths[name]) for name in scores}
    times = milliseconds(configs)
    rows = [
        {
            "upsampler": name,
            "width": widths[name],
            "parameters": DDFUpNet(configs[name]).parameter_count(),
            "gflops_640x480": round(gflops(configs[name]), 2),
            "ms_320x240": times[name],
            "rmse": statistics.mean(scores[name]),
            "spread": max(scores[name]) - min(scores[name]),
            "rmse_by_seed": scores[name],
        }
        for name in scores
    ]
    facts = vars(options) | {"folder": validation.title, "images": len(validation)}
    path = RESULTS / f"ablation-x{options.scale}{'-no-faster' * (options.equal == 'no-faster')}.json"
    path.write_text(json.dumps({"machine": machine(), "options": facts, "rows": rows}, indent=1) + "\n")
    print_table(rows, ["upsampler", "width", "parameters", "gflops_640x480", "ms_320x240", "rmse", "spread"])
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--equal", choices=("latency", "no-faster", "steps"), default="latency")
    parser.add_argument("--only", default=",".join(UPSAMPLERS), help="of these, with commas between")
    main(parser.parse_args())
