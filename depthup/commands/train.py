"""`depthup train`: a run of given settings, or the stages of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthup.atomic import write_beside
from depthup.checkpoint import read_facts
from depthup.data import InputError, PairDataset, UsageError, open_dataset
from depthup.data.crops import check_crop_size
from depthup.data.low_resolution import PROTOCOLS
from depthup.data.real_path import real_path
from depthup.data.sensor import check_metres
from depthup.depth_files import check_output_folder
from depthup.locking import locked
from depthup.models import NAMED, DDFUpNetConfig
from depthup.processes import Processes
from depthup.recipes import RECIPES
from depthup.run_folder import CHECKPOINT, RECIPE, WEIGHTS, check_free
from depthup.tiles import is_out_of_memory
from depthup.train_config import TrainConfig, config_of_run
from depthup.training import TrainResult, train
from depthup.weights import read_metadata

RECIPE_LOCK = ".depthup-recipe.lock"
"""File in the folder of a recipe while one of its stages runs, each of which has its own lock."""

_FREE = ("seed", "precision", "invalid")
"""Settings that a recipe leaves to the user."""


@dataclass(frozen=True)
class Plan:
    """What `depthup train` is to do, once all is checked that can be before processes join and data are read.

    Args:
        training, validation: the `train` and `val` splits of the data.
        out: folder of the run.
        stages: of each its folder, what to do there, and whether to go on with what is there; one without a recipe.
        recipe: what `out` is to remember of a recipe; None without one.
        resume: whether `out` holds what is gone on with.
    """

    training: PairDataset
    validation: PairDataset
    out: Path
    stages: list[tuple[Path, TrainConfig, bool]]
    recipe: dict | None
    resume: bool


def plan_run(
    data: str,
    out: Path,
    minutes: float | None,
    epochs: int | None,
    resume: bool,
    settings: dict,
    given: set[str],
    processes: int,
) -> Plan:
    """A run that trains on the `train` split of `data` and validates on its `val` split.

    `given` names the settings that the user gave himself: with `resume` they must be those of the run.
    """
    started: dict = {}
    if resume and (out / CHECKPOINT).exists():
        started = read_facts(out / CHECKPOINT)["config"]
        config_of_run(out / CHECKPOINT, started)
        for name, value in ({"minutes": minutes} | settings).items():
            if name in given and not _same(started.get(name), value):
                raise _contradiction(out, name, started.get(name), value)
        settings = settings | {name: started[name] for name in settings if name in started}
    elif settings["init"]:
        settings = _as_weights(settings, given)
    batch_size, rooms, invalid = settings["batch_size"], settings.get("synthetic", 0), settings.get("invalid", [])
    _check_sharing(batch_size, processes)
    if rooms and data == "synthetic":
        raise UsageError(f"--synthetic: got {rooms} with --data synthetic, the same rooms; expected other --data")
    if not resume and (minutes is None) == (epochs is None):
        raise UsageError("train: expected exactly one of --minutes, --epochs and --recipe")
    if not resume:
        _config(settings, minutes, 1)  # wrong usage is told before anything is looked at
        check_free(out)
    training, validation = training_data(data, out, invalid)
    steps = -(-(len(training) + rooms) * epochs // batch_size) if epochs else 0
    if started and epochs and started["steps"] != steps:
        length = f"--minutes {started['minutes']}" if started["minutes"] else f"{started['steps']} steps"
        raise UsageError(
            f"{out}: was started with {length}, and --resume keeps to it; got {steps} steps (--epochs {epochs})"
        )
    config = _config(settings, minutes, steps or 1)
    return Plan(training, validation, out, [(out, config, resume)], None, resume)


def _as_weights(settings: dict, given: set[str]) -> dict:
    """The settings where what the user did not give is as of the weights to start from, so that training goes on."""
    config, record = read_metadata(settings["init"])
    recorded = record.get("config", {})
    architecture, protocol = recorded.get("architecture"), recorded.get("protocol")
    known: dict[str, Any] = {
        "architecture": architecture if architecture in tuple(NAMED) else config.architecture,
        "scale": config.scale,
        "sensor": config.sensor,
        "protocol": protocol if protocol in PROTOCOLS else settings["protocol"],
    }
    own = settings | {name: value for name, value in known.items() if name not in given}
    if all(own[name] == known[name] for name in ("architecture", "scale", "sensor")):
        usual = DDFUpNetConfig.named(known["architecture"], config.scale, config.sensor)
        own["network"] = {name: value for name, value in config.to_dict().items() if value != getattr(usual, name)}
        own["network"].pop("back_projections", None)
        if own["protocol"] == known["protocol"]:  # which decides how often it back-projects
            own["network"]["back_projections"] = config.back_projections
    return own


def _config(settings: dict, minutes: float | None = None, steps: int = 0) -> TrainConfig:
    """Of so many minutes or, without them, steps, unless `settings` say; UsageError for settings that cannot be."""
    length = {"minutes": minutes or 0.0, "steps": 0 if minutes else steps}
    try:
        return TrainConfig(**(length | settings))
    except ValueError as error:
        name, fault = str(error).split(": ", 1)
        raise UsageError(f"--{name.replace('_', '-')}: {fault}") from None


def is_recipe(out: Path) -> bool:
    """Whether a folder holds a run of a recipe."""
    return (out / RECIPE).exists()


def plan_recipe(
    data: str,
    out: Path,
    recipe: str | None,
    resume: bool,
    settings: dict,
    given: set[str],
    processes: int,
) -> Plan:
    """A run as weights in the box were trained, stage by stage; all but the last in folders of their own inside `out`.

    `out` also remembers which recipe it is, and the settings that are not part of it: with `resume` they are kept to,
    and `recipe` may be None.
    """
    remembered = {"recipe": recipe} | {name: settings[name] for name in _FREE}
    if resume:
        remembered = _remembered(out, remembered, given)
    recipe = remembered["recipe"]
    if recipe not in RECIPES:
        raise UsageError(f"--recipe: got {recipe!r}, expected one of {', '.join(RECIPES)}")
    own = sorted(given & ({"minutes", "epochs"} | set(settings) - set(_FREE)))
    if own:
        option = _option(own[0], settings.get(own[0]))
        raise UsageError(f"train: {option} is part of a recipe; expected it without --recipe")
    free = {name: remembered[name] for name in _FREE}
    for stage in RECIPES[recipe]:
        _check_sharing(stage.get("batch_size", TrainConfig.batch_size), processes)
    earlier = [out / f"stage-{number}" for number in range(1, len(RECIPES[recipe]))]
    if not resume:
        for folder in (out, *earlier):
            check_free(folder)
    stages, init = [], None
    for folder, stage in zip((*earlier, out), RECIPES[recipe], strict=True):
        stages.append((folder, _config({"init": init} | free | stage), resume and (folder / CHECKPOINT).exists()))
        init = str(folder / WEIGHTS)
    training, validation = training_data(data, out, free["invalid"])
    first = training[0]
    for _, config, _ in stages:  # the last may begin after days
        if config.sensor:
            check_metres(training)
        check_crop_size(f"{training.title}: {first.name}", first.depth.shape, config.crop_size, config.scale)
    return Plan(training, validation, out, stages, remembered, resume)


def carry_out(
    plan: Plan, report: Callable[[str], None], progress: Callable[[str, float], None], processes: Processes
) -> dict:
    """Train; what came of it."""
    with ExitStack() as held:
        if plan.recipe and processes.first:
            plan.out.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(plan.out, RECIPE_LOCK))
            if not plan.resume:
                check_free(plan.out)  # another run may have come
                with write_beside(plan.out / RECIPE) as file:
                    file.write_text(json.dumps(plan.recipe))
        for number, (folder, config, resume) in enumerate(plan.stages, 1):
            if plan.recipe and processes.first:
                report(f"{plan.recipe['recipe']}: stage {number} of {len(plan.stages)}, {config.steps} steps")
            try:
                result = train(plan.training, plan.validation, config, folder, resume, report, progress, processes)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                crops = f"{config.batch_size} crops of {config.crop_size} pixels"
                raise MemoryError(
                    f"{folder}: not enough memory for {crops}; expected fewer or smaller ones (--batch-size,"
                    " --crop-size), or more memory"
                ) from None
            if not result.finished:
                break
    return _train_facts(result)


def _remembered(out: Path, wanted: dict, given: set[str]) -> dict:
    """What a run of a recipe was started with, which must be what the user now asks for."""
    place = out / RECIPE
    try:
        started = json.loads(place.read_bytes())
        started = {name: started[name] for name in wanted}
        TrainConfig(scale=4, steps=1, **{name: started[name] for name in _FREE})
        if not isinstance(started["recipe"], str) or not all(isinstance(v, int | float) for v in started["invalid"]):
            raise TypeError
    except FileNotFoundError:
        if (out / CHECKPOINT).exists():
            raise UsageError(f"{out}: was started without --recipe; expected --resume without it") from None
        raise InputError(f"{place}: no such file; expected a run of a recipe to resume") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{place}: does not say which recipe this is; expected what train wrote there") from None
    for name, value in wanted.items():
        if name in given and not _same(started[name], value):
            raise _contradiction(out, name, started[name], value)
    return started


def _same(started: object, value: object) -> bool:
    """Whether two values of an option are one; NaN is NaN."""
    return repr(started) == repr(value) if isinstance(value, list) else started == value


def _contradiction(out: Path, name: str, started: object, value: object) -> UsageError:
    option = _option(name)
    before = f"with {typed}" if (typed := _as_typed(option, started)) else f"without {option}"
    now = _as_typed(option, value) or f"none, {_option(name, value)}"
    return UsageError(f"{out}: was started {before}, and --resume keeps to it; got {now}")


def _option(name: str, value: object = None) -> str:
    """What is typed for a setting; of a flag that is False its opposite."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def _as_typed(option: str, value: object) -> str:
    """An option as on a command line, such as `--seed 3`; empty where it is not there."""
    if value is None or value is False or (option == "--minutes" and not value):
        return ""
    if value is True:
        return option
    values = value if isinstance(value, list) else [value]
    return " ".join(f"{option} {v:.15g}" if isinstance(v, float) else f"{option} {v}" for v in values)


def _check_sharing(batch_size: int, processes: int) -> None:
    if batch_size % processes:
        raise UsageError(
            f"--processes (or of torchrun): got {processes}, expected a number that divides the batch of"
            f" {batch_size} crops"
        )


def training_data(data: str, out: Path, invalid: Sequence[float] = ()) -> tuple[PairDataset, PairDataset]:
    """The `train` and `val` splits of `data`, once `out` is known to be a place for a run."""
    if data == "motorcycle":
        raise UsageError(
            "train: motorcycle is one pair, kept for checking; expected a .mat file, a folder or `synthetic`"
        )
    if Path(data).is_dir() and real_path(out) == real_path(data):
        raise UsageError(f"--out: got {out}, the folder of the data; expected another for the run")
    check_output_folder(out)
    return open_dataset(data, "train", invalid), open_dataset(data, "val", invalid)


def _train_facts(result: TrainResult) -> dict:
    facts = {
        "finished": result.finished,
        "steps": result.steps,
        "minutes": round(result.minutes, 1),
        "weights": str(result.weights),
    }
    if result.validation:
        facts |= {f"held_out_{name}": result.validation[name] for name in ("rmse", "unit", "images", "scenes")}
    return facts
