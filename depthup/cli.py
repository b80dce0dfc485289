"""The command line: it parses and prints, and computes nothing. torch is imported inside the commands only."""

from __future__ import annotations

import errno
import gc
import io
import json
import math
import os
import re
import shlex
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from depthup.console import in_one_line, progress_bar, say, warnings_on_stderr
from depthup.memory import keep_freed_memory
from depthup.options import (
    MODEL_HELP,
    AlignOption,
    Architecture,
    Augmentation,
    BaselineOption,
    CsvOption,
    DataInvalidOption,
    DataOption,
    DepthIntrinsicsOption,
    DeviceOption,
    DoffsOption,
    Fill,
    FillOption,
    FocalOption,
    InvalidOption,
    JsonFlag,
    KeepIsolatedFlag,
    Kind,
    KindOption,
    LimitOption,
    MinConfidenceOption,
    ModelOption,
    NoiseOption,
    Optimiser,
    OutFormat,
    OutScaleOption,
    OutUnitOption,
    OverwriteFlag,
    Precision,
    PrecisionOption,
    Protocol,
    ProtocolOption,
    ScaleOption,
    ScalesOption,
    SensorFlag,
    SizeOption,
    Split,
    SplitOption,
    Unit,
    UnitOption,
)
from depthup.report import comparison_lines, evaluation_lines, metres, models_lines
from depthup.stopping import leave, terminate_as_interrupt

app = typer.Typer(
    name="depthup",
    help="Guided depth upsampling with Decoupled Dynamic Filters (DDF-Up).",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


LARGEST_SCALE = 64


def _print_version(asked: bool) -> None:
    if asked:
        from depthup import __version__

        print(f"depthup {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Guided depth upsampling with Decoupled Dynamic Filters (DDF-Up)."""


def _encoding(
    unit: Unit,
    scale: float | None,
    kind: Kind,
    focal: float | None,
    baseline: float | None,
    doffs: float,
    invalid: list[float] | None,
) -> Any:
    """What the options of `upsample` and `batch` say of the values of DEPTH, as a `DepthEncoding`."""
    from depthup.data import DepthEncoding, UsageError

    try:
        return DepthEncoding(unit.value, scale, kind.value, focal, baseline, doffs, tuple(invalid or ()))
    except ValueError as error:
        raise UsageError(f"{error} (--depth-unit, --depth-scale, --depth-kind, --focal, --baseline, --doffs)") from None


def _pair_options(
    model: str | None,
    device: str | None,
    precision: Precision,
    encoding: Any,
    min_confidence: int | None,
    size: str | None,
    fill: Fill,
    keep_isolated: bool,
) -> Any:
    """The options that `upsample` and `batch` share, as a `PairOptions`."""
    from depthup.data import UsageError
    from depthup.pair_files import PairOptions
    from depthup.upsampling import check_size

    pixels = re.fullmatch(r"0*([1-9]\d*)[xX]0*([1-9]\d*)", size) if size else None
    if size and not pixels:
        raise UsageError(f"--size: got {size}, expected WIDTHxHEIGHT in pixels, such as 1920x1440")
    wanted = (int(pixels[1]), int(pixels[2])) if pixels else None
    check_size(wanted)
    least = 1 if min_confidence is None else min_confidence
    return PairOptions(
        *(model, device, encoding, least, wanted, fill.value), precision=precision.value, keep_isolated=keep_isolated
    )


def _cameras(
    command: str, intrinsics: str | None, shown: bool, align: Path | None, depth_intrinsics: str | None
) -> Any:
    """The camera of RGB and the alignment of DEPTH that the options of `upsample` and `batch` mean, if they are given.

    `shown`: whether something is written that needs the camera.
    """
    from depthup.calibration import read_transform
    from depthup.data import UsageError
    from depthup.pair_files import Alignment

    if intrinsics and not (shown or align):
        raise UsageError(f"{command}: --intrinsics are for --ply, --normals and --align; expected one of them")
    if align and not depth_intrinsics:
        raise UsageError(f"{command}: --align needs the camera of DEPTH, too; expected --depth-intrinsics")
    if depth_intrinsics and not align:
        raise UsageError(f"{command}: --depth-intrinsics is for --align; expected both")
    camera = _camera(intrinsics, "--intrinsics") if intrinsics else None
    if not (align and depth_intrinsics):
        return camera, None
    return camera, Alignment(_camera(depth_intrinsics, "--depth-intrinsics"), read_transform(align))


def _camera(text: str, option: str) -> Any:
    """The camera that the value of an option means, a file or numbers."""
    from depthup.calibration import parse_intrinsics, read_camera
    from depthup.data import InputError

    if Path(text).exists():
        return read_camera(text)
    if re.search(r"[^-+\d.,eE\s]", re.sub(r"\b(nan|inf)\b", "0", text, flags=re.IGNORECASE)):
        raise InputError(f"{text}: no such file, and no four numbers; expected a calibration or fx,fy,cx,cy in pixels")
    return parse_intrinsics(text, option)


@app.command()
def upsample(
    rgb: Annotated[Path, typer.Argument(help="RGB image.", metavar="RGB", readable=False)],
    depth: Annotated[
        Path,
        typer.Argument(
            help="Low-resolution depth: PNG, TIFF, PGM, EXR, PFM, .npy, .npz, JPEG 2000.",
            metavar="DEPTH",
            readable=False,  # here as below: what cannot be read or written is said by what does it, with exit code 1
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="Result: 16-bit .png, or float metres in .tiff, .exr, .pfm, .npy, .npz.", readable=False
        ),
    ],
    model: ModelOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.float32,
    depth_unit: UnitOption = Unit.auto,
    depth_scale: ScaleOption = None,
    depth_kind: KindOption = Kind.depth,
    focal: FocalOption = None,
    baseline: BaselineOption = None,
    doffs: DoffsOption = 0.0,
    invalid: InvalidOption = None,
    mask: Annotated[Path | None, typer.Option(help="Image of DEPTH's size, not 0 = valid.", readable=False)] = None,
    confidence: Annotated[
        Path | None, typer.Option(help="Confidence map of DEPTH, 0 to 2, as ARKit.", readable=False)
    ] = None,
    min_confidence: MinConfidenceOption = None,
    size: SizeOption = None,
    fill: FillOption = Fill.near,
    keep_isolated: KeepIsolatedFlag = False,
    out_unit: OutUnitOption = None,
    out_scale: OutScaleOption = None,
    preview: Annotated[
        Path | None, typer.Option(help="Also a colour picture of the result (.png, .jpg).", readable=False)
    ] = None,
    confidence_out: Annotated[
        Path | None,
        typer.Option(
            help="Also a confidence map, 0..1 (16-bit .png: 0..65535): 0.5 = 1 % error expected.", readable=False
        ),
    ] = None,
    intrinsics: Annotated[
        str | None, typer.Option(help="Of RGB: fx,fy,cx,cy in pixels, or a file; for the next options.")
    ] = None,
    ply: Annotated[
        Path | None,
        typer.Option(help="Also a coloured point cloud (.ply), without what flies at depth edges.", readable=False),
    ] = None,
    mesh: Annotated[bool, typer.Option("--mesh", help="Make it a mesh, cut at depth edges.")] = False,
    normals: Annotated[
        Path | None, typer.Option(help="Also a picture of the normals (.png, .jpg).", readable=False)
    ] = None,
    align: AlignOption = None,
    depth_intrinsics: DepthIntrinsicsOption = None,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn low-resolution depth and its RGB image into depth at the resolution of the image."""
    from dataclasses import replace

    from depthup.commands.outputs import Outputs
    from depthup.commands.upsample import upsample_files
    from depthup.data import UsageError

    encoding = _encoding(depth_unit, depth_scale, depth_kind, focal, baseline, doffs, invalid)
    options = _pair_options(model, device, precision, encoding, min_confidence, size, fill, keep_isolated)
    camera, alignment = _cameras("upsample", intrinsics, bool(ply or normals), align, depth_intrinsics)
    options = replace(options, alignment=alignment)
    if min_confidence is not None and not confidence:
        raise UsageError("upsample: --min-confidence is for a map; expected --confidence")
    if mesh and not ply:
        raise UsageError("upsample: --mesh needs a file; expected --ply")
    files = Outputs(
        out,
        unit=out_unit.value if out_unit else None,
        scale=out_scale,
        preview=preview,
        normals=normals,
        confidence=confidence_out,
        cloud=ply,
        mesh=mesh,
        camera=camera,
    )
    result = upsample_files(rgb, depth, files, options, mask, confidence, overwrite)
    if as_json:
        print(json.dumps(result))
        return
    w, h = result["size"]
    x, y = result["ratio"]
    side = result["gathered"]
    cells = f" from means of {side}x{side} sparse samples" if side > 1 else ""
    left_out = f", isolated samples left out: {result['isolated']}" if result["isolated"] else ""
    known = math.floor(1000 * result["known"]) / 10  # 100 % means all of them
    say(
        f"{out}: {w}x{h}, x{x:g}{'' if x == y else f' by x{y:g}'}{cells} by {result['model']} "
        f"in {result['seconds']:.2f} s, "
        f"{metres(result['depth_min'])} to {metres(result['depth_max'])} m, {known} % known{left_out}"
    )
    for path in list(result["files"].values())[1:]:
        say(f"wrote {path}")


@app.command()
def batch(
    rgb: Annotated[Path, typer.Argument(help="Folder of RGB images, or a recording.", metavar="RGB", readable=False)],
    depth: Annotated[
        Path | None,
        typer.Argument(help="Folder of depth maps; none for a recording.", metavar="[DEPTH]", readable=False),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the results.", readable=False)],
    model: ModelOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.float32,
    depth_unit: UnitOption = Unit.auto,
    depth_scale: ScaleOption = None,
    depth_kind: KindOption = Kind.depth,
    focal: FocalOption = None,
    baseline: BaselineOption = None,
    doffs: DoffsOption = 0.0,
    invalid: InvalidOption = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks, named as the depth maps and of their sizes, not 0 = valid.", readable=False
        ),
    ] = None,
    confidence: Annotated[
        Path | None,
        typer.Option(help="Folder of confidence maps, 0 to 2. Default: those of the recording.", readable=False),
    ] = None,
    min_confidence: MinConfidenceOption = None,
    size: SizeOption = None,
    fill: FillOption = Fill.near,
    keep_isolated: KeepIsolatedFlag = False,
    out_unit: OutUnitOption = None,
    out_scale: OutScaleOption = None,
    out_format: Annotated[OutFormat, typer.Option("--format", help="Of the results.")] = OutFormat.png,
    preview: Annotated[bool, typer.Option("--preview", help="Also NAME.preview.jpg, a colour picture.")] = False,
    confidence_out: Annotated[
        bool, typer.Option("--confidence-out", help="Also NAME.confidence.png, 0..65535: half = 1 % error expected.")
    ] = False,
    intrinsics: Annotated[
        str | None,
        typer.Option(help="Of RGB, for the next options: fx,fy,cx,cy or a file. Default: those of the recording."),
    ] = None,
    ply: Annotated[bool, typer.Option("--ply", help="Also NAME.ply, a coloured point cloud.")] = False,
    mesh: Annotated[bool, typer.Option("--mesh", help="Make it a mesh, cut at depth edges.")] = False,
    normals: Annotated[bool, typer.Option("--normals", help="Also NAME.normals.png.")] = False,
    align: AlignOption = None,
    depth_intrinsics: DepthIntrinsicsOption = None,
    max_difference: Annotated[
        float,
        typer.Option(help="Of time stamps that make a pair, in seconds, where names do not.", min=0.0, max=3600.0),
    ] = 0.02,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Upsample folders or a recording. What is done is skipped, what fails is reported; the same command goes on."""
    from dataclasses import replace

    from depthup.commands.batch import Source, batch_files
    from depthup.commands.outputs import BatchOutputs
    from depthup.data import UsageError

    encoding = _encoding(depth_unit, depth_scale, depth_kind, focal, baseline, doffs, invalid)
    options = _pair_options(model, device, precision, encoding, min_confidence, size, fill, keep_isolated)
    if mesh and not ply:
        raise UsageError("batch: --mesh is a kind of --ply; expected both")
    camera, alignment = _cameras("batch", intrinsics, ply or normals, align, depth_intrinsics)
    options = replace(options, alignment=alignment)
    wanted = BatchOutputs(
        f".{out_format.value}",
        unit=out_unit.value if out_unit else None,
        scale=out_scale,
        preview=preview,
        normals=normals,
        confidence=confidence_out,
        cloud=ply,
        mesh=mesh,
        camera=camera,
    )
    maps = {kind: folder for kind, folder in (("mask", mask), ("confidence", confidence)) if folder}
    began = time.monotonic()
    with progress_bar(0.5) as bar:

        def progress(state: Any) -> None:
            handled = state.done + state.skipped + state.failed
            counts = f"{state.done} done, {state.skipped} skipped, {state.failed} failed of {state.total}"
            bar(counts, handled / state.total)

        source = Source(rgb, depth, maps, min_confidence is not None, max_difference)
        result, unpaired, isolated = batch_files(source, out, wanted, options, overwrite, say, progress)
    for name, reason in result.failed.items():
        say(f"depthup: {name}: {reason}")
    counts = {"done": len(result.done), "skipped": len(result.skipped), "failed": len(result.failed)}
    if as_json:
        alone = [str(path) for path in unpaired]
        facts = {"failures": result.failed, "unpaired": alone, "isolated": isolated, "stopped": result.stopped}
        print(json.dumps(counts | facts))
    else:
        summary = ", ".join(f"{n} {what}" for what, n in counts.items())
        summary += (
            f", {len(unpaired)} {'file' if len(unpaired) == 1 else 'files'} without a partner" if unpaired else ""
        )
        say(f"{out}: {summary} in {time.monotonic() - began:.1f} s")
        if result.stopped:
            say("depthup: stopped; the same command goes on")
    sys.exit(result.exit_code)


def _scales(text: str, sensor: bool) -> list[int]:
    """Different scales; 1 only where a sensor leaves something to do."""
    from depthup.data import UsageError

    least = 1 if sensor else 2
    parts = [part.strip() for part in text.split(",")]
    scales = [int(part) for part in parts if re.fullmatch("[0-9]{1,3}", part)]
    if len({s for s in scales if least <= s <= LARGEST_SCALE}) < len(parts):
        raise UsageError(
            f"--scale: got {text}, expected different integers from {least} to {LARGEST_SCALE}, such as 4 or 4,8,16"
            + ("; 1 goes with --sensor" if "1" in parts and not sensor else "")
        )
    return scales


@app.command("eval")
def evaluate(
    data: DataOption,
    scale: ScalesOption,
    protocol: ProtocolOption = Protocol.dkn,
    model: Annotated[
        str, typer.Option(help=MODEL_HELP + " {scale} in it is the scale; default: the network for scale and protocol.")
    ] = "default",
    split: SplitOption = Split.test,
    sensor: SensorFlag = False,
    noise: NoiseOption = None,
    invalid: DataInvalidOption = None,
    limit: LimitOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.float32,
    as_json: JsonFlag = False,
    table: CsvOption = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Score a model or a baseline under a protocol that is printed with the numbers."""
    from depthup.commands.evaluate import evaluate_data, simulated_sensor

    scales = _scales(scale, sensor)
    with progress_bar() as progress:
        results = evaluate_data(
            data,
            [model],
            scales,
            protocol=protocol.value,
            split=split.value,
            sensor=simulated_sensor(sensor, noise),
            invalid=invalid,
            limit=limit,
            precision=precision.value,
            device=device,
            progress=progress,
            table=table,
            overwrite=overwrite,
        )
    one = len(results) == 1
    if as_json:
        print(json.dumps(results[0] if one else results))
    else:
        print("\n".join(evaluation_lines(results[0]) if one else comparison_lines(results)))


@app.command()
def compare(
    data: DataOption,
    scale: ScalesOption,
    methods: Annotated[
        str,
        typer.Option(
            help="What to compare, with commas between: names as of --model of eval, so also .safetensors files of "
            "depthup train; {scale} in a name is the scale, and default the network in the box for scale and protocol."
        ),
    ] = "default,bicubic,guided-filter",
    protocol: ProtocolOption = Protocol.dkn,
    split: SplitOption = Split.test,
    sensor: SensorFlag = False,
    noise: NoiseOption = None,
    invalid: DataInvalidOption = None,
    limit: LimitOption = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
    table: CsvOption = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Also draw depth and errors of every method on one image (.png).", readable=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Name of that image. Default: the one with the median RMSE of the last method and scale."),
    ] = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Score several methods at several scales, side by side in a table, a CSV file and a figure."""
    from depthup.commands.evaluate import evaluate_data, simulated_sensor
    from depthup.data import UsageError

    names = [name.strip() for name in methods.split(",")]
    if not all(names):
        raise UsageError(f"--methods: got {methods!r}, expected names with commas between, such as default,bicubic")
    with progress_bar() as progress:
        results = evaluate_data(
            data,
            names,
            _scales(scale, sensor),
            protocol=protocol.value,
            split=split.value,
            sensor=simulated_sensor(sensor, noise),
            invalid=invalid,
            limit=limit,
            precision=Precision.float32.value,
            device=device,
            progress=progress,
            table=table,
            figure=figure,
            image=image,
            overwrite=overwrite,
        )
    print(json.dumps(results) if as_json else "\n".join(comparison_lines(results)))


@app.command()
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="An NYUv2 .mat file, a folder of pairs, or `synthetic`: rooms that are rendered, which needs no file. "
            "Whole scenes are held out for validation."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.", readable=False)],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Train as the weights of this name in the box were, such as x8: all stages, instead of --minutes."
        ),
    ] = None,
    scale: Annotated[int, typer.Option(help="Up-sampling factor: 2, 4, 8 or 16; with --sensor also 1.")] = 4,
    protocol: ProtocolOption = Protocol.dkn,
    minutes: Annotated[
        float | None, typer.Option(help="Length by the clock; the last validation comes on top.", min=0.001)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Length in passes over the data; repeatable bit for bit on a CPU.", min=1)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT, exactly as it was started.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the initial weights and every crop.", min=0)] = 0,
    architecture: Annotated[
        Architecture,
        typer.Option(
            help="base, fast, large: ours; paper: DDF-Up-Net as published; pac-net, djf: other methods, to compare."
        ),
    ] = Architecture.base,
    sensor: Annotated[
        bool, typer.Option("--sensor/--no-sensor", help="Learn from simulated sensors: holes, noise, flying pixels.")
    ] = False,
    invalid: DataInvalidOption = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: a name or a file. Architecture, scale, protocol and --sensor are theirs "
            "unless you give others."
        ),
    ] = None,
    keep: Annotated[float, typer.Option(help="How much of the --init weights is in the result, 0 to below 1.")] = 0.0,
    synthetic: Annotated[int, typer.Option(help="Rendered rooms to train on beside the pairs of --data.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 8,
    crop_size: Annotated[int, typer.Option(help="Side of a crop in pixels, a multiple of the scale.", min=16)] = 128,
    optimiser: Annotated[
        Optimiser, typer.Option(help="muon: for the filters of hidden convolutions, with adamw for the rest.")
    ] = Optimiser.muon,
    learning_rate: Annotated[float, typer.Option(help="Before warm-up and cosine are applied.", min=0.0)] = 2e-3,
    rescale: Annotated[
        float, typer.Option(help="How often a crop is a larger part of an image, reduced.", min=0.0, max=1.0)
    ] = 0.0,
    augmentation: Annotated[
        Augmentation,
        typer.Option(
            help="strong: transposed crops, and colours that vary more, also in hue; "
            "merged: besides, every other crop stands behind what is nearer in another image."
        ),
    ] = Augmentation.standard,
    weight_decay: Annotated[float, typer.Option(help="Decoupled, times the learning rate.", min=0.0)] = 1e-4,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster where the processor has it.")
    ] = Precision.float32,
    processes: Annotated[
        int, typer.Option(help="Processes that share every batch, each with a GPU of its own if there are any.", min=1)
    ] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train a DDF-Up-Net, or another method to compare with; Ctrl-C saves, --resume goes on."""
    from depthup.commands.train import carry_out, is_recipe, plan_recipe, plan_run
    from depthup.processes import count_processes, joined_processes

    settings: dict[str, Any] = {
        "scale": scale,
        "protocol": protocol.value,
        "architecture": architecture.value,
        "sensor": sensor,
        "network": {},
        "seed": seed,
        "init": init,
        "keep": keep,
        "synthetic": synthetic,
        "invalid": invalid or [],
        "batch_size": batch_size,
        "crop_size": crop_size,
        "optimiser": optimiser.value,
        "learning_rate": learning_rate,
        "rescale": rescale,
        "augmentation": augmentation.value,
        "weight_decay": weight_decay,
        "precision": precision.value,
    }
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    count = count_processes(processes)
    if recipe is None and not (resume and is_recipe(out)):
        plan = plan_run(data, out, minutes, epochs, resume, settings, given, count)
    else:
        plan = plan_recipe(data, out, recipe, resume, settings, given, count)
    command = ["-m", "depthup", *sys.argv[1:]]
    with joined_processes(processes, command) as together, progress_bar() as progress:
        result = carry_out(plan, say, progress, together)
    if not together.first:
        sys.exit(0 if result["finished"] else 130)
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' '):15} {f'{value:.3f}' if name == 'held_out_rmse' else value}")
    if not result["finished"]:
        again = ["--data", data, "--out", str(out), *(["--processes", str(processes)] if processes > 1 else [])]
        say(f"depthup: stopped and saved; go on with: depthup train {shlex.join(again)} --resume")
        sys.exit(130)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A name in the box or a .safetensors file.", metavar="MODEL")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File to write: .onnx, or .pt2 for torch.export.", readable=False)
    ],
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a network as ONNX or as a program of torch.export, for any size, checked against PyTorch."""
    from depthup.commands.export import export_network

    difference = export_network(model, out, overwrite)
    if as_json:
        print(json.dumps({"file": str(out), "model": model, "difference": difference}))
        return
    say(f"{out}: {model}, at most {difference:.1e} of the depth range from PyTorch")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the files.", readable=False)] = Path("demo"),
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Upsample the Motorcycle pair by 8: depth, preview and a side-by-side figure."""
    from depthup.demo import run_demo

    with progress_bar() as progress:
        result = run_demo(out, overwrite, progress)
    if as_json:
        print(json.dumps(result))
        return
    (w, h), s, rmse = result["size"], result["scale"], result["rmse_cm"]
    print(f"{result['data']}: {w // s}x{h // s} -> {w}x{h}")
    print(f"RMSE {rmse['depthup']:.2f} cm, bicubic {rmse['bicubic']:.2f} cm; {result['seconds']:.2f} s on this machine")
    for name, path in result["files"].items():
        print(f"{name:8} {path}")


@app.command()
def info(as_json: JsonFlag = False) -> None:
    """Versions, backends (and why one cannot run), and the models in the box with their validation scores."""
    from depthup.commands.info import installation

    facts = installation()
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts["versions"].items():
        print(f"{name:22} {value}")
    for name, reason in facts["backends"].items():
        print(f"{name:22} {reason or 'works'}")
    print("\n".join(models_lines(facts["models"])))


@app.command()
def models(as_json: JsonFlag = False) -> None:
    """The models in the box: what each is for, its size, and its score on scenes that training never saw."""
    from depthup.commands.info import models_in_the_box

    facts = models_in_the_box()
    print(json.dumps(facts) if as_json else "\n".join(models_lines(facts)))


def _with_value(message: str) -> str:
    """A message of typer's on the value of an option, with that value where it does not say it."""
    named = re.match(r"Invalid value for '(--[\w-]+)'", message)
    if named is None:
        return message
    for argument, following in pairwise([*sys.argv[1:], ""]):
        option, equals, value = argument.partition("=")
        value = value if equals else following
        if option == named[1] and repr(value) not in message:
            return f"{message}, got {value}"
    return message


def _is_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an exception: where a library is being imported, it turns into others."""
    seen = set()  # two exceptions may be each other's cause
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _prepare() -> None:
    """What a command finds in the process; exits where there is no current folder."""
    keep_freed_memory()
    os.environ["MPLBACKEND"] = "agg"  # commands of a notebook inherit its backend, which is not installed here
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path need not be text
    try:
        Path.cwd()
    except OSError as error:
        say(f"depthup: the current folder cannot be used ({error.strerror}); expected one that can")
        sys.exit(1)


def _tell(error: BaseException) -> int:
    """An expected failure as one line on stderr, and its exit code; anything else is raised again."""
    if hasattr(error, "format_message"):  # wrong usage: of click's class, which newer typers carry in themselves
        say(f"depthup: {_with_value(' '.join(error.format_message().split()).rstrip('.'))}; see --help")
        return 2
    no_library = isinstance(error, ImportError)
    if isinstance(error, ImportError) and (error.name or "").startswith("depthup"):
        raise error
    try:
        from depthup.data import InputError, UsageError  # here: it imports torch, which `--help` must not
        from depthup.kernels import BackendError
        from depthup.tiles import is_out_of_memory
    except Exception:  # nor could the command import it
        if not isinstance(error, ImportError | OSError | MemoryError):
            raise error from None
        no_library = True
    if no_library:
        say(f"depthup: a library that it needs cannot be imported ({in_one_line(error)})")
        return 1
    if not isinstance(error, InputError | BackendError | OSError) and not is_out_of_memory(error):
        raise error
    printed = isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
    say(f"depthup: {'stdout: cannot be written: ' if printed else ''}{in_one_line(error)}")
    return 2 if isinstance(error, UsageError) else 1


def main() -> None:
    """Entry point. An expected failure is one line on stderr.

    The exit code is 2 where the command line is wrong whatever the files hold, and 1 where a file or the machine is.
    """
    for before, argument in pairwise(["argument 1", *sys.argv[1:]]):
        if not argument or (argument.startswith("--") and argument.endswith("=")):  # Path("") is where one stands
            say(f"depthup: {argument.rstrip('=') or before}: got no value, expected one; see --help")
            sys.exit(2)
    _prepare()
    try:
        with terminate_as_interrupt(), warnings_on_stderr():
            code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C; commands that stop in order leave by SystemExit
            raise KeyboardInterrupt
        sys.exit(code)
    except (KeyboardInterrupt, Exception) as error:
        if _is_interrupted(error):
            say("depthup: interrupted")
            sys.exit(130)
        sys.exit(_tell(error))


def program() -> None:
    """`depthup`: `main`, and after success the end of the process at once.

    Python would take torch's modules apart first, which takes half a second. What imports make stays; looking for
    garbage among it takes nearly as long.
    """
    gc.set_threshold(100_000, 20, 20)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
        leave()


if __name__ == "__main__":
    program()
