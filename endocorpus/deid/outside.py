"""When the camera was out of the body: from what was measured on sampled frames to spans that may be kept. Pure.

A frame is kept only if the frames looked at around it all say "inside". Every rule can only take away: a higher score
anywhere, or another veto, never brings a frame back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt

from endocorpus.records import Span

Flags = npt.NDArray[np.bool_]
WITNESSES = 3
"""Looks that must be near an odd one, on either side of it, before it can be found to be alone."""
CONFIRMED = 0.25
"""The part of the looks around an odd one that must be odd too, or it is alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was measured on frame number `frame`.

    `outside` is the probability that it was taken out of the body, `face` how sure the face detector is of its surest
    face, both 0 to 1. `change` is the mean difference to the look before, in grey levels of 0 to 255 (the first look
    has none: leave it at 255). `text_lines` and `text_share` tell of unusual text: lines, and part of the picture.

    Raises ValueError for numbers that cannot be: a detector that fails must not pass for one that found nothing.
    """

    frame: int
    outside: float
    face: float = 0.0
    change: float = 255.0
    text_lines: int = 0
    text_share: float = 0.0

    def __post_init__(self) -> None:
        parts = (self.outside, self.face, self.text_share)
        if not all(0 <= part <= 1 for part in parts) or not self.change >= 0 or min(self.frame, self.text_lines) < 0:
            raise ValueError(f"not a measurement of a frame: {self}")


class Place(StrEnum):
    """Where the camera was."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    DOUBT = "doubt"


class Why(StrEnum):
    """What speaks against keeping a frame: the first seven say outside, the others leave it in doubt."""

    LOOKS = "looks like outside"
    FACE = "face"
    TEXT = "much text"
    STILL = "picture stands still"
    MARGIN = "too near to outside"
    ENDS = "start or end of the recording"
    SHORT = "too short between outside"
    UNSURE = "unsure"
    UNSEEN = "not looked at"
    CORNERED = "too short beside a doubt"


_OUTSIDE = (Why.LOOKS, Why.FACE, Why.TEXT, Why.STILL, Why.MARGIN, Why.ENDS, Why.SHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds, and lengths in seconds. The defaults are for recordings as they leave a hospital.

    `enter` and `leave` are probabilities: looks above `leave` in a row that holds one above `enter` are outside; other
    looks above `leave` are in doubt. A face counts from `face` on, and from `faint_face` on in a look above `leave`.
    What many looks within `confirm` before and after do not confirm, by being above `leave` or showing at least a faint
    face, is in doubt as well. `gap` is the longest time between looks that proves anything, `still` how long a picture
    may stand still; None: for ever. `per_second` is how often to look, and `per_second_closely` how often around what
    is odd. Frames without any light stay if `black_stays`.
    """

    enter: float = 0.3
    leave: float = 0.05
    gap: float = 2.0
    margin: float = 3.0
    shortest: float = 5.0
    head: float = 10.0
    tail: float = 10.0
    face: float = 0.5
    faint_face: float = 0.3
    text_lines: int = 6
    text_share: float = 0.05
    still: float | None = 10.0
    still_change: float = 1.0
    confirm: float = 0.5
    per_second: Fraction = Fraction(2)
    per_second_closely: Fraction = Fraction(8)
    black_stays: bool = False

    def __post_init__(self) -> None:
        lengths = (self.gap, self.margin, self.shortest, self.head, self.tail, self.still or 0)
        if min(self.per_second, self.per_second_closely) <= 0 or not self.confirm > 0:
            raise ValueError(f"looks per second, and what confirms one, must be more than none: {self}")
        if not 0 < self.leave <= self.enter <= 1 or not all(0 <= length < 86_400 for length in lengths):
            raise ValueError(f"thresholds need 0 < leave <= enter <= 1, lengths 0 to a day: {self}")


CLEANED = Policy(shortest=0.0, head=0.0, tail=0.0, still=None, black_stays=True)
"""For sets whose provider has cut them: short clips, images that stand still, and black frames are what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Where the camera was during `span`, and all that speaks against keeping it, in the order of `Why`."""

    span: Span
    place: Place
    why: tuple[Why, ...] = ()


def judge(looks: Sequence[Look], num_frames: int, rate: Fraction, policy: Policy) -> tuple[Stretch, ...]:
    """Every frame of a recording in one stretch, in order; neighbours differ.

    Args:
        looks: in order of their frames; the more often, the shorter what can hide between two.
        rate: frames per second of the recording.

    Raises:
        ValueError: looks are not in order, or lie outside the recording.
    """
    numbers = [look.frame for look in looks]
    if num_frames < 1 or rate <= 0 or numbers != sorted(set(numbers)) or any(n >= num_frames for n in numbers):
        raise ValueError("looks must be at different frames of the recording, in order")
    seconds = [float(number / rate) for number in numbers]
    against = {why: np.zeros(num_frames, np.bool_) for why in Why}
    for why, found in _findings(looks, seconds, policy).items():
        for index in np.flatnonzero(found):
            before, after = _between(numbers, int(index), num_frames)
            against[why][before:after] = True
            if why in _OUTSIDE:
                reach = _frames(policy.margin, rate)
                against[Why.MARGIN][max(0, numbers[index] - reach) : numbers[index] + reach + 1] = True
    for start, stop in _unseen(numbers, num_frames, _frames(policy.gap, rate)):
        against[Why.UNSEEN][start:stop] = True
    against[Why.ENDS][: _frames(policy.head, rate)] = True
    against[Why.ENDS][max(0, num_frames - _frames(policy.tail, rate)) :] = True
    return _stretches(against, _frames(policy.shortest, rate))


def _frames(seconds: float, rate: Fraction) -> int:
    """So many frames last at least `seconds`."""
    return ceil(Fraction(seconds).limit_denominator(1_000_000) * rate)


def _between(numbers: Sequence[int], index: int, num_frames: int) -> tuple[int, int]:
    """What a look speaks for: its frame, and all on both sides up to the next looks, or to the ends."""
    before = numbers[index - 1] + 1 if index else 0
    return before, numbers[index + 1] if index + 1 < len(numbers) else num_frames


def _unseen(numbers: Sequence[int], num_frames: int, gap: int) -> Iterator[tuple[int, int]]:
    """Half-open intervals that no look is near enough to: between looks too far apart, and at the ends."""
    for before, after in zip([-1, *numbers], [*numbers, num_frames], strict=True):
        if after - before > gap and after - before > 1:
            yield before + 1, after


def _findings(looks: Sequence[Look], seconds: Sequence[float], policy: Policy) -> Mapping[Why, Flags]:
    """Which looks are against keeping; arrays of shape (looks,).

    Scores are not averaged over time: a mean would let a glimpse of one look pass, which is what must not pass.
    """
    scores = np.array([look.outside for look in looks], np.float64)
    faces = np.array([look.face for look in looks], np.float64)
    high, out = scores >= policy.leave, np.zeros(len(looks), np.bool_)
    face = (faces >= policy.face) | (high & (faces >= policy.faint_face))
    alone = _alone(high | (faces >= policy.faint_face), seconds, policy)
    for start, stop in _runs(high):
        out[start:stop] = bool(((scores >= policy.enter) & ~alone)[start:stop].any())
    return {
        Why.LOOKS: out,
        Why.UNSURE: (high & ~out) | (face & alone),
        Why.FACE: face & ~alone,
        Why.TEXT: np.array([shows_much_text(look, policy) for look in looks], np.bool_),
        Why.STILL: _still(looks, seconds, policy),
    }


def _alone(odd: Flags, seconds: Sequence[float], policy: Policy) -> Flags:
    """Looks that those around them do not confirm: many were near, before and after, and hardly any was odd.

    More odd looks can only confirm more, and where few looks are near nobody is alone.
    """
    at, found = np.array(seconds, np.float64), np.zeros(len(odd), np.bool_)
    for index in np.flatnonzero(odd):
        away = at - at[index]
        before, after = (away < 0) & (away >= -policy.confirm), (away > 0) & (away <= policy.confirm)
        enough = min(before.sum(), after.sum()) >= WITNESSES
        found[index] = enough and odd[before | after].mean() < CONFIRMED
    return found


def shows_much_text(look: Look, policy: Policy) -> bool:
    """Whether a look shows so much unusual text that it is of a screen or a document."""
    return look.text_lines >= policy.text_lines or look.text_share > policy.text_share


def _still(looks: Sequence[Look], seconds: Sequence[float], policy: Policy) -> Flags:
    """Looks at a picture that stood still for too long, with the first at it."""
    found = np.zeros(len(looks), np.bool_)
    if policy.still is not None:
        for start, stop in _runs(np.array([look.change < policy.still_change for look in looks], np.bool_)):
            first = max(0, start - 1)
            found[first:stop] = seconds[stop - 1] - seconds[first] >= policy.still
    return found


def _runs(flags: Flags) -> Iterator[tuple[int, int]]:
    """Half-open intervals of flags that are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _stretches(against: dict[Why, Flags], shortest: int) -> tuple[Stretch, ...]:
    """Frames as stretches, once what is too short to be trusted is taken out; changes `against`."""
    for why, reasons in ((Why.SHORT, _OUTSIDE), (Why.CORNERED, tuple(Why))):
        free = ~np.logical_or.reduce([against[reason] for reason in reasons])
        for start, stop in _runs(free):
            against[why][start:stop] = stop - start < shortest
    table = np.stack([against[why] for why in Why])
    marks = np.flatnonzero((table[:, 1:] != table[:, :-1]).any(axis=0)) + 1
    borders = [0, *marks.tolist(), table.shape[1]]
    return tuple(_stretch(table[:, start], start, stop) for start, stop in pairwise(borders))


def _stretch(column: Flags, start: int, stop: int) -> Stretch:
    why = tuple(reason for reason, set_ in zip(Why, column, strict=True) if set_)
    place = Place.OUTSIDE if set(why) & set(_OUTSIDE) else Place.DOUBT if why else Place.INSIDE
    return Stretch(span=Span(start=start, stop=stop), place=place, why=why)


def kept(stretches: Sequence[Stretch], doubts: bool = False) -> tuple[Span, ...]:
    """The spans that were inside the body, as long as they can be; with those in doubt, if `doubts`."""
    spans: list[Span] = []
    for stretch in stretches:
        if stretch.place is Place.OUTSIDE or (stretch.place is Place.DOUBT and not doubts):
            continue
        if spans and spans[-1].stop == stretch.span.start:
            spans[-1] = Span(start=spans[-1].start, stop=stretch.span.stop)
        else:
            spans.append(stretch.span)
    return tuple(spans)


def tally(stretches: Sequence[Stretch]) -> Mapping[str, int]:
    """Frames by place and by what speaks against them, for an attestation. A frame counts under each of its reasons."""
    counts = dict.fromkeys([*Place, *Why], 0)
    for stretch in stretches:
        for name in (stretch.place, *stretch.why):
            counts[name] += len(stretch.span)
    return {str(name): count for name, count in counts.items()}
