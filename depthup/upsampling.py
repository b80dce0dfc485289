"""Upsampling of a user's own pair: checks, holes, normalisation, the network or a plain baseline."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from depthup.baselines import BASELINES
from depthup.data import InputError
from depthup.models import SCALES, DDFUpNet, denormalise, normalise
from depthup.weights import load_model, shipped_names, weights_path

Model = str | Path | DDFUpNet | None


@lru_cache(maxsize=8)
def _load_once(path: Path, changed: int) -> DDFUpNet:
    """The model in a file; `changed`, the time of its last change, makes a rewritten file be read again."""
    return load_model(path)


def upsample(rgb: np.ndarray, depth: np.ndarray, model: Model = None) -> np.ndarray:
    """Depth at the resolution of the RGB image.

    The result follows the input under any increasing affine change, `upsample(rgb, a*d + b) = a*upsample(rgb, d) + b`
    for a > 0, so disparity and relative depth work as well as metres.

    Args:
        rgb: uint8 `[H, W, 3]`, red first.
        depth: any real type, `[h, w]` with H = s*h and W = s*w for one factor s, pixel-aligned with `rgb`; metres (or
            any unit); NaN (or infinite) where there is no measurement. Such samples never enter a filter: they are
            replaced by their nearest valid neighbours first.
        model: a name in the box, a `.safetensors` file, what `load_model` returned, or a baseline: `nearest`,
            `bilinear`, `bicubic`, `joint-bilateral`, `guided-filter`. Without it: the network in the box for the
            factor.

    Returns:
        float32 `[H, W]` in the unit of `depth`; NaN at a pixel whose own low-resolution sample is not valid.

    Raises:
        InputError: wrong type or shape, a factor that the model does not have, no valid sample, no such model.
    """
    rgb, depth = np.asarray(rgb), np.asarray(depth)
    factor = pair_scale(rgb, depth)
    valid = np.isfinite(depth)
    if not valid.any():
        raise InputError(f"depth: none of its {depth.size} samples is valid; expected at least one measurement")
    filled = fill_from_nearest(depth.astype(np.float64), valid)
    if isinstance(model, str) and model in BASELINES:
        result = BASELINES[model](rgb, filled, factor)
    else:
        result = _run_network(rgb, filled, factor, model)
    return np.where(valid.repeat(factor, 0).repeat(factor, 1), result, np.nan).astype(np.float32)


def pair_scale(rgb: np.ndarray, depth: np.ndarray) -> int:
    """The factor s between the sizes of a pair.

    Raises:
        InputError: wrong type or dimensions, RGB smaller than depth, or no common whole factor.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(f"rgb: got {rgb.dtype} {list(rgb.shape)}, expected uint8 [H, W, 3]")
    if depth.ndim != 2 or depth.dtype.kind not in "fiu" or 0 in depth.shape:
        raise InputError(f"depth: got {depth.dtype} {list(depth.shape)}, expected real numbers [h, w]")
    (H, W), (h, w) = rgb.shape[:2], depth.shape
    sizes = f"RGB is {W}x{H} and depth {w}x{h}"
    if h > H or w > W:
        raise InputError(f"rgb: smaller than depth: {sizes}; expected RGB at least as large as depth")
    if H % h or W % w or H // h != W // w:
        raise InputError(
            f"depth: {sizes}, a ratio of {W / w:.4g} by {H / h:.4g}; expected one whole factor in both directions"
        )
    return H // h


def fill_from_nearest(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`depth [h, w]` with every sample that is not `valid` replaced by its nearest valid one."""
    if valid.all():
        return depth
    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return depth[rows, columns]


def resolve_model(model: Model, factor: int) -> DDFUpNet:
    """The network that `model` means for pairs of this factor.

    Raises:
        InputError: no such model, or one of another factor.
    """
    if model is None:
        if f"x{factor}" not in shipped_names():
            shipped = [s for s in SCALES if f"x{s}" in shipped_names()]
            factors = ", ".join(map(str, shipped))
            raise InputError(
                f"depth: the pair's factor is {factor}; expected {factors}, for which there are networks in the box, "
                "or another model, such as bicubic"
            )
        model = f"x{factor}"
    if isinstance(model, DDFUpNet):
        net = model
    else:
        try:
            path = weights_path(model)
        except InputError as error:
            raise InputError(f"{error}, or one of {', '.join(BASELINES)}") from None
        net = _load_once(path, path.stat().st_mtime_ns)
    if net.config.scale != factor:
        name = "the model" if isinstance(model, DDFUpNet) else str(model)
        raise InputError(f"{name}: upsamples by {net.config.scale}, and the pair's factor is {factor}")
    return net


def _run_network(rgb: np.ndarray, depth: np.ndarray, factor: int, model: Model) -> np.ndarray:
    net = resolve_model(model, factor)
    if depth.min() == depth.max():  # no range to normalise by; only a constant follows every affine change
        return depth.repeat(factor, 0).repeat(factor, 1)
    device = next(net.parameters()).device
    low = torch.from_numpy(depth)[None, None]
    low_range = torch.stack([low.min(), low.max()])[None]
    image = torch.from_numpy(rgb.copy()).to(device).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        result = net(normalise(low, low_range).float().to(device), image)
    return denormalise(result.double().cpu(), low_range)[0, 0].numpy()
