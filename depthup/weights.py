"""Weights in safetensors files, with their configuration and history in the metadata; the models in the box."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save

from depthup.atomic import write_beside
from depthup.data import InputError, UsageError
from depthup.models import DDFUpNet, DDFUpNetConfig

FORMAT = "depthup-1"
SHIPPED = Path(__file__).parent / "weights"


def shipped_names() -> list[str]:
    """Names of the weights in the box, e.g. `["x4", "x8", "x16", "x4-pac"]`."""
    names = (path.stem for path in SHIPPED.glob("*.safetensors"))
    families = ("fast", "sensor")
    return sorted(names, key=lambda name: (*(family in name for family in families), "pac" in name, len(name), name))


def save_weights(path: Path, model: DDFUpNet, training: dict, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write a model (or `state`, its averaged parameters) with its configuration and how it was trained."""
    metadata = {"format": FORMAT, "config": json.dumps(model.config.to_dict()), "training": json.dumps(training)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in (state or model.state_dict()).items()}
    with write_beside(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # `save_file` makes a file that only its owner can read


def weights_path(model: str | Path) -> Path:
    """The file of a name in the box or of a path. `base-x4` is `x4`: the default configuration needs no name.

    Raises:
        UsageError: not a shipped name, nor a path.
        InputError: not a file, but a folder, or the name of one that is not there.
    """
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"model: got {type(model).__name__}, expected a name in the box or a .safetensors file")
    name = str(model).removeprefix("base-")
    if name in shipped_names():
        return SHIPPED / f"{name}.safetensors"
    path = Path(model)
    if path.is_dir():
        raise InputError(f"{model}: is a folder, expected a file such as {path / 'model.safetensors'}")
    if not path.is_file():
        kind = InputError if path.suffix == ".safetensors" else UsageError
        raise kind(f"{model}: no such model; expected a .safetensors file or one of {', '.join(shipped_names())}")
    return path


def read_metadata(model: str | Path) -> tuple[DDFUpNetConfig, dict]:
    """Configuration and training record of a weights file, without reading its tensors.

    Raises:
        InputError: not a safetensors file, or not one of depthup's.
    """
    path = weights_path(model)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # the library raises its own type and OSError, by version
        raise InputError(f"{path}: not a safetensors file ({error}); expected weights written by depthup") from None
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format at all")
        hint = "only depthup's own weights can be loaded"
        if found.startswith("depthup-checkpoint"):
            hint = "that is a checkpoint, and the weights of the run are model.safetensors beside it"
        raise InputError(f"{path}: its metadata names {found}, expected {FORMAT}; {hint}")
    try:
        config, record = DDFUpNetConfig(**json.loads(metadata["config"])), json.loads(metadata["training"])
        if not isinstance(record, dict) or not isinstance(record.get("config", {}), dict):
            raise ValueError("its training record is no object")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: its configuration cannot be read ({error}); was it made by a newer depthup?"
        ) from None
    return config, record


def check_device(name: str | torch.device) -> torch.device:
    """A device that is here.

    Raises:
        UsageError: no kind of device that is used.
        InputError: a GPU that is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device: got {name!r}, expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device: got {device}, expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: {device} is not here, torch sees {torch.cuda.device_count()} GPUs; expected cpu")
    return device


def load_model(model: str | Path, device: str | torch.device = "cpu") -> DDFUpNet:
    """A trained DDF-Up-Net, in evaluation mode.

    Args:
        model: a name in the box (`shipped_names()`) or a `.safetensors` file of `depthup train`.
        device: where its parameters go.

    Raises:
        InputError: no such model or device, or a file that is not depthup's.
    """
    device = check_device(device)
    config, _ = read_metadata(model)
    path = weights_path(model)
    try:
        # whatever the caller's default is, and float32; his random numbers go on as if nothing had been drawn
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            net = DDFUpNet(config).float()
    except (ValueError, TypeError, OverflowError, RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: its configuration cannot be built ({reason})") from None
    try:
        tensors = load_file(path)
        if odd := [f"{name} is {t.dtype}" for name, t in tensors.items() if not t.is_floating_point()]:
            raise InputError(f"{path}: {odd[0]}, expected floating-point numbers")
        net.load_state_dict(tensors)
    except (RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: its tensors do not fit its configuration ({reason})") from None
    if not all(bool(t.isfinite().all()) for t in net.state_dict().values()):
        raise InputError(f"{path}: some of its weights are not finite, expected numbers; did its training diverge?")
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


OF_SENSORS = {"net.depth.weight": 1, "net.result.weight": 0, "net.result.bias": 0}
"""Tensor of which networks for sensors have more channels than others -> the dimension of these channels."""


def copy_fitting(source: DDFUpNet, target: DDFUpNet) -> int:
    """Copy every tensor that both have in the same shape, such as the octaves that two scales share.

    A network for sensors takes over what another has: its further input and output start at zero; the other way around
    they are dropped. Further residual blocks start as the identity, so that a longer network does what the shorter did.
    A network of another number of samples a cell starts by seeing their mean in place of each that the other saw.

    Returns:
        How many tensors were copied.
    """
    state, copied = target.state_dict(), 0
    known = source.state_dict()
    for name, t in state.items():
        added = re.fullmatch(r"net\.(trunk\.\d+|fine\.\d+|block\.1)\.second\.(weight|bias)", name)
        if added and name not in known:
            t.zero_()
    had, has = (net.config.unshuffle**2 for net in (source, target))
    if had != has and "net.depth.weight" in known:
        of_one = known["net.depth.weight"].unflatten(1, (-1, had)).sum(2)
        known["net.depth.weight"] = of_one.repeat_interleave(has, 1) / has
    for name, t in known.items():
        if name not in state:
            continue
        ours = state[name].shape
        channel = OF_SENSORS.get(name)
        if ours == t.shape:
            state[name] = t
        elif channel is not None and ours[:channel] + ours[channel + 1 :] == t.shape[:channel] + t.shape[channel + 1 :]:
            both = min(ours[channel], t.shape[channel])
            state[name] = torch.zeros_like(state[name])
            state[name].narrow(channel, 0, both).copy_(t.narrow(channel, 0, both))
        else:
            continue
        copied += 1
    target.load_state_dict(state)
    return copied
