"""Where the endoscopic picture lies in each layout, and where there is room for text."""

from __future__ import annotations

from math import hypot

import numpy as np
import numpy.typing as npt

from endocorpus.phantom.camera import coverage
from endocorpus.phantom.draws import Floats
from endocorpus.phantom.identity.traits import LayoutName, Rect
from endocorpus.phantom.traits import Field

Mask = npt.NDArray[np.bool_]
SHRINK = 4
"""How many times smaller the still copy in the layout "inset" is than the screen."""
GAP = 4
"""Pixels that are kept free around every item."""


def area_box(layout: LayoutName, size: tuple[int, int]) -> Rect:
    """The part of the frame that the camera's picture fills, before its corners are cut."""
    width, height = size
    if layout == "pillar":
        side = (width - min(width, round(height * 4 / 3))) // 2
        return side, 0, width - side, height
    return 0, 0, width, height


def field_of(layout: LayoutName, size: tuple[int, int]) -> Field:
    """The field of view, in pixels of the frame; of a layout without cut corners, a circle that holds the frame."""
    width, height = size
    if layout in ("panel", "inset"):
        radius = round(min(0.36 * width, 0.49 * height))
        return Field(shape="octagon", centre=(round(0.98 * width) - radius, height / 2), radius=radius, flat=radius)
    if layout == "circle":
        return Field(shape="circle", centre=(width / 2, height / 2), radius=0.53 * height, flat=0.49 * height)
    x0, y0, x1, y1 = area_box(layout, size)
    half = hypot(x1 - x0, y1 - y0) / 2
    return Field(shape="circle", centre=((x0 + x1) / 2, (y0 + y1) / 2), radius=half, flat=half)


def shows(layout: LayoutName, size: tuple[int, int]) -> Floats:
    """How much of each pixel shows the endoscopic picture, 0 to 1; shape (height, width)."""
    shown = coverage(field_of(layout, size), *size)
    x0, y0, x1, y1 = area_box(layout, size)
    framed = np.zeros_like(shown)
    framed[y0:y1, x0:x1] = shown[y0:y1, x0:x1]
    return framed


def thumbnail_box(layout: LayoutName, size: tuple[int, int]) -> Rect | None:
    """Where the still copy of the screen lies: at the lower left, in the layout "inset" only."""
    if layout != "inset":
        return None
    width, height = size[0] // SHRINK, size[1] // SHRINK
    left, top = size[0] // 40, size[1] - height - size[1] // 24
    return left, top, left + width, top + height


class Room:
    """Which pixels are still free. ``tissue`` says which show the endoscopic picture; shape (height, width)."""

    def __init__(self, tissue: Mask, thumbnail: Rect | None) -> None:
        self._tissue = tissue
        self._taken = np.ones_like(tissue)
        self._taken[GAP:-GAP, GAP:-GAP] = False
        if thumbnail is not None:
            self.take(thumbnail)

    def take(self, box: Rect) -> None:
        """Let nothing else be placed within ``GAP`` of ``box``."""
        self._taken[max(box[1] - GAP, 0) : box[3] + GAP, max(box[0] - GAP, 0) : box[2] + GAP] = True

    def find(self, place: str, size: tuple[int, int], rng: np.random.Generator) -> Rect | None:
        """A free box of ``size`` (width, height) on the border, on tissue or across the edge, any as likely as another.

        None if there is none.
        """
        width, height = size
        rows, cols = self._tissue.shape
        if width > cols or height > rows:
            return None
        free = _sums(self._taken, size) == 0
        lit = _sums(self._tissue, size)
        part = (lit >= 0.3 * width * height) & (lit <= 0.7 * width * height)
        wanted = {"border": lit == 0, "tissue": lit == width * height, "edge": part}[place]
        found = np.flatnonzero(free & wanted)
        if not found.size:
            return None
        y, x = divmod(int(found[int(rng.integers(found.size))]), cols - width + 1)
        return x, y, x + width, y + height


def _sums(mask: Mask, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """How many pixels of ``mask`` lie in the box of ``size`` at each place; shape (rows - h + 1, cols - w + 1)."""
    width, height = size
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    total[1:, 1:] = mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    sums: npt.NDArray[np.int32] = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    return sums
