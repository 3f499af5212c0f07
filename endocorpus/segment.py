"""Spans to clips: integer maths only."""

from __future__ import annotations

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
    Either way every frame of a recording that is kept lies in exactly one clip; with a `stride` above 1, every
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


def segment(num_frames: int, rate: Fraction, config: SegmentConfig) -> tuple[Span, ...]:
    """Cut frames ``0 .. num_frames-1`` into consecutive spans that cover each frame once.

    Args:
        num_frames: frames of the recording, at least 1.
        rate: its frames per second, before the stride.

    Raises:
        Excluded: the recording is shorter than the shortest clip.
    """
    taken = -(-num_frames // config.stride)
    if config.policy == "endofm150":
        return _cut(num_frames, taken, ENDOFM_FRAMES, ENDOFM_FRAMES, config.stride)
    length = max(1, round(Fraction(config.clip_seconds) * rate / config.stride))
    shortest = max(1, round(Fraction(config.min_seconds) * rate / config.stride))
    if taken < shortest:
        raise Excluded(
            Stage.SEGMENT,
            Reason.TOO_SHORT,
            f"frames: {taken} at {float(rate / config.stride):g} per second, the shortest clip has {shortest}",
            frames=num_frames,
        )
    return _cut(num_frames, taken, length, shortest, config.stride)


def _cut(num_frames: int, taken: int, length: int, shortest: int, stride: int) -> tuple[Span, ...]:
    """Spans of `length` of the `taken` frames each; edges are frames of the recording."""
    whole, rest = divmod(taken, length)
    edges = [i * length * stride for i in range(whole + 1)]
    if rest >= shortest or whole == 0:
        edges.append(num_frames)
    else:
        edges[-1] = num_frames
    return tuple(Span(start=a, stop=b) for a, b in pairwise(edges))
