"""Reading finished clips again, with networks that the masks were not made by: nothing may be readable any more.

What is read is counted, and compared with known identifiers if there are any. It is never kept, returned or shown.

The networks are the generation before those that text is masked by, of the same makers: trained apart, but not blind to
the same things for certain. Letters of 6 pixels and less in a clip are mostly past reading for them; what stood in the
source at that size is a matter of masks, and of `read_again` on masked pictures of the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from endocorpus.deid.search import Sought, resemblance
from endocorpus.deid.text import (
    CHINESE_LETTERS,
    INK,
    LATIN_LETTERS,
    READABLE,
    SHORT_READABLE,
    SURE,
    Frame,
    Known,
    Legible,
    Networks,
    TextBox,
    boxes_of,
    chances,
    read_line,
)
from endocorpus.errors import DataError
from endocorpus.media.frames import frame_count, frames_at

READING = Networks(
    detector="reader-detector",
    recogniser="reader-recogniser",
    alphabet="reader-alphabet",
    mean=(103.53, 116.28, 123.675),  # of ImageNet, blue first as all else here
    spread=(57.375, 57.12, 58.395),
)
MODELS = ("reader-detector", "reader-recogniser", "reader-alphabet")
"""What an attestation has to name."""

LONG = 6  # letters, of which a Chinese one counts as two, from which a line is believed at a lower score
SHORT_SIDE, MOST_ZOOM = 512, 3.0  # pixels that a picture is enlarged to at least, and how much it is at most


def reread_clips(clips: Iterable[Path | bytes], seed: int = 0, what: Sought | None = None, threads: int = 1) -> int:
    """How much can be read in finished clips (mp4): in the first, the middle, the last and one more frame of each.

    Args:
        seed: with the clip's bytes, decides which frame the fourth is.
        what: identifiers that count even where they are read badly.

    Raises:
        DataError: a model is missing or changed, or a clip cannot be decoded. Messages carry no path.
        OSError: a clip cannot be read.
    """
    known = resemblance(what) if what else None
    left = 0
    for clip in clips:
        data = clip if isinstance(clip, bytes) else clip.read_bytes()
        left += _left(frames_at(data, looks(data, seed)), known, threads)
    return left


def looks(data: bytes, seed: int) -> tuple[int, ...]:
    """Numbers of the frames of a clip that are looked at."""
    count = frame_count(data)
    if count < 1:
        raise DataError("a clip has no frame")
    chance = int.from_bytes(sha256(b"%d/" % seed + sha256(data).digest()).digest()[:8]) % count
    return tuple(sorted({0, count // 2, count - 1, chance}))


def read_again(pictures: Iterable[Frame], what: Sought | None = None, threads: int = 1) -> int:
    """How many lines can be read in pictures, RGB of shape (height, width, 3), all together.

    Raises:
        DataError: a model is missing or changed.
    """
    return _left(pictures, resemblance(what) if what else None, threads)


def _left(pictures: Iterable[Frame], known: Known | None, threads: int) -> int:
    return sum(counts(line) for picture in pictures for _, line in readings(picture, known, threads))


def counts(line: Legible) -> bool:
    """Whether a line is text that someone could read. Fewer letters, or less sure ones, are what a recogniser sees in
    vessels, glints and the edges of black bars; what is known needs no more."""
    letters = line.latin >= LATIN_LETTERS or line.chinese >= CHINESE_LETTERS
    long = line.latin + 2 * line.chinese >= LONG
    return line.known or (letters and line.score >= (READABLE if long else SHORT_READABLE))


def readings(picture: Frame, known: Known | None = None, threads: int = 1) -> tuple[tuple[TextBox, Legible], ...]:
    """What may be lines in a picture of shape (height, width, 3), in its pixels, and how well they can be read; most
    are no text.

    Raises:
        DataError: a model is missing or changed.
    """
    seen = _enlarged(picture)
    height, width = seen.shape[:2]
    chance, scale = chances(seen, 1.0, READING, threads)
    found = []
    for box in boxes_of(chance, INK, SURE, scale, (width, height)):
        line = read_line(seen[box.top : box.bottom, box.left : box.right], READING, threads, known)
        found.append((box.scaled(picture.shape[1] / width, picture.shape[0] / height), line))
    return tuple(found)


def _enlarged(picture: Frame) -> Frame:
    height, width = picture.shape[:2]
    zoom = min(MOST_ZOOM, SHORT_SIDE / min(height, width))
    if zoom <= 1:
        return picture
    return np.asarray(Image.fromarray(picture).resize((round(width * zoom), round(height * zoom)), _CUBIC))


_CUBIC = Image.Resampling.BICUBIC
