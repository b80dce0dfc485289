"""Evaluations and models as text: facts line by line, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

_PROTOCOL = ("data", "split", "protocol", "degradation", "border", "unit", "averaging", "precision", "images", "scenes")
_APART = ("definitions", "undefined_images")
_DECIMALS = {"rel": 4, "off_by_1": 2, "off_by_5": 2, "off_by_10": 2}
_COLUMNS = {
    "rmse": "RMSE",
    "rmse_interval": "95 %",
    "mae": "MAE",
    "rel": "rel",
    "off_by_1": "> 1 [%]",
    "off_by_5": "> 5 [%]",
    "off_by_10": "> 10 [%]",
    "rmse_near_edges": "near edges",
    "rmse_elsewhere": "elsewhere",
    "boundary_f1": "edge F1",
    "consistency": "consistency",
    "unknown_pixels": "unknown",
}


def evaluation_lines(result: dict) -> Iterator[str]:
    """A line for each fact of one evaluation, as `commands.evaluate.evaluate_data` gives it."""
    for name in result:
        if name not in _APART:
            yield _fact(name, _cell(result, name))
    yield from _definitions(result)


def comparison_lines(results: list[dict]) -> Iterator[str]:
    """What several evaluations on the same data have in common, then a table of them."""
    yield from (_fact(name, results[0][name]) for name in _PROTOCOL)
    yield from _definitions(results[0])
    yield ""
    rows = []
    for result in results:
        row = {"scale": f"x{result['scale']}", "method": result["method"]}
        rows.append(row | {heading: _cell(result, name) for name, heading in _COLUMNS.items()})
    yield from _table(rows, texts=("method",))


def models_lines(models: dict[str, dict]) -> Iterator[str]:
    """A table of the models in the box, as `commands.info.models_in_the_box` gives them."""
    rows = []
    for name, model in models.items():
        row = {
            "model": name,
            "scale": f"x{model['scale']}",
            "protocol": model["protocol"],
            "for": "sensors" if model["sensor"] else "clean depth",
            "network": model["architecture"],
            "parameters": f"{model['parameters'] / 1e6:.2f} M",
            "file": f"{model['bytes'] / 1e6:.1f} MB",
            "held-out RMSE": f"{model['held_out_rmse']:.3f} {model['unit']}",
            "images": str(model["held_out_images"]),
            "trained on": f"{model['data']}, {model['steps']} steps in all",
        }
        rows.append(row)
    yield from _table(rows, texts=("model", "protocol", "for", "network", "trained on"))
    yield "RMSE: mean over the images of scenes that training never saw; of networks for sensors, on simulated ones"
    yield "not in the box: PAC-Net and DJF, reimplemented; depthup train --architecture pac-net (or djf) makes weights"


def metres(depth: float) -> str:
    """A depth for people: to the millimetre where that says something."""
    return f"{depth:.3f}" if 0.01 <= depth < 10000 or not depth else f"{depth:.3g}"


def _definitions(result: dict) -> Iterator[str]:
    for name, text in result["definitions"].items():
        yield from wrap(_fact(name, text), 120, subsequent_indent=17 * " ")


def _fact(name: str, value: object) -> str:
    return f"{name.replace('_', ' '):16} {value}"


def _cell(result: dict, name: str) -> str:
    """A value as text, with the number of images behind a mean that is not over all of them."""
    value, decimals = result[name], _DECIMALS.get(name, 3)
    if value is None:
        return "undefined"
    if name == "rmse_interval":
        return f"{value[0]:.3f} to {value[1]:.3f}"
    skipped = result["undefined_images"].get(name)
    number = f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
    return f"{number} ({result['images'] - skipped} images)" if skipped else number


def _table(rows: list[dict[str, str]], texts: tuple[str, ...]) -> Iterator[str]:
    """Rows with the same keys, which are the headings; all columns but `texts` are flush right."""
    if not rows:
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in ({name: name for name in widths}, *rows):
        cells = (f"{text:{'<' if name in texts else '>'}{widths[name]}}" for name, text in row.items())
        yield "  ".join(cells).rstrip()
