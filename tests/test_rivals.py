"""PAC-Net and DJF: the transposed PAC by its formula, published widths, and that they can be trained and compared."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli_helpers import RECORD, write_pairs
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.rivals import PACTranspose
from depthup.train_config import TrainConfig
from depthup.training import TrainState, learning_rate, make_optimisers, train_step
from depthup.weights import load_model, save_weights

ARCHITECTURES = ("pac-net", "djf")


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(0)


def by_formula(x: Tensor, guidance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The transposed PAC, pixel by pixel and tap by tap, over the image with inserted zeros."""
    (B, _, H, W), (outputs, _, k, _) = x.shape, weight.shape
    inserted = x.new_zeros(B, x.shape[1], 2 * H, 2 * W)
    inserted[..., ::2, ::2] = x
    out = torch.empty(B, outputs, 2 * H, 2 * W, dtype=x.dtype)
    for b in range(B):
        for row in range(2 * H):
            for column in range(2 * W):
                total = bias.clone()
                for i in range(k):
                    for j in range(k):
                        r, c = row + i - k // 2, column + j - k // 2
                        if 0 <= r < 2 * H and 0 <= c < 2 * W:
                            difference = guidance[b, :, row, column] - guidance[b, :, r, c]
                            kernel = torch.exp(-0.5 * difference.square().sum())
                            total = total + kernel * (weight[:, :, i, j] @ inserted[b, :, r, c])
                out[b, :, row, column] = total
    return out


@pytest.mark.parametrize("size", [(1, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_transposed_pac_by_its_formula(kernel_size, size):
    pac = PACTranspose(2, 3, kernel_size).double()
    x, guidance = torch.randn(2, 2, *size).double(), torch.randn(2, 4, *(2 * n for n in size)).double()
    expected = by_formula(x, guidance, pac.weight, pac.bias)
    torch.testing.assert_close(pac(x, guidance), expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(expected)
    inputs = [x.requires_grad_(), guidance.requires_grad_(), pac.weight, pac.bias]
    own = torch.autograd.grad(pac(x, guidance), inputs, gradient)
    theirs = torch.autograd.grad(by_formula(*inputs), inputs, gradient)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-11)


def test_gradients_of_transposed_pac():
    pac = PACTranspose(2, 2).double()
    inputs = (torch.randn(1, 2, 2, 2), torch.randn(1, 3, 4, 4), pac.weight.detach(), pac.bias.detach())
    inputs = tuple(t.double().requires_grad_() for t in inputs)

    def function(x: Tensor, guidance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(pac, {"weight": weight, "bias": bias}, (x, guidance))

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_where_guidance_is_constant_it_is_a_transposed_convolution(kernel_size):
    pac = PACTranspose(4, 3, kernel_size)
    x, weight = torch.randn(2, 4, 5, 6), pac.weight.flip(2, 3).transpose(0, 1)
    expected = F.conv_transpose2d(x, weight, pac.bias, stride=2, padding=kernel_size // 2, output_padding=1)
    torch.testing.assert_close(pac(x, torch.ones(2, 7, 10, 12)), expected, rtol=1e-4, atol=1e-5)


def test_far_guidance_separates():
    """A sample does not reach pixels whose guidance is far from its own."""
    pac = PACTranspose(1, 1)
    guidance = torch.zeros(1, 1, 8, 8)
    guidance[..., 4:] = 100
    left, both = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4)
    both[..., :2] = left[..., :2]
    assert torch.equal(pac(left, guidance)[..., :4], pac(both, guidance)[..., :4])
    assert not torch.equal(pac(left, guidance * 0)[..., :4], pac(both, guidance * 0)[..., :4])


def test_bad_arguments_of_transposed_pac():
    with pytest.raises(ValueError, match=r"guidance: got size \[6, 8\], expected \[6, 10\] for x \[1, 2, 3, 5\]"):
        PACTranspose(2, 2)(torch.rand(1, 2, 3, 5), torch.rand(1, 4, 6, 8))
    for kernel_size in (1, 4):
        with pytest.raises(ValueError, match=f"kernel_size: got {kernel_size}, expected an odd number of at least 3"):
            PACTranspose(2, 2, kernel_size)


def layers(part: nn.Sequential) -> list[tuple[int, int, int]]:
    assert [isinstance(layer, nn.Conv2d) for layer in part] == [n % 2 == 0 for n in range(len(part))]
    return [(layer.in_channels, layer.out_channels, layer.kernel_size[0]) for layer in part[::2]]


def test_published_widths_of_pac_net():
    net = DDFUpNet(DDFUpNetConfig.named("pac-net", 8))
    assert layers(net.net.depth_encoder) == [(1, 32, 5), (32, 32, 5), (32, 32, 5)]
    assert layers(net.net.guidance_encoder) == [(3, 32, 5), (32, 32, 5), (32, 48, 5)]
    assert layers(net.net.decoder) == [(32, 32, 5), (32, 1, 5)]
    assert [tuple(up.weight.shape) for up in net.net.ups] == [(32, 32, 5, 5)] * 3


def test_published_widths_of_djf():
    net = DDFUpNet(DDFUpNetConfig.named("djf", 4))
    assert layers(net.net.depth_branch) == [(1, 96, 9), (96, 48, 1), (48, 1, 5)]
    assert layers(net.net.guidance_branch) == [(3, 96, 9), (96, 48, 1), (48, 1, 5)]
    assert layers(net.net.joint) == [(2, 64, 9), (64, 32, 1), (32, 1, 5)]


def small(architecture: str, scale: int = 4) -> DDFUpNetConfig:
    return DDFUpNetConfig.named(architecture, scale, width=24, kernel_size=5)


@pytest.mark.parametrize(("architecture", "rate"), [("pac-net", 6e-3), ("djf", 1.5e-2)])
def test_they_learn_from_a_random_start(architecture, rate):
    """Steps with edges in the image where they are in depth; one batch, over and over."""
    config = TrainConfig(scale=4, steps=40, architecture=architecture, warmup_steps=5, learning_rate=rate)
    model = DDFUpNet(small(architecture))
    ema = {name: t.detach().clone() for name, t in model.state_dict().items()}
    state = TrainState(model, make_optimisers(model, config), ema)
    columns = torch.arange(32).expand(2, 1, 32, 32)
    depth = 1 + (columns > torch.tensor([13, 18]).view(2, 1, 1, 1)).float()
    batch = {
        "low": F.avg_pool2d(depth, 4),
        "low_range": torch.tensor([[1.0, 2.0]] * 2),
        "rgb": (depth - 1).repeat(1, 3, 1, 1) * 0.8,
        "depth": depth,
    }
    losses = [train_step(config, state, batch, learning_rate(config, n, n / 40)) for n in range(40)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compared_and_used_like_our_own(architecture, place, depthup_):
    write_pairs(place / "pairs")
    net = DDFUpNet(small(architecture))
    save_weights(place / "rival.safetensors", net, RECORD)
    assert load_model(place / "rival.safetensors").config == net.config
    result = depthup_(
        "compare", "--data", "pairs", "--scale", "4", "--methods", "x4,rival.safetensors,bicubic", "--json"
    )
    assert (result.code, result.err) == (0, "")
    rmse = {each["method"]: each["rmse"] for each in json.loads(result.out)}
    assert rmse["rival.safetensors"] == pytest.approx(rmse["bicubic"], rel=1e-4) != rmse["x4"]
    used = depthup_("upsample", "rgb.png", "depth.png", "-o", "out.png", "--model", "rival.safetensors")
    assert used.code == 0 and "by rival.safetensors" in used.err
    refused = depthup_(
        *("upsample", "rgb.png", "depth.png", "-o", "out2.png", "--model", "rival.safetensors"),
        *("--confidence-out", "confidence.png"),
    )
    assert refused.code != 0 and refused.err.count("\n") == 1 and "does not tell how far off it is" in refused.err
