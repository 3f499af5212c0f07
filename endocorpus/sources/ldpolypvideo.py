"""LDPolypVideo: 160 labelled videos as numbered images, and 103 videos without labels.

Folders and images have unpadded and padded numbers; images are cropped from another picture than the unlabelled AVIs
show. A frame without a polyp has a label file that says 0. The rate of the images is not published; 25 is assumed.
"""

from __future__ import annotations

from fractions import Fraction

from endocorpus.sources.layout import IMAGE, FrameFolders, Labels, Layout, Sidecars, Videos
from endocorpus.sources.readers import counted_boxes

_PART = r"(?:.*/)?(?P<split>Train(?:Valid)?|Test)"

LAYOUT: Layout = (
    FrameFolders(
        pattern=rf"{_PART}/Images/(?P<video>\d+)/(?P<frame>\d+){IMAGE}",
        recording="{video}",
        case="{video}",
        case_basis="recording",
        rate=Fraction(25),
        labels={"official_split": "{split}"},
    ),
    Labels(
        pattern=rf"{_PART}/Annotations/(?P<video>\d+)/(?P<frame>\d+)\.txt",
        read=counted_boxes("polyp"),
        recording=("{video}",),
        frame="{frame}",
        complete_for="{video}",
    ),
    Videos(
        pattern=r"(?:.*/)?(?P<folder>videos with(?:out)? polyps)/(?P<video>[01]_\d+)\.(?i:avi)",
        recording="{video}",
        case="{video}",
        case_basis="recording",
        labels={"finding": "{folder}"},
    ),
    Sidecars(pattern=r"(?:.*/)?[^/]+\.(?:md|txt|pdf)"),
)
