"""The layers: filter normalisation, DDF in place of a convolution, DDF-Up that starts as bilinear up-sampling."""

from __future__ import annotations

import copy
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call

from depthup.kernels import use_backend
from depthup.layers import DDF, ChannelFilter, DDFUp, FilterNorm, bilinear_taps


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(0)


def randomise(layer: nn.Module) -> nn.Module:
    """Parameters that no longer sit at a starting value that hides them."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def without_prediction(layer: nn.Module) -> nn.Module:
    """Only the shifts of the filter normalisation are left."""
    for norm in (layer.spatial_norm, layer.channel.norm):
        nn.init.zeros_(norm.alpha)
    return layer


@pytest.mark.parametrize(
    ("filters", "shift", "taps"),
    [((2, 9, 5, 6), (9, 1, 1), 0), ((2, 4, 9, 3, 3), (4, 9, 1, 1), 1), ((2, 4, 3, 25), (4, 3, 25), 2)],
    ids=["ddf", "ddf_up", "channel"],
)
def test_filters_get_a_mean_and_a_standard_deviation(filters, shift, taps):
    norm = FilterNorm(torch.full(shift, 0.3), taps, scale=0.7)
    out = norm(5 + 4 * torch.randn(filters))
    assert out.shape == filters
    mean, deviation = out.mean(taps + 1), out.std(taps + 1, correction=0)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deviation, torch.full_like(mean, 0.7), rtol=1e-4, atol=1e-5)


def test_normalised_filters_are_scaled_and_shifted_tap_by_tap():
    filters = torch.randn(2, 4, 9, 3, 3)
    plain, norm = FilterNorm(torch.zeros(4, 9, 1, 1), 1, scale=1.0), FilterNorm(torch.randn(4, 9, 1, 1), 1)
    nn.init.normal_(norm.alpha)
    torch.testing.assert_close(norm(filters), plain(filters) * norm.alpha + norm.beta)
    torch.testing.assert_close(plain(3 * filters - 7), plain(filters), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -2.5, 1000.0])
def test_a_constant_filter_becomes_beta(value):
    norm = FilterNorm(torch.randn(9, 1, 1), 0, scale=2.0)
    filters = torch.full((1, 9, 2, 2), value, requires_grad=True)
    out = norm(filters)
    torch.testing.assert_close(out, norm.beta.expand(1, 9, 2, 2), rtol=0, atol=1e-5)
    out.square().sum().backward()
    for gradient in (filters.grad, norm.alpha.grad, norm.beta.grad):
        assert gradient.isfinite().all()
    assert norm.beta.grad.any()


def test_a_filter_of_one_tap_is_beta():
    norm = FilterNorm(torch.randn(4, 1, 1, 1), 1)
    assert torch.equal(norm(torch.randn(2, 4, 1, 3, 3)), norm.beta.expand(2, 4, 1, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_filters_are_normalised_in_float32(dtype):
    norm = FilterNorm(torch.randn(9, 1, 1), 0)
    filters = (300 * torch.randn(2, 9, 3, 3)).to(dtype)  # their squares are beyond float16
    out = norm(filters)
    assert out.dtype == torch.float32
    assert torch.equal(out, norm(filters.float()))


@pytest.mark.parametrize(("scale", "kernel_size"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 3), (4, 3), (4, 5)])
def test_bilinear_taps_sum_to_one(scale, kernel_size):
    taps = bilinear_taps(scale, kernel_size)
    assert taps.shape == (scale**2, kernel_size**2)
    torch.testing.assert_close(taps.sum(1), torch.ones(scale**2))


def test_channel_filters_of_a_channel_come_from_all_channels():
    layer = ChannelFilter(6, 4, 3, squeeze_ratio=np.float32(0.5))
    x = torch.randn(2, 6, 5, 7)
    out = layer(x)
    assert out.shape == (2, 4, 6, 3, 3)
    hidden = F.relu(layer.squeeze(x.flatten(2).mean(2)))
    expected = layer.norm(layer.excite(hidden).view(2, 4, 6, 9)).view(2, 4, 6, 3, 3)
    torch.testing.assert_close(out, expected)
    # only the means of the channels are seen
    torch.testing.assert_close(layer(x.flip(2, 3)), out)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_ddf_has_the_shape_of_a_convolution(stride, dilation, kernel_size):
    convolution = nn.Conv2d(6, 6, kernel_size, stride, dilation * (kernel_size // 2), dilation)
    layer = DDF(6, kernel_size, stride, dilation)
    for size in ((9, 7), (8, 12), (1, 1)):
        x = torch.randn(2, 6, *size)
        assert layer(x).shape == convolution(x).shape


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_ddf_starts_around_a_mean(stride, dilation, combine):
    layer = without_prediction(DDF(3, 3, stride, dilation, combine=combine))
    x = torch.randn(2, 3, 9, 8)
    box = torch.full((3, 1, 3, 3), 1 / 9)
    expected = F.conv2d(x, box, stride=stride, padding=dilation, dilation=dilation, groups=3)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_strided_ddf_is_every_other_pixel_of_ddf():
    dense = randomise(DDF(5, 3))
    strided = DDF(5, 3, stride=2)
    strided.load_state_dict(dense.state_dict())
    x = torch.randn(2, 5, 9, 8)
    torch.testing.assert_close(strided(x), dense(x)[..., ::2, ::2])


@pytest.mark.parametrize(("channels", "kernel_size", "sigma"), [(250, 3, 0.2), (50, 5, 0.4), (10, 3, 0.2)])
def test_ddf_has_the_papers_number_of_parameters(channels, kernel_size, sigma):
    """Table 1 of the paper: `c k^2 + sigma c^2 (1 + k^2)`, without biases and without the normalisation."""
    c, taps = channels, kernel_size**2
    count = sum(p.numel() for p in DDF(channels, kernel_size, squeeze_ratio=sigma).parameters())
    hidden = max(4, round(sigma * c))
    weights = c * taps + c * hidden * (1 + taps)
    biases = taps + hidden + c * taps
    normalisation = 2 * taps + 2 * c * taps
    assert count == weights + biases + normalisation
    if hidden > 4:  # the hidden layer has 4 units at least, and the paper's 0.2 c from 20 channels on
        assert weights == pytest.approx(c * taps + sigma * c**2 * (1 + taps))


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_ddf_up_starts_around_bilinear(scale, kernel_size, combine):
    layer = without_prediction(DDFUp(3, 2, scale, kernel_size, combine=combine))
    x = torch.randn(2, 3, 6, 5)
    out = layer(x, torch.randn(2, 2, 6 * scale, 5 * scale))
    # zeros lie around the image, and not, as in F.interpolate, its border once more
    padded = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(out, padded[..., scale:-scale, scale:-scale], rtol=1e-5, atol=1e-6)
    bilinear = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    inside = (..., slice(scale, -scale), slice(scale, -scale))
    torch.testing.assert_close(out[inside], bilinear[inside], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_untrained_ddf_up_is_near_bilinear(combine):
    x = torch.rand(2, 16, 12, 12)
    out = DDFUp(16, 8, combine=combine)(x, torch.randn(2, 8, 24, 24))
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    inside = (..., slice(2, -2), slice(2, -2))
    error = (out - bilinear)[inside].square().mean().sqrt()
    assert 0 < error < 0.6 * bilinear[inside].square().mean().sqrt()


def test_guidance_on_the_output_grid_is_unshuffled():
    fine = randomise(DDFUp(5, 3, scale=2, guidance_grid="output", dtype=torch.float64))
    coarse = DDFUp(5, 12, scale=2, guidance_grid="input", dtype=torch.float64)
    coarse.load_state_dict(fine.state_dict())
    x, guidance = torch.randn(2, 5, 4, 6).double(), torch.randn(2, 3, 8, 12).double()
    torch.testing.assert_close(fine(x, guidance), coarse(x, F.pixel_unshuffle(guidance, 2)), rtol=1e-12, atol=1e-12)


def test_guidance_acts_where_it_is():
    layer = randomise(DDFUp(5, 3, scale=3))
    x, guidance = torch.randn(1, 5, 4, 6), torch.randn(1, 3, 12, 18)
    changed = guidance.clone()
    changed[..., 7, 4] += 1
    where = (layer(x, changed) != layer(x, guidance)).any(1)[0].nonzero()
    assert where.amin(0).tolist() == [6, 3] and where.amax(0).tolist() == [8, 5]


@pytest.mark.parametrize("shape", [(1, 3, 8, 11), (1, 3, 4, 6), (1, 3, 16, 24), (1, 2, 8, 12), (2, 3, 8, 12)], ids=str)
def test_guidance_of_a_wrong_shape(shape):
    layer, x = DDFUp(5, 3), torch.randn(1, 5, 4, 6)
    message = rf"guidance: got shape {list(shape)}, expected [1, 3, 8, 12] for x [1, 5, 4, 6]"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(x, torch.randn(shape))


def test_guidance_on_the_input_grid_of_a_wrong_size():
    layer, x = DDFUp(5, 3, guidance_grid="input"), torch.randn(1, 5, 4, 6)
    with pytest.raises(ValueError, match=r"guidance: got shape \[1, 3, 8, 12\], expected \[1, 3, 4, 6\]"):
        layer(x, torch.randn(1, 3, 8, 12))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDF(0), "channels: got 0"),
        (lambda: DDF(4, kernel_size=4), "kernel_size: got 4, expected an odd number"),
        (lambda: DDF(4, stride=0), "stride: got 0"),
        (lambda: DDF(4, dilation=0), "dilation: got 0"),
        (lambda: DDF(4, combine="sum"), "combine: got 'sum'"),
        (lambda: DDF(4, squeeze_ratio=-1), "squeeze_ratio: got -1, expected a finite number above 0"),
        (lambda: DDFUp(4, 0), "guidance_channels: got 0"),
        (lambda: DDFUp(4, 3, scale=0), "scale: got 0"),
        (lambda: DDFUp(4, 3, scale=2.5), "scale: got 2.5, expected an integer of at least 1"),
        (lambda: DDFUp(4, 3, scale=2.0), "scale: got 2.0, expected an integer of at least 1"),
        (lambda: DDFUp(4, 3, kernel_size=2), "kernel_size: got 2"),
        (lambda: DDF(4, kernel_size=3.0), "kernel_size: got 3.0"),
    ],
)
def test_options_that_no_layer_can_have(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("grid", ["input", "output"])
def test_an_empty_batch(grid):
    side = 5 if grid == "input" else 10
    result = DDFUp(4, 2, guidance_grid=grid)(torch.randn(0, 4, 5, 5), torch.randn(0, 2, side, side))
    assert result.shape == (0, 4, 10, 10)
    assert DDF(4)(torch.randn(0, 4, 5, 5)).shape == (0, 4, 5, 5)


@pytest.mark.parametrize("make", [lambda **o: DDF(4, **o), lambda **o: DDFUp(4, 3, **o)], ids=["ddf", "ddf_up"])
def test_device_and_type_of_the_parameters(make):
    for parameter in make(device="meta", dtype=torch.float64).parameters():
        assert (parameter.device.type, parameter.dtype) == ("meta", torch.float64)
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    double = make(dtype=torch.float64)
    for one, other in zip(plain.parameters(), double.parameters(), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [(1, 1), "8", True, None, {}, torch.tensor(8), np.array([3, 3])], ids=repr)
def test_options_that_are_no_numbers(wrong):
    for make in (lambda: DDF(wrong), lambda: DDF(8, wrong), lambda: DDFUp(8, 4, wrong)):
        with pytest.raises(ValueError, match=r"got .*, expected an (integer|odd number)"):
            make()


def test_layers_say_what_they_are():
    assert repr(DDF(8, stride=2)).startswith("DDF(\n  8, kernel_size=3, stride=2, dilation=1, combine='mul'\n")
    assert "4, scale=2, kernel_size=3, guidance_grid='input'" in repr(DDFUp(8, 4, guidance_grid="input"))
    assert "guidance_grid='output'" in repr(DDFUp(8, 4))


def test_unknown_grid():
    with pytest.raises(ValueError, match="guidance_grid: got 'low', expected 'input' or 'output'"):
        DDFUp(5, 3, guidance_grid="low")


EXAMPLES = [
    (DDF(3, 3, stride=2, dilation=2), [(2, 3, 5, 4)]),
    (DDF(3, 3, combine="add"), [(1, 3, 3, 4)]),
    (DDFUp(2, 1, scale=2), [(2, 2, 3, 2), (2, 1, 6, 4)]),
    (DDFUp(2, 3, scale=3, guidance_grid="input", combine="add"), [(1, 2, 2, 3), (1, 3, 2, 3)]),
]
each_layer = pytest.mark.parametrize(("layer", "shapes"), EXAMPLES, ids=["ddf", "ddf-add", "ddf_up", "ddf_up-add"])


def fresh(layer: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy with parameters away from their start."""
    return randomise(copy.deepcopy(layer).to(dtype))


@each_layer
def test_gradcheck_of_inputs_and_parameters(layer, shapes):
    layer = fresh(layer, torch.double)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    inputs = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]

    def forward(*tensors: Tensor) -> Tensor:
        values = dict(zip(names, tensors[len(inputs) :], strict=True))
        return functional_call(layer, values, tensors[: len(inputs)])

    assert torch.autograd.gradcheck(forward, (*inputs, *parameters), fast_mode=True)


@each_layer
def test_state_dict_round_trip(layer, shapes):
    first, second = fresh(layer), fresh(layer)
    inputs = [torch.randn(shape) for shape in shapes]
    assert not torch.equal(first(*inputs), second(*inputs))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*inputs), second(*inputs))


@each_layer
def test_names_of_the_parameters_are_those_of_weights_on_disk(layer, shapes):
    norms = [f"{norm}.{name}" for norm in ("spatial_norm", "channel.norm") for name in ("alpha", "beta")]
    linear = ("spatial", "channel.squeeze", "channel.excite")
    assert set(layer.state_dict()) == {*norms, *(f"{name}.{part}" for name in linear for part in ("weight", "bias"))}


@each_layer
def test_compile(layer, shapes):
    torch._dynamo.reset()
    layer = fresh(layer)
    inputs = [torch.randn(shape) for shape in shapes]
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(out, layer(*inputs))
    gradients = torch.autograd.grad(out.square().sum(), list(layer.parameters()))
    expected = torch.autograd.grad(layer(*inputs).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compile_with_a_stride_for_sizes_that_vary():
    """Inductor failed at the second size."""
    layer = DDF(3, stride=2)
    compiled = torch.compile(layer)
    for shape in ((2, 3, 16, 16), (1, 3, 17, 9)):
        x, same = (torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
        compiled(x).square().sum().backward()
        layer(same).square().sum().backward()
        torch.testing.assert_close(x.grad, same.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compile_for_sizes_that_vary():
    torch._dynamo.reset()
    layer = fresh(DDFUp(4, 3))
    compiled = torch.compile(layer)
    for h, w in ((5, 4), (3, 6)):
        x, guidance = torch.randn(2, 4, h, w), torch.randn(2, 3, 2 * h, 2 * w)
        torch.testing.assert_close(compiled(x, guidance), layer(x, guidance), rtol=1e-4, atol=1e-4)


@each_layer
def test_autocast(layer, shapes):
    layer = fresh(layer)
    inputs = [torch.randn(shape) for shape in shapes]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(*inputs)
    assert out.dtype == torch.float32
    expected = layer(*inputs)
    assert (out - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@each_layer
def test_a_layer_of_half_precision_keeps_the_type_of_its_input(layer, shapes, dtype):
    layer = fresh(layer)
    inputs = [torch.randn(shape) for shape in shapes]
    out = copy.deepcopy(layer).to(dtype)(*(x.to(dtype) for x in inputs))
    assert out.dtype == dtype
    expected = layer(*inputs)
    assert (out - expected).abs().max() < 0.1 * expected.abs().max()


def test_ddf_combines_its_filters_as_told():
    product, total = randomise(DDF(5, 3)), DDF(5, 3, combine="add")
    total.load_state_dict(product.state_dict())
    x = torch.randn(2, 5, 4, 6)
    channel, spatial = total.channel(x).view(2, 5, 9, 1, 1), total.spatial_norm(total.spatial(x))[:, None]
    patches = F.unfold(x, 3, padding=1).view(2, 5, 9, 4, 6)
    torch.testing.assert_close(product(x), (channel * spatial * patches).sum(2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total(x), ((channel + spatial) * patches).sum(2), rtol=1e-4, atol=1e-5)


@each_layer
def test_backends_agree(layer, shapes):
    layer = fresh(layer, torch.double)
    inputs = [torch.randn(shape, dtype=torch.double) for shape in shapes]
    with use_backend("reference"):
        expected = layer(*inputs)
    torch.testing.assert_close(layer(*inputs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"x": np.zeros((1, 4, 5, 6), np.float32)}, TypeError, "x: got ndarray, expected a tensor"),
        ({"x": torch.zeros(1, 4, 5, 6, dtype=torch.int64)}, TypeError, "x: got torch.int64, expected a floating-point"),
        ({"x": torch.zeros(1, 4, 0, 6)}, ValueError, "x: got shape [1, 4, 0, 6], expected [B, 4, H, W] with at least"),
        ({"guidance": None}, TypeError, "guidance: got NoneType, expected a tensor"),
        ({"guidance": torch.zeros(1, 3, 10, 12, dtype=torch.uint8)}, TypeError, "guidance: got torch.uint8"),
        ({"mean": torch.zeros(2, 7)}, ValueError, "mean: got shape [2, 7], expected [1, 4]"),
        ({"mean": 0.5}, TypeError, "mean: got float, expected a tensor"),
    ],
)
def test_what_a_layer_cannot_take_is_one_sentence(given, error, message):
    good = {"x": torch.zeros(1, 4, 5, 6), "guidance": torch.zeros(1, 3, 10, 12), "mean": torch.zeros(1, 4)}
    with pytest.raises(error, match=re.escape(message)):
        DDFUp(4, 3)(**(good | given))
    if "x" in given:
        with pytest.raises(error, match=re.escape(message)):
            DDF(4)(given["x"])


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (4, 8, 8), (1, 4, 8, 8, 1)], ids=str)
def test_other_channels_are_refused(shape):
    for call in (lambda x: DDF(4)(x), lambda x: DDFUp(4, 3)(x, torch.zeros(1, 3, 16, 16))):
        with pytest.raises(ValueError, match=r"x: got shape .*, expected \[B, 4, H, W\]"):
            call(torch.zeros(shape))


def test_layers_can_be_made_of_fake_tensors():
    with FakeTensorMode():
        assert DDF(4)(torch.empty(1, 4, 5, 6)).shape == (1, 4, 5, 6)
        assert DDFUp(4, 3)(torch.empty(1, 4, 5, 6), torch.empty(1, 3, 10, 12)).shape == (1, 4, 10, 12)


@pytest.mark.parametrize("taps", [-1, 3])
def test_taps_are_a_dimension_of_the_shift(taps):
    with pytest.raises(ValueError, match=f"taps: got {taps}, expected a dimension of the shift, 0 to 2"):
        FilterNorm(torch.zeros(4, 9, 1), taps)


@pytest.mark.parametrize("grid", ["input", "output"])
def test_hooks_see_guidance_of_the_inputs_size(grid):
    layer, seen = DDFUp(8, 3, 2, guidance_grid=grid), []
    layer.spatial.register_forward_hook(lambda *_: seen.append(1))
    side = 5 if grid == "input" else 10
    layer(torch.rand(1, 8, 5, 5), torch.rand(1, 3, side, side))
    assert len(seen) == (grid == "input")


def test_jit_trace_by_the_reference():
    layer, x = DDF(4), torch.rand(1, 4, 9, 7)
    with use_backend("reference"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, x, check_trace=False)
        other = torch.rand(2, 4, 6, 11)
        torch.testing.assert_close(traced(other), layer(other))
