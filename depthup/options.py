"""The choices and options of the command line, as annotations that commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    fast = "fast"
    large = "large"
    paper = "paper"
    pac_net = "pac-net"
    djf = "djf"


class Precision(StrEnum):
    float32 = "float32"
    bf16 = "bf16"


class Augmentation(StrEnum):
    standard = "standard"
    strong = "strong"
    merged = "merged"


class Optimiser(StrEnum):
    muon = "muon"
    adamw = "adamw"


class Unit(StrEnum):
    auto = "auto"
    mm = "mm"
    m = "m"
    tum = "tum"
    kitti = "kitti"


class Kind(StrEnum):
    depth = "depth"
    inverse = "inverse"
    disparity = "disparity"


class Fill(StrEnum):
    none = "none"
    near = "near"
    all = "all"


class OutFormat(StrEnum):
    png = "png"
    tiff = "tiff"
    exr = "exr"
    pfm = "pfm"
    npy = "npy"
    npz = "npz"


class OutUnit(StrEnum):
    mm = "mm"
    tum = "tum"
    kitti = "kitti"


MODEL_HELP = (
    "A name in the box (see `depthup models`), a .safetensors file, or nearest, bilinear, bicubic, joint-bilateral, "
    "guided-filter."
)
DATA_HELP = "An NYUv2 .mat file, a folder of pairs, `synthetic` (rendered rooms), or `motorcycle`."

ModelOption = Annotated[
    str | None, typer.Option(help=MODEL_HELP + " Default: the network for sensors that suits the pair's ratio.")
]
DeviceOption = Annotated[str | None, typer.Option(help="Where networks run, such as cuda. Default: the CPU.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="Of networks. bf16: 1.5 to 1.9 times as fast on processors that have it, slower on others."),
]
UnitOption = Annotated[
    Unit,
    typer.Option(
        help="Unit of DEPTH: mm, m, tum (5000 per m), kitti (256 per m). auto: as depthup recorded in the file; else "
        "mm for integers, m for floats."
    ),
]
ScaleOption = Annotated[
    float | None, typer.Option(help="In place of a unit: what divides the values of DEPTH to give metres.")
]
KindOption = Annotated[
    Kind, typer.Option(help="What DEPTH holds. inverse: 1/m; disparity: px, needs --focal and --baseline.")
]
FocalOption = Annotated[float | None, typer.Option(help="Focal length of the disparity's camera, in pixels.")]
BaselineOption = Annotated[float | None, typer.Option(help="Distance of the disparity's two cameras, in metres.")]
DoffsOption = Annotated[float, typer.Option(help="Difference of their principal points, in pixels.")]
InvalidOption = Annotated[
    list[float] | None, typer.Option(help="A value of DEPTH that is no measurement, beside 0 and NaN; repeatable.")
]
MinConfidenceOption = Annotated[
    int | None,
    typer.Option(help="Samples of lower confidence are not used: 0 low, 1 medium (default), 2 high.", min=0, max=2),
]
SizeOption = Annotated[str | None, typer.Option(help="Size of the result, WxH. Default: that of RGB.")]
FillOption = Annotated[
    Fill,
    typer.Option(
        help="What is known in the result. none: cells of valid samples; near: 2 samples beyond them; all: everything."
    ),
]
OutUnitOption = Annotated[
    OutUnit | None,
    typer.Option(
        help="Unit of a .png result; others are float metres. Default: what --depth-unit names but m, else that of the "
        "recording (tum), or else mm."
    ),
]
OutScaleOption = Annotated[float | None, typer.Option(help="In place of a unit: steps per metre of a .png result.")]
AlignOption = Annotated[
    Path | None,
    typer.Option(
        help="DEPTH is from another place: its pose, depth camera to RGB camera (4x4 in metres, a file).",
        readable=False,
    ),
]
DepthIntrinsicsOption = Annotated[
    str | None, typer.Option(help="Of DEPTH, for --align: fx,fy,cx,cy in pixels, or a file.")
]
KeepIsolatedFlag = Annotated[
    bool, typer.Option("--keep-isolated", help="Also use samples of DEPTH that are unlike all around them.")
]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
DataOption = Annotated[str, typer.Option(help=DATA_HELP)]
ScalesOption = Annotated[
    str, typer.Option(help="Up-sampling factors, 2 to 64 (with --sensor also 1): 4, or several as in 4,8,16.")
]
ProtocolOption = Annotated[Protocol, typer.Option(help="How low-resolution depth is made.")]
SplitOption = Annotated[
    Split,
    typer.Option(
        help="Which part of the data: val is what train holds out; test is all of a folder that says nothing else."
    ),
]
SensorFlag = Annotated[
    bool, typer.Option("--sensor", help="Measure with a simulated sensor: a fifth missing in blobs, and noise.")
]
LimitOption = Annotated[int | None, typer.Option(help="Score at most so many images, evenly spread.", min=1)]
NoiseOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        help="Of the simulated sensor: A B for a standard deviation of A + B z^2 mm at z metres; its own is 1 1.5.",
        metavar="A B",
    ),
]
DataInvalidOption = Annotated[
    list[float] | None,
    typer.Option("--invalid", help="For a folder: a value of its depth files that is no measurement; repeatable."),
]
CsvOption = Annotated[Path | None, typer.Option("--csv", help="Also write the errors of every image.", readable=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
