"""The demonstration: Motorcycle at x8, from data and weights in the box to files, a figure and numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from depthup.data import crop_to_multiple, make_low_resolution, motorcycle
from depthup.depth_files import check_output, write_depth, write_image
from depthup.metrics import score
from depthup.upsampling import resolve_model, upsample
from depthup.visualize import colourise, comparison_figure

SCALE = 8


def run_demo(out: Path, overwrite: bool, progress: Callable[[str, float], None]) -> dict:
    """Upsample Motorcycle's depth by 8 and write the inputs, the result, a preview and a figure to the folder `out`.

    The pair is real (Middlebury 2014) and was never trained on. Its depth is reduced as under protocol `dkn`.

    Args:
        out: folder, made if it is not there.
        overwrite: whether files in it may be replaced.
        progress: takes what is being done and the fraction that is done.

    Returns:
        Paths of the files, RMSE in centimetres of the network and of bicubic over the whole image, and seconds.

    Raises:
        InputError: a file exists and `overwrite` is False, or the folder cannot be written.
    """
    net = resolve_model(f"x{SCALE}", SCALE)
    paths = {name: out / f"{name}.png" for name in ("rgb", "low", "depth", "preview", "figure")}
    if not out.exists():
        check_output(out)
        out.mkdir()
    for path in paths.values():
        check_output(path, overwrite)
    pair = motorcycle()
    rgb, truth = crop_to_multiple(pair.rgb, SCALE), crop_to_multiple(pair.depth, SCALE)
    low = make_low_resolution(truth, SCALE, "dkn")
    progress("compiling the kernel", 0.1)
    upsample(rgb, low, net, fill="none")  # the first call compiles the CPU kernel, once for this machine
    began = time.perf_counter()
    result = upsample(rgb, low, net, fill="none")
    seconds = time.perf_counter() - began
    bicubic = upsample(rgb, low, "bicubic", fill="none")
    rmse = {
        name: score(pair.name, pair.scene, depth, truth, border=0, factor=100.0).rmse
        for name, depth in (("depthup", result), ("bicubic", bicubic))
    }
    progress("drawing", 0.6)
    write_image(paths["rgb"], rgb, overwrite)
    write_depth(paths["low"], low, "mm", overwrite)
    write_depth(paths["depth"], result, "mm", overwrite)
    write_image(paths["preview"], colourise(result), overwrite)
    comparison_figure(paths["figure"], rgb, low, {"bicubic": bicubic, "depthup": result}, truth)
    return {
        "files": {name: str(path) for name, path in paths.items()},
        "data": "Middlebury 2014 Motorcycle, metric depth, protocol dkn, no border",
        "scale": SCALE,
        "size": [rgb.shape[1], rgb.shape[0]],
        "rmse_cm": rmse,
        "seconds": seconds,
    }
