"""Checkpoints of a training run: one safetensors file, so that reading one never runs code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save

from depthup.atomic import write_beside
from depthup.data import InputError

FORMAT = "depthup-checkpoint-6"


def save_checkpoint(path: Path, state: Any, config: dict, data: dict) -> None:
    """Write weights, averaged weights, optimisers, random state and position of a `TrainState`.

    `config` and `data` say what the run does and which pairs it trains on; they are among the facts that come back.
    """
    optimisers = {name: optimiser.state_dict() for name, optimiser in state.optimisers.items()}
    tensors = {f"model/{name}": t for name, t in state.model.state_dict().items()}
    tensors |= {f"ema/{name}": t for name, t in state.ema.items()}
    tensors |= {f"anchor/{name}": t for name, t in state.anchor.items()}
    for optimiser, kept in optimisers.items():
        for index, moments in kept["state"].items():
            tensors |= {f"optimiser/{optimiser}/{index}/{name}": t for name, t in moments.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    facts = {
        "config": config,
        "data": data,
        "step": state.step,
        "seconds": state.seconds,
        "losses": [float(loss) for loss in state.losses],
        "param_groups": {name: kept["param_groups"] for name, kept in optimisers.items()},
    }
    metadata = {"format": FORMAT, "facts": json.dumps(facts)}
    with write_beside(path) as temporary:
        temporary.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, dict], dict]:
    """Tensors by `model`, `ema`, `anchor`, `optimiser` (by its name and parameter index) and `random`, and the facts.

    Raises:
        InputError: the file is not a checkpoint of depthup.
    """
    tensors: dict[str, dict] = {"model": {}, "ema": {}, "anchor": {}, "optimiser": {}, "random": {}}
    with _opened(path) as (file, facts):
        for key in file.keys():  # noqa: SIM118 - not a dict
            part, name = key.split("/", 1)
            if part == "optimiser":
                optimiser, index, moment = name.split("/")
                of_one = tensors[part].setdefault(optimiser, {})
                of_one.setdefault(int(index), {})[moment] = file.get_tensor(key)
            else:
                tensors[part][name] = file.get_tensor(key)
    return tensors, facts


def read_facts(path: Path) -> dict:
    """The facts of a checkpoint alone, without its tensors; raises as `load_checkpoint`."""
    with _opened(path) as (_, facts):
        return facts


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict]]:
    """A file and its facts; what is wrong with it while it is read is an InputError."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = metadata.get("format")
                raise InputError(f"{path}: its format is {found}, expected {FORMAT}, that of this version")
            facts = json.loads(metadata["facts"])
            if not _are_of_a_run(facts):
                raise InputError(f"{path}: does not say what run it is of; expected what train wrote there")
            yield file, facts
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a checkpoint ({error})") from None


def _are_of_a_run(facts: Any) -> bool:
    """Whether these are facts as `save_checkpoint` writes them, as far as nobody else looks."""
    kinds = {"config": dict, "data": dict, "param_groups": dict, "losses": list, "step": int, "seconds": int | float}
    known = isinstance(facts, dict) and all(isinstance(facts.get(name), kind) for name, kind in kinds.items())
    return known and facts["step"] >= 0 and 0 <= facts["seconds"] < math.inf
