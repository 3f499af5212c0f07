"""Which frames of a video go into which window, so that no frame is left out. Integers only; no pixel is seen here.

Shape suffixes: W windows, T frames of a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def windows(num_frames: int, length: int, *, every: int = 1, stride: int | None = None) -> NDArray[np.int64]:
    """Frames of the windows of a video, int64 [W, T] with T = `length`, such that every frame is in one at least.

    Windows look at every `every`-th frame, as training may have done. The frames 0, `every`, 2 `every`... are one row
    of pictures, and those in between make up `every` - 1 rows more; each row is cut into as few windows as will do,
    which lie evenly from its first to its last frame and overlap where they must. A video too short for that distance
    is seen at the largest one that fills its windows, and one of fewer than `length` frames is one window, in which
    frames repeat evenly and in order: a single picture becomes `length` equal ones.

    Args:
        num_frames: of the video.
        length: of a window, in frames.
        every: distance of neighbours within a window, in frames of the video.
        stride: frames of a row from one window to the next, at the most; `length` unless told. Fewer overlap more.

    Raises:
        ValueError: an argument is below 1, or `stride` is above `length`, which would skip frames.
    """
    stride = length if stride is None else stride
    if min(num_frames, length, every, stride) < 1 or stride > length:
        raise ValueError(f"no windows of {length} frames at {every=}, {stride=} cover {num_frames} frames")
    if num_frames < length:
        return (np.arange(length) * num_frames // length)[None]
    every = min(every, num_frames // length)
    return np.concatenate(
        [np.arange(row, num_frames, every)[_tiled(row, num_frames, length, every, stride)] for row in range(every)]
    )


def _tiled(row: int, num_frames: int, length: int, every: int, stride: int) -> NDArray[np.int64]:
    """Places in one row of pictures, which are `length` at least, int64 [W, T]."""
    spare = len(range(row, num_frames, every)) - length
    steps = -(-spare // stride)
    starts_W = np.arange(steps + 1) * spare // max(steps, 1)
    return starts_W[:, None] + np.arange(length)
