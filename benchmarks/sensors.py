"""What the networks for sensors do where a sensor has faults: errors, how well they know them, and planes.

python benchmarks/sensors.py FOLDER [--scales 1,2,4,8,16] [--images 22], where FOLDER holds NYUv2 pairs, of whose
held-out images as many are taken, evenly spread. Every part is printed and written to benchmarks/results/sensors.json,
where what other scales gave is kept.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from timing import RESULTS, machine, print_table

from depthup import Upsampler, upsample
from depthup.baselines import BASELINES
from depthup.data import STANDARD_SENSOR, CachedPairs, PairDataset, Sensor, SomePairs, open_dataset
from depthup.data.motorcycle import motorcycle
from depthup.evaluation import Method, evaluate_methods, predict
from depthup.weights import shipped_names

PATH = RESULTS / "sensors.json"
SENSORS = {
    "clean": None,
    "clean, means of cells": Sensor("area"),
    "clean, one point of every cell": Sensor("point"),
    "holes": replace(STANDARD_SENSOR, noise_floor=0.0, noise_square=0.0),
    "holes, noise 1 mm + 0.5 mm z^2": replace(STANDARD_SENSOR, noise_square=0.0005),
    "holes, noise 1 mm + 1.5 mm z^2 (eval --sensor)": STANDARD_SENSOR,
    "and shifted by (0.7, -0.7) pixels": replace(STANDARD_SENSOR, shift=(0.7, -0.7)),
    "and blur 0.5, 30 % flying samples": replace(STANDARD_SENSOR, blur=0.5, flying=0.3),
    "and half of the noise shared, steps, shadows": replace(
        STANDARD_SENSOR, correlation=0.5, quantum=0.002, dropout=0.1, shadow=2
    ),
}
KNOWN = (*BASELINES, *shipped_names())
RATIOS = (
    1.0,
    1.3,
    1.5,
    1.9,
    2.0,
    2.5,
    3.0,
    3.7,
    4.0,
    5.0,
    5.6,
    6.0,
    7.5,
    9.1,
    12.0,
    16.0,
    (6.0, 4.0),
    (3.3, 4.7),
    (8.0, 16.0),
)


def errors(pairs: PairDataset, scale: int) -> list[dict]:
    """RMSE of pixels whose own sample is valid, a row for every sensor."""
    wanted = ("bicubic", "guided-filter", f"x{scale}", f"sensor-x{scale}", f"fast-sensor-x{scale}")
    names = [name for name in wanted if name in KNOWN]
    rows = []
    for title, sensor in SENSORS.items():
        runs = evaluate_methods(pairs, [Method(name, scale, name) for name in names], "dkn", None, sensor)
        rows.append({"scale": scale, "sensor": title} | {run.method: round(run.rmse, 3) for run in runs})
    return rows


def tenths(pairs: PairDataset, scale: int) -> list[float]:
    """Mean absolute error in cm of pixels sorted by expected error into ten equal parts, holes filled."""
    upsampler = Upsampler(f"sensor-x{scale}")
    expected, made = [], []
    for n in range(len(pairs)):
        scene = predict(pairs[n], Method("nearest", scale, "nearest"), "dkn", STANDARD_SENSOR)
        run = upsampler.run(scene.rgb, scene.low, fill="all")
        known = np.isfinite(scene.truth)
        expected.append(run.expected_error[known])
        made.append(100 * np.abs(run.depth - scene.truth)[known])
    order = np.argsort(np.concatenate(expected), kind="stable")
    return [round(float(part.mean()), 2) for part in np.array_split(np.concatenate(made)[order], 10)]


def plane(height: int, width: int) -> np.ndarray:
    """Depth tilted by 30 % and 20 % of 2 m."""
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return (2 + 0.6 * rows[:, None] - 0.4 * columns).astype(np.float32)


def plane_error(ratio: float | tuple[float, float]) -> dict:
    """A plane under a photograph of other things: error in per cent of depth, by the network chosen by default."""
    down, along = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    height, width = round(48 * down), round(72 * along)
    rgb = cv2.resize(motorcycle().rgb, (width, height), interpolation=cv2.INTER_AREA)
    error = 100 * (upsample(rgb, plane(48, 72), fill="all") / plane(height, width) - 1)
    return {"ratio": str(ratio), "rms": f"{np.sqrt(np.mean(error**2)):.3f}", "largest": f"{np.abs(error).max():.2f}"}


def main(options: argparse.Namespace) -> None:
    pairs = SomePairs(CachedPairs(open_dataset(options.folder, "val")), options.images)
    results = json.loads(PATH.read_text()) if PATH.exists() else {"scales": {}}
    results |= {"machine": machine(), "images": len(pairs)}
    for scale in options.scales.split(","):
        rows, parts = errors(pairs, int(scale)), tenths(SomePairs(pairs, 8), int(scale))
        results["scales"][scale] = {"errors": rows, "tenths": parts}
        print_table(rows, list(rows[0]))
        print(f"x{scale}, mean absolute error by tenths of expected error [cm]: {parts}", flush=True)
    results["planes"] = [plane_error(ratio) for ratio in RATIOS]
    print_table(results["planes"], ["ratio", "rms", "largest"])
    PATH.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scales", default="1,2,4,8,16")
    parser.add_argument("--images", type=int, default=22)
    main(parser.parse_args())
