"""One recording, frame by frame, in memory: pixels and the truth about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from endocorpus.phantom.camera import Path, cast, coverage, make_rays
from endocorpus.phantom.draws import Floats, generator
from endocorpus.phantom.effects import add_noise, look_at_room, make_room, meter, soften
from endocorpus.phantom.lumen import Lumen, lesion_site, make_lumen
from endocorpus.phantom.mucosa import Mucosa, make_mucosa
from endocorpus.phantom.overlay import burn_in
from endocorpus.phantom.shade import develop, light_up, look_up, mip_levels
from endocorpus.phantom.traits import Light, Polyp, Traits

STEPS = 256
PLACES = 4
"""Places that are kept in memory, 40 MB each: a source's recordings and its still pictures take turns over them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Bounds of the visible part of one polyp on one frame: half-open pixels, and how many pixels show it."""

    polyp: int
    xmin: int
    ymin: int
    xmax: int
    ymax: int
    area: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTruth:
    """The truth about one frame. ``labels``, shape (height, width): 0, or the index of the polyp seen there plus one.

    Overlays and the frame counter are painted over the tissue and do not cut the labels.
    """

    frame: int
    outside: bool
    labels: npt.NDArray[np.uint8]
    boxes: tuple[Box, ...]


@lru_cache(maxsize=PLACES)
def _lumen(seed: int, lumen: int, polyps: tuple[Polyp, ...]) -> Lumen:
    return make_lumen(seed, lumen, polyps)


@lru_cache(maxsize=PLACES)
def _mucosa(seed: int, lumen: int, light: Light, polyps: tuple[Polyp, ...]) -> Mucosa:
    return make_mucosa(seed, lumen, light, _lumen(seed, lumen, polyps), polyps)


class Scene:
    """Everything that is computed once per recording. ``render`` is then a pure function of the frame number."""

    def __init__(self, traits: Traits, seed: int) -> None:
        self._traits, self._seed = traits, seed
        self._lumen = _lumen(seed, traits.lumen, traits.polyps)
        self._mucosa = _mucosa(seed, traits.lumen, traits.light, traits.polyps)
        self._rays = make_rays(traits.field, traits.width, traits.height)
        self._coverage = coverage(traits.field, traits.width, traits.height)[..., None]
        self._path = Path(seed, traits.recording, lesion_site(seed, traits.lumen)[0])
        self._levels = mip_levels(STEPS)
        self._exposure = meter(self._lumen, self._path, traits, self._rays)
        self._room = make_room(seed, traits.recording, traits.width, traits.height) if traits.outside else None

    def render(self, index: int) -> tuple[npt.NDArray[np.uint8], FrameTruth]:
        """Frame ``index``: RGB of shape (height, width, 3), and its truth."""
        traits, shown = self._traits, self._traits.shown(index)
        labels = np.zeros((traits.height, traits.width), np.uint8)
        if traits.is_black(index):
            black = np.zeros((traits.height, traits.width, 3), np.uint8)
            return black, FrameTruth(frame=index, outside=True, labels=labels, boxes=())
        picture = self._look(shown, Fraction(0), labels)
        if traits.interlaced:
            later = np.zeros_like(labels)
            picture[1::2] = self._look(shown, Fraction(1, 2), later)[1::2]
            labels[1::2] = later[1::2]
        add_noise(picture, generator(self._seed, "noise", traits.recording, shown))
        picture *= self._coverage
        frame = np.clip(picture, 0, 255).astype(np.uint8)
        burn_in(frame, index, traits)
        boxes = find_boxes(labels, len(traits.polyps))
        return frame, FrameTruth(frame=index, outside=traits.is_outside(shown), labels=labels, boxes=boxes)

    def _look(self, frame: int, part: Fraction, labels: npt.NDArray[np.uint8]) -> Floats:
        """What the camera sees ``part`` of a frame after ``frame``, in display values; fills ``labels``."""
        seconds = float(self._traits.seconds(frame + part))
        if self._room is not None and self._traits.is_outside(frame):
            return look_at_room(self._room, self._path, seconds)
        return self._tissue(frame, seconds, labels)

    def _tissue(self, index: int, seconds: float, labels: npt.NDArray[np.uint8]) -> Floats:
        """The wall seen after ``seconds`` in display values, exposed as frame ``index`` is; fills ``labels``."""
        pose, pixels = self._path.at(seconds), self._rays.pixels
        hits = cast(self._lumen.wall, pose, self._rays, STEPS)
        paint, slopes = look_up(self._mucosa, hits, self._levels)
        labels.ravel()[pixels] = paint[:, 3]
        colour = light_up(paint, slopes, hits, self._rays, float(self._exposure[index]))
        picture = np.zeros((labels.size, 3), np.float32)
        picture[pixels] = develop(colour)
        return soften(picture.reshape(*labels.shape, 3), 0.17)


def find_boxes(labels: npt.NDArray[np.uint8], polyps: int) -> tuple[Box, ...]:
    """Bounds of each polyp that is seen in a label map, in order of the polyps."""
    boxes = []
    for polyp in range(polyps):
        seen = labels == polyp + 1
        area = int(np.count_nonzero(seen))
        if area:
            rows, cols = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            boxes.append(Box(polyp=polyp, xmin=int(cols[0]), ymin=int(rows[0]), xmax=int(cols[-1]) + 1,
                             ymax=int(rows[-1]) + 1, area=area))  # fmt: skip
    return tuple(boxes)


def frames(traits: Traits, seed: int) -> Iterator[tuple[npt.NDArray[np.uint8], FrameTruth]]:
    """Every frame of a recording in order: RGB uint8 of shape (height, width, 3), and its truth."""
    scene = Scene(traits, seed)
    for index in range(traits.frames):
        yield scene.render(index)
