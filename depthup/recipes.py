"""How the weights in the box were trained: for every name the stages, each starting from the weights of the one before.

`depthup train --recipe NAME` runs them. docs/training.md says what was tried before these were chosen.
"""

from __future__ import annotations

from typing import Any

Stage = dict[str, Any]
"""Fields of `TrainConfig`, without `seed` and `init`."""

_ADAMW: Stage = {"optimiser": "adamw", "learning_rate": 1.5e-3}
_MUON: Stage = {"batch_size": 4, "ema_decay": 0.998}
_LARGE_CROPS: Stage = {"batch_size": 4, "crop_size": 192}
_ONCE = {"passes": 1, "back_projections": 0}  # before there were others
_LONG: Stage = {"batch_size": 4, "rescale": 0.3, "network": _ONCE}

_SIX = _ONCE | {"trunk_blocks": 6, "fine_blocks": 0}  # residual blocks, before there was time for more
_X4 = _ADAMW | {"scale": 4, "network": _SIX, "steps": 9516}
_X4_LONG = _LONG | {"scale": 4, "network": _ONCE | {"fine_blocks": 0}, "steps": 40000}
_X4_DEEP = _LONG | {"scale": 4}
_X8_FIRST = _ADAMW | _LARGE_CROPS | {"scale": 8, "network": _SIX, "steps": 2155}
_X8_SECOND = _X8_FIRST | {"learning_rate": 7e-4, "steps": 1267}
_X8_LONG = _LONG | _LARGE_CROPS | {"scale": 8, "steps": 16000}
_X8 = (_X4, _X8_FIRST, _X8_SECOND, _MUON | _LARGE_CROPS | {"scale": 8, "network": _SIX, "steps": 1800}, _X8_LONG)
_X8_AGAIN = (*_X8, _X8_LONG | {"steps": 5000})
_X16_LONG = _LONG | _LARGE_CROPS | {"scale": 16, "steps": 7000}
_STRONG: Stage = {"rescale": 0.5, "augmentation": "strong", "weight_decay": 0.05, "ema_decay": 0.9995}
_GENTLY = _STRONG | {"rescale": 0.4, "weight_decay": 0.03, "learning_rate": 1.4e-3}
_MERGED = _STRONG | {"augmentation": "merged"}
_CALM: Stage = {"rescale": 0.2, "weight_decay": 0.01, "learning_rate": 8e-4}
_ALL_OF_X4 = (
    _X4,
    _X4_LONG,
    _X4_DEEP | _STRONG | {"steps": 26000},
    _X4_DEEP | _CALM | {"steps": 5000},
    _X4_DEEP | _CALM | {"steps": 3000, "learning_rate": 4e-4},
)
_TWICE: Stage = {"network": {}}  # as `base` is now
_X4_TWICE = _X4_DEEP | _TWICE | {"rescale": 0.2, "weight_decay": 0.01, "learning_rate": 1.6e-3, "ema_decay": 0.9995}
_X4_PAC = _X4_DEEP | _TWICE | {"protocol": "pac"}
_X8_STRONG = _X8_LONG | _STRONG | {"steps": 12000}
_X16_STRONG = _X16_LONG | _STRONG | {"steps": 12000}
_X16 = (*_X8_AGAIN, _X16_LONG, _X16_STRONG, _X16_STRONG | {"steps": 6000})
_ALL_OF_X16 = (*_X16, _X16_STRONG | {"steps": 14000}, _X16_LONG | _CALM | {"steps": 4000})

_SENSOR = _STRONG | {"sensor": True, "rescale": 0.3, "weight_decay": 0.01}
_SENSOR_AGAIN = _SENSOR | {"learning_rate": 1e-3, "ema_decay": 0.998}

_FAST_X4 = _MUON | {"architecture": "fast", "scale": 4, "steps": 3200}
_FAST_AGAIN = {"ema_decay": 0.999, "rescale": 0.3}
_FAST_X8 = _MUON | _LARGE_CROPS | {"architecture": "fast", "scale": 8, "steps": 1200}
_FAST_X16 = _FAST_X8 | {"scale": 16, "steps": 800}
_ALL_OF_FAST_X4 = (_FAST_X4, _FAST_X4 | _FAST_AGAIN | {"steps": 11000})
_ALL_OF_FAST_X8 = (_FAST_X4, _FAST_X8, _FAST_X8 | _FAST_AGAIN | {"steps": 4000})
_ALL_OF_FAST_X16 = (_FAST_X4, _FAST_X8, _FAST_X16, _FAST_X16 | _FAST_AGAIN | {"steps": 2000})

_FAST_SENSOR = _FAST_X8 | _STRONG | {"sensor": True, "rescale": 0.4, "weight_decay": 0.01, "synthetic": 300}
_LARGER_CROPS: Stage = {"batch_size": 3, "crop_size": 256}
_FAST_X16_CROPS = _LARGER_CROPS | {"scale": 16}
_FAST_STRONG = _FAST_X8 | _STRONG | {"rescale": 0.4, "weight_decay": 0.02, "ema_decay": 0.999}
_FAST_CALM = _FAST_X8 | _CALM | {"ema_decay": 0.999, "keep": 0.5}
_FAST_SENSOR_CALM = _FAST_SENSOR | _CALM | {"augmentation": "standard", "ema_decay": 0.999, "keep": 0.5}
_ALL_OF_FAST_SENSOR_X4 = (*_ALL_OF_FAST_X4, _FAST_SENSOR | {"scale": 4, "steps": 13542})

_LONGER_FAST_X4 = (
    *_ALL_OF_FAST_X4,
    _FAST_STRONG | {"scale": 4, "steps": 5001},
    _FAST_CALM | {"scale": 4, "steps": 2606},
)
_LONGER_FAST_X8 = (
    *_ALL_OF_FAST_X8,
    _FAST_STRONG | _LARGER_CROPS | {"steps": 3790},
    _FAST_CALM | _LARGER_CROPS | {"steps": 1956},
)
_LONGER_FAST_X16 = (
    *_ALL_OF_FAST_X16,
    _FAST_STRONG | _FAST_X16_CROPS | {"steps": 3576},
    _FAST_CALM | _FAST_X16_CROPS | {"ema_decay": 0.998, "steps": 2241},
)

_ALL_OF_SENSOR_X4 = (
    _X4,
    _X4_LONG,
    _X4_LONG | _SENSOR | {"steps": 24000},
    _X4_LONG | _SENSOR_AGAIN | {"steps": 3000},
    _X4_DEEP | _SENSOR | {"steps": 20000},
    _X4_DEEP | _CALM | {"sensor": True, "steps": 9000, "keep": 0.5},
)
_SPARSE: Stage = _LONG | _LARGER_CROPS | {"sensor": True, "weight_decay": 0.01, "rescale": 0.25, "learning_rate": 1e-3}
_SPARSE |= {"synthetic": 100, "keep": 0.5}
_FAST_SPARSE = _SPARSE | {"architecture": "fast", "network": {}, "synthetic": 200}
_FINE_SENSOR = _LONG | _LARGE_CROPS | {"sensor": True, "weight_decay": 0.02, "network": {"passes": 1}}

_AMONG_ROOMS = _FINE_SENSOR | {"augmentation": "strong", "rescale": 0.5, "synthetic": 400}

RECIPES: dict[str, tuple[Stage, ...]] = {
    "x4": (*_ALL_OF_X4, _X4_TWICE | {"steps": 16000}),
    "x8": (
        *_X8,
        _X8_STRONG,
        _X8_LONG | _MERGED | {"steps": 8000},
        _X8_LONG | _CALM | {"steps": 4000, "keep": 0.5},
        _X8_LONG | _TWICE | _GENTLY | {"steps": 5500},
    ),
    "x16": (*_ALL_OF_X16, _X16_LONG | _TWICE | _GENTLY | {"steps": 6500}),
    "x4-pac": (
        *_ALL_OF_X4,
        _X4_DEEP | {"protocol": "pac", "steps": 12000, "weight_decay": 0.01},
        _X4_DEEP | _CALM | {"protocol": "pac", "steps": 4000, "learning_rate": 6e-4},
        _X4_PAC | _GENTLY | {"steps": 6000, "weight_decay": 0.01, "learning_rate": 1.6e-3},
        _X4_PAC | _CALM | {"steps": 4000, "ema_decay": 0.999},
        _X4_PAC
        | _CALM
        | {"steps": 5500, "batch_size": 2, "crop_size": 256, "learning_rate": 1e-3, "ema_decay": 0.9995},
    ),
    "x8-pac": (
        *_X8,
        _X8_STRONG | {"protocol": "pac", "steps": 6000},
        _X8_LONG | _MERGED | {"protocol": "pac", "steps": 6000},
        _X8_LONG | _CALM | {"protocol": "pac", "steps": 3000, "keep": 0.5},
        _X8_STRONG | _TWICE | {"protocol": "pac", "steps": 5500},
        _X8_LONG | _CALM | _TWICE | {"protocol": "pac", "steps": 1800, "keep": 0.5},
        _X8_STRONG | _TWICE | {"protocol": "pac", "steps": 6694, "batch_size": 12, "crop_size": 256},  # on a GPU
        _X8_LONG | _CALM | _TWICE | {"protocol": "pac", "steps": 5000, "keep": 0.5},
        _X8_LONG | _GENTLY | _TWICE | {"protocol": "pac", "steps": 14000},
        _X8_LONG | _CALM | _TWICE | {"protocol": "pac", "steps": 5000, "keep": 0.5},
    ),
    "x16-pac": (
        *_ALL_OF_X16,
        _X16_LONG | _MERGED | {"steps": 8000},
        _X16_LONG | _MERGED | {"protocol": "pac", "steps": 5000},
        _X16_LONG | _CALM | {"protocol": "pac", "steps": 3000, "keep": 0.5},
        _X16_STRONG | _TWICE | {"protocol": "pac", "steps": 7000},
        _X16_LONG | _CALM | _TWICE | {"protocol": "pac", "steps": 4000, "keep": 0.5},
        _X16_STRONG | _TWICE | {"protocol": "pac", "steps": 7964, "batch_size": 8, "crop_size": 256},  # on a GPU
        _X16_LONG | _CALM | _TWICE | {"protocol": "pac", "steps": 3000, "keep": 0.5},
    ),
    "fast-x4": _LONGER_FAST_X4,
    "fast-x8": _LONGER_FAST_X8,
    "fast-x16": _LONGER_FAST_X16,
    "fast-x4-pac": (
        *_LONGER_FAST_X4,
        _FAST_X8 | _FAST_AGAIN | {"scale": 4, "protocol": "pac", "weight_decay": 0.01, "steps": 4504},
        _FAST_CALM | {"scale": 4, "protocol": "pac", "steps": 3269},
    ),
    "fast-x8-pac": (
        *_LONGER_FAST_X8,
        _FAST_STRONG | _LARGER_CROPS | {"protocol": "pac", "steps": 2481},
        _FAST_CALM | _LARGER_CROPS | {"protocol": "pac", "steps": 2224},
    ),
    "fast-x16-pac": (
        *_LONGER_FAST_X16,
        _FAST_STRONG | _FAST_X16_CROPS | {"protocol": "pac", "steps": 3028},
        _FAST_CALM | _FAST_X16_CROPS | {"protocol": "pac", "steps": 1144},
    ),
    "sensor-x1": (
        *_ALL_OF_SENSOR_X4,
        _FINE_SENSOR | {"scale": 1, "network": {}, "steps": 1337},
        _FINE_SENSOR | {"scale": 1, "steps": 5500},
        _AMONG_ROOMS | {"scale": 1, "steps": 4453, "weight_decay": 0.03},
        _AMONG_ROOMS | {"scale": 1, "steps": 5237, "learning_rate": 1.6e-3},
        _SPARSE | {"scale": 1, "steps": 1500, "synthetic": 200},
    ),
    "sensor-x2": (
        *_ALL_OF_SENSOR_X4,
        _FINE_SENSOR | {"scale": 2, "network": {}, "steps": 1314},
        _FINE_SENSOR | {"scale": 2, "steps": 5713},
        _AMONG_ROOMS | {"scale": 2, "steps": 8996, "learning_rate": 1.7e-3, "ema_decay": 0.9995},
        _AMONG_ROOMS | {"scale": 2, "steps": 4211, "learning_rate": 1.6e-3, "keep": 0.5},
        _SPARSE | {"scale": 2, "steps": 2000, "synthetic": 200},
    ),
    "sensor-x4": (*_ALL_OF_SENSOR_X4, _SPARSE | {"scale": 4, "learning_rate": 1.2e-3, "steps": 2449}),
    "sensor-x8": (
        *_X8,
        _X8_LONG | _SENSOR | {"steps": 8000},
        _X8_LONG | _SENSOR_AGAIN | {"steps": 2000},
        _X8_LONG | _SENSOR | {"steps": 12000},
        _X8_LONG | _CALM | {"sensor": True, "steps": 9000, "keep": 0.5},
        _SPARSE | {"scale": 8, "steps": 3075},
    ),
    "sensor-x16": (
        *_X16,
        _X16_LONG | _SENSOR | {"steps": 4000},
        _X16_LONG | _SENSOR_AGAIN | {"steps": 1500},
        _X16_LONG | _TWICE | _GENTLY | {"sensor": True, "steps": 9000},
        _X16_LONG | _CALM | _TWICE | {"sensor": True, "steps": 4000, "keep": 0.5},
        _SPARSE | _TWICE | {"scale": 16, "steps": 1211},
    ),
    "fast-sensor-x1": (
        *_ALL_OF_FAST_SENSOR_X4,
        _FAST_SENSOR | {"scale": 1, "synthetic": 400, "steps": 7125},
        _FAST_SENSOR_CALM | {"scale": 1, "synthetic": 400, "steps": 3364},
        _FAST_SPARSE | {"scale": 1, "steps": 1800},
    ),
    "fast-sensor-x2": (
        *_ALL_OF_FAST_SENSOR_X4,
        _FAST_SENSOR | {"scale": 2, "synthetic": 400, "steps": 8005},
        _FAST_SENSOR_CALM | {"scale": 2, "synthetic": 400, "steps": 5316},
        _FAST_SPARSE | {"scale": 2, "steps": 2500},
    ),
    "fast-sensor-x4": (
        *_ALL_OF_FAST_SENSOR_X4,
        _FAST_SENSOR_CALM | {"scale": 4, "steps": 4970},
        _FAST_SPARSE | {"scale": 4, "steps": 2500},
    ),
    "fast-sensor-x8": (
        *_ALL_OF_FAST_X8,
        _FAST_SENSOR | {"steps": 13707},
        _FAST_SENSOR_CALM | {"steps": 6180},
        _FAST_SPARSE | {"scale": 8, "steps": 2200},
    ),
    "fast-sensor-x16": (
        *_ALL_OF_FAST_X16,
        _FAST_SENSOR | _FAST_X16_CROPS | {"steps": 6136},
        _FAST_SENSOR | _FAST_X16_CROPS | {"steps": 3966, "synthetic": 400},
        _FAST_SENSOR_CALM | _FAST_X16_CROPS | {"steps": 5143, "synthetic": 400},
        _FAST_SPARSE | {"scale": 16, "steps": 1800, "ema_decay": 0.998},
    ),
}
"""Name of weights -> stages."""
