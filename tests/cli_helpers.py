"""Plain functions and values that the tests of the command line share."""

from pathlib import Path

import cv2
import numpy as np
import torch

from depthup import upsample
from depthup.data import read_depth, read_rgb
from depthup.models import DDFUpNet, DDFUpNetConfig

SCALE = 4
SCENES = ("room0", "room1", "room2", "room23")  # the last is for validation
RECORD = {
    "config": {"protocol": "dkn"},
    "data": {"title": "boxes"},
    "steps": 12,
    "validation": {"rmse": 1.5, "unit": "cm", "images": 3, "scenes": 2},
}
UPSAMPLE = ("upsample", "rgb.png", "depth.png")
GOOD = (*UPSAMPLE, "-o", "out.png")


def small_net(scale: int, seed: int = 0) -> DDFUpNet:
    torch.manual_seed(seed)
    net = DDFUpNet(DDFUpNetConfig(scale=scale, width=16, trunk_blocks=1))
    torch.nn.init.normal_(net.net.result.weight, std=0.5)
    return net


def sensor_net() -> DDFUpNet:
    torch.manual_seed(1)
    return DDFUpNet(DDFUpNetConfig(scale=SCALE, width=16, trunk_blocks=1, sensor=True))


def write_pairs(folder: Path) -> None:
    """A folder of four scenes, one of them for validation."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for name in SCENES:
        depth = rng.integers(1000, 5000, (6, 6)).astype(np.uint16).repeat(8, 0).repeat(8, 1)
        cv2.imwrite(str(folder / f"{name}_depth.png"), depth)
        cv2.imwrite(str(folder / f"{name}_rgb.png"), (depth // 20).astype(np.uint8))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def expected_result(place: Path, model: str | None = None, unit: str = "mm") -> np.ndarray:
    depth = read_depth(place / "depth.png", unit)
    result = upsample(read_rgb(place / "rgb.png"), depth, model)
    return np.where(result < np.nanmin(depth) / 2, np.nan, result)


def command_line(value: object) -> str:
    """The id of a case: its arguments, and nothing for what is expected."""
    return " ".join(value) if isinstance(value, tuple) else ""
