"""A room at random: its walls, a camera in it, lamps, and things where the camera sees them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from depthup.data.synthetic.fittings import ON_WALLS, hanging_lamp, pillar, rug
from depthup.data.synthetic.furniture import AGAINST_WALLS, FREE_STANDING
from depthup.data.synthetic.parts import CLEARANCE, Builder, Place, Scene
from depthup.data.synthetic.rays import ROOM, Lights, View
from depthup.data.synthetic.things import Thing


class Room:
    """A room that is being furnished.

    Args:
        rng: source of everything random.
        height, width: of the picture [px].
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        b = self.b = Builder(rng)
        self.size = np.array([b.between(2.8, 6.6), b.between(2.8, 6.8), b.between(2.3, 3.2)])
        self.taken: list[tuple[np.ndarray, np.ndarray]] = []  # lowest and highest corner of what stands there [m]
        self._walls()
        self._camera(height, width)

    def furnish(self) -> Scene:
        b = self.b
        ceiling = float(self.size[2])
        for _ in range(int(b.rng.integers(0, 2))):
            self._add(pillar(b, ceiling, b.pick([self.wall, self.wall, b.body()])), self._at_wall)
        for _ in range(int(b.rng.integers(0, 4))):
            self._add(b.pick(FREE_STANDING)(b), self._close)
        for _ in range(int(b.rng.integers(3, 8))):
            self._add(b.pick(AGAINST_WALLS)(b), self._at_wall)
        for _ in range(int(b.rng.integers(2, 6))):
            self._add(b.pick(FREE_STANDING)(b), self._free)
        for _ in range(int(b.rng.integers(4, 10))):
            self._add(b.pick(ON_WALLS)(b), self._at_wall)
        for _ in range(int(b.rng.integers(0, 3))):
            self._add(hanging_lamp(b, ceiling), self._free)
        if b.chance(0.4):
            self._add(rug(b), self._free)
        lights = self._lights()
        return Scene(*b.arrays(), lights, self.view)

    def _walls(self) -> None:
        b = self.b
        wall = b.painted(0.35, 0.9)
        walls = [wall if b.chance(0.7) else b.painted(0.2, 0.9) for _ in range(4)]
        faces = [*walls, b.floor(), b.painted(0.7, 0.92)]
        first = len(b.materials)
        b.materials += [b.materials[m] for m in faces]
        b.group()
        b.add(ROOM, Place(0, 0, 0, 0), self.size / 2, self.size / 2, first)
        b.shared = [wall, b.wooden(), b.wooden(), b.pick([b.painted, b.plastic, b.wooden])()]
        self.wall = wall
        if b.chance(0.7):
            skirting, tall = b.body(), b.between(0.05, 0.12)
            b.group()
            for k in range(4):
                place, long = self._wall_place(k, 0.5)
                b.box(place, (-long / 2, long / 2), (0, 0.015), (0, tall), skirting)

    def _wall_place(self, k: int, part: float) -> tuple[Place, float]:
        """Part of the way along wall k (of -x, +x, -y, +y), facing the room, and the length of the wall."""
        x, y, _ = self.size
        if k == 0:
            return Place(0, part * y, 0, -math.pi / 2), y
        if k == 1:
            return Place(x, part * y, 0, math.pi / 2), y
        return (Place(part * x, 0, 0, 0), x) if k == 2 else (Place(part * x, y, 0, math.pi), x)

    def _camera(self, height: int, width: int) -> None:
        b = self.b
        eyes = b.rng.uniform((0.6, 0.6, 0.6), (*(self.size[:2] - 0.6), 1.75), (4, 3))
        targets = b.rng.uniform((0, 0, 0.2), (*self.size[:2], 1.4), (4, 3))
        farthest = int(np.argmax(np.linalg.norm((targets - eyes)[:, :2], axis=1)))
        self.eye, toward = eyes[farthest], (targets - eyes)[farthest]
        self.heading = math.atan2(toward[1], toward[0])
        forward = toward / np.linalg.norm(toward)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        roll = math.radians(float(b.rng.normal(0, 3)) if b.chance(0.8) else b.between(-15, 15))
        c, s = math.cos(roll), math.sin(roll)
        self.reach = math.radians(b.between(50, 72)) / 2  # half the angle of view along the longer side
        focal = max(height, width) / 2 / math.tan(self.reach)
        self.view = View(self.eye, np.stack([c * right + s * down, c * down - s * right, forward]), focal)

    def _wall_in_view(self) -> tuple[int, float, float]:
        """Number of a wall that the camera looks at, which part of the way along it, and how far it is."""
        angle = self.heading + self.b.between(-1.1, 1.1) * self.reach
        dx, dy = math.cos(angle), math.sin(angle)
        x, y, _ = self.eye
        w, d, _ = self.size
        far_x, far_y = ((w if dx > 0 else 0) - x) / dx, ((d if dy > 0 else 0) - y) / dy
        if far_x < far_y:
            return int(dx > 0), (y + far_x * dy) / d, far_x
        return 2 + int(dy > 0), (x + far_y * dx) / w, far_y

    def _add(self, thing: Thing, where: Callable[[Thing], Place]) -> None:
        """Build a thing where there is room for it; a few places are tried."""
        if thing.height > self.size[2]:
            return
        for _ in range(6):
            place = where(thing)
            corners = [place.at(x, y, 0) for x in (-thing.width / 2, thing.width / 2) for y in (0, thing.length)]
            low = np.array([min(c.x for c in corners), min(c.y for c in corners), place.z])
            high = np.array([max(c.x for c in corners), max(c.y for c in corners), place.z + thing.height])
            if (low < -1e-6).any() or (high > self.size + 1e-6).any():
                continue
            if any((low < other_high).all() and (high > other_low).all() for other_low, other_high in self.taken):
                continue
            start = len(self.b.shapes)
            self.b.group()
            thing.build(place)
            if self._is_clear(start):
                self.taken.append((low, high))
                return
            del self.b.shapes[start:]

    def _is_clear(self, start: int) -> bool:
        """Whether all shapes from number `start` on are far enough from the camera."""
        for _, centre, axes, half, _ in self.b.shapes[start:]:
            beyond = np.abs(centre - self.eye) - np.abs(axes) @ half
            if np.linalg.norm(np.maximum(beyond, 0)) < CLEARANCE:
                return False
        return True

    def _at_wall(self, thing: Thing) -> Place:
        k, part, _ = self._wall_in_view()
        lowest, highest = thing.lift
        highest = min(highest, self.size[2] - 0.05 - thing.height)
        return self._wall_place(k, part)[0]._replace(z=self.b.between(lowest, max(lowest, highest)))

    def _free(self, thing: Thing) -> Place:
        _, _, far = self._wall_in_view()
        angle = self.heading + self.b.between(-1, 1) * self.reach
        away = self.b.between(0.9, max(1.0, 0.9 * far))
        yaw = self.b.pick([0, 1, 2, 3]) * math.pi / 2 + (self.b.between(-0.8, 0.8) if self.b.chance(0.5) else 0.0)
        return Place(self.eye[0] + away * math.cos(angle), self.eye[1] + away * math.sin(angle), thing.lift[0], yaw)

    def _close(self, thing: Thing) -> Place:
        """As close to the camera as it may be, or a little farther, its front or its back to it."""
        angle = self.heading + self.b.between(-0.9, 0.9) * self.reach
        away = CLEARANCE + self.b.between(0.02, 0.5)
        yaw = angle + math.pi / 2 * self.b.pick([-1, -1, 1]) + self.b.between(-0.6, 0.6)
        if math.sin(yaw - angle) > 0:  # its front to the camera: its back is farther away
            away += thing.length
        return Place(self.eye[0] + away * math.cos(angle), self.eye[1] + away * math.sin(angle), 0, yaw)

    def _lights(self) -> Lights:
        """One or two lamps, mostly below the ceiling, and light from everywhere, from nearly none to nearly all."""
        b = self.b
        count = b.pick([1, 2])
        centre = np.empty((count, 3))
        for n in range(count):
            low, high = np.array([0.3, 0.3, 0.6 * self.size[2]]), self.size - np.array([0.3, 0.3, 0.06])
            for point in b.rng.uniform(low, high, (20, 3)):
                centre[n] = point
                if all((point < bottom).any() or (point > top).any() for bottom, top in self.taken):
                    break
        inside = b.rng.standard_normal((count, 16, 3))
        inside *= (b.rng.random((count, 16, 1)) ** (1 / 3)) / np.linalg.norm(inside, axis=2, keepdims=True)
        radius = np.exp(b.rng.uniform(math.log(0.02), math.log(0.4), (count, 1, 1)))
        warmth = 1 + b.rng.uniform(-0.25, 0.15, (count, 1)) * np.array([-1, 0, 1])
        colour = b.rng.uniform(0.3, 1.5, (count, 1)) * warmth
        ambient = b.between(0.1, 1.0) * (1 + b.between(-0.1, 0.1) * np.array([-1, 0, 1]))
        position = np.minimum(centre[:, None] + radius * inside, self.size - 0.01)
        slope = b.rng.normal(0, 0.15, 3) + np.array([0, 0, 0.1])
        return Lights(position, colour, ambient, np.clip(slope, -0.3, 0.3))
