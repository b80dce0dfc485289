"""The CUDA backend on a GPU against the reference backend, through the public functions."""

from __future__ import annotations

import threading

import pytest
import torch

from depthup.kernels import choose_backend, cuda, ddf, ddf_up, use_backend

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(cuda.why_not() is not None, reason=str(cuda.why_not()))]

DEVICE = "cuda"
EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}

# k, dilation, stride, scale, combine, [B, C, H, W]; stride is for ddf alone, scale for ddf_up alone
CASES = [
    (3, 1, 1, 1, "mul", (2, 37, 61, 83)),
    (3, 2, 1, 1, "add", (1, 5, 33, 47)),
    (3, 2, 2, 1, "mul", (2, 8, 45, 62)),
    (5, 1, 2, 1, "add", (1, 9, 31, 30)),
    (5, 1, 1, 1, "mul", (1, 16, 40, 53)),
    (1, 1, 1, 1, "mul", (1, 3, 20, 21)),
    (7, 1, 1, 1, "mul", (1, 4, 29, 31)),
    (9, 1, 1, 1, "mul", (1, 2, 25, 27)),
    (3, 1, 1, 2, "mul", (2, 33, 30, 41)),
    (3, 1, 1, 2, "add", (1, 6, 17, 130)),
    (5, 2, 1, 2, "mul", (1, 7, 23, 19)),
    (3, 1, 1, 3, "mul", (1, 5, 16, 11)),
    (3, 1, 1, 4, "mul", (1, 4, 9, 13)),
    (3, 1, 1, 2, "mul", (1, 1, 1, 1)),
    (3, 1, 1, 2, "mul", (1, 3, 1, 300)),
    (3, 1, 1, 1, "mul", (1, 3, 300, 1)),
    (3, 1, 1, 1, "mul", (1, 2, 700, 900)),
    (3, 1, 1, 1, "mul", (2, 70, 32, 56)),
    (3, 1, 1, 2, "mul", (1, 64, 24, 48)),
    (5, 1, 1, 2, "add", (1, 20, 16, 32)),
]
LAYOUT_CASES = [(3, 1, 1, 1, "mul", (2, 37, 28, 56)), (5, 1, 2, 1, "add", (1, 70, 31, 30)), CASES[8], CASES[-2]]
NAMES = ("out", "grad_x", "grad_channel_filter", "grad_spatial_filter")


def name_of(case) -> str:
    k, dilation, stride, scale, combine, shape = case
    return f"k{k}-d{dilation}-s{stride}-x{scale}-{combine}-{'x'.join(map(str, shape))}"


def random_inputs(case, dtype):
    """x, the two filters and a gradient of the output, in the shapes of the public functions."""
    k, _, stride, scale, _, (B, C, H, W) = case
    branches = (scale * scale,) if scale > 1 else ()
    Ho, Wo = (H - 1) // stride + 1, (W - 1) // stride + 1
    shapes = (B, C, H, W), (B, *branches, C, k, k), (B, *branches, k * k, Ho, Wo), (B, C, scale * Ho, scale * Wo)
    generator = torch.Generator().manual_seed(k + C + W)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for shape in shapes]


def apply(case, x, channel_filter, spatial_filter):
    k, dilation, stride, scale, combine, _ = case
    if scale > 1:
        return ddf_up(x, channel_filter, spatial_filter, scale, k, dilation, combine)
    return ddf(x, channel_filter, spatial_filter, k, dilation, stride, combine)


def with_gradients(case, inputs, backend):
    """The output and its three gradients."""
    *tensors, grad_out = inputs
    leaves = [t.detach().requires_grad_() for t in tensors]
    with use_backend(backend):
        out = apply(case, *leaves)
        return out.detach(), *torch.autograd.grad(out, leaves, grad_out)


def exact(case, inputs):
    return with_gradients(case, [t.double() for t in inputs], "reference")


def assert_near(actual, expected, tolerance):
    for name, kernel, true in zip(NAMES, actual, expected, strict=True):
        error = (kernel.double() - true).abs().max() / true.abs().max()
        assert error < tolerance, f"{name}: {error:.1e}"


def test_a_gpu_takes_the_cuda_backend():
    assert choose_backend(torch.device(DEVICE)) == "cuda"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_agrees_with_the_reference(case, dtype):
    inputs = random_inputs(case, dtype)
    actual = with_gradients(case, inputs, "cuda")
    assert all(t.dtype == dtype for t in actual)
    assert_near(actual, exact(case, inputs), EXACT[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_half_precision_is_no_worse_than_torch(case, dtype):
    inputs = random_inputs(case, dtype)
    actual, by_torch = with_gradients(case, inputs, "cuda"), with_gradients(case, inputs, "reference")
    for name, kernel, torchs, true in zip(NAMES, actual, by_torch, exact(case, inputs), strict=True):
        assert kernel.dtype == dtype
        # One rounding of the result is allowed where torch happens to be exact, as with a single tap.
        rounding = torch.finfo(dtype).eps / 2 * true.abs().max()
        assert (kernel - true).abs().max() < 2 * (torchs - true).abs().max() + rounding + 1e-6, name


def pixel_major(spatial_filter):
    """What a channels-last 1x1 convolution gives, once its channels are split into branches and taps."""
    return spatial_filter.movedim((-2, -1), (1, 2)).contiguous().movedim((1, 2), (-2, -1))


def in_layout(layout, x, channel_filter, spatial_filter, grad_out):
    """The same values, stored otherwise."""
    tensors = x, channel_filter, spatial_filter, grad_out
    if layout == "channels_last":
        return [x.to(memory_format=torch.channels_last), channel_filter, spatial_filter, grad_out]
    if layout == "all_last":
        x, grad_out = (t.to(memory_format=torch.channels_last) for t in (x, grad_out))
        return [x, channel_filter, pixel_major(spatial_filter), grad_out]
    if layout == "misaligned":
        return [torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape) for t in tensors]
    return [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in tensors]


@pytest.mark.parametrize("layout", ["channels_last", "all_last", "misaligned", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", LAYOUT_CASES, ids=name_of)
def test_layouts(case, dtype, layout):
    plain = random_inputs(case, dtype)
    actual = with_gradients(case, in_layout(layout, *plain), "cuda")
    assert_near(actual, exact(case, plain), EXACT.get(dtype, 1e-2))
    channels_last = layout in ("channels_last", "all_last")
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert actual[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("layout", ["transposed", "all_last"])
@pytest.mark.parametrize("case", [CASES[0], CASES[8], CASES[-1]], ids=name_of)
def test_results_repeat_bit_by_bit(case, layout):
    inputs = in_layout(layout, *random_inputs(case, torch.float32))
    first, second = (with_gradients(case, inputs, "cuda") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("scale", [1, 2])
def test_empty_batch(scale):
    *inputs, grad_out = random_inputs((3, 1, 1, scale, "mul", (0, 3, 4, 5)), torch.float32)
    out, *gradients = with_gradients((3, 1, 1, scale, "mul", None), [*inputs, grad_out], "cuda")
    assert out.shape == grad_out.shape
    assert [g.shape for g in gradients] == [t.shape for t in inputs]


@pytest.mark.parametrize("case", [(3, 2, 1, 1, "mul", (1, 2, 4, 3)), (3, 1, 1, 2, "add", (1, 2, 3, 4))], ids=name_of)
def test_gradcheck(case):
    leaves = [t.requires_grad_() for t in random_inputs(case, torch.float64)[:3]]
    with use_backend("cuda"):
        assert torch.autograd.gradcheck(lambda *tensors: apply(case, *tensors), leaves)


def test_second_stream_waits_for_its_own_work():
    case = CASES[0]
    inputs = random_inputs(case, torch.float32)
    expected = exact(case, inputs)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = [torch.empty_like(t).fill_(float("nan")) for t in inputs]
        torch.cuda._sleep(50_000_000)  # a kernel on any other stream would run now, and read NaN
        for target, source in zip(late, inputs, strict=True):
            target.copy_(source)
        actual = with_gradients(case, late, "cuda")
    stream.synchronize()
    assert_near(actual, expected, EXACT[torch.float32])


def test_forward_and_backward_on_other_threads():
    case = CASES[8]
    inputs = random_inputs(case, torch.float32)
    results = [None] * 4

    def work(index):
        results[index] = with_gradients(case, inputs, "cuda")

    with use_backend("cuda"):
        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    torch.cuda.synchronize()
    for result in results:
        assert_near(result, exact(case, inputs), EXACT[torch.float32])


@pytest.mark.parametrize("layout", ["transposed", "all_last"])
@pytest.mark.parametrize("case", [CASES[2], CASES[8]], ids=name_of)
def test_torch_compile(case, layout):
    inputs = in_layout(layout, *random_inputs(case, torch.float32))
    *leaves, grad_out = [t.detach().requires_grad_() for t in inputs]
    compiled = torch.compile(lambda *tensors: apply(case, *tensors), backend="aot_eager", fullgraph=True)
    out = compiled(*leaves)
    actual = out.detach(), *torch.autograd.grad(out, leaves, grad_out.detach())
    assert_near(actual, exact(case, inputs), EXACT[torch.float32])


def test_autocast_takes_the_widest_type():
    case = CASES[8]
    x, channel_filter, spatial_filter, _ = random_inputs(case, torch.bfloat16)
    leaves = [x.requires_grad_(), channel_filter.float().requires_grad_(), spatial_filter.requires_grad_()]
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = apply(case, *leaves)
    assert out.dtype == torch.float32
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.float32, torch.bfloat16]
    with use_backend("reference"):
        expected = apply(case, *(t.detach().float() for t in leaves))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_of_another_device_than_the_current_one():
    case = CASES[0]
    inputs = random_inputs(case, torch.float32)
    actual = with_gradients(case, [t.to("cuda:1") for t in inputs], "cuda")
    assert all(t.device == torch.device("cuda:1") for t in actual)
    assert_near([t.to(inputs[0].device) for t in actual], exact(case, inputs), EXACT[torch.float32])


def test_filters_of_more_than_two_billion_elements():
    size, scale, edge = 4096, 4, 40
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free GPU memory")
    x = torch.randn(1, 1, size, size, device=DEVICE, dtype=torch.float16)
    channel_filter = torch.randn(1, scale**2, 1, 3, 3, device=DEVICE, dtype=torch.float16)
    spatial_filter = torch.randn(1, scale**2, 9, size, size, device=DEVICE, dtype=torch.float16)
    assert spatial_filter.numel() > 2**31
    out = ddf_up(x, channel_filter, spatial_filter, scale)[..., -scale * (edge - 1) :, -scale * (edge - 1) :]
    with use_backend("reference"):
        corner = ddf_up(
            x[..., -edge:, -edge:].float(), channel_filter.float(), spatial_filter[..., -edge:, -edge:].float(), scale
        )[..., scale:, scale:]
    torch.testing.assert_close(out.float(), corner, rtol=2e-3, atol=2e-3)
