"""DDF-Up-Net: depth encoder, guidance encoder, one x2 DDF-Up per octave, decoder.

Named configurations of one family (`NAMED`): `paper` follows Zhou et al. (CVPR 2021, section 4.3) with PAC-Net's widths
(Su et al., CVPR 2019, section 5.1) where the paper is silent; `fast`, `base` and `large` are ours, one network in three
sizes; `pac-net` and `djf` are what others published (`depthup.rivals`), to be compared with. Weights of `base` and
`fast` are shipped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthup.blocks import RESIDUAL_SCALE, bicubic, conv, convolutions
from depthup.layers import DDFUp
from depthup.rivals import DJF, PACNet
from depthup.upsamplers import ALTERNATIVES, make_upsampler

SCALES = (2, 4, 8, 16)

SCALES_OF_SENSORS = (1, *SCALES)
"""A network for sensors may leave the size of depth as it is, and remove noise and fill holes."""

PRECISIONS = ("float32", "bf16")
"""What networks compute in: `bf16` is autocast to bfloat16."""

NAMED: dict[str, dict[str, Any]] = {
    "paper": {"architecture": "paper", "width": 32, "trunk_blocks": 0, "kernel_size": 5},
    "fast": {"width": 40, "trunk_blocks": 4},
    "base": {"passes": 2},
    "large": {"width": 128, "trunk_blocks": 16},
    "pac-net": {"architecture": "pac-net", "width": 32, "trunk_blocks": 0, "kernel_size": 5},
    "djf": {"architecture": "djf", "width": 96, "trunk_blocks": 0, "kernel_size": 9},
}
"""Name -> what differs from the defaults of `DDFUpNetConfig`; of `base` see `BLOCKS_OF_BASE`."""

BLOCKS_OF_BASE: dict[int, dict[str, int]] = {
    2: {"trunk_blocks": 11},
    4: {"trunk_blocks": 11, "fine_blocks": 2},
    8: {"trunk_blocks": 8},
    16: {"trunk_blocks": 5},
}
"""Scale -> residual blocks of the configuration `base`, as many as a million parameters allow."""

BASE_OF_FINE_SENSORS = {1: {"trunk_blocks": 10, "fine_blocks": 2}, 2: {"trunk_blocks": 11, "fine_blocks": 2}}
"""The same for sensors of the scales of `UNSHUFFLE_OF_SENSORS`."""

UNSHUFFLE_OF_SENSORS = {1: 4, 2: 2}
"""Scale -> `unshuffle` for sensors, where samples are so many that a network has to work on blocks of them."""

ARCHITECTURES = ("paper", "base", "pac-net", "djf")

OURS = tuple(name for name, fields in NAMED.items() if "architecture" not in fields)
"""Names of `NAMED` whose architecture is `base`."""

ONLY_IN_BASE = {
    "trunk_blocks": 0,
    "fine_blocks": 0,
    "sensor": False,
    "upsampler": "ddf_up",
    "passes": 1,
    "back_projections": 0,
    "unshuffle": 1,
}
"""Field of a configuration that `base` alone has -> its value everywhere else."""

LEAST = {
    "width": 1,
    "trunk_blocks": 0,
    "kernel_size": 3,
    "fine_blocks": 0,
    "passes": 1,
    "back_projections": 0,
    "unshuffle": 1,
}
"""Field of a configuration that is a whole number -> the least it may be."""

LOG_ERROR_START = -5.0
"""Where the logarithm of the expected error starts: 0.7 % of the depth range."""

CONTRAST_GAIN = 8.0
"""Makes the local contrast of normalised depth, most of which is far below 0.1, of the order of 1."""


Means = dict[int, Tensor]
"""Number of a DDF-Up, from 0 in the order in which they run -> mean over a whole image of what it gets, `[B, C]`."""


@dataclass(frozen=True)
class Known:
    """What is known of a whole image, or of a part of it, while parts are gone through.

    Args:
        features: of every pass that has begun: level -> features, `[B, C, H / 2^level, W / 2^level]`, from the coarsest
            to the finest that is known; where no further pass begins the finest will do; empty if none is known.
        corrections: of every pass that has ended: what it adds to the bicubic start, `[B, 1, H, W]`.
        guidance: of some levels, likewise.
    """

    features: list[dict[int, Tensor]]
    corrections: list[Tensor]
    guidance: dict[int, Tensor]


def check_whole_numbers(config: Any, least: dict[str, int]) -> None:
    """Raise ValueError for a field that is no whole number, or is below the least that `least` names for it."""
    for name, smallest in least.items():
        if type(number := getattr(config, name)) is not int or number < smallest:
            raise ValueError(f"{name}: got {number!r}, expected a whole number of at least {smallest}")


@dataclass(frozen=True)
class DDFUpNetConfig:
    """What makes a DDF-Up-Net, or a network that it is compared with. `named` fits all of it to an architecture.

    Args:
        architecture: one of `ARCHITECTURES`; `fast` and `large` are other sizes of `"base"`.
        scale: up-sampling factor: 2, 4, 8 or 16; 1, for sensors only, removes noise and fills holes.
        width: channels of the features at the coarsest levels of `base` (finer levels have fewer), 32 in `paper` and
            `pac-net`; of the first layers of `djf` (later ones have fewer), 96.
        trunk_blocks: residual blocks at low resolution, `base` only; 0 elsewhere.
        kernel_size: k of the DDF-Up layers, 5 in `paper`; of the PAC layers, 5; of the first layers of `djf`, 9.
        sensor: `base` only; whether the network also sees which samples are valid, and also tells how far off it
            expects to be.
        upsampler: `base` only; `"ddf_up"`, or one of `ALTERNATIVES`, which it is compared with.
        fine_blocks: residual blocks at half of the full resolution beside the one that is always there, `base` only.
        passes: `base` only; how often the network goes over its own estimate, with the same weights.
        back_projections: `base` only, not for sensors; steps after every pass that add what the estimate lacks to be
            the given depth once it is reduced as under protocol `dkn`.
        unshuffle: `base` only; side of the block of samples that is one cell of the coarsest level: 1, 2 or 4. Height
            and width of low-resolution depth are multiples of it. Scales below 4 so work where those of scale 4 do.
    """

    architecture: str = "base"
    scale: int = 4
    width: int = 64
    trunk_blocks: int = 6
    kernel_size: int = 3
    sensor: bool = False
    upsampler: str = "ddf_up"
    fine_blocks: int = 0
    passes: int = 1
    back_projections: int = 0
    unshuffle: int = 1

    def __post_init__(self):
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture: got {self.architecture!r}, expected one of {', '.join(ARCHITECTURES)}")
        if type(self.sensor) is not bool:
            raise ValueError(f"sensor: got {self.sensor!r}, expected True or False")
        scales = SCALES_OF_SENSORS if self.sensor else SCALES
        if not isinstance(self.scale, int) or self.scale not in scales:
            also = "" if self.sensor else "; 1 for sensors only"
            raise ValueError(f"scale: got {self.scale!r}, expected one of {', '.join(map(str, scales))}{also}")
        if self.upsampler not in ("ddf_up", *ALTERNATIVES):
            raise ValueError(
                f"upsampler: got {self.upsampler!r}, expected 'ddf_up' or one of {', '.join(ALTERNATIVES)}"
            )
        check_whole_numbers(self, LEAST)
        if self.architecture == "base" and self.width < 8:
            raise ValueError(f"width: got {self.width}, expected at least 8, of which the finest level has an eighth")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {self.kernel_size}, expected an odd number")
        for name, elsewhere in ONLY_IN_BASE.items():
            if self.architecture != "base" and getattr(self, name) != elsewhere:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}, which architecture {self.architecture!r} does not have; "
                    f"expected {elsewhere!r}, or one of {', '.join(OURS)}"
                )
        if self.unshuffle not in (1, 2, 4):
            raise ValueError(f"unshuffle: got {self.unshuffle}, expected 1, 2 or 4")
        if not self.octaves:
            raise ValueError("unshuffle: got 1 at scale 1, expected 2 or 4")
        if self.stride > SCALES[-1]:
            raise ValueError(
                f"unshuffle: got {self.unshuffle} at scale {self.scale}, expected a product of at most {SCALES[-1]}"
            )
        if self.fine_blocks and self.octaves < 2:
            raise ValueError(
                f"fine_blocks: got {self.fine_blocks} where scale times unshuffle is {self.stride}, expected at least 4"
            )
        if self.sensor and self.back_projections:
            raise ValueError(
                f"back_projections: got {self.back_projections} for a sensor, whose samples need not be what bicubic "
                "reduction gives; expected 0"
            )

    @property
    def stride(self) -> int:
        """Pixels on the side of a cell of the coarsest level."""
        return self.scale * self.unshuffle

    @property
    def octaves(self) -> int:
        """Levels below full resolution, and DDF-Up in a pass."""
        return self.stride.bit_length() - 1

    @classmethod
    def named(cls, name: str, scale: int, sensor: bool = False, **changes: Any) -> DDFUpNetConfig:
        """A configuration of `NAMED` for a scale, with changes."""
        if name not in NAMED:
            raise ValueError(f"architecture: got {name!r}, expected one of {', '.join(NAMED)}")
        fields = NAMED[name] | {"scale": scale, "sensor": sensor}
        if name == "base":
            fields |= (BLOCKS_OF_BASE | (BASE_OF_FINE_SENSORS if sensor else {})).get(scale, {})
        if sensor and scale in UNSHUFFLE_OF_SENSORS and name in OURS:
            fields["unshuffle"] = UNSHUFFLE_OF_SENSORS[scale]
        return cls(**fields | changes)

    def to_dict(self) -> dict:
        return asdict(self)


def extrapolate(x: Tensor, n: int) -> Tensor:
    """`[B, C, H, W]` with `n` more pixels on every side, by point reflection, so that a plane stays one."""
    for dim in (2, 3):
        reach = min(n, x.shape[dim] - 1)
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
        before = 2 * first - x.narrow(dim, 1, reach).flip(dim)
        after = 2 * last - x.narrow(dim, x.shape[dim] - 1 - reach, reach).flip(dim)
        x = torch.cat([before, x, after], dim)
        if reach < n:  # one or two samples do not say how they go on
            missing = n - reach
            x = F.pad(x, (0, 0, missing, missing) if dim == 2 else (missing, missing, 0, 0), mode="replicate")
    return x


def cubic_taps(scale: int) -> Tensor:
    """Cubic convolution with a = -0.5, which keeps planes (Keys, 1981), along a line: `[scale, 5]` by sub-pixel."""
    offset = (torch.arange(scale, dtype=torch.float32) + 0.5) / scale - 0.5
    return _cubic(torch.arange(-2, 3)[None] - offset[:, None])


def _cubic(t: Tensor) -> Tensor:
    """The weight at a distance, in samples."""
    t = t.abs()
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))


def reduction(low: Tensor, dim: int, scale: int) -> Tensor:
    """PIL's anti-aliased bicubic along a dimension of n samples: a matrix `[n, scale * n]` in the type of `low`."""
    n = low.shape[dim]
    centre = (torch.arange(n, dtype=torch.float32, device=low.device) + 0.5) * scale - 0.5
    weight = _cubic((torch.arange(n * scale, device=low.device) - centre[:, None]) / scale)
    return (weight / weight.sum(1, keepdim=True)).to(low.dtype)


def back_project(depth: Tensor, low: Tensor, valid: Tensor | None, steps: int) -> Tensor:
    """Bring an estimate nearer to those whose anti-aliased bicubic reduction is the given depth (Irani, Peleg, 1991).

    The nearest of these is no farther from the truth than the estimate was. Two steps come within 0.05 % of its RMSE.

    Args:
        depth: `[B, 1, s*h, s*w]`, float32.
        low: `[B, 1, h, w]`, what it should be reduced.
        valid: `[B, 1, h, w]`, 0 where `low` was filled, and nothing is to be added; without it all counts.
        steps: how often what is missing, interpolated, is added.
    """
    scale = depth.shape[-1] // low.shape[-1]
    with torch.autocast(low.device.type, enabled=False):  # in bf16 it would be off by centimetres
        rows, columns = (reduction(low, dim, scale) for dim in (-2, -1))
        for _ in range(steps):
            missing = low - rows @ depth @ columns.T
            if valid is not None:
                missing = missing * valid.to(low.dtype)
            depth = depth + bicubic(missing, depth)
    return depth


class ResidualBlock(nn.Module):
    """3x3 convolution, ReLU, 3x3 convolution, added to the input; no normalisation, which would erase metric depth."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def _sums(first: dict[int, Tensor], second: dict[int, Tensor]) -> dict[int, Tensor]:
    """Of both by level."""
    # no `|`, which torch.compile of PyTorch 2.6 does not trace; the same in `feed_back`
    return {**first, **{level: x + first[level] if level in first else x for level, x in second.items()}}


class PaperNet(nn.Module):
    """DDF-Up-Net of the paper: PAC-Net with every PAC transposed convolution replaced by DDF-Up x2.

    Deviations, where the paper is silent or cannot be followed:
    * widths, 5x5 kernels and ReLUs are PAC-Net's: depth encoder 1-32-32-32, guidance encoder 3-32-32-16 per octave,
      decoder 32-32-1; the guidance of an octave is a bilinear reduction of its 16 channels, as in PAC-Net;
    * DDF-Up mixes no channels, which PAC's transposed convolution did; nothing is added in its place;
    * the guidance of an octave has the resolution of its output and is pixel-unshuffled for the 1x1 convolution;
    * the shifts of the filter normalisation start as a bilinear kernel (`DDFUp`), not at zero, from which training
      hardly moves;
    * depth goes in and out normalised by the minimum and maximum of the low-resolution image, as in PAC-Net.
    """

    def __init__(self, config: DDFUpNetConfig):
        super().__init__()
        width, octaves = config.width, config.octaves
        self.guidance_channels = 16
        self.depth_encoder = convolutions([1, width, width, width], [5, 5, 5])
        self.guidance_encoder = convolutions([3, 32, 32, self.guidance_channels * octaves], [5, 5, 5])
        self.ups = nn.ModuleList(
            DDFUp(width, self.guidance_channels, kernel_size=config.kernel_size) for _ in range(octaves)
        )
        self.decoder = convolutions([width, width, 1], [5, 5])

    def forward(self, low: Tensor, rgb: Tensor, valid: Tensor | None, means: Means, until: int | None) -> Tensor:
        x = F.relu(self.depth_encoder(low))
        guidances = self.guidance_encoder(rgb).split(self.guidance_channels, 1)
        for number, (up, guidance) in enumerate(zip(self.ups, guidances, strict=True)):
            if number == until:
                return x
            size = [2 * n for n in x.shape[-2:]]
            guidance = F.interpolate(guidance, size, mode="bilinear", align_corners=False)
            x = F.relu(up(x, guidance, means.get(number)))
        return self.decoder(x)


class BaseNet(nn.Module):
    """Our variant: all work below full resolution, every octave guided by an RGB pyramid made by pixel-unshuffle.

    Level l has 1/2^l of the full resolution; level 0 holds only the last DDF-Up's output and two small convolutions.
    * guidance pyramid: per level pixel-unshuffle by 2, a convolution, one residual block;
    * low-resolution depth, its contrast against a 5x5 mean, and the guidance of that level through `trunk_blocks`
      residual blocks;
    * per octave: 1x1 reduction, DDF-Up x2 whose spatial filters come from features and unshuffled finer guidance
      together, join with that guidance, one residual block (at level 0 only where that is the samples' own, at x1), and
      at half resolution `fine_blocks` more;
    * the result is a correction of the bicubic up-sampling, and starts as zero;
    * further passes go through the same weights from the trunk on, and see at every level what the pass before had
      there and the correction that it came to (feedback of Li et al., CVPR 2019; ours starts as zero);
    * `back_projections` make the estimate of every pass agree with the given depth;
    * where a cell of the coarsest level holds several samples (`unshuffle`), these are pixel-unshuffled, and seen again
      at every level that is fine enough for them;
    * for a sensor, validity is a third input beside depth and contrast, the logarithm of the expected absolute error a
      second output, and depth is continued beyond the border linearly instead of by its last value.
    Layers are named by their level, so that a network of scale 8 can start from the weights of one of scale 4.
    """

    def __init__(self, config: DDFUpNetConfig):
        super().__init__()
        levels = self.levels = config.octaves
        self.cubic_taps: Tensor
        width = [config.width // 4, config.width // 2] + [config.width] * 3
        guidance = [config.width // 8, config.width // 2, config.width * 3 // 4, config.width, config.width]
        if levels == 1:
            width[1] = config.width
        self.guidance, self.guidance_block = nn.ModuleDict(), nn.ModuleDict()
        self.reduce, self.up, self.join, self.block = (nn.ModuleDict() for _ in range(4))
        for level in range(1, levels + 1):
            name = str(level)
            self.guidance[name] = (
                conv(12, guidance[1]) if level == 1 else conv(4 * guidance[level - 1], guidance[level], 1)
            )
            self.guidance_block[name] = ResidualBlock(guidance[level])
        self.finest_guidance = conv(guidance[1], 4 * guidance[0], 1)
        seen_samples = 3 if config.sensor else 2
        self.depth = conv(seen_samples * config.unshuffle**2, config.width)
        self.enter = conv(config.width + guidance[levels], config.width, 1)
        self.trunk = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.trunk_blocks)))
        for level in range(levels, 0, -1):
            name, finer = str(level), width[level - 1]
            seen = width[level] + (4 * guidance[level - 1] if level > 1 else guidance[1])
            self.reduce[name] = conv(width[level], finer, 1)
            self.up[name] = make_upsampler(config.upsampler, finer, seen, config.kernel_size)
            self.join[name] = conv(finer + guidance[level - 1], finer, 1 if level > 1 else 3)
            if level > 1 or config.scale == 1:
                self.block[name] = ResidualBlock(finer)
            if level == 2:
                self.fine = nn.Sequential(*(ResidualBlock(finer) for _ in range(config.fine_blocks)))
        self.result = conv(width[0], 2 if config.sensor else 1)
        self.samples, self.finest_samples = nn.ModuleDict(), config.scale.bit_length() - 1
        for level in range(self.finest_samples, levels):
            self.samples[str(level)] = conv(seen_samples * 4 ** (level - self.finest_samples), width[level])
        self.feedback = nn.ModuleDict()
        if config.passes > 1:
            remembered = [*width[:levels], 4 * width[levels - 1]]
            for level, given in enumerate([*width[:levels], config.width]):
                self.feedback[str(level)] = conv(remembered[level] + 4**level, given, 1)
        for starts_at_zero in (self.result, self.samples, self.feedback):
            for parameter in starts_at_zero.parameters():
                nn.init.zeros_(parameter)
        self.scale, self.sensor, self.unshuffle = config.scale, config.sensor, config.unshuffle
        self.width, self.guidance_width = width, guidance
        self.passes, self.back_projections = config.passes, config.back_projections
        self.register_buffer("cubic_taps", cubic_taps(config.scale), persistent=False)

    def forward(
        self,
        low: Tensor,
        rgb: Tensor,
        valid: Tensor | None,
        means: Means,
        until: int | None,
        known: Known | None = None,
    ) -> Tensor:
        known = known or Known([{}] * self.passes, [], {})
        begun, corrections = known.features, known.corrections
        last = len(begun) - 1 if until is None else until // self.levels
        wanted = 0 if until is None else self.levels - until % self.levels
        # Level to which a pass goes: whoever knows its correction needs of it what the next ones take, of which the
        # trunk takes features of one level finer than its own. And from where: a trunk that is to run counts one more.
        finest = [min(wanted, self.levels - 1) if turn < len(corrections) else 0 for turn in range(last)] + [wanted]
        coarsest = [min([self.levels + 1, *features]) for features in begun[: last + 1]]
        guidance, seen = self.guide_between(min(finest), max(coarsest), rgb, known.guidance)
        start = self._continued_bicubic(low) if self.sensor else bicubic(low, rgb)
        samples = self._samples(low, valid)
        if max(coarsest) > self.levels:
            entered = self._enter(samples, guidance[self.levels])
        added = of_samples = self._of_samples(samples, min(finest), min(max(coarsest), self.levels))
        for turn in range(last + 1):
            features = dict(begun[turn]) or {self.levels: self._trunk(entered, added)}
            level = min(features)
            x = features[level]
            while level > finest[turn]:
                x = self._finer(level, x, guidance, seen, added, means.get(turn * self.levels + self.levels - level))
                level -= 1
                if turn < last:
                    features[level] = x
            if turn == last and until is not None:
                return x
            if turn < len(corrections):
                correction = corrections[turn]
            else:
                result = self.result(x)
                depth = start + RESIDUAL_SCALE * result[:, :1]
                if self.back_projections:
                    depth = back_project(depth, low, valid, self.back_projections)
                if turn + 1 == self.passes:
                    break
                correction = (depth - start) / RESIDUAL_SCALE
                if turn == last:
                    return correction
            fed_back = self.feed_back(features, correction, range(finest[turn + 1], coarsest[turn + 1]))
            added = _sums(of_samples, fed_back)
        if not self.sensor:
            return depth
        return torch.cat([depth, result[:, 1:] + LOG_ERROR_START], 1)

    def guide_between(
        self, finest: int, coarsest: int, rgb: Tensor, known: dict[int, Tensor]
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """As `guide`, what DDF-Up from a level to a finer one need; coarser guidance comes from what is known of it."""
        last = max(coarsest - 1, 1)
        first = max([0, *(level for level in known if level <= finest)])
        guidance, seen = self.guide(known[first] if first else rgb - 0.5, first + 1, last)
        if last < coarsest <= self.levels:
            seen[coarsest] = F.pixel_unshuffle(guidance[last], 2)
        if not finest:
            guidance[0] = F.pixel_shuffle(self.finest_guidance(guidance[1]), 2)
        return guidance, seen

    def guide(self, finer: Tensor, first: int, last: int) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Guidance of levels `first` to `last`, and what the DDF-Up of these levels see of it.

        `finer` is the guidance of the level below `first`; below the first of all that is RGB.
        """
        guidance, seen = {first - 1: finer}, {}
        for level in range(first, last + 1):
            unshuffled = F.pixel_unshuffle(guidance[level - 1], 2)
            name = str(level)
            guidance[level] = self.guidance_block[name](F.relu(self.guidance[name](unshuffled)))
            seen[level] = unshuffled if level > 1 else guidance[1]
        return guidance, seen

    def coarse(
        self, low: Tensor, valid: Tensor | None, guidance: Tensor, level: int, fed_back: dict[int, Tensor]
    ) -> dict[int, Tensor]:
        """Features of a whole image by level, down to one whose guidance is given, of a pass that gets `fed_back`."""
        guiding, seen = self.guide(guidance, level + 1, self.levels)
        samples = self._samples(low, valid)
        added = _sums(self._of_samples(samples, level, self.levels), fed_back)
        features = {self.levels: self._trunk(self._enter(samples, guiding[self.levels]), added)}
        for coarser in range(self.levels, level, -1):
            features[coarser - 1] = self._finer(coarser, features[coarser], guiding, seen, added, None)
        return features

    def feed_back(self, features: dict[int, Tensor], correction: Tensor, levels: range) -> dict[int, Tensor]:
        """What the next pass adds at `levels`, of the features that this one had by level, and of its correction."""
        if self.levels in levels:
            features = {**features, self.levels: F.pixel_unshuffle(features[self.levels - 1], 2)}
        return {
            level: self.feedback[str(level)](torch.cat([features[level], F.pixel_unshuffle(correction, 2**level)], 1))
            for level in levels
        }

    def _around(self, low: Tensor) -> Tensor:
        return extrapolate(low, 2) if self.sensor else F.pad(low, (2, 2, 2, 2), mode="replicate")

    def _samples(self, low: Tensor, valid: Tensor | None) -> Tensor:
        """What the network sees of every sample: depth, contrast, of a sensor validity."""
        mean = F.avg_pool2d(self._around(low), 5, stride=1)
        seen = [low - 0.5, (low - mean) * CONTRAST_GAIN]
        if self.sensor:
            seen.append(torch.zeros_like(low) if valid is None else valid.to(low.dtype) - 1)
        return torch.cat(seen, 1)

    def _enter(self, samples: Tensor, guidance: Tensor) -> Tensor:
        """Features of the samples and of the coarsest guidance."""
        return self.enter(torch.cat([F.relu(self.depth(F.pixel_unshuffle(samples, self.unshuffle))), guidance], 1))

    def _of_samples(self, samples: Tensor, first: int, end: int) -> dict[int, Tensor]:
        """What the samples add at the levels from `first` to before `end` that are fine enough for them."""
        return {
            level: self.samples[str(level)](F.pixel_unshuffle(samples, 2 ** (level - self.finest_samples)))
            for level in range(first, end)
            if str(level) in self.samples
        }

    def _trunk(self, entered: Tensor, added: dict[int, Tensor]) -> Tensor:
        return self.trunk(entered + added[self.levels] if self.levels in added else entered)

    def _finer(
        self,
        level: int,
        x: Tensor,
        guidance: dict[int, Tensor],
        seen: dict[int, Tensor],
        added: dict[int, Tensor],
        mean: Tensor | None,
    ) -> Tensor:
        """Features of a level to those of the next finer one; `mean` of what is reduced, if it is not to be taken."""
        name = str(level)
        x = self.up[name](self.reduce[name](x), torch.cat([x, seen[level]], 1), mean)
        x = self.join[name](torch.cat([x, guidance[level - 1]], 1))
        if level - 1 in added:
            x = x + added[level - 1]
        x = F.relu(x)
        if name in self.block:
            x = self.block[name](x)
        return self.fine(x) if level == 2 else x

    def _continued_bicubic(self, low: Tensor) -> Tensor:
        """Bicubic start of a network for sensors.

        Autocast would make it in bf16, and a convolution on a GPU in TF32: both are off by millimetres.
        """
        around, (h, w) = self._around(low), low.shape[2:]
        with torch.autocast(low.device.type, enabled=False):
            taps = self.cubic_taps.to(low.dtype)
            wide = (torch.stack([around[..., t : t + w] for t in range(5)], -1) @ taps.T).flatten(3)
            return (taps @ torch.stack([wide[:, :, t : t + h] for t in range(5)], 3)).flatten(2, 3)


class DDFUpNet(nn.Module):
    """DDF-Up-Net of any configuration, or a network of `depthup.rivals` in its place.

    `forward` is strict: normalised depth in, normalised depth out, no missing value, sizes that fit. `depthup.upsample`
    does the rest for a pair of a user.
    """

    def __init__(self, config: DDFUpNetConfig):
        super().__init__()
        self.config = config
        self.net: nn.Module
        if config.architecture == "pac-net":
            self.net = PACNet(config.width, config.kernel_size, config.octaves)
        elif config.architecture == "djf":
            self.net = DJF(config.width, config.kernel_size)
        else:
            self.net = PaperNet(config) if config.architecture == "paper" else BaseNet(config)

    def forward(self, low: Tensor, rgb: Tensor, valid: Tensor | None = None) -> Tensor:
        """Low-resolution depth and RGB to full-resolution depth.

        Args:
            low: `[B, 1, h, w]`, normalised so that the low-resolution image has minimum 0 and maximum 1; no NaN; h and
                w are multiples of `config.unshuffle`.
            rgb: `[B, 3, scale*h, scale*w]`, 0..1.
            valid: `[B, 1, h, w]`, 1 where `low` was measured and 0 where it was filled; without it everything counts as
                measured. Only a network for sensors sees it; in others it says where not to back-project.

        Returns:
            `[B, 1, scale*h, scale*w]`, in the normalised units of `low`; of a network for sensors `[B, 2, ...]`, where
            the second channel is the natural logarithm of the expected absolute error in these units.

        Raises:
            ValueError: a shape that does not fit, such as that of `rgb`, whose size is not `scale` times that of `low`.
            TypeError: `rgb` or `low` of integers.
        """
        s = self.config.scale
        if low.dim() != 4 or low.shape[1] != 1 or 0 in low.shape:
            raise ValueError(f"low: got shape {list(low.shape)}, expected [B, 1, h, w], none of them 0")
        if any(n % self.config.unshuffle for n in low.shape[2:]):
            raise ValueError(f"low: got shape {list(low.shape)}, expected multiples of {self.config.unshuffle}")
        if rgb.dim() != 4 or rgb.shape[0] != low.shape[0] or rgb.shape[1] != 3:
            raise ValueError(f"rgb: got shape {list(rgb.shape)}, expected [{low.shape[0]}, 3, H, W]")
        if [n * s for n in low.shape[-2:]] != list(rgb.shape[-2:]):
            raise ValueError(
                f"rgb: got size {list(rgb.shape[-2:])}, expected {s} times {list(low.shape[-2:])}, that of low"
            )
        if valid is not None and valid.shape != low.shape:
            raise ValueError(f"valid: got shape {list(valid.shape)}, expected {list(low.shape)}, as low")
        if not (low.is_floating_point() and rgb.is_floating_point()):
            raise TypeError(f"got low {low.dtype} and rgb {rgb.dtype}, expected floats, rgb in 0..1")
        return self.net(low, rgb, valid, {}, None)

    def forward_part(
        self,
        low: Tensor,
        rgb: Tensor,
        valid: Tensor | None = None,
        means: Means | None = None,
        until: int | None = None,
        known: Known | None = None,
    ) -> Tensor:
        """As `forward`, for a part of an image whose channel filters are to be those of the whole.

        Args:
            low, rgb, valid: as of `forward`.
            means: for the number of a DDF-Up, in the order in which they run, the mean over the whole image of the
                features that it gets, `[B, C]`.
            until: number of a DDF-Up, below `up_count`, at which to stop and return these features, in `base` before
                they are reduced, `[B, C, h', w']`, `h' = h / unshuffle * 2^(until % octaves)`; without it to the end.
            known: of `base` only; this part of what is known. Without `until`, and if not all passes have begun in it,
                the correction of the last that has is returned, `[B, 1, scale*h, scale*w]`.
        """
        if known is None:
            return self.net(low, rgb, valid, means or {}, until)
        return self.net(low, rgb, valid, means or {}, until, known)

    @property
    def up_count(self) -> int:
        """How many DDF-Up run in a forward pass, each of which takes means over the whole image."""
        if self.config.architecture in ("pac-net", "djf"):
            return 0
        return self.config.passes * self.config.octaves

    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(p.numel() for p in self.parameters())


def normalise(low: Tensor, low_range: Tensor) -> Tensor:
    """`low [B, 1, h, w]` to 0..1 by `low_range [B, 2]`, the minimum and maximum of the low-resolution image."""
    bottom, span = bottom_and_span(low_range)
    return (low - bottom) / span


def denormalise(depth: Tensor, low_range: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    bottom, span = bottom_and_span(low_range)
    return depth * span + bottom


def bottom_and_span(low_range: Tensor) -> tuple[Tensor, Tensor]:
    """Of `low_range [B, 2]`, each `[B, 1, 1, 1]`: what is 0, and how much is 1; a span of nothing counts as 1."""
    bottom, top = low_range.view(-1, 2, 1, 1, 1).unbind(1)
    span = top - bottom
    return bottom, torch.where(span > 0, span, torch.ones_like(span))
