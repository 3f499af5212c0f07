"""Decide everything about a recording from a seed, before anything is rendered."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from endocorpus.phantom.camera import Path, covers
from endocorpus.phantom.draws import generator
from endocorpus.phantom.lumen import lesion_site
from endocorpus.phantom.overlay import text_size
from endocorpus.phantom.traits import Field, Lesion, Light, Overlay, OverlayKind, Polyp, Span, Traits

SIZE = (320, 256)
RATE = Fraction(25)
SECONDS = 8.0

# Nobody's: every name says that it is made up, every date does not exist.
NAMES = ("PHANTOM, PAT", "TESTCASE, TESS", "NOBODY, NORA", "SAMPLE, SAM")
SITES = ("PHANTOM HOSPITAL", "CLINIC OF NOWHERE", "DEMO ENDOSCOPY 0")
DEVICES = ("SCOPE-X000 SN 0000000", "PHANTOM-CF SN 1234567")
COLOURS = ((255, 255, 255), (236, 226, 90), (120, 230, 130), (140, 220, 236))


def plan_recording(
    seed: int, *, lumen: int = 0, recording: int = 0, light: Light = "WL", lesion: Lesion = "adenoma",
    size: tuple[int, int] = SIZE, rate: Fraction = RATE, frames: int = 200, frame_counter: bool = False,
    overlays: bool | None = None, outside: bool | None = None, frozen: bool | None = None,
) -> Traits:  # fmt: skip
    """Plan one recording; ``size`` is (width, height).

    ``overlays``, ``outside`` and ``frozen`` force burnt-in text, an out-of-body span and a still picture on or off;
    left out, they take turns over lumens and recordings, so that every rendered set has some of each.
    """
    rng = generator(seed, "plan", recording)
    turn = int(generator(seed, "turns").integers(12))
    has_text = (lumen + turn) % 2 == 0 if overlays is None else overlays
    has_outside = (recording + turn) % 3 == 0 if outside is None else outside
    has_still = (recording + turn) % 4 == 1 if frozen is None else frozen
    traits = Traits(
        light=light, lumen=lumen, recording=recording, width=size[0], height=size[1], rate=rate, frames=frames,
        field=plan_field(seed, lumen, size), polyps=plan_polyps(seed, lumen, lesion), frame_counter=frame_counter,
    )  # fmt: skip
    if has_outside and frames >= 10:
        traits = replace(traits, outside=(_plan_outside(rng, frames),))
    if has_still and frames >= 40:
        start = int(frames * rng.uniform(0.45, 0.55))
        traits = replace(traits, frozen=((start, start + max(4, int(frames * rng.uniform(0.06, 0.12)))),))
    return replace(traits, overlays=_plan_overlays(seed, rng, traits)) if has_text else traits


def watching(seed: int, lumen: int, recording: int, *, frames: int, rate: Fraction) -> int:
    """The recording, of 16 counted from ``recording`` in steps of 100, whose camera keeps the lesion site in view.

    The site lies aside of the path; it is well seen from 0.55 to 2.2 lumen radii before it.
    """
    angle, depth = lesion_site(seed, lumen)
    times = [float(frame / rate) for frame in range(0, frames, 5)]

    def seen(candidate: int) -> int:
        path = Path(seed, candidate, angle)
        return sum(0.55 < depth - path.at(seconds).depth < 2.2 for seconds in times)

    return max(range(recording, recording + 1600, 100), key=seen)


def plan_field(seed: int, lumen: int, size: tuple[int, int]) -> Field:
    """The field of view of the device that filmed one lumen: an octagon beside a panel, or a cut circle."""
    rng = generator(seed, "field", lumen)
    width, height = size
    if (lumen + seed) % 2 == 0:
        radius = min(0.40 * width, 0.50 * height)
        centre = (round(width * 0.97 - radius), round(height * 0.5))
        return Field(shape="octagon", centre=centre, radius=round(radius), flat=round(0.485 * height))
    radius = min(0.48 * width, 0.53 * height) * rng.uniform(0.96, 1.0)
    centre = (round(width * rng.uniform(0.5, 0.56)), round(height * 0.5))
    return Field(shape="circle", centre=centre, radius=round(radius), flat=round(0.485 * height))


def plan_polyps(seed: int, lumen: int, lesion: Lesion) -> tuple[Polyp, ...]:
    """One lesion where the camera roams, and now and then a smaller one farther on."""
    rng = generator(seed, "polyps", lumen)
    spans: dict[Lesion, tuple[float, float, float]] = {
        "adenoma": (0.24, 0.34, 0.85), "hyperplastic": (0.16, 0.22, 0.55), "serrated": (0.26, 0.36, 0.45),
    }  # fmt: skip
    small, large, bulge = spans[lesion]
    radius, (angle, depth) = float(rng.uniform(small, large)), lesion_site(seed, lumen)
    first = Polyp(lesion=lesion, angle=angle, depth=depth, radius=radius, height=radius * bulge)
    if rng.random() < 0.6:
        return (first,)
    second = Polyp(
        lesion=lesion, angle=float((angle + rng.uniform(1.6, 4.6)) % (2 * np.pi)), depth=depth + 1.1,
        radius=0.75 * radius, height=0.75 * radius * bulge,
    )  # fmt: skip
    return (first, second)


def _plan_outside(rng: np.random.Generator, frames: int) -> Span:
    length = max(3, int(frames * rng.uniform(0.08, 0.16)))
    return (0, length) if rng.random() < 0.5 else (frames - length, frames)


def _plan_overlays(seed: int, rng: np.random.Generator, traits: Traits) -> tuple[Overlay, ...]:
    """A panel of lines at the left edge, and one line on the tissue that may come and go."""
    letter = max(8, round(traits.height / 24))
    patient = generator(seed, "patient", traits.lumen)  # both recordings of a lesion are of one made-up person

    def pick(choices: tuple[str, ...]) -> str:
        return choices[int(patient.integers(len(choices)))]

    number, date = int(patient.integers(1000, 9999)), f"{int(patient.integers(30, 32))}/02/2099"  # no such day
    clock = f"{int(rng.integers(8, 18)):02d}:{int(rng.integers(60)):02d}:{int(rng.integers(60)):02d}"
    top: list[tuple[OverlayKind, str]] = [
        ("name", pick(NAMES)), ("identifier", f"ID FAKE-{number}"), ("date", date), ("clock", clock),
    ]  # fmt: skip
    low: list[tuple[OverlayKind, str]] = [("device", pick(DEVICES)), ("site", pick(SITES))]
    colour = COLOURS[int(patient.integers(len(COLOURS)))]
    everywhere = (0, traits.frames)
    line = round(letter * 1.35)
    found = [
        _place(traits, kind, text, 4, 3 + at * line, letter, colour, everywhere) for at, (kind, text) in enumerate(top)
    ]
    foot = traits.height - 3 - line * len(low) - (round(traits.height / 16) if traits.frame_counter else 0)
    found += [
        _place(traits, kind, text, 4, foot + at * line, letter, colour, everywhere)
        for at, (kind, text) in enumerate(low)
    ]
    x, y = traits.field.centre
    place = (int(x - traits.field.radius * rng.uniform(0.2, 0.6)), int(y + traits.field.flat * rng.uniform(-0.5, 0.6)))
    start, stop = sorted(int(v) for v in rng.uniform(0, traits.frames, 2))
    span = everywhere if rng.random() < 0.5 or stop - start < 5 else (start, stop)
    found.append(_place(traits, "identifier", f"EXAM 000{number}-X", *place, letter, COLOURS[0], span))
    return tuple(found)


def _place(
    traits: Traits, kind: OverlayKind, text: str, x: int, y: int, letter: int, colour: tuple[int, int, int], span: Span
) -> Overlay:
    """Fit one line into the frame, and note whether any of its box lies on the field of view."""
    while True:
        width, height = text_size(text, letter, kind == "clock")
        if letter <= 6 or width <= traits.width - 4:
            break
        letter -= 1
    x, y = max(0, min(x, traits.width - width)), max(0, min(y, traits.height - height))
    box = (x, y, min(x + width, traits.width), min(y + height, traits.height))
    field = covers(traits.field, traits.width, traits.height)
    on_tissue = bool(field[box[1] : box[3], box[0] : box[2]].any())
    return Overlay(kind=kind, text=text, box=box, height=letter, colour=colour, on_tissue=on_tissue, span=span)
