"""What is planted, as plain values: everything is decided here before a pixel is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

Kind = Literal["name", "date", "clock", "identifier", "national", "phone", "hospital", "doctor", "serial"]
Script = Literal["latin", "chinese"]
Face = Literal["plain", "sans", "serif", "bitmap"]
"""A typeface: Pillow's own (Latin only), Noto Sans SC, Noto Serif SC, and Noto Sans SC without grey edges."""
Style = Literal["plain", "outline", "box", "ghost"]
Timing = Literal["static", "clock", "transient", "blinking", "scrolling"]
Place = Literal["border", "tissue", "edge"]
"""Beside the endoscopic picture, on it, or across its edge."""
Colour = Literal["white", "grey", "yellow", "cyan", "green", "red", "black"]
LayoutName = Literal["panel", "full", "circle", "pillar", "inset"]
Scenery = Literal["worklist", "entry", "room", "face"]
Rect = tuple[int, int, int, int]
"""``(xmin, ymin, xmax, ymax)`` in pixels, half-open."""

KINDS: tuple[Kind, ...] = get_args(Kind)
SCRIPTS: tuple[Script, ...] = get_args(Script)
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
SIZES = (12, 14, 16, 18, 20, 24, 28, 32, 36)
"""Type sizes in pixels: the side of a Chinese character, about 1.4 times the height of a Latin capital."""
GHOST = 0.45
"""How opaque half-transparent text is."""
SCREENS: tuple[Scenery, ...] = ("worklist", "entry")
COLOURS: dict[Colour, tuple[int, int, int]] = {
    "white": (255, 255, 255), "grey": (88, 88, 88), "yellow": (250, 228, 60), "cyan": (90, 228, 240),
    "green": (84, 230, 96), "red": (236, 48, 44), "black": (0, 0, 0),
}  # fmt: skip
DARK: tuple[Colour, ...] = ("grey", "black")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One planted identifier.

    ``text`` is what it reads; a clock's last eight characters are the time it shows at second 0. ``box`` holds every
    pixel that it ever changes. ``backing`` is the colour of the box (``style`` "box") or of the outline, ``opacity``
    how much of it covers the picture. ``on`` is when it can be seen, in seconds, half-open; a ``blinking`` one is
    then on for the first ``duty`` of each ``period``, counted from ``phase``. A ``scrolling`` one moves ``speed``
    pixels a second from one end of its box to the other (from the far end if negative) and starts again.
    """

    kind: Kind
    script: Script
    text: str
    px: int
    face: Face
    style: Style
    colour: Colour
    backing: tuple[int, int, int]
    opacity: float
    timing: Timing
    place: Place
    box: Rect
    on: tuple[float, float]
    period: float = 0.0
    duty: float = 1.0
    phase: float = 0.0
    speed: float = 0.0

    def is_on(self, time_s: float | Fraction) -> bool:
        """Whether it is shown at ``time_s``."""
        if not self.on[0] <= time_s < self.on[1]:
            return False
        return self.period == 0 or (float(time_s) + self.phase) % self.period < self.duty * self.period

    def shown(self, time_s: float | Fraction) -> str:
        """What it reads at ``time_s``: ``text``, or that of a clock so many whole seconds later."""
        if self.kind != "clock":
            return self.text
        hours, minutes, seconds = (int(part) for part in self.text[-8:].split(":"))
        now = hours * 3600 + minutes * 60 + seconds + int(time_s)
        return f"{self.text[:-8]}{now // 3600 % 24:02d}:{now // 60 % 60:02d}:{now % 60:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Something other than tissue from ``start`` to ``stop`` (seconds, half-open).

    A "worklist" and an "entry" (patient data) screen fill the frame, and no item is drawn over them. A "room" and a
    "face" are what the camera sees: they take the place of the tissue, and the items stay.
    """

    scenery: Scenery
    script: Script
    start: float
    stop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPlan:
    """All that is planted into one recording of ``size`` (width, height), a pure function of what it was planned from.

    With the layout "inset", ``thumbnail`` holds a still copy, four times smaller, of the whole screen at second 0.
    """

    seed: int
    size: tuple[int, int]
    seconds: Fraction
    rate: Fraction
    layout: LayoutName
    items: tuple[Item, ...]
    segments: tuple[Segment, ...] = ()
    thumbnail: Rect | None = None

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return int(self.seconds * self.rate)

    def segment_at(self, time_s: float | Fraction) -> int | None:
        """Which of ``segments`` is on at ``time_s``."""
        for index, segment in enumerate(self.segments):
            if segment.start <= time_s < segment.stop:
                return index
        return None


def plan_to_json(plan: IdentityPlan) -> dict[str, Any]:
    """A plan as plain JSON values."""
    return {**asdict(plan), "seconds": str(plan.seconds), "rate": str(plan.rate)}


def plan_from_json(plain: dict[str, Any]) -> IdentityPlan:
    """The plan that ``plan_to_json`` wrote."""
    items = [
        {**row, "box": tuple(row["box"]), "on": tuple(row["on"]), "backing": tuple(row["backing"])}
        for row in plain["items"]
    ]
    return IdentityPlan(
        **{
            **plain,
            "size": tuple(plain["size"]),
            "seconds": Fraction(plain["seconds"]),
            "rate": Fraction(plain["rate"]),
            "items": tuple(Item(**row) for row in items),
            "segments": tuple(Segment(**row) for row in plain["segments"]),
            "thumbnail": None if plain["thumbnail"] is None else tuple(plain["thumbnail"]),
        }
    )
