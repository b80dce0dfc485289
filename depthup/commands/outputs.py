"""The files that `upsample` and `batch` write: which ones, whether they may be written, and how."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depthup.data import Camera, Frame, UsageError
from depthup.data.real_path import real_path
from depthup.depth_files import (
    DEPTH_OUTPUT_SUFFIXES,
    IMAGE_OUTPUT_SUFFIXES,
    check_output,
    write_confidence,
    write_depth,
    write_image,
)
from depthup.pair_files import PairArrays, PairOptions, camera_of, check_confidence, confidence_of
from depthup.ply import PLY_SUFFIXES, write_ply
from depthup.upsampling import Upsampled, Upsampler
from depthup.visualize import colourise

log = logging.getLogger("depthup")


@dataclass(frozen=True)
class Outputs:
    """Files that `upsample_files` writes; None = not asked for.

    Args:
        depth: the result.
        unit, scale: of a 16-bit result; without both the unit of the input, or millimetres where that is metres.
        preview, normals: pictures.
        confidence: confidence map, 0..1.
        cloud: PLY file, a coloured point cloud; a mesh with `mesh`.
        camera: intrinsics of the RGB image, for `normals` and `cloud`.
    """

    depth: Path
    unit: str | None = None
    scale: float | None = None
    preview: Path | None = None
    normals: Path | None = None
    confidence: Path | None = None
    cloud: Path | None = None
    mesh: bool = False
    camera: Camera | None = None

    @property
    def needs_camera(self) -> bool:
        return bool(self.normals or self.cloud)

    def others(self) -> dict[Path, str]:
        """The files beside the result, and what decides each of them beside it."""
        facts = {"--normals": f"{self.camera}", "--ply": f"{self.camera} {self.mesh}"}
        return {path: facts.get(option, "") for option, path in self.files().items() if option != "--out"}

    def files(self) -> dict[str, Path]:
        """Option -> file, of those that were asked for."""
        files = {
            "--out": self.depth,
            "--preview": self.preview,
            "--normals": self.normals,
            "--confidence-out": self.confidence,
            "--ply": self.cloud,
        }
        return {option: path for option, path in files.items() if path}


@dataclass(frozen=True)
class BatchOutputs:
    """Files that `batch_files` writes for a pair NAME: NAME.png or the like, and what else is asked for.

    Args:
        suffix, unit, scale: of the result, as of `Outputs`.
        preview, normals, confidence, cloud: also NAME.preview.jpg, NAME.normals.png, NAME.confidence.png, NAME.ply.
        mesh: NAME.ply is a mesh.
        camera: intrinsics of every RGB image; None = those of the recording.
    """

    suffix: str = ".png"
    unit: str | None = None
    scale: float | None = None
    preview: bool = False
    normals: bool = False
    confidence: bool = False
    cloud: bool = False
    mesh: bool = False
    camera: Camera | None = None

    @property
    def needs_camera(self) -> bool:
        return self.normals or self.cloud

    def of(self, folder: Path, frame: Frame) -> Outputs:
        """The files of a frame."""

        def named(wanted: bool, suffix: str) -> Path | None:
            return folder / f"{frame.name}{suffix}" if wanted else None

        return Outputs(
            folder / f"{frame.name}{self.suffix}",  # a name such as 1305031102.1753 has dots, so not `with_suffix`
            self.unit,
            self.scale,
            preview=named(self.preview, ".preview.jpg"),
            normals=named(self.normals, ".normals.png"),
            confidence=named(self.confidence, ".confidence.png"),
            cloud=named(self.cloud, ".ply"),
            mesh=self.mesh,
            camera=self.camera or frame.camera,
        )


_SUFFIXES = {
    "--out": DEPTH_OUTPUT_SUFFIXES,
    "--preview": IMAGE_OUTPUT_SUFFIXES,
    "--normals": IMAGE_OUTPUT_SUFFIXES,
    "--confidence-out": DEPTH_OUTPUT_SUFFIXES,
    "--ply": PLY_SUFFIXES,
}


def check_outputs(out: Outputs, inputs: list[Path], overwrite: bool) -> None:
    """Check that every file can be written, before anything is computed for it.

    Raises:
        InputError: one cannot be written.
        UsageError: one is an input, or the same as another, or cannot have the unit or scale that is asked for.
    """
    seen: dict[Path, str] = {}
    for option, path in out.files().items():
        for source in inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise UsageError(f"{path}: {option} is the input {source}; expected another file")
        check_output(path, overwrite, _SUFFIXES[option])
        if other := seen.get(real_path(path)):
            raise UsageError(f"{path}: {option} and {other} are the same file; expected two")
        seen[real_path(path)] = option
    check_unit(out.depth.suffix, out.unit, out.scale)


def check_unit(suffix: str, unit: str | None, scale: float | None = None) -> None:
    """Refuse a unit for floats, which are metres, as not every format has room to say otherwise; and a bad scale."""
    if unit and scale is not None:
        raise UsageError("expected --out-unit or --out-scale, got both")
    if scale is not None and not 0 < scale < math.inf:
        raise UsageError(f"--out-scale: got {scale:g}, expected steps per metre > 0")
    if suffix.lower() != ".png" and (unit or scale):
        option = "--out-unit" if unit else "--out-scale"
        raise UsageError(f"{option}: is for the integers of a .png, and a {suffix} file holds float metres; got both")


def check_pair(out: Outputs, upsampler: Upsampler, pair: PairArrays, options: PairOptions, rgb: Path) -> None:
    """Check that what was read can become every file, before anything is computed: first the camera, then confidence.

    Raises:
        InputError: the camera is that of another image, or the network for this pair does not tell its error.
    """
    if out.needs_camera:
        assert out.camera is not None
        camera_of(out.camera, pair.rgb, rgb)
    if out.confidence:
        check_confidence(upsampler, pair, options)


def write_output(
    path: Path, out: Outputs, rgb: np.ndarray, run: Upsampled, options: PairOptions, overwrite: bool
) -> None:
    """Write one of the files of `out`."""
    if path == out.depth:
        facts = {"model": run.model}
        if options.precision != "float32":
            facts["precision"] = options.precision
        if run.gathered > 1:
            facts["gathered"] = f"{run.gathered}x{run.gathered}"
        if run.isolated:
            facts["isolated"] = str(run.isolated)
        write_depth(path, run.depth, _out_unit(out.unit, options), overwrite, out.scale, facts)
    elif path == out.preview:
        write_image(path, colourise(run.depth), overwrite)
    elif path == out.confidence:
        confidence = confidence_of(run)
        if not confidence.any():
            log.warning("%s: is 0 everywhere: depth of one value does not tell how far off it may be", path)
        write_confidence(path, confidence, overwrite)
    else:
        _write_geometry(path, out, rgb, run.depth, overwrite)


def _out_unit(unit: str | None, options: PairOptions) -> str:
    given = options.encoding.integers if options.encoding.unit == "auto" else options.encoding.unit
    return unit or ("mm" if given == "m" else given)


def _write_geometry(path: Path, out: Outputs, rgb: np.ndarray, depth: np.ndarray, overwrite: bool) -> None:
    from depthup.cloud import mesh, on_surface, point_cloud
    from depthup.surface import normals
    from depthup.visualize import colourise_normals

    assert out.camera is not None
    height, width = depth.shape
    camera = out.camera.of_image(rgb.shape[1], rgb.shape[0]).scaled_to(width, height)
    if rgb.shape[:2] != depth.shape:
        grows = width * height > rgb.shape[0] * rgb.shape[1]
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    if path == out.normals:
        write_image(path, colourise_normals(normals(depth, camera)), overwrite)
    elif out.mesh:
        vertices, colours, faces = mesh(depth, camera, rgb)
        if not len(faces):
            log.warning("%s: an empty mesh: no three neighbours of its depth are on one surface", path)
        write_ply(path, vertices, colours, faces=faces, overwrite=overwrite)
    else:
        surface = on_surface(depth, camera)
        if not surface.any():
            log.warning("%s: an empty cloud: no point of its depth has neighbours on its surface", path)
        points, colours = point_cloud(np.where(surface, depth, np.nan), camera, rgb)
        normal = normals(depth, camera)[surface]
        write_ply(path, points, colours, normal, overwrite=overwrite)
