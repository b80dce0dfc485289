"""Training of a network: one loop that reads from top to bottom, and can be stopped and resumed anywhere."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from depthup import __version__
from depthup.capture import Captured
from depthup.checkpoint import load_checkpoint, save_checkpoint
from depthup.data import (
    STANDARD_SENSOR,
    CachedPairs,
    CropSampler,
    InputError,
    JoinedPairs,
    PairDataset,
    Sensor,
    SomePairs,
    Synthetic,
    prefetch,
)
from depthup.data.pairs import check_dataset
from depthup.evaluation import Evaluation, check_scorable, evaluate
from depthup.models import DDFUpNet
from depthup.muon import Muon
from depthup.objective import CENTIMETRES, fill, objective
from depthup.processes import ALONE, Processes
from depthup.run_folder import BOARD, CHECKPOINT, METRICS, WEIGHTS, RunLog, held_folder
from depthup.stopping import stop_on_signal
from depthup.train_config import TrainConfig, config_of_run
from depthup.weights import copy_fitting, load_model, read_metadata, save_weights

AT_THE_RIM = re.compile(
    r"\b(depth|depth_encoder\.0|result|decoder\.2|spatial|depth_branch\.[04]|guidance_branch\.4|joint\.[04])\.weight$"
)
"""Four-dimensional weights that are not filters between features."""

SECONDS_BETWEEN_READINGS = 0.5
"""Of the loss, for progress: a GPU that is asked after every step is waited for after every step."""

SECONDS_BETWEEN_CHECKPOINTS = 300.0
"""At most, where `checkpoint_every` steps take longer."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    finished: bool  # False: stopped by Ctrl-C, to be resumed
    steps: int
    minutes: float
    validation: dict | None  # summary of the last evaluation on all held-out images
    weights: Path


@dataclass
class TrainState:
    """All that changes while training, and is in a checkpoint."""

    model: DDFUpNet
    optimisers: dict[str, torch.optim.Optimizer]
    ema: dict[str, Tensor]
    anchor: dict[str, Tensor] = field(default_factory=dict)  # what it started from, if the result keeps some of it
    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = field(default_factory=list)  # of the steps since the last one that was logged
    captured: Captured | None = None  # on a GPU, loss and gradients; the only thing that no checkpoint holds


def train(
    training: PairDataset,
    validation: PairDataset,
    config: TrainConfig,
    out: str | Path,
    resume: bool = False,
    report: Callable[[str], None] = print,
    progress: Callable[[str, float], None] | None = None,
    processes: Processes = ALONE,
) -> TrainResult:
    """Train a network and write it to the folder `out`.

    `out` receives `model.safetensors` (the averaged weights), `checkpoint.safetensors`, `metrics.csv`, and TensorBoard
    files where TensorBoard is installed. Validation scenes are never trained on. Ctrl-C (SIGINT) or SIGTERM finishes
    the step, saves a checkpoint and returns; a run that is killed goes on from its last checkpoint.

    Args:
        training, validation: pairs; no scene may be in both.
        config: what to do; ignored for `resume`, which goes on as the run was started.
        out: folder of the run; made if it is not there.
        resume: go on from the checkpoint in `out`, exactly.
        report: takes a line of narration.
        progress: takes what is being done and the fraction that is done.
        processes: those that share every batch; only the first validates, reports and writes.

    Raises:
        InputError: `out` holds a run and `resume` is False, or none and it is True; scenes overlap, or units differ;
            bad data; the training diverges.
        ValueError: the processes cannot share a batch equally.
    """
    out = Path(out)
    for dataset in (training, validation):
        check_dataset(dataset, to_train=True)
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config: got {type(config).__name__}, expected a TrainConfig")
    if training.unit != validation.unit:
        raise InputError(f"training data are in {training.unit} and validation data in {validation.unit}; expected one")
    shared = set(training.scenes) & set(validation.scenes)
    if shared:
        raise InputError(f"training and validation share {len(shared)} scenes, such as {min(shared)}; expected none")
    if not processes.first:
        return _run(training, validation, config, out, resume, _not_told, _not_told, processes)
    with held_folder(out, resume):
        return _run(training, validation, config, out, resume, report, progress or _not_told, processes)


def _not_told(*arguments: object) -> None:
    """Narration and progress of the other processes."""


def _run(
    training: PairDataset,
    validation: PairDataset,
    config: TrainConfig,
    out: Path,
    resume: bool,
    report: Callable[[str], None],
    tick: Callable[[str, float], None],
    processes: Processes,
) -> TrainResult:
    """`train` when all that was given is known to fit, in a folder that is held."""
    checkpoint, weights = out / CHECKPOINT, out / WEIGHTS
    data = _identity(training)
    if resume:
        config, state = _restore(checkpoint, processes.device, data)
        report(f"resumed {out} at step {state.step} after {_minutes(state)}")
    else:
        state = start(config, processes.device, report)
    if resume and _done(config, state) >= 1 and weights.exists():
        final = read_metadata(weights)[1]
        if final["steps"] == state.step and final["validation"]:  # else it was stopped while it validated
            report(f"{out}: this run is finished; nothing to do")
            return TrainResult(True, state.step, state.seconds / 60, final["validation"], weights)
    if config.synthetic:
        training = _with_rooms(training, config.synthetic)
    both = len(training) + len(validation)
    report(f"reading {both} pairs")
    pairs = CachedPairs(training, lambda done, _: tick("reading pairs", done / both))
    sampler = make_sampler(pairs, config, processes.share(config.batch_size))
    scored = validation
    if processes.first:  # it alone validates
        scored = CachedPairs(validation, lambda done, _: tick("reading pairs", (len(pairs) + done) / both))
        check_scorable(scored, config.scale, config.protocol, _sensor(config))
    held_out = SomePairs(scored, config.validation_images)
    parameters = state.model.parameter_count()
    measured = "sensor" if config.sensor else config.protocol
    report(
        f"{config.architecture} x{config.scale} {measured}: {parameters / 1e6:.2f} M parameters; "
        f"{len(pairs)} pairs to train on, {len(validation)} held out; {config.precision} on {processes.device.type}"
        + (f", {processes.count} processes" if processes.count > 1 else "")
    )
    record = _record(config, training, validation)
    began, before = time.monotonic(), state.seconds
    shown, read, saved = "", -math.inf, before

    with _begun(out, state, config, data, resume) if processes.first else nullcontext() as log:
        with stop_on_signal() as stopped:
            for batch in prefetch(sampler, state.step, config.steps or 2**62, processes=processes.feeders):
                done, stop = processes.agree(_done(config, state), stopped())
                if done >= 1 or stop:
                    break
                state.losses.append(
                    train_step(config, state, batch, learning_rate(config, state.step, done), processes)
                )
                state.seconds = before + time.monotonic() - began
                if state.seconds - read > SECONDS_BETWEEN_READINGS:
                    now = _finite(float(state.losses[-1]), config, state)
                    shown, read = f", loss {_in_words(now, training.unit)}", state.seconds
                tick(f"step {state.step}{shown}", _done(config, state))
                if not log:
                    continue
                regular = state.step % config.checkpoint_every == 0
                if regular:
                    _log_loss(log, report, config, state, training.unit)
                if state.step % config.validation_every == 0 and _done(config, state) < 1:
                    scores = validate(state, held_out, config)
                    log.write(state.step, state.seconds, validation_rmse=scores.rmse)
                    report(
                        f"step {state.step}: RMSE {scores.rmse:.3f} {scores.unit} on {len(held_out)} held-out images, "
                        f"{_minutes(state)}"
                    )
                if regular or state.seconds - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    _check_not_lost(config, state)
                    # after what a run from it will not do again
                    save_checkpoint(checkpoint, state, asdict(config), data)
                    saved = state.seconds

        finished = processes.agree(_done(config, state))[0] >= 1
        if finished:
            state.seconds = max(state.seconds, 60 * config.minutes)  # the others' clocks may be ahead
        summary = None
        if log:
            if finished and state.losses:
                _log_loss(log, report, config, state, training.unit)
            _check_not_lost(config, state)
            save_checkpoint(checkpoint, state, asdict(config), data)
            record |= {"steps": state.step, "minutes": round(state.seconds / 60, 1), "validation": None}
            result = result_weights(state, config)
            save_weights(weights, state.model, record, result)
            if finished:
                tick("validating", 1.0)
                report(f"saved; validating on {len(held_out.all)} held-out images: if stopped, --resume does it")
                summary = validate(state, held_out.all, config).summary()
                log.write(state.step, state.seconds, validation_rmse=summary["rmse"])
                save_weights(weights, state.model, record | {"validation": summary}, result)
    processes.agree(0)  # the others wait for the files
    return TrainResult(finished, state.step, state.seconds / 60, summary, weights)


@contextmanager
def _begun(out: Path, state: TrainState, config: TrainConfig, data: dict, resume: bool) -> Iterator[RunLog]:
    """The log of a run that can be resumed from now on; a new one that fails before its first step leaves none."""
    board_is_new = not (out / BOARD).exists()
    try:
        try:
            if not resume:
                save_checkpoint(out / CHECKPOINT, state, asdict(config), data)
            log = RunLog(out, state.step)
        except OSError as error:
            place = error.filename or out
            raise InputError(f"{place}: cannot be written ({error.strerror}); expected a folder for the run") from None
        with closing(log):
            yield log
    except Exception:
        if not resume and not state.step:
            for name in (CHECKPOINT, METRICS):
                (out / name).unlink(missing_ok=True)
            if board_is_new:
                shutil.rmtree(out / BOARD, ignore_errors=True)
        raise


def _identity(training: PairDataset) -> dict:
    """What tells the pairs of a run from others: their number, names and unit, and the mean depth of a few."""
    some = range(0, len(training), -(-len(training) // 8))
    depths = [depth[np.isfinite(depth)] for depth in (training[n].depth for n in some)]
    return {
        "images": len(training),
        "names": zlib.crc32(os.fsencode("\n".join(training.names))),
        "unit": training.unit,
        "means": [f"{known.sum(dtype=float) / max(1, known.size):.4g}" for known in depths],
    }


def _with_rooms(training: PairDataset, count: int) -> PairDataset:
    """The pairs and so many synthetic rooms; InputError for disparity, which rooms have none of."""
    if training.unit != "m":
        raise InputError(f"training data are {training.unit} and synthetic rooms depth in metres; expected depth")
    return JoinedPairs(training, SomePairs(Synthetic("train"), count))


def make_sampler(pairs: CachedPairs, config: TrainConfig, places: range | None = None) -> CropSampler:
    """The crops of a run, or those at some places of every batch."""
    return CropSampler(
        pairs,
        config.crop_size,
        config.scale,
        config.protocol,
        config.batch_size,
        config.seed,
        sensor=config.sensor,
        rescale=config.rescale,
        augmentation=config.augmentation,
        places=places,
    )


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """A linear warm-up by steps times a cosine from 1 to 0.01 over the fraction `done` of the run."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _done(config: TrainConfig, state: TrainState) -> float:
    return state.seconds / (60 * config.minutes) if config.minutes else state.step / config.steps


def _mean_loss(config: TrainConfig, state: TrainState) -> float:
    """Of the steps since the last one that was logged, 0 without any; InputError if it is no number."""
    return _finite(float(torch.stack(state.losses).double().mean()), config, state) if state.losses else 0.0


def _check_not_lost(config: TrainConfig, state: TrainState) -> None:
    """InputError where losses or weights are no numbers any more, so that they are not saved."""
    _mean_loss(config, state)
    for t in state.model.parameters():
        _finite(float(t.detach().abs().max()), config, state)


def _in_words(loss: float, unit: str) -> str:
    """A loss, which is a hundred times an error in the unit of the data."""
    return f"{loss:.2f} cm" if unit == "m" else f"{loss / CENTIMETRES:.2f} levels"


def _log_loss(log: RunLog, report: Callable[[str], None], config: TrainConfig, state: TrainState, unit: str) -> None:
    """Log and tell the mean loss of the steps since the last time, with the learning rate of the last one."""
    rate, mean_loss = state.optimisers["adamw"].param_groups[0]["lr"], _mean_loss(config, state)
    log.write(state.step, state.seconds, loss=mean_loss, learning_rate=rate)
    report(f"step {state.step}: loss {_in_words(mean_loss, unit)}, {_minutes(state)}")
    state.losses.clear()


def _minutes(state: TrainState) -> str:
    return f"{state.seconds / 60:.1f} minutes"


def _finite(mean_loss: float, config: TrainConfig, state: TrainState) -> float:
    """The loss, if it is a number; else the network is lost, and its checkpoint is not written over."""
    if not math.isfinite(mean_loss):
        raise InputError(
            f"step {state.step}: a loss or weight is {mean_loss}, so this training has diverged; expected a "
            f"--learning-rate below {config.learning_rate:g}, in another folder"
        )
    return mean_loss


def start(
    config: TrainConfig, device: torch.device = ALONE.device, report: Callable[[str], None] = lambda line: None
) -> TrainState:
    """Network, optimisers and averaged weights before the first step.

    Args:
        config: what is trained, and the weights that it starts from.
        device: where.
        report: takes a line that says how many tensors of these weights fit.

    Raises:
        InputError: the weights to start from are bad, or of an architecture with no tensor in common.
    """
    torch.manual_seed(config.seed)
    model = DDFUpNet(config.network_config())
    if config.init:
        source = load_model(config.init)
        fitting, number = copy_fitting(source, model), len(model.state_dict())
        if not fitting:
            raise InputError(
                f"{config.init}: none of its tensors fits into architecture {config.architecture}; expected weights"
                " of that"
            )
        report(f"starts from {config.init}: {fitting} of {number} tensors fit")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = {name: t.detach().clone() for name, t in model.state_dict().items()}
    anchor = {name: t.clone() for name, t in ema.items()} if config.keep else {}
    return TrainState(model, make_optimisers(model, config), ema, anchor)


def result_weights(state: TrainState, config: TrainConfig) -> dict[str, Tensor]:
    """The averaged weights, or their mean with those that the run started from, of which `config.keep` is kept."""
    if not config.keep:
        return state.ema
    return {name: t.lerp(state.anchor[name], config.keep) for name, t in state.ema.items()}


def make_optimisers(model: DDFUpNet, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """By name: AdamW for everything, or Muon for the filters of hidden convolutions and AdamW for the rest.

    Of the rest are the first convolution of depth and the last of the result, which face numbers instead of features,
    what predicts filters, and the scale and shift of filters.
    """
    hidden: dict[str, Tensor] = {}
    if config.optimiser == "muon":
        weights = {name: p for name, p in model.named_parameters() if name.endswith(".weight") and p.dim() == 4}
        hidden = {name: p for name, p in weights.items() if not AT_THE_RIM.search(name)}
    rest = [p for name, p in model.named_parameters() if name not in hidden]
    rate, decay = config.learning_rate, config.weight_decay
    optimisers: dict[str, torch.optim.Optimizer] = {"adamw": torch.optim.AdamW(rest, rate, weight_decay=decay)}
    if hidden:
        optimisers["muon"] = Muon(hidden.values(), rate, decay)
    return optimisers


def _restore(checkpoint: Path, device: torch.device, data: dict) -> tuple[TrainConfig, TrainState]:
    tensors, facts = load_checkpoint(checkpoint)
    before = data | facts["data"]  # older ones do not know everything
    if before != data:
        raise InputError(
            f"{checkpoint}: was made on {before['images']} other pairs, in {before['unit']}, got {data['images']} in"
            f" {data['unit']}; expected --data of the run, to which --resume keeps"
        )
    config = config_of_run(checkpoint, facts["config"])
    try:
        state = start(replace(config, init=None, keep=0.0), device)  # the file it started from may be gone
        state.model.load_state_dict(tensors["model"])
        for name, optimiser in state.optimisers.items():
            moments = tensors["optimiser"].get(name, {})  # none before the first step
            optimiser.load_state_dict({"state": moments, "param_groups": facts["param_groups"][name]})
            _lay_out(optimiser)
        for name, t in state.ema.items():
            t.copy_(tensors["ema"][name])
            if config.keep:
                state.anchor[name] = tensors["anchor"][name].to(t.device, copy=True)
        torch.set_rng_state(tensors["random"]["cpu"])
        state.step, state.seconds = facts["step"], facts["seconds"]
        state.losses = [torch.tensor(value, device=device) for value in facts["losses"]]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{checkpoint}: is of another version of depthup ({reason}); expected one of this") from None
    return config, state


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Copy its moments into the memory format of their parameters, without which its kernels on a GPU are slow.

    What was loaded is a view of the checkpoint's file, which Windows does not let anyone replace then.
    """
    for parameter, moments in optimiser.state.items():
        for name, t in moments.items():
            if t.dim() and t.shape != parameter.shape:
                raise ValueError(f"a moment of shape {list(t.shape)} for a parameter of {list(parameter.shape)}")
            moments[name] = torch.empty_like(parameter).copy_(t) if t.shape == parameter.shape else t.clone()


def train_step(
    config: TrainConfig, state: TrainState, batch: dict[str, Tensor], rate: float, processes: Processes = ALONE
) -> Tensor:
    """One step of the optimisers at a learning rate, and of the averaged weights; returns the loss in centimetres.

    `batch` is this process's share.

    The loss stays on its device, and a GPU may still be at work on it: to read it is to wait.
    """
    own = batch | {"low": fill(batch["low"]), "valid": batch["low"].isfinite()}
    own = {name: t.to(processes.device, non_blocking=True) for name, t in own.items()}
    mean_loss = processes.average(state.model, _gradients(config, state, own))
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.gradient_clip)
    for optimiser in state.optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        current = state.model.state_dict()
        torch._foreach_lerp_(list(state.ema.values()), [current[name] for name in state.ema], 1 - decay)
    state.step += 1
    return mean_loss.clone()


def _gradients(config: TrainConfig, state: TrainState, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a batch; leaves its gradient in the network's parameters. A GPU does both as one CUDA graph."""

    def compute(batch: dict[str, Tensor]) -> Tensor:
        state.model.zero_grad(set_to_none=True)
        value = objective(config, state.model, batch)
        value.backward()
        return value.detach()

    if batch["low"].device.type != "cuda":
        return compute(batch)
    if state.captured is None:
        state.captured = Captured(compute, batch)
    return state.captured(batch)


def _sensor(config: TrainConfig) -> Sensor | None:
    """What a run is scored with."""
    return STANDARD_SENSOR if config.sensor else None


def validate(state: TrainState, dataset: PairDataset, config: TrainConfig) -> Evaluation:
    """Score what would be the result now; `state` is afterwards as before."""
    own = {name: t.detach().clone() for name, t in state.model.state_dict().items()}
    state.model.load_state_dict(result_weights(state, config))
    state.model.eval()
    try:
        name = "the averaged weights"
        return evaluate(dataset, config.scale, config.protocol, state.model, name, sensor=_sensor(config))
    finally:
        state.model.load_state_dict(own)
        state.model.train()


def _record(config: TrainConfig, training: PairDataset, validation: PairDataset) -> dict:
    """What a weights file says about its training."""
    data = {"title": training.title, "images": len(training), "scenes": len(set(training.scenes))}
    held_out = {"title": validation.title, "images": len(validation), "scenes": len(set(validation.scenes))}
    versions = {"depthup": __version__, "torch": torch.__version__}
    facts = asdict(config)
    if config.init:
        facts["init"] = Path(*Path(config.init).parts[-2:]).as_posix()  # where it lay is nobody's business
    return {"config": facts, "data": data, "held_out": held_out, "versions": versions}
