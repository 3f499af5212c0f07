"""What a camera sees outside the body: a room, and a person. These are drawings, and look like drawings.

They stand for the place of such frames in a recording and for their bright, bluish, straight-edged look. How well a
detector knows real rooms and real faces they cannot say: that takes photographs, which are not drawn here.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from endocorpus.phantom.draws import generator, smooth_field
from endocorpus.phantom.identity.place import field_of
from endocorpus.phantom.identity.traits import IdentityPlan

Frame = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
SPARE = 1.3
"""How many times wider and higher than a frame the drawn scene is: the camera swings over it."""
WALLS = ((206, 214, 216), (224, 222, 210), (188, 204, 214))
FLOORS = ((146, 150, 148), (120, 132, 140), (168, 160, 148))
DRAPES = ((64, 128, 120), (82, 122, 172), (118, 150, 160))
SKINS = ((244, 212, 188), (226, 182, 150), (190, 138, 104), (128, 88, 64))
HAIRS = ((28, 24, 22), (92, 62, 40), (168, 132, 84), (140, 140, 142))


def view(plan: IdentityPlan, segment: int, time_s: float) -> Frame:
    """What the camera sees in a "room" or "face" segment; shape (height, width, 3)."""
    width, height = plan.size
    middle = field_of(plan.layout, plan.size).centre[0] / width
    scene = _scene(plan.seed, segment, plan.segments[segment].scenery, plan.size, middle)
    across = int((scene.shape[1] - width) * (0.5 + 0.5 * sin(0.9 * time_s + plan.seed % 5)))
    down = int((scene.shape[0] - height) * (0.5 + 0.5 * cos(1.3 * time_s)))
    return scene[down : down + height, across : across + width]


@lru_cache(maxsize=4)
def _scene(seed: int, segment: int, scenery: str, size: tuple[int, int], middle: float) -> Frame:
    """All that the camera swings over; shape (``SPARE`` height, ``SPARE`` width, 3).

    ``middle`` is where the field of view has its middle, as a share of the frame's width: a face lies around there.
    """
    rng = generator(seed, "identity", "scene", segment)
    width, height = round(SPARE * size[0]), round(SPARE * size[1])
    image = Image.new("RGB", (width, height), _pick(rng, WALLS))
    brush = ImageDraw.Draw(image)
    _furnish(brush, rng, width, height)
    if scenery == "face":
        near = height * float(rng.uniform(0.22, 0.3))
        _person(brush, rng, size[0] * (middle + float(rng.uniform(0.1, 0.2))), height * 0.45, near)
    elif rng.random() < 0.5:  # someone at the back of the room
        _person(brush, rng, width * float(rng.uniform(0.2, 0.8)), height * 0.4, height * 0.07)
    blur = height / (150 if scenery == "face" else 400)  # a camera held close to a face is out of focus
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    light = smooth_field(rng, (height, width), height / 8, height / 2)[..., None] * np.float32(6)
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(2)
    scene: Frame = np.clip(soft + light + grain, 0, 255).astype(np.uint8)
    scene.setflags(write=False)
    return scene


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _shade(colour: Colour, by: float) -> Colour:
    return (min(255, int(colour[0] * by)), min(255, int(colour[1] * by)), min(255, int(colour[2] * by)))


def _furnish(brush: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """Floor, window, cupboard, a trolley with a screen, a lamp, and a couch with a drape."""

    def box(x: float, y: float, w: float, h: float, colour: Colour) -> None:
        brush.rectangle((x * width, y * height, (x + w) * width, (y + h) * height), fill=colour)

    floor = _pick(rng, FLOORS)
    box(0, 0.68, 1, 0.32, floor)
    for tile in range(9):  # tiles in perspective
        ends = (width * tile / 8, 0.68 * height, width * (2.2 * tile / 8 - 0.6), height)
        brush.line(ends, fill=_shade(floor, 0.9), width=2)
    window = float(rng.uniform(0.02, 0.3))
    box(window, 0.08, 0.26, 0.32, (250, 252, 255))
    box(window + 0.125, 0.08, 0.008, 0.32, (170, 176, 180))
    box(window, 0.235, 0.26, 0.01, (170, 176, 180))
    cupboard = float(rng.uniform(0.6, 0.76))
    box(cupboard, 0.22, 0.2, 0.5, (176, 166, 148))
    for shelf in range(4):
        box(cupboard + 0.012, 0.24 + 0.12 * shelf, 0.176, 0.1, (196, 188, 172))
        box(cupboard + 0.09, 0.285 + 0.12 * shelf, 0.02, 0.008, (90, 90, 94))
    trolley = float(rng.uniform(0.36, 0.48))
    box(trolley, 0.3, 0.15, 0.2, (40, 42, 48))
    box(trolley + 0.01, 0.315, 0.13, 0.165, (58, 74, 96))
    box(trolley + 0.06, 0.5, 0.03, 0.25, (110, 114, 120))
    box(trolley - 0.01, 0.72, 0.17, 0.03, (110, 114, 120))
    lamp = float(rng.uniform(0.3, 0.7))
    box(lamp + 0.045, 0, 0.01, 0.06, (150, 154, 158))
    brush.ellipse((lamp * width, 0.04 * height, (lamp + 0.1) * width, 0.12 * height), fill=(255, 255, 250))
    drape = _pick(rng, DRAPES)
    start = float(rng.uniform(0, 0.35))
    brush.polygon([(start * width, 0.8 * height), ((start + 0.5) * width, 0.76 * height),
                   ((start + 0.6) * width, height), ((start - 0.05) * width, height)], fill=drape)  # fmt: skip
    for fold in range(7):
        x = (start + 0.07 * (fold + 1)) * width
        brush.line((x, 0.79 * height, x + 0.02 * width, height), fill=_shade(drape, 0.86), width=max(2, height // 160))


def _person(brush: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    """Head and shoulders, the head an ellipse of half height ``r`` around (x, y); now and then with a cap or a mask."""
    skin, hair, cloth = _pick(rng, SKINS), _pick(rng, HAIRS), _pick(rng, DRAPES)

    def oval(dx: float, dy: float, rx: float, ry: float, colour: Colour) -> None:
        brush.ellipse((x + (dx - rx) * r, y + (dy - ry) * r, x + (dx + rx) * r, y + (dy + ry) * r), fill=colour)

    oval(0, 2.35, 1.75, 1.15, cloth)  # shoulders
    brush.rectangle((x - 0.3 * r, y + 0.7 * r, x + 0.3 * r, y + 1.35 * r), fill=_shade(skin, 0.86))
    oval(0, -0.25, 0.86, 0.92, hair)
    for side in (-1, 1):
        oval(0.76 * side, 0.05, 0.12, 0.2, _shade(skin, 0.9))  # ears
    oval(0, 0.08, 0.74, 0.96, skin)
    for side in (-1, 1):
        oval(0.32 * side, -0.1, 0.21, 0.13, _shade(skin, 0.84))  # sockets
        oval(0.31 * side, -0.09, 0.13, 0.055, (232, 224, 216))
        oval(0.31 * side, -0.09, 0.058, 0.058, (50, 38, 30))
        oval(0.32 * side, -0.26, 0.18, 0.035, _shade(hair, 0.9))  # brows
        oval(0.44 * side, 0.34, 0.16, 0.14, _shade(skin, 1.04))  # cheeks
        oval(0.1 * side, 0.3, 0.05, 0.035, _shade(skin, 0.55))  # nostrils
    nose = [(x - 0.03 * r, y - 0.1 * r), (x - 0.13 * r, y + 0.3 * r), (x + 0.13 * r, y + 0.3 * r)]
    brush.polygon(nose, fill=_shade(skin, 0.92))
    oval(0.02, 0.14, 0.05, 0.16, _shade(skin, 1.06))
    oval(0, 0.56, 0.25, 0.07, (170, 90, 84))
    brush.line((x - 0.24 * r, y + 0.56 * r, x + 0.24 * r, y + 0.56 * r), fill=(110, 50, 48), width=max(1, int(r / 40)))
    oval(0, 0.86, 0.3, 0.06, _shade(skin, 0.9))  # chin
    if rng.random() < 0.3:
        brush.chord((x - 0.86 * r, y - 1.2 * r, x + 0.86 * r, y + 0.4 * r), 190, 350, fill=(120, 176, 206))  # cap
    if rng.random() < 0.25:
        brush.chord((x - 0.72 * r, y - 0.42 * r, x + 0.72 * r, y + 1.1 * r), 0, 180, fill=(150, 200, 222))  # mask
