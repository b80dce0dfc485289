"""The two ways in which the field makes low-resolution depth out of dense depth."""

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from depthup.data.depth_encoding import without_mask
from depthup.data.errors import UsageError

PROTOCOLS = ("dkn", "pac")
"""`dkn`: anti-aliased bicubic (DKN and nearly all later papers); `pac`: one sample per cell (PAC-Net, DDF-Up-Net)."""

MIN_VALID_WEIGHT = 0.5
"""A `dkn` cell less of whose filter weight fell on measured pixels is no measurement."""

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def crop_to_multiple(array: Array, scale: int) -> Array:
    """Cut off the rows and columns beyond a multiple of `scale`.

    Args:
        array: numpy [H, W] or [H, W, C], or tensor [..., H, W].
        scale: up-sampling factor, >= 1.

    Returns:
        A view: numpy [H', W'] or [H', W', C], or tensor [..., H', W'].

    Raises:
        ValueError: the image is smaller than one cell.
    """
    height, width = array.shape[-2:] if isinstance(array, torch.Tensor) else array.shape[:2]
    if height < scale or width < scale:
        raise ValueError(f"image of {width}x{height} pixels is smaller than one cell of {scale}x{scale}")
    height, width = height // scale * scale, width // scale * scale
    if isinstance(array, torch.Tensor):
        return array[..., :height, :width]
    return array[:height, :width]


def check_protocol(protocol: object) -> None:
    """Raise UsageError for what is none of `PROTOCOLS`."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol: got {protocol!r}, expected one of {', '.join(PROTOCOLS)}")


def make_low_resolution(depth: Array, scale: int, protocol: str) -> Array:
    """Make the low-resolution depth that a benchmark feeds to a method.

    `pac` takes the sample `depth[(s-1)//2::s, (s-1)//2::s]` (Su et al., CVPR 2019). `dkn` is PIL's anti-aliased
    bicubic, a = -0.5 (Kim et al., IJCV 2021), which is also torch's with `antialias=True`; around pixels without
    measurement its weights are renormalised over the measured ones.

    Args:
        depth: numpy [H, W] or tensor [..., H, W], any unit; not finite, or masked, where there is no measurement.
        scale: factor s, >= 1; H and W are multiples of it (see `crop_to_multiple`).
        protocol: one of `PROTOCOLS`.

    Returns:
        The same kind of array, [..., H/s, W/s], float64 for float64 and float32 for all else; not finite where a `pac`
        sample is not, and NaN where less than half the weight of a `dkn` cell is measured.

    Raises:
        UsageError: unknown protocol.
        ValueError: a size that is not a multiple of `scale`.
    """
    check_protocol(protocol)
    height, width = depth.shape[-2:]
    if scale < 1 or height % scale or width % scale or not height or not width:
        raise ValueError(f"size {width}x{height} is no multiple of scale {scale}: cut it with crop_to_multiple first")
    if isinstance(depth, np.ndarray):
        depth = without_mask(depth)
        # a copy: to NumPy a side of one pixel is contiguous whatever its stride, and torch refuses negative ones
        native = depth.astype(depth.dtype.newbyteorder("="))
        return _low_resolution(torch.from_numpy(native), scale, protocol).numpy()
    return _low_resolution(depth, scale, protocol)


def _low_resolution(depth: torch.Tensor, scale: int, protocol: str) -> torch.Tensor:
    if depth.dtype != torch.float64:
        depth = depth.float()
    if protocol == "pac":
        first = (scale - 1) // 2
        return depth[..., first::scale, first::scale].clone(memory_format=torch.contiguous_format)
    images = depth.reshape(-1, 1, *depth.shape[-2:])
    holes = ~images.isfinite()
    if holes.any():
        low = _bicubic(images.masked_fill(holes, 0), scale)
        weight = _bicubic((~holes).to(images.dtype), scale)
        normalised = (low / weight).masked_fill(weight < MIN_VALID_WEIGHT, torch.nan)
        low = torch.where(holes.flatten(1).any(1)[:, None, None, None], normalised, low)
    else:
        low = _bicubic(images, scale)
    return low.reshape(*depth.shape[:-2], *low.shape[-2:])


def _bicubic(images: torch.Tensor, scale: int) -> torch.Tensor:
    size = (images.shape[-2] // scale, images.shape[-1] // scale)
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
