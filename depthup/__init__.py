"""depthup: guided depth upsampling with Decoupled Dynamic Filters (DDF-Up, CVPR 2021).

`depthup.upsample(rgb, depth)` is what most people need. Names are imported at first use, so that the command line
answers before torch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthup.data import InputError
    from depthup.evaluation import evaluate
    from depthup.kernels import ddf, ddf_up, use_backend
    from depthup.layers import DDF, DDFUp, FilterNorm
    from depthup.models import DDFUpNet, DDFUpNetConfig
    from depthup.train_config import TrainConfig
    from depthup.training import train
    from depthup.upsampling import Upsampled, Upsampler, upsample
    from depthup.weights import load_model, shipped_names

__version__ = "0.1.0"

_HOME = {
    "InputError": "data",
    "evaluate": "evaluation",
    "ddf": "kernels",
    "ddf_up": "kernels",
    "use_backend": "kernels",
    "DDF": "layers",
    "DDFUp": "layers",
    "FilterNorm": "layers",
    "DDFUpNet": "models",
    "DDFUpNetConfig": "models",
    "TrainConfig": "train_config",
    "train": "training",
    "Upsampled": "upsampling",
    "Upsampler": "upsampling",
    "upsample": "upsampling",
    "load_model": "weights",
    "shipped_names": "weights",
}

__all__ = [
    "DDF",
    "DDFUp",
    "DDFUpNet",
    "DDFUpNetConfig",
    "FilterNorm",
    "InputError",
    "TrainConfig",
    "Upsampled",
    "Upsampler",
    "__version__",
    "ddf",
    "ddf_up",
    "evaluate",
    "load_model",
    "shipped_names",
    "train",
    "upsample",
    "use_backend",
]


def __getattr__(name: str):
    if name in _HOME.values():  # a module, as in depthup.data.read_depth
        return importlib.import_module(f"depthup.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'depthup' has no attribute {name!r}")
    return getattr(importlib.import_module(f"depthup.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
