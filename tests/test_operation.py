"""The DDF operation: the reference against loops and convolutions, the CPU backend against the reference."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import product
from typing import NamedTuple

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.data import DataLoader, Dataset

import depthup.kernels
from depthup.compiling import compiler
from depthup.kernels import (
    BackendError,
    backend,
    choose_backend,
    cpu,
    cuda,
    ddf,
    ddf_up,
    operation,
    simd,
    use_backend,
    why_not,
)

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
NAMES = ("out", "grad_x", "grad_channel_filter", "grad_spatial_filter")


@pytest.fixture(autouse=True)
def no_backend_is_named(monkeypatch):
    """Whatever `DEPTHUP_BACKEND` says while the tests run."""
    monkeypatch.setattr(backend, "_named", None)


class Case(NamedTuple):
    operation: str
    k: int
    dilation: int
    factor: int  # stride of ddf, scale of ddf_up
    combine: str
    shape: tuple[int, int, int, int]  # of x

    @property
    def stride(self) -> int:
        return self.factor if self.operation == "ddf" else 1

    @property
    def scale(self) -> int:
        return self.factor if self.operation == "ddf_up" else 1

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{self.operation}-k{self.k}-d{self.dilation}-f{self.factor}-{self.combine}-{shape}"


# more rows than the CPU kernel puts into one group
GRID = [
    *(Case("ddf", *options, (2, 3, 11, 10)) for options in product((1, 3, 5, 7), (1, 2, 3), (1, 2, 3), ("mul", "add"))),
    *(Case("ddf_up", *o, (2, 3, 10, 7)) for o in product((1, 3, 5, 7), (1, 2, 3), (1, 2, 3, 4), ("mul", "add"))),
]
UNUSUAL = [
    Case(name, 3, dilation, factor, combine, shape)
    for name, factor in (("ddf", 1), ("ddf", 2), ("ddf_up", 2), ("ddf_up", 3))
    for dilation, combine in ((1, "mul"), (2, "add"))
    for shape in ((1, 1, 1, 1), (2, 2, 1, 17), (1, 3, 19, 1), (1, 1, 2, 2), (3, 1, 33, 5), (0, 3, 4, 5))
] + [
    Case("ddf", 3, 50, 1, "mul", (1, 2, 5, 4)),
    Case("ddf", 7, 1, 9, "mul", (1, 2, 5, 4)),
    Case("ddf_up", 7, 3, 2, "add", (1, 2, 2, 3)),
]
MANY_CHANNELS = [
    Case("ddf", 3, 1, 1, "mul", (2, 17, 11, 10)),
    Case("ddf", 3, 2, 2, "add", (1, 9, 9, 12)),
    Case("ddf", 3, 9, 1, "mul", (1, 8, 5, 12)),
    Case("ddf_up", 3, 1, 2, "mul", (2, 26, 9, 7)),
    Case("ddf_up", 3, 1, 2, "mul", (1, 16, 1, 3)),
    Case("ddf_up", 5, 2, 3, "add", (1, 11, 5, 9)),
]
WIDE = [
    Case("ddf", 3, 1, 1, "mul", (1, 5, 9, 37)),
    Case("ddf", 3, 2, 2, "add", (1, 2, 9, 43)),
    Case("ddf", 5, 1, 3, "mul", (1, 3, 8, 50)),
    Case("ddf_up", 3, 1, 2, "mul", (2, 3, 20, 19)),
    Case("ddf_up", 3, 2, 3, "add", (1, 2, 7, 24)),
]
FEW = [
    Case("ddf", 3, 1, 1, "mul", (2, 5, 13, 11)),
    Case("ddf", 3, 2, 2, "add", (2, 3, 19, 12)),
    Case("ddf", 5, 1, 3, "mul", (1, 4, 11, 10)),
    Case("ddf_up", 3, 1, 2, "mul", (2, 5, 11, 7)),
    Case("ddf_up", 5, 2, 3, "add", (1, 2, 9, 6)),
]
TINY = [
    Case("ddf", 3, 1, 1, "mul", (2, 2, 3, 4)),
    Case("ddf", 3, 2, 2, "add", (1, 2, 5, 3)),
    Case("ddf_up", 3, 1, 2, "add", (2, 2, 3, 2)),
    Case("ddf_up", 3, 2, 3, "mul", (1, 1, 4, 3)),
]


def random_inputs(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, the two filters and a gradient of the output, in the shapes of the public functions."""
    B, C, H, W = case.shape
    branches = (case.scale**2,) if case.operation == "ddf_up" else ()
    Ho, Wo = (H - 1) // case.stride + 1, (W - 1) // case.stride + 1
    generator = torch.Generator().manual_seed(0)
    shapes = (
        case.shape,
        (B, *branches, C, case.k, case.k),
        (B, *branches, case.k**2, Ho, Wo),
        (B, C, case.scale * Ho, case.scale * Wo),
    )
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def apply(case: Case, x: Tensor, channel_filter: Tensor, spatial_filter: Tensor) -> Tensor:
    if case.operation == "ddf_up":
        return ddf_up(x, channel_filter, spatial_filter, case.scale, case.k, case.dilation, case.combine)
    return ddf(x, channel_filter, spatial_filter, case.k, case.dilation, case.stride, case.combine)


def with_gradients(case: Case, inputs: list[Tensor], name: str | None = None) -> list[Tensor]:
    """The output and its three gradients, by a named backend or that of the device."""
    *tensors, grad_out = inputs
    leaves = [t.detach().requires_grad_() for t in tensors]
    with use_backend(name) if name else nullcontext():
        out = apply(case, *leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


def exact(case: Case, inputs: list[Tensor]) -> list[Tensor]:
    return with_gradients(case, [t.double() for t in inputs], "reference")


def assert_near(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, kernel, true in zip(NAMES, actual, expected, strict=True):
        assert kernel.shape == true.shape, name
        if true.numel():
            error = (kernel.double() - true).abs().max()
            assert error <= tolerance * true.abs().max(), f"{name}: {error:.1e}"


def by_loops(case: Case, x: np.ndarray, channel_filter: np.ndarray, spatial_filter: np.ndarray) -> np.ndarray:
    """The definition, one output pixel after the other."""
    B, C, H, W = x.shape
    k, dilation, stride, scale = case.k, case.dilation, case.stride, case.scale
    channel_filter = channel_filter.reshape(B, scale, scale, C, k, k)
    Ho, Wo = spatial_filter.shape[-2:]
    spatial_filter = spatial_filter.reshape(B, scale, scale, k, k, Ho, Wo)
    out = np.zeros((B, C, scale * Ho, scale * Wo))
    for b, c, h, w, i, j, ty, tx in np.ndindex(B, C, Ho, Wo, scale, scale, k, k):
        row, column = h * stride + (ty - k // 2) * dilation, w * stride + (tx - k // 2) * dilation
        if 0 <= row < H and 0 <= column < W:
            channel, spatial = channel_filter[b, i, j, c, ty, tx], spatial_filter[b, i, j, ty, tx, h, w]
            weight = channel * spatial if case.combine == "mul" else channel + spatial
            out[b, c, scale * h + i, scale * w + j] += weight * x[b, c, row, column]
    return out


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize(
    "case",
    [
        Case("ddf", 3, 1, 1, "mul", (2, 2, 4, 5)),
        Case("ddf", 3, 2, 2, "add", (1, 2, 6, 5)),
        Case("ddf", 5, 1, 3, "mul", (1, 2, 7, 5)),
        Case("ddf_up", 3, 1, 2, "mul", (2, 2, 3, 4)),
        Case("ddf_up", 3, 2, 3, "add", (1, 2, 3, 4)),
        Case("ddf_up", 1, 1, 4, "mul", (1, 2, 3, 2)),
    ],
    ids=str,
)
def test_is_the_definition(case, name):
    inputs = random_inputs(case)[:3]
    with use_backend(name):
        out = apply(case, *inputs)
    np.testing.assert_allclose(out.numpy(), by_loops(case, *(t.numpy() for t in inputs)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_is_a_depthwise_convolution_where_spatial_filters_are_one(name, stride, dilation):
    case = Case("ddf", 5, dilation, stride, "mul", (1, 3, 11, 8))
    x, channel_filter, spatial_filter, _ = random_inputs(case)
    with use_backend(name):
        out = apply(case, x, channel_filter, torch.ones_like(spatial_filter))
    expected = F.conv2d(x, channel_filter[0][:, None], None, stride, 2 * dilation, dilation, groups=3)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_up_is_a_convolution_and_pixel_shuffle_where_spatial_filters_are_one(name):
    case = Case("ddf_up", 3, 1, 3, "mul", (1, 4, 6, 5))
    x, channel_filter, spatial_filter, _ = random_inputs(case)
    with use_backend(name):
        out = apply(case, x, channel_filter, torch.ones_like(spatial_filter))
    # pixel shuffle wants the sub-pixels of a channel side by side
    weight = channel_filter[0].transpose(0, 1).reshape(4 * 9, 1, 3, 3)
    expected = F.pixel_shuffle(F.conv2d(x, weight, padding=1, groups=4), 3)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_up_by_one_is_ddf():
    case = Case("ddf_up", 3, 2, 1, "mul", (2, 3, 5, 4))
    x, channel_filter, spatial_filter, _ = random_inputs(case)
    out = ddf(x, channel_filter[:, 0], spatial_filter[:, 0], dilation=2)
    assert torch.equal(apply(case, x, channel_filter, spatial_filter), out)


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("case", GRID + UNUSUAL + WIDE, ids=str)
def test_cpu_agrees_with_the_reference(case, dtype):
    inputs = random_inputs(case, dtype)
    actual = with_gradients(case, inputs, "cpu")
    assert all(t.dtype == dtype for t in actual)
    assert_near(actual, exact(case, inputs), EXACT[dtype])


# 7, 8 and 9 pixels, where a vector holds 8; 15 to 17 where two are computed at once; rows that end inside of one
PIXELS = [(1, 7), (7, 1), (1, 8), (4, 2), (3, 3), (5, 3), (4, 4), (1, 17), (9, 7), (14, 14), (13, 30)]


@pytest.mark.parametrize("pixels_of_a_tile", [1, 24, 4096])
@pytest.mark.parametrize(("dilation", "combine"), [(1, "mul"), (2, "add"), (6, "mul")])
def test_cpu_where_vectors_run_over_rows(dilation, combine, pixels_of_a_tile, monkeypatch):
    monkeypatch.setattr(cpu, "TILE_PIXELS", pixels_of_a_tile)
    for size in PIXELS:
        case = Case("ddf", 3, dilation, 1, combine, (2, 3, *size))
        inputs = random_inputs(case)[:3]
        with use_backend("cpu"):
            out = apply(case, *inputs)
        torch.testing.assert_close(out, exact(case, random_inputs(case))[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 3), (9, 28), (3, 70)])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_what_is_not_finite_spreads_no_further_than_its_taps(combine, size):
    case = Case("ddf", 3, 1, 1, combine, (1, 2, *size))
    x, channel_filter, spatial_filter, _ = random_inputs(case)
    x[0, 0, 1, 0], x[0, 0, 1, -1] = float("inf"), float("nan")
    with use_backend("cpu"):
        out = apply(case, x, channel_filter, spatial_filter)
    reached = F.max_pool2d((~x.isfinite()).double(), 3, 1, 1).bool()
    assert torch.equal(~out.isfinite(), reached)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [*FEW, Case("ddf", 1, 1, 1, "mul", (1, 2, 5, 4))], ids=str)
def test_half_precision_is_no_worse_than_torch(case, dtype):
    inputs = random_inputs(case, dtype)
    actual, by_torch = with_gradients(case, inputs, "cpu"), with_gradients(case, inputs, "reference")
    for name, kernel, torchs, true in zip(NAMES, actual, by_torch, exact(case, inputs), strict=True):
        assert kernel.dtype == dtype
        # One rounding of the result is allowed where torch happens to be exact, as with a single tap.
        rounding = torch.finfo(dtype).eps / 2 * true.abs().max()
        assert (kernel - true).abs().max() < 2 * (torchs - true).abs().max() + rounding + 1e-6, name


def transposed(t: Tensor) -> Tensor:
    return t.transpose(-1, -2).contiguous().transpose(-1, -2)


def sliced(t: Tensor) -> Tensor:
    wide = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 1), float("nan"), dtype=t.dtype)
    wide[..., 1::2] = t
    return wide[..., 1::2]


def expanded(t: Tensor) -> Tensor:
    return t[:1].expand_as(t)


def channels_last(t: Tensor) -> Tensor:
    return (
        t.contiguous(memory_format=torch.channels_last)
        if t.dim() == 4
        else t.movedim(1, -1).contiguous().movedim(-1, 1)
    )


def pixel_major(spatial_filter: Tensor) -> Tensor:
    """The layout in which a channels-last convolution leaves filters."""
    dim = spatial_filter.dim()
    order = (0, dim - 2, dim - 1, *range(1, dim - 2))
    return spatial_filter.permute(order).contiguous().permute([order.index(n) for n in range(dim)])


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, pixel_major], ids=["planar", "pixel-major"])
@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, dtype) for case in MANY_CHANNELS for dtype in EXACT if case.k == 3 or dtype == torch.float64],
)
def test_channels_last_stays_channels_last(case, dtype, layout):
    x, channel_filter, spatial_filter, grad_out = random_inputs(case, dtype)
    for image_layout in (channels_last, torch.Tensor.contiguous):
        inputs = [image_layout(x), channel_filter, layout(spatial_filter), grad_out]
        actual = with_gradients(case, inputs, "cpu")
        assert_near(actual, exact(case, inputs), EXACT[dtype])
        out, grad_x, grad_channel, grad_spatial = actual
        memory_format = torch.channels_last if image_layout is channels_last else torch.contiguous_format
        assert grad_channel.is_contiguous()  # as torch.compile was told
        assert out.is_contiguous(memory_format=memory_format) and grad_x.is_contiguous(memory_format=memory_format)
        assert grad_spatial.stride() == inputs[2].stride()


@pytest.mark.parametrize("layout", [transposed, sliced, expanded, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("case", [FEW[0], FEW[1], FEW[3]], ids=str)
def test_memory_layout_does_not_matter(case, layout):
    inputs = [layout(t) for t in random_inputs(case, torch.float32)]
    assert not any(t.is_contiguous() for t in inputs)
    actual = with_gradients(case, inputs, "cpu")
    assert_near(actual, exact(case, inputs), EXACT[torch.float32])
    expected = with_gradients(case, [t.contiguous() for t in inputs], "cpu")
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("wanted", [s for s in product((True, False), repeat=3) if any(s)], ids=str)
def test_gradients_of_some_inputs_only(wanted, name):
    case = FEW[3]
    *tensors, grad_out = random_inputs(case)
    leaves = [t.requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
    with use_backend(name):
        apply(case, *leaves).backward(grad_out)
    for leaf, want, expected in zip(leaves, wanted, exact(case, [*tensors, grad_out])[1:], strict=True):
        assert (leaf.grad is not None) == want
        if want:
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=1e-12)


def test_without_gradients_nothing_is_kept():
    tensors = random_inputs(FEW[0])[:3]
    assert not apply(FEW[0], *tensors).requires_grad
    with torch.no_grad():
        assert not apply(FEW[0], *(t.requires_grad_() for t in tensors)).requires_grad


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("case", TINY, ids=str)
def test_gradcheck(case, name):
    leaves = [t.requires_grad_() for t in random_inputs(case)[:3]]
    with use_backend(name):
        assert torch.autograd.gradcheck(lambda *tensors: apply(case, *tensors), leaves)


@pytest.mark.parametrize(
    "case", [Case("ddf", 3, 1, 1, "mul", (1, 1, 2, 2)), Case("ddf_up", 1, 1, 2, "mul", (1, 2, 1, 2))]
)
@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_second_derivatives(case, name):
    leaves = [t.requires_grad_() for t in random_inputs(case)[:3]]
    with use_backend(name):
        assert torch.autograd.gradgradcheck(lambda *tensors: apply(case, *tensors), leaves)


@pytest.mark.parametrize("case", TINY, ids=str)
def test_forward_mode(case):
    tensors = random_inputs(case)[:3]
    leaves = [t.clone().requires_grad_() for t in tensors]
    options = {"check_forward_ad": True, "check_backward_ad": False, "check_undefined_grad": False}
    assert torch.autograd.gradcheck(lambda *inputs: apply(case, *inputs), leaves, **options)
    expected = torch.autograd.functional.jacobian(lambda *inputs: apply(case, *inputs), tuple(tensors))
    found = torch.func.jacfwd(lambda *inputs: apply(case, *inputs), argnums=(0, 1, 2))(*tensors)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_forward_mode_twice():
    x, channel, spatial = random_inputs(FEW[0])[:3]
    v = torch.randn_like(x)

    def slope(x: Tensor) -> Tensor:
        return torch.func.jvp(lambda y: apply(FEW[0], y**2, channel, spatial), (x,), (v,))[1]

    curvature = torch.func.jvp(slope, (x,), (v,))[1]
    torch.testing.assert_close(curvature, apply(FEW[0], 2 * v**2, channel, spatial), rtol=1e-12, atol=1e-12)


def test_forward_mode_inside_of_a_compiled_function():
    x, channel, spatial = random_inputs(FEW[0])[:3]
    v = torch.randn_like(x)

    def slope(x: Tensor, v: Tensor) -> Tensor:
        return torch.func.jvp(lambda y: apply(FEW[0], y, channel, spatial), (x,), (v,))[1]

    expected = apply(FEW[0], v, channel, spatial)
    torch.testing.assert_close(torch.compile(slope, backend="eager")(x, v), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
def test_forward_mode_of_a_gradient(create_graph):
    """Of which the operation that is differentiated knows nothing."""
    leaves = [t.clone().requires_grad_() for t in random_inputs(FEW[0])[:3]]
    out = apply(FEW[0], *leaves)
    grad_out, tangent = torch.randn_like(out), torch.randn_like(out)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(grad_out, tangent)
        grads = torch.autograd.grad(out, leaves, dual, create_graph=create_graph, retain_graph=True)
        found = [forward_ad.unpack_dual(g).tangent for g in grads]
    assert all(g.requires_grad == create_graph for g in grads)
    torch.testing.assert_close(found, list(torch.autograd.grad(out, leaves, tangent)), rtol=1e-12, atol=1e-12)


def test_what_is_no_tensor():
    x, channel, spatial = random_inputs(Case("ddf", 3, 1, 1, "mul", (1, 1, 2, 2)))[:3]
    for inputs, name in (
        ((x.numpy(), channel, spatial), "x"),
        ((x, None, spatial), "channel_filter"),
        ((x, channel, [1.0]), "spatial_filter"),
    ):
        with pytest.raises(TypeError, match=f"{name}: got .*, expected a tensor"):
            ddf(*inputs)


def test_third_derivatives():
    def third(name):
        leaves = [t.requires_grad_() for t in random_inputs(FEW[3])[:3]]
        with use_backend(name):
            value = apply(FEW[3], *leaves).pow(3).sum()
            for _ in range(2):
                value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
            return torch.autograd.grad(value, leaves)

    torch.testing.assert_close(third("cpu"), third("reference"), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", [FEW[1], FEW[3]], ids=str)
def test_vmap(case):
    x, channel_filter, spatial_filter, _ = random_inputs(case)
    xs, spatial_filters = torch.stack([x, 2 * x, x.flip(0)]), torch.stack([spatial_filter] * 3, dim=2)

    def function(x, channel_filter, spatial_filter):
        return apply(case, x, channel_filter, spatial_filter)

    actual = torch.vmap(function, in_dims=(0, None, 2))(xs, channel_filter, spatial_filters)
    expected = torch.stack([function(one, channel_filter, spatial_filter) for one in xs])
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    none = torch.vmap(function, in_dims=(0, None, 2))(xs[:0], channel_filter, spatial_filters[:, :, :0])
    assert none.shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("case", [FEW[1], FEW[3]], ids=str)
def test_torch_func(case):
    tensors = random_inputs(case)[:3]

    def loss(*inputs: Tensor) -> Tensor:
        return apply(case, *inputs).square().sum()

    def loss_of_one(*inputs: Tensor) -> Tensor:
        return loss(*(t[None] for t in inputs))

    grad = torch.func.grad(loss, argnums=(0, 1, 2))
    expected = torch.autograd.functional.jacobian(loss, tuple(tensors))
    of_each = torch.vmap(torch.func.grad(loss_of_one, argnums=(0, 1, 2)))
    for found in (grad(*tensors), of_each(*tensors), torch.compile(grad, backend="eager", fullgraph=True)(*tensors)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found = torch.func.hessian(loss, argnums=1)(*tensors)
    expected = torch.autograd.functional.hessian(lambda channel: loss(tensors[0], channel, tensors[2]), tensors[1])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [FEW[1], FEW[3]], ids=str)
def test_several_gradients_at_once(case):
    *tensors, grad_out = random_inputs(case)
    leaves = [t.requires_grad_() for t in tensors]
    out = apply(case, *leaves)
    several = torch.stack([grad_out, -2 * grad_out])
    batched = torch.autograd.grad(out, leaves, several, is_grads_batched=True, retain_graph=True)
    for n, single in enumerate(several):
        expected = torch.autograd.grad(out, leaves, single, retain_graph=True)
        torch.testing.assert_close([t[n] for t in batched], list(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", TINY[1:3], ids=str)
def test_registration_with_pytorch(case):
    x, channel_filter, spatial_filter, grad_out = random_inputs(case)
    if case.operation == "ddf":  # what is registered has a dimension of branches
        channel_filter, spatial_filter = channel_filter.unsqueeze(1), spatial_filter.unsqueeze(1)
    tensors = x, channel_filter, spatial_filter
    options = case.dilation, case.stride, case.scale, case.combine
    torch.library.opcheck(torch.ops.depthup.ddf_backward.default, (grad_out, *tensors, *options))
    layouts = channels_last(x), channel_filter, pixel_major(spatial_filter)
    torch.library.opcheck(torch.ops.depthup.ddf.default, (*layouts, *options))
    torch.library.opcheck(torch.ops.depthup.ddf_backward.default, (grad_out, *layouts, *options))
    leaves = [t.detach().requires_grad_() for t in tensors]
    torch.library.opcheck(torch.ops.depthup.ddf.default, (*leaves, *options))


class Apply(nn.Module):
    def __init__(self, case: Case):
        super().__init__()
        self.case = case

    def forward(self, x: Tensor, channel_filter: Tensor, spatial_filter: Tensor) -> Tensor:
        return apply(self.case, x, channel_filter, spatial_filter)


@pytest.mark.parametrize("case", [FEW[1], FEW[3]], ids=str)
def test_compile(case):
    torch._dynamo.reset()
    *tensors, grad_out = random_inputs(case)
    leaves = [t.requires_grad_() for t in tensors]
    out = torch.compile(Apply(case), fullgraph=True, backend="aot_eager")(*leaves)
    actual = [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]
    assert_near(actual, exact(case, [*tensors, grad_out]), EXACT[torch.float64])


def test_export_for_images_of_any_size():
    case = Case("ddf_up", 3, 1, 2, "mul", (1, 2, 6, 5))
    height, width = torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    sizes = {2: height, 3: width}, {}, {3: height, 4: width}
    program = torch.export.export(Apply(case), tuple(random_inputs(case)[:3]), dynamic_shapes=sizes)
    assert "depthup.ddf" in str(program.graph)
    for shape in ((1, 2, 6, 5), (1, 2, 3, 11)):
        tensors = random_inputs(case._replace(shape=shape))[:3]
        assert torch.equal(program.module()(*tensors), apply(case, *tensors))


def test_autocast_takes_the_widest_type():
    x, channel_filter, spatial_filter, _ = random_inputs(FEW[3], torch.bfloat16)
    leaves = [x.requires_grad_(), channel_filter.float().requires_grad_(), spatial_filter.requires_grad_()]
    with pytest.raises(TypeError, match=r"channel_filter: got torch\.float32, expected torch\.bfloat16, the type of x"):
        apply(FEW[3], *leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = apply(FEW[3], *leaves)
        assert apply(FEW[3], x, channel_filter, spatial_filter).dtype == torch.bfloat16
    assert out.dtype == torch.float32
    gradients = torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.float32, torch.bfloat16]
    expected = exact(FEW[3], [*leaves, torch.ones_like(out)])
    torch.testing.assert_close(out.double(), expected[0], rtol=1e-5, atol=1e-5)


def test_meta_tensors_have_shapes_and_types():
    tensors = [t.to("meta", torch.bfloat16) for t in random_inputs(FEW[3])[:3]]
    out = apply(FEW[3], *tensors)
    assert out.device.type == "meta"
    assert (out.shape, out.dtype) == ((2, 5, 22, 14), torch.bfloat16)


@pytest.fixture
def threads(monkeypatch):
    """torch.set_num_threads for one test, with a pool of its own that is used however little there is to do."""
    monkeypatch.setattr(cpu, "_SINGLE_THREAD_BELOW", 0)
    monkeypatch.setattr(cpu, "_pool", None)
    monkeypatch.setattr(cpu, "_pool_size", 0)
    return torch.set_num_threads


LARGER = [
    Case("ddf", 3, 2, 2, "mul", (3, 5, 61, 40)),
    Case("ddf_up", 3, 1, 2, "mul", (2, 4, 45, 32)),
    Case("ddf", 3, 1, 1, "mul", (2, 5, 75, 70)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", LARGER, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(case, dtype, threads):
    inputs = random_inputs(case, dtype)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(with_gradients(case, inputs, "cpu"))
        assert cpu._pool_size == count - 1
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_little_work_stays_on_its_thread(threads, monkeypatch):
    monkeypatch.setattr(cpu, "_SINGLE_THREAD_BELOW", 1_000_000)
    threads(2)
    with_gradients(FEW[0], random_inputs(FEW[0]), "cpu")
    assert cpu._pool is None


def test_an_error_on_another_thread_is_raised(threads):
    threads(2)

    def kernel(first, last):
        if first > 0:
            raise MemoryError("no room for a row")

    with pytest.raises(MemoryError, match="no room"):
        cpu._run(kernel, 4, 100)


def test_several_python_threads_at_once(threads):
    threads(2)
    inputs = {case: random_inputs(case) for case in LARGER}
    expected = {case: exact(case, inputs[case]) for case in LARGER}

    def work(index):
        case = LARGER[index % 2]
        torch.set_num_threads(2 + index % 2)
        assert_near(with_gradients(case, inputs[case]), expected[case], EXACT[torch.float64])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, index) for index in range(12)]:
            done.result(timeout=60)


class Outputs(Dataset):
    def __init__(self, inputs: list[Tensor]):
        self.inputs = inputs

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        torch.set_num_threads(2)  # a worker starts with one thread, and would not need the pool
        return apply(LARGER[1], *self.inputs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_worker_of_a_parent_that_used_its_pool(threads):
    threads(2)
    inputs = random_inputs(LARGER[1])[:3]
    expected = apply(LARGER[1], *inputs)
    assert cpu._pool is not None
    # a worker that waits for its parent's threads would never answer
    (out,) = DataLoader(Outputs(inputs), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=30)
    assert torch.equal(out, expected)


NO_FORKS = """
import os, torch, numba
for name in ("fork", "register_at_fork"):
    delattr(os, name)
import depthup.kernels.cpu
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be without")
def test_where_nothing_forks():
    subprocess.run([sys.executable, "-c", NO_FORKS], check=True)  # as on Windows


def test_the_device_chooses_the_backend():
    assert choose_backend(torch.device("cpu")) == "cpu"
    assert choose_backend(torch.device("meta")) == "reference"


def test_a_named_backend_is_used_until_the_block_ends():
    device = torch.device("cpu")
    with use_backend("reference"):
        assert choose_backend(device) == "reference"
        with use_backend("cpu"):
            assert choose_backend(device) == "cpu"
        assert choose_backend(device) == "reference"
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert choose_backend(device) == "cpu"


def test_the_named_backend_is_the_one_that_runs(monkeypatch):
    tensors = random_inputs(FEW[0])[:3]
    monkeypatch.setattr(operation.reference, "forward", lambda *arguments: "the reference")
    with use_backend("reference"):
        assert apply(FEW[0], *tensors) == "the reference"
    with use_backend("cpu"):
        assert isinstance(apply(FEW[0], *tensors), Tensor)


def test_unknown_backend():
    with pytest.raises(ValueError, match="backend 'gpu': expected one of reference, cpu, cuda"), use_backend("gpu"):
        pass


def test_a_named_backend_that_cannot_run_says_why(monkeypatch):
    tensors = random_inputs(FEW[0])[:3]
    with use_backend("cuda"), pytest.raises(RuntimeError, match="'cuda' works on cuda tensors, and these are on cpu"):
        apply(FEW[0], *tensors)
    with use_backend("cpu"):
        with pytest.raises(RuntimeError, match="'cpu' works on cpu tensors, and these are on meta"):
            apply(FEW[0], *(t.to("meta") for t in tensors))
        without_numba(monkeypatch)
        with pytest.raises(RuntimeError, match="'cpu' needs Numba: pip install numba"):
            apply(FEW[0], *tensors)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with use_backend("cuda"), pytest.raises(RuntimeError, match=r"torch\.cuda\.is_available\(\) is False"):
        choose_backend(torch.device("cuda"))


def without_numba(monkeypatch) -> None:
    find_spec = backend.importlib.util.find_spec
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else find_spec(name, *rest)
    )


def test_a_backend_that_was_only_considered_is_logged(monkeypatch, caplog):
    without_numba(monkeypatch)
    monkeypatch.setattr(cuda, "why_not", lambda: "backend 'cuda' is asleep")
    caplog.set_level(logging.DEBUG, logger="depthup.kernels")
    inputs = random_inputs(FEW[0])
    assert_near(with_gradients(FEW[0], inputs), exact(FEW[0], inputs), 0)
    assert choose_backend(torch.device("cuda")) == "reference"
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert "needs Numba" in caplog.text and "is asleep" in caplog.text


def test_kernels_compile_where_nothing_can_be_kept(monkeypatch):
    """A read-only installation and a home that cannot be written, as of many containers."""
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    space: dict = {}
    exec(compile("def plus_one(n):\n    return n + 1", "/dev/null/nowhere.py", "exec"), space)
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(space["plus_one"])
    for decorate in (simd.compile_kernel, compiler(nogil=True)):
        assert decorate(space["plus_one"])(2) == 3


@pytest.fixture
def hits(tmp_path, monkeypatch):
    """Compiles a function as a new process would, and says how often it was found among what was kept."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    source = tmp_path / "plus.py"

    def compile_and_count(n: int = 1) -> int:
        if not source.exists() or str(n) not in source.read_text():
            source.write_text(f"def plus(m):\n    return m + {n}")
        space: dict = {}
        exec(compile(source.read_text(), source, "exec"), space)
        plus = compiler(nogil=True)(space["plus"])
        assert plus(2) == 2 + n
        return sum(plus.stats.cache_hits.values())

    return compile_and_count


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-40], lambda content: bytes(40)])
def test_what_was_kept_and_is_damaged_is_compiled_anew(tmp_path, hits, suffix, damage):
    assert [hits(), hits()] == [0, 1]
    (kept,) = (tmp_path / "kept").rglob(f"*{suffix}")
    kept.write_bytes(damage(kept.read_bytes()))
    first, _, third = hits(), hits(), hits()
    assert (first, third) == (0, 1)


def test_a_disk_without_space_for_what_is_compiled(hits, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert [hits(1), hits(1)] == [0, 1]
    with monkeypatch.context() as patched:
        patched.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", full)
        assert [hits(1000), hits(1000)] == [0, 0]
    assert [hits(1000), hits(1000)] == [0, 1]  # and not what was kept of the older source


def test_a_numba_that_cannot_be_imported(monkeypatch):
    monkeypatch.delattr(depthup.kernels, "cpu")
    monkeypatch.setitem(sys.modules, "depthup.kernels.cpu", None)  # "import ... halted"
    with pytest.raises(BackendError, match=r"Numba cannot be imported \(.*\); .* DEPTHUP_BACKEND=reference"):
        ddf(**DDF)


def test_why_not():
    assert why_not("reference", torch.device("meta")) is None
    assert why_not("cpu", torch.device("cpu")) is None
    assert "these are on meta" in why_not("cuda", torch.device("meta"))


CHOOSE = """
import torch
from depthup.kernels import choose_backend, use_backend
try:
    print(choose_backend(torch.device("cpu")))
except RuntimeError as error:
    print(type(error).__name__, error)
with use_backend("cpu"):
    print(choose_backend(torch.device("cpu")))
"""


@pytest.mark.parametrize(
    ("named", "first"),
    [
        ("", "cpu"),
        ("reference", "reference"),
        ("cuda", "BackendError backend 'cuda' works on cuda tensors, and these are on cpu"),
        ("nonsense", "BackendError DEPTHUP_BACKEND: got 'nonsense', expected one of reference, cpu, cuda"),
    ],
)
def test_environment_names_a_backend(named, first):
    environment = {**os.environ, "DEPTHUP_BACKEND": named}
    command = [sys.executable, "-c", CHOOSE]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines() == [first, "cpu"]


def zeros(*shape: int, **options) -> Tensor:
    return torch.zeros(shape, **options)


DDF = {"x": zeros(2, 3, 5, 4), "channel_filter": zeros(2, 3, 3, 3), "spatial_filter": zeros(2, 9, 5, 4)}
DDF_UP = {
    "x": zeros(2, 3, 5, 4),
    "channel_filter": zeros(2, 4, 3, 3, 3),
    "spatial_filter": zeros(2, 4, 9, 5, 4),
    "scale": 2,
}


@pytest.mark.parametrize(
    ("function", "wrong", "error", "parts"),
    [
        (ddf, {"x": zeros(3, 5, 4)}, ValueError, ["x: got shape [3, 5, 4]", "expected [B, C, H, W]"]),
        (ddf, {"x": zeros(2, 3, 0, 4)}, ValueError, ["x: got shape [2, 3, 0, 4]", "one pixel"]),
        (ddf, {"x": zeros(2, 0, 5, 4)}, ValueError, ["x: got shape [2, 0, 5, 4]", "one channel"]),
        (ddf, {"x": zeros(2, 3, 5, 4).long()}, TypeError, ["x: got torch.int64", "floating-point"]),
        (ddf, {"x": zeros(2, 3, 5, 4).bool()}, TypeError, ["x: got torch.bool", "floating-point"]),
        (ddf, {"x": zeros(2, 3, 5, 4).cfloat()}, TypeError, ["x: got torch.complex64", "floating-point"]),
        (ddf, {"channel_filter": zeros(2, 3, 9)}, ValueError, ["channel_filter: got shape [2, 3, 9]", "[2, 3, 3, 3]"]),
        (ddf, {"channel_filter": zeros(1, 3, 3, 3)}, ValueError, ["channel_filter: got shape [1,", "expected [2, 3,"]),
        (ddf, {"channel_filter": zeros(2, 4, 3, 3)}, ValueError, ["channel_filter: got shape [2, 4", "[2, 3, 3, 3]"]),
        (ddf, {"spatial_filter": zeros(2, 9, 4, 5)}, ValueError, ["spatial_filter: got shape [2, 9, 4", "[2, 9, 5, 4"]),
        (ddf, {"spatial_filter": zeros(2, 8, 5, 4)}, ValueError, ["spatial_filter: got shape [2, 8,", "[2, 9, 5, 4]"]),
        (ddf, {"stride": 2}, ValueError, ["spatial_filter: got shape [2, 9, 5, 4]", "expected [2, 9, 3, 2]"]),
        (ddf, {"kernel_size": 5}, ValueError, ["channel_filter: got shape [2, 3, 3, 3]", "expected [2, 3, 5, 5]"]),
        (ddf, {"kernel_size": 2}, ValueError, ["kernel_size: got 2", "odd"]),
        (ddf, {"kernel_size": 0}, ValueError, ["kernel_size: got 0", "odd"]),
        (ddf, {"kernel_size": -3}, ValueError, ["kernel_size: got -3", "at least 1"]),
        (ddf, {"dilation": 0}, ValueError, ["dilation: got 0", "at least 1"]),
        (ddf, {"stride": -1}, ValueError, ["stride: got -1", "at least 1"]),
        (ddf, {"combine": "sum"}, ValueError, ["combine: got 'sum'", "expected 'mul' or 'add'"]),
        (ddf, {"channel_filter": zeros(2, 3, 3, 3).double()}, TypeError, ["channel_filter: got torch.float64"]),
        (ddf, {"spatial_filter": zeros(2, 9, 5, 4).half()}, TypeError, ["spatial_filter: got torch.float16"]),
        (ddf, {"channel_filter": zeros(2, 3, 3, 3, device="meta")}, ValueError, ["channel_filter: is on meta", "cpu"]),
        (ddf, {"spatial_filter": zeros(2, 9, 5, 4, device="meta")}, ValueError, ["spatial_filter: is on meta", "cpu"]),
        (ddf_up, {"scale": 0}, ValueError, ["scale: got 0", "at least 1"]),
        (ddf_up, {"scale": 3}, ValueError, ["channel_filter: got shape [2, 4,", "expected [2, 9, 3, 3, 3]"]),
        (ddf_up, {"kernel_size": 4}, ValueError, ["kernel_size: got 4", "odd"]),
        (ddf_up, {"combine": ""}, ValueError, ["combine: got ''", "expected 'mul' or 'add'"]),
        (ddf_up, {"channel_filter": zeros(2, 3, 3, 3)}, ValueError, ["channel_filter: got shape [2, 3, 3", "[2, 4, 3"]),
        (ddf_up, {"spatial_filter": zeros(2, 9, 5, 4)}, ValueError, ["spatial_filter: got shape [2, 9", "[2, 4, 9, 5"]),
        (ddf_up, {"spatial_filter": zeros(2, 4, 9, 10, 8)}, ValueError, ["spatial_filter: got", "[2, 4, 9, 5, 4]"]),
        (ddf_up, {"spatial_filter": zeros(2, 4, 9, 5, 4).half()}, TypeError, ["spatial_filter: got torch.float16"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_a_launch(function, wrong, error, parts, monkeypatch):
    monkeypatch.setattr(operation, "_run", lambda *arguments: pytest.fail("launched"))
    with pytest.raises(error) as caught:
        function(**{**(DDF if function is ddf else DDF_UP), **wrong})
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", DDF)
def test_autocast_converts_no_integers(name):
    with torch.autocast("cpu"), pytest.raises(TypeError, match=rf"^{name}: got torch\.int64"):
        ddf(**{**DDF, name: DDF[name].long()})


def test_a_thread_that_outlives_the_main_one_goes_on(tmp_path):
    """Then the interpreter takes no more work for other threads."""
    script = tmp_path / "script.py"
    script.write_text("""
import threading, time
import torch
from depthup import ddf

torch.set_num_threads(2)
x, c, s = torch.rand(1, 16, 64, 64), torch.rand(1, 16, 3, 3), torch.rand(1, 9, 64, 64)
expected = ddf(x, c, s)

def work():
    threading.main_thread().join()
    time.sleep(0.3)
    assert torch.equal(ddf(x, c, s), expected)
    print("done")

threading.Thread(target=work).start()
""")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


def test_blocks_of_two_threads_that_overlap_leave_nothing_behind():
    cpu = torch.device("cpu")
    before = backend.choose_backend(cpu)
    first, second = use_backend("cpu"), use_backend("reference")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert backend.choose_backend(cpu) == "reference"
    second.__exit__(None, None, None)
    assert backend.choose_backend(cpu) == before
    with use_backend("reference"), use_backend("cpu"):
        assert backend.choose_backend(cpu) == "cpu"
    assert backend.choose_backend(cpu) == before
