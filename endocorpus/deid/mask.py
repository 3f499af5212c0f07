"""What of a recording's picture may be seen: a plan of integers that can be printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from endocorpus.records import Box, Filled, Span

Mask = npt.NDArray[np.bool_]
Frame = npt.NDArray[np.uint8]

NO_PICTURE: Box = (0, 0, 0, 0)
GRID = 16  # pixels: edges of boxes over text tell its length no finer than this
ROW_GAP = 3  # cells of the grid between two boxes of a row that are hidden with them
MOST_BANDS, BAND_LOSS = 160, 0.003  # of a field's outline; what its steps may cost, as a part of its area


class Doubt(StrEnum):
    """Why the picture is not proven to be clean. What a doubt does is the policy of the source."""

    NO_MOTION = "no_motion"  # nothing moves enough to tell the endoscopic image from what is around it
    FEW_FRAMES = "few_frames"  # too few different frames to trust what moves
    SMALL_FIELD = "small_field"  # what moves is less than 8 % of the picture
    TWO_FIELDS = "two_fields"  # two areas of like size move
    MOSTLY_MASKED = "mostly_masked"  # more than 25 % of the field would be hidden
    UNSURE_TEXT = "unsure_text"  # something stands still on moving tissue, and it is not known what it is


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LayoutMask:
    """What is hidden in the frames `span`: all that is outside `field`, and `boxes`.

    `field` are bands of rows, each showing one interval of columns; `boxes` hide text, on a grid of 16 pixels. Spans
    of neighbouring layouts overlap by some seconds, in which both hide.
    """

    span: Span
    field: tuple[Box, ...]
    boxes: tuple[Box, ...]

    def hidden(self, width: int, height: int) -> Mask:
        """True where nothing is shown; shape (height, width)."""
        mask = np.ones((height, width), np.bool_)
        for left, top, right, bottom in self.field:
            mask[top:bottom, left:right] = False
        for left, top, right, bottom in self.boxes:
            mask[top:bottom, left:right] = True
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPlan:
    """All that will be hidden in a recording of displayed pictures of `width` x `height`, and what is in doubt.

    `crop` holds every pixel that any layout shows.
    """

    width: int
    height: int
    crop: Box
    layouts: tuple[LayoutMask, ...]
    doubts: tuple[Doubt, ...]

    @property
    def shows_nothing(self) -> bool:
        return self.crop == NO_PICTURE

    def hidden(self, number: int) -> Mask:
        """True where frame `number` shows nothing; shape (height, width) of the whole picture."""
        mask = np.zeros((self.height, self.width), np.bool_)
        held = [layout for layout in self.layouts if layout.span.start <= number < layout.span.stop]
        for layout in held:
            mask |= layout.hidden(self.width, self.height)
        return mask if held else ~mask  # a frame that no layout knows shows nothing

    def apply(self, frame: Frame, number: int) -> Frame:
        """Frame `number`, uint8 of shape (height, width, channels), with black where it is hidden, cropped."""
        if frame.shape[:2] != (self.height, self.width):
            raise ValueError(f"planned for {self.width}x{self.height}, not {frame.shape[1]}x{frame.shape[0]}")
        left, top, right, bottom = self.crop
        shown = np.where(self.hidden(number)[..., None], np.uint8(0), frame)
        return np.ascontiguousarray(shown[top:bottom, left:right])

    def filled(self) -> tuple[Filled, ...]:
        """The same as rectangles: all that is black of `crop`, for each layout."""
        painted = (Filled(span=layout.span, rectangles=tuple(_painted(layout, self.crop))) for layout in self.layouts)
        return tuple(filled for filled in painted if filled.rectangles)

    def tissue_hidden(self) -> float:
        """The largest part of a layout's field that boxes hide, 0 to 1."""
        return max((hidden_part(layout.field, layout.boxes) for layout in self.layouts), default=0.0)


def _painted(layout: LayoutMask, crop: Box) -> list[Box]:
    """Rectangles that hide, within the crop, everything that a layout hides."""
    left, top, right, bottom = crop
    painted: list[Box] = []
    at = top
    for band in layout.field:
        painted += [(left, at, right, band[1]), (left, band[1], band[0], band[3]), (band[2], band[1], right, band[3])]
        at = band[3]
    painted.append((left, at, right, bottom))
    painted += [(max(left, box[0]), max(top, box[1]), min(right, box[2]), min(bottom, box[3])) for box in layout.boxes]
    return [box for box in painted if box[0] < box[2] and box[1] < box[3]]


def hidden_part(field: Sequence[Box], boxes: Sequence[Box]) -> float:
    """How much of a field boxes hide, 0 to 1."""
    if not field:
        return 0.0
    width, height = max(band[2] for band in field), max(band[3] for band in field)
    shown = ~LayoutMask(span=Span(start=0, stop=1), field=tuple(field), boxes=()).hidden(width, height)
    left = ~LayoutMask(span=Span(start=0, stop=1), field=tuple(field), boxes=tuple(boxes)).hidden(width, height)
    return 1 - float(left.sum()) / float(shown.sum())


def bands(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> tuple[Box, ...]:
    """The interval of columns [left, right) that each row shows as few bands of rows, which show no pixel more.

    Rows are joined where that costs least, as long as all of it costs at most 0.3 % of the area, or there are more
    than 160 bands. An empty interval shows nothing of its row.
    """
    rows = [[int(l), y, int(r), y + 1] for y, (l, r) in enumerate(zip(left, right, strict=True)) if r > l]
    budget = BAND_LOSS * sum(r - l for l, _, r, _ in rows)
    while len(rows) > 1:
        table = np.array(rows, np.int64)
        upper, lower = table[:-1], table[1:]
        both = np.maximum(0, np.minimum(upper[:, 2], lower[:, 2]) - np.maximum(upper[:, 0], lower[:, 0]))
        costs = sum((t[:, 2] - t[:, 0] - both) * (t[:, 3] - t[:, 1]) for t in (upper, lower))
        costs = np.where((upper[:, 3] == lower[:, 1]) & (both > 0), costs, np.iinfo(np.int64).max)
        at = int(costs.argmin())
        if costs[at] == np.iinfo(np.int64).max or (costs[at] > budget and len(rows) <= MOST_BANDS):
            break
        budget -= int(costs[at])
        one, other = rows[at], rows.pop(at + 1)
        rows[at] = [max(one[0], other[0]), one[1], min(one[2], other[2]), other[3]]
    return tuple((l, t, r, b) for l, t, r, b in rows)


def snap(boxes: Iterable[Box], width: int, height: int) -> tuple[Box, ...]:
    """Boxes widened to the grid and joined to bars, so that their shape says no more than about where text stood.

    Cells of a row with a gap of up to three cells between them become one bar. Returned boxes do not overlap.
    """
    cells = np.zeros((-(-height // GRID), -(-width // GRID)), np.bool_)
    for left, top, right, bottom in boxes:
        if right > left and bottom > top:
            cells[max(0, top // GRID) : -(-bottom // GRID), max(0, left // GRID) : -(-right // GRID)] = True
    runs: list[list[int]] = []  # left, top, right, bottom in cells
    for y, row in enumerate(cells):
        for left, right in _runs(row):
            above = next((run for run in runs if run[3] == y and (run[0], run[2]) == (left, right)), None)
            if above:
                above[3] = y + 1
            else:
                runs.append([left, y, right, y + 1])
    return tuple(
        sorted(
            (l * GRID, t * GRID, min(width, r * GRID), min(height, b * GRID)) for l, t, r, b in runs
        )
    )  # fmt: skip


def _runs(row: Mask) -> list[tuple[int, int]]:
    """Half-open runs of True, those with a small gap between them joined."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]]))).tolist()
    joined: list[tuple[int, int]] = []
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        if joined and left - joined[-1][1] <= ROW_GAP:
            joined[-1] = (joined[-1][0], right)
        else:
            joined.append((left, right))
    return joined
