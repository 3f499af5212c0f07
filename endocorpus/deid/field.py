"""Where the endoscopic image is: the area that moves. What stands still around it, panels and borders, is not shown.

Device tables rot, and a text panel may lie anywhere, but only tissue moves all the time. Pictures are small and grey
here; `row_edges` then finds the outline on whole frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import convex_hull_image

from endocorpus.deid.mask import Doubt, Mask
from endocorpus.records import Span

Small = npt.NDArray[np.uint8]
"""Grey pictures of shape (samples, height, width), about 270 pixels on the shorter side."""

SHORT_SIDE = 270  # pixels of a small picture
CHANGE = 4.0  # grey levels from one sample to the next that noise of a codec does not reach after blurring
OFTEN = 0.08  # part of the steps between samples in which tissue changes; a menu that opens once does not
ALIVE = 0.01  # part of the picture that changes from one sample to the next unless it stands still
LEAST_STEPS = 20  # between samples that differ, to trust what moves
LEAST_SECONDS = 5  # of a layout, for all of the tissue to move
BLOCK = 16  # samples over which the layout is looked at, at least
SAME = 0.9  # overlap over union of the areas of two blocks with one layout
LEAST_AREA = 0.08  # of the picture
ACTIVE = 0.1  # part of an area that changes in a step that moves in it
OTHER = 25.0  # grey levels between the middle pictures of two layouts, where only one of them moves
RIVAL = 0.4  # area of a second field, as a part of the first, from which there are two
CONVEX = 0.92  # part of its hull that a field without dents fills
LIT = 22  # grey level that the border of a picture stays below


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the small pictures of a recording."""
    cell = max(1.0, min(width, height) / SHORT_SIDE)
    return max(1, round(width / cell)), max(1, round(height / cell))


@dataclass(frozen=True, slots=True)
class Layout:
    """Frames `span` show their picture in one place: `area`, a mask of the small pictures, (height, width)."""

    span: Span
    area: Mask
    doubts: tuple[Doubt, ...]


def find_layouts(
    small: Small, at: Sequence[int], num_frames: int, rate: Fraction, block: int = BLOCK
) -> tuple[Layout, ...]:
    """The layouts of a recording in their order; their spans fill [0, num_frames).

    Args:
        small: samples of shape (samples, height, width).
        at: the number of the frame of each sample, rising.
        num_frames: of the recording.
        rate: frames per second.
        block: samples over which the layout is looked at; a shorter recording has one layout.
    """
    seen = small.max(axis=(1, 2)) > LIT  # a provider blacks out frames: they say nothing about where tissue is
    small, at = small[seen], [number for number, is_seen in zip(at, seen, strict=True) if is_seen]
    steps = _steps(small)
    edges = _changes_of_layout(steps, small, block)
    cuts = [0, *(at[edge] for edge in edges), num_frames]
    borders = [0, *edges, len(steps)]
    layouts = []
    for (start, stop), (first, last) in zip(pairwise(cuts), pairwise(borders), strict=True):
        is_long = stop - start >= LEAST_SECONDS * rate
        area, doubts = content_area(steps[first:last], small[first : last + 1], is_long)
        layouts.append(Layout(span=Span(start=start, stop=stop), area=area, doubts=doubts))
    return tuple(layouts)


def _steps(small: Small) -> Mask:
    """Where each sample differs from the one before it; shape (samples - 1, height, width)."""
    steps = np.zeros((max(0, len(small) - 1), *small.shape[1:]), np.bool_)
    for number, (before, after) in enumerate(pairwise(map(_blurred, small))):
        steps[number] = np.abs(after - before) > CHANGE
    return steps


def _blurred(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(ndimage.uniform_filter(picture.astype(np.float32), 3), np.float32)


def _alive(steps: Mask) -> Mask:
    """The steps in which something moves, not a frozen picture or a clock alone."""
    return steps[steps.mean(axis=(1, 2)) > ALIVE] if len(steps) else steps


def _moving(steps: Mask, least: int) -> Mask:
    """Where it changes often, with holes filled and crumbs gone; shape (height, width)."""
    alive = _alive(steps)
    shape = steps.shape[1:]
    if len(alive) < least:
        return np.zeros(shape, np.bool_)
    often = alive.sum(axis=0) >= max(2, OFTEN * len(alive))
    return _tidy(often)


def _tidy(mask: Mask) -> Mask:
    """Small gaps closed, holes filled, thin bridges and crumbs taken away; the picture's edge is no gap."""
    unit = max(1, round(min(mask.shape) / 54))  # 5 at the usual size: 20 pixels of a 1080-line frame
    closed = np.pad(mask, 4 * unit, mode="edge")
    closed = ndimage.binary_closing(closed, _square(unit))
    closed = ndimage.binary_fill_holes(closed)
    opened = ndimage.binary_opening(closed, _square(2 * unit))
    return np.asarray(opened[4 * unit : -4 * unit, 4 * unit : -4 * unit], np.bool_)


def _square(size: int) -> Mask:
    return np.ones((size, size), np.bool_)


def _changes_of_layout(steps: Mask, small: Small, block: int) -> list[int]:
    """Samples with which a new layout begins. Compared are blocks of samples; where two neighbours or the blocks
    around one between them differ, the change lies where it explains the steps best."""
    starts = list(range(0, max(1, len(steps) - block // 2), block))
    areas = [_moving(steps[start : start + block], block // 2) for start in starts]
    known = [(start, area) for start, area in zip(starts, areas, strict=True) if area.mean() >= LEAST_AREA / 2]
    edges: list[int] = []
    steady = known[:1]  # the last two blocks of the layout that is current: a change may lie within the last
    for place in range(1, len(known)):
        new = known[place]
        if not any(_differ(old, new, small, block) for old in steady):
            steady = [steady[-1], new]
        elif place + 1 == len(known) or not _differ(new, known[place + 1], small, block):
            edges.append(_change(steps, steady[0], new, block))
            steady = [new]
        # else it is a block in the midst of the change: the next one tells
    return edges


def _differ(one: tuple[int, Mask], other: tuple[int, Mask], small: Small, block: int) -> bool:
    """Whether two blocks have two layouts. A camera that rests moves less of the same area, so the picture must be
    another one where only one of them moves."""
    if overlap(one[1], other[1]) >= SAME:
        return False
    between = one[1] ^ other[1]
    middles = [np.median(small[start : start + block], axis=0)[between] for start, _ in (one, other)]
    return float(np.abs(middles[0] - middles[1]).mean()) > OTHER


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    union = float((one | other).sum())
    return float((one & other).sum()) / union if union else 1.0


def _change(steps: Mask, before: tuple[int, Mask], after: tuple[int, Mask], block: int) -> int:
    """The first sample of the new layout: steps before it move only in the old area, those behind it in the new."""
    first, last = before[0], min(len(steps), after[0] + block)
    new, old = after[1] & ~before[1], before[1] & ~after[1]
    inside = steps[first:last]
    in_new, in_old = ((inside & part).sum(axis=(1, 2)) > ACTIVE * max(1, int(part.sum())) for part in (new, old))
    too_early = np.concatenate([[0], np.cumsum(in_new)])
    too_late = np.concatenate([np.cumsum(in_old[::-1])[::-1], [0]])
    cost = too_early + too_late
    best = np.flatnonzero(cost == cost.min())  # the camera may rest: new tissue shows the change by its first motion
    return max(1, first + int(best[-1] if new.sum() >= old.sum() else best[0]) + 1)


def content_area(steps: Mask, small: Small, is_long: bool = True) -> tuple[Mask, tuple[Doubt, ...]]:
    """The area of one layout, a mask of the small pictures, and what is in doubt about it.

    Args:
        steps: where each of its samples differs from the one before it, shape (samples - 1, height, width).
        small: its samples.
        is_long: whether it lasts long enough for all of the tissue to move.

    Where too little moves, the area is what is ever lit: good enough only for a source that needs no proof.
    """
    doubts = []
    area, rivals = _largest(_moving(steps, max(3, min(LEAST_STEPS, BLOCK // 2))))
    if not area.any():
        doubts.append(Doubt.NO_MOTION)
    elif len(_alive(steps)) < LEAST_STEPS or not is_long:
        doubts.append(Doubt.FEW_FRAMES)
    if doubts:
        lit, rivals = _largest(_lit(small), area)
        area = lit if lit.sum() > area.sum() else area
    area = _whole(area)
    doubts += [Doubt.TWO_FIELDS] if rivals else []
    doubts += [Doubt.SMALL_FIELD] if area.mean() < LEAST_AREA else []
    return area, tuple(doubts)


def _lit(small: Small) -> Mask:
    """Where any sample is brighter than a border, dark gaps within it filled; shape (height, width)."""
    if not len(small):
        return np.zeros(small.shape[1:], np.bool_)
    return _tidy(_blurred(small.max(axis=0)) > LIT)


def _largest(mask: Mask, around: Mask | None = None) -> tuple[Mask, bool]:
    """The largest connected part, or the one that holds most of `around`; and whether another one is of like size."""
    groups, count = ndimage.label(mask)
    if count == 0:
        return mask, False
    sizes = np.bincount(groups.ravel(), minlength=count + 1)[1:]
    held = (
        sizes
        if around is None or not (around & mask).any()
        else np.bincount(groups[around & mask], minlength=count + 1)[1:]
    )
    ranked = np.sort(sizes)[::-1]
    return np.asarray(groups == held.argmax() + 1), bool(count > 1 and ranked[1] > RIVAL * ranked[0])


def _whole(area: Mask) -> Mask:
    """Fields have no dents: circle, octagon and rectangle are their own hulls. What has some stays as it is."""
    if not area.any():
        return area
    hull = np.asarray(convex_hull_image(area, offset_coordinates=False), np.bool_)  # type: ignore[no-untyped-call]
    return hull if area.sum() >= CONVEX * hull.sum() else area


def row_edges(
    area: Mask, brightest: npt.NDArray[np.uint8] | None, width: int, height: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The interval of columns that each row of a whole frame shows: left edges and right edges, shape (height,).

    Args:
        area: the field as a mask of small pictures.
        brightest: the greatest grey level of each pixel over the layout's frames, shape (height, width); where the
            border is dark, the field ends with the light, else well inside the area that moves.
    """
    low, wide = area.shape
    cell = max(1, round(width / wide))
    left, right = np.zeros(height, np.int64), np.zeros(height, np.int64)
    full = cell == 1 and brightest is None
    for y in range(height):
        columns = np.flatnonzero(area[min(low - 1, y * low // height)])
        if len(columns):
            left[y], right[y] = int(columns[0]) * width // wide, -(-(int(columns[-1]) + 1) * width // wide)
    if full:
        return left, right
    light = brightest > LIT if brightest is not None else None
    for y in np.flatnonzero(right > left).tolist():
        row = None if light is None else light[y]
        left[y] = _edge(row, int(left[y]), cell, width)
        right[y] = width - _edge(None if row is None else row[::-1], int(width - right[y]), cell, width)
    return _inset(left, right, area, cell, height)


def _edge(row: Mask | None, coarse: int, cell: int, width: int) -> int:
    """The column where the field begins, seen from the left; `coarse` is good to about two cells."""
    if coarse <= cell // 2:
        return 0  # the picture's own edge
    inner = min(width, coarse + 2 * cell)
    if row is None:
        return inner
    outer = max(0, coarse - 2 * cell)
    window = row[outer : coarse + 4 * cell]
    dark = np.flatnonzero(~window)
    if len(dark) == 0:
        return inner  # as bright outside as inside
    first_lit = np.flatnonzero(window[dark[0] :])
    if len(first_lit) == 0:
        return inner
    return min(width, outer + int(dark[0] + first_lit[0]) + 1)


def _inset(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], area: Mask, cell: int, height: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows at the field's own upper and lower edge are left out, unless they are those of the picture."""
    rows = np.flatnonzero(right > left)
    if len(rows) == 0:
        return left, right
    top = int(rows[0]) if area[0].any() else int(rows[0]) + cell
    bottom = int(rows[-1]) + 1 if area[-1].any() else int(rows[-1]) + 1 - cell
    kept = (np.arange(height) >= top) & (np.arange(height) < bottom)
    return np.where(kept, left, 0), np.where(kept & (right > left), right, 0)
