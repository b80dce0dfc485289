"""`depthup eval` and `depthup compare`: methods scored at scales, as facts, a table and a figure."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from depthup.baselines import BASELINES
from depthup.data import (
    STANDARD_SENSOR,
    InputError,
    PairDataset,
    Sensor,
    SomePairs,
    UsageError,
    input_files,
    open_dataset,
)
from depthup.depth_files import check_output
from depthup.evaluation import (
    Evaluation,
    Method,
    default_network,
    evaluate_methods,
    predict,
    resolve_method,
    write_csv,
)
from depthup.upsampling import warn_of_precision
from depthup.visualize import ScaleRow, methods_figure
from depthup.weights import check_device, read_metadata

MOST_NOISE = 1_000_000
"""Of a simulated sensor, in millimetres and in millimetres for a square metre."""

log = logging.getLogger("depthup")


def named_methods(
    names: list[str],
    scales: list[int],
    protocol: str,
    sensor: bool,
    precision: str = "float32",
    device: str | None = None,
) -> list[Method]:
    """Every method at every scale, scale by scale.

    Args:
        names: baselines, names in the box or weights files; `{scale}` in a name stands for the scale, and `default` for
            the network in the box.
        scales: up-sampling factors.
        protocol: decides what `default` is.
        sensor: so does it.
        precision, device: as of `Method`.

    Raises:
        InputError: no such file or device.
        UsageError: no such model, or none for one of the scales; the same method twice.
    """
    methods: list[Method] = []
    for scale in scales:
        for name in names:
            model = name.replace("{scale}", str(scale))
            if name == "default":
                model = default_network(scale, protocol, sensor)
            if any((model, scale) == (other.name, other.scale) for other in methods):
                raise UsageError(f"{model}: is named twice for scale {scale}; expected each method once")
            methods.append(resolve_method(Method(model, scale, model, precision, device)))
            _warn_of_protocol(model, protocol)
    return methods


def simulated_sensor(wanted: bool, noise: tuple[float, float] | None = None) -> Sensor | None:
    """What `--sensor` measures with, its noise a + b z^2 mm at z metres if (a, b) are given; None without `--sensor`.

    Raises:
        UsageError: noise without a sensor; a number that is negative or more than `MOST_NOISE`.
    """
    if noise is None:
        return STANDARD_SENSOR if wanted else None
    if not wanted:
        raise UsageError("--noise: is that of the simulated sensor; expected --sensor too")
    if not all(0 <= number <= MOST_NOISE for number in noise):
        raise UsageError(
            f"--noise: got {noise[0]:g} {noise[1]:g}, expected two numbers from 0 to {MOST_NOISE}, such as 1 0.5"
        )
    return replace(STANDARD_SENSOR, noise_floor=noise[0] / 1000, noise_square=noise[1] / 1000)


def _warn_of_protocol(model: str, protocol: str) -> None:
    if model in BASELINES:
        return
    config, training = read_metadata(model)
    learned = training.get("config", {}).get("protocol", protocol)
    if learned != protocol and not config.sensor:
        log.warning(
            "%s: learned from protocol %s, is scored under %s: not what it can do at its best", model, learned, protocol
        )


def _warn_of_training(model: str, dataset: PairDataset, data: str, split: str, invalid: Sequence[float]) -> None:
    """Warn where images that are scored are those that a network was trained on, as far as its record tells."""
    trained_on = read_metadata(model)[1].get("data", {}).get("title", "")
    if split not in ("all", "test") or _without_split(trained_on) != _without_split(dataset.title):
        return
    try:
        seen = set(open_dataset(data, "train", invalid).names) & set(dataset.names)
    except InputError:  # it has no such split
        return
    if seen:
        log.warning(
            "%s: was trained on %s, where %d of these %d images are; --split val has none of them",
            *(model, trained_on, len(seen), len(dataset)),
        )


def _without_split(title: str) -> str:
    return title.partition(", split ")[0]


def evaluate_data(
    data: str,
    names: list[str],
    scales: list[int],
    *,
    protocol: str,
    split: str,
    sensor: Sensor | None,
    invalid: Sequence[float] | None,
    limit: int | None,
    precision: str,
    device: str | None,
    progress: Callable[[str, float], None],
    table: Path | None = None,
    figure: Path | None = None,
    image: str | None = None,
    overwrite: bool = False,
) -> list[dict]:
    """Score methods at scales (see `named_methods`); writes the CSV file and the figure if asked.

    Args:
        data, split, invalid: as of `open_dataset`.
        names, scales, protocol, precision, device: as of `named_methods`.
        sensor: what measures the low-resolution depth, instead of the protocol alone.
        limit: score at most so many pairs, evenly spread.
        progress: takes what is being done and the fraction that is done.
        table, figure: files to write; `overwrite` says whether they may be there.
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
    where = check_device(device) if device is not None else None
    methods = named_methods(names, scales, protocol, sensor is not None, precision, device)
    warn_of_precision(precision, where)
    invalid = invalid or ()
    dataset: PairDataset = open_dataset(data, split, invalid)
    inputs = input_files(dataset)
    for output in (table, figure):
        if output and output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
            raise UsageError(f"{output}: is an input; expected another name for the result")
    if limit:
        dataset = SomePairs(dataset, limit)
    if image is not None and image not in dataset.names:
        place = dataset.title if limit else f"split {split}"
        raise InputError(f"{data}: has no pair {image} in {place}; expected one such as {dataset.names[0]}")
    for name in dict.fromkeys(method.name for method in methods if method.model not in BASELINES):
        _warn_of_training(name, dataset, data, split, invalid)
    runs = evaluate_methods(
        dataset, methods, protocol, lambda done, total: progress("evaluating", done / total), sensor
    )
    if table:
        write_csv(table, runs)
    if figure:
        _draw_methods(figure, dataset, runs, methods, sensor, image)
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
    border = f", without a border of {runs[0].border} pixels" if runs[0].border else ""
    measured = f"protocol {runs[0].protocol}; RMSE of the whole image{border}"
    if sensor:
        measured = f"protocol {runs[0].protocol}, simulated sensor, {sensor}; RMSE where samples are valid{border}"
    title = f"{dataset.title}, image {pair.name}\n{measured}"
    readable = os.fsencode(title).decode(errors="replace")  # a name may be no Unicode
    methods_figure(figure, list(rows.values()), pair.unit, readable)
