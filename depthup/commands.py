"""What each command does, between the command line and the rooms: files in, files out, plain facts returned."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from depthup import __version__
from depthup.baselines import BASELINES
from depthup.checkpoint import load_checkpoint
from depthup.data import InputError, open_dataset, read_depth, read_rgb
from depthup.depth_files import (
    DEPTH_OUTPUT_SUFFIXES,
    IMAGE_OUTPUT_SUFFIXES,
    check_output,
    check_output_folder,
    write_depth,
    write_image,
)
from depthup.evaluation import evaluate
from depthup.kernels import BACKENDS, why_not
from depthup.training import TrainConfig, train
from depthup.upsampling import Upsampler, resolve_model
from depthup.visualize import colourise
from depthup.weights import read_metadata, shipped_names

Progress = Callable[[str, float], None]


class UsageError(InputError):
    """The command's options contradict each other."""


def upsample_files(
    rgb_path: Path,
    depth_path: Path,
    out: Path,
    model: str | None,
    unit: str,
    out_unit: str | None,
    preview: Path | None,
    overwrite: bool,
) -> dict:
    """Upsample one pair of files.

    `unit` may be `auto`: millimetres for integer files, metres for floating-point ones. `out_unit` is that of a 16-bit
    result; without it that of the input, or millimetres where that was metres.

    Returns:
        Facts of the result: files, size, scale, model, seconds of upsampling, depth range in metres, fraction known.
    """
    check_output(out, overwrite, DEPTH_OUTPUT_SUFFIXES)
    if preview:
        check_output(preview, overwrite, IMAGE_OUTPUT_SUFFIXES)
    if preview and preview.resolve() == out.resolve():
        raise UsageError(f"{preview}: --preview and --out are the same file; expected two")
    for name, path in (("--out", out), ("--preview", preview)):
        for source in (rgb_path, depth_path):
            if path and path.exists() and source.exists() and path.samefile(source):
                raise UsageError(f"{path}: {name} is the input {source}; expected another file")
    rgb = read_rgb(rgb_path)
    depth = read_depth(depth_path, unit)
    upsampler = Upsampler(model)
    began = time.perf_counter()
    try:
        result = upsampler(rgb, depth)
    except InputError as error:
        raise InputError(f"{rgb_path}, {depth_path}: {error}") from None
    scale = rgb.shape[0] / depth.shape[0]
    seconds = time.perf_counter() - began
    write_depth(out, result, out_unit or ("mm" if unit in ("m", "auto") else unit), overwrite)
    if preview:
        write_image(preview, colourise(result), overwrite)
    known = np.isfinite(result)
    return {
        "out": str(out),
        "preview": str(preview) if preview else None,
        "size": [result.shape[1], result.shape[0]],
        "scale": scale,
        "model": model or f"x{scale}",
        "seconds": seconds,
        "depth_min": float(result[known].min()),
        "depth_max": float(result[known].max()),
        "known": float(known.mean()),
    }


def default_model(scale: int, protocol: str) -> str:
    """The network in the box for a scale and a protocol.

    Raises:
        InputError: there is none.
    """
    name = f"x{scale}" if protocol == "dkn" else f"x{scale}-{protocol}"
    if name not in shipped_names():
        raise InputError(
            f"no weights in the box for scale {scale} under protocol {protocol}; "
            f"expected --model, or what one of these is for: {', '.join(shipped_names())}"
        )
    return name


def evaluate_data(
    data: str,
    split: str,
    scale: int,
    protocol: str,
    model: str | None,
    table: Path | None,
    overwrite: bool,
    progress: Progress,
) -> dict:
    """Score a model or baseline; returns the summary of `Evaluation` and writes the CSV file if asked."""
    if table:
        check_output(table, overwrite, (".csv",))
    method = model or default_model(scale, protocol)
    if method not in BASELINES:
        resolve_model(method, scale)
    dataset = open_dataset(data, split)
    result = evaluate(
        dataset, scale, protocol, method, progress=lambda done, total: progress("evaluating", done / total)
    )
    if table:
        result.write_csv(table)
    return result.summary()


def train_run(
    data: str,
    out: Path,
    minutes: float | None,
    epochs: int | None,
    resume: bool,
    settings: dict,
    given: set[str],
    report: Callable[[str], None],
    progress: Progress,
) -> dict:
    """Train on the `train` split of `data`, validate on its `val` split.

    `given` names the settings that the user gave himself: with `resume` they must be those of the run.
    """
    if data == "motorcycle":
        raise UsageError("train: motorcycle is one pair, kept for checking; expected a .mat file or a folder of pairs")
    if resume and (out / "checkpoint.safetensors").exists():
        started = load_checkpoint(out / "checkpoint.safetensors")[1]["config"]
        for name, value in ({"minutes": minutes} | settings).items():
            if name in given and started.get(name) != value:
                option = name.replace("_", "-")
                raise UsageError(
                    f"{out}: was started with --{option} {started.get(name)}, and --resume keeps to it; got {value}"
                )
    if not resume and (minutes is None) == (epochs is None):
        raise UsageError("train: expected exactly one of --minutes and --epochs")
    check_output_folder(out)
    training, validation = open_dataset(data, "train"), open_dataset(data, "val")
    steps = -(-len(training) * epochs // settings["batch_size"]) if epochs else 0
    try:
        config = TrainConfig(minutes=minutes or 0.0, steps=steps or (0 if minutes else 1), **settings)
    except ValueError as error:
        raise UsageError(f"train: {error}") from None
    result = train(training, validation, config, out, resume, report, progress)
    facts = {
        "finished": result.finished,
        "steps": result.steps,
        "minutes": round(result.minutes, 1),
        "weights": str(result.weights),
    }
    if result.validation:
        facts |= {f"held_out_{name}": result.validation[name] for name in ("rmse", "unit", "images", "scenes")}
    return facts


def installation() -> dict:
    """Versions, backends with the reason why one cannot run (None if it can), and the models in the box."""
    packages = ("torch", "numpy", "numba", "opencv-python-headless", "opencv-python", "cupy-cuda12x", "cupy-cuda13x")
    versions = {"depthup": __version__} | {name: _version(name) for name in packages if _version(name)}
    devices = {"reference": "cpu", "cpu": "cpu", "cuda": "cuda"}
    backends = {name: why_not(name, torch.device(devices[name])) for name in BACKENDS}
    models = {}
    for name in shipped_names():
        config, training = read_metadata(name)
        validation = training["validation"]
        models[name] = {
            "scale": config.scale,
            "architecture": config.architecture,
            "protocol": training["config"]["protocol"],
            "data": training["data"]["title"],
            "steps": training["steps"],
            "held_out_rmse": validation["rmse"],
            "unit": validation["unit"],
            "held_out_images": validation["images"],
        }
    return {"versions": versions, "threads": torch.get_num_threads(), "backends": backends, "models": models}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
