"""`depthup batch`: every pair of two folders, or of a recording."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from depthup import __version__
from depthup.baselines import BASELINES
from depthup.batch import BatchProgress, BatchResult, Job, run_batch
from depthup.commands.outputs import BatchOutputs, check_pair, check_unit, write_output
from depthup.data import DepthEncoding, Frame, InputError, Recording, open_recording, pair_folders, read_rgb, with_maps
from depthup.data.extras import load_extra
from depthup.data.pairing import MAXIMAL_DIFFERENCE
from depthup.data.planes import read_plane
from depthup.depth_files import check_output_folder
from depthup.journal import digest
from depthup.pair_files import PairArrays, PairOptions, read_pair, upsample_pair, warn_of_depth, warn_of_shape
from depthup.upsampling import Upsampled, default_models, warn_of_precision
from depthup.weights import weights_path

log = logging.getLogger("depthup")

TIME_OF_TUM = re.compile(r"\d{10}\.\d{6}")
"""Names of the images in TUM's recordings: seconds since 1970."""


@dataclass(frozen=True)
class Source:
    """Where the pairs of a batch are.

    Args:
        rgb: folder of images, or without `depth` a recording.
        depth: folder of depth maps.
        maps: folders by what they hold for every depth map: `mask`, `confidence`, see `with_maps`.
        needs_confidence: confidence maps must come from there or from the recording.
        maximal_difference: of time stamps that make a pair, in seconds.
    """

    rgb: Path
    depth: Path | None = None
    maps: Mapping[str, Path] = field(default_factory=dict)
    needs_confidence: bool = False
    maximal_difference: float = MAXIMAL_DIFFERENCE

    def open(self, out: Path) -> Recording:
        """The pairs and their maps; `out`, the folder of the results, is not searched.

        Raises:
            InputError: no pairs, the two folders look swapped, or there are no confidence maps and must be.
        """
        if self.depth:
            recording = pair_folders(self.rgb, self.depth, out, self.maximal_difference)
            if all(_looks_swapped(frame) for frame in recording.frames[:3]):
                raise InputError(
                    f"{self.rgb}, {self.depth}: look swapped: {recording.frames[0].rgb} is a depth map and"
                    f" {recording.frames[0].depth} a picture; expected RGB_DIR DEPTH_DIR"
                )
        else:
            recording = open_recording(self.rgb, out, self.maximal_difference)
        for kind, folder in self.maps.items():
            recording = with_maps(recording, folder, kind, out, self.maximal_difference)
        has_confidence, unused = "confidence" in _kinds(recording), self.rgb / "confidence"
        if not self.depth and not has_confidence and unused.is_dir():
            log.warning("%s: is not used; expected --confidence %s if these are confidence maps", unused, unused)
        if self.needs_confidence and not has_confidence:
            raise InputError(
                f"{self.rgb}: --min-confidence is for confidence maps, and none are here; expected --confidence"
            )
        return recording


def batch_files(
    source: Source,
    out: Path,
    wanted: BatchOutputs,
    options: PairOptions,
    overwrite: bool,
    report: Callable[[str], None],
    progress: Callable[[BatchProgress], None],
) -> tuple[BatchResult, tuple[Path, ...], int]:
    """Upsample every pair of `source` to files in the folder `out`.

    Returns:
        What became of the pairs, the files without a partner, and how many isolated samples were left out.

    Raises:
        InputError: see `Source.open`; nothing may be written to `out`; or point clouds, normals or an alignment are
            wanted, and neither `wanted` nor the recording has a camera.
    """
    check_unit(wanted.suffix, wanted.unit, wanted.scale)
    check_output_folder(out)
    if wanted.suffix == ".exr":
        load_extra(f"{out}: --format exr", "OpenEXR", "exr")
    recording = source.open(out)
    kinds = _kinds(recording)
    needs_camera = wanted.needs_camera or options.alignment is not None
    if needs_camera and not wanted.camera and not any(frame.camera for frame in recording.frames):
        if fault := next((frame.camera_fault for frame in recording.frames if frame.camera_fault), ""):
            raise InputError(fault)
        raise InputError(
            f"{source.rgb}: --align, --ply and --normals need the camera, and no intrinsics are here; expected"
            " --intrinsics"
        )
    upsampler = options.upsampler()
    warn_of_precision(options.precision, upsampler.device)
    if wanted.confidence and options.model:
        upsampler.check_tells_error()
    if recording.depth_unit != "auto":
        options = replace(options, encoding=options.encoding.with_default(recording.depth_unit))
    if recording.other_view and not options.alignment:
        log.warning("%s", recording.other_view)
    report(f"{recording.title}: {len(recording.frames)} pairs, depth in {_unit(options.encoding, recording)}")
    for path in recording.unpaired[:5]:
        report(f"{path}: has no partner")
    if len(recording.unpaired) > 5:
        report(f"... and {len(recording.unpaired) - 5} more files without a partner")
    frames = {frame.name: frame for frame in recording.frames}
    files = {frame.name: wanted.of(out, frame) for frame in recording.frames}
    jobs, warned, with_isolated = [], False, []
    for frame in recording.frames:
        inputs = tuple(path for path in (frame.rgb, frame.depth, frame.confidence, frame.mask) if path)
        facts = f"aligned to {files[frame.name].camera}" if options.alignment else ""
        jobs.append(Job(frame.name, inputs, files[frame.name].depth, files[frame.name].others(), facts))

    def read(job: Job) -> PairArrays:
        frame = frames[job.name]
        if needs_camera and not files[job.name].camera:
            raise InputError(
                frame.camera_fault
                or f"{frame.rgb}: the recording has no intrinsics of this image; expected --intrinsics"
            )
        for kind in kinds:
            if getattr(frame, kind) is None:
                raise InputError(f"{frame.depth}: has no {kind} map, as others here have; expected one of its name")
        camera = files[job.name].camera
        pair = read_pair(frame.rgb, frame.depth, options, frame.mask, frame.confidence, camera)
        check_pair(files[job.name], upsampler, pair, options, frame.rgb)
        return pair

    def compute(job: Job, pair: PairArrays) -> tuple[np.ndarray, Upsampled]:
        frame = frames[job.name]
        nonlocal warned
        warned = warned or warn_of_shape(pair, options, frame.rgb, frame.depth)  # of one pair: most are alike
        run = upsample_pair(upsampler, pair, options, f"{frame.rgb}, {frame.depth}")
        warn_of_depth(pair, run, frame.depth)
        if run.isolated:
            with_isolated.append(run.isolated)
        return pair.rgb, run

    def write(job: Job, path: Path, result: tuple[np.ndarray, Upsampled], replaces: bool) -> None:
        write_output(path, files[job.name], *result, options, replaces)

    result = run_batch(
        jobs, out, read, compute, write, _settings(options, wanted, source.maps, recording), overwrite, progress
    )
    if with_isolated:
        number, pairs = sum(with_isolated), len(with_isolated)
        report(f"isolated samples left out: {number}, in pairs: {pairs}; --keep-isolated uses them")
    return result, recording.unpaired, sum(with_isolated)


def _kinds(recording: Recording) -> list[str]:
    """What its depth maps have maps of."""
    return [kind for kind in ("mask", "confidence") if any(getattr(frame, kind) for frame in recording.frames)]


def _unit(encoding: DepthEncoding, recording: Recording) -> str:
    """What the values of depth files are taken for, in words."""
    if encoding.kind != "depth":
        return f"files of {encoding.kind}"
    if encoding.scale is not None:
        return f"files that hold {encoding.scale:g} for a metre"
    if encoding.unit != "auto":
        return f"the unit {encoding.unit}"
    if recording.depth_unit != "auto":
        return f"the unit {encoding.integers} (integers) or m (floats), or as recorded in the files"
    if all(TIME_OF_TUM.fullmatch(frame.depth.stem) for frame in recording.frames):
        return "mm or as recorded, though they are named like a recording of TUM; if they are one, --depth-unit tum"
    return "mm (integers) or m (floats), or as recorded in the files"


def _looks_swapped(frame: Frame) -> bool:
    """Whether what should be RGB is one channel of more than 8 bits, and what should be depth is a picture."""
    if not (frame.rgb.is_file() and frame.depth.is_file()):  # a pipe can be read once
        return False
    try:
        plane, _ = read_plane(frame.rgb, "depth")
        read_rgb(frame.depth)
    except InputError:
        return False
    return plane.dtype.itemsize > 1


def _settings(
    options: PairOptions, wanted: BatchOutputs, maps: Mapping[str, Path], recording: Recording
) -> dict[str, str]:
    """Everything that decides a result beside its inputs."""
    encoding = options.encoding
    facts = {
        **{f"--depth-{name}": getattr(encoding, name) for name in ("unit", "scale", "kind")},
        **({"--depth-unit": recording.depth_unit} if encoding.unit == "auto" else {}),
        **{f"--{name}": getattr(encoding, name) for name in ("focal", "baseline", "doffs")},
        "--invalid": " ".join(f"{value:.15g}" for value in encoding.invalid) or None,
        "--min-confidence": options.min_confidence,
        "--size": "x".join(map(str, options.size)) if options.size else None,
        "--fill": options.fill,
        "--align": options.alignment,
        **{f"--{kind}": "a folder" if kind in maps else None for kind in ("mask", "confidence")},
        "--model": options.model,
        "--precision": options.precision,
        "--keep-isolated": "yes" if options.keep_isolated else None,
        "depthup": __version__,
        "--format": wanted.suffix.removeprefix("."),
        "--out-unit": wanted.unit,
        "--out-scale": wanted.scale,
    }
    names = default_models() if options.model is None else [options.model]
    facts |= {f"weights {name}": digest(weights_path(name)) for name in names if name not in BASELINES}
    return {name: "its default" if value is None else str(value) for name, value in facts.items()}
