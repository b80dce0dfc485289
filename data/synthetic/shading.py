"""Materials with their patterns, and the light that surfaces send back, compiled by Numba."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from depthup.data.synthetic.rays import CYLINDER, ROOM, SPHERE, compile_rays, direction, inline_rays, unit_position

PLAIN, STRIPES, CHECKS, TILES, PLANKS, WOOD, SPECKLE, CLOUDS, TEXT, PICTURE, PLAID, DOTS, BRICKS = range(13)
"""Patterns of a material: what mixes its three colours."""


class Materials(NamedTuple):
    """M materials."""

    colours: np.ndarray  # float64 [M, 3, 3], reflectance of the ground, of the pattern, of its joints or marks; RGB
    pattern: np.ndarray  # int64 [M]
    size: np.ndarray  # float64 [M, 2], of one repeat of the pattern [m]
    turn: np.ndarray  # float64 [M, 2], cosine and sine of the pattern's angle on its surface
    mottle: np.ndarray  # float64 [M, 2], relative strength of a soft irregularity, and its size [m]
    gloss: np.ndarray  # float64 [M, 2], strength of the highlight, and its exponent
    glow: np.ndarray  # float64 [M], light of its own
    seed: np.ndarray  # int64 [M]


@inline_rays
def _random(x, y, seed):
    """A number in 0..1 that looks random, of two integers and a seed."""
    h = (int(x) * 374761393 + int(y) * 668265263 + seed * 362437) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return (h ^ (h >> 16)) * (1 / 4294967296)


@compile_rays
def _noise(u, v, seed):
    """Smooth value noise in 0..1 with features of size 1."""
    x, y = math.floor(u), math.floor(v)
    a, b = u - x, v - y
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    top = _random(x, y, seed) * (1 - a) + _random(x + 1, y, seed) * a
    bottom = _random(x, y + 1, seed) * (1 - a) + _random(x + 1, y + 1, seed) * a
    return top * (1 - b) + bottom * b


@compile_rays
def _pattern(pattern, u, v, seed):
    """Weights of the second and third colour of a material at a place, in repeats of its pattern."""
    i, j = math.floor(u), math.floor(v)
    a, b = u - i, v - j
    if pattern == STRIPES:
        return 1.0 if a < 0.3 + 0.4 * _random(seed, 0, 1) else 0.0, 0.0
    if pattern == CHECKS:
        return float((i + j) % 2), 0.0
    if pattern == TILES:
        return _random(i, j, seed), 1.0 if min(a, b) < 0.035 else 0.0
    if pattern in (PLANKS, BRICKS):
        shift = _random(j, 0, seed) if pattern == PLANKS else 0.5 * (j % 2)
        i = math.floor(u + shift)
        joint = 1.0 if b < 0.05 or u + shift - i < (0.006 if pattern == PLANKS else 0.03) else 0.0
        grain = _noise(8 * u, 12 * v, seed + i + 7 * j)
        return 0.6 * _random(i, j, seed) + 0.4 * grain, joint
    if pattern == WOOD:
        rings = 6 * _noise(0.5 * u, 1.5 * v, seed)
        return 0.6 * (rings - math.floor(rings)) + 0.4 * _noise(2 * u, 25 * v, seed), 0.0
    if pattern == SPECKLE:
        return _noise(u, v, seed), 1.0 if _random(math.floor(2 * u), math.floor(2 * v), seed) > 0.93 else 0.0
    if pattern == CLOUDS:
        return 0.65 * _noise(u, v, seed) + 0.35 * _noise(4 * u, 4 * v, seed), 0.0
    if pattern == TEXT:
        word, letter = math.floor(0.2 * u + 10 * _random(j, 1, seed)), math.floor(2.5 * u)
        ink = 0.3 < b < 0.75 and _random(word, j, seed) > 0.25 and _random(letter, 3 * j + int(6 * b), seed) > 0.35
        return 0.0, 1.0 if ink and j % 7 else 0.0
    if pattern == PICTURE:
        hills = _noise(1.3 * u, 0.5 * v, seed) + 0.5 * _noise(4 * u, 4 * v, seed) + 0.5 * v
        spots = _noise(3 * u, 3 * v, seed + 1) + 0.3 * _noise(11 * u, 11 * v, seed + 1)
        return min(max(2 * hills - math.floor(2 * hills), 0.0), 1.0), 1.0 if spots > 0.85 else 0.0
    if pattern == PLAID:
        return 0.5 * (a < 0.45) + 0.5 * (b < 0.45), 0.6 * (0.7 < a < 0.78) + 0.4 * (0.7 < b < 0.78)
    if pattern == DOTS:
        x, y = a - 0.3 - 0.4 * _random(i, j, seed), b - 0.3 - 0.4 * _random(i, j, seed + 1)
        distance = x * x + y * y
        return 1.0 if 0.01 < distance < 0.05 else 0.0, 1.0 if distance <= 0.01 else 0.0
    return 0.0, 0.0


@inline_rays
def _surface(shapes, n, x, y, z):
    """Face of a shape at a point, the place on it in metres, and its normal (not of length 1)."""
    qx, qy, qz = unit_position(shapes, n, x, y, z)
    kind, face, m, half = shapes.kind[n], 0, shapes.to_unit, shapes.half
    ax, ay, az = abs(qx), abs(qy), abs(qz)
    if kind == CYLINDER and qx * qx + qy * qy > qz * qz:
        u, v, a, b, c = math.atan2(qy, qx) * half[n, 0], qz * half[n, 2], qx, qy, 0.0
    elif kind == CYLINDER or (az > ax and az > ay):
        u, v, a, b, c, face = qx * half[n, 0], qy * half[n, 1], 0.0, 0.0, qz, 4 + int(qz > 0)
    elif ax >= ay:
        u, v, a, b, c, face = qy * half[n, 1], qz * half[n, 2], qx, 0.0, 0.0, int(qx > 0)
    else:
        u, v, a, b, c, face = qx * half[n, 0], qz * half[n, 2], 0.0, qy, 0.0, 2 + int(qy > 0)
    if kind == SPHERE:
        a, b, c, face = qx, qy, qz, 0
    if kind == ROOM:
        a, b, c = -a, -b, -c
    nx = m[n, 0, 0] * a + m[n, 1, 0] * b + m[n, 2, 0] * c
    ny = m[n, 0, 1] * a + m[n, 1, 1] * b + m[n, 2, 1] * c
    nz = m[n, 0, 2] * a + m[n, 1, 2] * b + m[n, 2, 2] * c
    return face, u, v, nx, ny, nz


@inline_rays
def _corner(shapes, n, x, y, z):
    """How little light from everywhere reaches the corners of a room, and what stands on its floor."""
    if n:
        return 1 - 0.25 * math.exp(-6 * max(z, 0.0))
    room, half = shapes.centre, shapes.half
    dx, dy, dz = half[0, 0] - abs(x - room[0, 0]), half[0, 1] - abs(y - room[0, 1]), half[0, 2] - abs(z - room[0, 2])
    nearest = min(dx, dy, dz)
    second = dx + dy + dz - nearest - max(dx, dy, dz)  # the nearest is the wall itself
    return 1 - 0.3 * math.exp(-5 * max(second, 0.0))


@inline_rays
def _visible(lit, lamp, seen, n, y, x):
    """Light of a lamp at a sample of shape n in pixel (y, x), whose centre may see another shape."""
    if seen[y, x] == n:
        return lit[lamp, y, x]
    for j in range(max(0, y - 1), min(seen.shape[0], y + 2)):
        for i in range(max(0, x - 1), min(seen.shape[1], x + 2)):
            if seen[j, i] == n:
                return lit[lamp, j, i]
    return np.float32(1)


@inline_rays
def _reflectance(materials, k, u, v, footprint):
    """What material k reflects at a place [m] that is seen with pixels of the size `footprint` [m]; RGB."""
    cosine, sine = materials.turn[k, 0], materials.turn[k, 1]
    width, height = materials.size[k, 0], materials.size[k, 1]
    u, v = (u * cosine - v * sine) / width, (u * sine + v * cosine) / height
    second, third = _pattern(materials.pattern[k], u, v, materials.seed[k])
    sharp = min(max(1.5 - 2 * footprint / min(width, height), 0.0), 1.0)  # 0 = too fine to be seen
    third *= sharp
    second = (0.5 + (second - 0.5) * sharp) * (1 - third)
    first, c = 1 - second - third, materials.colours
    return (
        first * c[k, 0, 0] + second * c[k, 1, 0] + third * c[k, 2, 0],
        first * c[k, 0, 1] + second * c[k, 1, 1] + third * c[k, 2, 1],
        first * c[k, 0, 2] + second * c[k, 1, 2] + third * c[k, 2, 2],
    )


@inline_rays
def _mottle(materials, k, u, v):
    size = materials.mottle[k, 1]
    return 1 + materials.mottle[k, 0] * (_noise(u / size, v / size, materials.seed[k]) - 0.5)


@inline_rays
def _illumination(materials, k, lights, ambient, lit, seen, n, y, x, point, normal, ray, diffuse, shine):
    """Fill `diffuse` and `shine` [3] with the light on a surface and its highlight; `normal` and `ray` of length 1."""
    px, py, pz = point
    nx, ny, nz = normal
    dx, dy, dz = ray
    for c in range(3):
        diffuse[c] = lights.ambient[c] * ambient + materials.glow[k]
        shine[c] = 0
    for lamp in range(len(lights.colour)):
        centre = lights.position
        lx, ly, lz = centre[lamp, 0, 0] - px, centre[lamp, 0, 1] - py, centre[lamp, 0, 2] - pz
        away = math.sqrt(lx * lx + ly * ly + lz * lz)
        lx, ly, lz = lx / away, ly / away, lz / away
        lambert = nx * lx + ny * ly + nz * lz
        if lambert <= 0:
            continue
        strength, highlight = _visible(lit, lamp, seen, n, y, x) / (0.5 + 0.25 * away * away), 0.0
        if materials.gloss[k, 0] > 0:
            hx, hy, hz = lx - dx, ly - dy, lz - dz
            cosine = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
            highlight = materials.gloss[k, 0] * max(cosine, 0.0) ** materials.gloss[k, 1]
        for c in range(3):
            diffuse[c] += lights.colour[lamp, c] * lambert * strength
            shine[c] += lights.colour[lamp, c] * highlight * strength


@compile_rays
def shade(shapes, materials, lights, view, fine_depth, fine_seen, seen, lit):
    """Light that reaches the camera, linear RGB, float32 [H, W, 3]: the mean of 2 x 2 samples of each pixel.

    `fine_depth` and `fine_seen` [2H, 2W] are what `cast` gives for twice the size and focal length, `seen` [H, W] for
    the pixels' centres, `lit` [L, H, W] what `shadows` gives. Samples of a pixel on one face share its light.
    """
    height, width = seen.shape
    image = np.zeros((height, width, 3), np.float32)
    diffuse, shine = np.zeros(3), np.zeros(3)
    ex, ey, ez = view.origin[0], view.origin[1], view.origin[2]
    for y in range(height):
        for x in range(width):
            known, known_face, facing, mottle = -1, -1, 1.0, 0.0
            for row in range(2 * y, 2 * y + 2):
                for column in range(2 * x, 2 * x + 2):
                    t, n = fine_depth[row, column], fine_seen[row, column]
                    a, b = (0.5 * column + 0.25 - width / 2), (0.5 * row + 0.25 - height / 2)
                    dx, dy, dz = direction(view, a / view.focal, b / view.focal)
                    point = ex + t * dx, ey + t * dy, ez + t * dz
                    face, u, v, nx, ny, nz = _surface(shapes, n, point[0], point[1], point[2])
                    k = shapes.material[n] + (face if n == 0 else 0)
                    if n != known or face != known_face:
                        known, known_face = n, face
                        scale = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
                        nx, ny, nz = nx * scale, ny * scale, nz * scale
                        scale = 1 / math.sqrt(dx * dx + dy * dy + dz * dz)
                        ray = dx * scale, dy * scale, dz * scale
                        facing = max(-(nx * ray[0] + ny * ray[1] + nz * ray[2]), 0.05)
                        slope = lights.slope[0] * nx + lights.slope[1] * ny + lights.slope[2] * nz
                        ambient = (1 + slope) * _corner(shapes, n, point[0], point[1], point[2])
                        normal = nx, ny, nz
                        mottle = _mottle(materials, k, u, v)
                        _illumination(
                            materials, k, lights, ambient, lit, seen, n, y, x, point, normal, ray, diffuse, shine
                        )
                    red, green, blue = _reflectance(materials, k, u, v, t / view.focal / facing)
                    image[y, x, 0] += 0.25 * (mottle * red * diffuse[0] + shine[0])
                    image[y, x, 1] += 0.25 * (mottle * green * diffuse[1] + shine[1])
                    image[y, x, 2] += 0.25 * (mottle * blue * diffuse[2] + shine[2])
    return image
