"""Things, and the small ones among them that lie on others.

A function draws a thing's size and returns a `Thing`, which can be built at any place. A thing reaches from -width/2 to
width/2 along its x, from 0 (its back) to its length along y, and from 0 to its height along z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from depthup.data.synthetic.parts import Builder, Place
from depthup.data.synthetic.rays import SPHERE


class Thing(NamedTuple):
    """Something that stands or lies in a room: its size, and what builds it."""

    width: float  # [m]
    length: float  # [m]
    height: float  # [m]
    build: Callable[[Place], None]
    lift: tuple[float, float] = (0.0, 0.0)  # how high above the floor its lower edge may be [m]


def books(b: Builder, width: float, length: float, height: float) -> Thing:
    """A row of standing books, or a lying pile."""
    lying = b.chance(0.25)
    count = int(b.rng.integers(2, 6)) if lying else int(width / 0.035 * b.between(0.4, 1))
    covers = [b.printed() if b.chance(0.3) else b.plastic() for _ in range(4)]

    def build(place: Place) -> None:
        x, z = -width / 2, 0.0
        for _ in range(count):
            thick, deep, tall = b.between(0.012, 0.05), b.between(0.6, 1) * length, b.between(0.6, 0.95) * height
            cover = b.pick(covers)
            if lying and z + thick < height:
                b.box(place, (-deep / 2, deep / 2), (0, deep * 0.7), (z, z + thick), cover)
                z += thick
            elif not lying and x + thick < width / 2:
                b.box(place, (x, x + thick), (b.between(0, 0.1) * length, deep), (0, tall), cover)
                x += thick + (0.05 if b.chance(0.1) else 0.0)

    return Thing(width, length, height, build)


def small(b: Builder) -> Thing:
    """A cup, a bottle, a box, a ball, a frame, a screen, a lamp, a bowl or pens."""
    kind = int(b.rng.integers(9))
    m = b.pick([b.plastic, b.plastic, b.metal, b.printed, b.body])()
    other = b.pick([b.plastic, b.metal, b.printed])()
    if kind == 0:
        r, h = b.between(0.03, 0.06), b.between(0.07, 0.14)

        def cup(p: Place) -> None:
            b.post(p, 0, r, (0, h), r, m)
            b.rod(p, (r, r, 0.25 * h), (1.5 * r, r, 0.35 * h), 0.004, m)
            b.rod(p, (1.5 * r, r, 0.35 * h), (1.5 * r, r, 0.75 * h), 0.004, m)
            b.rod(p, (1.5 * r, r, 0.75 * h), (r, r, 0.85 * h), 0.004, m)

        return Thing(3 * r, 2 * r, h, cup)
    if kind == 1:
        r, h = b.between(0.025, 0.05), b.between(0.18, 0.32)

        def bottle(p: Place) -> None:
            b.post(p, 0, r, (0, 0.65 * h), r, m)
            b.add(SPHERE, p, (0, r, 0.65 * h), (r, r, 0.12 * h), m)
            b.post(p, 0, r, (0.6 * h, h), 0.35 * r, other)

        return Thing(2 * r, 2 * r, h, bottle)
    if kind == 2:
        w, d, h = b.between(0.05, 0.4), b.between(0.05, 0.3), b.between(0.03, 0.35)
        return Thing(w, d, h, lambda p: b.box(p, (-w / 2, w / 2), (0, d), (0, h), m))
    if kind == 3:
        r, flat = b.between(0.03, 0.13), b.between(0.6, 1)
        return Thing(2 * r, 2 * r, 2 * r * flat, lambda p: b.add(SPHERE, p, (0, r, r * flat), (r, r, r * flat), m))
    if kind == 4:
        w, h, picture = b.between(0.1, 0.25), b.between(0.1, 0.3), b.printed()

        def frame(p: Place) -> None:
            b.box(p, (-w / 2, w / 2), (0.02, 0.035), (0, h), m)
            b.box(p, (0.02 - w / 2, w / 2 - 0.02), (0.03, 0.036), (0.02, h - 0.02), picture)

        return Thing(w, 0.06, h, frame)
    if kind == 5:
        w = b.between(0.3, 0.6)
        h, glass = 0.6 * w, b.material([b.colour(0.02, 0.5, 0.9)], gloss=0.5, glow=b.pick([0.0, 0.0, 0.8]))

        def screen(p: Place) -> None:
            b.box(p, (-0.12, 0.12), (0.02, 0.2), (0, 0.012), m)
            b.post(p, 0, 0.1, (0.01, 0.2), 0.018, m)
            b.box(p, (-w / 2, w / 2), (0.1, 0.13), (0.1, 0.1 + h), m)
            b.box(p, (0.012 - w / 2, w / 2 - 0.012), (0.12, 0.131), (0.112, 0.088 + h), glass)

        return Thing(w, 0.22, h + 0.1, screen)
    if kind == 6:
        h, r = b.between(0.3, 0.5), b.between(0.08, 0.14)
        shade = b.material([b.colour(0.5, 0.9, 0.2)], glow=b.pick([0.0, 0.6, 1.5]))

        def lamp(p: Place) -> None:
            b.post(p, 0, r, (0, 0.02), 0.6 * r, m)
            b.post(p, 0, r, (0.02, h), b.between(0.004, 0.012), m)
            b.post(p, 0, r, (0.62 * h, h), r, shade)

        return Thing(2 * r, 2 * r, h, lamp)
    if kind == 7:
        r = b.between(0.08, 0.16)

        def bowl(p: Place) -> None:
            b.post(p, 0, r, (0, 0.05), r, m)
            for _ in range(5):
                q = b.between(0.03, 0.045)
                b.add(SPHERE, p, (b.between(-0.5, 0.5) * r, r + b.between(-0.5, 0.5) * r, 0.07), (q, q, q), other)

        return Thing(2 * r, 2 * r, 0.11, bowl)

    def pens(p: Place) -> None:
        b.post(p, 0, 0.04, (0, 0.1), 0.035, m)
        for _ in range(6):
            x, y = b.between(-0.02, 0.02), b.between(-0.02, 0.02)
            b.rod(p, (x, 0.04 + y, 0.08), (2.5 * x, 0.04 + 2.5 * y, b.between(0.14, 0.19)), 0.0035, other)

    return Thing(0.08, 0.08, 0.19, pens)


def clutter(b: Builder, place: Place, width: float, length: float, height: float, most: int) -> None:
    """Small things side by side on a surface; `place` is the middle of its back."""
    b.group()
    x = -width / 2 + b.between(0, 0.1)
    for _ in range(int(b.rng.integers(0, most + 1))):
        tall = min(height * 0.95, b.between(0.15, 0.32))
        thing = books(b, b.between(0.1, 0.4), min(0.2, length), tall) if b.chance(0.2) else small(b)
        if x + thing.width > width / 2 or thing.height > height or thing.length > length:
            continue
        aside = b.between(0, length - thing.length)
        thing.build(place.at(x + thing.width / 2, aside, 0, 0.0))
        x += thing.width + b.between(0.005, 0.25)
