"""Three sets of Hospital Clinic Barcelona that are often taken for one another, kept apart here.

CVC-ClinicDB: 612 images of 29 sequences, numbered through; what Endo-FM calls CVC-12k. CVC-ClinicVideoDB: videos as
images named sequence-frame, masks are ellipses. CVC-ColonDB: 300 images whose order and sequences are not published,
taken as one recording so that no splitter can part what belongs together.
"""

from __future__ import annotations

import csv
from fractions import Fraction

from endocorpus.manifests import manifests_folder
from endocorpus.sources.layout import IMAGE, FrameFolders, Labels, Layout, Sidecars
from endocorpus.sources.readers import mask_picture


def _clinic_ranges() -> tuple[tuple[int, int], ...]:
    text = (manifests_folder() / "tables" / "cvc_clinicdb_sequences.csv").read_text(encoding="utf-8")
    return tuple((int(row["start"]), int(row["end"])) for row in csv.DictReader(text.splitlines()))


_RANGES = _clinic_ranges()
_CLINIC = r"(?:.*/)?CVC-ClinicDB/(?:PNG/|TIF/)?"
_VIDEO = (
    r"(?:.*/)?(?i:CVC-(?:Video)?Clinic(?:Video)?DB)_?train(?:_?valid)?/(?P<folder>\d+)/"
    r"(?P<video>\d+)(?P<mark>[-_])(?P<frame>\d+)"
)
_TEST = r"(?:.*/)?(?i:cvc-?videoclinicdb_?test)[^/]*/(?P<folder>\d+)/(?P<video>\d+)[-_](?P<frame>\d+)"
_COLON = r"(?:.*/)?CVC-ColonDB/(?:CVC-ColonDB/)?"

LAYOUT: Layout = (
    FrameFolders(
        pattern=rf"{_CLINIC}Original/(?P<frame>\d+){IMAGE}",
        recording="clinicdb-{range}",
        case="clinicdb-{range}",
        case_basis="sequence",
        rate=Fraction(25),
        gaps="join",
        ranges=_RANGES,
    ),
    Labels(
        pattern=rf"{_CLINIC}Ground Truth/(?P<frame>\d+){IMAGE}",
        read=mask_picture("mask"),
        recording=("clinicdb-{range}",),
        frame="{frame}",
        complete_for="clinicdb-{range}",
        ranges=_RANGES,
    ),
    Labels(
        pattern=rf"{_VIDEO}_(?:mask|Polyp){IMAGE}",
        read=mask_picture("mask", "ellipse"),
        recording=("videodb-train-{video}",),
        frame="{video}{mark}{frame}",
    ),
    *(
        FrameFolders(
            pattern=rf"{pattern}{IMAGE}",
            recording=f"videodb-{part}-{{video}}",
            case=f"videodb-{part}-{{video}}",
            case_basis="sequence",
            rate=Fraction(25),
            gaps="join",
        )
        for pattern, part in ((_VIDEO, "train"), (_TEST, "test"))
    ),
    *(
        Labels(
            pattern=rf"{_COLON}{letter}(?P<frame>\d+){IMAGE}",
            read=mask_picture(name),
            recording=("colondb",),
            frame="{frame}",
            complete_for="colondb" if name == "mask" else None,
        )
        for letter, name in (("p", "mask"), ("s", "uninformative"), ("c", "contour"))
    ),
    FrameFolders(
        pattern=rf"{_COLON}(?P<frame>\d+){IMAGE}",
        recording="colondb",
        case="colondb",
        case_basis="unknown",
        rate=Fraction(25),
        gaps="join",
    ),
    Sidecars(pattern=r"(?:.*/)?[^/]+\.(?:md|txt|pdf|csv|xml)"),
)
