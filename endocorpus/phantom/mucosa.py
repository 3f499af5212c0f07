"""The look of the wall: vessels, mottling, pits, bubbles and mucus, as colour and slope textures with mip levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from endocorpus.phantom.draws import Floats, generator, smooth_field
from endocorpus.phantom.lumen import COLS, DENSITY, ROWS, Lumen
from endocorpus.phantom.traits import Lesion, Light, Polyp

LEVELS = 3

# Reflectance of each component under each light (linear, red green blue).
TONES: dict[Light, dict[str, tuple[float, float, float]]] = {
    "WL": {
        "pale": (0.84, 0.37, 0.22), "red": (0.70, 0.20, 0.115), "vessel": (0.42, 0.055, 0.05),
        "mucus": (0.80, 0.52, 0.17), "adenoma": (0.66, 0.13, 0.10), "hyperplastic": (0.86, 0.46, 0.34),
        "serrated": (0.78, 0.34, 0.21), "pit": (0.40, 0.06, 0.05),
    },
    "NBI": {
        "pale": (0.33, 0.46, 0.38), "red": (0.33, 0.36, 0.26), "vessel": (0.13, 0.11, 0.075),
        "mucus": (0.48, 0.30, 0.22), "adenoma": (0.34, 0.25, 0.17), "hyperplastic": (0.46, 0.50, 0.42),
        "serrated": (0.42, 0.42, 0.33), "pit": (0.14, 0.11, 0.09),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mucosa:
    """Textures of one lumen under one light, all mip levels laid end to end (flat).

    ``paint`` packs red, green, blue and the polyp label into four bytes of a ``uint32``. ``slopes`` packs four
    ``float32`` into a ``complex128``: slope along the tube and around it, as shaded and as seen by the wet film.
    ``base``, ``stride`` and ``level`` address a level: row and column are shifted right by ``level``.
    """

    paint: npt.NDArray[np.uint32]
    slopes: npt.NDArray[np.complex128]
    base: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skin:
    """What the mucosa of one lumen consists of, whatever the light; every array has shape (ROWS, COLS).

    ``redness``, ``fine`` and ``coarse`` vessels, ``mucus`` and ``rims`` of bubbles run from 0 to 1; ``grain`` has
    unit deviation; ``film`` is the height of the wet film and of bubbles, in samples.
    """

    redness: Floats
    fine: Floats
    coarse: Floats
    mucus: Floats
    rims: Floats
    grain: Floats
    film: Floats


@lru_cache(maxsize=1)  # the recordings of a lumen are rendered one after the other
def make_skin(seed: int, lumen: int) -> Skin:
    """Draw the mucosa of one lumen."""
    rng, size = generator(seed, "mucosa", lumen), (ROWS, COLS)
    mottle = 0.45 + 0.22 * smooth_field(rng, size, 60, 220) + 0.13 * smooth_field(rng, size, 10, 50)
    fine, coarse = draw_vessels(rng)
    mucus, (domes, rims) = _wet_spots(rng)
    film = 0.0007 * smooth_field(rng, size, 9, 30) + 0.00045 * smooth_field(rng, size, 4, 9)
    return Skin(
        redness=np.clip(mottle, 0, 1), fine=fine, coarse=coarse, mucus=mucus, rims=rims,
        grain=smooth_field(rng, size, 2.0, 5), film=film * np.float32(DENSITY) - domes,
    )  # fmt: skip


def make_mucosa(seed: int, lumen: int, light: Light, shape: Lumen, polyps: tuple[Polyp, ...]) -> Mucosa:
    """Paint one lumen. Mucosa outside the polyps does not depend on ``polyps``, and all but colour is the same
    under both lights."""
    skin = make_skin(seed, lumen)
    # No two colons look the same, less so in the narrow bands that blood absorbs in everyone.
    person = generator(seed, "person", lumen).uniform((0.94, 0.84, 0.82), (1.06, 1.10, 1.14))
    tint = (person if light == "WL" else person**0.3).astype(np.float32)
    tones = {name: np.array(tone, np.float32) * tint for name, tone in TONES[light].items()}
    paint = _mix(np.broadcast_to(tones["pale"], (ROWS, COLS, 3)), tones["red"], skin.redness)
    deep = 1.0 if light == "NBI" else 0.9  # haemoglobin is darkest in the narrow bands
    paint = _mix(paint, tones["vessel"], np.clip(deep * (0.85 * skin.coarse + 0.6 * skin.fine), 0, 0.9))
    for index, polyp in enumerate(polyps):
        _paint_polyp(generator(seed, "skin", lumen, index), paint, polyp, shape, index, tones)
    paint = _mix(paint, tones["mucus"], 0.55 * skin.mucus)
    shade = 1 + 0.035 * skin.grain - np.clip(2.6 * shape.hollow, -0.25, 0.45)
    paint *= (shade * (1 - 0.35 * np.clip(skin.rims, 0, 1)))[..., None]
    packed = np.empty((ROWS, COLS, 4), np.uint8)
    packed[..., :3] = np.clip(paint * 255, 0, 255)
    packed[..., 3] = shape.label
    calm = np.where(shape.label > 0, np.float32(0.45), np.float32(1))  # a lesion glistens less than the film around it
    return _pack(packed, _slopes(shape, skin.film * calm))


def _mix(under: Floats, over: Floats, weight: Floats) -> Floats:
    """Blend colours; shape (ROWS, COLS, 3)."""
    mixed: Floats = under + (over - under) * weight[..., None].astype(np.float32)
    return mixed


def draw_vessels(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Branching vessel trees drawn on the unrolled wall: a fine net and the larger trunks, each 0 to 1."""
    layers = []
    for trees, width, blur in ((230, 2.4, 0.7), (40, 4.2, 1.0)):
        image = Image.new("L", (COLS * 2, ROWS))
        draw = ImageDraw.Draw(image)
        for _ in range(trees):
            start = (float(rng.uniform(0.5, 1.5) * COLS), float(rng.uniform(0, ROWS)))
            _branch(rng, draw, start, float(rng.uniform(0, 2 * np.pi)), width, 0)
        unrolled = np.asarray(image, np.float32) / 255
        # Drawn on a sheet of twice the girth and folded over, so that trees cross the seam.
        wrapped = np.maximum(unrolled[:, :COLS], unrolled[:, COLS:])
        layers.append(ndimage.gaussian_filter(wrapped, blur, mode=("nearest", "wrap")))
    return layers[0], layers[1]


def _branch(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, place: tuple[float, float], heading: float, width: float,
    order: int,
) -> None:  # fmt: skip
    """Draw one vessel and its branches, thinning as it goes."""
    (x, y), bend = place, 0.0
    for _ in range(int(rng.integers(9, 20))):
        bend = 0.7 * bend + float(rng.normal(0, 0.11))
        heading += bend
        ahead = (x + 9 * np.cos(heading), y + 9 * np.sin(heading))
        draw.line([x, y, *ahead], fill=int(255 * min(1.0, 0.45 + 0.14 * width)), width=max(1, round(width)))
        (x, y), width = ahead, width * 0.965
        if order < 4 and width > 0.8 and rng.random() < 0.22:
            side = float(rng.choice((-1, 1)) * rng.uniform(0.5, 1.0))
            _branch(rng, draw, (x, y), heading + side, width * 0.66, order + 1)


def _wet_spots(rng: np.random.Generator) -> tuple[Floats, tuple[Floats, Floats]]:
    """Mucus patches (0 to 1), and bubbles as height (samples) and rim darkness (0 to 1)."""
    mucus = np.clip(smooth_field(rng, (ROWS, COLS), 22, 110) - 1.55, 0, 1).astype(np.float32)
    height, rim = np.zeros((ROWS, COLS), np.float32), np.zeros((ROWS, COLS), np.float32)
    for _ in range(46):
        middle = (rng.uniform(0, ROWS), rng.uniform(0, COLS))
        for _ in range(int(rng.integers(1, 9))):
            radius = float(np.exp(rng.uniform(np.log(1.6), np.log(7.5))))
            row, col = middle[0] + rng.normal(0, 11), middle[1] + rng.normal(0, 11)
            span = int(radius) + 2
            reach = np.arange(-span, span + 1)
            rows, cols = int(row) + reach, int(col) + reach
            away = np.hypot((rows - row)[:, None], (cols - col)[None, :]) / radius
            grid = np.ix_(rows % ROWS, cols % COLS)
            dome = radius * 0.8 * np.sqrt(np.clip(1 - away * away, 0, 1))
            height[grid] = np.maximum(height[grid], dome.astype(np.float32))
            edge = np.exp(-(((away - 0.9) * radius / 0.9) ** 2))
            rim[grid] = np.maximum(rim[grid], edge.astype(np.float32))
    return mucus, (height, rim)


def _paint_polyp(
    rng: np.random.Generator, paint: Floats, polyp: Polyp, shape: Lumen, index: int, tones: dict[str, Floats]
) -> None:
    """Colour one polyp in place: its own tone and surface pattern, fading into the mucosa at its edge."""
    rows, cols = np.nonzero(shape.label == index + 1)
    if not len(rows):
        return
    cap = shape.cap[rows, cols]
    own = np.clip(cap * 4, 0, 1)[:, None]
    scale: dict[Lesion, tuple[float, float]] = {"adenoma": (4, 9), "hyperplastic": (3, 5), "serrated": (6, 18)}
    pattern = smooth_field(rng, (512, COLS), *scale[polyp.lesion])[rows % 512, cols]
    # Adenomas have tube-like ridges, hyperplastic lesions fine dots, serrated ones a cloudy cap of mucus.
    groove = np.clip(1 - np.abs(pattern) * 1.6, 0, 1) if polyp.lesion == "adenoma" else np.clip(pattern - 0.6, 0, 1)
    skin = tones[polyp.lesion] * (1 + 0.08 * smooth_field(rng, (512, COLS), 16, 60)[rows % 512, cols])[:, None]
    over = tones["mucus"] if polyp.lesion == "serrated" else tones["pit"]
    weight = {"adenoma": 0.30, "hyperplastic": 0.25, "serrated": 0.45}[polyp.lesion]
    skin = skin + (over - skin) * (weight * groove)[:, None]
    paint[rows, cols] += (skin - paint[rows, cols]) * own * np.float32(0.92)


def _slopes(shape: Lumen, film: Floats) -> npt.NDArray[np.float32]:
    """Slopes of the wall as shaded and of the wet film on it; shape (ROWS, COLS, 4)."""
    per_radius = np.float32(DENSITY)
    along, around = (np.asarray(slope, np.float32) for slope in np.gradient(shape.wall))
    # The seam: numpy's one-sided difference at the edges would show as a line.
    around[:, 0] = (shape.wall[:, 1] - shape.wall[:, -1]) / 2
    around[:, -1] = (shape.wall[:, 0] - shape.wall[:, -2]) / 2
    wet_along, wet_around = np.gradient(film)
    out: Floats = np.empty((ROWS, COLS, 4), np.float32)
    out[..., 0], out[..., 1] = along * per_radius, around * per_radius / shape.wall
    out[..., 2], out[..., 3] = out[..., 0] + wet_along, out[..., 1] + wet_around
    return out


def _pack(paint: npt.NDArray[np.uint8], slopes: Floats) -> Mucosa:
    """Lay the mip levels end to end. Colours and slopes are averaged; the polyp label is picked, never averaged."""
    paints, packed, base, total = [], [], [], 0
    for _ in range(LEVELS):
        base.append(total)
        total += paint.shape[0] * paint.shape[1]
        paints.append(np.ascontiguousarray(paint).view(np.uint32).ravel())
        packed.append(np.ascontiguousarray(slopes).view(np.complex128).ravel())
        label = paint[::2, ::2, 3]
        paint = _halve(paint.astype(np.float32)).astype(np.uint8)
        paint[..., 3] = label
        slopes = _halve(slopes)
    return Mucosa(paint=np.concatenate(paints), slopes=np.concatenate(packed), base=tuple(base))


def _halve(texture: Floats) -> Floats:
    """Average 2 by 2 samples."""
    return (texture[::2, ::2] + texture[1::2, ::2] + texture[::2, 1::2] + texture[1::2, 1::2]) * np.float32(0.25)
