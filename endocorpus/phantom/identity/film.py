"""Whole recordings with planted identifiers: over the phantom's own tissue, or over anyone's frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from endocorpus.phantom.draws import generator
from endocorpus.phantom.identity.draw import Frame, Truth, draw
from endocorpus.phantom.identity.place import area_box, field_of, shows
from endocorpus.phantom.identity.traits import IdentityPlan, LayoutName, plan_from_json, plan_to_json
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.scene import Scene
from endocorpus.phantom.traits import Field
from endocorpus.phantom.truth import write_json
from endocorpus.phantom.video import encode

RENDERED = 360
"""Rows of the tissue as it is rendered, before it is blown up: larger frames would only cost time, not look sharper."""


def tissue_film(
    seed: int, size: tuple[int, int], frames: int, rate: Fraction, layout: LayoutName
) -> Iterator[Frame]:  # fmt: skip
    """Moving tissue in a layout, without any text: RGB frames of shape (height, width, 3), black beside the picture."""
    x0, y0, x1, y1 = area_box(layout, size)
    shown, field = shows(layout, size)[..., None], field_of(layout, size)
    scale = max(1.0, (y1 - y0) / RENDERED)
    small = (_even((x1 - x0) / scale), _even((y1 - y0) / scale))
    centre = ((field.centre[0] - x0) / scale, (field.centre[1] - y0) / scale)
    # A little wider than in the frame, so that the soft edge of the small picture is cut off.
    wide = Field(shape=field.shape, centre=centre, radius=field.radius / scale + 3, flat=field.flat / scale + 3)
    traits = plan_recording(
        seed, size=small, rate=rate, frames=frames, overlays=False, outside=False, frozen=False, lumen=seed % 50,
        light="NBI" if seed % 6 == 5 else "WL",
    )  # fmt: skip
    scene = Scene(replace(traits, field=wide), seed)
    for index in range(frames):
        picture = Image.fromarray(scene.render(index)[0]).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
        frame = np.zeros((size[1], size[0], 3), np.float32)
        grain = generator(seed, "identity", "grain", index).standard_normal((y1 - y0, x1 - x0, 1), dtype=np.float32)
        frame[y0:y1, x0:x1] = np.asarray(picture, np.float32) + grain * np.float32(1.6)
        yield np.clip(frame * shown, 0, 255).astype(np.uint8)


def _even(length: float) -> int:
    return max(64, 2 * round(length / 2))


def planted_film(plan: IdentityPlan, frames: Iterable[Frame] | None = None) -> Iterator[tuple[Frame, Truth]]:
    """Every frame of a plan with its truth: over ``frames``, as many as there are, or over the phantom's own tissue."""
    if frames is None:
        frames = tissue_film(plan.seed, plan.size, plan.frames, plan.rate, plan.layout)
    for index, frame in zip(range(plan.frames), frames, strict=False):
        yield draw(frame, plan, Fraction(index) / plan.rate)


def render_planted(path: Path, plan: IdentityPlan, *, crf: int = 20, frames: Iterable[Frame] | None = None) -> None:
    """Write a planted recording to ``path``, and its plan beside it as ``<name>.json``: the truth follows from it.

    ``load_plan`` reads it back; ``truth_at(plan, index / plan.rate)`` is the truth of a frame.
    """
    pictures = (picture for picture, _ in planted_film(plan, frames))
    encode(path, pictures, plan.size, plan.rate, crf=crf, gop=50)
    write_json(path.with_suffix(".json"), plan_to_json(plan))


def load_plan(path: Path) -> IdentityPlan:
    """The plan of a recording that ``render_planted`` wrote, from its JSON file."""
    return plan_from_json(json.loads(path.read_text(encoding="utf-8")))
