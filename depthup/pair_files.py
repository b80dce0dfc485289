"""One pair of files: read, aligned, upsampled; what `depthup upsample` and `depthup batch` share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from depthup.baselines import BASELINES
from depthup.data import Camera, DepthEncoding, InputError, read_confidence, read_depth, read_mask, read_rgb
from depthup.data.depth_encoding import warn_of_unit
from depthup.data.isolated import isolated
from depthup.tiles import is_out_of_memory
from depthup.upsampling import Upsampled, Upsampler, mean_ratio, without_overshoots

HALF_CONFIDENCE = 0.01
"""Expected error, relative to depth, whose confidence is a half."""

FAR_BEYOND = 100.0
"""How many times the median depth a sample may be before it is doubted."""

SUSPICIOUS_CENTRE = 0.2
"""How far from the middle of an image, as a part of its side, a principal point may be before its size is doubted."""

SUSPICIOUS_ASPECT = 1.15
"""How much more often than in one direction depth may be enlarged in the other before its view is doubted."""

log = logging.getLogger("depthup")


@dataclass(frozen=True)
class Alignment:
    """A sensor that stands beside the RGB camera.

    Args:
        depth_camera: its intrinsics.
        depth_to_rgb: `[4, 4]`, a point in the frame of the depth camera to that of the RGB camera, metres.
    """

    depth_camera: Camera
    depth_to_rgb: np.ndarray

    def __str__(self) -> str:
        return f"{self.depth_camera} {self.depth_to_rgb.tolist()}"


@dataclass(frozen=True)
class PairOptions:
    """How pairs are read and upsampled.

    Args:
        model, device, precision, keep_isolated: as of `Upsampler`.
        encoding: what the values of depth files mean.
        min_confidence: samples of lower confidence (0 low, 1 medium, 2 high) are not trusted, where there is a
            confidence map.
        size, fill: as of `Upsampler`.
        alignment: if depth is not in the view of RGB yet.
    """

    model: str | None = None
    device: str | None = None
    encoding: DepthEncoding = field(default_factory=DepthEncoding)
    min_confidence: int = 1
    size: tuple[int, int] | None = None
    fill: str = "near"
    alignment: Alignment | None = None
    precision: str = "float32"
    keep_isolated: bool = False

    def upsampler(self) -> Upsampler:
        """The one that they ask for; isolated samples are told before depth is aligned, which draws each as a cell."""
        return Upsampler(self.model, self.device, self.precision, self.keep_isolated or self.alignment is not None)


@dataclass(frozen=True)
class PairArrays:
    """What was read: uint8 `[H, W, 3]`; float32 `[h, w]` in metres, NaN where not measured or not trusted.

    Of aligned depth: `guess` is as of `Upsampler.run`, and so many samples were left out as `isolated`.
    """

    rgb: np.ndarray
    depth: np.ndarray
    guess: np.ndarray | None = None
    isolated: int = 0


def read_pair(
    rgb: Path,
    depth: Path,
    options: PairOptions,
    mask: Path | None = None,
    confidence: Path | None = None,
    camera: Camera | None = None,
) -> PairArrays:
    """Read a pair, its mask (not 0 = valid) and its confidence map, and align depth to the RGB image's camera if asked.

    Raises:
        InputError: a file is bad or of another size, or no sample is left.
    """
    image, values = read_rgb(rgb), read_depth(depth, options.encoding)
    valid = np.isfinite(values)
    if not valid.any():
        raise InputError(f"{depth}: none of its {values.size} samples is valid; expected at least one measurement")
    if mask:
        valid &= read_mask(mask, values.shape)
    if confidence:
        valid &= read_confidence(confidence, values.shape) >= options.min_confidence
    if not valid.any():
        reason = " and ".join(str(path) for path in (mask, confidence) if path)
        leaves = "leave" if mask and confidence else "leaves"
        raise InputError(f"{depth}: {reason} {leaves} none of its samples; expected at least one")
    values = np.where(valid, values, np.float32(np.nan))
    if camera:
        view = camera_of(camera, image, rgb)
        _warn_of_centre(camera, image, rgb)
    if options.alignment:
        from depthup.alignment import align, aligned_size, behind_shadows  # compiles

        assert camera is not None
        sensor, pose = camera_of(options.alignment.depth_camera, values, depth), options.alignment.depth_to_rgb
        _warn_of_centre(options.alignment.depth_camera, values, depth)
        apart = np.zeros_like(valid)
        if not options.keep_isolated and options.model not in BASELINES:
            apart = isolated(values, valid)
            values[apart] = np.nan
        width, height = aligned_size(sensor, view)
        if options.size:
            width, height = min(width, options.size[0]), min(height, options.size[1])
        values = align(values, sensor, view, pose, (width, height))
        if not np.isfinite(values).any():
            raise InputError(
                f"{depth}: none of its samples is seen by the RGB camera; expected cameras that look alike"
            )
        return PairArrays(image, values, behind_shadows(values, view, pose), int(apart.sum()))
    return PairArrays(image, values)


def warn_of_depth(pair: PairArrays, run: Upsampled, path: Path) -> None:
    """Warn of a median depth that no sensor measures, as comes of a wrong unit, and of a sample that is far beyond it.

    `run` is what was made of the pair, `path` the depth file's. One absurd sample spoils the range of the whole map.
    """
    median = float(np.nanmedian(pair.depth))
    warn_of_unit(path, median, "are --depth-unit and --depth-scale right?")
    if run.largest > FAR_BEYOND * median:
        log.warning(
            "%s: its farthest sample is %.4g m and its median %.3g m; if that means no measurement, name the file's"
            " value with --invalid",
            *(path, run.largest, median),
        )


def warn_of_shape(pair: PairArrays, options: PairOptions, rgb: Path, depth: Path) -> bool:
    """Warn, and return True, where depth has another shape than the result: a part of the view, say, or turned."""
    (h, w), (height, width) = pair.depth.shape, pair.rgb.shape[:2]
    W, H = options.size or (width, height)
    if max(W / w, H / h) <= SUSPICIOUS_ASPECT * min(W / w, H / h):
        return False
    ratio = f"x{W / w:.4g} by x{H / h:.4g}"
    if options.size:
        log.warning("--size %dx%d: is %s of %s: another shape squeezes the view of %s", W, H, ratio, depth, rgb)
    elif options.alignment:
        return False
    elif max(width / h, height / w) <= SUSPICIOUS_ASPECT * min(width / h, height / w):
        log.warning("%s: is %dx%d and %s %dx%d: is one of them turned by 90 degrees?", depth, w, h, rgb, width, height)
    else:
        log.warning("%s: %s: if it is not of the whole view of %s, the result is wrong", depth, ratio, rgb)
    return True


def _warn_of_centre(camera: Camera, image: np.ndarray, path: Path) -> None:
    """Warn of a camera that may be that of another image, where nothing else says of which it is."""
    height, width = image.shape[:2]
    off, off_turned = (
        max(abs((camera.cx + 0.5) / W - 0.5), abs((camera.cy + 0.5) / H - 0.5))
        for W, H in ((width, height), (height, width))
    )
    turned = off_turned < SUSPICIOUS_CENTRE / 4 and off > SUSPICIOUS_CENTRE / 2  # by its EXIF orientation
    if camera.width is None and (off > SUSPICIOUS_CENTRE or turned):
        log.warning(
            "%s: is %dx%d, and the principal point %g,%g is far from its middle; are fx,fy,cx,cy those of an image of"
            " this size, and turned as it is?",
            *(path, width, height, camera.cx, camera.cy),
        )


def camera_of(camera: Camera, image: np.ndarray, path: Path) -> Camera:
    """The camera of an image `[H, W, ...]`, once it is certain that it has its size; an InputError names the file."""
    try:
        return camera.of_image(image.shape[1], image.shape[0])
    except InputError as error:
        raise InputError(f"{path}: its {error}") from None


def upsample_pair(upsampler: Upsampler, pair: PairArrays, options: PairOptions, name: str) -> Upsampled:
    """Upsample what was read; `name` is what to call the pair in messages.

    There are no overshoots in it, see `without_overshoots`.

    Raises:
        InputError: sizes do not fit.
        MemoryError: the result does not fit into memory.
    """
    try:
        run = upsampler.run(pair.rgb, pair.depth, None, options.size, options.fill, pair.guess)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        W, H = options.size or pair.rgb.shape[1::-1]
        raise MemoryError(f"{name}: not enough memory for {W}x{H} pixels; expected a smaller size") from None
    return without_overshoots(replace(run, isolated=run.isolated + pair.isolated), options.fill)


def check_confidence(upsampler: Upsampler, pair: PairArrays, options: PairOptions) -> None:
    """Check that `upsample_pair` of these will tell its error.

    Raises:
        InputError: it will not.
    """
    W, H = options.size or pair.rgb.shape[1::-1]
    upsampler.check_tells_error(mean_ratio((H, W), pair.depth.shape))


def confidence_of(run: Upsampled) -> np.ndarray:
    """float32 `[H, W]`, 0..1: `1 / (1 + e / (0.01 d))` of the expected error e and depth d; 0 where unknown.

    The model must tell its error, see `check_confidence`.
    """
    assert run.expected_error is not None
    relative = run.expected_error / np.abs(run.depth)
    return np.nan_to_num(1 / (1 + relative / np.float32(HALF_CONFIDENCE)), nan=0.0)
