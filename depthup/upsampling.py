"""Upsampling of a user's own pair: checks, holes, the sampling grid, normalisation, the network or a plain baseline."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from depthup.baselines import BASELINES
from depthup.data import InputError, UsageError
from depthup.data.depth_encoding import without_mask
from depthup.data.isolated import isolated
from depthup.data.sparse import density, gather_sparse, least_density, margins
from depthup.models import PRECISIONS, SCALES, SCALES_OF_SENSORS, DDFUpNet, extrapolate, normalise
from depthup.tiles import run_network
from depthup.weights import check_device, load_model, shipped_names, weights_path

Model = str | Path | DDFUpNet | None

FILLS = {"none": 0.0, "near": 2.0, "all": math.inf}
"""What is estimated where nothing was measured: how far, in low-resolution samples, the nearest valid one may be."""

DEEP_IN_A_HOLE = 48.0
"""How far from a valid sample one is given to a network as if it were valid, over the root of the network's scale.

Networks learned holes that are smaller, and take the middle of a larger one for farther than all around it.
"""

LARGEST_RATIO = {1: 1.02, 2: 2.04, 4: 4.08, 8: 11.3}
"""Scale -> the largest ratio that its network is taken for by default.

Two per cent above the scale come of sizes that are no multiples. The limit of x8 is the middle between 8 and 16: rooms
come out better so, and many times as fast, though the fine structures of the Motorcycle do not.
"""

MOST_PIXELS = 2**31
"""Of a result; beyond it sizes overflow before memory does."""

_LINES = 128  # at a time: 12 megapixels in double precision need not be in memory at once

log = logging.getLogger("depthup")

_loading = threading.Lock()


@dataclass(frozen=True)
class Upsampled:
    """What `Upsampler.run` gives.

    Args:
        depth: float32 `[H, W]` in the unit of the input, NaN where no measurement supports an estimate.
        expected_error: float32 `[H, W]`, expected absolute error in the same unit, NaN where depth is NaN, and
            everywhere if all samples are equal, since no network runs then; None for a baseline or a network that was
            not trained for sensors.
        ratio: (vertical, horizontal) pixels of the result per sample of the input.
        model: name of what was run.
        gathered: sparse samples, as of a LiDAR, were gathered into cells of so many across; 1: they were not.
        isolated: so many samples were left out as unlike all around them.
        smallest, largest: of the samples that were not left out.
    """

    depth: np.ndarray
    expected_error: np.ndarray | None
    ratio: tuple[float, float]
    model: str
    gathered: int = 1
    isolated: int = 0
    smallest: float = math.nan
    largest: float = math.nan


class _Run(NamedTuple):
    """float32 `[1, 1 or 2, H, W]`: depth, expected error; and what `Upsampled` says of them."""

    planes: Tensor
    model: str
    gathered: int
    isolated: int
    smallest: float
    largest: float


class Upsampler:
    """Depth at the resolution of an RGB image, for one pair after the other; may be used by several threads at once.

    Args:
        model: a name in the box, a `.safetensors` file, what `load_model` returned, or a baseline: `nearest`,
            `bilinear`, `bicubic`, `joint-bilateral`, `guided-filter`. Without it: `default_model` of each pair's ratio.
        device: where networks run, e.g. `"cuda"`; without it where a given network is, or the CPU.
        precision: of networks, `float32` or `bf16`, which is 1.5 to 1.9 times as fast on processors that have it and
            slower on others; its results differ by 0.03 % of the range of depth (RMS), by up to 1 % at depth edges.
        keep_isolated: networks also get samples that are unlike all around them, see `data.isolated`; otherwise those
            are taken as not valid.

    Raises:
        InputError: no such model or precision; a precision for a baseline.
    """

    def __init__(
        self,
        model: Model = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        keep_isolated: bool = False,
    ) -> None:
        self.model, self.keep_isolated = model, keep_isolated
        if precision not in PRECISIONS:
            raise UsageError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.device = check_device(device) if device is not None else None
        if model is not None and not self._is_baseline():
            self._network(2.0)
        elif model is not None and precision != "float32":
            raise UsageError(f"{model}: is no network; expected precision float32, not {precision}")

    def __call__(
        self, rgb: Any, depth: Any, *, valid: Any = None, size: tuple[int, int] | None = None, fill: str = "near"
    ) -> Any:
        """Upsample one pair, or a batch of pairs.

        The result follows the input under any increasing affine change, `a*d + b` for a > 0, so disparity and relative
        depth work as well as metres; but what is isolated, where no depth is below 0, is so by its ratio to the rest.

        Args:
            rgb: the view; uint8 array `[H, W, 3]`, PIL image, or tensor `[3, H, W]` (uint8, or floats in 0..1).
            depth: of the same view, `[h, w]` with h <= H and w <= W, in any ratio, also unequal ones; half-pixel
                centres, so both cover the same area. Array or tensor of any real type in metres (or any unit), NaN or
                infinite where there is no measurement; or PIL image of floats in metres, or of integers in
                millimetres with 0 for no measurement, whose result is `without_overshoots`. 0 is a value in floats,
                with a warning if there are several, no value is less and `valid` says nothing; integer arrays that
                hold it are refused without `valid`, as it nearly always means no measurement there. Where few samples
                are valid, as of a LiDAR whose points were projected into the image, networks get means over cells of
                them, see `data.sparse`. With a further dimension in front: a batch, and so must `rgb` be; tensors also
                `[B, 1, h, w]`.
            valid: further samples that are not to be trusted are False, `[h, w]`, beside what a masked array masks.
            size: (width, height) of the result; without it that of `rgb`.
            fill: `none`: a pixel is known if the sample whose cell contains it is; `near`: also if there is a valid
                sample within two samples' distance; `all`: everywhere.

        Returns:
            The same kind as `depth`, `[H, W]`, floats (PIL integers for PIL integers); NaN (0) where unknown. A tensor
            stays on its device.

        Raises:
            InputError: wrong type, shape or size, integer zeros without `valid`, no valid sample, or a type of `depth`
                that does not hold the result.
        """
        if isinstance(depth, Tensor):
            return self._tensors(rgb, depth, valid, size, fill)
        if hasattr(depth, "getbands"):
            return self._pil(rgb, depth, valid, size, fill)
        depth, valid = _unmasked(depth, valid)
        if depth.ndim > 2:
            _check_batch(rgb, depth, "[B, H, W, 3]")
            return np.stack([self.run(*pair, size, fill).depth for pair in _pairs_of_batch(rgb, depth, valid)])
        return self.run(rgb, depth, valid, size, fill).depth.copy()  # without the expected error, half of its memory

    def run(
        self,
        rgb: Any,
        depth: np.ndarray,
        valid: np.ndarray | None = None,
        size: tuple[int, int] | None = None,
        fill: str = "near",
        guess: np.ndarray | None = None,
    ) -> Upsampled:
        """As a call with arrays, but also the expected error and what was run.

        `guess`, floats as large as `depth`, is what samples that are not valid start from, where it is not NaN, in
        place of the nearest valid one, such as `depthup.alignment.behind_shadows`. It is no measurement: what is known
        stays so. Where samples are gathered, there is none.
        """
        depth, valid = _unmasked(depth, valid)
        _check_no_path("rgb", rgb)
        guess = None if guess is None else without_mask(guess)
        rgb = _upright(rgb) if hasattr(rgb, "getbands") else np.asarray(rgb)
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise InputError(f"rgb: got {rgb.dtype} {list(rgb.shape)}, expected uint8 [H, W, 3]")
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None]  # a copy, because torch refuses negative strides
        run = self._run(image, depth, valid, size, fill, guess)
        both = run.planes[0].cpu().numpy()
        ratio = both.shape[1] / depth.shape[0], both.shape[2] / depth.shape[1]
        return Upsampled(both[0], both[1] if len(both) > 1 else None, ratio, *run[1:])

    def warm_up(self, rgb: np.ndarray, depth: np.ndarray, size: tuple[int, int] | None = None) -> None:
        """Load the network that this pair needs; the first run still loads or compiles its kernels."""
        check_size(size)
        if not self._is_baseline():
            W, H = size or (rgb.shape[1], rgb.shape[0])
            cells = self._gathered(depth, np.isfinite(depth), (H, W))[0]
            self._network(mean_ratio((H, W), cells.shape))

    def check_tells_error(self, ratio: float = 2.0) -> None:
        """Check that results have an expected error, before anything is computed.

        Args:
            ratio: as of `mean_ratio`; decides the network where none was given.

        Raises:
            UsageError: a baseline, or a network that was not trained for sensors.
        """
        net, name = (None, str(self.model)) if self._is_baseline() else self._network(ratio)
        if net is None or not net.config.sensor:
            raise UsageError(f"{name}: does not tell how far off it is; expected a network for sensors, sensor-x4 ...")

    def _run(
        self,
        rgb: Tensor,
        depth: np.ndarray,
        valid: Any,
        size: tuple[int, int] | None,
        fill: str,
        guess: np.ndarray | None = None,
    ) -> _Run:
        """As `run`, on the device of `rgb`, uint8 `[1, 3, H, W]`."""
        _check_depth(depth, valid)
        depth = depth.astype(np.float64)
        if not isinstance(fill, str) or fill not in FILLS:
            raise UsageError(f"fill: got {fill!r}, expected one of {', '.join(FILLS)}")
        check_size(size)
        W, H = size or (rgb.shape[3], rgb.shape[2])
        _check_sizes(rgb, depth, (W, H))
        known = np.isfinite(depth)
        if valid is not None:
            known = known & _checked(valid, depth.shape)
        if guess is not None and guess.shape != depth.shape:
            raise InputError(f"guess: got {list(guess.shape)}, expected {list(depth.shape)}, as depth")
        if not known.any():
            raise InputError(f"depth: none of its {depth.size} samples is valid; expected at least one measurement")
        around = self._margins(known, rgb, (H, W))
        if any(map(any, around)):
            return self._run_within(around, rgb, depth, known, fill)
        given, measured = depth, known
        depth, known, side = self._gathered(depth, known, (H, W))
        apart = np.zeros_like(known)
        if side == 1 and not self.keep_isolated and not self._is_baseline():
            apart = isolated(depth, known)
            known = measured = known & ~apart
        filled, distance = _fill(depth, known)
        if guess is not None and side == 1:
            filled = np.where(known | ~np.isfinite(guess), filled, guess)
        if (largest := np.abs(filled).max()) > torch.finfo(torch.float32).max:
            raise InputError(f"depth: got {largest:g}, expected what float32 holds")
        ratio, deep = mean_ratio((H, W), depth.shape), np.zeros_like(known)
        if self._is_baseline():
            name, factor = str(self.model), max(1, round(ratio))
            image = _resize(rgb, [n * factor for n in depth.shape])
            array = np.ascontiguousarray(image[0].permute(1, 2, 0).cpu().numpy())
            result, bottom, span = torch.from_numpy(BASELINES[name](array, filled, factor))[None, None], 0.0, 1.0
        else:
            net, name = self._network(ratio)
            if self.model is not None:
                _warn_of_density(net.config.scale, name, known)
            bottom, span = float(filled.min()), float(np.ptp(filled))
            deep = distance > DEEP_IN_A_HOLE / math.sqrt(net.config.scale)
            result = _run_network(net, rgb, filled, known | deep, self.precision == "bf16")
        result = _to_grid(result, (H, W))
        for lines in result.split(_LINES, 2):
            lines[:, 0] = lines[:, 0].double() * span + bottom
        result[:, 1:].exp_().mul_(span or math.nan)
        if deep.any():  # as far off as a measured sample at random
            there = _nearest(deep, (H, W)).to(result.device) > 0
            result[:, 1:].masked_fill_(there, filled[known].std() or math.nan)
        # none: on the grid that was given
        reach = _nearest(~measured if fill == "none" else distance, (H, W)).to(result.device)
        result = result.masked_fill_(reach > FILLS[fill], torch.nan).to(rgb.device)
        used = given[measured]
        return _Run(result, name, side, int(apart.sum()), float(used.min()), float(used.max()))

    def _margins(self, known: np.ndarray, rgb: Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
        """As `margins`, where samples may be gathered and every one is a whole number of pixels across."""
        whole = all(n == N and n % m == 0 for n, N, m in zip(size, rgb.shape[2:], known.shape, strict=True))
        limits = self._limits_of_cells(known, size)
        return margins(known, *limits) if whole and limits else []

    def _run_within(
        self, around: list[tuple[int, int]], rgb: Tensor, depth: np.ndarray, known: np.ndarray, fill: str
    ) -> _Run:
        """As `_run`, with lines around it where nothing is known and RGB goes on as at its border."""
        inside = []
        for dim, n, (before, after) in zip((2, 3), depth.shape, around, strict=True):
            across, pixels = rgb.shape[dim] // n, rgb.shape[dim]
            lines = torch.arange(-before * across, pixels + after * across, device=rgb.device)
            rgb = rgb.index_select(dim, lines.clamp(0, pixels - 1))
            inside.append(slice(before * across, before * across + pixels))
        run = self._run(rgb, np.pad(depth, around), np.pad(known, around), None, fill)
        return run._replace(planes=run.planes[:, :, *inside].contiguous())

    def _gathered(
        self, depth: np.ndarray, known: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """As `gather_sparse`, where a network is to run: into cells no larger than it was made for."""
        limits = self._limits_of_cells(known, size)
        return gather_sparse(depth, known, *limits) if limits else (depth, known, 1)

    def _limits_of_cells(self, known: np.ndarray, size: tuple[int, int]) -> tuple[float, int] | None:
        """`ratio` and `largest` of `gather_sparse`; None where there is nothing to gather, or no network to run."""
        if self._is_baseline() or known.all() or not known.any():
            return None
        ratio = mean_ratio(size, known.shape)
        return ratio, SCALES[-1] if self.model is None else self._network(ratio)[0].config.scale

    def _is_baseline(self) -> bool:
        return isinstance(self.model, str) and self.model in BASELINES

    def _network(self, ratio: float) -> tuple[DDFUpNet, str]:
        model = self.model if self.model is not None else default_model(ratio)
        if isinstance(model, DDFUpNet):
            net, name = model, f"x{model.config.scale}"
        else:
            try:
                path = weights_path(model)
            except InputError as error:
                raise type(error)(f"{error}, or one of {', '.join(BASELINES)}") from None
            device = self.device or torch.device("cpu")
            with _loading:
                state = path.stat()
                changed = state.st_mtime_ns, state.st_size, state.st_ino
                net, name = _load_once(path.resolve(), changed, str(device)), str(model)
        parameter = next(net.parameters())
        if parameter.dtype != torch.float32:
            raise InputError(f"{name}: its parameters are {parameter.dtype}, expected torch.float32")
        at, wanted = parameter.device, self.device
        other_gpu = wanted is not None and wanted.type == "cuda" and wanted.index not in (None, at.index)
        if wanted is not None and (at.type != wanted.type or other_gpu):
            raise InputError(f"{name}: is on {at}, expected device {wanted}")
        return net, name

    def _tensors(self, rgb: Any, depth: Tensor, valid: Any, size: tuple[int, int] | None, fill: str) -> Tensor:
        if depth.dim() == 4 and depth.shape[1] == 1:
            masks = valid[:, 0] if getattr(valid, "shape", ())[1:] == depth.shape[1:] else valid
            return self._tensors(rgb, depth[:, 0], masks, size, fill)[:, None]
        if depth.dim() > 2:
            _check_batch(rgb, depth, "[B, 3, H, W]")
            return torch.stack([self._tensors(*pair, size, fill) for pair in _pairs_of_batch(rgb, depth, valid)])
        if not isinstance(rgb, Tensor) or rgb.dim() != 3 or rgb.shape[0] != 3:
            found = f"{rgb.dtype} {list(rgb.shape)}" if isinstance(rgb, Tensor) else type(rgb).__name__
            raise InputError(f"rgb: got {found}, expected a tensor [3, H, W], as depth is a tensor")
        if rgb.dtype != torch.uint8:
            if not rgb.is_floating_point() or not ((rgb >= 0) & (rgb <= 1)).all():
                raise InputError(f"rgb: got {rgb.dtype} outside 0..1, expected uint8, or floats in 0..1")
            rgb = (rgb * 255).round().byte()
        if depth.is_meta or depth.layout != torch.strided:
            raise InputError(
                f"depth: got a tensor of {depth.layout} on {depth.device}, expected a dense one with values"
            )
        mask = valid.cpu().numpy() if isinstance(valid, Tensor) else valid
        dtype = depth.dtype if depth.is_floating_point() else torch.float32
        values = depth.detach().double() if depth.is_floating_point() else depth  # NumPy has no bfloat16
        result = self._run(rgb[None], values.cpu().numpy(), mask, size, fill).planes[0, 0]
        converted = result.to(depth.device, dtype, copy=True)  # as above
        if converted.isinf().any():
            largest = float(result.nan_to_num().abs().max())
            raise InputError(f"depth: results of up to {largest:g} are more than {dtype} holds, expected torch.float32")
        return converted

    def _pil(self, rgb: Any, depth: Any, valid: Any, size: tuple[int, int] | None, fill: str) -> Any:
        from PIL import ExifTags, Image

        values, integers = np.asarray(depth), depth.mode.startswith("I")
        if not integers and depth.mode != "F":
            raise InputError(f"depth: a PIL image of mode {depth.mode}, expected F (metres) or I, I;16 (millimetres)")
        if not hasattr(rgb, "getbands"):
            raise InputError(f"rgb: got {type(rgb).__name__}, expected a PIL image, as depth is one")
        if integers and (values < 0).any():
            raise InputError(f"depth: a PIL image that holds {values.min()}, expected no values below 0")
        orientation = 1
        with suppress(Exception):  # damaged EXIF raises many kinds, and is not needed
            orientation = depth.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1:
            log.warning("depth: is taken as stored, not turned by its orientation (%s); rgb is turned", orientation)
        metres = np.where(values > 0, values / 1000, np.nan) if integers else values
        run = self.run(rgb, metres, valid, size, fill)
        if not integers:
            return Image.fromarray(run.depth)
        result = without_overshoots(run, fill).depth
        millimetres = np.floor(np.nan_to_num(result.astype(np.float64)) * 1000 + 0.5)
        if millimetres.max() > 65535:
            raise InputError(f"depth: {np.nanmax(result):.6g} m is more than 16-bit millimetres hold")
        return Image.fromarray(millimetres.astype(np.uint16))


def upsample(
    rgb: Any,
    depth: Any,
    model: Model = None,
    *,
    valid: Any = None,
    size: tuple[int, int] | None = None,
    fill: str = "near",
) -> Any:
    """Depth at the resolution of the RGB image: `Upsampler(model)(rgb, depth, ...)`, which says the rest.

    Args:
        rgb: uint8 `[H, W, 3]`, red first.
        depth: `[h, w]`, metres (or any unit), NaN where there is no measurement.
        model, valid, size, fill: as of `Upsampler`.

    Returns:
        float32 `[H, W]` in the unit of `depth`; NaN where no measurement supports an estimate.

    Raises:
        InputError: wrong type, shape or size, no valid sample, no such model.
    """
    return Upsampler(model)(rgb, depth, valid=valid, size=size, fill=fill)


def without_overshoots(run: Upsampled, fill: str) -> Upsampled:
    """A result of depth above 0 without estimates of less than half the nearest measurement.

    Those lie beside depth edges, and could even be negative. They become unknown, or where everything is to be filled
    as the nearest pixel that is none. Changed in place.
    """
    overshoots = run.depth < run.smallest / 2
    if overshoots.any():
        for plane in (run.depth, run.expected_error):
            if plane is not None and fill == "all":
                plane[:] = fill_from_nearest(plane, ~overshoots)
            elif plane is not None:
                plane[overshoots] = np.nan
    return run


def default_model(ratio: float) -> str:
    """The network in the box for pairs of a ratio, for sensors if there is one: see `LARGEST_RATIO`.

    Up to 8 that is the network of the next power of two, whose result is made smaller, which is better than one that is
    made larger, however little: at 4.4 `sensor-x8` errs by a tenth less than `sensor-x4`, at 1.1 `sensor-x2` by a third
    less than `sensor-x1`.

    Raises:
        InputError: the box is empty.
    """
    names = shipped_names()
    for prefix, all_scales in (("sensor-x", SCALES_OF_SENSORS), ("x", SCALES)):
        scales = [s for s in all_scales if f"{prefix}{s}" in names]
        if scales:
            return f"{prefix}{next((s for s in scales if ratio <= LARGEST_RATIO.get(s, math.inf)), scales[-1])}"
    raise InputError("model: there are no weights in the box; expected a file, or a baseline such as bicubic")


def default_models() -> list[str]:
    """All that `default_model` may name."""
    return [default_model(scale) for scale in SCALES_OF_SENSORS]


def warn_of_precision(precision: str, device: torch.device | None = None) -> None:
    """Warn of bf16 on a processor that has none, as far as torch can tell."""
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch have none
    on_cpu = device is None or device.type == "cpu"
    if precision == "bf16" and on_cpu and has and not any(has[name] for name in has if "bf16" in name):
        log.warning("this processor has no bf16, which is several times slower here than float32")


def resolve_model(model: str | Path | DDFUpNet, factor: int, device: str | None = None) -> DDFUpNet:
    """The network that `model` means where exactly this factor is asked for, as in an evaluation; `device` as above.

    Raises:
        InputError: no such model, or one of another factor.
    """
    net, name = Upsampler(model, device)._network(factor)
    if net.config.scale != factor:
        name = "the model" if isinstance(model, DDFUpNet) else name
        raise UsageError(f"{name}: upsamples by {net.config.scale}, expected a model for the scale {factor}")
    return net


def _unmasked(depth: Any, valid: Any) -> tuple[np.ndarray, Any]:
    """An array, and what is valid of it, by the mask of a masked array too."""
    _check_no_path("depth", depth)
    if np.ma.getmask(depth) is np.ma.nomask:
        try:
            return np.asarray(depth), valid
        except ValueError:  # a list of arrays of different sizes
            raise InputError(f"depth: got a {type(depth).__name__} that is no array, expected [h, w]") from None
    seen = ~np.ma.getmaskarray(depth)
    return depth.data, seen if valid is None else seen & _checked(valid, depth.shape)


def _check_no_path(name: str, image: Any) -> None:
    if isinstance(image, str | Path):
        raise InputError(f"{name}: got a path, expected an array; depthup.data.read_{name}({str(image)!r}) gives one")


def _checked(valid: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What is valid, as an array of that shape."""
    valid = np.ma.filled(valid, False)
    if valid.shape != shape or valid.dtype != bool:
        raise InputError(f"valid: got {valid.dtype} {list(valid.shape)}, expected bool {list(shape)}, as depth")
    return valid


def _upright(image: Any) -> np.ndarray:
    """uint8 `[H, W, 3]` of a PIL image, turned as its EXIF data say."""
    from PIL import ImageOps

    if image.mode.startswith(("I", "F")):
        raise InputError(f"rgb: a PIL image of mode {image.mode}, expected 8 bits a channel, such as RGB")
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _check_depth(depth: np.ndarray, valid: Any) -> None:
    """Check shape and type, and that integers say what their zeros mean."""
    if depth.ndim != 2 or depth.dtype.kind not in "fiu" or 0 in depth.shape:
        raise InputError(f"depth: got {depth.dtype} {list(depth.shape)}, expected real numbers [h, w]")
    zeros = depth.size - np.count_nonzero(depth)
    if depth.dtype.kind in "iu" and valid is None and zeros:
        raise InputError(
            f"depth: {zeros} of its integers are 0; expected valid=depth > 0 if that is no measurement, else floats"
        )
    if depth.dtype.kind == "f" and valid is None and zeros > 1 and not (depth[np.isfinite(depth)] < 0).any():
        log.warning(
            "depth: %d of its %d samples are 0 and are taken as measured; expected NaN or valid=depth > 0 if that is no"
            " measurement, else valid=np.isfinite(depth)",
            *(zeros, depth.size),
        )


def _check_batch(rgb: Any, depth: Any, expected: str) -> None:
    shape = list(getattr(rgb, "shape", ()))
    if depth.ndim != 3 or len(shape) != 4:
        found = shape or f"a {type(rgb).__name__}"
        raise InputError(
            f"depth: got {list(depth.shape)} with rgb {found}, expected [h, w], or [B, h, w] with rgb {expected}"
        )


def _pairs_of_batch(rgb: Any, depth: Any, valid: Any) -> list[tuple[Any, Any, Any]]:
    """RGB, depth and mask (None without one) of every pair."""
    masks = [None] * len(depth) if valid is None else valid
    for name, batch in (("rgb", rgb), ("valid", masks)):
        if not hasattr(batch, "__len__") or getattr(batch, "ndim", 1) == 0:
            raise InputError(f"{name}: got {type(batch).__name__}, expected a batch of {len(depth)}, as depth is")
        if len(batch) != len(depth):
            raise InputError(f"{name}: a batch of {len(batch)}, expected {len(depth)}, as many as depth has")
    if not len(depth):
        raise InputError("depth: a batch of 0, expected at least one pair")
    return list(zip(rgb, depth, masks, strict=True))


@lru_cache(maxsize=8)
def _load_once(path: Path, changed: tuple[int, ...], device: str) -> DDFUpNet:
    """The model in a file; `changed`, which every writing changes, makes a rewritten file be read again."""
    return load_model(path, device)


def mean_ratio(size: tuple[int, int], low: tuple[int, ...]) -> float:
    """Pixels per sample along an axis, the geometric mean of both axes."""
    return math.sqrt(size[0] / low[0] * (size[1] / low[1]))


def check_size(size: Any) -> None:
    """Check that a size is None, or two whole numbers."""
    if size is None:
        return
    pair = isinstance(size, tuple | list) and len(size) == 2
    if not pair or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in size):
        raise InputError(f"size: got {size!r}, expected (width, height) in whole pixels")
    if min(size) > 0 and int(size[0]) * int(size[1]) > MOST_PIXELS:
        raise UsageError(f"size: got {size[0]}x{size[1]}, expected at most {MOST_PIXELS / 1e6:.0f} megapixels")


def _check_sizes(rgb: Tensor, depth: np.ndarray, size: tuple[int, int]) -> None:
    (H, W), (h, w) = rgb.shape[2:], depth.shape
    if h > H or w > W:
        raise InputError(
            f"rgb: smaller than depth: RGB is {W}x{H} and depth {w}x{h}; expected RGB at least as large as depth"
        )
    if size[0] < w or size[1] < h:
        raise InputError(f"size: got {size[0]}x{size[1]}, expected at least that of depth, {w}x{h}")


def fill_from_nearest(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`depth [h, w]` with every sample that is not `valid` replaced by its nearest valid one."""
    return _fill(depth, valid)[0]


def _fill(depth: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filled depth, and float32 `[h, w]`: how many samples away the nearest valid one is."""
    if valid.all():
        return depth, np.zeros(depth.shape, np.float32)
    distance, (rows, columns) = distance_transform_edt(~valid, return_indices=True)
    return depth[rows, columns], distance.astype(np.float32)


def _warn_of_density(scale: int, name: str, known: np.ndarray) -> None:
    """Warn where a network that was named gets fewer samples than it needs, and others would do better."""
    there, needed = density(known), least_density(scale)
    if there < needed and scale < SCALES[-1]:
        log.warning(
            "%s: of the samples beside measured ones %.0f %% are measured, and it needs %.0f %%; expected a network"
            " for a larger ratio, or the default",
            *(name, 100 * there, 100 * needed),
        )


def _run_network(net: DDFUpNet, rgb: Tensor, depth: np.ndarray, valid: np.ndarray, bf16: bool) -> Tensor:
    """float32 `[1, 1 or 2, s*h, s*w]`: depth, and the logarithm of the expected error, in the range of `depth`."""
    config = net.config
    size = [n * config.scale for n in depth.shape]
    low = torch.from_numpy(depth)[None, None]
    if depth.min() == depth.max():  # no range to normalise by; only a constant follows every affine change
        return torch.zeros((1, 2 if config.sensor else 1, *size), dtype=torch.float32)
    device = next(net.parameters()).device
    low_range = torch.stack([low.min(), low.max()])[None]
    image = _resize(rgb.to(device), size)
    seen = torch.from_numpy(valid)[None, None].to(device)
    below, right = (-n % config.unshuffle for n in depth.shape)
    low = normalise(low, low_range).float().to(device)
    if below or right:  # up to whole cells of the coarsest level, so that a plane stays one
        n, beyond = max(below, right), (0, right, 0, below)
        low = extrapolate(low, n)[..., n : low.shape[2] + n + below, n : low.shape[3] + n + right]
        image = F.pad(image.float(), [side * config.scale for side in beyond], mode="replicate").byte()
        seen = F.pad(seen, beyond)
    # Whatever autocast the caller is in, which may train the network and must not find copies of its weights from here.
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
        return run_network(net, low, image, seen)[..., : size[0], : size[1]]


def _resize(rgb: Tensor, size: list[int]) -> Tensor:
    """uint8 `[1, 3, H, W]` of another size, anti-aliased, half-pixel centres."""
    if list(rgb.shape[2:]) == size:
        return rgb
    image = F.interpolate(rgb.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    return image.round_().clamp_(0, 255).byte()


def _nearest(plane: np.ndarray, size: tuple[int, int]) -> Tensor:
    """`[h, w]` to float32 `[1, 1, H, W]`: of every pixel that of the sample whose cell it is in."""
    return F.interpolate(torch.from_numpy(plane)[None, None].float(), size=size, mode="nearest-exact")


def _to_grid(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """`[1, C, H, W]` to float32 on another grid over the same area, half-pixel centres; a new tensor.

    Every pixel of an axis is a slope, which keeps planes. A new pixel is what is at its centre or, where the axis
    becomes f times shorter, the mean over f - 1 old ones around it: interpolation between pixels, or a mean over f, all
    that the new one covers, would blur depth edges.
    """
    made = plane.float()
    for dim, n in zip((2, 3), size, strict=True):
        if n != made.shape[dim]:
            old, across = made, 5 - dim
            made = old.new_empty([*old.shape[:dim], n, *old.shape[dim + 1 :]])
            for lines, place in zip(old.split(_LINES, across), made.split(_LINES, across), strict=True):
                place.copy_(_to_length(lines, dim, n))
    return made.clone() if plane.shape[2:] == size else made


def _to_length(plane: Tensor, dim: int, n: int) -> Tensor:
    """One axis of `_to_grid`."""
    m = plane.shape[dim]
    line = torch.cat([_beyond(plane, dim), plane, _beyond(plane.flip(dim), dim)], dim).double()
    centre, width = (torch.arange(n, dtype=torch.float64) + 0.5) * m / n, max(m / n - 1, 0.01)
    ends = torch.cat([centre - width / 2, centre + width / 2])
    before, after = _sum_until(line, dim, ends).chunk(2, dim)
    return ((after - before) / width).float()


def _slopes(line: Tensor, dim: int) -> Tensor:
    """Of all pixels of an axis but the first and the last; 0 at a peak, and none beyond a neighbour's value.

    That is the monotonized central limiter (van Leer, 1977): a depth edge does not overshoot.
    """
    steps = line.diff(dim=dim)
    before, after = steps.narrow(dim, 0, steps.shape[dim] - 1), steps.narrow(dim, 1, steps.shape[dim] - 1)
    central = (before + after) / 2
    most = 2 * torch.minimum(before.abs(), after.abs())
    return torch.where(before.sign() == after.sign(), torch.minimum(torch.maximum(central, -most), most), 0)


def _sum_until(line: Tensor, dim: int, places: Tensor) -> Tensor:
    """The integral along an axis of n pixels, given with one more at either end, up to places, float64, 0 to n."""
    inner = line.narrow(dim, 1, line.shape[dim] - 2)
    total = F.pad(inner.cumsum(dim), (0, 0, 1, 0) if dim == 2 else (1, 0))
    places = places.to(line.device)
    pixel = places.long().clamp(max=inner.shape[dim] - 1)
    part = places - pixel
    part = part.view(-1, 1) if dim == 2 else part
    whole, value, slope = (t.index_select(dim, pixel) for t in (total, inner, _slopes(line, dim)))
    return whole + value * part - slope * part * (1 - part) / 2


def _beyond(plane: Tensor, dim: int) -> Tensor:
    """One more pixel before the first of an axis, on its slope, or on the next pixels' if that is less steep.

    A plane goes on as it is, and a depth edge at the border does not overshoot.
    """
    if plane.shape[dim] < 3:
        return plane.narrow(dim, 0, 1)
    first, second, third = plane.narrow(dim, 0, 3).split(1, dim)
    slope, next_slope = second - first, third - second
    smaller = torch.where(slope.abs() < next_slope.abs(), slope, next_slope)
    return first - torch.where(slope.sign() == next_slope.sign(), smaller, 0)
