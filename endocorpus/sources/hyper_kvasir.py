"""Hyper-Kvasir, labelled videos: 373 videos of the upper and lower tract, most of them PAL.

Depth and spelling of the folders between `labeled-videos` and the files were not seen, so any depth is taken and the
folders stay as they are written. File names differ in blanks and capitals alone; they stay apart. Tables name files
with or without suffix, and some name files that the archive does not have, or not those that it has.
"""

from __future__ import annotations

from endocorpus.sources.layout import VIDEO, Labels, Layout, Sidecars, Videos
from endocorpus.sources.readers import table

LAYOUT: Layout = (
    Videos(
        pattern=r"(?:.*/)?labell?ed-videos/(?:(?P<organ>(?:lower|upper)-gi-tract)/)?(?P<folder>.*?)/?"
        rf"(?P<stem>[^/]+){VIDEO}",
        recording="{stem}",
        case="{stem}",
        case_basis="recording",
        labels={"organ": "{organ}", "folder": "{folder}"},
        exact_names=True,
    ),
    Labels(
        pattern=r"(?:.*/)?hyper-kvasir-video-metadata\.csv",
        read=table("file-name", {"finding": "finding"}, delimiter=";"),
    ),
    Labels(
        pattern=r"(?:.*/)?labell?ed-videos/video-labels\.csv",
        read=table(
            "Video file",
            {
                "Organ": "organ",
                "Finding 1": "finding_1",
                "Finding 2": "finding_2",
                "Classification 1": "classification_1",
                "Classification 2": "classification_2",
            },
        ),
    ),
    Sidecars(pattern=r"(?:.*/)?(?:labell?ed-images|unlabell?ed-images|segmented-images)/.*", what="still image"),
    Sidecars(pattern=r"(?:.*/)?(?:official_splits/.*|[^/]+\.(?:csv|json|md|txt|pdf))"),
)
