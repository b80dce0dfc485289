"""Evaluation under the field's protocols: low-resolution depth is made from the truth, upsampled, and scored."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from depthup.atomic import write_beside
from depthup.baselines import BASELINES
from depthup.data import InputError, PairDataset, Sensor, crop_to_multiple, make_low_resolution
from depthup.upsampling import Model, resolve_model, upsample

DEGRADATION = {
    "dkn": "anti-aliased bicubic, a = -0.5 (PIL)",
    "pac": "one sample per cell, depth[(s-1)//2::s, (s-1)//2::s]",
}


@dataclass(frozen=True)
class Score:
    """Errors of one image, in the unit of its evaluation."""

    name: str
    scene: str
    rmse: float
    mae: float
    pixels: int  # scored
    unknown: int  # known in the truth and unknown in the result; not scored


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
    scores: list[Score] = field(repr=False)

    @property
    def rmse(self) -> float:
        return float(np.mean([s.rmse for s in self.scores]))

    @property
    def mae(self) -> float:
        return float(np.mean([s.mae for s in self.scores]))

    @property
    def unknown(self) -> int:
        return sum(s.unknown for s in self.scores)

    def summary(self) -> dict:
        """Everything but the single images, for JSON."""
        facts = {name: value for name, value in asdict(self).items() if name != "scores"}
        scenes = len({s.scene for s in self.scores})
        measured = {"rmse": self.rmse, "mae": self.mae, "unknown_pixels": self.unknown}
        return facts | {"images": len(self.scores), "scenes": scenes} | measured

    def write_csv(self, path: str | Path) -> None:
        """One line per image."""
        with write_beside(path) as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, [f.name for f in fields(Score)])
            table.writeheader()
            table.writerows(asdict(score) for score in self.scores)


def evaluate(
    dataset: PairDataset,
    scale: int,
    protocol: str,
    model: Model = None,
    method: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    sensor: Sensor | None = None,
) -> Evaluation:
    """Score a model or baseline on a data set: RMSE and MAE per image, then the mean over images.

    Rows and columns beyond a multiple of `scale` are cut off first. Depth in metres is scored in centimetres,
    disparity in its own levels; the data set's `border` is left out on every side.

    Args:
        dataset: pairs with dense truth.
        scale: up-sampling factor.
        protocol: how low-resolution depth is made, `dkn` or `pac`; never to be mixed.
        model: as of `upsample`.
        method: what to call the model in the report.
        progress: called with (images done, images in all).
        sensor: measure with it, with a seed that each image's name decides, instead of reducing by the protocol alone;
            its `sampling` becomes the protocol. Pixels without support are unknown, and not scored.

    Raises:
        InputError: bad data, a model of another scale, or an image with nothing to score.
    """
    method = method or str(model or f"x{scale}")
    if model not in BASELINES:
        model = resolve_model(model, scale)
    scores = []
    for n in range(len(dataset)):
        pair = dataset[n]
        try:
            rgb, truth = crop_to_multiple(pair.rgb, scale), crop_to_multiple(pair.depth, scale)
            result = upsample(rgb, _low_resolution(pair.name, truth, scale, protocol, sensor), model, fill="none")
        except ValueError as error:  # an InputError, or smaller than one cell
            raise InputError(f"{pair.name}: {error}") from None
        scores.append(score(pair.name, pair.scene, result, truth, dataset.border, 100.0 if pair.unit == "m" else 1.0))
        if progress:
            progress(n + 1, len(dataset))
    return Evaluation(
        data=dataset.title,
        method=method,
        scale=scale,
        protocol=protocol,
        degradation=DEGRADATION[protocol] if sensor is None else f"{DEGRADATION[protocol]}; then {sensor}",
        border=dataset.border,
        unit="cm" if dataset.unit == "m" else "disparity levels",
        averaging="per image, then the mean over images",
        scores=scores,
    )


def _low_resolution(name: str, truth: np.ndarray, scale: int, protocol: str, sensor: Sensor | None) -> np.ndarray:
    if sensor is None:
        return make_low_resolution(truth, scale, protocol)
    rng = np.random.default_rng([zlib.crc32(name.encode()), scale])
    return replace(sensor, sampling=protocol).measure(truth, scale, rng)


def score(name: str, scene: str, result: np.ndarray, truth: np.ndarray, border: int, factor: float) -> Score:
    """Errors of `result` against `truth`, both `[H, W]` with NaN where unknown, times `factor`, without the border.

    Raises:
        InputError: no pixel is known in both.
    """
    inside = (slice(border, -border or None),) * 2
    result, truth = result[inside].astype(np.float64), truth[inside].astype(np.float64)
    known = np.isfinite(truth)
    both = known & np.isfinite(result)
    if not both.any():
        raise InputError(f"{name}: no pixel inside a border of {border} is known in truth and result; expected some")
    error = (result[both] - truth[both]) * factor
    rmse, mae = float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))
    return Score(name, scene, rmse, mae, int(both.sum()), int(known.sum() - both.sum()))
