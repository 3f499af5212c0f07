"""From the picture as it is stored to the picture of a clip: turned by nothing, cut, scaled. Pure maths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from endocorpus.records import Cut, MediaFacts

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the stored picture lies in the clip's picture: ``clip = stored * scale - offset``, per axis."""

    stored: tuple[int, int]  # width, height in pixels
    scale: tuple[float, float]
    offset: tuple[float, float]  # pixels of the clip
    size: tuple[int, int]  # of the clip: width, height in pixels

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point of the stored picture in the clip's picture."""
        return x * self.scale[0] - self.offset[0], y * self.scale[1] - self.offset[1]

    def box(self, box: Box) -> Box | None:
        """A box (xmin, ymin, xmax, ymax) in the clip's picture, or None if no part of it is seen there."""
        return self.seen((*self.point(*box[:2]), *self.point(*box[2:])))

    def seen(self, box: Box) -> Box | None:
        """What lies in the clip's picture of a box that is in its coordinates, or None if nothing does."""
        (xmin, ymin, xmax, ymax), (width, height) = box, self.size
        seen = (max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height)))
        return seen if seen[0] < seen[2] and seen[1] < seen[3] else None

    def polygon(self, polygon: tuple[float, ...]) -> tuple[float, ...]:
        """Corners x0, y0, x1, y1, ... in the clip's picture; they may lie outside it."""
        pairs = zip(polygon[::2], polygon[1::2], strict=True)
        return tuple(value for x, y in pairs for value in self.point(x, y))

    def mask(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """A mask of the stored picture, (height, width), in the clip's picture: a pixel is in when half of it is."""
        columns, rows = (
            (np.arange(count + 1, dtype=np.float64) + offset) / scale
            for count, offset, scale in zip(self.size, self.offset, self.scale, strict=True)
        )
        sums = _between(_between(mask.astype(np.float64), rows).T, columns).T
        return np.asarray(2 * sums >= 1 / (self.scale[0] * self.scale[1]))


def _between(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums of `values` along the first axis between neighbouring `edges`, parts of values counted as parts.

    No resampling filter of an image library does this exactly: a box filter takes whole pixels by their centres.
    """
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    at = np.clip(edges, 0, len(values))
    below = np.minimum(at.astype(int), len(values) - 1)
    upto = sums[below] + (at - below)[:, None] * values[below]
    return np.asarray(np.diff(upto, axis=0))


def place(facts: MediaFacts, cut: Cut, size: tuple[int, int]) -> Placement:
    """The placement of a recording's pictures in clips of `size` (width, height)."""
    kept = cut.leaves(facts)
    zoom = (size[0] / kept[0], size[1] / kept[1])  # of the displayed picture
    square = (facts.width / facts.stored_width, facts.height / facts.stored_height)
    return Placement(
        stored=(facts.stored_width, facts.stored_height),
        scale=(square[0] * zoom[0], square[1] * zoom[1]),
        offset=(cut.left * zoom[0], cut.top * zoom[1]),
        size=size,
    )
