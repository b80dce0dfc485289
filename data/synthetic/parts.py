"""Rooms at random: which shapes stand where, what they are made of, how they are lit and from where they are seen.

Axes: x and y along the floor, z up, the floor at 0. A thing is built in its own axes, its back at y = 0 and its front
at y > 0, and stands somewhere on the floor, on another thing or at a wall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from depthup.data.synthetic.rays import BOX, CYLINDER, Lights, Shapes, View
from depthup.data.synthetic.shading import (
    BRICKS,
    CHECKS,
    CLOUDS,
    DOTS,
    PICTURE,
    PLAID,
    PLAIN,
    PLANKS,
    SPECKLE,
    STRIPES,
    TEXT,
    TILES,
    WOOD,
    Materials,
)

CLEARANCE = 0.44
"""Nothing is nearer to the camera than this [m], so that depth in a corner of the image is not below 0.3 m."""

WOODS = ((0.42, 0.26, 0.14), (0.62, 0.45, 0.28), (0.25, 0.15, 0.09), (0.75, 0.62, 0.45), (0.5, 0.28, 0.16))


class Scene(NamedTuple):
    """What a picture is taken of, and from where."""

    shapes: Shapes
    materials: Materials
    lights: Lights
    view: View


class Place(NamedTuple):
    """Where a thing stands, and the direction of its axes."""

    x: float
    y: float
    z: float
    yaw: float  # from the world's axes to its own [rad]

    def at(self, x: float, y: float, z: float, yaw: float = 0.0) -> Place:
        """A place that is given in the axes of this one."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return Place(self.x + c * x - s * y, self.y + s * x + c * y, self.z + z, self.yaw + yaw)


@dataclass
class Builder:
    """Shapes and materials as they are added."""

    rng: np.random.Generator
    shapes: list[tuple] = field(default_factory=list)  # kind, centre, axes, half, material
    groups: list[int] = field(default_factory=list)
    materials: list[tuple] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)  # materials that many things of the scene have

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def pick(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def group(self) -> None:
        """What follows lies together, for rays that miss all of it."""
        self.groups.append(len(self.shapes))

    def add(self, kind: int, place: Place, centre, half, material: int, axes: np.ndarray | None = None) -> None:
        """A shape; `centre` and `half` [m] in the axes of the place, `axes` [3, 3] its own axes in them, as columns."""
        c, s = math.cos(place.yaw), math.sin(place.yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        middle = np.array([place.x, place.y, place.z]) + turn @ np.asarray(centre, float)
        self.shapes.append((kind, middle, turn if axes is None else turn @ axes, np.asarray(half, float), material))

    def box(self, place: Place, x, y, z, material: int) -> None:
        """A box from x[0] to x[1], and so on."""
        low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
        self.add(BOX, place, (low + high) / 2, np.maximum((high - low) / 2, 5e-4), material)

    def post(self, place: Place, x: float, y: float, z, radius: float, material: int, kind: int = CYLINDER) -> None:
        """A post from z[0] to z[1], round or (BOX) square."""
        self.add(kind, place, (x, y, (z[0] + z[1]) / 2), (radius, radius, (z[1] - z[0]) / 2), material)

    def rod(self, place: Place, start, stop, radius: float, material: int) -> None:
        """A round rod between two points."""
        start, stop = np.asarray(start, float), np.asarray(stop, float)
        length = float(np.linalg.norm(stop - start))
        along = (stop - start) / length
        aside = np.cross(along, (0, 0, 1) if abs(along[2]) < 0.9 else (1, 0, 0))
        aside /= np.linalg.norm(aside)
        axes = np.stack([aside, np.cross(along, aside), along], 1)
        self.add(CYLINDER, place, (start + stop) / 2, (radius, radius, length / 2), material, axes)

    def arrays(self) -> tuple[Shapes, Materials]:
        kinds, centres, axes, halves, materials = zip(*self.shapes, strict=True)
        centre, half = np.array(centres), np.array(halves)
        to_unit = np.array(axes).transpose(0, 2, 1) / half[:, :, None]
        groups = sorted({start for start in self.groups if start < len(kinds)})
        reach = np.abs(np.array(axes) * half[:, None, :]).sum(2)
        low, high = np.minimum.reduceat(centre - reach, groups), np.maximum.reduceat(centre + reach, groups)
        group = np.array([*groups, len(kinds)])
        shapes = Shapes(np.array(kinds), centre, to_unit, half, np.array(materials), group, np.stack([low, high], 1))
        return shapes, Materials(*(np.array(values) for values in zip(*self.materials, strict=True)))

    # Materials

    def material(
        self,
        colours,
        pattern: int = PLAIN,
        size: float | tuple[float, float] = 1.0,
        turn: float = 0.0,
        gloss: float = 0.0,
        glow: float = 0.0,
        mottle: float | None = None,
    ) -> int:
        """A new material; returns its number. `colours` are one to three RGB triples of linear reflectance."""
        colours = [np.clip(colour, 0.02, 0.92) for colour in colours]
        colours = (colours * 3)[:3] if len(colours) < 3 else colours
        if mottle is None:
            mottle = self.between(0, 0.12) if self.chance(0.6) else self.between(0.1, 0.4)
        angle, seed = (math.cos(turn), math.sin(turn)), int(self.rng.integers(1, 1 << 20))
        irregular, highlight = (mottle, self.between(0.01, 0.4)), (gloss, self.between(10, 120))
        size = size if isinstance(size, tuple) else (size, size)
        self.materials.append((colours, pattern, size, angle, irregular, highlight, glow, seed))
        return len(self.materials) - 1

    def colour(self, low: float = 0.05, high: float = 0.8, saturation: float = 0.6) -> np.ndarray:
        """A colour of random hue, brightness between low and high, saturation up to the one given."""
        hue = np.array([0.0, 2.1, 4.2]) + self.between(0, 2 * math.pi)
        return self.between(low, high) * (1 + self.between(0, saturation) * np.cos(hue)) / (1 + 0.3 * saturation)

    def near(self, colour: np.ndarray, spread: float) -> np.ndarray:
        """A colour a little (or, for a spread of 1, much) brighter or darker and of another hue."""
        return colour * np.exp(self.rng.normal(0, spread, 3) * 0.3 + self.rng.normal(0, spread))

    def painted(self, low: float = 0.35, high: float = 0.85) -> int:
        """Paint, or wallpaper with stripes, dots, clouds or squares."""
        colour = self.colour(low, high, self.pick([0.05, 0.15, 0.5]))
        if self.chance(0.6):
            return self.material([colour], mottle=self.between(0, 0.25))
        pattern, spread = self.pick([STRIPES, STRIPES, DOTS, CLOUDS, PLAID, BRICKS]), self.pick([0.05, 0.15, 0.4])
        width = self.between(0.04, 0.4) if pattern != BRICKS else self.between(0.15, 0.3)
        size = width, width if pattern != BRICKS else self.between(0.05, 0.1)
        return self.material([colour, self.near(colour, spread), self.near(colour, spread)], pattern, size)

    def wooden(self) -> int:
        colour = np.array(self.pick(WOODS)) * self.between(0.6, 1.3)
        size = (self.between(0.2, 0.6), self.between(0.05, 0.2))
        gloss = self.between(0, 0.3)
        return self.material([colour, colour * self.between(0.45, 0.9)], WOOD, size, self.pick([0, math.pi / 2]), gloss)

    def floor(self) -> int:
        """Planks, tiles, squares, carpet or stone."""
        kind = self.pick([PLANKS, PLANKS, TILES, CHECKS, SPECKLE, SPECKLE, CLOUDS, PLAID])
        colour = np.array(self.pick(WOODS)) if kind == PLANKS else self.colour(0.1, 0.6, 0.4)
        other = self.near(colour, self.pick([0.1, 0.3, 0.8]))
        turn = self.pick([0, math.pi / 2, math.pi / 4, self.between(0, 3)])
        if kind == PLANKS:
            width = self.between(0.06, 0.2)
            plank = width * self.between(5, 10), width
            return self.material([colour, other, colour * 0.4], kind, plank, turn, self.between(0, 0.5))
        size = self.between(0.006, 0.03) if kind == SPECKLE else self.between(0.15, 0.6)
        joint = colour * self.pick([0.4, 0.7, 1.6])
        return self.material([colour, other, joint], kind, size, turn, 0.0 if kind == SPECKLE else self.between(0, 0.4))

    def fabric(self) -> int:
        colour = self.colour(0.05, 0.7, 0.8)
        pattern = self.pick([SPECKLE, SPECKLE, CLOUDS, STRIPES, PLAID, DOTS, CHECKS])
        size = self.between(0.004, 0.02) if pattern == SPECKLE else self.between(0.02, 0.2)
        spread, turn = self.pick([0.1, 0.3, 0.8]), self.between(0, 1.6)
        return self.material([colour, self.near(colour, spread), self.near(colour, spread)], pattern, size, turn)

    def plastic(self) -> int:
        return self.material([self.colour(0.03, 0.85, self.pick([0.1, 0.9]))], gloss=self.between(0, 0.8))

    def metal(self) -> int:
        grey = self.pick([0.04, 0.15, 0.4, 0.65])
        return self.material([np.full(3, grey) * self.between(0.8, 1.2)], gloss=self.between(0.2, 1.2))

    def printed(self) -> int:
        """A picture, a poster, the cover of a book or a page of text."""
        paper, ink = self.colour(0.3, 0.9, 0.4), self.colour(0.03, 0.5, 0.9)
        if self.chance(0.35):
            size = self.between(0.008, 0.04)
            return self.material([paper, paper, ink], TEXT, (size, 2 * size))
        pattern = self.pick([PICTURE, PICTURE, PICTURE, CLOUDS, STRIPES, CHECKS, PLAID, DOTS])
        size = self.between(0.1, 0.5) if pattern in (PICTURE, CLOUDS) else self.between(0.03, 0.2)
        colours = [paper, ink, self.colour(0.05, 0.9, 0.9)]
        return self.material(colours, pattern, (size, size * self.between(0.6, 1.6)), gloss=self.between(0, 0.3))

    def body(self) -> int:
        """Of furniture: mostly one of the materials of the scene, which neighbouring things then share."""
        if self.chance(0.7):
            return self.pick(self.shared)
        return self.pick([self.wooden, self.painted, self.plastic])()
