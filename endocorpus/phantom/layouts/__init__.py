"""How each source lies on disk, one module each. A module imports what it is made of from `layouts.layout`."""

from __future__ import annotations

from endocorpus.phantom.layouts import colonoscopic, cvc_12k, kumc, ldpolypvideo, polypdiag, sun
from endocorpus.phantom.layouts.layout import Item, Layout, Request, Trap

LAYOUTS: dict[str, Layout] = {
    "colonoscopic": colonoscopic.LAYOUT,
    "cvc-12k": cvc_12k.LAYOUT,
    "kumc": kumc.LAYOUT,
    "ldpolypvideo": ldpolypvideo.LAYOUT,
    "polypdiag": polypdiag.LAYOUT,
    "sun": sun.LAYOUT,
}

__all__ = ["LAYOUTS", "Item", "Layout", "Request", "Trap"]
