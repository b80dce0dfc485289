"""What each command does, between the command line and the rooms: files in, files out, plain facts returned."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import torch

from depthup import __version__
from depthup.baselines import BASELINES
from depthup.batch import BatchProgress, BatchResult, Job, run_batch
from depthup.checkpoint import load_checkpoint
from depthup.data import (
    STANDARD_SENSOR,
    Camera,
    DepthEncoding,
    Frame,
    InputError,
    PairDataset,
    Sensor,
    open_dataset,
    open_recording,
    pair_folders,
    read_rgb,
)
from depthup.data.planes import read_plane
from depthup.depth_files import (
    DEPTH_OUTPUT_SUFFIXES,
    IMAGE_OUTPUT_SUFFIXES,
    check_output,
    check_output_folder,
    write_confidence,
    write_depth,
    write_image,
)
from depthup.evaluation import Evaluation, Method, evaluate_methods, predict, resolve_method, write_csv
from depthup.journal import digest
from depthup.kernels import BACKENDS, why_not
from depthup.models import DDFUpNet
from depthup.pair_files import PairArrays, PairOptions, check_confidence, confidence_of, read_pair, upsample_pair
from depthup.ply import PLY_SUFFIXES
from depthup.recipes import RECIPES
from depthup.training import TrainConfig, TrainResult, train
from depthup.upsampling import Upsampled, Upsampler
from depthup.visualize import ScaleRow, colourise, methods_figure
from depthup.weights import read_metadata, shipped_names, weights_path

Progress = Callable[[str, float], None]

log = logging.getLogger("depthup")


class UsageError(InputError):
    """The command's options contradict each other."""


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
        suffix, unit: of the result, as of `Outputs`.
        preview, normals, confidence, cloud: also NAME.preview.jpg, NAME.normals.png, NAME.confidence.png, NAME.ply.
        mesh: NAME.ply is a mesh.
        camera: intrinsics of every RGB image; None = those of the recording.
    """

    suffix: str = ".png"
    unit: str | None = None
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


def upsample_files(
    rgb: Path,
    depth: Path,
    out: Outputs,
    options: PairOptions,
    mask: Path | None = None,
    confidence: Path | None = None,
    overwrite: bool = False,
) -> dict:
    """Upsample one pair of files.

    Returns:
        Facts of the result: files, size, ratio, model, seconds of upsampling, depth range in metres, fraction known.

    Raises:
        InputError: a file is bad, or cannot be written.
        UsageError: options contradict each other.
    """
    _check_outputs(out, [path for path in (rgb, depth, mask, confidence) if path], overwrite)
    if (out.normals or out.cloud) and not out.camera:
        raise UsageError("upsample: --ply and --normals need the camera; expected --intrinsics fx,fy,cx,cy or a file")
    upsampler = Upsampler(options.model, options.device)
    if out.confidence and options.model:
        upsampler.check_tells_error()
    pair = read_pair(rgb, depth, options, mask, confidence)
    if out.confidence:
        check_confidence(upsampler, pair, options)
    if out.normals or out.cloud:
        _check_camera(out, pair.rgb, rgb)
    upsampler.warm_up(pair.rgb, pair.depth, options.size)  # loading is not part of the time
    began = time.perf_counter()
    run = upsample_pair(upsampler, pair, options, f"{rgb}, {depth}")
    seconds = time.perf_counter() - began
    result = run.depth
    for path in out.files().values():
        _write(path, out, pair.rgb, run, options, overwrite)
    known = np.isfinite(result)
    return {
        "out": str(out.depth),
        "files": {option.removeprefix("--"): str(path) for option, path in out.files().items()},
        "size": [result.shape[1], result.shape[0]],
        "ratio": [round(n, 4) for n in run.ratio[::-1]],
        "model": run.model,
        "seconds": seconds,
        "depth_min": float(result[known].min()),
        "depth_max": float(result[known].max()),
        "known": float(known.mean()),
    }


def _check_outputs(out: Outputs, inputs: list[Path], overwrite: bool) -> None:
    seen: dict[Path, str] = {}
    for option, path in out.files().items():
        for source in inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise UsageError(f"{path}: {option} is the input {source}; expected another file")
        check_output(path, overwrite, _SUFFIXES[option])
        if other := seen.get(path.resolve()):
            raise UsageError(f"{path}: {option} and {other} are the same file; expected two")
        seen[path.resolve()] = option
    _check_unit(out.depth.suffix, out.unit, out.scale)


def _check_unit(suffix: str, unit: str | None, scale: float | None = None) -> None:
    """Refuse a unit for floats: they are metres, and not every format has room to say otherwise."""
    if suffix.lower() != ".png" and (unit or scale):
        option = "--out-unit" if unit else "--out-scale"
        raise UsageError(f"{option}: is for the integers of a .png, and a {suffix} file holds float metres; got both")


def _out_unit(unit: str | None, options: PairOptions) -> str:
    return unit or ("mm" if options.encoding.unit in ("m", "auto") else options.encoding.unit)


def _write(path: Path, out: Outputs, rgb: np.ndarray, run: Upsampled, options: PairOptions, overwrite: bool) -> None:
    """Write one of the files of `out`."""
    if path == out.depth:
        write_depth(path, run.depth, _out_unit(out.unit, options), overwrite, out.scale, {"model": run.model})
    elif path == out.preview:
        write_image(path, colourise(run.depth), overwrite)
    elif path == out.confidence:
        write_confidence(path, confidence_of(run), overwrite)
    else:
        _write_geometry(path, out, rgb, run.depth, overwrite)


def _check_camera(out: Outputs, rgb: np.ndarray, path: Path) -> None:
    """Whether the camera is one of an image of this size: asked before anything is computed or written."""
    assert out.camera is not None
    try:
        out.camera.of_image(rgb.shape[1], rgb.shape[0])
    except InputError as error:
        raise InputError(f"{path}: its {error}") from None


def _write_geometry(path: Path, out: Outputs, rgb: np.ndarray, depth: np.ndarray, overwrite: bool) -> None:
    from depthup.cloud import mesh, on_surface, point_cloud
    from depthup.ply import write_ply
    from depthup.surface import colourise_normals, normals

    assert out.camera is not None
    height, width = depth.shape
    camera = out.camera.of_image(rgb.shape[1], rgb.shape[0]).scaled_to(width, height)
    if rgb.shape[:2] != depth.shape:
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    if path == out.normals:
        write_image(path, colourise_normals(normals(depth, camera)), overwrite)
    elif out.mesh:
        vertices, colours, faces = mesh(depth, camera, rgb)
        write_ply(path, vertices, colours, faces=faces, overwrite=overwrite)
    else:
        surface = on_surface(depth, camera)
        if not surface.any():
            log.warning("%s: an empty cloud: no point of its depth has neighbours on its surface", path)
        points, colours = point_cloud(np.where(surface, depth, np.nan), camera, rgb)
        normal = normals(depth, camera)[surface]
        write_ply(path, points, colours, normal, overwrite=overwrite)


def batch_files(
    rgb: Path,
    depth: Path | None,
    out: Path,
    wanted: BatchOutputs,
    options: PairOptions,
    overwrite: bool,
    report: Callable[[str], None],
    progress: Callable[[BatchProgress], None],
) -> tuple[BatchResult, tuple[Path, ...]]:
    """Upsample every pair of two folders, or of a recording (`rgb`, without `depth`), to files in the folder `out`.

    Returns:
        What became of the pairs, and the files without a partner.

    Raises:
        InputError: no pairs, or nothing may be written to `out`.
        UsageError: point clouds or normals are wanted, and neither `wanted` nor the recording has a camera; or the two
            folders look swapped.
    """
    _check_unit(wanted.suffix, wanted.unit)
    check_output_folder(out)
    recording = pair_folders(rgb, depth, out) if depth else open_recording(rgb, out)
    if depth and all(_looks_swapped(frame) for frame in recording.frames[:3]):
        raise UsageError(
            f"{rgb}, {depth}: look swapped: {recording.frames[0].rgb} is a depth map and {recording.frames[0].depth} a"
            " picture; expected RGB_DIR DEPTH_DIR"
        )
    if wanted.needs_camera and not wanted.camera and not any(frame.camera for frame in recording.frames):
        raise UsageError(
            f"{rgb}: --ply and --normals need the camera, and no intrinsics are here; expected --intrinsics"
        )
    upsampler = Upsampler(options.model, options.device)
    if wanted.confidence and options.model:
        upsampler.check_tells_error()
    report(f"{recording.title}: {len(recording.frames)} pairs")
    for path in recording.unpaired[:5]:
        report(f"{path}: has no partner")
    if len(recording.unpaired) > 5:
        report(f"... and {len(recording.unpaired) - 5} more files without a partner")
    if options.encoding == DepthEncoding():
        options = replace(options, encoding=DepthEncoding(recording.depth_unit))
    frames = {frame.name: frame for frame in recording.frames}
    files = {frame.name: wanted.of(out, frame) for frame in recording.frames}
    jobs = []
    for frame in recording.frames:
        inputs = tuple(path for path in (frame.rgb, frame.depth, frame.confidence) if path)
        jobs.append(Job(frame.name, inputs, files[frame.name].depth, files[frame.name].others()))

    def read(job: Job) -> PairArrays:
        frame = frames[job.name]
        if wanted.needs_camera and not files[job.name].camera:
            raise InputError(f"{frame.rgb}: the recording has no intrinsics of this image; expected --intrinsics")
        pair = read_pair(frame.rgb, frame.depth, options, confidence=frame.confidence)
        if wanted.needs_camera:
            _check_camera(files[job.name], pair.rgb, frame.rgb)
        if wanted.confidence:
            check_confidence(upsampler, pair, options)
        return pair

    def compute(job: Job, pair: PairArrays) -> tuple[np.ndarray, Upsampled]:
        return pair.rgb, upsample_pair(upsampler, pair, options, job.name)

    def write(job: Job, path: Path, result: tuple[np.ndarray, Upsampled], replaces: bool) -> None:
        _write(path, files[job.name], *result, options, replaces)

    result = run_batch(jobs, out, read, compute, write, _settings(options, wanted), overwrite, progress)
    return result, recording.unpaired


def _looks_swapped(frame: Frame) -> bool:
    """Whether what should be RGB is one channel of more than 8 bits, and what should be depth is a picture."""
    try:
        plane, _ = read_plane(frame.rgb, "depth")
        read_rgb(frame.depth)
    except InputError:
        return False
    return plane.dtype.itemsize > 1


def _settings(options: PairOptions, wanted: BatchOutputs) -> dict[str, str]:
    """Everything that decides a result beside its inputs."""
    settings = {name: str(value) for name, value in asdict(options).items() if name not in ("device", "model")}
    names = shipped_names() if options.model is None else [options.model]
    weights = [f"{name} {digest(weights_path(name))}" for name in names if name not in BASELINES]
    return settings | {
        "model": str(options.model),
        "weights": ", ".join(weights),
        "out": f"{wanted.suffix} {wanted.unit}",
    }


def default_model(scale: int, protocol: str) -> str:
    """The network in the box for a scale and a protocol.

    Raises:
        InputError: there is none.
    """
    name = f"x{scale}" if protocol == "dkn" else f"x{scale}-{protocol}"
    if name not in shipped_names():
        raise InputError(
            f"no weights in the box for scale {scale} under protocol {protocol}; "
            f"expected --model, or what one of these is for: {', '.join(shipped_names())}"
        )
    return name


def named_methods(names: list[str], scales: list[int], protocol: str, sensor: bool) -> list[Method]:
    """Every method at every scale, scale by scale.

    Args:
        names: baselines, names in the box or weights files; `{scale}` in a name stands for the scale, and `default` for
            the network in the box.
        scales: up-sampling factors.
        protocol: decides what `default` is.
        sensor: so does it.

    Raises:
        InputError: no such model, or none for one of the scales.
        UsageError: the same method twice.
    """
    methods: list[Method] = []
    for scale in scales:
        for name in names:
            model = name.replace("{scale}", str(scale))
            if name == "default":
                model = f"sensor-x{scale}" if sensor else default_model(scale, protocol)
            if any((model, scale) == (other.name, other.scale) for other in methods):
                raise UsageError(f"{model}: is named twice for scale {scale}; expected each method once")
            methods.append(resolve_method(Method(model, scale, model)))
    return methods


def evaluate_data(
    data: str,
    split: str,
    scales: list[int],
    protocol: str,
    names: list[str],
    table: Path | None,
    overwrite: bool,
    progress: Progress,
    sensor: bool = False,
    figure: Path | None = None,
    image: str | None = None,
) -> list[dict]:
    """Score methods at scales (see `named_methods`); writes the CSV file and the figure if asked.

    Args:
        image: name of the pair that the figure shows; without it the one of median RMSE under the last method.

    Returns:
        The summary of each `Evaluation`, and the split.
    """
    if table:
        check_output(table, overwrite, (".csv",))
    if figure:
        check_output(figure, overwrite, (".png",))
    elif image:
        raise UsageError("compare: --image is for the figure; expected --figure")
    methods = named_methods(names, scales, protocol, sensor)
    dataset = open_dataset(data, split)
    if image is not None and image not in dataset.names:
        raise InputError(f"{data}: has no pair {image} in split {split}; expected one such as {dataset.names[0]}")
    simulated = STANDARD_SENSOR if sensor else None
    runs = evaluate_methods(
        dataset, methods, protocol, lambda done, total: progress("evaluating", done / total), simulated
    )
    if table:
        write_csv(table, runs)
    if figure:
        _draw_methods(figure, dataset, runs, methods, simulated, image)
    return [run.summary() | {"split": split} for run in runs]


def _draw_methods(
    figure: Path,
    dataset: PairDataset,
    runs: list[Evaluation],
    methods: list[Method],
    sensor: Sensor | None,
    image: str | None,
) -> None:
    last = [s.rmse for s in runs[-1].scores]
    index = dataset.names.index(image) if image is not None else int(np.argsort(last)[len(last) // 2])
    pair = dataset[index]
    rows: dict[int, ScaleRow] = {}
    for method, run in zip(methods, runs, strict=True):
        made = predict(pair, method, run.protocol, sensor)
        row = rows.setdefault(method.scale, ScaleRow(method.scale, made.rgb, made.low, made.truth, {}, {}))
        row.results[method.name] = made.result
        row.rmse[method.name] = run.scores[index].rmse
    measured = f"protocol {runs[0].protocol}{', simulated sensor' if sensor else ''}"
    title = f"{dataset.title}, image {pair.name}\n{measured}; RMSE of the whole image"
    methods_figure(figure, list(rows.values()), pair.unit, title)


def train_run(
    data: str,
    out: Path,
    minutes: float | None,
    epochs: int | None,
    resume: bool,
    settings: dict,
    given: set[str],
    report: Callable[[str], None],
    progress: Progress,
) -> dict:
    """Train on the `train` split of `data`, validate on its `val` split.

    `given` names the settings that the user gave himself: with `resume` they must be those of the run.
    """
    if resume and (out / "checkpoint.safetensors").exists():
        started = load_checkpoint(out / "checkpoint.safetensors")[1]["config"]
        for name, value in ({"minutes": minutes} | settings).items():
            if name in given and started.get(name) != value:
                option = name.replace("_", "-")
                raise UsageError(
                    f"{out}: was started with --{option} {started.get(name)}, and --resume keeps to it; got {value}"
                )
    if not resume and (minutes is None) == (epochs is None):
        raise UsageError("train: expected exactly one of --minutes, --epochs and --recipe")
    training, validation = training_data(data, out)
    steps = -(-len(training) * epochs // settings["batch_size"]) if epochs else 0
    try:
        config = TrainConfig(minutes=minutes or 0.0, steps=steps or (0 if minutes else 1), **settings)
    except ValueError as error:
        raise UsageError(f"train: {error}") from None
    return _train_facts(train(training, validation, config, out, resume, report, progress))


def train_recipe(
    data: str,
    out: Path,
    recipe: str,
    resume: bool,
    settings: dict,
    given: set[str],
    report: Callable[[str], None],
    progress: Progress,
) -> dict:
    """Train as weights in the box were, stage by stage; all but the last in folders of their own inside `out`."""
    if recipe not in RECIPES:
        raise UsageError(f"--recipe: got {recipe!r}, expected one of {', '.join(RECIPES)}")
    own = sorted(given & ({"minutes", "epochs"} | set(settings) - {"seed", "precision"}))
    if own:
        raise UsageError(f"train: --{own[0].replace('_', '-')} is part of a recipe; expected it without --recipe")
    training, validation = training_data(data, out)
    init, stages = None, RECIPES[recipe]
    for number, stage in enumerate(stages, 1):
        folder = out if number == len(stages) else out / f"stage-{number}"
        config = TrainConfig(seed=settings["seed"], precision=settings["precision"], init=init, **stage)
        started = (folder / "checkpoint.safetensors").exists()
        report(f"{recipe}: stage {number} of {len(stages)}, {config.steps} steps")
        result = train(training, validation, config, folder, resume and started, report, progress)
        if not result.finished:
            break
        init = str(result.weights)
    return _train_facts(result)


def training_data(data: str, out: Path) -> tuple[PairDataset, PairDataset]:
    """The `train` and `val` splits of `data`, once `out` is known to be a place for a run."""
    if data == "motorcycle":
        raise UsageError(
            "train: motorcycle is one pair, kept for checking; expected a .mat file, a folder or `synthetic`"
        )
    check_output_folder(out)
    return open_dataset(data, "train"), open_dataset(data, "val")


def _train_facts(result: TrainResult) -> dict:
    facts = {
        "finished": result.finished,
        "steps": result.steps,
        "minutes": round(result.minutes, 1),
        "weights": str(result.weights),
    }
    if result.validation:
        facts |= {f"held_out_{name}": result.validation[name] for name in ("rmse", "unit", "images", "scenes")}
    return facts


def export_network(model: str, out: Path, overwrite: bool) -> float:
    """Write a network to a `.onnx` or `.pt2` file; returns the largest difference from PyTorch, in depth ranges."""
    check_output(out, overwrite, (".onnx", ".pt2"))
    from depthup.export import export_onnx, export_program  # imports torch's compiler

    return (export_onnx if out.suffix.lower() == ".onnx" else export_program)(model, out, overwrite)


def installation() -> dict:
    """Versions, backends with the reason why one cannot run (None if it can), and the models in the box."""
    packages = ("torch", "numpy", "numba", "opencv-python-headless", "opencv-python", "cupy-cuda12x", "cupy-cuda13x")
    versions = {"depthup": __version__} | {name: _version(name) for name in packages if _version(name)}
    devices = {"reference": "cpu", "cpu": "cpu", "cuda": "cuda"}
    backends = {name: why_not(name, torch.device(devices[name])) for name in BACKENDS}
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "backends": backends,
        "models": models_in_the_box(),
    }


def models_in_the_box() -> dict[str, dict]:
    """Facts about the weights in the box by name, from their files' metadata."""
    models = {}
    for name in shipped_names():
        config, training = read_metadata(name)
        with torch.device("meta"):  # only counted
            parameters = sum(p.numel() for p in DDFUpNet(config).parameters())
        validation = training["validation"]
        models[name] = {
            "scale": config.scale,
            "architecture": config.architecture,
            "protocol": training["config"]["protocol"],
            "sensor": config.sensor,
            "parameters": parameters,
            "bytes": weights_path(name).stat().st_size,
            "data": training["data"]["title"],
            "steps": training["steps"],
            "held_out_rmse": validation["rmse"],
            "unit": validation["unit"],
            "held_out_images": validation["images"],
        }
    return models


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
