"""The forms in which label files say what the truth knows: mask pictures, outlines, boxes in VOC."""

from __future__ import annotations

import io
from collections.abc import Iterable
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.morphology import convex_hull_image

from endocorpus.phantom.scene import Box
from endocorpus.phantom.truth import RecordingTruth

Mask = npt.NDArray[np.bool_]
Voc = tuple[str, tuple[int, int, int, int]]
"""Class name and ``xmin, ymin, xmax, ymax`` of one object."""


def whole_mask(truth: RecordingTruth, frame: int) -> Mask:
    """Where any polyp is seen on ``frame``; shape (height, width)."""
    return np.asarray(truth.masks(frame).any(axis=0), np.bool_)


def edge(mask: Mask) -> Mask:
    """The outline of a mask: its pixels beside one that does not belong to it, or beside the picture's edge."""
    inner: Mask = ndimage.binary_erosion(mask)
    return mask & ~inner


def hull(mask: Mask) -> Mask:
    """The smallest polygon without dents around a mask, filled: what a person draws with a few clicks."""
    return np.asarray(convex_hull_image(mask), np.bool_) if mask.any() else mask  # type: ignore[no-untyped-call]


def ellipses(boxes: Iterable[Box], shape: tuple[int, int]) -> Mask:
    """The ellipse in each box, as a set that approximates its masks stores them; ``shape`` is (height, width)."""
    picture = Image.new("1", shape[::-1])
    for box in boxes:
        ImageDraw.Draw(picture).ellipse((box.xmin, box.ymin, box.xmax - 1, box.ymax - 1), fill=1)
    return np.asarray(picture, np.bool_)


def picture_bytes(pixels: npt.NDArray[np.uint8] | Mask, kind: str) -> bytes:
    """A picture file of Pillow's format ``kind`` ("PNG", "TIFF", "BMP", "JPEG"); a mask is 0 and 255."""
    if pixels.dtype == np.bool_:
        pixels = np.where(pixels, 255, 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def corners(box: Box) -> tuple[int, int, int, int]:
    """``xmin, ymin, xmax, ymax`` of a box."""
    return box.xmin, box.ymin, box.xmax, box.ymax


def voc_xml(
    objects: Iterable[Voc], *, folder: str, filename: str, path: str, size: tuple[int, int], pad: str = ""
) -> bytes:
    """A Pascal VOC file as LabelImg writes it: tabs, no declaration. ``size`` is (width, height); ``pad`` is put
    before every number of a box."""
    lines = [
        "<annotation>", f"\t<folder>{escape(folder)}</folder>", f"\t<filename>{escape(filename)}</filename>",
        f"\t<path>{escape(path)}</path>", "\t<source>", "\t\t<database>Unknown</database>", "\t</source>",
        "\t<size>", f"\t\t<width>{size[0]}</width>", f"\t\t<height>{size[1]}</height>", "\t\t<depth>3</depth>",
        "\t</size>", "\t<segmented>0</segmented>",
    ]  # fmt: skip
    for name, box in objects:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        lines += [
            "\t<object>", f"\t\t<name>{escape(name)}</name>", "\t\t<pose>Unspecified</pose>",
            "\t\t<truncated>0</truncated>", "\t\t<difficult>0</difficult>", "\t\t<bndbox>",
            *(f"\t\t\t<{side}>{pad}{at}</{side}>" for side, at in sides),
            "\t\t</bndbox>", "\t</object>",
        ]  # fmt: skip
    return ("\n".join([*lines, "</annotation>"]) + "\n").encode()
