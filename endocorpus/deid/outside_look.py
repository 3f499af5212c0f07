"""The pass that looks for frames outside the body. Writes nothing; `outside.judge` says what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import xxhash

from endocorpus.deid.head import Box, Frame, Head, shipped_head
from endocorpus.deid.measure import look_at
from endocorpus.deid.outside import Look, Policy
from endocorpus.media.sampled import sampled
from endocorpus.records import Media, MediaFacts

BLACK = 22  # grey level up to which a provider's black may come out of a lossy codec


def look_outside(
    media: Media,
    facts: MediaFacts,
    root: Path,
    *,
    content: Box,
    policy: Policy,
    head: Head | None = None,
    rate: Fraction | None = None,
) -> tuple[Look, ...]:
    """Measure sampled frames of a recording, for `judge`; text is left at none, see `measure.with_text`.

    Args:
        content: the part of the displayed picture that shows the endoscopic image.
        head: a site's own; by default the one that ships.
        rate: frames per second of the examination, if the container's is another one.

    Raises:
        Excluded: the recording cannot be decoded.
        DataError: a model is missing or changed.
    """
    head = head or shipped_head()
    numbers = look_frames(facts.num_frames, rate or facts.rate, policy.per_second, facts.digest)
    black: set[int] = set()

    def seen() -> Iterator[tuple[int, Frame]]:
        for number, frame in sampled(media, facts, root, numbers):
            if policy.black_stays and is_black(frame, content):
                black.add(number)
            yield number, frame

    looks = look_at(seen(), head, content)
    return tuple(Look(frame=look.frame, outside=0.0) if look.frame in black else look for look in looks)


def is_black(frame: Frame, content: Box) -> bool:
    """Whether a provider blacked the frame out: it stays, so that labels keep their frames."""
    left, top, right, bottom = content
    return bool(frame[top:bottom, left:right].max() <= BLACK)


def look_frames(num_frames: int, rate: Fraction, per_second: Fraction, key: str) -> tuple[int, ...]:
    """Numbers of the frames to look at, rising: one of each stretch of 1 / `per_second`, its place drawn from `key`."""
    edges = [0]
    while edges[-1] < num_frames:
        edges.append(min(num_frames, edges[-1] + max(1, int(rate / per_second))))
    return tuple(start + _draw(key, start) % (stop - start) for start, stop in pairwise(edges))


def _draw(key: str, start: int) -> int:
    return xxhash.xxh3_64_intdigest(f"outside/{key}/{start}".encode())
