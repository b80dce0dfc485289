"""How the weights in the box were trained: for every name the stages, each starting from the weights of the one before.

`depthup train --recipe NAME` runs them. docs/training.md says what was tried before these were chosen.
"""

from __future__ import annotations

from typing import Any

Stage = dict[str, Any]
"""Fields of `TrainConfig`, without `seed` and `init`."""

_MUON: Stage = {"batch_size": 4, "ema_decay": 0.998}
_ADAMW: Stage = {"optimiser": "adamw", "learning_rate": 1.5e-3}
_LARGE_CROPS: Stage = {"batch_size": 4, "crop_size": 192}

_X4_FIRST = _ADAMW | {"scale": 4, "steps": 9516}
_X8_FIRST = _ADAMW | _LARGE_CROPS | {"scale": 8, "steps": 2155}

RECIPES: dict[str, tuple[Stage, ...]] = {
    "x4": (_X4_FIRST, _MUON | {"scale": 4, "steps": 3000}),
}
"""Name of weights -> stages."""
