"""RMSE of the networks in the box and of the baselines, on scenes that were never trained on.

python benchmarks/accuracy.py FOLDER, where FOLDER holds the pair folders nyuv2, middlebury and lu.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from timing import RESULTS, machine, print_table

from depthup.data import CachedPairs, open_dataset
from depthup.evaluation import evaluate

TASKS = [(4, "dkn", "x4"), (8, "dkn", "x8"), (16, "dkn", "x16"), (4, "pac", "x4-pac")]
BASELINES = ("nearest", "bilinear", "bicubic", "joint-bilateral", "guided-filter")


def main(folder: Path) -> None:
    sets = [(str(folder / "nyuv2"), "val"), (str(folder / "middlebury"), "test"), (str(folder / "lu"), "test")]
    rows = []
    for data, split in [*sets, ("motorcycle", "test")]:
        pairs = CachedPairs(open_dataset(data, split))
        for scale, protocol, network in TASKS:
            for model in (network, *BASELINES):
                rows.append(evaluate(pairs, scale, protocol, model).summary())
                print(data, rows[-1]["method"], scale, protocol, f"{rows[-1]['rmse']:.3f}", file=sys.stderr)
    path = RESULTS / "accuracy.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print_table(rows, ["data", "images", "scenes", "scale", "protocol", "method", "rmse", "mae", "unit", "border"])
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
