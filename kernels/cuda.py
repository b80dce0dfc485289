"""The CUDA backend: CuPy compiles `ddf.cu` at first use, torch owns the memory and the stream.

Planning is apart from launching. `plan_forward` and `plan_backward` are pure: they allocate the results and say which
kernels run over which grid with which arguments, on any device. `forward` and `backward` hand such a plan to CuPy.
Every kernel is compiled for one kernel size, scale, dtype and layout; docs/kernels-cuda.md explains the design.

Everything is in branch form, `N = scale * scale`, `Ho = (H - 1) // stride + 1`, `Wo` alike:
`x [B, C, H, W]`, `channel_filter [B, N, C, k, k]`, `spatial_filter [B, N, k*k, Ho, Wo]`,
`out [B, C, scale*Ho, scale*Wo]`. `x` is read channels-last, and `out` and the gradient of `x` are then channels-last,
where `x` is contiguous in that format and in no other; else all three are contiguous. The spatial filter is read
contiguous or pixel-major (`[B, Ho, Wo, N, k*k]` in memory), and its gradient has the same layout. Shapes, types and
devices are checked by `depthup.kernels.ddf` and `ddf_up`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthup.kernels.layout import image_format, is_channels_last, is_pixel_major, readable

SOURCE = Path(__file__).with_name("ddf.cu")
THREADS = 256  # of a block of the kernels `forward`, `grad_x` and `sum_slices`
MANY_BLOCKS = 1024  # channels are divided among blocks until there are so many, some waves on the largest GPUs
MOST_SLICES = 16  # of the channels in the gradient of the spatial filter
SHARED_BYTES = 16 * 2**10  # of shared memory that a block uses where it has the choice
MOST_SHARED_BYTES = 48 * 2**10  # that every GPU gives a block

# Values of the spatial filter, in 32-bit registers, that a thread holds; more would spill.
HELD = {"forward": 72, "grad_x": 48, "grad_filters": 12}

_DEFINES = {
    torch.float32: "DDF_FLOAT32",
    torch.float64: "DDF_FLOAT64",
    torch.float16: "DDF_FLOAT16",
    torch.bfloat16: "DDF_BFLOAT16",
}
_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True)
class Kernel:
    """One kernel of `ddf.cu` and the constants to compile it for."""

    kind: str  # forward, grad_x, grad_filters, sum_slices
    dtype: torch.dtype
    constants: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """The entry point, which tells all constants apart."""
        constants = "".join(f"_{name.lower()}{value}" for name, value in self.constants)
        return f"ddf_{self.kind}_{str(self.dtype).removeprefix('torch.')}{constants}"

    @property
    def defines(self) -> dict[str, str]:
        """What the preprocessor must define to compile this kernel and no other."""
        constants = {f"DDF_{name}": str(value) for name, value in self.constants}
        return {f"DDF_{self.kind.upper()}": self.name, _DEFINES[self.dtype]: "1", **constants}


@dataclass(frozen=True)
class Launch:
    """One kernel over a one-dimensional grid."""

    kernel: Kernel
    blocks: int
    threads: int
    arguments: tuple[Any, ...]  # tensors, ints of 32 bits, np.int64

    def __post_init__(self):
        if self.blocks > _LARGEST_INT:
            raise ValueError(
                f"{self.kernel.kind}: {self.blocks} blocks, CUDA allows {_LARGEST_INT}; use a smaller batch"
            )


@dataclass(frozen=True)
class Plan:
    """Launches in order, and the results they fill."""

    outputs: tuple[Tensor, ...]
    launches: tuple[Launch, ...]


def why_not() -> str | None:
    """One sentence on why no CUDA kernel can run here, or None if it can. Imports CuPy only where torch sees a GPU."""
    if not torch.cuda.is_available():
        return "backend 'cuda' needs an NVIDIA GPU, and torch.cuda.is_available() is False"
    if torch.version.cuda is None:
        return "backend 'cuda' needs a CUDA build of PyTorch, and this one is built for ROCm"
    major = torch.version.cuda.split(".")[0]
    if major not in ("12", "13"):
        return f"backend 'cuda' needs a PyTorch built for CUDA 12 or 13, and this one is for {torch.version.cuda}"
    extra = f"cuda{major}"
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
    """Return `out [B, C, scale*Ho, scale*Wo]` on the device, in the dtype and in the layout of `x`.

    Raises TypeError for a dtype other than float16, bfloat16, float32, float64, and ValueError for a size that CUDA
    cannot address and for more taps than a block can share.
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

    The gradients of `x` and `spatial_filter` have the layouts that were read. Raises as `forward`.
    """
    plan = plan_backward(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine)
    _launch(plan)
    grad_x, grad_channel, grad_spatial = plan.outputs
    return grad_x, grad_channel, grad_spatial


def plan_forward(
    x: Tensor, channel_filter: Tensor, spatial_filter: Tensor, dilation: int, stride: int, scale: int, combine: str
) -> Plan:
    """The plan of `forward`, whose arguments and errors it shares; its one output is not filled yet."""
    operation = _Operation(x, channel_filter, spatial_filter, dilation, stride, scale, combine)
    (B, C), (Ho, Wo) = x.shape[:2], spatial_filter.shape[-2:]
    size = B, C, scale * Ho, scale * Wo
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=operation.memory_format)
    if out.numel() == 0:
        return Plan((out,), ())
    tensors = operation.x, operation.channel_filter, operation.spatial_filter, out
    return Plan((out,), (operation.per_pixel("forward", tensors),))


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
    operation = _Operation(x, channel_filter, spatial_filter, dilation, stride, scale, combine)
    x, channel_filter, spatial_filter = operation.x, operation.channel_filter, operation.spatial_filter
    if x.numel() == 0:
        return Plan(tuple(torch.zeros_like(t) for t in (x, channel_filter, spatial_filter)), ())

    grad_out = grad_out.contiguous(memory_format=operation.memory_format)
    grad_x, grad_channel, grad_spatial = (torch.empty_like(t) for t in (x, channel_filter, spatial_filter))
    gather = operation.per_pixel("grad_x", (grad_out, channel_filter, spatial_filter, grad_x))
    if operation.channels_last:  # planar threads share more of what they read: copies and all, they are faster
        operation = _Operation(x.contiguous(), channel_filter, spatial_filter, dilation, stride, scale, combine)
        grad_out = grad_out.contiguous()
    launches = gather, *operation.grad_filters(grad_out, grad_channel, grad_spatial)
    return Plan((grad_x, grad_channel, grad_spatial), launches)


class _Operation:
    """One call in the layouts that the kernels read, and how its work is divided among blocks and threads."""

    def __init__(self, x, channel_filter, spatial_filter, dilation, stride, scale, combine):
        if x.dtype not in _DEFINES:
            raise TypeError(f"x: got {x.dtype}, and backend 'cuda' has kernels for float16, bfloat16, float32, float64")
        self.scale, self.kernel_size, self.add = scale, channel_filter.shape[-1], combine == "add"
        self.B, self.C, self.H, self.W = x.shape
        self.Ho, self.Wo = spatial_filter.shape[-2:]
        self.accumulator = torch.float64 if x.dtype == torch.float64 else torch.float32
        # Dilation or stride beyond the image reads and writes the same as one that just leaves it, and cannot overflow.
        self.dilation, self.stride = (min(step, max(self.H, self.W, 1)) for step in (dilation, stride))
        self._check_size()

        self.channels_last, self.memory_format = is_channels_last(x), image_format(x)
        self.x = x.contiguous(memory_format=self.memory_format)
        self.channel_filter = channel_filter.contiguous()
        self.pixel_major, self.spatial_filter = is_pixel_major(spatial_filter), readable(spatial_filter)

    def per_pixel(self, kind: str, tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Launch:
        """`forward` over the pixels of the spatial filter, or `grad_x` over those of `x`: one thread sums all taps."""
        forward = kind == "forward"
        height, width = (self.Ho, self.Wo) if forward else (self.H, self.W)
        rows = self.scale if forward else 1  # of sub-pixels, each with threads of its own
        branches = self.scale if forward else self.scale**2
        aligned = _aligned(tensors)
        pixels = self._pixels(HELD[kind] // (self.kernel_size**2 * branches), aligned)
        staged = self._staged(64, branches * self._padded_taps)
        many_taps = self.kernel_size**2 * branches * self._words > 40  # and no registers for many channels
        vector, lanes = self._channels_together(1 if many_taps else 4, staged, aligned)
        tile = _Tile(height, width, pixels, lanes, THREADS)

        block_channels = staged
        while block_channels > max(8, vector * lanes) and self._count(rows * tile.count, block_channels) < MANY_BLOCKS:
            block_channels //= 2
        # Blocks a multiprocessor: the most for which registers do not spill.
        resident = 3 if self.kernel_size <= 3 and self.x.dtype == torch.float32 and not self.channels_last else 2
        constants = ("STAGED", staged), ("THREADS", THREADS), ("BLOCKS", resident), ("HELD", HELD[kind] // self._words)
        return Launch(
            Kernel(kind, self.x.dtype, (*self._constants(aligned, pixels, vector, lanes), *constants)),
            self._count(rows * tile.count, block_channels),
            tile.threads,
            (*tensors, block_channels, *self._geometry(tile)),
        )

    def grad_filters(self, grad_out: Tensor, grad_channel: Tensor, grad_spatial: Tensor) -> tuple[Launch, ...]:
        """Both filter gradients in one reading of `x` and `grad_out`, both planar, then the sums over blocks."""
        k = self.kernel_size
        tap_rows = k if k <= 7 else 1
        slots = 64
        aligned = _aligned((grad_out, self.x, self.spatial_filter, grad_spatial))
        pixels = self._pixels(HELD["grad_filters"] // (k * self.scale), aligned)
        totals = tap_rows * k * self.scale * slots // 32
        staged = self._staged(16, self.scale * self._padded_taps + totals)
        tile = _Tile(self.Ho, self.Wo, pixels, 1, slots)

        blocks = self.B * tile.count * self.scale * (k // tap_rows)
        slices = min(_ceil_div(MANY_BLOCKS, blocks), _ceil_div(self.C, staged), MOST_SLICES)
        slice_channels = _ceil_div(_ceil_div(self.C, slices), staged) * staged
        slices = _ceil_div(self.C, slice_channels)
        partial_spatial = self._empty(slices, grad_spatial.numel() if slices > 1 else 0)
        partial_channel = self._empty(tile.count, grad_channel.numel())

        threads = slots * tap_rows
        # Blocks a multiprocessor: the most for which registers do not spill.
        widens = self.x.itemsize < 4 and pixels == 1 and k > 3
        together = 512 if widens else 640
        resident = 1 if self._words > 1 else max(1, together // threads)
        constants = ("STAGED", staged), ("THREADS", threads), ("BLOCKS", resident), ("TAP_ROWS", tap_rows)
        tensors = grad_out, self.x, self.channel_filter, self.spatial_filter
        results = grad_spatial, partial_spatial, partial_channel
        sums = [(partial_channel, grad_channel)] + ([(partial_spatial, grad_spatial)] if slices > 1 else [])
        return (
            Launch(
                Kernel("grad_filters", self.x.dtype, (*self._constants(aligned, pixels, 1, 1), *constants)),
                blocks * slices,
                tile.threads * tap_rows,
                (*tensors, *results, slices, slice_channels, *self._geometry(tile)),
            ),
            *(_sum_slices(partial, grad) for partial, grad in sums),
        )

    @property
    def _words(self) -> int:
        """32-bit registers of one accumulator."""
        return self.accumulator.itemsize // 4

    @property
    def _padded_taps(self) -> int:
        return _ceil_div(self.kernel_size**2, 4) * 4

    def _check_size(self) -> None:
        farthest = max(self.H, self.W) * max(self.kernel_size // 2 + 1, self.scale)
        if farthest > _LARGEST_INT // 2:
            shape = [self.B, self.C, self.H, self.W]
            raise ValueError(f"x: got {shape}, and a row or column of up to {farthest} needs more than 32 bits")
        taps = self.scale**2 * self._padded_taps
        if taps * self.accumulator.itemsize > MOST_SHARED_BYTES:
            raise ValueError(f"channel_filter: got {taps} taps a channel, too many for a block of backend 'cuda'")

    def _pixels(self, most: int, aligned: bool) -> int:
        """Pixels of one thread: 16 bytes of output where layout, alignment and registers allow."""
        if self.channels_last or not aligned or self.dilation > 1 or self.stride > 1:
            return 1
        pixels = 16 // self.x.itemsize
        while pixels > 1 and (
            self.W % pixels or pixels * self._words > most or pixels * self.scale * self.x.itemsize > 16
        ):
            pixels //= 2
        return pixels

    def _channels_together(self, most: int, staged: int, aligned: bool) -> tuple[int, int]:
        """Neighbouring channels of one thread, 16 bytes at most, and how many threads take neighbouring ones."""
        if not self.channels_last:
            return 1, 1
        vector = min(4, 16 // self.x.itemsize, staged)
        while vector > 1 and (not aligned or vector > most or self.C % vector):
            vector //= 2
        lanes = min(32 if vector == 1 else 8, staged // vector, 1 << (self.C // vector - 1).bit_length())
        return vector, lanes

    def _staged(self, most: int, values: int) -> int:
        """Channels whose filters, of so many values each, are in shared memory at a time."""
        while most > 1 and most * values * self.accumulator.itemsize > SHARED_BYTES:
            most //= 2
        return most

    def _count(self, tiles: int, block_channels: int) -> int:
        return self.B * tiles * _ceil_div(self.C, block_channels)

    def _empty(self, *size: int) -> Tensor:
        return torch.empty(size, dtype=self.accumulator, device=self.x.device)

    def _constants(self, aligned: bool, pixels: int, vector: int, lanes: int) -> tuple[tuple[str, int], ...]:
        return (
            ("KERNEL_SIZE", self.kernel_size),
            ("SCALE", self.scale),
            ("ADD", int(self.add)),
            ("CHANNELS_LAST", int(self.channels_last)),
            ("ALIGNED", int(aligned)),
            ("PIXELS", pixels),
            ("VECTOR", vector),
            ("LANES", lanes),
        )

    def _geometry(self, tile: _Tile) -> tuple[Any, ...]:
        """The numbers that end the argument lists, in the order of `Geometry` in `ddf.cu`."""
        taps, plane = self.kernel_size**2, self.Ho * self.Wo
        strides = (taps, 1, self.scale**2 * taps) if self.pixel_major else (taps * plane, plane, 1)
        sizes = self.B, self.C, self.H, self.W, self.Ho, self.Wo, self.dilation, self.stride
        return (*sizes, tile.width, tile.height, *map(np.int64, strides))


class _Tile:
    """Pixels of one block: `width` x `height` threads of `pixels` pixels, in each of `lanes` channels."""

    def __init__(self, height: int, width: int, pixels: int, lanes: int, threads: int):
        slots = threads // lanes
        columns = _ceil_div(width, pixels)
        # Wide enough for whole cache lines; square where one pixel fills one.
        widest = 32 if lanes == 1 else 1 << (slots.bit_length() // 2)
        self.width = _ceil_div(columns, _ceil_div(columns, widest))
        self.height = min(slots // self.width, height)
        self.count = _ceil_div(columns, self.width) * _ceil_div(height, self.height)
        self.threads = _ceil_div(self.width * self.height * lanes, 32) * 32


def _sum_slices(partial: Tensor, grad: Tensor) -> Launch:
    kernel = Kernel("sum_slices", grad.dtype, (("THREADS", THREADS),))
    arguments = partial, grad, partial.shape[0], np.int64(grad.numel())
    return Launch(kernel, _ceil_div(grad.numel(), THREADS), THREADS, arguments)


def _aligned(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all data start at a multiple of 16 bytes, which those of a slice need not."""
    return all(tensor.data_ptr() % 16 == 0 for tensor in tensors)


def compile_options(kernel: Kernel) -> tuple[str, ...]:
    """The command line for one kernel of `ddf.cu`."""
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in kernel.defines.items()))


def pack_arguments(arguments: tuple[Any, ...]) -> tuple[np.generic, ...]:
    """Give every kernel argument the exact width that the kernel reads, since CuPy converts nothing.

    Tensors become their 64-bit address, Python ints np.int32, and np.int64 stays. Raises TypeError for anything else,
    OverflowError for an int that needs more than 32 bits.
    """
    return tuple(_pack(argument) for argument in arguments)


def _pack(argument: Any) -> np.generic:
    if isinstance(argument, Tensor):
        return np.uint64(argument.data_ptr())
    if type(argument) is np.int64:
        return argument
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
            kernel = _compiled(device.index, launch.kernel)
            kernel((launch.blocks,), (launch.threads,), pack_arguments(launch.arguments))


@functools.cache
def _compiled(device_index: int, kernel: Kernel):
    """One kernel, compiled once per device; CuPy also keeps it on disk, so a machine compiles it once."""
    import cupy

    module = cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=compile_options(kernel))
    return module.get_function(kernel.name)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
