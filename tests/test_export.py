"""Exported files: that they run without depthup, at any size, and give what the network gives."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import depthup
import depthup.export
from depthup.data import InputError
from depthup.export import export_onnx, export_program
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.weights import save_weights

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "base": DDFUpNetConfig("base", 4, width=16, trunk_blocks=1),
    "sensor": DDFUpNetConfig("base", 4, width=16, trunk_blocks=1, sensor=True),
    "paper": DDFUpNetConfig("paper", 4, width=16, trunk_blocks=0),
    "pac-net": DDFUpNetConfig("pac-net", 4, width=8, trunk_blocks=0),
    "djf": DDFUpNetConfig("djf", 4, width=12, trunk_blocks=0, kernel_size=5),
    "sensor-x2": DDFUpNetConfig("base", 2, width=16, trunk_blocks=1, sensor=True, unshuffle=2),
    "base-x8": DDFUpNetConfig("base", 8, width=16, trunk_blocks=1),
}
SIZES = ((1, 3, 3), (2, 5, 11), (1, 16, 8))


def small_net(config: DDFUpNetConfig) -> DDFUpNet:
    """A network whose result is not its bicubic start."""
    torch.manual_seed(0)
    net = DDFUpNet(config)
    last = {"base": "result", "pac-net": "decoder.2", "djf": "joint.4"}.get(config.architecture)
    if last:
        torch.nn.init.normal_(net.get_parameter(f"net.{last}.weight"), std=0.5)
    return net.eval().requires_grad_(False)


def inputs_of(net: DDFUpNet, batch: int, h: int, w: int) -> dict[str, np.ndarray]:
    """`h` and `w` are in cells of the coarsest level."""
    rng, s = np.random.default_rng(h), net.config.scale
    h, w = net.config.unshuffle * h, net.config.unshuffle * w
    inputs = {"low": rng.random((batch, 1, h, w)), "rgb": rng.random((batch, 3, s * h, s * w))}
    if net.config.sensor:
        inputs["valid"] = rng.random((batch, 1, h, w)) > 0.5
    return {name: array.astype(np.float32) for name, array in inputs.items()}


def expected_of(net: DDFUpNet, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return net(*(torch.from_numpy(array) for array in inputs.values())).numpy()


def without_site(code: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python that sees the installed packages but no `.pth` file, so not an editable depthup."""
    folders = [path for path in sys.path if path.endswith("site-packages")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    start = f"import sys; sys.path += {folders!r}\n"
    command = [sys.executable, "-S", "-c", start + code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def onnx_session(path: Path):
    return pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """A network, and its ONNX file."""
    pytest.importorskip("onnxruntime")
    net, path = small_net(NETWORKS[request.param]), tmp_path_factory.mktemp(request.param) / "net.onnx"
    assert export_onnx(net, path) < 1e-5
    assert list(path.parent.iterdir()) == [path]
    return net, path


def test_onnx_at_other_sizes(exported):
    net, path = exported
    session = onnx_session(path)
    for size in SIZES:
        inputs = inputs_of(net, *size)
        (result,) = session.run(None, inputs)
        np.testing.assert_allclose(result, expected_of(net, inputs), rtol=0, atol=1e-5)


def test_onnx_says_what_it_is(exported):
    net, path = exported
    s, sensor = net.config.scale, net.config.sensor
    session = onnx_session(path)
    about = session.get_modelmeta().custom_metadata_map
    assert about["model"] == f"{'sensor-' if sensor else ''}x{s}"
    assert (about["scale"], about["depthup_version"]) == (str(s), depthup.__version__)
    shapes = {value.name: (value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())}
    u, s = net.config.unshuffle, net.config.stride
    assert shapes["low"] == ("tensor(float)", ["batch", 1, *(["h", "w"] if u == 1 else [f"{u}*h", f"{u}*w"])])
    assert shapes["rgb"] == ("tensor(float)", ["batch", 3, f"{s}*h", f"{s}*w"])
    output = "depth_and_log_error" if sensor else "depth"
    assert shapes[output] == ("tensor(float)", ["batch", 1 + sensor, f"{s}*h", f"{s}*w"])
    assert set(about) == {"model", "scale", "depthup_version", *shapes}
    assert "minimum" in about["low"]
    assert "maximum" in about[output]
    assert ("valid" in shapes) == sensor


def test_onnx_holds_standard_operators_and_no_paths(exported):
    _, path = exported
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    assert [(opset.domain, opset.version >= 18) for opset in model.opset_import] == [("", True)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert b"site-packages" not in path.read_bytes()


RUN_PROGRAM = """
import numpy as np, torch
sys.modules["depthup"] = None  # whoever imports it fails
program = torch.export.load(sys.argv[1]).module()
for file in sys.argv[2:]:
    pair = np.load(file)
    result = program(*(torch.from_numpy(pair[n]) for n in ("low", "rgb", "valid")))
    assert np.abs(result.numpy() - pair["expected"]).max() < 1e-5
"""


def test_program_runs_without_depthup(tmp_path, depthup_):
    config = DDFUpNetConfig("base", 2, width=16, trunk_blocks=1, sensor=True)
    net, weights, path = small_net(config), tmp_path / "mine" / "model.safetensors", tmp_path / "net.pt2"
    weights.parent.mkdir()
    save_weights(weights, net, {})
    command = depthup_("export", weights, "-o", path, "--json")
    assert command.code == 0, command.err
    facts = json.loads(command.out)
    assert facts.pop("difference") < 1e-5
    assert facts == {"file": str(path), "model": str(weights)}
    assert set(tmp_path.iterdir()) == {weights.parent, path}
    assert b"site-packages" not in path.read_bytes()
    extra_files = {"depthup.json": ""}
    torch.export.load(path, extra_files=extra_files)
    assert json.loads(extra_files["depthup.json"])["model"] == "mine"
    files = []
    for size in SIZES:
        inputs = inputs_of(net, *size)
        files.append(tmp_path / f"{size[1]}.npz")
        np.savez(files[-1], expected=expected_of(net, inputs), **inputs)
    run = without_site(RUN_PROGRAM, path, *files, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


EXPORTS = pytest.mark.parametrize(("export", "suffix"), [(export_onnx, ".onnx"), (export_program, ".pt2")])


def refused(tmp_path: Path, export, model, path: Path, overwrite: bool = False) -> str:
    before = {entry: entry.read_bytes() for entry in tmp_path.iterdir()}
    with pytest.raises(InputError) as caught:
        export(model, path, overwrite)
    assert {entry: entry.read_bytes() for entry in tmp_path.iterdir()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@EXPORTS
def test_bad_calls(tmp_path, export, suffix):
    net, path = small_net(NETWORKS["base"]), tmp_path / f"net{suffix}"
    assert "no such model" in refused(tmp_path, export, "x5", path)
    assert f"expected one of {suffix}" in refused(tmp_path, export, net, tmp_path / "net.bin")
    assert "does not exist" in refused(tmp_path, export, net, tmp_path / "nowhere" / path.name)
    path.write_bytes(b"mine")
    assert "exists already" in refused(tmp_path, export, net, path)
    weights = tmp_path / "bad.safetensors"
    weights.write_bytes(b"nothing")
    assert "not a safetensors file" in refused(tmp_path, export, weights, path, overwrite=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
@EXPORTS
def test_a_folder_whose_name_is_no_text(tmp_path, export, suffix):
    folder = tmp_path / os.fsdecode(b"exported-\xff")
    folder.mkdir()
    export(small_net(NETWORKS["sensor"]), folder / f"x4{suffix}")
    assert [path.suffix for path in folder.iterdir()] == [suffix]


def test_a_file_that_gives_something_else_is_not_left(tmp_path):
    """Of `_write`, which both exports share: what was there before stays, and nothing else is added."""
    net, path = small_net(NETWORKS["base"]), tmp_path / "net.onnx"
    path.write_bytes(b"mine")

    def write_and_give(offset: float):
        def export(model, path, overwrite):
            write = lambda temporary: temporary.write_bytes(b"new")  # noqa: E731
            depthup.export._write(path, net, write, lambda temporary: lambda *t: net(*t).numpy() + offset)

        return export

    for offset in (2e-4, float("nan")):
        assert "differs from PyTorch" in refused(tmp_path, write_and_give(offset), net, path, overwrite=True)
    write_and_give(5e-5)(net, path, True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_extra(tmp_path, monkeypatch, missing):
    pytest.importorskip("onnx")
    real = importlib.import_module

    def import_module(name, *arguments):
        if name == missing:
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", import_module)
    message = refused(tmp_path, export_onnx, small_net(NETWORKS["base"]), tmp_path / "net.onnx")
    assert message.endswith(f'needs the package {missing}, which is not installed; run: pip install "depthup[onnx]"')


HUB = """
import numpy as np, torch
root, weights = sys.argv[1:]
net = torch.hub.load(root, "ddfupnet", weights, source="local")
upsampler = torch.hub.load(root, "upsampler", source="local", name=weights, device="cpu", precision="bf16")
assert upsampler.precision == "bf16"
import depthup, depthup.kernels, depthup.data
for module in (depthup, depthup.kernels, depthup.data):
    assert module.__file__.startswith(root), module.__file__
assert net(torch.rand(1, 1, 4, 5), torch.rand(1, 3, 16, 20)).shape == (1, 1, 16, 20)
assert upsampler(np.zeros((16, 20, 3), np.uint8), np.random.rand(4, 5)).shape == (16, 20)
"""


def test_hub_loads_a_bare_checkout(tmp_path):
    weights = tmp_path / "small.safetensors"
    save_weights(weights, small_net(NETWORKS["base"]), {})
    run = without_site(HUB, ROOT, weights, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("write", "ending"), [(export_onnx, "onnx"), (export_program, "pt2")])
def test_a_pytorch_that_cannot_export_is_a_line(tmp_path, monkeypatch, write, ending):
    def refuse(*arguments, **options):
        raise RuntimeError("Constraints violated (batch, h, w)!\nand more")

    monkeypatch.setattr(torch.export, "export", refuse)
    path = tmp_path / f"net.{ending}"
    with pytest.raises(InputError) as caught:
        write(small_net(DDFUpNetConfig(scale=4, width=8, trunk_blocks=1)), path)
    message = str(caught.value)
    assert message.startswith(f"{path}: PyTorch {torch.__version__} cannot export this network (Constraints violated")
    assert "\n" not in message and not path.exists()
