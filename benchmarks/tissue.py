"""Pictures to fit the head of `endocorpus.deid.head` on: walls of tissue that were never filmed, and variations.

No public package holds endoscopic video, so what is inside the body is mostly drawn, with everything drawn at random
that an endoscopist would not be surprised by: shape, colour, light, shine, vessels, blur, the form of the field.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
SIDE = 160


def wall(rng: np.random.Generator) -> Frame:
    """Folds, tubes and gaps of one colour, lit from the camera; RGB of shape (160, 160, 3)."""
    down, across = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    depth = _depth(rng, across, down)
    slope_y, slope_x = np.gradient(depth, 2 / SIDE)
    normals = np.stack([-slope_x, -slope_y, -np.full_like(depth, rng.uniform(0.6, 1.4))], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    points = np.stack([across * depth, down * depth, depth], axis=-1)
    far = np.linalg.norm(points, axis=-1)
    facing = np.clip(-(normals * points / far[..., None]).sum(axis=-1), 0, 1)
    light = facing ** rng.uniform(0.6, 1.4) / (far**2 + 0.15)
    light /= np.quantile(light, rng.uniform(0.8, 0.97))
    picture = _paint(rng) * light[..., None]
    shine = np.clip(facing + 0.05 * _noise(rng, 0.012), 0, 1.2) ** rng.uniform(25, 90)
    picture += (np.clip(shine - rng.uniform(0.3, 0.9), 0, 1) * rng.uniform(0, 2.5))[..., None]
    picture = (1 - np.exp(-1.3 * picture)) ** (1 / rng.uniform(1.5, 2.4))
    if rng.random() < 0.15:  # narrow bands of light: blue and green
        picture *= np.array([rng.uniform(0.5, 0.8), rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.1)])
    return _to_frame(picture)


def _noise(rng: np.random.Generator, scale: float) -> Floats:
    """Smooth noise of deviation 1; `scale` in parts of a side."""
    field = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), scale * SIDE, mode="wrap")
    return np.asarray(field / field.std(), np.float64)


def _depth(rng: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """Distance of the wall from the camera, in any unit, at least 0.25."""
    centre = rng.uniform(-0.6, 0.6, 2)
    away = np.hypot(across - centre[0], down - centre[1]) / rng.uniform(0.25, 0.9)
    depth = 1.0 + rng.uniform(0.3, 2.5) * rng.choice([0, 1, 1]) * np.exp(-(away**2))
    for scale, height in ((0.22, 0.5), (0.1, 0.25), (0.05, 0.08), (0.02, 0.012)):
        field = _noise(rng, scale)
        ridges = np.abs(field) - 0.8 if rng.random() < 0.6 else field
        depth = depth + 0.6 * height * rng.uniform(0.2, 1.3) * ridges
    if rng.random() < 0.5:  # long bodies, one before another
        angle = rng.uniform(0, np.pi)
        along = across * np.cos(angle) + down * np.sin(angle) + 0.25 * _noise(rng, 0.2)
        bodies = np.abs(np.sin(along * rng.uniform(1.5, 5) + rng.uniform(0, 6)))
        depth = depth - rng.uniform(0.2, 0.7) * bodies ** rng.uniform(0.3, 1)
    return np.asarray(depth - depth.min() + rng.uniform(0.25, 0.9), np.float64)


def _paint(rng: np.random.Generator) -> Floats:
    """Colour of the wall, shape (160, 160, 3): one hue from pale pink to dark red, blotches, vessels."""
    hue = np.array([1.0, rng.uniform(0.35, 0.8), rng.uniform(0.28, 0.75)])
    blotches = 0.1 * rng.uniform(0, 1.5) * _noise(rng, 0.03)
    lines = np.exp(-((np.abs(_noise(rng, rng.uniform(0.015, 0.05))) / rng.uniform(0.02, 0.12)) ** 2))
    vessels = np.clip(lines * ndimage.gaussian_filter(np.abs(_noise(rng, 0.08)), 1), 0, 1) * rng.uniform(0, 0.45)
    paint = hue * (1 + blotches[..., None] * np.array([0.2, 1, 1]))
    return np.asarray(paint * (1 - vessels[..., None] * np.array([0.25, 1, 0.9])), np.float64)


def _to_frame(picture: Floats) -> Frame:
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def screen(rng: np.random.Generator) -> Frame:
    """A list or a form as on a workstation, in made-up words; RGB of shape (270, 480, 3)."""
    dark = rng.random() < 0.5
    ground = rng.integers(0, 70, 3) if dark else rng.integers(185, 256, 3)
    image = Image.new("RGB", (480, 270), tuple(int(value) for value in ground))
    draw = ImageDraw.Draw(image)
    size, left = int(rng.integers(9, 24)), int(rng.integers(5, 60))
    ink = tuple(int(value) for value in (rng.integers(150, 256, 3) if dark else rng.integers(0, 110, 3)))
    for top in range(int(rng.integers(5, 40)), 260, int(size * rng.uniform(1.2, 2.2))):
        columns = [left + int(column * 480 / rng.integers(3, 6)) for column in range(int(rng.integers(1, 4)))]
        if rng.random() < 0.2:
            draw.rectangle((left - 4, top - 2, 470, top + size), fill=tuple(int(v) for v in rng.integers(40, 220, 3)))
        for column in columns:
            word = "".join(chr(97 + int(letter)) for letter in rng.integers(0, 26, int(rng.integers(3, 12))))
            draw.text(
                (column, top), word.title() if rng.random() < 0.7 else str(rng.integers(1e7)), ink, font_size=size
            )
    return np.asarray(image)


def vary(frame: Frame, rng: np.random.Generator, *, inside: bool) -> Frame:
    """The frame as another camera, light and scope might have shown it."""
    image = _crop(Image.fromarray(frame), rng.uniform(0.55, 1), rng)
    if inside:
        image = image.rotate(90 * int(rng.integers(4)), expand=True)  # there is no up in a lumen
    elif rng.random() < 0.3:
        image = image.rotate(rng.uniform(-40, 40))
    return _film(np.asarray(image) / 255, rng)


def recolour(frame: Frame, rng: np.random.Generator) -> Frame:
    """A part of the frame, magnified, in colours of tissue full of blood: made of both kinds, so red is no proof."""
    part = float(np.exp(rng.uniform(np.log(0.22), 0)))
    image = _crop(Image.fromarray(frame), part, rng)
    if part < 0.6:
        image = image.resize((256, 256 * image.height // image.width), Image.Resampling.BICUBIC)
    picture = np.asarray(image.rotate(90 * int(rng.integers(4)), expand=True)) / 255
    if rng.random() < 0.75:
        grey = picture.mean(axis=2, keepdims=True)
        grey = grey / max(float(np.quantile(grey, 0.97)), 0.05)
        bright = np.array([rng.uniform(0.8, 1), rng.uniform(0.35, 0.85), rng.uniform(0.3, 0.8)])
        powers = np.array([rng.uniform(0.5, 0.9), rng.uniform(0.9, 1.7), rng.uniform(0.9, 1.7)])
        ramp = np.clip(grey, 0, 1) ** powers * bright + 2 * np.clip(grey - 0.95, 0, 1)
        share = rng.uniform(0.4, 1)
        picture = picture * (1 - share) + ramp * share
    return _film(picture, rng)


def _crop(image: Image.Image, part: float, rng: np.random.Generator) -> Image.Image:
    width, height = (max(24, int(side * part)) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def _film(picture: Floats, rng: np.random.Generator) -> Frame:
    """Another exposure, colour balance and noise; soft at times; at times through a scope, or with text."""
    picture = picture ** rng.uniform(0.6, 1.6) * rng.uniform(0.75, 1.2, 3) * rng.uniform(0.7, 1.25)
    rich = rng.uniform(0.5, 1.4)
    picture = picture.mean(axis=2, keepdims=True) * (1 - rich) + picture * rich
    image = Image.fromarray(_to_frame(picture + rng.normal(0, rng.uniform(0, 0.04), picture.shape)))
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, max(image.size) / 60)))
    if rng.random() < 0.5:
        image = Image.fromarray(through_scope(np.asarray(image), rng))
    if rng.random() < 0.25:
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 7))):
            place = int(rng.integers(image.width)), int(rng.integers(image.height))
            draw.text(place, f"ID {rng.integers(1e6)}", tuple(int(value) for value in rng.integers(90, 255, 3)))
    return np.asarray(image)


def through_scope(frame: Frame, rng: np.random.Generator) -> Frame:
    """The frame in a circle, an octagon or between pillars, on black or nearly so: the form must not tell the place."""
    height, width = frame.shape[:2]
    form = Image.new("L", (width, height), 0)
    draw, kind = ImageDraw.Draw(form), rng.integers(3)
    if kind == 0:
        radius, middle = min(width, height) * rng.uniform(0.42, 0.75), width / 2 * rng.uniform(0.85, 1.15)
        draw.ellipse((middle - radius, height / 2 - radius, middle + radius, height / 2 + radius), fill=255)
    elif kind == 1:
        x, y, cut = (
            width * rng.uniform(0, 0.25),
            height * rng.uniform(0, 0.1),
            min(width, height) * rng.uniform(0.1, 0.3),
        )
        r, b = width - 1 - x * rng.uniform(0, 1), height - 1 - y
        draw.polygon([(x + cut, y), (r - cut, y), (r, y + cut), (r, b - cut), (r - cut, b), (x + cut, b), (x, b - cut),
                      (x, y + cut)], fill=255)  # fmt: skip
    else:
        side = width * rng.uniform(0.05, 0.25)
        draw.rectangle((side, 0, width - side, height), fill=255)
    border = (int(rng.integers(0, 18)),) * 3
    return np.asarray(Image.composite(Image.fromarray(frame), Image.new("RGB", (width, height), border), form))
