"""Casting rays at boxes, cylinders and ellipsoids, compiled by Numba.

Every shape is the image of a unit shape: the box and the cylinder reach from -1 to 1 along their axes, the cylinder
stands along its third axis, the sphere has radius 1. A ray is `origin + t * direction` in both spaces for one t, and
camera rays have a component of 1 along the optical axis: t is depth itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from depthup.compiling import compiler

BOX, CYLINDER, SPHERE, ROOM = range(4)
"""Kinds of shapes; a room is a box that is seen from inside."""

compile_rays = compiler(nogil=True, error_model="numpy")
inline_rays = compiler(nogil=True, error_model="numpy", forceinline=True)


class Shapes(NamedTuple):
    """N shapes; shape 0 is the room."""

    kind: np.ndarray  # int64 [N]
    centre: np.ndarray  # float64 [N, 3] [m]
    to_unit: np.ndarray  # float64 [N, 3, 3], from an offset from the centre to the unit shape
    half: np.ndarray  # float64 [N, 3], half sizes along the shape's own axes [m]
    material: np.ndarray  # int64 [N]; of a room, that of the first of its six faces: -x, +x, -y, +y, -z, +z
    group: np.ndarray  # int64 [G+1], where groups of shapes that lie together start, and N
    bounds: np.ndarray  # float64 [G, 2, 3], lowest and highest corner of every group [m]


class View(NamedTuple):
    """A pinhole camera, its principal point in the middle of the image."""

    origin: np.ndarray  # float64 [3] [m]
    axes: np.ndarray  # float64 [3, 3], rows: right, down, forward
    focal: float  # [px]


class Lights(NamedTuple):
    """L lamps, and light from everywhere."""

    position: np.ndarray  # float64 [L, 16, 3], points of each lamp [m]
    colour: np.ndarray  # float64 [L, 3]
    ambient: np.ndarray  # float64 [3]
    slope: np.ndarray  # float64 [3], how ambient light changes with the direction of the surface


@inline_rays
def _hit(kind, ox, oy, oz, dx, dy, dz):
    """First t > 0 at which a ray in the space of a unit shape meets it from its visible side; infinity for none."""
    if kind in (BOX, ROOM):
        ix, iy, iz = 1 / dx, 1 / dy, 1 / dz
        enter = max(min((-1 - ox) * ix, (1 - ox) * ix), min((-1 - oy) * iy, (1 - oy) * iy))
        enter = max(enter, min((-1 - oz) * iz, (1 - oz) * iz))
        leave = min(max((-1 - ox) * ix, (1 - ox) * ix), max((-1 - oy) * iy, (1 - oy) * iy))
        leave = min(leave, max((-1 - oz) * iz, (1 - oz) * iz))
        if kind == ROOM:
            return leave
        return enter if 0 < enter < leave else math.inf
    if kind == SPHERE:
        a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1
    else:
        a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1
    root = b * b - a * c
    t = (-b - math.sqrt(root)) / a if root > 0 else math.inf
    if kind == SPHERE:
        return t if t > 0 else math.inf
    if t > 0 and abs(oz + t * dz) <= 1:
        return t
    t = (-math.copysign(1.0, dz) - oz) / dz  # the cap that faces the ray
    x, y = ox + t * dx, oy + t * dy
    return t if t > 0 and x * x + y * y <= 1 else math.inf


@inline_rays
def transform(maps, n, x, y, z):
    """A vector by the n-th of the maps [N, 3, 3]."""
    return (
        maps[n, 0, 0] * x + maps[n, 0, 1] * y + maps[n, 0, 2] * z,
        maps[n, 1, 0] * x + maps[n, 1, 1] * y + maps[n, 1, 2] * z,
        maps[n, 2, 0] * x + maps[n, 2, 1] * y + maps[n, 2, 2] * z,
    )


@inline_rays
def unit_position(shapes, n, x, y, z):
    """A point of the world in the space of the n-th unit shape."""
    centre = shapes.centre
    return transform(shapes.to_unit, n, x - centre[n, 0], y - centre[n, 1], z - centre[n, 2])


@inline_rays
def direction(view, a, b):
    """Of the ray through the point (a, b) of the image plane at distance 1."""
    return (
        view.axes[2, 0] + a * view.axes[0, 0] + b * view.axes[1, 0],
        view.axes[2, 1] + a * view.axes[0, 1] + b * view.axes[1, 1],
        view.axes[2, 2] + a * view.axes[0, 2] + b * view.axes[1, 2],
    )


@compile_rays
def _extent(shapes, n, view):
    """Left, top, right, bottom of a box around a shape in the image plane at distance 1, and its nearest depth."""
    left, top, right, bottom, nearest = math.inf, math.inf, -math.inf, -math.inf, math.inf
    corner = np.empty(3)
    for bits in range(8):
        corner[:] = shapes.centre[n] - view.origin
        for axis in range(3):
            half = shapes.half[n, axis]
            corner += shapes.to_unit[n, axis] * (half * half * (1 if bits >> axis & 1 else -1))
        x, y, z = (view.axes[0] * corner).sum(), (view.axes[1] * corner).sum(), (view.axes[2] * corner).sum()
        nearest = min(nearest, z)
        if z > 0:
            left, right = min(left, x / z), max(right, x / z)
            top, bottom = min(top, y / z), max(bottom, y / z)
    return left, top, right, bottom, nearest


@compile_rays
def cast(shapes, view, height, width):
    """Depth [m], float64 [H, W], and number of the shape that each pixel's centre sees, int64 [H, W]."""
    depth = np.full((height, width), np.inf)
    seen = np.zeros((height, width), np.int64)
    f = view.focal
    for n in range(len(shapes.kind)):
        first, last, start, stop = 0, height, 0, width
        if n:
            left, top, right, bottom, nearest = _extent(shapes, n, view)
            if nearest > 0.01:
                first, last = max(0, int(top * f + height / 2) - 1), min(height, int(bottom * f + height / 2) + 2)
                start, stop = max(0, int(left * f + width / 2) - 1), min(width, int(right * f + width / 2) + 2)
        m, kind = shapes.to_unit, shapes.kind[n]
        ox, oy, oz = unit_position(shapes, n, view.origin[0], view.origin[1], view.origin[2])
        rx, ry, rz = transform(m, n, view.axes[0, 0], view.axes[0, 1], view.axes[0, 2])
        bx, by, bz = transform(m, n, view.axes[1, 0], view.axes[1, 1], view.axes[1, 2])
        fx, fy, fz = transform(m, n, view.axes[2, 0], view.axes[2, 1], view.axes[2, 2])
        for y in range(first, last):
            b = (y + 0.5 - height / 2) / f
            cx, cy, cz = fx + b * bx, fy + b * by, fz + b * bz
            for x in range(start, stop):
                a = (x + 0.5 - width / 2) / f
                t = _hit(kind, ox, oy, oz, cx + a * rx, cy + a * ry, cz + a * rz)
                if t < depth[y, x]:
                    depth[y, x] = t
                    seen[y, x] = n
    return depth, seen


@inline_rays
def _blocks(shapes, n, px, py, pz, dx, dy, dz):
    """Whether shape n stands between a point and the point that is (dx, dy, dz) away."""
    ox, oy, oz = unit_position(shapes, n, px, py, pz)
    ux, uy, uz = transform(shapes.to_unit, n, dx, dy, dz)
    return _hit(shapes.kind[n], ox, oy, oz, ux, uy, uz) < 1


@inline_rays
def _blocker(shapes, own, guess, px, py, pz, dx, dy, dz):
    """A shape other than `own`, which is convex, between a point and a light; 0 for none. `guess` is tried first."""
    if guess not in (0, own) and _blocks(shapes, guess, px, py, pz, dx, dy, dz):
        return guess
    ix, iy, iz = 1 / dx, 1 / dy, 1 / dz
    for g in range(1, len(shapes.bounds)):
        b = shapes.bounds
        ax, ay, az = (b[g, 0, 0] - px) * ix, (b[g, 0, 1] - py) * iy, (b[g, 0, 2] - pz) * iz
        bx, by, bz = (b[g, 1, 0] - px) * ix, (b[g, 1, 1] - py) * iy, (b[g, 1, 2] - pz) * iz
        enter = max(max(min(ax, bx), min(ay, by)), max(min(az, bz), 0.0))
        if enter > min(min(max(ax, bx), max(ay, by)), min(max(az, bz), 1.0)):
            continue
        for n in range(shapes.group[g], shapes.group[g + 1]):
            if n != own and _blocks(shapes, n, px, py, pz, dx, dy, dz):
                return n
    return 0


@compile_rays
def shadows(shapes, lights, view, depth, seen):
    """How much of each lamp each pixel sees: float32 [L, H, W] in 0..1.

    Neighbouring pixels look at different points of a lamp, and the mean over 4 x 4 pixels of one shape sees them all.
    """
    height, width = depth.shape
    lit = np.empty((height, width), np.float32)
    out = np.empty((len(lights.colour), height, width), np.float32)
    for lamp in range(len(lights.colour)):
        blocker = 0
        for y in range(height):
            for x in range(width):
                dx, dy, dz = direction(view, (x + 0.5 - width / 2) / view.focal, (y + 0.5 - height / 2) / view.focal)
                t, part = depth[y, x], y % 4 * 4 + x % 4
                px, py, pz = view.origin[0] + t * dx, view.origin[1] + t * dy, view.origin[2] + t * dz
                lx = lights.position[lamp, part, 0] - px
                ly = lights.position[lamp, part, 1] - py
                lz = lights.position[lamp, part, 2] - pz
                blocker = _blocker(shapes, seen[y, x], blocker, px, py, pz, lx, ly, lz)
                lit[y, x] = 0 if blocker else 1
        for y in range(height):
            for x in range(width):
                total, pixels = 0.0, 0
                for j in range(max(0, y - 2), min(height, y + 2)):
                    for i in range(max(0, x - 2), min(width, x + 2)):
                        if seen[j, i] == seen[y, x]:
                            total += lit[j, i]
                            pixels += 1
                out[lamp, y, x] = total / pixels
    return out
