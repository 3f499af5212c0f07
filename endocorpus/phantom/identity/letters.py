"""Typefaces, and how much of each pixel a line of text covers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from endocorpus.errors import DataError
from endocorpus.phantom.draws import Floats
from endocorpus.phantom.identity.traits import Face, Item

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Ink(NamedTuple):
    """Coverage of each pixel, 0 to 1, by the letters and by letters and outline together; shape (height, width)."""

    letters: Floats
    with_outline: Floats


def font_file(face: Face) -> Path:
    """Where the Chinese typefaces lie: they come with the package ``pylopdf-fonts-zh-cn`` (data only, SIL OFL 1.1).

    Raises ``DataError`` if it is not installed.
    """
    try:
        import pylopdf_fonts_zh_cn as fonts
    except ImportError:
        raise DataError("planted identifiers need a Chinese typeface: pip install pylopdf-fonts-zh-cn") from None
    return fonts.serif_path() if face == "serif" else fonts.sans_path()


@lru_cache(maxsize=128)
def font(face: Face, px: int) -> Font:
    """A typeface at a size in pixels. Basic layout: what Pillow does the same on every machine."""
    if face == "plain":
        return ImageFont.load_default(px)
    return ImageFont.truetype(str(font_file(face)), px, layout_engine=ImageFont.Layout.BASIC)


def outline_width(item: Item) -> int:
    """Width in pixels of the outline of an item; 0 without one."""
    return max(1, item.px // 12) if item.style == "outline" else 0


def margin(item: Item) -> int:
    """Pixels between the bounds of an item's letters and those of its canvas: room for its outline or its box."""
    return {"plain": 1, "ghost": 1, "outline": outline_width(item) + 1, "box": item.px // 4 + 1}[item.style]


@lru_cache(maxsize=4096)
def _bounds(face: Face, px: int, text: str, is_clock: bool) -> tuple[int, int, int, int]:
    """Bounds of the letters around their origin; of a clock, for every time that it may show."""
    lines = [text[:-8] + "".join(d if c.isdigit() else c for c in text[-8:]) for d in "0123456789"]
    boxes = [font(face, px).getbbox(line) for line in (lines if is_clock else [text])]
    lows, highs = [np.floor(np.min(boxes, 0)), np.ceil(np.max(boxes, 0))]
    return int(lows[0]), int(lows[1]), int(highs[2]), int(highs[3])


def canvas_size(item: Item) -> tuple[int, int]:
    """Width and height in pixels of what the item draws at any one time."""
    left, top, right, bottom = _bounds(item.face, item.px, item.text, item.kind == "clock")
    return right - left + 2 * margin(item), bottom - top + 2 * margin(item)


def item_ink(item: Item, text: str) -> Ink:
    """The letters of ``text`` on the canvas of ``item``."""
    left, top, *_ = _bounds(item.face, item.px, item.text, item.kind == "clock")
    pad = margin(item)
    return ink(text, item.face, item.px, outline_width(item), canvas_size(item), (pad - left, pad - top))


@lru_cache(maxsize=512)
def ink(text: str, face: Face, px: int, outline: int, size: tuple[int, int], origin: tuple[int, int]) -> Ink:
    """``text`` on a canvas of ``size`` (width, height), its origin at ``origin`` (x, y)."""

    def coverage(stroke: int) -> Floats:
        image = Image.new("L", size)
        brush = ImageDraw.Draw(image)
        brush.fontmode = "1" if face == "bitmap" else "L"  # "1": a pixel is on or off, as on old capture cards
        brush.text(origin, text, fill=255, font=font(face, px), stroke_width=stroke)
        covered: Floats = np.asarray(image, np.float32) / np.float32(255)
        covered.setflags(write=False)
        return covered

    letters = coverage(0)
    return Ink(letters, np.maximum(letters, coverage(outline)) if outline else letters)
