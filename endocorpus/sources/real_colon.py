"""REAL-Colon: sixty whole colonoscopies of four studies as numbered images, a box around every polyp that was removed.

Images count from 1 without padding. A frame without a lesion has a label file without an object. Boxes name their
lesion, whose histology stands in a table. The README calls the label folders `_annotation`, the provider's scripts
`_annotations`; both are taken. Age and sex stay in the table: no clip needs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from endocorpus.sources.layout import IMAGE, FrameFolders, LabelError, Labels, Layout, Note, Sidecars
from endocorpus.sources.readers import rows_of, table, voc_objects

_VIDEO = r"(?:.*/)?(?P<video>(?P<study>\d{3})-\d{3})"


@lru_cache(maxsize=8)
def histologies(path: Path, time: int) -> Mapping[str, str]:
    """Histology by lesion; `time` is when the table was last written. The scan tells of a table that is damaged."""
    try:
        rows = rows_of(path, ",", ("unique_object_id", "histology_class"))
    except LabelError:
        return {}
    return {row["unique_object_id"]: row["histology_class"] for row in rows if row["histology_class"]}


def lesion_boxes(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """A VOC file per frame. The number of a box is its lesion's, so that one lesion keeps it through the recording."""
    above = path.parents[1:3]  # archives that are unpacked each into a folder of its name lie one folder deeper
    tables = [each for folder in above if (each := folder / "lesion_info.csv").is_file()]
    known = histologies(tables[0], tables[0].stat().st_mtime_ns) if tables else {}
    for note, element in voc_objects(path):
        lesion = (element.findtext("unique_id") or "").strip()
        number = lesion.rpartition("_")[2]
        instance = int(number) if number.isdecimal() and len(number) < 9 else note.instance
        yield replace(note, raw=known.get(lesion, note.raw), instance=instance)


LAYOUT: Layout = (
    FrameFolders(
        pattern=rf"{_VIDEO}_frames/(?P=video)_(?P<frame>\d+){IMAGE}",
        recording="{video}",
        case="{video}",
        case_basis="patient",
        rate=Fraction(30),  # where video_info.csv has none
        labels={"study": "{study}"},
    ),
    Labels(
        pattern=rf"{_VIDEO}_annotations?/(?P=video)_(?P<frame>\d+)\.xml",
        read=lesion_boxes,
        recording=("{video}",),
        frame="{video}_{frame}",
        complete_for="{video}",
    ),
    Labels(
        pattern=r"(?:.*/)?video_info\.csv",
        read=table("unique_video_name", {"fps": "frames_per_second", "endoscope_brand": "endoscope", "bbps": "bbps"}),
    ),
    Labels(
        pattern=r"(?:.*/)?lesion_info\.csv",
        read=table("unique_video_name", {"histology_class": "finding", "site": "site", "size [mm]": "size_mm"}),
    ),
    Sidecars(pattern=r"(?:.*/)?[^/]+\.(?:md|txt|pdf)"),
)
