"""Recipes: what the weights in the box were trained by, and that stages follow each other exactly."""

import json
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthup.commands.info import models_in_the_box
from depthup.commands.train import carry_out, plan_recipe
from depthup.data import InputError, UsageError
from depthup.models import DDFUpNetConfig
from depthup.processes import ALONE
from depthup.recipes import RECIPES
from depthup.train_config import TrainConfig
from depthup.weights import load_model, read_metadata, shipped_names

TINY = {"batch_size": 2, "crop_size": 32, "warmup_steps": 2}
STAGES = (TINY | {"scale": 2, "steps": 2, "optimiser": "adamw"}, TINY | {"scale": 4, "steps": 3})


def quiet(*arguments):
    pass


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    rng = np.random.default_rng(0)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for scene in ("room0", "room1", "room23"):  # the last is held out
        depth = np.full((64, 64), 4000, np.uint16)
        depth[20:40, 10:50] = rng.integers(1000, 3000)
        cv2.imwrite(str(pairs / f"{scene}_depth.png"), depth)
        cv2.imwrite(str(pairs / f"{scene}_rgb.png"), (depth // 20).astype(np.uint8)[..., None].repeat(3, 2))

    def small(cls, name, scale, sensor=False, **changes):
        return cls(name, scale, 16, 1, sensor=sensor, **changes)

    monkeypatch.setattr(DDFUpNetConfig, "named", classmethod(small))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(RECIPES, "tiny", STAGES)
    return pairs


def run(folder: Path, out: Path, resume: bool = False, progress=quiet, given=(), recipe="tiny", seed=7) -> dict:
    settings = {"scale": 4, "seed": seed, "precision": "float32", "invalid": []}
    plan = plan_recipe(str(folder), out, recipe, resume, settings, set(given), ALONE.count)
    return carry_out(plan, quiet, progress, ALONE)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ends_with_the_network_in_the_box(name):
    assert name in shipped_names()
    config, record = read_metadata(name)
    *before, last = (TrainConfig(init="the stage before", **stage) for stage in RECIPES[name])
    assert last.network_config() == config
    fields = ("protocol", "sensor", "batch_size", "crop_size", "learning_rate", "ema_decay", "rescale", "weight_decay")
    for field in (*fields, "augmentation", "optimiser", "keep", "synthetic"):
        before_it_existed = getattr(TrainConfig(scale=4, steps=1), field)
        assert record["config"].get(field, before_it_existed) == getattr(last, field), field
    assert record["steps"] == last.steps
    assert all(config.minutes == 0 for config in before)


def test_models_counts_the_steps_of_all_stages():
    assert models_in_the_box()["fast-x8"]["steps"] == 3200 + 1200 + 4000 + 3790 + 1956


def test_stages_follow_each_other(folder, tmp_path):
    facts = run(folder, tmp_path / "run")
    assert (facts["finished"], facts["steps"]) == (True, 3)
    first = read_metadata(tmp_path / "run/stage-1/model.safetensors")[1]
    last = read_metadata(tmp_path / "run/model.safetensors")[1]
    assert (first["config"]["scale"], first["config"]["optimiser"], first["config"]["init"]) == (2, "adamw", None)
    assert (last["config"]["scale"], last["config"]["optimiser"]) == (4, "muon")
    assert last["config"]["init"] == "stage-1/model.safetensors"
    assert first["config"]["seed"] == last["config"]["seed"] == 7


@pytest.mark.parametrize("stage", [1, 2])
def test_interrupted_in_any_stage_and_resumed(folder, tmp_path, stage):
    stages = []

    def interrupt(what, fraction):
        if what.startswith("step 1,"):
            stages.append(what)
            if len(stages) == stage:
                signal.raise_signal(signal.SIGINT)

    stopped = run(folder, tmp_path / "run", progress=interrupt)
    assert not stopped["finished"]
    assert run(folder, tmp_path / "run", resume=True, recipe=None, seed=0)["finished"]  # it remembers both
    run(folder, tmp_path / "whole")
    runs = [load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("run", "whole")]
    assert all(torch.equal(t, runs[1][name]) for name, t in runs[0].items())


def test_what_a_recipe_refuses(folder, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="--recipe: got 'no', expected one of x4"):
        run(folder, out, recipe="no")
    with pytest.raises(UsageError, match="--scale is part of a recipe"):
        run(folder, out, given={"scale", "seed"})
    with pytest.raises(InputError, match=r"recipe\.json: no such file; expected a run of a recipe to resume"):
        run(folder, out, resume=True)
    assert not out.exists()


def test_every_stage_is_checked_against_the_data_before_the_first(folder, tmp_path, monkeypatch):
    large = TINY | {"scale": 4, "steps": 3, "crop_size": 96}
    monkeypatch.setitem(RECIPES, "tiny", (*STAGES, large))
    with pytest.raises(InputError, match="room0: is 64x64 pixels, expected at least 96x96 for crops of 96"):
        run(folder, tmp_path / "run")
    monkeypatch.setitem(RECIPES, "tiny", (*STAGES, TINY | {"scale": 4, "steps": 3, "sensor": True}))
    for path in folder.glob("*_depth.png"):
        path.rename(path.with_name(path.name.replace("_depth", "_disp")))
    with pytest.raises(InputError, match="holds disparity, expected metres"):
        run(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_recipe_keeps_to_it(folder, tmp_path):
    out = tmp_path / "run"
    run(folder, out)
    with pytest.raises(InputError, match="run: holds a run already; expected --resume"):
        run(folder, out)
    with pytest.raises(UsageError, match="was started with --recipe tiny, and --resume keeps to it; got --recipe x4"):
        run(folder, out, resume=True, recipe="x4", given={"recipe"})
    with pytest.raises(UsageError, match="was started with --seed 7, and --resume keeps to it; got --seed 8"):
        run(folder, out, resume=True, seed=8, given={"seed"})
    remembered = {"recipe": "tiny", "seed": 7, "precision": "float32", "invalid": []}
    changes = {"recipe": ["tiny"]}, {"seed": "a"}, {"invalid": 5}, {"invalid": ["a"]}
    for wrong in ([], *(remembered | change for change in changes)):
        (out / "recipe.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"recipe\.json: does not say which recipe this is"):
            run(folder, out, resume=True)


def test_a_recipe_leaves_another_run_alone(folder, tmp_path):
    before = run(folder, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").unlink()
    with pytest.raises(InputError, match="holds a run already"):
        run(folder, tmp_path / "run")
    assert read_metadata(tmp_path / "run/model.safetensors")[1]["steps"] == before["steps"]
