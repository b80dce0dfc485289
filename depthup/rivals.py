"""What DDF-Up-Net is compared with: other networks for guided depth up-sampling, reimplemented from their papers.

`PACNet` (Su et al., CVPR 2019) and `DJF` (Li et al., ECCV 2016) are called like the networks of `depthup.models`, whose
arguments `valid`, `means` and `until` mean nothing to them, and are trained by the same loop; its crops, loss and
optimisers are not those of their papers. They hold no DDF, and no weights of theirs are in the box.

Both start as bicubic up-sampling and correct it. So that they learn within hundreds of steps, as `base` does, the last
convolution starts at zero and counts a `RESIDUAL_SCALE`, and the first one of depth starts with filters that sum to
zero, so that at first it sees detail and not the depth itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthup.blocks import RESIDUAL_SCALE, bicubic, convolutions

GUIDANCE_CHANNELS = 16
"""Channels of guidance for each octave of PAC-Net."""

DETAIL_GAIN = 8.0
"""What the first filters of depth start multiplied with, as `base` multiplies contrast."""


@torch.no_grad()
def start_as_correction(depth: nn.Sequential, result: nn.Sequential) -> None:
    """Starting weights of what sees depth first, and of what gives the correction last."""
    first = depth.get_parameter("0.weight")
    first.copy_(DETAIL_GAIN * (first - first.mean((2, 3), keepdim=True)))
    for parameter in result[-1].parameters():
        nn.init.zeros_(parameter)


class PACTranspose(nn.Module):
    """Transposed pixel-adaptive convolution of stride 2 (Su et al., section 3), with a Gaussian kernel.

    Zeros are inserted after every sample of `x`, in rows and columns. Then output pixel i is

        out[o, i] = bias[o] + sum_j sum_c exp(-|guidance[i] - guidance[j]|^2 / 2) * weight[o, c, p_j - p_i] * x[c, j]

    over the k x k neighbourhood of i on the grid of the output. The kernel is not normalised and what lies outside of
    the image is zero, as in NVIDIA's implementation. By the parity of its row and column a pixel meets samples at about
    a quarter of the taps, inserted zeros at the others; each of the four kinds of pixels is computed from its own taps.

    Args:
        inputs, outputs: channels.
        kernel_size: k, odd, at least 3.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 5):
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}, expected an odd number of at least 3")
        self.reach = kernel_size // 2
        self.margin = (self.reach + 1) // 2  # samples beyond the image that its pixels meet
        bound = (inputs * kernel_size**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel_size, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """`x [B, I, H, W]` and `guidance [B, G, 2H, 2W]` to `[B, O, 2H, 2W]`.

        Raises:
            ValueError: the guidance does not have twice the size of `x`.
        """
        size, expected = list(guidance.shape[-2:]), [2 * n for n in x.shape[-2:]]
        if size != expected:
            raise ValueError(f"guidance: got size {size}, expected {expected} for x {list(x.shape)}")
        own = F.pixel_unshuffle(guidance, 2).unflatten(1, (-1, 4))
        samples, at_samples = (F.pad(t, [self.margin] * 4) for t in (x, own[:, :, 0]))
        kinds = [self._pixels(samples, at_samples, own[:, :, n], *divmod(n, 2)) for n in range(4)]
        return F.pixel_shuffle(torch.stack(kinds, 2).flatten(1, 2), 2)

    def _pixels(self, samples: Tensor, at_samples: Tensor, own: Tensor, row: int, column: int) -> Tensor:
        """The pixels `(2m + row, 2n + column)`, whose guidance is `own [B, G, H, W]`: `[B, O, H, W]`."""
        height, width = own.shape[-2:]
        products, weights = [], []
        for i, down in self._taps(row):
            for j, right in self._taps(column):
                x, there = (t.narrow(2, down, height).narrow(3, right, width) for t in (samples, at_samples))
                products.append(x * torch.exp(-0.5 * (own - there).square().sum(1, keepdim=True)))
                weights.append(self.weight[:, :, i, j])
        return F.conv2d(torch.cat(products, 1), torch.cat(weights, 1)[..., None, None], self.bias)

    def _taps(self, parity: int) -> list[tuple[int, int]]:
        """Taps of pixel 2n + parity that meet a sample, and which one they meet, counted from the margin's n-th."""
        taps = range((self.reach - parity) % 2, 2 * self.reach + 1, 2)
        return [(tap, (parity + tap - self.reach) // 2 + self.margin) for tap in taps]


class PACNet(nn.Module):
    """PAC-Net for joint up-sampling (Su et al., section 5.1): one transposed PAC x2 per octave.

    As published, in the paper and NVIDIA's code: depth encoder 1-32-32-32, guidance encoder 3-32-32-16 per octave,
    decoder 32-32-1, all of 5x5; the guidance of an octave is a bilinear reduction of its 16 channels; a ReLU after each
    PAC; depth goes in and out normalised by the minimum and maximum of the low-resolution image. Deviations:
    * the result is a correction of the bicubic up-sampling; the published decoder gives the depth itself, from noise at
      the start;
    * starting weights: beside those of `start_as_correction`, He's for the convolutions of depth and for the PACs (a
      pixel meets a quarter of their taps), so that the signal does not fade on its way; from the published uniform ones
      150 steps taught nothing.

    Args:
        width: channels of depth features, 32.
        kernel_size: k of the PACs, 5.
        octaves: how often the resolution is doubled.
    """

    def __init__(self, width: int, kernel_size: int, octaves: int):
        super().__init__()
        self.depth_encoder = convolutions([1, width, width, width], [5, 5, 5])
        self.guidance_encoder = convolutions([3, 32, 32, GUIDANCE_CHANNELS * octaves], [5, 5, 5])
        self.ups = nn.ModuleList(PACTranspose(width, width, kernel_size) for _ in range(octaves))
        self.decoder = convolutions([width, width, 1], [5, 5])
        for part, met in ((self.depth_encoder, 1.0), (self.ups, 0.25), (self.decoder, 1.0)):
            for parameter in part.parameters():
                if parameter.dim() == 4:
                    nn.init.normal_(parameter, std=(2 / (met * parameter[0].numel())) ** 0.5)
                else:
                    nn.init.zeros_(parameter)
        start_as_correction(self.depth_encoder, self.decoder)

    def forward(self, low: Tensor, rgb: Tensor, *unused: object) -> Tensor:
        x = self.depth_encoder(low)
        guidances = self.guidance_encoder(rgb).split(GUIDANCE_CHANNELS, 1)
        for up, guidance in zip(self.ups, guidances, strict=True):
            size = [2 * n for n in x.shape[-2:]]
            x = F.relu(up(x, F.interpolate(guidance, size, mode="bilinear", align_corners=False)))
        return bicubic(low, rgb) + RESIDUAL_SCALE * self.decoder(x)


class DJF(nn.Module):
    """Deep joint filtering (Li et al., ECCV 2016) in its residual form, DJFR (Li et al., TPAMI 2019).

    As published: depth comes in bicubically up-sampled; CNN_T on it and CNN_G on RGB, each 9x9, 1x1 and 5x5
    convolutions of 96, 48 and 1 channels; CNN_F on both results, 9x9, 1x1 and 5x5 of 64, 32 and 1. Deviations:
    * every convolution keeps the size of the image, by zeros around it; the published ones shrink it by 12 pixels;
    * starting weights: those of `start_as_correction`; with the first filters as PyTorch draws them 200 steps taught
      nothing.

    Args:
        width: channels of the first layer of CNN_T and CNN_G, 96, from which the others follow.
        kernel_size: k of the first layer of each part, 9.
    """

    def __init__(self, width: int, kernel_size: int):
        super().__init__()
        kernel_sizes = [kernel_size, 1, 5]
        self.depth_branch = convolutions([1, width, width // 2, 1], kernel_sizes)
        self.guidance_branch = convolutions([3, width, width // 2, 1], kernel_sizes)
        self.joint = convolutions([2, width * 2 // 3, width // 3, 1], kernel_sizes)
        start_as_correction(self.depth_branch, self.joint)

    def forward(self, low: Tensor, rgb: Tensor, *unused: object) -> Tensor:
        depth = bicubic(low, rgb)
        both = torch.cat([self.depth_branch(depth), self.guidance_branch(rgb)], 1)
        return depth + RESIDUAL_SCALE * self.joint(both)
