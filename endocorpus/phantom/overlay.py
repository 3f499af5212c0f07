"""What is burnt into the pixels: text of a video processor, and a frame counter that survives scaling and codecs."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from endocorpus.phantom.traits import Overlay, Traits

Frame = npt.NDArray[np.uint8]
CELLS = 20
"""Blocks of the counter strip: white, black, sixteen bits (highest first), and two check bits."""


def text_size(text: str, height: int, clock: bool = False) -> tuple[int, int]:
    """Width and height in pixels of the box that holds ``text`` in letters of about ``height`` pixels.

    A clock gets room for the widest digit, so that its box never changes.
    """
    shown = ["".join(digit if c.isdigit() else c for c in text) for digit in "0123456789"]
    boxes = [_font(height).getbbox(line) for line in (shown if clock else [text])]
    return int(max(box[2] for box in boxes)) + 3, int(max(box[3] for box in boxes)) + 3


def overlay_text(overlay: Overlay, traits: Traits, frame: int) -> str:
    """What the overlay reads on ``frame``."""
    if overlay.kind != "clock":
        return overlay.text
    hours, minutes, seconds = (int(part) for part in overlay.text.split(":"))
    now = hours * 3600 + minutes * 60 + seconds + int(traits.seconds(frame))
    return f"{now // 3600 % 24:02d}:{now // 60 % 60:02d}:{now % 60:02d}"


def burn_in(frame: Frame, index: int, traits: Traits) -> None:
    """Draw the inset, every overlay of frame ``index``, then the counter, in place. Shape (height, width, 3)."""
    if traits.inset is not None:
        x0, y0, x1, y1 = traits.inset
        draw_scope(frame[y0:y1, x0:x1], float(traits.seconds(index)))
    for overlay in traits.overlays:
        if overlay.span[0] <= index < overlay.span[1]:
            x0, y0, x1, y1 = overlay.box
            ink = _ink(overlay_text(overlay, traits, index), overlay.height, x1 - x0, y1 - y0)
            box = frame[y0:y1, x0:x1]
            colour = np.array(overlay.colour, np.float32)
            box[...] = (box + (colour - box) * ink[..., None] + np.float32(0.5)).astype(np.uint8)
    if traits.frame_counter:
        draw_frame_counter(frame, index)


def draw_scope(box: Frame, seconds: float) -> None:
    """Draw the course of the scope as a position finder shows it, light green on dark green, in place."""
    height, width = box.shape[:2]
    box[...] = (10, 66, 28)
    along = np.linspace(0, 1, 4 * (height + width))
    turn = 2 * np.pi * (1.4 * along + 0.05 * seconds)
    x = width * (0.5 + 0.32 * along * np.cos(turn) + 0.05 * np.sin(seconds))
    y = height * (0.92 - 0.75 * along + 0.16 * along * np.sin(turn))
    cols, rows = (np.clip(at.astype(np.intp), 1, side - 2) for at, side in ((x, width), (y, height)))
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        box[rows + down, cols + right] = (120, 240, 130)


@lru_cache(maxsize=16)
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)


@lru_cache(maxsize=256)
def _ink(text: str, size: int, width: int, height: int) -> npt.NDArray[np.float32]:
    """Coverage of each pixel by the letters, 0 to 1; shape (height, width)."""
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((1, 1), text, fill=255, font=_font(size))
    return np.asarray(image, np.float32) / np.float32(255)


def _cells(height: int, width: int) -> tuple[int, list[int]]:
    """First row of the strip, and the left edge of every block and the right edge of the last."""
    return height - max(4, round(height / 16)), [round(cell * width / CELLS) for cell in range(CELLS + 1)]


def _check(number: int) -> int:
    return (number.bit_count() + 1) % 4


def draw_frame_counter(frame: Frame, index: int) -> None:
    """Draw the number ``index`` (modulo 65536) as blocks along the bottom of any frame, in place."""
    number = index % 65536
    bits = f"10{number:016b}{_check(number):02b}"
    # Half of the strips, by a hash of the number (Knuth), are negatives: what stands still would be taken for a part of
    # the device, and hidden.
    white = "10"[number * 40503 >> 15 & 1]
    top, edges = _cells(*frame.shape[:2])
    for cell, bit in enumerate(bits):
        frame[top:, edges[cell] : edges[cell + 1]] = 235 if bit == white else 16


def read_frame_counter(frame_rgb: Frame) -> int:
    """The frame number (modulo 65536) in the strip at the bottom of a frame, shape (height, width, 3), at any scale.

    Raises ``ValueError`` if the strip is missing or damaged.
    """
    height, width = frame_rgb.shape[:2]
    top, edges = _cells(height, width)
    rows = frame_rgb[top + (height - top) // 4 : height - (height - top) // 4]
    bits = ""
    for left, right in pairwise(edges):
        inset = (right - left) // 4
        level = float(rows[:, left + inset : right - inset].mean())
        if 90 < level < 160:
            raise ValueError(f"no frame counter here: a block of the strip is grey ({level:.0f})")
        bits += "1" if level >= 160 else "0"
    if bits[0] == "0":
        bits = bits.translate({ord("0"): "1", ord("1"): "0"})
    number, check = int(bits[2:18], 2), int(bits[18:], 2)
    if bits[:2] != "10" or check != _check(number):
        raise ValueError(f"no frame counter here: the strip reads {bits}")
    return number
