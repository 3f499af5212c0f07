"""How each source lies on disk, one module each. A module imports what it is made of from `layouts.layout`."""

from __future__ import annotations

from endocorpus.phantom.layouts import (
    cholectriplet,
    colonoscopic,
    hyper_kvasir,
    kvasir_capsule,
    ldpolypvideo,
    real_colon,
    renji,
)
from endocorpus.phantom.layouts.layout import Item, Layout, Request, Trap

LAYOUTS: dict[str, Layout] = {
    "cholectriplet": cholectriplet.LAYOUT,
    "colonoscopic": colonoscopic.LAYOUT,
    "hyper-kvasir": hyper_kvasir.LAYOUT,
    "kvasir-capsule": kvasir_capsule.LAYOUT,
    "ldpolypvideo": ldpolypvideo.LAYOUT,
    "real-colon": real_colon.LAYOUT,
    "renji": renji.LAYOUT,
}

__all__ = ["LAYOUTS", "Item", "Layout", "Request", "Trap"]
