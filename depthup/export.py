"""A network as one file that runs without depthup: ONNX, or an exported program of PyTorch (`.pt2`)."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthup import __version__
from depthup.atomic import write_beside
from depthup.data import InputError
from depthup.data.extras import load_extra
from depthup.depth_files import check_output
from depthup.kernels import reference, use_backend
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.run_folder import WEIGHTS
from depthup.tiles import is_out_of_memory
from depthup.weights import load_model, weights_path

OPSET = 18
"""Version of the ONNX operators, the first with all that is needed."""

TOLERANCE = 1e-4
"""How far a written file may be from PyTorch, in ranges of the low-resolution depth."""

SMALLEST = 3
"""Least height and width of the low-resolution depth."""

_EXAMPLE = (2, 6, 7)  # batch, h, w that the network is traced with
_CHECKED = ((1, 9, 13), (3, 15, 5))  # … and that the file is checked with
_DDF = torch.ops.depthup.ddf.default


def export_onnx(model: str | Path | DDFUpNet, path: str | Path, overwrite: bool = False) -> float:
    """Write a network as an ONNX file of standard operators, which needs neither PyTorch nor depthup.

    Inputs are `low`, float32 `[batch, 1, h, w]`, normalised to 0..1 by its own minimum and maximum, without NaN; `rgb`,
    float32 `[batch, 3, scale*h, scale*w]` in 0..1; and of a network for sensors `valid`, float32 `[batch, 1, h, w]`, 1
    where depth was measured and 0 where it was filled. Batch, h and w are free, h and w at least 3; where the network's
    `unshuffle` u is not 1, u*h and u*w stand for them. The output is
    `depth`, `[batch, 1, scale*h, scale*w]` in the units of `low`, or `depth_and_log_error` with a second channel, the
    natural logarithm of the expected absolute error. The file's metadata say this, too.

    The file is run in ONNX Runtime and compared with PyTorch before it gets its name.

    Args:
        model: a name in the box, a `.safetensors` file, or a network.
        path: file to be written, `.onnx`.
        overwrite: whether it may exist already.

    Returns:
        The largest difference from PyTorch that was seen, in ranges of the low-resolution depth.

    Raises:
        InputError: no such model; see `check_output`; the extra `onnx` is not installed; or the difference is more than
            `TOLERANCE`, and then no file is left; PyTorch is too old for it.
    """
    path = Path(path)
    check_output(path, overwrite, (".onnx",))
    onnx, onnxruntime, onnxscript = (load_extra(path, m, "onnx") for m in ("onnx", "onnxruntime", "onnxscript"))
    net, name = _network(model)
    inputs, output = _input_names(net), _output_name(net)
    with _quiet(), _exporting(path):
        exported = torch.onnx.export(
            _trace(net),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=[output],
            custom_translation_table={_DDF: _ddf_in_onnx(onnxscript.opset18)},
        )
    assert exported is not None  # it is None where torch writes the file
    _tidy(exported.model, net.config)
    exported.model.metadata_props.update(_description(net, name))
    content = exported.model_proto.SerializeToString()
    onnx.checker.check_model(content)

    def in_onnx_runtime(temporary: Path) -> Callable[..., np.ndarray]:
        # bytes here as in the other: a path need not be text
        session = onnxruntime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        return lambda *tensors: session.run(None, {n: t.numpy() for n, t in zip(inputs, tensors, strict=True)})[0]

    return _write(path, net, lambda temporary: temporary.write_bytes(content), in_onnx_runtime)


def export_program(model: str | Path | DDFUpNet, path: str | Path, overwrite: bool = False) -> float:
    """Write a network as an exported program, which needs PyTorch only: `torch.export.load(path).module()`.

    Its arguments and its result are those of `export_onnx`, and so are the checks; `depthup.json` among its extra files
    holds the metadata. It runs on the CPU and, unlike the ONNX file, unfolds the features before every DDF-Up.

    Args:
        model, overwrite: as of `export_onnx`.
        path: file to be written, `.pt2`.

    Returns:
        The largest difference from the network that was seen, in ranges of the low-resolution depth.

    Raises:
        InputError: no such model; see `check_output`; or the difference is more than `TOLERANCE`, and then no file is
            left; PyTorch is too old for it.
    """
    path = Path(path)
    check_output(path, overwrite, (".pt2",))
    net, name = _network(model)
    extra_files = {"depthup.json": json.dumps(_description(net, name), indent=1)}
    with _quiet(), _exporting(path):
        program = _trace(net).run_decompositions({_DDF: reference.forward})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine

    def write(temporary: Path) -> None:
        content = io.BytesIO()  # onto a full disk torch's own writer ends the process
        with _quiet():
            torch.export.save(program, content, extra_files=extra_files)
        temporary.write_bytes(content.getbuffer())

    def in_torch(temporary: Path) -> Callable[..., np.ndarray]:
        with _quiet():
            loaded = torch.export.load(io.BytesIO(temporary.read_bytes())).module()
        return lambda *tensors: loaded(*tensors).numpy()

    return _write(path, net, write, in_torch)


@contextmanager
def _exporting(path: Path) -> Iterator[None]:
    """PyTorch's failures as a line: older versions (2.6) do not export networks for images of any size."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: PyTorch {torch.__version__} cannot export this network ({reason}); expected a newer one, such as"
            " 2.13"
        ) from error


def _network(model: str | Path | DDFUpNet) -> tuple[DDFUpNet, str]:
    """A float32 copy on the CPU, and its name: of `RUN/model.safetensors`, as all runs call theirs, that of the run."""
    if isinstance(model, DDFUpNet):
        name = f"{'sensor-' if model.config.sensor else ''}x{model.config.scale}"
        return copy.deepcopy(model).cpu().float().eval().requires_grad_(False), name
    path = weights_path(model).absolute()
    return load_model(model), path.parent.name if path.name == WEIGHTS else path.stem


def _input_names(net: DDFUpNet) -> list[str]:
    return ["low", "rgb", "valid"] if net.config.sensor else ["low", "rgb"]


def _output_name(net: DDFUpNet) -> str:
    return "depth_and_log_error" if net.config.sensor else "depth"


def _description(net: DDFUpNet, name: str) -> dict[str, str]:
    """Metadata of the file."""
    s, samples = net.config.scale, f"[batch, 1, {_size(net.config.unshuffle)}]"
    size = _size(net.config.stride)
    low = (
        f"float32 {samples}, low-resolution depth normalised as (depth - minimum) / (maximum - minimum), by the"
        " minimum and maximum of the low-resolution image itself; 0 where these are equal; no NaN"
    )
    depth = f"float32 [batch, 1, {size}], depth = value * (maximum - minimum) + minimum"
    about = {"model": name, "scale": str(s), "depthup_version": __version__, "low": low}
    about["rgb"] = f"float32 [batch, 3, {size}], red first, 0..1"
    if net.config.sensor:
        about["valid"] = f"float32 {samples}, 1 where depth was measured, 0 where it was filled"
        depth = depth.replace("[batch, 1,", "[batch, 2,").replace("depth =", "channel 0: depth =")
        depth += "; channel 1: expected absolute error = exp(value) * (maximum - minimum)"
    return about | {_output_name(net): depth}


def _size(factor: int) -> str:
    """Height and width, in cells of the coarsest level times a factor."""
    return f"{factor}*h, {factor}*w" if factor > 1 else "h, w"


def _inputs(net: DDFUpNet, batch: int, h: int, w: int) -> tuple[Tensor, ...]:
    random, (u, s) = torch.Generator().manual_seed(batch + h + w), (net.config.unshuffle, net.config.stride)
    low, rgb, valid = (torch.rand(batch, c, n * h, n * w, generator=random) for c, n in ((1, u), (3, s), (1, u)))
    return (low, rgb, (valid > 0.3).float())[: len(_input_names(net))]


def _trace(net: DDFUpNet) -> torch.export.ExportedProgram:
    """The network's graph for any batch and size, with `depthup::ddf` as one node."""
    u, s, batch = net.config.unshuffle, net.config.stride, torch.export.Dim("batch", min=1)
    h, w = torch.export.Dim("h", min=SMALLEST), torch.export.Dim("w", min=SMALLEST)
    low = {0: batch, 2: u * h, 3: u * w}
    shapes = {"low": low, "rgb": {0: batch, 2: s * h, 3: s * w}, "valid": low}
    with use_backend("cpu"):  # any backend but the reference leaves the operation whole
        return torch.export.export(
            net, _inputs(net, *_EXAMPLE), dynamic_shapes={name: shapes[name] for name in _input_names(net)}
        )


def _ddf_in_onnx(op: Any) -> Callable:
    """`depthup::ddf` in standard operators: one multiply-add per tap over shifted slices, without an unfolded copy."""

    def ddf(x, channel_filter, spatial_filter, dilation: int, stride: int, scale: int, combine: str):
        _, N, C, k, _ = channel_filter.shape
        pad, far = dilation * (k // 2), np.iinfo(np.int64).max
        padded = op.Unsqueeze(op.Pad(x, [0, 0, pad, pad, 0, 0, pad, pad]), [1])  # [B, 1, C, H + 2*pad, W + 2*pad]
        total = None
        for tap in range(k * k):
            i, j = divmod(tap, k)
            # counted from the end, so that no size has to be known
            ends = [dilation * (n + 1 - k) or far for n in (i, j)]
            patch = op.Slice(padded, [dilation * i, dilation * j], ends, [3, 4], [stride, stride])
            channel = op.Slice(channel_filter, [i, j], [i + 1, j + 1], [3, 4])  # [B, N, C, 1, 1]
            spatial = op.Slice(spatial_filter, [tap], [tap + 1], [2])  # [B, N, 1, Ho, Wo]
            if combine == "mul":
                term = op.Mul(op.Mul(patch, channel), spatial)
            else:
                term = op.Mul(patch, op.Add(channel, spatial))
            total = term if total is None else op.Add(total, term)
        shape = op.Concat(
            op.Shape(x, end=1), op.Constant(value_ints=[N * C]), op.Shape(spatial_filter, start=3), axis=0
        )
        return op.DepthToSpace(op.Reshape(total, shape), blocksize=scale, mode="DCR")

    return ddf


def _tidy(model: Any, config: DDFUpNetConfig) -> None:
    """Readable sizes of inputs and output, and no traces of this machine."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = None  # in symbols that mean nothing outside of the tracing
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
        factor = config.unshuffle if value.name in ("low", "valid") else config.stride
        value.shape = type(value.shape)(["batch", value.shape[1], *_size(factor).split(", ")])
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on packages that are not needed and on its own future."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write(
    path: Path, net: DDFUpNet, write: Callable[[Path], Any], load: Callable[[Path], Callable[..., np.ndarray]]
) -> float:
    """Write a file, if what `load` makes of it gives what the network gives; the largest difference."""
    with write_beside(path) as temporary:
        write(temporary)
        run, difference = load(temporary), 0.0
        for size in _CHECKED:
            inputs = _inputs(net, *size)
            expected = net(*inputs).numpy()
            difference = np.maximum(difference, np.abs(run(*inputs) - expected).max())  # keeps a NaN
        if not difference <= TOLERANCE:
            raise InputError(
                f"{path}: not written: what it gives differs from PyTorch by {difference:.2g} of the depth range,"
                f" expected at most {TOLERANCE:g}"
            )
    return float(difference)
