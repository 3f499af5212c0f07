"""Burnt-in text on the endoscopic image: when to look for it, and what to hide of what was found.

A box that was seen once is hidden in the whole layout: text comes back, and a detector misses it now and then. Times
are drawn within equal strata, because a fixed grid falls into step with text that blinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt
import xxhash
from scipy import ndimage

from endocorpus.deid.field import Layout
from endocorpus.deid.mask import Doubt, Frame, Mask
from endocorpus.deid.text import SAME, Found, TextBox, find_text, look_closely, overlap
from endocorpus.records import Box

PAD = 0.15  # of a line's height, on each of its sides
TWICE = 0.3  # overlap over union from which two boxes are of one line
RECURS = 3  # sightings of a line at one place that make up for not being sure
LEAST_EDGE, COHERENT = 6.0, 0.3  # grey levels per pixel of the mean gradient; its part of the mean of its size
LEAST_LOOKS, LEAST_SECONDS = 60, 120  # of moving tissue, until what stands still on it can be told from it
FREE_COST = 0.03  # of the field, that a second opinion may hide without a witness
FASTEST = 4  # heights of its box that a line moves in a second
_PATCH = 12  # pixels of the smallest thing that stands still


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often frames are looked at, per second; more often near both ends, where screens with names are shown."""

    per_second: Fraction = Fraction(1)
    at_ends: Fraction = Fraction(2)
    ends: int = 60  # seconds at each end
    least: int = 12  # frames of the shortest recording
    close_looks: int = 6  # frames of each layout that are looked at in quarters, twice as large


NORMAL = Pace()
LIGHT = Pace(per_second=Fraction(1, 2), at_ends=Fraction(1), close_looks=1)
"""For a machine that cannot keep up: half the looks."""
PACES = {"normal": NORMAL, "light": LIGHT}


def sample_frames(num_frames: int, rate: Fraction, seed: int, key: str, pace: Pace) -> tuple[int, ...]:
    """Numbers of the frames to look at, rising: one from each stratum of time, its place drawn from (seed, key,
    stratum).

    Args:
        rate: frames per second.
        key: what tells this recording from others, such as the digest of its files.
    """
    edges = _strata(num_frames, rate, pace)
    chosen = set()
    for start, stop in pairwise(edges):
        draw = xxhash.xxh3_64_intdigest(f"overlay/{seed}/{key}/{start}".encode()) % max(1, stop - start)
        chosen.add(start + draw)
    return tuple(sorted(chosen))


def _strata(num_frames: int, rate: Fraction, pace: Pace) -> list[int]:
    """Borders of strata from 0 to `num_frames`, in frames."""
    fewest = Fraction(num_frames, min(num_frames, pace.least))
    edges, ends = [0], pace.ends * rate
    while edges[-1] < num_frames:
        at = edges[-1]
        often = pace.at_ends if at < ends or at >= num_frames - ends else pace.per_second
        edges.append(min(num_frames, at + max(1, int(min(rate / often, fewest)))))
    return edges


@dataclass(frozen=True, slots=True)
class Look:
    """What was found on frame `number`, in pixels of the whole picture."""

    number: int
    found: Found


@dataclass
class Watch:
    """Looks at the frames of one layout and keeps what is needed to decide, not the frames."""

    layout: Layout
    window: Box  # part of the picture that is looked at
    rate: Fraction
    looks: list[Look] = field(default_factory=list)
    known: list[TextBox] = field(default_factory=list)  # one box of each line that was read
    still: list[Still] = field(default_factory=list)
    brightest: npt.NDArray[np.uint8] | None = None  # of the window
    _before: npt.NDArray[np.int16] | None = None

    def look(self, number: int, frame: Frame, *, closely: bool, threads: int) -> None:
        """Look at frame `number`, RGB of shape (height, width, 3) of the whole picture."""
        left, top, right, bottom = self.window
        part = np.ascontiguousarray(frame[top:bottom, left:right])
        known = [box.moved(-left, -top) for box in self.known]
        found = find_text(part, threads, known=known)
        if closely:
            found |= look_closely(part, threads, (*known, *found.read))
        found = found.moved(left, top)
        self.looks.append(Look(number, found))
        self.known += [box for box in found.read if all(overlap(box, old) < SAME for old in self.known)]
        grey = (part @ np.array([77, 150, 29], np.uint16) >> 8).astype(np.int16)
        bright = grey.astype(np.uint8)
        self.brightest = bright if self.brightest is None else np.maximum(self.brightest, bright)
        if self._before is None or np.abs(grey[::8, ::8] - self._before[::8, ::8]).mean() >= 1:
            self._half(number).add(number, grey)
            self._before = grey

    def _half(self, number: int) -> Still:
        if not self.still:
            height, width = self.window[3] - self.window[1], self.window[2] - self.window[0]
            self.still = [Still(height, width), Still(height, width)]
        span = self.layout.span
        return self.still[number >= (span.start + span.stop) // 2]


class Still:
    """Sums of gradients over frames in which the tissue moves: those of an overlay add up, those of tissue cancel."""

    def __init__(self, height: int, width: int) -> None:
        self.numbers: list[int] = []
        self._across, self._down = np.zeros((height, width), np.int32), np.zeros((height, width), np.int32)
        self._size = np.zeros((height, width), np.int32)

    def add(self, number: int, grey: npt.NDArray[np.int16]) -> None:
        """Add a picture of shape (height, width), grey levels 0 to 255."""
        across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
        self._across[:, 1:] += across
        self._down[1:] += down
        self._size[:, 1:] += np.abs(across)
        self._size[1:] += np.abs(down)
        self.numbers.append(number)

    def __add__(self, other: Still) -> Still:
        both = Still(*self._size.shape)
        both.numbers = [*self.numbers, *other.numbers]
        for name in ("_across", "_down", "_size"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def mask(self) -> Mask:
        """Where edges stand still; shape (height, width)."""
        count = np.float32(max(1, len(self.numbers)))
        mean = (np.abs(self._across) + np.abs(self._down)) / count
        return np.asarray((mean > LEAST_EDGE) & (mean > COHERENT * self._size / count), np.bool_)


def boxes_to_hide(watch: Watch, inside: Mask) -> tuple[tuple[Box, ...], tuple[Doubt, ...]]:
    """The boxes over text of a layout, in pixels of the whole picture, before they are put on the grid.

    Args:
        inside: the layout's field, shape (height, width) of the whole picture.
    """
    read = [box for look in watch.looks for box in look.found.read]
    unread = recurring([look.found.unread for look in watch.looks], times=2, alike=TWICE)
    faint = [look.found.faint for look in watch.looks]
    sure = [*read, *unread, *recurring(faint, times=RECURS, alike=SAME)]
    boxes = [*map(_padded, sure), *swept(watch.looks, watch.rate)]
    more, doubts = _second_opinion(watch, inside, recurring(faint, times=2, alike=SAME), boxes)
    shown = [box for box in (*boxes, *more) if inside[max(0, box[1]) : box[3], max(0, box[0]) : box[2]].any()]
    return tuple(sorted(set(shown))), doubts


def _padded(box: TextBox) -> Box:
    pad = max(2, ceil(PAD * min(box.height, box.width)))
    return box.left - pad, box.top - pad, box.right + pad, box.bottom + pad


def recurring(sightings: Sequence[Sequence[TextBox]], *, times: int, alike: float) -> list[TextBox]:
    """Of lines that were seen on some frames, those seen at one place on so many: tissue moves on."""
    kept: list[TextBox] = []
    for place, boxes in enumerate(sightings):
        others = [*sightings[:place], *sightings[place + 1 :]]
        for box in boxes:
            again = sum(any(overlap(box, other) >= alike for other in some) for some in others)
            if again >= times - 1:
                kept.append(box)
    return kept


def swept(looks: Sequence[Look], rate: Fraction) -> Iterator[Box]:
    """What lines that move pass over between two looks, and as far again before the first and behind the second."""
    lines = [look.found.read for look in looks]
    roving = [
        [box for box in boxes if not any(_stays(box, lines[at]) for at in _around(place, len(lines)))]
        for place, boxes in enumerate(lines)
    ]
    for place, (before, after) in enumerate(pairwise(looks)):
        reach = FASTEST * (after.number - before.number) / rate
        for box in roving[place]:
            yield from (_path(box, other) for other in roving[place + 1] if _is_moved(box, other, float(reach)))


def _around(place: int, count: int) -> list[int]:
    """The looks next to one, two on each side: a marquee comes by the same place again, but not so soon."""
    return [at for at in range(max(0, place - 2), min(count, place + 3)) if at != place]


def _stays(box: TextBox, others: Sequence[TextBox]) -> bool:
    """Whether one of the lines of another look is at the very place of a box."""
    return any(max(_step(box, other)) <= 4 for other in others)


def _step(box: TextBox, other: TextBox) -> tuple[int, int]:
    """How far the middle of a box moves, across and down, in pixels."""
    across = abs(box.left + box.right - other.left - other.right) // 2
    return across, abs(box.top + box.bottom - other.top - other.bottom) // 2


def _is_moved(box: TextBox, other: TextBox, reach: float) -> bool:
    """Whether a box may be another one that has moved along a row or a column, by `reach` of its heights at most."""
    alike = all(abs(a - b) <= 0.3 * max(a, b) for a, b in ((box.width, other.width), (box.height, other.height)))
    return alike and min(_step(box, other)) <= box.height / 2 and max(_step(box, other)) <= reach * box.height


def _path(box: TextBox, other: TextBox) -> Box:
    across, down = other.left - box.left, other.top - box.top
    ends = [_padded(box), _padded(other)]
    ends += [_padded(box.moved(-across, -down)), _padded(other.moved(across, down))]
    corners = np.array(ends)
    return (*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist())


def _second_opinion(
    watch: Watch, inside: Mask, faint: Sequence[TextBox], known: Sequence[Box]
) -> tuple[list[Box], tuple[Doubt, ...]]:
    """What stands still while the tissue moves and is not hidden yet; and whether some of it may be text.

    With little motion the edges of tissue stand still too, so they only bear witness for a line that the detector is
    not sure of. With much motion patches count by themselves if all of them together hide less than 3 % of the field,
    and those that are there in both halves of the layout if they hide more.
    """
    if not watch.still:
        return [], ()
    left, top, right, bottom = watch.window
    both = watch.still[0] + watch.still[1]
    field_part = ndimage.binary_erosion(inside[top:bottom, left:right], iterations=12)
    marked = both.mask() & field_part
    witnessed = [_padded(box) for box in faint if _is_marked(marked, _padded(box), (left, top))]
    numbers = both.numbers
    if len(numbers) < LEAST_LOOKS or numbers[-1] - numbers[0] < LEAST_SECONDS * watch.rate:
        return witnessed, ()
    patches = _patches(marked, (left, top), [*known, *witnessed])
    if sum((b[2] - b[0]) * (b[3] - b[1]) for b in patches) <= FREE_COST * inside.sum():
        return [*witnessed, *patches], ()
    halves = [half.mask() & field_part for half in watch.still]
    kept = [patch for patch in patches if all(_is_marked(half, patch, (left, top)) for half in halves)]
    unsure = any(_is_like_text(patch) for patch in set(patches) - set(kept))
    return [*witnessed, *kept], (Doubt.UNSURE_TEXT,) if unsure else ()


def _patches(mask: Mask, corner: tuple[int, int], known: Sequence[Box]) -> list[Box]:
    """Boxes around what is marked, letters of a line joined, without what known boxes hide already."""
    groups, count = ndimage.label(mask, structure=np.ones((3, 3), np.int8))
    sizes = np.bincount(groups.ravel(), minlength=count + 1)
    solid = (sizes >= _PATCH)[groups] & mask
    joined = ndimage.binary_closing(np.pad(solid, 24), np.ones((9, 21), np.bool_))[24:-24, 24:-24]
    groups, _ = ndimage.label(joined)
    boxes = []
    for rows, cols in ndimage.find_objects(groups):
        box = (
            cols.start + corner[0] - 6, rows.start + corner[1] - 6, cols.stop + corner[0] + 6, rows.stop + corner[1] + 6
        )  # fmt: skip
        if not any(
            k[0] <= box[0] + 6 and k[1] <= box[1] + 6 and k[2] >= box[2] - 6 and k[3] >= box[3] - 6 for k in known
        ):
            boxes.append(box)
    return boxes


def _is_marked(mask: Mask, box: Box, corner: tuple[int, int]) -> bool:
    left, top = max(0, box[0] - corner[0]), max(0, box[1] - corner[1])
    return bool(mask[top : box[3] - corner[1], left : box[2] - corner[0]].sum() >= _PATCH)


def _is_like_text(box: Box) -> bool:
    """A bar of the height of print, without the 6 pixels around it."""
    width, height = box[2] - box[0] - 12, box[3] - box[1] - 12
    return 6 <= height <= 60 and width >= 1.5 * height
