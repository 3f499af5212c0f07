"""Plans and clips as rows of the manifests, and as the JSON card that travels beside each clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from endocorpus.corpus.schema import EDGES
from endocorpus.corpus.shards import Member
from endocorpus.deid.checks import CHECKS
from endocorpus.naming import printable
from endocorpus.records import EncodedClip, Exclusion, Label, RecordingPlan
from endocorpus.sources.layout import Source

Row = dict[str, object]


def _labels(labels: Sequence[Label]) -> list[Row]:
    return [{"name": label.name, "value": label.code, "raw": label.raw} for label in labels]


def _common(plan: RecordingPlan, clip: EncodedClip, source: Source) -> Row:
    """What a clip's card and its manifest row both say."""
    recording = plan.recording
    return {
        "source": source.name,
        "recording_id": recording.recording_id,
        "case_id": recording.case_id,
        "leak_group": recording.leak_group,
        "start_frame": clip.plan.span.start,
        "stop_frame": clip.plan.span.stop,
        "stride": clip.plan.stride,
        "num_frames": clip.num_frames,
        "rate_num": clip.rate.numerator,
        "rate_den": clip.rate.denominator,
        "width": clip.plan.width,
        "height": clip.plan.height,
        "licence": source.licence,
    }


def card(plan: RecordingPlan, clip: EncodedClip, source: Source) -> Row:
    """The JSON member of a sample: enough to use the clip without the manifest."""
    return _common(plan, clip, source) | {"key": clip.plan.key, "labels": _labels(plan.labels)}


def clip_row(plan: RecordingPlan, clip: EncodedClip, source: Source, shard: str, members: Sequence[Member]) -> Row:
    """The manifest row of a clip, given the members of its sample."""
    json, mp4 = members[:2]
    masks = members[2] if len(members) > 2 else None
    return _common(plan, clip, source) | {
        "key": clip.plan.key,
        "shard": shard,
        "mp4_offset": mp4.offset,
        "mp4_size": mp4.size,
        "mp4_xxh3_128": mp4.digest,
        "json_offset": json.offset,
        "json_size": json.size,
        "json_xxh3_128": json.digest,
        "masks_offset": masks.offset if masks else None,
        "masks_size": masks.size if masks else None,
        "masks_xxh3_128": masks.digest if masks else None,
        "keyframes": list(clip.keyframes),
        "labels": _labels(plan.labels),
        "quality": {"mean_luma": clip.mean_luma, "sharpness": clip.sharpness},
        "consent": source.vouched_by,
        "status": "ready",
    }


def recording_row(plan: RecordingPlan, source: Source) -> Row:
    recording, facts = plan.recording, plan.facts
    capture = plan.examined_rate if plan.examined_rate != facts.rate else None
    public = source.privacy == "public"
    return {
        "recording_id": recording.recording_id,
        "source": source.name,
        "path": recording.subject if public else None,
        "name": printable(recording.name) if public else None,
        "media_kind": recording.media.kind,
        "num_files": len(recording.media.paths),
        "case_id": recording.case_id,
        "case_name": printable(recording.case_name) if public else None,
        "case_basis": recording.case_basis,
        "leak_group": recording.leak_group,
        "leak_group_name": printable(recording.leak_group_name) if public and recording.leak_group_name else None,
        "links": list(recording.links) if public else None,
        "num_frames": facts.num_frames,
        "rate_num": facts.rate.numerator,
        "rate_den": facts.rate.denominator,
        "capture_rate_num": capture.numerator if capture else None,
        "capture_rate_den": capture.denominator if capture else None,
        "variable_rate": facts.variable_rate,
        "width": facts.width,
        "height": facts.height,
        "stored_width": facts.stored_width,
        "stored_height": facts.stored_height,
        "codec": facts.codec,
        "container": facts.container,
        "bytes": facts.bytes if public else None,
        "media_xxh3_128": facts.digest if public else None,
        "labels": _labels(plan.labels),
        "num_clips": len(plan.clips),
    }


def deid_row(plan: RecordingPlan, source: Source) -> Row:
    clearance = plan.clearance
    return {
        "recording_id": plan.recording.recording_id,
        "status": "cleared",
        "cleared_by": clearance.by,
        "looked_for": list(clearance.looked_for),
        "removed": _counted(clearance.removed),
        "measures": list(clearance.measures),
        "doubts": list(clearance.doubts),
        "crop": dict(zip(EDGES, plan.cut.shows(plan.facts), strict=True)),
        "boxes": [
            {"start": part.span.start, "stop": part.span.stop, **dict(zip(EDGES, box, strict=True))}
            for part in clearance.boxes
            for box in part.rectangles
        ],
        "outside": _counted(clearance.outside),
        "outside_frames": plan.facts.num_frames - sum(map(len, clearance.kept)),
        "parameters": clearance.parameters,
        "checks": _counted(dict.fromkeys(CHECKS[source.privacy], 0)),  # any finding destroys the clips
    }


def _counted(counts: Mapping[str, int]) -> list[Row]:
    return [{"what": what, "count": count} for what, count in sorted(counts.items())]


def excluded_row(exclusion: Exclusion) -> Row:
    return dataclasses.asdict(exclusion) | {"stage": str(exclusion.stage), "reason": str(exclusion.reason)}
