"""KUMC PolypsSet: sequences of several older sets, boxes around adenomatous and hyperplastic polyps.

Validation and test images lie in folders by sequence, whose numbers collide. Training images lie in one folder under
shuffled numbers; only the path written inside each label file tells the sequence and the place in it. What label files
say of their own name is otherwise wrong, so images and labels are joined by stem.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path, PurePosixPath

from endocorpus.sources.layout import IMAGE, FrameFolders, LabelError, Labels, Layout, NamedBy, Sidecars
from endocorpus.sources.readers import voc_boxes, xml_of

_TRAIN = r"(?P<top>(?:.*/)?)train2019"
_OTHER = r"(?:.*/)?(?P<split>val|test)2019"
_GENERAL_FOLDERS = {"", "image", "images", "jpegimages", "train2019", "annotation"}


def written_place(path: Path) -> Mapping[str, str] | None:
    """The sequence and number that a label file gives in its path and file name; None if it gives none.

    The path may be the folder or the file. The folder names the sequence; where it is a general one, what the file's
    name begins with does.
    """
    try:
        root = xml_of(path)
    except (LabelError, OSError):
        return None
    place, name = (PurePosixPath((root.findtext(tag) or "").strip().replace("\\", "/")) for tag in ("path", "filename"))
    folder, stem = (place.parent.name, place.stem) if place.suffix else (place.name, name.stem)
    before = stem.rstrip("0123456789")
    number = stem[len(before) :]
    sequence = before.rstrip("_- ") if folder.casefold() in _GENERAL_FOLDERS else folder
    return {"sequence": sequence, "number": number} if sequence and 0 < len(number) < 19 else None


_PLACE = NamedBy(path="{top}train2019/Annotation/{frame}.xml", read=written_place)

LAYOUT: Layout = (
    FrameFolders(
        pattern=rf"{_TRAIN}/Image/(?P<frame>\d+){IMAGE}",
        recording="train-{sequence}",
        case="train-{sequence}",
        case_basis="sequence",
        rate=Fraction(25),
        order=("number",),
        gaps="join",
        named_by=_PLACE,
        labels={"official_split": "train"},
    ),
    Labels(
        pattern=rf"{_TRAIN}/Annotation/(?P<frame>\d+)\.xml",
        read=voc_boxes,
        recording=("train-{sequence}",),
        frame="{frame}",
        named_by=_PLACE,
    ),
    FrameFolders(
        pattern=rf"{_OTHER}/Image/(?P<sequence>\d+)/(?P<frame>\d+){IMAGE}",
        recording="{split}-{sequence}",
        case="{split}-{sequence}",
        case_basis="sequence",
        rate=Fraction(25),
        gaps="join",
        labels={"official_split": "{split}"},
    ),
    Labels(
        pattern=rf"{_OTHER}/Annotation/(?P<sequence>\d+)/(?P<frame>\d+)\.xml",
        read=voc_boxes,
        recording=("{split}-{sequence}",),
        frame="{frame}",
        complete_for="{split}-{sequence}",
    ),
    Sidecars(pattern=r"(?:.*/)?[^/]+\.(?:md|txt|pdf|csv)"),
)
