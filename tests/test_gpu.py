"""Training and upsampling on a GPU, against the same on a CPU."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import depthup
from cli_helpers import SCALE, sensor_net, small_net, write_pairs
from depthup import tiles
from depthup.data import CachedPairs, open_dataset
from depthup.evaluation import Method, evaluate_methods, resolve_method
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.processes import Processes
from depthup.train_config import TrainConfig
from depthup.training import make_sampler, start, train, train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

CONFIG = TrainConfig(
    scale=SCALE,
    network={"width": 16, "trunk_blocks": 1},
    steps=6,
    batch_size=4,
    crop_size=32,
    warmup_steps=2,
    checkpoint_every=3,
    validation_every=100,
)


@pytest.fixture
def pairs(tmp_path):
    write_pairs(tmp_path / "pairs")
    return [open_dataset(str(tmp_path / "pairs"), split) for split in ("train", "val")]


@pytest.mark.parametrize(
    "changes", [{}, {"protocol": "pac", "optimiser": "adamw"}, {"sensor": True}, {"architecture": "pac-net"}], ids=str
)
def test_recorded_steps_are_those_of_a_cpu(pairs, changes):
    config = replace(CONFIG, **({"network": {}} if "architecture" in changes else {}) | changes)
    sampler = make_sampler(CachedPairs(pairs[0]), config)
    losses = []
    for name in ("cpu", "cuda"):
        processes = Processes(0, 1, 1, torch.device(name))
        state = start(config, processes.device)
        losses.append([float(train_step(config, state, sampler.batch(n), 1e-3, processes)) for n in range(6)])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert len(set(losses[1])) == 6


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_stops_and_goes_on(pairs, tmp_path, precision):
    config = replace(CONFIG, precision=precision)
    whole = train(*pairs, config, tmp_path / "whole", report=lambda line: None)

    def stop(line: str) -> None:
        if line.startswith("step 3"):
            signal.raise_signal(signal.SIGINT)

    half = train(*pairs, config, tmp_path / "half", report=stop)
    assert not half.finished and half.steps < 6
    resumed = train(*pairs, config, tmp_path / "half", resume=True, report=lambda line: None)
    assert resumed.finished and resumed.steps == 6
    assert resumed.validation["rmse"] == pytest.approx(whole.validation["rmse"], rel=0.01)


@pytest.mark.parametrize("scale", [1, 2, 4, 8, 16])
def test_what_a_network_for_sensors_starts_from_is_not_rounded(scale):
    net = DDFUpNet(DDFUpNetConfig.named("fast", scale, True)).net
    torch.manual_seed(0)
    low = torch.rand(1, 1, 24, 36)
    expected = net._continued_bicubic(low)
    assert (net.to("cuda")._continued_bicubic(low.cuda()).cpu() - expected).abs().max() < 2e-6


def some_pair():
    rng = np.random.default_rng(3)
    depth = rng.uniform(1, 4, (30, 40)).astype(np.float32)
    depth[3:6, 4:9] = np.nan
    return rng.integers(0, 256, (30 * SCALE, 40 * SCALE, 3), np.uint8), depth


@pytest.mark.parametrize("net", [small_net(SCALE), sensor_net()], ids=["clean", "sensor"])
@pytest.mark.parametrize("tiled", [False, True])
def test_upsampling_on_a_gpu(net, tiled, monkeypatch):
    rgb, depth = some_pair()
    expected = depthup.Upsampler(net)(rgb, depth)
    if tiled:
        monkeypatch.setattr(tiles, "WHOLE_LIMIT", 1.0)
        monkeypatch.setattr(tiles, "TILE_BYTES", tiles.BYTES_PER_PIXEL["base"] * (24 * SCALE) ** 2)
    result = depthup.Upsampler(net.to("cuda"))(rgb, depth)
    np.testing.assert_allclose(result, expected, atol=2e-3)  # TF32


def test_tensors_stay_on_the_gpu():
    rgb, depth = some_pair()
    net = small_net(SCALE).to("cuda")
    expected = depthup.Upsampler(net)(rgb, depth)
    views = torch.from_numpy(rgb).movedim(2, 0).cuda(), torch.from_numpy(depth).cuda()
    result = depthup.Upsampler(net)(*views)
    assert result.device.type == "cuda"
    np.testing.assert_allclose(result.cpu().numpy(), expected, atol=1e-5)


def test_eval_on_the_gpu_scores_as_on_the_cpu():
    methods = [Method(device, 8, "x8", device=device) for device in ("cuda", "cpu")] + [Method("b", 8, "bicubic")]
    on_gpu, on_cpu, _ = evaluate_methods(open_dataset("motorcycle", "test"), methods, "dkn")
    assert next(resolve_method(methods[0]).model.parameters()).device.type == "cuda"
    assert on_gpu.rmse == pytest.approx(on_cpu.rmse, rel=2e-3)
