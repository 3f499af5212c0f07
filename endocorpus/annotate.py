"""Annotations of a recording -> rows and masks of its clips: on the right frame, in the coordinates of the clip."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endocorpus.geometry import Box, Placement, place
from endocorpus.labels import Unusable
from endocorpus.media.frames import read_mask
from endocorpus.records import Annotation, ClipPlan, Excluded, Kind, Reason, RecordingPlan, Span

Row = dict[str, object]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipAnnotations:
    """What is said about one clip: rows of `annotations.parquet`, and label maps (height, width) of objects by name,
    0 where there is none, otherwise its `instance + 1`."""

    rows: tuple[Row, ...]
    masks: Mapping[str, npt.NDArray[np.uint8]]


def clip_frames(span: Span, clip: ClipPlan) -> range:
    """The frames of a clip that show frames `span` of its recording."""
    first = -(-(max(span.start, clip.span.start) - clip.span.start) // clip.stride)
    last = -(-(min(span.stop, clip.span.stop) - clip.span.start) // clip.stride)
    return range(first, max(first, last))


def annotate_clips(
    plan: RecordingPlan, annotations: Sequence[Annotation], root: Path
) -> tuple[dict[str, ClipAnnotations], list[Unusable]]:
    """Rows and masks by clip key, for the clips that have any, and what turned out to be wrong.

    Args:
        annotations: of the recording, by frame, as `labels.read_labels` gives them.
        root: where the source's files lie.
    """
    placement = place(plan.facts, plan.cut, (plan.clips[0].width, plan.clips[0].height))
    starts = [clip.span.start for clip in plan.clips]
    rows: dict[str, list[Row]] = defaultdict(list)
    maps: dict[str, dict[str, npt.NDArray[np.uint8]]] = defaultdict(dict)
    wrong: list[Unusable] = []
    for span, group in groupby(annotations, key=lambda found: found.span):  # so that one frame's masks are open at once
        usable, opened, faults = _judge(list(group), placement, root)
        wrong += faults
        for clip in plan.clips[max(bisect_right(starts, span.start) - 1, 0) : bisect_right(starts, span.stop - 1)]:
            frames = clip_frames(span, clip)
            for found in usable if frames else ():
                mask = placement.mask(opened[found.mask]) if found.mask else None
                row = _row(found, frames, placement, mask)
                if row is None:
                    continue
                rows[clip.key].append({"key": clip.key, "recording_id": plan.recording.recording_id, **row})
                if mask is not None and row["mask"]:
                    _draw(maps[clip.key], str(row["mask"]), mask, (found.instance or 0) + 1)
    return {key: ClipAnnotations(rows=tuple(found), masks=maps.get(key, {})) for key, found in rows.items()}, wrong


def mask_bytes(masks: Mapping[str, npt.NDArray[np.uint8]]) -> bytes:
    """Label maps as an .npz; the bytes depend on the maps alone (numpy stamps every entry with one fixed date)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(sorted(masks.items())))
    return buffer.getvalue()


def _judge(
    group: Sequence[Annotation], placement: Placement, root: Path
) -> tuple[list[Annotation], dict[str, Mask], list[Unusable]]:
    """The annotations of one frame that can be used, its masks, (height, width) of the stored picture, and the rest."""
    opened: dict[str, Mask] = {}
    wrong: list[Unusable] = []

    def fault(found: Annotation, reason: Reason, detail: str) -> None:
        wrong.append(
            Unusable(reason=reason, origin=found.origin, detail=f"{found.where}: frame {found.span.start}: {detail}")
        )

    usable: list[Annotation] = []
    for found in group:
        if found.mask is not None:
            try:
                opened[found.mask] = read_mask(root / found.mask)
            except Excluded as excluded:
                fault(found, excluded.reason, excluded.detail)
                continue
            height, width = opened[found.mask].shape
            if (width, height) != placement.stored:
                stored = "{}x{}".format(*placement.stored)
                fault(found, Reason.MISPLACED, f"a mask of {width}x{height} for a picture of {stored}")
                continue
        usable.append(found)
    masks = [opened[found.mask] for found in usable if found.mask and found.label.name == "mask"]
    beside = [found for found in usable if found.box and masks and not any(_meet(found.box, mask) for mask in masks)]
    for found in beside:
        fault(found, Reason.MISPLACED, "the box and the mask do not meet; x and y may be swapped")
    return [found for found in usable if found not in beside], opened, wrong


def _meet(box: Box, mask: Mask) -> bool:
    """Whether any of the mask lies in the box; an empty mask says nothing."""
    xmin, ymin, xmax, ymax = (max(round(value), 0) for value in box)
    return not mask.any() or bool(mask[ymin:ymax, xmin:xmax].any())


def _row(found: Annotation, frames: range, placement: Placement, mask: Mask | None) -> Row | None:
    """The row of an annotation on `frames` of a clip, or None if nothing of it is seen there."""
    kind, box, polygon = found.kind, found.box, placement.polygon(found.polygon)
    if box is not None:
        box = placement.box(box)
        if box is None:
            return None
    if polygon:
        xs, ys = polygon[::2], polygon[1::2]
        box = placement.seen((min(xs), min(ys), max(xs), max(ys)))
        if box is None:
            return None
    if mask is not None:
        box = _extent(mask)
        kind = Kind.MASK if box else Kind.NONE
    if box is not None:
        box = _stored(box)
        if not (box[0] < box[2] and box[1] < box[3]):
            return None
    xmin, ymin, xmax, ymax = box or (None, None, None, None)
    return {
        "frame": frames.start,
        "stop": frames.stop,
        "kind": str(kind),
        "name": found.label.name,
        "value": found.label.code,
        "raw": found.label.raw,
        "instance": found.instance,
        "xmin": xmin,
        "ymin": ymin,
        "xmax": xmax,
        "ymax": ymax,
        "polygon": list(polygon) or None,
        "mask": f"{found.label.name}-{frames.start:06d}" if kind == Kind.MASK else None,
        "notes": list(found.notes),
        "origin": found.origin,
    }


def _stored(box: Box) -> Box:
    """A box as a table of 32-bit numbers holds it."""
    xmin, ymin, xmax, ymax = (float(np.float32(value)) for value in box)
    return xmin, ymin, xmax, ymax


def _extent(mask: Mask) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _draw(maps: dict[str, npt.NDArray[np.uint8]], entry: str, mask: Mask, number: int) -> None:
    """Add an object to the label map of its frame; where two overlap, the later one is seen."""
    maps.setdefault(entry, np.zeros(mask.shape, np.uint8))[mask] = number
