"""Cutting recordings into clips: integer maths with properties, and the published rule at its boundaries."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.errors import UsageError
from endocorpus.records import Excluded, Reason, Span
from endocorpus.segment import SegmentConfig, segment
from endocorpus.settings import load_settings

PUBLISHED = SegmentConfig(policy="endofm150")


def whole(num_frames: int) -> Span:
    return Span(start=0, stop=num_frames)


rates = st.sampled_from([Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(50), Fraction(2), Fraction(1)])


@pytest.mark.parametrize(
    ("num_frames", "lengths"),
    [(1, [1]), (149, [149]), (150, [150]), (151, [151]), (299, [299]), (300, [150, 150]), (301, [150, 151])],
)
def test_published_rule_at_its_boundaries(num_frames: int, lengths: list[int]) -> None:
    """EFM data/trans_videos_pretrain.py: n = L // 150 clips, the last one takes the remainder; L < 150 is one clip."""
    assert [len(span) for span in segment(whole(num_frames), Fraction(30), PUBLISHED)] == lengths


@given(st.integers(1, 5000), rates)
def test_published_rule_ignores_the_rate(num_frames: int, rate: Fraction) -> None:
    assert segment(whole(num_frames), rate, PUBLISHED) == segment(whole(num_frames), Fraction(30), PUBLISHED)


@pytest.mark.parametrize(
    ("num_frames", "lengths"),
    [(30, [30]), (149, [149]), (150, [150]), (179, [179]), (180, [150, 30]), (299, [150, 149]), (300, [150, 150])],
)
def test_seconds_policy_at_its_boundaries(num_frames: int, lengths: list[int]) -> None:
    assert [len(span) for span in segment(whole(num_frames), Fraction(30), SegmentConfig())] == lengths


@given(
    st.integers(1, 20_000),
    rates,
    st.sampled_from(["seconds", "endofm150"]),
    st.floats(0.2, 20),
    st.floats(0.01, 1),
)
def test_every_frame_lies_in_exactly_one_clip(
    num_frames: int, rate: Fraction, policy: str, clip_seconds: float, share: float
) -> None:
    config = SegmentConfig.model_validate(
        {"policy": policy, "clip_seconds": clip_seconds, "min_seconds": clip_seconds * share}
    )
    try:
        spans = segment(whole(num_frames), rate, config)
    except Excluded as excluded:
        assert excluded.reason is Reason.TOO_SHORT and num_frames < max(1, round(clip_seconds * share * rate))
        assert excluded.frames == num_frames
        return
    assert spans[0].start == 0 and spans[-1].stop == num_frames
    assert all(a.stop == b.start for a, b in pairwise(spans))
    length = 150 if policy == "endofm150" else max(1, round(Fraction(clip_seconds) * rate))
    assert all(len(span) == length for span in spans[:-1])
    assert len(spans[-1]) < 2 * length


def test_a_span_has_frames() -> None:
    with pytest.raises(ValueError, match=r"not a span of frames: \[3, 3\)"):
        Span(start=3, stop=3)


def test_impossible_lengths_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="min_seconds <= clip_seconds"):
        load_settings(SegmentConfig, overrides=["clip_seconds=0.5"])
