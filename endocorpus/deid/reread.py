"""Reading finished clips again, with networks that the masks were not made by: nothing may be readable any more.

What is read is counted, and compared with known identifiers if there are any. It is never kept, returned or shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from endocorpus.deid.search import Sought, resemblance
from endocorpus.deid.text import Frame, Known, Legible, Networks, boxes_of, chances, read_line
from endocorpus.media.frames import frame_count, frames_at

READING = Networks(
    detector="reader-detector",
    recogniser="reader-recogniser",
    alphabet="reader-alphabet",
    mean=(123.675, 116.28, 103.53),
    spread=(58.395, 57.12, 57.375),
)
SHORT_SIDE, MOST_ZOOM = 512, 3.0  # pixels of what the detector sees, and how much a picture is enlarged for it at most
INK, SURE = 0.3, 0.5


def readings(picture: Frame, known: Known | None = None, threads: int = 1) -> tuple[Legible, ...]:
    """What can be made out in a picture, RGB of shape (height, width, 3); most of it is no text.

    Raises:
        DataError: a model is missing or changed.
    """
    height, width = picture.shape[:2]
    zoom = min(MOST_ZOOM, max(1.0, SHORT_SIDE / min(height, width)))
    chance, scale = chances(picture, zoom, READING, threads)
    boxes = boxes_of(chance, INK, SURE, scale, (width, height))
    return tuple(read_line(picture[b.top : b.bottom, b.left : b.right], READING, threads, known) for b in boxes)
