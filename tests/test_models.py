"""DDF-Up-Net of both configurations and what it is compared with, and the normalisation of depth around it."""

from __future__ import annotations

import itertools
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthup import models
from depthup.data import make_low_resolution
from depthup.kernels import use_backend
from depthup.layers import DDFUp
from depthup.models import (
    ARCHITECTURES,
    NAMED,
    SCALES,
    DDFUpNet,
    DDFUpNetConfig,
    back_project,
    denormalise,
    normalise,
    reduction,
)
from depthup.upsamplers import ALTERNATIVES, BilinearUp, CarafeUp, PixelShuffleUp
from depthup.weights import copy_fitting

OURS = ("paper", "base")
LAST = {"paper": "decoder.2", "base": "result", "pac-net": "decoder.2", "djf": "joint.4"}


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(0)


def network(architecture: str, scale: int) -> DDFUpNet:
    """Untrained, but with a last layer that lets the others be seen."""
    net = DDFUpNet(DDFUpNetConfig.named(architecture, scale))
    if architecture != "paper":
        nn.init.normal_(net.get_parameter(f"net.{LAST[architecture]}.weight"), std=0.3)
    return net


def random_pair(scale: int, h: int = 3, w: int = 2, B: int = 2) -> tuple[Tensor, Tensor]:
    return torch.rand(B, 1, h, w), torch.rand(B, 3, scale * h, scale * w)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 5)], ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_output_has_the_size_of_rgb(architecture, scale, size):
    low, rgb = random_pair(scale, *size)
    with torch.no_grad():
        out = network(architecture, scale)(low, rgb)
    assert out.shape == (2, 1, *rgb.shape[-2:])
    assert out.isfinite().all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("architecture", ["base", "pac-net", "djf"])
def test_untrained_ones_are_bicubic(architecture, scale):
    low, rgb = random_pair(scale, 5, 3)
    net = DDFUpNet(DDFUpNetConfig.named(architecture, scale))
    with torch.no_grad():
        out = net(low, rgb)
    assert torch.equal(out, F.interpolate(low, scale_factor=scale, mode="bicubic", align_corners=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rgb_and_depth_both_matter(architecture):
    low, rgb = random_pair(4)
    net = network(architecture, 4)
    with torch.no_grad():
        out = net(low, rgb)
        assert not torch.allclose(net(low, 1 - rgb), out, atol=1e-5)
        assert not torch.allclose(net(1 - low, rgb), out, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_of_a_batch_do_not_mix(architecture):
    low, rgb = random_pair(2, 4, 3, B=3)
    net = network(architecture, 2)
    with torch.no_grad():
        together = net(low, rgb)
        alone = torch.cat([net(low[i : i + 1], rgb[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(12, 9), (3, 2), (2, 3), (24, 16)], ids=str)
def test_rgb_of_a_wrong_size(architecture, size):
    low, _ = random_pair(4)
    with pytest.raises(ValueError, match=r"rgb: got size \[\d+, \d+\], expected 4 times \[3, 2\]"):
        network(architecture, 4)(low, torch.rand(2, 3, *size))


@pytest.mark.parametrize("scale", SCALES)
def test_paper_has_the_widths_of_pac_net(scale):
    net = DDFUpNet(DDFUpNetConfig.named("paper", scale)).net
    octaves = {2: 1, 4: 2, 8: 3, 16: 4}[scale]

    def widths(layers: nn.Sequential) -> list[int]:
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        assert all(c.kernel_size == (5, 5) and c.stride == (1, 1) for c in convolutions)
        return [convolutions[0].in_channels, *(c.out_channels for c in convolutions)]

    assert widths(net.depth_encoder) == [1, 32, 32, 32]
    assert widths(net.guidance_encoder) == [3, 32, 32, 16 * octaves]
    assert widths(net.decoder) == [32, 32, 1]
    assert len(net.ups) == octaves
    for up in net.ups:
        assert (up.scale, up.kernel_size) == (2, 5)
        assert up.spatial.weight.shape == (4 * 25, 4 * 16, 1, 1)
        assert up.channel.norm.beta.shape == (4, 32, 25)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("architecture", OURS)
def test_one_ddf_up_per_octave(architecture, scale):
    ups = [m for m in DDFUpNet(DDFUpNetConfig.named(architecture, scale)).modules() if isinstance(m, DDFUp)]
    assert [up.scale for up in ups] == [2] * (scale.bit_length() - 1)


@pytest.mark.parametrize("constant", [False, True], ids=["random", "constant"])
@pytest.mark.parametrize(("architecture", "scale"), list(itertools.product(ARCHITECTURES, (2, 8))))
def test_every_parameter_gets_a_finite_gradient(architecture, scale, constant):
    net = network(architecture, scale)
    low, rgb = random_pair(scale)
    if constant:
        low, rgb = torch.zeros_like(low), torch.full_like(rgb, 0.5)
    net(low, rgb).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name != "net.guidance_encoder.4.bias" or architecture == "paper":  # PAC sees differences of guidance only
            assert constant or parameter.grad.any(), name


def test_base_starts_to_learn_from_its_last_layer():
    net = DDFUpNet(DDFUpNetConfig(scale=2))
    net(*random_pair(2)).square().sum().backward()
    moved = {name for name, parameter in net.named_parameters() if parameter.grad.any()}
    assert moved == {"net.result.weight", "net.result.bias"}


@pytest.mark.parametrize("architecture", OURS)
def test_backends_agree_through_the_network(architecture):
    net = network(architecture, 4).double()
    low, rgb = (t.double() for t in random_pair(4))
    results = []
    for backend in ("reference", "cpu"):
        with use_backend(backend):
            out = net(low, rgb)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), list(net.parameters()))))
    for reference, kernel in zip(*results, strict=True):
        assert (reference - kernel).abs().max() <= 1e-9 * reference.abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_memory_layout_does_not_matter(architecture):
    net = network(architecture, 4)
    low, rgb = random_pair(4)
    with torch.no_grad():
        expected = net(low, rgb)
        net = net.to(memory_format=torch.channels_last)
        out = net(low.contiguous(memory_format=torch.channels_last), rgb.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_torch_compile_makes_one_graph(architecture):
    torch._dynamo.reset()
    net, inputs = network(architecture, 4), random_pair(4)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), net(*inputs), rtol=1e-4, atol=1e-5)
    gradients, expected = (torch.autograd.grad(f(*inputs).sum(), net.parameters()) for f in (compiled, net))
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_autocast_is_near_float32(architecture):
    net = network(architecture, 4)
    low, rgb = random_pair(4)
    with torch.no_grad():
        expected = net(low, rgb)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = net(low, rgb)
    assert out.isfinite().all()
    assert (out.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_the_bicubic_start_of_a_network_for_sensors_keeps_its_precision_under_autocast():
    torch.manual_seed(0)
    net = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1, sensor=True))  # untrained: it corrects nothing
    low, rgb = torch.rand(1, 1, 9, 11), torch.rand(1, 3, 36, 44)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = net(low, rgb)[:, :1]
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, net(low, rgb)[:, :1], rtol=0, atol=0)


@pytest.mark.parametrize("scale", [4, 8])
def test_a_larger_scale_can_start_from_a_smaller_one(scale):
    smaller = DDFUpNet(DDFUpNetConfig(scale=scale)).state_dict()
    larger = DDFUpNet(DDFUpNetConfig(scale=2 * scale)).state_dict()
    assert smaller.keys() < larger.keys()
    different = {name for name in smaller if smaller[name].shape != larger[name].shape}
    # the low-resolution trunk joins the guidance of its own level, whose width depends on the level
    assert different <= {"net.enter.weight"}


def test_configuration():
    config = DDFUpNetConfig.named("paper", 8)
    assert (config.width, config.kernel_size, config.octaves) == (32, 5, 3)
    assert DDFUpNetConfig.named("base", 16) == DDFUpNetConfig(scale=16, trunk_blocks=5, passes=2)
    for each in (config, DDFUpNetConfig(scale=16, width=32, trunk_blocks=2, kernel_size=5)):
        assert DDFUpNetConfig(**each.to_dict()) == each
    with pytest.raises(FrozenInstanceError):
        config.scale = 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampler": "deconvolution"}, "upsampler: got 'deconvolution', expected 'ddf_up' or one of pixel_shuffle"),
        ({"architecture": "unet"}, "architecture: got 'unet', expected one of paper, base, pac-net, djf"),
        ({"scale": 3}, "scale: got 3, expected one of"),
        ({"scale": 32}, "scale: got 32, expected one of"),
        ({"scale": 2, "fine_blocks": 1}, "fine_blocks: got 1 where scale times unshuffle is 2, expected at least 4"),
        ({"scale": 4.0}, "scale: got 4.0, expected one of"),
        ({"scale": "4"}, "scale: got '4', expected one of"),
        ({"passes": 0}, "passes: got 0, expected a whole number of at least 1"),
        ({"back_projections": -1}, "back_projections: got -1, expected a whole number of at least 0"),
        ({"width": "a"}, "width: got 'a', expected a whole number of at least 1"),
        ({"trunk_blocks": -1}, "trunk_blocks: got -1, expected a whole number of at least 0"),
        ({"scale": 1}, "scale: got 1, expected one of 2, 4, 8, 16"),
        ({"scale": 1, "sensor": True}, "unshuffle: got 1 at scale 1, expected 2 or 4"),
        ({"scale": 16, "unshuffle": 2}, "unshuffle: got 2 at scale 16, expected a product of at most 16"),
        ({"unshuffle": 3}, "unshuffle: got 3, expected 1, 2 or 4"),
        ({"unshuffle": 0}, "unshuffle: got 0, expected a whole number of at least 1"),
        ({"architecture": "paper", "trunk_blocks": 0, "unshuffle": 2}, "unshuffle: got 2, which architecture 'paper'"),
        ({"sensor": True, "back_projections": 1}, "back_projections: got 1 for a sensor, .*; expected 0"),
        ({"architecture": "paper"}, "trunk_blocks: got 6, which architecture 'paper' does not have; expected 0, or"),
        *(
            ({"architecture": name, "trunk_blocks": 0} | option, f"{next(iter(option))}: got .* '{name}' does not have")
            for name in ARCHITECTURES
            if name != "base"
            for option in (
                {"sensor": True},
                {"upsampler": "carafe"},
                {"trunk_blocks": 2},
                {"fine_blocks": 1},
                {"passes": 2},
                {"back_projections": 1},
            )
        ),
    ],
)
def test_wrong_configuration(options, message):
    with pytest.raises(ValueError, match=message):
        DDFUpNetConfig(**options)


@pytest.mark.parametrize(("scale", "unshuffle"), [(1, 2), (1, 4), (2, 2), (2, 4), (4, 2), (8, 2)])
def test_cells_of_several_samples(scale, unshuffle):
    """Every sample is seen, by the cell that it is in and by finer levels; the result starts as bicubic."""
    config = DDFUpNetConfig(scale=scale, width=16, trunk_blocks=1, sensor=True, unshuffle=unshuffle)
    net = DDFUpNet(config)
    h, w = 4 * unshuffle, 3 * unshuffle
    low, rgb, valid = torch.rand(1, 1, h, w), torch.rand(1, 3, h * scale, w * scale), torch.ones(1, 1, h, w)
    with torch.no_grad():
        start = net(low, rgb, valid)[:, :1]
    if scale == 1:
        torch.testing.assert_close(start, low)
        assert config.octaves == unshuffle.bit_length() - 1
    else:
        whole = DDFUpNet(replace(config, unshuffle=1))
        with torch.no_grad():
            torch.testing.assert_close(start, whole(low, rgb, valid)[:, :1])
    for parameter in (net.net.result.weight, *(module.weight for module in net.net.samples.values())):
        nn.init.normal_(parameter, std=0.3)
    low.requires_grad_(True)
    valid.requires_grad_(True)
    (net(low, rgb, valid) - start).square().sum().backward()
    assert (low.grad != 0).all() and (valid.grad != 0).all()
    for module in (net.net.depth, *net.net.samples.values()):
        assert module.weight.grad.isfinite().all() and module.weight.grad.any()


@pytest.mark.parametrize("scale", [1, 2])
def test_a_network_of_several_samples_starts_from_one_of_one(scale):
    source = DDFUpNet(DDFUpNetConfig.named("base", 4, True))
    target = DDFUpNet(DDFUpNetConfig.named("base", scale, True))
    both = source.state_dict().keys() & target.state_dict().keys()
    assert copy_fitting(source, target) == len(both)
    low, valid = torch.rand(1, 1, 6, 8), (torch.rand(1, 1, 6, 8) > 0.2).float()
    alike = [F.interpolate(x, scale_factor=4 // scale) for x in (low, valid)]
    with torch.no_grad():
        of_one = source.net.depth(torch.cat([low, low, valid], 1))
        of_several = F.pixel_unshuffle(torch.cat([alike[0], alike[0], alike[1]], 1), 4 // scale)
        torch.testing.assert_close(target.net.depth(of_several), of_one)
    assert target.parameter_count() <= 1_000_000


@pytest.mark.parametrize(
    ("low", "rgb", "valid", "error", "message"),
    [
        ((2, 1, 3, 4), (1, 3, 12, 16), None, ValueError, r"rgb: got shape \[1, 3, 12, 16\], expected \[2, 3, H, W\]"),
        ((1, 1, 3, 4), (1, 1, 12, 16), None, ValueError, "rgb: got shape"),
        ((0, 1, 3, 4), (0, 3, 12, 16), None, ValueError, r"low: got shape \[0, 1, 3, 4\], expected \[B, 1, h, w\]"),
        ((1, 3, 4), (1, 3, 12, 16), None, ValueError, "low: got shape"),
        ((1, 1, 3, 4), (1, 3, 12, 16), (1, 1, 4, 4), ValueError, "valid: got shape"),
    ],
)
def test_shapes_that_do_not_fit(low, rgb, valid, error, message):
    net = DDFUpNet(DDFUpNetConfig(width=16, trunk_blocks=1))
    with pytest.raises(error, match=message):
        net(torch.rand(low), torch.rand(rgb), None if valid is None else torch.ones(valid))


def test_an_rgb_image_of_integers_is_refused():
    net = DDFUpNet(DDFUpNetConfig(width=16, trunk_blocks=1))
    with pytest.raises(TypeError, match=r"rgb torch.uint8, expected floats, rgb in 0\.\.1"):
        net(torch.rand(1, 1, 3, 4), torch.zeros(1, 3, 12, 16, dtype=torch.uint8))


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_can_be_made(name):
    config = DDFUpNetConfig.named(name, 4)
    assert DDFUpNetConfig(**config.to_dict()) == config
    assert DDFUpNet(config).up_count == (0 if name in ("pac-net", "djf") else 2 * config.passes)


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_fine_blocks_are_part_of_the_network(scale):
    torch.manual_seed(0)
    config = DDFUpNetConfig(scale=scale, width=16, trunk_blocks=1, fine_blocks=2)
    net = DDFUpNet(config)
    one = 2 * (8 * 8 * 9 + 8)  # two convolutions of 8 channels, which is what half resolution has
    assert net.parameter_count() == DDFUpNet(replace(config, fine_blocks=0)).parameter_count() + 2 * one
    nn.init.normal_(net.net.result.weight)
    inputs = random_pair(scale)
    before = net(*inputs)
    nn.init.normal_(net.net.fine[1].second.weight)
    assert not torch.equal(net(*inputs), before)


SMALL = DDFUpNetConfig(width=16, trunk_blocks=1)


@pytest.mark.parametrize("sensor", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_further_passes_start_as_the_first(scale, sensor):
    one = DDFUpNet(replace(SMALL, scale=scale, sensor=sensor))
    nn.init.normal_(one.net.result.weight)
    two = DDFUpNet(replace(one.config, passes=2))
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert {name.split(".")[1] for name in missing} == {"feedback"} and not unexpected
    inputs = random_pair(scale)
    with torch.no_grad():
        torch.testing.assert_close(two(*inputs), one(*inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_a_further_pass_sees_every_level_and_the_correction_of_the_one_before(scale):
    net = DDFUpNet(replace(SMALL, scale=scale, passes=2))
    nn.init.normal_(net.net.result.weight)
    low, rgb = random_pair(scale)
    first = net(low, rgb)
    for level, feedback in net.net.feedback.items():
        pixels = 4 ** int(level)
        with torch.no_grad():
            for seen in (slice(-pixels), slice(-pixels, None)):  # the features, the correction
                nn.init.zeros_(feedback.weight)
                feedback.weight[:, seen] = 1.0
                assert (net(low, rgb) - first).abs().max() > 1e-6, (level, seen)
            nn.init.zeros_(feedback.weight)


@pytest.mark.parametrize("height", [1, 2, 5])
@pytest.mark.parametrize("scale", SCALES)
def test_reduction_is_that_of_the_protocol(scale, height):
    depth = torch.rand(2, 1, height * scale, 3 * scale, dtype=torch.float64)
    low = make_low_resolution(depth, scale, "dkn")
    result = reduction(low, -2, scale) @ depth @ reduction(low, -1, scale).T
    torch.testing.assert_close(result, low, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_back_projection_nears_what_reduces_to_the_given_depth_and_the_truth(scale):
    truth = torch.rand(2, 1, 8 * scale, 9 * scale, dtype=torch.float64)
    low = make_low_resolution(truth, scale, "dkn")
    estimate = truth + 0.1 * F.interpolate(torch.randn_like(low), truth.shape[-2:], mode="bilinear")

    def missing(depth: Tensor) -> float:
        return (make_low_resolution(depth, scale, "dkn") - low).square().mean().item() ** 0.5

    once, twice = (back_project(estimate, low, None, n) for n in (1, 2))
    assert missing(twice) < missing(once) / 2 < missing(estimate) / 4
    assert (twice - truth).square().mean() < (once - truth).square().mean() < (estimate - truth).square().mean()
    torch.testing.assert_close(back_project(truth, low, None, 2), truth, rtol=0, atol=1e-6)


def test_filled_samples_are_not_back_projected():
    net = DDFUpNet(replace(SMALL, back_projections=2))
    nn.init.normal_(net.net.result.weight, std=0.01)
    low, rgb = random_pair(4, 12, 16)
    valid = torch.ones_like(low)
    with torch.no_grad():
        whole = net(low, rgb)
        assert torch.equal(net(low, rgb, valid), whole)
        valid[..., 8:] = 0
        part = net(low, rgb, valid)
        net.net.back_projections = 0
        none = net(low, rgb)
    torch.testing.assert_close(part[..., :12], whole[..., :12], rtol=0, atol=1e-3)
    assert torch.equal(part[..., 44:], none[..., 44:]) and not torch.equal(whole[..., 44:], none[..., 44:])


def test_the_network_back_projects_after_every_pass_in_full_precision(monkeypatch):
    net = DDFUpNet(replace(SMALL, passes=2, back_projections=2))
    nn.init.normal_(net.net.result.weight, std=0.01)
    plain = DDFUpNet(replace(net.config, passes=1, back_projections=0))
    plain.load_state_dict(net.state_dict(), strict=False)
    steps = []

    def counted(depth: Tensor, low: Tensor, valid: Tensor | None, n: int) -> Tensor:
        steps.append((n, depth.dtype))
        return back_project(depth, low, valid, n)

    monkeypatch.setattr(models, "back_project", counted)
    low, rgb = random_pair(4, 8, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result, before = net(low, rgb), plain(low, rgb)
    assert steps == [(2, torch.float32)] * 2
    torch.testing.assert_close(result, back_project(before, low, None, 2), rtol=0, atol=1e-4)
    assert (result - before).abs().max() > 1e-2


def test_other_widths_and_kernels():
    config = DDFUpNetConfig(scale=4, width=16, trunk_blocks=1, kernel_size=5)
    net = DDFUpNet(config)
    assert net(*random_pair(4)).shape == (2, 1, 12, 8)
    assert net.parameter_count() == sum(t.numel() for t in net.state_dict().values())
    assert net.parameter_count() < DDFUpNet(DDFUpNetConfig(scale=4)).parameter_count()


def test_normalised_depth_goes_from_zero_to_one():
    low = 0.5 + 7 * torch.rand(3, 1, 5, 4) * torch.tensor([1.0, 0.1, 10.0]).view(3, 1, 1, 1)
    low_range = torch.stack([low.amin((1, 2, 3)), low.amax((1, 2, 3))], 1)
    normalised = normalise(low, low_range)
    torch.testing.assert_close(normalised.amin((1, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(normalised.amax((1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(denormalise(normalised, low_range), low)
    fine = torch.randn(3, 1, 10, 8)
    torch.testing.assert_close(normalise(denormalise(fine, low_range), low_range), fine, rtol=1e-4, atol=1e-4)


def test_constant_depth_comes_back():
    low = torch.full((2, 1, 3, 4), 2.5)
    low_range = torch.tensor([[2.5, 2.5], [2.0, 3.0]])
    normalised = normalise(low, low_range)
    assert torch.equal(normalised[0], torch.zeros(1, 3, 4))
    assert torch.equal(normalised[1], torch.full((1, 3, 4), 0.5))
    assert torch.equal(denormalise(normalised, low_range), low)


@pytest.mark.parametrize("size", [(1, 1), (4, 3)], ids=str)
def test_untrained_base_keeps_constant_depth(size):
    low, rgb = random_pair(4, *size, B=1)
    low = torch.full_like(low, 3.25)
    low_range = torch.tensor([[3.25, 3.25]])
    with torch.no_grad():
        out = denormalise(DDFUpNet(DDFUpNetConfig(scale=4))(normalise(low, low_range), rgb), low_range)
    assert torch.equal(out, torch.full_like(out, 3.25))


@pytest.mark.parametrize("upsampler", ALTERNATIVES)
def test_alternatives_differ_in_their_upsampler_alone(upsampler):
    torch.manual_seed(0)
    ours = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1))
    other = DDFUpNet(DDFUpNetConfig(scale=4, width=16, trunk_blocks=1, upsampler=upsampler))
    names = [{name for name in net.state_dict() if ".up." not in name} for net in (ours, other)]
    assert names[0] == names[1]
    assert any(".up." in name for name in other.state_dict()) == (upsampler != "bilinear")
    nn.init.normal_(other.net.result.weight, std=0.3)
    low, rgb = random_pair(4)
    out = other(low, rgb)
    assert out.shape == (2, 1, 12, 8)
    out.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in other.parameters())


def test_carafe_reassembles_with_softmax():
    torch.manual_seed(0)
    up = CarafeUp(3, 4).double()
    x, guidance = torch.rand(2, 3, 4, 5, dtype=torch.double), torch.rand(2, 4, 4, 5, dtype=torch.double)
    taps = up.taps(guidance).view(2, 4, 25, 4, 5).softmax(2)
    patches = F.unfold(x, 5, padding=2).view(2, 3, 1, 25, 4, 5)
    expected = F.pixel_shuffle((patches * taps[:, None]).sum(3).flatten(1, 2), 2)
    torch.testing.assert_close(up(x, guidance), expected)


def test_pixel_shuffle_and_bilinear_do_not_see_the_guidance():
    x, guidance = torch.rand(1, 3, 4, 5), torch.rand(1, 4, 4, 5)
    for up in (PixelShuffleUp(3, 4), BilinearUp(3, 4)):
        assert torch.equal(up(x, guidance), up(x, 1 - guidance))
        assert up(x, guidance).shape == (1, 3, 8, 10)


@pytest.mark.parametrize("scale", SCALES)
def test_base_has_at_most_a_million_parameters(scale):
    assert 0.7e6 < DDFUpNet(DDFUpNetConfig.named("base", scale)).parameter_count() <= 1e6


def test_sizes_of_the_family():
    sizes = {name: DDFUpNet(DDFUpNetConfig.named(name, 4)).parameter_count() for name in NAMED}
    assert sizes["fast"] < sizes["base"] < 1e6 < sizes["large"] and sizes["paper"] < 1e6
    assert DDFUpNetConfig.named("fast", 8, trunk_blocks=2).trunk_blocks == 2


@pytest.mark.parametrize("name", ["fast", "base", "large"])
def test_networks_for_sensors_of_many_samples_work_on_blocks_of_them(name):
    assert [DDFUpNetConfig.named(name, scale, sensor=True).stride for scale in (1, 2, 4, 8)] == [4, 4, 4, 8]
    assert DDFUpNetConfig.named(name, 2).stride == 2
    for scale in (1, 2):
        net = DDFUpNet(DDFUpNetConfig.named(name, scale, sensor=True, trunk_blocks=1))
        result = net(torch.rand(1, 1, 8, 12), torch.rand(1, 3, 8 * scale, 12 * scale))
        assert result.shape == (1, 2, 8 * scale, 12 * scale)
