"""The lumen: a tube whose wall is a height field ``radius(depth, angle)``, with folds, haustra and polyps.

The tube is star-shaped around a straight axis on which the camera roams; bends are part of the wall. That is what
lets a frame be cast exactly and cheaply (see ``camera.py``). Lengths are in mean lumen radii.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from endocorpus.phantom.draws import Floats, generator, smooth_field
from endocorpus.phantom.traits import Polyp

ROWS, COLS = 1600, 768
DENSITY = COLS / (2 * np.pi)
"""Samples per lumen radius, the same along the tube as around it (at radius 1)."""
ROAM = 3.6
"""How far along the tube the camera may go; the rest of the tube is only ever seen from afar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lumen:
    """Geometry of one lumen. Every array has shape (ROWS, COLS): depth along the tube, angle around it.

    ``bare`` and ``wall`` are the distance from the axis without and with polyps; ``hollow`` is positive in
    recesses and negative on ridges; ``cap`` is 0 at the edge of a polyp and 1 at its top; ``label`` is 0 for
    mucosa and the index of the polyp plus one elsewhere.
    """

    bare: Floats
    wall: Floats
    hollow: Floats
    cap: Floats
    label: npt.NDArray[np.uint8]


def make_lumen(seed: int, lumen: int, polyps: tuple[Polyp, ...]) -> Lumen:
    """Build the wall of one lumen. Mucosa outside the polyps does not depend on ``polyps``."""
    depth = (np.arange(ROWS, dtype=np.float32) / np.float32(DENSITY))[:, None]
    angle = (np.arange(COLS, dtype=np.float32) * np.float32(2 * np.pi / COLS))[None, :]
    rng = generator(seed, "lumen", lumen)
    bare = _tube(rng, depth, angle)
    _fold(rng, bare, depth, angle, lesion_site(seed, lumen))
    bare += 0.006 * smooth_field(rng, bare.shape, 34, 110) + 0.0008 * smooth_field(rng, bare.shape, 9, 26)
    np.clip(bare, 0.25, None, out=bare)
    wall, cap = bare.copy(), np.zeros_like(bare)
    label = np.zeros(bare.shape, np.uint8)
    for index, polyp in enumerate(polyps):
        _raise_polyp(generator(seed, "polyp", lumen, index), polyp, index, bare, wall, cap, label)
    # Two measures, so that a polyp leaves the shade of the mucosa around it alone.
    hollow = np.where(label > 0, _hollow(wall), _hollow(bare))
    return Lumen(bare=bare, wall=wall, hollow=hollow, cap=cap, label=label)


def _hollow(wall: Floats) -> Floats:
    """How far each place lies behind its surroundings; shape (ROWS, COLS)."""
    around: Floats = ndimage.uniform_filter(wall, size=61, mode=("nearest", "wrap"))
    return wall - around


def lesion_site(seed: int, lumen: int) -> tuple[float, float]:
    """Angle and depth of the place in a lumen that the camera sees best: where its first lesion grows."""
    rng = generator(seed, "site", lumen)
    return float(rng.uniform(0, 2 * np.pi)), float(ROAM * rng.uniform(0.78, 1.0))


def _tube(rng: np.random.Generator, depth: Floats, angle: Floats) -> Floats:
    """A bent tube with a softly triangular section; shape (ROWS, COLS)."""
    waves, phases = rng.uniform(0.35, 0.75, 4), rng.uniform(0, 2 * np.pi, 4)
    sway = [0.20 * np.sin(waves[i] * depth + phases[i]) for i in range(2)]
    # The far end drifts aside, so that the lumen turns a corner instead of running straight into the dark.
    turn, far = rng.uniform(0, 2 * np.pi), 0.62 / (1 + np.exp(-(depth - rng.uniform(5.5, 7.5)) * 1.1))
    centre_x, centre_y = sway[0] + far * np.cos(turn), sway[1] + far * np.sin(turn)
    along = centre_x * np.cos(angle) + centre_y * np.sin(angle)
    across = centre_y * np.cos(angle) - centre_x * np.sin(angle)
    section = 1 + 0.09 * np.cos(3 * angle + phases[2] + 0.25 * np.sin(depth)) + 0.05 * np.sin(waves[3] * 2 * depth)
    tube: Floats = (along + np.sqrt(np.maximum(section * section - across * across, 0.05))).astype(np.float32)
    tube += np.float32(0.045) * smooth_field(rng, tube.shape, 90, 300)
    return tube


def _fold(rng: np.random.Generator, wall: Floats, depth: Floats, angle: Floats, clear: tuple[float, float]) -> None:
    """Cut crescent-shaped haustral folds into ``wall``, in place; between them the wall bulges outwards.

    Folds are low in front of ``clear`` (angle, depth), so that a lesion there is not hidden behind them.
    """
    place = 0.15
    aside = np.angle(np.exp(1j * (angle - clear[0])))
    window = np.exp(-((aside / 0.75) ** 2)).astype(np.float32)
    while place < ROWS / DENSITY:
        lean, lean_to = rng.uniform(0.05, 0.28), rng.uniform(0, 2 * np.pi)
        first = rng.uniform(0, 2 * np.pi)
        for arc in range(int(rng.integers(2, 4))):
            middle = first + arc * 2.2 + rng.uniform(-0.4, 0.4)
            half, tall, thin = rng.uniform(0.9, 1.9), rng.uniform(0.2, 0.5), rng.uniform(0.07, 0.13)
            shift = rng.uniform(-0.16, 0.16)
            wiggle, turns = rng.uniform(0, 0.03), rng.integers(2, 6)
            ridge = place + shift + lean * np.cos(angle - lean_to) + wiggle * np.sin(turns * angle)
            rows = slice(max(0, int((place - 1.5) * DENSITY)), int((place + 1.5) * DENSITY))
            away = np.abs(np.angle(np.exp(1j * (angle - middle)))) / half
            crest = np.cos(np.minimum(away, 1) * np.pi / 2).astype(np.float32)
            if clear[1] - 2.4 < place < clear[1] + 0.4:
                crest = crest * (1 - np.float32(0.85) * window)
            near = (depth[rows] - ridge.astype(np.float32)) / np.float32(thin)
            sharp = np.exp(-np.sqrt(1 + near * near) + 1)  # a rounded ridge with straight flanks
            broad = np.exp(-near * near / 14)
            wall[rows] -= np.float32(tall) * crest * (0.72 * sharp + 0.28 * broad)
        place += rng.uniform(0.6, 1.15)


def _raise_polyp(
    rng: np.random.Generator, polyp: Polyp, index: int, bare: Floats, wall: Floats, cap: Floats,
    label: npt.NDArray[np.uint8],
) -> None:  # fmt: skip
    """Raise one polyp out of ``wall``, in place. Its edge is lobed, so its outline is never a plain ellipse."""
    row, col = polyp.depth * DENSITY, polyp.angle / (2 * np.pi) * COLS
    span = int(polyp.radius * DENSITY * 1.5) + 3
    rows = np.arange(max(0, int(row) - span), min(ROWS, int(row) + span))
    across = float(bare[rows[len(rows) // 2], int(col) % COLS])  # a sample is wider where the wall is farther out
    wide = min(int(span / across), COLS // 2)
    cols = np.arange(int(col) - wide, int(col) + wide)
    along = ((rows - row) / DENSITY)[:, None]
    around = ((cols - col) / DENSITY * across)[None, :]
    bearing = np.arctan2(around, along)
    lobes = 1 + sum(
        amplitude * np.cos(order * bearing + rng.uniform(0, 2 * np.pi))
        for order, amplitude in ((2, 0.10), (3, 0.06), (5, 0.035))
    )
    away, edge = np.hypot(along, around), polyp.radius * lobes
    inside = np.clip(1 - (away / edge) ** 2, 0, 1).astype(np.float32)
    grid = np.ix_(rows, cols % COLS)
    bumps = smooth_field(rng, (256, COLS), 8, 40)[: len(rows), : len(cols)]
    # Nearly vertical flanks and a rounded top: a bump that hides the wall behind it, as a sessile polyp does.
    # On a fold, where the lumen is narrow already, it stays lower: a bump that reaches the axis tapers to a point.
    room = np.minimum(bare[grid], 1) ** 2
    rise = np.float32(polyp.height) * room * inside**0.6 * (1 + 0.04 * bumps)
    wall[grid] = np.maximum(wall[grid] - rise, 0.15)
    cap[grid] = np.maximum(cap[grid], inside)
    # The foot belongs to the lesion: a ray that meets the flank is interpolated down to just before it.
    taken = away < edge + 1.5 / DENSITY
    label[grid] = np.where(taken, index + 1, label[grid]).astype(np.uint8)
