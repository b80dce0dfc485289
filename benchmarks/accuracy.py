"""Errors of the networks in the box for clean depth and of the baselines, on scenes that were never trained on.

python benchmarks/accuracy.py FOLDER [--networks x8,fast-x4], where FOLDER holds the pair folders nyuv2, middlebury and
lu. With --networks only these are evaluated, and everything else in benchmarks/results/accuracy.json is kept. Prints
the rows of the tables in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from timing import RESULTS, machine

from depthup.data import CachedPairs, open_dataset
from depthup.evaluation import evaluate
from depthup.weights import read_metadata, shipped_names

BASELINES = ("nearest", "bilinear", "bicubic", "joint-bilateral", "guided-filter")
METRICS = {
    **{"mae": 3, "rel": 4, "off_by_1": 1, "off_by_5": 1, "off_by_10": 1},
    **{"rmse_near_edges": 2, "rmse_elsewhere": 3, "boundary_f1": 3, "consistency": 3},
}
"""Columns of the tables in docs/results.md after RMSE and its interval -> decimals."""
SAME = ("data", "method", "scale", "protocol")  # what makes a row take the place of another
PATH = RESULTS / "accuracy.json"


def tasks(networks: list[str] | None) -> list[tuple[int, str, str]]:
    """Scale, protocol and method of everything that is to be evaluated."""
    found = []
    for name in networks or [name for name in shipped_names() if not name.startswith("sensor-")]:
        config, record = read_metadata(name)
        found.append((config.scale, record["config"]["protocol"], name))
    pairs = sorted({(scale, protocol) for scale, protocol, _ in found})
    return found if networks else found + [(*pair, name) for pair in pairs for name in BASELINES]


def line(row: dict) -> str:
    """A row as in docs/results.md; what is undefined, as edges in an image without one, is left empty."""
    interval = "{:.2f} to {:.2f}".format(*row["rmse_interval"]) if row["rmse_interval"] else ""
    cells = [f"`{row['protocol']}` x{row['scale']}", f"`{row['method']}`", f"{row['rmse']:.3f}", interval]
    for name, digits in METRICS.items():
        cells.append("" if row[name] is None else f"{row[name]:.{digits}f}")
    return f"| {' | '.join(cells)} |"


def main(options: argparse.Namespace) -> None:
    folder = options.folder
    sets = [(str(folder / "nyuv2"), "val"), (str(folder / "middlebury"), "test"), (str(folder / "lu"), "test")]
    rows = json.loads(PATH.read_text())["rows"] if options.networks else []
    wanted = tasks(options.networks.split(",") if options.networks else None)
    for data, split in [*sets, ("motorcycle", "test")]:
        pairs = CachedPairs(open_dataset(data, split))
        for scale, protocol, method in wanted:
            row = evaluate(pairs, scale, protocol, method).summary()
            row.pop("definitions")
            rows = [other for other in rows if any(other[name] != row[name] for name in SAME)] + [row]
            print(data, method, scale, protocol, f"{row['rmse']:.3f}", file=sys.stderr, flush=True)
            print(line(row), flush=True)
    PATH.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(f"\nwritten to {PATH}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks")
    main(parser.parse_args())
