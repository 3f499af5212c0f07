"""Spans to clips: integer maths only."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from endocorpus.records import Excluded, Reason, Span, Stage
from endocorpus.settings import Settings

ENDOFM_FRAMES = 150  # the published script's clip_length


class SegmentConfig(Settings):
    """How a recording is cut into clips.

    `seconds`: clips of exactly `clip_seconds`; what is left at the end is a shorter last clip, or joins the clip
    before it when it is shorter than `min_seconds`. A recording under `min_seconds` is excluded.
    `endofm150`: the published rule; clips of 150 frames whatever the rate, and the last clip takes the remainder, so
    it has 150 to 299 frames. A recording under 150 frames is one clip.
    Either way every frame of a recording that may be shown lies in exactly one clip, but for stretches between what may
    not be shown that are too short for one; with a `stride` above 1, every
    frame whose number it divides does, and the lengths above are counted over these frames.
    """

    policy: Literal["seconds", "endofm150"] = "seconds"
    stride: int = Field(default=1, ge=1, le=10_000)  # frames of the recording per frame of a clip
    clip_seconds: float = 5.0
    min_seconds: float = 1.0

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if not 0 < self.min_seconds <= self.clip_seconds <= 3600:
            raise ValueError(
                f"min_seconds = {self.min_seconds:g}, clip_seconds = {self.clip_seconds:g}, but "
                "0 < min_seconds <= clip_seconds <= 3600 must hold"
            )
        return self


def segment(span: Span, rate: Fraction, config: SegmentConfig) -> tuple[Span, ...]:
    """Cut frames of a recording into consecutive spans that cover each frame once.

    Args:
        span: what is cut; it starts on the stride.
        rate: frames per second of the recording, before the stride.

    Raises:
        Excluded: it is shorter than the shortest clip.
    """
    taken = -(-len(span) // config.stride)
    if config.policy == "endofm150":
        return _cut(span, taken, ENDOFM_FRAMES, ENDOFM_FRAMES, config.stride)
    length = max(1, round(Fraction(config.clip_seconds) * rate / config.stride))
    shortest = max(1, round(Fraction(config.min_seconds) * rate / config.stride))
    if taken < shortest:
        raise Excluded(
            Stage.SEGMENT,
            Reason.TOO_SHORT,
            f"frames: {taken} at {float(rate / config.stride):g} per second, the shortest clip has {shortest}",
            frames=len(span),
        )
    return _cut(span, taken, length, shortest, config.stride)


def segment_kept(kept: Sequence[Span], rate: Fraction, config: SegmentConfig) -> tuple[Span, ...]:
    """`segment` of every span of a recording that may be shown, from its first frame on the stride. What is too short
    for a clip is left out.

    Raises:
        Excluded: nothing is long enough.
    """
    spans: list[Span] = []
    short: Excluded | None = None
    for span in kept:
        start = -(-span.start // config.stride) * config.stride
        if start >= span.stop:
            continue
        try:
            spans += segment(Span(start=start, stop=span.stop), rate, config)
        except Excluded as excluded:
            short = short or excluded
    if not spans:
        raise short or Excluded(Stage.SEGMENT, Reason.TOO_SHORT, "no frame is left", frames=sum(map(len, kept)))
    return tuple(spans)


def _cut(span: Span, taken: int, length: int, shortest: int, stride: int) -> tuple[Span, ...]:
    """Spans of `length` of the `taken` frames each; edges are frames of the recording."""
    whole, rest = divmod(taken, length)
    edges = [span.start + i * length * stride for i in range(whole + 1)]
    if rest >= shortest or whole == 0:
        edges.append(span.stop)
    else:
        edges[-1] = span.stop
    return tuple(Span(start=a, stop=b) for a, b in pairwise(edges))
