"""Sparse samples in the view of the RGB image, as of a LiDAR: what runs by default, its small network, interpolations.

python benchmarks/sparse.py FOLDER [--images 22], where FOLDER holds NYUv2 pairs, of whose held-out images as many are
taken, evenly spread. Samples are the truth itself. RMSE of all pixels whose truth is known, and mean absolute error, in
centimetres, printed and written to benchmarks/results/sparse.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from timing import RESULTS, machine, print_table

from depthup import Upsampler
from depthup.data import CachedPairs, SomePairs, open_dataset
from depthup.upsampling import fill_from_nearest

PATTERNS: dict[str, tuple[float, tuple[int, ...]]] = {
    "50 % of the pixels": (0.5, ()),
    "30 %": (0.3, ()),
    "10 %": (0.1, ()),
    "5 %": (0.05, ()),
    "2 %": (0.02, ()),
    "0.5 %": (0.005, ()),
    "500 pixels": (500 / (640 * 480), ()),
    "half of every 4th row": (0.5, (4,)),
    "half of every 8th row": (0.5, (8,)),
    "every 16th row": (1.0, (16,)),
    "every 4th row and column": (1.0, (4, 4)),
    "every 6th row and column": (1.0, (6, 6)),
    "every 12th row and column": (1.0, (12, 12)),
}
"""Name -> how many of the pixels are measured, in one row (and column) of so many, the first anywhere among them."""


def measured(shape: tuple[int, int], pattern: tuple[float, tuple[int, ...]], rng: np.random.Generator) -> np.ndarray:
    fraction, steps = pattern
    seen = rng.random(shape) < fraction
    for place, step in zip(np.indices(shape), steps, strict=False):
        seen &= (place + rng.integers(step)) % step == 0
    return seen


def linear(depth: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Between samples linear (Delaunay), beyond them the nearest one's."""
    known = np.isfinite(depth)
    places = np.argwhere(known)
    between = LinearNDInterpolator(places, depth[known])(*np.indices(depth.shape))
    return np.where(np.isfinite(between), between, nearest)


def main(options: argparse.Namespace) -> None:
    pairs = SomePairs(CachedPairs(open_dataset(options.folder, "val")), options.images)
    upsampler = Upsampler()
    rows = []
    for name, pattern in PATTERNS.items():
        rng = np.random.default_rng(0)
        errors: dict[str, list[np.ndarray]] = {"nearest": [], "linear": [], "depthup": [], "fast": []}
        for n in range(len(pairs)):
            pair = pairs[n]
            seen = measured(pair.depth.shape, pattern, rng) & np.isfinite(pair.depth)
            depth = np.where(seen, pair.depth, np.float32(np.nan))
            run = upsampler.run(pair.rgb, depth, fill="all")
            nearest = fill_from_nearest(depth, seen)
            results = {"nearest": nearest, "linear": linear(depth, nearest), "depthup": run.depth}
            results["fast"] = Upsampler(f"fast-{run.model}")(pair.rgb, depth, fill="all")
            for method, result in results.items():
                errors[method].append(100 * (result - pair.depth)[np.isfinite(pair.depth)])
        row = {"measured": name, "cells": f"{run.gathered}x{run.gathered}", "network": run.model}
        row |= {f"RMSE {m}": round(float(np.mean([np.sqrt(np.mean(e**2)) for e in es])), 2) for m, es in errors.items()}
        row |= {f"MAE {m}": round(float(np.mean([np.abs(e).mean() for e in es])), 2) for m, es in errors.items()}
        rows.append(row)
    print_table(rows, list(rows[0]))
    results = {"machine": machine(), "images": len(pairs), "rows": rows}
    (RESULTS / "sparse.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=22)
    main(parser.parse_args())
