"""SUN colonoscopy video database and SUN-SEG: 100 polyp cases, 13 cases without, as numbered images.

Positive and negative cases have the same folder names, in archives that differ. Numbers in file names are not padded
and have gaps; a case consists of parts, and parts of scenes, so three numbers give the order. A token in the names
stands for the examination: cases that share it are of one patient. SUN-SEG adds masks, and re-organises the images of
whoever runs its script; both trees are read.

Not seen by anyone here: whether corners of boxes are the last pixel or the one after it; they are taken as edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

from endocorpus.records import Kind
from endocorpus.sources.layout import FrameFolders, Labels, Layout, Note, Sidecars
from endocorpus.sources.readers import coco_boxes, lines_of, listed, mask_picture, numbers_in

_NAME = r"case_M_\d{14}_(?P<exam>\w+)_\d+_\d{3}_(?P<part>\d{3})-\d+_a(?P<scene>\d+)_ayy_image(?P<frame>\d{4,})"
_STEM = r"(?P<stem>case_M_[^/]+)"
_ORDER = ("part", "scene", "frame")
_POSITIVE = r"(?:.*/)?(?:sundatabase_positive_part\d+|SUN-Positive)"
_NEGATIVE = r"(?:.*/)?(?:sundatabase_negative_part\d+|SUN-Negative)"
_SEG = r"(?:.*/)?(?P<split>TrainDataset|Test(?:Easy|Hard)Dataset/(?:Seen|Unseen))"
_CLIP = r"case(?P<case>\d+)(?P<clip>(?:_\d+)?)"
_OF_CLIP = ("pos-case{case}", "seg-case{case}{clip}")


def sun_boxes(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """A line per frame: ``file.jpg xmin,ymin,xmax,ymax,class``, class 0 polyp, 1 no polyp."""
    for number, line in lines_of(path):
        frame, _, rest = line.rpartition(" ")
        where = f"line {number}"
        *corners, kind = numbers_in(rest.split(","), where, 5)
        about = Note(kind=Kind.NONE, name="box", raw=f"{kind:g}", frame=PurePosixPath(frame).stem, where=where)
        if kind == 1:
            yield about
        else:
            xmin, ymin, xmax, ymax = corners
            yield replace(about, kind=Kind.BOX, box=(xmin, ymin, xmax, ymax), instance=0)


def _frames(folder: str, recording: str, rate: Fraction = Fraction(30), **labels: str) -> FrameFolders:
    return FrameFolders(
        pattern=rf"{folder}/{_NAME}\.jpg",
        recording=recording,
        case=recording,
        case_basis="lesion",
        rate=rate,
        order=_ORDER,
        gaps="join",
        links=("exam",),
        labels=labels,
    )


LAYOUT: Layout = (
    _frames(rf"{_POSITIVE}/case(?P<case>\d+)", "pos-case{case}"),
    # The lengths in frames and seconds that the provider lists make 33.33 frames per second for these two.
    _frames(rf"{_NEGATIVE}/case(?P<case>6|7)", "neg-case{case}", Fraction(100, 3), finding="Non-Polyp"),
    _frames(rf"{_NEGATIVE}/case(?P<case>\d+)", "neg-case{case}", finding="Non-Polyp"),
    FrameFolders(
        pattern=rf"{_SEG}/Frame/{_CLIP}/{_NAME}\.jpg",
        recording="seg-case{case}{clip}",
        case="pos-case{case}",
        case_basis="lesion",
        rate=Fraction(30),
        order=_ORDER,
        gaps="join",
        links=("exam",),
        labels={"official_split": "{split}"},
    ),
    Labels(
        pattern=rf"{_POSITIVE}/annotation_txt/case(?P<case>\d+)\.txt",
        read=sun_boxes,
        recording=("pos-case{case}",),
        complete_for="pos-case{case}",
    ),
    *(
        Labels(
            pattern=rf"{_SEG}/{folder}/{_CLIP}/{_STEM}\.png",
            read=mask_picture(name),
            recording=_OF_CLIP,
            frame="{stem}",
            complete_for="seg-case{case}{clip}" if name == "mask" else None,
        )
        for folder, name in (("GT", "mask"), ("Edge", "edge"), ("Scribble", "scribble"), ("Polygon", "polygon"))
    ),
    Labels(pattern=rf"{_SEG}/Classification/classification\.txt", read=listed("frame", "finding", delimiter="\t")),
    Labels(pattern=rf"{_SEG}/Detection/bbox_annotation\.json", read=coco_boxes("box", "polyp")),
    Sidecars(pattern=r".*\.(?:txt|pdf|md|html|json|xlsx)"),
)
