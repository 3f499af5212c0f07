"""The analysis passes over a recording: what moves, then where text is, then what looks as if outside the body.

What was seen is kept in a file, by everything that decides it, so that no recording is looked at twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from endocorpus.corpus.files import atomic_file, parse_signed, signed_json
from endocorpus.deid.field import BLOCK, Layout, find_layouts, row_edges, small_size
from endocorpus.deid.head import BACKBONE, HEAD, Head
from endocorpus.deid.mask import NO_PICTURE, Doubt, LayoutMask, Mask, MaskPlan, bands, hidden_part, snap
from endocorpus.deid.measure import FACES, with_text
from endocorpus.deid.models import proven
from endocorpus.deid.outside import Look as OutsideLook
from endocorpus.deid.outside import Policy
from endocorpus.deid.outside_look import look_outside
from endocorpus.deid.overlay import NORMAL, Pace, Watch, boxes_to_hide, sample_frames
from endocorpus.deid.text import MASKING, TextBox
from endocorpus.media.sampled import sampled
from endocorpus.records import Box, Media, MediaFacts, Span

MOST_SAMPLES, LEAST_SAMPLES = 600, 40  # small pictures that motion is read from
SAMPLES_PER_SECOND = 2
BLOCK_SECONDS = 6  # over which the layout is looked at, at least
BORDER = 2  # seconds at the border of two layouts in which both hide
MOST_HIDDEN = 0.25  # of the field
MODELS = (MASKING.detector, MASKING.recogniser, BACKBONE, HEAD, FACES)
_FORMAT = 1  # raise it when the same recording would be seen otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that the decision about a recording's pixels is made of."""

    masks: MaskPlan
    looks: tuple[OutsideLook, ...]


_SEEN = TypeAdapter(Seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """How recordings are looked at: how often for text and for what is outside the body, and with which head."""

    policy: Policy
    pace: Pace = NORMAL
    head: Head | None = None  # a site's own; by default the one that ships


def look(media: Media, facts: MediaFacts, root: Path, how: Looking) -> Seen:
    """Look at a recording. Decodes it several times; writes nothing.

    Args:
        facts: with the rate of the examination: how often is looked goes by its seconds.

    Raises:
        Excluded: the recording cannot be decoded.
        DataError: a model is missing or changed.
    """
    watches = watch(media, facts, root, seed=0, pace=how.pace)
    masks = mask_plan(watches, facts)
    if masks.shows_nothing:
        return Seen(masks=masks, looks=())
    looks = look_outside(media, facts, root, content=masks.crop, policy=how.policy, head=how.head)
    lines = {one.number: one.found.read for layout in watches for one in layout.looks}
    return Seen(masks=masks, looks=with_text(looks, _at_looks(lines, looks), masks.crop))


def _at_looks(lines: Mapping[int, Sequence[TextBox]], looks: Sequence[OutsideLook]) -> list[list[Box]]:
    """Lines of text, by frame, given to that look each which is nearest in time."""
    at = np.array([one.frame for one in looks])
    given: list[list[Box]] = [[] for _ in looks]
    for number, boxes in lines.items():
        nearest = int(np.abs(at - number).argmin())
        given[nearest] += [(box.left, box.top, box.right, box.bottom) for box in boxes]
    return given


def look_once(
    media: Media,
    facts: MediaFacts,
    root: Path,
    how: Looking,
    keep: Callable[[bytes], Path] | None,
) -> Seen:
    """`look`, or what is kept of an earlier one.

    Args:
        keep: in which file what was seen is kept, given everything that decides it; None keeps nothing.

    Raises:
        Excluded: the recording cannot be decoded.
        DataError: a model is missing or changed.
    """
    head = how.head and how.head.digest()
    decides = repr((_FORMAT, facts, how.policy, how.pace, head, proven(*MODELS)))
    path = keep(decides.encode()) if keep else None
    if path and (kept := _read(path)):
        return kept
    seen = look(media, facts, root, how)
    if path:
        with atomic_file(path) as file:
            file.write(signed_json({"seen": dataclasses.asdict(seen)}))
    return seen


def _read(path: Path) -> Seen | None:
    """What was seen, if its file is as it was written: a damaged one tells nothing."""
    try:
        return _SEEN.validate_python(parse_signed(path.read_bytes())["seen"])
    except (OSError, ValueError, KeyError):
        return None


def plan_masks(media: Media, facts: MediaFacts, root: Path, *, seed: int, pace: Pace, threads: int = 1) -> MaskPlan:
    """Decide what of a recording is shown. Decodes it twice; writes nothing.

    Raises:
        Excluded: the recording cannot be decoded.
        DataError: a model is missing or changed.
    """
    return mask_plan(watch(media, facts, root, seed=seed, pace=pace, threads=threads), facts)


def watch(media: Media, facts: MediaFacts, root: Path, *, seed: int, pace: Pace, threads: int = 1) -> list[Watch]:
    """What is found in each layout of a recording."""
    layouts = _layouts(media, facts, root)
    watches = [Watch(layout=layout, window=_window(layout, facts), rate=facts.rate) for layout in layouts]
    numbers = sample_frames(facts.num_frames, facts.rate, seed, facts.digest, pace)
    seen = [watch for watch in watches if watch.window[2] > watch.window[0] and watch.window[3] > watch.window[1]]
    close = {id(watch): _close(watch.layout.span, numbers, pace.close_looks) for watch in seen}
    for number, frame in sampled(media, facts, root, numbers):
        for watch in seen:
            if watch.layout.span.start <= number < watch.layout.span.stop:
                watch.look(number, frame, closely=number in close[id(watch)], threads=threads)
    return watches


def _layouts(media: Media, facts: MediaFacts, root: Path) -> tuple[Layout, ...]:
    numbers = motion_frames(facts.num_frames, facts.rate)
    small = [picture for _, picture in sampled(media, facts, root, numbers, grey=small_size(facts.width, facts.height))]
    block = ceil(BLOCK_SECONDS * facts.rate * len(numbers) / facts.num_frames)
    return find_layouts(np.stack(small), numbers, facts.num_frames, facts.rate, max(BLOCK, block))


def motion_frames(num_frames: int, rate: Fraction) -> tuple[int, ...]:
    """Numbers of the frames that motion is read from: two a second, but from 40 to 600 in all, evenly."""
    count = int(num_frames / rate * SAMPLES_PER_SECOND)
    count = min(num_frames, max(LEAST_SAMPLES, min(MOST_SAMPLES, count)))
    return tuple(sorted({number * num_frames // count for number in range(count)}))


def _close(span: Span, numbers: Sequence[int], count: int) -> set[int]:
    """Which frames of a layout are looked at closely: spread over it evenly."""
    inside = [number for number in numbers if span.start <= number < span.stop]
    return {inside[(2 * k + 1) * len(inside) // (2 * count)] for k in range(count)} if inside else set()


def _window(layout: Layout, facts: MediaFacts) -> Box:
    """The part of the picture in which text can be on the field, with some margin."""
    rows, cols = np.flatnonzero(layout.area.any(axis=1)), np.flatnonzero(layout.area.any(axis=0))
    if not len(rows):
        return NO_PICTURE
    low, wide = layout.area.shape
    margin = 2
    return (
        max(0, (int(cols[0]) - margin) * facts.width // wide),
        max(0, (int(rows[0]) - margin) * facts.height // low),
        min(facts.width, -(-(int(cols[-1]) + 1 + margin) * facts.width // wide)),
        min(facts.height, -(-(int(rows[-1]) + 1 + margin) * facts.height // low)),
    )


def mask_plan(watches: Sequence[Watch], facts: MediaFacts) -> MaskPlan:
    """The mask that follows from what was seen."""
    doubts = {doubt for watch in watches for doubt in watch.layout.doubts}
    border, masks = int(BORDER * facts.rate), []
    for watch in watches:
        field = bands(*row_edges(watch.layout.area, _brightest(watch, facts), facts.width, facts.height))
        inside = ~LayoutMask(span=watch.layout.span, field=field, boxes=()).hidden(facts.width, facts.height)
        boxes, more = boxes_to_hide(watch, inside)
        snapped = _within(snap(boxes, facts.width, facts.height), inside)
        span = watch.layout.span
        held = Span(start=max(0, span.start - border), stop=min(facts.num_frames, span.stop + border))
        masks.append(LayoutMask(span=held, field=field, boxes=snapped))
        doubts |= {*more, *((Doubt.MOSTLY_MASKED,) if hidden_part(field, snapped) > MOST_HIDDEN else ())}
    order = list(Doubt)
    return MaskPlan(
        width=facts.width,
        height=facts.height,
        crop=_crop(masks, facts),
        layouts=tuple(masks),
        doubts=tuple(sorted(doubts, key=order.index)),
    )


def _brightest(watch: Watch, facts: MediaFacts) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    if watch.brightest is None:
        return None
    left, top, right, bottom = watch.window
    whole = np.zeros((facts.height, facts.width), np.uint8)
    whole[top:bottom, left:right] = watch.brightest
    return whole


def _within(boxes: Sequence[Box], inside: Mask) -> tuple[Box, ...]:
    """The boxes that hide something of a field."""
    return tuple(box for box in boxes if inside[box[1] : box[3], box[0] : box[2]].any())


def _crop(masks: Sequence[LayoutMask], facts: MediaFacts) -> Box:
    """The smallest part of the picture that holds every field, of even size where the picture allows."""
    every = [band for mask in masks for band in mask.field]
    if not every:
        return NO_PICTURE
    left, top = (min(band[axis] for band in every) // 2 * 2 for axis in (0, 1))
    right, bottom = (max(band[axis] for band in every) for axis in (2, 3))
    return left, top, min(facts.width, right + right % 2), min(facts.height, bottom + bottom % 2)
