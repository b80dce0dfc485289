"""`depthup train`: a run of given settings, or the stages of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from depthup.atomic import write_beside
from depthup.checkpoint import load_checkpoint
from depthup.commands.errors import UsageError
from depthup.data import InputError, PairDataset, open_dataset
from depthup.depth_files import check_output_folder
from depthup.processes import Processes
from depthup.recipes import RECIPES
from depthup.training import TrainConfig, TrainResult, train

RECIPE_FILE = "recipe.json"
_FREE = ("seed", "precision", "invalid")
"""Settings that a recipe leaves to the user."""


def train_run(
    data: str,
    out: Path,
    minutes: float | None,
    epochs: int | None,
    resume: bool,
    settings: dict,
    given: set[str],
    report: Callable[[str], None],
    progress: Callable[[str, float], None],
    processes: Processes,
) -> dict:
    """Train on the `train` split of `data`, validate on its `val` split.

    `given` names the settings that the user gave himself: with `resume` they must be those of the run.
    """
    batch_size = settings["batch_size"]
    invalid = settings.get("invalid", [])
    started: dict = {}
    if resume and (out / "checkpoint.safetensors").exists():
        started = load_checkpoint(out / "checkpoint.safetensors")[1]["config"]
        for name, value in ({"minutes": minutes} | settings).items():
            if name in given and started.get(name) != value:
                raise _contradiction(out, name, started.get(name), value)
        batch_size = started["batch_size"]
        invalid = started.get("invalid", [])
    _check_sharing(batch_size, processes)
    if not resume and (minutes is None) == (epochs is None):
        raise UsageError("train: expected exactly one of --minutes, --epochs and --recipe")
    if not resume:
        _config(minutes, 1, settings)  # wrong usage is told before anything is looked at
        _check_no_run(out, processes)
    training, validation = training_data(data, out, invalid)
    steps = -(-len(training) * epochs // batch_size) if epochs else 0
    if started and epochs and started["steps"] != steps:
        length = f"--minutes {started['minutes']}" if started["minutes"] else f"{started['steps']} steps"
        raise UsageError(f"{out}: was started with {length}, and --resume keeps to it; got {steps} (--epochs {epochs})")
    config = _config(minutes, steps or 1, settings)
    return _train_facts(train(training, validation, config, out, resume, report, progress, processes))


def _config(minutes: float | None, steps: int, settings: dict) -> TrainConfig:
    """A run of so many minutes or, without them, of so many steps; UsageError for settings that cannot be."""
    try:
        return TrainConfig(minutes=minutes or 0.0, steps=0 if minutes else steps, **settings)
    except ValueError as error:
        name, fault = str(error).split(": ", 1)
        raise UsageError(f"--{name.replace('_', '-')}: {fault}") from None


def is_recipe(out: Path) -> bool:
    """Whether a folder holds a run of a recipe."""
    return (out / RECIPE_FILE).exists()


def train_recipe(
    data: str,
    out: Path,
    recipe: str | None,
    resume: bool,
    settings: dict,
    given: set[str],
    report: Callable[[str], None],
    progress: Callable[[str, float], None],
    processes: Processes,
) -> dict:
    """Train as weights in the box were, stage by stage; all but the last in folders of their own inside `out`.

    `out` also remembers which recipe it is, and the settings that are not part of it: with `resume` they are kept to,
    and `recipe` may be None.
    """
    wanted = {"recipe": recipe} | {name: settings[name] for name in _FREE}
    if resume:
        wanted = _remembered(out, wanted, given)
    recipe = wanted.pop("recipe")
    if recipe not in RECIPES:
        raise UsageError(f"--recipe: got {recipe!r}, expected one of {', '.join(RECIPES)}")
    own = sorted(given & ({"minutes", "epochs"} | set(settings) - set(_FREE)))
    if own:
        raise UsageError(f"train: --{own[0].replace('_', '-')} is part of a recipe; expected it without --recipe")
    init, stages = None, RECIPES[recipe]
    for stage in stages:
        _check_sharing(stage.get("batch_size", TrainConfig.batch_size), processes)
    if not resume:
        _check_no_run(out, processes)
    training, validation = training_data(data, out, wanted["invalid"])
    if processes.first and not resume:
        out.mkdir(parents=True, exist_ok=True)
        with write_beside(out / RECIPE_FILE) as file:
            file.write_text(json.dumps({"recipe": recipe} | wanted))
    for number, stage in enumerate(stages, 1):
        folder = out if number == len(stages) else out / f"stage-{number}"
        config = TrainConfig(init=init, **wanted, **stage)
        started = (folder / "checkpoint.safetensors").exists()
        if processes.first:
            report(f"{recipe}: stage {number} of {len(stages)}, {config.steps} steps")
        result = train(training, validation, config, folder, resume and started, report, progress, processes)
        if not result.finished:
            break
        init = str(result.weights)
    return _train_facts(result)


def _check_no_run(out: Path, processes: Processes) -> None:
    """Raises InputError where a run lies, of a recipe or not; only the first process looks, and then writes there."""
    if processes.first and (is_recipe(out) or (out / "checkpoint.safetensors").exists()):
        raise InputError(f"{out}: holds a run already; expected --resume to go on with it, or another folder")


def _remembered(out: Path, wanted: dict, given: set[str]) -> dict:
    """What a run of a recipe was started with, which must be what the user now asks for."""
    place = out / RECIPE_FILE
    try:
        started = json.loads(place.read_bytes())
        started = {name: started[name] for name in wanted}
    except FileNotFoundError:
        if (out / "checkpoint.safetensors").exists():
            raise UsageError(f"{out}: was started without --recipe; expected --resume without it") from None
        raise InputError(f"{place}: no such file; expected a run of a recipe to resume") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{place}: does not say which recipe this is; expected what train wrote there") from None
    for name, value in wanted.items():
        if name in given and started[name] != value:
            raise _contradiction(out, name, started[name], value)
    return started


def _contradiction(out: Path, name: str, started: object, value: object) -> UsageError:
    option = name.replace("_", "-")
    return UsageError(f"{out}: was started with --{option} {started}, and --resume keeps to it; got {value}")


def _check_sharing(batch_size: int, processes: Processes) -> None:
    if batch_size % processes.count:
        raise UsageError(
            f"--processes (or of torchrun): got {processes.count}, expected a number that divides the batch of"
            f" {batch_size} crops"
        )


def training_data(data: str, out: Path, invalid: Sequence[float] = ()) -> tuple[PairDataset, PairDataset]:
    """The `train` and `val` splits of `data`, once `out` is known to be a place for a run."""
    if data == "motorcycle":
        raise UsageError(
            "train: motorcycle is one pair, kept for checking; expected a .mat file, a folder or `synthetic`"
        )
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
