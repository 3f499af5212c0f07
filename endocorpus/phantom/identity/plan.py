"""Decide what is planted from a seed. Every draw of an item is a function of (seed, number of the item)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

import numpy as np

from endocorpus.phantom.draws import generator
from endocorpus.phantom.identity.letters import canvas_size
from endocorpus.phantom.identity.place import Mask, Room, shows, thumbnail_box
from endocorpus.phantom.identity.texts import write_text
from endocorpus.phantom.identity.traits import (
    DARK,
    KINDS,
    LAYOUTS,
    SCRIPTS,
    SIZES,
    Colour,
    Face,
    IdentityPlan,
    Item,
    Kind,
    LayoutName,
    Place,
    Scenery,
    Script,
    Segment,
    Style,
    Timing,
)

T = TypeVar("T")
TIMINGS: tuple[Timing, ...] = (
    *("static",) * 6, *("clock",) * 2, *("transient",) * 2, *("blinking",) * 2, *("scrolling",) * 2,
)  # fmt: skip
PLACES: tuple[Place, ...] = (*("tissue",) * 8, *("border",) * 5, "edge")
STYLES: tuple[Style, ...] = ("plain", "outline", "box", "ghost")
FACES: dict[Script, tuple[Face, ...]] = {
    "latin": ("plain", "sans", "serif", "bitmap"), "chinese": ("sans", "serif", "sans", "bitmap"),
}  # fmt: skip
PLAIN_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "clock")
PERIODS = (0.5, 1.0, 1.0, 2.0, 1.4)
"""Of blinking items, in seconds: a whole second is what sampling once a second never sees."""


def plan_identity(
    seed: int, size: tuple[int, int], seconds: Fraction | float, rate: Fraction | int, layout: LayoutName, *,
    items: int = 14, outside: bool = False, tissue: Mask | None = None,
) -> IdentityPlan:  # fmt: skip
    """Plan the identifiers of one recording; ``size`` is (width, height), ``rate`` frames per second.

    ``outside`` adds screens with patient data, rooms and faces at both ends (not to recordings of less than six
    seconds). ``tissue``, shape (height, width), says where the endoscopic picture lies in frames of others; left
    out, it is that of the ``layout``; given, there is no thumbnail.

    An item that finds no room where it should lie is put elsewhere, else made smaller; one for which there is no room
    at all is left out. Raises ``ValueError`` for an unknown layout, no time, a negative seed, or a mask of another
    size.
    """
    seconds, rate = Fraction(seconds), Fraction(rate)
    if layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}; there is one of: {', '.join(LAYOUTS)}")
    if seed < 0 or seconds * rate < 1 or items < 0:
        raise ValueError(f"a seed is not negative and a recording has a frame: seed {seed}, {seconds} s, {items} items")
    if tissue is not None and tissue.shape != (size[1], size[0]):
        raise ValueError(f"a mask of shape {tissue.shape} for frames of {size[0]}x{size[1]}")
    segments = _plan_segments(seed, float(seconds)) if outside else ()
    thumbnail = None if tissue is not None else thumbnail_box(layout, size)
    room = Room(shows(layout, size) > 0 if tissue is None else tissue, thumbnail)
    body = _body(segments, float(seconds))
    planned = []
    for index in range(items):
        item = _place(seed, index, _plan_item(seed, index, body, float(seconds)), room)
        if item is not None:
            room.take(item.box)
            planned.append(item)
    return IdentityPlan(
        seed=seed, size=size, seconds=seconds, rate=rate, layout=layout, items=tuple(planned), segments=segments,
        thumbnail=thumbnail,
    )  # fmt: skip


def _deal(seed: int, what: str, index: int, choices: Sequence[T]) -> T:
    """The card that item ``index`` gets when ``choices`` are shuffled and dealt round after round: each as often."""
    deal, at = divmod(index, len(choices))
    return choices[int(generator(seed, "identity", what, deal).permutation(len(choices))[at])]


def _plan_item(seed: int, index: int, body: tuple[float, float], seconds: float) -> Item:
    """Everything about an item but its box."""
    rng = generator(seed, "identity", "item", index)
    timing = _deal(seed, "timing", index, TIMINGS)
    kind = "clock" if timing == "clock" else _deal(seed, "kind", index, PLAIN_KINDS)
    script: Script = _deal(seed, "script", index, SCRIPTS)
    style, place = _deal(seed, "style", index, STYLES), _deal(seed, "place", index, PLACES)
    colour = _colour(rng, style, place)
    bare = Item(
        kind=kind, script=script, text=write_text(kind, script, rng), px=_deal(seed, "px", index, SIZES),
        face=_deal(seed, f"face {script}", index, FACES[script]), style=style, colour=colour,
        backing=_backing(rng, style, colour), opacity=float(rng.choice((0.75, 1.0))) if style == "box" else 1.0,
        timing=timing, place=place, box=(0, 0, 0, 0), on=(0.0, seconds),
    )  # fmt: skip
    return _time(rng, bare, body)


def _colour(rng: np.random.Generator, style: Style, place: Place) -> Colour:
    """A colour that can be read there: nothing dark half-transparent, no black letters on a black border."""
    colours: list[Colour] = ["white", "white", "yellow", "cyan", "green", "red"]
    if style in ("box", "outline") or (style == "plain" and place == "tissue"):
        colours += DARK
    elif style == "plain" and place == "border":
        colours.append("grey")
    return colours[int(rng.integers(len(colours)))]


def _backing(rng: np.random.Generator, style: Style, colour: Colour) -> tuple[int, int, int]:
    """The colour of a box or an outline: dark behind light letters, light behind dark ones."""
    if colour in DARK:
        return (235, 235, 235)
    return ((0, 0, 0), (16, 20, 96))[int(rng.integers(2))] if style == "box" else (0, 0, 0)


def _time(rng: np.random.Generator, item: Item, body: tuple[float, float]) -> Item:
    """When the item is seen. What comes and goes does so while the camera is in the body."""
    start, stop = body
    if item.timing == "transient":
        length = min(float(rng.uniform(1.5, 4.0)), stop - start)
        begin = float(rng.uniform(start, stop - length))
        return replace(item, on=(round(begin, 3), round(begin + length, 3)))
    if item.timing == "blinking":
        period = PERIODS[int(rng.integers(len(PERIODS)))]
        phase = round(float(rng.uniform(0, period)), 3)
        return replace(item, period=period, duty=round(float(rng.uniform(0.35, 0.7)), 3), phase=phase)
    if item.timing == "scrolling":
        return replace(item, speed=round(float(rng.uniform(1.0, 4.0) * item.px * rng.choice((-1, 1))), 3))
    return item


def _place(seed: int, index: int, item: Item, room: Room) -> Item | None:
    """Give the item its box: where it should lie if there is room, else where there is; smaller if it must be."""
    rng = generator(seed, "identity", "place", index)
    reach = float(rng.uniform(1.2, 1.8)) if rng.random() < 0.6 else -float(rng.uniform(2.0, 4.0))
    for px in (size for size in reversed(SIZES) if size <= item.px):
        for place in dict.fromkeys((item.place, "tissue", "border")):
            fitted = replace(item, px=px, place=place)
            if place != item.place and item.style in ("plain", "ghost") and item.colour in DARK:
                fitted = replace(fitted, colour="white")  # black letters on a black border would not be seen
            width, height = canvas_size(fitted)
            if item.timing == "scrolling":
                width, height = (round(width * reach), height) if reach > 0 else (width, round(height * -reach))
            box = room.find(place, (width, height), rng)
            if box is not None:
                return replace(fitted, box=box)
    return None


def _plan_segments(seed: int, seconds: float) -> tuple[Segment, ...]:
    """A screen and then the room at the start, the room and now and then a screen at the end; each 2 s or longer."""
    if seconds < 6:
        return ()
    rng = generator(seed, "identity", "segments")
    script: Script = _deal(seed, "screens", 0, SCRIPTS)
    screens, views = _shuffled(rng, ("worklist", "entry")), _shuffled(rng, ("room", "face"))
    if seconds < 15:
        before, after = screens[:1], views[:1]
    else:
        before, after = [screens[0], views[1]], [views[0], *(screens[1:] if rng.random() < 0.5 else [])]
    lengths = [2.0 if seconds < 12 else round(float(rng.uniform(2.0, 3.0)), 2) for _ in (*before, *after)]
    first, last = lengths[: len(before)], lengths[len(before) :]
    return (
        *_in_a_row(before, first, script, 0.0),
        *_in_a_row(after, last, script, seconds - sum(last)),
    )


def _in_a_row(scenery: list[Scenery], lengths: list[float], script: Script, start: float) -> Iterator[Segment]:
    for what, length in zip(scenery, lengths, strict=True):
        yield Segment(scenery=what, script=script, start=start, stop=start + length)
        start += length


def _shuffled(rng: np.random.Generator, choices: tuple[Scenery, ...]) -> list[Scenery]:
    return [choices[int(at)] for at in rng.permutation(len(choices))]


def _body(segments: tuple[Segment, ...], seconds: float) -> tuple[float, float]:
    """From when to when the camera is in the body."""
    starts = [segment.stop for segment in segments if segment.start < seconds / 2]
    stops = [segment.start for segment in segments if segment.start >= seconds / 2]
    return max(starts, default=0.0), min(stops, default=seconds)
