"""What training minimises: how far depth is off, and, of networks for sensors, how well they know that."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depthup.models import DDFUpNet, bottom_and_span, denormalise, normalise
from depthup.train_config import TrainConfig
from depthup.upsampling import fill_from_nearest

CENTIMETRES = 100.0

UNSUPPORTED_WEIGHT = 0.25
"""Weight of the pixels inside a hole of the sensor, which can only be guessed."""


def loss(prediction: Tensor, depth: Tensor, rmse_weight: float, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error plus `rmse_weight` times the mean over crops of their RMSE, in centimetres for metres in.

    Args:
        prediction, depth: `[B, 1, H, W]`; where `depth` is NaN nothing is scored.
        weight: of every pixel, `[B, 1, H, W]`; without it 1.
    """
    known = depth.isfinite()
    error = torch.where(known, prediction - torch.where(known, depth, 0), 0)
    weight = known.to(error.dtype) if weight is None else known * weight
    count = weight.sum((1, 2, 3)).clamp(min=1)
    mae = ((weight * error.abs()).sum((1, 2, 3)) / count).mean()
    rmse = (((weight * error.square()).sum((1, 2, 3)) / count) + 1e-8).sqrt().mean()
    return (mae + rmse_weight * rmse) * CENTIMETRES


def error_loss(log_error: Tensor, prediction: Tensor, depth: Tensor) -> Tensor:
    """Mean over crops of the negative log-likelihood of the errors made, were they Laplacian of the predicted scale.

    Args:
        log_error: `[B, 1, H, W]`, logarithm of the expected absolute error in the unit of `depth`.
        prediction, depth: as in `loss`; the prediction learns nothing from this.
    """
    known = depth.isfinite()
    error = torch.where(known, prediction.detach() - torch.where(known, depth, 0), 0).abs() + 1e-4
    each = (error * torch.exp(-log_error) + log_error) * known
    return (each.sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp(min=1)).mean()


def objective(config: TrainConfig, model: DDFUpNet, batch: dict[str, Tensor]) -> Tensor:
    """What is minimised, for a batch whose `low` is filled and whose `valid` tells where it was not."""
    low, low_range, valid = batch["low"], batch["low_range"], batch["valid"]
    with torch.autocast(low.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        rgb = batch["rgb"].contiguous(memory_format=torch.channels_last)
        result = model(normalise(low, low_range), rgb, valid).float()
    depth = denormalise(result[:, :1], low_range)
    if not config.sensor:
        return loss(depth, batch["depth"], config.rmse_weight)
    supported = F.interpolate(valid.float(), scale_factor=config.scale)
    weight = UNSUPPORTED_WEIGHT + (1 - UNSUPPORTED_WEIGHT) * supported
    log_error = result[:, 1:] + bottom_and_span(low_range)[1].log()
    return loss(depth, batch["depth"], config.rmse_weight, weight) + error_loss(log_error, depth, batch["depth"])


def fill(low: Tensor) -> Tensor:
    """Low-resolution depth with holes filled as `upsample` fills them; a crop that is all hole becomes zero."""
    if not low.isnan().any():
        return low
    images = []
    for image in low.double().numpy()[:, 0]:
        valid = ~np.isnan(image)
        images.append(fill_from_nearest(image, valid) if valid.any() else np.zeros_like(image))
    return torch.from_numpy(np.stack(images))[:, None].to(low.dtype)
