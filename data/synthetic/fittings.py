"""What hangs on the walls of a room or from its ceiling, lies on its floor, or is part of it."""

from __future__ import annotations

import math

import numpy as np

from depthup.data.synthetic.parts import Builder, Place
from depthup.data.synthetic.rays import CYLINDER, SPHERE
from depthup.data.synthetic.shading import PICTURE
from depthup.data.synthetic.things import Thing, clutter


def picture(b: Builder) -> Thing:
    w, h, t = b.between(0.2, 1.1), b.between(0.2, 0.9), b.pick([0.002, 0.02, 0.04])
    frame, image, border = b.pick([b.body, b.metal, b.plastic])(), b.printed(), b.between(0.01, 0.06)

    def build(p: Place) -> None:
        if t < 0.01:  # a poster
            b.box(p, (-w / 2, w / 2), (0, t), (0, h), image)
            return
        b.box(p, (-w / 2, w / 2), (0, t), (0, h), frame)
        b.box(p, (border - w / 2, w / 2 - border), (0, t + 0.002), (border, h - border), image)

    return Thing(w, t + 0.002, h, build, (0.7, 1.9))


def window(b: Builder) -> Thing:
    """A window with a sill, and a blind before it or curtains beside it."""
    w, h, frame = b.between(0.6, 1.6), b.between(0.8, 1.3), b.painted(0.6, 0.9)
    light = b.pick([0.2, 0.8, 2.0, 3.5])
    sky = b.material([(0.5, 0.6, 0.8), (0.15, 0.25, 0.1), (0.3, 0.3, 0.3)], PICTURE, (1.5, 1.2), glow=light)
    blind, curtain = b.chance(0.5), b.chance(0.4)
    cloth, slat, gap = b.fabric(), b.pick([b.painted, b.body])(), b.between(0.03, 0.07)

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, 0.012), (0, h), sky)
        for x in (0.03 - w / 2, 0, w / 2 - 0.03):
            b.box(p, (x - 0.03, x + 0.03), (0, 0.04), (0, h), frame)
        for z in (0.03, h - 0.03):
            b.box(p, (-w / 2, w / 2), (0, 0.04), (z - 0.03, z + 0.03), frame)
        b.box(p, (-w / 2 - 0.05, w / 2 + 0.05), (0, 0.18), (-0.03, 0), frame)
        if blind:
            for z in np.arange(b.between(0, 0.5) * h, h, gap):
                b.box(p, (-w / 2, w / 2), (0.06, 0.075), (z, z + gap * 0.6), slat)
        if curtain:
            b.rod(p, (-w / 2 - 0.2, 0.1, h + 0.05), (w / 2 + 0.2, 0.1, h + 0.05), 0.012, slat)
            for side in (-1, 1):
                for n in range(int(b.rng.integers(3, 8))):
                    x = side * (w / 2 + 0.15 - 0.055 * n)
                    b.post(p, x, 0.1 + 0.02 * (n % 2), (-0.1, h + 0.04), 0.035, cloth)

    return Thing(w + 0.4, 0.18, h + 0.07, build, (0.7, 1.1))


def door(b: Builder) -> Thing:
    w, h, leaf, m = b.between(0.75, 0.95), b.between(1.95, 2.1), b.body(), b.metal()
    frame = leaf if b.chance(0.5) else b.body()

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, 0.02), (0, h), leaf)
        for x in (-w / 2 - 0.05, w / 2):
            b.box(p, (x, x + 0.05), (0, 0.04), (0, h + 0.05), frame)
        b.box(p, (-w / 2, w / 2), (0, 0.04), (h, h + 0.05), frame)
        for z in (0.15, 1.15):
            b.box(p, (0.12 - w / 2, w / 2 - 0.12), (0.02, 0.026), (z, z + 0.75), leaf)
        b.rod(p, (w / 2 - 0.06, 0.06, 1.03), (w / 2 - 0.18, 0.06, 1.03), 0.01, m)
        b.rod(p, (w / 2 - 0.06, 0.02, 1.03), (w / 2 - 0.06, 0.06, 1.03), 0.012, m)

    return Thing(w + 0.1, 0.07, h + 0.05, build)


def wall_shelf(b: Builder) -> Thing:
    w, d, t, board = b.between(0.4, 1.2), b.between(0.15, 0.28), b.between(0.015, 0.04), b.body()

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, d), (0, t), board)
        for x in (-0.35 * w, 0.35 * w):
            b.box(p, (x - 0.01, x + 0.01), (0, 0.8 * d), (-0.02, 0), board)
        clutter(b, p.at(0, 0, t), w, d, 0.35, 5)

    return Thing(w, d, 0.35, build, (0.7, 1.8))


def radiator(b: Builder) -> Thing:
    w, h, m, gap = b.between(0.5, 1.4), b.between(0.4, 0.7), b.painted(0.6, 0.9), b.between(0.035, 0.06)

    def build(p: Place) -> None:
        for z in (0.03, h - 0.03):
            b.box(p, (-w / 2, w / 2), (0.04, 0.08), (z - 0.02, z + 0.02), m)
        for x in np.arange(0.02 - w / 2, w / 2, gap):
            b.box(p, (x, x + 0.6 * gap), (0.03, 0.11), (0, h), m)

    return Thing(w, 0.11, h, build, (0.1, 0.15))


def clock(b: Builder) -> Thing:
    r, face, hands = b.between(0.1, 0.18), b.plastic(), b.material([(0.03, 0.03, 0.03)])
    axes = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T

    def build(p: Place) -> None:
        b.add(CYLINDER, p, (0, 0.02, r), (r, r, 0.02), face, axes)
        for angle, long in ((b.between(0, 6.3), 0.5 * r), (b.between(0, 6.3), 0.8 * r)):
            b.rod(p, (0, 0.042, r), (long * math.sin(angle), 0.042, r + long * math.cos(angle)), 0.004, hands)

    return Thing(2 * r, 0.05, 2 * r, build, (1.4, 2.2))


def hanging_lamp(b: Builder, ceiling: float) -> Thing:
    r, cord, m = b.between(0.1, 0.25), b.between(0.3, 0.9), b.metal()
    shade = b.material([b.colour(0.5, 0.9, 0.2)], glow=b.pick([0.0, 0.8, 2.0]))
    kind = b.pick([SPHERE, CYLINDER])

    def build(p: Place) -> None:
        b.post(p, 0, r, (0.5 * r, cord), b.between(0.003, 0.008), m)
        b.add(kind, p, (0, r, 0.6 * r), (r, r, 0.6 * r), shade)

    return Thing(2 * r, 2 * r, cord, build, (ceiling - cord, ceiling - cord))


def rug(b: Builder) -> Thing:
    w, d, t, cloth = b.between(0.8, 2.2), b.between(0.6, 1.6), b.between(0.004, 0.02), b.fabric()
    return Thing(w, d, t, lambda p: b.box(p, (-w / 2, w / 2), (0, d), (0, t), cloth))


def pillar(b: Builder, ceiling: float, material: int) -> Thing:
    """A part of a wall that stands forward, a chimney or a pillar."""
    w, d = b.between(0.2, 1.4), b.between(0.1, 0.7)
    return Thing(w, d, ceiling, lambda p: b.box(p, (-w / 2, w / 2), (0, d), (0, ceiling), material))


ON_WALLS = (picture, picture, picture, picture, window, window, door, wall_shelf, radiator, clock)
