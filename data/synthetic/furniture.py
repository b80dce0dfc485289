"""What stands on the floor of a room."""

from __future__ import annotations

import math

import numpy as np

from depthup.data.synthetic.parts import Builder, Place
from depthup.data.synthetic.rays import BOX, CYLINDER, SPHERE
from depthup.data.synthetic.shading import PLAIN, TEXT
from depthup.data.synthetic.things import Thing, books, clutter


def table(b: Builder) -> Thing:
    w, d, h = b.between(0.5, 1.8), b.between(0.45, 0.9), b.pick([b.between(0.35, 0.5), b.between(0.7, 0.78)])
    top, legs, thick = b.body(), b.pick([b.body, b.metal])(), b.between(0.015, 0.05)
    radius, kind, inset = b.between(0.008, 0.03), b.pick([BOX, CYLINDER]), b.between(0.04, 0.1)
    apron, bar = b.chance(0.4), b.chance(0.3)

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, d), (h - thick, h), top)
        for x in (inset - w / 2, w / 2 - inset):
            for y in (inset, d - inset):
                b.post(p, x, y, (0, h - thick), radius, legs, kind)
            if bar:
                b.rod(p, (x, inset, 0.15), (x, d - inset, 0.15), 0.7 * radius, legs)
        if apron:
            b.box(p, (inset - w / 2, w / 2 - inset), (inset, d - inset), (h - thick - 0.08, h - thick), legs)
        clutter(b, p.at(0, 0, h), w, d, 0.6, 6)

    return Thing(w, d, h + 0.4, build)


def chair(b: Builder) -> Thing:
    w, h, back = b.between(0.38, 0.5), b.between(0.42, 0.5), b.between(0.75, 1.05)
    seat, frame = b.pick([b.fabric, b.body])(), b.pick([b.body, b.metal, b.wooden])()
    r, kind, slats, upright = b.between(0.008, 0.022), b.pick([BOX, CYLINDER]), int(b.rng.integers(0, 7)), b.chance(0.5)

    def build(p: Place) -> None:
        left, right = r - w / 2, w / 2 - r
        b.box(p, (-w / 2, w / 2), (0, w), (h - b.between(0.02, 0.07), h), seat)
        for x in (left, right):
            b.post(p, x, w - r, (0, h - 0.02), r, frame, kind)
            b.post(p, x, r, (0, back), r, frame, kind)
        if slats < 2:
            b.box(p, (-w / 2, w / 2), (0, 0.03), (h + 0.12, back), seat)
        elif upright:
            b.box(p, (-w / 2, w / 2), (0, 0.025), (back - 0.06, back), frame)
            for x in np.linspace(left, right, slats + 2)[1:-1]:
                b.post(p, x, r, (h, back - 0.03), 0.6 * r, frame, kind)
        else:
            for z in np.linspace(h + 0.1, back - 0.05, slats):
                b.box(p, (left, right), (0, 0.02), (z, z + 0.04), frame)

    return Thing(w, w, back, build)


def shelf(b: Builder) -> Thing:
    w, d, h = b.between(0.5, 1.3), b.between(0.22, 0.4), b.between(0.7, 2.1)
    board, back, t = b.body(), b.chance(0.6), b.between(0.012, 0.03)
    floors = max(2, round(h / b.between(0.28, 0.45)))

    def build(p: Place) -> None:
        for x in (t / 2 - w / 2, w / 2 - t / 2):
            b.box(p, (x - t / 2, x + t / 2), (0, d), (0, h), board)
        if back:
            b.box(p, (-w / 2, w / 2), (0, 0.01), (0.02, h), board)
        step = (h - t) / floors
        for n in range(floors + 1):
            b.box(p, (t - w / 2, w / 2 - t), (0, d), (n * step, n * step + t), board)
            if n < floors and b.chance(0.5):
                wide = b.between(0.3, 0.95) * (w - 2 * t)
                b.group()
                books(b, wide, d * 0.8, step - t).build(p.at((wide - w) / 2 + t, 0.02, n * step + t))
            else:
                clutter(b, p.at(0, 0.02, n * step + t), w - 2 * t, d - 0.02, step - t if n < floors else 0.4, 3)

    return Thing(w, d, h + 0.3, build)


def cabinet(b: Builder) -> Thing:
    w, d, h = b.between(0.4, 1.6), b.between(0.35, 0.6), b.pick([b.between(0.5, 1), b.between(1.6, 2.1)])
    body, knob = b.body(), b.metal()
    door = body if b.chance(0.7) else b.body()
    columns, rows = max(1, round(w / 0.45)), int(b.rng.integers(1, 5)) if h < 1.2 else int(b.rng.integers(1, 3))

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, d - 0.02), (0, h), body)
        for i in range(columns):
            for j in range(rows):
                x, z = w * (i / columns - 0.5) + 0.005, 0.05 + (h - 0.05) * j / rows
                right, top = x + w / columns - 0.01, z + (h - 0.05) / rows - 0.01
                b.box(p, (x, right), (d - 0.02, d), (z, top), door)
                b.add(SPHERE, p, ((x + right) / 2, d + 0.012, top - 0.08), (0.015, 0.015, 0.015), knob)
        clutter(b, p.at(0, 0, h), w, d, 0.5, 4)

    return Thing(w, d + 0.03, h + 0.3, build)


def sofa(b: Builder) -> Thing:
    w, d, h, arm = b.between(0.8, 2.1), b.between(0.75, 0.95), b.between(0.7, 0.9), b.between(0.08, 0.2)
    cloth, cushion = b.fabric(), b.fabric()

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, d), (0.08, 0.3), cloth)
        b.box(p, (-w / 2, w / 2), (0, 0.18), (0.3, h), cloth)
        for x in (-w / 2, w / 2 - arm):
            b.box(p, (x, x + arm), (0, d), (0.3, 0.6), cloth)
        seats = max(1, round(w / 0.7))
        inner = (w - 2 * arm) / seats
        for n in range(seats):
            x = arm - w / 2 + n * inner
            b.box(p, (x + 0.005, x + inner - 0.005), (0.18, d + 0.01), (0.3, 0.45), cloth)
            if b.chance(0.6):
                b.add(SPHERE, p, (x + inner / 2, 0.3, 0.58), (0.22, 0.1, 0.18), cushion)
        for x in (0.05 - w / 2, w / 2 - 0.05):
            for y in (0.05, d - 0.05):
                b.post(p, x, y, (0, 0.08), 0.02, cushion)

    return Thing(w, d + 0.01, h, build)


def bed(b: Builder) -> Thing:
    w, d, frame, cloth, pillow = b.between(0.9, 1.6), 2.0, b.body(), b.fabric(), b.fabric()
    head = b.between(0.7, 1.2)

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, 0.05), (0, head), frame)
        b.box(p, (-w / 2, w / 2), (0.05, d), (0.12, 0.32), frame)
        b.box(p, (0.03 - w / 2, w / 2 - 0.03), (0.06, d - 0.03), (0.32, 0.52), pillow)
        b.box(p, (0.01 - w / 2, w / 2 - 0.01), (0.7, d - 0.01), (0.3, 0.55), cloth)
        for x in (-w / 4, w / 4):
            b.add(SPHERE, p, (x, 0.35, 0.56), (0.2 * w, 0.2, 0.09), pillow)

    return Thing(w, d, head, build)


def floor_lamp(b: Builder) -> Thing:
    h, r, m = b.between(1.3, 1.9), b.between(0.12, 0.25), b.metal()
    shade = b.material([b.colour(0.5, 0.9, 0.2)], glow=b.pick([0.0, 0.5, 1.5]))
    stem = b.between(0.006, 0.018)

    def build(p: Place) -> None:
        b.post(p, 0, r, (0, 0.025), 0.8 * r, m)
        b.post(p, 0, r, (0, h), stem, m)
        b.post(p, 0, r, (h - 1.4 * r, h), r, shade)

    return Thing(2 * r, 2 * r, h, build)


def plant(b: Builder) -> Thing:
    r, h = b.between(0.1, 0.2), b.between(0.7, 1.6)
    pot, stem = b.plastic(), b.material([(0.18, 0.13, 0.06)])
    leaf = b.material([np.array((0.06, 0.2, 0.04)) * b.between(0.6, 2)], gloss=0.2)
    reach = b.between(0.15, 0.45)

    def build(p: Place) -> None:
        b.post(p, 0, reach, (0, 2 * r), r, pot)
        for _ in range(int(b.rng.integers(8, 22))):
            angle, out, up = b.between(0, 6.3), b.between(0.3, 1) * reach, b.between(0.5, 1) * (h - 2 * r)
            tip = np.array([out * math.cos(angle), reach + out * math.sin(angle), 2 * r + up])
            b.rod(p, (0, reach, 2 * r), tip, b.between(0.0025, 0.006), stem)
            axes = np.linalg.qr(b.rng.standard_normal((3, 3)))[0]
            long = b.between(0.04, 0.14)
            b.add(SPHERE, p, tip, (long, long * b.between(0.3, 0.6), 0.004), leaf, axes)

    return Thing(2 * reach, 2 * reach, h, build)


def railing(b: Builder) -> Thing:
    """Vertical bars between two rails, as of a banister, a cot or a drying rack."""
    w, h, m, kind = (
        b.between(0.8, 2.2),
        b.between(0.6, 1.1),
        b.pick([b.metal, b.wooden, b.body])(),
        b.pick([BOX, CYLINDER]),
    )
    gap, r = b.between(0.07, 0.16), b.between(0.004, 0.016)

    def build(p: Place) -> None:
        b.box(p, (-w / 2, w / 2), (0, 0.05), (h - 0.04, h), m)
        b.box(p, (-w / 2, w / 2), (0.015, 0.035), (0.08, 0.1), m)
        for x in np.arange(0.02 - w / 2, w / 2, gap):
            b.post(p, x, 0.025, (0.09, h - 0.03), r, m, kind)
        for x in (0.02 - w / 2, w / 2 - 0.02):
            b.post(p, x, 0.025, (0, h), 0.022, m, kind)

    return Thing(w, 0.05, h, build)


def cartons(b: Builder) -> Thing:
    """Boxes on boxes."""
    w, d, count = b.between(0.25, 0.6), b.between(0.25, 0.5), int(b.rng.integers(1, 5))
    card = b.material([(0.45, 0.3, 0.17), (0.42, 0.28, 0.15), (0.1, 0.08, 0.06)], b.pick([PLAIN, TEXT]), (0.03, 0.06))
    heights = [b.between(0.15, 0.4) for _ in range(count)]

    def build(p: Place) -> None:
        z = 0.0
        for n, h in enumerate(heights):
            s = b.between(0.6, 1)
            m = card if b.chance(0.6) else b.body()
            here = p.at(0, d / 2, z, b.between(-0.3, 0.3) if n else 0.0)
            b.box(here, (-s * w / 2, s * w / 2), (-s * d / 2, s * d / 2), (0, h), m)
            z += h

    return Thing(w, d, sum(heights), build)


def round_thing(b: Builder) -> Thing:
    """A bin, a stool, a barrel, a ball or a vase."""
    r, h, m = b.between(0.1, 0.28), b.between(0.2, 0.7), b.pick([b.plastic, b.metal, b.fabric, b.body])()
    if b.chance(0.3):
        return Thing(2 * r, 2 * r, 2 * r, lambda p: b.add(SPHERE, p, (0, r, r), (r, r, r), m))

    def build(p: Place) -> None:
        b.post(p, 0, r, (0, h), r, m)
        clutter(b, p.at(0, 0.4 * r, h), 1.2 * r, 1.2 * r, 0.4, 2)

    return Thing(2 * r, 2 * r, h + 0.3, build)


def ladder(b: Builder) -> Thing:
    """Two leaning rails with rungs."""
    w, h, lean, m, r = (
        b.between(0.35, 0.5),
        b.between(1.2, 2.0),
        b.between(0.2, 0.5),
        b.pick([b.metal, b.wooden])(),
        b.between(0.01, 0.025),
    )

    def build(p: Place) -> None:
        for x in (r - w / 2, w / 2 - r):
            b.rod(p, (x, lean, 0), (x, r, h), r, m)
        for z in np.arange(0.2, h - 0.1, 0.28):
            y = lean + (r - lean) * z / h
            b.rod(p, (-w / 2, y, z), (w / 2, y, z), 0.7 * r, m)

    return Thing(w, lean + r, h, build)


FREE_STANDING = (table, chair, chair, sofa, floor_lamp, plant, railing, cartons, round_thing)
AGAINST_WALLS = (table, shelf, shelf, cabinet, cabinet, sofa, bed, plant, cartons, ladder, floor_lamp, chair)
