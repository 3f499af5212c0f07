"""Any folder of videos, or of folders with numbered frames: your own recordings, or a set without a module yet.

Declared private unless its owner says otherwise. A recording is named after its path; where it is public, the id
repeats that in `[a-z0-9-]` together with a hash, so that names in any script stay distinct. Images carry no time: 25
frames per second are assumed unless their owner gives another rate.
"""

from __future__ import annotations

from fractions import Fraction

from endocorpus.sources.layout import ANY_FRAME, ANY_VIDEO, FrameFolders, Layout, Videos

LAYOUT: Layout = (
    Videos(pattern=ANY_VIDEO, recording="{path}", case="{path}", case_basis="recording"),
    FrameFolders(
        pattern=ANY_FRAME,
        recording="{path}/{before}",
        case="{path}/{before}",
        case_basis="recording",
        rate=Fraction(25),
    ),
)
