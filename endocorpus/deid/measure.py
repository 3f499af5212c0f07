"""What is measured on each sampled frame before `outside` judges: the head, the face detector, change, and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from endocorpus.deid.head import Frame, Head, cut, outside, probability
from endocorpus.deid.models import load
from endocorpus.deid.outside import Look
from endocorpus.records import Box

FACES = "faces"
FACE_SIDE, FACE_ZOOM = 640, 2.0  # pixels of the longer side that the face detector sees, enlarged so much at most
STEP = 32  # it takes pictures whose sides are multiples of this
THUMB = (160, 90)  # in which change is measured, in grey levels
CELLS = 32  # per side, of the grid that tells usual text from unusual
USUAL = 0.5  # of all looks that show text in a cell: then it belongs to the device
FULL = 0.2  # of the picture that may be text, usual or not


def look_at(frames: Iterable[tuple[int, Frame]], head: Head, content: Box | None = None) -> tuple[Look, ...]:
    """Measure sampled frames, in their order; text is left at none, see `with_text`.

    Args:
        frames: numbers of frames, rising, and their pictures: RGB of shape (height, width, 3), all of one size.
        content: the part of the picture that shows the endoscopic image.

    Raises:
        DataError: a model is missing or changed.
    """
    looks: list[Look] = []
    before: npt.NDArray[np.int16] | None = None
    for number, frame in frames:
        thumb = _thumb(frame, content)
        change = 255.0 if before is None else float(np.abs(thumb - before).mean())
        chance = float(probability(np.array(outside(head, frame, content))))
        looks.append(Look(frame=number, outside=chance, face=face(frame, content), change=change))
        before = thumb
    return tuple(looks)


def _thumb(frame: Frame, content: Box | None) -> npt.NDArray[np.int16]:
    image = cut(frame, content).convert("L").resize(THUMB, Image.Resampling.BOX)
    return np.asarray(image, np.int16)


def face(frame: Frame, content: Box | None = None) -> float:
    """How sure the detector is of its surest face, 0 to 1.

    Raises:
        DataError: the model is missing or changed.
    """
    picture = cut(frame, content)
    scale = min(FACE_ZOOM, FACE_SIDE / max(picture.size))
    width, height = (max(STEP, round(side * scale / STEP) * STEP) for side in picture.size)
    image = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return float(np.clip(load(FACES)(np.asarray(image)[None])[0], 0, 1))


def with_text(looks: Sequence[Look], boxes: Sequence[Sequence[Box]], content: Box) -> tuple[Look, ...]:
    """Looks with what a text detector found on them: boxes in pixels of the frame, one list for each look.

    Text at a place where half of all looks show some belongs to the device and is no reason to distrust a picture; it
    counts only if all text together fills a fifth of it. Screens and documents show text elsewhere.
    """
    inside = [[cut for box in found if (cut := _cut(box, content))] for found in boxes]
    covers = [[_cells(box, content) for box in found] for found in inside]
    shown = sum((np.logical_or.reduce(cover).astype(int) for cover in covers if cover), np.zeros((CELLS, CELLS), int))
    usual = shown >= max(2, USUAL * len(looks))
    area = (content[2] - content[0]) * (content[3] - content[1])
    out = []
    for look, found, cover in zip(looks, inside, covers, strict=True):
        sizes = [(box[2] - box[0]) * (box[3] - box[1]) / area for box in found]
        strange = [size for size, cells in zip(sizes, cover, strict=True) if 2 * (cells & usual).sum() < cells.sum()]
        share = sum(sizes) if sum(sizes) > FULL else sum(strange)
        out.append(replace(look, text_lines=len(strange), text_share=min(1.0, float(share))))
    return tuple(out)


def _cut(box: Box, content: Box) -> Box | None:
    """The part of a box that lies in `content`."""
    left, top, right, bottom = (
        max(box[0], content[0]), max(box[1], content[1]), min(box[2], content[2]), min(box[3], content[3]),
    )  # fmt: skip
    return (left, top, right, bottom) if left < right and top < bottom else None


def _cells(box: Box, content: Box) -> npt.NDArray[np.bool_]:
    """Which cells of a grid over `content` a box touches; shape (CELLS, CELLS)."""
    left, top, right, bottom = content
    edges_x = left + np.arange(CELLS + 1) * (right - left) / CELLS
    edges_y = top + np.arange(CELLS + 1) * (bottom - top) / CELLS
    rows = (edges_y[1:] > box[1]) & (edges_y[:-1] < box[3])
    cols = (edges_x[1:] > box[0]) & (edges_x[:-1] < box[2])
    return np.asarray(rows[:, None] & cols[None])
