"""What `deid.parquet` tells of each recording, as the review and the attestation want it."""

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
_RECORDING = ("recording_id", "num_frames", "rate_num", "rate_den")
_CAPTURE = ("capture_rate_num", "capture_rate_den")
_Row = Mapping[str, Any]


def masks_of(corpus: Corpus) -> dict[str, ClipMask]:
    """The filled boxes of every clip, and how doubtful it is, by key.

    The score of a clip is a sum: one for each doubt about its recording, one if frames beside it were left out because
    they were, or might be, outside the body, one if anything is filled in it, and the share of the picture that is.

    Raises:
        DataError: a table is missing or damaged.
    """
    said, lengths = _rows(corpus, "deid"), _rows(corpus, "recordings")
    return {
        clip["key"]: _mask(clip, beside, said[recording])
        for recording, clips in _clips(corpus).items()
        for clip, beside in zip(clips, _borders(clips, lengths[recording]["num_frames"]), strict=True)
    }


def _mask(clip: _Row, beside: bool, said: _Row) -> ClipMask:
    boxes = _placed(clip, said)
    near = beside and said["outside_frames"] > 0
    share = covered_pixels(boxes, _size(clip)) / (clip["width"] * clip["height"])
    return ClipMask(boxes=boxes, score=len(set(said["doubts"])) + near + bool(boxes) + share)


def _placed(clip: _Row, said: _Row) -> tuple[MaskBox, ...]:
    return place_boxes(
        [(_edges(box), Span(start=box["start"], stop=box["stop"])) for box in said["boxes"]],
        crop=_edges(said["crop"]),
        clip=Span(start=clip["start_frame"], stop=clip["stop_frame"]),
        stride=clip["stride"],
        size=_size(clip),
    )


def _size(clip: _Row) -> tuple[int, int]:
    return clip["width"], clip["height"]


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
    recordings, clips = _rows(corpus, "recordings"), _clips(corpus)
    return {
        name: Findings(
            measures=tuple(map(Measure, said["measures"])),
            doubts=tuple(dict.fromkeys(said["doubts"])),
            outside_ms=int(said["outside_frames"] * 1000 / _rate(recordings[name])),
            parameters=said["parameters"],
            checks={Check(row["what"]): row["count"] for row in said["checks"]},
            masked_pixels={
                clip["key"]: covered_pixels(_placed(clip, said), _size(clip)) for clip in clips.get(name, ())
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
