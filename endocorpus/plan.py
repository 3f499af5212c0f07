"""Recording -> RecordingPlan: facts, the privacy decision, and the clips. No pixel is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from endocorpus.config import BuildConfig
from endocorpus.deid.decide import decide
from endocorpus.media.encode import picture_size
from endocorpus.media.probe import probe
from endocorpus.records import ClipPlan, Recording, RecordingPlan
from endocorpus.segment import segment
from endocorpus.sources.layout import Source


def join_identical(plans: Sequence[RecordingPlan]) -> list[RecordingPlan]:
    """Give recordings of equal bytes one leak group, and with them the groups that they belong to.

    A copy under another name, or a link, is the same patient in both places.
    """
    groups: dict[str, str] = {}  # leak group -> a group that it is joined with

    def find(group: str) -> str:
        while groups.get(group, group) != group:
            group = groups[group]
        return group

    first: dict[str, str] = {}
    for plan in plans:
        ours = find(plan.recording.leak_group)
        theirs = find(first.setdefault(plan.facts.digest, ours))
        groups[max(ours, theirs)] = min(ours, theirs)
    return [
        replace(plan, recording=replace(plan.recording, leak_group=find(plan.recording.leak_group))) for plan in plans
    ]


def plan_recording(recording: Recording, root: Path, source: Source, config: BuildConfig) -> RecordingPlan:
    """Decide everything about one recording.

    Raises:
        Excluded: it cannot or may not become clips.
    """
    facts = probe(recording.media, root)
    clearance = decide(source, facts)
    width, height = picture_size(facts.width, facts.height, config.encode)
    spans = segment(facts.num_frames, facts.rate, config.segment)
    clips = tuple(
        ClipPlan(key=f"{recording.recording_id}-{span.start:07d}", span=span, width=width, height=height)
        for span in spans
    )
    return RecordingPlan(recording=recording, facts=facts, clearance=clearance, clips=clips)
