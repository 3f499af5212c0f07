"""What happens between the tissue and the file: exposure, soft focus, sensor noise; and the world outside the body."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from endocorpus.phantom.camera import Path, Rays, cast
from endocorpus.phantom.draws import Floats, generator, smooth_field
from endocorpus.phantom.lumen import Lumen
from endocorpus.phantom.traits import Traits

EVERY = 10
"""Frames between two readings of the exposure meter; with a camera slower than this per second, every frame is read."""


def meter(lumen: Lumen, path: Path, traits: Traits, rays: Rays) -> Floats:
    """Exposure of every frame, shape (frames,). The meter sees the wall without polyps, so that a polyp changes
    only the pixels that show it; it lags, so that the picture glares for a moment when the wall comes close."""
    few = slice(None, None, 97)
    thin = Rays(pixels=rays.pixels[few], x=rays.x[few], y=rays.y[few], z=rays.z[few], rim=rays.rim[few])
    coarse = np.ascontiguousarray(lumen.bare[::8, ::8])
    every = EVERY if (traits.capture or traits.rate) >= EVERY else 1
    marks = range(0, traits.frames + every, every)
    readings = []
    for mark in marks:
        hits = cast(coarse, path.at(float(traits.seconds(mark))), thin, steps=64)
        power = (1 - np.float32(0.45) * thin.rim**4) / (hits.outwards**2 + hits.ahead**2 + np.float32(0.18))
        readings.append(float(np.quantile(power, 0.72)))
    gains = (1.05 / np.array(readings)) ** 0.85
    gains = ndimage.gaussian_filter1d(gains, 0.8, mode="nearest")
    exposure: Floats = np.interp(range(traits.frames), marks, gains).astype(np.float32)
    return exposure


def soften(frame: Floats, amount: float) -> Floats:
    """Blur by ``[amount, 1 - 2 amount, amount]`` along both sides; shape (height, width, 3)."""
    side, middle = np.float32(amount), np.float32(1 - 2 * amount)
    rows = frame * middle
    rows[1:] += side * frame[:-1]
    rows[:-1] += side * frame[1:]
    both = rows * middle
    both[:, 1:] += side * rows[:, :-1]
    both[:, :-1] += side * rows[:, 1:]
    return both


def add_noise(frame: Floats, rng: np.random.Generator) -> None:
    """Add sensor noise in place: fine in brightness, coarser in colour, stronger in the dark. Display values."""
    height, width, _ = frame.shape
    fine = rng.standard_normal((height, width, 1), dtype=np.float32)
    coarse = rng.standard_normal((height // 2, width // 2, 3), dtype=np.float32)
    strength = np.float32(2.2) - frame[..., 1:2] * np.float32(1.1 / 255)
    frame += fine * strength
    blocks = frame.reshape(height // 2, 2, width // 2, 2, 3)
    blocks += coarse[:, None, :, None, :] * np.float32(1.3)


def make_room(seed: int, recording: int, width: int, height: int) -> Floats:
    """A bright examination room out of focus, twice as wide and high as a frame; shape (2h, 2w, 3), display values.

    Planes and lamps only: nothing in it resembles a person.
    """
    rng = generator(seed, "room", recording)
    rows, cols = 64, 80
    canvas = np.empty((rows, cols, 3), np.float32)
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    canvas[:] = np.array((196, 205, 210), np.float32) * (1.08 - 0.35 * down)
    floor = int(rng.integers(40, 48))
    canvas[floor:] = (150, 152, 146)
    for _ in range(5):  # windows and lamps, burnt out
        row, col = int(rng.integers(0, 22)), int(rng.integers(0, cols - 12))
        canvas[row : row + int(rng.integers(3, 9)), col : col + int(rng.integers(4, 10))] = (330, 330, 320)
    for _ in range(9):  # cabinets and screens
        row, col = int(rng.integers(14, 36)), int(rng.integers(0, cols - 10))
        tone = np.array(((92, 104, 120), (60, 66, 74), (168, 160, 140))[int(rng.integers(3))], np.float32)
        canvas[row : row + int(rng.integers(4, 16)), col : col + int(rng.integers(3, 12))] = tone
    edge = floor + rng.integers(2, 6) + np.cumsum(rng.normal(0, 0.5, cols)).astype(int)
    drape = np.array(((70, 128, 118), (88, 124, 168))[int(rng.integers(2))], np.float32)
    for col in range(cols):  # a sheet in the foreground
        canvas[max(edge[col], 0) :, col] = drape * (0.85 + 0.25 * np.sin(col / 5.0))
    canvas = ndimage.gaussian_filter(canvas, (1.1, 1.1, 0))
    canvas += 3 * smooth_field(rng, (rows, cols), 4, 20)[..., None]
    grown = ndimage.zoom(canvas, (2 * height / rows, 2 * width / cols, 1), order=1)
    room: Floats = ndimage.uniform_filter(grown, (9, 9, 1)).astype(np.float32)
    return room


def look_at_room(room: Floats, path: Path, seconds: float) -> Floats:
    """The part of the room in front of the camera; shape (h, w, 3). The camera is carried, so it swings."""
    height, width = room.shape[0] // 2, room.shape[1] // 2
    pose = path.at(seconds * 2.2)
    across = int(np.clip(0.5 + 1.3 * (pose.yaw + pose.roll), 0, 1) * (width - 1))
    down = int(np.clip(0.5 + 1.5 * pose.pitch, 0, 1) * (height - 1))
    return room[down : down + height, across : across + width].copy()
