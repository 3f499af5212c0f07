"""The pass that looks for frames outside the body. Writes nothing; `outside.judge` says what follows from it."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

import xxhash

from endocorpus.deid.head import Frame, Head, shipped_head
from endocorpus.deid.measure import look_at
from endocorpus.deid.outside import Look, Policy
from endocorpus.media.sampled import sampled
from endocorpus.records import Box, Media, MediaFacts

BLACK = 22  # grey level up to which a provider's black may come out of a lossy codec
CLOSE = 1.0
"""Seconds around an odd look in which is looked more often."""
SUSPECT = 0.2
"""Times `leave`: what a look is odd from. It costs no frame, and half a second of skin can hide beside such a look."""


def look_outside(
    media: Media,
    facts: MediaFacts,
    root: Path,
    *,
    content: Box,
    policy: Policy,
    head: Head | None = None,
) -> tuple[Look, ...]:
    """Measure sampled frames of a recording, for `judge`; text is left at none, see `measure.with_text`.

    Args:
        facts: with the rate of the examination, if the container's is another one.
        content: the part of the displayed picture that shows the endoscopic image.
        head: a site's own; by default the one that ships.

    Raises:
        Excluded: the recording cannot be decoded.
        DataError: a model is missing or changed.
    """
    head = head or shipped_head()
    black: set[int] = set()

    def look(numbers: Sequence[int]) -> tuple[Look, ...]:
        def seen() -> Iterator[tuple[int, Frame]]:
            for number, frame in sampled(media, facts, root, numbers):
                if policy.black_stays and is_black(frame, content):
                    black.add(number)
                yield number, frame

        found = look_at(seen(), head, content)
        return tuple(Look(frame=one.frame, outside=0.0) if one.frame in black else one for one in found)

    first = look(look_frames(facts.num_frames, facts.rate, policy.per_second, facts.digest))
    return merge(first, look(look_closer(first, facts.num_frames, facts.rate, policy, facts.digest)))


def look_closer(looks: Sequence[Look], num_frames: int, rate: Fraction, policy: Policy, key: str) -> tuple[int, ...]:
    """Frames to look at more often, around what may be outside: where does it begin, is it there at all?"""
    reach = ceil(CLOSE * rate)
    odd = [look.frame for look in looks if look.outside >= SUSPECT * policy.leave or look.face >= policy.face]
    near = {frame for at in odd for frame in range(at - reach, at + reach + 1)} - {look.frame for look in looks}
    return tuple(frame for frame in look_frames(num_frames, rate, policy.per_second_closely, key) if frame in near)


def merge(looks: Sequence[Look], closer: Sequence[Look]) -> tuple[Look, ...]:
    """Both in order. A picture's standing still is told over the time between the first looks only: over less, a slow
    hand would be taken for none. So what lies between two of them changed as much as the second did."""
    at = [look.frame for look in looks]
    places = [bisect(at, look.frame) for look in closer]
    moved = [
        replace(look, change=looks[min(place, len(looks) - 1)].change)
        for look, place in zip(closer, places, strict=True)
    ]
    return tuple(sorted([*looks, *moved], key=lambda look: look.frame))


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
