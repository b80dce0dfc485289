"""`depthup train`: runs, interrupted and resumed, and what it refuses."""

import json
import math
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import depthup.commands.train
import depthup.processes
import depthup.training
import depthup.weights
from cli_helpers import command_line, snapshot, write_pairs
from depthup import upsample
from depthup.commands.train import RECIPE_LOCK
from depthup.locking import locked
from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.recipes import RECIPES
from depthup.weights import read_metadata, save_weights

TRAIN = ("train", "--data", "pairs", "--out", "run")
TINY = ("--scale", "2", "--epochs", "4", "--batch-size", "2", "--crop-size", "32", "--seed", "3")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")]
)
def test_a_training_that_does_not_fit_into_memory(place, depthup_, monkeypatch, error):
    def full(*arguments):
        raise error

    write_pairs(place / "pairs")
    monkeypatch.setattr(depthup.training, "train_step", full)
    result = depthup_(*TRAIN, *TINY)
    assert result.code == 1
    assert result.err.splitlines()[-1] == (
        "depthup: run: not enough memory for 2 crops of 32 pixels; expected fewer or smaller ones (--batch-size,"
        " --crop-size), or more memory"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (TRAIN, 2, ["exactly one of --minutes, --epochs and --recipe"]),
        ((*TRAIN, "--minutes", "1", "--epochs", "1"), 2, ["exactly one of --minutes, --epochs and --recipe"]),
        ((*TRAIN, "--minutes", "0"), 2, ["--minutes", "got 0"]),
        ((*TRAIN, "--epochs=0"), 2, ["--epochs", "got 0"]),
        ((*TRAIN, "--epochs", "1", "--scale", "3"), 2, ["--scale: got 3, expected one of 2, 4, 8, 16"]),
        ((*TRAIN, "--epochs", "1", "--crop-size", "30"), 2, ["--crop-size: got 30"]),
        ((*TRAIN, "--epochs", "1", "--learning-rate", "inf"), 2, ["--learning-rate: got inf"]),
        ((*TRAIN, "--epochs", "1", "--learning-rate", "1e308"), 2, ["--learning-rate: got 1e+308", "at most 1e+30"]),
        ((*TRAIN, "--epochs", "1", "--weight-decay", "inf"), 2, ["--weight-decay: got inf"]),
        ((*TRAIN, "--minutes", "inf"), 2, ["--minutes: got inf"]),
        (("train", "--data", "pairs", "--out", "", "--epochs", "1"), 2, ["--out: got no value"]),
        (("train", "--data", "pairs", "--out=", "--epochs", "1"), 2, ["--out: got no value"]),
        (
            ("train", "--data", "pairs", "--out", "pairs", "--epochs", "1"),
            2,
            ["--out: got pairs, the folder of the data"],
        ),
        ((*TRAIN, "--epochs", "1", "--init", "pairs"), 1, ["pairs: is a folder", "pairs/model.safetensors"]),
        ((*TRAIN, "--epochs", "1", "--seed", str(2**63)), 2, ["--seed: got 9223372036854775808"]),
        ((*TRAIN, "--recipe", "x4", "--seed", str(2**63)), 2, ["--seed: got 9223372036854775808"]),
        ((*TRAIN, "--epochs", "1", "--architecture", "huge"), 2, ["--architecture", "huge"]),
        ((*TRAIN, "--epochs", "1", "--architecture", "djf", "--sensor"), 2, ["sensor: got True", "'djf'"]),
        ((*TRAIN, "--epochs", "1", "--architecture", "djf", "--init", "x4"), 1, ["x4: none of its tensors fits"]),
        (("train", "--data", "box", "--out", "run", "--epochs", "1", "--crop-size", "30"), 2, ["--crop-size: got 30"]),
        ((*TRAIN, "--epochs", "1", "--keep", "0.5"), 2, ["--keep: got 0.5 without init, the weights to start from"]),
        ((*TRAIN, "--resume"), 1, ["checkpoint.safetensors: no such file"]),
        (("train", "--data", "box", "--out", "run", "--epochs", "1"), 1, ["box", "holds no pairs"]),
        (("train", "--data", "motorcycle", "--out", "run", "--epochs", "1"), 2, ["motorcycle is one pair"]),
        (
            ("train", "--data", "synthetic", "--out", "run", "--epochs", "1", "--invalid", "65535"),
            2,
            ["synthetic: --invalid is for the files of a folder"],
        ),
        (
            (*TRAIN, "--epochs", "1", "--scale", "1", "--sensor", "--architecture", "paper"),
            2,
            ["--sensor: got True, which architecture 'paper' does not have; expected False, or"],
        ),
        ((*TRAIN, "--epochs", "1", "--synthetic", "801"), 2, ["--synthetic: got 801, expected at most 800"]),
        (
            ("train", "--data", "synthetic", "--out", "run", "--epochs", "1", "--synthetic", "8"),
            2,
            ["--synthetic: got 8 with --data synthetic, the same rooms"],
        ),
        ((*TRAIN[:-1], "/dev/null/run", "--epochs", "1"), 1, ["/dev/null/run", "cannot be written"]),
    ],
    ids=command_line,
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(check_mistake, arguments, code, parts):
    check_mistake(arguments, code, parts)


def test_no_process_is_started_before_all_is_known_to_be_good(check_mistake, monkeypatch):
    monkeypatch.setattr(depthup.processes, "_start_others", lambda count, command: pytest.fail("one was started"))
    check_mistake(
        ("train", "--data", "box", "--out", "run", "--epochs", "1", "--processes", "2"), 1, ["box", "no pairs"]
    )


@pytest.fixture
def training(place, monkeypatch) -> Path:
    """Pairs to train on, and networks small enough for it."""
    write_pairs(place / "pairs")

    def small(cls, name, scale, sensor=False, **changes):
        return cls(name, scale, 16, int(name == "base"), sensor=sensor, **changes)

    monkeypatch.setattr(DDFUpNetConfig, "named", classmethod(small))
    return place


def test_train(training, depthup_):
    result = depthup_(*TRAIN, *TINY, "--json")
    assert result.code == 0
    facts = json.loads(result.out)
    assert "3 pairs to train on, 1 held out" in result.err
    assert "saved; validating on 1 held-out images: if stopped, --resume does it" in result.err
    assert facts["finished"] is True
    assert facts["steps"] == 6  # 4 passes over 3 pairs, 2 in a step
    assert facts["weights"] == "run/model.safetensors"
    assert math.isfinite(facts["held_out_rmse"])
    assert (facts["held_out_unit"], facts["held_out_images"], facts["held_out_scenes"]) == ("cm", 1, 1)
    config = read_metadata("run/model.safetensors")[1]["config"]
    assert (config["scale"], config["seed"], config["steps"], config["crop_size"]) == (2, 3, 6, 32)
    rgb, depth = np.zeros((8, 8, 3), np.uint8), np.ones((4, 4))
    assert upsample(rgb, depth, "run/model.safetensors").shape == (8, 8)
    before = snapshot(training)
    again = depthup_(*TRAIN, *TINY)
    assert again.code == 1
    assert again.err.startswith("depthup: run: holds a run already")
    assert again.err.count("\n") == 1
    assert snapshot(training) == before


def test_two_runs_of_recipes_do_not_write_into_one_folder(training, depthup_, monkeypatch):
    monkeypatch.setitem(RECIPES, "x4", ({"scale": 2, "steps": 1, "crop_size": 32},) * 2)
    Path("run").mkdir()
    with locked(Path("run"), RECIPE_LOCK):
        refused = depthup_(*TRAIN, "--recipe", "x4")
    assert refused.code == 1
    assert refused.err == "depthup: run: another run writes into this folder; wait for it, or use another\n"
    assert list(Path("run").iterdir()) == []


def test_a_folder_of_a_recipe_takes_no_other_run(training, depthup_):
    Path("run").mkdir()
    Path("run/recipe.json").write_text("{}")
    before = snapshot(training)
    refused = depthup_(*TRAIN, *TINY)
    assert refused.code == 1 and refused.err.startswith("depthup: run: holds a run already")
    assert snapshot(training) == before


def test_train_is_interrupted_and_resumed(training, depthup_, monkeypatch):
    step = depthup.training.train_step
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(depthup.training, "train_step", interrupted)
    result = depthup_(*TRAIN, *TINY)
    assert result.code == 130
    line = result.err.splitlines()[-1]
    assert line == f"depthup: stopped and saved; go on with: depthup {' '.join(TRAIN)} --resume"
    resumed = depthup_(*line.split(": ")[-1].split()[1:])
    assert resumed.code == 0
    assert "resumed run at step 2" in resumed.err
    assert len(calls) == 6
    assert depthup_("train", "--data", "pairs", "--out", "whole", *TINY).code == 0
    weights = [depthup.weights.load_model(f"{run}/model.safetensors").state_dict() for run in ("run", "whole")]
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items())


def test_a_run_keeps_to_its_settings_and_ends_once(training, depthup_):
    assert depthup_(*TRAIN, *TINY).code == 0
    contradiction = depthup_(*TRAIN, "--resume", "--seed", "7")
    assert contradiction.code == 2
    assert contradiction.err == "depthup: run: was started with --seed 3, and --resume keeps to it; got --seed 7\n"
    for given in (("--minutes", "1"), ("--init", "x4"), ("--sensor",)):
        refused = depthup_(*TRAIN, "--resume", *given)
        assert refused.code == 2
        assert f"was started without {given[0]}, and --resume keeps to it; got {' '.join(given)}" in refused.err
    longer = depthup_(*TRAIN, "--resume", "--epochs", "5")
    assert longer.code == 2 and longer.err.startswith("depthup: run: was started with ") and "--epochs 5" in longer.err
    recipe = depthup_(*TRAIN, "--resume", "--recipe", "x4")
    assert (recipe.code, recipe.err) == (
        2,
        "depthup: run: was started without --recipe; expected --resume without it\n",
    )
    before = snapshot(Path("run"))
    again = depthup_(*TRAIN, "--resume", "--seed", "3", "--epochs", "4")
    assert again.code == 0
    assert "run: this run is finished; nothing to do" in again.err
    assert "held out rmse" in again.out
    assert snapshot(Path("run")) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_is_an_interruption(training, depthup_, monkeypatch, number):
    monkeypatch.setattr(depthup.training, "start", lambda *arguments: signal.raise_signal(number))
    result = depthup_(*TRAIN, *TINY)
    assert (result.code, result.err.splitlines()[-1]) == (130, "depthup: interrupted")
    assert not Path("run").exists()


def test_a_run_for_sensors_stays_one(training, depthup_):
    assert depthup_(*TRAIN, *TINY, "--sensor").code == 0
    refused = depthup_(*TRAIN, "--resume", "--no-sensor")
    assert refused.code == 2
    assert refused.err.endswith("was started with --sensor, and --resume keeps to it; got none, --no-sensor\n")


def test_settings_of_a_run_may_be_given_again(training, depthup_):
    """Also such as another command line would not fit: a crop size of another scale, a mean without weights."""
    assert depthup_(*TRAIN, *TINY[:-2], "--epochs", "1", "--init", "x4", "--keep", "0.5").code == 0
    for given in (("--keep", "0.5"), ("--crop-size", TINY[TINY.index("--crop-size") + 1])):
        again = depthup_(*TRAIN, "--resume", *given)
        assert again.code == 0, again.err


def test_a_run_keeps_to_what_is_no_measurement(training, depthup_, monkeypatch):
    opened = []
    open_dataset = depthup.commands.train.open_dataset
    monkeypatch.setattr(
        depthup.commands.train,
        "open_dataset",
        lambda data, split, invalid: opened.append(list(invalid)) or open_dataset(data, split, invalid),
    )
    assert depthup_(*TRAIN, *TINY, "--invalid", "65535").code == 0
    record = read_metadata("run/model.safetensors")[1]
    assert record["config"]["invalid"] == [65535]
    assert record["data"]["title"] == "pairs, split train, without values 65535"
    assert depthup_(*TRAIN, "--resume").code == 0
    assert opened == [[65535]] * 4
    contradiction = depthup_(*TRAIN, "--resume", "--invalid", "0.5")
    assert contradiction.code == 2
    assert "was started with --invalid 65535, and --resume keeps to it; got --invalid 0.5" in contradiction.err


@pytest.mark.parametrize(
    ("options", "expected", "passes"),
    [
        ((), ("base", 4, "pac", True), 1),
        (("--scale", "8"), ("base", 8, "pac", True), 2),
        (("--no-sensor", "--protocol", "dkn"), ("base", 4, "dkn", False), 2),
        (("--architecture", "fast"), ("fast", 4, "pac", True), 1),
    ],
)
def test_a_run_that_starts_from_weights_goes_on_with_their_network(place, depthup_, options, expected, passes):
    """`--init sensor-x4` made a network of two passes, without a validity channel, from one of one."""
    write_pairs(place / "pairs")
    config = DDFUpNetConfig(scale=4, width=16, trunk_blocks=1, sensor=True)
    record = {"config": {"architecture": "base", "protocol": "pac"}}
    save_weights("own.safetensors", DDFUpNet(config), record)
    length = ("--epochs", "1", "--batch-size", "2", "--crop-size", "32")
    result = depthup_(*TRAIN, *length, "--init", "own.safetensors", *options)
    assert result.code == 0, result.err
    made, record = read_metadata("run/model.safetensors")
    started = record["config"]
    assert tuple(started[name] for name in ("architecture", "scale", "protocol", "sensor")) == expected
    assert (made.passes, made.width) == (passes, 16 if not options else 40 if "fast" in options else 64)
    if not options:
        assert made == config and re.search(r"own.safetensors: (\d+) of \1 tensors fit$", result.err, re.MULTILINE)
        assert depthup_(*TRAIN, "--resume").code == 0
        assert depthup_(*TRAIN, "--resume", "--scale", "2").code == 2


@pytest.mark.parametrize("recorded", [{}, {"architecture": ["base"], "protocol": None}, {"architecture": "new"}])
def test_weights_with_a_record_of_their_own_are_started_from(training, depthup_, recorded):
    config = DDFUpNetConfig(scale=2, width=16, trunk_blocks=1, back_projections=1)
    save_weights("own.safetensors", DDFUpNet(config), {"config": recorded})
    result = depthup_(*TRAIN, *TINY[2:], "--init", "own.safetensors")
    assert result.code == 0, result.err
    made, record = read_metadata("run/model.safetensors")
    assert (record["config"]["architecture"], record["config"]["protocol"], made.scale) == ("base", "dkn", 2)


def test_weights_keep_how_often_they_back_project(training, depthup_):
    config = DDFUpNetConfig(scale=2, width=16, trunk_blocks=1, back_projections=1)
    save_weights("own.safetensors", DDFUpNet(config), {"config": {"architecture": "base", "protocol": "dkn"}})
    assert depthup_(*TRAIN, *TINY[2:], "--init", "own.safetensors").code == 0
    assert read_metadata("run/model.safetensors")[0].back_projections == 1


def test_train_starts_from_given_weights(training, depthup_):
    started = depthup_(*TRAIN, *TINY, "--init", "x4")
    assert started.code == 0
    assert re.search(r"^starts from x4: [1-9]\d* of \d+ tensors fit$", started.err, re.MULTILINE)
    missing = depthup_("train", "--data", "pairs", "--out", "other", *TINY, "--init", "x5")
    assert missing.code == 2
    assert missing.err.startswith("depthup: x5: no such model")
    assert missing.err.count("\n") == 1
