"""The CUDA backend: CuPy compiles `ddf.cu` at first use, torch owns the memory and the stream.

Planning is apart from launching. `plan_forward` and `plan_backward` are pure: they allocate the results and say which
kernels run over which grid with which arguments, on any device. `forward` and `backward` hand such a plan to CuPy.

Everything is in branch form, `N = scale * scale`, `Ho = (H - 1) // stride + 1`, `Wo` alike:
`x [B, C, H, W]`, `channel_filter [B, N, C, k, k]`, `spatial_filter [B, N, k*k, Ho, Wo]`,
`out [B, C, scale*Ho, scale*Wo]`. Shapes, types and devices are checked by `depthup.kernels.ddf` and `ddf_up`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("ddf.cu")
THREADS = 128
CHANNELS = 8  # channels of one thread in the kernels per pixel
REDUCED_CHANNELS = 4  # channels of one block in the channel filter's gradient
SLICE_PIXELS = 2048  # pixels of one block in the channel filter's gradient, more where that makes too many slices
MAX_SLICES = 128

_DEFINES = {
    torch.float32: "DDF_FLOAT32",
    torch.float64: "DDF_FLOAT64",
    torch.float16: "DDF_FLOAT16",
    torch.bfloat16: "DDF_BFLOAT16",
}
_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True)
class Launch:
    """One kernel over a one-dimensional grid of blocks of `THREADS` threads."""

    kernel: str
    blocks: int
    arguments: tuple[Any, ...]  # tensors, np.int32, np.int64, np.float32; ints count as np.int32, floats as np.float32

    def __post_init__(self):
        if self.blocks > _LARGEST_INT:
            raise ValueError(f"{self.kernel}: {self.blocks} blocks, CUDA allows {_LARGEST_INT}; use a smaller batch")


@dataclass(frozen=True)
class Plan:
    """Launches in order, the results they fill, and what to compile for them."""

    outputs: tuple[Tensor, ...]
    launches: tuple[Launch, ...]
    dtype: torch.dtype
    kernel_size: int


def why_not() -> str | None:
    """One sentence on why no CUDA kernel can run here, or None if it can. Imports CuPy only where torch sees a GPU."""
    if not torch.cuda.is_available():
        return "backend 'cuda' needs an NVIDIA GPU, and torch.cuda.is_available() is False"
    if torch.version.cuda is None:
        return "backend 'cuda' needs a CUDA build of PyTorch, and this one is built for ROCm"
    extra = "cuda12" if torch.version.cuda.startswith("12.") else "cuda13"
    try:
        import cupy
    except ImportError as error:
        return f"backend 'cuda' needs CuPy: pip install depthup[{extra}] ({error})"
    if not cupy.cuda.is_available():
        return f"backend 'cuda': this CuPy cannot use the GPU's driver, try pip install depthup[{extra}]"
    return None


def forward(
    x: Tensor,  # [B, C, H, W]
    channel_filter: Tensor,  # [B, N, C, k, k]
    spatial_filter: Tensor,  # [B, N, k*k, Ho, Wo]
    dilation: int,
    stride: int,
    scale: int,
    combine: str,
) -> Tensor:
    """Return `out [B, C, scale*Ho, scale*Wo]`, contiguous, on the device and in the dtype of `x`.

    Raises TypeError for a dtype other than float16, bfloat16, float32, float64, and ValueError for a size that CUDA
    cannot address.
    """
    plan = plan_forward(x, channel_filter, spatial_filter, dilation, stride, scale, combine)
    _launch(plan)
    return plan.outputs[0]


def backward(
    grad_out: Tensor,  # [B, C, scale*Ho, scale*Wo]
    x: Tensor,  # [B, C, H, W]
    channel_filter: Tensor,  # [B, N, C, k, k]
    spatial_filter: Tensor,  # [B, N, k*k, Ho, Wo]
    dilation: int,
    stride: int,
    scale: int,
    combine: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `x`, `channel_filter` and `spatial_filter`, in their shapes; the same bits every time.

    Raises as `forward`.
    """
    plan = plan_backward(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine)
    _launch(plan)
    grad_x, grad_channel, grad_spatial = plan.outputs
    return grad_x, grad_channel, grad_spatial


def plan_forward(
    x: Tensor, channel_filter: Tensor, spatial_filter: Tensor, dilation: int, stride: int, scale: int, combine: str
) -> Plan:
    """The plan of `forward`, whose arguments and errors it shares; its one output is not filled yet."""
    dtype, kernel_size = _dtype(x), channel_filter.shape[-1]
    geometry = _geometry(x, spatial_filter, dilation, stride, scale)
    B, C, _, _, Ho, Wo = geometry[:6]
    if x.numel() == 0:
        return Plan((x.new_zeros(B, C, scale * Ho, scale * Wo),), (), dtype, kernel_size)

    out = torch.empty(B, C, scale * Ho, scale * Wo, dtype=dtype, device=x.device)
    tensors = (x.contiguous(), channel_filter.contiguous(), spatial_filter.contiguous(), out)
    blocks = B * _ceil_div(scale * Ho * scale * Wo, THREADS) * _ceil_div(C, CHANNELS)
    launch = Launch(f"ddf_forward_{combine}_{_name(dtype)}", blocks, (*tensors, *geometry))
    return Plan((out,), (launch,), dtype, kernel_size)


def plan_backward(
    grad_out: Tensor,
    x: Tensor,
    channel_filter: Tensor,
    spatial_filter: Tensor,
    dilation: int,
    stride: int,
    scale: int,
    combine: str,
) -> Plan:
    """The plan of `backward`, whose arguments and errors it shares; its three outputs are not filled yet."""
    dtype, k = _dtype(x), channel_filter.shape[-1]
    geometry = _geometry(x, spatial_filter, dilation, stride, scale)
    B, C, H, W, Ho, Wo = geometry[:6]
    if x.numel() == 0:
        zeros = tuple(torch.zeros(t.shape, dtype=dtype, device=x.device) for t in (x, channel_filter, spatial_filter))
        return Plan(zeros, (), dtype, k)

    grad_out, x = grad_out.contiguous(), x.contiguous()
    channel_filter, spatial_filter = channel_filter.contiguous(), spatial_filter.contiguous()
    grad_x, grad_channel, grad_spatial = (torch.empty_like(t) for t in (x, channel_filter, spatial_filter))
    suffix = f"{combine}_{_name(dtype)}"
    N, out_tiles = scale * scale, _ceil_div(scale * Ho * scale * Wo, THREADS)

    slices = min(_ceil_div(Ho * Wo, SLICE_PIXELS), MAX_SLICES)
    slice_pixels = _ceil_div(Ho * Wo, slices)
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    partial = torch.empty(slices, *channel_filter.shape, dtype=accumulator, device=x.device)
    elements = channel_filter.numel()

    launches = (
        Launch(
            f"ddf_grad_x_{suffix}",
            B * _ceil_div(H * W, THREADS) * _ceil_div(C, CHANNELS),
            (grad_out, channel_filter, spatial_filter, grad_x, *geometry),
        ),
        Launch(
            f"ddf_grad_spatial_{suffix}",
            B * out_tiles * k,
            (grad_out, x, channel_filter, grad_spatial, *geometry),
        ),
        Launch(
            f"ddf_grad_channel_{suffix}",
            B * slices * _ceil_div(C, REDUCED_CHANNELS) * k * N,
            (grad_out, x, spatial_filter, partial, slices, slice_pixels, *geometry),
        ),
        Launch(
            f"ddf_sum_slices_{_name(dtype)}",
            _ceil_div(elements, THREADS),
            (partial, grad_channel, slices, np.int64(elements)),
        ),
    )
    return Plan((grad_x, grad_channel, grad_spatial), launches, dtype, k)


def compile_options(dtype: torch.dtype, kernel_size: int) -> tuple[str, ...]:
    """What the compiler must define to build `ddf.cu` for one dtype and kernel size."""
    return (
        f"-D{_DEFINES[dtype]}",
        f"-DDDF_KERNEL_SIZE={kernel_size}",
        f"-DDDF_THREADS={THREADS}",
        f"-DDDF_CHANNELS={CHANNELS}",
        f"-DDDF_REDUCED_CHANNELS={REDUCED_CHANNELS}",
    )


def pack_arguments(arguments: tuple[Any, ...]) -> tuple[np.generic, ...]:
    """Give every kernel argument the exact width that the kernel reads, since CuPy converts nothing.

    Tensors become their 64-bit address, Python ints np.int32, Python floats np.float32; np.int32, np.int64 and
    np.float32 stay. Raises TypeError for anything else, OverflowError for an int that needs more than 32 bits.
    """
    return tuple(_pack(argument) for argument in arguments)


def _pack(argument: Any) -> np.generic:
    if isinstance(argument, Tensor):
        return np.uint64(argument.data_ptr())
    if type(argument) in (np.int32, np.int64, np.float32):
        return argument
    if type(argument) is float:
        return np.float32(argument)
    if type(argument) is int:
        if not -_LARGEST_INT <= argument <= _LARGEST_INT:
            raise OverflowError(f"kernel argument {argument} needs more than 32 bits: pass it as np.int64")
        return np.int32(argument)
    raise TypeError(f"kernel argument {argument!r}: {type(argument).__name__} has no agreed width")


class _TorchStream:
    """torch's current stream under CUDA's stream protocol, which torch.cuda.Stream itself speaks from torch 2.10 on."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.current_stream(device)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._stream.cuda_stream


def _launch(plan: Plan) -> None:
    if not plan.launches:
        return
    import cupy

    device = plan.outputs[0].device
    # CuPy's device and stream are per thread, and autograd runs the backward on a thread of its own.
    with cupy.cuda.Device(device.index), cupy.cuda.Stream.from_external(_TorchStream(device)):
        for launch in plan.launches:
            kernel = _kernel(device.index, plan.dtype, plan.kernel_size, launch.kernel)
            kernel((launch.blocks,), (THREADS,), pack_arguments(launch.arguments))


@functools.cache
def _kernel(device_index: int, dtype: torch.dtype, kernel_size: int, name: str):
    return _module(device_index, dtype, kernel_size).get_function(name)


@functools.cache
def _module(device_index: int, dtype: torch.dtype, kernel_size: int):
    """One compiled `ddf.cu` per device; CuPy also keeps it on disk, so a machine compiles it once."""
    import cupy

    options = ("-std=c++17", *compile_options(dtype, kernel_size))
    return cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=options)


def _dtype(x: Tensor) -> torch.dtype:
    if x.dtype not in _DEFINES:
        raise TypeError(f"x: got {x.dtype}, and backend 'cuda' has kernels for float16, bfloat16, float32, float64")
    return x.dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _geometry(x: Tensor, spatial_filter: Tensor, dilation: int, stride: int, scale: int) -> tuple[int, ...]:
    """The integers that end every kernel's argument list, in the order of `Geometry` in `ddf.cu`."""
    B, C, H, W = x.shape
    Ho, Wo = spatial_filter.shape[-2:]
    largest_plane = max(H * W, scale * Ho * scale * Wo)
    if largest_plane > _LARGEST_INT - SLICE_PIXELS:
        raise ValueError(f"x: got {list(x.shape)}, and a plane of {largest_plane} pixels needs more than 32 bits")
    # A dilation beyond the image reads only zeros off the centre, whatever it is; bounded, it cannot overflow an int.
    return B, C, H, W, Ho, Wo, min(dilation, max(H, W)), stride, scale
