"""How each source lies on disk, one module each. A module imports what it is made of from `layouts.layout`."""

from __future__ import annotations

from endocorpus.phantom.layouts import colonoscopic, hyper_kvasir, kvasir_capsule, ldpolypvideo
from endocorpus.phantom.layouts.layout import Item, Layout, Request, Trap

LAYOUTS: dict[str, Layout] = {
    "colonoscopic": colonoscopic.LAYOUT,
    "hyper-kvasir": hyper_kvasir.LAYOUT,
    "kvasir-capsule": kvasir_capsule.LAYOUT,
    "ldpolypvideo": ldpolypvideo.LAYOUT,
}

__all__ = ["LAYOUTS", "Item", "Layout", "Request", "Trap"]
