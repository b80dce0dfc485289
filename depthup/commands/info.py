"""`depthup info` and `depthup models`: what is installed, and what is in the box."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

from depthup import __version__
from depthup.kernels import BACKENDS, why_not
from depthup.models import DDFUpNet
from depthup.recipes import RECIPES
from depthup.weights import read_metadata, shipped_names, weights_path


def installation() -> dict:
    """Versions, backends with the reason why one cannot run (None if it can), and the models in the box."""
    packages = ("numpy", "numba", "opencv-python-headless", "opencv-python", "cupy-cuda12x", "cupy-cuda13x")
    versions = {"depthup": __version__, "torch": str(torch.__version__)}  # which also says for which CUDA
    versions |= {name: found for name in packages if (found := _version(name))}
    devices = {"reference": "cpu", "cpu": "cpu", "cuda": "cuda"}
    backends = {name: why_not(name, torch.device(devices[name])) for name in BACKENDS}
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "backends": backends,
        "models": models_in_the_box(),
    }


def models_in_the_box() -> dict[str, dict]:
    """Facts about the weights in the box by name, from their files' metadata; steps are those of all their stages."""
    models = {}
    for name in shipped_names():
        config, training = read_metadata(name)
        with torch.device("meta"):  # only counted
            parameters = sum(p.numel() for p in DDFUpNet(config).parameters())
        validation = training["validation"]
        models[name] = {
            "scale": config.scale,
            "architecture": training["config"].get("architecture", config.architecture),
            "protocol": training["config"]["protocol"],
            "sensor": config.sensor,
            "parameters": parameters,
            "bytes": weights_path(name).stat().st_size,
            "data": training["data"]["title"],
            "steps": sum(stage["steps"] for stage in RECIPES.get(name, ())) or training["steps"],
            "held_out_rmse": validation["rmse"],
            "unit": validation["unit"],
            "held_out_images": validation["images"],
        }
    return models


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
