"""What a choice of the training recipe gives in a fixed time of one processor core: one short run for every choice.

python benchmarks/recipe.py FOLDER '{}' '{"optimiser": "adamw", "learning_rate": 1.5e-3}' '{"batch_size": 2}'

Every choice is a JSON object of fields of `depthup.training.TrainConfig`, on top of --scale and of crops of 128 in
batches of 4. Time is the processor's, so that what else runs on the machine costs nothing, and validation is not in it;
every quarter of the held-out images is scored at the end. FOLDER holds NYUv2 pairs.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from timing import print_table

from depthup.data import CachedPairs, SomePairs, open_dataset, prefetch
from depthup.train_config import TrainConfig
from depthup.training import learning_rate, make_sampler, start, train_step, validate


def short_run(training: CachedPairs, validation: CachedPairs, config: TrainConfig, minutes: float) -> dict:
    """Steps made, and the RMSE of the averaged weights."""
    state = start(config)
    began = time.process_time()
    for batch in prefetch(make_sampler(training, config), 0, 2**62):
        done = (time.process_time() - began) / 60 / minutes
        if done >= 1:
            break
        train_step(config, state, batch, learning_rate(config, state.step, done))
    held_out = SomePairs(validation, len(validation) // 4)
    rmse = validate(state, held_out, config).rmse
    return {"steps": state.step, "rmse": f"{rmse:.3f}", "images": len(held_out)}


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    training, validation = (CachedPairs(open_dataset(options.folder, split)) for split in ("train", "val"))
    common = {"scale": options.scale, "steps": 1, "batch_size": 4, "warmup_steps": 100, "ema_decay": 0.995}
    rows = []
    for choice in options.choices:
        config = TrainConfig(**(common | json.loads(choice)))
        rows.append({"choice": choice} | short_run(training, validation, config, options.minutes))
    print_table(rows, ["choice", "steps", "rmse", "images"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("choices", nargs="+")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=7.0)
    main(parser.parse_args())
