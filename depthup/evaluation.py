"""Evaluation under the field's protocols: low-resolution depth is made from the truth, upsampled, and scored."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from depthup.atomic import write_beside
from depthup.baselines import BASELINES
from depthup.data import (
    PROTOCOLS,
    InputError,
    Pair,
    PairDataset,
    Sensor,
    UsageError,
    crop_to_multiple,
    make_low_resolution,
)
from depthup.data.low_resolution import check_protocol
from depthup.data.pairs import check_dataset, check_pair
from depthup.data.sensor import check_metres
from depthup.metrics import (
    CONSISTENCY_DEFINITION,
    EDGE_DEFINITION,
    INTERVAL_DEFINITION,
    METRICS,
    Score,
    bootstrap_interval,
    known_in_both,
    score,
)
from depthup.models import DDFUpNet
from depthup.upsampling import Model, Upsampler, resolve_model
from depthup.weights import shipped_names

DEGRADATION = {
    "dkn": "anti-aliased bicubic, a = -0.5 (PIL)",
    "pac": "one sample per cell, depth[(s-1)//2::s, (s-1)//2::s]",
    "area": "mean of every cell",
    "point": "one sample per cell, of a pixel around its middle",
    "sparse": "mean of the pixels of a cell that were measured, moved to its middle",
}
"""Protocol, or sampling of a sensor -> what is done."""

DEFINITIONS = {
    "depth edges": EDGE_DEFINITION,
    "interval": INTERVAL_DEFINITION,
    "rel": "mean of |error| / truth, a fraction, over pixels whose truth is above zero",
    "off by n": "percentage of pixels whose |error| is larger than n units",
    "consistency": CONSISTENCY_DEFINITION,
    "undefined": "an image in which a value is undefined, as without depth edges, is left out of its mean",
}
"""What the numbers of a report mean, beside protocol, border, unit and averaging."""

MIN_CELLS = 4
"""Low-resolution samples along a side, below which an image says nothing about upsampling."""


@dataclass(frozen=True)
class Method:
    """A model or baseline at one scale.

    Args:
        name: what to call it in a report.
        scale: up-sampling factor.
        model: a name in the box, a weights file, a network or a baseline.
        precision, device: as of `Upsampler`; baselines have none.
    """

    name: str
    scale: int
    model: str | Path | DDFUpNet
    precision: str = "float32"
    device: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What a method made of a pair; depth in the unit of the pair, NaN where unknown."""

    rgb: np.ndarray  # uint8 [H, W, 3], cut to a multiple of the scale
    truth: np.ndarray  # [H, W]
    low: np.ndarray  # [H/scale, W/scale]
    result: np.ndarray  # [H, W]


@dataclass(frozen=True)
class Evaluation:
    """What was measured, on what, how, and what came out."""

    data: str
    method: str
    scale: int
    protocol: str
    degradation: str
    border: int  # pixels at each side that are not scored
    unit: str  # "cm" or "disparity levels"
    averaging: str
    precision: str  # of the network
    scores: list[Score] = field(repr=False)

    @property
    def rmse(self) -> float:
        """Mean over images of each image's, in `unit`."""
        return float(np.mean([s.rmse for s in self.scores]))

    @property
    def mae(self) -> float:
        """Mean over images of each image's, in `unit`."""
        return float(np.mean([s.mae for s in self.scores]))

    @property
    def unknown(self) -> int:
        return sum(s.unknown for s in self.scores)

    def rmse_interval(self) -> tuple[float, float] | None:
        """95 % interval of `rmse`, by `bootstrap_interval` over scenes."""
        return bootstrap_interval(np.array([s.rmse for s in self.scores]), [s.scene for s in self.scores])

    def summary(self) -> dict:
        """Everything but the single images, for JSON; None is undefined."""
        facts = {name: value for name, value in asdict(self).items() if name != "scores"}
        facts |= {"images": len(self.scores), "scenes": len({s.scene for s in self.scores})}
        undefined = {}
        for name in METRICS:
            values = [value for s in self.scores if (value := getattr(s, name)) is not None]
            facts[name] = float(np.mean(values)) if values else None
            if len(values) < len(self.scores):
                undefined[name] = len(self.scores) - len(values)
        return facts | {
            "rmse_interval": self.rmse_interval(),
            "unknown_pixels": self.unknown,
            "undefined_images": undefined,
            "definitions": DEFINITIONS,
        }


def write_csv(path: str | Path, evaluations: list[Evaluation]) -> None:
    """One line per image, method and scale, with every field of `Score`; an empty cell is undefined."""
    named = ("data", "method", "precision", "scale", "protocol", "degradation", "border", "unit")
    with (
        write_beside(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.DictWriter(file, [*named, *(f.name for f in fields(Score))])
        table.writeheader()
        for run in evaluations:
            facts = {name: getattr(run, name) for name in named}
            table.writerows(facts | asdict(score) for score in run.scores)


def evaluate(
    dataset: PairDataset,
    scale: int,
    protocol: str,
    model: Model = None,
    method: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    sensor: Sensor | None = None,
) -> Evaluation:
    """Score a model or baseline on a data set: the errors of each image (`Score`), then their mean over images.

    Rows and columns beyond a multiple of `scale` are cut off first. Depth in metres is scored in centimetres,
    disparity in its own levels; the data set's `border` is left out on every side.

    Args:
        dataset: pairs with dense truth.
        scale: up-sampling factor.
        protocol: how low-resolution depth is made, `dkn` or `pac`; never to be mixed.
        model: a name in the box, a weights file, a network or a baseline; without it `default_network`.
        method: what to call the model in the report.
        progress: called with (images done, images in all).
        sensor: measure with it, with a seed that each image's name decides, instead of reducing by the protocol alone;
            a `sampling` that is a protocol becomes this one. Pixels without support are unknown, and not scored.

    Raises:
        InputError: bad data, a sensor for disparity, a model of another scale, an image of fewer than `MIN_CELLS` cells
            along a side, or one with nothing to score.
    """
    if model is None:
        model = default_network(scale, protocol, sensor is not None)
    if method is None:
        method = f"a network {model.config.architecture} x{scale}" if isinstance(model, DDFUpNet) else str(model)
    return evaluate_methods(dataset, [Method(method, scale, model)], protocol, progress, sensor)[0]


def default_network(scale: int, protocol: str, sensor: bool = False) -> str:
    """The network in the box for a scale and a protocol, or for sensors.

    Raises:
        UsageError: there is none.
    """
    name = f"sensor-x{scale}" if sensor else f"x{scale}" if protocol == "dkn" else f"x{scale}-{protocol}"
    if name not in shipped_names():
        kind = f"sensors of scale {scale}" if sensor else f"scale {scale} under protocol {protocol}"
        raise UsageError(
            f"no weights in the box for {kind}; expected a model by name, such as bicubic, or what one of these is for:"
            f" {', '.join(shipped_names())}"
        )
    return name


def evaluate_methods(
    dataset: PairDataset,
    methods: list[Method],
    protocol: str,
    progress: Callable[[int, int], None] | None = None,
    sensor: Sensor | None = None,
) -> list[Evaluation]:
    """As `evaluate`, for several methods and scales in one pass over the data; one evaluation per method, in order."""
    for method in methods:
        if type(method.scale) is bool or not isinstance(method.scale, int | np.integer) or method.scale < 1:
            raise UsageError(f"scale: got {method.scale!r}, expected a whole number of at least 1")
    check_dataset(dataset)
    check_protocol(protocol)
    if sensor is not None:
        if not isinstance(sensor, Sensor):
            raise TypeError(f"sensor: got {sensor!r}, expected a Sensor, such as STANDARD_SENSOR")
        check_metres(dataset)
    methods = [resolve_method(method) for method in methods]
    scores: list[list[Score]] = [[] for _ in methods]
    factor = 100.0 if dataset.unit == "m" else 1.0
    for n in range(len(dataset)):
        pair = dataset[n]
        check_pair(pair, dataset)
        for m, method in enumerate(methods):
            made = predict(pair, method, protocol, sensor)
            scores[m].append(
                score(pair.name, pair.scene, made.result, made.truth, dataset.border, factor, made.low, protocol)
            )
            if progress:
                progress(n * len(methods) + m + 1, len(dataset) * len(methods))
    return [
        Evaluation(
            data=dataset.title,
            method=method.name,
            scale=method.scale,
            protocol=protocol,
            degradation=_degradation(protocol, sensor),
            border=int(dataset.border),  # as scales above
            unit="cm" if dataset.unit == "m" else "disparity levels",
            averaging="per image, then the mean over images",
            precision=method.precision,
            scores=own,
        )
        for method, own in zip(methods, scores, strict=True)
    ]


def check_scorable(dataset: PairDataset, scale: int, protocol: str, sensor: Sensor | None = None) -> None:
    """Raise InputError for a data set that `evaluate` cannot score, whatever the method, without doing it."""
    if sensor:
        check_metres(dataset)
    nearest = Method("nearest", scale, "nearest")
    for n in range(len(dataset)):
        pair = dataset[n]
        made = predict(pair, nearest, protocol, sensor)
        known_in_both(pair.name, made.result, made.truth, dataset.border)


def resolve_method(method: Method) -> Method:
    """The method with its network loaded, if it has one.

    Raises:
        InputError: no such model, one of another scale, or a precision that it does not have.
    """
    method = replace(method, scale=int(method.scale))  # NumPy's integers are no JSON
    Upsampler(method.model, precision=method.precision)
    if method.model in BASELINES:
        return method
    return replace(method, model=resolve_model(method.model, method.scale, method.device))


def predict(pair: Pair, method: Method, protocol: str, sensor: Sensor | None = None) -> Prediction:
    """Make low-resolution depth of a pair and upsample it, as `evaluate` does.

    Raises:
        InputError: the image is too small, or has no valid sample.
    """
    scale = method.scale
    try:
        rgb, truth = crop_to_multiple(pair.rgb, scale), crop_to_multiple(pair.depth, scale)
        height, width = (n // scale for n in truth.shape)
        if min(height, width) < MIN_CELLS:
            raise InputError(
                f"image of {pair.depth.shape[1]}x{pair.depth.shape[0]} pixels has {width}x{height} cells of "
                f"{scale}x{scale}; expected at least {MIN_CELLS}x{MIN_CELLS}"
            )
        low = _low_resolution(pair.name, truth, scale, protocol, sensor)
        if np.isnan(low).all():
            unmeasured = "its depth holds no measurement" if np.isnan(truth).all() else "no sample of it is measured"
            raise InputError(f"{unmeasured}; expected some to score")
        upsampler = Upsampler(method.model, precision=method.precision, keep_isolated=True)
        return Prediction(rgb, truth, low, upsampler(rgb, low, fill="none"))
    except ValueError as error:  # an InputError, or smaller than one cell
        raise InputError(f"{pair.name}: {error}") from None


def _low_resolution(name: str, truth: np.ndarray, scale: int, protocol: str, sensor: Sensor | None) -> np.ndarray:
    if sensor is None:
        return make_low_resolution(truth, scale, protocol)
    rng = np.random.default_rng([zlib.crc32(os.fsencode(name)), scale])
    return _under(sensor, protocol).measure(truth, scale, rng)


def _degradation(protocol: str, sensor: Sensor | None) -> str:
    """What `_low_resolution` does, in words."""
    if sensor is None:
        return DEGRADATION[protocol]
    return f"{DEGRADATION[_under(sensor, protocol).sampling]}; then {sensor}"


def _under(sensor: Sensor, protocol: str) -> Sensor:
    return replace(sensor, sampling=protocol) if sensor.sampling in PROTOCOLS else sensor
