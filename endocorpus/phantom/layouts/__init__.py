"""How each source lies on disk, one module each. A module imports what it is made of from `layouts.layout`."""

from __future__ import annotations

from endocorpus.phantom.layouts import (
    cholectriplet,
    colonoscopic,
    cvc_12k,
    hyper_kvasir,
    kumc,
    kvasir_capsule,
    ldpolypvideo,
    polypdiag,
    real_colon,
    renji,
    sun,
)
from endocorpus.phantom.layouts.layout import Item, Layout, Request, Trap

LAYOUTS: dict[str, Layout] = {
    "cholectriplet": cholectriplet.LAYOUT,
    "colonoscopic": colonoscopic.LAYOUT,
    "cvc-12k": cvc_12k.LAYOUT,
    "hyper-kvasir": hyper_kvasir.LAYOUT,
    "kumc": kumc.LAYOUT,
    "kvasir-capsule": kvasir_capsule.LAYOUT,
    "ldpolypvideo": ldpolypvideo.LAYOUT,
    "polypdiag": polypdiag.LAYOUT,
    "real-colon": real_colon.LAYOUT,
    "renji": renji.LAYOUT,
    "sun": sun.LAYOUT,
}

__all__ = ["LAYOUTS", "Item", "Layout", "Request", "Trap"]
