"""Light on the wall: one frame of tissue from what the rays hit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endocorpus.phantom.camera import Hits, Rays, reach
from endocorpus.phantom.draws import Floats
from endocorpus.phantom.lumen import COLS, ROWS
from endocorpus.phantom.mucosa import LEVELS, Mucosa

LAMP = (0.10, -0.04)
"""Place of the lamp beside the lens, in lumen radii: light from one side gives folds and polyps their shape."""


def mip_levels(steps: int) -> npt.NDArray[np.int32]:
    """The mip level for each step of the cast: farther wall is seen through coarser textures; shape (steps,)."""
    ahead = reach(steps)
    texels = 0.8 * (ahead * ahead + 1) ** 0.75  # geometric mean of a pixel's footprint along and around the tube
    levels: npt.NDArray[np.int32] = np.clip(np.floor(np.log2(texels)), 0, LEVELS - 1).astype(np.int32)
    return levels


def look_up(mucosa: Mucosa, hits: Hits, levels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Paint (N, 4: red, green, blue, polyp label) and slopes (N, 4) at each hit."""
    level = levels[hits.step]
    base = np.array(mucosa.base, np.int32)[level]
    row = np.minimum(hits.row.astype(np.int32), ROWS - 1) >> level
    flat = base + row * (COLS >> level) + (hits.col.astype(np.int32) >> level)
    paint = mucosa.paint[flat].view(np.uint8).reshape(-1, 4)
    return paint, mucosa.slopes[flat].view(np.float32).reshape(-1, 4)


def light_up(paint: npt.NDArray[np.uint8], slopes: Floats, hits: Hits, rays: Rays, exposure: float) -> Floats:
    """Linear colour of each ray, shape (N, 3): diffuse light that falls off with distance, glow, wet highlights."""
    out, ahead = hits.outwards, hits.ahead
    cos, sin = np.cos(hits.angle), np.sin(hits.angle)
    # Towards the lamp, in the axes of the wall point: outwards, around, along the tube.
    lamp_x, lamp_y = np.float32(LAMP[0]), np.float32(LAMP[1])
    to_out = lamp_x * cos + lamp_y * sin - out
    to_side = lamp_y * cos - lamp_x * sin
    squared = to_out * to_out + to_side * to_side + ahead * ahead
    near = 1 / np.sqrt(squared)

    along, around = slopes[:, 0], slopes[:, 1]
    facing = (around * to_side - to_out - along * ahead) * near / np.sqrt(1 + along * along + around * around)
    wet_along, wet_around = slopes[:, 2], slopes[:, 3]
    gloss = (wet_around * to_side - to_out - wet_along * ahead) * near
    gloss = np.maximum(gloss, 0) / np.sqrt(1 + wet_along * wet_along + wet_around * wet_around)
    for _ in range(7):
        gloss = gloss * gloss

    power = np.float32(exposure) / (squared + np.float32(0.18)) * (1 - np.float32(0.45) * rays.rim**4)
    direct = power * np.maximum(np.float32(0.86) * facing + np.float32(0.14), np.float32(0.02))
    glow = np.float32(0.028) * np.sqrt(power)  # light scattered in the tissue and from the opposite wall: reddish
    colour = np.empty((len(out), 3), np.float32)
    shine = np.float32(1.7) * gloss * power
    # Light that has wandered through tissue has lost its green and blue: shadows are red, not grey.
    bright = np.minimum(direct, 1)
    for channel, (scattered, lost) in enumerate(((1.0, 0.0), (0.45, 0.30), (0.40, 0.34))):
        lit = direct * (np.float32(1 - lost) + np.float32(lost) * bright) + np.float32(scattered) * glow
        colour[:, channel] = paint[:, channel] * np.float32(1 / 255) * lit + shine
    return colour


def develop(colour: Floats) -> Floats:
    """From linear light to display values 0..255: highlights roll off as in a camera, then gamma 2."""
    developed: Floats = np.sqrt(1 - np.exp(-colour)) * np.float32(255)
    return developed
