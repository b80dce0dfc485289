"""`depthup upsample`: one pair of files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from depthup.commands.outputs import Outputs, check_outputs, check_pair, write_output
from depthup.console import in_one_line
from depthup.data import InputError, UsageError
from depthup.pair_files import PairOptions, read_pair, upsample_pair, warn_of_depth, warn_of_shape
from depthup.upsampling import warn_of_precision


def upsample_files(
    rgb: Path,
    depth: Path,
    out: Outputs,
    options: PairOptions,
    mask: Path | None = None,
    confidence: Path | None = None,
    overwrite: bool = False,
) -> dict:
    """Upsample one pair of files.

    Returns:
        Facts of the result: files, size, ratio, model, samples across a cell and isolated ones (see `Upsampled`),
        precision, seconds of upsampling, depth range in metres, and the fraction known.

    Raises:
        InputError: a file is bad, or cannot be written.
        UsageError: options contradict each other.
    """
    if (out.needs_camera or options.alignment) and not out.camera:
        raise UsageError(
            "upsample: --align, --ply and --normals need the camera; expected --intrinsics fx,fy,cx,cy or a file"
        )
    upsampler = options.upsampler()
    warn_of_precision(options.precision, upsampler.device)
    if out.confidence and options.model:
        upsampler.check_tells_error()
    check_outputs(out, [path for path in (rgb, depth, mask, confidence) if path], overwrite)
    pair = read_pair(rgb, depth, options, mask, confidence, out.camera)
    check_pair(out, upsampler, pair, options, rgb)
    upsampler.warm_up(pair.rgb, pair.depth, options.size)  # loading is not part of the time
    began = time.perf_counter()
    run = upsample_pair(upsampler, pair, options, f"{rgb}, {depth}")
    seconds = time.perf_counter() - began
    result = run.depth
    written: list[str] = []
    for path in out.files().values():
        try:
            write_output(path, out, pair.rgb, run, options, overwrite)
        except (InputError, OSError) as error:
            if not written:
                raise
            raise InputError(f"{in_one_line(error)}; before it were written: {', '.join(written)}") from None
        written.append(str(path))
    warn_of_depth(pair, run, depth)
    warn_of_shape(pair, options, rgb, depth)
    known = np.isfinite(result)
    return {
        "out": str(out.depth),
        "files": {option.removeprefix("--"): str(path) for option, path in out.files().items()},
        "size": [result.shape[1], result.shape[0]],
        "ratio": [round(n, 4) for n in run.ratio[::-1]],
        "model": run.model,
        "gathered": run.gathered,
        "isolated": run.isolated,
        "precision": options.precision,
        "seconds": seconds,
        "depth_min": float(result[known].min()),
        "depth_max": float(result[known].max()),
        "known": float(known.mean()),
    }
