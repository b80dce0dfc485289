"""Pictures of depth: colours for one map, and a figure that compares results with the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthup.atomic import write_beside
from depthup.depth_files import check_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_MEASUREMENT = (190, 190, 190)
"""Colour of a pixel without measurement: brighter than viridis where viridis is least colourful."""

_UNKNOWN_ERROR = (110, 110, 110)  # darker, since the bright end of magma is nearly grey
_DEPTH_COLOURS = "viridis_r"
_ERROR_COLOURS = "magma"

# Unit of a pair -> label of its colour bar, colours (near is bright), unit of errors, how many of them make one.
_UNITS = {
    "m": ("Depth [m]", _DEPTH_COLOURS, "cm", 100.0),
    "disparity": ("Disparity [levels]", _DEPTH_COLOURS.removesuffix("_r"), "levels", 1.0),
}

# Lengths in inches, sized for seven panels across a page.
_PANEL, _GAP, _GROUP_GAP, _MARGIN = 1.3, 0.04, 0.14, 0.06
_TITLE, _HEADING, _CAPTION, _BAR_HEIGHT, _BAR_LABELS = 0.22, 0.19, 0.19, 0.07, 0.36
_BAR_WIDTH, _BAR_SIDE = 0.08, 0.5
_STYLE = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlepad": 3,
    "axes.labelpad": 3,
    "axes.linewidth": 0.4,
    "xtick.labelsize": 6.5,
    "xtick.major.size": 2,
    "xtick.major.width": 0.4,
    "xtick.major.pad": 1.5,
    "savefig.dpi": 300,
}
_MOST_LETTERS = 22
_CROP_FRACTION = 4


def colourise(depth: np.ndarray, near: float | None = None, far: float | None = None) -> np.ndarray:
    """Depth in the colours of viridis, near bright and far dark.

    Args:
        depth: [H, W], any unit, NaN where there is no measurement.
        near: depth of the brightest colour; by default the 1st percentile of the known depth.
        far: depth of the darkest colour; by default the 99th percentile.

    Returns:
        uint8 [H, W, 3], RGB; `NO_MEASUREMENT`, a neutral grey, where `depth` is not finite.
    """
    known = depth[np.isfinite(depth)]
    low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
    return _colours(depth, low if near is None else near, high if far is None else far, _DEPTH_COLOURS)


def colourise_normals(normals: np.ndarray) -> np.ndarray:
    """Normals as colours: more red to the right, more green upwards, more blue towards the camera.

    Args:
        normals: [H, W, 3] as of `depthup.surface.normals`.

    Returns:
        uint8 [H, W, 3], RGB, 127.5 * (1 + component) for the components right, up and towards the camera;
        `NO_MEASUREMENT`, a neutral grey that no unit normal has, where unknown.
    """
    known = np.isfinite(normals).all(axis=-1)
    colours = np.rint(127.5 * (1 + np.where(known[..., None], normals, 0) * np.array([1, -1, -1])))
    return np.where(known[..., None], colours, NO_MEASUREMENT).astype(np.uint8)


def comparison_figure(
    path: str | Path,
    rgb: np.ndarray,
    low: np.ndarray,
    results: dict[str, np.ndarray],
    truth: np.ndarray,
    unit: str = "m",
    title: str | None = None,
) -> None:
    """Write a figure that sets results beside the truth, with their absolute errors on one scale.

    The upper row shows the whole images; the lower row a part of a quarter of their width and height, boxed above,
    where the absolute error of the first result is largest. RMSEs are over all pixels that truth and result know.

    Args:
        path: `.png` file; replaced if it exists.
        rgb: uint8 [H, W, 3].
        low: [h, w], low-resolution depth, H = s*h and W = s*w; NaN where there is no measurement.
        results: name -> [H, W], the simplest method (such as bicubic) first.
        truth: [H, W], NaN where unknown.
        unit: unit of all depths as in `depthup.data.Pair`: `m`, whose errors are shown in centimetres, or `disparity`.
        title: line above the figure.

    Raises:
        InputError: the file cannot be written, or does not end in `.png`.
        ValueError: unknown unit, no result, sizes that do not fit, or a result with no pixel that the truth knows.
    """
    _check_figure(path, unit)
    _check_sizes(rgb, low, results, truth)
    _write(path, lambda: _figure(rgb, low, results, truth, unit, title))


@dataclass(frozen=True)
class ScaleRow:
    """Results of several methods on one image at one scale.

    Args:
        scale: up-sampling factor.
        rgb: uint8 [H, W, 3].
        low: [H/scale, W/scale], NaN where there is no measurement.
        truth: [H, W], NaN where unknown.
        results: name -> [H, W].
        rmse: name -> RMSE of the whole image as it was scored, in the unit of errors.
    """

    scale: int
    rgb: np.ndarray
    low: np.ndarray
    truth: np.ndarray
    results: dict[str, np.ndarray]
    rmse: dict[str, float]


def methods_figure(path: str | Path, rows: list[ScaleRow], unit: str, title: str) -> None:
    """Write a figure of several methods at several scales on one image: depth of each, and its absolute error below.

    It shows a part of a quarter of the image's width and height, where the absolute error of the first method at the
    largest scale is largest; the whole image stands at the lower left of each scale, with that part boxed.

    Args:
        path: `.png` file; replaced if it exists.
        rows: one per scale, of the same image; its size may differ by what is beyond a multiple of the scale.
        unit: as of `comparison_figure`.
        title: lines above the figure.

    Raises:
        InputError: the file cannot be written, or does not end in `.png`.
        ValueError: unknown unit, sizes that do not fit, or a result with no pixel that the truth knows.
    """
    _check_figure(path, unit)
    for row in rows:
        _check_sizes(row.rgb, row.low, row.results, row.truth)
    _write(path, lambda: _methods_figure(rows, unit, title))


def _write(path: str | Path, draw: Callable[[], Figure]) -> None:
    from matplotlib import style

    with style.context(["default", _STYLE]):  # a user's own settings would move the text
        figure = draw()
        with write_beside(path) as temporary:
            figure.savefig(temporary, pil_kwargs={"optimize": True})


def _check_figure(path: str | Path, unit: str) -> None:
    check_output(path, overwrite=True, suffixes=(".png",))
    if unit not in _UNITS:
        raise ValueError(f"unit {unit!r} is unknown, expected one of {', '.join(_UNITS)}")


def _check_sizes(rgb: np.ndarray, low: np.ndarray, results: dict[str, np.ndarray], truth: np.ndarray) -> None:
    H, W = truth.shape
    h, w = low.shape
    if rgb.shape != (H, W, 3) or H % h or W % w or H // h != W // w:
        raise ValueError(f"rgb {list(rgb.shape)}, low {[h, w]} and truth {[H, W]} do not fit")
    if not results or any(result.shape != truth.shape for result in results.values()):
        raise ValueError(f"results {[list(r.shape) for r in results.values()]} do not fit truth {[H, W]}")
    if any(not np.isfinite(result - truth).any() for result in results.values()):
        raise ValueError("a result shares no known pixel with the truth")


@dataclass(frozen=True)
class _Panel:
    """One column: an image, whole above and in part below."""

    heading: str
    image: np.ndarray  # uint8 [H, W, 3]
    error: np.ndarray | None = None  # [H, W], whose RMSE stands below
    error_unit: str = ""


@dataclass(frozen=True)
class _Layout:
    """Places of the parts of a figure, in inches from the lower left."""

    columns: int
    errors: int
    aspect: float
    titled: bool

    @property
    def panel_height(self) -> float:
        return _PANEL * self.aspect

    @property
    def width(self) -> float:
        return self.left(self.columns - 1) + _PANEL + _MARGIN

    @property
    def height(self) -> float:
        return self.bottom(0) + self.panel_height + _HEADING + (_TITLE if self.titled else _MARGIN)

    def left(self, column: int) -> float:
        groups = (column >= 1) + (column >= self.columns - self.errors)
        return _MARGIN + column * (_PANEL + _GAP) + groups * (_GROUP_GAP - _GAP)

    def bottom(self, row: int) -> float:
        lowest = _BAR_LABELS + _BAR_HEIGHT + _CAPTION
        return lowest if row else lowest + self.panel_height + _CAPTION

    def rectangle(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        """The same in fractions of the figure."""
        return left / self.width, bottom / self.height, width / self.width, height / self.height


def _figure(
    rgb: np.ndarray, low: np.ndarray, results: dict[str, np.ndarray], truth: np.ndarray, unit: str, title: str | None
) -> Figure:
    from matplotlib.figure import Figure

    label, colours, error_unit, number = _UNITS[unit]
    errors = {name: np.abs(result - truth) * number for name, result in results.items()}
    first_error = next(iter(errors.values()))
    depth_limits = _limits(truth, 1, 99)
    error_limits = 0.0, _limits(first_error, 0, 99)[1]

    factor = truth.shape[0] // low.shape[0]
    enlarged = low.repeat(factor, 0).repeat(factor, 1)
    depths = {f"Low resolution (1/{factor})": enlarged, **results, "Truth": truth}
    panels = [_Panel("RGB", rgb)]
    panels += [_Panel(name, _colours(depth, *depth_limits, colours)) for name, depth in depths.items()]
    for name, error in errors.items():
        image = _colours(error, *error_limits, _ERROR_COLOURS, _UNKNOWN_ERROR)
        panels.append(_Panel(f"Error: {name}", image, error, error_unit))

    layout = _Layout(len(panels), len(errors), truth.shape[0] / truth.shape[1], bool(title))
    figure = Figure((layout.width, layout.height), facecolor="white")
    box = _crop(first_error)
    for column, panel in enumerate(panels):
        _draw(figure, layout, column, panel, box)
    depth_columns, error_columns = (1, len(depths)), (len(depths) + 1, len(panels) - 1)
    _colour_bar(figure, _bar_below(layout, depth_columns), depth_limits, colours, label, "both")
    error_label = f"Absolute error [{error_unit}]"
    _colour_bar(figure, _bar_below(layout, error_columns), error_limits, _ERROR_COLOURS, error_label, "max")
    if title:
        figure.text(0.5, 1 - _TITLE / 2 / layout.height, title, ha="center", va="center", fontweight="bold")
    return figure


def _crop(error: np.ndarray) -> tuple[slice, slice]:
    """The part, a quarter as wide and high as the image, where the mean of the known errors is largest."""
    import cv2

    H, W = error.shape
    height, width = max(H // _CROP_FRACTION, 1), max(W // _CROP_FRACTION, 1)
    limit = np.nanpercentile(error, 99.5)  # one wild pixel shall not choose the place
    sums = cv2.boxFilter(np.minimum(np.nan_to_num(error, nan=0.0), limit), -1, (width, height), anchor=(0, 0))
    top, left = np.unravel_index(np.argmax(sums[: H - height + 1, : W - width + 1]), (H - height + 1, W - width + 1))
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _colours(
    values: np.ndarray, low: float, high: float, name: str, unknown: tuple[int, int, int] = NO_MEASUREMENT
) -> np.ndarray:
    from matplotlib import colormaps

    known = np.isfinite(values)
    fraction = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    image = colormaps[name](np.clip(fraction, 0, 1), bytes=True)[..., :3]
    return np.where(known[..., None], image, np.array(unknown, np.uint8))


def _draw(figure: Figure, layout: _Layout, column: int, panel: _Panel, box: tuple[slice, slice]) -> None:
    for row, part in enumerate((np.s_[:, :], box)):
        place = layout.rectangle(layout.left(column), layout.bottom(row), _PANEL, layout.panel_height)
        axes = figure.add_axes(place, xticks=[], yticks=[])
        axes.imshow(panel.image[part], interpolation="nearest" if row else "antialiased", aspect="auto")
        if panel.error is not None:
            known = panel.error[part][np.isfinite(panel.error[part])]
            rmse = f"{np.sqrt(np.mean(np.square(known))):.2f} {panel.error_unit}" if known.size else "unknown"
            axes.set_xlabel(f"RMSE {rmse}")
        if row == 0:
            axes.set_title(_short(panel.heading))
            _outline(axes, box)


def _short(name: str) -> str:
    """A name of at most `_MOST_LETTERS`: of a file its folder and itself, cut in the middle where that is too long."""
    name = "/".join(Path(name).parts[-2:]) if len(name) > _MOST_LETTERS else name
    half = _MOST_LETTERS // 2
    return name if len(name) <= _MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _outline(axes: Axes, box: tuple[slice, slice]) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = box
    corner, size = (columns.start - 0.5, rows.start - 0.5), (columns.stop - columns.start, rows.stop - rows.start)
    for colour, linewidth in (("black", 1.8), ("white", 0.9)):  # two colours are seen on any image
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=linewidth))


def _bar_below(layout: _Layout, columns: tuple[int, int]) -> tuple[float, float, float, float]:
    """Place of a bar below the columns first..last, as long as two panels."""
    first, last = layout.left(columns[0]), layout.left(columns[1]) + _PANEL
    length = min(2 * _PANEL, last - first)
    return layout.rectangle((first + last - length) / 2, _BAR_LABELS, length, _BAR_HEIGHT)


def _colour_bar(
    figure: Figure,
    place: tuple[float, float, float, float],
    limits: tuple[float, float],
    colours: str,
    label: str,
    extend: str,
    orientation: str = "horizontal",
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    mappable = ScalarMappable(Normalize(*limits), colours)
    bar = figure.colorbar(mappable, cax=figure.add_axes(place), orientation=orientation, extend=extend)
    bar.locator = MaxNLocator(5)
    bar.set_label(label)
    bar.outline.set_linewidth(0.4)


@dataclass(frozen=True)
class _Line:
    """Panels side by side, (heading, image), and the colour bar that ends them: limits, colours, label, open ends."""

    panels: list[tuple[str, np.ndarray]]
    bar: tuple[tuple[float, float], str, str, str]


def _methods_figure(rows: list[ScaleRow], unit: str, title: str) -> Figure:
    from matplotlib.figure import Figure

    H, W = (min(row.truth.shape[axis] for row in rows) for axis in (0, 1))
    largest = max(rows, key=lambda row: row.scale)
    box = _crop(np.abs(next(iter(largest.results.values())) - largest.truth)[:H, :W])
    panel_height = _PANEL * H / W
    line_height = panel_height + _HEADING
    columns = 2 + max(len(row.results) for row in rows)
    ends = _MARGIN + _HEADING + columns * (_PANEL + _GAP) + _GAP
    width = ends + _BAR_WIDTH + _BAR_SIDE
    title_height = _TITLE * (1 + title.count("\n"))
    height = title_height + len(rows) * (2 * line_height + _GROUP_GAP) - _GROUP_GAP + _MARGIN
    figure = Figure((width, height), facecolor="white")
    figure.text(0.5, 1 - title_height / 2 / height, title, ha="center", va="center", fontweight="bold")
    for n, row in enumerate(rows):
        top = height - title_height - n * (2 * line_height + _GROUP_GAP)
        middle = (top - line_height) / height
        figure.text(_MARGIN / width, middle, f"x{row.scale}", va="center", rotation=90, fontweight="bold")
        for m, line in enumerate(_lines(row, box, unit), 1):
            bottom, share = (top - m * line_height) / height, panel_height / height
            for column, (heading, image) in enumerate(line.panels):
                left = _MARGIN + _HEADING + column * (_PANEL + _GAP)
                axes = figure.add_axes((left / width, bottom, _PANEL / width, share), xticks=[], yticks=[])
                axes.imshow(image, interpolation="nearest" if heading else "antialiased", aspect="auto")
                axes.set_title(_short(heading))
                if not heading:
                    _outline(axes, box)
            _colour_bar(figure, (ends / width, bottom, _BAR_WIDTH / width, share), *line.bar, "vertical")
    return figure


def _lines(row: ScaleRow, box: tuple[slice, slice], unit: str) -> tuple[_Line, _Line]:
    """RGB, truth and the depth of each method; the whole image, low resolution and their errors."""
    label, colours, error_unit, number = _UNITS[unit]
    limits = _limits(row.truth[box], 1, 99)
    upper = [("RGB", row.rgb[box]), ("Truth", _colours(row.truth[box], *limits, colours))]
    upper += [(name, _colours(result[box], *limits, colours)) for name, result in row.results.items()]
    low = row.low.repeat(row.scale, 0).repeat(row.scale, 1)[box]
    lower = [("", row.rgb), (f"Low resolution (1/{row.scale})", _colours(low, *limits, colours))]
    errors = {name: np.abs(result - row.truth)[box] * number for name, result in row.results.items()}
    error_limits = (0.0, _limits(np.stack(list(errors.values())), 0, 98)[1])
    for name, error in errors.items():
        image = _colours(error, *error_limits, _ERROR_COLOURS, _UNKNOWN_ERROR)
        lower.append((f"RMSE {row.rmse[name]:.2f} {error_unit}", image))
    return (
        _Line(upper, (limits, colours, label, "both")),
        _Line(lower, (error_limits, _ERROR_COLOURS, f"Error [{error_unit}]", "max")),
    )


def _limits(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of the known values, made different."""
    known = values[np.isfinite(values)]
    first, last = np.percentile(known, (low, high)) if known.size else (0.0, 0.0)
    return float(first), float(max(last, first + 1e-6))
