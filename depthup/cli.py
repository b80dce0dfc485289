"""The command line: it parses and prints, and computes nothing. torch is imported inside the commands only."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="depthup",
    help="Guided depth upsampling with Decoupled Dynamic Filters (DDF-Up).",
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Protocol(StrEnum):
    dkn = "dkn"
    pac = "pac"


class Split(StrEnum):
    all = "all"
    train = "train"
    val = "val"
    test = "test"


class Architecture(StrEnum):
    base = "base"
    paper = "paper"


class Precision(StrEnum):
    float32 = "float32"
    bf16 = "bf16"


class Unit(StrEnum):
    auto = "auto"
    mm = "mm"
    m = "m"
    tum = "tum"
    kitti = "kitti"


class OutUnit(StrEnum):
    mm = "mm"
    tum = "tum"
    kitti = "kitti"


MODEL_HELP = (
    "A name in the box (see `depthup info`), a .safetensors file, or nearest, bilinear, bicubic, joint-bilateral, "
    "guided-filter."
)
DATA_HELP = "An NYUv2 .mat file, a folder of pairs, or `motorcycle`."
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def say(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def progress_bar(delay: float = 2.0) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr for what takes longer than `delay` seconds; gives a function of what and the fraction done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True)
    began = time.monotonic()
    tasks: dict[str, TaskID] = {}

    def update(what: str, fraction: float) -> None:
        if not tasks:
            if not console.is_terminal or time.monotonic() - began < delay:
                return
            bar.start()
            tasks["only"] = bar.add_task(what, total=1.0)
        bar.update(tasks["only"], description=what, completed=fraction)

    try:
        yield update
    finally:
        if tasks:  # stopping one that was not started prints an empty line
            bar.stop()


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


@app.command()
def upsample(
    rgb: Annotated[Path, typer.Argument(help="RGB image.", metavar="RGB")],
    depth: Annotated[
        Path,
        typer.Argument(help="Low-resolution depth: 16-bit PNG, TIFF or JPEG 2000, float TIFF, .npy.", metavar="DEPTH"),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Result: 16-bit .png, or float32 metres in .tiff or .npy.")],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP + " Default: the network of the pair's factor.")] = None,
    depth_unit: Annotated[
        Unit,
        typer.Option(
            help="Unit of DEPTH: mm, m, tum (5000 per m), kitti (256 per m). auto: mm for integers, m for floats."
        ),
    ] = Unit.auto,
    out_unit: Annotated[
        OutUnit | None, typer.Option(help="Unit of a 16-bit result. Default: that of DEPTH, or mm where that is m.")
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Also write a colour picture of the result (.png or .jpg).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn low-resolution depth and its RGB image into depth at the resolution of the image."""
    from depthup.commands import upsample_files

    unit = out_unit.value if out_unit else None
    result = upsample_files(rgb, depth, out, model, depth_unit.value, unit, preview, overwrite)
    if as_json:
        print(json.dumps(result))
    else:
        w, h = result["size"]
        known = math.floor(1000 * result["known"]) / 10  # 100 % means all of them
        say(
            f"{out}: {w}x{h}, x{result['scale']} by {result['model']} in {result['seconds']:.2f} s, "
            f"{result['depth_min']:.3f} to {result['depth_max']:.3f} m, {known} % known"
        )
    for path in [out, preview] if preview and not as_json else []:
        say(f"wrote {path}")


@app.command("eval")
def evaluate(
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    scale: Annotated[int, typer.Option(help="Up-sampling factor.", min=2)],
    protocol: Annotated[Protocol, typer.Option(help="How low-resolution depth is made.")] = Protocol.dkn,
    model: Annotated[
        str | None, typer.Option(help=MODEL_HELP + " Default: the network in the box for scale and protocol.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which part of the data.")] = Split.test,
    as_json: JsonFlag = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Also write the errors of every image.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the CSV file if it exists.")] = False,
) -> None:
    """Score a model or a baseline under a protocol that is printed with the numbers."""
    from depthup.commands import evaluate_data

    with progress_bar() as progress:
        result = evaluate_data(data, split.value, scale, protocol.value, model, table, overwrite, progress)
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(
            f"{name.replace('_', ' '):15} {value:.3f}"
            if isinstance(value, float)
            else f"{name.replace('_', ' '):15} {value}"
        )


@app.command()
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(help="An NYUv2 .mat file or a folder of pairs. Whole scenes of it are held out for validation."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    scale: Annotated[int, typer.Option(help="Up-sampling factor: 2, 4, 8 or 16.")] = 4,
    protocol: Annotated[Protocol, typer.Option(help="How low-resolution depth is made.")] = Protocol.dkn,
    minutes: Annotated[float | None, typer.Option(help="Length by the clock.", min=0.001)] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Length in passes over the data; repeatable bit for bit.", min=1)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT, exactly as it was started.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the initial weights and every crop.", min=0)] = 0,
    architecture: Annotated[Architecture, typer.Option(help="base: ours; paper: as published.")] = Architecture.base,
    sensor: Annotated[
        bool, typer.Option("--sensor", help="Learn from simulated sensors: holes, noise, flying pixels.")
    ] = False,
    init: Annotated[str | None, typer.Option(help="Weights to start from: a name or a file, of any scale.")] = None,
    batch_size: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 8,
    crop_size: Annotated[int, typer.Option(help="Side of a crop in pixels, a multiple of the scale.", min=16)] = 128,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.", min=0.0)] = 1.5e-3,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster where the processor has it.")
    ] = Precision.float32,
    as_json: JsonFlag = False,
) -> None:
    """Train a DDF-Up-Net; Ctrl-C saves, --resume goes on."""
    from depthup.commands import train_run

    settings = {
        "scale": scale,
        "protocol": protocol.value,
        "architecture": architecture.value,
        "sensor": sensor,
        "seed": seed,
        "init": init,
        "batch_size": batch_size,
        "crop_size": crop_size,
        "learning_rate": learning_rate,
        "precision": precision.value,
    }
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    with progress_bar() as progress:
        result = train_run(data, out, minutes, epochs, resume, settings, given, say, progress)
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' '):15} {f'{value:.3f}' if name == 'held_out_rmse' else value}")
    if not result["finished"]:
        say(f"depthup: stopped and saved; go on with: depthup train --data {data} --out {out} --resume")
        raise typer.Exit(130)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
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
    from depthup.commands import installation

    facts = installation()
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts["versions"].items():
        print(f"{name:22} {value}")
    for name, reason in facts["backends"].items():
        print(f"{name:22} {reason or 'works'}")
    for name, model in facts["models"].items():
        print(
            f"{name:22} x{model['scale']} {model['protocol']}, {model['architecture']}, {model['steps']} steps on "
            f"{model['data']}; RMSE {model['held_out_rmse']:.3f} {model['unit']} on {model['held_out_images']} "
            "images of held-out scenes"
        )


def main() -> None:
    """Entry point. An expected failure is one line on stderr; exit code 2 is wrong usage, 1 is failure."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):
        say("depthup: interrupted")
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong usage: of click's class, which newer typers carry in themselves
            say(f"depthup: {' '.join(error.format_message().split()).rstrip('.')}; see --help")
            sys.exit(2)
        from depthup.commands import UsageError  # here, because it imports torch, which `--help` must not
        from depthup.data import InputError

        if not isinstance(error, InputError | OSError):
            raise
        say(f"depthup: {' '.join(str(error).split())}")
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
