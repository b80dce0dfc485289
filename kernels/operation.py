"""`ddf` and `ddf_up`: checks, choice of backend, and the registration with PyTorch.

The operation is from Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021 (arXiv 2104.14107), sections 3.2
and 3.4. Both public functions are one operation in branch form (see `reference`), registered as `depthup::ddf`, so
that `torch.compile`, `torch.export`, autograd and fake tensors know it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad

from depthup.kernels import reference
from depthup.kernels.backend import BackendError, choose_backend
from depthup.kernels.layout import image_format, readable

COMBINE = ("mul", "add")

_INTEGERS = (int, np.integer, torch.SymInt)


# defined and not decorated with `custom_op`, whose first call imports all of torch.compile: 2 seconds of every command
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
_ARGUMENTS = "Tensor x, Tensor channel_filter, Tensor spatial_filter, int dilation, int stride, int scale, str combine"
torch.library.define("depthup::ddf", f"({_ARGUMENTS}) -> Tensor", tags=_TAGS)
torch.library.define(
    "depthup::ddf_backward", f"(Tensor grad_out, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)", tags=_TAGS
)
_ddf, _ddf_backward = torch.ops.depthup.ddf.default, torch.ops.depthup.ddf_backward.default


def _cpu() -> ModuleType:
    try:
        from depthup.kernels import cpu
    except ImportError as error:  # Numba's own, about a NumPy that it does not know
        raise BackendError(
            f"backend 'cpu': Numba cannot be imported ({error}); expected one that can, or DEPTHUP_BACKEND=reference"
        ) from None
    return cpu


@torch.library.impl("depthup::ddf", "CPU")
def _(x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    return _cpu().forward(x, channel_filter, spatial_filter, dilation, stride, scale, combine)


@torch.library.impl("depthup::ddf", "CUDA")
def _(x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    from depthup.kernels import cuda

    return cuda.forward(x, channel_filter, spatial_filter, dilation, stride, scale, combine)


@torch.library.register_fake("depthup::ddf")
def _(x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    B, C = x.shape[:2]
    Ho, Wo = spatial_filter.shape[-2:]
    return torch.empty((B, C, scale * Ho, scale * Wo), dtype=x.dtype, device=x.device, memory_format=image_format(x))


@torch.library.impl("depthup::ddf_backward", "CPU")
def _(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    return _cpu().backward(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine)


@torch.library.impl("depthup::ddf_backward", "CUDA")
def _(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    from depthup.kernels import cuda

    return cuda.backward(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine)


@torch.library.register_fake("depthup::ddf_backward")
def _(grad_out, x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=image_format(x))
    return grad_x, channel_filter.new_empty(channel_filter.shape), torch.empty_like(readable(spatial_filter))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.dilation, ctx.stride, ctx.scale, ctx.combine = inputs
    ctx.save_for_backward(*tensors)


def _autograd_backward(ctx, grad_out):
    options = ctx.dilation, ctx.stride, ctx.scale, ctx.combine
    if forward_ad._current_level < 0:
        return (*_ddf_backward(grad_out, *ctx.saved_tensors, *options), None, None, None, None)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():  # a gradient that has a tangent, see `_run`
        tensors = _differentiable(ctx.saved_tensors, create_graph)
        grads = torch.autograd.grad(reference.forward(*tensors, *options), tensors, grad_out, create_graph=create_graph)
    return (*grads, None, None, None, None)


def _differentiable(tensors: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    """What gradients are taken with respect to inside a backward pass; `create_graph`: and are differentiated again."""
    return [t.view_as(t) if create_graph and t.requires_grad else t.detach().requires_grad_() for t in tensors]


torch.library.register_autograd("depthup::ddf", _autograd_backward, setup_context=_setup_context)


def _autograd_double_backward(ctx, *grads):
    """Differentiates `reference`: rarely needed, so it has no kernel, and costs the memory of an unfolded copy."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        grad_out, *tensors = inputs = _differentiable(ctx.saved_tensors, create_graph)
        out = reference.forward(*tensors, ctx.dilation, ctx.stride, ctx.scale, ctx.combine)
        first = torch.autograd.grad(out, tensors, grad_out, create_graph=True)
        second = torch.autograd.grad(first, inputs, grads, create_graph=create_graph, materialize_grads=True)
    return (*second, None, None, None, None)


torch.library.register_autograd("depthup::ddf_backward", _autograd_double_backward, setup_context=_setup_context)


def _folded(size: int, in_dims: tuple, tensors: list[Tensor]) -> tuple[list[Tensor], torch.Size]:
    """Tensors with the dimension that vmap maps over as part of the batch, and the sizes of both."""
    mapped = [
        t.unsqueeze(0).expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
        for dim, t in zip(in_dims, tensors, strict=False)
    ]
    return [t.flatten(0, 1) for t in mapped], mapped[0].shape[:2]


@torch.library.register_vmap("depthup::ddf")
def _(info, in_dims, *arguments):
    *tensors, dilation, stride, scale, combine = arguments
    folded, sizes = _folded(info.batch_size, in_dims, tensors)
    return _ddf(*folded, dilation, stride, scale, combine).unflatten(0, sizes), 0


@torch.library.register_vmap("depthup::ddf_backward")
def _(info, in_dims, *arguments):
    *tensors, dilation, stride, scale, combine = arguments
    folded, sizes = _folded(info.batch_size, in_dims, tensors)
    grads = _ddf_backward(*folded, dilation, stride, scale, combine)
    return tuple(g.unflatten(0, sizes) for g in grads), (0, 0, 0)


def _by_torch_func() -> bool:
    """Whether `torch.func.grad`, or what is made of it, is at work: PyTorch takes it through no registered formula."""
    return any(transform.key() != TransformType.Vmap for transform in get_interpreter_stack() or ())


# as `torch.compiler.assume_constant_result` does, which imports all of torch.compile
_by_torch_func._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _run(x, channel_filter, spatial_filter, dilation, stride, scale, combine) -> Tensor:
    forward_mode = forward_ad._current_level >= 0
    if forward_mode or _by_torch_func() or choose_backend(x.device) == "reference":
        # A registered operation would drop tangents without a word. As for second derivatives, there is no kernel.
        operation: Callable[..., Tensor] = reference.forward
    else:
        operation = _ddf
    return operation(x, channel_filter, spatial_filter, dilation, stride, scale, combine)


def _shape(t: Tensor) -> str:
    return str(list(t.shape))


def _is_integer(value: object) -> bool:
    return isinstance(value, _INTEGERS) and not isinstance(value, bool)


def check_options(kernel_size: int, combine: str, **positive: int) -> None:
    """Raise ValueError for an option that no filter can have."""
    if not _is_integer(kernel_size) or kernel_size < 1 or kernel_size % 2 != 1:
        raise ValueError(f"kernel_size: got {kernel_size!r}, expected an odd number of at least 1")
    if combine not in COMBINE:
        raise ValueError(f"combine: got {combine!r}, expected 'mul' or 'add'")
    for name, value in positive.items():
        if not _is_integer(value) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected an integer of at least 1")


def check_tensor(name: str, given: object) -> None:
    """Raise TypeError for what is no tensor."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: got {type(given).__name__}, expected a tensor")


def check_floats(name: str, tensor: Tensor) -> None:
    """Raise TypeError for a tensor of something else than floats."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: got {tensor.dtype}, expected a floating-point type")


def _check_tensors(x: Tensor, **filters: tuple[Tensor, list[int], str]) -> None:
    """Shapes, types and devices, before anything is launched; each filter comes with its shape and what that means."""
    check_floats("x", x)
    for name, (tensor, expected, meaning) in filters.items():
        if list(tensor.shape) != expected:
            raise ValueError(f"{name}: got shape {_shape(tensor)}, expected {expected} ({meaning}) for x {_shape(x)}")
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name}: got {tensor.dtype}, expected {x.dtype}, the type of x")
        if tensor.device != x.device:
            raise ValueError(f"{name}: is on {tensor.device}, expected {x.device}, the device of x")


def _under_autocast(x: Tensor, *filters: Tensor) -> tuple[Tensor, ...]:
    """Inside autocast the three inputs may differ in type: take the widest of them."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return x, *filters
    if not all(t.is_floating_point() for t in (x, *filters)):
        return x, *filters  # autocast converts no integers, and the checks are to refuse them
    dtype = x.dtype
    for tensor in filters:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(t.to(dtype) for t in (x, *filters))


def _check_x(x: Tensor, **filters: Tensor) -> None:
    """The shape of `x`, and that all three are tensors; the rest is for `_check_tensors`."""
    for name, tensor in {"x": x, **filters}.items():
        check_tensor(name, tensor)
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x: got shape {_shape(x)}, expected [B, C, H, W] with at least one channel and one pixel")


def ddf(
    x: Tensor,
    channel_filter: Tensor,
    spatial_filter: Tensor,
    kernel_size: int = 3,
    dilation: int = 1,
    stride: int = 1,
    combine: str = "mul",
) -> Tensor:
    """Decoupled dynamic filter (arXiv 2104.14107, section 3.2).

    `out[b, r, i] = sum_j spatial_filter[b, j, i] * channel_filter[b, r, j] * x[b, r, p_j]` over the `kernel_size` x
    `kernel_size` neighbourhood of pixel i, with zeros outside the image; `combine="add"` adds the two filters instead.

    Args:
        x: `[B, C, H, W]`, any floating-point type; B may be 0.
        channel_filter: `[B, C, k, k]`.
        spatial_filter: `[B, k*k, Ho, Wo]` with `Ho = (H - 1) // stride + 1`, `Wo` alike; taps row by row.
        kernel_size: k, odd.
        dilation: distance between taps in pixels.
        stride: distance between output pixels in input pixels.
        combine: `"mul"` or `"add"`.

    Returns:
        `[B, C, Ho, Wo]` in the type of `x` (the widest of the three under autocast).

    Raises:
        ValueError, TypeError: a shape, type or device does not fit; says which argument, what came, what was expected.
        BackendError: the backend that `use_backend` or `DEPTHUP_BACKEND` names cannot run here, or the latter unknown.
    """
    check_options(kernel_size, combine, dilation=dilation, stride=stride)
    _check_x(x, channel_filter=channel_filter, spatial_filter=spatial_filter)
    x, channel_filter, spatial_filter = _under_autocast(x, channel_filter, spatial_filter)
    B, C, H, W = x.shape
    k, Ho, Wo = kernel_size, (H - 1) // stride + 1, (W - 1) // stride + 1
    _check_tensors(
        x,
        channel_filter=(channel_filter, [B, C, k, k], "[B, C, k, k]"),
        spatial_filter=(spatial_filter, [B, k * k, Ho, Wo], "[B, k*k, Ho, Wo]"),
    )
    return _run(x, channel_filter.unsqueeze(1), spatial_filter.unsqueeze(1), dilation, stride, 1, combine)


def ddf_up(
    x: Tensor,
    channel_filter: Tensor,
    spatial_filter: Tensor,
    scale: int,
    kernel_size: int = 3,
    dilation: int = 1,
    combine: str = "mul",
) -> Tensor:
    """DDF-Up: `scale * scale` decoupled dynamic filters on one input, interleaved (arXiv 2104.14107, section 3.4).

    Output pixel `(scale*h + i, scale*w + j)` is the DDF of branch `i*scale + j` at `(h, w)`; see `ddf`.

    Args:
        x: `[B, C, H, W]`, any floating-point type; B may be 0.
        channel_filter: `[B, scale*scale, C, k, k]`.
        spatial_filter: `[B, scale*scale, k*k, H, W]`.
        scale: up-sampling factor s, at least 1.
        kernel_size: k, odd.
        dilation: distance between taps in input pixels.
        combine: `"mul"` or `"add"`.

    Returns:
        `[B, C, scale*H, scale*W]` in the type of `x` (the widest of the three under autocast).

    Raises:
        ValueError, TypeError, BackendError: as `ddf`.
    """
    check_options(kernel_size, combine, scale=scale, dilation=dilation)
    _check_x(x, channel_filter=channel_filter, spatial_filter=spatial_filter)
    x, channel_filter, spatial_filter = _under_autocast(x, channel_filter, spatial_filter)
    B, C, H, W = x.shape
    N, k = scale * scale, kernel_size
    _check_tensors(
        x,
        channel_filter=(channel_filter, [B, N, C, k, k], "[B, scale*scale, C, k, k]"),
        spatial_filter=(spatial_filter, [B, N, k * k, H, W], "[B, scale*scale, k*k, H, W]"),
    )
    return _run(x, channel_filter, spatial_filter, dilation, 1, scale, combine)
