"""Everything that decides what a training run does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from depthup.data import InputError, Synthetic
from depthup.data.crops import check_augmentation
from depthup.data.low_resolution import check_protocol
from depthup.models import PRECISIONS, DDFUpNetConfig, check_whole_numbers

ROOMS = len(Synthetic("train"))
"""How many synthetic rooms there are to train on."""

NUMBERS = (
    *("minutes", "learning_rate", "weight_decay", "rmse_weight"),
    *("gradient_clip", "ema_decay", "rescale", "keep"),
)
"""Fields that are numbers, whole or not."""

MOST = {"minutes": math.inf, "learning_rate": 1e30, "weight_decay": 1e6, "rmse_weight": 1e6}
"""Field that is a number from 0 up -> the most it may be, so that what is made of them are numbers of float32."""

LEAST = {
    "seed": 0,
    "steps": 0,
    "batch_size": 1,
    "crop_size": 1,
    "warmup_steps": 0,
    "synthetic": 0,
    "validation_images": 1,
    "validation_every": 1,
    "checkpoint_every": 1,
}
"""Field that is a whole number -> the least it may be."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run does; stored in its checkpoints and weights.

    Args:
        scale, protocol: what is learned: the factor, and how low-resolution depth is made (`dkn` or `pac`).
        architecture: a name of `models.NAMED`: `base`, `fast`, `large`, `paper`, `pac-net` or `djf`.
        network: what differs from it, fields of `DDFUpNetConfig`.
        sensor: learn from simulated sensors (holes, noise, flying pixels ...) instead of the protocol's clean depth,
            and how far off the result is; scored with `STANDARD_SENSOR`.
        minutes: length by the clock, validation included; the learning rate follows the clock, so that two runs are
            not equal bit for bit. 0 = use `steps`.
        steps: length in steps of the optimiser; two runs with the same seed and number of threads are then equal bit
            for bit on a CPU.
        batch_size, crop_size: crops of a step and their side in pixels.
        optimiser: `muon` for the filters of hidden convolutions with `adamw` for the rest, or `adamw` for all.
        learning_rate: the same for both; times a cosine from 1 to 0.01 over the run, and less in the `warmup_steps`, so
            that a run of 300 steps comes to 0.4 of it and one of 5000 to 0.996.
        rmse_weight: weight of the mean RMSE of the crops beside the mean absolute error, both in centimetres.
        ema_decay: of the averaged weights, which are the result.
        rescale: how often, 0..1, a crop is a larger part of an image, reduced by 0.5 to 1.
        augmentation: how much crops are varied: `standard`, `strong` or `merged`, see `CropSampler`.
        precision: `float32` or `bf16` (autocast).
        seed: of the initial weights and of every crop.
        init: weights to start from, a name or a file; tensors that do not fit are left at their random start.
        keep: how much, 0 to below 1, of the weights it started from is in the result, beside the averaged ones
            (WiSE-FT, Wortsman et al., CVPR 2022): a short training for other crops then forgets less.
        synthetic: how many rooms of `Synthetic("train")` are trained on beside the pairs, up to `ROOMS`.
        invalid: values of the depth files that the data sets were told to leave out, see `open_dataset`.
        validation_images: held-out images, evenly spread, that are scored during training; all are at its end.
        validation_every, checkpoint_every: in steps; checkpoints are also made every five minutes.
    """

    scale: int
    protocol: str = "dkn"
    architecture: str = "base"
    network: dict[str, Any] = field(default_factory=dict)
    sensor: bool = False
    minutes: float = 0.0
    steps: int = 0
    batch_size: int = 8
    crop_size: int = 128
    optimiser: str = "muon"
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    rmse_weight: float = 1.0
    ema_decay: float = 0.999
    rescale: float = 0.0
    augmentation: str = "standard"
    precision: str = "float32"
    seed: int = 0
    init: str | None = None
    keep: float = 0.0
    synthetic: int = 0
    invalid: list[float] = field(default_factory=list)
    validation_images: int = 24
    validation_every: int = 2000
    checkpoint_every: int = 500

    def __post_init__(self):
        if isinstance(self.init, Path):
            object.__setattr__(self, "init", str(self.init))
        check_whole_numbers(self, LEAST)
        for name in NUMBERS:
            if not isinstance(value := getattr(self, name), int | float) or isinstance(value, bool):
                raise ValueError(f"{name}: got {value!r}, expected a number")
        for name, kind in (("sensor", bool), ("network", dict), ("invalid", list), ("init", str)):
            value = getattr(self, name)
            if not isinstance(value, kind) and not (name == "init" and value is None):
                raise ValueError(f"{name}: got {value!r}, expected a {kind.__name__}")
        if not all(isinstance(value, int | float) for value in self.invalid):
            raise ValueError(f"invalid: got {self.invalid!r}, expected numbers")
        if own := sorted({"architecture", "scale", "sensor"} & set(self.network)):
            raise ValueError(f"network: got {own[0]!r}, which is a setting of its own")
        if (self.minutes > 0) == (self.steps > 0):
            raise ValueError("minutes, steps: expected exactly one of them above 0")
        for name, most in MOST.items():
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a finite number >= 0")
            if getattr(self, name) > most:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at most {most:g}")
        if self.synthetic > ROOMS:
            raise ValueError(f"synthetic: got {self.synthetic}, expected at most {ROOMS}")
        if not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip: got {self.gradient_clip}, expected a number above 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay: got {self.ema_decay}, expected a fraction from 0 to below 1")
        if self.crop_size % (stride := self.network_config().stride):
            raise ValueError(f"crop_size: got {self.crop_size}, expected a multiple of {stride}, a cell of the network")
        check_protocol(self.protocol)
        if self.seed >= 2**63:
            raise ValueError(f"seed: got {self.seed}, expected 0 to 2^63 - 1")
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep: got {self.keep}, expected a fraction from 0 to below 1")
        if self.keep and not self.init:
            raise ValueError(f"keep: got {self.keep} without init, the weights to start from; expected both")
        check_augmentation(self.augmentation, self.rescale)
        if self.optimiser not in ("muon", "adamw"):
            raise ValueError(f"optimiser: got {self.optimiser!r}, expected 'muon' or 'adamw'")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: got {self.precision!r}, expected {' or '.join(map(repr, PRECISIONS))}")

    def network_config(self) -> DDFUpNetConfig:
        """What is trained; `base` back-projects where the low-resolution depth is known to be reduced by `dkn`."""
        reduced = self.architecture == "base" and self.protocol == "dkn" and not self.sensor
        network = {"back_projections": 2} | self.network if reduced else self.network
        if unknown := sorted(set(network) - {f.name for f in fields(DDFUpNetConfig)}):
            raise ValueError(f"network: got {unknown[0]!r}, which is no field of DDFUpNetConfig")
        return DDFUpNetConfig.named(self.architecture, self.scale, self.sensor, **network)


def config_of_run(checkpoint: Path, recorded: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint holds; InputError if this version knows none such."""
    try:
        return TrainConfig(**recorded)
    except (TypeError, ValueError) as error:
        raise InputError(f"{checkpoint}: is of another version of depthup ({error}); expected one of this") from None
