"""Weights files: what is saved is what is loaded, and anything else is refused with one line."""

import errno
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import depthup.checkpoint
import depthup.weights
from depthup.data import InputError
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.weights import FORMAT, load_model, read_metadata, save_weights, shipped_names, weights_path

TRAINING = {"steps": 7, "config": {"protocol": "dkn", "seed": 3}, "validation": {"rmse": 1.25}, "title": "ä „x“"}
CONFIG = DDFUpNetConfig(scale=2, width=16, trunk_blocks=1)


def small_net(seed: int = 0) -> DDFUpNet:
    torch.manual_seed(seed)
    net = DDFUpNet(CONFIG)
    torch.nn.init.normal_(net.net.result.weight)
    return net


@pytest.fixture
def saved(tmp_path) -> Path:
    save_weights(tmp_path / "net.safetensors", small_net(), TRAINING)
    return tmp_path / "net.safetensors"


def refused(path: str | Path) -> str:
    """The one line with which a file is refused by everything that reads one."""
    messages = []
    for read in (load_model, read_metadata):
        with pytest.raises(InputError) as caught:
            read(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{path}: ")
    assert "\n" not in messages[0]
    return messages[0]


@pytest.mark.parametrize(
    "config", [CONFIG, DDFUpNetConfig("base", 8, 32, 2, 5), DDFUpNetConfig("paper", 4, 8, 0, 3)], ids=str
)
def test_round_trip(tmp_path, config):
    torch.manual_seed(0)
    net = DDFUpNet(config)
    path = tmp_path / "net.safetensors"
    save_weights(path, net, TRAINING)
    assert read_metadata(path) == (config, TRAINING)
    loaded = load_model(path)
    assert loaded.config == config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    own = net.state_dict()
    assert loaded.state_dict().keys() == own.keys()
    assert all(torch.equal(t, own[name]) for name, t in loaded.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_averaged_parameters_take_the_place_of_the_models(tmp_path):
    net = small_net()
    state = {name: t + 1 for name, t in net.state_dict().items()}
    save_weights(tmp_path / "net.safetensors", net, TRAINING, state)
    loaded = load_model(tmp_path / "net.safetensors").state_dict()
    assert all(torch.equal(t, state[name]) for name, t in loaded.items())


def test_channels_last_and_grad_are_no_obstacle(tmp_path):
    net = small_net().to(memory_format=torch.channels_last).train()
    save_weights(tmp_path / "net.safetensors", net, TRAINING)
    loaded = load_model(tmp_path / "net.safetensors").state_dict()
    assert all(torch.equal(t, loaded[name]) for name, t in net.state_dict().items())


def test_everybody_may_read_the_file(tmp_path):
    before = os.umask(0o022)
    try:
        save_weights(tmp_path / "net.safetensors", small_net(), TRAINING)
    finally:
        os.umask(before)
    assert (tmp_path / "net.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"hello, these are my weights\n" * 20, b"\0" * 64, b"{}"])
def test_a_text_file_is_refused(tmp_path, content):
    path = tmp_path / "text.safetensors"
    path.write_bytes(content)
    assert "not a safetensors file" in refused(path)


@pytest.mark.parametrize("kept", [4, 100, -1, -1000])
def test_a_truncated_file_is_refused(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    assert "not a safetensors file" in refused(saved)


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch", "torch legacy", "pickle"])
def test_nothing_is_unpickled(tmp_path, how):
    path, proof = tmp_path / "pickle.safetensors", tmp_path / "proof"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(proof)))
    else:
        torch.save({"weights": Payload(proof)}, path, _use_new_zipfile_serialization=how == "torch")
    assert "not a safetensors file" in refused(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(Payload(proof)))  # the payload does work
    assert proof.exists()


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (None, "no format at all"),
        ({"format": "pt"}, "names pt"),
        ({"format": depthup.checkpoint.FORMAT}, "model.safetensors beside it"),
    ],
)
def test_another_programs_file_is_refused(tmp_path, metadata, found):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata)
    message = refused(path)
    assert found in message
    assert FORMAT in message


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": "{"},
        {"config": "[]"},
        {"config": "[" * 100000 + "]" * 100000},
        {"config": json.dumps(CONFIG.to_dict() | {"dropout": 0.5})},
        {"config": json.dumps(CONFIG.to_dict() | {"scale": 3})},
        {"config": json.dumps(CONFIG.to_dict() | {"architecture": "giant"})},
        {"training": "nothing"},
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(saved, wrong):
    good = {"format": FORMAT, "config": json.dumps(CONFIG.to_dict()), "training": "{}"}
    save_file(load_file(saved), saved, good | wrong)
    assert "its configuration cannot be read" in refused(saved)
    save_file(load_file(saved), saved, {name: value for name, value in good.items() if name not in wrong})
    assert "its configuration cannot be read" in refused(saved)


@pytest.mark.parametrize("change", ["shape", "missing", "additional"])
def test_tensors_that_do_not_fit_are_refused(saved, change):
    tensors = load_file(saved)
    if change == "shape":
        tensors["net.result.weight"] = torch.zeros(1, 99, 3, 3)
    elif change == "missing":
        del tensors["net.result.weight"]
    else:
        tensors["net.surplus"] = torch.zeros(2)
    metadata = {"format": FORMAT, "config": json.dumps(CONFIG.to_dict()), "training": "{}"}
    save_file(tensors, saved, metadata)
    with pytest.raises(InputError) as caught:
        load_model(saved)
    message = str(caught.value)
    assert message.startswith(f"{saved}: its tensors do not fit its configuration")
    assert "net.surplus" in message if change == "additional" else "net.result.weight" in message
    assert "\n" not in message


@pytest.mark.parametrize("wrong", [{"kernel_size": 4}, {"width": 1}, {"width": 10**9}, {"width": 10**30}], ids=str)
def test_a_network_that_cannot_be_is_refused(saved, wrong):
    metadata = {"format": FORMAT, "config": json.dumps(CONFIG.to_dict() | wrong), "training": "{}"}
    save_file(load_file(saved), saved, metadata)
    with pytest.raises(InputError, match=r"net\.safetensors: its configuration cannot be") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(saved, dtype):
    tensors = load_file(saved)
    tensors["net.result.bias"] = tensors["net.result.bias"].to(dtype)
    save_file(tensors, saved, {"format": FORMAT, "config": json.dumps(CONFIG.to_dict()), "training": "{}"})
    with pytest.raises(InputError, match=f"net.result.bias is {dtype}"):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    tensors = load_file(saved)
    tensors["net.result.bias"].fill_(value)
    save_file(tensors, saved, {"format": FORMAT, "config": json.dumps(CONFIG.to_dict()), "training": "{}"})
    with pytest.raises(InputError, match=r"net\.safetensors: some of its weights are not finite"):
        load_model(saved)


@pytest.mark.parametrize("record", ["[1]", "null", '{"config": null}'])
def test_a_training_record_of_another_kind_is_refused(saved, record):
    save_file(load_file(saved), saved, {"format": FORMAT, "config": json.dumps(CONFIG.to_dict()), "training": record})
    assert "its training record is no object" in refused(saved)


def test_a_header_that_lies_about_its_length_is_refused(saved):
    content = saved.read_bytes()
    saved.write_bytes(struct.pack("<Q", 2**62) + content[8:])
    assert "not a safetensors file" in refused(saved)


def test_unknown_names(tmp_path, monkeypatch):
    monkeypatch.setattr(depthup.weights, "SHIPPED", tmp_path)
    for scale in (4, 16):
        save_weights(tmp_path / f"x{scale}.safetensors", small_net(), TRAINING)
    assert shipped_names() == ["x4", "x16"]
    assert "no such model; expected a .safetensors file or one of x4, x16" in refused("x32")
    assert "is a folder, expected a file such as" in refused(tmp_path)
    assert read_metadata("x4") == (CONFIG, TRAINING)


def write_half(self: Path, content: bytes) -> None:
    with self.open("wb") as file:
        file.write(content[:100])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_no_other(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InputError, match=r"\.safetensors: cannot be written \(No space left on device\)"):
        save_weights(saved, small_net(1), TRAINING)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_an_old_file_is_replaced(saved):
    save_weights(saved, small_net(1), TRAINING | {"steps": 8})
    assert read_metadata(saved)[1]["steps"] == 8
    expected = small_net(1).state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in load_file(saved).items())


@pytest.mark.parametrize("name", shipped_names())
def test_the_weights_in_the_box(name):
    config, training = read_metadata(name)
    family, _, rest = name.rpartition("x")
    scale, _, protocol = rest.partition("-")
    assert config.scale == int(scale)
    assert config.sensor == ("sensor" in family) == training["config"].get("sensor", False)
    assert training["config"]["protocol"] == (protocol or "dkn")
    assert training["validation"]["rmse"] > 0
    state = load_model(name).state_dict()
    assert all(np.isfinite(t.numpy()).all() for t in state.values())


def test_base_is_the_configuration_that_needs_no_name():
    assert weights_path("base-x8") == weights_path("x8")
    assert weights_path("base-x4-pac") == weights_path("x4-pac")
    with pytest.raises(InputError, match="base-x5: no such model"):
        weights_path("base-x5")
