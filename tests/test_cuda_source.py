"""`ddf.cu` without a GPU: its arithmetic on the CPU through g++, its launches, and what nvcc says of it."""

from __future__ import annotations

import importlib.util
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
MOST_REGISTERS = 128  # 4 blocks of 128 threads on a multiprocessor of 65536 registers

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
FEWER_CASES = [CASES[i] for i in (0, 3, 4, 6, 10, 20, 21)]


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


def by_autograd(inputs, grad_out, options):
    """Output and three gradients of `unfolded`, in the dtype of the inputs."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = unfolded(*leaves, *options)
    return out.detach(), *torch.autograd.grad(out, leaves, grad_out)


@pytest.fixture(scope="session")
def cpu(tmp_path_factory):
    return runner.CpuRunner(tmp_path_factory.mktemp("cuda_on_cpu"))


def by_kernels(cpu, inputs, grad_out, options):
    forward = cpu.run(cuda.plan_forward(*inputs, *options))
    return *forward, *cpu.run(cuda.plan_backward(grad_out, *inputs, *options))


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
def test_many_slices_of_pixels_add_up(cpu, monkeypatch):
    monkeypatch.setattr(cuda, "SLICE_PIXELS", 30)
    case = (3, 1, 1, 2, "mul", (1, 5, 14, 15))
    *inputs, grad_out = random_inputs(case, torch.float64)
    plan = cuda.plan_backward(grad_out, *inputs, *case[1:5])
    assert plan.launches[2].arguments[4] == 7
    expected = by_autograd(inputs, grad_out, case[1:5])
    torch.testing.assert_close(cpu.run(plan), tuple(expected[1:]), rtol=1e-12, atol=1e-12)


@needs_gxx
def test_non_contiguous_inputs(cpu):
    case = CASES[6]
    *inputs, grad_out = (t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in random_inputs(case, torch.float64))
    assert not any(t.is_contiguous() for t in (*inputs, grad_out))
    expected = by_autograd(inputs, grad_out, case[1:5])
    torch.testing.assert_close(by_kernels(cpu, inputs, grad_out, case[1:5]), expected, rtol=1e-12, atol=1e-12)


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
    packed = cuda.pack_arguments((tensor, 7, 0.5, np.int32(1), np.int64(2**40), np.float32(2.0)))
    assert [type(value) for value in packed] == [np.uint64, np.int32, np.float32, np.int32, np.int64, np.float32]
    assert [value.item() for value in packed] == [tensor.data_ptr(), 7, 0.5, 1, 2**40, 2.0]


@pytest.mark.parametrize("argument", [True, None, "3", 1j, np.float64(1), np.int16(1), np.zeros(2), [1]], ids=repr)
def test_arguments_of_no_agreed_width_are_refused(argument):
    with pytest.raises(TypeError, match="kernel argument"):
        cuda.pack_arguments((argument,))


def test_an_int_beyond_32_bits_is_refused():
    with pytest.raises(OverflowError, match=r"np\.int64"):
        cuda.pack_arguments((2**31,))


@needs_gxx
def test_a_wrong_width_is_noticed(cpu):
    plan = cuda.Plan(
        (), (cuda.Launch("ddf_sum_slices_float64", 1, (torch.zeros(1), torch.zeros(1), 1, 1)),), torch.float64, 3
    )
    with pytest.raises(TypeError, match="do not fit"):
        cpu.run(plan)


def test_sizes_and_types_that_cuda_cannot_take_are_refused():
    one = torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(TypeError, match="float8"):
        cuda.plan_forward(one[0].to(torch.float8_e5m2), one, one, 1, 1, 1, "mul")
    enormous = torch.zeros(()).expand(1, 1, 2**16, 2**15)
    with pytest.raises(ValueError, match="32 bits"):
        cuda.plan_forward(enormous, one, enormous[None], 1, 1, 1, "mul")
    with pytest.raises(ValueError, match="smaller batch"):
        cuda.Launch("ddf_forward_mul_float32", 2**31, ())


def test_why_not_names_the_missing_piece(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch.cuda.is_available() is False" in cuda.why_not()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "ROCm" in cuda.why_not()
    monkeypatch.setitem(sys.modules, "cupy", None)
    for version, extra in (("12.8", "cuda12"), ("13.0", "cuda13")):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert f"pip install depthup[{extra}]" in cuda.why_not()


class CupyOnCpu:
    """As much of CuPy as the launcher uses, for CPU tensors; notes the device and stream of every launch."""

    def __init__(self, cpu, dtype, kernel_size):
        self.cpu, self.dtype, self.kernel_size = cpu, dtype, kernel_size
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
        assert options == ("-std=c++17", *cuda.compile_options(self.dtype, self.kernel_size))
        return self

    def get_function(self, name):
        def kernel(grid, block, arguments):
            self.launches.append((name, dict(self.current)))
            self.cpu.launch(self.dtype, self.kernel_size, name, *grid, *block, arguments)

        return kernel


@needs_gxx
def test_every_launch_names_torchs_device_and_stream(cpu, monkeypatch, request):
    for cache in (cuda._kernel, cuda._module):
        cache.cache_clear()
        request.addfinalizer(cache.cache_clear)
    case = CASES[6]
    *inputs, grad_out = random_inputs(case, torch.float64)
    cupy = CupyOnCpu(cpu, torch.float64, case[0])
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234))
    actual = cuda.forward(*inputs, *case[1:5]), *cuda.backward(grad_out, *inputs, *case[1:5])
    torch.testing.assert_close(actual, by_autograd(inputs, grad_out, case[1:5]), rtol=1e-12, atol=1e-12)
    kernels = ("forward_mul", "grad_x_mul", "grad_spatial_mul", "grad_channel_mul", "sum_slices")
    where = {"device": None, "stream": (0, 1234)}  # a CPU tensor's device has no index
    assert cupy.launches == [(f"ddf_{kernel}_float64", where) for kernel in kernels]


@needs_nvcc
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_nvcc_spills_nothing(tmp_path, kernel_size):
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    command = ["nvcc", "-fatbin", "-O3", "-std=c++17", "-Xptxas", "-v", "-o", str(tmp_path / "ddf.fatbin")]
    for architecture in ARCHITECTURES:
        command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    for dtype in dtypes:
        command += cuda.compile_options(dtype, kernel_size)[:1]
    command += [*cuda.compile_options(dtypes[0], kernel_size)[1:], str(cuda.SOURCE)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

    report = re.compile(
        r"entry function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) reg",
        re.DOTALL,
    )
    found = report.findall(finished.stderr)
    expected = {(name, str(sm)) for dtype in dtypes for name in runner.kernel_names(dtype) for sm in ARCHITECTURES}
    assert {(name, sm) for name, sm, *_ in found} == expected
    for name, sm, stores, loads, registers in found:
        assert stores == loads == "0", f"{name} spills on sm_{sm}"
        assert int(registers) <= MOST_REGISTERS, f"{name} uses {registers} registers on sm_{sm}"
