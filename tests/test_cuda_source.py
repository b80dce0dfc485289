"""`ddf.cu` without a GPU: its arithmetic on the CPU through g++, its launches, and what nvcc says of it."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from depthup.kernels import cuda

_spec = importlib.util.spec_from_file_location("runner", Path(__file__).parent / "cuda_on_cpu" / "runner.py")
runner = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner)

needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")

ARCHITECTURES = (75, 80, 90, 120)
MOST_REGISTERS = 128  # 512 threads on a multiprocessor of 65536 registers; the filter gradients of float64 need more

# k, dilation, stride, scale, combine, [B, C, H, W]
CASES = [
    (3, 1, 1, 1, "mul", (2, 9, 13, 11)),
    (3, 1, 1, 1, "add", (2, 3, 7, 9)),
    (3, 2, 1, 1, "mul", (1, 8, 9, 7)),
    (3, 2, 1, 1, "add", (1, 5, 6, 5)),
    (3, 1, 2, 1, "mul", (2, 5, 9, 8)),
    (3, 2, 2, 1, "add", (1, 6, 8, 11)),
    (3, 1, 1, 2, "mul", (2, 9, 5, 7)),
    (3, 1, 1, 2, "add", (1, 4, 6, 3)),
    (3, 2, 1, 3, "mul", (1, 3, 5, 4)),
    (3, 1, 1, 4, "mul", (1, 2, 3, 5)),
    (3, 1, 1, 2, "mul", (1, 1, 1, 1)),
    (3, 1, 1, 1, "mul", (1, 4, 1, 17)),
    (3, 2, 1, 2, "add", (1, 4, 17, 1)),
    (3, 7, 2, 1, "mul", (1, 2, 4, 5)),
    (3, 1, 2, 1, "mul", (1, 2, 2, 1)),
    (3, 1, 1, 1, "mul", (1, 1, 61, 71)),
    (3, 1, 1, 1, "mul", (2, 3, 9, 72)),
    (3, 1, 1, 2, "add", (1, 3, 5, 8)),
    (1, 1, 1, 1, "mul", (2, 3, 5, 6)),
    (1, 1, 2, 1, "add", (1, 9, 5, 6)),
    (1, 1, 1, 3, "mul", (1, 3, 4, 5)),
    (5, 1, 1, 1, "mul", (1, 9, 8, 9)),
    (5, 2, 1, 2, "mul", (1, 3, 7, 6)),
    (5, 1, 2, 1, "add", (2, 3, 7, 6)),
    (7, 1, 1, 1, "mul", (1, 5, 8, 9)),
    (7, 2, 2, 1, "add", (1, 2, 9, 10)),
    (7, 1, 1, 2, "mul", (1, 2, 4, 3)),
    (9, 1, 1, 1, "mul", (1, 2, 7, 9)),
]
# Widths of a whole number of 16-byte accesses, and other ones.
FEWER_CASES = [
    (3, 1, 1, 1, "mul", (2, 9, 13, 11)),
    (3, 1, 1, 1, "mul", (1, 9, 5, 16)),
    (3, 1, 1, 2, "mul", (2, 9, 5, 8)),
    (3, 2, 1, 1, "add", (1, 5, 6, 5)),
    (3, 1, 2, 1, "mul", (2, 5, 9, 8)),
    (5, 1, 1, 1, "mul", (1, 9, 8, 8)),
    (5, 2, 1, 2, "mul", (1, 3, 7, 6)),
]
LAYOUTS = ("channels_last", "pixel_major", "both", "misaligned", "misaligned_last", "sliced", "transposed")
PIXEL_MAJOR = ("pixel_major", "both", "misaligned_last")
LAST = ("channels_last", "both", "misaligned_last")
LAYOUT_CASES = [
    (3, 1, 1, 1, "mul", (2, 8, 6, 16)),
    (3, 1, 1, 2, "mul", (2, 5, 4, 8)),
    (5, 1, 2, 1, "add", (1, 37, 5, 6)),
]


def name_of(case) -> str:
    k, dilation, stride, scale, combine, shape = case
    return f"k{k}-d{dilation}-s{stride}-x{scale}-{combine}-{'x'.join(map(str, shape))}"


def unfolded(x, channel_filter, spatial_filter, dilation, stride, scale, combine):
    """The definition through F.unfold, with a copy of every neighbourhood."""
    B, C = x.shape[:2]
    k, (Ho, Wo) = channel_filter.shape[-1], spatial_filter.shape[-2:]
    patches = F.unfold(x, k, dilation=dilation, padding=dilation * (k // 2), stride=stride).view(B, 1, C, k * k, Ho, Wo)
    channel, spatial = channel_filter.flatten(3)[..., None, None], spatial_filter[:, :, None]
    weights = channel * spatial if combine == "mul" else channel + spatial
    branches = (weights * patches).sum(3)  # [B, N, C, Ho, Wo]
    return F.pixel_shuffle(branches.transpose(1, 2).reshape(B, -1, Ho, Wo), scale)


def random_inputs(case, dtype):
    k, _, stride, scale, _, (B, C, H, W) = case
    generator = torch.Generator().manual_seed(k + C + W)
    Ho, Wo, N = (H - 1) // stride + 1, (W - 1) // stride + 1, scale * scale
    shapes = (B, C, H, W), (B, N, C, k, k), (B, N, k * k, Ho, Wo), (B, C, scale * Ho, scale * Wo)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def pixel_major(spatial_filter):
    return spatial_filter.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


def misaligned(tensor):
    """A contiguous copy that starts one element after a multiple of 16 bytes."""
    storage = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:]
    return storage.copy_(tensor.flatten()).view(tensor.shape)


def in_layout(layout, x, channel_filter, spatial_filter, grad_out):
    """The same values, stored otherwise."""
    if layout in LAST:
        x = x.to(memory_format=torch.channels_last)
    if layout in PIXEL_MAJOR:
        spatial_filter = pixel_major(spatial_filter)
    tensors = x, channel_filter, spatial_filter, grad_out
    if layout == "misaligned":
        return [misaligned(t) for t in tensors]
    if layout == "misaligned_last":
        x = misaligned(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [x, channel_filter, spatial_filter, grad_out]
    if layout == "sliced":
        return [F.pad(t, (1, 0))[..., 1:] for t in tensors]
    if layout == "transposed":
        return [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in tensors]
    return list(tensors)


def by_autograd(inputs, grad_out, options):
    """Output and three gradients of `unfolded`, in the dtype of the inputs."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = unfolded(*leaves, *options)
    return out.detach(), *torch.autograd.grad(out, leaves, grad_out)


@pytest.fixture(scope="session")
def cpu(tmp_path_factory):
    return runner.CpuRunner(tmp_path_factory.mktemp("cuda_on_cpu"))


def by_kernels(cpu, inputs, grad_out, options):
    plans = cuda.plan_forward(*inputs, *options), cuda.plan_backward(grad_out, *inputs, *options)
    cpu.compile(launch.kernel for plan in plans for launch in plan.launches)
    return tuple(output for plan in plans for output in cpu.run(plan))


NAMES = ("out", "grad_x", "grad_channel_filter", "grad_spatial_filter")


@needs_gxx
@pytest.mark.parametrize(
    ("dtype", "case", "tolerance"),
    [(torch.float64, case, 1e-12) for case in CASES] + [(torch.float32, case, 1e-5) for case in FEWER_CASES],
    ids=lambda value: name_of(value) if isinstance(value, tuple) else str(value),
)
def test_agrees_with_double_precision(cpu, dtype, case, tolerance):
    *inputs, grad_out = random_inputs(case, dtype)
    options = case[1:5]
    expected = by_autograd([t.double() for t in inputs], grad_out.double(), options)
    for name, actual, exact in zip(NAMES, by_kernels(cpu, inputs, grad_out, options), expected, strict=True):
        assert actual.dtype == dtype and actual.shape == exact.shape, name
        error = (actual.double() - exact).abs().max() / exact.abs().max()
        assert error < tolerance, f"{name}: {error:.1e}"


@needs_gxx
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", FEWER_CASES, ids=name_of)
def test_half_precision_is_no_worse_than_torch(cpu, dtype, case):
    *inputs, grad_out = random_inputs(case, dtype)
    options = case[1:5]
    expected = by_autograd([t.double() for t in inputs], grad_out.double(), options)
    by_torch = by_autograd(inputs, grad_out, options)
    actual = by_kernels(cpu, inputs, grad_out, options)
    for name, kernel, torchs, exact in zip(NAMES, actual, by_torch, expected, strict=True):
        assert kernel.dtype == dtype
        # One rounding of the result is allowed where torch happens to be exact, as with a single tap.
        rounding = torch.finfo(dtype).eps / 2 * exact.abs().max()
        allowed = 2 * (torchs.double() - exact).abs().max() + rounding + 1e-6
        assert (kernel.double() - exact).abs().max() < allowed, name


@needs_gxx
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", LAYOUT_CASES, ids=name_of)
def test_layouts(cpu, case, layout):
    plain = random_inputs(case, torch.float32)
    *inputs, grad_out = in_layout(layout, *plain)
    out, grad_x, grad_channel, grad_spatial = actual = by_kernels(cpu, inputs, grad_out, case[1:5])
    expected = by_autograd([t.double() for t in plain[:3]], plain[3].double(), case[1:5])
    for name, kernel, exact in zip(NAMES, actual, expected, strict=True):
        assert (kernel.double() - exact).abs().max() < 1e-5 * exact.abs().max(), name

    memory_format = torch.channels_last if layout in LAST else torch.contiguous_format
    assert all(t.is_contiguous(memory_format=memory_format) for t in (out, grad_x)) and grad_channel.is_contiguous()
    stored = grad_spatial.permute(0, 3, 4, 1, 2) if layout in PIXEL_MAJOR else grad_spatial
    assert stored.is_contiguous()


@needs_gxx
@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ((3, 1, 1, 1, "mul", (1, 2, 7, 9)), torch.bfloat16),
        ((3, 1, 1, 1, "mul", (1, 33, 7, 9)), torch.bfloat16),
        ((3, 1, 1, 1, "mul", (1, 72, 7, 9)), torch.bfloat16),
        ((3, 1, 1, 1, "mul", (1, 12, 7, 9)), torch.float32),
        ((3, 1, 1, 1, "add", (2, 40, 4, 5)), torch.float32),
        ((3, 1, 1, 2, "mul", (1, 12, 4, 5)), torch.float32),
        ((3, 2, 2, 1, "mul", (1, 8, 6, 5)), torch.float64),
        ((5, 1, 1, 1, "mul", (1, 20, 6, 7)), torch.float32),
        ((9, 1, 1, 1, "mul", (1, 4, 6, 7)), torch.float32),
    ],
    ids=lambda value: name_of(value) if isinstance(value, tuple) else str(value),
)
def test_channels_last_with_any_number_of_channels(cpu, case, dtype):
    plain = random_inputs(case, dtype)
    *inputs, grad_out = in_layout("both", *plain)
    expected = by_autograd([t.double() for t in plain[:3]], plain[3].double(), case[1:5])
    tolerance = {torch.bfloat16: 5e-3, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for name, kernel, exact in zip(NAMES, by_kernels(cpu, inputs, grad_out, case[1:5]), expected, strict=True):
        assert (kernel.double() - exact).abs().max() < tolerance * exact.abs().max(), name


def test_only_the_filter_gradients_copy_channels_last_images():
    x, channel_filter, spatial_filter, grad_out = in_layout("both", *random_inputs(LAYOUT_CASES[1], torch.float32))
    grad_out = grad_out.to(memory_format=torch.channels_last)
    tensors = x, channel_filter, spatial_filter
    forward = cuda.plan_forward(*tensors, *LAYOUT_CASES[1][1:5])
    gather, filters, *_ = cuda.plan_backward(grad_out, *tensors, *LAYOUT_CASES[1][1:5]).launches
    assert [t.data_ptr() for t in forward.launches[0].arguments[:3]] == [t.data_ptr() for t in tensors]
    assert [t.data_ptr() for t in gather.arguments[:3]] == [t.data_ptr() for t in (grad_out, *tensors[1:])]
    assert all(t.is_contiguous() for t in filters.arguments[:2])
    assert [t.data_ptr() for t in filters.arguments[2:4]] == [t.data_ptr() for t in tensors[1:]]


@pytest.mark.parametrize(("channels", "vector", "lanes"), [(16, 4, 4), (6, 2, 4), (33, 1, 32), (256, 4, 8)])
def test_channels_last_threads_share_pixels(channels, vector, lanes):
    case = (3, 1, 1, 1, "mul", (1, channels, 4, 5))
    constants = constants_of(case, torch.float32, "channels_last")
    assert (constants["VECTOR"], constants["LANES"]) == (vector, lanes)
    assert constants_of(case, torch.float32, "misaligned_last")["VECTOR"] == 1


def constants_of(case, dtype, layout="contiguous"):
    *inputs, _ = in_layout(layout, *random_inputs(case, dtype))
    return dict(cuda.plan_forward(*inputs, *case[1:5]).launches[0].kernel.constants)


@pytest.mark.parametrize(("dtype", "pixels"), [(torch.float64, 2), (torch.float32, 4), (torch.float16, 8)], ids=str)
def test_a_thread_reads_16_bytes_where_it_can(dtype, pixels):
    case = (3, 1, 1, 1, "mul", (1, 3, 4, 16))
    assert constants_of(case, dtype)["PIXELS"] == pixels
    assert constants_of(case, dtype, "misaligned")["PIXELS"] == 1
    assert constants_of((*case[:5], (1, 3, 4, 15)), dtype)["PIXELS"] == 1
    assert constants_of((3, 2, 1, 1, "mul", case[5]), dtype)["PIXELS"] == 1
    assert constants_of((3, 1, 2, 1, "mul", case[5]), dtype)["PIXELS"] == 1


@needs_gxx
@pytest.mark.parametrize("layout", ["contiguous", "both"])
def test_many_slices_of_channels_and_tiles_of_pixels_add_up(cpu, layout):
    case = (3, 1, 1, 2, "mul", (1, 40, 9, 14))
    plain = random_inputs(case, torch.float64)
    *inputs, grad_out = in_layout(layout, *plain)
    plan = cuda.plan_backward(grad_out, *inputs, *case[1:5])
    filters, of_channels, of_spatial = plan.launches[1:]
    assert filters.arguments[7] == of_spatial.arguments[2] > 1 and of_channels.arguments[2] > 1
    expected = by_autograd(plain[:3], plain[3], case[1:5])
    torch.testing.assert_close(cpu.run(plan), tuple(expected[1:]), rtol=1e-12, atol=1e-12)


@needs_gxx
def test_without_slices(cpu, monkeypatch):
    monkeypatch.setattr(cuda, "MANY_BLOCKS", 1)
    case = (3, 1, 1, 1, "mul", (1, 40, 5, 4))
    *inputs, grad_out = random_inputs(case, torch.float64)
    plan = cuda.plan_backward(grad_out, *inputs, *case[1:5])
    assert len(plan.launches) == 3
    expected = by_autograd(inputs, grad_out, case[1:5])
    torch.testing.assert_close(cpu.run(plan), tuple(expected[1:]), rtol=1e-12, atol=1e-12)


def test_a_plane_of_more_than_two_billion_pixels_is_planned():
    x = torch.empty(1, 1, 2**16, 2**16, device="meta")
    channel_filter = torch.empty(1, 1, 1, 3, 3, device="meta")
    spatial_filter = torch.empty(1, 1, 9, 2**16, 2**16, device="meta")
    (launch,) = cuda.plan_forward(x, channel_filter, spatial_filter, 1, 1, 1, "mul").launches
    assert launch.blocks * launch.threads * dict(launch.kernel.constants)["PIXELS"] >= x.numel()


@needs_gxx
def test_dilation_far_beyond_the_image(cpu):
    case = (3, 2**31 - 1, 1, 1, "mul", (1, 2, 3, 4))
    *inputs, grad_out = random_inputs(case, torch.float64)
    expected = by_autograd(inputs, grad_out, (100, *case[2:5]))
    torch.testing.assert_close(by_kernels(cpu, inputs, grad_out, case[1:5]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 3, 0, 4), (2, 3, 5, 0), (2, 0, 5, 4)], ids=str)
@pytest.mark.parametrize("scale", [1, 2])
def test_empty_inputs_launch_nothing(shape, scale):
    *inputs, grad_out = random_inputs((3, 1, 1, scale, "mul", shape), torch.float32)
    forward = cuda.plan_forward(*inputs, 1, 1, scale, "mul")
    backward = cuda.plan_backward(grad_out, *inputs, 1, 1, scale, "mul")
    assert forward.launches == () and backward.launches == ()
    assert forward.outputs[0].shape == grad_out.shape
    for gradient, tensor in zip(backward.outputs, inputs, strict=True):
        assert gradient.shape == tensor.shape and not gradient.any()


def test_arguments_get_the_width_that_kernels_read():
    tensor = torch.zeros(3)
    packed = cuda.pack_arguments((tensor, 7, np.int64(2**40)))
    assert [type(value) for value in packed] == [np.uint64, np.int32, np.int64]
    assert [value.item() for value in packed] == [tensor.data_ptr(), 7, 2**40]


@pytest.mark.parametrize("argument", [True, None, "3", 1j, 0.5, np.float64(1), np.int16(1), np.zeros(2), [1]], ids=repr)
def test_arguments_of_no_agreed_width_are_refused(argument):
    with pytest.raises(TypeError, match="kernel argument"):
        cuda.pack_arguments((argument,))


def test_an_int_beyond_32_bits_is_refused():
    with pytest.raises(OverflowError, match=r"np\.int64"):
        cuda.pack_arguments((2**31,))


SUM = cuda.Kernel("sum_slices", torch.float64, (("THREADS", cuda.THREADS),))


@needs_gxx
def test_a_wrong_width_is_noticed(cpu):
    arguments = torch.zeros(1), torch.zeros(1), 1, 1
    launch = cuda.Launch(SUM, 1, cuda.THREADS, arguments)
    with pytest.raises(RuntimeError, match="do not fit"):
        cpu.run(cuda.Plan((), (launch,)))


def test_sizes_and_types_that_cuda_cannot_take_are_refused():
    one = torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(TypeError, match="float8"):
        cuda.plan_forward(one[0].to(torch.float8_e5m2), one, one, 1, 1, 1, "mul")
    enormous = torch.zeros(()).expand(1, 1, 1, 2**31 - 1)
    with pytest.raises(ValueError, match="32 bits"):
        cuda.plan_forward(enormous, one, enormous[None], 1, 1, 1, "mul")
    many_taps = torch.zeros(1, 1, 1, 113, 113)
    with pytest.raises(ValueError, match="12772 taps"):
        cuda.plan_forward(one[0], many_taps, torch.zeros(1, 1, 113**2, 1, 1), 1, 1, 1, "mul")
    with pytest.raises(ValueError, match="smaller batch"):
        cuda.Launch(SUM, 2**31, cuda.THREADS, ())


def test_why_not_names_the_missing_piece(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch.cuda.is_available() is False" in cuda.why_not()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "ROCm" in cuda.why_not()
    monkeypatch.setattr(torch.version, "cuda", "11.8")
    assert cuda.why_not().endswith("needs a PyTorch built for CUDA 12 or 13, and this one is for 11.8")
    monkeypatch.setitem(sys.modules, "cupy", None)
    for version, extra in (("12.8", "cuda12"), ("13.0", "cuda13")):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert f"pip install depthup[{extra}]" in cuda.why_not()


class CupyOnCpu:
    """As much of CuPy as the launcher uses, for CPU tensors; notes the device and stream of every launch."""

    def __init__(self, cpu, kernels):
        self.cpu, self.kernels = cpu, {cuda.compile_options(kernel): kernel for kernel in kernels}
        self.current, self.launches = {}, []
        self.cuda = SimpleNamespace(
            Device=lambda index: self._during("device", index),
            Stream=SimpleNamespace(from_external=lambda stream: self._during("stream", stream.__cuda_stream__())),
        )

    @contextmanager
    def _during(self, key, value):
        self.current[key] = value
        yield
        del self.current[key]

    def RawModule(self, code, options):  # noqa: N802, CuPy's own name
        assert code == cuda.SOURCE.read_text()
        compiled = self.kernels.pop(options)  # a second compilation of the same kernel is a KeyError

        def get_function(name):
            assert name == compiled.name

            def kernel(grid, block, arguments):
                self.launches.append((compiled.kind, dict(self.current)))
                self.cpu.launch(compiled, *grid, *block, arguments)

            return kernel

        return SimpleNamespace(get_function=get_function)


@needs_gxx
def test_every_launch_names_torchs_device_and_stream(cpu, monkeypatch, request):
    cuda._compiled.cache_clear()
    request.addfinalizer(cuda._compiled.cache_clear)
    case = CASES[6]
    *inputs, grad_out = random_inputs(case, torch.float64)
    plans = cuda.plan_forward(*inputs, *case[1:5]), cuda.plan_backward(grad_out, *inputs, *case[1:5])
    kernels = [launch.kernel for plan in plans for launch in plan.launches]
    cpu.compile(kernels)
    cupy = CupyOnCpu(cpu, kernels)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234))
    for _ in range(2):
        actual = cuda.forward(*inputs, *case[1:5]), *cuda.backward(grad_out, *inputs, *case[1:5])
        torch.testing.assert_close(actual, by_autograd(inputs, grad_out, case[1:5]), rtol=1e-12, atol=1e-12)
    kinds = "forward", "grad_x", "grad_filters", "sum_slices"
    where = {"device": None, "stream": (0, 1234)}  # a CPU tensor's device has no index
    assert cupy.launches == [(kind, where) for kind in kinds] * 2


# By kernel size: dtype, scale, combine, width, layout
COMPILED = {
    3: [
        (torch.float32, 1, "mul", 32, "contiguous"),
        (torch.float32, 2, "mul", 32, "contiguous"),
        (torch.float32, 1, "add", 31, "contiguous"),
        (torch.float32, 2, "mul", 32, "both"),
        (torch.float64, 1, "mul", 32, "contiguous"),
        (torch.bfloat16, 1, "mul", 32, "contiguous"),
    ],
    5: [
        (torch.float32, 1, "mul", 32, "contiguous"),
        (torch.float16, 2, "mul", 32, "contiguous"),
        (torch.bfloat16, 2, "mul", 31, "contiguous"),
        (torch.bfloat16, 2, "mul", 32, "both"),
    ],
}


def kernels_of(kernel_size, compiled):
    """What the launcher compiles for 32 channels in large images."""
    kernels = set()
    for dtype, scale, combine, width, layout in compiled:
        case = (kernel_size, 1, 1, scale, combine, (1, 32, 32, width))
        *inputs, grad_out = in_layout(layout, *random_inputs(case, dtype))
        launches = cuda.plan_forward(*inputs, *case[1:5]).launches
        launches += cuda.plan_backward(grad_out, *inputs, *case[1:5]).launches
        kernels |= {launch.kernel for launch in launches}
    return kernels


@needs_nvcc
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_nvcc_spills_nothing(tmp_path, kernel_size):
    check_registers(kernels_of(kernel_size, COMPILED[kernel_size]), tmp_path)


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_nvcc_spills_nothing_in_any_configuration(tmp_path, kernel_size, dtype):
    layouts = "contiguous", "misaligned", *{*LAST, *PIXEL_MAJOR}
    everything = itertools.product([dtype], (1, 2), ("mul", "add"), (32, 31), layouts)
    check_registers(kernels_of(kernel_size, everything), tmp_path)


def check_registers(kernels, tmp_path):
    """Compile for every architecture: no byte is spilled, and no thread has more registers than promised."""
    source = tmp_path / "ddf.cu"
    headers = "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n"
    source.write_text(headers + runner.source_of(kernels), encoding="utf-8")
    command = ["nvcc", "-fatbin", "-O3", "-std=c++17", "-Xptxas", "-v", "-o", str(tmp_path / "ddf.fatbin"), str(source)]
    for architecture in ARCHITECTURES:
        command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

    report = re.compile(
        r"entry function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) reg",
        re.DOTALL,
    )
    found = report.findall(finished.stderr)
    assert {(name, sm) for name, sm, *_ in found} == {(k.name, str(sm)) for k in kernels for sm in ARCHITECTURES}
    for name, sm, stores, loads, registers in found:
        assert stores == loads == "0", f"{name} spills on sm_{sm}"
        most = 168 if name.startswith("ddf_grad_filters_float64") else MOST_REGISTERS
        assert int(registers) <= most, f"{name} uses {registers} registers on sm_{sm}"
