"""Synthetic indoor scenes with exact depth: data to train on that is made, not downloaded."""

from __future__ import annotations

import cv2
import numpy as np

from depthup.data.pairs import Pair, check_split

SPLIT_SCENES = {"train": range(800), "val": range(800, 832), "test": range(832, 864), "all": range(864)}
"""Numbers of the scenes of each split."""


def synthetic_pair(number: int, seed: int = 0, height: int = 480, width: int = 640) -> Pair:
    """Picture and exact depth of a furnished room; the same for the same arguments, on any number of threads.

    A pinhole camera stands in a room of up to 6.6 x 6.8 x 3.2 m; its angle of view is 50 to 72 degrees along the longer
    side. Depth is that of the first surface on the ray through the centre of a pixel; the picture is the mean of 2 x 2
    samples of each pixel, then softened, exposed, made noisy and compressed as a camera does.

    Args:
        number: of the scene, >= 0.
        seed: >= 0; another seed has other scenes.
        height, width: of the picture in pixels, >= 16.

    Returns:
        The pair: RGB and depth along the optical axis in metres, 0.3 to 10, without holes.

    Raises:
        ValueError: an argument is out of range.
    """
    if number < 0 or seed < 0:
        raise ValueError(f"number {number}, seed {seed}: expected >= 0")
    if min(height, width) < 16:
        raise ValueError(f"size {width}x{height} is too small, expected at least 16x16 pixels")
    from depthup.data.synthetic.rays import cast, shadows  # here: imports Numba, which no other data set needs
    from depthup.data.synthetic.rooms import Room
    from depthup.data.synthetic.shading import shade

    rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
    shapes, materials, lights, view = Room(rng, height, width).furnish()
    depth, seen = cast(shapes, view, height, width)
    lit = shadows(shapes, lights, view, depth, seen)
    fine_depth, fine_seen = cast(shapes, view._replace(focal=2 * view.focal), 2 * height, 2 * width)
    light = shade(shapes, materials, lights, view, fine_depth, fine_seen, seen, lit)
    name = f"synthetic-{seed}-{number:05d}"
    return Pair(name, name, photograph(light, rng), depth.astype(np.float32), "m")


def photograph(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera makes of light: blur, exposure, white balance, vignetting, noise, a tone curve, compression.

    Args:
        light: float32 `[H, W, 3]`, linear, RGB.
        rng: source of everything random.

    Returns:
        uint8 `[H, W, 3]`, RGB.
    """
    height, width = light.shape[:2]
    image = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 0.8))
    rows, columns = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    image = image * (1 - np.float32(rng.uniform(0, 0.12)) * (rows[:, None] ** 2 + columns**2))[..., None]
    grey_world = image.mean((0, 1))
    balance = (grey_world.mean() / grey_world) ** rng.uniform(0, 0.9) * np.exp(rng.normal(0, 0.04, 3))
    exposure = rng.uniform(0.16, 0.42) / np.median(image[::4, ::4].max(2))
    image = image * (exposure * balance).astype(np.float32)
    photons, readout = rng.uniform(0, 0.02) ** 2 / 0.2, rng.uniform(0, 0.006) ** 2
    noise = rng.standard_normal(image.shape, np.float32)
    image += np.sqrt(np.float32(photons) * image + np.float32(readout)) * noise
    np.clip(image, 0, 1, out=image)
    gamma = np.float32(1 / rng.uniform(2.0, 2.4))
    contrast = np.float32(rng.uniform(0, 0.5))
    image = image**gamma
    image += contrast * image * (1 - image) * (image - np.float32(0.5))  # a gentle S
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    quality = int(rng.integers(80, 98))
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])


class Synthetic:
    """Synthetic rooms as a data set: 800 to train on, 32 others to validate and 32 more to test.

    Args:
        split: one of `SPLITS`.
        seed: >= 0; another seed has other scenes.

    Raises:
        ValueError: unknown split, or a negative seed.
    """

    unit = "m"
    border = 0

    def __init__(self, split: str = "all", seed: int = 0) -> None:
        check_split(split)
        if seed < 0:
            raise ValueError(f"seed {seed}: expected >= 0")
        self.seed, self._numbers = seed, SPLIT_SCENES[split]
        self.names = [f"synthetic-{seed}-{number:05d}" for number in self._numbers]
        self.scenes = list(self.names)
        self.title = f"synthetic rooms, split {split}"

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Pair:
        return synthetic_pair(self._numbers[index], self.seed)
