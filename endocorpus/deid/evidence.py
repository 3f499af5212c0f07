"""What `deid.parquet` tells of each recording, as the review and the attestation want it.

A table without the columns of a measure says that the measure was not applied: only the pixel barrier holds for
whatever is in a corpus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from endocorpus.corpus.manifest import Corpus
from endocorpus.corpus.schema import EDGES
from endocorpus.deid.attest import Check, Measure
from endocorpus.deid.describe import Findings
from endocorpus.deid.review import ClipMask, MaskBox, covered_pixels, place_boxes
from endocorpus.records import Box, Span

_CLIP = ("key", "recording_id", "start_frame", "stop_frame", "stride", "width", "height")
_RECORDING = ("recording_id", "num_frames", "width", "height", "rate_num", "rate_den")
_CAPTURE = ("capture_rate_num", "capture_rate_den")
_Row = Mapping[str, Any]


def masks_of(corpus: Corpus) -> dict[str, ClipMask]:
    """The filled boxes of every clip, and how doubtful it is, by key.

    The score of a clip is a sum: one for each doubt about its recording, one if frames beside it were left out because
    they were, or might be, outside the body, one if anything is filled in it, and the share of the picture that is.

    Raises:
        DataError: a table is missing or damaged.
    """
    said, sizes = _rows(corpus, "deid"), _rows(corpus, "recordings")
    return {
        clip["key"]: _mask(clip, beside, said[recording], sizes[recording])
        for recording, clips in _clips(corpus).items()
        for clip, beside in zip(clips, _borders(clips, sizes[recording]["num_frames"]), strict=True)
    }


def _mask(clip: _Row, beside: bool, said: _Row, recording: _Row) -> ClipMask:
    boxes, size = _placed(clip, said, recording), (clip["width"], clip["height"])
    near = beside and bool(said.get("outside_frames"))
    share = covered_pixels(boxes, size) / (size[0] * size[1])
    return ClipMask(boxes=boxes, score=len(set(said.get("doubts") or ())) + near + bool(boxes) + share)


def _placed(clip: _Row, said: _Row, recording: _Row) -> tuple[MaskBox, ...]:
    crop = said.get("crop")
    return place_boxes(
        [(_edges(box), Span(start=box["start"], stop=box["stop"])) for box in said.get("boxes") or ()],
        crop=_edges(crop) if crop else (0, 0, recording["width"], recording["height"]),
        clip=Span(start=clip["start_frame"], stop=clip["stop_frame"]),
        stride=clip["stride"],
        size=(clip["width"], clip["height"]),
    )


def _edges(box: _Row) -> Box:
    left, top, right, bottom = (box[edge] for edge in EDGES)
    return left, top, right, bottom


def _borders(clips: Sequence[_Row], num_frames: int) -> Iterator[bool]:
    """For each clip, in their order, whether frames of the recording right before or after it are in no clip."""
    stops = [0, *(clip["stop_frame"] for clip in clips)]
    starts = [*(clip["start_frame"] for clip in clips), num_frames]
    for clip, before, after in zip(clips, stops[:-1], starts[1:], strict=True):
        yield clip["start_frame"] > before or clip["stop_frame"] < after


def findings_of(corpus: Corpus) -> dict[str, Findings]:
    """What `recording_facts` wants to know, by recording id.

    Raises:
        DataError: a table is missing or damaged.
    """
    sizes, clips, masks = _rows(corpus, "recordings"), _clips(corpus), masks_of(corpus)
    return {
        name: Findings(
            measures=tuple(map(Measure, said.get("measures") or [Measure.PIXEL_BARRIER])),
            doubts=tuple(dict.fromkeys(said.get("doubts") or ())),
            outside_ms=int((said.get("outside_frames") or 0) * 1000 / _rate(sizes[name])),
            **({"parameters": said["parameters"]} if said.get("parameters") else {}),
            checks={Check(row["what"]): row["count"] for row in said.get("checks") or ()},
            masked_pixels={
                clip["key"]: covered_pixels(masks[clip["key"]].boxes, (clip["width"], clip["height"]))
                for clip in clips.get(name, ())
            },
        )
        for name, said in _rows(corpus, "deid").items()
    }


def _rate(recording: _Row) -> Fraction:
    """Frames per second of the recording in the time of the examination."""
    capture = Fraction(recording[_CAPTURE[0]], recording[_CAPTURE[1]]) if recording[_CAPTURE[0]] else None
    return capture or Fraction(recording["rate_num"], recording["rate_den"])


def _rows(corpus: Corpus, table: str) -> dict[str, _Row]:
    found = corpus.table(table)
    rows = (found.select([*_RECORDING, *_CAPTURE]) if table == "recordings" else found).to_pylist()
    return {row["recording_id"]: row for row in rows}


def _clips(corpus: Corpus) -> dict[str, list[_Row]]:
    """The clips of each recording, in their order."""
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in corpus.clips().select(list(_CLIP)).to_pylist():
        found[row["recording_id"]].append(row)
    return {name: sorted(rows, key=lambda row: row["start_frame"]) for name, rows in found.items()}
