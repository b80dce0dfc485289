"""Fixtures that the tests of the command line share."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

import depthup.weights
from cli_helpers import RECORD, SCALE, small_net, snapshot, write_pairs
from depthup.cli import main
from depthup.weights import save_weights


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """A test may change the number of threads; Ctrl-C works in it, also where a shell runs tests in the background."""
    threads, handler = torch.get_num_threads(), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, handler)


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture
def depthup_(monkeypatch, capfd) -> Callable[..., Run]:
    """Runs the program in this process."""

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["depthup", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        return Run(caught.value.code or 0, out, err)

    return run


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a pair for x4, good and bad files, and a box with networks for x2 and x4; the current one."""
    rng = np.random.default_rng(0)
    box = tmp_path / "box"
    box.mkdir()
    for scale in (2, SCALE):
        save_weights(box / f"x{scale}.safetensors", small_net(scale), RECORD)
    monkeypatch.setattr(depthup.weights, "SHIPPED", box)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    depth = rng.integers(800, 6000, (8, 12)).astype(np.uint16)
    depth[2:4, 3] = 0
    images = {
        "rgb.png": rng.integers(0, 256, (8 * SCALE, 12 * SCALE, 3), dtype=np.uint8),
        "small.png": rng.integers(0, 256, (6, 10, 3), dtype=np.uint8),
        "odd.png": rng.integers(0, 256, (8 * SCALE, 13 * SCALE, 3), dtype=np.uint8),
        "depth.png": depth,
        "depth.tiff": (depth / np.float32(1000)).astype(np.float32),
        "eight.png": (depth // 30).astype(np.uint8),
        "nothing.png": np.zeros_like(depth),
        "nothing8.png": np.zeros(depth.shape, np.uint8),
    }
    for name, image in images.items():
        assert cv2.imwrite(str(tmp_path / name), image)
    np.save(tmp_path / "depth.npy", images["depth.tiff"])
    for name in ("rgb", "depth"):
        content = (tmp_path / f"{name}.png").read_bytes()
        (tmp_path / f"cut-{name}.png").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "text.safetensors").write_text("these are no weights\n" * 10)
    with h5py.File(tmp_path / "no-depths.mat", "w") as file:
        file["images"] = np.zeros((2, 3, 8, 8), np.uint8)
    (tmp_path / "existing.png").write_bytes(b"precious")
    (tmp_path / "existing.csv").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check_mistake(place, depthup_) -> Callable[..., None]:
    """Runs a command that is a mistake: it says so in one line, with these parts, and leaves nothing behind."""

    def check(arguments: tuple[str, ...], code: int, parts: list[str]) -> None:
        write_pairs(place / "pairs")
        before = snapshot(place)
        result = depthup_(*arguments)
        assert result.out == ""
        assert result.err.startswith("depthup: ")
        assert result.err.endswith("\n")
        assert result.err.count("\n") == 1, result.err
        assert "Traceback" not in result.err
        for part in parts:
            assert part in result.err
        assert result.code == code
        assert snapshot(place) == before

    return check
