"""The camera: its path through the lumen, its rays, and which point of the wall each ray meets first."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np
import numpy.typing as npt

from endocorpus.phantom.draws import Floats, generator
from endocorpus.phantom.lumen import COLS, DENSITY, ROAM
from endocorpus.phantom.traits import Field

HALF_ANGLE = 1.15
"""Angle in radians between the optical axis and the farthest point of the field of view (equidistant lens)."""
NEAR, FAR = 0.04, 8.5
BINS = 512
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rays:
    """The rays of a field of view, one for each of its N pixels, in camera axes (x right, y down, z ahead).

    ``pixels`` are flat indices into a frame of ``height * width``; ``rim`` is the distance from the centre, 0 to 1.
    """

    pixels: Indices
    x: Floats
    y: Floats
    z: Floats
    rim: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Camera place and gaze. ``depth`` along the axis and the offset from it in lumen radii; angles in radians."""

    depth: float
    offset: tuple[float, float]
    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """For each ray: wall row (fractional) and column, distance to the axis and along it, and the step index."""

    row: Floats
    col: Indices
    angle: Floats
    outwards: Floats
    ahead: Floats
    step: npt.NDArray[np.int16]


def coverage(field: Field, width: int, height: int) -> Floats:
    """How much of each pixel shows the endoscopic image, 0 to 1: 0 outside the field of view, and less than 1 only
    on the pixels along its edge; shape (height, width)."""
    x = np.abs(np.arange(width, dtype=np.float32) + 0.5 - field.centre[0])[None, :]
    y = np.abs(np.arange(height, dtype=np.float32) + 0.5 - field.centre[1])[:, None]
    flat = min(field.radius, field.flat)
    if field.shape == "circle":
        inwards = np.minimum(field.radius - np.hypot(x, y), flat - y)
    else:
        corner = (field.radius + flat - field.cut() - x - y) / np.float32(np.sqrt(2))
        inwards = np.minimum(np.minimum(field.radius - x, flat - y), corner)
    shown: Floats = np.clip(inwards + np.float32(0.5), 0, 1).astype(np.float32)
    return shown


def covers(field: Field, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Which pixels lie in the field of view; shape (height, width)."""
    inside: npt.NDArray[np.bool_] = coverage(field, width, height) > 0
    return inside


def make_rays(field: Field, width: int, height: int) -> Rays:
    """The rays of every pixel in the field of view, through an equidistant (fish-eye) lens."""
    pixels = np.flatnonzero(covers(field, width, height))
    x = (pixels % width + 0.5 - field.centre[0]).astype(np.float32)
    y = (pixels // width + 0.5 - field.centre[1]).astype(np.float32)
    radius = np.hypot(x, y) + np.float32(1e-4)
    bend = radius * np.float32(HALF_ANGLE / field.reach())
    side = np.sin(bend) / radius
    return Rays(pixels=pixels, x=x * side, y=y * side, z=np.cos(bend), rim=radius / np.float32(field.reach()))


class Path:
    """The way of the camera: slow to-and-fro, breathing, tremor. A pure function of the time in seconds."""

    def __init__(self, seed: int, recording: int, site: float) -> None:
        """``site`` is the angle of the lesion site, towards which the camera looks a little, as an examiner does."""
        rng = generator(seed, "path", recording)
        self._speed = rng.uniform(0.10, 0.45, (6, 3)) * np.array([1.0, 2.3, 7.0])
        self._phase = rng.uniform(0, 2 * np.pi, (6, 3))
        self._size = np.array([1.0, 0.4, 0.06])
        self._gaze = (0.30 * cos(site), 0.30 * sin(site))

    def _wave(self, axis: int, seconds: float) -> float:
        return float(np.sum(self._size * np.sin(self._speed[axis] * 2 * np.pi * seconds + self._phase[axis])) / 1.46)

    def at(self, seconds: float) -> Pose:
        """Where the camera is after ``seconds``."""
        depth = ROAM * (0.5 + 0.5 * float(np.clip(self._wave(0, seconds * 0.5), -1, 1)))
        return Pose(
            depth=depth,
            offset=(0.16 * self._wave(1, seconds), 0.16 * self._wave(2, seconds)),
            yaw=self._gaze[0] + 0.22 * self._wave(3, seconds),
            pitch=self._gaze[1] + 0.22 * self._wave(4, seconds),
            roll=0.5 * self._wave(5, seconds * 0.6),
        )


def reach(steps: int) -> Floats:
    """How far ahead of the camera the wall is sampled: evenly as seen in the picture, so ever farther apart."""
    ahead: Floats = (1 / np.linspace(1 / (1 + NEAR), 1 / (1 + FAR), steps) - 1).astype(np.float32)
    return ahead


def cast(wall: Floats, pose: Pose, rays: Rays, steps: int = 256) -> Hits:
    """Find the first wall point on every ray.

    ``wall`` has shape (rows, columns), a thinned copy of the full one is fine. In the half plane of one angle,
    a ray is one number ``k = outwards / (outwards + ahead)``; it meets the wall where the running minimum of the
    wall's own ``k`` first falls to it. One table of those places per frame replaces marching along each ray.
    """
    cols = wall.shape[1]
    ahead = reach(steps)
    profile = _profile(wall, pose, ahead)
    slope = profile / (profile + ahead[:, None])
    lowest = slope.copy()
    for this in range(1, steps):  # row by row: numpy's own accumulate is ten times slower down the columns
        np.minimum(lowest[this - 1], lowest[this], out=lowest[this])
    table = np.zeros((BINS + 1, cols), np.int16)
    bins = (lowest * np.float32(BINS)).astype(np.int16)
    # Later steps overwrite earlier ones in the same bin; bins between two steps take the later step's number.
    table[bins, np.arange(cols)[None, :]] = np.arange(1, steps + 1, dtype=np.int16)[:, None]
    for this in range(BINS - 1, -1, -1):
        np.maximum(table[this + 1], table[this], out=table[this])

    x, y, z = _turn(pose, rays)
    side = np.sqrt(x * x + y * y)
    ray = np.clip(side / (side + np.maximum(z, np.float32(0.001))), 0, np.float32(1 - 1e-6))
    angle = np.arctan2(y, x)
    column = (angle * np.float32(cols / (2 * np.pi)) + np.float32(cols)).astype(np.int32) % cols
    step = np.clip(table[(ray * np.float32(BINS)).astype(np.int32) + 1, column], 1, steps - 1)
    flat = step.astype(np.int32) * cols + column
    before, after = slope.ravel()[flat - cols], slope.ravel()[flat]
    ray = np.minimum(ray, before)  # rays that look back past the first step meet the wall beside the lens
    part = np.clip((before - ray) / np.maximum(before - after, np.float32(1e-6)), 0, 1)
    distance = ahead[step - 1] + part * (ahead[step] - ahead[step - 1])
    shift = _shift(pose, cols)
    return Hits(
        row=(np.float32(pose.depth) + distance) * np.float32(DENSITY),
        col=shift[column] * (COLS // cols),
        angle=angle,
        outwards=ray / (1 - ray) * distance,
        ahead=distance,
        step=step,
    )


def _shift(pose: Pose, cols: int) -> Indices:
    """The wall column seen in each direction around the camera, which may stand beside the axis; shape (cols,).

    First order in the offset: exact on a tube of radius 1, a gentle warp elsewhere. Geometry and texture use the
    same columns, so nothing slides.
    """
    angle = np.arange(cols) * (2 * np.pi / cols)
    beside = pose.offset[1] * np.cos(angle) - pose.offset[0] * np.sin(angle)
    shifted: Indices = np.rint((angle + beside) * (cols / (2 * np.pi))).astype(np.intp) % cols
    return shifted


def _profile(wall: Floats, pose: Pose, ahead: Floats) -> Floats:
    """Distance from the camera's own axis to the wall at ``ahead``; shape (steps, cols)."""
    rows, cols = wall.shape
    row = (np.float32(pose.depth) + ahead) * np.float32(DENSITY * cols / COLS)
    upper = np.minimum(row.astype(np.int32), rows - 2)
    part = (row - upper)[:, None]
    angle = np.arange(cols, dtype=np.float32) * np.float32(2 * np.pi / cols)
    nearer = np.float32(pose.offset[0]) * np.cos(angle) + np.float32(pose.offset[1]) * np.sin(angle)
    sampled = wall[upper] * (1 - part) + wall[upper + 1] * part
    moved = np.take(sampled, _shift(pose, cols), axis=1)  # stays row by row in memory, unlike plain indexing
    profile: Floats = np.maximum(moved - nearer, np.float32(0.05))
    return profile


def _turn(pose: Pose, rays: Rays) -> tuple[Floats, Floats, Floats]:
    """Rays in lumen axes: roll about the optical axis, then pitch, then yaw."""
    sr, sp, sy = (np.float32(sin(angle)) for angle in (pose.roll, pose.pitch, pose.yaw))
    cr, cp, cy = (np.float32(cos(angle)) for angle in (pose.roll, pose.pitch, pose.yaw))
    x: Floats = rays.x * cr - rays.y * sr
    level: Floats = rays.x * sr + rays.y * cr
    y: Floats = level * cp + rays.z * sp
    z: Floats = rays.z * cp - level * sp
    side: Floats = x * cy + z * sy
    ahead: Floats = z * cy - x * sy
    return side, y, ahead
