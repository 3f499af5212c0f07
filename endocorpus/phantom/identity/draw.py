"""Plant the identifiers of a plan into a frame, anyone's, and say exactly which pixels show which."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from endocorpus.phantom.draws import Floats, generator, smooth_field
from endocorpus.phantom.identity.letters import Ink, canvas_size, item_ink
from endocorpus.phantom.identity.place import SHRINK, Mask, shows
from endocorpus.phantom.identity.rooms import view
from endocorpus.phantom.identity.screens import screen
from endocorpus.phantom.identity.traits import COLOURS, GHOST, SCREENS, IdentityPlan, Item, Rect, Scenery

Frame = npt.NDArray[np.uint8]
GLYPH = 0.25
"""A pixel is part of a letter if the letter covers this much of it, however opaque the letter is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """One item as one frame shows it: ``mask``, shape that of ``box``, is True on the pixels of its letters.

    ``item`` is its place in the plan's items. ``copy`` is True for the shrunken copy of it in the thumbnail.
    """

    item: int
    copy: bool
    box: Rect
    mask: Mask

    def on(self, size: tuple[int, int]) -> Mask:
        """The mask in the whole frame of ``size`` (width, height); shape (height, width)."""
        whole = np.zeros((size[1], size[0]), np.bool_)
        whole[self.box[1] : self.box[3], self.box[0] : self.box[2]] = self.mask
        return whole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """What one frame shows: the ``scenery`` in place of tissue, if any, and every item that is on."""

    time_s: float
    scenery: Scenery | None
    seen: tuple[Seen, ...]


def truth_at(plan: IdentityPlan, time_s: float | Fraction) -> Truth:
    """What the frame at ``time_s`` shows. The same for any film: nothing of it depends on the pixels of the frame."""
    segment = plan.segment_at(time_s)
    scenery = None if segment is None else plan.segments[segment].scenery
    if scenery in SCREENS:
        return Truth(time_s=float(time_s), scenery=scenery, seen=())
    seen = []
    for index, item in enumerate(plan.items):
        if item.is_on(time_s):
            ink = item_ink(item, item.shown(time_s))
            box = canvas_box(item, time_s)
            seen.append(Seen(item=index, copy=False, box=box, mask=ink.letters >= GLYPH))
    return Truth(time_s=float(time_s), scenery=scenery, seen=(*seen, *_copies(plan)))


def draw(frame_HWC: Frame, plan: IdentityPlan, time_s: float | Fraction) -> tuple[Frame, Truth]:
    """The frame with everything that the plan plants at ``time_s``, and the truth about it. The input is not changed.

    ``frame_HWC`` is RGB of shape (height, width, 3). Raises ``ValueError`` for a frame of another size.
    """
    if frame_HWC.shape != (plan.size[1], plan.size[0], 3):
        raise ValueError(f"a frame of shape {frame_HWC.shape} for a plan of {plan.size[0]}x{plan.size[1]}")
    truth, segment = truth_at(plan, time_s), plan.segment_at(time_s)
    if segment is not None and truth.scenery in SCREENS:
        return screen(plan, segment, float(time_s)), truth
    frame = frame_HWC.copy()
    if segment is not None:
        shown = shows(plan.layout, plan.size)[..., None]
        frame = _blend(frame, view(plan, segment, float(time_s)).astype(np.float32), shown)
    if plan.thumbnail is not None:
        x0, y0, x1, y1 = plan.thumbnail
        frame[y0:y1, x0:x1] = _thumbnail(plan)
    for item in plan.items:
        if item.is_on(time_s):
            x0, y0, x1, y1 = canvas_box(item, time_s)
            frame[y0:y1, x0:x1] = _write(frame[y0:y1, x0:x1], item, item_ink(item, item.shown(time_s)))
    return frame, truth


def contrast(frame_HWC: Frame, seen: Seen) -> float:
    """How far the letters stand out from the pixels around them, 0 to 255: in the colour where they do most.

    It can be asked of the drawn frame or of what a decoder gives back. An item of less than about 12 may be out of
    anyone's reach (docs/planted-identifiers.md); who leaves such items out of a count should say so.
    """
    x0, y0, x1, y1 = seen.box
    box = frame_HWC[y0:y1, x0:x1].astype(np.float32)
    near = ~seen.mask
    if not seen.mask.any() or not near.any():
        return 0.0
    return float(np.abs(box[seen.mask].mean(0) - box[near].mean(0)).max())


def canvas_box(item: Item, time_s: float | Fraction) -> Rect:
    """Where in its box the item is drawn at ``time_s``."""
    width, height = canvas_size(item)
    x0, y0, x1, y1 = item.box
    across, down = x1 - x0 - width, y1 - y0 - height
    if item.timing == "scrolling" and max(across, down):
        moved = int(np.floor(float(time_s) * item.speed)) % (max(across, down) + 1)
        x0, y0 = (x0 + moved, y0) if across else (x0, y0 + moved)
    return x0, y0, x0 + width, y0 + height


def _write(box: Frame, item: Item, ink: Ink) -> Frame:
    """The pixels of ``box`` with the item written over them."""
    backing = np.array(item.backing, np.float32)
    if item.style == "box":
        box = _blend(box, backing, np.float32(item.opacity))
    elif item.style == "outline":
        box = _blend(box, backing, ink.with_outline[..., None])
    opaque = np.float32(GHOST if item.style == "ghost" else 1)
    return _blend(box, np.array(COLOURS[item.colour], np.float32), ink.letters[..., None] * opaque)


def _blend(under: Frame, over: Floats, opacity: Floats | np.float32) -> Frame:
    mixed: Frame = (under + (over - under.astype(np.float32)) * opacity + np.float32(0.5)).astype(np.uint8)
    return mixed


def _copied(plan: IdentityPlan) -> list[tuple[int, Item]]:
    """The items that the thumbnail shows: those that are on at second 0."""
    return [(index, item) for index, item in enumerate(plan.items) if item.is_on(0)]


@lru_cache(maxsize=8)
def _copies(plan: IdentityPlan) -> tuple[Seen, ...]:
    """The items in the thumbnail: each pixel there is the mean of ``SHRINK`` by ``SHRINK`` of the screen."""
    if plan.thumbnail is None:
        return ()
    x0, y0, x1, y1 = plan.thumbnail
    found = []
    for index, item in _copied(plan):
        covered = np.zeros((plan.size[1], plan.size[0]), np.float32)
        left, top, right, bottom = canvas_box(item, 0)
        covered[top:bottom, left:right] = item_ink(item, item.shown(0)).letters
        mask = _shrink(covered[..., None], (x1 - x0, y1 - y0))[..., 0] >= GLYPH
        if mask.any():
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (x0 + int(cols[0]), y0 + int(rows[0]), x0 + int(cols[-1]) + 1, y0 + int(rows[-1]) + 1)
            tight = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
            found.append(Seen(item=index, copy=True, box=box, mask=tight))
    return tuple(found)


@lru_cache(maxsize=8)
def _thumbnail(plan: IdentityPlan) -> Frame:
    """The still copy of the screen at second 0, over tissue of its own: that of the film is not known here."""
    assert plan.thumbnail is not None
    x0, y0, x1, y1 = plan.thumbnail
    width, height = plan.size
    rough = smooth_field(generator(plan.seed, "identity", "thumbnail"), (height, width), height / 4, height)
    tissue = np.array((176, 92, 74), np.float32) + rough[..., None] * np.array((26, 22, 18), np.float32)
    still = np.clip(tissue * shows(plan.layout, plan.size)[..., None], 0, 255).astype(np.uint8)
    for _, item in _copied(plan):
        left, top, right, bottom = canvas_box(item, 0)
        box = still[top:bottom, left:right]
        box[...] = _write(box, item, item_ink(item, item.shown(0)))
    return _shrink(still.astype(np.float32), (x1 - x0, y1 - y0)).astype(np.uint8)


def _shrink(picture: Floats, size: tuple[int, int]) -> Floats:
    """Means of ``SHRINK`` by ``SHRINK`` pixels; shape (height, width, channels) of ``size`` (width, height)."""
    width, height = size
    blocks = picture[: height * SHRINK, : width * SHRINK].reshape(height, SHRINK, width, SHRINK, -1)
    means: Floats = blocks.mean((1, 3), dtype=np.float32)
    return means
