"""Kvasir-Capsule: 117 examinations with a video capsule, two pictures a second in a container that says thirty.

A video is one examination. `metadata.csv` labels frames, some of them twice, and outlines findings with four corners;
`metadata.json` adds segments, and says which outlines a program interpolated. Names of classes differ between folders,
tables and splits. Labelled images repeat frames of the videos, and their names say which.

Not seen by anyone here: whether frame numbers start at 0 (assumed) or 1, and whether a segment holds its last frame
(assumed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from endocorpus.records import Kind
from endocorpus.sources.layout import IMAGE, VIDEO, LabelError, Labels, Layout, Note, Sidecars, Videos
from endocorpus.sources.readers import from_name, json_of, numbers_in, rows_of

_ID = r"(?P<video>[0-9a-f]{16})"
_CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")


def frame_table(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """``metadata.csv``: a class per frame, and the corners of a finding where it was outlined."""
    for row in rows_of(
        path, ";", ("video_id", "frame_number", "finding_category", "finding_class", *_CORNERS), ragged=True
    ):
        video, frame, raw = row["video_id"], row["frame_number"], row["finding_class"]
        label = Note(kind=Kind.LABEL, name="finding", raw=raw, recording=video, frame=frame)
        yield label
        yield replace(label, name="category", raw=row["finding_category"])
        corners = [row[name] for name in _CORNERS]
        if any(corners):
            outline = numbers_in(corners, f"the corners of frame {frame}", len(_CORNERS))
            yield replace(label, kind=Kind.POLYGON, polygon=outline)


def split_list(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """``official_splits/split_0.csv``: labelled images of one side, named by video and frame, some of them twice."""
    images = [row["filename"].partition(".")[0] for row in rows_of(path, ",", ("filename", "label"))]
    for video in sorted({image.rpartition("_")[0] for image in images}):
        yield Note(kind=Kind.LABEL, name="official_split", raw=names["split"], recording=video)


def segments(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """``metadata.json``: spans of frames by video, and outlines with how they came about."""
    try:
        for video, said in json_of(path).items():
            for segment in said.get("segments", {}).values():
                raw = str(segment["metadata"]["segment_type"])
                for first, last in segment.get("seen", []):
                    span = Note(kind=Kind.LABEL, name="segment", raw=raw, recording=video, frame=str(first))
                    yield replace(span, last=str(last))
            for finding in said.get("findings", {}).values():
                for frame, shape in finding["frames"].items():
                    marks = tuple(mark for mark in ("blurry", "interpolated") if shape.get(mark))
                    outline = tuple(float(corner[axis]) for corner in shape["shape"] for axis in ("x", "y"))
                    yield Note(
                        kind=Kind.POLYGON,
                        name="outline",
                        raw=str(finding["metadata"]["name"]),
                        recording=video,
                        frame=frame,
                        polygon=outline,
                        notes=marks,
                    )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise LabelError(f"not the expected JSON: {type(error).__name__} {error}") from None


LAYOUT: Layout = (
    Videos(
        pattern=rf"(?:.*/)?(?P<labelled>(?:un)?labell?ed)_videos/{_ID}{VIDEO}",
        recording="{video}",
        case="{video}",
        case_basis="exam",
        labels={"part": "{labelled}"},
        capture_rate=Fraction(2),
    ),
    Labels(pattern=r"(?:.*/)?metadata\.csv", read=frame_table),
    Labels(pattern=r"(?:.*/)?official_splits/(?P<split>split_\d+)\.csv", read=split_list),
    Labels(pattern=r"(?:.*/)?metadata\.json", read=segments),
    Labels(
        pattern=rf"(?:.*/)?labell?ed_images/(?:.*/)?(?P<class>[^/]+)/{_ID}_(?P<frame>\d+){IMAGE}",
        read=from_name(finding="{class}"),
        recording=("{video}",),
        frame="{frame}",
    ),
    Sidecars(pattern=r"(?:.*/)?labell?ed_images/.*\.tar\.gz", what="still image"),
    Sidecars(pattern=r"(?:.*/)?(?:official_splits/.*|[^/]+\.(?:csv|json|md|txt|pdf))"),
)
