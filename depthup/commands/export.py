"""`depthup export`: a network for other programs."""

from __future__ import annotations

from pathlib import Path

from depthup.baselines import BASELINES
from depthup.data import UsageError
from depthup.depth_files import check_output


def export_network(model: str, out: Path, overwrite: bool) -> float:
    """Write a network to a `.onnx` or `.pt2` file; returns the largest difference from PyTorch, in depth ranges."""
    check_output(out, overwrite, (".onnx", ".pt2"))
    if model in BASELINES:
        raise UsageError(f"{model}: is a baseline, which has no weights; expected a name in the box or a weights file")
    from depthup.export import export_onnx, export_program  # imports torch's compiler

    return (export_onnx if out.suffix.lower() == ".onnx" else export_program)(model, out, overwrite)
