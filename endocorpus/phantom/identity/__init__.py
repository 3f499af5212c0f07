"""Planted identifiers: what hospitals burn into their recordings, made up, with the exact truth about every pixel.

``plan_identity`` decides everything from a seed, ``draw`` plants a plan into any frame, ``truth_at`` says what a frame
shows without one; ``planted_film`` and ``render_planted`` make whole recordings. Results on these are results on
rendered overlays: they say nothing certain about the fonts and blends of a real device.
"""

from endocorpus.phantom.identity.draw import Seen, Truth, contrast, draw, truth_at
from endocorpus.phantom.identity.film import load_plan, planted_film, render_planted, tissue_film
from endocorpus.phantom.identity.place import shows
from endocorpus.phantom.identity.plan import plan_identity
from endocorpus.phantom.identity.traits import (
    COLOURS,
    LAYOUTS,
    SIZES,
    IdentityPlan,
    Item,
    LayoutName,
    Segment,
    plan_from_json,
    plan_to_json,
)

__all__ = [
    "COLOURS",
    "LAYOUTS",
    "SIZES",
    "IdentityPlan",
    "Item",
    "LayoutName",
    "Seen",
    "Segment",
    "Truth",
    "contrast",
    "draw",
    "load_plan",
    "plan_from_json",
    "plan_identity",
    "plan_to_json",
    "planted_film",
    "render_planted",
    "shows",
    "tissue_film",
    "truth_at",
]
