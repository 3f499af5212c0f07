"""What a recording shows, as filters of ffmpeg: cut to a part of the picture, with rectangles of it black."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from endocorpus.records import Box, Cut, Filled, MediaFacts

Filter = tuple[str, dict[str, str | int]]
"""Name and arguments."""


def paint(stream: Any, facts: MediaFacts, cut: Cut, filled: Sequence[Filled]) -> Any:
    """Show of a stream what is meant to be shown. Frames must still have their numbers in the recording."""
    for name, arguments in filters(facts, cut, filled):
        stream = stream.filter(name, **arguments)
    return stream


def filters(facts: MediaFacts, cut: Cut, filled: Sequence[Filled]) -> Iterator[Filter]:
    """Filters for pictures as they are stored, in their order; none where all is shown."""
    if cut == Cut() and not filled:
        return
    if (facts.width, facts.height) != (facts.stored_width, facts.stored_height):
        yield "scale", {"w": facts.width, "h": facts.height, "flags": "bicubic"}
        yield "setsar", {"sar": 1}
    width, height = cut.leaves(facts)
    yield "format", {"pix_fmts": "yuv444p"}  # colours at full size let edges be odd
    yield "crop", {"w": width, "h": height, "x": cut.left, "y": cut.top, "exact": 1}
    for part in filled:
        when = f"between(n,{part.span.start},{part.span.stop - 1})"
        for rectangle in part.rectangles:
            place = _within(rectangle, cut, width, height)
            if place:
                yield "drawbox", {**place, "color": "black", "t": "fill", "enable": when}


def _within(rectangle: Box, cut: Cut, width: int, height: int) -> dict[str, str | int] | None:
    """Where a rectangle lies in the picture after the cut; None if it lies beside."""
    left, right = (min(max(edge - cut.left, 0), width) for edge in rectangle[::2])
    top, bottom = (min(max(edge - cut.top, 0), height) for edge in rectangle[1::2])
    if left >= right or top >= bottom:
        return None
    return {"x": left, "y": top, "w": right - left, "h": bottom - top}
