"""`depthup eval` and `depthup compare`: methods scored at scales, as facts, a table and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from depthup.commands.errors import UsageError
from depthup.data import STANDARD_SENSOR, InputError, PairDataset, Sensor, open_dataset
from depthup.depth_files import check_output
from depthup.evaluation import Evaluation, Method, evaluate_methods, predict, resolve_method, write_csv
from depthup.visualize import ScaleRow, methods_figure
from depthup.weights import shipped_names


def default_model(scale: int, protocol: str) -> str:
    """The network in the box for a scale and a protocol.

    Raises:
        UsageError: there is none.
    """
    name = f"x{scale}" if protocol == "dkn" else f"x{scale}-{protocol}"
    if name not in shipped_names():
        raise UsageError(
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
        InputError: no such file.
        UsageError: no such model, or none for one of the scales; the same method twice.
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
    progress: Callable[[str, float], None],
    sensor: bool = False,
    figure: Path | None = None,
    image: str | None = None,
    invalid: Sequence[float] = (),
) -> list[dict]:
    """Score methods at scales (see `named_methods`); writes the CSV file and the figure if asked.

    Args:
        image: name of the pair that the figure shows; without it the one of median RMSE under the last method.
        invalid: as of `open_dataset`.

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
    dataset = open_dataset(data, split, invalid)
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
