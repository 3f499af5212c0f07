"""What a phantom recording is, as plain values: everything is decided here before a pixel is rendered."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import hypot
from typing import Literal

Light = Literal["WL", "NBI"]
Shape = Literal["circle", "octagon"]
Lesion = Literal["adenoma", "hyperplastic", "serrated"]
OverlayKind = Literal["name", "identifier", "date", "clock", "device", "site"]
Span = tuple[int, int]
"""Half-open interval of frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polyp:
    """A raised lesion fixed to the wall. Lengths are in mean lumen radii, ``angle`` in radians.

    ``depth`` is the place along the lumen, counted from where the camera starts to roam; it roams over the first 3.6
    of it. Raises ``ValueError`` for a lesion that does not fit the lumen.
    """

    lesion: Lesion
    angle: float
    depth: float
    radius: float
    height: float

    def __post_init__(self) -> None:
        if not (0 < self.radius <= 0.6 and 0 <= self.height <= 0.6 and 0 <= self.depth <= 12):
            raise ValueError(f"a polyp of radius {self.radius}, height {self.height} at {self.depth} does not fit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The field of view: the part of the picture that shows the endoscopic image. Pixels, x to the right, y down.

    A circle is cut flat at ``centre_y +- flat`` (set ``flat >= radius`` for a full circle). An octagon has its
    sides at ``radius`` from the centre, horizontally and vertically; its corners are cut at 45 degrees.
    """

    shape: Shape
    centre: tuple[float, float]
    radius: float
    flat: float

    def cut(self) -> float:
        """How far the corners of an octagon are cut back along each side."""
        return 0.5 * self.radius

    def polygon(self) -> tuple[tuple[float, float], ...]:
        """The eight corners of an octagon, clockwise from the top left one; empty for a circle."""
        if self.shape == "circle":
            return ()
        (x, y), r, cut = self.centre, self.radius, self.cut()
        flat = min(r, self.flat)
        return (
            (x - r + cut, y - flat), (x + r - cut, y - flat), (x + r, y - flat + cut), (x + r, y + flat - cut),
            (x + r - cut, y + flat), (x - r + cut, y + flat), (x - r, y + flat - cut), (x - r, y - flat + cut),
        )  # fmt: skip

    def reach(self) -> float:
        """Distance in pixels from the centre to the farthest point of the field."""
        if self.shape == "circle":
            return self.radius
        return max(hypot(x - self.centre[0], y - self.centre[1]) for x, y in self.polygon())


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Text burnt into the frames ``span``. ``box`` is ``(xmin, ymin, xmax, ymax)``, half-open, and holds every glyph.

    A ``clock`` shows running time: ``text`` is what it shows on the first frame of the recording (``HH:MM:SS``).
    """

    kind: OverlayKind
    text: str
    box: tuple[int, int, int, int]
    height: int
    colour: tuple[int, int, int]
    on_tissue: bool
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """One recording. ``lumen`` and ``recording`` are positions for the random draws under a seed.

    Recordings with the same seed, ``lumen`` and ``polyps`` show the same place; ``recording`` changes the camera
    path and the noise only. ``rate`` is frames per second of the file; ``capture`` is that of the camera, where the
    file plays faster or slower than it was taken. ``outside``, ``frozen`` and ``black`` hold half-open frame spans:
    out of the body, a picture that stands still (the frame before the span, repeated), and out of the body but
    blacked out by the provider, every pixel (0, 0, 0).

    An ``interlaced`` frame holds two pictures, half a frame apart in time: the first in its even rows, the second
    in its odd ones. ``aspect`` is width over height of a pixel on the screen, as a note in the file: the phantom
    does not squeeze its pictures. ``inset``, ``(xmin, ymin, xmax, ymax)``, holds a green picture of the scope's loops.

    Raises ``ValueError`` for odd or tiny sizes, no frames, spans outside the recording, an inset outside the frame.
    """

    light: Light
    lumen: int
    recording: int
    width: int
    height: int
    rate: Fraction
    frames: int
    field: Field
    polyps: tuple[Polyp, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    outside: tuple[Span, ...] = ()
    frozen: tuple[Span, ...] = ()
    black: tuple[Span, ...] = ()
    frame_counter: bool = False
    capture: Fraction | None = None
    interlaced: bool = False
    aspect: Fraction = Fraction(1)
    inset: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < 64:
            raise ValueError(f"a phantom frame has even sides of at least 64 pixels, not {self.width}x{self.height}")
        if self.frames < 1 or self.rate <= 0:
            raise ValueError(f"a recording needs frames and a rate: {self.frames} frames at {self.rate}")
        for start, stop in (*self.outside, *self.frozen, *self.black, *(overlay.span for overlay in self.overlays)):
            if not 0 <= start < stop <= self.frames:
                raise ValueError(f"frames {start}..{stop} do not lie in a recording of {self.frames} frames")
        if self.inset is not None:
            x0, y0, x1, y1 = self.inset
            if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
                raise ValueError(f"an inset at {self.inset} does not lie in a frame of {self.width}x{self.height}")
        if len(self.polyps) > 254:
            raise ValueError(f"at most 254 polyps fit a label map, not {len(self.polyps)}")

    def is_outside(self, frame: int) -> bool:
        """Whether the camera is out of the body on ``frame``."""
        return _in_any(self.outside, frame) or self.is_black(frame)

    def is_black(self, frame: int) -> bool:
        """Whether ``frame`` was blacked out."""
        return _in_any(self.black, frame)

    def seconds(self, frame: int | Fraction) -> Fraction:
        """When the camera took ``frame``."""
        return frame / (self.capture or self.rate)

    def shown(self, frame: int) -> int:
        """The frame whose picture is seen on ``frame``: itself, unless the picture stands still."""
        for start, stop in self.frozen:
            if start <= frame < stop:
                return max(start - 1, 0)
        return frame


def _in_any(spans: tuple[Span, ...], frame: int) -> bool:
    return any(start <= frame < stop for start, stop in spans)
